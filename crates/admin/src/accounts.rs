//! Accounts and the tokens that open them.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, Uri},
};
use rialto_btp::BtpUri;
use rialto_connector::{
    AccountStats, Connector, ListenerState, PeerRoutes, Reason,
    jwt::{Signer, Verifier},
};
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, BtpLink, HttpLink, IncomingJwt, IncomingToken,
    JwtClaims, KeyPin, OutgoingJwt, PINS_MAX, Relation, RouteExchange, SealedSecret, TokenHash,
};
use rialto_packet::{Address, money::Asset};
use serde_json::Value;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead, ToWrite, generate_token, hash},
    balances::{in_flight, in_words, signed},
    ccp, extract, health, hex,
    node::Handle,
    page::{self, PageQuery},
    peering::{LinkSeen, PeerState, Peering},
    rfc3339,
    shapes::{
        self, Account, AccountChange, AccountCreate, Accounts, Amount, SignedAmount, TokenCreate,
        TokenCreated,
    },
    wall_ms,
};

/// Bytes of a token that a peer presents or that is presented to one.
pub(crate) const TOKEN_BYTES_MIN: usize = 16;
pub(crate) const TOKEN_BYTES_MAX: usize = 512;

/// Bytes of a key in PEM or base64.
const KEY_BYTES_MAX: usize = 4_096;

/// How long a token is good for that this node makes. Seconds.
const JWT_LIFETIME_S_MIN: u32 = 30;
const JWT_LIFETIME_S_MAX: u32 = 300;

/// Bytes of a claim.
const CLAIM_BYTES_MAX: usize = 256;

/// Longest URL of a peer, in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// Accounts, oldest first.
#[utoipa::path(
    get,
    path = "/v1/accounts",
    operation_id = "list_accounts",
    tag = "accounts",
    security(("bearer" = ["read"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page", body = Accounts),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<PageQuery>,
) -> Result<Json<Accounts>, Problem> {
    let page = query.check()?;
    Ok(Json(api.node.read(|connector| {
        let (entries, next_cursor) = page::accounts(connector, page);
        let accounts = entries.into_iter();
        let accounts = accounts.map(|account| shape(connector, account, &api.node));
        Accounts {
            accounts: accounts.collect(),
            next_cursor,
        }
    })))
}

/// One account.
#[utoipa::path(
    get,
    path = "/v1/accounts/{name}",
    operation_id = "read_account",
    tag = "accounts",
    security(("bearer" = ["read"])),
    params(("name" = String, Path, description = "Name of the account")),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn read(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Path(name): extract::Path,
) -> Result<Json<Account>, Problem> {
    api.node.read(|connector| {
        let account = find(connector, &name)?;
        Ok(Json(Account {
            stats: connector.stats().account(account.id).map(stats),
            ..shape(connector, account, &api.node)
        }))
    })
}

/// Makes an account.
#[utoipa::path(
    post,
    path = "/v1/accounts",
    operation_id = "create_account",
    tag = "accounts",
    security(("bearer" = ["write"])),
    request_body = AccountCreate,
    responses(
        (status = 201, description = "The account", body = Account),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<AccountCreate>,
) -> Result<(StatusCode, Json<Account>), Problem> {
    let (token, generated) = first_token(&request, &api.node)?;
    let pins = request.client_pins.iter().map(|pin| client_pin(pin));
    let pins = pins.collect::<Result<Vec<_>, _>>()?;
    if request.relation == shapes::AccountRelation::Local && !pins.is_empty() {
        return Err(no_tokens("client_pins"));
    }
    let asset = Asset::new(&request.asset_code, request.asset_scale)
        .map_err(|error| Problem::invalid("asset_code", error.to_string()))?;
    let (http, btp) = (request.http, request.btp);
    let settings = AccountSettings {
        name: request.name,
        incoming_tokens: token.map(unlimited).into_iter().chain(pins).collect(),
        terms: AccountTerms {
            relation: request.relation.into(),
            asset,
            ilp_address: read_address(request.ilp_address.as_deref())?,
            limits: request.limits.into(),
            spread: request.spread,
            http: http
                .map(|link| http_link(link, None, &api.node))
                .transpose()?,
            btp: btp
                .map(|link| btp_link(link, None, &api.node))
                .transpose()?,
            paused: request.paused,
            routes: RouteExchange::try_from(request.routes)?.or_usual(request.relation.into()),
            settlement: request.settlement.into(),
        }
        .into(),
    };
    let node = api.node.clone();
    let created = api.node.execute(move |connector, _, out| {
        let name = settings.name.clone();
        connector.account_create(settings, out)?;
        Ok::<_, Problem>(shape(connector, find(connector, &name)?, &node))
    });
    let account = Account {
        incoming_token: generated,
        ..created.await??
    };
    Ok((StatusCode::CREATED, Json(account)))
}

/// Changes an account by a JSON merge patch: what is left out stays, null clears.
#[utoipa::path(
    patch,
    path = "/v1/accounts/{name}",
    operation_id = "change_account",
    tag = "accounts",
    security(("bearer" = ["write"])),
    params(("name" = String, Path, description = "Name of the account")),
    request_body = AccountChange,
    responses(
        (status = 200, description = "The account", body = Account),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn change(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(name): extract::Path,
    extract::Json(patch): extract::Json<Value>,
) -> Result<Json<Account>, Problem> {
    if !patch.is_object() {
        let detail = "the body must be a JSON object";
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            detail,
        ));
    }
    for field in ["name", "asset_code", "asset_scale"] {
        if patch.get(field).is_some() {
            let detail = "cannot change: make another account";
            let problem = Problem::new(StatusCode::CONFLICT, "conflict", detail);
            return Err(problem.of_field(field));
        }
    }
    let node = api.node.clone();
    let changed = api.node.execute(move |connector, _, out| {
        let settings = patched(&find(connector, &name)?.settings, patch, &node)?;
        connector.account_update(settings, out)?;
        Ok::<_, Problem>(shape(connector, find(connector, &name)?, &node))
    });
    Ok(Json(changed.await??))
}

/// Deletes an account and its routes. It must have no balance and nothing in flight.
#[utoipa::path(
    delete,
    path = "/v1/accounts/{name}",
    operation_id = "delete_account",
    tag = "accounts",
    security(("bearer" = ["write"])),
    params(("name" = String, Path, description = "Name of the account")),
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
    api.node
        .execute(move |connector, _, out| connector.account_delete(&name, out))
        .await??;
    let exists = |id| {
        api.node
            .read(|connector| connector.ledger().account(id).is_some())
    };
    api.node.0.peering().retain(exists);
    Ok(StatusCode::NO_CONTENT)
}

