//! The journal as a whole: what goes in comes out, whatever happens to the disk.
//!
//! The tests keep one kind of state: the list of all payloads so far. A
//! checkpoint at record n is the first n payloads, so what recovery hands out
//! must always be a prefix of what was appended, checkpoint or not.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod crash;
mod damage;
mod faults;
mod files;
mod format;
mod threads;
mod torture;

use rialto_journal::{Journal, JournalError, Lsn, Options, Recovered, Replay, SimDisk, inspect};
use std::{convert::Infallible, sync::Arc};

/// Small, so that a few records make several segments.
const SEGMENT_BYTES: u64 = 300;

type State = Vec<Vec<u8>>;

fn options() -> Options {
    Options {
        id: 0x1234_5678_9abc_def0,
        segment_bytes: SEGMENT_BYTES,
    }
}

/// Applies what recovery hands out.
fn apply(state: &mut State, replay: Replay<'_>) -> Result<(), Infallible> {
    match replay {
        Replay::Checkpoint { at, record } => {
            assert!(
                (state.len() as u64) < at.0,
                "a checkpoint of {at} has {at} pieces"
            );
            state.push(record.to_vec());
        }
        Replay::Record { lsn, payload } => {
            assert_eq!(
                lsn.0,
                state.len() as u64 + 1,
                "records follow on each other"
            );
            state.push(payload.to_vec());
        }
    }
    Ok(())
}

fn open(disk: &SimDisk) -> Result<(Journal, Recovered, State), JournalError> {
    let mut state = State::new();
    let opened = Journal::open(Arc::new(disk.clone()), options(), |r| apply(&mut state, r));
    let (journal, recovered) = opened?;
    assert_eq!(recovered.last.0, state.len() as u64);
    assert_eq!(journal.appended(), recovered.last);
    Ok((journal, recovered, state))
}

fn look(disk: &SimDisk) -> Result<(Recovered, State), JournalError> {
    let mut state = State::new();
    let recovered = inspect(disk, |replay| apply(&mut state, replay))?;
    Ok((recovered, state))
}

/// The payload of record `lsn`: different for each, and of different lengths.
fn payload(lsn: u64) -> Vec<u8> {
    let mut bytes = format!("record {lsn} ").into_bytes();
    bytes.resize(bytes.len() + (lsn * 7 % 23) as usize, b'.');
    bytes
}

fn payloads(range: std::ops::RangeInclusive<u64>) -> State {
    range.map(payload).collect()
}

fn append(journal: &Journal, range: std::ops::RangeInclusive<u64>) {
    for lsn in range {
        assert_eq!(journal.append(&payload(lsn)).unwrap(), Lsn(lsn));
    }
}

/// Appends, writes and syncs, a record at a time.
fn append_synced(journal: &Journal, range: std::ops::RangeInclusive<u64>) {
    for lsn in range {
        append(journal, lsn..=lsn);
        journal.write().unwrap();
        journal.sync().unwrap();
    }
}

/// All files and their contents.
fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    use rialto_journal::Disk;
    let names = disk.list().unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), disk.content(&name).unwrap()))
        .collect()
}

/// Another disk with the same files, synced.
fn copy(files: &[(String, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::new();
    files
        .iter()
        .for_each(|(name, bytes)| disk.put(name, bytes.clone()));
    disk
}

#[test]
fn what_was_appended_comes_back_across_segments_and_restarts() {
    let disk = SimDisk::new();
    for round in 0..5 {
        let (journal, recovered, state) = open(&disk).unwrap();
        assert_eq!(state, payloads(1..=round * 10));
        assert_eq!(recovered.torn, None);
        append_synced(&journal, round * 10 + 1..=round * 10 + 10);
        assert_eq!(journal.close().unwrap(), Lsn(round * 10 + 10));
    }
    assert!(contents(&disk).len() > 3, "there are several segments");
}

#[test]
fn a_write_is_one_operation_for_all_that_was_appended() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append(&journal, 1..=5);
    let before = disk.operations();
    assert_eq!(journal.write().unwrap(), Lsn(5));
    assert_eq!(journal.write().unwrap(), Lsn(5));
    assert_eq!(disk.operations(), before + 1);
    assert_eq!((journal.written(), journal.synced()), (Lsn(5), Lsn(0)));
}

#[test]
fn a_killed_process_loses_nothing_written_and_all_that_was_not() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append(&journal, 1..=5);
    journal.write().unwrap();
    append(&journal, 6..=7);
    disk.kill();
    let (_, recovered, state) = open(&disk).unwrap();
    assert_eq!((state, recovered.torn), (payloads(1..=5), None));
}

