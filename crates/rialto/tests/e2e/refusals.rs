//! Bad input, and neighbours that misbehave, against the real binary.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use rialto_packet::{Prepare, Reply};
use serde_json::{Value, json};

use crate::{
    harness::{CREDIT, Node, wait_for},
    raw::{self, Client, OCTETS, Server},
};

const TOKEN: &str = "token-from-alice-to-hub";

/// A hub that alice sends to; bob is reached by HTTP at `bob`.
fn hub(bob: &Server) -> (Node, Client) {
    let hub = Node::start("hub", "test.hub", "");
    hub.account(json!({
        "name": "alice", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": TOKEN,
    }));
    hub.account(json!({
        "name": "bob", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "http": {"url": format!("http://{}/ilp", bob.address), "token": "t"},
    }));
    let client = Client::new(hub.node, "/accounts/alice/ilp", TOKEN);
    (hub, client)
}

fn send(client: &mut Client, destination: &str, amount: u64, life_ms: i64) -> (String, String) {
    let packet = raw::prepare(raw::next_number(), amount, destination, life_ms);
    match client.send(&packet).unwrap() {
        Reply::Fulfill(_) => ("fulfill".to_owned(), String::new()),
        Reply::Reject(reject) => {
            let message = reject.message().into_owned();
            let reason = message.split(':').next().unwrap().to_owned();
            (reject.code().to_string(), reason)
        }
    }
}

fn fulfilling() -> Server {
    Server::start(|packet| Some((200, OCTETS, raw::fulfill(packet))))
}

#[test]
fn a_neighbour_that_misbehaves_is_named_and_paid_nothing() {
    let bob = Server::start(|packet| {
        let prepare = Prepare::parse(packet).unwrap();
        let last = prepare
            .destination()
            .as_str()
            .rsplit('.')
            .next()
            .unwrap()
            .to_owned();
        let ok = |body| Some((200, OCTETS, body));
        match last.as_str() {
            "garbage" => ok(b"garbage".to_vec()),
            "wrong" => ok([&[0x0d, 0x21][..], &[9; 32], &[0]].concat()),
            "prepare" => ok(packet.to_vec()),
            "html" => Some((200, "text/html", b"<html>".to_vec())),
            "silent" => None,
            status => Some((status.parse().unwrap(), "text/plain", b"no".to_vec())),
        }
    });
    let (hub, mut alice) = hub(&bob);
    for (last, code, reason) in [
        ("garbage", "T01", "link.bad_reply"),
        ("prepare", "T01", "link.bad_reply"),
        ("html", "T01", "link.content_type"),
        ("wrong", "F05", "cond.mismatch"),
        ("401", "T01", "link.http_401"),
        ("403", "T01", "link.http_403"),
        ("404", "T01", "link.http_404"),
        ("413", "T01", "link.http_413"),
        ("429", "T01", "link.http_429"),
        ("500", "T01", "link.http_5xx"),
        ("503", "T01", "link.http_5xx"),
        ("silent", "R00", "expiry.timed_out"),
    ] {
        let life_ms = if last == "silent" { 2_500 } else { 20_000 };
        let refused = send(&mut alice, &format!("test.hub.bob.{last}"), 10, life_ms);
        assert_eq!(refused, (code.to_owned(), reason.to_owned()), "{last}");
    }
    assert_eq!((hub.balance("alice"), hub.balance("bob")), (0, 0));
    let alice = hub.ok("GET", "/v1/accounts/alice", None);
    assert_eq!(alice["in_flight"], json!({"count": 0, "amount": "0"}));
    // The metrics tell them apart.
    let metrics = hub.ok("GET", "/metrics", None);
    for reason in ["link.http_404", "cond.mismatch", "expiry.timed_out"] {
        let metrics = metrics.as_str().unwrap();
        assert!(
            metrics.contains(&format!("reason=\"{reason}\"")),
            "{reason}"
        );
    }
    println!(
        "reliability: refusals | 12 ways for the next hop to misbehave | each has its reason, 0 units moved, \
         0 holds left"
    );
}

