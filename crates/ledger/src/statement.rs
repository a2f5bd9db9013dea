//! Statements: what happened on an account over a period, closed by a record and chained to the one
//! before.
//!
//! Packets are netted per direction, everything else is an entry of its own. From the opening balance
//! to the closing one the books add up to the unit, or the statement is not made.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    settings::AccountId,
    text::{self, is_default},
};

/// Entries of one period that are kept one by one; what comes after them is summed up.
pub const STATEMENT_ENTRIES_MAX: usize = 200;

/// Statements that are remembered; beyond it the oldest are forgotten, and only who kept a copy has
/// them.
pub const STATEMENTS_MAX: usize = 10_000;

/// What an entry of a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// We paid them outside.
    SettledOut,
    /// They paid us outside.
    SettledIn,
    /// A settlement that was taken back: it is owed again.
    SettlementCancelled,
    /// An operator corrected the balance.
    Adjusted,
}

/// By what a settlement was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// A settlement engine.
    Engine,
    /// A settlement channel.
    Channel,
    /// An operator, who wrote it down.
    Hand,
    /// The accounting system whose engine we are.
    Accounting,
}

impl Means {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Channel => "channel",
            Self::Hand => "hand",
            Self::Accounting => "accounting",
        }
    }
}

/// One line of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// By what, where it is a settlement. It was not said at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub means: Option<Means>,
    /// The key of the settlement or of the adjustment; of a settlement by hand, its reference.
    pub reference: String,
    /// What it did to the balance, in units of the account's asset.
    #[serde(with = "text")]
    pub amount: i128,
    /// Milliseconds since 1970, where the record says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
}

/// Entries beyond [`STATEMENT_ENTRIES_MAX`], summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoreEntries {
    /// How many.
    pub count: u64,
    /// What they did to the balance.
    #[serde(with = "text")]
    pub amount: i128,
}

/// What happened on an account since its last statement, beside packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// The number of the last statement; 0 is "none yet".
    #[serde(default, skip_serializing_if = "is_default")]
    pub last: u32,
    /// SHA-256 of it, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// When it was closed: milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// The balance then.
    #[serde(default, with = "text", skip_serializing_if = "is_default")]
    pub opening: i128,
    /// What happened since, in the order of the journal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// What did not fit there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more: MoreEntries,
}

impl Period {
    fn put(&mut self, entry: Entry) {
        if self.entries.len() < STATEMENT_ENTRIES_MAX {
            self.entries.push(entry);
        } else {
            self.more.count += 1;
            self.more.amount += entry.amount;
        }
    }

    /// What all entries did to the balance.
    pub fn entries_amount(&self) -> i128 {
        let entries = self.entries.iter().map(|entry| entry.amount);
        entries.sum::<i128>() + self.more.amount
    }
}

/// A statement as it was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Whose.
    pub account: AccountId,
    /// The account's name when it was made, for the history.
    pub account_name: String,
    /// Counted from 1 for each account.
    pub number: u32,
    /// What it says: a JSON object, byte for byte what was hashed and signed.
    pub text: String,
    /// SHA-256 of the text, as hexadecimal digits.
    pub hash: String,
    /// The node's, over the text.
    pub signature: String,
    /// The balance that it ends with, and that the next one begins with.
    #[serde(with = "text")]
    pub closing: i128,
    /// Milliseconds since 1970.
    pub closed_at_ms: i64,
}

/// The statements of a node, and what they will be made of.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    /// Of accounts on which there was more than packets, or a statement.
    pub(crate) periods: BTreeMap<AccountId, Period>,
    closed: BTreeMap<(AccountId, u32), Statement>,
    /// Oldest first.
    order: VecDeque<(AccountId, u32)>,
}

impl Statements {
    /// What moved nothing is not entered.
    pub(crate) fn enter(&mut self, account: AccountId, entry: Entry) {
        if entry.amount == 0 {
            return;
        }
        self.periods.entry(account).or_default().put(entry);
    }

    /// A new period begins.
    pub(crate) fn close(&mut self, statement: &Statement) {
        let period = Period {
            last: statement.number,
            previous: Some(statement.hash.clone()),
            since_ms: Some(statement.closed_at_ms),
            opening: statement.closing,
            ..Period::default()
        };
        self.periods.insert(statement.account, period);
        self.remember(statement);
    }

    pub(crate) fn remember(&mut self, statement: &Statement) {
        let name = (statement.account, statement.number);
        if self.order.len() >= STATEMENTS_MAX
            && let Some(forgotten) = self.order.pop_front()
        {
            self.closed.remove(&forgotten);
        }
        self.order.push_back(name);
        self.closed.insert(name, statement.clone());
    }

    /// Of one account, oldest first.
    pub(crate) fn of(&self, account: AccountId) -> impl DoubleEndedIterator<Item = &Statement> {
        let range = (account, 0)..=(account, u32::MAX);
        self.closed.range(range).map(|(_, statement)| statement)
    }

    /// Oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Statement> {
        self.order.iter().filter_map(|name| self.closed.get(name))
    }
}
