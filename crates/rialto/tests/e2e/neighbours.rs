//! Three nodes in a row, packets both ways over BTP and HTTP at once, and one of the nodes taken down
//! at a random moment: afterwards the books of neighbours say the same, to the unit.
//!
//! Sender `s` sends packets of 2^s units, one after the other, until one is not fulfilled. So a sum
//! of the packets whose outcome a round leaves open says which of them it contains.

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rialto_packet::Reply;
use serde_json::json;

use crate::{
    harness::{CREDIT, Node, WAIT_MAX, wait_for},
    raw::{self, Btp, Client, Fulfilled, Server, outcome},
};

/// Senders of one direction over HTTP, and as many over BTP.
const SENDERS_EACH: u32 = 4;
const SENDERS: u32 = 2 * SENDERS_EACH;

/// Rows of nodes at the same time: while one waits for packets to expire, another is under load.
const ROWS: u64 = 4;

/// Most packets that are fulfilled in a round before the node goes down.
const PACKETS_MAX: u64 = 200;

/// A packet whose sender does not know what became of it, or knows that it was refused.
struct Open {
    number: u64,
    amount: u64,
    /// The connection broke before there was an answer.
    is_broken: bool,
}

/// What the senders of one direction know of the packets of a round.
#[derive(Default)]
struct Known {
    packets: u64,
    /// Sum of the Fulfills that arrived.
    proved: u64,
    open: Vec<Open>,
}

impl Known {
    /// Which of the open packets the receiver fulfilled, as a set of bits.
    fn fulfilled(&self, receiver: &Fulfilled, of: impl Fn(&Open) -> bool) -> u64 {
        let open = self.open.iter();
        let fulfilled = open.filter(|open| of(open) && receiver.contains(open.number));
        fulfilled.map(|open| open.amount).sum()
    }
}

/// One way along the row: who sends at its beginning, and what arrived at its end.
struct Direction {
    payer: usize,
    destination: &'static str,
    /// The amount of its first sender.
    unit: u64,
    receiver: Fulfilled,
    _server: Server,
}

/// Alice and the hub are connected by BTP, either may dial; the hub and bob by HTTP.
struct Row {
    nodes: [Node; 3],
    forth: Direction,
    back: Direction,
}

const ALICE: usize = 0;
const HUB: usize = 1;
const BOB: usize = 2;

/// Units that passed: forth out of alice and into bob's user, back out of bob and into alice's
/// user, and what the hub owes bob for both together.
#[derive(Clone, Copy, Default, Debug)]
struct Books {
    forth: [i128; 2],
    back: [i128; 2],
    hub: i128,
}

impl Books {
    fn since(&self, before: &Self) -> Self {
        let pair = |now: [i128; 2], then: [i128; 2]| [now[0] - then[0], now[1] - then[1]];
        Self {
            forth: pair(self.forth, before.forth),
            back: pair(self.back, before.back),
            hub: self.hub - before.hub,
        }
    }
}

/// How a node is taken down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Kill,
    Terminate,
}

impl How {
    /// Of the packets. A packet that was cut off is in flight until then, and the round with it; when
    /// none may be lost, a slow machine must not be the reason.
    fn life_ms(self) -> i64 {
        match self {
            Self::Kill => 1_000,
            Self::Terminate => 5_000,
        }
    }
}

/// What rounds came to.
#[derive(Default)]
struct Tally {
    packets: u64,
    units: u64,
    /// Packets whose answer was lost, and of these the ones that moved money somewhere.
    open: u64,
    open_booked: u64,
}