/// Adds an incoming token to an account; older ones end after a time of grace.
#[utoipa::path(
    post,
    path = "/v1/accounts/{name}/tokens",
    operation_id = "create_account_token",
    tag = "accounts",
    security(("bearer" = ["write"])),
    params(("name" = String, Path, description = "Name of the account")),
    request_body = TokenCreate,
    responses(
        (status = 201, description = "The token", body = TokenCreated),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create_token(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(name): extract::Path,
    extract::Json(request): extract::Json<TokenCreate>,
) -> Result<(StatusCode, Json<TokenCreated>), Problem> {
    let is_made = request.token.is_none() && request.jwt.is_none() && request.client_pin.is_none();
    let generated = is_made.then(|| generate_token("peer", api.node.0.random()));
    let text = request.token.as_ref().or(generated.as_ref());
    let text = text.map_or("", |text| text);
    let new = match (request.client_pin, request.jwt) {
        (Some(_), jwt) if jwt.is_some() || !text.is_empty() => {
            let detail = "is given beside a token or its key: each is added by itself";
            return Err(Problem::invalid("client_pin", detail));
        }
        (Some(pin), _) => client_pin(&pin)?,
        (None, Some(jwt)) => verifier(jwt, text, &api.node)?,
        (None, None) => unlimited(check_token("token", text)?),
    };
    let hash = new.hash;
    let grace_ms = (!request.keep_others).then_some(1_000 * i64::from(request.grace_seconds));
    let rotated = api.node.execute(move |connector, now, out| {
        let mut settings = AccountSettings::clone(&find(connector, &name)?.settings);
        if settings.relation == Relation::Local {
            return Err(no_tokens("token"));
        }
        rotate(&mut settings, new, now.wall.unix_ms(), grace_ms);
        connector.account_update(settings, out)?;
        Ok(())
    });
    rotated.await??;
    let created = TokenCreated {
        id: token_id(hash),
        incoming_token: generated,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Removes an incoming token from an account. BTP sessions of the account end.
#[utoipa::path(
    delete,
    path = "/v1/accounts/{name}/tokens/{id}",
    operation_id = "delete_account_token",
    tag = "accounts",
    security(("bearer" = ["write"])),
    params(
        ("name" = String, Path, description = "Name of the account"),
        ("id" = String, Path, description = "Of the token, as the account shows it; or a pin"),
    ),
    responses(
        (status = 204, description = "It opens nothing any more"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete_token(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Paths((name, id)): extract::Paths<(String, String)>,
) -> Result<StatusCode, Problem> {
    let deleted = api.node.execute(move |connector, _, out| {
        let mut settings = AccountSettings::clone(&find(connector, &name)?.settings);
        let before = settings.incoming_tokens.len();
        settings
            .incoming_tokens
            .retain(|token| !is_named(token, &id));
        if settings.incoming_tokens.len() == before {
            return Err(Problem::not_found("token", &id));
        }
        connector.account_update(settings, out)?;
        Ok(())
    });
    deleted.await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts the new token last, and ends the present ones after the grace, if there is one.
fn rotate(settings: &mut AccountSettings, new: IncomingToken, now_ms: i64, grace_ms: Option<i64>) {
    let tokens = &mut settings.incoming_tokens;
    if let Some(grace_ms) = grace_ms {
        let end_ms = now_ms.saturating_add(grace_ms);
        for token in tokens.iter_mut() {
            token.expires_at_ms = Some(token.expires_at_ms.map_or(end_ms, |at| at.min(end_ms)));
        }
    }
    let is_over = |token: &IncomingToken| token.expires_at_ms.is_some_and(|at| at <= now_ms);
    tokens.retain(|token| token.hash != new.hash && !is_over(token));
    tokens.push(new);
}

/// What opens an account to whoever shows a certificate with this key.
fn client_pin(text: &str) -> Result<IncomingToken, Problem> {
    let pin = text.parse::<KeyPin>();
    let pin = pin.map_err(|error| Problem::invalid("client_pin", format!("'{text}' {error}")))?;
    Ok(IncomingToken {
        pin: true,
        ..unlimited(TokenHash(pin.0))
    })
}

/// A key that verifies tokens. Its own hash names it.
fn verifier(jwt: shapes::Jwt, key: &str, node: &Handle) -> Result<IncomingToken, Problem> {
    if jwt.lifetime_seconds.is_some() {
        let detail = "is for whoever makes tokens to choose";
        return Err(Problem::invalid("jwt.lifetime_seconds", detail));
    }
    let (algorithm, claims) = (jwt.algorithm.into(), claims("jwt", jwt)?);
    check_key("token", key)?;
    Verifier::new(algorithm, key, claims.clone())
        .map_err(|error| Problem::invalid("token", error.to_string()))?;
    let jwt = IncomingJwt {
        algorithm,
        key: node.0.seal(key),
        claims,
    };
    Ok(IncomingToken {
        jwt: Some(Box::new(jwt)),
        ..unlimited(hash(key))
    })
}

/// How tokens are made for the link of this name, and the key that signs them.
fn outgoing_jwt(link: &str, jwt: shapes::Jwt, key: Option<&str>) -> Result<OutgoingJwt, Problem> {
    let (field, token) = (format!("{link}.jwt"), format!("{link}.token"));
    let algorithm = jwt.algorithm.into();
    let lifetime_s = jwt.lifetime_seconds.unwrap_or(JWT_LIFETIME_S_MAX);
    if !(JWT_LIFETIME_S_MIN..=JWT_LIFETIME_S_MAX).contains(&lifetime_s) {
        let detail = format!("must be {JWT_LIFETIME_S_MIN} to {JWT_LIFETIME_S_MAX}");
        return Err(Problem::invalid(
            &format!("{field}.lifetime_seconds"),
            detail,
        ));
    }
    if let Some(key) = key {
        check_key(&token, key)?;
        Signer::new(algorithm, key).map_err(|error| Problem::invalid(&token, error.to_string()))?;
    }
    Ok(OutgoingJwt {
        algorithm,
        claims: claims(&field, jwt)?,
        lifetime_s,
    })
}

/// The keys that the server of the link of this name may have.
fn server_pins(link: &str, texts: &[String], is_tls: bool) -> Result<Vec<KeyPin>, Problem> {
    let invalid = |detail: String| Problem::invalid(&format!("{link}.tls_pins"), detail);
    if !texts.is_empty() && !is_tls {
        let detail = "are given, and the URL is one without TLS: there is no key to compare";
        return Err(invalid(detail.to_owned()));
    }
    if texts.len() > PINS_MAX {
        return Err(invalid(format!("are more than {PINS_MAX}")));
    }
    let pin = |text: &String| {
        let pin = text.parse::<KeyPin>();
        pin.map_err(|error| invalid(format!("'{text}' {error}")))
    };
    texts.iter().map(pin).collect()
}

/// The secret of a link as it is kept: a new one, or that of the present link, which may be none, where
/// that may stay.
fn link_secret(
    link: &str,
    given: Option<&str>,
    jwt: Option<&OutgoingJwt>,
    present: Option<&Option<SealedSecret>>,
    is_tls: bool,
    node: &Handle,
) -> Result<Option<SealedSecret>, Problem> {
    let field = format!("{link}.token");
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        if jwt.is_none() {
            check_outgoing(&field, given)?;
        }
        return Ok(Some(node.0.seal(given)));
    }
    match present {
        Some(present) if given.is_none() => Ok(present.clone()),
        Some(_) | None if jwt.is_none() && is_tls && node.0.shows_certificate() => Ok(None),
        Some(_) | None => Err(Problem::invalid(
            &field,
            "is missing: a token is presented to the peer, or, over TLS, the certificate of node.tls_client_cert_file",
        )),
    }
}

fn check_key(field: &str, key: &str) -> Result<(), Problem> {
    match key.len() {
        0 => Err(missing(field)),
        1..=KEY_BYTES_MAX => Ok(()),
        _ => Err(Problem::invalid(
            field,
            format!("is longer than {KEY_BYTES_MAX} bytes"),
        )),
    }
}

fn claims(field: &str, jwt: shapes::Jwt) -> Result<JwtClaims, Problem> {
    let claims = [
        Some(&jwt.subject),
        jwt.issuer.as_ref(),
        jwt.audience.as_ref(),
    ];
    for claim in claims.into_iter().flatten() {
        if claim.is_empty() || claim.len() > CLAIM_BYTES_MAX {
            let detail = format!("subject, issuer and audience have 1 to {CLAIM_BYTES_MAX} bytes");
            return Err(Problem::invalid(field, detail));
        }
    }
    Ok(JwtClaims {
        subject: jwt.subject,
        issuer: jwt.issuer,
        audience: jwt.audience,
    })
}

/// A token without an end.
pub(crate) fn unlimited(hash: TokenHash) -> IncomingToken {
    IncomingToken {
        hash,
        jwt: None,
        pin: false,
        expires_at_ms: None,
    }
}

/// The token that a new account starts with, and its text if the node makes it.
fn first_token(
    request: &AccountCreate,
    node: &Handle,
) -> Result<(Option<TokenHash>, Option<String>), Problem> {
    let field = "incoming_token";
    if request.incoming_token.is_some() && request.generate_token {
        let detail = "is given and is to be made: choose one";
        return Err(Problem::invalid(field, detail));
    }
    let generated = request
        .generate_token
        .then(|| generate_token("peer", node.0.random()));
    let Some(text) = request.incoming_token.as_ref().or(generated.as_ref()) else {
        return Ok((None, None));
    };
    if request.relation == shapes::AccountRelation::Local {
        return Err(no_tokens(field));
    }
    Ok((Some(check_token(field, text)?), generated))
}

pub(crate) fn no_tokens(field: &str) -> Problem {
    Problem::invalid(
        field,
        "a local account has no node that could present a token",
    )
}

/// A token that can stand in an `Authorization` header and cannot be guessed.
pub(crate) fn check_token(field: &str, text: &str) -> Result<TokenHash, Problem> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !visible || !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) {
        let detail =
            format!("must have {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters");
        return Err(Problem::invalid(field, detail));
    }
    Ok(hash(text))
}

/// A pin is no secret, so that it may be named in full.
fn is_named(token: &IncomingToken, id: &str) -> bool {
    token_id(token.hash) == id || (token.pin && KeyPin(token.hash.0).to_string() == id)
}

fn token_id(hash: TokenHash) -> String {
    hex(&hash.0[..4])
}

pub(crate) fn find<'a>(
    connector: &'a Connector,
    name: &str,
) -> Result<&'a rialto_ledger::Account, Problem> {
    let account = connector.ledger().account_by_name(name);
    account.ok_or_else(|| Problem::not_found("account", name))
}

/// The settings after a merge patch.
fn patched(
    settings: &AccountSettings,
    patch: Value,
    node: &Handle,
) -> Result<AccountSettings, Problem> {
    let present = AccountChange {
        relation: settings.relation.into(),
        ilp_address: settings.ilp_address.as_ref().map(Address::to_string),
        limits: (&settings.limits).into(),
        spread: settings.spread.clone(),
        paused: settings.paused,
        routes: (&settings.routes).into(),
        http: settings.http.as_ref().map(shape_http),
        btp: settings.btp.as_ref().map(shape_btp),
        settlement: (&settings.settlement).into(),
    };
    let mut value = serde_json::to_value(present).expect("text keys and plain values");
    merge(&mut value, patch);
    let change: AccountChange = extract::decode(value)?;
    let http = change
        .http
        .map(|link| http_link(link, settings.http.as_ref(), node));
    let btp = change
        .btp
        .map(|link| btp_link(link, settings.btp.as_ref(), node));
    Ok(AccountSettings {
        name: settings.name.clone(),
        incoming_tokens: settings.incoming_tokens.clone(),
        terms: AccountTerms {
            relation: change.relation.into(),
            asset: settings.asset.clone(),
            ilp_address: read_address(change.ilp_address.as_deref())?,
            limits: change.limits.into(),
            spread: change.spread,
            http: http.transpose()?,
            btp: btp.transpose()?,
            paused: change.paused,
            routes: change.routes.try_into()?,
            settlement: change.settlement.into(),
        }
        .into(),
    })
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

pub(crate) fn read_address(text: Option<&str>) -> Result<Option<Address>, Problem> {
    let Some(text) = text else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|error| Problem::invalid("ilp_address", format!("'{text}': {error}")))
}

pub(crate) fn http_link(
    link: shapes::HttpLink,
    present: Option<&HttpLink>,
    node: &Handle,
) -> Result<HttpLink, Problem> {
    let invalid = |detail| Err(Problem::invalid("http.url", detail));
    if link.url.len() > URL_BYTES_MAX {
        return invalid("is longer than 2048 characters");
    }
    let Ok(uri) = link.url.parse::<Uri>() else {
        return invalid("is not a URL");
    };
    let is_known = matches!(uri.scheme_str(), Some("http" | "https" | "h2c"));
    if !is_known || uri.host().is_none_or(str::is_empty) {
        return invalid("must begin with https://, http:// or h2c:// and a host");
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return invalid("must not name a user: the token has a field of its own");
    }
    if link.url.contains('#') {
        return invalid("must not have a fragment");
    }
    let given = link.token.as_deref();
    let jwt = link.jwt.map(|jwt| outgoing_jwt("http", jwt, given));
    let jwt = jwt.transpose()?;
    let is_tls = uri.scheme_str() == Some("https");
    // Never to another URL: a secret goes only to whom it was given for. Nor is a key a token.
    let present = present.filter(|present| {
        present.url == link.url && same_algorithm(present.jwt.as_ref(), jwt.as_ref())
    });
    let present = present.map(|present| &present.token);
    let token = link_secret("http", given, jwt.as_ref(), present, is_tls, node)?;
    let tls_pins = server_pins("http", &link.tls_pins, is_tls)?;
    if link.callback {
        let endpoint = node.0.endpoint();
        if let Err(detail) = node.0.may_connect(&endpoint) {
            let detail = format!(
                "peers would have to answer to {endpoint}, which {detail}: set node.public_url"
            );
            return Err(Problem::invalid("http.callback", detail));
        }
    }
    Ok(HttpLink {
        url: link.url,
        token,
        jwt,
        callback: link.callback,
        tls_pins,
    })
}

fn same_algorithm(one: Option<&OutgoingJwt>, other: Option<&OutgoingJwt>) -> bool {
    one.map(|jwt| jwt.algorithm) == other.map(|jwt| jwt.algorithm)
}

pub(crate) fn btp_link(
    link: shapes::BtpLink,
    present: Option<&BtpLink>,
    node: &Handle,
) -> Result<BtpLink, Problem> {
    if link.url.len() > URL_BYTES_MAX {
        return Err(Problem::invalid(
            "btp.url",
            "is longer than 2048 characters",
        ));
    }
    let uri: BtpUri = link
        .url
        .parse()
        .map_err(|error: rialto_btp::UriError| Problem::invalid("btp.url", error.to_string()))?;
    let scheme = if uri.tls { "btp+wss" } else { "btp+ws" };
    let url = format!("{scheme}://{}:{}{}", uri.host, uri.port, uri.path);
    let in_url = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let given = link.token.or_else(|| in_url(&uri.token));
    let given = given.as_deref();
    let jwt = link.jwt.map(|jwt| outgoing_jwt("btp", jwt, given));
    let jwt = jwt.transpose()?;
    let present = present
        .filter(|present| present.url == url && same_algorithm(present.jwt.as_ref(), jwt.as_ref()));
    let present = present.map(|present| &present.token);
    let token = link_secret("btp", given, jwt.as_ref(), present, uri.tls, node)?;
    Ok(BtpLink {
        url,
        username: in_url(&uri.username).or(link.username),
        token,
        jwt,
        tls_pins: server_pins("btp", &link.tls_pins, uri.tls)?,
    })
}

/// A token that a peer gave us: theirs to choose, as long as it can be presented.
pub(crate) fn check_outgoing(field: &str, text: &str) -> Result<(), Problem> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX || !visible {
        let detail = format!("must have 1 to {TOKEN_BYTES_MAX} visible ASCII characters");
        return Err(Problem::invalid(field, detail));
    }
    Ok(())
}

