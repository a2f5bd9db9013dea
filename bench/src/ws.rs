//! The leanest WebSocket for one kind of message: whole binary frames, no extensions; pings are passed
//! over.
//!
//! It serves the load client and the fulfilling peer, and stands for what leaving the WebSocket
//! crates would bring.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder, Framed};

use crate::wire::{self, Btp};
use crate::{Error, Result};

/// Frames that are longer end the connection.
const FRAME_MAX: usize = 64 * 1024;
/// Holds all that 16 packets of 300 bytes take, so that one read empties the socket.
const READ_BUFFER: usize = 32 * 1024;
const HEAD_MAX: usize = 8 * 1024;
/// RFC 6455, section 1.3.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const FINAL_BINARY: u8 = 0x82;
const FINAL_CLOSE: u8 = 0x88;
const FINAL_PING: u8 = 0x89;
const FINAL_PONG: u8 = 0x8a;

/// A WebSocket whose items are whole binary messages.
pub(crate) type Socket = Framed<TcpStream, Codec>;

/// Connects to `ws://host:port/path`, upgrades, and authenticates by BTP.
pub(crate) async fn connect(url: &str, token: &str) -> Result<Socket> {
    let mut socket = framed(dial(url).await?, true);
    authenticate(&mut socket, token).await?;
    Ok(socket)
}

/// Says goodbye as a client.
pub(crate) async fn close(mut socket: Socket) -> Result<()> {
    Ok(socket
        .get_mut()
        .write_all(&[FINAL_CLOSE, 0x80, 0, 0, 0, 0])
        .await?)
}

/// Upgrades an accepted connection.
pub(crate) async fn accept(stream: TcpStream) -> Result<Socket> {
    Ok(framed(upgrade(stream).await?, false))
}

/// The client's half of the BTP authentication, over any WebSocket.
pub(crate) async fn authenticate<S, M>(socket: &mut S, token: &str) -> Result<()>
where
    S: Stream<Item = Result<M, S::Error>> + Sink<M> + Unpin,
    S::Error: Into<Error>,
    M: Message,
{
    socket
        .send(M::from_bytes(wire::btp_auth(0, token)))
        .await
        .map_err(Into::into)?;
    let answer = socket
        .next()
        .await
        .ok_or("closed before the authentication was answered")?;
    let answer = answer
        .map_err(Into::into)?
        .into_bytes()?
        .ok_or("BTP authentication refused")?;
    match wire::btp(&answer)? {
        Btp::Response(0, []) => Ok(()),
        Btp::Request(..) | Btp::Response(..) | Btp::Auth(_) => {
            Err("BTP authentication refused".into())
        }
    }
}

/// A WebSocket crate's message, as far as BTP goes.
pub(crate) trait Message {
    fn from_bytes(frame: BytesMut) -> Self;
    /// The frame of a binary message, `None` for a close; an error for anything else.
    fn into_bytes(self) -> Result<Option<BytesMut>>;
}

impl Message for BytesMut {
    fn from_bytes(frame: BytesMut) -> Self {
        frame
    }

    fn into_bytes(self) -> Result<Option<BytesMut>> {
        Ok(Some(self))
    }
}

/// The client's half of the upgrade.
pub(crate) async fn dial(url: &str) -> Result<TcpStream> {
    let (host, path) = crate::split_url(url, "ws://")?;
    let mut stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(&mut stream).await?;
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err(format!("no upgrade: {}", head.escape_ascii()).into());
    }
    Ok(stream)
}

/// The server's half of the upgrade.
pub(crate) async fn upgrade(mut stream: TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    let head = read_head(&mut stream).await?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(&head)?;
    let key = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"))
        .ok_or("no Sec-WebSocket-Key")?;
    let hash = digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        &[key.value, ACCEPT_GUID.as_bytes()].concat(),
    );
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        STANDARD.encode(hash)
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream)
}

/// Byte by byte to the blank line, so that nothing of the first frame is taken along.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_MAX {
            return Err("head too large".into());
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

/// Wraps an upgraded connection.
pub(crate) fn framed(stream: TcpStream, client: bool) -> Socket {
    let mut socket = Framed::with_capacity(stream, Codec { client }, READ_BUFFER);
    socket.set_backpressure_boundary(FRAME_MAX);
    socket
}

/// Frames of one side.
pub(crate) struct Codec {
    client: bool,
}

impl Encoder<BytesMut> for Codec {
    type Error = Error;

    fn encode(&mut self, message: BytesMut, out: &mut BytesMut) -> Result<()> {
        let mask = if self.client { 0x80 } else { 0 };
        out.reserve(message.len() + 14);
        out.put_u8(FINAL_BINARY);
        match message.len() {
            length @ 0..126 => out.put_u8(mask | u8::try_from(length)?),
            length @ 126..65_536 => {
                out.put_u8(mask | 126);
                out.put_u16(u16::try_from(length)?);
            }
            length => {
                out.put_u8(mask | 127);
                out.put_u64(u64::try_from(length)?);
            }
        }
        if self.client {
            // The zero key leaves the bytes as they are: cheap for us, and no less work for
            // the receiver, who has to apply whatever key is there.
            out.put_u32(0);
        }
        out.extend_from_slice(&message);
        Ok(())
    }
}

impl Decoder for Codec {
    type Item = BytesMut;
    type Error = Error;

    fn decode(&mut self, read: &mut BytesMut) -> Result<Option<BytesMut>> {
        let mut at = &read[..];
        let (Ok(first), Ok(second)) = (at.try_get_u8(), at.try_get_u8()) else {
            return Ok(None);
        };
        if first == FINAL_CLOSE {
            // Nothing but the end of the connection follows.
            read.clear();
            return Ok(None);
        }
        if !matches!(first, FINAL_BINARY | FINAL_PING | FINAL_PONG) {
            return Err(format!("not a whole binary frame: {first:#x}").into());
        }
        let length = match second & 0x7f {
            126 => at.try_get_u16().map(u64::from),
            127 => at.try_get_u64(),
            short => Ok(u64::from(short)),
        };
        let mask = match second & 0x80 {
            0 => Ok(0),
            _ => at.try_get_u32_ne(),
        };
        let (Ok(length), Ok(mask)) = (length, mask) else {
            return Ok(None);
        };
        let length = usize::try_from(length)?;
        if length > FRAME_MAX {
            return Err("frame too large".into());
        }
        let head = read.len() - at.len();
        if at.len() < length {
            read.reserve(head + length);
            return Ok(None);
        }
        read.advance(head);
        if first != FINAL_BINARY {
            // Signs of life between two rounds. Traffic answers them soon enough.
            read.advance(length);
            return self.decode(read);
        }
        let mut message = read.split_to(length);
        if mask != 0 {
            unmask(&mut message, mask.to_ne_bytes());
        }
        Ok(Some(message))
    }
}

fn unmask(message: &mut [u8], mask: [u8; 4]) {
    let mut chunks = message.chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}
