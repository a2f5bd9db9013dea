//! How often the same warning is written.

use std::cell::Cell;

/// Least time between two warnings of one kind about one peer.
const WARN_INTERVAL_NS: u64 = 10_000_000_000;

/// Lets the first warning pass, and then one per interval.
#[derive(Default)]
pub(crate) struct Pace {
    next_ns: Cell<u64>,
    held_back: Cell<u64>,
}

impl Pace {
    /// Whether to warn now, and how many warnings were held back before.
    pub(crate) fn due(&self, now_ns: u64) -> Option<u64> {
        if now_ns < self.next_ns.get() {
            self.held_back.set(self.held_back.get() + 1);
            return None;
        }
        self.next_ns.set(now_ns + WARN_INTERVAL_NS);
        Some(self.held_back.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_per_interval() {
        let pace = Pace::default();
        let due = [0, 1, 2, WARN_INTERVAL_NS, WARN_INTERVAL_NS + 1].map(|ns| pace.due(ns));
        assert_eq!(due, [Some(0), None, None, Some(2), None]);
    }
}
