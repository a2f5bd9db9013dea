//! Records that contradict the books are refused; checkpoints give the same books again.

use std::{collections::BTreeMap, sync::Arc};

use rialto_ledger::{
    ADJUSTMENTS_MAX, AccountId, AccountSettings, AccountTerms, Adjustment, Commit, IncomingToken,
    Ledger, LedgerError, Limit, Limits, Lsn, PAYMENTS_MAX, Payment, PaymentEnd, PaymentId,
    PaymentProgress, Record, Relation, RouteShare, StaticRoute, TokenHash,
};
use rialto_packet::Prefix;

const ALICE: AccountId = AccountId(1);
const BOB: AccountId = AccountId(2);

fn put(id: AccountId, name: &str, asset: &str) -> Record {
    let settings = AccountSettings {
        name: name.to_owned(),
        incoming_tokens: Vec::new(),
        terms: AccountTerms {
            limits: Limits {
                balance_min: -100,
                ..Limits::default()
            },
            ..AccountTerms::new(Relation::Peer, asset.parse().expect("an asset"))
        }
        .into(),
    };
    Record::AccountPut {
        id,
        settings: Box::new(settings),
    }
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(BTreeMap::new());
    ledger.apply(&put(ALICE, "alice", "USD/9")).expect("new");
    ledger.apply(&put(BOB, "bob", "EUR/6")).expect("new");
    ledger
}

fn commit(from: AccountId, to: AccountId) -> Record {
    Record::Commit(Commit {
        from,
        amount_in: 10,
        to,
        amount_out: 9,
    })
}

fn payment(id: u64, end: Option<PaymentEnd>) -> Record {
    let payment = PaymentId(id);
    Record::PaymentPut {
        payment: Box::new(Payment {
            id: payment,
            account: ALICE,
            account_name: "alice".to_owned(),
            idempotency_key: id.to_string(),
            request: String::new(),
            receiver: String::new(),
            created_at_ms: 0,
            destination_asset: None,
            progress: PaymentProgress {
                payment,
                sent: 0,
                delivered: 0,
                fulfilled: 0,
                rejected: 0,
            },
            end,
        }),
    }
}

fn adjusted(id: u64, account: AccountId, amount: i128) -> Record {
    Record::Adjusted {
        adjustment: Box::new(Adjustment {
            id,
            account,
            account_name: "alice".to_owned(),
            asset: "USD/9".parse().expect("an asset"),
            amount,
            reason: "outside".to_owned(),
            idempotency_key: format!("key-{id}"),
            created_at_ms: 0,
        }),
    }
}

fn lines(ledger: &Ledger) -> Vec<String> {
    let mut lines: Vec<_> = ledger
        .snapshot()
        .map(|record| format!("{record:?}"))
        .collect();
    lines.sort();
    lines
}

#[test]
fn equal_terms_are_kept_once_and_changed_alone() {
    const CAROL: AccountId = AccountId(3);
    let mut ledger = ledger();
    ledger.apply(&put(CAROL, "carol", "USD/9")).expect("new");
    let terms = |ledger: &Ledger, id| Arc::clone(&ledger.account(id).expect("it").settings.terms);
    assert!(Arc::ptr_eq(&terms(&ledger, ALICE), &terms(&ledger, CAROL)));
    let count = |ledger: &Ledger| {
        let kept = |record: &Record| matches!(record, Record::TermsKept { .. });
        ledger.snapshot().filter(kept).count()
    };
    assert_eq!(count(&ledger), 2);

    let settings = &ledger.account(CAROL).expect("carol").settings;
    let mut settings = Box::new(AccountSettings::clone(settings));
    settings.paused = true;
    let put = Record::AccountPut {
        id: CAROL,
        settings,
    };
    ledger.apply(&put).expect("known");
    assert_eq!(count(&ledger), 3);
    assert!(!terms(&ledger, ALICE).paused);
    assert!(terms(&ledger, CAROL).paused);
    assert_eq!(
        ledger.account_by_name("carol").map(|carol| carol.id),
        Some(CAROL)
    );

    // In a checkpoint terms come before whoever has them.
    let account = Record::AccountKept {
        id: AccountId(9),
        terms: 0,
        name: "dave".to_owned(),
        tokens: Vec::new(),
        balance: 0,
        prepaid: 0,
        sent: Some(0),
    };
    assert_eq!(ledger.apply(&account), Err(LedgerError::UnknownTerms(0)));
}

