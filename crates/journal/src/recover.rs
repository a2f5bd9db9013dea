//! Reading a journal back. Nothing here writes.
//!
//! A journal is sound up to the first byte that does not verify. What follows
//! is either the unsynced end of a journal that lost power, in which case it is
//! to be dropped, or damage to something that was safe, in which case dropping
//! it would lose money in silence. The marks tell the two apart: each says how
//! far the journal had been synced when it was written, so a mark anywhere
//! behind the break that covers the broken record turns it into a refusal.

use crate::{
    Disk, DiskFile, FORMAT_VERSION, JournalError, Lsn, RECORD_BYTES_MAX,
    format::{
        CHECKPOINT_HEADER_BYTES, CheckpointHeader, END_BYTES, END_TAG, FRAME_HEAD_BYTES,
        HeaderFault, MARK_BYTES, MARK_TAG, Mark, SEGMENT_HEADER_BYTES, SegmentHeader,
        checkpoint_name, encode_end, header_crc, record_crc, segment_name, sort_names, u32_at,
    },
};
use std::{error::Error, path::PathBuf, sync::Arc};

/// How much of a file is read at a time, in bytes.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// What recovery hands to the caller, in this order: the records of the newest
/// checkpoint, then the records after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay<'a> {
    /// A piece of the state, as given to [`crate::Journal::checkpoint`].
    Checkpoint {
        /// The last record whose effect the state holds.
        at: Lsn,
        /// The piece.
        record: &'a [u8],
    },
    /// A record, as given to [`crate::Journal::append`].
    Record {
        /// Its number.
        lsn: Lsn,
        /// Its bytes.
        payload: &'a [u8],
    },
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The newest checkpoint.
    pub checkpoint: Option<Lsn>,
    /// The last record; 0 when there is none yet.
    pub last: Lsn,
    /// An unsynced end that did not reach the disk whole, and was dropped.
    pub torn: Option<Torn>,
}

/// An end of a journal that was cut off by a power cut or a kill, and never synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file in which it begins.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How much was dropped, in bytes, in this file and those after it.
    pub bytes: u64,
    /// What was wrong.
    pub reason: &'static str,
}

/// Reads a journal as [`crate::Journal::open`] would, without taking its lock and without changing
/// anything. Beside a running node the end may be seen torn.
///
/// # Errors
/// Those of an open, except [`JournalError::InUse`].
pub fn inspect<E>(
    disk: &dyn Disk,
    mut visit: impl FnMut(Replay<'_>) -> Result<(), E>,
) -> Result<Recovered, JournalError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let survey = survey(disk, &mut |replay| visit(replay).map_err(Into::into))?;
    Ok(survey.map(|survey| survey.recovered).unwrap_or_default())
}

/// All that is needed to go on with a journal.
pub(crate) struct Survey {
    pub(crate) recovered: Recovered,
    pub(crate) id: u64,
    /// The segments to go on with, the last of them the one to append to.
    pub(crate) kept: Vec<Kept>,
    /// Segments behind a torn end.
    pub(crate) dropped: Vec<Lsn>,
    /// The running checksum at the end.
    pub(crate) chain: u32,
    /// The last record known to be synced.
    pub(crate) synced: Lsn,
}

pub(crate) struct Kept {
    pub(crate) first: Lsn,
    /// Where the sound part ends, in bytes.
    pub(crate) end: u64,
}

type Visit<'a> = dyn FnMut(Replay<'_>) -> Result<(), Box<dyn Error + Send + Sync>> + 'a;

