//! Prepare, Fulfill and Reject as checked views over one buffer (RFC 27, Packet Format).

use std::borrow::Cow;

use thiserror::Error;

use crate::{
    address::{Addr, AddressError},
    error_code::ErrorCode,
    oer::{self, OerError, Reader},
    timestamp::{Timestamp, TimestampError},
};

/// Most bytes of data in a packet.
pub const DATA_BYTES_MAX: usize = 32_767;
/// Most bytes of a Reject's message.
pub const MESSAGE_BYTES_MAX: usize = 8_191;
/// Most bytes of a whole packet that any link has to take: a Reject with everything at its largest.
pub const PACKET_BYTES_MAX: usize =
    1 + 3 + 3 + (3 + 1023) + (3 + MESSAGE_BYTES_MAX) + (3 + DATA_BYTES_MAX);

/// Why bytes are not the packet that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// Truncated or badly encoded.
    #[error("malformed packet: {0}")]
    Oer(#[from] OerError),
    /// The first byte names another packet type, or none.
    #[error("packet type {found} where {expected} was expected")]
    Type {
        /// Type that was asked for, in words.
        expected: &'static str,
        /// First byte of the packet.
        found: u8,
    },
    /// The expiry is not a valid instant.
    #[error("malformed expiry: {0}")]
    Expiry(#[from] TimestampError),
    /// The destination is not a valid address.
    #[error("malformed destination: {0}")]
    Destination(AddressError),
    /// The address of the node that rejected is neither empty nor valid.
    #[error("malformed triggered-by address: {0}")]
    TriggeredBy(AddressError),
    /// More data than [`DATA_BYTES_MAX`].
    #[error("{0} bytes of data, at most 32767 are allowed")]
    DataTooLong(usize),
    /// A longer message than [`MESSAGE_BYTES_MAX`].
    #[error("message of {0} bytes, at most 8191 are allowed")]
    MessageTooLong(usize),
}

/// The three kinds of packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketType {
    /// A conditional promise, travelling towards the receiver.
    Prepare = 12,
    /// The proof that completes it, travelling back.
    Fulfill = 13,
    /// The refusal, travelling back.
    Reject = 14,
}

/// The kind of packet by its first byte; says nothing about the rest.
pub fn packet_type(bytes: &[u8]) -> Option<PacketType> {
    match bytes.first()? {
        12 => Some(PacketType::Prepare),
        13 => Some(PacketType::Fulfill),
        14 => Some(PacketType::Reject),
        _ => None,
    }
}

/// Where a field lies in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.end]
    }
}

/// Checks the type byte and gives a reader over the content, and where the content starts.
/// Bytes after the envelope are ignored, as RFC 30 wants.
fn content<'a>(
    bytes: &'a [u8],
    expected: PacketType,
    name: &'static str,
) -> Result<(Reader<'a>, usize), PacketError> {
    let mut reader = Reader::new(bytes);
    let found = reader.u8()?;
    if found != expected as u8 {
        return Err(PacketError::Type {
            expected: name,
            found,
        });
    }
    let content = reader.var_octets()?;
    Ok((Reader::new(content), reader.position() - content.len()))
}

/// A length-prefixed field; `base` is where the reader's bytes start in the buffer.
fn span(reader: &mut Reader<'_>, base: usize) -> Result<Span, OerError> {
    let length = reader.var_octets()?.len();
    let end = base + reader.position();
    Ok(Span {
        start: end - length,
        end,
    })
}

fn data_span(reader: &mut Reader<'_>, base: usize) -> Result<Span, PacketError> {
    let span = span(reader, base)?;
    let length = span.end - span.start;
    if length > DATA_BYTES_MAX {
        Err(PacketError::DataTooLong(length))
    } else {
        Ok(span)
    }
}

