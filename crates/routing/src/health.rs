//! Whether a next hop has failed lately.

/// Failures that make a next hop unwell.
const UNWELL: u32 = 3;

/// One failure is forgotten in this time.
const FORGET_NS: u64 = 10_000_000_000;

/// How long an unwell next hop is left alone at first, and at most.
const COOL_DOWN_NS: u64 = 1_000_000_000;
const COOL_DOWN_NS_MAX: u64 = 60_000_000_000;

/// A score of recent failures: each adds one, time and answers take away. At three the next hop is left
/// alone for a second, then for twice as long with each further failure, up to a minute; after that one
/// packet may try again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    score: u32,
    at_ns: u64,
    unwell_until_ns: u64,
}

impl Health {
    /// It could not be reached, or did not answer in time.
    pub fn failed(&mut self, now_ns: u64) {
        self.forget(now_ns);
        self.score = (self.score + 1).min(UNWELL + 6);
        if self.score >= UNWELL {
            let cool_down_ns = (COOL_DOWN_NS << (self.score - UNWELL)).min(COOL_DOWN_NS_MAX);
            self.unwell_until_ns = now_ns.saturating_add(cool_down_ns);
        }
    }

    /// It answered, whatever it said.
    pub fn answered(&mut self) {
        if self.score > 0 {
            self.score /= 2;
            self.unwell_until_ns = 0;
        }
    }

    /// Whether packets should go this way.
    pub fn is_well(&self, now_ns: u64) -> bool {
        self.unwell_until_ns <= now_ns
    }

    /// Failures that are still remembered.
    pub fn score(&self) -> u32 {
        self.score
    }

    fn forget(&mut self, now_ns: u64) {
        let forgotten = now_ns.saturating_sub(self.at_ns) / FORGET_NS;
        self.score = self
            .score
            .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        self.at_ns = now_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn three_failures_and_it_is_left_alone_for_longer_and_longer() {
        let mut health = Health::default();
        health.failed(0);
        health.failed(0);
        assert!(health.is_well(0));
        health.failed(0);
        assert!(!health.is_well(S - 1) && health.is_well(S));
        health.failed(S);
        assert!(!health.is_well(3 * S - 1) && health.is_well(3 * S));
        for _ in 0..100 {
            health.failed(3 * S);
        }
        assert!(health.is_well(63 * S));
    }

    #[test]
    fn answers_and_time_heal() {
        let mut health = Health::default();
        (0..4).for_each(|_| health.failed(0));
        health.answered();
        assert!(health.is_well(0));
        assert_eq!(health.score(), 2);
        // Two failures, long ago, and a new one are not three.
        health.failed(25 * S);
        assert!(health.is_well(25 * S));
        assert_eq!(health.score(), 1);
    }
}
