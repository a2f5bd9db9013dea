//! Settlements: what was paid outside the node, and what settlement engines report.
//!
//! Operators look and decide through the admin API. Engines report what came in at a listener of
//! their own, which has nothing else (RFC 38, Connector API).

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use rialto_connector::{
    Connector,
    command::{CommandError, Made},
};
use rialto_ledger::{
    AccountId, CREDIT_KEY_BYTES_MAX, Settlement, SettlementId, SettlementState, TokenHash, text,
};
use rialto_packet::quantity::Quantity;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::{
    Api, Problem,
    auth::{Allowed, ToPay, ToRead, ToWrite, hash},
    extract, messages,
    node::Handle,
    page::PageQuery,
    payments::{KEY_HEADER, read_key},
    rfc3339,
    shapes::{self, Amount, SettlementCreate, Settlements},
};

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SettlementsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Entries on the page, 1 to 200; 50 where it is left out.
    #[serde(with = "text::option")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Only settlements with this account.
    account: Option<String>,
}

/// Outgoing settlements, newest first.
#[utoipa::path(
    get,
    path = "/v1/settlements",
    operation_id = "list_settlements",
    tag = "settlements",
    security(("bearer" = ["read"])),
    params(SettlementsQuery),
    responses(
        (status = 200, description = "A page of settlements", body = Settlements),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<SettlementsQuery>,
) -> Result<Json<Settlements>, Problem> {
    let page = PageQuery::new(query.cursor, query.limit).check()?;
    let listed = api.node.read(|connector| {
        let account = query.account.as_deref().map(|name| {
            let account = connector.ledger().account_by_name(name);
            account.ok_or_else(|| Problem::not_found("account", name))
        });
        let account = account.transpose()?.map(|account| account.id);
        let below = page.after.map_or(SettlementId(u64::MAX), SettlementId);
        let settlements = connector.ledger().settlements().range(..below).rev();
        let wanted = settlements
            .map(|(_, settlement)| settlement)
            .filter(|settlement| account.is_none_or(|id| settlement.account == id));
        let (settlements, next_cursor) = page.cut(wanted, |settlement| settlement.id.0);
        let settlements = settlements
            .into_iter()
            .map(|settlement| shape(connector, settlement))
            .collect();
        Ok::<_, Problem>(Settlements {
            settlements,
            next_cursor,
        })
    })?;
    Ok(Json(listed))
}

