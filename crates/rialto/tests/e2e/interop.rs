//! Independent implementations from npm, through a real node.

use std::io::Write;

use serde_json::{Value, json};

use crate::{
    harness::{CREDIT, Node, Peer, wait_for},
    raw::{Client, next_number, outcome, prepare},
};

const TOKEN: &str = "token-of-a-javascript-peer";

fn node() -> Node {
    Node::start("hub", "test.hub", "default_account = \"shop\"\n")
}

fn child(node: &Node, name: &str, token: &str) {
    node.account(json!({
        "name": name, "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": token,
    }));
}

fn btp(node: &Node, name: &str, token: &str) -> String {
    node.btp_url(name)
        .replace("btp+ws://", &format!("btp+ws://:{token}@"))
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
}

#[test]
fn a_javascript_client_pays_a_javascript_server_through_the_node() {
    let node = node();
    child(&node, "payer", "token-of-the-payer");
    child(&node, "payee", "token-of-the-payee");
    let server = Peer::start(
        "stream-server.js",
        &["--btp", &btp(&node, "payee", "token-of-the-payee")],
    );
    let account = text(&server.ready["destination_account"]).to_owned();
    assert!(
        account.starts_with("test.hub.payee."),
        "ILDCP gave it its address: {account}"
    );
    let client = Peer::start(
        "stream-client.js",
        &[
            "--btp",
            &btp(&node, "payer", "token-of-the-payer"),
            "--destination",
            &account,
            "--secret",
            text(&server.ready["shared_secret"]),
            "--amount",
            "1000000",
        ],
    );
    let end = client.end();
    assert_eq!(
        (text(&end["sent"]), text(&end["delivered"])),
        ("1000000", "1000000")
    );
    assert_eq!(server.stop()["total"], "1000000");
    assert_eq!(
        (node.balance("payer"), node.balance("payee")),
        (-1_000_000, 1_000_000)
    );
    node.assert_books_add_up();
    println!(
        "reliability: interop | ilp-protocol-stream pays ilp-protocol-stream through the node, BTP both \
         ways, 1000000 units | 1000000 delivered"
    );
}

#[test]
fn a_javascript_client_pays_our_payment_pointer() {
    let node = node();
    child(&node, "payer", TOKEN);
    node.ok(
        "PUT",
        "/v1/rates",
        Some(json!({"from": "USD", "to": "EUR", "rate": "0.5"})),
    );
    node.account(
        json!({"name": "shop", "relation": "local", "asset_code": "EUR", "asset_scale": 9}),
    );
    for pointer in [
        node.pointer("shop"),
        format!("http://{}/.well-known/pay", node.node),
    ] {
        let before = node.balance("shop");
        let url = btp(&node, "payer", TOKEN);
        let client = Peer::start(
            "stream-client.js",
            &["--btp", &url, "--spsp", &pointer, "--amount", "1000000"],
        );
        let end = client.end();
        assert_eq!(
            (text(&end["sent"]), text(&end["delivered"])),
            ("1000000", "500000")
        );
        assert_eq!(end["destination_asset"]["code"], "EUR");
        assert_eq!(node.balance("shop") - before, 500_000);
    }
    node.assert_books_add_up();
    println!(
        "reliability: interop | ilp-protocol-stream over BTP pays two payment pointers of ours at a rate \
         of 0.5, 2000000 units | 1000000 delivered"
    );
}

#[test]
fn our_sender_pays_a_javascript_receiver() {
    let node = node();
    child(&node, "payee", TOKEN);
    node.account(json!({
        "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT, "packet_amount_max": "10000"},
    }));
    let server = Peer::start(
        "stream-server.js",
        &["--btp", &btp(&node, "payee", TOKEN), "--spsp-port", "0"],
    );
    let payment = node.pay(
        "to-javascript",
        &json!({
            "account": "wallet", "receiver": text(&server.ready["spsp_url"]), "amount": "1000000",
        }),
    );
    assert_eq!(payment["state"], "completed", "{payment}");
    assert_eq!(payment["delivered"]["amount"], "1000000");
    assert_eq!(payment["delivered"]["asset_code"], "USD");
    assert_eq!(server.stop()["total"], "1000000");
    assert_eq!(node.balance("payee"), 1_000_000);
    node.assert_books_add_up();
    println!(
        "reliability: interop | our sender pays an ilp-protocol-stream server over BTP, 1000000 units | \
         1000000 delivered"
    );
}

#[test]
fn we_dial_a_javascript_btp_server() {
    let node = node();
    // It listens first, and is ready once we have dialled and answered its ILDCP request.
    let mut server = Peer::start_until(
        "listening",
        "stream-server.js",
        &[
            "--btp-listen",
            "0",
            "--btp-token",
            TOKEN,
            "--spsp-port",
            "0",
        ],
    );
    let listening = server.ready.clone();
    node.account(json!({
        "name": "payee", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "btp": {"url": text(&listening["btp_url"]), "token": TOKEN},
    }));
    node.account(json!({
        "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT},
    }));
    let ready = server.next("ready");
    let payment = node.pay(
        "to-a-server",
        &json!({
            "account": "wallet", "receiver": text(&ready["spsp_url"]), "amount": "5000",
        }),
    );
    assert_eq!(payment["state"], "completed", "{payment}");
    assert_eq!(server.stop()["total"], "5000");
    println!(
        "reliability: interop | our sender pays over a BTP server of JavaScript that we dial, 5000 units \
         | 5000 delivered"
    );
}

