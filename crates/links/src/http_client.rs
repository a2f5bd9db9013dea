//! Packets to one peer by ILP over HTTP.
//!
//! A *lane* is a task that does one request after the other: over its own connection where the peer
//! speaks HTTP/1.1, over a stream of the shared connection where it speaks HTTP/2. The lane that was
//! idle last is used first, so the others can run dry and close.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, header::CONTENT_TYPE, uri::PathAndQuery,
};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rialto_connector::{Input, LinkFailure, LinkId, RequestId};
use rialto_ledger::AccountId;
use tokio::{
    sync::oneshot,
    task::spawn_local,
    time::{Sleep, sleep_until},
};

use crate::{
    body::{self, PACKET_BODY_BYTES_MAX},
    callback::{CALLBACK_URL, Callbacks, Delivered, Delivery, Id, REQUEST_ID},
    clock::Clock,
    connect::{ConnectError, Stream, connect},
    directory::HttpPeer,
    http1_client::{self, Http1},
    inbox::Inbox,
    pace::Pace,
    runtime::LocalExecutor,
    scratch::Scratch,
    server::is_packet_type,
    tls::ClientTls,
};

/// Most requests in flight to one peer from one worker: connections over HTTP/1.1, streams over
/// HTTP/2.
pub const HTTP_LANES_MAX: usize = 256;
/// Most packets that wait for a lane. One more fails at once.
pub const HTTP_QUEUE_LEN_MAX: usize = 4_096;
/// Most bytes of packets that wait for a lane.
pub const HTTP_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long an idle connection is kept. Shorter than what servers allow, so that a packet rarely
/// meets a connection that is just being closed.
const IDLE_NS_MAX: u64 = 15_000_000_000;
/// After a failed attempt to connect, packets fail without another one for so long.
const RECONNECT_PAUSE_NS: u64 = 100_000_000;
/// A silent HTTP/2 connection is asked for a sign of life this often, and given as long to answer.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);

type Body = Full<Bytes>;

/// What lanes share.
pub(crate) struct HttpClient {
    account: AccountId,
    /// Its name, for the log.
    name: String,
    peer: HttpPeer,
    /// Of every request by HTTP/1.1.
    head_http1: Vec<u8>,
    tls: ClientTls,
    clock: Clock,
    inbox: Inbox,
    scratch: Scratch,
    callbacks: Arc<Callbacks>,
    lanes: RefCell<Lanes>,
    connect_warning: Pace,
    exchange_warning: Pace,
}

#[derive(Default)]
struct Lanes {
    count: usize,
    idle: Vec<Rc<Slot>>,
    queue: VecDeque<Job>,
    /// Of the packets in `queue`.
    queue_bytes: usize,
    http2: Option<http2::SendRequest<Body>>,
    connect_failed: Option<(u64, LinkFailure)>,
}

impl Lanes {
    /// Lets a job wait, or gives it back when too much waits already.
    fn enqueue(&mut self, job: Job) -> Result<(), Job> {
        let bytes = self.queue_bytes + job.packet.len();
        if self.queue.len() >= HTTP_QUEUE_LEN_MAX || bytes > HTTP_QUEUE_BYTES_MAX {
            return Err(job);
        }
        self.queue_bytes = bytes;
        self.queue.push_back(job);
        Ok(())
    }

    fn dequeue(&mut self) -> Option<Job> {
        let job = self.queue.pop_front()?;
        self.queue_bytes -= job.packet.len();
        Some(job)
    }
}

/// Where an idle lane is given its next job.
#[derive(Default)]
struct Slot {
    job: Cell<Option<Job>>,
    waker: Cell<Option<Waker>>,
}

/// A packet to be delivered.
struct Job {
    errand: Errand,
    packet: Bytes,
    deadline_ns: u64,
    /// What differs from the peer's usual requests.
    special: Option<Box<Special>>,
}

/// Of a request in callback mode.
#[derive(Default)]
pub(crate) struct Special {
    /// Instead of the path in the peer's URL.
    pub(crate) path: Option<PathAndQuery>,
    /// Beside the usual.
    pub(crate) headers: HeaderMap,
}

