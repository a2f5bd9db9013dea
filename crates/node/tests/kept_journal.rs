//! A journal that a node wrote with format version 1 and record forms of that time, kept in
//! `journal-1`: every later version has to read the same books out of it.
//!
//! It was written by accounts being made, two payments, a stop by SIGTERM (hence the checkpoint), a
//! third payment, an account deleted and another paused, and a stop by SIGKILL.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use rialto_journal::{FileDisk, Journal, Lsn, Options, Replay};
use rialto_ledger::{AccountId, Ledger, PaymentEnd, Record, SettlementState};
use rialto_node::inspect::{AccountLine, Books, inspect};

const SEGMENT: &str = "00000000000000000001.segment";
const CHECKPOINT: &str = "00000000000000000017.checkpoint";

fn kept() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/journal-1"))
}

/// The books of a folder with these of the files, and the number of the last record.
fn books(files: &[&str]) -> Books {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        fs::copy(kept().join(file), folder.path().join(file)).unwrap();
    }
    let found = inspect(folder.path()).unwrap();
    assert!(found.is_sound());
    assert_eq!(found.torn, None);
    found.books
}

#[test]
fn balances_with_and_without_the_checkpoint() {
    let with = inspect(kept()).unwrap().books;
    let line = |name: &str, asset: &str, balance| AccountLine {
        name: name.to_owned(),
        asset: asset.parse().unwrap(),
        balance,
    };
    let accounts = [
        line("alice", "USD/9", -16_500_000_001),
        line("bob", "EUR/6", 12_395_160),
        line("shop", "USD/9", 3_000_000_000),
        line("carol", "EUR/6", 0),
    ];
    assert_eq!(with.accounts, accounts);
    assert_eq!((with.checkpoint, with.last), (Some(17), 23));
    let sums: BTreeMap<String, (i128, i128)> = with
        .assets
        .iter()
        .map(|line| (line.asset.to_string(), (line.accounts, line.position)))
        .collect();
    let expected = [
        ("EUR/6", (12_395_160, -12_395_160)),
        ("JPY/0", (0, 0)),
        ("USD/9", (-13_500_000_001, 13_500_000_001)),
    ];
    assert_eq!(
        sums,
        expected
            .map(|(asset, sums)| (asset.to_owned(), sums))
            .into()
    );

    let from_the_first_record = Books {
        checkpoint: None,
        ..with.clone()
    };
    assert_eq!(books(&[SEGMENT, CHECKPOINT]), with);
    assert_eq!(books(&[SEGMENT]), from_the_first_record);
}

#[test]
fn everything_else_and_a_node_that_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for file in [SEGMENT, CHECKPOINT] {
        fs::copy(kept().join(file), folder.path().join(file)).unwrap();
    }
    let mut ledger = Ledger::default();
    let disk = Arc::new(FileDisk::new(folder.path()));
    let (journal, recovered) = Journal::open(disk, Options::default(), |replay| {
        let (Replay::Checkpoint { record: bytes, .. } | Replay::Record { payload: bytes, .. }) =
            replay;
        let record = Record::decode(bytes).map_err(|error| error.to_string())?;
        ledger.apply(&record).map_err(|error| error.to_string())
    })
    .unwrap();
    assert_eq!((recovered.last, recovered.torn), (Lsn(23), None));

    let carol = ledger.account_by_name("carol").unwrap();
    assert!(carol.settings.paused);
    assert_eq!(carol.settings.limits.packet_amount_max, Some(1_000_000));
    assert_eq!(carol.settings.incoming_tokens.len(), 1);
    assert_eq!(ledger.next_account(), AccountId(6), "dave's number is gone");
    let routes: Vec<_> = ledger
        .routes()
        .iter()
        .map(|(prefix, route)| (prefix.to_string(), route.hops()[0].account.0))
        .collect();
    assert_eq!(routes, [("g.carol".to_owned(), 4)]);
    let rate = &ledger.rates()[&("USD".to_owned(), "EUR".to_owned())];
    assert_eq!(rate.rate.to_string(), "0.92");
    let payments: Vec<_> = ledger
        .payments()
        .values()
        .map(|payment| {
            assert_eq!(payment.end, Some(PaymentEnd::Completed));
            let key = payment.idempotency_key.as_str();
            (key, payment.progress.sent, payment.progress.delivered)
        })
        .collect();
    let expected = [
        ("one", 12_500_000_000, 11_477_000),
        ("two", 3_000_000_000, 3_000_000_000),
        ("three", 1_000_000_001, 918_160),
    ];
    assert_eq!(payments, expected);

    let mut bytes = Vec::new();
    Record::AccountDeleted { id: AccountId(4) }.encode(&mut bytes);
    assert_eq!(journal.append(&bytes).unwrap(), Lsn(24));
    journal.close().unwrap();
    let after = inspect(folder.path()).unwrap().books;
    assert_eq!((after.last, after.accounts.len()), (24, 3));
}

