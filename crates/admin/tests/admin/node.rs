//! A node around a real core: records go to a list, and time stands still while peers are waited for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request, Response, StatusCode},
};
use parking_lot::Mutex;
use rand_core::SeedableRng;
use rialto_admin::{
    AutoPeering, BoxFuture, Caller, Command, Node, NodeStatus, Peering, Probed, ResolveError,
    ResolvedReceiver, Scopes, Token, Unavailable, hash, router,
};
use rialto_connector::{Action, Connector, Effects, Event, Input, Now, Reason, Settings};
use rialto_ledger::{AccountId, Record, SealedSecret, TokenHash};
use rialto_packet::{Prepare, Timestamp};
use rialto_stream::SharedSecret;
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, watch};
use tower::ServiceExt;

/// Each names the scopes it has.
pub(crate) const TOKENS: [&str; 5] = [
    "read+write+pay",
    "write+pay",
    "read+pay",
    "read+write",
    "expired",
];
pub(crate) const ADMIN: &str = TOKENS[0];

const WALL_MS: i64 = 1_800_000_000_000;

struct Core {
    connector: Connector,
    mono_ns: u64,
    records: Vec<Record>,
    forwarded_count: usize,
    tokens_made: u8,
}

impl Core {
    fn now(&self) -> Now {
        let elapsed_ms = i64::try_from(self.mono_ns / 1_000_000).unwrap();
        Now {
            mono_ns: self.mono_ns,
            wall: Timestamp::from_unix_ms(WALL_MS + elapsed_ms),
        }
    }
}

pub(crate) struct TestNode {
    core: Mutex<Core>,
    events: broadcast::Sender<Event>,
    /// Resolving waits for a permit.
    pub(crate) resolver: Semaphore,
    pub(crate) draining: AtomicBool,
    pub(crate) journal_failed: AtomicBool,
    peering: Peering,
}

/// Less than the time after which a peer that does not answer is asked for its routes again.
const ASKED_AGAIN_NS: u64 = 25_000_000_000;

impl TestNode {
    pub(crate) fn new() -> Arc<Self> {
        let settings = Settings::new("g.node".parse().unwrap());
        let rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        Arc::new(Self {
            core: Mutex::new(Core {
                connector: Connector::new(settings, [7; 32], rng),
                mono_ns: 0,
                records: Vec::new(),
                forwarded_count: 0,
                tokens_made: 0,
            }),
            events: broadcast::channel(64).0,
            resolver: Semaphore::new(Semaphore::MAX_PERMITS),
            draining: AtomicBool::new(false),
            journal_failed: AtomicBool::new(false),
            peering: Peering::default(),
        })
    }

    pub(crate) fn step<T>(&self, work: impl FnOnce(&mut Connector, Now, &mut Effects) -> T) -> T {
        let mut core = self.core.lock();
        let core = &mut *core;
        let mut out = Effects::default();
        let now = core.now();
        let result = work(&mut core.connector, now, &mut out);
        loop {
            let records = out.records().map(|bytes| Record::decode(bytes).unwrap());
            core.records.extend(records);
            for effect in out.drain() {
                match effect.action {
                    Action::Report(
                        event @ (Event::PaymentEnded { .. }
                        | Event::QuoteDone { .. }
                        | Event::PingDone { .. }
                        | Event::MessageDone { .. }),
                    ) => drop(self.events.send(event)),
                    Action::Forward { packet, .. } => {
                        let packet = Prepare::parse(packet).unwrap();
                        let is_own = packet.destination().starts_with("peer");
                        core.forwarded_count += usize::from(!is_own);
                    }
                    Action::Report(_)
                    | Action::Answer { .. }
                    | Action::Disconnect { .. }
                    | Action::Engine { .. } => {}
                }
            }
            match core.connector.poll_timeout() {
                Some(due) if due <= core.mono_ns => {}
                // Nothing outside is waited for: time jumps to the next timer. What peers are asked
                // again and again takes longer.
                Some(due)
                    if core.connector.in_flight_count() == 0
                        && due < core.mono_ns + ASKED_AGAIN_NS =>
                {
                    core.mono_ns = due;
                }
                Some(_) | None => break,
            }
            core.connector.handle(core.now(), Input::Timeout, &mut out);
        }
        let lsn = core.connector.lsn();
        core.connector
            .handle(core.now(), Input::Synced(lsn), &mut out);
        result
    }

