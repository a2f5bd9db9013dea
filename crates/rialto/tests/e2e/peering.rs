//! Peering by invitation between real nodes, and what is done to invitations on the way.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use crate::{
    harness::{CREDIT, Node, wait_for},
    raw::{self, Client},
    tls,
};

const INVITE_PATH: &str = "/.well-known/rialto/invite";

/// The program as the operator of a node runs it.
pub(crate) fn rialto(node: &Node, arguments: &[&str]) -> Output {
    command(node, arguments).output().unwrap()
}

fn command(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
    command
        .args(arguments)
        .env("RIALTO_CONFIG", node.folder().join("rialto.toml"))
        .env_remove("RIALTO_URL")
        .env_remove("RIALTO_TOKEN");
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What went wrong, in words.
pub(crate) fn failure(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A wallet that may spend, and a shop.
fn with_users(node: &Node) {
    for (name, credit) in [("wallet", CREDIT), ("shop", "0")] {
        node.account(json!({
            "name": name, "relation": "local", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": credit},
        }));
    }
}

fn invite(node: &Node, extra: &[&str]) -> String {
    let common = ["peer", "invite", "--asset", "USD/9", "--credit", "1000"];
    let printed = stdout(&rialto(node, &[&common, extra].concat()));
    assert_eq!(printed.lines().count(), 1, "{printed}");
    printed.trim().to_owned()
}

fn pays(from: &Node, to: &Node, key: &str) {
    let scheme = match to.folder().join("cert.pem").exists() {
        true => "https",
        false => "http",
    };
    let receiver = format!("{scheme}://{}/shop", to.node);
    let request = json!({"account": "wallet", "receiver": receiver, "amount": "1000"});
    let payment = from.pay(key, &request);
    assert_eq!(payment["state"], "completed", "{payment}");
    assert_eq!(payment["delivered"]["amount"], "1000");
}

fn wait_up(node: &Node, account: &str) {
    wait_for("the session", || {
        let account = node.ok("GET", &format!("/v1/accounts/{account}"), None);
        (account["link"] == "up").then_some(())
    });
}

/// How often invites were refused for this reason.
fn refused(node: &Node, reason: &str) -> u64 {
    let (_, page) = node.call("GET", "/metrics", None);
    let line = format!("rialto_invites_refused_total{{reason=\"{reason}\"}} ");
    let page = page.as_str().unwrap().to_owned();
    let found = page.lines().find_map(|found| found.strip_prefix(&line));
    found.unwrap().parse().unwrap()
}

pub(crate) fn account_names(node: &Node) -> Vec<String> {
    let accounts = node.ok("GET", "/v1/accounts", None);
    let accounts = accounts["accounts"].as_array().unwrap().iter();
    accounts
        .map(|account| account["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_invite_makes_both_accounts_and_money_moves_over_btp_and_over_http() {
    for link in ["btp", "http"] {
        let alice = Node::start("alice", "test.alice", "");
        let bob = Node::start("bob", "test.bob", "");
        with_users(&alice);
        with_users(&bob);
        let text = invite(&bob, &[]);
        stdout(&rialto(
            &alice,
            &["peer", "accept", &text, "--credit", "500", "--link", link],
        ));
        if link == "btp" {
            wait_up(&bob, "alice");
            wait_up(&alice, "bob");
        }
        pays(&alice, &bob, "there");
        pays(&bob, &alice, "back");
        pays(&alice, &bob, "there-again");
        assert_eq!(alice.balance("bob"), 1_000);
        assert_eq!(bob.balance("alice"), -1_000);

        let account = bob.ok("GET", "/v1/accounts/alice", None);
        assert_eq!(account["limits"]["balance_min"], "-1000000000000");
        assert_eq!(account["ilp_address"], "test.alice");
        assert_eq!(account["relation"], "peer");
        let account = alice.ok("GET", "/v1/accounts/bob", None);
        assert_eq!(account["limits"]["balance_min"], "-500000000000");
        let listed = bob.ok("GET", "/v1/invites", None);
        assert_eq!(listed["invites"][0]["state"], "used");
        assert_eq!(listed["invites"][0]["account"], "alice");

        // The same node asks again, as after a lost answer: nothing changes, nothing is refused.
        stdout(&rialto(&alice, &["peer", "accept", &text]));
        assert_eq!(account_names(&alice), ["wallet", "shop", "bob"]);
        assert_eq!(account_names(&bob), ["wallet", "shop", "alice"]);
        for node in [&alice, &bob] {
            assert!(!node.log().contains(&text), "the log tells the secret");
        }
    }
}

#[test]
fn invites_cross_tls() {
    let identity = tls::certificate("127.0.0.1");
    let bob = tls::bob_without_accounts(&identity);
    let (alice, _) = tls::alice(Some(&identity));
    bob.account(json!({
        "name": "shop", "relation": "local", "asset_code": "USD", "asset_scale": 9,
    }));
    let text = invite(&bob, &[]);
    stdout(&rialto(&alice, &["peer", "accept", &text]));
    wait_up(&alice, "bob");
    let account = alice.ok("GET", "/v1/accounts/bob", None);
    let url = account["btp"]["url"].as_str().unwrap();
    assert!(url.starts_with("btp+wss://"), "{url}");
    pays(&alice, &bob, "tls");

    // A node that does not trust the certificate says so, and the invite stays good.
    let text = invite(&bob, &[]);
    let (stranger, _) = tls::alice(None);
    let said = failure(&rialto(&stranger, &["peer", "accept", &text]));
    assert!(said.contains("certificate"), "{said}");
    assert!(said.contains("not used up"), "{said}");
    // bob takes packets over TLS, so he does not send them in clear.
    let said = failure(&rialto(
        &alice,
        &["peer", "accept", &text, "--name", "b", "--link", "http"],
    ));
    assert!(said.contains("address"), "{said}");
}

#[test]
fn an_accepted_invite_survives_a_kill_on_either_side() {
    let mut alice = Node::start("alice", "test.alice", "");
    let mut bob = Node::start("bob", "test.bob", "");
    with_users(&alice);
    with_users(&bob);
    let text = invite(&bob, &[]);
    bob.kill();
    bob.restart();
    stdout(&rialto(&alice, &["peer", "accept", &text]));
    alice.kill();
    bob.kill();
    bob.restart();
    alice.restart();
    wait_up(&alice, "bob");
    pays(&alice, &bob, "after");
    stdout(&rialto(&alice, &["peer", "accept", &text]));
    // Also from a checkpoint, which a planned end writes.
    assert_eq!(bob.terminate(), 0);
    bob.restart();
    let carol = Node::start("carol", "test.carol", "");
    assert_eq!(refused(&bob, "used"), 0);
    for tried in 1..=2_u64 {
        let said = failure(&rialto(&carol, &["peer", "accept", &text]));
        assert!(said.contains("used already"), "{said}");
        assert_eq!(refused(&bob, "used"), tried);
        wait_for("a line in the maker's log", || {
            let (log, words) = (bob.log(), "an invite was refused: ");
            let told = log.lines().filter(|line| line.contains(words));
            (u64::try_from(told.count()).unwrap() == tried).then_some(())
        });
    }
    assert_eq!(account_names(&bob), ["wallet", "shop", "alice"]);
    assert_eq!(account_names(&carol), [""; 0]);
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    let alice = Node::start("alice", "test.alice", "");
    let bob = Node::start("bob", "test.bob", "");
    with_users(&alice);
    with_users(&bob);
    // Alice reaches bob through somebody who swallows the first answer.
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = between.local_addr().unwrap();
    let to = bob.node;
    let relay = thread::spawn(move || {
        let (mut asker, _) = between.accept().unwrap();
        let mut node = TcpStream::connect(to).unwrap();
        let mut request = [0; 4_096];
        let read = asker.read(&mut request).unwrap();
        node.write_all(&request[..read]).unwrap();
        let answered = node.read(&mut request).unwrap();
        assert!(request[..answered].starts_with(b"HTTP/1.1 200"));
    });
    let text = invite_through(&bob, &address.to_string());
    let said = failure(&rialto(&alice, &["peer", "accept", &text]));
    assert!(said.contains("try again"), "{said}");
    relay.join().unwrap();
    assert_eq!(account_names(&alice), ["wallet", "shop"]);
    assert_eq!(account_names(&bob), ["wallet", "shop", "alice"]);

    // Another node with the same invite comes too late; alice does not.
    let relay = relay_to(&address.to_string(), bob.node, 2);
    let carol = Node::start("carol", "test.carol", "");
    let said = failure(&rialto(&carol, &["peer", "accept", &text]));
    assert!(said.contains("used already"), "{said}");
    stdout(&rialto(&alice, &["peer", "accept", &text, "--name", "hub"]));
    relay.join().unwrap();
    assert_eq!(account_names(&alice), ["wallet", "shop", "hub"]);
    assert_eq!(account_names(&bob), ["wallet", "shop", "alice"]);
}

#[test]
fn accepting_finishes_when_it_is_repeated_whoever_was_killed() {
    for (is_maker_killed, is_passed_on) in
        [(true, false), (true, true), (false, false), (false, true)]
    {
        let mut alice = Node::start("alice", "test.alice", "");
        let mut bob = Node::start("bob", "test.bob", "");
        with_users(&alice);
        with_users(&bob);
        let between = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = between.local_addr().unwrap().to_string();
        let text = invite_through(&bob, &address);
        let asking = command(&alice, &["peer", "accept", &text])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut asker, _) = between.accept().unwrap();
        let mut bytes = [0; 4_096];
        let read = asker.read(&mut bytes).unwrap();
        if is_passed_on {
            let mut node = TcpStream::connect(bob.node).unwrap();
            node.write_all(&bytes[..read]).unwrap();
            let answered = node.read(&mut bytes).unwrap();
            assert!(bytes[..answered].starts_with(b"HTTP/1.1 200"));
        }
        let victim = match is_maker_killed {
            true => &mut bob,
            false => &mut alice,
        };
        victim.kill();
        drop((asker, between));
        failure(&asking.wait_with_output().unwrap());
        victim.restart();
        let made: &[&str] = match is_passed_on {
            true => &["wallet", "shop", "alice"],
            false => &["wallet", "shop"],
        };
        assert_eq!(account_names(&bob), made, "on disk before it was answered");
        assert_eq!(account_names(&alice), ["wallet", "shop"]);

        // The invite's exchange, and then the session, as often as it is opened.
        drop(relay_to(&address, bob.node, 8));
        stdout(&rialto(&alice, &["peer", "accept", &text]));
        assert_eq!(account_names(&alice), ["wallet", "shop", "bob"]);
        assert_eq!(account_names(&bob), ["wallet", "shop", "alice"]);
        wait_up(&bob, "alice");
        pays(&alice, &bob, "k");
        alice.kill();
        alice.restart();
        stdout(&rialto(&alice, &["peer", "accept", &text]));
        assert_eq!(account_names(&alice), ["wallet", "shop", "bob"]);

        // Who is a peer already is not made one again.
        let another = invite(&bob, &[]);
        let said = failure(&rialto(&alice, &["peer", "accept", &another]));
        assert!(
            said.contains("under the address of another account"),
            "{said}"
        );
        assert_eq!(account_names(&bob), ["wallet", "shop", "alice"]);
    }
    println!(
        "reliability: invite | 4 SIGKILLs of either node between request and answer | 0 accounts lost or made twice"
    );
}

/// An invite of the node that names another endpoint.
fn invite_through(node: &Node, address: &str) -> String {
    let text = rialto_node::InviteText::decode(&invite(node, &[])).unwrap();
    let endpoint = format!("http://{address}");
    rialto_node::InviteText { endpoint, ..text }.encode()
}

/// Passes on so many connections.
fn relay_to(address: &str, to: std::net::SocketAddr, count: usize) -> thread::JoinHandle<()> {
    let between = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for _ in 0..count {
            let (mut asker, _) = between.accept().unwrap();
            let mut node = TcpStream::connect(to).unwrap();
            let (mut from_node, mut to_asker) =
                (node.try_clone().unwrap(), asker.try_clone().unwrap());
            let back = thread::spawn(move || {
                let _ = std::io::copy(&mut from_node, &mut to_asker);
            });
            let _ = std::io::copy(&mut asker, &mut node);
            let _ = node.shutdown(std::net::Shutdown::Both);
            back.join().unwrap();
        }
    })
}

#[test]
fn bad_invites_are_refused_counted_and_change_nothing() {
    let alice = Node::start("alice", "test.alice", "");
    let bob = Node::start("bob", "test.bob", "");
    with_users(&alice);
    with_users(&bob);
    let mut tried = 0;
    let mut refuses = |text: &str, counts_at: &Node, reason: &str, words: &str| {
        let before = refused(counts_at, reason);
        let said = failure(&rialto(&alice, &["peer", "accept", text]));
        assert!(said.contains(words), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(refused(counts_at, reason), before + 1, "{reason}");
        assert_eq!(account_names(&alice), ["wallet", "shop"]);
        assert_eq!(account_names(&bob), ["wallet", "shop"]);
        tried += 1;
    };
    let decode = |text: &str| rialto_node::InviteText::decode(text).unwrap();

    let text = invite(&bob, &[]);
    let cut = &text[..text.len() - 3];
    refuses(cut, &alice, "damaged", "is damaged or was changed");
    let swapped = text.replacen('A', "B", 1);
    assert_ne!(swapped, text);
    refuses(&swapped, &alice, "damaged", "is damaged or was changed");
    refuses("https://bob.example", &alice, "damaged", "is no invite");

    // Whoever can count can make the sum right again; the maker's own record decides.
    let richer = rialto_node::InviteText {
        asset: "EUR/2".parse().unwrap(),
        ..decode(&text)
    };
    refuses(&richer.encode(), &bob, "damaged", "USD/9, not EUR/2");
    let guessed = rialto_node::InviteText {
        secret: [7; 32],
        ..decode(&text)
    };
    refuses(&guessed.encode(), &bob, "unknown", "no such invite");

    let late = rialto_node::InviteText {
        expires_at_ms: 1,
        ..decode(&text)
    };
    refuses(&late.encode(), &alice, "expired", "has expired");
    let short = invite(&bob, &["--expires", "1s"]);
    wait_for("the end of a second", || {
        let listed = bob.ok("GET", "/v1/invites", None);
        let invites = listed["invites"].as_array().unwrap();
        invites
            .iter()
            .any(|invite| invite["state"] == "expired")
            .then_some(())
    });
    let believed = rialto_node::InviteText {
        expires_at_ms: i64::MAX,
        ..decode(&short)
    };
    refuses(&believed.encode(), &bob, "expired", "has expired");

    let revoked = invite(&bob, &["--name", "never"]);
    let listed = bob.ok("GET", "/v1/invites", None);
    let found = listed["invites"].as_array().unwrap().iter();
    let id = { found }
        .find(|invite| invite["account"] == "never")
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    stdout(&rialto(&bob, &["peer", "revoke", &id]));
    refuses(&revoked, &bob, "unknown", "no such invite");
    println!(
        "reliability: invite | {tried} invites tampered with, expired, revoked or guessed | 0 accounts made"
    );
}

#[test]
fn whoever_accepts_takes_nothing_that_is_others() {
    let bob = Node::start("bob", "test.bob", "");
    bob.account(json!({
        "name": "carol", "relation": "peer", "asset_code": "USD", "asset_scale": 9,
        "ilp_address": "test.carol",
    }));
    bob.ok(
        "PUT",
        "/v1/routes",
        Some(json!({"prefix": "test.far", "account": "carol"})),
    );
    let text = rialto_node::InviteText::decode(&invite(&bob, &[])).unwrap();
    let before = account_names(&bob);
    for (address, said) in [
        ("test.bob", "overlaps with this node's own"),
        ("test.bob.shop", "overlaps with this node's own"),
        ("test.carol", "under the address of another account"),
        ("test.carol.x", "under the address of another account"),
        ("test.far.x", "under a static route"),
        ("g.alice", "another network"),
        ("test", "needs at least one segment"),
        ("peer.config", "another network"),
    ] {
        let asked = request(address, "USD", json!(null));
        let (status, problem) = greet(&bob, &secret(&text), &asked);
        assert!(
            [409, 422].contains(&status),
            "{address}: {status} {problem}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{address}: {detail}");
    }
    for (secret, body, expected) in [
        ("", request("test.a", "USD", json!(null)), 401),
        ("x", request("test.a", "USD", json!(null)), 401),
        (secret(&text).as_str(), json!([]), 400),
        (
            secret(&text).as_str(),
            json!({"ilp_address": "test.a"}),
            400,
        ),
    ] {
        assert_eq!(greet(&bob, secret, &body).0, expected);
    }
    assert_eq!(account_names(&bob), before);
    // It was not used up by any of this. A name that is taken gets a number.
    let mut asked = request("test.another", "USD", json!(null));
    asked["name"] = "carol".into();
    let (status, answer) = greet(&bob, &secret(&text), &asked);
    assert_eq!((status, answer["account"].as_str()), (200, Some("carol-2")));
    // The same request is the same; another is not.
    assert_eq!(greet(&bob, &secret(&text), &asked).0, 200);
    asked["token"] = "another_token_of_sixteen".into();
    assert_eq!(greet(&bob, &secret(&text), &asked).0, 409);
    bob.ok("DELETE", "/v1/accounts/carol-2", None);
    asked["token"] = "token_of_sixteen_letters".into();
    assert_eq!(greet(&bob, &secret(&text), &asked).0, 409);
}

fn request(address: &str, code: &str, http: Value) -> Value {
    let mut request = json!({
        "ilp_address": address, "name": "alice", "asset_code": code, "asset_scale": 9,
        "token": "token_of_sixteen_letters",
    });
    if !http.is_null() {
        request["http"] = http;
    }
    request
}

fn secret(text: &rialto_node::InviteText) -> String {
    use base64::Engine;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text.secret)
}

/// One request to the node listener, with a secret of an invite.
fn greet(node: &Node, secret: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(node.node).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "POST {INVITE_PATH} HTTP/1.1\r\nHost: bob\r\nConnection: close\r\n\
         Authorization: Bearer {secret}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// An account is for a Rafiki node: at its pace, and without CCP.
pub(crate) fn assert_for_rafiki(account: &Value) {
    assert_eq!(
        account["limits"]["packets_out_per_second"], 150,
        "{account}"
    );
    let routes = &account["routes"];
    assert_eq!(
        (&routes["send"], &routes["receive"]),
        (&json!(false), &json!(false)),
        "{account}"
    );
}

/// A server that notes the body of each request and gives the same answer.
fn noting(answer: &'static str) -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (noted, notes) = mpsc::channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = Vec::new();
            let body = loop {
                let mut buffer = [0; 4_096];
                let read = socket.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request);
                let body = text.split_once("\r\n\r\n");
                if let Some(body) = body.and_then(|(_, body)| serde_json::from_str(body).ok()) {
                    break body;
                }
                assert!(read > 0, "the request is cut off: {text}");
            };
            noted.send(body).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.len()
            );
            let _ = socket.write_all(format!("{head}{answer}").as_bytes());
        }
    });
    (format!("http://{address}/"), notes)
}

