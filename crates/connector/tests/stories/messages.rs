//! Messages between settlement engines: relayed, answered once, in nobody's way.

use crate::story::check;

#[test]
fn a_message_goes_to_the_peer_and_its_answer_comes_back() {
    check(
        "
        account bob USD/9 engine 1          -> introduce bob
        bob message hello                   -> bob message hello
        bob takes welcome                   -> message 1 answered welcome
        bob message again                   -> bob message again
        bob message and again               -> bob message and again
        bob declines F00 you lie            -> message 3 rejected F00 you lie
        bob declines T00                    -> message 2 rejected T00
        bob message one                     -> bob message one
        bob takes-wrong                     -> message 4 failed cond.mismatch
        bob message two                     -> bob message two
        bob fails dns                       -> message 5 failed link.dns
        bob message three                   -> bob message three
        bob loses                           -> message 6 failed link.closed
        bob message                         -> bob message
        bob takes                           -> message 7 answered
        balances                            -> bob 0, held 0
    ",
    );
}

#[test]
fn a_message_that_is_not_answered_ends_in_time() {
    check(
        "
        account bob USD/9
        bob message hello                   -> bob message hello
        wait 29999ms
        wait 1ms                            -> message 1 failed expiry.timed_out
        bob takes                           -> ignored
        bob message hello                   -> bob message hello
        bob down                            -> message 2 failed link.closed
        bob message hello                   -> unsent link.closed
        bob up
        bob message hello                   -> bob message hello
        restart
        wait 31s
    ",
    );
}

#[test]
fn what_is_not_sent_says_why() {
    check(
        "
        account bob   USD/9
        account wallet USD/9 local
        bob long-message 32767              -> bob message
        bob takes                           -> message 1 answered
        bob long-message 32768              -> unsent pkt.too_large
        wallet message hello                -> unsent link.closed
        update bob paused
        bob message hello                   -> unsent acct.paused
        update bob resumed
        drain
        bob message hello                   -> unsent drain
    ",
    );
}

#[test]
fn an_account_has_only_so_many_messages_under_way() {
    let sixteen = |line: &str| format!("{line}\n").repeat(16);
    check(&format!(
        "
        account alice USD/9
        account bob   USD/9
        {}
        bob message x                       -> unsent engine.busy
        alice message x                     -> alice message x
        alice takes                         -> message 17 answered
        bob takes                           -> message 16 answered
        bob message x                       -> bob message x
        bob down                            -> {}
    ",
        sixteen("bob message x -> bob message x"),
        ["message failed link.closed"; 16].join(", "),
    ));
}

#[test]
fn a_message_of_the_peer_is_for_the_engine_of_its_account() {
    check(
        "
        account alice USD/9 child engine 1     -> introduce alice
        alice prepare 1 peer.settle 0 condition peer data hi        -> relay 1 alice hi by 1 within 9s
        engine replies 1 hello                                      -> alice fulfill #1 data hello
        alice prepare 2 peer.settle 0 condition empty data hi       -> relay 2 alice hi by 1
        alice prepare 3 peer.settle 0 condition peer data ho        -> relay 3 alice ho by 1
        engine objects 3 to that       -> alice reject #3 F00 engine.refused by peer.settle data to that
        engine replies 2                                            -> alice fulfill #2
        engine replies 2                                            -> ignored
        alice prepare 4 peer.settle 0 condition peer                -> relay 4 alice by 1
        engine breaks 4                -> alice reject #4 T00 engine.failed by peer.settle
        alice prepare 5 peer.settle 0 condition peer                -> relay 5 alice by 1
        engine replies-long 5          -> alice reject #5 T00 engine.failed by peer.settle
        alice prepare 6 peer.settle 0 condition peer expires 60s    -> relay 6 alice by 1 within 30s
        update alice engine none                                    -> close alice by 1
        engine replies 6 all the same                               -> alice fulfill #6 all the same
        balances                                                    -> alice 0, held 0
    ",
    );
}

#[test]
fn what_no_engine_takes_is_refused_and_goes_nowhere() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        account carol USD/9 engine 1           -> introduce carol
        route   everything -> bob
        alice prepare 1 peer.settle 0 condition peer       -> alice reject F02 engine.none by peer.settle
        carol prepare 2 peer.settle 1 condition peer       -> carol reject F00 addr.invalid
        carol prepare 3 peer.settle 0 condition zero       -> carol reject F01 pkt.malformed
        carol prepare 4 peer.settle 0                      -> carol reject F01 pkt.malformed
        carol prepare 5 peer.settle 0 condition peer expires 1999ms  -> carol reject R02 expiry.too_soon
        carol prepare 6 peer.settle.x 0 condition peer     -> carol reject F01 addr.invalid
    ",
    );
}

#[test]
fn an_engine_that_hangs_holds_up_its_account_only() {
    let relays: String = (1..=16)
        .map(|n| format!("alice prepare {n} peer.settle 0 condition peer -> relay {n} alice\n"))
        .collect();
    let refusals = ["alice reject T00 engine.failed by peer.settle"; 16].join(", ");
    check(&format!(
        "
        account alice USD/9 engine 1           -> introduce alice
        account bob   USD/9 engine 1           -> introduce bob
        {relays}
        alice prepare 17 peer.settle 0 condition peer      -> alice reject T05 engine.busy by peer.settle
        bob prepare 18 peer.settle 0 condition peer        -> relay 17 bob
        engine replies 17                                  -> bob fulfill
        wait 8999ms
        wait 1ms                                           -> {refusals}
        engine replies 1                                   -> ignored
        alice prepare 19 peer.settle 0 condition peer      -> relay 18 alice
        engine replies 18                                  -> alice fulfill
    "
    ));
}
