//! The content of SPSP queries and answers (RFC 9), with the receipt headers of RFC 39.
//!
//! Fetching and serving belong to others; so does the advice to read no body above
//! [`BODY_BYTES_MAX`] and to follow no more than [`REDIRECTS_MAX`] redirects.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use rialto_packet::{
    Address, AddressError,
    money::{Asset, MoneyError},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    crypto::SharedSecret,
    receipt::{ReceiptDetails, ReceiptSecret},
};

/// Media type of answers.
pub const CONTENT_TYPE: &str = "application/spsp4+json";
/// What a client asks for; the first one is the only one some servers look at.
pub const ACCEPT: &str = "application/spsp4+json, application/spsp+json";
/// Carries the nonce of [`ReceiptDetails`] in base64.
pub const RECEIPT_NONCE_HEADER: &str = "receipt-nonce";
/// Carries the secret of [`ReceiptDetails`] in base64. Never to be sent on to a payer.
pub const RECEIPT_SECRET_HEADER: &str = "receipt-secret";
/// Largest answer worth reading.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most redirects worth following.
pub const REDIRECTS_MAX: usize = 5;

/// What a server answers: where to send and with which secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Of this query alone.
    pub destination_account: Address,
    /// Of this query alone.
    pub shared_secret: SharedSecret,
    /// The receiver will sign receipts.
    pub receipts_enabled: bool,
    /// In which the receiver counts, when the server says so.
    pub asset: Option<Asset>,
}

/// Why an answer or a header cannot be used.
#[derive(Debug, Error)]
pub enum SpspError {
    /// More than [`BODY_BYTES_MAX`].
    #[error("the answer has {0} bytes, at most 65536 are read")]
    TooLong(usize),
    /// Not the JSON object it should be, or no SPSP endpoint at all.
    #[error("not an spsp answer: {0}")]
    Json(#[from] serde_json::Error),
    /// The address is not one.
    #[error("destination_account: {0}")]
    Address(#[from] AddressError),
    /// Only direct neighbours have such addresses.
    #[error("destination_account must not begin with peer")]
    PeerAddress,
    /// Not base64, or not of 32 bytes.
    #[error("shared_secret is not 32 bytes in base64")]
    SharedSecret,
    /// Code or scale alone, or a code that is none.
    #[error("asset: {0}")]
    Asset(#[from] MoneyError),
    /// One of both headers is missing.
    #[error("receipt-nonce and receipt-secret must come together")]
    ReceiptHeaderMissing,
    /// Not base64, or not of 16 and 32 bytes.
    #[error("{0} is not {1} bytes in base64")]
    ReceiptHeader(&'static str, usize),
}

/// As it stands on the wire. Unknown fields are ignored.
#[derive(Serialize, Deserialize)]
struct Body {
    destination_account: String,
    shared_secret: String,
    #[serde(default)]
    receipts_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asset_code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asset_scale: Option<u8>,
}

impl Response {
    /// Reads and checks the body of an answer with status 200.
    pub fn parse(body: &[u8]) -> Result<Self, SpspError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(SpspError::TooLong(body.len()));
        }
        let body: Body = serde_json::from_slice(body)?;
        let destination_account: Address = body.destination_account.parse()?;
        if destination_account.as_ref().scheme() == "peer" {
            return Err(SpspError::PeerAddress);
        }
        let shared_secret = decode(&body.shared_secret).ok_or(SpspError::SharedSecret)?;
        let asset = match (body.asset_code, body.asset_scale) {
            (Some(code), Some(scale)) => Some(Asset::new(&code, scale)?),
            (Some(_), None) | (None, Some(_)) | (None, None) => None,
        };
        Ok(Self {
            destination_account,
            shared_secret: SharedSecret::from_bytes(shared_secret),
            receipts_enabled: body.receipts_enabled,
            asset,
        })
    }

    /// The body to answer with. The secret is in padded standard base64, which every client reads.
    pub fn to_json(&self) -> String {
        let body = Body {
            destination_account: self.destination_account.to_string(),
            shared_secret: BASE64_STANDARD.encode(self.shared_secret.as_bytes()),
            receipts_enabled: self.receipts_enabled,
            asset_code: self.asset.as_ref().map(|asset| asset.code().to_owned()),
            asset_scale: self.asset.as_ref().map(Asset::scale),
        };
        serde_json::to_string(&body).expect("plain fields can be written")
    }
}

/// The body of an answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Such as `InvalidReceiverError`.
    pub id: String,
    /// For people.
    pub message: String,
}

impl ErrorBody {
    /// For status 404: nobody here has this pointer.
    pub fn invalid_receiver() -> Self {
        Self {
            id: "InvalidReceiverError".to_owned(),
            message: "no such receiver".to_owned(),
        }
    }

