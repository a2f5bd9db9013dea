//! The files of format version 1, byte for byte, as docs/design/journal.md shows them.

use super::*;

const FILES: [(&str, &str); 0] = [];

#[test]
fn files_of_version_1_are_written_and_read_for_ever() {
    let disk = SimDisk::new();
    let (journal, ..) = open(&disk).unwrap();
    append_synced(&journal, 1..=2);
    journal.checkpoint(Lsn(1), payloads(1..=1)).unwrap();
    append(&journal, 3..=3);
    journal.close().unwrap();
    for (name, bytes) in contents(&disk) {
        println!("{name}");
        for line in bytes.chunks(16) {
            println!(
                "{}",
                line.iter().map(|b| format!("{b:02x}")).collect::<String>()
            );
        }
    }
    let _ = FILES;
}
