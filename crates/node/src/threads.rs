//! What runs where: I/O threads, the timer, the syncer, the checkpointer.

use std::{
    net::TcpListener,
    ops::RangeInclusive,
    rc::Rc,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use rialto_connector::{Action, Effects, Input, LinkId};
use rialto_ledger::Lsn;
use rialto_links::{ServerTls, Worker, WorkerConfig};
use tokio::{
    runtime::{self, LocalOptions},
    sync::watch,
    task::{coop::unconstrained, spawn_local},
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};

use crate::shell::Shell;

/// Records after which the books are written down as a checkpoint, so that a restart is quick.
const CHECKPOINT_RECORDS: u64 = 1_000_000;

/// Time between two syncs of the journal, unless Fulfills wait for them: the shorter where anything waits for
/// one, or what is not on disk comes near a cap, else the longer. A sync per batch of packets would cost as
/// much as the packets, and each keeps packets waiting on the core that it runs on. What is at risk meanwhile is
/// bounded by value, not by time.
const SYNC_PAUSE: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(100);

/// How often the checkpointer looks.
const CHECKPOINT_LOOK: Duration = Duration::from_secs(1);

/// Tasks that an I/O thread runs before it looks at its sockets again while others are ready. The
/// more, the more packets one batch has.
const TASKS_PER_LOOK: u32 = 256;

/// How long the end of an I/O thread waits for answers that are on their way out: to clients that read
/// slowly, and to callback URLs where nobody is at first.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// How often it looks whether they are out.
const FLUSH_LOOK: Duration = Duration::from_millis(5);

/// One I/O thread: its connections, and the batches that they make.
pub(crate) async fn run_worker(
    shell: Arc<Shell>,
    config: WorkerConfig,
    listener: TcpListener,
    tls: Option<watch::Receiver<ServerTls>>,
    mut stop: watch::Receiver<bool>,
) {
    let id = config.id;
    let worker = Worker::new(config);
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            error!(%error, "cannot listen");
            return;
        }
    };
    spawn_local(Rc::clone(&worker).serve(listener, tls));
    // One thread keeps the connections that we dial, and the time.
    if id == 0 {
        spawn_local(Rc::clone(&worker).dial());
        spawn_local(run_timer(Arc::clone(&shell)));
    }

    let mailbox = &shell.mailboxes[usize::from(id)];
    let (mut inputs, mut actions, mut out) = (Vec::new(), Vec::new(), Effects::default());
    let mine = |action: Action| match &action {
        Action::Forward { link, .. }
        | Action::Answer { link, .. }
        | Action::Disconnect { link } => {
            match link {
                LinkId::Http(_) => {}
                LinkId::Session { worker, .. } | LinkId::Waiting { worker } if *worker == id => {}
                LinkId::Session { .. } | LinkId::Waiting { .. } | LinkId::Local => {
                    return Some(action);
                }
            }
            worker.perform(action);
            None
        }
        Action::Engine { .. } | Action::Report(_) => Some(action),
    };
    let mut close_by = None;
    loop {
        tokio::select! {
            () = worker.inbox().arrived() => {}
            () = mailbox.arrived.notified() => {}
            _ = stop.wait_for(|stop| *stop), if close_by.is_none() => {}
            () = sleep(FLUSH_LOOK), if close_by.is_some() => {}
        }
        // Read before the answers are taken: those that were there before the word to stop are then among them.
        let stops = *stop.borrow();
        if stops {
            worker.drain(); // these answers are the last of their connections
        }
        mailbox.take(&mut actions);
        worker.inbox().drain(&mut inputs);
        // One turn may write to more sockets than a task may use before it yields.
        let turn = async {
            actions.drain(..).for_each(|action| worker.perform(action));
            if !inputs.is_empty() {
                shell.step(&mut out, mine, |core, now, out| {
                    inputs
                        .drain(..)
                        .for_each(|input| core.handle(now, input, out));
                });
            }
        };
        unconstrained(turn).await;
        match close_by {
            None if stops => {
                worker.close();
                close_by = Some(Instant::now() + FLUSH_MAX);
            }
            Some(_) if worker.unfinished_count() == 0 => break,
            Some(at) if shell.is_hurried() || Instant::now() >= at => {
                let count = worker.unfinished_count();
                warn!(
                    count,
                    "connections and answers to callback URLs were cut off"
                );
                break;
            }
            Some(_) | None => {}
        }
    }
}