/// Reads everything, handing records to `visit`; `None` when there is no journal.
pub(crate) fn survey(
    disk: &dyn Disk,
    visit: &mut Visit<'_>,
) -> Result<Option<Survey>, JournalError> {
    let names = disk.list().map_err(|source| JournalError::Io {
        doing: "list journal folder",
        path: disk.folder().to_owned(),
        source,
    })?;
    let (segments, checkpoints) = sort_names(&names);
    if segments.is_empty() && checkpoints.is_empty() {
        return Ok(None);
    }
    let mut walk = Walk {
        disk,
        visit,
        id: None,
        checkpoint: Lsn(0),
        next: Lsn(1),
        chain: 0,
        synced: Lsn(0),
    };
    if let Some(at) = checkpoints.last() {
        walk.checkpoint(*at)?;
    }

    // Earlier segments are wholly covered by the checkpoint, and left over from its last step.
    let after = segments.partition_point(|first| *first <= walk.checkpoint.max(Lsn(1)));
    let Some(start) = after.checked_sub(1) else {
        let path = segments.first().copied().unwrap_or(Lsn(1));
        return Err(walk.damaged(segment_name(path), 0, "an earlier segment is missing"));
    };
    let segments = &segments[start..];
    walk.next = segments[0];

    let mut kept: Vec<Kept> = Vec::new();
    let mut torn = None;
    for (index, first) in segments.iter().enumerate() {
        let end = walk.segment(*first, index == 0)?;
        let whole_header = end.offset > 0;
        if whole_header {
            kept.push(Kept {
                first: *first,
                end: end.offset,
            });
        }
        if let Some(reason) = end.broken {
            // The first segment's header was synced before anything depended on it.
            if kept.is_empty() {
                return Err(walk.damaged(segment_name(*first), end.offset, reason));
            }
            let behind = walk.behind(&segments[index..], end.offset)?;
            walk.synced = walk.synced.max(behind.synced);
            if walk.synced >= walk.next {
                return Err(walk.damaged(segment_name(*first), end.offset, reason));
            }
            torn = Some(Torn {
                path: disk.folder().join(segment_name(*first)),
                offset: end.offset,
                bytes: behind.bytes,
                reason,
            });
            break;
        }
    }
    let dropped = segments[kept.len()..].to_vec();
    if walk.synced >= walk.next {
        let last = kept.last().map_or(segments[0], |kept| kept.first);
        let end = kept.last().map_or(0, |kept| kept.end);
        return Err(walk.damaged(segment_name(last), end, "the end is missing"));
    }
    let Some(id) = walk.id else {
        unreachable!("a segment was read, and its header names the journal");
    };
    let recovered = Recovered {
        checkpoint: checkpoints.last().copied(),
        last: Lsn(walk.next.0 - 1),
        torn,
    };
    Ok(Some(Survey {
        recovered,
        id,
        kept,
        dropped,
        chain: walk.chain,
        synced: walk.synced,
    }))
}

/// Where record `lsn` begins in the sound part of a segment that holds it.
pub(crate) fn offset_of(disk: &dyn Disk, segment: &Kept, lsn: Lsn) -> Result<u64, JournalError> {
    let name = segment_name(segment.first);
    let mut reader = Reader::open(disk, &name)?;
    reader.skip(SEGMENT_HEADER_BYTES as u64);
    let mut number = segment.first;
    while number < lsn {
        let Some(head) = reader.peek(FRAME_HEAD_BYTES)? else {
            break;
        };
        let is_mark = head[..4] == MARK_TAG;
        let bytes = if is_mark {
            MARK_BYTES
        } else {
            FRAME_HEAD_BYTES + u32_at(head, 0) as usize
        };
        reader.skip(bytes as u64);
        if !is_mark {
            number = number.next();
        }
    }
    Ok(reader.offset)
}

/// Where reading stands.
struct Walk<'a, 'v> {
    disk: &'a dyn Disk,
    visit: &'a mut Visit<'v>,
    id: Option<u64>,
    checkpoint: Lsn,
    next: Lsn,
    chain: u32,
    synced: Lsn,
}

/// How far a segment is sound.
struct SegmentEnd {
    offset: u64,
    broken: Option<&'static str>,
}

/// What stands behind a break.
struct Behind {
    synced: Lsn,
    bytes: u64,
}

impl Walk<'_, '_> {
    fn checkpoint(&mut self, at: Lsn) -> Result<(), JournalError> {
        let name = checkpoint_name(at);
        let mut reader = Reader::open(self.disk, &name)?;
        let Some(header) = reader.peek(CHECKPOINT_HEADER_BYTES)? else {
            return Err(self.damaged(name, 0, "the header is cut off"));
        };
        let header = header.first_chunk().expect("as many bytes as asked for");
        let mut chain = header_crc(header);
        let header = match CheckpointHeader::decode(header) {
            Ok(header) => header,
            Err(HeaderFault::Version(found)) => return Err(self.version(&name, found)),
            Err(HeaderFault::Unreadable(reason)) => return Err(self.damaged(name, 0, reason)),
        };
        if header.at != at {
            return Err(self.damaged(name, 0, "the name does not fit the header"));
        }
        reader.skip(CHECKPOINT_HEADER_BYTES as u64);
        self.id = Some(header.id);
        self.checkpoint = at;
        self.synced = at;
        self.next = at.next();

        let mut count = 0;
        loop {
            let offset = reader.offset;
            match reader.frame(chain, count + 1)? {
                Frame::Record { crc, payload } => {
                    chain = crc;
                    count += 1;
                    let replay = Replay::Checkpoint {
                        at,
                        record: payload,
                    };
                    (self.visit)(replay).map_err(|source| JournalError::Replay {
                        path: self.disk.folder().join(&name),
                        after: Lsn(0),
                        source,
                    })?;
                }
                Frame::Tagged(END_TAG) => {
                    let last = reader.peek(END_BYTES)? == Some(&encode_end(chain, count));
                    if !last || reader.left() != END_BYTES as u64 {
                        return Err(self.damaged(name, offset, "the end does not fit"));
                    }
                    return Ok(());
                }
                Frame::Tagged(_) => return Err(self.damaged(name, offset, "unknown frame")),
                Frame::Nothing => return Err(self.damaged(name, offset, "the end is cut off")),
                Frame::Broken(reason) => return Err(self.damaged(name, offset, reason)),
            }
        }
    }

