//! The page of the book, and its plots.

use std::{fmt::Write as _, fs, path::Path};

use super::report::{Curve, Report, per_thousand, quotient, short};
use crate::Result;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 30.0;
const RIGHT: f64 = 20.0;

/// One curve over a logarithmic axis of sizes.
fn svg(curve: &Curve) -> String {
    let most = curve.points.iter().map(|(_, y)| *y).fold(0.0, f64::max);
    let ceiling = ceiling(most);
    let logs: Vec<f64> = curve
        .points
        .iter()
        .map(|(x, _)| x.max(1.0).log10())
        .collect();
    let first = logs.first().copied().unwrap_or(0.0);
    let span = (logs.last().copied().unwrap_or(1.0) - first).max(1e-9);
    let at_x = |log: f64| LEFT + (log - first) / span * (WIDTH - LEFT - RIGHT);
    let at_y = |y: f64| HEIGHT - BOTTOM - y / ceiling * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}: {}</text>\n",
        curve.name, curve.y
    );
    for step in 0..=4 {
        let value = ceiling * f64::from(step) / 4.0;
        let y = at_y(value);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            short(value)
        );
    }
    let mut path = String::new();
    for ((x, y), log) in curve.points.iter().zip(&logs) {
        let (px, py) = (at_x(*log), at_y(*y));
        let _ = write!(path, "{px:.1},{py:.1} ");
        let _ = writeln!(
            out,
            "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"#1f5fa8\"/>\
             <text x=\"{px:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM + 18.0,
            short(*x)
        );
    }
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n</svg>",
        path.trim_end(),
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 10.0,
        curve.x
    );
    out
}

/// The next of 1, 2 and 5 times a power of ten.
fn ceiling(most: f64) -> f64 {
    let power = 10_f64.powf(most.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|mark| *mark >= most)
        .unwrap_or(most)
}

/// Writes the page and one plot per curve beside it.
pub(super) fn write_page(page: &Path, report: &Report) -> Result<()> {
    let plots = page.with_extension("");
    if !report.curves.is_empty() {
        fs::create_dir_all(&plots)?;
    }
    let mut names = Vec::new();
    for curve in &report.curves {
        let name = curve.name.to_lowercase().replace(' ', "-") + ".svg";
        fs::write(plots.join(&name), svg(curve))?;
        names.push(name);
    }
    let folder = plots
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("performance");
    fs::write(page, markdown(report, folder, &names))?;
    Ok(())
}

const METHOD: &str = "\
## Method

- Each system runs on one core; the load and the peer that fulfils share the other. Each has its own
  folder and its own ports on loopback.
- The measure is CPU time, user and system, of all processes that the system needs (nginx with its worker,
  `ilp-node` with its Redis), from `/proc/PID/task/TID/schedstat`, per packet. Wall time and latency stand beside it;
  load and peer share a core, so they say less.
- The load is closed: always the same number of packets in flight. Over HTTP/1.1 each has a connection, over
  h2c and BTP they share one. Systems take turns, an eighth of a second each, round after round, to and fro; the median of
  the rounds counts. A ratio is the median of the ratios of each round, so that a machine that becomes slower or faster
  meanwhile changes both sides of it. Packets go to an address below the receiver's, as a payment's do.
- Every packet has a condition of its own, and each Fulfill is checked against its preimage. A round in which
  anything else came back does not count and is named.
- The node is built as it is shipped (`cargo build --profile dist`: with link-time optimisation), `ilp-node` as its
  package has it, in the release profile.
- *Strict, durable*: every limit of both accounts is set and so checked, and the journal is on a disk, written
  before an answer leaves and synced every 100 ms. *Trusting, volatile*: no limit but credit, and the journal in
  memory (`/dev/shm`), where a sync costs nothing; the node has no mode without a journal.
- The others keep every limit that they have, as the node does: of a packet's amount, of packets and amounts a
  minute, and of the balance. `ilp-node` has those of a minute kept by the module of Redis that its package recommends
  (`redis-cell` 0.2.2); a row without them is beside the others.
- `ilp-node` is the published 0.6.0 (bench/ilp-node), its Redis in memory without any log. Its `tokio-sync` 0.1
  does not run on today's Rust; in its place is a crate of ours with the channels of `futures` 0.1, and the
  figures are with that one (bench/ilp-node/tokio-sync).
- The JavaScript `ilp-connector` is 23.0.2 with the plug-ins for BTP and HTTP, without balances on disk, as it
  has none.
- Goodput comes from `rialto bench run`, an open load, and is the worse of HTTP/1.1 (at most 256 in flight, each on
  a connection of its own) and BTP (at most 10,000 on one), in the same measure as all else: per CPU second of the
  node. What three times the capacity is, the load could not send to a node with a core of its own. So three
  processes that only compute share that core, and leave the node a quarter of it; the peak is taken there too, with
  64 in flight or with as many as then, whichever is more in the median of the turns. Over HTTP/1.1 it is the connections that cost, not
  the packets that are due: a closed load with 256 in flight costs as much, and nginx's does.
- Latency at half load: at half of what the node fulfils over HTTP/1.1 with 64 in flight, arrivals as they
  happen to come (Poisson), a packet's latency counting from when it was due, straight to the peer that fulfils,
  through nginx and through the node, in turns of 100 ms, so that a machine that becomes slower or faster does so
  for all three. Load and peer are one thread that never sleeps (`rialto-bench hop`): two would wait for each other,
  and one that sleeps for the machine. Each turn has percentiles, of which the lower quartile counts, as a machine
  that takes a core away for some milliseconds only adds. What a hop adds is its 99th percentile less that of the
  straight way. Where every other turn says something else than the rest, by half of what nginx adds, a ratio would
  be one of noise: there is none, and what was found stands among what was not measured. Packets per
  second while an engine hangs are those of 512 in flight: with few, node and load wait for each other.
