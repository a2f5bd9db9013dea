//! BTP 2.0 (RFC 23): frames, and one session as a state machine.
//!
//! This crate turns bytes and times into events and bytes. It opens no sockets, reads no clock, draws
//! no randomness and keeps no queue: WebSocket, timers and the table of requests in flight belong to
//! those who drive it.
//!
//! ```
//! use rialto_btp::session::{Event, Session, Settings};
//! use rialto_packet::Timestamp;
//!
//! let wall = Timestamp::from_unix_ms(1_704_164_645_000);
//! let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
//! let mut client = Session::client(Settings::default(), 0, wall, "alice", "shh", &mut to_server);
//! let mut server = Session::server(Settings::default(), 0, wall, None);
//!
//! // The server's owner looks up the token.
//! let event = server.handle_frame(1, &to_server, &mut to_client);
//! let Event::Authenticate { username: Some("alice"), token } = event else { panic!() };
//! assert_eq!(token.expose(), b"shh");
//! server.accept(2, &mut to_client)?;
//! assert!(matches!(client.handle_frame(3, &to_client, &mut to_server), Event::Established));
//!
//! // Either side may now send packets; the ids are its own.
//! let mut frame = Vec::new();
//! client.send_prepare(1, b"\x0c\x00", &mut frame)?;
//! let Event::Prepare { request_id: 1, ilp } = server.handle_frame(4, &frame, &mut to_client) else {
//!     panic!()
//! };
//! assert_eq!(&frame[ilp], b"\x0c\x00");
//! # Ok::<(), rialto_btp::session::SessionError>(())
//! ```

// The order of a hash table must not show in results: the same seed has to give the same run.
#![warn(clippy::iter_over_hash_type)]

pub mod backoff;
mod error_code;
pub mod frame;
pub mod session;
mod time;
mod uri;

pub use error_code::ErrorCode;
pub use uri::{BtpUri, UriError};
