//! Settlement channels: what is remembered of them, and what a step of one does to the books.

use std::collections::BTreeMap;

use rialto_channel::{Channel, ChannelId, Kind, Phase};
use serde::{Deserialize, Serialize};

use crate::{
    settings::AccountId,
    settlement::{Credit, Settlement, SettlementId, SettlementState},
    text,
};

/// Most channels of one account, ended ones among them; beyond it the oldest that ended in agreement,
/// or never opened, is forgotten.
pub const ACCOUNT_CHANNELS_MAX: usize = 64;

/// The same for the whole node.
pub const CHANNELS_MAX: usize = 10_000;

/// Which channels an account opens by itself, and accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelTerms {
    /// Of what kind.
    pub kind: Kind,
    /// The most that we may owe over it.
    #[serde(with = "text")]
    pub limit: u64,
    /// The most that they may owe over it: one that they offer is accepted up to this.
    #[serde(with = "text")]
    pub their_limit: u64,
    /// Whether we propose one as long as there never was one.
    #[serde(default)]
    pub propose: bool,
}

/// A channel with the holder of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountChannel {
    /// Counts the channels of the node.
    pub number: u64,
    /// Whose.
    pub account: AccountId,
    /// All that is remembered of it.
    pub channel: Channel,
    /// How our operator asked for it, if one did.
    pub opening: Option<ChannelOpening>,
}

/// How an operator asked for a channel: a second request with the key is the same channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelOpening {
    /// The key of the request.
    pub idempotency_key: String,
    /// The most that we should owe over it at first: limits change later.
    #[serde(with = "text")]
    pub limit: u64,
    /// The most that they should owe.
    #[serde(with = "text")]
    pub their_limit: u64,
}

/// What a step of a channel does to the books: in the same record as the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum ChannelMoney {
    /// We paid.
    Made {
        /// The settlement that it is.
        settlement: Box<Settlement>,
    },
    /// What became of our payment.
    Moved {
        /// Which.
        id: SettlementId,
        /// What.
        state: SettlementState,
    },
    /// They paid.
    Credited {
        /// The credit that it is.
        credit: Box<Credit>,
    },
}

/// The channels of a node.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    pub(crate) by_id: BTreeMap<ChannelId, AccountChannel>,
    /// By account, the oldest first.
    by_account: BTreeMap<(AccountId, u64), ChannelId>,
    pub(crate) last: u64,
}

impl Channels {
    /// Those of an account, the oldest first.
    pub(crate) fn of(
        &self,
        account: AccountId,
    ) -> impl DoubleEndedIterator<Item = &AccountChannel> {
        let ids = self.by_account.range((account, 0)..=(account, u64::MAX));
        ids.filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Whether there is room for another one of an account, or something to forget.
    pub(crate) fn has_room(&self, account: AccountId) -> bool {
        let is_full =
            self.of(account).count() >= ACCOUNT_CHANNELS_MAX || self.by_id.len() >= CHANNELS_MAX;
        !is_full || self.forgettable(account).is_some()
    }

    /// The oldest channel of the account that nobody needs any more.
    fn forgettable(&self, account: AccountId) -> Option<&AccountChannel> {
        self.of(account).find(|known| {
            let is_over = matches!(known.channel.phase, Phase::Closed | Phase::Declined { .. });
            is_over && known.channel.is_quiet()
        })
    }

    /// Enters or replaces a channel. How it was asked for is said once and stays.
    pub(crate) fn put(&mut self, mut put: AccountChannel) {
        let (id, account) = (put.channel.id, put.account);
        if put.opening.is_none() {
            let known = self.by_id.get(&id);
            put.opening = known.and_then(|known| known.opening.clone());
        }
        if !self.by_id.contains_key(&id)
            && (self.of(account).count() >= ACCOUNT_CHANNELS_MAX
                || self.by_id.len() >= CHANNELS_MAX)
            && let Some(forgotten) = self.forgettable(account)
        {
            let (number, forgotten) = (forgotten.number, forgotten.channel.id);
            self.by_account.remove(&(account, number));
            self.by_id.remove(&forgotten);
        }
        self.last = self.last.max(put.number);
        self.by_account.insert((account, put.number), id);
        self.by_id.insert(id, put);
    }

    /// The account is gone.
    pub(crate) fn forget(&mut self, account: AccountId) {
        let ids: Vec<_> = self.of(account).map(|known| known.channel.id).collect();
        for id in ids {
            self.by_id.remove(&id);
        }
        self.by_account.retain(|(of, _), _| *of != account);
    }
}
