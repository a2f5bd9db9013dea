//! The node listener: ILP over HTTP, BTP, SPSP and payment pointers on one port.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    mem,
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
    },
    request::Parts,
};
use http_body_util::Full;
use hyper::{body::Body, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use rialto_btp::session::Session;
use rialto_ledger::{AccountId, KeyPin};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::{
    body::{self, BodyError, PACKET_BODY_BYTES_MAX},
    btp::{Driver, Side, websocket_config},
    callback::{CALLBACK_URL, CallbackRefusal, REQUEST_ID},
    clock::wall,
    directory::{OCTET_STREAM, Visitor, bearer},
    http1::HEAD_BYTES_MAX,
    http1_server::{HandOver, Http1},
    http2_server::Http2,
    newcomers::Newcomer,
    once::EXCHANGE_BYTES_MAX,
    pace::Pace,
    rewind::Rewind,
    spsp,
    tls::{self, ServerTls},
    worker::{Door, Worker},
};

/// How long a client may take for TLS, and then again for the head of its first request.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for the head of a later request, stay silent between requests, and
/// not read an answer. Connections are looked at with this interval, so twice as long may pass.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take for the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most requests at a time on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 256;
/// After the operating system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the node answers requests below `/.well-known/rialto/`, and at [`WorkerConfig::greeting_path`]:
/// nodes that are not yet neighbours. The request carries the [`IpAddr`] of its client, and the number of
/// the account where it presented a token.
///
/// [`WorkerConfig::greeting_path`]: crate::WorkerConfig::greeting_path
pub type Greeting = dyn Fn(Request<Bytes>) -> Pin<Box<dyn Future<Output = Response<Bytes>>>>;

/// What the paths of those requests begin with.
pub(crate) const GREETING_PREFIX: &str = "/.well-known/rialto/";

/// Accepts connections until the worker drains.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listener: TcpListener,
    tls: Option<watch::Receiver<ServerTls>>,
) {
    let pace = Pace::default();
    let warn = |message: &str| {
        if let Some(held_back) = pace.due(worker.clock().now_ns()) {
            tracing::warn!(held_back, "{message}");
        }
    };
    let mut drained = pin!(worker.drained());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut drained => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => match worker.permit(address.ip()) {
                Some(permit) => {
                    let worker = Rc::clone(&worker);
                    let acceptor = tls.as_ref().map(|tls| {
                        TlsAcceptor::from(tls.borrow().config(worker.asks_for_certificates()))
                    });
                    let guard = Rc::clone(&permit);
                    let serving: Serving = match acceptor {
                        None => Box::pin(plain_connection(worker, stream, permit)),
                        Some(acceptor) => {
                            Box::pin(tls_connection(worker, stream, acceptor, permit))
                        }
                    };
                    spawn_local(async move { guard.guard(serving).await });
                }
                None => warn("a connection was refused: there are too many"),
            },
            Err(error) => {
                warn(&format!("cannot accept a connection: {error}"));
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What serves a connection. In a box, as a future is as large as the largest of all that it may become, and
/// twice that where another one wraps it.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Counts a connection as long as it stands.
pub(crate) struct Permit {
    worker: Rc<Worker>,
    /// Until the client has authenticated.
    newcomer: RefCell<Option<Newcomer>>,
    /// Of the client; `None` where we are the client.
    address: Option<IpAddr>,
    /// That the client proved to have, by a certificate.
    key: Cell<Option<KeyPin>>,
}

impl Permit {
    pub(crate) fn new(
        worker: Rc<Worker>,
        newcomer: Option<Newcomer>,
        address: Option<IpAddr>,
    ) -> Self {
        let newcomer = RefCell::new(newcomer);
        Self {
            worker,
            newcomer,
            address,
            key: Cell::new(None),
        }
    }

    /// The key that the client proved to have.
    pub(crate) fn key(&self) -> Option<KeyPin> {
        self.key.get()
    }

    /// Where the client is.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The client has said who it is, and stays.
    pub(crate) fn authenticated(&self) {
        *self.newcomer.borrow_mut() = None;
    }

    /// Runs what serves the connection until it ends, or has to make room for another.
    async fn guard(&self, mut serving: Serving) {
        let mut is_first = true;
        poll_fn(|cx| {
            if let Some(newcomer) = &*self.newcomer.borrow() {
                if newcomer.is_displaced() {
                    return Poll::Ready(());
                }
                if mem::take(&mut is_first) {
                    newcomer.register(cx.waker());
                }
            }
            serving.as_mut().poll(cx)
        })
        .await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.worker.connection_ended();
    }
}

/// One connection. What goes wrong with it concerns nobody else.
async fn plain_connection(worker: Rc<Worker>, stream: TcpStream, permit: Rc<Permit>) {
    if stream.set_nodelay(true).is_ok() {
        packets(worker, stream, permit).await;
    } // else it is already gone
}

/// The same with TLS.
async fn tls_connection(
    worker: Rc<Worker>,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    permit: Rc<Permit>,
) {
    if stream.set_nodelay(true).is_err() {
        return; // already gone
    }
    if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let key = certificate.and_then(|certificate| tls::pin_of(certificate).ok());
        permit.key.set(key);
        match session.alpn_protocol() {
            Some(tls::ALPN_HTTP2) => http(worker, stream, true, permit).await,
            Some(_) | None => packets(worker, stream, permit).await,
        }
    }
}

/// Packets by HTTP/1.1 are served without hyper, which would cost as much again
/// (docs/design/shape.md). A connection that wants more is hyper's for the rest of its life.
async fn packets<S>(worker: Rc<Worker>, stream: S, permit: Rc<Permit>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let packets = Http1::new(Rc::clone(&worker), Rc::clone(&permit), stream);
    if let Some((HandOver { read, http2 }, stream)) = packets.await {
        // In a box, because hyper's connections are large and most never become one.
        Box::pin(http(worker, Rewind::new(read, stream), http2, permit)).await;
    }
}

async fn http<S>(worker: Rc<Worker>, stream: S, http2: bool, permit: Rc<Permit>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = Rc::new(Client {
        worker,
        heads: Cell::new(0),
        busy: Rc::default(),
        other_frames: Rc::default(),
        visitor: RefCell::default(),
        permit,
    });
    if http2 {
        let connection = Http2::new(Rc::clone(&client), stream);
        client.watch(pin!(connection), Http2::leave).await;
    } else {
        let served = Rc::clone(&client);
        let service = service_fn(move |request| {
            let client = Rc::clone(&served);
            async move {
                client.note_head();
                let _busy = Busy::new(&client.busy);
                Ok::<_, Infallible>(client.answer(request).await.map(Full::new))
            }
        });
        let connection = http1::Builder::new()
            .auto_date_header(false)
            .writev(false) // head and body are small: one buffer, one write
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let leave =
            |connection: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(connection);
        client.watch(pin!(connection), leave).await;
    }
}

/// What the requests of one connection share.
pub(crate) struct Client {
    worker: Rc<Worker>,
    /// Heads of requests that came in.
    heads: Cell<u32>,
    /// Requests that are being answered.
    pub(crate) busy: Rc<Cell<u32>>,
    /// HTTP/2 frames since the last request that belong to none.
    pub(crate) other_frames: Rc<Cell<u32>>,
    visitor: RefCell<Visitor>,
    permit: Rc<Permit>,
}

/// Counts a request as long as it is being answered.
pub(crate) struct Busy(Rc<Cell<u32>>);

impl Busy {
    pub(crate) fn new(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Ilp(Option<&'a str>),
    Callback(Option<&'a str>),
    Btp(Option<&'a str>),
    Spsp(Option<&'a str>),
    Greeting,
    None,
}

impl<'a> Route<'a> {
    pub(crate) fn of(path: &'a str) -> Self {
        match path {
            "/ilp" => return Self::Ilp(None),
            "/ilp/btp" => return Self::Btp(None),
            "/ilp/callback" => return Self::Callback(None),
            "/.well-known/pay" => return Self::Spsp(None),
            _ => {}
        }
        if path.starts_with(GREETING_PREFIX) {
            return Self::Greeting;
        }
        if let Some(rest) = path.strip_prefix("/accounts/") {
            return match rest.split_once('/') {
                Some((name, "ilp")) => Self::Ilp(Some(name)),
                Some((name, "ilp/btp")) => Self::Btp(Some(name)),
                Some((name, "ilp/callback")) => Self::Callback(Some(name)),
                Some((name, "spsp")) => Self::Spsp(Some(name)),
                _ => Self::None,
            };
        }
        match path.strip_prefix('/') {
            Some(name) if !name.is_empty() && !name.contains('/') => Self::Spsp(Some(name)),
            _ => Self::None,
        }
    }
}

impl Client {
    /// Drives the connection, and ends it when nothing happens on it, or in good order when the node
    /// stops. One timer that is moved only when it fires costs less than one per request.
    async fn watch<C: Future>(&self, mut connection: Pin<&mut C>, leave: impl Fn(Pin<&mut C>)) {
        let _unfinished = self.worker.unfinished();
        let mut check = pin!(sleep(HEAD_TIMEOUT));
        let mut drained = pin!(self.worker.drained());
        let mut leaves = false;
        let mut heads = 0;
        poll_fn(|cx| {
            if !leaves && drained.as_mut().poll(cx).is_ready() {
                leaves = true;
                leave(connection.as_mut());
            }
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            while check.as_mut().poll(cx).is_ready() {
                if self.busy.get() == 0 && self.heads.get() == heads {
                    return Poll::Ready(());
                }
                heads = self.heads.get();
                check.as_mut().reset(Instant::now() + HEAD_TIMEOUT);
            }
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The head of a request came.
    pub(crate) fn note_head(&self) {
        self.heads.set(self.heads.get().wrapping_add(1));
        self.other_frames.set(0);
    }

    /// Whose packet comes, by the path, if the answer is to come at once: `None` for any other request.
    pub(crate) fn names_account<'a>(&self, head: &'a Parts) -> Option<Option<&'a str>> {
        let path = head.uri.path();
        match Route::of(path) {
            Route::Ilp(named)
                if !head.headers.contains_key(CALLBACK_URL) && !self.worker.greets_at(path) =>
            {
                Some(named)
            }
            Route::Ilp(_)
            | Route::Callback(_)
            | Route::Btp(_)
            | Route::Spsp(_)
            | Route::Greeting
            | Route::None => None,
        }
    }

    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response<Bytes>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (mut head, body) = request.into_parts();
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let mut response = match Route::of(head.uri.path()) {
            _ if has_unknown_coding(&head.headers) => {
                let message = "bodies have no transfer coding but chunked\n";
                with(
                    plain(StatusCode::NOT_IMPLEMENTED, message),
                    CONNECTION,
                    "close",
                )
            }
            _ if self.worker.greets_at(head.uri.path()) => self.greet(head.clone(), body).await,
            Route::Ilp(named) => self.ilp(&head, named, body).await,
            Route::Callback(named) => self.callback(&head, named, body).await,
            Route::Btp(named) => self.btp(&head, named, upgrade),
            Route::Spsp(named) => {
                spsp::answer(&head.method, named, &head.headers, self.worker.spsp())
            }
            Route::Greeting => self.greet(head.clone(), body).await,
            Route::None => plain(StatusCode::NOT_FOUND, "not found\n"),
        };
        if self.worker.is_draining() && head.version == Version::HTTP_11 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().entry(CONNECTION).or_insert(close);
        }
        response
    }

    /// A packet.
    async fn ilp(
        &self,
        head: &Parts,
        named: Option<&str>,
        body: impl Body<Data = Bytes> + Unpin,
    ) -> Response<Bytes> {
        let (account, packet) = match self.packet(head, named, body).await {
            Ok(came) => came,
            Err(refused) => return refused,
        };
        let packet = BytesMut::from(packet);
        let value = |name| head.headers.get(name).map(HeaderValue::as_bytes);
        let callback = value(CALLBACK_URL).and_then(|url| self.worker.callback_path(account, url));
        if let (Some(id), Some(path)) = (value(REQUEST_ID), callback) {
            let accepted =
                path.and_then(|path| self.worker.packet_for_callback(account, id, path, packet));
            return called_back(accepted, StatusCode::ACCEPTED);
        }
        let reply = self.worker.packet(account, packet).await;
        let mut response = Response::new(reply);
        response.headers_mut().insert(CONTENT_TYPE, OCTET_STREAM);
        response
    }

    /// The answer to a packet that went out in callback mode.
    async fn callback(
        &self,
        head: &Parts,
        named: Option<&str>,
        body: impl Body<Data = Bytes> + Unpin,
    ) -> Response<Bytes> {
        let (account, packet) = match self.packet(head, named, body).await {
            Ok(came) => came,
            Err(refused) => return refused,
        };
        let id = head.headers.get(REQUEST_ID).map(HeaderValue::as_bytes);
        let answered = self.worker.answered_by_callback(account, id, packet);
        called_back(answered, StatusCode::OK)
    }

    /// Who sends a packet, and its bytes. The head is judged before a byte of the body is read.
    async fn packet(
        &self,
        head: &Parts,
        named: Option<&str>,
        body: impl Body<Data = Bytes> + Unpin,
    ) -> Result<(AccountId, Bytes), Response<Bytes>> {
        let account = self.judge(head, named)?;
        let body = timeout(BODY_TIMEOUT, body::read(body, PACKET_BODY_BYTES_MAX));
        match body.await {
            Ok(Ok(packet)) => Ok((account, packet)),
            Ok(Err(BodyError::TooLarge)) => Err(BODY_TOO_LARGE.into()),
            Ok(Err(BodyError::Broken(_))) => Err(BODY_BROKEN.into()),
            Err(_) => Err(BODY_LATE.into()),
        }
    }

    /// Who sends a packet, if its head is one of a packet.
    pub(crate) fn judge(&self, head: &Parts, named: Option<&str>) -> Result<AccountId, Plain> {
        if head.method != Method::POST {
            return Err(NOT_POST);
        }
        let value = |name| head.headers.get(name).map(HeaderValue::as_bytes);
        let token = bearer(value(AUTHORIZATION));
        let known =
            self.worker
                .recognise(&mut self.visitor.borrow_mut(), token, named, &self.permit);
        let Ok(account) = known else {
            return Err(NOT_AUTHORIZED);
        };
        self.permit.authenticated();
        if !is_packet_type(value(CONTENT_TYPE)) {
            return Err(NOT_PACKET_TYPE);
        }
        Ok(account)
    }

    /// A node that is not yet a neighbour.
    async fn greet(
        &self,
        mut head: Parts,
        body: impl Body<Data = Bytes> + Unpin,
    ) -> Response<Bytes> {
        // Who asks how we see the link is a neighbour already.
        if head.method == Method::GET {
            let token = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
            let (token, door) = (bearer(token), Door::Greeting);
            let Ok(account) = self.worker.authenticate(token, None, door, &self.permit) else {
                return NOT_AUTHORIZED.into();
            };
            head.extensions.insert(account);
        }
        if let Some(address) = self.permit.address() {
            head.extensions.insert(address);
        }
        let body = timeout(BODY_TIMEOUT, body::read(body, EXCHANGE_BYTES_MAX));
        let body = match body.await {
            Ok(Ok(body)) => body,
            Ok(Err(BodyError::TooLarge)) => {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "body is too large\n");
            }
            Ok(Err(BodyError::Broken(_))) => return BODY_BROKEN.into(),
            Err(_) => return BODY_LATE.into(),
        };
        let greeting = self.worker.greeting();
        greeting(Request::from_parts(head, body)).await
    }

    /// Makes the connection a WebSocket. Who is there will be seen in the first BTP frame.
    fn btp(
        &self,
        head: &Parts,
        named: Option<&str>,
        upgrade: Option<OnUpgrade>,
    ) -> Response<Bytes> {
        let has = |name: HeaderName, token: &str| {
            let values = head.headers.get_all(name).into_iter();
            let mut tokens = values
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','));
            tokens.any(|value| value.trim().eq_ignore_ascii_case(token))
        };
        if head.method != Method::GET {
            let response = plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "BTP is spoken by WebSocket\n",
            );
            return with(response, ALLOW, "GET");
        }
        let key = head.headers.get(SEC_WEBSOCKET_KEY);
        let is_version_13 = has(SEC_WEBSOCKET_VERSION, "13");
        let (Some(upgrade), Some(key), true, true, true) = (
            upgrade,
            key,
            is_version_13,
            has(UPGRADE, "websocket"),
            has(CONNECTION, "upgrade"),
        ) else {
            let response = plain(StatusCode::UPGRADE_REQUIRED, "BTP is spoken by WebSocket\n");
            let response = with(response, UPGRADE, "websocket");
            return with(response, SEC_WEBSOCKET_VERSION, "13");
        };
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
            .expect("base64 can stand in a header");
        let named = named.map(str::to_owned);
        spawn_local(session(
            Rc::clone(&self.worker),
            upgrade,
            named,
            Rc::clone(&self.permit),
        ));
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        let response = with(response, UPGRADE, "websocket");
        with(response, CONNECTION, "Upgrade")
    }
}

async fn session(
    worker: Rc<Worker>,
    upgrade: OnUpgrade,
    named: Option<String>,
    permit: Rc<Permit>,
) {
    let guard = Rc::clone(&permit);
    let session: Serving = Box::pin(async move {
        let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, upgrade).await else {
            return; // the client went away
        };
        let config = Some(websocket_config());
        let stream = TokioIo::new(stream);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, config).await;
        let now_ns = worker.clock().now_ns();
        let session = Session::server(worker.btp_settings(), now_ns, wall(), named.clone());
        let side = Side::Server { named, permit };
        Driver::new(worker, socket, session, side, Vec::new())
            .run()
            .await;
    });
    guard.guard(session).await;
}

