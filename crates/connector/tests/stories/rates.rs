//! What a packet is worth on the other side: rounded down, never in the sender's favour.

use crate::story::check;

#[test]
fn a_conversion_drops_the_fraction() {
    check(
        "
        account alice USD/2 credit 1000
        account bob   EUR/2
        route   g.bob -> bob
        rate    USD EUR 0.92
        alice prepare 1 g.bob.x 100     -> bob prepare 92
        alice prepare 2 g.bob.x 99      -> bob prepare 91
        alice prepare 3 g.bob.x 2       -> bob prepare 1
        alice prepare 4 g.bob.x 1       -> alice reject R01 fx.rounds_to_zero
        bob fulfill 1                   -> alice fulfill
        bob fulfill 2                   -> alice fulfill
        bob fulfill 3                   -> alice fulfill
        balances                        -> alice -201, bob 184, held 0
        position USD/2                  -> 201
        position EUR/2                  -> -184
    ",
    );
}

#[test]
fn scales_are_taken_care_of() {
    check(
        "
        account alice USD/9 credit 10000000
        account bob   USD/6 credit 1000
        route   g.bob   -> bob
        route   g.alice -> alice
        alice prepare 1 g.bob.x 1_000   -> bob prepare 1
        alice prepare 2 g.bob.x 999     -> alice reject R01 fx.rounds_to_zero
        alice prepare 3 g.bob.x 1_999   -> bob prepare 1
        bob prepare 4 g.alice.x 7       -> alice prepare 7000
        wait 9s                         -> bob reject #4, alice reject #1, alice reject #3
    ",
    );
}

#[test]
fn the_farthest_scales() {
    check(
        "
        account alice USD/0   credit 100
        account bob   USD/255 credit 18446744073709551615
        account carol USD/255
        route   g.bob   -> bob
        route   g.alice -> alice
        route   g.carol -> carol
        alice prepare 1 g.bob.x 1       -> alice reject F08 fx.overflow received 1 maximum 0
        bob prepare 2 g.alice.x max     -> bob reject R01 fx.rounds_to_zero
        bob prepare 3 g.carol.x max     -> carol prepare 18446744073709551615
        rate USD EUR 1
        alice prepare 4 g.bob.x 0       -> bob prepare 0
        wait 9s                         -> alice reject #4, bob reject #3
    ",
    );
}

