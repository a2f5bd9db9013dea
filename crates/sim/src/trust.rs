//! The witness's naive books of settlement channels, as the records tell, and what must be true of
//! them: a counter never falls, money moves with it in one record, and neither side ever knows more
//! of the other than the other has on record.

use std::collections::BTreeMap;

use rialto_channel::{Channel, ChannelId, Final, Phase, Side};
use rialto_connector::{Action, Effect, Event};
use rialto_ledger::{
    AccountChannel, AccountId, ChannelMoney, Ledger, Record, Settlement, SettlementState,
};

use crate::{
    check::{Checked, Witness},
    plan::Party,
};

/// What a node says that may be wrong with the books of a neighbour whose books are right.
const ALARMS: [&str; 5] = [
    "older than",
    "units more",
    "units less",
    "do not know",
    "another key",
];

/// Channels of one node, as its records tell.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    channels: BTreeMap<ChannelId, AccountChannel>,
    /// By its settlements and credits: paid, and came in.
    money: BTreeMap<ChannelId, (u64, u64)>,
}

fn complain<T>(text: String) -> Result<T, String> {
    Err(text)
}

/// Whatever may only rise.
fn counters(channel: &Channel) -> [u64; 7] {
    [
        channel.ours.count,
        channel.ours.total,
        channel.theirs.count,
        channel.theirs.total,
        channel.taken,
        channel.sent,
        channel.received,
    ]
}

/// What both paid, the opener first.
fn totals(channel: &Channel) -> (u64, u64) {
    match channel.side {
        Side::Opener => (channel.ours.total, channel.theirs.total),
        Side::Accepter => (channel.theirs.total, channel.ours.total),
    }
}

/// Whether somebody signed that the channel ends as its counters stand.
fn fits(ending: Option<Final>, channel: &Channel) -> bool {
    ending.is_some_and(|ending| (ending.opener_paid, ending.accepter_paid) == totals(channel))
}

/// The last of a side's messages that was answered.
fn answered(channel: &Channel) -> u64 {
    let waiting = channel.outbox.front();
    waiting.map_or(channel.sent, |waiting| waiting.sequence - 1)
}

/// What one side knows of the other is what the other has on record.
fn check_known(of: &Channel, other: Option<&Channel>) -> Checked {
    let known = [of.theirs.total, of.taken, of.received, answered(of)];
    let is = other.map_or([0; 4], |other| {
        [
            other.ours.total,
            other.theirs.total,
            other.sent,
            other.received,
        ]
    });
    let words = ["they paid", "they were paid", "they sent", "they took"];
    for ((known, is), word) in known.into_iter().zip(is).zip(words) {
        if known > is {
            return complain(format!(
                "G4: one side of channel {} has that {word} {known}, their books say {is}",
                of.id
            ));
        }
    }
    Ok(())
}

