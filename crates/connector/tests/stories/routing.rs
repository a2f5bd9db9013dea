//! Routes told by peers and told to them.

use std::sync::Arc;

use rialto_ccp::{
    CONTROL_DESTINATION, Mode, RouteControl, TableId, UPDATE_DESTINATION, Update, UpdateBuilder,
    UpdateHead,
    message::{List, Route, hops},
};
use rialto_connector::{
    Action, Input, LinkId, Loss, RequestId, RouteLoss, RouteSource, RouteTrouble,
};
use rialto_ledger::AccountSettings;
use rialto_packet::{
    Address, ErrorCode, FulfillBuilder, PEER_CONDITION, PEER_FULFILLMENT, Prepare, RejectBuilder,
    oer,
};

use crate::{
    node::{MS, Node, prepare_bytes, reply, sha256},
    story::{Story, account, check, failure, play},
};

fn table(text: &str) -> TableId {
    TableId([text.parse().unwrap(); 16])
}

impl Story {
    /// What a neighbour does about routes.
    pub(crate) fn route(&mut self, name: &str, words: &[&str]) {
        match *words {
            ["asks", "idle"] => self.ask_routes(name, Mode::Idle, TableId::NONE, 0),
            ["asks", "same", epoch] => {
                self.ask_routes(name, Mode::Sync, self.told_table, epoch.parse().unwrap());
            }
            ["asks", id, epoch] => {
                self.ask_routes(name, Mode::Sync, table(id), epoch.parse().unwrap());
            }
            ["tells", id, epochs, ref routes @ ..] => {
                let data = update(table(id), epochs, routes);
                self.send(name, UPDATE_DESTINATION, &data);
            }
            ["takes", ref data @ ..] => {
                let data = data.join(" ");
                let fulfill = FulfillBuilder {
                    fulfillment: PEER_FULFILLMENT,
                    data: data.as_bytes(),
                };
                self.answer_message(name, fulfill.encode().unwrap());
            }
            ["takes-wrong"] => {
                let fulfill = FulfillBuilder {
                    fulfillment: [1; 32],
                    data: &[],
                };
                self.answer_message(name, fulfill.encode().unwrap());
            }
            ["declines", code, ref data @ ..] => {
                let data = data.join(" ");
                let reject = RejectBuilder {
                    code: ErrorCode::from_bytes(code.as_bytes().try_into().unwrap()),
                    triggered_by: None,
                    message: "no",
                    data: data.as_bytes(),
                };
                self.answer_message(name, reject.encode().unwrap());
            }
            ["fails", word] => {
                let (link, request) = self.last_message(name);
                let failure = failure(word);
                let effects = self.node.handle(Input::Failed {
                    link,
                    request,
                    failure,
                });
                self.tell(effects);
            }
            ["loses"] => {
                let (link, request) = self.last_message(name);
                let effects = self.node.handle(Input::Unanswered { link, request });
                self.tell(effects);
            }
            ["ignores"] => {
                self.last_message(name);
            }
            _ => panic!("{name} {words:?}"),
        }
    }

    fn ask_routes(&mut self, name: &str, mode: Mode, table_id: TableId, epoch: u32) {
        let control = RouteControl {
            mode,
            table_id,
            epoch,
            features: Vec::new(),
        };
        self.send(name, CONTROL_DESTINATION, &control.encode());
    }

    fn send(&mut self, name: &str, destination: &str, data: &[u8]) {
        let expires_at = self.node.now.wall.plus_ms(60_000);
        let packet = prepare_bytes(0, expires_at, PEER_CONDITION, destination, data);
        self.ask(name, 0, packet);
    }

    fn last_message(&mut self, name: &str) -> (LinkId, RequestId) {
        let id = self.node.id(name);
        let mut messages = self.messages.iter();
        let at = messages.rposition(|(link, _)| self.node.account_of(*link) == id);
        self.messages.remove(at.expect("a message to answer"))
    }

    fn answer_message(&mut self, name: &str, packet: Vec<u8>) {
        let (link, request) = self.last_message(name);
        let effects = self.node.handle(Input::Reply {
            link,
            request,
            packet: reply(packet),
        });
        self.tell(effects);
    }

    /// `asked TABLE EPOCH`, `told FROM-TO[+] +PREFIX=PATH -PREFIX`, `message TEXT`.
    pub(crate) fn tell_message<B: AsRef<[u8]>>(
        &mut self,
        link: LinkId,
        request: RequestId,
        packet: &Prepare<B>,
    ) -> Option<String> {
        let line = match packet.destination().as_str() {
            CONTROL_DESTINATION => {
                let control = RouteControl::parse(packet.data()).unwrap();
                assert_eq!(control.mode, Mode::Sync);
                format!("asked {} {}", control.table_id.0[0], control.epoch)
            }
            UPDATE_DESTINATION => {
                let update = Update::parse(packet.data()).unwrap();
                let head = update.head();
                assert_eq!(head.hold_down_ms, 45_000);
                assert_eq!(
                    Some(update.speaker()),
                    self.node.core.address().map(Address::as_str)
                );
                self.told_table = head.table_id;
                let more = if head.current_epoch > head.to_epoch {
                    "+"
                } else {
                    ""
                };
                let mut line = format!("told {}-{}{more}", head.from_epoch, head.to_epoch);
                let (mut routes, mut withdrawn) = (update.routes(), update.withdrawn());
                let mut parts = Vec::new();
                while let Some(route) = update.next_route(&mut routes) {
                    let path: Vec<_> = route.hops().collect();
                    parts.push(format!(" +{}={}", route.prefix, path.join(",")));
                }
                while let Some(prefix) = update.next_withdrawn(&mut withdrawn) {
                    parts.push(format!(" -{prefix}"));
                }
                parts.sort();
                line.extend(parts);
                line
            }
            "peer.settle" => format!("message {}", packet.data().escape_ascii()),
            _ => return None,
        };
        self.messages.push((link, request));
        Some(line)
    }
}

