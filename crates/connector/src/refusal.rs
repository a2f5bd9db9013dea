//! Why a packet was not forwarded or not fulfilled: one closed set and one table.

use rialto_packet::{Addr, ErrorCode, PacketError, RejectBuilder, f08::AmountTooLarge};

/// Stable words for refusals: metric label, log field, first word of the reject's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The request carried no token.
    AuthMissing,
    /// The token opens no account.
    AuthUnknownToken,
    /// The token opened an account once.
    AuthExpiredToken,
    /// The packet is not well-formed.
    PacketMalformed,
    /// The packet had expired when it came in.
    PacketExpired,
    /// The packet, frame or body is larger than the protocol allows.
    PacketTooLarge,
    /// The destination is not one that packets can be sent to.
    AddressInvalid,
    /// No route leads to the destination.
    RouteNone,
    /// The route leads back to where the packet came from.
    RouteLoop,
    /// No rate between the two assets is known.
    RateNone,
    /// The rate is too old.
    RateStale,
    /// The amount converts to nothing.
    RoundsToZero,
    /// The converted amount does not fit 64 bits.
    Overflow,
    /// The account is paused.
    AccountPaused,
    /// The amount is above the account's largest packet.
    PacketLimit,
    /// The account's credit is used up.
    CreditLimit,
    /// Too much is in flight or not yet safe on disk.
    UnsyncedCap,
    /// Too much is in flight.
    InFlightLimit,
    /// Too many packets a minute.
    RateLimit,
    /// Too much a minute.
    AmountRateLimit,
    /// Too little time is left.
    ExpiryTooSoon,
    /// No answer came in time.
    ExpiryTimedOut,
    /// The next hop's host name does not resolve.
    LinkDns,
    /// The next hop does not accept connections.
    LinkConnect,
    /// No TLS session with the next hop.
    LinkTls,
    /// The next hop answered 401.
    LinkHttp401,
    /// The next hop answered 403.
    LinkHttp403,
    /// The next hop answered 404.
    LinkHttp404,
    /// The next hop answered 413.
    LinkHttp413,
    /// The next hop answered 429.
    LinkHttp429,
    /// The next hop answered 5xx.
    LinkHttp5xx,
    /// The next hop's answer is of another content type.
    LinkContentType,
    /// The next hop's answer is no ILP packet.
    LinkBadReply,
    /// The next hop did not take the packet in time.
    LinkTimeout,
    /// There is no connection to the next hop.
    LinkClosed,
    /// The next hop's fulfillment does not match the condition.
    ConditionMismatch,
    /// The next hop, or one after it, rejected.
    PeerReject,
    /// The node is shutting down.
    Drain,
    /// The node has too much to do.
    Overload,
    /// The node made a mistake.
    Internal,
}

/// How a link can fail to deliver. Each is a [`Reason`] of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkFailure {
    /// The host name does not resolve.
    Dns,
    /// No connection.
    Connect,
    /// No TLS session.
    Tls,
    /// The peer answered with this status, which is neither 200 nor one a peer should send.
    Http(u16),
    /// The answer is of another content type.
    ContentType,
    /// The answer is no ILP packet, or a BTP error.
    BadReply,
    /// It did not take the packet in time.
    Timeout,
    /// There is no connection; the packet was surely not sent.
    Closed,
}

impl LinkFailure {
    /// The reason to count and to tell.
    pub fn reason(self) -> Reason {
        match self {
            Self::Dns => Reason::LinkDns,
            Self::Connect => Reason::LinkConnect,
            Self::Tls => Reason::LinkTls,
            Self::Http(401) => Reason::LinkHttp401,
            Self::Http(403) => Reason::LinkHttp403,
            Self::Http(404) => Reason::LinkHttp404,
            Self::Http(413) => Reason::LinkHttp413,
            Self::Http(429) => Reason::LinkHttp429,
            Self::Http(500..=599) => Reason::LinkHttp5xx,
            Self::Http(_) | Self::BadReply => Reason::LinkBadReply,
            Self::ContentType => Reason::LinkContentType,
            Self::Timeout => Reason::LinkTimeout,
            Self::Closed => Reason::LinkClosed,
        }
    }
}

/// Whether a refusal is everyday traffic or something that an operator should see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Senders do such things.
    Debug,
    /// Something in our own set-up, or at a peer, needs a hand.
    Warn,
}

