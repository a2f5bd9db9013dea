//! Assets, amounts and exchange rates. Integers and exact ratios only.
//!
//! An amount is a `u64` count of the smallest unit of an [`Asset`]; sums of amounts are `i128`.
//! A [`Ratio`] is an exact positive fraction; a [`Conversion`] is one that is ready to be applied to
//! amounts, and each way of rounding has its own name.
//!
//! ```
//! use rialto_packet::money::{Asset, Conversion, Ratio};
//!
//! let usd = Asset::new("USD", 9)?;
//! let eur = Asset::new("EUR", 6)?;
//! let rate: Ratio = "0.92".parse()?;
//! let spread: Ratio = "0.002".parse()?;
//! let conversion = Conversion::between(&usd, &eur, &rate.less(&spread)?);
//!
//! assert_eq!(conversion.round_down(1_000_000_000)?, 918_160); // 1 USD, after the spread
//! assert_eq!(conversion.round_down(1)?, 0);
//! assert_eq!(conversion.round_up(1)?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{fmt, str::FromStr, sync::Arc};

use num_bigint::BigUint;
use thiserror::Error;

/// Longest asset code in bytes.
pub const ASSET_CODE_BYTES_MAX: usize = 255;

/// Most digits before, and after, the point of a rate.
pub const RATE_DIGITS_MAX: usize = 60;

/// A unit of account: 1 USD at scale 9 is 1,000,000,000 units.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asset {
    code: Arc<str>,
    scale: u8,
}

/// Why a text is no asset or rate, or an amount has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// Empty or longer than [`ASSET_CODE_BYTES_MAX`].
    #[error("asset code must have 1 to 255 bytes")]
    AssetCode,
    /// Not of the form `USD/9`.
    #[error("asset must be written CODE/SCALE with a scale from 0 to 255, such as USD/9")]
    Asset,
    /// Not a plain decimal number within [`RATE_DIGITS_MAX`].
    #[error(
        "must be a decimal number such as 0.92, with at most 60 digits before and after the point"
    )]
    Decimal,
    /// Zero where only positive ratios make sense.
    #[error("must be greater than zero")]
    Zero,
    /// A spread or slippage of everything or more.
    #[error("must be less than 1")]
    WholeOrMore,
    /// The result does not fit 64 bits.
    #[error("amount does not fit 64 bits")]
    Overflow,
}

impl Asset {
    /// Code as the parties agreed on it (case matters) and power of ten of the smallest unit.
    pub fn new(code: &str, scale: u8) -> Result<Self, MoneyError> {
        if code.is_empty() || code.len() > ASSET_CODE_BYTES_MAX {
            return Err(MoneyError::AssetCode);
        }
        Ok(Self {
            code: code.into(),
            scale,
        })
    }

    /// Such as `USD`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Digits after the point: the smallest unit is 10^-scale.
    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// A number of units as people read it, `-12.5` for -12,500,000,000 units of scale 9. At least
    /// two digits follow the point where the scale has them.
    ///
    /// ```
    /// # use rialto_packet::money::Asset;
    /// let usd = Asset::new("USD", 9)?;
    /// assert_eq!(usd.decimal(-12_500_000_000), "-12.50");
    /// assert_eq!(usd.units("12.5"), Some(12_500_000_000));
    /// # Ok::<(), rialto_packet::money::MoneyError>(())
    /// ```
    pub fn decimal(&self, units: i128) -> String {
        let scale = usize::from(self.scale);
        let digits = format!("{:0>width$}", units.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let kept = fraction.trim_end_matches('0').len().max(scale.min(2));
        let sign = if units < 0 { "-" } else { "" };
        let point = if kept > 0 { "." } else { "" };
        format!("{sign}{whole}{point}{}", &fraction[..kept])
    }

    /// Reads a decimal number of the asset as units; `None` when it is not one, has more digits
    /// after the point than the scale, or does not fit 64 bits.
    pub fn units(&self, decimal: &str) -> Option<u64> {
        let (whole, fraction) = match decimal.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (decimal, None),
        };
        let scale = usize::from(self.scale);
        if !is_digits(whole) || !fraction.is_none_or(is_digits) {
            return None;
        }
        let fraction = fraction.unwrap_or_default();
        if fraction.len() > scale {
            return None;
        }
        let text = format!("{whole}{fraction:0<scale$}");
        let significant = text.trim_start_matches('0');
        if significant.is_empty() {
            Some(0)
        } else {
            significant.parse().ok()
        }
    }
}

