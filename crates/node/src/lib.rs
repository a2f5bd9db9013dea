//! Wiring: configuration, threads, the effect gate, signals. It decides nothing about packets.
//!
//! [`run()`] is the whole life of a node: bind, recover, serve, drain. [`config`] is what an operator
//! writes; [`check`] says what is wrong with it without touching anything. [`inspect`] reads a
//! journal without a node.

pub mod config;
mod engines;
mod gate;
mod handle;
pub mod inspect;
mod log;
mod open_files;
pub mod rate_feed;
mod run;
pub mod secrets;
mod shell;
mod threads;

pub use rialto_admin::invite_text::InviteText;
pub use run::{ENDPOINTS_FILE, Endpoints, RunError, check, run};