fn missing(field: &str) -> Problem {
    Problem::invalid(field, "is missing")
}

fn shape_http(link: &HttpLink) -> shapes::HttpLink {
    shapes::HttpLink {
        url: link.url.clone(),
        token: None,
        jwt: link.jwt.as_ref().map(shape_outgoing_jwt),
        callback: link.callback,
        tls_pins: link.tls_pins.iter().map(KeyPin::to_string).collect(),
    }
}

fn shape_outgoing_jwt(jwt: &OutgoingJwt) -> shapes::Jwt {
    shapes::Jwt {
        lifetime_seconds: Some(jwt.lifetime_s),
        ..shape_jwt(jwt.algorithm, &jwt.claims)
    }
}

fn shape_jwt(algorithm: rialto_ledger::JwtAlgorithm, claims: &JwtClaims) -> shapes::Jwt {
    shapes::Jwt {
        algorithm: algorithm.into(),
        subject: claims.subject.clone(),
        issuer: claims.issuer.clone(),
        audience: claims.audience.clone(),
        lifetime_seconds: None,
    }
}

fn shape_btp(link: &BtpLink) -> shapes::BtpLink {
    shapes::BtpLink {
        url: link.url.clone(),
        username: link.username.clone(),
        token: None,
        jwt: link.jwt.as_ref().map(shape_outgoing_jwt),
        tls_pins: link.tls_pins.iter().map(KeyPin::to_string).collect(),
    }
}

