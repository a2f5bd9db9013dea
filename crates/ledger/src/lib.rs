//! The books: who owes whom, what is promised, and how much more may be promised.
//!
//! * Everything that must survive is a [`Record`], and [`Ledger::apply`] is the only function that
//!   changes it. Live traffic and recovery both go through it, so replay equals history;
//!   [`Ledger::recover`] is the same for a record that is not needed any more.
//! * A packet in flight is a [`Hold`]: taken by [`Ledger::hold`], turned into a commit by
//!   [`Ledger::commit`] or undone by [`Ledger::release`]. Holds live in memory only.
//! * **Sign**: a balance is seen from the account holder. Positive: the node owes them. Negative:
//!   they owe the node. The lowest balance allowed is the credit the node gives them.
//! * Every record is double entry: for each asset the balances of all accounts, the node's own
//!   [exchange position](Ledger::positions) and what was [settled](Ledger::settled) outside add up to
//!   zero.
//!
//! It is not a place for sockets, clocks or files: time comes in as a value, records go out as one.

// The order of a hash table must not show in results: the same seed has to give the same run.
#![warn(clippy::iter_over_hash_type)]

mod accounts;
mod bucket;
mod channel;
mod hand;
mod invite;
mod ledger;
mod places;
mod record;
mod settings;
mod settlement;
mod statement;
mod stranger;
mod terms;
pub mod text;
mod tokens;

pub use bucket::Bucket;
pub use channel::{
    ACCOUNT_CHANNELS_MAX, AccountChannel, CHANNELS_MAX, ChannelMoney, ChannelOpening, ChannelTerms,
};
pub use hand::{
    Approval, Direction, HAND_SETTLEMENTS_MAX, HandSettlement, HandState, PROPOSALS_MAX,
    REFERENCE_BYTES_MAX,
};
pub use invite::{INVITES_MAX, Invite, InviteUse};
#[cfg(feature = "mutants")]
pub use ledger::LedgerMutant;
pub use ledger::{
    ADJUSTMENTS_MAX, Account, Exposure, Hold, Ledger, LedgerError, Limit, PAYMENTS_MAX,
};
pub use places::by_place;
pub use record::{Adjustment, Commit, Payment, PaymentEnd, PaymentProgress, Record, RecordError};
pub use settings::{
    AccountId, AccountSettings, AccountTerms, BtpLink, HttpLink, IncomingJwt, IncomingToken,
    JwtAlgorithm, JwtClaims, KeyPin, Limits, NAME_BYTES_MAX, OutgoingJwt, PINS_MAX, PaymentId,
    PinError, RAFIKI_PACKETS_PER_SECOND, ROUTES_MAX, Rate, Relation, RouteExchange, RouteShare,
    SealedSecret, SettlementTerms, StaticRoute, TOKENS_MAX, TokenHash, check_name,
};
pub use settlement::{
    CREDIT_KEY_BYTES_MAX, CREDIT_KEY_KEPT_MS, CREDIT_KEY_REFRESH_MS, CREDIT_KEYS_MAX, Credit,
    SETTLEMENTS_MAX, Settlement, SettlementCause, SettlementId, SettlementState,
};
pub use statement::{
    Entry, EntryKind, Means, MoreEntries, Period, STATEMENT_ENTRIES_MAX, STATEMENTS_MAX, Statement,
};
pub use stranger::{BLOCKED_MAX, PeeringRequest, PeeringVerdict};
pub use tokens::{NewToken, TokenTable, tokens_of};

/// Number of a record in the journal, counted from 1; 0 is "none yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);
