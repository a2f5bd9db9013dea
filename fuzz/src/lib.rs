//! What every fuzz target does, as plain functions.
//!
//! The binaries in `fuzz_targets/` hand them bytes from libFuzzer. The tests `corpus.rs` of the crates
//! include the same files by path and replay the committed corpora on any toolchain.

pub mod btp;
pub mod ccp;
pub mod channel;
pub mod http1;
pub mod packet;
pub mod sim;
pub mod stream;
