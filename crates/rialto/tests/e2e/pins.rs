//! Certificates instead of tokens: mutual TLS with pinned keys, over HTTP/1.1, HTTP/2 and BTP; and
//! certificates, keys and tokens that are replaced in their files while the node runs.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rcgen::{Certificate, CertificateParams, KeyPair, date_time_ymd};
use rialto_packet::Reply;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned,
    client::ResolvesClientCert, crypto::aws_lc_rs, pki_types::PrivateKeyDer, sign::CertifiedKey,
};
use serde_json::{Value, json};

use crate::{
    harness::{ADMIN_TOKEN, CREDIT, Node, StopOnDrop, call, wait_for},
    raw::{self, Client, OCTETS},
};

const SERVES: &str = "tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"";
const SHOWS: &str = "tls_client_cert_file = \"cert.pem\"\ntls_client_key_file = \"key.pem\"";
const OF_ALICE: &str = "token-of-alice-at-bobs";
const OF_CAROL: &str = "token-of-carol-at-bobs";

/// A key, and a certificate that it signed itself.
struct Identity {
    key: KeyPair,
    certificate: Certificate,
}

impl Identity {
    fn new() -> Self {
        Self::until(KeyPair::generate().unwrap(), 2090)
    }

    fn until(key: KeyPair, year: i32) -> Self {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        Self { key, certificate }
    }

    /// The same key in a certificate that has ended.
    fn expired(self) -> Self {
        Self::until(self.key, 2021)
    }

    fn write(&self, folder: &Path) {
        fs::write(folder.join("key.pem"), self.key.serialize_pem()).unwrap();
        fs::write(folder.join("cert.pem"), self.certificate.pem()).unwrap();
    }

    /// As the program prints it.
    fn pin(&self) -> String {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        let public = folder.path().join("public.pem");
        fs::write(&public, self.key.public_key_pem()).unwrap();
        let [pin, of_public] = [folder.path().join("cert.pem"), public].map(|file| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
            let output = command.args(["certificate", "pin"]).arg(file).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        });
        assert_eq!(pin, of_public);
        pin.trim().to_owned()
    }
}

fn node(name: &str, section: &str, identity: &Identity) -> Node {
    let mut node = Node::prepare(name, &format!("test.{name}"), section);
    identity.write(node.folder());
    node.restart();
    node
}

fn local(name: &str) -> Value {
    json!({
        "name": name, "relation": "local", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT},
    })
}

fn peer(name: &str, more: &Value) -> Value {
    let mut account = json!({
        "name": name, "relation": "peer", "ilp_address": format!("test.{name}"),
        "asset_code": "USD", "asset_scale": 9, "limits": {"balance_min": CREDIT},
    });
    account
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    account
}

/// bob, with a shop, who knows alice by her key, and carol by a token.
fn bob(identity: &Identity, alice: &Identity) -> Node {
    let bob = node("bob", SERVES, identity);
    bob.account(local("shop"));
    bob.account(peer(
        "alice",
        &json!({"client_pins": [alice.pin()], "incoming_token": OF_ALICE}),
    ));
    bob.account(peer("carol", &json!({"incoming_token": OF_CAROL})));
    bob
}

/// alice, with a wallet, a child who sends packets, and no roots that bob's certificate chains to.
fn alice(identity: &Identity) -> (Node, Client) {
    let alice = node("alice", SHOWS, identity);
    alice.account(local("wallet"));
    let token = "token-from-child-to-alice";
    alice.account(json!({
        "name": "child", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": token,
    }));
    let client = Client::new(alice.node, "/accounts/child/ilp", token);
    (alice, client)
}

/// How alice reaches bob by this transport.
fn link(bob: &Node, transport: &str, pins: &[String]) -> Value {
    let address = bob.node;
    let url = match transport {
        "http" => format!("https://{address}/accounts/alice/ilp"),
        _ => format!("btp+wss://{address}/accounts/alice/ilp/btp"),
    };
    json!({transport: {"url": url, "tls_pins": pins}})
}

