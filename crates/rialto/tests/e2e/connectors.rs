//! The reference connector, `ilp-connector` from npm, as parent, as peer and as child of real nodes.

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::{
    harness::{CREDIT, Node, Peer, wait_for},
    raw::{self, Client, outcome},
};

/// For both ways between a node and what is an account of this name there.
fn token(own: &str) -> String {
    format!("token-of-the-account-{own}")
}

/// What a JavaScript connector is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Parent,
    Peer,
    Child,
}

use Role::{Child, Parent, Peer as Equal};

impl Role {
    fn name(self) -> &'static str {
        match self {
            Parent => "parent",
            Equal => "peer",
            Child => "child",
        }
    }

    /// What we are to it.
    fn reverse(self) -> Self {
        match self {
            Parent => Child,
            Equal => Equal,
            Child => Parent,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// It dials us.
    Btp,
    /// We dial it.
    BtpServer,
    Http,
}

use Link::{Btp, BtpServer, Http};

impl Link {
    fn name(self) -> &'static str {
        match self {
            Btp => "btp",
            BtpServer => "btp-server",
            Http => "http",
        }
    }
}

/// A JavaScript connector, and the accounts it was started with.
struct Connector {
    address: String,
    accounts: Map<String, Value>,
    /// Static ones, that it tells.
    routes: Value,
    process: Option<Peer>,
    urls: Value,
}

impl Connector {
    /// `unknown` is the address of one that asks its parent.
    fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            accounts: Map::new(),
            routes: json!([]),
            process: None,
            urls: Value::Null,
        }
    }

    /// Its own children, over a server of ilp-plugin-mini-accounts.
    fn users(mut self, asset: &str) -> Self {
        let users = json!({"relation": "child", "asset": asset, "link": "mini", "port": 0});
        self.accounts.insert("users".to_owned(), users);
        self
    }

    /// An account for a node, which is not told of it yet.
    fn account(mut self, node: &Node, own: &str, role: Role, link: Link, asset: &str) -> Self {
        let url = match link {
            Btp => node.btp_url(own),
            Http => node.ilp_url(own),
            BtpServer => String::new(),
        };
        let account = json!({
            "relation": role.reverse().name(), "asset": asset, "link": link.name(), "url": url,
            "token": token(own), "routes": true, "port": 0,
        });
        self.accounts.insert(node.name.clone(), account);
        self
    }

    /// Until it can be reached; it says nothing yet. A second time it takes the same ports.
    fn listen(&mut self) {
        let accounts = Value::Object(self.accounts.clone()).to_string();
        let (address, routes) = (self.address.clone(), self.routes.to_string());
        let arguments = [
            "--address",
            &address,
            "--accounts",
            &accounts,
            "--routes",
            &routes,
            "--timeout",
            "170",
        ];
        let process = Peer::start_until("listening", "connector.js", &arguments);
        self.urls = process.ready["urls"].clone();
        for (name, url) in self.urls.as_object().unwrap() {
            let port = url.as_str().unwrap().trim_end_matches('/');
            let port: u16 = port.rsplit(':').next().unwrap().parse().unwrap();
            self.accounts[name]["port"] = port.into();
        }
        self.process = Some(process);
    }

    fn go(&mut self) {
        self.tell("go\n");
        let ready = self.process.as_mut().unwrap().next("ready");
        ready["address"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.address);
    }

    fn tell(&mut self, line: &str) {
        let process = self.process.as_mut().unwrap();
        let stdin = process.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
    }

    /// The other side of an account: what we are told of it.
    fn introduce(&self, node: &Node, own: &str, role: Role, link: Link, asset: &str) {
        let (code, scale) = asset.split_once('/').unwrap();
        let mut account = json!({
            "name": own, "relation": role.name(), "asset_code": code,
            "asset_scale": scale.parse::<u8>().unwrap(), "limits": {"balance_min": CREDIT},
            "routes": {"send": true, "receive": true},
        });
        if link != BtpServer {
            account["incoming_token"] = token(own).into();
        }
        let way = json!({"url": self.urls[&node.name], "token": token(own)});
        match link {
            Btp => {}
            BtpServer => account["btp"] = way,
            Http => account["http"] = way,
        }
        node.account(account);
    }

    fn status(&mut self) -> Value {
        self.tell("status\n");
        self.process.as_mut().unwrap().next("status")
    }

    /// What it owes an account, by its own books: as our balance with it, from the other side.
    fn balance(&mut self, account: &str) -> i128 {
        let status = self.status();
        status["balances"][account]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    fn wait_route(&mut self, prefix: &str, account: Option<&str>) {
        let what = format!("{} to have {prefix} by {account:?}", self.address);
        wait_for(&what, || {
            let status = self.status();
            (status["routes"][prefix].as_str() == account).then_some(())
        });
    }

    /// Where a child of it connects.
    fn user_url(&self, token: &str) -> String {
        let url = self.urls["users"].as_str().unwrap();
        url.replace("://", &format!("://:{token}@"))
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.process = None;
    }
}

