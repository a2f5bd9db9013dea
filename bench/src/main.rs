//! Rialto measured: against bare forwarders (`shape`, docs/design/shape.md) and against everything else
//! (`suite`, docs/performance.md).
//!
//! Load and fulfilling peer share no code with the node, which is run as a program. Only books that are
//! too large to be made by requests are written as the node's own journal would hold them.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

mod core;
mod forward;
mod fulfil;
mod hop;
mod http1;
mod load;
mod micro;
mod node;
mod process;
mod routes;
mod shape;
mod suite;
mod wire;
mod ws;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Load, fulfilling peer and bare forwarders to measure against.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send packets in a closed loop and print what came back as JSON
    Load(load::Load),
    /// Be the peer that fulfils every packet of `load`
    Fulfil(fulfil::Fulfil),
    /// Measure the latency through one hop, with load and peer in one thread that never sleeps
    Hop(hop::Hop),
    /// Forward packets without any logic
    Forward(forward::Forward),
    /// Compare the forwarders with each other and with nginx
    Shape(shape::Shape),
    /// Count the instructions of each part of the packet path
    Micro(micro::Micro),
    /// Measure everything: Rialto, other systems beside it, and the ratios between them
    Suite(suite::Suite),
    /// Measure the routing table with a million routes
    Routes(routes::Routes),
}

/// Ends a server together with the process that started it.
#[derive(clap::Args)]
struct Lifetime {
    /// Stop at the end of standard input
    #[arg(long)]
    until_stdin_closes: bool,
}

impl Lifetime {
    async fn over(&self) -> Result<()> {
        if self.until_stdin_closes {
            tokio::task::spawn_blocking(|| {
                std::io::copy(&mut std::io::stdin(), &mut std::io::sink())
            })
            .await??;
        } else {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Load(load) => {
            let report = single_threaded()?.block_on(load.run())?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        Command::Hop(hop) => {
            let latency = single_threaded()?.block_on(hop.run())?;
            println!("{}", serde_json::to_string(&latency)?);
            Ok(())
        }
        Command::Fulfil(fulfil) => serve(&single_threaded()?, fulfil.run()),
        Command::Forward(forward) => serve(&forward.runtime()?, forward.run()),
        Command::Shape(shape) => shape.run(),
        Command::Micro(micro) => micro.run(),
        Command::Suite(suite) => suite.run(),
        Command::Routes(routes) => routes.run(),
    }
}

fn single_threaded() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Runs a server; the thread that waits for standard input is not waited for.
fn serve(
    runtime: &tokio::runtime::Runtime,
    server: impl Future<Output = Result<()>>,
) -> Result<()> {
    runtime.block_on(server)?;
    std::process::exit(0);
}

/// Where a server listens, as the first line it prints.
#[derive(serde::Serialize, serde::Deserialize)]
struct Listening {
    http: Option<SocketAddr>,
    btp: Option<SocketAddr>,
}

impl Listening {
    fn announce(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Splits `http://host:port/path` into authority and path.
fn split_url<'a>(url: &'a str, scheme: &str) -> Result<(&'a str, &'a str)> {
    let rest = url
        .strip_prefix(scheme)
        .ok_or_else(|| format!("`{url}` does not begin with {scheme}"))?;
    Ok(rest
        .find('/')
        .map_or((rest, "/"), |slash| rest.split_at(slash)))
}
