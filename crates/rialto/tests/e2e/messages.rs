//! Settlement engines of two nodes talk to each other, over BTP and over HTTP.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::json;

use crate::{
    engine::{self, Answer, Call, Engine, Told, listener, serve},
    harness::{Node, wait_for},
};

const TOKEN: &str = "a-token-that-nobody-can-guess";

/// What is said in the body is what it does.
#[derive(Default)]
struct Talker {
    /// Accounts that it knows.
    accounts: Mutex<Vec<String>>,
    /// Messages that it was handed.
    heard: Mutex<usize>,
}

impl Engine for Talker {
    fn called(&self, call: &Call) -> Answer {
        let path: Vec<_> = call.path.iter().map(String::as_str).collect();
        let mut accounts = self.accounts.lock().unwrap();
        match (call.method.as_str(), &path[..]) {
            ("POST", ["accounts"]) => {
                let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
                accounts.push(body["id"].as_str().unwrap().to_owned());
                Answer::Says(201, Vec::new())
            }
            ("DELETE", ["accounts", id]) => {
                accounts.retain(|known| known != id);
                Answer::Says(204, Vec::new())
            }
            ("POST", ["accounts", id, "messages"]) => {
                assert_eq!(call.headers["content-type"], "application/octet-stream");
                if !accounts.iter().any(|known| known == id) {
                    return Answer::Says(404, Vec::new());
                }
                *self.heard.lock().unwrap() += 1;
                match &call.body[..] {
                    b"objects" => Answer::Says(422, b"I do not like it".to_vec()),
                    b"fails" => Answer::Says(500, b"ouch".to_vec()),
                    b"is gone" => Answer::Nothing,
                    b"too long" => Answer::Says(200, vec![b'x'; 32_768]),
                    body => {
                        Answer::Says(201, [b"heard ", &body[..body.len().min(32_000)]].concat())
                    }
                }
            }
            _ => Answer::Says(404, Vec::new()),
        }
    }
}

fn send(node: &Node, account: &str, message: &[u8]) -> Told {
    let path = format!("/accounts/{account}/messages");
    let headers = "Content-Type: application/octet-stream\r\n";
    engine::tell(listener(node), &path, headers, message, || ()).expect("the node answers")
}

/// Two nodes with an engine each. Each is account 1 of the other.
fn pair(over_btp: bool) -> ([Node; 2], [Arc<Talker>; 2]) {
    let engines = [Arc::new(Talker::default()), Arc::new(Talker::default())];
    let urls = engines.clone().map(|engine| url(serve(engine)));
    let start = |name: &str| {
        let settlement = "[settlement]\nlisten = \"127.0.0.1:0\"\n";
        Node::start(name, &format!("test.{name}"), settlement)
    };
    let (alice, bob) = (start("alice"), start("bob"));
    let account = |name: &str, url: &str| {
        json!({
            "name": name, "relation": "peer", "asset_code": "USD", "asset_scale": 9,
            "incoming_token": TOKEN, "settlement": {"engine_url": url},
        })
    };
    let (mut of_bob, mut of_alice) = (account("bob", &urls[0]), account("alice", &urls[1]));
    if over_btp {
        of_bob["btp"] = json!({"url": bob.btp_url("alice"), "token": TOKEN});
    } else {
        of_bob["http"] = json!({"url": bob.ilp_url("alice"), "token": TOKEN});
        of_alice["http"] = json!({"url": alice.ilp_url("bob"), "token": TOKEN});
    }
    bob.account(of_alice);
    alice.account(of_bob);
    ([alice, bob], engines)
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

#[test]
fn engines_talk_to_each_other_over_btp_and_over_http() {
    for over_btp in [true, false] {
        let ([alice, bob], [_, engine]) = pair(over_btp);
        // At once after the accounts were made: the first attempt may come before the connection.
        wait_for("a link", || {
            (send(&alice, "1", b"hi").status == 201).then_some(())
        });
        for (from, word) in [(&alice, "over"), (&bob, "back")] {
            let told = wait_for("an answer", || {
                Some(send(from, "1", word.as_bytes())).filter(|told| told.status == 201)
            });
            assert_eq!(told.body, format!("heard {word}").as_bytes());
            assert!(
                told.head
                    .to_ascii_lowercase()
                    .contains("application/octet-stream")
            );
        }
        let bytes: Vec<u8> = (0..32_767u32).map(|n| n.to_le_bytes()[0]).collect();
        let told = send(&alice, "1", &bytes);
        assert_eq!((told.status, &told.body[6..]), (201, &bytes[..32_000]));
        assert_eq!(send(&alice, "1", b"").body, b"heard ");

        // The engine on the other side lost its state, and is told of the account again.
        engine.accounts.lock().unwrap().clear();
        assert_eq!(send(&alice, "1", b"again").body, b"heard again");

        let ilp_error = |told: &Told| {
            let head = told.head.to_ascii_lowercase();
            let code = head
                .split("ilp-error: ")
                .nth(1)
                .map(|rest| rest[..3].to_owned());
            code.unwrap_or_default()
        };
        let objects = send(&alice, "1", b"objects");
        assert_eq!((objects.status, ilp_error(&objects).as_str()), (502, "f00"));
        assert_eq!(objects.body, b"I do not like it");
        for message in ["fails", "is gone", "too long"] {
            let told = send(&alice, "1", message.as_bytes());
            assert_eq!(
                (told.status, ilp_error(&told).as_str()),
                (502, "t00"),
                "{message}"
            );
            let problem = String::from_utf8(told.body).unwrap();
            assert!(problem.contains("engine.failed"), "{problem}");
        }
        assert_eq!(send(&alice, "1", &[0; 32_768]).status, 413);
        assert_eq!(send(&alice, "7", b"hi").status, 404);
        assert_eq!(send(&alice, "x", b"hi").status, 400);

        // Without an engine on the other side, and without one here.
        let no_engine = json!({"settlement": {"engine_url": null}});
        bob.ok("PATCH", "/v1/accounts/alice", Some(no_engine.clone()));
        let told = send(&alice, "1", b"hi");
        assert_eq!((told.status, ilp_error(&told).as_str()), (502, "f02"));
        assert_eq!(send(&bob, "1", b"hi").status, 404);
        // The engine that the account no longer has is told to forget it.
        wait_for("the engine to forget", || {
            engine.accounts.lock().unwrap().is_empty().then_some(())
        });

        let before = *engine.heard.lock().unwrap();
        drop(bob);
        let told = wait_for("the other node to be gone", || {
            Some(send(&alice, "1", b"hi")).filter(|told| ilp_error(told).is_empty())
        });
        assert_eq!(told.status, 502, "{told:?}");
        assert_eq!(*engine.heard.lock().unwrap(), before);
        assert_eq!(alice.balance("bob"), 0, "messages cost nothing");
        alice.assert_books_add_up();
    }
}