/// Whether the body is wrapped in more than chunks, which not all would unwrap alike (RFC 9112,
/// section 6.1).
fn has_unknown_coding(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TRANSFER_ENCODING).into_iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    values.next().is_some_and(|only| !is_chunked(only)) || values.next().is_some()
}

/// The answer to a request in callback mode.
fn called_back(done: Result<(), CallbackRefusal>, status: StatusCode) -> Response<Bytes> {
    match done {
        Ok(()) => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = status;
            response
        }
        Err(CallbackRefusal::Full) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            CallbackRefusal::Full.message(),
        ),
        Err(why) => plain(StatusCode::BAD_REQUEST, why.message()),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, "text/plain")
}

/// An answer to a request that is no packet, or not one that is accepted.
pub(crate) struct Plain {
    pub(crate) status: StatusCode,
    pub(crate) message: Cow<'static, str>,
    /// One more header.
    pub(crate) header: Option<(HeaderName, &'static str)>,
}

impl Plain {
    const fn new(status: StatusCode, message: &'static str) -> Self {
        Self {
            status,
            message: Cow::Borrowed(message),
            header: None,
        }
    }
}

/// Another method.
const NOT_POST: Plain = Plain {
    status: StatusCode::METHOD_NOT_ALLOWED,
    message: Cow::Borrowed("packets are sent by POST\n"),
    header: Some((ALLOW, "POST")),
};
/// No token, or one that does not open the account.
pub(crate) const NOT_AUTHORIZED: Plain = Plain {
    status: StatusCode::UNAUTHORIZED,
    message: Cow::Borrowed("not authorized\n"),
    header: Some((WWW_AUTHENTICATE, "Bearer")),
};
/// The body says that it is something else.
pub(crate) const NOT_PACKET_TYPE: Plain = Plain::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "packets are application/octet-stream\n",
);
/// The body is longer than [`PACKET_BODY_BYTES_MAX`].
pub(crate) const BODY_TOO_LARGE: Plain =
    Plain::new(StatusCode::PAYLOAD_TOO_LARGE, "packet is too large\n");