/// A valid Prepare in a buffer of type `B`, such as `&[u8]`, `Vec<u8>` or `BytesMut`.
///
/// Amount and expiry are the only fields that a connector may change; everything else in the buffer
/// stays as it came, extra bytes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepare<B> {
    buffer: B,
    content: usize,
    expires_at: Timestamp,
    destination: Span,
    data: Span,
}

const AMOUNT: usize = 0;
const EXPIRES_AT: usize = 8;
const CONDITION: usize = 25;
const DESTINATION: usize = 57;

impl<B: AsRef<[u8]>> Prepare<B> {
    /// Checks every field.
    pub fn parse(buffer: B) -> Result<Self, PacketError> {
        let bytes = buffer.as_ref();
        let (mut reader, content) = content(bytes, PacketType::Prepare, "prepare")?;
        reader.u64()?;
        let expires_at = Timestamp::parse(&reader.array()?)?;
        reader.take(32)?;
        let destination = span(&mut reader, content)?;
        Addr::from_bytes(destination.of(bytes)).map_err(PacketError::Destination)?;
        let data = data_span(&mut reader, content)?;
        Ok(Self {
            content,
            expires_at,
            destination,
            data,
            buffer,
        })
    }

    /// Units of the asset of the account it travels on.
    pub fn amount(&self) -> u64 {
        u64::from_be_bytes(self.fixed(AMOUNT))
    }

    /// From this instant on it may not be fulfilled.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// SHA-256 of the fulfillment.
    pub fn condition(&self) -> [u8; 32] {
        self.fixed(CONDITION)
    }

    /// Where it goes.
    pub fn destination(&self) -> Addr<'_> {
        Addr::from_checked(self.destination.of(self.as_bytes()))
    }

    /// What it says to the receiver.
    pub fn data(&self) -> &[u8] {
        self.data.of(self.as_bytes())
    }

    /// The whole packet.
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    /// The buffer.
    pub fn into_inner(self) -> B {
        self.buffer
    }

    fn fixed<const N: usize>(&self, offset: usize) -> [u8; N] {
        let start = self.content + offset;
        self.as_bytes()[start..start + N]
            .try_into()
            .expect("a range of N bytes")
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Prepare<B> {
    /// Patches the amount in place.
    pub fn set_amount(&mut self, amount: u64) {
        let start = self.content + AMOUNT;
        self.buffer.as_mut()[start..start + 8].copy_from_slice(&amount.to_be_bytes());
    }

    /// Patches the expiry in place.
    pub fn set_expires_at(&mut self, expires_at: Timestamp) {
        let start = self.content + EXPIRES_AT;
        self.buffer.as_mut()[start..start + 17].copy_from_slice(&expires_at.to_bytes());
        self.expires_at = expires_at;
    }
}

/// The fields of a Prepare to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareBuilder<'a> {
    /// Units of the asset of the account it will travel on.
    pub amount: u64,
    /// From this instant on it may not be fulfilled.
    pub expires_at: Timestamp,
    /// SHA-256 of the fulfillment.
    pub condition: [u8; 32],
    /// Where it goes.
    pub destination: Addr<'a>,
    /// At most [`DATA_BYTES_MAX`] bytes for the receiver.
    pub data: &'a [u8],
}

impl PrepareBuilder<'_> {
    /// The packet in canonical form. Fails only on too much data.
    pub fn encode(&self) -> Result<Vec<u8>, PacketError> {
        check_data(self.data)?;
        let destination = self.destination.as_str().as_bytes();
        let length = DESTINATION + field_len(destination) + field_len(self.data);
        let mut out = envelope(PacketType::Prepare, length);
        out.extend_from_slice(&self.amount.to_be_bytes());
        out.extend_from_slice(&self.expires_at.to_bytes());
        out.extend_from_slice(&self.condition);
        oer::put_var_octets(&mut out, destination);
        oer::put_var_octets(&mut out, self.data);
        Ok(out)
    }
}

