//! A token bucket in integers.

const MINUTE_NS: u128 = 60_000_000_000;

/// Lets through up to a number of units at once, and refills that number per minute.
///
/// The level counts units times nanoseconds of a minute, so that a refill of any number of nanoseconds is a
/// whole number and no arrival pattern loses a fraction.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_minute: u64,
    level: u128,
    refilled_ns: u64,
}

impl Bucket {
    /// Full at `now_ns`, on the monotonic clock.
    pub fn new(per_minute: u64, now_ns: u64) -> Self {
        Self {
            per_minute,
            level: u128::from(per_minute) * MINUTE_NS,
            refilled_ns: now_ns,
        }
    }

    /// Takes `units` and says true, or takes nothing and says false.
    #[must_use]
    pub fn take(&mut self, now_ns: u64, units: u64) -> bool {
        let elapsed = now_ns.saturating_sub(self.refilled_ns);
        self.refilled_ns = self.refilled_ns.max(now_ns);
        // At most 2^64 * 2^64: an idle bucket does not overflow, it is full.
        self.put(u128::from(elapsed) * u128::from(self.per_minute));
        let wanted = u128::from(units) * MINUTE_NS;
        if wanted > self.level {
            return false;
        }
        self.level -= wanted;
        true
    }

    /// Gives back what was taken for something that did not happen.
    pub fn give_back(&mut self, units: u64) {
        self.put(u128::from(units) * MINUTE_NS);
    }

    fn put(&mut self, amount: u128) {
        let full = u128::from(self.per_minute) * MINUTE_NS;
        self.level = self.level.saturating_add(amount).min(full);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Bucket;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn refills_by_the_nanosecond() {
        let mut bucket = Bucket::new(6_000, 0);
        assert!(bucket.take(0, 6_000));
        assert!(!bucket.take(0, 1));
        // 100 a second: one every 10 ms, however often one asks in between.
        for ms in 1..10 {
            assert!(!bucket.take(ms * 1_000_000, 1));
        }
        assert!(bucket.take(10_000_000, 1));
        assert!(!bucket.take(10_000_000, 1));
    }

    #[test]
    fn never_holds_more_than_a_minute() {
        let mut bucket = Bucket::new(10, 0);
        assert!(bucket.take(u64::MAX, 10));
        assert!(!bucket.take(u64::MAX, 1));
        bucket.give_back(99);
        assert!(bucket.take(u64::MAX, 10));
        assert!(!bucket.take(u64::MAX, 1));
    }

    proptest! {
        /// Whatever the arrivals, what passes in a span is what was there plus what flowed in.
        #[test]
        fn passes_exactly_what_flows_in(
            per_minute in 1u64..100_000,
            gaps in prop::collection::vec(0u64..SECOND, 1..300),
        ) {
            let mut bucket = Bucket::new(per_minute, 0);
            let (mut now, mut passed) = (0u64, per_minute);
            prop_assert!(bucket.take(0, per_minute));
            for gap in gaps {
                now += gap;
                while bucket.take(now, 1) {
                    passed += 1;
                }
                let flowed = u128::from(now) * u128::from(per_minute) / (60 * u128::from(SECOND));
                prop_assert_eq!(u128::from(passed), u128::from(per_minute) + flowed);
            }
        }
    }
}
