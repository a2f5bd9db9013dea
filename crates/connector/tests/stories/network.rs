//! Fifty nodes that tell each other routes: they converge from any start, again after links fail and
//! return, and no packet ever passes a node twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rialto_ccp::{UPDATE_DESTINATION, Update};
use rialto_connector::{Action, Connector, Effects, Input, LinkId, Now, RequestId, Settings};
use rialto_ledger::{AccountId, RouteExchange};
use rialto_packet::{Prepare, Reply, Timestamp};

use crate::{
    node::{MS, prepare_bytes, sha256},
    story::account,
};

const NODES: usize = 50;
/// One way between neighbours.
const DELAY_NS: u64 = 10 * MS;
/// Nothing but heartbeats for this long: the network has converged.
const QUIET_NS: u64 = 8_000 * MS;
const CONVERGE_NS_MAX: u64 = 600_000 * MS;
/// The number of the session that test packets come from.
const PROBE: LinkId = LinkId::Waiting { worker: 0 };

enum Happening {
    Arrives {
        node: usize,
        link: LinkId,
        input: Input,
    },
    Up {
        edge: usize,
    },
}

#[derive(Default)]
struct Counts {
    /// Updates that carried anything.
    updates: usize,
    delivered: usize,
    refused: usize,
    loops: usize,
}

struct Network {
    nodes: Vec<Connector>,
    edges: Vec<(usize, usize)>,
    /// The number of the present session of each edge, if it is up.
    up: Vec<Option<u32>>,
    last_serial: u32,
    rng: ChaCha20Rng,
    now_ns: u64,
    events: BTreeMap<(u64, u64), Happening>,
    last_event: u64,
    timers: BTreeSet<(u64, usize)>,
    timer_of: Vec<Option<u64>>,
    /// Where each test packet has been.
    seen: BTreeMap<u64, BTreeSet<usize>>,
    last_packet: u64,
    last_told_ns: u64,
    counts: Counts,
}

impl Network {
    fn new(edges: Vec<(usize, usize)>, seed: u64) -> Self {
        let node = |index: usize| {
            let mut settings = Settings::new(format!("g.n{index}").parse().unwrap());
            settings.min_message_window_ms = 10;
            let rng = ChaCha20Rng::seed_from_u64(seed * 1_000 + index as u64);
            Connector::new(settings, [7; 32], rng)
        };
        let mut network = Self {
            nodes: (0..NODES).map(node).collect(),
            up: vec![None; edges.len()],
            edges,
            last_serial: 0,
            rng: ChaCha20Rng::seed_from_u64(seed),
            now_ns: 1_000 * MS,
            events: BTreeMap::new(),
            last_event: 0,
            timers: BTreeSet::new(),
            timer_of: vec![None; NODES],
            seen: BTreeMap::new(),
            last_packet: 0,
            last_told_ns: 0,
            counts: Counts::default(),
        };
        for index in 0..NODES {
            network.step(index, |core, _, out| {
                core.account_create(account("probe", "USD/9"), out).unwrap();
            });
        }
        for (a, b) in network.edges.clone() {
            for (node, neighbour) in [(a, b), (b, a)] {
                network.step(node, |core, _, out| {
                    let mut peer = account(&format!("n{neighbour}"), "USD/9");
                    peer.routes = RouteExchange {
                        send: Some(true),
                        receive: Some(true),
                        ..RouteExchange::default()
                    };
                    core.account_create(peer, out).unwrap();
                });
            }
        }
        network
    }

    fn now(&self) -> Now {
        Now {
            mono_ns: self.now_ns,
            wall: Timestamp::from_unix_ms(
                1_900_000_000_000 + i64::try_from(self.now_ns / MS).unwrap(),
            ),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.next_u64() % bound as u64).unwrap()
    }

    fn after(&mut self, delay_ns: u64, happening: Happening) {
        self.last_event += 1;
        self.events
            .insert((self.now_ns + delay_ns, self.last_event), happening);
    }

    fn account(&self, node: usize, name: &str) -> AccountId {
        self.nodes[node].ledger().account_by_name(name).unwrap().id
    }

    /// The edge and the other end of a session.
    fn other_end(&self, node: usize, link: LinkId) -> Option<(usize, LinkId)> {
        let LinkId::Session { serial, .. } = link else {
            return None;
        };
        let edge = self.up.iter().position(|up| *up == Some(serial))?;
        let (a, b) = self.edges[edge];
        Some((if a == node { b } else { a }, link))
    }

