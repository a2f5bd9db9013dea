//! What is wrong with the way to a neighbour: each step from its name to an ILP packet by itself, so
//! that the first that fails is the one to mend. On connections of its own; links are left alone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION},
    uri::Scheme,
};
use rialto_btp::{
    BtpUri,
    session::{self, CloseReason, Event, Session},
};
use rialto_packet::{PEER_FULFILLMENT, Reply, ildcp, money::Asset};
use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, Message},
};

use crate::{
    body::{self, BodyError, PACKET_BODY_BYTES_MAX},
    btp::websocket_config,
    clock::wall,
    connect::{Stream, connect},
    directory::{Account, H2C, HttpPeer, OCTET_STREAM, host_port},
    once::send,
    server::is_packet_type,
    tls::{ClientTls, PinMismatch, pin_of},
};

/// How long each step may take.
pub const PROBE_STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a packet of a probe lives. Milliseconds.
const PACKET_LIFE_MS: i64 = 10_000;
/// Characters of a strange answer that are shown.
const SHOWN_MAX: usize = 100;

/// How a step went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Pass,
    /// It does not apply, or cannot be found out.
    Skip,
    /// Not as it should; the word names the mistake.
    Fail(&'static str),
}

/// One step, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which step.
    pub check: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// For people.
    pub detail: String,
}

/// All that was found out.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// Step by step. After one that fails, those that need it are missing.
    pub findings: Vec<Finding>,
    /// What a Rialto node says about the link, as it came.
    pub link: Option<Bytes>,
    /// The clock of the server, from a `Date` header: whole seconds, as milliseconds since 1970.
    pub date_ms: Option<i64>,
    /// What a parent told us by ILDCP.
    pub config: Option<(String, Asset)>,
}

impl Probe {
    fn pass(&mut self, check: &'static str, detail: impl Into<String>) {
        self.put(check, Verdict::Pass, detail);
    }

    fn skip(&mut self, check: &'static str, detail: impl Into<String>) {
        self.put(check, Verdict::Skip, detail);
    }

    fn fail(&mut self, check: &'static str, word: &'static str, detail: impl Into<String>) {
        self.put(check, Verdict::Fail(word), detail);
    }

    fn put(&mut self, check: &'static str, verdict: Verdict, detail: impl Into<String>) {
        let detail = detail.into();
        self.findings.push(Finding {
            check,
            verdict,
            detail,
        });
    }

    /// Whether no step failed.
    pub fn is_good(&self) -> bool {
        let mut verdicts = self.findings.iter().map(|finding| &finding.verdict);
        !verdicts.any(|verdict| matches!(verdict, Verdict::Fail(_)))
    }
}

/// What is being looked at.
struct Target {
    /// `http` or `https`, also where BTP or HTTP/2 without TLS is spoken.
    url: Uri,
    host: String,
    port: u16,
    is_tls: bool,
    /// HTTP/2 without asking.
    prior_knowledge: bool,
    /// None where our certificate has to be enough.
    token: Option<HeaderValue>,
    has_pins: bool,
}

impl Target {
    /// Another path of the same server.
    fn at(&self, path: &str) -> String {
        let scheme = match (self.is_tls, self.prior_knowledge) {
            (true, _) => "https",
            (false, true) => H2C,
            (false, false) => "http",
        };
        let authority = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}{path}")
    }

    fn path(&self) -> &str {
        self.url.path_and_query().map_or("/", |path| path.as_str())
    }

    /// The request with our token, if we have one.
    fn with_token(&self, request: http::request::Builder) -> http::request::Builder {
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    /// What the peer knows us by.
    fn accepted(&self) -> &'static str {
        match self.token {
            Some(_) => "the peer takes our token",
            None => "the peer knows our certificate",
        }
    }

    /// Why a peer that does not know us would not.
    fn refused(&self, tls: &ClientTls) -> (&'static str, String) {
        match (&self.token, tls.shown) {
            (None, Some(pin)) => {
                let detail = format!("our certificate, whose key is {pin}, is not known there");
                ("certificate.refused", detail)
            }
            (None, None) => {
                let detail = "we present no token, and have no certificate to show \
                              (node.tls_client_cert_file)";
                ("certificate.none", detail.to_owned())
            }
            (Some(_), shown) => {
                let beside = shown.map_or_else(String::new, |pin| {
                    format!(
                        ", or belongs to another account than the certificate that we show ({pin})"
                    )
                });
                let detail = format!(
                    "the token that we present is not the one that the peer expects there{beside}"
                );
                ("token.refused", detail)
            }
        }
    }
}

