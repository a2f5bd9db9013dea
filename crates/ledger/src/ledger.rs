//! Balances, holds and limits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::Hasher,
    iter,
    sync::Arc,
};

use hashbrown::HashTable;
use rialto_channel::ChannelId;
use rialto_packet::{
    Prefix,
    money::{Asset, MoneyError},
    quantity::Quantity,
};
use rustc_hash::FxHashMap;
use siphasher::sip::SipHasher13;
use thiserror::Error;

use crate::{
    Lsn,
    accounts::Accounts,
    bucket::Bucket,
    channel::{AccountChannel, ChannelMoney, Channels},
    hand::{Direction, HandSettlement, HandSettlements, HandState},
    invite::Invite,
    places::by_place,
    record::{Adjustment, Commit, Payment, PaymentProgress, Record},
    settings::{
        AccountId, AccountSettings, AccountTerms, Limits, PaymentId, Rate, Relation, StaticRoute,
        TokenHash,
    },
    settlement::{Credit, Settlement, SettlementId, SettlementState, Settlements},
    statement::{Entry, EntryKind, Means, Period, Statement, Statements},
    stranger::PeeringRequest,
    terms::SharedTerms,
    tokens::{NewToken, TokenTable, tokens_of},
};

/// Payments that are remembered; beyond it the oldest ended ones are forgotten.
pub const PAYMENTS_MAX: usize = 100_000;

/// Adjustments that are remembered; beyond it the oldest are forgotten.
pub const ADJUSTMENTS_MAX: usize = 10_000;

/// Accounts whose names and tokens are entered together while a checkpoint is read.
const KEPT_MAX: usize = 131_072;

/// Why a packet may not be accepted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Larger than the account's largest packet.
    PacketAmount {
        /// The largest.
        max: u64,
    },
    /// Too many packets this minute.
    Rate,
    /// Too much this minute.
    AmountRate,
    /// Too many packets, or too much, in flight.
    InFlight,
    /// The balance would fall below the lowest one.
    Credit,
    /// Too much in flight or committed but not yet safe on disk.
    Unsynced,
}

/// Why a record cannot be applied: the journal is not one that this node wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// A record names an account that does not exist then.
    #[error("record names account {0:?}, which does not exist at that point")]
    UnknownAccount(AccountId),
    /// A record names a payment that does not exist then.
    #[error("record names payment {0:?}, which does not exist at that point")]
    UnknownPayment(PaymentId),
    /// A record names terms that no record before it has.
    #[error("record names terms {0}, which no record before it has")]
    UnknownTerms(u32),
    /// An account with a balance was deleted.
    #[error("record deletes account {0:?} while its balance is not zero")]
    BalanceLeft(AccountId),
    /// The asset of a position is not one.
    #[error("record has a malformed asset: {0}")]
    Asset(#[from] MoneyError),
    /// A record names an invitation that does not exist then.
    #[error("record names an invitation that does not exist at that point")]
    UnknownInvite,
    /// A record names a settlement that does not exist then, or has ended.
    #[error("record names settlement {0:?}, which does not exist or has ended at that point")]
    UnknownSettlement(SettlementId),
    /// An account has a settlement that has not ended.
    #[error("record contradicts a settlement of account {0:?} that has not ended")]
    SettlementUnended(AccountId),
    /// A report tells of more than what came in.
    #[error("record reports more of account {0:?} than came in")]
    ReportAbovePaid(AccountId),
    /// A record writes a settlement by hand down under a reference that another one has.
    #[error("record repeats the reference '{1}' of a settlement by hand with account {0:?}")]
    ReferenceUsed(AccountId, String),
    /// A record puts a channel of one account under another.
    #[error("record moves channel {0} to another account")]
    ChannelMoved(ChannelId),
    /// A record names a key of an incoming settlement that does not exist then, or exists already.
    #[error("record contradicts what is known of the settlement key '{0}'")]
    CreditKey(String),
    /// A statement is not about the books that there are then.
    #[error(
        "record contradicts the books of account {0:?}: statement {1} does not follow from them"
    )]
    Statement(AccountId, u32),
    /// An account's asset changed.
    #[error("record changes the asset of account {0:?}")]
    AssetChanged(AccountId),
}

/// A packet in flight, as the books see it. Ends in [`Ledger::commit`] or [`Ledger::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a hold that is dropped blocks its amount for ever"]
pub struct Hold(Commit);

impl Hold {
    /// Who pays.
    pub fn payer(&self) -> AccountId {
        self.0.from
    }

    /// In units of the payer's asset.
    pub fn amount_in(&self) -> u64 {
        self.0.amount_in
    }

    /// Who is paid.
    pub fn payee(&self) -> AccountId {
        self.0.to
    }

    /// In units of the payee's asset.
    pub fn amount_out(&self) -> u64 {
        self.0.amount_out
    }
}

/// What is promised and not yet safe, in units of one asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Packets in flight.
    pub in_flight_count: u32,
    /// Their amount.
    pub in_flight: u128,
    /// Committed, but not yet known to be on disk.
    pub unsynced: u128,
}

/// An account and where it stands.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name for ever.
    pub id: AccountId,
    /// What the operator decided.
    pub settings: Arc<AccountSettings>,
    balance: i128,
    /// What of it they paid ahead by settlements and have not spent yet.
    prepaid: i128,
    /// What their packets paid us since their last statement.
    sent: u128,
    /// From the first packet on: most of very many accounts are idle.
    active: Option<Box<Active>>,
    /// Index of its asset in [`Ledger::positions`].
    position: u32,
}

/// What passes on an account.
#[derive(Debug, Clone)]
struct Active {
    exposure: Exposure,
    /// Packets in flight towards them.
    expected_count: u32,
    packets: Option<Bucket>,
    amounts: Option<Bucket>,
}

impl Active {
    fn new(limits: &Limits) -> Self {
        Self {
            exposure: Exposure::default(),
            expected_count: 0,
            packets: packets_bucket(limits),
            amounts: amounts_bucket(limits),
        }
    }
}

fn packets_bucket(limits: &Limits) -> Option<Bucket> {
    let per_minute = limits.packets_per_minute?;
    Some(Bucket::new(per_minute.into(), 0))
}

fn amounts_bucket(limits: &Limits) -> Option<Bucket> {
    let per_minute = limits.amount_per_minute?;
    Some(Bucket::new(per_minute, 0))
}

impl Account {
    pub(crate) fn new(id: AccountId, settings: AccountSettings, position: u32) -> Self {
        Self {
            id,
            settings: Arc::new(settings),
            balance: 0,
            prepaid: 0,
            sent: 0,
            active: None,
            position,
        }
    }

