//! `peer`: neighbours that come by invitation.

use std::io::{self, Read};

use rialto_node::InviteText;
use rialto_packet::money::Asset;
use serde_json::{Map, Value, json};

use crate::{
    accounts::{at_rafikis_pace, path, routes_words, text, units},
    args::{
        NodeArgs, PeerAcceptArgs, PeerAutoArgs, PeerCommand, PeerDoctorArgs, PeerInviteArgs,
        PeerLink, PeerRevokeArgs, PeerSoftware,
    },
    client::encoded,
    connect::connect,
    failure::Failure,
    output,
    secret::Token,
    strangers,
};

/// Longest invite that is read from stdin, in bytes.
const INVITE_BYTES_MAX: u64 = 8 * 1024;

pub(crate) async fn peer(command: &PeerCommand) -> Result<(), Failure> {
    match command {
        PeerCommand::Invite(args) => invite(args).await,
        PeerCommand::Accept(args) => accept(args).await,
        PeerCommand::Auto(args) => auto(args).await,
        PeerCommand::Doctor(args) => doctor(args).await,
        PeerCommand::Invites(args) => invites(args).await,
        PeerCommand::Revoke(args) => revoke(args).await,
        PeerCommand::Callers(args) => strangers::callers(args).await,
        PeerCommand::Adopt(args) => strangers::adopt(args).await,
        PeerCommand::Block(args) => strangers::block(args).await,
        PeerCommand::Unblock(args) => strangers::unblock(args).await,
        PeerCommand::Requests(args) => strangers::requests(args).await,
        PeerCommand::Approve(args) => strangers::approve(args).await,
        PeerCommand::Deny(args) => strangers::deny(args).await,
    }
}

async fn invite(args: &PeerInviteArgs) -> Result<(), Failure> {
    let asset = asset(&args.asset)?;
    let limits = limits(&asset, args.credit.as_deref(), args.packet_max.as_deref())?;
    if let Some(PeerSoftware::Rafiki) = args.software {
        return invite_rafiki(args, &asset, limits).await;
    }
    let body = json!({
        "asset_code": asset.code(),
        "asset_scale": asset.scale(),
        "name": args.name,
        "limits": limits,
        "without_routes": args.no_routes,
        "expires_in_seconds": args.expires,
    });
    let created: Value = connect(&args.node)?.post("/v1/invites", &body).await?;
    if args.node.output.json {
        return output::json(&created);
    }
    args.node.output.note(&format!(
        "invite {} can be accepted once, until {}; the node that does must reach {}",
        text(&created["id"]),
        text(&created["expires_at"]),
        text(&created["endpoint"]),
    ));
    output::line(&text(&created["invite"]))
}

/// The mutation by which Rafiki's operator makes a peer.
const CREATE_PEER: &str =
    "mutation CreatePeer($input: CreatePeerInput!) { createPeer(input: $input) { peer { id } } }";

/// Makes the account, and prints the request to Rafiki's admin API.
async fn invite_rafiki(
    args: &PeerInviteArgs,
    asset: &Asset,
    mut limits: Map<String, Value>,
) -> Result<(), Failure> {
    at_rafikis_pace(&mut limits);
    let client = connect(&args.node)?;
    let status: Value = client.get("/v1/status").await?;
    let outgoing = Token::generate("peer");
    let packet_max = limits.get("packet_amount_max").cloned();
    let body = json!({
        "name": args.name,
        "relation": "peer",
        "asset_code": asset.code(),
        "asset_scale": asset.scale(),
        "ilp_address": args.ilp_address,
        "limits": limits,
        // Rafiki knows no CCP.
        "routes": {"send": false, "receive": false},
        "generate_token": true,
        "http": {"url": args.http_url, "token": outgoing.reveal()},
    });
    let account: Value = client.post("/v1/accounts", &body).await?;
    let name = text(&account["name"]);
    let mut input = json!({
        "staticIlpAddress": status["ilp_address"],
        "assetId": "ASSET_ID",
        "name": status["name"],
        "http": {
            "incoming": {"authTokens": [outgoing.reveal()]},
            "outgoing": {
                "endpoint": format!("{}/accounts/{name}/ilp", text(&status["public_url"])),
                "authToken": account["incoming_token"],
            },
        },
    });
    if let Some(packet_max) = packet_max {
        input["maxPacketAmount"] = packet_max;
    }
    args.node.output.note(&format!(
        "account {name} made; Rafiki's operator sends this to its admin API, with the id of {asset} there in the place of ASSET_ID"
    ));
    output::json(&json!({"query": CREATE_PEER, "variables": {"input": input}}))
}

async fn auto(args: &PeerAutoArgs) -> Result<(), Failure> {
    let asset = asset(&args.asset)?;
    let limits = limits(&asset, args.credit.as_deref(), args.packet_max.as_deref())?;
    let body = json!({
        "url": args.auto_url,
        "asset_code": asset.code(),
        "asset_scale": asset.scale(),
        "name": args.name,
        "limits": limits,
    });
    let account: Value = connect(&args.node)?.post("/v1/peers/auto", &body).await?;
    peered(&args.node, &account)
}

