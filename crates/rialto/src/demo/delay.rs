//! A stretch of wire with a latency: what goes in comes out later, in order, however much it is.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

use crate::failure::Failure;

/// Chunks under way at once, per direction.
const CHUNKS_MAX: usize = 1_024;
/// Bytes read at once.
const CHUNK_BYTES: usize = 16 * 1_024;
/// Connections at once.
const CONNECTIONS_MAX: usize = 256;

/// Passes TCP connections on to a target, and everything on them later. Ends when dropped.
#[derive(Debug)]
pub(super) struct DelayProxy {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl DelayProxy {
    /// Listens on a free port of the loopback interface.
    pub(super) async fn start(target: SocketAddr, delay: Duration) -> Result<Self, Failure> {
        let listen = async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            Ok::<_, io::Error>((listener.local_addr()?, listener))
        };
        let (address, listener) = listen
            .await
            .map_err(|error| Failure::failed(format!("cannot listen: {error}")))?;
        let accepting = tokio::spawn(accept(listener, target, delay));
        Ok(Self { address, accepting })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, delay: Duration) {
    // Aborts all connections when dropped.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        if let Ok((near, _)) = listener.accept().await {
            connections.spawn(connect(near, target, delay));
        }
    }
}

async fn connect(near: TcpStream, target: SocketAddr, delay: Duration) {
    // An error on either side closes both: that is all a wire can do.
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(
        pass(near_read, far_write, delay),
        pass(far_read, near_write, delay)
    );
}

async fn pass(from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin, delay: Duration) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::join!(read(from, sender, delay), write(to, receiver));
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    chunks: mpsc::Sender<(Instant, Bytes)>,
    delay: Duration,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        let Ok(1..) = from.read_buf(&mut buffer).await else {
            return;
        };
        let due = Instant::now() + delay;
        if chunks.send((due, buffer.split().freeze())).await.is_err() {
            return;
        }
    }
}

async fn write(mut to: impl AsyncWrite + Unpin, mut chunks: mpsc::Receiver<(Instant, Bytes)>) {
    while let Some((due, chunk)) = chunks.recv().await {
        sleep_until(due).await;
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
    // The other end may still be answering: only this direction is over.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Time stands still but for the waiting, so the figures are exact.
    #[tokio::test(start_paused = true)]
    async fn chunks_are_late_but_do_not_wait_for_each_other() {
        const DELAY: Duration = Duration::from_millis(100);
        const GAP: Duration = Duration::from_millis(10);
        let (mut near, near_end) = tokio::io::duplex(64);
        let (far_end, mut far) = tokio::io::duplex(64);
        tokio::spawn(pass(near_end, far_end, DELAY));

        let started = Instant::now();
        tokio::spawn(async move {
            for chunk in 0..20 {
                near.write_all(&[chunk]).await.unwrap();
                sleep(GAP).await;
            }
        });
        for chunk in 0..20 {
            assert_eq!(far.read_u8().await.unwrap(), chunk);
            assert_eq!(started.elapsed(), DELAY + GAP * u32::from(chunk));
        }
        assert!(far.read_u8().await.is_err(), "the end passes through too");
    }
}
