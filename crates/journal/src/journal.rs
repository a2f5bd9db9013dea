use crate::{
    Disk, DiskFile, JournalError, Lsn, RECORD_BYTES_MAX, Recovered, Replay,
    format::{
        CheckpointHeader, LOCK_NAME, Mark, SEGMENT_HEADER_BYTES, SegmentHeader, TEMPORARY_NAME,
        checkpoint_name, encode_end, header_crc, push_record, seal_records, segment_name,
        sort_names,
    },
    recover::{CHUNK_BYTES, Survey, offset_of, survey},
};
use parking_lot::{Condvar, Mutex};
use std::{
    error::Error,
    io, mem,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How many bytes may wait in memory for [`Journal::write`]. An append that
/// goes beyond writes by itself.
pub const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The size at which a segment is followed by the next unless the options say otherwise, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// How a journal is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The number that tells a new journal from all others; draw it at random.
    /// An existing journal keeps its own.
    pub id: u64,
    /// A segment that has reached this size, in bytes, is followed by the next.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            id: 0,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
        }
    }
}

/// An open journal, shared by the threads that append, write and sync.
///
/// ```text
///   append          write            sync
/// ─────────▶ buffer ─────▶ segment ─────────▶ safe
///           appended      written            synced
/// ```
///
/// A failed write or sync stops the journal for good: every later call returns
/// [`JournalError::Failed`], and nothing is tried again on the file.
pub struct Journal {
    disk: Arc<dyn Disk>,
    id: u64,
    segment_bytes: u64,
    buffer: Mutex<Buffer>,
    writer: Mutex<Writer>,
    /// Held by the one sync at a time.
    syncing: Mutex<()>,
    /// The newest checkpoint; held while the next is made.
    checkpoint: Mutex<Lsn>,
    /// Signalled when something was written, and when the journal ends.
    wake: Condvar,
    /// Somebody waits for the next sync.
    hurried: AtomicBool,
    /// Held by the syncer unless it rests.
    rest: Mutex<()>,
    rest_ends: Condvar,
    appended: AtomicU64,
    written: AtomicU64,
    synced: AtomicU64,
    closed: AtomicBool,
    failure: OnceLock<Failure>,
}

struct Failure {
    doing: &'static str,
    path: PathBuf,
    source: Arc<io::Error>,
}

/// Records that wait to be written, as frames without checksums: those are
/// computed outside of the caller's lock.
struct Buffer {
    frames: Vec<u8>,
    last: Lsn,
}

/// The end of the journal on disk. Lock order: syncing, writer, buffer.
struct Writer {
    /// The segments with something to sync, oldest first; the last is being written to.
    segments: Vec<Segment>,
    /// Where the next batch goes, in bytes.
    offset: u64,
    /// The running checksum.
    chain: u32,
    /// What the last mark said.
    marked: Lsn,
    /// A segment was created whose entry in the folder may not be durable.
    folder_unsynced: bool,
    /// The other half of the double buffer, empty.
    spare: Vec<u8>,
}

#[derive(Clone)]
struct Segment {
    file: Arc<dyn DiskFile>,
    first: Lsn,
}

