//! Limits under races: many clients at once against a limit that is worth a known number of packets.

use std::{
    collections::BTreeMap,
    sync::{Arc, Barrier, Mutex},
    thread,
};

use rialto_packet::Reply;
use serde_json::json;

use crate::{
    harness::{Node, wait_for},
    raw::{self, Btp, Client, Fulfilled, Server, outcome},
};

const TOKEN: &str = "token-from-alice-to-hub";
const CLIENTS: usize = 64;

/// Units of each packet.
const AMOUNT: u64 = 1_000;
/// Packets that the credit is worth; the rest of the credit is one unit short of one more.
const WORTH: u64 = 1_000;
/// Packets that each client tries in a wave.
const TRIES: usize = 25;
/// Packets of a wave.
const TRIED: u64 = (CLIENTS * TRIES) as u64;

/// How the clients of a wave reach the node. Those over HTTP have a connection each, and one packet
/// under way. An account has one BTP session: what clients send over it is sent at once.
#[derive(Clone, Copy)]
struct Ways {
    http: usize,
    btp: usize,
}

const HTTP: Ways = Ways {
    http: CLIENTS,
    btp: 0,
};
const BTP: Ways = Ways {
    http: 0,
    btp: CLIENTS,
};
const BOTH: Ways = Ways {
    http: CLIENTS / 2,
    btp: CLIENTS / 2,
};

/// A hub whose alice has these limits, and whose bob is reached over HTTP.
fn hub(limits: &serde_json::Value, bob: &Server) -> Node {
    let hub = Node::start("hub", "test.hub", "");
    hub.account(json!({
        "name": "alice", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": limits, "incoming_token": TOKEN,
    }));
    hub.account(json!({
        "name": "bob", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "http": {"url": format!("http://{}/ilp", bob.address), "token": "t"},
    }));
    hub
}

fn credit_hub(bob: &Server) -> Node {
    let credit = -i128::from(WORTH * AMOUNT + AMOUNT - 1);
    hub(&json!({"balance_min": credit.to_string()}), bob)
}

/// Every client sends all its packets at the same time as the others. A connection that broke ends
/// its clients.
fn wave(hub: &Node, ways: Ways) -> Vec<thread::JoinHandle<Tally>> {
    let sessions = ways.btp.min(1);
    let start = Arc::new(Barrier::new(ways.http + sessions));
    let mut threads = Vec::new();
    for _ in 0..ways.http {
        let mut client = Client::new(hub.node, "/accounts/alice/ilp", TOKEN);
        let start = Arc::clone(&start);
        threads.push(thread::spawn(move || {
            start.wait();
            let replies = (0..TRIES).map_while(|_| client.send(&packet()));
            tally(replies)
        }));
    }
    for _ in 0..sessions {
        let mut session = Btp::connect(hub.node, "alice", TOKEN);
        let start = Arc::clone(&start);
        threads.push(thread::spawn(move || {
            let packets: Vec<_> = (0..ways.btp * TRIES).map(|_| packet()).collect();
            start.wait();
            tally(session.send_all(&packets).into_iter())
        }));
    }
    threads
}

fn packet() -> Vec<u8> {
    raw::prepare(raw::next_number(), AMOUNT, "test.hub.bob.x", 20_000)
}

/// How many packets had which outcome.
type Tally = BTreeMap<String, u64>;

fn tally(replies: impl Iterator<Item = Reply<Vec<u8>>>) -> Tally {
    let mut tally = Tally::new();
    for reply in replies {
        *tally.entry(outcome(&reply)).or_default() += 1;
    }
    tally
}

fn sum(clients: Vec<thread::JoinHandle<Tally>>) -> Tally {
    let mut sum = Tally::new();
    for client in clients {
        for (outcome, count) in client.join().unwrap() {
            *sum.entry(outcome).or_default() += count;
        }
    }
    sum
}

