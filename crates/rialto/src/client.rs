//! A client of the admin API: plain HTTP to a node on this machine or at the end of a tunnel.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    failure::{Exit, Failure},
    secret::Token,
};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer; above the minute that the API may wait for a payment to end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Entries asked for at once, the most that the API gives.
const PAGE_LIMIT: u32 = 200;

/// One node's admin API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// `host:port`.
    authority: String,
    token: Option<Token>,
}

/// An RFC 9457 problem document, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    field: Option<String>,
}

impl Client {
    /// Such as `http://127.0.0.1:7771`. Nothing is connected yet.
    pub(crate) fn new(url: &str, token: Option<Token>) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::usage(format!("the node's URL '{url}' {why}"));
        let uri: Uri = url.parse().map_err(|_| bad("is not one"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(bad(
                    "is https, which the admin listener does not speak: use http on the machine itself or through a tunnel",
                ));
            }
            Some(_) | None => return Err(bad("must begin with http://")),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("must have no path"));
        }
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad(
                "must not carry a secret: use RIALTO_TOKEN or --token-file",
            ));
        }
        let host = authority.host();
        let port = authority.port_u16().unwrap_or(80);
        let authority = format!("{host}:{port}");
        Ok(Self { authority, token })
    }

    /// `http://host:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::PUT, path, Some(body), None).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::PATCH, path, Some(body), None).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body), None).await
    }

    /// A request that happens once, however often it is sent with the same key.
    pub(crate) async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body), Some(key)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.call::<Value>(Method::DELETE, path, None, None).await?;
        Ok(())
    }

    /// All entries of a list, page by page, under the name the API gives the list.
    pub(crate) async fn list(&self, path: &str, name: &str) -> Result<Vec<Value>, Failure> {
        let mut whole = self.whole(path, name).await?;
        let Value::Array(entries) = whole[name].take() else {
            unreachable!("it was put there");
        };
        Ok(entries)
    }

    /// The same as one object, with what the last page has beside its entries.
    pub(crate) async fn whole(&self, path: &str, name: &str) -> Result<Value, Failure> {
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let mut page = format!("{path}{sign}limit={PAGE_LIMIT}");
            if let Some(cursor) = &cursor {
                page.push_str("&cursor=");
                page.push_str(&encoded(cursor));
            }
            let mut page: Value = self.get(&page).await?;
            let next = page["next_cursor"].as_str().map(str::to_owned);
            let Value::Array(part) = page[name].take() else {
                return Err(internal(path, &format!("no list '{name}' in the answer")));
            };
            entries.extend(part);
            if next.is_none() || next == cursor {
                page[name] = Value::Array(entries);
                return Ok(page);
            }
            cursor = next;
        }
    }

    /// Whether the node answers that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        matches!(self.exchange(Method::GET, "/readyz", None, None).await, Ok((status, _)) if status.is_success())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<T, Failure> {
        let (status, body) = self.exchange(method, path, body, key).await?;
        if !status.is_success() {
            return Err(refused(status, &body, self.token.is_some()));
        }
        // 204 has no body; `null` stands for it.
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|error| internal(path, &error.to_string()))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json");
            bytes = body.to_string().into();
        }
        let request = request
            .body(Full::new(bytes))
            .map_err(|_| Failure::usage("the token or the key has characters that HTTP refuses"))?;

        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority)).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unavailable(&error.to_string())),
            Err(_) => return Err(self.unavailable("no connection within 5 seconds")),
        };
        let answered = timeout(ANSWER_TIMEOUT, async {
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
            let answer = async {
                let answer = sender.send_request(request).await.map_err(text)?;
                let status = answer.status();
                let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
                Ok::<_, String>((status, body.collect().await.map_err(text)?.to_bytes()))
            };
            // The connection moves the bytes; it ends on its own only when the answer never comes.
            let mut connection = std::pin::pin!(connection);
            let mut answer = std::pin::pin!(answer);
            tokio::select! {
                biased;
                answered = &mut answer => answered,
                _ = &mut connection => answer.await,
            }
        });
        match answered.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.unavailable(&error)),
            Err(_) => Err(self.unavailable("no answer within 90 seconds")),
        }
    }

    fn unavailable(&self, why: &str) -> Failure {
        let message = format!(
            "the node at {} does not answer: {why}; is it running? --url or RIALTO_URL say where it is",
            self.url()
        );
        Failure::new(Exit::Unavailable, message)
    }
}

