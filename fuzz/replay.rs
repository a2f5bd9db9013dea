//! How `tests/corpus.rs` of a fuzzed crate replays the committed corpora; included there by path.

use std::{fs, path::Path};

/// Hands every file of a target's corpus to the target. Panics when there is none, and when the
/// target has no binary for libFuzzer.
pub fn replay(name: &str, target: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let binary = fuzz.join(format!("fuzz_targets/{name}.rs"));
    assert!(binary.is_file(), "{} is missing", binary.display());
    let corpus = fuzz.join("corpus").join(name);
    let mut count = 0;
    for entry in fs::read_dir(&corpus).expect(name) {
        let file = entry.expect("a folder can be listed").path();
        println!("{}", file.display()); // shown when the target panics
        target(&fs::read(&file).expect("a corpus holds readable files"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", corpus.display());
    println!("reliability: corpora | {count} inputs of the fuzz target {name} | 0 panics");
}
