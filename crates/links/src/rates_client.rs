//! Asks a server outside for exchange rates.

use std::time::Duration;

use http::{StatusCode, header::CONTENT_TYPE};
use rialto_connector::quotes::QUOTES_BYTES_MAX;
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    body::{self, BodyError},
    spsp_client::{get, header_text, shown},
    tls::ClientTls,
};

/// How long an answer may take, its body included.
pub const RATES_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there are no rates.
#[derive(Debug, Error)]
pub enum RatesError {
    /// No connection, or it broke.
    #[error("cannot ask {url}: {error}")]
    Unreachable {
        /// Which URL.
        url: String,
        /// What happened.
        error: String,
    },
    /// Nothing, or not all of it, within [`RATES_TIMEOUT`].
    #[error("{0} did not answer within {n} s", n = RATES_TIMEOUT.as_secs())]
    Timeout(String),
    /// Another place to ask, which an operator has to approve.
    #[error(
        "{url} redirects to {location:?}, which is not followed: set rates.url to it if it is right"
    )]
    Redirect {
        /// Which URL.
        url: String,
        /// Where it leads.
        location: String,
    },
    /// Another status than 200.
    #[error("{url} answered with status {status}")]
    Status {
        /// Which URL.
        url: String,
        /// What came back.
        status: StatusCode,
    },
}

/// What came with status 200, whatever it is.
#[derive(Debug)]
pub struct RatesBody {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What the server calls it, for messages.
    pub content_type: String,
}

/// Gets `url`, `http://` or `https://`; redirects are not followed. Needs a tokio runtime of any kind.
///
/// # Errors
/// See [`RatesError`].
pub async fn fetch(url: &str, tls: &ClientTls) -> Result<RatesBody, RatesError> {
    timeout(RATES_TIMEOUT, fetch_url(url, tls))
        .await
        .unwrap_or_else(|_| Err(RatesError::Timeout(url.to_owned())))
}

async fn fetch_url(url: &str, tls: &ClientTls) -> Result<RatesBody, RatesError> {
    let unreachable = |error: String| RatesError::Unreachable {
        url: url.to_owned(),
        error,
    };
    let response = get(url, "application/json, application/xml, text/xml", tls);
    let (head, body) = response.await.map_err(unreachable)?.into_parts();
    let url = url.to_owned();
    if head.status.is_redirection() {
        let location = header_text(&head.headers, &http::header::LOCATION);
        let location = shown(location);
        return Err(RatesError::Redirect { url, location });
    }
    if head.status != StatusCode::OK {
        let status = head.status;
        return Err(RatesError::Status { url, status });
    }
    let content_type = shown(header_text(&head.headers, &CONTENT_TYPE));
    let bytes = body::read(body, QUOTES_BYTES_MAX).await;
    let bytes = bytes.map_err(|error| match error {
        BodyError::TooLarge => unreachable("the answer is too long".to_owned()),
        BodyError::Broken(error) => unreachable(error.to_string()),
    })?;
    Ok(RatesBody {
        bytes: bytes.to_vec(),
        content_type,
    })
}
