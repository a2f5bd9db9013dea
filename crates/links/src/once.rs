//! One HTTP request on a connection of its own, such as nodes make that are not yet neighbours. It is
//! HTTP/1.1, unless the URL begins with `h2c://`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::HOST, uri::Scheme};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::{
    body::{self, BodyError},
    connect::connect,
    directory::{H2C, host_port},
    tls::ClientTls,
};

/// How long an exchange may take.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body of a request, and of an answer, between nodes that get to know each other, in bytes.
pub const EXCHANGE_BYTES_MAX: usize = 16 * 1024;

/// Sends a request, whose URL is whole, and reads all of the answer. Redirects are answers. Needs a
/// tokio runtime of any kind.
///
/// # Errors
/// What happened, without the URL.
pub async fn exchange(request: Request<Bytes>, tls: &ClientTls) -> Result<Response<Bytes>, String> {
    let exchanged = exchange_up_to(request, EXCHANGE_BYTES_MAX, tls);
    let seconds = EXCHANGE_TIMEOUT.as_secs();
    let exchanged = timeout(EXCHANGE_TIMEOUT, exchanged).await;
    exchanged.unwrap_or_else(|_| Err(format!("no answer within {seconds} s")))
}

/// The same for answers of up to `bytes_max`, for as long as they take.
pub(crate) async fn exchange_up_to(
    request: Request<Bytes>,
    bytes_max: usize,
    tls: &ClientTls,
) -> Result<Response<Bytes>, String> {
    let (head, body) = send(request, tls).await?.into_parts();
    match body::read(body, bytes_max).await {
        Ok(body) => Ok(Response::from_parts(head, body)),
        Err(BodyError::TooLarge) => Err("the answer is too long".to_owned()),
        Err(BodyError::Broken(error)) => Err(error.to_string()),
    }
}

/// Sends a request, whose URL is whole. The answer's body is still to come.
pub(crate) async fn send(
    request: Request<Bytes>,
    tls: &ClientTls,
) -> Result<Response<Incoming>, String> {
    let (mut head, body) = request.into_parts();
    let (Some(authority), Some(scheme)) = (head.uri.authority(), head.uri.scheme()) else {
        return Err("not a URL".to_owned());
    };
    let (host, port) = host_port(authority, scheme).ok_or("no valid host")?;
    let tls = (*scheme == Scheme::HTTPS).then_some(&tls.http1);
    let name = HeaderValue::from_str(authority.as_str()).map_err(|_| "no valid host")?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let is_http2 = scheme.as_str() == H2C;
    // HTTP/2 has the authority in the request, HTTP/1.1 in a header.
    let uri = match is_http2 {
        true => format!("http://{authority}{path}"),
        false => path.to_owned(),
    };
    head.uri = uri.parse::<Uri>().map_err(|_| "not a URL")?;
    let stream = connect(&host, port, tls)
        .await
        .map_err(|error| error.message)?;
    if is_http2 {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let request = Request::from_parts(head, Full::new(body));
        let sent = sender.send_request(request).await;
        return sent.map_err(|error| error.to_string());
    }
    head.headers.insert(HOST, name);
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    // Ends with the answer's body, or by itself when the server falls silent and nobody waits.
    tokio::spawn(connection);
    let request = Request::from_parts(head, Full::new(body));
    let sent = sender.send_request(request).await;
    sent.map_err(|error| error.to_string())
}
