//! Operators change accounts while packets are in flight.

use rialto_connector::{Action, Settings};
use rialto_ledger::{IncomingToken, TokenHash};

use crate::{
    node::Node,
    story::{account, check},
};

#[test]
fn pausing_stops_new_packets_and_lets_old_ones_end() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 credit 100
        route   g.bob   -> bob
        route   g.alice -> alice
        alice prepare 1 g.bob.x 10      -> bob prepare
        alice prepare 2 g.bob.x 20      -> bob prepare
        update bob paused
        alice prepare 3 g.bob.x 1       -> alice reject T01 acct.paused
        bob prepare 4 g.alice.x 0       -> bob reject T01 acct.paused
        bob fulfill 1                   -> alice fulfill
        update alice paused
        bob fulfill 2                   -> alice fulfill
        update alice resumed
        update bob resumed
        alice prepare 5 g.bob.x 1       -> bob prepare
        bob fulfill 5                   -> alice fulfill
        balances                        -> alice -31, bob 31, held 0
    ",
    );
}

#[test]
fn an_account_is_deleted_only_when_nothing_waits_for_it() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 credit 100
        route   g.bob -> bob
        route   g.alice -> alice
        alice prepare 1 g.bob.x 10      -> bob prepare
        delete alice                    -> conflict in_flight
        delete bob                      -> conflict in_flight
        bob fulfill 1                   -> alice fulfill
        delete alice                    -> conflict balance
        delete bob                      -> conflict balance
        bob prepare 2 g.alice.x 10      -> alice prepare
        alice fulfill 2                 -> bob fulfill
        balances                        -> alice 0, bob 0, held 0
        delete bob                      -> conflict in_flight
        sync
        delete bob                      -> disconnect 2
        alice prepare 3 g.bob.x 10      -> alice reject F02 route.none
        delete bob                      -> notfound
        account bob USD/9 credit 1
        alice prepare 4 g.bob.x 10      -> alice reject F02 route.none
        route   g.bob -> bob
        alice prepare 5 g.bob.x 10      -> bob prepare on 3
        bob fulfill 5                   -> alice fulfill
        balances                        -> alice -10, bob 10, held 0
    ",
    );
}

#[test]
fn a_packet_without_money_also_keeps_an_account() {
    check(
        "
        account alice USD/9
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 0       -> bob prepare
        delete alice                    -> conflict in_flight
        delete bob                      -> conflict in_flight
        bob fulfill 1                   -> alice fulfill
        delete alice                    -> disconnect 1
        delete bob                      -> disconnect 2
    ",
    );
}

#[test]
fn whoever_was_deleted_is_turned_away() {
    use rialto_connector::{Input, LinkId, RequestId};
    let mut node = check(
        "
        account alice USD/9
        account bob   USD/9
        route   g.bob -> bob
    ",
    );
    let account = node.id("alice");
    node.step(|core, _, out| core.account_delete("alice", out))
        .0
        .unwrap();
    let (_, effects) = node.link_up(account);
    assert!(matches!(
        effects[..],
        [rialto_connector::Effect {
            action: Action::Disconnect { .. },
            ..
        }]
    ));
    let effects = node.handle(Input::Prepare {
        account,
        link: LinkId::Waiting { worker: 0 },
        request: RequestId(1),
        packet: [12, 0][..].into(),
    });
    assert!(format!("{effects:?}").contains("AccountPaused"));
    assert!(node.core.stats().account(account).is_none());
}

#[test]
fn accounts_that_contradict_others_or_themselves() {
    let long = "n".repeat(65);
    check(&format!(
        "
        account alice USD/9
        account alice EUR/9                                 -> conflict name
        account al.ice USD/9                                -> invalid name
        account {long} USD/9                                -> invalid name
        account bob USD/9 child address g.hub               -> conflict ilp_address
        account bob USD/9 address peer.bob                  -> invalid ilp_address
        account bob USD/9 child
        account carol USD/9 address g.hub.bob               -> conflict ilp_address
        account carol USD/9 local http                      -> invalid http
        account carol USD/9 credit -1                       -> invalid limits.balance_min
        account carol USD/9 credit 18446744073709551616     -> invalid limits.balance_min
        account carol USD/9 packet 0                        -> invalid limits.packet_amount_max
        account carol USD/9 packet 10 amount/min 9          -> invalid limits.packet_amount_max
        account carol USD/9 packet 10 in-flight-amount 9    -> invalid limits.packet_amount_max
        account carol USD/9 packet 10 unsynced 9            -> invalid limits.packet_amount_max
        account carol USD/9 spread 1                        -> invalid spread
        account carol USD/9 spread x                        -> invalid spread
        update  alice asset USD/6                           -> conflict asset_code
        balances                                            -> alice 0, bob 0, held 0
    "
    ));
}

#[test]
fn a_name_that_makes_our_address_too_long_is_refused() {
    let address = format!("g.{}", "x".repeat(1000));
    let (fits, long) = ("n".repeat(20), "n".repeat(21));
    check(&format!(
        "
        node {address}
        account {fits} USD/9 local
        account {long} USD/9 local      -> invalid name
        account {long} USD/9 peer
        account {long}x USD/9 local address g.short
    "
    ));
}

#[test]
fn a_revoked_token_ends_the_sessions_and_one_with_an_end_does_not() {
    let token = |byte, expires_at_ms| IncomingToken {
        jwt: None,
        pin: false,
        hash: TokenHash([byte; 32]),
        expires_at_ms,
    };
    let mut node = Node::new(Settings::new("g.node".parse().unwrap()));
    let with = |tokens: &[IncomingToken]| {
        let mut settings = account("alice", "USD/9");
        settings.incoming_tokens = tokens.to_vec();
        settings
    };
    let first = with(&[token(1, None)]);
    let id = node
        .step(|core, _, out| core.account_create(first, out))
        .0
        .unwrap();
    let (alice, _) = node.link_up(id);
    for (tokens, ends) in [
        (vec![token(1, Some(1_000)), token(2, None)], false),
        (vec![token(2, None)], true),
    ] {
        let changed = with(&tokens);
        let (updated, effects) = node.step(|core, _, out| core.account_update(changed, out));
        updated.unwrap();
        let ended =
            |action: &Action| matches!(action, Action::Disconnect { link } if *link == alice);
        assert_eq!(effects.iter().any(|effect| ended(&effect.action)), ends);
    }
}
