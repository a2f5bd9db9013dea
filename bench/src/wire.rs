//! The few bytes of ILPv4 and BTP that the benchmarks write and read.
//!
//! Hand-coded on purpose: the load client and the fulfilling peer share the second core, so they
//! must cost less than what they measure, and they must not share a bug with it.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Buf, BufMut, BytesMut};

use crate::Result;

const ILP_PREPARE: u8 = 12;
const ILP_FULFILL: u8 = 13;
const BTP_RESPONSE: u8 = 1;
const BTP_MESSAGE: u8 = 6;

/// Where the expiry of a [`Template`] is rendered anew.
const EXPIRY_REFRESH: Duration = Duration::from_secs(1);

/// A 32-byte preimage.
pub(crate) type Preimage = [u8; 32];

/// One Prepare that is stamped again and again with a fresh preimage, condition and expiry.
pub(crate) struct Template {
    packet: Vec<u8>,
    amount_at: usize,
    data_at: usize,
    rendered: Option<SystemTime>,
    seed: [u8; 16],
    expiry_ms: i64,
    /// Where the number at the end of the destination is, and how many there are.
    numbered: Option<(usize, u32)>,
}

/// Digits of a number in a destination or an account's name.
const DIGITS: usize = 7;

/// Of `count` things the one that packet `sequence` is about: spread over all of them, so that no
/// cache of a few serves them.
pub(crate) fn turn(sequence: u64, count: u32) -> u32 {
    let mixed = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    u32::try_from(mixed % u64::from(count)).expect("it is below a u32")
}

/// The number as it is written.
pub(crate) fn digits(number: u32) -> String {
    format!("{number:0DIGITS$}")
}

/// What is the same in every packet.
pub(crate) struct Shape<'a> {
    pub(crate) destination: &'a str,
    pub(crate) amount: u64,
    /// Bytes of data.
    pub(crate) size: usize,
    /// When packets expire, from now.
    pub(crate) expiry_ms: i64,
    /// A number below this is added to the destination.
    pub(crate) destinations: Option<u32>,
}

impl Template {
    /// A Prepare with at least 32 bytes of data: the preimage travels in front so that the
    /// fulfilling peer can answer.
    pub(crate) fn new(shape: &Shape<'_>) -> Result<Self> {
        let Shape { amount, size, .. } = *shape;
        let mut destination = shape.destination.to_owned();
        if shape.destinations.is_some() {
            destination.push_str(&digits(0));
        }
        if !(32..=32_767).contains(&size) {
            return Err(format!("data of {size} bytes: must be 32 to 32767").into());
        }
        let mut content = Vec::with_capacity(size + 128);
        content.put_u64(amount);
        content.put_bytes(b'0', 17);
        content.put_bytes(0, 32);
        put_octets(&mut content, destination.as_bytes());
        let number_at = content.len() - DIGITS;
        put_length(&mut content, size);
        let data_at = content.len();
        content.put_bytes(0, size);

        let mut packet = vec![ILP_PREPARE];
        put_length(&mut packet, content.len());
        let amount_at = packet.len();
        packet.extend_from_slice(&content);

        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self {
            packet,
            amount_at,
            data_at: amount_at + data_at,
            rendered: None,
            seed: started.as_nanos().to_be_bytes(),
            expiry_ms: shape.expiry_ms,
            numbered: shape
                .destinations
                .map(|count| (amount_at + number_at, count)),
        })
    }

    /// The packet number `sequence`, and the preimage that fulfils it.
    pub(crate) fn stamp(&mut self, sequence: u64) -> Result<(&[u8], Preimage)> {
        let now = SystemTime::now();
        if self
            .rendered
            .is_none_or(|at| now.duration_since(at).is_ok_and(|age| age > EXPIRY_REFRESH))
        {
            let expires = jiff::Timestamp::try_from(now)?;
            let expires = expires.checked_add(jiff::SignedDuration::from_millis(self.expiry_ms))?;
            let digits = expires.strftime("%Y%m%d%H%M%S%3f").to_string();
            self.packet[self.amount_at + 8..][..17].copy_from_slice(digits.as_bytes());
            self.rendered = Some(now);
        }
        if let Some((at, count)) = self.numbered {
            let number = digits(turn(sequence, count));
            self.packet[at..][..DIGITS].copy_from_slice(number.as_bytes());
        }
        let mut preimage = [0; 32];
        preimage[..16].copy_from_slice(&self.seed);
        preimage[24..].copy_from_slice(&sequence.to_be_bytes());
        let condition = digest(&SHA256, &preimage);
        self.packet[self.amount_at + 25..][..32].copy_from_slice(condition.as_ref());
        self.packet[self.data_at..][..32].copy_from_slice(&preimage);
        Ok((&self.packet, preimage))
    }
}

