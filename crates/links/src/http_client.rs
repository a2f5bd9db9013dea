//! Packets to one peer by ILP over HTTP.
//!
//! A *lane* is a task with a connection of its own. Where the peer speaks HTTP/1.1 it does one request
//! after the other, and the lane that was idle last is used first, so the others can run dry and close.
//! Where the peer speaks HTTP/2 there is one lane, which does all that waits at the same time.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, header::CONTENT_LENGTH, uri::PathAndQuery,
};
use rialto_connector::{Input, LinkFailure, LinkId, RequestId};
use rialto_ledger::AccountId;
use tokio::{sync::oneshot, task::spawn_local, time::Instant};

use crate::{
    alarm::Alarm,
    callback::{CALLBACK_URL, Callbacks, Delivered, Delivery, Id, REQUEST_ID},
    clock::Clock,
    connect::{ConnectError, connect},
    directory::HttpPeer,
    http1_client::{self, Http1},
    http2_client::{Bell, Http2},
    inbox::Inbox,
    pace::Pace,
    scratch::Scratch,
    server::is_packet_type,
    tls::ClientTls,
};

/// Most requests in flight to one peer from one worker: lanes over HTTP/1.1, streams over HTTP/2.
pub const HTTP_LANES_MAX: usize = 256;
/// Most packets that wait for a lane. One more fails at once.
pub const HTTP_QUEUE_LEN_MAX: usize = 4_096;
/// Most bytes of packets that wait for a lane.
pub const HTTP_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long an idle connection is kept. Shorter than what servers allow, so that a packet rarely
/// meets a connection that is just being closed.
pub(crate) const IDLE_NS_MAX: u64 = 15_000_000_000;
/// After a failed attempt to connect, packets fail without another one for so long.
const RECONNECT_PAUSE_NS: u64 = 100_000_000;

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
    idle: Vec<Rc<RefCell<Lane>>>,
    queue: VecDeque<Job>,
    /// Of the packets in `queue`.
    queue_bytes: usize,
    /// Of the lane that speaks HTTP/2, while that takes requests.
    http2: Option<Rc<Bell>>,
    /// What the peer spoke last, or is known to speak.
    is_http2: bool,
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

    /// The first of those that wait is this one now.
    fn enqueue_first(&mut self, job: Job) {
        self.queue_bytes += job.packet.len();
        self.queue.push_front(job);
    }

    fn dequeue(&mut self) -> Option<Job> {
        let job = self.queue.pop_front()?;
        self.queue_bytes -= job.packet.len();
        Some(job)
    }
}

/// What a lane's task shares with whoever has a job for it.
struct Lane {
    job: Option<Job>,
    connection: Http1,
    /// The connection has answered before.
    is_reused: bool,
    /// When the silence of an idle lane is too long.
    silent_until: Option<Instant>,
    alarm: Alarm,
    /// Of the task, which is never another.
    waker: Option<Waker>,
}