pub(crate) fn shape(
    connector: &Connector,
    account: &rialto_ledger::Account,
    node: &Handle,
) -> Account {
    let settings = &account.settings;
    let pointer = (settings.relation == Relation::Local)
        .then(|| node.0.payment_pointer(&settings.name))
        .flatten();
    let address = connector.address_of(account.id);
    let tokens = settings.incoming_tokens.iter();
    let state = peer_state(connector, account, node.0.peering());
    let error = state.as_ref().and_then(|state| state.last_error.clone());
    Account {
        name: settings.name.clone(),
        relation: settings.relation.into(),
        asset_code: settings.asset.code().to_owned(),
        asset_scale: settings.asset.scale(),
        ilp_address: address.map(|address| address.to_string()),
        balance: SignedAmount(account.balance()),
        available: SignedAmount(account.available()),
        in_flight: in_flight(account),
        unsynced: signed(account.exposure().unsynced),
        words: in_words(account),
        limits: (&settings.limits).into(),
        spread: settings.spread.clone(),
        paused: settings.paused,
        routes: (&settings.routes).into(),
        incoming_tokens: tokens
            .map(|token| shapes::IncomingToken {
                id: token_id(token.hash),
                expires_at: token.expires_at_ms.and_then(rfc3339),
                jwt: token
                    .jwt
                    .as_ref()
                    .map(|jwt| shape_jwt(jwt.algorithm, &jwt.claims)),
                client_pin: token.pin.then(|| KeyPin(token.hash.0).to_string()),
            })
            .collect(),
        http: settings.http.as_ref().map(shape_http),
        btp: settings.btp.as_ref().map(shape_btp),
        settlement: (&settings.settlement).into(),
        settleable: Amount(connector.settle_preview(account.id)),
        link: health::link(connector, account.id),
        state: state.as_ref().map(|state| state.stage),
        state_since: state.and_then(|state| rfc3339(state.since_ms)),
        last_error: error.map(|(message, at_ms)| shapes::LastError {
            message,
            at: rfc3339(at_ms),
        }),
        payment_pointer: pointer,
        stats: None,
        incoming_token: None,
    }
}