fn exactly_the_credit_passes(ways: Ways) {
    let fulfilled = Fulfilled::default();
    let bob = fulfilled.server();
    let hub = credit_hub(&bob);
    let tally = sum(wave(&hub, ways));
    let expected = [("T04 acct.credit_limit", TRIED - WORTH), ("fulfill", WORTH)];
    assert_eq!(
        tally,
        Tally::from(expected.map(|(outcome, count)| (outcome.to_owned(), count)))
    );
    assert_eq!(-hub.balance("alice"), i128::from(WORTH * AMOUNT));
    assert_eq!(hub.balance("bob"), i128::from(WORTH * AMOUNT));
    hub.assert_books_add_up();
    println!(
        "reliability: races | {CLIENTS} clients, {TRIED} packets ({} over HTTP, {} over BTP) against \
         credit for {WORTH} | {WORTH} passed",
        ways.http * TRIES,
        ways.btp * TRIES
    );
}

#[test]
fn exactly_the_credit_passes_over_http() {
    exactly_the_credit_passes(HTTP);
}

#[test]
fn exactly_the_credit_passes_over_btp() {
    exactly_the_credit_passes(BTP);
}

#[test]
fn exactly_the_credit_passes_with_kills_between() {
    const KILLS: u64 = 3;
    let fulfilled = Fulfilled::default();
    let bob = fulfilled.server();
    let mut hub = credit_hub(&bob);
    let passed = |tally: &Tally| tally.get("fulfill").copied().unwrap_or_default();
    let booked = |hub: &Node| u64::try_from(-hub.balance("alice")).unwrap() / AMOUNT;
    let mut proved = 0;
    for kill in 1..=KILLS {
        let clients = wave(&hub, if kill == 2 { HTTP } else { BOTH });
        wait_for("a part of the credit", || {
            (booked(&hub) >= kill * WORTH / (KILLS + 1)).then_some(())
        });
        hub.kill();
        proved += passed(&sum(clients));
        hub.restart();
        assert!((proved..=WORTH).contains(&booked(&hub)));
    }
    let left = WORTH - booked(&hub);
    let last = passed(&sum(wave(&hub, BOTH)));
    assert_eq!(last, left);
    proved += last;
    assert_eq!(-hub.balance("alice"), i128::from(WORTH * AMOUNT));
    assert_eq!(hub.balance("bob"), i128::from(WORTH * AMOUNT));
    hub.assert_books_add_up();
    println!(
        "reliability: races | {CLIENTS} clients over HTTP and BTP against credit for {WORTH}, \
         {KILLS} SIGKILLs between; {proved} packets proved, {} booked while their answers were lost \
         | {WORTH} passed",
        WORTH - proved
    );
}

#[test]
fn no_more_packets_are_in_flight_than_allowed() {
    const IN_FLIGHT: u64 = 8;
    /// Packets that bob has and did not answer: now, and at most.
    #[derive(Default)]
    struct Held {
        now: u64,
        most: u64,
    }
    let held = Arc::new(Mutex::new(Held::default()));
    let bobs = Arc::clone(&held);
    let bob = Server::start(move |packet| {
        {
            let mut held = bobs.lock().unwrap();
            held.now += 1;
            held.most = held.most.max(held.now);
        }
        // Others get their turn while this one is held.
        thread::yield_now();
        let answer = raw::fulfill(packet);
        bobs.lock().unwrap().now -= 1;
        Some((200, raw::OCTETS, answer))
    });
    let limits = json!({"balance_min": "-1000000000", "in_flight_count_max": IN_FLIGHT});
    let hub = hub(&limits, &bob);
    let tally = sum(wave(&hub, BOTH));
    let passed = tally["fulfill"];
    let refused = tally.get("T04 acct.inflight_limit").copied();
    assert_eq!(passed + refused.unwrap_or_default(), TRIED, "{tally:?}");
    assert_eq!(-hub.balance("alice"), i128::from(passed * AMOUNT));
    hub.assert_books_add_up();
    let most = held.lock().unwrap().most;
    assert!(most <= IN_FLIGHT, "{most} at a time");
    println!(
        "reliability: races | {CLIENTS} clients, {TRIED} packets, at most {IN_FLIGHT} in flight, \
         {passed} passed | {most} at a time"
    );
}
