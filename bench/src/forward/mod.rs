//! Forwarders with no logic at all: what each shape of the packet path costs before the node does
//! anything.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use crate::core::{Core, Mode};
use crate::{Lifetime, Listening, Result};

mod btp;
mod hyper;
mod lean;

/// Options of `rialto-bench forward`.
#[derive(clap::Args)]
pub(crate) struct Forward {
    /// How packets are taken and sent on
    #[arg(long)]
    kind: Kind,
    /// How the tasks are run
    #[arg(long, default_value = "single")]
    runtime: Runtime,
    /// The fulfilling peer
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// What a node's core would cost at the very least
    #[arg(long, default_value = "none")]
    core: Mode,
    /// Where `--core` writes its records
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    lifetime: Lifetime,
}

/// The shapes.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// HTTP by hyper, with a pool of connections of our own
    HyperPool,
    /// HTTP by hyper, with the pooled client of hyper-util
    HyperUtil,
    /// HTTP by httparse
    Lean,
    /// BTP over tokio-tungstenite
    Tungstenite,
    /// BTP over tokio-websockets
    Websockets,
    /// BTP over a codec of our own
    LeanWebsocket,
}

/// The runtimes.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Runtime {
    /// One thread
    Single,
    /// Tokio's work-stealing scheduler with its usual number of threads
    Stealing,
}

impl Forward {
    pub(crate) fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        match self.runtime {
            Runtime::Single => crate::single_threaded(),
            Runtime::Stealing => Ok(tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?),
        }
    }

    pub(crate) async fn run(&self) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let btp = matches!(
            self.kind,
            Kind::Tungstenite | Kind::Websockets | Kind::LeanWebsocket
        );
        Listening {
            http: (!btp).then_some(address),
            btp: btp.then_some(address),
        }
        .announce()?;

        let core = Core::new(self.core, self.journal.as_deref())?;
        tokio::spawn(core.clone().write_turns());
        let to = self.to;
        tokio::select! {
            end = async {
                match self.kind {
                    Kind::HyperPool => hyper::pool(listener, to, core).await,
                    Kind::HyperUtil => hyper::util(listener, to, core).await,
                    Kind::Lean => lean::run(listener, to, core).await,
                    Kind::Tungstenite => btp::tungstenite(listener, to, core).await,
                    Kind::Websockets => btp::websockets(listener, to, core).await,
                    Kind::LeanWebsocket => btp::lean(listener, to, core).await,
                }
            } => end,
            over = self.lifetime.over() => over,
        }
    }
}
