//! Settlement beside the packets: when one is made, and how the engine is told until it has it.
//!
//! ```text
//!            threshold, schedule, operator
//!                       │ record: the amount leaves the balance, the key is made
//!                       ▼
//!   cancelled ◀── parked ◀── refused ── Open ── accepted ──▶ Accepted
//!                   │                  ▲  │
//!                   └──── retry ───────┘  └─▶ no answer: asked again, later each time
//! ```
//!
//! The record is on disk before the engine is told, and the key never changes: whatever crashes, the
//! engine pays once. A settlement whose outcome is not known stays open; it is never taken back by
//! guess. One settlement of an account is under way at a time: what is owed meanwhile waits for the
//! next, so a silent engine holds up nobody else and fills no queue.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use rand_core::Rng;
use rialto_channel::Channel;
use rialto_ledger::{
    Account, AccountId, CREDIT_KEY_BYTES_MAX, CREDIT_KEY_REFRESH_MS, CREDIT_KEYS_MAX, Credit, Lsn,
    Record, Settlement, SettlementCause, SettlementId, SettlementState,
};
use rialto_packet::quantity::Quantity;

use crate::{
    Connector,
    command::{CommandError, Made},
    io::{Action, Asked, Durable, Effects, EngineAsk, Event, Now},
};

/// Pause before an engine that did not answer is asked again; doubled each time.
const RETRY_NS_MIN: u64 = 100_000_000;

/// Longest such pause (RFC 38, Idempotence).
const RETRY_NS_MAX: u64 = 3_600_000_000_000;

/// Accounts that engines did not close yet; of one more the engine is asked only once.
const CLOSINGS_MAX: usize = 1_024;

/// What an engine said to a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineAnswer {
    /// It has it, and will pay.
    Accepted,
    /// It never will.
    Refused {
        /// Why, for people.
        message: String,
    },
    /// No answer, or one that says nothing: it may have it or not.
    Unknown {
        /// What happened, for people.
        message: String,
    },
}

/// What came of an incoming settlement, or of an instruction to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credited {
    /// It was credited now.
    New {
        /// In units of the account's asset.
        amount: u64,
    },
    /// It had been credited before; nothing changed.
    Before {
        /// In units of the account's asset.
        amount: u64,
    },
}

/// How something is being asked of an engine.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// Times that the engine did not answer.
    failures: u32,
    /// When it is asked again; `None` while its answer is awaited.
    pub(crate) retry_at_ns: Option<u64>,
    /// What happened last.
    pub(crate) last_failure: Option<String>,
}

impl Asking {
    /// To be asked at this time.
    pub(crate) fn due(at_ns: u64) -> Self {
        Self {
            retry_at_ns: Some(at_ns),
            ..Self::default()
        }
    }

    /// There was no answer: says when to ask again.
    pub(crate) fn failed(
        &mut self,
        now: Now,
        jitter: u64,
        message: String,
        pause_ns_max: u64,
    ) -> u64 {
        let pause = RETRY_NS_MIN
            .checked_shl(self.failures)
            .filter(|pause| (RETRY_NS_MIN..=pause_ns_max).contains(pause))
            .unwrap_or(pause_ns_max);
        // Between half of it and all of it, so that many do not come at once.
        let pause = pause / 2 + jitter % (pause / 2);
        let at_ns = now.mono_ns.saturating_add(pause);
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ns = Some(at_ns);
        self.last_failure = Some(message);
        at_ns
    }
}

/// What the core knows of settlements beside the books. Soft: after a restart the books tell which
/// settlements are open, and schedules begin anew with what is owed.
#[derive(Debug, Default)]
pub(crate) struct Settle {
    tellings: BTreeMap<SettlementId, Asking>,
    /// When open settlements are told again.
    retries: BTreeSet<(u64, SettlementId)>,
    /// Accounts that their engines were told of since the start.
    introductions: BTreeMap<AccountId, Asking>,
    /// When engines are told of accounts again.
    introduction_retries: BTreeSet<(u64, AccountId)>,
    /// Accounts that engines are to close, with the URL of each engine.
    closings: BTreeMap<(AccountId, String), Asking>,
    /// When engines are asked again to close accounts.
    closing_retries: BTreeSet<(u64, (AccountId, String))>,
    /// When scheduled settlements are due.
    due: BTreeSet<(u64, AccountId)>,
    scheduled: BTreeSet<AccountId>,
}

