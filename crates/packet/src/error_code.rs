//! Error codes of Reject packets (RFC 27, Error Codes).
//!
//! ```
//! use rialto_packet::{ErrorClass, ErrorCode};
//!
//! let code = ErrorCode::T04_INSUFFICIENT_LIQUIDITY;
//! assert_eq!(code.to_string(), "T04");
//! assert_eq!(code.name(), "Insufficient Liquidity");
//! assert_eq!(code.class(), ErrorClass::Temporary);
//!
//! // Others may use codes that no RFC names; their class still says what to do.
//! assert_eq!(ErrorCode::from_bytes(*b"F09").class(), ErrorClass::Final);
//! ```

use std::fmt;

/// Three characters; the first one says how a sender may react.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode([u8; 3]);

/// How a sender may react to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// `F`: do not send the same packet again. Unknown classes count as final.
    Final,
    /// `T`: may work later.
    Temporary,
    /// `R`: may work with more money or more time.
    Relative,
}

macro_rules! codes {
    ($($constant:ident $text:literal $name:literal $doc:literal;)*) => {
        impl ErrorCode {
            $(#[doc = $doc] pub const $constant: Self = Self(*$text);)*

            /// Every code that RFC 27 names.
            pub const ALL: &[Self] = &[$(Self::$constant),*];

            /// The name in RFC 27, or `"Unknown Error"`.
            pub fn name(self) -> &'static str {
                match &self.0 {
                    $($text => $name,)*
                    _ => "Unknown Error",
                }
            }
        }
    };
}

codes! {
    F00_BAD_REQUEST b"F00" "Bad Request" "A mistake of the sender that no other code names.";
    F01_INVALID_PACKET b"F01" "Invalid Packet" "The packet was not well-formed.";
    F02_UNREACHABLE b"F02" "Unreachable" "There was no way to forward the packet.";
    F03_INVALID_AMOUNT b"F03" "Invalid Amount" "The amount is impossible for the asset.";
    F04_INSUFFICIENT_DESTINATION_AMOUNT b"F04" "Insufficient Destination Amount" "The receiver wanted more.";
    F05_WRONG_CONDITION b"F05" "Wrong Condition" "The receiver derived another condition.";
    F06_UNEXPECTED_PAYMENT b"F06" "Unexpected Payment" "The receiver was not expecting the payment.";
    F07_CANNOT_RECEIVE b"F07" "Cannot Receive" "The receiver may not accept the payment.";
    F08_AMOUNT_TOO_LARGE b"F08" "Amount Too Large" "More than a connector forwards in one packet.";
    F99_APPLICATION_ERROR b"F99" "Application Error" "The receiver's application says no.";
    T00_INTERNAL_ERROR b"T00" "Internal Error" "A connector failed; not the sender's mistake.";
    T01_PEER_UNREACHABLE b"T01" "Peer Unreachable" "There is a route, but the next hop cannot be reached.";
    T02_PEER_BUSY b"T02" "Peer Busy" "The next hop is overloaded.";
    T03_CONNECTOR_BUSY b"T03" "Connector Busy" "The connector is overloaded.";
    T04_INSUFFICIENT_LIQUIDITY b"T04" "Insufficient Liquidity" "The connector lacks liquidity to forward the payment.";
    T05_RATE_LIMITED b"T05" "Rate Limited" "The sender sends too many packets.";
    T99_APPLICATION_ERROR b"T99" "Application Error" "The receiver's application says not now.";
    R00_TRANSFER_TIMED_OUT b"R00" "Transfer Timed Out" "The transfer expired before it was fulfilled.";
    R01_INSUFFICIENT_SOURCE_AMOUNT b"R01" "Insufficient Source Amount" "The amount converts to nothing.";
    R02_INSUFFICIENT_TIMEOUT b"R02" "Insufficient Timeout" "Too little time was left to forward the packet.";
    R99_APPLICATION_ERROR b"R99" "Application Error" "The receiver's application wants more time or money.";
}

impl ErrorCode {
    /// Any three bytes, as they stand in a packet.
    pub fn from_bytes(bytes: [u8; 3]) -> Self {
        Self(bytes)
    }

    /// The three bytes.
    pub fn to_bytes(self) -> [u8; 3] {
        self.0
    }

    /// How a sender may react.
    pub fn class(self) -> ErrorClass {
        match self.0[0] {
            b'T' => ErrorClass::Temporary,
            b'R' => ErrorClass::Relative,
            _ => ErrorClass::Final,
        }
    }
}

impl fmt::Display for ErrorCode {
    /// The code; bytes that do not print are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} {}", self.name())
    }
}
