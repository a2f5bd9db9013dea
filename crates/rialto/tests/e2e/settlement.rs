//! Settlement with real processes: a node, and an engine that misbehaves in every way.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

use crate::{
    auth::rialto,
    engine::{self, Answer, Call, listener},
    harness::{Node, wait_for},
};

/// How the engine answers settlements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// 201.
    Well,
    /// It takes the settlement and never answers.
    Hangs,
    /// It takes the settlement and answers 500.
    Fails,
    /// It does not take it: 500.
    Busy,
    /// 400.
    Refuses,
}

#[derive(Debug, Default)]
struct Ledger {
    accounts: Vec<String>,
    /// What was paid, by key: each key once.
    paid: BTreeMap<String, u128>,
    /// Calls to pay.
    calls: usize,
}

/// A settlement engine of our own making, which forgets everything when it is told to.
struct Engine {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Engine {
    fn start() -> Self {
        let (mood, ledger) = (Arc::new(Mutex::new(Mood::Well)), Arc::default());
        let desk = Desk {
            mood: Arc::clone(&mood),
            ledger: Arc::clone(&ledger),
        };
        Self {
            address: engine::serve(Arc::new(desk)),
            mood,
            ledger,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn paid(&self) -> u128 {
        self.ledger.lock().unwrap().paid.values().sum()
    }

    fn calls(&self) -> usize {
        self.ledger.lock().unwrap().calls
    }
}

/// What a node calls.
struct Desk {
    mood: Arc<Mutex<Mood>>,
    ledger: Arc<Mutex<Ledger>>,
}

impl engine::Engine for Desk {
    fn called(&self, call: &Call) -> Answer {
        let mood = *self.mood.lock().unwrap();
        let mut ledger = self.ledger.lock().unwrap();
        let path: Vec<_> = call.path.iter().map(String::as_str).collect();
        let says = |status| Answer::Says(status, b"{}".to_vec());
        match (call.method.as_str(), &path[..]) {
            ("POST", ["accounts"]) => {
                let body: Value = serde_json::from_slice(&call.body).unwrap();
                let id = body["id"].as_str().unwrap().to_owned();
                ledger.accounts.push(id);
                says(201)
            }
            ("DELETE", ["accounts", id]) => {
                ledger.accounts.retain(|known| known != id);
                says(204)
            }
            ("POST", ["accounts", id, "settlements"]) => {
                ledger.calls += 1;
                match mood {
                    Mood::Busy => return says(500),
                    Mood::Refuses => return says(400),
                    Mood::Well | Mood::Hangs | Mood::Fails => {}
                }
                if !ledger.accounts.iter().any(|known| known == id) {
                    return says(404);
                }
                let body: Value = serde_json::from_slice(&call.body).unwrap();
                assert_eq!(body["scale"], 9);
                let amount = body["amount"].as_str().unwrap().parse().unwrap();
                let key = call.headers["idempotency-key"].clone();
                let known = *ledger.paid.entry(key).or_insert(amount);
                assert_eq!(known, amount, "one key, one amount");
                match mood {
                    Mood::Hangs => Answer::Hangs,
                    Mood::Fails => says(500),
                    Mood::Well | Mood::Busy | Mood::Refuses => says(201),
                }
            }
            _ => says(404),
        }
    }
}

/// A node with one peer, whom we may pay ahead.
fn node(engine: &Engine) -> Node {
    let node = Node::start(
        "settle",
        "test.settle",
        "[settlement]\nlisten = \"127.0.0.1:0\"\n",
    );
    node.account(json!({
        "name": "peer", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": "-1000000"},
        "settlement": {"engine_url": engine.url()},
    }));
    node
}

/// What an engine does when money came in.
fn report(node: &Node, account: &str, key: Option<&str>, body: &str) -> u16 {
    engine::report(listener(node), account, key, body)
}

fn settle(node: &Node, key: &str, amount: Option<&str>) -> (u16, Value) {
    node.call_once(
        "/v1/settlements",
        key,
        json!({"account": "peer", "amount": amount}),
    )
}

fn state(node: &Node, id: &str) -> String {
    let found = node.ok("GET", &format!("/v1/settlements/{id}"), None);
    found["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_settlement_is_paid_once_whatever_the_engine_and_the_node_do() {
    let engine = Engine::start();
    let mut node = node(&engine);
    let mut expected = 0;
    let moods = [Mood::Well, Mood::Fails, Mood::Busy, Mood::Hangs];
    let mut points = 0;
    for (index, mood) in moods.iter().cycle().take(12).enumerate() {
        engine.is(*mood);
        let calls = engine.calls();
        let (status, made) = settle(&node, &format!("k{index}"), Some("1000"));
        assert_eq!(status, 201, "{made}");
        expected += 1000;
        let id = made["id"].as_str().unwrap().to_owned();
        wait_for("a call", || (engine.calls() > calls).then_some(()));
        // Killed while the engine has it and the node does not know.
        if index >= 4 {
            node.kill();
            points += 1;
            node.restart();
            // The operator's client repeats its request, as it saw no answer.
            let (status, again) = settle(&node, &format!("k{index}"), Some("1000"));
            assert_eq!((status, &again["id"]), (200, &made["id"]));
        }
        engine.is(Mood::Well);
        wait_for("the engine to have it", || {
            (state(&node, &id) == "accepted").then_some(())
        });
        assert_eq!(engine.paid(), expected, "after {mood:?}");
        assert_eq!(node.balance("peer"), -i128::try_from(expected).unwrap());
        node.assert_books_add_up();
    }
    println!(
        "reliability: settlement | {points} kills between an engine's call and its answer | 0 settlements lost or paid twice"
    );
}

#[test]
fn an_engine_that_lost_its_state_is_told_of_the_account_again() {
    let engine = Engine::start();
    let node = node(&engine);
    engine.ledger.lock().unwrap().accounts.clear();
    let (_, made) = settle(&node, "k", Some("5"));
    let id = made["id"].as_str().unwrap();
    wait_for("the engine to have it", || {
        (state(&node, id) == "accepted").then_some(())
    });
    assert_eq!(engine.paid(), 5);
}

#[test]
fn a_refused_settlement_waits_for_the_operator() {
    let engine = Engine::start();
    let node = node(&engine);
    engine.is(Mood::Refuses);
    let (_, made) = settle(&node, "k", Some("5"));
    let id = made["id"].as_str().unwrap();
    wait_for("the refusal", || {
        (state(&node, id) == "parked").then_some(())
    });
    let found = node.ok("GET", &format!("/v1/settlements/{id}"), None);
    assert!(
        found["message"].as_str().unwrap().contains("400"),
        "{found}"
    );
    assert_eq!(settle(&node, "other", Some("1")).0, 409);
    engine.is(Mood::Well);
    let cancelled = node.ok("POST", &format!("/v1/settlements/{id}/cancel"), None);
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(node.balance("peer"), 0);
    assert_eq!(settle(&node, "third", Some("2")).0, 201);
    wait_for("the third", || (engine.paid() == 2).then_some(()));
}

#[test]
fn an_operator_settles_by_the_command_line() {
    let engine = Engine::start();
    let node = node(&engine);
    let adjust = [
        "account",
        "adjust",
        "peer",
        "0.0000005",
        "--reason",
        "a test",
    ];
    rialto(&node, &adjust);
    // The preview, and what it says.
    let shown = rialto(&node, &["account", "show", "peer"]);
    assert_eq!(shown["settleable"], "500");
    let part = rialto(&node, &["settle", "peer", "0.0000002"]);
    assert_eq!(
        (&part["amount"], &part["cause"]),
        (&json!("200"), &json!("manual"))
    );
    wait_for("the first", || (engine.paid() == 200).then_some(()));
    wait_for("its end", || {
        let shown = rialto(&node, &["settlement", "show", part["id"].as_str()?]);
        (shown["state"] == "accepted").then_some(())
    });
    engine.is(Mood::Refuses);
    let rest = rialto(&node, &["settle", "peer"]);
    assert_eq!(rest["amount"], "300", "{rest}");
    let id = rest["id"].as_str().unwrap();
    let parked = || {
        wait_for("the refusal", || {
            (state(&node, id) == "parked").then_some(())
        })
    };
    parked();
    rialto(&node, &["settlement", "retry", id]);
    parked();
    let listed = rialto(&node, &["settlement", "list"]);
    assert_eq!(listed["settlements"].as_array().unwrap().len(), 2);
    let cancelled = rialto(&node, &["settlement", "cancel", id]);
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!((node.balance("peer"), engine.paid()), (300, 200));
}

#[test]
fn what_engines_report_is_credited_once() {
    let engine = Engine::start();
    let mut node = node(&engine);
    let id = "1";
    let body = r#"{"amount":"905","scale":11}"#;
    assert_eq!(report(&node, id, Some("a"), body), 201);
    assert_eq!(report(&node, id, Some("a"), body), 201);
    assert_eq!(
        report(&node, id, Some("a"), r#"{"amount":"906","scale":11}"#),
        409
    );
    assert_eq!(node.balance("peer"), 9);
    node.kill();
    node.restart();
    assert_eq!(report(&node, id, Some("a"), body), 201);
    assert_eq!(
        report(&node, id, Some("b"), r#"{"amount":"95","scale":11}"#),
        201
    );
    assert_eq!(
        node.balance("peer"),
        10,
        "leftovers are carried on, also over a kill"
    );

    // A hundred at once with one key.
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let body = r#"{"amount":"100","scale":9}"#;
                assert_eq!(report(&node, id, Some("race"), body), 201);
            });
        }
    });
    assert_eq!(node.balance("peer"), 110);
    node.assert_books_add_up();