/// What is known of a reason.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Stable word.
    pub word: &'static str,
    /// ILP error code that the sender sees.
    pub code: ErrorCode,
    /// General text that the sender sees: no names, amounts or limits of anybody else.
    pub message: &'static str,
    /// For the log.
    pub level: Level,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 40] = {
        use Reason::*;
        [
            AuthMissing,
            AuthUnknownToken,
            AuthExpiredToken,
            PacketMalformed,
            PacketExpired,
            PacketTooLarge,
            AddressInvalid,
            RouteNone,
            RouteLoop,
            RateNone,
            RateStale,
            RoundsToZero,
            Overflow,
            AccountPaused,
            PacketLimit,
            CreditLimit,
            UnsyncedCap,
            InFlightLimit,
            RateLimit,
            AmountRateLimit,
            ExpiryTooSoon,
            ExpiryTimedOut,
            LinkDns,
            LinkConnect,
            LinkTls,
            LinkHttp401,
            LinkHttp403,
            LinkHttp404,
            LinkHttp413,
            LinkHttp429,
            LinkHttp5xx,
            LinkContentType,
            LinkBadReply,
            LinkTimeout,
            LinkClosed,
            ConditionMismatch,
            PeerReject,
            Drain,
            Overload,
            Internal,
        ]
    };

    /// The table.
    pub const fn row(self) -> Row {
        use ErrorCode as C;
        use Level::{Debug, Warn};
        let (word, code, message, level) = match self {
            Self::AuthMissing => ("auth.missing", C::F00_BAD_REQUEST, "not authorized", Debug),
            Self::AuthUnknownToken => (
                "auth.unknown_token",
                C::F00_BAD_REQUEST,
                "not authorized",
                Debug,
            ),
            Self::AuthExpiredToken => (
                "auth.expired_token",
                C::F00_BAD_REQUEST,
                "not authorized",
                Debug,
            ),
            Self::PacketMalformed => (
                "pkt.malformed",
                C::F01_INVALID_PACKET,
                "packet is not well-formed",
                Debug,
            ),
            Self::PacketExpired => (
                "pkt.expired",
                C::R00_TRANSFER_TIMED_OUT,
                "packet had expired on arrival",
                Debug,
            ),
            Self::PacketTooLarge => (
                "pkt.too_large",
                C::F01_INVALID_PACKET,
                "packet is larger than the protocol allows",
                Debug,
            ),
            Self::AddressInvalid => (
                "addr.invalid",
                C::F01_INVALID_PACKET,
                "destination is not an address that packets can be sent to",
                Debug,
            ),
            Self::RouteNone => (
                "route.none",
                C::F02_UNREACHABLE,
                "no route to the destination",
                Debug,
            ),
            Self::RouteLoop => (
                "route.loop",
                C::F02_UNREACHABLE,
                "the route leads back to where the packet came from",
                Debug,
            ),
            Self::RateNone => (
                "fx.no_rate",
                C::T00_INTERNAL_ERROR,
                "no exchange rate",
                Warn,
            ),
            Self::RateStale => (
                "fx.stale",
                C::T00_INTERNAL_ERROR,
                "the exchange rate is too old",
                Warn,
            ),
            Self::RoundsToZero => (
                "fx.rounds_to_zero",
                C::R01_INSUFFICIENT_SOURCE_AMOUNT,
                "the amount converts to nothing",
                Debug,
            ),
            Self::Overflow => (
                "fx.overflow",
                C::F08_AMOUNT_TOO_LARGE,
                "the converted amount is too large",
                Debug,
            ),
            Self::AccountPaused => (
                "acct.paused",
                C::T01_PEER_UNREACHABLE,
                "the account is paused",
                Debug,
            ),
            Self::PacketLimit => (
                "acct.packet_limit",
                C::F08_AMOUNT_TOO_LARGE,
                "the amount is larger than one packet may carry",
                Debug,
            ),
            Self::CreditLimit => (
                "acct.credit_limit",
                C::T04_INSUFFICIENT_LIQUIDITY,
                "the credit limit is reached",
                Debug,
            ),
            Self::UnsyncedCap => (
                "acct.unsynced_cap",
                C::T04_INSUFFICIENT_LIQUIDITY,
                "too much is not yet safe on disk",
                Debug,
            ),
            Self::InFlightLimit => (
                "acct.inflight_limit",
                C::T04_INSUFFICIENT_LIQUIDITY,
                "too much is in flight",
                Debug,
            ),
            Self::RateLimit => (
                "acct.rate_limit",
                C::T05_RATE_LIMITED,
                "too many packets",
                Debug,
            ),
            Self::AmountRateLimit => (
                "acct.amount_rate_limit",
                C::T04_INSUFFICIENT_LIQUIDITY,
                "too large an amount in too short a time",
                Debug,
            ),
            Self::ExpiryTooSoon => (
                "expiry.too_soon",
                C::R02_INSUFFICIENT_TIMEOUT,
                "too little time is left to forward the packet",
                Debug,
            ),
            Self::ExpiryTimedOut => (
                "expiry.timed_out",
                C::R00_TRANSFER_TIMED_OUT,
                "no answer came in time",
                Debug,
            ),
            Self::LinkDns => (
                "link.dns",
                C::T01_PEER_UNREACHABLE,
                "the next hop cannot be reached",
                Warn,
            ),
            Self::LinkConnect => (
                "link.connect",
                C::T01_PEER_UNREACHABLE,
                "the next hop cannot be reached",
                Warn,
            ),
            Self::LinkTls => (
                "link.tls",
                C::T01_PEER_UNREACHABLE,
                "the next hop cannot be reached",
                Warn,
            ),
            Self::LinkHttp401 => (
                "link.http_401",
                C::T01_PEER_UNREACHABLE,
                "the next hop does not know us",
                Warn,
            ),
            Self::LinkHttp403 => (
                "link.http_403",
                C::T01_PEER_UNREACHABLE,
                "the next hop does not let us",
                Warn,
            ),
            Self::LinkHttp404 => (
                "link.http_404",
                C::T01_PEER_UNREACHABLE,
                "the next hop's endpoint is not there",
                Warn,
            ),
            Self::LinkHttp413 => (
                "link.http_413",
                C::T01_PEER_UNREACHABLE,
                "the next hop does not take packets of this size",
                Warn,
            ),
            Self::LinkHttp429 => (
                "link.http_429",
                C::T01_PEER_UNREACHABLE,
                "the next hop takes no more requests for now",
                Warn,
            ),
            Self::LinkHttp5xx => (
                "link.http_5xx",
                C::T01_PEER_UNREACHABLE,
                "the next hop failed",
                Warn,
            ),
            Self::LinkContentType => (
                "link.content_type",
                C::T01_PEER_UNREACHABLE,
                "the next hop's answer was not understood",
                Warn,
            ),
            Self::LinkBadReply => (
                "link.bad_reply",
                C::T01_PEER_UNREACHABLE,
                "the next hop's answer was not understood",
                Warn,
            ),
            Self::LinkTimeout => (
                "link.timeout",
                C::T01_PEER_UNREACHABLE,
                "the next hop did not take the packet in time",
                Warn,
            ),
            Self::LinkClosed => (
                "link.closed",
                C::T01_PEER_UNREACHABLE,
                "the next hop is not connected",
                Debug,
            ),
            Self::ConditionMismatch => (
                "cond.mismatch",
                C::F05_WRONG_CONDITION,
                "the next hop's fulfillment does not match the condition",
                Warn,
            ),
            Self::PeerReject => (
                "peer.reject",
                C::T00_INTERNAL_ERROR,
                "rejected further on",
                Debug,
            ),
            Self::Drain => (
                "drain",
                C::T03_CONNECTOR_BUSY,
                "the node is shutting down",
                Debug,
            ),
            Self::Overload => ("overload", C::T03_CONNECTOR_BUSY, "the node is busy", Warn),
            Self::Internal => ("internal", C::T00_INTERNAL_ERROR, "internal error", Warn),
        };
        Row {
            word,
            code,
            message,
            level,
        }
    }
}

