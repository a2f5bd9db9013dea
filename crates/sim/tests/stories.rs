//! Stories of whole nodes that crash, with the outcome beside each line (`crates/sim/src/story.rs`).

use rialto_sim::story;

fn check(text: &str) {
    if let Err(line) = story(text) {
        panic!("{line}");
    }
}

/// Three in a row, from alice to carol.
const ROW: &str = "
    node a
    node b
    node c
    link a b USD/9
    link b c USD/9
    edge alice a USD/9
    edge carol c USD/9
";

fn check_row(text: &str) {
    check(&format!("{ROW}{text}"));
}

#[test]
fn what_was_fulfilled_survives_a_kill() {
    check_row(
        "alice pays carol 40 for 10s -> carol gets 40
         carol fulfills              -> alice hears fulfill
         kill b
         restart b
         balances                    -> a/b 40, a/alice -40, b/a -40, b/c 40, c/b -40, c/carol 40",
    );
}

#[test]
fn what_was_in_flight_when_a_node_died_is_nobodys_debt() {
    check_row(
        "alice pays carol 40 for 10s -> carol gets 40
         kill b
         carol rejects
         restart b
         wait 10s                    -> alice hears R00
         balances                    ->
         alice pays carol 7 for 10s  -> carol gets 7
         carol fulfills              -> alice hears fulfill",
    );
}

#[test]
fn a_fulfill_that_reaches_nobody_is_booked_by_those_who_saw_it() {
    check_row(
        "alice pays carol 40 for 10s -> carol gets 40
         kill a
         carol fulfills
         restart a
         balances                    -> b/a -40, b/c 40, c/b -40, c/carol 40",
    );
}

#[test]
fn a_power_cut_loses_what_was_not_on_disk() {
    check_row(
        "alice pays carol 40 for 10s -> carol gets 40
         carol fulfills              -> alice hears fulfill
         disk b slow
         alice pays carol 2 for 10s  -> carol gets 2
         carol fulfills              -> alice hears fulfill
         power cut b
         disk b sound
         restart b
         balances                    -> a/b 42, a/alice -42, b/a -40, b/c 40, c/b -42, c/carol 42",
    );
}

#[test]
fn what_may_be_lost_is_bounded_before_it_can_be() {
    check(
        "node a
         edge alice a USD/9 cap 50
         edge bert a USD/9
         disk a slow
         alice pays bert 40 for 10s -> bert gets 40
         bert fulfills              -> alice hears fulfill
         alice pays bert 11 for 10s -> alice hears T04
         alice pays bert 10 for 10s -> bert gets 10
         bert fulfills              -> alice hears fulfill
         power cut a
         disk a sound
         restart a
         balances                   ->",
    );
}

#[test]
fn a_strict_node_waits_for_the_disk_while_there_is_time() {
    check(
        "node a strict
         edge alice a USD/9
         edge bert a USD/9
         disk a slow
         alice pays bert 40 for 10s -> bert gets 40
         bert fulfills              ->
         wait 10s                   -> alice hears fulfill
         balances                   -> a/alice -40, a/bert 40",
    );
}

#[test]
fn a_full_disk_holds_no_fulfill_back() {
    check_row(
        "alice pays carol 40 for 10s -> carol gets 40
         disk b full
         carol fulfills              -> alice hears fulfill
         alice pays carol 2 for 10s  -> alice hears T00
         disk b sound
         kill b
         restart b
         balances                    -> a/b 40, a/alice -40, c/b -40, c/carol 40",
    );
}

#[test]
fn a_step_of_the_clock_neither_kills_nor_revives() {
    check_row(
        "alice pays carol 40 for 20s -> carol gets 40
         clock b 3600s
         carol fulfills              -> alice hears fulfill
         alice pays carol 2 for 20s  -> alice hears R00
         clock b 0s
         alice pays carol 3 for 5s   -> carol gets 3
         clock b -3600s
         wait 5s                     -> alice hears R00
         carol fulfills
         balances                    -> a/b 40, a/alice -40, b/a -40, b/c 40, c/b -40, c/carol 40",
    );
}

#[test]
fn a_lost_connection_loses_the_answer_and_nothing_else() {
    check_row(
        "alice pays carol 40 for 60s -> carol gets 40
         cut a b
         carol fulfills
         wait 30s                    -> alice hears R00
         balances                    -> b/a -40, b/c 40, c/b -40, c/carol 40
         alice pays carol 2 for 10s  -> carol gets 2
         carol fulfills              -> alice hears fulfill",
    );
}

#[test]
fn a_wrong_preimage_pays_nobody_by_http_too() {
    check(
        "node a
         node b
         link a b EUR/6 http
         edge alice a EUR/6 http
         edge carol b EUR/6 http
         alice pays carol 40 for 10s -> carol gets 40
         carol lies                  -> alice hears F05
         alice pays carol 40 for 10s -> carol gets 40
         kill b
         alice pays carol 2 for 10s  -> alice hears T01
         wait 10s                    -> alice hears R00
         restart b
         balances                    ->",
    );
}

