//! The example as it stands, with its real processes: every letter was paid once, whatever settles.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Enough that the shop's credit for five is used up many times.
const LETTERS: u64 = 40;
const PRICE: u64 = 100;

fn letter_shop(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_letter-shop"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn each_way_to_settle_pays_for_each_letter_once() {
    let output = letter_shop(&["--json", "--letters", &LETTERS.to_string()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs = report["runs"].as_array().unwrap();
    let settlements: Vec<_> = runs
        .iter()
        .map(|run| run["settlement"].as_str().unwrap())
        .collect();
    assert_eq!(settlements, ["account", "asymmetrical", "symmetrical"]);
    for run in runs {
        assert_eq!(run["letters"], LETTERS, "{run}");
        assert_eq!(run["paid"], LETTERS * PRICE, "{run}");
        assert!(run["letters_per_second"].as_f64().unwrap() > 0.0, "{run}");
    }
    // The letters are the text, and nothing else came between them.
    let text: String = "Packets carry the value, books remember who owes whom"
        .chars()
        .take(40)
        .collect();
    assert_eq!(told.matches(&text).count(), runs.len(), "{told}");
    println!(
        "reliability: letter shop | {LETTERS} letters sold for streamed money, settled in {} ways | {} units paid, 0 wrong in the books of both nodes",
        runs.len(),
        runs.iter()
            .map(|run| run["paid"].as_u64().unwrap())
            .sum::<u64>()
    );
}

/// The books are really looked at: a node that starts with a debt which the other does not know of.
#[test]
fn books_that_do_not_agree_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let account = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/account.toml")).unwrap();
    let file = folder.path().join("adjusted.toml");
    let adjusted = "\n[[customer]]\npost = \"/v1/adjustments\"\nbody.account = \"me\"\nbody.amount = \"-1\"\n\
                    body.reason = \"a unit that no letter was sold for\"\n";
    fs::write(&file, account + adjusted).unwrap();
    let output = letter_shop(&["--letters", "1", "--config", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(
        told.contains("-101 units in the customer's wallet, and -100 for 1 letters"),
        "{told}"
    );
}

#[test]
fn a_configuration_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd.toml");
    let path = file.to_str().unwrap();
    for (text, why) in [
        ("settlement = 1", "settlement"),
        (
            "settlement = \"x\"\nshop = []\ncustomer = []\nbanc = 1",
            "unknown field `banc`",
        ),
        (
            "settlement = \"x\"\ncustomer = []\n[[shop]]\npost = \"/v1/accounts\"\nbody.name = \"?\"",
            "answered 4",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let output = letter_shop(&["--config", path]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text}");
        assert!(told.contains(why), "{told}");
    }
    let output = letter_shop(&["--config", "nowhere.toml"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("cannot read nowhere.toml"), "{told}");
}