    fn step(&mut self, node: usize, act: impl FnOnce(&mut Connector, Now, &mut Effects)) {
        let mut out = Effects::default();
        let now = self.now();
        act(&mut self.nodes[node], now, &mut out);
        for effect in out.drain().collect::<Vec<_>>() {
            match effect.action {
                Action::Forward {
                    link,
                    request,
                    packet,
                    ..
                } => self.forward(node, link, request, &packet),
                Action::Answer {
                    link,
                    request,
                    packet,
                    ..
                } => self.answer(node, link, request, packet),
                Action::Disconnect { .. } | Action::Engine { .. } | Action::Report(_) => {}
            }
        }
        let due = self.nodes[node].poll_timeout();
        if let Some(old) = std::mem::replace(&mut self.timer_of[node], due) {
            self.timers.remove(&(old, node));
        }
        self.timers.extend(due.map(|due| (due, node)));
    }

    fn forward(&mut self, node: usize, link: LinkId, request: RequestId, packet: &Bytes) {
        let view = Prepare::parse(packet.clone()).unwrap();
        if view.destination().as_str() == UPDATE_DESTINATION {
            let update = Update::parse(view.data()).unwrap();
            if update.routes().left() + update.withdrawn().left() > 0 {
                self.counts.updates += 1;
                self.last_told_ns = self.now_ns;
            }
        }
        let Some((other, link)) = self.other_end(node, link) else {
            return;
        };
        let input = Input::Prepare {
            account: self.account(other, &format!("n{node}")),
            link,
            request,
            packet: BytesMut::from(&packet[..]),
        };
        self.after(
            DELAY_NS,
            Happening::Arrives {
                node: other,
                link,
                input,
            },
        );
    }

    fn answer(&mut self, node: usize, link: LinkId, request: RequestId, packet: Bytes) {
        if link == PROBE {
            match Reply::parse(packet).unwrap() {
                Reply::Fulfill(_) => self.counts.delivered += 1,
                Reply::Reject(_) => self.counts.refused += 1,
            }
            self.seen.remove(&request.0);
        } else if let Some((other, link)) = self.other_end(node, link) {
            let input = Input::Reply {
                link,
                request,
                packet,
            };
            self.after(
                DELAY_NS,
                Happening::Arrives {
                    node: other,
                    link,
                    input,
                },
            );
        }
    }

    /// A packet without money to another node, which answers it.
    fn ping(&mut self, from: usize, to: usize) {
        self.last_packet += 1;
        let number = self.last_packet;
        self.seen.insert(number, BTreeSet::new());
        let packet = prepare_bytes(
            0,
            self.now().wall.plus_ms(20_000),
            sha256(b"pingpingpingpingpingpingpingping"),
            &format!("g.n{to}"),
            &number.to_be_bytes(),
        );
        let account = self.account(from, "probe");
        let input = Input::Prepare {
            account,
            link: PROBE,
            request: RequestId(number),
            packet,
        };
        self.arrive(from, input);
    }

    fn arrive(&mut self, node: usize, input: Input) {
        if let Input::Prepare { packet, .. } = &input {
            let packet = Prepare::parse(&packet[..]).unwrap();
            if let Ok(number) = packet.data().try_into().map(u64::from_be_bytes)
                && let Some(seen) = self.seen.get_mut(&number)
                && !seen.insert(node)
            {
                self.counts.loops += 1;
            }
        }
        self.step(node, |core, now, out| core.handle(now, input, out));
    }

    fn set_up(&mut self, edge: usize) {
        self.last_serial += 1;
        let serial = self.last_serial;
        self.up[edge] = Some(serial);
        let link = LinkId::Session { worker: 0, serial };
        let (a, b) = self.edges[edge];
        for (node, neighbour) in [(a, b), (b, a)] {
            let account = self.account(node, &format!("n{neighbour}"));
            self.step(node, |core, now, out| {
                core.handle(now, Input::LinkUp { link, account }, out);
            });
        }
        self.last_told_ns = self.now_ns;
    }

    fn set_down(&mut self, edge: usize) {
        let Some(serial) = self.up[edge].take() else {
            return;
        };
        let link = LinkId::Session { worker: 0, serial };
        let (a, b) = self.edges[edge];
        for node in [a, b] {
            self.step(node, |core, now, out| {
                core.handle(now, Input::LinkDown { link }, out);
            });
        }
        self.last_told_ns = self.now_ns;
    }

