//! STREAM (RFC 29), STREAM receipts (RFC 39), SPSP (RFC 9) and payment pointers (RFC 26), all without
//! I/O: no sockets, no clock, no entropy. Time and randomness are passed in.
//!
//! A [`Receiver`] turns each Prepare that reaches a local account into its Fulfill or Reject. A
//! [`Sender`] is one payment: it hands out Prepares, takes replies, and says what was delivered. What
//! carries packets between the two, holds money and books it is the connector's part.
//!
//! ```
//! use rand_core::SeedableRng;
//! use rialto_packet::{Address, Prepare, Reply, Timestamp, money::Asset};
//! use rialto_stream::{Now, Receiver, Sender, SenderConfig, Target, receiver::CONNECTIONS_MAX};
//!
//! let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
//! let bob: Address = "example.bob".parse()?;
//! let mut receiver = Receiver::new(&[7; 32], Asset::new("USD", 9)?, CONNECTIONS_MAX);
//! let credentials = receiver.credentials(&mut rng, &bob, None)?;
//!
//! let now = Now { mono_ns: 0, wall: Timestamp::from_unix_ms(1_800_000_000_000) };
//! let mut sender = Sender::new(
//!     now,
//!     SenderConfig::new(credentials.shared_secret, credentials.destination_account, Target::Send(500)),
//! );
//! while let Some(transmit) = sender.poll_transmit(now, &mut rng) {
//!     let answer = receiver.handle_prepare(&mut rng, bob.as_ref(), &Prepare::parse(transmit.packet)?);
//!     sender.handle_reply(now, transmit.id, &Reply::parse(answer.packet)?);
//! }
//! let outcome = sender.outcome().expect("every packet was answered");
//! assert_eq!(outcome.stopped, None);
//! assert_eq!(outcome.progress.delivered, 500);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// The order of a hash table must not show in results: the same seed has to give the same run.
#![warn(clippy::iter_over_hash_type)]

pub mod crypto;
pub mod packet;
pub mod pointer;
mod rate;
pub mod receipt;
pub mod receiver;
pub mod sender;
pub mod spsp;

#[cfg(test)]
mod path_tests;
#[cfg(test)]
mod vector_tests;

use rialto_packet::Timestamp;

pub use crypto::{Keys, SharedSecret};
pub use receipt::{Receipt, ReceiptDetails, ReceiptSecret};
pub use receiver::{Answer, ConnectionId, Credentials, Received, Receiver};
pub use sender::{Outcome, Path, Progress, Sender, SenderConfig, Stop, Target, Transmit};

/// The two clocks, read by whoever calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since any fixed instant, never going back: for timers.
    pub mono_ns: u64,
    /// The date: for the expiry of packets.
    pub wall: Timestamp,
}
