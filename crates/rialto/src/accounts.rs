//! `account` and `balance`.

use rialto_ledger::RAFIKI_PACKETS_PER_SECOND;
use rialto_packet::money::Asset;
use serde_json::{Map, Value, json};

use crate::{
    args::{
        AccountCommand, AccountCreateArgs, AccountSettingsArgs, AccountUpdateArgs, AddTokenArgs,
        AdjustArgs, BalanceArgs, NamedArgs, NodeArgs, Profile, RemoveTokenArgs, RotateTokenArgs,
    },
    client::{Client, encoded},
    connect::connect,
    failure::{Exit, Failure},
    output,
    payments::{random_key, with_key},
    secret::Token,
};

/// What clears a setting.
const NONE: &str = "none";

pub(crate) async fn account(command: &AccountCommand) -> Result<(), Failure> {
    match command {
        AccountCommand::List(args) => list(args).await,
        AccountCommand::Show(args) => show(args).await,
        AccountCommand::Create(args) => create(args).await,
        AccountCommand::Update(args) => update(args).await,
        AccountCommand::Adjust(args) => adjust(args).await,
        AccountCommand::Delete(args) => delete(args).await,
        AccountCommand::RotateToken(args) => rotate_token(args).await,
        AccountCommand::AddToken(args) => add_token(args).await,
        AccountCommand::RemoveToken(args) => remove_token(args).await,
    }
}

async fn list(args: &NodeArgs) -> Result<(), Failure> {
    let accounts = all(&connect(args)?).await?;
    if args.output.json {
        return output::json(&json!({"accounts": accounts}));
    }
    let row = |account: &Value| {
        let asset = format!(
            "{}/{}",
            text(&account["asset_code"]),
            text(&account["asset_scale"])
        );
        vec![
            text(&account["name"]),
            text(&account["relation"]),
            asset,
            text(&account["link"]),
            text(&account["state"]),
            text(&account["ilp_address"]),
            text(&account["words"]),
        ]
    };
    let header = [
        "NAME", "RELATION", "ASSET", "LINK", "STATE", "ADDRESS", "BALANCE",
    ];
    output::table(&header, accounts.iter().map(row).collect())
}

async fn show(args: &NamedArgs) -> Result<(), Failure> {
    let account: Value = connect(&args.node)?.get(&path(&args.name)).await?;
    if args.node.output.json {
        return output::json(&account);
    }
    output::fields(&account)
}

async fn create(args: &AccountCreateArgs) -> Result<(), Failure> {
    let asset: Asset = args
        .asset
        .parse()
        .map_err(|error| Failure::usage(format!("--asset '{}': {error}", args.asset)))?;
    let mut body = settings(&args.settings, &asset)?;
    body.insert("name".to_owned(), json!(args.name));
    body.insert("relation".to_owned(), json!(args.relation.as_str()));
    body.insert("asset_code".to_owned(), json!(asset.code()));
    body.insert("asset_scale".to_owned(), json!(asset.scale()));
    if let Some(file) = &args.incoming_token_file {
        body.insert(
            "incoming_token".to_owned(),
            json!(Token::read(file)?.reveal()),
        );
    }
    if args.generate_token {
        body.insert("generate_token".to_owned(), json!(true));
    }
    if !args.client_pin.is_empty() {
        body.insert("client_pins".to_owned(), json!(args.client_pin));
    }
    pin_links(&args.settings.tls_pin, &mut body, &Value::Null)?;
    let account: Value = connect(&args.node)?
        .post("/v1/accounts", &body.into())
        .await?;
    let mut note = format!("account {} created", args.name);
    if account["relation"] != "local" {
        note.push_str(&format!("; {}", routes_words(&account)));
    }
    args.node.output.done(&account, &note)?;
    print_token(&args.node, &account)
}

/// How routes are exchanged with an account, in words.
pub(crate) fn routes_words(account: &Value) -> &'static str {
    let is = |field: &str| account["routes"][field] == true;
    match (is("send"), is("receive")) {
        (true, true) => "it is told our routes and asked for its own",
        (true, false) => "it is told our routes when it asks",
        (false, true) => "it is asked for its routes",
        (false, false) => "its routes are set by hand",
    }
}

async fn update(args: &AccountUpdateArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let account: Value = client.get(&path(&args.name)).await?;
    let mut body = settings(&args.settings, &asset_of(&account)?)?;
    if let Some(relation) = args.relation {
        body.insert("relation".to_owned(), json!(relation.as_str()));
    }
    pin_links(&args.settings.tls_pin, &mut body, &account)?;
    if body.is_empty() {
        return Err(Failure::usage(
            "nothing to change: name at least one setting",
        ));
    }
    let account = client.patch(&path(&args.name), &body.into()).await?;
    args.node
        .output
        .done(&account, &format!("account {} changed", args.name))
}

