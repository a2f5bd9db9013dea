//! Settlement engines of our own making: what one does at each moment of a call is the test's to say.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use serde_json::Value;

use crate::harness::Node;

/// A call of a node.
pub(crate) struct Call {
    pub(crate) method: String,
    /// The segments of the path.
    pub(crate) path: Vec<String>,
    /// By their names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What comes of a call.
pub(crate) enum Answer {
    /// A status and a body.
    Says(u16, Vec<u8>),
    /// The first bytes of an answer, and the connection ends.
    Half,
    /// Nothing, until the node gives up.
    Hangs,
    /// The connection ends.
    Nothing,
}

pub(crate) trait Engine: Send + Sync + 'static {
    /// Somebody connected; false ends the connection.
    fn accepted(&self) -> bool {
        true
    }

    /// All of a call is there.
    fn called(&self, call: &Call) -> Answer;

    /// The answer was handed to the operating system.
    fn answered(&self, _call: &Call) {}
}

/// Starts to serve, for as long as the test runs.
pub(crate) fn serve(engine: Arc<impl Engine>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let engine = Arc::clone(&engine);
            thread::spawn(move || converse(stream, &*engine));
        }
    });
    address
}

/// One call. A node that is killed meanwhile is no mistake.
fn converse(mut stream: TcpStream, engine: &impl Engine) -> Option<()> {
    if !engine.accepted() {
        return None;
    }
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut line, mut headers) = (String::new(), BTreeMap::new());
    reader.read_line(&mut line).ok()?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length");
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?);
    let path = path.trim_matches('/').split('/').map(ToOwned::to_owned);
    let call = Call {
        method,
        path: path.collect(),
        headers,
        body,
    };
    match engine.called(&call) {
        Answer::Says(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
            engine.answered(&call);
        }
        Answer::Half => {
            stream
                .write_all(b"HTTP/1.1 201 X\r\nContent-Length: 99\r\n")
                .ok()?;
            engine.answered(&call);
        }
        Answer::Hangs => {
            let _ = reader.read(&mut [0]);
        }
        Answer::Nothing => {}
    }
    Some(())
}

/// Where engines reach a node.
pub(crate) fn listener(node: &Node) -> SocketAddr {
    let endpoints = std::fs::read(node.folder().join("data/endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_slice(&endpoints).unwrap();
    endpoints["settlement"].as_str().unwrap().parse().unwrap()
}

/// What a node answered an engine.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Calls a node as an engine does. `None` where it is gone before all of its answer is here.
pub(crate) fn tell(
    address: SocketAddr,
    path: &str,
    headers: &str,
    body: &[u8],
    sent: impl FnOnce(),
) -> Option<Told> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A node that refuses a body answers before it has read it.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    sent();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let length = head.to_ascii_lowercase();
    let length = length.split("content-length: ").nth(1)?;
    let length: usize = length.lines().next()?.trim().parse().unwrap();
    let body = answer[end + 4..].to_vec();
    (body.len() == length).then(|| Told {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body,
    })
}

/// Reports money that came in.
pub(crate) fn report(address: SocketAddr, account: &str, key: Option<&str>, body: &str) -> u16 {
    let key = key.map_or(String::new(), |key| format!("Idempotency-Key: {key}\r\n"));
    let headers = format!("{key}Content-Type: application/json\r\n");
    let path = format!("/accounts/{account}/settlements");
    let told = tell(address, &path, &headers, body.as_bytes(), || ());
    told.expect("the node answers").status
}
