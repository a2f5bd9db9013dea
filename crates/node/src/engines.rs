//! Asks settlement engines what the core wants asked, beside the packets.
//!
//! Nothing is decided or remembered here: a question that is lost with the process is in the books,
//! and the core asks again.

use std::sync::Arc;

use rialto_connector::{Action, Effects, EngineAsk, Input, settle::EngineAnswer};
use rialto_links::engine_client;
use tokio::sync::{Semaphore, mpsc};
use tracing::{info, warn};

use crate::handle::Handle;

/// Engines that are being asked at the same time.
const ASKED_MAX: usize = 64;

/// Asks until the node stops. An engine that hangs holds up its own account only, until
/// [`ASKED_MAX`] of them do; each question ends in time.
pub(crate) async fn run(handle: Arc<Handle>, mut asks: mpsc::UnboundedReceiver<Action>) {
    let free = Arc::new(Semaphore::new(ASKED_MAX));
    while let Some(action) = asks.recv().await {
        let Action::Engine {
            account,
            engine_url,
            ask,
        } = action
        else {
            continue; // nothing else is sent here
        };
        let permit = Arc::clone(&free)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let handle = Arc::clone(&handle);
        tokio::spawn(async move {
            let answer = engine_client::ask(&engine_url, account, &ask, &handle.tls).await;
            drop(permit);
            let input = match ask {
                EngineAsk::Introduce => {
                    report(&engine_url, account.0, &answer);
                    Input::Introduced { account, answer }
                }
                EngineAsk::Settle { id, .. } => Input::Settled { id, answer },
                EngineAsk::Forget => {
                    report(&engine_url, account.0, &answer);
                    return;
                }
            };
            let mut out = Effects::default();
            handle.shell.step(&mut out, Some, |core, now, out| {
                core.handle(now, input, out)
            });
        });
    }
}

/// What the books do not tell: how the engine took an account.
fn report(engine: &str, account: u32, answer: &EngineAnswer) {
    match answer {
        EngineAnswer::Accepted => info!(engine, account, "the settlement engine answered"),
        EngineAnswer::Refused { message } | EngineAnswer::Unknown { message } => {
            warn!(
                engine,
                account, message, "the settlement engine does not take the account"
            );
        }
    }
}