/// The Fulfill for a Prepare that carries its preimage in the first 32 bytes of its data.
pub(crate) fn fulfill(prepare: &[u8]) -> Result<[u8; 35]> {
    let mut at = prepare;
    if at.try_get_u8()? != ILP_PREPARE {
        return Err("not a Prepare".into());
    }
    let mut content = take_octets(&mut at)?;
    if content.len() < 57 {
        return Err("Prepare cut short".into());
    }
    content.advance(57);
    take_octets(&mut content)?;
    let data = take_octets(&mut content)?;
    let preimage = data.get(..32).ok_or("data holds no preimage")?;
    let mut fulfill = [0; 35];
    fulfill[0] = ILP_FULFILL;
    fulfill[1] = 33;
    fulfill[2..34].copy_from_slice(preimage);
    Ok(fulfill)
}

/// Whether `reply` is a Fulfill with this preimage.
pub(crate) fn is_fulfilled(reply: &[u8], preimage: &Preimage) -> bool {
    let mut at = reply;
    at.try_get_u8() == Ok(ILP_FULFILL)
        && take_octets(&mut at).is_ok_and(|content| content.starts_with(preimage))
}

/// What a BTP frame is to the benchmarks.
pub(crate) enum Btp<'a> {
    /// A request whose primary protocol is `ilp`, with the ILP packet.
    Request(u32, &'a [u8]),
    /// The answer to one of ours; the packet is empty when there is no protocol data.
    Response(u32, &'a [u8]),
    /// The first message of a client.
    Auth(u32),
}

/// Reads one frame.
pub(crate) fn btp(frame: &[u8]) -> Result<Btp<'_>> {
    let mut at = frame;
    let kind = at.try_get_u8()?;
    let id = at.try_get_u32()?;
    let mut body = take_octets(&mut at)?;
    let entries = take_octets(&mut body)?;
    if entries == [0] && kind == BTP_RESPONSE {
        return Ok(Btp::Response(id, &[]));
    }
    let name = take_octets(&mut body)?;
    body.try_get_u8()?;
    let data = take_octets(&mut body)?;
    match (kind, name) {
        (BTP_MESSAGE, b"auth") => Ok(Btp::Auth(id)),
        // By the packet: there are nodes that send a Prepare as a response.
        (BTP_MESSAGE | BTP_RESPONSE, b"ilp") if data.first() == Some(&ILP_PREPARE) => {
            Ok(Btp::Request(id, data))
        }
        (BTP_MESSAGE | BTP_RESPONSE, b"ilp") => Ok(Btp::Response(id, data)),
        _ => Err(format!("BTP frame of type {kind} that no peer here sends").into()),
    }
}

/// A request that carries an ILP packet.
pub(crate) fn btp_request(id: u32, packet: &[u8]) -> BytesMut {
    btp_ilp(BTP_MESSAGE, id, packet)
}

/// The response that carries the answer.
pub(crate) fn btp_response(id: u32, packet: &[u8]) -> BytesMut {
    btp_ilp(BTP_RESPONSE, id, packet)
}

