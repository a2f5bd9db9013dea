//! ILP over HTTP/2, both sides, against `h2` alone: streams in whatever order and pieces.

use std::{
    future::poll_fn,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::{
    Reason, RecvStream,
    client::{self, ResponseFuture, SendRequest},
    server::{self, SendResponse},
};
use http::{Request, Response};
use rialto_connector::{Action, Input, LinkFailure, LinkId, Paid, RequestId};
use rialto_links::{BODY_TIMEOUT, PACKET_BODY_BYTES_MAX};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, spawn_local, yield_now},
    time::sleep,
};

use crate::support::{ALICE, BOB, FULFILL, Node, Options, PREPARE, http_account, run, until};

const HUB: LinkId = LinkId::Http(ALICE);
const PACKET: &str = "application/octet-stream";

/// A client of the node, and its connection's task.
async fn connect(node: &Node) -> (SendRequest<Bytes>, JoinHandle<()>) {
    let stream = TcpStream::connect(node.address).await.unwrap();
    let (sender, connection) = client::handshake(stream).await.unwrap();
    let task = spawn_local(async move {
        let _ = connection.await;
    });
    (sender.ready().await.unwrap(), task)
}

fn post(token: &str) -> http::request::Builder {
    Request::post("http://h/ilp").header("authorization", format!("Bearer {token}"))
}

async fn whole(mut body: RecvStream) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        whole.extend_from_slice(&data);
    }
    whole
}

/// Status and body.
async fn read(response: ResponseFuture) -> (u16, Vec<u8>) {
    let response = response.await.unwrap();
    (
        response.status().as_u16(),
        whole(response.into_body()).await,
    )
}

#[test]
fn a_packet_comes_in_whatever_pieces() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut sender, _task) = connect(&node).await;
        let large = vec![12; PACKET_BODY_BYTES_MAX];
        for pieces in [
            vec![PREPARE],
            vec![PREPARE, b""],
            vec![b"\x0c", b"", b"1"],
            vec![&large[..1], &large[1..30_000], &large[30_000..]],
        ] {
            let (response, mut body) = sender
                .send_request(post("b").body(()).unwrap(), false)
                .unwrap();
            for (index, piece) in pieces.iter().enumerate() {
                // The node sees each by itself.
                for _ in 0..10 {
                    yield_now().await;
                }
                let is_last = index + 1 == pieces.len();
                body.send_data(Bytes::copy_from_slice(piece), is_last)
                    .unwrap();
            }
            let (account, link, request, packet) = node.prepare().await;
            assert_eq!((account, &packet[..]), (BOB, &pieces.concat()[..]));
            node.answer(link, request, FULFILL);
            let response = response.await.unwrap();
            assert_eq!(response.headers()["content-type"], PACKET);
            assert_eq!(response.status(), 200);
            assert_eq!(whole(response.into_body()).await, FULFILL);
        }
    });
}

#[test]
fn packets_in_flight_take_no_room_from_the_next() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut sender, _task) = connect(&node).await;
        // Together more than a connection has room for.
        let large = Bytes::from(vec![12; PACKET_BODY_BYTES_MAX]);
        let mut responses = Vec::new();
        for _ in 0..100 {
            let request = post("b").body(()).unwrap();
            let (response, mut body) = sender.send_request(request, false).unwrap();
            body.send_data(large.clone(), true).unwrap();
            responses.push(response);
        }
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let (_, link, request, packet) = node.prepare().await;
            assert_eq!(packet, large);
            waiting.push((link, request));
        }
        for (link, request) in waiting {
            node.answer(link, request, FULFILL);
        }
        for response in responses {
            assert_eq!(read(response).await, (200, FULFILL.to_vec()));
        }
    });
}

