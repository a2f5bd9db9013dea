//! Quantities of settlements: no conversion between scales makes or loses anything.

use num_bigint::BigUint;
use proptest::prelude::*;
use rialto_packet::quantity::{QUANTITY_DIGITS_MAX, Quantity, QuantityError};

fn units(text: &str, scale: u8) -> Option<(u64, String)> {
    let quantity: Quantity = text.parse().expect("a quantity");
    let (units, leftover) = quantity.units_at(scale)?;
    Some((units, leftover.to_string()))
}

#[test]
fn whole_units_and_what_is_left() {
    let is = |units, leftover: &str| Some((units, leftover.to_owned()));
    assert_eq!(units("905/11", 9), is(9, "5/11"));
    assert_eq!(units("8053/12", 9), is(8, "53/12"));
    assert_eq!(units("1/6", 9), is(1000, "0/9"));
    assert_eq!(units("0/6", 9), is(0, "0/9"));
    assert_eq!(units("99/2", 0), is(0, "99/2"));
    assert_eq!(units("18446744073709551615/0", 0), is(u64::MAX, "0/0"));
    assert_eq!(units("18446744073709551616/0", 0), None);
    assert_eq!(units("1/0", 255), None);
    assert_eq!(units("0/0", 255), is(0, "0/255"));
}

#[test]
fn amounts_of_strangers_are_plain_digits() {
    for bad in ["", "+1", "-1", "1.0", "1e3", " 1", "1 ", "0x1", "\u{661}"] {
        assert_eq!(Quantity::new(bad, 9), Err(QuantityError::Amount), "{bad:?}");
    }
    let long = "9".repeat(QUANTITY_DIGITS_MAX);
    assert_eq!(Quantity::new(&long, 9).expect("allowed").amount(), long);
    assert!(Quantity::new(&format!("{long}9"), 9).is_err());
    for bad in ["1", "/", "1/", "/1", "1/256", "1/-1", "1/1/1", "-1/1"] {
        assert!(bad.parse::<Quantity>().is_err(), "{bad:?}");
    }
}

/// 64 bits that look random, from a counter: Sebastiano Vigna's SplitMix64.
fn mixed(counter: u64) -> u64 {
    let mut word = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Ten million credits at random scales into accounts of random scales, leftovers carried on.
#[test]
fn ten_million_conversions_lose_nothing() {
    const CONVERSIONS: u64 = 10_000_000;
    const PER_ACCOUNT: u64 = 1_000;
    const FINEST: u32 = 20;
    let mut nonzero = 0_u64;
    for account in 0..CONVERSIONS / PER_ACCOUNT {
        let scale = u8::try_from(mixed(account) % 21).expect("small");
        let mut leftover = Quantity::default();
        let (mut sum, mut credited) = (0_u128, 0_u128);
        for counter in 0..PER_ACCOUNT {
            let word = mixed(account * PER_ACCOUNT + counter);
            let (amount, of) = (word >> 44, u8::try_from(word % 21).expect("small"));
            sum += u128::from(amount) * 10_u128.pow(FINEST - u32::from(of));
            let total = leftover.plus(&Quantity::of_units(amount, of));
            let Some((units, rest)) = total.units_at(scale) else {
                // Refused without effect: the quantity is not part of the sum.
                sum -= u128::from(amount) * 10_u128.pow(FINEST - u32::from(of));
                continue;
            };
            credited += u128::from(units) * 10_u128.pow(FINEST - u32::from(scale));
            nonzero += u64::from(!rest.is_zero());
            leftover = rest;
        }
        let rest: u128 = leftover.amount().parse().expect("digits");
        let rest = rest * 10_u128.pow(FINEST - u32::from(leftover.scale()));
        assert_eq!(credited + rest, sum, "account {account} at scale {scale}");
    }
    println!(
        "reliability: settlement | {CONVERSIONS} conversions between scales, {nonzero} with a leftover | 0 units made or lost"
    );
}

proptest! {
    #[test]
    fn units_and_leftover_are_the_quantity(
        digits in "[0-9]{1,100}",
        scale in any::<u8>(),
        to in any::<u8>(),
    ) {
        let quantity = Quantity::new(&digits, scale).expect("digits");
        let finest = scale.max(to);
        let ten_to = |exponent: u8| BigUint::from(10_u8).pow(u32::from(exponent));
        let whole = digits.parse::<BigUint>().expect("digits") * ten_to(finest - scale);
        let unit = ten_to(finest - to);
        match quantity.units_at(to) {
            Some((units, leftover)) => {
                let rest = leftover.amount().parse::<BigUint>().expect("digits");
                prop_assert_eq!(leftover.scale(), finest);
                prop_assert!(rest < unit);
                prop_assert_eq!(BigUint::from(units) * unit + &rest, whole);
                prop_assert_eq!(leftover.to_string().parse::<Quantity>(), Ok(leftover));
            }
            None => prop_assert!(whole / unit > BigUint::from(u64::MAX)),
        }
    }
}
