//! Settlements by hand: each transfer moves the balance once, whoever writes it down and however often.

use rialto_connector::{Now, command::CommandErrorKind, hand::HandRequest};
use rialto_ledger::{Direction, HandState, Means, PROPOSALS_MAX};
use rialto_packet::Timestamp;

use crate::story::check;

#[test]
fn what_was_paid_by_hand_moves_the_balance_as_an_engine_would() {
    check(
        "
        account alice USD/9 credit 1000
        account bob   USD/9 credit 50
        route   g.bob -> bob
        alice prepare 1 g.bob.x 100      -> bob prepare
        bob fulfill 1                    -> alice fulfill
        record bob paid 40 R1 by ann
        balances                         -> alice -100, bob 60, held 0
        settled USD/9                    -> 40
        record alice received 130 R1 by ann
        balances                         -> alice 30, bob 60, held 0
        prepaid alice                    -> 30
        settled USD/9                    -> -90
        position USD/9                   -> 0
        record alice paid 10 R2 by ann
        prepaid alice                    -> 20
        record bob paid 111 R2 by ann    -> invalid amount
        record bob paid 110 R2 by ann
        record bob paid 1 R3 by ann      -> invalid amount
        balances                         -> alice 20, bob -50, held 0
        hand                             -> 1 settled R1, 2 settled R1, 3 settled R2, 4 settled R2
        restart checkpoint
        balances                         -> alice 20, bob -50, held 0
        settled USD/9                    -> 30
        hand                             -> 1 settled R1, 2 settled R1, 3 settled R2, 4 settled R2
    ",
    );
}

#[test]
fn what_is_promised_to_packets_in_flight_is_not_paid_by_hand() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 60       -> bob prepare
        record alice paid 41 R by ann    -> invalid amount
        record alice paid 40 R by ann
        bob reject 1 F99                 -> alice reject
        balances                         -> alice -40, bob 0, held 0
    ",
    );
}

#[test]
fn a_transfer_is_written_down_once() {
    check(
        "
        account alice USD/9
        account bob   USD/9
        record alice received 7 a_transfer by ann key k
        record alice received 7 a_transfer by ann key k
        record alice received 7 a_transfer by ben key other
        record alice received 7 _a_transfer_ by ben key other
        balances                         -> alice 7, bob 0, held 0
        record alice received 8 a_transfer by ann key k      -> invalid idempotency-key
        record alice received 7 another by ann key k         -> invalid idempotency-key
        record bob   received 7 a_transfer by ann key k      -> invalid idempotency-key
        record alice received 8 a_transfer by ann            -> conflict reference
        record alice paid 7 a_transfer by ann                -> conflict reference
        record bob received 8 a_transfer by ann
        record alice received 0 R by ann                     -> invalid amount
        record carol received 1 R by ann                     -> notfound
        record alice received 1 _ by ann                     -> invalid reference
        approve 1 by ben                                     -> conflict id
        decline 1 by ben                                     -> conflict id
        approve 9 by ben                                     -> notfound
        decline 9 by ben                                     -> notfound
        restart checkpoint
        record alice received 7 a_transfer by ben
        record alice received 8 a_transfer by ben            -> conflict reference
        record alice received 7 a_transfer by ann key k
        balances                         -> alice 7, bob 8, held 0
    ",
    );
}

#[test]
fn a_second_operator_approves_or_declines_once() {
    check(
        "
        node g.hub second-approver
        account alice USD/9 credit 100
        record alice paid 60 R1 by ann
        record alice paid 60 R1 by ben
        hand                             -> 1 proposed R1
        balances                         -> alice 0, held 0
        restart
        hand                             -> 1 proposed R1
        approve 1 by ann                 -> forbidden
        delete alice                     -> conflict settlement
        approve 1 by ben key k
        balances                         -> alice -60, held 0
        approve 1 by ben key k
        approve 1 by ben                 -> conflict id
        approve 1 by carl key k          -> invalid idempotency-key
        decline 1 by carl                -> conflict id
        record alice received 1 R9 by ann key k     -> invalid idempotency-key
        balances                         -> alice -60, held 0
        record alice paid 40 R2 by ann key k2
        record alice paid 41 R3 by ann   -> invalid amount
        approve 2 by ben key k           -> invalid idempotency-key
        approve 2 by ben key k2          -> invalid idempotency-key
        record alice paid 30 R3 by ann
        approve 3 by ben
        approve 2 by ben                 -> conflict amount
        hand                             -> 1 settled R1, 2 proposed R2, 3 settled R3
        restart checkpoint
        approve 2 by ann                 -> forbidden
        approve 1 by ben key k
        decline 2 by ann
        decline 2 by ann                 -> conflict id
        approve 2 by ben                 -> conflict id
        record alice received 41 R2 by ben
        approve 4 by ann
        hand                             -> 1 settled R1, 2 declined R2, 3 settled R3, 4 settled R2
        balances                         -> alice -49, held 0
        settled USD/9                    -> 49
        restart checkpoint
        record alice received 42 R2 by ben      -> conflict reference
        balances                         -> alice -49, held 0
    ",
    );
}

