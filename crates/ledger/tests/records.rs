//! The bytes of records: what is written is read back, and nothing else is read.

use proptest::prelude::*;
use rialto_channel::{Channel, ChannelId, ChannelKey, Kind, Limits as ChannelLimits, Terms};
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, Adjustment, Approval, BtpLink, ChannelMoney,
    ChannelOpening, ChannelTerms, Commit, Credit, Direction, Entry, EntryKind, HandSettlement,
    HandState, HttpLink, IncomingToken, Invite, InviteUse, KeyPin, Limits, Means, MoreEntries,
    Payment, PaymentEnd, PaymentId, PaymentProgress, PeeringRequest, PeeringVerdict, Period, Rate,
    Record, Relation, RouteExchange, RouteShare, SealedSecret, Settlement, SettlementCause,
    SettlementId, SettlementState, SettlementTerms, Statement, TokenHash,
};
use rialto_packet::quantity::Quantity;

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_~-]{1,64}"
}

fn relation() -> impl Strategy<Value = Relation> {
    prop_oneof![
        Just(Relation::Parent),
        Just(Relation::Peer),
        Just(Relation::Child),
        Just(Relation::Local),
    ]
}

prop_compose! {
    fn limits()(
        balance_min in any::<i128>(),
        packet_amount_max in any::<Option<u64>>(),
        packets_per_minute in any::<Option<u32>>(),
        packets_out_per_second in any::<Option<u32>>(),
        amount_per_minute in any::<Option<u64>>(),
        in_flight_count_max in any::<Option<u32>>(),
        in_flight_amount_max in any::<Option<u64>>(),
        unsynced_amount_max in any::<Option<u64>>(),
    ) -> Limits {
        Limits {
            balance_min,
            packet_amount_max,
            packets_per_minute,
            packets_out_per_second,
            amount_per_minute,
            in_flight_count_max,
            in_flight_amount_max,
            unsynced_amount_max,
        }
    }
}

prop_compose! {
    fn settings()(
        name in name(),
        relation in relation(),
        code in "\\PC{1,8}",
        scale in any::<u8>(),
        address in prop::option::of("g(\\.[a-z]{1,9}){1,4}"),
        limits in limits(),
        spread in prop::option::of("0\\.[0-9]{1,9}"),
        link in prop::option::of("\\PC{0,9}"),
        paused in any::<bool>(),
        send in any::<Option<bool>>(),
        count_max in any::<Option<u32>>(),
        prefixes in prop::collection::vec("(g|test)(\\.[a-z]{1,9}){0,4}", 0..3),
        terms in any::<(Option<i128>, i128, Option<u32>, u64)>(),
    ) -> AccountSettings {
        let secret = |text: &String| SealedSecret(text.clone());
        AccountSettings {
            name,
            incoming_tokens: Vec::new(),
 terms: AccountTerms {
            relation,
            asset: format!("{code}/{scale}").parse().expect("an asset"),
            ilp_address: address.map(|address| address.parse().expect("an address")),
            limits,
            spread,
            http: link.as_ref().map(|text| HttpLink {
                url: text.clone(),
                token: Some(secret(text)),
                jwt: None,
                callback: text.len() % 2 == 1,
                tls_pins: vec![KeyPin([7; 32]); text.len() % 3],
            }),
            btp: link.as_ref().map(|text| BtpLink {
                url: text.clone(),
                username: Some(text.clone()),
                token: (text.len() % 2 == 1).then(|| secret(text)),
                jwt: None,
                tls_pins: vec![KeyPin([7; 32]); text.len() % 3],
            }),
            paused,
            routes: RouteExchange {
                send,
                receive: send.map(|send| !send),
                prefixes: prefixes.iter().map(|text| text.parse().expect("a prefix")).collect(),
                count_max,
            },
            settlement: SettlementTerms {
                accounting_url: link.clone().filter(|_| paused),
                engine_channels: paused,
                engine_url: link,
                threshold: terms.0,
                settle_to: terms.1,
                every_s: terms.2,
                amount_min: terms.3,
                channel: send.map(|propose| ChannelTerms {
                    kind: Kind::SymmetricalTrustline,
                    limit: terms.3,
                    their_limit: terms.3,
                    propose,
                }),
            },}.into(),
}
    }
}

