//! Disks that fill up or fail under a running node. It takes no more packets and says so; Fulfills of
//! those it took still pass; and after a restart the books are what the journal has, which together
//! with what the log names is what neighbours can prove, to the unit.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use rialto_packet::{Prepare, Reply};
use serde_json::{Value, json};

use crate::{
    harness::{CREDIT, Node, call, wait_for},
    raw::{self, Btp, Client, OCTETS, Server, outcome},
};

const TOKEN: &str = "token-from-alice-to-hub";
const SENDERS: usize = 8;
/// Packets that bob holds while the disk fails.
const HELD: usize = 8;
/// Their destination.
const SLOW: &str = "test.hub.bob.slow";

/// A library that makes the syncs of a process fail; see `faults.c`.
pub(crate) fn faults_library() -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/faults.c");
    let number = raw::next_number();
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("faults-{}-{number}.so", std::process::id()));
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library);
    cc.arg(source).arg("-ldl");
    assert!(cc.status().expect("cc is installed").success());
    library
}

/// Bob, who answers at once, except for what is addressed to [`SLOW`]: that he holds until told.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Gate {
    fn server(&self) -> Server {
        let gate = self.clone();
        Server::start(move |packet| {
            let prepare = Prepare::parse(packet).unwrap();
            if prepare.destination().as_str() == SLOW {
                let (state, changed) = &*gate.0;
                let mut state = state.lock().unwrap();
                state.0 += 1;
                while !state.1 {
                    state = changed.wait(state).unwrap();
                }
            }
            Some((200, OCTETS, raw::fulfill(packet)))
        })
    }

    fn held(&self) -> usize {
        self.0.0.lock().unwrap().0
    }

    fn open(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }
}

fn hub(bob: &Server) -> Node {
    let mut hub = Node::prepare("hub", "test.hub", "");
    hub.restart();
    hub.account(json!({
        "name": "alice", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": TOKEN,
    }));
    hub.account(json!({
        "name": "bob", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "http": {"url": format!("http://{}/ilp", bob.address), "token": "t"},
    }));
    hub
}

type Sender = Box<dyn FnMut(&[u8]) -> Reply<Vec<u8>> + Send>;

/// One of alice's ways to send: her BTP session, or over HTTP.
fn sender(hub: &Node, number: usize) -> Sender {
    if number == 0 {
        let mut session = Btp::connect(hub.node, "alice", TOKEN);
        return Box::new(move |packet| session.send(packet).unwrap());
    }
    let mut client = Client::new(hub.node, "/accounts/alice/ilp", TOKEN);
    Box::new(move |packet| client.send(packet).unwrap())
}

/// The journal's failure is what the node says everywhere.
fn assert_said(hub: &Node) {
    let (status, text) = hub.call("GET", "/readyz?verbose", None);
    assert_eq!(status, 503);
    assert!(text.as_str().unwrap().contains("[-] journal"), "{text}");
    let metrics = hub.ok("GET", "/metrics", None);
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains("\nrialto_journal_failed 1")
    );
    let status = hub.ok("GET", "/v1/status", None);
    assert!(!status["journal"]["failure"].is_null(), "{status}");
    assert!(hub.log().contains("the journal failed: no new packets"));
}

/// Amounts that the log says are not in the journal, by account: what is to be added to its balance.
fn unwritten(log: &str) -> BTreeMap<String, i128> {
    let mut sums = BTreeMap::new();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for line in lines {
        let message = line["message"].as_str().unwrap_or_default();
        if !message.contains("the journal did not take") {
            continue;
        }
        let amount = |name: &str| i128::from(line[name].as_u64().unwrap());
        let name = |name: &str| line[name].as_str().unwrap().to_owned();
        *sums.entry(name("payer")).or_default() -= amount("amount_in");
        *sums.entry(name("payee")).or_default() += amount("amount_out");
    }
    sums
}

