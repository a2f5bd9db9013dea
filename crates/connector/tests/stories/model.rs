//! Anything, in any order, against books kept the slow way: no indexes, no totals, every sum made
//! anew from all that ever happened.

use proptest::prelude::*;
use rialto_connector::{Action, Effect, Input, LinkFailure, LinkId, RequestId, Settings};
use rialto_ledger::{AccountSettings, Lsn, Rate};
use rialto_packet::{ErrorCode, FulfillBuilder, Prepare, RejectBuilder, Reply};

use crate::{
    node::{MS, Node, prepare_bytes, reply, sha256},
    story::account,
};

const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const ASSETS: [&str; 3] = ["USD/2", "USD/3", "EUR/2"];
/// Units out for one in, from each to each, as fractions: EUR costs 4/3 USD, and 1 in 10 is kept.
const RATES: [[(i128, i128); 3]; 3] = [
    [(9, 10), (90, 10), (27, 40)],
    [(9, 100), (9, 10), (27, 400)],
    [(12, 10), (120, 10), (9, 10)],
];
const NODE_CAP: u64 = 700;
const WINDOW_MS: i64 = 1_000;
const HOLD_MS: i64 = 30_000;

#[derive(Debug, Clone)]
enum Op {
    Prepare {
        from: usize,
        to: usize,
        amount: u64,
        life_ms: i64,
    },
    Fulfill {
        nth: usize,
        proof: Proof,
    },
    Reject {
        nth: usize,
    },
    Garbage {
        nth: usize,
    },
    Fail {
        nth: usize,
    },
    Wait {
        ms: u64,
    },
    Sync {
        part: u64,
    },
    Update {
        who: usize,
        limits: RefLimits,
    },
    LinkDown {
        who: usize,
    },
    LinkUp {
        who: usize,
    },
    Restart {
        from_checkpoint: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Proof {
    Right,
    Wrong,
}

#[derive(Debug, Clone, Copy)]
struct RefLimits {
    credit: u64,
    packet: Option<u64>,
    count: Option<u32>,
    amount: Option<u64>,
    unsynced: Option<u64>,
    paused: bool,
}

/// Some that bite, none that contradict each other.
fn limits() -> impl Strategy<Value = RefLimits> {
    (
        prop_oneof![Just(0u64), 1u64..2_000],
        prop::option::weighted(0.3, 50u64..200),
        prop::option::weighted(0.3, 1u32..6),
        prop::option::weighted(0.3, 200u64..600),
        prop::option::weighted(0.3, 200u64..600),
        prop::bool::weighted(0.05),
    )
        .prop_map(
            |(credit, packet, count, amount, unsynced, paused)| RefLimits {
                credit,
                packet,
                count,
                amount,
                unsynced,
                paused,
            },
        )
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..NAMES.len();
    let amount = prop_oneof![
        1 => Just(0u64),
        10 => 1u64..200,
        4 => 200u64..2_500,
        1 => Just(u64::MAX),
    ];
    let life_ms = prop_oneof![1 => -1i64..3_000, 8 => 3_000i64..40_000];
    prop_oneof![
        12 => (who.clone(), who.clone(), amount, life_ms)
            .prop_map(|(from, to, amount, life_ms)| Op::Prepare { from, to, amount, life_ms }),
        8 => any::<usize>().prop_map(|nth| Op::Fulfill { nth, proof: Proof::Right }),
        1 => any::<usize>().prop_map(|nth| Op::Fulfill { nth, proof: Proof::Wrong }),
        2 => any::<usize>().prop_map(|nth| Op::Reject { nth }),
        1 => any::<usize>().prop_map(|nth| Op::Garbage { nth }),
        1 => any::<usize>().prop_map(|nth| Op::Fail { nth }),
        3 => (0u64..4_000).prop_map(|ms| Op::Wait { ms }),
        2 => (0u64..=4).prop_map(|part| Op::Sync { part }),
        1 => (who.clone(), limits()).prop_map(|(who, limits)| Op::Update { who, limits }),
        1 => who.clone().prop_map(|who| Op::LinkDown { who }),
        1 => who.prop_map(|who| Op::LinkUp { who }),
        1 => any::<bool>().prop_map(|from_checkpoint| Op::Restart { from_checkpoint }),
    ]
}

/// A packet that was accepted, and what became of it.
#[derive(Debug)]
struct RefPacket {
    number: u64,
    from: usize,
    to: usize,
    amount_in: i128,
    amount_out: i128,
    deadline_ns: u64,
    link: LinkId,
    request: RequestId,
    fate: Fate,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Fate {
    InFlight,
    Committed(Lsn),
    Undone,
    /// A Fulfill may come too late.
    Expired,
}

struct Reference {
    limits: [RefLimits; 3],
    up: [bool; 3],
    packets: Vec<RefPacket>,
    synced: Lsn,
    late: [i128; 3],
}

impl Reference {
    fn sum(&self, of: impl Fn(&RefPacket) -> i128) -> i128 {
        self.packets.iter().map(of).sum()
    }

    fn balance(&self, who: usize) -> i128 {
        self.sum(|packet| match packet.fate {
            Fate::Committed(_) => {
                let paid = if packet.from == who {
                    packet.amount_in
                } else {
                    0
                };
                let got = if packet.to == who {
                    packet.amount_out
                } else {
                    0
                };
                got - paid
            }
            Fate::InFlight | Fate::Undone | Fate::Expired => 0,
        })
    }

    fn in_flight(&self, is_of: impl Fn(usize) -> bool) -> i128 {
        self.sum(|packet| {
            let counts = packet.fate == Fate::InFlight && is_of(packet.from);
            if counts { packet.amount_in } else { 0 }
        })
    }

    fn unsynced(&self, is_of: impl Fn(usize) -> bool) -> i128 {
        self.sum(|packet| match packet.fate {
            Fate::Committed(lsn) if lsn > self.synced && is_of(packet.from) => packet.amount_in,
            Fate::Committed(_) | Fate::InFlight | Fate::Undone | Fate::Expired => 0,
        })
    }

    fn count(&self, who: usize) -> usize {
        let mine = |packet: &&RefPacket| packet.from == who && packet.fate == Fate::InFlight;
        self.packets.iter().filter(mine).count()
    }

    /// What has to come of a Prepare: what goes out, or the first word of the refusal.
    fn decide(
        &self,
        from: usize,
        to: usize,
        amount: u64,
        life_ms: i64,
    ) -> Result<i128, &'static str> {
        let limits = &self.limits[from];
        let above = |max: Option<u64>, amount: i128| max.is_some_and(|max| amount > max.into());
        let big = i128::from(amount);
        if limits.paused {
            return Err("acct.paused");
        }
        if life_ms <= 0 {
            return Err("pkt.expired");
        }
        if above(limits.packet, big) {
            return Err("acct.packet_limit");
        }
        if self.limits[to].paused {
            return Err("acct.paused");
        }
        if from == to {
            return Err("route.loop");
        }
        let (numerator, denominator) = RATES[from][to];
        let out = big * numerator / denominator;
        if amount > 0 && out == 0 {
            return Err("fx.rounds_to_zero");
        }
        if out > i128::from(u64::MAX) {
            return Err("fx.overflow");
        }
        if !self.up[to] {
            return Err("link.closed");
        }
        if (life_ms - WINDOW_MS).min(HOLD_MS) < WINDOW_MS {
            return Err("expiry.too_soon");
        }
        let in_flight = self.in_flight(|who| who == from);
        if limits
            .count
            .is_some_and(|max| self.count(from) >= max as usize)
        {
            return Err("acct.inflight_limit");
        }
        if amount > 0 {
            if above(limits.amount, in_flight + big) {
                return Err("acct.inflight_limit");
            }
            if self.balance(from) - in_flight - big < -i128::from(limits.credit) {
                return Err("acct.credit_limit");
            }
            let unsynced = self.unsynced(|who| who == from);
            if above(limits.unsynced, in_flight + unsynced + big) {
                return Err("acct.unsynced_cap");
            }
            let same = |who: usize| ASSETS[who] == ASSETS[from];
            if above(
                Some(NODE_CAP),
                self.in_flight(same) + self.unsynced(same) + big,
            ) {
                return Err("acct.unsynced_cap");
            }
        }
        Ok(out)
    }
}

struct Both {
    node: Node,
    links: [LinkId; 3],
    reference: Reference,
    last: u64,
}

fn both(limits: [RefLimits; 3]) -> Both {
    let mut settings = Settings::new("g.hub".parse().unwrap());
    settings.spread = "0.1".parse().unwrap();
    for asset in ASSETS {
        settings
            .unsynced_max
            .insert(asset.parse().unwrap(), NODE_CAP);
    }
    let mut node = Node::new(settings);
    let mut links = [LinkId::Local; 3];
    for (who, name) in NAMES.into_iter().enumerate() {
        node.step(|core, _, out| {
            let mut settings = account(name, ASSETS[who]);
            settings.ilp_address = Some(format!("g.{name}").parse().unwrap());
            set(&mut settings, &limits[who]);
            core.account_create(settings, out).unwrap();
        });
        links[who] = node.link_up(node.id(name)).0;
    }
    node.step(|core, _, out| {
        let rate = Rate {
            rate: "0.75".to_owned(),
            spread: None,
            valid_until_ms: None,
            set_at_ms: None,
        };
        core.rate_put("USD", "EUR", rate, out).unwrap();
    });
    // Updates may lower a limit below what is used; the reference knows when.
    node.limits_lowered = true;
    Both {
        node,
        links,
        reference: Reference {
            limits,
            up: [true; 3],
            packets: Vec::new(),
            synced: Lsn(0),
            late: [0; 3],
        },
        last: 0,
    }
}

fn set(settings: &mut AccountSettings, limits: &RefLimits) {
    settings.limits.balance_min = -i128::from(limits.credit);
    settings.limits.packet_amount_max = limits.packet;
    settings.limits.in_flight_count_max = limits.count;
    settings.limits.in_flight_amount_max = limits.amount;
    settings.limits.unsynced_amount_max = limits.unsynced;
    settings.paused = limits.paused;
}

fn fulfillment(number: u64) -> [u8; 32] {
    sha256(&number.to_be_bytes())
}

/// The answers among the effects: number of the packet, and the first word of a refusal of ours.
fn answers(effects: &[Effect]) -> Vec<(u64, Option<String>)> {
    let answers = effects.iter().filter_map(|effect| match &effect.action {
        Action::Answer {
            request, packet, ..
        } => Some((request.0, packet)),
        Action::Forward { .. }
        | Action::Disconnect { .. }
        | Action::Engine { .. }
        | Action::Report(_) => None,
    });
    answers
        .map(
            |(number, packet)| match Reply::parse(packet.clone()).unwrap() {
                Reply::Fulfill(_) => (number, None),
                Reply::Reject(reject) => {
                    let message = reject.message();
                    let word = message.split(':').next().unwrap_or_default();
                    (number, Some(word.to_owned()))
                }
            },
        )
        .collect()
}

impl Both {
    fn run(&mut self, op: &Op) {
        match *op {
            Op::Prepare {
                from,
                to,
                amount,
                life_ms,
            } => self.prepare(from, to, amount, life_ms),
            Op::Fulfill { nth, proof } => {
                let Some(index) = self.pick(nth) else { return };
                let number = self.reference.packets[index].number;
                let proof_bytes = match proof {
                    Proof::Right => fulfillment(number),
                    Proof::Wrong => [1; 32],
                };
                let fulfill = FulfillBuilder {
                    fulfillment: proof_bytes,
                    data: b"",
                };
                let (fate, answer) = match proof {
                    Proof::Right => {
                        let lsn = Lsn(self.node.core.lsn().0 + 1);
                        (Fate::Committed(lsn), (number, None))
                    }
                    Proof::Wrong => (Fate::Undone, (number, Some("cond.mismatch".to_owned()))),
                };
                let late = matches!(proof, Proof::Right);
                self.reply(index, fulfill.encode().unwrap(), fate, answer, late);
            }
            Op::Reject { nth } => {
                let Some(index) = self.pick(nth) else { return };
                let number = self.reference.packets[index].number;
                let reject = RejectBuilder {
                    code: ErrorCode::F99_APPLICATION_ERROR,
                    triggered_by: None,
                    message: "no",
                    data: &[],
                };
                let answer = (number, Some("no".to_owned()));
                self.reply(index, reject.encode().unwrap(), Fate::Undone, answer, false);
            }
            Op::Garbage { nth } => {
                let Some(index) = self.pick(nth) else { return };
                let number = self.reference.packets[index].number;
                let answer = (number, Some("link.bad_reply".to_owned()));
                self.reply(index, vec![0xff], Fate::Undone, answer, false);
            }
            Op::Fail { nth } => {
                let Some(index) = self.pick(nth) else { return };
                let packet = &mut self.reference.packets[index];
                let was = packet.fate;
                let (link, request, number) = (packet.link, packet.request, packet.number);
                let failure = LinkFailure::Timeout;
                let effects = self.node.handle(Input::Failed {
                    link,
                    request,
                    failure,
                });
                if was == Fate::InFlight {
                    packet.fate = Fate::Undone;
                    assert_eq!(
                        answers(&effects),
                        [(number, Some("link.timeout".to_owned()))]
                    );
                } else {
                    assert!(effects.is_empty());
                }
            }
            Op::Wait { ms } => {
                let effects = self.node.wait(ms * MS);
                let mut expired = Vec::new();
                for packet in &mut self.reference.packets {
                    let over = packet.deadline_ns <= self.node.now.mono_ns;
                    if packet.fate == Fate::InFlight && over {
                        packet.fate = Fate::Expired;
                        expired.push((packet.number, Some("expiry.timed_out".to_owned())));
                    }
                }
                let mut answers = answers(&effects);
                answers.sort();
                assert_eq!(answers, expired);
            }
            Op::Sync { part } => {
                let (from, to) = (self.reference.synced.0, self.node.core.lsn().0);
                let lsn = Lsn(from + (to - from) * part / 4);
                self.reference.synced = lsn;
                assert!(self.node.handle(Input::Synced(lsn)).is_empty());
            }
            Op::Update { who, limits } => {
                let updated = self.node.step(|core, _, out| {
                    let account = core.ledger().account_by_name(NAMES[who]).unwrap();
                    let mut settings = AccountSettings::clone(&account.settings);
                    set(&mut settings, &limits);
                    core.account_update(settings, out)
                });
                if updated.0.is_ok() {
                    self.reference.limits[who] = limits;
                }
            }
            Op::LinkDown { who } => {
                let link = self.links[who];
                self.node.handle(Input::LinkDown { link });
                self.reference.up[who] = false;
            }
            Op::LinkUp { who } => {
                self.node.handle(Input::LinkDown {
                    link: self.links[who],
                });
                self.links[who] = self.node.link_up(self.node.id(NAMES[who])).0;
                self.reference.up[who] = true;
            }
            Op::Restart { from_checkpoint } => {
                self.node.restart(from_checkpoint);
                for packet in &mut self.reference.packets {
                    if !matches!(packet.fate, Fate::Committed(_)) {
                        packet.fate = Fate::Undone;
                    }
                }
                self.reference.late = [0; 3];
                self.reference.up = [false; 3];
                self.reference.synced = self.node.core.lsn();
            }
        }
    }

    fn prepare(&mut self, from: usize, to: usize, amount: u64, life_ms: i64) {
        self.last += 1;
        let number = self.last;
        let wall = self.node.now.wall;
        let destination = format!("g.{}.x", NAMES[to]);
        let condition = sha256(&fulfillment(number));
        let expires_at = wall.plus_ms(life_ms);
        let effects = self.node.handle(Input::Prepare {
            account: self.node.id(NAMES[from]),
            link: LinkId::Waiting { worker: 1 },
            request: RequestId(number),
            packet: prepare_bytes(amount, expires_at, condition, &destination, b"data"),
        });
        match self.reference.decide(from, to, amount, life_ms) {
            Err(word) => assert_eq!(answers(&effects), [(number, Some(word.to_owned()))]),
            Ok(amount_out) => {
                let [
                    Effect {
                        action:
                            Action::Forward {
                                link,
                                request,
                                packet,
                                deadline_ns,
                            },
                        ..
                    },
                ] = &effects[..]
                else {
                    panic!("{amount_out} should go to {}: {effects:?}", NAMES[to])
                };
                assert_eq!(*link, self.links[to]);
                let sent = Prepare::parse(&packet[..]).unwrap();
                assert_eq!(i128::from(sent.amount()), amount_out);
                let left_ms = (life_ms - WINDOW_MS).min(HOLD_MS);
                assert_eq!(sent.expires_at(), wall.plus_ms(left_ms));
                let due = self.node.now.mono_ns + u64::try_from(left_ms).unwrap() * MS;
                assert_eq!(*deadline_ns, due);
                self.reference.packets.push(RefPacket {
                    number,
                    from,
                    to,
                    amount_in: amount.into(),
                    amount_out,
                    deadline_ns: due,
                    link: *link,
                    request: *request,
                    fate: Fate::InFlight,
                });
            }
        }
    }

    /// Any packet that was ever sent on, the newer ones rather.
    fn pick(&self, nth: usize) -> Option<usize> {
        let count = self.reference.packets.len();
        let recent = count.min(12);
        (count > 0).then(|| count - 1 - nth % recent)
    }

    fn reply(
        &mut self,
        index: usize,
        bytes: Vec<u8>,
        fate: Fate,
        answer: (u64, Option<String>),
        proves: bool,
    ) {
        let packet = &mut self.reference.packets[index];
        let (link, request, to) = (packet.link, packet.request, packet.to);
        match packet.fate {
            Fate::InFlight => packet.fate = fate,
            Fate::Expired => {
                // Told once, whatever it is that comes first.
                if proves {
                    self.reference.late[to] += packet.amount_out;
                }
                if bytes[0] == 13 {
                    packet.fate = Fate::Undone;
                }
                let effects = self.node.handle(Input::Reply {
                    link,
                    request,
                    packet: reply(bytes),
                });
                assert!(answers(&effects).is_empty());
                return;
            }
            Fate::Committed(_) | Fate::Undone => {
                let effects = self.node.handle(Input::Reply {
                    link,
                    request,
                    packet: reply(bytes),
                });
                assert!(effects.is_empty());
                return;
            }
        }
        let effects = self.node.handle(Input::Reply {
            link,
            request,
            packet: reply(bytes),
        });
        assert_eq!(answers(&effects), [answer]);
    }

    /// The node's totals are what the reference adds up.
    fn compare(&self) {
        for (who, name) in NAMES.into_iter().enumerate() {
            let account = self.node.core.ledger().account_by_name(name).unwrap();
            let (exposure, reference) = (account.exposure(), &self.reference);
            assert_eq!(account.balance(), reference.balance(who), "{name}");
            assert_eq!(exposure.in_flight_count as usize, reference.count(who));
            let in_flight = reference.in_flight(|of| of == who);
            assert_eq!(i128::try_from(exposure.in_flight).unwrap(), in_flight);
            let unsynced = reference.unsynced(|of| of == who);
            assert_eq!(i128::try_from(exposure.unsynced).unwrap(), unsynced);
            let late = self
                .node
                .core
                .stats()
                .account(account.id)
                .map_or(0, |s| s.late_amount);
            assert_eq!(i128::try_from(late).unwrap(), reference.late[who]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_core_does_what_slow_books_say(
        limits in [limits(), limits(), limits()],
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut both = both(limits);
        for op in &ops {
            both.run(op);
            both.compare();
        }
        both.node.finish();
    }
}
