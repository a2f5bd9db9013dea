//! One BTP session as a state machine, without sockets and without a clock.
//!
//! The driver gives it every WebSocket binary message and the time; it answers with an [`Event`] and
//! at most one frame to send. ILP requests are not remembered here: whoever gave a request its id
//! knows what a reply with that id means.
//!
//! ```text
//!   server                                   client
//!     │                                        │ sends auth
//!     ▼                                        ▼
//! ┌──────────────┐                       ┌───────────────┐
//! │ AwaitingAuth │                       │ AwaitingReply │
//! └──────┬───────┘                       └──────┬────────┘
//!        │ auth: Event::Authenticate            │ Response: Event::Established
//!        ▼                                      │
//! ┌──────────────┐  accept()   ┌─────────────┐  │
//! │   Deciding   ├────────────►│ Established │◄─┘
//! └──────┬───────┘             └──────┬──────┘
//!        │ refuse()                   │ three silent ping intervals, garbage,
//!        │                            │ supersede()
//!        ▼                            ▼
//! ┌──────────────────────────────────────────┐
//! │                  Closed                  │  from every state: handle_closed();
//! └──────────────────────────────────────────┘  before Established: time is up, wrong first frame
//! ```

use std::{fmt, ops::Range};

use rialto_packet::{PacketType, Timestamp, packet_type};
use thiserror::Error;

use crate::{
    error_code::ErrorCode,
    frame::{self, Body, ContentType, Entry, ErrorFields, Frame, ProtocolData, Unreadable},
};

/// Request id of the client's authentication. Ids of ILP requests start at 1, so that a belated
/// second answer to the authentication never meets one of them.
pub const AUTH_REQUEST_ID: u32 = 0;
/// Unreadable frames in a row after which the session closes.
pub const GARBAGE_MAX: u32 = 8;

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// Times of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long authentication may take, nanoseconds from the opening of the socket.
    pub auth_timeout_ns: u64,
    /// A ping is sent when nothing was heard for so long, nanoseconds.
    pub ping_interval_ns: u64,
    /// So many pings in a row may stay without a sign of life; one interval later the session
    /// closes.
    pub pings_missed_max: u32,
}

impl Default for Settings {
    /// 10 s to authenticate; a ping after 25 s of silence; closed after two that were missed.
    fn default() -> Self {
        Self {
            auth_timeout_ns: 10 * NS_PER_S,
            ping_interval_ns: 25 * NS_PER_S,
            pings_missed_max: 2,
        }
    }
}

/// A secret in a received frame. It shows in no output.
#[derive(Clone, Copy)]
pub struct Token<'a>(&'a [u8]);

impl<'a> Token<'a> {
    /// The secret. To be compared in constant time only.
    pub fn expose(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What an input means for the driver. Independent of the event, bytes that were appended to `out`
/// are one frame to be sent.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// Nothing more to do.
    Nothing,
    /// Server: somebody wants to authenticate. Answer with [`Session::accept`] or
    /// [`Session::refuse`].
    Authenticate {
        /// The account, if it was named in the frame. Agrees with the path's account if there is
        /// one.
        username: Option<&'a str>,
        /// The secret.
        token: Token<'a>,
    },
    /// Server: the frame was not looked at, because the authentication is not decided yet. Give it
    /// again after [`Session::accept`], and read no more until then.
    Deferred,
    /// Client: the server accepted the authentication.
    Established,
    /// The peer sent a Prepare. Answer with [`Session::send_reply`].
    Prepare {
        /// The peer's.
        request_id: u32,
        /// Where in the frame the ILP packet lies; only its type byte was read.
        ilp: Range<usize>,
    },
    /// The peer answered a Prepare of ours with a Fulfill or Reject. To be ignored if no request
    /// with that id is in flight.
    Reply {
        /// Ours.
        request_id: u32,
        /// Where in the frame the ILP packet lies; only its type byte was read.
        ilp: Range<usize>,
    },
    /// The peer answered a request of ours with an Error: the link failed for that request.
    PeerError {
        /// Ours.
        request_id: u32,
        /// What the peer says.
        error: ErrorFields<'a>,
    },
    /// The peer answered a request of ours with something that is no ILP reply: the link failed for
    /// that request, which was in no case fulfilled.
    BadReply {
        /// Ours.
        request_id: u32,
    },
    /// Send a WebSocket Ping.
    Ping,
    /// Send what is in `out`, then close the socket. The session is over.
    Close(CloseReason),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// No authentication within its time.
    AuthTimeout,
    /// Server: we did not accept the authentication, or the first frame was none.
    AuthRefused,
    /// Client: the server did not accept our authentication; with its error code, if it gave one.
    AuthRejected(Option<ErrorCode>),
    /// Nothing was heard, in spite of pings.
    PeerSilent,
    /// Too many unreadable frames.
    Garbage,
    /// The account has a newer session.
    Superseded,
    /// The socket was closed or broke.
    SocketClosed,
}

/// A call that the session's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// Operations need an authenticated session; nothing is queued.
    #[error("BTP session is not authenticated")]
    NotEstablished,
    /// No authentication waits for a decision; perhaps its time was up.
    #[error("no BTP authentication waits for a decision")]
    NothingToDecide,
}

