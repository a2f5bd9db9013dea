//! The comparison: each subject on one core, load and fulfilling peer on the other, CPU time per
//! packet, interleaved, medians.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::load::{Load, Report};
use crate::node;
use crate::process::{self, Process};
use crate::suite::report::{median, per_thousand};
use crate::suite::subjects;
use crate::{Listening, Result};

pub(crate) const SUBJECT_CORE: usize = 0;
pub(crate) const LOAD_CORE: usize = 1;
/// Packets that warm up connections and caches before the clock starts, as a share of the rest.
const WARM_UP_SHARE: u32 = 10;

/// Options of `rialto-bench shape`.
#[derive(clap::Args)]
pub(crate) struct Shape {
    /// Measurements of each subject, of which the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// Packets per measurement over HTTP; over BTP four times as many
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    packets: u32,
    /// Packets in flight
    #[arg(long, default_value_t = 16)]
    concurrency: u32,
    /// Only subjects whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Something that forwards packets to the fulfilling peer.
pub(crate) struct Subject {
    /// What the table calls it.
    pub(crate) name: String,
    /// The processes whose time is measured, with their children.
    pub(crate) processes: Vec<Process>,
    /// Where the load goes.
    pub(crate) target: Target,
    /// What the load presents.
    pub(crate) token: String,
}

impl Subject {
    pub(crate) fn new(name: &str, processes: Vec<Process>, target: Target) -> Self {
        Self {
            name: name.to_owned(),
            processes,
            target,
            token: node::TOKEN.to_owned(),
        }
    }

    /// CPU time of all that it needs, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> Result<u64> {
        let processes = self.processes.iter();
        processes.map(|process| process::cpu_ns(process.id())).sum()
    }

    /// Resident memory of all that it needs.
    pub(crate) fn memory_kib(&self) -> u64 {
        let processes = self.processes.iter();
        processes
            .map(|process| process::memory_kib(process.id()))
            .sum()
    }
}

/// Where and how the load is sent.
#[derive(Clone)]
pub(crate) enum Target {
    /// ILP over HTTP.
    Http(String),
    /// BTP over WebSocket.
    Btp(String),
    /// ILP over HTTP/2 without TLS.
    H2c(String),
}

impl Target {
    /// Host and port.
    pub(crate) fn address(&self) -> Result<String> {
        let (Self::Http(url) | Self::Btp(url) | Self::H2c(url)) = self;
        let rest = url.split_once("://").ok_or("a URL without scheme")?.1;
        Ok(rest.split('/').next().unwrap_or(rest).to_owned())
    }
}

/// The figures of one subject.
#[derive(Serialize)]
struct Row {
    name: String,
    /// CPU time of the subject, in nanoseconds per packet; thousandths of a millisecond per
    /// thousand packets are the same number.
    cpu_ns_median: u64,
    cpu_ns: Vec<u64>,
    per_second_median: u64,
    latency_us_p50_median: u64,
}

