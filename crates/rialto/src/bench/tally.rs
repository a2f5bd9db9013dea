//! What is counted, and how it is printed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::packets::Answer;

/// Latencies are kept to three digits, up to this. Microseconds.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Different answers that are told apart; the rest is one more.
const ANSWERS_MAX: usize = 32;
const OTHERS: &str = "others";

/// The answers so far.
pub(crate) struct Tally {
    fulfilled: u64,
    rejected: u64,
    failed: u64,
    /// By code and message.
    answers: BTreeMap<String, u64>,
    /// From when a packet was due.
    since_due: Histogram<u64>,
    /// From when it left.
    since_sent: Histogram<u64>,
    started: Instant,
    last: Instant,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are in order");
        let now = Instant::now();
        Self {
            fulfilled: 0,
            rejected: 0,
            failed: 0,
            answers: BTreeMap::new(),
            since_due: histogram(),
            since_sent: histogram(),
            started: now,
            last: now,
        }
    }
}

impl Tally {
    /// One packet is over.
    pub(crate) fn count(&mut self, due: Instant, sent: Instant, answer: Answer) {
        self.last = Instant::now();
        let us = |since: Instant| {
            u64::try_from(self.last.saturating_duration_since(since).as_micros())
                .unwrap_or(u64::MAX)
        };
        self.since_due.saturating_record(us(due));
        self.since_sent.saturating_record(us(sent));
        let said = match answer {
            Answer::Fulfilled => {
                self.fulfilled += 1;
                return;
            }
            Answer::Rejected(said) => {
                self.rejected += 1;
                said
            }
            Answer::Failed(said) => {
                self.failed += 1;
                said
            }
        };
        let is_known = self.answers.contains_key(&said) || self.answers.len() < ANSWERS_MAX;
        let said = if is_known { said } else { OTHERS.to_owned() };
        *self.answers.entry(said).or_default() += 1;
    }

    /// All there is to say at the end; `unsent` packets were due and could not be sent.
    pub(crate) fn report(&self, endpoint: String, rate: Option<u32>, unsent: u64) -> Report {
        let elapsed = self.last.duration_since(self.started);
        let sent = self.fulfilled + self.rejected + self.failed;
        Report {
            endpoint,
            rate,
            sent,
            unsent,
            fulfilled: self.fulfilled,
            rejected: self.rejected,
            failed: self.failed,
            elapsed_ms: elapsed.as_millis(),
            fulfilled_per_second: per_second(self.fulfilled, elapsed),
            answered_per_second: per_second(self.fulfilled + self.rejected, elapsed),
            latency_us: Latency::of(&self.since_due),
            service_us: Latency::of(&self.since_sent),
            answers: self.answers.clone(),
        }
    }
}

fn per_second(count: u64, elapsed: Duration) -> u128 {
    u128::from(count) * 1_000_000 / elapsed.as_micros().max(1)
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) endpoint: String,
    /// Packets per second that were due; none when as many as could be.
    pub(crate) rate: Option<u32>,
    pub(crate) sent: u64,
    /// Due before the end, and not sent: too many were in flight.
    pub(crate) unsent: u64,
    pub(crate) fulfilled: u64,
    pub(crate) rejected: u64,
    /// Answered by no ILP packet that could be believed, or not at all.
    pub(crate) failed: u64,
    pub(crate) elapsed_ms: u128,
    pub(crate) fulfilled_per_second: u128,
    pub(crate) answered_per_second: u128,
    /// From when a packet was due to its answer.
    pub(crate) latency_us: Latency,
    /// From when it left.
    pub(crate) service_us: Latency,
    /// What was said instead of a Fulfill, and how often.
    pub(crate) answers: BTreeMap<String, u64>,
}

/// Percentiles in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |percentile| histogram.value_at_percentile(percentile);
        Self {
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: histogram.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_from_when_a_packet_was_due() {
        let mut tally = Tally::default();
        let now = Instant::now();
        let due = now.checked_sub(Duration::from_secs(2)).unwrap();
        tally.count(due, now, Answer::Fulfilled);
        let report = tally.report("x".to_owned(), Some(5), 3);
        assert!(report.latency_us.p50 >= 2_000_000, "{report:?}");
        assert!(report.service_us.p50 < 2_000_000, "{report:?}");
        assert_eq!((report.fulfilled, report.sent, report.unsent), (1, 1, 3));
    }

    #[test]
    fn kinds_of_answers_are_bounded() {
        let mut tally = Tally::default();
        let now = Instant::now();
        for number in 0..100 {
            tally.count(now, now, Answer::Rejected(format!("F99 {number}")));
        }
        tally.count(now, now, Answer::Failed("closed".to_owned()));
        let report = tally.report("x".to_owned(), None, 0);
        assert_eq!((report.rejected, report.failed), (100, 1));
        assert_eq!(report.answers.len(), ANSWERS_MAX + 1);
        assert_eq!(report.answers[OTHERS], 69);
    }
}
