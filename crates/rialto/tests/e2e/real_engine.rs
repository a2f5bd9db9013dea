//! Settlement engines on the published `ilp-settlement-core`, with two nodes: messages when they are set
//! up, settlements both ways, and everybody killed.

use std::net::SocketAddr;

use serde_json::json;

use crate::{
    engine::listener,
    harness::{Folder, Node, Peer, call, wait_for},
};

const TOKEN: &str = "a-token-that-nobody-can-guess";

/// Units of the accounts (scale 9) in one of the ledger (scale 6).
const LEDGER_UNIT: i128 = 1_000;

/// A node and its engine.
struct Side {
    name: &'static str,
    other: &'static str,
    node: Node,
    listener: SocketAddr,
    engine: Option<Peer>,
    port: String,
    paid: i128,
}

impl Side {
    fn start(name: &'static str, other: &'static str, ledger: &Folder) -> Self {
        let settlement = "[settlement]\nlisten = \"127.0.0.1:0\"\n";
        let mut node = Node::start(name, &format!("test.{name}"), settlement);
        let listener = listener(&node);
        // The engine is told once where the node is.
        let listen = (
            "RIALTO_SETTLEMENT__LISTEN".to_owned(),
            listener.to_string().into(),
        );
        node.environment.push(listen);
        let mut side = Self {
            name,
            other,
            node,
            listener,
            engine: None,
            port: "0".to_owned(),
            paid: 0,
        };
        side.start_engine(ledger);
        side
    }

    fn start_engine(&mut self, ledger: &Folder) {
        let store = ledger.path().join(format!("{}.json", self.name));
        let engine = Peer::start(
            "settlement-engine.js",
            &[
                "--connector",
                &format!("http://{}", self.listener),
                "--ledger",
                ledger.path().to_str().unwrap(),
                "--name",
                self.name,
                "--store",
                store.to_str().unwrap(),
                "--port",
                &self.port,
                "--timeout",
                "600",
            ],
        );
        self.port = engine.ready["port"].to_string();
        self.engine = Some(engine);
    }

    fn settle(&self, key: &str, amount: i128) -> Option<String> {
        let body = json!({"account": self.other, "amount": amount.to_string()});
        let (status, made) = call(self.node.admin, "POST", "/v1/settlements", Some(&body), key)?;
        assert!(matches!(status, 200 | 201), "{status} {made}");
        Some(made["id"].as_str().unwrap().to_owned())
    }

    fn terms(&self) -> serde_json::Value {
        json!({
            "name": self.other, "relation": "peer", "asset_code": "USD", "asset_scale": 9,
            "incoming_token": TOKEN, "limits": {"balance_min": "-1000000000"},
            "settlement": {"engine_url": format!("http://127.0.0.1:{}", self.port)},
        })
    }
}

#[test]
fn a_published_engine_settles_exactly_once_whoever_is_killed() {
    let ledger = Folder::new("ledger");
    let mut sides = [
        Side::start("alice", "bob", &ledger),
        Side::start("bob", "alice", &ledger),
    ];
    let (of_bob, of_alice) = (sides[0].terms(), sides[1].terms());
    sides[1].node.account(of_alice);
    let url = sides[1].node.btp_url("alice");
    let mut of_bob = of_bob;
    of_bob["btp"] = json!({"url": url, "token": TOKEN});
    sides[0].node.account(of_bob);

    let mut kills = 0;
    for (round, victims) in ["", "node", "engine", "other node", "other engine", "all"]
        .into_iter()
        .cycle()
        .take(12)
        .enumerate()
    {
        let payer = round % 2;
        // Half a unit of the ledger remains with the engine every other time.
        let amount = 1_000_500 + 2_000 * i128::try_from(round).unwrap();
        let key = format!("round-{round}");
        let first = sides[payer].settle(&key, amount);
        for (index, side) in sides.iter_mut().enumerate() {
            let who = |what: &str| match index == payer {
                true => what.to_owned(),
                false => format!("other {what}"),
            };
            if victims == "all" || victims == who("engine") {
                drop(side.engine.take()); // SIGKILL
                side.start_engine(&ledger);
                kills += 1;
            }
            if victims == "all" || victims == who("node") {
                side.node.kill();
                side.node.restart();
                kills += 1;
            }
        }
        let again = sides[payer].settle(&key, amount);
        assert!(again.is_some() && (first.is_none() || first == again));
        sides[payer].paid += amount;
        let on_ledger = |side: &Side| side.paid / LEDGER_UNIT * LEDGER_UNIT;
        wait_for("both books to have it", || {
            let balances = [0, 1].map(|index: usize| sides[index].node.balance(sides[index].other));
            let expected = [
                on_ledger(&sides[1]) - sides[0].paid,
                on_ledger(&sides[0]) - sides[1].paid,
            ];
            (balances == expected).then_some(())
        });
        wait_for("the engine's word", || {
            let path = format!("/v1/settlements/{}", again.as_ref()?);
            let found = sides[payer].node.ok("GET", &path, None);
            (found["state"] == "accepted").then_some(())
        });
    }
    for side in &sides {
        side.node.assert_books_add_up();
    }
    println!(
        "reliability: ilp-settlement-core 0.1.1 | 12 settlements both ways, {kills} kills of nodes and engines | 0 units wrong"
    );
}
