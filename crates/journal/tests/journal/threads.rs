//! Several threads on one journal.

use super::*;
use rialto_journal::{Fate, Faults, FileDisk};
use std::{
    sync::Mutex,
    thread::{scope, spawn},
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
            journal.run_syncer(|lsn| told.push(lsn)).unwrap();
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
        move || journal.run_syncer(|_| ())
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
fn a_journal_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Journal>();
    shared::<FileDisk>();
}
