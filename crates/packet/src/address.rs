//! ILP addresses and address prefixes (RFC 15).
//!
//! An address names where packets go and has at least one segment after its scheme; a [`Prefix`] is
//! what routes are made for. Both are compared as bytes, segment by segment; case matters.
//!
//! ```
//! use rialto_packet::{Addr, AddressError, Prefix};
//!
//! let alice = Addr::new("g.acme.alice")?;
//! assert_eq!(alice.scheme(), "g");
//! assert_eq!(alice.strip_prefix("g.acme"), Some("alice"));
//!
//! let scheme: Prefix = "g".parse()?;
//! assert!(alice.starts_with(scheme.as_str()));
//! assert_eq!(Addr::new("g"), Err(AddressError::NoSegment));
//! # Ok::<(), AddressError>(())
//! ```

use std::{fmt, str::FromStr};

use smol_str::{SmolStr, SmolStrBuilder};
use thiserror::Error;

/// Longest address in bytes.
pub const ADDRESS_BYTES_MAX: usize = 1023;

/// Schemes an address may begin with.
const SCHEMES: [&str; 10] = [
    "g", "private", "example", "peer", "self", "test", "test1", "test2", "test3", "local",
];

/// Why a text is not an address or prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Longer than [`ADDRESS_BYTES_MAX`].
    #[error("longer than 1023 characters")]
    TooLong,
    /// The first segment is not an allocation scheme.
    #[error(
        "must begin with one of g, private, example, peer, self, test, test1, test2, test3, local"
    )]
    Scheme,
    /// Only a scheme, or nothing.
    #[error("needs at least one segment after the scheme")]
    NoSegment,
    /// An empty segment or a character outside `A-Z a-z 0-9 _ ~ -`.
    #[error("segments must be one or more of A-Z, a-z, 0-9, '_', '~' and '-'")]
    Segment,
}

/// A valid address, borrowed: `g.acme.alice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr<'a>(&'a str);

impl<'a> Addr<'a> {
    /// Checks the grammar of RFC 15.
    pub fn new(text: &'a str) -> Result<Self, AddressError> {
        Self::from_bytes(text.as_bytes())
    }

    /// The same over bytes, as they stand in packets.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, AddressError> {
        let scheme_len = bytes.iter().position(|byte| *byte == b'.');
        let text = check_prefix(bytes)?;
        if scheme_len.is_none() {
            return Err(AddressError::NoSegment);
        }
        Ok(Self(text))
    }

    /// Bytes that [`Self::from_bytes`] took before.
    pub(crate) fn from_checked(bytes: &'a [u8]) -> Self {
        Self(std::str::from_utf8(bytes).expect("an address is ASCII"))
    }

    /// As text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The first segment.
    pub fn scheme(self) -> &'a str {
        let end = self.0.bytes().position(|byte| byte == b'.');
        &self.0[..end.unwrap_or(self.0.len())]
    }

    /// What follows `prefix` and its dot: `Some("x.y")` for `g.a.x.y` after `g.a`, `Some("")` for
    /// `g.a` itself, `None` when `prefix` does not match on segment boundaries.
    pub fn strip_prefix(self, prefix: &str) -> Option<&'a str> {
        if prefix.is_empty() {
            return Some(self.0);
        }
        let rest = self.0.strip_prefix(prefix)?;
        if rest.is_empty() {
            Some(rest)
        } else {
            rest.strip_prefix('.')
        }
    }

    /// Whether it is under `prefix`, or `prefix` itself, on segment boundaries.
    pub fn starts_with(self, prefix: &str) -> bool {
        self.strip_prefix(prefix).is_some()
    }

    /// An owned copy.
    pub fn to_owned(self) -> Address {
        Address(SmolStr::new(self.0))
    }
}

impl fmt::Display for Addr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A valid address, owned; cheap to clone.
///
/// ```
/// use rialto_packet::Address;
///
/// let node: Address = "g.acme".parse()?;
/// let alice = node.child("alice")?;
/// assert_eq!(alice.as_str(), "g.acme.alice");
/// assert!(alice.as_ref().starts_with("g.acme"));
/// assert!(!alice.as_ref().starts_with("g.ac"));
/// assert!("g..alice".parse::<Address>().is_err());
/// # Ok::<(), rialto_packet::AddressError>(())
/// ```
///
/// Up to 23 bytes it is kept in place: a node may have a million of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(SmolStr);

impl Address {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Borrowed.
    #[allow(clippy::should_implement_trait)] // AsRef cannot give a type with a lifetime.
    pub fn as_ref(&self) -> Addr<'_> {
        Addr(&self.0)
    }

    /// This address with `segments` (one or more, joined by dots) after it.
    pub fn child(&self, segments: &str) -> Result<Self, AddressError> {
        let mut text = SmolStrBuilder::new();
        for part in [&self.0, ".", segments] {
            text.push_str(part);
        }
        let text = text.finish();
        Addr::new(&text)?;
        Ok(Self(text))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Addr::new(text).map(Addr::to_owned)
    }
}

impl From<Address> for SmolStr {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.0)
    }
}

/// What a route applies to: an address, a bare scheme (`g`), or nothing at all (the default route).
///
/// One trailing dot is accepted and dropped: `g.` is `g`.
///
/// ```
/// use rialto_packet::{Address, Prefix};
///
/// let prefix: Prefix = "g.acme.".parse()?;
/// assert_eq!(prefix.as_str(), "g.acme");
/// assert_eq!(prefix, Prefix::from(&"g.acme".parse::<Address>()?));
/// assert_eq!("".parse(), Ok(Prefix::everything()));
/// # Ok::<(), rialto_packet::AddressError>(())
/// ```
///
/// Up to 23 bytes it is kept in place: a node may have a million of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(SmolStr);

impl Prefix {
    /// The prefix of everything.
    pub fn everything() -> Self {
        Self("".into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of a prefix as its bytes stand in a message, without the one trailing dot.
    pub fn check(bytes: &[u8]) -> Result<&str, AddressError> {
        if bytes.is_empty() {
            return Ok("");
        }
        check_prefix(bytes.strip_suffix(b".").unwrap_or(bytes))
    }
}

impl FromStr for Prefix {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::check(text.as_bytes()).map(|text| Self(text.into()))
    }
}

impl From<&Address> for Prefix {
    fn from(address: &Address) -> Self {
        Self(address.0.clone())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({})", self.0)
    }
}

/// Whether `text` can be one segment of an address.
pub fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| SEGMENT_BYTE[usize::from(byte)])
}

/// A scheme and any number of segments.
fn check_prefix(bytes: &[u8]) -> Result<&str, AddressError> {
    if bytes.len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    let scheme_len = bytes
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(bytes.len());
    if !SCHEMES
        .iter()
        .any(|scheme| scheme.as_bytes() == &bytes[..scheme_len])
    {
        return Err(AddressError::Scheme);
    }
    let mut after_dot = false;
    for byte in &bytes[scheme_len..] {
        let dot = *byte == b'.';
        if (dot && after_dot) || !(dot || SEGMENT_BYTE[usize::from(*byte)]) {
            return Err(AddressError::Segment);
        }
        after_dot = dot;
    }
    if after_dot {
        return Err(AddressError::Segment);
    }
    Ok(std::str::from_utf8(bytes).expect("only ASCII was let through"))
}

/// Which bytes a segment may hold.
const SEGMENT_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)] // the loop ends at 256
        let character = byte as u8;
        table[byte] = character.is_ascii_alphanumeric() || matches!(character, b'_' | b'~' | b'-');
        byte += 1;
    }
    table
};
