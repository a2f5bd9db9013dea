//! A neighbour without a node: raw ILP over HTTP, both ways, whose every packet the test knows.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use rialto_btp::frame::{self, Frame};
use rialto_packet::{Address, FulfillBuilder, Prepare, PrepareBuilder, Reply, Timestamp};

/// Of a Prepare whose data is the fulfillment.
pub(crate) fn prepare(number: u64, amount: u64, destination: &str, life_ms: i64) -> Vec<u8> {
    prepare_with_data(number, amount, destination, life_ms, 32)
}

/// The same with so many bytes of data, which begin with the fulfillment.
pub(crate) fn prepare_with_data(
    number: u64,
    amount: u64,
    destination: &str,
    life_ms: i64,
    data_len: usize,
) -> Vec<u8> {
    let mut data = vec![0; data_len];
    data[..8].copy_from_slice(&number.to_be_bytes());
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    PrepareBuilder {
        amount,
        expires_at: Timestamp::from_unix_ms(i64::try_from(now).unwrap()).plus_ms(life_ms),
        condition: digest(&SHA256, &data[..32]).as_ref().try_into().unwrap(),
        destination: destination.parse::<Address>().unwrap().as_ref(),
        data: &data,
    }
    .encode()
    .unwrap()
}

/// The number that [`prepare`] put in.
pub(crate) fn number(prepare: &Prepare<&[u8]>) -> u64 {
    u64::from_be_bytes(prepare.data()[..8].try_into().unwrap())
}

/// One connection to an ILP over HTTP endpoint.
pub(crate) struct Client {
    address: SocketAddr,
    path: String,
    token: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, path: &str, token: &str) -> Self {
        let (path, token) = (path.to_owned(), token.to_owned());
        Self {
            address,
            path,
            token,
            connection: None,
        }
    }

    /// Sends a body; status and body of the answer, or nothing when the connection broke.
    pub(crate) fn post(&mut self, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let answer = self.try_post(body);
        if answer.is_none() {
            self.connection = None;
        }
        answer
    }

    /// Goes away without an answer, and waits until the node has closed the connection, too.
    pub(crate) fn leave(self) {
        let connection = self.connection.expect("the connection stands");
        let stream = connection.into_inner();
        stream.shutdown(Shutdown::Write).unwrap();
        match (&stream).read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the node goes on: {other:?}"),
        }
    }

    /// Sends a body and waits for nothing.
    pub(crate) fn write(&mut self, body: &[u8]) {
        self.try_write(body).expect("the connection stands");
    }

    fn try_post(&mut self, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.try_write(body)?;
        let (first, body) = read_message(self.connection.as_mut()?)?;
        let status = first.split_whitespace().nth(1).unwrap().parse().unwrap();
        Some((status, body))
    }

    fn try_write(&mut self, body: &[u8]) -> Option<()> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(self.address).ok()?;
            stream.set_nodelay(true).ok()?;
            stream
                .set_read_timeout(Some(Duration::from_secs(40)))
                .ok()?;
            self.connection = Some(BufReader::new(stream));
        }
        let connection = self.connection.as_mut()?;
        let mut request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            self.path,
            self.address,
            self.token,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        connection.get_mut().write_all(&request).ok()
    }

    /// Sends a Prepare; the reply, or nothing when the connection broke.
    pub(crate) fn send(&mut self, prepare: &[u8]) -> Option<Reply<Vec<u8>>> {
        let (status, body) = self.post(prepare)?;
        assert_eq!(status, 200);
        Some(Reply::parse(body).unwrap())
    }
}

/// First line and body of an HTTP/1.1 message with a length.
fn read_message(connection: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut first = String::new();
    if connection.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).ok()?;
    Some((first, body))
}

/// One BTP session over a WebSocket, which reads and writes when the test says so.
pub(crate) struct Btp {
    reader: BufReader<TcpStream>,
    pub(crate) writer: TcpStream,
    last_request: u32,
}

/// What came over the WebSocket of a [`Btp`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A BTP frame.
    Frame(Vec<u8>),
    /// The other end says why it closes.
    Close(u16),
}