/// The data of an update: `FROM-TO/CURRENT`, `+PREFIX=PATH`, `-PREFIX`.
fn update(table_id: TableId, epochs: &str, routes: &[&str]) -> Vec<u8> {
    let (range, current) = epochs.split_once('/').unwrap();
    let (from, to) = range.split_once('-').unwrap();
    let head = UpdateHead {
        table_id,
        current_epoch: current.parse().unwrap(),
        from_epoch: from.parse().unwrap(),
        to_epoch: to.parse().unwrap(),
        hold_down_ms: 45_000,
    };
    let mut builder = UpdateBuilder::new();
    for route in routes {
        if let Some(prefix) = route.strip_prefix('-') {
            builder.withdraw(prefix);
        } else if let Some((prefix, path)) = route.strip_prefix('+').and_then(|r| r.split_once('='))
        {
            put_route(&mut builder, prefix, path);
        }
    }
    builder.finish(&head, "g.speaker")
}

fn put_route(builder: &mut UpdateBuilder, prefix: &str, path: &str) {
    let path: Vec<_> = path.split(',').filter(|hop| !hop.is_empty()).collect();
    let mut bytes = Vec::new();
    path.iter()
        .for_each(|hop| oer::put_var_octets(&mut bytes, hop.as_bytes()));
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

#[test]
fn a_peer_is_asked_for_its_routes_and_they_are_used() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 ccp                     -> bob asked 0 0
        bob takes
        bob tells 1 0-1/1 +g.far=g.bob,g.x          -> bob fulfill
        alice prepare 1 g.far.away 1                -> bob prepare
        alice prepare 2 g.farther 1                 -> alice reject F02 route.none
        bob tells 1 1-2/2 +g.farther=g.bob -g.far   -> bob fulfill
        alice prepare 3 g.far.away 1                -> alice reject F02
        alice prepare 4 g.farther 1                 -> bob prepare
        bob tells 1 2-3/3 -g.farther +g.farther=g.bob,g.z -> bob fulfill
        alice prepare 5 g.farther 1                 -> bob prepare
        wait 9s                                     -> alice reject, alice reject, alice reject
    ",
    );
}

#[test]
fn a_peer_that_asks_is_told_ours() {
    check(
        "
        account alice USD/9 child credit 100
        account bob   USD/9 ccp                     -> bob asked 0 0
        bob takes
        account carol USD/9 ccp                     -> carol asked 0 0
        route   g.static -> alice
        carol tells 1 0-1/1 +g.far=g.carol,g.x      -> carol fulfill
        bob asks 0 0                                -> bob fulfill, bob told 0-1 +g.far=g.hub,g.carol,g.x +g.hub=g.hub +g.static=g.hub
        bob takes
        carol tells 1 1-2/2 -g.far +g.new=          -> carol fulfill
        wait 150ms                                  -> bob told 1-2 +g.new=g.hub -g.far
        bob takes
        carol tells 1 2-3/3 +g.new=g.carol          -> carol fulfill
        carol tells 1 3-4/4 +g.newer=g.carol        -> carol fulfill
        wait 1s                                     -> bob told 2-3 +g.new=g.hub,g.carol +g.newer=g.hub,g.carol
        bob takes
        wait 29500ms                                -> bob told 3-3
        bob takes
        bob asks idle                               -> bob fulfill
        wait 30s                                    -> carol asked 0 0, trouble carol expired
    ",
    );
}

#[test]
fn what_is_told_to_whom() {
    check(
        "
        account parent USD/9 parent ccp                     -> parent asked 0 0
        account child  USD/9 child ccp asked                -> child asked 0 0
        account other  USD/9 child ccp address g.elsewhere
        account bob    USD/9 ccp                            -> bob asked 0 0
        account carol  USD/9 ccp                            -> carol asked 0 0
        route g -> parent
        route test.x -> bob
        route g.static -> bob
        parent tells 1 0-1/1 +g.up=g.parent                 -> parent fulfill
        child tells 1 0-1/1 +g.hub.child.x=g.hub.child      -> child fulfill
        bob tells 1 0-1/1 +g.bob=g.bob                      -> bob fulfill
        parent asks 0 0     -> parent fulfill, parent told 0-1 +g.elsewhere=g.hub +g.hub=g.hub
        child asks 0 0      -> child fulfill, child told 0-1 +g.bob=g.hub,g.bob +g.elsewhere=g.hub +g.hub=g.hub +g.static=g.hub +g.up=g.hub,g.parent
        bob asks 0 0        -> bob fulfill, bob told 0-1 +g.elsewhere=g.hub +g.hub=g.hub +g.up=g.hub,g.parent
        carol asks 0 0      -> carol fulfill, carol told 0-1 +g.bob=g.hub,g.bob +g.elsewhere=g.hub +g.hub=g.hub +g.static=g.hub +g.up=g.hub,g.parent
        other asks 0 0      -> other fulfill, other told 0-1 +g.bob=g.hub,g.bob +g.hub=g.hub +g.static=g.hub +g.up=g.hub,g.parent
    ",
    );
}