impl Settle {
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        let retry = self.retries.first().map(|(at_ns, _)| *at_ns);
        let due = self.due.first().map(|(at_ns, _)| *at_ns);
        let introduction = self.introduction_retries.first().map(|(at_ns, _)| *at_ns);
        let closing = self.closing_retries.first().map(|(at_ns, _)| *at_ns);
        let others = due.into_iter().chain(introduction).chain(closing);
        retry.into_iter().chain(others).min()
    }

    /// What is to be settled with an account is looked at then.
    pub(crate) fn look_at(&mut self, id: AccountId, at_ns: u64) {
        if self.scheduled.insert(id) {
            self.due.insert((at_ns, id));
        }
    }

    /// The engine need not close the account any more: it did, or the account is with it again.
    fn stop_closing(&mut self, closing: &(AccountId, String)) {
        let asking = self.closings.remove(closing);
        if let Some(at_ns) = asking.and_then(|asking| asking.retry_at_ns) {
            self.closing_retries.remove(&(at_ns, closing.clone()));
        }
    }

    /// The account is gone, or its engine changed.
    pub(crate) fn forget(&mut self, id: AccountId) {
        let asking = self.introductions.remove(&id);
        if let Some(at_ns) = asking.and_then(|asking| asking.retry_at_ns) {
            self.introduction_retries.remove(&(at_ns, id));
        }
    }
}

/// Whether the limits of the account let so much leave its balance; if not, what they leave.
pub(crate) fn check_available(account: &Account, amount: u64) -> Result<(), String> {
    let available = account.available();
    if i128::from(amount) <= available {
        return Ok(());
    }
    let asset = &account.settings.asset;
    Err(format!(
        "is above what the limits of the account leave, {} {}",
        asset.decimal(available.max(0)),
        asset.code()
    ))
}

impl Connector {
    /// The account holder is there: now its engine may open an account, as engines talk to each other
    /// through us as soon as they have one. Once per start, since an engine may have lost its state.
    pub(crate) fn settle_introduce(&mut self, account: AccountId, out: &mut Effects) {
        let settings = self.ledger.account(account).map(|a| &a.settings);
        let Some(url) = settings.and_then(|s| s.settlement.engine_url.as_ref()) else {
            return;
        };
        if let Entry::Vacant(entry) = self.settle.introductions.entry(account) {
            let (engine_url, ask) = (url.clone(), EngineAsk::Introduce);
            entry.insert(Asking::default());
            self.settle.stop_closing(&(account, engine_url.clone()));
            out.now(Action::Engine {
                account,
                asked: Asked::Engine(engine_url),
                ask,
            });
        }
    }

    pub(crate) fn settle_introduced(&mut self, now: Now, id: AccountId, answer: EngineAnswer) {
        let jitter = self.rng.next_u64();
        let Some(asking) = self.settle.introductions.get_mut(&id) else {
            return;
        };
        // Nothing is awaited: an engine answers that was exchanged for another meanwhile.
        if asking.retry_at_ns.is_some() {
            return;
        }
        match answer {
            EngineAnswer::Accepted => asking.last_failure = None,
            EngineAnswer::Refused { message } | EngineAnswer::Unknown { message } => {
                let at_ns = asking.failed(now, jitter, message, RETRY_NS_MAX);
                self.settle.introduction_retries.insert((at_ns, id));
            }
        }
    }

    /// An engine is to close the account: it is deleted here, or has another engine. Nothing of it is
    /// open, or it could not be. Forgotten when the node stops.
    pub(crate) fn settle_close(
        &mut self,
        account: AccountId,
        engine_url: String,
        out: &mut Effects,
    ) {
        self.settle.forget(account);
        if self.settle.closings.len() < CLOSINGS_MAX {
            let closing = (account, engine_url.clone());
            self.settle.closings.insert(closing, Asking::default());
        }
        out.now(Action::Engine {
            account,
            asked: Asked::Engine(engine_url),
            ask: EngineAsk::Close,
        });
    }

    /// What the engine said to [`EngineAsk::Close`]. One that refuses is not asked again.
    pub(crate) fn settle_closed(
        &mut self,
        now: Now,
        account: AccountId,
        engine_url: String,
        answer: EngineAnswer,
    ) {
        let closing = (account, engine_url);
        match answer {
            EngineAnswer::Accepted | EngineAnswer::Refused { .. } => {
                self.settle.stop_closing(&closing);
            }
            EngineAnswer::Unknown { message } => {
                let jitter = self.rng.next_u64();
                if let Some(asking) = self.settle.closings.get_mut(&closing) {
                    let at_ns = asking.failed(now, jitter, message, RETRY_NS_MAX);
                    self.settle.closing_retries.insert((at_ns, closing));
                }
            }
        }
    }

