//! `route` and `rate`.

use rialto_packet::money::Asset;
use serde_json::{Value, json};

use crate::{
    accounts::{self, text},
    args::{
        NodeArgs, RateCommand, RateConfirmArgs, RateDeleteArgs, RateSetArgs, RouteCommand,
        RouteDeleteArgs, RouteExplainArgs, RouteListArgs, RouteSetArgs,
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
        RouteCommand::Explain(args) => route_explain(args).await,
        RouteCommand::Changes(args) => route_changes(args).await,
        RouteCommand::Peers(args) => route_peers(args).await,
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

async fn route_list(args: &RouteListArgs) -> Result<(), Failure> {
    let path = format!("/v1/routes?all={}", args.all);
    let mut routes = connect(&args.node)?.list(&path, "routes").await?;
    routes.sort_by_key(|route| text(&route["prefix"]));
    if args.node.output.json {
        return output::json(&json!({"routes": routes}));
    }
    let row = |route: &Value| {
        let state = match (&route["active"], &route["weight"]) {
            (Value::Bool(false), _) => "stands by".to_owned(),
            (_, Value::Number(weight)) if weight.as_u64() != Some(1) => format!("weight {weight}"),
            _ => "active".to_owned(),
        };
        vec![
            shown(&route["prefix"]),
            text(&route["account"]),
            text(&route["source"]),
            state,
            path_of(route),
        ]
    };
    let header = ["PREFIX", "ACCOUNT", "SOURCE", "STATE", "PATH"];
    output::table(&header, routes.iter().map(row).collect())
}

async fn route_explain(args: &RouteExplainArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let mut path = format!("/v1/routes/explain?destination={}", encoded(&args.address));
    if let Some(from) = &args.from {
        path.push_str(&format!("&from={}", encoded(from)));
        if let Some(amount) = &args.amount {
            let account: Value = client.get(&accounts::path(from)).await?;
            let asset = accounts::asset_of(&account)?;
            let units = accounts::units("AMOUNT", &asset, amount)?;
            path.push_str(&format!("&amount={units}"));
        }
    }
    let answer: Value = client.get(&path).await?;
    if args.node.output.json {
        return output::json(&answer);
    }
    let routes = answer["routes"].as_array().cloned().unwrap_or_default();
    if routes.is_empty() {
        return output::line(&format!("no route leads to {}", args.address));
    }
    let row = |route: &Value| {
        let why = match route["lost"].as_str() {
            None => "taken".to_owned(),
            Some(lost) => lost.to_owned(),
        };
        vec![
            shown(&route["prefix"]),
            text(&route["account"]),
            text(&route["source"]),
            path_of(route),
            why,
        ]
    };
    let header = ["PREFIX", "ACCOUNT", "SOURCE", "PATH", "WHY"];
    output::table(&header, routes.iter().map(row).collect())?;
    let conversion = &answer["conversion"];
    if conversion.is_null() {
        return Ok(());
    }
    if !conversion["reason"].is_null() {
        return output::line(&format!(
            "nothing can be converted: {}",
            text(&conversion["reason"])
        ));
    }
    let (from, to) = (
        text(&conversion["from_asset_code"]),
        text(&conversion["to_asset_code"]),
    );
    output::line(&format!(
        "rate      1 {from} = {} {to}",
        text(&conversion["rate"])
    ))?;
    output::line(&format!("spread    {}", text(&conversion["spread"])))?;
    if !conversion["account_spread"].is_null() {
        output::line(&format!(
            "          and {} of the account",
            text(&conversion["account_spread"])
        ))?;
    }
    if let Some(units) = conversion["amount_out"]
        .as_str()
        .and_then(|units| units.parse().ok())
    {
        let scale = conversion["to_asset_scale"]
            .as_u64()
            .and_then(|scale| scale.try_into().ok());
        let asset = Asset::new(&to, scale.unwrap_or(0));
        let amount = asset.map_or_else(
            |_| text(&conversion["amount_out"]),
            |asset| asset.decimal(units),
        );
        output::line(&format!("delivers  {amount} {to} to the next hop"))?;
    }
    Ok(())
}

async fn route_changes(args: &NodeArgs) -> Result<(), Failure> {
    let changes: Value = connect(args)?.get("/v1/routes/changes").await?;
    if args.output.json {
        return output::json(&changes);
    }
    let end = |end: &Value| match end.is_null() {
        true => "none".to_owned(),
        false => format!("{} ({})", text(&end["account"]), text(&end["source"])),
    };
    let row = |change: &Value| {
        vec![
            text(&change["at"]),
            shown(&change["prefix"]),
            end(&change["before"]),
            end(&change["after"]),
        ]
    };
    let header = ["AT", "PREFIX", "BEFORE", "AFTER"];
    output::table(&header, rows(&changes["changes"], row))
}

async fn route_peers(args: &NodeArgs) -> Result<(), Failure> {
    let peers: Value = connect(args)?.get("/v1/routes/peers").await?;
    if args.output.json {
        return output::json(&peers);
    }
    let row = |peer: &Value| {
        let troubles = peer["troubles"].as_object().into_iter().flatten();
        let troubles: Vec<_> = troubles
            .map(|(word, count)| format!("{word} {count}"))
            .collect();
        let sending = if peer["sending"] == true {
            "told"
        } else {
            "not asked"
        };
        vec![
            text(&peer["account"]),
            text(&peer["receiving"]),
            format!("{} of {}", text(&peer["learnt"]), text(&peer["learnt_max"])),
            sending.to_owned(),
            troubles.join(", "),
        ]
    };
    let header = ["ACCOUNT", "THEIRS", "LEARNT", "OURS", "TROUBLES"];
    output::table(&header, rows(&peers["peers"], row))
}

async fn route_set(args: &RouteSetArgs) -> Result<(), Failure> {
    let mut body = json!({"prefix": prefix(&args.prefix)});
    match &args.accounts[..] {
        [account] if !account.contains('=') => body["account"] = json!(account),
        accounts => {
            let hop = |hop: &String| {
                let (account, weight) = hop.split_once('=').unwrap_or((hop, "1"));
                let weight: u16 = weight.parse().map_err(|_| {
                    Failure::usage(format!("'{hop}': a weight is a number from 0 to 65535"))
                })?;
                Ok(json!({"account": account, "weight": weight}))
            };
            let hops: Result<Vec<_>, Failure> = accounts.iter().map(hop).collect();
            body["hops"] = json!(hops?);
        }
    }
    let route = connect(&args.node)?.put("/v1/routes", &body).await?;
    let note = format!("{} goes to {}", args.prefix, args.accounts.join(", "));
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

/// The empty prefix has no other way to be seen.
fn shown(prefix: &Value) -> String {
    match prefix.as_str() {
        Some("") => DEFAULT.to_owned(),
        Some(_) | None => text(prefix),
    }
}

fn path_of(route: &Value) -> String {
    let path = route["path"].as_array().into_iter().flatten();
    path.map(text).collect::<Vec<_>>().join(" ")
}

fn prefix(argument: &str) -> &str {
    if argument == DEFAULT { "" } else { argument }
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().into_iter().flatten().map(row).collect()
}
