//! Two cores with a channel between them, of which one is killed at any step of opening, paying both
//! ways at once, and closing: each payment counts once, and both say the same.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rialto_channel::{Kind, MAGIC, Phase};
use rialto_connector::{
    Action, ChannelRequest, Connector, Durable, Effect, Effects, Input, LinkId, Now, Settings,
    command::{CommandErrorKind, Made},
};
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, ChannelTerms, Entry, Limits, Lsn, Means, Record,
    Relation, SettlementState, SettlementTerms,
};
use rialto_packet::{Prepare, Reply, Timestamp};

const A: usize = 0;
const B: usize = 1;
const PEER: AccountId = AccountId(1);
/// Rounds in which everything has to be done, whatever was killed.
const ROUNDS_MAX: usize = 20_000;

/// What the one who is killed still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// The records of the step are lost, and so is everything that waits for them.
    BeforeRecord,
    /// The records are on disk; nothing that waits for them happens.
    AfterRecord,
}

struct Side {
    core: Connector,
    out: Effects,
    journal: Vec<Vec<u8>>,
    link: LinkId,
    steps: usize,
}

struct World {
    sides: [Side; 2],
    now: Now,
    serial: u32,
    wire: VecDeque<(usize, Input)>,
    /// Which step of whom ends the process.
    kill: Option<(usize, usize, Kill)>,
    /// Every packet of ours is lost once before it arrives.
    loses: bool,
    seen: BTreeMap<Vec<u8>, u32>,
}

fn core(index: usize) -> Connector {
    let secret = [u8::try_from(index).unwrap() + 1; 32];
    let address = ["g.a", "g.b"][index].parse().unwrap();
    Connector::new(
        Settings::new(address),
        secret,
        ChaCha20Rng::from_seed(secret),
    )
}

fn peer(other: &str, channel: Option<ChannelTerms>) -> AccountSettings {
    AccountSettings {
        name: "peer".to_owned(),
        incoming_tokens: Vec::new(),
        terms: AccountTerms {
            ilp_address: Some(other.parse().unwrap()),
            limits: Limits {
                balance_min: -1_000,
                ..Limits::default()
            },
            settlement: SettlementTerms {
                channel,
                ..SettlementTerms::default()
            },
            ..AccountTerms::new(Relation::Peer, "USD/2".parse().unwrap())
        }
        .into(),
    }
}

impl World {
    fn new(kind: Kind) -> Self {
        let side = |index| Side {
            core: core(index),
            out: Effects::default(),
            journal: Vec::new(),
            link: LinkId::Local,
            steps: 0,
        };
        let mut world = Self {
            sides: [side(A), side(B)],
            now: Now {
                mono_ns: 1_000_000_000,
                wall: Timestamp::from_unix_ms(1_900_000_000_000),
            },
            serial: 0,
            wire: VecDeque::new(),
            kill: None,
            loses: false,
            seen: BTreeMap::new(),
        };
        let accepts = ChannelTerms {
            kind,
            limit: 0,
            their_limit: 100,
            propose: false,
        };
        for (index, other, channel) in [(A, "g.b", None), (B, "g.a", Some(accepts))] {
            world.step(index, |core, _, out| {
                core.account_create(peer(other, channel), out).unwrap();
            });
            world.sides[index].steps = 0;
        }
        world.connect();
        world
    }

    /// One step of a side: its records, then what waits for them, unless it is killed in between.
    fn step(&mut self, index: usize, act: impl FnOnce(&mut Connector, Now, &mut Effects)) {
        let side = &mut self.sides[index];
        act(&mut side.core, self.now, &mut side.out);
        self.finish_step(index);
    }

    fn finish_step(&mut self, index: usize) {
        let side = &mut self.sides[index];
        let records: Vec<_> = side.out.records().map(<[u8]>::to_vec).collect();
        let effects: Vec<_> = side.out.drain().collect();
        let does = !records.is_empty() || effects.iter().any(|effect| is_sent(&effect.action));
        side.steps += usize::from(does);
        if does
            && let Some((killed, at, kill)) = self.kill
            && (killed, at) == (index, side.steps)
        {
            self.kill = None;
            match kill {
                Kill::AfterRecord => side.journal.extend(records),
                Kill::BeforeRecord => {
                    // What waits for no record is out already.
                    let early = |effect: &Effect| effect.after == Durable::Nothing;
                    for effect in effects.into_iter().filter(early) {
                        self.send(index, effect.action);
                    }
                    while let Some((to, input)) = self.wire.pop_front() {
                        if to != index {
                            self.step(to, |core, now, out| core.handle(now, input, out));
                        }
                    }
                }
            }
            self.restart(index);
            return;
        }
        side.journal.extend(records);
        let lsn = Lsn(side.journal.len() as u64);
        assert_eq!(side.core.lsn(), lsn);
        side.core
            .handle(self.now, Input::Synced(lsn), &mut side.out);
        assert!(side.out.is_empty(), "nothing follows from a sync");
        for effect in effects {
            self.send(index, effect.action);
        }
    }

