//! The routing table, and which of several routes is taken.
//!
//! * [`Table`]: values by prefix; longest match by segments, for a million prefixes as for ten.
//! * [`Candidates`]: the routes for one prefix in order of preference, and the choice among them.
//! * [`Health`]: whether a next hop has failed lately.
//! * [`Damping`]: routes that come and go too often are not used for a while.
//!
//! Nothing here reads a clock or knows a wire format: time is passed in, in nanoseconds of a clock that
//! only goes forward, and a path is bytes.
//!
//! ```
//! use rialto_packet::Addr;
//! use rialto_routing::Table;
//!
//! let mut table = Table::new([1, 2]);
//! table.put("g.a", || "short");
//! table.put("g.a.b", || "long");
//! let find = |address| table.longest_match(Addr::new(address).unwrap(), |value| Some(*value));
//! assert_eq!(find("g.a.b.c"), Some(("g.a.b", "long")));
//! assert_eq!(find("g.a.bc"), Some(("g.a", "short")));
//! assert_eq!(find("g.ab"), None);
//! ```

mod choice;
mod damping;
mod health;
mod table;

pub use choice::{Candidate, Candidates, Kin, Loss, Source};
pub use damping::Damping;
pub use health::Health;
pub use smol_str::SmolStr;
pub use table::{SHARDS, Table};
