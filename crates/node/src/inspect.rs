//! Reading a node's journal without running the node: what `rialto check --journal` and backups go
//! by. Nothing here writes or takes a lock, so it may look beside a running node.

use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use rialto_channel::ChannelId;
use rialto_journal::{FileDisk, JournalError, Replay, Torn};
use rialto_ledger::{Ledger, Record};
use rialto_packet::money::Asset;
use thiserror::Error;

/// The folder of the journal within a node's data folder.
pub const JOURNAL_FOLDER: &str = "journal";

const SEGMENT_EXTENSION: &str = "segment";
const CHECKPOINT_EXTENSION: &str = "checkpoint";

/// A running node may remove or lengthen a file while it is read. So often is the journal read
/// anew while what does not fit may have come from that.
const READS_MAX: u32 = 8;

/// What the journal says about everyone's money.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// The record after which the newest checkpoint was taken.
    pub checkpoint: Option<u64>,
    /// The last record; 0 when there is none yet.
    pub last: u64,
    /// All accounts, by number.
    pub accounts: Vec<AccountLine>,
    /// All assets, by code and scale.
    pub assets: Vec<AssetLine>,
    /// All settlement channels, by number.
    pub channels: Vec<ChannelLine>,
}

/// A settlement channel's line in the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelLine {
    /// Which.
    pub id: ChannelId,
    /// Name of the account; `None` once it is deleted.
    pub account: Option<String>,
    /// Where it stands, in one word.
    pub state: &'static str,
    /// What it is counted in.
    pub asset: Asset,
    /// In units of the asset. Positive: the node owes them over it.
    pub owed: i128,
}

/// An account's line in the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountLine {
    /// Its name.
    pub name: String,
    /// What it is counted in.
    pub asset: Asset,
    /// In units of the asset. Positive: the node owes them.
    pub balance: i128,
}

/// An asset's line in the books, in units of the asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetLine {
    /// Which.
    pub asset: Asset,
    /// The sum of the balances of all accounts in it.
    pub accounts: i128,
    /// The node's own position in it.
    pub position: i128,
    /// Paid out less what came in by settlements.
    pub settled: i128,
}

impl AssetLine {
    /// Zero in sound books: they are kept in double entry.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.accounts + self.position + self.settled
    }
}

/// What was found in a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The books; with damage, as far as they could be read, and empty when that is the checkpoint.
    pub books: Books,
    /// An unfinished end. The next start of the node drops it; beside a running node it may just
    /// be a write under way.
    pub torn: Option<Torn>,
    /// Why a node would refuse to start.
    pub damage: Option<Damage>,
}

/// Something that had been safe on disk and cannot be read or replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes; `None` for a sound record that does not fit the books.
    pub offset: Option<u64>,
    /// What is wrong, in a sentence that names the file.
    pub message: String,
}

impl Inspection {
    /// Whether a node may start on it: nothing is damaged, and every sum is zero.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_none() && self.books.assets.iter().all(|line| line.sum() == 0)
    }
}

/// Why nothing can be said about a journal.
#[derive(Debug, Error)]
pub enum InspectError {
    /// There is none.
    #[error("folder {} holds no journal", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// It cannot be read, or is of another version.
    #[error("{}", with_sources(.0))]
    Journal(#[source] JournalError),
    /// The operating system refused something.
    #[error("cannot read folder {}: {source}", folder.display())]
    System {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl InspectError {
    /// The exit code of conventions for services: 78 when it is the wrong folder or version, 1 else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } | Self::Journal(JournalError::Version { .. }) => 78,
            Self::Journal(_) | Self::System { .. } => 1,
        }
    }
}

/// The journal in `folder`, which is either the journal's own or the data folder around it.
#[must_use]
pub fn journal_folder(folder: &Path) -> PathBuf {
    let below = folder.join(JOURNAL_FOLDER);
    if below.is_dir() {
        below
    } else {
        folder.to_owned()
    }
}

/// Verifies every byte of the journal in `folder` and replays it.
///
/// # Errors
/// Those that leave nothing to be said; damage is part of what is found.
pub fn inspect(folder: &Path) -> Result<Inspection, InspectError> {
    let mut reads = 0;
    loop {
        let before = files(folder)?;
        let found = read(folder);
        reads += 1;
        let is_good = found.as_ref().is_ok_and(Inspection::is_sound);
        if is_good || reads == READS_MAX || files(folder)? == before {
            return found;
        }
    }
}

/// The journal's files and their sizes. While they stay the same, nobody changes the journal.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, u64>, InspectError> {
    let missing = || InspectError::Missing {
        folder: folder.to_owned(),
    };
    let system = |source| InspectError::System {
        folder: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        entries => entries.map_err(system)?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(system)?;
        if is_journal_file(&entry.path()) {
            // Removed since it was listed: a change like any other.
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            files.insert(entry.path(), size);
        }
    }
    if files.is_empty() {
        return Err(missing());
    }
    Ok(files)
}