impl Journal {
    /// Opens the journal on `disk`, making a new one in an empty folder. Hands
    /// what it holds to `visit`, then drops a torn end. Reads each byte once and
    /// keeps at most one record and a small buffer in memory.
    ///
    /// # Errors
    /// A refusal, before anything was changed: the folder is in use, holds
    /// something else or another version, is damaged, or `visit` refused a
    /// record. Or [`JournalError::Io`].
    pub fn open<E>(
        disk: Arc<dyn Disk>,
        options: Options,
        mut visit: impl FnMut(Replay<'_>) -> Result<(), E>,
    ) -> Result<(Self, Recovered), JournalError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        refuse_foreign(&*disk)?;
        disk.lock()?;
        let found = match survey(&*disk, &mut |replay| visit(replay).map_err(Into::into))? {
            Some(found) => found,
            None => create(&*disk, options.id)?,
        };
        let writer = repair(&*disk, &found)?;
        let last = found.recovered.last;
        let journal = Self {
            disk,
            id: found.id,
            segment_bytes: options.segment_bytes,
            buffer: Mutex::new(Buffer {
                frames: Vec::new(),
                last,
            }),
            writer: Mutex::new(writer),
            syncing: Mutex::new(()),
            checkpoint: Mutex::new(found.recovered.checkpoint.unwrap_or_default()),
            wake: Condvar::new(),
            hurried: AtomicBool::new(false),
            rest: Mutex::new(()),
            rest_ends: Condvar::new(),
            appended: AtomicU64::new(last.0),
            written: AtomicU64::new(last.0),
            synced: AtomicU64::new(last.0),
            closed: AtomicBool::new(false),
            failure: OnceLock::new(),
        };
        journal.write_buffer(&mut journal.writer.lock())?;
        Ok((journal, found.recovered))
    }

