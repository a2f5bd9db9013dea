//! What size costs: accounts, routes, connections, packets in flight.
//!
//! Books of a million accounts are not made by a million requests but written as the checkpoint of a
//! node that was stopped, from which the node then recovers.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rialto_journal::{FileDisk, Journal, Lsn, Options, Replay};
use rialto_ledger::{AccountId, Ledger, Record};
use serde_json::json;

use super::{
    DATA_BYTES, Field, progress,
    report::{Curve, Figure, Gap, median},
    subjects,
};
use crate::{
    Result,
    load::Load,
    node::{self, Node},
    process,
    shape::{LOAD_CORE, SUBJECT_CORE, Subject, Target},
};

pub(super) const ACCOUNTS_FEW: &str = "Rialto HTTP/1.1, 1,000 accounts that pay in turn";
pub(super) const ACCOUNTS_MANY: &str = "Rialto HTTP/1.1, 1,000,000 accounts that pay in turn";
pub(super) const ROUTES_FEW: &str = "Rialto HTTP/1.1, 1,000 routes used in turn";
pub(super) const ROUTES_MANY: &str = "Rialto HTTP/1.1, 1,000,000 routes used in turn";

const AT_REST: &str = "a node at rest";

const THOUSAND: u32 = 1_000;
const MILLION: u32 = 1_000_000;
/// Packets per point of a curve.
const POINT_PACKETS: u64 = 20_000;
/// Measurements per point, of which the median counts.
const POINT_ROUNDS: usize = 3;
/// Starts of a node with the largest books, of which the median counts.
const STARTS: usize = 5;
/// How long memory has to stay the same to be believed.
const SETTLED: Duration = Duration::from_millis(300);

/// How large a node's books are.
#[derive(Clone, Copy)]
struct Books {
    accounts: u32,
    routes: u32,
}

/// The number of an account or route as the load writes it too.
fn name(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:07}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the journal of a node that has these books: its checkpoint.
fn seed(folder: &Path, books: Books) -> Result<()> {
    let journal = folder.join("data/journal");
    std::fs::create_dir_all(&journal)?;
    let disk = Arc::new(FileDisk::new(&journal));
    let options = Options {
        id: 7,
        ..Options::default()
    };
    let (journal, _) = Journal::open(disk, options, |_: Replay<'_>| Ok::<_, crate::Error>(()))?;
    let encoded = |record: &Record| {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    };
    let mut ledger = Ledger::default();
    for number in 0..books.accounts {
        let token = name("t", number);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let settings = json!({
            "name": name("a", number), "relation": "child", "asset": "USD/9",
            "limits": node::strict_limits(),
            "incoming_tokens": [{"hash": hex(hash.as_ref())}],
        });
        let account = Record::AccountPut {
            id: AccountId(number + 1),
            settings: serde_json::from_value(settings)?,
        };
        ledger.apply(&account)?;
        if number == 0 {
            journal.append(&encoded(&account))?;
        }
    }
    for number in 0..books.routes {
        ledger.apply(&Record::RoutePut {
            prefix: name("test.elsewhere.n", number).parse()?,
            account: AccountId(1),
            shares: Vec::new(),
        })?;
    }
    // As a node leaves it behind that was stopped.
    if books.accounts > 0 {
        let state = ledger.snapshot().map(|record| encoded(&record));
        journal.checkpoint(Lsn(1), state)?;
    }
    journal.close()?;
    Ok(())
}

/// A subject whose books were written before it started.
struct Seeded {
    subject: Subject,
    /// How long it took to be ready on one core.
    ready_after: Duration,
    /// The same on all cores, where that was asked for.
    ready_on_all: Option<Duration>,
    /// Memory then.
    kib: u64,
}

impl Field<'_> {
    /// The folder of a node with these books.
    fn seeded_folder(&self, name: &str, books: Books) -> Result<PathBuf> {
        let folder = subjects::folder(&self.folder, name);
        node::prepare(&folder, "test.bench", "")?;
        seed(&folder, books)?;
        Ok(folder)
    }

    /// A node with these books, started on all cores before, if `on_all`. With routes the last account is the
    /// next hop of all of them, so that the accounts stay two.
    fn seeded_subject(&self, name: &str, books: Books, on_all: bool) -> Result<Seeded> {
        let mut books = books;
        if books.accounts == 0 {
            books.accounts = 1;
        }
        let folder = self.seeded_folder(name, books)?;
        let ready_on_all = on_all.then(|| self.starts(&folder)).transpose()?;
        let node = Node::start(&self.rialto, SUBJECT_CORE, &folder)?;
        let (ready_after, kib) = (node.ready_after, process::memory_kib(node.process.id()));
        let limits = node::strict_limits();
        node.account("load", &limits, &json!({"incoming_token": node::TOKEN}))?;
        node.account("receiver", &limits, &self.http_link())?;
        if books.routes > 0 {
            // Every route leads to the first account; the load's packets have to reach the receiver.
            node.call("PATCH /v1/accounts/a0000000", &self.http_link())?;
        }
        let target = Target::Http(node.http(if books.routes > 0 { "load" } else { "a*" }));
        Ok(Seeded {
            subject: Subject::new(name, vec![node.process], target),
            ready_after,
            ready_on_all,
            kib,
        })
    }

    /// How long a node takes to be ready that may use all cores, as one that is started again may: the median
    /// of some starts.
    fn starts(&self, folder: &Path) -> Result<Duration> {
        let start = || Ok(Node::start_on(&self.rialto, None, folder)?.ready_after);
        let starts = (0..STARTS).map(|_| start()).collect::<Result<Vec<_>>>()?;
        Ok(median(starts.into_iter()))
    }
}

