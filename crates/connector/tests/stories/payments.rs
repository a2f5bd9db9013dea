//! STREAM payments between accounts of one node.

use rialto_connector::{
    Action, Connector, Effect, Effects,
    command::{CommandErrorKind, Made, PAYMENT_KEPT_MS, PaymentRequest},
};
use rialto_ledger::{
    Ledger, PAYMENTS_MAX, Payment, PaymentEnd, PaymentId, PaymentProgress, Record,
};
use rialto_stream::{SenderConfig, Target};

use crate::{
    node::{Node, payment_words},
    story::check,
};

const LOCALS: &str = "
    account alice USD/9 local credit 1000000
    account bob   EUR/6 local
    account carol USD/9 local
    rate    USD EUR 500
";

#[track_caller]
fn locals(story: &str) -> Node {
    check(&format!("{LOCALS}{story}"))
}

#[test]
fn a_payment_within_the_node() {
    locals(
        "
        alice pays carol 1000           -> payment 1 completed sent 1000 delivered 1000 asset USD/9
        alice pays bob 1000 key 2       -> payment 2 completed sent 1000 delivered 500 asset EUR/6
        balances                        -> alice -2000, bob 500, carol 1000, held 0
        position USD/9                  -> 1000
        position EUR/6                  -> -500
    ",
    );
}

#[test]
fn a_payment_that_delivers_an_amount() {
    locals(
        "
        alice pays bob 250 deliver      -> payment 1 completed sent 500 delivered 250
        balances                        -> alice -500, bob 250, carol 0, held 0
    ",
    );
}

#[test]
fn an_account_may_pay_itself() {
    locals(
        "
        alice pays alice 1000           -> payment 1 completed sent 1000 delivered 1000
        balances                        -> alice 0, bob 0, carol 0, held 0
    ",
    );
}

#[test]
fn a_payment_in_packets_as_small_as_the_limit() {
    locals(
        "
        update alice packet 70
        alice pays bob 1000             -> payment 1 completed sent 1000 delivered 500
        balances                        -> alice -1000, bob 500, carol 0, held 0
    ",
    );
}

#[test]
fn a_payment_stops_at_the_credit_and_says_how_far_it_came() {
    let node = locals(
        "
        update alice credit 300 packet 100
        alice pays carol 1000
        wait 60s                        -> payment 1 no_progress sent 300 delivered 300
        balances                        -> alice -300, bob 0, carol 300, held 0
    ",
    );
    let payment = node.core.ledger().payment_by_key("key").unwrap();
    assert_eq!(payment.progress.fulfilled, 3);
}

