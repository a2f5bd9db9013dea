//! Nodes that have no address of their own: a parent, its child over BTP, and the child's child over
//! HTTP.

use serde_json::json;

use crate::harness::{CREDIT, Node, wait_for};

fn address(node: &Node) -> Option<String> {
    let status = node.ok("GET", "/v1/status", None);
    status["ilp_address"].as_str().map(str::to_owned)
}

fn wait_address(node: &Node, expected: &str) {
    wait_for(&format!("{} at {expected}", node.name), || {
        (address(node)? == expected).then_some(())
    });
}

/// An account with another node, or of this one.
fn account(name: &str, relation: &str) -> serde_json::Value {
    json!({
        "name": name, "relation": relation, "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT},
    })
}

#[test]
fn addresses_come_from_the_parent_over_btp_and_http() {
    let hub = Node::start("hub", "test.hub", "");
    let mut mid = Node::start("mid", "unknown", "");
    let leaf = Node::start("leaf", "unknown", "");

    // A node that waits says so.
    assert_eq!(address(&leaf), None);
    let (status, text) = leaf.call("GET", "/readyz?verbose", None);
    assert_eq!(status, 503);
    let text = text.as_str().unwrap().to_owned();
    assert!(
        text.contains("[-] address: no account has the relation parent"),
        "{text}"
    );
    wait_for("a line in the log", || {
        leaf.log()
            .contains("no address from the parent")
            .then_some(())
    });

    let mut leaf_at_mid = account("leaf", "child");
    leaf_at_mid["incoming_token"] = "token-from-leaf-to-mid".into();
    mid.account(leaf_at_mid);
    leaf.account(account("wallet", "local"));
    let mut mid_at_leaf = account("mid", "parent");
    mid_at_leaf["http"] = json!({"url": mid.ilp_url("leaf"), "token": "token-from-leaf-to-mid"});
    leaf.account(mid_at_leaf);
    // Its parent has none itself: that is a reason to ask again, not an answer.
    wait_for("the parent's refusal", || {
        let status = leaf.ok("GET", "/v1/status", None);
        status["address_problem"]
            .as_str()?
            .contains("T01")
            .then_some(())
    });
    assert_eq!(address(&leaf), None);
    let request = json!({"account": "wallet", "receiver": hub.pointer("shop"), "amount": "1000"});

    hub.account(account("shop", "local"));
    let mut mid_at_hub = account("mid", "child");
    mid_at_hub["incoming_token"] = "token-from-mid-to-hub".into();
    hub.account(mid_at_hub);
    let early = leaf.pay("early", &request);
    assert_eq!(early["state"], "failed");
    assert!(early.to_string().contains("no address yet"), "{early}");

    let mut hub_at_mid = account("hub", "parent");
    hub_at_mid["btp"] = json!({"url": hub.btp_url("mid"), "token": "token-from-mid-to-hub"});
    mid.account(hub_at_mid);
    wait_address(&mid, "test.hub.mid");
    wait_address(&leaf, "test.hub.mid.leaf");
    assert_eq!(leaf.call("GET", "/readyz", None).0, 200);
    let paid = leaf.pay("one", &request);
    assert_eq!(paid["state"], "completed", "{paid}");
    assert_eq!(hub.balance("shop"), 1_000);
    assert_eq!(mid.balance("leaf"), -1_000);

    // Another address reaches the child when its session comes back, and then its own children.
    hub.ok(
        "PATCH",
        "/v1/accounts/mid",
        Some(json!({"ilp_address": "test.hub.renamed"})),
    );
    wait_address(&mid, "test.hub.renamed");
    leaf.ok("PATCH", "/v1/accounts/mid", Some(json!({"spread": "0"})));
    wait_address(&leaf, "test.hub.renamed.leaf");
    assert_eq!(leaf.pay("two", &request)["state"], "completed");

    // An answer that cannot be taken changes nothing.
    hub.ok(
        "PATCH",
        "/v1/accounts/mid",
        Some(json!({"ilp_address": "g.other"})),
    );
    wait_for("the refusal of another network", || {
        let status = mid.ok("GET", "/v1/status", None);
        status["address_problem"]
            .as_str()?
            .contains("of another network")
            .then_some(())
    });
    assert_eq!(address(&mid).unwrap(), "test.hub.renamed");
    let line = "no address from the parent";
    wait_for("a line in the log", || {
        let log = mid.log();
        let mut lines = log.lines().filter(|found| found.contains(line));
        lines
            .any(|found| found.contains("of another network"))
            .then_some(())
    });
    // Packets pass as before, there and back.
    assert_eq!(leaf.pay("three", &request)["state"], "completed");
    let metrics = mid.ok("GET", "/metrics", None);
    assert!(
        !metrics
            .as_str()
            .unwrap()
            .contains("rialto_addresses_refused_total 0")
    );

    // After a restart it is asked again.
    assert_eq!(mid.terminate(), 0);
    mid.restart();
    wait_address(&mid, "g.other");
    for node in [&hub, &mid, &leaf] {
        node.assert_books_add_up();
    }
}

#[test]
fn a_parent_that_counts_otherwise_is_not_believed() {
    let hub = Node::start("hub", "test.hub", "");
    let child = Node::start("child", "unknown", "");
    let mut at_hub = account("child", "child");
    at_hub["asset_scale"] = 6.into();
    at_hub["incoming_token"] = "token-from-child-to-hub".into();
    hub.account(at_hub);
    let mut at_child = account("hub", "parent");
    at_child["http"] = json!({"url": hub.ilp_url("child"), "token": "token-from-child-to-hub"});
    child.account(at_child);
    wait_for("the refusal", || {
        let status = child.ok("GET", "/v1/status", None);
        let problem = status["address_problem"].as_str()?;
        problem
            .contains("counts in USD/6, our account 'hub' in USD/9")
            .then_some(())
    });
    assert_eq!(address(&child), None);
}
