//! Outgoing connections: name, address, TLS.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rialto_connector::LinkFailure;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::PinMismatch;

/// How long name, TCP and TLS may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection: for the core and for people.
#[derive(Debug)]
pub struct ConnectError {
    /// For the core.
    pub failure: LinkFailure,
    /// For people.
    pub message: String,
}

/// An open connection, with or without TLS.
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to the first address of `host` that answers.
///
/// # Errors
/// Name, address or TLS: the error says which.
pub async fn connect(
    host: &str,
    port: u16,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Stream, ConnectError> {
    timeout(CONNECT_TIMEOUT, async {
        let stream = connect_tcp(host, port).await?;
        match tls {
            None => Ok(Stream::Plain(stream)),
            Some(config) => connect_tls(host, stream, Arc::clone(config)).await,
        }
    })
    .await
    .unwrap_or_else(|_| {
        let seconds = CONNECT_TIMEOUT.as_secs();
        let message = format!("no connection within {seconds} s");
        Err(ConnectError {
            failure: LinkFailure::Connect,
            message,
        })
    })
}

async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let failed = |failure| {
        move |error: io::Error| ConnectError {
            failure,
            message: error.to_string(),
        }
    };
    let addresses = lookup_host((host, port))
        .await
        .map_err(failed(LinkFailure::Dns))?;
    let mut last = ConnectError {
        failure: LinkFailure::Dns,
        message: "the name has no address".to_owned(),
    };
    for address in addresses {
        let connected = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        match connected.await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = failed(LinkFailure::Connect)(error),
        }
    }
    Err(last)
}

async fn connect_tls(
    host: &str,
    stream: TcpStream,
    config: Arc<ClientConfig>,
) -> Result<Stream, ConnectError> {
    let failed = |message: String| ConnectError {
        failure: LinkFailure::Tls,
        message,
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    let stream = stream.map_err(|error| {
        let mismatch = PinMismatch::of(&error).map(PinMismatch::to_string);
        failed(mismatch.unwrap_or_else(|| error.to_string()))
    })?;
    Ok(Stream::Tls(Box::new(stream)))
}

impl Stream {
    /// Whether HTTP/2 was agreed on.
    pub fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(crate::tls::ALPN_HTTP2),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

/// Not vectored: `h2` would make a write of its own of each body of 256 bytes or more, and so of each
/// packet. What is not vectored it gathers, and writes many packets at once.
impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_gathered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = connect("127.0.0.1", port, None).await.unwrap();
        assert!(!stream.is_write_vectored());
    }
}
