//! Where hyper's tasks run.

use hyper::rt::Executor;
use tokio::task::spawn_local;

/// Runs tasks on the present thread, so that they need not be `Send`.
#[derive(Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
