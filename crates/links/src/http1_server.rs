//! The packet path of HTTP/1.1: `POST` with a length, one request after the other.
//!
//! ```text
//! head ──▶ refused, unless sound ──▶ whose? ──▶ body ──▶ core ──▶ answer, written at once ──▶ next head
//!   └────▶ handed over to hyper, with the bytes read, when it asks for more than this
//! ```
//!
//! Whoever has the core's answer writes it to the socket, and the connection's task sleeps on until the client
//! has another request: to wake it for that alone would cost a packet as much as what the core does with it.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::Write,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::BytesMut;
use http::StatusCode;
use rialto_ledger::AccountId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
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

/// Serves packets until the connection ends, or wants more: then with what is left of it.
pub(crate) async fn serve<S>(worker: &Worker, permit: &Permit, stream: S) -> Option<(HandOver, S)>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let connection = Connection {
        worker,
        permit,
        outlet: Rc::new(RefCell::new(Outlet {
            stream,
            answer: Answer::None,
            waker,
            is_parked: false,
        })),
        read: Vec::new(),
        visitor: RefCell::default(),
        buffer_max: HEAD_BYTES_MAX,
        alarm: Alarm::new(Instant::now() + HANDSHAKE_TIMEOUT),
        allowed: HANDSHAKE_TIMEOUT,
        deadline: None,
    };
    connection.run().await.ok()
}

struct Connection<'a, S> {
    worker: &'a Worker,
    permit: &'a Permit,
    outlet: Rc<RefCell<Outlet<S>>>,
    /// What came and was not yet used. No memory is kept for it: what another connection has used last is in
    /// the processor's caches, what this one has hardly.
    read: Vec<u8>,
    visitor: RefCell<Visitor>,
    buffer_max: usize,
    alarm: Alarm,
    /// How long the client may take.
    allowed: Duration,
    /// When that is over, once it was waited for.
    deadline: Option<Instant>,
}

/// The socket, which the connection's task shares with whoever has the core's answer.
struct Outlet<S> {
    stream: S,
    answer: Answer,
    /// Of the connection's task, which never is another.
    waker: Waker,
    /// That task needs not be woken before the client sends something.
    is_parked: bool,
}

/// How far the answer to a request is.
enum Answer {
    /// There is no request.
    None,
    /// The core has the packet.
    Asked {
        close: bool,
        unfinished: Rc<Unfinished>,
    },
    /// So much of it is written.
    Writing {
        bytes: Vec<u8>,
        sent: usize,
        close: bool,
        unfinished: Rc<Unfinished>,
    },
    /// All of it is,
    Written,
    /// and the connection ends with it.
    Last { _unfinished: Rc<Unfinished> },
}

