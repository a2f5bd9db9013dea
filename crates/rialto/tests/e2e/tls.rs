//! TLS between nodes: certificates from files, both protocols of HTTP, BTP over `btp+wss`.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rialto_packet::Reply;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
};
use serde_json::{Value, json};

use crate::{
    harness::{CREDIT, Node, wait_for},
    raw::{self, Client, OCTETS},
};

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

const TOKEN: &str = "token-from-alice-to-bob";

/// The sections of a node whose listener speaks TLS, and of one that trusts `roots.pem`.
const SERVES: &str = "tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"";
const TRUSTS: &str = "tls_roots_file = \"roots.pem\"";

/// A certificate that is its own root.
pub(crate) fn certificate(host: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed([host.to_owned()]).unwrap()
}

/// bob, with this certificate, a shop, and an account for alice.
fn bob(identity: &CertifiedKey<KeyPair>) -> Node {
    let bob = bob_without_accounts(identity);
    bob.account(json!({
        "name": "alice", "relation": "peer", "ilp_address": "test.alice",
        "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": TOKEN,
    }));
    bob.account(json!({
        "name": "shop", "relation": "local", "asset_code": "USD", "asset_scale": 9,
    }));
    bob
}

/// bob, with this certificate.
pub(crate) fn bob_without_accounts(identity: &CertifiedKey<KeyPair>) -> Node {
    let mut bob = Node::prepare("bob", "test.bob", SERVES);
    write(&bob, "cert.pem", &identity.cert.pem());
    write(&bob, "key.pem", &identity.signing_key.serialize_pem());
    bob.restart();
    bob
}

/// alice, who trusts these roots beside the system's, with a wallet, and a child who sends packets.
pub(crate) fn alice(roots: Option<&CertifiedKey<KeyPair>>) -> (Node, Client) {
    let mut alice = Node::prepare("alice", "test.alice", roots.map_or("", |_| TRUSTS));
    if let Some(roots) = roots {
        write(&alice, "roots.pem", &roots.cert.pem());
    }
    alice.restart();
    let limits = json!({"balance_min": CREDIT});
    alice.account(json!({
        "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
        "limits": limits,
    }));
    alice.account(json!({
        "name": "child", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": limits, "incoming_token": "token-from-child-to-alice",
    }));
    let client = Client::new(
        alice.node,
        "/accounts/child/ilp",
        "token-from-child-to-alice",
    );
    (alice, client)
}

fn write(node: &Node, file: &str, text: &str) {
    fs::write(node.folder().join(file), text).unwrap();
}

/// How alice reaches bob.
fn link(alice: &Node, link: Value) {
    let mut account = json!({
        "name": "bob", "relation": "peer", "ilp_address": "test.bob",
        "asset_code": "USD", "asset_scale": 9,
    });
    account
        .as_object_mut()
        .unwrap()
        .extend(link.as_object().unwrap().clone());
    alice.account(account);
}

fn pay(alice: &Node, bob: &Node, key: &str) -> Value {
    let receiver = format!("https://{}/shop", bob.node);
    alice.pay(
        key,
        &json!({"account": "wallet", "receiver": receiver, "amount": "1000"}),
    )
}

#[test]
fn payments_cross_tls_over_http_and_over_btp() {
    let identity = certificate("127.0.0.1");
    let bob = bob(&identity);
    for (paid, transport) in [(1_000, "http"), (2_000, "btp")] {
        let (alice, _) = alice(Some(&identity));
        let address = bob.node;
        let url = match transport {
            "http" => format!("https://{address}/accounts/alice/ilp"),
            _ => format!("btp+wss://{address}/accounts/alice/ilp/btp"),
        };
        link(&alice, json!({transport: {"url": url, "token": TOKEN}}));
        if transport == "btp" {
            wait_for("alice's connection to bob", || {
                let account = alice.ok("GET", "/v1/accounts/bob", None);
                (account["link"] == "up").then_some(())
            });
        }
        let payment = pay(&alice, &bob, transport);
        assert_eq!(payment["state"], "completed", "{transport}: {payment}");
        assert_eq!(payment["delivered"]["amount"], "1000");
        assert_eq!(alice.balance("bob"), 1_000);
        assert_eq!(bob.balance("alice"), -paid);
        assert_eq!(bob.balance("shop"), paid);
        // Where payers are sent is where TLS is spoken.
        let account = bob.ok("GET", "/v1/accounts/shop", None);
        assert!(!account.to_string().contains("http://"), "{account}");
    }
}

#[test]
fn the_listener_speaks_both_protocols_of_http() {
    let identity = certificate("127.0.0.1");
    let bob = bob(&identity);
    for (offered, agreed) in [
        (vec![HTTP2, HTTP1], Some(HTTP2)),
        (vec![HTTP1], Some(HTTP1)),
        (vec![], None),
    ] {
        let mut stream = connect(bob.node, &identity, &offered);
        stream.flush().unwrap();
        assert_eq!(stream.conn.alpn_protocol(), agreed);
    }
    // A packet over HTTP/1.1.
    let mut stream = connect(bob.node, &identity, &[HTTP1]);
    let packet = raw::prepare(raw::next_number(), 1, "test.nowhere.x", 20_000);
    let head = format!(
        "POST /accounts/alice/ilp HTTP/1.1\r\nHost: bob\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: {OCTETS}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        packet.len()
    );
    stream
        .write_all(&[head.as_bytes(), &packet].concat())
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(head.unwrap() + 4);
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{head:?}");
    let Reply::Reject(reject) = Reply::parse(body).unwrap() else {
        panic!("nobody is there who could fulfill it")
    };
    assert_eq!(reject.code().to_string(), "F02");
}

