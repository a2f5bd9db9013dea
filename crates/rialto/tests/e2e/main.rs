//! Whole nodes as users run them: separate processes, real sockets, other implementations.

#![expect(
    clippy::unwrap_used,
    reason = "where something is not as it should be, the test has failed"
)]

mod address;
mod as_engine;
mod auth;
mod backup;
mod bad_routes;
mod bench;
mod by_hand;
mod channel_kills;
mod channels;
mod connectors;
mod disk;
mod doctor;
mod engine;
mod harness;
mod hostile;
mod http;
mod interop;
mod kill;
mod long;
mod messages;
mod neighbours;
mod peering;
mod pins;
mod races;
mod rates;
mod raw;
mod real_engine;
mod refusals;
mod settlement;
mod settlement_kills;
mod statements;
mod stop;
mod strangers;
mod tls;
mod wire;
