//! The API on a real socket.

use std::{sync::Arc, time::Duration};

use crate::node::{ADMIN, TestNode, tokens};
use rialto_admin::{HEAD_TIMEOUT, Node, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

async fn ask(stream: &mut TcpStream, request: &str) {
    let request = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\nconnection: close\r\n"
    );
    let request = format!("{request}idempotency-key: a\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_request_that_waits_is_answered_when_the_server_stops() {
    let node = TestNode::new();
    let (client, as_node) = (
        crate::node::Client::new(&node),
        Arc::<TestNode>::clone(&node),
    );
    for name in ["alice", "bob"] {
        let body = serde_json::json!({"name": name, "relation": "local", "asset_code": "USD",
            "asset_scale": 9, "limits": {"balance_min": "-100"}});
        client.must("POST", "/v1/accounts", body).await;
    }
    node.resolver.forget_permits(usize::MAX);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let until = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve(listener, as_node as Arc<dyn Node>, tokens(), until));

    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "POST /v1/payments?wait=60").await;
    let body = r#"{"account":"alice","receiver":"$node.example/bob","amount":"5"}"#;
    let rest = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(rest.as_bytes()).await.unwrap();
    while client.get("/v1/payments/1").await.status != 200 {
        tokio::task::yield_now().await;
    }
    drop(stop);
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let soon = timeout(Duration::from_secs(20), read).await;
    soon.expect("not only when the wait is over").unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n"), "{answer}");
    assert!(answer.contains(r#""state":"running""#), "{answer}");
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// As soon as nothing else is left to do, the clock stands at the next time-out.
#[tokio::test(start_paused = true)]
async fn whoever_does_not_finish_a_head_is_let_go() {
    let node = TestNode::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        node as Arc<dyn Node>,
        tokens(),
        std::future::pending(),
    ));
    for beginning in ["", "GET /v1/status HTTP/1.1\r\nhost: x\r\nx-a"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let end = timeout(2 * HEAD_TIMEOUT, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "{beginning:?} is waited for");
        assert_eq!(String::from_utf8_lossy(&answer), "");
    }
}
