//! Exchange rates: those that were set, and prices from a source outside.

use axum::{Json, extract::State, http::StatusCode};
use rialto_connector::{
    Connector,
    market::{Market, PUSH},
    quotes::Quotes,
};
use rialto_ledger::Rate;
use rialto_packet::Timestamp;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead, ToWrite},
    extract, rfc3339,
    shapes::{self, FeedPrice, PriceKey, RateFeed, RateKey, Rates, RatesPushed, RatesTable},
    wall_ms,
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
    let now_ms = wall_ms();
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
                    set_at: rate.set_at_ms.and_then(rfc3339),
                })
                .collect(),
            feed: feed(connector, now_ms),
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
    let set_at_ms = Some(wall_ms());
    let answer = shapes::Rate {
        valid_until: valid_until_ms.and_then(rfc3339),
        set_at: set_at_ms.and_then(rfc3339),
        ..request.clone()
    };
    let rate = Rate {
        rate: request.rate,
        spread: request.spread,
        valid_until_ms,
        set_at_ms,
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

/// Takes a table of prices from a program, where `rates.source` is `push`. Any JSON number is read
/// exactly.
#[utoipa::path(
    put,
    path = "/v1/rates/feed",
    operation_id = "push_rates",
    tag = "rates",
    security(("bearer" = ["write"])),
    request_body = RatesTable,
    responses(
        (status = 200, description = "What was taken", body = RatesPushed),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn push(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::JsonText(body): extract::JsonText,
) -> Result<Json<RatesPushed>, Problem> {
    let pushed = api.node.execute(move |connector, now, _| {
        let settings = connector
            .market()
            .settings()
            .filter(|settings| settings.source == PUSH);
        let Some(settings) = settings else {
            let detail = "rates.source is not push: the node gets its rates elsewhere";
            return Err(Problem::new(StatusCode::CONFLICT, "conflict", detail));
        };
        let base = settings.base.clone();
        let quotes = Quotes::from_json(&body, now.wall, base.as_deref()).map_err(|error| {
            connector.quotes_failed(now, format!("what was pushed {error}"));
            Problem::invalid("rates", format!("the table {error}"))
        })?;
        let moved = connector.quotes_take(quotes);
        let moved = moved.into_iter().map(|moved| moved.code).collect();
        Ok(RatesPushed { moved })
    });
    Ok(Json(pushed.await??))
}

/// Takes a price that moved too far to be taken at once.
#[utoipa::path(
    post,
    path = "/v1/rates/feed/confirm",
    operation_id = "confirm_price",
    tag = "rates",
    security(("bearer" = ["write"])),
    params(PriceKey),
    responses(
        (status = 204, description = "It is in force"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn confirm(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Query(key): extract::Query<PriceKey>,
) -> Result<StatusCode, Problem> {
    api.node
        .execute(move |connector, _, _| connector.price_confirm(&key.code))
        .await??;
    Ok(StatusCode::NO_CONTENT)
}

fn feed(connector: &Connector, now_ms: i64) -> Option<RateFeed> {
    let market: &Market = connector.market();
    let settings = market.settings()?;
    let age_ms = |at: Timestamp| now_ms.saturating_sub(at.unix_ms()).max(0);
    let prices = market.prices().iter().map(|(code, price)| {
        let held = market.held().get(code);
        FeedPrice {
            code: code.clone(),
            rate: price.ratio.to_string(),
            age_seconds: age_ms(price.at) / 1_000,
            stale: age_ms(price.at) >= settings.age_max_ms,
            waiting: held.map(|held| held.price.ratio.to_string()),
        }
    });
    Some(RateFeed {
        source: settings.source.clone(),
        base: market.base().to_owned(),
        age_seconds_max: settings.age_max_ms / 1_000,
        failed_at: market
            .last_failure()
            .and_then(|(at, _)| rfc3339(at.unix_ms())),
        failure: market.last_failure().map(|(_, message)| message.clone()),
        prices: prices.collect(),
    })
}

fn read_time(text: &str) -> Result<i64, Problem> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        let detail = format!("'{text}' is not a time such as 2030-01-01T00:00:00Z");
        Problem::invalid("valid_until", detail)
    })?;
    Ok(time.as_millisecond())
}
