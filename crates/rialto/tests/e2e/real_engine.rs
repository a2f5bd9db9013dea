//! Settlement engines on the published `ilp-settlement-core`, processes of their own with a ledger on
//! disk: a node or an engine is killed at every step of opening, paying, exchanging and closing. Each
//! settlement is on the ledger once, and in the books of both nodes.

use std::{fs, net::SocketAddr, path::PathBuf, thread};

use serde_json::{Value, json};

use crate::{
    engine::listener,
    harness::{Folder, Node, Peer, call, wait_for},
    wire::Wire,
};

const TOKEN: &str = "a-token-that-nobody-can-guess";

/// Units of the accounts (scale 9) in one of the ledger (scale 6).
const LEDGER_UNIT: u64 = 1_000;

/// Sides, and engines of a side.
const A: usize = 0;
const B: usize = 1;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Node(usize),
    /// Of this side: the one that its account has, or the other.
    Engine(usize),
    Spare(usize),
}

/// When somebody is killed.
#[derive(Debug, Clone, Copy)]
enum When {
    /// A call, by its method and the end of its path, is on the wire; or its answer. It arrives all the
    /// same, or is lost.
    Passing {
        call: (&'static str, &'static str),
        from: Who,
        is_answer: bool,
        arrives: bool,
    },
    /// An engine has done a step of its own, and nothing after it.
    Done { engine: Who, step: &'static str },
}

type Point = (When, Vec<Who>);

/// All that can go wrong with a call and its answer: whoever sends is killed, before or after it is out,
/// or whoever it is for.
fn passing(caller: Who, call: (&'static str, &'static str), called: Who) -> Vec<Point> {
    let of = |is_answer, arrives, victim| {
        let when = When::Passing {
            call,
            from: if is_answer { called } else { caller },
            is_answer,
            arrives,
        };
        (when, vec![victim])
    };
    vec![
        of(false, false, caller),
        of(false, true, caller),
        of(false, false, called),
        of(true, false, called),
        of(true, true, called),
        of(true, false, caller),
    ]
}

/// The engine alone, and with its node.
fn done(engine: Who, node: Who, step: &'static str) -> Vec<Point> {
    let when = When::Done { engine, step };
    vec![(when, vec![engine]), (when, vec![engine, node])]
}

/// An engine: its store stays over restarts, its process is killed.
struct Engine {
    name: String,
    store: PathBuf,
    /// Where it reaches its node.
    connector: SocketAddr,
    port: u16,
    /// Where its node reaches it.
    url: String,
    process: Option<Peer>,
}

impl Engine {
    fn start(&mut self, ledger: &Folder) {
        let process = Peer::start(
            "settlement-engine.js",
            &[
                "--connector",
                &format!("http://{}", self.connector),
                "--ledger",
                ledger.path().to_str().unwrap(),
                "--name",
                &self.name,
                "--store",
                self.store.to_str().unwrap(),
                "--port",
                &self.port.to_string(),
                "--timeout",
                "600",
            ],
        );
        let port = process.ready["port"].as_u64().unwrap();
        self.port = port.try_into().unwrap();
        self.process = Some(process);
    }
}

/// A node, and two engines of which its account has one.
struct Side {
    name: &'static str,
    other: &'static str,
    node: Node,
    engines: [Engine; 2],
    current: usize,
    /// Accounts that it made. Engines know each by its number.
    accounts: usize,
    /// What it settled.
    paid: u64,
    settled: usize,
}

impl Side {
    fn start(index: usize, names: [&'static str; 2], wire: &Wire, ledger: &Folder) -> Self {
        let name = names[index];
        let settlement = "[settlement]\nlisten = \"127.0.0.1:0\"\n";
        let mut node = Node::start(name, &format!("test.{name}"), settlement);
        let to_node = listener(&node);
        // Engines are told once where the node is.
        let listen = (
            "RIALTO_SETTLEMENT__LISTEN".to_owned(),
            to_node.to_string().into(),
        );
        node.environment.push(listen);
        let engines = [0, 1].map(|which| {
            let name = format!("{name}-{which}");
            let mut engine = Engine {
                connector: wire.lay(number(index, which), index, to_node),
                store: ledger.path().join(format!("{name}.json")),
                name,
                port: 0,
                url: String::new(),
                process: None,
            };
            engine.start(ledger);
            let to = SocketAddr::from(([127, 0, 0, 1], engine.port));
            engine.url = format!("http://{}", wire.lay(index, number(index, which), to));
            engine
        });
        Self {
            name,
            other: names[1 - index],
            node,
            engines,
            current: 0,
            accounts: 0,
            paid: 0,
            settled: 0,
        }
    }

    fn path(&self) -> String {
        format!("/v1/accounts/{}", self.other)
    }

    fn engine(&self) -> Value {
        json!({"engine_url": self.engines[self.current].url})
    }

    /// The engine has an account for the present one.
    fn is_open(&self) -> bool {
        let accounts = fs::read(&self.engines[self.current].store).unwrap();
        let accounts: Value = serde_json::from_slice(&accounts).unwrap();
        accounts.get(self.accounts.to_string()).is_some()
    }

    /// What it settled less what is left with its engine, as the ledger has no finer units.
    fn on_ledger(&self) -> u64 {
        self.paid / LEDGER_UNIT * LEDGER_UNIT
    }
}

/// Of an engine on the wire; a node's is that of its side.
fn number(side: usize, which: usize) -> usize {
    2 + 2 * side + which
}

/// Two nodes over BTP, four engines, one ledger; everything between nodes and engines is on the wire.
struct Pair {
    sides: [Side; 2],
    /// Engines that live miss it, so it goes after them.
    ledger: Folder,
    wire: Wire,
    points: usize,
}

impl Pair {
    fn start() -> Self {
        let (ledger, wire) = (Folder::new("ledger"), Wire::default());
        let sides = [A, B].map(|index| Side::start(index, ["alice", "bob"], &wire, &ledger));
        let mut pair = Self {
            ledger,
            wire,
            sides,
            points: 0,
        };
        pair.account(B);
        pair.account(A);
        pair
    }

