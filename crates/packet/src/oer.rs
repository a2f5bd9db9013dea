//! Octet Encoding Rules, as far as Interledger uses them (RFC 30).
//!
//! All integers are big-endian and everything is byte-aligned. [`Reader`] walks over borrowed bytes
//! and checks every length against what is left *before* it takes anything; the `put_*` functions
//! write the one canonical form.
//!
//! ```
//! use rialto_packet::oer;
//!
//! let mut out = Vec::new();
//! oer::put_var_uint(&mut out, 1000);
//! oer::put_var_octets(&mut out, b"hi");
//! assert_eq!(out, [2, 0x03, 0xe8, 2, b'h', b'i']);
//! ```

use thiserror::Error;

/// Why bytes are not the OER value that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OerError {
    /// Fewer bytes are left than the value needs.
    #[error("unexpected end: {needed} bytes needed, {left} left")]
    UnexpectedEnd {
        /// Bytes the value needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length determinant that is indefinite, longer than eight bytes or needlessly long.
    #[error("length determinant is not valid")]
    Length,
    /// A variable-length integer of no bytes.
    #[error("variable-length integer has no bytes")]
    EmptyInteger,
    /// A variable-length integer above 2^64 - 1.
    #[error("variable-length integer does not fit 64 bits")]
    IntegerTooLarge,
}

/// Reads OER values one after the other from borrowed bytes.
///
/// ```
/// use rialto_packet::oer::Reader;
///
/// let mut reader = Reader::new(&[0x00, 0x6b, 0x02, b'h', b'i']);
/// assert_eq!(reader.u16()?, 107);
/// assert_eq!(reader.var_octets()?, b"hi");
/// assert!(reader.is_empty());
/// # Ok::<(), rialto_packet::oer::OerError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How many bytes were read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.position == self.bytes.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], OerError> {
        let rest = self.rest();
        let Some(taken) = rest.get(..count) else {
            return Err(OerError::UnexpectedEnd {
                needed: count,
                left: rest.len(),
            });
        };
        self.position += count;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], OerError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take(N) gives N bytes"))
    }

    /// UInt8.
    pub fn u8(&mut self) -> Result<u8, OerError> {
        Ok(self.array::<1>()?[0])
    }

    /// UInt16.
    pub fn u16(&mut self) -> Result<u16, OerError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// UInt32.
    pub fn u32(&mut self) -> Result<u32, OerError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// UInt64.
    pub fn u64(&mut self) -> Result<u64, OerError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A length determinant. The value is *not* yet checked against what is left.
    ///
    /// Accepts the canonical form and, since RFC 27 lets receivers do so, longer forms with leading
    /// zeros for lengths from 128 on; refuses the indefinite form and one byte written as two.
    pub fn length(&mut self) -> Result<usize, OerError> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(usize::from(first));
        }
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 8 {
            return Err(OerError::Length);
        }
        let mut value = [0; 8];
        value[8 - count..].copy_from_slice(self.take(count)?);
        let length = u64::from_be_bytes(value);
        if length < 0x80 {
            return Err(OerError::Length);
        }
        usize::try_from(length).map_err(|_| OerError::Length)
    }

    /// VarOctetString: a length determinant and that many bytes.
    pub fn var_octets(&mut self) -> Result<&'a [u8], OerError> {
        let length = self.length()?;
        self.take(length)
    }

    /// VarUInt of at most 64 bits. Leading zeros are accepted.
    pub fn var_uint(&mut self) -> Result<u64, OerError> {
        let digits = self.var_uint_digits()?;
        if digits.len() > 8 {
            return Err(OerError::IntegerTooLarge);
        }
        Ok(from_digits(digits))
    }

    /// VarUInt whose values above 2^64 - 1 read as 2^64 - 1 (STREAM's "unlimited", RFC 29).
    pub fn var_uint_saturating(&mut self) -> Result<u64, OerError> {
        let digits = self.var_uint_digits()?;
        if digits.len() > 8 {
            Ok(u64::MAX)
        } else {
            Ok(from_digits(digits))
        }
    }

    /// The bytes of a VarUInt without leading zeros; empty for zero.
    fn var_uint_digits(&mut self) -> Result<&'a [u8], OerError> {
        let bytes = self.var_octets()?;
        if bytes.is_empty() {
            return Err(OerError::EmptyInteger);
        }
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok(&bytes[zeros..])
    }
}

fn from_digits(digits: &[u8]) -> u64 {
    digits
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Bytes that [`put_length`] writes for `length`.
pub const fn length_len(length: usize) -> usize {
    if length < 0x80 {
        1
    } else {
        1 + significant_bytes(length as u64)
    }
}

/// Writes a length determinant in its shortest form.
pub fn put_length(out: &mut Vec<u8>, length: usize) {
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out.push(short);
        return;
    }
    let length = length as u64;
    let count = significant_bytes(length);
    out.push(0x80 | u8::try_from(count).expect("a u64 has at most 8 bytes"));
    out.extend_from_slice(&length.to_be_bytes()[8 - count..]);
}

/// Writes a VarOctetString.
pub fn put_var_octets(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Bytes that [`put_var_uint`] writes for `value`.
pub const fn var_uint_len(value: u64) -> usize {
    1 + significant_bytes(value)
}

/// Writes a VarUInt in its shortest form.
pub fn put_var_uint(out: &mut Vec<u8>, value: u64) {
    put_var_octets(out, &value.to_be_bytes()[8 - significant_bytes(value)..]);
}

/// Bytes without leading zeros, at least one.
const fn significant_bytes(value: u64) -> usize {
    let bits = 64 - value.leading_zeros() as usize;
    if bits == 0 { 1 } else { bits.div_ceil(8) }
}
