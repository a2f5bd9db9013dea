//! What happened on one thread and was not yet given to the core.

use std::{
    cell::RefCell,
    mem,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use rialto_connector::Input;
use tokio::sync::Notify;

/// Inputs that may wait before BTP sessions stop reading. HTTP requests are bounded by their
/// connections.
pub const INBOX_LEN_MAX: usize = 8 * 1024;

/// The inputs of one worker, in order. Clones are the same inbox.
///
/// Everything that became ready in one round of the runtime is drained together: one lock of the
/// core, one write of the journal, one write per socket.
#[derive(Clone, Default)]
pub struct Inbox(Rc<Shared>);

#[derive(Default)]
struct Shared {
    inputs: RefCell<Vec<Input>>,
    arrived: Notify,
    /// Sessions that wait for room.
    waiting: RefCell<Vec<Waker>>,
}

impl Inbox {
    /// Adds an input and wakes whoever waits in [`Inbox::arrived`].
    pub fn push(&self, input: Input) {
        let mut inputs = self.0.inputs.borrow_mut();
        inputs.push(input);
        if inputs.len() == 1 {
            self.0.arrived.notify_one();
        }
    }

    /// Resolves once something is there. May also do so when nothing is.
    pub async fn arrived(&self) {
        self.0.arrived.notified().await;
    }

    /// Swaps the waiting inputs with `batch`, which is emptied first.
    pub fn drain(&self, batch: &mut Vec<Input>) {
        batch.clear();
        mem::swap(batch, &mut self.0.inputs.borrow_mut());
        for waker in self.0.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Ready while fewer than [`INBOX_LEN_MAX`] inputs wait.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.0.inputs.borrow().len() < INBOX_LEN_MAX {
            return Poll::Ready(());
        }
        self.0.waiting.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }
}
