//! Answers that come in requests of their own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rialto_connector::{Action, Input, LinkFailure, LinkId, Paid, RequestId};
use rialto_ledger::AccountId;
use rialto_links::{Account, CALLBACK_MARGIN, CallbackRefusal, HttpPeer};
use rialto_packet::{Address, FulfillBuilder, Prepare, PrepareBuilder, Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{ALICE, BOB, Node, account, exchange, read_message, run, to_http, until};

const HUB: LinkId = LinkId::Http(ALICE);
const ID: &str = "0af7651c-16cd-43dd-8448-eb211c80319c";

/// A whole Prepare that lives for ten seconds.
fn prepare(amount: u64) -> &'static [u8] {
    prepare_for(10_000, amount)
}

fn prepare_for(life_ms: i64, amount: u64) -> &'static [u8] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp::from_unix_ms(i64::try_from(now.as_millis()).unwrap());
    let destination: Address = "test.x".parse().unwrap();
    let packet = PrepareBuilder {
        amount,
        expires_at: now.plus_ms(life_ms),
        condition: [1; 32],
        destination: destination.as_ref(),
        data: &[],
    };
    packet.encode().unwrap().leak()
}

fn fulfill() -> &'static [u8] {
    let packet = FulfillBuilder {
        fulfillment: [2; 32],
        data: b"done",
    };
    packet.encode().unwrap().leak()
}

/// The account `name` with token `token`, whose packets go to `url`, and whose answers are asked to go
/// to `callback`.
fn peer(id: AccountId, name: &str, token: &str, url: &str, callback: &str) -> Account {
    let peer = HttpPeer::new(url, "out").unwrap();
    let peer = match callback {
        "" => peer,
        callback => peer.with_callback(callback).unwrap(),
    };
    to_http(account(id, name, token), peer)
}

/// Posts a packet on a connection of its own; the answer.
async fn post(node: &Node, path: &str, token: &str, headers: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    exchange(&mut stream, &[head.as_bytes(), body].concat()).await
}

/// The value of a header in a request of ours.
fn header(request: &str, name: &str) -> String {
    let start = request.find(&format!("\r\n{name}: ")).expect(name) + name.len() + 4;
    request[start..].lines().next().unwrap().to_owned()
}

#[test]
fn packets_and_answers_go_their_own_ways_between_nodes() {
    run(async {
        for scheme in ["http", "h2c"] {
            let (node, hub) = (Node::new([]).await, Node::new([]).await);
            let url = |address, path: &str| format!("{scheme}://{address}{path}");
            let callback = format!("http://{}/accounts/hub/ilp/callback", node.address);
            let to_hub = url(hub.address, "/ilp");
            node.set_accounts([peer(ALICE, "hub", "out", &to_hub, &callback)]);
            hub.set_accounts([peer(BOB, "node", "out", &url(node.address, "/ilp"), "")]);
            for number in 1..4 {
                node.forward(HUB, number, prepare(number));
                let (account, link, request, packet) = hub.prepare().await;
                let prepare = Prepare::parse(&packet[..]).unwrap();
                assert_eq!((account, prepare.amount()), (BOB, number));
                hub.answer(link, request, fulfill());
                let (from, request, packet) = node.reply().await;
                assert_eq!((from, request), (HUB, RequestId(number)), "{scheme}");
                assert_eq!(&packet[..], fulfill());
            }
            for why in CallbackRefusal::ALL {
                assert_eq!(node.callbacks.refused(why), 0, "{why:?}");
                assert_eq!(hub.callbacks.refused(why), 0, "{why:?}");
            }
        }
    });
}

