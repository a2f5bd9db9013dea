//! Whatever a dishonest or broken other side sends: refused, named, and nothing changes hands.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{fs, path::Path};

use rialto_channel::{
    Answer, Body, CHANNELS_MAX, Channel, ChannelError, ChannelId, ChannelKey, Effect, Event, Frame,
    FrameError, Greeting, Kind, Limits, Message, OUTBOX_MAX, Paid, Phase, PublicKey, Side,
    Standing, Statement, Step, Terms, VERSION, Word,
};

const ID: ChannelId = ChannelId([9; 16]);

fn keys() -> [ChannelKey; 2] {
    [[1; 32], [2; 32]].map(|seed| ChannelKey::from_seed(&seed))
}

fn terms(kind: Kind, opener: u64, accepter: u64) -> Terms {
    let [one, two] = keys();
    Terms {
        kind,
        asset: "USD/2".parse().unwrap(),
        opener: one.public(),
        accepter: two.public(),
        limits: Limits {
            opener,
            accepter,
            revision: 0,
        },
    }
}

/// Both sides of an open channel.
fn open(id: ChannelId, terms: &Terms) -> [Channel; 2] {
    let [one, two] = keys();
    let opener = Channel::propose(id, terms.clone(), &one).unwrap().channel;
    let signature = opener.agreed.opener.unwrap();
    let accepter = Channel::offered(id, 1, terms, &signature, &two).unwrap();
    let accepter = accepter.step(Event::Accept, &two).unwrap().channel;
    let mut ends = [opener, accepter];
    exchange(&mut ends);
    ends
}

/// Carries everything that waits until nothing does.
fn exchange(ends: &mut [Channel; 2]) {
    let keys = keys();
    while let Some(from) = (0..2).find(|side| ends[*side].outgoing().is_some()) {
        let told = ends[from].outgoing().unwrap().clone();
        let answer = receive(
            &mut ends[1 - from],
            &keys[1 - from],
            told.sequence,
            told.message,
        );
        let answered = Event::Answered {
            sequence: told.sequence,
            acknowledgement: ends[1 - from].received,
            answer,
        };
        ends[from] = ends[from].step(answered, &keys[from]).unwrap().channel;
    }
}

fn receive(channel: &mut Channel, key: &ChannelKey, sequence: u64, message: Message) -> Answer {
    let step = channel
        .step(Event::Received { sequence, message }, key)
        .unwrap();
    *channel = step.channel;
    step.answer.unwrap()
}

fn symmetrical() -> [Channel; 2] {
    open(ID, &terms(Kind::SymmetricalTrustline, 100, 50))
}

fn pay(channel: &Channel, key: &ChannelKey, amount: u64) -> (Channel, u64, Message) {
    let paid = channel.step(Event::Pay { amount }, key).unwrap().channel;
    let told = paid.outgoing().unwrap().clone();
    (paid, told.sequence, told.message)
}

/// What a message that must be refused is refused with; the payer has still paid nothing then.
fn refused(channel: &Channel, key: &ChannelKey, message: Message) -> String {
    let sequence = channel.received + 1;
    let event = Event::Received { sequence, message };
    let step = channel.step(event, key).unwrap();
    let credits = |effect: &Effect| matches!(effect, Effect::Credit { .. });
    assert!(!step.effects.iter().any(credits));
    assert_eq!(step.channel.theirs, channel.theirs);
    match step.answer {
        Some(Answer::Refused { reason }) => reason,
        other => panic!("not refused but {other:?}"),
    }
}

#[test]
fn a_claim_counts_once_however_often_it_comes() {
    let [one, two] = keys();
    let [payer, mut payee] = symmetrical();
    let (_, sequence, claim) = pay(&payer, &one, 40);
    let first = receive(&mut payee, &two, sequence, claim.clone());
    let after = payee.clone();
    let second = receive(&mut payee, &two, sequence, claim);
    assert_eq!(first, Answer::Taken { word: None });
    assert_eq!((second, payee), (first, after));
}

#[test]
fn a_lower_counter_is_refused() {
    let [one, two] = keys();
    let [payer, payee] = symmetrical();
    let (_, _, low) = pay(&payer, &one, 10);
    let (_, sequence, high) = pay(&payer, &one, 40);
    let mut payee = payee;
    receive(&mut payee, &two, sequence, high.clone());
    for (claim, total) in [(low, 10), (high, 40)] {
        let reason = refused(&payee, &two, claim);
        assert_eq!(
            reason,
            format!("the claim's counter is {total}, it must be above 40, the last one")
        );
    }
}

#[test]
fn a_wrong_signature_is_refused() {
    let [one, two] = keys();
    let [payer, payee] = symmetrical();
    let (_, _, claim) = pay(&payer, &one, 10);
    let Message::Claim {
        terms, signature, ..
    } = claim
    else {
        panic!("a symmetrical trustline pays by claims");
    };
    let total = 11;
    let raised = Message::Claim {
        total,
        terms,
        signature,
    };
    assert!(refused(&payee, &two, raised).contains("signature under the payment is wrong"));
}

#[test]
fn the_signature_of_another_channel_is_refused() {
    let [one, two] = keys();
    let [_, payee] = symmetrical();
    let [elsewhere, _] = open(
        ChannelId([8; 16]),
        &terms(Kind::SymmetricalTrustline, 100, 50),
    );
    let (_, _, claim) = pay(&elsewhere, &one, 10);
    assert!(refused(&payee, &two, claim).contains("signature under the payment is wrong"));
}

#[test]
fn a_claim_above_the_limit_is_refused() {
    let [one, two] = keys();
    let [mut payer, payee] = symmetrical();
    // A payer that does not keep to what was agreed, and signs the agreed terms all the same.
    let agreed = payer.terms.clone();
    payer.theirs.total = 1;
    let (_, _, claim) = pay(&payer, &one, 101);
    assert_eq!(payer.terms, agreed);
    assert_eq!(
        refused(&payee, &two, claim),
        "the payment is above the limit: 101 units would be owed, 100 are allowed, 1 too many"
    );
}

