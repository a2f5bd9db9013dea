//! BTP over WebSocket: drives one session, of a server or of a client.
//!
//! The turn appends frames to the session's [`Outbox`]; the session's task hands all of them to the
//! socket at once. What the socket has to say is read until it is empty, and goes to the inbox.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream};
use rialto_btp::{
    frame::{self, FRAME_BYTES_MAX},
    session::{CloseReason, Event, Session},
};
use rialto_connector::{Input, LinkFailure, LinkId, Paid, RequestId};
use rialto_ledger::AccountId;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    server::Permit,
    worker::{Door, Worker},
};

/// Most bytes of frames that wait for one socket. A peer that does not even read the answers to its
/// own requests is disconnected.
pub const OUTBOX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes that wait when a Prepare is added. One that comes faster than the peer reads is refused:
/// to disconnect a peer that is merely slow would cost all that is in flight.
pub const OUTBOX_PREPARE_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Most frames that one session reads before others get their turn.
const READ_COUNT_MAX: usize = 512;
/// What is read from a socket at once.
const READ_BUFFER_BYTES: usize = 32 * 1024;
/// How long the end of a connection may take: frames that are left, and then the peer's own end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the frames that are left may take when nothing is wrong with the session.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of every WebSocket.
pub(crate) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

/// Frames that wait for a socket, and the word to close it.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: RefCell<Queue>,
    waker: Cell<Option<Waker>>,
}

#[derive(Default)]
struct Queue {
    frames: Vec<Outgoing>,
    bytes: usize,
    end: Option<End>,
}

struct Outgoing {
    unsent: Unsent,
    frame: Bytes,
}

/// What it means when a frame does not leave.
enum Unsent {
    /// This request of ours was not made.
    Prepare(RequestId),
    /// The peer does not learn of this Fulfill.
    Fulfill(Paid),
    /// Nothing that anybody waits for.
    Other,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The session says so.
    Session(CloseReason),
    /// The peer does not read what it is sent.
    NotReading,
    /// A message is larger than [`FRAME_BYTES_MAX`].
    TooLarge,
    /// The node goes down, or this end of the connection is not wanted any more.
    Leaving,
}

impl Outbox {
    /// Appends a Prepare, or says why it will not be sent.
    pub(crate) fn prepare(&self, request: RequestId, packet: &[u8]) -> Result<(), LinkFailure> {
        let request_id = u32::try_from(request.0).map_err(|_| LinkFailure::Closed)?;
        let frame_len = frame::ilp_frame_len(packet.len());
        if self.queue.borrow().bytes + frame_len > OUTBOX_PREPARE_BYTES_MAX {
            return Err(LinkFailure::Busy);
        }
        let mut frame = Vec::with_capacity(frame_len);
        frame::put_ilp_message(&mut frame, request_id, packet);
        match self.push(Unsent::Prepare(request), frame) {
            true => Ok(()),
            false => Err(LinkFailure::Closed),
        }
    }

    /// Appends the answer to the peer's request. False: it will not be sent.
    pub(crate) fn reply(&self, request: RequestId, packet: &[u8], paid: Option<Paid>) -> bool {
        let Ok(request_id) = u32::try_from(request.0) else {
            return false;
        };
        let mut frame = Vec::with_capacity(frame::ilp_frame_len(packet.len()));
        frame::put_ilp_response(&mut frame, request_id, packet);
        self.push(paid.map_or(Unsent::Other, Unsent::Fulfill), frame)
    }

    fn push(&self, unsent: Unsent, frame: Vec<u8>) -> bool {
        let queue = &mut *self.queue.borrow_mut();
        if queue.end.is_some() {
            return false;
        }
        let has_room = queue.bytes + frame.len() <= OUTBOX_BYTES_MAX;
        if has_room {
            queue.bytes += frame.len();
            let frame = frame.into();
            queue.frames.push(Outgoing { unsent, frame });
        } else {
            queue.end = Some(End::NotReading);
        }
        self.wake();
        has_room
    }