/// A packet to be delivered.
pub(crate) struct Job {
    errand: Errand,
    packet: Bytes,
    pub(crate) deadline_ns: u64,
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
            lanes: RefCell::new(Lanes {
                is_http2: peer.prior_knowledge,
                ..Lanes::default()
            }),
            peer,
            tls,
            clock,
            inbox,
            scratch,
            callbacks,
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
        let lanes_max = match lanes.is_http2 {
            true => 1,
            false => HTTP_LANES_MAX,
        };
        if let Some(lane) = lanes.idle.pop() {
            self.give(&mut lane.borrow_mut(), job);
        } else if let Some((until_ns, failure)) = lanes.connect_failed
            && lanes.count == 0
            && self.clock.now_ns() < until_ns
        {
            self.fail(&job, failure);
        } else if lanes.count < lanes_max {
            lanes.count += 1;
            spawn_local(lane(Rc::clone(self), job));
        } else {
            if let Err(job) = lanes.enqueue(job) {
                self.fail(&job, LinkFailure::Timeout);
            }
            if let Some(bell) = &lanes.http2 {
                bell.ring();
            }
        }
    }

    /// Gives a job to an idle lane. The request is written here and now, if it can be: the lane's task then has
    /// nothing to do before the answer comes.
    fn give(&self, lane: &mut Lane, job: Job) {
        let waker = lane.waker.take().expect("an idle lane has one");
        let mut cx = Context::from_waker(&waker);
        let head = self.head_http1(&job);
        let sent = lane.connection.poll_send(&mut cx, &head, &job.packet);
        let deadline = self.clock.instant(job.deadline_ns);
        if matches!(sent, Poll::Ready(Ok(()))) && lane.alarm.rings_by(deadline) {
            lane.waker = Some(waker);
        } else {
            waker.wake();
        }
        lane.job = Some(job);
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

    async fn open(self: &Rc<Self>) -> Result<Opened, ConnectError> {
        let tls = self.peer.tls().then_some(&self.tls.any_http);
        let stream = connect(&self.peer.host, self.peer.port, tls).await?;
        let is_http2 = self.peer.prior_knowledge || stream.is_http2();
        self.lanes.borrow_mut().is_http2 = is_http2;
        if !is_http2 {
            return Ok(Opened::Http1(Http1::new(stream, self.scratch.clone())));
        }
        let opened = Http2::open(self, stream).await;
        opened
            .map(|open| Opened::Http2(Box::new(open)))
            .map_err(|error| ConnectError {
                failure: LinkFailure::Connect,
                message: error.to_string(),
            })
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// The packet that has waited longest.
    pub(crate) fn dequeue(&self) -> Option<Job> {
        self.lanes.borrow_mut().dequeue()
    }

    /// A lane found that the peer speaks HTTP/2, and does what waits from now on. False: another does.
    pub(crate) fn enter_http2(&self, bell: &Rc<Bell>, first: Job) -> bool {
        let lanes = &mut *self.lanes.borrow_mut();
        lanes.enqueue_first(first);
        if let Some(other) = &lanes.http2 {
            other.ring();
            lanes.count -= 1;
            return false;
        }
        lanes.http2 = Some(Rc::clone(bell));
        true
    }

    /// The lane takes no more. What waits is done over another connection, but it fails where this one
    /// took nothing at all: the next would fare no better, and the one after it.
    pub(crate) fn leave_http2(self: &Rc<Self>, was_used: bool) {
        let lanes = &mut *self.lanes.borrow_mut();
        lanes.http2 = None;
        while !was_used && let Some(job) = lanes.dequeue() {
            self.fail(&job, LinkFailure::Closed);
        }
        self.lane_ends(lanes);
    }

    /// One lane less, unless something still waits.
    fn lane_ends(self: &Rc<Self>, lanes: &mut Lanes) {
        match lanes.dequeue() {
            Some(job) => drop(spawn_local(lane(Rc::clone(self), job))),
            None => lanes.count -= 1,
        }
    }

    pub(crate) fn request_http2(&self, job: &Job) -> (Request<()>, Bytes) {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.peer.url.clone();
        *request.headers_mut() = self.peer.headers.clone();
        let len = HeaderValue::from(job.packet.len());
        request.headers_mut().insert(CONTENT_LENGTH, len);
        if let Some(special) = &job.special {
            request.headers_mut().extend(special.headers.clone());
            if special.path.is_some() {
                let mut parts = self.peer.url.clone().into_parts();
                parts.path_and_query.clone_from(&special.path);
                *request.uri_mut() = Uri::from_parts(parts).expect("another path of the same URL");
            }
        }
        (request, job.packet.clone())
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
    pub(crate) fn finish(&self, job: &Job, outcome: Outcome) {
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

    /// Does one job after the other over a lane's connection, until that ends. A job that is left then wants
    /// another connection.
    fn poll_lane(&self, shared: &Rc<RefCell<Lane>>, cx: &mut Context<'_>) -> Poll<()> {
        let lane = &mut *shared.borrow_mut();
        while let Some(job) = &lane.job {
            let outcome = ready!(self.poll_job(job, &mut lane.connection, &mut lane.alarm, cx));
            // The peer closed the connection while it was idle, and the packet was surely not
            // written: it may be sent again, over a new connection.
            if matches!(outcome, Outcome::Unsent) && lane.is_reused {
                return Poll::Ready(());
            }
            self.finish(job, outcome);
            lane.job = None;
            if !lane.connection.is_idle() {
                return Poll::Ready(());
            }
            lane.is_reused = true;
            lane.job = self.dequeue();
            if lane.job.is_none() {
                lane.silent_until = None;
                self.lanes.borrow_mut().idle.push(Rc::clone(shared));
            }
        }
        if !lane.connection.poll_closed(cx) {
            let now = Instant::now();
            let silence = || now + Duration::from_nanos(IDLE_NS_MAX);
            let until = *lane.silent_until.get_or_insert_with(silence);
            if lane.alarm.poll(cx, now, until).is_pending() {
                lane.waker.get_or_insert_with(|| cx.waker().clone());
                return Poll::Pending;
            }
        }
        let idle = &mut self.lanes.borrow_mut().idle;
        idle.retain(|other| !Rc::ptr_eq(other, shared));
        Poll::Ready(())
    }

    /// Sends a packet, if that has not begun, and waits for the answer until the deadline.
    fn poll_job(
        &self,
        job: &Job,
        connection: &mut Http1,
        alarm: &mut Alarm,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome> {
        if connection.is_idle() && job.deadline_ns <= self.clock.now_ns() {
            return Poll::Ready(Outcome::Late);
        }
        let head = self.head_http1(job);
        match connection.poll_exchange(cx, &head, &job.packet) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => {
                let deadline = self.clock.instant(job.deadline_ns);
                let late = alarm.poll(cx, Instant::now(), deadline);
                late.map(|()| Outcome::Late)
            }
        }
    }
}

/// A connection, by what the peer speaks.
enum Opened {
    Http1(Http1),
    Http2(Box<Http2>),
}

/// The life of a lane.
async fn lane(client: Rc<HttpClient>, first: Job) {
    let mut next = Some(first);
    while let Some(job) = next {
        if job.deadline_ns <= client.clock.now_ns() {
            client.finish(&job, Outcome::Late);
            break;
        }
        // In a box: it takes the most room, for the shortest time.
        let connection = match Box::pin(client.open()).await {
            Ok(Opened::Http1(open)) => open,
            Ok(Opened::Http2(open)) => return open.run(job).await,
            Err(error) => {
                client.connect_failed(&job, &error);
                break;
            }
        };
        let lane = Rc::new(RefCell::new(Lane {
            alarm: Alarm::new(client.clock.instant(job.deadline_ns)),
            job: Some(job),
            connection,
            is_reused: false,
            silent_until: None,
            waker: None,
        }));
        poll_fn(|cx| client.poll_lane(&lane, cx)).await;
        next = lane.borrow_mut().job.take();
    }
    client.lane_ends(&mut client.lanes.borrow_mut());
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
