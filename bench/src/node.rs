//! Rialto as a subject: a node in a folder of its own, on one I/O thread.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    Result,
    process::{self, Process},
    shape::{Subject, Target},
};

/// What the load presents.
pub(crate) const TOKEN: &str = "token-of-the-load";
const ADMIN_TOKEN: &str = "token-of-the-operator";

/// How long a node may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

/// Each request is another payment, if it is one.
static NEXT_KEY: AtomicU64 = AtomicU64::new(0);

/// A running node.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) node: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// From the start of the process until it said that it is ready.
    pub(crate) ready_after: Duration,
}

/// Limits of which every one is set, so that every one is checked.
pub(crate) fn strict_limits() -> Value {
    json!({
        "balance_min": "-1000000000000", "packet_amount_max": "1000", "packets_per_minute": u32::MAX,
        "amount_per_minute": "1000000000000", "in_flight_count_max": 100_000,
        "in_flight_amount_max": "1000000000", "unsynced_amount_max": "1000000000",
    })
}

/// Makes the files of a node in `folder`; `extra` are lines of its configuration's section `node`.
pub(crate) fn prepare(folder: &Path, address: &str, extra: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    let config = format!(
        "[node]\nilp_address = \"{address}\"\nlisten = \"127.0.0.1:0\"\nthreads = 1\n\
         allow_insecure_receivers = true\n{extra}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"error\"\n"
    );
    fs::write(folder.join("rialto.toml"), config)?;
    let secret = BASE64_STANDARD.encode([7; 32]);
    for (file, text) in [
        ("secret.key", secret.as_str()),
        ("admin.token", ADMIN_TOKEN),
    ] {
        let file = folder.join(file);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

impl Node {
    /// Starts `program` on what [`prepare`] made, and waits until it is ready.
    pub(crate) fn start(program: &Path, core: usize, folder: &Path) -> Result<Self> {
        Self::start_on(program, Some(core), folder)
    }

    /// The same on one core, or on all of them.
    pub(crate) fn start_on(program: &Path, core: Option<usize>, folder: &Path) -> Result<Self> {
        let endpoints_file = folder.join("data/endpoints.json");
        let _ = fs::remove_file(&endpoints_file);
        let mut command = process::on(core, program);
        command
            .arg("run")
            .arg("--config")
            .arg(folder.join("rialto.toml"))
            .stderr(fs::File::create(folder.join("log"))?)
            .stdout(Stdio::null());
        let started = Instant::now();
        let mut process = Process::spawn(&mut command)?;
        let endpoints = wait_for(|| {
            if process.has_ended() {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Some(Err(format!("the node ended: {}", log.trim())));
            }
            let text = fs::read(&endpoints_file).ok()?;
            serde_json::from_slice::<Value>(&text).ok().map(Ok)
        })??;
        let address = |listener: &str| -> Result<SocketAddr> {
            Ok(endpoints[listener]
                .as_str()
                .ok_or("no address in endpoints.json")?
                .parse()?)
        };
        let (node, admin) = (address("node")?, address("admin")?);
        wait_for(|| request(admin, "GET /readyz", "").ok())?;
        Ok(Self {
            process,
            node,
            admin,
            ready_after: started.elapsed(),
        })
    }

    /// One request to the admin API; the body of its answer, if it worked.
    pub(crate) fn call(&self, line: &str, body: &Value) -> Result<Value> {
        let body = match body.is_null() {
            true => String::new(),
            false => body.to_string(),
        };
        let answer = request(self.admin, line, &body)?;
        Ok(serde_json::from_str(&answer).unwrap_or(Value::Null))
    }

    /// Makes an account; `more` goes over the usual settings.
    pub(crate) fn account(&self, name: &str, limits: &Value, more: &Value) -> Result<()> {
        let mut account = json!({
            "name": name, "relation": "child", "asset_code": "USD", "asset_scale": 9,
            "limits": limits,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            account[key] = value.clone();
        }
        self.call("POST /v1/accounts", &account).map(drop)
    }

    /// Waits until a BTP session with an account stands.
    pub(crate) fn wait_up(&self, account: &str) -> Result<()> {
        let line = format!("GET /v1/accounts/{account}");
        wait_for(|| {
            let account = self.call(&line, &Value::Null).ok()?;
            (account["link"] == "up").then_some(())
        })
    }

    pub(crate) fn http(&self, account: &str) -> String {
        format!("http://{}/accounts/{account}/ilp", self.node)
    }

    pub(crate) fn btp(&self, account: &str) -> String {
        format!("ws://{}/accounts/{account}/ilp/btp", self.node)
    }
}

/// A node with one account that sends and one that the packets go to, both over HTTP or both over
/// BTP. `link` says how the second is reached.
pub(crate) fn subject(
    name: &str,
    program: &Path,
    core: usize,
    folder: &Path,
    link: &Value,
) -> Result<Subject> {
    let folder: PathBuf = folder.join(name.replace([' ', ':', ',', '/'], "-"));
    prepare(&folder, "test.bench", "")?;
    let node = Node::start(program, core, &folder)?;
    forward(name, node, &strict_limits(), link)
}

/// Makes the two accounts on a node.
pub(crate) fn forward(name: &str, node: Node, limits: &Value, link: &Value) -> Result<Subject> {
    node.account("load", limits, &json!({"incoming_token": TOKEN}))?;
    node.account("receiver", limits, link)?;
    let target = if link.get("btp").is_some() {
        node.wait_up("receiver")?;
        Target::Btp(node.btp("load"))
    } else {
        Target::Http(node.http("load"))
    };
    Ok(Subject::new(name, vec![node.process], target))
}

pub(crate) fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Some(found) => return Ok(found),
            None if Instant::now() > deadline => return Err("it does not get ready".into()),
            None => std::thread::sleep(POLL),
        }
    }
}

/// One request to the admin API; the body of its answer, if it worked.
fn request(admin: SocketAddr, line: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Connection: close\r\nContent-Type: application/json\r\nIdempotency-Key: bench-{}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        NEXT_KEY.fetch_add(1, Ordering::Relaxed),
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 2") => Ok(body.to_owned()),
        _ => Err(format!("{line}: {answer}").into()),
    }
}
