//! Receipts: what a receiver signs so that a sender can prove payment to a third party (RFC 39).

use std::fmt;

use aws_lc_rs::hmac;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::crypto::hmac_sha256;

/// Bytes of a receipt.
pub const RECEIPT_BYTES: usize = 58;
/// The only version there is.
const VERSION: u8 = 1;
/// Bytes that the signature covers.
const SIGNED_BYTES: usize = 26;

/// What a verifier shares with a receiver, never with the sender. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceiptSecret(Zeroizing<[u8; 32]>);

impl ReceiptSecret {
    /// As the verifier chose it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ReceiptSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptSecret(..)")
    }
}

/// What a verifier hands to a receiver before a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptDetails {
    /// Names the payment to the verifier.
    pub nonce: [u8; 16],
    /// Signs its receipts.
    pub secret: ReceiptSecret,
}

/// "On this stream, so much has arrived in all."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Names the payment to the verifier.
    pub nonce: [u8; 16],
    /// Streams above 255 have no receipts.
    pub stream_id: u8,
    /// Units of the receiver's asset since the stream was opened.
    pub total_received: u64,
}

/// Why bytes are no valid receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// Not [`RECEIPT_BYTES`] long.
    #[error("a receipt has 58 bytes, not {0}")]
    Length(usize),
    /// Not version 1.
    #[error("receipt version {0} is not known")]
    Version(u8),
    /// Signed with another secret, or changed.
    #[error("receipt signature does not match")]
    Signature,
}

impl Receipt {
    /// Signed.
    pub fn encode(&self, secret: &ReceiptSecret) -> [u8; RECEIPT_BYTES] {
        let mut bytes = [0; RECEIPT_BYTES];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(&self.nonce);
        bytes[17] = self.stream_id;
        bytes[18..SIGNED_BYTES].copy_from_slice(&self.total_received.to_be_bytes());
        let signature = hmac_sha256(secret.as_bytes(), &bytes[..SIGNED_BYTES]);
        bytes[SIGNED_BYTES..].copy_from_slice(&signature);
        bytes
    }

    /// Reads the fields *without* checking the signature: to find the secret by the nonce, or to
    /// compare totals.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let bytes: &[u8; RECEIPT_BYTES] = bytes
            .try_into()
            .map_err(|_| ReceiptError::Length(bytes.len()))?;
        if bytes[0] != VERSION {
            return Err(ReceiptError::Version(bytes[0]));
        }
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&bytes[1..17]);
        let mut total = [0; 8];
        total.copy_from_slice(&bytes[18..SIGNED_BYTES]);
        Ok(Self {
            nonce,
            stream_id: bytes[17],
            total_received: u64::from_be_bytes(total),
        })
    }

    /// Reads the fields and checks the signature, in constant time.
    pub fn verify(bytes: &[u8], secret: &ReceiptSecret) -> Result<Self, ReceiptError> {
        let receipt = Self::parse(bytes)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::verify(&key, &bytes[..SIGNED_BYTES], &bytes[SIGNED_BYTES..])
            .map_err(|_| ReceiptError::Signature)?;
        Ok(receipt)
    }
}
