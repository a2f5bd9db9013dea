//! What comes back for a packet.

use crate::story::check;

/// Two peers in one asset; the route to bob.
const PEERS: &str = "
    account alice USD/9 credit 100
    account bob   USD/9 credit 100
    route   g.bob -> bob
";

#[track_caller]
fn peers(story: &str) {
    check(&format!("{PEERS}{story}"));
}

#[test]
fn a_fulfilled_packet_moves_its_amount() {
    peers("
        alice prepare 1 g.bob.x 40 data hello   -> bob prepare #1 40 expires 9s on 2 to g.bob.x data hello
        balances                                -> alice 0, bob 0, held 1
        exposure alice                          -> 1, 40, 0
        bob fulfill 1                           -> alice fulfill #1 written 4 data thanks
        exposure alice                          -> 0, 0, 40
        sync
        exposure alice                          -> 0, 0, 0
        balances                                -> alice -40, bob 40, held 0
        position USD/9                          -> 0
    ");
}

#[test]
fn a_reject_moves_nothing_and_passes_as_it_came() {
    peers("
        alice prepare 1 g.bob.x 40              -> bob prepare 40
        bob reject 1 F08 F08 40 7               -> alice reject F08 no by g.far.away received 40 maximum 7
        alice prepare 2 g.bob.x 100             -> bob prepare 100
        bob reject 2 T02                        -> alice reject T02 no by g.far.away
        balances                                -> alice 0, bob 0, held 0
    ");
}

#[test]
fn a_packet_that_the_link_lost_is_decided_by_its_reply_or_its_expiry() {
    peers(
        "
        alice prepare 1 g.bob.x 40 expires 10s  -> bob prepare 40
        alice prepare 2 g.bob.x 10 expires 10s  -> bob prepare 10
        bob lose 1
        bob lose 2
        balances                                -> alice 0, bob 0, held 2
        bob fulfill 1                           -> alice fulfill
        wait 9s                                 -> alice reject #2 R00 expiry.timed_out by g.hub
        bob fulfill 2                           -> late bob 10
        balances                                -> alice -40, bob 40, held 0
    ",
    );
}

#[test]
fn a_late_fulfill_pays_nobody() {
    peers(
        "
        alice prepare 1 g.bob.x 40 expires 10s  -> bob prepare 40 expires 9s
        wait 8999ms
        wait 1ms                                -> alice reject R00 expiry.timed_out by g.hub
        bob fulfill 1                           -> late bob 40
        bob fulfill 1                           -> ignored
        balances                                -> alice 0, bob 0, held 0
        late bob                                -> 1, 40
    ",
    );
}

#[test]
fn a_fulfill_at_the_deadline_is_late_even_before_the_timer_goes_off() {
    peers(
        "
        alice prepare 1 g.bob.x 40 expires 10s  -> bob prepare 40 expires 9s
        alice prepare 2 g.bob.x 40 expires 10s  -> bob prepare 40 expires 9s
        doze 8999ms
        bob fulfill 1                           -> alice fulfill
        doze 1ms
        bob fulfill 2                           -> late bob 40, alice reject R00 expiry.timed_out
        bob fulfill 2                           -> ignored
        balances                                -> alice -40, bob 40, held 0
        late bob                                -> 1, 40
    ",
    );
}

#[test]
fn a_late_fulfill_that_proves_nothing_is_no_loss() {
    peers(
        "
        alice prepare 1 g.bob.x 40 expires 10s  -> bob prepare 40
        wait 9s                                 -> alice reject R00
        bob fulfill 1 wrong                     -> ignored
        wait 1s
    ",
    );
}

#[test]
fn a_wrong_preimage_pays_nobody() {
    peers(
        "
        alice prepare 1 g.bob.x 40              -> bob prepare 40
        bob fulfill 1 wrong                     -> alice reject F05 cond.mismatch by g.hub
        bob fulfill 1                           -> ignored
        balances                                -> alice 0, bob 0, held 0
    ",
    );
}

#[test]
fn garbage_pays_nobody() {
    peers(
        "
        alice prepare 1 g.bob.x 40              -> bob prepare 40
        bob garbage 1                           -> alice reject T01 link.bad_reply by g.hub
        bob garbage 1                           -> ignored
        balances                                -> alice 0, bob 0, held 0
    ",
    );
}

#[test]
fn only_the_first_reply_counts() {
    peers(
        "
        alice prepare 1 g.bob.x 40              -> bob prepare 40
        bob fulfill 1                           -> alice fulfill
        bob fulfill 1                           -> ignored
        bob reject 1 F99                        -> ignored
        bob fail 1 timeout                      -> ignored
        alice prepare 2 g.bob.x 40              -> bob prepare 40
        bob reject 2 F99                        -> alice reject F99
        bob fulfill 2                           -> ignored
        balances                                -> alice -40, bob 40, held 0
    ",
    );
}

#[test]
fn only_the_next_hop_may_answer() {
    peers(
        "
        account eve USD/9 credit 100
        alice prepare 1 g.bob.x 40              -> bob prepare 40
        eve fulfill 1                           -> ignored
        eve reject 1 F99                        -> ignored
        bob fulfill 1                           -> alice fulfill
        balances                                -> alice -40, bob 40, eve 0, held 0
    ",
    );
}

#[test]
fn a_reply_to_nothing_is_ignored() {
    peers(
        "
        bob fulfill 9                           -> ignored
        bob reject 9 F99                        -> ignored
        bob garbage 9                           -> ignored
    ",
    );
}

#[test]
fn an_amount_of_zero_is_carried_and_moves_nothing() {
    check(
        "
        account alice USD/9
        account bob   EUR/2
        route   g.bob -> bob
        alice prepare 1 g.bob.x 0               -> bob prepare #1 0
        bob fulfill 1                           -> alice fulfill
        alice prepare 2 g.bob.x 1               -> alice reject T00 fx.no_rate
        balances                                -> alice 0, bob 0, held 0
    ",
    );
}

#[test]
fn answers_come_in_any_order() {
    peers(
        "
        alice prepare 1 g.bob.x 10              -> bob prepare #1 10
        alice prepare 2 g.bob.x 20              -> bob prepare #2 20
        alice prepare 3 g.bob.x 30              -> bob prepare #3 30
        exposure alice                          -> 3, 60, 0
        bob fulfill 3                           -> alice fulfill #3
        bob reject 1 F99                        -> alice reject #1 F99
        bob fulfill 2                           -> alice fulfill #2
        balances                                -> alice -50, bob 50, held 0
    ",
    );
}