    fn send(&mut self, from: usize, action: Action) {
        let to = 1 - from;
        let link = self.sides[to].link;
        let (bytes, input) = match action {
            Action::Forward {
                request, packet, ..
            } => {
                let input = Input::Prepare {
                    account: PEER,
                    link,
                    request,
                    packet: BytesMut::from(&packet[..]),
                };
                (Prepare::parse(&packet[..]).unwrap().data().to_vec(), input)
            }
            Action::Answer {
                request, packet, ..
            } => {
                let bytes = match Reply::parse(packet.clone()).unwrap() {
                    Reply::Fulfill(fulfill) => fulfill.data().to_vec(),
                    Reply::Reject(reject) => panic!("{reject:?}"),
                };
                let input = Input::Reply {
                    link,
                    request,
                    packet,
                };
                (bytes, input)
            }
            Action::Disconnect { .. } | Action::Report(_) => return,
            Action::Engine { .. } => panic!("no engine has a part in this"),
        };
        assert!(bytes.starts_with(&MAGIC), "nothing but frames is sent");
        let times = self.seen.entry(bytes).or_default();
        *times += 1;
        if !(self.loses && *times == 1) {
            self.wire.push_back((to, input));
        }
    }

    /// Both connect anew, and what was on its way is lost.
    fn connect(&mut self) {
        self.wire.clear();
        self.serial += 1;
        for index in [A, B] {
            let link = LinkId::Session {
                worker: 0,
                serial: self.serial,
            };
            let old = std::mem::replace(&mut self.sides[index].link, link);
            self.step(index, |core, now, out| {
                core.handle(now, Input::LinkDown { link: old }, out);
            });
        }
        for index in [A, B] {
            let link = self.sides[index].link;
            let account = PEER;
            self.step(index, |core, now, out| {
                core.handle(now, Input::LinkUp { link, account }, out);
            });
        }
    }

    fn restart(&mut self, index: usize) {
        let side = &mut self.sides[index];
        side.core = core(index);
        side.out = Effects::default();
        for (number, bytes) in side.journal.iter().enumerate() {
            let record = Record::decode(bytes).unwrap();
            side.core.recover(Lsn(number as u64 + 1), record).unwrap();
        }
        self.step(index, |core, _, out| core.recovered(out));
        self.connect();
    }

    /// One packet arrives, or time goes on until something is due. Says whether anything happened.
    fn go_on(&mut self) -> bool {
        if let Some((to, input)) = self.wire.pop_front() {
            self.step(to, |core, now, out| core.handle(now, input, out));
            return true;
        }
        let due = self
            .sides
            .iter()
            .filter_map(|side| side.core.poll_timeout());
        let Some(due) = due.min() else {
            return false;
        };
        let passed = due.saturating_sub(self.now.mono_ns);
        self.now.mono_ns += passed;
        self.now.wall = self
            .now
            .wall
            .plus_ms(i64::try_from(passed.div_ceil(1_000_000)).unwrap());
        for index in [A, B] {
            self.step(index, |core, now, out| {
                core.handle(now, Input::Timeout, out)
            });
        }
        true
    }

    /// What the operators want, tried until it is so.
    fn command(&mut self, command: Command) {
        match command {
            Command::Open(kind) => self.step(A, |core, now, out| {
                let error = core.channel_open(now, request(kind), out).err();
                assert!(error.is_none_or(|error| error.kind == CommandErrorKind::Busy));
            }),
            Command::Pay(index, amount, key) => self.step(index, |core, now, out| {
                // As long as there is no room, or another one is under way, it is not made.
                let _ = core.settle_manual(now, "peer", Some(amount), key, out);
            }),
            Command::Close(index) => self.step(index, |core, now, out| {
                let id = core.ledger().channels().keys().next().copied();
                let _ = id.map(|id| core.channel_close(now, id, false, out));
            }),
        }
    }

    fn is_done(&self, command: Command) -> bool {
        let phase_is = |index: usize, phase: &Phase| {
            let mut channels = self.sides[index].core.ledger().channels().values();
            channels.next().is_some_and(|known| {
                known.channel.phase == *phase && known.channel.outbox.is_empty()
            })
        };
        match command {
            Command::Open(_) => phase_is(A, &Phase::Open) && phase_is(B, &Phase::Open),
            Command::Pay(index, _, key) => {
                let settlements = self.sides[index].core.ledger().settlements();
                settlements.values().any(|made| {
                    made.request_key.as_deref() == Some(key)
                        && made.state == SettlementState::Accepted
                })
            }
            Command::Close(_) => phase_is(A, &Phase::Closed) && phase_is(B, &Phase::Closed),
        }
    }