    /// Positive: we owe them. Negative: they owe us.
    pub fn balance(&self) -> i128 {
        self.balance
    }

    /// What of the balance they paid ahead by settlements and have not spent. It is theirs to spend,
    /// and nothing that we settle back.
    pub fn prepaid(&self) -> i128 {
        self.prepaid
    }

    /// What of a settlement of `amount` they had paid ahead: what they earned is paid first.
    pub fn prepaid_in(&self, amount: u64) -> i128 {
        let left = (self.balance - i128::from(amount)).max(0);
        (self.prepaid - left).max(0)
    }

    /// What their packets paid us since their last statement, in units of their asset.
    pub fn sent(&self) -> u128 {
        self.sent
    }

    /// Of packets they sent.
    pub fn exposure(&self) -> Exposure {
        let active = self.active.as_deref();
        active.map_or(Exposure::default(), |active| active.exposure)
    }

    /// Whether no packet is in flight from or to them and all of theirs are safe on disk.
    pub fn is_idle(&self) -> bool {
        self.active.as_deref().is_none_or(|active| {
            active.exposure == Exposure::default() && active.expected_count == 0
        })
    }

    /// What they may still send: down to the lowest balance, less what is in flight. The one number
    /// that a lease would replace if several nodes shared the account.
    pub fn available(&self) -> i128 {
        self.balance - to_i128(self.exposure().in_flight) - self.settings.limits.balance_min
    }

    fn limits_and_active(&mut self) -> (&Limits, &mut Active) {
        let limits = &self.settings.limits;
        let active = self
            .active
            .get_or_insert_with(|| Box::new(Active::new(limits)));
        (limits, active)
    }

    fn active_mut(&mut self) -> &mut Active {
        self.limits_and_active().1
    }
}

/// A position of the node itself in one asset.
#[derive(Debug)]
struct Position {
    asset: Asset,
    amount: i128,
    /// Paid out less what came in by settlements.
    settled: i128,
    exposure: Exposure,
    unsynced_max: Option<u64>,
    /// See [`Ledger::wants_sync`].
    wants_sync: bool,
}

/// A fault of the books, put in on purpose (docs/design/simulation.md). Builds for users have none.
#[cfg(feature = "mutants")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerMutant {
    /// A hold that ends without payment gives its amount back twice.
    ReleasedTwice,
    /// The caps on value at risk do not count what is in flight.
    InFlightUncounted,
    /// What is left of an incoming settlement is dropped.
    LeftoverDropped,
    /// What is paid ahead counts as earned.
    PrepaidUncounted,
}

/// All accounts, routes, rates and payments of a node.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Accounts,
    /// By the hashes of their names under a key: people choose them, and packets are routed by them.
    names: HashTable<AccountId>,
    name_key: [u64; 2],
    /// Whose token it is.
    tokens: TokenTable,
    /// Accounts with the relation parent.
    parents: BTreeSet<AccountId>,
    /// Of the checkpoint that is being read: accounts whose names and tokens are not in those tables yet.
    kept_names: Vec<(u64, AccountId)>,
    kept_tokens: Vec<NewToken>,
    terms: SharedTerms,
    /// Of the checkpoint that is being read, by their numbers there.
    kept_terms: Vec<Arc<AccountTerms>>,
    positions: Vec<Position>,
    routes: BTreeMap<Prefix, StaticRoute>,
    rates: BTreeMap<(String, String), Rate>,
    payments: BTreeMap<PaymentId, Payment>,
    payment_keys: FxHashMap<String, PaymentId>,
    /// By the hash of their secrets.
    invites: BTreeMap<[u8; 32], Invite>,
    blocked_callers: BTreeSet<[u8; 32]>,
    /// By their hashes.
    peering_requests: BTreeMap<[u8; 32], PeeringRequest>,
    adjustments: BTreeMap<u64, Adjustment>,
    adjustment_keys: FxHashMap<String, u64>,
    settlements: Settlements,
    by_hand: HandSettlements,
    channels: Channels,
    statements: Statements,
    last_account: u32,
    last_payment: u64,
    /// Caps on exposure for the whole node, per asset.
    unsynced_max: BTreeMap<Asset, u64>,
    /// Commits not yet known to be on disk, oldest first. At most what was written within one sync.
    unsynced: VecDeque<(Lsn, AccountId, u64)>,
    /// A fault put in on purpose.
    #[cfg(feature = "mutants")]
    pub mutant: Option<LedgerMutant>,
}

impl Ledger {
    /// Nothing yet. `unsynced_max` caps, per asset, what is in flight or not yet safe on disk over
    /// all accounts.
    pub fn new(unsynced_max: BTreeMap<Asset, u64>) -> Self {
        Self {
            unsynced_max,
            ..Self::default()
        }
    }

    /// With a secret key for the table of names, before there are any.
    #[must_use]
    pub fn with_name_key(self, name_key: [u64; 2]) -> Self {
        Self { name_key, ..self }
    }

    /// Replaces the caps on exposure per asset.
    pub fn set_unsynced_max(&mut self, unsynced_max: BTreeMap<Asset, u64>) {
        for position in &mut self.positions {
            position.unsynced_max = unsynced_max.get(&position.asset).copied();
        }
        self.unsynced_max = unsynced_max;
    }

