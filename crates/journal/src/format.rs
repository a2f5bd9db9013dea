//! The bytes of the files (docs/design/journal.md): headers, frames, names, checksums.
//! All integers are little-endian.

use crate::Lsn;
use crc32c::{crc32c, crc32c_append};

/// The version of the file format.
pub const FORMAT_VERSION: u32 = 1;

/// The largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Name of the lock file, which holds the process id of the holder.
pub(crate) const LOCK_NAME: &str = "lock";

/// Name of a file that is being made and means nothing until it is renamed.
pub(crate) const TEMPORARY_NAME: &str = "temporary";

/// Bytes in front of a record's payload, and of the body of any other frame: length or tag, checksum.
pub(crate) const FRAME_HEAD_BYTES: usize = 8;

/// Stands where a record has its length. Larger than any length, so the two cannot be confused.
pub(crate) const MARK_TAG: [u8; 4] = *b"MARK";
pub(crate) const MARK_BYTES: usize = FRAME_HEAD_BYTES + 16;

/// Closes a checkpoint.
pub(crate) const END_TAG: [u8; 4] = *b"DONE";
pub(crate) const END_BYTES: usize = FRAME_HEAD_BYTES + 8;

const SEGMENT_MAGIC: [u8; 8] = *b"RIALTOSG";
const CHECKPOINT_MAGIC: [u8; 8] = *b"RIALTOCP";
pub(crate) const SEGMENT_HEADER_BYTES: usize = 44;
pub(crate) const CHECKPOINT_HEADER_BYTES: usize = 32;

const _: () = assert!(RECORD_BYTES_MAX < u32::from_le_bytes(MARK_TAG) as usize);
const _: () = assert!(RECORD_BYTES_MAX < u32::from_le_bytes(END_TAG) as usize);

/// What is wrong with a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Unreadable(&'static str),
    Version(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The journal's own number, the same in all its files.
    pub(crate) id: u64,
    /// The number of the segment's first record.
    pub(crate) first: Lsn,
    /// The last record known to be synced when the segment was begun.
    pub(crate) synced: Lsn,
    /// The running checksum at the end of the segment before; 0 in the first.
    pub(crate) chain: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.chain.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced.0.to_le_bytes());
        let crc = crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderFault> {
        decode_header(bytes, &SEGMENT_MAGIC)?;
        Ok(Self {
            chain: u32_at(bytes, 12),
            id: u64_at(bytes, 16),
            first: Lsn(u64_at(bytes, 24)),
            synced: Lsn(u64_at(bytes, 32)),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    pub(crate) id: u64,
    /// The last record whose effect the checkpoint holds.
    pub(crate) at: Lsn,
}

impl CheckpointHeader {
    pub(crate) fn encode(&self) -> [u8; CHECKPOINT_HEADER_BYTES] {
        let mut bytes = [0; CHECKPOINT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&CHECKPOINT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.id.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.at.0.to_le_bytes());
        let crc = crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; CHECKPOINT_HEADER_BYTES]) -> Result<Self, HeaderFault> {
        decode_header(bytes, &CHECKPOINT_MAGIC)?;
        Ok(Self {
            id: u64_at(bytes, 12),
            at: Lsn(u64_at(bytes, 20)),
        })
    }
}

/// What the two kinds of header have in common: magic, version, and a checksum at the end.
fn decode_header(bytes: &[u8], magic: &[u8; 8]) -> Result<(), HeaderFault> {
    if bytes[..8] != *magic {
        return Err(HeaderFault::Unreadable("not a file of this kind"));
    }
    // The version comes before the checksum: another version may have it elsewhere.
    let version = u32_at(bytes, 8);
    if version != FORMAT_VERSION {
        return Err(HeaderFault::Version(version));
    }
    if header_crc(bytes) != crc32c(&bytes[..bytes.len() - 4]) {
        return Err(HeaderFault::Unreadable("header checksum does not match"));
    }
    Ok(())
}

/// The checksum in an encoded header, with which the running checksum of its file starts.
pub(crate) fn header_crc(header: &[u8]) -> u32 {
    u32_at(header, header.len() - 4)
}

/// The running checksum after one more record: CRC-32C of everything before, then
/// number, length and payload.
pub(crate) fn record_crc(chain: u32, number: u64, payload: &[u8]) -> u32 {
    let mut head = [0; 12];
    head[..8].copy_from_slice(&number.to_le_bytes());
    head[8..].copy_from_slice(&length_field(payload));
    crc32c_append(crc32c_append(chain, &head), payload)
}

fn length_field(payload: &[u8]) -> [u8; 4] {
    let length =
        u32::try_from(payload.len()).expect("a payload has at most RECORD_BYTES_MAX bytes");
    length.to_le_bytes()
}

/// Adds the frame of a record, its checksum still missing (see [`seal_records`]).
pub(crate) fn push_record(frames: &mut Vec<u8>, payload: &[u8]) {
    let [a, b, c, d] = length_field(payload);
    frames.extend_from_slice(&[a, b, c, d, 0, 0, 0, 0]);
    frames.extend_from_slice(payload);
}

/// Fills in the checksums of frames made by [`push_record`], the first of them
/// being record `number`; returns the running checksum after the last.
pub(crate) fn seal_records(frames: &mut [u8], mut number: u64, mut chain: u32) -> u32 {
    let mut rest = frames;
    while !rest.is_empty() {
        let end = FRAME_HEAD_BYTES + u32_at(rest, 0) as usize;
        let (frame, after) = rest.split_at_mut(end);
        chain = record_crc(chain, number, &frame[FRAME_HEAD_BYTES..]);
        frame[4..FRAME_HEAD_BYTES].copy_from_slice(&chain.to_le_bytes());
        number += 1;
        rest = after;
    }
    chain
}

/// A statement inside a segment: the next record is `next`, and all up to
/// `synced` were on disk for good before this was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) synced: Lsn,
    pub(crate) next: Lsn,
}

