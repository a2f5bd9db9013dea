//! SPSP queries to other servers: from a payment pointer to where the money goes (RFC 9, RFC 26).

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, LOCATION},
    uri::{Authority, Scheme},
};
use hyper::body::Incoming;
use rialto_stream::{
    pointer::{self, PointerError},
    spsp::{self, BODY_BYTES_MAX, REDIRECTS_MAX, SpspError},
};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    body::{self, BodyError},
    once::send,
    tls::ClientTls,
};

/// How long a query may take, redirects included.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// `http://`, ports and this machine itself: for development.
    pub insecure: bool,
    /// Redirects to another host. The payer should see where they lead.
    pub other_hosts: bool,
}

/// Where to pay.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What the server said.
    pub response: spsp::Response,
    /// The URL that the pointer stands for.
    pub resolved_url: String,
    /// The URL that answered, after redirects.
    pub final_url: String,
}

/// Why a receiver cannot be paid. Each names the URL and what came back.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Neither a payment pointer nor a URL.
    #[error("{receiver:?} {error}")]
    Pointer {
        /// As it was given.
        receiver: String,
        /// What is wrong.
        error: PointerError,
    },
    /// No connection, or it broke.
    #[error("cannot query {url}: {error}")]
    Unreachable {
        /// Which URL.
        url: String,
        /// What happened.
        error: String,
    },
    /// Nothing within [`QUERY_TIMEOUT`].
    #[error("{0} did not answer within 3 s")]
    Timeout(String),
    /// Another status than 200.
    #[error("{url} answered with status {status}: {body:?}")]
    Status {
        /// Which URL.
        url: String,
        /// What came back.
        status: StatusCode,
        /// The first of what came with it.
        body: String,
    },
    /// A redirect to a place that must not be followed.
    #[error("{url} redirects to {location:?}, which is not followed: {why}")]
    Redirect {
        /// Which URL.
        url: String,
        /// Where it leads.
        location: String,
        /// Why not.
        why: &'static str,
    },
    /// Status 200, but with something else.
    #[error("{url} is no SPSP endpoint, it answered with {content_type:?}: {error}")]
    NotSpsp {
        /// Which URL.
        url: String,
        /// What came back.
        content_type: String,
        /// What is wrong with it.
        error: SpspError,
    },
}

/// Characters of a strange answer that are shown. What is shown may end in the journal.
const SHOWN_MAX: usize = 200;

/// Asks where to pay `receiver`, a payment pointer or the URL of an SPSP endpoint. Needs a tokio
/// runtime of any kind.
///
/// # Errors
/// See [`QueryError`].
pub async fn query(
    receiver: &str,
    permissions: Permissions,
    tls: &ClientTls,
) -> Result<Answer, QueryError> {
    let resolved_url = pointer::resolve(receiver, permissions.insecure).map_err(|error| {
        let receiver = receiver.to_owned();
        QueryError::Pointer { receiver, error }
    })?;
    timeout(
        QUERY_TIMEOUT,
        query_url(resolved_url.clone(), permissions, tls),
    )
    .await
    .unwrap_or(Err(QueryError::Timeout(resolved_url)))
}

async fn query_url(
    resolved_url: String,
    permissions: Permissions,
    tls: &ClientTls,
) -> Result<Answer, QueryError> {
    let mut url = resolved_url.clone();
    for _ in 0..=REDIRECTS_MAX {
        let response = get(&url, spsp::ACCEPT, tls)
            .await
            .map_err(|error| unreachable_url(&url, &error))?;
        if !response.status().is_redirection() {
            let response = read(&url, response).await?;
            return Ok(Answer {
                response,
                resolved_url,
                final_url: url,
            });
        }
        let location = header_text(response.headers(), &LOCATION);
        url = follow(&url, location, permissions).map_err(|why| QueryError::Redirect {
            url: url.clone(),
            location: shown(location),
            why,
        })?;
    }
    Err(unreachable_url(&resolved_url, "too many redirects"))
}

pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

fn unreachable_url(url: &str, error: &str) -> QueryError {
    QueryError::Unreachable {
        url: url.to_owned(),
        error: error.to_owned(),
    }
}

/// One GET, on a connection of its own.
pub(crate) async fn get(
    url: &str,
    accept: &str,
    tls: &ClientTls,
) -> Result<Response<Incoming>, String> {
    let request = Request::get(url)
        .header(ACCEPT, accept)
        .body(Bytes::new())
        .map_err(|_| "not a URL")?;
    send(request, tls).await
}

async fn read(url: &str, response: Response<Incoming>) -> Result<spsp::Response, QueryError> {
    let (head, body) = response.into_parts();
    let content_type = shown(header_text(&head.headers, &CONTENT_TYPE));
    let body = body::read(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|error| match error {
        BodyError::TooLarge => unreachable_url(url, "the answer is too long"),
        BodyError::Broken(error) => unreachable_url(url, &error.to_string()),
    })?;
    if head.status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body);
        return Err(QueryError::Status {
            url: url.to_owned(),
            status: head.status,
            body: shown(&text),
        });
    }
    spsp::Response::parse(&body).map_err(|error| QueryError::NotSpsp {
        url: url.to_owned(),
        content_type,
        error,
    })
}

/// The URL that a redirect leads to.
fn follow(from: &str, location: &str, permissions: Permissions) -> Result<String, &'static str> {
    let host = |uri: &Uri| uri.authority().map(Authority::to_string);
    let old: Uri = from.parse().map_err(|_| "not a URL")?;
    let target = match location.starts_with('/') && !location.starts_with("//") {
        true => {
            let scheme = old.scheme_str().unwrap_or("https");
            format!("{scheme}://{}{location}", host(&old).unwrap_or_default())
        }
        false => location.to_owned(),
    };
    let new: Uri = target.parse().map_err(|_| "not a URL")?;
    let (Some(scheme), Some(authority)) = (new.scheme(), new.authority()) else {
        return Err("not a whole URL");
    };
    if *scheme != Scheme::HTTPS && !(permissions.insecure && *scheme == Scheme::HTTP) {
        return Err("not https");
    }
    if authority.as_str().contains('@') {
        return Err("has a user");
    }
    if host(&old) != host(&new) && !permissions.other_hosts {
        return Err("another host");
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_where_they_may() {
        let strict = Permissions::default();
        let insecure = Permissions {
            insecure: true,
            ..strict
        };
        let other_hosts = Permissions {
            other_hosts: true,
            ..strict
        };
        for (location, permissions, outcome) in [
            ("/b", strict, Ok("https://h/b")),
            ("https://h/b", strict, Ok("https://h/b")),
            ("https://other/b", strict, Err("another host")),
            ("https://other/b", other_hosts, Ok("https://other/b")),
            ("//other/b", other_hosts, Err("not a whole URL")),
            ("http://h/b", strict, Err("not https")),
            ("http://h/b", other_hosts, Err("not https")),
            ("http://h/b", insecure, Ok("http://h/b")),
            ("https://u@h/b", other_hosts, Err("has a user")),
            ("b", strict, Err("not a whole URL")),
            ("", strict, Err("not a URL")),
        ] {
            let target = follow("https://h/a", location, permissions);
            assert_eq!(
                target.as_deref(),
                outcome.as_ref().map(|url| *url),
                "{location}"
            );
        }
    }
}
