//! Settlement channels with the holders of accounts, beside the packets.
//!
//! What a channel does is decided by [`rialto_channel::Channel::step`]. Here each step becomes one record,
//! the channel and its money together, and what it has to say leaves once that is on disk: a payment
//! before it is told, a credit before it is answered. What was not answered is told again, later each
//! time, and again after a restart.
//!
//! Nothing is opened or told before both sides greeted: each start, and each new connection, begins with
//! a greeting, in which both say where their channels stand. What differs is named.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aws_lc_rs::hmac;
use rand_core::Rng;
use rialto_channel::{
    Answer, Body, CHANNELS_MAX as GREETED_MAX, Channel, ChannelError, ChannelId, ChannelKey,
    Effect, Event as Step, Frame, Greeting, Kind, Limits, Message, Phase, PublicKey, Side,
    Standing, Statement, Terms, VERSION,
};
use rialto_ledger::{
    AccountChannel, AccountId, CREDIT_KEYS_MAX, ChannelMoney, ChannelOpening, ChannelTerms, Credit,
    Record, Relation, Settlement, SettlementState,
};
use rialto_packet::{money::Asset, quantity::Quantity};

use crate::{
    Connector,
    command::{CommandError, Made},
    io::{Action, Durable, Effects, Event, Now},
    messages::{Asker, MessageId, MessageOutcome},
    refusal::Reason,
    settle::Asking,
};

/// Longest pause before the other side is asked again.
const RETRY_NS_MAX: u64 = 60_000_000_000;

/// Shortest time between two greetings, where the other side forgets the first at once.
const GREET_AGAIN_NS: u64 = 1_000_000_000;

/// Notes that are kept of one channel for its operator.
pub const NOTES_MAX: usize = 32;

/// Something that an operator may want to know of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelNote {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// A sentence.
    pub message: String,
}

/// A channel as an operator asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRequest {
    /// Name of the account.
    pub account: String,
    /// What kind of channel.
    pub kind: Kind,
    /// The most that we may owe over it, in units of the account's asset.
    pub limit: u64,
    /// The most that they may.
    pub their_limit: u64,
    /// The caller's key.
    pub idempotency_key: String,
}

/// What is being asked of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    /// Who they are and where our channels stand.
    Greeting(AccountId),
    /// To take the first message that waits.
    Tell(ChannelId),
}

/// What they said when greetings were exchanged, and when that was.
struct Greeted {
    greeting: Greeting,
    at_ns: u64,
}

/// A message under way.
#[derive(Debug)]
struct Sent {
    ask: Ask,
    /// Of the frame.
    sequence: u64,
    /// With a greeting: what we knew then of how the channels stand with them.
    known: Vec<Standing>,
}

/// What the core knows of channels beside the books. Soft: after a restart both sides greet again, and
/// the books tell what is still to be said.
pub(crate) struct Channels {
    pub(crate) key: ChannelKey,
    /// What those said with whom greetings were exchanged since the start, or since they connected.
    greeted: BTreeMap<AccountId, Greeted>,
    asking: BTreeMap<Ask, Asking>,
    retries: BTreeSet<(u64, Ask)>,
    sent: BTreeMap<MessageId, Sent>,
    /// The message by which something is being asked. What comes of an earlier one is void: greetings
    /// may have begun anew while it was under way.
    current: BTreeMap<Ask, MessageId>,
    notes: BTreeMap<ChannelId, VecDeque<ChannelNote>>,
}

impl Channels {
    /// The key is made of the node's secret, and so the same at each start.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret),
            b"rialto channel key",
        );
        let seed = tag.as_ref().try_into();
        Self {
            key: ChannelKey::from_seed(seed.expect("HMAC-SHA-256 gives 32 bytes")),
            greeted: BTreeMap::new(),
            asking: BTreeMap::new(),
            retries: BTreeSet::new(),
            sent: BTreeMap::new(),
            current: BTreeMap::new(),
            notes: BTreeMap::new(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.retries.first().map(|(at_ns, _)| *at_ns)
    }

    /// It was answered, or is not asked any more.
    fn asked(&mut self, ask: Ask) {
        self.current.remove(&ask);
        if let Some(asking) = self.asking.remove(&ask)
            && let Some(at_ns) = asking.retry_at_ns
        {
            self.retries.remove(&(at_ns, ask));
        }
    }

    /// Whether it may be asked now: not while it is under way, and not before its time has come. Marks
    /// it as under way.
    fn ask(&mut self, ask: Ask, now: Now) -> bool {
        let Some(asking) = self.asking.get_mut(&ask) else {
            self.asking.insert(ask, Asking::default());
            return true;
        };
        let Some(at_ns) = asking.retry_at_ns.take_if(|at_ns| *at_ns <= now.mono_ns) else {
            return false;
        };
        self.retries.remove(&(at_ns, ask));
        true
    }
}

