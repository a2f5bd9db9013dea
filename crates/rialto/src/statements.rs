//! `statement` and `reconcile`.

use std::{fs, path::Path};

use rialto_connector::statement::{self, StatementText, Statements};
use rialto_ledger::{EntryKind, Means};
use serde_json::{Value, json};

use crate::{
    accounts::{path, text},
    args::{ReconcileArgs, StatementArgs, StatementVerifyArgs},
    connect::connect,
    failure::{Exit, Failure},
    output,
};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

pub(crate) async fn close(args: &StatementArgs) -> Result<(), Failure> {
    let path = format!("{}/statements", path(&args.account));
    let made: Value = connect(&args.node)?.post(&path, &Value::Null).await?;
    print(args, &[made])
}

pub(crate) async fn show(args: &StatementArgs) -> Result<(), Failure> {
    let path = format!("{}/statements", path(&args.account));
    let mut made = connect(&args.node)?.list(&path, "statements").await?;
    made.reverse();
    print(args, &made)
}

pub(crate) fn verify(args: &StatementVerifyArgs) -> Result<(), Failure> {
    let statements = read(&args.file)?;
    let texts = statements.texts();
    let (Some(first), Some(last)) = (texts.first(), texts.last()) else {
        return Err(Failure::new(
            Exit::Internal,
            "a checked file has statements",
        ));
    };
    if args.output.json {
        return output::json(&json!({
            "account": last.account, "key": last.key.to_string(), "asset": last.asset.to_string(),
            "first": first.number, "last": last.number,
            "opening": first.opening.to_string(), "closing": last.closing.to_string(),
        }));
    }
    let (asset, code) = (&last.asset, last.asset.code());
    output::line(&format!(
        "{}: statements {} to {} are good: {} {code} at the beginning, {} {code} at the end, signed by {}",
        last.account,
        first.number,
        last.number,
        asset.decimal(first.opening),
        asset.decimal(last.closing),
        last.key
    ))
}

pub(crate) fn reconcile(args: &ReconcileArgs) -> Result<(), Failure> {
    let (mine, theirs) = (read(&args.mine)?, read(&args.theirs)?);
    let difference =
        statement::reconcile(&mine, &theirs).map_err(|error| Failure::failed(error.to_string()))?;
    let Some(difference) = difference else {
        if args.output.json {
            return output::json(&json!({"difference": null}));
        }
        return output::line("both sides agree to the unit");
    };
    if args.output.json {
        output::json(&json!({"difference": {
            "what": difference.what,
            "mine": difference.mine.to_string(), "theirs": difference.theirs.to_string(),
        }}))?;
    }
    Err(Failure::failed(difference.to_string()))
}

fn read(path: &Path) -> Result<Statements, Failure> {
    let blame = |why: String| Failure::failed(format!("{}: {why}", path.display()));
    let length = fs::metadata(path)
        .map_err(|error| blame(error.to_string()))?
        .len();
    if length > FILE_BYTES_MAX {
        return Err(blame(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    let file = fs::read_to_string(path).map_err(|error| blame(error.to_string()))?;
    Statements::check(&file).map_err(|error| blame(error.to_string()))
}

/// Statements of the API as lines of a file, or as a table.
fn print(args: &StatementArgs, made: &[Value]) -> Result<(), Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Internal,
            format!("the node's statement cannot be read: {error}"),
        )
    };
    let mut lines = String::new();
    for made in made {
        let (text, signature) = (text(&made["text"]), text(&made["signature"]));
        lines.push_str(&statement::line(&text, &signature));
        lines.push('\n');
    }
    if !args.csv {
        return output::bytes(lines.as_bytes());
    }
    if made.is_empty() {
        return Ok(());
    }
    let statements = Statements::check(&lines).map_err(|error| broken(&error))?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = [
        "statement",
        "kind",
        "means",
        "reference",
        "at_ms",
        "amount",
        "asset",
    ];
    writer
        .write_record(header)
        .map_err(|error| broken(&error))?;
    for statement in statements.texts() {
        for row in rows(statement) {
            writer.write_record(row).map_err(|error| broken(&error))?;
        }
    }
    let table = writer.into_inner().map_err(|error| broken(&error))?;
    output::bytes(&table)
}

/// Each row but the last adds to the balance; the last is the sum of all.
fn rows(statement: &StatementText) -> Vec<[String; 7]> {
    let asset = statement.asset.to_string();
    let row = |kind: &str, means: &str, reference: &str, at_ms: Option<i64>, amount: String| {
        let at_ms = at_ms.map_or(String::new(), |at_ms| at_ms.to_string());
        let number = statement.number.to_string();
        [
            number,
            kind.to_owned(),
            means.to_owned(),
            reference.to_owned(),
            at_ms,
            amount,
            asset.clone(),
        ]
    };
    let packets_in = match statement.packets_in {
        0 => "0".to_owned(),
        amount => format!("-{amount}"),
    };
    let mut rows = vec![
        row(
            "opening",
            "",
            "",
            statement.from_ms,
            statement.opening.to_string(),
        ),
        row("packets_in", "", "", None, packets_in),
        row(
            "packets_out",
            "",
            "",
            None,
            statement.packets_out.to_string(),
        ),
    ];
    for entry in &statement.entries {
        let kind = match entry.kind {
            EntryKind::SettledOut => "settled_out",
            EntryKind::SettledIn => "settled_in",
            EntryKind::SettlementCancelled => "settlement_cancelled",
            EntryKind::Adjusted => "adjusted",
        };
        let means = entry.means.map_or("", Means::word);
        let amount = entry.amount.to_string();
        rows.push(row(kind, means, &entry.reference, entry.at_ms, amount));
    }
    if statement.more.count > 0 {
        let reference = format!("{} entries", statement.more.count);
        rows.push(row(
            "more",
            "",
            &reference,
            None,
            statement.more.amount.to_string(),
        ));
    }
    let closing = statement.closing.to_string();
    rows.push(row("closing", "", "", Some(statement.to_ms), closing));
    rows
}
