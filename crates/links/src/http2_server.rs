//! Requests that come by HTTP/2: many at a time on one connection.
//!
//! ```text
//! head ──▶ whose? ──▶ body, if all of it is there ──▶ core ──▶ answer, put on the stream at once
//!   └────▶ a task of its own, where there is more to it
//! ```
//!
//! Frames, streams and flow control are `h2`'s. hyper would make a task, a channel and a body of each
//! request besides, which cost as much again. What the core answers in one turn leaves in one write.

use std::{
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{
    RecvStream,
    server::{Builder, Connection, Handshake, SendResponse},
};
use http::{
    HeaderName, Method, Request, Response,
    header::{CONNECTION, CONTENT_TYPE, UPGRADE},
};
use rialto_ledger::AccountId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_local,
    time::{Instant, Sleep, sleep},
};

use crate::{
    body::{BodyError, Http2Body, PACKET_BODY_BYTES_MAX},
    directory::OCTET_STREAM,
    http2_frames::Counted,
    server::{
        BODY_BROKEN, BODY_LATE, BODY_TIMEOUT, BODY_TOO_LARGE, Busy, Client, HTTP2_STREAMS_MAX,
    },
};

/// Most bytes of the head of a request, unpacked.
const HEAD_BYTES_MAX: u32 = 8 * 1024;
/// Most bytes of bodies that come on one connection before they are taken.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Those of one stream: the largest packet, and more.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// What HTTP/1.1 says of connections, HTTP/2 has no place for (RFC 9113, section 8.2.2).
const OF_CONNECTIONS: [HeaderName; 2] = [CONNECTION, UPGRADE];

/// A connection, as long as it stands.
pub(crate) struct Http2<S> {
    client: Rc<Client>,
    state: State<Counted<S>>,
    /// Packets whose bodies were not all there with their heads.
    uploads: FuturesUnordered<Upload>,
    /// When the first of them may be late. Moved only when it fires.
    timer: Pin<Box<Sleep>>,
    /// It is to end in good order.
    leaves: bool,
}

enum State<S> {
    Begins(Handshake<S, Bytes>),
    Open(Connection<S, Bytes>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2<S> {
    pub(crate) fn new(client: Rc<Client>, stream: S) -> Self {
        let stream = Counted::new(stream, Rc::clone(&client.other_frames));
        let handshake = Builder::new()
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX)
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .handshake(stream);
        Self {
            client,
            state: State::Begins(handshake),
            uploads: FuturesUnordered::new(),
            timer: Box::pin(sleep(BODY_TIMEOUT)),
            leaves: false,
        }
    }

    /// Takes no more requests; those that came are answered.
    pub(crate) fn leave(self: Pin<&mut Self>) {
        let this = self.get_mut();
        this.leaves = true;
        if let State::Open(connection) = &mut this.state {
            connection.graceful_shutdown();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Http2<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Begins(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Ready(Ok(mut connection)) => {
                        if this.leaves {
                            connection.graceful_shutdown();
                        }
                        this.state = State::Open(connection);
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    // Nothing was asked yet.
                    Poll::Pending if this.leaves => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                // All that has come is taken, and then all that is to be said is written.
                State::Open(connection) => match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => this.take(request, respond, cx),
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => break,
                },
            }
        }
        this.poll_uploads(cx);
        Poll::Pending
    }
}

impl<S> Http2<S> {
    /// Gives a packet to the core, if there is no more to it than that.
    fn take(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) {
        let client = &self.client;
        client.note_head();
        let responder = Responder::new(client, respond);
        let (head, stream) = request.into_parts();
        let body = Http2Body::new(stream);
        let Some(named) = client.names_account(&head) else {
            let request = Request::from_parts(head, body);
            drop(spawn_local(answer(Rc::clone(client), request, responder)));
            return;
        };
        match client.judge(&head, named) {
            Ok(account) => self.upload(account, body, responder, cx),
            Err(refused) => responder.send(refused.into()),
        }
    }