/// A channel with a message that waits.
fn channel() -> Channel {
    let keys = [[1; 32], [2; 32]].map(|seed| ChannelKey::from_seed(&seed));
    let terms = Terms {
        kind: Kind::SymmetricalTrustline,
        asset: "USD/2".parse().expect("an asset"),
        opener: keys[0].public(),
        accepter: keys[1].public(),
        limits: ChannelLimits {
            opener: 100,
            accepter: u64::MAX,
            revision: 0,
        },
    };
    let step = Channel::propose(ChannelId([9; 16]), terms, &keys[0]);
    step.expect("good terms").channel
}

prop_compose! {
    fn settlement()(
        numbers in any::<(u64, u32, u64, i64)>(),
        key in "\\PC{0,36}",
        request_key in prop::option::of("\\PC{0,9}"),
        cause in 0..5,
        state in 0..4,
    ) -> Settlement {
        Settlement {
            id: SettlementId(numbers.0),
            account: AccountId(numbers.1),
            request_key,
            amount: numbers.2,
            prepaid: numbers.3.into(),
            cause: match cause {
                0 => SettlementCause::Threshold,
                1 => SettlementCause::Schedule,
                2 => SettlementCause::Instruction,
                3 => SettlementCause::Report,
                _ => SettlementCause::Manual,
            },
            created_at_ms: numbers.3,
            state: match state {
                0 => SettlementState::Open,
                1 => SettlementState::Accepted,
                2 => SettlementState::Cancelled,
                _ => SettlementState::Parked { message: key.clone() },
            },
            channel: (cause > 1).then_some(ChannelId([7; 16])),
            key,
        }
    }
}

prop_compose! {
    fn credit()(
        numbers in any::<(u32, u64, i64)>(),
        key in "\\PC{0,36}",
        digits in "[0-9]{1,100}",
        scale in any::<u8>(),
    ) -> Credit {
        let quantity = Quantity::new(&digits, scale).expect("digits");
        Credit {
            account: AccountId(numbers.0),
            key,
            leftover: quantity.clone(),
            quantity,
            amount: numbers.1,
            at_ms: numbers.2,
        }
    }
}

prop_compose! {
    fn progress()(numbers in any::<[u64; 5]>()) -> PaymentProgress {
        PaymentProgress {
            payment: PaymentId(numbers[0]),
            sent: numbers[1],
            delivered: numbers[2],
            fulfilled: numbers[3],
            rejected: numbers[4],
        }
    }
}

prop_compose! {
    fn payment()(
        progress in progress(),
        account in any::<u32>(),
        texts in any::<[String; 4]>(),
        created_at_ms in any::<i64>(),
        asset in any::<Option<(String, u8)>>(),
        end in prop_oneof![
            Just(None),
            Just(Some(PaymentEnd::Completed)),
            any::<(String, String)>()
                .prop_map(|(code, message)| Some(PaymentEnd::Failed { code, message })),
        ],
    ) -> Payment {
        let [account_name, idempotency_key, request, receiver] = texts;
        Payment {
            id: progress.payment,
            account: AccountId(account),
            account_name,
            idempotency_key,
            request,
            receiver,
            created_at_ms,
            destination_asset: asset,
            progress,
            end,
        }
    }
}

prop_compose! {
    fn invite()(
        settings in settings(),
        hash in any::<[u8; 32]>(),
        has_name in any::<bool>(),
        times in any::<[i64; 2]>(),
        used in prop::option::of(used()),
    ) -> Invite {
        Invite {
            hash: TokenHash(hash),
            asset: settings.asset.clone(),
            limits: settings.limits.clone(),
            name: has_name.then_some(settings.name),
            without_routes: !has_name,
            created_at_ms: times[0],
            expires_at_ms: times[1],
            used,
        }
    }
}

