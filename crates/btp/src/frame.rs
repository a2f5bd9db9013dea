//! BTP frames: one WebSocket binary message each (RFC 23; asn1/BilateralTransferProtocol.asn).
//!
//! Reading gives views over the frame's bytes. The common shape, one protocol data entry, is read in
//! one pass without allocating.

use std::fmt;

use rialto_packet::{
    Timestamp,
    oer::{self, OerError, Reader},
};
use thiserror::Error;

use crate::{error_code::ErrorCode, time};

/// Most protocol data entries in one frame; real ones have one to four.
pub const PROTOCOL_DATA_MAX: usize = 1024;
/// Most bytes of data in an Error (RFC 23's ASN.1).
pub const ERROR_DATA_BYTES_MAX: usize = 8192;
/// Most bytes of a whole frame that a driver takes from its WebSocket. Peers may count on 64 KiB;
/// an ILP packet with its frame needs less.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;

/// Sub-protocol whose data is an ILP packet.
pub const ILP: &str = "ilp";
/// Sub-protocol that makes a Message an authentication.
pub const AUTH: &str = "auth";
/// Secondary entry of an authentication: the secret.
pub const AUTH_TOKEN: &str = "auth_token";
/// Secondary entry of an authentication: the account's name.
pub const AUTH_USERNAME: &str = "auth_username";

const RESPONSE: u8 = 1;
const ERROR: u8 = 2;
const MESSAGE: u8 = 6;
const TRANSFER: u8 = 7;

/// Type and request id.
const HEADER_LEN: usize = 5;
/// Length byte and eight bytes of a count.
const COUNT_LEN_MAX: usize = 9;

/// Why bytes are not a frame, or why a frame cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Truncated or badly encoded.
    #[error("malformed frame: {0}")]
    Oer(#[from] OerError),
    /// Neither Response, Error, Message nor Transfer. Types 3 to 5 belonged to BTP 1.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// More entries than [`PROTOCOL_DATA_MAX`].
    #[error("{0} protocol data entries, at most 1024 are allowed")]
    TooManyEntries(u64),
    /// A name with bytes that are not IA5 (7 bits).
    #[error("protocol or error name is not IA5 text")]
    Name,
    /// Two entries with one name: which of them is meant cannot be known.
    #[error("two protocol data entries have the same name")]
    DuplicateName,
    /// More data in an Error than [`ERROR_DATA_BYTES_MAX`].
    #[error("{0} bytes of error data, at most 8192 are allowed")]
    ErrorDataTooLong(usize),
}

/// The fixed first five bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    frame_type: u8,
    /// Pairs a request with its reply. Each direction has its own ids.
    pub request_id: u32,
}

impl Header {
    /// Whether the frame is, by its type, the answer to a request of ours.
    pub fn is_reply(self) -> bool {
        matches!(self.frame_type, RESPONSE | ERROR)
    }
}

/// Bytes that are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct Unreadable {
    /// Type and request id, if at least they could be read.
    pub header: Option<Header>,
    /// What is wrong.
    pub error: FrameError,
}

/// What the data of an entry is. Values other than the named ones are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentType(pub u8);

impl ContentType {
    /// application/octet-stream.
    pub const OCTET_STREAM: Self = Self(0);
    /// text/plain in UTF-8.
    pub const TEXT: Self = Self(1);
    /// application/json.
    pub const JSON: Self = Self(2);
}

/// One protocol data entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name of the sub-protocol, IA5.
    pub name: &'a str,
    /// How to read `data`.
    pub content_type: ContentType,
    /// The sub-protocol's own bytes.
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, FrameError> {
        let name = reader.var_octets()?;
        if !name.is_ascii() {
            return Err(FrameError::Name);
        }
        Ok(Self {
            name: std::str::from_utf8(name).map_err(|_| FrameError::Name)?,
            content_type: ContentType(reader.u8()?),
            data: reader.var_octets()?,
        })
    }
}

impl fmt::Debug for Entry<'_> {
    /// The data may be a secret and stays unseen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, data, .. } = self;
        write!(f, "{name:?} ({} bytes)", data.len())
    }
}