impl Connector {
    /// Who we are on channels.
    pub fn channel_key(&self) -> PublicKey {
        self.channels.key.public()
    }

    /// What there was to say of a channel since the start, the oldest first.
    pub fn channel_notes(&self, id: ChannelId) -> impl Iterator<Item = &ChannelNote> {
        self.channels.notes.get(&id).into_iter().flatten()
    }

    /// Whether greetings were exchanged with an account's holder, and so channels work.
    pub fn channel_greeted(&self, id: AccountId) -> bool {
        self.channels.greeted.contains_key(&id)
    }

    /// What can be shown of a channel, signed.
    pub fn channel_statement(&self, id: ChannelId) -> Result<Statement, CommandError> {
        let known = self.channel(id)?;
        Ok(Statement::of(&known.channel, &self.channels.key))
    }

    /// Proposes a channel to an account's holder, as an operator asks. A second request with the same
    /// key is the same channel.
    ///
    /// # Errors
    /// An error of kind [`CommandErrorKind::Busy`](crate::command::CommandErrorKind) as long as no greeting came back: they are asked for one, so try again.
    pub fn channel_open(
        &mut self,
        now: Now,
        request: ChannelRequest,
        out: &mut Effects,
    ) -> Result<Made<ChannelId>, CommandError> {
        let account = self.ledger.account_by_name(&request.account);
        let account =
            account.ok_or_else(|| CommandError::not_found("account", &request.account))?;
        let id = account.id;
        let opening = ChannelOpening {
            idempotency_key: request.idempotency_key,
            limit: request.limit,
            their_limit: request.their_limit,
        };
        let key = Some(&opening.idempotency_key);
        let mut channels = self.ledger.channels().values();
        let known =
            channels.find(|known| known.opening.as_ref().map(|o| &o.idempotency_key) == key);
        if let Some(known) = known {
            let same = (known.account, known.channel.terms.kind) == (id, request.kind)
                && known.opening.as_ref() == Some(&opening);
            if !same {
                let message = "this key was used for another request";
                return Err(CommandError::invalid("Idempotency-Key", message));
            }
            return Ok(Made::Existing(known.channel.id));
        }
        let terms = ChannelTerms {
            kind: request.kind,
            limit: request.limit,
            their_limit: request.their_limit,
            propose: false,
        };
        let made = self.channel_make(now, id, terms, Some(opening), out)?;
        Ok(Made::New(made))
    }

    fn channel_make(
        &mut self,
        now: Now,
        id: AccountId,
        terms: ChannelTerms,
        opening: Option<ChannelOpening>,
        out: &mut Effects,
    ) -> Result<ChannelId, CommandError> {
        let account = self.ledger.account(id).expect("the caller looked it up");
        let name = account.settings.name.clone();
        if account.settings.relation == Relation::Local {
            let message = "a local account has no node of its own to settle with";
            return Err(CommandError::invalid("account", message));
        }
        if !self.channels_are_ours(id) {
            let message = format!("channels with '{name}' are its engine's: open one there");
            return Err(CommandError::conflict("account", message));
        }
        if self.closed.is_some() {
            return Err(CommandError::busy("the node opens no channels now"));
        }
        let kind = terms.kind;
        let Some(Greeted { greeting, .. }) = self.channels.greeted.get(&id) else {
            self.channel_greet(now, id, out);
            let message = format!(
                "'{name}' has not greeted us: it is not connected, or speaks no channels; it is being asked"
            );
            return Err(CommandError::busy(&message));
        };
        if !greeting.speaks(kind) {
            let message = format!("'{name}' does not speak {kind} channels");
            return Err(CommandError::conflict("kind", message));
        }
        let terms = Terms {
            kind,
            asset: account.settings.asset.clone(),
            opener: self.channels.key.public(),
            accepter: greeting.key,
            limits: Limits {
                opener: terms.limit,
                accepter: terms.their_limit,
                revision: 0,
            },
        };
        terms
            .check()
            .map_err(|error| CommandError::invalid("limit", error.to_string()))?;
        if self.channels_unended(id) >= GREETED_MAX || !self.ledger.has_channel_room(id) {
            let message = format!("'{name}' has as many channels as there may be");
            return Err(CommandError::conflict("account", message));
        }
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        let channel = ChannelId(bytes);
        let step = Channel::propose(channel, terms, &self.channels.key);
        let step = step.map_err(channel_error)?;
        let record = Record::ChannelPut {
            number: self.ledger.next_channel(),
            account: id,
            channel: Box::new(step.channel),
            money: None,
            opening,
        };
        self.record(&record, out);
        self.channel_tell(now, channel, out);
        Ok(channel)
    }

