//! Every truncation and every changed bit of a small journal.

use super::*;

/// Segments closed cleanly, without a checkpoint and with one, the second close to the end.
fn journals() -> [Vec<(String, Vec<u8>)>; 3] {
    [None, Some(Lsn(14)), Some(Lsn(22))].map(|checkpoint| {
        let disk = SimDisk::new();
        let (journal, ..) = open(&disk).unwrap();
        append_synced(&journal, 1..=15);
        // Two batches of several records.
        append(&journal, 16..=19);
        journal.write().unwrap();
        append(&journal, 20..=22);
        if let Some(at) = checkpoint {
            journal.checkpoint(at, payloads(1..=at.0)).unwrap();
        }
        journal.close().unwrap();
        contents(&disk)
    })
}

/// What an open makes of a damaged journal: a whole prefix, or `None` for a
/// refusal, which changes nothing. A prefix must then serve as any journal.
fn outcome(disk: &SimDisk) -> Option<usize> {
    let before = contents(disk);
    match open(disk) {
        Ok((journal, _, state)) => {
            let count = state.len() as u64;
            assert_eq!(state, payloads(1..=count), "never a wrong payload");
            append_synced(&journal, count + 1..=count + 2);
            disk.crash(1, || rialto_journal::Fate::Lost);
            assert_eq!(look(disk).unwrap().1, payloads(1..=count + 2));
            Some(state.len())
        }
        Err(error) => {
            let refusal = matches!(
                error,
                JournalError::Damaged { .. } | JournalError::Version { .. }
            );
            assert!(refusal, "{error}");
            assert_eq!(contents(disk), before, "a refusal changes nothing");
            None
        }
    }
}

#[test]
fn every_truncation_gives_a_prefix_or_a_refusal() {
    let mut cases = 0;
    for files in journals() {
        let last = files
            .iter()
            .rposition(|(name, _)| name.ends_with(".segment"))
            .unwrap();
        for (index, (name, bytes)) in files.iter().enumerate() {
            let mut kept_before = 0;
            for size in 0..bytes.len() {
                let disk = copy(&files);
                disk.put(name, bytes[..size].to_vec());
                cases += 1;
                let kept = outcome(&disk);
                if index == last
                    && let Some(kept) = kept
                {
                    assert!(kept >= kept_before, "a longer file has no fewer records");
                    kept_before = kept;
                }
                let has_checkpoint = files.iter().any(|(name, _)| name.ends_with(".checkpoint"));
                if index == last && !has_checkpoint {
                    assert!(kept.is_some(), "the end of the last segment may be missing");
                }
                if index != last {
                    // A mark is the only frame that may go missing without a trace, with no record.
                    let is_last_mark = name.ends_with(".segment") && size == bytes.len() - 24;
                    assert_eq!(kept, is_last_mark.then_some(22), "{name} cut to {size}");
                }
            }
        }
    }
    println!(
        "reliability: journal | {cases} truncations of a small journal, at every byte | 0 wrong records"
    );
}

#[test]
fn every_changed_bit_gives_a_prefix_or_a_refusal() {
    let mut cases = 0;
    for files in journals() {
        let last = files
            .iter()
            .rposition(|(name, _)| name.ends_with(".segment"))
            .unwrap();
        for (index, (name, bytes)) in files.iter().enumerate() {
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let disk = copy(&files);
                disk.put(name, damaged);
                cases += 1;
                let kept = outcome(&disk);
                // The journal was closed, so its last mark covers every record. Only damage to
                // that mark itself passes for a torn end, and costs no record.
                let in_last_mark = index == last && bit / 8 >= bytes.len() - 24;
                let expected = in_last_mark.then_some(22);
                assert_eq!(kept, expected, "bit {bit} of {name}");
            }
        }
    }
    println!(
        "reliability: journal | {cases} changed bits of a small journal, every single one | 0 wrong records"
    );
}

#[test]
fn a_missing_file_is_a_refusal() {
    for files in journals() {
        let last = files
            .iter()
            .rposition(|(name, _)| name.ends_with(".segment"))
            .unwrap();
        for missing in 0..files.len() {
            let mut rest = files.clone();
            let (name, _) = rest.remove(missing);
            let kept = outcome(&copy(&rest));
            // Nothing tells that there was a last segment, except a checkpoint that reaches into it.
            assert!(kept.is_none() || missing == last, "{name}");
        }
    }
}

#[test]
fn files_of_two_journals_do_not_mix() {
    let [mine, ..] = journals();
    let disk = SimDisk::new();
    let other = Options { id: 1, ..options() };
    let nothing = |_: Replay<'_>| Ok::<(), Infallible>(());
    let (journal, _) = Journal::open(Arc::new(disk.clone()), other, nothing).unwrap();
    append_synced(&journal, 1..=15);
    append(&journal, 16..=19);
    journal.write().unwrap();
    append(&journal, 20..=22);
    journal.close().unwrap();
    let theirs = contents(&disk);
    assert!(mine.len() > 2);
    for (index, (name, bytes)) in theirs.into_iter().enumerate().skip(1) {
        assert_eq!(mine[index].0, name);
        let disk = copy(&mine);
        disk.put(&name, bytes);
        assert_eq!(outcome(&disk), None);
    }
}

#[test]
fn segments_of_two_lives_do_not_mix() {
    // Two journals with the same id, the same sizes and the same numbers, as from a copied folder.
    let [mine, theirs] = [b'm', b't'].map(|letter| {
        let disk = SimDisk::new();
        let (journal, ..) = open(&disk).unwrap();
        for _ in 0..20 {
            journal.append(&[letter; 20]).unwrap();
            journal.write().unwrap();
            journal.sync().unwrap();
        }
        contents(&disk)
    });
    assert!(
        mine.len() > 1
            && mine
                .iter()
                .zip(&theirs)
                .all(|(mine, theirs)| mine.0 == theirs.0)
    );
    for mixed in 1..mine.len() {
        let disk = copy(&mine);
        disk.put(&mine[mixed].0, theirs[mixed].1.clone());
        assert!(matches!(look(&disk), Err(JournalError::Damaged { .. })));
    }
}

#[test]
fn garbage_behind_the_end_is_dropped() {
    let [files, ..] = journals();
    let (name, bytes) = files.last().unwrap();
    let first_mark = files[0].1.windows(4).position(|at| at == b"MARK").unwrap();
    for garbage in [
        &files[0].1[first_mark..first_mark + 24],
        &[0; 4096][..],
        &[0xff; 600],
        b"MARK",
        b"DONE1234abcdefgh",
        &bytes[44..],
    ] {
        let disk = copy(&files);
        disk.put(name, [bytes, garbage].concat());
        let (recovered, state) = look(&disk).unwrap();
        assert_eq!(state, payloads(1..=22));
        let torn = recovered.torn.unwrap();
        assert_eq!(
            (torn.offset, torn.bytes),
            (bytes.len() as u64, garbage.len() as u64)
        );
        assert_eq!(outcome(&disk), Some(22));
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let [files, ..] = journals();
    let disk = copy(&files);
    let (name, mut bytes) = files[0].clone();
    bytes[8] = 2;
    disk.put(&name, bytes);
    let Err(error) = open(&disk) else {
        panic!("it opened")
    };
    assert_eq!(
        error.to_string(),
        "journal file /sim/00000000000000000001.segment has format version 2, this program reads \
         version 1: use the program that wrote it"
    );
}
