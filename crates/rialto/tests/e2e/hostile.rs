//! Neighbours and strangers that mean harm, against the real binary. Each may spoil its own packets
//! only: meanwhile everyone else's are all fulfilled, memory stays within a bound, and afterwards the
//! books add up.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rialto_packet::Prepare;
use serde_json::{Value, json};

use crate::{
    harness::{ADMIN_TOKEN, CREDIT, Node, StopOnDrop, wait_for},
    raw::{self, BINARY_WHOLE, Btp, Client, OCTETS, Received, Server, outcome, write_websocket},
};

const ALICE: &str = "token-from-alice-to-hub";
pub(crate) const EVE: &str = "token-from-eve-to-hub";
const CAROL: &str = "token-from-carol-to-hub";

/// Of the whole node, whatever is done to it, in MiB: in the tests' own build it has some 26 at rest.
const MEMORY_MIB_MAX: u64 = 120;

/// Clients of carol's over HTTP, beside one over BTP.
const OTHERS: usize = 3;

/// Packets of others that have to be answered before an attack is over: one in a thousand of them would be seen.
const OTHERS_COUNT_MIN: u64 = 1_000;

/// A hub with others at work: carol sends to dave, one packet after the other from each client. There
/// is also alice, who may send what a test wants; it adds eve.
pub(crate) struct World {
    pub(crate) hub: Node,
    _dave: Server,
    /// Packets of one unit that dave said yes to.
    fulfilled: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    /// How long the slowest packet of others took. Milliseconds.
    slowest_ms: Arc<AtomicU64>,
    others: Vec<thread::JoinHandle<BTreeMap<String, u64>>>,
}

impl World {
    pub(crate) fn start() -> Self {
        let fulfilled = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&fulfilled);
        let dave = Server::start(move |packet| {
            counted.fetch_add(1, Ordering::Relaxed);
            Some((200, OCTETS, raw::fulfill(packet)))
        });
        let hub = Node::start("hub", "test.hub", "");
        for (name, token) in [("alice", ALICE), ("carol", CAROL)] {
            hub.account(json!({
                "name": name, "relation": "child", "asset_code": "USD", "asset_scale": 9,
                "limits": {"balance_min": CREDIT}, "incoming_token": token,
            }));
        }
        hub.account(json!({
            "name": "dave", "relation": "child", "asset_code": "USD", "asset_scale": 9,
            "http": {"url": format!("http://{}/ilp", dave.address), "token": "t"},
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let mut world = Self {
            hub,
            _dave: dave,
            fulfilled,
            stop,
            count,
            slowest_ms: Arc::default(),
            others: Vec::new(),
        };
        for _ in 0..OTHERS {
            let mut client = Client::new(world.hub.node, "/accounts/carol/ilp", CAROL);
            world.send_from_others(move |packet| client.send(packet).map(|it| outcome(&it)));
        }
        let mut session = Btp::connect(world.hub.node, "carol", CAROL);
        world.send_from_others(move |packet| session.send(packet).map(|it| outcome(&it)));
        world
    }

    fn send_from_others(&mut self, mut send: impl FnMut(&[u8]) -> Option<String> + Send + 'static) {
        let (stop, count) = (Arc::clone(&self.stop), Arc::clone(&self.count));
        let slowest_ms = Arc::clone(&self.slowest_ms);
        self.others.push(thread::spawn(move || {
            let mut outcomes = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                let packet = raw::prepare(raw::next_number(), 1, "test.hub.dave.x", 20_000);
                let begin = Instant::now();
                let outcome = send(&packet).unwrap_or_else(|| "broken off".to_owned());
                let took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap();
                slowest_ms.fetch_max(took_ms, Ordering::Relaxed);
                *outcomes.entry(outcome).or_default() += 1;
                count.fetch_add(1, Ordering::Relaxed);
                // Everyday traffic, not a second attack.
                thread::park_timeout(Duration::from_millis(5));
            }
            outcomes
        }));
    }

    /// Another account, which may receive and send.
    pub(crate) fn eve(&self, extra: &Value) {
        let mut eve = json!({
            "name": "eve", "relation": "child", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": CREDIT}, "incoming_token": EVE,
        });
        let settings = eve.as_object_mut().unwrap();
        settings.extend(extra.as_object().unwrap().clone());
        self.hub.account(eve);
    }

    fn eve_over_btp(&self) -> Btp {
        self.eve(&json!({}));
        Btp::connect(self.hub.node, "eve", EVE)
    }

    fn alice(&self) -> Btp {
        Btp::connect(self.hub.node, "alice", ALICE)
    }

    fn account(&self, name: &str) -> Value {
        self.hub.ok("GET", &format!("/v1/accounts/{name}"), None)
    }

    /// Packets of alice's that came to the core.
    fn alice_count(&self) -> u64 {
        let stats = &self.account("alice")["stats"];
        stats["prepares_in"].as_u64().unwrap_or_default()
    }

    /// What became of alice's packets, sent all at once.
    pub(crate) fn send(&self, packets: &[Vec<u8>]) -> BTreeMap<String, usize> {
        let mut outcomes = BTreeMap::new();
        for reply in self.alice().send_all(packets) {
            *outcomes.entry(outcome(&reply)).or_default() += 1;
        }
        outcomes
    }

    /// Whether an attack that is soon over is to be made once more, so that enough packets of others meet it.
    pub(crate) fn goes_on(&self) -> bool {
        self.count.load(Ordering::Relaxed) < OTHERS_COUNT_MIN
    }

    /// Others did not notice, nothing is left in flight, the books add up, memory is bounded.
    pub(crate) fn end(self, what: &str) -> Node {
        assert!(!self.goes_on(), "{what}: hardly anybody else was there");
        self.stop.store(true, Ordering::Relaxed);
        let mut outcomes = BTreeMap::<String, u64>::new();
        for thread in self.others {
            for (outcome, count) in thread.join().unwrap() {
                *outcomes.entry(outcome).or_default() += count;
            }
        }
        let packets = outcomes.get("fulfill").copied().unwrap_or_default();
        assert_eq!(outcomes.len(), 1, "{what}: others were hurt: {outcomes:?}");
        wait_for("the end of all packets", || {
            let metrics = self.hub.ok("GET", "/metrics", None);
            metrics
                .as_str()
                .unwrap()
                .contains("\nrialto_in_flight_packets 0\n")
                .then_some(())
        });
        for account in self.hub.ok("GET", "/v1/accounts", None)["accounts"]
            .as_array()
            .unwrap()
        {
            assert_eq!(account["in_flight"]["count"], 0, "{what}: {account}");
        }
        assert_eq!(-self.hub.balance("carol"), i128::from(packets));
        let fulfilled = self.fulfilled.load(Ordering::Relaxed);
        assert_eq!(self.hub.balance("dave"), i128::from(fulfilled));
        self.hub.assert_books_add_up();
        let memory_mib = self.hub.memory_kib().div_ceil(1024);
        assert!(memory_mib <= MEMORY_MIB_MAX, "{what}: {memory_mib} MiB");
        println!(
            "reliability: hostile peers | {what} | {packets} of {packets} packets of others \
             fulfilled, the slowest after {} ms; at most {memory_mib} MiB of memory, {MEMORY_MIB_MAX} \
             allowed",
            self.slowest_ms.load(Ordering::Relaxed)
        );
        self.hub
    }
}

pub(crate) fn packets(
    count: usize,
    destination: &str,
    life_ms: i64,
    data_len: usize,
) -> Vec<Vec<u8>> {
    let packet = |_| raw::prepare_with_data(raw::next_number(), 10, destination, life_ms, data_len);
    (0..count).map(packet).collect()
}

pub(crate) fn only(outcome: &str, count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(outcome.to_owned(), count)])
}

