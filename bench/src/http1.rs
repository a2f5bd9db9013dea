//! The leanest HTTP/1.1 that still is HTTP/1.1: heads by `httparse`, bodies by `Content-Length`,
//! connections kept alive, no pipelining, no chunks.
//!
//! It serves the load client and the fulfilling peer, and stands for what leaving hyper would
//! bring (see `forward/lean.rs`).

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

const HEADERS_MAX: usize = 32;
/// A head and a body that are longer end the connection.
const MESSAGE_MAX: usize = 64 * 1024;

/// One kept-alive connection, of either side.
pub(crate) struct Connection {
    stream: TcpStream,
    read: BytesMut,
    write: Vec<u8>,
}

/// Which of the two kinds of message a side reads.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: BytesMut::with_capacity(8 * 1024),
            write: Vec::with_capacity(1024),
        })
    }

    /// The body of the next message, or `None` at the end of the connection. The
    /// status is not looked at: a body that is no Fulfill counts as refused.
    pub(crate) async fn receive(&mut self, side: Side) -> Result<Option<BytesMut>> {
        loop {
            if let Some((head, body)) = parse(&self.read, side)? {
                if self.read.len() >= head + body {
                    self.read.advance(head);
                    return Ok(Some(self.read.split_to(body)));
                }
                if head + body > MESSAGE_MAX {
                    return Err("message too large".into());
                }
            } else if self.read.len() > MESSAGE_MAX {
                return Err("head too large".into());
            }
            self.read.reserve(4 * 1024);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return match self.read.is_empty() {
                    true => Ok(None),
                    false => Err("connection closed inside a message".into()),
                };
            }
        }
    }

    /// Sends one message: `head` without its `Content-Length`, which is added, and `body`.
    pub(crate) async fn send(&mut self, head: &str, body: &[u8]) -> Result<()> {
        use std::io::Write;
        self.write.clear();
        write!(self.write, "{head}Content-Length: {}\r\n\r\n", body.len())?;
        self.write.extend_from_slice(body);
        self.stream.write_all(&self.write).await?;
        Ok(())
    }
}

/// The start of a request for one packet.
pub(crate) fn request_head(host: &str, path: &str, token: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/octet-stream\r\nAccept: application/octet-stream\r\n"
    )
}

/// The start of an answer.
pub(crate) const RESPONSE_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n";

/// Lengths of head and body once the head is complete.
fn parse(read: &[u8], side: Side) -> Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let (status, headers) = match side {
        Side::Server => {
            let mut request = httparse::Request::new(&mut headers);
            (request.parse(read)?, request.headers)
        }
        Side::Client => {
            let mut response = httparse::Response::new(&mut headers);
            let status = response.parse(read)?;
            (status, response.headers)
        }
    };
    let httparse::Status::Complete(head) = status else {
        return Ok(None);
    };
    let length = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .ok_or("no Content-Length")?;
    Ok(Some((head, std::str::from_utf8(length.value)?.parse()?)))
}
