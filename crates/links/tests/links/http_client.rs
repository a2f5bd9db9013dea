use std::time::Duration;

use futures_util::FutureExt;
use rialto_connector::{LinkFailure, LinkId, RequestId};
use rialto_links::HTTP_LANES_MAX;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time,
};

use crate::support::{
    ALICE, BOB, FULFILL, Node, Options, PREPARE, account, http_account, read_message, run,
    stranger, to_http,
};

const HUB: LinkId = LinkId::Http(ALICE);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\x0dx";

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A node whose packets to alice go to the listener.
async fn node(listener: &TcpListener) -> Node {
    Node::new([http_account(
        ALICE,
        "http",
        listener.local_addr().unwrap(),
        "t",
    )])
    .await
}

#[test]
fn packets_go_out_and_replies_come_in_by_http1_and_http2() {
    run(async {
        for (scheme, connections) in [("http", 3), ("h2c", 1)] {
            let hub = Node::start(Options::default()).await;
            let node = Node::new([http_account(ALICE, scheme, hub.address, "b")]).await;
            node.forward(HUB, 1, PREPARE);
            let (account, link, request, packet) = hub.prepare().await;
            assert_eq!((account, &packet[..]), (BOB, PREPARE));
            hub.answer(link, request, FULFILL);
            let (from, request, packet) = node.reply().await;
            assert_eq!((from, request, &packet[..]), (HUB, RequestId(1), FULFILL));

            for request in 2..5 {
                node.forward(HUB, request, PREPARE);
            }
            let waiting = [
                hub.prepare().await,
                hub.prepare().await,
                hub.prepare().await,
            ];
            assert_eq!(hub.worker.connection_count(), connections, "{scheme}");
            for (_, link, request, _) in waiting {
                hub.answer(link, request, FULFILL);
            }
            let mut replies = [
                node.reply().await.1,
                node.reply().await.1,
                node.reply().await.1,
            ];
            replies.sort_by_key(|request| request.0);
            assert_eq!(replies, [2, 3, 4].map(RequestId));

            // Connections are used again.
            node.forward(HUB, 5, PREPARE);
            let (_, link, request, _) = hub.prepare().await;
            assert_eq!(hub.worker.connection_count(), connections);
            hub.answer(link, request, FULFILL);
            node.reply().await;
        }
    });
}

#[test]
fn the_request_is_what_peers_expect() {
    run(async {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let node = node(&listener).await;
        node.forward(HUB, 1, PREPARE);
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_message(&mut stream).await;
        assert!(request.starts_with("POST /ilp HTTP/1.1\r\n"), "{request}");
        for header in [
            "authorization: Bearer t",
            "content-type: application/octet-stream",
            "accept: application/octet-stream",
            "content-length: 8",
            &format!("host: {address}"),
        ] {
            assert!(request.contains(&format!("{header}\r\n")), "{request}");
        }
    });
}

#[test]
fn answers_as_servers_write_them() {
    run(async {
        let listener = listener().await;
        let node = node(&listener).await;
        // Whether the connection can be used again, and so is.
        for (answer, again) in [
            (OK, true),
            (
                "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Type: application/octet-stream\r\nContent-Length: 2\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n\x0dx",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\x0d\r\n1;a=b\r\nx\r\n0\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n\x0dx\r\n0\r\nX: y\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\x0dx",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n\x0dx",
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n\x0dx", false),
            // Nobody asked for the second.
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\x0dxHTTP/1.1 200 OK\r\n",
                false,
            ),
        ] {
            let mut bytes = answer.bytes().peekable();
            node.forward(HUB, 1, PREPARE);
            let (mut stream, _) = listener.accept().await.unwrap();
            read_message(&mut stream).await;
            // In pieces, as the network may bring it.
            while bytes.peek().is_some() {
                let piece = bytes.by_ref().take(7).collect::<Vec<_>>();
                if stream.write_all(&piece).await.is_err() {
                    break; // the answer was there before its last piece
                }
                tokio::task::yield_now().await;
            }
            assert_eq!(&node.reply().await.2[..], b"\x0dx", "{answer:?}");
            if again {
                node.forward(HUB, 2, PREPARE);
                read_message(&mut stream).await;
                let last = OK.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
                stream.write_all(last.as_bytes()).await.unwrap();
                assert_eq!(node.reply().await.1, RequestId(2), "{answer:?}");
            }
            let read = stream.read(&mut [0]).await;
            assert!(matches!(read, Ok(0) | Err(_)), "{answer:?}");
        }
        // To the end of the connection.
        node.forward(HUB, 1, PREPARE);
        drop(stranger(&listener, "HTTP/1.1 200 OK\r\n\r\n\x0dx").await);
        assert_eq!(&node.reply().await.2[..], b"\x0dx");
    });
}