#[test]
fn what_was_proposed_stays_so_when_one_operator_is_enough_again() {
    check(
        "
        node g.hub second-approver
        account alice USD/9
        record alice received 5 R1 by ann
        reload g.hub
        record alice received 6 R2 by ann
        approve 1 by ann                 -> forbidden
        hand                             -> 1 proposed R1, 2 settled R2
        decline 1 by ann
        record alice received 5 R1 by ann
        balances                         -> alice 11, held 0
    ",
    );
}

#[test]
fn the_whole_range_of_amounts_is_exact() {
    let all = u64::MAX;
    check(&format!(
        "
        account alice USD/9 credit {all}
        record alice received {all} R1 by ann
        record alice received {all} R2 by ann
        balances                         -> alice {}, held 0
        prepaid alice                    -> {}
        record alice paid {all} R3 by ann
        record alice paid {all} R4 by ann
        record alice paid {all} R5 by ann
        record alice paid 1 R6 by ann    -> invalid amount
        balances                         -> alice -{all}, held 0
        restart checkpoint
        balances                         -> alice -{all}, held 0
        settled USD/9                    -> {all}
    ",
        u128::from(all) * 2,
        u128::from(all) * 2,
    ));
}

#[test]
fn settlements_of_all_kinds_are_numbered_together() {
    check(
        "
        account bob USD/9 credit 1000 engine 1      -> introduce bob
        record bob received 5 R1 by ann
        settle bob 10                               -> settle 2 bob 10/9
        record bob received 6 R2 by ann
        hand                                        -> 1 settled R1, 3 settled R2
        restart checkpoint                          -> settle 2 bob 10/9
        record bob received 7 R3 by ann
        hand                                        -> 1 settled R1, 3 settled R2, 4 settled R3
    ",
    );
}

#[test]
fn only_so_many_wait_and_their_entry_in_the_statement_says_how_they_were_made() {
    let mut node = check("node g.hub second-approver\naccount alice USD/9");
    let now = Now {
        mono_ns: 0,
        wall: Timestamp::from_unix_ms(1_900_000_000_000),
    };
    let record = |index: usize| HandRequest {
        account: "alice".to_owned(),
        direction: Direction::Received,
        amount: 1,
        reference: format!("transfer {index}"),
        by: "ann".to_owned(),
        idempotency_key: format!("key {index}"),
    };
    let (refused, _) = node.step(|core, _, out| {
        for index in 0..PROPOSALS_MAX {
            core.hand_record(now, record(index), out).unwrap();
        }
        core.hand_record(now, record(PROPOSALS_MAX), out)
    });
    assert_eq!(refused.unwrap_err().kind, CommandErrorKind::Busy);
    let ids: Vec<_> = node
        .core
        .ledger()
        .hand_settlements()
        .keys()
        .copied()
        .collect();
    for id in [ids[0], ids[1]] {
        let key = format!("approve {}", id.0);
        let (done, _) = node.step(|core, _, out| core.hand_approve(now, id, "ben", &key, out));
        done.unwrap();
    }
    let ledger = node.core.ledger();
    assert_eq!(ledger.proposals().len(), PROPOSALS_MAX - 2);
    let made = &ledger.hand_settlements()[&ids[0]];
    assert!(matches!(&made.state, HandState::Settled { approval: Some(a) } if a.by == "ben"));
    let period = ledger.period(made.account).unwrap();
    let [first, second] = &period.entries[..] else {
        panic!("{period:?}")
    };
    assert_eq!(first.means, Some(Means::Hand));
    assert_eq!(
        (&*first.reference, &*second.reference),
        ("transfer 0", "transfer 1")
    );
}
