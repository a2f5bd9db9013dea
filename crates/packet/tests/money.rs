//! Conversions against plain rational numbers, and amounts as people read them.

use num_bigint::BigUint;
use proptest::{prelude::*, sample::select};
use rialto_packet::money::{Asset, Conversion, MoneyError, Ratio};

const AMOUNTS: [u64; 8] = [
    0,
    1,
    (1 << 53) - 1,
    1 << 53,
    (1 << 53) + 1,
    100_000_000_000_000_000,
    1 << 63,
    u64::MAX,
];

fn ten_to(exponent: u32) -> BigUint {
    BigUint::from(10u8).pow(exponent)
}

/// `mantissa * 10^exponent`, as a text and as numerator and denominator.
fn decimal(mantissa: u64, exponent: i32) -> (String, BigUint, BigUint) {
    let digits = usize::try_from(exponent.unsigned_abs()).expect("small");
    if exponent >= 0 {
        let text = format!("{mantissa}{}", "0".repeat(digits));
        (text, mantissa * ten_to(exponent.unsigned_abs()), 1u8.into())
    } else {
        let padded = format!("{mantissa:0>width$}", width = digits + 1);
        let (whole, fraction) = padded.split_at(padded.len() - digits);
        let text = format!("{whole}.{fraction}");
        (text, mantissa.into(), ten_to(exponent.unsigned_abs()))
    }
}

/// Compares each way of rounding with its definition.
fn check(mantissa: u64, exponent: i32, from_scale: u8, to_scale: u8, amount: u64) {
    let (text, numerator, denominator) = decimal(mantissa, exponent);
    let rate: Ratio = text.parse().expect("a rate");
    let from = Asset::new("FROM", from_scale).expect("an asset");
    let to = Asset::new("TO", to_scale).expect("an asset");
    let conversion = Conversion::between(&from, &to, &rate);
    let numerator = numerator * ten_to(to_scale.into());
    let denominator = denominator * ten_to(from_scale.into());
    let story = || format!("{amount} at {text}, scale {from_scale} to {to_scale}");

    let product = amount * &numerator;
    let floor = &product / &denominator;
    let exact = &floor * &denominator == product;
    let fits = |value: &BigUint| u64::try_from(value.clone()).map_err(|_| MoneyError::Overflow);
    assert_eq!(conversion.round_down(amount), fits(&floor), "{}", story());
    let ceiling = if exact { floor } else { floor + 1u8 };
    assert_eq!(conversion.round_up(amount), fits(&ceiling), "{}", story());

    // The largest amount that still passes: it does, and one more does not.
    let source = conversion.largest_source(amount);
    let passes = |source: &BigUint| source * &numerator / &denominator <= amount.into();
    assert!(passes(&source.into()), "{source} for {}", story());
    let more = BigUint::from(source) + 1u8;
    assert!(
        source == u64::MAX || !passes(&more),
        "{more} for {}",
        story()
    );
}

#[test]
fn powers_of_ten_between_all_sorts_of_scales() {
    for exponent in -18..=18 {
        for from_scale in [0, 2, 9, 18, 255] {
            for to_scale in [0, 2, 9, 18, 255] {
                for amount in AMOUNTS {
                    check(1, exponent, from_scale, to_scale, amount);
                }
            }
        }
    }
}

