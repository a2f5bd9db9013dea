//! Two cores that are the settlement engines of two accounting systems, which peer with each other: what
//! one of these asks to be paid arrives at the other exactly once, whatever is lost on the way and
//! whichever core is killed at any step.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::collections::{BTreeMap, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rialto_channel::{Kind, Phase};
use rialto_connector::{
    Action, Asked, Connector, Durable, Effect, Effects, EngineAsk, Event, Input, Now, Settings,
    command::CommandErrorKind,
    messages::{MessageAnswer, MessageId, MessageOutcome},
    settle::{Credited, EngineAnswer},
};
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, ChannelTerms, Lsn, Means, Record, Relation,
    RouteExchange, SettlementCause, SettlementId, SettlementState, SettlementTerms,
};
use rialto_packet::{Timestamp, quantity::Quantity};

const ACCOUNT: AccountId = AccountId(1);
const URL: &str = "http://accounting.example/accounts/x";
/// What either may owe over the channel, in units.
const LIMIT: u64 = 5_000;
/// Instructions of each accounting system, each of [`AMOUNT`] in units of a hundredth of the channel's.
const INSTRUCTIONS: usize = 6;
const AMOUNT: u64 = 120_050;
/// Schedules that are tried.
const SEEDS: u64 = 300;
/// Moments in which everything has to be done.
const MOMENTS_MAX: usize = 20_000;

/// Something on its way.
enum Call {
    /// An accounting system brings the engine `to` a message of the other one.
    Message {
        to: usize,
        id: MessageId,
        data: Vec<u8>,
    },
    /// The answer to it, for whoever sent it.
    Answer {
        to: usize,
        id: MessageId,
        answer: MessageAnswer,
    },
    /// The engine `from` tells its accounting system what came in.
    Report {
        from: usize,
        id: SettlementId,
        key: String,
        quantity: Quantity,
    },
    /// What it said to that.
    Told {
        to: usize,
        id: SettlementId,
        answer: EngineAnswer,
    },
}

struct Side {
    core: Connector,
    out: Effects,
    journal: Vec<Vec<u8>>,
    /// How often it was started: what came of the calls of an earlier life is of no use.
    life: u32,
    /// Messages that were brought to it, by its own numbers: whom the answer is for.
    brought: BTreeMap<MessageId, MessageId>,
    /// What its accounting system knows to have come in, by key.
    reported: BTreeMap<String, Quantity>,
    /// Instructions that the core took.
    taken: usize,
}

struct World {
    sides: [Side; 2],
    now: Now,
    calls: VecDeque<(u32, Call)>,
    rng: ChaCha20Rng,
    /// Steps until a core is killed: of its last records some are on disk then, from none to all.
    kill_in: Option<u64>,
    is_lossy: bool,
    kills: usize,
    parked: usize,
}

/// The same in each life, but for its entropy.
fn core(index: usize, life: u32) -> Connector {
    let secret = [u8::try_from(index).unwrap() + 1; 32];
    let settings = Settings::new(["g.a", "g.b"][index].parse().unwrap());
    let entropy = ChaCha20Rng::seed_from_u64(2 * u64::from(life) + index as u64);
    Connector::new(settings, secret, entropy)
}

