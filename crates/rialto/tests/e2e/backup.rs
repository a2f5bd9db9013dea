//! Books of a real node read, copied and put back, while it is under load and after it was killed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use rialto_packet::Reply;
use serde_json::{Value, json};

use crate::{
    disk::faults_library,
    harness::{CREDIT, Node, StopOnDrop, wait_for},
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
    rialto_with(node, arguments, &[])
}

fn rialto_with(node: &Node, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
    command.args(arguments);
    if arguments[0] == "backup" && arguments[1] != "verify" {
        command
            .arg("--config")
            .arg(node.folder().join("rialto.toml"));
    }
    command.envs(environment.iter().copied());
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
        let _stop = StopOnDrop(&stop);
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
    println!(
        "reliability: backup | 5 backups and 5 looks at the journal of a node under load, the last restored \
         | {last} units paid before it, 0 missing"
    );
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
    for command in ["verify", "restore"] {
        let refused = rialto(&hub, &["backup", command, text(&backup)]);
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        // And not that it was cut off.
        assert!(
            stderr(&refused).contains("is damaged at byte 44"),
            "{}",
            stderr(&refused)
        );
    }
    assert!(!data.exists());
    println!(
        "reliability: backup | a changed bit in a journal and in a backup: checked, backed up, verified, \
         restored | each told where, nothing written"
    );
}

/// Journal files of a folder, in order.
fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn a_backup_that_was_cut_off_anywhere_is_refused() {
    let fulfilled = Fulfilled::default();
    let (mut hub, _server) = hub(&fulfilled);
    for _ in 0..3 {
        pay_one(&mut Client::new(hub.node, "/accounts/alice/ilp", TOKEN));
    }
    let backup = hub.folder().join("backup");
    // Not even an empty folder is taken for a new one.
    fs::create_dir(&backup).unwrap();
    let refused = rialto(&hub, &["backup", "create", text(&backup)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("exists already"));
    assert_eq!(fs::read_dir(&backup).unwrap().count(), 0);
    fs::remove_dir(&backup).unwrap();
    json_of(&rialto(
        &hub,
        &["backup", "create", text(&backup), "--json"],
    ));
    hub.kill();
    fs::rename(hub.folder().join("data"), hub.folder().join("lost")).unwrap();

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&backup), 0o700);
    let [segment] = &segments(&backup)[..] else {
        panic!("one segment")
    };
    assert_eq!(mode(segment), 0o600);
    assert_eq!(mode(&backup.join("backup.json")), 0o600);

    let whole = fs::read(segment).unwrap();
    let mut cases = 0;
    // All of the last records, where a cut is not seen in the journal itself, and some before.
    let sizes = (whole.len() - 200..whole.len()).chain((0..whole.len() - 200).step_by(97));
    for size in sizes {
        fs::write(segment, &whole[..size]).unwrap();
        let is_mark_cut = whole.len() - size <= 24;
        let verified = rialto(&hub, &["backup", "verify", text(&backup)]);
        let code = verified.status.code();
        assert!(
            code == Some(1) || is_mark_cut && code == Some(0),
            "cut to {size} of {}: {code:?}",
            whole.len()
        );
        if size % 20 == 0 && code == Some(1) {
            let restored = rialto(&hub, &["backup", "restore", text(&backup)]);
            assert_eq!(restored.status.code(), Some(1), "cut to {size}");
            assert!(!hub.folder().join("data").exists());
        }
        cases += 1;
    }
    fs::write(segment, &whole).unwrap();
    // One that goes on behind its end is as wrong, and so is one that does not say where it ends.
    for about in ["{\"last_record\":2}", "{}"] {
        fs::write(backup.join("backup.json"), about).unwrap();
        for command in ["verify", "restore"] {
            let refused = rialto(&hub, &["backup", command, text(&backup)]);
            assert_eq!(refused.status.code(), Some(1), "{about}");
        }
        assert!(!hub.folder().join("data").exists());
    }
    println!("reliability: backup | {cases} backups cut off at their end | {cases} told or whole");
}

