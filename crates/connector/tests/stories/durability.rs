//! What waits for what, and what is left after a crash.

use crate::story::check;

#[test]
fn a_strict_fulfill_waits_for_the_disk_while_there_is_time() {
    check(
        "
        node g.hub strict
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 10 expires 10s              -> bob prepare expires 9s
        wait 1s
        bob fulfill 1                                       -> alice fulfill synced 4 within 8800ms
        alice prepare 2 g.hub 1 condition ping expires 5s   -> alice fulfill synced 5 within 4800ms
        alice prepare 3 g.hub 1 condition ping expires 1ms  -> alice fulfill synced 6 within 0s
        alice prepare 4 g.bob.x 10                          -> bob prepare
        bob reject 4 F99                                    -> alice reject F99
    ",
    );
}

#[test]
fn a_failed_journal_stops_new_packets_and_no_old_ones() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 10      -> bob prepare
        alice prepare 2 g.bob.x 10      -> bob prepare
        alice prepare 3 g.bob.x 10      -> bob prepare
        journal fails
        alice prepare 4 g.bob.x 10      -> alice reject T00 internal by g.hub
        bob fulfill 1                   -> alice fulfill
        bob reject 2 F99                -> alice reject F99
        wait 9s                         -> alice reject R00
        balances                        -> alice -10, bob 10, held 0
    ",
    );
}

#[test]
fn a_node_that_drains_ends_what_it_began() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 10      -> bob prepare
        alice prepare 2 g.bob.x 10      -> bob prepare
        drain
        alice prepare 3 g.bob.x 10      -> alice reject T03 drain by g.hub
        alice prepare 4 g.hub 0 condition ping -> alice reject T03 drain
        bob fulfill 1                   -> alice fulfill
        bob reject 2 F99                -> alice reject F99
        balances                        -> alice -10, bob 10, held 0
    ",
    );
}

#[test]
fn a_crash_forgets_what_was_in_flight_and_nothing_else() {
    for restart in ["restart", "restart checkpoint"] {
        check(&format!(
            "
            account alice USD/9 credit 100 packet 50
            account bob   EUR/6
            account carol USD/9 local
            rate    USD EUR 2000
            route   g.bob -> bob
            alice prepare 1 g.bob.x 10      -> bob prepare 20
            bob fulfill 1                   -> alice fulfill
            alice prepare 2 g.bob.x 50      -> bob prepare 100
            alice prepare 3 g.hub 1 condition ping -> alice fulfill
            {restart}
            balances                        -> alice -11, bob 20, carol 0, held 0
            exposure alice                  -> 0, 0, 0
            bob up
            bob fulfill 2                   -> ignored
            alice prepare 4 g.bob.x 51      -> alice reject F08
            alice prepare 5 g.bob.x 50      -> bob prepare 100
            bob fulfill 5                   -> alice fulfill
            alice prepare 6 g.bob.x 40      -> alice reject T04 acct.credit_limit
            alice prepare 7 g.bob.x 39      -> bob prepare 78
            bob fulfill 7                   -> alice fulfill
            {restart}
            balances                        -> alice -100, bob 198, carol 0, held 0
            position USD/9                  -> 100
            position EUR/6                  -> -198
        "
        ));
    }
}

#[test]
fn numbers_of_deleted_accounts_are_not_used_again() {
    for restart in ["restart", "restart checkpoint"] {
        let node = check(&format!(
            "
            account alice USD/9
            account bob   EUR/9
            delete bob                      -> disconnect 2
            {restart}
            account carol USD/9
        "
        ));
        assert_eq!(node.id("carol").0, 3);
    }
}

#[test]
fn routes_and_rates_survive_with_their_order() {
    for restart in ["restart", "restart checkpoint"] {
        check(&format!(
            "
            account alice USD/9 credit 100
            account bob   EUR/9
            account carol EUR/9 child
            route   g.b   -> bob
            route   g.b.c -> carol
            route   g.x   -> bob
            route   g.x none
            rate    USD EUR 2
            rate    USD EUR 3 spread 0.5
            rate    USD YEN 3
            rate    USD YEN none
            {restart}
            bob up
            carol up
            alice prepare 1 g.b.x 10        -> bob prepare 15
            alice prepare 2 g.b.c 10        -> carol prepare 15
            alice prepare 3 g.hub.carol 10  -> carol prepare 15
            alice prepare 4 g.x 10          -> alice reject F02
            wait 9s                         -> alice reject, alice reject, alice reject
        "
        ));
    }
}