impl Row {
    fn start() -> Self {
        let [forth, back] = [
            (ALICE, "test.hub.bob.user.x", 1),
            (BOB, "test.hub.alice.user.x", 1 << SENDERS),
        ]
        .map(|(payer, destination, unit)| {
            let receiver = Fulfilled::default();
            let server = receiver.server();
            Direction {
                payer,
                destination,
                unit,
                receiver,
                _server: server,
            }
        });
        let nodes = [
            ("alice", "test.hub.alice"),
            ("hub", "test.hub"),
            ("bob", "test.hub.bob"),
        ]
        .map(|(name, address)| Node::start(name, address, "min_message_window_ms = 50"));
        let [alice, hub, bob] = &nodes;
        let neighbour = |name: &str, relation: &str, link: &str, way: serde_json::Value| {
            json!({
                "name": name, "relation": relation, "asset_code": "USD", "asset_scale": 9,
                "limits": {"balance_min": CREDIT}, "incoming_token": token(name), link: way,
            })
        };
        let way = |url: String, own: &str| json!({"url": url, "token": token(own)});
        hub.account(neighbour(
            "alice",
            "child",
            "btp",
            way(alice.btp_url("hub"), "hub"),
        ));
        hub.account(neighbour(
            "bob",
            "child",
            "http",
            way(bob.ilp_url("hub"), "hub"),
        ));
        alice.account(neighbour(
            "hub",
            "parent",
            "btp",
            way(hub.btp_url("alice"), "alice"),
        ));
        bob.account(neighbour(
            "hub",
            "parent",
            "http",
            way(hub.ilp_url("bob"), "bob"),
        ));
        for (node, arrives) in [(alice, &back), (bob, &forth)] {
            let url = format!("http://{}/ilp", arrives._server.address);
            node.account(json!({
                "name": "user", "relation": "child", "asset_code": "USD", "asset_scale": 9,
                "http": {"url": url, "token": token("node")},
            }));
            let payers = (0..SENDERS_EACH).map(payer_over_btp);
            for payer in payers.chain(["payer".to_owned()]) {
                let token = token(&payer);
                node.account(json!({
                    "name": payer, "relation": "child", "asset_code": "USD", "asset_scale": 9,
                    "limits": {"balance_min": CREDIT}, "incoming_token": token,
                }));
            }
        }
        Self { nodes, forth, back }
    }

    /// Until packets pass both ways, over links that had been cut.
    fn wait_connected(&self) {
        for (node, account) in [(ALICE, "hub"), (HUB, "alice")] {
            wait_for("the BTP session", || {
                let account = self.nodes[node].ok("GET", &format!("/v1/accounts/{account}"), None);
                (account["link"] == "up").then_some(())
            });
        }
        for direction in [&self.forth, &self.back] {
            let mut client = Client::new(
                self.nodes[direction.payer].node,
                "/accounts/payer/ilp",
                &token("payer"),
            );
            wait_for("a packet of nothing", || {
                let packet = raw::prepare(0, 0, direction.destination, 10_000);
                matches!(client.send(&packet), Some(Reply::Fulfill(_))).then_some(())
            });
        }
    }

    fn books(&self) -> Books {
        let [alice, hub, bob] = [ALICE, HUB, BOB].map(|node| {
            self.nodes[node].assert_books_add_up();
            self.nodes[node].balances()
        });
        let sent = |balances: &std::collections::BTreeMap<String, i128>| -> i128 {
            let payers = balances.iter();
            -payers
                .filter(|(name, _)| name.starts_with("payer"))
                .map(|(_, balance)| balance)
                .sum::<i128>()
        };
        assert_eq!(hub["alice"], -hub["bob"]);
        Books {
            forth: [sent(&alice), bob["user"]],
            back: [sent(&bob), alice["user"]],
            hub: hub["bob"],
        }
    }