impl Trust {
    /// Enters a record: the counters rise by what it moves, and nothing else does.
    pub(crate) fn enter(&mut self, record: &Record) -> Checked {
        let Record::ChannelPut {
            number,
            account,
            channel,
            money,
            opening,
        } = record
        else {
            return Ok(());
        };
        let before = self.channels.get(&channel.id);
        let opening = opening.clone();
        let put = AccountChannel {
            number: *number,
            account: *account,
            channel: (**channel).clone(),
            // It is said once.
            opening: opening.or_else(|| before?.opening.clone()),
        };
        let mut was = before.map_or([0; 7], |before| counters(&before.channel));
        let is = counters(channel);
        // What both signed away was never paid.
        let refused = before.filter(|before| before.channel.is_payment_refused());
        let refused = refused.map(|before| before.channel.ours.amount);
        let cancelled = |of: &ChannelMoney| matches!(of, ChannelMoney::Moved { state, .. } if *state == SettlementState::Cancelled);
        let void = refused.filter(|_| money.as_ref().is_some_and(cancelled));
        if let Some(amount) = void {
            was[0] -= 1;
            was[1] -= amount;
        }
        if was.iter().zip(is).any(|(was, is)| *was > is) {
            return complain(format!("a counter falls, from {was:?} to {is:?}: {put:?}"));
        }
        if let Some(before) = before {
            let of = |put: &AccountChannel| (put.number, put.account, put.channel.side);
            let (was, is) = (&before.channel.phase, &channel.phase);
            let is_back = was.is_ended() && was != is && ![was, is].contains(&&Phase::Closed);
            if of(before) != of(&put) || is_back {
                return complain(format!("a channel changes, from {before:?} to {put:?}"));
            }
        }
        let risen: [u64; 7] = std::array::from_fn(|of| is[of] - was[of]);
        let [count, paid, their_count, came_in, taken, ..] = risen;
        let (at, moves) = (&channel.id, [count, paid, their_count, came_in]);
        let owed = i128::from(channel.ours.total) - i128::from(channel.theirs.total);
        let is_right = match money {
            Some(ChannelMoney::Made { settlement }) => {
                settlement.channel == Some(*at)
                    && settlement.account == *account
                    && moves == [1, settlement.amount, 0, 0]
                    && owed <= channel.our_limit().into()
            }
            Some(ChannelMoney::Credited { credit }) => {
                // What was made under the limits before may still have come.
                let limits = before.and_then(|before| before.channel.limits_before);
                let limit_before = limits.map_or(0, |limits| limits.of(channel.side.other()));
                credit.account == *account
                    && moves == [0, 0, 1, credit.amount]
                    && credit.key == format!("channel {at} payment {}", channel.theirs.count)
                    && -owed <= channel.their_limit().max(limit_before).into()
            }
            Some(ChannelMoney::Moved { state, .. }) => {
                moves == [0; 4]
                    && match state {
                        // Taken, or refused and signed for good.
                        SettlementState::Accepted => {
                            let is_taken = taken > 0 && channel.taken == channel.ours.total;
                            let is_signed = channel.phase.is_ended()
                                && (channel.phase != Phase::Closed
                                    || fits(channel.their_final, channel));
                            is_taken || taken == 0 && channel.is_payment_refused() && is_signed
                        }
                        SettlementState::Parked { .. } => channel.is_payment_refused(),
                        SettlementState::Open => !channel.is_payment_refused(),
                        SettlementState::Cancelled => {
                            void.is_some()
                                && channel.phase == Phase::Closed
                                && fits(channel.our_final, channel)
                                && fits(channel.their_final, channel)
                        }
                    }
            }
            None => moves == [0; 4] && taken == 0,
        };
        if !is_right {
            return complain(format!("I8: {risen:?} moved with {money:?}: {put:?}"));
        }
        let sums = self.money.entry(*at).or_default();
        match money {
            Some(ChannelMoney::Made { settlement }) => sums.0 += settlement.amount,
            Some(ChannelMoney::Credited { credit }) => sums.1 += credit.amount,
            Some(ChannelMoney::Moved { .. }) | None => sums.0 -= void.unwrap_or(0),
        }
        self.channels.insert(*at, put);
        Ok(())
    }

    /// After each step.
    pub(crate) fn check(&self, ledger: &Ledger) -> Checked {
        if ledger.channels().len() != self.channels.len() {
            return complain("the books have channels that no record has".to_owned());
        }
        for (id, known) in ledger.channels() {
            let sums = self.money.get(id).copied().unwrap_or_default();
            let totals = (known.channel.ours.total, known.channel.theirs.total);
            if sums != totals {
                return complain(format!(
                    "G4: over channel {id} {sums:?} was settled, its counters are {totals:?}"
                ));
            }
        }
        Ok(())
    }

    /// After a recovery and in the end: everything.
    pub(crate) fn check_all(&self, ledger: &Ledger) -> Checked {
        if *ledger.channels() != self.channels {
            let (books, records) = (ledger.channels(), &self.channels);
            return complain(format!(
                "I7: channels are {books:?}, the records say {records:?}"
            ));
        }
        Ok(())
    }

    /// Those with the holder of an account, the oldest first.
    pub(crate) fn of(&self, account: AccountId) -> Vec<&Channel> {
        let known = self.channels.values();
        let mut known: Vec<_> = known.filter(|known| known.account == account).collect();
        known.sort_by_key(|known| known.number);
        known.into_iter().map(|known| &known.channel).collect()
    }
}

impl Witness {
    /// The other side of a channel, as its own books have it.
    fn channel_across(&self, node: usize, account: AccountId, id: ChannelId) -> Option<&Channel> {
        match self.holder(node, account) {
            Party::Node(other) => {
                let known = self.nodes[other].trust.channels.get(&id)?;
                Some(&known.channel)
            }
            Party::Edge(_) => self.edge_channels.get(&id).map(|(_, channel)| channel),
        }
    }

    /// Who holds an account of a node.
    fn holder(&self, node: usize, account: AccountId) -> Party {
        let name = &self.nodes[node].plan.account(account).name;
        let mut nodes = self.nodes.iter();
        match nodes.position(|books| books.plan.name == *name) {
            Some(other) => Party::Node(other),
            None => Party::Edge(0),
        }
    }

    /// Records and effects of a step that have to do with channels.
    pub(crate) fn observe_channels(
        &mut self,
        node: usize,
        records: &[Record],
        effects: &[Effect],
    ) -> Checked {
        for record in records {
            if let Record::ChannelPut {
                account,
                channel,
                money,
                ..
            } = record
            {
                check_known(channel, self.channel_across(node, *account, channel.id))?;
                let is_credit = matches!(money, Some(ChannelMoney::Credited { .. }));
                self.tally.claims += u64::from(is_credit);
                let is_first = (channel.sent, channel.received) == (1, 0);
                self.tally.channels += u64::from(is_first && !channel.outbox.is_empty());
            }
        }
        for effect in effects {
            let Action::Report(Event::ChannelNote {
                account, message, ..
            }) = &effect.action
            else {
                continue;
            };
            // Of two nodes neither has forgotten anything that the other knows.
            if let Party::Node(_) = self.holder(node, *account)
                && ALARMS.iter().any(|alarm| message.contains(alarm))
                // A final that crossed with a payment is made anew.
                && !message.contains("final statement")
            {
                return complain(format!("a false alarm: {message}"));
            }
        }
        Ok(())
    }

