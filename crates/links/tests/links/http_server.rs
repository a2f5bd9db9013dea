use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rialto_connector::{LinkId, Reason};
use rialto_links::{HEAD_TIMEOUT, NewcomerLimits, PACKET_BODY_BYTES_MAX};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
    time,
};

use crate::support::{
    ALICE, BOB, FULFILL, Node, Options, PREPARE, account, account_until, exchange, read_message,
    run, run_for, until,
};

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// With the first, requests are served by our own codec; with the second, by hyper.
const BOTH: [&str; 2] = ["", "?by-hyper"];

#[test]
fn packets_are_answered_on_a_connection_that_stays_open() {
    run(async {
        let node = Node::start(Options::default()).await;
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        for (path, token, id) in [
            ("/ilp", "a", ALICE),
            ("/accounts/bob/ilp", "b", BOB),
            ("/ilp?by-hyper", "a", ALICE),
            ("/accounts/bob/ilp?by-hyper", "b", BOB),
            ("/ilp", "a", ALICE),
        ] {
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
            account_until(BOB, "bob", "old", Some(1)),
        ])
        .await;
        let mut answers = Vec::new();
        let cases = [
            ("/ilp", ""),
            ("/ilp", "authorization: Bearer x\r\n"),
            ("/ilp", "authorization: Basic a\r\n"),
            ("/ilp", "authorization: Bearer old\r\n"),
            ("/accounts/alice/ilp", "authorization: Bearer x\r\n"),
            ("/accounts/bob/ilp", "authorization: Bearer a\r\n"),
            ("/accounts/carol/ilp", "authorization: Bearer a\r\n"),
        ];
        for ((path, headers), query) in cases.iter().flat_map(|case| BOTH.map(|by| (*case, by))) {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            let mut head = post(&format!("{path}{query}"), headers, &[0; 300]);
            head.truncate(head.len() - 300);
            answers.push(exchange(&mut stream, &head).await);
        }
        assert!(answers[0].starts_with("HTTP/1.1 401 Unauthorized\r\n"));
        assert!(answers[0].contains("www-authenticate: Bearer\r\n"));
        for (index, answer) in answers.iter().enumerate() {
            assert_eq!(answer, &answers[index % BOTH.len()]);
        }
        assert!(answers[1].starts_with("HTTP/1.1 401 Unauthorized\r\n"));
        assert!(answers[1].contains("www-authenticate: Bearer\r\n"));
        let count = |reason| node.auth_counters.get(reason);
        assert_eq!(count(Reason::AuthMissing), 2 * 2);
        assert_eq!(count(Reason::AuthUnknownToken), 4 * 2);
        assert_eq!(count(Reason::AuthExpiredToken), 2);
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
        let too_large = vec![12; PACKET_BODY_BYTES_MAX + 1];
        for (request, status) in [
            (get("/ilp"), 405),
            (get("/accounts/alice/ilp"), 405),
            (get("/nothing/here"), 404),
            (get("/ilp/btp"), 426),
            (post("/ilp/btp", "", b""), 405),
            (post("/ilp", &text, b""), 415),
            (post("/ilp?by-hyper", &text, b""), 415),
            (head(PACKET_BODY_BYTES_MAX + 1).into_bytes(), 413),
            (post("/ilp?by-hyper", auth, &too_large), 413),
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
        let types = [
            "",
            "content-type: application/octet-stream\r\n",
            "content-type: application/ilp+octet-stream\r\n",
            "content-type: Application/Octet-Stream; charset=x\r\n",
        ];
        // From then on the connection is hyper's.
        for (query, content_type) in BOTH.iter().flat_map(|by| types.map(|of| (by, of))) {
            let headers = format!("authorization: Bearer a\r\n{content_type}");
            let body = vec![12; PACKET_BODY_BYTES_MAX];
            stream
                .write_all(&post(&format!("/ilp{query}"), &headers, &body))
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
        for query in BOTH {
            let node = Node::start(Options::default()).await;
            let request = post(
                &format!("/ilp{query}"),
                "authorization: Bearer a\r\n",
                PREPARE,
            );
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
        }
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
        for query in BOTH {
            let mut node = Node::start(Options::default()).await;
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            let request = post(
                &format!("/ilp{query}"),
                "authorization: Bearer a\r\n",
                PREPARE,
            );
            stream.write_all(&request).await.unwrap();
            let (_, link, request, _) = node.prepare().await;
            node.worker.drain();
            (&mut node.serving).await.unwrap();
            assert!(TcpStream::connect(node.address).await.is_err());
            node.answer(link, request, FULFILL);
            let response = read_message(&mut stream).await;
            assert!(response.contains("connection: close\r\n"), "{response}");
            assert!(response.as_bytes().ends_with(FULFILL));
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        }
    });
}

#[test]
fn whoever_is_idle_holds_up_no_node_that_stops() {
    run(async {
        for query in BOTH {
            let node = Node::start(Options::default()).await;
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            let request = post(
                &format!("/ilp{query}"),
                "authorization: Bearer a\r\n",
                PREPARE,
            );
            stream.write_all(&request).await.unwrap();
            let (_, link, request, _) = node.prepare().await;
            assert_eq!(node.worker.unfinished_count(), 1);
            node.answer(link, request, FULFILL);
            assert!(read_message(&mut stream).await.contains(" 200 "));
            node.worker.close();
            until(|| node.worker.unfinished_count() == 0).await;
            if query != BOTH[0] {
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            }
        }
        let node = Node::start(Options::default()).await;
        let stream = TcpStream::connect(node.address).await.unwrap();
        let (client, connection): (http2::SendRequest<Full<Bytes>>, _) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let connection = spawn_local(connection);
        until(|| node.worker.unfinished_count() == 1).await;
        node.worker.close();
        until(|| node.worker.unfinished_count() == 0).await;
        drop((client, connection.await));
    });
}

/// Bytes and what becomes of them, from a file that other tests of the listener may read too.
fn smuggling() -> Vec<(String, Vec<u8>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smuggling");
    let files = fs::read_dir(corpus).unwrap();
    files
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        })
        .collect()
}

