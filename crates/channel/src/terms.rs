//! What two sides agree on when they open a channel.

use std::{fmt, str::FromStr};

use rialto_packet::{
    money::Asset,
    oer::{self, OerError, Reader},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::{sign::sha256, text};

/// Fixed-width bytes that are written as hex digits.
macro_rules! hex_bytes {
    ($(#[$docs:meta])* $name:ident, $len:literal) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| format!("must be {} hex digits", 2 * $len))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                text::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text::deserialize(deserializer)
            }
        }
    };
}

hex_bytes!(
    /// Names a channel; drawn at random by whoever opens it.
    ChannelId,
    16
);
hex_bytes!(
    /// An Ed25519 public key: who a node is on its channels.
    PublicKey,
    32
);
hex_bytes!(
    /// An Ed25519 signature.
    Signature,
    64
);
hex_bytes!(
    /// A SHA-256 digest.
    Digest,
    32
);

impl ChannelId {
    /// Of frames that belong to no channel: greetings.
    pub const NONE: Self = Self([0; 16]);
}

/// What kind of channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// One side keeps the ledger and may owe; the other holds an account on it.
    #[serde(rename = "asymmetrical")]
    AsymmetricalTrustline,
    /// Both keep it together, and either may owe.
    #[serde(rename = "symmetrical")]
    SymmetricalTrustline,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::AsymmetricalTrustline, Self::SymmetricalTrustline];

    /// The number of it in frames and in what is signed.
    pub fn code(self) -> u8 {
        match self {
            Self::AsymmetricalTrustline => 1,
            Self::SymmetricalTrustline => 2,
        }
    }

    /// The kind with this number.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AsymmetricalTrustline => "asymmetrical",
            Self::SymmetricalTrustline => "symmetrical",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One of the two sides of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Proposed the channel.
    Opener,
    /// Was asked.
    Accepter,
}

impl Side {
    /// The one across.
    pub fn other(self) -> Self {
        match self {
            Self::Opener => Self::Accepter,
            Self::Accepter => Self::Opener,
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Opener => 0,
            Self::Accepter => 1,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opener => "opener",
            Self::Accepter => "accepter",
        })
    }
}

/// The most that each side may owe the other over the channel, in units of its asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Of the opener's debt.
    #[serde(with = "text")]
    pub opener: u64,
    /// Of the accepter's debt.
    #[serde(with = "text")]
    pub accepter: u64,
    /// Counts the changes.
    pub revision: u32,
}

impl Limits {
    /// That of one side's debt.
    pub fn of(&self, side: Side) -> u64 {
        match side {
            Side::Opener => self.opener,
            Side::Accepter => self.accepter,
        }
    }
}

/// Why terms make no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TermsError {
    /// Both limits are zero.
    #[error("a channel on which neither side may owe anything can carry no payment: set a limit")]
    NoLimit,
    /// Both sides of an asymmetrical trustline may owe.
    #[error(
        "on an asymmetrical trustline only the side that keeps the ledger owes: one of the two limits must be 0"
    )]
    TwoKeepers,
    /// One node on both sides.
    #[error("both sides have the same key")]
    SameKey,
    /// The side that keeps the ledger would change.
    #[error("the side that keeps the ledger cannot change: open a channel the other way round")]
    OtherKeeper,
}

/// What was agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// What kind of channel.
    pub kind: Kind,
    /// What amounts count.
    #[serde(with = "text")]
    pub asset: Asset,
    /// The key of the side that proposed it.
    pub opener: PublicKey,
    /// The key of the other.
    pub accepter: PublicKey,
    /// How much may be owed.
    pub limits: Limits,
}

impl Terms {
    /// Whether they make sense.
    pub fn check(&self) -> Result<(), TermsError> {
        let Limits {
            opener, accepter, ..
        } = self.limits;
        if opener == 0 && accepter == 0 {
            return Err(TermsError::NoLimit);
        }
        if self.kind == Kind::AsymmetricalTrustline && opener > 0 && accepter > 0 {
            return Err(TermsError::TwoKeepers);
        }
        if self.opener == self.accepter {
            return Err(TermsError::SameKey);
        }
        Ok(())
    }

    /// The same with other limits.
    pub(crate) fn with(&self, limits: Limits) -> Result<Self, TermsError> {
        let terms = Self {
            limits,
            ..self.clone()
        };
        terms.check()?;
        if terms.keeper() != self.keeper() {
            return Err(TermsError::OtherKeeper);
        }
        Ok(terms)
    }

    /// The side that keeps the ledger of an asymmetrical trustline.
    pub fn keeper(&self) -> Option<Side> {
        match self.kind {
            Kind::AsymmetricalTrustline if self.limits.opener > 0 => Some(Side::Opener),
            Kind::AsymmetricalTrustline => Some(Side::Accepter),
            Kind::SymmetricalTrustline => None,
        }
    }

    /// The key of one side.
    pub fn key_of(&self, side: Side) -> &PublicKey {
        match side {
            Side::Opener => &self.opener,
            Side::Accepter => &self.accepter,
        }
    }

    /// Names them in everything that is signed.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(128);
        oer::put_var_octets(&mut bytes, b"rialto channel 1 terms");
        self.encode(&mut bytes);
        sha256(&bytes)
    }

    /// Appends their bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind.code());
        oer::put_var_octets(out, self.asset.code().as_bytes());
        out.push(self.asset.scale());
        out.extend_from_slice(&self.opener.0);
        out.extend_from_slice(&self.accepter.0);
        encode_limits(&self.limits, out);
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let kind = reader.u8()?;
        let kind = Kind::of_code(kind).ok_or(ParseError::Kind(kind))?;
        let code = std::str::from_utf8(reader.var_octets()?).map_err(|_| ParseError::Asset)?;
        let asset = Asset::new(code, reader.u8()?).map_err(|_| ParseError::Asset)?;
        Ok(Self {
            kind,
            asset,
            opener: PublicKey(reader.array()?),
            accepter: PublicKey(reader.array()?),
            limits: parse_limits(reader)?,
        })
    }
}

pub(crate) enum ParseError {
    Oer(OerError),
    Kind(u8),
    Asset,
}

impl From<OerError> for ParseError {
    fn from(error: OerError) -> Self {
        Self::Oer(error)
    }
}

pub(crate) fn encode_limits(limits: &Limits, out: &mut Vec<u8>) {
    out.extend_from_slice(&limits.opener.to_be_bytes());
    out.extend_from_slice(&limits.accepter.to_be_bytes());
    out.extend_from_slice(&limits.revision.to_be_bytes());
}

pub(crate) fn parse_limits(reader: &mut Reader<'_>) -> Result<Limits, OerError> {
    Ok(Limits {
        opener: reader.u64()?,
        accepter: reader.u64()?,
        revision: reader.u32()?,
    })
}
