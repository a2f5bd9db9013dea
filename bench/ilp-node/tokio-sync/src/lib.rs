//! In the place of the published `tokio-sync` 0.1, so that `ilp-node` runs on today's Rust.
//!
//! Every version of that crate leaves the tasks in its one-shot channel uninitialized, which Rust ends a
//! program for by now, and the client of Redis makes such a channel for each command. Nothing newer fits
//! that client. Here is as much as is used below `ilp-node`: the channels of `futures` 0.1, which have the
//! same interface as far as that client goes, and what a reactor keeps its readers and writers in.

pub use futures::sync::{mpsc, oneshot};

/// Named by `tokio`, used by nobody.
pub mod lock {}
/// Named by `tokio`, used by nobody.
pub mod watch {}

/// What `tokio-reactor` wakes.
pub mod task {
    use std::{
        mem,
        sync::{Mutex, MutexGuard},
    };

    use futures::task::{self, Task};

    /// The task that waits for something, if there is one.
    #[derive(Debug, Default)]
    pub struct AtomicTask(Mutex<Option<Task>>);

    impl AtomicTask {
        /// Nobody waits.
        pub fn new() -> Self {
            Self::default()
        }

        /// The current task waits from now on, in the place of any other.
        pub fn register(&self) {
            self.register_task(task::current());
        }

        /// This task waits from now on, in the place of any other.
        pub fn register_task(&self, task: Task) {
            let mut waiting = Some(task);
            // The one before is dropped without the lock: with it may go what registers here.
            mem::swap(&mut *self.lock(), &mut waiting);
        }

        /// Wakes the task that waits.
        pub fn notify(&self) {
            if let Some(task) = self.take_task() {
                task.notify();
            }
        }

        /// The task that waits, for the caller to wake.
        pub fn take_task(&self) -> Option<Task> {
            self.lock().take()
        }

        fn lock(&self) -> MutexGuard<'_, Option<Task>> {
            self.0.lock().expect("nothing panics while it is held")
        }
    }
}
