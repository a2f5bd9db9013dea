//! `POST /v1/accounts/{name}/doctor`: everything between this node and a neighbour, step by step,
//! with the node's own tokens; and what a node tells a neighbour that asks how it sees their link.

use std::time::Instant;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{Request, StatusCode},
};
use rialto_connector::{Connector, Event, command::PingOutcome};
use rialto_ledger::{Account, AccountId, Relation};
use rialto_packet::{Address, money::Asset};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    accounts::{find, fulfills_in},
    auth::{Allowed, ToPay},
    ccp, extract, health,
    node::Handle,
    payments::outcome,
    peering::Stage,
    shapes::{AccountRelation, Amount, Link, SignedAmount},
    wall_ms,
};

/// Where a node tells a neighbour how it sees their link, on its node listener.
pub const LINK_PATH: &str = "/.well-known/rialto/link";

/// Clocks may differ by so much: packets live at least a second per hop. Milliseconds.
const CLOCK_MS_MAX: i64 = 500;
/// A `Date` header has whole seconds.
const CLOCK_DATE_MS_MAX: i64 = 1_500;

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// As it should.
    Pass,
    /// It does not apply, or cannot be found out.
    Skip,
    /// Not as it should.
    Fail,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Which step.
    #[schema(example = "tls")]
    pub check: String,
    /// How it went.
    pub verdict: CheckVerdict,
    /// Names the mistake, where it failed.
    #[schema(example = "tls.expired")]
    pub mistake: Option<String>,
    /// What was seen, for people.
    pub detail: String,
}

impl Check {
    pub(crate) fn pass(check: &str, detail: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Pass, None, detail.into())
    }

    pub(crate) fn skip(check: &str, detail: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Skip, None, detail.into())
    }

    pub(crate) fn fail(check: &str, mistake: &str, detail: impl Into<String>) -> Self {
        let mistake = Some(mistake.to_owned());
        Self::new(check, CheckVerdict::Fail, mistake, detail.into())
    }

    fn new(check: &str, verdict: CheckVerdict, mistake: Option<String>, detail: String) -> Self {
        let check = check.to_owned();
        Self {
            check,
            verdict,
            mistake,
            detail,
        }
    }
}

/// What the node found out on connections of its own.
#[derive(Debug, Clone, Default)]
pub struct Probed {
    /// Step by step. After one that fails, those that need it are missing.
    pub checks: Vec<Check>,
    /// What the neighbour said at [`LINK_PATH`], as it came.
    pub link: Option<Bytes>,
    /// The neighbour's clock in whole seconds, as milliseconds since 1970.
    pub date_ms: Option<i64>,
    /// Our address and the asset, as a parent told them.
    pub config: Option<(String, Asset)>,
}

/// What was found out about a neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Diagnosis {
    /// Name of the account.
    account: String,
    /// Whether no step failed.
    healthy: bool,
    /// The steps, in order. After one that fails, those that need it are missing.
    checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DoctorQuery {
    /// The local account that pays the one unit of the round trip; any where it is left out.
    #[param(required = false)]
    from: Option<String>,
}

/// How a node sees the link to the neighbour that asks.
#[derive(Debug, Serialize, Deserialize)]
struct LinkCard {
    name: String,
    time_ms: i64,
    ilp_address: Option<String>,
    /// The neighbour's account, and what it says.
    account: String,
    account_address: Option<String>,
    relation: AccountRelation,
    asset_code: String,
    asset_scale: u8,
    paused: bool,
    available: SignedAmount,
    packet_amount_max: Option<Amount>,
    /// Whether it tells the neighbour its routes, and asks for the neighbour's. Earlier versions do not say.
    #[serde(default)]
    sends_routes: Option<bool>,
    #[serde(default)]
    receives_routes: Option<bool>,
    /// How it went when this node sent a packet to the neighbour's URL just now; missing where it
    /// has none.
    call: Option<Check>,
}

/// What our books say about the neighbour.
struct Ours {
    id: AccountId,
    relation: AccountRelation,
    asset: Asset,
    node_address: Option<Address>,
    address: Option<Address>,
    link: Link,
    sends_http: bool,
    payer: Option<String>,
}

