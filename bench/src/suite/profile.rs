//! Where the time goes: the main entries of a flat profile, and system calls per packet. Both need
//! tools that a machine may not have; then the page says so.

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{BTP, DATA_BYTES, Field, HTTP, progress, report::short};
use crate::{
    Result,
    load::Load,
    process::{self, Process},
    shape::{LOAD_CORE, Subject},
};

/// Packets while system calls are counted; tracing makes each call slow.
const TRACED_PACKETS: u64 = 5_000;
/// How long the tools get to attach.
const ATTACH: Duration = Duration::from_millis(700);
/// Entries of the profile that are told.
const ENTRIES: usize = 12;

/// Markdown about HTTP/1.1 and BTP, and what could not be told.
pub(super) fn words(field: &Field<'_>) -> String {
    let mut out = String::new();
    for name in [HTTP, BTP] {
        let Ok(entry) = field.entry(name) else {
            continue;
        };
        progress(&format!("profile: {name}"));
        let _ = writeln!(out, "**{name}**, {} in flight:", entry.in_flight);
        match system_calls(&entry.subject, entry.in_flight, &field.folder) {
            Ok(calls) => {
                let _ = writeln!(out, "{} system calls per packet.", short(calls));
            }
            Err(error) => {
                let _ = writeln!(out, "System calls were not counted: {error}.");
            }
        }
        match entries(
            &entry.subject,
            entry.packets,
            entry.in_flight,
            &field.folder,
        ) {
            Ok(entries) => {
                out.push_str("\n| share | where | |\n|---|---|---|\n");
                for (share, place, symbol) in entries {
                    let _ = writeln!(out, "| {share} | {place} | `{symbol}` |");
                }
            }
            Err(error) => {
                let _ = writeln!(out, "There is no profile: {error}.");
            }
        }
        out.push('\n');
    }
    out
}

fn tool(name: &str) -> Result<std::path::PathBuf> {
    process::find(name).ok_or_else(|| format!("no {name} on the PATH").into())
}

/// Per packet, over all threads.
fn system_calls(subject: &Subject, in_flight: u32, folder: &Path) -> Result<f64> {
    let file = folder.join("strace");
    let mut command = Command::new(tool("strace")?);
    command
        .args([
            "-f",
            "-c",
            "-p",
            &subject.processes[0].id().to_string(),
            "-o",
        ])
        .arg(&file)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let mut strace = Process::spawn(&mut command)?;
    std::thread::sleep(ATTACH);
    let load = Load::run_pinned(
        LOAD_CORE,
        subject,
        TRACED_PACKETS,
        in_flight,
        DATA_BYTES,
        &[],
    );
    let pid = strace.id().to_string();
    Command::new("kill").args(["-INT", &pid]).status()?;
    strace.wait()?;
    load?;
    let text = std::fs::read_to_string(&file)?;
    let total = total_calls(&text).ok_or("strace printed no total")?;
    super::report::quotient(total, TRACED_PACKETS).ok_or_else(|| "no packets".into())
}

/// `100.00    0.1    2   1234    5 total` is the last line of strace's summary.
fn total_calls(summary: &str) -> Option<u64> {
    let line = summary
        .lines()
        .rev()
        .find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Share, file and symbol of the places where most samples fell.
fn entries(
    subject: &Subject,
    packets: u64,
    in_flight: u32,
    folder: &Path,
) -> Result<Vec<(String, String, String)>> {
    let perf = tool("perf")?;
    let file = folder.join("perf.data");
    let mut command = Command::new(&perf);
    command
        .args([
            "record",
            "-q",
            "-F",
            "997",
            "-p",
            &subject.processes[0].id().to_string(),
            "-o",
        ])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut record = Process::spawn(&mut command)?;
    std::thread::sleep(ATTACH);
    let load = Load::run_pinned(LOAD_CORE, subject, packets * 2, in_flight, DATA_BYTES, &[]);
    Command::new("kill")
        .args(["-INT", &record.id().to_string()])
        .status()?;
    record.wait()?;
    load?;
    let output = Command::new(perf)
        .args([
            "report",
            "--stdio",
            "--no-children",
            "--sort",
            "dso,symbol",
            "-i",
        ])
        .arg(&file)
        .stdin(Stdio::null())
        .output()?;
    let found: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(entry)
        .take(ENTRIES)
        .collect();
    match found.is_empty() {
        true => Err("perf took no samples".into()),
        false => Ok(found),
    }
}

/// `    12.34%  rialto   [.] some::function` is one entry.
fn entry(line: &str) -> Option<(String, String, String)> {
    let mut words = line.split_whitespace();
    let share = words.next().filter(|word| word.ends_with('%'))?;
    let place = words.next()?;
    let symbol: Vec<&str> = words
        .filter(|word| !matches!(*word, "[.]" | "[k]" | "-"))
        .collect();
    (!symbol.is_empty()).then(|| (share.to_owned(), place.to_owned(), symbol.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_print() {
        let summary = "% time seconds usecs/call calls errors syscall\n\
                       100.00 0.012 1 999 3 read\n------\n100.00 0.012 1 1234 5 total\n";
        assert_eq!(total_calls(summary), Some(1234));
        assert_eq!(total_calls("strace: no such process"), None);
        assert_eq!(
            entry("    12.34%  [kernel.kallsyms]  [k] tcp_sendmsg   -  -"),
            Some((
                "12.34%".into(),
                "[kernel.kallsyms]".into(),
                "tcp_sendmsg".into()
            ))
        );
        assert_eq!(entry("# Overhead  Shared Object"), None);
        assert_eq!(entry(""), None);
    }
}
