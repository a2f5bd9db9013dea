//! The settlement engine that this node is for accounting systems (RFC 38, Settlement Engine API): its
//! channels, offered to other nodes.
//!
//! An account that is opened here is one of ours without links. What its accounting system asks for is
//! owed to the other side and leaves over a channel; the frames of the channel go through the accounting
//! system, as messages; what comes in over the channel is told to it (`connector/settle.rs`).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{delete, post},
};
use rialto_connector::{Connector, messages::MessageOutcome};
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, ChannelTerms, Relation, RouteExchange,
    SettlementTerms, TokenHash, check_name,
};
use rialto_packet::{DATA_BYTES_MAX, ErrorClass, money::Asset};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    Problem,
    auth::hash,
    extract, hex,
    messages::{answer, done, unsent},
    node::Handle,
    payments::outcome,
    settlements::{Said, bad, check_bearer, read_said},
};

/// Accounts that are opened here at most.
pub const ENGINE_ACCOUNTS_MAX: usize = 10_000;

/// Bytes of an account's name at its accounting system.
const ID_BYTES_MAX: usize = 255;

/// How the accounts are that accounting systems open here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineTerms {
    /// Base URL of the accounting system.
    pub accounting_url: String,
    /// What amounts on them count.
    pub asset: Asset,
    /// Which channels are opened and accepted without an operator.
    pub channel: Option<ChannelTerms>,
}

impl EngineTerms {
    /// The URL of an account at the accounting system.
    fn account_url(&self, id: &str) -> String {
        let base = self.accounting_url.trim_end_matches('/');
        format!("{base}/accounts/{id}")
    }
}

#[derive(Clone)]
struct Engine {
    node: Handle,
    token: watch::Receiver<Option<TokenHash>>,
    terms: Arc<EngineTerms>,
}

impl Engine {
    /// With a token, accounting systems must present it.
    fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        check_bearer(&self.token, headers, "engine.token_file")
    }

    fn account(&self, connector: &Connector, id: &str) -> Result<AccountId, Problem> {
        let account = connector.ledger().account_by_name(&account_name(id));
        let url = self.terms.account_url(id);
        let account = account
            .filter(|account| account.settings.settlement.accounting_url.as_ref() == Some(&url));
        account.map(|account| account.id).ok_or_else(|| {
            let detail = format!("there is no account '{id}' here: open it first");
            Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
        })
    }
}

/// The API for accounting systems as a service, without a socket.
pub(crate) fn router(
    node: Handle,
    token: watch::Receiver<Option<TokenHash>>,
    terms: EngineTerms,
) -> Router {
    let terms = Arc::new(terms);
    Router::new()
        .route("/accounts", post(open))
        .route("/accounts/{id}", delete(close))
        .route("/accounts/{id}/settlements", post(settle))
        .route("/accounts/{id}/messages", post(take))
        .fallback(crate::unknown_path)
        .method_not_allowed_fallback(crate::unknown_method)
        .with_state(Engine { node, token, terms })
}

/// An account as its accounting system names it.
#[derive(Debug, Deserialize, Serialize)]
struct EngineAccount {
    /// Made up here where it is left out.
    id: Option<String>,
}

