//! A node that asks its parent for its address.

use bytes::Bytes;
use rialto_connector::{
    Action, Effect, Event, Input, LinkFailure, LinkId, Reason, RequestId, Settings,
};
use rialto_ledger::Relation;
use rialto_packet::{
    ErrorCode, FulfillBuilder, PEER_CONDITION, PEER_FULFILLMENT, Prepare, RejectBuilder, Reply,
    ildcp,
};

use crate::{
    node::{MS, Node},
    story::account,
};

/// A child with a parent and a child of its own, and the question that went out.
fn child() -> (Node, LinkId, RequestId) {
    let mut node = Node::new(Settings::of_a_child());
    let mut parent = account("parent", "USD/9");
    parent.relation = Relation::Parent;
    let mut kid = account("kid", "USD/9");
    kid.relation = Relation::Child;
    for settings in [parent, kid] {
        node.step(|core, _, out| core.account_create(settings, out).unwrap());
    }
    let id = node.id("parent");
    let (_, effects) = node.link_up(id);
    let (link, request) = question(&effects).expect("a connection is asked at once");
    (node, link, request)
}

fn question(effects: &[Effect]) -> Option<(LinkId, RequestId)> {
    effects.iter().find_map(|effect| match &effect.action {
        Action::Forward {
            link,
            request,
            packet,
            ..
        } => {
            let packet = Prepare::parse(packet.to_vec()).unwrap();
            assert_eq!(packet.destination().as_str(), ildcp::DESTINATION);
            assert_eq!((packet.amount(), packet.condition()), (0, PEER_CONDITION));
            Some((*link, *request))
        }
        Action::Answer { .. }
        | Action::Disconnect { .. }
        | Action::Engine { .. }
        | Action::Report(_) => None,
    })
}

fn told(address: &str, asset: &str) -> Bytes {
    let data = ildcp::Response {
        client_address: address.parse().unwrap(),
        asset: asset.parse().unwrap(),
    };
    let data = data.encode();
    let fulfill = FulfillBuilder {
        fulfillment: PEER_FULFILLMENT,
        data: &data,
    };
    fulfill.encode().unwrap().into()
}

fn answer(node: &mut Node, link: LinkId, request: RequestId, packet: Bytes) -> Vec<Effect> {
    node.handle(Input::Reply {
        link,
        request,
        packet,
    })
}

fn problem(effects: &[Effect]) -> String {
    let found = effects.iter().find_map(|effect| match &effect.action {
        Action::Report(Event::AddressProblem { message }) => Some(message.clone()),
        Action::Report(_)
        | Action::Forward { .. }
        | Action::Answer { .. }
        | Action::Disconnect { .. }
        | Action::Engine { .. } => None,
    });
    found.expect("a problem is reported")
}

/// Waits for the next question.
fn wait(node: &mut Node) -> (LinkId, RequestId, u64) {
    let before_ns = node.now.mono_ns;
    loop {
        let at_ns = node.core.poll_timeout().expect("it will ask again");
        node.now.mono_ns = at_ns.max(node.now.mono_ns);
        node.now.wall = node
            .now
            .wall
            .plus_ms(i64::try_from((node.now.mono_ns - before_ns) / MS).unwrap());
        if let Some((link, request)) = question(&node.handle(Input::Timeout)) {
            return (link, request, (node.now.mono_ns - before_ns) / MS);
        }
    }
}

#[test]
fn packets_wait_for_an_address_and_then_pass() {
    let (mut node, link, request) = child();
    let kid = node.id("kid");
    let (kids, _) = node.link_up(kid);
    let ask = |node: &mut Node| {
        let packet = ildcp::request(node.now.wall.plus_ms(10_000));
        let packet = bytes::BytesMut::from(&packet[..]);
        let input = Input::Prepare {
            account: kid,
            link: kids,
            request: RequestId(7),
            packet,
        };
        let effects = node.handle(input);
        let answer = effects.iter().find_map(|effect| match &effect.action {
            Action::Answer { packet, .. } => Some(packet.clone()),
            Action::Forward { .. }
            | Action::Disconnect { .. }
            | Action::Engine { .. }
            | Action::Report(_) => None,
        });
        Reply::parse(answer.expect("it is answered")).unwrap()
    };
    let refused = ask(&mut node);
    let Reply::Reject(refused) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (refused.code(), refused.triggered_by()),
        (ErrorCode::T01_PEER_UNREACHABLE, None)
    );
    assert!(refused.message().starts_with("addr.none"));
    let stats = node.core.stats().account(kid).unwrap();
    assert_eq!(stats.refused[Reason::NoAddress as usize], 1);
    assert_eq!(node.core.routes(), []);

    let effects = answer(&mut node, link, request, told("test.parent.us", "USD/9"));
    // The kid, which was refused, is sent away to ask again at once.
    let actions: Vec<_> = effects.iter().map(|effect| &effect.action).collect();
    assert!(
        matches!(
            actions[..],
            [Action::Disconnect { link }, Action::Report(Event::AddressTaken { .. })] if *link == kids
        ),
        "{actions:?}"
    );
    assert_eq!(node.core.address().unwrap().as_str(), "test.parent.us");
    assert_eq!(node.core.address_problem(), None);
    let taken = ask(&mut node);
    let Reply::Fulfill(taken) = taken else {
        panic!("{taken:?}")
    };
    let taken = ildcp::Response::parse(taken.data()).unwrap();
    assert_eq!(taken.client_address.as_str(), "test.parent.us.kid");
    // The same answer again is no news.
    let (link, request, waited_ms) = wait(&mut node);
    assert_eq!(waited_ms, 60_000);
    assert!(answer(&mut node, link, request, told("test.parent.us", "USD/9")).is_empty());
}

