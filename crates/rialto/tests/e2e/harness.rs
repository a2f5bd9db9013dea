//! Real nodes as separate processes, in folders of their own, on ports the system picks.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// The longest that anything in these tests is waited for.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// How often something is looked at that cannot be waited for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(crate) const ADMIN_TOKEN: &str = "rialto_admin_token_of_the_tests";

/// A folder that goes away with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("rialto-e2e-{}-{number}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Polls until `look` gives something; fails the test when it never does.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        thread::park_timeout(LOOK_EVERY);
    }
}

/// A test that fails must not leave its threads running, and wait for them.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A node: its files stay over restarts, its process may be killed.
pub(crate) struct Node {
    pub(crate) name: String,
    folder: Folder,
    process: Option<Child>,
    pub(crate) node: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<String>>,
    /// Of the next process.
    pub(crate) environment: Vec<(String, OsString)>,
}

impl Node {
    /// Makes the files of a node and starts it. `extra` are lines of the section `node`.
    pub(crate) fn start(name: &str, address: &str, extra: &str) -> Self {
        let mut node = Self::prepare(name, address, extra);
        node.restart();
        node
    }

    /// Makes the files only.
    pub(crate) fn prepare(name: &str, address: &str, extra: &str) -> Self {
        let folder = Folder::new(name);
        let config = format!(
            "[node]\nname = \"{name}\"\nilp_address = \"{address}\"\nlisten = \"127.0.0.1:0\"\n\
             allow_insecure_receivers = true\n{extra}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n"
        );
        fs::write(folder.path().join("rialto.toml"), config).unwrap();
        let secret = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
        for (file, text) in [("secret.key", secret), ("admin.token", ADMIN_TOKEN)] {
            let path = folder.path().join(file);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            name: name.to_owned(),
            folder,
            process: None,
            node: nowhere,
            admin: nowhere,
            log: Arc::default(),
            environment: Vec::new(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.folder.path().join("rialto.toml"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the process, with the ports it had before, and waits until it is ready.
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let endpoints = self.folder.path().join("data/endpoints.json");
        let _ = fs::remove_file(&endpoints);
        let mut command = self.command();
        if self.node.port() != 0 {
            command.env("RIALTO_NODE__LISTEN", self.node.to_string());
            command.env("RIALTO_ADMIN__LISTEN", self.admin.to_string());
        }
        command.envs(self.environment.iter().cloned());
        let mut process = command.spawn().unwrap();
        let stderr = process.stderr.take().unwrap();
        self.collect(stderr);
        self.process = Some(process);
        let found = wait_for("endpoints.json", || {
            let exited = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(exited.is_none(), "{} exited: {}", self.name, self.log());
            serde_json::from_slice::<Value>(&fs::read(&endpoints).ok()?).ok()
        });
        self.node = found["node"].as_str().unwrap().parse().unwrap();
        self.admin = found["admin"].as_str().unwrap().parse().unwrap();
        // Without an address it is not ready, and waits.
        let config = fs::read_to_string(self.folder.path().join("rialto.toml")).unwrap();
        let has_address = !config.contains("ilp_address = \"unknown\"");
        let ready = if has_address { "/readyz" } else { "/livez" };
        wait_for("readiness", || {
            (self.try_call("GET", ready, None)?.0 == 200).then_some(())
        });
    }

    fn collect(&self, stderr: ChildStderr) {
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    /// The exit code, once it has ended by itself.
    pub(crate) fn wait(&mut self) -> i32 {
        let status = self.process.take().unwrap().wait().unwrap();
        status.code().expect("it exits by itself")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}")).arg(self.pid().to_string());
        assert!(kill.status().unwrap().success());
    }

    /// Resident memory in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// One request to the admin API; status and body.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.try_call(method, path, body.as_ref())
            .expect("the admin API answers")
    }

    /// The same, and it has to work.
    pub(crate) fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body);
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let key = "";
        call(self.admin, method, path, body, key)
    }

    /// One request that happens once, however often it is sent with the same key.
    pub(crate) fn call_once(&self, path: &str, key: &str, body: Value) -> (u16, Value) {
        call(self.admin, "POST", path, Some(&body), key).expect("the admin API answers")
    }

