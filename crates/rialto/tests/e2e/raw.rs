//! A neighbour without a node: raw ILP over HTTP, both ways, whose every packet the test knows.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use rialto_packet::{Address, FulfillBuilder, Prepare, PrepareBuilder, Reply, Timestamp};

/// Of a Prepare whose data begins with the fulfillment.
pub(crate) fn prepare(number: u64, amount: u64, destination: &str, life_ms: i64) -> Vec<u8> {
    let mut fulfillment = [0; 32];
    fulfillment[..8].copy_from_slice(&number.to_be_bytes());
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    PrepareBuilder {
        amount,
        expires_at: Timestamp::from_unix_ms(i64::try_from(now).unwrap()).plus_ms(life_ms),
        condition: digest(&SHA256, &fulfillment).as_ref().try_into().unwrap(),
        destination: destination.parse::<Address>().unwrap().as_ref(),
        data: &fulfillment,
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

    fn try_post(&mut self, body: &[u8]) -> Option<(u16, Vec<u8>)> {
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
        connection.get_mut().write_all(&request).ok()?;
        read_message(connection).map(|(first, body)| {
            let status = first.split_whitespace().nth(1).unwrap().parse().unwrap();
            (status, body)
        })
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
    let fulfillment = prepare.data()[..32].try_into().unwrap();
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
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

/// Numbers that no two packets of the process share.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
