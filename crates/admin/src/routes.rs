//! Routes.

use axum::{Json, extract::State, http::StatusCode};
use rialto_connector::{Connector, RouteSource, RouteView};
use rialto_ledger::AccountId;
use rialto_packet::Prefix;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead, ToWrite},
    extract,
    page::{PageQuery, write_cursor},
    shapes::{self, Route, RouteKey, RoutePut, Routes, RoutesQuery},
};

/// Routes: static, derived from accounts, and learnt from peers.
#[utoipa::path(
    get,
    path = "/v1/routes",
    operation_id = "list_routes",
    tag = "routes",
    security(("bearer" = ["read"])),
    params(RoutesQuery),
    responses(
        (status = 200, description = "A page of routes", body = Routes),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<RoutesQuery>,
) -> Result<Json<Routes>, Problem> {
    let page = PageQuery::new(query.cursor, query.limit).check()?;
    let from = usize::try_from(page.after.unwrap_or(0)).unwrap_or(usize::MAX);
    Ok(Json(api.node.read(|connector| {
        let (views, next) = connector.routes_page(from, page.limit, query.all);
        Routes {
            routes: views.iter().map(|view| shape(connector, view)).collect(),
            next_cursor: next.map(|next| write_cursor(next as u64)),
        }
    })))
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
        (status = 200, description = "The route", body = RoutePut),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<RoutePut>,
) -> Result<Json<RoutePut>, Problem> {
    let prefix = read_prefix(&request.prefix)?;
    let hops: Vec<_> = match (&request.account, &request.hops[..]) {
        (Some(account), []) => vec![(account.clone(), 1)],
        (None, hops) => {
            let hops = hops.iter();
            hops.map(|hop| (hop.account.clone(), hop.weight)).collect()
        }
        (Some(_), [_, ..]) => {
            let detail = "is given beside `hops`: choose one";
            return Err(Problem::invalid("account", detail));
        }
    };
    api.node
        .execute(move |connector, _, out| connector.route_put(prefix, &hops, out))
        .await??;
    Ok(Json(request))
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

/// For programs and people.
pub(crate) fn source(source: RouteSource) -> shapes::RouteSource {
    match source {
        RouteSource::Static => shapes::RouteSource::Static,
        RouteSource::Own => shapes::RouteSource::Own,
        RouteSource::Account => shapes::RouteSource::Account,
        RouteSource::Parent => shapes::RouteSource::Parent,
        RouteSource::Learnt => shapes::RouteSource::Learnt,
    }
}

pub(crate) fn shape(connector: &Connector, view: &RouteView) -> Route {
    Route {
        prefix: view.prefix.to_string(),
        source: source(view.source),
        account: view.account.and_then(|id| name(connector, id)),
        weight: view.weight,
        path: view.path.clone(),
        active: view.is_active,
    }
}

pub(crate) fn name(connector: &Connector, id: AccountId) -> Option<String> {
    let account = connector.ledger().account(id)?;
    Some(account.settings.name.clone())
}
