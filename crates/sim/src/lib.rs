//! Deterministic simulation of whole nodes.
//!
//! A [`run`] is a network of nodes in one thread from one seed: the real core, real BTP frames on
//! simulated wires, the real journal and its recovery on a simulated disk, and the real effect gate.
//! The seed draws the network's limits, the load, and everything that goes wrong. After each step
//! the invariants are checked against naive books that are kept from the bytes on the wires alone.
//!
//! It is not a model of a node: the only code of the node that is written again here is the order of
//! a step in the shell, because the real one is made of threads and sockets.
//! `docs/design/simulation.md` says what is simulated and what is checked.
//!
//! ```
//! let report = rialto_sim::run(1, &rialto_sim::Options::default()).expect("seed 1 passes");
//! assert!(report.tally.hops > 0);
//! ```

/// A closed set of which each has a name.
macro_rules! words {
    (
        $(#[doc = $about:literal])* pub enum $set:ident {
            $($(#[doc = $doc:literal])* $name:ident = $word:literal,)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $set {
            $($(#[doc = $doc])* $name,)*
        }

        impl $set {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

mod change;
mod channel;
mod check;
mod edge;
mod engine;
mod fault;
// The one that the node uses.
#[allow(dead_code, reason = "the node asks it for more than a step needs")]
#[path = "../../node/src/gate.rs"]
mod gate;
mod http;
mod learn;
mod mutant;
mod node;
mod plan;
mod rng;
mod settle;
mod story;
mod topology;
mod trouble;
mod trust;
mod wire;
mod world;

pub use check::Tally;
pub use learn::{Converged, Phase, converge};
pub use mutant::Mutant;
pub use story::story;
pub use topology::{NODES_MAX, Shape, Topology};
pub use trouble::{Trouble, Troubles};
pub use world::{Failure, MUTANT_SEEDS_MAX, Options, Report, catch, run, run_bytes};
