//! The packet path of HTTP/1.1: `POST` with a length, one request after the other.
//!
//! ```text
//! head ──▶ refused, unless sound ──▶ whose? ──▶ body ──▶ core ──▶ answer, written at once ──▶ next head
//!   └────▶ handed over to hyper, with the bytes read, when it asks for more than this
//! ```
//!
//! Whoever has the core's answer writes it to the socket, and the connection's task sleeps on until the client
//! has another request: with some hundred connections its memory is in no cache, and costs when it is touched.

use std::{
    cell::RefCell,
    io::{self, Write},
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::BytesMut;
use http::StatusCode;
use rialto_connector::RequestId;
use rialto_ledger::AccountId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    alarm::Alarm,
    body::PACKET_BODY_BYTES_MAX,
    directory::{Visitor, bearer},
    http1::{self, HEAD_BYTES_MAX, RequestError, RequestHead},
    server::{
        BODY_LATE, BODY_TIMEOUT, BODY_TOO_LARGE, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT, NOT_AUTHORIZED,
        NOT_PACKET_TYPE, Permit, Plain, Route, is_packet_type,
    },
    waiting::Respond,
    worker::{Unfinished, Worker},
};

/// Most bytes that wait in a connection: the largest packet with its head. Before the client has
/// said who it is, [`HEAD_BYTES_MAX`].
const BUFFER_BYTES_MAX: usize = HEAD_BYTES_MAX + PACKET_BODY_BYTES_MAX;
/// How HTTP/2 by prior knowledge begins (RFC 9113, section 3.4); no HTTP/1.1 method does.
const PREFACE: &[u8] = b"PRI";
/// How long a client may take to see that the connection ends.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes that are read of a client meanwhile.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// A connection that wants more than packets.
pub(crate) struct HandOver {
    /// What was read of it: the first request that is not answered, and what came behind.
    pub(crate) read: Vec<u8>,
    /// Which protocol it speaks.
    pub(crate) http2: bool,
}

/// A connection that packets come on: done when it ends, or with what is left of it when it wants more.
pub(crate) struct Http1<S>(Option<Rc<RefCell<Connection<S>>>>);

/// What the connection's task shares with whoever has the core's answer.
struct Connection<S> {
    worker: Rc<Worker>,
    permit: Rc<Permit>,
    stream: S,
    state: State,
    is_first: bool,
    /// What came and was not yet used. No memory is kept for it: what another connection has used last is in
    /// the processor's caches, what this one has hardly.
    read: Vec<u8>,
    buffer_max: usize,
    visitor: Visitor,
    alarm: Alarm,
    /// How long the client may take,
    allowed: Duration,
    /// and until when, once it was waited for.
    deadline: Option<Instant>,
    /// Of the task, which is never another.
    waker: Option<Waker>,
}

/// How far a request is.
enum State {
    /// Its head is to come, or the rest of it.
    Head { has_begun: bool },
    /// Its body is.
    Body {
        packet: Packet,
        unfinished: Rc<Unfinished>,
    },
    /// The core has the packet.
    Asked {
        request: RequestId,
        close: bool,
        unfinished: Rc<Unfinished>,
    },
    /// So much of the answer is written.
    Writing {
        bytes: Vec<u8>,
        sent: usize,
        close: bool,
        unfinished: Rc<Unfinished>,
    },
    /// All of it is.
    Written,
    /// It was the last one. A socket that is closed with bytes unread is reset, and the answer with it; so the
    /// client is given time to see it, and what it still sends is thrown away.
    Ending {
        is_shut: bool,
        thrown_away: usize,
        _unfinished: Rc<Unfinished>,
    },
}

/// A packet whose head was judged.
#[derive(Clone, Copy)]
struct Packet {
    account: AccountId,
    head_len: usize,
    /// Of the request.
    end: usize,
    close: bool,
}

/// Why a connection does not go on.
enum End {
    /// The client went away, or has been told to.
    Gone,
    /// The client took too long.
    Late,
}

