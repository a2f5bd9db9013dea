//! The data of an F08 Reject: what arrived and what would have passed (RFC 27, InterledgerErrorData).
//!
//! ```
//! use rialto_packet::f08::AmountTooLarge;
//!
//! let data = AmountTooLarge { received_amount: 1000, maximum_amount: 500 };
//! assert_eq!(AmountTooLarge::parse(&data.to_bytes()), Some(data));
//! assert_eq!(AmountTooLarge::parse(b"too short"), None);
//! ```

/// Both amounts in the units in which the rejecting connector received the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmountTooLarge {
    /// What the packet carried.
    pub received_amount: u64,
    /// The most that passes, inclusive.
    pub maximum_amount: u64,
}

impl AmountTooLarge {
    /// Reads the 16 bytes; further bytes are ignored. `None` when there are fewer.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let received = data.get(..8)?.try_into().ok()?;
        let maximum = data.get(8..16)?.try_into().ok()?;
        Some(Self {
            received_amount: u64::from_be_bytes(received),
            maximum_amount: u64::from_be_bytes(maximum),
        })
    }

    /// The 16 bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.received_amount.to_be_bytes());
        bytes[8..].copy_from_slice(&self.maximum_amount.to_be_bytes());
        bytes
    }

    /// The most a sender can send in one packet when `sent_amount` arrived as `received_amount`,
    /// rounded down. `None` when the data contradicts itself and is best ignored.
    ///
    /// ```
    /// use rialto_packet::f08::AmountTooLarge;
    ///
    /// let data = AmountTooLarge { received_amount: 1000, maximum_amount: 500 };
    /// assert_eq!(data.sent_amount_max(30), Some(15));
    /// ```
    pub fn sent_amount_max(self, sent_amount: u64) -> Option<u64> {
        if self.received_amount <= self.maximum_amount {
            return None;
        }
        let max = u128::from(sent_amount) * u128::from(self.maximum_amount)
            / u128::from(self.received_amount);
        Some(u64::try_from(max).expect("at most sent_amount, as maximum is below received"))
    }
}