    /// After the balance of `id` rose by a commit: settles what reached the threshold, or sees to it
    /// that its schedule runs.
    pub(crate) fn settle_after_commit(&mut self, now: Now, id: AccountId, out: &mut Effects) {
        let Some(account) = self.ledger.account(id) else {
            return;
        };
        if account.settings.settlement.accounting_url.is_some() {
            self.settle_pass_on(now, id, out);
            return;
        }
        if !self.settles(id) {
            return;
        }
        let terms = &account.settings.settlement;
        if let Some(every_s) = terms.every_s {
            let wait_ns = u64::from(every_s).saturating_mul(1_000_000_000);
            let due_ns = now.mono_ns.saturating_add(wait_ns);
            self.settle.look_at(id, due_ns);
        }
        let owed = account.balance() - account.prepaid();
        if terms.threshold.is_some_and(|at| owed >= at) {
            self.settle_start(now, id, 1, SettlementCause::Threshold, out);
        }
    }

    /// For an account of the accounting system whose engine we are: what it asked us to pay leaves over a
    /// channel, as far as there is room on one, and what came in over one is told to it. What is left
    /// waits until one of these got further.
    fn settle_pass_on(&mut self, now: Now, id: AccountId, out: &mut Effects) {
        let Some(account) = self.ledger.account(id) else {
            return;
        };
        let came_in = u64::try_from(account.prepaid()).unwrap_or(u64::MAX);
        if came_in > 0 && self.closed.is_none() && self.ledger.report_of(id).is_none() {
            self.settle_make(now, id, came_in, SettlementCause::Report, None, out);
        }
        if self.channel_to_pay(id).is_some() {
            self.settle_start(now, id, 1, SettlementCause::Instruction, out);
        }
    }

    /// Whether there is something to settle with: an open channel, or an engine.
    fn settles(&self, id: AccountId) -> bool {
        let account = self.ledger.account(id);
        account.is_some_and(|account| account.settings.settlement.engine_url.is_some())
            || self.channel_to_pay(id).is_some()
    }

    /// What a settlement of this account would pay now: what they earned, down to where it settles to;
    /// never what they paid ahead, nor what is promised to packets in flight, nor more than the limit
    /// of the channel leaves that it would go over.
    pub fn settle_preview(&self, id: AccountId) -> u64 {
        let Some(account) = self.ledger.account(id) else {
            return 0;
        };
        let earned = account.balance() - account.prepaid();
        // We do not pay ahead while they have: two that both did would pay each other for ever.
        let settle_to = account.settings.settlement.settle_to;
        let settle_to = match account.prepaid() {
            0 => settle_to,
            _ => settle_to.max(0),
        };
        let owed = earned - settle_to;
        let amount = owed.min(account.available()).max(0);
        let amount = u64::try_from(amount).unwrap_or(u64::MAX);
        let room = self.channel_to_pay(id).map(Channel::room);
        room.map_or(amount, |room| amount.min(room))
    }