/// Where a neighbour stands; a local account is none.
pub(crate) fn peer_state(
    connector: &Connector,
    account: &rialto_ledger::Account,
    peering: &Peering,
) -> Option<PeerState> {
    let answered = || {
        let doubt = peering.doubt(account.id);
        let takes = |peer: PeerRoutes| match peer.listening {
            ListenerState::Syncing | ListenerState::Synced => doubt.is_none_or(|doubt| {
                let updated_at = peer.updated_at;
                updated_at.is_some_and(|at| at.unix_ms() > doubt.at_ms)
            }),
            ListenerState::Off
            | ListenerState::Asking
            | ListenerState::NotSpoken
            | ListenerState::Refused => false,
        };
        let before = doubt.map_or(0, |doubt| doubt.fulfills);
        fulfills_in(connector, account.id) > before
            || connector.peer_routes(account.id).is_some_and(takes)
    };
    let seen = match health::link(connector, account.id) {
        shapes::Link::Local => return None,
        shapes::Link::Up => LinkSeen::Good,
        shapes::Link::Http if answered() => LinkSeen::Good,
        shapes::Link::Http => LinkSeen::Unknown,
        shapes::Link::Down => LinkSeen::Down,
    };
    let routes = ccp::synced(connector, account);
    Some(peering.state(account.id, seen, routes, wall_ms()))
}

/// Fulfills that came from a neighbour.
pub(crate) fn fulfills_in(connector: &Connector, id: AccountId) -> u64 {
    let stats = connector.stats().account(id);
    stats.map_or(0, |stats| stats.fulfills_in)
}

fn stats(stats: &AccountStats) -> shapes::AccountStats {
    shapes::AccountStats {
        prepares_in: stats.prepares_in,
        prepares_out: stats.prepares_out,
        fulfills_out: stats.fulfills_out,
        amount_in: signed(stats.amount_in),
        fulfills_in: stats.fulfills_in,
        amount_out: signed(stats.amount_out),
        rejects_out: stats.rejects_out,
        late_fulfills: stats.late_fulfills,
        late_amount: signed(stats.late_amount),
        undelivered_fulfills: stats.undelivered_fulfills,
        undelivered_amount: signed(stats.undelivered_amount),
        refused: refused(stats)
            .map(|(reason, count)| (reason.to_owned(), count))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// The reasons that happened, and how often.
pub(crate) fn refused(stats: &AccountStats) -> impl Iterator<Item = (&'static str, u64)> {
    let counts = Reason::ALL.iter().zip(stats.refused);
    counts.filter_map(|(reason, count)| (count > 0).then_some((reason.row().word, count)))
}
