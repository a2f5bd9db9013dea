//! Nodes that nobody invited: callers with unknown tokens, and requests to peer.
//!
//! A request to peer is Rafiki's auto-peering call, taken at a path of its own on the node listener where
//! the operator wants that. Nothing is made of it:
//!
//! ```text
//! stranger ─▶ node: POST PATH               403, approval_pending; the request waits, on disk
//! operator ─▶ node: approve, with limits    still nothing
//! stranger ─▶ node: the same POST           200; the account, with the tokens of this call
//! ```
//!
//! A Rafiki node makes a new token for each call and keeps nothing of one that failed, so that the account
//! can only be made by a call that is answered. The second has to come from the same address, for the same
//! ILP address, URL and asset.

use std::net::{IpAddr, Ipv6Addr};

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{Request, StatusCode},
};
use rialto_connector::{Connector, PeeringBounds, PeeringStand};
use rialto_ledger::{
    AccountSettings, AccountTerms, PeeringRequest, PeeringVerdict, Relation, RouteExchange,
    TokenHash,
};
use rialto_packet::money::Asset;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    accounts::{
        TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, check_token, find, http_link, no_tokens, read_address,
        shape, unlimited,
    },
    auth::{Allowed, ToRead, ToWrite, generate_token, hash},
    extract, hex,
    invites::{node_name, own_address, own_endpoint},
    node::Handle,
    rfc3339,
    shapes::{self, Account, AccountRelation, Limits},
    wall_ms,
};

/// Bytes of a hash that are its name in the API.
const ID_BYTES: usize = 8;

/// Longest name that a stranger has, in characters.
const NAME_CHARS_MAX: usize = 64;

const HOUR_MS: i64 = 3_600_000;

/// Somebody who presented a token that opens nothing, as the node remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// SHA-256 of the token.
    pub hash: TokenHash,
    /// Bytes of the token.
    pub token_len: usize,
    /// Where it came from last.
    pub address: IpAddr,
    /// And with what path.
    pub path: String,
    /// How often it came.
    pub count: u64,
    /// For the first time, milliseconds since 1970.
    pub first_ms: i64,
    /// For the last time.
    pub last_ms: i64,
}

/// How requests to peer are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoPeering {
    /// Where, on the node listener.
    pub path: String,
    /// How many may wait.
    pub bounds: PeeringBounds,
    /// How long one waits for the operator.
    pub request_hours: u16,
    /// How long an approved one waits for the asker.
    pub approval_hours: u16,
}

/// A caller whose token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CallerEntry {
    /// Of the token: the first 8 bytes of its SHA-256.
    #[schema(example = "9f86d081884c7d65")]
    fingerprint: String,
    /// Where it came from last.
    #[schema(example = "192.0.2.7")]
    address: String,
    /// And with what path.
    #[schema(example = "/accounts/bob/ilp")]
    path: String,
    /// How often it came.
    count: u64,
    /// For the first time.
    #[schema(format = DateTime)]
    first_seen: Option<String>,
    /// For the last time.
    #[schema(format = DateTime)]
    last_seen: Option<String>,
}

/// Callers whose tokens open nothing. They are forgotten with the process; those that are blocked are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CallerList {
    /// Last heard of first.
    callers: Vec<CallerEntry>,
    /// Fingerprints of tokens that are passed over in silence.
    blocked: Vec<String>,
}

/// Whose token it is from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adoption {
    /// The account: one that is there gets one more token, another is made.
    #[schema(example = "bob", pattern = "^[A-Za-z0-9_~-]{1,64}$")]
    account: String,
    /// What a new account will count.
    #[serde(default)]
    #[schema(example = "USD")]
    asset_code: Option<String>,
    /// The smallest unit is 10^-scale.
    #[serde(default)]
    #[schema(example = 9)]
    asset_scale: Option<u8>,
    /// What the holder of a new account is to us; a peer where it is left out.
    #[serde(default)]
    relation: Option<AccountRelation>,
    /// The address of the holder of a new account.
    #[serde(default)]
    ilp_address: Option<String>,
    /// What a new account may do.
    #[serde(default)]
    limits: Limits,
}

/// What has become of a request to peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RequestState {
    /// It waits for the operator.
    Waiting,
    /// It waits for the asker to come again.
    Approved,
    /// The asker may come as often as it likes.
    Denied,
}

