//! The files of format version 1, byte for byte, as docs/design/journal.md shows them.

use super::*;

/// A checkpoint at record 1, and a segment with three records and their marks.
const FILES: [(&str, &str); 2] = [
    (
        "00000000000000000001.checkpoint",
        "5249414c544f4350 01000000 f0debc9a78563412 0100000000000000 8109e8b7 \
         10000000 18b41777 7265636f72642031202e2e2e2e2e2e2e \
         444f4e45 8b23ce79 0100000000000000",
    ),
    (
        "00000000000000000001.segment",
        "5249414c544f5347 01000000 00000000 f0debc9a78563412 0100000000000000 0000000000000000 \
         4f3e59a4 \
         10000000 0a2b6d53 7265636f72642031202e2e2e2e2e2e2e \
         4d41524b b7324233 0100000000000000 0200000000000000 \
         17000000 0a6a1839 7265636f72642032202e2e2e2e2e2e2e2e2e2e2e2e2e2e \
         4d41524b 632f8669 0200000000000000 0300000000000000 \
         1e000000 89dd5a7b 7265636f72642033202e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e \
         4d41524b 9927d361 0300000000000000 0400000000000000",
    ),
];

fn files() -> Vec<(String, Vec<u8>)> {
    let bytes = |hex: &str| {
        let digits: String = hex.split(' ').collect();
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect()
    };
    FILES
        .map(|(name, hex)| (name.to_owned(), bytes(hex)))
        .to_vec()
}

#[test]
fn files_of_version_1_are_written_as_described() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=2);
    journal.checkpoint(Lsn(1), payloads(1..=1)).unwrap();
    append(&journal, 3..=3);
    journal.close().unwrap();
    assert_eq!(contents(&disk), files());
}

#[test]
fn files_of_version_1_are_read_for_ever() {
    let (recovered, state) = look(&copy(&files())).unwrap();
    let checkpoint = Some(Lsn(1));
    assert_eq!(
        recovered,
        Recovered {
            checkpoint,
            last: Lsn(3),
            torn: None
        }
    );
    assert_eq!(state, payloads(1..=3));
}
