//! Links over real sockets, without a core: each test says what the core would do.

mod btp;
mod http_client;
mod http_server;
mod spsp;
mod support;
mod tls;