    /// Settles as an operator asks: `amount`, or what [`Self::settle_preview`] says. A second request
    /// with the same key is the same settlement.
    pub fn settle_manual(
        &mut self,
        now: Now,
        name: &str,
        amount: Option<u64>,
        request_key: &str,
        out: &mut Effects,
    ) -> Result<Made<SettlementId>, CommandError> {
        let account = self
            .ledger
            .account_by_name(name)
            .ok_or_else(|| CommandError::not_found("account", name))?;
        let (id, asset) = (account.id, account.settings.asset.clone());
        let mut settlements = self.ledger.settlements().values();
        let known = settlements.find(|known| known.request_key.as_deref() == Some(request_key));
        if let Some(known) = known {
            if known.account != id || amount.is_some_and(|amount| amount != known.amount) {
                let message = "this key was used for another request";
                return Err(CommandError::invalid("Idempotency-Key", message));
            }
            return Ok(Made::Existing(known.id));
        }
        if account.settings.settlement.accounting_url.is_some() {
            let message = format!("'{name}' is settled with as its accounting system asks");
            return Err(CommandError::conflict("account", message));
        }
        if !self.settles(id) {
            let message = format!(
                "'{name}' has no settlement engine, nor an open channel with room: set one, or open one"
            );
            return Err(CommandError::invalid("settlement.engine_url", message));
        }
        if let Some(unended) = self.ledger.settlement_of(id) {
            let message = format!("settlement {} of '{name}' is still under way", unended.id.0);
            return Err(CommandError::conflict("account", message));
        }
        let amount = amount.unwrap_or_else(|| self.settle_preview(id));
        if amount == 0 {
            let message = "nothing is owed: name an amount to pay ahead";
            return Err(CommandError::invalid("amount", message));
        }
        check_available(account, amount)
            .map_err(|message| CommandError::invalid("amount", message))?;
        let room = self.channel_to_pay(id).map(Channel::room);
        if let Some(room) = room.filter(|room| amount > *room) {
            let message = format!(
                "is above what the limit of the channel leaves, {} {}",
                asset.decimal(room.into()),
                asset.code()
            );
            return Err(CommandError::invalid("amount", message));
        }
        if self.closed.is_some() {
            return Err(CommandError::busy("the node makes no new settlements now"));
        }
        let request_key = Some(request_key.to_owned());
        let id = self.settle_make(now, id, amount, SettlementCause::Manual, request_key, out);
        Ok(Made::New(id))
    }

    /// Makes a settlement by itself, if one can be made and pays at least `amount_min`.
    fn settle_start(
        &mut self,
        now: Now,
        account: AccountId,
        amount_min: u64,
        cause: SettlementCause,
        out: &mut Effects,
    ) {
        // First, as this is asked after each packet while an engine hangs.
        if self.closed.is_some() || self.ledger.settlement_of(account).is_some() {
            return;
        }
        let amount = self.settle_preview(account);
        if amount >= amount_min.max(1) {
            self.settle_make(now, account, amount, cause, None, out);
        }
    }

    /// The balance falls before anybody is told.
    fn settle_make(
        &mut self,
        now: Now,
        account: AccountId,
        amount: u64,
        cause: SettlementCause,
        request_key: Option<String>,
        out: &mut Effects,
    ) -> SettlementId {
        let id = self.ledger.next_settlement();
        let holder = self.ledger.account(account);
        let (prepaid, channel) = if cause == SettlementCause::Report {
            (amount.into(), None)
        } else {
            let channel = self.channel_to_pay(account).map(|channel| channel.id);
            let prepaid = holder.map_or(0, |holder| holder.prepaid_in(amount));
            (prepaid, channel)
        };
        let settlement = Settlement {
            id,
            account,
            key: self.settle_key(),
            request_key,
            amount,
            prepaid,
            cause,
            created_at_ms: now.wall.unix_ms(),
            state: SettlementState::Open,
            channel,
        };
        if let Some(channel) = channel {
            self.channel_pay(now, channel, settlement, out);
            return id;
        }
        let record = Record::SettlementMade {
            settlement: Box::new(settlement),
        };
        self.record(&record, out);
        self.settle_tell(id, out);
        id
    }