impl fmt::Display for Asset {
    /// `USD/9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.code, self.scale)
    }
}

impl FromStr for Asset {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (code, scale) = text.rsplit_once('/').ok_or(MoneyError::Asset)?;
        if !is_digits(scale) {
            return Err(MoneyError::Asset);
        }
        Self::new(code, scale.parse().map_err(|_| MoneyError::Asset)?)
    }
}

/// An exact fraction, zero or positive.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ratio {
    numerator: BigUint,
    denominator: BigUint,
}

impl Ratio {
    /// One.
    pub fn one() -> Self {
        Self::reduced(1u8.into(), 1u8.into())
    }

    /// Zero.
    pub fn zero() -> Self {
        Self::reduced(0u8.into(), 1u8.into())
    }

    /// 10 to this power.
    pub fn power_of_ten(exponent: usize) -> Self {
        Self::reduced(ten_to(exponent), 1u8.into())
    }

    /// `numerator / denominator`; a zero denominator is refused.
    pub fn new(numerator: u64, denominator: u64) -> Result<Self, MoneyError> {
        if denominator == 0 {
            return Err(MoneyError::Zero);
        }
        Ok(Self::reduced(numerator.into(), denominator.into()))
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.numerator == BigUint::ZERO
    }

    /// `1 / self`.
    pub fn inverse(&self) -> Result<Self, MoneyError> {
        if self.is_zero() {
            return Err(MoneyError::Zero);
        }
        Ok(Self {
            numerator: self.denominator.clone(),
            denominator: self.numerator.clone(),
        })
    }

    /// `self * other`.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        Self::reduced(
            &self.numerator * &other.numerator,
            &self.denominator * &other.denominator,
        )
    }

    /// `self * (1 - part)`: what is left of a rate after a spread, or of a price after slippage.
    pub fn less(&self, part: &Self) -> Result<Self, MoneyError> {
        if part.numerator >= part.denominator {
            return Err(MoneyError::WholeOrMore);
        }
        let left = &part.denominator - &part.numerator;
        Ok(Self::reduced(
            &self.numerator * left,
            &self.denominator * &part.denominator,
        ))
    }

    /// `self * (1 + part)`.
    #[must_use]
    pub fn more(&self, part: &Self) -> Self {
        Self::reduced(
            &self.numerator * (&part.denominator + &part.numerator),
            &self.denominator * &part.denominator,
        )
    }

    /// Lowest terms, so that equal ratios are equal and most fit 64 bits.
    fn reduced(numerator: BigUint, denominator: BigUint) -> Self {
        let divisor = gcd(numerator.clone(), denominator.clone());
        Self {
            numerator: numerator / &divisor,
            denominator: denominator / divisor,
        }
    }
}

/// Euclid's algorithm; the result is at least 1 as denominators are never zero.
fn gcd(mut a: BigUint, mut b: BigUint) -> BigUint {
    while b != BigUint::ZERO {
        (a, b) = (b.clone(), a % b);
    }
    a
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.numerator * &other.denominator).cmp(&(&other.numerator * &self.denominator))
    }
}

impl FromStr for Ratio {
    type Err = MoneyError;