/// The entries of a frame, all of them checked, their names distinct.
///
/// The first, the *primary* one, decides what is done; the others are context.
#[derive(Clone, Copy)]
pub struct ProtocolData<'a> {
    primary: Option<Entry<'a>>,
    secondary: Reader<'a>,
    secondary_count: usize,
}

impl<'a> ProtocolData<'a> {
    /// The count is an attacker's claim: nothing is allocated from it.
    fn read(reader: &mut Reader<'a>) -> Result<Self, FrameError> {
        let start = reader.position();
        let count = reader.var_uint()?;
        // Leading zeros are tolerated up to the width of the largest count there can be.
        if reader.position() - start > COUNT_LEN_MAX {
            return Err(OerError::IntegerTooLarge.into());
        }
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= PROTOCOL_DATA_MAX)
            .ok_or(FrameError::TooManyEntries(count))?;
        let primary = match count {
            0 => None,
            _ => Some(Entry::read(reader)?),
        };
        let protocol_data = Self {
            primary,
            secondary: *reader,
            secondary_count: count.saturating_sub(1),
        };
        if let Some(primary) = primary.filter(|_| count > 1) {
            let mut names = vec![primary.name];
            for _ in 1..count {
                names.push(Entry::read(reader)?.name);
            }
            check_distinct(names)?;
        }
        Ok(protocol_data)
    }

    /// The entry that decides what is done. None is legal: an empty Response is how a request is
    /// acknowledged.
    pub fn primary(&self) -> Option<Entry<'a>> {
        self.primary
    }

    /// Every entry in the order of the frame.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut reader = self.secondary;
        self.primary
            .into_iter()
            .chain((0..self.secondary_count).map(move |_| {
                Entry::read(&mut reader).expect("each entry was read once when the frame was")
            }))
    }

    /// The entry of that name.
    pub fn get(&self, name: &str) -> Option<Entry<'a>> {
        self.iter().find(|entry| entry.name == name)
    }
}

impl fmt::Debug for ProtocolData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn check_distinct(mut names: Vec<&str>) -> Result<(), FrameError> {
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(FrameError::DuplicateName);
    }
    Ok(())
}

/// The fields of a received Error. Its code is all that decides; the others are for people to read,
/// so they are taken as they come: a peer's error is never hidden by the way it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// What kind of error.
    pub code: ErrorCode,
    /// The code's name, unchecked.
    pub name: &'a [u8],
    /// When it happened; `None` when the peer's time is unreadable.
    pub triggered_at: Option<Timestamp>,
    /// More about it; text or JSON, unchecked.
    pub data: &'a [u8],
}

impl fmt::Debug for ErrorFields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} \"{}\"", self.code, self.data.escape_ascii())
    }
}

/// What a frame says.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Type 1: the request was done.
    Response(ProtocolData<'a>),
    /// Type 2: the request was not done.
    Error(ErrorFields<'a>, ProtocolData<'a>),
    /// Type 6: a request.
    Message(ProtocolData<'a>),
    /// Type 7: a request to credit a settlement.
    Transfer {
        /// In the base unit of the ledger.
        amount: u64,
        /// The proof.
        protocol_data: ProtocolData<'a>,
    },
}

/// A frame, as a view over its bytes.
///
/// ```
/// use rialto_btp::frame::{Body, Frame, put_ilp_message};
///
/// let mut bytes = Vec::new();
/// put_ilp_message(&mut bytes, 7, b"\x0c\x00");
///
/// let frame = Frame::decode(&bytes)?;
/// assert_eq!(frame.request_id, 7);
/// let Body::Message(protocol_data) = frame.body else { panic!("not a message") };
/// assert_eq!(protocol_data.get("ilp").unwrap().data, b"\x0c\x00");
/// # Ok::<(), rialto_btp::frame::Unreadable>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Pairs a request with its reply. Each direction has its own ids.
    pub request_id: u32,
    /// What the frame says.
    pub body: Body<'a>,
}

impl<'a> Frame<'a> {
    /// Reads one frame. Bytes after it, and after the last field of its body, are ignored, as RFC 30
    /// wants.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes);
        let header = read_header(&mut reader).map_err(|error| Unreadable {
            header: None,
            error: error.into(),
        })?;
        match read_body(header.frame_type, &mut reader) {
            Ok(body) => Ok(Self {
                request_id: header.request_id,
                body,
            }),
            Err(error) => Err(Unreadable {
                header: Some(header),
                error,
            }),
        }
    }
}

