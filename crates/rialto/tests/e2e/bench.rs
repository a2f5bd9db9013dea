//! `rialto bench`: every protocol, through a node and straight, and mistakes that are explained.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Node, wait_for};

/// `rialto bench serve`, until it is dropped.
struct Serve {
    process: Child,
    address: SocketAddr,
}

impl Serve {
    fn start(extra: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_rialto"))
            .args(["bench", "serve", "--listen", "127.0.0.1:0", "--json"])
            .arg("--until-stdin-closes")
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        let address = listening["listen"].as_str().unwrap().parse().unwrap();
        Self { process, address }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(url: &str, extra: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rialto"))
        .args(["bench", "run", url, "--json"])
        .args(extra)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {said}"))
}

#[test]
fn every_protocol_is_answered_straight_by_the_fulfilling_peer() {
    let serve = Serve::start(&[]);
    let address = serve.address;
    for url in [
        format!("http://{address}/ilp"),
        format!("h2c://{address}/ilp"),
        format!("btp+ws://{address}/"),
    ] {
        for extra in [
            &["--packets", "500", "--in-flight", "7", "--connections", "2"][..],
            &[
                "--packets",
                "200",
                "--rate",
                "100000",
                "--arrivals",
                "poisson",
                "--data",
                "32",
            ],
        ] {
            let output = run(&url, extra);
            let report = report(&output);
            assert!(output.status.success(), "{report}");
            let count: u64 = extra[1].parse().unwrap();
            assert_eq!(report["fulfilled"], count, "{report}");
            assert_eq!(report["failed"], 0, "{report}");
            assert_eq!(report["unsent"], 0, "{report}");
            assert!(
                report["latency_us"]["p99"].as_u64().unwrap() > 0,
                "{report}"
            );
        }
    }
}

#[test]
fn a_node_is_measured_over_http_and_btp_and_its_books_agree() {
    let serve = Serve::start(&[]);
    let node = Node::start("hub", "test.bench", "");
    let limits = json!({"balance_min": "-1000000"});
    for (name, link) in [
        ("load", Value::Null),
        (
            "sink",
            json!({"url": format!("http://{}/ilp", serve.address), "token": "any"}),
        ),
    ] {
        let mut account = json!({
            "name": name, "relation": "child", "asset_code": "USD", "asset_scale": 9,
            "limits": limits, "incoming_token": format!("token-of-the-{name}"),
        });
        if !link.is_null() {
            account["http"] = link;
        }
        node.account(account);
    }
    let token = node.folder().join("load.token");
    std::fs::write(&token, "token-of-the-load").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let token = token.to_str().unwrap();

    for url in [node.ilp_url("load"), node.btp_url("load")] {
        let output = run(
            &url,
            &["--token-file", token, "--packets", "300", "--amount", "2"],
        );
        let report = report(&output);
        assert_eq!(report["fulfilled"], 300, "{report}");
    }
    assert_eq!(node.balance("load"), -1200);
    assert_eq!(node.balance("sink"), 1200);

    // What the node refuses is told by code and message, and moves nothing.
    let output = run(
        &node.btp_url("load"),
        &[
            "--token-file",
            token,
            "--packets",
            "20",
            "--to",
            "test.nowhere.x",
        ],
    );
    let refused = report(&output);
    assert_eq!(output.status.code(), Some(1), "{refused}");
    assert_eq!(refused["rejected"], 20, "{refused}");
    let (said, count) = refused["answers"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    assert!(said.starts_with("F02 "), "{refused}");
    assert_eq!(count, 20);

    // So is a token that is not the account's, over both protocols.
    let output = run(&node.ilp_url("load"), &["--packets", "1"]);
    let failed = report(&output);
    assert_eq!(failed["failed"], 1, "{failed}");
    assert!(failed["answers"].to_string().contains("401"), "{failed}");
    let output = run(&node.btp_url("load"), &["--packets", "1"]);
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("authentication was rejected"), "{said}");
    wait_for("nothing in flight", || {
        (node.balance("load") == -1200).then_some(())
    });
    node.assert_books_add_up();
}

#[test]
fn a_refusing_peer_and_a_missing_one_are_told_apart() {
    let serve = Serve::start(&["--reject"]);
    let url = format!("http://{}/ilp", serve.address);
    let output = run(&url, &["--packets", "5"]);
    let report = report(&output);
    assert_eq!(report["rejected"], 5, "{report}");
    assert_eq!(report["answers"]["F99 as asked for"], 5, "{report}");
    drop(serve);

    for url in [
        url.clone(),
        url.replace("http:", "btp+ws:"),
        url.replace("http:", "h2c:"),
    ] {
        let output = run(&url, &["--packets", "1"]);
        assert_eq!(output.status.code(), Some(69), "{url}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("cannot connect"), "{url}: {said}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    for (url, extra, words) in [
        ("nonsense", &[][..], "write http://HOST:PORT/PATH"),
        ("http://h/", &["--data", "31"], "31 is not in 32..=32767"),
        ("http://h/", &["--in-flight", "0"], "0 is not in 1..=100000"),
        ("http://h/", &["--to", "no address"], "no address"),
        ("http://h/", &["--arrivals", "poisson"], "--rate"),
        ("btp+ws://:secret@h/", &[], "--token-file"),
    ] {
        let output = run(url, extra);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{url} {extra:?}: {said}");
        assert!(said.contains(words), "{url} {extra:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}
