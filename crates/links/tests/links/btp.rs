use std::{cell::Cell, collections::BTreeSet, rc::Rc};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use rialto_btp::{
    frame::{self, Body, FRAME_BYTES_MAX, Frame},
    session::{Session, Settings},
};
use rialto_connector::{Action, Input, LinkFailure, LinkId, Reason, RequestId};
use rialto_links::{Account, OUTBOX_BYTES_MAX, OUTBOX_PREPARE_BYTES_MAX};
use rialto_packet::Timestamp;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, protocol::frame::coding::CloseCode},
};

use crate::support::{ALICE, BOB, FULFILL, Node, Options, PREPARE, account, run, to_btp, until};

type Socket = WebSocketStream<TcpStream>;

/// A stranger's socket, before authentication.
async fn connect(node: &Node, path: &str) -> Socket {
    let stream = TcpStream::connect(node.address).await.unwrap();
    let url = format!("ws://{}{path}", node.address);
    client_async(url, stream).await.unwrap().0
}

fn auth(username: &str, token: &str) -> Message {
    let mut frame = Vec::new();
    let wall = Timestamp::from_unix_ms(0);
    Session::client(Settings::default(), 0, wall, username, token, &mut frame);
    Message::Binary(frame.into())
}

/// A stranger that has authenticated.
async fn login(node: &Node, token: &str) -> (Socket, LinkId) {
    let mut socket = connect(node, "/ilp/btp").await;
    socket.send(auth("", token)).await.unwrap();
    let answer = next_frame(&mut socket).await.expect("an answer");
    assert!(matches!(
        Frame::decode(&answer).unwrap().body,
        Body::Response(_)
    ));
    (socket, node.link_up().await.0)
}

/// The next frame, or none after a closing message.
async fn next_frame(socket: &mut Socket) -> Option<Bytes> {
    loop {
        match socket.next().await? {
            Ok(Message::Binary(frame)) => return Some(frame),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn prepare(request_id: u32) -> Message {
    let mut frame = Vec::new();
    frame::put_ilp_message(&mut frame, request_id, PREPARE);
    Message::Binary(frame.into())
}

/// The account of `hub` at a node that dials it, where it is bob.
fn dialled(hub: &Node, token: &str) -> Account {
    let uri = format!("btp+ws://:{token}@{}/accounts/bob/ilp/btp", hub.address);
    to_btp(account(ALICE, "hub", "h"), &uri)
}

/// A node that dials `hub`, where it is bob.
async fn client(hub: &Node, token: &str) -> Node {
    let node = Node::new([dialled(hub, token)]).await;
    node.dial();
    node
}

#[test]
fn packets_pass_both_ways_between_two_nodes() {
    run(async {
        let hub = Node::start(Options::default()).await;
        let node = client(&hub, "b").await;
        let (down, account) = hub.link_up().await;
        assert_eq!(account, BOB);
        let (up, account) = node.link_up().await;
        assert_eq!(account, ALICE);
        for (from, link, to) in [(&node, up, &hub), (&hub, down, &node)] {
            for request in 1..=3 {
                from.forward(link, request, PREPARE);
            }
            for request in 1..=3 {
                let (_, link, id, packet) = to.prepare().await;
                assert_eq!((id, &packet[..]), (RequestId(request), PREPARE));
                to.answer(link, id, FULFILL);
            }
            for request in 1..=3 {
                let (replied, id, packet) = from.reply().await;
                assert_eq!((replied, id), (link, RequestId(request)));
                assert_eq!(&packet[..], FULFILL);
            }
        }
    });
}

#[test]
fn whoever_may_not_come_in_is_told_the_same_and_closed() {
    run(async {
        let node = Node::start(Options::default()).await;
        let mut answers = Vec::new();
        for (path, hello) in [
            ("/ilp/btp", auth("", "x")),
            ("/ilp/btp", auth("", "")),
            ("/ilp/btp", auth("bob", "a")),
            ("/ilp/btp", auth("carol", "a")),
            ("/accounts/bob/ilp/btp", auth("", "a")),
            ("/accounts/carol/ilp/btp", auth("", "a")),
            ("/accounts/alice/ilp/btp", auth("bob", "a")),
            ("/ilp/btp", prepare(0)),
        ] {
            let mut socket = connect(&node, path).await;
            socket.send(hello).await.unwrap();
            let answer = next_frame(&mut socket).await.expect("an answer");
            let Body::Error(error, _) = Frame::decode(&answer).unwrap().body else {
                panic!("not an error")
            };
            answers.push((error.code, error.name.to_vec(), error.data.to_vec()));
            assert_eq!(next_frame(&mut socket).await, None);
        }
        for answer in &answers {
            assert_eq!(answer, &answers[0]);
        }
    });
}

#[test]
fn text_is_ignored() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut socket, _) = login(&node, "a").await;
        socket.send(Message::text("hello")).await.unwrap();
        socket.send(prepare(9)).await.unwrap();
        let (account, link, request, packet) = node.prepare().await;
        assert_eq!(
            (account, request, &packet[..]),
            (ALICE, RequestId(9), PREPARE)
        );
        node.answer(link, request, FULFILL);
        let frame = next_frame(&mut socket).await.unwrap();
        assert_eq!(Frame::decode(&frame).unwrap().request_id, 9);
    });
}

