//! `peer doctor`: mistakes that operators make, seeded one at a time between real nodes, or between a
//! node and a server that is none. Each has to be named.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd};
use rialto_packet::{
    Address, ErrorCode, PEER_CONDITION, PEER_FULFILLMENT, Prepare, PrepareBuilder, RejectBuilder,
    Reply, Timestamp,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs};
use serde_json::{Value, json};

use crate::{
    harness::{CREDIT, Node, wait_for},
    peering::rialto,
    raw::{Client, OCTETS, Server, fulfill_with},
};

const TO_BOB: &str = "token_of_alice_at_bobs";
const TO_ALICE: &str = "token_of_bob_at_alices";

fn diagnose(node: &Node, account: &str) -> Value {
    node.ok(
        "POST",
        &format!("/v1/accounts/{account}/doctor"),
        Some(json!({})),
    )
}

/// The first mistake that is named, and what is said about it.
fn mistake(found: &Value) -> (String, String) {
    let checks = found["checks"].as_array().unwrap();
    let failed = checks.iter().find(|check| check["verdict"] == "fail");
    let failed = failed.unwrap_or_else(|| panic!("nothing is wrong: {found}"));
    assert_eq!(found["healthy"], false);
    let text = |key: &str| failed[key].as_str().unwrap().to_owned();
    (text("mistake"), text("detail"))
}

fn instant(text: &Value) -> jiff::Timestamp {
    text.as_str().unwrap().parse().unwrap()
}

/// alice, who trusts these certificates, and bob, who are peers over HTTP in both directions.
struct Pair {
    alice: Node,
    bob: Node,
    named: Vec<String>,
}