/// Goes through everything between this node and a neighbour, and names what is wrong.
#[utoipa::path(
    post,
    path = "/v1/accounts/{name}/doctor",
    operation_id = "diagnose_account",
    tag = "peering",
    security(("bearer" = ["pay"])),
    params(("name" = String, Path, description = "Name of the account"), DoctorQuery),
    responses(
        (status = 200, description = "What was found out", body = Diagnosis),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn diagnose(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Path(name): extract::Path,
    extract::Query(query): extract::Query<DoctorQuery>,
) -> Result<Json<Diagnosis>, Problem> {
    let mut checks = Vec::new();
    let ours = api.node.read(|connector| {
        let account = find(connector, &name)?;
        if account.settings.relation == Relation::Local {
            let detail = "is a local account: there is no neighbour behind it";
            return Err(Problem::invalid("name", detail));
        }
        examine_books(connector, account, &mut checks);
        Ok(ours(connector, account, query.from))
    })?;
    let probed = api.node.0.probe(ours.id, true).await;
    let is_reached = probed.checks.iter().all(is_fine);
    checks.extend(probed.checks);
    if is_reached {
        let link = probed.link.as_deref();
        let card: Option<LinkCard> = link.and_then(|link| serde_json::from_slice(link).ok());
        match (&card, &probed.config) {
            (Some(card), _) => examine_card(&ours, card, &mut checks),
            (None, config) => examine_hints(&ours, probed.date_ms, config.as_ref(), &mut checks),
        }
        let theirs = card.as_ref().map(|card| ccp::Theirs {
            sends: card.sends_routes,
            receives: card.receives_routes,
        });
        checks.push(match checks.iter().all(is_fine) {
            true => ccp::examine(&api, ours.id, theirs.unwrap_or_default()).await,
            false => Check::skip("ccp", "is looked at once the rest is as it should be"),
        });
        if checks.iter().all(is_fine) {
            round_trips(&api, &ours, card.is_some(), &mut checks).await;
        }
    }
    let healthy = checks.iter().all(is_fine);
    let (is_synced, fulfills) = api.node.read(|connector| {
        let account = connector.ledger().account(ours.id);
        let is_synced = account.is_some_and(|account| ccp::synced(connector, account).is_ok());
        (is_synced, fulfills_in(connector, ours.id))
    });
    let (stage, mistake) = (stage(&checks, is_synced), first_mistake(&checks));
    let peering = api.node.0.peering();
    peering.diagnosed(ours.id, stage, mistake, fulfills, wall_ms());
    Ok(Json(Diagnosis {
        account: name,
        healthy,
        checks,
    }))
}

fn is_fine(check: &Check) -> bool {
    check.verdict != CheckVerdict::Fail
}

fn first_mistake(checks: &[Check]) -> Option<String> {
    let failed = checks.iter().find(|check| !is_fine(check))?;
    let mistake = failed.mistake.as_deref().unwrap_or_default();
    Some(format!("{mistake}: {}", failed.detail))
}

/// How far it goes.
fn stage(checks: &[Check], is_synced: bool) -> Stage {
    let passed = |name: &str| {
        let mut of = checks.iter().filter(|check| check.check == name);
        of.any(|check| check.verdict == CheckVerdict::Pass)
    };
    if checks.iter().all(is_fine) {
        Stage::Established
    } else if passed("asset") && is_synced {
        Stage::RoutesSynced
    } else if passed("asset") {
        Stage::AssetVerified
    } else if passed("token_out") {
        Stage::Authenticated
    } else if passed("path")
        || (passed("tcp")
            && checks
                .iter()
                .all(|check| check.check != "tls" || is_fine(check)))
    {
        Stage::Reachable
    } else {
        Stage::Configured
    }
}

fn examine_books(connector: &Connector, account: &Account, checks: &mut Vec<Check>) {
    if account.settings.paused {
        let detail = "we have paused the account: `rialto account update NAME --paused false`";
        checks.push(Check::fail("account", "account.paused", detail));
    }
    let Some(address) = connector.address_of(account.id) else {
        let detail = "the account has no ILP address, so that no route leads to it";
        checks.push(match account.settings.relation {
            Relation::Parent => Check::skip("route", "the parent takes what nobody else does"),
            Relation::Peer | Relation::Child | Relation::Local => {
                Check::fail("route", "address.missing", detail)
            }
        });
        return;
    };
    checks.push(match connector.next_hop(&address) {
        Some(id) if id == account.id => {
            Check::pass("route", format!("packets for {address} go to this account"))
        }
        _ => {
            let detail = format!("packets for {address} go elsewhere: see `rialto route list`");
            Check::fail("route", "route.elsewhere", detail)
        }
    });
}

fn ours(connector: &Connector, account: &Account, from: Option<String>) -> Ours {
    let asset = &account.settings.asset;
    let payer = || {
        let locals = connector
            .ledger()
            .accounts()
            .filter(|local| local.settings.relation == Relation::Local && !local.settings.paused);
        // One that can pay a unit without a conversion, if there is one.
        let best = locals.min_by_key(|local| {
            (
                local.settings.asset != *asset,
                local.available() < 1,
                local.id,
            )
        });
        best.map(|local| local.settings.name.clone())
    };
    Ours {
        id: account.id,
        relation: account.settings.relation.into(),
        asset: asset.clone(),
        node_address: connector.address().cloned(),
        address: connector.address_of(account.id),
        link: health::link(connector, account.id),
        sends_http: account.settings.http.is_some(),
        payer: from.or_else(payer),
    }
}

/// What another Rialto node says.
fn examine_card(ours: &Ours, card: &LinkCard, checks: &mut Vec<Check>) {
    checks.push(clock(wall_ms() - card.time_ms, CLOCK_MS_MAX));
    checks.push(asset(&ours.asset, &card.asset_code, card.asset_scale));
    checks.push(addresses(ours, card));

    let fits = matches!(
        (ours.relation, card.relation),
        (AccountRelation::Peer, AccountRelation::Peer)
            | (AccountRelation::Parent, AccountRelation::Child)
            | (AccountRelation::Child, AccountRelation::Parent)
    );
    checks.push(if card.paused {
        let detail = "the peer has paused our account";
        Check::fail("relation", "account.paused_by_peer", detail)
    } else if fits {
        let detail = format!(
            "we are {:?} to them, as account {}",
            card.relation, card.account
        );
        Check::pass("relation", detail.to_lowercase())
    } else {
        let detail = format!(
            "we take them for a {:?}, they take us for a {:?}",
            ours.relation, card.relation
        );
        Check::fail("relation", "account.relation", detail.to_lowercase())
    });
    checks.push(match &card.call {
        Some(call) if is_fine(call) => {
            Check::pass("token_in", "the peer reaches us with its token")
        }
        Some(call) => {
            let mistake = call.mistake.as_deref().unwrap_or_default();
            let word = match mistake {
                "token.refused" | "certificate.refused" | "certificate.none" => "token.incoming",
                _ => "peer.cannot_reach_us",
            };
            let detail = format!("the peer cannot send to us ({mistake}): {}", call.detail);
            Check::fail("token_in", word, detail)
        }
        None if ours.link == Link::Up => {
            Check::pass("token_in", "packets come over the BTP session")
        }
        None if ours.sends_http => {
            let detail = "the peer has neither a URL of ours nor a BTP session: it can only answer";
            Check::fail("token_in", "peer.no_link", detail)
        }
        None => Check::skip("token_in", "packets come once the BTP session is up"),
    });
    let decimal = ours.asset.decimal(card.available.0);
    checks.push(if card.available.0 > 0 {
        let detail = format!("the peer accepts {decimal} {} of us", ours.asset.code());
        Check::pass("credit", detail)
    } else {
        let detail =
            "the peer gives us no credit, so that it takes no money from us before we are paid";
        Check::fail("credit", "credit.none", detail)
    });
    checks.push(match card.packet_amount_max {
        Some(max) => Check::pass(
            "packet_max",
            format!("the largest packet has {} units", max.0),
        ),
        None => Check::pass("packet_max", "packets of any amount"),
    });
}

fn addresses(ours: &Ours, card: &LinkCard) -> Check {
    let theirs = card.ilp_address.as_deref().unwrap_or_default();
    let taken_for = card.account_address.as_deref();
    let name = "ilp_address";
    if ours
        .node_address
        .as_ref()
        .is_some_and(|own| own.as_str() == theirs)
    {
        let detail = format!("the URL leads back to a node with our own address, {theirs}");
        return Check::fail(name, "address.self", detail);
    }
    if let Some(address) = &ours.address
        && address.as_str() != theirs
    {
        let detail = format!("we take the peer for {address}, and it is {theirs}");
        return Check::fail(name, "address.differs", detail);
    }
    match (taken_for, &ours.node_address) {
        (Some(taken_for), Some(own)) if taken_for != own.as_str() => {
            let detail = format!(
                "the peer takes us for {taken_for}, and we are {own}: answers and payments to us go astray"
            );
            Check::fail(name, "address.ours", detail)
        }
        (None, _) => {
            let detail = "the peer has no ILP address for us, so that it has no route to us";
            Check::fail(name, "route.to_us", detail)
        }
        _ => Check::pass(name, theirs),
    }
}

/// What other nodes let show.
fn examine_hints(
    ours: &Ours,
    date_ms: Option<i64>,
    config: Option<&(String, Asset)>,
    checks: &mut Vec<Check>,
) {
    checks.push(match date_ms {
        Some(date_ms) => clock(wall_ms() - date_ms, CLOCK_DATE_MS_MAX),
        None => Check::skip("clock", "the peer does not tell the time"),
    });
    let silent = "the peer does not say: compare with its operator";
    match config {
        None => {
            checks.push(Check::skip("asset", silent));
            checks.push(Check::skip("ilp_address", silent));
        }
        Some((address, told)) => {
            checks.push(asset(&ours.asset, told.code(), told.scale()));
            let own = ours.node_address.as_ref().map(Address::as_str);
            checks.push(match own {
                Some(own) if own == address => Check::pass("ilp_address", address.clone()),
                own => {
                    let own = own.unwrap_or("without an address");
                    let detail = format!("the peer takes us for {address}, and we are {own}");
                    Check::fail("ilp_address", "address.ours", detail)
                }
            });
        }
    }
    checks.push(match ours.link {
        Link::Up => Check::pass("token_in", "packets come over the BTP session"),
        Link::Down | Link::Http | Link::Local => Check::skip("token_in", silent),
    });
    checks.push(Check::skip("packet_max", silent));
}

fn clock(difference_ms: i64, max_ms: i64) -> Check {
    let seconds = format!(
        "{}.{:03} s",
        difference_ms.abs() / 1_000,
        difference_ms.abs() % 1_000
    );
    if difference_ms.abs() <= max_ms {
        return Check::pass("clock", format!("within {seconds}"));
    }
    let which = if difference_ms > 0 {
        "behind"
    } else {
        "ahead of"
    };
    let detail =
        format!("the peer's clock is {seconds} {which} ours: packets expire too early or too late");
    Check::fail("clock", "clock.off", detail)
}

fn asset(ours: &Asset, code: &str, scale: u8) -> Check {
    let detail = format!("we count in {ours}, the peer in {code}/{scale}");
    if ours.code() != code {
        Check::fail("asset", "asset.code", detail)
    } else if ours.scale() != scale {
        let detail = format!("{detail}: amounts would be wrong by powers of ten");
        Check::fail("asset", "asset.scale", detail)
    } else {
        Check::pass("asset", format!("{ours} on both sides"))
    }
}

/// A packet without money, then one with a unit, to the peer and back, as any other.
async fn round_trips(api: &Api, ours: &Ours, is_rialto: bool, checks: &mut Vec<Check>) {
    for (check, amount) in [("zero_packet", 0), ("one_unit", 1)] {
        let (Some(payer), Some(address)) = (&ours.payer, &ours.address) else {
            let detail = "needs a local account to send from, and the peer's address";
            checks.push(Check::skip(check, detail));
            continue;
        };
        let found = round_trip(api, check, amount, payer, address, is_rialto).await;
        let is_over = !is_fine(&found);
        checks.push(found);
        if is_over {
            return;
        }
    }
}

async fn round_trip(
    api: &Api,
    check: &str,
    amount: u64,
    payer: &str,
    address: &Address,
    is_rialto: bool,
) -> Check {
    let started = Instant::now();
    let mut events = api.node.0.events();
    let (from, to) = (payer.to_owned(), address.clone());
    let sent = api
        .node
        .execute(move |connector, now, out| connector.ping(now, &from, &to, amount, out));
    let number = match sent.await {
        Ok(Ok(number)) => number,
        Ok(Err(error)) => return Check::fail(check, "packet.unsent", error.message),
        Err(error) => return Check::fail(check, "packet.unsent", error.0),
    };
    let outcome = outcome(&mut events, |event| {
        let Event::PingDone {
            number: of,
            outcome,
        } = event
        else {
            return None;
        };
        (of == number).then_some(outcome)
    });
    match outcome.await {
        Err(problem) => Check::fail(check, "packet.lost", problem.detail),
        Ok(PingOutcome::Reached { .. }) => {
            let ms = started.elapsed().as_millis();
            Check::pass(check, format!("there and back in {ms} ms"))
        }
        Ok(PingOutcome::Rejected {
            code,
            message,
            triggered_by,
        }) => {
            let code = code.to_string();
            let by = triggered_by.map_or_else(|| "nobody known".to_owned(), |by| by.to_string());
            let detail = format!("{by} rejects with {code}: {message}");
            // A node that knows no pings says so by itself: the packet was there.
            if !is_rialto && by == address.as_str() && code.starts_with('F') {
                return match amount {
                    0 => Check::pass(check, format!("the peer answers ({code})")),
                    _ => Check::skip(check, format!("the peer knows no pings ({code})")),
                };
            }
            let word = match code.as_str() {
                "T04" => "credit.none",
                "F02" => "route.none",
                "R00" | "R02" => "packet.timeout",
                _ => "packet.rejected",
            };
            Check::fail(check, word, detail)
        }
    }
}

/// Answers a neighbour, already known by its token, that asks how we see the link.
pub(crate) async fn link_card(node: &Handle, request: &Request<Bytes>) -> Result<Vec<u8>, Problem> {
    let id = request.extensions().get::<AccountId>().copied();
    let id = id.ok_or_else(|| {
        let detail = "present the account's token as 'Authorization: Bearer ...'";
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    })?;
    let name = node.0.status().name;
    let card = node.read(|connector| {
        let account = connector.ledger().account(id)?;
        let settings = &account.settings;
        let address = connector.address_of(id);
        let card = LinkCard {
            name,
            time_ms: 0,
            ilp_address: connector.address().map(Address::to_string),
            account: settings.name.clone(),
            account_address: address.map(|address| address.to_string()),
            relation: settings.relation.into(),
            asset_code: settings.asset.code().to_owned(),
            asset_scale: settings.asset.scale(),
            paused: settings.paused,
            available: SignedAmount(account.available()),
            packet_amount_max: settings.limits.packet_amount_max.map(Amount),
            sends_routes: Some(settings.sends_routes()),
            receives_routes: Some(settings.receives_routes()),
            call: None,
        };
        Some((card, settings.http.is_some()))
    });
    let (mut card, calls) = card.ok_or_else(|| Problem::not_found("account", ""))?;
    if calls {
        card.call = Some(call_back(node, id).await);
    }
    // As late as can be.
    card.time_ms = wall_ms();
    Ok(serde_json::to_vec(&card).expect("text keys and plain values"))
}

/// Whether we reach the neighbour: a packet without money to the URL that our operator set.
async fn call_back(node: &Handle, id: AccountId) -> Check {
    let Some(_room) = node.0.peering().room_to_call() else {
        return Check::skip("call", "the peer is busy with others");
    };
    let probed = node.0.probe(id, false).await;
    let mut checks = probed.checks.into_iter();
    let failed = checks.find(|check| !is_fine(check));
    failed.unwrap_or_else(|| Check::pass("call", "the peer reaches us"))
}
