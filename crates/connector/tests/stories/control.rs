//! Packets to the node itself.

use rialto_connector::{Action, Effect, Input, LinkId, RequestId, Settings};
use rialto_ledger::Relation;
use rialto_packet::{Reply, Timestamp};

use crate::{
    node::{Node, START},
    story::{account, check},
};

#[test]
fn a_child_is_told_its_address_and_asset() {
    check("
        account alice USD/9 child
        account bob   EUR/255 child address g.bob
        account carol XRP/0 peer address g.carol
        alice prepare 1 peer.config 0 condition peer            -> alice fulfill address g.hub.alice asset USD/9
        alice prepare 2 peer.config 0 condition peer data junk  -> alice fulfill address g.hub.alice asset USD/9
        bob prepare 3 peer.config 0 condition peer              -> bob fulfill address g.bob asset EUR/255
        carol prepare 4 peer.config 0 condition peer            -> carol fulfill address g.carol asset XRP/0
        balances                                                -> alice 0, bob 0, carol 0, held 0
    ");
}

#[test]
fn who_is_not_entitled_is_told_nothing() {
    check(
        "
        account alice  USD/9
        account parent USD/9 parent
        account carol  USD/9 local
        carol prepare 3 peer.config 0 condition peer            -> carol reject F00
        alice prepare 1 peer.config 0 condition peer            -> alice reject F00 by g.hub
        parent prepare 2 peer.config 0 condition peer           -> parent reject F00
    ",
    );
}

#[test]
fn services_of_neighbours_take_no_money_and_their_own_condition_only() {
    check(
        "
        account alice USD/9 child credit 5000 amount/min 1000
        alice prepare 1 peer.config 1000 condition peer         -> alice reject F00
        alice prepare 2 peer.config 1000 condition peer         -> alice reject F00
        alice prepare 3 peer.config 0                           -> alice reject F01 pkt.malformed
        alice prepare 4 peer.config 0 condition zero            -> alice reject F01
        alice prepare 5 peer.route.control 0                    -> alice reject F01
        balances                                                -> alice 0, held 0
    ",
    );
}

#[test]
fn packets_to_neighbours_never_go_further() {
    check(
        "
        account alice  USD/9 child credit 100
        account parent USD/9 parent
        route   everything -> parent
        alice prepare 1 peer.x 0 condition peer                 -> alice reject F01 addr.invalid
        alice prepare 2 peer.config.x 0 condition peer          -> alice reject F01 addr.invalid
        alice prepare 3 peer.configx 0 condition peer           -> alice reject F01 addr.invalid
        alice prepare 4 peer.settle.x 0 condition peer          -> alice reject F01 addr.invalid
        alice prepare 5 peer.route.control 0 condition peer     -> alice reject F00
        alice prepare 6 peer.route.update 0 condition peer      -> alice reject F00
        alice prepare 7 peer.x 7                                -> alice reject F01 addr.invalid
    ",
    );
}

/// The rules that the vectors of the packet crate leave to the node that answers.
#[test]
fn the_vectors_of_ildcp_requests_that_a_node_refuses() {
    let vectors = include_str!("../../../../vectors/ildcp.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors).unwrap();
    let mut seen = Vec::new();
    for vector in &vectors {
        let text = |key: &str| vector[key].as_str().unwrap_or_default();
        let code = match text("error") {
            "wrong-condition" | "wrong-destination" => "F01",
            "expired" => "R00",
            "non-zero-amount" => "F00",
            _ if vector["valid"] == true => "",
            _ => continue,
        };
        if text("kind") != "request" {
            continue;
        }
        let mut node = Node::new(Settings::new("g.hub".parse().unwrap()));
        node.now.wall = iso(text("now"));
        let name = "child";
        node.step(|core, _, out| {
            let mut settings = account(name, "USD/9");
            settings.relation = Relation::Child;
            settings.limits.balance_min = -100_000;
            core.account_create(settings, out).unwrap();
        });
        let packet = hex::decode(text("hex")).unwrap();
        let effects = node.handle(Input::Prepare {
            account: node.id(name),
            link: LinkId::Waiting { worker: 0 },
            request: RequestId(1),
            packet: packet[..].into(),
        });
        let [
            Effect {
                action: Action::Answer { packet, .. },
                ..
            },
        ] = &effects[effects.len() - 1..]
        else {
            panic!("{effects:?}")
        };
        let found = match Reply::parse(packet.clone()).unwrap() {
            Reply::Fulfill(_) => String::new(),
            Reply::Reject(reject) => reject.code().to_string(),
        };
        assert_eq!(found, code, "{}", text("name"));
        if !code.is_empty() {
            seen.push(text("name"));
        }
    }
    assert_eq!(
        seen,
        [
            "fixed: request wrong condition",
            "fixed: request zero condition",
            "fixed: request destination peer.config.x",
            "fixed: request expired 1 ms ago",
            "fixed: request expiring right now",
            "fixed: request amount 1000",
        ]
    );
}

/// `2030-08-26T12:03:15.698Z`.
fn iso(text: &str) -> Timestamp {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    Timestamp::parse(digits.as_bytes().try_into().unwrap()).unwrap_or(START)
}

#[test]
fn a_ping_is_answered_and_kept() {
    check("
        account alice USD/9 credit 100
        account bob   USD/9
        alice prepare 1 g.hub 7 condition ping data hi          -> alice fulfill written 3 data hi
        alice prepare 2 g.hub 0 condition ping                  -> alice fulfill
        alice prepare 3 g.hub 94 condition ping                 -> alice reject T04 acct.credit_limit
        alice prepare 4 g.hub.x 1 condition ping                -> alice reject F02 route.none
        balances                                                -> alice -7, bob 0, held 0
        position USD/9                                          -> 7
    ");
}

#[test]
fn a_ping_needs_no_time_to_go_on() {
    check(
        "
        account alice USD/9 credit 100
        alice prepare 1 g.hub 1 condition ping expires 1ms      -> alice fulfill
    ",
    );
}

#[test]
fn other_packets_to_our_own_address_have_nowhere_to_go() {
    check("
        account alice USD/9 credit 100
        alice prepare 1 g.hub 1                                 -> alice reject F02 route.none by g.hub
        alice prepare 2 g.hub 1 data ECHOECHOECHOECH            -> alice reject F02 route.none
        alice prepare 3 g.hub.x 1 echo g.hub.alice              -> alice reject F02 route.none
    ");
}

#[test]
fn an_echo_goes_to_the_source_and_its_outcome_comes_back() {
    check("
        account alice USD/9 credit 100
        account bob   EUR/9
        route   g.bob -> bob
        rate    USD EUR 0.5
        alice prepare 1 g.hub 40 echo g.bob.x   -> bob prepare 20 expires 9s to g.bob.x data ECHOECHOECHOECHO\\x01
        bob fulfill 1                           -> alice fulfill data thanks
        alice prepare 2 g.hub 40 echo g.bob.x   -> bob prepare 20
        bob reject 2 F99                        -> alice reject F99
        balances                                -> alice -40, bob 20, held 0
    ");
}

#[test]
fn an_echo_may_go_back_where_it_came_from() {
    check(
        "
        account alice  USD/9 credit 100
        account parent USD/9 parent credit 100
        route   g.alice -> alice
        alice prepare 1 g.hub 40 echo g.alice.x     -> alice prepare 40 to g.alice.x
        alice fulfill 1                             -> alice fulfill
        parent prepare 2 g.hub 0 echo g.far.away    -> parent prepare 0 to g.far.away
        parent fulfill 2                            -> parent fulfill
        balances                                    -> alice 0, parent 0, held 0
    ",
    );
}

#[test]
fn an_echo_that_makes_no_sense_is_malformed() {
    check("
        account alice USD/9 child credit 100
        alice prepare 1 g.hub 1 data ECHOECHOECHOECHO           -> alice reject F01 pkt.malformed
        alice prepare 2 g.hub 1 data ECHOECHOECHOECHO1g.alice   -> alice reject F01
        alice prepare 3 g.hub 1 echo g..alice                   -> alice reject F01
        alice prepare 4 g.hub 1 echo g.hub                      -> alice reject F01
        alice prepare 5 g.hub 0 echo peer.config condition peer -> alice reject F01
        alice prepare 6 g.hub 1 echo g.nowhere                  -> alice reject F02 route.none
        alice prepare 7 g.hub 1 echo test.nowhere               -> alice reject F02 route.none
        alice prepare 8 g.hub 101 echo g.hub.alice              -> alice reject T04 acct.credit_limit
        alice prepare 9 g.hub 1 echo g.hub.alice expires 1s     -> alice reject R02
    ");
}