#[test]
fn a_peer_that_never_answers_costs_its_own_packets_only() {
    const COUNT: usize = 1_000;
    let world = World::start();
    let silent = Server::start(|_| None);
    world.eve(&json!({
        "http": {"url": format!("http://{}/ilp", silent.address), "token": "t"},
    }));
    // More than may be under way to her: the others wait for one until their time is up.
    let sent = world.send(&packets(COUNT, "test.hub.eve.x", 5_000, 32));
    assert_eq!(sent, only("R00 expiry.timed_out", COUNT));
    // The same with a session that takes everything and says nothing.
    world
        .hub
        .ok("PATCH", "/v1/accounts/eve", Some(json!({"http": null})));
    let eve = Btp::connect(world.hub.node, "eve", EVE);
    let sent = world.send(&packets(COUNT, "test.hub.eve.x", 5_000, 32));
    assert_eq!(sent, only("R00 expiry.timed_out", COUNT));
    drop(eve);
    assert_eq!(
        (world.hub.balance("alice"), world.hub.balance("eve")),
        (0, 0)
    );
    world.end(&format!(
        "{} packets to a peer that never answers",
        2 * COUNT
    ));
}

#[test]
fn a_peer_that_reads_a_byte_a_second_over_btp_gets_no_more_than_fits() {
    const COUNT: usize = 2_000;
    let world = World::start();
    let eve = world.eve_over_btp();
    let gone = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&gone);
    let reading = thread::spawn(move || read_slowly(&eve.writer, b"", &done));
    // 64 MiB, which neither sockets nor outbox hold.
    let sent = world.send(&packets(COUNT, "test.hub.eve.x", 8_000, 32_000));
    let expired = sent.get("R00 expiry.timed_out").copied();
    let refused = sent.get("T03 overload").copied().unwrap_or_default();
    assert_eq!(expired.unwrap_or_default() + refused, COUNT, "{sent:?}");
    assert!(refused > 0, "there is an end to what waits: {sent:?}");
    gone.store(true, Ordering::Relaxed);
    reading.join().unwrap();
    world.end(&format!(
        "64 MB in {COUNT} packets over BTP to a peer that reads a byte a second"
    ));
}

#[test]
fn a_peer_that_reads_and_writes_a_byte_a_second_over_http_holds_up_nobody() {
    const COUNT: usize = 3_000;
    let world = World::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let gone = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&gone);
    let accepting = thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if done.load(Ordering::Relaxed) {
                return;
            }
            let done = Arc::clone(&done);
            thread::spawn(move || read_slowly(&stream, b"HTTP/1.1 200 OK\r\n", &done));
        }
    });
    world.eve(&json!({"http": {"url": format!("http://{address}/ilp"), "token": "t"}}));
    let sent = world.send(&packets(COUNT, "test.hub.eve.x", 8_000, 32_000));
    gone.store(true, Ordering::Relaxed);
    let _ = TcpStream::connect(address);
    accepting.join().unwrap();
    let expired = sent.get("R00 expiry.timed_out").copied();
    let refused = sent.get("T01 link.timeout").copied().unwrap_or_default();
    assert_eq!(expired.unwrap_or_default() + refused, COUNT, "{sent:?}");
    assert!(refused > 0, "there is an end to what waits: {sent:?}");
    world.end(&format!(
        "96 MB in {COUNT} packets over HTTP to a peer that reads and writes a byte a second"
    ));
}

/// Reads a byte a second, and writes one of an answer if there is one.
fn read_slowly(mut stream: &TcpStream, answer: &[u8], done: &AtomicBool) {
    let mut answer = answer.iter();
    while !done.load(Ordering::Relaxed) {
        if !matches!(stream.read(&mut [0]), Ok(1)) {
            return;
        }
        if let Some(byte) = answer.next()
            && stream.write_all(&[*byte]).is_err()
        {
            return;
        }
        thread::park_timeout(Duration::from_secs(1));
    }
}

