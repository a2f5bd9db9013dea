//! Either node is killed at every message of a channel's life, exactly when it is on the wire: each
//! payment counts once, and both sides say the same.

use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use crate::{
    channels::{Link, assert_agreed, pair, settle, wait_accepted, wait_state},
    harness::{Node, call, wait_for},
    wire::Wire,
};

const A: usize = 0;
const B: usize = 1;

/// A message of a channel: what it is called, who tells it, and the byte that says so.
#[derive(Debug, Clone, Copy)]
struct Step(&'static str, usize, fn(&str) -> u8);

const GREETING: Step = Step("greeting", A, |_| 0x01);
const PROPOSAL: Step = Step("proposal", A, |_| 0x10);
const ACCEPTANCE: Step = Step("acceptance", B, |_| 0x11);
/// The keeper of an asymmetrical trustline credits; on a symmetrical one both have claims.
const PAYMENT: Step = Step("payment of the opener", A, |kind| match kind {
    "symmetrical" => 0x20,
    _ => 0x22,
});
const PAYMENT_BACK: Step = Step("payment of the accepter", B, |kind| match kind {
    "symmetrical" => 0x20,
    _ => 0x21,
});
const LIMITS: Step = Step("other limits", A, |_| 0x30);
const LIMITS_ACCEPTED: Step = Step("agreement to them", B, |_| 0x31);
const CLOSE: Step = Step("closing", B, |_| 0x40);
const TOTALS: Step = Step("totals of the opener", A, |_| 0x41);
const TOTALS_BACK: Step = Step("totals of the accepter", B, |_| 0x41);
const CLOSE_ALONE: Step = Step("closing alone", A, |_| 0x42);

/// Who is killed while a message or its answer is on the wire, and what becomes of that.
#[derive(Debug, Clone, Copy)]
struct Kill {
    name: &'static str,
    /// The answer is on the wire: whoever gives it has taken the message.
    is_answered: bool,
    is_teller: bool,
    arrives: bool,
}

const fn kill(name: &'static str, is_answered: bool, is_teller: bool, arrives: bool) -> Kill {
    Kill {
        name,
        is_answered,
        is_teller,
        arrives,
    }
}

const KILLS: [Kill; 6] = [
    kill("its teller, unheard", false, true, false),
    kill("its hearer, before it arrives", false, false, false),
    kill("its teller, before the answer arrives", true, true, false),
    kill("its hearer, with the answer", true, false, false),
    kill("its teller, and it arrives", false, true, true),
    kill("its hearer, and the answer arrives", true, false, true),
];

/// Two nodes, on whose wire everything is seen, and one channel after the other between them.
struct Pair {
    nodes: [Node; 2],
    wire: Wire,
    kind: &'static str,
    channels: usize,
    /// The present one.
    id: String,
    /// Over it.
    paid: [u64; 2],
    /// Over those before.
    paid_before: [u64; 2],
    /// Settlements that were asked for.
    settled: [usize; 2],
    points: usize,
}

impl Pair {
    fn start(kind: &'static str, link: Link) -> Self {
        let wire = Wire::default();
        Self {
            nodes: pair(link, Some(&wire)),
            wire,
            kind,
            channels: 0,
            id: String::new(),
            paid: [0; 2],
            paid_before: [0; 2],
            settled: [0; 2],
            points: 0,
        }
    }

    fn arm(&self, (Step(_, teller, what), kill): (Step, Kill)) {
        let what = what(self.kind);
        self.wire.arm(move |passing| {
            let from = if kill.is_answered { 1 - teller } else { teller };
            (passing.from, passing.is_answer) == (from, kill.is_answered)
                && passing.what == Some(what)
        });
    }

    /// Does what has messages told that follow from each other, and kills somebody at each of them.
    fn kill_at<T>(&mut self, points: &[(Step, Kill)], act: impl FnOnce(&mut Self) -> T) -> T {
        points.iter().for_each(|point| self.arm(*point));
        let done = act(self);
        for (Step(name, teller, _), kill) in points {
            self.wire.wait_held(&format!("{name}: {}", kill.name));
            let victim = if kill.is_teller { *teller } else { 1 - teller };
            self.nodes[victim].kill();
            self.wire.cut(kill.arrives);
            self.nodes[victim].restart();
            self.points += 1;
        }
        done
    }

    /// Asks for a channel until it is there, whoever is killed meanwhile.
    fn propose(&self) -> JoinHandle<String> {
        let (limit, their_limit) = self.limits("1000", "50");
        let body = json!({
            "account": "bob", "kind": self.kind, "limit": limit, "their_limit": their_limit,
        });
        let admin = self.nodes[A].admin;
        let key = format!("channel-{}", self.channels);
        let ask = move || match call(admin, "POST", "/v1/channels", Some(&body), &key)? {
            (503, _) => None, // not greeted
            (status, proposed) => {
                assert!(matches!(status, 200 | 201), "{status} {proposed}");
                Some(proposed["id"].as_str().unwrap().to_owned())
            }
        };
        thread::spawn(move || wait_for("a channel", ask))
    }

    /// The present channel is this one.
    fn proposed(&mut self, asked: JoinHandle<String>) {
        self.id = asked.join().expect("it says by itself what it failed at");
        self.channels += 1;
        self.paid_before = [A, B].map(|index| self.paid_before[index] + self.paid[index]);
        self.paid = [0; 2];
        self.channel_is(B, "state", "offered");
        self.channel_is(A, "waiting", 0);
    }

    /// Only one side of an asymmetrical trustline may owe.
    fn limits<'a>(&self, limit: &'a str, their_limit: &'a str) -> (&'a str, &'a str) {
        match self.kind {
            "symmetrical" => (limit, their_limit),
            _ => (limit, "0"),
        }
    }

    fn channel_is(&self, index: usize, field: &str, value: impl Into<Value>) {
        let value = value.into();
        let path = format!("/v1/channels/{}", self.id);
        wait_for(field, || {
            let (status, found) = self.nodes[index].call("GET", &path, None);
            (status == 200 && found[field] == value).then_some(())
        });
    }

    /// The channel is there once with both.
    fn is_open(&self) {
        wait_state(&self.nodes, &self.id, "open");
        for node in &self.nodes {
            let found = node.ok("GET", "/v1/channels?limit=200", None);
            let count = found["channels"].as_array().unwrap().len();
            assert_eq!(count, self.channels);
        }
    }

    /// Settles, at a point or in peace. Asked again under the same key it is the same settlement.
    fn pay(&mut self, payer: usize, amount: u64, kill: Option<(Step, Kill)>) {
        let account = ["bob", "alice"][payer];
        self.settled[payer] += 1;
        let key = format!("{}-{}", self.settled[payer], amount);
        let ask = |pair: &mut Self| settle(&pair.nodes[payer], account, amount, &key);
        let id = match kill {
            Some(point) => self.kill_at(&[point], ask),
            None => ask(self),
        };
        assert_eq!(ask(self), id);
        wait_accepted(&self.nodes[payer], &id);
        self.paid[payer] += amount;
        self.agree();
    }

    /// Books, channels and settlements of both: each payment once.
    fn agree(&self) {
        assert_agreed(&self.nodes, &self.id, self.paid);
        for (index, account) in [(A, "bob"), (B, "alice")] {
            let total = |side: usize| i128::from(self.paid_before[side] + self.paid[side]);
            let balance = self.nodes[index].balance(account);
            assert_eq!(balance, total(1 - index) - total(index));
            let found = self.nodes[index].ok("GET", "/v1/settlements?limit=200", None);
            let found = found["settlements"].as_array().unwrap();
            assert_eq!(found.len(), self.settled[index]);
            assert!(found.iter().all(|made| made["state"] == "accepted"));
        }
    }

    /// From the greeting to the end in agreement.
    fn live(&mut self, rotation: usize) {
        let kill = |index: usize| KILLS[(index + rotation) % KILLS.len()];
        // Nobody has greeted.
        self.nodes[A].kill();
        self.nodes[A].restart();
        let opening = [(GREETING, kill(0)), (PROPOSAL, kill(1))];
        let asked = self.kill_at(&opening, |pair| pair.propose());
        self.proposed(asked);
        self.kill_at(&[(ACCEPTANCE, kill(2))], |pair| {
            pair.post(B, "accept", None)
        });
        self.is_open();

        self.pay(A, 40, Some((PAYMENT, kill(3))));
        self.pay(B, 25, Some((PAYMENT_BACK, kill(4))));

        let (limit, their_limit) = self.limits("2000", "500");
        let limits = json!({"limit": limit, "their_limit": their_limit});
        self.kill_at(&[(LIMITS, kill(5))], |pair| {
            pair.post(A, "limits", Some(limits))
        });
        self.channel_is(B, "proposed_their_limit", "2000");
        self.channel_is(A, "waiting", 0);
        self.kill_at(&[(LIMITS_ACCEPTED, kill(6))], |pair| {
            pair.post(B, "accept", None)
        });
        self.channel_is(A, "limit", "2000");
        self.channel_is(B, "waiting", 0);
        self.pay(A, 1_000, None);

        let ending = [(CLOSE, kill(7)), (TOTALS, kill(8)), (TOTALS_BACK, kill(9))];
        self.kill_at(&ending, |pair| pair.post(B, "close", Some(json!({}))));
        wait_state(&self.nodes, &self.id, "closed");
        self.agree();
    }

    /// Opened and paid over in peace, and closed by one side.
    fn live_and_end_alone(&mut self, kill: Kill) {
        let asked = self.propose();
        self.proposed(asked);
        self.post(B, "accept", None);
        self.is_open();
        self.pay(A, 40, None);
        let alone = json!({"alone": true});
        self.kill_at(&[(CLOSE_ALONE, kill)], |pair| {
            pair.post(A, "close", Some(alone))
        });
        wait_state(&self.nodes, &self.id, "closed_alone");
        self.agree();
    }

    fn post(&self, index: usize, what: &str, body: Option<Value>) {
        let path = format!("/v1/channels/{}/{what}", self.id);
        self.nodes[index].ok("POST", &path, body);
    }
}

#[test]
fn whoever_is_killed_at_any_message_of_a_channel_each_payment_counts_once() {
    let mut points = 0;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        // Over BTP a killed peer is dialled again later each time, so it takes longer.
        let kinds = [
            ("symmetrical", Link::Btp, 3),
            ("asymmetrical", Link::Http, 2),
        ];
        for (kind, link, pairs) in kinds {
            for first in 0..pairs {
                threads.push(scope.spawn(move || {
                    let mut pair = Pair::start(kind, link);
                    for rotation in (first..KILLS.len()).step_by(pairs) {
                        pair.live(rotation);
                        pair.live_and_end_alone(KILLS[rotation]);
                    }
                    pair.points
                }));
            }
        }
        for thread in threads {
            points += thread.join().expect("it says by itself what it failed at");
        }
    });
    println!(
        "reliability: channel kills, processes | {points} points at which one of two nodes is killed: 11 messages of a channel's life and their answers, on the wire, lost or not, both trustlines, over BTP and HTTP | 0 payments lost or made twice"
    );
}
