//! Peering by invitation, both ends: the API of the operators, and what a node asks another on its
//! node listener.
//!
//! ```text
//! operator ─▶ maker: POST /v1/invites                   a text with a secret; its hash is written down
//! operator ─▶ acceptor: POST /v1/invites/accept         reads the text
//!             acceptor ─▶ maker: POST PATH, the secret  makes the account; one record, on disk
//!             acceptor                                  makes its account, on disk
//! ```
//!
//! The acceptor derives all tokens from its own secret and the invitation's, so that the same request
//! after a lost answer, or after a crash, is the same to the letter, and the answer carries no secret.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{
        Method, Request, Response, StatusCode,
        header::{ALLOW, AUTHORIZATION, CONTENT_TYPE},
    },
    response::IntoResponse,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rialto_connector::{Acceptance, Connector, InviteError, routes_of_peer};
use rialto_ledger::{AccountSettings, AccountTerms, Invite, Relation, TokenHash, check_name};
use rialto_packet::{Address, money::Asset};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    accounts::{
        btp_link, check_outgoing, check_token, find, http_link, read_address, shape, unlimited,
    },
    auth::{Allowed, ToRead, ToWrite, generate_token, hash},
    doctor::{LINK_PATH, link_card},
    extract,
    invite_text::InviteText,
    node::Handle,
    peering::InviteRefused,
    rfc3339,
    shapes::{self, Account, Limits},
    strangers::{self, id},
    wall_ms,
};

/// Where a node accepts invitations that it made, on its node listener.
pub const INVITE_PATH: &str = "/.well-known/rialto/invite";

/// How long an invitation is good unless something else is said.
const EXPIRES_SECONDS: u32 = 24 * 3_600;
const EXPIRES_SECONDS_MAX: u32 = 30 * 24 * 3_600;

/// Longest URL of a node listener, in bytes: the invitation has to stay one line.
const ENDPOINT_BYTES_MAX: usize = 512;
/// Longest name of a node, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// How often it is looked whether the new link is up, and how many times: together 3 s.
const CONNECT_LOOK: Duration = Duration::from_millis(20);
const CONNECT_LOOKS: u32 = 150;

/// An account that is offered to whoever has the invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteCreate {
    /// What amounts on the account will count.
    #[schema(example = "USD")]
    asset_code: String,
    /// The smallest unit is 10^-scale.
    #[schema(example = 9)]
    asset_scale: u8,
    /// What the account will be called; after the node that accepts where it is left out.
    #[serde(default)]
    #[schema(example = "alice", pattern = "^[A-Za-z0-9_~-]{1,64}$")]
    name: Option<String>,
    /// What it may do.
    #[serde(default)]
    limits: Limits,
    /// Routes are set by hand, and not exchanged as with any peer.
    #[serde(default)]
    without_routes: bool,
    /// How long it can be accepted: up to 30 days, a day where it is left out.
    #[serde(default)]
    expires_in_seconds: Option<u32>,
}

/// An invitation that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct InviteCreated {
    /// Its name in this API.
    #[schema(example = "9f86d081884c7d65")]
    id: String,
    /// The invitation. It is shown this once: whoever has it can accept it.
    #[schema(example = "rialto_invite_AQcH")]
    invite: String,
    /// The node listener that the acceptor will speak to.
    endpoint: String,
    /// Until when.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// What has become of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InviteState {
    /// It can be accepted.
    Open,
    /// It was.
    Used,
    /// Nobody came.
    Expired,
}

/// An invitation as it is listed. The secret is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct InviteEntry {
    /// Its name in this API.
    id: String,
    /// What has become of it.
    state: InviteState,
    /// What the account will be called, or is.
    account: Option<String>,
    /// What its amounts count.
    asset_code: String,
    /// The smallest unit is 10^-scale.
    asset_scale: u8,
    /// What it may do.
    limits: Limits,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: Option<String>,
    /// From when on nobody can accept it.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// All invitations, oldest first. Those that have expired go when new ones are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Invites {
    /// The invitations.
    invites: Vec<InviteEntry>,
}

/// How packets will be exchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InviteLink {
    /// One connection from the acceptor to the maker, both ways.
    #[default]
    Btp,
    /// Requests to each other: the maker has to reach the acceptor's node listener.
    Http,
}

/// An invitation that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteAccept {
    /// As it was received.
    #[schema(write_only)]
    invite: String,
    /// What the maker's account will be called here; after its node where it is left out.
    #[serde(default)]
    #[schema(example = "bob", pattern = "^[A-Za-z0-9_~-]{1,64}$")]
    name: Option<String>,
    /// What the maker may do here.
    #[serde(default)]
    limits: Limits,
    /// How packets will be exchanged.
    #[serde(default)]
    link: InviteLink,
    /// Routes are set by hand here, and not exchanged as with any peer.
    #[serde(default)]
    without_routes: bool,
}

