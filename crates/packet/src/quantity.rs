//! Amounts of any size at a scale of their own, as settlement engines tell them (RFC 38, section
//! Units and Quantities), and what is left of them in another scale.
//!
//! ```
//! use rialto_packet::quantity::Quantity;
//!
//! let received: Quantity = "8053/12".parse()?;
//! let (units, leftover) = received.units_at(9).expect("fits 64 bits");
//! assert_eq!((units, leftover.to_string()), (8, "53/12".to_owned()));
//! # Ok::<(), rialto_packet::quantity::QuantityError>(())
//! ```

use std::{fmt, str::FromStr};

use num_bigint::BigUint;
use thiserror::Error;

use crate::money::{is_digits, ten_to};

/// Most digits of an amount: far more than any ledger counts, and little enough to be read from
/// strangers.
pub const QUANTITY_DIGITS_MAX: usize = 100;

/// `amount` units of 10^-`scale`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Quantity {
    amount: BigUint,
    scale: u8,
}

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Signs, points, blanks, or too much of it.
    #[error("amount must be 1 to {QUANTITY_DIGITS_MAX} decimal digits")]
    Amount,
    /// Not of the form `905/11`.
    #[error("quantity must be written AMOUNT/SCALE with a scale from 0 to 255, such as 905/11")]
    Scale,
}

impl Quantity {
    /// Reads an amount as it stands in an engine's message.
    pub fn new(amount: &str, scale: u8) -> Result<Self, QuantityError> {
        if !is_digits(amount) || amount.len() > QUANTITY_DIGITS_MAX {
            return Err(QuantityError::Amount);
        }
        let amount = amount.parse().map_err(|_| QuantityError::Amount)?;
        Ok(Self { amount, scale })
    }

    /// An amount of an account's asset.
    pub fn of_units(amount: u64, scale: u8) -> Self {
        Self {
            amount: amount.into(),
            scale,
        }
    }

    /// The digits of the amount.
    pub fn amount(&self) -> String {
        self.amount.to_string()
    }

    /// Power of ten of its unit: 10^-scale.
    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.amount == BigUint::ZERO
    }

    /// Both together, exactly, in the finer of the two scales.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let scale = self.scale.max(other.scale);
        Self {
            amount: self.at(scale) + other.at(scale),
            scale,
        }
    }

    /// The whole units of `scale` in it, and exactly what is left, which is less than one of them.
    /// `None` when the units do not fit 64 bits.
    pub fn units_at(&self, scale: u8) -> Option<(u64, Self)> {
        let finest = self.scale.max(scale);
        let (amount, unit) = (self.at(finest), ten_to(usize::from(finest - scale)));
        let units = u64::try_from(&amount / &unit).ok()?;
        let leftover = Self {
            amount: amount % unit,
            scale: finest,
        };
        Some((units, leftover))
    }

    /// The amount in units of 10^-`scale`, which is not coarser than its own.
    fn at(&self, scale: u8) -> BigUint {
        &self.amount * ten_to(usize::from(scale - self.scale))
    }
}

impl fmt::Display for Quantity {
    /// `905/11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.amount, self.scale)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    /// What [`Display`](fmt::Display) wrote: a leftover, which is less than one unit of some scale, has up to 255
    /// digits, more than [`Self::new`] takes from strangers.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (amount, scale) = text.rsplit_once('/').ok_or(QuantityError::Scale)?;
        if !is_digits(scale) {
            return Err(QuantityError::Scale);
        }
        if !is_digits(amount) || amount.len() > usize::from(u8::MAX) {
            return Err(QuantityError::Amount);
        }
        Ok(Self {
            amount: amount.parse().map_err(|_| QuantityError::Amount)?,
            scale: scale.parse().map_err(|_| QuantityError::Scale)?,
        })
    }
}
