//! Instants in the fixed-length form of ILP packets (RFC 27, RFC 30).

use std::fmt;

use thiserror::Error;

/// An instant of UTC in whole milliseconds since 1970-01-01, in the years 0000 to 9999.
///
/// On the wire it is 17 digits, `YYYYMMDDHHmmSSfff`.
///
/// ```
/// use rialto_packet::Timestamp;
///
/// let timestamp = Timestamp::parse(b"20240102030405678")?;
/// assert_eq!(timestamp.unix_ms(), 1_704_164_645_678);
/// assert_eq!(&timestamp.to_bytes(), b"20240102030405678");
/// # Ok::<(), rialto_packet::TimestampError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The bytes are not 17 digits that name an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("timestamp is not 17 digits YYYYMMDDHHmmSSfff naming an instant")]
pub struct TimestampError;

const DAY_MS: i64 = 86_400_000;

impl Timestamp {
    /// 0000-01-01T00:00:00.000Z.
    pub const MIN: Self = Self(-62_167_219_200_000);
    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// From milliseconds since 1970-01-01 UTC, clamped to the years that can be written.
    pub fn from_unix_ms(ms: i64) -> Self {
        Self(ms.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// `ms` later (earlier when negative), clamped to the years that can be written.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self::from_unix_ms(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; negative when `earlier` is later.
    pub fn ms_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// Reads the 17 digits. Leap seconds, hour 24 and days that do not exist are refused.
    pub fn parse(bytes: &[u8; 17]) -> Result<Self, TimestampError> {
        if !bytes.iter().all(u8::is_ascii_digit) {
            return Err(TimestampError);
        }
        let number = |from: usize, to: usize| {
            bytes[from..to]
                .iter()
                .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
        };
        let (year, month, day) = (number(0, 4), number(4, 6), number(6, 8));
        let (hour, minute, second, ms) = (
            number(8, 10),
            number(10, 12),
            number(12, 14),
            number(14, 17),
        );
        if !(1..=12).contains(&month)
            || !(1..=days_in_month(year, month)).contains(&day)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return Err(TimestampError);
        }
        let of_day = ((hour * 60 + minute) * 60 + second) * 1000 + ms;
        Ok(Self(days_from_civil(year, month, day) * DAY_MS + of_day))
    }

    /// The 17 digits.
    pub fn to_bytes(self) -> [u8; 17] {
        let (year, month, day) = civil_from_days(self.0.div_euclid(DAY_MS));
        let of_day = self.0.rem_euclid(DAY_MS);
        let fields = [
            (year, 4),
            (month, 2),
            (day, 2),
            (of_day / 3_600_000, 2),
            (of_day / 60_000 % 60, 2),
            (of_day / 1000 % 60, 2),
            (of_day % 1000, 3),
        ];
        let mut bytes = [b'0'; 17];
        let mut end = 0;
        for (mut value, width) in fields {
            end += width;
            for digit in bytes[end - width..end].iter_mut().rev() {
                *digit = b'0' + u8::try_from(value % 10).expect("a digit");
                value /= 10;
            }
        }
        bytes
    }
}

impl fmt::Display for Timestamp {
    /// ISO 8601 with milliseconds, `2024-01-02T03:04:05.678Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        let digits =
            |from: usize, to: usize| std::str::from_utf8(&bytes[from..to]).unwrap_or_default();
        write!(
            f,
            "{}-{}-{}T{}:{}:{}.{}Z",
            digits(0, 4),
            digits(4, 6),
            digits(6, 8),
            digits(8, 10),
            digits(10, 12),
            digits(12, 14),
            digits(14, 17)
        )
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// Days are counted in eras of 400 years that begin in March, so that the leap day comes last.

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