    /// Agrees to a channel that was offered, or to other limits of one.
    pub fn channel_accept(
        &mut self,
        now: Now,
        id: ChannelId,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        self.channel_command(now, id, Step::Accept, out)
    }

    /// Does not agree to it.
    pub fn channel_decline(
        &mut self,
        now: Now,
        id: ChannelId,
        reason: &str,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        if reason.len() > rialto_channel::TEXT_BYTES_MAX || reason.chars().any(char::is_control) {
            let message = "must have at most 255 bytes, and no control characters";
            return Err(CommandError::invalid("reason", message));
        }
        let reason = reason.to_owned();
        self.channel_command(now, id, Step::Decline { reason }, out)
    }

    /// Proposes other limits: of what we may owe, and of what they may.
    pub fn channel_limits(
        &mut self,
        now: Now,
        id: ChannelId,
        limit: u64,
        their_limit: u64,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let (opener, accepter) = match self.channel(id)?.channel.side {
            Side::Opener => (limit, their_limit),
            Side::Accepter => (their_limit, limit),
        };
        self.channel_command(now, id, Step::Change { opener, accepter }, out)
    }

    /// Ends a channel: in agreement, or alone.
    pub fn channel_close(
        &mut self,
        now: Now,
        id: ChannelId,
        alone: bool,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let event = if alone { Step::CloseAlone } else { Step::Close };
        self.channel_command(now, id, event, out)
    }

    fn channel(&self, id: ChannelId) -> Result<&AccountChannel, CommandError> {
        let known = self.ledger.channels().get(&id);
        known.ok_or_else(|| CommandError::not_found("channel", &id.to_string()))
    }

    fn channel_command(
        &mut self,
        now: Now,
        id: ChannelId,
        event: Step,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let known = self.channel(id)?;
        let (account, number) = (known.account, known.number);
        let step = known.channel.step(event, &self.channels.key);
        let step = step.map_err(channel_error)?;
        self.channel_step(now, account, number, step, None, out);
        Ok(())
    }

    /// Whether channels with an account's holder are this node's own, and not its engine's.
    pub(crate) fn channels_are_ours(&self, account: AccountId) -> bool {
        let account = self.ledger.account(account);
        account.is_none_or(|account| !account.settings.settlement.engine_channels)
    }

    /// Channels of an account that have not ended.
    fn channels_unended(&self, account: AccountId) -> usize {
        let channels = self.ledger.channels_of(account);
        channels.filter(|known| !known.channel.is_quiet()).count()
    }

    /// The channel over which the next payment to an account goes: the newest that has room.
    pub(crate) fn channel_to_pay(&self, account: AccountId) -> Option<&Channel> {
        let channels = self.ledger.channels_of(account).rev();
        channels.map(|known| &known.channel).find(|channel| {
            let is_free = channel.taken == channel.ours.total;
            channel.phase == Phase::Open && is_free && channel.room() > 0
        })
    }

    /// Pays over a channel: `settlement` says how much and leaves the balance in the same record.
    pub(crate) fn channel_pay(
        &mut self,
        now: Now,
        id: ChannelId,
        settlement: Settlement,
        out: &mut Effects,
    ) {
        let amount = settlement.amount;
        let known = self
            .ledger
            .channels()
            .get(&id)
            .expect("the caller chose it");
        let (account, number) = (known.account, known.number);
        let step = known.channel.step(Step::Pay { amount }, &self.channels.key);
        let step = step.expect("a channel with room takes a payment within it");
        let money = ChannelMoney::Made {
            settlement: Box::new(settlement),
        };
        self.channel_step(now, account, number, step, Some(money), out);
    }

    /// Tells a payment again that was refused.
    pub(crate) fn channel_pay_again(
        &mut self,
        now: Now,
        settlement: &Settlement,
        id: ChannelId,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let known = self.channel(id)?;
        let (account, number) = (known.account, known.number);
        let step = known.channel.step(Step::PayAgain, &self.channels.key);
        let step = step.map_err(channel_error)?;
        let money = ChannelMoney::Moved {
            id: settlement.id,
            state: SettlementState::Open,
        };
        self.channel_step(now, account, number, step, Some(money), out);
        Ok(())
    }

