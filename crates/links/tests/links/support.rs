//! A node without a core, and strangers that talk to it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    panic,
    rc::Rc,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use rialto_btp::{BtpUri, session};
use rialto_connector::{Action, Input, LinkFailure, LinkId, RequestId};
use rialto_ledger::{AccountId, AccountSettings, IncomingToken};
use rialto_links::{
    Account, AuthCounters, Callbacks, ClientTls, Clock, Directory, HttpPeer, NewcomerCounters,
    NewcomerLimits, Opened, ServerTls, SpspQuery, SpspRefusal, Worker, WorkerConfig, hash_token,
};
use rialto_stream::{SharedSecret, spsp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, LocalSet, spawn_local},
    time::timeout,
};

/// No test takes so long, unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const ALICE: AccountId = AccountId(1);
pub(crate) const BOB: AccountId = AccountId(2);

/// What a Prepare, a Fulfill and a Reject begin with; links look at no more than that.
pub(crate) const PREPARE: &[u8] = b"\x0cprepare";
pub(crate) const FULFILL: &[u8] = b"\x0dfulfill";

/// Runs a test. A task that panics is a failure, too: in the program it stops the node.
pub(crate) fn run(test: impl Future<Output = ()>) {
    run_for(PATIENCE, test);
}

/// The same for a test that lets time pass.
pub(crate) fn run_for(patience: Duration, test: impl Future<Output = ()>) {
    thread_local!(static HAS_PANICKED: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            HAS_PANICKED.set(true);
            usual(info);
        }));
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(patience, test).await.expect("the test hangs");
    });
    assert!(!HAS_PANICKED.get(), "a task panicked");
}

pub(crate) fn account(id: AccountId, name: &str, token: &str) -> Account {
    account_until(id, name, token, None)
}

/// The same with a token that ends.
pub(crate) fn account_until(
    id: AccountId,
    name: &str,
    token: &str,
    expires_at_ms: Option<i64>,
) -> Account {
    let settings = serde_json::json!({"name": name, "relation": "peer", "asset": "USD/9"});
    let mut settings: AccountSettings = serde_json::from_value(settings).unwrap();
    settings.incoming_tokens = vec![IncomingToken {
        hash: hash_token(token.as_bytes()),
        jwt: None,
        pin: false,
        expires_at_ms,
    }];
    Account {
        id,
        settings: Arc::new(settings),
        opened: None,
    }
}

/// The same where packets go out.
pub(crate) fn to_http(account: Account, peer: HttpPeer) -> Account {
    let opened = Some(Arc::new(Opened {
        http: Some(peer),
        ..Opened::default()
    }));
    Account { opened, ..account }
}

/// The same with a BTP connection.
pub(crate) fn to_btp(account: Account, uri: &str) -> Account {
    let opened = Some(Arc::new(Opened {
        btp: Some(uri.parse::<BtpUri>().unwrap().into()),
        ..Opened::default()
    }));
    Account { opened, ..account }
}

/// What differs from test to test.
pub(crate) struct Options {
    pub(crate) accounts: Vec<Account>,
    pub(crate) btp: session::Settings,
    pub(crate) connections_max: usize,
    pub(crate) newcomers: NewcomerLimits,
    pub(crate) client_tls: ClientTls,
    pub(crate) server_tls: Option<ServerTls>,
    pub(crate) has_session: Box<dyn Fn(AccountId) -> bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            accounts: vec![account(ALICE, "alice", "a"), account(BOB, "bob", "b")],
            btp: session::Settings::default(),
            connections_max: 1_000,
            newcomers: NewcomerLimits {
                count_max: 1_000,
                per_address_max: 1_000,
            },
            client_tls: ClientTls::new(None, None).unwrap(),
            server_tls: None,
            has_session: Box::new(|_| false),
        }
    }
}

pub(crate) struct Node {
    pub(crate) worker: Rc<Worker>,
    pub(crate) address: SocketAddr,
    pub(crate) directory: watch::Sender<Arc<Directory>>,
    pub(crate) auth_counters: Arc<AuthCounters>,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) newcomer_counters: Arc<NewcomerCounters>,
    pub(crate) clock: Clock,
    pub(crate) serving: JoinHandle<()>,
    inputs: RefCell<VecDeque<Input>>,
}