#[test]
fn what_is_no_packet_is_answered_as_by_http1() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut sender, _task) = connect(&node).await;
        let get = |path: &str| Request::get(format!("http://h{path}"));
        let ended = [
            (get("/ilp"), 405, "packets are sent by POST\n"),
            (get("/ilp/btp"), 426, "BTP is spoken by WebSocket\n"),
            (get("/x/y"), 404, "not found\n"),
            (Request::head("http://h/x/y"), 404, ""),
        ];
        for (request, status, text) in ended {
            let request = request.body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            assert_eq!(read(response).await, (status, text.as_bytes().to_vec()));
        }
        let pointer = get("/carol").header("accept", "application/spsp4+json");
        let (response, _) = sender
            .send_request(pointer.body(()).unwrap(), true)
            .unwrap();
        assert_eq!(read(response).await.0, 200);
        // Before a byte of the body has come.
        for (request, status) in [
            (post("wrong"), 401),
            (post("b").header("content-type", "text/html"), 415),
        ] {
            let request = request.body(()).unwrap();
            let (response, _body) = sender.send_request(request, false).unwrap();
            assert_eq!(read(response).await.0, status);
        }
        let (response, mut body) = sender
            .send_request(post("b").body(()).unwrap(), false)
            .unwrap();
        let too_large = Bytes::from(vec![12; PACKET_BODY_BYTES_MAX + 1]);
        body.send_data(too_large, true).unwrap();
        assert_eq!(read(response).await.0, 413);
        assert!(node.input().now_or_never().is_none());
    });
}

#[test]
fn a_body_that_takes_too_long_is_not_waited_for() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut sender, _task) = connect(&node).await;
        let mut begin = || {
            let request = post("b").body(()).unwrap();
            sender.send_request(request, false).unwrap()
        };
        let (late, mut first) = begin();
        first.send_data(Bytes::from_static(b"\x0c"), false).unwrap();
        let sent = Instant::now();
        sleep(BODY_TIMEOUT / 2).await;
        let (response, mut second) = begin();
        assert_eq!(read(late).await.0, 408);
        assert!(sent.elapsed() >= BODY_TIMEOUT, "{:?}", sent.elapsed());
        // The other has half of its time left.
        let packet = Bytes::from_static(PREPARE);
        second.send_data(packet, true).unwrap();
        let (_, link, request, _) = node.prepare().await;
        node.answer(link, request, FULFILL);
        assert_eq!(read(response).await, (200, FULFILL.to_vec()));
    });
}

#[test]
fn an_answer_that_nobody_waits_for_is_told_of() {
    run(async {
        let paid = Some(Paid {
            account: BOB,
            amount: 7,
        });
        let node = Node::start(Options::default()).await;
        for resets in [true, false] {
            let (mut sender, task) = connect(&node).await;
            let mut send = || {
                let (response, mut body) = sender
                    .send_request(post("b").body(()).unwrap(), false)
                    .unwrap();
                body.send_data(Bytes::from_static(PREPARE), true).unwrap();
                (response, body)
            };
            let (_gone, mut body) = send();
            let (_, link, request, _) = node.prepare().await;
            match resets {
                true => {
                    body.send_reset(Reason::CANCEL);
                    // What comes behind the reset says that it has been seen.
                    let (response, _) = send();
                    let (_, link, request, _) = node.prepare().await;
                    node.answer(link, request, FULFILL);
                    assert_eq!(read(response).await.0, 200);
                }
                false => {
                    task.abort();
                    until(|| node.worker.connection_count() == 0).await;
                }
            }
            node.worker.perform(Action::Answer {
                link,
                request,
                packet: Bytes::from_static(FULFILL),
                paid,
            });
            let Input::Undelivered(lost) = node.input().await else {
                panic!("the answer is lost in silence")
            };
            assert_eq!(Some(lost), paid);
            task.abort();
            until(|| node.worker.connection_count() == 0).await;
        }
    });
}

#[test]
fn a_draining_node_answers_what_it_has_by_http2() {
    run(async {
        let node = Node::start(Options::default()).await;
        let (mut sender, task) = connect(&node).await;
        let (response, mut body) = sender
            .send_request(post("b").body(()).unwrap(), false)
            .unwrap();
        body.send_data(Bytes::from_static(PREPARE), true).unwrap();
        let (_, link, request, _) = node.prepare().await;
        node.worker.close();
        node.answer(link, request, FULFILL);
        assert_eq!(read(response).await, (200, FULFILL.to_vec()));
        task.await.unwrap();
        until(|| node.worker.unfinished_count() == 0).await;
    });
}