#[test]
fn a_restored_backup_is_brought_up_to_date_by_corrections() {
    let fulfilled = Fulfilled::default();
    let (mut hub, _server) = hub(&fulfilled);
    let pay = |hub: &Node, count| {
        let mut client = Client::new(hub.node, "/accounts/alice/ilp", TOKEN);
        (0..count).for_each(|_| pay_one(&mut client));
    };
    pay(&hub, 3);
    let backup = hub.folder().join("backup");
    json_of(&rialto(
        &hub,
        &["backup", "create", text(&backup), "--json"],
    ));
    pay(&hub, 4);
    hub.kill();
    fs::rename(hub.folder().join("data"), hub.folder().join("lost")).unwrap();
    json_of(&rialto(
        &hub,
        &["backup", "restore", text(&backup), "--json"],
    ));
    hub.restart();
    assert_eq!(hub.balance("bob"), 3);

    let adjust = |hub: &Node, account: &str, amount: &str, key: &str| {
        let (url, token) = (
            format!("http://{}", hub.admin),
            hub.folder().join("admin.token"),
        );
        let reason = "--reason=paid after the backup";
        let key = format!("--idempotency-key={key}");
        let url = format!("--url={url}");
        let token = format!("--token-file={}", token.display());
        let adjust = [
            "account", "adjust", account, amount, reason, &key, &url, &token,
        ];
        let output = rialto(hub, &adjust);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    for _ in 0..2 {
        adjust(&hub, "alice", "-0.000000004", "alice-4");
        hub.assert_books_add_up();
        adjust(&hub, "bob", "0.000000004", "bob-4");
    }
    hub.kill();
    hub.restart();
    assert_eq!((hub.balance("alice"), hub.balance("bob")), (-7, 7));
    hub.assert_books_add_up();
    pay(&hub, 1);
    assert_eq!(hub.terminate(), 0);
    // The key outlives the checkpoint of the stop.
    hub.restart();
    adjust(&hub, "bob", "0.000000004", "bob-4");
    assert_eq!((hub.balance("alice"), hub.balance("bob")), (-8, 8));
    println!(
        "reliability: backup | a restored backup corrected, each correction sent again, over a SIGKILL and a \
         SIGTERM | 0 units wrong"
    );
}

#[test]
fn a_backup_is_done_when_its_files_and_folders_are_safe_on_disk() {
    let fulfilled = Fulfilled::default();
    let (mut hub, _server) = hub(&fulfilled);
    pay_one(&mut Client::new(hub.node, "/accounts/alice/ilp", TOKEN));
    hub.kill();
    let library = faults_library();
    let data = hub.folder().join("data");
    let backup = |number: u32| hub.folder().join(format!("backup-{number}"));
    let run = |command: &str, folder: &Path, nth: u32| {
        let environment = [
            ("LD_PRELOAD", text(&library)),
            ("FAULTS_SYNC_NTH", &nth.to_string()),
        ];
        rialto_with(&hub, &["backup", command, text(folder)], &environment)
    };
    // The segment, what the backup says about itself, its folder, and the folder around it.
    for nth in 1..=4 {
        let output = run("create", &backup(nth), nth);
        assert_eq!(
            output.status.code(),
            Some(1),
            "sync {nth}: {}",
            stderr(&output)
        );
    }
    let whole = backup(5);
    assert_eq!(run("create", &whole, 5).status.code(), Some(0));
    // The segment, its folder, and the data folder.
    fs::rename(&data, hub.folder().join("lost")).unwrap();
    for nth in 1..=3 {
        let output = run("restore", &whole, nth);
        assert_eq!(
            output.status.code(),
            Some(1),
            "sync {nth}: {}",
            stderr(&output)
        );
        let _ = fs::remove_dir_all(&data);
    }
    assert_eq!(run("restore", &whole, 4).status.code(), Some(0));
    fs::remove_file(library).unwrap();
    println!("reliability: backup | each of 7 syncs of create and restore fails | 7 reported");
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
