//! Everything that is measured, in one run: Rialto, what it is compared with, and the figures that
//! the project promises.
//!
//! Each system has its own folder and its own ports. The one that is measured runs on one core, the
//! load and the peer that fulfils on the other. They take turns, round after round, and medians count.
#![expect(
    clippy::float_arithmetic,
    reason = "ratios of measurements; there is no money here"
)]

mod engine;
mod plot;
mod profile;
pub(crate) mod report;
mod scale;
pub(crate) mod subjects;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::{
    engine::{Engine, Mood},
    report::{Figure, Gap, Ratio, Report, Row, median},
    subjects::{DESTINATION, IlpNode, Peers, folder},
};
use crate::{
    Listening, Result,
    hop::Hop,
    load::Load,
    node::{self, Node},
    process::{self, Process},
    shape::{LOAD_CORE, SUBJECT_CORE, Sample, Subject, Target},
};

/// Bytes of data in each packet.
const DATA_BYTES: u32 = 300;
/// How long one measurement takes, about. Short, so that those of a round are near each other: a machine may be
/// slower for half a minute by a third.
const SAMPLE: Duration = Duration::from_millis(125);
/// The first load of a subject: warms it up, and says how fast it is.
const FIRST_PACKETS: u64 = 1_000;
/// Turns of a tenth of a second of each way at half load.
const LATENCY_TURNS: u32 = 150;
/// Loads of each kind at three times the capacity.
const GOODPUT_TURNS: u32 = 9;
/// Processes that share the core with a node that is to be overloaded: the load can then send three times what
/// the node can take.
const RIVALS: u32 = 3;
/// Packets of one measurement.
const PACKETS_MIN: u64 = 250;
const PACKETS_MAX: u64 = 1_000_000;

/// What we owe the receiver before it is settled, in units of which each packet carries one.
const SETTLE_THRESHOLD: &str = "10000";

const NGINX: &str = "nginx proxy_pass, HTTP/1.1";
const HTTP: &str = "Rialto HTTP/1.1, strict, durable";
const HTTP_TRUSTING: &str = "Rialto HTTP/1.1, trusting, volatile";
const H2C: &str = "Rialto h2c, strict, durable";
const H2C_TRUSTING: &str = "Rialto h2c, trusting, volatile";
const BTP: &str = "Rialto BTP, strict, durable";
const BTP_TRUSTING: &str = "Rialto BTP, trusting, volatile";
const ILP_NODE_HTTP: &str = "ilp-node HTTP/1.1, 10 routes";
const ILP_NODE_TRUSTING: &str = "ilp-node HTTP/1.1, 10 routes, no limit but credit";
const ILP_NODE_ROUTES: &str = "ilp-node HTTP/1.1, 100,000 routes";
const ILP_NODE_BTP: &str = "ilp-node BTP, 10 routes";
const JS_HTTP: &str = "JavaScript ilp-connector HTTP/1.1";
const JS_BTP: &str = "JavaScript ilp-connector BTP";
const ENGINE_ANSWERS: &str = "Rialto BTP, settles, the engine answers";
const ENGINE_HANGS: &str = "Rialto BTP, settles, the engine hangs";
const NO_ROUTE: &str = "Rialto HTTP/1.1, refused: no route";
const OVER_LIMIT: &str = "Rialto HTTP/1.1, refused: over the limit";
const EXPIRED: &str = "Rialto HTTP/1.1, refused: expired";
const WRONG_TOKEN: &str = "Rialto HTTP/1.1, refused: wrong token";

/// Options of `rialto-bench suite`.
#[derive(clap::Args)]
pub(crate) struct Suite {
    /// The curves too
    #[arg(long)]
    full: bool,
    /// Measurements of each subject, of which the median counts
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// Packets in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,
    /// Only rows whose names contain this; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Folder for everything that is written
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// The node that is measured; the one beside this program where it is left out
    #[arg(long)]
    rialto: Option<PathBuf>,
    /// Figures of `routes --write`, to stand beside the others
    #[arg(long)]
    routes: Option<PathBuf>,
    /// Also write the page of the book here, and its plots beside it
    #[arg(long)]
    write_docs: Option<PathBuf>,
}

/// What is measured in rounds.
struct Entry {
    subject: Subject,
    in_flight: u32,
    packets: u64,
    /// What the load does differently.
    extra: Vec<String>,
    /// The answer that counts.
    expects: Expects,
    /// Of each round; nothing where it does not count.
    samples: Vec<Option<Sample>>,
}

/// What a subject is to answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Fulfills,
    Refusals,
}

/// What one load brought.
#[derive(Clone, Copy)]
struct Goodput {
    /// Fulfilled, by the wall clock.
    per_second: u64,
    /// Fulfilled, per CPU second of the subject.
    per_cpu_second: u64,
    /// What the subject used.
    cpu_ns: u64,
}

