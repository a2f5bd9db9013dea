//! Balances as their operator corrects them.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use rialto_connector::{adjust::AdjustmentRequest, command::Made};
use rialto_ledger as ledger;
use serde::Deserialize;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead, ToWrite},
    extract,
    page::PageQuery,
    payments::read_key,
    rfc3339,
    shapes::{Adjustment, AdjustmentCreate, Adjustments, SignedAmount},
};

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AdjustmentsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Entries on the page, 1 to 200; 50 where it is left out.
    #[serde(with = "ledger::text::option")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Only adjustments of this account.
    account: Option<String>,
}

/// Corrects a balance, against the node's own position. A repeat with the same key is the same
/// adjustment.
#[utoipa::path(
    post,
    path = "/v1/adjustments",
    operation_id = "create_adjustment",
    tag = "accounts",
    security(("bearer" = ["write"])),
    params(
        ("Idempotency-Key" = String, Header, description = "Chosen by the caller, 1 to 255 visible ASCII characters; means the same adjustment for at least 7 days"),
    ),
    request_body = AdjustmentCreate,
    responses(
        (status = 200, description = "The adjustment that was made with this key before", body = Adjustment),
        (status = 201, description = "The adjustment", body = Adjustment),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    headers: HeaderMap,
    extract::Json(request): extract::Json<AdjustmentCreate>,
) -> Result<(StatusCode, Json<Adjustment>), Problem> {
    let request = AdjustmentRequest {
        account: request.account,
        amount: request.amount.0,
        reason: request.reason,
        idempotency_key: read_key(&headers)?,
    };
    let made = api.node.execute(move |connector, now, out| {
        let made = connector.account_adjust(now, request, out)?;
        let (status, id) = match made {
            Made::New(id) => (StatusCode::CREATED, id),
            Made::Existing(id) => (StatusCode::OK, id),
        };
        let adjustment = connector.ledger().adjustments().get(&id);
        let adjustment = adjustment.ok_or_else(|| Problem::not_found("adjustment", "just made"))?;
        Ok::<_, Problem>((status, Json(shape(adjustment))))
    });
    made.await?
}

/// Adjustments, newest first.
#[utoipa::path(
    get,
    path = "/v1/adjustments",
    operation_id = "list_adjustments",
    tag = "accounts",
    security(("bearer" = ["read"])),
    params(AdjustmentsQuery),
    responses(
        (status = 200, description = "A page", body = Adjustments),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<AdjustmentsQuery>,
) -> Result<Json<Adjustments>, Problem> {
    let page = PageQuery::new(query.cursor, query.limit).check()?;
    let account = query.account;
    Ok(Json(api.node.read(|connector| {
        let end = page.after.unwrap_or(u64::MAX);
        let earlier = connector.ledger().adjustments().range(..end).rev();
        let wanted = earlier.map(|(_, made)| made).filter(|made| {
            let account = account.as_ref();
            account.is_none_or(|account| made.account_name == *account)
        });
        let (entries, next_cursor) = page.cut(wanted, |made| made.id);
        Adjustments {
            adjustments: entries.into_iter().map(shape).collect(),
            next_cursor,
        }
    })))
}

fn shape(made: &ledger::Adjustment) -> Adjustment {
    Adjustment {
        id: made.id.to_string(),
        account: made.account_name.clone(),
        asset_code: made.asset.code().to_owned(),
        asset_scale: made.asset.scale(),
        amount: SignedAmount(made.amount),
        reason: made.reason.clone(),
        created_at: rfc3339(made.created_at_ms),
    }
}
