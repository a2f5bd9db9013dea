use rialto_links::{
    ClientTls,
    spsp_client::{self, Permissions, QueryError},
};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Node, Options, exchange, run, stranger};

const INSECURE: Permissions = Permissions {
    insecure: true,
    other_hosts: false,
};

async fn ask(node: &Node, method: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
    exchange(&mut stream, request.as_bytes()).await
}

async fn query(url: &str) -> Result<spsp_client::Answer, QueryError> {
    spsp_client::query(url, INSECURE, &ClientTls::new(None, None).unwrap()).await
}

#[test]
fn a_pointer_is_answered_for_every_kind_of_payer() {
    run(async {
        let node = Node::start(Options::default()).await;
        for path in ["/carol", "/accounts/carol/spsp", "/.well-known/pay"] {
            let response = ask(&node, "GET", path, "accept: application/spsp4+json\r\n").await;
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            for part in [
                "content-type: application/spsp4+json\r\n",
                "cache-control: no-cache\r\n",
                "access-control-allow-origin: *\r\n",
                "access-control-allow-headers: web-monetization-id\r\n",
                "\"destination_account\":\"test.carol.x\"",
                "\"receipts_enabled\":false",
            ] {
                assert!(response.contains(part), "{part}: {response}");
            }
        }
        let options = ask(&node, "OPTIONS", "/carol", "").await;
        assert!(options.starts_with("HTTP/1.1 204 "), "{options}");
        assert!(options.contains("access-control-allow-origin: *\r\n"));
    });
}

#[test]
fn queries_that_are_not_answered() {
    run(async {
        let node = Node::start(Options::default()).await;
        for (method, path, headers, status, id) in [
            ("GET", "/nobody", "", 404, "InvalidReceiverError"),
            (
                "GET",
                "/accounts/nobody/spsp",
                "",
                404,
                "InvalidReceiverError",
            ),
            ("GET", "/dave", "", 503, "UnavailableError"),
            (
                "GET",
                "/carol",
                "accept: text/html\r\n",
                406,
                "NotAcceptableError",
            ),
            (
                "GET",
                "/carol",
                "receipt-nonce: x\r\n",
                400,
                "InvalidReceiptHeadersError",
            ),
            (
                "POST",
                "/carol",
                "content-length: 0\r\n",
                405,
                "MethodNotAllowedError",
            ),
        ] {
            let response = ask(&node, method, path, headers).await;
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status} ")),
                "{response}"
            );
            assert!(response.contains(&format!("\"id\":\"{id}\"")), "{response}");
            assert!(
                response.contains("access-control-allow-origin: *\r\n"),
                "{response}"
            );
        }
    });
}

#[test]
fn receipts_are_passed_on() {
    run(async {
        let node = Node::start(Options::default()).await;
        let headers = format!(
            "receipt-nonce: {}==\r\nreceipt-secret: {}=\r\n",
            "A".repeat(22),
            "A".repeat(43)
        );
        let response = ask(&node, "GET", "/carol", &headers).await;
        assert!(response.contains("\"receipts_enabled\":true"), "{response}");
    });
}

#[test]
fn a_receiver_is_found() {
    run(async {
        let node = Node::start(Options::default()).await;
        let url = format!("http://{}/carol", node.address);
        let answer = query(&url).await.unwrap();
        assert_eq!(
            answer.response.destination_account.to_string(),
            "test.carol.x"
        );
        assert_eq!((answer.resolved_url, answer.final_url), (url.clone(), url));
    });
}

#[test]
fn redirects_are_followed_up_to_a_bound() {
    run(async {
        let node = Node::start(Options::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let to = |location: &str| {
            format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
        };
        let url = format!("http://{address}/a");

        let elsewhere = to(&format!("http://{}/carol", node.address));
        let (answer, _) = tokio::join!(query(&url), stranger(&listener, &elsewhere));
        assert!(
            matches!(answer, Err(QueryError::Redirect { .. })),
            "{answer:?}"
        );

        let (answer, _) = tokio::join!(query(&url), async {
            for _ in 0..6 {
                stranger(&listener, &to("/a")).await;
            }
        });
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("too many redirects"), "{error}");
    });
}

#[test]
fn errors_name_the_url_and_what_came_back() {
    run(async {
        let node = Node::start(Options::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<p/>";
        let (answer, _) = tokio::join!(query(&url), stranger(&listener, html));
        let error = answer.unwrap_err().to_string();
        assert!(
            error.contains(&url) && error.contains("text/html"),
            "{error}"
        );

        let odd = "\"".repeat(9_000);
        let odd = format!("HTTP/1.1 200 OK\r\ncontent-type: {odd}\r\ncontent-length: 0\r\n\r\n");
        let (answer, _) = tokio::join!(query(&url), stranger(&listener, &odd));
        let error = answer.unwrap_err().to_string();
        assert!(error.len() < 1_000, "{} bytes", error.len());

        let long = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n{}",
            "x".repeat(70_000)
        );
        let (answer, _) = tokio::join!(query(&url), stranger(&listener, &long));
        let error = answer.unwrap_err().to_string();
        assert!(
            error.contains(&url) && error.contains("too long"),
            "{error}"
        );

        drop(listener);
        let error = query(&url).await.unwrap_err().to_string();
        assert!(error.contains(&url) && error.contains("refused"), "{error}");

        let url = format!("http://{}/nobody", node.address);
        let error = query(&url).await.unwrap_err().to_string();
        assert!(error.contains(&url) && error.contains("404"), "{error}");
        assert!(error.contains("InvalidReceiverError"), "{error}");

        let error = query("nonsense").await.unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
    });
}
