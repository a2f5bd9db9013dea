//! Two nodes wired together, with a delay each way: payments end and the books agree.

use std::collections::VecDeque;

use bytes::BytesMut;
use rialto_connector::{
    Action, Effect, Event, Input, LinkId, RequestId, Settings,
    command::{Made, PaymentRequest},
};
use rialto_ledger::{AccountSettings, Rate, Relation};
use rialto_stream::{SenderConfig, Target};

use crate::{
    node::{MS, Node, payment_words},
    story::account,
};

/// One way.
const DELAY_NS: u64 = 10 * MS;
const A: usize = 0;
const B: usize = 1;

/// A packet under way: when it arrives, and where.
struct Underway {
    at_ns: u64,
    to: usize,
    input: Input,
}

/// `g.a` with local account alice, `g.b` with local account bob, and a peering between them whose
/// account is called `peer` on both.
struct Pair {
    nodes: [Node; 2],
    links: [LinkId; 2],
    wire: VecDeque<Underway>,
    /// Replies are lost, and packets time out.
    deaf: bool,
}

impl Pair {
    /// The peering counts in `asset`; each gives the other `credit` on it.
    fn new(asset: &str, credit: i128, change: impl Fn(usize, &mut Settings)) -> Self {
        let node = |index: usize, address: &str| {
            let mut settings = Settings::new(address.parse().unwrap());
            change(index, &mut settings);
            Node::new(settings)
        };
        let mut nodes = [node(A, "g.a"), node(B, "g.b")];
        let mut links = [LinkId::Local; 2];
        for (index, (other, name, local)) in [("g.b", "alice", "USD/9"), ("g.a", "bob", "EUR/6")]
            .into_iter()
            .enumerate()
        {
            let node = &mut nodes[index];
            node.step(|core, _, out| {
                let mut peer = account("peer", asset);
                peer.ilp_address = Some(other.parse().unwrap());
                peer.limits.balance_min = -credit;
                core.account_create(peer, out).unwrap();
                let mut own = account(name, local);
                own.relation = Relation::Local;
                own.limits.balance_min = -1_000_000_000_000;
                core.account_create(own, out).unwrap();
                let rate = Rate {
                    rate: "0.92".to_owned(),
                    spread: None,
                    valid_until_ms: None,
                    set_at_ms: None,
                };
                core.rate_put("USD", "EUR", rate, out).unwrap();
            });
            links[index] = node.link_up(node.id("peer")).0;
        }
        Self {
            nodes,
            links,
            wire: VecDeque::new(),
            deaf: false,
        }
    }

    /// Puts what a node gives out on the wire; tells the payments that ended.
    fn send(&mut self, from: usize, effects: Vec<Effect>) -> Vec<String> {
        let (to, link) = (1 - from, self.links[1 - from]);
        let at_ns = self.nodes[from].now.mono_ns + DELAY_NS;
        let mut ended = Vec::new();
        for effect in effects {
            let input = match effect.action {
                Action::Forward {
                    request, packet, ..
                } => Input::Prepare {
                    account: self.nodes[to].id("peer"),
                    link,
                    request,
                    packet: BytesMut::from(&packet[..]),
                },
                Action::Answer {
                    request, packet, ..
                } => Input::Reply {
                    link,
                    request: RequestId(request.0),
                    packet,
                },
                Action::Report(event) => {
                    assert!(!matches!(event, Event::LateFulfill { .. }));
                    ended.extend(payment_words(&self.nodes[from], &event));
                    continue;
                }
                Action::Disconnect { .. } | Action::Engine { .. } => {
                    panic!("nobody connects twice, and nobody settles")
                }
            };
            if !(self.deaf && matches!(input, Input::Reply { .. })) {
                self.wire.push_back(Underway { at_ns, to, input });
            }
        }
        ended
    }

    /// Lets time go on until nothing happens any more; gives the payments that ended.
    fn run(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        loop {
            for index in [A, B] {
                let effects = self.nodes[index].settle();
                ended.extend(self.send(index, effects));
            }
            let due = self
                .nodes
                .iter()
                .filter_map(|node| node.core.poll_timeout());
            let arrival = self.wire.front().map(|underway| underway.at_ns);
            let Some(next) = due.chain(arrival).min() else {
                return ended;
            };
            for node in &mut self.nodes {
                node.go_on_until(next.max(node.now.mono_ns));
            }
            while let Some(underway) = self.wire.pop_front_if(|underway| underway.at_ns <= next) {
                let effects = self.nodes[underway.to].handle(underway.input);
                ended.extend(self.send(underway.to, effects));
            }
        }
    }

