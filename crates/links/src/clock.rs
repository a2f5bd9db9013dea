//! The two clocks of the node.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rialto_connector::Now;
use rialto_packet::Timestamp;

/// Reads both clocks. Every thread of a node has a copy of the same one, so that an instant means
/// the same everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Monotonic time zero is now.
    #[expect(clippy::new_without_default, reason = "reads a clock")]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Nanoseconds since the clock was made.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        Now {
            mono_ns: self.now_ns(),
            wall: wall(),
        }
    }

    /// For timers.
    pub fn instant(&self, ns: u64) -> tokio::time::Instant {
        (self.started + Duration::from_nanos(ns)).into()
    }
}

/// The date. Before 1970 it is 1970.
pub(crate) fn wall() -> Timestamp {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}