impl Mark {
    pub(crate) fn encode(&self, id: u64) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..4].copy_from_slice(&MARK_TAG);
        bytes[8..16].copy_from_slice(&self.synced.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.next.0.to_le_bytes());
        let crc = mark_crc(id, &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The mark in these bytes, if that is what they are. Needs nothing but the
    /// journal's id, so that marks can be found behind damage.
    pub(crate) fn decode(id: u64, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<MARK_BYTES>()?;
        if bytes[..4] != MARK_TAG || u32_at(bytes, 4) != mark_crc(id, &bytes[8..]) {
            return None;
        }
        let mark = Self {
            synced: Lsn(u64_at(bytes, 8)),
            next: Lsn(u64_at(bytes, 16)),
        };
        (mark.synced < mark.next).then_some(mark)
    }
}

fn mark_crc(id: u64, body: &[u8]) -> u32 {
    crc32c_append(crc32c_append(crc32c(&id.to_le_bytes()), &MARK_TAG), body)
}

/// The frame that closes a checkpoint of `count` records.
pub(crate) fn encode_end(chain: u32, count: u64) -> [u8; END_BYTES] {
    let mut bytes = [0; END_BYTES];
    bytes[..4].copy_from_slice(&END_TAG);
    bytes[4..8].copy_from_slice(&end_crc(chain, count).to_le_bytes());
    bytes[8..].copy_from_slice(&count.to_le_bytes());
    bytes
}

fn end_crc(chain: u32, count: u64) -> u32 {
    crc32c_append(crc32c_append(chain, &END_TAG), &count.to_le_bytes())
}

const SEGMENT_SUFFIX: &str = ".segment";
const CHECKPOINT_SUFFIX: &str = ".checkpoint";
const NUMBER_DIGITS: usize = 20;

/// The name of the segment that begins with a record.
pub(crate) fn segment_name(first: Lsn) -> String {
    format!("{first:0>NUMBER_DIGITS$}{SEGMENT_SUFFIX}", first = first.0)
}

/// The name of the checkpoint at a record.
pub(crate) fn checkpoint_name(at: Lsn) -> String {
    format!("{at:0>NUMBER_DIGITS$}{CHECKPOINT_SUFFIX}", at = at.0)
}

/// The segments and checkpoints among the names in a folder, each in order.
pub(crate) fn sort_names(names: &[String]) -> (Vec<Lsn>, Vec<Lsn>) {
    let numbers = |suffix: &str| {
        let mut numbers: Vec<Lsn> = names
            .iter()
            .filter_map(|name| number_of(name.strip_suffix(suffix)?))
            .collect();
        numbers.sort_unstable();
        numbers
    };
    (numbers(SEGMENT_SUFFIX), numbers(CHECKPOINT_SUFFIX))
}

fn number_of(digits: &str) -> Option<Lsn> {
    let well_formed = digits.len() == NUMBER_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    // Numbers beyond are not reached in practice, and leave room to count on from any file name.
    const NUMBER_MAX: u64 = u64::MAX >> 1;
    digits
        .parse()
        .ok()
        .filter(|number| well_formed && *number <= NUMBER_MAX)
        .map(Lsn)
}

/// The integer at a place that the caller knows to be inside.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("four bytes are there"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes are there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were() {
        let segment = SegmentHeader {
            id: 5,
            first: Lsn(7),
            synced: Lsn(6),
            chain: 0xdead_beef,
        };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        let checkpoint = CheckpointHeader {
            id: 5,
            at: Lsn(u64::MAX),
        };
        assert_eq!(
            CheckpointHeader::decode(&checkpoint.encode()),
            Ok(checkpoint)
        );
    }

    #[test]
    fn a_changed_bit_in_a_header_is_seen() {
        let good = SegmentHeader {
            id: 5,
            first: Lsn(7),
            synced: Lsn(6),
            chain: 1,
        }
        .encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_mark_belongs_to_one_journal() {
        let mark = Mark {
            synced: Lsn(3),
            next: Lsn(5),
        };
        assert_eq!(Mark::decode(1, &mark.encode(1)), Some(mark));
        assert_eq!(Mark::decode(2, &mark.encode(1)), None);
    }

    #[test]
    fn names_sort_and_foreign_names_are_passed_over() {
        let names = [
            segment_name(Lsn(10)),
            segment_name(Lsn(9)),
            checkpoint_name(Lsn(11)),
            checkpoint_name(Lsn(u64::MAX)),
            "lock".to_owned(),
            "+0000000000000000001.segment".to_owned(),
            "99999999999999999999.segment".to_owned(),
        ];
        assert_eq!(sort_names(&names), (vec![Lsn(9), Lsn(10)], vec![Lsn(11)]));
        assert_eq!(segment_name(Lsn(1)), "00000000000000000001.segment");
    }
}
