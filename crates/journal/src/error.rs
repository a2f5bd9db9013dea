use crate::{Lsn, RECORD_BYTES_MAX};
use std::{error::Error, io, path::PathBuf, sync::Arc};

/// Why a journal could not be opened, or does not go on.
///
/// Up to and including [`JournalError::Replay`] these are refusals of an open:
/// nothing in the folder was changed, apart from the process id in its lock file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process holds the lock of the folder.
    #[error(
        "journal folder {} is in use by {}: stop that process or choose another folder",
        folder.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who holds it, when the lock file says so.
        pid: Option<u32>,
    },
    /// The folder holds other things and no journal.
    #[error(
        "folder {} holds no journal but is not empty (found `{entry}`): choose an empty folder",
        folder.display()
    )]
    NotAJournal {
        /// The folder.
        folder: PathBuf,
        /// One of the things in it.
        entry: String,
    },
    /// A file was written by another version of the format.
    #[error(
        "journal file {} has format version {found}, this program reads version {expected}: use the program that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it names.
        found: u32,
        /// The version this crate reads and writes.
        expected: u32,
    },
    /// Something that had been synced cannot be read, or the files do not fit together.
    #[error(
        "journal file {} is damaged at byte {offset} ({reason}), where record {next} belongs, and records up to {synced} were safely on disk: restore the folder from a backup",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
        /// The record that could not be read.
        next: Lsn,
        /// The last record known to have been synced.
        synced: Lsn,
    },
    /// The caller refused a record during recovery.
    #[error("journal file {} holds a record that cannot be replayed (after record {after})", path.display())]
    Replay {
        /// The file.
        path: PathBuf,
        /// The last record that was accepted; for a record of a checkpoint, 0.
        after: Lsn,
        /// The caller's reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A record is empty or larger than [`RECORD_BYTES_MAX`].
    #[error("a journal record has 1 to {RECORD_BYTES_MAX} bytes, this one has {bytes}")]
    RecordSize {
        /// Its size.
        bytes: usize,
    },
    /// A checkpoint was asked for at a record that does not exist yet.
    #[error("a checkpoint at record {at} lies ahead of the last record {last}")]
    CheckpointAhead {
        /// The record asked for.
        at: Lsn,
        /// The last one appended.
        last: Lsn,
    },
    /// The journal was closed and takes no more records.
    #[error("the journal is closed")]
    Closed,
    /// An operation failed that does not end the journal's life: opening, or writing a checkpoint.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A write or a sync failed. What is on disk is unknown from here on, so the
    /// journal stays stopped; opening it anew recovers what did reach the disk.
    #[error("the journal has stopped: could not {doing} {}: free or repair the disk, then restart", path.display())]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}