/// The account that our packets to a prefix go to.
fn route(node: &Node, prefix: &str) -> Option<String> {
    let routes = node.ok("GET", "/v1/routes?limit=200", None);
    let mut routes = routes["routes"].as_array().unwrap().iter();
    let found = routes.find(|route| route["prefix"] == prefix)?;
    Some(found["account"].as_str().unwrap_or("self").to_owned())
}

fn wait_route(node: &Node, prefix: &str, account: Option<&str>) {
    let what = format!("{} to have {prefix} by {account:?}", node.name);
    wait_for(&what, || {
        (route(node, prefix).as_deref() == account).then_some(())
    });
}

fn wait_address(node: &Node, address: &str) {
    wait_for(&format!("{} to be {address}", node.name), || {
        (node.ok("GET", "/v1/status", None)["ilp_address"] == address).then_some(())
    });
}

fn set_rate(node: &Node, from: &str, to: &str, rate: &str) {
    let body = json!({"from": from, "to": to, "rate": rate});
    node.ok("PUT", "/v1/rates", Some(body));
}

/// How packets of ours to an address end.
fn probe(node: &Node, destination: &str) -> String {
    let mut client = Client::new(node.node, "/accounts/probe/ilp", &token("probe"));
    let packet = raw::prepare(raw::next_number(), 0, destination, 10_000);
    outcome(&client.send(&packet).unwrap())
}

/// A user of one JavaScript connector pays a user of another; gives what arrived. Both stay: a payee
/// asks its payer for more than there is time to answer.
fn pay_between_users(from: &Connector, to: &Connector, amount: &str) -> (String, [Peer; 2]) {
    let mut server = Peer::start(
        "stream-server.js",
        &["--btp", &to.user_url("token-of-the-payee")],
    );
    let account = server.ready["destination_account"].as_str().unwrap();
    assert!(
        account.starts_with(&format!("{}.users.", to.address)),
        "{account}"
    );
    let mut client = Peer::start(
        "stream-client.js",
        &[
            "--btp",
            &from.user_url("token-of-the-payer"),
            "--destination",
            account,
            "--secret",
            server.ready["shared_secret"].as_str().unwrap(),
            "--amount",
            amount,
            "--stay",
        ],
    );
    let end = client.next("end");
    assert_eq!(end["sent"], amount, "{end}");
    let money = server.next("money");
    assert_eq!(end["delivered"], money["total"], "{end}");
    (
        money["total"].as_str().unwrap().to_owned(),
        [client, server],
    )
}

/// Two JavaScript connectors with a node in between, which is told and tells routes.
struct Between {
    alpha: Connector,
    hub: Node,
    beta: Connector,
}

impl Between {
    fn start(a: (Role, Link), b: (Role, Link)) -> Self {
        let has_parent = a.0 == Parent;
        let hub = Node::start("hub", if has_parent { "unknown" } else { "test.hub" }, "");
        set_rate(&hub, "EUR", "JPY", "160");
        let address = |role, own| if role == Child { "unknown" } else { own };
        let alpha = Connector::new(address(a.0, "test.alpha")).users("USD/9");
        let mut alpha = alpha.account(&hub, "alpha", a.0, a.1, "EUR/6");
        let beta = Connector::new(address(b.0, "test.beta")).users("JPY/3");
        let mut beta = beta.account(&hub, "beta", b.0, b.1, "JPY/3");
        for (connector, name, (role, link), asset) in [
            (&mut alpha, "alpha", a, "EUR/6"),
            (&mut beta, "beta", b, "JPY/3"),
        ] {
            connector.listen();
            connector.introduce(&hub, name, role, link, asset);
            if has_parent && name == "beta" {
                wait_address(&hub, "test.alpha.hub");
            }
            connector.go();
        }
        Self { alpha, hub, beta }
    }

