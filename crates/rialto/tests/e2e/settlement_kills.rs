//! Either node, or an engine, is killed at every step of a settlement: paid once and credited once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

use crate::{
    engine::{Answer, Call, Engine, listener, serve, tell},
    harness::{Node, call, wait_for},
    wire::Wire,
};

const TOKEN: &str = "a-token-that-nobody-can-guess";

/// When somebody is killed, seen from the engine that a node calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The node connected: what it calls about is on its disk, the call is not made.
    Accepted,
    /// The call is there, and nothing came of it.
    Called,
    /// The engine did what was asked, and has not answered.
    Done,
    /// Half of the answer is out.
    Half,
    /// The answer is out.
    Answered,
}

const MOMENTS: [Moment; 5] = [
    Moment::Accepted,
    Moment::Called,
    Moment::Done,
    Moment::Half,
    Moment::Answered,
];

/// On the wire between an engine that reports a payment and its node: what is there when somebody is killed,
/// who, and whether it arrives all the same.
const REPORTS: [(&str, Report); 6] = [
    ("the node, before the report arrives", (false, true, false)),
    ("the engine, and the report arrives", (false, false, true)),
    ("the engine, and the report is lost", (false, false, false)),
    ("the node, its answer lost", (true, true, false)),
    ("the node, and its answer arrives", (true, true, true)),
    (
        "the engine, before the answer arrives",
        (true, false, false),
    ),
];

/// Whether it is answered, whether the node is killed, whether it arrives.
type Report = (bool, bool, bool);

/// Who is killed, once, at the moment.
#[derive(Debug)]
struct Trap {
    moment: Moment,
    /// The end of the path that is called.
    call: &'static str,
    nodes: Vec<u32>,
    engine: bool,
}

#[derive(Default)]
struct Books {
    accounts: BTreeSet<String>,
    /// What was paid, by key.
    paid: BTreeMap<String, u128>,
    trap: Option<Trap>,
}

/// An engine with a disk: what it did survives it.
#[derive(Default)]
struct Bank(Mutex<Books>);

impl Bank {
    /// At this moment of a call: kills whom the trap is for, and says whether it is us.
    fn reach(&self, moment: Moment, call: Option<&Call>) -> bool {
        let trap = self.0.lock().unwrap().trap.take_if(|trap| {
            let ends = |call: &Call| call.path.last().is_some_and(|last| last == trap.call);
            trap.moment == moment && call.is_none_or(ends)
        });
        let Some(trap) = trap else { return false };
        trap.nodes.into_iter().for_each(kill);
        trap.engine
    }

    fn paid(&self) -> u128 {
        self.0.lock().unwrap().paid.values().sum()
    }

    fn perform(&self, call: &Call) -> Answer {
        let path: Vec<_> = call.path.iter().map(String::as_str).collect();
        let mut books = self.0.lock().unwrap();
        match (call.method.as_str(), &path[..]) {
            ("POST", ["accounts"]) => {
                let body: Value = serde_json::from_slice(&call.body).unwrap();
                books
                    .accounts
                    .insert(body["id"].as_str().unwrap().to_owned());
                Answer::Says(201, Vec::new())
            }
            ("POST", ["accounts", id, _]) if !books.accounts.contains(*id) => {
                Answer::Says(404, Vec::new())
            }
            ("POST", ["accounts", _, "settlements"]) => {
                let body: Value = serde_json::from_slice(&call.body).unwrap();
                let amount = body["amount"].as_str().unwrap().parse().unwrap();
                let key = call.headers["idempotency-key"].clone();
                let known = *books.paid.entry(key).or_insert(amount);
                assert_eq!(known, amount, "one key, one amount");
                Answer::Says(201, Vec::new())
            }
            ("POST", ["accounts", _, "messages"]) => Answer::Says(201, call.body.clone()),
            _ => Answer::Says(404, Vec::new()),
        }
    }
}

impl Engine for Bank {
    fn accepted(&self) -> bool {
        !self.reach(Moment::Accepted, None)
    }

    fn called(&self, call: &Call) -> Answer {
        if self.reach(Moment::Called, Some(call)) {
            return Answer::Nothing;
        }
        let answer = self.perform(call);
        let dies = self.reach(Moment::Done, Some(call));
        match dies {
            true => Answer::Nothing,
            false if self.reach(Moment::Half, Some(call)) => Answer::Half,
            false => answer,
        }
    }

    fn answered(&self, call: &Call) {
        self.reach(Moment::Answered, Some(call));
    }
}

/// Two nodes over BTP: the payer's bank pays, and what it paid is reported to the payee.
struct Pair {
    payer: Node,
    payee: Node,
    bank: Arc<Bank>,
    payee_bank: Arc<Bank>,
    /// Settlements that were made: the n-th is of n units.
    settled: u64,
    /// Those of them that were reported to the payee.
    credited: u64,
}

