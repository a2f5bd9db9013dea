//! HTTP/1.1 without hyper: an estimate of what leaving it would bring.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use crate::Result;
use crate::core::Core;
use crate::http1::{self, Connection, RESPONSE_HEAD, Side};

type Pool = Arc<Mutex<Vec<Connection>>>;

/// Forwards each request over one of a pool of connections.
pub(super) async fn run(listener: TcpListener, to: SocketAddr, core: Core) -> Result<()> {
    let pool = Pool::default();
    let head: Arc<str> = http1::request_head(&to.to_string(), "/ilp", "token").into();
    crate::fulfil::accept(listener, move |stream| {
        serve(stream, to, pool.clone(), head.clone(), core.clone())
    })
    .await
}

async fn serve(
    stream: TcpStream,
    to: SocketAddr,
    pool: Pool,
    head: Arc<str>,
    core: Core,
) -> Result<()> {
    let mut incoming = Connection::new(stream)?;
    while let Some(prepare) = incoming.receive(Side::Server).await? {
        let id = core.prepare(0);
        let pooled = pool.lock().pop();
        let mut outgoing = match pooled {
            Some(connection) => connection,
            None => Connection::new(TcpStream::connect(to).await?)?,
        };
        outgoing.send(&head, &prepare).await?;
        let reply = outgoing
            .receive(Side::Client)
            .await?
            .ok_or("closed without an answer")?;
        pool.lock().push(outgoing);
        core.fulfill(id)?;
        core.written().await;
        incoming.send(RESPONSE_HEAD, &reply).await?;
    }
    Ok(())
}