#[test]
fn rafiki_is_asked_by_its_own_call() {
    let bob = Node::start("bob", "test.bob", "");
    let (url, notes) = noting(
        r#"{"staticIlpAddress":"test.rafiki","ilpConnectorUrl":"http://127.0.0.1:9/","httpToken":"5cd5436e-0b6d-4a2b-a0a3-e0a0eb2a4a3f","name":"Cloud Nine"}"#,
    );
    let auto = ["peer", "auto", &url, "--asset", "USD/2", "--credit", "10"];
    stdout(&rialto(&bob, &auto));
    let asked = notes.recv().unwrap();
    let token = asked["httpToken"].as_str().unwrap().to_owned();
    assert!(token.starts_with("rialto_peer_"), "{token}");
    let expected = json!({
        "staticIlpAddress": "test.bob",
        "ilpConnectorUrl": format!("http://{}/ilp", bob.node),
        "asset": {"code": "USD", "scale": 2},
        "httpToken": token,
        "name": "bob",
    });
    assert_eq!(asked, expected);
    let account = bob.ok("GET", "/v1/accounts/CloudNine", None);
    assert_eq!(account["ilp_address"], "test.rafiki");
    assert_eq!(account["http"]["url"], "http://127.0.0.1:9/");
    assert_eq!(account["limits"]["balance_min"], "-1000");
    assert_for_rafiki(&account);
    // What Rafiki will present opens the account.
    let mut caller = Client::new(bob.node, "/ilp", "5cd5436e-0b6d-4a2b-a0a3-e0a0eb2a4a3f");
    let packet = raw::prepare(raw::next_number(), 0, "test.nowhere.x", 20_000);
    assert!(caller.send(&packet).is_some());

    // An account that is there is never replaced, and nobody is asked.
    let named = [&auto[..], &["--name", "CloudNine"]].concat();
    let said = failure(&rialto(&bob, &named));
    assert!(
        said.contains("there is an account 'CloudNine' already"),
        "{said}"
    );
    assert!(notes.try_recv().is_err());
    let said = failure(&rialto(&bob, &auto));
    assert!(
        said.contains("under the address of another account"),
        "{said}"
    );
    for (answer, words) in [
        ("<html>", "is it Rafiki's auto-peering?"),
        (
            r#"{"staticIlpAddress":"test.bob.x","ilpConnectorUrl":"http://127.0.0.1:9/","httpToken":"5cd5436e-0b6d-4a2b-a0a3"}"#,
            "overlaps with this node's own",
        ),
        (
            r#"{"staticIlpAddress":"test.c","ilpConnectorUrl":"ftp://127.0.0.1:9/","httpToken":"5cd5436e-0b6d-4a2b-a0a3"}"#,
            "https://",
        ),
        (
            r#"{"staticIlpAddress":"test.c","ilpConnectorUrl":"http://127.0.0.1:9/","httpToken":"short"}"#,
            "16 to 512",
        ),
    ] {
        let (url, _notes) = noting(answer);
        let said = failure(&rialto(&bob, &["peer", "auto", &url, "--asset", "USD/2"]));
        assert!(said.contains(words), "{said}");
        assert_eq!(account_names(&bob), ["CloudNine"]);
    }
}

