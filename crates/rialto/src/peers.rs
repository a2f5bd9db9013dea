//! `peer`: neighbours that come by invitation.

use std::io::{self, Read};

use rialto_node::InviteText;
use rialto_packet::money::Asset;
use serde_json::{Map, Value, json};

use crate::{
    accounts::{path, text, units},
    args::{
        NodeArgs, PeerAcceptArgs, PeerCommand, PeerDoctorArgs, PeerInviteArgs, PeerLink,
        PeerRevokeArgs,
    },
    client::encoded,
    connect::connect,
    failure::Failure,
    output,
};

/// Longest invite that is read from stdin, in bytes.
const INVITE_BYTES_MAX: u64 = 8 * 1024;

pub(crate) async fn peer(command: &PeerCommand) -> Result<(), Failure> {
    match command {
        PeerCommand::Invite(args) => invite(args).await,
        PeerCommand::Accept(args) => accept(args).await,
        PeerCommand::Doctor(args) => doctor(args).await,
        PeerCommand::Invites(args) => invites(args).await,
        PeerCommand::Revoke(args) => revoke(args).await,
    }
}

async fn invite(args: &PeerInviteArgs) -> Result<(), Failure> {
    let asset: Asset = args
        .asset
        .parse()
        .map_err(|error| Failure::usage(format!("--asset '{}': {error}", args.asset)))?;
    let limits = limits(&asset, args.credit.as_deref(), args.packet_max.as_deref())?;
    let body = json!({
        "asset_code": asset.code(),
        "asset_scale": asset.scale(),
        "name": args.name,
        "limits": limits,
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
    let body = json!({"invite": invite, "name": args.name, "limits": limits, "link": link});
    let client = connect(&args.node)?;
    let account: Value = client.post("/v1/invites/accept", &body).await?;
    let note = format!(
        "peer {} at {}, in {}/{}",
        text(&account["name"]),
        text(&account["ilp_address"]),
        text(&account["asset_code"]),
        text(&account["asset_scale"]),
    );
    args.node.output.done(&account, &note)
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

fn limits(
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
