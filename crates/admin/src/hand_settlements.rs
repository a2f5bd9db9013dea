//! Settlements by hand: operators write down what was paid outside of the node, and a second one
//! approves where that is asked for.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use rialto_connector::{Connector, command::Made, hand::HandRequest};
use rialto_ledger::{self as ledger, HandState, SettlementId, text};
use serde::Deserialize;

use crate::{
    Api, Problem,
    auth::{Allowed, ToPay, ToRead},
    extract,
    page::PageQuery,
    payments::read_key,
    rfc3339,
    settlements::read_id,
    shapes::{Amount, HandSettlement, HandSettlementCreate, HandSettlementState, HandSettlements},
};

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HandSettlementsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Entries on the page, 1 to 200; 50 where it is left out.
    #[serde(with = "text::option")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Only settlements with this account.
    account: Option<String>,
    /// Only those that stand there.
    state: Option<HandSettlementState>,
}

/// Settlements by hand, newest first.
#[utoipa::path(
    get,
    path = "/v1/hand-settlements",
    operation_id = "list_hand_settlements",
    tag = "settlements",
    security(("bearer" = ["read"])),
    params(HandSettlementsQuery),
    responses(
        (status = 200, description = "A page of settlements by hand", body = HandSettlements),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<HandSettlementsQuery>,
) -> Result<Json<HandSettlements>, Problem> {
    let page = PageQuery::new(query.cursor, query.limit).check()?;
    let (account, state) = (query.account, query.state);
    Ok(Json(api.node.read(|connector| {
        let end = SettlementId(page.after.unwrap_or(u64::MAX));
        let earlier = connector.ledger().hand_settlements().range(..end).rev();
        let wanted = earlier.map(|(_, made)| made).filter(|made| {
            let account = account.as_ref();
            account.is_none_or(|account| made.account_name == *account)
                && state.is_none_or(|state| state == word(&made.state))
        });
        let (entries, next_cursor) = page.cut(wanted, |made| made.id.0);
        HandSettlements {
            hand_settlements: entries.into_iter().map(shape).collect(),
            next_cursor,
        }
    })))
}

