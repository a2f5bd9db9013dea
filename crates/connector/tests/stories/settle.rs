//! Settlement: made once, told until the engine has it, never in the way of packets.

use crate::story::check;

#[test]
fn what_reached_the_threshold_is_settled_once() {
    check(
        "
        account alice USD/9 credit 1000
        account bob   USD/9 credit 1000 engine 1 threshold 100 settle-to 10      -> introduce bob
        route   g.bob -> bob
        route   g.alice -> alice
        alice prepare 1 g.bob.x 99       -> bob prepare
        bob fulfill 1                    -> alice fulfill
        alice prepare 2 g.bob.x 1        -> bob prepare
        bob fulfill 2                    -> settle 1 bob 90/9 by 1, alice fulfill
        balances                         -> alice -100, bob 10, held 0
        settled USD/9                    -> 90
        alice prepare 3 g.bob.x 200      -> bob prepare
        bob fulfill 3                    -> alice fulfill
        balances                         -> alice -300, bob 210, held 0
        engine accepts 1                 -> settle 2 bob 200/9
        engine accepts 1                 -> ignored
        engine accepts 2
        engine refuses 2                 -> ignored
        balances                         -> alice -300, bob 10, held 0
        position USD/9                   -> 0
    ",
    );
}

#[test]
fn a_settlement_is_never_more_than_what_no_packet_in_flight_needs() {
    check(
        "
        account alice USD/9 credit 1000
        account bob   USD/9 credit 0 engine 1 threshold 100      -> introduce bob
        route   g.bob -> bob
        route   g.alice -> alice
        alice prepare 1 g.bob.x 90       -> bob prepare
        bob fulfill 1                    -> alice fulfill
        bob prepare 2 g.alice.x 60       -> alice prepare
        alice prepare 3 g.bob.x 10       -> bob prepare
        bob fulfill 3                    -> settle 1 bob 40/9, alice fulfill
        alice fulfill 2                  -> bob fulfill
        balances                         -> alice -40, bob 0, held 0
        engine accepts 1
        settle bob 1                     -> invalid amount
    ",
    );
}

#[test]
fn a_silent_engine_is_told_again_with_the_same_key_and_ever_more_slowly() {
    check(
        "
        account alice USD/9 credit 1000
        account bob   USD/9 engine 1 threshold 100      -> introduce bob
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100      -> bob prepare
        bob fulfill 1                    -> settle 1 bob 100/9, alice fulfill
        engine silent 1
        wait 49ms
        wait 51ms                        -> settle 1 bob 100/9
        wait 1h
        engine silent 1
        wait 99ms
        wait 101ms                       -> settle 1 bob 100/9
        restart                          -> settle 1 bob 100/9
        restart checkpoint               -> settle 1 bob 100/9
        engine accepts 1
        restart
        balances                         -> alice -100, bob 0, held 0
        settled USD/9                    -> 100
    ",
    );
}

#[test]
fn the_pause_never_exceeds_an_hour() {
    let waits = "engine silent 1\n wait 1h -> settle 1\n".repeat(70);
    check(&format!(
        "
        account alice USD/9 credit 1000
        account bob   USD/9 engine 1 threshold 100      -> introduce bob
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100      -> bob prepare
        bob fulfill 1                    -> settle 1 bob 100/9, alice fulfill
        {waits}
        engine accepts 1
    "
    ));
}

