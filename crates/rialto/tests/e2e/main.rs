//! Whole nodes as users run them: separate processes, real sockets, other implementations.

mod harness;
mod interop;
mod kill;
mod long;
mod raw;
mod refusals;
