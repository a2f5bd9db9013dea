//! A peer that tells routes as it should not, over its socket: each message is refused or ignored, told to
//! the operator once, and counted; what it told before stays in use, and nobody else notices.

use rialto_ccp::{
    CONTROL_DESTINATION, TableId, UPDATE_DESTINATION, UpdateBuilder, UpdateHead,
    message::{List, Route},
};
use rialto_packet::{
    Address, PEER_CONDITION, PEER_FULFILLMENT, Prepare, PrepareBuilder, Timestamp, oer,
};
use serde_json::json;

use crate::{
    hostile::{EVE, World, only, packets},
    raw::{Client, OCTETS, Server, fulfill, fulfill_with, outcome},
};

/// Times that each mistake is made.
const TIMES: u32 = 3;

/// Most routes that the hub takes from eve.
const ROUTES_MAX: usize = 1_000;

/// Routes that eve tells at once beyond those.
const FLOOD: usize = 100_000;

/// Routes in one update, as many as fit.
const UPDATE_ROUTES: usize = 400;

/// Times that one route comes and goes, and more if hardly anybody else was there so far.
const FLAPS: u32 = 1_000;

/// eve, who tells what she likes.
struct Eve {
    client: Client,
    table: TableId,
    /// How far the hub knows the table.
    epoch: u32,
}

impl Eve {
    /// Sends an update as it is; what became of it.
    fn send(&mut self, destination: &str, data: &[u8]) -> String {
        let destination: Address = destination.parse().unwrap();
        let packet = PrepareBuilder {
            amount: 0,
            expires_at: Timestamp::from_unix_ms(4_000_000_000_000),
            condition: PEER_CONDITION,
            destination: destination.as_ref(),
            data,
        };
        outcome(&self.client.send(&packet.encode().unwrap()).unwrap())
    }

    fn tell(&mut self, table: TableId, from: u32, to: u32, builder: UpdateBuilder) -> String {
        let head = UpdateHead {
            table_id: table,
            current_epoch: to,
            from_epoch: from,
            to_epoch: to,
            hold_down_ms: 45_000,
        };
        self.send(UPDATE_DESTINATION, &builder.finish(&head, "test.eve"))
    }

    /// The next update of her table.
    fn goes_on(&mut self, builder: UpdateBuilder) -> String {
        self.epoch += 1;
        self.tell(self.table, self.epoch - 1, self.epoch, builder)
    }
}

fn routes(all: &[(&str, &[&str])]) -> UpdateBuilder {
    let mut builder = UpdateBuilder::new();
    for (prefix, path) in all {
        let mut bytes = Vec::new();
        for hop in *path {
            oer::put_var_octets(&mut bytes, hop.as_bytes());
        }
        let route = Route {
            prefix,
            path: List {
                count: path.len(),
                bytes: &bytes,
            },
            auth: [0; 32],
            properties: List {
                count: 0,
                bytes: &[],
            },
        };
        builder.route(None, &route);
    }
    builder
}

fn without(prefix: &str) -> UpdateBuilder {
    let mut builder = UpdateBuilder::new();
    builder.withdraw(prefix);
    builder
}

/// What the hub counted for this reason, and the lines about it.
fn told(world: &World, reason: &str) -> (u64, usize) {
    let (_, page) = world.hub.call("GET", "/metrics", None);
    let line = format!("rialto_route_troubles_total{{account=\"eve\",reason=\"{reason}\"}} ");
    let page = page.as_str().unwrap().to_owned();
    let count = page.lines().find_map(|found| found.strip_prefix(&line));
    let words = format!("\"reason\":\"{reason}\"");
    let log = world.hub.log();
    let lines = log.lines().filter(|line| line.contains(&words));
    let lines = lines.filter(|line| line.contains("\"eve\"") && line.contains("routes: "));
    (
        count.map_or(0, |count| count.parse().unwrap()),
        lines.count(),
    )
}