#[test]
fn too_large_a_message_closes_with_1009() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut socket, link) = login(&node, "a").await;
        let message = Message::Binary(vec![0; FRAME_BYTES_MAX + 1].into());
        socket.send(message).await.unwrap();
        assert_eq!(node.link_down().await, link);
        let Some(Ok(Message::Close(Some(close)))) = socket.next().await else {
            panic!("not closed")
        };
        assert_eq!(close.code, CloseCode::Size);
    });
}

#[test]
fn a_session_that_ends_is_told_and_its_unsent_packets_fail() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut socket, link) = login(&node, "a").await;
        // In one turn: one reply still goes out, what comes after the word to close does not.
        node.answer(link, RequestId(3), FULFILL);
        node.worker.perform(Action::Disconnect { link });
        node.forward(link, 4, PREPARE);
        assert_eq!(
            node.failed().await,
            (link, RequestId(4), LinkFailure::Closed)
        );
        assert_eq!(node.link_down().await, link);
        let reply = next_frame(&mut socket).await.expect("the reply");
        assert_eq!(Frame::decode(&reply).unwrap().request_id, 3);
        assert_eq!(next_frame(&mut socket).await, None);

        node.forward(link, 5, PREPARE);
        assert_eq!(
            node.failed().await,
            (link, RequestId(5), LinkFailure::Closed)
        );
    });
}

#[test]
fn a_peer_that_errors_is_a_failed_link() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut socket, link) = login(&node, "a").await;
        node.forward(link, 4, PREPARE);
        next_frame(&mut socket).await.expect("the Prepare");
        let mut frame = Vec::new();
        frame::put_empty_response(&mut frame, 4);
        socket.send(Message::Binary(frame.into())).await.unwrap();
        assert_eq!(
            node.failed().await,
            (link, RequestId(4), LinkFailure::BadReply)
        );
        drop(socket);
        assert_eq!(node.link_down().await, link);
    });
}

#[test]
fn a_peer_that_does_not_read_gets_no_more_than_fits_and_holds_up_nobody() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (_deaf, deaf) = login(&node, "a").await;
        let (mut socket, link) = login(&node, "b").await;
        const LARGE: &[u8] = &[12; 32_000];
        // More than the operating system's buffers and ours together.
        let count = (4 * OUTBOX_BYTES_MAX / LARGE.len()) as u64;
        for request in 1..=count {
            node.forward(deaf, request, LARGE);
            if request % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        node.answer(link, RequestId(2), FULFILL);
        let reply = next_frame(&mut socket).await.expect("the reply");
        assert_eq!(Frame::decode(&reply).unwrap().request_id, 2);

        // What has no room is refused at once, and the session stays: it may only be slow.
        let mut busy = BTreeSet::new();
        while busy.last() != Some(&count) {
            let (of, request, failure) = node.failed().await;
            assert_eq!((of, failure), (deaf, LinkFailure::Busy));
            assert!(busy.insert(request.0));
        }
        let first = *busy.first().expect("there is a last one");
        assert!(first >= (OUTBOX_PREPARE_BYTES_MAX / LARGE.len()) as u64);
        assert!(busy.into_iter().eq(first..=count));

        // Answers have room of their own. A peer that does not take these either is let go, and what
        // was never handed to the socket has surely failed; of the others nobody knows.
        for request in 0..count {
            node.answer(deaf, RequestId(request), LARGE);
        }
        let mut failed = 0;
        loop {
            let input = node.input().await;
            let Input::Failed {
                link,
                request,
                failure,
            } = input
            else {
                assert!(matches!(input, Input::LinkDown { link } if link == deaf));
                break;
            };
            assert_eq!((link, failure), (deaf, LinkFailure::Closed));
            assert!(request.0 < first);
            failed += 1;
        }
        assert!(failed > 0);
    });
}