#[test]
fn duplicate_and_late_replies_pay_nobody_twice() {
    const COUNT: usize = 100;
    let world = World::start();
    let mut eve = world.eve_over_btp();
    let packets_sent = packets(COUNT, "test.hub.eve.x", 20_000, 32);
    let mut alice = world.alice();
    let sending = thread::spawn(move || alice.send_all(&packets_sent));
    for _ in 0..COUNT {
        let (request, packet) = eve.read_prepare().unwrap();
        for _ in 0..3 {
            eve.reply(request, &raw::fulfill(&packet)).unwrap();
        }
    }
    let replies = sending.join().unwrap();
    assert!(replies.iter().all(|reply| outcome(reply) == "fulfill"));
    assert_eq!(world.hub.balance("eve"), 10 * COUNT as i128);

    // The same packets' answers after their time, each twice.
    let packets_sent = packets(COUNT, "test.hub.eve.x", 4_000, 32);
    let mut alice = world.alice();
    let sending = thread::spawn(move || alice.send_all(&packets_sent));
    let held: Vec<_> = (0..COUNT).map(|_| eve.read_prepare().unwrap()).collect();
    let replies = sending.join().unwrap();
    let expired = |reply| outcome(reply) == "R00 expiry.timed_out";
    assert!(replies.iter().all(expired));
    for (request, packet) in &held {
        for _ in 0..2 {
            eve.reply(*request, &raw::fulfill(packet)).unwrap();
        }
    }
    wait_for("the late fulfills to be counted", || {
        (world.account("eve")["stats"]["late_fulfills"] == COUNT).then_some(())
    });
    // Answers to requests that were never made.
    for request in [0, 1, u32::MAX] {
        eve.reply(request, &raw::fulfill(&held[0].1)).unwrap();
    }
    let lines = world.hub.log().matches("too late").count();
    assert!((1..COUNT / 2).contains(&lines), "{lines} lines");
    let stats = world.account("eve")["stats"].clone();
    assert_eq!(stats["late_amount"], (10 * COUNT).to_string());
    assert_eq!(world.hub.balance("eve"), 10 * COUNT as i128);
    assert_eq!(world.hub.balance("alice"), -10 * COUNT as i128);
    world.end(&format!(
        "{} duplicate, {} late and 3 unknown replies",
        2 * COUNT,
        2 * COUNT
    ));
}

#[test]
fn wrong_preimages_are_paid_by_nobody() {
    const COUNT: usize = 1_000;
    let world = World::start();
    let mut eve = world.eve_over_btp();
    let mut alice = world.alice();
    let mut count = 0;
    while world.goes_on() {
        let sent = packets(COUNT, "test.hub.eve.x", 20_000, 32);
        let replies = thread::scope(|scope| {
            let sending = scope.spawn(|| alice.send_all(&sent));
            let held: Vec<_> = (0..COUNT).map(|_| eve.read_prepare().unwrap()).collect();
            // Half are the proof of another packet, half of none; the true one after it comes too late.
            for (index, (request, packet)) in held.iter().enumerate() {
                let wrong = match index % 2 {
                    0 => raw::fulfill(&held[(index + 1) % COUNT].1),
                    _ => raw::fulfill_with([7; 32]),
                };
                eve.reply(*request, &wrong).unwrap();
                eve.reply(*request, &raw::fulfill(packet)).unwrap();
            }
            sending.join().unwrap()
        });
        for reply in replies {
            assert_eq!(outcome(&reply), "F05 cond.mismatch");
        }
        count += COUNT;
    }
    assert_eq!(
        (world.hub.balance("alice"), world.hub.balance("eve")),
        (0, 0)
    );
    world.end(&format!("{count} wrong preimages"));
}

#[test]
fn ten_times_the_packets_that_may_be_in_flight_leave_room_for_as_many_as_may() {
    const LIMIT: usize = 200;
    const OFFERED: usize = 10 * LIMIT;
    let world = World::start();
    let mut eve = world.eve_over_btp();
    let limits = json!({"limits": {"balance_min": CREDIT, "in_flight_count_max": LIMIT}});
    world.hub.ok("PATCH", "/v1/accounts/alice", Some(limits));
    let mut alice = world.alice();
    let mut rounds = 0;
    while world.goes_on() {
        rounds += 1;
        let sent = packets(OFFERED, "test.hub.eve.x", 25_000, 32);
        let first = thread::scope(|scope| {
            let receiving = scope.spawn(|| alice.send_until(&sent, OFFERED - LIMIT));
            // What is accepted goes out at once, and not behind what is refused.
            let held: Vec<_> = (0..LIMIT).map(|_| eve.read_prepare().unwrap()).collect();
            // What is refused is told at once: before any of the others has its answer.
            let first = receiving.join().unwrap();
            for (request, packet) in &held {
                eve.reply(*request, &raw::fulfill(packet)).unwrap();
            }
            first
        });
        let rest = alice.receive(LIMIT);
        let refused = |reply| outcome(reply) == "T04 acct.inflight_limit";
        assert!(first.len() == OFFERED - LIMIT && first.iter().all(refused));
        let fulfilled = |reply| outcome(reply) == "fulfill";
        assert!(rest.len() == LIMIT && rest.iter().all(fulfilled));
    }
    assert_eq!(world.hub.balance("eve"), (10 * LIMIT * rounds) as i128);
    let total = OFFERED * rounds;
    println!(
        "reliability: overload | {total} packets, ten times what may be in flight | {} fulfilled, as \
         many as may; {} refused before the first of them was answered",
        LIMIT * rounds,
        total - LIMIT * rounds,
    );
    world.end(&format!("{total} packets, ten times what may be in flight"));
}

