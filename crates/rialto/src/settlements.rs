//! `settle` and `settlement`.

use serde_json::{Map, Value, json};

use crate::{
    accounts::{asset_of, path, text, units, units_of},
    args::{
        SettleArgs, SettlementApproveArgs, SettlementArgs, SettlementCommand, SettlementListArgs,
        SettlementRecordArgs, SettlementShowArgs,
    },
    connect::connect,
    failure::Failure,
    output,
    payments::random_key,
};

pub(crate) async fn settle(args: &SettleArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let mut body = Map::new();
    body.insert("account".to_owned(), json!(args.account));
    if let Some(amount) = &args.amount {
        let account: Value = client.get(&path(&args.account)).await?;
        let units = units("AMOUNT", &asset_of(&account)?, amount)?;
        body.insert("amount".to_owned(), json!(units.to_string()));
    }
    let key = args.idempotency_key.clone().unwrap_or_else(random_key);
    let made: Value = client
        .post_once("/v1/settlements", &body.into(), &key)
        .await?;
    let note = format!(
        "settlement {} of {} with {}",
        text(&made["id"]),
        amount(&made)?,
        args.account
    );
    args.node.output.done(&made, &note)
}

pub(crate) async fn settlement(command: &SettlementCommand) -> Result<(), Failure> {
    match command {
        SettlementCommand::List(args) => list(args).await,
        SettlementCommand::Show(args) => show(args).await,
        SettlementCommand::Record(args) => record(args).await,
        SettlementCommand::Approve(args) => approve(args).await,
        SettlementCommand::Decline(args) => decline(args).await,
        SettlementCommand::Retry(args) => decide(args, "retry", "is asked for again").await,
        SettlementCommand::Cancel(args) => decide(args, "cancel", "is taken back").await,
    }
}

async fn list(args: &SettlementListArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    if args.by_hand {
        let made = client
            .list("/v1/hand-settlements", "hand_settlements")
            .await?;
        if args.node.output.json {
            return output::json(&json!({"hand_settlements": made}));
        }
        let row = |made: &Value| {
            Ok(vec![
                text(&made["id"]),
                text(&made["account"]),
                text(&made["direction"]),
                amount(made)?,
                text(&made["reference"]),
                text(&made["state"]),
                text(&made["recorded_by"]),
                text(&made["decided_by"]),
                text(&made["recorded_at"]),
            ])
        };
        let rows: Result<_, Failure> = made.iter().map(row).collect();
        let header = [
            "ID",
            "ACCOUNT",
            "DIRECTION",
            "AMOUNT",
            "REFERENCE",
            "STATE",
            "BY",
            "DECIDED BY",
            "MADE",
        ];
        return output::table(&header, rows?);
    }
    let settlements = client.list("/v1/settlements", "settlements").await?;
    if args.node.output.json {
        return output::json(&json!({"settlements": settlements}));
    }
    let row = |settlement: &Value| {
        Ok(vec![
            text(&settlement["id"]),
            text(&settlement["account"]),
            amount(settlement)?,
            text(&settlement["cause"]),
            text(&settlement["state"]),
            text(&settlement["created_at"]),
            text(&settlement["message"]),
        ])
    };
    let rows: Result<_, Failure> = settlements.iter().map(row).collect();
    let header = [
        "ID", "ACCOUNT", "AMOUNT", "CAUSE", "STATE", "MADE", "MESSAGE",
    ];
    output::table(&header, rows?)
}

async fn show(args: &SettlementShowArgs) -> Result<(), Failure> {
    let path = if args.by_hand {
        by_hand(args.id)
    } else {
        format!("/v1/settlements/{}", args.id)
    };
    let found: Value = connect(&args.node)?.get(&path).await?;
    if args.node.output.json {
        return output::json(&found);
    }
    output::fields(&found)
}

fn by_hand(id: u64) -> String {
    format!("/v1/hand-settlements/{id}")
}

async fn record(args: &SettlementRecordArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let account: Value = client.get(&path(&args.account)).await?;
    let units = units("AMOUNT", &asset_of(&account)?, &args.amount)?;
    let body = json!({
        "account": args.account,
        "amount": units.to_string(),
        "direction": args.direction,
        "reference": args.reference,
    });
    let key = args.idempotency_key.clone().unwrap_or_else(random_key);
    let made: Value = client
        .post_once("/v1/hand-settlements", &body, &key)
        .await?;
    let words = match made["state"].as_str() {
        Some("proposed") => "waits for another operator to approve it",
        _ => "is in the balance",
    };
    args.node.output.done(&made, &note(&made, words)?)
}

async fn approve(args: &SettlementApproveArgs) -> Result<(), Failure> {
    let path = format!("{}/approve", by_hand(args.id));
    let key = args.idempotency_key.clone().unwrap_or_else(random_key);
    let made: Value = connect(&args.node)?
        .post_once(&path, &Value::Null, &key)
        .await?;
    let note = note(&made, "is approved and in the balance")?;
    args.node.output.done(&made, &note)
}

async fn decline(args: &SettlementArgs) -> Result<(), Failure> {
    let path = format!("{}/decline", by_hand(args.id));
    let made: Value = connect(&args.node)?.post(&path, &Value::Null).await?;
    let note = note(&made, "is declined")?;
    args.node.output.done(&made, &note)
}

/// Of a settlement by hand.
fn note(made: &Value, words: &str) -> Result<String, Failure> {
    let side = match made["direction"].as_str() {
        Some("paid") => "to",
        _ => "from",
    };
    Ok(format!(
        "settlement {} of {} {side} {} {words}",
        text(&made["id"]),
        amount(made)?,
        text(&made["account"])
    ))
}

async fn decide(args: &SettlementArgs, what: &str, words: &str) -> Result<(), Failure> {
    let path = format!("/v1/settlements/{}/{what}", args.id);
    let decided: Value = connect(&args.node)?.post(&path, &Value::Null).await?;
    let note = format!("settlement {} {words}", args.id);
    args.node.output.done(&decided, &note)
}

/// As people read it; in units once the account is gone.
fn amount(settlement: &Value) -> Result<String, Failure> {
    if settlement["asset_code"].is_null() {
        return Ok(text(&settlement["amount"]));
    }
    let (asset, units) = (asset_of(settlement)?, units_of(&settlement["amount"])?);
    Ok(format!("{} {}", asset.decimal(units), asset.code()))
}
