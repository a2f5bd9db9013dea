//! Statements: they add up whatever happened, follow each other, and two sides find where they differ.

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rialto_channel::{ChannelKey, Digest};
use rialto_connector::{
    Connector, Effects, Now, Settings,
    statement::{LINE_BYTES_MAX, StatementError, StatementText, Statements, line, reconcile},
};
use rialto_ledger::{
    AccountId, Adjustment, Commit, Credit, Direction, HandSettlement, HandState, Lsn, Means,
    Record, STATEMENT_ENTRIES_MAX, STATEMENTS_MAX, Settlement, SettlementCause, SettlementId,
    SettlementState, Statement,
};
use rialto_packet::{Timestamp, quantity::Quantity};

use crate::story::account;

const PEER: AccountId = AccountId(1);

/// A node with one peer, whose journal is written by hand.
struct Side {
    core: Connector,
    records: Vec<Record>,
    lsn: u64,
    now_ms: i64,
}

#[derive(Debug, Clone)]
enum Happens {
    /// A packet from the peer.
    In(u64),
    /// A packet to the peer.
    Out(u64),
    Settled(u32),
    TakenBack(u32),
    Received(u32),
    PaidByHand(u32),
    ReceivedByHand(u32),
    Adjusted(i32),
    Statement,
}

impl Side {
    fn new(address: &str, peer: &str) -> Self {
        let mut side = Self {
            core: core(address),
            records: Vec::new(),
            lsn: 0,
            now_ms: 1_900_000_000_000,
        };
        let mut settings = account("peer", "USD/9");
        settings.ilp_address = Some(peer.parse().unwrap());
        let mut local = account("local", "USD/9");
        local.ilp_address = None;
        for (id, settings) in [(PEER, settings), (AccountId(2), local)] {
            let settings = Box::new(settings);
            side.record(Record::AccountPut { id, settings });
        }
        side
    }

    fn record(&mut self, record: Record) {
        self.lsn += 1;
        self.core.recover(Lsn(self.lsn), record.clone()).unwrap();
        self.records.push(record);
    }

    fn settlement(&self, amount: u32, state: SettlementState) -> Box<Settlement> {
        let id = self.core.ledger().next_settlement();
        Box::new(Settlement {
            id,
            account: PEER,
            key: format!("out-{}", id.0),
            request_key: None,
            channel: None,
            prepaid: 0,
            amount: amount.into(),
            cause: SettlementCause::Manual,
            created_at_ms: self.now_ms,
            state,
        })
    }

    fn happens(&mut self, what: &Happens) {
        self.now_ms += 1;
        let local = AccountId(2);
        let commit = |from, to, amount| {
            Record::Commit(Commit {
                from,
                amount_in: amount,
                to,
                amount_out: amount,
            })
        };
        match *what {
            Happens::In(amount) => self.record(commit(PEER, local, amount)),
            Happens::Out(amount) => self.record(commit(local, PEER, amount)),
            Happens::Settled(amount) => {
                let settlement = self.settlement(amount, SettlementState::Open);
                let id = settlement.id;
                self.record(Record::SettlementMade { settlement });
                self.moved(id, SettlementState::Accepted);
            }
            Happens::TakenBack(amount) => {
                let settlement = self.settlement(amount, SettlementState::Open);
                let id = settlement.id;
                self.record(Record::SettlementMade { settlement });
                let message = String::new();
                self.moved(id, SettlementState::Parked { message });
                self.moved(id, SettlementState::Cancelled);
            }
            Happens::Received(amount) => {
                let credit = Box::new(Credit {
                    account: PEER,
                    key: format!("in-{}", self.lsn),
                    quantity: Quantity::default(),
                    amount: amount.into(),
                    leftover: Quantity::default(),
                    at_ms: self.now_ms,
                });
                self.record(Record::SettlementCredited { credit });
            }
            Happens::PaidByHand(amount) => self.by_hand(Direction::Paid, amount),
            Happens::ReceivedByHand(amount) => self.by_hand(Direction::Received, amount),
            Happens::Adjusted(amount) => {
                let adjustment = Box::new(Adjustment {
                    id: self.lsn,
                    account: PEER,
                    account_name: "peer".to_owned(),
                    asset: "USD/9".parse().unwrap(),
                    amount: amount.into(),
                    reason: "a test".to_owned(),
                    idempotency_key: format!("adjusted-{}", self.lsn),
                    created_at_ms: self.now_ms,
                });
                self.record(Record::Adjusted { adjustment });
            }
            Happens::Statement => {
                self.close();
            }
        }
    }

