//! What the API needs of the node it runs in.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    body::Bytes,
    http::{Request, Response},
};
use rialto_connector::{Connector, Effects, Event, Now, Reason};
use rialto_ledger::{Account, AccountId, SealedSecret, TokenHash};
use rialto_packet::{Address, money::Asset};
use rialto_stream::SharedSecret;
use thiserror::Error;
use tokio::sync::{broadcast, oneshot};

use crate::{
    doctor::Probed,
    peering::Peering,
    strangers::{AutoPeering, Caller},
};

/// Accounts that are looked at while the core stands still: some 20 microseconds' worth.
const FEW_ACCOUNTS: usize = 64;

/// A future that can be named.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something to be done in the core.
pub type Command = Box<dyn FnOnce(&mut Connector, Now, &mut Effects) + Send>;

/// The node, seen from the API: the one seam between them.
pub trait Node: Send + Sync + 'static {
    /// Looks at the core. It stands still meanwhile, so `look` only copies what it needs.
    fn read(&self, look: &mut dyn FnMut(&Connector));

    /// Runs a command in the core, and is ready when its records are on disk. The command runs to
    /// its end even when nobody waits for it any more.
    fn execute(&self, command: Command) -> BoxFuture<'_, Result<(), Unavailable>>;

    /// From now on [`Event::PaymentEnded`], [`Event::QuoteDone`], [`Event::PingDone`] and
    /// [`Event::MessageDone`], each when the books show it; no others, as they would push these out.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Encrypts a secret that will be presented to a peer. Called within commands, so it must not
    /// need the core.
    fn seal(&self, secret: &str) -> SealedSecret;

    /// Finds out where a payment pointer, or an SPSP URL, leads.
    fn resolve<'a>(
        &'a self,
        receiver: &'a str,
    ) -> BoxFuture<'a, Result<ResolvedReceiver, ResolveError>>;

    /// Callers whose token opens nothing, in no order.
    fn callers(&self) -> Vec<Caller>;

    /// One is no stranger any more.
    fn forget_caller(&self, hash: TokenHash);

    /// Callers with these tokens, and no others, are passed over in silence from now on. Called within
    /// commands, so it must not need the core.
    fn block_callers(&self, blocked: &mut dyn Iterator<Item = TokenHash>);

    /// How requests to peer from nodes that nobody invited are taken, if they are.
    fn auto_peering(&self) -> Option<AutoPeering>;

    /// The payment pointer of a local account, if the node knows under which name it is reached.
    fn payment_pointer(&self, account: &str) -> Option<String>;

    /// How the node is.
    fn status(&self) -> NodeStatus;

    /// Entropy of the operating system, for tokens.
    fn random(&self) -> [u8; 32];

    /// A secret that only this node can make, the same each time for the same purpose and context.
    fn derive(&self, purpose: &str, context: &[u8]) -> [u8; 32];

    /// Where others reach the node listener, without a slash at the end.
    fn endpoint(&self) -> String;

    /// Whether neighbours that ask for a client certificate are shown one.
    fn shows_certificate(&self) -> bool;

    /// Whether secrets may be sent to this URL; if not, why, to be said after the URL.
    fn may_connect(&self, url: &str) -> Result<(), String>;

    /// One HTTP request to another node, whose URL is whole. No redirect is followed.
    fn exchange(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, String>>;

    /// Tries the way to a neighbour, on connections of its own. With `asks_link`, also asks a Rialto
    /// node at [`crate::LINK_PATH`].
    fn probe(&self, account: AccountId, asks_link: bool) -> BoxFuture<'_, Probed>;

    /// What is known about neighbours beside the books.
    fn peering(&self) -> &Peering;
}

/// The core takes no commands, or what it wrote may not be on disk.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Where money for a receiver goes. Of one query alone.
#[derive(Debug)]
pub struct ResolvedReceiver {
    /// The URL that answered, after redirects.
    pub url: String,
    /// Address of the STREAM connection.
    pub destination: Address,
    /// Its secret.
    pub shared_secret: SharedSecret,
    /// What the receiver counts, when it said so.
    pub asset: Option<Asset>,
}

/// Why a receiver cannot be paid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ResolveError {
    /// Stable word, such as `receiver_unreachable`.
    pub code: &'static str,
    /// Names the URL and what came back.
    pub message: String,
}

/// How the node is.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// As configured.
    pub name: String,
    /// Of the program.
    pub version: &'static str,
    /// Since the start.
    pub uptime_ms: u64,
    /// It is about to stop and takes nothing new.
    pub draining: bool,
    /// Number of the last journal record handed to the operating system.
    pub written_lsn: u64,
    /// Number of the last one known to be on disk.
    pub synced_lsn: u64,
    /// Why the journal takes no records any more.
    pub journal_failure: Option<String>,
    /// I/O threads.
    pub worker_count: usize,
    /// Requests and connections that opened no account, by reason.
    pub unauthenticated: Vec<(Reason, u64)>,
    /// Requests in callback mode that were refused, by the word for it.
    pub refused_callbacks: Vec<(&'static str, u64)>,
    /// Connections of clients that have not yet authenticated.
    pub unauthenticated_connections: u64,
    /// Those that had to make room for another.
    pub displaced_connections: u64,
}

/// The node as handlers use it.
#[derive(Clone)]
pub struct Handle(pub Arc<dyn Node>);

impl Handle {
    /// Looks at the core.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Connector) -> T) -> T {
        let (mut look, mut seen) = (Some(look), None);
        self.0.read(&mut |connector| {
            if let Some(look) = look.take() {
                seen = Some(look(connector));
            }
        });
        seen.expect("a node lets every look happen once")
    }

    /// Looks at every account, by number. There may be very many: the core stands still for a few of them at
    /// a time, and other requests are answered meanwhile. So what is seen is not of one instant.
    pub(crate) async fn each_account(&self, mut look: impl FnMut(&Connector, &Account)) {
        let mut last = Some(AccountId::NODE);
        while let Some(after) = last {
            last = self.read(|connector| {
                let few = connector.ledger().accounts_after(after);
                let few = few.take(FEW_ACCOUNTS);
                few.inspect(|account| look(connector, account))
                    .last()
                    .map(|account| account.id)
            });
            tokio::task::yield_now().await;
        }
    }

    /// Changes the core; ready when the change is on disk.
    pub(crate) async fn execute<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Connector, Now, &mut Effects) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        let command = Box::new(
            move |connector: &mut Connector, now: Now, out: &mut Effects| {
                // Nobody waits any more: the change stands all the same.
                let _ = sender.send(command(connector, now, out));
            },
        );
        self.0.execute(command).await?;
        receiver
            .await
            .map_err(|_| Unavailable("the node is stopping".to_owned()))
    }
}