    /// Moves both clocks, timer by timer.
    pub(crate) fn advance_ms(&self, ms: u64) {
        let end_ns = self.core.lock().mono_ns + ms * 1_000_000;
        loop {
            let mut core = self.core.lock();
            let due = core.connector.poll_timeout().filter(|due| *due <= end_ns);
            core.mono_ns = due.unwrap_or(end_ns);
            drop(core);
            self.step(|connector, now, out| connector.handle(now, Input::Timeout, out));
            if due.is_none() {
                return;
            }
        }
    }

    /// From now on settlements by hand wait for a second operator.
    pub(crate) fn ask_second_approver(&self) {
        self.step(|connector, _, _| {
            let mut settings = connector.settings().clone();
            settings.second_approver = true;
            connector.reload(settings);
        });
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.core.lock().records.clone()
    }

    pub(crate) fn forwarded_count(&self) -> usize {
        self.core.lock().forwarded_count
    }
}

impl Node for TestNode {
    fn read(&self, look: &mut dyn FnMut(&Connector)) {
        look(&self.core.lock().connector);
    }

    fn execute(&self, command: Command) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            if self.journal_failed.load(Ordering::Relaxed) {
                return Err(Unavailable("the journal takes no records".to_owned()));
            }
            self.step(command);
            Ok(())
        })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn seal(&self, secret: &str) -> SealedSecret {
        SealedSecret(format!("sealed:{:?}", hash(secret).0[0]))
    }

    /// `$node.example/NAME` is a local account, `$far.example` is behind the peer `far`, anything
    /// else does not answer.
    fn resolve<'a>(
        &'a self,
        receiver: &'a str,
    ) -> BoxFuture<'a, Result<ResolvedReceiver, ResolveError>> {
        Box::pin(async move {
            let _permit = self.resolver.acquire().await.unwrap();
            if receiver == "$far.example" {
                return Ok(ResolvedReceiver {
                    url: "https://far.example/.well-known/pay".to_owned(),
                    destination: "g.far.bob.token".parse().unwrap(),
                    shared_secret: SharedSecret::from_bytes([9; 32]),
                    asset: None,
                });
            }
            let name = receiver.strip_prefix("$node.example/");
            let found = name.and_then(|name| {
                let found = self.step(|connector, _, _| connector.spsp(name, None))?;
                Some((name, found))
            });
            let Some((name, found)) = found else {
                let message = format!("{receiver}: connection refused");
                let code = "receiver_unreachable";
                return Err(ResolveError { code, message });
            };
            Ok(ResolvedReceiver {
                url: format!("https://node.example/{name}"),
                destination: found.credentials.destination_account,
                shared_secret: found.credentials.shared_secret,
                asset: Some(found.asset),
            })
        })
    }

    fn payment_pointer(&self, account: &str) -> Option<String> {
        Some(format!("$node.example/{account}"))
    }

    fn status(&self) -> NodeStatus {
        let lsn = self.core.lock().connector.lsn().0;
        let failed = self.journal_failed.load(Ordering::Relaxed);
        NodeStatus {
            name: "test".to_owned(),
            version: "0.0.0",
            uptime_ms: 61_234,
            draining: self.draining.load(Ordering::Relaxed),
            written_lsn: lsn,
            synced_lsn: lsn,
            journal_failure: failed.then(|| "no space left on device".to_owned()),
            worker_count: 1,
            unauthenticated: vec![(Reason::AuthMissing, 3)],
            unauthenticated_connections: 5,
            refused_callbacks: vec![("late", 8)],
            displaced_connections: 7,
        }
    }

    fn random(&self) -> [u8; 32] {
        let mut core = self.core.lock();
        core.tokens_made += 1;
        [core.tokens_made; 32]
    }

    fn derive(&self, purpose: &str, context: &[u8]) -> [u8; 32] {
        hash(&format!("{purpose} {context:?}")).0
    }

    fn endpoint(&self) -> String {
        "https://node.example".to_owned()
    }

    fn shows_certificate(&self) -> bool {
        false
    }

    fn may_connect(&self, url: &str) -> Result<(), String> {
        match url.starts_with("https://") {
            true => Ok(()),
            false => Err("is in clear".to_owned()),
        }
    }

    fn exchange(&self, _: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, String>> {
        Box::pin(async { Err("connection refused".to_owned()) })
    }

    fn probe(&self, _: AccountId, _: bool) -> BoxFuture<'_, Probed> {
        Box::pin(async { Probed::default() })
    }

    fn callers(&self) -> Vec<Caller> {
        Vec::new()
    }

    fn forget_caller(&self, _: TokenHash) {}

    fn block_callers(&self, _: &mut dyn Iterator<Item = TokenHash>) {}

    fn auto_peering(&self) -> Option<AutoPeering> {
        None
    }

    fn peering(&self) -> &Peering {
        &self.peering
    }
}

