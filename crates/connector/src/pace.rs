//! How fast packets go to a next hop that lets only so many through.
//!
//! Some connectors refuse for good what comes too fast: their limiter loses what it should refill. So
//! packets to such a peer keep a distance, and after it has said T05 even a short burst is not sent.

use rialto_ledger::AccountId;
use rustc_hash::FxHashMap;

/// How long after a T05 no burst is sent. Nanoseconds.
const CALM_NS: u64 = 10_000_000_000;

/// Of all next hops that have a pace.
#[derive(Debug, Default)]
pub(crate) struct Paces(FxHashMap<AccountId, Pace>);

#[derive(Debug, Default)]
struct Pace {
    /// When the next packet would go if all kept their distance.
    next_ns: u64,
    calm_until_ns: u64,
}

impl Paces {
    /// Takes a place for one packet, or says that there is none now.
    #[must_use]
    pub(crate) fn take(&mut self, id: AccountId, per_second: u32, now_ns: u64) -> bool {
        let distance_ns = 1_000_000_000_u64.div_ceil(u64::from(per_second.max(1)));
        // Where none went for a while, those of an eighth of a second may go at once.
        let burst = u64::from(per_second.div_ceil(8).max(1));
        let pace = self.0.entry(id).or_default();
        let ahead = if now_ns < pace.calm_until_ns {
            0
        } else {
            burst - 1
        };
        if pace.next_ns > now_ns.saturating_add(ahead * distance_ns) {
            return false;
        }
        pace.next_ns = pace.next_ns.max(now_ns).saturating_add(distance_ns);
        true
    }

    /// The next hop said T05.
    pub(crate) fn slow_down(&mut self, id: AccountId, now_ns: u64) {
        if let Some(pace) = self.0.get_mut(&id) {
            pace.calm_until_ns = now_ns.saturating_add(CALM_NS);
        }
    }

    pub(crate) fn forget(&mut self, id: AccountId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOP: AccountId = AccountId(1);
    const MS: u64 = 1_000_000;

    #[test]
    fn a_burst_and_then_a_distance() {
        let mut paces = Paces::default();
        let sent =
            |paces: &mut Paces, now_ns| (0..100).filter(|_| paces.take(HOP, 150, now_ns)).count();
        assert_eq!(sent(&mut paces, 1_000 * MS), 19);
        assert_eq!(sent(&mut paces, 1_006 * MS), 0);
        assert_eq!(sent(&mut paces, 1_007 * MS), 1);
        assert_eq!(sent(&mut paces, 5_000 * MS), 19);
    }

    #[test]
    fn after_a_refusal_each_packet_keeps_its_distance() {
        let mut paces = Paces::default();
        assert!(paces.take(HOP, 150, 0));
        paces.slow_down(HOP, 0);
        let mut last_ns = None::<u64>;
        for now_ns in (0..CALM_NS).step_by(100_000) {
            if paces.take(HOP, 150, now_ns) {
                assert!(
                    last_ns.is_none_or(|last_ns| now_ns - last_ns >= 6 * MS),
                    "{now_ns}"
                );
                last_ns = Some(now_ns);
            }
        }
        assert!(last_ns.is_some_and(|last_ns| last_ns > CALM_NS - 10 * MS));
    }

    proptest! {
        /// Whatever the arrivals, never more than the rate and one burst.
        #[test]
        fn never_faster(pauses in prop::collection::vec(0u64..20 * MS, 1..400), per_second in 1u32..1_000) {
            let mut paces = Paces::default();
            let (mut now_ns, mut sent) = (0, 0u64);
            for pause_ns in pauses {
                now_ns += pause_ns;
                sent += u64::from(paces.take(HOP, per_second, now_ns));
            }
            let burst = u64::from(per_second.div_ceil(8));
            prop_assert!(sent <= burst + now_ns * u64::from(per_second) / 1_000_000_000);
        }
    }
}
