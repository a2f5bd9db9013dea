//! The systems that are measured beside Rialto, each with its own folder and ports on loopback.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Result,
    load::Load,
    process::{self, Process},
    shape::{LOAD_CORE, Subject, Target},
};

/// Longest that a request to another system's API may take: 100,000 routes are one.
const API_TIMEOUT: Duration = Duration::from_secs(60);
const ADMIN_TOKEN: &str = "admin";
/// The account of the peer that fulfils.
pub(crate) const RECEIVER: &str = "test.bench.receiver";
/// Where the load's packets go: below that account, as any payment's packets do. An address that is a
/// route itself, `ilp-node` finds without looking through its table.
pub(crate) const DESTINATION: &str = "test.bench.receiver.x";

/// Where other systems find their peers.
#[derive(Clone, Copy)]
pub(crate) struct Peers {
    pub(crate) http: SocketAddr,
    pub(crate) btp: SocketAddr,
}

/// A port that was free a moment ago, for programs that cannot pick one.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// nginx as it is usually put before such a service: one worker, connections kept alive on both
/// sides, no access log.
pub(crate) fn nginx(name: &str, core: usize, folder: &Path, to: SocketAddr) -> Result<Subject> {
    let program = process::find("nginx")
        .ok_or("no nginx on the PATH (Debian: apt-get install nginx-light)")?;
    fs::create_dir_all(folder)?;
    let listen = free_port()?;
    let path = folder.display();
    let configuration = format!(
        "daemon off;
worker_processes 1;
pid {path}/nginx.pid;
error_log {path}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {path}/body;
    proxy_temp_path {path}/proxy;
    fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi;
    scgi_temp_path {path}/scgi;
    upstream peer {{ server {to}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://peer;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = process::pinned(core, &program);
    // -e as well: before it reads its configuration nginx would open the system's own log.
    command
        .arg("-e")
        .arg(folder.join("nginx.log"))
        .arg("-c")
        .arg(&file);
    let process = Process::spawn(&mut command)?;
    process::wait_for_listener(listen)?;
    let target = Target::Http(format!("http://{listen}/ilp"));
    Ok(Subject::new(name, vec![process], target))
}

/// What an `ilp-node` is measured with.
pub(crate) struct IlpNode {
    pub(crate) over_btp: bool,
    pub(crate) routes: usize,
    /// Every limit that it has is set, and none is met. Without: credit alone.
    pub(crate) strict: bool,
}

/// The published `ilp-node`, built in `programs`, with a Redis of its own that keeps everything in memory. Its
/// limits are kept by a module of Redis, as the package recommends.
pub(crate) fn ilp_node(
    name: &str,
    core: usize,
    folder: &Path,
    programs: &Path,
    peers: Peers,
    with: &IlpNode,
) -> Result<Subject> {
    let find = |file: &str| {
        let path = fs::canonicalize(programs.join(file));
        path.map_err(|_| format!("{file} was not built: bench/ilp-node"))
    };
    let (program, cell) = (find("ilp-node-peer")?, find("libredis_cell.so")?);
    let redis = process::find("redis-server")
        .ok_or("no redis-server on the PATH (Debian: apt-get install redis-server)")?;
    fs::create_dir_all(folder)?;
    let redis_address = free_port()?;
    let mut command = process::pinned(core, &redis);
    command
        .args([
            "--bind",
            "127.0.0.1",
            "--port",
            &redis_address.port().to_string(),
        ])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder)
        .arg("--loadmodule")
        .arg(cell)
        .stdout(Stdio::null());
    let redis = Process::spawn(&mut command)?;
    process::wait_for_listener(redis_address)?;

    let (http, settlement) = (free_port()?, free_port()?);
    let config = json!({
        "ilp_address": "test.bench",
        "secret_seed": "07".repeat(32),
        "admin_auth_token": ADMIN_TOKEN,
        "redis_url": format!("redis://{redis_address}"),
        "http_bind_address": http.to_string(),
        "settlement_api_bind_address": settlement.to_string(),
        "route_broadcast_interval": 3_600_000,
    });
    let file = folder.join("ilp-node.json");
    fs::write(&file, config.to_string())?;
    let mut command = process::pinned(core, &program);
    command
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log"))?);
    let mut node = Process::spawn(&mut command)?;
    wait_started(&mut node, http, &folder.join("log"))?;

    let asset = |mut account: Value| {
        account["asset_code"] = "USD".into();
        account["asset_scale"] = 9.into();
        account["min_balance"] = (-1_000_000_000_000_i64).into();
        if with.strict {
            account["max_packet_amount"] = 1_000.into();
            // More than that the module cannot count.
            account["packets_per_minute_limit"] = 1_000_000_000.into();
            account["amount_per_minute_limit"] = 1_000_000_000.into();
        }
        account
    };
    let load = asset(json!({
        "username": "load", "ilp_address": "test.bench.load",
        "ilp_over_http_incoming_token": "shh", "ilp_over_btp_incoming_token": "shh",
    }));
    let mut receiver = asset(json!({"username": "receiver", "ilp_address": RECEIVER}));
    if with.over_btp {
        // Not btp+ws: it takes that off by `set_scheme`, which the `url` of today refuses.
        receiver["ilp_over_btp_url"] = format!("ws://{}/", peers.btp).into();
        receiver["ilp_over_btp_outgoing_token"] = "bench:shh".into();
    } else {
        receiver["ilp_over_http_url"] = format!("http://{}/ilp", peers.http).into();
        receiver["ilp_over_http_outgoing_token"] = "bench:shh".into();
    }
    for account in [load, receiver] {
        api(http, "POST /accounts", &account)?;
    }
    let mut table = serde_json::Map::new();
    for number in 0..with.routes {
        table.insert(format!("test.elsewhere.n{number}"), "receiver".into());
    }
    api(http, "PUT /routes/static", &Value::Object(table))?;
    let target = if with.over_btp {
        Target::Btp(format!("ws://{http}/ilp/btp"))
    } else {
        Target::Http(format!("http://{http}/ilp"))
    };
    let mut subject = Subject::new(name, vec![node, redis], target);
    subject.token = "load:shh".to_owned();
    Ok(subject)
}

/// The JavaScript `ilp-connector` with its plug-ins, from `modules`.
pub(crate) fn ilp_connector(
    name: &str,
    core: usize,
    folder: &Path,
    modules: &Path,
    peers: Peers,
    over_btp: bool,
) -> Result<Subject> {
    let program = process::find("node").ok_or("no node on the PATH (Debian: nodejs)")?;
    if !modules.join("ilp-connector").is_dir() {
        return Err("ilp-connector was not installed: npm in target/bench/js".into());
    }
    fs::create_dir_all(folder)?;
    let listen = free_port()?;
    let account = |plugin: &str, options: Value| {
        json!({
            "relation": "peer", "plugin": plugin, "assetCode": "USD", "assetScale": 9,
            "sendRoutes": false, "receiveRoutes": false,
            // Every limit that it has is set, and none is met.
            "balance": {"maximum": "1000000000000", "minimum": "-1000000000000"},
            "maxPacketAmount": "1000",
            "rateLimit": {"refillPeriod": 60_000, "refillCount": u32::MAX},
            "throughput": {"incomingAmount": "1000000000000", "outgoingAmount": "1000000000000"},
            "options": options,
        })
    };
    let (load, receiver, target) = if over_btp {
        (
            account(
                "ilp-plugin-btp",
                json!({"listener": {"port": listen.port(), "secret": "shh"}}),
            ),
            account(
                "ilp-plugin-btp",
                json!({"server": format!("btp+ws://:shh@{}", peers.btp)}),
            ),
            Target::Btp(format!("ws://{listen}/")),
        )
    } else {
        // What the plug-in for the receiver listens on, nobody calls.
        let unused = free_port()?;
        let incoming = |port: u16| json!({"port": port, "staticToken": "shh"});
        let outgoing = |url: String| json!({"url": url, "staticToken": "shh"});
        (
            account(
                "ilp-plugin-http",
                json!({"incoming": incoming(listen.port()), "outgoing": outgoing(format!("http://{}/ilp", peers.http))}),
            ),
            account(
                "ilp-plugin-http",
                json!({"incoming": incoming(unused.port()), "outgoing": outgoing(format!("http://{}/ilp", peers.http))}),
            ),
            Target::Http(format!("http://{listen}/")),
        )
    };
    let accounts = json!({"load": load, "receiver": receiver});
    let routes = json!([{"targetPrefix": RECEIVER, "peerId": "receiver"}]);
    let script = folder.join("connector.js");
    let modules = fs::canonicalize(modules)?;
    fs::write(
        &script,
        format!(
            "module.paths.push({modules:?})\nrequire('ilp-connector').createApp().listen()\n  \
             .catch(error => {{ console.error(error); process.exit(1) }})\n",
        ),
    )?;
    let mut command = process::pinned(core, &program);
    command
        .arg(&script)
        .env("NODE_PATH", &modules)
        .env("NODE_ENV", "production")
        .env("CONNECTOR_ENV", "production")
        .env("CONNECTOR_ILP_ADDRESS", "test.bench")
        .env("CONNECTOR_ACCOUNTS", accounts.to_string())
        .env("CONNECTOR_ROUTES", routes.to_string())
        .env("CONNECTOR_BACKEND", "one-to-one")
        .env("CONNECTOR_SPREAD", "0")
        // Without broadcasts it would not even know its static routes.
        .env("CONNECTOR_ROUTE_BROADCAST_INTERVAL", "3600000")
        .env("CONNECTOR_INITIAL_CONNECT_TIMEOUT", "1000")
        .env("CONNECTOR_LOG_LEVEL", "error")
        .current_dir(folder)
        .stdout(fs::File::create(folder.join("log"))?)
        .stderr(fs::File::create(folder.join("err"))?);
    let mut process = Process::spawn(&mut command)?;
    wait_started(&mut process, listen, &folder.join("err"))?;
    let mut subject = Subject::new(name, vec![process], target);
    subject.token = "shh".to_owned();
    // It listens, and takes packets, before it is connected to the receiver; until then it refuses them by
    // T01 (no connection to account).
    crate::node::wait_for(|| {
        let found = Load::run_pinned(LOAD_CORE, &subject, 1, 1, super::DATA_BYTES, &[]);
        found.is_ok_and(|found| found.fulfilled == 1).then_some(())
    })?;
    Ok(subject)
}

/// Waits until a program listens; one that ended instead is quoted.
fn wait_started(process: &mut Process, address: SocketAddr, log: &Path) -> Result<()> {
    crate::node::wait_for(|| {
        if TcpStream::connect(address).is_ok() {
            return Some(Ok(()));
        }
        process.has_ended().then(|| {
            let said = fs::read_to_string(log).unwrap_or_default();
            let said: Vec<&str> = said
                .lines()
                .filter(|line| !line.trim().is_empty())
                .take(2)
                .collect();
            Err(format!(
                "it builds, and ends as soon as it starts: {}",
                said.join(" ")
            )
            .into())
        })
    })?
}

/// One request to the API of an `ilp-node`.
fn api(address: SocketAddr, line: &str, body: &Value) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(API_TIMEOUT))?;
    let body = body.to_string();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 2") {
        return Ok(());
    }
    let short: String = answer.chars().take(300).collect();
    Err(format!("{line}: {short}").into())
}