    /// Reads one segment up to its end or to where it is broken.
    fn segment(&mut self, first: Lsn, is_start: bool) -> Result<SegmentEnd, JournalError> {
        let name = segment_name(first);
        let mut reader = Reader::open(self.disk, &name)?;
        let broken_header = |reason| {
            Ok(SegmentEnd {
                offset: 0,
                broken: Some(reason),
            })
        };
        let Some(bytes) = reader.peek(SEGMENT_HEADER_BYTES)? else {
            return broken_header("the header is cut off");
        };
        let bytes = bytes.first_chunk().expect("as many bytes as asked for");
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) => header,
            Err(HeaderFault::Version(found)) => return Err(self.version(&name, found)),
            Err(HeaderFault::Unreadable(reason)) => return broken_header(reason),
        };
        if *self.id.get_or_insert(header.id) != header.id {
            return Err(self.damaged(name, 0, "it belongs to another journal"));
        }
        if header.first != first || header.synced >= first {
            return broken_header("the name does not fit the header");
        }
        if first != self.next || (!is_start && header.chain != self.chain) {
            return broken_header("it does not follow the segment before");
        }
        self.chain = header_crc(bytes);
        self.synced = self.synced.max(header.synced);
        reader.skip(SEGMENT_HEADER_BYTES as u64);
        loop {
            let offset = reader.offset;
            let broken = match reader.frame(self.chain, self.next.0)? {
                Frame::Record { crc, payload } => {
                    if self.next > self.checkpoint {
                        let replay = Replay::Record {
                            lsn: self.next,
                            payload,
                        };
                        (self.visit)(replay).map_err(|source| JournalError::Replay {
                            path: self.disk.folder().join(&name),
                            after: Lsn(self.next.0 - 1),
                            source,
                        })?;
                    }
                    self.chain = crc;
                    self.next = self.next.next();
                    continue;
                }
                Frame::Tagged(MARK_TAG) => {
                    let mark = reader
                        .peek(MARK_BYTES)?
                        .and_then(|bytes| Mark::decode(header.id, bytes));
                    if let Some(mark) = mark.filter(|mark| mark.next == self.next) {
                        self.synced = self.synced.max(mark.synced);
                        reader.skip(MARK_BYTES as u64);
                        continue;
                    }
                    Some("a mark does not verify")
                }
                Frame::Tagged(_) => Some("the length is out of range"),
                Frame::Broken(reason) => Some(reason),
                Frame::Nothing => None,
            };
            return Ok(SegmentEnd { offset, broken });
        }
    }

    /// How far the journal was synced, by all that can be read behind `offset` of the first segment.
    fn behind(&self, segments: &[Lsn], mut offset: u64) -> Result<Behind, JournalError> {
        let mut behind = Behind {
            synced: Lsn(0),
            bytes: 0,
        };
        let Some(id) = self.id else {
            unreachable!("a header was read before anything could break");
        };
        for first in segments {
            let name = segment_name(*first);
            let mut reader = Reader::open(self.disk, &name)?;
            reader.skip(offset);
            behind.bytes += reader.left();
            if offset == 0
                && let Some(bytes) = reader.peek(SEGMENT_HEADER_BYTES)?
            {
                let bytes = bytes.first_chunk().expect("as many bytes as asked for");
                match SegmentHeader::decode(bytes) {
                    Ok(header) if header.id == id => {
                        behind.synced = behind.synced.max(header.synced);
                    }
                    Err(HeaderFault::Version(found)) => return Err(self.version(&name, found)),
                    Ok(_) | Err(HeaderFault::Unreadable(_)) => {}
                }
            }
            reader.each_mark(id, |mark| behind.synced = behind.synced.max(mark.synced))?;
            offset = 0;
        }
        Ok(behind)
    }

    fn damaged(&self, name: String, offset: u64, reason: &'static str) -> JournalError {
        JournalError::Damaged {
            path: self.disk.folder().join(name),
            offset,
            reason,
            next: self.next,
            synced: self.synced,
        }
    }

    fn version(&self, name: &str, found: u32) -> JournalError {
        let path = self.disk.folder().join(name);
        JournalError::Version {
            path,
            found,
            expected: FORMAT_VERSION,
        }
    }
}

