//! Where the connections of one thread read into.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// More than the largest packet with its head, so that one read takes all there is.
const SCRATCH_BYTES: usize = 64 * 1024;

/// One buffer for all: a connection keeps no more than what it has to wait with. Clones are the
/// same buffer.
#[derive(Clone)]
pub(crate) struct Scratch(Rc<RefCell<Box<[u8]>>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into())))
    }
}

impl Scratch {
    /// Appends what has come, at most `max` bytes, and says how many; 0 is the end of the stream.
    /// `max` is not 0.
    pub(crate) fn poll_read(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        assert!(max > 0, "0 bytes would be taken for the end");
        let scratch = &mut **self.0.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch[..max.min(SCRATCH_BYTES)]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        into.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }
}