#[test]
fn who_may_not_is_refused() {
    check(
        "
        account bob   USD/9
        account carol USD/9 child ccp
        account local USD/9 local ccp
        bob asks 0 0                    -> bob reject F00
        bob tells 1 0-1/1               -> bob reject F00
        carol tells 1 0-1/1 +g.x=       -> carol reject F00
        local asks 0 0                  -> local reject F00
        carol asks 0 0                  -> carol fulfill, carol told 0-1 +g.hub=g.hub
        update carol no-ccp
        carol asks 0 0                  -> carol reject F00
    ",
    );
}

#[test]
fn bad_updates_are_refused_and_the_old_state_stays() {
    let node = play(
        "
        account alice USD/9 credit 100
        account bob   USD/9 ccp                     -> bob asked 0 0
        bob takes
        bob tells 1 0-5/5 +g.far=g.bob              -> bob fulfill
        bob tells 1 6-7/7 +g.gap=g.bob              -> bob reject F00 ccp.gap, trouble bob gap
        bob tells 1 2-4/5 -g.far                    -> bob fulfill, trouble bob old_epoch
        bob tells 2 3-4/4 -g.far                    -> bob reject F00 ccp.gap, trouble bob foreign_table
        wait 1s                                     -> bob asked 2 0
        bob takes
        bob tells 2 4-3/4                           -> bob reject F00 ccp.malformed, trouble bob malformed
        alice prepare 1 g.far 1                     -> bob prepare
        alice prepare 2 g.gap 1                     -> alice reject F02
        bob tells 2 0-1/2 +g.two=g.bob              -> bob fulfill
        alice prepare 3 g.far 1                     -> bob prepare
        bob tells 2 1-2/2                           -> bob fulfill
        alice prepare 4 g.far 1                     -> alice reject F02
        alice prepare 5 g.two 1                     -> bob prepare
        wait 9s                                     -> alice reject, alice reject, alice reject
    ",
    );
    let peer = node.core.peer_routes(node.id("bob")).unwrap();
    let troubles: Vec<_> = peer
        .troubles
        .iter()
        .map(|(trouble, count)| (trouble.word(), *count))
        .collect();
    assert_eq!(
        troubles,
        [
            ("malformed", 1),
            ("gap", 1),
            ("foreign_table", 1),
            ("old_epoch", 1)
        ]
    );
}

#[test]
fn routes_that_are_not_to_be_used() {
    check(
        "
        account alice USD/9 credit 100
        account child USD/9 child ccp asked             -> child asked 0 0
        account bob   USD/9 ccp                         -> bob asked 0 0
        bob tells 1 0-1/1 +g.good=g.bob +g.hub=g.bob    -> bob fulfill, trouble bob own_prefix g.hub
        bob tells 1 1-2/2 +g.hub.alice=g.bob            -> bob fulfill
        bob tells 1 2-3/3 +peer.x=g.bob +peer=g.bob     -> bob fulfill, trouble bob peer_prefix peer.x
        bob tells 1 3-4/4 +test.x=g.bob +test=          -> bob fulfill, trouble bob other_network test.x
        bob tells 1 4-5/5 +=g.bob +g=g.bob              -> bob fulfill, trouble bob too_general
        bob tells 1 5-6/6 +g.l=g.bob,g.hub,g.x          -> bob fulfill, trouble bob loop g.l
        bob tells 1 6-7/7 +g.1.2.3.4.5.6.7.8.9.0.1.2.3.4.5.6.7.8.9.0.1.2.3.4.5.6.7.8.9.0.1.2=g.bob  -> bob fulfill, trouble bob too_deep
        bob tells 1 7-8/8 +g.good=g.bob,g.hub           -> bob fulfill
        alice prepare 1 g.good 1                        -> alice reject F02
        alice prepare 2 g.l 1                           -> alice reject F02
        alice prepare 3 g.hub.alice 1                   -> alice reject F02
        child tells 1 0-1/1 +g.bank=g.hub.child +g.hub.child.x=g.hub.child +g.hub.other=g.hub.child -> child fulfill, trouble child not_theirs g.bank, trouble child own_prefix g.hub.other
        alice prepare 4 g.bank 1                        -> alice reject F02
        update bob under g.only
        wait 1s                                         -> bob asked 0 0
        bob takes
        bob tells 1 0-1/1 +g.only.x=g.bob +g.onlyx=g.bob  -> bob fulfill, trouble bob filtered g.onlyx
        alice prepare 5 g.only.x 1                      -> bob prepare
        alice prepare 6 g.onlyx 1                       -> alice reject F02
        wait 9s                                         -> alice reject
    ",
    );
}

#[test]
fn a_path_that_is_too_long_is_not_used() {
    let path: Vec<_> = (0..65).map(|n| format!("g.n{n}")).collect();
    let path = path.join(",");
    check(&format!(
        "
        account bob   USD/9 ccp                 -> bob asked 0 0
        bob tells 1 0-1/1 +g.x={path}           -> bob fulfill, trouble bob path_too_long g.x
    "
    ));
}

