use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rialto_connector::{LinkId, Reason};
use rialto_links::{Account, PACKET_BODY_BYTES_MAX, hash_token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
};

use crate::support::{
    ALICE, BOB, FULFILL, Node, Options, PREPARE, account, exchange, read_message, run, until,
};

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn packets_are_answered_on_a_connection_that_stays_open() {
    run(async {
        let node = Node::start(Options::default()).await;
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        for (path, token, id) in [("/ilp", "a", ALICE), ("/accounts/bob/ilp", "b", BOB)] {
            let headers = format!(
                "authorization: Bearer {token}\r\ncontent-type: application/octet-stream\r\n"
            );
            stream
                .write_all(&post(path, &headers, PREPARE))
                .await
                .unwrap();
            let (account, link, request, packet) = node.prepare().await;
            assert_eq!((account, link), (id, LinkId::Waiting { worker: 7 }));
            assert_eq!(packet, PREPARE);
            node.answer(link, request, FULFILL);
            let response = read_message(&mut stream).await;
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            assert!(response.contains("content-type: application/octet-stream\r\n"));
            assert!(response.as_bytes().ends_with(FULFILL));
        }
    });
}

#[test]
fn whoever_may_not_come_in_is_told_the_same_without_a_body_read() {
    run(async {
        let node = Node::new([
            account(ALICE, "alice", "a"),
            Account {
                tokens: vec![(hash_token(b"old"), Some(1))],
                ..account(BOB, "bob", "b")
            },
        ])
        .await;
        let mut answers = Vec::new();
        for (path, headers) in [
            ("/ilp", ""),
            ("/ilp", "authorization: Bearer x\r\n"),
            ("/ilp", "authorization: Basic a\r\n"),
            ("/ilp", "authorization: Bearer old\r\n"),
            ("/accounts/alice/ilp", "authorization: Bearer x\r\n"),
            ("/accounts/bob/ilp", "authorization: Bearer a\r\n"),
            ("/accounts/carol/ilp", "authorization: Bearer a\r\n"),
        ] {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            let mut head = post(path, headers, &[0; 300]);
            head.truncate(head.len() - 300);
            answers.push(exchange(&mut stream, &head).await);
        }
        assert!(answers[0].starts_with("HTTP/1.1 401 Unauthorized\r\n"));
        assert!(answers[0].contains("www-authenticate: Bearer\r\n"));
        for answer in &answers {
            assert_eq!(answer, &answers[0]);
        }
        let count = |reason| node.auth_counters.get(reason);
        assert_eq!(count(Reason::AuthMissing), 2);
        assert_eq!(count(Reason::AuthUnknownToken), 4);
        assert_eq!(count(Reason::AuthExpiredToken), 1);
    });
}

#[test]
fn requests_that_are_no_packets() {
    run(async {
        let node = Node::start(Options::default()).await;
        let auth = "authorization: Bearer a\r\n";
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").into_bytes();
        let head = |length: usize| {
            format!("POST /ilp HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n{auth}\r\n")
        };
        let chunk = format!("{:x}\r\n{}\r\n", 30_000, "x".repeat(30_000));
        let chunked =
            format!("POST /ilp HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n{auth}\r\n");
        let text = format!("{auth}content-type: text/plain\r\n");
        for (request, status) in [
            (get("/ilp"), 405),
            (get("/accounts/alice/ilp"), 405),
            (get("/nothing/here"), 404),
            (get("/ilp/btp"), 426),
            (post("/ilp/btp", "", b""), 405),
            (post("/ilp", &text, b""), 415),
            (head(PACKET_BODY_BYTES_MAX + 1).into_bytes(), 413),
            (head(1_000_000_000).into_bytes(), 413),
            ((chunked + &chunk + &chunk).into_bytes(), 413),
        ] {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            let response = exchange(&mut stream, &request).await;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(response.starts_with(&expected), "{status}: {response}");
        }
    });
}