#[test]
fn what_does_not_fit_64_bits_is_told_the_largest_that_does() {
    check("
        account alice USD/2 credit 18446744073709551615
        account bob   YEN/2
        route   g.bob -> bob
        rate    USD YEN 3
        alice prepare 1 g.bob.x max                     -> alice reject F08 fx.overflow received 18446744073709551615 maximum 6148914691236517205
        alice prepare 2 g.bob.x 6148914691236517206     -> alice reject F08 fx.overflow received 6148914691236517206 maximum 6148914691236517205
        alice prepare 3 g.bob.x 6148914691236517205     -> bob prepare 18446744073709551615
        bob fulfill 3                                   -> alice fulfill
        position YEN/2                                  -> -18446744073709551615
    ");
}

#[test]
fn an_amount_above_2_to_the_53_keeps_its_last_unit() {
    check(
        "
        account alice USD/9 credit 18446744073709551615
        account bob   EUR/9
        route   g.bob -> bob
        rate    USD EUR 0.999999999999999999
        alice prepare 1 g.bob.x 9007199254740993                -> bob prepare 9007199254740992
        bob fulfill 1                                           -> alice fulfill
        alice prepare 2 g.bob.x 1000000000000000001             -> bob prepare 999999999999999999
        wait 9s                                                 -> alice reject R00
    ",
    );
}

#[test]
fn spreads_of_node_pair_and_account() {
    check("
        node g.hub spread 0.1
        account alice USD/2 credit 10000
        account carol USD/2 credit 10000 spread 0.5
        account bob   EUR/2
        account dave  USD/2
        route   g.bob  -> bob
        route   g.dave -> dave
        rate    USD EUR 2
        alice prepare 1 g.bob.x 100     -> bob prepare 180
        carol prepare 2 g.bob.x 100     -> bob prepare 90
        alice prepare 3 g.dave.x 100    -> dave prepare 90
        rate    USD EUR 2 spread 0.01
        alice prepare 4 g.bob.x 100     -> bob prepare 198
        carol prepare 5 g.bob.x 100     -> bob prepare 99
        rate    USD EUR 2 spread 0
        alice prepare 6 g.bob.x 100     -> bob prepare 200
        update  alice spread 0.005
        alice prepare 7 g.bob.x 100     -> bob prepare 199
        wait 9s                         -> alice reject #1, carol reject #2, alice reject #4, carol reject #5, alice reject #6, alice reject #7, alice reject #3
    ");
}

#[test]
fn the_rate_of_the_opposite_pair_serves_where_none_is_set() {
    check(
        "
        account alice USD/2 credit 10000
        account bob   EUR/2 credit 10000
        route   g.bob   -> bob
        route   g.alice -> alice
        rate    USD EUR 0.75 spread 0.5
        alice prepare 1 g.bob.x 400     -> bob prepare 150
        bob prepare 2 g.alice.x 300     -> alice prepare 200
        rate    EUR USD 2
        bob prepare 3 g.alice.x 300     -> alice prepare 600
        rate    EUR USD none
        bob prepare 4 g.alice.x 300     -> alice prepare 200
        rate    USD EUR none
        bob prepare 5 g.alice.x 300     -> bob reject T00 fx.no_rate
        alice prepare 6 g.bob.x 300     -> alice reject T00 fx.no_rate
        rate    USD EUR none            -> notfound
        wait 9s                         -> bob reject, bob reject, bob reject, alice reject
    ",
    );
}

#[test]
fn a_rate_is_stale_from_its_last_instant_on() {
    check(
        "
        account alice USD/2 credit 10000
        account bob   EUR/2 credit 10000
        route   g.bob   -> bob
        route   g.alice -> alice
        rate    USD EUR 0.5 until 5s
        alice prepare 1 g.bob.x 10      -> bob prepare 5
        wait 4999ms
        alice prepare 2 g.bob.x 10      -> bob prepare 5
        wait 1ms
        alice prepare 3 g.bob.x 10      -> alice reject T00 fx.stale
        bob prepare 4 g.alice.x 10      -> bob reject T00 fx.stale
        alice prepare 5 g.bob.x 0       -> bob prepare 0
        bob fulfill 1                   -> alice fulfill
        rate    USD EUR 0.5 until 5s
        alice prepare 6 g.bob.x 10      -> bob prepare 5
        wait 9s                         -> alice reject, alice reject, alice reject
    ",
    );
}

#[test]
fn a_new_rate_leaves_what_is_in_flight_alone() {
    check(
        "
        account alice USD/2 credit 10000
        account bob   EUR/2
        route   g.bob -> bob
        rate    USD EUR 0.5
        alice prepare 1 g.bob.x 10      -> bob prepare 5
        rate    USD EUR 0.9
        bob fulfill 1                   -> alice fulfill
        balances                        -> alice -10, bob 5, held 0
    ",
    );
}

#[test]
fn settings_of_the_node_are_replaced_while_it_runs() {
    let node = check(
        "
        node g.hub spread 0.1
        account alice USD/2 credit 10000
        account bob   USD/2
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100     -> bob prepare 90
        reload g.other spread 0.2 cap USD/2=250 hold 5s strict
        alice prepare 2 g.bob.x 100     -> bob prepare 80 expires 5s
        alice prepare 3 g.bob.x 51      -> alice reject T04 acct.unsynced_cap by g.hub
        bob fulfill 1                   -> alice fulfill synced
        reload g.other window 4s
        alice prepare 4 g.bob.x 51      -> bob prepare 51 expires 6s
        alice prepare 5 g.hub 0 condition ping -> alice fulfill written
        wait 6s                         -> alice reject #2, alice reject #4
    ",
    );
    assert_eq!(node.core.address().unwrap().as_str(), "g.hub");
}

#[test]
fn rates_that_make_no_sense() {
    check(
        "
        rate USD USD 1                  -> invalid to
        rate USD EUR 0                  -> invalid rate
        rate USD EUR -1                 -> invalid rate
        rate USD EUR 1e3                -> invalid rate
        rate USD EUR 1 spread 1         -> invalid spread
        rate USD EUR 1 spread 0.999
    ",
    );
}
