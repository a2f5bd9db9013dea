//! What operators ask about routes: why one is taken, what changed, how peers exchange theirs.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use rialto_connector::{
    Connector, ListenerState, Loss, PeerRoutes, RouteChange, RouteLoss, RouteMode, RouteSource,
};
use rialto_ledger::AccountId;
use rialto_packet::Address;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead},
    extract, rfc3339,
    routes::{name, shape, source},
    shapes::{self, Amount, Route},
};

/// Which destination.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainQuery {
    /// An ILP address.
    #[param(example = "g.far.away")]
    destination: String,
    /// Who pays: the account whose packets are looked at.
    from: Option<String>,
    /// Units of its asset.
    amount: Option<Amount>,
}

/// A route that a destination could take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RouteExplained {
    /// The route.
    #[serde(flatten)]
    route: Route,
    /// Whether it is the one that is taken.
    taken: bool,
    /// Why it is not taken; null for the one that is.
    #[schema(example = "its path is longer")]
    lost: Option<String>,
}

/// What an amount becomes on its way through the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RouteConversion {
    /// Code of the payer's asset.
    from_asset_code: String,
    /// Its scale.
    from_asset_scale: u8,
    /// Code of the next hop's asset.
    to_asset_code: String,
    /// Its scale.
    to_asset_scale: u8,
    /// Units of the next hop's asset for one of the payer's.
    rate: Option<String>,
    /// Part that is kept of it.
    spread: Option<String>,
    /// Part that is kept of all that the payer sends, beside it.
    account_spread: Option<String>,
    /// What the next hop gets of the amount.
    amount_out: Option<Amount>,
    /// Why nothing can be converted.
    #[schema(example = "fx.no_rate")]
    reason: Option<String>,
}

/// Where packets for a destination go, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Explanation {
    /// The destination.
    destination: String,
    /// Every route that it could take, the one that it takes first. Empty where there is none.
    routes: Vec<RouteExplained>,
    /// Where `from` was given.
    conversion: Option<RouteConversion>,
}

/// Where packets for a destination go, and why not elsewhere.
#[utoipa::path(
    get,
    path = "/v1/routes/explain",
    operation_id = "explain_route",
    tag = "routes",
    security(("bearer" = ["read"])),
    params(ExplainQuery),
    responses(
        (status = 200, description = "All routes that it could take", body = Explanation),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn explain(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<ExplainQuery>,
) -> Result<Json<Explanation>, Problem> {
    let destination: Address = query.destination.parse().map_err(|error| {
        let detail = format!("'{}': {error}", query.destination);
        Problem::invalid("destination", detail)
    })?;
    api.node.read(|connector| {
        let explained = connector.route_explain(destination.as_ref());
        let taken = explained.iter().find(|one| one.loss.is_none());
        let payee = taken.and_then(|one| one.route.account);
        let conversion = match (&query.from, payee) {
            (None, _) if query.amount.is_some() => {
                return Err(Problem::invalid(
                    "from",
                    "is missing: whose units is the amount?",
                ));
            }
            (Some(from), Some(payee)) => {
                let payer = connector.ledger().account_by_name(from);
                let payer = payer.ok_or_else(|| Problem::not_found("account", from))?;
                conversion(connector, payer.id, payee, query.amount)
            }
            (None | Some(_), _) => None,
        };
        let routes = explained.iter().map(|one| RouteExplained {
            route: shape(connector, &one.route),
            taken: one.loss.is_none(),
            lost: one.loss.map(|loss| words(loss).to_owned()),
        });
        Ok(Json(Explanation {
            destination: destination.to_string(),
            routes: routes.collect(),
            conversion,
        }))
    })
}

fn conversion(
    connector: &Connector,
    payer: AccountId,
    payee: AccountId,
    amount: Option<Amount>,
) -> Option<RouteConversion> {
    let asset = |id| Some(&connector.ledger().account(id)?.settings.asset);
    let (from, to) = (asset(payer)?, asset(payee)?);
    let quote = connector.route_quote(payer, payee, amount.map(|amount| amount.0));
    let (quote, reason) = match quote {
        Ok(quote) => (Some(quote), None),
        Err(reason) => (None, Some(reason.row().word.to_owned())),
    };
    Some(RouteConversion {
        from_asset_code: from.code().to_owned(),
        from_asset_scale: from.scale(),
        to_asset_code: to.code().to_owned(),
        to_asset_scale: to.scale(),
        rate: quote.as_ref().map(|quote| quote.rate.clone()),
        spread: quote.as_ref().map(|quote| quote.spread.clone()),
        account_spread: quote
            .as_ref()
            .and_then(|quote| quote.account_spread.clone()),
        amount_out: quote.and_then(|quote| quote.amount_out).map(Amount),
        reason,
    })
}

fn words(loss: RouteLoss) -> &'static str {
    match loss {
        RouteLoss::Shorter => "another prefix fits more of the destination",
        RouteLoss::Preferred(Loss::Gone) => "its neighbour no longer tells it",
        RouteLoss::Preferred(Loss::Source) => {
            "a better source: static, own, account, parent, learnt"
        }
        RouteLoss::Preferred(Loss::Kin) => {
            "children come before peers, and peers before the parent"
        }
        RouteLoss::Preferred(Loss::Longer) => "its path is longer",
        RouteLoss::Preferred(Loss::Account) => "all else being equal, the older account is taken",
        RouteLoss::Preferred(Loss::Unwell) => "its account is not connected or failed lately",
        RouteLoss::Preferred(Loss::Share) => "another share of the destinations goes there",
    }
}

