//! Bodies of HTTP messages, up to a bound.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

/// Most bytes of an HTTP body with a packet. The largest packet has 33,857 (ilp-over-http.md,
/// section 3).
pub const PACKET_BODY_BYTES_MAX: usize = 40_000;

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum BodyError {
    TooLarge,
    Broken(hyper::Error),
}

/// Reads a body of at most `max` bytes. One that says it has more is not read at all; one that turns
/// out to have more is read no further.
pub(crate) async fn read(mut body: Incoming, max: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(BodyError::Broken)?;
        let Ok(data) = frame.into_data() else {
            continue; // trailers
        };
        if first.len() + rest.len() + data.len() > max {
            return Err(BodyError::TooLarge);
        }
        // A packet mostly comes in one piece, which needs no copy.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    whole.unsplit(rest);
    Ok(whole.freeze())
}
