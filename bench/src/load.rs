//! The closed-loop load client: so many packets in flight, no more, no less, until all are
//! answered.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, SinkExt, StreamExt};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http1::{self, Connection, Side};
use crate::process;
use crate::shape::{Subject, Target};
use crate::suite::subjects::DESTINATION;
use crate::wire::{self, Btp, Preimage, Shape, Template};
use crate::{Result, ws};

/// Options of `rialto-bench load`.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// Send over ILP over HTTP to http://HOST:PORT/PATH, one packet per connection at a time
    #[arg(
        long,
        value_name = "URL",
        conflicts_with = "btp",
        required_unless_present = "btp"
    )]
    http: Option<String>,
    /// Send over BTP to ws://HOST:PORT/PATH, all packets over one connection
    #[arg(long, value_name = "URL")]
    btp: Option<String>,
    /// What authenticates us
    #[arg(long, default_value = "")]
    token: String,
    /// Packets in flight
    #[arg(long, default_value_t = 16)]
    concurrency: u32,
    /// Packets in all
    #[arg(long, default_value_t = 10_000)]
    packets: u32,
    /// Bytes of data in each packet
    #[arg(long, default_value_t = 300)]
    size: usize,
    /// ILP address the packets go to
    #[arg(long, default_value = DESTINATION)]
    destination: String,
    /// Amount of each packet, in minor units
    #[arg(long, default_value_t = 1)]
    amount: u64,
    /// When each packet expires, from now on
    #[arg(long, default_value_t = 30_000, allow_negative_numbers = true)]
    expiry_ms: i64,
    /// Add one of so many numbers to the destination, each packet another
    #[arg(long, value_name = "COUNT")]
    spread_destinations: Option<u32>,
    /// Pay from one of so many accounts, each packet another: put its number for the * of the URL
    #[arg(long, value_name = "COUNT")]
    spread_accounts: Option<u32>,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 120)]
    seconds_max: u64,
}

/// What `rialto-bench load` prints.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    /// Packets answered by a Fulfill with the right preimage.
    pub(crate) fulfilled: u64,
    /// Packets answered by anything else.
    pub(crate) rejected: u64,
    /// Wall time, in microseconds.
    pub(crate) elapsed_us: u128,
    /// Packets per second.
    pub(crate) per_second: u128,
    /// Time from sending to the answer.
    pub(crate) latency_us: Percentiles,
}

/// Latencies in microseconds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u128,
    pub(crate) p90: u128,
    pub(crate) p99: u128,
    pub(crate) max: u128,
}

impl Load {
    pub(crate) async fn run(&self) -> Result<Report> {
        if self.concurrency == 0 || self.packets == 0 {
            return Err("concurrency and packets must be at least 1".into());
        }
        let limit = Duration::from_secs(self.seconds_max);
        let started = Instant::now();
        let tally = tokio::time::timeout(limit, async {
            match (&self.http, &self.btp) {
                (Some(url), _) => self.over_http(url).await,
                (None, Some(url)) => self.over_btp(url).await,
                (None, None) => Err("neither --http nor --btp".into()),
            }
        })
        .await
        .map_err(|_| format!("not all answered within {limit:?}"))??;
        Ok(tally.report(started.elapsed()))
    }

    fn template(&self) -> Result<Template> {
        Template::new(&Shape {
            destination: &self.destination,
            amount: self.amount,
            size: self.size,
            expiry_ms: self.expiry_ms,
            destinations: self.spread_destinations,
        })
    }