    fn is_quiet(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.ok("GET", "/v1/status", None)["in_flight_count"] == 0)
    }

    /// Load both ways, one node down and up again after so many packets, and the books compared.
    fn round(&mut self, how: How, victim: usize, packets: u64, before: &Books) -> (Books, Tally) {
        let (forth, back) = <(Mutex<Known>, Mutex<Known>)>::default();
        let (stop, ended) = (AtomicBool::new(false), Mutex::new(0));
        self.wait_connected();
        thread::scope(|scope| {
            for (direction, known) in [(&self.forth, &forth), (&self.back, &back)] {
                for sender in 0..SENDERS {
                    let node = self.nodes[direction.payer].node;
                    let amount = direction.unit << sender;
                    let (stop, ended) = (&stop, &ended);
                    let way = Way::open(node, sender);
                    scope.spawn(move || {
                        run_sender(way, amount, direction.destination, how, known, stop);
                        *ended.lock().unwrap() += 1;
                    });
                }
            }
            // Packets may expire on a machine that is busy enough, and end all senders.
            wait_for("load", || {
                let passed = forth.lock().unwrap().packets + back.lock().unwrap().packets;
                (passed >= packets || *ended.lock().unwrap() == 2 * SENDERS).then_some(())
            });
            let node = &mut self.nodes[victim];
            match how {
                How::Kill => node.kill(),
                How::Terminate => assert_eq!(node.terminate(), 0),
            }
            stop.store(true, Ordering::Relaxed);
            node.restart();
        });
        self.wait_connected();

        let (forth, back) = (forth.into_inner().unwrap(), back.into_inner().unwrap());
        let mut last = String::new();
        let until = std::time::Instant::now() + WAIT_MAX;
        loop {
            if self.is_quiet() {
                let books = self.books();
                match self.compare(how, victim, &books.since(before), &forth, &back) {
                    Ok(tally) => return (books, tally),
                    Err(difference) => last = difference,
                }
            }
            assert!(std::time::Instant::now() < until, "{last}");
            thread::park_timeout(crate::harness::LOOK_EVERY);
        }
    }

    /// What the books of a round say, beside what senders and receivers know.
    fn compare(
        &self,
        how: How,
        victim: usize,
        books: &Books,
        forth: &Known,
        back: &Known,
    ) -> Result<Tally, String> {
        let mut tally = Tally::default();
        // Between the ends of each direction: money moves at the end first, then towards the payer.
        let mut beyond = [0, 0];
        let directions = [
            (&self.forth, forth, books.forth),
            (&self.back, back, books.back),
        ];
        for (index, (direction, known, [paid, arrived])) in directions.into_iter().enumerate() {
            let all = known.fulfilled(&direction.receiver, |_| true);
            let broken = known.fulfilled(&direction.receiver, |open| open.is_broken);
            let unproved = paid - i128::from(known.proved);
            let cut = arrived - paid;
            if !is_part(unproved, broken) || !is_part(cut, all) {
                return Err(format!(
                    "to {}: {} proved, {paid} paid, {arrived} arrived; open and fulfilled {all:b}, \
                     broken {broken:b}",
                    direction.destination, known.proved
                ));
            }
            if how == How::Terminate && (all, unproved, cut) != (0, 0, 0) {
                return Err(format!(
                    "to {}: {all:b} were fulfilled and their answers lost",
                    direction.destination
                ));
            }
            beyond[index] = cut;
            tally.packets += known.packets;
            tally.units += known.proved;
            tally.open += known.open.len() as u64;
            tally.open_booked += u64::from((unproved + cut).unsigned_abs().count_ones());
        }

        // The hub in the middle: forth it has booked what alice has and maybe some of what only bob
        // has, and back the same the other way round.
        let difference = books.hub - (books.forth[0] - books.back[0]);
        let at_alice = difference.rem_euclid(1 << SENDERS);
        let at_bob = at_alice - difference;
        let is_between = |part: i128, whole: i128| is_part(part, u64::try_from(whole).unwrap());
        if !is_between(at_alice, beyond[0]) || !is_between(at_bob, beyond[1]) {
            return Err(format!(
                "the hub is off by {difference}, of {:b} and {:b}",
                beyond[0], beyond[1]
            ));
        }
        // A link whose two ends stayed up agrees, unless packets came too late.
        let (alice_hub, hub_bob) = (
            (at_alice, beyond[1] - at_bob),
            (beyond[0] - at_alice, at_bob),
        );
        let agreed = match victim {
            ALICE => hub_bob == (0, 0) || self.is_late(HUB, "bob") || self.is_late(BOB, "hub"),
            BOB => alice_hub == (0, 0) || self.is_late(HUB, "alice") || self.is_late(ALICE, "hub"),
            _ => true,
        };
        match agreed {
            true => Ok(tally),
            false => Err(format!(
                "neighbours that stayed up differ: {alice_hub:?} {hub_bob:?}"
            )),
        }
    }

    fn is_late(&self, node: usize, account: &str) -> bool {
        let account = self.nodes[node].ok("GET", &format!("/v1/accounts/{account}"), None);
        account["stats"]["late_fulfills"] != 0
    }
}

