//! Exchange rates.

use axum::{Json, extract::State, http::StatusCode};
use rialto_ledger::Rate;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead, ToWrite},
    extract, rfc3339,
    shapes::{self, RateKey, Rates},
};

/// All rates that were set, and the default spread.
#[utoipa::path(
    get,
    path = "/v1/rates",
    operation_id = "list_rates",
    tag = "rates",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "All rates", body = Rates),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(_: Allowed<ToRead>, State(api): State<Api>) -> Json<Rates> {
    Json(api.node.read(|connector| {
        let rates = connector.ledger().rates().iter();
        Rates {
            rates: rates
                .map(|((from, to), rate)| shapes::Rate {
                    from: from.clone(),
                    to: to.clone(),
                    rate: rate.rate.clone(),
                    spread: rate.spread.clone(),
                    valid_until: rate.valid_until_ms.and_then(rfc3339),
                })
                .collect(),
            default_spread: connector.settings().spread.to_string(),
        }
    }))
}

/// Sets the rate between two asset codes.
#[utoipa::path(
    put,
    path = "/v1/rates",
    operation_id = "put_rate",
    tag = "rates",
    security(("bearer" = ["write"])),
    request_body = shapes::Rate,
    responses(
        (status = 200, description = "The rate", body = shapes::Rate),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<shapes::Rate>,
) -> Result<Json<shapes::Rate>, Problem> {
    let valid_until_ms = request.valid_until.as_deref().map(read_time).transpose()?;
    let answer = shapes::Rate {
        valid_until: valid_until_ms.and_then(rfc3339),
        ..request.clone()
    };
    let rate = Rate {
        rate: request.rate,
        spread: request.spread,
        valid_until_ms,
    };
    api.node
        .execute(move |connector, _, out| connector.rate_put(&request.from, &request.to, rate, out))
        .await??;
    Ok(Json(answer))
}

/// Removes a rate.
#[utoipa::path(
    delete,
    path = "/v1/rates",
    operation_id = "delete_rate",
    tag = "rates",
    security(("bearer" = ["write"])),
    params(RateKey),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Query(key): extract::Query<RateKey>,
) -> Result<StatusCode, Problem> {
    api.node
        .execute(move |connector, _, out| connector.rate_delete(&key.from, &key.to, out))
        .await??;
    Ok(StatusCode::NO_CONTENT)
}

fn read_time(text: &str) -> Result<i64, Problem> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        let detail = format!("'{text}' is not a time such as 2030-01-01T00:00:00Z");
        Problem::invalid("valid_until", detail)
    })?;
    Ok(time.as_millisecond())
}