/// One outgoing settlement.
#[utoipa::path(
    get,
    path = "/v1/settlements/{id}",
    operation_id = "read_settlement",
    tag = "settlements",
    security(("bearer" = ["read"])),
    params(("id" = String, Path, description = "Number of the settlement")),
    responses(
        (status = 200, description = "The settlement", body = shapes::Settlement),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn read(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
) -> Result<Json<shapes::Settlement>, Problem> {
    let id = read_id(&id)?;
    let found = api.node.read(|connector| shape_of(connector, id))?;
    Ok(Json(found))
}

/// Settles with an account now: what its terms say is owed, or an amount.
#[utoipa::path(
    post,
    path = "/v1/settlements",
    operation_id = "create_settlement",
    tag = "settlements",
    security(("bearer" = ["pay"])),
    params(
        ("Idempotency-Key" = String, Header, description = "Chosen by the caller, 1 to 255 visible ASCII characters; means the same settlement"),
    ),
    request_body = SettlementCreate,
    responses(
        (status = 200, description = "The settlement that was made with this key before", body = shapes::Settlement),
        (status = 201, description = "The settlement, on its way to the engine", body = shapes::Settlement),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    headers: HeaderMap,
    extract::Json(request): extract::Json<SettlementCreate>,
) -> Result<(StatusCode, Json<shapes::Settlement>), Problem> {
    let key = read_key(&headers)?;
    let made = api.node.execute(move |connector, now, out| {
        let amount = request.amount.map(|amount| amount.0);
        let made = connector.settle_manual(now, &request.account, amount, &key, out)?;
        let (status, id) = match made {
            Made::New(id) => (StatusCode::CREATED, id),
            Made::Existing(id) => (StatusCode::OK, id),
        };
        Ok((status, Json(shape_of(connector, id)?)))
    });
    made.await?
}

/// Asks the engine again for a settlement that it refused, with the same key.
#[utoipa::path(
    post,
    path = "/v1/settlements/{id}/retry",
    operation_id = "retry_settlement",
    tag = "settlements",
    security(("bearer" = ["write"])),
    params(("id" = String, Path, description = "Number of the settlement")),
    responses(
        (status = 200, description = "The settlement", body = shapes::Settlement),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn retry(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
) -> Result<Json<shapes::Settlement>, Problem> {
    let id = read_id(&id)?;
    let done = api.node.execute(move |connector, now, out| {
        connector.settle_retry(now, id, out)?;
        shape_of(connector, id)
    });
    Ok(Json(done.await??))
}

/// Takes back a settlement that the engine refused: its amount is owed again.
#[utoipa::path(
    post,
    path = "/v1/settlements/{id}/cancel",
    operation_id = "cancel_settlement",
    tag = "settlements",
    security(("bearer" = ["write"])),
    params(("id" = String, Path, description = "Number of the settlement")),
    responses(
        (status = 200, description = "The settlement", body = shapes::Settlement),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
) -> Result<Json<shapes::Settlement>, Problem> {
    let id = read_id(&id)?;
    let done = api.node.execute(move |connector, _, out| {
        connector.settle_cancel(id, out)?;
        shape_of(connector, id)
    });
    Ok(Json(done.await??))
}

pub(crate) fn read_id(text: &str) -> Result<SettlementId, Problem> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = digits.then(|| text.parse().ok()).flatten();
    id.map(SettlementId)
        .ok_or_else(|| Problem::not_found("settlement", text))
}

fn shape_of(connector: &Connector, id: SettlementId) -> Result<shapes::Settlement, Problem> {
    let settlement = connector.ledger().settlements().get(&id);
    let settlement =
        settlement.ok_or_else(|| Problem::not_found("settlement", &id.0.to_string()))?;
    Ok(shape(connector, settlement))
}

fn shape(connector: &Connector, settlement: &Settlement) -> shapes::Settlement {
    let account = connector.ledger().account(settlement.account);
    let (failures, last_failure) = connector.settle_failures(settlement.id);
    let (state, message) = match &settlement.state {
        SettlementState::Open => (shapes::SettlementState::Open, last_failure),
        SettlementState::Accepted => (shapes::SettlementState::Accepted, None),
        SettlementState::Parked { message } => {
            (shapes::SettlementState::Parked, Some(message.as_str()))
        }
        SettlementState::Cancelled => (shapes::SettlementState::Cancelled, None),
    };
    shapes::Settlement {
        id: settlement.id.0.to_string(),
        account: account.map(|account| account.settings.name.clone()),
        amount: Amount(settlement.amount),
        asset_code: account.map(|account| account.settings.asset.code().to_owned()),
        asset_scale: account.map(|account| account.settings.asset.scale()),
        cause: settlement.cause.into(),
        key: settlement.key.clone(),
        created_at: rfc3339(settlement.created_at_ms),
        state,
        channel: settlement.channel.map(|id| id.to_string()),
        failures,
        message: message.map(ToOwned::to_owned),
    }
}

/// What an engine says that came in, or an accounting system that is to be paid.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct EngineQuantity {
    /// Digits of an amount of any size, as a text (RFC 38, Units and Quantities).
    amount: String,
    scale: u8,
}

/// What handlers of the engines' listener have.
#[derive(Clone)]
pub(crate) struct Engines {
    pub(crate) node: Handle,
    token: watch::Receiver<Option<TokenHash>>,
}

/// The API for settlement engines as a service, without a socket. With a token, engines must present
/// it.
pub(crate) fn engines_router(node: Handle, token: watch::Receiver<Option<TokenHash>>) -> Router {
    Router::new()
        .route("/accounts/{id}/settlements", post(received))
        .route("/accounts/{id}/messages", post(messages::send))
        .fallback(crate::unknown_path)
        .method_not_allowed_fallback(crate::unknown_method)
        .with_state(Engines { node, token })
}