/// Adds the subjects whose books are large, and tells what their size costs.
pub(super) fn add(field: &mut Field<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut memory = [0_u64; 4];
    let cases = [
        (
            ACCOUNTS_FEW,
            Books {
                accounts: THOUSAND,
                routes: 0,
            },
        ),
        (
            ACCOUNTS_MANY,
            Books {
                accounts: MILLION,
                routes: 0,
            },
        ),
        (
            ROUTES_FEW,
            Books {
                accounts: 0,
                routes: THOUSAND,
            },
        ),
        (
            ROUTES_MANY,
            Books {
                accounts: 0,
                routes: MILLION,
            },
        ),
    ];
    for (index, (name, books)) in cases.into_iter().enumerate() {
        let extra = spread(books);
        let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
        let mut started = None;
        let in_flight = field.suite.in_flight;
        field.add_special(name, in_flight, super::Expects::Fulfills, &extra, |field| {
            let is_large = books.accounts.max(books.routes) == MILLION;
            let seeded = field.seeded_subject(name, books, is_large)?;
            started = Some((seeded.ready_after, seeded.ready_on_all, seeded.kib));
            Ok(seeded.subject)
        });
        let Some((ready_after, ready_on_all, kib)) = started else {
            continue;
        };
        memory[index] = kib;
        if let Some(ready_on_all) = ready_on_all {
            let what = if books.routes > 0 {
                "routes"
            } else {
                "accounts"
            };
            figures.push(figure(
                &format!("start with a million {what}, to ready"),
                ready_on_all.as_secs_f64(),
                "s",
                (books.routes == 0).then_some(1.0),
            ));
            figures.push(figure(
                &format!("the same with a million {what}, on one core"),
                ready_after.as_secs_f64(),
                "s",
                None,
            ));
        }
    }
    let per = |few: u64, many: u64| {
        (many > few && few > 0).then(|| bytes_each(many - few, MILLION - THOUSAND))
    };
    if let Some(bytes) = per(memory[0], memory[1]) {
        figures.push(figure(
            "memory per idle account, a token and every limit set",
            bytes,
            "bytes",
            Some(512.0),
        ));
    }
    if let Some(bytes) = per(memory[2], memory[3]) {
        // The prefix is 23 bytes.
        figures.push(figure(
            "memory per route, a prefix of 23 bytes included",
            bytes,
            "bytes",
            Some(151.0),
        ));
    }
    if field.wants(AT_REST) {
        match at_rest(field) {
            Ok(more) => figures.extend(more),
            Err(error) => field.gaps.push(Gap::new(AT_REST, error.as_ref())),
        }
    }
    Ok(figures)
}

/// What the load does differently where books are large.
fn spread(books: Books) -> Vec<String> {
    let words: &[&str] = match books {
        Books { routes: 0, .. } => &["--spread-accounts"],
        Books { .. } => &["--destination", "test.elsewhere.n", "--spread-destinations"],
    };
    let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    words.push(books.accounts.max(books.routes).to_string());
    words
}

