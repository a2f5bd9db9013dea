//! Nodes that nobody invited: callers with unknown tokens, and requests to peer by Rafiki's call.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::{
    harness::Node,
    peering::{RAFIKI, account_names, assert_for_rafiki, conforms, failure, rialto, stdout},
    raw::{Btp, Client, Received, auth, next_number, prepare},
};

/// One request to the node listener, and all of the answer.
fn ask(node: &Node, request: &str) -> String {
    let mut stream = TcpStream::connect(node.node).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A packet that is no packet, with a token. Chunked bodies are another reader's than others.
fn knock(node: &Node, path: &str, token: &str, is_chunked: bool) -> String {
    let body = match is_chunked {
        true => "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        false => "Content-Length: 0\r\n\r\n",
    };
    let head = format!("POST {path} HTTP/1.1\r\nHost: bob\r\nConnection: close\r\n");
    ask(
        node,
        &format!("{head}Authorization: Bearer {token}\r\n{body}"),
    )
}

/// A BTP session that is refused.
fn knock_btp(node: &Node, account: &str, token: &str) {
    let mut session = Btp::open(node.node, account).unwrap();
    session.write(&auth(token)).unwrap();
    let answer = session.read();
    assert!(!matches!(answer, Some(Received::Frame(frame)) if frame.first() == Some(&1)));
}

fn callers(node: &Node) -> Vec<Value> {
    let found = node.ok("GET", "/v1/callers", None);
    found["callers"].as_array().unwrap().clone()
}

/// The fingerprint of the caller that came by this path.
fn by_path(node: &Node, path: &str) -> String {
    let callers = callers(node);
    let found = callers.iter().find(|caller| caller["path"] == path);
    let found = found.unwrap_or_else(|| panic!("{path}: {callers:?}"));
    found["fingerprint"].as_str().unwrap().to_owned()
}

#[test]
fn unknown_callers_are_listed_adopted_and_blocked() {
    let mut bob = Node::start("bob", "test.bob", "");
    let (narrow, wide, btp) = (
        "token_of_a_narrow_caller",
        "token_of_a_wide_caller",
        "token_of_a_btp_caller",
    );
    for _ in 0..3 {
        assert!(knock(&bob, "/ilp", narrow, false).starts_with("HTTP/1.1 401 "));
    }
    assert!(knock(&bob, "/accounts/x/ilp", wide, true).starts_with("HTTP/1.1 401 "));
    knock_btp(&bob, "y", btp);
    assert!(knock(&bob, "/accounts/short/ilp", "short", false).starts_with("HTTP/1.1 401 "));
    let listed = callers(&bob);
    assert_eq!(listed.len(), 4, "{listed:?}");
    let first = listed
        .iter()
        .find(|caller| caller["path"] == "/ilp")
        .unwrap();
    assert_eq!(
        (&first["count"], &first["address"]),
        (&json!(3), &json!("127.0.0.1"))
    );
    let instant = |field: &str| {
        first[field]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    assert!(instant("last_seen") >= instant("first_seen"));
    let (narrow_id, wide_id) = (by_path(&bob, "/ilp"), by_path(&bob, "/accounts/x/ilp"));
    let btp_id = by_path(&bob, "/accounts/y/ilp/btp");
    let shown = stdout(&rialto(&bob, &["peer", "callers"]));
    assert!(
        shown.contains(&narrow_id) && shown.contains(&btp_id),
        "{shown}"
    );
    let json = stdout(&rialto(&bob, &["peer", "callers", "--json"]));
    for token in [narrow, wide, btp] {
        assert!(!shown.contains(token) && !json.contains(token), "{json}");
        assert!(!bob.log().contains(token), "the log tells a token");
    }

    // A new account for one, and one more token for it.
    let adopt = ["peer", "adopt", &narrow_id, "--name", "carol"];
    let said = failure(&rialto(&bob, &adopt));
    assert!(said.contains("there is no account 'carol' yet"), "{said}");
    let asset = [
        "--asset",
        "USD/9",
        "--credit",
        "10",
        "--ilp-address",
        "test.carol",
    ];
    stdout(&rialto(&bob, &[&adopt[..], &asset].concat()));
    let account = bob.ok("GET", "/v1/accounts/carol", None);
    assert_eq!(account["limits"]["balance_min"], "-10000000000");
    assert_eq!(account["routes"]["receive"], true);
    stdout(&rialto(
        &bob,
        &["peer", "adopt", &wide_id, "--name", "carol"],
    ));
    for token in [narrow, wide] {
        let mut caller = Client::new(bob.node, "/accounts/carol/ilp", token);
        let packet = prepare(next_number(), 0, "test.nowhere.x", 20_000);
        assert!(caller.send(&packet).is_some(), "{token}");
    }
    assert_eq!(callers(&bob).len(), 2);
    let other = [
        "peer", "adopt", &btp_id, "--name", "carol", "--asset", "EUR/2",
    ];
    let said = failure(&rialto(&bob, &other));
    assert!(said.contains("counts USD/9"), "{said}");
    bob.account(json!({
        "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
    }));
    failure(&rialto(
        &bob,
        &["peer", "adopt", &btp_id, "--name", "wallet"],
    ));
    let wallet = bob.ok("GET", "/v1/accounts/wallet", None);
    assert_eq!(wallet["incoming_tokens"].as_array().map_or(0, Vec::len), 0);
    let short_id = by_path(&bob, "/accounts/short/ilp");
    let said = failure(&rialto(
        &bob,
        &["peer", "adopt", &short_id, "--name", "carol"],
    ));
    assert!(said.contains("has 5 bytes"), "{said}");
    let said = failure(&rialto(&bob, &["peer", "adopt", "0011", "--name", "carol"]));
    assert!(said.contains("no caller '0011'"), "{said}");

    // A token that opens something, at another account: neither blocked nor adopted.
    knock(&bob, "/accounts/z/ilp", narrow, false);
    let known_id = by_path(&bob, "/accounts/z/ilp");
    let said = failure(&rialto(&bob, &["peer", "block", &known_id]));
    assert!(said.contains("the token opens account 'carol'"), "{said}");

    // Who is blocked hears the same as before, and nobody hears of it, over a restart too.
    let before = knock(&bob, "/ilp", btp, false);
    stdout(&rialto(&bob, &["peer", "block", &btp_id]));
    for restarts in 0..2 {
        if restarts == 1 {
            bob.kill();
            bob.restart();
        }
        for is_chunked in [false, true] {
            let refused = knock(&bob, "/ilp", btp, is_chunked);
            assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
            assert!(is_chunked || refused == before, "{refused}");
        }
        knock_btp(&bob, "y", btp);
        let listed = callers(&bob);
        assert!(
            listed.iter().all(|caller| caller["fingerprint"] != *btp_id),
            "{listed:?}"
        );
        let found = bob.ok("GET", "/v1/callers", None);
        assert_eq!(found["blocked"], json!([btp_id]));
    }
    stdout(&rialto(&bob, &["peer", "unblock", &btp_id]));
    knock(&bob, "/ilp", btp, false);
    assert_eq!(by_path(&bob, "/ilp"), btp_id);
    let said = failure(&rialto(&bob, &["peer", "unblock", &btp_id]));
    assert!(said.contains("no blocked caller"), "{said}");
}

const AUTO: &str = "[auto_peering]\npath = \"/auto-peer\"\nrequests_per_address_max = 3\n";

/// Rafiki's call.
fn call(address: &str, url: &str, token: &str) -> Value {
    json!({
        "staticIlpAddress": address, "ilpConnectorUrl": url,
        "asset": {"code": "USD", "scale": 2}, "httpToken": token,
        "maxPacketAmount": null, "name": "Cloud Nine", "tenantId": "t",
    })
}

fn post(node: &Node, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let answer = ask(
        node,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: bob\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn requests(node: &Node) -> Vec<Value> {
    let found = node.ok("GET", "/v1/peering-requests", None);
    found["requests"].as_array().unwrap().clone()
}

#[test]
fn a_stranger_that_asks_to_peer_waits_for_the_operator() {
    let alice = Node::start("alice", "test.alice", "");
    let mut bob = Node::start("bob", "test.bob", AUTO);
    let first = call(
        "test.rafiki",
        "http://127.0.0.1:9/",
        "token_of_the_first_call",
    );
    // Off unless it is asked for: then it is a payment pointer like any, which is not posted to.
    assert_eq!(post(&alice, "/auto-peer", &first).0, 405);
    let (status, waiting) = post(&bob, "/auto-peer", &first);
    assert_eq!(
        (status, &waiting["code"]),
        (403, &json!("approval_pending"))
    );
    // Again, with another token as Rafiki does: it is the same request, after a crash as well.
    let again = call(
        "test.rafiki",
        "http://127.0.0.1:9/",
        "token_of_the_second_call",
    );
    assert_eq!(post(&bob, "/auto-peer", &again), (403, waiting.clone()));
    bob.kill();
    bob.restart();
    assert_eq!(post(&bob, "/auto-peer", &again), (403, waiting.clone()));
    let listed = requests(&bob);
    assert_eq!(listed.len(), 1, "{listed:?}");
    for (key, expected) in [
        ("state", "waiting"),
        ("from", "127.0.0.1"),
        ("name", "Cloud Nine"),
        ("ilp_address", "test.rafiki"),
        ("url", "http://127.0.0.1:9/"),
        ("asset_code", "USD"),
    ] {
        assert_eq!(listed[0][key], expected, "{key}");
    }
    assert_eq!(account_names(&bob), [""; 0], "nothing is made of a request");

    // What can be none is not put before the operator.
    let refused = |body: &Value, status: u16, word: &str| {
        let (found, problem) = post(&bob, "/auto-peer", body);
        assert_eq!(found, status, "{problem}");
        let problem = problem.to_string();
        assert!(problem.contains(word), "{problem}");
    };
    let token = "token_of_yet_another_call";
    refused(&json!([]), 400, "malformed");
    refused(
        &call("test.bob.x", "http://127.0.0.1:8/", token),
        409,
        "overlaps",
    );
    refused(
        &call("g.rafiki", "http://127.0.0.1:8/", token),
        409,
        "another network",
    );
    refused(
        &call("test.x", "ftp://127.0.0.1:8/", token),
        422,
        "ilpConnectorUrl",
    );
    refused(
        &call("test.x", "http://127.0.0.1:8/", "short"),
        422,
        "httpToken",
    );
    assert_eq!(requests(&bob).len(), 1);

    // Two more fit, and no third.
    let denied = call("test.denied", "http://127.0.0.1:8/", token);
    assert_eq!(post(&bob, "/auto-peer", &denied).0, 403);
    assert_eq!(
        post(
            &bob,
            "/auto-peer",
            &call("test.c", "http://127.0.0.1:7/", token)
        )
        .0,
        403
    );
    refused(
        &call("test.d", "http://127.0.0.1:6/", token),
        503,
        "too many",
    );
    let id = |address: &str| {
        let listed = requests(&bob);
        let found = listed
            .iter()
            .find(|request| request["ilp_address"] == address);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    stdout(&rialto(&bob, &["peer", "deny", &id("test.denied")]));
    assert_eq!(post(&bob, "/auto-peer", &denied), (403, waiting.clone()));

    // What is wrong with an approval is said to the operator, and not to the asker.
    let unnamed = ["peer", "approve", &id("test.rafiki"), "--name", "no name"];
    failure(&rialto(&bob, &unnamed));

    // The operator approves; the account is made by the next call alone, with its tokens.
    let approve = [
        "peer",
        "approve",
        &id("test.rafiki"),
        "--credit",
        "10",
        "--name",
        "rafiki",
    ];
    stdout(&rialto(&bob, &approve));
    assert_eq!(account_names(&bob), [""; 0]);
    let elsewhere = call("test.rafiki", "http://127.0.0.1:5/", token);
    assert_ne!(
        post(&bob, "/auto-peer", &elsewhere).0,
        200,
        "the approval is for one URL"
    );
    assert_eq!(account_names(&bob), [""; 0]);
    let (status, answer) = post(&bob, "/auto-peer", &again);
    assert_eq!(status, 200, "{answer}");
    let ours = answer["httpToken"].as_str().unwrap();
    assert!(ours.starts_with("rialto_peer_"), "{ours}");
    let expected = json!({
        "staticIlpAddress": "test.bob", "ilpConnectorUrl": format!("http://{}/ilp", bob.node),
        "httpToken": ours, "name": "bob",
    });
    assert_eq!(answer, expected);
    // Rafiki also names the tenant that the peer belongs to there, and its client reads no tenant: there is
    // none here.
    let facts: Value = serde_json::from_str(RAFIKI).unwrap();
    conforms(&facts, "AutoPeered!", &answer, "").unwrap();
    conforms(&facts, "AutoPeering!", &again, "").unwrap();
    for field in ["staticIlpAddress", "ilpConnectorUrl", "httpToken", "name"] {
        let mut without = answer.clone();
        without.as_object_mut().unwrap().remove(field);
        assert!(conforms(&facts, "AutoPeered!", &without, "").is_err());
    }
    let account = bob.ok("GET", "/v1/accounts/rafiki", None);
    assert_eq!(account["ilp_address"], "test.rafiki");
    assert_eq!(account["http"]["url"], "http://127.0.0.1:9/");
    assert_eq!(account["limits"]["balance_min"], "-1000");
    assert_for_rafiki(&account);
    let mut caller = Client::new(bob.node, "/ilp", "token_of_the_second_call");
    let packet = prepare(next_number(), 0, "test.nowhere.x", 20_000);
    assert!(caller.send(&packet).is_some());

    // A peer that is there is never replaced, neither by its address nor by its URL.
    refused(
        &call("test.rafiki", "http://127.0.0.1:5/", token),
        409,
        "another account",
    );
    refused(&again, 409, "another account");
    refused(
        &call("test.e", "http://127.0.0.1:9", token),
        409,
        "at this URL",
    );
    let now = bob.ok("GET", "/v1/accounts/rafiki", None);
    assert_eq!(now["incoming_tokens"], account["incoming_tokens"]);
    assert_eq!(account_names(&bob), ["rafiki"]);
    let states: Vec<_> = requests(&bob)
        .iter()
        .map(|request| request["state"].clone())
        .collect();
    assert_eq!(states, ["denied", "waiting"]);
    println!(
        "reliability: auto-peering | 20 calls of strangers, one approved | 1 account made, none replaced"
    );
}