/// A subject that could not be measured.
#[derive(Serialize)]
struct Gap {
    name: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct Comparison {
    concurrency: u32,
    data_bytes: u32,
    rounds: u32,
    rows: Vec<Row>,
    gaps: Vec<Gap>,
}

/// Name, and the options of `rialto-bench forward` that make it.
const FORWARDERS: [(&str, &str); 15] = [
    ("http: httparse, one thread", "--kind lean"),
    ("http: hyper, one thread, own pool", "--kind hyper-pool"),
    ("http: hyper, one thread, hyper-util", "--kind hyper-util"),
    (
        "http: hyper, work-stealing, own pool",
        "--kind hyper-pool --runtime stealing",
    ),
    (
        "http: hyper, work-stealing, hyper-util",
        "--kind hyper-util --runtime stealing",
    ),
    (
        "http: hyper, one thread, core, write per packet",
        "--kind hyper-pool --core packet",
    ),
    (
        "http: hyper, one thread, core, write per turn",
        "--kind hyper-pool --core batch",
    ),
    (
        "http: httparse, core, write per turn",
        "--kind lean --core batch",
    ),
    ("btp: own codec", "--kind lean-websocket"),
    ("btp: tokio-tungstenite", "--kind tungstenite"),
    ("btp: tokio-websockets", "--kind websockets"),
    (
        "btp: tokio-tungstenite, work-stealing",
        "--kind tungstenite --runtime stealing",
    ),
    (
        "btp: tokio-tungstenite, core, write per packet",
        "--kind tungstenite --core packet",
    ),
    (
        "btp: tokio-tungstenite, core, write per turn",
        "--kind tungstenite --core batch",
    ),
    (
        "btp: own codec, core, write per turn",
        "--kind lean-websocket --core batch",
    ),
];

/// Rialto itself, over HTTP and over BTP; looked for beside this program.
const RIALTO: [&str; 2] = ["http: rialto", "btp: rialto"];

impl Shape {
    pub(crate) fn run(&self) -> Result<()> {
        if std::thread::available_parallelism()?.get() < 2 {
            return Err("needs two cores: one for the subject, one for the load".into());
        }
        let folder = Folder::create()?;
        let program = std::env::current_exe()?;
        let mut fulfil = process::pinned(LOAD_CORE, &program);
        fulfil.args([
            "fulfil",
            "--http-listen",
            "127.0.0.1:0",
            "--btp-listen",
            "127.0.0.1:0",
        ]);
        let (_fulfil, peer) = Process::listening(&mut fulfil)?;
        let Listening {
            http: Some(http),
            btp: Some(btp),
        } = peer
        else {
            return Err("the fulfilling peer does not listen".into());
        };

        let mut subjects = Vec::new();
        let mut gaps = Vec::new();
        const NGINX: &str = "http: nginx proxy_pass";
        if NGINX.contains(&self.only) {
            match subjects::nginx(NGINX, SUBJECT_CORE, &folder.0.join("nginx"), http) {
                Ok(subject) => subjects.push(subject),
                Err(error) => gaps.push(Gap {
                    name: NGINX,
                    reason: error.to_string(),
                }),
            }
        }
        for (name, options) in FORWARDERS
            .into_iter()
            .filter(|(name, _)| name.contains(&self.only))
        {
            let to = if name.starts_with("btp") { btp } else { http };
            subjects.push(forwarder(name, options, to, &folder.0)?);
        }

        let rialto = program.with_file_name("rialto");
        let links = [
            (
                RIALTO[0],
                serde_json::json!({"http": {"url": format!("http://{http}/ilp"), "token": "t"}}),
            ),
            (
                RIALTO[1],
                serde_json::json!({"btp": {"url": format!("btp+ws://{btp}/"), "token": "t"}}),
            ),
        ];
        for (name, link) in links
            .into_iter()
            .filter(|(name, _)| name.contains(&self.only))
        {
            match node::subject(name, &rialto, SUBJECT_CORE, &folder.0, &link) {
                Ok(subject) => subjects.push(subject),
                Err(error) => gaps.push(Gap {
                    name,
                    reason: error.to_string(),
                }),
            }
        }

        let mut samples: Vec<Vec<Sample>> = subjects.iter().map(|_| Vec::new()).collect();
        for round in 1..=self.rounds {
            for (subject, samples) in subjects.iter().zip(&mut samples) {
                eprint!("\r\x1b[Kround {round} of {}: {}", self.rounds, subject.name);
                samples.push(self.measure(subject)?);
            }
        }
        eprint!("\r\x1b[K");
        let rows = subjects
            .iter()
            .zip(samples)
            .map(|(subject, samples)| Row::new(&subject.name, &samples))
            .collect();
        Comparison {
            concurrency: self.concurrency,
            data_bytes: DATA_BYTES,
            rounds: self.rounds,
            rows,
            gaps,
        }
        .print(self.json)
    }