    /// Takes a record and numbers it. Nothing reaches the file before
    /// [`Journal::write`]; so the caller may hold the lock under which the
    /// record was decided, and the order of records is the order of decisions.
    ///
    /// # Errors
    /// [`JournalError::RecordSize`], [`JournalError::Closed`], [`JournalError::Failed`].
    pub fn append(&self, payload: &[u8]) -> Result<Lsn, JournalError> {
        if !(1..=RECORD_BYTES_MAX).contains(&payload.len()) {
            return Err(JournalError::RecordSize {
                bytes: payload.len(),
            });
        }
        self.check()?;
        let mut buffer = self.buffer.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(JournalError::Closed);
        }
        push_record(&mut buffer.frames, payload);
        buffer.last = buffer.last.next();
        let lsn = buffer.last;
        let is_full = buffer.frames.len() >= BUFFER_BYTES_MAX;
        self.appended.store(lsn.0, Ordering::Release);
        drop(buffer);
        if is_full {
            self.write()?;
        }
        Ok(lsn)
    }

    /// Writes every record appended so far, with one system call for all of
    /// them. Whoever comes first writes for all; the others wait and return.
    /// Returns the last record written.
    ///
    /// # Errors
    /// [`JournalError::Failed`].
    pub fn write(&self) -> Result<Lsn, JournalError> {
        let wanted = self.appended();
        if self.written() < wanted {
            let mut writer = self.writer.lock();
            self.check()?;
            if self.written() < wanted {
                self.write_buffer(&mut writer)?;
            }
        }
        self.check()?;
        Ok(self.written())
    }

    /// Makes every record written so far safe from a power cut. One sync runs
    /// at a time, covering all that was written before it began. Returns the
    /// last record synced.
    ///
    /// # Errors
    /// [`JournalError::Failed`].
    pub fn sync(&self) -> Result<Lsn, JournalError> {
        let wanted = self.written();
        let _one_at_a_time = self.syncing.lock();
        self.check()?;
        if self.synced() >= wanted {
            return Ok(self.synced());
        }
        let (covered, segments, folder_unsynced) = {
            let writer = self.writer.lock();
            (
                self.written(),
                writer.segments.clone(),
                writer.folder_unsynced,
            )
        };
        for Segment { file, first } in &segments {
            file.sync().map_err(|error| {
                self.fail(&self.writer.lock(), "sync", &segment_name(*first), error)
            })?;
        }
        if folder_unsynced {
            let synced = self.disk.sync_folder();
            synced.map_err(|error| self.fail(&self.writer.lock(), "sync folder", "", error))?;
        }
        let mut writer = self.writer.lock();
        // A segment begun in the meantime has not been synced, nor has its entry in the folder.
        writer.folder_unsynced &= writer.segments.len() > segments.len();
        writer.segments.drain(..segments.len() - 1);
        self.synced.store(covered.0, Ordering::Release);
        // The mark goes out at once, so that damage is told from a torn end even if the journal
        // falls silent now. Should it fail, the next call says so; these records are safe.
        let _ = self.write_buffer(&mut writer);
        Ok(covered)
    }

    /// Syncs whenever something has been written, and tells `on_synced` each time how far that
    /// went. The body of a thread of its own; returns after [`Journal::close`].
    ///
    /// `pause` is asked after each sync for the shortest and the longest time until the next; after the first it
    /// comes as soon as [`Journal::hurry`] says so. Syncs without any pause leave least at risk, but each costs
    /// the processor about as much as a hundred small writes, and one per write is what a busy journal then
    /// gets.
    ///
    /// # Errors
    /// [`JournalError::Failed`], as soon as any thread meets a failure.
    pub fn run_syncer(
        &self,
        pause: impl Fn() -> RangeInclusive<Duration>,
        mut on_synced: impl FnMut(Lsn),
    ) -> Result<(), JournalError> {
        let mut told = self.synced();
        loop {
            let mut writer = self.writer.lock();
            loop {
                self.check()?;
                if self.written() > told {
                    break;
                }
                if self.closed.load(Ordering::Acquire) {
                    return Ok(());
                }
                self.wake.wait(&mut writer);
            }
            drop(writer);
            told = self.sync()?;
            on_synced(told);
            // Not on the condition: whoever writes meanwhile has nobody to wake, which is cheaper.
            let (least, most) = pause().into_inner();
            thread::sleep(least);
            self.rest_until(Instant::now() + (most - least));
        }
    }

    /// Somebody waits for what was written before: the next sync comes as soon as the shortest pause is over.
    pub fn hurry(&self) {
        if !self.hurried.swap(true, Ordering::AcqRel) {
            // Under the lock: the syncer has either yet to look or waits already.
            let _rest = self.rest.lock();
            self.rest_ends.notify_one();
        }
    }

    fn rest_until(&self, end: Instant) {
        let mut rest = self.rest.lock();
        while !self.hurried.swap(false, Ordering::AcqRel) && !self.closed.load(Ordering::Acquire) {
            if self.rest_ends.wait_until(&mut rest, end).timed_out() {
                return;
            }
        }
    }

    /// Takes no more records, and writes and syncs those there are. Returns the last.
    ///
    /// # Errors
    /// [`JournalError::Failed`].
    pub fn close(&self) -> Result<Lsn, JournalError> {
        {
            // Under the lock of appends: those before it are written below, those after it refused.
            let _appends_wait = self.buffer.lock();
            self.closed.store(true, Ordering::Release);
        }
        self.hurry();
        self.write()?;
        let last = self.sync()?;
        // Once more, for the mark that follows the last sync.
        let _one_at_a_time = self.syncing.lock();
        let Segment { file, first } = self.writer.lock().current().clone();
        let synced = file.sync();
        let writer = self.writer.lock();
        synced.map_err(|error| self.fail(&writer, "sync", &segment_name(first), error))?;
        self.notify(&writer);
        Ok(last)
    }

    /// Writes the state after record `at` as the place where recovery begins,
    /// then removes the segments that are no longer needed. `records` are
    /// pieces of that state, each of 1 to [`RECORD_BYTES_MAX`] bytes, and are
    /// drawn one by one while other threads go on appending. Does nothing when
    /// the newest checkpoint is as new as `at`.
    ///
    /// A crash at any moment leaves the old checkpoint or the new one. An error
    /// leaves the journal running, unless it is [`JournalError::Failed`].
    ///
    /// # Errors
    /// [`JournalError::CheckpointAhead`], [`JournalError::RecordSize`],
    /// [`JournalError::Io`], [`JournalError::Failed`].
    pub fn checkpoint<R: AsRef<[u8]>>(
        &self,
        at: Lsn,
        records: impl IntoIterator<Item = R>,
    ) -> Result<(), JournalError> {
        let mut newest = self.checkpoint.lock();
        self.check()?;
        if at > self.appended() {
            return Err(JournalError::CheckpointAhead {
                at,
                last: self.appended(),
            });
        }
        if at <= *newest {
            return Ok(());
        }
        // The checkpoint must never know more than the segments before it.
        self.write()?;
        self.sync()?;
        if let Err(error) = self.checkpoint_write(at, &mut records.into_iter()) {
            // Given up, and its space given back; the next attempt removes it in any case.
            let _ = self.disk.remove(TEMPORARY_NAME);
            return Err(error);
        }
        let disk = &*self.disk;
        disk.rename(TEMPORARY_NAME, &checkpoint_name(at))
            .map_err(|error| in_file(disk, "rename to", &checkpoint_name(at), error))?;
        disk.sync_folder()
            .map_err(|error| in_file(disk, "sync folder", "", error))?;
        *newest = at;
        self.checkpoint_clean(at)
    }

    fn checkpoint_write<R: AsRef<[u8]>>(
        &self,
        at: Lsn,
        records: &mut dyn Iterator<Item = R>,
    ) -> Result<(), JournalError> {
        let disk = &*self.disk;
        let file = create_temporary(disk)?;
        let failed = |error| in_file(disk, "write", TEMPORARY_NAME, error);
        let header = CheckpointHeader { id: self.id, at }.encode();
        let mut chain = header_crc(&header);
        let mut bytes = header.to_vec();
        let (mut offset, mut count) = (0, 0);
        // The bytes up to here need no checksum any more.
        let mut sealed = bytes.len();
        for record in records {
            let record = record.as_ref();
            if !(1..=RECORD_BYTES_MAX).contains(&record.len()) {
                return Err(JournalError::RecordSize {
                    bytes: record.len(),
                });
            }
            push_record(&mut bytes, record);
            count += 1;
            chain = seal_records(&mut bytes[sealed..], count, chain);
            sealed = bytes.len();
            if bytes.len() >= CHUNK_BYTES {
                file.write_at(offset, &bytes).map_err(failed)?;
                offset += bytes.len() as u64;
                bytes.clear();
                sealed = 0;
            }
        }
        bytes.extend_from_slice(&encode_end(chain, count));
        file.write_at(offset, &bytes).map_err(failed)?;
        file.sync().map_err(failed)
    }

    /// Removes what the checkpoint at `at` made superfluous. A crash half way
    /// leaves files that recovery passes over and the next checkpoint removes.
    fn checkpoint_clean(&self, at: Lsn) -> Result<(), JournalError> {
        let disk = &*self.disk;
        let names = disk
            .list()
            .map_err(|error| in_file(disk, "list", "", error))?;
        let (segments, checkpoints) = sort_names(&names);
        // A segment goes when its successor holds a covered record: that one has been synced, so
        // recovery finds a sound header to begin with.
        let old_segments = segments
            .windows(2)
            .filter(|pair| pair[1] <= at)
            .map(|pair| segment_name(pair[0]));
        let old_checkpoints = checkpoints
            .iter()
            .filter(|old| **old < at)
            .map(|old| checkpoint_name(*old));
        for name in old_checkpoints.chain(old_segments) {
            disk.remove(&name)
                .map_err(|error| in_file(disk, "remove", &name, error))?;
        }
        Ok(())
    }

    /// The last record appended.
    pub fn appended(&self) -> Lsn {
        Lsn(self.appended.load(Ordering::Acquire))
    }

    /// The last record that survives the death of the process.
    pub fn written(&self) -> Lsn {
        Lsn(self.written.load(Ordering::Acquire))
    }

    /// The last record that survives a power cut.
    pub fn synced(&self) -> Lsn {
        Lsn(self.synced.load(Ordering::Acquire))
    }

    /// Writes the buffered records, and a mark when there is news of the last sync.
    fn write_buffer(&self, writer: &mut Writer) -> Result<(), JournalError> {
        self.check()?;
        let mut bytes = mem::take(&mut writer.spare);
        let last = {
            let mut buffer = self.buffer.lock();
            mem::swap(&mut buffer.frames, &mut bytes);
            buffer.last
        };
        let first = self.written().next();
        let is_used = first > writer.current().first;
        if !bytes.is_empty() && is_used && writer.offset >= self.segment_bytes {
            self.rotate(writer, first)?;
        }
        writer.chain = seal_records(&mut bytes, first.0, writer.chain);
        let synced = self.synced();
        if synced > writer.marked {
            bytes.extend_from_slice(
                &Mark {
                    synced,
                    next: last.next(),
                }
                .encode(self.id),
            );
            writer.marked = synced;
        }
        if !bytes.is_empty() {
            let Segment { file, first } = writer.current();
            if let Err(error) = file.write_at(writer.offset, &bytes) {
                // A full disk may have taken some of the records. With them gone the file ends where
                // [`Journal::written`] says, and nobody has to guess which of them come back.
                let _ = file.truncate(writer.offset);
                return Err(self.fail(writer, "write", &segment_name(*first), error));
            }
            writer.offset += bytes.len() as u64;
            bytes.clear();
        }
        writer.spare = bytes;
        if last >= first {
            self.written.store(last.0, Ordering::Release);
            self.notify(writer);
        }
        Ok(())
    }

    /// Begins the next segment without waiting for the disk: its predecessor is
    /// synced before it, by the next sync.
    fn rotate(&self, writer: &mut Writer, first: Lsn) -> Result<(), JournalError> {
        let name = segment_name(first);
        let synced = self.synced();
        let header = SegmentHeader {
            id: self.id,
            first,
            synced,
            chain: writer.chain,
        }
        .encode();
        let file = self
            .disk
            .create(&name)
            .and_then(|file| file.write_at(0, &header).map(|()| file))
            .map_err(|error| self.fail(writer, "create", &name, error))?;
        writer.segments.push(Segment { file, first });
        writer.offset = SEGMENT_HEADER_BYTES as u64;
        writer.chain = header_crc(&header);
        writer.marked = synced;
        writer.folder_unsynced = true;
        Ok(())
    }

    fn check(&self) -> Result<(), JournalError> {
        self.failure
            .get()
            .map_or(Ok(()), |failure| Err(failure.to_error()))
    }

    /// Stops the journal for good. The first failure is the one that is told.
    fn fail(
        &self,
        locked: &Writer,
        doing: &'static str,
        name: &str,
        error: io::Error,
    ) -> JournalError {
        let path = self.disk.folder().join(name);
        let failure = Failure {
            doing,
            path,
            source: Arc::new(error),
        };
        let error = self.failure.get_or_init(|| failure).to_error();
        self.notify(locked);
        error
    }

    /// Wakes the syncer. Who holds the writer knows that it is either waiting or has yet to look.
    fn notify(&self, _locked: &Writer) {
        self.wake.notify_all();
    }
}

