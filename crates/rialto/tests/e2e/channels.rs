//! Channels between two real nodes: opened, paid over both ways at once, killed in between, closed, and
//! shown to whoever wants to check.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Output},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    harness::{Node, wait_for},
    wire::Wire,
};

/// How the two are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Btp,
    Http,
}

/// Nodes `alice` and `bob`, each with an account for the other. On a wire they have the numbers 0 and 1.
pub(crate) fn pair(link: Link, wire: Option<&Wire>) -> [Node; 2] {
    let secrets = [
        "alice, of 32 bytes in base 64, A",
        "bob, also 32 bytes, in base 64 B",
    ];
    let mut nodes = [("alice", secrets[0]), ("bob", secrets[1])].map(|(name, secret)| {
        let mut node = Node::prepare(name, &format!("test.{name}"), "");
        let file = node.folder().join("secret.key");
        let secret = BASE64_STANDARD.encode(secret);
        fs::write(file, secret).unwrap();
        node.restart();
        node
    });
    let account = |name: &str, token: &str| {
        json!({
            "name": name, "relation": "peer", "asset_code": "USD", "asset_scale": 2,
            "ilp_address": format!("test.{name}"), "limits": {"balance_min": "-1000000"},
            "incoming_token": token,
        })
    };
    let mut bob = account("bob", "token-from-bob-to-alice");
    let mut alice = account("alice", "token-from-alice-to-bob");
    let [node_a, node_b] = &mut nodes;
    let on_wire = |[caller, called]: [usize; 2], url: String, to: SocketAddr| match wire {
        Some(wire) => url.replace(&to.to_string(), &wire.lay(caller, called, to).to_string()),
        None => url,
    };
    match link {
        Link::Btp => {
            let url = on_wire([0, 1], node_b.btp_url("alice"), node_b.node);
            bob["btp"] = json!({"url": url, "token": "token-from-alice-to-bob"});
        }
        Link::Http => {
            let to_b = on_wire([0, 1], node_b.ilp_url("alice"), node_b.node);
            let to_a = on_wire([1, 0], node_a.ilp_url("bob"), node_a.node);
            bob["http"] = json!({"url": to_b, "token": "token-from-alice-to-bob"});
            alice["http"] = json!({"url": to_a, "token": "token-from-bob-to-alice"});
        }
    }
    node_b.account(alice);
    node_a.account(bob);
    nodes
}

fn rialto(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
    command
        .args(arguments)
        .current_dir(node.folder())
        .env("RIALTO_CONFIG", node.folder().join("rialto.toml"))
        .env_remove("RIALTO_URL")
        .env_remove("RIALTO_TOKEN");
    command.output().unwrap()
}

pub(crate) fn channel(node: &Node, id: &str) -> Value {
    node.ok("GET", &format!("/v1/channels/{id}"), None)
}

/// Waits until both sides say so of a channel, and have nothing left to tell.
pub(crate) fn wait_state(nodes: &[Node; 2], id: &str, state: &str) {
    for node in nodes {
        wait_for(state, || {
            let (status, found) = node.call("GET", &format!("/v1/channels/{id}"), None);
            (status == 200 && found["state"] == state && found["waiting"] == 0).then_some(())
        });
    }
}

/// Opens a channel by the command line of the first, accepted by the second.
fn open(nodes: &[Node; 2], kind: &str, limits: [&str; 2]) -> String {
    let [limit, their_limit] = limits;
    let arguments = [
        "channel",
        "open",
        "bob",
        "--kind",
        kind,
        "--limit",
        limit,
        "--their-limit",
        their_limit,
        "--json",
    ];
    let opened = rialto(&nodes[0], &arguments);
    let error = String::from_utf8_lossy(&opened.stderr).into_owned();
    assert!(opened.status.success(), "{error}");
    let opened: Value = serde_json::from_slice(&opened.stdout).unwrap();
    assert_eq!(opened["state"], "proposed");
    let id = opened["id"].as_str().unwrap().to_owned();
    wait_for("the offer", || {
        let (status, found) = nodes[1].call("GET", &format!("/v1/channels/{id}"), None);
        (status == 200 && found["state"] == "offered").then_some(())
    });
    let accepted = rialto(&nodes[1], &["channel", "accept", &id]);
    assert!(accepted.status.success());
    wait_state(nodes, &id, "open");
    id
}