    /// One step of a channel: one record, and then what it asks for.
    fn channel_step(
        &mut self,
        now: Now,
        account: AccountId,
        number: u64,
        step: rialto_channel::Step,
        money: Option<ChannelMoney>,
        out: &mut Effects,
    ) {
        let id = step.channel.id;
        let mut money = money;
        let mut moved = None;
        for effect in &step.effects {
            match effect {
                // The settlement, which the caller made, is the debit.
                Effect::Debit { .. } | Effect::Send | Effect::Note { .. } => {}
                Effect::Credit { amount, number } => {
                    let credit = self.channel_credit(now, account, id, *amount, *number);
                    money = Some(ChannelMoney::Credited {
                        credit: Box::new(credit),
                    });
                }
                Effect::PaymentTaken => {
                    moved = self.channel_moved(account, id, SettlementState::Accepted);
                }
                Effect::PaymentRefused { reason } => {
                    let message = format!("the other side of the channel refused it: {reason}");
                    moved = self.channel_moved(account, id, SettlementState::Parked { message });
                }
                Effect::PaymentVoid => {
                    moved = self.channel_moved(account, id, SettlementState::Cancelled);
                }
                Effect::PaymentStands => {
                    moved = self.channel_moved(account, id, SettlementState::Accepted);
                }
            }
        }
        if let Some((id, state)) = moved {
            money = Some(ChannelMoney::Moved { id, state });
        }
        let before = self.ledger.channels().get(&id);
        let had_room = before.is_some_and(|known| {
            known.channel.phase == Phase::Open && known.channel.room() >= step.channel.room()
        });
        let gains_room = step.channel.phase == Phase::Open && !had_room;
        if before.is_none_or(|known| known.channel != step.channel) || money.is_some() {
            let record = Record::ChannelPut {
                number,
                account,
                channel: Box::new(step.channel),
                money: money.clone(),
                opening: None,
            };
            self.record(&record, out);
        }
        for effect in step.effects {
            if let Effect::Note { message } = effect {
                self.channel_note(now, account, id, message, out);
            }
        }
        match money {
            Some(ChannelMoney::Moved { id, .. }) => {
                out.now(Action::Report(Event::SettlementChanged { id }));
                self.settle_after_commit(now, account, out); // what was owed meanwhile
            }
            // What they paid leaves room for what we owe.
            Some(ChannelMoney::Credited { .. }) => self.settle_after_commit(now, account, out),
            Some(ChannelMoney::Made { .. }) => {}
            None if gains_room => self.settle_after_commit(now, account, out),
            None => {}
        }
        self.channel_tell(now, id, out);
    }

    /// The settlement under way that is our payment over this channel.
    fn channel_moved(
        &self,
        account: AccountId,
        id: ChannelId,
        state: SettlementState,
    ) -> Option<(rialto_ledger::SettlementId, SettlementState)> {
        let settlement = self.ledger.settlement_of(account)?;
        (settlement.channel == Some(id)).then_some((settlement.id, state))
    }

    fn channel_credit(
        &self,
        now: Now,
        account: AccountId,
        id: ChannelId,
        amount: u64,
        number: u64,
    ) -> Credit {
        let holder = self.ledger.account(account);
        let holder = holder.expect("an account with channels that have not ended is not deleted");
        Credit {
            account,
            key: credit_key(id, number),
            quantity: Quantity::of_units(amount, holder.settings.asset.scale()),
            amount,
            leftover: self.ledger.leftover(account),
            at_ms: now.wall.unix_ms(),
        }
    }

    fn channel_note(
        &mut self,
        now: Now,
        account: AccountId,
        channel: ChannelId,
        message: String,
        out: &mut Effects,
    ) {
        let known = self.ledger.channels();
        // Those of channels that were forgotten go with them.
        if self.channels.notes.len() > known.len() {
            let is_known = |id: &ChannelId| *id == ChannelId::NONE || known.contains_key(id);
            self.channels.notes.retain(|id, _| is_known(id));
        }
        let notes = self.channels.notes.entry(channel).or_default();
        // What is said again and again is one note.
        if notes.back().is_none_or(|last| last.message != message) {
            out.now(Action::Report(Event::ChannelNote {
                account,
                channel,
                message: message.clone(),
            }));
        } else {
            notes.pop_back();
        }
        if notes.len() >= NOTES_MAX {
            notes.pop_front();
        }
        let at_ms = now.wall.unix_ms();
        notes.push_back(ChannelNote { at_ms, message });
    }

    /// After a restart: whoever has something to say to an account's holder greets first.
    /// What waited to be passed on to or from an accounting system is looked at then, too: in the same pass, as
    /// there may be a million accounts.
    pub(crate) fn channels_resume(&mut self) {
        let channels = self.ledger.channels().values();
        let mut greets: BTreeSet<_> = channels.map(|known| known.account).collect();
        for account in self.ledger.accounts() {
            let terms = &account.settings.settlement;
            if terms.channel.is_some() {
                greets.insert(account.id);
            }
            if terms.accounting_url.is_some() {
                self.settle.look_at(account.id, 0);
            }
        }
        for account in greets {
            self.channel_greet_soon(account, 0);
        }
    }

    /// The account holder connected, or the account changed: greetings begin anew.
    pub(crate) fn channel_link_up(&mut self, account: AccountId) {
        self.channels.greeted.remove(&account);
        self.channels.asked(Ask::Greeting(account));
        self.channel_greet_soon(account, 0);
    }