/// A peer of the node that answers by hand.
struct Peer {
    listener: TcpListener,
    node: Node,
}

type Hub = server::Connection<TcpStream, Bytes>;

impl Peer {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Node::new([http_account(ALICE, "h2c", address, "t")]).await;
        Self { listener, node }
    }

    async fn accept(&self, streams_max: u32) -> Hub {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(streams_max);
        builder.handshake(stream).await.unwrap()
    }
}

/// The next request.
async fn request(hub: &mut Hub) -> (Request<RecvStream>, SendResponse<Bytes>) {
    hub.accept().await.unwrap().unwrap()
}

fn reply(mut to: SendResponse<Bytes>, packet: &'static [u8]) {
    let response = Response::builder().header("content-type", PACKET);
    let mut body = to.send_response(response.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(packet), true).unwrap();
}

/// Moves the connection on for as long as it takes.
async fn drive<T>(hub: &mut Hub, what: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = what => done,
        _ = poll_fn(|cx| hub.poll_closed(cx)) => panic!("the connection ended"),
    }
}

#[test]
fn packets_share_a_connection_from_the_first_on() {
    run(async {
        let peer = Peer::new().await;
        for number in 0..50 {
            peer.node.forward(HUB, number, PREPARE);
        }
        let mut hub = peer.accept(256).await;
        let mut waiting = Vec::new();
        for _ in 0..50 {
            let (request, to) = request(&mut hub).await;
            assert_eq!(request.method(), "POST");
            assert_eq!(request.uri().path(), "/ilp");
            let headers = request.headers();
            assert_eq!(headers["authorization"], "Bearer t");
            assert_eq!(headers["content-type"], PACKET);
            assert_eq!(headers["content-length"], "8");
            let body = drive(&mut hub, whole(request.into_body())).await;
            assert_eq!(body, PREPARE);
            waiting.push(to);
        }
        assert!(peer.listener.accept().now_or_never().is_none());
        for to in waiting {
            reply(to, FULFILL);
        }
        let mut numbers = Vec::new();
        for _ in 0..50 {
            let (link, request, packet) = drive(&mut hub, peer.node.reply()).await;
            assert_eq!((link, &packet[..]), (HUB, FULFILL));
            numbers.push(request.0);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    });
}

#[test]
fn what_the_peer_does_not_allow_yet_waits() {
    run(async {
        let peer = Peer::new().await;
        peer.node.forward(HUB, 0, PREPARE);
        let mut hub = peer.accept(1).await;
        let (_, mut to) = request(&mut hub).await;
        // The node knows the peer's settings before it sends more.
        let mut pings = hub.ping_pong().unwrap();
        drive(&mut hub, pings.ping(h2::Ping::opaque()))
            .await
            .unwrap();
        for number in 1..5 {
            peer.node.forward(HUB, number, PREPARE);
        }
        for number in 0..5 {
            drive(&mut hub, pings.ping(h2::Ping::opaque()))
                .await
                .unwrap();
            assert!(hub.accept().now_or_never().is_none(), "more than one");
            reply(to, FULFILL);
            assert_eq!(
                drive(&mut hub, peer.node.reply()).await.1,
                RequestId(number)
            );
            if number == 4 {
                return;
            }
            to = request(&mut hub).await.1;
        }
    });
}

#[test]
fn answers_by_http2_that_are_none() {
    run(async {
        let peer = Peer::new().await;
        peer.node.forward(HUB, 0, PREPARE);
        let mut hub = peer.accept(256).await;
        reply(request(&mut hub).await.1, FULFILL);
        drive(&mut hub, peer.node.reply()).await;
        for (status, content_type, failure) in [
            (404, PACKET, LinkFailure::Http(404)),
            (302, PACKET, LinkFailure::Http(302)),
            (200, "text/html", LinkFailure::ContentType),
            (200, PACKET, LinkFailure::BadReply),
        ] {
            peer.node.forward(HUB, 1, PREPARE);
            let (_, mut to) = request(&mut hub).await;
            let response = Response::builder()
                .status(status)
                .header("content-type", content_type);
            let mut body = to.send_response(response.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from(vec![13; PACKET_BODY_BYTES_MAX + 1]), true)
                .unwrap();
            let failed = drive(&mut hub, peer.node.failed()).await;
            assert_eq!(failed, (HUB, RequestId(1), failure));
        }
        // What may have arrived is not failed, and the connection goes on.
        for half in [false, true] {
            peer.node.forward(HUB, 2, PREPARE);
            let (_, mut to) = request(&mut hub).await;
            match half {
                false => to.send_reset(Reason::INTERNAL_ERROR),
                true => {
                    let mut body = to.send_response(Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(b"\x0d"), false).unwrap();
                    body.send_reset(Reason::INTERNAL_ERROR);
                }
            }
            assert_eq!(
                drive(&mut hub, peer.node.unanswered()).await,
                (HUB, RequestId(2))
            );
        }
        // In pieces.
        peer.node.forward(HUB, 3, PREPARE);
        let (_, mut to) = request(&mut hub).await;
        let mut body = to.send_response(Response::new(()), false).unwrap();
        for piece in FULFILL.chunks(3) {
            body.send_data(Bytes::from_static(piece), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        assert_eq!(&drive(&mut hub, peer.node.reply()).await.2[..], FULFILL);
    });
}

#[test]
fn a_stream_is_given_up_at_its_deadline() {
    run(async {
        let peer = Peer::new().await;
        peer.node
            .forward_for(HUB, 0, PREPARE, Duration::from_millis(200));
        peer.node.forward(HUB, 1, PREPARE);
        let mut hub = peer.accept(256).await;
        let (_, mut late) = request(&mut hub).await;
        let (_, to) = request(&mut hub).await;
        let reset = poll_fn(|cx| late.poll_reset(cx));
        assert_eq!(drive(&mut hub, reset).await.unwrap(), Reason::CANCEL);
        // The other goes on, over the same connection.
        reply(to, FULFILL);
        assert_eq!(drive(&mut hub, peer.node.reply()).await.1, RequestId(1));
    });
}

/// Fulfills whatever comes, until the connection ends.
async fn serve(mut hub: Hub) {
    while let Some(Ok((_, to))) = hub.accept().await {
        reply(to, FULFILL);
    }
}

#[test]
fn a_peer_that_leaves_loses_no_packet() {
    run(async {
        let peer = Peer::new().await;
        peer.node.forward(HUB, 0, PREPARE);
        let mut hub = peer.accept(256).await;
        let (_, first) = request(&mut hub).await;
        hub.graceful_shutdown();
        let left = spawn_local(serve(hub));
        // Those that cross the peer's word still go over the first connection.
        let mut count = 1;
        let stream = loop {
            if let Some(accepted) = peer.listener.accept().now_or_never() {
                break accepted.unwrap().0;
            }
            peer.node.forward(HUB, count, PREPARE);
            count += 1;
            yield_now().await;
        };
        let _next = spawn_local(async { serve(server::handshake(stream).await.unwrap()).await });
        for _ in 1..count {
            peer.node.reply().await;
        }
        reply(first, FULFILL);
        assert_eq!(peer.node.reply().await.1, RequestId(0));
        left.await.unwrap();
    });
}

#[test]
fn an_http2_connection_that_ended_while_idle_is_not_used() {
    run(async {
        let peer = Peer::new().await;
        for number in 0..3 {
            peer.node.forward(HUB, number, PREPARE);
            let mut hub = peer.accept(256).await;
            reply(request(&mut hub).await.1, FULFILL);
            let answered = drive(&mut hub, peer.node.reply()).await;
            assert_eq!(answered.1, RequestId(number));
            hub.graceful_shutdown();
            serve(hub).await;
        }
    });
}