/// `journal-2` holds records that came later: corrections of balances, invitations made, revoked and
/// accepted, routes with several next hops, settlements out and in. It was written up to a stop by
/// SIGTERM (hence the checkpoint), and on to a stop by SIGKILL.
#[test]
fn later_records_with_and_without_the_checkpoint() {
    let kept = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/journal-2"));
    let checkpoint = "00000000000000000022.checkpoint";
    for files in [&[SEGMENT, checkpoint][..], &[SEGMENT]] {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::copy(kept.join(file), folder.path().join(file)).unwrap();
        }
        let found = inspect(folder.path()).unwrap();
        assert!(found.is_sound() && found.torn.is_none());
        let usd = &found.books.assets[0];
        assert_eq!(
            (usd.accounts, usd.position, usd.settled, usd.sum()),
            (18_000_000_071, -23_000_000_000, 4_999_999_929, 0)
        );

        let mut ledger = Ledger::default();
        let disk = Arc::new(FileDisk::new(folder.path()));
        let (_journal, recovered) = Journal::open(disk, Options::default(), |replay| {
            let (Replay::Checkpoint { record: bytes, .. } | Replay::Record { payload: bytes, .. }) =
                replay;
            let record = Record::decode(bytes).map_err(|error| error.to_string())?;
            ledger.apply(&record).map_err(|error| error.to_string())
        })
        .unwrap();
        assert_eq!(recovered.last, Lsn(26));

        let bob = ledger.account_by_name("bob").unwrap();
        assert_eq!((bob.balance(), bob.prepaid()), (15_000_000_071, 71));
        assert_eq!(bob.settings.settlement.threshold, Some(10_000_000_000));
        let settlement = ledger.settlement_of(bob.id).unwrap();
        assert_eq!(
            (settlement.amount, &settlement.state),
            (5_000_000_000, &SettlementState::Open)
        );
        assert_eq!(settlement.request_key.as_deref(), Some("s1"));
        assert_eq!(
            ledger.credit_by_key("k1").unwrap().quantity.to_string(),
            "150/11"
        );
        assert_eq!(ledger.leftover(bob.id).to_string(), "50/11");

        let carol = ledger.account_by_name("carol").unwrap();
        assert_eq!(carol.settings.routes.send, Some(true));
        let far = &ledger.routes()[&"test.far".parse().unwrap()];
        let shares = far
            .hops()
            .iter()
            .map(|hop| (hop.account, hop.weight))
            .collect::<Vec<_>>();
        assert_eq!(shares, [(bob.id, 3), (carol.id, 1)]);
        let reasons: Vec<_> = ledger
            .adjustments()
            .values()
            .map(|a| a.reason.as_str())
            .collect();
        let expected = [
            "opening balance",
            "from the old books",
            "taken out",
            "after the checkpoint",
        ];
        assert_eq!(reasons, expected);
        let used: Vec<_> = ledger
            .invites()
            .map(|invite| invite.used.is_some())
            .collect();
        assert_eq!(used.len(), 2);
        assert_eq!(used.iter().filter(|used| **used).count(), 1);
    }
}