    /// Makes the account that a side has for the other.
    fn account(&mut self, index: usize) {
        self.sides[index].accounts += 1;
        let [a, b] = &self.sides;
        let side = &self.sides[index];
        let mut account = json!({
            "name": side.other, "relation": "peer", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": "-1000000000"}, "settlement": side.engine(),
        });
        match index {
            A => account["btp"] = json!({"url": b.node.btp_url(a.name), "token": TOKEN}),
            _ => account["incoming_token"] = json!(TOKEN),
        }
        side.node.account(account);
    }

    fn engine(&mut self, who: Who) -> &mut Engine {
        match who {
            Who::Engine(side) => {
                let side = &mut self.sides[side];
                &mut side.engines[side.current]
            }
            Who::Spare(side) => {
                let side = &mut self.sides[side];
                &mut side.engines[1 - side.current]
            }
            Who::Node(_) => panic!("a node is no engine"),
        }
    }

    fn number(&self, who: Who) -> usize {
        match who {
            Who::Node(side) => side,
            Who::Engine(side) => number(side, self.sides[side].current),
            Who::Spare(side) => number(side, 1 - self.sides[side].current),
        }
    }

    /// Does something, and kills somebody when it has come so far.
    fn kill_at<T>(&mut self, (when, victims): &Point, act: impl FnOnce(&mut Self) -> T) -> T {
        eprintln!("{when:?}: {victims:?}");
        let (done, arrives) = match *when {
            When::Passing {
                call: (method, end),
                from,
                is_answer,
                arrives,
            } => {
                let from = self.number(from);
                self.wire.arm(move |passing| {
                    let mut words = passing.request.split(' ');
                    let is_method = words.next() == Some(method);
                    let is_path = words.next().is_some_and(|path| path.ends_with(end));
                    let is_passing = (passing.from, passing.is_answer) == (from, is_answer);
                    is_passing && is_method && is_path
                });
                let done = act(self);
                self.wire.wait_held(&format!("{when:?}"));
                (done, arrives)
            }
            When::Done { engine, step } => {
                let store = self.engine(engine).store.to_str().unwrap().to_owned();
                fs::write(format!("{store}.hold"), step).unwrap();
                let done = act(self);
                wait_for(step, || fs::remove_file(format!("{store}.held")).ok());
                (done, false)
            }
        };
        // SIGKILL.
        for victim in victims {
            match *victim {
                Who::Node(side) => self.sides[side].node.kill(),
                Who::Engine(_) | Who::Spare(_) => drop(self.engine(*victim).process.take()),
            }
        }
        self.wire.cut(arrives);
        for victim in victims {
            match *victim {
                Who::Node(side) => self.sides[side].node.restart(),
                Who::Engine(side) => {
                    let side = &mut self.sides[side];
                    side.engines[side.current].start(&self.ledger);
                }
                Who::Spare(side) => {
                    let side = &mut self.sides[side];
                    side.engines[1 - side.current].start(&self.ledger);
                }
            }
        }
        self.points += 1;
        done
    }