/// Subjects so far, and what is missing.
struct Field<'a> {
    suite: &'a Suite,
    entries: Vec<Entry>,
    gaps: Vec<Gap>,
    /// Of the running suite.
    folder: PathBuf,
    rialto: PathBuf,
    peers: Peers,
    /// `rialto bench serve`.
    serve: SocketAddr,
    engine_answers: Engine,
    engine_hangs: Engine,
    /// What a packet takes in the core alone, in nanoseconds, of each round.
    core_ns: Vec<u64>,
}

impl Suite {
    pub(crate) fn run(&self) -> Result<()> {
        if std::thread::available_parallelism()?.get() < 2 {
            return Err("needs two cores: one for the subject, one for the load".into());
        }
        let started = Instant::now();
        let rialto = match &self.rialto {
            Some(rialto) => rialto.clone(),
            None => std::env::current_exe()?.with_file_name("rialto"),
        };
        let rialto = std::fs::canonicalize(&rialto).map_err(|error| {
            format!("no node at {}: build it first ({error})", rialto.display())
        })?;
        std::fs::create_dir_all(&self.folder)?;
        let running = std::fs::canonicalize(&self.folder)?.join("run");
        let _ = std::fs::remove_dir_all(&running);
        std::fs::create_dir_all(&running)?;

        let (_fulfil, peers) = fulfil(LOAD_CORE)?;
        let (_serve, serve) = subjects::rialto_serve(&rialto, LOAD_CORE, &[])?;
        let mut field = Field {
            suite: self,
            entries: Vec::new(),
            gaps: Vec::new(),
            folder: running.clone(),
            rialto,
            peers,
            serve,
            engine_answers: Engine::start(Mood::Answers)?,
            engine_hangs: Engine::start(Mood::Hangs)?,
            core_ns: Vec::new(),
        };
        field.add_all()?;
        let seeded = scale::add(&mut field)?;
        field.measure()?;

        let mut report = field.report()?;
        progress("figures");
        report.figures.extend(seeded);
        if let Some(file) = &self.routes {
            let routes: Vec<Figure> = serde_json::from_slice(&std::fs::read(file)?)?;
            report.figures.extend(routes);
        }
        report.figures.extend(field.figures());
        let goodput = report.or_gap("goodput at 3 times the capacity", field.goodput());
        let latency = report.or_gap("latency added at half load, vs nginx", field.latency());
        let stream = report.or_gap("STREAM payments", field.stream());
        report.figures.extend(stream.into_iter().flatten());
        let (goodput, by_the_clock) = goodput.unzip();
        report.figures.extend(by_the_clock.into_iter().flatten());
        let (latency, latencies) = latency.unzip();
        report.figures.extend(latencies.into_iter().flatten());
        let hanging = report.or_gap("packets while an engine hangs", field.hanging(&report));
        report.ratios = ratios(&report, goodput, latency, hanging);
        let by_the_clock = engine::by_the_clock(&field);
        let by_the_clock = report.or_gap("by the clock while an engine hangs", by_the_clock);
        report.ratios.extend(engine::ratios(by_the_clock));
        if self.full || self.write_docs.is_some() {
            report.profile = Some(profile::words(&field));
        }
        if self.full {
            report.curves = scale::curves(&mut field, &mut report.gaps);
        }
        drop(field);
        let _ = std::fs::remove_dir_all(&running);
        eprint!("\r\x1b[K");
        print!("{}", report.text());
        let took = started.elapsed().as_secs();
        println!("\ntook {} min {} s", took / 60, took % 60);

        let name = if self.full { "full.json" } else { "quick.json" };
        let file = self.folder.join(name);
        std::fs::write(&file, serde_json::to_string_pretty(&report)? + "\n")?;
        println!("{}", file.display());
        if let Some(page) = &self.write_docs {
            plot::write_page(page, &report)?;
            println!("{}", page.display());
        }
        Ok(())
    }
}

fn progress(what: &str) {
    eprint!("\r\x1b[K{what}");
}

/// The fulfilling peer of this program, on `core`.
fn fulfil(core: usize) -> Result<(Process, Peers)> {
    let mut command = process::pinned(core, &std::env::current_exe()?);
    command.args([
        "fulfil",
        "--http-listen",
        "127.0.0.1:0",
        "--btp-listen",
        "127.0.0.1:0",
    ]);
    match Process::listening(&mut command)? {
        (
            process,
            Listening {
                http: Some(http),
                btp: Some(btp),
            },
        ) => Ok((process, Peers { http, btp })),
        _ => Err("the fulfilling peer does not listen".into()),
    }
}

