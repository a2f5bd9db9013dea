use crate::{Disk, DiskFile, JournalError};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A disk in memory that can lose power, fail and fill up, the same way each time.
///
/// What was written but not synced is kept apart, in order, down to the single
/// write: [`SimDisk::crash`] decides the fate of each piece of it. Clones are
/// the same disk; what was opened before a crash or a kill no longer works.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// Things that go wrong from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The disk holds at most so many bytes: a write beyond stops where it is full.
    pub capacity_bytes: Option<u64>,
    /// Syncs fail. As on a real system, what was to be synced stays readable, counts as
    /// synced, and is gone after a crash.
    pub syncs_fail: bool,
    /// After so many more changing operations the process is dead: the write it died in
    /// is half done, and everything fails.
    pub operations_left: Option<u64>,
}

/// What a crash does to a piece of an unsynced write, or to an unsynced change of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It had reached the disk.
    Kept,
    /// It had not.
    Lost,
    /// The file had grown, the new content had not reached it: zeros, as far as
    /// the file was shorter before. For a change of the folder the same as [`Fate::Lost`].
    Zeroed,
}

#[derive(Default)]
struct State {
    /// Counts crashes and kills; an open file knows the one it belongs to.
    epoch: u64,
    /// What the process sees.
    seen: Tree,
    /// What would be there after losing everything unsynced.
    safe: Tree,
    /// The difference, in the order in which it was made.
    unsynced: Vec<Change>,
    files_made: usize,
    faults: Faults,
    operations: u64,
}

#[derive(Clone, Default)]
struct Tree {
    names: BTreeMap<String, usize>,
    contents: BTreeMap<usize, Vec<u8>>,
}

enum Change {
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        size: usize,
    },
    Create {
        name: String,
        file: usize,
    },
    Rename {
        from: String,
        to: String,
        file: usize,
    },
    Remove {
        name: String,
    },
}

impl Change {
    fn file(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. } | Self::Truncate { file, .. } => Some(*file),
            Self::Create { .. } | Self::Rename { .. } | Self::Remove { .. } => None,
        }
    }
}

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write {
                file,
                offset,
                bytes,
            } => {
                let content = self.contents.entry(*file).or_default();
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }
            Change::Truncate { file, size } => {
                self.contents.entry(*file).or_default().resize(*size, 0);
            }
            Change::Create { name, file } => {
                self.names.insert(name.clone(), *file);
            }
            Change::Rename { from, to, file } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *file);
            }
            Change::Remove { name } => {
                self.names.remove(name);
            }
        }
    }

    fn content(&self, name: &str) -> Option<&Vec<u8>> {
        let file = self.names.get(name)?;
        // A file whose entry was synced but whose content never was is empty.
        Some(self.contents.get(file).unwrap_or(const { &Vec::new() }))
    }

    fn used_bytes(&self) -> usize {
        self.names
            .keys()
            .filter_map(|name| self.content(name))
            .map(Vec::len)
            .sum()
    }
}

impl State {
    /// Counts a changing operation; an error when the process did not live to finish it.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.faults.operations_left {
            Some(0) => Err(io::Error::other("the process is dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.unsynced.push(change);
    }

    /// Makes those changes durable, in order.
    fn settle(&mut self, is_meant: impl Fn(&Change) -> bool) {
        for change in self.unsynced.extract_if(.., |change| is_meant(change)) {
            self.safe.apply(&change);
        }
    }

    fn sync(&mut self, is_meant: impl Fn(&Change) -> bool) -> io::Result<()> {
        self.operate()?;
        if self.faults.syncs_fail {
            self.unsynced.retain(|change| !is_meant(change));
            return Err(io::Error::other("the disk failed to sync"));
        }
        self.settle(is_meant);
        Ok(())
    }
}

impl SimDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// How many changing operations were tried so far (create, write, truncate, sync, rename, remove).
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// The process dies; what it wrote stays, synced or not.
    pub fn kill(&self) {
        self.state.lock().epoch += 1;
    }

