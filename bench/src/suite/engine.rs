//! Settlement engines of the suite: one that takes every settlement at once, and one that hangs; and what
//! packets notice of the second.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::Value;

use super::{
    DATA_BYTES, ENGINE_ANSWERS, ENGINE_HANGS, FIRST_PACKETS, Field, progress,
    report::{self, Ratio},
    subjects,
};
use crate::{
    Result,
    hop::{Hop, Latency},
    load::Load,
    shape::LOAD_CORE,
};

/// Loads of each of the two for packets per second, a quarter of a second each.
const TURNS: u32 = 90;
/// Packets in flight then. With few of them node and load take turns, each waiting for what the other has: by the
/// clock whatever keeps one of them makes both faster.
const IN_FLIGHT: u32 = 512;
/// The same for latency, a tenth of a second each.
const LATENCY_TURNS: u32 = 300;

/// What an engine does once it is asked to settle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Answers,
    /// It keeps the connection, and never answers.
    Hangs,
}

/// Serves as long as the program runs.
pub(super) struct Engine {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
}

impl Engine {
    pub(super) fn start(mood: Mood) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(std::io::Result::ok) {
                let counter = Arc::clone(&counter);
                thread::spawn(move || serve(&stream, mood, &counter));
            }
        });
        Ok(Self { address, asked })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often it was asked to settle.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// One request. A node that is gone is no mistake.
fn serve(mut stream: &TcpStream, mood: Mood, asked: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
    if first.contains("/settlements ") {
        asked.fetch_add(1, Ordering::Relaxed);
        if mood == Mood::Hangs {
            let _ = reader.read(&mut [0]); // until the node gives up
            return None;
        }
    }
    let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).ok()
}

/// By the clock, while an engine hangs against while one answers: packets per second over BTP, of which the median
/// of the turns' ratios counts, and the 99th percentile of their latency at half load over HTTP/1.1, of which the
/// lower quartile of the turns does. Each turn has both, one right after the other.
pub(super) fn by_the_clock(field: &Field<'_>) -> Result<[f64; 2]> {
    field.entry(ENGINE_HANGS)?; // unless it is not wanted
    // Of their own: pauses grow between the times that the others ask an engine that hangs.
    let settling = |what: &str, link: &Value| {
        let of = |name, engine| field.settling(&format!("{name}, {what}"), engine, link);
        let hangs = of(ENGINE_HANGS, &field.engine_hangs)?;
        Ok::<_, crate::Error>([hangs, of(ENGINE_ANSWERS, &field.engine_answers)?])
    };
    let subjects = settling("by the clock", &field.btp_link())?;
    let asked = field.engine_hangs.asked();
    let (mut throughputs, mut packets) = (Vec::new(), FIRST_PACKETS);
    for turn in 1..=TURNS {
        progress(&format!("packets while an engine hangs, turn {turn}"));
        let mut per_second = [0; 2];
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for of in order {
            let subject = &subjects[of];
            let found = Load::run_pinned(LOAD_CORE, subject, packets, IN_FLIGHT, DATA_BYTES, &[])?;
            per_second[of] = u64::try_from(found.per_second)?;
        }
        if turn == 1 {
            packets = per_second[1] / 4; // a quarter of a second's
        }
        throughputs.extend(report::quotient(per_second[0], per_second[1]));
    }
    let (rate, listen) = (field.half_load()?, subjects::free_port()?);
    let subjects = settling("latency", &super::http_link(listen))?;
    progress("latency while an engine hangs");
    let turns = LATENCY_TURNS;
    let found = Hop::run_pinned(LOAD_CORE, listen, &subjects, rate, turns, DATA_BYTES)?;
    let [hangs, answers] = found.as_slice() else {
        return Err("not both were measured".into());
    };
    let p99 = |latency: &Latency| report::quartile(latency.p99_ns.iter().copied());
    let latency = report::quotient(p99(hangs), p99(answers));
    if field.engine_hangs.asked() == asked {
        return Err("the engine that hangs was not asked meanwhile".into());
    }
    let nothing = "nothing was fulfilled";
    let throughput = report::middle(throughputs.into_iter()).ok_or(nothing)?;
    Ok([throughput, latency.ok_or(nothing)?])
}

/// At most a twentieth worse.
pub(super) fn ratios(by_the_clock: Option<[f64; 2]>) -> [Ratio; 2] {
    let [throughput, latency] = by_the_clock.map_or([None; 2], |found| found.map(Some));
    [
        Ratio::new(
            "packets per second while a settlement engine hangs",
            throughput,
            0.95,
            1.0,
        ),
        Ratio::new("latency then, p99 at half load", latency, 1.05, 1.0),
    ]
}
