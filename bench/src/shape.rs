//! The comparison: each subject on one core, load and fulfilling peer on the other, CPU time per
//! packet, interleaved, medians.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::load::Report;
use crate::node;
use crate::process::{self, Process};
use crate::{Listening, Result};

const SUBJECT_CORE: usize = 0;
const LOAD_CORE: usize = 1;
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
    /// The process whose time is measured, with its children.
    pub(crate) process: Process,
    /// Where the load goes.
    pub(crate) target: Target,
}

/// Where and how the load is sent.
pub(crate) enum Target {
    /// ILP over HTTP.
    Http(String),
    /// BTP over WebSocket.
    Btp(String),
}

/// The figures of one subject.
#[derive(Serialize)]
struct Row {
    name: String,
    /// CPU time of the subject, in nanoseconds per packet; thousandths of a millisecond per
    /// thousand packets are the same number.
    cpu_ns_median: u64,
    cpu_ns: Vec<u64>,
    per_second_median: u128,
    latency_us_p50_median: u128,
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
            match nginx(&folder.0, http) {
                Ok(subject) => subjects.push(Subject {
                    name: NGINX.to_owned(),
                    ..subject
                }),
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
    pub(crate) fn measure(&self, subject: &Subject) -> Result<Sample> {
        let packets = match &subject.target {
            Target::Http(_) => self.packets,
            Target::Btp(_) => self.packets.saturating_mul(4),
        };
        self.load(&subject.target, packets.div_ceil(WARM_UP_SHARE))?;
        let before = process::cpu_ticks(subject.process.id())?;
        let report = self.load(&subject.target, packets)?;
        let ticks = process::cpu_ticks(subject.process.id())? - before;
        if report.fulfilled != u64::from(packets) {
            return Err(format!(
                "{}: {} of {packets} packets fulfilled",
                subject.name, report.fulfilled
            )
            .into());
        }
        Ok(Sample {
            cpu_ns: ticks * 1_000_000_000 / process::ticks_per_second()? / u64::from(packets),
            report,
        })
    }

    fn load(&self, target: &Target, packets: u32) -> Result<Report> {
        let mut command = process::pinned(LOAD_CORE, &std::env::current_exe()?);
        match target {
            Target::Http(url) => command.args(["load", "--http", url]),
            Target::Btp(url) => command.args(["load", "--btp", url]),
        };
        command
            .args(["--token", node::TOKEN, "--packets", &packets.to_string()])
            .args([
                "--concurrency",
                &self.concurrency.to_string(),
                "--size",
                &DATA_BYTES.to_string(),
            ]);
        let output = command.stderr(std::process::Stdio::inherit()).output()?;
        Ok(serde_json::from_slice(&output.stdout).map_err(|_| "the load did not finish")?)
    }
}

/// Bytes of data in each packet.
const DATA_BYTES: u32 = 300;

/// One measurement of a subject.
pub(crate) struct Sample {
    cpu_ns: u64,
    report: Report,
}

impl Row {
    fn new(name: &str, samples: &[Sample]) -> Self {
        Self {
            name: name.to_owned(),
            cpu_ns_median: median(samples.iter().map(|sample| sample.cpu_ns)),
            cpu_ns: samples.iter().map(|sample| sample.cpu_ns).collect(),
            per_second_median: median(samples.iter().map(|sample| sample.report.per_second)),
            latency_us_p50_median: median(
                samples.iter().map(|sample| sample.report.latency_us.p50),
            ),
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

/// Nanoseconds per packet as seconds per thousand packets.
fn per_thousand(cpu_ns: u64) -> String {
    format!("0.{:05}", cpu_ns / 10)
}

fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
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
    Ok(Subject {
        name: name.to_owned(),
        process,
        target,
    })
}

/// nginx as it is usually put before such a service: one worker, connections kept alive on both
/// sides, no access log.
fn nginx(folder: &Path, to: SocketAddr) -> Result<Subject> {
    let program = process::find("nginx")
        .ok_or("no nginx on the PATH (Debian: apt-get install nginx-light)")?;
    // nginx cannot tell which port it was given, so a free one is looked for.
    let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let folder_name = folder.display();
    let configuration = format!(
        "daemon off;
worker_processes 1;
pid {folder_name}/nginx.pid;
error_log {folder_name}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {folder_name}/body;
    proxy_temp_path {folder_name}/proxy;
    fastcgi_temp_path {folder_name}/fastcgi;
    uwsgi_temp_path {folder_name}/uwsgi;
    scgi_temp_path {folder_name}/scgi;
    upstream peer {{ server {to}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://peer;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration)?;
    let mut command = process::pinned(SUBJECT_CORE, &program);
    // -e as well: before it reads its configuration nginx would open the system's own log.
    command
        .arg("-e")
        .arg(folder.join("nginx.log"))
        .arg("-c")
        .arg(&file);
    let process = Process::spawn(&mut command)?;
    process::wait_for_listener(listen)?;
    Ok(Subject {
        name: String::new(),
        process,
        target: Target::Http(format!("http://{listen}/ilp")),
    })
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