fn figure(name: &str, value: f64, unit: &str, at_most: Option<f64>) -> Figure {
    Figure {
        name: name.to_owned(),
        value,
        unit: unit.to_owned(),
        at_most,
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures to a few digits")]
fn bytes_each(kib: u64, count: u32) -> f64 {
    kib as f64 * 1024.0 / f64::from(count)
}

/// A node that has nothing to do, the first packet it gets, then many connections, then many packets
/// that nobody answers.
fn at_rest(field: &Field<'_>) -> Result<Vec<Figure>> {
    const CONNECTIONS: u32 = 1_000;
    const PACKETS: u32 = 10_000;
    progress(AT_REST);
    let mut figures = Vec::new();
    let nothing = Books {
        accounts: 0,
        routes: 0,
    };
    let folder = field.seeded_folder("at rest", nothing)?;
    let node = Node::start(&field.rialto, SUBJECT_CORE, &folder)?;
    let rest = settled(&node)?;
    #[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
    figures.push(figure(
        "memory of a node at rest",
        rest as f64 / 1024.0,
        "MiB",
        Some(15.0),
    ));

    let (peer, addresses) = super::fulfil(LOAD_CORE)?;
    let started = Instant::now();
    let ready_after = node.ready_after;
    let link = json!({"btp": {"url": format!("btp+ws://{}/", addresses.btp), "token": "t"}});
    let subject = node::forward("at rest", node, &node::strict_limits(), &link)?;
    Load::run_pinned(LOAD_CORE, &subject, 1, 1, DATA_BYTES, &[])?;
    figures.push(figure(
        "start of an empty node, two accounts by the API, first packet fulfilled",
        (ready_after + started.elapsed()).as_secs_f64(),
        "s",
        None,
    ));

    // Nobody answers while the peer is stopped.
    let id = subject.processes[0].id();
    let before = settled_kib(id)?;
    signal("-STOP", peer.id())?;
    let token = super::token_file(&field.folder, &subject.token)?;
    let Target::Btp(url) = &subject.target else {
        return Err("it is reached by BTP".into());
    };
    let mut command = process::pinned(LOAD_CORE, &field.rialto);
    command
        .args([
            "bench",
            "run",
            "--json",
            &format!("btp+{url}"),
            "--to",
            subjects::RECEIVER,
        ])
        .args(["--token-file", &token, "--packets", &PACKETS.to_string()])
        .args([
            "--in-flight",
            &PACKETS.to_string(),
            "--data",
            &DATA_BYTES.to_string(),
        ])
        .stdout(std::process::Stdio::null());
    let mut load = process::Process::spawn(&mut command)?;
    let while_held = settled_kib(id);
    signal("-CONT", peer.id())?;
    load.wait()?;
    let held = while_held?.saturating_sub(before);
    // Type, lengths, amount, expiry, condition, address and data.
    figures.push(figure(
        "memory per packet in flight, the packet of 385 bytes included",
        bytes_each(held, PACKETS),
        "bytes",
        Some(256.0 + 385.0),
    ));

    let before = settled_kib(id)?;
    let address = subject.target.address()?;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(std::net::TcpStream::connect(&address)?);
    }
    // Each has said something, so that the node knows what it speaks.
    for stream in &mut open {
        use std::io::Write;
        stream.write_all(b"POST /ilp HTTP/1.1\r\nHost: a\r\n")?;
    }
    let with = settled_kib(id)?;
    figures.push(figure(
        "memory per HTTP/1.1 connection",
        bytes_each(with.saturating_sub(before), CONNECTIONS),
        "bytes",
        None,
    ));
    Ok(figures)
}

fn settled(node: &Node) -> Result<u64> {
    settled_kib(node.process.id())
}

/// Memory once it has stopped to change.
fn settled_kib(id: u32) -> Result<u64> {
    let mut last = process::memory_kib(id);
    for _ in 0..50 {
        std::thread::sleep(SETTLED);
        let now = process::memory_kib(id);
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    Err("the memory of the node does not settle".into())
}

fn signal(signal: &str, id: u32) -> Result<()> {
    let sent = Command::new("kill")
        .args([signal, &id.to_string()])
        .status()?;
    match sent.success() {
        true => Ok(()),
        false => Err(format!("kill {signal} {id} failed").into()),
    }
}

/// CPU time by size.
pub(super) fn curves(field: &mut Field<'_>, gaps: &mut Vec<Gap>) -> Vec<Curve> {
    let mut curves = Vec::new();
    let mut add = |name: &str, x: &str, y: &str, points: Result<Vec<(f64, f64)>>| match points {
        Ok(points) => curves.push(Curve {
            name: name.to_owned(),
            x: x.to_owned(),
            y: y.to_owned(),
            points,
        }),
        Err(error) => gaps.push(Gap::new(name, error.as_ref())),
    };
    let cost = "microseconds of CPU per packet";
    let sizes = [1_000, 10_000, 100_000, 1_000_000];
    let by_accounts = sizes.map(|accounts| Books {
        accounts,
        routes: 0,
    });
    let by_routes = [10, 1_000, 10_000, 100_000, 1_000_000].map(|routes| Books {
        accounts: 0,
        routes,
    });
    let accounts = books_curve(field, &by_accounts);
    let (mut accounts_cost, mut accounts_memory, mut accounts_ready) =
        (Vec::new(), Vec::new(), Vec::new());
    let accounts = accounts.map(|points| {
        for point in points {
            accounts_cost.push((point.size, point.cpu_us));
            accounts_memory.push((point.size, point.mib));
            accounts_ready.push((point.size, point.ready_s));
        }
    });
    match accounts {
        Ok(()) => {
            add(
                "Accounts",
                "accounts that pay in turn, HTTP/1.1",
                cost,
                Ok(accounts_cost),
            );
            add("Memory", "accounts", "MiB", Ok(accounts_memory));
            add(
                "Restart",
                "accounts",
                "seconds to ready",
                Ok(accounts_ready),
            );
        }
        Err(error) => add("Accounts", "accounts", cost, Err(error)),
    }
    let routes = books_curve(field, &by_routes).map(|points| {
        points
            .into_iter()
            .map(|point| (point.size, point.cpu_us))
            .collect()
    });
    add("Routes", "routes used in turn, HTTP/1.1", cost, routes);
    add(
        "Connections",
        "connections, HTTP/1.1 in and BTP out",
        cost,
        flight_curve(field, true),
    );
    add(
        "In flight",
        "packets in flight, one BTP connection in and one out",
        cost,
        flight_curve(field, false),
    );
    curves
}

struct Point {
    size: f64,
    cpu_us: f64,
    mib: f64,
    ready_s: f64,
}

#[expect(clippy::cast_precision_loss, reason = "figures to a few digits")]
fn books_curve(field: &Field<'_>, sizes: &[Books]) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for books in sizes {
        let size = books.accounts.max(books.routes);
        let name = format!("curve {} {}", books.accounts, books.routes);
        progress(&name);
        let Seeded {
            subject,
            ready_after,
            kib,
            ..
        } = field.seeded_subject(&name, *books, false)?;
        let extra = spread(*books);
        let cpu_us = cost(&subject, POINT_PACKETS, field.suite.in_flight, &extra)?;
        points.push(Point {
            size: f64::from(size),
            cpu_us,
            mib: kib as f64 / 1024.0,
            ready_s: ready_after.as_secs_f64(),
        });
        drop(subject);
        let _ = std::fs::remove_dir_all(subjects::folder(&field.folder, &name));
    }
    Ok(points)
}

/// From one packet in flight to ten thousand.
fn flight_curve(field: &Field<'_>, over_http: bool) -> Result<Vec<(f64, f64)>> {
    let mut points = Vec::new();
    let subject = field.rialto(
        &format!("curve in flight {over_http}"),
        false,
        &field.btp_link(),
    )?;
    let target = match (&subject.target, over_http) {
        (Target::Btp(url), true) => Target::Http(
            url.replace("ws://", "http://")
                .trim_end_matches("/btp")
                .to_owned(),
        ),
        (target, _) => target.clone(),
    };
    let subject = Subject { target, ..subject };
    for in_flight in [1, 10, 100, 1_000, 10_000] {
        progress(&format!("{in_flight} in flight"));
        let packets = POINT_PACKETS
            .max(u64::from(in_flight) * 4)
            .min(if in_flight == 1 { 5_000 } else { u64::MAX });
        points.push((
            f64::from(in_flight),
            cost(&subject, packets, in_flight, &[])?,
        ));
    }
    Ok(points)
}

/// CPU time per packet, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "figures to a few digits")]
fn cost(subject: &Subject, packets: u64, in_flight: u32, extra: &[String]) -> Result<f64> {
    Load::run_pinned(
        LOAD_CORE,
        subject,
        packets / 10 + 1,
        in_flight,
        DATA_BYTES,
        extra,
    )?;
    let mut rounds = Vec::new();
    for _ in 0..POINT_ROUNDS {
        let before = subject.cpu_ns()?;
        let found = Load::run_pinned(LOAD_CORE, subject, packets, in_flight, DATA_BYTES, extra)?;
        if found.fulfilled != packets {
            return Err(format!(
                "{} of {packets} packets fulfilled at {in_flight} in flight",
                found.fulfilled
            )
            .into());
        }
        rounds.push(subject.cpu_ns()?.saturating_sub(before) / packets);
    }
    Ok(median(rounds.into_iter()) as f64 / 1_000.0)
}