impl Pair {
    fn start() -> Self {
        let (bank, payee_bank) = (Arc::<Bank>::default(), Arc::<Bank>::default());
        let start = |name: &str| {
            let settlement = "[settlement]\nlisten = \"127.0.0.1:0\"\n";
            Node::start(name, &format!("test.{name}"), settlement)
        };
        let (payer, payee) = (start("payer"), start("payee"));
        payee.account(json!({
            "name": "payer", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
            "incoming_token": TOKEN,
            "settlement": {"engine_url": format!("http://{}", serve(Arc::clone(&payee_bank)))},
        }));
        payer.account(json!({
            "name": "payee", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": "-1000000000"},
            "btp": {"url": payee.btp_url("payer"), "token": TOKEN},
            "settlement": {"engine_url": format!("http://{}", serve(Arc::clone(&bank)))},
        }));
        Self {
            payer,
            payee,
            bank,
            payee_bank,
            settled: 0,
            credited: 0,
        }
    }

    /// Settles with a trap set, and says whether it was sprung. The operator's request is repeated
    /// under its key until it is answered.
    fn settle(&mut self, trap: Trap) -> bool {
        let node_dies = !trap.nodes.is_empty();
        self.bank.0.lock().unwrap().trap = Some(trap);
        self.settled += 1;
        let (key, amount) = (
            format!("settlement-{}", self.settled),
            self.settled.to_string(),
        );
        let body = json!({"account": "payee", "amount": amount});
        let ask = |node: &Node| call(node.admin, "POST", "/v1/settlements", Some(&body), &key);
        let is_accepted = |node: &Node, made: &Value| {
            let path = format!("/v1/settlements/{}", made["id"].as_str()?);
            let (_, found) = call(node.admin, "GET", &path, None, "")?;
            (found["state"] == "accepted").then_some(())
        };
        let mut answer = ask(&self.payer);
        let sprung = wait_for("the moment, or the end", || {
            let ended = || is_accepted(&self.payer, &answer.as_ref()?.1);
            let sprung = self.bank.0.lock().unwrap().trap.is_none();
            (sprung || ended().is_some()).then_some(sprung)
        });
        // It may have been reached just now.
        let sprung = self.bank.0.lock().unwrap().trap.take().is_none() || sprung;
        if sprung && node_dies {
            self.payer.kill();
            self.payer.restart();
            answer = ask(&self.payer);
        }
        let (status, made) = answer.expect("the node answers");
        assert!(matches!(status, 200 | 201), "{status} {made}");
        wait_for("the engine to have it", || is_accepted(&self.payer, &made));
        let total = self.settled * (self.settled + 1) / 2;
        assert_eq!(self.bank.paid(), u128::from(total));
        assert_eq!(self.payer.balance("payee"), -i128::from(total));
        sprung
    }

    /// What the payee's engine tells it of the payment `self.credited`.
    fn report(&self, sent: impl FnOnce()) -> Option<u16> {
        report(listener(&self.payee), self.credited, sent)
    }

    /// The same over a wire. Says what the engine heard.
    fn report_and_kill(&mut self, (is_answered, node_dies, arrives): Report) -> Option<u16> {
        let wire = Wire::default();
        let node = wire.lay(0, 1, listener(&self.payee));
        wire.arm(move |passing| passing.is_answer == is_answered);
        let number = self.credited;
        let told = thread::spawn(move || report(node, number, || ()));
        wire.wait_held("the report");
        if node_dies {
            self.payee.kill();
        }
        wire.cut(arrives);
        if node_dies {
            self.payee.restart();
        }
        told.join().expect("it says by itself what it failed at")
    }

    /// The report again, until the engine knows.
    fn credit(&self) {
        assert_eq!(self.report(|| ()), Some(201));
        let total = self.credited * (self.credited + 1) / 2;
        assert_eq!(self.payee.balance("payer"), i128::from(total));
    }

    fn restart_payee(&mut self) {
        self.payee.kill();
        self.payee.restart();
    }

    /// A message from the payer's engine to the payee's.
    fn message(&self) -> Option<u16> {
        let node = listener(&self.payer);
        let told = tell(node, "/accounts/1/messages", "", b"hello", || ())?;
        assert!(told.status != 201 || told.body == b"hello");
        Some(told.status)
    }
}

/// What an engine tells of the payment of this number.
fn report(node: SocketAddr, number: u64, sent: impl FnOnce()) -> Option<u16> {
    let body = format!(r#"{{"amount":"{}","scale":11}}"#, number * 100);
    let headers = format!("Idempotency-Key: {number}\r\nContent-Type: application/json\r\n");
    let path = "/accounts/1/settlements";
    let told = tell(node, path, &headers, body.as_bytes(), sent)?;
    // What engines take for credited.
    assert!(told.status != 201 || told.body == body.as_bytes());
    Some(told.status)
}

fn kill(pid: u32) {
    let pid = pid.to_string();
    let killed = Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killed.unwrap().success());
}