#[test]
fn a_node_sends_packets_to_either_protocol_of_http() {
    let identity = certificate("127.0.0.1");
    let (alice, mut child) = alice(Some(&identity));
    let neighbour = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/ilp", neighbour.local_addr().unwrap());
    // It takes one packet, and that shall not be one about routes.
    let routes = json!({"send": false, "receive": false});
    link(
        &alice,
        json!({"http": {"url": url, "token": "t"}, "routes": routes}),
    );
    let (agreed, agreements) = mpsc::channel();
    let only_http1 = serving(&identity, HTTP1);
    thread::spawn(move || {
        let (socket, _) = neighbour.accept().unwrap();
        let connection = ServerConnection::new(only_http1).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        let packet = read_request(&mut stream);
        agreed
            .send(stream.conn.alpn_protocol().map(<[u8]>::to_vec))
            .unwrap();
        let body = raw::fulfill(&packet);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {OCTETS}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), &body].concat())
            .unwrap();
        stream.flush().unwrap();
        // Until the node hangs up.
        let _ = stream.read(&mut [0]);
    });
    let packet = raw::prepare(raw::next_number(), 7, "test.bob.x", 20_000);
    let reply = child.send(&packet).unwrap();
    assert!(matches!(reply, Reply::Fulfill(_)), "{reply:?}");
    assert_eq!(agreements.recv().unwrap().as_deref(), Some(HTTP1));
    assert_eq!(alice.balance("bob"), 7);
}

#[test]
fn a_certificate_that_cannot_be_trusted_is_a_reason_of_its_own() {
    let own = certificate("127.0.0.1");
    let another = certificate("127.0.0.1");
    let other_host = certificate("other.example");
    for (case, served, trusted) in [
        ("a private root that nobody named", &own, None),
        ("another root", &own, Some(&another)),
        ("another host", &other_host, Some(&other_host)),
    ] {
        let bob = bob(served);
        let (alice, mut child) = alice(trusted);
        let url = format!("https://{}/accounts/alice/ilp", bob.node);
        link(&alice, json!({"http": {"url": url, "token": TOKEN}}));
        let packet = raw::prepare(raw::next_number(), 1, "test.bob.shop.x", 20_000);
        let Reply::Reject(reject) = child.send(&packet).unwrap() else {
            panic!("{case}: it was delivered")
        };
        let message = reject.message().into_owned();
        assert_eq!(reject.code().to_string(), "T01", "{case}: {message}");
        assert!(message.starts_with("link.tls: "), "{case}: {message}");
        assert_eq!((alice.balance("bob"), bob.balance("alice")), (0, 0));
        // The log says what the peer is not told.
        wait_for("the log line", || {
            alice.log().contains("certificate").then_some(())
        });
        // The payer is told too, and nothing leaves.
        let receiver = format!("https://{}/shop", bob.node);
        let request = json!({"account": "wallet", "receiver": receiver, "amount": "1000"});
        let (status, problem) = alice.call("POST", "/v1/quotes", Some(request));
        assert_eq!(status, 502, "{case}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&receiver), "{case}: {detail}");
        assert!(detail.contains("certificate"), "{case}: {detail}");
    }
}

#[test]
fn a_certificate_file_that_cannot_be_used_is_named() {
    let identity = certificate("127.0.0.1");
    let (cert, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
    let other_key = certificate("127.0.0.1").signing_key.serialize_pem();
    for (section, files, said) in [
        (SERVES, [("key.pem", &key)].as_slice(), "cert.pem"),
        (SERVES, &[("cert.pem", &cert)], "key.pem"),
        (
            SERVES,
            &[("cert.pem", &key), ("key.pem", &key)],
            "no certificate in",
        ),
        (
            SERVES,
            &[("cert.pem", &cert), ("key.pem", &other_key)],
            "cannot use certificate",
        ),
        (TRUSTS, &[], "roots.pem"),
        (TRUSTS, &[("roots.pem", &key)], "no certificate in"),
    ] {
        let node = Node::prepare("bob", "test.bob", section);
        for (file, text) in files {
            write(&node, file, text);
        }
        let output = node.command().output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        let configured = if section == SERVES {
            "node.tls_cert_file"
        } else {
            "node.tls_roots_file"
        };
        for words in [configured, ".pem", said] {
            assert!(stderr.contains(words), "{words}: {stderr}");
        }
        assert!(!node.folder().join("data").exists());
    }
}

/// A TLS connection that offers these protocols.
fn connect(
    address: SocketAddr,
    trusted: &CertifiedKey<KeyPair>,
    offered: &[&[u8]],
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
    let host = "127.0.0.1".try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), host).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    connection.complete_io(&mut socket).unwrap();
    StreamOwned::new(connection, socket)
}

/// A server that speaks this protocol alone.
fn serving(identity: &CertifiedKey<KeyPair>, protocol: &[u8]) -> Arc<ServerConfig> {
    let chain = vec![identity.cert.der().clone()];
    let key = identity.signing_key.serialize_der().try_into().unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// The body of a request, of which only its length and its end have to be found.
fn read_request(stream: &mut impl Read) -> Vec<u8> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4_096];
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the request is cut off");
        request.extend_from_slice(&buffer[..read]);
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let body = &request[end + 4..];
        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if body.len() == length {
            return body.to_vec();
        }
    }
}