    /// They know of no greeting: one is sent again. We still know theirs: were we to ask for it, too, two
    /// that have something to tell would go on asking each other.
    fn channel_greet_again(&mut self, account: AccountId) {
        let greeted = self.channels.greeted.get(&account);
        let at_ns = greeted.map_or(0, |greeted| greeted.at_ns.saturating_add(GREET_AGAIN_NS));
        self.channels.asked(Ask::Greeting(account));
        self.channel_greet_soon(account, at_ns);
    }

    /// The account is gone.
    pub(crate) fn channel_account_deleted(&mut self, account: AccountId) {
        self.channels.greeted.remove(&account);
        self.channels.asked(Ask::Greeting(account));
    }

    /// The account's settings changed: it may be time to propose a channel.
    pub(crate) fn channel_account_changed(&mut self, account: AccountId) {
        if !self.channels.greeted.contains_key(&account) {
            self.channel_greet_soon(account, 0);
        } else if self.channel_is_wanted(account).is_some() {
            self.channel_link_up(account);
        }
    }

    /// Has a greeting sent at the first time-out from then on, if there is a reason for one.
    fn channel_greet_soon(&mut self, account: AccountId, at_ns: u64) {
        let ask = Ask::Greeting(account);
        if (self.channel_is_wanted(account).is_some() || self.channels_unended(account) > 0)
            && !self.channels.asking.contains_key(&ask)
        {
            self.channels.asking.insert(ask, Asking::due(at_ns));
            self.channels.retries.insert((at_ns, ask));
        }
    }

    /// What is to be asked again now.
    pub(crate) fn channels_timeout(&mut self, now: Now, out: &mut Effects) {
        while let Some((at_ns, ask)) = self.channels.retries.first().copied()
            && at_ns <= now.mono_ns
        {
            match ask {
                Ask::Greeting(account) => self.channel_greet(now, account, out),
                Ask::Tell(channel) => self.channel_tell(now, channel, out),
            }
            // Whatever is not asked any more is forgotten.
            if self.channels.retries.remove(&(at_ns, ask)) {
                self.channels.asking.remove(&ask);
            }
        }
    }

    fn channel_greeting(&self, account: AccountId) -> Frame {
        let channels = self.ledger.channels_of(account).rev();
        let unended = channels.filter(|known| !known.channel.is_quiet());
        Frame {
            channel: ChannelId::NONE,
            kind: None,
            sequence: 0,
            acknowledgement: 0,
            body: Body::Greeting(Greeting {
                versions: vec![VERSION],
                kinds: Kind::ALL.iter().map(|kind| kind.code()).collect(),
                key: self.channels.key.public(),
                channels: unended
                    .take(GREETED_MAX)
                    .map(|known| known.channel.standing())
                    .collect(),
            }),
        }
    }

    fn channel_greet(&mut self, now: Now, account: AccountId, out: &mut Effects) {
        let ask = Ask::Greeting(account);
        if self.ledger.account(account).is_none() || !self.channels.ask(ask, now) {
            return;
        }
        let frame = self.channel_greeting(account);
        self.channel_send(now, account, ask, &frame, out);
    }

    /// Tells the other side of a channel the first message that waits, if it is not being told.
    fn channel_tell(&mut self, now: Now, id: ChannelId, out: &mut Effects) {
        let ask = Ask::Tell(id);
        let Some(known) = self.ledger.channels().get(&id) else {
            return;
        };
        let (account, channel) = (known.account, &known.channel);
        let Some(told) = channel.outgoing() else {
            return;
        };
        if !self.channels.greeted.contains_key(&account) {
            self.channel_greet_soon(account, 0);
            return;
        }
        let frame = Frame {
            channel: id,
            kind: Some(channel.terms.kind),
            sequence: told.sequence,
            acknowledgement: channel.received,
            body: Body::Message(told.message.clone()),
        };
        if self.channels.ask(ask, now) {
            self.channel_send(now, account, ask, &frame, out);
        }
    }

    /// Sends a frame once everything that the books say is on disk.
    fn channel_send(
        &mut self,
        now: Now,
        account: AccountId,
        ask: Ask,
        frame: &Frame,
        out: &mut Effects,
    ) {
        let after = Durable::OnDisk(self.lsn);
        match self.message_send_after(now, account, &frame.encode(), after, out) {
            Ok(message) => {
                let known = match ask {
                    Ask::Greeting(_) => self.channels_known(account),
                    Ask::Tell(_) => Vec::new(),
                };
                let sequence = frame.sequence;
                let sent = Sent {
                    ask,
                    sequence,
                    known,
                };
                self.channels.sent.insert(message, sent);
                self.channels.current.insert(ask, message);
            }
            Err(reason) => self.channel_failed(now, ask, reason.row().message.to_owned()),
        }
    }

