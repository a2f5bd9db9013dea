//! Books of a real node read, copied and put back, while it is under load and after it was killed.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use rialto_packet::Reply;
use serde_json::{Value, json};

use crate::{
    harness::{CREDIT, Node, wait_for},
    raw::{self, Client, Fulfilled},
};

const TOKEN: &str = "token-from-alice-to-hub";

/// Alice pays bob through it; bob answers for himself.
fn hub(fulfilled: &Fulfilled) -> (Node, raw::Server) {
    let server = fulfilled.server();
    let hub = Node::start("hub", "test.hub", "");
    hub.account(json!({
        "name": "alice", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": TOKEN,
    }));
    hub.account(json!({
        "name": "bob", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "http": {"url": format!("http://{}/ilp", server.address), "token": "t"},
    }));
    (hub, server)
}

fn pay_one(client: &mut Client) {
    let packet = raw::prepare(raw::next_number(), 1, "test.hub.bob.x", 20_000);
    assert!(matches!(client.send(&packet), Some(Reply::Fulfill(_))));
}

fn rialto(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
    command.args(arguments);
    if arguments[0] == "backup" && arguments[1] != "verify" {
        command
            .arg("--config")
            .arg(node.folder().join("rialto.toml"));
    }
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it printed as JSON; it has to end well.
fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Bob's balance in books whose every asset adds up.
fn paid(books: &Value) -> u64 {
    assert_eq!(books["sound"], true, "{books}");
    assert_eq!(books["assets"][0]["sum"], "0", "{books}");
    let accounts = books["accounts"].as_array().unwrap();
    let balance = |name| {
        let account = accounts.iter().find(|account| account["account"] == name);
        account.unwrap()["balance"].as_str().unwrap().to_owned()
    };
    let bob = balance("bob");
    if bob != "0" {
        assert_eq!(balance("alice"), format!("-{bob}"));
    }
    bob.parse().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_backup_under_load_holds_what_was_paid_before_it_and_starts_a_node() {
    let fulfilled = Fulfilled::default();
    let (mut hub, _server) = hub(&fulfilled);
    let backups = hub.folder().join("backups");
    let data = hub.folder().join("data");
    let (proved, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut last = 0;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::new(hub.node, "/accounts/alice/ilp", TOKEN);
                while !stop.load(Ordering::Relaxed) {
                    pay_one(&mut client);
                    proved.fetch_add(1, Ordering::Release);
                }
            });
        }
        for round in 1..=5 {
            wait_for("load", || {
                (proved.load(Ordering::Acquire) >= last + 20).then_some(())
            });
            let before = proved.load(Ordering::Acquire);
            let backup = backups.join(round.to_string());
            let made = json_of(&rialto(
                &hub,
                &["backup", "create", text(&backup), "--json"],
            ));
            last = paid(&made);
            assert!(last >= before, "{last} of {before}");
            let verified = rialto(&hub, &["backup", "verify", text(&backup), "--json"]);
            assert_eq!(paid(&json_of(&verified)), last);
            let checked = rialto(&hub, &["check", "--journal", text(&data), "--json"]);
            assert!(paid(&json_of(&checked)) >= last);
        }
        stop.store(true, Ordering::Relaxed);
    });

    // The node's own folder is in use, and its books have gone on.
    pay_one(&mut Client::new(hub.node, "/accounts/alice/ilp", TOKEN));
    hub.kill();
    let newest = backups.join("5");
    let refused = rialto(&hub, &["backup", "restore", text(&newest)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("is not empty"),
        "{}",
        stderr(&refused)
    );

    fs::rename(&data, hub.folder().join("lost")).unwrap();
    let restored = rialto(&hub, &["backup", "restore", text(&newest), "--json"]);
    assert_eq!(paid(&json_of(&restored)), last);
    hub.restart();
    assert_eq!(hub.balance("bob"), i128::from(last));
    hub.assert_books_add_up();
    pay_one(&mut Client::new(hub.node, "/accounts/alice/ilp", TOKEN));
    assert_eq!(hub.balance("bob"), i128::from(last) + 1);
}

#[test]
fn damage_is_named_and_neither_backed_up_nor_restored() {
    let fulfilled = Fulfilled::default();
    let (mut hub, _server) = hub(&fulfilled);
    for _ in 0..3 {
        pay_one(&mut Client::new(hub.node, "/accounts/alice/ilp", TOKEN));
    }
    let backup = hub.folder().join("backup");
    let made = rialto(&hub, &["backup", "create", text(&backup), "--quiet"]);
    assert!(made.status.success() && made.stderr.is_empty() && made.stdout.is_empty());
    let again = rialto(&hub, &["backup", "create", text(&backup)]);
    assert_eq!(
        again.status.code(),
        Some(1),
        "a backup is never overwritten"
    );
    hub.kill();

    let data = hub.folder().join("data");
    let journal = data.join("journal");
    for folder in [&journal, &backup] {
        let file = folder.join("00000000000000000001.segment");
        let mut bytes = fs::read(&file).unwrap();
        bytes[60] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let list = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        let before = list(folder);
        let checked = rialto(&hub, &["check", "--journal", text(folder), "--json"]);
        assert_eq!(checked.status.code(), Some(1));
        let found: Value = serde_json::from_slice(&checked.stdout).unwrap();
        assert_eq!(found["sound"], false);
        assert_eq!(found["damage"]["file"], text(&file));
        assert_eq!(found["damage"]["offset"], 44);
        assert!(stderr(&checked).contains("is damaged at byte 44"));
        assert_eq!((list(folder), fs::read(&file).unwrap()), (before, bytes));
    }
    let refused = rialto(
        &hub,
        &["backup", "create", text(&hub.folder().join("another"))],
    );
    assert_eq!(refused.status.code(), Some(1));
    fs::remove_dir_all(&data).unwrap();
    let refused = rialto(&hub, &["backup", "restore", text(&backup)]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(!data.exists());
}

#[test]
fn a_folder_without_a_journal_or_of_another_version_is_78() {
    let node = Node::prepare("nobody", "test.nobody", "");
    let folder = node.folder();
    let code = |arguments: &[&str]| rialto(&node, arguments).status.code();
    assert_eq!(code(&["check", "--journal", text(folder)]), Some(78));
    let nowhere = folder.join("nowhere");
    assert_eq!(code(&["backup", "verify", text(&nowhere)]), Some(78));
    assert_eq!(code(&["backup", "restore", text(&nowhere)]), Some(78));
    assert_eq!(
        code(&["backup", "create", text(&folder.join("backup"))]),
        Some(78)
    );

    let other = folder.join("other");
    fs::create_dir(&other).unwrap();
    let mut header = b"RIALTOSG".to_vec();
    header.extend([2, 0, 0, 0]);
    header.resize(44, 0);
    fs::write(other.join("00000000000000000001.segment"), header).unwrap();
    assert_eq!(code(&["backup", "verify", text(&other)]), Some(78));
}