    fn pay(&mut self, target: Target) -> Vec<String> {
        let spsp = self.nodes[B].core.spsp("bob", None).unwrap().credentials;
        let config = SenderConfig::new(spsp.shared_secret, spsp.destination_account, target);
        let request = PaymentRequest {
            account: "alice".to_owned(),
            idempotency_key: "key".to_owned(),
            request: String::new(),
            receiver: String::new(),
        };
        let node = &mut self.nodes[A];
        let (created, _) = node.step(|core, now, out| core.payment_create(now, request, out));
        let Ok(Made::New(id)) = created else {
            panic!("{created:?}")
        };
        let (started, effects) =
            node.step(|core, now, out| core.payment_start(now, id, config, out));
        started.unwrap();
        let mut ended = self.send(A, effects);
        ended.extend(self.run());
        ended
    }

    /// I9, and all invariants of either node.
    fn finish(mut self) -> (i128, i128) {
        let [a, b] = &mut self.nodes;
        a.finish();
        b.finish();
        assert_eq!(a.balance("peer"), -b.balance("peer"), "the books agree");
        (a.balance("alice"), b.balance("bob"))
    }
}

#[test]
fn a_payment_across_two_nodes_and_currencies() {
    let mut pair = Pair::new("USD/6", 1_000_000_000, |_, _| {});
    let ended = pair.pay(Target::Send(1_000_000_000));
    assert_eq!(
        ended,
        ["payment 1 completed sent 1000000000 delivered 920000 asset EUR/6"]
    );
    assert_eq!(pair.finish(), (-1_000_000_000, 920_000));
}

#[test]
fn a_payment_of_an_exact_delivery_with_spreads() {
    let mut pair = Pair::new("EUR/9", 1_000_000_000_000, |_, settings| {
        settings.spread = "0.002".parse().unwrap();
    });
    let ended = pair.pay(Target::Deliver(500_000));
    assert!(ended[0].contains("completed"), "{ended:?}");
    let (paid, delivered) = pair.finish();
    assert_eq!(delivered, 500_000);
    // 0.92 * 0.998 * 0.998, and each packet may lose its last units.
    let exact = 500_000_i128 * 1_000 * 100_000_000 / (92 * 998 * 998);
    assert!(
        (exact..exact + exact / 500).contains(&-paid),
        "{paid} {exact}"
    );
}

#[test]
fn many_packets_through_a_narrow_peering() {
    let mut pair = Pair::new("USD/9", 10_000_000, |_, _| {});
    pair.nodes[B].step(|core, _, out| {
        let peer = core.ledger().account_by_name("peer").unwrap();
        let mut peer = AccountSettings::clone(&peer.settings);
        peer.limits.packet_amount_max = Some(10_000);
        peer.limits.in_flight_count_max = Some(8);
        core.account_update(peer, out).unwrap();
    });
    let ended = pair.pay(Target::Send(1_000_000));
    assert!(
        ended[0].starts_with("payment 1 completed sent 1000000"),
        "{ended:?}"
    );
    let payment = pair.nodes[A].core.ledger().payment_by_key("key").unwrap();
    let progress = payment.progress;
    assert!(progress.fulfilled >= 100);
    // 920, less what the last digit of each packet may lose.
    assert!((820..=920).contains(&progress.delivered));
    assert_eq!(pair.finish(), (-1_000_000, progress.delivered.into()));
}

#[test]
fn a_payment_stops_at_the_other_nodes_credit() {
    let mut pair = Pair::new("USD/9", 300_000, |_, _| {});
    pair.nodes[B].step(|core, _, out| {
        let peer = core.ledger().account_by_name("peer").unwrap();
        let mut peer = AccountSettings::clone(&peer.settings);
        peer.limits.packet_amount_max = Some(50_000);
        core.account_update(peer, out).unwrap();
    });
    let ended = pair.pay(Target::Send(1_000_000));
    assert!(
        ended[0].starts_with("payment 1 no_progress sent"),
        "{ended:?}"
    );
    let payment = pair.nodes[A].core.ledger().payment_by_key("key").unwrap();
    let (sent, delivered) = (payment.progress.sent, payment.progress.delivered);
    assert!(sent > 250_000 && sent <= 300_000, "{sent}");
    assert_eq!(pair.finish(), (-i128::from(sent), i128::from(delivered)));
}

#[test]
fn a_payment_whose_replies_are_lost_says_what_its_own_node_knows() {
    let mut pair = Pair::new("USD/9", 1_000_000_000, |_, _| {});
    pair.deaf = true;
    let ended = pair.pay(Target::Send(1_000_000));
    assert_eq!(ended, ["payment 1 no_progress sent 0 delivered 0"]);
    assert_eq!(pair.nodes[A].balance("alice"), 0);
    assert_eq!(pair.nodes[A].balance("peer"), 0);
}