    let long = format!(r#"{{"amount":"{}","scale":9}}"#, "9".repeat(60));
    for (account, key, body, status) in [
        (id, None, body, 400),
        ("7", Some("c"), body, 404),
        ("x", Some("c"), body, 400),
        (id, Some("c"), r#"{"amount":1,"scale":9}"#, 400),
        (id, Some("c"), r#"{"amount":"-1","scale":9}"#, 400),
        (id, Some("c"), r#"{"amount":"1","scale":256}"#, 400),
        (id, Some("c"), r#"{"amount":"","scale":9}"#, 400),
        (id, Some("c"), "{}", 400),
        (id, Some("c"), long.as_str(), 400),
        (id, Some("c"), r#"{"amount":"0","scale":9}"#, 201),
    ] {
        assert_eq!(
            report(&node, account, key, body),
            status,
            "{account} {key:?} {body}"
        );
    }
    assert_eq!(node.balance("peer"), 110);
}

/// Two nodes: what a payment made one owe the other is settled by its engine, and reported by the
/// other's.
#[test]
fn two_nodes_settle_what_a_payment_left() {
    let engine = Engine::start();
    let token = "a-token-that-nobody-can-guess";
    let shop = Node::start(
        "shop",
        "test.shop",
        "[settlement]\nlisten = \"127.0.0.1:0\"\n",
    );
    shop.account(json!({
        "name": "buyer", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
        "incoming_token": token, "limits": {"balance_min": "-1000000"},
        "settlement": {"engine_url": engine.url()},
    }));
    shop.account(json!({
        "name": "till", "relation": "local", "asset_code": "USD", "asset_scale": 9,
    }));
    let buyer = Node::start("buyer", "test.buyer", "");
    buyer.account(json!({
        "name": "shop", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
        "ilp_address": "test.shop",
        "http": {"url": shop.ilp_url("buyer"), "token": token},
        "settlement": {"engine_url": engine.url(), "threshold": "1000", "settle_to": "100"},
    }));
    buyer.account(json!({
        "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": "-1000000"},
    }));
    let paid = buyer.pay(
        "k",
        &json!({"account": "wallet", "receiver": shop.pointer("till"), "amount": "50000", "packet_max": "100"}),
    );
    assert_eq!(paid["state"], "completed", "{paid}");
    // Whatever was settled on the way, what is left is below the threshold once the engine has all.
    wait_for("the last settlement", || {
        let settlements = buyer.ok("GET", "/v1/settlements?limit=200", None);
        let settlements = settlements["settlements"].as_array().unwrap();
        let all = settlements.iter().all(|one| one["state"] == "accepted");
        (all && buyer.balance("shop") < 1000).then_some(())
    });
    let settled = engine.paid();
    assert_eq!(
        i128::try_from(settled).unwrap() + buyer.balance("shop"),
        50_000
    );
    assert_eq!(shop.balance("buyer"), -50_000);
    let id = "1";
    let body = format!(r#"{{"amount":"{settled}","scale":9}}"#);
    assert_eq!(report(&shop, id, Some("all of it"), &body), 201);
    assert_eq!(
        shop.balance("buyer"),
        -buyer.balance("shop"),
        "both books agree"
    );
    buyer.assert_books_add_up();
    shop.assert_books_add_up();
}