impl Pair {
    fn new(roots: &str) -> Self {
        let mut alice = Node::prepare("alice", "test.alice", "tls_roots_file = \"roots.pem\"");
        fs::write(alice.folder().join("roots.pem"), roots).unwrap();
        alice.restart();
        let bob = Node::start("bob", "test.bob", "");
        let account = |name: &str, incoming: &str, outgoing: &str, url: String| {
            json!({
                "name": name, "relation": "peer", "ilp_address": format!("test.{name}"),
                "asset_code": "USD", "asset_scale": 9, "limits": {"balance_min": CREDIT},
                "incoming_token": incoming, "http": {"url": url, "token": outgoing},
            })
        };
        alice.account(account("bob", TO_ALICE, TO_BOB, bob.ilp_url("alice")));
        bob.account(account("alice", TO_BOB, TO_ALICE, alice.ilp_url("bob")));
        alice.account(json!({
            "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": CREDIT},
        }));
        Self {
            alice,
            bob,
            named: Vec::new(),
        }
    }

    /// Changes an account, asks, and changes it back.
    fn seeded(&mut self, at_bob: bool, change: Value, back: Value, expected: &str, says: &str) {
        let (node, account) = match at_bob {
            true => (&self.bob, "/v1/accounts/alice"),
            false => (&self.alice, "/v1/accounts/bob"),
        };
        node.ok("PATCH", account, Some(change));
        self.named("bob", expected, says);
        let node = if at_bob { &self.bob } else { &self.alice };
        node.ok("PATCH", account, Some(back));
    }

    /// Where alice sends to, and what is wrong with it.
    fn url(&mut self, url: &str, expected: &str, says: &str) {
        let back = json!({"http": {"url": self.bob.ilp_url("alice"), "token": TO_BOB}});
        let change = json!({"http": {"url": url, "token": TO_BOB}});
        self.seeded(false, change, back, expected, says);
    }

    fn named(&mut self, account: &str, expected: &str, says: &str) {
        let found = diagnose(&self.alice, account);
        let (word, detail) = mistake(&found);
        let family = expected.ends_with('.') && word.starts_with(expected);
        assert!(word == expected || family, "{expected}: {found}");
        assert!(detail.contains(says), "{word}: {detail}");
        self.named.push(word);
        let shown = self
            .alice
            .ok("GET", &format!("/v1/accounts/{account}"), None);
        let error = shown["last_error"]["message"].as_str().unwrap();
        assert!(error.starts_with(expected), "{error}");
        assert_ne!(shown["state"], "established", "{shown}");
        let state = match expected {
            "tcp.refused" | "tcp.timeout" => "configured",
            "path.html" | "path.status" | "token.refused" => "reachable",
            "asset.scale" | "asset.code" => "authenticated",
            _ => return,
        };
        assert_eq!(shown["state"], state, "{expected}: {shown}");
    }

    /// The command as its operator runs it: exit code, standard output, standard error.
    fn command(&self, extra: &[&str]) -> (Option<i32>, String, String) {
        let output = rialto(&self.alice, &[&["peer", "doctor", "bob"], extra].concat());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, said) = (text(&output.stdout), text(&output.stderr));
        (output.status.code(), out, said)
    }

    /// As a table and as JSON: every row is well, or the first that is not names its mistake.
    fn told(&self, expected: Option<&str>) {
        let (code, table, said) = self.command(&[]);
        let rows: Vec<_> = table.lines().skip(1).collect();
        let verdict = |row: &&str| row.split_whitespace().nth(1).map(str::to_owned);
        let verdicts: Vec<_> = rows.iter().filter_map(verdict).collect();
        assert!(table.lines().next().unwrap().contains("CHECK"), "{table}");
        assert_eq!(verdicts.len(), rows.len(), "{table}");
        let (json_code, json, _) = self.command(&["--json"]);
        let found: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(found["account"], "bob");
        let Some(expected) = expected else {
            assert_eq!((code, json_code), (Some(0), Some(0)), "{table}{said}");
            assert!(
                verdicts
                    .iter()
                    .all(|verdict| verdict == "ok" || verdict == "-")
            );
            assert!(verdicts.iter().filter(|verdict| *verdict == "ok").count() >= 16);
            assert_eq!(found["healthy"], true, "{found}");
            assert_eq!(said, "");
            return;
        };
        assert_eq!((code, json_code), (Some(1), Some(1)), "{table}{said}");
        let mut wrong = rows.iter().filter(|row| row.contains("WRONG"));
        assert!(wrong.next().unwrap().contains(expected), "{table}");
        let words = format!("bob is not well: {expected}");
        assert!(said.contains(&words), "{said}");
        assert_eq!(mistake(&found).0, expected);
    }

    /// An account of alice's for bob in another asset.
    fn in_asset(&mut self, name: &str, code: &str, scale: u8, expected: &str) {
        let url = self.bob.ilp_url("alice");
        self.alice.account(json!({
            "name": name, "relation": "peer", "ilp_address": format!("test.{name}"),
            "asset_code": code, "asset_scale": scale, "http": {"url": url, "token": TO_BOB},
        }));
        self.named(name, expected, &format!("{code}/{scale}"));
        self.alice
            .ok("DELETE", &format!("/v1/accounts/{name}"), None);
    }
}

/// A server that gives every request the same answer.
fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, answer) = (socket.unwrap(), answer.clone());
            thread::spawn(move || {
                let mut request = [0; 4_096];
                if socket.read(&mut request).is_ok() {
                    let _ = socket.write_all(&answer);
                }
            });
        }
    });
    format!("http://{address}/ilp")
}

fn answer(status: &str, headers: &str, body: &[u8]) -> String {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    answering([head.as_bytes(), body].concat())
}

/// What a node says that knows no ILDCP.
fn reject() -> Vec<u8> {
    let reject = RejectBuilder {
        code: ErrorCode::F02_UNREACHABLE,
        triggered_by: None,
        message: "no",
        data: b"",
    };
    reject.encode().unwrap()
}

fn certificate(host: &str, from: i32, until: i32) -> CertifiedKey<KeyPair> {
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let signing_key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    CertifiedKey { cert, signing_key }
}

