//! Rialto itself as a subject: one node, one I/O thread, strict limits, journal on.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
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
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Starts `program` with one account that sends and one that the packets go to, both over HTTP or
/// both over BTP.
pub(crate) fn subject(
    name: &str,
    program: &Path,
    core: usize,
    folder: &Path,
    link: &Value,
) -> Result<Subject> {
    let folder = folder.join(name.replace([' ', ':'], "-"));
    fs::create_dir(&folder)?;
    let config = "[node]\nilp_address = \"test.bench\"\nlisten = \"127.0.0.1:0\"\nthreads = 1\n\
                  [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n";
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
    let mut command = process::pinned(core, program);
    command
        .arg("run")
        .arg("--config")
        .arg(folder.join("rialto.toml"));
    let process = Process::spawn(&mut command)?;

    let endpoints = wait_for(|| {
        let text = fs::read(folder.join("data/endpoints.json")).ok()?;
        serde_json::from_slice::<Value>(&text).ok()
    })?;
    let address = |listener: &str| -> Result<SocketAddr> {
        Ok(endpoints[listener]
            .as_str()
            .ok_or("no address in endpoints.json")?
            .parse()?)
    };
    let (node, admin) = (address("node")?, address("admin")?);

    // Every limit is set, so that every one is checked.
    let limits = json!({
        "balance_min": "-1000000000000", "packet_amount_max": "1000", "packets_per_minute": u32::MAX,
        "amount_per_minute": "1000000000000", "in_flight_count_max": 100_000,
        "in_flight_amount_max": "1000000000", "unsynced_amount_max": "1000000000",
    });
    let account = |name: &str| json!({"name": name, "relation": "child", "asset_code": "USD", "asset_scale": 9, "limits": limits});
    let mut load = account("load");
    load["incoming_token"] = TOKEN.into();
    let mut receiver = account("receiver");
    let (kind, settings) = link
        .as_object()
        .and_then(|link| link.iter().next())
        .ok_or("no link")?;
    receiver[kind.as_str()] = settings.clone();
    for account in [load, receiver] {
        call(admin, "POST /v1/accounts", &account.to_string())?;
    }
    let target = if kind == "btp" {
        wait_for(|| {
            let account = call(admin, "GET /v1/accounts/receiver", "").ok()?;
            account.contains("\"link\":\"up\"").then_some(())
        })?;
        Target::Btp(format!("ws://{node}/accounts/load/ilp/btp"))
    } else {
        Target::Http(format!("http://{node}/accounts/load/ilp"))
    };
    Ok(Subject {
        name: name.to_owned(),
        process,
        target,
    })
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Some(found) => return Ok(found),
            None if Instant::now() > deadline => return Err("the node does not get ready".into()),
            None => std::thread::sleep(POLL),
        }
    }
}

/// One request to the admin API; the body of its answer, if it worked.
fn call(admin: SocketAddr, line: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 2") {
        Ok(answer)
    } else {
        Err(format!("{line}: {answer}").into())
    }
}
