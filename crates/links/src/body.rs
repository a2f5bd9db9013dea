//! Bodies of HTTP messages, up to a bound.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};

/// Most bytes of an HTTP body with a packet. The largest packet has 33,857 (ilp-over-http.md,
/// section 3).
pub const PACKET_BODY_BYTES_MAX: usize = 40_000;

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum BodyError<E = hyper::Error> {
    TooLarge,
    Broken(E),
}

/// Reads a body of at most `max` bytes. One that says it has more is not read at all; one that turns
/// out to have more is read no further.
pub(crate) async fn read<B>(mut body: B, max: usize) -> Result<Bytes, BodyError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut parts = Parts::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(BodyError::Broken)?;
        // What is no data are trailers.
        if let Ok(data) = frame.into_data()
            && !parts.add(&data, max)
        {
            return Err(BodyError::TooLarge);
        }
    }
    Ok(parts.whole())
}

/// What has come of a body. A packet mostly comes in one piece, which needs no copy.
#[derive(Default)]
struct Parts {
    first: Bytes,
    rest: BytesMut,
}

impl Parts {
    /// False: it would be more than `max` bytes together.
    fn add(&mut self, data: &Bytes, max: usize) -> bool {
        if self.first.len() + self.rest.len() + data.len() > max {
            return false;
        }
        if self.first.is_empty() {
            self.first = data.clone();
        } else {
            self.rest.extend_from_slice(data);
        }
        true
    }

    fn whole(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::from(self.first);
        whole.unsplit(self.rest);
        whole.freeze()
    }
}

/// The body of a message by HTTP/2: read as one, or piece by piece.
pub(crate) struct Http2Body {
    stream: RecvStream,
    parts: Parts,
}

impl Http2Body {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let parts = Parts::default();
        Self { stream, parts }
    }

    /// All of it, up to `max` bytes.
    pub(crate) fn poll_whole(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Bytes, BodyError<h2::Error>>> {
        while let Some(data) = ready!(self.poll_data(cx)) {
            match data {
                Ok(data) if self.parts.add(&data, max) => {}
                Ok(_) => return Poll::Ready(Err(BodyError::TooLarge)),
                Err(error) => return Poll::Ready(Err(BodyError::Broken(error))),
            }
        }
        Poll::Ready(Ok(mem::take(&mut self.parts).whole()))
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let data = ready!(self.stream.poll_data(cx));
        Poll::Ready(match data {
            Some(Ok(data)) => {
                // Room for as much again. The stream may have ended meanwhile.
                let _ = self.stream.flow_control().release_capacity(data.len());
                Some(Ok(data))
            }
            // Whoever has said all and does not want to hear more (RFC 9113, section 8.1).
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => None,
            other => other,
        })
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let data = self.get_mut().poll_data(cx);
        data.map(|data| data.map(|data| data.map(Frame::data)))
    }
}