#[test]
fn a_payer_keeps_within_the_limit() {
    let [one, _] = keys();
    let [payer, _] = symmetrical();
    let above = payer.step(Event::Pay { amount: 101 }, &one);
    let (amount, room) = (101, 100);
    assert_eq!(above, Err(ChannelError::Limit { amount, room }));
    assert!(payer.step(Event::Pay { amount: 100 }, &one).is_ok());
}

#[test]
fn a_message_that_comes_early_waits_for_its_turn() {
    let [one, two] = keys();
    let [payer, mut payee] = symmetrical();
    let (_, sequence, claim) = pay(&payer, &one, 40);
    let before = payee.clone();
    let early = receive(&mut payee, &two, sequence + 1, claim);
    assert_eq!((early, payee), (Answer::Expected, before));
}

#[test]
fn a_number_that_is_used_again_for_something_else_changes_nothing() {
    let [one, two] = keys();
    let [payer, mut payee] = symmetrical();
    let (_, sequence, claim) = pay(&payer, &one, 40);
    let (_, _, other) = pay(&payer, &one, 41); // from books that were set back
    receive(&mut payee, &two, sequence, claim);
    let before = payee.clone();
    assert_eq!(receive(&mut payee, &two, sequence, other), Answer::Expected);
    assert_eq!(payee, before);
    // And the payer says what that means.
    let (payer, sequence, _) = pay(&payer, &one, 41);
    let answered = Event::Answered {
        sequence,
        acknowledgement: sequence,
        answer: Answer::Expected,
    };
    let step = payer.step(answered, &one).unwrap();
    assert!(notes(&step)[0].contains("our books are older than theirs"));
    assert_eq!(step.channel.taken, 0, "nothing was taken");
}

#[test]
fn a_refusal_is_decided_once() {
    let [one, two] = keys();
    let [payer, mut payee] = symmetrical();
    let (_, sequence, claim) = pay(&payer, &one, 10);
    let Message::Claim {
        terms, signature, ..
    } = claim
    else {
        panic!("a symmetrical trustline pays by claims");
    };
    let forged = Message::Claim {
        total: 12,
        terms,
        signature,
    };
    let first = receive(&mut payee, &two, sequence, forged.clone());
    assert!(matches!(first, Answer::Refused { .. }));
    assert_eq!(receive(&mut payee, &two, sequence, forged), first);
}

#[test]
fn a_holder_pays_only_what_it_has() {
    let [one, two] = keys();
    // The accepter keeps the ledger and may owe 100.
    let [holder, keeper] = open(ID, &terms(Kind::AsymmetricalTrustline, 0, 100));
    let (amount, room) = (1, 0);
    let early = holder.step(Event::Pay { amount }, &one);
    assert_eq!(early, Err(ChannelError::Limit { amount, room }));
    let mut ends = [holder, pay(&keeper, &two, 60).0];
    exchange(&mut ends);
    let [holder, keeper] = ends;
    assert_eq!((holder.owed(), keeper.owed()), (-60, 60));
    let mut ends = [pay(&holder, &one, 45).0, keeper];
    exchange(&mut ends);
    assert_eq!((ends[0].owed(), ends[1].owed()), (-15, 15));
    let word = ends[0].word.unwrap();
    assert_eq!((word.credited, word.debited), (60, 45));
    assert_eq!(ends[0].word, ends[1].word);
}

#[test]
fn an_order_with_a_used_number_or_without_cover_is_refused() {
    let [one, two] = keys();
    let [holder, keeper] = open(ID, &terms(Kind::AsymmetricalTrustline, 0, 100));
    let mut ends = [holder, pay(&keeper, &two, 60).0];
    exchange(&mut ends);
    let [holder, mut keeper] = ends;
    let (_, sequence, order) = pay(&holder, &one, 45);
    receive(&mut keeper, &two, sequence, order.clone());
    assert_eq!(
        refused(&keeper, &two, order),
        "the transfer has number 1, number 2 is next"
    );
    let mut rich = holder.clone();
    rich.theirs.total = 90;
    let [_, keeper] = ends_of(&holder, &keeper);
    rich.ours = keeper.theirs;
    rich.taken = rich.ours.total;
    let (_, _, order) = pay(&rich, &one, 40);
    assert_eq!(
        refused(&keeper, &two, order),
        "the payment is above the limit: 25 units would be owed, 0 are allowed, 25 too many"
    );
}

fn ends_of(one: &Channel, two: &Channel) -> [Channel; 2] {
    [one.clone(), two.clone()]
}

#[test]
fn a_keepers_word_that_differs_is_named_to_the_unit() {
    let [one, two] = keys();
    let [holder, keeper] = open(ID, &terms(Kind::AsymmetricalTrustline, 0, 100));
    let mut ends = [holder, pay(&keeper, &two, 60).0];
    exchange(&mut ends);
    let [holder, mut keeper] = ends;
    keeper.theirs.total = 7; // never ordered
    let (_, _, credit) = pay(&keeper, &two, 5);
    assert_eq!(
        refused(&holder, &one, credit),
        "the keeper's word has 7 debited, we ordered 0: 7 units more"
    );
}

#[test]
fn an_older_word_that_comes_late_is_no_difference() {
    let [one, two] = keys();
    let [holder, keeper] = open(ID, &terms(Kind::AsymmetricalTrustline, 0, 100));
    let mut ends = [holder, pay(&keeper, &two, 60).0];
    exchange(&mut ends);
    let [holder, mut keeper] = ends;
    let (mut holder, sequence, order) = pay(&holder, &one, 5);
    let answer = receive(&mut keeper, &two, sequence, order);
    let (_, number, credit) = pay(&keeper, &two, 10);
    receive(&mut holder, &one, number, credit);
    let event = Event::Answered {
        sequence,
        acknowledgement: keeper.received,
        answer,
    };
    let late = holder.step(event.clone(), &one).unwrap();
    assert_eq!(late.effects, [Effect::PaymentTaken]);
    assert_eq!(late.channel.word, holder.word, "the newer word stays");
    // The same answer where an older word had the order debited already.
    holder.word.as_mut().unwrap().debited = 0;
    let earlier = holder.step(event, &one).unwrap();
    let note = "the keeper's word has 60 credited, we have 70: 10 units less".to_owned();
    assert!(earlier.effects.contains(&Effect::Note { message: note }));
}