impl Writer {
    fn current(&self) -> &Segment {
        self.segments
            .last()
            .expect("the segment being written to is never taken out")
    }
}

impl Failure {
    fn to_error(&self) -> JournalError {
        let Self {
            doing,
            path,
            source,
        } = self;
        JournalError::Failed {
            doing,
            path: path.clone(),
            source: Arc::clone(source),
        }
    }
}

/// Refuses a folder that serves another purpose.
fn refuse_foreign(disk: &dyn Disk) -> Result<(), JournalError> {
    let names = disk
        .list()
        .map_err(|error| in_file(disk, "list journal folder", "", error))?;
    let (segments, checkpoints) = sort_names(&names);
    if !segments.is_empty() || !checkpoints.is_empty() {
        return Ok(());
    }
    // A journal may have died while it was being made.
    match names
        .into_iter()
        .find(|name| name != LOCK_NAME && name != TEMPORARY_NAME)
    {
        Some(entry) => Err(JournalError::NotAJournal {
            folder: disk.folder().to_owned(),
            entry,
        }),
        None => Ok(()),
    }
}

/// Makes a journal without records.
fn create(disk: &dyn Disk, id: u64) -> Result<Survey, JournalError> {
    let first = Lsn(1);
    let header = SegmentHeader {
        id,
        first,
        synced: Lsn(0),
        chain: 0,
    }
    .encode();
    let name = segment_name(first);
    let file = create_temporary(disk)?;
    file.write_at(0, &header)
        .and_then(|()| file.sync())
        .and_then(|()| disk.rename(TEMPORARY_NAME, &name))
        .and_then(|()| disk.sync_folder())
        .map_err(|error| in_file(disk, "create", &name, error))?;
    // What it says is read back rather than assumed.
    survey(disk, &mut |_| Ok(()))?.ok_or_else(|| {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        in_file(disk, "find the new", &name, missing)
    })
}

