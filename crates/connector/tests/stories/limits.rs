//! Every limit, at its boundary.

use crate::story::{check, play};

#[test]
fn the_largest_packet() {
    check("
        account alice USD/9 credit 1000 packet 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100     -> bob prepare 100
        alice prepare 2 g.bob.x 101     -> alice reject F08 acct.packet_limit by g.hub received 101 maximum 100
        alice prepare 3 g.bob.x max     -> alice reject F08 acct.packet_limit received 18446744073709551615 maximum 100
        bob fulfill 1                   -> alice fulfill
    ");
}

#[test]
fn packets_per_minute() {
    check("
        account alice USD/9 credit 1000 packets/min 6
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1       -> bob prepare
        alice prepare 2 g.nowhere 1     -> alice reject F02
        alice prepare 3 peer.config 0   -> alice reject F01
        alice prepare 4 g.bob.x 0       -> bob prepare
        alice prepare 5 g.bob.x 0       -> bob prepare
        alice prepare 6 g.bob.x 0       -> bob prepare
        alice prepare 7 g.bob.x 0       -> alice reject T05 acct.rate_limit
        wait 9s                         -> alice reject R00, alice reject R00, alice reject R00, alice reject R00
        wait 999ms
        alice prepare 8 g.bob.x 0       -> alice reject T05 acct.rate_limit
        wait 1ms
        alice prepare 9 g.bob.x 0       -> bob prepare
        alice prepare 10 g.bob.x 0      -> alice reject T05 acct.rate_limit
        wait 9s                         -> alice reject R00
    ");
}

#[test]
fn the_amount_per_minute_counts_what_was_not_refused() {
    check(
        "
        account alice USD/9 credit 1000 amount/min 60
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 61      -> alice reject T04 acct.amount_rate_limit
        alice prepare 2 g.bob.x 60      -> bob prepare
        alice prepare 3 g.bob.x 1       -> alice reject T04 acct.amount_rate_limit
        alice prepare 4 g.bob.x 0       -> bob prepare
        bob reject 2 F99                -> alice reject F99
        alice prepare 5 g.nowhere 60    -> alice reject F02 route.none
        alice prepare 6 g.bob.x 60      -> bob prepare
        bob fulfill 6                   -> alice fulfill
        alice prepare 7 g.bob.x 1       -> alice reject T04 acct.amount_rate_limit
        wait 999ms
        alice prepare 8 g.bob.x 1       -> alice reject T04 acct.amount_rate_limit
        wait 1ms
        alice prepare 9 g.bob.x 1       -> bob prepare
        wait 9s                         -> alice reject R00, alice reject R00
        alice prepare 10 g.bob.x 10     -> bob prepare
        alice prepare 11 g.bob.x 1      -> alice reject T04 acct.amount_rate_limit
        bob fulfill 10                  -> alice fulfill
    ",
    );
}

#[test]
fn every_way_a_packet_can_end_gives_the_amount_of_the_minute_back_once() {
    for ends in [
        "bob reject 1 F99 -> alice reject",
        "bob fulfill 1 wrong -> alice reject",
        "bob garbage 1 -> alice reject",
        "bob fail 1 500 -> alice reject",
        "wait 9s -> alice reject",
    ] {
        check(
            &format!(
                "
            account alice USD/9 credit 1000 amount/min 60
            account bob   USD/9
            route   g.bob -> bob
            alice prepare 8 g.bob.x 10      -> bob prepare
            bob fulfill 8                   -> alice fulfill
            alice prepare 1 g.bob.x 50      -> bob prepare
            {ends}
            alice prepare 2 g.bob.x 60      -> alice reject T04 acct.amount_rate_limit
            alice prepare 3 g.bob.x 50      -> bob prepare
            bob fulfill 3                   -> alice fulfill
        "
            )
            .replace(
                // What flows in while it is waited for.
                "wait 9s -> alice reject\n            alice prepare 2 g.bob.x 60",
                "wait 9s -> alice reject\n            alice prepare 2 g.bob.x 61",
            ),
        );
    }
}

#[test]
fn the_number_in_flight() {
    check(
        "
        account alice USD/9 credit 1000 in-flight-count 2
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1       -> bob prepare
        alice prepare 2 g.bob.x 0       -> bob prepare
        alice prepare 3 g.bob.x 0       -> alice reject T04 acct.inflight_limit
        bob reject 2 F99                -> alice reject F99
        alice prepare 4 g.bob.x 0       -> bob prepare
        bob fulfill 1                   -> alice fulfill
        alice prepare 5 g.bob.x 1       -> bob prepare
        alice prepare 6 g.bob.x 1       -> alice reject T04 acct.inflight_limit
        bob fulfill 4                   -> alice fulfill
        bob fulfill 5                   -> alice fulfill
    ",
    );
}

#[test]
fn the_amount_in_flight() {
    check(
        "
        account alice USD/9 credit 1000 in-flight-amount 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 101     -> alice reject T04 acct.inflight_limit
        alice prepare 2 g.bob.x 60      -> bob prepare
        alice prepare 3 g.bob.x 41      -> alice reject T04 acct.inflight_limit
        alice prepare 4 g.bob.x 40      -> bob prepare
        alice prepare 5 g.bob.x 0       -> bob prepare
        bob fulfill 2                   -> alice fulfill
        alice prepare 6 g.bob.x 60      -> bob prepare
        alice prepare 7 g.bob.x 1       -> alice reject T04 acct.inflight_limit
        bob fulfill 4                   -> alice fulfill
        bob fulfill 5                   -> alice fulfill
        bob fulfill 6                   -> alice fulfill
        balances                        -> alice -160, bob 160, held 0
    ",
    );
}

#[test]
fn credit_counts_what_is_owed_and_what_is_in_flight() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob   -> bob
        route   g.alice -> alice
        alice prepare 1 g.bob.x 101     -> alice reject T04 acct.credit_limit
        alice prepare 2 g.bob.x 60      -> bob prepare
        alice prepare 3 g.bob.x 41      -> alice reject T04 acct.credit_limit
        alice prepare 4 g.bob.x 40      -> bob prepare
        alice prepare 5 g.bob.x 1       -> alice reject T04 acct.credit_limit
        alice prepare 6 g.bob.x 0       -> bob prepare
        bob prepare 7 g.alice.x 1       -> bob reject T04 acct.credit_limit
        bob fulfill 2                   -> alice fulfill
        alice prepare 8 g.bob.x 1       -> alice reject T04 acct.credit_limit
        bob prepare 9 g.alice.x 60      -> alice prepare 60
        alice prepare 10 g.bob.x 1      -> alice reject T04 acct.credit_limit
        alice fulfill 9                 -> bob fulfill
        alice prepare 11 g.bob.x 61     -> alice reject T04 acct.credit_limit
        alice prepare 12 g.bob.x 60     -> bob prepare
        bob reject 4 F99                -> alice reject F99
        bob fulfill 6                   -> alice fulfill
        bob fulfill 12                  -> alice fulfill
        balances                        -> alice -60, bob 60, held 0
    ",
    );
}