#[test]
fn what_the_engine_refused_is_for_an_operator_to_decide() {
    check(
        "
        account alice USD/9 credit 1000
        account bob   USD/9 credit 50 engine 1 threshold 100      -> introduce bob
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100      -> bob prepare
        bob fulfill 1                    -> settle 1 bob 100/9, alice fulfill
        retry 1                          -> conflict id
        cancel 1                         -> conflict id
        retry 2                          -> notfound
        update bob engine 2              -> conflict settlement.engine_url
        update bob engine none           -> conflict settlement.engine_url
        sync
        delete bob                       -> conflict settlement
        engine refuses 1
        settle bob                       -> conflict account
        retry 1                          -> settle 1 bob 100/9
        engine refuses 1
        restart
        balances                         -> alice -100, bob 0, held 0
        cancel 1
        cancel 1                         -> conflict id
        balances                         -> alice -100, bob 100, held 0
        settled USD/9                    -> 0
        settle bob 30 key k              -> settle 2 bob 30/9
        settle bob 30 key k
        settle bob 31 key k              -> invalid idempotency-key
        settle alice 30 key k            -> invalid idempotency-key
        engine accepts 2
        settle bob                       -> settle 3 bob 70/9
        engine accepts 3
        settle bob                       -> invalid amount
        settle bob 51                    -> invalid amount
        settle bob 50                    -> settle 4 bob 50/9
        engine accepts 4
        balances                         -> alice -100, bob -50, held 0
        update bob engine 2              -> close bob by 1
    ",
    );
}

#[test]
fn a_schedule_settles_what_gathered_and_only_if_it_is_worth_it() {
    check(
        "
        account alice USD/9 credit 1000
        account bob   USD/9 engine 1 every 60 at-least 10      -> introduce bob
        route   g.bob -> bob
        alice prepare 1 g.bob.x 9        -> bob prepare
        bob fulfill 1                    -> alice fulfill
        wait 60s
        alice prepare 2 g.bob.x 1        -> bob prepare
        bob fulfill 2                    -> alice fulfill
        wait 59s
        wait 1s                          -> settle 1 bob 10/9
        engine accepts 1
        wait 1h
        alice prepare 3 g.bob.x 50       -> bob prepare
        bob fulfill 3                    -> alice fulfill
        update bob every none
        wait 60s
        balances                         -> alice -60, bob 50, held 0
    ",
    );
}

#[test]
fn a_draining_or_failed_node_makes_no_settlement() {
    for end in ["drain", "journal fails"] {
        check(&format!(
            "
            account alice USD/9 credit 1000
            account bob   USD/9 engine 1 threshold 100      -> introduce bob
            route   g.bob -> bob
            alice prepare 1 g.bob.x 100      -> bob prepare
            {end}
            bob fulfill 1                    -> alice fulfill
            balances                         -> alice -100, bob 100, held 0
        "
        ));
    }
}

#[test]
fn an_incoming_settlement_is_credited_once() {
    check(
        "
        account alice USD/9 credit 100 engine 1      -> introduce alice
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100      -> bob prepare
        bob fulfill 1                    -> alice fulfill
        alice credited k 60/9            -> new 60 lsn 5
        alice credited k 60/9            -> before 60
        alice credited k 61/9            -> conflict idempotency-key
        alice credited k 60/10           -> conflict idempotency-key
        bob credited k 60/9              -> conflict idempotency-key
        restart
        alice credited k 60/9            -> before 60
        restart checkpoint
        alice credited k 60/9            -> before 60
        balances                         -> alice -40, bob 100, held 0
        settled USD/9                    -> -60
    ",
    );
}

#[test]
fn what_they_paid_ahead_is_not_paid_back() {
    check(
        "
        account alice USD/9 credit 1000
        account bob   USD/9 credit 30 engine 1 threshold 100    -> introduce bob
        route   g.bob -> bob
        route   g.alice -> alice
        bob prepare 1 g.alice.x 20       -> alice prepare
        alice fulfill 1                  -> bob fulfill
        bob credited k 1020/9            -> new 1020
        alice prepare 2 g.bob.x 99       -> bob prepare
        bob fulfill 2                    -> alice fulfill
        restart checkpoint
        bob up                           -> introduce bob
        alice prepare 3 g.bob.x 1        -> bob prepare
        bob fulfill 3                    -> settle 1 bob 100/9, alice fulfill
        engine accepts 1
        balances                         -> alice -80, bob 1000, held 0
        settle bob                       -> invalid amount
        settle bob 1000                  -> settle 2 bob 1000/9
        engine accepts 2
        alice prepare 4 g.bob.x 100      -> bob prepare
        bob fulfill 4                    -> settle 3 bob 100/9, alice fulfill
        balances                         -> alice -180, bob 0, held 0
    ",
    );
}