#[test]
fn a_peer_that_is_slower_than_its_packets_come_gets_those_that_fit_and_keeps_its_session() {
    const COUNT: usize = 30_000;
    let world = World::start();
    world.eve(&json!({}));
    let refused_so_far = || {
        let refused = &world.account("alice")["stats"]["refused"]["overload"];
        refused.as_u64().unwrap_or_default()
    };
    let (mut sent_count, mut fulfilled_count, mut refused_count) = (0, 0, 0);
    while world.goes_on() {
        let mut eve = Btp::connect(world.hub.node, "eve", EVE);
        wait_for("eve's session", || {
            (world.account("eve")["link"] == "up").then_some(())
        });
        let stop = eve.writer.try_clone().unwrap();
        let sent = packets(COUNT, "test.hub.eve.x", 28_000, 1_000);
        let mut alice = world.alice();
        let before = refused_so_far();
        let sending = thread::spawn(move || alice.send_all(&sent));
        // She begins to read when there is no room left.
        wait_for("the first packet that has no room", || {
            (refused_so_far() > before).then_some(())
        });
        let reading = thread::spawn(move || {
            while let Some((request, packet)) = eve.read_prepare() {
                if eve.reply(request, &raw::fulfill(&packet)).is_err() {
                    return;
                }
            }
        });
        let mut outcomes = BTreeMap::<String, usize>::new();
        for reply in sending.join().unwrap() {
            *outcomes.entry(outcome(&reply)).or_default() += 1;
        }
        let fulfilled = outcomes.get("fulfill").copied().unwrap_or_default();
        let refused = outcomes.get("T03 overload").copied().unwrap_or_default();
        assert_eq!(fulfilled + refused, COUNT, "{outcomes:?}");
        // At least what waits in the node when it says that there is no room, and nothing of it expired.
        assert!(fulfilled > 5_000, "{outcomes:?}");
        fulfilled_count += fulfilled;
        refused_count += refused;
        sent_count += COUNT;
        assert_eq!(world.hub.balance("eve"), 10 * fulfilled_count as i128);
        // The load is over, and the same session takes everything again.
        assert_eq!(world.account("eve")["link"], "up");
        let sent = world.send(&packets(500, "test.hub.eve.x", 20_000, 1_000));
        assert_eq!(sent, only("fulfill", 500));
        fulfilled_count += 500;
        stop.shutdown(Shutdown::Both).unwrap();
        reading.join().unwrap();
    }
    println!(
        "reliability: overload | {sent_count} packets to a peer that does not read before one is refused | \
         {} fulfilled, {refused_count} refused at once, 0 expired, 0 sessions lost",
        sent_count - refused_count
    );
    world.end(&format!("{sent_count} packets to a peer that is slower"));
}

/// What a load on several sessions came to.
struct Load {
    outcomes: BTreeMap<String, usize>,
    took: Duration,
}

impl World {
    /// So many sessions of alice's, each of which sends so many packets as fast as they are taken.
    fn load(&self, sessions: usize, each: usize) -> Load {
        let node = self.hub.node;
        let packets: Vec<_> = (0..sessions)
            .map(|_| packets(each, "test.hub.eve.x", 28_000, 32))
            .collect();
        // A session has an account of its own: the newest would end the others.
        for index in 0..sessions {
            let (status, _) = self.hub.call(
                "POST",
                "/v1/accounts",
                Some(json!({
                    "name": format!("load{index}"), "relation": "child", "asset_code": "USD",
                    "asset_scale": 9, "limits": {"balance_min": CREDIT},
                    "incoming_token": format!("token-from-load-{index}-to-hub"),
                })),
            );
            assert!([201, 409].contains(&status), "{status}");
        }
        let begin = Instant::now();
        let sending: Vec<_> = packets
            .into_iter()
            .enumerate()
            .map(|(index, packets)| {
                let token = format!("token-from-load-{index}-to-hub");
                let mut session = Btp::connect(node, &format!("load{index}"), &token);
                thread::spawn(move || session.send_all(&packets))
            })
            .collect();
        let mut outcomes = BTreeMap::new();
        for replies in sending {
            for reply in replies.join().unwrap() {
                *outcomes.entry(outcome(&reply)).or_default() += 1;
            }
        }
        let took = begin.elapsed();
        Load { outcomes, took }
    }
}

#[test]
fn ten_times_the_load_is_answered_packet_by_packet() {
    const EACH: usize = 4_000;
    let world = World::start();
    let mut eve = world.eve_over_btp();
    let stop = eve.writer.try_clone().unwrap();
    let answering = thread::spawn(move || {
        while let Some((request, packet)) = eve.read_prepare() {
            if eve.reply(request, &raw::fulfill(&packet)).is_err() {
                return;
            }
        }
    });
    // One that sends as fast as it is answered makes as much goodput as there is.
    let peak = world.load(1, EACH);
    assert_eq!(peak.outcomes, only("fulfill", EACH));
    let (mut rounds, mut fulfilled, mut took) = (0, 0, Duration::ZERO);
    // From the first packet of a round to its last answer: no packet can have waited longer.
    let mut longest = Duration::ZERO;
    while rounds == 0 || world.goes_on() {
        let loaded = world.load(10, EACH);
        let passed = loaded.outcomes.get("fulfill").copied().unwrap_or_default();
        let refused = loaded.outcomes.get("T03 overload").copied();
        let answered = passed + refused.unwrap_or_default();
        assert_eq!(answered, 10 * EACH, "{:?}", loaded.outcomes);
        assert!(passed >= EACH, "{:?}", loaded.outcomes);
        rounds += 1;
        fulfilled += passed;
        took += loaded.took;
        longest = longest.max(loaded.took);
    }
    let total = 10 * EACH * rounds;
    let rate = |count: usize, took: Duration| count as u128 * 1_000_000 / took.as_micros();
    println!(
        "reliability: overload | {EACH} packets on one session, then ten times as many at once | \
         {fulfilled} of {total} fulfilled, the others refused; {} a second, then {}, each answered within {} ms",
        rate(EACH, peak.took),
        rate(fulfilled, took),
        longest.as_millis(),
    );
    stop.shutdown(Shutdown::Both).unwrap();
    answering.join().unwrap();
    world.end(&format!(
        "{total} packets on 10 sessions, {} at once",
        10 * EACH
    ));
}