    /// A UUID of version 4.
    fn settle_key(&mut self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut key = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                key.push('-');
            }
            key += &format!("{byte:02x}");
        }
        key
    }

    /// Has the shell tell the engine, once all that the books say is on disk.
    fn settle_tell(&mut self, id: SettlementId, out: &mut Effects) {
        let Some(settlement) = self.ledger.settlements().get(&id).cloned() else {
            return;
        };
        let Some(account) = self.ledger.account(settlement.account) else {
            return;
        };
        let scale = account.settings.asset.scale();
        let terms = &account.settings.settlement;
        let asked = match &terms.accounting_url {
            Some(account_url) => Asked::Accounting(account_url.clone()),
            None => {
                let engine_url = terms.engine_url.clone();
                Asked::Engine(engine_url.expect("an engine stays while a settlement is under way"))
            }
        };
        let telling = self.settle.tellings.entry(id).or_default();
        telling.retry_at_ns = None;
        let action = Action::Engine {
            account: settlement.account,
            asked,
            ask: EngineAsk::Settle {
                id,
                key: settlement.key,
                quantity: Quantity::of_units(settlement.amount, scale),
            },
        };
        out.after(Durable::OnDisk(self.lsn), action);
    }

    /// After a restart: open settlements are told again, with their keys.
    pub(crate) fn settle_resume(&mut self, out: &mut Effects) {
        let settlements = self.ledger.settlements().values();
        // A channel remembers by itself what it has to tell.
        let by_engine = settlements.filter(|settlement| settlement.channel.is_none());
        let open = by_engine.filter(|settlement| settlement.state == SettlementState::Open);
        let open: Vec<_> = open.map(|settlement| settlement.id).collect();
        for id in open {
            self.settle_tell(id, out);
        }
    }

    /// What the engine said. Answers to what is no longer asked change nothing.
    pub(crate) fn settle_answered(
        &mut self,
        now: Now,
        id: SettlementId,
        answer: EngineAnswer,
        out: &mut Effects,
    ) {
        let settlement = self.ledger.settlements().get(&id);
        let Some(settlement) = settlement.filter(|s| s.state == SettlementState::Open) else {
            return;
        };
        match answer {
            EngineAnswer::Accepted => {
                let account = settlement.account;
                self.settle_move(id, SettlementState::Accepted, out);
                self.settle_after_commit(now, account, out); // what was owed meanwhile
            }
            EngineAnswer::Refused { message } => {
                self.settle_move(id, SettlementState::Parked { message }, out);
            }
            EngineAnswer::Unknown { message } => {
                let jitter = self.rng.next_u64();
                let Some(telling) = self.settle.tellings.get_mut(&id) else {
                    return;
                };
                let at_ns = telling.failed(now, jitter, message, RETRY_NS_MAX);
                self.settle.retries.insert((at_ns, id));
                out.now(Action::Report(Event::SettlementChanged { id }));
            }
        }
    }

    fn settle_move(&mut self, id: SettlementId, state: SettlementState, out: &mut Effects) {
        if let Some(telling) = self.settle.tellings.remove(&id)
            && let Some(at_ns) = telling.retry_at_ns
        {
            self.settle.retries.remove(&(at_ns, id));
        }
        self.record(&Record::SettlementMoved { id, state }, out);
        out.now(Action::Report(Event::SettlementChanged { id }));
    }

    /// Retries and schedules whose time has come.
    pub(crate) fn settle_timeout(&mut self, now: Now, out: &mut Effects) {
        while let Some((at_ns, id)) = self.settle.retries.first().copied()
            && at_ns <= now.mono_ns
        {
            self.settle.retries.pop_first();
            self.settle_tell(id, out);
        }
        while let Some((at_ns, id)) = self.settle.introduction_retries.first().copied()
            && at_ns <= now.mono_ns
        {
            self.settle.introduction_retries.pop_first();
            let asking = self.settle.introductions.entry(id).or_default();
            asking.retry_at_ns = None;
            let settings = self.ledger.account(id).map(|a| &a.settings);
            if let Some(url) = settings.and_then(|s| s.settlement.engine_url.clone()) {
                out.now(Action::Engine {
                    account: id,
                    asked: Asked::Engine(url),
                    ask: EngineAsk::Introduce,
                });
            }
        }
        while self
            .settle
            .closing_retries
            .first()
            .is_some_and(|(at_ns, _)| *at_ns <= now.mono_ns)
            && let Some((_, closing)) = self.settle.closing_retries.pop_first()
        {
            if let Some(asking) = self.settle.closings.get_mut(&closing) {
                asking.retry_at_ns = None;
            }
            let (account, engine_url) = closing;
            out.now(Action::Engine {
                account,
                asked: Asked::Engine(engine_url),
                ask: EngineAsk::Close,
            });
        }
        while let Some((due_ns, id)) = self.settle.due.first().copied()
            && due_ns <= now.mono_ns
        {
            self.settle.due.pop_first();
            self.settle.scheduled.remove(&id);
            let terms = self.ledger.account(id).map(|a| &a.settings.settlement);
            if terms.is_some_and(|terms| terms.accounting_url.is_some()) {
                self.settle_pass_on(now, id, out);
                continue;
            }
            let Some(amount_min) = terms
                .filter(|terms| terms.every_s.is_some())
                .map(|terms| terms.amount_min)
            else {
                continue;
            };
            if self.settles(id) {
                self.settle_start(now, id, amount_min, SettlementCause::Schedule, out);
            }
        }
    }

    /// Tells the engine, or the other side of the channel, of a parked settlement once more, with the
    /// same key.
    pub fn settle_retry(
        &mut self,
        now: Now,
        id: SettlementId,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        self.parked(id)?;
        let settlement = self.ledger.settlements().get(&id).cloned();
        if let Some(settlement) = settlement
            && let Some(channel) = settlement.channel
        {
            return self.channel_pay_again(now, &settlement, channel, out);
        }
        self.settle_move(id, SettlementState::Open, out);
        self.settle_tell(id, out);
        Ok(())
    }

    /// Takes a parked settlement back: the engine said that it will not pay, so it is owed again.
    pub fn settle_cancel(
        &mut self,
        id: SettlementId,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        self.parked(id)?;
        let settlement = self.ledger.settlements().get(&id);
        if settlement.is_some_and(Settlement::is_report) {
            let message = "it came in, and the accounting system has to know of it: tell it again";
            return Err(CommandError::conflict("id", message));
        }
        if settlement.is_some_and(|settlement| settlement.channel.is_some()) {
            let message = "it is signed on a channel, and theirs to show: tell it again, or close the \
                           channel: in agreement it is owed again, alone it counts as paid";
            return Err(CommandError::conflict("id", message));
        }
        self.settle_move(id, SettlementState::Cancelled, out);
        Ok(())
    }

    fn parked(&self, id: SettlementId) -> Result<(), CommandError> {
        let settlement = self.ledger.settlements().get(&id);
        let settlement =
            settlement.ok_or_else(|| CommandError::not_found("settlement", &id.0.to_string()))?;
        let message = match settlement.state {
            SettlementState::Parked { .. } => return Ok(()),
            SettlementState::Open => {
                "the engine may have it already: only one that the engine refused can be decided on"
            }
            SettlementState::Accepted | SettlementState::Cancelled => "the settlement has ended",
        };
        Err(CommandError::conflict("id", message))
    }

    /// How often the engine did not answer for an open settlement, and what happened last.
    pub fn settle_failures(&self, id: SettlementId) -> (u32, Option<&str>) {
        let telling = self.settle.tellings.get(&id);
        telling.map_or((0, None), |t| (t.failures, t.last_failure.as_deref()))
    }

    /// An engine says that `quantity` came in for an account, or the accounting system whose engine we
    /// are that it is to be paid. Key, credit and what is left are one record; the answer waits until it
    /// is on disk. The number is that of the record to wait for.
    pub fn settle_credit(
        &mut self,
        now: Now,
        account: AccountId,
        key: &str,
        quantity: Quantity,
        out: &mut Effects,
    ) -> Result<(Credited, Lsn), CommandError> {
        if key.is_empty() || key.len() > CREDIT_KEY_BYTES_MAX {
            let message = format!("must have 1 to {CREDIT_KEY_BYTES_MAX} bytes");
            return Err(CommandError::invalid("Idempotency-Key", message));
        }
        let at_ms = now.wall.unix_ms();
        if let Some(before) = self.ledger.credit_by_key(key) {
            if before.account != account || before.quantity != quantity {
                let message = "this key was used for another settlement";
                return Err(CommandError::conflict("Idempotency-Key", message));
            }
            let (amount, used_at_ms) = (before.amount, before.at_ms);
            if at_ms.saturating_sub(used_at_ms) > CREDIT_KEY_REFRESH_MS {
                let key = key.to_owned();
                self.record(&Record::CreditKeyUsed { key, at_ms }, out);
            }
            return Ok((Credited::Before { amount }, self.lsn));
        }
        let Some(holder) = self.ledger.account(account) else {
            return Err(CommandError::not_found("account", &account.0.to_string()));
        };
        if self.ledger.credit_count() >= CREDIT_KEYS_MAX {
            return Err(CommandError::busy("too many settlements within two days"));
        }
        let scale = holder.settings.asset.scale();
        let total = self.ledger.leftover(account).plus(&quantity);
        let Some((amount, leftover)) = total.units_at(scale) else {
            let message = "is more than 2^64 - 1 units of the account's asset";
            return Err(CommandError::invalid("amount", message));
        };
        let credit = Credit {
            account,
            key: key.to_owned(),
            quantity,
            amount,
            leftover,
            at_ms,
        };
        let credit = Box::new(credit);
        let is_instruction = holder.settings.settlement.accounting_url.is_some();
        let lsn = self.record(&Record::SettlementCredited { credit }, out);
        if is_instruction {
            self.settle_pass_on(now, account, out);
        }
        Ok((Credited::New { amount }, lsn))
    }
}