    /// The whole story; afterwards both have the same.
    fn run(&mut self, kind: Kind) {
        let stages: [&[Command]; 4] = [
            &[Command::Open(kind)],
            &[Command::Pay(A, 40, "a1"), Command::Pay(B, 25, "b1")],
            &[Command::Pay(A, 30, "a2")],
            &[Command::Close(B)],
        ];
        let mut rounds = 0;
        for stage in stages {
            for command in stage {
                self.command(*command);
            }
            while !stage.iter().all(|command| self.is_done(*command)) {
                rounds += 1;
                assert!(rounds < ROUNDS_MAX, "{stage:?} does not come to an end");
                if !self.go_on() || rounds % 50 == 0 {
                    for command in stage {
                        if !self.is_done(*command) {
                            self.command(*command);
                        }
                    }
                }
            }
        }
        let found = [A, B].map(|index| {
            let ledger = self.sides[index].core.ledger();
            let channel = &ledger.channels().values().next().unwrap().channel;
            assert_eq!(ledger.channels().len(), 1, "opened once");
            let entries = &ledger.period(PEER).unwrap().entries;
            let by_channel = |entry: &Entry| entry.means == Some(Means::Channel);
            assert!(entries.iter().all(by_channel), "{entries:?}");
            let asset = (ledger.positions(), ledger.settled());
            let sum: i128 = ledger.accounts().map(rialto_ledger::Account::balance).sum();
            let position: i128 = asset.0.map(|(_, amount, _)| amount).sum();
            let settled: i128 = asset.1.map(|(_, amount)| amount).sum();
            assert_eq!(sum + position + settled, 0);
            assert_eq!(
                settled,
                channel.owed(),
                "what was settled is what the channel has"
            );
            (channel.ours.total, channel.theirs.total, sum)
        });
        assert_eq!(found, [(70, 25, -45), (25, 70, 45)]);
    }
}

fn is_sent(action: &Action) -> bool {
    matches!(action, Action::Forward { .. } | Action::Answer { .. })
}

/// The same each time, and so the same channel.
fn request(kind: Kind) -> ChannelRequest {
    ChannelRequest {
        account: "peer".to_owned(),
        kind,
        limit: 100,
        their_limit: other_limit(kind),
        idempotency_key: "open".to_owned(),
    }
}

/// The holder of an asymmetrical trustline never owes.
fn other_limit(kind: Kind) -> u64 {
    match kind {
        Kind::SymmetricalTrustline => 50,
        Kind::AsymmetricalTrustline => 0,
    }
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Open(Kind),
    Pay(usize, u64, &'static str),
    Close(usize),
}

#[test]
fn a_kill_at_any_step_of_a_channel_loses_nothing_and_pays_nothing_twice() {
    let mut kills = 0;
    for kind in Kind::ALL {
        let mut world = World::new(kind);
        world.run(kind);
        let steps = [A, B].map(|index| world.sides[index].steps);
        for index in [A, B] {
            for at in 1..=steps[index] {
                for kill in [Kill::BeforeRecord, Kill::AfterRecord] {
                    let mut world = World::new(kind);
                    world.kill = Some((index, at, kill));
                    world.run(kind);
                    kills += 1;
                }
            }
        }
    }
    assert!(kills >= 60, "{kills} places to be killed at");
    println!(
        "reliability: channel kills | {kills} crashes between two cores, before and after the record of each step of open, pay, close, both trustlines | 0 units wrong"
    );
}

#[test]
fn packets_that_are_lost_are_told_again() {
    for kind in Kind::ALL {
        let mut world = World::new(kind);
        world.loses = true;
        world.run(kind);
    }
}

#[test]
fn a_key_means_the_channel_that_was_asked_for_whatever_became_of_it() {
    let kind = Kind::SymmetricalTrustline;
    let mut world = World::new(kind);
    world.run(kind);
    let opened = *world.sides[A]
        .core
        .ledger()
        .channels()
        .keys()
        .next()
        .unwrap();
    let others = [
        ChannelRequest {
            limit: 101,
            ..request(kind)
        },
        ChannelRequest {
            their_limit: 49,
            ..request(kind)
        },
        request(Kind::AsymmetricalTrustline),
    ];
    for from_checkpoint in [false, true] {
        if from_checkpoint {
            let records: Vec<_> = world.sides[A].core.ledger().snapshot().collect();
            let mut copy = core(A);
            for (number, record) in records.iter().enumerate() {
                copy.recover(Lsn(number as u64 + 1), record.clone())
                    .unwrap();
            }
            world.sides[A].core = copy;
        }
        let side = &mut world.sides[A];
        let again = side
            .core
            .channel_open(world.now, request(kind), &mut side.out);
        assert_eq!(again, Ok(Made::Existing(opened)));
        for other in &others {
            let other = side
                .core
                .channel_open(world.now, other.clone(), &mut side.out);
            let error = other.unwrap_err();
            assert_eq!(
                (error.kind, error.field),
                (CommandErrorKind::Invalid, "Idempotency-Key")
            );
        }
        assert!(side.out.is_empty());
    }
}
