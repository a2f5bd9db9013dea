//! Keys, sealing and fulfillments of a STREAM connection (RFC 29, section 4.2).

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    hmac,
};
use rand_core::Rng;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of the initialisation vector, which comes first on the wire.
pub const IV_BYTES: usize = NONCE_LEN;
/// Bytes of the authentication tag, which STREAM puts before the ciphertext.
pub const TAG_BYTES: usize = 16;

/// The 32 bytes that make two parties a connection. Never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl SharedSecret {
    /// As agreed with the other party.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// What is derived from the shared secret: the same for both directions.
pub struct Keys {
    encryption: LessSafeKey,
    fulfillment: hmac::Key,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// From a shared secret of any length; SPSP gives 32 bytes.
    pub fn new(shared_secret: &[u8]) -> Self {
        let mut encryption = hmac_sha256(shared_secret, b"ilp_stream_encryption");
        let mut fulfillment = hmac_sha256(shared_secret, b"ilp_stream_fulfillment");
        let keys = Self {
            encryption: aead_key(&encryption),
            fulfillment: hmac::Key::new(hmac::HMAC_SHA256, &fulfillment),
        };
        encryption.zeroize();
        fulfillment.zeroize();
        keys
    }

    /// Encrypts under a fresh IV: `IV || tag || ciphertext`, the data of an ILP packet.
    pub fn seal(&self, rng: &mut impl Rng, plaintext: &[u8]) -> Vec<u8> {
        let mut iv = [0; IV_BYTES];
        rng.fill_bytes(&mut iv);
        self.seal_with(iv, plaintext)
    }

    /// An IV may never be used twice with one key, so choosing it is not for other crates.
    pub(crate) fn seal_with(&self, iv: [u8; IV_BYTES], plaintext: &[u8]) -> Vec<u8> {
        seal_tag_first(&self.encryption, iv, &[], plaintext)
    }

    /// The plaintext, or `None` when the data was not made with these keys.
    pub fn open(&self, data: &[u8]) -> Option<Vec<u8>> {
        open_tag_first(&self.encryption, &[], data)
    }

    /// What fulfills a Prepare with this data.
    pub fn fulfillment(&self, data: &[u8]) -> [u8; 32] {
        tag_bytes(&hmac::sign(&self.fulfillment, data))
    }
}

/// The condition that `fulfillment` fulfills.
pub fn condition(fulfillment: &[u8; 32]) -> [u8; 32] {
    sha256(fulfillment)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 gives 32 bytes")
}

pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    tag_bytes(&hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, key),
        message,
    ))
}

fn tag_bytes(tag: &hmac::Tag) -> [u8; 32] {
    tag.as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
}

pub(crate) fn aead_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes"))
}

/// `IV || tag || ciphertext`.
pub(crate) fn seal_tag_first(
    key: &LessSafeKey,
    iv: [u8; IV_BYTES],
    context: &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    let mut data = Vec::with_capacity(IV_BYTES + TAG_BYTES + plaintext.len());
    data.extend_from_slice(&iv);
    data.extend_from_slice(&[0; TAG_BYTES]);
    data.extend_from_slice(plaintext);
    let tag = key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(context),
            &mut data[IV_BYTES + TAG_BYTES..],
        )
        .expect("packets are far below the cipher's limit of 64 GiB");
    data[IV_BYTES..IV_BYTES + TAG_BYTES].copy_from_slice(tag.as_ref());
    data
}

/// The inverse of [`seal_tag_first`]; `None` when anything was changed or is missing.
pub(crate) fn open_tag_first(key: &LessSafeKey, context: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let (iv, rest) = data.split_first_chunk::<IV_BYTES>()?;
    let (tag, ciphertext) = rest.split_first_chunk::<TAG_BYTES>()?;
    let mut plaintext = vec![0; ciphertext.len()];
    key.open_separate_gather(
        Nonce::assume_unique_for_key(*iv),
        Aad::from(context),
        ciphertext,
        tag,
        &mut plaintext,
    )
    .ok()?;
    Some(plaintext)
}
