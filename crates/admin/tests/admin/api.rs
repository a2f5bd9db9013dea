//! The API as callers see it.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use crate::node::{ADMIN, Client, TestNode, request};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use rialto_admin::Node;
use rialto_ledger::{AccountSettings, Record};
use serde_json::{Value, json};

/// A local account, a peer by HTTP and one by BTP.
pub(crate) async fn with_accounts() -> (Arc<TestNode>, Client) {
    let node = TestNode::new();
    let client = Client::new(&node);
    for body in [
        json!({"name": "alice", "relation": "local", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": "-1000000"}}),
        json!({"name": "bob", "relation": "local", "asset_code": "EUR", "asset_scale": 6}),
        json!({"name": "far", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
            "ilp_address": "g.far", "incoming_token": "far-far-far-far-far",
            "http": {"url": "https://far.example/ilp", "token": "outgoing-secret"}}),
        json!({"name": "hub", "relation": "child", "asset_code": "USD", "asset_scale": 9,
            "btp": {"url": "btp+wss://me:btp-secret@hub.example/ilp/btp"}, "generate_token": true}),
    ] {
        client.must("POST", "/v1/accounts", body).await;
    }
    let rate = json!({"from": "USD", "to": "EUR", "rate": "0.92"});
    client.must("PUT", "/v1/rates", rate).await;
    (node, client)
}

fn payment(receiver: &str) -> Value {
    json!({"account": "alice", "receiver": receiver, "amount": "500000"})
}

#[tokio::test]
async fn an_account_is_created_read_changed_and_deleted() {
    let node = TestNode::new();
    let client = Client::new(&node);
    let body = json!({"name": "bob", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": "-1000", "packet_amount_max": "18446744073709551615"},
        "http": {"url": "https://bob.example/ilp", "token": "outgoing-secret"},
        "generate_token": true});
    let answer = client.call("POST", "/v1/accounts", body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let created = answer.json();
    let token = created["incoming_token"].as_str().unwrap();
    assert!(token.starts_with("rialto_peer_") && token.len() == 55);
    assert_eq!(created["available"], "1000");
    assert_eq!(
        created["limits"]["packet_amount_max"],
        "18446744073709551615"
    );
    assert_eq!(created["http"], json!({"url": "https://bob.example/ilp"}));
    assert_eq!(
        (&created["link"], &created["words"]),
        (&json!("http"), &json!("even"))
    );

    // Merged: what is left out stays, null clears.
    let change = json!({"limits": {"balance_min": "-5"}, "spread": "0.002", "paused": true});
    let changed = client.must("PATCH", "/v1/accounts/bob", change).await;
    assert_eq!(changed["limits"]["balance_min"], "-5");
    assert_eq!(
        changed["limits"]["packet_amount_max"],
        "18446744073709551615"
    );
    assert_eq!(
        (&changed["spread"], &changed["paused"]),
        (&json!("0.002"), &json!(true))
    );
    assert_eq!(changed["http"], json!({"url": "https://bob.example/ilp"}));
    let change = json!({"limits": {"packet_amount_max": null}, "spread": null, "http": null});
    let changed = client.must("PATCH", "/v1/accounts/bob", change).await;
    assert_eq!(changed["limits"]["balance_min"], "-5");
    assert_eq!(changed["limits"]["packet_amount_max"], Value::Null);
    assert_eq!(
        (&changed["spread"], &changed["http"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(changed["link"], "down");

    let read = client.must("GET", "/v1/accounts/bob", Value::Null).await;
    assert_eq!(read, changed);
    let deleted = client.call("DELETE", "/v1/accounts/bob", Value::Null).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(client.get("/v1/accounts/bob").await.problem().0, 404);
    assert!(matches!(
        node.records().last(),
        Some(Record::AccountDeleted { .. })
    ));
}

/// The API's part of what a node does with bad input.
#[tokio::test]
async fn bad_input_is_refused_with_the_field_that_is_to_blame() {
    let (node, client) = with_accounts().await;
    let records = node.records().len();
    let account = |change: Value| {
        let mut body =
            json!({"name": "new", "relation": "peer", "asset_code": "USD", "asset_scale": 9});
        for (field, value) in change.as_object().unwrap() {
            body[field] = value.clone();
        }
        ("POST", "/v1/accounts", body)
    };
    let change = |body: Value| ("PATCH", "/v1/accounts/far", body);
    let rate = |body: Value| ("PUT", "/v1/rates", body);
    let quote = |body: Value| ("POST", "/v1/quotes", body);
    let alice = |body: Value| {
        let mut request = json!({"account": "alice", "receiver": "$node.example/bob"});
        for (field, value) in body.as_object().unwrap() {
            request[field] = value.clone();
        }
        quote(request)
    };
    for ((method, path, body), expected) in [
        // Contradicts what exists.
        (account(json!({"name": "alice"})), (409, "conflict", "name")),
        (
            account(json!({"incoming_token": "far-far-far-far-far"})),
            (409, "conflict", "incoming_token"),
        ),
        (
            account(json!({"ilp_address": "g.far"})),
            (409, "conflict", "ilp_address"),
        ),
        (
            account(json!({"ilp_address": "g.node"})),
            (409, "conflict", "ilp_address"),
        ),
        (change(json!({"name": "near"})), (409, "conflict", "name")),
        (
            change(json!({"asset_scale": 6})),
            (409, "conflict", "asset_scale"),
        ),
        // Values that are not possible.
        (account(json!({"name": "a b"})), (422, "invalid", "name")),
        (
            account(json!({"asset_scale": 256})),
            (422, "invalid", "asset_scale"),
        ),
        (
            account(json!({"asset_scale": -1})),
            (422, "invalid", "asset_scale"),
        ),
        (
            account(json!({"asset_code": ""})),
            (422, "invalid", "asset_code"),
        ),
        (
            account(json!({"relation": "friend"})),
            (422, "invalid", "relation"),
        ),
        (
            account(json!({"ilp_address": "g..x"})),
            (422, "invalid", "ilp_address"),
        ),
        (account(json!({"spread": "1"})), (422, "invalid", "spread")),
        (
            account(json!({"limits": {"balance_min": "1"}})),
            (422, "invalid", "limits.balance_min"),
        ),
        (
            account(json!({"limits": {"balance_min": -1}})),
            (422, "invalid", "limits.balance_min"),
        ),
        (
            account(json!({"limits": {"packet_amount_max": "0"}})),
            (422, "invalid", "limits.packet_amount_max"),
        ),
        (
            account(json!({"limits": {"packet_amount_max": "+5"}})),
            (422, "invalid", "limits.packet_amount_max"),
        ),
        (
            account(json!({"limits": {"packet_amount_max": "18446744073709551616"}})),
            (422, "invalid", "limits.packet_amount_max"),
        ),
        (
            account(json!({"limits": {"packet_amount_max": "10", "in_flight_amount_max": "9"}})),
            (422, "invalid", "limits.packet_amount_max"),
        ),
        (
            account(json!({"limits": {"credit": "5"}})),
            (422, "invalid", "limits.credit"),
        ),
        (
            account(json!({"colour": "red"})),
            (422, "invalid", "colour"),
        ),
        (
            account(json!({"incoming_token": "short"})),
            (422, "invalid", "incoming_token"),
        ),
        (
            account(json!({"incoming_token": "0123456789 abcdef"})),
            (422, "invalid", "incoming_token"),
        ),
        (
            account(json!({"incoming_token": "0123456789abcdef", "generate_token": true})),
            (422, "invalid", "incoming_token"),
        ),
        (
            account(json!({"relation": "local", "generate_token": true})),
            (422, "invalid", "incoming_token"),
        ),
        (
            account(
                json!({"relation": "local", "http": {"url": "http://x.example/ilp", "token": "t"}}),
            ),
            (422, "invalid", "http"),
        ),
        (
            account(json!({"http": {"url": "ftp://x.example/ilp", "token": "t"}})),
            (422, "invalid", "http.url"),
        ),
        (
            account(json!({"http": {"url": "https://user@x.example/ilp", "token": "t"}})),
            (422, "invalid", "http.url"),
        ),
        (
            account(json!({"http": {"url": "https://x.example/ilp"}})),
            (422, "invalid", "http.token"),
        ),
        (
            account(json!({"http": {"url": "https://x.example/ilp", "token": "a\nb"}})),
            (422, "invalid", "http.token"),
        ),
        (
            account(json!({"btp": {"url": "btp+wss://", "token": "t"}})),
            (422, "invalid", "btp.url"),
        ),
        (
            account(json!({"btp": {"url": "btp+wss://x.example"}})),
            (422, "invalid", "btp.token"),
        ),
        (
            (
                "POST",
                "/v1/accounts",
                json!({"relation": "peer", "asset_code": "USD", "asset_scale": 9}),
            ),
            (422, "invalid", "name"),
        ),
        // The stored secret goes to no other URL.
        (
            change(json!({"http": {"url": "https://thief.example/ilp"}})),
            (422, "invalid", "http.token"),
        ),
        (
            change(json!({"limits": null, "colour": 1})),
            (422, "invalid", "colour"),
        ),
        (
            ("POST", "/v1/accounts/alice/tokens", json!({})),
            (422, "invalid", "token"),
        ),
        (
            ("POST", "/v1/accounts/far/tokens", json!({"token": "short"})),
            (422, "invalid", "token"),
        ),
        (
            (
                "POST",
                "/v1/accounts/hub/tokens",
                json!({"token": "far-far-far-far-far"}),
            ),
            (409, "conflict", "incoming_token"),
        ),
        (
            (
                "PUT",
                "/v1/routes",
                json!({"prefix": "g.x", "account": "nobody"}),
            ),
            (422, "invalid", "account"),
        ),
        (
            (
                "PUT",
                "/v1/routes",
                json!({"prefix": "g..x", "account": "far"}),
            ),
            (422, "invalid", "prefix"),
        ),
        (
            (
                "PUT",
                "/v1/routes",
                json!({"prefix": "peer.x", "account": "far"}),
            ),
            (422, "invalid", "prefix"),
        ),
        (
            ("DELETE", "/v1/routes?prefix=g.unset", Value::Null),
            (404, "not_found", ""),
        ),
        (
            ("DELETE", "/v1/routes", Value::Null),
            (422, "invalid", "prefix"),
        ),
        (
            rate(json!({"from": "USD", "to": "XAU"})),
            (422, "invalid", "rate"),
        ),
        (
            rate(json!({"from": "USD", "to": "USD", "rate": "1"})),
            (422, "invalid", "to"),
        ),
        (
            rate(json!({"from": "USD", "to": "XAU", "rate": "0"})),
            (422, "invalid", "rate"),
        ),
        (
            rate(json!({"from": "USD", "to": "XAU", "rate": "1e3"})),
            (422, "invalid", "rate"),
        ),
        (
            rate(json!({"from": "USD", "to": "XAU", "rate": 1.5})),
            (422, "invalid", "rate"),
        ),
        (
            rate(json!({"from": "USD", "to": "XAU", "rate": "1", "spread": "2"})),
            (422, "invalid", "spread"),
        ),
        (
            rate(json!({"from": "USD", "to": "XAU", "rate": "1", "valid_until": "soon"})),
            (422, "invalid", "valid_until"),
        ),
        (
            ("DELETE", "/v1/rates?from=USD&to=XAU", Value::Null),
            (404, "not_found", ""),
        ),
        (alice(json!({})), (422, "invalid", "amount")),
        (alice(json!({"amount": "0"})), (422, "invalid", "amount")),
        (
            alice(json!({"amount": "5", "deliver_amount": "5"})),
            (422, "invalid", "deliver_amount"),
        ),
        (
            alice(json!({"amount": "5", "packet_max": "0"})),
            (422, "invalid", "packet_max"),
        ),
        (
            alice(json!({"amount": "5", "receiver": "bob"})),
            (422, "invalid", "receiver"),
        ),
        (
            alice(json!({"amount": "5", "receiver": "$gone.example"})),
            (502, "receiver_unreachable", "receiver"),
        ),
        (
            alice(json!({"amount": "5", "account": "nobody"})),
            (422, "invalid", "account"),
        ),
        (
            alice(json!({"amount": "5", "account": "far"})),
            (422, "invalid", "account"),
        ),
        (
            (
                "POST",
                "/v1/ping",
                json!({"account": "alice", "destination": "g..x"}),
            ),
            (422, "invalid", "destination"),
        ),
        (
            (
                "POST",
                "/v1/ping",
                json!({"account": "far", "destination": "g.x"}),
            ),
            (422, "invalid", "account"),
        ),
        (
            ("GET", "/v1/accounts?limit=0", Value::Null),
            (422, "invalid", "limit"),
        ),
        (
            ("GET", "/v1/accounts?limit=201", Value::Null),
            (422, "invalid", "limit"),
        ),
        (
            ("GET", "/v1/accounts?limit=x", Value::Null),
            (422, "invalid", "limit"),
        ),
        (
            ("GET", "/v1/accounts?cursor=x", Value::Null),
            (422, "invalid", "cursor"),
        ),
        (
            ("GET", "/v1/accounts?offset=1", Value::Null),
            (422, "invalid", "offset"),
        ),
        (
            ("GET", "/v1/accounts?limit=1&limit=2", Value::Null),
            (422, "invalid", "limit"),
        ),
        (
            ("GET", "/v1/payments/1?wait=61", Value::Null),
            (422, "invalid", "wait"),
        ),
        // Things that are not there.
        (
            ("GET", "/v1/accounts/nobody", Value::Null),
            (404, "not_found", ""),
        ),
        (
            ("PATCH", "/v1/accounts/nobody", json!({})),
            (404, "not_found", ""),
        ),
        (
            ("DELETE", "/v1/accounts/nobody", Value::Null),
            (404, "not_found", ""),
        ),
        (
            ("POST", "/v1/accounts/nobody/tokens", json!({})),
            (404, "not_found", ""),
        ),
        (
            ("GET", "/v1/payments/1", Value::Null),
            (404, "not_found", ""),
        ),
        (
            ("GET", "/v1/payments/first", Value::Null),
            (404, "not_found", ""),
        ),
        (
            ("POST", "/v1/payments/1/stop", Value::Null),
            (404, "not_found", ""),
        ),
        (("GET", "/v2", Value::Null), (404, "not_found", "")),
        (
            ("PATCH", "/v1/status", Value::Null),
            (405, "method_not_allowed", ""),
        ),
        // Bodies that are none.
        (
            ("PATCH", "/v1/accounts/far", json!([])),
            (422, "invalid", ""),
        ),
        (
            ("POST", "/v1/accounts", json!("text")),
            (422, "invalid", ""),
        ),
        (
            ("POST", "/v1/accounts", Value::Null),
            (415, "media_type", "Content-Type"),
        ),
    ] {
        let answer = client.call(method, path, body.clone()).await;
        let (status, code, field) = answer.problem();
        assert_eq!(
            (status, &*code, &*field),
            expected,
            "{method} {path} {body}: {}",
            answer.text
        );
    }
    assert_eq!(node.records().len(), records, "nothing was written");
}

#[tokio::test]
async fn a_body_is_read_only_when_it_can_be_understood() {
    let node = TestNode::new();
    let client = Client::new(&node);
    let post = |content_type: &str, body: Vec<u8>| {
        Request::builder()
            .method("POST")
            .uri("/v1/accounts")
            .header("content-type", content_type)
            .body(Body::from(body))
            .unwrap()
    };
    for (content_type, body, expected) in [
        (
            "application/json",
            b"{\"name\":".to_vec(),
            (400, "malformed"),
        ),
        ("application/json", b"\xff".to_vec(), (400, "malformed")),
        ("text/plain", b"{}".to_vec(), (415, "media_type")),
        (
            "application/json",
            vec![b' '; rialto_admin::BODY_BYTES_MAX + 1],
            (413, "too_large"),
        ),
        (
            "application/json",
            vec![b'['; rialto_admin::BODY_BYTES_MAX],
            (400, "malformed"),
        ),
        (
            "application/json; charset=utf-8",
            b"{}".to_vec(),
            (422, "invalid"),
        ),
    ] {
        let answer = client.send(post(content_type, body)).await;
        let (status, code, _) = answer.problem();
        assert_eq!((status, &*code), expected);
    }
    // One that only says that it is large is refused unread.
    let mut large = post("application/json", Vec::new());
    large
        .headers_mut()
        .insert("content-length", "70000".parse().unwrap());
    assert_eq!(client.send(large).await.problem().0, 413);
}

#[tokio::test]
async fn each_operation_wants_a_valid_token_with_its_scope() {
    let (_node, client) = with_accounts().await;
    let description = client.get("/v1/openapi.json").await.json();
    let mut scopes_seen = BTreeSet::new();
    let mut open = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let path = path.replace("{name}", "alice").replace("{id}", "1");
            let Some(scope) = operation["security"][0]["bearer"][0].as_str() else {
                open.insert(path);
                continue;
            };
            scopes_seen.insert(scope.to_owned());
            let call = async |token| {
                client
                    .with(token)
                    .call(&method.to_uppercase(), &path, Value::Null)
                    .await
            };
            // The same words whatever is wrong with the token.
            let missing = call(None).await;
            assert_eq!(
                missing.problem(),
                (401, "unauthorized".to_owned(), String::new())
            );
            assert_eq!(missing.headers["www-authenticate"], "Bearer");
            assert_eq!(call(Some("unknown")).await.text, missing.text);
            assert_eq!(call(Some("")).await.text, missing.text);
            assert_eq!(call(Some("expired")).await.text, missing.text);
            let without = match scope {
                "read" => "write+pay",
                "write" => "read+pay",
                "pay" => "read+write",
                other => panic!("unknown scope {other}"),
            };
            let forbidden = call(Some(without)).await;
            assert_eq!(forbidden.problem().0, 403);
            assert!(forbidden.text.contains(&format!("'{scope}'")));
            let allowed = call(Some(ADMIN)).await.status.as_u16();
            assert!(
                ![401, 403, 405].contains(&allowed),
                "{method} {path}: {allowed}"
            );
        }
    }
    assert_eq!(Vec::from_iter(scopes_seen), ["pay", "read", "write"]);
    assert_eq!(Vec::from_iter(open), ["/livez", "/metrics", "/readyz"]);
}

#[tokio::test]
async fn other_authorization_schemes_open_nothing() {
    let node = TestNode::new();
    let client = Client::new(&node).with(None);
    for (value, status) in [
        (format!("Bearer {ADMIN}"), 200),
        (format!("bearer {ADMIN}"), 200),
        (format!("Basic {ADMIN}"), 401),
        (ADMIN.to_owned(), 401),
    ] {
        let mut request = request("GET", "/v1/status", Value::Null);
        request
            .headers_mut()
            .insert("authorization", value.parse().unwrap());
        assert_eq!(client.send(request).await.status, status, "{value}");
    }
}

#[tokio::test]
async fn secrets_are_neither_shown_nor_written() {
    let (node, client) = with_accounts().await;
    let shown = client.get("/v1/accounts").await.text;
    let written = format!("{:?}", node.records());
    for secret in [
        "far-far-far-far-far",
        "outgoing-secret",
        "btp-secret",
        "rialto_peer_",
        "sealed",
    ] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
        assert!(!written.contains(secret), "{secret} in {written}");
    }
    let hub = client.must("GET", "/v1/accounts/hub", Value::Null).await;
    let btp = json!({"url": "btp+wss://hub.example:443/ilp/btp", "username": "me"});
    assert_eq!(hub["btp"], btp);
}

#[tokio::test]
async fn a_token_is_rotated_with_and_without_grace() {
    let (_node, client) = with_accounts().await;
    let path = "/v1/accounts/far/tokens";
    let tokens = async || {
        let far = client.must("GET", "/v1/accounts/far", Value::Null).await;
        far["incoming_tokens"].as_array().unwrap().clone()
    };
    let old = tokens().await[0]["id"].clone();
    let answer = client
        .call("POST", path, json!({"grace_seconds": 60}))
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let created = answer.json();
    assert!(
        created["incoming_token"]
            .as_str()
            .unwrap()
            .starts_with("rialto_peer_")
    );
    assert_eq!(
        tokens().await,
        [
            json!({"id": old, "expires_at": "2027-01-15T08:01:00Z"}),
            json!({"id": created["id"], "expires_at": null})
        ]
    );
    let body = json!({"token": "another-token-of-far"});
    let created = client.must("POST", path, body).await;
    assert_eq!(created["incoming_token"], Value::Null);
    assert_eq!(
        tokens().await,
        [json!({"id": created["id"], "expires_at": null})]
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let (_node, client) = with_accounts().await;
    for key in ["1", "2", "3"] {
        client.pay(key, 0, payment("$gone.example")).await;
    }
    let body = json!({"account": "bob", "receiver": "$gone.example", "amount": "1"});
    client.pay("4", 0, body).await;
    for (path, list, field, expected) in [
        (
            "/v1/accounts?",
            "accounts",
            "name",
            &["alice", "bob", "far", "hub"][..],
        ),
        (
            "/v1/balances?",
            "balances",
            "account",
            &["alice", "bob", "far", "hub"],
        ),
        ("/v1/payments?", "payments", "id", &["4", "3", "2", "1"]),
        (
            "/v1/payments?account=alice&",
            "payments",
            "id",
            &["3", "2", "1"],
        ),
        ("/v1/payments?account=nobody&", "payments", "id", &[]),
    ] {
        for limit in 1..=5 {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = client
                    .get(&format!("{path}limit={limit}{cursor}"))
                    .await
                    .json();
                let entries = page[list].as_array().unwrap();
                assert!(entries.len() <= limit);
                seen.extend(entries.iter().map(|entry| entry[field].clone()));
                let Some(next) = page["next_cursor"].as_str() else {
                    break;
                };
                assert_eq!(entries.len(), limit, "only the last page is short");
                cursor = format!("&cursor={next}");
            }
            assert_eq!(seen, expected, "{path} by {limit}");
        }
    }
}

#[tokio::test]
async fn a_payment_completes_and_balances_say_so() {
    let (node, client) = with_accounts().await;
    let answer = client.pay("a", 10, payment("$node.example/bob")).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let paid = answer.json();
    assert_eq!(
        (&paid["id"], &paid["state"]),
        (&json!("1"), &json!("completed"))
    );
    assert_eq!(
        paid["sent"],
        json!({"amount": "500000", "asset_code": "USD", "asset_scale": 9})
    );
    assert_eq!(
        paid["delivered"],
        json!({"amount": "460", "asset_code": "EUR", "asset_scale": 6})
    );
    assert_eq!(paid["error"], Value::Null);
    assert_eq!(paid["created_at"], "2027-01-15T08:00:00Z");

    let books = client.must("GET", "/v1/balances", Value::Null).await;
    let words = |account: usize| books["balances"][account]["words"].as_str().unwrap();
    assert_eq!(words(0), "alice owes us 0.0005 USD, free 0.0005");
    assert_eq!(words(1), "we owe bob 0.00046 EUR");
    assert_eq!(words(2), "even");
    let in_flight = json!({"count": 0, "amount": "0"});
    assert_eq!(books["balances"][0]["balance"], "-500000");
    assert_eq!(books["balances"][0]["available"], "500000");
    assert_eq!(books["balances"][0]["in_flight"], in_flight);
    let position = |code: &str, scale: u8, amount: &str| json!({"asset_code": code, "asset_scale": scale, "amount": amount, "settled": "0"});
    let positions = [position("USD", 9, "500000"), position("EUR", 6, "-460")];
    assert_eq!(books["positions"], json!(positions));

    let alice = client.must("GET", "/v1/accounts/alice", Value::Null).await;
    assert_eq!(alice["stats"]["amount_in"], "500000");
    assert_eq!(alice["payment_pointer"], "$node.example/alice");
    let refused = client
        .call("DELETE", "/v1/accounts/alice", Value::Null)
        .await
        .problem();
    assert_eq!(refused, (409, "conflict".to_owned(), "balance".to_owned()));
    assert_eq!(node.forwarded_count(), 0);
}

#[tokio::test]
async fn a_fixed_delivery_and_a_least_rate_are_kept() {
    let (_node, client) = with_accounts().await;
    let body = |rate_min: &str| {
        json!({"account": "alice", "receiver": "$node.example/bob", "deliver_amount": "460",
            "rate_min": rate_min, "packet_max": "100000"})
    };
    let failed = client.pay("b", 10, body("0.93")).await.json();
    assert_eq!(
        (&failed["state"], &failed["sent"]["amount"]),
        (&json!("failed"), &json!("0"))
    );
    assert_eq!(failed["error"]["code"], "rate_too_low");
    let paid = client.pay("a", 10, body("0.9")).await.json();
    assert_eq!(
        (&paid["state"], &paid["sent"]["amount"]),
        (&json!("completed"), &json!("500000"))
    );
    assert_eq!(paid["packets"]["fulfilled"], 5);
}

#[tokio::test]
async fn an_idempotency_key_names_one_payment() {
    let (_node, client) = with_accounts().await;
    let body = payment("$node.example/bob");
    let answer = client.call("POST", "/v1/payments", body.clone()).await;
    let missing = (
        400,
        "idempotency_key".to_owned(),
        "Idempotency-Key".to_owned(),
    );
    assert_eq!(answer.problem(), missing);
    assert_eq!(client.pay("", 0, body.clone()).await.problem(), missing);
    assert_eq!(client.pay("a b", 0, body.clone()).await.problem(), missing);
    assert_eq!(
        client
            .pay(&"a".repeat(256), 0, body.clone())
            .await
            .problem(),
        missing
    );

    let first = client.pay("key", 10, body.clone()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let again = client.pay("key", 10, body.clone()).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.json(), first.json());
    // The same request in other words.
    let mut same = body.clone();
    same["amount"] = json!("0500000");
    same["slippage"] = Value::Null;
    assert_eq!(client.pay("key", 0, same).await.status, StatusCode::OK);
    let mut other = body.clone();
    other["amount"] = json!("500001");
    let reused = (422, "invalid".to_owned(), "Idempotency-Key".to_owned());
    assert_eq!(client.pay("key", 0, other).await.problem(), reused);
    let books = client.must("GET", "/v1/balances", Value::Null).await;
    assert_eq!(books["balances"][0]["balance"], "-500000", "paid once");
}

#[tokio::test]
async fn a_balance_is_corrected_once_for_each_key() {
    const PATH: &str = "/v1/adjustments";
    let (node, client) = with_accounts().await;
    let body = json!({"account": "far", "amount": "-12500000000", "reason": "paid in cash"});
    let missing = (
        400,
        "idempotency_key".to_owned(),
        "Idempotency-Key".to_owned(),
    );
    let answer = client.call("POST", PATH, body.clone()).await;
    assert_eq!(answer.problem(), missing);

    let first = client.post_with_key(PATH, "key", body.clone()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let made = first.json();
    assert_eq!(
        (&made["id"], &made["account"], &made["amount"]),
        (&json!("1"), &json!("far"), &json!("-12500000000"))
    );
    assert_eq!(made["reason"], "paid in cash");
    assert_eq!(
        (&made["asset_code"], &made["asset_scale"]),
        (&json!("USD"), &json!(9))
    );
    let records = node.records().len();
    let again = client.post_with_key(PATH, "key", body.clone()).await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, made.clone()));
    for (change, field) in [
        (json!({"amount": "-1"}), "Idempotency-Key"),
        (json!({"reason": "other"}), "Idempotency-Key"),
        (json!({"account": "hub"}), "Idempotency-Key"),
    ] {
        let mut other = body.clone();
        for (field, value) in change.as_object().unwrap() {
            other[field] = value.clone();
        }
        let refused = client.post_with_key(PATH, "key", other).await.problem();
        assert_eq!(refused, (422, "invalid".to_owned(), field.to_owned()));
    }
    for (change, status, field) in [
        (json!({"account": "nobody"}), 404, ""),
        (json!({"amount": "0"}), 422, "amount"),
        (json!({"amount": "18446744073709551616"}), 422, "amount"),
        (json!({"amount": "-18446744073709551616"}), 422, "amount"),
        (json!({"reason": "  "}), 422, "reason"),
        (json!({"reason": "x".repeat(1_001)}), 422, "reason"),
    ] {
        let mut other = body.clone();
        for (field, value) in change.as_object().unwrap() {
            other[field] = value.clone();
        }
        let refused = client.post_with_key(PATH, "other", other).await.problem();
        assert_eq!((refused.0, refused.2.as_str()), (status, field), "{change}");
    }
    assert_eq!(node.records().len(), records, "nothing was written");

    // The largest there is, and the books add up.
    let largest = json!({"account": "far", "amount": "18446744073709551615", "reason": "x"});
    let second = client.post_with_key(PATH, "two", largest).await;
    assert_eq!(second.json()["id"], "2");
    let books = client.must("GET", "/v1/balances", Value::Null).await;
    let far = |entry: &&Value| entry["account"] == "far";
    let balance = books["balances"].as_array().unwrap().iter().find(far);
    assert_eq!(balance.unwrap()["balance"], "18446744061209551615");
    let usd = |entry: &&Value| entry["asset_code"] == "USD";
    let position = books["positions"].as_array().unwrap().iter().find(usd);
    assert_eq!(position.unwrap()["amount"], "-18446744061209551615");

    let list = |query: &str| format!("{PATH}{query}");
    let newest = client.must("GET", &list("?limit=1"), Value::Null).await;
    assert_eq!(newest["adjustments"][0]["id"], "2");
    let cursor = newest["next_cursor"].as_str().unwrap();
    let rest = client
        .must("GET", &list(&format!("?cursor={cursor}")), Value::Null)
        .await;
    assert_eq!(
        (&rest["adjustments"], &rest["next_cursor"]),
        (&json!([made]), &Value::Null)
    );
    let none = client.must("GET", &list("?account=bob"), Value::Null).await;
    assert_eq!(none["adjustments"], json!([]));
}

#[tokio::test]
async fn what_a_payment_asks_for_is_checked_before_anything_is_written() {
    let (node, client) = with_accounts().await;
    let records = node.records().len();
    for (change, field) in [
        (json!({"amount": "0"}), "amount"),
        (json!({"deliver_amount": "1"}), "deliver_amount"),
        (json!({"account": "nobody"}), "account"),
        (json!({"account": "far"}), "account"),
        (json!({"receiver": "nowhere"}), "receiver"),
        (json!({"slippage": "1"}), "slippage"),
        (json!({"slippage": "-0.1"}), "slippage"),
        (json!({"rate_min": "x"}), "rate_min"),
        (json!({"rate_min": "1", "slippage": "0.1"}), "rate_min"),
        (json!({"packet_max": "0"}), "packet_max"),
    ] {
        let mut body = payment("$node.example/bob");
        for (field, value) in change.as_object().unwrap() {
            body[field] = value.clone();
        }
        let expected = (422, "invalid".to_owned(), field.to_owned());
        assert_eq!(
            client.pay("key", 0, body).await.problem(),
            expected,
            "{change}"
        );
    }
    assert_eq!(node.records().len(), records);
}

#[tokio::test]
async fn a_receiver_that_does_not_resolve_fails_the_payment() {
    let (_node, client) = with_accounts().await;
    let failed = client.pay("a", 10, payment("$gone.example")).await.json();
    assert_eq!(failed["state"], "failed");
    let message = "$gone.example: connection refused";
    assert_eq!(
        failed["error"],
        json!({"code": "receiver_unreachable", "message": message})
    );
    // Without the receiver's asset a least rate means nothing.
    let mut body = payment("$far.example");
    body["rate_min"] = json!("1");
    let failed = client.pay("b", 10, body).await.json();
    assert_eq!(failed["error"]["code"], "receiver_asset_unknown");
}

#[tokio::test]
async fn a_caller_that_goes_away_changes_nothing() {
    let (node, client) = with_accounts().await;
    node.resolver.forget_permits(usize::MAX);
    let mut events = node.events();
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.pay("a", 60, payment("$node.example/bob")).await });
    while node
        .records()
        .iter()
        .all(|record| !matches!(record, Record::PaymentPut { .. }))
    {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.is_err());
    let running = client.must("GET", "/v1/payments/1", Value::Null).await;
    assert_eq!(running["state"], "running");
    // A repeat is the same payment, and does not start it a second time.
    let repeat = client.pay("a", 0, payment("$node.example/bob")).await;
    assert_eq!((repeat.status, repeat.json()), (StatusCode::OK, running));

    node.resolver.add_permits(1);
    events.recv().await.unwrap();
    let paid = client.must("GET", "/v1/payments/1", Value::Null).await;
    assert_eq!(
        (&paid["state"], &paid["sent"]["amount"]),
        (&json!("completed"), &json!("500000"))
    );
}