/// Whether it is a segment or a checkpoint, by its name.
#[must_use]
pub fn is_journal_file(path: &Path) -> bool {
    let is = |wanted| {
        path.extension()
            .is_some_and(|extension| extension == wanted)
    };
    is(SEGMENT_EXTENSION) || is_checkpoint(path)
}

/// Whether it is a checkpoint, by its name.
#[must_use]
pub fn is_checkpoint(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == CHECKPOINT_EXTENSION)
}

fn read(folder: &Path) -> Result<Inspection, InspectError> {
    let mut ledger = Ledger::default();
    let (mut checkpoint, mut last) = (None, 0);
    let read = rialto_journal::inspect(&FileDisk::new(folder), |replay| {
        let bytes = match replay {
            Replay::Checkpoint { at, record } => {
                (checkpoint, last) = (Some(at.0), at.0);
                record
            }
            Replay::Record { payload, .. } => payload,
        };
        let record = Record::decode(bytes).map_err(Box::<dyn Error + Send + Sync>::from)?;
        ledger.apply(&record)?;
        if let Replay::Record { lsn, .. } = replay {
            last = lsn.0;
        }
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    });
    let (torn, damage) = match read {
        Ok(found) => {
            last = found.last.0;
            (found.torn, None)
        }
        Err(error) => (None, Some(damage(error).map_err(InspectError::Journal)?)),
    };
    if damage
        .as_ref()
        .is_some_and(|found| is_checkpoint(&found.path))
    {
        // A part of a state is no state.
        (ledger, checkpoint, last) = (Ledger::default(), None, 0);
    }
    Ok(Inspection {
        books: books(&ledger, checkpoint, last),
        torn,
        damage,
    })
}

/// What is wrong with the journal itself; other errors are handed back.
fn damage(error: JournalError) -> Result<Damage, JournalError> {
    let (path, offset) = match &error {
        JournalError::Damaged { path, offset, .. } => (path.clone(), Some(*offset)),
        JournalError::Replay { path, .. } => (path.clone(), None),
        JournalError::InUse { .. }
        | JournalError::NotAJournal { .. }
        | JournalError::Version { .. }
        | JournalError::RecordSize { .. }
        | JournalError::CheckpointAhead { .. }
        | JournalError::Closed
        | JournalError::Io { .. }
        | JournalError::Failed { .. } => return Err(error),
    };
    let message = with_sources(&error);
    Ok(Damage {
        path,
        offset,
        message,
    })
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn books(ledger: &Ledger, checkpoint: Option<u64>, last: u64) -> Books {
    let accounts: Vec<_> = ledger
        .accounts()
        .map(|account| AccountLine {
            name: account.settings.name.clone(),
            asset: account.settings.asset.clone(),
            balance: account.balance(),
        })
        .collect();
    let mut assets: Vec<_> = ledger
        .positions()
        .zip(ledger.settled())
        .map(|((asset, position, _), (_, settled))| AssetLine {
            asset: asset.clone(),
            accounts: accounts
                .iter()
                .filter(|account| account.asset == *asset)
                .map(|account| account.balance)
                .sum(),
            position,
            settled,
        })
        .collect();
    assets.sort_by(|one, other| one.asset.cmp(&other.asset));
    Books {
        checkpoint,
        last,
        accounts,
        assets,
        channels: ledger
            .channels()
            .values()
            .map(|known| ChannelLine {
                id: known.channel.id,
                account: ledger
                    .account(known.account)
                    .map(|account| account.settings.name.clone()),
                state: known.channel.state_word(),
                asset: known.channel.terms.asset.clone(),
                owed: known.channel.owed(),
            })
            .collect(),
    }
}
