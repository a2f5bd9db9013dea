//! The journal on disk: append, group sync, checkpoint, recover.
//!
//! A journal is a folder of numbered records. What a record means is the
//! caller's affair; here it is 1 to [`RECORD_BYTES_MAX`] opaque bytes with an
//! [`Lsn`]. The crate keeps three promises:
//!
//! - **Order.** Records come back in the order of [`Journal::append`], without gaps.
//! - **Durability.** After [`Journal::write`] a record survives the death of the
//!   process; after [`Journal::sync`] it survives a power cut.
//! - **Honesty.** Recovery gives a whole prefix of what was appended, holding at
//!   least everything that was synced, or it refuses and says where the damage is.
//!
//! It is not a database (no reading back of single records), knows nothing of
//! money, and starts no threads: [`Journal::run_syncer`] is the body of a thread
//! that the caller owns.
//!
//! ```
//! use rialto_journal::{Journal, Lsn, Options, Replay, SimDisk};
//! use std::{convert::Infallible, sync::Arc};
//!
//! let disk = SimDisk::new(); // or FileDisk::new("/var/lib/rialto/journal")
//! let options = Options { id: 7, ..Options::default() };
//! let nothing = |_: Replay<'_>| Ok::<(), Infallible>(());
//! let (journal, _) = Journal::open(Arc::new(disk.clone()), options, nothing)?;
//! journal.append(b"alice pays bob 5")?; // in memory, under the caller's lock
//! journal.write()?;                     // before anything is sent
//! journal.sync()?;                      // beside it, one at a time
//! drop(journal);
//!
//! disk.kill(); // kill -9, then a restart
//! let mut records = Vec::new();
//! let (_, recovered) = Journal::open(Arc::new(disk), options, |replay| {
//!     if let Replay::Record { lsn, payload } = replay {
//!         records.push((lsn, payload.to_vec()));
//!     }
//!     Ok::<(), Infallible>(())
//! })?;
//! assert_eq!(records, [(Lsn(1), b"alice pays bob 5".to_vec())]);
//! assert_eq!(recovered.last, Lsn(1));
//! # Ok::<(), rialto_journal::JournalError>(())
//! ```
//!
//! The bytes of the files are described in `docs/design/journal.md`.

mod disk;
mod error;
mod file_disk;
mod format;
mod journal;
mod recover;
mod sim_disk;

pub use disk::{Disk, DiskFile};
pub use error::JournalError;
pub use file_disk::FileDisk;
pub use format::{FORMAT_VERSION, RECORD_BYTES_MAX};
pub use journal::{BUFFER_BYTES_MAX, Journal, Options, SEGMENT_BYTES_DEFAULT};
pub use recover::{Recovered, Replay, Torn, inspect};
pub use sim_disk::{Fate, Faults, SimDisk};

use std::fmt;

/// The number of a record in its journal: 1 for the first, then one by one for
/// ever, across segments, checkpoints and restarts. 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
