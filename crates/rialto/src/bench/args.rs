//! What `rialto bench` can be told.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use rialto_packet::Address;

use super::{packets::PREIMAGE_BYTES, target::Target};
use crate::output::Output;

/// Most packets in flight: each is a connection over HTTP/1.1.
const IN_FLIGHT_MAX: u32 = 100_000;
const DATA_BYTES_MIN: i64 = PREIMAGE_BYTES as i64;
const DATA_BYTES_MAX: i64 = rialto_packet::DATA_BYTES_MAX as i64;

#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per process, and it does not move"
)]
pub(crate) enum BenchCommand {
    /// Send packets to an Interledger endpoint and measure the answers
    #[command(after_help = "\
Examples:
  rialto bench run http://127.0.0.1:7770/accounts/load/ilp --token-file load.token --to test.hub.sink
  rialto bench run btp+ws://127.0.0.1:7770/accounts/load/ilp/btp --token-file load.token \\
      --to test.hub.sink --rate 20000 --arrivals poisson --duration 30 --json

Without --rate as many packets are in flight as --in-flight allows, always. With it each packet is due
at its own time, and its latency counts from there, whether or not it could leave in time: a slow
answer delays nobody's clock. Packets must arrive at `rialto bench serve`, which can fulfill them.")]
    Run(BenchRunArgs),
    /// Be the peer that fulfills every packet of `rialto bench run`
    #[command(after_help = "\
Examples:
  rialto bench serve
  rialto bench serve --listen 127.0.0.1:7790 --json

It answers ILP over HTTP/1.1 and HTTP/2 (h2c) at any path, and BTP, on one port. Anyone who can reach
the port is answered, whatever token is shown: never open it to strangers.")]
    Serve(BenchServeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchRunArgs {
    /// Where: http://, https://, h2c:// (HTTP/2 without TLS), btp+ws:// or btp+wss://
    #[arg(value_name = "URL")]
    pub(crate) target: Target,
    /// ILP address the packets go to
    #[arg(long, value_name = "ADDRESS", default_value = "test.bench.sink")]
    pub(crate) to: Address,
    /// File with the token to present, or - for stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates in PEM to trust beside the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_roots_file: Option<PathBuf>,
    /// Packets per second that are due, however fast answers come [default: as many as can be]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,
    /// How they are spread over time
    #[arg(long, value_enum, default_value_t = Arrivals::Constant, requires = "rate")]
    pub(crate) arrivals: Arrivals,
    /// Most packets in flight
    #[arg(long, value_name = "COUNT", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    pub(crate) in_flight: u32,
    /// Connections over HTTP/2 and BTP; HTTP/1.1 has one for each packet in flight
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Stop sending after so long [default: 10, unless --packets is given]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) duration: Option<u32>,
    /// Stop sending after so many packets
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) packets: Option<u64>,
    /// Data in each packet; its first 32 bytes are what fulfills it
    #[arg(long, value_name = "BYTES", default_value_t = 300,
          value_parser = clap::value_parser!(u16).range(DATA_BYTES_MIN..=DATA_BYTES_MAX))]
    pub(crate) data: u16,
    /// Amount of each packet, in units of the paying account's asset
    #[arg(long, value_name = "UNITS", default_value_t = 1)]
    pub(crate) amount: u64,
    /// How long each packet may take
    #[arg(long, value_name = "MS", default_value_t = 30_000, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-60_000..=300_000))]
    pub(crate) expiry_ms: i32,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How the times at which packets are due are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// The same pause before each
    Constant,
    /// Independent of each other, as from many senders
    Poisson,
}

#[derive(Debug, Args)]
pub(crate) struct BenchServeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7790")]
    pub(crate) listen: SocketAddr,
    /// Refuse every packet with F99 instead
    #[arg(long)]
    pub(crate) reject: bool,
    /// Exit as soon as stdin is closed
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