/// One session, of a server or of a client.
///
/// Times are nanoseconds of any monotonic clock, always the same one.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    state: State,
    /// Account named by the path of the WebSocket URL.
    path_account: Option<String>,
    /// What the wall clock showed at monotonic time zero; Errors carry a time.
    wall_at_zero: Timestamp,
}

#[derive(Debug, Clone, Copy)]
enum State {
    AwaitingAuth { deadline_ns: u64 },
    Deciding { deadline_ns: u64, request_id: u32 },
    AwaitingReply { deadline_ns: u64 },
    Established(Established),
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Established {
    ping_at_ns: u64,
    pings_missed: u32,
    garbage_count: u32,
}

impl Session {
    /// A session of a socket that was opened to us. `path_account` is the account that the URL's
    /// path names, if it does; `wall` is the time of day at `now_ns`.
    pub fn server(
        settings: Settings,
        now_ns: u64,
        wall: Timestamp,
        path_account: Option<String>,
    ) -> Self {
        let deadline_ns = now_ns.saturating_add(settings.auth_timeout_ns);
        Self {
            settings,
            state: State::AwaitingAuth { deadline_ns },
            path_account,
            wall_at_zero: wall_at_zero(now_ns, wall),
        }
    }

    /// A session of a socket that we opened; appends the authentication to `out`. An empty
    /// `username` is left out, an empty `token` is sent.
    pub fn client(
        settings: Settings,
        now_ns: u64,
        wall: Timestamp,
        username: &str,
        token: &str,
        out: &mut Vec<u8>,
    ) -> Self {
        let entry = |name, content_type, data| Entry {
            name,
            content_type,
            data,
        };
        // JavaScript servers want `auth` first and at least two entries.
        let mut entries = vec![entry(
            frame::AUTH,
            ContentType::OCTET_STREAM,
            b"".as_slice(),
        )];
        if !username.is_empty() {
            let username = username.as_bytes();
            entries.push(entry(frame::AUTH_USERNAME, ContentType::TEXT, username));
        }
        entries.push(entry(
            frame::AUTH_TOKEN,
            ContentType::TEXT,
            token.as_bytes(),
        ));
        frame::put_message(out, AUTH_REQUEST_ID, &entries)
            .expect("the names are constants, distinct and IA5");
        Self {
            settings,
            state: State::AwaitingReply {
                deadline_ns: now_ns.saturating_add(settings.auth_timeout_ns),
            },
            path_account: None,
            wall_at_zero: wall_at_zero(now_ns, wall),
        }
    }