/// Looks at how `account` is reached. `has_session` says whether its BTP session stands, which is
/// then left alone. With the path `asks_link`, a Rialto node is asked how it sees the link, and to call
/// back.
pub async fn probe(
    account: &Account,
    has_session: bool,
    asks_link: Option<&str>,
    tls: &ClientTls,
) -> Probe {
    let mut probe = Probe::default();
    let uri = account.btp().map(|peer| peer.uri(wall()));
    let pins = match (account.http(), account.btp()) {
        (Some(peer), _) => &peer.tls_pins[..],
        (None, Some(peer)) => &peer.tls_pins,
        (None, None) => &[],
    };
    let tls = &tls.to_neighbour(pins);
    let found = match (account.http(), &uri) {
        (Some(peer), _) => Ok(target_of_http(peer)),
        (None, Some(uri)) => target_of_btp(uri, !pins.is_empty()),
        (None, None) => Err("there is no URL, and the token is theirs to present"),
    };
    let target = match found {
        Ok(target) => target,
        Err(why) if has_session => {
            probe.pass("session", format!("the peer opened a BTP session; {why}"));
            return probe;
        }
        Err(why) => {
            let detail = format!("{why}: wait until the peer connects, or set a URL");
            probe.fail("session", "session.none", detail);
            return probe;
        }
    };
    if !reach(&mut probe, &target, tls).await {
        return probe;
    }
    match (account.http(), &uri) {
        (Some(_), _) => packets(&mut probe, &target, tls).await,
        (None, Some(uri)) => session(&mut probe, &target, uri, has_session, tls).await,
        (None, None) => {}
    }
    if let Some(path) = asks_link
        && probe.is_good()
    {
        ask_link(&mut probe, &target, path, tls).await;
    }
    probe
}

fn target_of_http(peer: &HttpPeer) -> Target {
    Target {
        url: peer.url.clone(),
        host: peer.host.clone(),
        port: peer.port,
        is_tls: peer.tls(),
        prior_knowledge: peer.prior_knowledge,
        token: peer.headers.get(AUTHORIZATION).cloned(),
        has_pins: !peer.tls_pins.is_empty(),
    }
}

fn target_of_btp(uri: &BtpUri, has_pins: bool) -> Result<Target, &'static str> {
    let url = uri.websocket_url().replacen("ws", "http", 1);
    let url: Uri = url.parse().map_err(|_| "the BTP URL is none")?;
    let scheme = if uri.tls { Scheme::HTTPS } else { Scheme::HTTP };
    let authority = url.authority().ok_or("the BTP URL names no host")?;
    let (host, port) = host_port(authority, &scheme).ok_or("the BTP URL names no host")?;
    let mut token = HeaderValue::try_from(format!("Bearer {}", uri.token))
        .map_err(|_| "the BTP token cannot stand in a header")?;
    token.set_sensitive(true);
    Ok(Target {
        host,
        port,
        is_tls: uri.tls,
        prior_knowledge: false,
        token: (!uri.token.is_empty()).then_some(token),
        has_pins,
        url,
    })
}

/// Name, TCP, TLS. False: there is no way.
async fn reach(probe: &mut Probe, target: &Target, tls: &ClientTls) -> bool {
    let (host, port) = (target.host.as_str(), target.port);
    let resolved = timeout(PROBE_STEP_TIMEOUT, lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match resolved {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            probe.fail(
                "name",
                "name.unknown",
                format!("{host} does not resolve: {error}"),
            );
            return false;
        }
        Err(_) => {
            probe.fail(
                "name",
                "name.timeout",
                format!("{host} does not resolve within 3 s"),
            );
            return false;
        }
    };
    let shown: Vec<String> = addresses
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    probe.pass("name", format!("{host} is {}", shown.join(", ")));
    let mut last = ("tcp.unreachable", "no address".to_owned());
    let mut stream = None;
    for address in addresses {
        match timeout(PROBE_STEP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(connected)) => {
                stream = Some((connected, address));
                break;
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                let detail = format!("{address} refuses connections: is the peer running?");
                last = ("tcp.refused", detail);
            }
            Ok(Err(error)) => last = ("tcp.unreachable", format!("{address}: {error}")),
            Err(_) => {
                last = (
                    "tcp.timeout",
                    format!("{address} does not answer within 3 s"),
                )
            }
        }
    }
    let Some((stream, address)) = stream else {
        probe.fail("tcp", last.0, last.1);
        return false;
    };
    probe.pass("tcp", format!("{address} accepts connections"));
    if !target.is_tls {
        probe.skip("tls", "the URL is without TLS");
        return true;
    }
    match handshake(host, stream, &tls.any_http).await {
        Ok(stream) => {
            let connection = stream.get_ref().1;
            let version = connection.protocol_version();
            let version = version.and_then(|version| version.as_str());
            let version = version.unwrap_or("TLS");
            let certificate = connection.peer_certificates().and_then(<[_]>::first);
            let seen = certificate.and_then(|certificate| pin_of(certificate).ok());
            let detail = match seen {
                Some(pin) if target.has_pins => {
                    format!("{version}, the server has the pinned key {pin}")
                }
                Some(_) | None => format!("{version}, the certificate is good"),
            };
            probe.pass("tls", detail);
            match connection.alpn_protocol() {
                Some(protocol) => {
                    let protocol = String::from_utf8_lossy(protocol).into_owned();
                    probe.pass("alpn", format!("{protocol} was agreed on"));
                }
                None => probe.skip("alpn", "the server names no protocol: HTTP/1.1"),
            }
            true
        }
        Err((word @ "alpn.mismatch", _)) => {
            let detail = format!("port {port} speaks neither HTTP/1.1 nor HTTP/2 over TLS");
            probe.fail("alpn", word, detail);
            false
        }
        Err((mut word, mut detail)) => {
            // Whoever speaks plain HTTP answers TLS with nonsense, or hangs up.
            if matches!(word, "tls.garbage" | "tls.closed" | "tls.timeout")
                && speaks_plain_http(target, tls).await
            {
                word = "tls.plain_http";
                detail = format!(
                    "port {port} speaks plain HTTP, not TLS: the URL must begin with http://, or the port is another"
                );
            }
            probe.fail("tls", word, detail);
            false
        }
    }
}