#[test]
fn keys_are_kept_for_a_day_after_their_latest_use() {
    check(
        "
        account alice USD/9 engine 1      -> introduce alice
        alice credited k 60/9            -> new 60
        alice credited old 1/9           -> new 1
        wait 23h
        alice credited k 60/9            -> before 60
        wait 2h
        alice credited k 60/9            -> before 60
        wait 47h
        alice credited new 1/9           -> new 1
        restart checkpoint
        alice credited k 60/9            -> before 60
        alice credited old 1/9           -> new 1
    ",
    );
}

#[test]
fn what_does_not_make_a_unit_is_carried_on() {
    check(
        "
        account alice USD/9 engine 1      -> introduce alice
        alice credited a 905/11          -> new 9
        leftover alice                   -> 5/11
        alice credited b 95/11           -> new 1
        leftover alice                   -> 0/0
        alice credited c 1999/12         -> new 1
        alice credited d 1/6             -> new 1000
        leftover alice                   -> 999/12
        restart checkpoint
        alice credited e 1/12            -> new 1
        alice credited f 18446744073709551616/9     -> invalid amount
        alice credited g 1/0             -> new 1000000000
        balances                         -> alice 1000001012, held 0
    ",
    );
}

#[test]
fn what_an_engine_says_that_was_exchanged_meanwhile_asks_the_other_no_more_often() {
    check(
        "
        account alice USD/9 engine 1     -> introduce alice to 1
        update alice engine 2            -> close alice by 1, introduce alice to 2
        alice introduced no
        alice introduced no
        wait 200ms                       -> introduce alice to 2
    ",
    );
}

#[test]
fn an_engine_hears_of_an_account_once_its_holder_is_there() {
    check(
        "
        account alice USD/9 engine 1 down
        account bob   USD/9
        route   g.bob -> bob
        wait 1h
        alice prepare 1 g.bob.x 0        -> bob prepare, introduce alice to 1
        bob fulfill 1                    -> alice fulfill
        alice introduced no
        alice prepare 2 g.bob.x 0        -> bob prepare
        wait 100ms                       -> introduce alice to 1
        bob fulfill 2                    -> alice fulfill
        alice introduced no
        wait 99ms
        wait 101ms                       -> introduce alice to 1
        alice introduced yes
        wait 2h
        alice up
        update alice engine 2            -> close alice by 1, introduce alice to 2
        alice introduced no
        sync
        delete alice                     -> close #1 by 2, disconnect 2
        wait 1h
    ",
    );
}

#[test]
fn settlement_terms_that_contradict_themselves() {
    check(
        "
        account a USD/9 local engine 1                        -> invalid settlement.engine_url
        account a USD/9 engine 1 threshold 10 settle-to 10    -> invalid settlement.threshold
        account a USD/9 engine 1 credit 5 settle-to -6        -> invalid settlement.settle_to
        account a USD/9 engine 1 every 0                      -> invalid settlement.every_s
        account a USD/9
        settle a                                              -> invalid settlement.engine_url
        settle b                                              -> notfound
    ",
    );
}

#[test]
fn an_engine_closes_the_account_when_it_has_another_or_is_gone() {
    check(
        "
        account alice USD/9 engine 1           -> introduce alice to 1
        update alice engine 2                  -> close alice by 1, introduce alice to 2
        alice closed 1 no
        wait 49ms
        wait 51ms                              -> close alice by 1
        alice closed 1 no
        wait 99ms
        wait 101ms                             -> close alice by 1
        alice closed 1 yes
        alice closed 1 no
        wait 2h
        update alice engine none               -> close alice by 2
        alice closed 2 refused
        wait 2h
        update alice engine 1                  -> introduce alice to 1
        update alice engine none               -> close alice by 1
        alice closed 1 no
        update alice engine 1                  -> introduce alice to 1
        wait 2h
        sync
        delete alice                           -> close #1 by 1, disconnect 1
    ",
    );
}