    /// Lets time go on, with packets between random nodes, until routes are quiet. Gives the time it
    /// took.
    fn converge(&mut self) -> u64 {
        let start_ns = self.now_ns;
        let mut next_ping_ns = self.now_ns;
        while self.now_ns < self.last_told_ns + QUIET_NS || !self.events.is_empty() {
            assert!(
                self.now_ns < start_ns + CONVERGE_NS_MAX,
                "it never converges"
            );
            let event_ns = self.events.first_key_value().map(|((at_ns, _), _)| *at_ns);
            let timer = self.timers.first().copied();
            let timer_ns = timer.map(|(due, _)| due.max(self.now_ns));
            let is_quiet = self.now_ns >= self.last_told_ns + QUIET_NS;
            let ping_ns = (!is_quiet).then_some(next_ping_ns);
            let next = [event_ns, timer_ns, ping_ns].into_iter().flatten().min();
            let next_ns = next.unwrap();
            self.now_ns = self.now_ns.max(next_ns);
            if ping_ns == Some(next_ns) {
                next_ping_ns = self.now_ns + 20 * MS;
                let (from, to) = (self.below(NODES), self.below(NODES));
                self.ping(from, to);
            } else if event_ns == Some(next_ns) {
                let (_, happening) = self.events.pop_first().unwrap();
                match happening {
                    Happening::Arrives { node, link, input } => {
                        // What was under way on a link that failed is lost.
                        if self.other_end(node, link).is_some() {
                            self.arrive(node, input);
                        }
                    }
                    Happening::Up { edge } => self.set_up(edge),
                }
            } else if let Some((_, node)) = timer {
                self.step(node, |core, now, out| core.handle(now, Input::Timeout, out));
            }
        }
        self.last_told_ns.saturating_sub(start_ns) / MS
    }

    /// Who can be reached over links that are up.
    fn reachable(&self, from: usize) -> BTreeSet<usize> {
        let (mut reached, mut next) = (BTreeSet::from([from]), vec![from]);
        while let Some(node) = next.pop() {
            for ((a, b), up) in self.edges.iter().zip(&self.up) {
                for (here, there) in [(*a, *b), (*b, *a)] {
                    if here == node && up.is_some() && reached.insert(there) {
                        next.push(there);
                    }
                }
            }
        }
        reached
    }

    /// Every node reaches exactly those that it is connected with, and no packet goes round.
    fn check(&mut self, what: &str) {
        let before = std::mem::take(&mut self.counts);
        let mut wanted = 0;
        for from in 0..NODES {
            let reachable = self.reachable(from);
            wanted += reachable.len();
            for to in 0..NODES {
                self.ping(from, to);
            }
        }
        self.converge();
        let counts = std::mem::replace(&mut self.counts, before);
        assert_eq!(counts.loops, 0, "{what}");
        assert_eq!(counts.delivered, wanted, "{what}");
        assert_eq!(counts.refused, NODES * NODES - wanted, "{what}");
        for (index, node) in self.nodes.iter().enumerate() {
            let known = node.routes().len();
            assert_eq!(
                known,
                self.reachable(index).len(),
                "{what}: routes of node {index}"
            );
        }
    }
}

fn converges(name: &str, edges: Vec<(usize, usize)>, seed: u64) {
    let mut network = Network::new(edges, seed);
    // Links come up one by one, in any order.
    for edge in 0..network.edges.len() {
        let delay_ns = network.rng.next_u64() % (5_000 * MS);
        network.after(delay_ns, Happening::Up { edge });
    }
    network.last_told_ns = network.now_ns;
    let start_ms = network.converge();
    network.check("after the start");
    let start_updates = std::mem::take(&mut network.counts).updates;

    let failed: BTreeSet<_> = (0..3).map(|_| network.below(network.edges.len())).collect();
    failed.iter().for_each(|edge| network.set_down(*edge));
    let failed_ms = network.converge();
    network.check("after links failed");
    let failed_updates = network.counts.updates;

    failed.iter().for_each(|edge| network.set_up(*edge));
    let back_ms = network.converge();
    network.check("after they came back");
    let back_updates = network.counts.updates - failed_updates;
    assert_eq!(network.counts.loops, 0, "not even while routes change");
    println!(
        "reliability: routing | {name} of {NODES} nodes, {} links, from cold; {} links fail; they return | converged in {start_ms}, {failed_ms}, {back_ms} simulated ms with {start_updates}, {failed_updates}, {back_updates} updates; 0 packets looped",
        network.edges.len(),
        failed.len()
    );
}

fn line() -> Vec<(usize, usize)> {
    (1..NODES).map(|node| (node - 1, node)).collect()
}

fn ring() -> Vec<(usize, usize)> {
    let mut edges = line();
    edges.push((NODES - 1, 0));
    edges
}

#[test]
fn a_line_converges() {
    converges("line", line(), 1);
}

#[test]
fn a_ring_converges() {
    converges("ring", ring(), 2);
}

#[test]
fn a_star_converges() {
    converges("star", (1..NODES).map(|node| (0, node)).collect(), 3);
}

#[test]
fn a_random_mesh_converges() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let mut edges: BTreeSet<_> = line().into_iter().collect();
    while edges.len() < 2 * NODES {
        let node = |number: u64| usize::try_from(number % NODES as u64).unwrap();
        let (a, b) = (node(rng.next_u64()), node(rng.next_u64()));
        if a != b {
            edges.insert((a.min(b), a.max(b)));
        }
    }
    converges("random mesh", edges.into_iter().collect(), 5);
}
