//! Invitations to peer: one account that a stranger may open, once.

use rialto_packet::money::Asset;
use serde::{Deserialize, Serialize};

use crate::{
    settings::{AccountId, Limits, TokenHash},
    text,
};

/// Invitations that are remembered, those that were used or have expired among them.
pub const INVITES_MAX: usize = 1_000;

/// An invitation as its maker keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// SHA-256 of its secret; the secret itself is not kept.
    pub hash: TokenHash,
    /// What the account will be called; after the node that accepts, where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What amounts on the account will count.
    #[serde(with = "text")]
    pub asset: Asset,
    /// What the account may do.
    #[serde(default)]
    pub limits: Limits,
    /// Routes are to be set by hand, and not exchanged as with any peer.
    #[serde(default, skip_serializing_if = "text::is_default")]
    pub without_routes: bool,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// From this instant on (milliseconds since 1970) nobody can accept it.
    pub expires_at_ms: i64,
    /// Who accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<InviteUse>,
}

/// How an invitation was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteUse {
    /// The account that was made.
    pub account: AccountId,
    /// SHA-256 of what was asked for: the same asker may ask again when the answer was lost.
    pub request: TokenHash,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}
