//! Sessions come and go.

use crate::story::check;

#[test]
fn a_peer_without_a_session_is_not_reached() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 down
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1       -> alice reject T01 link.closed by g.hub
        bob up
        alice prepare 2 g.bob.x 1       -> bob prepare on 2
        bob down
        alice prepare 3 g.bob.x 1       -> alice reject T01 link.closed
        bob up
        alice prepare 4 g.bob.x 1       -> bob prepare on 3
        bob fulfill 4                   -> alice fulfill
        wait 9s                         -> alice reject #2 R00
        balances                        -> alice -1, bob 1, held 0
    ",
    );
}

#[test]
fn the_newest_session_is_sent_to_and_the_older_may_still_answer() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1       -> bob prepare on 2
        bob up                          -> disconnect bob 2
        alice prepare 2 g.bob.x 1       -> bob prepare on 3
        bob fulfill 1                   -> alice fulfill
        bob down 2
        bob fulfill 2                   -> alice fulfill
        alice prepare 3 g.bob.x 1       -> bob prepare on 3
        bob fulfill 3                   -> alice fulfill
    ",
    );
}

#[test]
fn when_the_newest_session_ends_the_older_one_serves_again() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        bob up                          -> disconnect bob 2
        bob up                          -> disconnect bob 2, disconnect bob 3
        bob down 4
        alice prepare 1 g.bob.x 1       -> bob prepare on 3
        bob fulfill 1                   -> alice fulfill
    ",
    );
}

#[test]
fn the_same_number_on_another_session_is_another_packet() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        account carol USD/9
        route   g.bob   -> bob
        route   g.carol -> carol
        alice prepare 1 g.bob.x 10      -> bob prepare 10
        alice prepare 2 g.carol.x 20    -> carol prepare 20
        carol fulfill 2                 -> alice fulfill #2
        bob reject 1 F99                -> alice reject #1
        balances                        -> alice -20, bob 0, carol 20, held 0
    ",
    );
}

#[test]
fn a_packet_on_a_lost_session_waits_for_its_end() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1       -> bob prepare
        bob down
        exposure alice                  -> 1, 1, 0
        wait 9s                         -> alice reject R00 expiry.timed_out
    ",
    );
}

#[test]
fn http_is_always_there_and_goes_before_a_session() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 http down
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1       -> bob prepare on http
        bob up
        alice prepare 2 g.bob.x 1       -> bob prepare on http
        bob fulfill 2                   -> alice fulfill
        bob fail 1 connect              -> alice reject T01 link.connect
        bob fulfill 1                   -> ignored
    ",
    );
}