#[test]
fn nobody_listening_is_a_reason_of_its_own() {
    let gone = fulfilling();
    let (hub, mut alice) = hub(&gone);
    drop(gone);
    let refused = wait_for("the listener to be gone", || {
        let refused = send(&mut alice, "test.hub.bob.x", 1, 5_000);
        // One that it took last is not answered any more.
        let is_taken = refused.0 == "fulfill" || refused.1 == "expiry.timed_out";
        (!is_taken).then_some(refused)
    });
    assert_eq!(refused, ("T01".to_owned(), "link.connect".to_owned()));
    hub.ok(
        "PATCH",
        "/v1/accounts/bob",
        Some(json!({
            "http": {"url": "http://no-such-host.invalid/ilp", "token": "t"},
        })),
    );
    let refused = send(&mut alice, "test.hub.bob.x", 1, 20_000);
    assert_eq!(refused, ("T01".to_owned(), "link.dns".to_owned()));
    let tls = fulfilling();
    hub.ok(
        "PATCH",
        "/v1/accounts/bob",
        Some(json!({
            "http": {"url": format!("https://{}/ilp", tls.address), "token": "t"},
        })),
    );
    let refused = send(&mut alice, "test.hub.bob.x", 1, 20_000);
    assert_eq!(refused, ("T01".to_owned(), "link.tls".to_owned()));
    hub.ok("PATCH", "/v1/accounts/bob", Some(json!({"http": null})));
    let refused = send(&mut alice, "test.hub.bob.x", 1, 20_000);
    assert_eq!(refused, ("T01".to_owned(), "link.closed".to_owned()));
}

#[test]
fn packets_that_cannot_be_forwarded_are_told_why() {
    let bob = fulfilling();
    let (hub, mut alice) = hub(&bob);
    hub.account(json!({
        "name": "carol", "relation": "child", "asset_code": "GBP", "asset_scale": 2,
        "http": {"url": format!("http://{}/ilp", bob.address), "token": "t"},
    }));
    hub.account(json!({
        "name": "dave", "relation": "child", "asset_code": "EUR", "asset_scale": 2,
        "http": {"url": format!("http://{}/ilp", bob.address), "token": "t"},
    }));
    hub.ok(
        "PUT",
        "/v1/rates",
        Some(json!({"from": "USD", "to": "EUR", "rate": "0.9"})),
    );
    let limits = json!({"limits": {
        "balance_min": "-100000000", "packet_amount_max": "20000000",
    }});
    hub.ok("PATCH", "/v1/accounts/alice", Some(limits));
    for (destination, amount, life_ms, code, reason) in [
        ("test.nowhere.x", 1, 20_000, "F02", "route.none"),
        ("g.somewhere.x", 1, 20_000, "F02", "route.none"),
        ("peer.unknown", 0, 20_000, "F01", "addr.invalid"),
        (
            "test.hub.bob.x",
            20_000_001,
            20_000,
            "F08",
            "acct.packet_limit",
        ),
        ("test.hub.carol.x", 10_000_000, 20_000, "T00", "fx.no_rate"),
        ("test.hub.dave.x", 10, 20_000, "R01", "fx.rounds_to_zero"),
        ("test.hub.bob.x", 1, 1_500, "R02", "expiry.too_soon"),
        ("test.hub.bob.x", 1, -1, "R00", "pkt.expired"),
    ] {
        let refused = send(&mut alice, destination, amount, life_ms);
        assert_eq!(
            refused,
            (code.to_owned(), reason.to_owned()),
            "{destination} {amount}"
        );
    }
    // To the last unit of credit, and not one more.
    for _ in 0..5 {
        assert_eq!(
            send(&mut alice, "test.hub.bob.x", 20_000_000, 20_000).0,
            "fulfill"
        );
    }
    let refused = send(&mut alice, "test.hub.bob.x", 1, 20_000);
    assert_eq!(refused, ("T04".to_owned(), "acct.credit_limit".to_owned()));
    assert_eq!(hub.balance("alice"), -100_000_000);
    hub.ok("PATCH", "/v1/accounts/alice", Some(json!({"paused": true})));
    assert_eq!(
        send(&mut alice, "test.hub.bob.x", 0, 20_000).1,
        "acct.paused"
    );
    println!(
        "reliability: refusals | 10 packets that cannot be forwarded | each has its code and reason; credit \
         used to the last unit"
    );
}