fn wait_up(alice: &Node) {
    wait_for("alice's session with bob", || {
        let account = alice.ok("GET", "/v1/accounts/bob", None);
        (account["link"] == "up").then_some(())
    });
}

/// A packet from alice to bob and back.
fn ping(alice: &Node, amount: u64) {
    let body = json!({
        "account": "wallet", "destination": "test.bob", "amount": amount.to_string(),
    });
    let found = alice.ok("POST", "/v1/ping", Some(body));
    assert_eq!(found["reached"], true, "{found}");
}

/// The first mistake that the doctor finds, and what is said about it.
fn mistake(node: &Node, account: &str) -> (String, String) {
    let path = format!("/v1/accounts/{account}/doctor");
    let found = node.ok("POST", &path, Some(json!({})));
    let checks = found["checks"].as_array().unwrap();
    let failed = checks.iter().find(|check| check["verdict"] == "fail");
    let failed = failed.unwrap_or_else(|| panic!("nothing is wrong: {found}"));
    let text = |key: &str| failed[key].as_str().unwrap().to_owned();
    (text("mistake"), text("detail"))
}

fn reload(node: &Node, says: &str) {
    let before = node.log().matches(says).count();
    node.signal("HUP");
    wait_for("the reload", || {
        (node.log().matches(says).count() > before).then_some(())
    });
}

/// One that speaks HTTP/1.1 to bob and shows this certificate.
fn connect(
    bob: &Node,
    server: &Identity,
    shown: Option<&Identity>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(server.certificate.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
            let chain = vec![identity.certificate.der().clone()];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let host = "127.0.0.1".try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), host).unwrap();
    let mut socket = TcpStream::connect(bob.node).unwrap();
    connection.complete_io(&mut socket).unwrap();
    StreamOwned::new(connection, socket)
}

/// Sends a packet over an open connection; the status.
fn post(stream: &mut (impl Read + Write), path: &str, token: Option<&str>) -> String {
    let packet = raw::prepare(raw::next_number(), 1, "test.nowhere.x", 20_000);
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: bob\r\n{}Content-Type: {OCTETS}\r\n\
         Content-Length: {}\r\n\r\n",
        authorization.unwrap_or_default(),
        packet.len()
    );
    stream
        .write_all(&[head.as_bytes(), &packet].concat())
        .unwrap();
    let mut answer = [0; 4_096];
    let read = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_pinned_certificate_is_enough_over_each_transport() {
    let (of_bob, of_alice) = (Identity::new().expired(), Identity::new());
    let bob = bob(&of_bob, &of_alice);
    for (paid, transport) in [(1_000, "http"), (2_000, "btp")] {
        let (alice, _) = alice(&of_alice);
        // bob's certificate is nobody's root, and expired: his key is pinned.
        alice.account(peer("bob", &link(&bob, transport, &[of_bob.pin()])));
        if transport == "btp" {
            wait_up(&alice);
        }
        ping(&alice, 1_000);
        assert_eq!(alice.balance("bob"), 1_000, "{transport}");
        assert_eq!(bob.balance("alice"), -paid, "{transport}");
        let found = alice.ok("POST", "/v1/accounts/bob/doctor", Some(json!({})));
        let checks = found["checks"].to_string();
        assert!(checks.contains("the server has the pinned key"), "{checks}");
        // A token of hers goes with it; that of another account does not.
        for (token, refused) in [(OF_ALICE, None), (OF_CAROL, Some("token.refused"))] {
            let change = json!({transport: {"token": token}});
            alice.ok("PATCH", "/v1/accounts/bob", Some(change));
            match refused {
                None if transport == "btp" => wait_up(&alice),
                None => {}
                Some(expected) => {
                    let (word, detail) = mistake(&alice, "bob");
                    assert_eq!(word, expected, "{transport}: {detail}");
                    assert!(detail.contains(&of_alice.pin()), "{transport}: {detail}");
                }
            }
        }
    }
    let shown = bob.ok("GET", "/v1/accounts/alice", None)["incoming_tokens"].clone();
    assert_eq!(shown[1]["client_pin"], of_alice.pin(), "{shown}");
}

