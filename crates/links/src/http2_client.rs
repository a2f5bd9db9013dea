//! Packets to a peer over one HTTP/2 connection, many at a time.
//!
//! One task owns the connection and every request on it. What waits in the client's queue leaves in
//! one write, and all answers that a read brings are taken in one turn.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{
    Ping, PingPong,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::{HeaderValue, header::CONTENT_TYPE};
use tokio::time::{Sleep, sleep_until};

use crate::{
    body::{BodyError, Http2Body, PACKET_BODY_BYTES_MAX},
    connect::Stream,
    http_client::{
        Answer, HTTP_LANES_MAX, HttpClient, IDLE_NS_MAX, Job, Outcome, judge_head, too_large,
    },
};

/// A silent peer is asked for a sign of life this long after the last one, and given as long to answer.
const PING_NS: u64 = 20_000_000_000;
/// Most bytes of the head of a response, unpacked.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// Requests that may be in flight before the peer has said how many.
const STREAMS_AT_FIRST: usize = 100;
/// Most bytes of answers that come before they are taken.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Those of one stream: the largest packet, and more.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// How the owner of a connection hears that something waits for it.
#[derive(Default)]
pub(crate) struct Bell(Cell<Option<Waker>>);

impl Bell {
    pub(crate) fn ring(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }

    fn listen(&self, cx: &Context<'_>) {
        let known = self.0.take().filter(|known| known.will_wake(cx.waker()));
        self.0.set(known.or_else(|| Some(cx.waker().clone())));
    }
}

/// A connection and what is in flight on it.
pub(crate) struct Http2 {
    client: Rc<HttpClient>,
    bell: Rc<Bell>,
    connection: Connection<Stream, Bytes>,
    /// `None`: it takes no more requests.
    sender: Option<SendRequest<Bytes>>,
    in_flight: FuturesUnordered<Exchange>,
    pings: PingPong,
    life: Life,
    /// Whether anything was sent on it.
    was_used: bool,
    /// Moved only when it fires, or would be late.
    timer: Pin<Box<Sleep>>,
    timer_ns: u64,
}

impl Http2 {
    pub(crate) async fn open(client: &Rc<HttpClient>, stream: Stream) -> Result<Self, h2::Error> {
        let handshake = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(STREAMS_AT_FIRST)
            .max_header_list_size(HEAD_BYTES_MAX)
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .handshake(stream);
        let (sender, mut connection) = handshake.await?;
        let now_ns = client.clock().now_ns();
        let timer_ns = now_ns + IDLE_NS_MAX;
        Ok(Self {
            bell: Rc::default(),
            pings: connection.ping_pong().expect("nobody else took it"),
            connection,
            sender: Some(sender),
            in_flight: FuturesUnordered::new(),
            life: Life::at(now_ns),
            was_used: false,
            timer: Box::pin(sleep_until(client.clock().instant(timer_ns))),
            timer_ns,
            client: Rc::clone(client),
        })
    }

    /// Sends the job and all that will wait in the queue, until the connection ends.
    pub(crate) async fn run(mut self: Box<Self>, first: Job) {
        if !self.client.enter_http2(&self.bell, first) {
            return; // another lane was quicker
        }
        poll_fn(|cx| self.poll(cx)).await;
        self.leave();
        for exchange in mem::take(&mut self.in_flight) {
            if let Some(job) = exchange.job {
                self.client.finish(&job, unanswered("the connection ended"));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.listen(cx);
        // Reads before it sends: nothing is sent on a connection that is known to have ended.
        let mut has_ended = self.drive(cx);
        while !has_ended && self.send(cx) {
            has_ended = self.drive(cx);
        }
        match has_ended || self.poll_timer(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Reads what came, takes the answers, and writes what is to be written. True: it has ended.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        let has_ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        let mut was_heard = false;
        while let Poll::Ready(Some((job, outcome))) = self.in_flight.poll_next_unpin(cx) {
            was_heard |= !matches!(outcome, Outcome::Unknown(_));
            self.client.finish(&job, outcome);
        }
        was_heard |= self.life.asked_ns.is_some() && self.pings.poll_pong(cx).is_ready();
        if was_heard {
            self.life = Life::at(self.client.clock().now_ns());
        }
        has_ended
    }

    /// Gives `h2` what waits in the queue. False: there was nothing, or no room.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_sent = false;
        while let Some(sender) = &mut self.sender
            && self.in_flight.len() < HTTP_LANES_MAX
        {
            match sender.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                // The peer takes no more, or the connection ends.
                Poll::Ready(Err(_)) => self.leave(),
                Poll::Pending => break,
            }
            let Some(sender) = &mut self.sender else {
                break;
            };
            let Some(job) = self.client.dequeue() else {
                break;
            };
            if job.deadline_ns <= self.client.clock().now_ns() {
                self.client.finish(&job, Outcome::Late);
                continue;
            }
            let (head, packet) = self.client.request_http2(&job);
            let sent = sender.send_request(head, false);
            let sent = sent.and_then(|(response, mut body)| {
                body.send_data(packet, true)?;
                Ok(response)
            });
            match sent {
                Ok(response) => {
                    if job.deadline_ns < self.timer_ns {
                        self.set_timer(job.deadline_ns);
                    }
                    self.in_flight.push(Exchange {
                        job: Some(job),
                        state: State::Head(response),
                    });
                    has_sent = true;
                    self.was_used = true;
                }
                Err(_) => self.client.finish(&job, Outcome::Unsent),
            }
        }
        has_sent
    }

    /// Takes no more requests. What is in flight goes on.
    fn leave(&mut self) {
        if self.sender.take().is_some() {
            self.client.leave_http2(self.was_used);
        }
    }

    /// True: the connection is of no use any more.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now_ns = self.client.clock().now_ns();
            self.give_up_late(now_ns);
            let deadlines = self.in_flight.iter().filter_map(Exchange::deadline_ns);
            let next_ns = match (deadlines.min(), self.life.look(now_ns)) {
                (Some(deadline_ns), Look::Again(at_ns)) => deadline_ns.min(at_ns),
                (Some(deadline_ns), Look::Ask) => {
                    if self.pings.send_ping(Ping::opaque()).is_ok() {
                        self.life.asked_ns = Some(now_ns);
                    }
                    deadline_ns.min(now_ns + PING_NS)
                }
                (Some(_), Look::Dead) => return true,
                (None, _) if self.sender.is_none() => return true,
                (None, _) if now_ns >= self.life.heard_ns + IDLE_NS_MAX => {
                    self.leave();
                    now_ns + IDLE_NS_MAX
                }
                (None, _) => self.life.heard_ns + IDLE_NS_MAX,
            };
            self.set_timer(next_ns);
        }
        false
    }

    /// Gives up requests whose time is over; the peer is told by a reset of their streams. The others are
    /// polled anew with the next read.
    fn give_up_late(&mut self, now_ns: u64) {
        for mut exchange in mem::take(&mut self.in_flight) {
            match exchange.job.take_if(|job| job.deadline_ns <= now_ns) {
                Some(job) => self.client.finish(&job, Outcome::Late),
                None => self.in_flight.push(exchange),
            }
        }
    }

    fn set_timer(&mut self, at_ns: u64) {
        self.timer_ns = at_ns;
        self.timer
            .as_mut()
            .reset(self.client.clock().instant(at_ns));
    }
}