/// The next thing in a file.
enum Frame<'a> {
    Record {
        crc: u32,
        payload: &'a [u8],
    },
    /// Something other than a record; the reader still stands before it.
    Tagged([u8; 4]),
    /// The end of the file.
    Nothing,
    /// Not a frame; the reader still stands before it.
    Broken(&'static str),
}

/// Reads a file from front to back.
struct Reader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    size: u64,
    offset: u64,
    /// A piece of the file, of which `buffer[start..]` begins at `offset`.
    buffer: Vec<u8>,
    start: usize,
}

impl Reader {
    fn open(disk: &dyn Disk, name: &str) -> Result<Self, JournalError> {
        let path = disk.folder().join(name);
        let opened = disk.open(name).and_then(|file| Ok((file.size()?, file)));
        match opened {
            Ok((size, file)) => Ok(Self {
                file,
                path,
                size,
                offset: 0,
                buffer: Vec::new(),
                start: 0,
            }),
            Err(source) => Err(JournalError::Io {
                doing: "open",
                path,
                source,
            }),
        }
    }

    fn left(&self) -> u64 {
        self.size - self.offset
    }

    /// The next `count` bytes, or `None` when fewer are left.
    fn peek(&mut self, count: usize) -> Result<Option<&[u8]>, JournalError> {
        if self.left() < count as u64 {
            return Ok(None);
        }
        if self.buffer.len() - self.start < count {
            self.buffer.drain(..self.start);
            self.start = 0;
            let have = self.buffer.len();
            let left = usize::try_from(self.left()).unwrap_or(usize::MAX);
            self.buffer.resize(left.min(CHUNK_BYTES.max(count)), 0);
            let offset = self.offset + have as u64;
            if let Err(source) = self.file.read_at(offset, &mut self.buffer[have..]) {
                return Err(JournalError::Io {
                    doing: "read",
                    path: self.path.clone(),
                    source,
                });
            }
        }
        Ok(Some(&self.buffer[self.start..self.start + count]))
    }

    /// Moves on, at most to the end.
    fn skip(&mut self, count: u64) {
        let count = count.min(self.left());
        self.offset += count;
        let buffered = self.buffer.len() - self.start;
        self.start += usize::try_from(count).map_or(buffered, |count| count.min(buffered));
    }

    /// The next frame, moving past it when it is a record that verifies.
    fn frame(&mut self, chain: u32, number: u64) -> Result<Frame<'_>, JournalError> {
        if self.left() == 0 {
            return Ok(Frame::Nothing);
        }
        let Some(head) = self.peek(FRAME_HEAD_BYTES)? else {
            return Ok(Frame::Broken("a record is cut off"));
        };
        let (tag, crc) = ([head[0], head[1], head[2], head[3]], u32_at(head, 4));
        let bytes = match tag {
            MARK_TAG | END_TAG => return Ok(Frame::Tagged(tag)),
            length => u32::from_le_bytes(length) as usize,
        };
        if !(1..=RECORD_BYTES_MAX).contains(&bytes) {
            return Ok(Frame::Broken("the length is out of range"));
        }
        let Some(frame) = self.peek(FRAME_HEAD_BYTES + bytes)? else {
            return Ok(Frame::Broken("a record is cut off"));
        };
        if record_crc(chain, number, &frame[FRAME_HEAD_BYTES..]) != crc {
            return Ok(Frame::Broken("a record's checksum does not match"));
        }
        let payload = self.start + FRAME_HEAD_BYTES;
        self.skip((FRAME_HEAD_BYTES + bytes) as u64);
        Ok(Frame::Record {
            crc,
            payload: &self.buffer[payload..payload + bytes],
        })
    }

    /// Finds the marks in the rest of the file, wherever they begin.
    fn each_mark(&mut self, id: u64, mut found: impl FnMut(Mark)) -> Result<(), JournalError> {
        loop {
            let window = usize::try_from(self.left())
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            let Some(bytes) = self.peek(window)? else {
                return Ok(());
            };
            bytes
                .windows(MARK_BYTES)
                .filter_map(|at| Mark::decode(id, at))
                .for_each(&mut found);
            if window < CHUNK_BYTES {
                return Ok(());
            }
            // A mark may reach into the next window.
            self.skip((CHUNK_BYTES - MARK_BYTES + 1) as u64);
        }
    }
}
