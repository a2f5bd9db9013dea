//! BTP connections that this node opens and keeps up.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use rialto_btp::{
    BtpUri,
    backoff::{self, Backoff},
    session::{CloseReason, Session},
};
use rialto_ledger::AccountId;
use tokio::{
    task::{JoinHandle, spawn_local},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, http::StatusCode},
};

use crate::{
    btp::{Driver, End, Ended, Side, websocket_config},
    clock::wall,
    connect::{Stream, connect},
    directory::BtpPeer,
    pace::Pace,
    tls::ClientTls,
    worker::Worker,
};

/// How long the WebSocket upgrade may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the peer opened a session itself, that is looked at again after so long.
const SESSION_LOOK: Duration = Duration::from_millis(250);

/// A task that ends with its owner.
struct Dialing {
    peer: BtpPeer,
    task: JoinHandle<()>,
}

impl Drop for Dialing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a connection for every account that has BTP settings, as long as it has them.
pub(crate) async fn dial(worker: Rc<Worker>) {
    let mut changes = worker.directory_changes();
    let mut dialing = BTreeMap::<AccountId, Dialing>::new();
    loop {
        let directory = changes.borrow_and_update().clone();
        dialing.retain(|id, dialing| {
            let account = directory.account(*id);
            account.as_ref().and_then(|account| account.btp()) == Some(&dialing.peer)
        });
        for (account, peer) in directory.dialled() {
            dialing.entry(account).or_insert_with(|| Dialing {
                peer: peer.clone(),
                task: spawn_local(keep_up(Rc::clone(&worker), account, peer)),
            });
        }
        if changes.changed().await.is_err() {
            return; // the node is gone
        }
    }
}

async fn keep_up(worker: Rc<Worker>, account: AccountId, peer: BtpPeer) {
    let mut backoff = Backoff::default();
    let pace = Pace::default();
    while !worker.is_draining() {
        // A second session would take the place of the first; two nodes that both dial would go on
        // like that for ever, and each time lose what is in flight.
        if worker.has_session(account) {
            sleep(SESSION_LOOK).await;
            continue;
        }
        let uri = peer.uri(wall());
        let tls = worker.tls().to_neighbour(&peer.tls_pins);
        let (ended, message) = attempt(&worker, account, &uri, &tls).await;
        if let Some(message) = message
            && let Some(held_back) = pace.due(worker.clock().now_ns())
        {
            let (account, uri) = (worker.name_of(account), uri.websocket_url());
            tracing::warn!(account, %uri, %message, held_back, "no BTP session with peer");
        }
        let wait_ns = backoff.delay_ns(ended, jitter());
        sleep(Duration::from_nanos(wait_ns)).await;
    }
}

/// One connection, from its beginning to its end, and why there was no session.
async fn attempt(
    worker: &Rc<Worker>,
    account: AccountId,
    uri: &BtpUri,
    tls: &ClientTls,
) -> (backoff::Ended, Option<String>) {
    let socket = match open(uri, tls).await {
        Ok(socket) => socket,
        Err(failed) => return failed,
    };
    // Until its last bytes are out, the worker is not done.
    let _counted = worker.count_connection();
    let mut hello = Vec::new();
    let session = Session::client(
        worker.btp_settings(),
        worker.clock().now_ns(),
        wall(),
        &uri.username,
        &uri.token,
        &mut hello,
    );
    let side = Side::Client { account };
    let driver = Driver::new(Rc::clone(worker), socket, session, side, hello);
    let Ended {
        end,
        established_for_ns,
    } = driver.run().await;
    match (established_for_ns, end) {
        (Some(for_ns), _) => (backoff::Ended::Established { for_ns }, None),
        (None, End::Session(CloseReason::AuthRejected(code))) => {
            let message = format!("authentication was rejected: {code:?}");
            (backoff::Ended::Refused, Some(message))
        }
        (None, end) => {
            let message = format!("closed before authentication: {end:?}");
            (backoff::Ended::Unreached, Some(message))
        }
    }
}

async fn open(
    uri: &BtpUri,
    tls: &ClientTls,
) -> Result<WebSocketStream<Stream>, (backoff::Ended, Option<String>)> {
    let unreached = |message| (backoff::Ended::Unreached, Some(message));
    let tls = uri.tls.then_some(&tls.http1);
    let host = uri.host.trim_matches(['[', ']']);
    let stream = connect(host, uri.port, tls)
        .await
        .map_err(|error| unreached(format!("{:?}: {}", error.failure, error.message)))?;
    let url = uri.websocket_url();
    let upgrade = client_async_with_config(url, stream, Some(websocket_config()));
    match timeout(UPGRADE_TIMEOUT, upgrade).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(response)))
            if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&response.status()) =>
        {
            let message = format!("the server answered with status {}", response.status());
            Err((backoff::Ended::Refused, Some(message)))
        }
        Ok(Err(error)) => Err(unreached(error.to_string())),
        Err(_) => Err(unreached("the WebSocket upgrade took too long".to_owned())),
    }
}

fn jitter() -> u32 {
    let mut bytes = [0; 4];
    // Without entropy all wait equally long, which is no harm.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