/// What the acceptor's node sends to the maker's.
#[derive(Serialize, Deserialize)]
struct Request1 {
    ilp_address: String,
    name: String,
    asset_code: String,
    asset_scale: u8,
    /// What the acceptor will present.
    token: String,
    /// Where it takes packets itself, and what the maker is to present there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<shapes::HttpLink>,
}

/// The maker's answer.
#[derive(Serialize, Deserialize)]
struct Answer1 {
    /// The acceptor's account: it stands in the paths of the URLs.
    account: String,
}

/// Offers an account to whoever has the invitation first.
#[utoipa::path(
    post,
    path = "/v1/invites",
    operation_id = "create_invite",
    tag = "peering",
    security(("bearer" = ["write"])),
    request_body = InviteCreate,
    responses(
        (status = 201, description = "The invitation", body = InviteCreated),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<InviteCreate>,
) -> Result<(StatusCode, Json<InviteCreated>), Problem> {
    let asset = Asset::new(&request.asset_code, request.asset_scale)
        .map_err(|error| Problem::invalid("asset_code", error.to_string()))?;
    let seconds = request.expires_in_seconds.unwrap_or(EXPIRES_SECONDS);
    if !(1..=EXPIRES_SECONDS_MAX).contains(&seconds) {
        let detail = format!("must be from 1 to {EXPIRES_SECONDS_MAX}, which is 30 days");
        return Err(Problem::invalid("expires_in_seconds", detail));
    }
    let endpoint = own_endpoint(&api.node)?;
    let secret = api.node.0.random();
    let (name, limits) = (request.name, request.limits);
    let without_routes = request.without_routes;
    let secret_hash = hash_secret(&secret);
    let node_name = node_name(&api.node);
    let put = api.node.execute(move |connector, now, out| {
        let created_at_ms = now.wall.unix_ms();
        let expires_at_ms = created_at_ms.saturating_add(1_000 * i64::from(seconds));
        let invite = Invite {
            hash: secret_hash,
            name,
            asset: asset.clone(),
            limits: limits.into(),
            without_routes,
            created_at_ms,
            expires_at_ms,
            used: None,
        };
        let credit = u64::try_from(-invite.limits.balance_min).unwrap_or(u64::MAX);
        let ilp_address = own_address(connector)?;
        connector.invite_put(now, invite, out)?;
        Ok::<_, Problem>(InviteText {
            secret,
            expires_at_ms,
            credit,
            asset,
            endpoint,
            ilp_address,
            name: node_name,
        })
    });
    let text = put.await??;
    let created = InviteCreated {
        id: id(secret_hash),
        invite: text.encode(),
        endpoint: text.endpoint,
        expires_at: rfc3339(text.expires_at_ms),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Invitations that this node made.
#[utoipa::path(
    get,
    path = "/v1/invites",
    operation_id = "list_invites",
    tag = "peering",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "All of them", body = Invites),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(_: Allowed<ToRead>, State(api): State<Api>) -> Json<Invites> {
    let now_ms = wall_ms();
    Json(api.node.read(|connector| {
        let mut invites: Vec<_> = connector.ledger().invites().collect();
        invites.sort_by_key(|invite| (invite.created_at_ms, invite.hash.0));
        let entry = |invite: &Invite| {
            let account = invite.used.and_then(|used| {
                let account = connector.ledger().account(used.account)?;
                Some(account.settings.name.clone())
            });
            InviteEntry {
                id: id(invite.hash),
                state: match invite.used {
                    Some(_) => InviteState::Used,
                    None if invite.expires_at_ms <= now_ms => InviteState::Expired,
                    None => InviteState::Open,
                },
                account: account.or_else(|| invite.name.clone()),
                asset_code: invite.asset.code().to_owned(),
                asset_scale: invite.asset.scale(),
                limits: (&invite.limits).into(),
                created_at: rfc3339(invite.created_at_ms),
                expires_at: rfc3339(invite.expires_at_ms),
            }
        };
        Invites {
            invites: invites.into_iter().map(entry).collect(),
        }
    }))
}

/// Revokes an invitation. An account that came of it stays.
#[utoipa::path(
    delete,
    path = "/v1/invites/{id}",
    operation_id = "delete_invite",
    tag = "peering",
    security(("bearer" = ["write"])),
    params(("id" = String, Path, description = "Name of the invitation")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(name): extract::Path,
) -> Result<StatusCode, Problem> {
    let deleted = api.node.execute(move |connector, _, out| {
        let invites = connector.ledger().invites();
        let found = { invites }.find(|invite| id(invite.hash) == name);
        let hash = found.map(|invite| invite.hash);
        let hash = hash.ok_or_else(|| Problem::not_found("invite", &name))?;
        connector.invite_delete(hash, out)?;
        Ok::<_, Problem>(())
    });
    deleted.await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Accepts an invitation: both nodes end with an account for the other. The same request again
/// finds the same account.
#[utoipa::path(
    post,
    path = "/v1/invites/accept",
    operation_id = "accept_invite",
    tag = "peering",
    security(("bearer" = ["write"])),
    request_body = InviteAccept,
    responses(
        (status = 201, description = "The account of the invitation's maker", body = Account),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn accept(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<InviteAccept>,
) -> Result<(StatusCode, Json<Account>), Problem> {
    let node = &api.node;
    let refused = |reason: InviteRefused, detail: String| {
        node.0.peering().refused_invite(reason);
        Problem::invalid("invite", detail)
    };
    let text = InviteText::decode(&request.invite)
        .map_err(|error| refused(InviteRefused::Damaged, error.to_string()))?;
    if text.expires_at_ms <= wall_ms() {
        let detail = "has expired: ask for a new one".to_owned();
        return Err(refused(InviteRefused::Expired, detail));
    }
    node.0
        .may_connect(&text.endpoint)
        .map_err(|detail| Problem::invalid("invite", detail))?;
    let token = |purpose| generate_token("peer", node.0.derive(purpose, &text.secret));
    let (ours, theirs) = (token("invite, ours"), token("invite, theirs"));

    // Accepted before, and perhaps nobody heard of it.
    let before = node.read(|connector| {
        let made = connector.ledger().account_by_token(hash(&theirs));
        made.map(|account| {
            node.0.peering().agreed(account.id, wall_ms());
            shape(connector, account, node)
        })
    });
    if let Some(account) = before {
        return Ok((StatusCode::CREATED, Json(account)));
    }

    let mut settings = AccountSettings {
        name: request.name.unwrap_or_default(),
        incoming_tokens: vec![unlimited(hash(&theirs))],
        terms: AccountTerms {
            ilp_address: Some(text.ilp_address.clone()),
            limits: request.limits.into(),
            routes: routes_of_peer(request.without_routes),
            ..AccountTerms::new(Relation::Peer, text.asset.clone())
        }
        .into(),
    };
    let address = node.read(|connector| {
        if settings.name.is_empty() {
            settings.name = connector.free_name(&text.name);
        }
        connector.check_newcomers_address(&text.ilp_address)?;
        connector.check_new_account(&settings)?;
        Ok::<_, Problem>(own_address(connector)?.to_string())
    })?;

    let http = match request.link {
        InviteLink::Btp => None,
        // The account is found by the token, so the path need not know its name.
        InviteLink::Http => Some(shapes::HttpLink {
            jwt: None,
            tls_pins: Vec::new(),
            callback: false,
            url: format!("{}/ilp", own_endpoint(node)?),
            token: Some(theirs),
        }),
    };
    let asked = Request1 {
        ilp_address: address,
        name: node_name(node),
        asset_code: text.asset.code().to_owned(),
        asset_scale: text.asset.scale(),
        token: ours.clone(),
        http,
    };
    let account = ask(node, &text, &asked).await?;

    let base = format!("{}/accounts/{account}/ilp", text.endpoint);
    match request.link {
        InviteLink::Http => {
            let link = shapes::HttpLink {
                jwt: None,
                tls_pins: Vec::new(),
                callback: false,
                url: base,
                token: Some(ours),
            };
            settings.http = Some(http_link(link, None, node)?);
        }
        InviteLink::Btp => {
            let link = shapes::BtpLink {
                url: format!("btp+{}/btp", base.replacen("http", "ws", 1)),
                username: None,
                token: Some(ours),
                jwt: None,
                tls_pins: Vec::new(),
            };
            settings.btp = Some(btp_link(link, None, node)?);
        }
    }
    let node = api.node.clone();
    let created = api.node.execute(move |connector, _, out| {
        let name = settings.name.clone();
        let id = connector.account_create(settings, out)?;
        node.0.peering().agreed(id, wall_ms());
        Ok::<_, Problem>(shape(connector, find(connector, &name)?, &node))
    });
    let account = created.await??;
    Ok((StatusCode::CREATED, Json(connected(&api, account).await)))
}

/// The account once its link is up, or as it is after a while.
async fn connected(api: &Api, account: Account) -> Account {
    let mut account = account;
    for _ in 0..CONNECT_LOOKS {
        if account.link != shapes::Link::Down {
            break;
        }
        sleep(CONNECT_LOOK).await;
        let look = |connector: &Connector| {
            let found = find(connector, &account.name).ok()?;
            Some(shape(connector, found, &api.node))
        };
        let Some(now) = api.node.read(look) else {
            break; // deleted meanwhile
        };
        account = now;
    }
    account
}

/// Asks the maker for the account; gives its name there.
async fn ask(node: &Handle, text: &InviteText, asked: &Request1) -> Result<String, Problem> {
    let body = serde_json::to_vec(asked).expect("text keys and plain values");
    let secret = BASE64_URL_SAFE_NO_PAD.encode(text.secret);
    let url = format!("{}{INVITE_PATH}", text.endpoint);
    let request = Request::post(&url)
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, format!("Bearer {secret}"))
        .body(Bytes::from(body))
        .map_err(|_| Problem::invalid("invite", "names an endpoint that is no URL"))?;
    let unreadable = |what: &str| {
        let detail = format!("{url} {what}: is it a Rialto node?");
        Problem::new(StatusCode::BAD_GATEWAY, "peer_answer", detail)
    };
    let answer = node.0.exchange(request).await.map_err(|error| {
        let detail = format!("cannot reach {url}: {error}; the invite is not used up, try again");
        Problem::new(StatusCode::BAD_GATEWAY, "peer_unreachable", detail)
    })?;
    if !answer.status().is_success() {
        let status = answer.status();
        let problem: Problem = serde_json::from_slice(answer.body())
            .map_err(|_| unreadable(&format!("answered with status {status}")))?;
        let detail = format!("{} refuses: {}", text.endpoint, problem.detail);
        return Err(match status.is_client_error() {
            true => Problem::new(status, &problem.code, detail).of_field("invite"),
            false => Problem::new(StatusCode::BAD_GATEWAY, "peer_unavailable", detail),
        });
    }
    let answer: Answer1 = serde_json::from_slice(answer.body())
        .map_err(|error| unreadable(&format!("gave an answer that is none ({error})")))?;
    match check_name(&answer.account) {
        true => Ok(answer.account),
        false => Err(unreadable("named an account that cannot be one")),
    }
}

/// Answers other nodes on the node listener: one that accepts an invitation of ours at
/// [`INVITE_PATH`], a neighbour that asks about its link at [`LINK_PATH`], and whoever asks to peer at the
/// path of [`AutoPeering`](crate::AutoPeering). What is made is on disk
/// before it is answered.
pub async fn greet(node: &Handle, request: Request<Bytes>) -> Response<Bytes> {
    let answer = match *request.method() {
        Method::GET if request.uri().path() == LINK_PATH => {
            return answer_bytes(link_card(node, &request).await);
        }
        Method::POST if strangers::is_asked(node, &request) => {
            return answer_bytes(strangers::asked(node, &request).await);
        }
        _ if request.uri().path() != INVITE_PATH => {
            Err(Problem::not_found("resource", request.uri().path()))
        }
        Method::POST if node.0.status().draining => {
            Err(Problem::unavailable("the node is about to stop"))
        }
        Method::POST => greeted(node, &request).await,
        _ => {
            let detail = "invites are accepted by POST";
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Err(Problem::new(status, "method_not_allowed", detail))
        }
    };
    let encoded = |answer| serde_json::to_vec(&answer).expect("text keys and plain values");
    answer_bytes(answer.map(encoded))
}

fn answer_bytes(answer: Result<Vec<u8>, Problem>) -> Response<Bytes> {
    let (status, content_type, body) = match answer {
        Ok(body) => (StatusCode::OK, "application/json", body),
        Err(problem) => {
            let status = problem.clone().into_response().status();
            let body = serde_json::to_vec(&problem).expect("text keys and plain values");
            (status, "application/problem+json", body)
        }
    };
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response = response.header(ALLOW, "POST");
    }
    let response = response.body(Bytes::from(body));
    response.expect("all of its parts are known to be good")
}

async fn greeted(node: &Handle, request: &Request<Bytes>) -> Result<Answer1, Problem> {
    let refuse = |reason: InviteRefused, problem: Problem| {
        node.0.peering().refused_invite(reason);
        tracing::warn!(
            reason = reason.word(),
            "an invite was refused: {}",
            problem.detail
        );
        problem
    };
    let secret = presented_secret(request).ok_or_else(|| {
        let detail = "present the invite's secret as 'Authorization: Bearer ...'";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        refuse(InviteRefused::Unknown, problem)
    })?;
    let asked: Request1 = serde_json::from_slice(request.body()).map_err(|error| {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "malformed", error.to_string());
        refuse(InviteRefused::Damaged, problem)
    })?;
    let acceptance = acceptance(node, hash_secret(&secret), asked)
        .map_err(|problem| refuse(InviteRefused::Account, problem))?;
    let accepted = node.execute(move |connector, now, out| {
        let id = connector.invite_accept(now, acceptance, out)?;
        let account = connector.ledger().account(id);
        let account = account.expect("it was just made, or found");
        Ok::<_, InviteError>((id, account.settings.name.clone()))
    });
    match accepted.await? {
        Ok((id, account)) => {
            node.0.peering().agreed(id, wall_ms());
            tracing::info!(account, "an invite was accepted");
            Ok(Answer1 { account })
        }
        Err(error) => {
            let (reason, status, code) = match &error {
                InviteError::Unknown => (InviteRefused::Unknown, 404, "invite_unknown"),
                InviteError::Expired => (InviteRefused::Expired, 410, "invite_expired"),
                InviteError::Used => (InviteRefused::Used, 409, "invite_used"),
                InviteError::Asset { .. } => (InviteRefused::Damaged, 422, "invite_changed"),
                InviteError::Account(_) => (InviteRefused::Account, 409, "conflict"),
            };
            let status = StatusCode::from_u16(status).expect("each of them is one");
            Err(refuse(
                reason,
                Problem::new(status, code, error.to_string()),
            ))
        }
    }
}

