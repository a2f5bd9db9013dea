//! The words of Interledger: ILPv4 packets, addresses, error codes, ILDCP and money.
//!
//! This crate holds values and codecs and nothing else: no clock, no randomness, no I/O. A packet is
//! a **checked view over one buffer**: parsing validates everything once, reading costs nothing, and
//! a connector patches amount and expiry in place without copying or touching anything else.
//!
//! ```
//! use rialto_packet::{Address, Prepare, PrepareBuilder, Timestamp};
//!
//! let bytes = PrepareBuilder {
//!     amount: 107,
//!     expires_at: Timestamp::from_unix_ms(1_704_164_645_678),
//!     condition: [7; 32],
//!     destination: "example.alice".parse::<Address>()?.as_ref(),
//!     data: b"hi",
//! }
//! .encode()?;
//!
//! let mut prepare = Prepare::parse(bytes)?;
//! assert_eq!(prepare.destination().as_str(), "example.alice");
//! prepare.set_amount(99);
//! assert_eq!(prepare.amount(), 99);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// The order of a hash table must not show in results: the same seed has to give the same run.
#![warn(clippy::iter_over_hash_type)]

pub mod address;
pub mod error_code;
pub mod f08;
pub mod ildcp;
pub mod money;
pub mod oer;
mod packet;
pub mod quantity;
mod timestamp;

pub use address::{Addr, Address, AddressError, Prefix};
pub use error_code::{ErrorClass, ErrorCode};
pub use packet::{
    DATA_BYTES_MAX, Fulfill, FulfillBuilder, MESSAGE_BYTES_MAX, PACKET_BYTES_MAX, PacketError,
    PacketType, Prepare, PrepareBuilder, Reject, RejectBuilder, Reply, packet_type,
};
pub use timestamp::{Timestamp, TimestampError};

/// The fulfillment of packets between direct neighbours (`peer.*`): 32 zero bytes.
pub const PEER_FULFILLMENT: [u8; 32] = [0; 32];

/// The condition of packets between direct neighbours: SHA-256 of [`PEER_FULFILLMENT`].
pub const PEER_CONDITION: [u8; 32] = [
    0x66, 0x68, 0x7a, 0xad, 0xf8, 0x62, 0xbd, 0x77, 0x6c, 0x8f, 0xc1, 0x8b, 0x8e, 0x9f, 0x8e, 0x20,
    0x08, 0x97, 0x14, 0x85, 0x6e, 0xe2, 0x33, 0xb3, 0x90, 0x2a, 0x59, 0x1d, 0x0d, 0x5f, 0x29, 0x25,
];