#[test]
fn both_sign_how_it_ends_and_nothing_is_paid_after() {
    let [one, two] = keys();
    let [payer, payee] = symmetrical();
    let paid = pay(&payer, &one, 40).0;
    let closing = payee.step(Event::Close, &two).unwrap().channel;
    assert!(closing.step(Event::Pay { amount: 1 }, &two).is_err());
    let mut ends = [paid, closing];
    exchange(&mut ends);
    for (end, key) in ends.iter().zip(keys()) {
        assert_eq!(end.phase, Phase::Closed);
        assert_eq!(end.our_final.unwrap().opener_paid, 40);
        let statement = Statement::of(end, &key);
        statement.verify().unwrap();
        assert_eq!(statement.opener_owes(), 40);
    }
    assert!(ends[0].step(Event::Pay { amount: 1 }, &one).is_err());
}

#[test]
fn who_closes_alone_still_takes_what_was_on_its_way() {
    let [one, two] = keys();
    let [payer, payee] = symmetrical();
    let (payer, sequence, claim) = pay(&payer, &one, 40);
    let mut payee = payee.step(Event::CloseAlone, &two).unwrap().channel;
    let answer = receive(&mut payee, &two, sequence, claim);
    assert_eq!(answer, Answer::Taken { word: None });
    assert_eq!(payee.theirs.total, 40);
    let mut ends = [payer, payee];
    exchange(&mut ends);
    assert!(ends.iter().all(|end| end.phase.is_ended()));
    assert_eq!(ends[0].taken, 40);
}

/// The opener's limit becomes `limit`, as the side with this index proposes.
fn lower(ends: &mut [Channel; 2], by: usize, limit: u64) {
    let keys = keys();
    let change = Event::Change {
        opener: limit,
        accepter: 50,
    };
    ends[by] = ends[by].step(change, &keys[by]).unwrap().channel;
    exchange(ends);
    let accepted = ends[1 - by].step(Event::Accept, &keys[1 - by]);
    ends[1 - by] = accepted.unwrap().channel;
}

#[test]
fn whoever_agreed_to_a_lower_limit_pays_no_more_under_the_one_before() {
    let [one, two] = keys();
    let mut ends = symmetrical();
    let (_, _, claim) = pay(&ends[0], &one, 90); // kept back
    lower(&mut ends, 1, 10);
    exchange(&mut ends);
    assert_eq!(ends[1].terms.limits.opener, 10);
    let reason = refused(&ends[1], &two, claim);
    assert_eq!(reason, "the payment is made under other terms");
}

#[test]
fn whoever_proposed_a_lower_limit_pays_under_the_one_before_once_more() {
    let [one, two] = keys();
    let mut ends = symmetrical();
    let before = pay(&ends[0], &one, 40).0; // on its way while the other side agrees
    lower(&mut ends, 0, 45);
    let [told, mut payee] = ends;
    let claim = before.outgoing().unwrap().message.clone();
    // It may not know of our word yet, and so pay more than once.
    let sequence = payee.received + 1;
    let answer = receive(&mut payee, &two, sequence, claim);
    assert_eq!(answer, Answer::Taken { word: None });
    let mut old = told.clone();
    (old.ours, old.taken) = (before.ours, before.ours.total);
    let (_, _, claim) = pay(&old, &one, 45);
    let mut lost = payee.clone();
    let sequence = payee.received + 1;
    let answer = receive(&mut lost, &two, sequence, claim.clone());
    assert_eq!(answer, Answer::Taken { word: None });
    // It does know, and this was made before: the last one.
    let mut ends = [told, payee];
    exchange(&mut ends);
    let [_, mut payee] = ends;
    let answer = receive(&mut payee, &two, sequence, claim);
    assert_eq!(answer, Answer::Taken { word: None });
    (old.ours.total, old.taken) = (85, 85);
    let (_, _, claim) = pay(&old, &one, 5);
    let reason = refused(&payee, &two, claim);
    assert_eq!(reason, "the payment is made under other terms");
}

#[test]
fn what_may_come_to_be_owed_is_at_risk() {
    let [one, two] = keys();
    let mut ends = symmetrical();
    assert_eq!(ends[1].at_risk(), 100);
    ends[0] = pay(&ends[0], &one, 40).0;
    exchange(&mut ends);
    assert_eq!((ends[0].at_risk(), ends[1].at_risk()), (50, 100));
    let alone = ends[1].step(Event::CloseAlone, &two).unwrap().channel;
    assert_eq!(alone.at_risk(), 100, "what they paid before they knew");
    lower(&mut ends, 0, 10);
    assert_eq!(ends[1].at_risk(), 100, "they may not know yet");
    exchange(&mut ends);
    ends[0] = ends[0].step(Event::Close, &one).unwrap().channel;
    exchange(&mut ends);
    assert_eq!((ends[0].at_risk(), ends[1].at_risk()), (0, 40));
}

#[test]
fn a_payment_is_told_again_only_after_a_refusal() {
    let [one, _] = keys();
    let [payer, _] = symmetrical();
    let paid = pay(&payer, &one, 40).0;
    for channel in [&payer, &paid] {
        assert!(channel.step(Event::PayAgain, &one).is_err());
    }
    let refused = Event::Answered {
        sequence: paid.outgoing().unwrap().sequence,
        acknowledgement: 0,
        answer: Answer::Refused {
            reason: "no".to_owned(),
        },
    };
    let refused = paid.step(refused, &one).unwrap().channel;
    assert!(refused.is_payment_refused());
    let again = refused.step(Event::PayAgain, &one).unwrap();
    assert_eq!(again.channel.ours, paid.ours, "the same payment");
    let debits = |effect: &Effect| matches!(effect, Effect::Debit { .. });
    assert!(!again.effects.iter().any(debits), "it was paid before");
}

