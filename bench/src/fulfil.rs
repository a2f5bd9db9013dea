//! The peer that fulfils: it takes the preimage out of the first 32 bytes of the data.

use std::net::SocketAddr;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http1::{Connection, RESPONSE_HEAD, Side};
use crate::wire::{self, Btp};
use crate::ws::{self, Socket};
use crate::{Lifetime, Listening, Result};

/// Options of `rialto-bench fulfil`.
#[derive(clap::Args)]
#[group(id = "links", multiple = true)]
pub(crate) struct Fulfil {
    /// Serve ILP over HTTP here
    #[arg(long, value_name = "ADDR")]
    http_listen: Option<SocketAddr>,
    /// Serve BTP here
    #[arg(long, value_name = "ADDR")]
    btp_listen: Option<SocketAddr>,
    /// Connect by BTP to ws://HOST:PORT/PATH and fulfil what comes from there
    #[arg(long, value_name = "URL")]
    btp_connect: Option<String>,
    /// What authenticates us where we connect
    #[arg(long, default_value = "")]
    token: String,
    #[command(flatten)]
    lifetime: Lifetime,
}

impl Fulfil {
    pub(crate) async fn run(&self) -> Result<()> {
        let http = listen(self.http_listen).await?;
        let btp = listen(self.btp_listen).await?;
        let socket = match &self.btp_connect {
            Some(url) => Some(ws::connect(url, &self.token).await?),
            None => None,
        };
        if http.is_none() && btp.is_none() && socket.is_none() {
            return Err("nothing to do: give --http-listen, --btp-listen or --btp-connect".into());
        }
        let address = |listener: &Option<TcpListener>| {
            listener.as_ref().map(TcpListener::local_addr).transpose()
        };
        Listening {
            http: address(&http)?,
            btp: address(&btp)?,
        }
        .announce()?;

        if let Some(listener) = http {
            tokio::spawn(accept(listener, serve_http));
        }
        if let Some(listener) = btp {
            tokio::spawn(accept(listener, |stream| async {
                over_btp(ws::accept(stream).await?).await
            }));
        }
        if let Some(socket) = socket {
            tokio::select! {
                done = over_btp(socket) => return done,
                over = self.lifetime.over() => return over,
            }
        }
        self.lifetime.over().await
    }
}

async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    Ok(match address {
        Some(address) => Some(TcpListener::bind(address).await?),
        None => None,
    })
}

/// Serves each connection in a task of its own; what ends one badly is told and ends only that.
pub(crate) async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    loop {
        let connection = serve(listener.accept().await?.0);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("connection ended: {error}");
            }
        });
    }
}

/// Fulfils over one connection of ILP over HTTP.
pub(crate) async fn serve_http(stream: TcpStream) -> Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(prepare) = connection.receive(Side::Server).await? {
        connection
            .send(RESPONSE_HEAD, &wire::fulfill(&prepare)?)
            .await?;
    }
    Ok(())
}

async fn over_btp(mut socket: Socket) -> Result<()> {
    while let Some(mut frame) = socket.next().await.transpose()? {
        loop {
            let answer = match wire::btp(&frame)? {
                Btp::Auth(id) => wire::btp_accept(id),
                Btp::Request(id, prepare) => wire::btp_response(id, &wire::fulfill(prepare)?),
                Btp::Response(..) => return Err("an answer to no request".into()),
            };
            socket.feed(answer).await?;
            match socket.next().now_or_never() {
                Some(Some(next)) => frame = next?,
                Some(None) => return Ok(()),
                None => break,
            }
        }
        socket.flush().await?;
    }
    Ok(())
}