    /// One unit of the payer's currency, exactly, by everybody's books.
    fn pay(&mut self) {
        let before = self.books();
        let (arrived, _ends) = pay_between_users(&self.alpha, &self.beta, "1000000000");
        assert_eq!(arrived, "160000");
        // USD/9 of the payer, EUR/6 between, JPY/3 between and of the payee. JavaScript counts what is
        // under way as if it had come.
        let expected = [
            1_000_000_000,
            -1_000_000,
            -1_000_000,
            160_000,
            160_000,
            -160_000,
        ];
        wait_for("the books", || {
            let moved = self.books().into_iter().zip(before).map(|(a, b)| a - b);
            moved.eq(expected).then_some(())
        });
        self.hub.assert_books_add_up();
    }

    /// Along the way, each by whose books it is.
    fn books(&mut self) -> [i128; 6] {
        [
            self.alpha.balance("users"),
            self.alpha.balance("hub"),
            self.hub.balance("alpha"),
            self.hub.balance("beta"),
            self.beta.balance("hub"),
            self.beta.balance("users"),
        ]
    }
}

fn pays_through_a_node(a: (Role, Link), b: (Role, Link)) {
    let mut row = Between::start(a, b);
    for ((role, _), connector, name) in [(a, &mut row.alpha, "alpha"), (b, &mut row.beta, "beta")] {
        match role {
            Parent | Equal => wait_route(&row.hub, &format!("test.{name}"), Some(name)),
            Child => wait_route(&row.hub, &connector.address, Some(name)),
        }
        let ours = row.hub.ok("GET", "/v1/status", None);
        connector.wait_route(ours["ilp_address"].as_str().unwrap(), Some("hub"));
    }
    if (a.0, b.0) == (Equal, Equal) {
        row.alpha.wait_route("test.beta", Some("hub"));
        row.beta.wait_route("test.alpha", Some("hub"));
        assert_eq!(
            row.alpha.status()["paths"]["test.beta"],
            "test.hub test.beta"
        );
    }
    row.pay();
    println!(
        "reliability: interop | ilp-connector ({} over {}) - the node - ilp-connector ({} over {}), \
         STREAM in USD, EUR and JPY | the same to the unit on 6 books",
        a.0.name(),
        a.1.name(),
        b.0.name(),
        b.1.name()
    );
}

#[test]
fn javascript_pays_javascript_through_its_child_and_our_child() {
    pays_through_a_node((Parent, BtpServer), (Child, Http));
}

#[test]
fn javascript_pays_javascript_through_its_child_over_http() {
    pays_through_a_node((Parent, Http), (Child, Btp));
}

#[test]
fn javascript_pays_javascript_through_a_peer() {
    pays_through_a_node((Equal, Btp), (Equal, Http));
}