/// What the head of a request leads to.
enum Verdict {
    HandOver {
        http2: bool,
    },
    /// `end`: of the request, if it may be skipped to come to the next.
    Refuse {
        answer: Plain,
        end: Option<usize>,
        close: bool,
    },
    Packet(Packet),
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Http1<S> {
    pub(crate) fn new(worker: Rc<Worker>, permit: Rc<Permit>, stream: S) -> Self {
        Self(Some(Rc::new(RefCell::new(Connection {
            worker,
            permit,
            stream,
            state: State::Head { has_begun: true },
            is_first: true,
            read: Vec::new(),
            buffer_max: HEAD_BYTES_MAX,
            visitor: Visitor::default(),
            alarm: Alarm::new(Instant::now() + HANDSHAKE_TIMEOUT),
            allowed: HANDSHAKE_TIMEOUT,
            deadline: None,
            waker: None,
        }))))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Future for Http1<S> {
    type Output = Option<(HandOver, S)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.0.as_ref().expect("it is not polled when it is done");
        let ended = ready!(shared.borrow_mut().poll(shared, cx));
        Poll::Ready(ended.ok().and_then(|http2| {
            let shared = Rc::into_inner(self.0.take()?).expect("the core has no packet of it");
            let Connection { stream, read, .. } = shared.into_inner();
            Some((HandOver { read, http2 }, stream))
        }))
    }
}

impl<S> Drop for Http1<S> {
    fn drop(&mut self) {
        if let Some(connection) = &self.0
            && let Connection {
                worker,
                state: State::Asked { request, .. },
                ..
            } = &*connection.borrow()
        {
            worker.forget(*request);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Connection<S> {
    /// Goes on as far as it can. Ready with whether it wants HTTP/2, where it wants more than packets. `this` is
    /// the connection itself.
    fn poll(&mut self, this: &Rc<RefCell<Self>>, cx: &mut Context<'_>) -> Poll<Result<bool, End>> {
        loop {
            match self.state {
                State::Head { .. } => match self.verdict() {
                    None => ready!(self.poll_fill(cx))?,
                    Some(Verdict::HandOver { http2 }) => return Poll::Ready(Ok(http2)),
                    Some(Verdict::Refuse { answer, end, close }) => {
                        // A body that has yet to come is not waited for.
                        let end = end.filter(|end| *end <= self.read.len());
                        let close = close || end.is_none() || self.worker.is_draining();
                        self.consume(end.unwrap_or_default());
                        self.refuse(&answer, close);
                    }
                    Some(Verdict::Packet(packet)) => {
                        if self.buffer_max != BUFFER_BYTES_MAX {
                            self.buffer_max = BUFFER_BYTES_MAX;
                            self.permit.authenticated();
                        }
                        self.allow(BODY_TIMEOUT);
                        let unfinished = self.worker.unfinished();
                        self.state = State::Body { packet, unfinished };
                    }
                },
                State::Body { packet, .. } if self.read.len() < packet.end => {
                    match ready!(self.poll_fill(cx)) {
                        Ok(()) => {}
                        Err(End::Late) => self.refuse(&BODY_LATE, true),
                        Err(End::Gone) => return Poll::Ready(Err(End::Gone)),
                    }
                }
                State::Body {
                    packet,
                    ref unfinished,
                } => {
                    let unfinished = Rc::clone(unfinished);
                    let bytes = BytesMut::from(&self.read[packet.head_len..packet.end]);
                    self.consume(packet.end);
                    self.waker.get_or_insert_with(|| cx.waker().clone());
                    let connection = Rc::clone(this);
                    let request =
                        self.worker
                            .packet_on_connection(packet.account, bytes, connection);
                    self.state = State::Asked {
                        request,
                        close: packet.close,
                        unfinished,
                    };
                }
                State::Asked { .. } => return self.poll_meanwhile(cx),
                State::Writing { .. } => match self.poll_write(cx) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => return self.poll_late(cx).map(Err),
                },
                State::Written => {
                    self.is_first = false;
                    self.state = State::Head { has_begun: false };
                    self.allow(HEAD_TIMEOUT);
                }
                State::Ending { .. } => return self.poll_end(cx).map(Err),
            }
        }
    }

    /// What the head that has come leads to; `None` if there is more to come of it.
    fn verdict(&mut self) -> Option<Verdict> {
        if self.is_first && self.read.starts_with(PREFACE) {
            return Some(Verdict::HandOver { http2: true });
        }
        if self.read.is_empty() {
            return None;
        }
        match http1::request(&self.read) {
            Ok(Some(RequestHead::Narrow(request))) => {
                let Self {
                    worker,
                    permit,
                    visitor,
                    ..
                } = self;
                Some(judge(worker, permit, visitor, &request))
            }
            Ok(Some(RequestHead::Wide)) => Some(Verdict::HandOver { http2: false }),
            Ok(None) => {
                if let State::Head {
                    has_begun: has_begun @ false,
                } = &mut self.state
                {
                    *has_begun = true;
                    self.allow(HEAD_TIMEOUT);
                }
                None
            }
            Err(error) => Some(Verdict::Refuse {
                answer: refused(error),
                end: None,
                close: true,
            }),
        }
    }

    /// While the core has the packet, what the client sends waits. When it goes away there is nobody left to
    /// answer.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, End>> {
        while self.read.len() < self.buffer_max {
            match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Gone)),
                Poll::Pending => break,
            }
        }
        // Who waits for us is not late, but the answer may be written without this task.
        let now = Instant::now();
        let _ = self.alarm.poll(cx, now, now + HEAD_TIMEOUT);
        Poll::Pending
    }

