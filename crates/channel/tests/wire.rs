//! Two sides over a wire that loses, repeats, delays and reorders, from a seed: in the end both have
//! the same, to the unit, and no limit was ever passed.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use proptest::prelude::*;
use rialto_channel::{
    Answer, Channel, ChannelId, ChannelKey, Effect, Event, Kind, Limits, Phase, Side, Statement,
    Step, Terms,
};

/// One side and what its books would have.
struct End {
    key: ChannelKey,
    channel: Channel,
    debited: u64,
    credited: u64,
    refusals: Vec<String>,
}

impl End {
    fn apply(&mut self, step: Step) -> Option<Answer> {
        for effect in step.effects {
            match effect {
                Effect::Debit { amount } => self.debited += amount,
                Effect::Credit { amount, .. } => self.credited += amount,
                Effect::PaymentRefused { reason } => self.refusals.push(reason),
                Effect::PaymentVoid | Effect::PaymentStands => panic!("nothing was refused"),
                Effect::Send | Effect::PaymentTaken | Effect::Note { .. } => {}
            }
        }
        self.channel = step.channel;
        step.answer
    }

    fn ask(&mut self, event: Event) -> bool {
        match self.channel.step(event, &self.key) {
            Ok(step) => {
                self.apply(step);
                true
            }
            Err(_) => false,
        }
    }
}

/// What is on its way to one side.
#[derive(Clone)]
enum Carried {
    Message(u64, rialto_channel::Message),
    Answer(u64, u64, Answer),
}

#[derive(Debug, Clone)]
enum Act {
    Pay(bool, u64),
    Limits(bool, u64, u64),
    Accept(bool),
    Decline(bool),
    Tell(bool),
    Deliver(bool, usize),
    Repeat(bool, usize),
    Lose(bool, usize),
    Close(bool),
    CloseAlone(bool),
}

fn acts(ends: bool) -> impl Strategy<Value = Vec<Act>> {
    let side = any::<bool>;
    let act = prop_oneof![
        8 => (side(), 1..60u64).prop_map(|(side, amount)| Act::Pay(side, amount)),
        1 => (side(), 0..150u64, 0..150u64).prop_map(|(s, a, b)| Act::Limits(s, a, b)),
        1 => side().prop_map(Act::Accept),
        1 => side().prop_map(Act::Decline),
        12 => side().prop_map(Act::Tell),
        14 => (side(), 0..8usize).prop_map(|(side, index)| Act::Deliver(side, index)),
        3 => (side(), 0..8usize).prop_map(|(side, index)| Act::Repeat(side, index)),
        2 => (side(), 0..8usize).prop_map(|(side, index)| Act::Lose(side, index)),
    ];
    let end = prop_oneof![
        30 => act.clone(),
        1 => side().prop_map(Act::Close),
        1 => side().prop_map(Act::CloseAlone),
    ];
    prop::collection::vec(if ends { end.boxed() } else { act.boxed() }, 0..250)
}

struct World {
    /// The opener first.
    ends: [End; 2],
    /// By whom it reaches.
    wires: [Vec<Carried>; 2],
}

impl World {
    fn new(kind: Kind, limits: (u64, u64)) -> Self {
        let keys = [[1; 32], [2; 32]].map(|seed| ChannelKey::from_seed(&seed));
        let terms = Terms {
            kind,
            asset: "USD/2".parse().unwrap(),
            opener: keys[0].public(),
            accepter: keys[1].public(),
            limits: Limits {
                opener: limits.0,
                accepter: limits.1,
                revision: 0,
            },
        };
        let id = ChannelId([9; 16]);
        let proposed = Channel::propose(id, terms.clone(), &keys[0])
            .unwrap()
            .channel;
        let signature = proposed.agreed.opener.unwrap();
        let offered = Channel::offered(id, 1, &terms, &signature, &keys[1]).unwrap();
        let [one, two] = keys;
        let end = |key, channel| End {
            key,
            channel,
            debited: 0,
            credited: 0,
            refusals: Vec::new(),
        };
        let mut world = Self {
            ends: [end(one, proposed), end(two, offered)],
            wires: [Vec::new(), Vec::new()],
        };
        assert!(world.ends[1].ask(Event::Accept));
        world
    }

    /// The first message that waits goes onto the wire once more.
    fn tell(&mut self, side: usize) {
        if let Some(queued) = self.ends[side].channel.outgoing() {
            let carried = Carried::Message(queued.sequence, queued.message.clone());
            self.wires[1 - side].push(carried);
        }
    }

