//! What the suite found: rows, ratios, gaps, and how they are printed.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What one subject costs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What the table calls it.
    pub(crate) name: String,
    /// Packets in flight.
    pub(crate) in_flight: u32,
    /// CPU time of everything the subject needs, nanoseconds per packet: the median of the rounds.
    pub(crate) cpu_ns_per_packet: u64,
    /// The same, round by round; nothing where a round does not count.
    pub(crate) cpu_ns_rounds: Vec<Option<u64>>,
    /// Packets per second of that CPU time.
    pub(crate) packets_per_cpu_second: u64,
    /// Of wall time: the load and its peer share one core, so this says less.
    pub(crate) packets_per_second: u64,
    pub(crate) latency_us_p50: u64,
    pub(crate) latency_us_p99: u64,
    /// Resident memory of the subject's processes after the last round.
    pub(crate) memory_kib: u64,
}

/// Something that was to be measured and could not be.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Gap {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// One figure that is judged.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    /// `None` where a side of it is a gap.
    pub(crate) value: Option<f64>,
    pub(crate) at_least: f64,
    pub(crate) aim: f64,
    /// `reached`, `ok`, `missed` or `not measured`.
    pub(crate) verdict: &'static str,
}

/// A figure that is told and not judged by a ratio of two rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The most that it should be, if the project promises something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_most: Option<f64>,
}

/// A figure that depends on a size.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Curve {
    pub(crate) name: String,
    /// What the size counts.
    pub(crate) x: String,
    /// What is measured.
    pub(crate) y: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Everything that one run found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) machine: Value,
    pub(crate) rounds: u32,
    pub(crate) data_bytes: u32,
    pub(crate) rows: Vec<Row>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) figures: Vec<Figure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) curves: Vec<Curve>,
    /// Where the time goes, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<String>,
}

impl Gap {
    /// On one line, of a length that fits a table.
    pub(crate) fn new(name: &str, error: &dyn std::error::Error) -> Self {
        let reason = error.to_string();
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            name: name.to_owned(),
            reason: reason.chars().take(300).collect(),
        }
    }
}

impl Row {
    /// The cheapest round and the dearest.
    pub(crate) fn least_to_most(&self) -> String {
        let rounds = || self.cpu_ns_rounds.iter().flatten().copied();
        let (least, most) = (rounds().min(), rounds().max());
        let [least, most] = [least, most].map(|ns| per_thousand(ns.unwrap_or_default()));
        format!("{least} - {most}")
    }
}

impl Figure {
    /// Whether it is more than the project promises.
    pub(crate) fn is_missed(&self) -> bool {
        self.at_most.is_some_and(|most| self.value > most)
    }
}

impl Ratio {
    /// Judges `value`. Where the aim is below the bound, less is better.
    pub(crate) fn new(name: &str, value: Option<f64>, at_least: f64, aim: f64) -> Self {
        let reaches = |value: f64, mark: f64| match aim < at_least {
            true => value <= mark,
            false => value >= mark,
        };
        let verdict = match value {
            None => "not measured",
            Some(value) if reaches(value, aim) => "reached",
            Some(value) if reaches(value, at_least) => "ok",
            Some(_) => "missed",
        };
        Self {
            name: name.to_owned(),
            value,
            at_least,
            aim,
            verdict,
        }
    }

    fn bound(&self) -> &'static str {
        if self.aim < self.at_least {
            "at most"
        } else {
            "at least"
        }
    }
}