fn account(propose: bool) -> AccountSettings {
    AccountSettings {
        name: "engine-x".to_owned(),
        incoming_tokens: Vec::new(),
        terms: AccountTerms {
            routes: RouteExchange::none(),
            settlement: SettlementTerms {
                accounting_url: Some(URL.to_owned()),
                channel: Some(ChannelTerms {
                    kind: Kind::SymmetricalTrustline,
                    limit: LIMIT,
                    their_limit: LIMIT,
                    propose,
                }),
                ..SettlementTerms::default()
            },
            ..AccountTerms::new(Relation::Peer, "USD/2".parse().unwrap())
        }
        .into(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let side = |index| Side {
            core: core(index, 0),
            out: Effects::default(),
            journal: Vec::new(),
            life: 0,
            brought: BTreeMap::new(),
            reported: BTreeMap::new(),
            taken: 0,
        };
        let mut world = Self {
            sides: [side(0), side(1)],
            now: Now {
                mono_ns: 1_000_000_000,
                wall: Timestamp::from_unix_ms(1_900_000_000_000),
            },
            calls: VecDeque::new(),
            rng: ChaCha20Rng::seed_from_u64(seed),
            kill_in: None,
            is_lossy: false,
            kills: 0,
            parked: 0,
        };
        for index in [0, 1] {
            world.step(index, |core, _, out| {
                core.account_create(account(index == 0), out).unwrap();
            });
        }
        world
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.rng.next_u64().is_multiple_of(count)
    }

    /// One step of a core: its records, then what waits for them, unless it is killed in between. Says
    /// whether it lived.
    fn step(&mut self, index: usize, act: impl FnOnce(&mut Connector, Now, &mut Effects)) -> bool {
        let side = &mut self.sides[index];
        act(&mut side.core, self.now, &mut side.out);
        let records: Vec<_> = side.out.records().map(<[u8]>::to_vec).collect();
        let effects: Vec<_> = side.out.drain().collect();
        if let Some(left) = &mut self.kill_in
            && !records.is_empty()
        {
            if *left == 0 {
                self.kill_in = None;
                let written = self.rng.next_u64() % (records.len() as u64 + 1);
                let written = usize::try_from(written).unwrap();
                side.journal.extend(records.into_iter().take(written));
                let early = |effect: &Effect| effect.after == Durable::Nothing;
                for effect in effects.into_iter().filter(early) {
                    self.perform(index, effect.action);
                }
                self.restart(index);
                return false;
            }
            *left -= 1;
        }
        side.journal.extend(records);
        let lsn = Lsn(side.journal.len() as u64);
        assert_eq!(side.core.lsn(), lsn);
        side.core
            .handle(self.now, Input::Synced(lsn), &mut side.out);
        for effect in effects {
            self.perform(index, effect.action);
        }
        true
    }

    fn perform(&mut self, index: usize, action: Action) {
        let life = self.sides[index].life;
        match action {
            Action::Engine {
                account,
                asked,
                ask,
            } => {
                assert_eq!(asked, Asked::Accounting(URL.to_owned()));
                assert_eq!(account, ACCOUNT);
                let call = match ask {
                    EngineAsk::Message { id, data, .. } => Call::Message {
                        to: 1 - index,
                        id,
                        data: data.to_vec(),
                    },
                    EngineAsk::Settle { id, key, quantity } => Call::Report {
                        from: index,
                        id,
                        key,
                        quantity,
                    },
                    EngineAsk::Introduce | EngineAsk::Close => panic!("it is not asked that"),
                };
                self.calls.push_back((life, call));
            }
            Action::Report(Event::MessageDone { id, outcome }) => {
                let Some(of) = self.sides[index].brought.remove(&id) else {
                    return;
                };
                let answer = match outcome {
                    MessageOutcome::Answered { data } => MessageAnswer::Answered(data),
                    MessageOutcome::Rejected { data, .. } => MessageAnswer::Refused(data),
                    MessageOutcome::Failed { .. } => MessageAnswer::Failed,
                };
                let to = 1 - index;
                let life = self.sides[to].life;
                let id = of;
                self.calls
                    .push_back((life, Call::Answer { to, id, answer }));
            }
            Action::Report(_) => {}
            Action::Forward { .. } | Action::Answer { .. } | Action::Disconnect { .. } => {
                panic!("these accounts carry no packets")
            }
        }
    }

    fn restart(&mut self, index: usize) {
        self.kills += 1;
        let side = &mut self.sides[index];
        side.life += 1;
        side.core = core(index, side.life);
        side.out = Effects::default();
        side.brought.clear();
        for (number, bytes) in side.journal.iter().enumerate() {
            let record = Record::decode(bytes).unwrap();
            side.core.recover(Lsn(number as u64 + 1), record).unwrap();
        }
        self.step(index, |core, _, out| core.recovered(out));
    }

    /// A call arrives, or is lost: then its caller hears that there was no answer.
    fn arrive(&mut self, life: u32, call: Call) {
        let is_lost = self.is_lossy && self.one_in(6);
        match call {
            Call::Message { to, id, data } => {
                let from = 1 - to;
                let is_taken = !is_lost && self.bring(to, id, &data);
                if !is_taken && life == self.sides[from].life {
                    let answer = MessageAnswer::Failed;
                    let to = from;
                    self.calls
                        .push_back((life, Call::Answer { to, id, answer }));
                }
            }
            Call::Answer { to, id, answer } => {
                if life == self.sides[to].life {
                    let answer = if is_lost {
                        MessageAnswer::Failed
                    } else {
                        answer
                    };
                    let input = Input::MessageAnswered { id, answer };
                    self.step(to, |core, now, out| core.handle(now, input, out));
                }
            }
            Call::Report {
                from,
                id,
                key,
                quantity,
            } => {
                let unknown = EngineAnswer::Unknown {
                    message: "no answer".to_owned(),
                };
                let mut answer = unknown.clone();
                if !is_lost {
                    let known = self.sides[from]
                        .reported
                        .entry(key)
                        .or_insert(quantity.clone());
                    assert_eq!(*known, quantity, "a key is one settlement");
                    answer = EngineAnswer::Accepted;
                    if self.is_lossy && self.one_in(6) {
                        answer = unknown; // it has it, and nobody knows
                    } else if self.is_lossy && self.one_in(20) {
                        let message = "no such account".to_owned();
                        answer = EngineAnswer::Refused { message };
                    }
                }
                self.calls.push_back((
                    life,
                    Call::Told {
                        to: from,
                        id,
                        answer,
                    },
                ));
            }
            Call::Told { to, id, answer } => {
                if life == self.sides[to].life {
                    let input = Input::Settled { id, answer };
                    self.step(to, |core, now, out| core.handle(now, input, out));
                }
            }
        }
    }

    /// A message, whose answer may leave within the step. Says whether the core lived.
    fn bring(&mut self, to: usize, of: MessageId, data: &[u8]) -> bool {
        let side = &mut self.sides[to];
        let id = side
            .core
            .message_received(self.now, ACCOUNT, data, &mut side.out);
        side.brought.insert(id, of);
        self.step(to, |_, _, _| {})
    }

    /// The accounting system asks for its next payment until the engine has it.
    fn instruct(&mut self, index: usize) {
        if self.sides[index].taken == INSTRUCTIONS {
            return;
        }
        let number = self.sides[index].taken;
        let key = format!("instruction {number} of {index}");
        let quantity = Quantity::of_units(AMOUNT, 4);
        let mut credited = None;
        let lived = self.step(index, |core, now, out| {
            let other = Quantity::of_units(AMOUNT + 1, 4);
            let done = core.settle_credit(now, ACCOUNT, &key, quantity, out);
            credited = Some(done.unwrap().0);
            let conflict = core.settle_credit(now, ACCOUNT, &key, other, out);
            assert_eq!(conflict.unwrap_err().kind, CommandErrorKind::Conflict);
        });
        let is_answered = lived && !(self.is_lossy && self.one_in(4));
        if is_answered {
            let (Credited::New { amount } | Credited::Before { amount }) = credited.unwrap();
            assert!(amount == AMOUNT / 100 || amount == AMOUNT / 100 + 1);
            self.sides[index].taken += 1;
        }
    }

    /// One call arrives, or time goes on until something is due.
    fn go_on(&mut self) {
        if self.is_lossy && self.kill_in.is_none() && self.one_in(12) {
            self.kill_in = Some(self.rng.next_u64() % 4);
        }
        if self.one_in(3) {
            let index = usize::from(self.one_in(2));
            self.instruct(index);
        }
        if let Some((life, call)) = self.calls.pop_front() {
            self.arrive(life, call);
            return;
        }
        [0, 1]
            .into_iter()
            .for_each(|index| self.retry_parked(index));
        let due = self
            .sides
            .iter()
            .filter_map(|side| side.core.poll_timeout());
        let Some(due) = due.min() else { return };
        let passed = due.saturating_sub(self.now.mono_ns);
        self.now.mono_ns += passed;
        let passed_ms = i64::try_from(passed.div_ceil(1_000_000)).unwrap();
        self.now.wall = self.now.wall.plus_ms(passed_ms);
        for index in [0, 1] {
            self.step(index, |core, now, out| {
                core.handle(now, Input::Timeout, out)
            });
        }
    }

    /// The operator has what the accounting system refused told again.
    fn retry_parked(&mut self, index: usize) {
        let settlements = self.sides[index].core.ledger().settlements();
        let parked = settlements
            .values()
            .find(|made| matches!(made.state, SettlementState::Parked { .. }));
        let Some((id, cause)) = parked.map(|made| (made.id, made.cause)) else {
            return;
        };
        assert_eq!(cause, SettlementCause::Report);
        self.parked += 1;
        self.step(index, |core, now, out| {
            let taken_back = core.settle_cancel(id, out).unwrap_err();
            assert_eq!(taken_back.kind, CommandErrorKind::Conflict);
            core.settle_retry(now, id, out).unwrap();
        });
    }

    fn reported(&self, index: usize) -> u64 {
        let units = |quantity: &Quantity| quantity.clone().units_at(2).unwrap().0;
        self.sides[index].reported.values().map(units).sum()
    }

    fn is_done(&self) -> bool {
        self.sides.iter().enumerate().all(|(index, side)| {
            let ledger = side.core.ledger();
            let has_ended =
                ledger.settlement_of(ACCOUNT).is_none() && ledger.report_of(ACCOUNT).is_none();
            side.taken == INSTRUCTIONS
                && has_ended
                && self.reported(1 - index) == side.taken as u64 * AMOUNT / 100
        })
    }
}

/// Everything that one asks to be paid is told to the other, to the unit, and the books say so.
fn all_arrives(seed: u64, is_lossy: bool) -> World {
    let mut world = World::new(seed);
    world.is_lossy = is_lossy;
    let mut moments = 0;
    while !world.is_done() {
        moments += 1;
        assert!(moments < MOMENTS_MAX, "seed {seed}: it does not end");
        world.go_on();
        for index in [0, 1] {
            let told = world.reported(index);
            assert!(
                told <= INSTRUCTIONS as u64 * AMOUNT / 100,
                "seed {seed}: {told}"
            );
        }
    }
    for side in &world.sides {
        let ledger = side.core.ledger();
        let account = ledger.account(ACCOUNT).unwrap();
        assert_eq!(
            (account.balance(), account.prepaid()),
            (0, 0),
            "seed {seed}"
        );
        let mut channels = ledger.channels().values();
        assert_eq!(channels.next().unwrap().channel.phase, Phase::Open);
        assert!(channels.next().is_none(), "one channel");
        // Four settlements of the period: asked for, paid, received, told.
        let by = |means: Means, sign: i128| -> i128 {
            let entries = &ledger.period(ACCOUNT).unwrap().entries;
            let of = entries.iter().filter(|entry| entry.means == Some(means));
            let amounts = of.map(|entry| entry.amount);
            amounts.filter(|amount| amount.signum() == sign).sum()
        };
        let all = i128::from(INSTRUCTIONS as u64 * AMOUNT / 100);
        assert_eq!(by(Means::Accounting, 1), all);
        assert_eq!(by(Means::Channel, -1), -all);
        assert_eq!(by(Means::Channel, 1), all);
        assert_eq!(by(Means::Accounting, -1), -all);
    }
    world
}

#[test]
fn what_one_accounting_system_asks_to_be_paid_is_told_to_the_other() {
    all_arrives(0, false);
}

#[test]
fn whatever_is_lost_and_whoever_is_killed_it_is_so_once() {
    let (mut kills, mut parked) = (0, 0);
    for seed in 0..SEEDS {
        let world = all_arrives(seed, true);
        kills += world.kills;
        parked += world.parked;
    }
    assert!(
        kills > 1_000 && parked > 50,
        "{kills} kills, {parked} refusals"
    );
    println!(
        "reliability: settlement | {} instructions to engines whose channels these are, {kills} kills, {parked} \
         refusals to hear | 0 lost, paid or told twice",
        2 * INSTRUCTIONS as u64 * SEEDS
    );
}