/// Requests to the API of a node.
#[derive(Clone)]
pub(crate) struct Client {
    router: Router,
    token: Option<&'static str>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {:?}", self.text))
    }

    /// Status, code and field of a problem document.
    pub(crate) fn problem(&self) -> (u16, String, String) {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{}",
            self.text
        );
        let problem = self.json();
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["type"], format!("/problems/{}", text("code")));
        assert!(!text("title").is_empty() && !text("detail").is_empty());
        (self.status.as_u16(), text("code"), text("field"))
    }
}

pub(crate) fn tokens() -> watch::Receiver<Vec<Token>> {
    let tokens = TOKENS.iter().map(|text| {
        let expired = *text == "expired";
        let words: Vec<String> = text.split('+').map(String::from).collect();
        Token {
            name: (*text).to_owned(),
            hash: hash(text),
            scopes: if expired {
                Scopes::ALL
            } else {
                Scopes::parse(&words).unwrap()
            },
            expires_at_ms: expired.then_some(1),
        }
    });
    watch::channel(tokens.collect()).1
}

impl Client {
    pub(crate) fn new(node: &Arc<TestNode>) -> Self {
        let node: Arc<dyn Node> = Arc::<TestNode>::clone(node);
        Self {
            router: router(node, tokens()),
            token: Some(ADMIN),
        }
    }

    pub(crate) fn with(&self, token: Option<&'static str>) -> Self {
        Self {
            router: self.router.clone(),
            token,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (mut parts, body) = request.into_parts();
        if let Some(token) = self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            parts.headers.insert("authorization", value);
        }
        let request = Request::from_parts(parts, body);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Answer {
            status,
            headers,
            text,
        }
    }

    /// A request with a JSON body, or without one for null.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(request(method, path, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Value::Null).await
    }

    /// The same for what has to succeed.
    pub(crate) async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, body).await;
        assert!(
            answer.status.is_success(),
            "{method} {path}: {}",
            answer.text
        );
        if answer.text.is_empty() {
            return Value::Null;
        }
        answer.json()
    }

    /// A payment with a key.
    pub(crate) async fn pay(&self, key: &str, wait: u64, body: Value) -> Answer {
        let path = format!("/v1/payments?wait={wait}");
        self.post_with_key(&path, key, body).await
    }

    pub(crate) async fn post_with_key(&self, path: &str, key: &str, body: Value) -> Answer {
        let mut request = request("POST", path, body);
        request
            .headers_mut()
            .insert("idempotency-key", key.parse().unwrap());
        self.send(request).await
    }
}

pub(crate) fn request(method: &str, path: &str, body: Value) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    if body.is_null() {
        return request.body(Body::empty()).unwrap();
    }
    let request = request.header("content-type", "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}