#[test]
fn silence_is_answered_by_pings_and_then_by_the_end() {
    run(async {
        let settings = Settings {
            auth_timeout_ns: 50_000_000,
            ping_interval_ns: 20_000_000,
            pings_missed_max: 2,
        };
        let node = Node::start(Options {
            btp: settings,
            ..Options::default()
        })
        .await;
        let mut silent = connect(&node, "/ilp/btp").await;
        assert_eq!(next_frame(&mut silent).await, None, "no authentication");

        let (mut socket, link) = login(&node, "a").await;
        let first = socket.next().await;
        assert!(matches!(first, Some(Ok(Message::Ping(_)))), "{first:?}");
        // No longer read, so no longer answered.
        assert_eq!(node.link_down().await, link);
    });
}

#[test]
fn a_lost_connection_is_opened_again() {
    run(async {
        let hub = Node::start(Options::default()).await;
        let node = client(&hub, "b").await;
        let (down, _) = hub.link_up().await;
        let (up, _) = node.link_up().await;
        hub.worker.perform(Action::Disconnect { link: down });
        assert_eq!(hub.link_down().await, down);
        assert_eq!(node.link_down().await, up);
        assert_ne!(hub.link_up().await.0, down);
        assert_ne!(node.link_up().await.0, up);
    });
}

#[test]
fn nobody_is_dialled_who_has_a_session_already() {
    run(async {
        let hub = Node::start(Options::default()).await;
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let has_session = Box::new(move |_| {
            count.set(count.get() + 1);
            count.get() < 2
        });
        let node = Node::start(Options {
            accounts: vec![dialled(&hub, "b")],
            has_session,
            ..Options::default()
        })
        .await;
        node.dial();
        node.link_up().await;
        assert_eq!(asked.get(), 2);
    });
}

#[test]
fn connections_follow_the_settings() {
    run(async {
        let hub = Node::start(Options::default()).await;
        let node = client(&hub, "b").await;
        let (down, _) = hub.link_up().await;
        let (up, _) = node.link_up().await;
        // Another change leaves it alone.
        let same = node.directory.borrow().account(ALICE).unwrap().clone();
        node.set_accounts([same.clone(), account(BOB, "bob", "b")]);
        node.forward(up, 1, PREPARE);
        assert_eq!(hub.prepare().await.1, down);

        node.set_accounts([Account {
            opened: None,
            ..same
        }]);
        assert_eq!(node.link_down().await, up);
        assert_eq!(hub.link_down().await, down);
    });
}

#[test]
fn a_client_with_a_wrong_token_is_not_up() {
    run(async {
        let hub = Node::start(Options::default()).await;
        let node = client(&hub, "x").await;
        let unknown = || hub.auth_counters.get(Reason::AuthUnknownToken);
        until(|| unknown() == 1 && hub.worker.connection_count() == 0).await;
        assert!(node.input().now_or_never().is_none());
        // It waits before it tries again.
        assert_eq!(unknown(), 1);
    });
}

#[test]
fn a_worker_that_closes_says_so() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut socket, link) = login(&node, "a").await;
        node.worker.close();
        assert_eq!(node.link_down().await, link);
        let last = socket.next().await;
        let Some(Ok(Message::Close(Some(close)))) = last else {
            panic!("not closed: {last:?}")
        };
        assert_eq!(close.code, CloseCode::Away);
        assert!(matches!(
            socket.next().await,
            None | Some(Err(Error::ConnectionClosed))
        ));
    });
}

#[test]
fn a_worker_that_closes_sends_what_it_owes_on_sessions_that_it_opened() {
    run(async {
        let hub = Node::start(Options::default()).await;
        let node = client(&hub, "b").await;
        let (down, _) = hub.link_up().await;
        node.link_up().await;
        hub.forward(down, 1, PREPARE);
        let (_, link, request, _) = node.prepare().await;
        node.answer(link, request, FULFILL);
        node.worker.close();
        assert_eq!(node.worker.connection_count(), 1);
        let (_, request, packet) = hub.reply().await;
        assert_eq!((request, &packet[..]), (RequestId(1), FULFILL));
        assert_eq!(hub.link_down().await, down);
        until(|| node.worker.connection_count() == 0).await;
    });
}