fn read_header(reader: &mut Reader<'_>) -> Result<Header, OerError> {
    Ok(Header {
        frame_type: reader.u8()?,
        request_id: reader.u32()?,
    })
}

fn read_body<'a>(frame_type: u8, reader: &mut Reader<'a>) -> Result<Body<'a>, FrameError> {
    let mut body = Reader::new(reader.var_octets()?);
    Ok(match frame_type {
        RESPONSE => Body::Response(ProtocolData::read(&mut body)?),
        MESSAGE => Body::Message(ProtocolData::read(&mut body)?),
        TRANSFER => Body::Transfer {
            amount: body.u64()?,
            protocol_data: ProtocolData::read(&mut body)?,
        },
        ERROR => {
            let fields = ErrorFields {
                code: ErrorCode::from_bytes(body.array()?),
                name: body.var_octets()?,
                triggered_at: time::parse(body.var_octets()?),
                data: body.var_octets()?,
            };
            Body::Error(fields, ProtocolData::read(&mut body)?)
        }
        unknown => return Err(FrameError::Type(unknown)),
    })
}

/// Appends a Message that carries one ILP packet, a Prepare.
pub fn put_ilp_message(out: &mut Vec<u8>, request_id: u32, packet: &[u8]) {
    put_ilp(out, MESSAGE, request_id, packet);
}

/// Appends a Response that carries one ILP packet, a Fulfill or a Reject.
pub fn put_ilp_response(out: &mut Vec<u8>, request_id: u32, packet: &[u8]) {
    put_ilp(out, RESPONSE, request_id, packet);
}

/// Bytes of the frame around an ILP packet of `packet_len` bytes, the packet included.
pub const fn ilp_frame_len(packet_len: usize) -> usize {
    let body_len = ilp_body_len(packet_len);
    HEADER_LEN + oer::length_len(body_len) + body_len
}

/// Count 1, name, content type.
const ILP_ENTRY: [u8; 7] = [1, 1, 3, b'i', b'l', b'p', ContentType::OCTET_STREAM.0];

const fn ilp_body_len(packet_len: usize) -> usize {
    ILP_ENTRY.len() + oer::length_len(packet_len) + packet_len
}

fn put_ilp(out: &mut Vec<u8>, frame_type: u8, request_id: u32, packet: &[u8]) {
    out.reserve(ilp_frame_len(packet.len()));
    put_header(out, frame_type, request_id, ilp_body_len(packet.len()));
    out.extend_from_slice(&ILP_ENTRY);
    oer::put_var_octets(out, packet);
}

/// Appends a Response without protocol data: the request was done.
pub fn put_empty_response(out: &mut Vec<u8>, request_id: u32) {
    put_header(out, RESPONSE, request_id, 2);
    oer::put_var_uint(out, 0);
}