#[test]
fn who_shows_what_over_http1() {
    let (of_bob, of_alice, stranger) = (Identity::new(), Identity::new(), Identity::new());
    let bob = bob(&of_bob, &of_alice);
    let pin = of_alice.pin();
    let of_alice = of_alice.expired();
    assert_eq!(of_alice.pin(), pin, "a pin is about the key alone");
    let (all, hers, carols) = ("/ilp", "/accounts/alice/ilp", "/accounts/carol/ilp");
    for (shown, token, path, status) in [
        (Some(&of_alice), None, all, "200"),
        (Some(&of_alice), None, hers, "200"),
        (Some(&of_alice), None, carols, "401"),
        (Some(&of_alice), Some(OF_ALICE), hers, "200"),
        (Some(&of_alice), Some(OF_CAROL), all, "401"),
        (Some(&of_alice), Some(OF_CAROL), carols, "401"),
        (Some(&of_alice), Some("token-of-nobody"), hers, "401"),
        (Some(&stranger), None, all, "401"),
        (Some(&stranger), None, hers, "401"),
        (Some(&stranger), Some(OF_ALICE), hers, "200"),
        (None, None, hers, "401"),
        (None, Some(OF_ALICE), hers, "200"),
        (None, Some(&pin), hers, "401"),
    ] {
        let mut stream = connect(&bob, &of_bob, shown);
        let shown = shown.map(Identity::pin);
        let found = post(&mut stream, path, token);
        assert_eq!(found, status, "{shown:?} {token:?} {path}");
    }
    // A connection that stands is no exception.
    let mut stream = connect(&bob, &of_bob, Some(&of_alice));
    assert_eq!(post(&mut stream, hers, None), "200");
    let id = &pin["sha256:".len()..][..8];
    bob.ok("DELETE", &format!("/v1/accounts/alice/tokens/{id}"), None);
    assert_eq!(post(&mut stream, hers, None), "401");
    // Each key is of one account.
    let pin = json!({"client_pin": pin, "keep_others": true});
    bob.ok("POST", "/v1/accounts/alice/tokens", Some(pin.clone()));
    let (status, problem) = bob.call("POST", "/v1/accounts/carol/tokens", Some(pin));
    assert_eq!(status, 409, "{problem}");
    assert_eq!(post(&mut stream, hers, None), "200");
}

#[test]
fn a_server_with_another_key_is_told_from_one_with_the_pinned_one() {
    let (of_bob, of_alice, other) = (Identity::new(), Identity::new(), Identity::new());
    let bob = bob(&of_bob, &of_alice);
    for transport in ["http", "btp"] {
        let (alice, mut child) = alice(&of_alice);
        alice.account(peer("bob", &link(&bob, transport, &[other.pin()])));
        let (word, detail) = mistake(&alice, "bob");
        assert_eq!(word, "tls.pin", "{detail}");
        for pin in [of_bob.pin(), other.pin()] {
            assert!(detail.contains(&pin), "{detail}");
        }
        if transport == "http" {
            let packet = raw::prepare(raw::next_number(), 1, "test.bob.shop.x", 20_000);
            let Reply::Reject(reject) = child.send(&packet).unwrap() else {
                panic!("it was delivered")
            };
            let message = reject.message().into_owned();
            assert!(message.starts_with("link.tls: "), "{message}");
            assert!(!message.contains("sha256"), "{message}");
        }
        wait_for("the log line", || {
            let (log, seen) = (alice.log(), of_bob.pin());
            let expected = format!(
                "the server has the key {seen}, and {} is pinned",
                other.pin()
            );
            log.contains(&expected).then_some(())
        });
        // Both, so that the peer can change from one to the other.
        let both = json!({transport: {"tls_pins": [other.pin(), of_bob.pin()]}});
        alice.ok("PATCH", "/v1/accounts/bob", Some(both));
        if transport == "btp" {
            wait_up(&alice);
        }
        ping(&alice, 0);
    }
    // Neither where there is no TLS, nor what is no pin.
    let (alice, _) = alice(&of_alice);
    for (url, pin, field) in [
        ("http://127.0.0.1:1/ilp", of_bob.pin(), "http.tls_pins"),
        (
            "https://127.0.0.1:1/ilp",
            "sha256:0".to_owned(),
            "http.tls_pins",
        ),
        ("http://127.0.0.1:1/ilp", String::new(), "http.token"),
    ] {
        let pins: Vec<_> = [&pin].into_iter().filter(|pin| !pin.is_empty()).collect();
        let token = (field != "http.token").then_some("token");
        let link = json!({"http": {"url": url, "token": token, "tls_pins": pins}});
        let (status, problem) = alice.call("POST", "/v1/accounts", Some(peer("bob", &link)));
        assert_eq!(
            (status, &problem["field"]),
            (422, &json!(field)),
            "{problem}"
        );
    }
}

