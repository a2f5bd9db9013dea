//! Tutorials of the book, as tests read them.

/// The blocks that begin with this line.
pub(crate) fn blocks<'a>(text: &'a str, fence: &str) -> Vec<&'a str> {
    let fence = format!("\n```{fence}\n");
    let parts = text.split(&fence).skip(1);
    parts
        .map(|part| part.split_once("\n```").unwrap().0)
        .collect()
}

/// Its lines with one space where there are several.
pub(crate) fn squeezed(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split_whitespace());
    lines
        .map(|line| line.collect::<Vec<_>>().join(" "))
        .collect()
}