/// What Rafiki takes.
pub(crate) const RAFIKI: &str = include_str!("rafiki.json");

/// Whether a value is what a type of Rafiki's schema says; if not, where and why.
pub(crate) fn conforms(facts: &Value, wanted: &str, value: &Value, at: &str) -> Result<(), String> {
    if value.is_null() {
        return match wanted.ends_with('!') {
            true => Err(format!("{at} is missing: {wanted}")),
            false => Ok(()),
        };
    }
    let wanted = wanted.trim_end_matches('!');
    if let Some(of) = wanted.strip_prefix('[').and_then(|of| of.strip_suffix(']')) {
        let values = value.as_array().ok_or(format!("{at} is no list"))?;
        return values
            .iter()
            .try_for_each(|value| conforms(facts, of, value, at));
    }
    // Numbers of 64 bits come as text, which JSON carries exactly.
    let is_right = match wanted {
        "String" => value.is_string(),
        "Number" => value.is_number(),
        "UInt8" => value.as_u64().is_some_and(|number| number <= 255),
        "UInt64" => value
            .as_str()
            .is_some_and(|text| text.parse::<u64>().is_ok()),
        input => {
            let fields = facts["inputs"][input].as_object().unwrap();
            let given = value.as_object().ok_or(format!("{at} is no object"))?;
            if let Some(name) = given.keys().find(|name| !fields.contains_key(*name)) {
                return Err(format!("{at} has no field {name}"));
            }
            return fields.iter().try_for_each(|(name, wanted)| {
                let (wanted, at) = (wanted.as_str().unwrap(), format!("{at}.{name}"));
                conforms(facts, wanted, &value[name], &at)
            });
        }
    };
    is_right.then_some(()).ok_or(format!("{at} is no {wanted}"))
}

