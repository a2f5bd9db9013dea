//! The books of a data folder, read without its node.

use std::path::Path;

use rialto_node::inspect::{self, InspectError, Inspection, journal_folder};
use serde_json::{Value, json};

use crate::{
    failure::{Exit, Failure},
    output::{self, Output},
};

/// Prints what is in a data folder or a backup. Sound books end well, damaged ones with exit code 1.
pub(crate) fn check(folder: &Path, output: Output) -> Result<(), Failure> {
    let folder = journal_folder(folder);
    let found = read(&folder)?;
    if output.json {
        output::json(&to_json(&folder, &found))?;
    } else {
        print(&found)?;
    }
    if let Some(torn) = &found.torn {
        output.note(&format!(
            "unfinished end: {} bytes from byte {} of {} on ({}); a running node may be writing \
             them just now, otherwise the next start drops them",
            torn.bytes,
            torn.offset,
            torn.path.display(),
            torn.reason
        ));
    }
    sound(&found)
}

pub(crate) fn read(folder: &Path) -> Result<Inspection, Failure> {
    inspect::inspect(folder).map_err(|error| failure(&error))
}

fn failure(error: &InspectError) -> Failure {
    let exit = match error.exit_code() {
        78 => Exit::Config,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

/// Refuses books that a node would not start with, or that do not add up.
pub(crate) fn sound(found: &Inspection) -> Result<(), Failure> {
    if let Some(damage) = &found.damage {
        return Err(Failure::failed(&damage.message));
    }
    match found.books.assets.iter().find(|line| line.sum() != 0) {
        Some(line) => Err(Failure::failed(format!(
            "the books do not add up: {} is off by {} units",
            line.asset,
            line.sum()
        ))),
        None => Ok(()),
    }
}

fn print(found: &Inspection) -> Result<(), Failure> {
    let books = &found.books;
    let accounts = books.accounts.iter().map(|account| {
        let asset = &account.asset;
        vec![
            account.name.clone(),
            asset.to_string(),
            asset.decimal(account.balance),
        ]
    });
    output::table(&["account", "asset", "balance"], accounts.collect())?;
    output::line("")?;
    let assets = books.assets.iter().map(|line| {
        let amounts = [line.accounts, line.position, line.settled, line.sum()];
        let amounts = amounts.map(|amount| line.asset.decimal(amount));
        [vec![line.asset.to_string()], amounts.to_vec()].concat()
    });
    output::table(
        &["asset", "accounts", "node", "settled", "sum"],
        assets.collect(),
    )?;
    output::line("")?;
    if !books.channels.is_empty() {
        let channels = books.channels.iter().map(|channel| {
            vec![
                channel.id.to_string(),
                channel.account.clone().unwrap_or_default(),
                channel.state.to_owned(),
                channel.asset.to_string(),
                channel.asset.decimal(channel.owed),
            ]
        });
        let header = ["channel", "account", "state", "asset", "we owe"];
        output::table(&header, channels.collect())?;
        output::line("")?;
    }
    let checkpoint = books
        .checkpoint
        .map_or_else(String::new, |at| format!(", checkpoint after {at}"));
    let how = if found.is_sound() { "sound" } else { "damaged" };
    output::line(&format!("last record {}{checkpoint}: {how}", books.last))
}

/// Amounts as text: they may be larger than what JSON numbers keep exactly.
pub(crate) fn to_json(folder: &Path, found: &Inspection) -> Value {
    let books = &found.books;
    let accounts = books.accounts.iter().map(|account| {
        json!({
            "account": account.name,
            "asset_code": account.asset.code(),
            "asset_scale": account.asset.scale(),
            "balance": account.balance.to_string(),
        })
    });
    let assets = books.assets.iter().map(|line| {
        json!({
            "asset_code": line.asset.code(),
            "asset_scale": line.asset.scale(),
            "accounts": line.accounts.to_string(),
            "node": line.position.to_string(),
            "settled": line.settled.to_string(),
            "sum": line.sum().to_string(),
        })
    });
    let channels = books.channels.iter().map(|channel| {
        json!({
            "channel": channel.id,
            "account": channel.account,
            "state": channel.state,
            "asset_code": channel.asset.code(),
            "asset_scale": channel.asset.scale(),
            "owed": channel.owed.to_string(),
        })
    });
    let torn = found.torn.as_ref().map(|torn| {
        json!({
            "file": torn.path.display().to_string(),
            "offset": torn.offset,
            "bytes": torn.bytes,
            "reason": torn.reason,
        })
    });
    let damage = found.damage.as_ref().map(|damage| {
        json!({
            "file": damage.path.display().to_string(),
            "offset": damage.offset,
            "message": damage.message,
        })
    });
    json!({
        "folder": folder.display().to_string(),
        "sound": found.is_sound(),
        "last_record": books.last,
        "checkpoint": books.checkpoint,
        "accounts": accounts.collect::<Vec<_>>(),
        "assets": assets.collect::<Vec<_>>(),
        "channels": channels.collect::<Vec<_>>(),
        "unfinished_end": torn,
        "damage": damage,
    })
}
