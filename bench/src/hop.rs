//! Latency through one hop: an open load and the peer that fulfils it, in one thread that never sleeps.
//!
//! As two processes they would share a core, and what one adds to the other's latency is more than what a
//! hop adds. A thread that slept would be woken late, by as much as the machine likes.
//!
//! Hops that are compared with each other take turns of a tenth of a second: a machine that becomes slower
//! does so for all of them.
#![expect(
    clippy::float_arithmetic,
    reason = "gaps of a Poisson process are logarithms; there is no money here"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, error::TryRecvError, unbounded_channel},
};

use crate::{
    Result, fulfil,
    http1::{self, Connection, Side},
    process,
    shape::{Subject, Target},
    suite::subjects::DESTINATION,
    wire::{self, Shape, Template},
};

/// Connections to each hop, each with at most one packet in flight.
const LANES: usize = 64;
/// Packets that may be due and not yet sent before the hop is said not to keep up.
const LATE_MAX: usize = 50_000;
/// How long a hop has its turn.
const STRETCH: Duration = Duration::from_millis(100);
/// What is due then in a stretch is not counted: the core's caches have what the hop before had in them.
const BEGINNING: Duration = Duration::from_millis(10);
/// Stretches of each hop at the start that are not counted: connections are opened in them.
const WARM_UP: u32 = 2;

/// Options of `rialto-bench hop`.
#[derive(clap::Args)]
pub(crate) struct Hop {
    /// Where the hops find the peer that fulfils
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Send here, over ILP over HTTP/1.1: http://HOST:PORT/PATH; hops of which several are given take turns
    #[arg(long, value_name = "URL", required = true)]
    to: Vec<String>,
    /// What authenticates us, at all of them
    #[arg(long, default_value = "")]
    token: String,
    /// Packets per second, which come as they happen to come
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Turns of each, of 100 ms
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    stretches: u32,
    /// Bytes of data in each packet
    #[arg(long, default_value_t = 300)]
    size: usize,
}

/// From when a packet was due until its Fulfill was there, in nanoseconds, of each stretch of a hop.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_ns: Vec<u64>,
    pub(crate) p99_ns: Vec<u64>,
}

/// One of the connections.
#[derive(Debug, Clone, Copy)]
struct Lane {
    hop: usize,
    number: usize,
}

/// A lane that is free again, when its packet was due and how long it took; none at first. Or why a lane ended.
type Done = Result<(Lane, Option<(Instant, Duration)>)>;

/// What is kept of a hop while it is measured.
#[derive(Default)]
struct Way {
    lanes: Vec<UnboundedSender<(Instant, u64)>>,
    free: Vec<usize>,
    /// When the packets were due that are not yet sent.
    late: VecDeque<Instant>,
    found: Vec<(Duration, Duration)>,
}