#[test]
fn the_preferred_route_is_taken_and_the_next_when_it_is_gone() {
    let node = check(
        "
        account alice  USD/9 credit 100
        account parent USD/9 parent ccp         -> parent asked 0 0
        account long   USD/9 ccp                -> long asked 0 0
        account short  USD/9 ccp                -> short asked 0 0
        account child  USD/9 child ccp asked under g -> child asked 0 0
        parent tells 1 0-1/1 +g.x=g.p           -> parent fulfill
        alice prepare 1 g.x 1                   -> parent prepare
        long tells 1 0-1/1 +g.x=g.l,g.m         -> long fulfill
        alice prepare 2 g.x 1                   -> long prepare
        short tells 1 0-1/1 +g.x=g.s            -> short fulfill
        alice prepare 3 g.x 1                   -> short prepare
        child tells 1 0-1/1 +g.x=g.c,g.d,g.e    -> child fulfill
        alice prepare 4 g.x 1                   -> child prepare
        route g.x -> long
        alice prepare 5 g.x 1                   -> long prepare
        route g.x none
        child down
        alice prepare 6 g.x 1                   -> short prepare
        short tells 1 1-2/2 -g.x                -> short fulfill
        alice prepare 7 g.x 1                   -> long prepare
        long down
        alice prepare 8 g.x 1                   -> parent prepare
        parent down
        alice prepare 9 g.x 1                   -> alice reject T01 link.closed
        wait 9s                                 -> alice reject, alice reject, alice reject, alice reject, alice reject, alice reject, alice reject, alice reject
    ",
    );
    assert_eq!(node.core.route_count(), 2, "parent and we");
    let changes: Vec<_> = node
        .core
        .route_changes()
        .filter(|change| change.prefix == "g.x")
        .map(|change| {
            change
                .after
                .map(|(id, source)| format!("{} {source:?}", node.name(id)))
        })
        .map(Option::unwrap_or_default)
        .collect();
    assert_eq!(
        changes,
        [
            "parent Learnt",
            "long Learnt",
            "short Learnt",
            "child Learnt",
            "long Static",
            "child Learnt",
            "short Learnt",
            "long Learnt",
            "parent Learnt",
            ""
        ]
    );
}

#[test]
fn routes_hold_only_as_long_as_they_are_told() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 ccp                 -> bob asked 0 0
        bob takes
        bob tells 1 0-1/1 +g.far=g.bob          -> bob fulfill
        wait 40s
        bob tells 1 1-1/1                       -> bob fulfill
        wait 44s
        alice prepare 1 g.far 1                 -> bob prepare
        bob fulfill 1                           -> alice fulfill
        wait 1s                                 -> bob asked 0 0, trouble bob expired
        alice prepare 2 g.far 1                 -> alice reject F02
    ",
    );
}

#[test]
fn a_session_that_comes_back_is_asked_from_the_start() {
    check(
        "
        account bob   USD/9 ccp                 -> bob asked 0 0
        bob takes
        bob tells 1 0-7/7 +g.far=g.bob          -> bob fulfill
        bob down
        bob up
        wait 1s                                 -> bob asked 0 0
        bob takes
        bob tells 1 0-7/7 +g.far=g.bob          -> bob fulfill
    ",
    );
}

#[test]
fn who_does_not_speak_is_known_as_such() {
    let node = check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 ccp                 -> bob asked 0 0
        route   g.bob -> bob
        bob declines F02                        -> trouble bob not_spoken
        wait 9m
        alice prepare 1 g.bob 1                 -> bob prepare
        bob fulfill 1                           -> alice fulfill
        wait 61s                                -> bob asked 0 0
        bob declines F00                        -> trouble bob not_told
    ",
    );
    let peer = node.core.peer_routes(node.id("bob")).unwrap();
    assert_eq!(format!("{:?}", peer.listening), "Refused");
}

#[test]
fn a_peer_that_asks_is_there_to_be_asked() {
    check(
        "
        account bob   USD/9 ccp                 -> bob asked 0 0
        bob declines F00                        -> trouble bob not_told
        wait 2s
        bob asks 0 0                            -> bob fulfill, bob asked 0 0, bob told 0-1 +g.hub=g.hub
    ",
    );
}

#[test]
fn a_peer_over_http_that_was_started_again_is_asked_again() {
    check(
        "
        account bob   USD/9 ccp http            -> bob asked 0 0
        bob takes
        bob asks 0 0                            -> bob fulfill, bob told 0-1 +g.hub=g.hub
        bob takes
        bob tells 1 0-1/1 +g.far=g.bob          -> bob fulfill
        bob asks same 1                         -> bob fulfill, bob told 1-2 -g.far
        bob takes
        wait 1s
        bob asks 0 0                            -> bob fulfill, bob asked 1 1, bob told 0-1 +g.hub=g.hub
    ",
    );
}

#[test]
fn a_peer_over_http_is_told_again_after_our_start() {
    check(
        "
        account bob   USD/9 ccp http            -> bob asked 0 0
        bob takes
        wait 4s
        wait 1s                                 -> bob told 0-1 +g.hub=g.hub
        bob takes
        bob asks idle                           -> bob fulfill
        account carol USD/9 ccp http            -> carol asked 0 0
        carol asks idle                         -> carol fulfill
        carol takes
        wait 29s
    ",
    );
}

#[test]
fn a_peer_that_never_answers_about_routes_is_as_well_as_any() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 ccp                 -> bob asked 0 0
        account carol USD/9
        route   g.bob -> bob=1+carol=0
        bob ignores
        alice prepare 1 g.bob.x 1               -> bob prepare
        bob fulfill 1                           -> alice fulfill
        wait 61s                                -> bob asked 0 0
        bob ignores
        wait 88s
        alice prepare 2 g.bob.x 1               -> bob prepare
        bob fulfill 2                           -> alice fulfill
        wait 2s                                 -> bob asked 0 0
        bob declines T01
        alice prepare 3 g.bob.x 1               -> bob prepare
        bob fulfill 3                           -> alice fulfill
        bob asks 0 0                            -> bob fulfill, bob asked 0 0, bob told 0-1 +g.hub=g.hub
    ",
    );
}