/// A server that does a TLS handshake on each connection, and no more.
fn tls_server(identity: &CertifiedKey<KeyPair>) -> SocketAddr {
    tls_server_of(identity, &[])
}

/// One that speaks these protocols alone, if there are any.
fn tls_server_of(identity: &CertifiedKey<KeyPair>, protocols: &[&[u8]]) -> SocketAddr {
    let chain = vec![identity.cert.der().clone()];
    let key = identity.signing_key.serialize_der().try_into().unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, socket.unwrap());
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4_096]);
                let _ = stream.flush();
            });
        }
    });
    address
}

/// A port that takes no more connections and does not say so, for as long as what is returned lives.
fn full_port() -> (SocketAddr, impl Sized) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(1).unwrap()
    });
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
    }
    (address, (runtime, listener, waiting))
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn each_seeded_mistake_is_named() {
    let good = certificate("127.0.0.1", 2020, 2090);
    let expired = certificate("127.0.0.1", 2020, 2021);
    let early = certificate("127.0.0.1", 2089, 2090);
    let other_name = certificate("bob.example", 2020, 2090);
    let unknown = certificate("127.0.0.1", 2020, 2090);
    let trusted = [&good, &expired, &early, &other_name];
    let roots: String = trusted.map(|identity| identity.cert.pem()).concat();
    let mut pair = Pair::new(&roots);

    let found = diagnose(&pair.alice, "bob");
    assert_eq!(found["healthy"], true, "{found}");
    let shown = pair.alice.ok("GET", "/v1/accounts/bob", None);
    assert_eq!(shown["state"], "established", "{shown}");
    let checks = found["checks"].as_array().unwrap().iter();
    let passed: Vec<_> = { checks }
        .filter(|check| check["verdict"] == "pass")
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    let expected = [
        "route",
        "name",
        "tcp",
        "path",
        "token_out",
        "content_type",
        "clock",
        "asset",
        "ilp_address",
        "relation",
        "token_in",
        "credit",
        "packet_max",
        "ccp",
        "zero_packet",
        "one_unit",
    ];
    assert_eq!(passed, expected);
    assert_eq!(
        pair.bob.balance("alice"),
        -1,
        "the round trip costs one unit"
    );

    // What an operator sees of it, and of a mistake.
    pair.told(None);
    let link =
        |token: &str| Some(json!({"http": {"url": pair.bob.ilp_url("alice"), "token": token}}));
    pair.alice.ok("PATCH", "/v1/accounts/bob", link(TO_ALICE));
    pair.told(Some("token.refused"));
    pair.alice.ok("PATCH", "/v1/accounts/bob", link(TO_BOB));

    // The way there.
    pair.url(
        "http://no-such-host.invalid/ilp",
        "name.",
        "no-such-host.invalid",
    );
    pair.url(
        &format!("http://{}/ilp", free_port()),
        "tcp.refused",
        "refuses connections",
    );
    let (full, _held) = full_port();
    pair.url(
        &format!("http://{full}/ilp"),
        "tcp.timeout",
        "does not answer",
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}/ilp", silent.local_addr().unwrap());
    pair.url(&silent_url, "path.silent", "answers nothing");
    for (identity, expected) in [
        (&expired, "tls.expired"),
        (&early, "tls.not_yet_valid"),
        (&other_name, "tls.other_name"),
        (&unknown, "tls.unknown_ca"),
    ] {
        pair.url(
            &format!("https://{}/ilp", tls_server(identity)),
            expected,
            "certificate",
        );
    }
    let other = tls_server_of(&good, &[b"smtp"]);
    pair.url(
        &format!("https://{other}/ilp"),
        "alpn.mismatch",
        "neither HTTP/1.1 nor HTTP/2",
    );
    let plain = pair.bob.ilp_url("alice").replace("http:", "https:");
    pair.url(&plain, "tls.plain_http", "speaks plain HTTP");
    pair.url(
        &format!("http://{}/ilp", tls_server(&good)),
        "path.speaks_tls",
        "https://",
    );

    // What is there.
    let wrong = pair.bob.ilp_url("alic").replace("/ilp", "/ilpp");
    pair.url(&wrong, "path.wrong", "/ilp answers ILP");
    pair.url(
        &answer("302 Found", "Location: http://x/\r\n", b""),
        "path.redirect",
        "http://x/",
    );
    pair.url(
        &answer("202 Accepted", "", b""),
        "path.callback_mode",
        "202",
    );
    pair.url(
        &answer("500 Oh", "", b"it broke"),
        "path.status",
        "it broke",
    );
    let page = answer(
        "200 OK",
        "Content-Type: text/html; charset=utf-8\r\n",
        b"<html>",
    );
    pair.url(&page, "path.html", "a web site");
    let text = answer("200 OK", "Content-Type: text/plain\r\n", &reject());
    pair.url(&text, "content_type.wrong", "text/plain");
    let octets = format!("Content-Type: {OCTETS}\r\n");
    pair.url(
        &answer("200 OK", &octets, b"pong"),
        "content_type.no_packet",
        "no ILP packet",
    );
    pair.url(&answer("415 No", "", b""), "content_type.refused", "415");
    let late = format!("{octets}Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    pair.url(
        &answer("200 OK", &late, &reject()),
        "clock.off",
        "behind ours",
    );

    // Who is there.
    let url = pair.bob.ilp_url("alice");
    let back = json!({"http": {"url": url, "token": TO_BOB}});
    let swapped = json!({"http": {"url": url, "token": TO_ALICE}});
    pair.seeded(false, swapped, back.clone(), "token.refused", "401");
    let theirs = pair.alice.ilp_url("bob");
    let back_bob = json!({"http": {"url": theirs, "token": TO_ALICE}});
    let swapped = json!({"http": {"url": theirs, "token": TO_BOB}});
    pair.seeded(true, swapped, back_bob.clone(), "token.incoming", "401");
    let closed = json!({"http": {"url": format!("http://{}/ilp", free_port()), "token": TO_ALICE}});
    pair.seeded(
        true,
        closed,
        back_bob.clone(),
        "peer.cannot_reach_us",
        "tcp.refused",
    );
    pair.seeded(
        true,
        json!({"http": null}),
        back_bob,
        "peer.no_link",
        "only answer",
    );
    pair.alice.account(json!({
        "name": "loop", "relation": "peer", "ilp_address": "test.loop", "asset_code": "USD",
        "asset_scale": 9, "incoming_token": "token_of_nobody_else",
        "http": {"url": pair.alice.ilp_url("loop"), "token": "token_of_nobody_else"},
    }));
    pair.named("loop", "address.self", "test.alice");

    // What was agreed on.
    pair.in_asset("scaled", "USD", 6, "asset.scale");
    pair.in_asset("other", "EUR", 9, "asset.code");
    let address = |address: &str| json!({"ilp_address": address});
    pair.seeded(
        false,
        address("test.bobby"),
        address("test.bob"),
        "address.differs",
        "test.bobby",
    );
    pair.seeded(
        true,
        address("test.alicia"),
        address("test.alice"),
        "address.ours",
        "test.alicia",
    );
    pair.seeded(
        true,
        json!({"ilp_address": null}),
        address("test.alice"),
        "route.to_us",
        "no route",
    );
    let relation = |relation: &str| json!({"relation": relation});
    pair.seeded(
        true,
        relation("child"),
        relation("peer"),
        "account.relation",
        "child",
    );
    let paused = |paused: bool| json!({"paused": paused});
    pair.seeded(
        true,
        paused(true),
        paused(false),
        "account.paused_by_peer",
        "paused",
    );
    pair.seeded(
        false,
        paused(true),
        paused(false),
        "account.paused",
        "paused",
    );
    let credit = |units: &str| json!({"limits": {"balance_min": units}});
    pair.seeded(
        true,
        credit("-1"),
        credit(CREDIT),
        "credit.none",
        "no credit",
    );
    let route = json!({"prefix": "test.bob", "account": "loop"});
    pair.alice.ok("PUT", "/v1/routes", Some(route));
    pair.named("bob", "route.elsewhere", "go elsewhere");
    pair.alice.ok("DELETE", "/v1/routes?prefix=test.bob", None);

    // Routes.
    let routes = |way: &str, is_on: bool| json!({"routes": {way: is_on}});
    pair.seeded(
        true,
        routes("send", false),
        routes("send", true),
        "ccp.refused",
        "does not tell us its routes",
    );
    let knows_nothing = answer("200 OK", &octets, &reject());
    // bob would go on telling alice, whoever is at her URL for him.
    let told = |is_on: bool| Some(routes("send", is_on));
    pair.bob.ok("PATCH", "/v1/accounts/alice", told(false));
    pair.url(&knows_nothing, "ccp.not_spoken", "does not speak CCP");
    pair.bob.ok("PATCH", "/v1/accounts/alice", told(true));
    pair.seeded(
        false,
        json!({
            "http": {"url": knows_nothing, "token": TO_BOB},
            "routes": {"send": false, "receive": false},
        }),
        json!({
            "http": {"url": pair.bob.ilp_url("alice"), "token": TO_BOB},
            "routes": {"send": true, "receive": true},
        }),
        "route.none",
        "F02",
    );

    // BTP.
    let btp = |url: String, token: &str| json!({"http": null, "btp": {"url": url, "token": token}});
    let mut back = back;
    back["btp"] = Value::Null;
    let url = pair.bob.btp_url("alice");
    pair.seeded(
        false,
        btp(url, "wrong"),
        back.clone(),
        "token.refused",
        "refuses us by BTP",
    );
    let html = answer("200 OK", "Content-Type: text/html\r\n", b"<html>");
    let url = html.replace("http:", "btp+ws:");
    pair.seeded(
        false,
        btp(url, TO_BOB),
        back.clone(),
        "path.no_websocket",
        "no WebSocket",
    );
    let url = pair.bob.btp_url("alice").replace("/btp", "/btpp");
    pair.seeded(
        false,
        btp(url, TO_BOB),
        back.clone(),
        "path.wrong",
        "is not there",
    );
    let url = format!("btp+ws://{}/ilp/btp", tls_server(&good));
    pair.seeded(
        false,
        btp(url, TO_BOB),
        back.clone(),
        "path.speaks_tls",
        "btp+wss://",
    );
    pair.seeded(
        false,
        json!({"http": null}),
        back,
        "session.none",
        "until the peer connects",
    );

    let found = diagnose(&pair.alice, "bob");
    assert_eq!(found["healthy"], true, "all is as it was: {found}");
    assert!(pair.named.len() >= 20);
    println!(
        "reliability: doctor | {} seeded mistakes between a node and its peer, real sockets | {} named",
        pair.named.len(),
        pair.named.len()
    );
}

