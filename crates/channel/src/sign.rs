//! What is signed, byte by byte, and by whom.
//!
//! Every signed message begins with its own words, so that none can be taken for another, and names
//! kind, channel, both keys, asset and terms, so that none can be moved elsewhere.

use std::fmt;

use aws_lc_rs::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use rialto_packet::oer;
use serde::{Deserialize, Serialize};

use crate::{
    terms::{ChannelId, Digest, PublicKey, Side, Signature, Terms},
    text,
};

/// The key pair by which a node signs on its channels.
pub struct ChannelKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
    /// A fault put in on purpose.
    #[cfg(feature = "mutants")]
    pub mutant: Option<ChannelMutant>,
}

/// A fault of the channels, put in on purpose (docs/design/simulation.md). Builds for users have none.
#[cfg(feature = "mutants")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelMutant {
    /// A claim below the last one is taken, as if the counter had begun anew.
    OlderClaimTaken,
}

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelKey({})", self.public)
    }
}

impl ChannelKey {
    /// From its secret seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes");
        let public = pair.public_key().as_ref();
        let public = PublicKey(public.try_into().expect("an Ed25519 key has 32 bytes"));
        Self {
            pair,
            public,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// What others know of it.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Under the text of an account statement.
    pub fn sign_statement(&self, text: &[u8]) -> Signature {
        self.sign(&account_statement(text))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.pair.sign(message);
        let bytes = signature.as_ref().try_into();
        Signature(bytes.expect("an Ed25519 signature has 64 bytes"))
    }
}

impl PublicKey {
    /// Whether this key signed the text of an account statement.
    pub fn verifies_statement(&self, text: &[u8], signature: &Signature) -> bool {
        self.verifies(&account_statement(text), signature)
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, &signature.0).is_ok()
    }
}

/// What a node signs under an account statement.
fn account_statement(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 32);
    oer::put_var_octets(&mut out, b"rialto account statement");
    out.extend_from_slice(text);
    out
}

impl Digest {
    /// SHA-256 of the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        sha256(bytes)
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let digest = digest::digest(&digest::SHA256, bytes);
    Digest(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}

/// The word of the side that keeps the ledger of an asymmetrical trustline: how the account on it
/// came to where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// All that was ever credited to the holder.
    #[serde(with = "text")]
    pub credited: u64,
    /// All that the holder ever ordered to be debited.
    #[serde(with = "text")]
    pub debited: u64,
    /// The terms at that time.
    pub terms: Digest,
    /// The keeper's.
    pub signature: Signature,
}

/// How a channel ended in agreement, as one side signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Final {
    /// All that the opener paid.
    #[serde(with = "text")]
    pub opener_paid: u64,
    /// All that the accepter paid.
    #[serde(with = "text")]
    pub accepter_paid: u64,
    /// Whoever said so.
    pub signature: Signature,
}

impl Final {
    /// Whether both say the same.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        (self.opener_paid, self.accepter_paid) == (other.opener_paid, other.accepter_paid)
    }
}

/// What all signed messages of a channel have in common.
fn message(words: &str, id: ChannelId, terms: &Terms, digest: Digest) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    oer::put_var_octets(&mut out, words.as_bytes());
    out.push(terms.kind.code());
    out.extend_from_slice(&id.0);
    out.extend_from_slice(&terms.opener.0);
    out.extend_from_slice(&terms.accepter.0);
    oer::put_var_octets(&mut out, terms.asset.code().as_bytes());
    out.push(terms.asset.scale());
    out.extend_from_slice(&digest.0);
    out
}

/// That a side agrees to the terms.
pub(crate) fn agreement(id: ChannelId, terms: &Terms, side: Side) -> Vec<u8> {
    let mut out = message("rialto channel 1 agreement", id, terms, terms.digest());
    out.push(side.code());
    out
}

/// That the payer has paid so much over all time, on a symmetrical trustline.
pub(crate) fn claim(
    id: ChannelId,
    terms: &Terms,
    digest: Digest,
    payer: Side,
    total: u64,
) -> Vec<u8> {
    let mut out = message("rialto channel 1 claim", id, terms, digest);
    out.push(payer.code());
    out.extend_from_slice(&total.to_be_bytes());
    out
}

/// That the holder orders a transfer to the keeper.
pub(crate) fn order(
    id: ChannelId,
    terms: &Terms,
    digest: Digest,
    number: u64,
    amount: u64,
    total: u64,
) -> Vec<u8> {
    let mut out = message("rialto channel 1 order", id, terms, digest);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&amount.to_be_bytes());
    out.extend_from_slice(&total.to_be_bytes());
    out
}

/// The keeper's word.
pub(crate) fn word(
    id: ChannelId,
    terms: &Terms,
    digest: Digest,
    credited: u64,
    debited: u64,
) -> Vec<u8> {
    let mut out = message("rialto channel 1 word", id, terms, digest);
    out.extend_from_slice(&credited.to_be_bytes());
    out.extend_from_slice(&debited.to_be_bytes());
    out
}

/// How the channel ended.
pub(crate) fn ending(
    id: ChannelId,
    terms: &Terms,
    side: Side,
    opener_paid: u64,
    accepter_paid: u64,
) -> Vec<u8> {
    let mut out = message("rialto channel 1 final", id, terms, terms.digest());
    out.push(side.code());
    out.extend_from_slice(&opener_paid.to_be_bytes());
    out.extend_from_slice(&accepter_paid.to_be_bytes());
    out
}

/// All of a statement, by whoever wrote it.
pub(crate) fn statement(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    oer::put_var_octets(&mut out, b"rialto channel 1 statement");
    out.extend_from_slice(&sha256(json).0);
    out
}
