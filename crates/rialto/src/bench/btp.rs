//! Packets by BTP: many on one connection.

use std::{
    collections::VecDeque,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, SinkExt, StreamExt};
use rialto_btp::{
    BtpUri,
    frame::FRAME_BYTES_MAX,
    session::{CloseReason, Event, Session, Settings},
};
use rialto_links::Stream;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use super::{
    Answer, Load, RECONNECT_PAUSE, Sender, Setup, arrivals::Due, open, packets, packets::Preimage,
    wall,
};

/// How long the WebSocket upgrade and the authentication may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Socket<S> = WebSocketStream<S>;

/// One authenticated connection.
pub(super) struct Connection {
    setup: Rc<Setup>,
    uri: BtpUri,
    in_flight_max: usize,
    link: Link,
    waiting: Waiting,
}

/// A session and its socket.
struct Link {
    socket: Socket<Stream>,
    session: Session,
    opened: Instant,
}

/// A packet that was sent.
struct Sent {
    due: Instant,
    at: Instant,
    preimage: Preimage,
}

/// Requests in flight. Their ids count up, so each is found by its distance from the oldest.
#[derive(Default)]
struct Waiting {
    /// `None` where the answer has come.
    requests: VecDeque<Option<Sent>>,
    /// The id of the first.
    oldest: u32,
    count: usize,
}

impl Waiting {
    fn next_id(&self) -> u32 {
        self.oldest + u32::try_from(self.requests.len()).expect("in flight is bounded")
    }

    fn push(&mut self, sent: Sent) {
        self.requests.push_back(Some(sent));
        self.count += 1;
    }

    fn take(&mut self, id: u32) -> Option<Sent> {
        let index = usize::try_from(id.checked_sub(self.oldest)?).ok()?;
        let sent = self.requests.get_mut(index)?.take()?;
        self.count -= 1;
        self.forget_answered();
        Some(sent)
    }

    fn forget_answered(&mut self) {
        while let Some(None) = self.requests.front() {
            self.requests.pop_front();
            self.oldest += 1;
        }
    }

    /// The oldest that still waits, if it was sent before `limit`.
    fn pop_older(&mut self, limit: Instant) -> Option<Sent> {
        let is_old = |sent: &Option<Sent>| sent.as_ref().is_some_and(|sent| sent.at < limit);
        self.requests.front().filter(|sent| is_old(sent))?;
        self.take(self.oldest)
    }
}

pub(super) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

/// All connections, open and authenticated; packets in flight are shared out among them.
pub(super) async fn senders(setup: &Rc<Setup>, uri: &BtpUri) -> Result<Vec<Sender>, String> {
    let mut senders = Vec::new();
    for number in 0..setup.connections {
        let extra = usize::from(number < setup.in_flight % setup.connections);
        senders.push(Sender::Btp(Box::new(Connection {
            setup: Rc::clone(setup),
            uri: uri.clone(),
            in_flight_max: setup.in_flight / setup.connections + extra,
            link: Link::open(setup, uri).await?,
            waiting: Waiting {
                oldest: 1,
                ..Waiting::default()
            },
        })));
    }
    Ok(senders)
}

impl Link {
    async fn open(setup: &Setup, uri: &BtpUri) -> Result<Self, String> {
        timeout(HANDSHAKE_TIMEOUT, Self::handshake(setup, uri))
            .await
            .unwrap_or_else(|_| Err("no BTP session within 10 s".to_owned()))
    }