    /// Runs it in a process on `core` against a subject.
    pub(crate) fn run_pinned(
        core: usize,
        subject: &Subject,
        packets: u64,
        in_flight: u32,
        data_bytes: u32,
        extra: &[String],
    ) -> Result<Report> {
        let mut command = process::pinned(core, &std::env::current_exe()?);
        match &subject.target {
            Target::Http(url) => command.args(["load", "--http", url]),
            Target::Btp(url) => command.args(["load", "--btp", url]),
            Target::H2c(url) => return Err(format!("{url}: only `rialto bench` speaks it").into()),
        };
        command
            .args(["--token", &subject.token, "--packets", &packets.to_string()])
            .args(["--concurrency", &in_flight.to_string()])
            .args(["--size", &data_bytes.to_string()])
            .args(extra);
        let output = command.stderr(Stdio::piped()).output()?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("the load did not finish: {}", said.trim()).into()
        })
    }

    async fn over_http(&self, url: &str) -> Result<Tally> {
        let (host, path) = crate::split_url(url, "http://")?;
        let head = http1::request_head(host, path, &self.token);
        let mut tasks = JoinSet::new();
        for connection in 0..self.concurrency.min(self.packets) {
            let mut template = self.template()?;
            let mut head = head.clone();
            let accounts = self.spread_accounts;
            let (host_name, pattern) = (host.to_owned(), path.to_owned());
            let mut socket = Connection::new(TcpStream::connect(host).await?)?;
            let sequences = (connection..self.packets).step_by(usize::try_from(self.concurrency)?);
            tasks.spawn(async move {
                let mut tally = Tally::default();
                for sequence in sequences {
                    let (packet, preimage) = template.stamp(u64::from(sequence))?;
                    if let Some(count) = accounts {
                        let number = wire::digits(wire::turn(u64::from(sequence), count));
                        let path = pattern.replace('*', &number);
                        head = http1::request_head(&host_name, &path, &format!("t{number}"));
                    }
                    let sent = Instant::now();
                    socket.send(&head, packet).await?;
                    let reply = socket
                        .receive(Side::Client)
                        .await?
                        .ok_or("closed without an answer")?;
                    tally.count(sent, wire::is_fulfilled(&reply, &preimage));
                }
                Ok::<_, crate::Error>(tally)
            });
        }
        let mut total = Tally::default();
        while let Some(tally) = tasks.join_next().await {
            total.add(tally??);
        }
        Ok(total)
    }

    async fn over_btp(&self, url: &str) -> Result<Tally> {
        let mut socket = ws::connect(url, &self.token).await?;
        let mut template = self.template()?;
        let mut waiting: FxHashMap<u32, (Instant, Preimage)> = FxHashMap::default();
        let mut tally = Tally::default();
        // Request 0 was the authentication.
        let mut next = 1..=self.packets;
        loop {
            let room = usize::try_from(self.concurrency)? - waiting.len();
            for id in next.by_ref().take(room) {
                let (packet, preimage) = template.stamp(u64::from(id))?;
                waiting.insert(id, (Instant::now(), preimage));
                socket.feed(wire::btp_request(id, packet)).await?;
            }
            if waiting.is_empty() {
                ws::close(socket).await?;
                return Ok(tally);
            }
            socket.flush().await?;
            let mut frame = socket.next().await;
            while let Some(reply) = frame {
                let reply = reply?;
                let Btp::Response(id, packet) = wire::btp(&reply)? else {
                    return Err("a request instead of an answer".into());
                };
                let (sent, preimage) = waiting.remove(&id).ok_or("answer to no request")?;
                tally.count(sent, wire::is_fulfilled(packet, &preimage));
                frame = socket.next().now_or_never().flatten();
            }
        }
    }
}

#[derive(Default)]
struct Tally {
    fulfilled: u64,
    rejected: u64,
    latencies: Vec<Duration>,
}

impl Tally {
    fn count(&mut self, sent: Instant, fulfilled: bool) {
        self.latencies.push(sent.elapsed());
        match fulfilled {
            true => self.fulfilled += 1,
            false => self.rejected += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.fulfilled += other.fulfilled;
        self.rejected += other.rejected;
        self.latencies.extend(other.latencies);
    }

    fn report(mut self, elapsed: Duration) -> Report {
        self.latencies.sort_unstable();
        let last = self.latencies.len() - 1;
        let at = |percent: usize| self.latencies[last * percent / 100].as_micros();
        Report {
            fulfilled: self.fulfilled,
            rejected: self.rejected,
            elapsed_us: elapsed.as_micros(),
            per_second: u128::from(self.fulfilled + self.rejected) * 1_000_000
                / elapsed.as_micros().max(1),
            latency_us: Percentiles {
                p50: at(50),
                p90: at(90),
                p99: at(99),
                max: at(100),
            },
        }
    }
}
