//! ILP over HTTP as two nodes may agree on it beside the usual: HTTP/2 without TLS.

use serde_json::{Value, json};

use crate::harness::{CREDIT, Node};

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