#[test]
fn keys_are_replaced_on_both_sides_without_a_gap() {
    let (of_bob, of_alice) = (Identity::new(), Identity::new());
    let bob = bob(&of_bob, &of_alice);
    let (alice, _) = alice(&of_alice);
    alice.account(peer("bob", &link(&bob, "http", &[of_bob.pin()])));
    let stop = AtomicBool::new(false);
    let came = || {
        let account = bob.ok("GET", "/v1/accounts/alice", None);
        account["stats"]["prepares_in"].as_u64().unwrap_or_default()
    };
    let more = || {
        let before = came();
        wait_for("packets", || (came() > before + 5).then_some(()));
    };
    let sent = thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let pinging = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                ping(&alice, 1);
                sent += 1;
            }
            sent
        });
        more();
        let mut known = of_alice.pin();
        for _ in 0..3 {
            let new = Identity::new();
            let pin = json!({"client_pin": new.pin(), "keep_others": true});
            bob.ok("POST", "/v1/accounts/alice/tokens", Some(pin));
            new.write(alice.folder());
            reload(&alice, "configuration reloaded");
            more();
            let id = &known["sha256:".len()..][..8];
            bob.ok("DELETE", &format!("/v1/accounts/alice/tokens/{id}"), None);
            known = new.pin();

            let new = Identity::new();
            let old = alice.ok("GET", "/v1/accounts/bob", None)["http"]["tls_pins"][0].clone();
            let both = json!({"http": {"tls_pins": [old, new.pin()]}});
            alice.ok("PATCH", "/v1/accounts/bob", Some(both));
            new.write(bob.folder());
            reload(&bob, "configuration reloaded");
            // A new connection meets the new key.
            let one = json!({"http": {"tls_pins": [new.pin()]}});
            alice.ok("PATCH", "/v1/accounts/bob", Some(one));
            more();
        }
        stop.store(true, Ordering::Relaxed);
        pinging.join().unwrap()
    });
    println!(
        "reliability: certificates | 3 keys replaced on each side under {sent} packets | 0 packets refused"
    );
}

#[test]
fn files_are_read_again_and_a_bad_one_changes_nothing() {
    let (first, second, of_alice) = (Identity::new(), Identity::new(), Identity::new());
    let bob = bob(&first, &of_alice);
    let hers = "/accounts/alice/ilp";
    let mut standing = connect(&bob, &first, None);
    assert_eq!(post(&mut standing, hers, Some(OF_ALICE)), "200");

    let admin = |token: &str| {
        fs::write(bob.folder().join("admin.token"), token).unwrap();
    };
    // A new token beside a certificate that is none: neither is taken.
    fs::write(bob.folder().join("cert.pem"), "no certificate").unwrap();
    admin("another_admin_token_of_the_tests");
    reload(&bob, "the old one stays");
    let line = bob.log();
    let line = line.lines().find(|line| line.contains("the old one stays"));
    let line = line.unwrap();
    assert!(line.contains("node.tls_cert_file"), "{line}");
    assert!(line.contains("cert.pem"), "{line}");
    bob.ok("GET", "/v1/accounts", None);
    let mut stream = connect(&bob, &first, None);
    assert_eq!(post(&mut stream, hers, Some(OF_ALICE)), "200");
    // A key that is another's.
    fs::write(bob.folder().join("cert.pem"), second.certificate.pem()).unwrap();
    reload(&bob, "cannot use certificate");
    connect(&bob, &first, None);

    admin(ADMIN_TOKEN);
    second.write(bob.folder());
    reload(&bob, "configuration reloaded");
    let mut stream = connect(&bob, &second, Some(&of_alice));
    assert_eq!(post(&mut stream, hers, None), "200");
    // What stood before goes on.
    assert_eq!(post(&mut standing, hers, Some(OF_ALICE)), "200");

    // Roots and the operator's token.
    admin("another_admin_token_of_the_tests");
    reload(&bob, "configuration reloaded");
    let (status, _) = bob.call("GET", "/v1/accounts", None);
    assert_eq!(status, 401);
    admin(ADMIN_TOKEN);
    let path = bob.folder().join("admin.token");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    reload(&bob, "can be read by others");
    assert_eq!(bob.call("GET", "/v1/accounts", None).0, 401);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    reload(&bob, "configuration reloaded");
    let status = call(bob.admin, "GET", "/v1/accounts", None, "").unwrap().0;
    assert_eq!(status, 200);
}

