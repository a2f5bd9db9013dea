//! Every reason that the core can give, with its code, its words and its data.

use std::collections::BTreeSet;

use rialto_connector::Reason;

use crate::story::check;

const PEERS: &str = "
    account alice USD/9 credit 100
    account bob   USD/9
    route   g.bob -> bob
";

/// A story per reason that ends with it. The first lines are [`PEERS`].
const STORIES: &[(Reason, &str)] = &[
    (Reason::PacketMalformed, "alice bytes 1 0c00 -> alice reject F01 pkt.malformed packet is not well-formed by g.hub"),
    (Reason::PacketMalformed, "alice bytes 1 ff -> alice reject F01 pkt.malformed"),
    (Reason::PacketExpired, "alice prepare 1 g.bob.x 1 expires 0s -> alice reject R00 pkt.expired"),
    (Reason::PacketTooLarge, "
        alice prepare 1 g.bob.x 1 size 32767 -> bob prepare
        bob reject 1 F99 -> alice reject
        alice prepare 2 g.bob.x 1 size 32768 -> alice reject F01 pkt.too_large"),
    (Reason::AddressInvalid, "alice prepare 1 g..bob 1 -> alice reject F01 addr.invalid"),
    (Reason::AddressInvalid, "alice prepare 1 bitcoin.bob 1 -> alice reject F01 addr.invalid"),
    (Reason::AddressInvalid, "alice prepare 1 g 1 -> alice reject F01 addr.invalid"),
    (Reason::RouteNone, "alice prepare 1 g.nowhere 1 -> alice reject F02 route.none"),
    (Reason::RouteLoop, "bob prepare 1 g.bob.x 0 -> bob reject F02 route.loop"),
    (Reason::RoutesMalformed, "
        update bob ccp -> bob asked 0 0
        bob tells 1 2-1/1 -> bob reject F00 ccp.malformed, trouble bob malformed"),
    (Reason::RoutesGap, "
        update bob ccp -> bob asked 0 0
        bob tells 1 2-3/3 -> bob reject F00 ccp.gap, trouble bob foreign_table"),
    (Reason::RateNone, "
        account carol EUR/9
        route g.carol -> carol
        alice prepare 1 g.carol.x 1 -> alice reject T00 fx.no_rate"),
    (Reason::RateStale, "
        account carol EUR/9
        route g.carol -> carol
        rate USD EUR 1 until 0s
        alice prepare 1 g.carol.x 1 -> alice reject T00 fx.stale"),
    (Reason::RoundsToZero, "
        account carol EUR/8
        route g.carol -> carol
        rate USD EUR 1
        alice prepare 1 g.carol.x 9 -> alice reject R01 fx.rounds_to_zero"),
    (Reason::Overflow, "
        account carol EUR/255
        route g.carol -> carol
        rate USD EUR 1
        alice prepare 1 g.carol.x 9 -> alice reject F08 fx.overflow by g.hub received 9 maximum 0"),
    (Reason::AccountPaused, "
        update alice paused
        alice prepare 1 g.bob.x 1 -> alice reject T01 acct.paused"),
    (Reason::AccountPaused, "
        update bob paused
        alice prepare 1 g.bob.x 1 -> alice reject T01 acct.paused"),
    (Reason::PacketLimit, "
        update alice packet 10
        alice prepare 1 g.bob.x 11 -> alice reject F08 acct.packet_limit by g.hub received 11 maximum 10"),
    (Reason::CreditLimit, "alice prepare 1 g.bob.x 101 -> alice reject T04 acct.credit_limit"),
    (Reason::UnsyncedCap, "
        update alice unsynced 10
        alice prepare 1 g.bob.x 11 -> alice reject T04 acct.unsynced_cap"),
    (Reason::InFlightLimit, "
        update alice in-flight-amount 10
        alice prepare 1 g.bob.x 11 -> alice reject T04 acct.inflight_limit"),
    (Reason::RateLimit, "
        update alice packets/min 1
        alice prepare 1 g.nowhere 1 -> alice reject F02
        alice prepare 2 g.bob.x 1 -> alice reject T05 acct.rate_limit"),
    (Reason::AmountRateLimit, "
        update alice amount/min 10
        alice prepare 1 g.bob.x 11 -> alice reject T04 acct.amount_rate_limit"),
    (Reason::ExpiryTooSoon, "alice prepare 1 g.bob.x 1 expires 1s -> alice reject R02 expiry.too_soon"),
    (Reason::ExpiryTimedOut, "
        alice prepare 1 g.bob.x 1 -> bob prepare
        wait 9s -> alice reject R00 expiry.timed_out"),
    (Reason::LinkDns, "dns -> alice reject T01 link.dns"),
    (Reason::LinkConnect, "connect -> alice reject T01 link.connect"),
    (Reason::LinkTls, "tls -> alice reject T01 link.tls"),
    (Reason::LinkHttp401, "401 -> alice reject T01 link.http_401"),
    (Reason::LinkHttp403, "403 -> alice reject T01 link.http_403"),
    (Reason::LinkHttp404, "404 -> alice reject T01 link.http_404"),
    (Reason::LinkHttp413, "413 -> alice reject T01 link.http_413"),
    (Reason::LinkHttp429, "429 -> alice reject T01 link.http_429"),
    (Reason::LinkHttp5xx, "500 -> alice reject T01 link.http_5xx"),
    (Reason::LinkHttp5xx, "599 -> alice reject T01 link.http_5xx"),
    (Reason::LinkContentType, "content_type -> alice reject T01 link.content_type"),
    (Reason::LinkBadReply, "bad_reply -> alice reject T01 link.bad_reply"),
    (Reason::LinkBadReply, "302 -> alice reject T01 link.bad_reply"),
    (Reason::LinkBadReply, "
        alice prepare 1 g.bob.x 1 -> bob prepare
        bob garbage 1 -> alice reject T01 link.bad_reply"),
    (Reason::LinkPace, "
        update bob packets-out/s 1
        alice prepare 1 g.bob.x 1 -> bob prepare
        alice prepare 2 g.bob.x 1 -> alice reject T05 link.pace
        bob fulfill 1 -> alice fulfill"),
    (Reason::LinkTimeout, "timeout -> alice reject T01 link.timeout"),
    (Reason::LinkClosed, "closed -> alice reject T01 link.closed"),
    (Reason::LinkClosed, "
        bob down
        alice prepare 1 g.bob.x 1 -> alice reject T01 link.closed"),
    (Reason::ConditionMismatch, "
        alice prepare 1 g.bob.x 1 -> bob prepare
        bob fulfill 1 wrong -> alice reject F05 cond.mismatch"),
    // Others' rejects pass unchanged; the reason is a counter only.
    (Reason::PeerReject, "
        alice prepare 1 g.bob.x 1 -> bob prepare
        bob reject 1 T03 -> alice reject T03 no by g.far.away"),
    (Reason::EngineNone, "
        alice prepare 1 peer.settle 0 condition peer -> alice reject F02 engine.none by peer.settle"),
    (Reason::EngineRefused, "
        update alice engine 1 -> introduce alice
        alice prepare 1 peer.settle 0 condition peer -> relay 1 alice
        engine objects 1 -> alice reject F00 engine.refused by peer.settle"),
    (Reason::EngineFailed, "
        update alice engine 1 -> introduce alice
        alice prepare 1 peer.settle 0 condition peer -> relay 1 alice
        engine breaks 1 -> alice reject T00 engine.failed by peer.settle"),
    (Reason::Drain, "
        drain
        alice prepare 1 g.bob.x 1 -> alice reject T03 drain"),
    (Reason::Overload, "
        alice prepare 1 g.bob.x 1 -> bob prepare
        alice prepare 2 g.bob.x 1 -> alice reject T03 overload
        bob fulfill 1 -> alice fulfill"),
    (Reason::Internal, "
        journal fails
        alice prepare 1 g.bob.x 1 -> alice reject T00 internal"),
];

#[test]
fn every_reason_is_given() {
    let mut given = BTreeSet::new();
    for (reason, story) in STORIES {
        let story = story.trim();
        // A word alone is how the link failed.
        let story = match story.split_once(" -> ") {
            Some((word, _)) if !word.contains(' ') => {
                format!("alice prepare 1 g.bob.x 1 -> bob prepare\nbob fail 1 {story}")
            }
            _ => story.to_owned(),
        };
        let node = if *reason == Reason::Overload {
            "node g.hub pending 1"
        } else {
            "node g.hub"
        };
        let node = check(&format!("{node}\n{PEERS}\n{story}"));
        let refused = |name: &str| {
            let stats = node.core.stats().account(node.id(name));
            stats.map_or(0, |stats| stats.refused[*reason as usize])
        };
        assert_eq!(
            refused("alice") + refused("bob"),
            1,
            "{reason:?} is counted once"
        );
        let balances = node.balance("alice") + node.balance("bob");
        assert_eq!(balances, 0);
        given.insert(*reason);
    }
    // Who is not authenticated does not reach the core.
    let links = [
        Reason::AuthMissing,
        Reason::AuthUnknownToken,
        Reason::AuthExpiredToken,
        // A node without an address has its own stories, and so have messages.
        Reason::NoAddress,
        Reason::EngineBusy,
        Reason::AccountingFailed,
        Reason::ChannelFrame,
    ];
    given.extend(links);
    let all: BTreeSet<_> = Reason::ALL.into_iter().collect();
    assert_eq!(given, all);
}

#[test]
fn a_packet_is_refused_for_the_first_of_several_reasons() {
    check(
        "
        account alice USD/9 packet 10 amount/min 20 packets/min 4
        account bob   EUR/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 11 expires 0s       -> alice reject R00 pkt.expired
        alice prepare 2 g.nowhere 11                -> alice reject F08 acct.packet_limit
        alice prepare 3 g.nowhere 10                -> alice reject F02 route.none
        alice prepare 4 g.bob.x 10 expires 1s       -> alice reject T00 fx.no_rate
        rate    USD EUR 1
        alice prepare 5 g.bob.x 10 expires 1s       -> alice reject R02 expiry.too_soon
        alice prepare 6 g.bob.x 11                  -> alice reject T05 acct.rate_limit
    ",
    );
}