/// What is known of the peer's life.
struct Life {
    /// When it last said something of use.
    heard_ns: u64,
    /// When it was asked for a sign of life, which it still owes.
    asked_ns: Option<u64>,
}

/// What to do about a peer that owes answers.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Look at it again at that time.
    Again(u64),
    /// Ask it for a sign of life.
    Ask,
    /// Expect nothing more of it.
    Dead,
}

impl Life {
    fn at(now_ns: u64) -> Self {
        Self {
            heard_ns: now_ns,
            asked_ns: None,
        }
    }

    fn look(&self, now_ns: u64) -> Look {
        let due_ns = self.asked_ns.unwrap_or(self.heard_ns) + PING_NS;
        match self.asked_ns {
            _ if now_ns < due_ns => Look::Again(due_ns),
            None => Look::Ask,
            Some(_) => Look::Dead,
        }
    }
}

/// A request in flight.
struct Exchange {
    /// Until it is done.
    job: Option<Job>,
    state: State,
}

enum State {
    Head(ResponseFuture),
    Body(Answer, Http2Body),
}

impl Exchange {
    fn deadline_ns(&self) -> Option<u64> {
        self.job.as_ref().map(|job| job.deadline_ns)
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match &mut self.state {
                State::Head(response) => {
                    let response = match ready!(Pin::new(response).poll(cx)) {
                        Ok(response) => response,
                        Err(error) => return Poll::Ready(unanswered(error)),
                    };
                    let (head, body) = response.into_parts();
                    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
                    match judge_head(head.status.as_u16(), content_type) {
                        Ok(answer) => {
                            self.state = State::Body(answer, Http2Body::new(body));
                        }
                        Err(outcome) => return Poll::Ready(outcome),
                    }
                }
                State::Body(answer, body) => {
                    let packet = ready!(body.poll_whole(cx, PACKET_BODY_BYTES_MAX));
                    return Poll::Ready(match (packet, answer) {
                        (Ok(packet), Answer::Reply) => Outcome::Reply(packet),
                        (Ok(_), Answer::Accepted) => Outcome::Accepted,
                        (Err(BodyError::TooLarge), _) => too_large(),
                        (Err(BodyError::Broken(error)), _) => unanswered(error),
                    });
                }
            }
        }
    }
}

impl Future for Exchange {
    type Output = (Job, Outcome);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Job, Outcome)> {
        let outcome = ready!(self.poll_outcome(cx));
        let job = self.job.take().expect("it is done once");
        Poll::Ready((job, outcome))
    }
}

/// The peer may have taken the packet.
fn unanswered(why: impl fmt::Display) -> Outcome {
    Outcome::Unknown(format!("peer did not answer a packet: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_asked_once_and_then_given_up() {
        let mut life = Life::at(5);
        assert_eq!(life.look(6), Look::Again(5 + PING_NS));
        assert_eq!(life.look(5 + PING_NS), Look::Ask);
        let asked_ns = 7 + PING_NS;
        life.asked_ns = Some(asked_ns);
        assert_eq!(life.look(asked_ns), Look::Again(asked_ns + PING_NS));
        assert_eq!(life.look(asked_ns + PING_NS), Look::Dead);
        life = Life::at(asked_ns + 1);
        assert_eq!(
            life.look(asked_ns + PING_NS),
            Look::Again(asked_ns + 1 + PING_NS)
        );
    }
}
