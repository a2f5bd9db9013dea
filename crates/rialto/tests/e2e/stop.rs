//! SIGTERM while answers are on their way out: to a client that reads slowly, and to a callback URL
//! where nobody is at first.

use std::{
    io::Write,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rialto_packet::{FulfillBuilder, Prepare, Reply};
use serde_json::json;

use crate::{
    harness::{CREDIT, Node, wait_for},
    raw::{self, Btp, OCTETS, Server},
};

/// Packets, each with an answer of [`DATA_LEN`] bytes: more than the sockets hold.
const PACKETS: u32 = 200;
const DATA_LEN: usize = 30_000;

/// A node that passes packets of `alice` to a neighbour whose answers are large, with `http` as the
/// link of `alice`.
fn hub(http: Option<&str>) -> (Node, Server) {
    let server = Server::start(|packet| {
        let prepare = Prepare::parse(packet).unwrap();
        let fulfill = FulfillBuilder {
            fulfillment: prepare.data()[..32].try_into().unwrap(),
            data: &[7; DATA_LEN],
        };
        Some((200, OCTETS, fulfill.encode().unwrap()))
    });
    let hub = Node::start("hub", "test.hub", "");
    let mut alice = json!({
        "name": "alice", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT}, "incoming_token": "token-from-alice-to-hub",
    });
    if let Some(url) = http {
        alice["http"] = json!({"url": url, "token": "token-from-hub-to-alice"});
    }
    hub.account(alice);
    hub.account(json!({
        "name": "bob", "relation": "child", "asset_code": "USD", "asset_scale": 9,
        "http": {"url": format!("http://{}/ilp", server.address), "token": "t"},
    }));
    (hub, server)
}

/// Sends all packets, and reads nothing. Everything is answered when this returns.
fn send_and_do_not_read(hub: &Node) -> Btp {
    let mut alice = Btp::connect(hub.node, "alice", "token-from-alice-to-hub");
    for number in 0..PACKETS {
        alice.write_prepare(&raw::prepare(number.into(), 1, "test.hub.bob.x", 30_000));
    }
    wait_for("all packets in the books", || {
        (hub.balance("alice") == -i128::from(PACKETS)).then_some(())
    });
    alice
}

/// Waits until nothing but answers keeps the node.
fn wait_drained(hub: &Node) {
    let endpoints = hub.folder().join("data/endpoints.json");
    wait_for("the end of the drain", || {
        (!endpoints.exists()).then_some(())
    });
}

#[test]
fn a_client_that_reads_slowly_gets_every_answer() {
    let (mut hub, _server) = hub(None);
    let mut alice = send_and_do_not_read(&hub);
    hub.signal("TERM");
    wait_drained(&hub);
    thread::sleep(Duration::from_secs(1)); // so slow it is
    let replies = alice.receive(PACKETS as usize);
    assert_eq!(replies.len(), PACKETS as usize);
    assert!(
        replies
            .iter()
            .all(|reply| matches!(reply, Reply::Fulfill(_)))
    );
    drop(alice);
    assert_eq!(hub.wait(), 0);
    hub.restart();
    assert_eq!(hub.balance("alice"), -i128::from(PACKETS));
}

#[test]
fn whoever_is_told_twice_waits_for_no_client() {
    let (mut hub, _server) = hub(None);
    let alice = send_and_do_not_read(&hub);
    hub.signal("TERM");
    wait_drained(&hub);
    let told = Instant::now();
    assert_eq!(hub.terminate(), 0);
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
    assert!(hub.log().contains("were cut off"), "{}", hub.log());
    drop(alice);
}

#[test]
fn an_answer_to_a_callback_url_where_nobody_is_at_first_arrives() {
    let (attempts, is_there) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let taken = Arc::new(AtomicBool::new(false));
    let (counted, there, took) = (
        Arc::clone(&attempts),
        Arc::clone(&is_there),
        Arc::clone(&taken),
    );
    let callbacks = Server::start(move |packet| {
        assert!(matches!(Reply::parse(packet), Ok(Reply::Fulfill(_))));
        counted.fetch_add(1, Ordering::Relaxed);
        if !there.load(Ordering::Relaxed) {
            return Some((503, OCTETS, Vec::new()));
        }
        took.store(true, Ordering::Relaxed);
        Some((200, OCTETS, Vec::new()))
    });
    let url = format!("http://{}/ilp", callbacks.address);
    let (mut hub, _server) = hub(Some(&url));
    let packet = raw::prepare(1, 5, "test.hub.bob.x", 30_000);
    let mut stream = TcpStream::connect(hub.node).unwrap();
    write!(
        stream,
        "POST /accounts/alice/ilp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer token-from-alice-to-hub\r\nContent-Length: {}\r\n\
         Request-Id: 0af7651c-16cd-43dd-8448-eb211c80319c\r\n\
         Callback-Url: http://{}/callback\r\n\r\n",
        packet.len(),
        callbacks.address
    )
    .unwrap();
    stream.write_all(&packet).unwrap();
    wait_for("the first attempt", || {
        (attempts.load(Ordering::Relaxed) > 0).then_some(())
    });
    hub.signal("TERM");
    wait_drained(&hub);
    is_there.store(true, Ordering::Relaxed);
    assert_eq!(hub.wait(), 0);
    assert!(taken.load(Ordering::Relaxed), "it was dropped");
    assert!(!hub.log().contains("were cut off"), "{}", hub.log());
    drop(stream);
}