#[test]
fn answers_that_are_none() {
    use LinkFailure::{BadReply, ContentType, Http};
    run(async {
        let too_large = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 40001\r\n\r\n{}",
            "x".repeat(40_001)
        );
        let chunk = format!("4e20\r\n{}\r\n", "x".repeat(20_000));
        let too_large_chunks = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}1\r\nx\r\n"
        );
        let too_large_to_the_end = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(40_001));
        for (answer, failure) in [
            (
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
                Http(401),
            ),
            (
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
                Http(404),
            ),
            ("HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n", Http(503)),
            (
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
                Http(302),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n",
                ContentType,
            ),
            (&too_large, BadReply),
            (&too_large_chunks, BadReply),
            (&too_large_to_the_end, BadReply),
        ] {
            let listener = listener().await;
            let node = node(&listener).await;
            node.forward(HUB, 1, PREPARE);
            stranger(&listener, answer).await;
            assert_eq!(node.failed().await, (HUB, RequestId(1), failure));
        }
    });
}

#[test]
fn peers_that_cannot_be_reached() {
    run(async {
        let closed = listener().await.local_addr().unwrap();
        let plain = Node::start(Options::default()).await;
        for (url, failure) in [
            (format!("http://{closed}/"), LinkFailure::Connect),
            ("http://no..such/".to_owned(), LinkFailure::Dns),
            (format!("https://{}/", plain.address), LinkFailure::Tls),
        ] {
            let peer = rialto_links::HttpPeer::new(&url, "t").unwrap();
            let node = Node::new([to_http(account(ALICE, "hub", "h"), peer)]).await;
            node.forward(HUB, 1, PREPARE);
            assert_eq!(node.failed().await, (HUB, RequestId(1), failure), "{url}");
            // At once, without another attempt.
            node.forward(HUB, 2, PREPARE);
            let failed = (HUB, RequestId(2), failure);
            assert_eq!(node.failed().now_or_never(), Some(failed), "{url}");
        }
        let node = Node::start(Options::default()).await;
        node.forward(HUB, 1, PREPARE);
        let failed = (HUB, RequestId(1), LinkFailure::Closed);
        assert_eq!(node.failed().await, failed, "no settings at all");
    });
}

#[test]
fn a_connection_that_was_closed_loses_no_packet() {
    run(async {
        let listener = listener().await;
        let node = node(&listener).await;
        node.forward(HUB, 1, PREPARE);
        // All connections are taken, so the last packet waits for one of them.
        let mut waiting = Vec::new();
        for request in 2..=HTTP_LANES_MAX as u64 + 1 {
            node.forward(HUB, request, PREPARE);
        }
        for _ in 0..HTTP_LANES_MAX {
            waiting.push(listener.accept().await.unwrap().0);
        }
        let mut first = waiting.swap_remove(0);
        read_message(&mut first).await;
        let closing = OK.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        first.write_all(closing.as_bytes()).await.unwrap();
        node.reply().await;
        stranger(&listener, OK).await;
        let last = RequestId(HTTP_LANES_MAX as u64 + 1);
        assert_eq!(node.reply().await.1, last);
    });
}

