//! Several threads on one journal.

use super::*;
use rialto_journal::{Disk, DiskFile, Fate, Faults, FileDisk};
use std::{
    io,
    path::Path,
    sync::{Mutex, mpsc},
    thread::{scope, spawn},
    time::Duration,
};

const THREADS: usize = 4;
const BATCHES: usize = 50;

#[test]
fn the_order_of_records_is_the_order_of_decisions() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    let decisions = Mutex::new(State::new());
    let mut told = Vec::new();
    scope(|threads| {
        let syncer = threads.spawn(|| {
            let mut told = Vec::new();
            journal
                .run_syncer(|| Duration::ZERO..=Duration::ZERO, |lsn| told.push(lsn))
                .unwrap();
            told
        });
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (journal, decisions) = (&journal, &decisions);
                threads.spawn(move || {
                    for batch in 0..BATCHES {
                        let last = (0..3).map(|packet| {
                            let mut decisions = decisions.lock().unwrap();
                            let record = format!("{thread} {batch} {packet}").into_bytes();
                            let lsn = journal.append(&record).unwrap();
                            decisions.push(record);
                            assert_eq!(lsn.0, decisions.len() as u64);
                            lsn
                        });
                        let last = last.max().unwrap();
                        assert!(journal.write().unwrap() >= last);
                        if batch % 20 == 0 {
                            let state = decisions.lock().unwrap().clone();
                            journal.checkpoint(Lsn(state.len() as u64), state).unwrap();
                        }
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        journal.close().unwrap();
        told = syncer.join().unwrap();
    });
    assert!(told.is_sorted());
    assert_eq!(told.last(), Some(&Lsn((THREADS * BATCHES * 3) as u64)));
    disk.crash(512, || Fate::Lost);
    assert_eq!(look(&disk).unwrap().1, decisions.into_inner().unwrap());
}

#[test]
fn the_syncer_ends_with_the_failure_of_another_thread() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    let journal = Arc::new(journal);
    let syncer = spawn({
        let journal = Arc::clone(&journal);
        move || journal.run_syncer(|| Duration::ZERO..=Duration::ZERO, |_| ())
    });
    disk.set_faults(Faults {
        operations_left: Some(0),
        ..Faults::default()
    });
    journal.append(b"record").unwrap();
    journal.write().unwrap_err();
    assert!(matches!(
        syncer.join().unwrap(),
        Err(JournalError::Failed { .. })
    ));
}

#[test]
fn a_syncer_that_rests_is_hurried_by_who_waits_and_by_the_end() {
    const FOR_EVER: Duration = Duration::from_secs(86_400);
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    let (tell, told) = mpsc::channel();
    let write = || {
        journal.append(b"record").unwrap();
        journal.write().unwrap()
    };
    scope(|threads| {
        let syncer = threads.spawn(|| {
            journal.run_syncer(|| Duration::ZERO..=FOR_EVER, |lsn| tell.send(lsn).unwrap())
        });
        let first = write();
        assert_eq!(told.recv(), Ok(first));
        for _ in 0..100 {
            let next = write();
            assert!(journal.synced() < next);
            journal.hurry();
            assert_eq!(told.recv(), Ok(next));
        }
        write();
        journal.close().unwrap();
        syncer.join().unwrap().unwrap();
    });
}

type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A disk on which something happens while a file is being synced.
struct Busy {
    disk: SimDisk,
    meanwhile: Meanwhile,
}

struct BusyFile {
    file: Arc<dyn DiskFile>,
    meanwhile: Meanwhile,
}

impl Busy {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(BusyFile {
            file,
            meanwhile: Arc::clone(&self.meanwhile),
        })
    }
}

impl Disk for Busy {
    fn folder(&self) -> &Path {
        self.disk.folder()
    }
    fn lock(&self) -> Result<(), JournalError> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.file(file))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name).map(|file| self.file(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }
}

impl DiskFile for BusyFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, bytes)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.file.truncate(size)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()?;
        let meanwhile = self.meanwhile.lock().unwrap().take();
        meanwhile.into_iter().for_each(|meanwhile| meanwhile());
        Ok(())
    }
}

#[test]
fn what_is_written_during_a_sync_waits_for_the_next() {
    let sim = SimDisk::new();
    let meanwhile = Meanwhile::default();
    let disk = Arc::new(Busy {
        disk: sim.clone(),
        meanwhile: Arc::clone(&meanwhile),
    });
    let nothing = |_: Replay<'_>| Ok::<(), Infallible>(());
    let journal = Arc::new(Journal::open(disk, options(), nothing).unwrap().0);
    append(&journal, 1..=3);
    journal.write().unwrap();
    *meanwhile.lock().unwrap() = Some(Box::new({
        let journal = Arc::clone(&journal);
        move || {
            // Into the segment that has just been synced, and into two more.
            for lsn in 4..=30 {
                append(&journal, lsn..=lsn);
                journal.write().unwrap();
            }
        }
    }));
    assert_eq!(journal.sync().unwrap(), Lsn(3));
    assert_eq!((journal.written(), journal.synced()), (Lsn(30), Lsn(3)));
    assert_eq!(journal.sync().unwrap(), Lsn(30));
    sim.crash(512, || Fate::Lost);
    assert_eq!(look(&sim).unwrap().1, payloads(1..=30));
}

#[test]
fn a_journal_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Journal>();
    shared::<FileDisk>();
}