fn exchange_over_http(more: &[&str]) {
    let node = node();
    let url = node.ilp_url("peer");
    let mut arguments = vec![
        "--url",
        &url,
        "--token",
        TOKEN,
        "--listen-port",
        "0",
        "--listen-token",
        "token-of-the-node",
        "--count",
        "20",
        "--concurrency",
        "4",
        "--amount",
        "7",
        "--destination",
        "test.hub.peer.x",
        "--wait-received",
        "20",
        "--wait-stdin",
    ];
    arguments.extend(more);
    let mut peer = Peer::start("http-peer.js", &arguments);
    node.account(json!({
        "name": "peer", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": TOKEN,
        "http": {"url": text(&peer.ready["listen_url"]), "token": "token-of-the-node"},
    }));
    // Its packets to itself go out over HTTP and come back over HTTP: both directions in one.
    peer.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let end = peer.end();
    assert_eq!(
        (&end["fulfilled"], &end["received"]),
        (&json!(20), &json!(20)),
        "{end}"
    );
    assert_eq!(node.balance("peer"), 0, "what it paid is what it got");
    let account = node.ok("GET", "/v1/accounts/peer", None);
    assert_eq!(account["in_flight"]["count"], 0);
    println!(
        "reliability: interop | 20 packets of a JavaScript peer to itself and back, HTTP {} | 20 fulfilled",
        if more.is_empty() { 1 } else { 2 }
    );
}

#[test]
fn packets_go_both_ways_over_http_1() {
    exchange_over_http(&[]);
}

#[test]
fn packets_go_both_ways_over_http_2() {
    exchange_over_http(&["--http2"]);
}

#[test]
fn a_javascript_peer_over_btp_gets_each_kind_of_answer() {
    let node = node();
    child(&node, "near", "token-of-the-near-one");
    child(&node, "far", "token-of-the-far-one");
    let far = Peer::start(
        "btp-peer.js",
        &["--btp", &btp(&node, "far", "token-of-the-far-one")],
    );
    for (last, kind, code) in [
        ("x", "fulfill", ""),
        ("reject-T04", "reject", "T04"),
        ("wrong", "reject", "F05"),
        ("garbage", "reject", "T01"),
    ] {
        let near = Peer::start(
            "btp-peer.js",
            &[
                "--btp",
                &btp(&node, "near", "token-of-the-near-one"),
                "--count",
                "1",
                "--amount",
                "5",
                "--destination",
                &format!("test.hub.far.{last}"),
            ],
        );
        let mut near = near;
        let reply = near.next("reply");
        assert_eq!(reply["type"], kind, "{last}: {reply}");
        if !code.is_empty() {
            assert_eq!(reply["code"], code, "{last}: {reply}");
        }
        near.end();
    }
    assert_eq!(node.balance("far"), 5);
    let free = || node.ok("GET", "/v1/accounts/near", None)["in_flight"]["count"] == 0;
    wait_for("all holds to be freed", || free().then_some(()));
    far.stop();
    println!(
        "reliability: interop | a JavaScript BTP peer that fulfills, rejects, proves nothing and sends \
         garbage | each the answer it has to have, 0 holds left"
    );
}

/// Rust nodes of 2020 send a Prepare in a BTP Response, and the answer to one in a Message.
#[test]
fn a_peer_with_its_btp_types_the_wrong_way_round_pays_and_is_paid() {
    let node = node();
    child(&node, "old", "token-of-the-old-one");
    child(&node, "far", "token-of-the-far-one");
    child(&node, "payer", "token-of-the-payer");
    let far = Peer::start(
        "btp-peer.js",
        &["--btp", &btp(&node, "far", "token-of-the-far-one")],
    );
    let url = btp(&node, "old", "token-of-the-old-one");
    let arguments = ["--btp", &url, "--case", "inverted", "--amount", "7"];
    let more = ["--destination", "test.hub.far.x", "--quiet-ms", "60000"];
    let mut old = Peer::start("btp-raw.js", &[&arguments[..], &more].concat());
    // First what its authentication is answered with.
    assert_eq!(old.next("frame")["type"], "response");
    let answer = old.next("frame");
    assert_eq!(
        (&answer["type"], &answer["request_id"]),
        (&json!("response"), &json!(2)),
        "{answer}"
    );
    assert_eq!(answer["ilp"]["type"], "fulfill", "{answer}");
    assert_eq!((node.balance("old"), node.balance("far")), (-7, 7));

    // And to it: it answers in a Message, which is no request and pays once.
    let mut client = Client::new(node.node, "/accounts/payer/ilp", "token-of-the-payer");
    let reply = client.send(&prepare(next_number(), 5, "test.hub.old.x", 20_000));
    assert_eq!(outcome(&reply.unwrap()), "fulfill");
    let asked = old.next("frame");
    assert_eq!(asked["ilp"]["type"], "prepare", "{asked}");
    assert_eq!((node.balance("old"), node.balance("payer")), (-2, -5));
    let refused = client.send(&prepare(
        next_number(),
        5,
        "test.hub.old.reject-T04",
        20_000,
    ));
    assert!(outcome(&refused.unwrap()).starts_with("T04"));
    let wrong = client.send(&prepare(next_number(), 5, "test.hub.old.wrong", 20_000));
    assert!(outcome(&wrong.unwrap()).starts_with("F05"));
    assert_eq!((node.balance("old"), node.balance("payer")), (-2, -5));
    let stats = &node.ok("GET", "/v1/accounts/old", None)["stats"];
    assert_eq!(
        (&stats["fulfills_in"], &stats["prepares_in"]),
        (&json!(1), &json!(1)),
        "{stats}"
    );
    node.assert_books_add_up();
    old.stop();
    far.stop();
    println!(
        "reliability: interop | a BTP peer that takes Message for Response and Response for Message, 4 \
         packets | 2 paid once, 2 refused"
    );
}