/// Gives the core its timeouts, and lets out what has waited for the disk long enough.
async fn run_timer(shell: Arc<Shell>) {
    let mut out = Effects::default();
    loop {
        let at_ns = shell.timer_at_ns();
        if at_ns == u64::MAX {
            shell.timer_moved.notified().await;
            continue;
        }
        let due: Instant = shell.clock.instant(at_ns);
        tokio::select! {
            () = sleep_until(due) => {}
            () = shell.timer_moved.notified() => continue,
        }
        shell.reset_timer();
        shell.release_overdue();
        shell.step(&mut out, Some, |core, now, out| {
            core.handle(now, Input::Timeout, out)
        });
        // A sender that always has more to send must not keep the thread from its sockets.
        tokio::task::yield_now().await;
    }
}

/// Starts an I/O thread.
pub(crate) fn spawn_worker(
    shell: Arc<Shell>,
    id: u16,
    config: impl FnOnce() -> WorkerConfig + Send + 'static,
    listener: TcpListener,
    tls: Option<watch::Receiver<ServerTls>>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<thread::JoinHandle<()>> {
    let (built, was_built) = mpsc::channel();
    let name = format!("io-{id}");
    let thread = thread::Builder::new().name(name).spawn(move || {
        // All its tasks stay on this thread, the one with the batches among them: as a task like the
        // others it has its turn behind whatever became ready before, and without another look at
        // the sockets in between.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(TASKS_PER_LOOK)
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                let _ = built.send(Ok(()));
                let batches = run_worker(shell, config(), listener, tls, stop);
                let ended = runtime.block_on(async { spawn_local(batches).await });
                ended.expect("nobody aborts it, and a panic aborts the process");
            }
            Err(error) => drop(built.send(Err(error))),
        }
    })?;
    was_built.recv().expect("the thread says what came of it")?;
    Ok(thread)
}

/// Starts the thread that syncs the journal.
pub(crate) fn spawn_syncer(shell: Arc<Shell>) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name("sync".to_owned())
        .spawn(move || {
            let pause = || match shell.read(|core| core.settings().strict) {
                true => Duration::ZERO..=Duration::ZERO,
                false => SYNC_PAUSE,
            };
            let ended = shell.journal.run_syncer(pause, |synced| {
                shell.release_synced();
                shell.synced.send_replace(Lsn(synced.0));
            });
            if let Err(failure) = ended {
                shell.fail(&failure);
            }
        })
}

/// Starts the thread that writes checkpoints.
pub(crate) fn spawn_checkpointer(shell: Arc<Shell>) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name("checkpoint".to_owned())
        .spawn(move || {
            let mut last = shell.journal.written();
            while !shell.draining.load(Ordering::Relaxed) && !shell.has_failed() {
                thread::park_timeout(CHECKPOINT_LOOK);
                if shell.journal.written().0 - last.0 >= CHECKPOINT_RECORDS {
                    last = shell.journal.written();
                    checkpoint(&shell);
                }
            }
        })
}

/// Writes down the books as they are. Packets wait only while they are copied.
pub(crate) fn checkpoint(shell: &Shell) {
    let (at, records) = shell.read(|core| (core.lsn(), core.ledger().snapshot()));
    let mut count = 0_u64;
    let encoded = records.map(|record| {
        count += 1;
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    });
    match shell.journal.checkpoint(rialto_journal::Lsn(at.0), encoded) {
        Ok(()) => info!(at = at.0, count, "checkpoint written"),
        Err(failure) => error!(%failure, "no checkpoint written; the journal goes on without"),
    }
}
