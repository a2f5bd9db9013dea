//! Losing power at every moment, in every way.

use super::*;
use proptest::prelude::*;
use rialto_journal::{Fate, Faults};

/// A small generator of coin flips, so that a test is the same each time.
pub(crate) struct Coins(pub(crate) u64);

impl Coins {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Ways to lose power: (bytes in a piece, fate of the n-th piece).
pub(crate) fn crash(disk: &SimDisk, way: u64) {
    let mut asked = 0;
    let mut coins = Coins(way + 1);
    match way {
        0 => disk.kill(),
        1 => disk.crash(512, || Fate::Lost),
        2 => disk.crash(512, || Fate::Kept),
        3 => disk.crash(512, || Fate::Zeroed),
        // A prefix of the bytes.
        4..=20 => disk.crash(1, || {
            asked += 1;
            if asked < way * way - 15 {
                Fate::Kept
            } else {
                Fate::Lost
            }
        }),
        // Sectors, and pieces of one, in any combination.
        _ => disk.crash(if way.is_multiple_of(2) { 512 } else { 16 }, || {
            match coins.next() >> 7 & 3 {
                0 | 1 => Fate::Kept,
                2 => Fate::Lost,
                _ => Fate::Zeroed,
            }
        }),
    }
}
const WAYS: u64 = 30;

/// What a journal promised before it went down.
#[derive(Default)]
struct Promised {
    appended: u64,
    written: u64,
    synced: u64,
}

/// Appends, writes, syncs, begins segments and makes checkpoints until something fails.
fn story(disk: &SimDisk, promised: &mut Promised) -> Result<(), JournalError> {
    let (journal, _, state) = open(disk)?;
    let count = state.len() as u64;
    *promised = Promised {
        appended: count,
        written: count,
        synced: count,
    };
    for round in 0..6 {
        for _ in 0..4 {
            let lsn = journal.append(&payload(promised.appended + 1))?;
            promised.appended += 1;
            assert_eq!(lsn, Lsn(promised.appended));
            promised.written = journal.write()?.0;
        }
        append_pair(&journal, promised)?;
        if round % 2 == 1 {
            promised.synced = journal.sync()?.0;
        }
        if round == 3 {
            // Of a state that has not been synced, and not even been written.
            append_pair(&journal, promised)?;
            let at = promised.appended - 1;
            journal.checkpoint(Lsn(at), payloads(1..=at))?;
            promised.synced = journal.synced().0;
            promised.written = journal.written().0;
        }
    }
    promised.synced = journal.close()?.0;
    Ok(())
}

fn append_pair(journal: &Journal, promised: &mut Promised) -> Result<(), JournalError> {
    for _ in 0..2 {
        journal.append(&payload(promised.appended + 1))?;
        promised.appended += 1;
    }
    Ok(())
}

/// Recovers, and checks that the promises were kept and that new ones can be made.
fn check(disk: &SimDisk, promised: &Promised, was_killed: bool, case: &str) {
    let (journal, _, state) = open(disk).unwrap_or_else(|error| panic!("{case}: {error}"));
    let count = state.len() as u64;
    assert_eq!(state, payloads(1..=count), "{case}");
    let least = if was_killed {
        promised.written
    } else {
        promised.synced
    };
    let possible = least..=promised.appended;
    assert!(possible.contains(&count), "{case}: {count} of {possible:?}");
    append_synced(&journal, count + 1..=count + 1);
    disk.crash(512, || Fate::Lost);
    assert_eq!(look(disk).unwrap().1, payloads(1..=count + 1), "{case}");
}

#[test]
fn a_crash_at_every_operation_keeps_what_was_synced() {
    let whole = SimDisk::new();
    story(&whole, &mut Promised::default()).unwrap();
    let operations = whole.operations();
    assert!(contents(&whole).len() > 3);
    let mut cases = 0;
    for died_after in 0..=operations {
        for way in 0..WAYS {
            let disk = SimDisk::new();
            let mut promised = Promised::default();
            disk.set_faults(Faults {
                operations_left: Some(died_after),
                ..Faults::default()
            });
            assert_eq!(
                story(&disk, &mut promised).is_ok(),
                died_after == operations
            );
            crash(&disk, way);
            disk.set_faults(Faults::default());
            check(
                &disk,
                &promised,
                way == 0,
                &format!("died after {died_after}, way {way}"),
            );
            cases += 1;
        }
    }
    println!(
        "reliability: journal | {cases} crashes of a small journal, at every operation | 0 synced records lost"
    );
}

#[test]
fn a_crash_while_recovering_from_a_crash_changes_nothing() {
    let mut cases = 0;
    for died_after in [0, 1, 2, 3, 4, 5, 20, 33, 47, 60, 61, 62, 63, 64, 65] {
        for way in 0..WAYS {
            for recovery_died_after in 0.. {
                let disk = SimDisk::new();
                let mut promised = Promised::default();
                disk.set_faults(Faults {
                    operations_left: Some(died_after),
                    ..Faults::default()
                });
                let _ = story(&disk, &mut promised);
                crash(&disk, way);
                let left = Some(recovery_died_after);
                disk.set_faults(Faults {
                    operations_left: left,
                    ..Faults::default()
                });
                let recovered = open(&disk).map(|_| ());
                crash(&disk, (way + recovery_died_after) % WAYS);
                disk.set_faults(Faults::default());
                let case =
                    format!("died after {died_after}, way {way}, then {recovery_died_after}");
                check(&disk, &promised, false, &case);
                cases += 1;
                if recovered.is_ok() {
                    break;
                }
            }
        }
    }
    println!(
        "reliability: journal | {cases} crashes while recovering from a crash | 0 synced records lost"
    );
}

#[test]
fn a_lost_sector_before_a_kept_one_is_a_torn_end_and_no_damage() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=2);
    for lsn in 3..=6 {
        append(&journal, lsn..=lsn);
        journal.write().unwrap();
    }
    // The mark after record 2, then records 3 to 6: of these the second is lost.
    let mut fates = [Fate::Kept, Fate::Kept, Fate::Lost, Fate::Kept, Fate::Kept].into_iter();
    disk.crash(1 << 20, || fates.next().unwrap());
    let (recovered, state) = look(&disk).unwrap();
    assert_eq!(state, payloads(1..=3));
    assert!(recovered.torn.unwrap().bytes > payload(5).len() as u64);
}