#[test]
fn no_sequence_of_rejects_creates_credit() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100     -> bob prepare
        bob reject 1 F99                -> alice reject F99
        bob reject 1 F99                -> ignored
        bob fail 1 timeout              -> ignored
        bob garbage 1                   -> ignored
        alice prepare 2 g.bob.x 101     -> alice reject T04 acct.credit_limit
        alice prepare 3 g.bob.x 100     -> bob prepare
        alice prepare 4 g.bob.x 1       -> alice reject T04 acct.credit_limit
        bob fulfill 3                   -> alice fulfill
    ",
    );
}

#[test]
fn what_is_not_safe_on_disk_yet_is_capped_per_account() {
    check(
        "
        account alice USD/9 credit 1000 unsynced 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 101     -> alice reject T04 acct.unsynced_cap
        alice prepare 2 g.bob.x 60      -> bob prepare
        bob fulfill 2                   -> alice fulfill
        alice prepare 3 g.bob.x 41      -> alice reject T04 acct.unsynced_cap
        alice prepare 4 g.bob.x 40      -> bob prepare
        alice prepare 5 g.bob.x 0       -> bob prepare
        sync
        exposure alice                  -> 2, 40, 0
        alice prepare 6 g.bob.x 61      -> alice reject T04 acct.unsynced_cap
        alice prepare 7 g.bob.x 60      -> bob prepare
        bob reject 7 F99                -> alice reject F99
        bob fulfill 4                   -> alice fulfill
        alice prepare 8 g.bob.x 61      -> alice reject T04 acct.unsynced_cap
        sync
        alice prepare 9 g.bob.x 100     -> bob prepare
        bob fulfill 9                   -> alice fulfill
        bob fulfill 5                   -> alice fulfill
        balances                        -> alice -200, bob 200, held 0
    ",
    );
}