    /// One measurement.
    fn measure(&self, subject: &Subject) -> Result<Sample> {
        let packets = match &subject.target {
            Target::Http(_) | Target::H2c(_) => self.packets,
            Target::Btp(_) => self.packets.saturating_mul(4),
        };
        let load = |packets: u32| {
            let packets = packets.into();
            Load::run_pinned(
                LOAD_CORE,
                subject,
                packets,
                self.concurrency,
                DATA_BYTES,
                &[],
            )
        };
        load(packets.div_ceil(WARM_UP_SHARE))?;
        let before = subject.cpu_ns()?;
        let report = load(packets)?;
        let used = subject.cpu_ns()?.saturating_sub(before);
        if report.fulfilled != u64::from(packets) {
            return Err(format!(
                "{}: {} of {packets} packets fulfilled",
                subject.name, report.fulfilled
            )
            .into());
        }
        Ok(Sample {
            cpu_ns: used / u64::from(packets),
            ..Sample::from_load(&report)
        })
    }
}

/// Bytes of data in each packet.
const DATA_BYTES: u32 = 300;

/// One measurement of a subject.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sample {
    /// CPU time per packet, in nanoseconds.
    pub(crate) cpu_ns: u64,
    pub(crate) fulfilled: u64,
    /// Answered by anything else.
    pub(crate) refused: u64,
    /// Answers per second of wall time.
    pub(crate) per_second: u64,
    /// Percentiles of the latency, in microseconds.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

impl Sample {
    /// Without the CPU time, which the load does not know.
    pub(crate) fn from_load(report: &Report) -> Self {
        let small = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Self {
            cpu_ns: 0,
            fulfilled: report.fulfilled,
            refused: report.rejected,
            per_second: small(report.per_second),
            p50: small(report.latency_us.p50),
            p99: small(report.latency_us.p99),
        }
    }

    /// The same from the JSON of `rialto bench run`.
    pub(crate) fn from_rialto(report: &serde_json::Value) -> Self {
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
        Self {
            cpu_ns: 0,
            fulfilled: number(&report["fulfilled"]),
            refused: number(&report["rejected"]) + number(&report["failed"]),
            per_second: number(&report["answered_per_second"]),
            p50: number(&report["service_us"]["p50"]),
            p99: number(&report["service_us"]["p99"]),
        }
    }
}

impl Row {
    fn new(name: &str, samples: &[Sample]) -> Self {
        Self {
            name: name.to_owned(),
            cpu_ns_median: median(samples.iter().map(|sample| sample.cpu_ns)),
            cpu_ns: samples.iter().map(|sample| sample.cpu_ns).collect(),
            per_second_median: median(samples.iter().map(|sample| sample.per_second)),
            latency_us_p50_median: median(samples.iter().map(|sample| sample.p50)),
        }
    }
}

impl Comparison {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        println!(
            "{:<50} {:>12} {:>17} {:>10} {:>8}",
            "", "CPU s/1000", "least to most", "packets/s", "p50 us"
        );
        for row in &self.rows {
            let least = row.cpu_ns.iter().min().copied().unwrap_or_default();
            let most = row.cpu_ns.iter().max().copied().unwrap_or_default();
            println!(
                "{:<50} {:>12} {:>17} {:>10} {:>8}",
                row.name,
                per_thousand(row.cpu_ns_median),
                format!("{} - {}", per_thousand(least), per_thousand(most)),
                row.per_second_median,
                row.latency_us_p50_median
            );
        }
        for gap in &self.gaps {
            println!("{:<50} not measured: {}", gap.name, gap.reason);
        }
        Ok(())
    }
}

fn forwarder(name: &str, options: &str, to: SocketAddr, folder: &Path) -> Result<Subject> {
    let mut command = process::pinned(SUBJECT_CORE, &std::env::current_exe()?);
    command
        .arg("forward")
        .args(options.split(' '))
        .args(["--to", &to.to_string()]);
    if options.contains("--core") {
        command.arg("--journal").arg(folder.join(name));
    }
    let (process, listening) = Process::listening(&mut command)?;
    let target = match listening {
        Listening {
            http: Some(http), ..
        } => Target::Http(format!("http://{http}/ilp")),
        Listening { btp: Some(btp), .. } => Target::Btp(format!("ws://{btp}/")),
        Listening {
            http: None,
            btp: None,
        } => return Err(format!("{name} does not listen").into()),
    };
    Ok(Subject::new(name, vec![process], target))
}

/// A folder of our own that goes with us.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("rialto-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
