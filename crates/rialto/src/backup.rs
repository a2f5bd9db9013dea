//! Copies of a node's books, taken while it runs.
//!
//! A journal is only ever appended to, and only to its last segment. So the newest checkpoint and the
//! segments of one listing, each up to the size it had at one moment, are the journal as it was after
//! some record. The node may remove files after a checkpoint of its own; then the copy is begun anew.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rialto_node::inspect::{
    Inspection, JOURNAL_FOLDER, is_checkpoint, is_journal_file, journal_folder,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{
    args::{BackupCommand, BackupNodeArgs, BackupVerifyArgs, ConfigArgs},
    failure::{Exit, Failure},
    journal,
    node::load,
};

/// What a backup says about itself: a journal that was cut off at its end cannot be told from an
/// earlier one.
const ABOUT_FILE: &str = "backup.json";

/// The content of [`ABOUT_FILE`].
#[derive(Serialize, Deserialize)]
struct About {
    last_record: u64,
}

/// How often a copy is begun before a node that keeps changing its files is said to be too busy.
const COPIES_MAX: u32 = 8;

pub(crate) fn backup(command: &BackupCommand) -> Result<(), Failure> {
    match command {
        BackupCommand::Create(args) => create(args),
        BackupCommand::Verify(args) => verify(args),
        BackupCommand::Restore(args) => restore(args),
    }
}

fn create(args: &BackupNodeArgs) -> Result<(), Failure> {
    let backup = &args.folder;
    if backup.symlink_metadata().is_ok() {
        let message = format!("{} exists already: name a new folder", backup.display());
        return Err(Failure::failed(message));
    }
    let source = data_dir(&args.config)?.join(JOURNAL_FOLDER);
    let parent = parent(backup);
    fs::create_dir_all(parent).map_err(cannot("make", parent))?;
    let (copy, found) = take(&source, parent)?;
    write_about(copy.path(), &found).map_err(cannot("write in", copy.path()))?;
    put(copy, backup)?;
    done(args, backup, &found, "copied to")
}

/// A sound copy of a journal that may be in use, in a new folder within `parent`.
fn take(source: &Path, parent: &Path) -> Result<(TempDir, Inspection), Failure> {
    let before = journal::read(source)?;
    journal::sound(&before)?;
    for _ in 0..COPIES_MAX {
        let copy = new_folder(parent)?;
        match copy_journal(source, copy.path()) {
            // A checkpoint of the node has just replaced it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            copied => copied.map_err(cannot("copy", source))?,
        }
        let found = journal::read(copy.path())?;
        // All that was there when the command was given is in it, whatever happened since.
        if found.is_sound() && found.books.last >= before.books.last {
            return Ok((copy, found));
        }
    }
    let message = format!("{} keeps changing: try again", source.display());
    Err(Failure::new(Exit::TryAgain, message))
}

fn verify(args: &BackupVerifyArgs) -> Result<(), Failure> {
    check_whole(&args.folder, &journal::read(&journal_folder(&args.folder))?)?;
    journal::check(&args.folder, args.output)
}

fn restore(args: &BackupNodeArgs) -> Result<(), Failure> {
    let backup = journal::read(&args.folder)?;
    journal::sound(&backup)?;
    check_whole(&args.folder, &backup)?;
    let data_dir = data_dir(&args.config)?;
    fs::create_dir_all(&data_dir).map_err(cannot("make", &data_dir))?;
    let mut entries = fs::read_dir(&data_dir).map_err(cannot("read", &data_dir))?;
    if entries.next().is_some() {
        let message = format!(
            "{} is not empty: move what is in it away first",
            data_dir.display()
        );
        return Err(Failure::failed(message));
    }
    let (copy, found) = take_all(&args.folder, &backup, &data_dir)?;
    // Should a node have been started in the meantime, its folder is in the way of this one.
    let folder = data_dir.join(JOURNAL_FOLDER);
    put(copy, &folder)?;
    done(args, &folder, &found, "restored to")
}

