//! `run`, `check`, `config show` and `status`.

use std::{
    io::{self, Read},
    process, thread,
};

use rialto_node::{
    RunError,
    config::{self, Loaded},
};
use serde_json::{Map, Value, json};

use crate::{
    args::{CheckArgs, ConfigArgs, ConfigShowArgs, NodeArgs, RunArgs},
    connect::connect,
    failure::{Exit, Failure},
    journal,
    output::{self, Output},
};

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
    Ok(())
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
