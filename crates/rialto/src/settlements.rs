//! `settle` and `settlement`.

use serde_json::{Map, Value, json};

use crate::{
    accounts::{asset_of, path, text, units, units_of},
    args::{NodeArgs, SettleArgs, SettlementArgs, SettlementCommand},
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
        SettlementCommand::Retry(args) => decide(args, "retry", "is asked for again").await,
        SettlementCommand::Cancel(args) => decide(args, "cancel", "is taken back").await,
    }
}

async fn list(args: &NodeArgs) -> Result<(), Failure> {
    let settlements = connect(args)?
        .list("/v1/settlements", "settlements")
        .await?;
    if args.output.json {
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

async fn show(args: &SettlementArgs) -> Result<(), Failure> {
    let found: Value = connect(&args.node)?
        .get(&format!("/v1/settlements/{}", args.id))
        .await?;
    if args.node.output.json {
        return output::json(&found);
    }
    output::fields(&found)
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
