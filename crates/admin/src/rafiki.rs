//! Peering with Rafiki by its own call: `POST` to the auto-peering URL of a Rafiki node.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{Request, StatusCode, header::CONTENT_TYPE},
};
use rialto_ledger::{AccountSettings, AccountTerms, Relation, RouteExchange};
use rialto_packet::money::Asset;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    accounts::{check_token, find, http_link, read_address, shape, unlimited},
    auth::{Allowed, ToWrite, generate_token},
    extract,
    invites::{node_name, own_address, own_endpoint},
    shapes::{self, Account, Limits},
};

/// Whom to peer with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AutoPeer {
    /// Where the Rafiki node takes auto-peering requests.
    #[schema(example = "https://auto.rafiki.example")]
    url: String,
    /// What amounts on the account will count, at both ends.
    #[schema(example = "USD")]
    asset_code: String,
    /// The smallest unit is 10^-scale.
    #[schema(example = 2)]
    asset_scale: u8,
    /// What the account will be called; after the Rafiki node where it is left out.
    #[serde(default)]
    #[schema(example = "rafiki", pattern = "^[A-Za-z0-9_~-]{1,64}$")]
    name: Option<String>,
    /// What it may do.
    #[serde(default)]
    limits: Limits,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    static_ilp_address: String,
    ilp_connector_url: String,
    asset: AskedAsset,
    /// What we will present to Rafiki.
    http_token: String,
    name: String,
}

#[derive(Serialize)]
struct AskedAsset {
    code: String,
    scale: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    static_ilp_address: String,
    /// Older versions call it an address.
    #[serde(alias = "ilpConnectorAddress")]
    ilp_connector_url: String,
    /// What Rafiki will present to us.
    http_token: String,
    #[serde(default)]
    name: Option<String>,
}

/// Asks a Rafiki node to peer, and makes the account. No account of ours is ever replaced.
#[utoipa::path(
    post,
    path = "/v1/peers/auto",
    operation_id = "auto_peer",
    tag = "peering",
    security(("bearer" = ["write"])),
    request_body = AutoPeer,
    responses(
        (status = 201, description = "The account of the Rafiki node", body = Account),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn auto_peer(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<AutoPeer>,
) -> Result<(StatusCode, Json<Account>), Problem> {
    let node = &api.node;
    let asset = Asset::new(&request.asset_code, request.asset_scale)
        .map_err(|error| Problem::invalid("asset_code", error.to_string()))?;
    node.0
        .may_connect(&request.url)
        .map_err(|detail| Problem::invalid("url", detail))?;
    let ours = generate_token("peer", node.0.random());
    let endpoint = own_endpoint(node)?;
    let mut settings = AccountSettings {
        name: request.name.unwrap_or_default(),
        incoming_tokens: Vec::new(),
        terms: AccountTerms {
            limits: rialto_ledger::Limits::from(request.limits).or_rafikis(),
            // It answers that there is nobody at those addresses.
            routes: RouteExchange::none(),
            ..AccountTerms::new(Relation::Peer, asset.clone())
        }
        .into(),
    };
    let address = node.read(|connector| {
        let mut candidate = settings.clone();
        if candidate.name.is_empty() {
            candidate.name = connector.free_name("");
        }
        connector.check_new_account(&candidate)?;
        own_address(connector)
    })?;

    let answered = ask(
        &api,
        &request.url,
        &Asked {
            static_ilp_address: address.to_string(),
            ilp_connector_url: format!("{endpoint}/ilp"),
            asset: AskedAsset {
                code: asset.code().to_owned(),
                scale: asset.scale(),
            },
            http_token: ours.clone(),
            name: node_name(node),
        },
    )
    .await?;

    // Rafiki has its peer from here on: whatever is wrong with the answer is said with that.
    let bad = |problem: Problem| {
        let detail = format!(
            "{} peered with us, and its answer cannot be used: {}",
            request.url, problem.detail
        );
        Problem::new(StatusCode::BAD_GATEWAY, "peer_answer", detail)
    };
    let theirs = check_token("httpToken", &answered.http_token).map_err(bad)?;
    settings.incoming_tokens.push(unlimited(theirs));
    settings.ilp_address = read_address(Some(&answered.static_ilp_address)).map_err(bad)?;
    node.0
        .may_connect(&answered.ilp_connector_url)
        .map_err(|detail| {
            let detail = format!("{} {detail}", answered.ilp_connector_url);
            bad(Problem::invalid("url", detail))
        })?;
    let link = shapes::HttpLink {
        jwt: None,
        tls_pins: Vec::new(),
        callback: false,
        url: answered.ilp_connector_url,
        token: Some(ours),
    };
    settings.http = Some(http_link(link, None, node).map_err(bad)?);
    let shaped = node.clone();
    let created = node.execute(move |connector, _, out| {
        if settings.name.is_empty() {
            settings.name = connector.free_name(answered.name.as_deref().unwrap_or_default());
        }
        if let Some(address) = &settings.ilp_address {
            connector.check_newcomers_address(address)?;
        }
        let name = settings.name.clone();
        connector.account_create(settings, out)?;
        Ok::<_, Problem>(shape(connector, find(connector, &name)?, &shaped))
    });
    let account = created.await?.map_err(bad)?;
    Ok((StatusCode::CREATED, Json(account)))
}

async fn ask(api: &Api, url: &str, asked: &Asked) -> Result<Answered, Problem> {
    let body = serde_json::to_vec(asked).expect("text keys and plain values");
    let request = Request::post(url)
        .header(CONTENT_TYPE, "application/json")
        .body(Bytes::from(body))
        .map_err(|_| Problem::invalid("url", "is not a URL"))?;
    let gateway = |code: &str, detail: String| Problem::new(StatusCode::BAD_GATEWAY, code, detail);
    let answer = api.node.0.exchange(request).await;
    let answer = answer
        .map_err(|error| gateway("peer_unreachable", format!("cannot reach {url}: {error}")))?;
    if !answer.status().is_success() {
        let body = String::from_utf8_lossy(answer.body());
        let body: String = body.chars().take(200).collect();
        let detail = format!("{url} answers {}: {body}", answer.status());
        return Err(gateway("peer_refused", detail));
    }
    serde_json::from_slice(answer.body()).map_err(|error| {
        let detail =
            format!("{url} gives an answer that is none ({error}): is it Rafiki's auto-peering?");
        gateway("peer_answer", detail)
    })
}
