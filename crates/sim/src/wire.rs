//! Connections: two sessions, the bytes between them, and what becomes of those.

use rialto_btp::session::{Event, Session};
use rialto_packet::Timestamp;

use crate::plan::Party;

/// The end that dialled, and the one that was dialled.
pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

/// The secret that all present.
pub(crate) const TOKEN: &str = "let me in";

/// What a WebSocket carries.
#[derive(Debug)]
pub(crate) enum Message {
    /// One BTP frame.
    Frame(Vec<u8>),
    Ping,
    Pong,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) party: Party,
    pub(crate) session: Session,
    pub(crate) is_open: bool,
    /// The core's number of it, once authenticated.
    pub(crate) serial: Option<u32>,
    /// When the last message to it arrives: nothing overtakes on one connection.
    pub(crate) last_arrival_ns: u64,
    /// Messages to it that were sent before the connection broke carry an older number.
    pub(crate) epoch: u32,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Index in [`crate::plan::Network::diallers`].
    pub(crate) dialler: usize,
    pub(crate) ends: [End; 2],
    /// Nothing that is sent arrives any more.
    pub(crate) is_broken: bool,
    /// The client dials again when it ends.
    pub(crate) is_wanted: bool,
}

impl Connection {
    /// A socket that was just opened, and the client's first frame.
    pub(crate) fn new(
        now_ns: u64,
        wall: Timestamp,
        dialler: usize,
        username: &str,
        parties: [Party; 2],
    ) -> (Self, Vec<u8>) {
        let mut hello = Vec::new();
        let settings = rialto_btp::session::Settings::default();
        let client = Session::client(settings, now_ns, wall, username, TOKEN, &mut hello);
        let server = Session::server(settings, now_ns, wall, None);
        let end = |party, session| End {
            party,
            session,
            is_open: true,
            serial: None,
            last_arrival_ns: now_ns,
            epoch: 0,
        };
        let ends = [end(parties[CLIENT], client), end(parties[SERVER], server)];
        let connection = Self {
            dialler,
            ends,
            is_broken: false,
            is_wanted: true,
        };
        (connection, hello)
    }
}

/// What a frame said, apart from the session.
#[derive(Debug)]
pub(crate) enum Heard {
    Nothing,
    Prepare(u32, Vec<u8>),
    Reply(u32, Vec<u8>),
    Failed(u32),
    /// The name, if the token is right.
    Authenticate(Option<String>),
    Established,
    Close,
}

impl Heard {
    /// Copies what `event` points to in `frame`.
    pub(crate) fn of(event: Event<'_>, frame: &[u8]) -> Self {
        match event {
            Event::Prepare { request_id, ilp } => Self::Prepare(request_id, frame[ilp].to_vec()),
            Event::Reply { request_id, ilp } => Self::Reply(request_id, frame[ilp].to_vec()),
            Event::PeerError { request_id, .. } | Event::BadReply { request_id } => {
                Self::Failed(request_id)
            }
            Event::Authenticate { username, token } => {
                let is_right = token.expose() == TOKEN.as_bytes();
                Self::Authenticate(username.filter(|_| is_right).map(str::to_owned))
            }
            Event::Established => Self::Established,
            Event::Close(_) => Self::Close,
            Event::Nothing | Event::Deferred | Event::Ping => Self::Nothing,
        }
    }
}
