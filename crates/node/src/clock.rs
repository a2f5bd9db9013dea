//! The two clocks, read together.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rialto_connector::Now;
use rialto_packet::Timestamp;

/// Monotonic time counts from the start of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub(crate) fn mono_ns(self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("584 years have not passed")
    }

    /// Both clocks.
    pub(crate) fn now(self) -> Now {
        Now { mono_ns: self.mono_ns(), wall: wall() }
    }

    /// The moment of the runtime's clock at which the monotonic clock shows `mono_ns`.
    pub(crate) fn instant(self, mono_ns: u64) -> tokio::time::Instant {
        (self.started + std::time::Duration::from_nanos(mono_ns)).into()
    }
}

/// The wall clock; what lies before 1970 counts as 1970.
fn wall() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}