    /// A plain decimal number, read exactly.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| is_digits(part) && part.len() <= RATE_DIGITS_MAX;
        if !digits(whole) || !digits(fraction) {
            return Err(MoneyError::Decimal);
        }
        let numerator = format!("{whole}{fraction}")
            .parse()
            .map_err(|_| MoneyError::Decimal)?;
        Ok(Self::reduced(numerator, ten_to(fraction.len())))
    }
}

impl fmt::Debug for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

impl fmt::Display for Ratio {
    /// A decimal number whose fraction is cut after twelve significant digits of the whole; for
    /// people, not for arithmetic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = &self.numerator / &self.denominator;
        let mut rest = &self.numerator % &self.denominator;
        let mut digits = String::new();
        let mut significant = if whole == BigUint::ZERO {
            0
        } else {
            whole.to_string().len()
        };
        while rest != BigUint::ZERO && significant < 12 && digits.len() < 2 * RATE_DIGITS_MAX {
            rest *= 10u8;
            let digit = &rest / &self.denominator;
            rest %= &self.denominator;
            if significant > 0 || digit != BigUint::ZERO {
                significant += 1;
            }
            digits += &digit.to_string();
        }
        let point = if digits.is_empty() { "" } else { "." };
        write!(f, "{whole}{point}{digits}")
    }
}

/// Plain digits, at least one: what the integer parsers take besides, such as a sign, is refused.
pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

pub(crate) fn ten_to(exponent: usize) -> BigUint {
    let exponent = u32::try_from(exponent).expect("a few hundred at most");
    BigUint::from(10u8).pow(exponent)
}

/// A ratio between units of two assets, ready for amounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    ratio: Ratio,
    /// The same in machine words where it fits, which is nearly always.
    words: Option<(u64, u64)>,
}

impl Conversion {
    /// `rate` is the number of whole `to` for one whole `from`, for example 0.92 from USD to EUR;
    /// the scales of both assets are taken care of.
    pub fn between(from: &Asset, to: &Asset, rate: &Ratio) -> Self {
        let scales = Ratio::reduced(
            ten_to(usize::from(to.scale)),
            ten_to(usize::from(from.scale)),
        );
        Self::of_units(rate.times(&scales))
    }

    /// `ratio` is the number of units out for one unit in.
    pub fn of_units(ratio: Ratio) -> Self {
        let words = u64::try_from(&ratio.numerator)
            .ok()
            .zip(u64::try_from(&ratio.denominator).ok());
        Self { ratio, words }
    }

    /// Units out for one unit in.
    pub fn ratio(&self) -> &Ratio {
        &self.ratio
    }

    /// `amount` converted, the fraction dropped: in favour of whoever pays the result out.
    pub fn round_down(&self, amount: u64) -> Result<u64, MoneyError> {
        if let Some((numerator, denominator)) = self.words {
            let out = u128::from(amount) * u128::from(numerator) / u128::from(denominator);
            return u64::try_from(out).map_err(|_| MoneyError::Overflow);
        }
        let out = &self.ratio.numerator * amount / &self.ratio.denominator;
        u64::try_from(out).map_err(|_| MoneyError::Overflow)
    }

    /// `amount` converted, a fraction counted as a whole unit: in favour of whoever gets the result.
    pub fn round_up(&self, amount: u64) -> Result<u64, MoneyError> {
        let product = &self.ratio.numerator * amount;
        let out = (product + &self.ratio.denominator - 1u8) / &self.ratio.denominator;
        u64::try_from(out).map_err(|_| MoneyError::Overflow)
    }

    /// The largest amount that [`Self::round_down`] turns into at most `out_max`; at most 2^64 - 1.
    pub fn largest_source(&self, out_max: u64) -> u64 {
        if self.ratio.is_zero() {
            return u64::MAX;
        }
        let below = (BigUint::from(out_max) + 1u8) * &self.ratio.denominator - 1u8;
        u64::try_from(below / &self.ratio.numerator).unwrap_or(u64::MAX)
    }
}