/// One whom the node pays, and one who pays through it.
const SHOP: &str = "
    node a
    edge alice a USD/9
    edge bert a USD/9 settles 100
";

fn check_shop(text: &str) {
    check(&format!("{SHOP}{text}"));
}

#[test]
fn what_one_peer_pays_comes_in_at_the_other_to_the_unit() {
    check(
        "node a
         node b
         link a b USD/9 settles 100 on 6
         edge alice a USD/9
         edge carol b USD/9
         alice pays carol 1100 for 10s -> carol gets 1100
         carol fulfills                -> alice hears fulfill
         wait 2s
         balances                      -> a/alice -1100, b/a -100, b/carol 1100
         alice pays carol 900 for 10s  -> carol gets 900
         carol fulfills                -> alice hears fulfill
         wait 2s
         balances                      -> a/alice -2000, b/carol 2000",
    );
}

#[test]
fn an_engine_that_never_answered_is_told_again_and_pays_once() {
    check_shop(
        "engine a/bert fails
         alice pays bert 100 for 10s -> bert gets 100
         bert fulfills               -> alice hears fulfill
         wait 2s
         power cut a
         engine a/bert sound
         restart a                   -> a/bert is paid 100/9
         engine a/bert hangs
         alice pays bert 100 for 10s -> bert gets 100
         bert fulfills               -> alice hears fulfill
         engine a/bert sound
         wait 30s                    -> a/bert is paid 100/9
         kill a
         restart a
         wait 30s
         balances                    -> a/alice -200",
    );
}

#[test]
fn an_engine_is_told_of_nothing_that_is_not_on_disk() {
    check_shop(
        "disk a slow
         alice pays bert 100 for 10s -> bert gets 100
         bert fulfills               -> alice hears fulfill
         balances                    -> a/alice -100
         power cut a
         disk a sound
         restart a
         balances                    ->",
    );
}

#[test]
fn a_settlement_that_comes_in_again_is_credited_once() {
    check_shop(
        "engine a/bert receives 40
         balances                           -> a/bert 40
         engine a/bert repeats
         engine a/bert repeats a unit more
         balances                           -> a/bert 40
         power cut a
         restart a
         engine a/bert repeats
         engine a/bert repeats a unit more
         balances                           -> a/bert 40",
    );
}

#[test]
fn an_engine_that_lost_its_state_is_told_of_the_account_and_reports_nothing_new() {
    check_shop(
        "engine a/bert receives 40
         balances                    -> a/bert 40
         engine a/bert forgets
         wait 5s
         balances                    -> a/bert 40
         a settles bert 30           -> a/bert is paid 30/9
         balances                    -> a/bert 10
         power cut a
         engine a/bert forgets
         restart a
         wait 5s
         a settles bert 10           -> a/bert is paid 10/9
         balances                    ->",
    );
}

#[test]
fn what_they_paid_ahead_is_not_paid_back() {
    check_shop(
        "engine a/bert receives 150
         alice pays bert 99 for 10s -> bert gets 99
         bert fulfills              -> alice hears fulfill
         balances                   -> a/alice -99, a/bert 249
         alice pays bert 1 for 10s  -> bert gets 1
         bert fulfills              -> alice hears fulfill, a/bert is paid 100/9
         balances                   -> a/alice -100, a/bert 150",
    );
}

#[test]
fn what_was_paid_ahead_stays_so_when_a_settlement_of_it_is_taken_back() {
    check_shop(
        "engine a/bert receives 150
         engine a/bert refuses
         a settles bert 120
         balances                    -> a/bert 30
         a cancels
         balances                    -> a/bert 150
         engine a/bert sound
         alice pays bert 1 for 10s   -> bert gets 1
         bert fulfills               -> alice hears fulfill
         balances                    -> a/alice -1, a/bert 151
         a settles bert 121          -> a/bert is paid 121/9",
    );
}

#[test]
fn two_that_pay_ahead_do_not_pay_each_other_for_ever() {
    check(
        "node a
         node b
         link a b USD/9 settles 100 ahead 50
         edge alice a USD/9
         edge carol b USD/9
         alice pays carol 100 for 10s -> carol gets 100
         carol fulfills               -> alice hears fulfill
         wait 2s
         balances                     -> a/b -50, a/alice -100, b/a 50, b/carol 100
         alice pays carol 40 for 10s  -> carol gets 40
         carol fulfills               -> alice hears fulfill
         wait 60s
         balances                     -> a/b -10, a/alice -140, b/a 10, b/carol 140",
    );
}