/// Appends a Message.
///
/// # Errors
/// The entries' names are not IA5 or not distinct, or the entries are too many; nothing is written.
pub fn put_message(
    out: &mut Vec<u8>,
    request_id: u32,
    entries: &[Entry<'_>],
) -> Result<(), FrameError> {
    put_frame(out, MESSAGE, request_id, &[], entries)
}

/// Appends a Response.
///
/// # Errors
/// As [`put_message`].
pub fn put_response(
    out: &mut Vec<u8>,
    request_id: u32,
    entries: &[Entry<'_>],
) -> Result<(), FrameError> {
    put_frame(out, RESPONSE, request_id, &[], entries)
}

/// Appends a Transfer. `amount` is in the base unit of the ledger.
///
/// # Errors
/// As [`put_message`].
pub fn put_transfer(
    out: &mut Vec<u8>,
    request_id: u32,
    amount: u64,
    entries: &[Entry<'_>],
) -> Result<(), FrameError> {
    put_frame(out, TRANSFER, request_id, &amount.to_be_bytes(), entries)
}

/// The fields of an Error to be sent. Data is text, because not every implementation reads other
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewError<'a> {
    /// What kind of error.
    pub code: ErrorCode,
    /// [`ErrorCode::name`], unless the code is of one's own.
    pub name: &'a str,
    /// When it happened.
    pub triggered_at: Timestamp,
    /// More about it, at most [`ERROR_DATA_BYTES_MAX`] bytes.
    pub data: &'a str,
}

/// Appends an Error.
///
/// # Errors
/// As [`put_message`]; also a name that is not IA5 or too much data.
pub fn put_error(
    out: &mut Vec<u8>,
    request_id: u32,
    error: &NewError<'_>,
    entries: &[Entry<'_>],
) -> Result<(), FrameError> {
    if !error.name.is_ascii() {
        return Err(FrameError::Name);
    }
    if error.data.len() > ERROR_DATA_BYTES_MAX {
        return Err(FrameError::ErrorDataTooLong(error.data.len()));
    }
    let mut fields = Vec::with_capacity(64 + error.data.len());
    fields.extend_from_slice(&error.code.to_bytes());
    oer::put_var_octets(&mut fields, error.name.as_bytes());
    oer::put_var_octets(&mut fields, &time::format(error.triggered_at));
    oer::put_var_octets(&mut fields, error.data.as_bytes());
    put_frame(out, ERROR, request_id, &fields, entries)
}

/// `fields` stand between the body's length and the protocol data.
fn put_frame(
    out: &mut Vec<u8>,
    frame_type: u8,
    request_id: u32,
    fields: &[u8],
    entries: &[Entry<'_>],
) -> Result<(), FrameError> {
    if entries.len() > PROTOCOL_DATA_MAX {
        return Err(FrameError::TooManyEntries(entries.len() as u64));
    }
    if !entries.iter().all(|entry| entry.name.is_ascii()) {
        return Err(FrameError::Name);
    }
    check_distinct(entries.iter().map(|entry| entry.name).collect())?;

    let entry_len =
        |entry: &Entry<'_>| field_len(entry.name.as_bytes()) + 1 + field_len(entry.data);
    let count = entries.len() as u64;
    let body_len =
        fields.len() + oer::var_uint_len(count) + entries.iter().map(entry_len).sum::<usize>();
    out.reserve(HEADER_LEN + oer::length_len(body_len) + body_len);
    put_header(out, frame_type, request_id, body_len);
    out.extend_from_slice(fields);
    oer::put_var_uint(out, count);
    for entry in entries {
        oer::put_var_octets(out, entry.name.as_bytes());
        out.push(entry.content_type.0);
        oer::put_var_octets(out, entry.data);
    }
    Ok(())
}

fn put_header(out: &mut Vec<u8>, frame_type: u8, request_id: u32, body_len: usize) {
    out.push(frame_type);
    out.extend_from_slice(&request_id.to_be_bytes());
    oer::put_length(out, body_len);
}

fn field_len(bytes: &[u8]) -> usize {
    oer::length_len(bytes.len()) + bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(name: &'a str, data: &'a [u8]) -> Entry<'a> {
        Entry {
            name,
            content_type: ContentType::TEXT,
            data,
        }
    }

    #[test]
    fn the_hot_path_writes_what_the_general_path_writes() {
        for packet_len in [0, 1, 111, 112, 127, 128, 255, 256, 32_767, 65_535, 65_536] {
            let packet = vec![12; packet_len];
            let ilp = Entry {
                name: ILP,
                content_type: ContentType::OCTET_STREAM,
                data: &packet,
            };
            let (mut hot, mut general) = (Vec::new(), Vec::new());
            put_ilp_message(&mut hot, 7, &packet);
            put_message(&mut general, 7, &[ilp]).unwrap();
            assert_eq!(hot, general);
            assert_eq!(hot.len(), ilp_frame_len(packet_len));
            hot.clear();
            general.clear();
            put_ilp_response(&mut hot, 8, &packet);
            put_response(&mut general, 8, &[ilp]).unwrap();
            assert_eq!(hot, general);
        }
        let (mut hot, mut general) = (Vec::new(), Vec::new());
        put_empty_response(&mut hot, 9);
        put_response(&mut general, 9, &[]).unwrap();
        assert_eq!(hot, general);
    }

    #[test]
    fn what_cannot_be_read_is_not_written() {
        let mut out = Vec::new();
        let twice = [entry("a", b"1"), entry("b", b""), entry("a", b"2")];
        let error = NewError {
            code: ErrorCode::NOT_ACCEPTED,
            name: "NotAcceptedError",
            triggered_at: Timestamp::from_unix_ms(0),
            data: &"x".repeat(ERROR_DATA_BYTES_MAX + 1),
        };
        let named = NewError {
            name: "Späte",
            data: "",
            ..error
        };
        let too_many: Vec<_> = (0..=PROTOCOL_DATA_MAX).map(|i| i.to_string()).collect();
        let too_many: Vec<_> = too_many.iter().map(|name| entry(name, b"")).collect();

        assert_eq!(
            put_message(&mut out, 1, &twice),
            Err(FrameError::DuplicateName)
        );
        assert_eq!(
            put_response(&mut out, 1, &[entry("ü", b"")]),
            Err(FrameError::Name)
        );
        assert_eq!(
            put_transfer(&mut out, 1, 1, &too_many),
            Err(FrameError::TooManyEntries(1025))
        );
        assert_eq!(
            put_error(&mut out, 1, &error, &[]),
            Err(FrameError::ErrorDataTooLong(8193))
        );
        assert_eq!(put_error(&mut out, 1, &named, &[]), Err(FrameError::Name));
        assert!(out.is_empty());
        put_message(&mut out, 1, &too_many[1..]).unwrap();
        Frame::decode(&out).unwrap();
    }

    #[test]
    fn an_unreadable_frame_tells_whose_it_was() {
        let header = |bytes: &[u8]| Frame::decode(bytes).unwrap_err().header;

        // Cut at each byte: the first five are the header.
        let mut frame = Vec::new();
        put_ilp_message(&mut frame, 0x0102_0304, b"\x0c");
        for cut in 0..frame.len() {
            let expected = (cut >= HEADER_LEN).then_some(Header {
                frame_type: MESSAGE,
                request_id: 0x0102_0304,
            });
            assert_eq!(header(&frame[..cut]), expected, "cut at {cut}");
        }
        assert!(!header(&[6, 0, 0, 0, 1]).unwrap().is_reply());
        assert!(header(&[1, 0, 0, 0, 1]).unwrap().is_reply());
        assert!(header(&[2, 0, 0, 0, 1]).unwrap().is_reply());
    }

    #[test]
    fn retired_and_unknown_types_are_refused() {
        for frame_type in (0..=255).filter(|frame_type| ![1, 2, 6, 7].contains(frame_type)) {
            let unreadable = Frame::decode(&[frame_type, 0, 0, 0, 9, 2, 1, 0]).unwrap_err();
            assert_eq!(unreadable.error, FrameError::Type(frame_type));
            assert_eq!(unreadable.header.unwrap().request_id, 9);
        }
    }

    #[test]
    fn an_absurd_count_is_refused_at_once() {
        let frame = b"\x06\x00\x00\x00\x01\x09\x08\x80\0\0\0\0\0\0\0";
        let error = Frame::decode(frame).unwrap_err().error;
        assert_eq!(error, FrameError::TooManyEntries(1 << 63));
    }

    #[test]
    fn a_name_that_is_not_ia5_refuses_the_frame() {
        for name in [&b"\xc3\xa9"[..], b"il\xf0"] {
            let mut frame = b"\x06\0\0\0\x01\x00\x01\x01".to_vec();
            oer::put_var_octets(&mut frame, name);
            frame.extend_from_slice(&[0, 0]);
            frame[HEADER_LEN] = u8::try_from(frame.len() - HEADER_LEN - 1).unwrap();
            assert_eq!(Frame::decode(&frame).unwrap_err().error, FrameError::Name);
        }
    }

    #[test]
    fn debug_output_never_shows_data() {
        let mut out = Vec::new();
        put_message(&mut out, 1, &[entry(AUTH, b""), entry(AUTH_TOKEN, b"shh")]).unwrap();
        let shown = format!("{:?}", Frame::decode(&out).unwrap());
        assert!(shown.contains(r#"["auth" (0 bytes), "auth_token" (3 bytes)]"#));
    }
}