prop_compose! {
    fn peering_request()(
        settings in settings(),
        hash in any::<[u8; 32]>(),
        texts in any::<[String; 3]>(),
        times in any::<[i64; 2]>(),
        verdict in 0..4,
    ) -> PeeringRequest {
        let [from, url, name] = texts;
        PeeringRequest {
            hash: TokenHash(hash),
            from,
            ilp_address: "test.stranger".parse().expect("an address"),
            url,
            asset: settings.asset.clone(),
            name,
            created_at_ms: times[0],
            expires_at_ms: times[1],
            verdict: match verdict {
                0 => None,
                1 => Some(PeeringVerdict::Denied),
                number => Some(PeeringVerdict::Approved {
                    name: (number == 2).then_some(settings.name.clone()),
                    limits: settings.limits.clone(),
                }),
            },
        }
    }
}

prop_compose! {
    fn used()(account in any::<u32>(), request in any::<[u8; 32]>(), at_ms in any::<i64>()) -> InviteUse {
        InviteUse { account: AccountId(account), request: TokenHash(request), at_ms }
    }
}

fn statement() -> impl Strategy<Value = Box<Statement>> {
    any::<((u32, u32, i128, i64), [String; 4])>().prop_map(|(numbers, texts)| {
        let (account, number, closing, closed_at_ms) = numbers;
        let [account_name, text, hash, signature] = texts;
        Box::new(Statement {
            account: AccountId(account),
            account_name,
            number,
            text,
            hash,
            signature,
            closing,
            closed_at_ms,
        })
    })
}

fn period() -> impl Strategy<Value = Period> {
    let kinds = [
        EntryKind::SettledOut,
        EntryKind::SettledIn,
        EntryKind::SettlementCancelled,
        EntryKind::Adjusted,
    ];
    let entry = any::<(usize, String, i128, Option<i64>)>().prop_map(move |parts| {
        let (kind, reference, amount, at_ms) = parts;
        Entry {
            kind: kinds[kind % kinds.len()],
            means: [
                None,
                Some(Means::Engine),
                Some(Means::Channel),
                Some(Means::Hand),
                Some(Means::Accounting),
            ][kind % 5],
            reference,
            amount,
            at_ms,
        }
    });
    let entries = proptest::collection::vec(entry, 0..3);
    let rest = any::<(u32, Option<String>, Option<i64>, i128, u64, i128)>();
    (entries, rest).prop_map(|(entries, rest)| {
        let (last, previous, since_ms, opening, count, amount) = rest;
        Period {
            last,
            previous,
            since_ms,
            opening,
            entries,
            more: MoreEntries { count, amount },
        }
    })
}

fn hand_settlement() -> impl Strategy<Value = Box<HandSettlement>> {
    any::<((u64, u32, u64, i64, u8), [String; 5])>().prop_map(|(numbers, texts)| {
        let (id, account, amount, at_ms, kind) = numbers;
        let [account_name, reference, by, idempotency_key, other] = texts;
        let state = match kind % 4 {
            0 => HandState::Proposed,
            1 => HandState::Settled { approval: None },
            2 => HandState::Settled {
                approval: Some(Approval {
                    by: other.clone(),
                    idempotency_key: other,
                    at_ms,
                }),
            },
            _ => HandState::Declined { by: other, at_ms },
        };
        Box::new(HandSettlement {
            id: SettlementId(id),
            account: AccountId(account),
            account_name,
            asset: rialto_packet::money::Asset::new("USD", 9).expect("it is one"),
            direction: [Direction::Paid, Direction::Received][usize::from(kind / 4 % 2)],
            amount,
            reference,
            by,
            idempotency_key,
            created_at_ms: at_ms,
            state,
        })
    })
}