impl Field<'_> {
    fn wants(&self, name: &str) -> bool {
        let only = &self.suite.only;
        only.is_empty() || only.iter().any(|part| name.contains(part))
    }

    /// Adds a subject, or the reason why there is none.
    fn add(&mut self, name: &str, make: impl FnOnce(&Self) -> Result<Subject>) {
        self.add_special(name, self.suite.in_flight, Expects::Fulfills, &[], make);
    }

    fn add_special(
        &mut self,
        name: &str,
        in_flight: u32,
        expects: Expects,
        extra: &[&str],
        make: impl FnOnce(&Self) -> Result<Subject>,
    ) {
        if !self.wants(name) {
            return;
        }
        progress(name);
        let entry = make(self).and_then(|subject| {
            let mut entry = Entry {
                subject,
                in_flight,
                packets: FIRST_PACKETS,
                extra: extra.iter().map(|&word| word.to_owned()).collect(),
                expects,
                samples: Vec::new(),
            };
            // Two loads: the first also pays for connections and cold code.
            self.sample(&entry)?;
            let sample = self.sample(&entry)?;
            let wanted = u128::from(sample.per_second) * SAMPLE.as_millis() / 1_000;
            entry.packets = u64::try_from(wanted)?.clamp(PACKETS_MIN, PACKETS_MAX);
            Ok(entry)
        });
        match entry {
            Ok(entry) => self.entries.push(entry),
            Err(error) => self.gaps.push(Gap::new(name, error.as_ref())),
        }
    }

    fn rialto(&self, name: &str, trusting: bool, link: &Value) -> Result<Subject> {
        let below = match trusting {
            // Volatile: its journal is in memory, where a sync costs nothing.
            true => memory_folder()?,
            false => self.folder.clone(),
        };
        let folder = folder(&below, name);
        node::prepare(&folder, "test.bench", "")?;
        let node = Node::start(&self.rialto, SUBJECT_CORE, &folder)?;
        let limits = match trusting {
            true => json!({"balance_min": "-1000000000000000"}),
            false => node::strict_limits(),
        };
        node::forward(name, node, &limits, link)
    }

    fn http_link(&self) -> Value {
        http_link(self.peers.http)
    }

    fn btp_link(&self) -> Value {
        json!({"btp": {"url": format!("btp+ws://{}/", self.peers.btp), "token": "t"}})
    }

    /// What it owes is settled by an engine.
    fn settling(&self, name: &str, engine: &Engine, link: &Value) -> Result<Subject> {
        let mut link = link.clone();
        let url = engine.url();
        link["settlement"] = json!({"engine_url": url, "threshold": SETTLE_THRESHOLD});
        self.rialto(name, false, &link)
    }

    /// h2c on both sides.
    fn rialto_h2c(&self, name: &str, trusting: bool) -> Result<Subject> {
        let link = json!({"http": {"url": format!("h2c://{}/ilp", self.serve), "token": "t"}});
        let mut subject = self.rialto(name, trusting, &link)?;
        if let Target::Http(url) = &subject.target {
            subject.target = Target::H2c(url.replace("http://", "h2c://"));
        }
        Ok(subject)
    }

    fn add_all(&mut self) -> Result<()> {
        // The floor: no connector at all.
        for over_btp in [false, true] {
            let name = format!(
                "raw fulfiller, {}",
                if over_btp { "BTP" } else { "HTTP/1.1" }
            );
            self.add(&name, |_| {
                let (process, peers) = fulfil(SUBJECT_CORE)?;
                let target = match over_btp {
                    true => Target::Btp(format!("ws://{}/", peers.btp)),
                    false => Target::Http(format!("http://{}/ilp", peers.http)),
                };
                Ok(Subject::new(&name, vec![process], target))
            });
        }
        self.add(NGINX, |field| {
            subjects::nginx(
                NGINX,
                SUBJECT_CORE,
                &folder(&field.folder, NGINX),
                field.peers.http,
            )
        });
        for (name, trusting) in [(HTTP, false), (HTTP_TRUSTING, true)] {
            self.add(name, |field| {
                field.rialto(name, trusting, &field.http_link())
            });
        }
        for (name, trusting) in [(H2C, false), (H2C_TRUSTING, true)] {
            self.add(name, |field| field.rialto_h2c(name, trusting));
        }
        for (name, trusting) in [(BTP, false), (BTP_TRUSTING, true)] {
            self.add(name, |field| {
                field.rialto(name, trusting, &field.btp_link())
            });
        }
        self.add(ENGINE_ANSWERS, |field| {
            field.settling(ENGINE_ANSWERS, &field.engine_answers, &field.btp_link())
        });
        self.add(ENGINE_HANGS, |field| {
            field.settling(ENGINE_HANGS, &field.engine_hangs, &field.btp_link())
        });
        self.add_few_in_flight();
        self.add_others();
        self.add_refusals();
        self.add_chains();
        Ok(())
    }

    /// The same with as few in flight as the figures for orientation had.
    fn add_few_in_flight(&mut self) {
        const FEW: u32 = 16;
        let name = format!("{NGINX}, {FEW} in flight");
        self.add_special(&name, FEW, Expects::Fulfills, &[], |field| {
            subjects::nginx(
                &name,
                SUBJECT_CORE,
                &folder(&field.folder, &name),
                field.peers.http,
            )
        });
        for (name, link) in [(HTTP, self.http_link()), (BTP, self.btp_link())] {
            let name = format!("{name}, {FEW} in flight");
            self.add_special(&name, FEW, Expects::Fulfills, &[], |field| {
                field.rialto(&name, false, &link)
            });
        }
    }

    fn add_others(&mut self) {
        let tools = self.suite.folder.clone();
        let programs = tools.join("ilp-node/release");
        let modules = tools.join("js/node_modules");
        for (name, over_btp, routes, strict) in [
            (ILP_NODE_HTTP, false, 10, true),
            (ILP_NODE_TRUSTING, false, 10, false),
            (ILP_NODE_ROUTES, false, 100_000, true),
            (ILP_NODE_BTP, true, 10, true),
        ] {
            self.add(name, |field| {
                let with = IlpNode {
                    over_btp,
                    routes,
                    strict,
                };
                let (core, folder) = (SUBJECT_CORE, folder(&field.folder, name));
                subjects::ilp_node(name, core, &folder, &programs, field.peers, &with)
            });
        }
        for (name, over_btp) in [(JS_HTTP, false), (JS_BTP, true)] {
            self.add(name, |field| {
                let folder = folder(&field.folder, name);
                subjects::ilp_connector(
                    name,
                    SUBJECT_CORE,
                    &folder,
                    &modules,
                    field.peers,
                    over_btp,
                )
            });
        }
    }

    fn add_refusals(&mut self) {
        for (name, extra) in [
            (NO_ROUTE, &["--destination", "test.nowhere.x"][..]),
            (OVER_LIMIT, &["--amount", "1001"]),
            (EXPIRED, &["--expiry-ms", "-1000"]),
            (WRONG_TOKEN, &[]),
        ] {
            let in_flight = self.suite.in_flight;
            self.add_special(name, in_flight, Expects::Refusals, extra, |field| {
                let mut subject = field.rialto(name, false, &field.http_link())?;
                if name == WRONG_TOKEN {
                    subject.token = "not-the-token".to_owned();
                }
                Ok(subject)
            });
        }
    }

    /// Nodes in a row: all of them count.
    fn add_chains(&mut self) {
        for (name, assets) in [
            ("two connectors, BTP", &["USD", "USD"][..]),
            (
                "four connectors, BTP, three conversions",
                &["USD", "EUR", "GBP", "JPY"],
            ),
        ] {
            self.add(name, |field| field.chain(name, assets));
        }
    }

    /// A packet enters at the first node and leaves at the last, and between each two of them it
    /// changes from one asset to the next.
    fn chain(&self, name: &str, assets: &[&str]) -> Result<Subject> {
        let limits = json!({"balance_min": "-1000000000000000"});
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..assets.len() {
            let folder = folder(&self.folder, &format!("{name} {number}"));
            node::prepare(&folder, &format!("test.n{number}"), "")?;
            nodes.push(Node::start(&self.rialto, SUBJECT_CORE, &folder)?);
        }
        for (number, asset) in assets.iter().enumerate() {
            let node = &nodes[number];
            let previous = if number == 0 {
                asset
            } else {
                &assets[number - 1]
            };
            let incoming = json!({
                "relation": if number == 0 { "child" } else { "peer" },
                "asset_code": previous, "incoming_token": node::TOKEN,
            });
            node.account("load", &limits, &incoming)?;
            if previous != asset {
                node.call(
                    "PUT /v1/rates",
                    &json!({"from": previous, "to": asset, "rate": "1"}),
                )?;
            }
        }
        for (number, asset) in assets.iter().enumerate() {
            let node = &nodes[number];
            let url = match nodes.get(number + 1) {
                Some(next) => format!("btp+{}", next.btp("load")),
                None => format!("btp+ws://{}/", self.peers.btp),
            };
            let outgoing = json!({
                "relation": "peer", "asset_code": asset, "btp": {"url": url, "token": node::TOKEN},
                "routes": {"send": false, "receive": false},
            });
            node.account("receiver", &limits, &outgoing)?;
            let prefix = json!({"prefix": "test.bench", "account": "receiver"});
            node.call("PUT /v1/routes", &prefix)?;
            node.wait_up("receiver")?;
        }
        let target = Target::Btp(nodes[0].btp("load"));
        let processes = nodes.into_iter().map(|node| node.process).collect();
        Ok(Subject::new(name, processes, target))
    }

    fn measure(&mut self) -> Result<()> {
        let rounds = self.suite.rounds;
        for round in 1..=rounds {
            self.core_ns.push(crate::micro::core_ns()?);
            // To and fro: what a load leaves behind in the caches is not always the same one's.
            let mut order: Vec<_> = (0..self.entries.len()).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for index in order {
                let entry = &self.entries[index];
                progress(&format!(
                    "round {round} of {rounds}: {}",
                    entry.subject.name
                ));
                let sample = self.sample(entry).map_err(|error| {
                    let name = format!("{}, round {round}", entry.subject.name);
                    Gap::new(&name, error.as_ref())
                });
                let (sample, gap) = match sample {
                    Ok(sample) => (Some(sample), None),
                    Err(gap) => (None, Some(gap)),
                };
                self.entries[index].samples.push(sample);
                self.gaps.extend(gap);
            }
        }
        Ok(())
    }

    /// One measurement.
    fn sample(&self, entry: &Entry) -> Result<Sample> {
        let Entry {
            subject,
            in_flight,
            packets,
            extra,
            expects,
            ..
        } = entry;
        let before = subject.cpu_ns()?;
        let report = match &subject.target {
            Target::H2c(url) => {
                let arguments = [
                    url.as_str(),
                    "--to",
                    DESTINATION,
                    "--token-file",
                    &token_file(&self.folder, &subject.token)?,
                    "--packets",
                    &packets.to_string(),
                    "--in-flight",
                    &in_flight.to_string(),
                    "--data",
                    &DATA_BYTES.to_string(),
                ]
                .map(str::to_owned);
                let found = subjects::rialto_run(&self.rialto, LOAD_CORE, &arguments)?;
                Sample::from_rialto(&found)
            }
            Target::Http(_) | Target::Btp(_) => {
                let found =
                    Load::run_pinned(LOAD_CORE, subject, *packets, *in_flight, DATA_BYTES, extra)?;
                Sample::from_load(&found)
            }
        };
        let used = subject.cpu_ns()?.saturating_sub(before);
        let wanted = match expects {
            Expects::Fulfills => report.fulfilled,
            Expects::Refusals => report.refused,
        };
        if wanted != *packets {
            return Err(format!(
                "of {packets} packets {} were fulfilled and {} refused",
                report.fulfilled, report.refused
            )
            .into());
        }
        Ok(Sample {
            cpu_ns: used / packets,
            ..report
        })
    }

    fn report(&self) -> Result<Report> {
        let rows = self
            .entries
            .iter()
            .filter(|entry| entry.samples.iter().any(Option::is_some))
            .map(|entry| {
                let rounds = entry.samples.iter();
                let rounds = rounds.map(|round| Some(round.as_ref()?.cpu_ns)).collect();
                let samples: Vec<_> = entry.samples.iter().flatten().collect();
                let cpu_ns = median(samples.iter().map(|sample| sample.cpu_ns));
                Row {
                    name: entry.subject.name.clone(),
                    in_flight: entry.in_flight,
                    cpu_ns_per_packet: cpu_ns,
                    cpu_ns_rounds: rounds,
                    packets_per_cpu_second: 1_000_000_000 / cpu_ns.max(1),
                    packets_per_second: median(samples.iter().map(|sample| sample.per_second)),
                    latency_us_p50: median(samples.iter().map(|sample| sample.p50)),
                    latency_us_p99: median(samples.iter().map(|sample| sample.p99)),
                    memory_kib: entry.subject.memory_kib(),
                }
            })
            .collect();
        Ok(Report {
            commit: output("git", &["rev-parse", "--short=12", "HEAD"]),
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%d %H:%M UTC")
                .to_string(),
            machine: machine(),
            rounds: self.suite.rounds,
            data_bytes: DATA_BYTES,
            rows,
            gaps: self.gaps.clone(),
            ratios: Vec::new(),
            figures: Vec::new(),
            curves: Vec::new(),
            profile: None,
        })
    }

    /// System calls aside, what one look at a process tells.
    fn figures(&self) -> Vec<Figure> {
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one packet")]
        let mut figures = vec![Figure {
            name: "prepare plus fulfill in the core, hot".to_owned(),
            value: report::quartile(self.core_ns.iter().copied()) as f64,
            unit: "ns".to_owned(),
            at_most: Some(1_000.0),
        }];
        if let Some(row) = self.entries.iter().find(|entry| entry.subject.name == HTTP) {
            #[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
            figures.push(Figure {
                name: "memory of a node after the rounds, HTTP/1.1".to_owned(),
                value: row.subject.memory_kib() as f64 / 1024.0,
                unit: "MiB".to_owned(),
                at_most: None,
            });
        }
        figures
    }

    /// The entry of a subject that was measured.
    fn entry(&self, name: &str) -> Result<&Entry> {
        let found = self.entries.iter().find(|entry| entry.subject.name == name);
        found.ok_or_else(|| format!("`{name}` was not measured").into())
    }

    fn open_load(&self, subject: &Subject, arguments: &[&str]) -> Result<Value> {
        let url = match &subject.target {
            Target::Http(url) => url.clone(),
            Target::H2c(url) => url.clone(),
            Target::Btp(url) => format!("btp+{url}"),
        };
        let token = token_file(&self.folder, &subject.token)?;
        let mut all = vec![
            url,
            "--to".into(),
            DESTINATION.into(),
            "--token-file".into(),
            token,
        ];
        all.extend(["--data".to_owned(), DATA_BYTES.to_string()]);
        all.extend(arguments.iter().map(|&word| word.to_owned()));
        subjects::rialto_run(&self.rialto, LOAD_CORE, &all)
    }

    /// What is fulfilled when three times as much is due as can be, against what can be: the worse of HTTP/1.1
    /// and BTP, per CPU second of the node, as in all rows. The load could not send three times what a node
    /// with a core of its own takes; so the node shares its core with others, which leave it a quarter.
    fn goodput(&self) -> Result<(f64, Vec<Figure>)> {
        let _rivals: Vec<_> = (0..RIVALS)
            .map(|_| {
                let mut command = process::pinned(SUBJECT_CORE, Path::new("sh"));
                Process::spawn(command.args(["-c", "while :; do :; done"]))
            })
            .collect::<Result<_>>()?;
        let (mut worst, mut figures) = (f64::INFINITY, Vec::new());
        for (name, in_flight) in [(HTTP, "256"), (BTP, "10000")] {
            let subject = &self.entry(name)?.subject;
            let mut turns = Vec::new();
            for turn in 1..=GOODPUT_TURNS {
                progress(&format!("goodput: {name}, turn {turn}"));
                let few = self.goodput_of(subject, &["--in-flight", "64"])?;
                let many = self.goodput_of(subject, &["--in-flight", in_flight])?;
                let rate = 3 * few.per_second.max(many.per_second).max(1);
                let rate = rate.to_string();
                let arguments = ["--rate", &rate, "--in-flight", in_flight];
                let over = self.goodput_of(subject, &arguments)?;
                if over.cpu_ns < few.cpu_ns.max(many.cpu_ns) / 10 * 8 {
                    return Err(format!("{name}: the node was not busy at {rate} a second").into());
                }
                turns.push(([few, many], over));
            }
            // Against the best that it can, with few in flight or with as many as may be then. Which of them
            // that is is not asked in each turn: the larger of two would be the one that noise favours.
            let of = |what: fn(&Goodput) -> u64| {
                let against = |peak: usize| {
                    let turns = turns.iter();
                    report::middle(turns.filter_map(|(peaks, over)| {
                        report::quotient(what(over), what(&peaks[peak]))
                    }))
                };
                let ratios = against(0).zip(against(1));
                ratios
                    .map(|(few, many)| few.min(many))
                    .ok_or("nothing was fulfilled")
            };
            let per_cpu_second = of(|one| one.per_cpu_second)?;
            worst = worst.min(per_cpu_second);
            for (value, how) in [
                (per_cpu_second, "per CPU second"),
                (of(|one| one.per_second)?, "by the wall clock"),
            ] {
                figures.push(Figure {
                    name: format!("{name}: goodput at 3 times the capacity vs peak, {how}"),
                    value,
                    unit: String::new(),
                    at_most: None,
                });
            }
        }
        Ok((worst, figures))
    }

    /// A second of a load.
    fn goodput_of(&self, subject: &Subject, arguments: &[&str]) -> Result<Goodput> {
        let before = subject.cpu_ns()?;
        let report = self.open_load(subject, &[arguments, &["--duration", "1"]].concat())?;
        let cpu_ns = subject.cpu_ns()?.saturating_sub(before).max(1);
        let count = |field: &str| report[field].as_u64().unwrap_or(0);
        Ok(Goodput {
            per_second: count("fulfilled_per_second"),
            per_cpu_second: count("fulfilled") * 1_000_000_000 / cpu_ns,
            cpu_ns,
        })
    }

    /// Packets per second of which the node could take twice as many over HTTP/1.1.
    fn half_load(&self) -> Result<u32> {
        let samples = self.entry(HTTP)?.samples.iter().flatten();
        let most = median(samples.map(|sample| sample.per_second));
        Ok(u32::try_from(most / 2)?.max(1))
    }

    /// What the node adds to the 99th percentile at half of its load, against what nginx adds at
    /// the same rate. The straight way goes to the same peer, so that it has all that the others have but the
    /// hop.
    fn latency(&self) -> Result<(f64, Vec<Figure>)> {
        let rate = self.half_load()?;
        self.entry(NGINX)?;
        let listen = subjects::free_port()?;
        let name = |of: &str| format!("{of}, latency");
        let straight = Target::Http(format!("http://{listen}/ilp"));
        let (nginx, rialto) = (name(NGINX), name(HTTP));
        let link = http_link(listen);
        let ways = [
            Subject::new("straight", Vec::new(), straight),
            subjects::nginx(&nginx, SUBJECT_CORE, &folder(&self.folder, &nginx), listen)?,
            self.rialto(&rialto, false, &link)?,
        ];
        progress("latency at half load");
        let found = Hop::run_pinned(LOAD_CORE, listen, &ways, rate, LATENCY_TURNS, DATA_BYTES)?;
        let mut figures = Vec::new();
        for percent in [50, 99] {
            let through = ["straight", "through nginx", "through the node"];
            for (through, latency) in through.into_iter().zip(&found) {
                let of = if percent == 50 {
                    &latency.p50_ns
                } else {
                    &latency.p99_ns
                };
                let quiet = report::quartile(of.iter().copied()) / 1_000;
                #[expect(clippy::cast_precision_loss, reason = "microseconds of one packet")]
                figures.push(Figure {
                    name: format!("latency at half load, {through}, p{percent}"),
                    value: quiet as f64,
                    unit: "us".to_owned(),
                    at_most: None,
                });
            }
        }
        let [straight, nginx, rialto] = found.as_slice() else {
            return Err("not all ways were measured".into());
        };
        let p99 = [straight, nginx, rialto].map(|way| way.p99_ns.as_slice());
        Ok((report::added(p99)?, figures))
    }

    /// What packets cost while the engine of the account that they go to answers, against what they
    /// cost while it hangs.
    fn hanging(&self, report: &Report) -> Result<f64> {
        let value = report.times(ENGINE_HANGS, ENGINE_ANSWERS);
        let value = value.ok_or("not both were measured")?;
        if self.engine_hangs.asked() == 0 {
            return Err("the engine that hangs was never asked to settle".into());
        }
        if self.engine_answers.asked() < 2 {
            return Err("the engine that answers was not asked again".into());
        }
        Ok(value)
    }

    /// Payments from a local account of one node to one of another, found by SPSP over HTTP.
    fn stream(&self) -> Result<Vec<Figure>> {
        const PAYMENTS: u64 = 200;
        const LONG_PACKETS: u64 = 50_000;
        progress("STREAM payments");
        let limits = json!({"balance_min": "-1000000000000000"});
        let mut nodes = Vec::new();
        for (name, address) in [("payer", "test.hub.payer"), ("hub", "test.hub")] {
            let folder = folder(&self.folder, &format!("stream {name}"));
            node::prepare(&folder, address, "")?;
            nodes.push(Node::start(&self.rialto, SUBJECT_CORE, &folder)?);
        }
        let (payer, hub) = (&nodes[0], &nodes[1]);
        hub.account("payer", &limits, &json!({"incoming_token": node::TOKEN}))?;
        hub.account("shop", &limits, &json!({"relation": "local"}))?;
        let link = json!({
            "relation": "parent",
            "btp": {"url": format!("btp+{}", hub.btp("payer")), "token": node::TOKEN},
        });
        payer.account("hub", &limits, &link)?;
        payer.account("wallet", &limits, &json!({"relation": "local"}))?;
        payer.wait_up("hub")?;
        let receiver = format!("http://{}/accounts/shop/spsp", hub.node);
        let pay = |amount: u64, packet_max: u64| -> Result<()> {
            let request = json!({
                "account": "wallet", "receiver": receiver, "amount": amount.to_string(),
                "packet_max": packet_max.to_string(),
            });
            let mut payment = payer.call("POST /v1/payments?wait=60", &request)?;
            while payment["state"] == "running" {
                let id = payment["id"].as_str().ok_or("a payment without id")?;
                payment = payer.call(&format!("GET /v1/payments/{id}?wait=60"), &Value::Null)?;
            }
            match payment["state"] == "completed" {
                true => Ok(()),
                false => Err(format!("the payment ended: {payment}").into()),
            }
        };
        pay(1_000, 1_000)?;
        let used = || -> Result<u64> {
            Ok(process::cpu_ns(payer.process.id())? + process::cpu_ns(hub.process.id())?)
        };
        let mut figures = Vec::new();
        #[expect(clippy::cast_precision_loss, reason = "figures to a few digits")]
        let mut add = |name: &str, count: u64, wall: Duration, cpu_ns: u64| {
            let cpu = Duration::from_nanos(cpu_ns).as_secs_f64();
            for (per, seconds) in [
                ("CPU second of both nodes", cpu),
                ("second", wall.as_secs_f64()),
            ] {
                figures.push(Figure {
                    name: format!("{name} per {per}"),
                    value: count as f64 / seconds.max(1e-9),
                    unit: String::new(),
                    at_most: None,
                });
            }
        };
        let (started, before) = (Instant::now(), used()?);
        for _ in 0..PAYMENTS {
            pay(1_000, 1_000)?;
        }
        add(
            "STREAM payments, one after the other, SPSP included,",
            PAYMENTS,
            started.elapsed(),
            used()? - before,
        );
        let (started, before) = (Instant::now(), used()?);
        pay(LONG_PACKETS * 1_000, 1_000)?;
        let (wall, cpu_ns) = (started.elapsed(), used()? - before);
        add(
            "STREAM packets of one long payment",
            LONG_PACKETS,
            wall,
            cpu_ns,
        );
        add(
            "STREAM units delivered in packets of 1,000",
            LONG_PACKETS * 1_000,
            wall,
            cpu_ns,
        );
        Ok(figures)
    }
}