impl Hop {
    /// Runs it in a process on `core`, through subjects that know the same token or none.
    pub(crate) fn run_pinned(
        core: usize,
        listen: SocketAddr,
        subjects: &[Subject],
        rate: u32,
        stretches: u32,
        data_bytes: u32,
    ) -> Result<Vec<Latency>> {
        let program = std::env::current_exe()?;
        let mut command = process::pinned(core, &program);
        command
            .args(["hop", "--listen", &listen.to_string()])
            .args(["--rate", &rate.to_string()])
            .args(["--stretches", &stretches.to_string()])
            .args(["--size", &data_bytes.to_string()])
            .stderr(Stdio::piped());
        for subject in subjects {
            let Target::Http(url) = &subject.target else {
                return Err("latency is measured over HTTP/1.1".into());
            };
            command.args(["--to", url]);
        }
        if let Some(subject) = subjects.iter().find(|subject| !subject.token.is_empty()) {
            command.args(["--token", &subject.token]);
        }
        let output = command.output()?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("the load did not finish: {}", said.trim()).into()
        })
    }

    pub(crate) async fn run(&self) -> Result<Vec<Latency>> {
        let listener = TcpListener::bind(self.listen).await?;
        tokio::spawn(fulfil::accept(listener, fulfil::serve_http));
        let (done, mut finished) = unbounded_channel();
        let mut ways = Vec::new();
        for (hop, url) in self.to.iter().enumerate() {
            let mut way = Way::default();
            for number in 0..LANES {
                way.lanes
                    .push(self.lane(url, Lane { hop, number }, done.clone()).await?);
            }
            ways.push(way);
        }
        drop(done);

        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut gap = || {
            // In (0, 1], so that its logarithm is finite.
            let uniform = (f64::from(rng.next_u32()) + 1.0) / 4_294_967_296.0;
            (Duration::from_secs(1) / self.rate).mul_f64(-uniform.ln())
        };
        let turns = WARM_UP + self.stretches;
        let length = STRETCH * turns * u32::try_from(ways.len())?;
        let start = Instant::now();
        let (mut next, end) = (start + gap(), start + length);
        let mut sequence = 0;
        loop {
            loop {
                match finished.try_recv() {
                    Ok(done) => {
                        let (lane, took) = done?;
                        let way = &mut ways[lane.hop];
                        way.free.push(lane.number);
                        way.found
                            .extend(took.map(|(due, took)| (due - start, took)));
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Err("all lanes ended".into()),
                }
            }
            let now = Instant::now();
            while next <= now.min(end) {
                let stretch = usize::try_from(stretch_of(next - start))?;
                let whose = stretch % ways.len();
                ways[whose].late.push_back(next);
                next += gap();
            }
            for way in &mut ways {
                if way.late.len() > LATE_MAX {
                    return Err(format!("{} packets a second are too many", self.rate).into());
                }
                while !way.late.is_empty()
                    && let Some(lane) = way.free.pop()
                    && let Some(due) = way.late.pop_front()
                {
                    if way.lanes[lane].send((due, sequence)).is_err() {
                        return Err(format!("lane {lane} ended").into());
                    }
                    sequence += 1;
                }
            }
            let is_idle = |way: &Way| way.late.is_empty() && way.free.len() == LANES;
            if next > end && ways.iter().all(is_idle) {
                return ways.iter().map(|way| Latency::of(&way.found)).collect();
            }
            // The other tasks, and a look at the sockets that does not wait.
            tokio::task::yield_now().await;
        }
    }

    /// One connection: what is sent to it goes out, and `done` hears when the answer is there.
    async fn lane(
        &self,
        url: &str,
        lane: Lane,
        done: UnboundedSender<Done>,
    ) -> Result<UnboundedSender<(Instant, u64)>> {
        let (host, path) = crate::split_url(url, "http://")?;
        let head = http1::request_head(host, path, &self.token);
        let mut template = Template::new(&Shape {
            destination: DESTINATION,
            amount: 1,
            size: self.size,
            expiry_ms: 30_000,
            destinations: None,
        })?;
        let mut socket = Connection::new(TcpStream::connect(host).await?)?;
        let (jobs, mut due) = unbounded_channel::<(Instant, u64)>();
        let finished = done.clone();
        let packets = async move {
            let _ = done.send(Ok((lane, None)));
            while let Some((since, sequence)) = due.recv().await {
                let (packet, preimage) = template.stamp(sequence)?;
                socket.send(&head, packet).await?;
                let reply = socket.receive(Side::Client).await?;
                let reply = reply.ok_or("closed without an answer")?;
                if !wire::is_fulfilled(&reply, &preimage) {
                    return Err("a packet was refused".into());
                }
                let _ = done.send(Ok((lane, Some((since, since.elapsed())))));
            }
            Ok::<_, crate::Error>(())
        };
        tokio::spawn(async move {
            if let Err(error) = packets.await {
                let _ = finished.send(Err(error));
            }
        });
        Ok(jobs)
    }
}

/// In which turn, of all hops, a packet was due.
fn stretch_of(due: Duration) -> u128 {
    due.as_nanos() / STRETCH.as_nanos()
}

impl Latency {
    /// Of packets of one hop: when they were due, and what they took.
    fn of(found: &[(Duration, Duration)]) -> Result<Self> {
        let mut stretches: BTreeMap<u128, Vec<Duration>> = BTreeMap::new();
        for (due, took) in found {
            let stretch = stretches.entry(stretch_of(*due)).or_default();
            if due.as_nanos() % STRETCH.as_nanos() >= BEGINNING.as_nanos() {
                stretch.push(*took);
            }
        }
        let mut latency = Self {
            p50_ns: Vec::new(),
            p99_ns: Vec::new(),
        };
        for mut took in stretches.into_values().skip(WARM_UP as usize) {
            took.sort_unstable();
            let at = |percent: usize| {
                let last = took.len().checked_sub(1).ok_or("a stretch has no packet")?;
                Ok::<_, crate::Error>(u64::try_from(took[last * percent / 100].as_nanos())?)
            };
            latency.p50_ns.push(at(50)?);
            latency.p99_ns.push(at(99)?);
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stretch_has_percentiles_of_its_own() {
        // Every other stretch is this hop's. Connections are opened in its first two, caches are cold at the start
        // of each, and a core was taken away in the last.
        let packets = (0..800_u32).filter(|at| at / 100 % 2 == 0).map(|at| {
            let slow = Duration::from_millis(5);
            let took = match (at, at % 100) {
                (0..300 | 630..670, _) | (_, 0..10) => slow,
                (_, past) => Duration::from_micros(u64::from(past - 9)),
            };
            (Duration::from_millis(u64::from(at)), took)
        });
        let packets = Vec::from_iter(packets);
        let found = Latency::of(&packets).unwrap();
        let (quiet, disturbed) = ((45_000, 89_000), (85_000, 5_000_000));
        let each: Vec<_> = found.p50_ns.into_iter().zip(found.p99_ns).collect();
        assert_eq!(each, [quiet, disturbed]);
        let beginning_alone = &packets[..305];
        assert!(Latency::of(beginning_alone).is_err());
        assert!(Latency::of(&[]).unwrap().p99_ns.is_empty());
    }
}