/// A packet that is not forwarded, and the data that goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What would have passed, for F08.
    pub too_large: Option<AmountTooLarge>,
    /// ILP code where the protocol wants another one than the table's.
    code: Option<ErrorCode>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            too_large: None,
            code: None,
        }
    }
}

impl From<PacketError> for Refusal {
    fn from(error: PacketError) -> Self {
        Self::from(match error {
            PacketError::DataTooLong(_) | PacketError::MessageTooLong(_) => Reason::PacketTooLarge,
            PacketError::Destination(_) => Reason::AddressInvalid,
            PacketError::Oer(_)
            | PacketError::Type { .. }
            | PacketError::Expiry(_)
            | PacketError::TriggeredBy(_) => Reason::PacketMalformed,
        })
    }
}

impl Refusal {
    /// A refusal that tells how much would have passed.
    pub fn too_large(reason: Reason, received_amount: u64, maximum_amount: u64) -> Self {
        let too_large = Some(AmountTooLarge {
            received_amount,
            maximum_amount,
        });
        Self {
            too_large,
            ..Self::from(reason)
        }
    }

    /// The same refusal under another ILP code.
    #[must_use]
    pub fn with_code(self, code: ErrorCode) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// The Reject that goes back. `triggered_by` is our own address.
    pub fn reject(&self, triggered_by: Addr<'_>) -> Vec<u8> {
        let Row {
            word,
            code,
            message,
            ..
        } = self.reason.row();
        let data = self.too_large.map(AmountTooLarge::to_bytes);
        RejectBuilder {
            code: self.code.unwrap_or(code),
            triggered_by: Some(triggered_by),
            message: &format!("{word}: {message}"),
            data: data.as_ref().map_or(&[], |data| &data[..]),
        }
        .encode()
        .expect("16 bytes of data are not too much")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Reason;

    #[test]
    fn every_reason_has_its_own_word_and_stands_at_its_number() {
        let words: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.row().word).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
    }
}
