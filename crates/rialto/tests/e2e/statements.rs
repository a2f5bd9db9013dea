//! Statements with real nodes and the real command line: made on both sides, checked and compared
//! without a node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::harness::{ADMIN_TOKEN, Line, Node};

fn rialto(arguments: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_rialto"))
        .args(arguments)
        .env_remove("RIALTO_CONFIG")
        .env("RIALTO_TOKEN", ADMIN_TOKEN)
        .output();
    program.unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Closes a statement and appends it to a file, as an operator would.
fn close(node: &Node, account: &str, file: &Path) -> String {
    let url = format!("http://{}", node.admin);
    let output = rialto(&["statement", "close", account, "--url", &url]);
    assert!(output.status.success(), "{}", told(&output));
    let line = String::from_utf8(output.stdout).unwrap();
    let before = fs::read_to_string(file).unwrap_or_default();
    fs::write(file, before + &line).unwrap();
    line
}

#[test]
fn both_sides_close_verify_and_reconcile() {
    let mut line = Line::start("2", |address| address);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    let (mine, theirs) = (file("hub.jsonl"), file("alice.jsonl"));
    let paths = [&mine, &theirs].map(|path| path.to_str().unwrap().to_owned());
    let paid = line.pay("first", 5_000_000, None);
    assert_eq!(paid["state"], "completed", "{paid}");
    close(&line.hub, "alice", &mine);
    close(&line.alice, "hub", &theirs);

    // The next period begins before a crash and ends after it.
    line.pay("second", 3_000_000, None);
    line.hub.kill();
    line.hub.restart();
    line.wait_connected();
    line.pay("third", 1_000_000, None);
    let last = close(&line.hub, "alice", &mine);
    close(&line.alice, "hub", &theirs);
    let last: Value = serde_json::from_str(&last).unwrap();
    let text = &last["statement"];
    assert_eq!(
        (&text["number"], &text["packets_in"]),
        (&json!(2), &json!("4000000"))
    );
    assert_eq!(
        (&text["opening"], &text["closing"]),
        (&json!("-5000000"), &json!("-9000000"))
    );

    for path in &paths {
        let output = rialto(&["statement", "verify", path]);
        assert!(output.status.success(), "{}", told(&output));
        let words = String::from_utf8(output.stdout).unwrap();
        assert!(words.contains("statements 1 to 2 are good"), "{words}");
    }
    let agreed = rialto(&["reconcile", &paths[0], &paths[1]]);
    assert!(agreed.status.success(), "{}", told(&agreed));

    // One side corrects its books, and the other does not.
    let adjustment = json!({"account": "alice", "amount": "7", "reason": "a unit too many"});
    line.hub.call_once("/v1/adjustments", "adjust", adjustment);
    close(&line.hub, "alice", &mine);
    let differs = rialto(&["reconcile", &paths[0], &paths[1]]);
    assert_eq!(differs.status.code(), Some(1));
    let words = told(&differs);
    assert!(
        words.contains("adjustment here, 'adjust': 7 here, 0 there: 7 units differ"),
        "{words}"
    );

    // What the node remembers is what was printed, also as a table.
    let url = format!("http://{}", line.hub.admin);
    let shown = rialto(&["statement", "show", "alice", "--url", &url]);
    assert_eq!(
        String::from_utf8(shown.stdout).unwrap(),
        fs::read_to_string(&mine).unwrap()
    );
    let table = rialto(&["statement", "show", "alice", "--csv", "--url", &url]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("\n2,packets_in,,,,-4000000,USD/9\n"),
        "{table}"
    );
    assert!(table.contains("\n3,adjusted,,adjust,"), "{table}");

    // A file that was changed is refused by both commands.
    let changed = fs::read_to_string(&mine)
        .unwrap()
        .replacen("4000000", "3000000", 1);
    fs::write(&mine, changed).unwrap();
    for arguments in [
        vec!["statement", "verify", &paths[0]],
        vec!["reconcile", &paths[0], &paths[1]],
    ] {
        let output = rialto(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            told(&output).contains("the signature does not fit"),
            "{}",
            told(&output)
        );
    }
    let output = rialto(&["statement", "verify", "nowhere.jsonl"]);
    assert!(
        told(&output).contains("nowhere.jsonl: "),
        "{}",
        told(&output)
    );
}