fn amounts() -> impl Strategy<Value = u64> {
    prop_oneof![
        select(&AMOUNTS[..]),
        any::<u64>(),
        (any::<u64>(), 0..64_u32).prop_map(|(amount, bits)| amount >> bits),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_rate_between_any_scales(
        mantissa in 1..=1_000_000_000_000_000_000_u64,
        exponent in -36..=0,
        from_scale: u8,
        to_scale: u8,
        amount in amounts(),
    ) {
        check(mantissa, exponent, from_scale, to_scale, amount);
    }

    /// Where results mostly fit 64 bits.
    #[test]
    fn usual_rates_between_near_scales(
        mantissa in 1..=1_000_000_000_u64,
        exponent in -12..=0,
        scale in 0..=240_u8,
        up in 0..=6_u8,
        down in 0..=6_u8,
        amount in amounts(),
    ) {
        check(mantissa, exponent, scale + down, scale + up, amount);
    }

    #[test]
    fn amounts_read_as_they_are_shown(units in amounts(), scale: u8) {
        let asset = Asset::new("XYZ", scale)?;
        let shown = asset.decimal(units.into());
        prop_assert_eq!(asset.units(&shown), Some(units));
        let negative = asset.decimal(-i128::from(units));
        let expected = if units == 0 { shown } else { format!("-{shown}") };
        prop_assert_eq!(negative, expected);
    }

    #[test]
    fn short_rates_read_as_they_are_shown(
        mantissa in 0..1_000_000_000_000_u64,
        exponent in -48..=0,
    ) {
        let rate: Ratio = decimal(mantissa, exponent).0.parse()?;
        prop_assert_eq!(rate.to_string().parse::<Ratio>()?, rate);
    }

    #[test]
    fn long_rates_are_shown_cut_after_twelve_digits(
        numerator in 1..=u64::MAX,
        denominator in 1..=u64::MAX,
    ) {
        let rate = Ratio::new(numerator, denominator)?;
        let shown: Ratio = rate.to_string().parse()?;
        let digit: Ratio = "0.00000000001".parse()?;
        prop_assert!(shown <= rate);
        prop_assert!(shown > rate.less(&digit)?);
    }

    #[test]
    fn ratios_are_fractions(a: u64, b in 1..=u64::MAX, c in 1..=u64::MAX, d in 1..=u64::MAX) {
        let (ab, cd) = (Ratio::new(a, b)?, Ratio::new(c, d)?);
        let (left, right) = (u128::from(a) * u128::from(d), u128::from(c) * u128::from(b));
        prop_assert_eq!(ab.cmp(&cd), left.cmp(&right));
        prop_assert_eq!(ab.times(&cd), cd.times(&ab));
        prop_assert_eq!(cd.times(&cd.inverse()?), Ratio::one());
        prop_assert_eq!(ab.is_zero(), a == 0);
        // What is taken away and what is left make the whole: (1 - a) + a = 1, over one denominator.
        if a < b {
            let left = Ratio::one().less(&ab)?;
            prop_assert_eq!(left, Ratio::new(b - a, b)?);
        } else {
            prop_assert_eq!(Ratio::one().less(&ab), Err(MoneyError::WholeOrMore));
        }
    }
}

#[test]
fn rates_are_plain_decimals() {
    let sixty = "9".repeat(60);
    let refused = [
        "",
        ".",
        ".5",
        "1.",
        "1.2.3",
        "-1",
        "+1",
        "1e3",
        "1_000",
        " 1",
        "1 ",
        "0x1",
        "1,5",
        "½",
        "\u{661}",
        "NaN",
        "inf",
        &format!("{sixty}0"),
        &format!("0.{sixty}0"),
    ];
    for text in refused {
        assert_eq!(text.parse::<Ratio>(), Err(MoneyError::Decimal), "{text}");
    }
    assert!(format!("{sixty}.{sixty}").parse::<Ratio>().is_ok());
    assert_eq!("0.920".parse(), Ratio::new(23, 25));
    assert_eq!(Ratio::new(1, 0), Err(MoneyError::Zero));
    assert_eq!(Ratio::new(0, 5).unwrap().inverse(), Err(MoneyError::Zero));
    let one = Ratio::one();
    assert_eq!(one.less(&one), Err(MoneyError::WholeOrMore));
}

#[test]
fn rates_are_shown_with_twelve_significant_digits() {
    let shown = [
        (2, 3, "0.666666666666"),
        (200, 3, "66.6666666666"),
        (1, 3_000_000, "0.000000333333333333"),
        (10_000_000_000_001, 2, "5000000000000"),
        (23, 25, "0.92"),
        (0, 1, "0"),
    ];
    for (numerator, denominator, text) in shown {
        let ratio = Ratio::new(numerator, denominator).unwrap();
        assert_eq!(ratio.to_string(), text);
    }
}

#[test]
fn a_conversion_to_nothing_takes_any_amount() {
    let nothing = Conversion::of_units(Ratio::new(0, 1).unwrap());
    assert_eq!(nothing.round_down(u64::MAX), Ok(0));
    assert_eq!(nothing.round_up(u64::MAX), Ok(0));
    assert_eq!(nothing.largest_source(0), u64::MAX);
}

#[test]
fn amounts_as_people_read_them() {
    let shown = [
        (9, -12_500_000_000, "-12.50"),
        (9, 1, "0.000000001"),
        (9, 0, "0.00"),
        (1, 5, "0.5"),
        (1, 50, "5.0"),
        (0, 5, "5"),
        (0, i128::MIN, "-170141183460469231731687303715884105728"),
        (2, 100, "1.00"),
    ];
    for (scale, units, text) in shown {
        let asset = Asset::new("USD", scale).unwrap();
        assert_eq!(asset.decimal(units), text);
    }

    let cents = Asset::new("USD", 2).unwrap();
    let read = [
        ("1", Some(100)),
        ("1.2", Some(120)),
        ("1.25", Some(125)),
        ("001.25", Some(125)),
        ("184467440737095516.15", Some(u64::MAX)),
        ("184467440737095516.16", None),
        ("1.250", None),
        ("", None),
        (".", None),
        ("1.", None),
        (".5", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("1_0", None),
        (" 1", None),
        ("1.+5", None),
        ("\u{661}", None),
    ];
    for (text, units) in read {
        assert_eq!(cents.units(text), units, "{text}");
    }
    let whole = Asset::new("JPY", 0).unwrap();
    assert_eq!(whole.units("7"), Some(7));
    assert_eq!(whole.units("7.0"), None);
}

#[test]
fn assets_are_written_code_slash_scale() {
    let asset: Asset = "USD/9".parse().unwrap();
    assert_eq!((asset.code(), asset.scale()), ("USD", 9));
    assert_eq!(asset.to_string(), "USD/9");
    assert_eq!("A/B/0".parse::<Asset>().unwrap().code(), "A/B");
    for text in [
        "USD", "USD/", "USD/-1", "USD/+9", "USD/256", "USD/ 9", "USD/9.0", "",
    ] {
        assert_eq!(text.parse::<Asset>(), Err(MoneyError::Asset), "{text}");
    }
    for text in ["/9", &format!("{}/9", "x".repeat(256))] {
        assert_eq!(text.parse::<Asset>(), Err(MoneyError::AssetCode), "{text}");
    }
    assert!(Asset::new(&"x".repeat(255), 255).is_ok());
}