impl Report {
    /// The value, or a gap by this name.
    pub(crate) fn or_gap<T>(&mut self, name: &str, result: crate::Result<T>) -> Option<T> {
        result
            .map_err(|error| self.gaps.push(Gap::new(name, error.as_ref())))
            .ok()
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// How much more `subject` does with a CPU second than `other`: the median of what each round says. The
    /// two are near each other in a round, and a machine that becomes slower takes both along.
    pub(crate) fn times(&self, subject: &str, other: &str) -> Option<f64> {
        let (subject, other) = (self.row(subject)?, self.row(other)?);
        let rounds = subject.cpu_ns_rounds.iter().zip(&other.cpu_ns_rounds);
        middle(rounds.filter_map(|(subject, other)| quotient((*other)?, (*subject)?)))
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let line = |out: &mut String, cells: [&str; 7]| {
            let [name, a, b, c, d, e, f] = cells;
            let _ = writeln!(
                out,
                "{name:<52} {a:>9} {b:>12} {c:>19} {d:>10} {e:>8} {f:>8}"
            );
        };
        line(
            &mut out,
            [
                "",
                "in flight",
                "CPU s/1000",
                "least to most",
                "packets/s",
                "p50 us",
                "p99 us",
            ],
        );
        for row in &self.rows {
            line(
                &mut out,
                [
                    &row.name,
                    &row.in_flight.to_string(),
                    &per_thousand(row.cpu_ns_per_packet),
                    &row.least_to_most(),
                    &row.packets_per_second.to_string(),
                    &row.latency_us_p50.to_string(),
                    &row.latency_us_p99.to_string(),
                ],
            );
        }
        for gap in &self.gaps {
            let _ = writeln!(out, "{:<52} not measured: {}", gap.name, gap.reason);
        }
        out.push('\n');
        for ratio in &self.ratios {
            let value = ratio
                .value
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            let _ = writeln!(
                out,
                "{:<62} {value:>8}  {} {}, aim {}: {}",
                ratio.name,
                ratio.bound(),
                ratio.at_least,
                ratio.aim,
                ratio.verdict
            );
        }
        out.push('\n');
        for figure in &self.figures {
            let bound = match figure.at_most {
                None => String::new(),
                Some(most) if figure.value <= most => format!(" (at most {most}: ok)"),
                Some(most) => format!(" (at most {most}: missed)"),
            };
            let _ = writeln!(
                out,
                "{:<62} {} {}{bound}",
                figure.name,
                short(figure.value),
                figure.unit
            );
        }
        for curve in &self.curves {
            let _ = writeln!(out, "\n{}: {} by {}", curve.name, curve.y, curve.x);
            for (x, y) in &curve.points {
                let _ = writeln!(out, "{:>14} {:>14}", short(*x), short(*y));
            }
        }
        out
    }
}

/// `part` of `whole`, unless there is nothing to divide by.
pub(crate) fn quotient(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "figures to a few digits")]
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Nanoseconds per packet as seconds per thousand packets.
pub(crate) fn per_thousand(cpu_ns: u64) -> String {
    let hundred_thousandths = cpu_ns / 10;
    format!(
        "{}.{:05}",
        hundred_thousandths / 100_000,
        hundred_thousandths % 100_000
    )
}