    async fn handshake(setup: &Setup, uri: &BtpUri) -> Result<Self, String> {
        let tls = uri.tls.then(|| setup.tls.for_websocket());
        let stream = open(uri.host.trim_matches(['[', ']']), uri.port, tls).await?;
        let config = Some(websocket_config());
        let upgrade = client_async_with_config(uri.websocket_url(), stream, config).await;
        let (socket, _) = upgrade.map_err(|error| format!("no WebSocket: {error}"))?;
        let mut hello = Vec::new();
        let (name, token) = (&uri.username, &setup.token);
        let session = Session::client(Settings::default(), 0, wall(), name, token, &mut hello);
        let mut link = Self {
            socket,
            session,
            opened: Instant::now(),
        };
        let closed = |error: tungstenite::Error| format!("closed before authentication: {error}");
        link.socket
            .send(Message::binary(hello))
            .await
            .map_err(closed)?;
        loop {
            let message = link.socket.next().await;
            let message = message
                .ok_or("closed before authentication")?
                .map_err(closed)?;
            let mut out = Vec::new();
            let event = match &message {
                Message::Binary(frame) => link.session.handle_frame(0, frame, &mut out),
                Message::Text(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Close(_)
                | Message::Frame(_) => Event::Nothing,
            };
            match event {
                Event::Established => return Ok(link),
                Event::Close(CloseReason::AuthRejected(_)) => {
                    return Err(
                        "BTP authentication was rejected: wrong token or account".to_owned()
                    );
                }
                Event::Close(reason) => return Err(format!("no BTP session: {reason:?}")),
                Event::Nothing
                | Event::Authenticate { .. }
                | Event::Deferred
                | Event::Prepare { .. }
                | Event::Reply { .. }
                | Event::PeerError { .. }
                | Event::BadReply { .. }
                | Event::Ping => {}
            }
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Connection {
    pub(super) async fn run(mut self, load: &Load) {
        loop {
            match self.exchange(load).await {
                Ok(()) => {
                    let _ = self.link.socket.close(None).await;
                    return;
                }
                Err(why) => {
                    self.give_up(load, &why);
                    loop {
                        sleep(RECONNECT_PAUSE).await;
                        match Link::open(&self.setup, &self.uri).await {
                            Ok(link) => break self.link = link,
                            // Whatever is due meanwhile fails at once.
                            Err(why) => match load.queue.try_next() {
                                Due::Over => return,
                                Due::Later => {}
                                Due::Now(due) => {
                                    let answer = Answer::Failed(why);
                                    load.tally.borrow_mut().count(due, Instant::now(), answer);
                                }
                            },
                        }
                    }
                }
            }
        }
    }

    /// Sends and receives until nothing is due any more and everything is answered.
    async fn exchange(&mut self, load: &Load) -> Result<(), String> {
        let mut is_over = false;
        loop {
            let mut is_fed = false;
            while !is_over && self.waiting.count < self.in_flight_max {
                match load.queue.try_next() {
                    Due::Now(due) => self.feed(load, due).await?,
                    Due::Later => break,
                    Due::Over => is_over = true,
                }
                is_fed = true;
            }
            if is_fed {
                self.link
                    .socket
                    .flush()
                    .await
                    .map_err(|error| error.to_string())?;
            }
            if is_over && self.waiting.count == 0 {
                return Ok(());
            }
            let oldest = self.waiting.requests.front().and_then(Option::as_ref);
            let patience = self.setup.patience;
            let until = oldest.map(|sent| sent.at + patience);
            let expiry = pin!(async {
                match until {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            });
            let has_room = !is_over && self.waiting.count < self.in_flight_max;
            tokio::select! {
                message = self.link.socket.next() => self.receive(load, message)?,
                due = load.queue.next(), if has_room => match due {
                    Some(due) => {
                        self.feed(load, due).await?;
                        self.link.socket.flush().await.map_err(|error| error.to_string())?;
                    }
                    None => is_over = true,
                },
                () = expiry => {
                    let limit = Instant::now().checked_sub(patience).unwrap_or_else(Instant::now);
                    while let Some(sent) = self.waiting.pop_older(limit) {
                        let answer = Answer::Failed("no answer in time".to_owned());
                        load.tally.borrow_mut().count(sent.due, sent.at, answer);
                    }
                }
            }
        }
    }

    async fn feed(&mut self, load: &Load, due: Instant) -> Result<(), String> {
        let (packet, preimage) = load.next_packet();
        let mut frame = Vec::with_capacity(packet.len() + 32);
        let id = self.waiting.next_id();
        self.link
            .session
            .send_prepare(id, &packet, &mut frame)
            .map_err(|error| error.to_string())?;
        let at = Instant::now();
        self.waiting.push(Sent { due, at, preimage });
        let fed = self.link.socket.feed(Message::binary(frame)).await;
        fed.map_err(|error| error.to_string())
    }

    /// One message, and all that wait behind it.
    fn receive(
        &mut self,
        load: &Load,
        first: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<(), String> {
        let mut next = first;
        loop {
            let message = next.ok_or("the connection was closed")?;
            self.handle(load, &message.map_err(|error| error.to_string())?)?;
            match self.link.socket.next().now_or_never() {
                Some(more) => next = more,
                None => return Ok(()),
            }
        }
    }

    fn handle(&mut self, load: &Load, message: &Message) -> Result<(), String> {
        let Message::Binary(frame) = message else {
            return Ok(()); // pings are answered by the socket
        };
        let mut out = Vec::new();
        let now_ns = self.link.now_ns();
        match self.link.session.handle_frame(now_ns, frame, &mut out) {
            Event::Reply { request_id, ilp } => {
                if let Some(sent) = self.waiting.take(request_id) {
                    let answer = packets::read(&frame[ilp], &sent.preimage);
                    load.tally.borrow_mut().count(sent.due, sent.at, answer);
                }
            }
            Event::PeerError { request_id, .. } | Event::BadReply { request_id, .. } => {
                if let Some(sent) = self.waiting.take(request_id) {
                    let answer = Answer::Failed("a BTP error".to_owned());
                    load.tally.borrow_mut().count(sent.due, sent.at, answer);
                }
            }
            Event::Close(reason) => return Err(format!("the session ended: {reason:?}")),
            // What the peer asks of us is none of a benchmark's business.
            Event::Nothing
            | Event::Authenticate { .. }
            | Event::Deferred
            | Event::Established
            | Event::Prepare { .. }
            | Event::Ping => {}
        }
        Ok(())
    }

    /// The connection broke: nothing that was sent on it is answered any more.
    fn give_up(&mut self, load: &Load, why: &str) {
        for sent in self.waiting.requests.drain(..).flatten() {
            let answer = Answer::Failed(why.to_owned());
            load.tally.borrow_mut().count(sent.due, sent.at, answer);
        }
        self.waiting = Waiting {
            oldest: 1,
            ..Waiting::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Sent {
        let now = Instant::now();
        Sent {
            due: now,
            at: now,
            preimage: [0; 32],
        }
    }

    #[test]
    fn answers_find_their_requests_in_any_order() {
        let mut waiting = Waiting {
            oldest: 1,
            ..Waiting::default()
        };
        for id in 1..=3 {
            assert_eq!(waiting.next_id(), id);
            waiting.push(sent());
        }
        assert!(waiting.take(2).is_some());
        assert!(waiting.take(2).is_none());
        assert!(waiting.take(4).is_none());
        assert!(waiting.take(1).is_some());
        assert_eq!(
            (waiting.count, waiting.oldest, waiting.next_id()),
            (1, 3, 4)
        );
        assert!(waiting.take(0).is_none());
    }
}