#[test]
fn the_same_hole_behind_a_sync_is_damage() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=6);
    let (name, mut bytes) = contents(&disk).remove(0);
    let hole = bytes.windows(8).position(|at| at == b"record 4").unwrap();
    bytes[hole..hole + payload(4).len()].fill(0);
    disk.put(&name, bytes);
    let Err(error) = open(&disk) else {
        panic!("it opened")
    };
    let JournalError::Damaged {
        next: Lsn(4),
        synced: Lsn(6),
        offset,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(offset, hole as u64 - 8);
}

#[test]
fn a_hole_is_damage_even_if_only_the_next_segment_knows_of_the_sync() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=10);
    let [(first, bytes), (second, header), ..] = &contents(&disk)[..] else {
        panic!("one segment")
    };
    // A cut that takes the marks of the first segment, and a second one with nothing but its header.
    disk.put(first, bytes[..60].to_vec());
    disk.put(second, header[..44].to_vec());
    let refused = look(&disk).unwrap_err();
    assert!(
        matches!(refused, JournalError::Damaged { next: Lsn(1), .. }),
        "{refused}"
    );
}

#[test]
fn a_mark_before_an_empty_segment_is_synced_with_the_next_record() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=5);
    let before = contents(&disk).len();
    // Dies between the header of the next segment and its first record.
    disk.set_faults(Faults {
        operations_left: Some(2),
        ..Faults::default()
    });
    append(&journal, 6..=6);
    journal.write().unwrap_err();
    assert_eq!(contents(&disk).len(), before + 1);
    disk.kill();
    disk.set_faults(Faults::default());
    let (journal, _, state) = open(&disk).unwrap();
    assert_eq!(state, payloads(1..=5));
    append_synced(&journal, 6..=6);
    disk.crash(512, || Fate::Zeroed);
    assert_eq!(look(&disk).unwrap().1, payloads(1..=6));
}