#[test]
fn fulfills_that_nobody_waits_for_any_more_are_counted_by_value() {
    const COUNT: usize = 20;
    let world = World::start();
    let mut eve = world.eve_over_btp();
    let mut count = 0;
    while world.goes_on() {
        count += COUNT;
        let sent = packets(COUNT, "test.hub.eve.x", 20_000, 32);
        // Half over BTP, half over HTTP, and both gone before the answers.
        let (over_btp, over_http) = sent.split_at(COUNT / 2);
        let mut alice = world.alice();
        for packet in over_btp {
            alice.write_prepare(packet);
        }
        let clients: Vec<_> = over_http
            .iter()
            .map(|packet| {
                let mut client = Client::new(world.hub.node, "/accounts/alice/ilp", ALICE);
                client.write(packet);
                client
            })
            .collect();
        let held: Vec<_> = (0..COUNT).map(|_| eve.read_prepare().unwrap()).collect();
        drop(alice);
        clients.into_iter().for_each(Client::leave);
        wait_for("the session's end", || {
            (world.account("alice")["link"] == "down").then_some(())
        });
        for (request, packet) in &held {
            eve.reply(*request, &raw::fulfill(packet)).unwrap();
        }
        wait_for("the fulfills to be counted", || {
            let stats = &world.account("alice")["stats"];
            (stats["undelivered_fulfills"] == count).then_some(())
        });
    }
    let metrics = world.hub.ok("GET", "/metrics", None);
    let line = format!(
        "rialto_undelivered_units_total{{account=\"alice\"}} {}\n",
        10 * count
    );
    assert!(metrics.as_str().unwrap().contains(&line));
    // The books have them all the same: who fulfilled in time is paid.
    assert_eq!(world.hub.balance("eve"), 10 * count as i128);
    assert_eq!(world.hub.balance("alice"), -10 * count as i128);
    world.end(&format!("{count} fulfills for clients that are gone"));
}

#[test]
fn a_peer_that_connects_again_and_again_does_not_fill_the_log() {
    const COUNT: usize = 300;
    let world = World::start();
    let mut last = world.alice();
    let mut count = 0;
    while world.goes_on() || count < COUNT {
        // The one before is superseded.
        last = world.alice();
        count += 1;
    }
    drop(last);
    wait_for("the last session's end", || {
        (world.account("alice")["link"] == "down").then_some(())
    });
    let log = world.hub.log();
    let is_of_alice = |line: &&str| line.contains("BTP session is") && line.contains("alice");
    let lines = log.lines().filter(is_of_alice).count();
    assert!((1..count / 2).contains(&lines), "{lines} lines");
    world.end(&format!("{count} sessions, each superseded by the next"));
}

#[test]
fn packets_held_to_expiry_use_up_their_senders_limit_only() {
    const LIMIT: usize = 1_000;
    let world = World::start();
    let eve = world.eve_over_btp();
    let limits = json!({"limits": {"balance_min": CREDIT, "in_flight_count_max": LIMIT}});
    world.hub.ok("PATCH", "/v1/accounts/alice", Some(limits));
    let mut alice = world.alice();
    let sending =
        thread::spawn(move || alice.send_all(&packets(LIMIT + 200, "test.hub.eve.x", 6_000, 32)));
    wait_for("the limit to be reached", || {
        let account = world.account("alice");
        let refused = &account["stats"]["refused"]["acct.inflight_limit"];
        (account["in_flight"]["count"] == LIMIT && *refused == 200).then_some(())
    });
    let mut outcomes = BTreeMap::new();
    for reply in sending.join().unwrap() {
        *outcomes.entry(outcome(&reply)).or_default() += 1;
    }
    let mut expected = only("R00 expiry.timed_out", LIMIT);
    expected.extend(only("T04 acct.inflight_limit", 200));
    assert_eq!(outcomes, expected);
    drop(eve);
    assert_eq!(world.account("alice")["in_flight"]["count"], 0);
    world.end(&format!(
        "{LIMIT} packets of one account held to expiry, and 200 more"
    ));
}

/// Sockets that this process and the node may both open, with some to spare.
fn sockets_max(wanted: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|it| it.starts_with("Max open files"));
    let soft = line.unwrap().split_whitespace().nth(3).unwrap();
    soft.parse()
        .map_or(wanted, |soft: usize| wanted.min(soft / 2))
}

fn open_files(node: &Node) -> usize {
    let folder = format!("/proc/{}/fd", node.pid());
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn idle_connections_are_let_go_and_hurt_nobody() {
    let world = World::start();
    let before = open_files(&world.hub);
    let count = sockets_max(8_000);
    // From several threads, so that they come faster than the node accepts.
    let node = world.hub.node;
    let connecting: Vec<_> = (0..4)
        .map(|_| {
            let connect = move |_| TcpStream::connect(node).unwrap();
            thread::spawn(move || (0..count / 4).map(connect).collect::<Vec<_>>())
        })
        .collect();
    let idle: Vec<_> = connecting
        .into_iter()
        .map(|it| it.join().unwrap())
        .collect();
    // In the meantime a new client gets its turn.
    let mut new = Client::new(world.hub.node, "/accounts/alice/ilp", ALICE);
    let packet = raw::prepare(raw::next_number(), 1, "test.nowhere.x", 20_000);
    assert_eq!(outcome(&new.send(&packet).unwrap()), "F02 route.none");
    wait_for("the node to let go of them", || {
        (open_files(&world.hub) < before + 100).then_some(())
    });
    drop(idle);
    let count = count / 4 * 4;
    world.end(&format!("{count} idle connections"));
}

#[test]
fn slow_heads_bodies_and_sessions_hold_up_nobody() {
    const EACH: usize = 400;
    let world = World::start();
    let open = |text: &str| {
        let mut stream = TcpStream::connect(world.hub.node).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(40)))
            .unwrap();
        stream
    };
    let heads: Vec<_> = (0..EACH)
        .map(|_| open("POST /accounts/alice/ilp HTTP/1.1\r\nHost: x\r\nX-A"))
        .collect();
    let body = format!(
        "POST /accounts/alice/ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\n"
    );
    let bodies: Vec<_> = (0..EACH).map(|_| open(&body)).collect();
    // Sessions that never say who they are.
    let unknown: Vec<_> = (0..EACH)
        .map(|_| Btp::open(world.hub.node, "alice").unwrap())
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // A byte now and then does not help, however long.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for mut stream in heads.iter().chain(&bodies) {
                    let _ = stream.write_all(b"a");
                }
                thread::park_timeout(Duration::from_millis(300));
            }
        });
        let _stop = StopOnDrop(&done);
        for mut stream in &bodies {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 408");
        }
        for mut stream in &heads {
            let read = stream.read(&mut [0; 12]);
            let is_open = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            assert!(!is_open, "a head that never ends keeps its connection");
        }
    });
    for mut session in unknown {
        session.read_to_close();
    }
    assert_eq!(world.alice_count(), 0);
    world.end(&format!(
        "{EACH} slow heads, {EACH} slow bodies, {EACH} sessions without a name"
    ));
}