/// What became of a payment, by the effects of a step.
fn decided(step: &Step) -> Vec<&Effect> {
    let is = |effect: &&Effect| matches!(effect, Effect::PaymentVoid | Effect::PaymentStands);
    step.effects.iter().filter(is).collect()
}

/// The answer to the first message that waits.
fn answered(channel: &Channel, answer: Answer) -> Event {
    Event::Answered {
        sequence: channel.outgoing().unwrap().sequence,
        acknowledgement: 0,
        answer,
    }
}

/// The other side refuses the payment that waits.
fn refuse(channel: &Channel, key: &ChannelKey) -> Step {
    let reason = "no".to_owned();
    let refusal = answered(channel, Answer::Refused { reason });
    channel.step(refusal, key).unwrap()
}

/// A payer of 40 units, over a channel on which 10 were paid before, that the other side has refused; and
/// that other side, which has heard of nothing.
fn refused_payment(kind: Kind) -> [Channel; 2] {
    let [one, _] = keys();
    let mut ends = open(ID, &terms(kind, 100, 0));
    ends[0] = pay(&ends[0], &one, 10).0;
    exchange(&mut ends);
    ends[0] = pay(&ends[0], &one, 40).0;
    ends[0] = refuse(&ends[0], &one).channel;
    assert!(ends[0].is_payment_refused());
    // The number of the message is used up.
    ends[1].received += 1;
    ends
}

#[test]
fn what_both_sign_an_end_without_is_void() {
    let [one, two] = keys();
    for kind in Kind::ALL {
        let mut ends = refused_payment(kind);
        assert_eq!(ends[0].owed(), 50);
        ends[1] = ends[1].step(Event::Close, &two).unwrap().channel;
        let close = ends[1].outgoing().unwrap().clone();
        receive(&mut ends[0], &one, close.sequence, close.message);
        assert_eq!(ends[0].owed(), 50, "only we have signed");
        exchange(&mut ends);
        assert_eq!(ends[0].phase, Phase::Closed);
        assert_eq!([ends[0].owed(), -ends[1].owed()], [10; 2]);
        for (end, key) in ends.iter().zip([&one, &two]) {
            Statement::of(end, key).verify().unwrap();
        }
    }
}

#[test]
fn an_end_that_is_signed_once_more_is_taken() {
    let [one, two] = keys();
    let mut ends = symmetrical();
    ends[0] = ends[0].step(Event::Close, &one).unwrap().channel;
    exchange(&mut ends);
    assert_eq!(ends[1].phase, Phase::Closed);
    let ending = ends[0].our_final.unwrap();
    let sequence = ends[1].received + 1;
    let again = receive(&mut ends[1], &two, sequence, Message::Final { ending });
    assert_eq!(again, Answer::Taken { word: None });
    assert_eq!(ends[1].phase, Phase::Closed);
}

#[test]
fn a_refused_payment_is_void_once() {
    let [one, two] = keys();
    let [payer, payee] = refused_payment(Kind::SymmetricalTrustline);
    let payer = payer.step(Event::Close, &one).unwrap().channel;
    let payee = payee.step(Event::Close, &two).unwrap().channel;
    let mut ends = [payer, payee];
    let mut seen = Vec::new();
    while let Some(from) = (0..2).find(|side| ends[*side].outgoing().is_some()) {
        let told = ends[from].outgoing().unwrap().clone();
        let keys = keys();
        let to = 1 - from;
        let (sequence, message) = (told.sequence, told.message);
        let step = ends[to].step(Event::Received { sequence, message }, &keys[to]);
        let step = step.unwrap();
        seen.extend(decided(&step).into_iter().cloned());
        let answer = answered(&ends[from], step.answer.unwrap());
        ends[to] = step.channel;
        let step = ends[from].step(answer, &keys[from]).unwrap();
        seen.extend(decided(&step).into_iter().cloned());
        ends[from] = step.channel;
    }
    assert_eq!(seen, [Effect::PaymentVoid]);
}

#[test]
fn what_ends_alone_leaves_a_refused_payment_standing() {
    let [one, two] = keys();
    for kind in Kind::ALL {
        let [payer, payee] = refused_payment(kind);
        let alone = payer.step(Event::CloseAlone, &one).unwrap();
        assert_eq!(decided(&alone), [&Effect::PaymentStands]);
        assert_eq!(alone.channel.owed(), 50, "they have our signature");
        Statement::of(&alone.channel, &one).verify().unwrap();
        let payee = payee.step(Event::CloseAlone, &two).unwrap().channel;
        let told = payee.outgoing().unwrap().clone();
        let (sequence, message) = (told.sequence, told.message);
        let theirs = payer.step(Event::Received { sequence, message }, &one);
        assert_eq!(decided(&theirs.unwrap()), [&Effect::PaymentStands]);
    }
}

#[test]
fn whoever_stops_waiting_for_the_other_to_sign_leaves_both_at_an_end() {
    let [one, two] = keys();
    let mut ends = refused_payment(Kind::SymmetricalTrustline);
    ends[0] = ends[0].step(Event::Close, &one).unwrap().channel;
    let told = ends[0].outgoing().unwrap().clone();
    let answer = receive(&mut ends[1], &two, told.sequence, told.message);
    let step = ends[0].step(answered(&ends[0], answer), &one).unwrap();
    // Signed, told, and not waited for.
    let closing = step.channel.step(Event::Close, &one).unwrap().channel;
    ends[0] = closing.step(Event::CloseAlone, &one).unwrap().channel;
    assert_eq!(
        ends[0].owed(),
        50,
        "they can show our signature under the payment"
    );
    while let Some(told) = ends[0].outgoing().cloned() {
        let answer = receive(&mut ends[1], &two, told.sequence, told.message);
        ends[0] = ends[0]
            .step(answered(&ends[0], answer), &one)
            .unwrap()
            .channel;
    }
    exchange(&mut ends);
    for end in &ends {
        assert_eq!(end.phase, Phase::ClosedAlone { by: Side::Opener });
    }
}