#[test]
fn what_is_not_safe_on_disk_yet_is_capped_per_node_and_asset() {
    check(
        "
        node g.hub cap USD/9=100
        account alice USD/9 credit 1000
        account carol USD/9 credit 1000
        account dave  EUR/9 credit 1000
        account bob   USD/9
        route   g.bob -> bob
        rate    EUR USD 1
        alice prepare 1 g.bob.x 60      -> bob prepare
        carol prepare 2 g.bob.x 41      -> carol reject T04 acct.unsynced_cap
        carol prepare 3 g.bob.x 40      -> bob prepare
        bob fulfill 1                   -> alice fulfill
        carol prepare 4 g.bob.x 1       -> carol reject T04 acct.unsynced_cap
        dave prepare 5 g.bob.x 1000     -> bob prepare
        bob reject 3 F99                -> carol reject F99
        carol prepare 6 g.bob.x 41      -> carol reject T04 acct.unsynced_cap
        carol prepare 7 g.bob.x 40      -> bob prepare
        sync
        carol prepare 8 g.bob.x 60      -> bob prepare
        carol prepare 9 g.bob.x 1       -> carol reject T04 acct.unsynced_cap
        wait 9s                         -> dave reject R00, carol reject R00, carol reject R00
    ",
    );
}

#[test]
fn a_sync_frees_only_what_it_covers() {
    let mut node = check(
        "
        account alice USD/9 credit 1000 unsynced 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 60      -> bob prepare
        bob fulfill 1                   -> alice fulfill written 4
        sync
        alice prepare 2 g.bob.x 60      -> bob prepare
        bob fulfill 2                   -> alice fulfill written 5
    ",
    );
    // An old number again changes nothing.
    node.handle(rialto_connector::Input::Synced(rialto_ledger::Lsn(4)));
    assert_eq!(node.balance("alice"), -120);
}

#[test]
fn a_sync_is_wanted_once_a_quarter_of_a_cap_is_not_on_disk() {
    for books in [
        "account alice USD/9 credit 1000 unsynced 100",
        "node g.hub cap USD/9=100
         account alice USD/9 credit 1000",
    ] {
        let wants_sync = |steps: &str| {
            let story = format!(
                "{books}
                 account bob   USD/9
                 route   g.bob -> bob
                 alice prepare 1 g.bob.x 25      -> bob prepare
                 bob fulfill 1                   -> alice fulfill
                 alice prepare 2 g.bob.x 1       -> bob prepare
                 {steps}"
            );
            play(&story).core.ledger().wants_sync()
        };
        assert!(!wants_sync(""));
        let near = "
                 bob fulfill 2                   -> alice fulfill
                 alice prepare 3 g.bob.x 1       -> bob prepare";
        assert!(wants_sync(near));
        assert!(!wants_sync(&format!("{near}\nsync")));
    }
}

#[test]
fn packets_in_flight_on_the_whole_node() {
    check(
        "
        node g.hub pending 2
        account alice USD/9 credit 100
        account carol USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1       -> bob prepare
        carol prepare 2 g.bob.x 1       -> bob prepare
        carol prepare 3 g.bob.x 1       -> carol reject T03 overload
        alice prepare 4 g.bob.x 0       -> alice reject T03 overload
        bob fulfill 1                   -> alice fulfill
        carol prepare 5 g.bob.x 1       -> carol reject T04 acct.inflight_limit
        bob fulfill 2                   -> carol fulfill
        carol prepare 6 g.bob.x 1       -> bob prepare
        bob fulfill 6                   -> carol fulfill
    ",
    );
}