#[test]
fn oversized_frames_and_bodies_are_refused_unread() {
    let world = World::start();
    // A frame that says it has 2^40 bytes, one that is a byte too long, and one in pieces.
    let mut huge = vec![BINARY_WHOLE, 0x80 | 127];
    huge.extend_from_slice(&(1u64 << 40).to_be_bytes());
    huge.extend_from_slice(&[0; 4]);
    type Send = Box<dyn Fn(&TcpStream) -> io::Result<()>>;
    let cases: [Send; 3] = [
        Box::new(move |mut stream| stream.write_all(&huge)),
        Box::new(|stream| write_websocket(stream, BINARY_WHOLE, &vec![6; 128 * 1024 + 1])),
        Box::new(|stream| {
            write_websocket(stream, 0x02, &[6; 1_000])?;
            (0..1_000).try_for_each(|_| write_websocket(stream, 0x00, &[6; 1_000]))
        }),
    ];
    let head = format!(
        "POST /accounts/alice/ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n\
         Content-Type: application/octet-stream\r\n"
    );
    let long = format!("X-Long: {}\r\n", "a".repeat(200_000));
    let chunk = format!("4000\r\n{}\r\n", "a".repeat(0x4000));
    let requests = [
        (format!("{head}Content-Length: 40001\r\n\r\n"), "413"),
        (
            format!("{head}Content-Length: 18446744073709551615\r\n\r\n"),
            "413",
        ),
        (
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{}",
                chunk.repeat(4)
            ),
            "413",
        ),
        (format!("{head}{long}\r\n"), "431"),
        (format!("{head}{}\r\n", "X-A: b\r\n".repeat(2_000)), "431"),
    ];
    let mut rounds = 0;
    while world.goes_on() {
        for send in &cases {
            let mut alice = world.alice();
            let _ = send(&alice.writer); // it may be closed before all is written
            assert_eq!(alice.read(), Some(Received::Close(1009)));
        }
        for (request, status) in &requests {
            let mut stream = TcpStream::connect(world.hub.node).unwrap();
            let _ = stream.write_all(request.as_bytes());
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(
                answer,
                format!("HTTP/1.1 {status}"),
                "{}",
                &request[..request.len().min(300)]
            );
        }
        rounds += 1;
    }
    assert_eq!(world.alice_count(), 0);
    world.end(&format!(
        "3 oversized frames, 5 oversized heads and bodies, {rounds} times"
    ));
}

/// An HTTP/2 frame.
fn h2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `POST http://x/accounts/alice/ilp`, by HPACK without a table.
fn h2_head() -> Vec<u8> {
    let mut head = vec![0x83, 0x86, 0x01, 1, b'x', 0x04];
    let path = b"/accounts/alice/ilp";
    head.push(path.len().to_be_bytes()[7]);
    head.extend_from_slice(path);
    let token = format!("Bearer {ALICE}");
    head.extend_from_slice(&[0x0f, 0x08, token.len().to_be_bytes()[7]]); // authorization
    head.extend_from_slice(token.as_bytes());
    head
}

/// The error code with which the node says that the connection ends, if it does (RFC 9113, section
/// 6.8).
fn goodbye(stream: TcpStream) -> Option<u32> {
    const GOAWAY: u8 = 7;
    let mut stream = BufReader::new(stream);
    let mut last = None;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return last;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            return last;
        }
        if head[3] == GOAWAY {
            last = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
}

