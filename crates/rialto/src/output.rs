//! What is printed: data on stdout, everything else on stderr.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Exit, Failure};

/// How a command prints.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Output {
    /// Print JSON, for scripts; amounts are whole numbers of the asset's smallest unit
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing on stderr but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Output {
    /// A remark for people.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            // Nobody is left to hear about a stderr that is closed.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Something was done: JSON shows the thing itself, people read a remark.
    pub(crate) fn done(self, value: &Value, text: &str) -> Result<(), Failure> {
        if self.json {
            return json(value);
        }
        self.note(text);
        Ok(())
    }
}

/// One JSON value, on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot write JSON: {error}")))?;
    line(&text)
}

/// One line of data.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    written(writeln!(io::stdout(), "{text}"))
}

/// Bytes of data.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    written(io::stdout().write_all(bytes))
}

/// A reader that has seen enough, such as `head`, is no failure.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Rows under a header: with borders and as wide as the terminal, or plain where it is none.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut table = Table::new();
    if io::stdout().is_terminal() {
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header.iter().copied()).add_rows(rows);
    line(&table.trim_fmt())
}

/// Every value of a JSON object beside its path, `limits.balance_min`.
pub(crate) fn fields(value: &Value) -> Result<(), Failure> {
    let mut rows = Vec::new();
    collect_fields(String::new(), value, &mut rows);
    let width = rows.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    for (path, value) in rows {
        line(format!("{path:width$}  {value}").trim_end())?;
    }
    Ok(())
}

fn collect_fields(path: String, value: &Value, rows: &mut Vec<(String, String)>) {
    let below = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                collect_fields(below(key), value, rows);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                collect_fields(below(&index.to_string()), value, rows);
            }
        }
        Value::String(text) => rows.push((path, text.clone())),
        Value::Null => rows.push((path, "-".to_owned())),
        Value::Bool(_) | Value::Number(_) => rows.push((path, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_values_are_named_by_their_path() {
        let value = json!({"name": "bob", "limits": {"balance_min": "-5"}, "tokens": [{"id": 1}]});
        let mut rows = Vec::new();
        collect_fields(String::new(), &value, &mut rows);
        let rows: Vec<_> = rows.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(rows, ["limits.balance_min=-5", "name=bob", "tokens.0.id=1"]);
    }
}
