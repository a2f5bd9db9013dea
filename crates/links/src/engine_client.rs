//! Asks settlement engines to pay, and hands them messages (RFC 38, Settlement Engine API); tells
//! accounting systems whose engine we are what came in, and hands them ours (RFC 38, Connector API).

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use rialto_connector::{messages::MessageAnswer, settle::EngineAnswer};
use rialto_ledger::AccountId;
use rialto_packet::{DATA_BYTES_MAX, quantity::Quantity};

use crate::{
    once::{exchange, exchange_up_to},
    spsp_client::shown,
    tls::ClientTls,
};

/// The token that an accounting system wants of its engines.
pub type AccountingToken = Option<HeaderValue>;

/// Opens the account.
pub async fn introduce(engine_url: &str, account: AccountId, tls: &ClientTls) -> EngineAnswer {
    let url = accounts(engine_url);
    let body = format!(r#"{{"id":"{}"}}"#, account.0);
    let answer = call(Method::POST, &url, None, body.into(), tls).await;
    judge(answer, &[StatusCode::CONFLICT])
}

/// Closes the account.
pub async fn close(engine_url: &str, account: AccountId, tls: &ClientTls) -> EngineAnswer {
    let url = format!("{}/{}", accounts(engine_url), account.0);
    let answer = call(Method::DELETE, &url, None, Bytes::new(), tls).await;
    judge(answer, &[StatusCode::NOT_FOUND])
}

/// Asks once to pay. What happens after an [`EngineAnswer::Unknown`] is the core's to say.
///
/// An engine that does not know the account, because it lost its state, is told of it and asked
/// again.
pub async fn settle(
    engine_url: &str,
    account: AccountId,
    key: &str,
    quantity: &Quantity,
    tls: &ClientTls,
) -> EngineAnswer {
    let url = format!("{}/{}/settlements", accounts(engine_url), account.0);
    let pay = async || call(Method::POST, &url, Some(key), body(quantity), tls).await;
    let mut answer = pay().await;
    if is_unknown(&answer) {
        match introduce(engine_url, account, tls).await {
            EngineAnswer::Accepted => answer = pay().await,
            // What it said is not its last word: it may yet learn of the account.
            unknown @ EngineAnswer::Unknown { .. } => return unknown,
            EngineAnswer::Refused { .. } => {}
        }
    }
    judge(answer, &[])
}

/// Hands over a message of the peer's engine. One for an account that the engine does not know was
/// not taken: the engine is told of the account and asked again. Takes as long as it takes.
pub async fn message(
    engine_url: &str,
    account: AccountId,
    data: &Bytes,
    tls: &ClientTls,
) -> MessageAnswer {
    let url = format!("{}/{}/messages", accounts(engine_url), account.0);
    let hand_over = async || {
        let request = request(Method::POST, &url, "application/octet-stream", data.clone())?;
        exchange_up_to(request, DATA_BYTES_MAX, tls).await
    };
    let mut answer = hand_over().await;
    if is_unknown(&answer) {
        match introduce(engine_url, account, tls).await {
            EngineAnswer::Accepted => answer = hand_over().await,
            EngineAnswer::Unknown { .. } => return MessageAnswer::Failed,
            EngineAnswer::Refused { .. } => {}
        }
    }
    taken(answer)
}

/// Tells an accounting system once what came in for the account that has this URL there.
pub async fn report(
    account_url: &str,
    token: &AccountingToken,
    key: &str,
    quantity: &Quantity,
    tls: &ClientTls,
) -> EngineAnswer {
    let url = format!("{account_url}/settlements");
    let answer = async {
        let mut request = request(Method::POST, &url, "application/json", body(quantity))?;
        present(&mut request, token);
        with_key(&mut request, key)?;
        exchange(request, tls).await
    };
    judge(told(&url, answer.await), &[])
}

/// Hands an accounting system a message for the engine on the other side. Takes as long as it takes.
pub async fn relay(
    account_url: &str,
    token: &AccountingToken,
    data: &Bytes,
    tls: &ClientTls,
) -> MessageAnswer {
    let url = format!("{account_url}/messages");
    let answer = async {
        let mut request = request(Method::POST, &url, "application/octet-stream", data.clone())?;
        present(&mut request, token);
        exchange_up_to(request, DATA_BYTES_MAX, tls).await
    };
    taken(answer.await)
}

fn present(request: &mut Request<Bytes>, token: &AccountingToken) {
    if let Some(token) = token {
        request.headers_mut().insert(AUTHORIZATION, token.clone());
    }
}

fn with_key(request: &mut Request<Bytes>, key: &str) -> Result<(), String> {
    let key = HeaderValue::from_str(key).map_err(|_| "the key is not ASCII".to_owned())?;
    let name = HeaderName::from_static("idempotency-key");
    request.headers_mut().insert(name, key);
    Ok(())
}

fn told(url: &str, answer: Result<Response<Bytes>, String>) -> Result<Response<Bytes>, String> {
    answer.map_err(|error| format!("cannot ask {url}: {error}"))
}

/// What was said to a message.
fn taken(answer: Result<Response<Bytes>, String>) -> MessageAnswer {
    match answer {
        Ok(answer) if answer.status().is_success() => MessageAnswer::Answered(answer.into_body()),
        Ok(answer) if answer.status().is_client_error() => {
            MessageAnswer::Refused(answer.into_body())
        }
        Ok(_) | Err(_) => MessageAnswer::Failed,
    }
}

fn accounts(engine_url: &str) -> String {
    format!("{}/accounts", engine_url.trim_end_matches('/'))
}

fn is_unknown(answer: &Result<Response<Bytes>, String>) -> bool {
    let answer = answer.as_ref();
    answer.is_ok_and(|answer| answer.status() == StatusCode::NOT_FOUND)
}

/// A quantity as engines read it (RFC 38, Units and Quantities).
fn body(quantity: &Quantity) -> Bytes {
    let (amount, scale) = (quantity.amount(), quantity.scale());
    format!(r#"{{"amount":"{amount}","scale":{scale}}}"#).into()
}

async fn call(
    method: Method,
    url: &str,
    key: Option<&str>,
    body: Bytes,
    tls: &ClientTls,
) -> Result<Response<Bytes>, String> {
    let mut request = request(method, url, "application/json", body)?;
    if let Some(key) = key {
        with_key(&mut request, key)?;
    }
    told(url, exchange(request, tls).await)
}

fn request(
    method: Method,
    url: &str,
    content_type: &'static str,
    body: Bytes,
) -> Result<Request<Bytes>, String> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().map_err(|_| format!("{url} is not a URL"))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(request)
}

/// Success is any status of 2xx, or one of `also`. The other statuses of 4xx are final, but for those
/// that say that it may go well later.
fn judge(answer: Result<Response<Bytes>, String>, also: &[StatusCode]) -> EngineAnswer {
    let answer = match answer {
        Ok(answer) => answer,
        Err(message) => return EngineAnswer::Unknown { message },
    };
    let status = answer.status();
    if status.is_success() || also.contains(&status) {
        return EngineAnswer::Accepted;
    }
    let said = shown(&String::from_utf8_lossy(answer.body()));
    let message = format!("the answer had status {status}: {said:?}");
    let later = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
    ];
    if status.is_client_error() && !later.contains(&status) {
        return EngineAnswer::Refused { message };
    }
    EngineAnswer::Unknown { message }
}