async fn adjust(args: &AdjustArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let asset = asset_of(&client.get(&path(&args.name)).await?)?;
    let amount = match args.amount.strip_prefix('-') {
        Some(taken) => -i128::from(units("AMOUNT", &asset, taken)?),
        None => units("AMOUNT", &asset, &args.amount)?.into(),
    };
    let body = json!({
        "account": args.name, "amount": amount.to_string(), "reason": args.reason,
    });
    let key = args.idempotency_key.clone().unwrap_or_else(random_key);
    let made: Value = client
        .post_once("/v1/adjustments", &body, &key)
        .await
        .map_err(|failure| with_key(failure, &key, "the correction may have been made"))?;
    let account: Value = client.get(&path(&args.name)).await?;
    let text = format!(
        "{} {} added: {}",
        asset.decimal(amount),
        asset.code(),
        text(&account["words"])
    );
    args.node.output.done(&made, &text)
}

async fn delete(args: &NamedArgs) -> Result<(), Failure> {
    connect(&args.node)?.delete(&path(&args.name)).await?;
    let deleted = json!({"deleted": args.name});
    args.node
        .output
        .done(&deleted, &format!("account {} deleted", args.name))
}

async fn rotate_token(args: &RotateTokenArgs) -> Result<(), Failure> {
    let mut body = json!({"grace_seconds": args.grace_seconds});
    if let Some(file) = &args.incoming_token_file {
        body["token"] = json!(Token::read(file)?.reveal());
    }
    let path = format!("{}/tokens", path(&args.name));
    let created: Value = connect(&args.node)?.post(&path, &body).await?;
    let text = format!(
        "account {} has a new token, {}",
        args.name,
        text(&created["id"])
    );
    args.node.output.done(&created, &text)?;
    print_token(&args.node, &created)
}

async fn add_token(args: &AddTokenArgs) -> Result<(), Failure> {
    let mut body = json!({"keep_others": true});
    let files = args.key_file.as_ref().or(args.incoming_token_file.as_ref());
    if let Some(file) = files {
        body["token"] = json!(Token::read(file)?.reveal());
    }
    if let Some(algorithm) = &args.jwt {
        body["jwt"] = json!({
            "algorithm": algorithm, "subject": args.subject, "issuer": args.issuer,
            "audience": args.audience,
        });
    }
    if let Some(pin) = &args.client_pin {
        body["client_pin"] = json!(pin);
    }
    let path = format!("{}/tokens", path(&args.name));
    let created: Value = connect(&args.node)?.post(&path, &body).await?;
    let id = text(&created["id"]);
    let note = format!("account {} has one more token, {id}", args.name);
    args.node.output.done(&created, &note)?;
    print_token(&args.node, &created)
}

async fn remove_token(args: &RemoveTokenArgs) -> Result<(), Failure> {
    let path = format!("{}/tokens/{}", path(&args.name), encoded(&args.id));
    connect(&args.node)?.delete(&path).await?;
    let removed = json!({"removed": args.id});
    let note = format!(
        "token {} of account {} opens nothing any more",
        args.id, args.name
    );
    args.node.output.done(&removed, &note)
}

pub(crate) async fn balance(args: &BalanceArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    if let Some(name) = &args.name {
        let account: Value = client.get(&path(name)).await?;
        return if args.node.output.json {
            output::json(&balance_of(&account))
        } else {
            output::line(&text(&account["words"]))
        };
    }
    let all = client.whole("/v1/balances", "balances").await?;
    if args.node.output.json {
        let (balances, positions) = (&all["balances"], &all["positions"]);
        return output::json(&json!({"balances": balances, "positions": positions}));
    }
    let mut rows = Vec::new();
    for balance in all["balances"].as_array().into_iter().flatten() {
        rows.push(vec![text(&balance["account"]), text(&balance["words"])]);
    }
    for position in all["positions"].as_array().into_iter().flatten() {
        let asset = asset_of(position)?;
        let units = units_of(&position["amount"])?;
        rows.push(vec![
            format!("exchange:{asset}"),
            position_words(&asset, units),
        ]);
    }
    output::table(&["ACCOUNT", "WHO OWES WHOM"], rows)
}