    /// The account with this number.
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id)
    }

    /// The account with this name.
    pub fn account_by_name(&self, name: &str) -> Option<&Account> {
        let is_named = |id: &AccountId| {
            let account = self.account(*id);
            account.is_some_and(|account| account.settings.name == name)
        };
        self.account(*self.names.find(self.hash_name(name), is_named)?)
    }

    /// The account that has a token of this hash, even one that opens nothing any more.
    pub fn account_by_token(&self, hash: TokenHash) -> Option<&Account> {
        let found = self.tokens.find(hash, self.accounts.settings(), |_| true);
        self.account(found?.0)
    }

    /// The account with the relation parent; a node has one.
    pub fn parent(&self) -> Option<&Account> {
        self.account(*self.parents.first()?)
    }

    /// All accounts, by number.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts_after(AccountId::NODE)
    }

    /// The accounts after this one, by number.
    pub fn accounts_after(&self, id: AccountId) -> impl Iterator<Item = &Account> {
        self.accounts.after(id)
    }

    /// The node's own position per asset: minus the sum of all balances in it and of what was settled.
    pub fn positions(&self) -> impl Iterator<Item = (&Asset, i128, Exposure)> {
        self.positions
            .iter()
            .map(|position| (&position.asset, position.amount, position.exposure))
    }

    /// What was settled outside per asset: paid out less what came in.
    pub fn settled(&self) -> impl Iterator<Item = (&Asset, i128)> {
        self.positions
            .iter()
            .map(|position| (&position.asset, position.settled))
    }

    /// Static routes.
    pub fn routes(&self) -> &BTreeMap<Prefix, StaticRoute> {
        &self.routes
    }

    /// Rates between asset codes.
    pub fn rates(&self) -> &BTreeMap<(String, String), Rate> {
        &self.rates
    }

    /// Outgoing payments, by number.
    pub fn payments(&self) -> &BTreeMap<PaymentId, Payment> {
        &self.payments
    }

    /// The payment that was asked for with this key.
    pub fn payment_by_key(&self, idempotency_key: &str) -> Option<&Payment> {
        self.payments.get(self.payment_keys.get(idempotency_key)?)
    }

    /// Invitations to peer, by the hashes of their secrets.
    pub fn invites(&self) -> impl Iterator<Item = &Invite> {
        self.invites.values()
    }

    /// The invitation whose secret has this hash.
    pub fn invite(&self, hash: TokenHash) -> Option<&Invite> {
        self.invites.get(&hash.0)
    }

    /// Tokens that open nothing and are not told of.
    pub fn blocked_callers(&self) -> impl Iterator<Item = TokenHash> {
        self.blocked_callers.iter().copied().map(TokenHash)
    }

    /// Requests to peer that nobody invited.
    pub fn peering_requests(&self) -> impl Iterator<Item = &PeeringRequest> {
        self.peering_requests.values()
    }

    /// The request to peer of that hash.
    pub fn peering_request(&self, hash: TokenHash) -> Option<&PeeringRequest> {
        self.peering_requests.get(&hash.0)
    }

    /// Corrections of balances, by number.
    pub fn adjustments(&self) -> &BTreeMap<u64, Adjustment> {
        &self.adjustments
    }

    /// The adjustment that was asked for with this key.
    pub fn adjustment_by_key(&self, idempotency_key: &str) -> Option<&Adjustment> {
        self.adjustments
            .get(self.adjustment_keys.get(idempotency_key)?)
    }

    /// Outgoing settlements, by number.
    pub fn settlements(&self) -> &BTreeMap<SettlementId, Settlement> {
        &self.settlements.outgoing
    }

    /// The settlement of an account that has not ended, if there is one.
    pub fn settlement_of(&self, id: AccountId) -> Option<&Settlement> {
        let unended = self.settlements.unended.get(&id)?;
        self.settlements.outgoing.get(unended)
    }

    /// The report of an account that has not ended, if there is one: see [`Settlement::is_report`].
    pub fn report_of(&self, id: AccountId) -> Option<&Settlement> {
        let unended = self.settlements.reports.get(&id)?;
        self.settlements.outgoing.get(unended)
    }

    /// Settlements that have not ended: at most one per account, and one report.
    pub fn settlements_unended(&self) -> usize {
        self.settlements.unended.len() + self.settlements.reports.len()
    }

    /// The incoming settlement with this key, if it is remembered.
    pub fn credit_by_key(&self, key: &str) -> Option<&Credit> {
        self.settlements.credits.get(key)
    }

    /// How many incoming settlements are remembered.
    pub fn credit_count(&self) -> usize {
        self.settlements.credits.len()
    }

    /// What is left of an account's incoming settlements, less than one unit of its asset.
    pub fn leftover(&self, id: AccountId) -> Quantity {
        self.settlements
            .leftovers
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    /// Settlements by hand, by number.
    pub fn hand_settlements(&self) -> &BTreeMap<SettlementId, HandSettlement> {
        &self.by_hand.by_id
    }

    /// Those of them that wait for a second operator.
    pub fn proposals(&self) -> impl ExactSizeIterator<Item = &HandSettlement> {
        let proposals = self.by_hand.proposals.iter();
        proposals.map(|id| &self.by_hand.by_id[id])
    }

    /// The settlement by hand that was asked for, or approved, with this key.
    pub fn hand_settlement_by_key(&self, idempotency_key: &str) -> Option<&HandSettlement> {
        self.by_hand.by_key(idempotency_key)
    }

    /// The settlement by hand of an account with this reference, unless it was declined.
    pub fn hand_settlement_by_reference(
        &self,
        account: AccountId,
        reference: &str,
    ) -> Option<&HandSettlement> {
        self.by_hand.by_reference(account, reference)
    }

    /// The settlement by hand that is forgotten first when there are too many.
    pub fn oldest_hand_settlement(&self) -> Option<&HandSettlement> {
        self.by_hand.oldest_decided()
    }

    /// Settlement channels.
    pub fn channels(&self) -> &BTreeMap<ChannelId, AccountChannel> {
        &self.channels.by_id
    }

    /// Those of an account, the oldest first.
    pub fn channels_of(
        &self,
        account: AccountId,
    ) -> impl DoubleEndedIterator<Item = &AccountChannel> {
        self.channels.of(account)
    }

    /// Whether an account can have one more.
    pub fn has_channel_room(&self, account: AccountId) -> bool {
        self.channels.has_room(account)
    }

    /// The number that the next channel gets.
    pub fn next_channel(&self) -> u64 {
        self.channels.last + 1
    }

    /// What happened on an account since its last statement, beside packets.
    pub fn period(&self, id: AccountId) -> Option<&Period> {
        self.statements.periods.get(&id)
    }

    /// The statements of an account that are remembered, oldest first.
    pub fn statements(&self, id: AccountId) -> impl DoubleEndedIterator<Item = &Statement> {
        self.statements.of(id)
    }

    /// The number that the next settlement gets.
    pub fn next_settlement(&self) -> SettlementId {
        SettlementId(self.settlements.last + 1)
    }

    /// The number that the next account gets.
    pub fn next_account(&self) -> AccountId {
        AccountId(self.last_account + 1)
    }

    /// The number that the next payment gets.
    pub fn next_payment(&self) -> PaymentId {
        PaymentId(self.last_payment + 1)
    }

    /// Checks an arriving packet against the limits on its own amount and on rates, and counts it.
    pub fn take(&mut self, id: AccountId, now_ns: u64, amount: u64) -> Result<(), Limit> {
        let (limits, active) = self.account_mut(id).limits_and_active();
        if let Some(packets) = &mut active.packets
            && !packets.take(now_ns, 1)
        {
            return Err(Limit::Rate);
        }
        if let Some(max) = limits.packet_amount_max
            && amount > max
        {
            return Err(Limit::PacketAmount { max });
        }
        if let Some(amounts) = &mut active.amounts
            && !amounts.take(now_ns, amount)
        {
            return Err(Limit::AmountRate);
        }
        Ok(())
    }

    /// Undoes the amount of [`Self::take`] for a packet that was refused afterwards.
    pub fn give_back(&mut self, id: AccountId, amount: u64) {
        if let Some(amounts) = &mut self.account_mut(id).active_mut().amounts {
            amounts.give_back(amount);
        }
    }

    /// Promises `amount_in` of the payer for `amount_out` to the payee, or says which limit forbids.
    pub fn hold(
        &mut self,
        from: AccountId,
        amount_in: u64,
        to: AccountId,
        amount_out: u64,
    ) -> Result<Hold, Limit> {
        #[cfg(feature = "mutants")]
        let mutant = self.mutant;
        // What a power cut would cost if everything in flight were fulfilled right now.
        let at_risk = |exposure: &Exposure| {
            #[cfg(feature = "mutants")]
            if mutant == Some(LedgerMutant::InFlightUncounted) {
                return exposure.unsynced;
            }
            exposure.in_flight + exposure.unsynced
        };
        let (account, node) = self.payer_mut(from);
        let (amount, available) = (u128::from(amount_in), account.available());
        let (limits, active) = account.limits_and_active();
        let exposure = &mut active.exposure;
        if limits
            .in_flight_count_max
            .is_some_and(|max| exposure.in_flight_count >= max)
        {
            return Err(Limit::InFlight);
        }
        node.wants_sync |= is_near(limits.unsynced_amount_max, exposure)
            || is_near(node.unsynced_max, &node.exposure);
        // An amount of zero moves nothing, so no limit on value can stand in its way.
        if amount_in > 0 {
            if above(limits.in_flight_amount_max, exposure.in_flight + amount) {
                return Err(Limit::InFlight);
            }
            if i128::from(amount_in) > available {
                return Err(Limit::Credit);
            }
            if above(limits.unsynced_amount_max, at_risk(exposure) + amount)
                || above(node.unsynced_max, at_risk(&node.exposure) + amount)
            {
                return Err(Limit::Unsynced);
            }
        }
        for exposure in [exposure, &mut node.exposure] {
            exposure.in_flight_count += 1;
            exposure.in_flight += amount;
        }
        if to != AccountId::NODE {
            self.account_mut(to).active_mut().expected_count += 1;
        }
        Ok(Hold(Commit {
            from,
            amount_in,
            to,
            amount_out,
        }))
    }

    /// Undoes exactly what [`Self::hold`] did.
    pub fn release(&mut self, hold: Hold) {
        self.end_hold(&hold.0, 0);
        #[cfg(feature = "mutants")]
        if self.mutant == Some(LedgerMutant::ReleasedTwice) {
            let amount = u128::from(hold.0.amount_in);
            self.each_exposure(hold.0.from, |exposure| {
                exposure.in_flight = exposure.in_flight.saturating_sub(amount);
            });
        }
        self.give_back(hold.0.from, hold.0.amount_in);
    }

    /// Turns the promise into value that moved; `lsn` is the number the returned record will have.
    pub fn commit(&mut self, hold: Hold, lsn: Lsn) -> Record {
        let commit = hold.0;
        self.end_hold(&commit, commit.amount_in);
        let record = Record::Commit(commit);
        self.apply(&record)
            .expect("accounts with packets in flight are not deleted");
        if commit.amount_in > 0 {
            self.unsynced
                .push_back((lsn, commit.from, commit.amount_in));
        }
        record
    }

    /// Whether so much is not yet on disk that it comes near a cap, or did so since records were last found
    /// to be there: packets are refused soon.
    pub fn wants_sync(&self) -> bool {
        self.positions.iter().any(|position| position.wants_sync)
    }

    /// All records up to `lsn` are on disk.
    pub fn synced(&mut self, lsn: Lsn) {
        if self.unsynced.front().is_some_and(|(of, ..)| *of <= lsn) {
            for position in &mut self.positions {
                position.wants_sync = false;
            }
        }
        while let Some((_, from, amount)) = self.unsynced.pop_front_if(|(of, ..)| *of <= lsn) {
            // Whoever pays often is looked up once.
            let mut sum = u128::from(amount);
            let is_next = |(of, next, _): &mut (Lsn, AccountId, u64)| *of <= lsn && *next == from;
            while let Some((.., amount)) = self.unsynced.pop_front_if(is_next) {
                sum += u128::from(amount);
            }
            self.each_exposure(from, |exposure| exposure.unsynced -= sum);
        }
    }

    /// [`Self::apply`] where the record is not needed any more: a checkpoint may hold a million accounts,
    /// whose names and tokens are then not copied.
    pub fn recover(&mut self, record: Record) -> Result<(), LedgerError> {
        let Record::AccountKept {
            id,
            terms,
            name,
            tokens,
            balance,
            prepaid,
            sent,
        } = record
        else {
            return self.apply(&record);
        };
        let kept = self.kept_terms.get(terms as usize);
        let settings = AccountSettings {
            name,
            incoming_tokens: tokens,
            terms: Arc::clone(kept.ok_or(LedgerError::UnknownTerms(terms))?),
        };
        let hash = self.put_account(id, settings)?;
        self.kept_names.push((hash, id));
        let settings = self.accounts.settings()(id);
        self.kept_tokens
            .extend(settings.into_iter().flat_map(|of| tokens_of(id, of)));
        if self.kept_names.len() == KEPT_MAX {
            self.enter_kept();
        }
        let account = self.existing_mut(id)?;
        account.balance = balance;
        account.prepaid = prepaid;
        self.count_sent(id, sent)
    }

    /// Changes what must survive. The only function that does, for live traffic and for recovery.
    pub fn apply(&mut self, record: &Record) -> Result<(), LedgerError> {
        if !self.kept_names.is_empty() && !matches!(record, Record::AccountKept { .. }) {
            self.enter_kept();
        }
        match record {
            Record::Commit(commit) => self.apply_commit(commit)?,
            Record::Progress(progress) => self.payment_mut(progress)?.progress = *progress,
            Record::AccountPut { id, settings } => self.apply_account(*id, settings)?,
            Record::TermsKept { number, terms } => {
                if *number as usize != self.kept_terms.len() {
                    return Err(LedgerError::UnknownTerms(*number));
                }
                let terms = self.terms.share(&Arc::new((**terms).clone()));
                self.kept_terms.push(terms);
            }
            Record::AccountKept { .. } => return self.recover(record.clone()),
            Record::AccountDeleted { id } => self.apply_account_deleted(*id)?,
            Record::RoutePut {
                prefix,
                account,
                shares,
            } => {
                let route = StaticRoute::new(*account, shares);
                let hops = shares.iter().map(|share| share.account);
                for hop in hops.chain([*account]) {
                    self.account(hop).ok_or(LedgerError::UnknownAccount(hop))?;
                }
                self.routes.insert(prefix.clone(), route);
            }
            Record::RouteDeleted { prefix } => {
                self.routes.remove(prefix);
            }
            Record::RatePut { from, to, rate } => {
                self.rates.insert((from.clone(), to.clone()), rate.clone());
            }
            Record::RateDeleted { from, to } => {
                self.rates.remove(&(from.clone(), to.clone()));
            }
            Record::PaymentPut { payment } => self.apply_payment(payment),
            Record::InvitePut { invite } => {
                self.invites.insert(invite.hash.0, (**invite).clone());
            }
            Record::InviteAccepted {
                hash,
                used,
                settings,
            } => {
                let invite = self.invites.get_mut(&hash.0);
                invite.ok_or(LedgerError::UnknownInvite)?.used = Some(*used);
                self.apply_account(used.account, settings)?;
            }
            Record::InviteDeleted { hash } => {
                self.invites.remove(&hash.0);
            }
            Record::CallerBlocked { hash } => {
                self.blocked_callers.insert(hash.0);
            }
            Record::CallerUnblocked { hash } => {
                self.blocked_callers.remove(&hash.0);
            }
            Record::PeeringRequestPut { request } => {
                self.peering_requests
                    .insert(request.hash.0, (**request).clone());
            }
            Record::PeeringRequestDeleted { hash } => {
                self.peering_requests.remove(&hash.0);
            }
            Record::Adjusted { adjustment } => {
                let account = self.existing_mut(adjustment.account)?;
                account.balance += adjustment.amount;
                account.prepaid = account.prepaid.min(account.balance.max(0));
                let position = account.position as usize;
                self.positions[position].amount -= adjustment.amount;
                let entry = Entry {
                    kind: EntryKind::Adjusted,
                    means: None,
                    reference: adjustment.idempotency_key.clone(),
                    amount: adjustment.amount,
                    at_ms: Some(adjustment.created_at_ms),
                };
                self.statements.enter(adjustment.account, entry);
                self.remember(adjustment);
            }
            Record::AdjustmentKept { adjustment } => self.remember(adjustment),
            Record::SettlementMade { settlement } => self.apply_settlement(settlement)?,
            Record::SettlementMoved { id, state } => self.apply_settlement_moved(*id, state)?,
            Record::SettlementCredited { credit } => {
                let terms = &self.existing_mut(credit.account)?.settings.settlement;
                let means = match terms.accounting_url {
                    Some(_) => Means::Accounting,
                    None => Means::Engine,
                };
                self.apply_credit(credit, means)?;
            }
            Record::CreditKeyUsed { key, at_ms } => {
                let credit = self.settlements.credits.get(key).cloned();
                let credit = credit.ok_or_else(|| LedgerError::CreditKey(key.clone()))?;
                self.settlements.put_credit(&Credit {
                    at_ms: *at_ms,
                    ..credit
                });
            }
            Record::ChannelPut {
                number,
                account,
                channel,
                money,
                opening,
            } => {
                let put = AccountChannel {
                    number: *number,
                    account: *account,
                    channel: (**channel).clone(),
                    opening: opening.clone(),
                };
                self.apply_channel(put, money.as_ref())?;
            }
            Record::HandSettlementMade { settlement } => self.apply_by_hand(settlement)?,
            Record::HandSettlementDecided { id, state } => self.apply_decided(*id, state)?,
            Record::HandSettlementKept { settlement } => self.by_hand.put(settlement),
            Record::SettlementKept { settlement } => self.settlements.put(settlement),
            Record::CreditKept { credit } => self.settlements.put_credit(credit),
            Record::Leftover { account, leftover } => {
                self.settlements.put_leftover(*account, leftover);
            }
            Record::StatementClosed { statement } => self.apply_statement(statement)?,
            Record::StatementKept { statement } => self.statements.remember(statement),
            Record::Period { account, period } => {
                self.statements.periods.insert(*account, (**period).clone());
            }
            Record::Balance {
                account: id,
                balance,
                prepaid,
                sent,
            } => {
                let account = self.existing_mut(*id)?;
                account.balance = *balance;
                account.prepaid = *prepaid;
                self.count_sent(*id, *sent)?;
            }
            Record::Position {
                code,
                scale,
                amount,
                settled,
            } => {
                let position = self.position_of(&Asset::new(code, *scale)?);
                self.positions[position].amount = *amount;
                self.positions[position].settled = *settled;
            }
            Record::Counters {
                last_account,
                last_payment,
                last_settlement,
            } => {
                self.settlements.last = self.settlements.last.max(*last_settlement);
                self.last_account = self.last_account.max(*last_account);
                self.last_payment = self.last_payment.max(*last_payment);
                // They come first in a checkpoint, so that no table grows for each account that follows.
                let ahead = (*last_account).min(ACCOUNTS_AHEAD_MAX);
                self.accounts.reserve(AccountId(ahead));
                let more = (ahead as usize).saturating_sub(self.names.len());
                let (key, accounts) = (self.name_key, &self.accounts);
                self.names.reserve(more, |id| hash_of(key, accounts, *id));
                self.tokens.reserve(more, accounts.settings());
            }
        }
        Ok(())
    }

    /// The checkpoint has been read: its numbers mean nothing any more. The routes came in their order,
    /// which leaves the nodes of a tree half empty; one that is built of all of them at once is full.
    pub fn recovered(&mut self) {
        self.kept_terms = Vec::new();
        self.enter_kept();
        self.routes = std::mem::take(&mut self.routes).into_iter().collect();
    }

    /// The records from which [`Self::apply`] makes the same books again, as they are now: they are made
    /// one after the other, long after this has returned.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> + use<> {
        let counters = Record::Counters {
            last_account: self.last_account,
            last_payment: self.last_payment,
            last_settlement: self.settlements.last,
        };
        // By their place in memory: equal terms have one.
        let mut numbers = FxHashMap::default();
        // Shared until one changes: packets do not wait while very many are copied.
        let accounts = self.accounts.clone();
        let accounts = accounts.into_each(move |account| snapshot_account(account, &mut numbers));
        let mut records = Vec::new();
        for (account, period) in &self.statements.periods {
            records.push(Record::Period {
                account: *account,
                period: Box::new(period.clone()),
            });
        }
        for statement in self.statements.all() {
            records.push(Record::StatementKept {
                statement: Box::new(statement.clone()),
            });
        }
        for position in &self.positions {
            let (asset, amount, settled) = (&position.asset, position.amount, position.settled);
            records.push(Record::Position {
                code: asset.code().to_owned(),
                scale: asset.scale(),
                amount,
                settled,
            });
        }
        for (prefix, route) in &self.routes {
            let (account, shares) = route.parts();
            records.push(Record::RoutePut {
                prefix: prefix.clone(),
                account,
                shares,
            });
        }
        for ((from, to), rate) in &self.rates {
            let (from, to, rate) = (from.clone(), to.clone(), rate.clone());
            records.push(Record::RatePut { from, to, rate });
        }
        for payment in self.payments.values() {
            records.push(Record::PaymentPut {
                payment: Box::new(payment.clone()),
            });
        }
        for invite in self.invites.values() {
            records.push(Record::InvitePut {
                invite: Box::new(invite.clone()),
            });
        }
        for hash in &self.blocked_callers {
            let hash = TokenHash(*hash);
            records.push(Record::CallerBlocked { hash });
        }
        for request in self.peering_requests.values() {
            records.push(Record::PeeringRequestPut {
                request: Box::new(request.clone()),
            });
        }
        for adjustment in self.adjustments.values() {
            records.push(Record::AdjustmentKept {
                adjustment: Box::new(adjustment.clone()),
            });
        }
        for settlement in self.settlements.outgoing.values() {
            records.push(Record::SettlementKept {
                settlement: Box::new(settlement.clone()),
            });
        }
        for known in self.channels.by_id.values() {
            records.push(Record::ChannelPut {
                number: known.number,
                account: known.account,
                channel: Box::new(known.channel.clone()),
                money: None,
                opening: known.opening.clone(),
            });
        }
        for made in self.by_hand.by_id.values() {
            records.push(Record::HandSettlementKept {
                settlement: Box::new(made.clone()),
            });
        }
        for credit in self.settlements.credits() {
            records.push(Record::CreditKept {
                credit: Box::new(credit.clone()),
            });
        }
        for (account, leftover) in &self.settlements.leftovers {
            records.push(Record::Leftover {
                account: *account,
                leftover: leftover.clone(),
            });
        }
        iter::once(counters).chain(accounts).chain(records)
    }

    fn apply_commit(&mut self, commit: &Commit) -> Result<(), LedgerError> {
        let from = self.existing_mut(commit.from)?;
        // i128 holds 2^63 packets of 2^64 units: no sum that can be reached overflows.
        from.balance -= i128::from(commit.amount_in);
        from.prepaid = (from.prepaid - i128::from(commit.amount_in)).max(0);
        from.sent += u128::from(commit.amount_in);
        let position = from.position as usize;
        self.positions[position].amount += i128::from(commit.amount_in);
        if commit.to != AccountId::NODE {
            let to = self.existing_mut(commit.to)?;
            to.balance += i128::from(commit.amount_out);
            let position = to.position as usize;
            self.positions[position].amount -= i128::from(commit.amount_out);
        }
        Ok(())
    }

    fn apply_account(
        &mut self,
        id: AccountId,
        settings: &AccountSettings,
    ) -> Result<(), LedgerError> {
        let settings = AccountSettings {
            terms: self.terms.share(&settings.terms),
            ..settings.clone()
        };
        let hash = self.put_account(id, settings)?;
        let (key, accounts) = (self.name_key, &self.accounts);
        self.names
            .insert_unique(hash, id, |id| hash_of(key, accounts, *id));
        let settings = accounts.settings();
        let new = settings(id).into_iter().flat_map(|of| tokens_of(id, of));
        self.tokens.enter(new.collect(), settings);
        Ok(())
    }

    /// Those that are kept, in the order in which the table has them: one that is larger than the caches is
    /// then written from its beginning to its end.
    fn enter_kept(&mut self) {
        let kept = std::mem::take(&mut self.kept_names);
        let (key, accounts) = (self.name_key, &self.accounts);
        let tokens = std::mem::take(&mut self.kept_tokens);
        self.tokens.enter(tokens, accounts.settings());
        self.names
            .reserve(kept.len(), |id| hash_of(key, accounts, *id));
        let places = self.names.num_buckets() as u64;
        for (hash, id) in by_place(kept, places, |(hash, _)| *hash) {
            self.names
                .insert_unique(hash, id, |id| hash_of(key, accounts, *id));
        }
    }

    /// Gives the hash of its name, by which it is still to be entered into the table, as its tokens are.
    fn put_account(
        &mut self,
        id: AccountId,
        settings: AccountSettings,
    ) -> Result<u64, LedgerError> {
        let position = self.position_of(&settings.asset);
        let position = u32::try_from(position).expect("no more assets than accounts");
        let hash = self.hash_name(&settings.name);
        match settings.relation {
            Relation::Parent => self.parents.insert(id),
            Relation::Child | Relation::Peer | Relation::Local => self.parents.remove(&id),
        };
        if let Some(account) = self.accounts.get_mut(id) {
            if account.position != position {
                return Err(LedgerError::AssetChanged(id));
            }
            if let Some(active) = &mut account.active {
                // A bucket whose limit stays goes on as it is; otherwise every change would refill it.
                let (old, new) = (&account.settings.limits, &settings.limits);
                if old.packets_per_minute != new.packets_per_minute {
                    active.packets = packets_bucket(new);
                }
                if old.amount_per_minute != new.amount_per_minute {
                    active.amounts = amounts_bucket(new);
                }
            }
            let old = std::mem::replace(&mut account.settings, Arc::new(settings));
            self.forget_names(&old, id);
        } else {
            self.accounts.insert(Account::new(id, settings, position));
        }
        self.last_account = self.last_account.max(id.0);
        Ok(hash)
    }

    /// Its name and its tokens lead nowhere any more.
    fn forget_names(&mut self, settings: &AccountSettings, id: AccountId) {
        let hash = self.hash_name(&settings.name);
        if let Ok(entry) = self.names.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        self.tokens.forget(id, settings);
    }

    fn apply_account_deleted(&mut self, id: AccountId) -> Result<(), LedgerError> {
        if self.existing_mut(id)?.balance != 0 {
            return Err(LedgerError::BalanceLeft(id));
        }
        let is_settling = self.settlement_of(id).is_some() || self.report_of(id).is_some();
        if is_settling || self.proposals().any(|made| made.account == id) {
            return Err(LedgerError::SettlementUnended(id));
        }
        self.settlements.leftovers.remove(&id);
        self.channels.forget(id);
        self.statements.periods.remove(&id);
        if let Some(account) = self.accounts.remove(id) {
            assert!(
                account.is_idle(),
                "an account is deleted only when nothing waits for it"
            );
            self.forget_names(&account.settings, id);
            self.parents.remove(&id);
        }
        self.routes.retain(|_, route| route.without(id));
        Ok(())
    }

    fn apply_settlement(&mut self, settlement: &Settlement) -> Result<(), LedgerError> {
        let account = settlement.account;
        let unended = match settlement.is_report() {
            true => self.report_of(account),
            false => self.settlement_of(account),
        };
        if unended.is_some() {
            return Err(LedgerError::SettlementUnended(account));
        }
        // A report takes what they paid, and leaves what is to be paid to them.
        let prepaid = self.existing_mut(account)?.prepaid - i128::from(settlement.amount);
        if settlement.is_report() && prepaid < 0 {
            return Err(LedgerError::ReportAbovePaid(account));
        }
        let entry = Entry {
            kind: EntryKind::SettledOut,
            means: Some(means_of(settlement)),
            reference: settlement.key.clone(),
            amount: -i128::from(settlement.amount),
            at_ms: Some(settlement.created_at_ms),
        };
        self.settle(account, entry)?;
        if settlement.is_report() {
            self.account_mut(account).prepaid = prepaid;
        }
        self.settlements.put(settlement);
        Ok(())
    }

    fn apply_settlement_moved(
        &mut self,
        id: SettlementId,
        state: &SettlementState,
    ) -> Result<(), LedgerError> {
        let settlement = self.settlements.outgoing.get(&id).cloned();
        let mut settlement = settlement
            .filter(|settlement| !settlement.state.is_ended())
            .ok_or(LedgerError::UnknownSettlement(id))?;
        if *state == SettlementState::Cancelled {
            let entry = Entry {
                kind: EntryKind::SettlementCancelled,
                means: Some(means_of(&settlement)),
                reference: settlement.key.clone(),
                amount: i128::from(settlement.amount),
                at_ms: None,
            };
            self.settle(settlement.account, entry)?;
            let account = self.existing_mut(settlement.account)?;
            let prepaid = account.prepaid + settlement.prepaid;
            account.prepaid = prepaid.min(account.balance.max(0));
        }
        settlement.state = state.clone();
        self.settlements.put(&settlement);
        Ok(())
    }

    fn apply_credit(&mut self, credit: &Credit, means: Means) -> Result<(), LedgerError> {
        if self.settlements.credits.contains_key(&credit.key) {
            return Err(LedgerError::CreditKey(credit.key.clone()));
        }
        let entry = Entry {
            kind: EntryKind::SettledIn,
            means: Some(means),
            reference: credit.key.clone(),
            amount: i128::from(credit.amount),
            at_ms: Some(credit.at_ms),
        };
        match means {
            // What we are to pay them: it is not theirs to pay ahead with.
            Means::Accounting => self.settle(credit.account, entry)?,
            Means::Engine | Means::Channel | Means::Hand => {
                self.settle_in(credit.account, entry)?
            }
        }
        #[cfg(feature = "mutants")]
        if self.mutant == Some(LedgerMutant::PrepaidUncounted) {
            self.account_mut(credit.account).prepaid = 0;
        }
        self.settlements
            .put_leftover(credit.account, &credit.leftover);
        #[cfg(feature = "mutants")]
        if self.mutant == Some(LedgerMutant::LeftoverDropped) {
            self.settlements.leftovers.remove(&credit.account);
        }
        self.settlements.put_credit(credit);
        Ok(())
    }

    fn apply_by_hand(&mut self, made: &HandSettlement) -> Result<(), LedgerError> {
        let account = made.account;
        self.existing_mut(account)?;
        if self
            .by_hand
            .by_reference(account, &made.reference)
            .is_some()
        {
            let reference = made.reference.clone();
            return Err(LedgerError::ReferenceUsed(account, reference));
        }
        self.settle_by_hand(made)
    }

    fn apply_decided(&mut self, id: SettlementId, state: &HandState) -> Result<(), LedgerError> {
        let made = self.by_hand.by_id.get(&id);
        let made = made.filter(|made| made.state == HandState::Proposed);
        let mut made = made.cloned().ok_or(LedgerError::UnknownSettlement(id))?;
        made.state = state.clone();
        self.settle_by_hand(&made)
    }

    /// Settled, it moves the balance as any settlement does.
    fn settle_by_hand(&mut self, made: &HandSettlement) -> Result<(), LedgerError> {
        let entry = |kind| Entry {
            kind,
            means: Some(Means::Hand),
            reference: made.reference.clone(),
            amount: made.change(),
            at_ms: Some(made.settled_at_ms()),
        };
        match (&made.state, made.direction) {
            (HandState::Settled { .. }, Direction::Paid) => {
                self.settle(made.account, entry(EntryKind::SettledOut))?;
            }
            (HandState::Settled { .. }, Direction::Received) => {
                self.settle_in(made.account, entry(EntryKind::SettledIn))?;
            }
            (HandState::Proposed | HandState::Declined { .. }, _) => {}
        }
        self.settlements.last = self.settlements.last.max(made.id.0);
        self.by_hand.put(made);
        Ok(())
    }

    /// The channel and its money, or neither.
    fn apply_channel(
        &mut self,
        put: AccountChannel,
        money: Option<&ChannelMoney>,
    ) -> Result<(), LedgerError> {
        let id = put.channel.id;
        self.existing_mut(put.account)?;
        if let Some(known) = self.channels.by_id.get(&id)
            && (known.account, known.number) != (put.account, put.number)
        {
            return Err(LedgerError::ChannelMoved(id));
        }
        match money {
            Some(ChannelMoney::Made { settlement }) => self.apply_settlement(settlement)?,
            Some(ChannelMoney::Moved { id, state }) => self.apply_settlement_moved(*id, state)?,
            Some(ChannelMoney::Credited { credit }) => self.apply_credit(credit, Means::Channel)?,
            None => {}
        }
        self.channels.put(put);
        Ok(())
    }

    /// Something was paid outside: out of what we owe below zero, or in.
    fn settle(&mut self, id: AccountId, entry: Entry) -> Result<(), LedgerError> {
        let account = self.existing_mut(id)?;
        account.balance += entry.amount;
        account.prepaid = account.prepaid.min(account.balance.max(0));
        let position = account.position as usize;
        self.positions[position].settled -= entry.amount;
        self.statements.enter(id, entry);
        Ok(())
    }

    /// They paid us outside: what they owed is paid first; the rest is ahead.
    fn settle_in(&mut self, id: AccountId, entry: Entry) -> Result<(), LedgerError> {
        let amount = entry.amount;
        self.settle(id, entry)?;
        let account = self.existing_mut(id)?;
        account.prepaid += amount.min(account.balance.max(0));
        Ok(())
    }

    /// What packets paid since the last statement, out of a checkpoint. One of before there were
    /// statements does not say it: the first period begins with the balance that it has.
    fn count_sent(&mut self, id: AccountId, sent: Option<u128>) -> Result<(), LedgerError> {
        let account = self.existing_mut(id)?;
        account.sent = sent.unwrap_or_default();
        let balance = account.balance;
        if sent.is_none() {
            self.statements.periods.entry(id).or_default().opening = balance;
        }
        Ok(())
    }

    fn apply_statement(&mut self, statement: &Statement) -> Result<(), LedgerError> {
        let (id, number) = (statement.account, statement.number);
        let last = self.period(id).map_or(0, |period| period.last);
        let account = self.existing_mut(id)?;
        if account.balance != statement.closing || last.checked_add(1) != Some(number) {
            return Err(LedgerError::Statement(id, number));
        }
        account.sent = 0;
        self.statements.close(statement);
        Ok(())
    }

    fn apply_payment(&mut self, payment: &Payment) {
        if !self.payments.contains_key(&payment.id) && self.payments.len() >= PAYMENTS_MAX {
            let ended = self
                .payments
                .values()
                .find(|old| old.end.is_some())
                .map(|old| old.id);
            if let Some(forgotten) = ended.and_then(|id| self.payments.remove(&id)) {
                self.payment_keys.remove(&forgotten.idempotency_key);
            }
        }
        self.last_payment = self.last_payment.max(payment.id.0);
        self.payment_keys
            .insert(payment.idempotency_key.clone(), payment.id);
        self.payments.insert(payment.id, payment.clone());
    }

    fn remember(&mut self, adjustment: &Adjustment) {
        if self.adjustments.len() >= ADJUSTMENTS_MAX
            && let Some((_, forgotten)) = self.adjustments.pop_first()
        {
            self.adjustment_keys.remove(&forgotten.idempotency_key);
        }
        self.adjustment_keys
            .insert(adjustment.idempotency_key.clone(), adjustment.id);
        self.adjustments.insert(adjustment.id, adjustment.clone());
    }

    fn payment_mut(&mut self, progress: &PaymentProgress) -> Result<&mut Payment, LedgerError> {
        let id = progress.payment;
        self.payments
            .get_mut(&id)
            .ok_or(LedgerError::UnknownPayment(id))
    }

    fn existing_mut(&mut self, id: AccountId) -> Result<&mut Account, LedgerError> {
        let account = self.accounts.get_mut(id);
        account.ok_or(LedgerError::UnknownAccount(id))
    }

    /// For callers that have just looked the account up.
    fn account_mut(&mut self, id: AccountId) -> &mut Account {
        self.existing_mut(id)
            .expect("the caller holds an account that exists")
    }

    fn hash_name(&self, name: &str) -> u64 {
        hash_name(self.name_key, name)
    }

    fn position_of(&mut self, asset: &Asset) -> usize {
        if let Some(index) = self
            .positions
            .iter()
            .position(|position| position.asset == *asset)
        {
            return index;
        }
        let unsynced_max = self.unsynced_max.get(asset).copied();
        let (asset, exposure) = (asset.clone(), Exposure::default());
        self.positions.push(Position {
            asset,
            amount: 0,
            settled: 0,
            exposure,
            unsynced_max,
            wants_sync: false,
        });
        self.positions.len() - 1
    }

    /// It is no longer in flight; `unsynced` of it is committed instead.
    fn end_hold(&mut self, commit: &Commit, unsynced: u64) {
        self.each_exposure(commit.from, |exposure| {
            exposure.in_flight_count -= 1;
            exposure.in_flight -= u128::from(commit.amount_in);
            exposure.unsynced += u128::from(unsynced);
        });
        if commit.to != AccountId::NODE {
            self.account_mut(commit.to).active_mut().expected_count -= 1;
        }
    }

    /// The payer's exposure, and the node's in the same asset.
    fn each_exposure(&mut self, id: AccountId, change: impl Fn(&mut Exposure)) {
        let (account, node) = self.payer_mut(id);
        change(&mut account.active_mut().exposure);
        change(&mut node.exposure);
    }

    /// An account, and the node's position in its asset.
    fn payer_mut(&mut self, id: AccountId) -> (&mut Account, &mut Position) {
        let account = self.accounts.get_mut(id);
        let account = account.expect("the caller holds an account that exists");
        let node = &mut self.positions[account.position as usize];
        (account, node)
    }
}