    /// Settles, at a point or in peace. Asked again under the same key it is the same settlement.
    fn pay(&mut self, payer: usize, amount: u64, point: Option<&Point>) {
        let side = &mut self.sides[payer];
        side.settled += 1;
        side.paid += amount;
        let body = json!({"account": side.other, "amount": amount.to_string()});
        let key = format!("settlement-{}", side.settled);
        let ask = |pair: &mut Self| {
            let admin = pair.sides[payer].node.admin;
            let (status, made) = call(admin, "POST", "/v1/settlements", Some(&body), &key)?;
            assert!(matches!(status, 200 | 201), "{status} {made}");
            Some(made["id"].as_str().unwrap().to_owned())
        };
        let first = match point {
            Some(point) => self.kill_at(point, ask),
            None => ask(self),
        };
        let again = ask(self);
        assert!(again.is_some() && (first.is_none() || first == again));
        self.agree();
        wait_for("the engine's word", || {
            let path = format!("/v1/settlements/{}", again.as_ref()?);
            let found = self.sides[payer].node.ok("GET", &path, None);
            (found["state"] == "accepted").then_some(())
        });
    }

    /// Each settlement is one payment on the ledger, and what was paid there is in both books.
    fn agree(&self) {
        let [a, b] = &self.sides;
        let expected = [
            i128::from(b.on_ledger()) - i128::from(a.paid),
            i128::from(a.on_ledger()) - i128::from(b.paid),
        ];
        wait_for("both books to have it", || {
            let balances = [a, b].map(|side| side.node.balance(side.other));
            (balances == expected).then_some(())
        });
        for side in &self.sides {
            side.node.assert_books_add_up();
        }
        for (payer, payee) in [(a, b), (b, a)] {
            let payments = payee.engines.iter().flat_map(|engine| {
                let inbox = fs::read_dir(self.ledger.path().join(&engine.name)).unwrap();
                let files = inbox.map(|file| file.unwrap().path());
                files.filter(|file| file.extension().is_some_and(|end| end == "json"))
            });
            let payments: Vec<Value> = payments
                .map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap())
                .collect();
            let total: u64 = payments.iter().map(units).sum();
            assert_eq!(payments.len(), payer.settled, "payments of {}", payer.name);
            assert_eq!(total, payer.on_ledger(), "paid by {}", payer.name);
        }
    }

    /// A side has its other engine from now on.
    fn exchange(&mut self, index: usize, point: &Point) {
        let ask = |pair: &mut Self| {
            let side = &pair.sides[index];
            let new = json!({"settlement": {"engine_url": side.engines[1 - side.current].url}});
            call(side.node.admin, "PATCH", &side.path(), Some(&new), "")
        };
        assert!(self.sides[index].is_open());
        self.kill_at(point, ask);
        let (status, answer) = ask(self).expect("the node answers");
        assert_eq!(status, 200, "{answer}");
        self.wait_closed(index, point);
        let side = &mut self.sides[index];
        side.current = 1 - side.current;
    }

    /// The engine of a side closed an account. A node that was killed does not ask it again.
    fn wait_closed(&self, index: usize, (_, victims): &Point) {
        if !victims.contains(&Who::Node(index)) {
            let side = &self.sides[index];
            wait_for("the account to be closed", || {
                (!side.is_open()).then_some(())
            });
        }
    }

