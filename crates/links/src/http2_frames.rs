//! HTTP/2 frames that belong to no request. h2 bounds resets, continuations and empty data; whatever
//! else needs an answer or a look (settings, pings, priorities, windows, unknown frames) it takes
//! without end. They are counted here, and a client that sends too many without asking for anything
//! is told to calm down and cut off (RFC 9113, section 10.5).

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most frames that belong to no request, between one request and the next.
const HTTP2_OTHER_FRAMES_MAX: u32 = 1_000;

/// What a client's side of a connection begins with (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// Length, type, flags and stream of a frame (RFC 9113, section 4.1).
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ENHANCE_YOUR_CALM: u8 = 11;

/// A server's connection that counts what comes.
pub(crate) struct Counted<S> {
    stream: S,
    others: Rc<Cell<u32>>,
    came: Frames,
    went: Frames,
    /// The highest stream that the client opened.
    last_stream: u32,
}

impl<S> Counted<S> {
    /// `others` counts the frames; whoever sees a request sets it to 0.
    pub(crate) fn new(stream: S, others: Rc<Cell<u32>>) -> Self {
        Self {
            stream,
            others,
            came: Frames::after(PREFACE_BYTES),
            went: Frames::after(0),
            last_stream: 0,
        }
    }
}

impl<S: AsyncWrite + Unpin> Counted<S> {
    /// Says why the connection ends, unless the client does not read or a frame is half sent.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) {
        if !self.went.is_between_frames() {
            return;
        }
        let mut frame = vec![0, 0, 8, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, ENHANCE_YOUR_CALM]);
        let _ = Pin::new(&mut self.stream).poll_write(cx, &frame);
        let _ = Pin::new(&mut self.stream).poll_flush(cx);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let mut others = this.others.get();
        let last_stream = &mut this.last_stream;
        this.came
            .each(&buffer.filled()[before..], |kind, stream| match kind {
                HEADERS => *last_stream = stream.max(*last_stream),
                DATA | CONTINUATION => {}
                _ => others = others.saturating_add(1),
            });
        this.others.set(others);
        if others > HTTP2_OTHER_FRAMES_MAX {
            this.say_goodbye(cx);
            let error = io::Error::other("too many HTTP/2 frames that belong to no request");
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.went.each(&bytes[..count], |_, _| ());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Where one side of a connection stands among its frames.
struct Frames {
    /// Bytes to pass over: the rest of a payload.
    skip: usize,
    head: [u8; HEAD_BYTES],
    head_len: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self {
            skip,
            head: [0; HEAD_BYTES],
            head_len: 0,
        }
    }

    /// Goes over the bytes that follow, and hands out type and stream of each frame whose head ends
    /// in them.
    fn each(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, u32)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == HEAD_BYTES {
                let [a, b, c, kind, _, stream @ ..] = self.head;
                self.head_len = 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                seen(kind, u32::from_be_bytes(stream) & 0x7fff_ffff);
            }
        }
    }

    fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.head_len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_come() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 3, HEADERS, 4, 0x80, 0, 0, 5, 4, 4, 4]);
        bytes.extend([0, 0, 1, DATA, 1, 0, 0, 0, 5, 9]);
        for piece_len in 1..=bytes.len() {
            let (mut frames, mut seen) = (Frames::after(PREFACE_BYTES), Vec::new());
            for piece in bytes.chunks(piece_len) {
                frames.each(piece, |kind, stream| seen.push((kind, stream)));
            }
            assert_eq!(seen, [(4, 0), (HEADERS, 5), (DATA, 5)], "{piece_len}");
            assert!(frames.is_between_frames());
            frames.each(&[0], |_, _| ());
            assert!(!frames.is_between_frames());
        }
    }
}
