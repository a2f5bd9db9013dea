//! Rates from outside: a server, a file, a program; and what they get wrong.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{ADMIN_TOKEN, Node, wait_for};

/// What a server of rates answers.
#[derive(Clone)]
enum Answer {
    /// Status, further headers, body.
    With(&'static str, &'static str, String),
    /// Nothing, while the connection stays open.
    Never,
    /// A head, and then nothing more.
    Half,
}

fn table(price: &str) -> Answer {
    let body = format!(r#"{{"base":"USD","rates":{{"EUR":{price}}}}}"#);
    Answer::With("200 OK", "Content-Type: application/json\r\n", body)
}

/// A server on a thread of its own, whose answer can be changed, and the first lines of requests.
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&server.answer), Arc::clone(&server.asked));
        thread::spawn(move || {
            // Connections that get no answer stay open.
            let mut open = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = stream;
                let mut head = [0; 1024];
                let read = stream.read(&mut head).unwrap_or(0);
                let line = String::from_utf8_lossy(&head[..read]);
                let line = line.lines().next().unwrap_or_default().to_owned();
                asked.lock().unwrap().push(line);
                let text = match answer.lock().unwrap().clone() {
                    Answer::With(status, headers, body) => format!(
                        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    ),
                    Answer::Never => String::new(),
                    Answer::Half => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{".to_owned(),
                };
                let _ = stream.write_all(text.as_bytes());
                if text.is_empty() || text.ends_with("\r\n\r\n{") {
                    open.push(stream);
                }
            }
        });
        server
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

/// A node with a wallet in USD and a shop in EUR.
fn node(rates: &str) -> Node {
    let node = Node::start("rates", "test.rates", &format!("[rates]\n{rates}\n"));
    for (name, code) in [("wallet", "USD"), ("shop", "EUR")] {
        node.account(json!({
            "name": name, "relation": "local", "asset_code": code, "asset_scale": 6,
            "limits": {"balance_min": "-1000000000000"},
        }));
    }
    node
}

fn feed(node: &Node) -> Value {
    node.ok("GET", "/v1/rates", None)["feed"].clone()
}

fn price(node: &Node, code: &str) -> Option<Value> {
    let feed = feed(node);
    let prices = feed["prices"].as_array()?;
    prices.iter().find(|price| price["code"] == code).cloned()
}

fn wait_price(node: &Node, code: &str, rate: &str) {
    wait_for(&format!("{code} at {rate}: {}", feed(node)), || {
        (price(node, code)?["rate"] == rate).then_some(())
    });
}

fn wait_failure(node: &Node, words: &str) {
    wait_for(&format!("a failure with '{words}'"), || {
        feed(node)["failure"]
            .as_str()?
            .contains(words)
            .then_some(())
    });
}

/// What a payment of 1 USD delivers.
fn delivered(node: &Node, key: &str) -> String {
    let request =
        json!({"account": "wallet", "receiver": node.pointer("shop"), "amount": "1000000"});
    // Keys have no blanks.
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let payment = node.pay(&key, &request);
    assert_eq!(payment["state"], "completed", "{payment}");
    payment["delivered"]["amount"].as_str().unwrap().to_owned()
}