fn acceptance(node: &Handle, secret: TokenHash, asked: Request1) -> Result<Acceptance, Problem> {
    let asset = Asset::new(&asked.asset_code, asked.asset_scale)
        .map_err(|error| Problem::invalid("asset_code", error.to_string()))?;
    let address: Option<Address> = read_address(Some(&asked.ilp_address))?;
    let address = address.ok_or_else(|| Problem::invalid("ilp_address", "is missing"))?;
    let token = check_token("token", &asked.token)?;
    let mut request = format!("{address}\n{asset}\n{}", asked.token);
    let http = match asked.http {
        None => None,
        Some(link) => {
            // Whoever is reached over TLS does not send in clear.
            if own_endpoint(node)?.starts_with("https:") && !link.url.starts_with("https:") {
                return Err(Problem::invalid("http.url", "must begin with https://"));
            }
            node.0
                .may_connect(&link.url)
                .map_err(|detail| Problem::invalid("http.url", detail))?;
            let link_token = link.token.as_deref().unwrap_or_default();
            check_outgoing("http.token", link_token)?;
            request.push_str(&format!("\n{}\n{link_token}", link.url));
            let link = shapes::HttpLink {
                jwt: None,
                tls_pins: Vec::new(),
                callback: false,
                ..link
            };
            Some(http_link(link, None, node)?)
        }
    };
    Ok(Acceptance {
        hash: secret,
        request: hash(&request),
        name: asked.name,
        address,
        asset,
        token,
        http,
    })
}