    /// Ends the session once its task runs.
    pub(crate) fn end(&self, end: End) {
        self.queue.borrow_mut().end.get_or_insert(end);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// An authenticated session, as long as it stands.
struct Link {
    id: LinkId,
    account: AccountId,
    worker: Rc<Worker>,
    outbox: Rc<Outbox>,
    up_since_ns: u64,
}

impl Drop for Link {
    /// Also when the task is aborted.
    fn drop(&mut self) {
        self.worker.forget_session(self.id);
        let queue = mem::take(&mut *self.outbox.queue.borrow_mut());
        for outgoing in queue.frames {
            let input = match outgoing.unsent {
                Unsent::Prepare(request) => Input::Failed {
                    link: self.id,
                    request,
                    failure: LinkFailure::Closed,
                },
                Unsent::Fulfill(paid) => Input::Undelivered(paid),
                Unsent::Other => continue,
            };
            self.worker.inbox().push(input);
        }
        self.worker.inbox().push(Input::LinkDown { link: self.id });
    }
}

/// How a session that is over had gone.
pub(crate) struct Ended {
    pub(crate) end: End,
    /// Nanoseconds between authentication and end.
    pub(crate) established_for_ns: Option<u64>,
}

/// A session and its socket.
pub(crate) struct Driver<S> {
    worker: Rc<Worker>,
    socket: WebSocketStream<S>,
    session: Session,
    outbox: Rc<Outbox>,
    side: Side,
    link: Option<Link>,
    timer: Pin<Box<Sleep>>,
    /// Something was handed to the socket and is not yet flushed.
    unflushed: bool,
}

/// Who authenticates whom.
pub(crate) enum Side {
    /// The peer does; the path of the URL may name the account.
    Server {
        /// The account in the path.
        named: Option<String>,
        /// Of the connection.
        permit: Rc<Permit>,
    },
    /// We do, on behalf of this account.
    Client {
        /// Whose settings had the URI.
        account: AccountId,
    },
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// A session over a socket. `hello` is a frame to begin with, or empty.
    pub(crate) fn new(
        worker: Rc<Worker>,
        socket: WebSocketStream<S>,
        session: Session,
        side: Side,
        hello: Vec<u8>,
    ) -> Self {
        let wakes_at_ns = session.poll_timeout().unwrap_or_default();
        let timer = Box::pin(sleep_until(worker.clock().instant(wakes_at_ns)));
        let outbox = Rc::new(Outbox::default());
        if !hello.is_empty() {
            outbox.push(Unsent::Other, hello);
        }
        Self {
            worker,
            socket,
            session,
            outbox,
            side,
            link: None,
            timer,
            unflushed: false,
        }
    }

    /// Runs the session to its end.
    pub(crate) async fn run(mut self) -> Ended {
        let _unfinished = self.worker.unfinished();
        let Err(end) = poll_fn(|cx| match self.poll(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(Err::<(), End>(end)),
        })
        .await
        else {
            unreachable!("only its end makes the session ready")
        };
        let established_for_ns = self.link.as_ref().map(|link| {
            let for_ns = self.worker.clock().now_ns() - link.up_since_ns;
            if let Some(held_back) = self.worker.session_line(link.account, false) {
                let account = self.worker.name_of(link.account);
                tracing::info!(account, link = ?link.id, ?end, held_back, "BTP session is down");
            }
            for_ns
        });
        let leaves_frames = match end {
            End::NotReading => false,
            End::TooLarge | End::Leaving => true,
            End::Session(reason) => match reason {
                CloseReason::SocketClosed | CloseReason::PeerSilent => false,
                CloseReason::AuthTimeout
                | CloseReason::AuthRefused
                | CloseReason::AuthRejected(_)
                | CloseReason::Garbage
                | CloseReason::Superseded => true,
            },
        };
        if leaves_frames {
            // Fulfills among them: whoever closes in good order still pays what it owes.
            let _ = self.hand_over();
        }
        // From here on the core knows that the link is down; the socket's end may take its time.
        self.link = None;
        if end != End::NotReading {
            let code = match end {
                End::TooLarge => CloseCode::Size,
                End::Session(CloseReason::AuthRefused | CloseReason::Garbage) => CloseCode::Policy,
                End::Leaving => CloseCode::Away,
                End::NotReading | End::Session(_) => CloseCode::Normal,
            };
            let flush_max = match end {
                End::Leaving => LEAVE_TIMEOUT,
                End::TooLarge | End::NotReading | End::Session(_) => CLOSE_TIMEOUT,
            };
            // The peer is gone, or slow to go: either way this end is done.
            if let Ok(Ok(())) = timeout(flush_max, self.socket.flush()).await {
                let _ = timeout(CLOSE_TIMEOUT, close(self.socket, code)).await;
            }
        }
        Ended {
            end,
            established_for_ns,
        }
    }

    /// Everything that can be done now. `Ok` is pending.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.poll_write(cx)?;
        let more = self.poll_read(cx)?;
        self.poll_timer(cx)?;
        // What reading and timer gave rise to.
        self.poll_write(cx)?;
        if more {
            cx.waker().wake_by_ref();
        }
        self.outbox.waker.set(Some(cx.waker().clone()));
        Ok(())
    }

    /// Hands over what waits once the socket has taken all it was given before, so that frames that
    /// were surely not sent are known as such.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if let Some(end) = self.outbox.queue.borrow().end {
                return Err(end);
            }
            if self.unflushed {
                match Pin::new(&mut self.socket).poll_flush(cx) {
                    Poll::Ready(flushed) => flushed.map_err(|error| self.socket_end(&error))?,
                    Poll::Pending => return Ok(()),
                }
                self.unflushed = false;
            }
            if self.outbox.queue.borrow().frames.is_empty() {
                return Ok(());
            }
            self.hand_over()?;
        }
    }

    fn hand_over(&mut self) -> Result<(), End> {
        let mut queue = self.outbox.queue.borrow_mut();
        queue.bytes = 0;
        let mut frames = mem::take(&mut queue.frames);
        drop(queue);
        for outgoing in frames.drain(..) {
            self.send(Message::Binary(outgoing.frame))?;
        }
        // Its memory is used again, unless something came in between.
        let queue = &mut *self.outbox.queue.borrow_mut();
        if queue.frames.is_empty() {
            queue.frames = frames;
        }
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<(), End> {
        self.unflushed = true;
        let sent = Pin::new(&mut self.socket).start_send(message);
        sent.map_err(|error| self.socket_end(&error))
    }

    /// Reads until the socket is empty; `true` if it is not, but others shall have their turn.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let now_ns = self.worker.clock().now_ns();
        for _ in 0..READ_COUNT_MAX {
            if self.worker.inbox().poll_room(cx).is_pending() {
                return Ok(false);
            }
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Ok(message))) => self.handle_message(now_ns, message)?,
                Poll::Ready(Some(Err(error))) => return Err(self.socket_end(&error)),
                Poll::Ready(None) => return Err(self.closed()),
            }
        }
        Ok(true)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        // Each frame moves the session's timeout. The timer is moved only when it fires.
        while self.timer.as_mut().poll(cx).is_ready() {
            match self.session.handle_timeout(self.worker.clock().now_ns()) {
                Event::Ping => self.send(Message::Ping(Bytes::new()))?,
                Event::Close(reason) => return Err(End::Session(reason)),
                // Too early, or the session is over.
                Event::Nothing => {}
                Event::Authenticate { .. }
                | Event::Deferred
                | Event::Established
                | Event::Prepare { .. }
                | Event::Reply { .. }
                | Event::PeerError { .. }
                | Event::BadReply { .. } => unreachable!("they come of frames"),
            }
            let Some(at_ns) = self.session.poll_timeout() else {
                return Ok(());
            };
            self.timer
                .as_mut()
                .reset(self.worker.clock().instant(at_ns));
        }
        Ok(())
    }

    fn handle_message(&mut self, now_ns: u64, message: Message) -> Result<(), End> {
        match message {
            Message::Binary(bytes) => self.handle_frame(now_ns, bytes),
            // tungstenite answers pings by itself.
            Message::Ping(_) | Message::Pong(_) => {
                self.session.handle_ping_or_pong(now_ns);
                Ok(())
            }
            Message::Close(_) => Err(self.closed()),
            Message::Text(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn handle_frame(&mut self, now_ns: u64, bytes: Bytes) -> Result<(), End> {
        let mut answer = Vec::new();
        let event = self.session.handle_frame(now_ns, &bytes, &mut answer);
        let end = match event {
            Event::Prepare { request_id, ilp } => {
                self.with_link(|link, worker| {
                    worker.inbox().push(Input::Prepare {
                        account: link.account,
                        link: link.id,
                        request: RequestId(request_id.into()),
                        packet: BytesMut::from(&bytes[ilp]),
                    });
                });
                None
            }
            Event::Reply { request_id, ilp } => {
                let packet = bytes.slice(ilp);
                self.with_link(|link, worker| {
                    worker.inbox().push(Input::Reply {
                        link: link.id,
                        request: RequestId(request_id.into()),
                        packet,
                    });
                });
                None
            }
            Event::PeerError { request_id, .. } | Event::BadReply { request_id } => {
                self.with_link(|link, worker| {
                    worker.inbox().push(Input::Failed {
                        link: link.id,
                        request: RequestId(request_id.into()),
                        failure: LinkFailure::BadReply,
                    });
                });
                None
            }
            Event::Authenticate { username, token } => {
                let Side::Server { named, permit } = &self.side else {
                    unreachable!("only servers are asked")
                };
                let named = named.as_deref().or(username);
                match self
                    .worker
                    .authenticate(Some(token.expose()), named, Door::Btp, permit)
                {
                    Ok(account) => match self.session.accept(now_ns, &mut answer) {
                        Ok(()) => {
                            permit.authenticated();
                            self.establish(now_ns, account);
                            None
                        }
                        Err(_) => Some(CloseReason::AuthTimeout),
                    },
                    Err(_) => Some(
                        self.session
                            .refuse(now_ns, &mut answer)
                            .unwrap_or(CloseReason::AuthTimeout),
                    ),
                }
            }
            Event::Established => {
                let Side::Client { account } = self.side else {
                    unreachable!("only clients are told")
                };
                self.establish(now_ns, account);
                None
            }
            Event::Close(reason) => Some(reason),
            // Authentications are decided at once, so nothing is deferred.
            Event::Deferred | Event::Ping | Event::Nothing => None,
        };
        if !answer.is_empty() {
            self.outbox.push(Unsent::Other, answer);
        }
        match end {
            Some(reason) => Err(End::Session(reason)),
            None => Ok(()),
        }
    }

    fn with_link(&self, then: impl FnOnce(&Link, &Worker)) {
        if let Some(link) = &self.link {
            then(link, &self.worker);
        }
    }

    fn establish(&mut self, now_ns: u64, account: AccountId) {
        let id = self.worker.register_session(Rc::clone(&self.outbox));
        if let Some(held_back) = self.worker.session_line(account, true) {
            let name = self.worker.name_of(account);
            tracing::info!(account = name, link = ?id, held_back, "BTP session is up");
        }
        self.worker
            .inbox()
            .push(Input::LinkUp { link: id, account });
        self.link = Some(Link {
            id,
            account,
            worker: Rc::clone(&self.worker),
            outbox: Rc::clone(&self.outbox),
            up_since_ns: now_ns,
        });
    }

    fn closed(&mut self) -> End {
        let reason = self.session.handle_closed();
        End::Session(reason.unwrap_or(CloseReason::SocketClosed))
    }

    fn socket_end(&mut self, error: &tungstenite::Error) -> End {
        if matches!(error, tungstenite::Error::Capacity(_)) {
            return End::TooLarge;
        }
        self.closed()
    }
}

/// Says goodbye, and reads what still comes: a socket that is closed with unread bytes takes the
/// goodbye with it.
async fn close<S>(mut socket: WebSocketStream<S>, code: CloseCode) -> Result<(), tungstenite::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let reason = "".into();
    socket.close(Some(CloseFrame { code, reason })).await?;
    let stream = socket.get_mut();
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
