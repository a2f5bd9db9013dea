//! Asks settlement engines, and accounting systems whose engine we are, what the core wants asked, beside
//! the packets.
//!
//! Nothing is decided or remembered here: a question that is lost with the process is in the books,
//! and the core asks again.

use std::sync::Arc;

use rialto_connector::{
    Action, Asked, Effects, EngineAsk, Input, messages::MessageAnswer, settle::EngineAnswer,
};
use rialto_ledger::AccountId;
use rialto_links::engine_client;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout_at,
};
use tracing::{info, warn};

use crate::handle::Handle;

/// Engines that are being asked at the same time, beside the messages of peers: of these the core
/// bounds how many there are.
const ASKED_MAX: usize = 64;

/// Asks until the node stops. An engine that hangs holds up its own account only, until
/// [`ASKED_MAX`] of them do; each question ends in time.
pub(crate) async fn run(handle: Arc<Handle>, mut asks: mpsc::UnboundedReceiver<Action>) {
    let free = Arc::new(Semaphore::new(ASKED_MAX));
    while let Some(action) = asks.recv().await {
        let Action::Engine {
            account,
            asked,
            ask,
        } = action
        else {
            continue; // nothing else is sent here
        };
        let permit = match ask {
            EngineAsk::Message { .. } => None,
            EngineAsk::Introduce | EngineAsk::Close | EngineAsk::Settle { .. } => {
                let permit = Arc::clone(&free).acquire_owned().await;
                Some(permit.expect("the semaphore is never closed"))
            }
        };
        let handle = Arc::clone(&handle);
        tokio::spawn(async move {
            let input = perform(&handle, account, &asked, ask).await;
            drop(permit);
            let mut out = Effects::default();
            handle.shell.step(&mut out, Some, |core, now, out| {
                core.handle(now, input, out)
            });
        });
    }
}

/// Asks, and says what the core is to know of the answer.
async fn perform(handle: &Handle, account: AccountId, asked: &Asked, ask: EngineAsk) -> Input {
    let (tls, token) = (&handle.tls(), &handle.accounting_token());
    match (ask, asked) {
        (EngineAsk::Settle { id, key, quantity }, Asked::Engine(url)) => {
            let answer = engine_client::settle(url, account, &key, &quantity, tls).await;
            Input::Settled { id, answer }
        }
        (EngineAsk::Settle { id, key, quantity }, Asked::Accounting(url)) => {
            let answer = engine_client::report(url, token, &key, &quantity, tls).await;
            Input::Settled { id, answer }
        }
        (
            EngineAsk::Message {
                id,
                data,
                deadline_ns,
            },
            asked,
        ) => {
            let answer = async {
                match asked {
                    Asked::Engine(url) => engine_client::message(url, account, &data, tls).await,
                    Asked::Accounting(url) => engine_client::relay(url, token, &data, tls).await,
                }
            };
            let deadline = handle.shell.clock.instant(deadline_ns);
            let answer = timeout_at(deadline, answer).await;
            let answer = answer.unwrap_or(MessageAnswer::Failed);
            Input::MessageAnswered { id, answer }
        }
        (EngineAsk::Introduce, Asked::Engine(url)) => {
            let answer = engine_client::introduce(url, account, tls).await;
            report(url, account.0, &answer);
            Input::Introduced { account, answer }
        }
        (EngineAsk::Close, Asked::Engine(url)) => {
            let answer = engine_client::close(url, account, tls).await;
            report(url, account.0, &answer);
            Input::Closed {
                account,
                engine_url: url.clone(),
                answer,
            }
        }
        (EngineAsk::Introduce | EngineAsk::Close, Asked::Accounting(_)) => {
            unreachable!("accounting systems open and close accounts with us, and not we with them")
        }
    }
}

/// What the books do not tell: how the engine took an account.
fn report(engine: &str, account: u32, answer: &EngineAnswer) {
    match answer {
        EngineAnswer::Accepted => info!(engine, account, "the settlement engine answered"),
        EngineAnswer::Refused { message } | EngineAnswer::Unknown { message } => {
            warn!(
                engine,
                account, message, "the settlement engine does not open or close the account"
            );
        }
    }
}