#[test]
fn records_that_contradict_the_books() {
    let nobody = AccountId(9);
    for (record, error) in [
        (commit(nobody, BOB), LedgerError::UnknownAccount(nobody)),
        (commit(ALICE, nobody), LedgerError::UnknownAccount(nobody)),
        (
            commit(AccountId::NODE, BOB),
            LedgerError::UnknownAccount(AccountId::NODE),
        ),
        (
            Record::AccountDeleted { id: nobody },
            LedgerError::UnknownAccount(nobody),
        ),
        (
            put(ALICE, "alice", "USD/6"),
            LedgerError::AssetChanged(ALICE),
        ),
        (
            Record::RoutePut {
                prefix: "g".parse().expect("a prefix"),
                account: nobody,
                shares: Vec::new(),
            },
            LedgerError::UnknownAccount(nobody),
        ),
        (
            Record::Balance {
                account: nobody,
                balance: 1,
                prepaid: 0,
                sent: None,
            },
            LedgerError::UnknownAccount(nobody),
        ),
        (
            Record::Progress(PaymentProgress {
                payment: PaymentId(1),
                sent: 0,
                delivered: 0,
                fulfilled: 0,
                rejected: 0,
            }),
            LedgerError::UnknownPayment(PaymentId(1)),
        ),
    ] {
        assert_eq!(ledger().apply(&record), Err(error), "{record:?}");
    }
    let mut ledger = ledger();
    ledger.apply(&commit(ALICE, BOB)).expect("both exist");
    let deleted = Record::AccountDeleted { id: ALICE };
    assert_eq!(ledger.apply(&deleted), Err(LedgerError::BalanceLeft(ALICE)));
}

#[test]
fn a_checkpoint_at_any_point_gives_the_same_books() {
    let records = [
        put(ALICE, "alice", "USD/9"),
        put(BOB, "bob", "EUR/6"),
        put(AccountId(3), "gone", "XRP/6"),
        Record::AccountDeleted { id: AccountId(3) },
        Record::RoutePut {
            prefix: "g.b".parse().expect("a prefix"),
            account: BOB,
            shares: Vec::new(),
        },
        commit(ALICE, BOB),
        Record::Commit(Commit {
            from: ALICE,
            amount_in: 1,
            to: AccountId::NODE,
            amount_out: 0,
        }),
        payment(1, None),
        put(ALICE, "renamed", "USD/9"),
        commit(BOB, ALICE),
        adjusted(1, ALICE, -(1 << 100)),
        payment(1, Some(PaymentEnd::Completed)),
        adjusted(2, BOB, 7),
    ];
    for cut in 0..=records.len() {
        let mut whole = Ledger::new(BTreeMap::new());
        records[..cut]
            .iter()
            .for_each(|record| whole.apply(record).expect("in order"));
        let mut copy = Ledger::new(BTreeMap::new());
        whole
            .snapshot()
            .for_each(|record| copy.apply(&record).expect("in order"));
        assert_eq!(lines(&whole), lines(&copy), "after {cut}");
        assert_eq!(whole.next_account(), copy.next_account());
        assert_eq!(whole.next_payment(), copy.next_payment());
        for record in &records[cut..] {
            whole.apply(record).expect("in order");
            copy.apply(record).expect("in order");
        }
        assert_eq!(lines(&whole), lines(&copy), "after {cut} and the rest");
    }
}

