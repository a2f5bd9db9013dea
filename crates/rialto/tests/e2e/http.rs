//! ILP over HTTP as two nodes may agree on it beside the usual: HTTP/2 without TLS, answers in requests
//! of their own.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use rialto_packet::FulfillBuilder;
use serde_json::{Value, json};

use crate::harness::{CREDIT, Node, wait_for};

const TO_BOB: &str = "token-of-alice-at-bobs-node";
const TO_ALICE: &str = "token-of-bob-at-alices-node";

/// alice and bob, who send to each other at these URLs; she has a wallet, he a shop.
fn pair(url: impl Fn(&Node, &str) -> String) -> (Node, Node) {
    let alice = Node::start("alice", "test.alice", "");
    let bob = Node::start("bob", "test.bob", "");
    let peer = |name: &str, incoming: &str, outgoing: &str, url: String| {
        json!({
            "name": name, "relation": "peer", "ilp_address": format!("test.{name}"),
            "asset_code": "USD", "asset_scale": 9, "limits": {"balance_min": CREDIT},
            "incoming_token": incoming, "http": {"url": url, "token": outgoing},
        })
    };
    alice.account(peer("bob", TO_ALICE, TO_BOB, url(&bob, "alice")));
    bob.account(peer("alice", TO_BOB, TO_ALICE, url(&alice, "bob")));
    let local = |name: &str| {
        json!({
            "name": name, "relation": "local", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": CREDIT},
        })
    };
    alice.account(local("wallet"));
    bob.account(local("shop"));
    (alice, bob)
}

fn pay(alice: &Node, bob: &Node, key: &str) -> Value {
    let request = json!({"account": "wallet", "receiver": bob.pointer("shop"), "amount": "1000"});
    alice.pay(key, &request)
}

#[test]
fn peers_by_http2_without_tls() {
    let (alice, bob) = pair(|node, account| node.ilp_url(account).replacen("http://", "h2c://", 1));
    let payment = pay(&alice, &bob, "h2c");
    assert_eq!(payment["state"], "completed", "{payment}");
    assert_eq!(alice.balance("bob"), 1_000);
    assert_eq!(bob.balance("alice"), -1_000);
    let found = alice.ok("POST", "/v1/accounts/bob/doctor", Some(json!({})));
    assert_eq!(found["healthy"], true, "{found}");
    let account = alice.ok("GET", "/v1/accounts/bob", None);
    let url = account["http"]["url"].as_str().unwrap();
    assert!(url.starts_with("h2c://"), "{url}");
    // Nothing else is taken for a URL of packets.
    let url = "h2://127.0.0.1/ilp";
    let change = json!({"http": {"url": url, "token": TO_BOB}});
    let (status, refused) = alice.call("PATCH", "/v1/accounts/bob", Some(change));
    assert_eq!(status, 422, "{refused}");
    assert!(refused.to_string().contains("h2c://"), "{refused}");
}

#[test]
fn peers_that_answer_by_callback() {
    let (alice, bob) = pair(Node::ilp_url);
    for (node, account, url, token) in [
        (&alice, "bob", bob.ilp_url("alice"), TO_BOB),
        (&bob, "alice", alice.ilp_url("bob"), TO_ALICE),
    ] {
        let link = json!({"http": {"url": url, "token": token, "callback": true}});
        let changed = node.ok("PATCH", &format!("/v1/accounts/{account}"), Some(link));
        assert_eq!(changed["http"]["callback"], true, "{changed}");
    }
    let payment = pay(&alice, &bob, "by-callback");
    assert_eq!(payment["state"], "completed", "{payment}");
    assert_eq!(alice.balance("bob"), 1_000);
    assert_eq!(bob.balance("alice"), -1_000);
    assert_eq!(bob.balance("shop"), 1_000);
    // Bob's answers went through a path that takes nothing else: what nobody asked is refused, counted,
    // and moves nothing.
    let (status, _) = callback(&alice, TO_ALICE);
    assert_eq!(status, 400);
    let (status, metrics) = alice.call("GET", "/metrics", None);
    assert_eq!(status, 200);
    let metrics = metrics.as_str().unwrap().to_owned();
    for (reason, count) in [("unknown", 1), ("duplicate", 0), ("late", 0)] {
        let line = format!("rialto_callbacks_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert_eq!(alice.balance("bob"), 1_000);
    for node in [&alice, &bob] {
        node.assert_books_add_up();
    }

    // Bob's answers are refused from now on, and what he fulfilled is lost to him, not to alice.
    let link =
        json!({"http": {"url": alice.ilp_url("bob"), "token": "a-token-that-alice-refuses"}});
    bob.ok("PATCH", "/v1/accounts/alice", Some(link));
    let request = json!({
        "account": "wallet", "receiver": bob.pointer("shop"), "amount": "1000",
    });
    let (status, _) = alice.call_once("/v1/payments", "refused", request);
    assert_eq!(status, 202);
    wait_for("the loss to be told", || {
        bob.log().contains("could not be delivered").then_some(())
    });
    assert_eq!(alice.balance("bob"), 1_000);
}

/// Sends alice's node an answer to a packet that it never sent; status and body.
fn callback(node: &Node, token: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(node.node).unwrap();
    let body = FulfillBuilder {
        fulfillment: [0; 32],
        data: &[],
    };
    let body = body.encode().unwrap();
    let head = format!(
        "POST /accounts/bob/ilp/callback HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nRequest-Id: 0af7651c-16cd-43dd-8448-eb211c80319c\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, answer)
}