fn payer_over_btp(number: u32) -> String {
    format!("payer-{number}")
}

/// With which this account's holder comes to the node.
fn token(account: &str) -> String {
    format!("token-of-the-account-{account}")
}

/// Whether an amount is the sum of some of these powers of two.
fn is_part(amount: i128, whole: u64) -> bool {
    u64::try_from(amount).is_ok_and(|amount| amount & !whole == 0)
}

enum Way {
    Http(Client),
    Btp(Btp),
}

impl Way {
    fn open(node: std::net::SocketAddr, sender: u32) -> Self {
        if sender < SENDERS_EACH {
            Self::Http(Client::new(node, "/accounts/payer/ilp", &token("payer")))
        } else {
            let account = payer_over_btp(sender - SENDERS_EACH);
            Self::Btp(Btp::connect(node, &account, &token(&account)))
        }
    }

    fn send(&mut self, packet: &[u8]) -> Option<Reply<Vec<u8>>> {
        match self {
            Self::Http(client) => client.send(packet),
            Self::Btp(session) => session.send(packet),
        }
    }
}

/// Until told to stop, or until a packet is not fulfilled.
fn run_sender(
    mut way: Way,
    amount: u64,
    destination: &str,
    how: How,
    known: &Mutex<Known>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        let number = raw::next_number();
        let packet = raw::prepare(number, amount, destination, how.life_ms());
        let reply = way.send(&packet);
        let mut known = known.lock().unwrap();
        let is_broken = match &reply {
            Some(Reply::Fulfill(_)) => {
                known.packets += 1;
                known.proved += amount;
                continue;
            }
            Some(reply @ Reply::Reject(_)) => {
                let outcome = outcome(reply);
                assert!(
                    !outcome.starts_with('F'),
                    "{outcome}: nothing is wrong with it"
                );
                false
            }
            None => true,
        };
        known.open.push(Open {
            number,
            amount,
            is_broken,
        });
        return;
    }
}

/// The same numbers each time; what happens within a round is up to the machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn run_rounds(how: How, rounds: u64) -> Tally {
    let rows = ROWS.min(rounds);
    let sum = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for row in 0..rows {
            let sum = &sum;
            scope.spawn(move || {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (row + 1));
                let mut nodes = Row::start();
                let mut books = Books::default();
                for _ in 0..(rounds + row) / rows {
                    let victim = [ALICE, HUB, BOB][usize::try_from(dice.below(3)).unwrap()];
                    let packets = 1 + dice.below(PACKETS_MAX);
                    let (after, tally) = nodes.round(how, victim, packets, &books);
                    books = after;
                    let mut sum = sum.lock().unwrap();
                    sum.packets += tally.packets;
                    sum.units += tally.units;
                    sum.open += tally.open;
                    sum.open_booked += tally.open_booked;
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

#[test]
fn after_sigkill_of_any_node_neighbours_agree() {
    let rounds = env::var("RIALTO_KILL_ROUNDS").map_or(100, |rounds| rounds.parse().unwrap());
    let tally = run_rounds(How::Kill, rounds);
    println!(
        "reliability: kill | {rounds} SIGKILL of one of three nodes, BTP and HTTP both ways, {} \
         packets proved, {} open, {} of these booked by a part of the row | 0 units wrong",
        tally.packets, tally.open, tally.open_booked
    );
    // A run in which nothing was ever cut off would show nothing.
    assert!(tally.open_booked > 0);
}

#[test]
fn after_sigterm_of_any_node_no_accepted_packet_is_lost() {
    const ROUNDS: u64 = 16;
    let tally = run_rounds(How::Terminate, ROUNDS);
    println!(
        "reliability: drain | {ROUNDS} SIGTERM of one of three nodes, BTP and HTTP both ways, {} \
         packets fulfilled, {} refused or never accepted | 0 accepted packets lost",
        tally.packets, tally.open
    );
}
