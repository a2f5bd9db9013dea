//! Why a packet was not forwarded or not fulfilled: one closed set and one table.

use rialto_packet::{Addr, ErrorCode, PacketError, RejectBuilder, f08::AmountTooLarge};

macro_rules! reasons {
    ($($reason:ident $word:literal $code:ident $level:ident $message:literal $doc:literal;)*) => {
        /// Stable words for refusals: metric label, log field, first word of the reject's message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $doc] $reason,)*
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: [Self; [$(Self::$reason),*].len()] = [$(Self::$reason),*];

            /// What is known of it.
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$reason => Row {
                        word: $word,
                        code: ErrorCode::$code,
                        message: $message,
                        level: Level::$level,
                    },)*
                }
            }
        }
    };
}

// The table: name, stable word, ILP code and level, what the sender is told, what it means.
reasons! {
    AuthMissing "auth.missing" F00_BAD_REQUEST Debug "not authorized" "The request carried no token, and came with no certificate that is known.";
    AuthUnknownToken "auth.unknown_token" F00_BAD_REQUEST Debug "not authorized" "The token opens no account.";
    AuthExpiredToken "auth.expired_token" F00_BAD_REQUEST Debug "not authorized" "The token opened an account once.";
    PacketMalformed "pkt.malformed" F01_INVALID_PACKET Debug "packet is not well-formed" "The packet is not well-formed.";
    PacketExpired "pkt.expired" R00_TRANSFER_TIMED_OUT Debug "packet had expired on arrival" "The packet had expired when it came in.";
    PacketTooLarge "pkt.too_large" F01_INVALID_PACKET Debug "packet is larger than the protocol allows" "The packet, frame or body is larger than the protocol allows.";
    AddressInvalid "addr.invalid" F01_INVALID_PACKET Debug "destination is not an address that packets can be sent to" "The destination is not one that packets can be sent to.";
    RouteNone "route.none" F02_UNREACHABLE Debug "no route to the destination" "No route leads to the destination.";
    RouteLoop "route.loop" F02_UNREACHABLE Debug "the route leads back to where the packet came from" "The route leads back to where the packet came from.";
    RoutesMalformed "ccp.malformed" F00_BAD_REQUEST Debug "routing message is not well-formed" "A peer's routing message is not well-formed.";
    RoutesGap "ccp.gap" F00_BAD_REQUEST Debug "an earlier update is missing" "A peer's update does not follow on what was told before.";
    RateNone "fx.no_rate" T00_INTERNAL_ERROR Warn "no exchange rate" "No rate between the two assets is known.";
    RateStale "fx.stale" T00_INTERNAL_ERROR Warn "the exchange rate is too old" "The rate is too old.";
    RoundsToZero "fx.rounds_to_zero" R01_INSUFFICIENT_SOURCE_AMOUNT Debug "the amount converts to nothing" "The amount converts to nothing.";
    Overflow "fx.overflow" F08_AMOUNT_TOO_LARGE Debug "the converted amount is too large" "The converted amount does not fit 64 bits.";
    NoAddress "addr.none" T01_PEER_UNREACHABLE Warn "the node has no address yet" "Our parent has not told us our address yet.";
    AccountPaused "acct.paused" T01_PEER_UNREACHABLE Debug "the account is paused" "The account is paused.";
    PacketLimit "acct.packet_limit" F08_AMOUNT_TOO_LARGE Debug "the amount is larger than one packet may carry" "The amount is above the account's largest packet.";
    CreditLimit "acct.credit_limit" T04_INSUFFICIENT_LIQUIDITY Debug "the credit limit is reached" "The account's credit is used up.";
    UnsyncedCap "acct.unsynced_cap" T04_INSUFFICIENT_LIQUIDITY Debug "too much is not yet safe on disk" "Too much is in flight or not yet safe on disk.";
    InFlightLimit "acct.inflight_limit" T04_INSUFFICIENT_LIQUIDITY Debug "too much is in flight" "Too much is in flight.";
    RateLimit "acct.rate_limit" T05_RATE_LIMITED Debug "too many packets" "Too many packets a minute.";
    AmountRateLimit "acct.amount_rate_limit" T04_INSUFFICIENT_LIQUIDITY Debug "too large an amount in too short a time" "Too much a minute.";
    ExpiryTooSoon "expiry.too_soon" R02_INSUFFICIENT_TIMEOUT Debug "too little time is left to forward the packet" "Too little time is left.";
    ExpiryTimedOut "expiry.timed_out" R00_TRANSFER_TIMED_OUT Debug "no answer came in time" "No answer came in time.";
    LinkDns "link.dns" T01_PEER_UNREACHABLE Warn "the next hop cannot be reached" "The next hop's host name does not resolve.";
    LinkConnect "link.connect" T01_PEER_UNREACHABLE Warn "the next hop cannot be reached" "The next hop does not accept connections.";
    LinkTls "link.tls" T01_PEER_UNREACHABLE Warn "the next hop cannot be reached" "No TLS session with the next hop.";
    LinkHttp401 "link.http_401" T01_PEER_UNREACHABLE Warn "the next hop does not know us" "The next hop answered 401.";
    LinkHttp403 "link.http_403" T01_PEER_UNREACHABLE Warn "the next hop does not let us" "The next hop answered 403.";
    LinkHttp404 "link.http_404" T01_PEER_UNREACHABLE Warn "the next hop's endpoint is not there" "The next hop answered 404.";
    LinkHttp413 "link.http_413" T01_PEER_UNREACHABLE Warn "the next hop does not take packets of this size" "The next hop answered 413.";
    LinkHttp429 "link.http_429" T01_PEER_UNREACHABLE Warn "the next hop takes no more requests for now" "The next hop answered 429.";
    LinkHttp5xx "link.http_5xx" T01_PEER_UNREACHABLE Warn "the next hop failed" "The next hop answered 5xx.";
    LinkContentType "link.content_type" T01_PEER_UNREACHABLE Warn "the next hop's answer was not understood" "The next hop's answer is of another content type.";
    LinkBadReply "link.bad_reply" T01_PEER_UNREACHABLE Warn "the next hop's answer was not understood" "The next hop's answer is no ILP packet.";
    LinkTimeout "link.timeout" T01_PEER_UNREACHABLE Warn "the next hop did not take the packet in time" "The next hop did not take the packet in time.";
    LinkPace "link.pace" T05_RATE_LIMITED Debug "the next hop takes no more packets for now" "The next hop lets only so many packets through.";
    LinkClosed "link.closed" T01_PEER_UNREACHABLE Debug "the next hop is not connected" "There is no connection to the next hop.";
    ConditionMismatch "cond.mismatch" F05_WRONG_CONDITION Warn "the next hop's fulfillment does not match the condition" "The next hop's fulfillment does not match the condition.";
    PeerReject "peer.reject" T00_INTERNAL_ERROR Debug "rejected further on" "The next hop, or one after it, rejected.";
    EngineNone "engine.none" F02_UNREACHABLE Debug "no settlement engine takes messages here" "The account has no settlement engine to take a message.";
    EngineRefused "engine.refused" F00_BAD_REQUEST Debug "the settlement engine refused the message" "The settlement engine refused the message.";
    EngineFailed "engine.failed" T00_INTERNAL_ERROR Warn "the settlement engine did not answer" "The settlement engine failed, or did not answer in time.";
    EngineBusy "engine.busy" T05_RATE_LIMITED Debug "too many messages are under way" "Too many messages of the account are under way.";
    AccountingFailed "accounting.failed" T00_INTERNAL_ERROR Warn "the accounting system did not bring the message" "The accounting system whose engine this node is did not bring the message to the other side.";
    ChannelFrame "channel.frame" F00_BAD_REQUEST Warn "a frame of a settlement channel that is none" "The message begins like a frame of a settlement channel, and is none that is understood here.";
    Drain "drain" T03_CONNECTOR_BUSY Debug "the node is shutting down" "The node is shutting down.";
    Overload "overload" T03_CONNECTOR_BUSY Warn "the node is busy" "The node has too much to do.";
    Internal "internal" T00_INTERNAL_ERROR Warn "internal error" "The node made a mistake.";
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
    /// The peer takes packets more slowly than they come; this one was surely not sent.
    Busy,
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
            Self::Busy => Reason::Overload,
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

    /// The Reject that goes back. `triggered_by` is our own address, if we have one.
    pub fn reject(&self, triggered_by: Option<Addr<'_>>) -> Vec<u8> {
        let Row {
            word,
            code,
            message,
            ..
        } = self.reason.row();
        let data = self.too_large.map(AmountTooLarge::to_bytes);
        RejectBuilder {
            code: self.code.unwrap_or(code),
            triggered_by,
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