    /// Channels that an account's holder has told us something of, and how these stand with them.
    fn channels_known(&self, account: AccountId) -> Vec<Standing> {
        let known = self.ledger.channels_of(account).map(|known| &known.channel);
        let unended = known.filter(|channel| channel.received > 0 && !channel.phase.is_ended());
        unended.map(Channel::known_standing).collect()
    }

    /// It was not answered, or not as it should be: it is asked again, later each time.
    fn channel_failed(&mut self, now: Now, ask: Ask, message: String) {
        let jitter = self.rng.next_u64();
        if let Some(asking) = self.channels.asking.get_mut(&ask) {
            let at_ns = asking.failed(now, jitter, message, RETRY_NS_MAX);
            self.channels.retries.insert((at_ns, ask));
        }
    }

    /// Why the other side could not be told what waits, if it could not.
    pub fn channel_failure(&self, id: ChannelId) -> Option<&str> {
        let account = self.ledger.channels().get(&id)?.account;
        let asks = [Ask::Tell(id), Ask::Greeting(account)];
        let failed = |ask: &Ask| self.channels.asking.get(ask)?.last_failure.as_deref();
        asks.iter().find_map(failed)
    }

    /// What came of a message of ours, if it was of a channel. Says whether it was.
    pub(crate) fn channel_message_done(
        &mut self,
        id: MessageId,
        outcome: &MessageOutcome,
        out: &mut Effects,
    ) -> bool {
        let Some(sent) = self.channels.sent.remove(&id) else {
            return false;
        };
        let Sent {
            ask,
            sequence,
            known,
        } = sent;
        let now = self.routes.now();
        if self.channels.current.get(&ask) != Some(&id) {
            return true;
        }
        self.channels.current.remove(&ask);
        let data = match outcome {
            MessageOutcome::Answered { data } => data,
            MessageOutcome::Rejected { code, message, .. } => {
                self.channel_failed(now, ask, format!("{code:?} {message}"));
                return true;
            }
            MessageOutcome::Failed { reason } => {
                self.channel_failed(now, ask, reason.row().message.to_owned());
                return true;
            }
        };
        match (ask, Frame::parse(data)) {
            (Ask::Greeting(account), Ok(frame)) => match frame.body {
                Body::Greeting(greeting) => {
                    self.channels.asked(ask);
                    self.channel_greet_done(now, account, greeting, &known, out);
                }
                Body::Message(_) | Body::Answer(_) => {
                    self.channel_failed(now, ask, "answered by something else".to_owned());
                }
            },
            (Ask::Tell(channel), Ok(frame)) => match frame.body {
                Body::Answer(answer) if frame.channel == channel => {
                    self.channel_answered(
                        now,
                        channel,
                        sequence,
                        frame.acknowledgement,
                        answer,
                        out,
                    );
                }
                Body::Answer(_) | Body::Message(_) | Body::Greeting(_) => {
                    self.channel_failed(now, ask, "answered by something else".to_owned());
                }
            },
            (_, Err(error)) => self.channel_failed(now, ask, error.to_string()),
        }
        true
    }

    fn channel_answered(
        &mut self,
        now: Now,
        id: ChannelId,
        sequence: u64,
        acknowledgement: u64,
        answer: Answer,
        out: &mut Effects,
    ) {
        let ask = Ask::Tell(id);
        let Some(known) = self.ledger.channels().get(&id) else {
            self.channels.asked(ask);
            return;
        };
        let (account, number) = (known.account, known.number);
        match &answer {
            Answer::Taken { .. } | Answer::Refused { .. } => self.channels.asked(ask),
            Answer::GreetFirst => {
                self.channels.asked(ask);
                self.channel_greet_again(account);
                return;
            }
            Answer::Expected | Answer::Unknown { .. } | Answer::Later => {
                self.channel_failed(now, ask, "the other side does not take it now".to_owned());
            }
        }
        let answered = Step::Answered {
            sequence,
            acknowledgement,
            answer,
        };
        let step = known_step(self, id, answered);
        self.channel_step(now, account, number, step, None, out);
    }