/// Opens an account; one that is open already stays as it is.
async fn open(
    State(engine): State<Engine>,
    headers: HeaderMap,
    body: Result<extract::Json<EngineAccount>, Problem>,
) -> Result<(StatusCode, Json<EngineAccount>), Problem> {
    engine.check(&headers)?;
    let extract::Json(asked) = body.map_err(|problem| bad(&problem.code, &problem.detail))?;
    let random = || {
        let bytes = engine.node.0.random();
        hex(&bytes[..16])
    };
    let id = asked.id.unwrap_or_else(random);
    // Unreserved characters of URLs (RFC 3986), as RFC 38 has them.
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_whole = id.bytes().any(|byte| byte != b'.'); // '.' and '..' lead elsewhere in a path
    if !(1..=ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(is_unreserved) || !is_whole {
        let detail = "must be 1 to 255 of A-Z, a-z, 0-9, '-', '.', '_' and '~', and not dots alone";
        return Err(bad("id", detail).of_field("id"));
    }
    let settings = account_settings(&engine.terms, &id);
    let opened = EngineAccount {
        id: Some(id.clone()),
    };
    let looked_up = engine.clone();
    let made = engine.node.execute(move |connector, _, out| {
        if looked_up.account(connector, &id).is_ok() {
            return Ok(StatusCode::OK);
        }
        let accounts = connector.ledger().accounts();
        let here = accounts.filter(|other| other.settings.settlement.accounting_url.is_some());
        if here.count() >= ENGINE_ACCOUNTS_MAX {
            let detail = format!("there are {ENGINE_ACCOUNTS_MAX} accounts here: close one first");
            return Err(Problem::unavailable(&detail));
        }
        connector.account_create(settings, out)?;
        Ok(StatusCode::CREATED)
    });
    Ok((made.await??, Json(opened)))
}

/// Closes an account on which nothing is open.
async fn close(
    State(engine): State<Engine>,
    extract::Path(id): extract::Path,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    engine.check(&headers)?;
    let looked_up = engine.clone();
    let closed = engine.node.execute(move |connector, _, out| {
        looked_up.account(connector, &id)?;
        connector.account_delete(&account_name(&id), out)?;
        Ok(StatusCode::NO_CONTENT)
    });
    closed.await?
}

/// Pays the other side as the accounting system asks: once per key, whatever is repeated. What no
/// channel has room for is paid when one has.
async fn settle(
    State(engine): State<Engine>,
    extract::Path(id): extract::Path,
    headers: HeaderMap,
    body: Result<extract::Json<crate::settlements::EngineQuantity>, Problem>,
) -> Result<(StatusCode, Json<crate::settlements::EngineQuantity>), Problem> {
    engine.check(&headers)?;
    let Said {
        key,
        quantity,
        words,
    } = read_said(&headers, body)?;
    let looked_up = engine.clone();
    let owed = engine.node.execute(move |connector, now, out| {
        let account = looked_up.account(connector, &id)?;
        let credited = connector.settle_credit(now, account, &key, quantity, out);
        credited.map_err(crate::settlements::uncredited)
    });
    owed.await??;
    Ok((StatusCode::CREATED, Json(words)))
}

/// Takes a message of the other side. What there is to say to it is the answer.
async fn take(
    State(engine): State<Engine>,
    extract::Path(id): extract::Path,
    headers: HeaderMap,
    body: Result<extract::Raw<DATA_BYTES_MAX>, Problem>,
) -> Result<Response, Problem> {
    engine.check(&headers)?;
    let extract::Raw(data) = body?;
    let mut events = engine.node.0.events();
    let looked_up = engine.clone();
    let taken = engine.node.execute(move |connector, now, out| {
        let account = looked_up.account(connector, &id)?;
        Ok::<_, Problem>(connector.message_received(now, account, &data, out))
    });
    let id = taken.await??;
    let outcome = outcome(&mut events, |event| done(event, id));
    match outcome.await? {
        MessageOutcome::Answered { data } => Ok(answer(StatusCode::CREATED, data)),
        MessageOutcome::Rejected { code, message, .. } => {
            let status = match code.class() {
                ErrorClass::Final => StatusCode::BAD_REQUEST,
                ErrorClass::Temporary | ErrorClass::Relative => StatusCode::SERVICE_UNAVAILABLE,
            };
            Ok(Problem::new(status, "rejected", message).into_response())
        }
        MessageOutcome::Failed { reason } => Err(unsent(reason)),
    }
}

/// Our name of an account. Not every name of theirs can be one here: of the others it is a hash.
fn account_name(id: &str) -> String {
    let name = format!("engine-{id}");
    if check_name(&name) {
        return name;
    }
    let hash = hash(id).0;
    format!("engine-{}", hex(&hash[..16]))
}

fn account_settings(terms: &EngineTerms, id: &str) -> AccountSettings {
    AccountSettings {
        name: account_name(id),
        incoming_tokens: Vec::new(),
        terms: AccountTerms {
            routes: RouteExchange::none(),
            settlement: SettlementTerms {
                accounting_url: Some(terms.account_url(id)),
                channel: terms.channel,
                ..SettlementTerms::default()
            },
            ..AccountTerms::new(Relation::Peer, terms.asset.clone())
        }
        .into(),
    }
}
