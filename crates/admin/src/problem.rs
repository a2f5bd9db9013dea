//! Errors as problem documents (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rialto_connector::command::{CommandError, CommandErrorKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::node::Unavailable;

/// What went wrong and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem; `/problems/` and the code.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "/problems/not_found")]
    pub kind: Box<str>,
    /// The HTTP status in words.
    #[schema(value_type = String, example = "Not Found")]
    pub title: Box<str>,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// Stable word for programs.
    #[schema(example = "not_found")]
    pub code: String,
    /// For people.
    #[schema(example = "there is no account 'bob'")]
    pub detail: String,
    /// The field, parameter or header to change, where one is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "limits.balance_min")]
    pub field: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{code}").into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: detail.into(),
            field: None,
        }
    }

    /// A value that is not possible.
    pub(crate) fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail).of_field(field)
    }

    /// A thing that does not exist.
    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        let detail = format!("there is no {what} '{name}'");
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// Nothing can be done now; it may work later.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    #[must_use]
    pub(crate) fn of_field(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let (status, code) = match error.kind {
            CommandErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            CommandErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            CommandErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            CommandErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            CommandErrorKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let problem = Self::new(status, code, error.message);
        if error.field.is_empty() {
            return problem;
        }
        problem.of_field(error.field)
    }
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        Self::unavailable(error.0)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (
            self.status(),
            [(header::CONTENT_TYPE, content_type)],
            Json(&self),
        )
            .into_response();
        if self.status() == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