/// What a packet is, and who wants to know what became of it.
enum Errand {
    /// A Prepare, which the core named. In callback mode the peer knows it by its id.
    Prepare(RequestId, Option<Id>),
    /// The answer to one that the peer sent in callback mode.
    Answer(Cell<Option<oneshot::Sender<Delivered>>>),
}

/// What the clients of one worker share.
pub(crate) struct Shared {
    pub(crate) tls: ClientTls,
    pub(crate) clock: Clock,
    pub(crate) inbox: Inbox,
    pub(crate) scratch: Scratch,
    pub(crate) callbacks: Arc<Callbacks>,
}

impl HttpClient {
    pub(crate) fn new(
        account: AccountId,
        name: String,
        peer: HttpPeer,
        shared: Shared,
    ) -> Rc<Self> {
        let Shared {
            tls,
            clock,
            inbox,
            scratch,
            callbacks,
        } = shared;
        Rc::new(Self {
            account,
            name,
            head_http1: http1_client::request_head(&peer, &Special::default()),
            peer,
            tls,
            clock,
            inbox,
            scratch,
            callbacks,
            lanes: RefCell::default(),
            connect_warning: Pace::default(),
            exchange_warning: Pace::default(),
        })
    }

    /// Where packets go.
    pub(crate) fn peer(&self) -> &HttpPeer {
        &self.peer
    }

    /// Delivers a Prepare as soon as a lane is free.
    pub(crate) fn send(self: &Rc<Self>, request: RequestId, packet: Bytes, deadline_ns: u64) {
        let special = self.peer.callback.as_ref().and_then(|url| {
            let now_ns = self.clock.now_ns();
            // Before it is sent: the answer may be quicker than the 202.
            let sent = self
                .callbacks
                .send(self.account, request, deadline_ns, now_ns);
            sent.map(|id| (id, with_id(id, Some((CALLBACK_URL, url)))))
        });
        let (id, special) = special.unzip();
        self.put(Job {
            errand: Errand::Prepare(request, id),
            packet,
            deadline_ns,
            special,
        });
    }

    /// Makes one attempt to deliver an answer to the peer's callback URL.
    pub(crate) async fn deliver(
        self: &Rc<Self>,
        delivery: &Delivery,
        deadline_ns: u64,
    ) -> Delivered {
        let (done, delivered) = oneshot::channel();
        let mut special = with_id(delivery.id, None);
        special.path = Some(delivery.path.clone());
        self.put(Job {
            errand: Errand::Answer(Cell::new(Some(done))),
            packet: delivery.packet.clone(),
            deadline_ns,
            special: Some(special),
        });
        delivered.await.unwrap_or(Delivered::Unknown)
    }

    fn put(self: &Rc<Self>, job: Job) {
        let lanes = &mut *self.lanes.borrow_mut();
        if let Some(slot) = lanes.idle.pop() {
            slot.job.set(Some(job));
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        } else if let Some((until_ns, failure)) = lanes.connect_failed
            && lanes.count == 0
            && self.clock.now_ns() < until_ns
        {
            self.fail(&job, failure);
        } else if lanes.count < HTTP_LANES_MAX {
            lanes.count += 1;
            spawn_local(lane(Rc::clone(self), job));
        } else if let Err(job) = lanes.enqueue(job) {
            self.fail(&job, LinkFailure::Timeout);
        }
    }

    /// The packet was not taken.
    fn fail(&self, job: &Job, failure: LinkFailure) {
        match &job.errand {
            Errand::Prepare(request, id) if self.is_first(*id) => {
                self.inbox.push(Input::Failed {
                    link: LinkId::Http(self.account),
                    request: *request,
                    failure,
                });
            }
            Errand::Prepare(..) => {}
            Errand::Answer(done) => tell(done, Delivered::No),
        }
    }

    /// Whether nothing has answered the Prepare yet.
    fn is_first(&self, id: Option<Id>) -> bool {
        let answer = |id| self.callbacks.answer(self.account, id, self.clock.now_ns());
        id.is_none_or(|id| answer(id).is_ok())
    }