/// What the API lists of an account's balance, from the account.
fn balance_of(account: &Value) -> Value {
    json!({
        "account": account["name"],
        "asset_code": account["asset_code"],
        "asset_scale": account["asset_scale"],
        "balance": account["balance"],
        "available": account["available"],
        "in_flight": account["in_flight"],
        "words": account["words"],
    })
}

/// The node's own position in an asset, in words: long when its accounts together owe it.
pub(crate) fn position_words(asset: &Asset, units: i128) -> String {
    let code = asset.code();
    match units {
        0 => "our position is flat".to_owned(),
        1.. => format!("our position is {} {code} long", asset.decimal(units)),
        _ => format!("our position is {} {code} short", asset.decimal(-units)),
    }
}

/// All accounts of the node.
pub(crate) async fn all(client: &Client) -> Result<Vec<Value>, Failure> {
    client.list("/v1/accounts", "accounts").await
}

/// Where an account stands in the API.
pub(crate) fn path(name: &str) -> String {
    format!("/v1/accounts/{}", encoded(name))
}

/// The asset that an object of the API counts in.
pub(crate) fn asset_of(object: &Value) -> Result<Asset, Failure> {
    let code = object["asset_code"].as_str();
    let scale = object["asset_scale"]
        .as_u64()
        .and_then(|scale| u8::try_from(scale).ok());
    let asset = code
        .zip(scale)
        .and_then(|(code, scale)| Asset::new(code, scale).ok());
    asset.ok_or_else(|| unreadable("asset"))
}

/// A number of units as the API writes it.
pub(crate) fn units_of(value: &Value) -> Result<i128, Failure> {
    let units = value.as_str().and_then(|text| text.parse().ok());
    units.ok_or_else(|| unreadable("amount"))
}

/// A decimal of an asset as whole units.
pub(crate) fn units(what: &str, asset: &Asset, decimal: &str) -> Result<u64, Failure> {
    asset.units(decimal).ok_or_else(|| {
        let (code, scale) = (asset.code(), asset.scale());
        Failure::usage(format!(
            "{what} '{decimal}' is no amount of {code}: a decimal such as 12 with at most {scale} digits after the point, up to {}",
            asset.decimal(u64::MAX.into())
        ))
    })
}

/// A value as people read it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn unreadable(what: &str) -> Failure {
    Failure::new(
        Exit::Internal,
        format!("the node's answer has no readable {what}"),
    )
}

/// A token that was just made is shown this once, also to people.
fn print_token(args: &NodeArgs, answer: &Value) -> Result<(), Failure> {
    match answer["incoming_token"].as_str() {
        Some(token) if !args.output.json => output::line(token),
        Some(_) | None => Ok(()),
    }
}

/// A Rafiki node is sent packets at its pace, unless another was said.
pub(crate) fn at_rafikis_pace(limits: &mut Map<String, Value>) {
    limits
        .entry("packets_out_per_second")
        .or_insert_with(|| json!(RAFIKI_PACKETS_PER_SECOND));
}