fn adjustment() -> impl Strategy<Value = Box<Adjustment>> {
    any::<((u64, u32, i128, i64), [String; 3])>().prop_map(|(numbers, texts)| {
        let (id, account, amount, created_at_ms) = numbers;
        let [account_name, reason, idempotency_key] = texts;
        Box::new(Adjustment {
            id,
            account: AccountId(account),
            account_name,
            asset: "USD/9".parse().expect("an asset"),
            amount,
            reason,
            idempotency_key,
            created_at_ms,
        })
    })
}

fn record() -> impl Strategy<Value = Record> {
    let prefix = || {
        prop_oneof![Just(String::new()), "(g|test)(\\.[a-z]{1,9}){0,4}".boxed()]
            .prop_map(|text| text.parse().expect("a prefix"))
    };
    prop_oneof![
        any::<(u32, u64, u32, u64)>().prop_map(|(from, amount_in, to, amount_out)| {
            Record::Commit(Commit {
                from: AccountId(from),
                amount_in,
                to: AccountId(to),
                amount_out,
            })
        }),
        progress().prop_map(Record::Progress),
        (any::<u32>(), settings()).prop_map(|(id, settings)| Record::AccountPut {
            id: AccountId(id),
            settings: Box::new(settings),
        }),
        (any::<u32>(), settings()).prop_map(|(number, settings)| Record::TermsKept {
            number,
            terms: Box::new((*settings.terms).clone()),
        }),
        (
            any::<(u32, u32, i128, i128, Option<u128>)>(),
            name(),
            prop::collection::vec(any::<([u8; 32], bool, Option<i64>)>(), 0..4)
        )
            .prop_map(|((id, terms, balance, prepaid, sent), name, tokens)| {
                let token = |(hash, pin, expires_at_ms)| IncomingToken {
                    hash: TokenHash(hash),
                    jwt: None,
                    pin,
                    expires_at_ms,
                };
                Record::AccountKept {
                    id: AccountId(id),
                    terms,
                    name,
                    tokens: tokens.into_iter().map(token).collect(),
                    balance,
                    prepaid,
                    sent,
                }
            }),
        any::<u32>().prop_map(|id| Record::AccountDeleted { id: AccountId(id) }),
        (prefix(), any::<u32>()).prop_map(|(prefix, id)| Record::RoutePut {
            prefix,
            account: AccountId(id),
            shares: [0, 1, 65_535]
                .into_iter()
                .take(id as usize % 4)
                .map(|weight| RouteShare {
                    account: AccountId(id),
                    weight
                })
                .collect(),
        }),
        prefix().prop_map(|prefix| Record::RouteDeleted { prefix }),
        any::<([String; 3], Option<String>, [Option<i64>; 2])>().prop_map(
            |([from, to, rate], spread, [valid_until_ms, set_at_ms])| Record::RatePut {
                from,
                to,
                rate: Rate {
                    rate,
                    spread,
                    valid_until_ms,
                    set_at_ms,
                },
            }
        ),
        any::<[String; 2]>().prop_map(|[from, to]| Record::RateDeleted { from, to }),
        payment().prop_map(|payment| Record::PaymentPut {
            payment: Box::new(payment)
        }),
        invite().prop_map(|invite| Record::InvitePut {
            invite: Box::new(invite)
        }),
        (any::<[u8; 32]>(), used(), settings()).prop_map(|(hash, used, settings)| {
            Record::InviteAccepted {
                hash: TokenHash(hash),
                used,
                settings: Box::new(settings),
            }
        }),
        any::<[u8; 32]>().prop_map(|hash| Record::InviteDeleted {
            hash: TokenHash(hash)
        }),
        any::<[u8; 32]>().prop_map(|hash| Record::CallerBlocked {
            hash: TokenHash(hash)
        }),
        any::<[u8; 32]>().prop_map(|hash| Record::CallerUnblocked {
            hash: TokenHash(hash)
        }),
        peering_request().prop_map(|request| Record::PeeringRequestPut {
            request: Box::new(request)
        }),
        any::<[u8; 32]>().prop_map(|hash| Record::PeeringRequestDeleted {
            hash: TokenHash(hash)
        }),
        adjustment().prop_map(|adjustment| Record::Adjusted { adjustment }),
        adjustment().prop_map(|adjustment| Record::AdjustmentKept { adjustment }),
        any::<(u32, i128, i128, Option<u128>)>().prop_map(|(id, balance, prepaid, sent)| {
            Record::Balance {
                account: AccountId(id),
                balance,
                prepaid,
                sent,
            }
        }),
        statement().prop_map(|statement| Record::StatementClosed { statement }),
        statement().prop_map(|statement| Record::StatementKept { statement }),
        (any::<u32>(), period()).prop_map(|(id, period)| Record::Period {
            account: AccountId(id),
            period: Box::new(period),
        }),
        any::<(String, u8, i128, i128)>().prop_map(|(code, scale, amount, settled)| {
            Record::Position {
                code,
                scale,
                amount,
                settled,
            }
        }),
        any::<(u32, u64, u64)>().prop_map(|(last_account, last_payment, last_settlement)| {
            Record::Counters {
                last_account,
                last_payment,
                last_settlement,
            }
        }),
        settlement().prop_map(|s| Record::SettlementMade {
            settlement: Box::new(s)
        }),
        settlement().prop_map(|s| Record::SettlementKept {
            settlement: Box::new(s)
        }),
        settlement().prop_map(|s| Record::SettlementMoved {
            id: s.id,
            state: s.state
        }),
        (any::<u64>(), credit()).prop_map(|(number, credit)| Record::ChannelPut {
            number,
            account: credit.account,
            channel: Box::new(channel()),
            money: number.is_multiple_of(2).then(|| ChannelMoney::Credited {
                credit: Box::new(credit),
            }),
            opening: number.is_multiple_of(3).then(|| ChannelOpening {
                idempotency_key: number.to_string(),
                limit: number,
                their_limit: u64::MAX - number,
            }),
        }),
        settlement().prop_map(|settlement| Record::ChannelPut {
            number: 1,
            account: settlement.account,
            channel: Box::new(channel()),
            money: Some(ChannelMoney::Made {
                settlement: Box::new(settlement),
            }),
            opening: None,
        }),
        settlement().prop_map(|settlement| Record::ChannelPut {
            number: 1,
            account: settlement.account,
            channel: Box::new(channel()),
            money: Some(ChannelMoney::Moved {
                id: settlement.id,
                state: settlement.state,
            }),
            opening: None,
        }),
        hand_settlement().prop_map(|settlement| Record::HandSettlementMade { settlement }),
        hand_settlement().prop_map(|settlement| Record::HandSettlementKept { settlement }),
        hand_settlement().prop_map(|settlement| Record::HandSettlementDecided {
            id: settlement.id,
            state: settlement.state,
        }),
        credit().prop_map(|credit| Record::SettlementCredited {
            credit: Box::new(credit)
        }),
        credit().prop_map(|credit| Record::CreditKept {
            credit: Box::new(credit)
        }),
        credit().prop_map(|credit| Record::Leftover {
            account: credit.account,
            leftover: credit.leftover,
        }),
        credit().prop_map(|credit| Record::CreditKeyUsed {
            key: credit.key,
            at_ms: credit.at_ms
        }),
    ]
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(record in record()) {
        let bytes = encoded(&record);
        prop_assert_eq!(Record::decode(&bytes).expect("its own bytes"), record.clone());
        // Cut short it is not another record.
        for length in 0..bytes.len() {
            prop_assert!(Record::decode(&bytes[..length]).is_err(), "{} bytes", length);
        }
        let longer = [&bytes[..], b"x"].concat();
        prop_assert!(Record::decode(&longer).is_err());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0u8..7) {
        let _ = Record::decode(&bytes);
        let tagged = [&[tag][..], &bytes].concat();
        if let Ok(record) = Record::decode(&tagged) {
            prop_assert_eq!(encoded(&record), tagged);
        }
    }
}