    /// Writes what is left of the answer.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let State::Writing {
            bytes,
            sent,
            close,
            unfinished,
        } = &mut self.state
        else {
            return Poll::Ready(Ok(()));
        };
        while *sent < bytes.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[*sent..])) {
                Ok(count @ 1..) => *sent += count,
                Ok(0) | Err(_) => return Poll::Ready(Err(End::Gone)),
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(|_| End::Gone)?;
        if *close {
            self.state = State::Ending {
                is_shut: false,
                thrown_away: 0,
                _unfinished: Rc::clone(unfinished),
            };
            self.allow(LINGER_TIMEOUT);
        } else {
            self.state = State::Written;
        }
        Poll::Ready(Ok(()))
    }

    fn refuse(&mut self, answer: &Plain, close: bool) {
        let reason = answer.status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", answer.status.as_str()).into_bytes();
        if let Some((name, value)) = &answer.header {
            for part in [name.as_str(), ": ", value, "\r\n"] {
                bytes.extend_from_slice(part.as_bytes());
            }
        }
        bytes.extend_from_slice(b"content-type: text/plain\r\ncontent-length: ");
        end_head(&mut bytes, answer.message.len(), close);
        bytes.extend_from_slice(answer.message.as_bytes());
        self.write(bytes, close, self.worker.unfinished());
    }

    /// The answer is to be written.
    fn write(&mut self, bytes: Vec<u8>, close: bool, unfinished: Rc<Unfinished>) {
        self.allow(HEAD_TIMEOUT);
        self.state = State::Writing {
            bytes,
            sent: 0,
            close,
            unfinished,
        };
    }

    /// Ready when the client has seen the end, or had its time for that.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while let State::Ending {
            is_shut,
            thrown_away,
            ..
        } = &mut self.state
        {
            if !*is_shut {
                match Pin::new(&mut self.stream).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => *is_shut = true,
                    Poll::Ready(Err(_)) => break,
                    Poll::Pending => return self.poll_late(cx),
                }
            } else if *thrown_away < LINGER_BYTES_MAX {
                *thrown_away += mem::take(&mut self.read).len();
                if let Err(end) = ready!(self.poll_fill(cx)) {
                    return Poll::Ready(end);
                }
            } else {
                break;
            }
        }
        Poll::Ready(End::Gone)
    }

    /// Reads what has come, at least a byte.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        match self.poll_read(cx) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(End::Gone)),
            Poll::Pending => self.poll_late(cx).map(Err),
        }
    }

    /// 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let max = self.buffer_max - self.read.len();
        let scratch = self.worker.scratch();
        scratch.poll_read(&mut self.stream, cx, &mut self.read, max)
    }

    /// Ready once the client has taken too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = Instant::now();
        let deadline = *self.deadline.get_or_insert(now + self.allowed);
        self.alarm.poll(cx, now, deadline).map(|()| End::Late)
    }

    /// Forgets a request; what came behind it stays.
    fn consume(&mut self, len: usize) {
        self.read = self.read.split_off(len);
    }

    /// Gives the client so much time, from when it is waited for.
    fn allow(&mut self, time: Duration) {
        (self.allowed, self.deadline) = (time, None);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Respond for RefCell<Connection<S>> {
    fn respond(&self, packet: &[u8]) -> bool {
        let connection = &mut *self.borrow_mut();
        let State::Asked {
            close, unfinished, ..
        } = &connection.state
        else {
            unreachable!("the core answers once, and the client's next request waits for it");
        };
        let close = *close || connection.worker.is_draining();
        let unfinished = Rc::clone(unfinished);
        let mut bytes = Vec::with_capacity(PACKET_HEAD.len() + 32 + packet.len());
        bytes.extend_from_slice(PACKET_HEAD);
        end_head(&mut bytes, packet.len(), close);
        bytes.extend_from_slice(packet);
        connection.write(bytes, close, unfinished);

        let waker = connection
            .waker
            .take()
            .expect("the task has given the packet to the core");
        let written = connection.poll_write(&mut Context::from_waker(&waker));
        // The task waits for the client's next request, unless that is there.
        if matches!(connection.state, State::Written) && connection.read.is_empty() {
            connection.waker = Some(waker);
        } else {
            waker.wake();
        }
        !matches!(written, Poll::Ready(Err(_)))
    }
}

/// The head is judged before a byte of the body is read.
fn judge(
    worker: &Worker,
    permit: &Permit,
    visitor: &mut Visitor,
    request: &http1::Request<'_>,
) -> Verdict {
    let Route::Ilp(named) = Route::of(request.path) else {
        return Verdict::HandOver { http2: false };
    };
    let head_len = request.head_len;
    let body_len = usize::try_from(request.body_len).ok();
    let end = body_len
        .filter(|len| *len <= PACKET_BODY_BYTES_MAX)
        .map(|len| head_len + len);
    let close = request.close;
    let token = bearer(request.authorization);
    let Ok(account) = worker.recognise(visitor, token, named, permit) else {
        let answer = NOT_AUTHORIZED;
        return Verdict::Refuse { answer, end, close };
    };
    if !is_packet_type(request.content_type) {
        let answer = NOT_PACKET_TYPE;
        return Verdict::Refuse { answer, end, close };
    }
    match end {
        Some(end) => Verdict::Packet(Packet {
            account,
            head_len,
            end,
            close,
        }),
        None => Verdict::Refuse {
            answer: BODY_TOO_LARGE,
            end,
            close,
        },
    }
}

/// The head of an answer with a packet, up to the value of `Content-Length`.
const PACKET_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: ";

/// Ends a head after `Content-Length: `.
fn end_head(bytes: &mut Vec<u8>, len: usize, close: bool) {
    let connection = match close {
        true => "connection: close\r\n",
        false => "",
    };
    let _ = write!(bytes, "{len}\r\n{connection}\r\n");
}

fn refused(error: RequestError) -> Plain {
    let status = match error {
        RequestError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        RequestError::Syntax
        | RequestError::BareLineFeed
        | RequestError::Host
        | RequestError::Length
        | RequestError::LengthAndCoding
        | RequestError::Authorization => StatusCode::BAD_REQUEST,
    };
    Plain {
        status,
        message: format!("{error}\n").into(),
        header: None,
    }
}
