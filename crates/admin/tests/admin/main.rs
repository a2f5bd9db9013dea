//! The admin API from outside, on a node around a real core.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod api;
mod by_hand;
mod node;
mod openapi;
mod serve;