#[test]
fn the_first_answer_of_the_right_account_counts() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ilp", listener.local_addr().unwrap());
        let node = Node::new([]).await;
        let callback = "http://node.example/accounts/hub/ilp/callback";
        node.set_accounts([
            peer(ALICE, "hub", "a", &url, callback),
            account(BOB, "bob", "b"),
        ]);
        node.forward(HUB, 1, prepare(1));
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let len = stream.read(&mut bytes).await.unwrap();
        let request = String::from_utf8_lossy(&bytes[..len]).into_owned();
        assert_eq!(header(&request, "callback-url"), callback);
        let id = header(&request, "request-id");
        let named = |id: &str| format!("request-id: {id}\r\n");
        let path = "/accounts/hub/ilp/callback";
        for (path, token, headers, body, answer) in [
            (path, "wrong", named(&id), fulfill(), " 401 "),
            (path, "b", named(&id), fulfill(), " 401 "),
            ("/ilp/callback", "b", named(&id), fulfill(), " 400 "),
            (path, "a", named(ID), fulfill(), " 400 "),
            (path, "a", named("x"), fulfill(), " 400 "),
            (path, "a", String::new(), fulfill(), " 400 "),
            (path, "a", named(&id), b"\x0dx", " 400 "),
            (path, "a", named(&id), prepare(1), " 400 "),
            // It comes before the 202.
            (path, "a", named(&id), fulfill(), " 200 "),
            (path, "a", named(&id), fulfill(), " 400 "),
        ] {
            let answered = post(&node, path, token, &headers, body).await;
            assert!(answered.contains(answer), "{headers}: {answered}");
        }
        assert_eq!(node.reply().await.1, RequestId(1));
        let accepted = b"HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(accepted).await.unwrap();
        for (why, count) in [
            (CallbackRefusal::Unknown, 2),
            (CallbackRefusal::Id, 2),
            (CallbackRefusal::Reply, 2),
            (CallbackRefusal::Duplicate, 1),
        ] {
            assert_eq!(node.callbacks.refused(why), count, "{why:?}");
        }
        // A peer that knows no callbacks answers at once, and that answer counts.
        node.forward(HUB, 2, prepare(2));
        let (mut stream, _) = listener.accept().await.unwrap();
        let len = stream.read(&mut bytes).await.unwrap();
        let request = String::from_utf8_lossy(&bytes[..len]).into_owned();
        assert_ne!(header(&request, "request-id"), id);
        stream.write_all(&reply(fulfill())).await.unwrap();
        let (link, request, packet) = node.reply().await;
        assert_eq!((link, request, &packet[..]), (HUB, RequestId(2), fulfill()));
        // Nor is a packet that was refused answered once more.
        node.forward(HUB, 3, prepare(3));
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut bytes).await.unwrap(), 0);
        stream
            .write_all(b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(
            node.failed().await,
            (HUB, RequestId(3), LinkFailure::Http(503))
        );
    });
}