#[test]
fn malformed_and_oversized_packets_are_refused() {
    let bob = fulfilling();
    let (hub, mut alice) = hub(&bob);
    let good = raw::prepare(raw::next_number(), 1, "test.hub.bob.x", 20_000);
    let mut refused = |body: &[u8]| match alice.send(body).unwrap() {
        Reply::Fulfill(_) => panic!("fulfilled"),
        Reply::Reject(reject) => (reject.code().to_string(), reject.message().into_owned()),
    };
    for cut in [0, 1, 2, 20, good.len() - 1] {
        let (code, message) = refused(&good[..cut]);
        assert_eq!(code, "F01");
        assert!(message.starts_with("pkt.malformed"), "{message}");
    }
    let mut too_long = vec![12, 0x82, 0, 0];
    too_long.extend_from_slice(&good[2..good.len() - 33]);
    too_long.extend_from_slice(&[0x82, 0x80, 0x00]);
    too_long.resize(too_long.len() + 0x8000, 0);
    let length = u16::try_from(too_long.len() - 4).unwrap();
    too_long[2..4].copy_from_slice(&length.to_be_bytes());
    let (code, message) = refused(&too_long);
    assert_eq!(code, "F01");
    assert!(message.starts_with("pkt.too_large"), "{message}");
    let mut address = good.clone();
    address[60] = b'!';
    assert!(refused(&address).1.starts_with("addr.invalid"));

    // A body over the limit is refused before it is read, and others go on.
    let mut stream = TcpStream::connect(hub.node).unwrap();
    write!(
        stream,
        "POST /accounts/alice/ilp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 40001\r\n\r\n"
    )
    .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(send(&mut alice, "test.hub.bob.x", 1, 20_000).0, "fulfill");
}

#[test]
fn strangers_learn_nothing() {
    let bob = fulfilling();
    let (hub, _) = hub(&bob);
    let packet = raw::prepare(raw::next_number(), 1, "test.hub.bob.x", 20_000);
    let mut answers = Vec::new();
    for (path, authorization) in [
        (
            "/accounts/alice/ilp",
            "Authorization: Bearer wrong-token-wrong-token\r\n",
        ),
        (
            "/accounts/nobody/ilp",
            "Authorization: Bearer wrong-token-wrong-token\r\n",
        ),
        (
            "/accounts/nobody/ilp",
            "Authorization: Bearer token-from-alice-to-hub\r\n",
        ),
        (
            "/accounts/bob/ilp",
            "Authorization: Bearer token-from-alice-to-hub\r\n",
        ),
        ("/accounts/alice/ilp", ""),
        ("/ilp", "Authorization: Bearer wrong-token-wrong-token\r\n"),
    ] {
        let mut stream = TcpStream::connect(hub.node).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            packet.len()
        )
        .unwrap();
        let _ = stream.write_all(&packet);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let lines = answer
            .lines()
            .filter(|line| !line.to_lowercase().starts_with("date:"));
        answers.push(lines.collect::<Vec<_>>().join("\n"));
    }
    assert!(answers[0].starts_with("HTTP/1.1 401"), "{}", answers[0]);
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
    assert_eq!(hub.balance("alice"), 0);
    println!(
        "reliability: refusals | {} requests of strangers | the same answer to all",
        answers.len()
    );
}