/// Asks for a settlement, once.
pub(crate) fn settle(node: &Node, account: &str, amount: u64, key: &str) -> String {
    let body = json!({"account": account, "amount": amount.to_string()});
    let (status, made) = node.call_once("/v1/settlements", key, body);
    assert!(matches!(status, 200 | 201), "{status} {made}");
    made["id"].as_str().unwrap().to_owned()
}

pub(crate) fn wait_accepted(node: &Node, id: &str) {
    wait_for("the settlement", || {
        let made = node.ok("GET", &format!("/v1/settlements/{id}"), None);
        (made["state"] == "accepted").then_some(())
    });
}

/// The two agree, to the unit: what each paid, and the balances.
pub(crate) fn assert_agreed(nodes: &[Node; 2], id: &str, paid: [u64; 2]) {
    let [a, b] = nodes;
    let (one, two) = (channel(a, id), channel(b, id));
    assert_eq!(one["paid"], paid[0].to_string());
    assert_eq!(one["received"], paid[1].to_string());
    assert_eq!(two["paid"], one["received"]);
    assert_eq!(two["received"], one["paid"]);
    assert_eq!(a.balance("bob"), -b.balance("alice"));
    a.assert_books_add_up();
    b.assert_books_add_up();
}

/// Pays over an open channel while one of the two is killed, each at its turn.
fn pay_and_kill(link: Link, kind: &str, limits: [&str; 2]) {
    let mut nodes = pair(link, None);
    let id = open(&nodes, kind, limits);
    let mut paid = [0, 0];
    for round in 0..4 {
        let first = settle(&nodes[0], "bob", 40, &format!("a{round}"));
        if round > 0 {
            nodes[round % 2].kill(); // before, while or after the other has it
            nodes[round % 2].restart();
        }
        wait_accepted(&nodes[0], &first);
        paid[0] += 40;
        // Both at once.
        let first = settle(&nodes[0], "bob", 7, &format!("c{round}"));
        let second = settle(&nodes[1], "alice", 25, &format!("b{round}"));
        wait_accepted(&nodes[0], &first);
        wait_accepted(&nodes[1], &second);
        paid = [paid[0] + 7, paid[1] + 25];
        assert_agreed(&nodes, &id, paid);
    }
    nodes[1].ok("POST", &format!("/v1/channels/{id}/close"), Some(json!({})));
    nodes[0].kill();
    nodes[0].restart();
    wait_state(&nodes, &id, "closed");
    assert_agreed(&nodes, &id, paid);
}

#[test]
fn a_symmetrical_trustline_over_btp() {
    pay_and_kill(Link::Btp, "symmetrical", ["1000", "50"]);
}

#[test]
fn an_asymmetrical_trustline_over_http() {
    pay_and_kill(Link::Http, "asymmetrical", ["1000", "0"]);
}