#[test]
fn the_doctor_speaks_over_btp_and_the_state_follows_the_session() {
    let alice = Node::start("alice", "test.alice", "");
    let mut bob = Node::start("bob", "test.bob", "");
    alice.account(json!({
        "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT},
    }));
    let invite = json!({"asset_code": "USD", "asset_scale": 9, "limits": {"balance_min": "-1000"}});
    let invite = bob.ok("POST", "/v1/invites", Some(invite));
    alice.ok(
        "POST",
        "/v1/invites/accept",
        Some(json!({"invite": invite["invite"]})),
    );
    let state = |node: &Node, account: &str| {
        node.ok("GET", &format!("/v1/accounts/{account}"), None)["state"].clone()
    };
    let is_synced = |node: &Node, account: &str| {
        wait_for("routes from the peer", || {
            (state(node, account) == "routes_synced").then_some(())
        });
    };
    is_synced(&alice, "bob");
    assert_eq!(diagnose(&alice, "bob")["healthy"], true);
    assert_eq!(state(&alice, "bob"), "established");
    // bob did not dial; he sees that alice is there.
    is_synced(&bob, "alice");
    let found = diagnose(&alice, "bob");
    let checks = found["checks"].as_array().unwrap();
    let ccp = checks.iter().find(|check| check["check"] == "ccp").unwrap();
    let detail = ccp["detail"].as_str().unwrap();
    for part in [
        "in: synced, 1 of at most 10000 routes, table ",
        " at epoch 1, last update 2",
        "; out: sync, 1 routes told in ",
    ] {
        assert!(detail.contains(part), "{detail}");
    }

    // Since when: the same until the state is another.
    let since = || instant(&alice.ok("GET", "/v1/accounts/bob", None)["state_since"]);
    let established = since();
    assert_eq!(since(), established);
    assert_eq!(diagnose(&alice, "bob")["healthy"], true);
    assert_eq!(since(), established, "it is still what it was");
    let since_seconds = || {
        let (_, page) = alice.call("GET", "/metrics", None);
        let line = "rialto_peer_state_since_seconds{account=\"bob\"} ";
        let page = page.as_str().unwrap().to_owned();
        let found = page.lines().find_map(|found| found.strip_prefix(line));
        found.unwrap().parse::<i64>().unwrap()
    };
    assert_eq!(since_seconds(), established.as_second());

    bob.kill();
    wait_for("alice to notice", || {
        (state(&alice, "bob") == "configured").then_some(())
    });
    assert!(since() > established);
    assert_eq!(since_seconds(), since().as_second());
    let error = || alice.ok("GET", "/v1/accounts/bob", None)["last_error"].clone();
    let down = error();
    let message = down["message"].as_str().unwrap();
    assert!(message.starts_with("session.none"), "{down}");
    assert!(instant(&down["at"]) >= since(), "{down}");
    assert_eq!(error(), down, "a second look changes nothing");
    let (word, _) = mistake(&diagnose(&alice, "bob"));
    assert_eq!(word, "tcp.refused");
    let refused = error();
    assert!(instant(&refused["at"]) > instant(&down["at"]), "{refused}");
    bob.restart();
    wait_for("the session", || {
        (state(&alice, "bob") != "configured").then_some(())
    });
    assert_eq!(diagnose(&alice, "bob")["healthy"], true);
    let (_, page) = alice.call("GET", "/metrics", None);
    let line = "rialto_peer_state{account=\"bob\",state=\"established\"} 1";
    assert!(page.as_str().unwrap().contains(line), "{page}");
    assert_eq!(bob.balance("alice"), -4);

    // Without what bob tells, she is not where she was; and comes back to it.
    let routes = |is_on: bool| Some(json!({"routes": {"receive": is_on}}));
    alice.ok("PATCH", "/v1/accounts/bob", routes(false));
    bob.ok(
        "PATCH",
        "/v1/accounts/alice",
        Some(json!({"routes": {"send": false}})),
    );
    alice.ok("PATCH", "/v1/accounts/bob", routes(true));
    wait_for("the refusal", || {
        let account = alice.ok("GET", "/v1/accounts/bob", None);
        let error = account["last_error"]["message"]
            .as_str()
            .unwrap_or_default();
        (account["state"] == "asset_verified" && error.starts_with("ccp.")).then_some(())
    });
    bob.ok(
        "PATCH",
        "/v1/accounts/alice",
        Some(json!({"routes": {"send": true}})),
    );
    assert_eq!(diagnose(&alice, "bob")["healthy"], true);
    assert_eq!(state(&alice, "bob"), "established");
}