impl Answer {
    /// Writes what is there of it. Ready if nothing is left.
    fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        let Self::Writing {
            bytes,
            sent,
            close,
            unfinished,
        } = self
        else {
            return Poll::Ready(Ok(()));
        };
        while *sent < bytes.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &bytes[*sent..])) {
                Ok(count @ 1..) => *sent += count,
                Ok(0) | Err(_) => return Poll::Ready(Err(End::Gone)),
            }
        }
        ready!(Pin::new(stream).poll_flush(cx)).map_err(|_| End::Gone)?;
        *self = match close {
            true => Self::Last {
                _unfinished: Rc::clone(unfinished),
            },
            false => Self::Written,
        };
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Respond for RefCell<Outlet<S>> {
    fn respond(&self, packet: &[u8], leaves: bool) -> bool {
        let Outlet {
            stream,
            answer,
            waker,
            is_parked,
        } = &mut *self.borrow_mut();
        let Answer::Asked { close, unfinished } = answer else {
            unreachable!("the core answers once, and the client's next request waits for it");
        };
        let close = *close || leaves;
        let mut bytes = Vec::with_capacity(PACKET_HEAD.len() + 32 + packet.len());
        bytes.extend_from_slice(PACKET_HEAD);
        end_head(&mut bytes, packet.len(), close);
        bytes.extend_from_slice(packet);
        *answer = Answer::Writing {
            bytes,
            sent: 0,
            close,
            unfinished: Rc::clone(unfinished),
        };
        let written = answer.poll_write(stream, &mut Context::from_waker(waker));
        let is_done = matches!(written, Poll::Ready(Ok(()))) && !close;
        if !(is_done && *is_parked) {
            waker.wake_by_ref();
        }
        !matches!(written, Poll::Ready(Err(_)))
    }
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
    Packet {
        account: AccountId,
        head_len: usize,
        end: usize,
        close: bool,
    },
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Connection<'_, S> {
    async fn run(mut self) -> Result<(HandOver, S), End> {
        let mut is_first = true;
        loop {
            match self.verdict(is_first).await? {
                Verdict::HandOver { http2 } => {
                    let read = self.read;
                    let outlet = Rc::into_inner(self.outlet).expect("no answer is due");
                    let stream = outlet.into_inner().stream;
                    return Ok((HandOver { read, http2 }, stream));
                }
                Verdict::Refuse { answer, end, close } => {
                    // A body that has yet to come is not waited for.
                    let end = end.filter(|end| *end <= self.read.len());
                    let close = close || end.is_none() || self.worker.is_draining();
                    self.refuse(&answer, close).await?;
                    self.consume(end.unwrap_or_default());
                }
                Verdict::Packet {
                    account,
                    head_len,
                    end,
                    close,
                } => {
                    let unfinished = self.worker.unfinished();
                    if self.buffer_max != BUFFER_BYTES_MAX {
                        self.buffer_max = BUFFER_BYTES_MAX;
                        self.permit.authenticated();
                    }
                    match self.body(end).await {
                        Ok(()) => {}
                        Err(End::Late) => {
                            let refused = self.refuse(&BODY_LATE, true).await;
                            return refused.and(Err(End::Late));
                        }
                        Err(End::Gone) => return Err(End::Gone),
                    }
                    let packet = BytesMut::from(&self.read[head_len..end]);
                    self.consume(end);
                    self.outlet.borrow_mut().answer = Answer::Asked { close, unfinished };
                    let outlet = Rc::clone(&self.outlet);
                    let _asked = self.worker.packet_on_connection(account, packet, outlet);
                    self.answered().await?;
                }
            }
            is_first = false;
            self.allow(HEAD_TIMEOUT);
        }
    }

    /// Reads until there is a head, and judges it.
    async fn verdict(&mut self, is_first: bool) -> Result<Verdict, End> {
        let mut has_begun = is_first;
        loop {
            if is_first && self.read.starts_with(PREFACE) {
                return Ok(Verdict::HandOver { http2: true });
            }
            if !self.read.is_empty() {
                match http1::request(&self.read) {
                    Ok(Some(RequestHead::Narrow(request))) => return Ok(self.judge(&request)),
                    Ok(Some(RequestHead::Wide)) => return Ok(Verdict::HandOver { http2: false }),
                    Ok(None) if has_begun => {}
                    Ok(None) => {
                        has_begun = true;
                        self.allow(HEAD_TIMEOUT);
                    }
                    Err(error) => {
                        return Ok(Verdict::Refuse {
                            answer: refused(error),
                            end: None,
                            close: true,
                        });
                    }
                }
            }
            self.fill().await?;
        }
    }

    /// The head is judged before a byte of the body is read.
    fn judge(&self, request: &http1::Request<'_>) -> Verdict {
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
        let visitor = &mut self.visitor.borrow_mut();
        let Ok(account) = self.worker.recognise(visitor, token, named, self.permit) else {
            let answer = NOT_AUTHORIZED;
            return Verdict::Refuse { answer, end, close };
        };
        if !is_packet_type(request.content_type) {
            let answer = NOT_PACKET_TYPE;
            return Verdict::Refuse { answer, end, close };
        }
        match end {
            Some(end) => Verdict::Packet {
                account,
                head_len,
                end,
                close,
            },
            None => Verdict::Refuse {
                answer: BODY_TOO_LARGE,
                end,
                close,
            },
        }
    }

    /// Reads until there is all of a request.
    async fn body(&mut self, end: usize) -> Result<(), End> {
        if self.read.len() < end {
            self.allow(BODY_TIMEOUT);
            while self.read.len() < end {
                self.fill().await?;
            }
        }
        Ok(())
    }

    /// Waits until the answer is written, and ends the connection if it ends with that. What the client sends
    /// meanwhile waits; when it goes away there is nobody left to answer.
    async fn answered(&mut self) -> Result<(), End> {
        self.allow(HEAD_TIMEOUT);
        let is_last = poll_fn(|cx| {
            let Outlet {
                stream,
                answer,
                is_parked,
                ..
            } = &mut *self.outlet.borrow_mut();
            let is_writing = answer.poll_write(stream, cx)?.is_pending();
            match answer {
                Answer::Written => {
                    *answer = Answer::None;
                    return Poll::Ready(Ok(false));
                }
                Answer::Last { .. } => return Poll::Ready(Ok(true)),
                Answer::None | Answer::Asked { .. } | Answer::Writing { .. } => {}
            }
            *is_parked = false;
            while !is_writing && self.read.len() < self.buffer_max {
                let max = self.buffer_max - self.read.len();
                let scratch = self.worker.scratch();
                match scratch.poll_read(stream, cx, &mut self.read, max) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Gone)),
                    Poll::Pending => {
                        *is_parked = self.read.is_empty();
                        break;
                    }
                }
            }
            if !is_writing {
                // Who waits for us is not late, and who has read the answer has its time from then.
                self.deadline = None;
            }
            let now = Instant::now();
            let deadline = *self.deadline.get_or_insert(now + self.allowed);
            self.alarm.poll(cx, now, deadline).map(|()| Err(End::Late))
        })
        .await?;
        match is_last {
            true => self.linger().await,
            false => Ok(()),
        }
    }

    async fn refuse(&mut self, answer: &Plain, close: bool) -> Result<(), End> {
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
        self.outlet.borrow_mut().answer = Answer::Writing {
            bytes,
            sent: 0,
            close,
            unfinished: self.worker.unfinished(),
        };
        self.answered().await
    }

    /// Ends the connection. A socket that is closed with bytes unread is reset, and the answer with
    /// it; so the client is given time to see it, and what it still sends is thrown away.
    async fn linger(&mut self) -> Result<(), End> {
        self.allow(LINGER_TIMEOUT);
        let see = async {
            let outlet = &self.outlet;
            poll_fn(|cx| Pin::new(&mut outlet.borrow_mut().stream).poll_shutdown(cx))
                .await
                .map_err(|_| End::Gone)?;
            let mut count = 0;
            while count < LINGER_BYTES_MAX {
                self.read.clear();
                self.fill().await?;
                count += self.read.len();
            }
            Ok::<(), End>(())
        };
        let _ = timeout(LINGER_TIMEOUT, see).await;
        Err(End::Gone)
    }

    /// Reads what has come, at least a byte.
    async fn fill(&mut self) -> Result<(), End> {
        poll_fn(|cx| {
            let max = self.buffer_max - self.read.len();
            let scratch = self.worker.scratch();
            let stream = &mut self.outlet.borrow_mut().stream;
            match scratch.poll_read(stream, cx, &mut self.read, max) {
                Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
                Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(End::Gone)),
                Poll::Pending => {
                    let now = Instant::now();
                    let deadline = *self.deadline.get_or_insert(now + self.allowed);
                    self.alarm.poll(cx, now, deadline).map(|()| Err(End::Late))
                }
            }
        })
        .await
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
