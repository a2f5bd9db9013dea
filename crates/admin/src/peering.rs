//! What is known about neighbours beside the books. Soft: gone with the process.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why an invitation was not taken, here or by this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteRefused {
    /// There is none with its secret.
    Unknown,
    /// It came too late.
    Expired,
    /// Another was quicker.
    Used,
    /// It was cut off or changed on its way.
    Damaged,
    /// No account can be made for who asks.
    Account,
}

impl InviteRefused {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Expired,
        Self::Used,
        Self::Damaged,
        Self::Account,
    ];

    /// For metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::Damaged => "damaged",
            Self::Account => "account",
        }
    }
}

/// Kept by the node for as long as it runs.
#[derive(Debug, Default)]
pub struct Peering {
    invites_refused: [AtomicU64; InviteRefused::ALL.len()],
}

impl Peering {
    pub(crate) fn refused_invite(&self, reason: InviteRefused) {
        self.invites_refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were refused for each reason.
    pub(crate) fn invites_refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.invites_refused.iter();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        InviteRefused::ALL.iter().map(|of| of.word()).zip(counts)
    }
}