    fn deliver(&mut self, side: usize, carried: Carried) {
        let end = &mut self.ends[side];
        match carried {
            Carried::Message(sequence, message) => {
                let step = end
                    .channel
                    .step(Event::Received { sequence, message }, &end.key)
                    .unwrap();
                let answer = end.apply(step).expect("every message is answered");
                let acknowledgement = end.channel.received;
                let carried = Carried::Answer(sequence, acknowledgement, answer);
                self.wires[1 - side].push(carried);
            }
            Carried::Answer(sequence, acknowledgement, answer) => {
                end.ask(Event::Answered {
                    sequence,
                    acknowledgement,
                    answer,
                });
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Pay(side, amount) => {
                let end = &mut self.ends[usize::from(*side)];
                let (room, before) = (end.channel.room(), end.debited);
                let amount = *amount;
                let paid = end.ask(Event::Pay { amount });
                assert!(!paid || amount <= room, "within the limit");
                assert_eq!(end.debited - before, if paid { amount } else { 0 });
            }
            Act::Limits(side, opener, accepter) => {
                let (opener, accepter) = match self.ends[0].channel.terms.keeper() {
                    None => (*opener, *accepter),
                    Some(Side::Opener) => (*opener, 0),
                    Some(Side::Accepter) => (0, *accepter),
                };
                self.ends[usize::from(*side)].ask(Event::Change { opener, accepter });
            }
            Act::Accept(side) => {
                self.ends[usize::from(*side)].ask(Event::Accept);
            }
            Act::Decline(side) => {
                let reason = "no".to_owned();
                self.ends[usize::from(*side)].ask(Event::Decline { reason });
            }
            Act::Tell(side) => self.tell(usize::from(*side)),
            Act::Deliver(side, index) => {
                let wire = &mut self.wires[usize::from(*side)];
                if !wire.is_empty() {
                    let carried = wire.remove(index % wire.len());
                    self.deliver(usize::from(*side), carried);
                }
            }
            Act::Repeat(side, index) => {
                let wire = &self.wires[usize::from(*side)];
                if !wire.is_empty() {
                    let carried = wire[index % wire.len()].clone();
                    self.deliver(usize::from(*side), carried);
                }
            }
            Act::Lose(side, index) => {
                let wire = &mut self.wires[usize::from(*side)];
                if !wire.is_empty() {
                    wire.remove(index % wire.len());
                }
            }
            Act::Close(side) => {
                self.ends[usize::from(*side)].ask(Event::Close);
            }
            Act::CloseAlone(side) => {
                self.ends[usize::from(*side)].ask(Event::CloseAlone);
            }
        }
    }

    /// The wire works at last, with what was still on it in between.
    fn settle(&mut self) {
        for _ in 0..200 {
            for side in [0, 1] {
                while let Some(carried) = self.wires[side].pop() {
                    self.deliver(side, carried);
                }
                self.tell(side);
            }
            let is_quiet = |end: &End| end.channel.outbox.is_empty();
            if self.ends.iter().all(is_quiet) && self.wires.iter().all(Vec::is_empty) {
                return;
            }
        }
        panic!("the two sides do not come to rest");
    }

    /// What holds at every moment.
    fn check(&self) {
        let [one, two] = &self.ends;
        for (end, other) in [(one, two), (two, one)] {
            assert_eq!(end.debited, end.channel.ours.total, "books and counter");
            assert_eq!(end.credited, end.channel.theirs.total, "books and counter");
            assert!(
                end.channel.theirs.total <= other.channel.ours.total,
                "nothing from nothing"
            );
            assert!(end.channel.taken <= other.channel.theirs.total);
            assert!(end.refusals.is_empty(), "{:?}", end.refusals);
        }
    }

    fn check_end(&self) {
        let [one, two] = &self.ends;
        assert_eq!(one.channel.owed(), -two.channel.owed());
        for end in &self.ends {
            assert_eq!(end.channel.taken, end.channel.ours.total);
            Statement::of(&end.channel, &end.key).verify().unwrap();
        }
        assert!(
            one.channel
                .differences(&two.channel.standing(), Some(&one.channel.known_standing()))
                .is_empty()
        );
        assert!(
            two.channel
                .differences(&one.channel.standing(), Some(&two.channel.known_standing()))
                .is_empty()
        );
        assert_eq!(one.channel.terms, two.channel.terms);
    }
}

fn run(kind: Kind, limits: (u64, u64), acts: &[Act]) {
    let mut world = World::new(kind, limits);
    for act in acts {
        world.act(act);
        world.check();
    }
    world.settle();
    world.check();
    world.check_end();
    let closing = |end: &End| end.channel.phase == Phase::Closing;
    assert!(
        !world.ends.iter().any(closing),
        "what closes comes to an end"
    );
    assert_eq!(
        world.ends[0].channel.phase.is_ended(),
        world.ends[1].channel.phase.is_ended()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_symmetrical_trustline_agrees(acts in acts(false)) {
        run(Kind::SymmetricalTrustline, (100, 50), &acts);
    }

    #[test]
    fn an_asymmetrical_trustline_agrees(acts in acts(false), opener_keeps in any::<bool>()) {
        let limits = if opener_keeps { (100, 0) } else { (0, 100) };
        run(Kind::AsymmetricalTrustline, limits, &acts);
    }

    #[test]
    fn channels_that_end_agree(acts in acts(true), symmetrical in any::<bool>()) {
        let (kind, limits) = match symmetrical {
            true => (Kind::SymmetricalTrustline, (100, 50)),
            false => (Kind::AsymmetricalTrustline, (100, 0)),
        };
        run(kind, limits, &acts);
    }
}
