//! When packets are due.
//!
//! A thread of its own keeps the times: it sleeps to the microsecond, where the runtime's timers sleep
//! to the millisecond. It never waits for an answer, only for somebody to take the next packet, and
//! then goes on where it was, so that a packet which leaves late is still due when it was.
#![expect(
    clippy::float_arithmetic,
    reason = "gaps of a Poisson process are logarithms; there is no money here"
)]

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tokio::sync::{Mutex, mpsc};

use super::args::Arrivals;

/// Packets that may be due and not yet taken. What is behind them waits in time, not in memory.
const QUEUE_LEN_MAX: usize = 64;

/// The times at which packets are due, counted from the start.
pub(crate) struct Schedule {
    gap: Duration,
    spread: Arrivals,
    /// The same in every run, so that runs can be compared.
    rng: ChaCha20Rng,
    next: Duration,
    left: u64,
    end: Duration,
}

impl Schedule {
    /// `rate` packets per second for `duration`, at most `count`.
    pub(crate) fn new(
        rate: u32,
        spread: Arrivals,
        count: Option<u64>,
        duration: Option<Duration>,
    ) -> Self {
        Self {
            gap: Duration::from_secs(1) / rate,
            spread,
            rng: ChaCha20Rng::seed_from_u64(1),
            next: Duration::ZERO,
            left: count.unwrap_or(u64::MAX),
            end: duration.unwrap_or(Duration::MAX),
        }
    }

    fn gap(&mut self) -> Duration {
        match self.spread {
            Arrivals::Constant => self.gap,
            Arrivals::Poisson => {
                // In (0, 1], so that its logarithm is finite.
                let uniform = (f64::from(self.rng.next_u32()) + 1.0) / 4_294_967_296.0;
                self.gap.mul_f64(-uniform.ln())
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let due = self.next;
        self.next = due.saturating_add(self.gap());
        (due < self.end).then_some(due)
    }
}

/// Hands out packets to be sent: the time at which each is due.
pub(crate) enum Queue {
    /// At their own times.
    Open(Mutex<mpsc::Receiver<Instant>>),
    /// As soon as there is room.
    Closed {
        left: Cell<u64>,
        end: Option<Instant>,
    },
}

/// Whether a packet is due.
pub(crate) enum Due {
    /// Since then.
    Now(Instant),
    /// Not yet.
    Later,
    /// Never again.
    Over,
}

impl Queue {
    /// As many as can be, at most `count`, for `duration`.
    pub(crate) fn closed(count: Option<u64>, duration: Option<Duration>) -> Self {
        Self::Closed {
            left: Cell::new(count.unwrap_or(u64::MAX)),
            end: duration.map(|duration| Instant::now() + duration),
        }
    }

    /// The times of `schedule` from now on. The thread ends with the number of packets that were due
    /// before `stop` and could not be sent any more.
    pub(crate) fn open(
        mut schedule: Schedule,
        stop: Option<Duration>,
    ) -> (Self, thread::JoinHandle<u64>) {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN_MAX);
        let start = Instant::now();
        let thread = thread::spawn(move || {
            while let Some(offset) = schedule.next() {
                let due = start + offset;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let is_late = stop.is_some_and(|stop| start.elapsed() >= stop);
                if is_late || sender.blocking_send(due).is_err() {
                    return 1 + schedule.map(|_| 1).sum::<u64>();
                }
            }
            0
        });
        (Self::Open(Mutex::new(receiver)), thread)
    }

    /// The next packet, at its time; `None` when there are no more. Safe to be dropped.
    pub(crate) async fn next(&self) -> Option<Instant> {
        match self {
            Self::Open(receiver) => receiver.lock().await.recv().await,
            Self::Closed { left, end } => {
                let now = Instant::now();
                if end.is_some_and(|end| now >= end) {
                    return None;
                }
                left.set(left.get().checked_sub(1)?);
                Some(now)
            }
        }
    }

    /// The same without waiting.
    pub(crate) fn try_next(&self) -> Due {
        match self {
            Self::Open(receiver) => match receiver.try_lock().map(|mut queue| queue.try_recv()) {
                Ok(Ok(due)) => Due::Now(due),
                Ok(Err(mpsc::error::TryRecvError::Disconnected)) => Due::Over,
                Ok(Err(mpsc::error::TryRecvError::Empty)) | Err(_) => Due::Later,
            },
            Self::Closed { left, end } => {
                let now = Instant::now();
                match left.get().checked_sub(1) {
                    Some(rest) if end.is_none_or(|end| now < end) => {
                        left.set(rest);
                        Due::Now(now)
                    }
                    Some(_) | None => Due::Over,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_arrivals_are_evenly_spread_and_end() {
        let second = Some(Duration::from_secs(1));
        let due: Vec<_> = Schedule::new(4, Arrivals::Constant, None, second).collect();
        assert_eq!(due, [0, 250, 500, 750].map(Duration::from_millis));
        assert_eq!(
            Schedule::new(1_000, Arrivals::Constant, Some(7), second).count(),
            7
        );
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_differ() {
        let due: Vec<_> = Schedule::new(
            1_000,
            Arrivals::Poisson,
            None,
            Some(Duration::from_secs(20)),
        )
        .collect();
        assert!((19_000..21_000).contains(&due.len()), "{}", due.len());
        let gaps: Vec<_> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Of exponential gaps, e^-2 are longer than twice the mean: 13.5 %.
        let long = gaps
            .iter()
            .filter(|gap| **gap > Duration::from_millis(2))
            .count();
        let part = long * 1_000 / gaps.len();
        assert!((115..155).contains(&part), "{part}");
    }

    #[test]
    fn what_was_due_and_not_taken_is_counted() {
        let stop = Some(Duration::from_millis(1));
        let schedule = Schedule::new(1_000_000, Arrivals::Constant, Some(1_000), None);
        let (queue, thread) = Queue::open(schedule, stop);
        let mut taken = 0;
        let Queue::Open(receiver) = queue else {
            panic!("it is open")
        };
        let mut receiver = receiver.into_inner();
        while receiver.blocking_recv().is_some() {
            taken += 1;
            thread::sleep(Duration::from_micros(50));
        }
        assert_eq!(taken + thread.join().unwrap(), 1_000);
    }
}