    /// Pays and waits for the end.
    pub(crate) fn pay(&self, key: &str, request: &Value) -> Value {
        let path = "/v1/payments?wait=60";
        let (status, payment) = call(self.admin, "POST", path, Some(request), key).unwrap();
        assert!((200..300).contains(&status), "{status} {payment}");
        let id = payment["id"].as_str().unwrap().to_owned();
        wait_for("the payment's end", || {
            let payment = self.ok("GET", &format!("/v1/payments/{id}?wait=10"), None);
            (payment["state"] != "running").then_some(payment)
        })
    }

    pub(crate) fn balance(&self, account: &str) -> i128 {
        let account = self.ok("GET", &format!("/v1/accounts/{account}"), None);
        account["balance"].as_str().unwrap().parse().unwrap()
    }

    /// Of every account, by name.
    pub(crate) fn balances(&self) -> BTreeMap<String, i128> {
        let balances = self.ok("GET", "/v1/balances", None);
        let balances = balances["balances"].as_array().unwrap().iter();
        balances
            .map(|entry| {
                let (name, balance) = (&entry["account"], &entry["balance"]);
                let balance = balance.as_str().unwrap().parse().unwrap();
                (name.as_str().unwrap().to_owned(), balance)
            })
            .collect()
    }

    /// Per asset: all balances, the node's own position and what was settled; each sum has to be zero.
    pub(crate) fn assert_books_add_up(&self) {
        let balances = self.ok("GET", "/v1/balances", None);
        let mut sums = BTreeMap::<String, i128>::new();
        for (list, amount) in [
            ("balances", "balance"),
            ("positions", "amount"),
            ("positions", "settled"),
        ] {
            for entry in balances[list].as_array().unwrap() {
                let asset = format!("{}/{}", entry["asset_code"], entry["asset_scale"]);
                *sums.entry(asset).or_default() +=
                    entry[amount].as_str().unwrap().parse::<i128>().unwrap();
            }
        }
        assert!(
            sums.values().all(|sum| *sum == 0),
            "{}: {sums:?}",
            self.name
        );
    }

    pub(crate) fn account(&self, account: Value) {
        self.ok("POST", "/v1/accounts", Some(account));
    }

    pub(crate) fn ilp_url(&self, account: &str) -> String {
        format!("http://{}/accounts/{account}/ilp", self.node)
    }

    pub(crate) fn btp_url(&self, account: &str) -> String {
        format!("btp+ws://{}/accounts/{account}/ilp/btp", self.node)
    }

    pub(crate) fn pointer(&self, account: &str) -> String {
        format!("http://{}/accounts/{account}/spsp", self.node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if thread::panicking() {
            eprintln!("---- log of {}\n{}", self.name, self.log());
        }
    }
}

/// One HTTP/1.1 request to an admin API.
pub(crate) fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
    idempotency_key: &str,
) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(WAIT_MAX + Duration::from_secs(10)))
        .ok()?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let key = match idempotency_key {
        "" => String::new(),
        key => format!("Idempotency-Key: {key}\r\n"),
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Authorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: application/json\r\n{key}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Some((
        status,
        serde_json::from_str(&body).unwrap_or(Value::String(body)),
    ))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// A program of another implementation; each line of its output is a JSON event.
pub(crate) struct Peer {
    process: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) stdin: Option<ChildStdin>,
    /// The first event.
    pub(crate) ready: Value,
}

