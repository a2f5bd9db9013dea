//! The calendar against one that counts month by month.

use proptest::prelude::*;
use rialto_packet::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// The table that hangs on the wall.
fn days_in_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(400) || year.is_multiple_of(4) && !year.is_multiple_of(100);
    match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text.as_bytes().try_into().ok()?).ok()
}

#[test]
fn every_month_of_all_years() {
    let mut month_start = Timestamp::MIN.unix_ms();
    for year in 0..=9999 {
        for month in 1..=12 {
            let days = days_in_month(year, month);
            for day in [1, 15, days] {
                let digits = format!("{year:04}{month:02}{day:02}000000000");
                let timestamp = parse(&digits).expect("a day of the calendar");
                let expected = month_start + i64::from(day - 1) * DAY_MS;
                assert_eq!(timestamp.unix_ms(), expected, "{digits}");
                assert_eq!(timestamp.to_bytes(), digits.as_bytes(), "{digits}");
            }
            for day in [0, days + 1] {
                let digits = format!("{year:04}{month:02}{day:02}000000000");
                assert_eq!(parse(&digits), None, "{digits}");
            }
            month_start += i64::from(days) * DAY_MS;
        }
    }
    assert_eq!(month_start, Timestamp::MAX.unix_ms() + 1);
}

#[test]
fn known_instants() {
    let instants = [
        ("00000101000000000", -62_167_219_200_000),
        ("19691231235959999", -1),
        ("19700101000000000", 0),
        ("20000229120000000", 951_825_600_000),
        ("20240102030405678", 1_704_164_645_678),
        ("20380119031407000", i64::from(i32::MAX) * 1000),
        ("99991231235959999", 253_402_300_799_999),
    ];
    for (digits, ms) in instants {
        assert_eq!(parse(digits), Some(Timestamp::from_unix_ms(ms)), "{digits}");
        let timestamp = parse(digits).unwrap();
        assert_eq!(timestamp.unix_ms(), ms);
        assert_eq!(timestamp.to_bytes(), digits.as_bytes());
    }
    let refused = [
        "20241301000000000",
        "20240001000000000",
        "20240101240000000",
        "20240101006000000",
        "20240101000060000",
        "2024010100000000 ",
        "+0240101000000000",
        "20240101T00000000",
    ];
    for digits in refused {
        assert_eq!(parse(digits), None, "{digits}");
    }
}

#[test]
fn arithmetic_stays_within_what_can_be_written() {
    assert_eq!(Timestamp::from_unix_ms(i64::MIN), Timestamp::MIN);
    assert_eq!(Timestamp::from_unix_ms(i64::MAX), Timestamp::MAX);
    assert_eq!(Timestamp::MAX.plus_ms(i64::MAX), Timestamp::MAX);
    assert_eq!(Timestamp::MIN.plus_ms(i64::MIN), Timestamp::MIN);
    assert_eq!(Timestamp::MAX.plus_ms(-1).ms_since(Timestamp::MAX), -1);
}

proptest! {
    #[test]
    fn digits_order_and_read_as_the_instant(
        a in Timestamp::MIN.unix_ms()..=Timestamp::MAX.unix_ms(),
        b in Timestamp::MIN.unix_ms()..=Timestamp::MAX.unix_ms(),
    ) {
        let (a, b) = (Timestamp::from_unix_ms(a), Timestamp::from_unix_ms(b));
        let digits = a.to_bytes();
        prop_assert_eq!(Timestamp::parse(&digits), Ok(a));
        prop_assert_eq!(a.cmp(&b), digits.cmp(&b.to_bytes()));

        let of_day = a.unix_ms().rem_euclid(DAY_MS);
        let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (second, ms) = (of_day / 1000 % 60, of_day % 1000);
        let clock = format!("T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
        let shown = a.to_string();
        prop_assert_eq!(&shown[10..], clock);
        let shown: String = shown.chars().filter(char::is_ascii_digit).collect();
        prop_assert_eq!(shown.as_bytes(), digits);
    }
}
