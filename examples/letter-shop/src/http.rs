//! JSON over HTTP, as all programs of the example speak it.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

use crate::Result;

/// Longest wait for an answer; above what a node waits for the end of a payment.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Which node a program belongs to.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Its admin API
    #[arg(long)]
    pub(crate) node: String,
    /// The file with the token for it
    #[arg(long)]
    pub(crate) token_file: PathBuf,
}

impl NodeArgs {
    pub(crate) fn connect(&self) -> Result<Json> {
        let token = std::fs::read_to_string(&self.token_file)?;
        Ok(Json::new(&self.node, Some(token.trim())))
    }
}

/// A client of one server, which keeps its connections.
#[derive(Debug, Clone)]
pub(crate) struct Json {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    token: Option<String>,
}

impl Json {
    /// `base` is such as `http://127.0.0.1:7771`.
    pub(crate) fn new(base: &str, token: Option<&str>) -> Self {
        let mut connector = HttpConnector::new();
        // Small requests and answers take turns: none may wait for an acknowledgement.
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            base: base.trim_end_matches('/').to_owned(),
            token: token.map(str::to_owned),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let (status, answer) = self.call(Method::GET, path, None, None).await?;
        self.expect_success(path, status, answer)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.call(Method::POST, path, Some(body), None).await?;
        self.expect_success(path, status, answer)
    }

    /// A request that happens once, however often it is sent with the same key.
    pub(crate) async fn post_once(&self, path: &str, body: &Value, key: &str) -> Result<Value> {
        let (status, answer) = self.call(Method::POST, path, Some(body), Some(key)).await?;
        self.expect_success(path, status, answer)
    }

    fn expect_success(&self, path: &str, status: StatusCode, answer: Value) -> Result<Value> {
        if status.is_success() {
            return Ok(answer);
        }
        Err(format!("{}{path} answered {status}: {answer}", self.base).into())
    }

    /// Whatever the status is. An answer that is not JSON is text.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<(StatusCode, Value)> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::from(body))?;
        let answer = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((
                status,
                body.collect().await?.to_bytes(),
            ))
        };
        let (status, body) = timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| format!("{url} did not answer"))?
            .map_err(|error| format!("{url}: {error}"))?;
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Ok((
            status,
            serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        ))
    }
}