    /// Whether requests and replies can be sent.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    /// When [`Session::handle_timeout`] wants to be called, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.state {
            State::AwaitingAuth { deadline_ns }
            | State::Deciding { deadline_ns, .. }
            | State::AwaitingReply { deadline_ns } => Some(deadline_ns),
            State::Established(established) => Some(established.ping_at_ns),
            State::Closed => None,
        }
    }

    /// A WebSocket binary message came. Text messages are to be ignored by the driver.
    pub fn handle_frame<'a>(
        &mut self,
        now_ns: u64,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Event<'a> {
        match self.state {
            State::Established(_) => self.handle_frame_established(now_ns, bytes, out),
            State::AwaitingAuth { deadline_ns } | State::AwaitingReply { deadline_ns }
                if now_ns >= deadline_ns =>
            {
                self.close(CloseReason::AuthTimeout)
            }
            State::AwaitingAuth { deadline_ns } => {
                self.handle_frame_auth(now_ns, deadline_ns, bytes, out)
            }
            State::AwaitingReply { .. } => self.handle_frame_auth_reply(now_ns, bytes, out),
            State::Deciding { .. } => Event::Deferred,
            State::Closed => Event::Nothing,
        }
    }

    /// A WebSocket Ping or Pong came. Answering a Ping is up to the driver.
    pub fn handle_ping_or_pong(&mut self, now_ns: u64) {
        let ping_at_ns = now_ns.saturating_add(self.settings.ping_interval_ns);
        if let State::Established(established) = &mut self.state {
            established.ping_at_ns = ping_at_ns;
            established.pings_missed = 0;
        }
    }

    /// The time that [`Session::poll_timeout`] named has come; a call before it does nothing.
    pub fn handle_timeout(&mut self, now_ns: u64) -> Event<'static> {
        if self.poll_timeout().is_none_or(|at_ns| now_ns < at_ns) {
            return Event::Nothing;
        }
        let State::Established(established) = &mut self.state else {
            return self.close(CloseReason::AuthTimeout);
        };
        if established.pings_missed == self.settings.pings_missed_max {
            return self.close(CloseReason::PeerSilent);
        }
        established.pings_missed += 1;
        established.ping_at_ns = now_ns.saturating_add(self.settings.ping_interval_ns);
        Event::Ping
    }

    /// The socket is closed. Gives the reason, unless the session had ended before.
    pub fn handle_closed(&mut self) -> Option<CloseReason> {
        let reason = match self.state {
            State::Closed => return None,
            // Some servers say no by hanging up.
            State::AwaitingReply { .. } => CloseReason::AuthRejected(None),
            State::AwaitingAuth { .. } | State::Deciding { .. } | State::Established(_) => {
                CloseReason::SocketClosed
            }
        };
        self.state = State::Closed;
        Some(reason)
    }

    /// Server: the token is the account's. Appends the answer to `out`.
    ///
    /// # Errors
    /// [`SessionError::NothingToDecide`].
    pub fn accept(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let State::Deciding { request_id, .. } = self.state else {
            return Err(SessionError::NothingToDecide);
        };
        frame::put_empty_response(out, request_id);
        self.establish(now_ns);
        Ok(())
    }

    /// Server: wrong token or unknown account, and nobody outside shall know which. Appends the
    /// answer to `out`; it is the same for every cause.
    ///
    /// # Errors
    /// [`SessionError::NothingToDecide`].
    pub fn refuse(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Result<CloseReason, SessionError> {
        let State::Deciding { request_id, .. } = self.state else {
            return Err(SessionError::NothingToDecide);
        };
        self.put_auth_refusal(now_ns, request_id, out);
        self.state = State::Closed;
        Ok(CloseReason::AuthRefused)
    }

    /// The account has authenticated on another socket, and the newest wins. Gives the reason,
    /// unless the session had ended before. Nothing is sent: an Error needs the id of a request,
    /// and a made-up one could hit a request that the peer has in flight.
    pub fn supersede(&mut self) -> Option<CloseReason> {
        self.handle_closed().map(|_| CloseReason::Superseded)
    }

    /// Appends a Prepare to `out`. `request_id` is not 0 and not in flight.
    ///
    /// # Errors
    /// [`SessionError::NotEstablished`].
    pub fn send_prepare(
        &self,
        request_id: u32,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        self.check_established()?;
        frame::put_ilp_message(out, request_id, packet);
        Ok(())
    }

    /// Appends a Fulfill or Reject, the answer to the peer's request `request_id`, to `out`.
    ///
    /// # Errors
    /// [`SessionError::NotEstablished`].
    pub fn send_reply(
        &self,
        request_id: u32,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        self.check_established()?;
        frame::put_ilp_response(out, request_id, packet);
        Ok(())
    }

    fn check_established(&self) -> Result<(), SessionError> {
        match self.is_established() {
            true => Ok(()),
            false => Err(SessionError::NotEstablished),
        }
    }

    /// The first frame that a server gets: an authentication or the end.
    fn handle_frame_auth<'a>(
        &mut self,
        now_ns: u64,
        deadline_ns: u64,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Event<'a> {
        let (request_id, credentials) = match Frame::decode(bytes) {
            Ok(frame) => (
                Some(frame.request_id),
                credentials(&frame, self.path_account.as_deref()),
            ),
            Err(unreadable) => (unreadable.header.map(|header| header.request_id), None),
        };
        if let (Some(request_id), Some((username, token))) = (request_id, credentials) {
            self.state = State::Deciding {
                deadline_ns,
                request_id,
            };
            return Event::Authenticate { username, token };
        }
        if let Some(request_id) = request_id {
            self.put_auth_refusal(now_ns, request_id, out);
        }
        self.close(CloseReason::AuthRefused)
    }

    /// A frame that a client gets before it is authenticated.
    fn handle_frame_auth_reply(
        &mut self,
        now_ns: u64,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Event<'static> {
        let Ok(frame) = Frame::decode(bytes) else {
            return self.close(CloseReason::Garbage);
        };
        match frame.body {
            Body::Response(_) if frame.request_id == AUTH_REQUEST_ID => {
                self.establish(now_ns);
                Event::Established
            }
            Body::Error(error, _) if frame.request_id == AUTH_REQUEST_ID => {
                self.close(CloseReason::AuthRejected(Some(error.code)))
            }
            Body::Response(_) | Body::Error(..) => Event::Nothing,
            Body::Message(_) | Body::Transfer { .. } => self.answer_error(
                now_ns,
                frame.request_id,
                ErrorCode::NOT_ACCEPTED,
                "not authenticated",
                out,
            ),
        }
    }

    fn handle_frame_established<'a>(
        &mut self,
        now_ns: u64,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Event<'a> {
        self.handle_ping_or_pong(now_ns);
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(unreadable) => return self.handle_unreadable(now_ns, unreadable, out),
        };
        if let State::Established(established) = &mut self.state {
            established.garbage_count = 0;
        }
        let request_id = frame.request_id;
        let refusal = match frame.body {
            Body::Message(protocol_data) => match content(bytes, &protocol_data) {
                Content::Prepare { ilp, .. } => return Event::Prepare { request_id, ilp },
                // Older Rust nodes answer a Prepare with a Message.
                Content::Reply { ilp, primary: true } => return Event::Reply { request_id, ilp },
                Content::Reply { primary: false, .. } | Content::BadIlp => {
                    (ErrorCode::INVALID_FIELDS, "not an ILP Prepare")
                }
                Content::Empty => {
                    frame::put_empty_response(out, request_id);
                    return Event::Nothing;
                }
                Content::Auth => (ErrorCode::NOT_ACCEPTED, "already authenticated"),
                Content::Unsupported => (ErrorCode::NOT_ACCEPTED, "unsupported sub-protocol"),
            },
            Body::Response(protocol_data) => match content(bytes, &protocol_data) {
                Content::Reply { ilp, .. } => return Event::Reply { request_id, ilp },
                // Older Rust nodes send a Prepare as a Response.
                Content::Prepare { ilp, primary: true } => {
                    return Event::Prepare { request_id, ilp };
                }
                Content::Prepare { primary: false, .. }
                | Content::BadIlp
                | Content::Empty
                | Content::Auth
                | Content::Unsupported => return Event::BadReply { request_id },
            },
            Body::Error(error, _) => return Event::PeerError { request_id, error },
            Body::Transfer { .. } => (ErrorCode::NOT_ACCEPTED, "transfers are not supported"),
        };
        self.answer_error(now_ns, request_id, refusal.0, refusal.1, out)
    }

    fn handle_unreadable(
        &mut self,
        now_ns: u64,
        unreadable: Unreadable,
        out: &mut Vec<u8>,
    ) -> Event<'static> {
        if let State::Established(established) = &mut self.state {
            established.garbage_count += 1;
            if established.garbage_count >= GARBAGE_MAX {
                return self.close(CloseReason::Garbage);
            }
        }
        match unreadable.header {
            None => Event::Nothing,
            // The id is one of ours. An Error with it would hit whatever request of the peer
            // happens to have the same one.
            Some(header) if header.is_reply() => Event::BadReply {
                request_id: header.request_id,
            },
            Some(header) => self.answer_error(
                now_ns,
                header.request_id,
                ErrorCode::INVALID_FIELDS,
                "malformed or unknown packet",
                out,
            ),
        }
    }

    fn establish(&mut self, now_ns: u64) {
        self.state = State::Established(Established {
            ping_at_ns: now_ns.saturating_add(self.settings.ping_interval_ns),
            pings_missed: 0,
            garbage_count: 0,
        });
    }

    fn close(&mut self, reason: CloseReason) -> Event<'static> {
        self.state = State::Closed;
        Event::Close(reason)
    }

    fn put_auth_refusal(&self, now_ns: u64, request_id: u32, out: &mut Vec<u8>) {
        let message = "authentication failed";
        self.answer_error(now_ns, request_id, ErrorCode::NOT_ACCEPTED, message, out);
    }

    fn answer_error(
        &self,
        now_ns: u64,
        request_id: u32,
        code: ErrorCode,
        message: &'static str,
        out: &mut Vec<u8>,
    ) -> Event<'static> {
        let error = frame::NewError {
            code,
            name: code.name(),
            triggered_at: self.wall_at_zero.plus_ms(whole_ms(now_ns)),
            data: message,
        };
        frame::put_error(out, request_id, &error, &[])
            .expect("name and message are constants, IA5 and short");
        Event::Nothing
    }
}