    /// Both sides name it by the moment.
    fn by_hand(&mut self, direction: Direction, amount: u32) {
        let settlement = Box::new(HandSettlement {
            id: self.core.ledger().next_settlement(),
            account: PEER,
            account_name: "peer".to_owned(),
            asset: "USD/9".parse().unwrap(),
            direction,
            amount: amount.into(),
            reference: format!("transfer {}", self.now_ms),
            by: "ann".to_owned(),
            idempotency_key: format!("hand {}", self.now_ms),
            created_at_ms: self.now_ms,
            state: HandState::Settled { approval: None },
        });
        self.record(Record::HandSettlementMade { settlement });
    }

    fn moved(&mut self, id: SettlementId, state: SettlementState) {
        self.record(Record::SettlementMoved { id, state });
    }

    fn close(&mut self) -> String {
        let now = Now {
            mono_ns: 0,
            wall: Timestamp::from_unix_ms(self.now_ms),
        };
        let mut out = Effects::default();
        let made = self.core.statement_close(now, "peer", &mut out).unwrap();
        for bytes in out.records() {
            self.lsn += 1;
            self.records.push(Record::decode(bytes).unwrap());
        }
        line(&made.text, &made.signature)
    }

    /// All statements, as a file.
    fn file(&self) -> String {
        let made = self.core.ledger().statements(PEER);
        let lines: Vec<_> = made.map(|made| line(&made.text, &made.signature)).collect();
        lines.join("\n") + "\n"
    }

    /// The same books out of a checkpoint.
    fn restarted(&self) -> Self {
        let mut restarted = Self {
            core: core("test.copy"),
            records: Vec::new(),
            lsn: 0,
            now_ms: self.now_ms,
        };
        for record in self.core.ledger().snapshot() {
            restarted.record(record);
        }
        restarted
    }
}

fn core(address: &str) -> Connector {
    let settings = Settings::new(address.parse().unwrap());
    Connector::new(settings, [7; 32], ChaCha20Rng::from_seed([1; 32]))
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        any::<u64>().prop_map(Happens::In),
        any::<u64>().prop_map(Happens::Out),
        any::<u32>().prop_map(Happens::Settled),
        any::<u32>().prop_map(Happens::TakenBack),
        any::<u32>().prop_map(Happens::Received),
        any::<u32>().prop_map(Happens::PaidByHand),
        any::<u32>().prop_map(Happens::ReceivedByHand),
        any::<i32>().prop_map(Happens::Adjusted),
        Just(Happens::Statement),
    ]
}

/// What the same looks like from the other side.
fn mirrored(what: &Happens) -> Happens {
    match *what {
        Happens::In(amount) => Happens::Out(amount),
        Happens::Out(amount) => Happens::In(amount),
        Happens::Settled(amount) => Happens::Received(amount),
        Happens::Received(amount) => Happens::Settled(amount),
        Happens::PaidByHand(amount) => Happens::ReceivedByHand(amount),
        Happens::ReceivedByHand(amount) => Happens::PaidByHand(amount),
        // It never left.
        Happens::TakenBack(_) => Happens::Adjusted(0),
        Happens::Adjusted(amount) => Happens::Adjusted(-amount),
        Happens::Statement => Happens::Statement,
    }
}

fn sides(story: &[Happens]) -> (Side, Side) {
    let mut sides = (Side::new("test.a", "test.b"), Side::new("test.b", "test.a"));
    for what in story {
        sides.0.happens(what);
        sides.1.happens(&mirrored(what));
    }
    sides.0.close();
    sides.1.close();
    sides
}

fn compared(mine: &Side, theirs: &Side) -> Option<String> {
    let [mine, theirs] = [mine, theirs].map(|side| Statements::check(&side.file()).unwrap());
    let difference = reconcile(&mine, &theirs).unwrap();
    difference.map(|difference| difference.to_string())
}

