//! What must be true of the tree as a whole: floors, texts, documents.

mod docs;
mod floors;
mod packet_path;
mod reason_codes;
mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Names of what was built, fetched, or is git's: in a second work tree `.git` is a file.
const NOT_OURS: &[&str] = &[".git", "target", "node_modules", "artifacts", "data"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Files of the tree under `folder`, which is relative to the root, as paths relative to the root.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be listed") {
            let entry = entry.expect("the folder can be listed");
            let kind = entry.file_type().expect("the kind of file is known");
            let is_ours = NOT_OURS.iter().all(|name| entry.file_name() != *name);
            if kind.is_dir() && is_ours {
                folders.push(entry.path());
            } else if kind.is_file() && is_ours {
                let path = entry.path();
                found.push(
                    path.strip_prefix(root())
                        .expect("it is below the root")
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let bytes = fs::read(root().join(path));
    let bytes = bytes.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}