fn problem(hub: &Node, method: &str, path: &str, body: Value, status: u16, field: &str) {
    let (found, problem) = hub.call(method, path, Some(body));
    assert_eq!(
        (found, problem["field"].as_str()),
        (status, Some(field)),
        "{problem}"
    );
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let bob = fulfilling();
    let (hub, _) = hub(&bob);
    let account = |change: Value| {
        let mut account = json!({
            "name": "new", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
        });
        account
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        account
    };
    for (change, status, field) in [
        (json!({"name": "alice"}), 409, "name"),
        (json!({"incoming_token": TOKEN}), 409, "incoming_token"),
        (json!({"asset_scale": 256}), 422, "asset_scale"),
        (
            json!({"limits": {"packet_amount_max": "10", "in_flight_amount_max": "5"}}),
            422,
            "limits.packet_amount_max",
        ),
        (
            json!({"limits": {"balance_min": "1"}}),
            422,
            "limits.balance_min",
        ),
        (json!({"spread": "1"}), 422, "spread"),
        (json!({"name": "a b"}), 422, "name"),
    ] {
        problem(&hub, "POST", "/v1/accounts", account(change), status, field);
    }
    let (status, problem) = hub.call(
        "POST",
        "/v1/accounts",
        Some(account(json!({"colour": "red"}))),
    );
    assert_eq!(status, 422, "{problem}");
    assert!(problem.to_string().contains("colour"), "{problem}");
}

#[test]
fn check_online_names_the_peers_that_cannot_be_reached() {
    let bob = fulfilling();
    let (hub, _) = hub(&bob);
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rialto"));
        command.args(["check", "--online", "--config"]);
        let output = command
            .arg(hub.folder().join("rialto.toml"))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    // Alice has no session; bob listens.
    let (code, said) = check();
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("alice: no BTP session\n"), "{said}");
    assert!(
        said.contains(&format!(
            "bob: http://{}/ilp accepts connections\n",
            bob.address
        )),
        "{said}"
    );
    hub.ok("DELETE", "/v1/accounts/alice", None);
    assert_eq!(check().0, Some(0));
}

#[test]
fn a_receiver_that_does_not_resolve_is_named() {
    let hub = Node::start("hub", "test.hub", "");
    hub.account(json!({
        "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT},
    }));
    let not_spsp = Server::start(|_| Some((200, "text/html", b"<html>hello</html>".to_vec())));
    let missing = Server::start(|_| Some((404, "text/plain", b"nothing here".to_vec())));
    for (server, back) in [(&not_spsp, "text/html"), (&missing, "404")] {
        let url = format!("http://{}/nobody", server.address);
        let request = json!({"account": "wallet", "receiver": url, "amount": "1000"});
        let payment = hub.pay(&url, &request);
        assert_eq!(payment["state"], "failed");
        let message = payment["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(&url) && message.contains(back),
            "{message}"
        );
        assert_eq!(payment["sent"]["amount"], "0");
    }
}

#[test]
fn a_pair_without_a_rate_is_named_before_anything_is_sent() {
    let hub = Node::start("hub", "test.hub", "");
    for (name, code) in [("wallet", "USD"), ("shop", "EUR")] {
        hub.account(json!({
            "name": name, "relation": "local", "asset_code": code, "asset_scale": 2,
            "limits": {"balance_min": CREDIT},
        }));
    }
    let request = json!({"account": "wallet", "receiver": hub.pointer("shop"), "amount": "10"});
    let (status, problem) = hub.call("POST", "/v1/quotes", Some(request.clone()));
    assert_eq!(
        (status, problem["field"].as_str()),
        (422, Some("receiver")),
        "{problem}"
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("fx.no_rate") && detail.contains("from USD to EUR"),
        "{detail}"
    );
    let payment = hub.pay("no-rate", &request);
    assert_eq!(
        (&payment["state"], &payment["error"]["code"]),
        (&json!("failed"), &json!("no_path"))
    );
    hub.ok(
        "PUT",
        "/v1/rates",
        Some(json!({"from": "USD", "to": "EUR", "rate": "0.5"})),
    );
    let quote = hub.ok("POST", "/v1/quotes", Some(request));
    assert_eq!(quote["deliver_amount"]["amount"], "5", "{quote}");
}