    async fn open(&self) -> Result<Connection, ConnectError> {
        if let Some(sender) = self.shared_http2() {
            return Ok(Connection::Http2(sender));
        }
        let tls = self.peer.tls().then_some(&self.tls.any_http);
        let stream = connect(&self.peer.host, self.peer.port, tls).await?;
        if !self.peer.prior_knowledge && !stream.is_http2() {
            return Ok(Connection::Http1(Http1::new(stream, self.scratch.clone())));
        }
        let opened = self.open_http2(stream).await;
        opened.map_err(|error| ConnectError {
            failure: LinkFailure::Connect,
            message: error.to_string(),
        })
    }

    async fn open_http2(&self, stream: Stream) -> hyper::Result<Connection> {
        // Another lane may have been quicker.
        if let Some(sender) = self.shared_http2() {
            return Ok(Connection::Http2(sender));
        }
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_INTERVAL)
            .handshake(TokioIo::new(stream))
            .await?;
        spawn_local(connection);
        self.lanes.borrow_mut().http2 = Some(sender.clone());
        Ok(Connection::Http2(sender))
    }

    fn shared_http2(&self) -> Option<http2::SendRequest<Body>> {
        let lanes = &mut *self.lanes.borrow_mut();
        lanes.http2.take_if(|sender| sender.is_closed());
        lanes.http2.clone()
    }

    fn request_http2(&self, job: &Job) -> Request<Body> {
        let mut request = Request::new(Full::new(job.packet.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.peer.url.clone();
        *request.headers_mut() = self.peer.headers.clone();
        if let Some(special) = &job.special {
            request.headers_mut().extend(special.headers.clone());
            if special.path.is_some() {
                let mut parts = self.peer.url.clone().into_parts();
                parts.path_and_query.clone_from(&special.path);
                *request.uri_mut() = Uri::from_parts(parts).expect("another path of the same URL");
            }
        }
        request
    }

    fn head_http1(&self, job: &Job) -> Cow<'_, [u8]> {
        match &job.special {
            None => Cow::Borrowed(&self.head_http1),
            Some(special) => Cow::Owned(http1_client::request_head(&self.peer, special)),
        }
    }

    /// A job that no connection could be had for. Those that wait fare no better.
    fn connect_failed(&self, job: &Job, error: &ConnectError) {
        let now_ns = self.clock.now_ns();
        if let Some(held_back) = self.connect_warning.due(now_ns) {
            let ConnectError { failure, message } = error;
            tracing::warn!(
                account = self.name, url = %self.peer.url, ?failure, %message, held_back,
                "cannot connect to peer"
            );
        }
        self.fail(job, error.failure);
        let lanes = &mut *self.lanes.borrow_mut();
        lanes.connect_failed = Some((now_ns + RECONNECT_PAUSE_NS, error.failure));
        while let Some(job) = lanes.dequeue() {
            self.fail(&job, error.failure);
        }
    }

    /// A job that was answered, or will not be.
    fn finish(&self, job: &Job, outcome: Outcome) {
        let (request, id) = match &job.errand {
            Errand::Prepare(request, id) => (*request, *id),
            Errand::Answer(done) => return tell(done, delivered(&outcome)),
        };
        match outcome {
            // A peer that knows no callback mode answers at once. The first answer counts.
            Outcome::Reply(packet) if self.is_first(id) => self.inbox.push(Input::Reply {
                link: LinkId::Http(self.account),
                request,
                packet,
            }),
            Outcome::Reply(_) => {}
            Outcome::Accepted if id.is_some() => {}
            Outcome::Accepted => {
                let message = "peer answers in callback mode (202), which was not asked for";
                self.unanswered(request, message);
            }
            Outcome::Failed(failure, message) => {
                self.warn(&message);
                self.fail(job, failure);
            }
            Outcome::Unknown(message) => self.unanswered(request, &message),
            Outcome::Late => {}
            Outcome::Unsent => self.fail(job, LinkFailure::Closed),
        }
    }

    /// The peer may have fulfilled it, and in callback mode its answer may yet come.
    fn unanswered(&self, request: RequestId, message: &str) {
        self.warn(message);
        let link = LinkId::Http(self.account);
        self.inbox.push(Input::Unanswered { link, request });
    }

    fn warn(&self, message: &str) {
        if let Some(held_back) = self.exchange_warning.due(self.clock.now_ns()) {
            tracing::warn!(account = self.name, url = %self.peer.url, held_back, "{message}");
        }
    }

    /// The next job, or none after too long a silence or the end of the connection.
    async fn next(
        &self,
        slot: &Rc<Slot>,
        connection: &mut Option<Connection>,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<Job> {
        if let Some(job) = self.lanes.borrow_mut().dequeue() {
            return Some(job);
        }
        let idle_until = self.clock.instant(self.clock.now_ns() + IDLE_NS_MAX);
        self.lanes.borrow_mut().idle.push(Rc::clone(slot));
        let job = poll_fn(|cx| {
            if let Some(job) = slot.job.take() {
                return Poll::Ready(Some(job));
            }
            if connection.as_mut().is_none_or(|open| open.poll_closed(cx)) {
                return Poll::Ready(None);
            }
            // The timer was set for the last job's deadline; it is moved only when it fires.
            while timer.as_mut().poll(cx).is_ready() {
                if tokio::time::Instant::now() >= idle_until {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(idle_until);
            }
            slot.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        if job.is_none() {
            let idle = &mut self.lanes.borrow_mut().idle;
            idle.retain(|other| !Rc::ptr_eq(other, slot));
        }
        job
    }
}

/// The life of a lane.
async fn lane(client: Rc<HttpClient>, first: Job) {
    let slot = Rc::new(Slot::default());
    let mut timer = pin!(sleep_until(client.clock.instant(first.deadline_ns)));
    let mut connection = None;
    let mut next = Some(first);
    while let Some(job) = next {
        let reused = connection.is_some();
        let outcome = match attempt(&client, &mut connection, &job, timer.as_mut()).await {
            // The peer closed the connection while it was idle, and the packet was surely not
            // written: it may be sent again, over a new connection.
            Ok(Outcome::Unsent) if reused => {
                connection = None;
                attempt(&client, &mut connection, &job, timer.as_mut()).await
            }
            other => other,
        };
        match outcome {
            Ok(outcome) => client.finish(&job, outcome),
            Err(error) => {
                client.connect_failed(&job, &error);
                break;
            }
        }
        next = client.next(&slot, &mut connection, timer.as_mut()).await;
    }
    let lanes = &mut *client.lanes.borrow_mut();
    match lanes.dequeue() {
        Some(job) => drop(spawn_local(lane(Rc::clone(&client), job))),
        None => lanes.count -= 1,
    }
}

async fn attempt(
    client: &HttpClient,
    connection: &mut Option<Connection>,
    job: &Job,
    timer: Pin<&mut Sleep>,
) -> Result<Outcome, ConnectError> {
    if job.deadline_ns <= client.clock.now_ns() {
        return Ok(Outcome::Late);
    }
    let open = match connection {
        Some(open) => open,
        None => connection.insert(client.open().await?),
    };
    let outcome = open.exchange(client, job, timer).await;
    let keep = match &outcome {
        Outcome::Reply(_) | Outcome::Accepted => true,
        // One request is given up; other streams go on.
        Outcome::Late => matches!(open, Connection::Http2(_)),
        Outcome::Failed(..) | Outcome::Unknown(_) | Outcome::Unsent => false,
    };
    if !keep {
        *connection = None;
    }
    Ok(outcome)
}

/// How a request ended.
pub(crate) enum Outcome {
    /// With bytes that should be a Fulfill or Reject.
    Reply(Bytes),
    /// The reply is to come in a request of its own.
    Accepted,
    /// With an answer that is none.
    Failed(LinkFailure, String),
    /// After it was written, without an answer.
    Unknown(String),
    /// Its time is up.
    Late,
    /// It was surely not written.
    Unsent,
}

/// What a lane sends over.
enum Connection {
    /// Its own.
    Http1(Http1),
    /// A stream of the shared one, which has a task of its own.
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// Sends the packet and waits for the answer until the deadline.
    async fn exchange(
        &mut self,
        client: &HttpClient,
        job: &Job,
        mut timer: Pin<&mut Sleep>,
    ) -> Outcome {
        let deadline = client.clock.instant(job.deadline_ns);
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        let mut exchange = pin!(async {
            match self {
                Self::Http1(http1) => http1.exchange(&client.head_http1(job), &job.packet).await,
                Self::Http2(sender) => {
                    let request = client.request_http2(job);
                    exchange_http2(sender, request).await
                }
            }
        });
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = exchange.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            while timer.as_mut().poll(cx).is_ready() {
                if client.clock.now_ns() >= job.deadline_ns {
                    return Poll::Ready(Outcome::Late);
                }
                timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }

    /// Whether no more requests can be sent; polled while the lane is idle.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Http1(http1) => http1.poll_closed(cx),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

async fn exchange_http2(sender: &mut http2::SendRequest<Body>, request: Request<Body>) -> Outcome {
    if sender.ready().await.is_err() {
        return Outcome::Unsent;
    }
    match sender.try_send_request(request).await {
        Ok(response) => read_response(response).await,
        Err(mut error) => unanswered(error.take_message(), error.error()),
    }
}

fn unanswered(unsent: Option<Request<Body>>, error: &hyper::Error) -> Outcome {
    match unsent {
        Some(_) => Outcome::Unsent,
        None => Outcome::Unknown(format!("peer did not answer a packet: {error}")),
    }
}

async fn read_response(response: Response<Incoming>) -> Outcome {
    let (head, body) = response.into_parts();
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let answer = match judge_head(head.status.as_u16(), content_type) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    match body::read(body, PACKET_BODY_BYTES_MAX).await {
        Ok(packet) => match answer {
            Answer::Reply => Outcome::Reply(packet),
            Answer::Accepted => Outcome::Accepted,
        },
        Err(body::BodyError::TooLarge) => too_large(),
        Err(body::BodyError::Broken(error)) => Outcome::Unknown(format!(
            "peer did not finish its answer to a packet: {error}"
        )),
    }
}

/// What a peer's head announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The body is a reply.
    Reply,
    /// The reply comes later, and the body is nothing.
    Accepted,
}

/// What the body that follows is.
pub(crate) fn judge_head(status: u16, content_type: Option<&[u8]>) -> Result<Answer, Outcome> {
    match status {
        200 if is_packet_type(content_type) => Ok(Answer::Reply),
        200 => {
            let message = "peer answered a packet with another content type".to_owned();
            Err(Outcome::Failed(LinkFailure::ContentType, message))
        }
        202 => Ok(Answer::Accepted),
        _ => {
            let message = format!("peer answered a packet with status {status}");
            Err(Outcome::Failed(LinkFailure::Http(status), message))
        }
    }
}

fn with_id(id: Id, more: Option<(http::HeaderName, &HeaderValue)>) -> Box<Special> {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::try_from(id.to_string()).expect("hexadecimal digits and hyphens");
    headers.insert(REQUEST_ID, value);
    if let Some((name, value)) = more {
        headers.insert(name, value.clone());
    }
    let path = None;
    Box::new(Special { path, headers })
}

/// What became of an answer (RFC 35): any status of success or of the request's own fault is the end.
fn delivered(outcome: &Outcome) -> Delivered {
    match outcome {
        Outcome::Reply(_)
        | Outcome::Accepted
        | Outcome::Failed(LinkFailure::ContentType | LinkFailure::BadReply, _)
        | Outcome::Failed(LinkFailure::Http(200..=299), _) => Delivered::Yes,
        Outcome::Failed(LinkFailure::Http(status @ 300..=499), _) => Delivered::Refused(*status),
        Outcome::Failed(..) | Outcome::Unsent => Delivered::No,
        Outcome::Unknown(_) | Outcome::Late => Delivered::Unknown,
    }
}

fn tell(done: &Cell<Option<oneshot::Sender<Delivered>>>, delivered: Delivered) {
    if let Some(done) = done.take() {
        // It is no mistake that nobody wants to know any more.
        let _ = done.send(delivered);
    }
}

pub(crate) fn too_large() -> Outcome {
    let message = "peer answered a packet with too large a body".to_owned();
    Outcome::Failed(LinkFailure::BadReply, message)
}
