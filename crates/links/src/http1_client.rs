//! Packets to a peer over one HTTP/1.1 connection, one after the other.

use std::{
    fmt,
    future::poll_fn,
    io::Write,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::{
    body::PACKET_BODY_BYTES_MAX,
    connect::Stream,
    directory::HttpPeer,
    http_client::{Answer, Outcome, Special, judge_head, too_large},
    http1::{self, BodyEnd, Chunks, ChunksState, HEAD_BYTES_MAX},
    scratch::Scratch,
};

/// Most bytes of a response: the largest packet with its head, and as much again for the sizes of
/// chunks.
const RESPONSE_BYTES_MAX: usize = HEAD_BYTES_MAX + 2 * PACKET_BODY_BYTES_MAX;
/// Bytes of buffer that a connection keeps between requests.
const IDLE_BUFFER_BYTES_MAX: usize = 2 * 1024;

/// The head of a request to a peer, up to the value of `Content-Length`.
pub(crate) fn request_head(peer: &HttpPeer, special: &Special) -> Vec<u8> {
    let path = special.path.as_ref().or(peer.url.path_and_query());
    let path = path.map_or("/", |path| path.as_str());
    let mut head = format!("POST {path} HTTP/1.1\r\n").into_bytes();
    for (name, value) in peer.headers_http1().iter().chain(&special.headers) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"content-length: ");
    head
}

/// A connection that is kept alive.
pub(crate) struct Http1 {
    stream: Stream,
    scratch: Scratch,
    buffer: Vec<u8>,
    /// No more requests can be sent.
    closed: bool,
}

impl Http1 {
    pub(crate) fn new(stream: Stream, scratch: Scratch) -> Self {
        Self {
            stream,
            scratch,
            buffer: Vec::new(),
            closed: false,
        }
    }

    /// Sends a packet and reads what the peer answers. `head` is the peer's [`request_head`].
    ///
    /// A future that is dropped before it is done leaves a connection that cannot be used again.
    pub(crate) async fn exchange(&mut self, head: &[u8], packet: &[u8]) -> Outcome {
        // Whether the peer closed it meanwhile is seen before the packet is written.
        if poll_fn(|cx| Poll::Ready(self.poll_closed(cx))).await {
            return Outcome::Unsent;
        }
        self.closed = true;
        if let Err(outcome) = self.send(head, packet).await {
            return outcome;
        }
        self.buffer.clear();
        let (outcome, len) = match self.receive().await {
            Ok(received) => received,
            Err(outcome) => return outcome,
        };
        // Bytes behind an answer belong to no request.
        self.closed |= len < self.buffer.len();
        self.buffer.clear();
        if self.buffer.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.buffer.shrink_to(IDLE_BUFFER_BYTES_MAX);
        }
        outcome
    }

    /// Whether no more requests can be sent. Wakes the task when that changes.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.closed {
            // Neither the end nor bytes that nobody asked for are to come.
            let read = self
                .scratch
                .poll_read(&mut self.stream, cx, &mut self.buffer, 1);
            self.closed = read.is_ready();
        }
        self.closed
    }

    async fn send(&mut self, head: &[u8], packet: &[u8]) -> Result<(), Outcome> {
        self.buffer.clear();
        self.buffer.extend_from_slice(head);
        let _ = write!(self.buffer, "{}\r\n\r\n", packet.len());
        self.buffer.extend_from_slice(packet);
        let mut sent = 0;
        poll_fn(|cx| {
            while sent < self.buffer.len() {
                let rest = &self.buffer[sent..];
                match Pin::new(&mut self.stream).poll_write(cx, rest) {
                    Poll::Ready(Ok(count @ 1..)) => sent += count,
                    // Nothing of it has reached the socket.
                    Poll::Ready(Ok(0) | Err(_)) if sent == 0 => {
                        return Poll::Ready(Err(Outcome::Unsent));
                    }
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(unanswered("it is closed"))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(unanswered(error))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let flushed = Pin::new(&mut self.stream).poll_flush(cx);
            flushed.map_err(unanswered)
        })
        .await
    }

    /// What became of the packet, and how many bytes of the buffer said so.
    async fn receive(&mut self) -> Result<(Outcome, usize), Outcome> {
        let mut start = 0;
        let (answer, body_end, close) = loop {
            match http1::response(&self.buffer[start..]) {
                Ok(None) => self.fill().await?,
                // Another head follows (RFC 9110, section 15.2).
                Ok(Some(head)) if head.status < 200 && head.status != 101 => start += head.head_len,
                Ok(Some(head)) => {
                    let answer = judge_head(head.status, head.content_type)?;
                    start += head.head_len;
                    break (answer, head.body, head.close);
                }
                Err(malformed) => return Err(unanswered(malformed)),
            }
        };
        let received = match body_end {
            BodyEnd::Length(len) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                if len > PACKET_BODY_BYTES_MAX {
                    return Err(too_large());
                }
                while self.buffer.len() < start + len {
                    self.fill().await?;
                }
                let end = start + len;
                let packet = Bytes::copy_from_slice(&self.buffer[start..end]);
                (Outcome::Reply(packet), end)
            }
            BodyEnd::Chunks => {
                let mut chunks = Chunks::default();
                loop {
                    match chunks.read(&self.buffer[start..], PACKET_BODY_BYTES_MAX) {
                        Ok(ChunksState::Partial) => self.fill().await?,
                        Ok(ChunksState::Complete { body, len }) => {
                            break (Outcome::Reply(body.into()), start + len);
                        }
                        Ok(ChunksState::TooLarge) => return Err(too_large()),
                        Err(malformed) => return Err(unanswered(malformed)),
                    }
                }
            }
            BodyEnd::Close => {
                while self.read().await? > 0 {}
                if self.buffer.len() - start > PACKET_BODY_BYTES_MAX {
                    return Err(too_large());
                }
                let packet = Bytes::copy_from_slice(&self.buffer[start..]);
                (Outcome::Reply(packet), self.buffer.len())
            }
        };
        self.closed = close;
        Ok(match (answer, received) {
            (Answer::Reply, received) => received,
            (Answer::Accepted, (_, len)) => (Outcome::Accepted, len),
        })
    }

    async fn fill(&mut self) -> Result<(), Outcome> {
        match self.read().await? {
            0 => Err(unanswered("the connection was closed")),
            _ => Ok(()),
        }
    }

    /// 0 is the end.
    async fn read(&mut self) -> Result<usize, Outcome> {
        let max = RESPONSE_BYTES_MAX - self.buffer.len();
        if max == 0 {
            return Err(too_large());
        }
        poll_fn(|cx| {
            self.scratch
                .poll_read(&mut self.stream, cx, &mut self.buffer, max)
        })
        .await
        .map_err(unanswered)
    }
}

/// The peer may have taken the packet.
fn unanswered(why: impl fmt::Display) -> Outcome {
    Outcome::Unknown(format!("peer did not answer a packet: {why}"))
}
