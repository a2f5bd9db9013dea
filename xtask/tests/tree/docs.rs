//! The book and the documents at the root: every page is listed, every relative link leads somewhere.

use std::{collections::BTreeSet, path::Path};

use super::{files, read, root};

/// Targets of `[text](target)` in Markdown, outside of code.
fn links(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push(target.to_owned());
            }
        }
    }
    found
}

#[test]
fn relative_links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in files("")
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
    {
        for target in links(&read(page)) {
            if target.contains("://") || target.starts_with('#') || target.starts_with("mailto:") {
                continue;
            }
            let path = target.split('#').next().unwrap_or_default();
            let folder = page.parent().unwrap_or(Path::new(""));
            if !root().join(folder).join(path).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_summary_lists_every_page_of_the_book() {
    let listed: BTreeSet<_> = links(&read("docs/SUMMARY.md"))
        .iter()
        .map(|page| Path::new("docs").join(page))
        .collect();
    let pages: BTreeSet<_> = files("docs")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .filter(|path| !path.ends_with("SUMMARY.md"))
        .collect();
    assert_eq!(listed, pages);
}
