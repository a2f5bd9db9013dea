//! Links: how packets come in and go out.
//!
//! Each I/O thread has one [`Worker`] with its own connections: BTP over WebSocket, ILP over HTTP as
//! server and client, SPSP as server. What happens on them becomes a
//! [`rialto_connector::Input`] in the worker's [`Inbox`]; the node gives them to the core and brings
//! back each [`rialto_connector::Action`] by [`Worker::perform`]. Links decide nothing: no balances,
//! no routes, no timeouts of packets.
//!
//! [`spsp_client`] asks other servers where to pay.
//!
//! | File | What |
//! |---|---|
//! | `worker.rs` | one thread's links; what the core wants done |
//! | `inbox.rs` | inputs that wait for the core |
//! | `directory.rs` | accounts, tokens, peers: who may come in, where packets go |
//! | `server.rs` | the node listener; requests that are no packets |
//! | `http1.rs` | heads and chunks of HTTP/1.1, as values |
//! | `http1_server.rs` | packets that come by HTTP/1.1 |
//! | `http2_server.rs`, `http2_frames.rs` | requests that come by HTTP/2; a bound on frames that are none |
//! | `callback.rs` | packets whose answer comes in a request of its own |
//! | `newcomers.rs` | connections whose client has not said who it is |
//! | `waiting.rs` | HTTP requests that wait for their answer |
//! | `http_client.rs` | packets to one peer by HTTP |
//! | `http1_client.rs` | the same over one HTTP/1.1 connection |
//! | `http2_client.rs` | the same over one HTTP/2 connection |
//! | `alarm.rs` | the time that a peer is given |
//! | `scratch.rs`, `rewind.rs` | what connections read into; bytes read that are given back |
//! | `btp.rs` | one BTP session over a WebSocket |
//! | `dial.rs` | BTP connections that are kept up |
//! | `spsp.rs`, `spsp_client.rs` | payment pointers, both ends |
//! | `rates_client.rs` | exchange rates from a server outside |
//! | `probe.rs` | what is wrong with the way to a neighbour |
//! | `once.rs` | one request to a node that is not yet a neighbour |
//! | `engine_client.rs` | settlement engines |
//! | `connect.rs`, `tls.rs` | outgoing connections, TLS settings |

mod alarm;
mod body;
mod btp;
mod callback;
mod callers;
mod clock;
mod connect;
mod dial;
mod directory;
pub mod engine_client;
pub mod http1;
mod http1_client;
mod http1_server;
mod http2_client;
mod http2_frames;
mod http2_server;
mod http_client;
mod inbox;
mod newcomers;
mod once;
mod pace;
mod probe;
pub mod rates_client;
mod rewind;
mod scratch;
mod server;
mod spsp;
pub mod spsp_client;
pub mod tls;
mod waiting;
mod worker;

pub use body::PACKET_BODY_BYTES_MAX;
pub use btp::{OUTBOX_BYTES_MAX, OUTBOX_PREPARE_BYTES_MAX};
pub use callback::{ANSWERS_BYTES_MAX, CALLBACK_MARGIN, CALLBACKS_MAX, CallbackRefusal, Callbacks};
pub use callers::{CALLERS_MAX, CALLERS_PER_ADDRESS_MAX, Caller, Callers};
pub use clock::Clock;
pub use connect::{CONNECT_TIMEOUT, ConnectError, Stream, connect};
pub use directory::{
    Account, AuthCounters, BtpPeer, Directory, HttpPeer, HttpPeerError, Known, Opened, hash_token,
};
pub use http_client::{HTTP_LANES_MAX, HTTP_QUEUE_BYTES_MAX, HTTP_QUEUE_LEN_MAX};
pub use inbox::{INBOX_LEN_MAX, Inbox};
pub use newcomers::{NewcomerCounters, NewcomerLimits};
pub use once::{EXCHANGE_BYTES_MAX, EXCHANGE_TIMEOUT, exchange};
pub use probe::{Finding, PROBE_STEP_TIMEOUT, Probe, Verdict, probe};
pub use server::Greeting;
pub use server::{BODY_TIMEOUT, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT, HTTP2_STREAMS_MAX};
pub use spsp::{SpspAnswer, SpspQuery, SpspRefusal};
pub use tls::{ClientTls, Identity, ServerTls, TlsError};
pub use worker::{Worker, WorkerConfig};