#[test]
fn what_is_refused_after_the_end_stands_if_they_signed_it() {
    let [one, two] = keys();
    let mut ends = symmetrical();
    let paid = pay(&ends[0], &one, 40).0;
    // They take it, sign an end with it, and say that they refused it.
    let told = paid.outgoing().unwrap().clone();
    receive(&mut ends[1], &two, told.sequence, told.message);
    ends[1] = ends[1].step(Event::Close, &two).unwrap().channel;
    let close = ends[1].outgoing().unwrap().clone();
    let mut payer = paid;
    receive(&mut payer, &one, close.sequence, close.message);
    let taken = answered(&ends[1], Answer::Taken { word: None });
    ends[1] = ends[1].step(taken, &two).unwrap().channel;
    ends[1] = ends[1].step(Event::Close, &two).unwrap().channel;
    let ending = ends[1].outgoing().unwrap().clone();
    receive(&mut payer, &one, ending.sequence, ending.message);
    assert_eq!(payer.phase, Phase::Closed);
    let step = refuse(&payer, &one);
    assert_eq!(decided(&step), [&Effect::PaymentStands]);
    assert_eq!(step.channel.owed(), 40);
}

#[test]
fn what_is_refused_while_the_end_is_signed_is_left_out_of_it() {
    let [one, two] = keys();
    let mut ends = symmetrical();
    let mut payer = pay(&ends[0], &one, 40).0;
    payer = payer.step(Event::Close, &one).unwrap().channel;
    ends[1].received += 1; // the payment, which they refuse
    ends[1] = ends[1].step(Event::Close, &two).unwrap().channel;
    let close = ends[1].outgoing().unwrap().clone();
    receive(&mut payer, &one, close.sequence, close.message);
    let signed = |channel: &Channel| channel.our_final.unwrap().opener_paid;
    assert_eq!(signed(&payer), 40);
    payer = refuse(&payer, &one).channel;
    assert_eq!(signed(&payer), 0);
    let taken = answered(&ends[1], Answer::Taken { word: None });
    ends[1] = ends[1].step(taken, &two).unwrap().channel;
    ends[0] = payer;
    exchange(&mut ends);
    for end in &ends {
        assert_eq!((&end.phase, end.owed()), (&Phase::Closed, 0));
    }
}

#[test]
fn whoever_did_not_sign_agreed_to_nothing() {
    let [one, two] = keys();
    let sym = terms(Kind::SymmetricalTrustline, 100, 50);
    let proposed = Channel::propose(ID, sym, &one).unwrap().channel;
    let wrong = proposed.agreed.opener.unwrap();
    let accept = Message::Accept { signature: wrong };
    let reason = refused(&proposed, &one, accept);
    assert_eq!(reason, "the signature under the terms is wrong");

    let [opener, accepter] = symmetrical();
    let change = |opener| Event::Change {
        opener,
        accepter: 50,
    };
    let changing = opener.step(change(10), &one).unwrap().channel;
    let Message::Change { limits, signature } = changing.outgoing().unwrap().message.clone() else {
        panic!("it proposes other limits");
    };
    let greedy = Limits {
        opener: 1_000,
        ..limits
    };
    let skipped = Limits {
        revision: limits.revision + 1,
        ..limits
    };
    for (limits, why) in [
        (greedy, "the signature under other limits is wrong"),
        (skipped, "other limits with revision 2, ours is 0"),
    ] {
        let change = Message::Change { limits, signature };
        assert_eq!(refused(&accepter, &two, change), why);
    }
    let revision = limits.revision;
    let accept = Message::ChangeAccept {
        revision,
        signature, // the opener's own
    };
    let reason = refused(&changing, &one, accept);
    assert_eq!(reason, "the signature under other limits is wrong");
}

/// The notes of a step.
fn notes(step: &Step) -> Vec<&str> {
    let notes = step.effects.iter().filter_map(|effect| match effect {
        Effect::Note { message } => Some(message.as_str()),
        Effect::Send
        | Effect::Debit { .. }
        | Effect::Credit { .. }
        | Effect::PaymentTaken
        | Effect::PaymentRefused { .. }
        | Effect::PaymentVoid
        | Effect::PaymentStands => None,
    });
    notes.collect()
}

#[test]
fn a_final_that_is_not_theirs_or_has_other_totals_is_refused() {
    let [one, two] = keys();
    let mut ends = symmetrical();
    ends[0] = pay(&ends[0], &one, 40).0;
    exchange(&mut ends);
    let [open, payee] = ends;
    let closing = payee.step(Event::Close, &two).unwrap().channel;
    let finished = |mut channel: Channel| {
        let sequence = channel.received + 1;
        receive(&mut channel, &one, sequence, Message::Close);
        channel.outgoing().unwrap().message.clone()
    };
    let mut lying = open.clone();
    lying.ours.total = 41;
    assert_eq!(
        refused(&closing, &two, finished(lying)),
        "the final statement has 41 paid by the opener, we have 40: 1 units more"
    );
    let Message::Final { mut ending } = finished(open.clone()) else {
        panic!("it signs how it ends");
    };
    let fine = Message::Final { ending };
    ending.signature = open.agreed.opener.unwrap();
    let forged = Message::Final { ending };
    let wrong = "the signature under the final statement is wrong";
    assert_eq!(refused(&closing, &two, forged), wrong);

    // Once they signed how it ends they pay no more, whatever becomes of ours.
    let mut closed = closing;
    let sequence = closed.received + 1;
    receive(&mut closed, &two, sequence, fine);
    while let Some(told) = closed.outgoing().cloned() {
        let refused = Answer::Refused {
            reason: "no".to_owned(),
        };
        let answer = match matches!(told.message, Message::Final { .. }) {
            true => refused,
            false => Answer::Taken { word: None },
        };
        let answered = Event::Answered {
            sequence: told.sequence,
            acknowledgement: 0,
            answer,
        };
        closed = closed.step(answered, &two).unwrap().channel;
    }
    assert_eq!(closed.phase, Phase::Closing);
    let (_, _, claim) = pay(&open, &one, 5);
    let late = "a payment over a channel that is closing";
    assert_eq!(refused(&closed, &two, claim), late);
}

