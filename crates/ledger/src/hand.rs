//! Settlements by hand: what was paid outside of the node, such as by a bank transfer, as operators
//! write it down.

use std::collections::{BTreeMap, BTreeSet};

use rialto_packet::money::Asset;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::{settings::AccountId, settlement::SettlementId, text};

/// Settlements by hand that are remembered, with their references; beyond it the oldest that are
/// decided are forgotten.
pub const HAND_SETTLEMENTS_MAX: usize = 100_000;

/// Those of them that may wait for a second operator.
pub const PROPOSALS_MAX: usize = 1_000;

/// Longest reference, in bytes.
pub const REFERENCE_BYTES_MAX: usize = 255;

/// Who paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// We paid them.
    Paid,
    /// They paid us.
    Received,
}

/// The word of a second operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Whose token it was.
    pub by: String,
    /// The key of the request: a second one with it is the same approval.
    pub idempotency_key: String,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}

/// Where a settlement by hand stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", deny_unknown_fields)]
pub enum HandState {
    /// It waits for a second operator, and is not in the balance.
    Proposed,
    /// It is in the balance.
    Settled {
        /// Missing where one operator was enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<Approval>,
    },
    /// It never was in the balance.
    Declined {
        /// Whose token it was.
        by: String,
        /// Milliseconds since 1970.
        at_ms: i64,
    },
}

/// A settlement by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandSettlement {
    /// Which. Numbered with the other settlements.
    pub id: SettlementId,
    /// With whom.
    pub account: AccountId,
    /// The account's name when it was made, for the history.
    pub account_name: String,
    /// What the amount is counted in.
    #[serde(with = "text")]
    pub asset: Asset,
    /// Who paid.
    pub direction: Direction,
    /// In units of the asset.
    #[serde(with = "text")]
    pub amount: u64,
    /// Names the transfer: a second one of the account with it is the same settlement.
    pub reference: String,
    /// Whose token wrote it down.
    pub by: String,
    /// The key of the request: a second one with it is the same settlement.
    pub idempotency_key: String,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Where it stands.
    pub state: HandState,
}

impl HandSettlement {
    /// What it does to the balance.
    pub fn change(&self) -> i128 {
        match self.direction {
            Direction::Paid => -i128::from(self.amount),
            Direction::Received => i128::from(self.amount),
        }
    }

    /// When it came into the balance. Milliseconds since 1970.
    pub(crate) fn settled_at_ms(&self) -> i64 {
        match &self.state {
            HandState::Settled {
                approval: Some(approval),
            } => approval.at_ms,
            HandState::Settled { approval: None }
            | HandState::Proposed
            | HandState::Declined { .. } => self.created_at_ms,
        }
    }
}

/// The settlements by hand of a node.
#[derive(Debug, Default)]
pub(crate) struct HandSettlements {
    pub(crate) by_id: BTreeMap<SettlementId, HandSettlement>,
    pub(crate) proposals: BTreeSet<SettlementId>,
    /// Of those that were not declined.
    references: FxHashMap<(AccountId, String), SettlementId>,
    /// Of requests and of approvals.
    keys: FxHashMap<String, SettlementId>,
}

impl HandSettlements {
    pub(crate) fn by_key(&self, key: &str) -> Option<&HandSettlement> {
        self.by_id.get(self.keys.get(key)?)
    }

    pub(crate) fn by_reference(
        &self,
        account: AccountId,
        reference: &str,
    ) -> Option<&HandSettlement> {
        let name = (account, reference.to_owned());
        self.by_id.get(self.references.get(&name)?)
    }

    /// The one to be forgotten next.
    pub(crate) fn oldest_decided(&self) -> Option<&HandSettlement> {
        let decided = |made: &&HandSettlement| made.state != HandState::Proposed;
        self.by_id.values().find(decided)
    }

    /// Enters or replaces one.
    pub(crate) fn put(&mut self, put: &HandSettlement) {
        if !self.by_id.contains_key(&put.id)
            && self.by_id.len() >= HAND_SETTLEMENTS_MAX
            && let Some(forgotten) = self.oldest_decided().map(|made| made.id)
        {
            self.forget(forgotten);
        }
        let (id, name) = (put.id, (put.account, put.reference.clone()));
        self.keys.insert(put.idempotency_key.clone(), id);
        match &put.state {
            HandState::Proposed => {
                self.proposals.insert(id);
                self.references.insert(name, id);
            }
            HandState::Settled { approval } => {
                self.proposals.remove(&id);
                self.references.insert(name, id);
                if let Some(approval) = approval {
                    self.keys.insert(approval.idempotency_key.clone(), id);
                }
            }
            HandState::Declined { .. } => {
                self.proposals.remove(&id);
                self.forget_reference(&name, id);
            }
        }
        self.by_id.insert(id, put.clone());
    }

    fn forget(&mut self, id: SettlementId) {
        let Some(forgotten) = self.by_id.remove(&id) else {
            return;
        };
        self.keys.remove(&forgotten.idempotency_key);
        if let HandState::Settled {
            approval: Some(approval),
        } = &forgotten.state
        {
            self.keys.remove(&approval.idempotency_key);
        }
        self.forget_reference(&(forgotten.account, forgotten.reference), id);
    }

    /// A transfer that was declined may be written down again, under its reference.
    fn forget_reference(&mut self, name: &(AccountId, String), id: SettlementId) {
        if self.references.get(name) == Some(&id) {
            self.references.remove(name);
        }
    }
}