#[test]
fn one_account_takes_at_most_half_of_what_the_node_bears() {
    check(
        "
        node g.hub pending 4
        account alice USD/9 credit 100
        account carol USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 0       -> bob prepare
        alice prepare 2 g.bob.x 0       -> bob prepare
        alice prepare 3 g.bob.x 0       -> alice reject T04 acct.inflight_limit
        carol prepare 4 g.bob.x 0       -> bob prepare
        bob reject 1 F99                -> alice reject F99
        alice prepare 5 g.bob.x 0       -> bob prepare
        bob fulfill 2                   -> alice fulfill
        bob fulfill 4                   -> carol fulfill
        bob fulfill 5                   -> alice fulfill
    ",
    );
}

#[test]
fn a_changed_limit_holds_from_the_next_packet_on() {
    check(
        "
        account alice USD/9 credit 100 packets/min 2
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100     -> bob prepare
        update alice credit 10
        bob fulfill 1                   -> alice fulfill
        alice prepare 2 g.bob.x 1       -> alice reject T04 acct.credit_limit
        update alice credit 200
        alice prepare 3 g.bob.x 1       -> alice reject T05 acct.rate_limit
        balances                        -> alice -100, bob 100, held 0
    ",
    );
}

#[test]
fn a_packet_without_money_passes_a_value_limit_that_was_lowered() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100     -> bob prepare
        update alice credit 10 in-flight-amount 10 unsynced 10
        alice prepare 2 g.bob.x 0       -> bob prepare 0
        bob fulfill 2                   -> alice fulfill
        bob fulfill 1                   -> alice fulfill
    ",
    );
}

#[test]
fn the_largest_amounts_add_up() {
    check("
        account alice USD/9 credit 18446744073709551615
        account bob   USD/9 credit 18446744073709551615
        route   g.bob   -> bob
        route   g.alice -> alice
        alice prepare 1 g.bob.x max     -> bob prepare 18446744073709551615
        alice prepare 2 g.bob.x 1       -> alice reject T04 acct.credit_limit
        bob fulfill 1                   -> alice fulfill
        alice prepare 3 g.bob.x 1       -> alice reject T04 acct.credit_limit
        bob prepare 4 g.alice.x max     -> alice prepare 18446744073709551615
        bob prepare 5 g.alice.x max     -> alice prepare 18446744073709551615
        bob prepare 6 g.alice.x 1       -> bob reject T04 acct.credit_limit
        exposure bob                    -> 2, 36893488147419103230, 0
        alice fulfill 4                 -> bob fulfill
        alice fulfill 5                 -> bob fulfill
        balances                        -> alice 18446744073709551615, bob -18446744073709551615, held 0
    ");
}

/// A Rafiki node: below 160 packets a second, at least 6 ms apart after a T05; probes of any size are
/// told what would pass before anything is said about credit.
#[test]
fn packets_to_a_next_hop_that_lets_only_so_many_through() {
    check("
        account alice USD/9 credit 1000 packet 100
        account bob   USD/9 packets-out/s 16
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1       -> bob prepare
        alice prepare 2 g.bob.x 1       -> bob prepare
        alice prepare 3 g.bob.x 1       -> alice reject T05 link.pace
        wait 62ms
        alice prepare 4 g.bob.x 1       -> alice reject T05 link.pace
        wait 1ms
        alice prepare 5 g.bob.x 1       -> bob prepare
        wait 1s
        bob reject 1 T05                -> alice reject T05
        alice prepare 6 g.bob.x 1       -> bob prepare
        alice prepare 7 g.bob.x 1       -> alice reject T05 link.pace
        wait 63ms
        alice prepare 8 g.bob.x 1       -> bob prepare
        alice prepare 9 g.bob.x max     -> alice reject F08 acct.packet_limit received 18446744073709551615 maximum 100
        bob fulfill 2                   -> alice fulfill
        bob fulfill 5                   -> alice fulfill
        bob fulfill 6                   -> alice fulfill
        bob fulfill 8                   -> alice fulfill
    ");
}
