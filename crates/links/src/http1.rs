//! HTTP/1.1 as far as packets need it: heads of requests and of responses, and chunked bodies.
//!
//! Pure: bytes in, values out. Syntax is `httparse`'s; what is added is the framing of RFC 9112,
//! read strictly wherever two readers could come to different ends of one request.

use std::{mem::MaybeUninit, str};

use httparse::{EMPTY_HEADER, Error, ParserConfig, Status};
use thiserror::Error;

/// Most bytes of the head of a message.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Most headers of a message.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of the line that begins a chunk; what is not its size is ignored.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestHead<'a> {
    /// One that a packet may come with.
    Narrow(Request<'a>),
    /// A sound one that asks for more: another method or version, a query, a transfer coding,
    /// `Expect` or `Upgrade`.
    Wide,
}

/// A `POST` whose body is as long as it says.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Bytes up to the body.
    pub head_len: usize,
    /// Bytes of the body.
    pub body_len: u64,
    /// Path, without a query.
    pub path: &'a str,
    /// Value of `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// Value of `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// The client sends nothing after it.
    pub close: bool,
}

/// Why the head of a request is refused. All but [`RequestError::TooLarge`] are mistakes that a
/// reader before us may have read in another way (request smuggling), so nothing that follows them
/// on the connection can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// More than [`HEAD_BYTES_MAX`] bytes or [`HEADERS_MAX`] headers.
    #[error("the head of the request is too large")]
    TooLarge,
    /// Not HTTP/1.
    #[error("the head of the request is not HTTP/1.1")]
    Syntax,
    /// RFC 9112, section 2.2, allows to take it for the end of a line; not all do.
    #[error("a line of the head ends in a bare line feed")]
    BareLineFeed,
    /// RFC 9112, section 3.2.
    #[error("there is not exactly one Host header")]
    Host,
    /// RFC 9112, section 6.3.
    #[error("Content-Length is not one decimal number")]
    Length,
    /// RFC 9112, section 6.1.
    #[error("there are both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Two of them could be two identities.
    #[error("there is more than one Authorization header")]
    Authorization,
}

/// Reads the head of a request; `None` if there is more to come.
///
/// # Errors
/// See [`RequestError`].
pub fn request(bytes: &[u8]) -> Result<Option<RequestHead<'_>>, RequestError> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let head_len = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(len)) if len <= HEAD_BYTES_MAX => len,
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(Status::Complete(_) | Status::Partial) | Err(Error::TooManyHeaders) => {
            return Err(RequestError::TooLarge);
        }
        Err(_) => return Err(RequestError::Syntax),
    };
    if has_bare_line_feed(&bytes[..head_len]) {
        return Err(RequestError::BareLineFeed);
    }

    let (mut hosts, mut authorizations) = (0, 0);
    let (mut length, mut coding, mut wide, mut close) = (None, false, false, false);
    let (mut authorization, mut content_type) = (None, None);
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // By length first: most headers are none of these.
        match header.name.len() {
            4 if is("host") => hosts += 1,
            6 if is("expect") => wide = true,
            7 if is("upgrade") => wide = true,
            10 if is("connection") => close |= has_token(header.value, "close"),
            12 if is("content-type") => content_type = content_type.or(Some(header.value)),
            // The answer is a request of its own.
            12 if is("callback-url") => wide = true,
            13 if is("authorization") => {
                authorizations += 1;
                authorization = Some(header.value);
            }
            14 if is("content-length") => {
                let number = decimal(header.value).ok_or(RequestError::Length)?;
                if length.replace(number).is_some() {
                    return Err(RequestError::Length);
                }
            }
            17 if is("transfer-encoding") => coding = true,
            _ => {}
        }
    }
    let is_http11 = request.version == Some(1);
    if hosts > 1 || is_http11 && hosts == 0 {
        return Err(RequestError::Host);
    }
    if authorizations > 1 {
        return Err(RequestError::Authorization);
    }
    if coding && length.is_some() {
        return Err(RequestError::LengthAndCoding);
    }
    let path = request.path.unwrap_or_default();
    if wide || coding || !is_http11 || request.method != Some("POST") || path.contains(['?', '#']) {
        return Ok(Some(RequestHead::Wide));
    }
    Ok(Some(RequestHead::Narrow(Request {
        head_len,
        body_len: length.unwrap_or(0),
        path,
        authorization,
        content_type,
        close,
    })))
}