    /// A side deletes its account, and makes another one.
    fn delete(&mut self, index: usize, point: &Point) {
        let ask = |pair: &mut Self| {
            let side = &pair.sides[index];
            call(side.node.admin, "DELETE", &side.path(), None, "")
        };
        assert!(self.sides[index].is_open());
        self.kill_at(point, ask);
        let (status, answer) = ask(self).expect("the node answers");
        assert!(matches!(status, 204 | 404), "{status} {answer}");
        self.wait_closed(index, point);
        self.account(index);
    }
}

/// In units of the accounts.
fn units(payment: &Value) -> u64 {
    let amount = payment["amount"].as_str().unwrap();
    let (whole, part) = amount.split_once('.').unwrap_or((amount, ""));
    format!("{whole}{part:0<9}").parse().unwrap()
}

/// Opened with one engine, closed with another.
fn exchanges(index: usize) -> Vec<Point> {
    let (node, new, old) = (Who::Node(index), Who::Spare(index), Who::Engine(index));
    let (other_node, other) = (Who::Node(1 - index), Who::Engine(1 - index));
    let open = ("POST", "/accounts");
    let message = ("POST", "/messages");
    [
        passing(node, open, new),
        done(new, node, "opened"),
        passing(new, message, node),
        passing(other_node, message, other),
        done(other, other_node, "met"),
        done(new, node, "introduced"),
        passing(node, ("DELETE", ""), old),
        done(old, node, "closed"),
    ]
    .concat()
}

fn payments(payer: usize) -> Vec<Point> {
    let (node, engine) = (Who::Node(payer), Who::Engine(payer));
    let (payee, payee_engine) = (Who::Node(1 - payer), Who::Engine(1 - payer));
    let call = ("POST", "/settlements");
    [
        passing(node, call, engine),
        done(engine, node, "queued"),
        done(engine, node, "numbered"),
        done(engine, node, "paid"),
        done(engine, node, "settled"),
        done(payee_engine, payee, "seen"),
        passing(payee_engine, call, payee),
        done(payee_engine, payee, "credited"),
        done(payee_engine, payee, "noted"),
    ]
    .concat()
}

fn deletions(index: usize) -> Vec<Point> {
    let (node, engine) = (Who::Node(index), Who::Engine(index));
    let close = passing(node, ("DELETE", ""), engine);
    [close, done(engine, node, "closed")].concat()
}

/// Engines are exchanged, and paid with.
fn run_exchanges() -> usize {
    let mut pair = Pair::start();
    pair.pay(A, LEDGER_UNIT, None);
    for (round, point) in exchanges(A).iter().enumerate() {
        pair.exchange(A, point);
        let amount = (7 + round as u64) * LEDGER_UNIT;
        pair.pay(A, amount, None);
        // Now the other engine knows it, too.
        if round.is_multiple_of(4) {
            pair.pay(B, amount, None);
        }
    }
    pair.points
}

/// Settlements both ways; then accounts are deleted.
fn run_payments() -> usize {
    let mut pair = Pair::start();
    pair.pay(A, LEDGER_UNIT, None);
    for (round, point) in payments(A).iter().enumerate() {
        let payer = round % 2;
        let point = if payer == A {
            point
        } else {
            &payments(B)[round]
        };
        // Half a unit of the ledger remains with the engine every other time.
        let amount = (1_000 + 2 * round as u64) * LEDGER_UNIT + LEDGER_UNIT / 2;
        pair.pay(payer, amount, Some(point));
    }
    for payer in [A, B] {
        pair.pay(payer, LEDGER_UNIT / 2, None);
    }
    let [a, b] = &pair.sides;
    let (payer, owed) = match a.paid < b.paid {
        true => (A, b.paid - a.paid),
        false => (B, a.paid - b.paid),
    };
    pair.pay(payer, owed, None);
    for point in deletions(A) {
        pair.delete(A, &point);
        pair.pay(A, LEDGER_UNIT, None);
        pair.pay(B, LEDGER_UNIT, None);
    }
    pair.points
}

#[test]
fn whoever_is_killed_at_any_step_a_published_engine_settles_once() {
    let (exchanges, payments) = thread::scope(|scope| {
        let exchanges = scope.spawn(run_exchanges);
        let payments = scope.spawn(run_payments);
        let failed = "it says by itself what it failed at";
        (
            exchanges.join().expect(failed),
            payments.join().expect(failed),
        )
    });
    println!(
        "reliability: settlement kills, processes | {} points at which a node, an engine on ilp-settlement-core 0.1.1 or both are killed: {exchanges} of opening and exchanging, {payments} of paying and deleting | each settlement once on the engines' ledger, 0 units wrong in the books of both nodes",
        exchanges + payments
    );
}
