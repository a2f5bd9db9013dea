//! What no file of the tree may contain.

use super::{files, read};

/// Split, so that this file does not contain them.
fn forbidden() -> Vec<(String, &'static str)> {
    [
        (["TO", "DO"], "finish it or open an issue"),
        (["FIX", "ME"], "finish it or open an issue"),
        (["X", "XX"], "finish it or open an issue"),
        (["/wo", "rk/"], "a path of one machine"),
        (["/ro", "ot/"], "a path of one machine"),
        (["/ho", "me/"], "a path of one machine"),
        (["/Us", "ers/"], "a path of one machine"),
        (
            ["\"reso", "lved\""],
            "a registry's address in a lock file (tests/js/.npmrc)",
        ),
    ]
    .map(|(halves, why)| (halves.concat(), why))
    .into()
}

/// The first forbidden thing in `text`.
fn find(text: &str) -> Option<(String, &'static str)> {
    let is_word = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    forbidden().into_iter().find(|(pattern, _)| {
        text.match_indices(pattern.as_str()).any(|(start, _)| {
            let before = text[..start].chars().next_back();
            let after = text[start + pattern.len()..].chars().next();
            let is_path = pattern.starts_with('/');
            !is_word(before) && (is_path || !is_word(after))
        })
    })
}

#[test]
fn no_leftovers_and_nothing_of_one_machine() {
    let mut found = Vec::new();
    for path in files("") {
        for (number, line) in read(&path).lines().enumerate() {
            if let Some((pattern, why)) = find(line) {
                found.push(format!(
                    "{}:{}: {pattern}: {why}",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn crates_come_from_the_public_registry() {
    let public = "registry+https://github.com/rust-lang/crates.io-index";
    for lock in ["Cargo.lock", "bench/ilp-node/Cargo.lock", "fuzz/Cargo.lock"] {
        let lock: toml::Table = read(lock).parse().expect("a lock file is TOML");
        for package in lock["package"].as_array().expect("it lists packages") {
            let source = package.get("source").and_then(|source| source.as_str());
            assert!(source.is_none_or(|source| source == public), "{package}");
        }
    }
}

#[test]
fn words_and_paths_are_found_and_their_like_are_not() {
    for line in [
        ["// TO", "DO: later"],
        ["see /wo", "rk/x"],
        ["\"reso", "lved\": 1"],
    ] {
        assert!(find(&line.concat()).is_some(), "{line:?}");
    }
    for line in [
        ["AUTO", "DOS"],
        ["https://x.example/network", "/root"],
        ["a/wo", "rk/b"],
    ] {
        assert!(find(&line.concat()).is_none(), "{line:?}");
    }
}