/// The response without protocol data, which accepts an authentication.
pub(crate) fn btp_accept(id: u32) -> BytesMut {
    btp_frame(BTP_RESPONSE, id, &[1, 0])
}

/// The first message of a client.
pub(crate) fn btp_auth(id: u32, token: &str) -> BytesMut {
    let mut body = vec![1, 2];
    put_octets(&mut body, b"auth");
    body.put_u8(0);
    put_octets(&mut body, b"");
    put_octets(&mut body, b"auth_token");
    body.put_u8(1);
    put_octets(&mut body, token.as_bytes());
    btp_frame(BTP_MESSAGE, id, &body)
}

fn btp_ilp(kind: u8, id: u32, packet: &[u8]) -> BytesMut {
    let length_size = length_size(packet.len());
    let body = 2 + 4 + 1 + length_size + packet.len();
    let mut frame = BytesMut::with_capacity(16 + body);
    frame.put_u8(kind);
    frame.put_u32(id);
    put_length(&mut frame, body);
    frame.extend_from_slice(&[1, 1, 3]);
    frame.extend_from_slice(b"ilp");
    frame.put_u8(0);
    put_octets(&mut frame, packet);
    frame
}

fn btp_frame(kind: u8, id: u32, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(16 + body.len());
    frame.put_u8(kind);
    frame.put_u32(id);
    put_octets(&mut frame, body);
    frame
}

fn put_octets(out: &mut impl BufMut, octets: &[u8]) {
    put_length(out, octets.len());
    out.put_slice(octets);
}

/// An OER length determinant (RFC 30).
fn put_length(out: &mut impl BufMut, length: usize) {
    let bytes = length.to_be_bytes();
    let tail = &bytes[bytes.len() + 1 - length_size(length)..];
    match tail {
        [] => out.put_slice(&bytes[bytes.len() - 1..]),
        _ => {
            out.put_u8(0x80 | u8::try_from(tail.len()).expect("a length has at most 8 bytes"));
            out.put_slice(tail);
        }
    }
}

/// How many bytes the determinant of `length` takes.
fn length_size(length: usize) -> usize {
    if length < 128 {
        return 1;
    }
    let significant = usize::BITS - length.leading_zeros();
    1 + usize::try_from(significant.div_ceil(8)).expect("at most 8 bytes")
}

fn take_octets<'a>(from: &mut &'a [u8]) -> Result<&'a [u8]> {
    let first = from.try_get_u8()?;
    let length = match first {
        0..=127 => usize::from(first),
        _ => usize::try_from(from.try_get_uint(usize::from(first & 0x7f).min(8))?)?,
    };
    let (octets, rest) = from.split_at_checked(length).ok_or("field cut short")?;
    *from = rest;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_prepare_is_answered_by_its_own_preimage() {
        let mut template = Template::new(&Shape {
            destination: "g.bob.n",
            amount: 7,
            size: 300,
            expiry_ms: 30_000,
            destinations: Some(10),
        })
        .unwrap();
        let (first, preimage) = template.stamp(1).unwrap();
        let reply = fulfill(first).unwrap();
        assert!(is_fulfilled(&reply, &preimage));
        let (_, other) = template.stamp(2).unwrap();
        assert!(!is_fulfilled(&reply, &other));
    }

    #[test]
    fn frames_read_back() {
        let packet = vec![ILP_PREPARE; 300];
        assert!(
            matches!(btp(&btp_request(9, &packet)).unwrap(), Btp::Request(9, p) if p == packet)
        );
        assert!(matches!(
            btp(&btp_response(9, &[1])).unwrap(),
            Btp::Response(9, [1])
        ));
        assert!(matches!(btp(&btp_accept(3)).unwrap(), Btp::Response(3, [])));
        assert!(matches!(btp(&btp_auth(4, "shh")).unwrap(), Btp::Auth(4)));
        assert!(btp(&[6, 0, 0]).is_err());
    }
}
