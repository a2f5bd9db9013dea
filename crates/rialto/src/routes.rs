//! `route` and `rate`.

use serde_json::{Value, json};

use crate::{
    accounts::text,
    args::{
        NodeArgs, RateCommand, RateConfirmArgs, RateDeleteArgs, RateSetArgs, RouteCommand,
        RouteDeleteArgs, RouteSetArgs,
    },
    client::encoded,
    connect::connect,
    failure::Failure,
    output,
};

/// How the empty prefix is written on a command line. No ILP address can begin with it.
const DEFAULT: &str = "default";

pub(crate) async fn route(command: &RouteCommand) -> Result<(), Failure> {
    match command {
        RouteCommand::List(args) => route_list(args).await,
        RouteCommand::Set(args) => route_set(args).await,
        RouteCommand::Delete(args) => route_delete(args).await,
    }
}

pub(crate) async fn rate(command: &RateCommand) -> Result<(), Failure> {
    match command {
        RateCommand::List(args) => rate_list(args).await,
        RateCommand::Set(args) => rate_set(args).await,
        RateCommand::Confirm(args) => rate_confirm(args).await,
        RateCommand::Delete(args) => rate_delete(args).await,
    }
}

async fn route_list(args: &NodeArgs) -> Result<(), Failure> {
    let routes: Value = connect(args)?.get("/v1/routes").await?;
    if args.output.json {
        return output::json(&routes);
    }
    let row = |route: &Value| {
        let prefix = match route["prefix"].as_str() {
            Some("") => DEFAULT.to_owned(),
            Some(_) | None => text(&route["prefix"]),
        };
        vec![prefix, text(&route["account"]), text(&route["source"])]
    };
    let rows = rows(&routes["routes"], row);
    output::table(&["PREFIX", "ACCOUNT", "SOURCE"], rows)
}

async fn route_set(args: &RouteSetArgs) -> Result<(), Failure> {
    let body = json!({"prefix": prefix(&args.prefix), "account": args.account});
    let route = connect(&args.node)?.put("/v1/routes", &body).await?;
    let note = format!("{} goes to {}", args.prefix, args.account);
    args.node.output.done(&route, &note)
}

async fn route_delete(args: &RouteDeleteArgs) -> Result<(), Failure> {
    let path = format!("/v1/routes?prefix={}", encoded(prefix(&args.prefix)));
    connect(&args.node)?.delete(&path).await?;
    let deleted = json!({"deleted": prefix(&args.prefix)});
    args.node
        .output
        .done(&deleted, &format!("route {} deleted", args.prefix))
}

async fn rate_list(args: &NodeArgs) -> Result<(), Failure> {
    let rates: Value = connect(args)?.get("/v1/rates").await?;
    if args.output.json {
        return output::json(&rates);
    }
    let row = |rate: &Value| {
        let spread = if rate["spread"].is_null() {
            &rates["default_spread"]
        } else {
            &rate["spread"]
        };
        vec![
            text(&rate["from"]),
            text(&rate["to"]),
            text(&rate["rate"]),
            text(spread),
            "set by hand".to_owned(),
            age_of(&rate["set_at"]),
            text(&rate["valid_until"]),
        ]
    };
    let mut table = rows(&rates["rates"], row);
    let feed = &rates["feed"];
    table.extend(rows(&feed["prices"], |price| {
        let state = match (&price["waiting"], price["stale"].as_bool()) {
            (Value::String(waiting), _) => format!("{waiting} waits: `rialto rate confirm`"),
            (_, Some(true)) => "too old".to_owned(),
            (_, Some(false) | None) => String::new(),
        };
        vec![
            text(&feed["base"]),
            text(&price["code"]),
            text(&price["rate"]),
            String::new(),
            text(&feed["source"]),
            seconds(price["age_seconds"].as_i64().unwrap_or_default()),
            state,
        ]
    }));
    let heads = [
        "FROM",
        "TO",
        "RATE",
        "SPREAD",
        "SOURCE",
        "AGE",
        "VALID UNTIL",
    ];
    output::table(&heads, table)?;
    if let Some(failure) = feed["failure"].as_str() {
        args.output.note(&format!("no new prices: {failure}"));
    }
    Ok(())
}

async fn rate_confirm(args: &RateConfirmArgs) -> Result<(), Failure> {
    let path = format!("/v1/rates/feed/confirm?code={}", encoded(&args.code));
    let client = connect(&args.node)?;
    let _: Value = client.post(&path, &Value::Null).await?;
    let confirmed = json!({"confirmed": args.code});
    let note = format!("the price of {} is in force", args.code);
    args.node.output.done(&confirmed, &note)
}

/// How long ago an instant was.
fn age_of(instant: &Value) -> String {
    let instant = instant
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    instant.map_or_else(String::new, |instant| {
        seconds(jiff::Timestamp::now().as_second() - instant.as_second())
    })
}

fn seconds(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

async fn rate_set(args: &RateSetArgs) -> Result<(), Failure> {
    let body = json!({
        "from": args.from,
        "to": args.to,
        "rate": args.rate,
        "spread": args.spread,
        "valid_until": args.valid_until,
    });
    let rate = connect(&args.node)?.put("/v1/rates", &body).await?;
    let note = format!("1 {} is worth {} {}", args.from, args.rate, args.to);
    args.node.output.done(&rate, &note)
}

async fn rate_delete(args: &RateDeleteArgs) -> Result<(), Failure> {
    let (from, to) = (&args.from, &args.to);
    let path = format!("/v1/rates?from={}&to={}", encoded(from), encoded(to));
    connect(&args.node)?.delete(&path).await?;
    let deleted = json!({"deleted": {"from": from, "to": to}});
    args.node
        .output
        .done(&deleted, &format!("rate {from}/{to} deleted"))
}

fn prefix(argument: &str) -> &str {
    if argument == DEFAULT { "" } else { argument }
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().into_iter().flatten().map(row).collect()
}