#[test]
fn an_update_that_is_not_taken_is_told_again() {
    check(
        "
        account bob   USD/9 ccp                 -> bob asked 0 0
        bob takes
        bob asks 0 0                            -> bob fulfill, bob told 0-1 +g.hub=g.hub
        bob declines T01
        wait 5s                                 -> bob told 0-1 +g.hub=g.hub
        bob takes
        route g.x -> bob
        account carol USD/9 child address g.carol
        wait 1s                                 -> bob told 1-2 +g.carol=g.hub -g.x
        bob ignores
        wait 35s                                -> bob told 1-2 +g.carol=g.hub -g.x
        bob asks same 2                         -> bob fulfill, bob told 2-2
        bob takes
        bob asks same 1                         -> bob fulfill, bob told 0-1 +g.carol=g.hub +g.hub=g.hub
        bob declines F00                        -> trouble bob not_taken
        wait 5s                                 -> bob told 0-1 +g.carol=g.hub +g.hub=g.hub
        bob declines F00
        wait 5s                                 -> bob told 0-1 +g.carol=g.hub +g.hub=g.hub
        bob declines F00
        wait 10s
    ",
    );
}

#[test]
fn a_route_with_several_next_hops_fails_over_and_comes_back() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        account carol USD/9 down
        route   g.x -> bob=1+carol=0
        alice prepare 1 g.x.y 1                 -> bob prepare
        bob fail 1 timeout                      -> alice reject T01
        alice prepare 2 g.x.y 1                 -> bob prepare
        bob fail 2 timeout                      -> alice reject T01
        alice prepare 3 g.x.y 1                 -> bob prepare
        bob fail 3 timeout                      -> alice reject T01
        alice prepare 4 g.x.y 1                 -> bob prepare
        bob fulfill 4                           -> alice fulfill
        carol up
        alice prepare 5 g.x.y 1                 -> bob prepare
        bob fail 5 connect                      -> alice reject T01
        alice prepare 6 g.x.y 1                 -> bob prepare
        bob fail 6 connect                      -> alice reject T01
        alice prepare 7 g.x.y 1                 -> carol prepare
        wait 1s
        alice prepare 8 g.x.y 1                 -> bob prepare
        bob reject 8 F99                        -> alice reject F99
        bob down
        alice prepare 9 g.x.y 1                 -> carol prepare
        route   g.x -> bob+bob                  -> invalid account
        route   g.x -> bob+nobody               -> invalid account
        delete  bob                             -> conflict
        wait 9s                                 -> alice reject, alice reject
    ",
    );
}

/// Sends an update as bob, and what comes of it is looked at by the caller.
fn tell(node: &mut Node, number: u64, data: &[u8]) {
    let expires_at = node.now.wall.plus_ms(60_000);
    let packet = prepare_bytes(0, expires_at, PEER_CONDITION, UPDATE_DESTINATION, data);
    node.handle(Input::Prepare {
        account: node.id("bob"),
        link: LinkId::Waiting { worker: 0 },
        request: RequestId(number),
        packet,
    });
    node.settle();
}

fn count(node: &Node, trouble: RouteTrouble) -> u64 {
    let peer = node.core.peer_routes(node.id("bob")).unwrap();
    let mut troubles = peer.troubles.iter();
    troubles
        .find(|(of, _)| *of == trouble)
        .map_or(0, |(_, count)| *count)
}

#[test]
fn a_hundred_thousand_prefixes_from_a_peer_limited_to_a_thousand() {
    let mut node = play(
        "
        account alice USD/9 credit 100
        account bob   USD/9 ccp routes-max 1000     -> bob asked 0 0
        bob tells 1 0-0/0                           -> bob fulfill
    ",
    );
    let id = node.id("bob");
    for epoch in 0..200_u32 {
        let head = UpdateHead {
            table_id: table("2"),
            current_epoch: 200,
            from_epoch: epoch,
            to_epoch: epoch + 1,
            hold_down_ms: 45_000,
        };
        let mut builder = UpdateBuilder::new();
        for n in 0..500 {
            put_route(&mut builder, &format!("g.n{}", epoch * 500 + n), "g.bob");
        }
        tell(
            &mut node,
            u64::from(epoch) + 1,
            &builder.finish(&head, "g.bob"),
        );
    }
    let peer = node.core.peer_routes(id).unwrap();
    assert_eq!((peer.learnt_count, peer.learnt_max), (1000, 1000));
    assert_eq!(count(&node, RouteTrouble::TooMany), 99_000);
    assert_eq!(node.core.route_count(), 1001, "and our own");
    assert_eq!(peer.their_table, (table("2"), 200), "all were answered");
}