#[test]
fn a_request_that_two_readers_would_read_differently_is_the_last_of_its_connection() {
    run(async {
        let node = Node::start(Options::default()).await;
        let hidden = post("/ilp", "authorization: Bearer a\r\n", PREPARE);
        let requests = smuggling();
        for (name, ambiguous) in &requests {
            // Alone, and behind a request that is sound.
            for before in [&b""[..], &post("/ilp", "", b"")] {
                let mut stream = TcpStream::connect(node.address).await.unwrap();
                let bytes = [before, ambiguous, &hidden].concat();
                stream.write_all(&bytes).await.unwrap();
                if !before.is_empty() {
                    let first = read_message(&mut stream).await;
                    assert!(first.starts_with("HTTP/1.1 401 "), "{name}: {first}");
                }
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
                assert!(
                    answer.contains("\r\nconnection: close\r\n"),
                    "{name}: {answer}"
                );
                assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
            }
        }
        assert!(
            node.input().now_or_never().is_none(),
            "a packet came through"
        );
        let count = requests.len();
        println!(
            "reliability: smuggling | {count} ambiguous requests, first and second of a connection | 0 came through"
        );
    });
}

#[test]
fn requests_in_one_piece_and_in_many_are_answered_in_order() {
    run(async {
        let node = Node::start(Options::default()).await;
        let request = |body: &[u8]| post("/ilp", "authorization: Bearer a\r\n", body);
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let wrong = post("/ilp", "authorization: Bearer x\r\n", b"\x0cwrong");
        let all = [
            request(b"\x0c1"),
            wrong,
            request(b"\x0c2"),
            request(b"\x0c3"),
        ]
        .concat();
        stream.write_all(&all).await.unwrap();
        for packet in [b"\x0c1", b"\x0c2", b"\x0c3"] {
            let (_, link, request, found) = node.prepare().await;
            assert_eq!(&found[..], packet);
            assert!(node.input().now_or_never().is_none(), "one at a time");
            node.answer(link, request, FULFILL);
            if packet == b"\x0c2" {
                let refused = read_message(&mut stream).await;
                assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
            }
            assert!(read_message(&mut stream).await.starts_with("HTTP/1.1 200 "));
        }
        for byte in request(PREPARE) {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (_, link, request, found) = node.prepare().await;
        assert_eq!(found, PREPARE);
        node.answer(link, request, FULFILL);
        assert!(read_message(&mut stream).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_client_that_goes_away_inside_a_request_is_forgotten() {
    run(async {
        let node = Node::start(Options::default()).await;
        let request = post("/ilp", "authorization: Bearer a\r\n", PREPARE);
        for before in [&b""[..], &post("/ilp", "", b"")] {
            for len in 0..request.len() {
                let mut stream = TcpStream::connect(node.address).await.unwrap();
                stream.write_all(before).await.unwrap();
                stream.write_all(&request[..len]).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut answers = String::new();
                stream.read_to_string(&mut answers).await.unwrap();
                assert_eq!(answers.is_empty(), before.is_empty(), "{len}: {answers}");
            }
        }
        until(|| node.worker.connection_count() == 0).await;
        assert!(node.input().now_or_never().is_none());
    });
}

#[test]
fn a_connection_that_wants_more_gets_it_with_what_it_has_sent() {
    run(async {
        let node = Node::start(Options::default()).await;
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let head = "POST /ilp HTTP/1.1\r\nhost: h\r\nauthorization: Bearer a\r\n";
        let packet = format!("{head}content-length: 2\r\n\r\n\x0c1");
        let chunked =
            format!("{head}transfer-encoding: chunked\r\n\r\n1\r\n\x0c\r\n1\r\n2\r\n0\r\n\r\n");
        let other = "GET /carol HTTP/1.1\r\nhost: h\r\naccept: application/spsp4+json\r\n\r\n";
        let expect = format!("{head}expect: 100-continue\r\ncontent-length: 2\r\n\r\n");
        // All at once, so that it is read at once.
        let all = [&packet, &chunked, other, &expect].concat();
        stream.write_all(all.as_bytes()).await.unwrap();
        for packet in [b"\x0c1", b"\x0c2"] {
            let (_, link, request, found) = node.prepare().await;
            assert_eq!(&found[..], packet);
            node.answer(link, request, FULFILL);
            assert!(read_message(&mut stream).await.starts_with("HTTP/1.1 200 "));
        }
        let spsp = read_message(&mut stream).await;
        assert!(spsp.contains("destination_account"), "{spsp}");
        let go_on = read_message(&mut stream).await;
        assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
        stream.write_all(b"\x0c3").await.unwrap();
        let (_, link, request, found) = node.prepare().await;
        assert_eq!(&found[..], b"\x0c3");
        node.answer(link, request, FULFILL);
        assert!(read_message(&mut stream).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    run(async {
        let node = Node::start(Options::default()).await;
        for (headers, len, status) in [
            ("", 30_000, 401),
            (
                "authorization: Bearer a\r\ncontent-type: text/plain\r\n",
                30_000,
                415,
            ),
            (
                "authorization: Bearer a\r\n",
                PACKET_BODY_BYTES_MAX + 1,
                413,
            ),
        ] {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            stream
                .write_all(&post("/ilp", headers, &vec![0; len]))
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    });
}

#[test]
fn strangers_who_say_nothing_make_room_for_those_who_do() {
    run(async {
        let node = Node::start(Options {
            newcomers: NewcomerLimits {
                count_max: 3,
                per_address_max: 2,
            },
            ..Options::default()
        })
        .await;
        let packet = |query: &str| {
            post(
                &format!("/ilp{query}"),
                "authorization: Bearer a\r\n",
                PREPARE,
            )
        };
        // Both of these stay, as they have said who they are: nobody's place is taken.
        let mut known = Vec::new();
        for query in BOTH {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            stream.write_all(&packet(query)).await.unwrap();
            let (_, link, request, _) = node.prepare().await;
            node.answer(link, request, FULFILL);
            read_message(&mut stream).await;
            known.push((query, stream));
        }
        assert_eq!(node.newcomer_counters.open(), 0);

        // Silent, with half a head, with a request that needs no token, and as a BTP client.
        let half = b"POST /ilp HTTP/1.1\r\nhost:";
        let unknown = b"GET /x/y HTTP/1.1\r\nhost: h\r\n\r\n";
        let btp = b"GET /ilp/btp HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut strangers = Vec::new();
        for (bytes, answer) in [
            (&b""[..], ""),
            (half, ""),
            (unknown, " 404 "),
            (btp, " 101 "),
        ] {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            if !answer.is_empty() {
                assert!(read_message(&mut stream).await.contains(answer));
            }
            strangers.push(stream);
            let before = strangers.len().saturating_sub(2) as u64;
            until(|| node.newcomer_counters.displaced() == before).await;
        }
        // And the next two take the places of the last two.
        for query in BOTH {
            let stream = TcpStream::connect(node.address).await.unwrap();
            until(|| node.newcomer_counters.open() == 2).await;
            known.push((query, stream));
        }
        for mut stranger in strangers {
            let read = stranger.read(&mut [0]).await;
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
        assert_eq!(node.newcomer_counters.displaced(), 4);
        for (query, mut stream) in known {
            stream.write_all(&packet(query)).await.unwrap();
            let (_, link, request, _) = node.prepare().await;
            node.answer(link, request, FULFILL);
            assert!(read_message(&mut stream).await.starts_with("HTTP/1.1 200 "));
        }
        assert_eq!(node.newcomer_counters.open(), 0);
    });
}

#[test]
fn a_client_is_not_late_while_its_packet_is_out_and_is_let_go_when_it_stays_silent() {
    run_for(20 * HEAD_TIMEOUT, async {
        let node = Node::start(Options::default()).await;
        for long in [Duration::ZERO, 3 * HEAD_TIMEOUT] {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            for _ in 0..2 {
                let headers = "authorization: Bearer a\r\n";
                let request = post("/ilp", headers, PREPARE);
                stream.write_all(&request).await.unwrap();
                let (_, link, request, _) = node.prepare().await;
                time::pause();
                time::sleep(long).await;
                time::resume();
                node.answer(link, request, FULFILL);
                let response = read_message(&mut stream).await;
                assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            }
            time::pause();
            let since = time::Instant::now();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            let silent = since.elapsed();
            time::resume();
            assert!(
                silent >= HEAD_TIMEOUT && silent <= 2 * HEAD_TIMEOUT,
                "{silent:?}"
            );
        }
    });
}

#[test]
fn a_client_that_reads_nothing_is_let_go() {
    run_for(4 * HEAD_TIMEOUT, async {
        let node = Node::start(Options::default()).await;
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let large: &'static [u8] = vec![0x0d; 30_000].leak();
        let requests = post("/ilp", "authorization: Bearer a\r\n", PREPARE).repeat(1_000);
        // More than the sockets take, in both directions.
        let (mut answered, mut sent) = (0, 0);
        while answered < 1_000 {
            tokio::select! {
                biased;
                (_, link, request, _) = node.prepare() => {
                    node.answer(link, request, large);
                    answered += 1;
                }
                count = stream.write(&requests[sent..]), if sent < requests.len() => {
                    sent += count.unwrap();
                }
                () = time::sleep(Duration::from_secs(1)) => break,
            }
        }
        assert!((1..1_000).contains(&answered), "{answered}");
        assert_eq!(node.worker.unfinished_count(), 1);
        time::pause();
        time::sleep(HEAD_TIMEOUT + Duration::from_secs(1)).await;
        assert_eq!(node.worker.unfinished_count(), 0);
        assert_eq!(node.worker.connection_count(), 0);
    });
}