/// The ratios of the project, in its order.
fn ratios(
    report: &Report,
    goodput: Option<f64>,
    latency: Option<f64>,
    hanging: Option<f64>,
) -> Vec<Ratio> {
    let lower = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    };
    let own = [
        (HTTP, HTTP_TRUSTING),
        (H2C, H2C_TRUSTING),
        (BTP, BTP_TRUSTING),
    ]
    .into_iter()
    .fold(None, |least, (strict, trusting)| {
        lower(least, report.times(strict, trusting))
    });
    let refused = [NO_ROUTE, OVER_LIMIT, EXPIRED, WRONG_TOKEN]
        .into_iter()
        .filter_map(|name| report.times(HTTP, name))
        .fold(None, |most: Option<f64>, cost| {
            Some(most.map_or(cost, |most| most.max(cost)))
        });
    [
        (
            "HTTP/1.1, strict, durable vs nginx proxy_pass",
            report.times(HTTP, NGINX),
            0.6,
            1.0,
        ),
        (
            "h2c vs nginx proxy_pass (HTTP/1.1)",
            report.times(H2C, NGINX),
            1.5,
            2.5,
        ),
        (
            "BTP vs nginx proxy_pass (HTTP/1.1)",
            report.times(BTP, NGINX),
            3.0,
            6.0,
        ),
        (
            "HTTP/1.1 vs ilp-node with Redis, 10 routes",
            report.times(HTTP, ILP_NODE_HTTP),
            10.0,
            16.0,
        ),
        (
            "the same with 100,000 routes",
            report.times(HTTP, ILP_NODE_ROUTES),
            25.0,
            40.0,
        ),
        (
            "BTP vs ilp-node over BTP",
            report.times(BTP, ILP_NODE_BTP),
            60.0,
            120.0,
        ),
        (
            "BTP vs JavaScript ilp-connector",
            report.times(BTP, JS_BTP),
            30.0,
            60.0,
        ),
        (
            "strict and durable vs trusting and volatile, own build",
            own,
            0.9,
            0.97,
        ),
        (
            "one million accounts vs one thousand",
            report.times(scale::ACCOUNTS_MANY, scale::ACCOUNTS_FEW),
            0.6,
            0.8,
        ),
        (
            "one million routes vs one thousand",
            report.times(scale::ROUTES_MANY, scale::ROUTES_FEW),
            0.7,
            0.85,
        ),
        (
            "a refused packet's cost vs a fulfilled one's",
            refused,
            0.7,
            0.5,
        ),
        (
            "goodput at 3 times the capacity vs peak",
            goodput,
            0.8,
            0.95,
        ),
        (
            "latency added at half load, p99, vs nginx",
            latency,
            1.5,
            1.1,
        ),
        (
            "BTP while a settlement engine hangs vs while it answers",
            hanging,
            0.95,
            1.0,
        ),
    ]
    .into_iter()
    .map(|(name, value, at_least, aim)| Ratio::new(name, value, at_least, aim))
    .collect()
}