#[test]
fn a_keepers_word_counts_if_it_is_the_keepers() {
    let [one, two] = keys();
    let [holder, keeper] = open(ID, &terms(Kind::AsymmetricalTrustline, 0, 100));
    let (paid, _, credit) = pay(&keeper, &two, 60);
    let Message::Credit {
        number,
        amount,
        word,
    } = credit
    else {
        panic!("a keeper pays by credits");
    };
    let forged = Word {
        signature: holder.agreed.opener.unwrap(),
        ..word
    };
    let credit = Message::Credit {
        number,
        amount,
        word: forged,
    };
    let wrong = "the signature under the keeper's word is wrong";
    assert_eq!(refused(&holder, &one, credit), wrong);

    let mut ends = [holder, paid];
    exchange(&mut ends);
    let (holder, sequence, _) = pay(&ends[0], &one, 45);
    // What it would say had it been 30.
    let (_, _, order) = pay(&ends[0], &one, 30);
    let answer = receive(&mut ends[1], &two, sequence, order);
    let Answer::Taken { word: Some(less) } = answer else {
        panic!("a keeper answers with its word");
    };
    for (word, note) in [
        (forged, wrong),
        (
            less,
            "the keeper's word has 30 debited, we have 45: 15 units less",
        ),
    ] {
        let answered = Event::Answered {
            sequence,
            acknowledgement: sequence,
            answer: Answer::Taken { word: Some(word) },
        };
        let step = holder.step(answered, &one).unwrap();
        assert_eq!(notes(&step), [note]);
        assert_eq!(step.channel.taken, 45, "taken it is");
        assert_eq!(step.channel.word == Some(less), word == less);
    }
}

#[test]
fn a_payment_of_another_kind_or_that_does_not_follow_is_refused() {
    let [one, two] = keys();
    let [payer, payee] = symmetrical();
    let [holder, keeper] = open(ID, &terms(Kind::AsymmetricalTrustline, 0, 100));
    let mut ends = [holder, pay(&keeper, &two, 60).0];
    let credit = ends[1].outgoing().unwrap().message.clone();
    exchange(&mut ends);
    let [holder, keeper] = ends;
    let (_, _, order) = pay(&holder, &one, 45);
    let (_, _, claim) = pay(&payer, &one, 40);
    for (channel, key, message, why) in [
        (&payee, &two, order.clone(), "is for the keeper"),
        (&payer, &one, credit, "comes from the keeper"),
        (&keeper, &two, claim, "belongs on a symmetrical"),
    ] {
        let reason = refused(channel, key, message);
        assert!(reason.contains(why), "{reason}");
    }
    let Message::Order {
        terms, signature, ..
    } = order
    else {
        panic!("a holder pays by orders");
    };
    for (amount, total) in [(45, 46), (0, 0), (u64::MAX, 44)] {
        let order = Message::Order {
            number: 1,
            amount,
            total,
            terms,
            signature,
        };
        let reason = refused(&keeper, &two, order);
        assert!(
            reason.contains(&format!("names a total of {total}")),
            "{reason}"
        );
    }
}

#[test]
fn nothing_is_paid_over_what_was_withdrawn_before_it_was_accepted() {
    let [one, two] = keys();
    let sym = terms(Kind::SymmetricalTrustline, 100, 50);
    let proposed = Channel::propose(ID, sym, &one).unwrap().channel;
    let withdrawn = proposed.step(Event::CloseAlone, &one).unwrap().channel;
    let [_, accepter] = symmetrical();
    let (_, _, claim) = pay(&accepter, &two, 10);
    assert_eq!(
        refused(&withdrawn, &one, claim),
        "a payment over a channel that is closed_alone"
    );
}

#[test]
fn other_limits_that_wait_end_with_the_channel() {
    let [one, _] = keys();
    let [opener, _] = symmetrical();
    let change = Event::Change {
        opener: 10,
        accepter: 50,
    };
    let mut changing = opener.step(change, &one).unwrap().channel;
    let sequence = changing.received + 1;
    receive(&mut changing, &one, sequence, Message::Close);
    assert_eq!(changing.change, None);
}

#[test]
fn whoever_asks_and_never_answers_is_answered_only_so_often() {
    let [one, two] = keys();
    let [opener, mut accepter] = symmetrical();
    let change = Event::Change {
        opener: 10,
        accepter: 50,
    };
    let changing = opener.step(change, &one).unwrap().channel;
    let message = changing.outgoing().unwrap().message.clone();
    let decline = |channel: &Channel| {
        let reason = "no".to_owned();
        channel.step(Event::Decline { reason }, &two)
    };
    let mut declined = 0;
    loop {
        let sequence = accepter.received + 1;
        receive(&mut accepter, &two, sequence, message.clone());
        match decline(&accepter) {
            Ok(step) => accepter = step.channel,
            Err(error) => {
                assert_eq!(error, ChannelError::Outbox);
                break;
            }
        }
        declined += 1;
    }
    assert!(declined < OUTBOX_MAX && declined == accepter.outbox.len());
}

