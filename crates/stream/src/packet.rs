//! STREAM packets and frames in the clear (RFC 29, section 5).
//!
//! [`Packet`] is a view over decrypted bytes: [`Packet::parse`] checks the header and the framing of
//! all frames, [`Packet::frames`] reads them one at a time, so that a packet of thousands of tiny
//! frames costs no memory. Unknown frames are skipped; whatever follows the last frame is ignored.

use rialto_packet::{
    PacketType,
    oer::{self, OerError, Reader},
};
use thiserror::Error;

/// The only version there is.
const VERSION: u8 = 1;

/// Why bytes are not a STREAM packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamError {
    /// Truncated or badly encoded.
    #[error("malformed stream packet: {0}")]
    Oer(#[from] OerError),
    /// Another version than 1.
    #[error("stream version {0} is not known")]
    Version(u8),
    /// Not 12, 13 or 14.
    #[error("stream packet names the unknown ilp packet type {0}")]
    PacketType(u8),
    /// The contents of a known frame do not fit its type.
    #[error("malformed stream frame of type {0:#04x}")]
    Frame(u8),
}

/// Why a stream or connection was closed (RFC 29, section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode(pub u8);

impl CloseCode {
    /// Everything is done.
    pub const NO_ERROR: Self = Self(1);
    /// Something failed on the closing side.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// Too much to do.
    pub const ENDPOINT_BUSY: Self = Self(3);
    /// More was sent than was allowed.
    pub const FLOW_CONTROL_ERROR: Self = Self(4);
    /// A stream number above the limit.
    pub const STREAM_ID_ERROR: Self = Self(5);
    /// A frame for a stream that is closed.
    pub const STREAM_STATE_ERROR: Self = Self(6);
    /// A frame that cannot be read.
    pub const FRAME_FORMAT_ERROR: Self = Self(7);
    /// Any other breach.
    pub const PROTOCOL_VIOLATION: Self = Self(8);
    /// The application says so.
    pub const APPLICATION_ERROR: Self = Self(9);
}

macro_rules! frames {
    ($($(#[$doc:meta])* $code:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ident),* $(,)? })*) => {
        /// One frame. Offsets are bytes; amounts are units of the asset of whoever the field is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Frame<'a> {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: kind!(type $kind 'a)),* },)*
        }

        impl<'a> Frame<'a> {
            /// `None` for a type that is not known. Bytes after the last field are ignored.
            fn read(code: u8, contents: &'a [u8]) -> Option<Result<Self, StreamError>> {
                let mut reader = Reader::new(contents);
                match code {
                    $($code => Some((|| Some(Self::$name { $($field: kind!(read $kind reader)),* }))()
                        .ok_or(StreamError::Frame(code))),)*
                    _ => None,
                }
            }

            fn write(&self, out: &mut Vec<u8>) {
                let mut contents = Vec::new();
                let code: u8 = match self {
                    $(Self::$name { $($field),* } => {
                        $(kind!(write $kind contents $field);)*
                        $code
                    })*
                };
                out.push(code);
                oer::put_var_octets(out, &contents);
            }
        }
    };
}

macro_rules! kind {
    (type uint $a:lifetime) => { u64 };
    (type saturating $a:lifetime) => { u64 };
    (type byte $a:lifetime) => { u8 };
    (type code $a:lifetime) => { CloseCode };
    (type text $a:lifetime) => { &$a str };
    (type octets $a:lifetime) => { &$a [u8] };
    (read uint $reader:ident) => { $reader.var_uint().ok()? };
    (read saturating $reader:ident) => { $reader.var_uint_saturating().ok()? };
    (read byte $reader:ident) => { $reader.u8().ok()? };
    (read code $reader:ident) => { CloseCode($reader.u8().ok()?) };
    (read text $reader:ident) => { std::str::from_utf8($reader.var_octets().ok()?).ok()? };
    (read octets $reader:ident) => { $reader.var_octets().ok()? };
    (write uint $out:ident $field:ident) => { oer::put_var_uint(&mut $out, *$field) };
    (write saturating $out:ident $field:ident) => { oer::put_var_uint(&mut $out, *$field) };
    (write byte $out:ident $field:ident) => { $out.push(*$field) };
    (write code $out:ident $field:ident) => { $out.push($field.0) };
    (write text $out:ident $field:ident) => { oer::put_var_octets(&mut $out, $field.as_bytes()) };
    (write octets $out:ident $field:ident) => { oer::put_var_octets(&mut $out, $field) };
}

frames! {
    /// The connection ends now.
    0x01 ConnectionClose {
        /// Why.
        error_code: code,
        /// For people.
        error_message: text,
    }
    /// Where the sender of the frame can be reached. Not checked to be an address, since an empty one
    /// is in use as a question for asset details.
    0x02 ConnectionNewAddress {
        /// An address, or empty.
        source_account: text,
    }
    /// Bytes of data accepted on all streams together.
    0x03 ConnectionMaxData {
        /// Sum of the streams' largest offsets.
        max_offset: uint,
    }
    /// Would like to send more data than the connection allows.
    0x04 ConnectionDataBlocked {
        /// Wanted sum of offsets.
        max_offset: uint,
    }
    /// Largest stream number accepted.
    0x05 ConnectionMaxStreamId {
        /// Inclusive.
        max_stream_id: uint,
    }
    /// Would like to open a stream above the limit.
    0x06 ConnectionStreamIdBlocked {
        /// The wanted stream.
        max_stream_id: uint,
    }
    /// The unit in which the sender of the frame counts.
    0x07 ConnectionAssetDetails {
        /// Such as `USD`.
        source_asset_code: text,
        /// Digits after the point.
        source_asset_scale: byte,
    }
    /// A stream ends now.
    0x10 StreamClose {
        /// Odd for the client's streams, even for the server's.
        stream_id: uint,
        /// Why.
        error_code: code,
        /// For people.
        error_message: text,
    }
    /// Part of the packet's amount is for this stream.
    0x11 StreamMoney {
        /// Which stream.
        stream_id: uint,
        /// Its weight among the packet's StreamMoney frames.
        shares: uint,
    }
    /// How much a stream may receive.
    0x12 StreamMaxMoney {
        /// Which stream.
        stream_id: uint,
        /// Most it takes in all; values above 2^64 - 1 read as that.
        receive_max: saturating,
        /// What has arrived so far.
        total_received: uint,
    }
    /// Would like to send more money than the stream takes.
    0x13 StreamMoneyBlocked {
        /// Which stream.
        stream_id: uint,
        /// Most it would send in all; values above 2^64 - 1 read as that.
        send_max: saturating,
        /// What was sent so far.
        total_sent: uint,
    }
    /// Data on a stream.
    0x14 StreamData {
        /// Which stream.
        stream_id: uint,
        /// Of the first byte.
        offset: uint,
        /// The bytes.
        data: octets,
    }
    /// Bytes of data accepted on a stream.
    0x15 StreamMaxData {
        /// Which stream.
        stream_id: uint,
        /// Exclusive.
        max_offset: uint,
    }
    /// Would like to send more data than the stream allows.
    0x16 StreamDataBlocked {
        /// Which stream.
        stream_id: uint,
        /// Wanted offset.
        max_offset: uint,
    }
    /// Proof of what a stream has received; see [`crate::receipt`].
    0x17 StreamReceipt {
        /// Which stream.
        stream_id: uint,
        /// 58 bytes, not checked here.
        receipt: octets,
    }
}

/// A STREAM packet whose framing is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The ILP packet that it says it travels in.
    pub packet_type: PacketType,
    /// Counts the Prepares of one side; a reply repeats that of its Prepare.
    pub sequence: u64,
    /// In a Prepare the least the receiver should accept; in a reply what arrived.
    pub prepare_amount: u64,
    frames: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks the header and that all frames are there, whatever they hold.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StreamError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(StreamError::Version(version));
        }
        let packet_type = match reader.u8()? {
            12 => PacketType::Prepare,
            13 => PacketType::Fulfill,
            14 => PacketType::Reject,
            other => return Err(StreamError::PacketType(other)),
        };
        let sequence = reader.var_uint()?;
        let prepare_amount = reader.var_uint()?;
        let count = reader.var_uint()?;
        let start = reader.position();
        // A hostile count ends at the first frame that is not there.
        for _ in 0..count {
            reader.u8()?;
            reader.var_octets()?;
        }
        Ok(Self {
            packet_type,
            sequence,
            prepare_amount,
            frames: &bytes[start..reader.position()],
        })
    }

    /// The known frames in order; an error stands for one that cannot be read.
    pub fn frames(&self) -> impl Iterator<Item = Result<Frame<'a>, StreamError>> + use<'a> {
        let mut reader = Reader::new(self.frames);
        std::iter::from_fn(move || {
            while !reader.is_empty() {
                let code = reader.u8().expect("checked by parse");
                let contents = reader.var_octets().expect("checked by parse");
                if let Some(frame) = Frame::read(code, contents) {
                    return Some(frame);
                }
            }
            None
        })
    }
}