#[test]
fn opening_after_a_clean_end_writes_nothing() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=30);
    journal.checkpoint(Lsn(20), payloads(1..=20)).unwrap();
    journal.close().unwrap();
    let before = (disk.operations(), contents(&disk));
    let (_, recovered, state) = open(&disk).unwrap();
    assert_eq!((disk.operations(), contents(&disk)), before);
    assert_eq!(recovered.checkpoint, Some(Lsn(20)));
    assert_eq!(state, payloads(1..=30));
}

#[test]
fn a_checkpoint_replaces_the_segments_it_covers() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    for at in [0, 20, 40, 60] {
        journal.checkpoint(Lsn(at), payloads(1..=at)).unwrap();
        append_synced(&journal, at + 1..=at + 20);
    }
    let names: Vec<String> = contents(&disk).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names
            .iter()
            .filter(|name| name.ends_with(".checkpoint"))
            .count(),
        1
    );
    assert!(
        names
            .iter()
            .filter(|name| name.ends_with(".segment"))
            .all(|name| **name > *"0000000000000000004")
    );
    let (journal, recovered, state) = open(&disk).unwrap();
    assert_eq!(recovered.checkpoint, Some(Lsn(60)));
    assert_eq!(state, payloads(1..=80));

    journal.checkpoint(Lsn(30), payloads(1..=30)).unwrap();
    assert_eq!(
        look(&disk).unwrap().0.checkpoint,
        Some(Lsn(60)),
        "an older one changes nothing"
    );
    let ahead = journal.checkpoint(Lsn(81), payloads(1..=81)).unwrap_err();
    assert!(matches!(
        ahead,
        JournalError::CheckpointAhead {
            at: Lsn(81),
            last: Lsn(80)
        }
    ));
}

#[test]
fn a_checkpoint_may_be_larger_than_memory_chunks() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append(&journal, 1..=3);
    let pieces = vec![vec![7; 400_000], vec![8; 1], vec![9; 1 << 20]];
    journal.checkpoint(Lsn(3), &pieces).unwrap();
    assert_eq!(look(&disk).unwrap().1, pieces);
}

#[test]
fn sizes_have_limits() {
    let (journal, ..) = open(&SimDisk::new()).unwrap();
    let largest = vec![1; rialto_journal::RECORD_BYTES_MAX];
    journal.append(&largest).unwrap();
    let too_large = [largest.as_slice(), &[1]].concat();
    for refused in [&too_large[..], &[]] {
        assert!(matches!(
            journal.append(refused),
            Err(JournalError::RecordSize { .. })
        ));
        let refused = journal.checkpoint(Lsn(1), [refused]);
        assert!(matches!(refused, Err(JournalError::RecordSize { .. })));
    }
    assert_eq!(journal.appended(), Lsn(1));
}

#[test]
fn an_append_beyond_the_buffer_writes() {
    let (journal, ..) = open(&SimDisk::new()).unwrap();
    let record = vec![1; 1 << 20];
    while journal.written() == Lsn(0) {
        journal.append(&record).unwrap();
        assert!(journal.appended() <= Lsn(4));
    }
    assert_eq!(journal.written(), Lsn(4));
}

#[test]
fn a_segment_holds_at_least_one_batch() {
    let disk = SimDisk::new();
    let options = Options {
        segment_bytes: 0,
        ..options()
    };
    let nothing = |_: Replay<'_>| Ok::<(), Infallible>(());
    let (journal, _) = Journal::open(Arc::new(disk.clone()), options, nothing).unwrap();
    append_synced(&journal, 1..=3);
    assert_eq!(contents(&disk).len(), 3);
    assert_eq!(look(&disk).unwrap().1, payloads(1..=3));
}

#[test]
fn a_closed_journal_takes_no_more() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append(&journal, 1..=3);
    assert_eq!(journal.close().unwrap(), Lsn(3));
    assert!(matches!(journal.append(b"late"), Err(JournalError::Closed)));
    disk.crash(1, || rialto_journal::Fate::Lost);
    assert_eq!(look(&disk).unwrap().1, payloads(1..=3));
}

#[test]
fn a_record_the_caller_refuses_is_named() {
    let disk = SimDisk::new();
    append_synced(&open(&disk).unwrap().0, 1..=3);
    let before = contents(&disk);
    let refuse = |replay: Replay<'_>| match replay {
        Replay::Record { lsn: Lsn(3), .. } => Err("no such account"),
        Replay::Record { .. } | Replay::Checkpoint { .. } => Ok(()),
    };
    let Err(error) = Journal::open(Arc::new(disk.clone()), options(), refuse) else {
        panic!("it opened")
    };
    assert!(
        matches!(error, JournalError::Replay { after: Lsn(2), .. }),
        "{error}"
    );
    assert_eq!(contents(&disk), before);
}