#[test]
fn bad_routes_are_refused_counted_and_told_once_and_hurt_nobody() {
    let world = World::start();
    let server = Server::start(|packet| {
        let prepare = Prepare::parse(packet).unwrap();
        let answer = match prepare.destination().as_str() {
            CONTROL_DESTINATION | UPDATE_DESTINATION => fulfill_with(PEER_FULFILLMENT),
            _ => fulfill(packet),
        };
        Some((200, OCTETS, answer))
    });
    world.eve(&json!({
        "relation": "peer", "ilp_address": "test.eve",
        "http": {"url": format!("http://{}/ilp", server.address), "token": "t"},
        "routes": {"send": true, "receive": true, "count_max": ROUTES_MAX},
    }));
    let mut eve = Eve {
        client: Client::new(world.hub.node, "/accounts/eve/ilp", EVE),
        table: TableId([1; 16]),
        epoch: 5,
    };
    let good = |world: &World| {
        let sent = world.send(&packets(1, "test.far.x", 20_000, 32));
        assert_eq!(sent, only("fulfill", 1), "the route that was told before");
    };
    let far = [("test.far", &["test.eve"][..])];
    assert_eq!(eve.tell(eve.table, 0, 5, routes(&far)), "fulfill");
    good(&world);

    // Of another time.
    for _ in 0..TIMES {
        let more = routes(&[("test.gap", &["test.eve"])]);
        assert_eq!(eve.tell(eve.table, 6, 7, more), "F00 ccp.gap");
        assert_eq!(eve.tell(eve.table, 2, 4, without("test.far")), "fulfill");
        assert_eq!(eve.send(UPDATE_DESTINATION, &[1; 40]), "F00 ccp.malformed");
        good(&world);
    }
    let gone = world.send(&packets(1, "test.gap.x", 20_000, 32));
    assert_eq!(gone, only("F02 route.none", 1));

    // Of no use: the update is taken, and the route is not.
    for (prefix, path, reason) in [
        ("test.loop", &["test.eve", "test.hub", "test.x"][..], "loop"),
        ("test.hub.dave", &["test.eve"], "own_prefix"),
        ("peer.x", &["test.eve"], "peer_prefix"),
        ("", &["test.eve"], "too_general"),
        ("g.far", &["test.eve"], "other_network"),
    ] {
        for _ in 0..TIMES {
            let update = routes(&[(prefix, path)]);
            assert_eq!(eve.goes_on(update), "fulfill", "{reason}");
            good(&world);
        }
        assert_eq!(told(&world, reason), (u64::from(TIMES), 1), "{reason}");
    }
    for reason in ["gap", "old_epoch", "malformed"] {
        assert_eq!(told(&world, reason), (u64::from(TIMES), 1), "{reason}");
    }
    let gone = world.send(&packets(1, "test.loop.x", 20_000, 32));
    assert_eq!(gone, only("F02 route.none", 1));

    // One that comes and goes.
    let flapping = [("test.flap", &["test.eve"][..])];
    let mut flaps = 0;
    while flaps < FLAPS || world.goes_on() {
        assert_eq!(eve.goes_on(routes(&flapping)), "fulfill");
        assert_eq!(eve.goes_on(without("test.flap")), "fulfill");
        flaps += 1;
    }
    assert_eq!(eve.goes_on(routes(&flapping)), "fulfill");
    let gone = world.send(&packets(1, "test.flap.x", 20_000, 32));
    assert_eq!(gone, only("F02 route.none", 1), "held back");
    let (count, lines) = told(&world, "flapping");
    assert!(count > u64::from(flaps) / 2, "{count}");
    assert_eq!(lines, 1);
    good(&world);

    // Far too many.
    let names: Vec<_> = (0..FLOOD).map(|number| format!("test.n{number}")).collect();
    for names in names.chunks(UPDATE_ROUTES) {
        let all: Vec<_> = { names.iter() }
            .map(|name| (name.as_str(), &["test.eve"][..]))
            .collect();
        assert_eq!(eve.goes_on(routes(&all)), "fulfill");
    }
    // The one that was there before, and as many as fit beside it.
    let beyond = u64::try_from(FLOOD + 1 - ROUTES_MAX).unwrap();
    assert_eq!(told(&world, "too_many"), (beyond, 1));
    let peers = world.hub.ok("GET", "/v1/routes/peers", None);
    let learnt =
        { peers["peers"].as_array().unwrap().iter() }.find(|peer| peer["account"] == "eve");
    assert_eq!(learnt.unwrap()["learnt"], ROUTES_MAX, "{peers}");
    good(&world);

    // Other tables, that the hub does not know: it asks for them, and keeps what it has.
    for table in 2..2 + u8::try_from(TIMES).unwrap() {
        let said = eve.tell(TableId([table; 16]), 3, 4, without("test.far"));
        assert_eq!(said, "F00 ccp.gap");
        good(&world);
    }
    assert_eq!(told(&world, "foreign_table"), (u64::from(TIMES), 1));
    world.end(&format!(
        "routes told with 10 mistakes {TIMES} times each, {FLOOD} beyond {ROUTES_MAX}, one coming and \
         going {flaps} times"
    ));
}
