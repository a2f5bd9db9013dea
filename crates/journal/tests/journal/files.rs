//! The same on a real file system, and what only a real folder can refuse.

use super::*;
use rialto_journal::FileDisk;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A folder of its own for one test, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("rialto-journal-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Self(folder)
    }

    fn open(&self) -> Result<(Journal, Recovered, State), JournalError> {
        let mut state = State::new();
        let disk = Arc::new(FileDisk::new(&self.0));
        let (journal, recovered) = Journal::open(disk, options(), |r| apply(&mut state, r))?;
        Ok((journal, recovered, state))
    }

    fn refusal(&self) -> JournalError {
        match self.open() {
            Ok(_) => panic!("it opened"),
            Err(error) => error,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Names and contents, without the lock file.
fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .filter(|(name, _)| name != "lock")
        .collect();
    files.sort();
    files
}

#[test]
fn a_folder_holds_a_journal() {
    let folder = Folder::new("round-trip");
    let (journal, ..) = folder.open().unwrap();
    append_synced(&journal, 1..=30);
    journal.checkpoint(Lsn(25), payloads(1..=25)).unwrap();
    append(&journal, 31..=40);
    journal.write().unwrap();
    drop(journal);
    let (journal, recovered, state) = folder.open().unwrap();
    assert_eq!(
        (recovered.checkpoint, recovered.torn),
        (Some(Lsn(25)), None)
    );
    assert_eq!(state, payloads(1..=40));
    journal.close().unwrap();
}

#[test]
fn files_are_the_same_bytes_as_on_the_simulated_disk() {
    let folder = Folder::new("same-bytes");
    let sim = SimDisk::new();
    for journal in [folder.open().unwrap().0, open(&sim).unwrap().0] {
        append_synced(&journal, 1..=30);
        journal.checkpoint(Lsn(25), payloads(1..=25)).unwrap();
        journal.close().unwrap();
    }
    assert_eq!(listing(&folder.0), contents(&sim));
}

#[test]
fn a_folder_in_use_is_refused_with_the_process() {
    let folder = Folder::new("in-use");
    let (journal, ..) = folder.open().unwrap();
    append_synced(&journal, 1..=3);
    let before = listing(&folder.0);
    let pid = std::process::id();
    let error = folder.refusal();
    assert!(matches!(&error, JournalError::InUse { pid: Some(found), .. } if *found == pid));
    assert_eq!(
        error.to_string(),
        format!(
            "journal folder {} is in use by process {pid}: stop that process or choose another folder",
            folder.0.display()
        )
    );
    assert_eq!(listing(&folder.0), before);
    drop(journal);
    folder.open().unwrap();
}

#[test]
fn another_version_is_refused_and_left_alone() {
    let folder = Folder::new("version");
    let (journal, ..) = folder.open().unwrap();
    append_synced(&journal, 1..=30);
    journal.checkpoint(Lsn(25), payloads(1..=25)).unwrap();
    drop(journal);
    for (name, bytes) in listing(&folder.0) {
        let mut other = bytes.clone();
        other[8..12].copy_from_slice(&7_u32.to_le_bytes());
        fs::write(folder.0.join(&name), other).unwrap();
        let before = listing(&folder.0);
        let error = folder.refusal();
        let JournalError::Version {
            path,
            found: 7,
            expected: 1,
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!(path, folder.0.join(&name));
        assert_eq!(listing(&folder.0), before);
        fs::write(folder.0.join(&name), bytes).unwrap();
    }
}

#[test]
fn a_folder_with_other_things_is_refused_and_left_alone() {
    let folder = Folder::new("foreign");
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(folder.0.join("thesis.txt"), "ten years of work").unwrap();
    let error = folder.refusal();
    assert!(matches!(&error, JournalError::NotAJournal { entry, .. } if entry == "thesis.txt"));
    assert_eq!(
        fs::read_dir(&folder.0).unwrap().count(),
        1,
        "not even a lock file"
    );
}

#[test]
fn an_inspection_needs_no_lock_and_leaves_no_trace() {
    let folder = Folder::new("inspect");
    let disk = FileDisk::new(&folder.0);
    let mut state = State::new();
    let nothing = inspect(&disk, |replay| apply(&mut state, replay)).unwrap();
    assert_eq!(nothing, Recovered::default());
    assert!(!folder.0.exists());

    let (journal, ..) = folder.open().unwrap();
    append_synced(&journal, 1..=3);
    let before = listing(&folder.0);
    assert_eq!(
        inspect(&disk, |replay| apply(&mut state, replay))
            .unwrap()
            .last,
        Lsn(3)
    );
    assert_eq!(state, payloads(1..=3));
    assert_eq!(listing(&folder.0), before);
}
