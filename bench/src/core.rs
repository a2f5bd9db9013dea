//! What a node's core costs at the very least, put into a forwarder: a lock, an entry made and
//! taken in a table, and a commit record written to a file before the answer is sent on.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::Result;

/// A commit record's size.
const RECORD_SIZE: usize = 40;

/// How the records reach the file.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// No core at all
    None,
    /// One write per packet, under the lock
    Packet,
    /// One write for all packets of one turn of the event loop
    Batch,
}

/// The imitation of a core, shared by all connections.
#[derive(Clone)]
pub(crate) struct Core(Option<Arc<Shared>>);

struct Shared {
    mode: Mode,
    state: Mutex<State>,
    recorded: Notify,
    written: Notify,
}

struct Entry {
    incoming: u32,
    record: [u8; RECORD_SIZE],
}

struct State {
    pending: FxHashMap<u32, Entry>,
    next: u32,
    records: Vec<u8>,
    file: File,
}

impl Core {
    /// A core that writes to `journal`.
    pub(crate) fn new(mode: Mode, journal: Option<&Path>) -> Result<Self> {
        if mode == Mode::None {
            return Ok(Self(None));
        }
        let journal = journal.ok_or("--core needs --journal")?;
        let state = State {
            pending: FxHashMap::default(),
            next: 0,
            records: Vec::new(),
            file: File::options().create(true).append(true).open(journal)?,
        };
        Ok(Self(Some(Arc::new(Shared {
            mode,
            state: Mutex::new(state),
            recorded: Notify::new(),
            written: Notify::new(),
        }))))
    }

    /// A Prepare with this request id came in; the id it goes out with.
    pub(crate) fn prepare(&self, incoming: u32) -> u32 {
        let Some(shared) = &self.0 else {
            return incoming;
        };
        let mut state = shared.state.lock();
        state.next = state.next.wrapping_add(1);
        let id = state.next;
        state.pending.insert(
            id,
            Entry {
                incoming,
                record: [0; RECORD_SIZE],
            },
        );
        id
    }

    /// Its Fulfill came: the record is made, and in [`Mode::Packet`] written. Gives back the
    /// request id that the Prepare came in with.
    pub(crate) fn fulfill(&self, id: u32) -> Result<u32> {
        let Some(shared) = &self.0 else { return Ok(id) };
        let mut state = shared.state.lock();
        let entry = state.pending.remove(&id).ok_or("fulfilled twice")?;
        state.records.extend_from_slice(&entry.record);
        if shared.mode == Mode::Packet {
            state.write()?;
        }
        Ok(entry.incoming)
    }

    /// Writes what was recorded since the last write, for callers that have a whole batch.
    pub(crate) fn write(&self) -> Result<()> {
        match &self.0 {
            Some(shared) => shared.state.lock().write(),
            None => Ok(()),
        }
    }

    /// Waits until what was recorded is written, for callers that have one packet each: in
    /// [`Mode::Batch`] the first of a turn wakes [`Core::write_turns`], which runs after all
    /// tasks that were ready before it.
    pub(crate) async fn written(&self) {
        if let Some(shared) = &self.0
            && shared.mode == Mode::Batch
        {
            let written = shared.written.notified();
            shared.recorded.notify_one();
            written.await;
        }
    }

    /// Writes once per turn of the event loop, for ever.
    pub(crate) async fn write_turns(self) -> Result<()> {
        let Some(shared) = &self.0 else { return Ok(()) };
        loop {
            shared.recorded.notified().await;
            shared.state.lock().write()?;
            shared.written.notify_waiters();
        }
    }
}

impl State {
    fn write(&mut self) -> Result<()> {
        if !self.records.is_empty() {
            self.file.write_all(&self.records)?;
            self.records.clear();
        }
        Ok(())
    }
}