async fn handshake(
    host: &str,
    stream: TcpStream,
    config: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, (&'static str, String)> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        (
            "tls.name",
            format!("{host} can be in no certificate: {error}"),
        )
    })?;
    let connector = TlsConnector::from(Arc::clone(config));
    match timeout(PROBE_STEP_TIMEOUT, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            if let Some(mismatch) = PinMismatch::of(&error) {
                return Err(("tls.pin", mismatch.to_string()));
            }
            let inner = error.get_ref();
            let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let word = inner.map_or("tls.closed", tls_word);
            Err((word, format!("no TLS session with {host}: {error}")))
        }
        Err(_) => Err((
            "tls.timeout",
            format!("{host} does not finish a TLS handshake within 3 s"),
        )),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the errors of another crate, which go on growing"
)]
fn tls_word(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "tls.expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "tls.not_yet_valid"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "tls.other_name"
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "tls.unknown_ca",
            _ => "tls.certificate",
        },
        rustls::Error::InvalidMessage(_) => "tls.garbage",
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => "tls.version",
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | rustls::Error::NoApplicationProtocol => "alpn.mismatch",
        _ => "tls.failed",
    }
}

/// Whether a server answers HTTP without TLS.
async fn speaks_plain_http(target: &Target, tls: &ClientTls) -> bool {
    let url = target.at("/").replacen("https", "http", 1);
    let Ok(request) = Request::get(url).body(Bytes::new()) else {
        return false;
    };
    matches!(
        timeout(PROBE_STEP_TIMEOUT, send(request, tls)).await,
        Ok(Ok(_))
    )
}

/// Whether a server answers TLS where the URL says none.
async fn speaks_tls(target: &Target, tls: &ClientTls) -> bool {
    let Ok(stream) = TcpStream::connect((target.host.as_str(), target.port)).await else {
        return false;
    };
    match handshake(&target.host, stream, &tls.any_http).await {
        Ok(_) => true,
        Err((word, _)) => !matches!(word, "tls.garbage" | "tls.closed" | "tls.timeout"),
    }
}

/// An answer with its body.
type Answer = Result<(StatusCode, HeaderMap, Bytes), String>;

async fn ask(request: Request<Bytes>, tls: &ClientTls) -> Option<Answer> {
    let asked = timeout(PROBE_STEP_TIMEOUT, async {
        let (head, body) = send(request, tls).await.map(Response::into_parts)?;
        match body::read(body, PACKET_BODY_BYTES_MAX).await {
            Ok(body) => Ok((head.status, head.headers, body)),
            Err(BodyError::TooLarge) => Err("the answer is too long".to_owned()),
            Err(BodyError::Broken(error)) => Err(error.to_string()),
        }
    });
    asked.await.ok()
}