#[test]
fn an_update_with_a_fault_at_its_end_changes_nothing() {
    let mut node = play(
        "
        account bob   USD/9 ccp                     -> bob asked 0 0
        bob takes
    ",
    );
    let names: Vec<_> = (0..500).map(|n| format!("+g.n{n}=g.bob")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let good = update(table("1"), "0-1/1", &names);
    let before = node.core.route_count();
    tell(&mut node, 1, &good[..good.len() - 1]);
    assert_eq!(count(&node, RouteTrouble::Malformed), 1);
    assert_eq!(node.core.route_count(), before);
    tell(&mut node, 2, &good);
    assert_eq!(count(&node, RouteTrouble::Malformed), 1);
    assert_eq!(node.core.route_count(), before + 500);
}

/// How long packets wait is bounded by this, and not by how many routes there are.
#[test]
fn no_step_changes_more_than_a_few_routes() {
    const STEP_ROUTES: usize = 16;
    const UPDATES: u32 = 5;
    let mut node = play(
        "
        account bob   USD/9 ccp                     -> bob asked 0 0
        bob takes
    ",
    );
    let (mut before, mut steps, mut largest) = (node.core.route_count(), 0, 0);
    let mut step = |node: &mut Node, input: Input| {
        node.handle(input);
        let count = node.core.route_count();
        largest = largest.max(count.abs_diff(before));
        before = count;
        steps += 1;
    };
    for epoch in 0..UPDATES {
        let head = UpdateHead {
            table_id: table("1"),
            current_epoch: UPDATES,
            from_epoch: epoch,
            to_epoch: epoch + 1,
            hold_down_ms: 45_000,
        };
        let mut builder = UpdateBuilder::new();
        for n in 0..500 {
            put_route(&mut builder, &format!("g.n{}", epoch * 500 + n), "g.bob");
        }
        let data = builder.finish(&head, "g.bob");
        let expires_at = node.now.wall.plus_ms(60_000);
        let packet = prepare_bytes(0, expires_at, PEER_CONDITION, UPDATE_DESTINATION, &data);
        let input = Input::Prepare {
            account: node.id("bob"),
            link: LinkId::Waiting { worker: 0 },
            request: RequestId(u64::from(epoch) + 1),
            packet,
        };
        let learnt = node.core.route_count();
        step(&mut node, input);
        assert_eq!(
            node.core.route_count(),
            learnt,
            "checking it are steps of their own"
        );
        while node
            .core
            .poll_timeout()
            .is_some_and(|due| due <= node.now.mono_ns)
        {
            step(&mut node, Input::Timeout);
        }
    }
    assert_eq!(node.core.route_count(), 2_501);
    let id = node.id("bob");
    let link = node.core.link_of(id).unwrap();
    step(&mut node, Input::LinkDown { link });
    while node
        .core
        .poll_timeout()
        .is_some_and(|due| due <= node.now.mono_ns)
    {
        step(&mut node, Input::Timeout);
    }
    assert_eq!(node.core.route_count(), 1);
    assert_eq!(largest, STEP_ROUTES);
    println!(
        "reliability: routing | 2500 routes learnt and forgotten in {steps} steps | {largest} changed at \
         most in one"
    );
}

#[test]
fn a_route_flapping_a_thousand_times_a_second() {
    let mut node = play(
        "
        account alice USD/9 credit 100
        account bob   USD/9 ccp             -> bob asked 0 0
        account carol USD/9 ccp             -> carol asked 0 0
        bob tells 1 0-0/0                   -> bob fulfill
        carol tells 1 0-0/0                 -> carol fulfill
    ",
    );
    for flap in 0..1000 {
        let (from, to) = (2 * flap, 2 * flap + 1);
        let told = update(
            table("2"),
            &format!("{from}-{to}/{to}"),
            &["+g.flappy=g.bob"],
        );
        tell(&mut node, 10_000 + from, &told);
        let gone = update(
            table("2"),
            &format!("{to}-{}/{}", to + 1, to + 1),
            &["-g.flappy"],
        );
        tell(&mut node, 10_000 + to, &gone);
        node.wait(MS);
    }
    let changes = node
        .core
        .route_changes()
        .filter(|change| change.prefix == "g.flappy");
    assert_eq!(changes.count(), 20, "ten times there and gone, then damped");
    assert_eq!(node.core.damped_count(), 1);
    assert_eq!(count(&node, RouteTrouble::Flapping), 991);
    // Told once more, it is used after it has been quiet.
    tell(
        &mut node,
        20_000,
        &update(table("2"), "2000-2001/2001", &["+g.flappy=g.bob"]),
    );
    let find = |node: &Node| {
        let routes = node.core.routes();
        routes.iter().any(|route| route.prefix == "g.flappy")
    };
    assert!(!find(&node));
    for second in 0..101 {
        tell(
            &mut node,
            30_000 + second,
            &update(table("2"), "2001-2001/2001", &[]),
        );
        node.wait(1000 * MS);
    }
    assert!(find(&node));
    assert_eq!(node.core.damped_count(), 0);
}

#[test]
fn a_large_table_is_told_in_parts_and_in_spite_of_changes() {
    let mut node = play("account alice USD/9 child");
    node.step(|core, _, out| {
        for n in 0..500 {
            let prefix = format!("g.n{n}").parse().unwrap();
            core.route_put(prefix, &[("alice".to_owned(), 1)], out)
                .unwrap();
        }
    });
    // A second node learns it over a wire that the test carries.
    let mut learnt = std::collections::BTreeMap::new();
    node.step(|core, _, out| {
        let mut bob = account("bob", "USD/9");
        bob.routes.send = Some(true);
        bob.routes.receive = Some(true);
        core.account_create(bob, out).unwrap()
    });
    let id = node.id("bob");
    node.link_up(id);
    node.settle();
    let control = RouteControl {
        mode: Mode::Sync,
        table_id: TableId::NONE,
        epoch: 0,
        features: Vec::new(),
    };
    let expires_at = node.now.wall.plus_ms(60_000);
    let packet = prepare_bytes(
        0,
        expires_at,
        PEER_CONDITION,
        CONTROL_DESTINATION,
        &control.encode(),
    );
    let mut effects = node.handle(Input::Prepare {
        account: id,
        link: LinkId::Waiting { worker: 0 },
        request: RequestId(1),
        packet,
    });
    let mut epoch = 0;
    for round in 0..210 {
        effects.extend(node.wait(200 * MS));
        // Routes come and go while the table is told.
        node.step(|core, _, out| {
            let prefix: rialto_packet::Prefix = format!("g.n{}", 2 * round).parse().unwrap();
            if round < 200 {
                core.route_delete(&prefix, out).unwrap();
            }
        });
        let mut replies = Vec::new();
        for effect in effects.drain(..) {
            let Action::Forward {
                link,
                request,
                packet,
                ..
            } = effect.action
            else {
                continue;
            };
            let packet = Prepare::parse(packet).unwrap();
            if packet.destination().as_str() == UPDATE_DESTINATION {
                let update = Update::parse(packet.data()).unwrap();
                assert_eq!(update.head().from_epoch, epoch);
                epoch = update.head().to_epoch;
                let (mut routes, mut withdrawn) = (update.routes(), update.withdrawn());
                while let Some(prefix) = update.next_withdrawn(&mut withdrawn) {
                    learnt.remove(prefix);
                }
                while let Some(route) = update.next_route(&mut routes) {
                    learnt.insert(route.prefix.to_owned(), hops(route.path.bytes).count());
                }
            }
            replies.push((link, request));
        }
        for (link, request) in replies {
            let fulfill = FulfillBuilder {
                fulfillment: PEER_FULFILLMENT,
                data: &[],
            };
            let packet = reply(fulfill.encode().unwrap());
            effects.extend(node.handle(Input::Reply {
                link,
                request,
                packet,
            }));
        }
    }
    let wanted: Vec<_> = node
        .core
        .routes()
        .iter()
        .map(|route| route.prefix.to_string())
        .collect();
    let wanted: Vec<_> = wanted
        .into_iter()
        .filter(|prefix| prefix != "g.hub.alice")
        .collect();
    assert_eq!(learnt.keys().cloned().collect::<Vec<_>>(), wanted);
    assert!(learnt.values().all(|count| *count == 1), "{learnt:?}");
    assert!(epoch > 10, "in parts: {epoch}");
}

#[test]
fn why_a_route_is_taken() {
    let node = play(
        "
        account alice USD/9 credit 100
        account bob   USD/9 ccp                     -> bob asked 0 0
        account carol USD/9 ccp                     -> carol asked 0 0
        route   g.far -> alice
        bob tells 1 0-1/1 +g.far.x=g.bob,g.far      -> bob fulfill
        carol tells 1 0-1/1 +g.far.x=g.carol,g.a,g.b +g.far=g.carol -> carol fulfill
    ",
    );
    let address: Address = "g.far.x.y".parse().unwrap();
    let explained = node.core.route_explain(address.as_ref());
    let explained: Vec<_> = explained
        .iter()
        .map(|one| {
            (
                one.route.prefix.as_str(),
                node.name(one.route.account.unwrap()),
                one.loss,
            )
        })
        .collect();
    let preferred = |loss| Some(RouteLoss::Preferred(loss));
    assert_eq!(
        explained,
        [
            ("g.far.x", "bob".to_owned(), None),
            ("g.far.x", "carol".to_owned(), preferred(Loss::Longer)),
            ("g.far", "alice".to_owned(), Some(RouteLoss::Shorter)),
            ("g.far", "carol".to_owned(), Some(RouteLoss::Shorter)),
        ]
    );
}

#[test]
fn a_name_below_our_own_address_is_a_route() {
    let mut node = play(
        "
        account alice USD/9 credit 100
        account bob   USD/9 child credit 100
        account carol USD/9
        account dora  USD/9 child credit 100
        account eve   USD/9 child
        route g.hub.dora   -> carol
        route g.hub.bob.x  -> carol
        route g            -> carol
    ",
    );
    let mut number = 0;
    let mut hop = |node: &mut Node, destination: &str| {
        number += 1;
        hop_of(node, number, destination)
    };
    for (destination, expected) in [
        ("g.hub.bob", "bob"),
        ("g.hub.bob.y.z", "bob"),
        ("g.hub.bob.xx", "bob"),
        // A longer prefix fits better, and of two for the same the operator's is taken.
        ("g.hub.bob.x", "carol"),
        ("g.hub.bob.x.y", "carol"),
        ("g.hub.dora", "carol"),
        ("g.hub.dora.y", "carol"),
        // Nobody's name, and a peer's, whose address is not below ours.
        ("g.hubbob", "carol"),
        ("g.hu.bob", "carol"),
        ("g.bob", "carol"),
    ] {
        assert_eq!(hop(&mut node, destination), expected, "{destination}");
    }

    // Each route is on one page, whatever their size.
    let shown = |node: &Node, limit| {
        let (mut shown, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let (page, next) = node.core.routes_page(at, limit, true);
            shown.extend(page);
            from = next;
        }
        shown.sort_by(|a, b| a.prefix.cmp(&b.prefix).then(b.is_active.cmp(&a.is_active)));
        let shown = shown.iter().map(|route| {
            let hop = route.account.map_or("us".to_owned(), |id| node.name(id));
            format!(
                "{} {:?} {hop} {}",
                route.prefix, route.source, route.is_active
            )
        });
        shown.collect::<Vec<_>>()
    };
    let all = [
        "g Static carol true",
        "g.hub Own us true",
        "g.hub.bob Account bob true",
        "g.hub.bob.x Static carol true",
        "g.hub.dora Static carol true",
        "g.hub.dora Account dora false",
        "g.hub.eve Account eve true",
    ];
    for limit in [1, 2, 6, usize::MAX] {
        assert_eq!(shown(&node, limit), all, "{limit}");
    }

    let explained = |node: &Node| {
        let address: Address = "g.hub.dora.y".parse().unwrap();
        let explained = node.core.route_explain(address.as_ref()).into_iter();
        let explained =
            explained.map(|one| (one.route.prefix.to_string(), one.route.source, one.loss));
        explained.collect::<Vec<_>>()
    };
    let (dora, preferred) = ("g.hub.dora".to_owned(), |loss| {
        Some(RouteLoss::Preferred(loss))
    });
    let rest = ["g.hub", "g"].map(str::to_owned);
    let [own, scheme] = rest.map(|prefix| (prefix, Some(RouteLoss::Shorter)));
    assert_eq!(
        explained(&node),
        [
            (dora.clone(), RouteSource::Static, None),
            (dora.clone(), RouteSource::Account, preferred(Loss::Source)),
            (own.0.clone(), RouteSource::Own, own.1),
            (scheme.0.clone(), RouteSource::Static, scheme.1),
        ]
    );
    node.step(|core, _, out| {
        core.route_delete(&"g.hub.dora".parse().unwrap(), out)
            .unwrap()
    });
    assert_eq!(hop(&mut node, "g.hub.dora.y"), "dora");
    assert_eq!(
        explained(&node),
        [
            (dora, RouteSource::Account, None),
            (own.0, RouteSource::Own, own.1),
            (scheme.0, RouteSource::Static, scheme.1),
        ]
    );

    // With an address of its own it is found by that alone, and once deleted not at all.
    node.step(|core, _, out| {
        let bob = core.ledger().account_by_name("bob").unwrap();
        let mut settings = AccountSettings::clone(&bob.settings);
        Arc::make_mut(&mut settings.terms).ilp_address = Some("g.bob".parse().unwrap());
        core.account_update(settings, out).unwrap();
        core.account_delete("eve", out).unwrap();
    });
    assert_eq!(hop(&mut node, "g.bob"), "bob");
    let gone = |node: &Node, prefix: &str| {
        let routes = node.core.routes();
        !routes.iter().any(|route| route.prefix == prefix)
    };
    assert!(gone(&node, "g.hub.bob") && gone(&node, "g.hub.eve"));
}

/// Where a packet of one unit goes; its next hop says yes.
fn hop_of(node: &mut Node, number: u64, destination: &str) -> String {
    let proof = [7; 32];
    let expires_at = node.now.wall.plus_ms(10_000);
    let packet = prepare_bytes(1, expires_at, sha256(&proof), destination, &[]);
    let effects = node.handle(Input::Prepare {
        account: node.id("alice"),
        link: LinkId::Waiting { worker: 0 },
        request: RequestId(number),
        packet,
    });
    let mut forwarded = effects
        .into_iter()
        .filter_map(|effect| match effect.action {
            Action::Forward { link, request, .. } => Some((link, request)),
            Action::Answer { .. }
            | Action::Disconnect { .. }
            | Action::Engine { .. }
            | Action::Report(_) => None,
        });
    let (link, request) = forwarded.next().expect("it goes somewhere");
    assert!(forwarded.next().is_none());
    let fulfill = FulfillBuilder {
        fulfillment: proof,
        data: &[],
    };
    node.handle(Input::Reply {
        link,
        request,
        packet: reply(fulfill.encode().unwrap()),
    });
    node.name(node.account_of(link))
}

#[test]
fn destinations_of_a_shared_route_stay_with_their_next_hop() {
    const DESTINATIONS: u64 = 100;
    let mut node = play(
        "
        account alice USD/9 credit 10000
        account bob   USD/9
        account carol USD/9
        route   g.x -> bob=1+carol=1
    ",
    );
    let mut number = 0;
    let mut hops = |node: &mut Node, times: u64| -> Vec<String> {
        let all = (0..DESTINATIONS).map(|destination| {
            let destination = format!("g.x.d{destination}.y");
            let mut hops = (0..times).map(|_| {
                number += 1;
                hop_of(node, number, &destination)
            });
            let hop = hops.next().unwrap();
            assert!(hops.all(|again| again == hop), "{destination}");
            hop
        });
        all.collect()
    };
    let count = |hops: &[String], name: &str| hops.iter().filter(|hop| *hop == name).count();
    let all_up = hops(&mut node, 3);
    let (to_bob, to_carol) = (count(&all_up, "bob"), count(&all_up, "carol"));
    assert_eq!(to_bob + to_carol, 100);
    assert!(to_bob >= 30 && to_carol >= 30, "{to_bob} {to_carol}");

    // One is gone: only what went there goes elsewhere, and comes back.
    let link = node.core.link_of(node.id("bob")).unwrap();
    node.handle(Input::LinkDown { link });
    assert_eq!(count(&hops(&mut node, 3), "carol"), 100);
    node.link_up(node.id("bob"));
    assert_eq!(hops(&mut node, 3), all_up);

    // With a third, what went to the one that is gone is shared, and nothing else moves.
    let third = account("dave", "USD/9");
    node.step(|core, _, out| {
        core.account_create(third, out).unwrap();
        let shares = ["bob", "carol", "dave"].map(|name| (name.to_owned(), 1));
        core.route_put("g.x".parse().unwrap(), &shares, out)
            .unwrap();
    });
    node.link_up(node.id("dave"));
    let three_up = hops(&mut node, 3);
    let link = node.core.link_of(node.id("bob")).unwrap();
    node.handle(Input::LinkDown { link });
    let without = hops(&mut node, 3);
    let mut moved = Vec::new();
    for (before, after) in three_up.iter().zip(&without) {
        match before.as_str() {
            "bob" => moved.push(after.clone()),
            _ => assert_eq!(after, before),
        }
    }
    assert!(moved.len() >= 15, "{moved:?}");
    assert!(
        count(&moved, "carol") > 0 && count(&moved, "dave") > 0,
        "{moved:?}"
    );
    assert_eq!(count(&moved, "bob"), 0);
}