/// Whether a request is a call of Rafiki's mutation by its name, argument and types, that asks for what
/// its result has.
fn assert_creates_peer(facts: &Value, request: &Value) {
    let mutation = &facts["mutation"];
    let of = |key: &str| mutation[key].as_str().unwrap();
    let (name, argument, input) = (of("name"), of("argument"), of("type"));
    let words = |text: &str| text.replace(char::is_whitespace, "");
    let query = words(request["query"].as_str().unwrap());
    let (head, body) = query.split_once('{').unwrap();
    assert!(head.ends_with(&format!("(${argument}:{input})")), "{query}");
    let call = format!("{name}({argument}:${argument})");
    let selected = body.strip_prefix(&call).unwrap();
    let selected: Vec<&str> = selected
        .split(['{', '}'])
        .filter(|part| !part.is_empty())
        .collect();
    let mut result = of("result").trim_end_matches('!');
    for field in selected {
        let known = facts["results"][result][field].as_str();
        result = known
            .unwrap_or_else(|| panic!("{result} has no {field}: {query}"))
            .trim_end_matches('!');
    }
    assert_eq!(result, "ID", "{query}");
    let variables = request["variables"].as_object().unwrap();
    assert_eq!(variables.keys().collect::<Vec<_>>(), [argument]);
    conforms(facts, input, &variables[argument], argument).unwrap();
}