/// The head of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// Bytes up to the body.
    pub head_len: usize,
    /// Three digits.
    pub status: u16,
    /// Value of `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// Where the body ends.
    pub body: BodyEnd,
    /// The server reads no more requests.
    pub close: bool,
}

/// Where the body of a response ends (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunks,
    /// With the connection.
    Close,
}

/// Not a message that can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the answer is not HTTP/1.1")]
pub struct Malformed;

/// Reads the head of the response to a `POST`; `None` if there is more to come.
///
/// # Errors
/// [`Malformed`], also for two lengths, a length beside a coding, and codings other than `chunked`.
pub fn response(bytes: &[u8]) -> Result<Option<Response<'_>>, Malformed> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut headers,
    );
    let head_len = match parsed {
        Ok(Status::Complete(len)) if len <= HEAD_BYTES_MAX => len,
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(Status::Complete(_) | Status::Partial) | Err(_) => return Err(Malformed),
    };
    let (mut content_type, mut length, mut coding) = (None, None, false);
    let mut close = response.version != Some(1);
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            10 if is("connection") => close |= has_token(header.value, "close"),
            12 if is("content-type") => content_type = content_type.or(Some(header.value)),
            14 if is("content-length") => {
                let number = decimal(header.value).ok_or(Malformed)?;
                if length.replace(number).is_some() {
                    return Err(Malformed);
                }
            }
            17 if is("transfer-encoding") => {
                if coding || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                coding = true;
            }
            _ => {}
        }
    }
    let status = response.code.ok_or(Malformed)?;
    let body = match (status, length, coding) {
        (100..=199 | 204 | 304, _, _) => BodyEnd::Length(0),
        (_, Some(_), true) => return Err(Malformed),
        (_, Some(length), false) => BodyEnd::Length(length),
        (_, None, true) => BodyEnd::Chunks,
        (_, None, false) => BodyEnd::Close,
    };
    close |= body == BodyEnd::Close;
    Ok(Some(Response {
        head_len,
        status,
        content_type,
        body,
        close,
    }))
}

/// A chunked body, as far as it has come (RFC 9112, section 7.1).
#[derive(Debug, Default)]
pub struct Chunks {
    /// Of the bytes that came, those that were understood.
    read_len: usize,
    /// The last chunk was seen; its trailers may be to come.
    ended: bool,
    body: Vec<u8>,
}

/// What has come of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunksState {
    /// There is more to come.
    Partial,
    /// All of it, and how many bytes it took.
    Complete {
        /// What the chunks hold.
        body: Vec<u8>,
        /// Bytes with sizes and trailers.
        len: usize,
    },
    /// More than was allowed.
    TooLarge,
}

impl Chunks {
    /// Reads on. `bytes` is all that came of the body, from its first byte; `max` bounds what the
    /// chunks hold together.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(&mut self, bytes: &[u8], max: usize) -> Result<ChunksState, Malformed> {
        while !self.ended {
            let rest = &bytes[self.read_len..];
            // httparse takes no digits for 0.
            if rest.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
                return Err(Malformed);
            }
            let (line_len, size) = match httparse::parse_chunk_size(rest) {
                Ok(Status::Complete(read)) if read.0 <= CHUNK_LINE_BYTES_MAX => read,
                Ok(Status::Partial) if rest.len() < CHUNK_LINE_BYTES_MAX => {
                    return Ok(ChunksState::Partial);
                }
                Ok(Status::Complete(_) | Status::Partial) | Err(_) => return Err(Malformed),
            };
            if size == 0 {
                self.read_len += line_len;
                self.ended = true;
                break;
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > max - self.body.len() {
                return Ok(ChunksState::TooLarge);
            }
            let Some((data, after)) = rest[line_len..].split_at_checked(size) else {
                return Ok(ChunksState::Partial);
            };
            match after {
                [b'\r', b'\n', ..] => {}
                [] | [b'\r'] => return Ok(ChunksState::Partial),
                _ => return Err(Malformed),
            }
            self.body.extend_from_slice(data);
            self.read_len += line_len + size + 2;
        }
        let rest = &bytes[self.read_len..];
        let mut trailers = [EMPTY_HEADER; HEADERS_MAX];
        match httparse::parse_headers(rest, &mut trailers) {
            Ok(Status::Complete((len, _))) => Ok(ChunksState::Complete {
                body: std::mem::take(&mut self.body),
                len: self.read_len + len,
            }),
            Ok(Status::Partial) if rest.len() < HEAD_BYTES_MAX => Ok(ChunksState::Partial),
            Ok(Status::Partial) | Err(_) => Err(Malformed),
        }
    }
}