    /// The body to answer with.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain fields can be written")
    }
}

/// Whether a client with this Accept header takes [`CONTENT_TYPE`]; otherwise answer 406. A quality
/// of zero is a no (RFC 9110, section 12.4.2).
pub fn accepts(accept: Option<&str>) -> bool {
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else {
        return true;
    };
    accept.split(',').any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let spsp = matches!(
            media.as_str(),
            "application/spsp4+json" | "application/spsp+json" | "application/*" | "*/*"
        );
        spsp && !parts.any(is_quality_zero)
    })
}

fn is_quality_zero(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    let value = value.trim();
    name.trim().eq_ignore_ascii_case("q")
        && value.starts_with('0')
        && value.bytes().all(|byte| byte == b'0' || byte == b'.')
}

/// The receipt details of a query from its two headers; `Ok(None)` when there are neither.
pub fn receipt_details(
    nonce: Option<&str>,
    secret: Option<&str>,
) -> Result<Option<ReceiptDetails>, SpspError> {
    let (nonce, secret) = match (nonce, secret) {
        (None, None) => return Ok(None),
        (Some(nonce), Some(secret)) => (nonce, secret),
        (Some(_), None) | (None, Some(_)) => return Err(SpspError::ReceiptHeaderMissing),
    };
    let nonce = decode(nonce).ok_or(SpspError::ReceiptHeader(RECEIPT_NONCE_HEADER, 16))?;
    let secret = decode(secret).ok_or(SpspError::ReceiptHeader(RECEIPT_SECRET_HEADER, 32))?;
    Ok(Some(ReceiptDetails {
        nonce,
        secret: ReceiptSecret::from_bytes(secret),
    }))
}

