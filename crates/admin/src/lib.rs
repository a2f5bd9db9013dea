//! The HTTP admin API: REST under `/v1`, health and metrics beside it.
//!
//! It looks at the core and gives it commands through one seam, [`Node`]; it decides nothing about
//! packets and keeps nothing that must survive. The description of the API is made from the handlers
//! ([`openapi`]) and checked in as `openapi.json`.
//!
//! ```no_run
//! # async fn example(node: std::sync::Arc<dyn rialto_admin::Node>) -> std::io::Result<()> {
//! use rialto_admin::{Scopes, Token, generate_token, hash, serve};
//!
//! let text = generate_token("admin", node.random());
//! let token = Token {
//!     name: "operator".to_owned(),
//!     hash: hash(&text),
//!     scopes: Scopes::ALL,
//!     expires_at_ms: None,
//! };
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:7771").await?;
//! let tokens = tokio::sync::watch::channel(vec![token]).1;
//! serve(listener, node, tokens, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

mod accounts;
mod adjustments;
mod auth;
mod balances;
mod ccp;
mod channels;
mod doctor;
mod engine;
mod extract;
mod hand_settlements;
mod health;
pub mod invite_text;
mod invites;
mod listener;
mod messages;
mod metrics;
mod node;
mod page;
mod payments;
mod peering;
mod problem;
mod rafiki;
mod rates;
mod route_views;
mod routes;
mod settlements;
pub mod shapes;
mod statements;
mod strangers;
pub mod words;

use std::{
    future::Future,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    http::{StatusCode, Uri, header},
    response::IntoResponse,
    routing::{MethodRouter, get},
};
use rialto_ledger::TokenHash;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use utoipa::{
    Path as _,
    openapi::{
        InfoBuilder, LicenseBuilder, OpenApiBuilder,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::{PathItemExt, paste, router::OpenApiRouter, routes};

pub use auth::{Scopes, Token, generate_token, hash};
pub use doctor::{Check, CheckVerdict, LINK_PATH, Probed};
pub use engine::{ENGINE_ACCOUNTS_MAX, EngineTerms};
pub use extract::BODY_BYTES_MAX;
pub use invites::{INVITE_PATH, greet};
pub use listener::{CONNECTIONS_MAX, HEAD_TIMEOUT};
pub use node::{
    BoxFuture, Command, Handle, Node, NodeStatus, ResolveError, ResolvedReceiver, Unavailable,
};
pub use page::{PAGE_LIMIT, PAGE_LIMIT_MAX};
pub use payments::{RESOLVING_MAX, WAIT_SECONDS_MAX};
pub use peering::{InviteRefused, Peering, Stage};
pub use problem::Problem;
pub use strangers::{AutoPeering, Caller};

/// What every handler has.
#[derive(Clone)]
struct Api {
    node: Handle,
    /// Those of the moment.
    tokens: watch::Receiver<Vec<Token>>,
    /// Turns true when the server stops: requests that wait answer with what they have.
    stopping: watch::Receiver<bool>,
    /// Room for payments whose receivers are being resolved.
    resolving: Arc<Semaphore>,
}

/// Serves the API until `shutdown` is ready and the requests of that time are answered. Each request is
/// judged by the tokens of its time.
pub async fn serve(
    listener: TcpListener,
    node: Arc<dyn Node>,
    tokens: watch::Receiver<Vec<Token>>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let router = router_until(node, tokens, stopping);
    let shutdown = async move {
        shutdown.await;
        stop.send_replace(true);
    };
    listener::serve(listener, router, shutdown).await;
}

/// Serves settlement engines, who report what came in and talk to each other, until `shutdown` is
/// ready. With a token, they must present it.
pub async fn serve_engines(
    listener: TcpListener,
    node: Arc<dyn Node>,
    token: watch::Receiver<Option<TokenHash>>,
    shutdown: impl Future<Output = ()>,
) {
    let router = engines_router(node, token);
    listener::serve(listener, router, shutdown).await;
}

/// Serves accounting systems, whose settlement engine this node is, until `shutdown` is ready. With a
/// token, they must present it.
pub async fn serve_engine(
    listener: TcpListener,
    node: Arc<dyn Node>,
    token: watch::Receiver<Option<TokenHash>>,
    terms: EngineTerms,
    shutdown: impl Future<Output = ()>,
) {
    let router = engine_router(node, token, terms);
    listener::serve(listener, router, shutdown).await;
}

/// What [`serve_engine`] serves, without a socket.
pub fn engine_router(
    node: Arc<dyn Node>,
    token: watch::Receiver<Option<TokenHash>>,
    terms: EngineTerms,
) -> Router {
    engine::router(Handle(node), token, terms)
}

/// What [`serve_engines`] serves, without a socket.
pub fn engines_router(node: Arc<dyn Node>, token: watch::Receiver<Option<TokenHash>>) -> Router {
    settlements::engines_router(Handle(node), token)
}

/// The API as a service, without a socket.
pub fn router(node: Arc<dyn Node>, tokens: watch::Receiver<Vec<Token>>) -> Router {
    let (_, never) = watch::channel(false);
    router_until(node, tokens, never)
}

/// The description of the API, OpenAPI 3.1.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let info = InfoBuilder::new()
        .title("Rialto admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Operates a Rialto node. Money is a text of integer minor units beside asset_code and \
             asset_scale. Errors are problem documents (RFC 9457) with a stable code.",
        ))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache-2.0")
                .identifier(Some("Apache-2.0"))
                .build(),
        ))
        .build();
    let mut description = described(OpenApiBuilder::new().info(info).build()).into_openapi();
    let components = description.components.get_or_insert_default();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("bearer", bearer);
    description
}