/// `httparse` ends a line at a line feed, with or without the carriage return.
fn has_bare_line_feed(head: &[u8]) -> bool {
    // No early way out, so that the compiler can take many bytes at once.
    let pairs = head.iter().zip(&head[1..]);
    pairs.fold(head[0] == b'\n', |found, (before, byte)| {
        found | (*byte == b'\n' && *before != b'\r')
    })
}

/// Whether a list has the token (RFC 9110, section 5.6.1).
fn has_token(list: &[u8], token: &str) -> bool {
    let mut tokens = list.split(|byte| *byte == b',');
    tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Digits and nothing else.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    // No digits at all are no number for `parse` either.
    digits
        .then(|| str::from_utf8(value).ok()?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(head: &str) -> Request<'_> {
        match request(head.as_bytes()) {
            Ok(Some(RequestHead::Narrow(request))) => request,
            other => panic!("{head}: {other:?}"),
        }
    }

    #[test]
    fn requests_with_packets() {
        let head = "POST /accounts/alice/ilp HTTP/1.1\r\nHOST: h\r\nauthorization: Bearer a\r\n\
                    Content-type:application/octet-stream\r\nX: y\r\nContent-Length: 007 \r\n\r\n";
        let expected = Request {
            head_len: head.len(),
            body_len: 7,
            path: "/accounts/alice/ilp",
            authorization: Some(b"Bearer a"),
            content_type: Some(b"application/octet-stream"),
            close: false,
        };
        assert_eq!(narrow(&format!("{head}body")), expected);
        for len in 0..head.len() {
            assert_eq!(request(&head.as_bytes()[..len]), Ok(None), "{len}");
        }
        // RFC 9112, section 2.2: empty lines that an old client put behind a body.
        assert_eq!(narrow(&format!("\r\n\r\n{head}")).body_len, 7);
        for (connection, close) in [
            ("close", true),
            ("keep-alive", false),
            ("Keep-Alive, CLOSE ", true),
            ("closed", false),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\n\r\n");
            assert_eq!(narrow(&head).close, close, "{connection}");
        }
    }

    #[test]
    fn requests_for_more() {
        for (line, headers) in [
            ("GET /ilp HTTP/1.1", ""),
            ("POST /ilp HTTP/1.0", ""),
            ("POST /ilp?a HTTP/1.1", ""),
            ("POST /ilp#a HTTP/1.1", ""),
            ("POST /ilp HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
            ("POST /ilp HTTP/1.1", "Expect: 100-continue\r\n"),
            ("POST /ilp HTTP/1.1", "Upgrade: h2c\r\n"),
        ] {
            let head = format!("{line}\r\nHost: h\r\n{headers}\r\n");
            assert_eq!(
                request(head.as_bytes()),
                Ok(Some(RequestHead::Wide)),
                "{head}"
            );
        }
    }

    #[test]
    fn requests_that_are_refused() {
        use RequestError::{
            Authorization, BareLineFeed, Host, Length, LengthAndCoding, Syntax, TooLarge,
        };
        for (headers, error) in [
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Length),
            ("Content-Length: 1, 1\r\n", Length),
            ("Content-Length: +1\r\n", Length),
            ("Content-Length: 0x1\r\n", Length),
            ("Content-Length:\r\n", Length),
            ("Content-Length: 18446744073709551616\r\n", Length),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                LengthAndCoding,
            ),
            (
                "Transfer-Encoding: x\r\nContent-Length: 1\r\n",
                LengthAndCoding,
            ),
            ("X: y\r\n z\r\n", Syntax),
            ("X : y\r\n", Syntax),
            ("X: y\rZ: z\r\n", Syntax),
            ("X: y\0\r\n", Syntax),
            ("X\r\n", Syntax),
            (": y\r\n", Syntax),
            ("X: y\nZ: z\r\n", BareLineFeed),
            ("X: y\r\n\n", BareLineFeed),
            ("Host: i\r\n", Host),
            ("Authorization: a\r\nAuthorization: a\r\n", Authorization),
        ] {
            let head = format!("POST /ilp HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            assert_eq!(request(head.as_bytes()), Err(error), "{head:?}");
        }
        for (head, error) in [
            ("POST /ilp HTTP/1.1\r\n\r\n", Host),
            ("\nPOST /ilp HTTP/1.1\r\nHost: h\r\n\r\n", BareLineFeed),
            ("POST /ilp\r\n\r\n", Syntax),
            ("POST  /ilp HTTP/1.1\r\nHost: h\r\n\r\n", Syntax),
            ("POST /ilp HTTP/1.2\r\nHost: h\r\n\r\n", Syntax),
            ("\x16\x03\x01", Syntax),
        ] {
            assert_eq!(request(head.as_bytes()), Err(error), "{head:?}");
        }
        let many = "X: y\r\n".repeat(HEADERS_MAX);
        let long = format!("X: {}\r\n", "y".repeat(HEAD_BYTES_MAX));
        for headers in [many, long] {
            let head = format!("POST /ilp HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            assert_eq!(request(head.as_bytes()), Err(TooLarge));
        }
        let endless = format!("POST /{}", "x".repeat(HEAD_BYTES_MAX - 7));
        assert_eq!(request(endless.as_bytes()), Ok(None));
        assert_eq!(request(format!("{endless}x").as_bytes()), Err(TooLarge));
    }

    #[test]
    fn responses() {
        use BodyEnd::{Chunks, Close, Length};
        for (head, body, close) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n",
                Some(Length(7)),
                false,
            ),
            (
                "HTTP/1.1 200\r\ncontent-length:7\r\n",
                Some(Length(7)),
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 7\r\n",
                Some(Length(7)),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n",
                Some(Length(7)),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n",
                Some(Chunks),
                false,
            ),
            ("HTTP/1.1 200 OK\r\n", Some(Close), true),
            ("HTTP/1.1 100 Continue\r\n", Some(Length(0)), false),
            ("HTTP/1.1 204 Nothing\r\n", Some(Length(0)), false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7\r\n",
                None,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n",
                None,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
                None,
                false,
            ),
            ("HTTP/1.1 2000 OK\r\n", None, false),
            ("HTTP/2 200 OK\r\n", None, false),
            ("220 mail.example ESMTP\r\n", None, false),
        ] {
            let head = format!("{head}\r\n");
            let read = response(head.as_bytes());
            let found = read.map(|head| head.map(|head| (head.body, head.close)));
            let expected = body.map(|body| Some((body, close))).ok_or(Malformed);
            assert_eq!(found, expected, "{head}");
        }
        let endless = vec![b'x'; HEAD_BYTES_MAX];
        assert_eq!(response(&endless), Err(Malformed));
    }

    #[test]
    fn chunked_bodies() {
        let body = |text: &str| (text.as_bytes().to_vec(), text.len());
        for (bytes, expected) in [
            ("0\r\n\r\n", Ok(Some(body("")))),
            ("5\r\nhello\r\n0\r\n\r\n", Ok(Some(body("hello")))),
            (
                "a;x=\"y\"\r\n0123456789\r\n1\r\na\r\n0\r\n\r\n",
                Ok(Some(body("0123456789a"))),
            ),
            ("1\r\na\r\n0\r\nX: y\r\n\r\n", Ok(Some(body("a")))),
            ("b\r\n0123456789a\r\n1\r\na\r\n", Ok(None)),
            ("ffffffffffffffff\r\n", Ok(None)),
            ("\r\n\r\n", Err(Malformed)),
            ("+1\r\na\r\n", Err(Malformed)),
            ("1\r\nab\r\n", Err(Malformed)),
            ("1\r\na\n0\r\n\r\n", Err(Malformed)),
            ("10000000000000000\r\n", Err(Malformed)),
            ("0\r\nX y\r\n\r\n", Err(Malformed)),
        ] {
            let mut found = Ok(ChunksState::Partial);
            let mut chunks = Chunks::default();
            // As it may come: byte by byte.
            for len in 0..=bytes.len() {
                assert_eq!(found, Ok(ChunksState::Partial), "{bytes:?} {len}");
                found = chunks.read(&bytes.as_bytes()[..len], 11);
                if found != Ok(ChunksState::Partial) {
                    break;
                }
            }
            let expected = expected.map(|complete| match complete {
                Some((body, _)) => ChunksState::Complete {
                    body,
                    len: bytes.len(),
                },
                None => ChunksState::TooLarge,
            });
            assert_eq!(found, expected, "{bytes:?}");
        }
        let endless = format!("1;{}", "x".repeat(CHUNK_LINE_BYTES_MAX));
        assert_eq!(
            Chunks::default().read(endless.as_bytes(), 9),
            Err(Malformed)
        );
    }
}