#[test]
fn a_stranger_learns_nothing_of_links() {
    let bob = Node::start("bob", "test.bob", "");
    for authorization in ["", "Authorization: Bearer guessed\r\n"] {
        let mut stream = TcpStream::connect(bob.node).unwrap();
        write!(
            stream,
            "GET /.well-known/rialto/link HTTP/1.1\r\nHost: bob\r\n{authorization}Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(!answer.contains("test.bob"), "{answer}");
    }
}

/// The data of an update without routes: the first two of these epochs.
fn update(epochs: u32) -> Vec<u8> {
    let mut data = vec![7; 16];
    for number in [epochs, 0, 2, 45_000] {
        data.extend(number.to_be_bytes());
    }
    data.extend(b"\x09test.mute");
    data.extend([1, 0, 1, 0]);
    data
}

/// What a Rialto node says of a link on which routes are to go both ways.
fn link_card() -> Vec<u8> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let card = json!({
        "name": "mute", "time_ms": i64::try_from(since_1970.as_millis()).unwrap(),
        "ilp_address": "test.mute", "account": "alice", "account_address": "test.alice",
        "relation": "peer", "asset_code": "USD", "asset_scale": 9, "paused": false,
        "available": "1000", "packet_amount_max": null, "sends_routes": true,
        "receives_routes": true,
        "call": {"check": "call", "verdict": "pass", "mistake": null, "detail": "well"},
    });
    card.to_string().into_bytes()
}