    /// The power goes. Unsynced writes are cut where they cross multiples of
    /// `piece_bytes` in their file, and `fate` is asked for each piece and each
    /// change of the folder, in the order in which they were made.
    ///
    /// # Panics
    /// When `piece_bytes` is 0.
    pub fn crash(&self, piece_bytes: usize, mut fate: impl FnMut() -> Fate) {
        assert!(piece_bytes > 0, "a piece has at least one byte");
        let mut state = self.state.lock();
        state.epoch += 1;
        for change in std::mem::take(&mut state.unsynced) {
            match change {
                Change::Write {
                    file,
                    mut offset,
                    bytes,
                } => {
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let count = rest.len().min(piece_bytes - offset % piece_bytes);
                        let (piece, after) = rest.split_at(count);
                        match fate() {
                            Fate::Kept => {
                                let bytes = piece.to_vec();
                                state.safe.apply(&Change::Write {
                                    file,
                                    offset,
                                    bytes,
                                });
                            }
                            Fate::Zeroed => {
                                let had = state.safe.contents.get(&file).map_or(0, Vec::len);
                                let size = had.max(offset + count);
                                state.safe.apply(&Change::Truncate { file, size });
                            }
                            Fate::Lost => {}
                        }
                        offset += count;
                        rest = after;
                    }
                }
                Change::Truncate { .. }
                | Change::Create { .. }
                | Change::Rename { .. }
                | Change::Remove { .. } => {
                    if fate() == Fate::Kept {
                        state.safe.apply(&change);
                    }
                }
            }
        }
        let State { safe, .. } = &mut *state;
        let Tree { names, contents } = safe;
        contents.retain(|file, _| names.values().any(|named| named == file));
        state.seen = state.safe.clone();
    }

    /// The content of a file, as the process sees it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.state.lock().seen.content(name).cloned()
    }

    /// Puts a file there, synced, whatever the faults: for a test to damage things.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let file = state.files_made;
        state.files_made += 1;
        let name = name.to_owned();
        let create = Change::Create { name, file };
        let write = Change::Write {
            file,
            offset: 0,
            bytes,
        };
        for change in [&create, &write] {
            state.seen.apply(change);
            state.safe.apply(change);
        }
    }

    fn file(&self, state: &State, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            file,
            epoch: state.epoch,
        })
    }
}

impl Disk for SimDisk {
    fn folder(&self) -> &Path {
        Path::new("/sim")
    }

    fn lock(&self) -> Result<(), JournalError> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().seen.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        let file = state.seen.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(&state, *file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.operate()?;
        if state.seen.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files_made;
        state.files_made += 1;
        state.change(Change::Create {
            name: name.to_owned(),
            file,
        });
        Ok(self.file(&state, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate()?;
        let file = *state.seen.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        state.change(Change::Rename { from, to, file });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate()?;
        if !state.seen.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Remove {
            name: name.to_owned(),
        });
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.state.lock().sync(|change| change.file().is_none())
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
    epoch: u64,
}

impl SimFile {
    /// Works on the disk, unless the process that opened the file is gone.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        if state.epoch != self.epoch {
            return Err(io::Error::other("the process is dead"));
        }
        work(&mut state)
    }
}

/// A place in a file as an index into memory.
fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.seen.contents.get(&self.file).map_or(0, Vec::len) as u64))
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.with(|state| {
            let content = state
                .seen
                .contents
                .get(&self.file)
                .map_or(&[][..], Vec::as_slice);
            let offset = index(offset)?;
            let from = content
                .get(offset..)
                .and_then(|rest| rest.get(..bytes.len()));
            bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state| {
            let offset = index(offset)?;
            let mut outcome = state.operate();
            let mut count = if outcome.is_ok() {
                bytes.len()
            } else {
                bytes.len() / 2
            };
            if let Some(capacity) = state.faults.capacity_bytes {
                let size = state.seen.contents.get(&self.file).map_or(0, Vec::len);
                let free = index(capacity)?.saturating_sub(state.seen.used_bytes());
                let fits = (size + free).saturating_sub(offset);
                if count > fits {
                    count = fits;
                    outcome = Err(io::ErrorKind::StorageFull.into());
                }
            }
            if count > 0 {
                let bytes = bytes[..count].to_vec();
                state.change(Change::Write {
                    file: self.file,
                    offset,
                    bytes,
                });
            }
            outcome
        })
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.with(|state| {
            state.operate()?;
            state.change(Change::Truncate {
                file: self.file,
                size: index(size)?,
            });
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state| state.sync(|change| change.file() == Some(self.file)))
    }
}

/// Where a simulated disk is said to be, in messages.
impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimDisk")
            .field(&PathBuf::from(self.folder()))
            .finish()
    }
}