- The time of prepare plus fulfill in the core is the lower quartile of the rounds, each a median of 2,001 parts.
- A start with large books is the median of five, on all cores; packets then go to a node on one.
- Where the node settles, what it owes is due after every 10,000 packets. The engine that hangs takes the
  connection and never answers; the other one answers at once.
- Books of a million accounts or routes are written as a journal, which the node recovers from. Every packet
  then pays from another account, or goes to another route.
- Look-ups, steps and memory of learnt routes are those of the core alone (`rialto-bench routes`), the least of
  three runs, steps by their processor time. A peer tells the routes, 400 in an update; those of an update share
  their path, as a neighbour's mostly do, and it is kept once.
";

fn markdown(report: &Report, folder: &str, plots: &[String]) -> String {
    let mut out = format!(
        "# Performance\n\n<!-- Written by `cargo xtask bench --full --write-docs`. -->\n\n\
         What a packet costs, measured beside other systems in the same run. Repeat it with\n\n\
         ```\ncargo xtask bench --quick   # the table, in less than ten minutes once all is built\n\
         cargo xtask bench --full    # the curves too\n```\n\n\
         | | |\n|---|---|\n| Date | {} |\n| Commit | `{}` |\n",
        report.date, report.commit
    );
    for (key, value) in report.machine.as_object().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(out, "| {} | {value} |", key.replace('_', " "));
    }
    let _ = writeln!(
        out,
        "| packets | {} bytes of data, a fresh condition in each |\n| rounds | {} |\n\n## Ratios\n\n\
         Work per CPU second, in one run. Where the aim is below the bound, less is better.\n\n\
         | | measured | at least | aim | |\n|---|---|---|---|---|",
        report.data_bytes, report.rounds
    );
    for ratio in &report.ratios {
        let value = ratio
            .value
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let verdict = match ratio.verdict {
            "missed" => "**missed**",
            other => other,
        };
        let _ = writeln!(
            out,
            "| {} | {value} | {} | {} | {verdict} |",
            ratio.name, ratio.at_least, ratio.aim
        );
    }
    let _ = writeln!(
        out,
        "\n## Rows\n\nCPU seconds per 1,000 packets, of everything the system needs; the same number is the\n\
         cost of a thousand million packets in units of 1,000,000 CPU seconds, and the last column has it in\n\
         hours of one core.\n\n\
         | | in flight | CPU s / 1,000 | least to most | packets/s | p50 us | p99 us | memory, MiB | core hours / 10^9 |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    for row in &report.rows {
        // A nanosecond per packet is a second per thousand million.
        let hours = quotient(row.cpu_ns_per_packet, 3_600).unwrap_or_default();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.in_flight,
            per_thousand(row.cpu_ns_per_packet),
            row.least_to_most(),
            row.packets_per_second,
            row.latency_us_p50,
            row.latency_us_p99,
            row.memory_kib / 1024,
            short(hours)
        );
    }
    if report.gaps.is_empty() {
        out.push_str("\nNothing was left out.\n");
    } else {
        out.push_str("\nNot measured:\n\n");
        for gap in &report.gaps {
            let _ = writeln!(out, "- {}: {}", gap.name, gap.reason.replace('\n', " "));
        }
    }
    out.push_str("\n## Figures\n\n| | | at most | |\n|---|---|---|---|\n");
    for figure in &report.figures {
        let (bound, verdict) = match figure.at_most {
            None => (String::new(), ""),
            Some(most) if figure.value <= most => (short(most), "ok"),
            Some(most) => (short(most), "**missed**"),
        };
        let _ = writeln!(
            out,
            "| {} | {} {} | {bound} | {verdict} |",
            figure.name,
            short(figure.value),
            figure.unit
        );
    }
    if !report.curves.is_empty() {
        out.push_str("\n## Curves\n");
        for (curve, plot) in report.curves.iter().zip(plots) {
            let _ = writeln!(out, "\n![{}: {}]({folder}/{plot})", curve.name, curve.y);
        }
    }
    let _ = write!(out, "\n{METHOD}");
    if let Some(profile) = &report.profile {
        let _ = write!(out, "\n## Where the time goes\n\n{profile}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, expected) in [
            (0.9, 1.0),
            (1.0, 1.0),
            (1.1, 2.0),
            (23.0, 50.0),
            (700.0, 1000.0),
        ] {
            assert!((ceiling(most) - expected).abs() < 1e-9, "{most}");
        }
    }

    #[test]
    fn a_plot_holds_every_point() {
        let curve = Curve {
            name: "Routes".to_owned(),
            x: "routes".to_owned(),
            y: "us".to_owned(),
            points: vec![(10.0, 4.0), (1_000.0, 4.5), (1_000_000.0, 8.0)],
        };
        let svg = svg(&curve);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("1000000"));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn the_readme_quotes_the_page() {
        let read = |file: &str| {
            let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
            fs::read_to_string(path).expect("a file of the repository")
        };
        let (readme, page) = (read("README.md"), read("docs/performance.md"));
        let (_, section) = readme.split_once("## Speed\n").expect("a section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = section
            .lines()
            .filter(|line| line.starts_with("| ") && *line != "| | CPU s |");
        let mut count = 0;
        for row in rows {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, cost] = cells[..] else {
                panic!("not a name and a cost: {row}");
            };
            let quoted = format!("| {name} | 64 | {cost} |");
            assert!(
                page.contains(&quoted),
                "docs/performance.md has no {quoted}"
            );
            count += 1;
        }
        assert!(count > 3, "{section}");
    }
}