/// Two nodes with a JavaScript connector in between; each role is the connector's.
fn pays_through_javascript(a: (Role, Link), b: (Role, Link)) {
    let node = |name, role| {
        let own = format!("test.{name}");
        let node = Node::start(name, if role == Parent { "unknown" } else { &own }, "");
        set_rate(&node, "USD", "EUR", "0.9");
        set_rate(&node, "GBP", "JPY", "200");
        node
    };
    let (one, two) = (node("one", a.0), node("two", b.0));
    let address = if a.0 == Child { "unknown" } else { "test.mid" };
    let mid = Connector::new(address);
    let mid = mid.account(&one, "mid", a.0, a.1, "EUR/6");
    let mut mid = mid.account(&two, "mid", b.0, b.1, "GBP/8");
    mid.listen();
    mid.introduce(&one, "mid", a.0, a.1, "EUR/6");
    mid.introduce(&two, "mid", b.0, b.1, "GBP/8");
    mid.go();
    let address = |node: &Node, role| match role {
        Parent => format!("{}.{}", mid.address, node.name),
        Equal | Child => format!("test.{}", node.name),
    };
    let (at_one, at_two) = (address(&one, a.0), address(&two, b.0));
    wait_address(&one, &at_one);
    wait_address(&two, &at_two);
    mid.wait_route(&at_one, Some("one"));
    mid.wait_route(&at_two, Some("two"));
    for (node, role, other) in [(&one, a.0, &at_two), (&two, b.0, &at_one)] {
        wait_route(node, &mid.address, Some("mid"));
        if role == Equal {
            wait_route(node, other, Some("mid"));
        }
    }

    one.account(json!({
        "name": "wallet", "relation": "local", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT},
    }));
    two.account(
        json!({"name": "shop", "relation": "local", "asset_code": "JPY", "asset_scale": 3}),
    );
    let request = json!({
        "account": "wallet", "receiver": two.pointer("shop"), "amount": "1000000000",
    });
    let payment = one.pay("through-javascript", &request);
    assert_eq!(payment["state"], "completed", "{payment}");
    assert_eq!(payment["delivered"]["amount"], "180000", "{payment}");
    let books = [
        one.balance("wallet"),
        one.balance("mid"),
        mid.balance("one"),
        mid.balance("two"),
        two.balance("mid"),
        two.balance("shop"),
    ];
    let expected = [
        -1_000_000_000,
        900_000,
        900_000,
        -90_000_000,
        -90_000_000,
        180_000,
    ];
    assert_eq!(books, expected, "USD/9, EUR/6, GBP/8 and JPY/3");
    one.assert_books_add_up();
    two.assert_books_add_up();
    println!(
        "reliability: interop | the node - ilp-connector ({} over {} and {} over {}) - the node, USD, \
         EUR, GBP and JPY | the same to the unit on 6 books",
        a.0.name(),
        a.1.name(),
        b.0.name(),
        b.1.name()
    );
}

#[test]
fn we_pay_through_our_javascript_parent() {
    pays_through_javascript((Parent, BtpServer), (Parent, Http));
}

#[test]
fn we_pay_through_a_javascript_peer() {
    pays_through_javascript((Equal, Http), (Equal, BtpServer));
}

#[test]
fn we_pay_through_our_javascript_child() {
    pays_through_javascript((Child, Http), (Parent, Btp));
}

#[test]
fn routes_over_btp_go_with_a_connector_and_come_back_with_it() {
    let mut row = Between::start((Equal, Btp), (Equal, BtpServer));
    row.hub.account(json!({
        "name": "probe", "relation": "child", "asset_code": "JPY", "asset_scale": 3,
        "incoming_token": token("probe"),
    }));
    row.alpha.wait_route("test.beta", Some("hub"));
    row.beta.wait_route("test.alpha", Some("hub"));
    row.pay();

    row.beta.kill();
    wait_route(&row.hub, "test.beta", None);
    row.alpha.wait_route("test.beta", None);
    // Nobody says that a node is down: it is not there.
    assert_eq!(probe(&row.hub, "test.beta.users.x"), "F02 route.none");
    assert_eq!(ask_as_user(&row.alpha, "test.beta.users.x"), "F02");

    let kept = row.hub.balance("beta");
    row.beta.listen();
    row.beta.go();
    row.alpha.wait_route("test.beta", Some("hub"));
    row.beta.wait_route("test.alpha", Some("hub"));
    // It forgets what it owed, we do not; what comes next is counted the same.
    assert_eq!((row.beta.balance("hub"), kept), (0, 160_000));
    assert_eq!(row.hub.balance("beta"), kept);
    row.pay();

    // Our own end, and nothing of it is theirs to repair.
    row.hub.kill();
    row.alpha.wait_route("test.beta", None);
    row.beta.wait_route("test.alpha", None);
    assert_eq!(ask_as_user(&row.alpha, "test.beta.users.x"), "F02");
    row.hub.restart();
    row.alpha.wait_route("test.beta", Some("hub"));
    row.beta.wait_route("test.alpha", Some("hub"));
    row.pay();
    println!(
        "reliability: interop | ilp-connector killed and back, the node killed and back, between two \
         ilp-connectors over BTP | routes withdrawn and told again each time, 3 payments exact"
    );
}