    /// Mostly the body came with the head.
    fn upload(
        &mut self,
        account: AccountId,
        mut body: Http2Body,
        responder: Responder,
        cx: &mut Context<'_>,
    ) {
        match body.poll_whole(cx, PACKET_BODY_BYTES_MAX) {
            Poll::Ready(read) => self.hand_over(account, read, responder),
            Poll::Pending => {
                let now = Instant::now();
                if self.timer.deadline() <= now {
                    self.timer.as_mut().reset(now + BODY_TIMEOUT);
                }
                self.uploads.push(Upload {
                    account,
                    body,
                    responder: Some(responder),
                    deadline: now + BODY_TIMEOUT,
                });
            }
        }
    }

    fn hand_over(
        &self,
        account: AccountId,
        read: Result<Bytes, BodyError<h2::Error>>,
        responder: Responder,
    ) {
        match read {
            Ok(packet) => {
                let worker = self.client.worker();
                worker.packet_on_stream(account, BytesMut::from(packet), responder);
            }
            Err(BodyError::TooLarge) => responder.send(BODY_TOO_LARGE.into()),
            Err(BodyError::Broken(_)) => responder.send(BODY_BROKEN.into()),
        }
    }

    fn poll_uploads(&mut self, cx: &mut Context<'_>) {
        loop {
            while let Poll::Ready(Some(came)) = self.uploads.poll_next_unpin(cx) {
                let (account, read, responder) = came;
                self.hand_over(account, read, responder);
            }
            if self.uploads.is_empty() || self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.refuse_late();
        }
    }

    fn refuse_late(&mut self) {
        let now = Instant::now();
        let mut next = now + BODY_TIMEOUT;
        for mut upload in mem::take(&mut self.uploads) {
            match upload.responder.take_if(|_| upload.deadline <= now) {
                Some(responder) => responder.send(BODY_LATE.into()),
                None => {
                    next = next.min(upload.deadline);
                    self.uploads.push(upload);
                }
            }
        }
        self.timer.as_mut().reset(next);
    }
}

/// A packet that is still to come, or the rest of it.
struct Upload {
    account: AccountId,
    body: Http2Body,
    /// Until it is there.
    responder: Option<Responder>,
    deadline: Instant,
}

impl Future for Upload {
    type Output = (AccountId, Result<Bytes, BodyError<h2::Error>>, Responder);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let read = ready!(self.body.poll_whole(cx, PACKET_BODY_BYTES_MAX));
        let responder = self.responder.take().expect("it is there once");
        Poll::Ready((self.account, read, responder))
    }
}

/// A request that is no packet.
async fn answer(client: Rc<Client>, request: Request<Http2Body>, mut responder: Responder) {
    let has_no_body = request.method() == Method::HEAD;
    let mut answering = pin!(client.answer(request));
    let response = poll_fn(|cx| {
        // The client wants no answer any more, or is gone.
        if responder.respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        answering.as_mut().poll(cx).map(Some)
    });
    if let Some(mut response) = response.await {
        if has_no_body {
            response.body_mut().clear();
        }
        responder.send(response);
    }
}

/// Where the answer to a request goes.
pub(crate) struct Responder {
    respond: SendResponse<Bytes>,
    _busy: Busy,
}

impl Responder {
    fn new(client: &Client, respond: SendResponse<Bytes>) -> Self {
        let _busy = Busy::new(&client.busy);
        Self { respond, _busy }
    }

    /// Answers with a packet. False: nobody waits for it any more.
    pub(crate) fn packet(mut self, packet: Bytes) -> bool {
        let mut head = Response::new(());
        head.headers_mut().insert(CONTENT_TYPE, OCTET_STREAM);
        self.put(head, packet)
    }

    fn send(mut self, mut response: Response<Bytes>) {
        for name in &OF_CONNECTIONS {
            response.headers_mut().remove(name);
        }
        let (head, body) = response.into_parts();
        // It is no mistake of ours that the client is gone.
        let _ = self.put(Response::from_parts(head, ()), body);
    }

    fn put(&mut self, head: Response<()>, body: Bytes) -> bool {
        let is_all = body.is_empty();
        match self.respond.send_response(head, is_all) {
            Ok(mut stream) => is_all || stream.send_data(body, true).is_ok(),
            Err(_) => false,
        }
    }
}
