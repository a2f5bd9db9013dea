//! How often the same line is written.

use std::cell::Cell;

/// Least time between two lines of one kind about one peer.
const LINE_INTERVAL_NS: u64 = 10_000_000_000;

/// Lets the first line pass, and then one per interval.
#[derive(Default)]
pub(crate) struct Pace {
    next_ns: Cell<u64>,
    held_back: Cell<u64>,
}

impl Pace {
    /// Whether to write now, and how many lines were held back before.
    pub(crate) fn due(&self, now_ns: u64) -> Option<u64> {
        if now_ns < self.next_ns.get() {
            self.held_back.set(self.held_back.get() + 1);
            return None;
        }
        self.next_ns.set(now_ns + LINE_INTERVAL_NS);
        Some(self.held_back.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval() {
        let pace = Pace::default();
        let due = [0, 1, 2, LINE_INTERVAL_NS, LINE_INTERVAL_NS + 1].map(|ns| pace.due(ns));
        assert_eq!(due, [Some(0), None, None, Some(2), None]);
    }
}
