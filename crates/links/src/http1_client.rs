//! Packets to a peer over one HTTP/1.1 connection, one after the other.

use std::{
    fmt,
    future::poll_fn,
    io::Write,
    pin::Pin,
    task::{Context, Poll, ready},
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
    state: State,
    /// What came and was not yet used, or what the socket has not yet taken. Nothing between requests: memory
    /// that was used last by another connection is in the processor's cache, that of this one hardly.
    buffer: Vec<u8>,
}

/// How far a connection's request is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is none.
    Idle,
    /// So much of the buffer is written.
    Writing(usize),
    /// The answer is to come.
    Written,
    /// There will be none: it was closed before anything of it was written,
    Closed,
    /// or with a part of it written.
    Broken,
}

impl Http1 {
    pub(crate) fn new(stream: Stream, scratch: Scratch) -> Self {
        Self {
            stream,
            scratch,
            state: State::Idle,
            buffer: Vec::new(),
        }
    }

    /// Sends a packet, unless [`Self::poll_send`] has begun to, and reads what the peer answers. `head` is the
    /// peer's [`request_head`].
    ///
    /// A future that is dropped before it is done leaves a connection that cannot be used again.
    pub(crate) async fn exchange(&mut self, head: &[u8], packet: &[u8]) -> Outcome {
        if let Err(outcome) = poll_fn(|cx| self.poll_send(cx, head, packet)).await {
            return outcome;
        }
        let (outcome, len) = match self.receive().await {
            Ok(received) => received,
            Err(outcome) => return outcome,
        };
        if len < self.buffer.len() {
            // Bytes behind an answer belong to no request.
            self.state = State::Closed;
        }
        self.buffer = Vec::new();
        outcome
    }

    /// Whether no more requests can be sent. Wakes the task when that changes.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        if self.state == State::Idle {
            // Neither the end nor bytes that nobody asked for are to come.
            let read = self
                .scratch
                .poll_read(&mut self.stream, cx, &mut self.buffer, 1);
            if read.is_ready() {
                self.state = State::Closed;
            }
        }
        self.state == State::Closed
    }

    /// Whether a request was begun that is not answered.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.state, State::Writing(_) | State::Written)
    }

    /// Sends a packet; ready once all of it is written. `cx` is that of the task that will read the answer,
    /// whoever calls; that task meets an error again.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        packet: &[u8],
    ) -> Poll<Result<(), Outcome>> {
        loop {
            match self.state {
                State::Idle => {
                    // Whether the peer closed it meanwhile is seen before the packet is written.
                    if self.poll_closed(cx) {
                        return Poll::Ready(Err(Outcome::Unsent));
                    }
                    self.buffer.reserve(head.len() + packet.len() + 16);
                    self.buffer.extend_from_slice(head);
                    let _ = write!(self.buffer, "{}\r\n\r\n", packet.len());
                    self.buffer.extend_from_slice(packet);
                    self.state = State::Writing(0);
                }
                State::Writing(sent) => {
                    let written = ready!(self.poll_write(cx, sent));
                    self.buffer = Vec::new();
                    self.state = match written {
                        Ok(()) => State::Written,
                        Err(Outcome::Unsent) => State::Closed,
                        Err(_) => State::Broken,
                    };
                    return Poll::Ready(written);
                }
                State::Written => return Poll::Ready(Ok(())),
                State::Closed => return Poll::Ready(Err(Outcome::Unsent)),
                State::Broken => return Poll::Ready(Err(unanswered("it broke"))),
            }
        }
    }

    /// Writes the rest of the buffer.
    fn poll_write(&mut self, cx: &mut Context<'_>, mut sent: usize) -> Poll<Result<(), Outcome>> {
        while sent < self.buffer.len() {
            let rest = &self.buffer[sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(count @ 1..) => sent += count,
                // Nothing of it has reached the socket.
                Ok(0) | Err(_) if sent == 0 => return Poll::Ready(Err(Outcome::Unsent)),
                Ok(0) => return Poll::Ready(Err(unanswered("it is closed"))),
                Err(error) => return Poll::Ready(Err(unanswered(error))),
            }
            self.state = State::Writing(sent);
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        flushed.map_err(unanswered)
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
        self.state = match close {
            true => State::Closed,
            false => State::Idle,
        };
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