/// Where a route led.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RouteEnd {
    /// Why it was there.
    source: shapes::RouteSource,
    /// Next hop; null for the node itself, and for an account that is gone.
    account: Option<String>,
}

/// A change of the best route for a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Change {
    /// When.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// Of the destination.
    prefix: String,
    /// Null where there was none.
    before: Option<RouteEnd>,
    /// Null where there is none any more.
    after: Option<RouteEnd>,
}

/// The last changes of routes, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Changes {
    /// At most 1,000 are kept.
    changes: Vec<Change>,
}

/// The last changes of routes, newest first; 1,000 are kept.
#[utoipa::path(
    get,
    path = "/v1/routes/changes",
    operation_id = "list_route_changes",
    tag = "routes",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "The changes", body = Changes),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn changes(_: Allowed<ToRead>, State(api): State<Api>) -> Json<Changes> {
    Json(api.node.read(|connector| {
        let end = |end: (AccountId, RouteSource)| RouteEnd {
            source: source(end.1),
            account: name(connector, end.0),
        };
        let change = |change: &RouteChange| Change {
            at: rfc3339(change.at.unix_ms()),
            prefix: change.prefix.to_string(),
            before: change.before.map(end),
            after: change.after.map(end),
        };
        Changes {
            changes: connector.route_changes().rev().map(change).collect(),
        }
    }))
}

/// How routes are exchanged with a peer by CCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Exchange {
    /// The account.
    account: String,
    /// `off`, `asking`, `syncing`, `synced`, `not_spoken` (the peer does not speak CCP) or `refused`.
    #[schema(example = "synced")]
    receiving: String,
    /// The peer's table.
    their_table: String,
    /// How far it is known.
    their_epoch: u32,
    /// How long its routes hold unless it is heard of again.
    holds_ms: Option<u64>,
    /// Routes that were learnt from it.
    learnt: u32,
    /// Most that are taken.
    learnt_max: u32,
    /// Whether it asked to be told, and is.
    sending: bool,
    /// The node's table as the peer knows it.
    our_table: String,
    /// How far the peer was told.
    our_epoch: u32,
    /// Updates that came from it.
    updates_in: u64,
    /// When the last one came.
    #[schema(format = DateTime)]
    updated_at: Option<String>,
    /// Updates that were sent to it.
    updates_out: u64,
    /// Routes in those.
    routes_out: u64,
    /// What was wrong with what it told, and how often.
    troubles: BTreeMap<String, u64>,
}

/// How routes are exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Exchanges {
    /// With each peer that takes part.
    peers: Vec<Exchange>,
    /// Prefixes in the table. Accounts below the node's own address are found by their names and need none.
    route_count: usize,
    /// Routes that come and go too often and are not used for now.
    damped_count: usize,
}

/// How routes are exchanged with each peer.
#[utoipa::path(
    get,
    path = "/v1/routes/peers",
    operation_id = "list_route_peers",
    tag = "routes",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "The peers", body = Exchanges),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn peers(_: Allowed<ToRead>, State(api): State<Api>) -> Json<Exchanges> {
    Json(api.node.read(|connector| {
        let accounts = connector.ledger().accounts();
        let peers = accounts.filter_map(|account| {
            let peer = connector.peer_routes(account.id)?;
            Some(exchange(account.settings.name.clone(), peer))
        });
        Exchanges {
            peers: peers.collect(),
            route_count: connector.route_count(),
            damped_count: connector.damped_count(),
        }
    }))
}

fn exchange(account: String, peer: PeerRoutes) -> Exchange {
    let receiving = match peer.listening {
        ListenerState::Off => "off",
        ListenerState::Asking => "asking",
        ListenerState::Syncing => "syncing",
        ListenerState::Synced => "synced",
        ListenerState::NotSpoken => "not_spoken",
        ListenerState::Refused => "refused",
    };
    let troubles = peer.troubles.into_iter();
    Exchange {
        account,
        receiving: receiving.to_owned(),
        their_table: peer.their_table.0.to_string(),
        their_epoch: peer.their_table.1,
        holds_ms: peer.holds_ms,
        learnt: peer.learnt_count,
        learnt_max: peer.learnt_max,
        sending: peer.speaking == RouteMode::Sync,
        our_table: peer.our_table.0.to_string(),
        our_epoch: peer.our_table.1,
        updates_in: peer.updates_in,
        updated_at: peer.updated_at.and_then(|at| rfc3339(at.unix_ms())),
        updates_out: peer.updates_out,
        routes_out: peer.routes_out,
        troubles: troubles
            .map(|(trouble, count)| (trouble.word().to_owned(), count))
            .collect(),
    }
}