#[test]
fn http2_floods_end_the_connection_that_floods() {
    const FRAMES: u32 = 1_000_000;
    /// Far fewer than those are taken, the ones that wait in sockets among them.
    const TAKEN_MAX: u32 = 500_000;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let world = World::start();
    const HEADERS: u8 = 1;
    const PRIORITY: u8 = 2;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;
    const UNKNOWN: u8 = 99;
    let rapid_reset = |number: u32| {
        let stream = 2 * number + 1;
        let mut frames = h2(HEADERS, 0x4, stream, &h2_head());
        frames.extend(h2(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        frames
    };
    let continuation = |number: u32| match number {
        0 => h2(HEADERS, 0, 1, &h2_head()),
        _ => h2(
            CONTINUATION,
            0,
            1,
            &[&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat(),
        ),
    };
    let empty_continuation = |number: u32| match number {
        0 => h2(HEADERS, 0, 1, &h2_head()),
        _ => h2(CONTINUATION, 0, 1, &[]),
    };
    let settings = |_| h2(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let acknowledged = |_| h2(SETTINGS, 1, 0, &[]);
    let ping = |_| h2(PING, 0, 0, &[7; 8]);
    let pong = |_| h2(PING, 1, 0, &[7; 8]);
    let priority = |_| h2(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
    let window = |_| h2(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
    let unknown = |_| h2(UNKNOWN, 0, 0, &[7; 8]);
    let empty = |number: u32| match number {
        0 => h2(HEADERS, 0x4, 1, &h2_head()),
        _ => h2(0, 0, 1, &[]),
    };
    type Flood<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);
    let floods: [Flood; 11] = [
        ("rapid reset", &rapid_reset),
        ("continuation", &continuation),
        ("empty continuation", &empty_continuation),
        ("settings", &settings),
        ("acknowledged settings", &acknowledged),
        ("ping", &ping),
        ("answered ping", &pong),
        ("priority", &priority),
        ("window update", &window),
        ("unknown frames", &unknown),
        ("empty data", &empty),
    ];
    let mut rounds = 0;
    while world.goes_on() {
        rounds += 1;
        for (name, frames) in &floods {
            for reads in [false, true] {
                let mut stream = TcpStream::connect(world.hub.node).unwrap();
                stream
                    .set_write_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                // One that never reads leaves to the node what the node would have to say.
                let reading = reads.then(|| {
                    let stream = stream.try_clone().unwrap();
                    thread::spawn(move || goodbye(stream))
                });
                stream
                    .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                    .unwrap();
                stream.write_all(&h2(SETTINGS, 0, 0, &[])).unwrap();
                let mut taken = 0;
                let ended = loop {
                    let batch: Vec<u8> = (taken..taken + 100).flat_map(frames).collect();
                    if let Err(error) = stream.write_all(&batch) {
                        break error;
                    }
                    taken += 100;
                    assert!(taken < TAKEN_MAX, "{name}: {taken} frames are taken");
                };
                assert_ne!(ended.kind(), ErrorKind::WouldBlock, "{name}: it stays open");
                let said = reading.map(|reading| reading.join().unwrap());
                let how = match said {
                    // Whoever breaks the protocol is told that, which is as good.
                    Some(code) => {
                        let code = code.unwrap_or_else(|| panic!("{name}: no GOAWAY"));
                        assert!([1, ENHANCE_YOUR_CALM].contains(&code), "{name}: {code}");
                        "that reads: closed with GOAWAY"
                    }
                    None => "that never reads: closed",
                };
                if rounds == 1 {
                    println!(
                        "reliability: hostile peers | HTTP/2 flood of {FRAMES} frames, {name}, by a client \
                 {how} | after at most {taken} frames"
                    );
                }
            }
        }
    }
    assert_eq!(world.alice_count(), 0);
    let log_bytes = world.hub.log().len();
    assert!(
        log_bytes < 100_000,
        "floods fill the log: {log_bytes} bytes"
    );
    world.end(&format!(
        "{} HTTP/2 floods of at most {FRAMES} frames, each by a client that reads and one that does not, \
         {rounds} times",
        floods.len()
    ));
}

/// Sends bytes, and reads until the node closes: the status of each answer.
fn statuses(node: &Node, bytes: &[u8]) -> Vec<String> {
    let mut stream = TcpStream::connect(node.node).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(40)))
        .unwrap();
    let _ = stream.write_all(bytes);
    let mut answers = Vec::new();
    let read = stream.read_to_end(&mut answers);
    let timed_out = |error: &io::Error| error.kind() == ErrorKind::WouldBlock;
    assert!(!read.as_ref().is_err_and(timed_out), "it stays open");
    let answers = String::from_utf8_lossy(&answers);
    let found = answers.split("HTTP/1.1 ").skip(1);
    found.map(|answer| answer[..3].to_owned()).collect()
}

/// Requests that are wrong in one way each, and the statuses that each may be answered with. What
/// follows on the same connection may not be answered at all.
const SMUGGLED: &str = include_str!("smuggled.json");

#[derive(serde::Deserialize)]
struct Smuggled {
    name: String,
    /// `{token}` stands for a valid one, `{length}` for the length of what follows.
    request: String,
    answer: Vec<String>,
}

#[test]
fn requests_that_two_readers_would_read_differently_smuggle_nothing() {
    let world = World::start();
    let packet = raw::prepare(raw::next_number(), 1, "test.hub.dave.x", 20_000);
    let request = |framing: &str| {
        format!(
            "POST /accounts/alice/ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n\
             Content-Type: application/octet-stream\r\n{framing}\r\n"
        )
    };
    // Whoever takes this for a request moves money, and says so in a second answer.
    let last = format!("Content-Length: {}\r\nConnection: close\r\n", packet.len());
    let mut hidden = request(&last).into_bytes();
    hidden.extend_from_slice(&packet);
    let cases: Vec<Smuggled> = serde_json::from_str(SMUGGLED).unwrap();
    let count = cases.len();
    let mut rounds = 0;
    while world.goes_on() {
        rounds += 1;
        for Smuggled {
            name,
            request,
            answer,
        } in &cases
        {
            let request = request
                .replace("{token}", ALICE)
                .replace("{length}", &hidden.len().to_string());
            let statuses = statuses(&world.hub, &[request.as_bytes(), &hidden].concat());
            assert!(
                statuses.len() == 1 && answer.contains(&statuses[0]),
                "{name}: {statuses:?}, not one of {answer:?}"
            );
        }
    }
    assert_eq!(world.hub.balance("alice"), 0);
    // Were it not for what is wrong with each of them, all would have moved money.
    let good = request("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n";
    let answers = statuses(&world.hub, &[good.as_bytes(), &hidden].concat());
    assert_eq!(answers, ["200", "200"]);
    assert_eq!(world.hub.balance("alice"), -1);
    world.end(&format!(
        "{count} requests that two readers would read differently, another behind each, {rounds} times"
    ));
}

#[test]
fn wrong_tokens_are_counted_and_open_nothing() {
    const CONNECTIONS: usize = 20;
    const SESSIONS: usize = 200;
    /// Guesses that are written at once.
    const BATCH: usize = 50;
    let wanted = env::var("RIALTO_WRONG_TOKENS").map_or(100_000, |count| count.parse().unwrap());
    let each: usize = wanted / CONNECTIONS;
    let world = World::start();
    let node = world.hub.node;
    let mut rounds = 0;
    while world.goes_on() {
        rounds += 1;
        let guessing: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                thread::spawn(move || {
                    let stream = TcpStream::connect(node).unwrap();
                    let mut writer = stream.try_clone().unwrap();
                    let writing = thread::spawn(move || {
                        let guess = |guess| {
                            format!(
                                "POST /accounts/alice/ilp HTTP/1.1\r\nHost: x\r\n\
                             Authorization: Bearer token-{connection}-{guess}-from-a-list\r\n\
                             Content-Length: 0\r\n\r\n"
                            )
                        };
                        for first in (0..each).step_by(BATCH) {
                            let batch: String =
                                (first..each.min(first + BATCH)).map(guess).collect();
                            writer.write_all(batch.as_bytes()).unwrap();
                        }
                    });
                    let lines = BufReader::new(stream).lines().map_while(Result::ok);
                    let refused = lines.filter(|line| line.starts_with("HTTP/1.1 401"));
                    assert_eq!(refused.take(each).count(), each);
                    writing.join().unwrap();
                })
            })
            .collect();
        for guess in 0..SESSIONS {
            let mut session = Btp::open(node, "alice").unwrap();
            session
                .write(&raw::auth(&format!("token-{guess}-from-a-list")))
                .unwrap();
            session.read_to_close();
        }
        guessing.into_iter().for_each(|it| it.join().unwrap());
    }
    let sessions = SESSIONS * rounds;
    let count = CONNECTIONS * each * rounds + sessions;
    let metrics = world.hub.ok("GET", "/metrics", None);
    let counted =
        format!("rialto_unauthenticated_total{{reason=\"auth.unknown_token\"}} {count}\n");
    assert!(metrics.as_str().unwrap().contains(&counted));
    assert_eq!(world.alice_count(), 0);
    let log_bytes = world.hub.log().len();
    assert!(
        log_bytes < 100_000,
        "strangers fill the log: {log_bytes} bytes"
    );
    world.end(&format!(
        "{count} wrong tokens, {sessions} of them over BTP"
    ));
}

/// Texts that break out of quotes, lines, labels, tables or paths where they are not escaped.
const HOSTILE: [&str; 14] = [
    "injected\n",
    "injected\r\nX-Injected: 1",
    "injected\"} 1\ninjected{a=\"",
    "injected\\",
    "injected\u{0}",
    "injected\u{1b}[31m",
    "injected\u{202e}",
    "injected é",
    "injected/../../etc",
    "injected%0a",
    "injected.a",
    "<script>injected</script>",
    "${jndi:injected}",
    "",
];

#[test]
fn hostile_names_reach_neither_log_nor_metrics() {
    let world = World::start();
    let long = "injected".repeat(2_000);
    let mut rounds = 0;
    while world.goes_on() {
        rounds += 1;
        for text in HOSTILE.into_iter().chain([long.as_str()]) {
            let account = |field: &str, value: &Value| {
                let mut account = json!({
                    "name": "new", "relation": "child", "asset_code": "USD", "asset_scale": 9,
                });
                account[field] = value.clone();
                account
            };
            for (field, value) in [
                ("name", json!(text)),
                ("ilp_address", json!(format!("test.hub.{text}"))),
                ("incoming_token", json!(format!("\n{text}\n"))),
                (
                    "http",
                    json!({"url": format!("http://h/ {text}"), "token": "t"}),
                ),
                ("asset_code", json!(text)),
                (
                    "btp",
                    json!({"url": format!("btp+ws://h {text}/"), "token": "t"}),
                ),
            ] {
                // Addresses may be longer, and have more parts; codes of assets are any printable text.
                let is_good = match field {
                    "ilp_address" => ["injected.a", &long].contains(&text),
                    "asset_code" => !text.is_empty() && !text.contains(char::is_control),
                    _ => false,
                };
                if is_good {
                    continue;
                }
                let body = account(field, &value);
                let (status, problem) = world.hub.call("POST", "/v1/accounts", Some(body));
                assert_eq!(status, 422, "{field} {text:?}: {problem}");
                assert!(problem.is_object(), "{field} {text:?}: {problem}");
            }
            for (prefix, account) in [(text, "dave"), ("test.dave2", text)] {
                if ["injected.a", ""].contains(&prefix) {
                    continue; // good ones
                }
                let body = json!({"prefix": prefix, "account": account});
                let (status, problem) = world.hub.call("PUT", "/v1/routes", Some(body));
                assert!([404, 422].contains(&status), "{text:?}: {status} {problem}");
            }
            // Strangers: a path, a token, a frame.
            let escaped = text.replace(['\r', '\n', '\0'], "%0a");
            for request in [
                format!("GET /accounts/{escaped}/spsp HTTP/1.1\r\nHost: x\r\n"),
                format!("POST /ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {escaped}\r\n"),
            ] {
                let mut stream = TcpStream::connect(world.hub.node).unwrap();
                write!(
                    stream,
                    "{request}Content-Length: 0\r\nConnection: close\r\n\r\n"
                )
                .unwrap();
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                assert!(answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
                assert!(!answer.contains("njected"), "{answer}");
            }
            let mut session = Btp::open(world.hub.node, "alice").unwrap();
            session.write(&raw::auth(text)).unwrap();
            session.read_to_close();
        }
    }
    // Good, though it looks like the end of a label and the beginning of another.
    world.hub.account(json!({
        "name": "quoted", "relation": "local", "asset_code": "a\"},b=\"c\\", "asset_scale": 0,
    }));
    let metrics = world.hub.ok("GET", "/metrics", None);
    let line = "\nrialto_account_balance_units{account=\"quoted\",\
                asset_code=\"a\\\"},b=\\\"c\\\\\",asset_scale=\"0\"} 0\n";
    assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
    let count = HOSTILE.len() + 1;
    let hub = world.end(&format!(
        "{count} hostile texts as names, tokens, addresses, routes, assets, URLs and paths, {rounds} times"
    ));
    let metrics = hub.ok("GET", "/metrics", None);
    assert!(!metrics.as_str().unwrap().contains("njected"));
    assert!(
        !hub.ok("GET", "/v1/accounts", None)
            .to_string()
            .contains("njected")
    );
    for line in hub.log().lines() {
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert!(parsed.is_object(), "{line}");
        assert!(!line.contains("njected"), "{line}");
    }
    assert!(!hub.log().contains(ADMIN_TOKEN));
}

/// The destination of a packet is a stranger's text, too.
#[test]
fn hostile_destinations_are_refused_without_a_trace() {
    let world = World::start();
    let good = raw::prepare(
        raw::next_number(),
        1,
        "test.hub.aaaaaaaaaaaaaaaaaaaaaaaa",
        20_000,
    );
    let at = good.windows(4).position(|it| it == b"aaaa").unwrap();
    let mut alice = world.alice();
    let mut count = 0;
    while world.goes_on() {
        for text in HOSTILE
            .iter()
            .filter(|text| !text.is_empty() && **text != "injected.a")
        {
            let mut packet = good.clone();
            let text = &text.as_bytes()[..text.len().min(24)];
            packet[at..at + text.len()].copy_from_slice(text);
            let reply = alice.send(&packet).unwrap();
            assert_eq!(outcome(&reply), "F01 addr.invalid");
            assert!(Prepare::parse(&packet[..]).is_err());
            count += 1;
        }
    }
    drop(alice);
    let hub = world.end(&format!("{count} hostile destinations"));
    assert!(!hub.log().contains("njected"));
}