    /// A node came back: what its neighbours know of its channels is in its books, and what these know
    /// of theirs is in theirs.
    pub(crate) fn recovered_channels(&self, node: usize) -> Checked {
        for known in self.nodes[node].trust.channels.values() {
            let across = self.channel_across(node, known.account, known.channel.id);
            check_known(&known.channel, across)?;
        }
        for (other, books) in self.nodes.iter().enumerate() {
            for known in books.trust.channels.values() {
                if self.holder(other, known.account) == Party::Node(node) {
                    let across = self.channel_across(other, known.account, known.channel.id);
                    check_known(&known.channel, across)?;
                }
            }
        }
        let edges = self.edge_channels.values();
        for (_, of) in edges.filter(|(with, _)| *with == node) {
            let known = self.nodes[node].trust.channels.get(&of.id);
            check_known(of, known.map(|known| &known.channel))?;
        }
        Ok(())
    }

    /// Once all is quiet: both sides of every channel agree to the unit, nothing waits to be told, and
    /// every payment over one has ended.
    pub(crate) fn check_channels(&self) -> Checked {
        for (node, books) in self.nodes.iter().enumerate() {
            let name = &books.plan.name;
            // What mallory refused before the channel ended alone stays signed, and counts. What it refused
            // before lower limits were agreed on waits for the end.
            let is_lost = |known: &AccountChannel| {
                let is_edge = matches!(self.holder(node, known.account), Party::Edge(_));
                let channel = &known.channel;
                let fits = channel.owed() <= i128::from(channel.our_limit());
                is_edge && channel.is_payment_refused() && (channel.phase.is_ended() || !fits)
            };
            for known in books.trust.channels.values() {
                let channel = &known.channel;
                let paid = match is_lost(known) {
                    true => channel.taken,
                    false => channel.ours.total,
                };
                let across = self.channel_across(node, known.account, channel.id);
                let Some(other) = across else {
                    return complain(format!("I9: only {name} has {known:?}"));
                };
                let ours = [paid, channel.theirs.total, channel.received];
                let theirs = [other.theirs.total, other.ours.total, other.sent];
                if ours != theirs || !channel.outbox.is_empty() {
                    return complain(format!(
                        "I9: {name} and {} differ on a channel: {channel:?}, {other:?}",
                        books.plan.account(known.account).name
                    ));
                }
                let is_agreed = match (&channel.phase, &other.phase) {
                    (Phase::Closing, _) | (_, Phase::Closing) => false,
                    (Phase::Proposed, of) => *of == Phase::Offered,
                    (Phase::Offered, of) => *of == Phase::Proposed,
                    (of, Phase::Open) | (Phase::Open, of) => *of == Phase::Open,
                    (ours, theirs) => ours.is_ended() && theirs.is_ended(),
                };
                if !is_agreed {
                    return complain(format!(
                        "{name} and {} end otherwise: {channel:?}, {other:?}",
                        books.plan.account(known.account).name
                    ));
                }
            }
            let mut payments = books.settled.over_channels();
            let may_wait = |of: &Settlement| {
                let known = of.channel.and_then(|id| books.trust.channels.get(&id));
                known.is_some_and(|known| is_lost(known) && !known.channel.phase.is_ended())
            };
            if let Some(of) = payments.find(|of| !of.state.is_ended() && !may_wait(of)) {
                return complain(format!("G4: {name} was never heard: {of:?}"));
            }
            for account in &books.plan.accounts {
                let id = books.plan.id(&account.name);
                let wanted = account.terms.as_ref().and_then(|terms| terms.channel);
                let wanted = wanted.filter(|wanted| wanted.propose);
                let is_there = |kind| books.trust.of(id).iter().any(|of| of.terms.kind == kind);
                if wanted.is_some_and(|wanted| !is_there(wanted.kind)) {
                    return complain(format!("{name} never opened a channel: {account:?}"));
                }
            }
        }
        Ok(())
    }

    /// What the other side of a channel refused, or a node cannot decide alone.
    pub(crate) fn closing(&self, node: usize) -> Vec<ChannelId> {
        let known = self.nodes[node].trust.channels.values();
        let closing = known.filter(|known| {
            known.channel.phase == Phase::Closing && known.channel.our_final.is_none()
        });
        closing.map(|known| known.channel.id).collect()
    }
}