/// An engine says what it received: credited once per key, whatever is repeated.
async fn received(
    State(engines): State<Engines>,
    extract::Path(account): extract::Path,
    headers: HeaderMap,
    body: Result<extract::Json<EngineQuantity>, Problem>,
) -> Result<(StatusCode, Json<EngineQuantity>), Problem> {
    check_engine(&engines, &headers)?;
    let id = read_account(&account)?;
    let Said {
        key,
        quantity,
        words,
    } = read_said(&headers, body)?;
    let credited = engines.node.execute(move |connector, now, out| {
        check_has_engine(connector, id)?;
        let credited = connector.settle_credit(now, id, &key, quantity, out);
        credited.map_err(uncredited)
    });
    credited.await??;
    // Engines carry over what they are not told is taken; what is left of it is ours to carry.
    Ok((StatusCode::CREATED, Json(words)))
}

/// A settlement as engines and accounting systems tell each other of it.
pub(crate) struct Said {
    pub(crate) key: String,
    pub(crate) quantity: Quantity,
    /// The same as it was said, for the answer.
    pub(crate) words: EngineQuantity,
}

pub(crate) fn read_said(
    headers: &HeaderMap,
    body: Result<extract::Json<EngineQuantity>, Problem>,
) -> Result<Said, Problem> {
    let key = headers
        .get(KEY_HEADER)
        .and_then(|key| key.to_str().ok())
        .filter(|key| (1..=CREDIT_KEY_BYTES_MAX).contains(&key.len()))
        .map(ToOwned::to_owned)
        .ok_or_else(|| {
            let detail = "each settlement needs a key, so that a repeated call is not a second one";
            bad("idempotency_key", detail).of_field(KEY_HEADER)
        })?;
    let extract::Json(words) = body.map_err(|problem| bad(&problem.code, &problem.detail))?;
    let quantity = Quantity::new(&words.amount, words.scale)
        .map_err(|error| bad("amount", &error.to_string()).of_field("amount"))?;
    Ok(Said {
        key,
        quantity,
        words,
    })
}

/// Why a settlement was not taken.
pub(crate) fn uncredited(error: CommandError) -> Problem {
    match Problem::from(error) {
        problem if problem.status == 422 => bad(&problem.code, &problem.detail),
        problem => problem,
    }
}

/// The account, as it was opened at the engine.
pub(crate) fn read_account(text: &str) -> Result<AccountId, Problem> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = is_number.then(|| text.parse().ok()).flatten();
    id.map(AccountId).ok_or_else(|| {
        let detail = "an account is named by its number, as it was opened at the engine";
        bad("account_id", detail)
    })
}

pub(crate) fn check_has_engine(connector: &Connector, id: AccountId) -> Result<(), Problem> {
    let account = connector.ledger().account(id);
    if account.is_some_and(|a| a.settings.settlement.engine_url.is_some()) {
        return Ok(());
    }
    let detail = format!("there is no account '{}' with a settlement engine", id.0);
    Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail))
}

/// A permanent mistake: engines take other codes for a reason to try again.
pub(crate) fn bad(code: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail)
}

pub(crate) fn check_engine(engines: &Engines, headers: &HeaderMap) -> Result<(), Problem> {
    check_bearer(&engines.token, headers, "settlement.token_file")
}

/// With a token, callers must present it; `file` is where the configuration names it.
pub(crate) fn check_bearer(
    token: &watch::Receiver<Option<TokenHash>>,
    headers: &HeaderMap,
    file: &str,
) -> Result<(), Problem> {
    let Some(wanted) = *token.borrow() else {
        return Ok(());
    };
    let value = headers.get(header::AUTHORIZATION);
    let token = value
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .unwrap_or_default();
    if bool::from(hash(token).0.ct_eq(&wanted.0)) {
        return Ok(());
    }
    let detail = format!("present the token of {file} as a bearer token");
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        detail,
    ))
}