impl Btp {
    /// Opens the WebSocket of an account's path, and nothing more.
    pub(crate) fn open(node: SocketAddr, account: &str) -> Option<Self> {
        let writer = TcpStream::connect(node).ok()?;
        writer.set_nodelay(true).ok()?;
        writer
            .set_read_timeout(Some(Duration::from_secs(40)))
            .ok()?;
        write!(
            &writer,
            "GET /accounts/{account}/ilp/btp HTTP/1.1\r\nHost: {node}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        .ok()?;
        let mut reader = BufReader::new(writer.try_clone().ok()?);
        let (first, _) = read_message(&mut reader)?;
        assert!(first.starts_with("HTTP/1.1 101"), "{first}");
        Some(Self {
            reader,
            writer,
            last_request: 0,
        })
    }

    /// Opens a session with this token; nothing if the node is not there.
    pub(crate) fn try_connect(node: SocketAddr, account: &str, token: &str) -> Option<Self> {
        let mut btp = Self::open(node, account)?;
        btp.write(&auth(token)).ok()?;
        let answer = btp.read()?;
        let empty = |frame: &Vec<u8>| {
            matches!(Frame::decode(frame).unwrap().body, frame::Body::Response(_))
        };
        assert!(matches!(&answer, Received::Frame(frame) if empty(frame)));
        btp.last_request = 1;
        Some(btp)
    }

    /// The same, and the node is there.
    pub(crate) fn connect(node: SocketAddr, account: &str, token: &str) -> Self {
        Self::try_connect(node, account, token).unwrap()
    }

    /// Writes a BTP frame.
    pub(crate) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        write_websocket(&self.writer, BINARY_WHOLE, frame)
    }

    /// The next BTP frame or close frame; nothing when the connection broke.
    pub(crate) fn read(&mut self) -> Option<Received> {
        self.try_read().ok()
    }

    /// Reads until the node ends the session; it is a failure when it does not.
    pub(crate) fn read_to_close(&mut self) {
        loop {
            match self.try_read() {
                Ok(Received::Close(_)) => return,
                Ok(Received::Frame(_)) => {}
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "it stays open");
                    return;
                }
            }
        }
    }

    fn try_read(&mut self) -> io::Result<Received> {
        loop {
            let mut head = [0; 2];
            self.reader.read_exact(&mut head)?;
            let mut length = u64::from(head[1]);
            let long = match length {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            if long > 0 {
                let mut bytes = [0; 8];
                self.reader.read_exact(&mut bytes[8 - long..])?;
                length = u64::from_be_bytes(bytes);
            }
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.reader.read_exact(&mut payload)?;
            match head[0] & 0x0f {
                2 => return Ok(Received::Frame(payload)),
                8 => {
                    let code = payload
                        .get(..2)
                        .map_or(1005, |code| u16::from_be_bytes(code.try_into().unwrap()));
                    return Ok(Received::Close(code));
                }
                _ => {} // pings
            }
        }
    }

    /// The next request that carries a packet: its id and the packet.
    pub(crate) fn read_prepare(&mut self) -> Option<(u32, Vec<u8>)> {
        loop {
            let Received::Frame(bytes) = self.read()? else {
                return None;
            };
            let frame = Frame::decode(&bytes).unwrap();
            if let frame::Body::Message(data) = frame.body {
                return Some((frame.request_id, data.get(frame::ILP)?.data.to_vec()));
            }
        }
    }

    /// Answers a request with a packet.
    pub(crate) fn reply(&mut self, request: u32, packet: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        frame::put_ilp_response(&mut frame, request, packet);
        self.write(&frame)
    }

    /// Sends a Prepare and waits for the reply; nothing when the connection broke.
    pub(crate) fn send(&mut self, prepare: &[u8]) -> Option<Reply<Vec<u8>>> {
        let mut replies = self.send_all(&[prepare.to_vec()]);
        replies.pop()
    }

    /// Sends a Prepare and waits for nothing.
    pub(crate) fn write_prepare(&mut self, prepare: &[u8]) {
        self.last_request += 1;
        let mut frame = Vec::new();
        frame::put_ilp_message(&mut frame, self.last_request, prepare);
        self.write(&frame).unwrap();
    }

    /// Sends Prepares without waiting in between. The replies in the order in which they came; fewer
    /// when the connection broke.
    pub(crate) fn send_all(&mut self, prepares: &[Vec<u8>]) -> Vec<Reply<Vec<u8>>> {
        self.send_until(prepares, prepares.len())
    }

    /// The same, until so many replies came.
    pub(crate) fn send_until(&mut self, prepares: &[Vec<u8>], count: usize) -> Vec<Reply<Vec<u8>>> {
        let first = self.last_request + 1;
        self.last_request += u32::try_from(prepares.len()).unwrap();
        let writer = self.writer.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                for (request, prepare) in (first..).zip(prepares) {
                    let mut frame = Vec::new();
                    frame::put_ilp_message(&mut frame, request, prepare);
                    if write_websocket(&writer, BINARY_WHOLE, &frame).is_err() {
                        return; // the reader sees it, too
                    }
                }
            });
            self.receive(count)
        })
    }

    /// The next replies; fewer when the connection broke.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<Reply<Vec<u8>>> {
        let mut replies = Vec::new();
        while replies.len() < count {
            let Some(Received::Frame(bytes)) = self.read() else {
                break;
            };
            let frame::Body::Response(data) = Frame::decode(&bytes).unwrap().body else {
                panic!("not a response");
            };
            let packet = data.get(frame::ILP).unwrap().data.to_vec();
            replies.push(Reply::parse(packet).unwrap());
        }
        replies
    }
}