#[test]
fn every_media_type_of_packets_and_the_largest_body_pass() {
    run(async {
        let node = Node::start(Options::default()).await;
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        for content_type in [
            "",
            "content-type: application/octet-stream\r\n",
            "content-type: application/ilp+octet-stream\r\n",
            "content-type: Application/Octet-Stream; charset=x\r\n",
        ] {
            let headers = format!("authorization: Bearer a\r\n{content_type}");
            let body = vec![12; PACKET_BODY_BYTES_MAX];
            stream
                .write_all(&post("/ilp", &headers, &body))
                .await
                .unwrap();
            let (_, link, request, packet) = node.prepare().await;
            assert_eq!(packet, body);
            node.answer(link, request, FULFILL);
            assert!(read_message(&mut stream).await.starts_with("HTTP/1.1 200 "));
        }
    });
}

#[test]
fn a_client_that_goes_away_changes_nothing() {
    run(async {
        let node = Node::start(Options::default()).await;
        let request = post("/ilp", "authorization: Bearer a\r\n", PREPARE);
        let mut gone = TcpStream::connect(node.address).await.unwrap();
        gone.write_all(&request).await.unwrap();
        let (_, link, first, _) = node.prepare().await;
        drop(gone);
        until(|| node.worker.connection_count() == 0).await;

        // The next one takes the place of the first, but not its answer.
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let (_, _, second, _) = node.prepare().await;
        node.answer(link, first, b"\x0dfor the first");
        node.answer(link, second, b"\x0dfor the second");
        assert!(read_message(&mut stream).await.ends_with("for the second"));
    });
}

#[test]
fn http2_by_prior_knowledge_answers_as_answers_come() {
    run(async {
        let node = Node::start(Options::default()).await;
        let stream = TcpStream::connect(node.address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        spawn_local(connection);
        let send = |packet: &'static [u8]| {
            let request = Request::post("http://h/accounts/alice/ilp")
                .header("authorization", "Bearer a")
                .body(Full::new(Bytes::from_static(packet)))
                .unwrap();
            let sent = sender.clone().send_request(request);
            spawn_local(async move {
                let response = sent.await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                response.into_body().collect().await.unwrap().to_bytes()
            })
        };
        let first = send(b"\x0cfirst");
        let (_, link, first_request, _) = node.prepare().await;
        let second = send(b"\x0csecond");
        let (_, _, second_request, packet) = node.prepare().await;
        assert_eq!(&packet[..], b"\x0csecond");
        node.answer(link, second_request, b"\x0d2");
        assert_eq!(&second.await.unwrap()[..], b"\x0d2");
        node.answer(link, first_request, b"\x0d1");
        assert_eq!(&first.await.unwrap()[..], b"\x0d1");
    });
}

#[test]
fn one_connection_too_many_is_closed() {
    run(async {
        let node = Node::start(Options {
            connections_max: 1,
            ..Options::default()
        })
        .await;
        let mut first = TcpStream::connect(node.address).await.unwrap();
        let request = b"GET /x/y HTTP/1.1\r\nhost: h\r\n\r\n";
        assert!(exchange(&mut first, request).await.contains(" 404 "));
        let mut second = TcpStream::connect(node.address).await.unwrap();
        // It may be gone before it can say anything.
        let _ = second.write_all(request).await;
        assert!(matches!(second.read(&mut [0]).await, Ok(0) | Err(_)));
        assert!(exchange(&mut first, request).await.contains(" 404 "));
    });
}

#[test]
fn a_draining_worker_finishes_what_it_has_and_accepts_no_more() {
    run(async {
        let mut node = Node::start(Options::default()).await;
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let request = post("/ilp", "authorization: Bearer a\r\n", PREPARE);
        stream.write_all(&request).await.unwrap();
        let (_, link, request, _) = node.prepare().await;
        node.worker.drain();
        (&mut node.serving).await.unwrap();
        assert!(TcpStream::connect(node.address).await.is_err());
        node.answer(link, request, FULFILL);
        let response = read_message(&mut stream).await;
        assert!(response.contains("connection: close\r\n"), "{response}");
        assert!(response.as_bytes().ends_with(FULFILL));
    });
}