/// A number as people write it.
pub(crate) fn short(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else if value.abs() >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

pub(crate) fn median<T: Ord + Copy + Default>(values: impl Iterator<Item = T>) -> T {
    at_quarter(2, values)
}

/// The lower one.
pub(crate) fn quartile<T: Ord + Copy + Default>(values: impl Iterator<Item = T>) -> T {
    at_quarter(1, values)
}

fn at_quarter<T: Ord + Copy + Default>(quarter: usize, values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let at = values.len() * quarter / 4;
    values.get(at).copied().unwrap_or_default()
}

/// The median of ratios; none of none.
pub(crate) fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// What one hop adds to a latency, against what another adds, by turns: each way's lower quartile counts, as
/// whatever else the machine does only adds. The first way is without a hop, the second through the other, the
/// third through the one. Where every other turn of a way says something else than the rest, by half of what the
/// other adds, a ratio would be one of noise.
pub(crate) fn added(ways: [&[u64]; 3]) -> crate::Result<f64> {
    let [straight, other, own] = ways.map(|turns| {
        let of = |first: usize, step: usize| {
            let turns = turns.iter().skip(first).step_by(step);
            quartile(turns.map(|turn| turn.cast_signed()))
        };
        (of(0, 1), of(0, 2).abs_diff(of(1, 2)))
    });
    let (added_other, added_own) = (other.0 - straight.0, own.0 - straight.0);
    let doubt = [straight, other, own].map(|(_, doubt)| doubt);
    let doubt_max = u64::try_from(added_other).unwrap_or(0) / 2;
    if doubt.into_iter().any(|doubt| doubt >= doubt_max) {
        return Err(format!(
            "not to be told from noise: {added_other} ns are added, by ours {added_own} ns, and every other turn says \
             something else by {doubt:?} ns"
        )
        .into());
    }
    let added_own = u64::try_from(added_own).unwrap_or(0);
    quotient(added_own, added_other.unsigned_abs()).ok_or_else(|| "no latency".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Report {
        Report {
            commit: String::new(),
            date: String::new(),
            machine: Value::Null,
            rounds: 1,
            data_bytes: 300,
            rows: Vec::new(),
            gaps: Vec::new(),
            ratios: Vec::new(),
            figures: Vec::new(),
            curves: Vec::new(),
            profile: None,
        }
    }

    #[test]
    fn ratios_are_judged_in_their_direction() {
        for (value, at_least, aim, verdict) in [
            (Some(0.59), 0.6, 1.0, "missed"),
            (Some(0.6), 0.6, 1.0, "ok"),
            (Some(1.0), 0.6, 1.0, "reached"),
            (None, 0.6, 1.0, "not measured"),
            // What a refused packet costs should be little.
            (Some(0.71), 0.7, 0.5, "missed"),
            (Some(0.7), 0.7, 0.5, "ok"),
            (Some(0.4), 0.7, 0.5, "reached"),
        ] {
            assert_eq!(
                Ratio::new("x", value, at_least, aim).verdict,
                verdict,
                "{value:?}"
            );
        }
    }

    fn row(name: &str, rounds: &[Option<u64>]) -> Row {
        Row {
            name: name.to_owned(),
            in_flight: 1,
            cpu_ns_per_packet: median(rounds.iter().flatten().copied()),
            cpu_ns_rounds: rounds.to_vec(),
            packets_per_cpu_second: 0,
            packets_per_second: 0,
            latency_us_p50: 0,
            latency_us_p99: 0,
            memory_kib: 0,
        }
    }

    #[test]
    fn a_row_that_costs_half_does_twice_as_much() {
        let rows = [("a", 5_000), ("b", 10_000), ("none", 0)];
        let report = Report {
            rows: rows.map(|(name, ns)| row(name, &[Some(ns)])).into(),
            ..empty()
        };
        assert_eq!(report.times("a", "b"), Some(2.0));
        assert_eq!(report.times("a", "missing"), None);
        assert_eq!(report.times("none", "a"), None);
        assert!(report.text().contains("0.00500 - 0.00500"));
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        // The machine was slow from the third round on, and two rounds of `b` failed.
        let report = Report {
            rows: vec![
                row("a", &[Some(10), Some(10), Some(40), Some(40), Some(40)]),
                row("b", &[Some(30), Some(30), Some(120), None, None]),
            ],
            ..empty()
        };
        assert_eq!(report.times("a", "b"), Some(3.0));
        let dearest = row("c", &[Some(30_000), None, Some(120_000), Some(60_000)]);
        assert_eq!(dearest.least_to_most(), "0.03000 - 0.12000");
    }

    #[test]
    fn what_is_added_is_compared_where_it_is_more_than_noise() {
        // One turn was disturbed, and two were slow as a whole.
        let straight = [100, 101, 900, 900, 100, 99, 100, 101];
        let other = straight.map(|straight| straight + 20);
        let mut own = straight.map(|straight| straight + 30);
        own[4] = 5_000;
        assert_eq!(added([&straight, &other, &own]).ok(), Some(1.5));
        let none_of_ours = straight.map(|straight| straight - 5);
        assert_eq!(added([&straight, &other, &none_of_ours]).ok(), Some(0.0));
        let hardly_any = straight.map(|straight| straight + 2);
        assert!(added([&straight, &hardly_any, &own]).is_err());
        let own_is_noise = [110, 150, 110, 150, 110, 150, 110, 150];
        assert!(added([&straight, &other, &own_is_noise]).is_err());
        assert!(added([&[], &[], &[]]).is_err());
    }

    #[test]
    fn numbers_and_medians() {
        assert_eq!(per_thousand(16_400), "0.01640");
        assert_eq!(per_thousand(1_250_000), "1.25000");
        assert_eq!(median([3, 1, 2].into_iter()), 2);
        assert_eq!(median(std::iter::empty::<u64>()), 0);
        assert_eq!(
            (short(1234.5), short(2.5), short(0.25)),
            ("1234".into(), "2.50".into(), "0.2500".into())
        );
    }
}