/// The fields of a STREAM packet to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketBuilder<'a> {
    /// The ILP packet that it will travel in.
    pub packet_type: PacketType,
    /// Counts the Prepares of one side; a reply repeats that of its Prepare.
    pub sequence: u64,
    /// In a Prepare the least the receiver should accept; in a reply what arrived.
    pub prepare_amount: u64,
    /// In this order.
    pub frames: &'a [Frame<'a>],
}

impl PacketBuilder<'_> {
    /// In canonical form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.packet_type as u8];
        oer::put_var_uint(&mut out, self.sequence);
        oer::put_var_uint(&mut out, self.prepare_amount);
        oer::put_var_uint(&mut out, self.frames.len() as u64);
        for frame in self.frames {
            frame.write(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = packet.frames().count();
            }
        }

        #[test]
        fn any_frames_under_a_good_header_are_read_or_refused(
            count in 0..6u8,
            frames in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = vec![1, 12, 1, 1, 1, 1, 1, count];
            bytes.extend(frames);
            if let Ok(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.frames().count() <= usize::from(count));
            }
        }

        #[test]
        fn what_is_written_is_read(sequence: u64, prepare_amount: u64, id: u64, a: u64, b: u64, text: String) {
            let frames = [
                Frame::ConnectionClose { error_code: CloseCode::NO_ERROR, error_message: &text },
                Frame::StreamMaxMoney { stream_id: id, receive_max: a, total_received: b },
                Frame::StreamData { stream_id: id, offset: a, data: text.as_bytes() },
                Frame::ConnectionAssetDetails { source_asset_code: &text, source_asset_scale: 9 },
            ];
            let built = PacketBuilder { packet_type: PacketType::Reject, sequence, prepare_amount, frames: &frames };
            let bytes = built.encode();
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert_eq!((packet.packet_type, packet.sequence, packet.prepare_amount), (PacketType::Reject, sequence, prepare_amount));
            prop_assert_eq!(packet.frames().collect::<Result<Vec<_>, _>>().unwrap(), frames);
        }
    }
}