#[test]
fn accounts_that_a_checkpoint_kept_are_found_by_their_names() {
    let kept: Vec<_> = ledger().snapshot().collect();
    let is_account = |record: &Record| matches!(record, Record::AccountKept { .. });
    let accounts = kept.iter().rposition(is_account).expect("she is kept") + 1;
    let rename = put(ALICE, "dora", "USD/9");
    let found = |copy: &Ledger, name| copy.account_by_name(name).map(|account| account.id);
    // Whether nothing follows them, or the journal goes on.
    for is_renamed in [false, true] {
        let mut copy = Ledger::default();
        let records = kept[..accounts].iter();
        for record in records.chain(is_renamed.then_some(&rename)) {
            copy.apply(record).expect("in order");
        }
        if !is_renamed {
            copy.recovered();
        }
        let alice = if is_renamed { "dora" } else { "alice" };
        assert_eq!(found(&copy, alice), Some(ALICE));
        assert_eq!(found(&copy, "bob"), Some(BOB));
    }
}

#[test]
fn a_route_to_several_loses_those_that_are_gone() {
    let third = AccountId(3);
    let share = |account, weight| RouteShare { account, weight };
    let prefix: Prefix = "g.b".parse().expect("a prefix");
    let mut ledger = ledger();
    for record in [
        put(third, "third", "USD/9"),
        Record::RoutePut {
            prefix: prefix.clone(),
            account: BOB,
            shares: vec![share(BOB, 2), share(third, 0)],
        },
    ] {
        ledger.apply(&record).expect("in order");
    }
    let mut copy = Ledger::default();
    for record in ledger.snapshot() {
        copy.apply(&record).expect("in order");
    }
    copy.recovered();
    assert_eq!(
        copy.routes()[&prefix].hops(),
        [share(BOB, 2), share(third, 0)]
    );
    copy.apply(&Record::AccountDeleted { id: BOB })
        .expect("he owes nothing");
    assert_eq!(copy.routes()[&prefix].hops(), [share(third, 0)]);
    copy.apply(&Record::AccountDeleted { id: third })
        .expect("nor does that one");
    assert!(copy.routes().is_empty());
    // There may be a million of them.
    assert!(size_of::<StaticRoute>() <= 16 && size_of::<Prefix>() <= 24);
}

#[test]
fn an_adjustment_moves_a_balance_and_the_nodes_position() {
    let mut ledger = ledger();
    ledger.apply(&commit(ALICE, BOB)).expect("both exist");
    ledger.apply(&adjusted(1, ALICE, 4)).expect("she exists");
    let balance = |id| ledger.account(id).expect("it exists").balance();
    assert_eq!((balance(ALICE), balance(BOB)), (-6, 9));
    let positions: Vec<_> = ledger.positions().map(|(_, amount, _)| amount).collect();
    assert_eq!(positions, [6, -9], "the books add up to zero");
    let made = ledger.adjustment_by_key("key-1").expect("it is remembered");
    assert_eq!(made.amount, 4);
    let nobody = AccountId(9);
    let unknown = LedgerError::UnknownAccount(nobody);
    assert_eq!(ledger.apply(&adjusted(2, nobody, 1)), Err(unknown));
}

#[test]
fn the_oldest_adjustments_are_forgotten() {
    let mut ledger = ledger();
    let count = ADJUSTMENTS_MAX as u64 + 2;
    for id in 1..=count {
        ledger.apply(&adjusted(id, ALICE, 1)).expect("she exists");
    }
    assert_eq!(ledger.adjustments().len(), ADJUSTMENTS_MAX);
    assert!(ledger.adjustment_by_key("key-2").is_none());
    assert!(ledger.adjustment_by_key("key-3").is_some());
    let balance = ledger.account(ALICE).expect("it exists").balance();
    assert_eq!(balance, i128::from(count), "the amounts stay");
}

#[test]
fn a_hold_is_undone_exactly_or_becomes_a_commit() {
    let mut ledger = ledger();
    let hold = ledger.hold(ALICE, 60, BOB, 6).expect("within the credit");
    assert_eq!(ledger.hold(ALICE, 41, BOB, 4), Err(Limit::Credit));
    let other = ledger.hold(ALICE, 40, BOB, 4).expect("exactly the credit");
    assert!(!ledger.account(BOB).expect("bob").is_idle());
    ledger.release(hold);
    let record = ledger.commit(other, Lsn(1));
    assert_eq!(
        record,
        Record::Commit(Commit {
            from: ALICE,
            amount_in: 40,
            to: BOB,
            amount_out: 4
        })
    );
    let alice = ledger.account(ALICE).expect("alice");
    assert_eq!((alice.balance(), alice.available()), (-40, 60));
    assert!(!alice.is_idle(), "not yet safe on disk");
    ledger.synced(Lsn(1));
    assert!(ledger.account(ALICE).expect("alice").is_idle());
    assert!(ledger.account(BOB).expect("bob").is_idle());
}