proptest! {
    #[test]
    fn statements_add_up_and_both_sides_agree(story in prop::collection::vec(happens(), 0..40)) {
        let (mine, theirs) = sides(&story);
        prop_assert_eq!(compared(&mine, &theirs), None);
        let mut packets = (0, 0);
        for what in &story {
            match what {
                Happens::In(amount) => packets.0 += u128::from(*amount),
                Happens::Out(amount) => packets.1 += u128::from(*amount),
                Happens::Settled(_) | Happens::TakenBack(_) | Happens::Received(_)
                | Happens::PaidByHand(_) | Happens::ReceivedByHand(_) | Happens::Adjusted(_) | Happens::Statement => {}
            }
        }
        let checked = Statements::check(&mine.file()).unwrap();
        let texts = checked.texts();
        prop_assert_eq!(texts.iter().map(|text| text.packets_in).sum::<u128>(), packets.0);
        prop_assert_eq!(texts.iter().map(|text| text.packets_out).sum::<u128>(), packets.1);
        for entry in texts.iter().flat_map(|text| &text.entries) {
            let means = match entry.reference.split(['-', ' ']).next().unwrap() {
                "adjusted" => None,
                "transfer" => Some(Means::Hand),
                _ => Some(Means::Engine),
            };
            prop_assert_eq!(entry.means, means, "{:?}", entry);
        }
        let balance = mine.core.ledger().account(PEER).unwrap().balance();
        prop_assert_eq!(texts.last().unwrap().closing, balance);
    }

    #[test]
    fn a_checkpoint_in_the_middle_changes_no_statement(
        story in prop::collection::vec(happens(), 1..30), cut in 0_usize..30,
    ) {
        let mut whole = Side::new("test.copy", "test.b");
        let cut = cut.min(story.len());
        story[..cut].iter().for_each(|what| whole.happens(what));
        let mut copy = whole.restarted();
        for what in story[cut..].iter().chain([&Happens::Statement]) {
            copy.lsn = whole.lsn; // keys are made of it
            whole.happens(what);
            copy.happens(what);
        }
        prop_assert_eq!(whole.file(), copy.file());
    }
}

#[test]
fn the_first_difference_is_named_to_the_unit() {
    use Happens::{Adjusted, In, Out, PaidByHand, Received, ReceivedByHand, Settled, TakenBack};
    let (cases, packets) = (
        [
            (
                In(5),
                "packets that came in here: 105 here, 100 there: 5 units differ",
            ),
            (
                Out(5),
                "packets that went out here: 75 here, 70 there: 5 units differ",
            ),
            (
                Settled(9),
                "settlement paid here, 'out-2': -9 here, 0 there: 9 units differ",
            ),
            (
                Received(9),
                "settlement received here, 'in-9': 9 here, 0 there: 9 units differ",
            ),
            (
                PaidByHand(4),
                "settlement paid here by hand, 'transfer 1900000000006': -4 here, 0 there: 4 units differ",
            ),
            (
                ReceivedByHand(4),
                "settlement received here by hand, 'transfer 1900000000006': 4 here, 0 there: 4 units differ",
            ),
            (
                Adjusted(-3),
                "adjustment here, 'adjusted-9': -3 here, 0 there: 3 units differ",
            ),
        ],
        [
            In(100),
            Out(70),
            Settled(7),
            Received(8),
            Happens::Statement,
        ],
    );
    for (only_here, difference) in cases {
        let (mut mine, theirs) = sides(&packets);
        assert_eq!(compared(&mine, &theirs), None);
        mine.happens(&only_here);
        mine.happens(&TakenBack(1_000));
        mine.close();
        assert_eq!(compared(&mine, &theirs).as_deref(), Some(difference));
        assert!(compared(&theirs, &mine).is_some());
    }
}

/// Which one is missing does not depend on the order in which the two sides have the others.
#[test]
fn the_settlement_that_one_side_lacks_is_named_whatever_came_before_it() {
    use Happens::{Adjusted, PaidByHand, Received, ReceivedByHand, Settled, TakenBack};
    let cases: [(&[Happens], &[Happens], &str); 5] = [
        (
            &[Settled(100), Settled(50), Settled(7)],
            &[Received(7), Received(50)],
            "settlement paid here, 'out-1': -100 here, 0 there: 100 units differ",
        ),
        (
            &[TakenBack(100), Settled(50), PaidByHand(7)],
            &[Received(50)],
            "settlement paid here by hand, 'transfer 1900000000003': -7 here, 0 there: 7 units differ",
        ),
        (
            &[Settled(100), PaidByHand(100)],
            &[Adjusted(0), ReceivedByHand(100)],
            "settlement paid here, 'out-1': -100 here, 0 there: 100 units differ",
        ),
        (
            &[Received(5)],
            &[Settled(6), PaidByHand(5)],
            "settlement paid there, 'out-1': 0 here, 6 there: 6 units differ",
        ),
        (
            &[Settled(100), Settled(50)],
            &[Received(75), Received(74)],
            "settlement paid here, 'out-1' / settlement received there, 'in-2': -100 here, -75 there: 25 units differ",
        ),
    ];
    for (mine, theirs, difference) in cases {
        let mut sides = (Side::new("test.a", "test.b"), Side::new("test.b", "test.a"));
        mine.iter().for_each(|what| sides.0.happens(what));
        theirs.iter().for_each(|what| sides.1.happens(what));
        sides.0.close();
        sides.1.close();
        assert_eq!(compared(&sides.0, &sides.1).as_deref(), Some(difference));
    }
}