/// An account whose packets go to the peer there.
fn http_link(peer: SocketAddr) -> Value {
    json!({"http": {"url": format!("http://{peer}/ilp"), "token": "t"}})
}

/// A private file with a token.
fn token_file(folder: &Path, token: &str) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let file = subjects::folder(folder, &format!("token {token}"));
    if !file.exists() {
        std::fs::write(&file, token)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file
        .to_str()
        .ok_or("the folder's name is not text")?
        .to_owned())
}

/// A folder in memory, for a journal that nothing is to be waited for.
fn memory_folder() -> Result<PathBuf> {
    let shared = Path::new("/dev/shm");
    if !shared.is_dir() {
        return Err("no file system in memory at /dev/shm".into());
    }
    let folder = shared.join(format!("rialto-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

impl Drop for Field<'_> {
    fn drop(&mut self) {
        self.entries.clear();
        if let Ok(folder) = memory_folder() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// What the figures were taken on.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim());
        value.unwrap_or("unknown").to_owned()
    };
    let load = read("/proc/loadavg");
    // Whoever built the kernel names it after the version.
    let kernel = output("uname", &["-sr"]);
    let kernel = kernel.split('-').next().unwrap_or_default();
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": kernel,
        "rustc": output("rustc", &["--version"]),
        "load_average_at_the_end": load.split(' ').next().unwrap_or(""),
    })
}