/// A copy of a backup in a new folder within `parent`, with the same books.
fn take_all(
    folder: &Path,
    backup: &Inspection,
    parent: &Path,
) -> Result<(TempDir, Inspection), Failure> {
    let copy = new_folder(parent)?;
    copy_journal(folder, copy.path()).map_err(cannot("copy", folder))?;
    let found = journal::read(copy.path())?;
    if !found.is_sound() || found.books != backup.books {
        let message = format!(
            "the copy in {} differs from the backup: nothing was restored",
            parent.display()
        );
        return Err(Failure::failed(message));
    }
    Ok((copy, found))
}

fn write_about(folder: &Path, found: &Inspection) -> io::Result<()> {
    let last_record = found.books.last;
    let mut file = create_private(&folder.join(ABOUT_FILE))?;
    serde_json::to_writer(&mut file, &About { last_record })?;
    file.sync_all()
}

/// Refuses a backup that ends before the record it once ended with. A copy of a data folder, which
/// does not say, is taken as it is.
fn check_whole(folder: &Path, found: &Inspection) -> Result<(), Failure> {
    let path = folder.join(ABOUT_FILE);
    let about = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        about => about.map_err(cannot("read", &path))?,
    };
    let About { last_record } = serde_json::from_slice(&about)
        .map_err(|error| Failure::failed(format!("{} is damaged: {error}", path.display())))?;
    let last = found.books.last;
    if found.is_sound() && last != last_record {
        let message = format!(
            "{} was cut off: it ends with record {last}, and was made with {last_record}",
            folder.display()
        );
        return Err(Failure::failed(message));
    }
    Ok(())
}

fn done(
    args: &BackupNodeArgs,
    folder: &Path,
    found: &Inspection,
    what: &str,
) -> Result<(), Failure> {
    let text = format!(
        "books of {} accounts up to record {} {what} {}",
        found.books.accounts.len(),
        found.books.last,
        folder.display()
    );
    args.output.done(&journal::to_json(folder, found), &text)
}

fn data_dir(args: &ConfigArgs) -> Result<PathBuf, Failure> {
    Ok(load(args)?.config.node.data_dir)
}