#[test]
fn whatever_was_changed_is_named() {
    let (mine, theirs) = sides(&[Happens::In(100), Happens::Statement, Happens::Settled(7)]);
    let file = mine.file();
    let lines: Vec<&str> = file.lines().collect();
    let [first, second] = lines[..] else {
        panic!("{file}")
    };
    let other = theirs.file();
    let other = other.lines().nth(1).unwrap();
    let cases = [
        (String::new(), "there is no statement in it"),
        ("{}".to_owned(), "line 1 is no statement"),
        (
            first.replace("\"100\"", "\"101\""),
            "statement 1: the signature does not fit",
        ),
        (
            second.replace("out-1", "out-2"),
            "statement 2: the signature does not fit",
        ),
        (
            first.replace("test.b", "test.c"),
            "statement 1: the signature does not fit",
        ),
        (
            format!("{second}\n{first}"),
            "statement 1: its number is not that of statement 2",
        ),
        (
            format!("{first}\n{first}"),
            "statement 1: its number is not that of statement 1",
        ),
        (
            format!("{first}\n{other}"),
            "statement 2: its opening balance",
        ),
        (format!("{first}\n\nx"), "line 3 is no statement"),
        (format!("{first},{second}"), "line 1 is no statement"),
    ];
    for (file, why) in cases {
        let error = Statements::check(&file).unwrap_err().to_string();
        assert!(error.contains(why), "{error}\n{why}");
    }
    // A chain may begin anywhere, as the first statements may have been put away.
    Statements::check(second).unwrap();
    // One cannot be compared with itself: it is about the other node.
    let (a, b) = (
        Statements::check(&file).unwrap(),
        Statements::check(&file).unwrap(),
    );
    let error = reconcile(&a, &b).unwrap_err();
    assert!(matches!(error, StatementError::NotMirrored(_)), "{error}");
}

/// The lines that somebody signs who makes them up; each is changed before it is signed.
fn made_up(changes: &[&dyn Fn(&mut StatementText)]) -> String {
    let key = ChannelKey::from_seed(&[9; 32]);
    let (side, _) = sides(&[]);
    let mut text = Statements::check(&side.file()).unwrap().texts()[0].clone();
    text.key = key.public();
    let mut file = String::new();
    for change in changes {
        change(&mut text);
        let json = serde_json::to_string(&text).unwrap();
        let is_other = text.key != key.public();
        let other = ChannelKey::from_seed(&[8; 32]);
        let signature = if is_other { &other } else { &key }.sign_statement(json.as_bytes());
        file += &(line(&json, &signature.to_string()) + "\n");
        text.number += 1;
        text.from_ms = Some(text.to_ms);
        text.previous = Some(Digest::of(json.as_bytes()).to_string());
    }
    file
}