/// The body ended before its end.
pub(crate) const BODY_BROKEN: Plain = Plain::new(StatusCode::BAD_REQUEST, "body is broken\n");
/// The body took longer than [`BODY_TIMEOUT`].
pub(crate) const BODY_LATE: Plain =
    Plain::new(StatusCode::REQUEST_TIMEOUT, "body did not come in time\n");

impl From<Plain> for Response<Bytes> {
    fn from(answer: Plain) -> Self {
        let message = match answer.message {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        };
        let response = plain(answer.status, message);
        match answer.header {
            Some((name, value)) => with(response, name, value),
            None => response,
        }
    }
}

/// Whether the body is said to be a packet. Some peers say nothing.
pub(crate) fn is_packet_type(content_type: Option<&[u8]>) -> bool {
    let Some(value) = content_type else {
        return true;
    };
    let end = value.iter().position(|byte| *byte == b';');
    let media = value[..end.unwrap_or(value.len())].trim_ascii();
    [
        "application/octet-stream".as_bytes(),
        b"application/ilp+octet-stream",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(media))
}

fn with(mut response: Response<Bytes>, name: HeaderName, value: &'static str) -> Response<Bytes> {
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each open connection holds this much, besides what the kernel has of it.
    #[test]
    fn what_serves_a_connection_is_small() {
        fn size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(plain_connection) <= 1_536);
    }

    #[test]
    fn paths() {
        for (path, route) in [
            ("/ilp", Route::Ilp(None)),
            ("/accounts/alice/ilp", Route::Ilp(Some("alice"))),
            ("/ilp/btp", Route::Btp(None)),
            ("/accounts/alice/ilp/btp", Route::Btp(Some("alice"))),
            ("/ilp/callback", Route::Callback(None)),
            (
                "/accounts/alice/ilp/callback",
                Route::Callback(Some("alice")),
            ),
            ("/accounts/alice/spsp", Route::Spsp(Some("alice"))),
            ("/.well-known/pay", Route::Spsp(None)),
            ("/alice", Route::Spsp(Some("alice"))),
            ("/", Route::None),
            ("/alice/", Route::None),
            ("/accounts/alice", Route::None),
            ("/accounts/alice/ilp/x", Route::None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn transfer_codings() {
        for (values, is_unknown) in [
            (&[][..], false),
            (&["chunked"], false),
            (&["Chunked"], false),
            (&["gzip"], true),
            (&["gzip, chunked"], true),
            (&["chunked, chunked"], true),
            (&["chunked", "chunked"], true),
        ] {
            let value = |value| (TRANSFER_ENCODING, HeaderValue::from_static(value));
            let mut headers = HeaderMap::new();
            for (name, value) in values.iter().copied().map(value) {
                headers.append(name, value);
            }
            assert_eq!(has_unknown_coding(&headers), is_unknown, "{values:?}");
        }
    }
}