#[test]
fn whoever_is_killed_at_any_step_each_settlement_happens_once() {
    let mut pair = Pair::start();
    wait_for("a link", || (pair.message() == Some(201)).then_some(()));
    let mut points = 0;

    // Told of an account that it lost, and told to pay.
    for call in ["accounts", "settlements"] {
        for moment in MOMENTS {
            for (node, engine) in [(true, false), (false, true), (true, true)] {
                if (call, moment) == ("accounts", Moment::Accepted) {
                    continue; // nobody knows yet what the call will be
                }
                eprintln!("{call}: {moment:?}, node dies {node}, engine dies {engine}");
                loop {
                    if call == "accounts" {
                        pair.bank.0.lock().unwrap().accounts.clear();
                    }
                    let nodes = node.then(|| pair.payer.pid()).into_iter().collect();
                    let trap = Trap {
                        moment,
                        call,
                        nodes,
                        engine,
                    };
                    if pair.settle(trap) {
                        break;
                    }
                }
                points += 1;
            }
        }
    }

    // A message on its way.
    for moment in [Moment::Called, Moment::Done, Moment::Half, Moment::Answered] {
        for victim in ["payer", "payee", "engine"] {
            eprintln!("message: {moment:?}, {victim} dies");
            let nodes = match victim {
                "payer" => vec![pair.payer.pid()],
                "payee" => vec![pair.payee.pid()],
                _ => Vec::new(),
            };
            pair.payee_bank.0.lock().unwrap().trap = Some(Trap {
                moment,
                call: "messages",
                nodes,
                engine: victim == "engine",
            });
            pair.message();
            wait_for("the moment", || {
                let books = pair.payee_bank.0.lock().unwrap();
                books.trap.is_none().then_some(())
            });
            match victim {
                "payer" => {
                    pair.payer.kill();
                    pair.payer.restart();
                }
                "payee" => pair.restart_payee(),
                _ => {}
            }
            wait_for("the message to pass", || {
                (pair.message() == Some(201)).then_some(())
            });
            points += 1;
        }
    }

    // What came in is reported.
    for (name, kill) in REPORTS {
        pair.credited += 1;
        eprintln!("report: {name}");
        let (is_answered, _, arrives) = kill;
        let heard = (is_answered && arrives).then_some(201);
        assert_eq!(pair.report_and_kill(kill), heard);
        pair.credit();
        points += 1;
    }
    for step in 0..6 {
        pair.credited += 1;
        let (pid, node) = (pair.payee.pid(), listener(&pair.payee));
        match step {
            // Before it is reported.
            0 => {
                kill(pid);
                wait_for("the node's end", || {
                    TcpStream::connect(node).is_err().then_some(())
                });
                assert_eq!(pair.report(|| ()), None);
            }
            // In the midst of the report.
            1 => {
                let mut stream = TcpStream::connect(node).unwrap();
                let _ = stream.write_all(b"POST /accounts/1/settlements HTTP/1.1\r\nContent-Le");
                kill(pid);
            }
            // The engine has the answer.
            2 => {
                assert_eq!(pair.report(|| ()), Some(201));
                kill(pid);
            }
            // Twice at the same time.
            3 => thread::scope(|scope| {
                scope.spawn(|| pair.report(|| ()));
                let told = pair.report(|| kill(pid));
                assert!(matches!(told, None | Some(201)));
            }),
            // The engine dies when it has told, and when it has not told all.
            4 => {
                let stream = TcpStream::connect(node).unwrap();
                let body = format!(r#"{{"amount":"{}","scale":11}}"#, pair.credited * 100);
                let _ = (&stream).write_all(
                    format!(
                        "POST /accounts/1/settlements HTTP/1.1\r\nHost: node\r\n\
                         Idempotency-Key: {}\r\nContent-Type: application/json\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        pair.credited,
                        body.len()
                    )
                    .as_bytes(),
                );
                drop(stream);
            }
            _ => {
                let mut stream = TcpStream::connect(node).unwrap();
                let _ = stream.write_all(b"POST /accounts/1/settlements HTTP/1.1\r\nContent-Le");
                drop(stream);
            }
        }
        if step < 4 {
            pair.restart_payee();
        }
        pair.credit();
        points += 1;
    }

    while pair.credited < pair.settled {
        pair.credited += 1;
        pair.credit();
    }
    assert_eq!(
        pair.payer.balance("payee"),
        -pair.payee.balance("payer"),
        "both books agree"
    );
    pair.payer.assert_books_add_up();
    pair.payee.assert_books_add_up();
    println!(
        "reliability: settlement kills | {points} points at which a node, an engine or both are killed: introduction, payment, message, report | 0 settlements lost or made twice"
    );
}