#[test]
fn whatever_does_not_follow_is_named_although_it_is_signed() {
    type Change<'a> = &'a dyn Fn(&mut StatementText);
    let unchanged: Change<'_> = &|_| {};
    assert!(Statements::check(&made_up(&[unchanged, unchanged])).is_ok());
    let cases: [(Change<'_>, &str); 9] = [
        (&|text| text.account.push('x'), "2: its account"),
        (
            &|text| text.asset = "EUR/9".parse().unwrap(),
            "2: its asset",
        ),
        (
            &|text| text.key = ChannelKey::from_seed(&[8; 32]).public(),
            "2: its key",
        ),
        (&|text| text.number += 1, "3: its number"),
        (&|text| text.from_ms = None, "2: its beginning"),
        (
            &|text| (text.opening, text.closing) = (1, 1),
            "2: its opening balance",
        ),
        (
            &|text| text.previous = None,
            "2: the statement that it names as the one before",
        ),
        (
            &|text| text.closing = 1,
            "2: it ends with 1, but opening, packets and entries make 0",
        ),
        (
            &|text| text.rialto_statement = 2,
            "line 2 is no statement: version 2 is not known",
        ),
    ];
    for (change, why) in cases {
        let error = Statements::check(&made_up(&[unchanged, change])).unwrap_err();
        assert!(error.to_string().contains(why), "{error}\n{why}");
    }
    let file = made_up(&[unchanged]);
    let long = file.replace(
        ",\"signature\"",
        &(" ".repeat(LINE_BYTES_MAX) + ",\"signature\""),
    );
    let error = Statements::check(&long).unwrap_err().to_string();
    assert!(error.contains("longer than"), "{error}");
    let euros = made_up(&[&|text| text.asset = "EUR/9".parse().unwrap()]);
    let [dollars, euros] = [file, euros].map(|file| Statements::check(&file).unwrap());
    let error = reconcile(&dollars, &euros).unwrap_err().to_string();
    assert!(
        error.contains("one counts USD/9, the other EUR/9"),
        "{error}"
    );
}

#[test]
fn amounts_that_no_node_can_have_are_compared_all_the_same() {
    let change: &dyn Fn(&mut StatementText) = &|text| {
        (text.packets_in, text.packets_out) = (u128::MAX >> 1, u128::MAX >> 1);
    };
    let mut side = Side::new("test.b", "test.a");
    side.close();
    let [mine, theirs] = [made_up(&[change; 3]), side.file()];
    let [mine, theirs] = [mine, theirs].map(|file| Statements::check(&file).unwrap());
    let difference = reconcile(&mine, &theirs).unwrap().unwrap();
    assert_eq!(difference.what, "packets that came in here");
}

#[test]
fn lists_that_end_at_different_places_are_compared_by_their_sums() {
    let settled = vec![Happens::Settled(3); STATEMENT_ENTRIES_MAX + 5];
    let (mine, _) = sides(&settled);
    let mut theirs = Side::new("test.b", "test.a");
    for (index, what) in settled.iter().enumerate() {
        theirs.happens(&mirrored(what));
        if index == 100 {
            theirs.close();
        }
    }
    theirs.close();
    assert_eq!(compared(&mine, &theirs), None);
}

#[test]
fn only_so_many_statements_are_remembered() {
    let mut side = Side::new("test.a", "test.b");
    for _ in 0..=STATEMENTS_MAX {
        side.close();
    }
    let numbers = side.core.ledger().statements(PEER).map(|made| made.number);
    assert_eq!(numbers.min(), Some(2));
    assert_eq!(side.core.ledger().statements(PEER).count(), STATEMENTS_MAX);
}

#[test]
fn a_record_of_a_statement_that_is_not_about_these_books_is_not_read() {
    let (side, _) = sides(&[Happens::In(5)]);
    let mut statement = side.core.ledger().statements(PEER).next().unwrap().clone();
    statement.number += 1;
    let read = |statement: Statement| {
        let mut side = side.restarted();
        let statement = Box::new(statement);
        let record = Record::StatementClosed { statement };
        side.core.recover(Lsn(side.lsn + 1), record).is_ok()
    };
    assert!(read(statement.clone()));
    statement.closing += 1;
    assert!(!read(statement));
}

#[test]
fn entries_beyond_the_most_are_summed_up() {
    let count = STATEMENT_ENTRIES_MAX + 5;
    let (mine, theirs) = sides(&vec![Happens::Settled(3); count]);
    let checked = Statements::check(&mine.file()).unwrap();
    let text = &checked.texts()[0];
    assert_eq!(text.entries.len(), STATEMENT_ENTRIES_MAX);
    assert_eq!((text.more.count, text.more.amount), (5, -15));
    assert_eq!(compared(&mine, &theirs), None);
}

#[test]
fn books_from_before_there_were_statements_begin_with_what_they_had() {
    let mut side = Side::new("test.a", "test.b");
    side.record(Record::Balance {
        account: PEER,
        balance: -500,
        prepaid: 0,
        sent: None,
    });
    side.happens(&Happens::In(20));
    side.close();
    let checked = Statements::check(&side.file()).unwrap();
    let text = &checked.texts()[0];
    assert_eq!((text.opening, text.closing), (-500, -520));
    assert_eq!((text.packets_in, text.packets_out), (20, 0));
}
