//! An invitation as the text that one operator gives another: a prefix, and URL-safe base64 of
//!
//! | Bytes | What |
//! |---|---|
//! | 1 | version, 1 |
//! | 32 | the secret |
//! | 8 | when it expires, milliseconds since 1970 |
//! | 8 | the most that the acceptor may owe, in units; all ones for more than fits |
//! | 1 | scale of the asset |
//! | 4 × (2 + n) | URL of the node listener, address and name of the node, code of the asset: each a length and UTF-8 |
//! | 4 | the beginning of the SHA-256 of all before |
//!
//! Integers are big-endian. The last bytes find letters that were lost on the way; what protects the
//! maker is that only its own record of the invitation counts.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rialto_packet::{Address, money::Asset};
use thiserror::Error;

/// How every invitation begins.
const PREFIX: &str = "rialto_invite_";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Longest text that is looked at, in bytes.
pub const INVITE_TEXT_BYTES_MAX: usize = 6 * 1024;

/// What an invitation says.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteText {
    /// Opens one account, once.
    pub secret: [u8; 32],
    /// Milliseconds since 1970.
    pub expires_at_ms: i64,
    /// The most that the acceptor may owe, in units of the asset.
    pub credit: u64,
    /// What the account counts.
    pub asset: Asset,
    /// The maker's node listener, without a slash at the end.
    pub endpoint: String,
    /// The maker's address.
    pub ilp_address: Address,
    /// The maker's name.
    pub name: String,
}

/// Why a text is no invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InviteTextError {
    /// Something else.
    #[error("is no invite: it begins with rialto_invite_")]
    Prefix,
    /// Letters are missing, or others than they were.
    #[error("is damaged or was changed: copy the whole of it, or ask for a new one")]
    Damaged,
    /// A later one.
    #[error("is of version {0}, which this program does not know: update it")]
    Version(u8),
}

impl InviteText {
    /// The text. The secret is in it.
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.expires_at_ms.to_be_bytes());
        bytes.extend_from_slice(&self.credit.to_be_bytes());
        bytes.push(self.asset.scale());
        let address = self.ilp_address.as_ref().as_str();
        for text in [&self.endpoint, address, &self.name, self.asset.code()] {
            let length = u16::try_from(text.len()).expect("their makers are bounded far below");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&checksum(&bytes));
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a text, with blanks around it or not.
    ///
    /// # Errors
    /// See [`InviteTextError`].
    pub fn decode(text: &str) -> Result<Self, InviteTextError> {
        let encoded = text.trim().strip_prefix(PREFIX);
        let encoded = encoded.ok_or(InviteTextError::Prefix)?;
        if encoded.len() > INVITE_TEXT_BYTES_MAX {
            return Err(InviteTextError::Damaged);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded);
        let bytes = bytes.map_err(|_| InviteTextError::Damaged)?;
        let (all, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(InviteTextError::Damaged)?;
        if checksum(all) != *sum {
            return Err(InviteTextError::Damaged);
        }
        match all.split_first() {
            Some((&VERSION, rest)) => parse(rest).ok_or(InviteTextError::Damaged),
            Some((version, _)) => Err(InviteTextError::Version(*version)),
            None => Err(InviteTextError::Damaged),
        }
    }
}

fn parse(mut bytes: &[u8]) -> Option<InviteText> {
    let secret = *take(&mut bytes)?;
    let expires_at_ms = i64::from_be_bytes(*take(&mut bytes)?);
    let credit = u64::from_be_bytes(*take(&mut bytes)?);
    let [scale] = *take(&mut bytes)?;
    let mut text = || {
        let length = usize::from(u16::from_be_bytes(*take(&mut bytes)?));
        let (text, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        std::str::from_utf8(text).ok()
    };
    let (endpoint, address, name, code) = (text()?, text()?, text()?, text()?);
    bytes.is_empty().then_some(())?;
    Some(InviteText {
        secret,
        expires_at_ms,
        credit,
        asset: Asset::new(code, scale).ok()?,
        endpoint: endpoint.to_owned(),
        ilp_address: address.parse().ok()?,
        name: name.to_owned(),
    })
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = digest(&SHA256, bytes);
    *digest
        .as_ref()
        .first_chunk()
        .expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> InviteText {
        InviteText {
            secret: [7; 32],
            expires_at_ms: 1_900_000_000_000,
            credit: 1_000_000_000_000,
            asset: "USD/9".parse().unwrap(),
            endpoint: "https://hub.example".to_owned(),
            ilp_address: "g.hub".parse().unwrap(),
            name: "hub".to_owned(),
        }
    }

    #[test]
    fn an_invite_is_read_as_it_was_written() {
        let text = invite().encode();
        assert!(text.len() < 150, "{text}");
        assert!(InviteText::decode(&format!(" {text}\n")).unwrap() == invite());
    }

    #[test]
    fn one_letter_that_differs_or_is_missing_is_found() {
        let text = invite().encode();
        let mut tried = 0;
        for at in 0..text.len() {
            for letter in ["A", "B", "_", "-", "é", ""] {
                let changed = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
                if changed != text {
                    tried += 1;
                    assert!(InviteText::decode(&changed).is_err(), "{changed}");
                }
            }
            assert!(InviteText::decode(&text[..at]).is_err());
        }
        println!(
            "reliability: invite | {tried} invites with one letter changed or lost | 0 were taken for good"
        );
    }

    #[test]
    fn no_bytes_behind_a_good_checksum_make_it_panic() {
        let all = BASE64_URL_SAFE_NO_PAD
            .decode(&invite().encode()[PREFIX.len()..])
            .unwrap();
        let body = &all[..all.len() - CHECKSUM_BYTES];
        let decode = |bytes: &[u8]| {
            let bytes = [bytes, &checksum(bytes)].concat();
            InviteText::decode(&format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
        };
        for length in 0..body.len() {
            assert!(decode(&body[..length]).is_err(), "{length}");
        }
        assert!(decode(&[body, b"x"].concat()).is_err());
        for at in 0..body.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut changed = body.to_vec();
                changed[at] = byte;
                let _ = decode(&changed);
            }
        }
        let later = [&[2], &body[1..]].concat();
        assert!(decode(&later).err() == Some(InviteTextError::Version(2)));
    }
}
