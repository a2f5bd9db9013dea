//! Faults of the node's own, put in on purpose: the checkers must catch each of them.
//!
//! Most are made where the simulator touches the node (its shell, its clock, what goes in and comes
//! out). Some are in the books, behind a feature that no build of the node has.

use rialto_channel::ChannelMutant;
use rialto_connector::Action;
use rialto_ledger::LedgerMutant;

words! {
    /// One fault put in on purpose.
    pub enum Mutant {
        /// What waits for the disk does not wait.
        GateDropped = "gate-dropped",
        /// Effects leave before their records are written.
        WriteAfterSend = "write-after-send",
        /// The core is told that what was written is safe.
        WrittenCountsAsSynced = "written-counts-as-synced",
        /// Recovery believes a record that did not reach the disk whole.
        TornRecordAccepted = "torn-record-accepted",
        /// Recovery applies the last commit again.
        CommitReplayedTwice = "commit-replayed-twice",
        /// Recovery leaves the last commit out.
        CommitForgotten = "commit-forgotten",
        /// A Fulfill that comes after the deadline counts.
        LateFulfillPaid = "late-fulfill-paid",
        /// The monotonic clock follows a step of the wall clock.
        ClockStepRevives = "clock-step-revives",
        /// Request ids come round while they are in use.
        RequestIdReused = "request-id-reused",
        /// A wrong preimage counts.
        PreimageUnchecked = "preimage-unchecked",
        /// A Reject pays.
        RejectCreatesCredit = "reject-creates-credit",
        /// What was fulfilled is rejected upstream.
        FulfillTurnedReject = "fulfill-turned-reject",
        /// A packet is answered twice.
        AnsweredTwice = "answered-twice",
        /// A hold that ends without payment gives its amount back twice.
        HoldReleasedTwice = "hold-released-twice",
        /// Timeouts do not reach the core.
        HoldLeaked = "hold-leaked",
        /// A packet keeps its expiry.
        ExpiryKept = "expiry-not-shortened",
        /// The next hop gets one unit more.
        RoundedUp = "rounded-up",
        /// Accounts may owe one unit more than the operator said.
        LimitOffByOne = "limit-off-by-one",
        /// The caps do not count what is in flight.
        InFlightUncounted = "in-flight-uncounted",
        /// No cap on what is in flight or unsynced.
        CapLifted = "cap-lifted",
        /// An engine that is told again is told another key.
        KeyRenewed = "key-renewed-on-retry",
        /// An engine is told before the record of the settlement is on disk.
        ToldBeforeRecord = "told-before-its-record",
        /// An engine hears that it was credited before the record is on disk.
        CreditBeforeRecord = "credit-before-its-record",
        /// A checkpoint leaves out the keys of incoming settlements.
        CreditKeyForgotten = "credit-key-forgotten",
        /// What is left of an incoming settlement is dropped.
        LeftoverDropped = "leftover-dropped",
        /// What they paid ahead is settled back.
        PrepaidSettled = "paid-ahead-is-settled",
        /// What is told over a channel is told before it is on disk.
        ClaimBeforeRecord = "claim-before-its-record",
        /// What came over a channel is answered before the credit is on disk.
        ChannelCreditBeforeRecord = "channel-credit-before-its-record",
        /// A claim below the last one is taken.
        OlderClaimTaken = "older-claim-taken",
    }
}

impl Mutant {
    /// One that is made in the books themselves.
    pub(crate) fn of_ledger(self) -> Option<LedgerMutant> {
        match self {
            Self::HoldReleasedTwice => Some(LedgerMutant::ReleasedTwice),
            Self::InFlightUncounted => Some(LedgerMutant::InFlightUncounted),
            Self::LeftoverDropped => Some(LedgerMutant::LeftoverDropped),
            Self::PrepaidSettled => Some(LedgerMutant::PrepaidUncounted),
            Self::GateDropped
            | Self::WriteAfterSend
            | Self::WrittenCountsAsSynced
            | Self::TornRecordAccepted
            | Self::CommitReplayedTwice
            | Self::CommitForgotten
            | Self::LateFulfillPaid
            | Self::ClockStepRevives
            | Self::RequestIdReused
            | Self::PreimageUnchecked
            | Self::RejectCreatesCredit
            | Self::FulfillTurnedReject
            | Self::AnsweredTwice
            | Self::HoldLeaked
            | Self::ExpiryKept
            | Self::RoundedUp
            | Self::LimitOffByOne
            | Self::CapLifted
            | Self::KeyRenewed
            | Self::ToldBeforeRecord
            | Self::CreditBeforeRecord
            | Self::CreditKeyForgotten
            | Self::ClaimBeforeRecord
            | Self::ChannelCreditBeforeRecord
            | Self::OlderClaimTaken => None,
        }
    }

    /// One that is made in the channels.
    pub(crate) fn of_channel(self) -> Option<ChannelMutant> {
        (self == Self::OlderClaimTaken).then_some(ChannelMutant::OlderClaimTaken)
    }

    /// Whether it lets something leave that should wait for the disk alone.
    pub(crate) fn lets_out(self, action: &Action) -> bool {
        match action {
            Action::Engine { .. } => self == Self::ToldBeforeRecord,
            Action::Forward { .. } => self == Self::ClaimBeforeRecord,
            Action::Answer { .. } => self == Self::ChannelCreditBeforeRecord,
            Action::Disconnect { .. } | Action::Report(_) => false,
        }
    }
}