/// One settlement by hand.
#[utoipa::path(
    get,
    path = "/v1/hand-settlements/{id}",
    operation_id = "read_hand_settlement",
    tag = "settlements",
    security(("bearer" = ["read"])),
    params(("id" = String, Path, description = "Number of the settlement")),
    responses(
        (status = 200, description = "The settlement", body = HandSettlement),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn read(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
) -> Result<Json<HandSettlement>, Problem> {
    let id = read_id(&id)?;
    let found = api.node.read(|connector| shape_of(connector, id))?;
    Ok(Json(found))
}

/// Writes down what was paid outside of the node. It moves the balance at once, or when a second
/// operator approves it (`settlement.second_approver`).
#[utoipa::path(
    post,
    path = "/v1/hand-settlements",
    operation_id = "create_hand_settlement",
    tag = "settlements",
    security(("bearer" = ["pay"])),
    params(
        ("Idempotency-Key" = String, Header, description = "Chosen by the caller, 1 to 255 visible ASCII characters; means the same settlement for at least 7 days"),
    ),
    request_body = HandSettlementCreate,
    responses(
        (status = 200, description = "The settlement that was made with this key, or has this reference, already", body = HandSettlement),
        (status = 201, description = "The settlement, which is in the balance", body = HandSettlement),
        (status = 202, description = "The settlement, which waits for a second operator", body = HandSettlement),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    allowed: Allowed<ToPay>,
    State(api): State<Api>,
    headers: HeaderMap,
    extract::Json(request): extract::Json<HandSettlementCreate>,
) -> Result<(StatusCode, Json<HandSettlement>), Problem> {
    let request = HandRequest {
        account: request.account,
        direction: request.direction.into(),
        amount: request.amount.0,
        reference: request.reference,
        by: allowed.by,
        idempotency_key: read_key(&headers)?,
    };
    let made = api.node.execute(move |connector, now, out| {
        let made = connector.hand_record(now, request, out)?;
        let (Made::New(id) | Made::Existing(id)) = made;
        let shape = shape_of(connector, id)?;
        let status = match (made, shape.state) {
            (Made::Existing(_), _) => StatusCode::OK,
            (Made::New(_), HandSettlementState::Proposed) => StatusCode::ACCEPTED,
            (Made::New(_), HandSettlementState::Settled | HandSettlementState::Declined) => {
                StatusCode::CREATED
            }
        };
        Ok((status, Json(shape)))
    });
    made.await?
}

/// Approves a settlement that another operator wrote down: it moves the balance.
#[utoipa::path(
    post,
    path = "/v1/hand-settlements/{id}/approve",
    operation_id = "approve_hand_settlement",
    tag = "settlements",
    security(("bearer" = ["pay"])),
    params(
        ("id" = String, Path, description = "Number of the settlement"),
        ("Idempotency-Key" = String, Header, description = "Chosen by the caller, 1 to 255 visible ASCII characters; means the same approval"),
    ),
    responses(
        (status = 200, description = "The settlement, which is in the balance", body = HandSettlement),
        (status = "default", description = "What went wrong; 403 for whoever wrote it down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn approve(
    allowed: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
    headers: HeaderMap,
) -> Result<Json<HandSettlement>, Problem> {
    let (id, key) = (read_id(&id)?, read_key(&headers)?);
    let done = api.node.execute(move |connector, now, out| {
        connector.hand_approve(now, id, &allowed.by, &key, out)?;
        shape_of(connector, id)
    });
    Ok(Json(done.await??))
}

/// Declines a settlement that waits for a second operator.
#[utoipa::path(
    post,
    path = "/v1/hand-settlements/{id}/decline",
    operation_id = "decline_hand_settlement",
    tag = "settlements",
    security(("bearer" = ["pay"])),
    params(("id" = String, Path, description = "Number of the settlement")),
    responses(
        (status = 200, description = "The settlement, which never was in the balance", body = HandSettlement),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn decline(
    allowed: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
) -> Result<Json<HandSettlement>, Problem> {
    let id = read_id(&id)?;
    let done = api.node.execute(move |connector, now, out| {
        connector.hand_decline(now, id, &allowed.by, out)?;
        shape_of(connector, id)
    });
    Ok(Json(done.await??))
}

fn shape_of(connector: &Connector, id: SettlementId) -> Result<HandSettlement, Problem> {
    let made = connector.ledger().hand_settlements().get(&id);
    let made = made.ok_or_else(|| Problem::not_found("settlement by hand", &id.0.to_string()))?;
    Ok(shape(made))
}

fn word(state: &HandState) -> HandSettlementState {
    match state {
        HandState::Proposed => HandSettlementState::Proposed,
        HandState::Settled { .. } => HandSettlementState::Settled,
        HandState::Declined { .. } => HandSettlementState::Declined,
    }
}

fn shape(made: &ledger::HandSettlement) -> HandSettlement {
    let decided = match &made.state {
        HandState::Proposed | HandState::Settled { approval: None } => None,
        HandState::Settled {
            approval: Some(approval),
        } => Some((&approval.by, approval.at_ms)),
        HandState::Declined { by, at_ms } => Some((by, *at_ms)),
    };
    HandSettlement {
        id: made.id.0.to_string(),
        account: made.account_name.clone(),
        direction: made.direction.into(),
        amount: Amount(made.amount),
        asset_code: made.asset.code().to_owned(),
        asset_scale: made.asset.scale(),
        reference: made.reference.clone(),
        state: word(&made.state),
        recorded_by: made.by.clone(),
        recorded_at: rfc3339(made.created_at_ms),
        decided_by: decided.map(|(by, _)| by.clone()),
        decided_at: decided.and_then(|(_, at_ms)| rfc3339(at_ms)),
    }
}