#[test]
fn an_answer_is_delivered_until_it_is_taken() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Node::new([]).await;
        node.set_accounts([
            peer(ALICE, "hub", "a", &format!("http://{address}/ilp"), ""),
            account(BOB, "bob", "b"),
        ]);
        let asks = |id: &str, to: &str| format!("request-id: {id}\r\ncallback-url: {to}\r\n");
        let own = format!("http://{address}/cb?for=me");
        let packet = prepare(1);
        for (headers, body, answer) in [
            (asks("x", &own), packet, " 400 "),
            (asks(ID, "http://127.0.0.1:1/cb"), packet, " 400 "),
            (asks(ID, &own), b"\x0cx", " 400 "),
            (asks(ID, &own), packet, " 202 "),
            (asks(ID, &own), packet, " 202 "),
            (asks(ID, &own), prepare(2), " 400 "),
        ] {
            let answered = post(&node, "/ilp", "a", &headers, body).await;
            assert!(answered.contains(answer), "{headers}: {answered}");
        }
        for why in [
            CallbackRefusal::Id,
            CallbackRefusal::Url,
            CallbackRefusal::Prepare,
            CallbackRefusal::Reused,
        ] {
            assert_eq!(node.callbacks.refused(why), 1, "{why:?}");
        }
        let (account, link, request, came) = node.prepare().await;
        assert_eq!((account, &came[..]), (ALICE, packet));
        let paid = Some(Paid {
            account: ALICE,
            amount: 5,
        });
        let answer = |link, request| {
            let packet = Bytes::from_static(fulfill());
            node.worker.perform(Action::Answer {
                link,
                request,
                packet,
                paid,
            });
        };
        answer(link, request);
        // Each time the same, until it is taken.
        for status in ["500 x", "503 x", "200 OK"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let delivered = read_message_lossy(&mut stream).await;
            assert!(
                delivered.starts_with("POST /cb?for=me HTTP/1.1\r\n"),
                "{delivered}"
            );
            assert_eq!(header(&delivered, "request-id"), ID);
            assert_eq!(header(&delivered, "authorization"), "Bearer out");
            assert_eq!(
                header(&delivered, "content-type"),
                "application/octet-stream"
            );
            assert!(delivered.ends_with("done"), "{delivered}");
            let response =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(response.as_bytes()).await.unwrap();
        }
        // Who asks again is told again, and nothing is forwarded: the next packet is another one.
        let answered = post(&node, "/ilp", "a", &asks(ID, &own), packet).await;
        assert!(answered.contains(" 202 "), "{answered}");
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(read_message_lossy(&mut stream).await.ends_with("done"));
        let taken = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(taken).await.unwrap();
        // A Fulfill that the peer refuses is lost, and counted.
        let other = ID.replace('0', "1");
        let answered = post(&node, "/ilp", "a", &asks(&other, &own), packet).await;
        assert!(answered.contains(" 202 "), "{answered}");
        let (_, link, request, _) = node.prepare().await;
        answer(link, request);
        let (mut stream, _) = listener.accept().await.unwrap();
        read_message_lossy(&mut stream).await;
        let refused = b"HTTP/1.1 404 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(refused).await.unwrap();
        let Input::Undelivered(lost) = node.input().await else {
            panic!("it is not counted")
        };
        assert_eq!(Some(lost), paid);
        // Who has no URL of its own is answered at once.
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let head = format!(
            "POST /ilp HTTP/1.1\r\nhost: h\r\nauthorization: Bearer b\r\n{}content-length: {}\r\n\r\n",
            asks(ID, &own),
            packet.len()
        );
        stream
            .write_all(&[head.as_bytes(), packet].concat())
            .await
            .unwrap();
        let (account, link, request, _) = node.prepare().await;
        assert_eq!(account, BOB);
        node.answer(link, request, b"\x0dx");
        let answered = read_message(&mut stream).await;
        assert!(
            answered.contains(" 200 ") && answered.ends_with("\x0dx"),
            "{answered}"
        );
    });
}

/// A node whose core has answered a packet in callback mode; the listener is where the answer goes.
async fn answered(id: &str) -> (Node, TcpListener, Option<Paid>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let node = Node::new([]).await;
    let url = format!("http://{address}/ilp");
    node.set_accounts([peer(ALICE, "hub", "a", &url, "")]);
    let headers = format!("request-id: {id}\r\ncallback-url: http://{address}/cb\r\n");
    let accepted = post(&node, "/ilp", "a", &headers, prepare(1)).await;
    assert!(accepted.contains(" 202 "), "{accepted}");
    let (_, link, request, _) = node.prepare().await;
    let paid = Some(Paid {
        account: ALICE,
        amount: 5,
    });
    node.worker.perform(Action::Answer {
        link,
        request,
        packet: Bytes::from_static(fulfill()),
        paid,
    });
    (node, listener, paid)
}

/// The next attempt to deliver the answer, and what comes back for it.
async fn attempt(listener: &TcpListener, response: &str) {
    let (mut stream, _) = listener.accept().await.unwrap();
    read_message_lossy(&mut stream).await;
    stream.write_all(response.as_bytes()).await.unwrap();
}

/// A packet as the answer to a request, on a connection that ends with it.
fn reply(packet: &[u8]) -> Vec<u8> {
    let len = packet.len();
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n");
    [head.as_bytes(), packet].concat()
}

/// Answers the next packet at once.
async fn attempt_reply(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
    stream.write_all(&reply(fulfill())).await.unwrap();
}

const UNKNOWN: &str = "HTTP/1.1 400 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[test]
fn whoever_may_have_the_answer_and_does_not_know_the_packet_has_it() {
    run(async {
        // It took the answer, and its own was lost: the second one is a duplicate to it.
        let (node, listener, _) = answered(ID).await;
        attempt(&listener, "").await;
        attempt(&listener, UNKNOWN).await;
        until(|| node.worker.unfinished_count() == 0).await;
        // Nothing was lost: what comes next is the next packet.
        node.forward(HUB, 7, prepare(3));
        attempt_reply(&listener).await;
        assert_eq!(node.reply().await.1, RequestId(7));
        // At the first attempt it is a refusal.
        let (node, listener, paid) = answered(ID).await;
        attempt(&listener, UNKNOWN).await;
        let Input::Undelivered(lost) = node.input().await else {
            panic!("it is not counted")
        };
        assert_eq!(Some(lost), paid);
    });
}

