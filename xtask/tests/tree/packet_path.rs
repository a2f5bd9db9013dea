//! What the packet path knows of settlement: nothing but where to call it.

use super::read;

/// Another kind of channel, or of engine, must fit without a change to these lines.
const HOOKS: [&str; 2] = [
    "self.settle_introduce(account, out);",
    "self.settle_after_commit(now, payee, out);",
];

/// Beginnings of words that only settlement has.
const WORDS: [&str; 8] = [
    "settle",
    "channel",
    "engine",
    "claim",
    "trust",
    "evm",
    "lightning",
    "xrp",
];

#[test]
fn the_packet_path_names_nothing_of_how_is_settled() {
    let text = read("crates/connector/src/forward.rs");
    let lines = text.lines().map(str::trim);
    let code = lines.map(|line| line.split("//").next().unwrap_or_default().trim_end());
    let naming = code.filter(|line| {
        let line = line.to_lowercase();
        let mut words = line.split(|character: char| !character.is_alphanumeric());
        words.any(|word| WORDS.iter().any(|begin| word.starts_with(begin)))
    });
    let naming: Vec<_> = naming.collect();
    assert_eq!(naming, HOOKS, "packets do not wait for settlement");
}
