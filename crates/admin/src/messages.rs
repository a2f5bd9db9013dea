//! Messages of settlement engines to those on the other side (RFC 38, Connector API).

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rialto_connector::{
    Event, Reason,
    messages::{MessageId, MessageOutcome},
};
use rialto_packet::{DATA_BYTES_MAX, ErrorCode};

use crate::{
    Problem, extract,
    payments::outcome,
    settlements::{Engines, check_engine, check_has_engine, read_account},
};

/// Says with which ILP error a message was rejected.
const ILP_ERROR: HeaderName = HeaderName::from_static("ilp-error");

/// Sends a message for an engine: the answer of the engine on the other side is the answer.
pub(crate) async fn send(
    State(engines): State<Engines>,
    extract::Path(account): extract::Path,
    headers: HeaderMap,
    body: Result<extract::Raw<DATA_BYTES_MAX>, Problem>,
) -> Result<Response, Problem> {
    check_engine(&engines, &headers)?;
    let id = read_account(&account)?;
    let extract::Raw(data) = body?;
    let mut events = engines.node.0.events();
    let sent = engines.node.execute(move |connector, now, out| {
        check_has_engine(connector, id)?;
        connector.message_send(now, id, &data, out).map_err(unsent)
    });
    let id = sent.await??;
    let outcome = outcome(&mut events, |event| done(event, id));
    match outcome.await? {
        MessageOutcome::Answered { data } => Ok(answer(StatusCode::CREATED, data)),
        MessageOutcome::Rejected {
            code,
            message,
            data,
        } => Ok(rejected(code, &message, data)),
        MessageOutcome::Failed { reason } => Err(unsent(reason)),
    }
}

/// What came of this message, if the event says it.
pub(crate) fn done(event: Event, id: MessageId) -> Option<MessageOutcome> {
    if let Event::MessageDone { id: of, outcome } = event
        && of == id
    {
        Some(outcome)
    } else {
        None
    }
}

pub(crate) fn answer(status: StatusCode, data: Bytes) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
    (status, content_type, data).into_response()
}

/// With what the engine on the other side said, where it said something (RFC 38, Exchanging
/// Messages).
fn rejected(code: ErrorCode, message: &str, data: Bytes) -> Response {
    let mut response = if data.is_empty() {
        let detail = format!("the peer rejected the message with {code}: {message:?}");
        Problem::new(StatusCode::BAD_GATEWAY, "rejected", detail).into_response()
    } else {
        answer(StatusCode::BAD_GATEWAY, data)
    };
    if let Ok(code) = HeaderValue::from_str(&code.to_string()) {
        response.headers_mut().insert(ILP_ERROR, code);
    }
    response
}

/// A message that the peer did not get, or did not answer.
pub(crate) fn unsent(reason: Reason) -> Problem {
    let row = reason.row();
    let status = if reason == Reason::ExpiryTimedOut {
        StatusCode::GATEWAY_TIMEOUT
    } else if [Reason::EngineBusy, Reason::Drain].contains(&reason) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::BAD_GATEWAY
    };
    Problem::new(status, row.word, format!("{}: {}", row.code, row.message))
}