/// The bytes on disk of earlier versions must stay readable, so they do not change unnoticed.
#[test]
fn the_bytes_of_the_packet_paths_records() {
    let commit = Record::Commit(Commit {
        from: AccountId(1),
        amount_in: 2,
        to: AccountId(3),
        amount_out: 4,
    });
    let expected = [
        1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4,
    ];
    assert_eq!(encoded(&commit), expected);
    let balance = Record::Balance {
        account: AccountId(7),
        balance: i128::MIN,
        prepaid: 0,
        sent: None,
    };
    assert_eq!(
        String::from_utf8(encoded(&balance)).expect("JSON"),
        r#"{"record":"balance","account":7,"balance":"-170141183460469231731687303715884105728"}"#
    );
}

#[test]
fn the_bytes_of_accounts_and_routes_in_checkpoints() {
    let token = |hash, pin, expires_at_ms| IncomingToken {
        hash: TokenHash([hash; 32]),
        jwt: None,
        pin,
        expires_at_ms,
    };
    let account = |balance, tokens| Record::AccountKept {
        id: AccountId(258),
        terms: 3,
        name: "bob".to_owned(),
        tokens,
        balance,
        prepaid: 0,
        sent: Some(0),
    };
    assert_eq!(
        encoded(&account(0, Vec::new())),
        b"\x04\0\0\x01\x02\0\0\0\x03\0\x03bob\0"
    );
    let mut expected = b"\x04\0\0\x01\x02\0\0\0\x03\x02".to_vec();
    expected.extend([0xff; 16]);
    expected.extend([0; 32]);
    expected.extend(b"\x03bob\x02");
    expected.extend([7; 32]);
    expected.push(0);
    expected.extend([8; 32]);
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 9]);
    let tokens = vec![token(7, false, None), token(8, false, Some(9))];
    assert_eq!(encoded(&account(-1, tokens)), expected);
    // Pins of keys.
    let mut expected = b"\x04\0\0\x01\x02\0\0\0\x03\0\x03bob\x02".to_vec();
    expected.extend([7; 32]);
    expected.push(2);
    expected.extend([8; 32]);
    expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 9]);
    let pins = vec![token(7, true, None), token(8, true, Some(9))];
    assert_eq!(encoded(&account(0, pins)), expected);
    // An account as earlier versions wrote it.
    let mut earlier = b"\x04\0\0\x01\x02\0\0\0\x03\x01".to_vec();
    earlier.extend([0xff; 16]);
    earlier.extend([0; 16]);
    earlier.extend(b"\x03bob\0");
    let read = Record::decode(&earlier).expect("bytes");
    assert!(matches!(
        read,
        Record::AccountKept {
            balance: -1,
            sent: None,
            ..
        }
    ));
    assert_eq!(encoded(&read), earlier);
    let route = Record::RoutePut {
        prefix: "g.x".parse().expect("a prefix"),
        account: AccountId(2),
        shares: Vec::new(),
    };
    assert_eq!(encoded(&route), b"\x05\0\0\0\x02\0\x03g.x");
    // A route as earlier versions wrote it.
    let json = br#"{"record":"route_put","prefix":"g.x","account":2}"#;
    assert_eq!(Record::decode(json).expect("JSON"), route);
}

#[test]
fn a_field_that_is_not_known_is_not_passed_over() {
    let known = br#"{"record":"counters","last_account":1,"last_payment":2}"#;
    assert!(Record::decode(known).is_ok());
    let unknown = br#"{"record":"counters","last_account":1,"last_payment":2,"more":3}"#;
    assert!(Record::decode(unknown).is_err());
}

#[test]
fn secrets_are_not_printed() {
    let secret = SealedSecret("hunter2".to_owned());
    assert!(!format!("{secret:?}").contains("hunter2"));
}