#[test]
fn a_connection_closed_while_idle_is_not_used() {
    run(async {
        let listener = listener().await;
        let node = node(&listener).await;
        node.forward(HUB, 1, PREPARE);
        let mut stream = stranger(&listener, OK).await;
        node.reply().await;
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        node.forward(HUB, 2, PREPARE);
        stranger(&listener, OK).await;
        assert_eq!(node.reply().await.1, RequestId(2));
    });
}

#[test]
fn a_packet_that_may_have_arrived_is_neither_failed_nor_sent_again() {
    run(async {
        let listener = listener().await;
        let node = node(&listener).await;
        for (request, answer) in [
            (1, ""),
            (3, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
            (5, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"),
            (
                7,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
            ),
            (
                9,
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n\x0dx",
            ),
            (11, "220 mail.example ESMTP\r\n"),
        ] {
            node.forward(HUB, request, PREPARE);
            drop(stranger(&listener, answer).await);
            assert_eq!(node.unanswered().await, (HUB, RequestId(request)));
            // The next that is heard is about the next packet.
            node.forward(HUB, request + 1, b"\x0cnext");
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(read_message(&mut stream).await.ends_with("next"));
            stream.write_all(OK.as_bytes()).await.unwrap();
            drop(stream);
            assert_eq!(node.reply().await.1, RequestId(request + 1));
        }
    });
}

#[test]
fn a_request_is_given_up_at_its_deadline() {
    run(async {
        let listener = listener().await;
        let node = node(&listener).await;
        node.forward_for(HUB, 1, PREPARE, Duration::from_millis(50));
        let (mut stream, _) = listener.accept().await.unwrap();
        read_message(&mut stream).await;
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        // One that has less time than the last had, on a connection that is kept.
        node.forward(HUB, 2, PREPARE);
        let mut stream = stranger(&listener, OK).await;
        node.reply().await;
        node.forward_for(HUB, 3, PREPARE, Duration::from_millis(50));
        read_message(&mut stream).await;
        time::pause();
        let since = time::Instant::now();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert!(since.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn nobody_connects_for_packets_that_are_late() {
    run(async {
        let listener = listener().await;
        let node = node(&listener).await;
        // All connections are taken by a peer that says nothing, and more packets wait.
        let time = Duration::from_secs(3); // enough to connect so often
        for request in 0..=HTTP_LANES_MAX as u64 + 9 {
            node.forward_for(HUB, request, PREPARE, time);
        }
        let mut taken = Vec::new();
        for _ in 0..HTTP_LANES_MAX {
            taken.push(listener.accept().await.unwrap().0);
        }
        for stream in &mut taken {
            read_message(stream).await;
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        }
        // The next that connects does so for the next packet.
        node.forward(HUB, 1_000, b"\x0cnext");
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(read_message(&mut stream).await.ends_with("next"));
    });
}

#[test]
fn a_connection_that_nobody_needs_is_closed() {
    run(async {
        let listener = listener().await;
        let node = node(&listener).await;
        node.forward(HUB, 1, PREPARE);
        let mut stream = stranger(&listener, OK).await;
        node.reply().await;
        time::pause();
        let since = time::Instant::now();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        let idle = since.elapsed().as_secs_f32();
        assert!((14.9..15.1).contains(&idle), "{idle}");
    });
}

#[test]
fn new_settings_are_used_at_once() {
    run(async {
        let (old, new) = (listener().await, listener().await);
        let node = node(&old).await;
        node.forward(HUB, 1, PREPARE);
        let _stream = stranger(&old, OK).await;
        node.reply().await;
        node.set_accounts([http_account(ALICE, "http", new.local_addr().unwrap(), "t")]);
        node.forward(HUB, 2, PREPARE);
        stranger(&new, OK).await;
        assert_eq!(node.reply().await.1, RequestId(2));
    });
}