#[test]
fn an_answer_to_an_account_that_has_no_url_any_more_is_lost_and_counted() {
    run(async {
        let (node, listener, paid) = answered(ID).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        read_message_lossy(&mut stream).await;
        node.set_accounts([account(ALICE, "hub", "a")]);
        let unavailable = b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(unavailable).await.unwrap();
        let Input::Undelivered(lost) = node.input().await else {
            panic!("it is not counted")
        };
        assert_eq!(Some(lost), paid);
    });
}

#[test]
fn an_answer_given_at_once_after_one_by_callback_counts_for_nothing() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ilp", listener.local_addr().unwrap());
        let node = Node::new([]).await;
        let callback = "http://node.example/accounts/hub/ilp/callback";
        node.set_accounts([peer(ALICE, "hub", "a", &url, callback)]);
        node.forward(HUB, 1, prepare(1));
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let len = stream.read(&mut bytes).await.unwrap();
        let request = String::from_utf8_lossy(&bytes[..len]).into_owned();
        let named = format!("request-id: {}\r\n", header(&request, "request-id"));
        let path = "/accounts/hub/ilp/callback";
        let taken = post(&node, path, "a", &named, fulfill()).await;
        assert!(taken.contains(" 200 "), "{taken}");
        assert_eq!(node.reply().await.1, RequestId(1));
        stream.write_all(&reply(fulfill())).await.unwrap();
        // The next answer is that of the next packet.
        node.forward(HUB, 2, prepare(2));
        attempt_reply(&listener).await;
        assert_eq!(node.reply().await.1, RequestId(2));
    });
}

#[test]
fn an_answer_that_nobody_takes_is_given_up_when_its_time_is_over() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Node::new([]).await;
        let url = format!("http://{address}/ilp");
        node.set_accounts([peer(ALICE, "hub", "a", &url, "")]);
        let headers = format!("request-id: {ID}\r\ncallback-url: http://{address}/cb\r\n");
        let begun = Instant::now();
        let answered = post(&node, "/ilp", "a", &headers, prepare_for(500, 1)).await;
        assert!(answered.contains(" 202 "), "{answered}");
        let (_, link, request, _) = node.prepare().await;
        let paid = Some(Paid {
            account: ALICE,
            amount: 5,
        });
        node.worker.perform(Action::Answer {
            link,
            request,
            packet: Bytes::from_static(fulfill()),
            paid,
        });
        let unavailable = b"HTTP/1.1 503 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let mut attempts = Vec::new();
        let lost = loop {
            tokio::select! {
                input = node.input() => {
                    let Input::Undelivered(lost) = input else {
                        panic!("{input:?}")
                    };
                    break lost;
                }
                accepted = listener.accept() => {
                    let (mut stream, _) = accepted.unwrap();
                    read_message_lossy(&mut stream).await;
                    stream.write_all(unavailable).await.unwrap();
                    attempts.push(begun.elapsed());
                    assert_eq!(node.worker.unfinished_count(), 1);
                }
            }
        };
        assert_eq!(Some(lost), paid);
        assert!(
            begun.elapsed() >= CALLBACK_MARGIN,
            "before its time is over"
        );
        assert!(attempts.last().unwrap() < &(CALLBACK_MARGIN + Duration::from_millis(500)));
        // Ever more slowly, and not too slowly.
        let pauses: Vec<_> = attempts.windows(2).map(|two| two[1] - two[0]).collect();
        assert!((5..=8).contains(&attempts.len()), "{pauses:?}");
        until(|| node.worker.unfinished_count() == 0).await;
    });
}

/// A message whose body is no text.
async fn read_message_lossy(stream: &mut TcpStream) -> String {
    let mut message = Vec::new();
    loop {
        let read = stream.read_buf(&mut message).await.unwrap();
        let text = String::from_utf8_lossy(&message).into_owned();
        if read == 0 || text.ends_with("done") {
            return text;
        }
    }
}