/// `rialto bench serve`, which also speaks HTTP/2.
pub(crate) fn rialto_serve(
    program: &Path,
    core: usize,
    extra: &[&str],
) -> Result<(Process, SocketAddr)> {
    let mut command = process::pinned(core, program);
    command
        .args([
            "bench",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--json",
            "--until-stdin-closes",
        ])
        .args(extra)
        .stdout(Stdio::piped());
    let mut process = Process::spawn(&mut command)?;
    let stdout = process.take_stdout().ok_or("no standard output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let listening: Value =
        serde_json::from_str(&line).map_err(|_| "`rialto bench serve` did not start".to_owned())?;
    let address = listening["listen"].as_str().ok_or("no address")?.parse()?;
    Ok((process, address))
}

/// `rialto bench run`: what it printed as JSON.
pub(crate) fn rialto_run(program: &Path, core: usize, arguments: &[String]) -> Result<Value> {
    let mut command: Command = process::pinned(core, program);
    let output = command
        .args(["bench", "run", "--json"])
        .args(arguments)
        .stderr(Stdio::piped())
        .output()?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        String::from_utf8_lossy(&output.stderr)
            .trim()
            .to_owned()
            .into()
    })
}

/// A folder of the suite's, by a name that may hold anything.
pub(crate) fn folder(below: &Path, name: &str) -> PathBuf {
    below.join(name.replace(|character: char| !character.is_ascii_alphanumeric(), "-"))
}