#[test]
fn a_settlement_that_was_refused_is_retried_with_its_key_or_owed_again() {
    check_shop(
        "engine a/bert refuses
         alice pays bert 100 for 10s -> bert gets 100
         bert fulfills               -> alice hears fulfill
         wait 60s
         kill a
         engine a/bert sound
         restart a
         wait 60s
         balances                    -> a/alice -100
         a retries                   -> a/bert is paid 100/9
         a cancels
         balances                    -> a/alice -100",
    );
}

/// Two on a trustline, over which the one pays what the other's customer earns.
const TRUST: &str = "
    node a
    node b
    link a b USD/9 trustline 1000 settles 100
    edge alice a USD/9
    edge carol b USD/9
";

fn check_trust(text: &str) {
    check(&format!("{TRUST}{text}"));
}

#[test]
fn a_trustline_carries_what_is_owed_and_both_say_the_same() {
    check_trust(
        "channels                      -> a/b open 0 0, b/a open 0 0
         alice pays carol 110 for 10s  -> carol gets 110
         carol fulfills                -> alice hears fulfill
         channels                      -> a/b open 110 0, b/a open 0 110
         balances                      -> a/alice -110, b/carol 110
         a closes b
         channels                      -> a/b closed 110 0, b/a closed 0 110",
    );
}

#[test]
fn a_channel_ends_while_packets_are_under_way() {
    for (ends, ended) in [("closes", "closed"), ("leaves", "closed_alone")] {
        check_trust(&format!(
            "a settles b 40
             alice pays carol 110 for 30s  -> carol gets 110
             a {ends} b
             channels                      -> a/b {ended} 40 0, b/a {ended} 0 40
             carol fulfills                -> alice hears fulfill
             balances                      -> a/b 70, a/alice -110, b/a -70, b/carol 110
             channels                      -> a/b {ended} 40 0, b/a {ended} 0 40"
        ));
    }
}

#[test]
fn what_is_signed_is_told_until_it_is_taken_and_taken_once() {
    check_trust(
        "kill b
         a settles b 40
         wait 5s
         channels                      -> a/b open 40 0, b/a open 0 0
         power cut a
         restart a
         restart b
         wait 10s
         channels                      -> a/b open 40 0, b/a open 0 40
         balances                      -> a/b -40, b/a 40",
    );
}

#[test]
fn nothing_is_told_that_is_not_on_disk() {
    check_trust(
        "disk a slow
         a settles b 40
         channels                      -> a/b open 40 0, b/a open 0 0
         power cut a
         disk a sound
         restart a
         wait 10s
         channels                      -> a/b open 0 0, b/a open 0 0
         balances                      ->",
    );
}

#[test]
fn two_that_have_something_to_tell_greet_each_other_and_tell_it() {
    check(
        "node a
         node b
         link a b USD/9 http trustline 1000
         kill a
         b settles a 10
         kill b
         restart a
         a settles b 40
         restart b
         channels                      -> a/b open 40 10, b/a open 10 40",
    );
}

#[test]
fn a_channel_that_one_side_leaves_is_left_by_both() {
    check_trust(
        "a settles b 40
         kill b
         a leaves b
         restart b
         wait 10s
         channels                      -> a/b closed_alone 40 0, b/a closed_alone 0 40",
    );
}

#[test]
fn a_channel_is_proposed_by_http_without_a_restart() {
    check(
        "node a
         node b
         link a b USD/9 http trustline 100
         channels                      -> a/b open 0 0, b/a open 0 0",
    );
}

#[test]
fn what_is_owed_is_paid_over_a_channel_when_its_time_has_come() {
    check(
        "node a
         node b
         link a b USD/9 kept 1000 every 2
         edge alice a USD/9
         edge carol b USD/9
         alice pays carol 40 for 10s   -> carol gets 40
         carol fulfills                -> alice hears fulfill
         channels                      -> a/b open 0 0, b/a open 0 0
         wait 3s
         channels                      -> a/b open 40 0, b/a open 0 40",
    );
}

#[test]
fn what_a_limit_held_up_is_paid_once_it_is_raised() {
    check_trust(
        "a limits b 50 1000
         b accepts a
         alice pays carol 110 for 10s  -> carol gets 110
         carol fulfills                -> alice hears fulfill
         channels                      -> a/b open 50 0, b/a open 0 50
         alice pays carol 60 for 10s   -> carol gets 60
         carol fulfills                -> alice hears fulfill
         channels                      -> a/b open 50 0, b/a open 0 50
         a limits b 5000 1000
         b accepts a
         channels                      -> a/b open 170 0, b/a open 0 170",
    );
}

#[test]
fn a_story_that_ends_otherwise_says_at_which_line() {
    let text = format!("{ROW}alice pays carol 40 for 10s -> carol gets 41");
    let error = story(&text).expect_err("it gets 40");
    assert!(error.contains("but: carol gets 40"), "{error}");
    assert!(story("node a\n dance").is_err());
}