fn wall_at_zero(now_ns: u64, wall: Timestamp) -> Timestamp {
    wall.plus_ms(-whole_ms(now_ns))
}

fn whole_ms(ns: u64) -> i64 {
    i64::try_from(ns / NS_PER_MS).expect("2^64 ns are less than 2^63 ms")
}

/// Name and token, if the frame is an authentication whose name agrees with the path's.
fn credentials<'a>(
    frame: &Frame<'a>,
    path_account: Option<&str>,
) -> Option<(Option<&'a str>, Token<'a>)> {
    let Body::Message(protocol_data) = frame.body else {
        return None;
    };
    if protocol_data.primary()?.name != frame::AUTH {
        return None;
    }
    let token = Token(protocol_data.get(frame::AUTH_TOKEN)?.data);
    let username = match protocol_data.get(frame::AUTH_USERNAME) {
        Some(entry) => std::str::from_utf8(entry.data).ok()?,
        None => "",
    };
    // Some clients send the entry always, and empty when they have no name.
    if username.is_empty() {
        return Some((None, token));
    }
    match path_account {
        Some(account) if account != username => None,
        Some(_) | None => Some((Some(username), token)),
    }
}

/// What the protocol data of a request or reply is about.
enum Content {
    Prepare { ilp: Range<usize>, primary: bool },
    Reply { ilp: Range<usize>, primary: bool },
    BadIlp,
    Auth,
    Empty,
    Unsupported,
}

/// The primary entry decides. Only when it is unknown to us an `ilp` entry behind it counts, as it
/// does for JavaScript peers.
fn content(bytes: &[u8], protocol_data: &ProtocolData<'_>) -> Content {
    let Some(first) = protocol_data.primary() else {
        return Content::Empty;
    };
    let primary = first.name == frame::ILP;
    let packet = match first.name {
        frame::ILP => first.data,
        frame::AUTH => return Content::Auth,
        _ => match protocol_data.get(frame::ILP) {
            Some(entry) => entry.data,
            None => return Content::Unsupported,
        },
    };
    let ilp = range_in(bytes, packet);
    match packet_type(packet) {
        Some(PacketType::Prepare) => Content::Prepare { ilp, primary },
        Some(PacketType::Fulfill | PacketType::Reject) => Content::Reply { ilp, primary },
        None => Content::BadIlp,
    }
}

/// Where `part`, a slice of `bytes`, lies in it.
fn range_in(bytes: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - bytes.as_ptr().addr();
    start..start + part.len()
}