#[test]
fn roots_are_read_again() {
    let (of_bob, of_alice) = (Identity::new(), Identity::new());
    let bob = bob(&of_bob, &of_alice);
    let section = format!("{SHOWS}\ntls_roots_file = \"roots.pem\"");
    let mut alice = Node::prepare("alice", "test.alice", &section);
    of_alice.write(alice.folder());
    let roots = alice.folder().join("roots.pem");
    fs::write(&roots, of_alice.certificate.pem()).unwrap();
    alice.restart();
    alice.account(local("wallet"));
    alice.account(peer("bob", &link(&bob, "http", &[])));
    assert_eq!(mistake(&alice, "bob").0, "tls.unknown_ca");
    fs::write(&roots, of_bob.certificate.pem()).unwrap();
    reload(&alice, "configuration reloaded");
    let found = alice.ok("POST", "/v1/accounts/bob/doctor", Some(json!({})));
    let tls = found["checks"].as_array().unwrap().iter();
    let tls = { tls }.find(|check| check["check"] == "tls").unwrap();
    assert_eq!(tls["verdict"], "pass", "{tls}");
    ping(&alice, 1);
    // A session that roots vouched for is not resumed where a key is pinned.
    let pinned = json!({"http": {"tls_pins": [of_alice.pin()]}});
    alice.ok("PATCH", "/v1/accounts/bob", Some(pinned));
    assert_eq!(mistake(&alice, "bob").0, "tls.pin");
    let packet = json!({"account": "wallet", "destination": "test.bob", "amount": "1"});
    let found = alice.ok("POST", "/v1/ping", Some(packet));
    assert_eq!(found["reached"], false, "{found}");
}

/// Notes that it is asked for a certificate, and has none.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn clients_are_asked_once_somebody_is_known_by_a_key() {
    let of_bob = Identity::new();
    let bob = node("bob", SERVES, &of_bob);
    bob.account(peer("alice", &json!({"incoming_token": OF_ALICE})));
    let is_asked = || {
        let mut roots = RootCertStore::empty();
        roots.add(of_bob.certificate.der().clone()).unwrap();
        let asked = Arc::new(Asked::default());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::<Asked>::clone(&asked));
        let host = "127.0.0.1".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), host).unwrap();
        let socket = TcpStream::connect(bob.node).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        assert_eq!(post(&mut stream, "/ilp", Some(OF_ALICE)), "200");
        asked.0.load(Ordering::Relaxed)
    };
    assert!(!is_asked());
    let pin = json!({"client_pin": Identity::new().pin(), "keep_others": true});
    let added = bob.ok("POST", "/v1/accounts/alice/tokens", Some(pin));
    assert!(is_asked());
    let path = format!(
        "/v1/accounts/alice/tokens/{}",
        added["id"].as_str().unwrap()
    );
    bob.ok("DELETE", &path, None);
    assert!(!is_asked());
}