impl Node {
    pub(crate) async fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        Self::start(Options {
            accounts: accounts.into_iter().collect(),
            ..Options::default()
        })
        .await
    }

    pub(crate) async fn start(options: Options) -> Self {
        let clock = Clock::new();
        let auth_counters = Arc::new(AuthCounters::default());
        let newcomer_counters = Arc::new(NewcomerCounters::default());
        let callbacks = Arc::new(Callbacks::default());
        let (directory, receiver) = watch::channel(Arc::new(Directory::new(options.accounts)));
        let worker = Worker::new(WorkerConfig {
            id: 7,
            clock,
            directory: receiver,
            auth_counters: Arc::clone(&auth_counters),
            callbacks: Arc::clone(&callbacks),
            tls: watch::channel(options.client_tls).1,
            btp: options.btp,
            connections_max: options.connections_max,
            newcomers: options.newcomers,
            newcomer_counters: Arc::clone(&newcomer_counters),
            greeting_path: None,
            greeting: Box::new(|_| Box::pin(async { http::Response::default() })),
            spsp: Box::new(answer_spsp),
            has_session: options.has_session,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = options.server_tls.map(|tls| watch::channel(tls).1);
        let serving = spawn_local(Rc::clone(&worker).serve(listener, tls));
        Self {
            worker,
            address,
            directory,
            auth_counters,
            callbacks,
            newcomer_counters,
            clock,
            serving,
            inputs: RefCell::default(),
        }
    }

    /// Keeps up BTP connections.
    pub(crate) fn dial(&self) {
        spawn_local(Rc::clone(&self.worker).dial());
    }

    pub(crate) fn set_accounts(&self, accounts: impl IntoIterator<Item = Account>) {
        self.directory
            .send_replace(Arc::new(Directory::new(accounts)));
    }

    pub(crate) async fn input(&self) -> Input {
        loop {
            if let Some(input) = self.inputs.borrow_mut().pop_front() {
                return input;
            }
            self.worker.inbox().arrived().await;
            let mut batch = Vec::new();
            self.worker.inbox().drain(&mut batch);
            self.inputs.borrow_mut().extend(batch);
        }
    }

    pub(crate) async fn prepare(&self) -> (AccountId, LinkId, RequestId, BytesMut) {
        let input = self.input().await;
        let Input::Prepare {
            account,
            link,
            request,
            packet,
        } = input
        else {
            panic!("not a Prepare: {input:?}")
        };
        (account, link, request, packet)
    }

    pub(crate) async fn reply(&self) -> (LinkId, RequestId, Bytes) {
        let input = self.input().await;
        let Input::Reply {
            link,
            request,
            packet,
        } = input
        else {
            panic!("not a reply: {input:?}")
        };
        (link, request, packet)
    }

    pub(crate) async fn failed(&self) -> (LinkId, RequestId, LinkFailure) {
        let input = self.input().await;
        let Input::Failed {
            link,
            request,
            failure,
        } = input
        else {
            panic!("not a failure: {input:?}")
        };
        (link, request, failure)
    }

    pub(crate) async fn unanswered(&self) -> (LinkId, RequestId) {
        let input = self.input().await;
        let Input::Unanswered { link, request } = input else {
            panic!("not lost: {input:?}")
        };
        (link, request)
    }

    pub(crate) async fn link_up(&self) -> (LinkId, AccountId) {
        let input = self.input().await;
        let Input::LinkUp { link, account } = input else {
            panic!("no link: {input:?}")
        };
        (link, account)
    }

    pub(crate) async fn link_down(&self) -> LinkId {
        let input = self.input().await;
        let Input::LinkDown { link } = input else {
            panic!("link is still up: {input:?}")
        };
        link
    }

    pub(crate) fn answer(&self, link: LinkId, request: RequestId, packet: &'static [u8]) {
        let packet = Bytes::from_static(packet);
        self.worker.perform(Action::Answer {
            link,
            request,
            packet,
            paid: None,
        });
    }

    pub(crate) fn forward(&self, link: LinkId, request: u64, packet: &'static [u8]) {
        self.forward_for(link, request, packet, PATIENCE);
    }

    pub(crate) fn forward_for(
        &self,
        link: LinkId,
        request: u64,
        packet: &'static [u8],
        time: Duration,
    ) {
        let time_ns = u64::try_from(time.as_nanos()).unwrap();
        self.worker.perform(Action::Forward {
            link,
            request: RequestId(request),
            packet: Bytes::from_static(packet),
            deadline_ns: self.clock.now_ns() + time_ns,
        });
    }
}

/// Carol can be paid, and is the one that the node itself means; dave cannot at the moment.
fn answer_spsp(query: SpspQuery) -> Result<spsp::Response, SpspRefusal> {
    match query.account.as_deref() {
        None | Some("carol") => Ok(spsp::Response {
            destination_account: "test.carol.x".parse().unwrap(),
            shared_secret: SharedSecret::from_bytes([1; 32]),
            receipts_enabled: query.receipt.is_some(),
            asset: None,
        }),
        Some("dave") => Err(SpspRefusal::Unavailable),
        Some(_) => Err(SpspRefusal::UnknownReceiver),
    }
}

/// An account whose packets go to `address` by HTTP.
pub(crate) fn http_account(
    id: AccountId,
    scheme: &str,
    address: SocketAddr,
    token: &str,
) -> Account {
    let url = format!("{scheme}://{address}/ilp");
    to_http(account(id, "hub", "h"), HttpPeer::new(&url, token).unwrap())
}

/// Sends bytes and reads one HTTP/1.1 response.
pub(crate) async fn exchange(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    read_message(stream).await
}

/// A head, and the body that its Content-Length announces.
pub(crate) async fn read_message(stream: &mut TcpStream) -> String {
    let mut message = Vec::new();
    while !message.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => message.push(byte),
            Err(_) => return String::from_utf8(message).unwrap(),
        }
    }
    let head = String::from_utf8(message).unwrap();
    let length = head
        .to_ascii_lowercase()
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| {
            rest.split("\r\n").next().unwrap().parse().unwrap()
        });
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8_lossy(&body)
}

/// Somebody who accepts a connection, reads one request, and sends `answer`.
pub(crate) async fn stranger(listener: &TcpListener, answer: &str) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    read_message(&mut stream).await;
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream
}

/// Waits for what a socket's other end will soon have noticed.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < PATIENCE, "it does not happen");
        tokio::task::yield_now().await;
    }
}