/// A valid Fulfill.
///
/// ```
/// use rialto_packet::{Fulfill, FulfillBuilder, PEER_FULFILLMENT};
///
/// let bytes = FulfillBuilder { fulfillment: PEER_FULFILLMENT, data: b"thanks" }.encode()?;
/// let fulfill = Fulfill::parse(bytes.as_slice())?;
/// assert_eq!(fulfill.fulfillment(), PEER_FULFILLMENT);
/// assert_eq!(fulfill.data(), b"thanks");
/// # Ok::<(), rialto_packet::PacketError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fulfill<B> {
    buffer: B,
    content: usize,
    data: Span,
}

impl<B: AsRef<[u8]>> Fulfill<B> {
    /// Checks every field.
    pub fn parse(buffer: B) -> Result<Self, PacketError> {
        let (mut reader, content) = content(buffer.as_ref(), PacketType::Fulfill, "fulfill")?;
        reader.take(32)?;
        let data = data_span(&mut reader, content)?;
        Ok(Self {
            content,
            data,
            buffer,
        })
    }

    /// The preimage of the condition.
    pub fn fulfillment(&self) -> [u8; 32] {
        self.as_bytes()[self.content..self.content + 32]
            .try_into()
            .expect("a range of 32 bytes")
    }

    /// What the receiver says to the sender.
    pub fn data(&self) -> &[u8] {
        self.data.of(self.as_bytes())
    }

    /// The whole packet.
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    /// The buffer.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

/// The fields of a Fulfill to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FulfillBuilder<'a> {
    /// The preimage of the condition.
    pub fulfillment: [u8; 32],
    /// At most [`DATA_BYTES_MAX`] bytes for the sender.
    pub data: &'a [u8],
}

impl FulfillBuilder<'_> {
    /// The packet in canonical form. Fails only on too much data.
    pub fn encode(&self) -> Result<Vec<u8>, PacketError> {
        check_data(self.data)?;
        let mut out = envelope(PacketType::Fulfill, 32 + field_len(self.data));
        out.extend_from_slice(&self.fulfillment);
        oer::put_var_octets(&mut out, self.data);
        Ok(out)
    }
}

/// A valid Reject.
///
/// ```
/// use rialto_packet::{Addr, ErrorCode, Reject, RejectBuilder};
///
/// let bytes = RejectBuilder {
///     code: ErrorCode::F02_UNREACHABLE,
///     triggered_by: Some(Addr::new("example.con")?),
///     message: "no",
///     data: &[],
/// }
/// .encode()?;
/// let reject = Reject::parse(bytes.as_slice())?;
/// assert_eq!(reject.code(), ErrorCode::F02_UNREACHABLE);
/// assert_eq!(reject.message(), "no");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject<B> {
    buffer: B,
    content: usize,
    triggered_by: Span,
    message: Span,
    data: Span,
}

impl<B: AsRef<[u8]>> Reject<B> {
    /// Checks every field. The message may be any bytes; they are read as UTF-8 as far as they are.
    pub fn parse(buffer: B) -> Result<Self, PacketError> {
        let bytes = buffer.as_ref();
        let (mut reader, content) = content(bytes, PacketType::Reject, "reject")?;
        reader.take(3)?;
        let triggered_by = span(&mut reader, content)?;
        let address = triggered_by.of(bytes);
        if !address.is_empty() {
            Addr::from_bytes(address).map_err(PacketError::TriggeredBy)?;
        }
        let message = span(&mut reader, content)?;
        let length = message.end - message.start;
        if length > MESSAGE_BYTES_MAX {
            return Err(PacketError::MessageTooLong(length));
        }
        let data = data_span(&mut reader, content)?;
        Ok(Self {
            content,
            triggered_by,
            message,
            data,
            buffer,
        })
    }

    /// What went wrong.
    pub fn code(&self) -> ErrorCode {
        let bytes = &self.as_bytes()[self.content..self.content + 3];
        ErrorCode::from_bytes(bytes.try_into().expect("a range of 3 bytes"))
    }