/// A packet without money, for the direct neighbour alone.
async fn ask_packet(target: &Target, path: &str, tls: &ClientTls) -> Option<Answer> {
    let packet = ildcp::request(wall().plus_ms(PACKET_LIFE_MS));
    let request = target
        .with_token(Request::post(target.at(path)))
        .header(CONTENT_TYPE, OCTET_STREAM)
        .header(ACCEPT, OCTET_STREAM)
        .body(Bytes::from(packet));
    match request {
        Ok(request) => ask(request, tls).await,
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Path, token and content type of ILP over HTTP.
async fn packets(probe: &mut Probe, target: &Target, tls: &ClientTls) {
    let url = target.at(target.path());
    let (status, headers, body) = match ask_packet(target, target.path(), tls).await {
        None => {
            let detail = format!("{url} accepts connections and answers nothing within 3 s");
            return probe.fail("path", "path.silent", detail);
        }
        Some(Err(_)) if !target.is_tls && speaks_tls(target, tls).await => {
            let detail = format!(
                "port {} speaks TLS: the URL must begin with https://",
                target.port
            );
            return probe.fail("path", "path.speaks_tls", detail);
        }
        Some(Err(error)) => {
            return probe.fail(
                "path",
                "path.broken",
                format!("{url} is no HTTP server: {error}"),
            );
        }
        Some(Ok(answer)) => answer,
    };
    probe.date_ms = date_ms(&headers);
    let type_of = |headers: &HeaderMap| {
        let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            probe.pass("path", format!("{url} asks for a token"));
            let (word, why) = target.refused(tls);
            let detail = format!("{url} answers {status}: {why}");
            return probe.fail("token_out", word, detail);
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => {
            let mut detail = format!("{url} answers {status}");
            match usual_path(target, tls).await {
                Some(path) => detail.push_str(&format!("; {} answers ILP", target.at(&path))),
                None => detail.push_str("; none of the usual paths answers ILP"),
            }
            return probe.fail("path", "path.wrong", detail);
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            probe.pass("path", format!("{url} takes packets"));
            let detail = format!("{url} does not take application/octet-stream ({status})");
            return probe.fail("content_type", "content_type.refused", detail);
        }
        StatusCode::ACCEPTED => {
            let detail =
                format!("{url} answers 202: it would send the answer by a request of its own");
            return probe.fail("path", "path.callback_mode", detail);
        }
        status if status.is_redirection() => {
            let location = headers.get(LOCATION).map(HeaderValue::as_bytes);
            let location = shown(location.unwrap_or_default());
            let detail = format!(
                "{url} answers {status} and leads to {location}: packets follow no redirect"
            );
            return probe.fail("path", "path.redirect", detail);
        }
        status => {
            let detail = format!("{url} answers {status}: {}", shown(&body));
            return probe.fail("path", "path.status", detail);
        }
    }
    let media = type_of(&headers);
    if media.to_ascii_lowercase().starts_with("text/html") {
        let detail =
            format!("{url} answers with a page for people ({media}): it is a web site, not a node");
        return probe.fail("path", "path.html", detail);
    }
    probe.pass("path", format!("{url} answers"));
    probe.pass("token_out", target.accepted());
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let reply = Reply::parse(body);
    if !is_packet_type(value) {
        let what = if reply.is_ok() {
            "an ILP packet"
        } else {
            "something else"
        };
        let detail =
            format!("{url} answers with {what} as {media:?}: it must be application/octet-stream");
        return probe.fail("content_type", "content_type.wrong", detail);
    }
    match reply {
        Err(error) => {
            let detail = format!("{url} answers with what is no ILP packet: {error}");
            probe.fail("content_type", "content_type.no_packet", detail);
        }
        Ok(reply) => {
            probe.pass("content_type", "application/octet-stream, an ILP packet");
            if let Reply::Fulfill(fulfill) = reply
                && fulfill.fulfillment() == PEER_FULFILLMENT
                && let Ok(config) = ildcp::Response::parse(fulfill.data())
            {
                probe.config = Some((config.client_address.to_string(), config.asset));
            }
        }
    }
}

/// The first of the usual paths that answers ILP, or wants a token first.
async fn usual_path(target: &Target, tls: &ClientTls) -> Option<String> {
    let mut usual = vec!["/ilp".to_owned(), "/".to_owned()];
    // `/accounts/NAME/ilp` with something missing or too much.
    let path = target.path().trim_end_matches('/');
    let trimmed = path.trim_end_matches("/btp").trim_end_matches("/ilp");
    usual.push(format!("{trimmed}/ilp"));
    if let Some(name) = trimmed.rsplit('/').next().filter(|name| !name.is_empty()) {
        usual.push(format!("/accounts/{name}/ilp"));
    }
    for path in usual {
        if let Some(Ok((status, headers, body))) = ask_packet(target, &path, tls).await {
            let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            let is_packet = is_packet_type(value) && Reply::parse(body).is_ok();
            if (status == StatusCode::OK && is_packet) || status == StatusCode::UNAUTHORIZED {
                return Some(path);
            }
        }
    }
    None
}

/// Path and token of BTP.
async fn session(
    probe: &mut Probe,
    target: &Target,
    uri: &BtpUri,
    has_session: bool,
    tls: &ClientTls,
) {
    if has_session {
        probe.pass(
            "path",
            format!("a BTP session is open at {}", target.path()),
        );
        probe.pass("token_out", "the peer took our token, or we took theirs");
        return;
    }
    let url = uri.websocket_url();
    let config = uri.tls.then_some(&tls.http1);
    let upgraded = timeout(PROBE_STEP_TIMEOUT, async {
        let stream = connect(&target.host, target.port, config).await;
        let stream: Stream = stream.map_err(|error| error.message)?;
        let upgrade = client_async_with_config(&url, stream, Some(websocket_config()));
        Ok::<_, String>(upgrade.await)
    });
    let mut socket = match upgraded.await {
        Err(_) => {
            let detail = format!("{url} accepts connections and answers nothing within 3 s");
            return probe.fail("path", "path.silent", detail);
        }
        Ok(Ok(Ok((socket, _)))) => socket,
        Ok(Ok(Err(tungstenite::Error::Http(response)))) => {
            let status = response.status();
            let (word, why) = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ("token.refused", "refuses us"),
                StatusCode::NOT_FOUND => ("path.wrong", "is not there"),
                _ => ("path.no_websocket", "speaks no WebSocket"),
            };
            let check = if word == "token.refused" {
                "token_out"
            } else {
                "path"
            };
            return probe.fail(check, word, format!("{url} {why}: it answers {status}"));
        }
        Ok(Ok(Err(_)) | Err(_)) if !target.is_tls && speaks_tls(target, tls).await => {
            let detail = format!(
                "port {} speaks TLS: the URL must begin with btp+wss://",
                target.port
            );
            return probe.fail("path", "path.speaks_tls", detail);
        }
        Ok(Ok(Err(error))) => {
            let detail = format!("{url} speaks no WebSocket: {error}");
            return probe.fail("path", "path.no_websocket", detail);
        }
        Ok(Err(error)) => return probe.fail("path", "path.broken", error),
    };
    probe.pass("path", format!("{url} speaks WebSocket"));
    let mut hello = Vec::new();
    let (username, token) = (&uri.username, &uri.token);
    let settings = session::Settings::default();
    let mut session = Session::client(settings, 0, wall(), username, token, &mut hello);
    let answered = timeout(PROBE_STEP_TIMEOUT, async {
        socket.send(Message::Binary(hello.into())).await.ok()?;
        while let Some(Ok(message)) = socket.next().await {
            let Message::Binary(frame) = message else {
                continue;
            };
            match session.handle_frame(0, &frame, &mut Vec::new()) {
                Event::Established => return Some(Ok(())),
                Event::Close(CloseReason::AuthRejected(code)) => return Some(Err(code)),
                Event::Close(_) => return None,
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
        None
    });
    match answered.await {
        Ok(Some(Ok(()))) => probe.pass("token_out", target.accepted()),
        Ok(Some(Err(code))) => {
            let (word, why) = target.refused(tls);
            let detail = format!("the peer refuses us by BTP ({code:?}): {why}");
            probe.fail("token_out", word, detail);
        }
        Ok(None) => {
            let (word, why) = target.refused(tls);
            let detail = format!("the peer closes the BTP connection: {why}");
            probe.fail("token_out", word, detail);
        }
        Err(_) => {
            let detail = "the peer does not answer our BTP token within 3 s".to_owned();
            probe.fail("token_out", "token.silent", detail);
        }
    }
    // Politely; it stands in nobody's way when that does not work.
    let _ = timeout(PROBE_STEP_TIMEOUT, socket.close(None)).await;
}

/// How a Rialto node sees the link; others do not know the path.
async fn ask_link(probe: &mut Probe, target: &Target, path: &str, tls: &ClientTls) {
    let request = target
        .with_token(Request::get(target.at(path)))
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .body(Bytes::new());
    let Ok(request) = request else { return };
    if let Some(Ok((status, headers, body))) = ask(request, tls).await {
        probe.date_ms = probe.date_ms.or(date_ms(&headers));
        if status == StatusCode::OK {
            probe.link = Some(body);
        }
    }
}

fn date_ms(headers: &HeaderMap) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(date).ok()?;
    let since_1970 = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since_1970.as_millis()).ok()
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(SHOWN_MAX).collect()
}