/// What a neighbour does when it is asked for its routes.
#[derive(Clone, Copy)]
enum Ccp {
    /// Nothing.
    Silent,
    /// It says that it will tell them, and tells so many epochs of them, if any.
    Tells(Option<u32>),
}

#[test]
fn routes_that_are_not_told_or_not_all_or_one_way_are_named() {
    for (ccp, is_rialto, word, says) in [
        (Ccp::Silent, false, "ccp.silent", "does not answer"),
        (
            Ccp::Tells(None),
            false,
            "ccp.incomplete",
            "told none so far",
        ),
        (Ccp::Tells(Some(5)), false, "ccp.incomplete", "at epoch 2"),
        (Ccp::Tells(Some(2)), true, "ccp.one_way", "one way only"),
    ] {
        let server = Server::start(move |packet| {
            let Ok(prepare) = Prepare::parse(packet) else {
                // It is no packet that is asked for.
                return Some(match is_rialto {
                    true => (200, "application/json", link_card()),
                    false => (404, "text/plain", Vec::new()),
                });
            };
            match (prepare.destination().as_str(), ccp) {
                ("peer.route.control", Ccp::Silent) => None,
                ("peer.route.control", Ccp::Tells(_)) => {
                    Some((200, OCTETS, fulfill_with(PEER_FULFILLMENT)))
                }
                _ => Some((200, OCTETS, reject())),
            }
        });
        let alice = Node::start("alice", "test.alice", "");
        let (url, token) = (
            format!("http://{}/ilp", server.address),
            "token_of_the_mute",
        );
        alice.account(json!({
            "name": "mute", "relation": "peer", "ilp_address": "test.mute", "asset_code": "USD",
            "asset_scale": 9, "incoming_token": token, "http": {"url": url, "token": token},
        }));
        if let Ccp::Tells(Some(epochs)) = ccp {
            // It wants none of ours for now, and tells its own.
            let idle = [&[0; 21][..], &[1, 0]].concat();
            let mut client = Client::new(alice.node, "/accounts/mute/ilp", token);
            for (destination, data) in [("control", &idle), ("update", &update(epochs))] {
                let destination: Address = format!("peer.route.{destination}").parse().unwrap();
                let packet = PrepareBuilder {
                    amount: 0,
                    expires_at: Timestamp::from_unix_ms(4_000_000_000_000),
                    condition: PEER_CONDITION,
                    destination: destination.as_ref(),
                    data,
                };
                let reply = client.send(&packet.encode().unwrap()).unwrap();
                assert!(matches!(reply, Reply::Fulfill(_)), "{reply:?}");
            }
        }
        let (found, detail) = mistake(&diagnose(&alice, "mute"));
        assert_eq!(found, word, "{detail}");
        assert!(detail.contains(says), "{word}: {detail}");
    }
}
