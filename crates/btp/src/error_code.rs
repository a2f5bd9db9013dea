//! Error codes of BTP (RFC 23, Error Codes). They are not the error codes of ILP.

use std::fmt;

/// Three characters; the first one says whether a repetition may help.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode([u8; 3]);

macro_rules! codes {
    ($($constant:ident $text:literal $name:literal $doc:literal;)*) => {
        impl ErrorCode {
            $(#[doc = $doc] pub const $constant: Self = Self(*$text);)*

            /// Every code that RFC 23 names.
            pub const ALL: &[Self] = &[$(Self::$constant),*];

            /// The name in RFC 23, or `"UnknownError"`.
            pub fn name(self) -> &'static str {
                match &self.0 {
                    $($text => $name,)*
                    _ => "UnknownError",
                }
            }
        }
    };
}

codes! {
    UNREACHABLE b"T00" "UnreachableError" "The peer or what stands behind it cannot be reached now.";
    NOT_ACCEPTED b"F00" "NotAcceptedError" "Data, authentication or request are not acceptable.";
    INVALID_FIELDS b"F01" "InvalidFieldsError" "Malformed or disallowed fields.";
    TRANSFER_NOT_FOUND b"F03" "TransferNotFoundError" "Of BTP 1.";
    INVALID_FULFILLMENT b"F04" "InvalidFulfillmentError" "Of BTP 1.";
    DUPLICATE_ID b"F05" "DuplicateIdError" "A request id was used again with other contents.";
    ALREADY_ROLLED_BACK b"F06" "AlreadyRolledBackError" "Of BTP 1.";
    ALREADY_FULFILLED b"F07" "AlreadyFulfilledError" "Of BTP 1.";
    INSUFFICIENT_BALANCE b"F08" "InsufficientBalanceError" "A Transfer exceeds the sender's balance.";
}

impl ErrorCode {
    /// Any three bytes, as they stand in a frame.
    pub fn from_bytes(bytes: [u8; 3]) -> Self {
        Self(bytes)
    }

    /// The three bytes.
    pub fn to_bytes(self) -> [u8; 3] {
        self.0
    }

    /// Whether the same request may succeed later. Unknown classes count as final.
    pub fn is_temporary(self) -> bool {
        self.0[0] == b'T'
    }
}

impl fmt::Display for ErrorCode {
    /// The code; bytes that do not print are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} {}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_names_and_class() {
        assert_eq!(
            format!("{:?}", ErrorCode::NOT_ACCEPTED),
            "F00 NotAcceptedError"
        );
        assert_eq!(ErrorCode::from_bytes(*b"T07").name(), "UnknownError");
        assert!(ErrorCode::from_bytes(*b"T07").is_temporary());
        assert_eq!(ErrorCode::from_bytes(*b"F\xff0").to_string(), "F\\xff0");
        let temporary = ErrorCode::ALL.iter().filter(|code| code.is_temporary());
        assert_eq!(temporary.count(), 1);
    }
}
