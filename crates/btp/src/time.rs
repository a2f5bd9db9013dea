//! GeneralizedTime, the form of instants in Error frames (RFC 30).

use rialto_packet::Timestamp;

/// Bytes that [`format()`] gives.
pub(crate) const LEN: usize = 19;

/// `YYYYMMDDHHmmSS.fffZ`: always three decimals, because the JavaScript reference reads no other
/// number of them.
pub(crate) fn format(timestamp: Timestamp) -> [u8; LEN] {
    let digits = timestamp.to_bytes();
    let mut text = [b'.'; LEN];
    text[..14].copy_from_slice(&digits[..14]);
    text[15..18].copy_from_slice(&digits[14..]);
    text[18] = b'Z';
    text
}

/// Reads `YYYYMMDDHHmmSS[.f{1,3}]Z`. Second 60 is the first of the next minute.
pub(crate) fn parse(text: &[u8]) -> Option<Timestamp> {
    let (seconds, rest) = text.split_first_chunk::<14>()?;
    let decimals: &[u8] = match rest {
        [b'Z'] => &[],
        [b'.', decimals @ .., b'Z'] if matches!(decimals.len(), 1..=3) => decimals,
        _ => return None,
    };
    let mut digits = [b'0'; 17];
    digits[..14].copy_from_slice(seconds);
    digits[14..14 + decimals.len()].copy_from_slice(decimals);
    if seconds.ends_with(b"60") {
        digits[12..14].copy_from_slice(b"59");
        return Some(Timestamp::parse(&digits).ok()?.plus_ms(1000));
    }
    Timestamp::parse(&digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_to_three_decimals_are_read_and_three_are_written() {
        for (text, shown) in [
            ("20240102030405Z", "2024-01-02T03:04:05.000Z"),
            ("20240102030405.6Z", "2024-01-02T03:04:05.600Z"),
            ("20240102030405.60Z", "2024-01-02T03:04:05.600Z"),
            ("20240102030405.678Z", "2024-01-02T03:04:05.678Z"),
            ("20161231235960.5Z", "2017-01-01T00:00:00.500Z"),
        ] {
            let timestamp = parse(text.as_bytes()).expect(text);
            assert_eq!(timestamp.to_string(), shown);
            assert_eq!(parse(&format(timestamp)), Some(timestamp));
        }
        assert_eq!(
            &format(Timestamp::from_unix_ms(0)),
            b"19700101000000.000Z".as_slice()
        );
    }

    #[test]
    fn other_forms_of_time_are_refused() {
        for text in [
            "",
            "Z",
            "20240102030405",
            "20240102030405.Z",
            "20240102030405,6Z",
            "20240102030405.6789Z",
            "20240102030405+0000",
            "2024010203040Z",
            "20241302030405Z",
            "20240102030461Z",
            "20240102030405.6zZ",
            "20240102030405678",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
