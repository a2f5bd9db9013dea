//! Asks settlement engines to pay (RFC 38, Settlement Engine API).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use rialto_connector::{EngineAsk, settle::EngineAnswer};
use rialto_ledger::AccountId;
use rialto_packet::quantity::Quantity;

use crate::{once::exchange, spsp_client::shown, tls::ClientTls};

/// Asks once. What happens after an [`EngineAnswer::Unknown`] is the core's to say.
///
/// An engine that does not know the account, because it lost its state, is told of it and asked
/// again.
pub async fn ask(
    engine_url: &str,
    account: AccountId,
    ask: &EngineAsk,
    tls: &ClientTls,
) -> EngineAnswer {
    let accounts = format!("{}/accounts", engine_url.trim_end_matches('/'));
    let one = format!("{accounts}/{}", account.0);
    match ask {
        EngineAsk::Introduce => introduce(&accounts, account, tls).await,
        EngineAsk::Forget => {
            let answer = call(Method::DELETE, &one, None, Bytes::new(), tls).await;
            judge(answer, &[StatusCode::NOT_FOUND])
        }
        EngineAsk::Settle { key, quantity, .. } => {
            let url = format!("{one}/settlements");
            let pay = async || call(Method::POST, &url, Some(key), body(quantity), tls).await;
            let mut answer = pay().await;
            let is_unknown = |answer: &Response<Bytes>| answer.status() == StatusCode::NOT_FOUND;
            if answer.as_ref().is_ok_and(is_unknown)
                && introduce(&accounts, account, tls).await == EngineAnswer::Accepted
            {
                answer = pay().await;
            }
            judge(answer, &[])
        }
    }
}

async fn introduce(accounts: &str, account: AccountId, tls: &ClientTls) -> EngineAnswer {
    let body = format!(r#"{{"id":"{}"}}"#, account.0);
    let answer = call(Method::POST, accounts, None, body.into(), tls).await;
    judge(answer, &[StatusCode::CONFLICT])
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
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().map_err(|_| format!("{url} is not a URL"))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(key) = key {
        let key = HeaderValue::from_str(key).map_err(|_| "the key is not ASCII".to_owned())?;
        headers.insert(HeaderName::from_static("idempotency-key"), key);
    }
    let answer = exchange(request, tls).await;
    answer.map_err(|error| format!("cannot ask {url}: {error}"))
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
    let message = format!("the engine answered with status {status}: {said:?}");
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