    /// The node that rejected; some implementations leave it empty.
    pub fn triggered_by(&self) -> Option<Addr<'_>> {
        let address = self.triggered_by.of(self.as_bytes());
        (!address.is_empty()).then(|| Addr::from_bytes(address).expect("checked by parse"))
    }

    /// For people; what is not UTF-8 shows as replacement characters.
    pub fn message(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.message.of(self.as_bytes()))
    }

    /// For programs; see [`crate::f08`].
    pub fn data(&self) -> &[u8] {
        self.data.of(self.as_bytes())
    }

    /// The whole packet.
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    /// The buffer.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

/// The fields of a Reject to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectBuilder<'a> {
    /// What went wrong.
    pub code: ErrorCode,
    /// The rejecting node, unless it does not know its address yet.
    pub triggered_by: Option<Addr<'a>>,
    /// For people; cut to [`MESSAGE_BYTES_MAX`] at a character.
    pub message: &'a str,
    /// At most [`DATA_BYTES_MAX`] bytes for the sender.
    pub data: &'a [u8],
}

impl RejectBuilder<'_> {
    /// The packet in canonical form. Fails only on too much data.
    pub fn encode(&self) -> Result<Vec<u8>, PacketError> {
        check_data(self.data)?;
        let triggered_by = self.triggered_by.map_or("", Addr::as_str).as_bytes();
        let message =
            &self.message.as_bytes()[..self.message.floor_char_boundary(MESSAGE_BYTES_MAX)];
        let length = 3 + field_len(triggered_by) + field_len(message) + field_len(self.data);
        let mut out = envelope(PacketType::Reject, length);
        out.extend_from_slice(&self.code.to_bytes());
        oer::put_var_octets(&mut out, triggered_by);
        oer::put_var_octets(&mut out, message);
        oer::put_var_octets(&mut out, self.data);
        Ok(out)
    }
}

/// What comes back for a Prepare.
///
/// ```
/// use rialto_packet::{PacketError, Reply};
///
/// let fulfill = [&[13, 33][..], &[0; 33]].concat();
/// assert!(matches!(Reply::parse(fulfill)?, Reply::Fulfill(_)));
/// assert!(Reply::parse([12, 0]).is_err()); // a Prepare is no reply
/// # Ok::<(), PacketError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<B> {
    /// It was paid.
    Fulfill(Fulfill<B>),
    /// It was not.
    Reject(Reject<B>),
}

impl<B: AsRef<[u8]>> Reply<B> {
    /// A Fulfill or a Reject, by the first byte.
    pub fn parse(buffer: B) -> Result<Self, PacketError> {
        let found = Reader::new(buffer.as_ref()).u8()?;
        match packet_type(&[found]) {
            Some(PacketType::Fulfill) => Fulfill::parse(buffer).map(Self::Fulfill),
            Some(PacketType::Reject) => Reject::parse(buffer).map(Self::Reject),
            Some(PacketType::Prepare) | None => Err(PacketError::Type {
                expected: "fulfill or reject",
                found,
            }),
        }
    }

    /// The whole packet.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Fulfill(fulfill) => fulfill.as_bytes(),
            Self::Reject(reject) => reject.as_bytes(),
        }
    }

    /// The buffer.
    pub fn into_inner(self) -> B {
        match self {
            Self::Fulfill(fulfill) => fulfill.into_inner(),
            Self::Reject(reject) => reject.into_inner(),
        }
    }
}

fn check_data(data: &[u8]) -> Result<(), PacketError> {
    if data.len() > DATA_BYTES_MAX {
        Err(PacketError::DataTooLong(data.len()))
    } else {
        Ok(())
    }
}

fn field_len(bytes: &[u8]) -> usize {
    oer::length_len(bytes.len()) + bytes.len()
}

fn envelope(packet_type: PacketType, content_len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + oer::length_len(content_len) + content_len);
    out.push(packet_type as u8);
    oer::put_length(&mut out, content_len);
    out
}
