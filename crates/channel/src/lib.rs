//! Settlement channels between two nodes, several of different kinds over one peering.
//!
//! * [`Frame`] is what goes over the wire, in the data of `peer.settle` packets; [`Greeting`] is the
//!   first one, and nothing is opened or paid before both sides had it.
//! * [`Channel`] is one channel as one side sees it. [`Channel::step`] turns an [`Event`] into the
//!   channel after it and the [`Effect`]s; it touches no socket and no clock, and keys come in.
//! * [`Statement`] is what either side can show: counters and signatures, checked without a node.
//!
//! It is not a place for balances: what a step means for the books is one of its effects.
//!
//! ```
//! use rialto_channel::{Channel, ChannelId, ChannelKey, Event, Kind, Limits, Terms};
//!
//! let (ours, theirs) = (ChannelKey::from_seed(&[1; 32]), ChannelKey::from_seed(&[2; 32]));
//! let terms = Terms {
//!     kind: Kind::SymmetricalTrustline,
//!     asset: "USD/2".parse()?,
//!     opener: ours.public(),
//!     accepter: theirs.public(),
//!     limits: Limits { opener: 100, accepter: 50, revision: 0 },
//! };
//! let proposed = Channel::propose(ChannelId([7; 16]), terms, &ours)?;
//! assert_eq!(proposed.channel.state_word(), "proposed");
//! assert!(proposed.channel.step(Event::Pay { amount: 1 }, &ours).is_err(), "not open yet");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod channel;
mod frame;
mod sign;
mod statement;
mod terms;
mod text;

pub use channel::{
    Agreed, Channel, ChannelError, Effect, Event, OUTBOX_MAX, Paid, Phase, Queued, Refusal, Step,
};
pub use frame::{
    Answer, Body, CHANNELS_MAX, Frame, FrameError, Greeting, MAGIC, Message, Standing,
    TEXT_BYTES_MAX, VERSION, is_ours,
};
#[cfg(feature = "mutants")]
pub use sign::ChannelMutant;
pub use sign::{ChannelKey, Final, Word};
pub use statement::{Statement, StatementError, StatementPaid};
pub use terms::{ChannelId, Digest, Kind, Limits, PublicKey, Side, Signature, Terms, TermsError};