    /// Both sides know each other now. `asked` is what we knew when they were asked, if they were.
    fn channel_greet_done(
        &mut self,
        now: Now,
        account: AccountId,
        greeting: Greeting,
        asked: &[Standing],
        out: &mut Effects,
    ) {
        let theirs: BTreeMap<_, _> = greeting
            .channels
            .iter()
            .map(|standing| (standing.channel, *standing))
            .collect();
        let mut differences = Vec::new();
        let mut waiting = Vec::new();
        for known in self.ledger.channels_of(account) {
            let channel = &known.channel;
            if channel.outgoing().is_some() {
                waiting.push(channel.id);
            }
            let before = asked.iter().find(|of| of.channel == channel.id);
            let is_told = before.is_some() && !channel.phase.is_ended();
            match theirs.get(&channel.id) {
                Some(standing) => {
                    let found = channel.differences(standing, before);
                    differences.extend(found.into_iter().map(|message| (channel.id, message)));
                }
                None if is_told && greeting.channels.len() < GREETED_MAX => {
                    differences.push((channel.id, "they do not know the channel".to_owned()));
                }
                None => {}
            }
            if *channel.their_key() != greeting.key && !channel.is_quiet() {
                let message = "they greet with another key than that of the channel".to_owned();
                differences.push((channel.id, message));
            }
        }
        let at_ns = now.mono_ns;
        let greeted = Greeted { greeting, at_ns };
        self.channels.greeted.insert(account, greeted);
        for (channel, message) in differences {
            self.channel_note(now, account, channel, message, out);
        }
        for channel in waiting {
            let ask = Ask::Tell(channel);
            let asking = self.channels.asking.get(&ask);
            if asking.is_some_and(|asking| asking.retry_at_ns.is_some()) {
                self.channels.asked(ask); // now they are there
            }
            self.channel_tell(now, channel, out);
        }
        self.channel_propose(now, account, out);
    }

    /// The channel that the account's settings ask for, as long as there never was one of its kind.
    fn channel_is_wanted(&self, account: AccountId) -> Option<ChannelTerms> {
        let terms = self.ledger.account(account)?.settings.settlement.channel?;
        let mut channels = self.ledger.channels_of(account);
        let is_known = channels.any(|known| known.channel.terms.kind == terms.kind);
        (terms.propose && !is_known).then_some(terms)
    }

    /// Opens that channel.
    fn channel_propose(&mut self, now: Now, account: AccountId, out: &mut Effects) {
        let Some(terms) = self.channel_is_wanted(account) else {
            return;
        };
        // What stands in the way is there to be seen when an operator opens one.
        let _ = self.channel_make(now, account, terms, None, out);
    }