/// A request to peer from a node that nobody invited. Everything in it is the asker's own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RequestEntry {
    /// Its name in this API.
    #[schema(example = "9f86d081884c7d65")]
    id: String,
    /// What has become of it.
    state: RequestState,
    /// The IPv4 address or IPv6 network that it came from.
    from: String,
    /// What the asker calls itself.
    name: String,
    /// Its ILP address.
    ilp_address: String,
    /// Where it takes packets.
    url: String,
    /// What the account is to count.
    asset_code: String,
    /// The smallest unit is 10^-scale.
    asset_scale: u8,
    /// When it came.
    #[schema(format = DateTime)]
    created_at: Option<String>,
    /// When it is forgotten.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Requests to peer, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RequestList {
    /// Where they are taken; null where they are not.
    path: Option<String>,
    /// The requests.
    requests: Vec<RequestEntry>,
}

/// What the account of a request will be, once its asker comes again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Approval {
    /// Its name; after the asker where it is left out.
    #[schema(example = "rafiki", pattern = "^[A-Za-z0-9_~-]{1,64}$")]
    name: Option<String>,
    /// What it may do; owe nothing, where this says nothing.
    limits: Limits,
}

/// Callers whose tokens open no account.
#[utoipa::path(
    get,
    path = "/v1/callers",
    operation_id = "list_callers",
    tag = "peering",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "Those that are remembered", body = CallerList),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn callers(_: Allowed<ToRead>, State(api): State<Api>) -> Json<CallerList> {
    let mut callers = api.node.0.callers();
    callers.sort_by_key(|caller| (std::cmp::Reverse(caller.last_ms), caller.hash.0));
    let entry = |caller: Caller| CallerEntry {
        fingerprint: id(caller.hash),
        address: caller.address.to_string(),
        path: caller.path,
        count: caller.count,
        first_seen: rfc3339(caller.first_ms),
        last_seen: rfc3339(caller.last_ms),
    };
    let blocked = |connector: &Connector| {
        let blocked = connector.ledger().blocked_callers();
        blocked.map(id).collect()
    };
    Json(CallerList {
        callers: callers.into_iter().map(entry).collect(),
        blocked: api.node.read(blocked),
    })
}

/// Makes a caller's token open an account: one that is there, or a new one.
#[utoipa::path(
    post,
    path = "/v1/callers/{fingerprint}/adopt",
    operation_id = "adopt_caller",
    tag = "peering",
    security(("bearer" = ["write"])),
    params(("fingerprint" = String, Path, description = "Of the caller's token")),
    request_body = Adoption,
    responses(
        (status = 201, description = "The account", body = Account),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn adopt(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(fingerprint): extract::Path,
    extract::Json(request): extract::Json<Adoption>,
) -> Result<(StatusCode, Json<Account>), Problem> {
    let caller = known(&api.node, &fingerprint)?;
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&caller.token_len) {
        let detail = format!(
            "the caller's token has {} bytes, and {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} are safe: agree on another with its operator",
            caller.token_len
        );
        return Err(Problem::invalid("fingerprint", detail));
    }
    let asset = match (request.asset_code, request.asset_scale) {
        (Some(code), Some(scale)) => Some(
            Asset::new(&code, scale)
                .map_err(|error| Problem::invalid("asset_code", error.to_string()))?,
        ),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let detail = "is given without the other of asset_code and asset_scale";
            return Err(Problem::invalid("asset_code", detail));
        }
    };
    let ilp_address = read_address(request.ilp_address.as_deref())?;
    let relation: Relation = request.relation.unwrap_or(AccountRelation::Peer).into();
    let node = api.node.clone();
    let adopted = api.node.execute(move |connector, _, out| {
        let name = request.account;
        let token = unlimited(caller.hash);
        let present = connector.ledger().account_by_name(&name);
        if let Some(present) = present {
            let mut settings = AccountSettings::clone(&present.settings);
            if asset.is_some_and(|asset| asset != settings.asset) {
                let detail = format!("account '{name}' is there, and counts {}", settings.asset);
                let problem = Problem::new(StatusCode::CONFLICT, "conflict", detail);
                return Err(problem.of_field("asset_code"));
            }
            if settings.relation == Relation::Local {
                return Err(no_tokens("account"));
            }
            settings.incoming_tokens.push(token);
            connector.account_update(settings, out)?;
        } else {
            let asset = asset.ok_or_else(|| {
                let detail = format!("is missing: there is no account '{name}' yet");
                Problem::invalid("asset_code", detail)
            })?;
            if relation == Relation::Local {
                return Err(no_tokens("relation"));
            }
            let settings = AccountSettings {
                name: name.clone(),
                incoming_tokens: vec![token],
                terms: AccountTerms {
                    ilp_address,
                    limits: request.limits.into(),
                    routes: RouteExchange::default().or_usual(relation),
                    ..AccountTerms::new(relation, asset)
                }
                .into(),
            };
            connector.account_create(settings, out)?;
        }
        node.0.forget_caller(caller.hash);
        Ok::<_, Problem>(shape(connector, find(connector, &name)?, &node))
    });
    Ok((StatusCode::CREATED, Json(adopted.await??)))
}