#[tokio::test]
async fn waiting_ends_when_the_payment_does() {
    let (node, client) = with_accounts().await;
    node.resolver.forget_permits(usize::MAX);
    let answer = client.pay("a", 0, payment("$node.example/bob")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let (caller, mut others) = (client.clone(), node.events());
    let waiting = tokio::spawn(async move { caller.get("/v1/payments/1?wait=60").await.json() });
    node.resolver.add_permits(1);
    others.recv().await.unwrap();
    assert_eq!(waiting.await.unwrap()["state"], "completed");
}

#[tokio::test]
async fn a_payment_is_stopped_and_says_how_far_it_came() {
    let (node, client) = with_accounts().await;
    assert_eq!(
        client.pay("a", 0, payment("$far.example")).await.status,
        StatusCode::ACCEPTED
    );
    while node.forwarded_count() == 0 {
        tokio::task::yield_now().await;
    }
    let stopped = client
        .must("POST", "/v1/payments/1/stop", Value::Null)
        .await;
    assert_eq!(stopped["state"], "running", "packets are still in flight");
    node.advance_ms(60_000);
    let stopped = client.must("GET", "/v1/payments/1", Value::Null).await;
    assert_eq!(
        (&stopped["state"], &stopped["error"]["code"]),
        (&json!("failed"), &json!("cancelled"))
    );
    assert_eq!(stopped["sent"]["amount"], "0");
    let again = client
        .call("POST", "/v1/payments/1/stop", Value::Null)
        .await
        .problem();
    assert_eq!(again, (409, "conflict".to_owned(), "id".to_owned()));
}

#[tokio::test]
async fn a_quote_tells_both_amounts_and_moves_nothing() {
    let (_node, client) = with_accounts().await;
    let mut body = json!({"account": "alice", "receiver": "$node.example/bob", "amount": "500000"});
    let quote = client.must("POST", "/v1/quotes", body.clone()).await;
    let send = json!({"amount": "500000", "asset_code": "USD", "asset_scale": 9});
    let deliver = json!({"amount": "460", "asset_code": "EUR", "asset_scale": 6});
    assert_eq!(
        (&quote["send_amount"], &quote["deliver_amount"]),
        (&send, &deliver)
    );
    assert_eq!(quote["rate"], "0.92");
    assert_eq!(quote["receiver_url"], "https://node.example/bob");
    body.as_object_mut().unwrap().remove("amount");
    body["deliver_amount"] = json!("460");
    let quote = client.must("POST", "/v1/quotes", body).await;
    assert_eq!(
        (&quote["send_amount"], &quote["deliver_amount"]),
        (&send, &deliver)
    );
    let books = client.must("GET", "/v1/balances", Value::Null).await;
    assert_eq!(books["balances"][0]["balance"], "0");
}

#[tokio::test]
async fn a_quote_without_a_way_is_a_bad_gateway() {
    let (node, client) = with_accounts().await;
    let body = json!({"account": "alice", "receiver": "$far.example", "amount": "5"});
    let caller = client.clone();
    let quote = tokio::spawn(async move { caller.call("POST", "/v1/quotes", body).await });
    while node.forwarded_count() == 0 {
        tokio::task::yield_now().await;
    }
    node.advance_ms(60_000);
    let (status, code, _) = quote.await.unwrap().problem();
    assert_eq!((status, &*code), (502, "path_failed"));
}

#[tokio::test]
async fn a_ping_says_whether_the_node_was_reached() {
    let (_node, client) = with_accounts().await;
    let ping = async |destination: &str| {
        let body = json!({"account": "alice", "destination": destination});
        client.must("POST", "/v1/ping", body).await
    };
    assert_eq!(
        ping("g.node").await,
        json!({"reached": true, "round_trip_ms": "0.000"})
    );
    let refused = ping("test.nowhere").await;
    let message = "route.none: no route to the destination";
    let expected =
        json!({"reached": false, "code": "F02", "message": message, "triggered_by": "g.node"});
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn routes_and_rates_are_set_listed_and_removed() {
    let (_node, client) = with_accounts().await;
    let route = json!({"prefix": "", "account": "far"});
    let set = client.must("PUT", "/v1/routes", route).await;
    assert_eq!(set, json!({"prefix": "", "account": "far"}));
    let listed = client.must("GET", "/v1/routes", Value::Null).await;
    let routes = listed["routes"].as_array().unwrap();
    let route = |prefix: &str, source: &str, account: Value| {
        json!({"prefix": prefix, "source": source, "account": account,
            "weight": 1, "path": [], "active": true})
    };
    assert_eq!(routes[0], route("", "static", json!("far")));
    assert!(routes.contains(&route("g.node", "own", Value::Null)));
    assert!(routes.contains(&route("g.node.hub", "account", json!("hub"))));
    assert_eq!(listed["next_cursor"], Value::Null);

    // Why a packet would go where it goes, and what would come of it.
    let explain = "/v1/routes/explain?destination=g.node.hub.x&from=far&amount=1000";
    let explained = client.must("GET", explain, Value::Null).await;
    assert_eq!(explained["routes"][0]["account"], "hub");
    assert_eq!(explained["routes"][0]["taken"], true);
    let mut others = explained["routes"].as_array().unwrap().iter();
    let far = others.find(|route| route["account"] == "far").unwrap();
    assert_eq!(far["lost"], "another prefix fits more of the destination");
    let same = json!({"from_asset_code": "USD", "from_asset_scale": 9, "to_asset_code": "USD",
        "to_asset_scale": 9, "rate": "1", "spread": "0", "account_spread": null,
        "amount_out": "1000", "reason": null});
    assert_eq!(explained["conversion"], same);
    let rate = json!({"from": "USD", "to": "EUR", "rate": "0.92", "spread": "0.002"});
    client.must("PUT", "/v1/rates", rate).await;
    let explain = "/v1/routes/explain?destination=g.node.bob&from=alice&amount=12500000001";
    let explained = client.must("GET", explain, Value::Null).await;
    // 12.500000001 * 0.92 * (1 - 0.002), rounded down to six digits.
    let converted = json!({"from_asset_code": "USD", "from_asset_scale": 9, "to_asset_code": "EUR",
        "to_asset_scale": 6, "rate": "0.92", "spread": "0.002", "account_spread": null,
        "amount_out": "11477000", "reason": null});
    assert_eq!(explained["conversion"], converted);
    let nobody = "/v1/routes/explain?destination=g.far.x&amount=1000";
    let answer = client.call("GET", nobody, Value::Null).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let changes = client.must("GET", "/v1/routes/changes", Value::Null).await;
    assert_eq!(changes["changes"][0]["prefix"], "");
    assert_eq!(changes["changes"][0]["before"], Value::Null);
    assert_eq!(changes["changes"][0]["after"]["account"], "far");
    let gold = json!({"name": "gold", "relation": "local", "asset_code": "XAU", "asset_scale": 3});
    client.must("POST", "/v1/accounts", gold).await;
    let explain = "/v1/routes/explain?destination=g.far.x&from=gold&amount=1000";
    let explained = client.must("GET", explain, Value::Null).await;
    client
        .must("DELETE", "/v1/accounts/gold", Value::Null)
        .await;
    let none = json!({"from_asset_code": "XAU", "from_asset_scale": 3, "to_asset_code": "USD",
        "to_asset_scale": 9, "rate": null, "spread": null, "account_spread": null,
        "amount_out": null, "reason": "fx.no_rate"});
    assert_eq!(explained["conversion"], none);
    let several = json!({"prefix": "", "hops": [
        {"account": "far", "weight": 3}, {"account": "hub", "weight": 0}]});
    assert_eq!(
        client.must("PUT", "/v1/routes", several.clone()).await,
        several
    );
    let listed = client.must("GET", "/v1/routes?all=true", Value::Null).await;
    let hops = listed["routes"].as_array().unwrap().iter();
    let hops: Vec<_> = hops.filter(|route| route["prefix"] == "").collect();
    assert_eq!(
        (hops[0]["weight"].as_u64(), hops[0]["active"].as_bool()),
        (Some(3), Some(true))
    );
    assert_eq!(
        (hops[1]["weight"].as_u64(), hops[1]["active"].as_bool()),
        (Some(0), Some(false))
    );
    client
        .must("DELETE", "/v1/routes?prefix=", Value::Null)
        .await;
    let listed = client.must("GET", "/v1/routes", Value::Null).await;
    assert_eq!(listed["routes"].as_array().unwrap().len(), routes.len() - 1);

    let rate = json!({"from": "USD", "to": "XAU", "rate": "0.0005", "spread": "0.01",
        "valid_until": "2030-01-01T01:00:00+01:00"});
    let set = client.must("PUT", "/v1/rates", rate).await;
    assert_eq!(set["valid_until"], "2030-01-01T00:00:00Z");
    let listed = client.must("GET", "/v1/rates", Value::Null).await;
    assert_eq!(listed["rates"][1], set);
    assert_eq!(listed["default_spread"], "0");
    client
        .must("DELETE", "/v1/rates?from=USD&to=XAU", Value::Null)
        .await;
    let listed = client.must("GET", "/v1/rates", Value::Null).await;
    assert_eq!(listed["rates"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn health_says_whether_the_node_takes_packets() {
    let (node, client) = with_accounts().await;
    let client = client.with(None);
    assert_eq!(client.get("/livez").await.text, "ok\n");
    let ready = client.get("/readyz").await;
    assert_eq!((ready.status, &*ready.text), (StatusCode::OK, "ready\n"));
    let ready = client.get("/readyz?verbose").await;
    assert_eq!(
        ready.text,
        "[+] journal: ok\n[+] accepting: ok\n[+] address: ok\nready\n"
    );

    node.draining.store(true, Ordering::Relaxed);
    let ready = client.get("/readyz?verbose").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        ready.text,
        "[+] journal: ok\n[-] accepting: the node is about to stop\n[+] address: ok\nnot ready\n"
    );
    node.journal_failed.store(true, Ordering::Relaxed);
    let ready = client.get("/readyz?verbose").await;
    assert!(
        ready
            .text
            .starts_with("[-] journal: no space left on device\n")
    );
    assert_eq!(client.get("/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_node_that_is_about_to_stop_starts_nothing() {
    let (node, client) = with_accounts().await;
    client.pay("a", 10, payment("$node.example/bob")).await;
    node.draining.store(true, Ordering::Relaxed);
    assert_eq!(
        client
            .pay("a", 0, payment("$node.example/bob"))
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(
        client
            .pay("b", 0, payment("$node.example/bob"))
            .await
            .problem()
            .0,
        503
    );
    let body = json!({"account": "alice", "receiver": "$node.example/bob", "amount": "5"});
    assert_eq!(
        client.call("POST", "/v1/quotes", body).await.problem().0,
        503
    );
    let body = json!({"account": "alice", "destination": "g.node"});
    assert_eq!(client.call("POST", "/v1/ping", body).await.problem().0, 503);
}

#[tokio::test]
async fn nothing_is_said_to_be_done_when_it_may_not_be_on_disk() {
    let (node, client) = with_accounts().await;
    node.journal_failed.store(true, Ordering::Relaxed);
    let route = json!({"prefix": "g.x", "account": "far"});
    let answer = client.call("PUT", "/v1/routes", route).await;
    assert_eq!(
        answer.problem(),
        (503, "unavailable".to_owned(), String::new())
    );
    assert_eq!(
        client
            .pay("a", 0, payment("$node.example/bob"))
            .await
            .problem()
            .0,
        503
    );
}

#[tokio::test]
async fn the_status_counts_links_and_payments() {
    let (_node, client) = with_accounts().await;
    client.pay("a", 0, payment("$far.example")).await;
    let status = client.must("GET", "/v1/status", Value::Null).await;
    assert_eq!(
        (&status["name"], &status["ilp_address"]),
        (&json!("test"), &json!("g.node"))
    );
    assert_eq!(
        status["links"],
        json!({"up": 0, "down": 1, "http": 1, "local": 2})
    );
    assert_eq!(status["payments_running"], 1);
    assert_eq!(status["journal"]["failure"], Value::Null);
}

#[tokio::test]
async fn accounts_beyond_ten_thousand_are_added_up() {
    let (node, client) = with_accounts().await;
    node.step(|core, _, out| {
        let hub = core.ledger().account_by_name("hub").unwrap();
        let settings = AccountSettings {
            incoming_tokens: Vec::new(),
            ..AccountSettings::clone(&hub.settings)
        };
        for number in 0..10_000 {
            let name = format!("c{number}");
            let settings = AccountSettings {
                name,
                ..settings.clone()
            };
            core.account_create(settings, out).unwrap();
        }
    });
    // A neighbour comes before all customers.
    let late = json!({"name": "late", "relation": "peer", "asset_code": "EUR", "asset_scale": 6});
    client.must("POST", "/v1/accounts", late).await;
    for name in ["c9995", "c9999"] {
        let body = json!({"account": name, "amount": "7", "reason": "a gift"});
        client.post_with_key("/v1/adjustments", name, body).await;
    }
    let metrics = client.with(None).get("/metrics").await.text;
    let is_there = |line: &str| metrics.lines().any(|found| found == line);
    for line in [
        "rialto_accounts 10005",
        "rialto_accounts_added_up 5",
        "rialto_account_link_up{account=\"late\"} 0",
        "rialto_account_balance_units{account=\"c9994\",asset_code=\"USD\",asset_scale=\"9\"} 0",
        "rialto_account_balance_units{account=\"(others)\",asset_code=\"USD\",asset_scale=\"9\"} 14",
        "rialto_prepares_received_total{account=\"(others)\",asset_code=\"USD\",asset_scale=\"9\"} 0",
    ] {
        assert!(is_there(line), "{line}");
    }
    assert!(!metrics.contains("c9995") && !metrics.contains("link_up{account=\"(others)\""));
    let status = client.must("GET", "/v1/status", Value::Null).await;
    let links = json!({"up": 0, "down": 10_002, "http": 1, "local": 2});
    assert_eq!(status["links"], links);
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let (_node, client) = with_accounts().await;
    let name = json!({"name": "odd", "relation": "peer", "asset_code": "a\"\\b", "asset_scale": 0});
    client.must("POST", "/v1/accounts", name).await;
    client.pay("a", 10, payment("$node.example/bob")).await;
    let body = json!({"account": "alice", "destination": "test.nowhere"});
    client.must("POST", "/v1/ping", body).await;
    let answer = client.with(None).get("/metrics").await;
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    for line in [
        "# TYPE rialto_account_balance_units gauge",
        "rialto_account_balance_units{account=\"alice\",asset_code=\"USD\",asset_scale=\"9\"} -500000",
        "rialto_account_balance_units{account=\"odd\",asset_code=\"a\\\"\\\\b\",asset_scale=\"0\"} 0",
        "rialto_account_link_up{account=\"hub\"} 0",
        "rialto_units_received_total{account=\"alice\"} 500000",
        "rialto_units_sent_total{account=\"bob\"} 460",
        "rialto_refused_total{account=\"alice\",reason=\"route.none\"} 1",
        "rialto_position_units{asset_code=\"EUR\",asset_scale=\"6\"} -460",
        "rialto_unauthenticated_total{reason=\"auth.missing\"} 3",
        "rialto_unauthenticated_connections 5",
        "rialto_displaced_connections_total 7",
        "rialto_callbacks_refused_total{reason=\"late\"} 8",
        "rialto_uptime_seconds 61.234",
        "rialto_build_info{version=\"0.0.0\"} 1",
    ] {
        assert!(
            answer.text.lines().any(|found| found == line),
            "{line}\n{}",
            answer.text
        );
    }
    // Every sample stands under the help and type of its family, and no family comes twice.
    let (mut family, mut families) = (String::new(), BTreeSet::new());
    for line in answer.text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.split(' ').next().unwrap().clone_into(&mut family);
            assert!(families.insert(family.clone()), "{family} comes twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let is_total = family.ends_with("_total");
            assert_eq!(
                kind,
                format!("{family} {}", if is_total { "counter" } else { "gauge" })
            );
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next().unwrap(), family);
            assert!(
                value
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b == b'-' || b == b'.')
            );
        }
    }
}
