//! Routes.

use axum::{Json, extract::State, http::StatusCode};
use rialto_connector::{Connector, RouteSource};
use rialto_packet::Prefix;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead, ToWrite},
    extract,
    shapes::{self, Route, RouteKey, RoutePut, Routes},
};

/// All routes, static and derived.
#[utoipa::path(
    get,
    path = "/v1/routes",
    operation_id = "list_routes",
    tag = "routes",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "All routes", body = Routes),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(_: Allowed<ToRead>, State(api): State<Api>) -> Json<Routes> {
    let routes = api.node.read(all_routes);
    Json(Routes { routes })
}

/// Sets a static route.
#[utoipa::path(
    put,
    path = "/v1/routes",
    operation_id = "put_route",
    tag = "routes",
    security(("bearer" = ["write"])),
    request_body = RoutePut,
    responses(
        (status = 200, description = "The route", body = Route),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<RoutePut>,
) -> Result<Json<Route>, Problem> {
    let prefix = read_prefix(&request.prefix)?;
    let route = Route {
        prefix: prefix.to_string(),
        source: shapes::RouteSource::Static,
        account: Some(request.account.clone()),
    };
    api.node
        .execute(move |connector, _, out| connector.route_put(prefix, &request.account, out))
        .await??;
    Ok(Json(route))
}

/// Removes a static route.
#[utoipa::path(
    delete,
    path = "/v1/routes",
    operation_id = "delete_route",
    tag = "routes",
    security(("bearer" = ["write"])),
    params(RouteKey),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Query(key): extract::Query<RouteKey>,
) -> Result<StatusCode, Problem> {
    let prefix = read_prefix(&key.prefix)?;
    api.node
        .execute(move |connector, _, out| connector.route_delete(&prefix, out))
        .await??;
    Ok(StatusCode::NO_CONTENT)
}

fn read_prefix(text: &str) -> Result<Prefix, Problem> {
    text.parse()
        .map_err(|error| Problem::invalid("prefix", format!("'{text}': {error}")))
}

fn all_routes(connector: &Connector) -> Vec<Route> {
    let routes = connector.routes().into_iter();
    routes
        .map(|(prefix, source, account)| Route {
            prefix: prefix.to_string(),
            source: match source {
                RouteSource::Static => shapes::RouteSource::Static,
                RouteSource::Own => shapes::RouteSource::Own,
                RouteSource::Account => shapes::RouteSource::Account,
                RouteSource::Parent => shapes::RouteSource::Parent,
            },
            account: account
                .and_then(|id| connector.ledger().account(id))
                .map(|account| account.settings.name.clone()),
        })
        .collect()
}