/// A folder that nobody else may look into, and that goes away unless it is put in its place.
fn new_folder(parent: &Path) -> Result<TempDir, Failure> {
    let made = tempfile::Builder::new()
        .prefix(".rialto-copy-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent);
    made.map_err(cannot("make a folder in", parent))
}

/// Gives a copy its name, once all of it is safe on disk.
fn put(copy: TempDir, name: &Path) -> Result<(), Failure> {
    sync_folder(copy.path())
        .and_then(|()| fs::rename(copy.path(), name))
        .and_then(|()| sync_folder(parent(name)))
        .map_err(cannot("make", name))?;
    // Nothing is left under the old name.
    let _ = copy.keep();
    Ok(())
}

/// Copies the newest checkpoint and then the segments, each as long as it is when it is opened, to
/// files that only their owner may read.
fn copy_journal(from: &Path, to: &Path) -> io::Result<()> {
    let entries = fs::read_dir(from)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| is_journal_file(path));
    // Names are numbers of one width, so that this is the order in which they were begun.
    paths.sort();
    let (checkpoints, segments): (Vec<_>, Vec<_>) =
        paths.into_iter().partition(|path| is_checkpoint(path));
    for path in checkpoints.iter().next_back().into_iter().chain(&segments) {
        let source = File::open(path)?;
        let size = source.metadata()?.len();
        let mut copy = create_private(&to.join(path.file_name().unwrap_or_default()))?;
        io::copy(&mut source.take(size), &mut copy)?;
        copy.sync_all()?;
    }
    Ok(())
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

fn cannot(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.to_owned();
    move |error| Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        thread,
    };

    use rialto_journal::{FileDisk, Journal, Lsn, Options};
    use rialto_ledger::{
        AccountId, AccountSettings, AccountTerms, Commit, Ledger, Record, Relation,
    };

    use super::*;

    fn account(id: u32, name: &str) -> Record {
        let settings = AccountSettings {
            name: name.to_owned(),
            incoming_tokens: Vec::new(),
            terms: AccountTerms::new(Relation::Peer, "USD/9".parse().unwrap()).into(),
        };
        Record::AccountPut {
            id: AccountId(id),
            settings: Box::new(settings),
        }
    }

    /// Two accounts, then one unit from the first to the second per record, in small segments with
    /// a checkpoint every hundred records, until told to stop.
    fn keep_books(folder: &Path, written: &AtomicU64, stop: &AtomicBool) {
        let options = Options {
            id: 7,
            segment_bytes: 1000,
        };
        let nothing = |_: rialto_journal::Replay<'_>| Ok::<(), io::Error>(());
        let (journal, _) =
            Journal::open(Arc::new(FileDisk::new(folder)), options, nothing).unwrap();
        let mut ledger = Ledger::default();
        let mut append = |record: &Record| {
            ledger.apply(record).unwrap();
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let lsn = journal.append(&bytes).unwrap();
            if lsn.0 % 3 == 0 {
                written.store(journal.write().unwrap().0, Ordering::Release);
            }
            if lsn.0 % 100 == 0 {
                let state = ledger.snapshot().map(|record| {
                    let mut bytes = Vec::new();
                    record.encode(&mut bytes);
                    bytes
                });
                journal.checkpoint(Lsn(lsn.0), state).unwrap();
            }
        };
        append(&account(1, "alice"));
        append(&account(2, "bob"));
        while !stop.load(Ordering::Relaxed) {
            append(&Record::Commit(Commit {
                from: AccountId(1),
                amount_in: 1,
                to: AccountId(2),
                amount_out: 1,
            }));
        }
    }

    /// A test that fails must not leave the writer running, and the test with it.
    struct StopOnDrop<'a>(&'a AtomicBool);

    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_copy_beside_checkpoints_and_new_segments_is_a_whole_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join(JOURNAL_FOLDER);
        let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| keep_books(&source, &written, &stop));
            let _stop = StopOnDrop(&stop);
            let (mut taken, mut tries) = (0, 0);
            while taken < 20 {
                let before = written.load(Ordering::Acquire);
                if before < 2 {
                    thread::yield_now();
                    continue;
                }
                tries += 1;
                match take(&source, folder.path()) {
                    Ok((_copy, found)) => {
                        let books = found.books;
                        assert!(books.last >= before);
                        let balances: Vec<_> =
                            books.accounts.iter().map(|line| line.balance).collect();
                        let moved = i128::from(books.last) - 2;
                        assert_eq!(balances, [-moved, moved]);
                        taken += 1;
                    }
                    // This journal is replaced more often than any node's.
                    Err(failure) => assert_eq!(failure.exit, Exit::TryAgain, "{failure}"),
                }
            }
            println!(
                "reliability: backup | {taken} copies beside checkpoints and new segments, {tries} \
                 tries, {} records | {taken} whole prefixes",
                written.load(Ordering::Acquire)
            );
        });
    }

    /// Books with this many records after the two accounts, and a checkpoint every hundred.
    fn books(folder: &Path, count: u64) {
        let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| keep_books(folder, &written, &stop));
            let _stop = StopOnDrop(&stop);
            while written.load(Ordering::Acquire) < count {
                thread::yield_now();
            }
        });
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_older_checkpoint_that_was_left_over_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join(JOURNAL_FOLDER);
        books(&source, 250);
        let before = journal::read(&source).unwrap();
        fs::write(source.join("00000000000000000001.checkpoint"), "left over").unwrap();
        let (copy, found) = take(&source, folder.path()).unwrap();
        assert_eq!(found.books, before.books);
        let checkpoints = names(copy.path());
        let checkpoints = checkpoints
            .iter()
            .filter(|name| name.ends_with(".checkpoint"));
        assert_eq!(checkpoints.count(), 1);
    }

    #[test]
    fn a_backup_that_changes_while_it_is_copied_is_not_restored() {
        let folder = tempfile::tempdir().unwrap();
        let [backup, other, data] =
            ["backup", "other", "data"].map(|name| folder.path().join(name));
        books(&backup, 50);
        books(&other, 150);
        fs::create_dir(&data).unwrap();
        let before = journal::read(&backup).unwrap();
        let failure = take_all(&other, &before, &data).unwrap_err();
        assert!(failure.message.contains("differs"), "{failure}");
        assert!(names(&data).is_empty(), "nothing is left behind");
        let (copy, found) = take_all(&backup, &before, &data).unwrap();
        assert_eq!(found.books, before.books);
        put(copy, &data.join(JOURNAL_FOLDER)).unwrap();
        assert_eq!(names(&data), [JOURNAL_FOLDER]);
    }
}