    /// A frame from the holder of an account.
    pub(crate) fn channel_frame(&mut self, now: Now, from: Asker, data: &[u8], out: &mut Effects) {
        let frame = match Frame::parse(data) {
            Ok(frame) => frame,
            Err(error) => {
                self.channel_note(now, from.account, ChannelId::NONE, error.to_string(), out);
                self.message_refuse(from, Reason::ChannelFrame, &[], out);
                return;
            }
        };
        let (id, kind, sequence) = (frame.channel, frame.kind, frame.sequence);
        let answer = match frame.body {
            Body::Greeting(greeting) => {
                // Before what we have to tell, which they take only from whom they know.
                let ours = self.channel_greeting(from.account);
                let after = Durable::OnDisk(self.lsn);
                self.message_fulfill(from, &ours.encode(), after, out);
                // They may have said so long ago: what is missing in it, they say when they are asked.
                self.channel_greet_done(now, from.account, greeting, &[], out);
                return;
            }
            Body::Message(message) => {
                self.channel_message(now, from.account, id, kind, sequence, message, out)
            }
            Body::Answer(_) => {
                self.message_refuse(from, Reason::ChannelFrame, &[], out);
                return;
            }
        };
        let known = self.ledger.channels().get(&id);
        let answer = Frame {
            channel: id,
            kind,
            sequence,
            acknowledgement: known.map_or(0, |known| known.channel.received),
            body: Body::Answer(answer),
        };
        let after = Durable::OnDisk(self.lsn);
        self.message_fulfill(from, &answer.encode(), after, out);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a frame, of which each is looked at"
    )]
    fn channel_message(
        &mut self,
        now: Now,
        account: AccountId,
        id: ChannelId,
        kind: Option<Kind>,
        sequence: u64,
        message: Message,
        out: &mut Effects,
    ) -> Answer {
        if !self.channels.greeted.contains_key(&account) {
            return Answer::GreetFirst;
        }
        if self.ledger.credit_count() >= CREDIT_KEYS_MAX {
            return Answer::Later;
        }
        let unknown = |reason: &str| Answer::Unknown {
            reason: reason.to_owned(),
        };
        let known = self.ledger.channels().get(&id);
        // Of a channel that had this number before and was forgotten: soon that is, too.
        let next = known.map_or(1, |known| known.channel.theirs.count + 1);
        if self.ledger.credit_by_key(&credit_key(id, next)).is_some() {
            return Answer::Later;
        }
        let Some(known) = known else {
            let Message::Propose { terms, signature } = &message else {
                return unknown("there is no such channel");
            };
            return match self.channel_offered(account, id, sequence, terms, signature) {
                Ok(channel) => {
                    self.channel_take(now, account, channel, out);
                    Answer::Taken { word: None }
                }
                Err(reason) => {
                    self.channel_note(now, account, ChannelId::NONE, reason.clone(), out);
                    Answer::Refused { reason }
                }
            };
        };
        if known.account != account || kind != Some(known.channel.terms.kind) {
            let message =
                format!("a frame for channel {id}, which is not theirs or of another kind");
            self.channel_note(now, account, ChannelId::NONE, message, out);
            return unknown("there is no such channel");
        }
        let number = known.number;
        let mut step = known_step(self, id, Step::Received { sequence, message });
        let answer = step.answer.take();
        self.channel_step(now, account, number, step, None, out);
        self.channel_accept_by_itself(now, id, out);
        answer.expect("every message is answered")
    }

    fn channel_offered(
        &self,
        account: AccountId,
        id: ChannelId,
        sequence: u64,
        terms: &Terms,
        signature: &rialto_channel::Signature,
    ) -> Result<Channel, String> {
        let holder = self.ledger.account(account);
        let ours: &Asset = &holder.ok_or("there is no such account")?.settings.asset;
        if terms.asset != *ours {
            return Err(format!(
                "the channel is in {}, the account in {ours}",
                terms.asset
            ));
        }
        if self.channels_unended(account) >= GREETED_MAX || !self.ledger.has_channel_room(account) {
            return Err("there are as many channels as there may be".to_owned());
        }
        let key = &self.channels.key;
        Channel::offered(id, sequence, terms, signature, key).map_err(|refusal| refusal.to_string())
    }

    /// A channel was offered: it is remembered, and accepted if the account says so.
    fn channel_take(&mut self, now: Now, account: AccountId, channel: Channel, out: &mut Effects) {
        let id = channel.id;
        let record = Record::ChannelPut {
            number: self.ledger.next_channel(),
            account,
            channel: Box::new(channel),
            money: None,
            opening: None,
        };
        self.record(&record, out);
        self.channel_note(now, account, id, "they offered the channel".to_owned(), out);
        self.channel_accept_by_itself(now, id, out);
    }

    /// What an account's holder owes over its channels, or may come to owe, but for one of them. What
    /// we propose does not stand in the way of what they do, so that two who propose at once agree.
    fn channels_at_risk(&self, account: AccountId, but: ChannelId) -> u128 {
        let channels = self.ledger.channels_of(account).map(|known| &known.channel);
        let agreed = channels.filter(|channel| {
            let is_agreed = !matches!(channel.phase, Phase::Proposed | Phase::Offered);
            is_agreed && channel.id != but
        });
        agreed.map(|channel| u128::from(channel.at_risk())).sum()
    }

    /// Accepts what waits for an operator where the account's settings allow it.
    fn channel_accept_by_itself(&mut self, now: Now, id: ChannelId, out: &mut Effects) {
        let Some(known) = self.ledger.channels().get(&id) else {
            return;
        };
        let channel = &known.channel;
        let settings = self.ledger.account(known.account).map(|a| &a.settings);
        let allowed = settings.and_then(|settings| settings.settlement.channel);
        let limits = match (&channel.phase, &channel.change) {
            (Phase::Offered, _) => channel.terms.limits,
            (Phase::Open, Some(change)) if change.by != channel.side => change.limits,
            _ => return,
        };
        let their_limit = limits.of(channel.side.other());
        // The limit is one, however many channels they open one after the other.
        let others = self.channels_at_risk(known.account, id);
        let is_allowed = allowed.is_some_and(|allowed| {
            allowed.kind == channel.terms.kind
                && others + u128::from(their_limit) <= u128::from(allowed.their_limit)
        });
        if is_allowed {
            let (account, number) = (known.account, known.number);
            if let Ok(step) = channel.step(Step::Accept, &self.channels.key) {
                self.channel_step(now, account, number, step, None, out);
            }
        }
    }
}

/// By which what they paid over a channel is known.
fn credit_key(id: ChannelId, number: u64) -> String {
    format!("channel {id} payment {number}")
}

/// A step that the other side asked for, which is never an error.
fn known_step(connector: &Connector, id: ChannelId, event: Step) -> rialto_channel::Step {
    let known = connector.ledger.channels().get(&id);
    let channel = &known.expect("the caller looked it up").channel;
    let step = channel.step(event, &connector.channels.key);
    step.expect("what the other side does is answered, never an error of ours")
}

fn channel_error(error: ChannelError) -> CommandError {
    match &error {
        ChannelError::Phase { .. } | ChannelError::Unanswered | ChannelError::Outbox => {
            CommandError::conflict("state", error.to_string())
        }
        ChannelError::Terms(_)
        | ChannelError::Nothing
        | ChannelError::Limit { .. }
        | ChannelError::Counter => CommandError::invalid("limit", error.to_string()),
    }
}
