//! Packets to a peer over one HTTP/1.1 connection, one after the other.

use std::{
    fmt,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

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
enum State {
    /// There is none.
    Idle,
    /// So much of the buffer is written.
    Writing(usize),
    /// The head of the answer is to come, behind so many bytes that say nothing.
    Head(usize),
    /// Its body is.
    Body(Body),
    /// There will be none: the connection was closed before anything of the request was written,
    Closed,
    /// or with a part of it written, for this reason.
    Broken(String),
}

/// The body of an answer.
struct Body {
    /// Where it begins.
    start: usize,
    answer: Answer,
    rest: Rest,
    /// The connection ends with it.
    close: bool,
}

/// Where it ends.
enum Rest {
    Length(usize),
    Chunks(Box<Chunks>),
    Close,
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
    pub(crate) fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        packet: &[u8],
    ) -> Poll<Outcome> {
        if let Err(outcome) = ready!(self.poll_send(cx, head, packet)) {
            return Poll::Ready(outcome);
        }
        let received = ready!(self.poll_receive(cx));
        Poll::Ready(received.unwrap_or_else(|outcome| outcome))
    }

    /// Whether another request can be sent.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether no more requests can be sent. Wakes the task when that changes.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_idle() {
            // Neither the end nor bytes that nobody asked for are to come.
            let read = self
                .scratch
                .poll_read(&mut self.stream, cx, &mut self.buffer, 1);
            if read.is_ready() {
                self.state = State::Closed;
            }
        }
        matches!(self.state, State::Closed)
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
            match &self.state {
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
                    let written = ready!(self.poll_write(cx, *sent));
                    self.buffer = Vec::new();
                    self.state = match (written, &self.state) {
                        (Ok(()), _) => State::Head(0),
                        // Nothing of it has reached the socket.
                        (Err(_), State::Writing(0)) => State::Closed,
                        (Err(error), _) => State::Broken(error.to_string()),
                    };
                }
                State::Head(_) | State::Body(_) => return Poll::Ready(Ok(())),
                State::Closed => return Poll::Ready(Err(Outcome::Unsent)),
                State::Broken(why) => return Poll::Ready(Err(unanswered(why))),
            }
        }
    }

    /// Writes the rest of the buffer, and keeps in the state how much is written.
    fn poll_write(&mut self, cx: &mut Context<'_>, mut sent: usize) -> Poll<io::Result<()>> {
        while sent < self.buffer.len() {
            let rest = &self.buffer[sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => sent += count,
            }
            self.state = State::Writing(sent);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// What became of the packet. After an error the connection cannot be used again.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outcome, Outcome>> {
        while let State::Head(start) = &mut self.state {
            match http1::response(&self.buffer[*start..]) {
                Ok(None) => ready!(self.poll_fill(cx))?,
                // Another head follows (RFC 9110, section 15.2).
                Ok(Some(head)) if head.status < 200 && head.status != 101 => {
                    *start += head.head_len;
                }
                Ok(Some(head)) => {
                    let answer = judge_head(head.status, head.content_type)?;
                    let rest = match head.body {
                        BodyEnd::Length(len) => {
                            let len = usize::try_from(len).ok();
                            let len = len.filter(|len| *len <= PACKET_BODY_BYTES_MAX);
                            Rest::Length(len.ok_or_else(too_large)?)
                        }
                        BodyEnd::Chunks => Rest::Chunks(Box::default()),
                        BodyEnd::Close => Rest::Close,
                    };
                    self.state = State::Body(Body {
                        start: *start + head.head_len,
                        answer,
                        rest,
                        close: head.close,
                    });
                }
                Err(malformed) => return Poll::Ready(Err(unanswered(malformed))),
            }
        }
        loop {
            let State::Body(Body {
                start,
                answer,
                rest,
                close,
            }) = &mut self.state
            else {
                unreachable!("a request was written, and not yet answered");
            };
            let (start, answer, close) = (*start, *answer, *close);
            let came = &self.buffer[start..];
            let whole = match rest {
                Rest::Length(len) => came.get(..*len).map(|body| (body.to_vec(), *len)),
                Rest::Chunks(chunks) => match chunks.read(came, PACKET_BODY_BYTES_MAX) {
                    Ok(ChunksState::Partial) => None,
                    Ok(ChunksState::Complete { body, len }) => Some((body, len)),
                    Ok(ChunksState::TooLarge) => return Poll::Ready(Err(too_large())),
                    Err(malformed) => return Poll::Ready(Err(unanswered(malformed))),
                },
                Rest::Close if came.len() > PACKET_BODY_BYTES_MAX => {
                    return Poll::Ready(Err(too_large()));
                }
                Rest::Close => match ready!(self.poll_read(cx))? {
                    0 => Some((self.buffer.split_off(start), 0)),
                    _ => continue,
                },
            };
            let Some((packet, len)) = whole else {
                ready!(self.poll_fill(cx))?;
                continue;
            };
            // Bytes behind an answer belong to no request.
            let ends = close || start + len < self.buffer.len();
            self.buffer = Vec::new();
            self.state = match ends {
                true => State::Closed,
                false => State::Idle,
            };
            return Poll::Ready(Ok(match answer {
                Answer::Reply => Outcome::Reply(packet.into()),
                Answer::Accepted => Outcome::Accepted,
            }));
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        Poll::Ready(match ready!(self.poll_read(cx))? {
            0 => Err(unanswered("the connection was closed")),
            _ => Ok(()),
        })
    }

    /// 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Outcome>> {
        let max = RESPONSE_BYTES_MAX - self.buffer.len();
        if max == 0 {
            return Poll::Ready(Err(too_large()));
        }
        let read = self
            .scratch
            .poll_read(&mut self.stream, cx, &mut self.buffer, max);
        read.map_err(unanswered)
    }
}

/// The peer may have taken the packet.
fn unanswered(why: impl fmt::Display) -> Outcome {
    Outcome::Unknown(format!("peer did not answer a packet: {why}"))
}
