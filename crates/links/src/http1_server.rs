//! The packet path of HTTP/1.1: `POST` with a length, one request after the other.
//!
//! ```text
//! head ──▶ refused, unless sound ──▶ whose? ──▶ body ──▶ core ──▶ answer ──▶ next head
//!   └────▶ handed over to hyper, with the bytes read, when it asks for more than this
//! ```

use std::{
    cell::RefCell,
    future::poll_fn,
    io::Write,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use rialto_ledger::AccountId;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep, sleep, timeout},
};

use crate::{
    body::PACKET_BODY_BYTES_MAX,
    directory::{Visitor, bearer},
    http1::{self, HEAD_BYTES_MAX, RequestError, RequestHead},
    server::{
        BODY_LATE, BODY_TIMEOUT, BODY_TOO_LARGE, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT, NOT_AUTHORIZED,
        NOT_PACKET_TYPE, Permit, Plain, Route, is_packet_type,
    },
    worker::Worker,
};

/// Most bytes that wait in a connection: the largest packet with its head. Before the client has
/// said who it is, [`HEAD_BYTES_MAX`].
const BUFFER_BYTES_MAX: usize = HEAD_BYTES_MAX + PACKET_BODY_BYTES_MAX;
/// Bytes of buffer that a connection keeps between requests.
const IDLE_BUFFER_BYTES_MAX: usize = 2 * 1024;
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

/// Serves packets until the connection ends, or wants more.
pub(crate) async fn serve<S>(worker: &Worker, permit: &Permit, stream: &mut S) -> Option<HandOver>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connection = Connection {
        worker,
        permit,
        stream,
        read: Vec::new(),
        write: Vec::new(),
        visitor: RefCell::default(),
        buffer_max: HEAD_BYTES_MAX,
        timer: Box::pin(sleep(HANDSHAKE_TIMEOUT)),
        deadline: Instant::now() + HANDSHAKE_TIMEOUT,
    };
    connection.run().await.ok()
}

struct Connection<'a, S> {
    worker: &'a Worker,
    permit: &'a Permit,
    stream: &'a mut S,
    /// What came and was not yet used.
    read: Vec<u8>,
    /// The answer that is being sent.
    write: Vec<u8>,
    visitor: RefCell<Visitor>,
    buffer_max: usize,
    /// Moved only when it fires, or would be late.
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
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

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(mut self) -> Result<HandOver, End> {
        let mut is_first = true;
        loop {
            match self.verdict(is_first).await? {
                Verdict::HandOver { http2 } => {
                    let read = self.read;
                    return Ok(HandOver { read, http2 });
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
                    let _unfinished = self.worker.unfinished();
                    if self.buffer_max != BUFFER_BYTES_MAX {
                        self.buffer_max = BUFFER_BYTES_MAX;
                        self.permit.authenticated();
                    }
                    match self.body(end).await {
                        Ok(()) => {}
                        Err(End::Late) => {
                            return self.refuse(&BODY_LATE, true).await.and(Err(End::Late));
                        }
                        Err(End::Gone) => return Err(End::Gone),
                    }
                    let packet = BytesMut::from(&self.read[head_len..end]);
                    self.consume(end);
                    let reply = self.reply(account, packet).await?;
                    let close = close || self.worker.is_draining();
                    self.head(
                        StatusCode::OK,
                        "application/octet-stream",
                        reply.len(),
                        close,
                    );
                    self.write.extend_from_slice(&reply);
                    self.send(close).await?;
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

    /// Hands the packet to the core. What the client sends meanwhile waits; when it goes away there
    /// is nobody left to answer.
    async fn reply(&mut self, account: AccountId, packet: BytesMut) -> Result<Bytes, End> {
        let mut reply = pin!(self.worker.packet(account, packet));
        poll_fn(|cx| {
            if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
                return Poll::Ready(Ok(reply));
            }
            while self.read.len() < self.buffer_max {
                let max = self.buffer_max - self.read.len();
                let scratch = self.worker.scratch();
                match scratch.poll_read(self.stream, cx, &mut self.read, max) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Gone)),
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn refuse(&mut self, answer: &Plain, close: bool) -> Result<(), End> {
        self.head(answer.status, "text/plain", answer.message.len(), close);
        if let Some((name, value)) = &answer.header {
            // Before the empty line.
            self.write.truncate(self.write.len() - 2);
            self.write_header(name.as_str(), value);
            self.write.extend_from_slice(b"\r\n");
        }
        self.write.extend_from_slice(answer.message.as_bytes());
        self.send(close).await
    }

    /// Begins an answer.
    fn head(&mut self, status: StatusCode, content_type: &str, len: usize, close: bool) {
        self.write.clear();
        let reason = status.canonical_reason().unwrap_or_default();
        let _ = write!(
            self.write,
            "HTTP/1.1 {} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {len}\r\n",
            status.as_str()
        );
        if close {
            self.write_header("connection", "close");
        }
        self.write.extend_from_slice(b"\r\n");
    }

    fn write_header(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.write.extend_from_slice(part.as_bytes());
        }
    }

    /// Sends what was written, and ends the connection if it shall be closed.
    async fn send(&mut self, close: bool) -> Result<(), End> {
        let (mut sent, mut waits) = (0, false);
        poll_fn(|cx| {
            while sent < self.write.len() {
                match Pin::new(&mut *self.stream).poll_write(cx, &self.write[sent..]) {
                    Poll::Ready(Ok(count @ 1..)) => sent += count,
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Gone)),
                    Poll::Pending if waits => return self.poll_late(cx),
                    Poll::Pending => {
                        waits = true;
                        self.allow(HEAD_TIMEOUT);
                        return self.poll_late(cx);
                    }
                }
            }
            let flushed = Pin::new(&mut *self.stream).poll_flush(cx);
            flushed.map_err(|_| End::Gone)
        })
        .await?;
        shrink(&mut self.write);
        match close {
            true => self.linger().await,
            false => Ok(()),
        }
    }

    /// Ends the connection. A socket that is closed with bytes unread is reset, and the answer with
    /// it; so the client is given time to see it, and what it still sends is thrown away.
    async fn linger(&mut self) -> Result<(), End> {
        self.allow(LINGER_TIMEOUT);
        let see = async {
            self.stream.shutdown().await.map_err(|_| End::Gone)?;
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
            match scratch.poll_read(self.stream, cx, &mut self.read, max) {
                Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
                Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(End::Gone)),
                Poll::Pending => self.poll_late(cx),
            }
        })
        .await
    }

    /// Forgets a request; what came behind it stays.
    fn consume(&mut self, len: usize) {
        self.read.drain(..len);
        shrink(&mut self.read);
    }

    /// Gives the client so much time.
    fn allow(&mut self, time: Duration) {
        self.deadline = Instant::now() + time;
        if self.deadline < self.timer.deadline() {
            self.timer.as_mut().reset(self.deadline);
        }
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.deadline {
                return Poll::Ready(Err(End::Late));
            }
            self.timer.as_mut().reset(self.deadline);
        }
        Poll::Pending
    }
}

/// Many connections are idle: none keeps the room of a large packet.
fn shrink(buffer: &mut Vec<u8>) {
    if buffer.capacity() > IDLE_BUFFER_BYTES_MAX {
        buffer.shrink_to(IDLE_BUFFER_BYTES_MAX);
    }
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