fn presented_secret(request: &Request<Bytes>) -> Option<[u8; 32]> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let secret = BASE64_URL_SAFE_NO_PAD.decode(secret.trim()).ok()?;
    secret.try_into().ok()
}

pub(crate) fn own_address(connector: &Connector) -> Result<Address, Problem> {
    connector.address().cloned().ok_or_else(|| {
        let detail = "this node has no address yet: its parent gives it one";
        Problem::new(StatusCode::CONFLICT, "conflict", detail)
    })
}

pub(crate) fn own_endpoint(node: &Handle) -> Result<String, Problem> {
    let endpoint = node.0.endpoint();
    if endpoint.len() > ENDPOINT_BYTES_MAX {
        let detail = format!("node.public_url is longer than {ENDPOINT_BYTES_MAX} characters");
        return Err(Problem::new(StatusCode::CONFLICT, "public_url", detail));
    }
    node.0.may_connect(&endpoint).map_err(|detail| {
        let detail =
            format!("others reach this node at {endpoint}, which {detail}: set node.public_url");
        Problem::new(StatusCode::CONFLICT, "public_url", detail)
    })?;
    Ok(endpoint)
}

pub(crate) fn node_name(node: &Handle) -> String {
    let mut name = node.0.status().name;
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    name
}

fn hash_secret(secret: &[u8; 32]) -> TokenHash {
    hash(&BASE64_URL_SAFE_NO_PAD.encode(secret))
}