impl Peer {
    /// Starts `program` of tests/js and waits until it is ready.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        Self::start_until("ready", program, arguments)
    }

    /// The same for one that says something else first.
    pub(crate) fn start_until(event: &str, program: &str, arguments: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/js");
        assert!(
            folder.join("node_modules").is_dir(),
            "the JavaScript peers are not installed: run `cargo xtask test`, or `npm ci` in tests/js"
        );
        let mut process = Command::new("node")
            .arg(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let lines = BufReader::new(process.stdout.take().unwrap());
        let stdin = process.stdin.take();
        let mut peer = Self {
            process,
            lines,
            stdin,
            ready: Value::Null,
        };
        peer.ready = peer.next(event);
        peer
    }

    /// The next event of this kind; others are passed over.
    pub(crate) fn next(&mut self, event: &str) -> Value {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "the peer ended without the event '{event}'");
            let found: Value = serde_json::from_str(&line).unwrap();
            if found["event"] == event {
                return found;
            }
        }
    }

    /// SIGTERM, then the last event.
    pub(crate) fn stop(mut self) -> Value {
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        self.next("end")
    }

    /// Waits until it ends by itself; it has to succeed.
    pub(crate) fn end(mut self) -> Value {
        let end = self.next("end");
        assert!(self.process.wait().unwrap().success());
        end
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The three nodes of the demo: alice (USD/9) over BTP to a hub, the hub over HTTP to bob (EUR/6).
pub(crate) struct Line {
    pub(crate) alice: Node,
    pub(crate) hub: Node,
    pub(crate) bob: Node,
}

/// Credit that is never used up.
pub(crate) const CREDIT: &str = "-1000000000000000";

impl Line {
    /// `bob_url` gives the address at which the hub reaches bob, such as a slow way there.
    pub(crate) fn start(rate: &str, bob_address: impl Fn(SocketAddr) -> SocketAddr) -> Self {
        let alice = Node::start("alice", "test.hub.alice", "");
        let hub = Node::start("hub", "test.hub", "");
        let bob = Node::start("bob", "test.hub.bob", "");
        let limits = json!({"balance_min": CREDIT});
        hub.account(json!({
            "name": "alice", "relation": "child", "asset_code": "USD", "asset_scale": 9,
            "limits": limits, "incoming_token": "token-from-alice-to-hub",
        }));
        hub.account(json!({
            "name": "bob", "relation": "child", "asset_code": "EUR", "asset_scale": 6,
            "limits": limits, "incoming_token": "token-from-bob-to-hub",
            "http": {
                "url": format!("http://{}/accounts/hub/ilp", bob_address(bob.node)),
                "token": "token-from-hub-to-bob",
            },
        }));
        hub.ok(
            "PUT",
            "/v1/rates",
            Some(json!({"from": "USD", "to": "EUR", "rate": rate})),
        );
        alice.account(json!({
            "name": "hub", "relation": "parent", "asset_code": "USD", "asset_scale": 9,
            "limits": limits,
            "btp": {"url": hub.btp_url("alice"), "token": "token-from-alice-to-hub"},
        }));
        alice.account(json!({
            "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
            "limits": limits,
        }));
        bob.account(json!({
            "name": "hub", "relation": "parent", "asset_code": "EUR", "asset_scale": 6,
            "limits": limits, "incoming_token": "token-from-hub-to-bob",
            "http": {"url": hub.ilp_url("bob"), "token": "token-from-bob-to-hub"},
        }));
        bob.account(json!({
            "name": "shop", "relation": "local", "asset_code": "EUR", "asset_scale": 6,
        }));
        let line = Self { alice, hub, bob };
        line.wait_connected();
        line
    }

    /// Until alice's BTP session with the hub is up.
    pub(crate) fn wait_connected(&self) {
        wait_for("alice's connection to the hub", || {
            let account = self.hub.ok("GET", "/v1/accounts/alice", None);
            (account["link"] == "up").then_some(())
        });
    }

    pub(crate) fn pay(&self, key: &str, amount: u64, packet_max: Option<u64>) -> Value {
        let mut request = json!({
            "account": "wallet", "receiver": self.bob.pointer("shop"), "amount": amount.to_string(),
        });
        if let Some(max) = packet_max {
            request["packet_max"] = max.to_string().into();
        }
        self.alice.pay(key, &request)
    }

    /// Neighbours' books are each other's mirror (I9), and each node's add up (I1).
    pub(crate) fn assert_agreed(&self) {
        assert_eq!(self.alice.balance("hub"), -self.hub.balance("alice"));
        assert_eq!(self.hub.balance("bob"), -self.bob.balance("hub"));
        for node in [&self.alice, &self.hub, &self.bob] {
            node.assert_books_add_up();
        }
    }
}