#[test]
fn what_is_shown_of_a_channel_can_be_checked_and_changes_are_named() {
    let nodes = pair(Link::Btp, None);
    let id = open(&nodes, "symmetrical", ["10", "5"]);
    let made = settle(&nodes[0], "bob", 400, "a");
    wait_accepted(&nodes[0], &made);

    // Above the limit nothing leaves.
    let body = json!({"account": "bob", "amount": "601"});
    let (status, problem) = nodes[0].call_once("/v1/settlements", "above", body);
    assert_eq!(status, 422);
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("the limit of the channel leaves, 6.00 USD"),
        "{detail}"
    );

    let shown = rialto(
        &nodes[1],
        &["channel", "show", &id, "--statement", "alice.json"],
    );
    assert!(shown.status.success());
    let verified = rialto(&nodes[1], &["channel", "verify", "alice.json", "--json"]);
    assert!(verified.status.success());
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified["opener_owes"], "400");
    let file = nodes[1].folder().join("alice.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("\"total\": \"400\"", "\"total\": \"900\""),
    )
    .unwrap();
    let refused = rialto(&nodes[1], &["channel", "verify", "alice.json"]);
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("the signature of its writer"), "{error}");

    // Other limits, and then an end that waits for nobody.
    let limits = json!({"limit": "2000", "their_limit": "500"});
    nodes[0].ok("POST", &format!("/v1/channels/{id}/limits"), Some(limits));
    wait_for("the proposal", || {
        (channel(&nodes[1], &id)["proposed_their_limit"] == "2000").then_some(())
    });
    nodes[1].ok("POST", &format!("/v1/channels/{id}/accept"), None);
    wait_for("other limits", || {
        (channel(&nodes[0], &id)["room"] == "1600").then_some(())
    });
    let closed = rialto(&nodes[1], &["channel", "close", &id, "--alone"]);
    assert!(closed.status.success());
    wait_state(&nodes, &id, "closed_alone");
    assert_agreed(&nodes, &id, [400, 0]);
    let (status, _) = nodes[0].call_once(
        "/v1/settlements",
        "after",
        json!({"account": "bob", "amount": "1"}),
    );
    assert_eq!(status, 422, "there is nothing to settle with");
}

#[test]
fn channels_of_both_kinds_on_one_peering_do_not_know_of_each_other() {
    let nodes = pair(Link::Btp, None);
    let older = open(&nodes, "symmetrical", ["10", "5"]);
    let newer = open(&nodes, "asymmetrical", ["10", "0"]);
    // The newest that has room carries a payment; once it has none, the other does.
    for (amount, key) in [(900, "a"), (100, "b"), (400, "c")] {
        let made = settle(&nodes[0], "bob", amount, key);
        wait_accepted(&nodes[0], &made);
    }
    assert_agreed(&nodes, &newer, [1000, 0]);
    assert_agreed(&nodes, &older, [400, 0]);
    let listed = rialto(
        &nodes[0],
        &["channel", "list", "--account", "bob", "--json"],
    );
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let ids = listed["channels"].as_array().unwrap().iter();
    let ids: Vec<_> = ids.map(|channel| channel["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&newer[..], &older[..]]);
    assert!(
        rialto(&nodes[0], &["channel", "close", &newer])
            .status
            .success()
    );
    wait_state(&nodes, &newer, "closed");
    let made = settle(&nodes[0], "bob", 300, "d");
    wait_accepted(&nodes[0], &made);
    assert_agreed(&nodes, &older, [700, 0]);
    assert_agreed(&nodes, &newer, [1000, 0]);
}

#[test]
fn accounts_open_and_settle_over_channels_by_their_settings_alone() {
    let nodes = pair(Link::Btp, None);
    let terms = |limit: &str, their_limit: &str, propose: bool| {
        json!({"settlement": {"channel": {
            "kind": "asymmetrical", "limit": limit, "their_limit": their_limit, "propose": propose,
        }}})
    };
    nodes[1].ok(
        "PATCH",
        "/v1/accounts/alice",
        Some(terms("0", "5000", false)),
    );
    nodes[0].ok("PATCH", "/v1/accounts/bob", Some(terms("5000", "0", true)));
    let id = wait_for("the channel", || {
        let channels = nodes[0].ok("GET", "/v1/channels", None);
        let first = channels["channels"].get(0)?;
        (first["state"] == "open").then(|| first["id"].as_str().unwrap().to_owned())
    });
    let made = settle(&nodes[0], "bob", 1200, "a");
    wait_accepted(&nodes[0], &made);
    assert_agreed(&nodes, &id, [1200, 0]);
    // The account of an open channel stays.
    assert_eq!(nodes[1].call("DELETE", "/v1/accounts/alice", None).0, 409);
}
