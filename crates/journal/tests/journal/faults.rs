//! Disks that fail and fill up.

use super::*;
use rialto_journal::{Fate, Faults};
use std::time::Duration;

fn assert_stopped(journal: &Journal) {
    let failed = |result: Result<Lsn, JournalError>| {
        assert!(
            matches!(result, Err(JournalError::Failed { .. })),
            "{result:?}"
        );
    };
    failed(journal.append(b"more"));
    failed(journal.write());
    failed(journal.sync());
    failed(journal.close());
    failed(
        journal
            .run_syncer(
                || Duration::ZERO..=Duration::ZERO,
                |_| panic!("nothing was synced"),
            )
            .map(|()| Lsn(0)),
    );
    failed(journal.checkpoint(Lsn(3), [b"state"]).map(|()| Lsn(0)));
}

#[test]
fn a_failed_sync_stops_the_journal_for_good() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=2);
    append(&journal, 3..=3);
    journal.write().unwrap();
    disk.set_faults(Faults {
        syncs_fail: true,
        ..Faults::default()
    });
    let error = journal.sync().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the journal has stopped: could not sync /sim/00000000000000000001.segment: free or \
         repair the disk, then restart"
    );
    disk.set_faults(Faults::default());
    let operations = disk.operations();
    assert_stopped(&journal);
    assert_eq!(disk.operations(), operations, "nothing is tried again");
    assert_eq!((journal.written(), journal.synced()), (Lsn(3), Lsn(2)));
}

#[test]
fn a_mark_that_fails_is_told_by_the_next_call() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=2);
    append(&journal, 3..=3);
    journal.write().unwrap();
    let (operations, before) = (disk.operations(), contents(&disk));
    // The sync, and half of the mark that follows it.
    disk.set_faults(Faults {
        operations_left: Some(1),
        ..Faults::default()
    });
    assert_eq!(journal.sync().unwrap(), Lsn(3), "the records are safe");
    // The third would have taken that half back.
    assert_eq!(disk.operations(), operations + 3);
    let after = contents(&disk);
    assert_eq!(after.len(), before.len());
    let written = &after[0].1[before[0].1.len()..];
    assert!(written.len() == 12 && written.starts_with(b"MARK"));
    assert_stopped(&journal);

    disk.crash(512, || Fate::Lost);
    disk.set_faults(Faults::default());
    let (_, recovered, _) = open(&disk).unwrap();
    assert_eq!(recovered.last, Lsn(3));
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_by_the_next_open() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=5);
    for lsn in 6..=30 {
        append(&journal, lsn..=lsn);
        journal.write().unwrap();
    }
    disk.set_faults(Faults {
        syncs_fail: true,
        ..Faults::default()
    });
    journal.sync().unwrap_err();
    disk.kill();
    disk.set_faults(Faults::default());
    let (journal, _, state) = open(&disk).unwrap();
    assert_eq!(state, payloads(1..=30));
    assert_eq!(journal.synced(), Lsn(30));
    disk.crash(512, || Fate::Lost);
    assert_eq!(look(&disk).unwrap().1, payloads(1..=30));
}

#[test]
fn a_full_disk_stops_the_journal_and_keeps_what_was_written() {
    for capacity in 44..900 {
        let disk = SimDisk::new();
        disk.set_faults(Faults {
            capacity_bytes: Some(capacity),
            ..Faults::default()
        });
        let (journal, ..) = open(&disk).unwrap();
        let full = (1..).find_map(|lsn| {
            let appended = journal.append(&payload(lsn));
            // Several records at a time, of which the disk may take the first.
            if lsn % 3 != 0 && appended.is_ok() {
                return None;
            }
            appended
                .and_then(|_| journal.write())
                .and_then(|_| journal.sync())
                .err()
        });
        assert!(matches!(full, Some(JournalError::Failed { .. })));
        assert_stopped(&journal);
        disk.kill();
        disk.set_faults(Faults::default());
        let (_, _, state) = open(&disk).unwrap();
        assert_eq!(
            state.len() as u64,
            journal.written().0,
            "no more and no less"
        );
        assert_eq!(state, payloads(1..=state.len() as u64));
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_leaves_the_journal_running() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=20);
    journal.checkpoint(Lsn(10), payloads(1..=10)).unwrap();
    let used: usize = contents(&disk).iter().map(|(_, bytes)| bytes.len()).sum();
    let capacity_bytes = Some(used as u64 + 200);
    disk.set_faults(Faults {
        capacity_bytes,
        ..Faults::default()
    });
    let error = journal.checkpoint(Lsn(20), payloads(1..=20)).unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    append_synced(&journal, 21..=22);
    disk.crash(1, || Fate::Lost);
    let (recovered, state) = look(&disk).unwrap();
    assert_eq!(
        (recovered.checkpoint, state),
        (Some(Lsn(10)), payloads(1..=22))
    );

    disk.set_faults(Faults::default());
    let (journal, ..) = open(&disk).unwrap();
    journal.checkpoint(Lsn(20), payloads(1..=20)).unwrap();
    assert_eq!(look(&disk).unwrap().0.checkpoint, Some(Lsn(20)));
}
