//! The Connector-to-Connector Protocol: how connectors tell each other routes.
//!
//! It is a path-vector protocol like BGP, in two messages that travel as the data of Prepares on the
//! direct link. Whoever wants routes asks for them with a [`RouteControl`]; whoever has some tells them
//! in [`Update`]s, each on top of the one before. No RFC holds it; the wire format is that of
//! `ilp-protocol-ccp`.
//!
//! * [`message`]: the two messages. An update is a checked view over its bytes.
//! * [`Speaker`]: what one peer was told of our routes, and when to tell it more.
//! * [`Listener`]: what we know of one peer's routes, and when to ask again.
//!
//! The machines hold no routes and read no clock: what is in an update is their user's matter, and time
//! is passed in, in nanoseconds of a clock that only goes forward.
//!
//! ```
//! use rialto_ccp::{Listener, Mode, Reply, RouteControl, Speaker, TableId, Verdict};
//!
//! // We ask, because the session has just come up.
//! let mut listener = Listener::default();
//! listener.connect(0);
//! let control = listener.poll_control(0).ok_or("a new session asks at once")?;
//! assert_eq!((control.mode, control.table_id), (Mode::Sync, TableId::NONE));
//!
//! // They begin at the start of their table.
//! let mut speaker = Speaker::new(TableId([7; 16]), 0_u32);
//! speaker.handle_control(0, &control, TableId([8; 16]), 0);
//! let turn = speaker.poll_update(0, true).ok_or("there is something to tell")?;
//! assert_eq!((turn.from_epoch, turn.position), (0, 0));
//! # Ok::<(), &str>(())
//! ```

mod listener;
pub mod message;
mod speaker;

pub use listener::{Listener, ListenerState, Verdict};
pub use message::{
    MessageError, Mode, Route, RouteControl, TableId, Unchecked, Update, UpdateBuilder, UpdateHead,
};
pub use speaker::{Speaker, Turn, answer_deadline_ns};

/// Where asking for routes goes.
pub const CONTROL_DESTINATION: &str = "peer.route.control";

/// Where routes are told.
pub const UPDATE_DESTINATION: &str = "peer.route.update";

/// A peer that was told nothing new is told so after this long. Milliseconds.
pub const HEARTBEAT_MS: u32 = 30_000;

/// How long our routes hold without another update: one and a half heartbeats. Milliseconds.
pub const HOLD_DOWN_MS: u32 = 45_000;

/// How long a Prepare with one of the messages is valid. Milliseconds.
pub const MESSAGE_EXPIRY_MS: i64 = 60_000;

/// An unanswered message counts as lost after this long.
const ANSWER_NS: u64 = 30_000_000_000;

const MS: u64 = 1_000_000;

/// How a peer answered one of our messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It took it.
    Fulfilled,
    /// It answered that there is nobody at the address: it does not speak CCP.
    NotSpoken,
    /// It refused, for instance because we may not do this.
    Refused,
    /// No answer came, or the link failed.
    Lost,
}