fn router_until(
    node: Arc<dyn Node>,
    tokens: watch::Receiver<Vec<Token>>,
    stopping: watch::Receiver<bool>,
) -> Router {
    let description = get(async || {
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        (content_type, include_str!("../openapi.json"))
    });
    served()
        .route("/v1/openapi.json", description)
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(Api {
            node: Handle(node),
            tokens,
            stopping,
            resolving: Arc::new(Semaphore::new(RESOLVING_MAX)),
        })
}

/// All operations, with their description and without: a node has no use for the megabytes that it takes to
/// make one.
macro_rules! operations {
    ($($module:ident::$handler:ident,)*) => {
        fn described(description: utoipa::openapi::OpenApi) -> OpenApiRouter<Api> {
            OpenApiRouter::with_openapi(description)$(.routes(routes!($module::$handler)))*
        }

        paste! {
            fn served() -> Router<Api> {
                let router = Router::new();
                $(
                    let methods = $module::[<__path_ $handler>]::methods().into_iter();
                    let on = methods.fold(MethodRouter::new(), |on, method| {
                        on.on(method.to_method_filter(), $module::$handler)
                    });
                    let router = router.route(&$module::[<__path_ $handler>]::path(), on);
                )*
                router
            }
        }
    };
}

operations! {
    accounts::list,
    accounts::create,
    accounts::read,
    accounts::change,
    accounts::delete,
    accounts::create_token,
    invites::list,
    invites::create,
    invites::accept,
    invites::delete,
    accounts::delete_token,
    doctor::diagnose,
    rafiki::auto_peer,
    strangers::callers,
    strangers::adopt,
    strangers::block,
    strangers::unblock,
    strangers::requests,
    strangers::approve,
    strangers::deny,
    balances::list,
    adjustments::list,
    adjustments::create,
    routes::list,
    routes::put,
    routes::delete,
    route_views::explain,
    route_views::changes,
    route_views::peers,
    rates::list,
    rates::put,
    rates::delete,
    rates::push,
    rates::confirm,
    payments::quote,
    payments::list,
    payments::create,
    payments::read,
    payments::stop,
    payments::ping,
    settlements::list,
    settlements::create,
    settlements::read,
    settlements::retry,
    settlements::cancel,
    hand_settlements::list,
    hand_settlements::create,
    hand_settlements::read,
    hand_settlements::approve,
    hand_settlements::decline,
    channels::list,
    channels::create,
    channels::read,
    channels::accept,
    channels::decline,
    channels::limits,
    channels::close,
    channels::statement,
    statements::list,
    statements::create,
    health::status,
    health::livez,
    health::readyz,
    metrics::metrics,
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::not_found("resource", uri.path())
}

async fn unknown_method() -> impl IntoResponse {
    let detail = "the resource does not have this method; see the Allow header";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// Milliseconds since 1970.
fn wall_ms() -> i64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// Two lower-case digits for each byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An instant as RFC 3339 has it; `None` beyond the year 9999.
fn rfc3339(unix_ms: i64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_millisecond(unix_ms).ok()?;
    Some(timestamp.to_string())
}
