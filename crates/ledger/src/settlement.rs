//! Settlements: what leaves the books for another ledger, and what comes in from one.

use std::collections::{BTreeMap, BTreeSet};

use rialto_channel::ChannelId;
use rialto_packet::quantity::Quantity;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::{
    settings::AccountId,
    text::{self, is_default},
};

/// Settlements that are remembered; beyond it the oldest ended ones are forgotten.
pub const SETTLEMENTS_MAX: usize = 100_000;

/// Keys of incoming settlements that are remembered.
pub const CREDIT_KEYS_MAX: usize = 1_000_000;

/// How long a key of an incoming settlement is remembered after its latest use that is on record.
/// Milliseconds.
pub const CREDIT_KEY_KEPT_MS: i64 = 48 * 3_600_000;

/// A use of a key is put on record again when the one on record is older than this, so that a key
/// is kept for at least a day after any use (RFC 38, Idempotence). Milliseconds.
pub const CREDIT_KEY_REFRESH_MS: i64 = 24 * 3_600_000;

/// Longest key of an incoming settlement.
pub const CREDIT_KEY_BYTES_MAX: usize = 255;

/// Names an outgoing settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SettlementId(pub u64);

/// Why a settlement was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettlementCause {
    /// What we owed reached the threshold.
    Threshold,
    /// Its time had come.
    Schedule,
    /// An operator asked for it.
    Manual,
    /// The accounting system asked for it whose engine we are.
    Instruction,
    /// What the other side paid over a channel is told to the accounting system whose engine we are.
    Report,
}

/// How far an outgoing settlement has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", deny_unknown_fields)]
pub enum SettlementState {
    /// To be told to the engine until it says that it has it. Whether it has it already is not known.
    Open,
    /// The engine has it, and pays.
    Accepted,
    /// The engine refused it for good: an operator decides.
    Parked {
        /// What the engine said.
        message: String,
    },
    /// An operator took it back after the engine had refused it: the amount is owed again.
    Cancelled,
}

impl SettlementState {
    /// Whether nothing more happens to it.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Open | Self::Parked { .. } => false,
            Self::Accepted | Self::Cancelled => true,
        }
    }
}

/// An outgoing settlement. The amount left the account's balance when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// Which.
    pub id: SettlementId,
    /// Whom it pays.
    pub account: AccountId,
    /// Made with it and never renewed: an engine that is told twice pays once.
    pub key: String,
    /// The key of the operator's request: a second one with it is the same settlement.
    #[serde(default)]
    pub request_key: Option<String>,
    /// In units of the account's asset.
    #[serde(with = "text")]
    pub amount: u64,
    /// What of it they had paid ahead, or over a channel: it is so again when the settlement is taken back.
    #[serde(default, with = "text", skip_serializing_if = "is_default")]
    pub prepaid: i128,
    /// Why it was made.
    pub cause: SettlementCause,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// How far it has come.
    pub state: SettlementState,
    /// The channel that it is paid over; the engine where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelId>,
}

impl Settlement {
    /// Whether it tells an accounting system what came in, and pays nobody.
    pub fn is_report(&self) -> bool {
        self.cause == SettlementCause::Report
    }
}

/// An incoming settlement: the key, what was credited and what is left, all in one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credit {
    /// Who paid.
    pub account: AccountId,
    /// The engine's key for it: a second one with the same key is the same settlement.
    pub key: String,
    /// What the engine said that it received.
    #[serde(with = "text")]
    pub quantity: Quantity,
    /// What of it, and of what was left before, was credited, in units of the account's asset.
    #[serde(with = "text")]
    pub amount: u64,
    /// What is left now, less than one unit of the account's asset.
    #[serde(with = "text")]
    pub leftover: Quantity,
    /// When the key was last used, as far as it is on record. Milliseconds since 1970.
    pub at_ms: i64,
}

/// The settlements of a node. Balances are the ledger's; this is what else has to be known.
#[derive(Debug, Default)]
pub(crate) struct Settlements {
    pub(crate) outgoing: BTreeMap<SettlementId, Settlement>,
    /// The one settlement of an account that has not ended.
    pub(crate) unended: FxHashMap<AccountId, SettlementId>,
    /// The one report of an account that has not ended.
    pub(crate) reports: FxHashMap<AccountId, SettlementId>,
    pub(crate) credits: FxHashMap<String, Credit>,
    /// By latest use, to forget the oldest.
    credit_order: BTreeSet<(i64, String)>,
    /// Where there is something left.
    pub(crate) leftovers: BTreeMap<AccountId, Quantity>,
    pub(crate) last: u64,
}

impl Settlements {
    /// Enters or replaces an outgoing settlement.
    pub(crate) fn put(&mut self, settlement: &Settlement) {
        let (id, account) = (settlement.id, settlement.account);
        if !self.outgoing.contains_key(&id) && self.outgoing.len() >= SETTLEMENTS_MAX {
            let ended = self.outgoing.values().find(|old| old.state.is_ended());
            if let Some(forgotten) = ended.map(|old| old.id) {
                self.outgoing.remove(&forgotten);
            }
        }
        let unended = match settlement.is_report() {
            true => &mut self.reports,
            false => &mut self.unended,
        };
        if settlement.state.is_ended() {
            if unended.get(&account) == Some(&id) {
                unended.remove(&account);
            }
        } else {
            unended.insert(account, id);
        }
        self.last = self.last.max(id.0);
        self.outgoing.insert(id, settlement.clone());
    }

    /// Enters a credit, or a later use of its key, and forgets keys that are old enough.
    pub(crate) fn put_credit(&mut self, credit: &Credit) {
        if let Some(old) = self.credits.insert(credit.key.clone(), credit.clone()) {
            self.credit_order.remove(&(old.at_ms, old.key));
        }
        self.credit_order.insert((credit.at_ms, credit.key.clone()));
        while let Some((at_ms, key)) = self.credit_order.first()
            && credit.at_ms.saturating_sub(*at_ms) > CREDIT_KEY_KEPT_MS
        {
            self.credits.remove(key);
            self.credit_order.pop_first();
        }
    }

    /// What is left of an account's credits so far.
    pub(crate) fn put_leftover(&mut self, account: AccountId, leftover: &Quantity) {
        if leftover.is_zero() {
            self.leftovers.remove(&account);
        } else {
            self.leftovers.insert(account, leftover.clone());
        }
    }

    /// Credits whose keys are remembered, by latest use.
    pub(crate) fn credits(&self) -> impl Iterator<Item = &Credit> {
        self.credit_order
            .iter()
            .filter_map(|(_, key)| self.credits.get(key))
    }
}
