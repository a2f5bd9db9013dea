//! Settlements by hand with real nodes and the real command line: proposed by one operator, approved by
//! another, with a crash between, and the same in the statements of both sides.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::harness::{ADMIN_TOKEN, Node};

const ANN: &str = "rialto_token_of_ann_who_records";
const BEN: &str = "rialto_token_of_ben_who_approves";

/// SHA-256 of the tokens.
const TOKENS: &str = r#"
[settlement]
second_approver = true

[[admin.tokens]]
name = "ann"
hash = "49686e11230d81ef7ac82d7165b47ecc234af0e3cb734c73823d87888c1851ce"
scopes = ["read", "pay"]

[[admin.tokens]]
name = "ben"
hash = "a55200fe8270f4824c9d74636d943c01fc27298aadec2521e07ef4aa727ba592"
scopes = ["read", "pay"]
"#;

fn rialto(node: &Node, token: &str, arguments: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_rialto"))
        .args(arguments)
        .args(["--url", &format!("http://{}", node.admin)])
        .env_remove("RIALTO_CONFIG")
        .env("RIALTO_TOKEN", token)
        .output();
    program.unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", told(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn record(node: &Node, token: &str, direction: &str, amount: &str, reference: &str) -> Value {
    let arguments = [
        "settlement",
        "record",
        "peer",
        amount,
        "--direction",
        direction,
        "--reference",
        reference,
        "--json",
    ];
    json(&rialto(node, token, &arguments))
}

fn peer(node: &Node, address: &str) {
    node.account(json!({
        "name": "peer", "relation": "peer", "asset_code": "USD", "asset_scale": 2,
        "ilp_address": address, "limits": {"balance_min": "-30000"},
    }));
}

#[test]
fn a_transfer_is_proposed_approved_after_a_crash_and_agrees_on_both_sides() {
    let mut mine = Node::start("mine", "test.mine", TOKENS);
    let theirs = Node::start("theirs", "test.theirs", "");
    peer(&mine, "test.theirs");
    peer(&theirs, "test.mine");

    let proposed = record(&mine, ANN, "paid", "250.00", "SEPA 4711");
    assert_eq!(
        (&proposed["state"], &proposed["recorded_by"]),
        (&json!("proposed"), &json!("ann"))
    );
    assert_eq!(mine.balance("peer"), 0);
    mine.kill();
    mine.restart();
    let listed = ["settlement", "list", "--by-hand", "--json"];
    let listed = json(&rialto(&mine, BEN, &listed));
    assert_eq!(listed["hand_settlements"], json!([proposed]));

    let id = proposed["id"].as_str().unwrap();
    let approve = ["settlement", "approve", id, "--idempotency-key", "once"];
    let own = rialto(&mine, ANN, &approve);
    assert!(told(&own).contains("another operator"), "{}", told(&own));
    assert_eq!(mine.balance("peer"), 0);
    let approved = rialto(&mine, BEN, &approve);
    assert!(approved.status.success(), "{}", told(&approved));
    mine.kill();
    mine.restart();
    // Ben saw no answer, and asks again.
    let approved = rialto(&mine, BEN, &approve);
    assert!(approved.status.success(), "{}", told(&approved));
    assert_eq!(mine.balance("peer"), -25_000);
    mine.assert_books_add_up();
    let again = record(&mine, BEN, "paid", "250.00", "SEPA 4711");
    assert_eq!(
        (&again["id"], &again["state"]),
        (&proposed["id"], &json!("settled"))
    );
    assert_eq!(again["decided_by"], "ben");
    let wrong = record(&mine, BEN, "paid", "1.00", "SEPA 4712");
    let wrong = wrong["id"].as_str().unwrap();
    let declined = rialto(&mine, ANN, &["settlement", "decline", wrong]);
    assert!(declined.status.success(), "{}", told(&declined));
    let decline = rialto(&mine, ANN, &["settlement", "decline", wrong]);
    assert!(told(&decline).contains("declined already"));

    // Theirs asks for no second operator.
    let received = record(&theirs, ADMIN_TOKEN, "received", "250.00", "SEPA 4711");
    assert_eq!(received["state"], "settled");
    let folder = tempfile::tempdir().unwrap();
    let files = ["mine.jsonl", "theirs.jsonl"].map(|name| folder.path().join(name));
    let close = || {
        for (node, file) in [&mine, &theirs].into_iter().zip(&files) {
            let closed = rialto(node, ADMIN_TOKEN, &["statement", "close", "peer"]);
            let before = fs::read_to_string(file).unwrap_or_default();
            fs::write(file, before + &String::from_utf8(closed.stdout).unwrap()).unwrap();
        }
        let paths = files.each_ref().map(|file| file.to_str().unwrap());
        let program = Command::new(env!("CARGO_BIN_EXE_rialto"))
            .args(["reconcile", paths[0], paths[1]])
            .output();
        told(&program.unwrap())
    };
    assert_eq!(close(), "");
    let csv = rialto(&mine, ADMIN_TOKEN, &["statement", "show", "peer", "--csv"]);
    let csv = String::from_utf8(csv.stdout).unwrap();
    assert!(csv.contains("\n1,settled_out,hand,SEPA 4711,"), "{csv}");
    record(&theirs, ADMIN_TOKEN, "received", "3.00", "SEPA 9");
    assert_eq!(
        close(),
        "rialto: settlement received there by hand, 'SEPA 9': 0 here, -300 there: 300 units differ\n"
    );
}

#[test]
fn two_operators_need_two_tokens() {
    let alone = "[settlement]\nsecond_approver = true\n";
    let node = Node::prepare("alone", "test.alone", alone);
    let refused = node.command().output().unwrap();
    assert_eq!(refused.status.code(), Some(78));
    assert!(
        told(&refused).contains("settlement.second_approver"),
        "{}",
        told(&refused)
    );
}
