//! When to dial again.

/// Waits before the 1st, 2nd, … attempt to reconnect, milliseconds; the last one repeats.
const SCHEDULE_MS: [u64; 6] = [0, 100, 500, 1000, 2000, 5000];
/// Wait after the first refusal, milliseconds; each further one in a row doubles it.
const REFUSED_MS_FIRST: u64 = 5_000;
/// Longest wait after refusals, milliseconds.
const REFUSED_MS_MAX: u64 = 60_000;
/// A connection that stood this long, milliseconds, starts the schedule anew.
const STABLE_MS: u64 = 10_000;

const NS_PER_MS: u64 = 1_000_000;

/// How a connection, or the attempt to get one, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody answered, or not within the time for authentication.
    Unreached,
    /// The peer did not accept our authentication.
    Refused,
    /// It was authenticated and stood for this many nanoseconds.
    Established {
        /// From authentication to the end.
        for_ns: u64,
    },
}

/// The pace of reconnecting, as a plain value.
///
/// ```
/// use rialto_btp::backoff::{Backoff, Ended};
///
/// let mut backoff = Backoff::default();
/// assert_eq!(backoff.delay_ns(Ended::Unreached, u32::MAX), 0);
/// assert_eq!(backoff.delay_ns(Ended::Unreached, u32::MAX) / 1_000_000, 99);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    attempts: usize,
    refusals: u32,
}

impl Backoff {
    /// Nanoseconds to wait before dialling again. `jitter` is any random number: the wait lies
    /// between half of the scheduled one and the whole, so that clients that lost the same server
    /// do not all come back at once.
    pub fn delay_ns(&mut self, ended: Ended, jitter: u32) -> u64 {
        let scheduled_ms = match ended {
            Ended::Refused => {
                let doubled = REFUSED_MS_FIRST << self.refusals.min(8);
                self.refusals = self.refusals.saturating_add(1);
                doubled.min(REFUSED_MS_MAX)
            }
            Ended::Unreached => self.attempt_ms(),
            Ended::Established { for_ns } => {
                self.refusals = 0;
                if for_ns >= STABLE_MS * NS_PER_MS {
                    self.attempts = 0;
                }
                self.attempt_ms()
            }
        };
        let half_ns = scheduled_ms * NS_PER_MS / 2;
        // 24 bits of jitter keep the product of the longest wait below 2^64.
        half_ns + ((half_ns * u64::from(jitter >> 8)) >> 24)
    }

    fn attempt_ms(&mut self) -> u64 {
        let wait = SCHEDULE_MS[self.attempts];
        self.attempts = (self.attempts + 1).min(SCHEDULE_MS.len() - 1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest wait that any jitter gives, rounded to milliseconds.
    fn longest_ms(backoff: &mut Backoff, ended: Ended) -> u64 {
        backoff.delay_ns(ended, u32::MAX).div_ceil(NS_PER_MS)
    }

    #[test]
    fn an_unreachable_peer_is_tried_on_schedule() {
        let mut backoff = Backoff::default();
        let waits = [(); 8].map(|()| longest_ms(&mut backoff, Ended::Unreached));
        assert_eq!(waits, [0, 100, 500, 1000, 2000, 5000, 5000, 5000]);
    }

    #[test]
    fn only_a_connection_that_stood_ten_seconds_starts_anew() {
        let mut backoff = Backoff::default();
        let flapping = Ended::Established {
            for_ns: 9_999 * NS_PER_MS,
        };
        let stable = Ended::Established {
            for_ns: 10_000 * NS_PER_MS,
        };
        let ends = [flapping, flapping, flapping, stable, flapping];
        let waits = ends.map(|ended| longest_ms(&mut backoff, ended));
        assert_eq!(waits, [0, 100, 500, 0, 100]);
    }

    #[test]
    fn refusals_slow_down_to_a_minute() {
        let mut backoff = Backoff::default();
        let waits = [(); 6].map(|()| longest_ms(&mut backoff, Ended::Refused));
        assert_eq!(waits, [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
        for _ in 0..100 {
            assert_eq!(longest_ms(&mut backoff, Ended::Refused), 60_000);
        }
        longest_ms(&mut backoff, Ended::Established { for_ns: 1 });
        assert_eq!(longest_ms(&mut backoff, Ended::Refused), 5_000);
    }

    #[test]
    fn jitter_moves_the_wait_between_half_and_whole() {
        let mut backoff = Backoff {
            attempts: 3,
            refusals: 0,
        };
        assert_eq!(backoff.delay_ns(Ended::Unreached, 0), 500 * NS_PER_MS);
        assert_eq!(
            backoff.delay_ns(Ended::Unreached, 1 << 31),
            1500 * NS_PER_MS
        );
    }
}