/// Exactly `N` bytes from either alphabet, padded or not.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [&alphabet::STANDARD, &alphabet::URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
        .and_then(|bytes| bytes.try_into().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: [u8; 32] = [0xfb; 32];

    fn with_secret(secret: &str) -> Result<Response, SpspError> {
        Response::parse(
            format!(r#"{{"destination_account":"g.bob.x","shared_secret":"{secret}"}}"#).as_bytes(),
        )
    }

    #[test]
    fn what_is_answered_can_be_read() {
        for asset in [None, Some(Asset::new("EUR", 6).unwrap())] {
            let response = Response {
                destination_account: "g.bob.x".parse().unwrap(),
                shared_secret: SharedSecret::from_bytes(SECRET),
                receipts_enabled: asset.is_some(),
                asset,
            };
            assert_eq!(
                Response::parse(response.to_json().as_bytes()).unwrap(),
                response
            );
        }
    }

    #[test]
    fn the_secret_is_written_with_padding_and_read_in_any_base64() {
        let standard = BASE64_STANDARD.encode(SECRET);
        let response = with_secret(&standard).unwrap();
        assert!(standard.ends_with('=') && standard.contains('+'));
        assert!(
            response
                .to_json()
                .contains(&format!(r#""shared_secret":"{standard}""#))
        );
        let url_safe = standard.replace('+', "-").replace('/', "_");
        for text in [
            &standard,
            &url_safe,
            &standard.replace('=', ""),
            &url_safe.replace('=', ""),
        ] {
            assert_eq!(
                with_secret(text).unwrap().shared_secret.as_bytes(),
                &SECRET,
                "{text}"
            );
        }
    }

    #[test]
    fn secrets_of_other_lengths_are_refused() {
        for bytes in [0, 31, 33] {
            let secret = BASE64_STANDARD.encode(vec![1; bytes]);
            assert!(matches!(with_secret(&secret), Err(SpspError::SharedSecret)));
        }
        assert!(matches!(with_secret("!"), Err(SpspError::SharedSecret)));
    }

    #[test]
    fn unknown_fields_are_ignored_and_bad_ones_are_not() {
        let secret = BASE64_STANDARD.encode(SECRET);
        let parse = |text: &str| Response::parse(text.replace("SECRET", &secret).as_bytes());
        assert!(
            parse(
                r#"{"destination_account":"g.b","shared_secret":"SECRET","pull":{},"asset_info":1}"#
            )
            .is_ok()
        );
        assert!(matches!(
            parse(r#"{"shared_secret":"SECRET"}"#),
            Err(SpspError::Json(_))
        ));
        assert!(matches!(
            parse(r#"{"destination_account":7,"shared_secret":"SECRET"}"#),
            Err(SpspError::Json(_))
        ));
        assert!(matches!(
            parse(r#"{"destination_account":"g..b","shared_secret":"SECRET"}"#),
            Err(SpspError::Address(_))
        ));
        assert!(matches!(
            parse(r#"{"destination_account":"peer.b","shared_secret":"SECRET"}"#),
            Err(SpspError::PeerAddress)
        ));
        assert!(matches!(
            parse(
                r#"{"destination_account":"g.b","shared_secret":"SECRET","asset_code":"","asset_scale":2}"#
            ),
            Err(SpspError::Asset(_))
        ));
        assert!(matches!(parse("<html>"), Err(SpspError::Json(_))));
        assert!(matches!(
            Response::parse(&vec![b' '; BODY_BYTES_MAX + 1]),
            Err(SpspError::TooLong(_))
        ));
    }

    #[test]
    fn accept_headers_are_understood() {
        for accept in [
            None,
            Some(""),
            Some(CONTENT_TYPE),
            Some(ACCEPT),
            Some("application/spsp+json"),
            Some("application/*"),
            Some("*/*"),
            Some("text/html, */*;q=0.1"),
            Some("Application/SPSP4+JSON ; q=1"),
        ] {
            assert!(accepts(accept), "{accept:?}");
        }
        for accept in [
            "text/html",
            "application/json",
            "application/spsp4+json;q=0",
            "*/*; q=0.00",
        ] {
            assert!(!accepts(Some(accept)), "{accept}");
        }
    }

    #[test]
    fn receipt_headers_come_together_and_in_full() {
        let nonce = BASE64_STANDARD.encode([3; 16]);
        let secret = BASE64_STANDARD.encode([4; 32]);
        let details = receipt_details(Some(&nonce), Some(&secret))
            .unwrap()
            .unwrap();
        assert_eq!(
            (details.nonce, details.secret.as_bytes()),
            ([3; 16], &[4; 32])
        );
        assert_eq!(receipt_details(None, None).unwrap(), None);
        for (nonce, secret) in [
            (Some(nonce.as_str()), None),
            (None, Some(secret.as_str())),
            (Some(secret.as_str()), Some(secret.as_str())),
            (Some(nonce.as_str()), Some(nonce.as_str())),
            (Some("?"), Some(secret.as_str())),
        ] {
            assert!(receipt_details(nonce, secret).is_err());
        }
    }

    #[test]
    fn errors_have_the_usual_shape() {
        assert_eq!(
            ErrorBody::invalid_receiver().to_json(),
            r#"{"id":"InvalidReceiverError","message":"no such receiver"}"#
        );
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), accept: String) {
            let _ = Response::parse(&bytes);
            let _ = accepts(Some(&accept));
            let _ = receipt_details(Some(&accept), Some(&accept));
        }
    }
}
