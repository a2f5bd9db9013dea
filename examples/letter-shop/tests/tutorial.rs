//! The tutorial of the book, run as it stands: every shell block, in order. Only the program is the one
//! that was built for the test, instead of what `cargo run` would build.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../../../crates/rialto/tests/book/mod.rs"]
mod book;

use std::{
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use book::{blocks, squeezed};

const TUTORIAL: &str = include_str!("../../../docs/letter-shop.md");

/// A number that differs from run to run is the word before these.
const MEASURED: &str = "letters a second";

/// With a `#` in the place of what was measured.
fn without_measures(text: &str) -> String {
    let lines = squeezed(text).into_iter().map(|line| {
        let Some((before, after)) = line.split_once(&format!(" {MEASURED}")) else {
            return line;
        };
        let (before, number) = before.rsplit_once(' ').unwrap();
        assert!(number.parse::<f64>().unwrap() > 0.0, "{line}");
        format!("{before} # {MEASURED}{after}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_blocks_of_the_tutorial_print_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    // As in a clone of the repository, to which nothing is written.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    symlink(here.parent().unwrap(), folder.path().join("examples")).unwrap();
    let scripts = blocks(TUTORIAL, "sh");
    let outputs = blocks(TUTORIAL, "text");
    assert_eq!(scripts.len(), 3);
    assert_eq!(outputs.len(), scripts.len(), "what each prints");
    for (script, output) in scripts.iter().zip(outputs) {
        let program = concat!("'", env!("CARGO_BIN_EXE_letter-shop"), "'");
        let script = script.replace("cargo run --release -p letter-shop --", program);
        assert!(!script.contains("cargo"), "{script}");
        let done = Command::new("sh")
            .args(["-euc", &script])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}\n{told}");
        let printed = String::from_utf8(done.stdout).unwrap();
        assert_eq!(
            without_measures(&printed),
            without_measures(output),
            "{script}\n{told}"
        );
    }
    println!(
        "reliability: tutorial of the letter shop | {} shell blocks of docs/letter-shop.md run as they stand | each prints what the page says, and the books of all nodes agree",
        scripts.len()
    );
}
