//! What is counted. All numbers only grow, from zero at the start of the process.

use rialto_ledger::AccountId;
use rustc_hash::FxHashMap;

use crate::refusal::Reason;

/// Counters of one account.
#[derive(Debug, Clone)]
pub struct AccountStats {
    /// Prepares that came in.
    pub prepares_in: u64,
    /// Prepares that were sent out.
    pub prepares_out: u64,
    /// Fulfills passed back to them.
    pub fulfills_out: u64,
    /// Amount of those, in their units.
    pub amount_in: u128,
    /// Valid Fulfills that came from them.
    pub fulfills_in: u64,
    /// Amount of those, in their units.
    pub amount_out: u128,
    /// Rejects passed back to them.
    pub rejects_out: u64,
    /// Fulfills that came from them too late.
    pub late_fulfills: u64,
    /// Amount of those, in their units: what they lost.
    pub late_amount: u128,
    /// Fulfills passed back to them that found neither session nor request any more.
    pub undelivered_fulfills: u64,
    /// Amount of those, in their units: booked here, and perhaps not in their books.
    pub undelivered_amount: u128,
    /// Refusals of their packets, by the number of the reason.
    pub refused: [u64; Reason::ALL.len()],
}

impl AccountStats {
    /// Adds those of another account.
    pub fn add(&mut self, other: &Self) {
        let Self {
            prepares_in,
            prepares_out,
            fulfills_out,
            amount_in,
            fulfills_in,
            amount_out,
            rejects_out,
            late_fulfills,
            late_amount,
            undelivered_fulfills,
            undelivered_amount,
            refused,
        } = self;
        *prepares_in += other.prepares_in;
        *prepares_out += other.prepares_out;
        *fulfills_out += other.fulfills_out;
        *amount_in += other.amount_in;
        *fulfills_in += other.fulfills_in;
        *amount_out += other.amount_out;
        *rejects_out += other.rejects_out;
        *late_fulfills += other.late_fulfills;
        *late_amount += other.late_amount;
        *undelivered_fulfills += other.undelivered_fulfills;
        *undelivered_amount += other.undelivered_amount;
        for (sum, count) in refused.iter_mut().zip(other.refused) {
            *sum += count;
        }
    }
}

impl Default for AccountStats {
    fn default() -> Self {
        Self {
            prepares_in: 0,
            prepares_out: 0,
            fulfills_out: 0,
            amount_in: 0,
            fulfills_in: 0,
            amount_out: 0,
            rejects_out: 0,
            late_fulfills: 0,
            late_amount: 0,
            undelivered_fulfills: 0,
            undelivered_amount: 0,
            refused: [0; Reason::ALL.len()],
        }
    }
}

/// Counters of the node.
#[derive(Debug, Default)]
pub struct Stats {
    accounts: FxHashMap<AccountId, Box<AccountStats>>,
}

impl Stats {
    /// Of one account; `None` while nothing happened on it.
    pub fn account(&self, id: AccountId) -> Option<&AccountStats> {
        self.accounts.get(&id).map(|stats| &**stats)
    }

    pub(crate) fn of(&mut self, id: AccountId) -> &mut AccountStats {
        self.accounts.entry(id).or_default()
    }

    pub(crate) fn forget(&mut self, id: AccountId) {
        self.accounts.remove(&id);
    }
}