fn means_of(settlement: &Settlement) -> Means {
    match settlement.channel {
        Some(_) => Means::Channel,
        None if settlement.is_report() => Means::Accounting,
        None => Means::Engine,
    }
}

/// Accounts for which room is made before they come.
const ACCOUNTS_AHEAD_MAX: u32 = 1 << 24;

fn hash_name(key: [u64; 2], name: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    hasher.write(name.as_bytes());
    hasher.finish()
}

fn hash_of(key: [u64; 2], accounts: &Accounts, id: AccountId) -> u64 {
    let account = accounts.get(id);
    account.map_or(0, |account| hash_name(key, &account.settings.name))
}

/// The records of one account in a checkpoint, and of its terms when it is the first to have them.
fn snapshot_account(
    account: &Account,
    numbers: &mut FxHashMap<usize, u32>,
) -> impl Iterator<Item = Record> + use<> {
    let (id, settings) = (account.id, &account.settings);
    let (balance, prepaid, sent) = (account.balance, account.prepaid, account.sent);
    if settings
        .incoming_tokens
        .iter()
        .any(|token| token.jwt.is_some())
    {
        let balance = (balance != 0 || sent != 0).then_some(Record::Balance {
            account: id,
            balance,
            prepaid,
            sent: Some(sent),
        });
        let settings = Box::new(AccountSettings::clone(settings));
        let put = Record::AccountPut { id, settings };
        return [Some(put), balance].into_iter().flatten();
    }
    let next = u32::try_from(numbers.len()).expect("no more terms than accounts");
    let number = *numbers
        .entry(Arc::as_ptr(&settings.terms).addr())
        .or_insert(next);
    let terms = (number == next).then(|| Record::TermsKept {
        number,
        terms: Box::new((*settings.terms).clone()),
    });
    let account = Record::AccountKept {
        id,
        terms: number,
        name: settings.name.clone(),
        tokens: settings.incoming_tokens.clone(),
        balance,
        prepaid,
        sent: Some(sent),
    };
    [terms, Some(account)].into_iter().flatten()
}

/// Whether a quarter of what may be at risk is used up by what is not on disk.
fn is_near(max: Option<u64>, exposure: &Exposure) -> bool {
    max.is_some_and(|max| exposure.unsynced > u128::from(max / 4))
}

fn above(max: Option<u64>, amount: u128) -> bool {
    max.is_some_and(|max| amount > u128::from(max))
}

fn to_i128(amount: u128) -> i128 {
    i128::try_from(amount).expect("at most 2^32 packets of 2^64 units are in flight")
}
