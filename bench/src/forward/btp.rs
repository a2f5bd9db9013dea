//! BTP to BTP over three WebSockets: read until no frame is ready, patch the request ids, then
//! one flush of the other socket per turn.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::core::Core;
use crate::wire::{self, Btp};
use crate::ws::{self, Message};
use crate::{Error, Result};

/// Frames that are longer end the connection.
const FRAME_MAX: usize = 64 * 1024;

/// Frames that wait for one socket; the requests in flight are their bound.
#[derive(Default)]
struct Outbox {
    frames: Mutex<Vec<BytesMut>>,
    filled: Notify,
}

/// Forwards over tokio-tungstenite.
pub(super) async fn tungstenite(listener: TcpListener, to: SocketAddr, core: Core) -> Result<()> {
    let config = WebSocketConfig::default()
        .read_buffer_size(32 * 1024)
        .max_message_size(Some(FRAME_MAX))
        .max_frame_size(Some(FRAME_MAX));
    crate::fulfil::accept(listener, move |stream| {
        let core = core.clone();
        async move {
            use tokio_tungstenite::WebSocketStream;
            let incoming = ws::upgrade(stream).await?;
            let outgoing = ws::dial(&format!("ws://{to}/")).await?;
            join(
                WebSocketStream::from_raw_socket(incoming, Role::Server, Some(config)).await,
                WebSocketStream::from_raw_socket(outgoing, Role::Client, Some(config)).await,
                core,
            )
            .await
        }
    })
    .await
}

/// Forwards over tokio-websockets.
pub(super) async fn websockets(listener: TcpListener, to: SocketAddr, core: Core) -> Result<()> {
    crate::fulfil::accept(listener, move |stream| {
        let core = core.clone();
        async move {
            use tokio_websockets::{ClientBuilder, Config, Limits, ServerBuilder};
            let limits = Limits::default().max_payload_len(Some(FRAME_MAX));
            let config = Config::default().flush_threshold(FRAME_MAX);
            let incoming = ws::upgrade(stream).await?;
            let outgoing = ws::dial(&format!("ws://{to}/")).await?;
            join(
                ServerBuilder::new()
                    .limits(limits)
                    .config(config)
                    .serve(incoming),
                ClientBuilder::new()
                    .limits(limits)
                    .config(config)
                    .take_over(outgoing),
                core,
            )
            .await
        }
    })
    .await
}

/// Forwards over our own codec.
pub(super) async fn lean(listener: TcpListener, to: SocketAddr, core: Core) -> Result<()> {
    crate::fulfil::accept(listener, move |stream| {
        let core = core.clone();
        async move {
            let incoming = ws::accept(stream).await?;
            let outgoing = ws::framed(ws::dial(&format!("ws://{to}/")).await?, true);
            join(incoming, outgoing, core).await
        }
    })
    .await
}

/// One task per socket, as a node has it that knows many peers.
async fn join<S, M>(incoming: S, mut outgoing: S, core: Core) -> Result<()>
where
    S: Stream<Item = Result<M, S::Error>> + Sink<M> + Unpin + Send + 'static,
    S::Error: Into<Error> + Send,
    M: Message + Send + 'static,
{
    ws::authenticate(&mut outgoing, "token").await?;
    let (back, forth) = (Arc::new(Outbox::default()), Arc::new(Outbox::default()));
    let downstream = tokio::spawn(drive(outgoing, forth.clone(), back.clone(), core.clone()));
    let upstream = drive(incoming, back, forth, core).await;
    downstream.abort();
    upstream
}

/// Frames that come from `socket` go to `other`, frames in `own` go to `socket`.
async fn drive<S, M>(mut socket: S, own: Arc<Outbox>, other: Arc<Outbox>, core: Core) -> Result<()>
where
    S: Stream<Item = Result<M, S::Error>> + Sink<M> + Unpin,
    S::Error: Into<Error>,
    M: Message,
{
    let mut sending = Vec::new();
    loop {
        tokio::select! {
            first = socket.next() => {
                let mut next = first;
                loop {
                    let Some(message) = next else { return Ok(()) };
                    let Some(frame) = message.map_err(Into::into)?.into_bytes()? else { return Ok(()) };
                    take(frame, &own, &other, &core)?;
                    match socket.next().now_or_never() {
                        Some(ready) => next = ready,
                        None => break,
                    }
                }
                core.write()?;
                if !other.frames.lock().is_empty() {
                    other.filled.notify_one();
                }
            }
            () = own.filled.notified() => {
                std::mem::swap(&mut *own.frames.lock(), &mut sending);
                for frame in sending.drain(..) {
                    socket.feed(M::from_bytes(frame)).await.map_err(Into::into)?;
                }
                socket.flush().await.map_err(Into::into)?;
            }
        }
    }
}

/// One frame: its id is patched, its bytes are sent on as they are.
fn take(mut frame: BytesMut, own: &Outbox, other: &Outbox, core: &Core) -> Result<()> {
    let id = match wire::btp(&frame)? {
        Btp::Auth(id) => {
            own.frames.lock().push(wire::btp_accept(id));
            own.filled.notify_one();
            return Ok(());
        }
        Btp::Request(id, _) => core.prepare(id),
        Btp::Response(id, _) => core.fulfill(id)?,
    };
    frame[1..5].copy_from_slice(&id.to_be_bytes());
    other.frames.lock().push(frame);
    Ok(())
}

impl Message for tungstenite::Message {
    fn from_bytes(frame: BytesMut) -> Self {
        Self::Binary(frame.freeze())
    }

    fn into_bytes(self) -> Result<Option<BytesMut>> {
        match self {
            Self::Binary(frame) => Ok(Some(frame.into())),
            Self::Close(_) => Ok(None),
            Self::Text(_) | Self::Ping(_) | Self::Pong(_) | Self::Frame(_) => {
                Err("not a binary message".into())
            }
        }
    }
}

impl Message for tokio_websockets::Message {
    fn from_bytes(frame: BytesMut) -> Self {
        Self::binary(frame)
    }

    fn into_bytes(self) -> Result<Option<BytesMut>> {
        match (self.is_binary(), self.is_close()) {
            (true, _) => Ok(Some(self.into_payload().into())),
            (_, true) => Ok(None),
            _ => Err("not a binary message".into()),
        }
    }
}
