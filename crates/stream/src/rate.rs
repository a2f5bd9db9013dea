//! What is known about the rate of a path.

use std::cmp::Ordering;

use rialto_packet::money::Ratio;

/// Bounds on the rate from packets seen: `received = floor(sent * rate)`, so each packet shows that
/// `received / sent <= rate < (received + 1) / sent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    low: Fraction,
    high: Fraction,
}

/// `over` is at most 2^64 and `under` below it, so that products fit 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction {
    over: u128,
    under: u64,
}

impl Fraction {
    fn compare(self, other: Self) -> Ordering {
        (self.over * u128::from(other.under)).cmp(&(other.over * u128::from(self.under)))
    }
}

impl Rate {
    /// From one packet; neither number may be zero.
    pub(crate) fn observed(sent: u64, received: u64) -> Self {
        assert!(
            sent > 0 && received > 0,
            "a rate is measured with packets that arrive"
        );
        Self {
            low: Fraction {
                over: u128::from(received),
                under: sent,
            },
            high: Fraction {
                over: u128::from(received) + 1,
                under: sent,
            },
        }
    }

    /// Narrows the bounds by one more packet, or begins anew with it when it contradicts them. From a
    /// packet that arrived as nothing no new beginning can be made.
    pub(crate) fn observe(&mut self, sent: u64, received: u64) {
        if sent == 0 {
            return;
        }
        if received == 0 {
            let high = Fraction {
                over: 1,
                under: sent,
            };
            if high.compare(self.low).is_gt() && high.compare(self.high).is_lt() {
                self.high = high;
            }
            return;
        }
        let new = Self::observed(sent, received);
        let mut both = *self;
        // Of equal bounds the one from the larger packet says more to people.
        if (new.low.compare(self.low))
            .then(sent.cmp(&self.low.under))
            .is_gt()
        {
            both.low = new.low;
        }
        if new.high.compare(self.high).is_lt() {
            both.high = new.high;
        }
        *self = if both.low.compare(both.high).is_lt() {
            both
        } else {
            new
        };
    }

    /// Whether it is certainly below `minimum`.
    pub(crate) fn is_below(&self, minimum: &Ratio) -> bool {
        let high = u64::try_from(self.high.over)
            .ok()
            .and_then(|over| Ratio::new(over, self.high.under).ok());
        high.is_some_and(|high| high <= *minimum)
    }

    /// The packet with the best rate so far: units sent and received.
    pub(crate) fn best(&self) -> (u64, u64) {
        (self.low.under, saturate(self.low.over))
    }

    /// Amounts of four packets that tell the most: they lie evenly between the most that surely brings
    /// a unit less than `sent`, and the least that surely brings as much. None when these are close.
    pub(crate) fn telling(&self, sent: u64, close_part: u64) -> Vec<u64> {
        let received = self.received_min(sent);
        let enough = self.sent_for(received);
        let less = self.sent_within(received.saturating_sub(1));
        let gap = enough.saturating_sub(less);
        if gap <= 1 || gap <= enough / close_part {
            return Vec::new();
        }
        let mut amounts: Vec<u64> = (1..=4)
            .map(|part| less + gap / 5 * part + gap % 5 * part / 5)
            .collect();
        amounts.retain(|amount| *amount > less);
        amounts.dedup();
        amounts
    }

    /// What at least arrives of `sent`.
    pub(crate) fn received_min(&self, sent: u64) -> u64 {
        saturate(u128::from(sent) * self.low.over / u128::from(self.low.under))
    }

    /// What at most arrives of `sent`.
    pub(crate) fn received_max(&self, sent: u64) -> u64 {
        let product = u128::from(sent) * self.high.over;
        saturate(product.saturating_sub(1) / u128::from(self.high.under))
    }

    /// The least to send so that `received` arrives for sure.
    pub(crate) fn sent_for(&self, received: u64) -> u64 {
        saturate((u128::from(received) * u128::from(self.low.under)).div_ceil(self.low.over))
    }

    /// The most to send so that no more than `received` arrives for sure.
    pub(crate) fn sent_within(&self, received: u64) -> u64 {
        saturate((u128::from(received) + 1) * u128::from(self.high.under) / self.high.over)
    }

    /// The least to send that brings as much as `sent` for sure: nothing is lost to rounding.
    pub(crate) fn aligned(&self, sent: u64) -> u64 {
        self.sent_for(self.received_min(sent)).min(sent)
    }
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_bounds_hold(over in 1u64.., under in 1u64.., probe in 1u64.., sent: u64, wanted: u64) {
            let floor = |sent: u64| u128::from(sent) * u128::from(over) / u128::from(under);
            let received = floor(probe);
            prop_assume!(received > 0 && received < u128::from(u64::MAX));
            let rate = Rate::observed(probe, u64::try_from(received).unwrap());
            prop_assert!(u128::from(rate.received_min(sent)) <= floor(sent));
            prop_assert!(u128::from(rate.received_max(sent)) >= floor(sent).min(u64::MAX.into()));
            prop_assert!(floor(rate.sent_within(wanted)) <= wanted.into());
            let enough = rate.sent_for(wanted);
            prop_assert!(enough == u64::MAX || floor(enough) >= wanted.into());
            prop_assert!(rate.aligned(sent) <= sent);
            prop_assert_eq!(rate.received_min(rate.aligned(sent)), rate.received_min(sent));
        }
    }

    #[test]
    fn packets_narrow_the_bounds_until_one_contradicts() {
        let mut rate = Rate::observed(10, 9); // [0.9, 1)
        rate.observe(1000, 918); // [0.918, 0.919)
        assert_eq!(
            (rate.received_min(1_000_000), rate.received_max(1_000_000)),
            (918_000, 918_999)
        );
        rate.observe(10, 9);
        assert_eq!(rate.received_min(1_000_000), 918_000);
        rate.observe(1000, 850);
        assert_eq!(
            (rate.received_min(1_000_000), rate.received_max(1_000_000)),
            (850_000, 850_999)
        );
    }
}
