//! Links over real sockets, without a core: each test says what the core would do.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod btp;
mod callback;
mod http2;
mod http_client;
mod http_server;
mod spsp;
mod support;
mod tls;
