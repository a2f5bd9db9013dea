//! `run`, `check`, `config show` and `status`.

use std::{
    io::{self, Read},
    process, thread,
    time::Duration,
};

use hyper::Uri;
use rialto_node::{
    RunError,
    config::{self, Loaded},
};
use serde_json::{Map, Value, json};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    args::{CheckArgs, ConfigArgs, ConfigShowArgs, NodeArgs, RunArgs},
    block_on,
    connect::connect,
    failure::{Exit, Failure},
    journal,
    output::{self, Output},
};

/// How long `check --online` waits for a connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let loaded = load(&args.config)?;
    if args.until_stdin_closes {
        thread::spawn(exit_when_stdin_closes);
    }
    rialto_node::run(loaded, &args.config.set).map_err(failure)
}

/// The process at the other end is gone, or wants us gone. A node may stop at any instant: what it
/// answered for is on disk.
fn exit_when_stdin_closes() {
    let mut byte = [0];
    while !matches!(io::stdin().read(&mut byte), Ok(0) | Err(_)) {}
    process::exit(0);
}

pub(crate) fn check(args: &CheckArgs) -> Result<(), Failure> {
    if let Some(folder) = &args.journal {
        let output = Output {
            json: args.json,
            quiet: args.quiet,
        };
        return journal::check(folder, output);
    }
    let loaded = load(&args.config)?;
    rialto_node::check(&loaded).map_err(failure)?;
    let output = Output {
        json: false,
        quiet: args.quiet,
    };
    output.note(&format!("{} is good", args.config.config.display()));
    if args.online {
        return block_on(check_online(args));
    }
    Ok(())
}

/// Goes over the running node's accounts. The token is read from the configuration's file.
async fn check_online(args: &CheckArgs) -> Result<(), Failure> {
    let client = connect(&NodeArgs {
        url: None,
        token_file: None,
        config: Some(args.config.config.clone()),
        output: Output {
            json: false,
            quiet: args.quiet,
        },
    })?;
    let mut unreachable = 0;
    for account in client.list("/v1/accounts", "accounts").await? {
        let text = |key: &str| account[key].as_str().unwrap_or_default();
        let found = match text("link") {
            "local" => continue,
            "up" => Ok("connected over BTP".to_owned()),
            "http" => reach(account["http"]["url"].as_str().unwrap_or_default()).await,
            _ => Err("no BTP session".to_owned()),
        };
        unreachable += u32::from(found.is_err());
        let found = found.unwrap_or_else(|problem| problem);
        output::line(&format!("{}: {found}", text("name")))?;
    }
    match unreachable {
        0 => Ok(()),
        1 => Err(Failure::new(
            Exit::Unavailable,
            "one account cannot be reached",
        )),
        many => {
            let message = format!("{many} accounts cannot be reached");
            Err(Failure::new(Exit::Unavailable, message))
        }
    }
}

/// Whether something accepts connections where a URL points. Nothing is sent: what a peer says to a
/// packet shows with `rialto ping`.
async fn reach(url: &str) -> Result<String, String> {
    let address = url.parse::<Uri>().ok();
    let address = address.as_ref().and_then(|url| Some((url.host()?, url)));
    let Some((host, parsed)) = address else {
        return Err(format!("{url} is not a URL"));
    };
    let usual = if parsed.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let port = parsed.port_u16().unwrap_or(usual);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match timeout(REACH_TIMEOUT, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(format!("{url} accepts connections")),
        Ok(Err(error)) => Err(format!("cannot connect to {url}: {error}")),
        Err(_) => Err(format!("{url} does not accept a connection within 3 s")),
    }
}

pub(crate) fn config_show(args: &ConfigShowArgs) -> Result<(), Failure> {
    let loaded = load(&args.config)?;
    if args.json {
        let entry = |value: &String, origin: &config::Origin| {
            if args.origin {
                json!({"value": value, "origin": origin.to_string()})
            } else {
                json!(value)
            }
        };
        let values = loaded.origins.iter();
        let values: Map<String, Value> = values
            .map(|(key, (value, origin))| (key.clone(), entry(value, origin)))
            .collect();
        return output::json(&values);
    }
    for (key, (value, origin)) in &loaded.origins {
        if args.origin {
            output::line(&format!("{key} = {value}  ({origin})"))?;
        } else {
            output::line(&format!("{key} = {value}"))?;
        }
    }
    Ok(())
}

pub(crate) async fn status(args: &NodeArgs) -> Result<(), Failure> {
    let status: Value = connect(args)?.get("/v1/status").await?;
    if args.output.json {
        return output::json(&status);
    }
    output::fields(&status)
}

pub(crate) fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    config::load(&args.config, &args.set)
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))
}

fn failure(error: RunError) -> Failure {
    let exit = match error.exit_code() {
        78 => Exit::Config,
        69 => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}
