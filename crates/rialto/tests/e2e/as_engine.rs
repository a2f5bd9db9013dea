//! A node whose channels are the settlement engine of another node: three processes, and a fourth that
//! has channels of its own.
//!
//! ```text
//!            accounting system x  ──── packets, peer.settle ────  y, with channels of its own
//!                  │     ▲
//!   POST /accounts,│     │ POST /accounts/N/settlements, /messages
//!                  ▼     │
//!                 engine e
//! ```

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    auth::rialto,
    channels::{settle, wait_accepted},
    engine::{listener, tell},
    harness::{Node, wait_for},
};

const ENGINE_TOKEN: &str = "the-token-that-x-wants-of-its-engines";

struct Three {
    x: Node,
    y: Node,
    e: Node,
    /// Where x asks e.
    engine: SocketAddr,
    /// By whom x knows y, and e knows it.
    number: String,
}

fn endpoint(node: &Node, name: &str) -> SocketAddr {
    let endpoints = std::fs::read(node.folder().join("data/endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_slice(&endpoints).unwrap();
    endpoints[name].as_str().unwrap().parse().unwrap()
}

fn keep(node: &mut Node, variable: &str, address: SocketAddr) {
    let value = address.to_string();
    node.environment.push((variable.to_owned(), value.into()));
}

fn write_token(node: &Node) {
    use std::{fs, os::unix::fs::PermissionsExt};
    let path = node.folder().join("engine.token");
    fs::write(&path, ENGINE_TOKEN).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Three {
    fn start() -> Self {
        let settlement = "[settlement]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"engine.token\"";
        let mut x = Node::prepare("x", "test.x", settlement);
        write_token(&x);
        x.restart();
        let accounting = listener(&x);
        keep(&mut x, "RIALTO_SETTLEMENT__LISTEN", accounting);
        let engine = format!(
            "[engine]\nlisten = \"127.0.0.1:0\"\naccounting_url = \"http://{accounting}\"\n\
             accounting_token_file = \"engine.token\"\nasset = \"USD/2\"\nchannel = \"symmetrical\"\n\
             limit = \"50.00\"\ntheir_limit = \"50.00\"\npropose = true"
        );
        let mut e = Node::prepare("e", "test.e", &engine);
        write_token(&e);
        let file = e.folder().join("secret.key");
        std::fs::write(file, "BQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=").unwrap();
        e.restart();
        let engine = endpoint(&e, "engine");
        keep(&mut e, "RIALTO_ENGINE__LISTEN", engine);
        let mut y = Node::prepare("y", "test.y", "");
        let file = y.folder().join("secret.key");
        std::fs::write(file, "BgIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=").unwrap();
        y.restart();
        y.account(json!({
            "name": "x", "relation": "peer", "asset_code": "USD", "asset_scale": 2,
            "ilp_address": "test.x", "limits": {"balance_min": "-1000000"},
            "incoming_token": "token-from-x-to-y",
            "settlement": {"channel": {
                "kind": "symmetrical", "limit": "5000", "their_limit": "5000",
            }},
        }));
        // x counts in thousandths: what is left of them is e's to carry.
        x.account(json!({
            "name": "y", "relation": "peer", "asset_code": "USD", "asset_scale": 3,
            "ilp_address": "test.y", "limits": {"balance_min": "-1000000"},
            "btp": {"url": y.btp_url("x"), "token": "token-from-x-to-y"},
            "settlement": {"engine_url": format!("http://{engine}"), "engine_channels": true},
        }));
        let number = wait_for("the account at the engine", || {
            let name = e.balances().into_keys().next()?;
            Some(name.strip_prefix("engine-").unwrap().to_owned())
        });
        let three = Self {
            x,
            y,
            e,
            engine,
            number,
        };
        three.wait_open();
        three
    }

    fn name(&self) -> String {
        format!("engine-{}", self.number)
    }

    fn wait_open(&self) {
        for node in [&self.e, &self.y] {
            wait_for("an open channel", || {
                let found = node.ok("GET", "/v1/channels", None);
                let channels = found["channels"].as_array().unwrap();
                assert!(channels.len() < 2, "one channel: {found}");
                let channel = channels.first()?;
                (channel["state"] == "open" && channel["waiting"] == 0).then_some(())
            });
        }
    }

    /// Waits until x and y say so of each other.
    fn wait_balances(&self, x: i128, y: i128) {
        wait_for("the balances", || {
            let balances = (self.x.balance("y"), self.y.balance("x"));
            (balances == (x, y)).then_some(())
        });
    }

    /// A call of an accounting system: what came back.
    fn ask(&self, path: &str, key: Option<&str>, body: &str) -> u16 {
        let key = key.map_or(String::new(), |key| format!("Idempotency-Key: {key}\r\n"));
        let headers = format!("{key}Content-Type: application/json\r\n");
        let told = tell(self.engine, path, &headers, body.as_bytes(), || ());
        told.expect("the engine answers").status
    }
}

#[test]
fn channels_are_the_engine_of_another_node() {
    let three = Three::start();
    // Either way, by a node that knows of no channel.
    let made = settle(&three.x, "y", 40_009, "first");
    wait_accepted(&three.x, &made);
    three.wait_balances(-40_009, 4_000);
    let made = settle(&three.y, "x", 2_500, "back");
    wait_accepted(&three.y, &made);
    three.wait_balances(-40_009 + 25_000, 4_000 - 2_500);
    // The nine thousandths were kept, and one more makes a hundredth.
    let made = settle(&three.x, "y", 1, "rest");
    wait_accepted(&three.x, &made);
    three.wait_balances(-15_010, 1_501);
    wait_for("everything passed on", || {
        (three.e.balance(&three.name()) == 0).then_some(())
    });
    let settlements = three.e.ok("GET", "/v1/settlements", None);
    let causes = settlements["settlements"].as_array().unwrap().iter();
    let causes: Vec<_> = causes.map(|made| made["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["instruction", "report", "instruction"]);
    for node in [&three.x, &three.y, &three.e] {
        node.assert_books_add_up();
    }

    // The operator of the engine sees it, and cannot pay beside it.
    let listed = rialto(&three.e, &["channel", "list"]);
    assert!(listed.to_string().contains(&three.name()), "{listed}");
    let body = json!({"account": three.name(), "amount": "1"});
    let (status, problem) = three.e.call_once("/v1/settlements", "beside", body);
    assert_eq!(status, 409, "{problem}");
    let change = json!({"settlement": {"accounting_url": "http://elsewhere.example/accounts/1"}});
    let path = format!("/v1/accounts/{}", three.name());
    let (status, _) = three.e.call("PATCH", &path, Some(change));
    assert_eq!(status, 200, "nothing is owed: it may move");
    let back = format!("http://{}/accounts/{}", listener(&three.x), three.number);
    let change = json!({"settlement": {"accounting_url": back}});
    three.e.ok("PATCH", &path, Some(change));
}

#[test]
fn calls_to_the_engine_that_are_wrong_are_refused_and_named() {
    let mut three = Three::start();
    let account = format!("/accounts/{}", three.number);
    let settlements = format!("{account}/settlements");
    let quantity = r#"{"amount":"500","scale":2}"#;
    assert_eq!(three.ask(&settlements, Some("a"), quantity), 201);
    assert_eq!(three.ask(&settlements, Some("a"), quantity), 201);
    let other = r#"{"amount":"501","scale":2}"#;
    assert_eq!(three.ask(&settlements, Some("a"), other), 409);
    three.wait_balances(0, 500);
    for (path, key, body, status) in [
        (settlements.as_str(), None, quantity, 400),
        (
            &settlements,
            Some("b"),
            r#"{"amount":"1.5","scale":2}"#,
            400,
        ),
        (&settlements, Some("b"), r#"{"amount":"-1","scale":2}"#, 400),
        (
            &settlements,
            Some("b"),
            r#"{"amount":"1","scale":256}"#,
            400,
        ),
        (&settlements, Some("b"), r#"{"amount":"1","scale":"#, 400),
        (
            &settlements,
            Some("b"),
            r#"{"amount":"99999999999999999999","scale":2}"#,
            400,
        ),
        ("/accounts/unknown/settlements", Some("b"), quantity, 404),
        ("/accounts/unknown/messages", None, "hello", 404),
        // No frame of a channel: there is nobody to take it.
        (&format!("{account}/messages"), None, "hello", 400),
        ("/accounts", None, r#"{"id":"a b"}"#, 400),
        ("/accounts", None, r#"{"id":""}"#, 400),
        ("/accounts", None, r#"{"id":".."}"#, 400),
        ("/elsewhere", None, "{}", 404),
    ] {
        assert_eq!(three.ask(path, key, body), status, "{path} {body}");
    }
    let long = "x".repeat(255);
    for (id, status) in [
        ("3b241101-e2bb-4255-8caf-4136c566a962", 201),
        ("3b241101-e2bb-4255-8caf-4136c566a962", 200),
        ("a.name~with_dots", 201),
        (long.as_str(), 201),
        (&three.number, 200),
    ] {
        let body = json!({"id": id}).to_string();
        assert_eq!(three.ask("/accounts", None, &body), status, "{id}");
    }
    // A name that is taken by an account with links of its own is not an accounting system's.
    three.e.account(json!({
        "name": "engine-taken", "relation": "peer", "asset_code": "USD", "asset_scale": 2,
    }));
    assert_eq!(three.ask("/accounts", None, r#"{"id":"taken"}"#), 409);
    let quantity_of = "/accounts/taken/settlements";
    assert_eq!(three.ask(quantity_of, Some("c"), quantity), 404);
    three.wait_balances(0, 500);

    // Closed only when nothing is open, and then gone.
    let path = format!("/v1/accounts/{}", three.name());
    let channel = three.e.ok("GET", "/v1/channels", None)["channels"][0]["id"].clone();
    let (status, problem) = three.e.call("DELETE", &path, None);
    assert_eq!(status, 409, "{problem}");
    let close = format!("/v1/channels/{}/close", channel.as_str().unwrap());
    three.e.ok("POST", &close, Some(json!({})));
    wait_for("the end of the channel", || {
        let found = three.e.ok("GET", "/v1/channels", None);
        let channel = &found["channels"][0];
        (channel["state"] == "closed" && channel["waiting"] == 0).then_some(())
    });
    // x exchanges its engine for none: the account is closed there.
    let change = json!({"settlement": {"engine_url": null, "engine_channels": false}});
    three.x.ok("PATCH", "/v1/accounts/y", Some(change));
    wait_for("the end of the account", || {
        (three.e.call("GET", &path, None).0 == 404).then_some(())
    });
    assert_eq!(three.ask(&settlements, Some("d"), quantity), 404);

    // With a token, whoever has none is sent away.
    three.e.kill();
    let file = "engine.token".to_owned();
    let variable = "RIALTO_ENGINE__TOKEN_FILE".to_owned();
    three.e.environment.push((variable, file.into()));
    three.e.restart();
    assert_eq!(three.ask("/accounts", None, r#"{"id":"n"}"#), 401);
    let headers =
        format!("Authorization: Bearer {ENGINE_TOKEN}\r\nContent-Type: application/json\r\n");
    let told = tell(three.engine, "/accounts", &headers, br#"{"id":"n"}"#, || ());
    assert_eq!(told.unwrap().status, 201);
}

/// Kills one of the three as soon as something shows, and starts it again.
#[test]
fn whoever_is_killed_each_settlement_arrives_once() {
    let mut three = Three::start();
    let (mut x, mut y, mut kills) = (0, 0, 0);
    for round in 0..3 {
        // As soon as x asks, while e pays, and while y takes it.
        for victim in ["e", "x", "y"] {
            let key = format!("{round}-{victim}");
            let made = settle(&three.x, "y", 100, &key);
            three.kill(victim);
            kills += 1;
            wait_accepted(&three.x, &made);
            (x, y) = (x - 100, y + 10);
            three.wait_balances(x, y);
        }
        for victim in ["e", "x", "y"] {
            let made = settle(&three.y, "x", 7, &format!("{round}-{victim}"));
            three.kill(victim);
            kills += 1;
            wait_accepted(&three.y, &made);
            (x, y) = (x + 70, y - 7);
            three.wait_balances(x, y);
        }
        // x is away when it should hear, and e is killed while it has only its books to remember it.
        three.x.kill();
        three.e.kill();
        three.e.restart();
        three.x.restart();
        kills += 2;
        let made = settle(&three.y, "x", 7, &format!("{round}-away"));
        wait_accepted(&three.y, &made);
        (x, y) = (x + 70, y - 7);
        three.wait_balances(x, y);
    }
    wait_for("everything passed on", || {
        (three.e.balance(&three.name()) == 0).then_some(())
    });
    three.wait_open();
    for node in [&three.x, &three.y, &three.e] {
        node.assert_books_add_up();
    }
    println!(
        "reliability: settlement kills | {kills} kills of an accounting system, of the node that is its engine, and of \
         the peer | 0 settlements lost, paid or told twice"
    );
}

impl Three {
    fn kill(&mut self, victim: &str) {
        let node = match victim {
            "x" => &mut self.x,
            "y" => &mut self.y,
            _ => &mut self.e,
        };
        node.kill();
        node.restart();
    }
}