#[test]
fn the_same_key_is_the_same_payment() {
    locals("
        alice pays carol 1000 key a     -> payment 1 completed sent 1000 delivered 1000
        alice pays carol 1000 key a     -> existing payment 1 sent 1000 delivered 1000 Some(Completed)
        alice pays carol 1001 key a     -> Invalid Idempotency-Key
        alice pays bob 1000 key a       -> Invalid Idempotency-Key
        alice pays carol 1000 key b     -> payment 2 completed
        balances                        -> alice -2000, bob 0, carol 2000, held 0
    ");
}

#[test]
fn only_local_accounts_pay() {
    locals(
        "
        account dave USD/9 credit 1000
        dave pays carol 1               -> Invalid account
        nobody pays carol 1             -> Invalid account
        dave pings g.hub 1              -> invalid account
    ",
    );
}

#[test]
fn a_payment_that_a_crash_cuts_off_is_ended_where_it_stood() {
    for restart in ["restart", "restart checkpoint"] {
        // The receiver's asset is far away: the peer that leads there answers nothing.
        let node = locals(&format!(
            "
            account dave USD/9
            route   g.dave -> dave
            alice pays carol 1000 to g.dave.carol -> dave prepare 1, dave prepare 1000
            {restart}
            alice pays carol 1000           -> existing payment 1 sent 0 delivered 0
            balances                        -> alice 0, bob 0, carol 0, dave 0, held 0
        "
        ));
        let payment = node.core.ledger().payment_by_key("key").unwrap();
        assert!(format!("{:?}", payment.end).contains("interrupted"));
    }
}

#[test]
fn a_payment_that_half_was_made_is_not_made_again() {
    for restart in ["restart", "restart checkpoint"] {
        let node = locals(&format!(
            "
            update alice credit 300 packet 100
            alice pays carol 1000
            balances                        -> alice -300, bob 0, carol 300, held 0
            {restart}
            update alice credit 10000
            alice pays carol 1000           -> existing payment 1 sent 300 delivered 300
            wait 60s
            balances                        -> alice -300, bob 0, carol 300, held 0
        "
        ));
        let payment = node.core.ledger().payment_by_key("key").unwrap();
        assert!(format!("{:?}", payment.end).contains("interrupted"));
        assert_eq!(payment.progress.sent, 300);
    }
}

#[test]
fn draining_stops_payments_where_they_are() {
    locals(
        "
        update alice credit 300 packet 100
        alice pays carol 1000
        drain                           -> payment 1 cancelled sent 300 delivered 300
    ",
    );
}

fn ended_payments(node: &Node, effects: Vec<Effect>) -> Vec<String> {
    let reports = effects
        .into_iter()
        .filter_map(|effect| match effect.action {
            Action::Report(event) => payment_words(node, &event),
            Action::Forward { .. }
            | Action::Answer { .. }
            | Action::Disconnect { .. }
            | Action::Engine { .. } => None,
        });
    reports.collect()
}

fn request(key: &str) -> PaymentRequest {
    PaymentRequest {
        account: "alice".to_owned(),
        idempotency_key: key.to_owned(),
        request: String::new(),
        receiver: String::new(),
    }
}

#[test]
fn a_long_payment_does_not_starve_another() {
    let mut node = locals("update alice packet 1");
    let mut ended = Vec::new();
    for (key, amount) in [("long", 20_000), ("short", 10)] {
        let request = request(key);
        let (created, _) = node.step(|core, now, out| core.payment_create(now, request, out));
        let Made::New(id) = created.unwrap() else {
            panic!("the key is new")
        };
        let spsp = node.core.spsp("carol", None).unwrap().credentials;
        let target = Target::Send(amount);
        let config = SenderConfig::new(spsp.shared_secret, spsp.destination_account, target);
        let start = |core: &mut Connector, now, out: &mut _| {
            core.payment_start(now, id, config.clone(), out)
        };
        let (started, effects) = node.step(start);
        started.unwrap();
        ended.extend(ended_payments(&node, effects));
        // One that runs is not started again, and not failed.
        assert!(node.step(start).0.is_err());
        let failed = node.step(|core, _, out| core.payment_fail(id, "code", "message", out));
        assert!(failed.0.is_err());
    }
    let effects = node.settle();
    ended.extend(ended_payments(&node, effects));
    assert_eq!(
        ended,
        [
            "payment 2 completed sent 10 delivered 10 asset USD/9",
            "payment 1 completed sent 20000 delivered 20000 asset USD/9",
        ]
    );
}

#[test]
fn an_account_with_an_unfinished_payment_is_not_deleted() {
    let mut node = locals("");
    let request = request("key");
    let (created, _) = node.step(|core, now, out| core.payment_create(now, request, out));
    let Ok(Made::New(id)) = created else {
        panic!("{created:?}")
    };
    let delete = |core: &mut Connector, _, out: &mut _| core.account_delete("alice", out);
    assert_eq!(node.step(delete).0.unwrap_err().field, "in_flight");
    let failed = node.step(|core, _, out| core.payment_fail(id, "unresolved", "no answer", out));
    failed.0.unwrap();
    node.step(delete).0.unwrap();
}

#[test]
fn a_quote_moves_nothing() {
    locals(
        "
        update alice packet 100000
        alice quotes bob                -> quote EUR/6 rate 0.5 packet 100000
        alice quotes carol              -> quote USD/9 rate 1 packet 100000
        rate    USD EUR none
        alice quotes bob                -> invalid receiver
        alice quotes carol              -> quote USD/9 rate 1 packet 100000
        update alice paused
        alice quotes carol
        wait 60s                        -> quote failed
        account dave USD/9
        dave quotes bob                 -> invalid account
        balances                        -> alice 0, bob 0, carol 0, dave 0, held 0
    ",
    );
}

#[test]
fn a_stopped_payment_waits_for_what_is_in_flight() {
    locals(
        "
        account dave USD/9
        route   g.dave -> dave
        alice pays carol 1000 to g.dave.carol   -> dave prepare 1, dave prepare 1000
        stop 1
        dave pays carol 1 key other             -> Invalid account
        stop 2                                  -> conflict id
        wait 19s                                -> payment 1 cancelled sent 0 delivered 0
        stop 1                                  -> conflict id
        balances                                -> alice 0, bob 0, carol 0, dave 0, held 0
    ",
    );
}

#[test]
fn pings() {
    locals(
        "
        account dave USD/9
        route   g.dave -> dave
        alice pings g.hub 5             -> reached 0ms
        alice pings g.hub.x 5           -> unreached F02 route.none
        alice pings g.nowhere 5         -> unreached F02 route.none
        alice pings g.dave 5            -> dave prepare 5 to g.dave
        wait 9s                         -> unreached R00 expiry.timed_out
        balances                        -> alice -5, bob 0, carol 0, dave 0, held 0
    ",
    );
}

#[test]
fn the_table_of_payments_is_bounded() {
    let mut node = locals("");
    let account = node.id("alice");
    // As recovery does it, which is quicker than paying.
    let mut lsn = node.core.lsn();
    for id in 1..=PAYMENTS_MAX as u64 {
        lsn.0 += 1;
        let payment = PaymentId(id);
        let record = Record::PaymentPut {
            payment: Box::new(Payment {
                id: payment,
                account,
                account_name: "alice".to_owned(),
                idempotency_key: format!("old {id}"),
                request: String::new(),
                receiver: String::new(),
                created_at_ms: node.now.wall.unix_ms(),
                destination_asset: None,
                progress: PaymentProgress {
                    payment,
                    sent: 0,
                    delivered: 0,
                    fulfilled: 0,
                    rejected: 0,
                },
                // The first one still runs.
                end: (id > 1).then_some(PaymentEnd::Completed),
            }),
        };
        node.core.recover(lsn, record).unwrap();
    }
    let create = |node: &mut Node, key: &str| {
        let request = request(key);
        // Not through the harness, which would compare 100,000 payments.
        let (now, mut out) = (node.now, Effects::default());
        node.core.payment_create(now, request, &mut out)
    };
    let count = |ledger: &Ledger| ledger.payments().len();

    assert_eq!(
        create(&mut node, "new").unwrap_err().kind,
        CommandErrorKind::Busy
    );
    node.now.wall = node.now.wall.plus_ms(PAYMENT_KEPT_MS - 1);
    assert_eq!(
        create(&mut node, "new").unwrap_err().kind,
        CommandErrorKind::Busy
    );
    node.now.wall = node.now.wall.plus_ms(1);
    create(&mut node, "new").unwrap();
    let ledger = node.core.ledger();
    assert_eq!(count(ledger), PAYMENTS_MAX);
    assert!(ledger.payment_by_key("old 1").is_some(), "it runs");
    assert!(
        ledger.payment_by_key("old 2").is_none(),
        "the oldest that ended"
    );
    assert!(ledger.payment_by_key("old 3").is_some());
    assert!(ledger.payment_by_key("new").is_some());
}