fn run_badly(node: &Node) -> (i32, String) {
    let mut command = node.command();
    let output = command.stderr(Stdio::piped()).output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_node_that_cannot_start_says_why_and_writes_nothing() {
    // An unknown key.
    let node = Node::prepare("bad", "test.bad", "lisen = 1\n");
    let (code, said) = run_badly(&node);
    assert_eq!(code, 78);
    assert!(
        said.contains("lisen") && said.contains("listen") && said.contains("rialto.toml:6:1"),
        "{said}"
    );
    assert!(!node.folder().join("data").exists());

    // A wrong type.
    let node = Node::prepare("bad", "test.bad", "threads = \"two\"\n");
    let (code, said) = run_badly(&node);
    assert!(code == 78 && said.contains("rialto.toml:6:11"), "{said}");

    // A secret that others can read.
    let node = Node::prepare("bad", "test.bad", "");
    let secret = node.folder().join("secret.key");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = run_badly(&node);
    assert!(
        code == 78 && said.contains("secret.key") && said.contains("chmod 600"),
        "{said}"
    );
    assert!(!node.folder().join("data").exists());

    // A port that is taken.
    let taken = Node::start("first", "test.first", "");
    let node = Node::prepare("second", "test.second", "");
    let mut command = node.command();
    command.env("RIALTO_NODE__LISTEN", taken.node.to_string());
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(
        said.contains("node.listen") && said.contains(&taken.node.to_string()),
        "{said}"
    );
    assert!(!node.folder().join("data").exists());

    // A data folder that is in use.
    let (code, said) = run_badly(&taken);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains(&format!("process {}", taken.pid())), "{said}");

    // A data folder of another version: bytes 8 to 11 of its files.
    let mut node = taken;
    assert_eq!(node.terminate(), 0);
    let journal = node.folder().join("data/journal");
    // All but the lock, which holds the number of the process that tried last.
    let files = || {
        let entries = fs::read_dir(&journal).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with("lock"))
    };
    for file in files() {
        let mut bytes = fs::read(&file).unwrap();
        bytes[8..12].copy_from_slice(&99u32.to_le_bytes());
        fs::write(&file, bytes).unwrap();
    }
    let contents = || {
        files()
            .map(|file| fs::read(file).unwrap())
            .collect::<Vec<_>>()
    };
    let before = contents();
    let (code, said) = run_badly(&node);
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains("has format version 99") && said.contains("journal"),
        "{said}"
    );
    assert_eq!(contents(), before, "nothing is written");
}

#[test]
fn sighup_reloads_and_keeps_the_old_settings_when_the_new_are_bad() {
    let hub = Node::start("hub", "test.hub", "spread = \"0.01\"\n");
    let file = hub.folder().join("rialto.toml");
    let text = fs::read_to_string(&file).unwrap();
    let spread = || hub.ok("GET", "/v1/rates", None)["default_spread"].clone();
    assert_eq!(spread(), "0.01");
    fs::write(&file, text.replace("spread = \"0.01\"", "spread = \"2\"")).unwrap();
    hub.signal("HUP");
    wait_for("the refusal of the reload", || {
        hub.log().contains("the old one stays").then_some(())
    });
    assert_eq!(spread(), "0.01");
    fs::write(
        &file,
        text.replace("spread = \"0.01\"", "spread = \"0.02\""),
    )
    .unwrap();
    hub.signal("HUP");
    wait_for("the reload", || (spread() == "0.02").then_some(()));
}