#[test]
fn a_statement_holds_what_both_signed_and_no_more() {
    let [one, two] = keys();
    let [holder, keeper] = open(ID, &terms(Kind::AsymmetricalTrustline, 0, 100));
    let mut ends = [holder, pay(&keeper, &two, 60).0];
    exchange(&mut ends);
    ends[0] = pay(&ends[0], &one, 45).0;
    exchange(&mut ends);
    let error = |channel: &Channel, key: &ChannelKey| {
        let verified = Statement::of(channel, key).verify();
        verified.err().map(|error| error.to_string())
    };
    assert_eq!(error(&ends[0], &one), None);
    let lie = |change: &dyn Fn(&mut Channel)| {
        let mut lying = ends[0].clone();
        change(&mut lying);
        error(&lying, &one).expect("it lies")
    };
    assert_eq!(
        lie(&|channel| channel.theirs.total = 61),
        "word: it has 60 credited, the payments have 61: 1 units differ"
    );
    assert_eq!(
        lie(&|channel| channel.ours = Paid::default()),
        "word: it has 45 debited, the payments have 0: 45 units differ"
    );
    assert_eq!(
        lie(&|channel| channel.agreed.accepter = None),
        "terms: the accepter did not sign them"
    );
    ends[1] = ends[1].step(Event::Close, &two).unwrap().channel;
    exchange(&mut ends);
    let mut lying = ends[0].clone();
    let ending = lying.their_final.as_mut().unwrap();
    ending.opener_paid += 1;
    assert!(error(&lying, &one).is_some());
    // Signed by them, of other totals than the payments.
    let mut other = ends[1].clone();
    (other.phase, other.our_final, other.their_final) = (Phase::Open, None, None);
    other.ours.total = 59;
    let sequence = other.received + 1;
    receive(&mut other, &two, sequence, Message::Close);
    lying.their_final = other.our_final;
    let found = error(&lying, &one).unwrap();
    assert!(found.starts_with("final"), "{found}");
}

#[test]
fn a_proposal_for_another_key_or_with_a_wrong_signature_is_refused() {
    let [one, two] = keys();
    let terms = terms(Kind::SymmetricalTrustline, 100, 50);
    let proposed = Channel::propose(ID, terms.clone(), &one).unwrap().channel;
    let signature = proposed.agreed.opener.unwrap();
    let third = ChannelKey::from_seed(&[3; 32]);
    let reason = |id, sequence, terms: &Terms, key| {
        let offered = Channel::offered(id, sequence, terms, &signature, key);
        offered.unwrap_err().to_string()
    };
    assert_eq!(
        reason(ID, 1, &terms, &third),
        "the proposal names another key than ours"
    );
    let wrong = "the signature under the proposal is wrong";
    assert_eq!(reason(ChannelId([1; 16]), 1, &terms, &two), wrong);
    let mut greedy = terms.clone();
    greedy.limits.accepter += 1;
    assert_eq!(reason(ID, 1, &greedy, &two), wrong);
    assert!(reason(ID, 2, &terms, &two).contains("not a first message"));
    assert!(reason(ChannelId::NONE, 1, &terms, &two).contains("is random"));
}

#[test]
fn differences_are_named_to_the_unit() {
    let [one, _] = keys();
    let mut ends = symmetrical();
    ends[0] = pay(&ends[0], &one, 40).0;
    exchange(&mut ends);
    let [payer, payee] = ends;
    assert!(
        payer
            .differences(&payee.standing(), Some(&payer.known_standing()))
            .is_empty()
    );
    let lost = Standing {
        received: 37,
        ..payee.standing()
    };
    assert_eq!(
        payer.differences(&lost, Some(&payer.known_standing())),
        ["they say that we paid 37, they had taken 40: 3 units less"]
    );
    let forgot = Standing {
        paid: 38,
        ..payer.standing()
    };
    assert_eq!(
        payee.differences(&forgot, Some(&payee.known_standing())),
        ["they say that they paid 38, we have 40: 2 units less"]
    );
    let more = Standing {
        paid: 43,
        ..payer.standing()
    };
    assert_eq!(
        payee.differences(&more, None),
        ["they say that they paid 43, we have 40: 3 units more"]
    );
    let on_its_way = Standing {
        sent_sequence: payee.received + 1,
        ..more
    };
    assert!(payee.differences(&on_its_way, None).is_empty());
    // What they said unasked, or before, was overtaken.
    assert!(payee.differences(&forgot, None).is_empty());
    assert!(payee.differences(&forgot, Some(&forgot)).is_empty());
}

#[test]
fn a_statement_that_was_changed_is_found_out() {
    let [one, two] = keys();
    let mut ends = symmetrical();
    ends[0] = pay(&ends[0], &one, 40).0;
    exchange(&mut ends);
    let statement = Statement::of(&ends[1], &two);
    let json = statement.to_json();
    assert_eq!(Statement::parse(&json).unwrap(), statement);
    statement.verify().unwrap();
    let text = String::from_utf8(json).unwrap();
    let changed = text.replace("\"total\": \"40\"", "\"total\": \"41\"");
    let changed = Statement::parse(changed.as_bytes()).unwrap();
    assert!(
        changed
            .verify()
            .unwrap_err()
            .to_string()
            .contains("the signature of its writer")
    );
    // A writer that signs what it made up has no signature of the payer for it.
    let mut lie = ends[1].clone();
    lie.theirs.total = 41;
    assert_eq!(
        Statement::of(&lie, &two).verify().unwrap_err().to_string(),
        "opener: no signature of theirs proves that they paid 41 units"
    );
    let mut lie = ends[1].clone();
    lie.terms.limits.opener = 1_000;
    assert_eq!(
        Statement::of(&lie, &two).verify().unwrap_err().to_string(),
        "terms: the opener did not sign them"
    );
}