/// Two lives write the same first record and different second ones.
#[test]
fn a_torn_end_does_not_come_back_when_its_missing_piece_is_written_anew() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    let record = |letter| [&[b'='; 100][..], &[letter; 20]].concat();
    for letter in [b'a', b'b'] {
        journal.append(&record(letter)).unwrap();
        journal.write().unwrap();
    }
    // The middle of record 1 is lost, and with it both.
    let mut pieces = 0;
    disk.crash(16, || {
        pieces += 1;
        if pieces == 4 { Fate::Lost } else { Fate::Kept }
    });
    let (journal, _, state) = open(&disk).unwrap();
    assert_eq!(state, State::new());
    // The new life decides the same, then something else; all is lost but that very
    // piece and the one behind it (counted with the truncation, were that unsynced).
    for letter in [b'a', b'c'] {
        journal.append(&record(letter)).unwrap();
        journal.write().unwrap();
    }
    let mut pieces = 0;
    disk.crash(16, || {
        pieces += 1;
        if matches!(pieces, 4 | 5) {
            Fate::Kept
        } else {
            Fate::Lost
        }
    });
    assert_eq!(look(&disk).unwrap().1, State::new());
}

/// The same with a whole segment behind the torn end.
#[test]
fn a_dropped_segment_does_not_come_back() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    let write = |journal: &Journal, record: &[u8]| {
        journal.append(record).unwrap();
        journal.write().unwrap();
    };
    write(&journal, &[b'='; 300]);
    write(&journal, b"first life");
    // Record 1 is lost; the segment of record 2 is there whole.
    let mut changes = 0;
    disk.crash(1 << 20, || {
        changes += 1;
        if changes == 1 { Fate::Lost } else { Fate::Kept }
    });
    let (journal, _, state) = open(&disk).unwrap();
    assert_eq!(state, State::new());
    write(&journal, &[b'='; 300]);
    // Were the removal of that segment unsynced, it would be the change that is lost now.
    let mut changes = 0;
    disk.crash(1 << 20, || {
        changes += 1;
        if changes == 1 { Fate::Lost } else { Fate::Kept }
    });
    assert!(!look(&disk).unwrap().1.contains(&b"first life".to_vec()));
}

#[test]
fn a_mark_is_found_wherever_it_stands_behind_a_hole() {
    for shift in 0..30 {
        let disk = SimDisk::new();
        let (journal, ..) = open(&disk).unwrap();
        append(&journal, 1..=1);
        // The search goes through pieces of 256 KiB, beginning with the hole at record 1.
        let second = (256 << 10) - (8 + payload(1).len()) - 8 - shift;
        journal.append(&vec![7; second]).unwrap();
        journal.write().unwrap();
        journal.sync().unwrap();
        let (name, mut bytes) = contents(&disk).remove(0);
        bytes[50] ^= 1;
        disk.put(&name, bytes);
        let refused = look(&disk).unwrap_err();
        assert!(
            matches!(refused, JournalError::Damaged { synced: Lsn(2), .. }),
            "{refused}"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Write,
    Sync,
    /// At so many records before the last.
    Checkpoint(u8),
    Restart,
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6u8).prop_map(Step::Append),
        5 => Just(Step::Write),
        2 => Just(Step::Sync),
        1 => (0..8u8).prop_map(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (0..1000u64).prop_map(Step::Crash),
    ]
}

/// Payloads differ from one life of the journal to the next, so that a record
/// of an earlier life cannot pass for its successor.
fn payload_of(life: u32, lsn: usize) -> Vec<u8> {
    format!("life {life} record {lsn}").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_life_recovers_to_a_prefix_that_holds_all_that_was_synced(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let disk = SimDisk::new();
        let (mut journal, ..) = open(&disk).unwrap();
        let mut model = State::new();
        let mut life = 0;
        for step in steps {
            match step {
                Step::Append(count) => for _ in 0..count {
                    model.push(payload_of(life, model.len() + 1));
                    journal.append(model.last().unwrap()).unwrap();
                },
                Step::Write => prop_assert_eq!(journal.write().unwrap().0, model.len() as u64),
                Step::Sync => {
                    let written = journal.written();
                    prop_assert_eq!(journal.sync().unwrap(), written);
                }
                Step::Checkpoint(before) => {
                    let at = model.len().saturating_sub(before.into());
                    journal.checkpoint(Lsn(at as u64), &model[..at]).unwrap();
                }
                Step::Restart | Step::Crash(_) => {
                    let way = if let Step::Crash(way) = step { way } else { 0 };
                    let least = if way == 0 { journal.written() } else { journal.synced() };
                    crash(&disk, way);
                    let (next, recovered, state) = open(&disk).unwrap();
                    prop_assert!(recovered.last >= least);
                    prop_assert!(model.starts_with(&state));
                    journal = next;
                    model = state;
                    life += 1;
                }
            }
        }
    }
}
