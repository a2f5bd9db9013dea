//! `rialto bench`: packets at a pace of their own to any Interledger endpoint, and the peer that
//! fulfills them.
//!
//! The load is open: when a packet is due does not depend on the answers to those before it, and its
//! latency counts from when it was due. A closed load, which waits for answers, leaves out exactly the
//! packets that a slow endpoint would have delayed.

pub(crate) mod args;
mod arrivals;
mod btp;
mod http;
mod packets;
mod serve;
mod tally;
mod target;

use std::{cell::RefCell, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use rialto_links::{ClientTls, Stream, connect};
use rialto_packet::Timestamp;
use rustls::ClientConfig;
use tokio::task::{LocalSet, spawn_local};

use self::{
    args::{BenchCommand, BenchRunArgs},
    arrivals::{Queue, Schedule},
    packets::{Answer, Packets, Preimage},
    tally::{Report, Tally},
    target::Target,
};
use crate::{
    failure::{Exit, Failure},
    output,
    secret::Token,
};

/// How long packets are sent when nothing says when to stop.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// An answer that takes so much longer than its packet lives does not come.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);
/// The pause after a connection broke, before the next is tried.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How an endpoint is spoken to.
struct Setup {
    token: String,
    tls: ClientTls,
    /// How long an answer is waited for.
    patience: Duration,
    in_flight: usize,
    connections: usize,
}

/// What all that send packets share.
struct Load {
    queue: Queue,
    packets: RefCell<Packets>,
    tally: RefCell<Tally>,
}

impl Load {
    fn next_packet(&self) -> (Vec<u8>, Preimage) {
        self.packets.borrow_mut().next(wall())
    }
}

fn wall() -> Timestamp {
    Timestamp::from_unix_ms(jiff::Timestamp::now().as_millisecond())
}

async fn open(host: &str, port: u16, tls: Option<&Arc<ClientConfig>>) -> Result<Stream, String> {
    let stream = connect(host, port, tls).await;
    stream.map_err(|error| format!("cannot connect: {}", error.message))
}

pub(crate) async fn bench(command: &BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Run(args) => LocalSet::new().run_until(run(args)).await,
        BenchCommand::Serve(args) => LocalSet::new().run_until(serve::serve(args)).await,
    }
}

async fn run(args: &BenchRunArgs) -> Result<(), Failure> {
    let token = match &args.token_file {
        Some(path) => Token::read(path)?.reveal().to_owned(),
        None => String::new(),
    };
    let tls = ClientTls::new(args.tls_roots_file.as_deref(), None)
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    let life = Duration::from_millis(u64::try_from(args.expiry_ms).unwrap_or(0));
    let count = |count: u32| usize::try_from(count).expect("the bound is small");
    let setup = Rc::new(Setup {
        token,
        tls,
        patience: life + ANSWER_MARGIN,
        in_flight: count(args.in_flight),
        connections: count(args.connections.min(args.in_flight)),
    });

    // Nothing is due before there is a connection.
    let unavailable =
        |message: String| Failure::new(Exit::Unavailable, format!("{}: {message}", args.target));
    let senders = match &args.target {
        Target::Http(target) => http::senders(&setup, target).await,
        Target::Btp(uri) => btp::senders(&setup, uri).await,
    };
    let senders = senders.map_err(unavailable)?;
    let (queue, clock) = queue(args);
    let load = Rc::new(Load {
        queue,
        packets: RefCell::new(Packets::new(
            args.to.clone(),
            args.amount,
            args.data,
            args.expiry_ms,
        )),
        tally: RefCell::default(),
    });
    let tasks: Vec<_> = senders
        .into_iter()
        .map(|sender| spawn_local(sender.run(Rc::clone(&load))))
        .collect();
    for task in tasks {
        task.await
            .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    }
    let unsent = match clock.map(JoinHandle::join) {
        None => 0,
        Some(Ok(unsent)) => unsent,
        Some(Err(_)) => {
            return Err(Failure::new(
                Exit::Internal,
                "the thread of the clock panicked",
            ));
        }
    };
    let report = load
        .tally
        .borrow()
        .report(args.target.to_string(), args.rate, unsent);
    print(args, &report)?;
    match report.fulfilled {
        0 => Err(Failure::failed("no packet was fulfilled")),
        _ => Ok(()),
    }
}

fn queue(args: &BenchRunArgs) -> (Queue, Option<JoinHandle<u64>>) {
    let duration = match (args.duration, args.packets) {
        (Some(seconds), _) => Some(Duration::from_secs(seconds.into())),
        (None, Some(_)) => None,
        (None, None) => Some(DURATION_DEFAULT),
    };
    match args.rate {
        None => (Queue::closed(args.packets, duration), None),
        Some(rate) => {
            let schedule = Schedule::new(rate, args.arrivals, args.packets, duration);
            let (queue, clock) = Queue::open(schedule, duration);
            (queue, Some(clock))
        }
    }
}

/// One connection, or one packet at a time of one.
enum Sender {
    Http(http::Lane),
    Btp(Box<btp::Connection>),
}

impl Sender {
    /// Sends until nothing is due any more and everything is answered.
    async fn run(self, load: Rc<Load>) {
        match self {
            Self::Http(lane) => lane.run(&load).await,
            Self::Btp(connection) => connection.run(&load).await,
        }
    }
}

fn print(args: &BenchRunArgs, report: &Report) -> Result<(), Failure> {
    if args.output.json {
        return output::json(report);
    }
    let percent = |part: u64| match report.sent {
        0 => "0".to_owned(),
        sent => {
            let tenths = u128::from(part) * 1_000 / u128::from(sent);
            format!("{}.{}", tenths / 10, tenths % 10)
        }
    };
    let due = match args.rate {
        None => format!("as many as can be, {} in flight", args.in_flight),
        Some(rate) => format!("{rate} packets/s due, at most {} in flight", args.in_flight),
    };
    output::line(&format!("{}: {due}", report.endpoint))?;
    let (seconds, ms) = (report.elapsed_ms / 1_000, report.elapsed_ms % 1_000);
    let rows = [
        ("sent", format!("{} in {seconds}.{ms:03} s", report.sent)),
        (
            "fulfilled",
            format!(
                "{} ({} %), {} per second",
                report.fulfilled,
                percent(report.fulfilled),
                report.fulfilled_per_second
            ),
        ),
        ("rejected", report.rejected.to_string()),
        ("failed", report.failed.to_string()),
        ("due, not sent", report.unsent.to_string()),
    ];
    for (name, value) in rows {
        output::line(&format!("  {name:<14} {value}"))?;
    }
    for (said, count) in &report.answers {
        output::line(&format!("    {count} x {said}"))?;
    }
    let header = ["latency, us", "p50", "p90", "p99", "p99.9", "max"];
    let row = |name: &str, latency: &tally::Latency| {
        let values = [
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
        ];
        let values = values.iter().map(u64::to_string);
        std::iter::once(name.to_owned()).chain(values).collect()
    };
    output::table(
        &header,
        vec![
            row("since due", &report.latency_us),
            row("since sent", &report.service_us),
        ],
    )
}