async fn accept(args: &PeerAcceptArgs) -> Result<(), Failure> {
    let mut invite = args.invite.clone();
    if invite == "-" {
        invite.clear();
        let stdin = io::stdin().lock();
        let read = stdin.take(INVITE_BYTES_MAX).read_to_string(&mut invite);
        read.map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?;
    }
    let limits = match &args.credit {
        // Without an amount there is nothing to read in it: the node does, and counts bad ones.
        None => Map::new(),
        Some(credit) => {
            let invited = InviteText::decode(&invite)
                .map_err(|error| Failure::failed(format!("the invite {error}")))?;
            limits(&invited.asset, Some(credit), None)?
        }
    };
    let link = match args.link {
        PeerLink::Btp => "btp",
        PeerLink::Http => "http",
    };
    let body = json!({
        "invite": invite, "name": args.name, "limits": limits, "link": link,
        "without_routes": args.no_routes,
    });
    let client = connect(&args.node)?;
    let account: Value = client.post("/v1/invites/accept", &body).await?;
    peered(&args.node, &account)
}

/// There is a new peer.
fn peered(args: &NodeArgs, account: &Value) -> Result<(), Failure> {
    let note = format!(
        "peer {} at {}, in {}/{}; {}",
        text(&account["name"]),
        text(&account["ilp_address"]),
        text(&account["asset_code"]),
        text(&account["asset_scale"]),
        routes_words(account),
    );
    args.output.done(account, &note)
}

pub(crate) fn asset(text: &str) -> Result<Asset, Failure> {
    let asset = text.parse();
    asset.map_err(|error| Failure::usage(format!("--asset '{text}': {error}")))
}

async fn doctor(args: &PeerDoctorArgs) -> Result<(), Failure> {
    let mut path = format!("{}/doctor", path(&args.name));
    if let Some(from) = &args.from {
        path.push_str(&format!("?from={}", encoded(from)));
    }
    let found: Value = connect(&args.node)?.post(&path, &json!({})).await?;
    let checks = found["checks"].as_array().cloned().unwrap_or_default();
    if args.node.output.json {
        output::json(&found)?;
    } else {
        let row = |check: &Value| {
            let verdict = match check["verdict"].as_str() {
                Some("pass") => "ok",
                Some("fail") => "WRONG",
                Some(_) | None => "-",
            };
            let mistake = check["mistake"].as_str().unwrap_or_default();
            vec![
                text(&check["check"]),
                verdict.to_owned(),
                mistake.to_owned(),
                text(&check["detail"]),
            ]
        };
        let rows = checks.iter().map(row).collect();
        output::table(&["CHECK", "", "MISTAKE", "SEEN"], rows)?;
    }
    if found["healthy"] == true {
        return Ok(());
    }
    let mut failed = checks.iter().filter(|check| check["verdict"] == "fail");
    let mistake = failed.next().map(|check| text(&check["mistake"]));
    let mistake = mistake.unwrap_or_default();
    Err(Failure::failed(format!(
        "{} is not well: {mistake}",
        args.name
    )))
}

async fn invites(args: &NodeArgs) -> Result<(), Failure> {
    let invites: Value = connect(args)?.get("/v1/invites").await?;
    if args.output.json {
        return output::json(&invites);
    }
    let row = |invite: &Value| {
        vec![
            text(&invite["id"]),
            text(&invite["state"]),
            text(&invite["account"]),
            format!(
                "{}/{}",
                text(&invite["asset_code"]),
                text(&invite["asset_scale"])
            ),
            text(&invite["expires_at"]),
        ]
    };
    let list = invites["invites"].as_array().into_iter().flatten();
    let header = ["INVITE", "STATE", "ACCOUNT", "ASSET", "EXPIRES"];
    output::table(&header, list.map(row).collect())
}

async fn revoke(args: &PeerRevokeArgs) -> Result<(), Failure> {
    let path = format!("/v1/invites/{}", encoded(&args.id));
    connect(&args.node)?.delete(&path).await?;
    let revoked = json!({"revoked": args.id});
    let note = format!("invite {} revoked", args.id);
    args.node.output.done(&revoked, &note)
}

pub(crate) fn limits(
    asset: &Asset,
    credit: Option<&str>,
    packet_max: Option<&str>,
) -> Result<Map<String, Value>, Failure> {
    let mut limits = Map::new();
    if let Some(credit) = credit {
        let units = i128::from(units("--credit", asset, credit)?);
        limits.insert("balance_min".to_owned(), json!((-units).to_string()));
    }
    if let Some(packet_max) = packet_max {
        let units = units("--packet-max", asset, packet_max)?;
        limits.insert("packet_amount_max".to_owned(), json!(units.to_string()));
    }
    Ok(limits)
}
