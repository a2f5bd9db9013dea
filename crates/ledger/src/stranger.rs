//! Nodes that nobody invited: tokens that are not listened to, and requests to peer that wait for the
//! operator.

use rialto_packet::{Address, money::Asset};
use serde::{Deserialize, Serialize};

use crate::{
    settings::{Limits, TokenHash},
    text,
};

/// Tokens that are blocked at a time.
pub const BLOCKED_MAX: usize = 1_000;

/// A request to peer, from a node that nobody invited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeeringRequest {
    /// SHA-256 of who asks for what: the same asker may ask again.
    pub hash: TokenHash,
    /// The IPv4 address or IPv6 network that it came from.
    pub from: String,
    /// The asker's address.
    #[serde(with = "text")]
    pub ilp_address: Address,
    /// Where it takes packets by ILP over HTTP.
    pub url: String,
    /// What amounts on the account are to count.
    #[serde(with = "text")]
    pub asset: Asset,
    /// What it calls itself.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// From this instant on (milliseconds since 1970) it is forgotten.
    pub expires_at_ms: i64,
    /// What the operator said to it, if anything so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<PeeringVerdict>,
}

/// What the operator said to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PeeringVerdict {
    /// No; the asker is not told, and does not come before the operator again meanwhile.
    Denied,
    /// When the asker comes again, the account is made.
    Approved {
        /// What it will be called; after the asker, where it is missing.
        name: Option<String>,
        /// What it may do.
        limits: Limits,
    },
}
