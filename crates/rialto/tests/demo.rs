//! The demo: real processes, real money in made-up currencies, nothing left behind.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

/// The demo with a folder for its temporary files that nobody else uses.
fn demo(temporary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
    command.arg("demo").args(arguments).env("TMPDIR", temporary);
    command
}

fn run(arguments: &[&str]) -> Output {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), arguments).output().unwrap();
    assert_nothing_left(temporary.path());
    output
}

fn report(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// No file in the folder, and no process that was started with a path in it.
fn assert_nothing_left(temporary: &Path) {
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
    let path = temporary.to_str().unwrap();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while we look.
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        assert!(!command.contains(path), "{command}");
    }
}

/// Balance of each account by node and account.
fn balances(report: &Value) -> BTreeMap<(String, String), i128> {
    let mut balances = BTreeMap::new();
    for node in report["nodes"].as_array().unwrap() {
        for account in node["accounts"].as_array().unwrap() {
            let names = [&node["name"], &account["name"]].map(|name| name.as_str().unwrap());
            let balance = account["balance"].as_str().unwrap().parse().unwrap();
            balances.insert((names[0].to_owned(), names[1].to_owned()), balance);
        }
    }
    balances
}

/// Every unit is accounted for, on every node and between neighbours.
fn check_books(report: &Value) {
    for node in report["nodes"].as_array().unwrap() {
        let mut sums = BTreeMap::new();
        for account in node["accounts"].as_array().unwrap() {
            let asset = (
                account["asset_code"].to_string(),
                account["asset_scale"].to_string(),
            );
            let balance: i128 = account["balance"].as_str().unwrap().parse().unwrap();
            *sums.entry(asset).or_insert(0) += balance;
        }
        assert!(sums.values().all(|sum| *sum == 0), "{sums:?} on {node}");
    }
    let balances = balances(report);
    let at = |node: &str, account: &str| balances[&(node.to_owned(), account.to_owned())];
    for (one, other) in [("alice", "hub"), ("hub", "bob")] {
        assert_eq!(at(one, other), -at(other, one), "{one} and {other} agree");
    }
    let units = |field: &str| {
        report[field]["amount"]
            .as_str()
            .unwrap()
            .parse::<i128>()
            .unwrap()
    };
    assert_eq!(at("alice", "alice"), -units("sent"));
    assert_eq!(at("bob", "bob"), units("delivered"));
}

#[test]
fn one_dollar_is_two_euros() {
    let report = report(&["--json"]);
    assert_eq!(
        report["sent"],
        json!({"amount": "1000000000", "asset_code": "USD", "asset_scale": 9})
    );
    assert_eq!(
        report["delivered"],
        json!({"amount": "2000000", "asset_code": "EUR", "asset_scale": 6})
    );
    assert!(report["elapsed_ms"].is_u64());
    let addresses = report["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| &node["ilp_address"]);
    assert_eq!(
        addresses.collect::<Vec<_>>(),
        ["test.hub.alice", "test.hub", "test.hub.bob"]
    );
    check_books(&report);
}

#[test]
fn small_packets_add_up() {
    let report = report(&["--json", "--amount", "200999", "--packet-max", "1000"]);
    assert_eq!(report["sent"]["amount"], "200999");
    // 200 packets of 1,000 are 2 each; the last 999 are 1.998, rounded down.
    assert_eq!(report["delivered"]["amount"], "401");
    assert_eq!(report["packets"]["fulfilled"], 201);
    check_books(&report);
}

#[test]
fn a_delay_delays_but_loses_nothing() {
    let report = report(&[
        "--json",
        "--amount",
        "200000",
        "--packet-max",
        "1000",
        "--delay-ms",
        "10",
    ]);
    assert_eq!(report["delivered"]["amount"], "400");
    assert!(report["elapsed_ms"].as_u64().unwrap() >= 20);
    check_books(&report);
}

#[test]
fn people_read_who_owes_whom() {
    let output = run(&["--amount", "1000000", "--quiet"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "left alice   0.001 USD",
        "reached bob  0.002 EUR",
        "rate         1 USD = 2.00 EUR",
        "  we owe bob 0.002 EUR",
        "  alice owes us 0.001 USD, free 0.009",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
    }
    assert!(output.stderr.is_empty());
}

#[test]
fn an_amount_that_arrives_as_nothing_is_an_error() {
    let output = run(&["--amount", "499"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("payment 1 failed"), "{said}");
}

fn interrupt(child: &Child) {
    let killed = Command::new("kill")
        .arg("-INT")
        .arg(child.id().to_string())
        .status();
    assert!(killed.unwrap().success());
}

#[test]
fn ctrl_c_ends_a_payment_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    // A thousand seconds at the very least.
    let mut child = demo(
        temporary.path(),
        &["--amount", "1000000000000", "--packet-max", "1000"],
    )
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("three nodes are up"), "{line}");
    interrupt(&child);
    said.read_to_string(&mut line).unwrap();
    assert!(line.ends_with("rialto: interrupted\n"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_nothing_left(temporary.path());
}

#[test]
fn nodes_that_are_kept_can_be_spoken_to_until_ctrl_c() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = demo(temporary.path(), &["--keep", "--amount", "1000000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || shown.next().unwrap().unwrap();
    while !next().contains("stay up until Ctrl-C") {}
    let status = loop {
        if let Some((_, command)) = next().split_once("try               rialto ") {
            break command.to_owned();
        }
    };
    let status = Command::new(env!("CARGO_BIN_EXE_rialto"))
        .args(status.split(' '))
        .arg("--json")
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["name"], "alice");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_nothing_left(temporary.path());
}