#[test]
fn routes_over_http_outlive_a_connector_until_it_asks_again() {
    let mut row = Between::start((Equal, Http), (Equal, Http));
    row.hub.account(json!({
        "name": "probe", "relation": "child", "asset_code": "JPY", "asset_scale": 3,
        "incoming_token": token("probe"),
    }));
    row.alpha.wait_route("test.beta", Some("hub"));
    row.beta.wait_route("test.alpha", Some("hub"));
    row.pay();

    // Without a connection nobody knows before the hold-down is over: T01 says that it may pass.
    row.beta.kill();
    assert_eq!(probe(&row.hub, "test.beta.users.x"), "T01 link.connect");
    assert_eq!(route(&row.hub, "test.beta").as_deref(), Some("beta"));
    // It comes back with more than it had, and would wait for ever to be asked.
    row.beta.routes = json!([{"targetPrefix": "test.far", "peerId": "users"}]);
    row.beta.listen();
    row.beta.go();
    row.alpha.wait_route("test.far", Some("hub"));
    row.beta.wait_route("test.alpha", Some("hub"));
    row.pay();

    // They keep our routes when we are gone, for ever, and never ask again.
    row.hub.kill();
    assert_eq!(ask_as_user(&row.alpha, "test.beta.users.x"), "F02");
    assert_eq!(row.alpha.status()["routes"]["test.beta"], "hub");
    row.hub.restart();
    let near = json!({"prefix": "test.near", "account": "probe"});
    row.hub.ok("PUT", "/v1/routes", Some(near));
    row.alpha.wait_route("test.near", Some("hub"));
    row.beta.wait_route("test.near", Some("hub"));
    wait_route(&row.hub, "test.far", Some("beta"));
    row.pay();
    let troubles = row.hub.ok("GET", "/v1/routes/peers", None);
    assert!(!troubles.to_string().contains("expired"), "{troubles}");
    println!(
        "reliability: interop | ilp-connector killed and back, the node killed and back, between two \
         ilp-connectors over HTTP | both tables complete again each time, 3 payments exact"
    );
}

#[test]
fn we_are_a_child_of_mini_accounts() {
    let hub = Node::start("hub", "unknown", "");
    let mut alpha = Connector::new("test.alpha").users("USD/9");
    alpha.listen();
    alpha.go();
    hub.account(json!({
        "name": "alpha", "relation": "parent", "asset_code": "USD", "asset_scale": 9,
        "limits": {"balance_min": CREDIT},
        "btp": {"url": alpha.urls["users"], "token": token("alpha")},
    }));
    // The name is the hash of the token.
    let address = wait_for("our address", || {
        let status = hub.ok("GET", "/v1/status", None);
        Some(status["ilp_address"].as_str()?.to_owned())
    });
    assert!(address.starts_with("test.alpha.users."), "{address}");
    assert_eq!(route(&hub, "test").as_deref(), Some("alpha"));
    for (name, relation) in [("wallet", "local"), ("leaf", "child")] {
        hub.account(json!({
            "name": name, "relation": relation, "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": CREDIT},
        }));
    }

    // To another child of it, and back.
    let url = alpha.user_url("token-of-the-payee");
    let server = Peer::start("stream-server.js", &["--btp", &url, "--spsp-port", "0"]);
    let receiver = server.ready["spsp_url"].as_str().unwrap();
    let request = json!({"account": "wallet", "receiver": receiver, "amount": "700000"});
    let payment = hub.pay("to-a-sibling", &request);
    assert_eq!(payment["state"], "completed", "{payment}");
    assert_eq!(server.stop()["total"], "700000");
    let url = alpha.user_url("token-of-the-payer");
    let pointer = hub.pointer("wallet");
    let client = Peer::start(
        "stream-client.js",
        &["--btp", &url, "--spsp", &pointer, "--amount", "300000"],
    );
    assert_eq!(client.end()["delivered"], "300000");
    assert_eq!(hub.balance("wallet"), -400_000);
    assert_eq!(hub.balance("alpha"), 400_000);
    hub.assert_books_add_up();
    println!(
        "reliability: interop | the node as child of ilp-plugin-mini-accounts pays a sibling 700000 units \
         and is paid 300000 | delivered in full"
    );
}

/// How a packet of a child of the connector's ends.
fn ask_as_user(connector: &Connector, destination: &str) -> String {
    let url = connector.user_url("token-of-one-who-asks");
    let arguments = [
        "--btp",
        &url,
        "--count",
        "1",
        "--amount",
        "1000",
        "--destination",
        destination,
    ];
    let mut peer = Peer::start("btp-peer.js", &arguments);
    let reply = peer.next("reply");
    assert_eq!(reply["type"], "reject", "{reply}");
    reply["code"].as_str().unwrap().to_owned()
}
