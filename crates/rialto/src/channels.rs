//! `channel`.

use std::fs;

use rialto_channel::Statement;
use serde_json::{Value, json};

use crate::{
    accounts::{asset_of, path, text, units, units_of},
    args::{
        ChannelArgs, ChannelCloseArgs, ChannelCommand, ChannelDeclineArgs, ChannelLimitsArgs,
        ChannelListArgs, ChannelOpenArgs, ChannelShowArgs, ChannelVerifyArgs, NodeArgs,
    },
    client::encoded,
    connect::connect,
    failure::Failure,
    output,
    payments::random_key,
};

pub(crate) async fn channel(command: &ChannelCommand) -> Result<(), Failure> {
    match command {
        ChannelCommand::Open(args) => open(args).await,
        ChannelCommand::List(args) => list(args).await,
        ChannelCommand::Show(args) => show(args).await,
        ChannelCommand::Accept(args) => accept(args).await,
        ChannelCommand::Decline(args) => decline(args).await,
        ChannelCommand::Limits(args) => limits(args).await,
        ChannelCommand::Close(args) => close(args).await,
        ChannelCommand::Verify(args) => verify(args),
    }
}

fn channel_path(id: &str) -> String {
    format!("/v1/channels/{}", encoded(id))
}

async fn open(args: &ChannelOpenArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let account: Value = client.get(&path(&args.account)).await?;
    let asset = asset_of(&account)?;
    let body = json!({
        "account": args.account,
        "kind": args.kind,
        "limit": units("--limit", &asset, &args.limit)?.to_string(),
        "their_limit": units("--their-limit", &asset, &args.their_limit)?.to_string(),
    });
    let key = args.idempotency_key.clone().unwrap_or_else(random_key);
    let made: Value = client.post_once("/v1/channels", &body, &key).await?;
    let note = format!(
        "channel {} is proposed to {}",
        text(&made["id"]),
        args.account
    );
    args.node.output.done(&made, &note)
}

async fn list(args: &ChannelListArgs) -> Result<(), Failure> {
    let path = match &args.account {
        Some(account) => format!("/v1/channels?account={}", encoded(account)),
        None => "/v1/channels".to_owned(),
    };
    let channels = connect(&args.node)?.list(&path, "channels").await?;
    if args.node.output.json {
        return output::json(&json!({"channels": channels}));
    }
    let row = |channel: &Value| {
        let asset = asset_of(channel)?;
        let decimal = |field: &str| Ok::<_, Failure>(asset.decimal(units_of(&channel[field])?));
        Ok(vec![
            text(&channel["id"]),
            text(&channel["account"]),
            text(&channel["kind"]),
            text(&channel["state"]),
            decimal("owed")?,
            decimal("limit")?,
            decimal("their_limit")?,
            asset.code().to_owned(),
        ])
    };
    let rows: Result<_, Failure> = channels.iter().map(row).collect();
    let header = [
        "ID",
        "ACCOUNT",
        "KIND",
        "STATE",
        "WE OWE",
        "LIMIT",
        "THEIR LIMIT",
        "ASSET",
    ];
    output::table(&header, rows?)
}

async fn show(args: &ChannelShowArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let found: Value = client.get(&channel_path(&args.id)).await?;
    if let Some(file) = &args.statement {
        let path = format!("{}/statement", channel_path(&args.id));
        let statement: Statement = client.get(&path).await?;
        fs::write(file, statement.to_json()).map_err(|error| {
            Failure::failed(format!("cannot write {}: {error}", file.display()))
        })?;
        let note = format!("the statement is in {}", file.display());
        args.node.output.note(&note);
    }
    if args.node.output.json {
        return output::json(&found);
    }
    output::fields(&found)
}

async fn accept(args: &ChannelArgs) -> Result<(), Failure> {
    tell(&args.node, &args.id, "accept", &Value::Null, "is accepted").await
}

async fn decline(args: &ChannelDeclineArgs) -> Result<(), Failure> {
    let body = json!({"reason": args.reason});
    tell(&args.node, &args.id, "decline", &body, "is declined").await
}

async fn limits(args: &ChannelLimitsArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let found: Value = client.get(&channel_path(&args.id)).await?;
    let asset = asset_of(&found)?;
    let body = json!({
        "limit": units("--limit", &asset, &args.limit)?.to_string(),
        "their_limit": units("--their-limit", &asset, &args.their_limit)?.to_string(),
    });
    let words = "gets other limits once the other side agrees";
    tell(&args.node, &args.id, "limits", &body, words).await
}

async fn close(args: &ChannelCloseArgs) -> Result<(), Failure> {
    let body = json!({"alone": args.alone});
    let words = if args.alone {
        "is closed alone"
    } else {
        "is being closed"
    };
    tell(&args.node, &args.id, "close", &body, words).await
}

async fn tell(
    node: &NodeArgs,
    id: &str,
    what: &str,
    body: &Value,
    words: &str,
) -> Result<(), Failure> {
    let path = format!("{}/{what}", channel_path(id));
    let done: Value = connect(node)?.post(&path, body).await?;
    let note = format!("channel {id} {words}: {}", text(&done["message"]));
    node.output.done(&done, &note)
}

/// Needs no node.
fn verify(args: &ChannelVerifyArgs) -> Result<(), Failure> {
    let file = args.file.display();
    let bytes = fs::read(&args.file)
        .map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))?;
    let wrong = |error| Failure::failed(format!("{file}: {error}"));
    let statement = Statement::parse(&bytes).map_err(wrong)?;
    statement.verify().map_err(wrong)?;
    let asset = &statement.terms.asset;
    let owes = statement.opener_owes();
    let (who, whom) = if owes >= 0 {
        ("opener", "accepter")
    } else {
        ("accepter", "opener")
    };
    let units = i128::try_from(owes.unsigned_abs()).unwrap_or(i128::MAX);
    let found = json!({
        "channel": statement.channel,
        "state": statement.state,
        "written_by": statement.written_by,
        "opener": statement.terms.opener,
        "accepter": statement.terms.accepter,
        "opener_paid": statement.opener.total.to_string(),
        "accepter_paid": statement.accepter.total.to_string(),
        "opener_owes": owes.to_string(),
        "asset_code": asset.code(),
        "asset_scale": asset.scale(),
    });
    let note = format!(
        "every signature fits: the {who} owes the {whom} {} {}",
        asset.decimal(units),
        asset.code()
    );
    args.output.done(&found, &note)
}
