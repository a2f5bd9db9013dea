//! Latency through one hop: an open load and the peer that fulfils it, in one thread that never sleeps.
//!
//! As two processes they would share a core, and what one adds to the other's latency is more than what a
//! hop adds. A thread that slept would be woken late, by as much as the machine likes.
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

/// Connections, each with at most one packet in flight.
const LANES: usize = 64;
/// Packets that may be due and not yet sent before the hop is said not to keep up.
const LATE_MAX: usize = 50_000;
/// Each stretch of this length has percentiles of its own, of which the lower quartile counts. A machine that
/// takes a core away for some milliseconds, now and then, only adds, and only to the stretch in which it does so.
const STRETCH: Duration = Duration::from_millis(100);
/// Stretches at the start that are not counted: connections are opened in them.
const WARM_UP: u128 = 2;

/// Options of `rialto-bench hop`.
#[derive(clap::Args)]
pub(crate) struct Hop {
    /// Where the hop finds the peer that fulfils
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Send here, over ILP over HTTP/1.1: http://HOST:PORT/PATH
    #[arg(long, value_name = "URL")]
    to: String,
    /// What authenticates us
    #[arg(long, default_value = "")]
    token: String,
    /// Packets per second, which come as they happen to come
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// For how long
    #[arg(long, default_value_t = 1_200)]
    milliseconds: u64,
    /// Bytes of data in each packet
    #[arg(long, default_value_t = 300)]
    size: usize,
}

/// From when a packet was due until its Fulfill was there, in nanoseconds: the lower quartile of all stretches.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) packets: usize,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

/// A lane that is free again, when its packet was due and how long it took; none at first. Or why a lane ended.
type Done = Result<(usize, Option<(Instant, Duration)>)>;

impl Hop {
    /// Runs it in a process on `core`.
    pub(crate) fn run_pinned(
        core: usize,
        listen: SocketAddr,
        subject: &Subject,
        rate: u32,
        data_bytes: u32,
    ) -> Result<Latency> {
        let Target::Http(url) = &subject.target else {
            return Err("latency is measured over HTTP/1.1".into());
        };
        let program = std::env::current_exe()?;
        let mut command = process::pinned(core, &program);
        command
            .args(["hop", "--listen", &listen.to_string(), "--to", url])
            .args(["--token", &subject.token, "--rate", &rate.to_string()])
            .args(["--size", &data_bytes.to_string()])
            .stderr(Stdio::piped());
        let output = command.output()?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("the load did not finish: {}", said.trim()).into()
        })
    }

    pub(crate) async fn run(&self) -> Result<Latency> {
        let listener = TcpListener::bind(self.listen).await?;
        tokio::spawn(fulfil::accept(listener, fulfil::serve_http));
        let (done, mut finished) = unbounded_channel();
        let mut lanes = Vec::new();
        for number in 0..LANES {
            lanes.push(self.lane(number, done.clone()).await?);
        }
        drop(done);

        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut gap = || {
            // In (0, 1], so that its logarithm is finite.
            let uniform = (f64::from(rng.next_u32()) + 1.0) / 4_294_967_296.0;
            (Duration::from_secs(1) / self.rate).mul_f64(-uniform.ln())
        };
        let length = Duration::from_millis(self.milliseconds);
        let start = Instant::now();
        let (mut next, end) = (start + gap(), start + length);
        let (mut free, mut late) = (Vec::new(), VecDeque::new());
        let (mut sequence, mut found) = (0, Vec::new());
        loop {
            loop {
                match finished.try_recv() {
                    Ok(done) => {
                        let (lane, took) = done?;
                        free.push(lane);
                        found.extend(took.map(|(due, took)| (due - start, took)));
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Err("all lanes ended".into()),
                }
            }
            let now = Instant::now();
            while next <= now.min(end) {
                late.push_back(next);
                next += gap();
            }
            if late.len() > LATE_MAX {
                return Err(format!("{} packets a second are too many", self.rate).into());
            }
            while !late.is_empty()
                && let Some(lane) = free.pop()
                && let Some(due) = late.pop_front()
            {
                if lanes[lane].send((due, sequence)).is_err() {
                    return Err(format!("lane {lane} ended").into());
                }
                sequence += 1;
            }
            if next > end && late.is_empty() && free.len() == LANES {
                return Latency::of(&found);
            }
            // The other tasks, and a look at the sockets that does not wait.
            tokio::task::yield_now().await;
        }
    }

    /// One connection: what is sent to it goes out, and `done` hears when the answer is there.
    async fn lane(
        &self,
        number: usize,
        done: UnboundedSender<Done>,
    ) -> Result<UnboundedSender<(Instant, u64)>> {
        let (host, path) = crate::split_url(&self.to, "http://")?;
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
        let lane = async move {
            let _ = done.send(Ok((number, None)));
            while let Some((since, sequence)) = due.recv().await {
                let (packet, preimage) = template.stamp(sequence)?;
                socket.send(&head, packet).await?;
                let reply = socket.receive(Side::Client).await?;
                let reply = reply.ok_or("closed without an answer")?;
                if !wire::is_fulfilled(&reply, &preimage) {
                    return Err("a packet was refused".into());
                }
                let _ = done.send(Ok((number, Some((since, since.elapsed())))));
            }
            Ok::<_, crate::Error>(())
        };
        tokio::spawn(async move {
            if let Err(error) = lane.await {
                let _ = finished.send(Err(error));
            }
        });
        Ok(jobs)
    }
}

impl Latency {
    fn of(found: &[(Duration, Duration)]) -> Result<Self> {
        let mut stretches: BTreeMap<u128, Vec<Duration>> = BTreeMap::new();
        for (due, took) in found {
            let stretch = due.as_nanos() / STRETCH.as_nanos();
            stretches.entry(stretch).or_default().push(*took);
        }
        let mut counted: Vec<_> = stretches.split_off(&WARM_UP).into_values().collect();
        counted.iter_mut().for_each(|took| took.sort_unstable());
        let at = |percent: usize| {
            let each = counted
                .iter()
                .map(|took| took[(took.len() - 1) * percent / 100]);
            let mut each: Vec<_> = each.collect();
            each.sort_unstable();
            u64::try_from(each[(each.len() - 1) / 4].as_nanos())
        };
        match counted.iter().map(Vec::len).sum() {
            0 => Err("no packet was counted".into()),
            packets => Ok(Self {
                packets,
                p50_ns: at(50)?,
                p99_ns: at(99)?,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_that_was_disturbed_does_not_count() {
        let packets = (0..1_000_u32).map(|number| {
            let due = Duration::from_millis(u64::from(number));
            let slow = Duration::from_millis(5);
            // Connections are opened in the first 200 ms, and a core was taken away in the fourth stretch.
            let took = match number {
                0..150 | 330..370 => slow,
                _ => Duration::from_micros(u64::from(number % 100 + 1)),
            };
            (due, took)
        });
        let found = Latency::of(&packets.collect::<Vec<_>>()).unwrap();
        let expected = (800, 50_000, 99_000);
        assert_eq!((found.packets, found.p50_ns, found.p99_ns), expected);
        assert!(Latency::of(&[]).is_err());
    }
}
