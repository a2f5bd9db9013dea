//! SIGKILL and SIGTERM under load: what a neighbour can prove is in the books, to the unit.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rialto_packet::Reply;
use serde_json::json;

use crate::{
    harness::{CREDIT, Node, wait_for},
    raw::{self, Client, Fulfilled},
};

/// Senders at the same time. Sender `s` sends packets of 2^s units, so that any sum of the packets
/// whose outcome one round leaves open says which ones it contains.
const SENDERS: u32 = 16;

/// What senders know of their packets since the last look.
#[derive(Default)]
struct Known {
    /// Sum of the Fulfills that arrived.
    proved: u64,
    /// Sent, and the connection broke before an answer: number and amount.
    open: HashMap<u64, u64>,
}

fn hub(fulfilled: &Fulfilled) -> (Node, raw::Server) {
    let server = fulfilled.server();
    let hub = Node::start("hub", "test.hub", "");
    hub.account(json!({
        "name": "alice", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": "token-from-alice-to-hub",
    }));
    hub.account(json!({
        "name": "bob", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "http": {"url": format!("http://{}/ilp", server.address), "token": "t"},
    }));
    (hub, server)
}

/// Sends packets until told to stop, one after the other, over a connection that may break.
fn run_sender(hub: Client, amount: u64, known: Arc<Mutex<Known>>, stop: Arc<AtomicBool>) {
    let mut hub = hub;
    while !stop.load(Ordering::Relaxed) {
        let number = raw::next_number();
        let packet = raw::prepare(number, amount, "test.hub.bob.x", 20_000);
        known.lock().unwrap().open.insert(number, amount);
        match hub.send(&packet) {
            Some(Reply::Fulfill(_)) => {
                let mut known = known.lock().unwrap();
                known.open.remove(&number);
                known.proved += amount;
            }
            Some(Reply::Reject(reject)) => panic!("rejected: {}", reject.message()),
            None => return, // the hub was killed; what became of this packet is open
        }
    }
}

#[test]
fn after_sigkill_the_books_hold_what_neighbours_can_prove() {
    let fulfilled = Fulfilled::default();
    let (mut hub, _server) = hub(&fulfilled);
    let (mut total_proved, mut total_packets) = (0, 0);
    let mut before = 0;
    for round in 0..10u64 {
        let (known, stop) = (
            Arc::new(Mutex::new(Known::default())),
            Arc::new(AtomicBool::new(false)),
        );
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let client =
                    Client::new(hub.node, "/accounts/alice/ilp", "token-from-alice-to-hub");
                let (known, stop) = (Arc::clone(&known), Arc::clone(&stop));
                thread::spawn(move || run_sender(client, 1 << sender, known, stop))
            })
            .collect();
        // Not before every sender is under way, and then at another moment in each round.
        let enough = (round + 1) * 200_000;
        wait_for("load", || {
            (known.lock().unwrap().proved > enough).then_some(())
        });
        hub.kill();
        stop.store(true, Ordering::Relaxed);
        senders
            .into_iter()
            .for_each(|sender| sender.join().unwrap());
        hub.restart();

        let known = known.lock().unwrap();
        let owed = -hub.balance("alice");
        assert_eq!(owed, hub.balance("bob"), "what alice owes, bob is owed");
        hub.assert_books_add_up();
        let booked = u64::try_from(owed - before).unwrap();
        assert!(
            booked >= known.proved,
            "round {round}: {} of {} proved units",
            booked,
            known.proved
        );

        // What is booked beyond the proofs is a set of packets that were open, and that bob fulfilled.
        let mut beyond = booked - known.proved;
        for (number, amount) in &known.open {
            if beyond & amount != 0 {
                assert!(
                    fulfilled.contains(*number),
                    "booked, but bob never fulfilled it"
                );
                beyond -= amount;
            }
        }
        assert_eq!(beyond, 0, "round {round}: units that belong to no packet");
        before = owed;
        total_proved += known.proved;
        total_packets += known.open.len();
    }
    println!(
        "reliability: kill | 10 SIGKILLs of a node between raw HTTP neighbours, {total_proved} units \
         proved and found, {total_packets} packets left open | 0 units wrong"
    );
}

#[test]
fn sigterm_answers_and_books_every_accepted_packet() {
    let fulfilled = Fulfilled::default();
    let (mut hub, _server) = hub(&fulfilled);
    let stop = Arc::new(AtomicBool::new(false));
    let known = Arc::new(Mutex::new(Known::default()));
    let drained = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let mut client =
                Client::new(hub.node, "/accounts/alice/ilp", "token-from-alice-to-hub");
            let (known, stop, drained) =
                (Arc::clone(&known), Arc::clone(&stop), Arc::clone(&drained));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let (number, amount) = (raw::next_number(), 1 << sender);
                    let packet = raw::prepare(number, amount, "test.hub.bob.x", 20_000);
                    match client.send(&packet) {
                        Some(Reply::Fulfill(_)) => known.lock().unwrap().proved += amount,
                        Some(Reply::Reject(reject)) => {
                            assert_eq!(reject.code().to_string(), "T03");
                            assert!(reject.message().starts_with("drain"));
                            drained.store(true, Ordering::Relaxed);
                            return;
                        }
                        None => {
                            // Only a packet that never reached the node may break off.
                            known.lock().unwrap().open.insert(number, amount);
                            return;
                        }
                    }
                }
            })
        })
        .collect();
    wait_for("load", || {
        (known.lock().unwrap().proved > 1_000_000).then_some(())
    });
    assert_eq!(hub.terminate(), 0);
    stop.store(true, Ordering::Relaxed);
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
    hub.restart();
    let known = known.lock().unwrap();
    assert_eq!(-hub.balance("alice"), i128::from(known.proved));
    for number in known.open.keys() {
        assert!(
            !fulfilled.contains(*number),
            "accepted, forwarded, and its answer was dropped"
        );
    }
    println!(
        "reliability: drain | SIGTERM under load | {} units proved, all of them booked, no accepted packet \
         left without an answer",
        known.proved
    );
}

#[test]
fn a_payment_that_is_cut_off_says_how_far_it_came_and_its_key_pays_once() {
    let line = crate::harness::Line::start("2", |address| address);
    let mut line = line;
    let request = json!({
        "account": "wallet", "receiver": line.bob.pointer("shop"), "amount": "100000000000",
        "packet_max": "1000",
    });
    let address = line.alice.admin;
    let asked = request.clone();
    let asking = thread::spawn(move || {
        crate::harness::call(
            address,
            "POST",
            "/v1/payments?wait=30",
            Some(&asked),
            "once",
        )
    });
    wait_for("some of the payment", || {
        (line.bob.balance("shop") > 1_000).then_some(())
    });
    line.alice.kill();
    let _ = asking.join();
    line.alice.restart();
    line.wait_connected();

    let payment = line.alice.pay("once", &request);
    assert_eq!(payment["state"], "failed");
    assert_eq!(payment["error"]["code"], "interrupted");
    let sent: i128 = payment["sent"]["amount"].as_str().unwrap().parse().unwrap();
    assert!(sent > 0);
    assert_eq!(
        sent,
        -line.alice.balance("wallet"),
        "what was sent, to the unit"
    );
    // Asked again, it is the same payment, and nothing moves.
    let (hub_before, again) = (line.hub.balance("alice"), line.alice.pay("once", &request));
    assert_eq!(again, payment);
    thread::park_timeout(Duration::from_millis(200));
    assert_eq!(line.hub.balance("alice"), hub_before);
}