#[test]
fn another_address_reaches_the_children() {
    let (mut node, link, request) = child();
    let kid = node.id("kid");
    answer(&mut node, link, request, told("test.a.us", "USD/9"));
    let (kids, _) = node.link_up(kid);
    // The parent's link comes back: asked again.
    node.handle(Input::LinkDown { link });
    let parent = node.id("parent");
    let (_, effects) = node.link_up(parent);
    let (link, request) = question(&effects).unwrap();
    let effects = answer(&mut node, link, request, told("test.b.us", "USD/9"));
    let is_sent_away =
        |effect: &Effect| matches!(&effect.action, Action::Disconnect { link } if *link == kids);
    assert!(effects.iter().any(is_sent_away), "{effects:?}");
    assert_eq!(node.core.address_of(kid).unwrap().as_str(), "test.b.us.kid");
    assert!(
        node.core
            .routes()
            .iter()
            .all(|route| !route.prefix.starts_with("test.a"))
    );
}

#[test]
fn what_a_node_cannot_live_with_is_refused_and_the_old_address_stays() {
    let (mut node, link, request) = child();
    let mut rival = account("rival", "USD/9");
    rival.ilp_address = Some("test.rival".parse().unwrap());
    node.step(|core, _, out| core.account_create(rival, out).unwrap());
    answer(&mut node, link, request, told("test.good", "USD/9"));
    let reject = RejectBuilder {
        code: ErrorCode::F00_BAD_REQUEST,
        triggered_by: None,
        message: "no child of mine",
        data: &[],
    };
    let wrong = FulfillBuilder {
        fulfillment: [1; 32],
        data: &[],
    };
    let long = format!("test.{}", "x".repeat(1_017));
    let mut refused = 0;
    for (packet, words) in [
        (told("test.x", "USD/6"), "counts in USD/6"),
        (told("test.x", "usd/9"), "counts in usd/9"),
        (told("peer.x", "USD/9"), "which is nobody's"),
        (told("g.x", "USD/9"), "of another network"),
        (told("test.rival", "USD/9"), "our account 'rival'"),
        (told(&long, "USD/9"), "too long for our account 'kid'"),
        (
            reject.encode().unwrap().into(),
            "rejects with F00: \"no child of mine\"",
        ),
        (wrong.encode().unwrap().into(), "another fulfillment"),
        (Bytes::from_static(b"<html>"), "is no packet"),
    ] {
        let (link, request, _) = wait(&mut node);
        let message = problem(&answer(&mut node, link, request, packet));
        assert!(message.contains(words), "{message}");
        assert_eq!(node.core.address_problem(), Some(message.as_str()));
        assert_eq!(node.core.address().unwrap().as_str(), "test.good");
        refused += 1;
    }
    assert_eq!(node.core.addresses_refused_total(), refused);
}

#[test]
fn questions_are_repeated_with_growing_pauses_and_said_once() {
    let mut node = Node::new(Settings::of_a_child());
    let effects = node.handle(Input::Timeout);
    assert!(problem(&effects).contains("make one"));
    let mut parent = account("parent", "USD/9");
    parent.relation = Relation::Parent;
    node.step(|core, _, out| core.account_create(parent, out).unwrap());
    let effects = node.handle(Input::Timeout);
    assert!(problem(&effects).contains("not connected"));
    let id = node.id("parent");
    let (_, effects) = node.link_up(id);
    let (link, request) = question(&effects).unwrap();
    let fail = |node: &mut Node, link, request| {
        node.handle(Input::Failed {
            link,
            request,
            failure: LinkFailure::Timeout,
        })
    };
    assert!(problem(&fail(&mut node, link, request)).starts_with("link.timeout"));
    for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        let (link, request, waited_ms) = wait(&mut node);
        assert_eq!(waited_ms, pause_ms);
        assert!(fail(&mut node, link, request).is_empty(), "said before");
    }
    // Nobody answers at all: the question's own time ends, then the pause.
    wait(&mut node);
    let (.., waited_ms) = wait(&mut node);
    assert_eq!(waited_ms, 30_000 + 60_000);
}

#[test]
fn the_vectors_of_ildcp_answers() {
    let vectors = include_str!("../../../../vectors/ildcp.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors).unwrap();
    let mut seen = [0, 0];
    for vector in vectors.iter().filter(|vector| vector["kind"] == "response") {
        let packet = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
        let (mut node, link, request) = child();
        let effects = answer(&mut node, link, request, packet.into());
        // The vectors count in many assets: there the address was understood, and the asset refused.
        let asset_differs = |message: &str| message.contains("counts in");
        let is_taken = node.core.address().is_some()
            || asset_differs(node.core.address_problem().unwrap_or_default());
        let may_differ = vector["lenient"] == "implementation-defined";
        let is_valid = vector["valid"] == true;
        assert!(
            is_taken == is_valid || may_differ,
            "{}: {effects:?}",
            vector["name"]
        );
        seen[usize::from(is_valid)] += 1;
    }
    assert!(seen[0] > 20 && seen[1] > 50, "{seen:?}");
}