/// What was said on the command line, as the API takes it; null clears.
fn settings(args: &AccountSettingsArgs, asset: &Asset) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    let texts = [("ilp_address", &args.ilp_address), ("spread", &args.spread)];
    for (field, value) in texts {
        if let Some(value) = value {
            body.insert(field.to_owned(), or_null(value, || json!(value)));
        }
    }
    if let Some(paused) = args.paused {
        body.insert("paused".to_owned(), json!(paused));
    }

    let mut routes = Map::new();
    for (field, flag, value) in [
        ("send", "--send-routes", &args.send_routes),
        ("receive", "--receive-routes", &args.receive_routes),
        ("count_max", "--routes-max", &args.routes_max),
    ] {
        if let Some(value) = value {
            let parsed = match value.as_str() {
                NONE => Value::Null,
                text => serde_json::from_str(text)
                    .map_err(|_| Failure::usage(format!("{flag} '{text}' is not understood")))?,
            };
            routes.insert(field.to_owned(), parsed);
        }
    }
    if let Some(prefixes) = &args.route_prefixes {
        let prefixes = prefixes.split(',').filter(|prefix| *prefix != NONE);
        let prefixes: Vec<_> = prefixes.map(|prefix| json!(prefix)).collect();
        routes.insert("prefixes".to_owned(), Value::Array(prefixes));
    }
    if let Some(Profile::Rafiki) = args.profile {
        // It knows no CCP.
        for (field, value) in [
            ("send", &args.send_routes),
            ("receive", &args.receive_routes),
        ] {
            if value.is_none() {
                routes.insert(field.to_owned(), json!(false));
            }
        }
    }
    if !routes.is_empty() {
        body.insert("routes".to_owned(), Value::Object(routes));
    }

    let mut limits = Map::new();
    if let Some(credit) = &args.credit {
        let units = i128::from(if credit == NONE {
            0
        } else {
            units("--credit", asset, credit)?
        });
        limits.insert("balance_min".to_owned(), json!((-units).to_string()));
    }
    for (field, flag, value) in [
        ("packet_amount_max", "--packet-max", &args.packet_max),
        (
            "amount_per_minute",
            "--amount-per-minute",
            &args.amount_per_minute,
        ),
        (
            "in_flight_amount_max",
            "--in-flight-amount-max",
            &args.in_flight_amount_max,
        ),
        (
            "unsynced_amount_max",
            "--unsynced-amount-max",
            &args.unsynced_amount_max,
        ),
    ] {
        if let Some(value) = value {
            let limit = if value == NONE {
                Value::Null
            } else {
                json!(units(flag, asset, value)?.to_string())
            };
            limits.insert(field.to_owned(), limit);
        }
    }
    for (field, flag, value) in [
        (
            "packets_per_minute",
            "--packets-per-minute",
            &args.packets_per_minute,
        ),
        (
            "packets_out_per_second",
            "--packets-out-per-second",
            &args.packets_out_per_second,
        ),
        (
            "in_flight_count_max",
            "--in-flight-count-max",
            &args.in_flight_count_max,
        ),
    ] {
        if let Some(value) = value {
            let limit = if value == NONE {
                Value::Null
            } else {
                let count: u32 = value.parse().map_err(|_| {
                    Failure::usage(format!("{flag} '{value}' is not a count, nor 'none'"))
                })?;
                json!(count)
            };
            limits.insert(field.to_owned(), limit);
        }
    }
    if let Some(Profile::Rafiki) = args.profile {
        at_rafikis_pace(&mut limits);
    }
    if !limits.is_empty() {
        body.insert("limits".to_owned(), limits.into());
    }

    if let Some(url) = &args.http_url {
        let mut link = link("--http-url", url, None, args.http_token_file.as_deref())?;
        if let Some(link) = link.as_object_mut() {
            let (subject, issuer) = (&args.http_jwt_subject, &args.http_jwt_issuer);
            let jwt = jwt(&args.http_jwt, subject, issuer, &args.http_jwt_audience);
            link.extend(jwt.map(|jwt| ("jwt".to_owned(), jwt)));
            link.insert("callback".to_owned(), args.http_callback.into());
        }
        body.insert("http".to_owned(), link);
    }
    if let Some(url) = &args.btp_url {
        let username = args.btp_username.as_deref();
        let mut link = link("--btp-url", url, username, args.btp_token_file.as_deref())?;
        if let Some(link) = link.as_object_mut() {
            let (subject, issuer) = (&args.btp_jwt_subject, &args.btp_jwt_issuer);
            let jwt = jwt(&args.btp_jwt, subject, issuer, &args.btp_jwt_audience);
            link.extend(jwt.map(|jwt| ("jwt".to_owned(), jwt)));
        }
        body.insert("btp".to_owned(), link);
    }
    let terms = settlement(args, asset)?;
    if !terms.is_empty() {
        body.insert("settlement".to_owned(), terms.into());
    }
    Ok(body)
}

/// How tokens are made, where some are.
fn jwt(
    algorithm: &Option<String>,
    subject: &Option<String>,
    issuer: &Option<String>,
    audience: &Option<String>,
) -> Option<Value> {
    let algorithm = algorithm.as_ref()?;
    Some(json!({
        "algorithm": algorithm, "subject": subject, "issuer": issuer, "audience": audience,
    }))
}

/// Pins the server of each link that the account has, or is to have.
fn pin_links(
    pins: &[String],
    body: &mut Map<String, Value>,
    account: &Value,
) -> Result<(), Failure> {
    if pins.is_empty() {
        return Ok(());
    }
    let pins: Vec<_> = pins.iter().filter(|pin| *pin != NONE).collect();
    let mut has_link = false;
    for name in ["http", "btp"] {
        if !body.contains_key(name) && !account[name].is_null() {
            body.insert(name.to_owned(), json!({}));
        }
        if let Some(link) = body.get_mut(name).and_then(Value::as_object_mut) {
            link.insert("tls_pins".to_owned(), json!(pins));
            has_link = true;
        }
    }
    if !has_link {
        let message =
            "--tls-pin is about the server of --http-url or --btp-url, and there is neither";
        return Err(Failure::usage(message));
    }
    Ok(())
}

