//! HTTP/1.1 by hyper, with two clients.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use crate::Result;
use crate::core::Core;

type Body = Full<Bytes>;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Forwards over a stack of connections: the warmest is used first, none is shared.
pub(super) async fn pool(listener: TcpListener, to: SocketAddr, core: Core) -> Result<()> {
    let pool: Arc<Mutex<Vec<SendRequest<Body>>>> = Arc::default();
    serve(listener, to, core, "/ilp".to_owned(), move |request| {
        let pool = pool.clone();
        async move {
            let pooled = pool.lock().pop();
            let mut sender = match pooled {
                Some(sender) => sender,
                None => connect(to).await?,
            };
            sender.ready().await?;
            let body = sender
                .send_request(request)
                .await?
                .into_body()
                .collect()
                .await?
                .to_bytes();
            pool.lock().push(sender);
            Ok(body)
        }
    })
    .await
}

/// Forwards by the client of hyper-util.
pub(super) async fn util(listener: TcpListener, to: SocketAddr, core: Core) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector);
    serve(
        listener,
        to,
        core,
        format!("http://{to}/ilp"),
        move |request| {
            let client = client.clone();
            async move {
                Ok(client
                    .request(request)
                    .await?
                    .into_body()
                    .collect()
                    .await?
                    .to_bytes())
            }
        },
    )
    .await
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Body>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .writev(false)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn serve<F>(
    listener: TcpListener,
    to: SocketAddr,
    core: Core,
    uri: String,
    send: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
) -> Result<()>
where
    F: Future<Output = Result<Bytes>> + Send + 'static,
{
    let uri: Uri = uri.parse()?;
    let host = HeaderValue::try_from(to.to_string())?;
    let outgoing = Outgoing { uri, host, send };
    crate::fulfil::accept(listener, move |stream| {
        let (outgoing, core) = (outgoing.clone(), core.clone());
        let service = service_fn(move |incoming| forward(incoming, outgoing.clone(), core.clone()));
        async move {
            stream.set_nodelay(true)?;
            hyper::server::conn::http1::Builder::new()
                .writev(false)
                .auto_date_header(false)
                .serve_connection(TokioIo::new(stream), service)
                .await?;
            Ok(())
        }
    })
    .await
}

/// Where packets go, and by which client.
#[derive(Clone)]
struct Outgoing<S> {
    uri: Uri,
    host: HeaderValue,
    send: S,
}

async fn forward<F>(
    incoming: Request<Incoming>,
    outgoing: Outgoing<impl Fn(Request<Body>) -> F>,
    core: Core,
) -> Result<Response<Body>>
where
    F: Future<Output = Result<Bytes>> + Send + 'static,
{
    let prepare = incoming.into_body().collect().await?.to_bytes();
    let id = core.prepare(0);
    let mut request = Request::new(Body::new(prepare));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = outgoing.uri;
    let headers = request.headers_mut();
    headers.insert(HOST, outgoing.host);
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer token"));
    headers.insert(CONTENT_TYPE, OCTETS);
    let reply = (outgoing.send)(request).await?;
    core.fulfill(id)?;
    core.written().await;
    let mut response = Response::new(Body::new(reply));
    response.headers_mut().insert(CONTENT_TYPE, OCTETS);
    Ok(response)
}