/// One frame of every sort.
fn frames() -> Vec<(&'static str, Frame)> {
    let [one, two] = keys();
    let mut frames = Vec::new();
    let frame = |kind, sequence, body| Frame {
        channel: ID,
        kind,
        sequence,
        acknowledgement: 3,
        body,
    };
    let greeting = Greeting {
        versions: vec![VERSION],
        kinds: Kind::ALL.iter().map(|kind| kind.code()).collect(),
        key: one.public(),
        channels: vec![symmetrical()[0].standing()],
    };
    let greeting = Frame {
        channel: ChannelId::NONE,
        ..frame(None, 0, Body::Greeting(greeting))
    };
    frames.push(("greeting", greeting));
    let told = |channel: &Channel| channel.outgoing().unwrap().message.clone();
    let sym = terms(Kind::SymmetricalTrustline, 100, 50);
    let [opener, accepter] = symmetrical();
    let proposed = Channel::propose(ID, sym.clone(), &one).unwrap().channel;
    let signature = proposed.agreed.opener.unwrap();
    let offered = Channel::offered(ID, 1, &sym, &signature, &two).unwrap();
    let reason = || "no".to_owned();
    let step = |channel: &Channel, event, key: &ChannelKey| {
        told(&channel.step(event, key).unwrap().channel)
    };
    let change = Event::Change {
        opener: 200,
        accepter: 100,
    };
    let mut changed = accepter.clone();
    let message = step(&opener, change.clone(), &one);
    receive(&mut changed, &two, 2, message);
    let [holder, keeper] = open(ID, &terms(Kind::AsymmetricalTrustline, 0, 100));
    let mut ends = [holder, pay(&keeper, &two, 60).0];
    let credit = told(&ends[1]);
    exchange(&mut ends);
    let word = ends[1].word;
    let mut closing = accepter.clone();
    receive(&mut closing, &two, 2, Message::Close);
    let messages = [
        ("propose", told(&proposed)),
        ("accept", step(&offered, Event::Accept, &two)),
        (
            "decline",
            step(&offered, Event::Decline { reason: reason() }, &two),
        ),
        ("claim", step(&opener, Event::Pay { amount: 5 }, &one)),
        ("credit", credit),
        ("order", step(&ends[0], Event::Pay { amount: 5 }, &one)),
        ("change", step(&opener, change, &one)),
        ("change-accept", step(&changed, Event::Accept, &two)),
        (
            "change-decline",
            step(&changed, Event::Decline { reason: reason() }, &two),
        ),
        ("close", step(&opener, Event::Close, &one)),
        ("final", told(&closing)),
        ("close-alone", step(&opener, Event::CloseAlone, &one)),
    ];
    for (name, message) in messages {
        let kind = Some(Kind::SymmetricalTrustline);
        frames.push((name, frame(kind, 2, Body::Message(message))));
    }
    let answers = [
        ("taken", Answer::Taken { word: None }),
        ("taken-word", Answer::Taken { word }),
        ("refused", Answer::Refused { reason: reason() }),
        ("expected", Answer::Expected),
        ("greet-first", Answer::GreetFirst),
        ("unknown", Answer::Unknown { reason: reason() }),
        ("later", Answer::Later),
    ];
    for (name, answer) in answers {
        let kind = Some(Kind::AsymmetricalTrustline);
        frames.push((name, frame(kind, 2, Body::Answer(answer))));
    }
    frames
}

#[test]
fn frames_come_back_and_no_other_encoding_is_one() {
    for (name, frame) in frames() {
        let bytes = frame.encode();
        assert_eq!(Frame::parse(&bytes).as_ref(), Ok(&frame), "{name}");
        for cut in 0..bytes.len() {
            assert!(Frame::parse(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            Frame::parse(&longer),
            Err(FrameError::NotCanonical),
            "{name}"
        );
    }
}

#[test]
fn a_frame_of_another_version_sort_or_kind_is_named() {
    let (_, frame) = frames().swap_remove(1);
    let bytes = frame.encode();
    let with = |at: usize, byte| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        Frame::parse(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 0), FrameError::Magic);
    assert_eq!(with(8, 2), FrameError::Version(2));
    assert_eq!(with(25, 3), FrameError::Kind(3));
    // The kind, two numbers and the body's length, which takes two bytes, come before its sort.
    assert_eq!(with(25 + 1 + 16 + 2, 0x7f), FrameError::Body(0x7f));
}

#[test]
fn a_greeting_with_too_many_channels_is_refused() {
    let standing = symmetrical()[0].standing();
    let greeting = |count| Frame {
        channel: ChannelId::NONE,
        kind: None,
        sequence: 0,
        acknowledgement: 0,
        body: Body::Greeting(Greeting {
            versions: vec![VERSION],
            kinds: Vec::new(),
            key: PublicKey([0; 32]),
            channels: vec![standing; count],
        }),
    };
    assert!(Frame::parse(&greeting(CHANNELS_MAX).encode()).is_ok());
    let above = Frame::parse(&greeting(CHANNELS_MAX + 1).encode());
    assert_eq!(above, Err(FrameError::TooMany));
}

/// The corpora of the fuzz targets are these frames and statements; `WRITE_CORPUS=1` writes them.
#[test]
fn corpora_hold_one_of_every_sort() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, frame) in frames() {
        let bytes = frame.encode();
        files.push((
            format!("channel_frame/{name}-cut"),
            bytes[..bytes.len() - 1].to_vec(),
        ));
        files.push((format!("channel_frame/{name}"), bytes));
    }
    let [_, two] = keys();
    let mut ends = symmetrical();
    ends[1] = pay(&ends[1], &two, 40).0;
    exchange(&mut ends);
    files.push((
        "channel_statement/open".to_owned(),
        Statement::of(&ends[1], &two).to_json(),
    ));
    ends[1].theirs.total = 3;
    files.push((
        "channel_statement/lie".to_owned(),
        Statement::of(&ends[1], &two).to_json(),
    ));
    for (name, bytes) in files {
        let path = corpus.join(&name);
        if std::env::var_os("WRITE_CORPUS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(
            fs::read(&path).is_ok_and(|kept| kept == bytes),
            "{name} is not as it was"
        );
    }
}
