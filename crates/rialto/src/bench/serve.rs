//! The peer that fulfills: ILP over HTTP/1.1 and HTTP/2, and BTP, on one port.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rialto_btp::session::{Event, Session, Settings};
use rialto_links::PACKET_BODY_BYTES_MAX;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{args::BenchServeArgs, btp::websocket_config, packets, wall};
use crate::{
    failure::{Exit, Failure},
    output,
};

/// How HTTP/2 without TLS begins (RFC 9113, section 3.4); no method of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI";
/// How long a connection may take to say what it speaks.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed `accept`, which mostly means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(args: &BenchServeArgs) -> Result<(), Failure> {
    let cannot = |error: io::Error| {
        let message = format!(
            "cannot listen on {}: {error}; try --listen 127.0.0.1:0",
            args.listen
        );
        Failure::new(Exit::Unavailable, message)
    };
    let listener = TcpListener::bind(args.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let reject = args.reject;
    if args.output.json {
        output::json(&json!({"listen": address}))?;
    } else {
        output::line(&format!(
            "http://{address}/ilp, h2c://{address}/ilp and btp+ws://{address}/ {} every packet",
            if reject { "refuse" } else { "fulfill" }
        ))?;
    }
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(connection(stream, reject));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    let stdin_closes = tokio::task::spawn_blocking({
        let waits = args.until_stdin_closes;
        move || waits.then(|| io::copy(&mut io::stdin(), &mut io::sink()))
    });
    tokio::select! {
        () = accept => Ok(()),
        () = async {
            if matches!(stdin_closes.await, Ok(None)) {
                std::future::pending::<()>().await;
            }
        } => Ok(()),
    }
}

/// What ends a connection badly ends only that one.
async fn connection(stream: TcpStream, reject: bool) {
    let _ = stream.set_nodelay(true);
    let mut first = [0; PREFACE.len()];
    let Ok(Ok(length)) = timeout(FIRST_BYTES_TIMEOUT, stream.peek(&mut first)).await else {
        return;
    };
    let service = service_fn(move |request| answer(request, reject));
    let io = TokioIo::new(stream);
    if first[..length] == *PREFACE {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.max_concurrent_streams(1 << 16);
        let _ = server.serve_connection(io, service).await;
    } else {
        let mut server = http1::Builder::new();
        server.auto_date_header(false);
        let _ = server.serve_connection(io, service).with_upgrades().await;
    }
}

/// The answer to a Prepare.
fn reply(prepare: &[u8], reject: bool) -> Vec<u8> {
    if reject {
        return packets::reject("as asked for");
    }
    packets::fulfill(prepare).unwrap_or_else(|why| packets::reject(&why))
}

async fn answer(
    mut request: Request<Incoming>,
    reject: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) {
        let accept = derive_accept_key(key.as_bytes());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                btp(TokioIo::new(upgraded), reject).await;
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::try_from(accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        return Ok(response);
    }
    let body = Limited::new(request.into_body(), PACKET_BODY_BYTES_MAX);
    Ok(match body.collect().await {
        Ok(body) => {
            let mut response = Response::new(Full::from(reply(&body.to_bytes(), reject)));
            let octets = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(CONTENT_TYPE, octets);
            response
        }
        Err(_) => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        }
    })
}

/// One BTP session, whose every token is right. Answers to all that came at once leave at once.
async fn btp(io: TokioIo<hyper::upgrade::Upgraded>, reject: bool) {
    let config = Some(websocket_config());
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, config).await;
    let mut session = Session::server(Settings::default(), 0, wall(), None);
    while let Some(Ok(first)) = socket.next().await {
        let mut message = first;
        loop {
            if let Message::Binary(frame) = &message {
                let mut out = Vec::with_capacity(64);
                match session.handle_frame(0, frame, &mut out) {
                    Event::Authenticate { .. } => {
                        let _ = session.accept(0, &mut out);
                    }
                    Event::Prepare { request_id, ilp } => {
                        let reply = reply(&frame[ilp], reject);
                        let _ = session.send_reply(request_id, &reply, &mut out);
                    }
                    Event::Close(_) => return,
                    Event::Nothing
                    | Event::Deferred
                    | Event::Established
                    | Event::Reply { .. }
                    | Event::PeerError { .. }
                    | Event::BadReply { .. }
                    | Event::Ping => {}
                }
                if !out.is_empty() && socket.feed(Message::binary(out)).await.is_err() {
                    return;
                }
            }
            match socket.next().now_or_never() {
                Some(Some(Ok(next))) => message = next,
                Some(Some(Err(_)) | None) => return,
                None => break,
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}
