//! Whether the node lives, whether it takes packets, and how it is.

use axum::{Json, extract::State, http::StatusCode};
use rialto_connector::{Connector, LinkId};
use rialto_ledger::{Account, AccountId};
use rialto_packet::Address;
use serde::Deserialize;

use crate::{
    Api, NodeStatus, Problem,
    auth::{Allowed, ToRead},
    extract,
    shapes::{Journal, Link, Links, Status},
};

/// How the node is.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "read_status",
    tag = "node",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "The status", body = Status),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn status(_: Allowed<ToRead>, State(api): State<Api>) -> Json<Status> {
    let status = api.node.0.status();
    let mut links = Links::default();
    let count = |connector: &Connector, account: &Account| {
        *match link(connector, account.id) {
            Link::Up => &mut links.up,
            Link::Down => &mut links.down,
            Link::Http => &mut links.http,
            Link::Local => &mut links.local,
        } += 1;
    };
    api.node.each_account(count).await;
    Json(api.node.read(|connector| Status {
        name: status.name.clone(),
        version: status.version.to_owned(),
        ilp_address: connector.address().map(Address::to_string),
        public_url: api.node.0.endpoint(),
        address_problem: connector.address_problem().map(str::to_owned),
        uptime_ms: status.uptime_ms,
        draining: status.draining,
        workers: status.worker_count,
        journal: Journal {
            written: status.written_lsn,
            synced: status.synced_lsn,
            failure: status.journal_failure.clone(),
        },
        links,
        in_flight_count: connector.in_flight_count(),
        payments_running: payments_running(connector),
    }))
}

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "node",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"))
)]
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadyQuery {
    /// Say how each check went.
    #[param(required = false)]
    verbose: Option<String>,
}

/// Whether the node takes packets.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "node",
    params(ReadyQuery),
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain"),
        (status = 503, description = "It does not", body = String, content_type = "text/plain"),
    )
)]
pub(crate) async fn readyz(
    State(api): State<Api>,
    extract::Query(query): extract::Query<ReadyQuery>,
) -> (StatusCode, String) {
    let address = api.node.read(address_failure);
    let checks = checks(&api.node.0.status(), address);
    let ready = checks.iter().all(|(_, failure)| failure.is_none());
    let (status, verdict) = if ready {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    };
    let mut text = String::new();
    if query.verbose.is_some() {
        for (name, failure) in checks {
            text += &match failure {
                None => format!("[+] {name}: ok\n"),
                Some(failure) => format!("[-] {name}: {failure}\n"),
            };
        }
    }
    (status, text + verdict)
}

/// What has to be in order, and what is wrong with it. A peer that is down is none of it: the node
/// serves the others.
fn checks(status: &NodeStatus, address: Option<String>) -> [(&'static str, Option<String>); 3] {
    let draining = status
        .draining
        .then(|| "the node is about to stop".to_owned());
    [
        ("journal", status.journal_failure.clone()),
        ("accepting", draining),
        ("address", address),
    ]
}

/// Why the node has no address.
fn address_failure(connector: &Connector) -> Option<String> {
    connector.address().is_none().then(|| {
        let problem = connector.address_problem();
        problem.unwrap_or("the parent is being asked").to_owned()
    })
}

pub(crate) fn link(connector: &Connector, id: AccountId) -> Link {
    match connector.link_of(id) {
        Some(LinkId::Local) => Link::Local,
        Some(LinkId::Http(_)) => Link::Http,
        Some(LinkId::Session { .. } | LinkId::Waiting { .. }) => Link::Up,
        None => Link::Down,
    }
}

pub(crate) fn payments_running(connector: &Connector) -> usize {
    let payments = connector.ledger().payments().values();
    payments.filter(|payment| payment.end.is_none()).count()
}
