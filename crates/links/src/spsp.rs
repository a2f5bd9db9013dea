//! SPSP queries of payers (RFC 9) on the node listener.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use rialto_stream::{
    ReceiptDetails,
    spsp::{self, ErrorBody, RECEIPT_NONCE_HEADER, RECEIPT_SECRET_HEADER},
};

/// A payer asks where to pay.
#[derive(Debug, Clone)]
pub struct SpspQuery {
    /// Name in the path; `None` at `/.well-known/pay`.
    pub account: Option<String>,
    /// What the receipts of the payment are to be made with.
    pub receipt: Option<ReceiptDetails>,
}

/// Why a query is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpspRefusal {
    /// Nobody here has this pointer.
    UnknownReceiver,
    /// The node cannot take payments for it now.
    Unavailable,
}

/// How the node answers queries.
pub type SpspAnswer = dyn Fn(SpspQuery) -> Result<spsp::Response, SpspRefusal>;

/// Answers one request, whatever its method.
pub(crate) fn answer(
    method: &Method,
    account: Option<&str>,
    headers: &HeaderMap,
    node: &SpspAnswer,
) -> Response<Bytes> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let (status, body) = match *method {
        Method::OPTIONS => (StatusCode::NO_CONTENT, String::new()),
        Method::GET if !spsp::accepts(text(ACCEPT.as_str())) => refused(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptableError",
            "only application/spsp4+json is served",
        ),
        Method::GET => {
            match spsp::receipt_details(text(RECEIPT_NONCE_HEADER), text(RECEIPT_SECRET_HEADER)) {
                Err(error) => refused(
                    StatusCode::BAD_REQUEST,
                    "InvalidReceiptHeadersError",
                    &error.to_string(),
                ),
                Ok(receipt) => ask(account, receipt, node),
            }
        }
        _ => refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowedError",
            "payment pointers are queried by GET",
        ),
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    // Pages in browsers pay, too (RFC 28).
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "web-monetization-id"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET"),
        // Each query has a secret of its own.
        (CACHE_CONTROL, "no-cache"),
        (VARY, "Accept"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, OPTIONS");
        response.headers_mut().insert(ALLOW, allowed);
    }
    if status != StatusCode::NO_CONTENT {
        let content_type = HeaderValue::from_static(spsp::CONTENT_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

fn ask(
    account: Option<&str>,
    receipt: Option<ReceiptDetails>,
    node: &SpspAnswer,
) -> (StatusCode, String) {
    let query = SpspQuery {
        account: account.map(str::to_owned),
        receipt,
    };
    match node(query) {
        Ok(response) => (StatusCode::OK, response.to_json()),
        Err(SpspRefusal::UnknownReceiver) => (
            StatusCode::NOT_FOUND,
            ErrorBody::invalid_receiver().to_json(),
        ),
        Err(SpspRefusal::Unavailable) => refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "UnavailableError",
            "the receiver cannot be paid at the moment",
        ),
    }
}

fn refused(status: StatusCode, id: &str, message: &str) -> (StatusCode, String) {
    let (id, message) = (id.to_owned(), message.to_owned());
    (status, ErrorBody { id, message }.to_json())
}