/// First byte of a WebSocket message with bytes that is one frame.
pub(crate) const BINARY_WHOLE: u8 = 0x82;

/// Writes a frame as clients do, masked with zeros.
pub(crate) fn write_websocket(mut stream: &TcpStream, first: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

/// The frame that a BTP session begins with.
pub(crate) fn auth(token: &str) -> Vec<u8> {
    let entry = |name, data| frame::Entry {
        name,
        content_type: frame::ContentType::TEXT,
        data,
    };
    let mut frame = Vec::new();
    let entries = [
        entry(frame::AUTH, &[]),
        entry(frame::AUTH_TOKEN, token.as_bytes()),
    ];
    frame::put_message(&mut frame, 1, &entries).unwrap();
    frame
}

/// What became of a packet: `fulfill`, or code and reason of the reject.
pub(crate) fn outcome(reply: &Reply<Vec<u8>>) -> String {
    match reply {
        Reply::Fulfill(_) => "fulfill".to_owned(),
        Reply::Reject(reject) => {
            let message = reject.message();
            let reason = message.split(':').next().unwrap();
            format!("{} {reason}", reject.code())
        }
    }
}

/// What a [`Server`] does with a Prepare: status, content type and body; `None` never answers.
pub(crate) type Answer = dyn Fn(&[u8]) -> Option<(u16, &'static str, Vec<u8>)> + Send + Sync;

/// An HTTP server that answers Prepares as the test says.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(
        answer: impl Fn(&[u8]) -> Option<(u16, &'static str, Vec<u8>)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let answer: Arc<Answer> = Arc::new(answer);
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let answer = Arc::clone(&answer);
                thread::spawn(move || serve(stream, &*answer));
            }
        });
        Self { address, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, answer: &Answer) {
    let _ = stream.set_nodelay(true);
    let mut connection = BufReader::new(stream);
    while let Some((_, body)) = read_message(&mut connection) {
        let Some((status, content_type, body)) = answer(&body) else {
            thread::park_timeout(Duration::from_secs(600));
            return;
        };
        let mut response = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        response.extend_from_slice(&body);
        if connection.get_mut().write_all(&response).is_err() {
            return;
        }
    }
}

pub(crate) const OCTETS: &str = "application/octet-stream";

/// Fulfills a packet made by [`prepare`].
pub(crate) fn fulfill(packet: &[u8]) -> Vec<u8> {
    let prepare = Prepare::parse(packet).unwrap();
    fulfill_with(prepare.data()[..32].try_into().unwrap())
}

/// A Fulfill with this proof.
pub(crate) fn fulfill_with(fulfillment: [u8; 32]) -> Vec<u8> {
    FulfillBuilder {
        fulfillment,
        data: &[],
    }
    .encode()
    .unwrap()
}

/// Counts, per packet number, what a fulfilling neighbour said yes to.
#[derive(Clone, Default)]
pub(crate) struct Fulfilled(Arc<Mutex<HashMap<u64, u64>>>);

impl Fulfilled {
    pub(crate) fn server(&self) -> Server {
        let fulfilled = self.clone();
        Server::start(move |packet| {
            let prepare = Prepare::parse(packet).unwrap();
            fulfilled
                .0
                .lock()
                .unwrap()
                .insert(number(&prepare), prepare.amount());
            Some((200, OCTETS, fulfill(packet)))
        })
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.0.lock().unwrap().contains_key(&number)
    }
}

/// Passes bytes on, each a fixed time later than it came, without limiting how many are under way.
pub(crate) struct SlowPath {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl SlowPath {
    pub(crate) fn start(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(far) = TcpStream::connect(target) else {
                    continue;
                };
                for stream in [&near, &far] {
                    let _ = stream.set_nodelay(true);
                }
                let pairs = [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far, near),
                ];
                for (from, to) in pairs {
                    pass_on(from, to, delay);
                }
            }
        });
        Self { address, stop }
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<(Instant, Vec<u8>)>(4_096);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender
                .send((Instant::now() + delay, buffer[..read].to_vec()))
                .is_err()
            {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            while let Some(left) = due
                .checked_duration_since(Instant::now())
                .filter(|l| !l.is_zero())
            {
                thread::park_timeout(left);
            }
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Numbers that no two packets of the process share.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