#[test]
fn what_rafiki_is_sent_is_what_it_takes() {
    let facts: Value = serde_json::from_str(RAFIKI).unwrap();
    let bob = Node::start("bob", "test.bob", "");
    for (name, more) in [
        ("one", &[][..]),
        ("two", &["--packet-max", "184467440737095516.15"]),
    ] {
        let address = format!("test.{name}");
        let command = [
            "peer",
            "invite",
            "--for",
            "rafiki",
            "--asset",
            "USD/2",
            "--credit",
            "10",
            "--name",
            name,
            "--ilp-address",
            &address,
            "--http-url",
            "http://127.0.0.1:9/",
        ];
        let printed = stdout(&rialto(&bob, &[&command, more].concat()));
        let request: Value = serde_json::from_str(&printed).unwrap();
        assert_creates_peer(&facts, &request);
        // And the check is one.
        let input = &request["variables"]["input"];
        let mut broken = Vec::new();
        for field in ["staticIlpAddress", "assetId", "http"] {
            let mut without = input.clone();
            without.as_object_mut().unwrap().remove(field);
            broken.push(without);
        }
        for (pointer, value) in [
            ("/http/incoming/authTokens", json!("text")),
            ("/http/incoming/authTokens/0", json!(null)),
            ("/http/outgoing/authToken", json!(null)),
            ("/http/outgoing/endpoint", json!(7)),
            ("/name", json!({})),
        ] {
            let mut other = input.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            broken.push(other);
        }
        for (field, value) in [
            ("maxPacketAmount", json!("-1")),
            ("limits", json!([])),
            ("routes", json!([7])),
        ] {
            let mut more = input.clone();
            more[field] = value;
            broken.push(more);
        }
        for input in broken {
            assert!(
                conforms(&facts, "CreatePeerInput!", &input, "").is_err(),
                "{input}"
            );
        }
    }
    // The auto-peering call, as a client.
    let (url, notes) = noting(
        r#"{"staticIlpAddress":"test.rafiki","ilpConnectorUrl":"http://127.0.0.1:9/","httpToken":"5cd5436e-0b6d-4a2b-a0a3-e0a0eb2a4a3f","name":"Cloud Nine","tenantId":"cf5fd7d3-1eb1-4041-8e43-ba45747e9e5d"}"#,
    );
    stdout(&rialto(
        &bob,
        &["peer", "auto", &url, "--asset", "USD/2", "--credit", "10"],
    ));
    let asked = notes.recv().unwrap();
    conforms(&facts, "AutoPeering!", &asked, "").unwrap();
    println!(
        "reliability: rafiki | 2 createPeer mutations and an auto-peering call against the facts of its schema | 22 broken ones told apart"
    );
}