/// Blocks a caller: it hears what it heard before, and nobody hears of it any more.
#[utoipa::path(
    put,
    path = "/v1/callers/{fingerprint}/block",
    operation_id = "block_caller",
    tag = "peering",
    security(("bearer" = ["write"])),
    params(("fingerprint" = String, Path, description = "Of the caller's token")),
    responses(
        (status = 204, description = "It is blocked"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn block(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(fingerprint): extract::Path,
) -> Result<StatusCode, Problem> {
    let is_blocked = |connector: &Connector| {
        let mut blocked = connector.ledger().blocked_callers();
        blocked.any(|hash| id(hash) == *fingerprint)
    };
    if api.node.read(is_blocked) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let caller = known(&api.node, &fingerprint)?;
    let node = api.node.clone();
    let blocked = api.node.execute(move |connector, _, out| {
        connector.caller_block(caller.hash, out)?;
        node.0
            .block_callers(&mut connector.ledger().blocked_callers());
        Ok::<_, Problem>(())
    });
    blocked.await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Unblocks a caller: it is listed again when it comes.
#[utoipa::path(
    delete,
    path = "/v1/callers/{fingerprint}/block",
    operation_id = "unblock_caller",
    tag = "peering",
    security(("bearer" = ["write"])),
    params(("fingerprint" = String, Path, description = "Of the caller's token")),
    responses(
        (status = 204, description = "It is not blocked"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn unblock(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(fingerprint): extract::Path,
) -> Result<StatusCode, Problem> {
    let node = api.node.clone();
    let unblocked = api.node.execute(move |connector, _, out| {
        let mut blocked = connector.ledger().blocked_callers();
        let hash = blocked.find(|hash| id(*hash) == fingerprint);
        drop(blocked);
        let hash = hash.ok_or_else(|| Problem::not_found("blocked caller", &fingerprint))?;
        connector.caller_unblock(hash, out)?;
        node.0
            .block_callers(&mut connector.ledger().blocked_callers());
        Ok::<_, Problem>(())
    });
    unblocked.await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Requests to peer from nodes that nobody invited.
#[utoipa::path(
    get,
    path = "/v1/peering-requests",
    operation_id = "list_peering_requests",
    tag = "peering",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "All of them", body = RequestList),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn requests(_: Allowed<ToRead>, State(api): State<Api>) -> Json<RequestList> {
    let now_ms = wall_ms();
    let entry = |request: &PeeringRequest| RequestEntry {
        id: id(request.hash),
        state: match request.verdict {
            None => RequestState::Waiting,
            Some(PeeringVerdict::Approved { .. }) => RequestState::Approved,
            Some(PeeringVerdict::Denied) => RequestState::Denied,
        },
        from: request.from.clone(),
        name: request.name.clone(),
        ilp_address: request.ilp_address.to_string(),
        url: request.url.clone(),
        asset_code: request.asset.code().to_owned(),
        asset_scale: request.asset.scale(),
        created_at: rfc3339(request.created_at_ms),
        expires_at: rfc3339(request.expires_at_ms),
    };
    Json(api.node.read(|connector| {
        let requests = connector.ledger().peering_requests();
        let mut requests: Vec<_> = { requests }
            .filter(|request| request.expires_at_ms > now_ms)
            .collect();
        requests.sort_by_key(|request| (request.created_at_ms, request.hash.0));
        RequestList {
            path: api.node.0.auto_peering().map(|auto| auto.path),
            requests: requests.into_iter().map(entry).collect(),
        }
    }))
}

/// Approves a request to peer. Its account is made when the asker comes again.
#[utoipa::path(
    post,
    path = "/v1/peering-requests/{id}/approve",
    operation_id = "approve_peering_request",
    tag = "peering",
    security(("bearer" = ["write"])),
    params(("id" = String, Path, description = "Of the request")),
    request_body = Approval,
    responses(
        (status = 204, description = "It waits for the asker"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn approve(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(request): extract::Path,
    extract::Json(approval): extract::Json<Approval>,
) -> Result<StatusCode, Problem> {
    let auto = api.node.0.auto_peering().ok_or_else(not_taken)?;
    let (name, limits) = (approval.name, approval.limits.into());
    let approved = api.node.execute(move |connector, now, out| {
        let request = requested(connector, &request)?;
        let wanted = PeeringVerdict::Approved { name, limits };
        // Whatever is wrong with it is said now, and not to the asker.
        connector.check_newcomers_address(&request.ilp_address)?;
        let settings = offered(connector, &request, &wanted);
        connector.check_new_account(&settings)?;
        let until_ms = now.wall.unix_ms() + i64::from(auto.approval_hours) * HOUR_MS;
        connector.peering_decide(now, request.hash, wanted, Some(until_ms), out)?;
        Ok::<_, Problem>(())
    });
    approved.await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Denies a request to peer. The asker is not told, and its further calls do not come before the operator
/// until the request is forgotten.
#[utoipa::path(
    post,
    path = "/v1/peering-requests/{id}/deny",
    operation_id = "deny_peering_request",
    tag = "peering",
    security(("bearer" = ["write"])),
    params(("id" = String, Path, description = "Of the request")),
    responses(
        (status = 204, description = "Nothing will come of it"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn deny(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(request): extract::Path,
) -> Result<StatusCode, Problem> {
    let denied = api.node.execute(move |connector, now, out| {
        let hash = requested(connector, &request)?.hash;
        connector.peering_decide(now, hash, PeeringVerdict::Denied, None, out)?;
        Ok::<_, Problem>(())
    });
    denied.await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Rafiki's call, as a server reads it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    static_ilp_address: String,
    /// Older versions call it an address.
    #[serde(alias = "ilpConnectorAddress")]
    ilp_connector_url: String,
    asset: AskedAsset,
    /// What the asker will present to us.
    http_token: String,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct AskedAsset {
    code: String,
    scale: u8,
}

/// And the answer to it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    static_ilp_address: String,
    ilp_connector_url: String,
    /// What we will present to the asker.
    http_token: String,
    name: String,
}

/// Whether a request of a stranger is one to peer.
pub(crate) fn is_asked(node: &Handle, request: &Request<Bytes>) -> bool {
    let auto = node.0.auto_peering();
    auto.is_some_and(|auto| auto.path == request.uri().path())
}

/// Takes a request to peer; makes the account if the operator wants it.
pub(crate) async fn asked(node: &Handle, request: &Request<Bytes>) -> Result<Vec<u8>, Problem> {
    let auto = node.0.auto_peering().ok_or_else(not_taken)?;
    if node.0.status().draining {
        return Err(Problem::unavailable("the node is about to stop"));
    }
    let asked: Asked = serde_json::from_slice(request.body())
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "malformed", error.to_string()))?;
    let address = read_address(Some(&asked.static_ilp_address))?;
    let address = address.ok_or_else(|| Problem::invalid("staticIlpAddress", "is missing"))?;
    let asset = Asset::new(&asked.asset.code, asked.asset.scale)
        .map_err(|error| Problem::invalid("asset", error.to_string()))?;
    let theirs = check_token("httpToken", &asked.http_token)?;
    let endpoint = own_endpoint(node)?;
    let url = asked.ilp_connector_url;
    // Whoever is reached over TLS does not send in clear.
    if endpoint.starts_with("https:") && !url.starts_with("https:") {
        return Err(Problem::invalid(
            "ilpConnectorUrl",
            "must begin with https://",
        ));
    }
    node.0
        .may_connect(&url)
        .map_err(|detail| Problem::invalid("ilpConnectorUrl", detail))?;
    let ours = generate_token("peer", node.0.random());
    let link = shapes::HttpLink {
        jwt: None,
        tls_pins: Vec::new(),
        url: url.clone(),
        token: Some(ours.clone()),
        callback: false,
    };
    let link = http_link(link, None, node)?;
    let from = request
        .extensions()
        .get()
        .copied()
        .map_or_else(String::new, source);
    let name = asked.name.unwrap_or_default();
    let name: String = name
        .chars()
        .filter(|of| !of.is_control())
        .take(NAME_CHARS_MAX)
        .collect();
    let request_hash = hash(&format!("{from}\n{address}\n{url}\n{asset}"));
    let taken = node.execute(move |connector, now, out| {
        let created_at_ms = now.wall.unix_ms();
        let request = PeeringRequest {
            hash: request_hash,
            from,
            ilp_address: address,
            url,
            asset,
            name,
            created_at_ms,
            expires_at_ms: created_at_ms + i64::from(auto.request_hours) * HOUR_MS,
            verdict: None,
        };
        let request = match connector.peering_ask(now, request, auto.bounds, out)? {
            PeeringStand::Waits { is_new } => return Ok(Err(is_new)),
            PeeringStand::Approved(request) => request,
        };
        let mut settings = match &request.verdict {
            Some(verdict) => offered(connector, &request, verdict),
            None => return Ok(Err(false)),
        };
        settings.incoming_tokens.push(unlimited(theirs));
        settings.http = Some(link);
        let name = settings.name.clone();
        connector.account_create(settings, out)?;
        connector.peering_made(request.hash, out);
        Ok::<_, Problem>(Ok((own_address(connector)?, name)))
    });
    let (own, account) = match taken.await?? {
        Ok(made) => made,
        Err(is_new) => {
            if is_new {
                tracing::info!("a stranger asks to peer: see `rialto peer requests`");
            }
            let detail =
                "the request waits for the operator of this node: call again once it is approved";
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "approval_pending",
                detail,
            ));
        }
    };
    tracing::info!(account, "a request to peer became an account");
    let answered = Answered {
        static_ilp_address: own.to_string(),
        ilp_connector_url: format!("{endpoint}/ilp"),
        http_token: ours,
        name: node_name(node),
    };
    Ok(serde_json::to_vec(&answered).expect("text keys and plain values"))
}

/// The account that the operator wants made of a request, still without tokens and link.
fn offered(
    connector: &Connector,
    request: &PeeringRequest,
    verdict: &PeeringVerdict,
) -> AccountSettings {
    let (name, limits) = match verdict {
        PeeringVerdict::Approved { name, limits } => (name.clone(), limits.clone()),
        PeeringVerdict::Denied => (None, rialto_ledger::Limits::default()),
    };
    AccountSettings {
        name: name.unwrap_or_else(|| connector.free_name(&request.name)),
        incoming_tokens: Vec::new(),
        terms: AccountTerms {
            ilp_address: Some(request.ilp_address.clone()),
            // Whoever peers by this call is Rafiki, or does as it does.
            limits: limits.or_rafikis(),
            // And that knows no CCP.
            routes: RouteExchange::none(),
            ..AccountTerms::new(Relation::Peer, request.asset.clone())
        }
        .into(),
    }
}

fn requested(connector: &Connector, name: &str) -> Result<PeeringRequest, Problem> {
    let mut requests = connector.ledger().peering_requests();
    let found = requests.find(|request| id(request.hash) == name);
    found
        .cloned()
        .ok_or_else(|| Problem::not_found("request", name))
}

fn known(node: &Handle, fingerprint: &str) -> Result<Caller, Problem> {
    let callers = node.0.callers();
    let found = callers
        .into_iter()
        .find(|caller| id(caller.hash) == fingerprint);
    found.ok_or_else(|| Problem::not_found("caller", fingerprint))
}

/// Whoever has one address of an IPv6 network mostly has all of them.
fn source(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = Ipv6Addr::from(u128::from(address) >> 64 << 64);
            format!("{network}/64")
        }
    }
}

fn not_taken() -> Problem {
    let detail = "requests to peer are not taken: `auto_peering.path` is not set";
    Problem::new(StatusCode::CONFLICT, "conflict", detail)
}

/// What a hash is called in the API.
pub(crate) fn id(hash: TokenHash) -> String {
    hex(&hash.0[..ID_BYTES])
}