/// A text as part of a path or query.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn internal(path: &str, why: &str) -> Failure {
    let message = format!("the node's answer to {path} cannot be read: {why}");
    Failure::new(Exit::Internal, message)
}

fn refused(status: StatusCode, body: &[u8], had_token: bool) -> Failure {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let mut message = if problem.detail.is_empty() {
        problem.title
    } else {
        problem.detail
    };
    if message.is_empty() {
        message = format!("the node answered {status}");
    }
    if let Some(field) = problem.field.filter(|field| !field.is_empty()) {
        message = format!("{field}: {message}");
    }
    let exit = match status.as_u16() {
        401 if !had_token => {
            message = "the node wants a token: set RIALTO_TOKEN, or give --token-file or --config"
                .to_owned();
            Exit::Config
        }
        401 | 403 => Exit::Config,
        429 | 503 => Exit::TryAgain,
        // The node is well; the receiver, or the way to it, is not.
        502 => Exit::Unavailable,
        500..=599 => Exit::Internal,
        _ => Exit::Failed,
    };
    Failure::new(exit, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_be_an_admin_listener_are_refused() {
        for (url, why) in [
            ("127.0.0.1:7771", "must begin with http://"),
            ("http://a b", "is not one"),
            ("https://node:7771", "is https"),
            ("ftp://node", "must begin with http://"),
            ("http://node/v1", "must have no path"),
            ("http://:secret@node", "must not carry a secret"),
        ] {
            let failure = Client::new(url, None).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{url}");
            assert!(failure.message.contains(why), "{failure}");
        }
        let client = Client::new("http://[::1]:7771/", None).unwrap();
        assert_eq!(client.url(), "http://[::1]:7771");
        assert_eq!(
            Client::new("http://node", None).unwrap().url(),
            "http://node:80"
        );
    }

    #[test]
    fn a_problem_document_becomes_one_line_and_an_exit_code() {
        let cases = [
            (
                422,
                r#"{"detail":"must be 0 or below","field":"limits.balance_min"}"#,
                true,
                Exit::Failed,
                "limits.balance_min: must be 0 or below",
            ),
            (
                409,
                r#"{"title":"conflict","detail":""}"#,
                true,
                Exit::Failed,
                "conflict",
            ),
            (
                503,
                r#"{"detail":"too many payments"}"#,
                true,
                Exit::TryAgain,
                "too many payments",
            ),
            (
                502,
                r#"{"detail":"no such receiver","field":"receiver"}"#,
                true,
                Exit::Unavailable,
                "receiver: no such receiver",
            ),
            (
                500,
                "<html>",
                true,
                Exit::Internal,
                "the node answered 500 Internal Server Error",
            ),
            (
                403,
                r#"{"detail":"the token may not pay"}"#,
                true,
                Exit::Config,
                "the token may not pay",
            ),
            (
                401,
                "{}",
                false,
                Exit::Config,
                "the node wants a token: set RIALTO_TOKEN, or give --token-file or --config",
            ),
        ];
        for (status, body, had_token, exit, message) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                refused(status, body.as_bytes(), had_token),
                Failure::new(exit, message)
            );
        }
    }

    #[test]
    fn texts_are_encoded_for_paths_and_queries() {
        assert_eq!(encoded("g.bob~a-1_x"), "g.bob~a-1_x");
        assert_eq!(encoded("€/2 &"), "%E2%82%AC%2F2%20%26");
    }
}