fn metric(node: &Node, name: &str) -> u64 {
    let metrics = node.ok("GET", "/metrics", None);
    let line = metrics
        .as_str()
        .unwrap()
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

/// The command-line client.
fn rialto(node: &Node, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rialto"))
        .args(arguments)
        .env("RIALTO_URL", format!("http://{}", node.admin))
        .env("RIALTO_TOKEN", ADMIN_TOKEN)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn a_server_of_rates_and_what_it_gets_wrong() {
    let server = Server::start(table("0.92"));
    let url = format!("http://{}/rates?key=k", server.address);
    let node = node(&format!(
        "source = \"http\"\nurl = \"{url}\"\nbase = \"USD\"\nevery_s = 1\nconfirm_count = 0\n\
         spreads = {{ \"USD/EUR\" = \"0.5\" }}"
    ));
    wait_price(&node, "EUR", "0.92");
    assert_eq!(
        server.asked.lock().unwrap()[0],
        "GET /rates?key=k&base=USD HTTP/1.1"
    );
    assert_eq!(delivered(&node, "good"), "460000");

    let html = || {
        (
            "Content-Type: text/html\r\n",
            "<html>Sign in</html>".to_owned(),
        )
    };
    let elsewhere = "Location: http://203.0.113.1/\r\n";
    let mut cases = 0;
    for (answer, words) in [
        (table("0"), "0 as the price of EUR"),
        (table("-0.92"), "-0.92 as the price of EUR"),
        (table("NaN"), "is not JSON"),
        (table("\"NaN\""), "NaN as the price of EUR"),
        (table("\"Infinity\""), "Infinity as the price of EUR"),
        (table("1e999"), "1e999 as the price of EUR"),
        (table("0.92").other_base(), "prices in GBP, not in USD"),
        (
            Answer::With("200 OK", html().0, html().1),
            "of type \"text/html\", is not JSON",
        ),
        (
            Answer::With("302 Found", elsewhere, String::new()),
            "redirects to \"http://203.0.113.1/\"",
        ),
        (
            Answer::With("500 Oops", "", String::new()),
            "answered with status 500",
        ),
        (Answer::With("200 OK", "", "x".repeat(2 << 20)), "too long"),
        (Answer::Never, "did not answer within 10 s"),
        (Answer::Half, "did not answer within 10 s"),
    ] {
        let failed = metric(&node, "rialto_rates_failed_total");
        let is_silent = matches!(answer, Answer::Never | Answer::Half);
        server.answer(answer);
        if is_silent {
            // Packets do not wait for it.
            let asked = server.asked.lock().unwrap().len();
            wait_for("the next request", || {
                (server.asked.lock().unwrap().len() > asked).then_some(())
            });
            assert_eq!(delivered(&node, &format!("meanwhile {cases}")), "460000");
        }
        wait_for(&format!("one more failure for '{words}'"), || {
            (metric(&node, "rialto_rates_failed_total") > failed).then_some(())
        });
        wait_failure(&node, words);
        assert_eq!(delivered(&node, &format!("after {words}")), "460000");
        cases += 1;
        if is_silent {
            server.answer(table("0.92"));
            wait_for("rates again", || {
                feed(&node)["failure"].is_null().then_some(())
            });
        }
    }

    // The same failure over and over is one line.
    server.answer(Answer::With("418 Teapot", "", String::new()));
    let failed = metric(&node, "rialto_rates_failed_total");
    wait_for("three failures", || {
        (metric(&node, "rialto_rates_failed_total") >= failed + 3).then_some(())
    });
    let log = node.log();
    assert_eq!(log.matches("status 418").count(), 1, "{log}");

    // An absurd move waits for the operator.
    server.answer(table("9.2"));
    wait_for("a price that waits", || {
        (price(&node, "EUR")?["waiting"] == "9.2").then_some(())
    });
    assert_eq!(delivered(&node, "absurd"), "460000");
    assert!(metric(&node, "rialto_rates_moved_total") > 0);
    let (_, list) = rialto(&node, &["rate", "list"]);
    assert!(list.contains("9.2 waits") && list.contains(&url), "{list}");
    assert!(rialto(&node, &["rate", "confirm", "EUR"]).0);
    assert_eq!(delivered(&node, "confirmed"), "4600000");
    assert!(!rialto(&node, &["rate", "confirm", "EUR"]).0);
    println!(
        "reliability: rates | {cases} wrong answers of a rate server | 0 rates taken, 0 packets lost"
    );
}

impl Answer {
    fn other_base(self) -> Self {
        match self {
            Self::With(status, headers, body) => {
                Self::With(status, headers, body.replace("USD", "GBP"))
            }
            Self::Never | Self::Half => self,
        }
    }
}

#[test]
fn rates_that_nobody_renews_stop_conversion() {
    let server = Server::start(table("0.92"));
    let url = format!("http://{}/", server.address);
    let node = node(&format!(
        "source = \"http\"\nurl = \"{url}\"\nbase = \"USD\"\nevery_s = 1\nage_max_s = 3"
    ));
    wait_price(&node, "EUR", "0.92");
    assert_eq!(delivered(&node, "fresh"), "920000");
    server.answer(Answer::With("500 Oops", "", String::new()));
    wait_for("a stale price", || {
        (price(&node, "EUR")?["stale"] == true).then_some(())
    });
    let request =
        json!({"account": "wallet", "receiver": node.pointer("shop"), "amount": "1000000"});
    let payment = node.pay("stale", &request);
    assert_eq!(payment["state"], "failed");
    assert!(payment.to_string().contains("fx.stale"), "{payment}");
    server.answer(table("0.93"));
    wait_price(&node, "EUR", "0.93");
    assert_eq!(delivered(&node, "fresh again"), "930000");
}

#[test]
fn a_file_of_rates_is_read_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rates.json");
    let replace = |text: &str, age_s: u64| {
        let new = folder.path().join("new");
        fs::write(&new, text).unwrap();
        let at = std::time::SystemTime::now() - Duration::from_secs(age_s);
        fs::File::options()
            .write(true)
            .open(&new)
            .unwrap()
            .set_modified(at)
            .unwrap();
        fs::rename(&new, &path).unwrap();
    };
    replace(r#"{"base":"USD","rates":{"EUR":0.92}}"#, 300);
    let node = node(&format!("source = \"file\"\nfile = {path:?}\nevery_s = 1"));
    wait_price(&node, "EUR", "0.92");
    assert!(
        price(&node, "EUR").unwrap()["age_seconds"]
            .as_i64()
            .unwrap()
            >= 300
    );
    replace(r#"{"base":"USD","rates":{"EUR":0.93}}"#, 200);
    wait_price(&node, "EUR", "0.93");
    replace("half of a fi", 100);
    wait_failure(&node, "is not JSON");
    fs::remove_file(&path).unwrap();
    wait_failure(&node, "cannot read");
    assert_eq!(delivered(&node, "old"), "930000");
    replace(r#"{"base":"USD","rates":{"EUR":0.94}}"#, 0);
    wait_price(&node, "EUR", "0.94");
    assert!(feed(&node)["failure"].is_null());
}

#[test]
fn the_daily_file_of_the_bank_over_http_and_from_a_file() {
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let xml = format!(
        "<?xml version=\"1.0\"?><Envelope><Cube><Cube time='{today}'><Cube currency='USD' rate='1.25'/>\
         </Cube></Cube></Envelope>"
    );
    let server = Server::start(Answer::With(
        "200 OK",
        "Content-Type: text/xml\r\n",
        xml.clone(),
    ));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eurofxref-daily.xml");
    fs::write(&path, xml).unwrap();
    let url = format!("http://{}/eurofxref-daily.xml", server.address);
    for place in [format!("url = \"{url}\""), format!("file = {path:?}")] {
        let node = node(&format!("source = \"ecb\"\n{place}"));
        wait_price(&node, "USD", "1.25");
        assert_eq!(delivered(&node, "one"), "800000");
    }
}

#[test]
fn a_program_pushes_rates() {
    let node = node("source = \"push\"\nbase = \"USD\"\nconfirm_count = 2\nage_max_s = 3600");
    let push = |price: Value| {
        let table = json!({"base": "USD", "rates": {"EUR": price}});
        node.call("PUT", "/v1/rates/feed", Some(table))
    };
    assert_eq!(push(json!("0.92")), (200, json!({"moved": []})));
    assert_eq!(delivered(&node, "first"), "920000");
    assert_eq!(push(json!(0)).0, 422);
    assert_eq!(push(json!("-1")).0, 422);
    let html = Some(json!("<html>"));
    assert_eq!(node.call("PUT", "/v1/rates/feed", html).0, 422);
    assert_eq!(push(json!(1.5)), (200, json!({"moved": ["EUR"]})));
    assert_eq!(delivered(&node, "waits"), "920000");
    assert_eq!(
        push(json!(1.49)),
        (200, json!({"moved": []})),
        "the second that says so"
    );
    assert_eq!(delivered(&node, "taken"), "1490000");
    // A rate set by hand goes over it.
    node.ok(
        "PUT",
        "/v1/rates",
        Some(json!({"from": "USD", "to": "EUR", "rate": "2"})),
    );
    assert_eq!(delivered(&node, "by hand"), "2000000");
    let (_, list) = rialto(&node, &["rate", "list"]);
    assert!(
        list.contains("set by hand") && list.contains("push"),
        "{list}"
    );
}

#[test]
fn a_program_cannot_push_what_comes_from_elsewhere() {
    let node = node("");
    let table = json!({"base": "USD", "rates": {"EUR": "1"}});
    assert_eq!(node.call("PUT", "/v1/rates/feed", Some(table)).0, 409);
}
