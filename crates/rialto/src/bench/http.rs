//! Packets by ILP over HTTP.

use std::{cell::RefCell, rc::Rc, time::Instant};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rialto_links::PACKET_BODY_BYTES_MAX;
use tokio::time::{sleep, timeout};

use super::{Answer, Load, RECONNECT_PAUSE, Sender, Setup, open, packets, target::HttpTarget};

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

type Body = Full<Bytes>;

/// One packet at a time: over a connection of its own, or over a stream of a shared one.
pub(super) struct Lane {
    client: Rc<Client>,
    own: Option<http1::SendRequest<Body>>,
    /// Over HTTP/2 the connection that it shares with other lanes.
    shared: Option<Shared>,
}

type Shared = Rc<RefCell<http2::SendRequest<Body>>>;

/// What every request has in common.
struct Client {
    setup: Rc<Setup>,
    target: HttpTarget,
    authorization: Option<HeaderValue>,
}

enum Opened {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// As many lanes as packets may be in flight, on at least one open connection.
pub(super) async fn senders(setup: &Rc<Setup>, target: &HttpTarget) -> Result<Vec<Sender>, String> {
    let authorization = match setup.token.as_str() {
        "" => None,
        token => {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| "the token holds bytes that no HTTP header may".to_owned())?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    let client = Rc::new(Client {
        setup: Rc::clone(setup),
        target: target.clone(),
        authorization,
    });
    let lane = |own, shared| {
        let client = Rc::clone(&client);
        Sender::Http(Lane {
            client,
            own,
            shared,
        })
    };
    match client.open().await? {
        Opened::Http1(first) => {
            let rest = (1..setup.in_flight).map(|_| lane(None, None));
            Ok(std::iter::once(lane(Some(first), None))
                .chain(rest)
                .collect())
        }
        Opened::Http2(first) => {
            let mut connections = vec![Rc::new(RefCell::new(first))];
            while connections.len() < setup.connections {
                match client.open().await? {
                    Opened::Http2(next) => connections.push(Rc::new(RefCell::new(next))),
                    Opened::Http1(_) => return Err("HTTP/2 at first, HTTP/1.1 then".to_owned()),
                }
            }
            let lanes = connections.into_iter().cycle().take(setup.in_flight);
            Ok(lanes.map(|shared| lane(None, Some(shared))).collect())
        }
    }
}

impl Client {
    async fn open(&self) -> Result<Opened, String> {
        let Self { setup, target, .. } = self;
        let tls = target.tls.then(|| setup.tls.for_packets());
        let stream = open(&target.host, target.port, tls).await?;
        if target.http2 || stream.is_http2() {
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (sender, connection) = handshake.map_err(|error| describe(&error))?;
            tokio::spawn(connection);
            return Ok(Opened::Http2(sender));
        }
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| describe(&error))?;
        tokio::spawn(connection);
        Ok(Opened::Http1(sender))
    }

    fn request(&self, packet: Vec<u8>, is_http2: bool) -> Request<Body> {
        let mut request = Request::new(Full::from(packet));
        *request.method_mut() = Method::POST;
        let uri = &self.target.uri;
        // HTTP/1.1 wants the path alone, and the host in a header.
        *request.uri_mut() = match uri.path_and_query() {
            Some(path) if !is_http2 => path.clone().into(),
            Some(_) | None => uri.clone(),
        };
        let headers = request.headers_mut();
        if let Some(host) = uri.authority().filter(|_| !is_http2)
            && let Ok(host) = HeaderValue::try_from(host.as_str())
        {
            headers.insert(HOST, host);
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        headers.insert(CONTENT_TYPE, OCTET_STREAM);
        headers.insert(ACCEPT, OCTET_STREAM);
        request
    }
}

impl Lane {
    pub(super) async fn run(mut self, load: &Load) {
        while let Some(due) = load.queue.next().await {
            let (packet, preimage) = load.next_packet();
            let sent = Instant::now();
            let patience = self.client.setup.patience;
            let answer = match timeout(patience, self.exchange(packet)).await {
                Ok(Ok((StatusCode::OK, reply))) => Ok(packets::read(&reply, &preimage)),
                Ok(Ok((status, _))) => Ok(Answer::Failed(format!("HTTP status {status}"))),
                Ok(Err(why)) => Err(why),
                Err(_) => Err("no answer in time".to_owned()),
            };
            let is_broken = answer.is_err();
            let answer = answer.unwrap_or_else(Answer::Failed);
            load.tally.borrow_mut().count(due, sent, answer);
            if is_broken {
                self.own = None;
                sleep(RECONNECT_PAUSE).await;
            }
        }
    }

    async fn exchange(&mut self, packet: Vec<u8>) -> Result<(StatusCode, Bytes), String> {
        let request = self.client.request(packet, self.shared.is_some());
        let response = if let Some(shared) = &self.shared {
            if shared.borrow().is_closed()
                && let Opened::Http2(opened) = self.client.open().await?
            {
                shared.replace(opened);
            }
            let mut sender = shared.borrow().clone();
            sender.ready().await.map_err(|error| describe(&error))?;
            sender.send_request(request).await
        } else {
            if self.own.as_ref().is_none_or(http1::SendRequest::is_closed) {
                self.own = match self.client.open().await? {
                    Opened::Http1(opened) => Some(opened),
                    Opened::Http2(_) => return Err("HTTP/1.1 at first, HTTP/2 then".to_owned()),
                };
            }
            let sender = self.own.as_mut().expect("it was just opened");
            sender.ready().await.map_err(|error| describe(&error))?;
            sender.send_request(request).await
        };
        let response = response.map_err(|error| describe(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), PACKET_BODY_BYTES_MAX).collect();
        let body = body.await.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, body))
    }
}

/// With its cause: hyper's own words are few.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