#[test]
fn the_oldest_payment_that_has_ended_is_forgotten_when_there_are_too_many() {
    let mut ledger = ledger();
    let max = PAYMENTS_MAX as u64;
    for id in 1..=max {
        let end = (id != 1).then_some(PaymentEnd::Completed);
        ledger
            .apply(&payment(id, end))
            .expect("payments need nothing");
    }
    // One that is there already takes no more room.
    ledger
        .apply(&payment(max, Some(PaymentEnd::Completed)))
        .expect("the same");
    assert_eq!(ledger.payments().len(), PAYMENTS_MAX);
    ledger.apply(&payment(max + 1, None)).expect("a new one");
    assert_eq!(ledger.payments().len(), PAYMENTS_MAX);
    assert!(ledger.payment_by_key("1").is_some(), "it runs");
    assert!(ledger.payment_by_key("2").is_none());
    assert!(ledger.payment_by_key("3").is_some());
    assert_eq!(ledger.next_payment(), PaymentId(max + 2));
}

#[test]
fn a_token_leads_to_its_account_alone() {
    let token = |seed: u8| IncomingToken {
        hash: TokenHash([seed; 32]),
        jwt: None,
        pin: false,
        expires_at_ms: None,
    };
    let with = |id, name: &str, seeds: &[u8], relation| {
        let Record::AccountPut { id, mut settings } = put(id, name, "USD/9") else {
            unreachable!()
        };
        settings.incoming_tokens = seeds.iter().copied().map(token).collect();
        Arc::make_mut(&mut settings.terms).relation = relation;
        Record::AccountPut { id, settings }
    };
    let found = |ledger: &Ledger, seed: u8| {
        let account = ledger.account_by_token(TokenHash([seed; 32]));
        account.map(|account| account.id)
    };
    let parent = |ledger: &Ledger| ledger.parent().map(|parent| parent.id);
    let mut ledger = Ledger::default();
    for record in [
        with(ALICE, "alice", &[1, 2], Relation::Peer),
        with(BOB, "bob", &[3], Relation::Parent),
    ] {
        ledger.apply(&record).unwrap();
    }
    assert_eq!(
        [1, 2, 3, 4].map(|seed| found(&ledger, seed)),
        [Some(ALICE), Some(ALICE), Some(BOB), None]
    );
    assert_eq!(parent(&ledger), Some(BOB));

    // One goes and one comes; the other moves up.
    let changed = with(ALICE, "alice", &[2, 4], Relation::Parent);
    ledger.apply(&changed).unwrap();
    let changed = with(BOB, "bob", &[1], Relation::Peer);
    ledger.apply(&changed).unwrap();
    let expected = [Some(BOB), Some(ALICE), None, Some(ALICE)];
    assert_eq!([1, 2, 3, 4].map(|seed| found(&ledger, seed)), expected);
    assert_eq!(parent(&ledger), Some(ALICE));

    // From a checkpoint too.
    let mut copy = Ledger::default();
    for record in ledger.snapshot() {
        copy.recover(record).unwrap();
    }
    copy.recovered();
    assert_eq!([1, 2, 3, 4].map(|seed| found(&copy, seed)), expected);
    assert_eq!(parent(&copy), Some(ALICE));

    ledger.apply(&Record::AccountDeleted { id: ALICE }).unwrap();
    assert_eq!(
        [1, 2, 3, 4].map(|seed| found(&ledger, seed)),
        [Some(BOB), None, None, None]
    );
    assert_eq!(parent(&ledger), None);
    let later = |after| {
        let later = ledger.accounts_after(AccountId(after));
        Vec::from_iter(later.map(|account| account.id))
    };
    assert_eq!([later(0), later(1)], [[BOB], [BOB]]);
    assert_eq!([later(2), later(u32::MAX)], [[], []]);
}