/// Load, then `fail` while packets are held, and all that has to be true from then on.
fn a_disk_fails_under_load(what: &str, mut hub: Node, gate: &Gate, fail: impl FnOnce(&Node)) {
    let proved = AtomicU64::new(0);
    let unit = 1 << 20;
    thread::scope(|scope| {
        for number in 0..HELD {
            let (proved, mut send) = (&proved, sender(&hub, number + 1));
            scope.spawn(move || {
                let packet = raw::prepare(raw::next_number(), unit, SLOW, 25_000);
                // Taken before the disk failed, fulfilled after it.
                assert_eq!(outcome(&send(&packet)), "fulfill");
                proved.fetch_add(unit, Ordering::Relaxed);
            });
        }
        wait_for("packets that bob holds", || {
            (gate.held() == HELD).then_some(())
        });
        let load: Vec<_> = (0..SENDERS)
            .map(|number| {
                let (proved, mut send) = (&proved, sender(&hub, number));
                scope.spawn(move || {
                    loop {
                        let number = raw::next_number();
                        let packet = raw::prepare(number, 1, "test.hub.bob.x", 20_000);
                        match send(&packet) {
                            Reply::Fulfill(_) => proved.fetch_add(1, Ordering::Relaxed),
                            refused @ Reply::Reject(_) => return outcome(&refused),
                        };
                    }
                })
            })
            .collect();
        wait_for("load", || {
            (proved.load(Ordering::Relaxed) > 200).then_some(())
        });
        fail(&hub);
        for sender in load {
            assert_eq!(sender.join().unwrap(), "T00 internal");
        }
        assert_said(&hub);
        gate.open();
    });
    let proved = i128::from(proved.into_inner());
    // What it knows while it runs is right to the unit.
    assert_eq!(
        (hub.balance("alice"), hub.balance("bob")),
        (-proved, proved)
    );
    assert_eq!(hub.terminate(), 1, "it ends badly, and says so");

    // The disk is well again.
    let unwritten = unwritten(&hub.log());
    let missing = unwritten["bob"];
    assert!(missing >= i128::from(unit) * HELD as i128, "{missing}");
    hub.restart();
    let balances = (hub.balance("alice"), hub.balance("bob"));
    assert_eq!(balances, (missing - proved, proved - missing));
    hub.assert_books_add_up();
    for (account, amount) in &unwritten {
        let body = json!({
            "account": account, "amount": amount.to_string(), "reason": "named in the log",
        });
        let made = call(hub.admin, "POST", "/v1/adjustments", Some(&body), account);
        assert_eq!(made.unwrap().0, 201);
    }
    assert_eq!(
        (hub.balance("alice"), hub.balance("bob")),
        (-proved, proved)
    );
    hub.assert_books_add_up();
    let packet = raw::prepare(raw::next_number(), 1, "test.hub.bob.x", 20_000);
    assert_eq!(outcome(&sender(&hub, 1)(&packet)), "fulfill");
    println!(
        "reliability: disk | {what} under a running node, {proved} units proved, {missing} passed on \
         after the failure and named | 0 units wrong"
    );
}

#[test]
fn a_disk_that_fills_up() {
    let gate = Gate::default();
    let bob = gate.server();
    let hub = hub(&bob);
    a_disk_fails_under_load("a file system that takes no more", hub, &gate, |hub| {
        let journal = hub.folder().join("data/journal");
        let segment = journal.join("00000000000000000001.segment");
        // Not at a boundary of records, so that the last write is taken in part.
        let size = fs::metadata(segment).unwrap().len() + 1_009;
        let mut limit = Command::new("prlimit");
        limit.arg(format!("--pid={}", hub.pid()));
        limit.arg(format!("--fsize={size}:"));
        assert!(limit.status().expect("prlimit is installed").success());
    });
}

#[test]
fn a_disk_that_fails_to_sync() {
    let gate = Gate::default();
    let bob = gate.server();
    let mut hub = hub(&bob);
    hub.terminate();
    let library = faults_library();
    let flag = hub.folder().join("the-disk-fails");
    hub.environment = vec![
        ("LD_PRELOAD".to_owned(), library.clone().into_os_string()),
        ("FAULTS_SYNC_FILE".to_owned(), flag.clone().into_os_string()),
    ];
    hub.restart();
    hub.environment.clear();
    a_disk_fails_under_load("a disk whose syncs fail", hub, &gate, |_| {
        fs::write(&flag, "").unwrap();
    });
    fs::remove_file(library).unwrap();
}