fn settlement(args: &AccountSettingsArgs, asset: &Asset) -> Result<Map<String, Value>, Failure> {
    let mut terms = Map::new();
    if let Some(url) = &args.engine_url {
        terms.insert("engine_url".to_owned(), or_null(url, || json!(url)));
    }
    if let Some(engine_channels) = args.engine_channels {
        terms.insert("engine_channels".to_owned(), engine_channels.into());
    }
    for (field, flag, value) in [
        ("threshold", "--settle-threshold", &args.settle_threshold),
        ("settle_to", "--settle-to", &args.settle_to),
        ("amount_min", "--settle-amount-min", &args.settle_amount_min),
    ] {
        let Some(value) = value else { continue };
        let term = match (value.as_str(), value.strip_prefix('-')) {
            (NONE, _) => Value::Null,
            (_, Some(below)) => json!(format!("-{}", units(flag, asset, below)?)),
            (_, None) => json!(units(flag, asset, value)?.to_string()),
        };
        terms.insert(field.to_owned(), term);
    }
    if let Some(seconds) = &args.settle_every {
        let term = match seconds.as_str() {
            NONE => Value::Null,
            text => json!(text.parse::<u32>().map_err(|_| {
                Failure::usage(format!(
                    "--settle-every '{text}' is not a number of seconds, nor 'none'"
                ))
            })?),
        };
        terms.insert("every_s".to_owned(), term);
    }
    if let Some(kind) = &args.channel {
        let limit = |flag: &str, value: &Option<String>| {
            let units = units(flag, asset, value.as_deref().unwrap_or("0"))?;
            Ok::<_, Failure>(units.to_string())
        };
        let limits = (
            limit("--channel-limit", &args.channel_limit)?,
            limit("--channel-their-limit", &args.channel_their_limit)?,
        );
        let term = or_null(kind, || {
            json!({
                "kind": kind,
                "limit": limits.0,
                "their_limit": limits.1,
                "propose": args.channel_propose,
            })
        });
        terms.insert("channel".to_owned(), term);
    }
    Ok(terms)
}

fn link(
    flag: &str,
    url: &str,
    username: Option<&str>,
    token_file: Option<&std::path::Path>,
) -> Result<Value, Failure> {
    if url == NONE {
        return Ok(Value::Null);
    }
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        let message = format!("{flag} must not carry a token: put that into a file");
        return Err(Failure::usage(message));
    }
    let mut link = json!({"url": url});
    if let Some(username) = username {
        link["username"] = json!(username);
    }
    if token_file == Some(std::path::Path::new(NONE)) {
        link["token"] = json!("");
    } else if let Some(file) = token_file {
        link["token"] = json!(Token::read(file)?.reveal());
    }
    Ok(link)
}

fn or_null(text: &str, value: impl FnOnce() -> Value) -> Value {
    if text == NONE { Value::Null } else { value() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn body(flags: &str) -> Result<Value, String> {
        let line = format!("rialto account update bob {flags}");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Account(AccountCommand::Update(args)) = cli.command else {
            unreachable!()
        };
        let asset = "USD/9".parse().unwrap();
        settings(&args.settings, &asset)
            .map(Value::from)
            .map_err(|failure| failure.message)
    }

    #[test]
    fn settings_are_sent_in_units_and_only_when_named() {
        let sent = |flags| body(flags).unwrap();
        assert_eq!(sent("--paused true"), json!({"paused": true}));
        assert_eq!(
            sent("--credit 12.5"),
            json!({"limits": {"balance_min": "-12500000000"}})
        );
        assert_eq!(
            sent("--credit none"),
            json!({"limits": {"balance_min": "0"}})
        );
        assert_eq!(
            sent("--packet-max none --packets-per-minute 60 --spread none"),
            json!({"limits": {"packet_amount_max": null, "packets_per_minute": 60}, "spread": null})
        );
        assert_eq!(
            sent("--http-url none --btp-url ws://h/x"),
            json!({"http": null, "btp": {"url": "ws://h/x"}})
        );
    }

    #[test]
    fn mistakes_name_their_flag() {
        for (flags, start) in [
            (
                "--credit 1.0000000001",
                "--credit '1.0000000001' is no amount of USD",
            ),
            (
                "--in-flight-count-max many",
                "--in-flight-count-max 'many' is not a count",
            ),
            (
                "--btp-url btp+ws://:secret@host/",
                "--btp-url must not carry a token",
            ),
        ] {
            let message = body(flags).unwrap_err();
            assert!(message.starts_with(start), "{message}");
        }
    }
}