/// The mutation in the book, as far as it is told there.
#[test]
fn the_book_names_the_fields_of_rafiki_as_they_are() {
    let facts: Value = serde_json::from_str(RAFIKI).unwrap();
    let page = include_str!("../../../../docs/operate/peering.md");
    let (_, section) = page.split_once("## Rafiki\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    assert!(section.contains(facts["mutation"]["name"].as_str().unwrap()));
    for (input, paths) in [
        (
            "CreatePeerInput",
            &["staticIlpAddress", "name", "maxPacketAmount"][..],
        ),
        ("HttpIncomingInput", &["http.incoming.authTokens"]),
        (
            "HttpOutgoingInput",
            &["http.outgoing.endpoint", "authToken"],
        ),
    ] {
        for path in paths {
            assert!(section.contains(&format!("`{path}`")), "{path}");
            let field = path.rsplit('.').next().unwrap();
            assert!(facts["inputs"][input][field].is_string(), "{path}");
        }
    }
}

#[test]
fn the_request_for_rafikis_operator_fits_the_account() {
    let bob = Node::start("bob", "test.bob", "");
    let printed = stdout(&rialto(
        &bob,
        &[
            "peer",
            "invite",
            "--for",
            "rafiki",
            "--asset",
            "USD/2",
            "--credit",
            "10",
            "--packet-max",
            "5",
            "--name",
            "rafiki",
            "--ilp-address",
            "test.rafiki",
            "--http-url",
            "http://127.0.0.1:9/",
        ],
    ));
    let request: Value = serde_json::from_str(&printed).unwrap();
    let query = request["query"].as_str().unwrap();
    assert!(
        query.starts_with("mutation CreatePeer($input: CreatePeerInput!)"),
        "{query}"
    );
    let input = &request["variables"]["input"];
    let incoming = input["http"]["outgoing"]["authToken"].as_str().unwrap();
    let outgoing = input["http"]["incoming"]["authTokens"][0].as_str().unwrap();
    let expected = json!({
        "staticIlpAddress": "test.bob",
        "assetId": "ASSET_ID",
        "name": "bob",
        "maxPacketAmount": "500",
        "http": {
            "incoming": {"authTokens": [outgoing]},
            "outgoing": {"endpoint": bob.ilp_url("rafiki"), "authToken": incoming},
        },
    });
    assert_eq!(*input, expected);
    assert_for_rafiki(&bob.ok("GET", "/v1/accounts/rafiki", None));
    // Rafiki sends to that endpoint with that token.
    let mut caller = Client::new(bob.node, "/accounts/rafiki/ilp", incoming);
    let packet = raw::prepare(raw::next_number(), 0, "test.nowhere.x", 20_000);
    assert!(caller.send(&packet).is_some());
    assert_ne!(incoming, outgoing);

    // The account alone, and one that had no profile; another pace is kept.
    let create = ["account", "create", "by-hand", "--relation", "peer"];
    let create = [&create[..], &["--asset", "USD/2", "--profile", "rafiki"]].concat();
    stdout(&rialto(&bob, &create));
    assert_for_rafiki(&bob.ok("GET", "/v1/accounts/by-hand", None));
    let plain = ["account", "create", "plain", "--relation", "peer"];
    stdout(&rialto(&bob, &[&plain[..], &["--asset", "USD/2"]].concat()));
    let update = ["account", "update", "plain", "--profile", "rafiki"];
    stdout(&rialto(&bob, &update));
    assert_for_rafiki(&bob.ok("GET", "/v1/accounts/plain", None));
    let slower = ["--packets-out-per-second", "20"];
    stdout(&rialto(&bob, &[&update[..], &slower].concat()));
    let account = bob.ok("GET", "/v1/accounts/plain", None);
    assert_eq!(account["limits"]["packets_out_per_second"], 20);
}