fn create_temporary(disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, JournalError> {
    match disk.remove(TEMPORARY_NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(in_file(disk, "remove", TEMPORARY_NAME, error));
        }
        Ok(()) | Err(_) => {}
    }
    disk.create(TEMPORARY_NAME)
        .map_err(|error| in_file(disk, "create", TEMPORARY_NAME, error))
}

/// Makes the disk hold exactly what was recovered, all of it synced, and takes the pen.
fn repair(disk: &dyn Disk, found: &Survey) -> Result<Writer, JournalError> {
    // A torn end goes for good before anything is written in its place. Otherwise the next crash
    // could bring it back, and complete it with pieces of a new record that happen to be the same.
    for first in found.dropped.iter().rev() {
        let name = segment_name(*first);
        disk.remove(&name)
            .map_err(|error| in_file(disk, "remove", &name, error))?;
    }
    if !found.dropped.is_empty() {
        disk.sync_folder()
            .map_err(|error| in_file(disk, "sync folder", "", error))?;
    }

    // Whatever follows the last record covered by a mark may be here only in the system's memory:
    // after a failed sync it keeps the bytes, yet takes them for written. Writing them once more
    // leaves no doubt. Where all records are covered, the next sync sees to the mark itself.
    let unmarked = found.synced.next();
    let rewrites = found.recovered.last >= unmarked;
    let begin = found
        .kept
        .partition_point(|kept| kept.first < unmarked)
        .saturating_sub(1);
    let mut segments = Vec::new();
    let mut offset = 0;
    for kept in &found.kept[begin..] {
        let name = segment_name(kept.first);
        let failed = |error| in_file(disk, "repair", &name, error);
        let file = disk.open(&name).map_err(failed)?;
        if file.size().map_err(failed)? > kept.end {
            file.truncate(kept.end)
                .and_then(|()| file.sync())
                .map_err(failed)?;
        }
        if rewrites {
            let from = if kept.first < unmarked {
                offset_of(disk, kept, unmarked)?
            } else {
                0
            };
            rewrite(&*file, from, kept.end).map_err(failed)?;
        }
        segments.push(Segment {
            file,
            first: kept.first,
        });
        offset = kept.end;
    }
    if rewrites {
        disk.sync_folder()
            .map_err(|error| in_file(disk, "sync folder", "", error))?;
    }
    Ok(Writer {
        segments,
        offset,
        chain: found.chain,
        marked: found.synced,
        // Their entries may be as unsynced as their content was.
        folder_unsynced: true,
        spare: Vec::new(),
    })
}

/// Writes a part of a file once more as it is, and syncs it.
fn rewrite(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK_BYTES];
    let mut offset = from;
    while offset < to {
        let count = usize::try_from(to - offset)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        file.read_at(offset, &mut bytes[..count])?;
        file.write_at(offset, &bytes[..count])?;
        offset += count as u64;
    }
    file.sync()
}

fn in_file(disk: &dyn Disk, doing: &'static str, name: &str, source: io::Error) -> JournalError {
    JournalError::Io {
        doing,
        path: disk.folder().join(name),
        source,
    }
}
