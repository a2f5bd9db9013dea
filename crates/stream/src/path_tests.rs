//! Payments over a simulated path: a sender, one connector with every vice, a receiver. The clock is
//! a number and the same seed gives the same run.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rialto_packet::{
    Address, ErrorCode, FulfillBuilder, PacketType, Prepare, RejectBuilder, Reply, Timestamp,
    f08::AmountTooLarge,
    money::{Asset, Ratio},
};

use crate::{
    Keys, Now, Outcome, Receipt, ReceiptDetails, ReceiptSecret, Receiver, Sender, SenderConfig,
    SharedSecret, Stop, Target,
    crypto::condition,
    packet::{CloseCode, Frame, Packet, PacketBuilder},
    sender::IN_FLIGHT_COUNT_MAX,
};

const MS: u64 = 1_000_000;
const START: i64 = 1_800_000_000_000;

/// How the connector treats packets. Amounts are in the sender's units.
#[derive(Debug, Clone)]
struct Behaviour {
    /// Units out per unit in, rounded down.
    rate: (u64, u64),
    /// From this many packets on the rate is another.
    rate_later: Option<(u64, (u64, u64))>,
    /// Largest packet, and what is said about it.
    amount_max: Option<u64>,
    f08_data: F08Data,
    /// Units in flight at once; more is T04.
    liquidity: Option<u64>,
    /// Packets in each 10 ms; more is T05.
    packets_per_10_ms: Option<u64>,
    /// There and back.
    delay_ms: u64,
    /// Of 100 packets so many are not answered in time.
    lost_of_100: u64,
    /// Everything is rejected with this after so many packets.
    reject_from: Option<(u64, ErrorCode)>,
    /// Amounts that come to nothing are R01 here; otherwise they travel on as zero.
    r01: bool,
}

#[derive(Debug, Clone, Copy)]
enum F08Data {
    Exact,
    Missing,
    Hostile(u64, u64),
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            rate: (1, 1),
            rate_later: None,
            amount_max: None,
            f08_data: F08Data::Exact,
            liquidity: None,
            packets_per_10_ms: None,
            delay_ms: 0,
            lost_of_100: 0,
            reject_from: None,
            r01: true,
        }
    }
}

/// What a run showed, seen from the receiving account.
struct Run {
    outcome: Outcome,
    /// What the receiver was really paid.
    received: u64,
    /// What really left the sender.
    sent: u64,
    elapsed_ms: u64,
    packets: u64,
    in_flight_most: usize,
    fulfilled_before_probe_reply: bool,
}

fn asset() -> Asset {
    Asset::new("EUR", 6).unwrap()
}

fn run(behaviour: Behaviour, target: Target) -> Run {
    run_with(behaviour, target, |_| {})
}

fn run_with(behaviour: Behaviour, target: Target, change: impl Fn(&mut SenderConfig)) -> Run {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let account: Address = "example.bob".parse().unwrap();
    let mut receiver = Receiver::new(&[9; 32], asset(), 16);
    let receipt = ReceiptDetails {
        nonce: [3; 16],
        secret: ReceiptSecret::from_bytes([4; 32]),
    };
    let credentials = receiver
        .credentials(&mut rng, &account, Some(&receipt))
        .unwrap();
    let mut config = SenderConfig::new(
        credentials.shared_secret,
        credentials.destination_account,
        target,
    );
    change(&mut config);
    let now = |ns: u64| Now {
        mono_ns: ns,
        wall: Timestamp::from_unix_ms(START + i64::try_from(ns / MS).unwrap()),
    };
    let mut clock = 0;
    let mut sender = Sender::new(now(clock), config);
    // Replies under way, by arrival.
    let mut replies: BTreeMap<(u64, u64), (u64, Vec<u8>)> = BTreeMap::new();
    let (mut packets, mut sent, mut received, mut in_flight, mut in_flight_most) = (0, 0, 0, 0, 0);
    let mut slot = (0, 0);
    let mut fulfilled_before_probe_reply = false;
    let mut any_reply = false;
    loop {
        while let Some(transmit) = sender.poll_transmit(now(clock), &mut rng) {
            packets += 1;
            assert!(packets < 1_000_000, "endless payment");
            let mut prepare = Prepare::parse(transmit.packet).unwrap();
            let amount = prepare.amount();
            let wall = now(clock).wall;
            let timeout_ms = u64::try_from(prepare.expires_at().ms_since(wall)).unwrap();
            in_flight += amount;
            if slot.0 != clock / (10 * MS) {
                slot = (clock / (10 * MS), 0);
            }
            slot.1 += 1;
            let rate = match behaviour.rate_later {
                Some((from, rate)) if packets > from => rate,
                _ => behaviour.rate,
            };
            let arriving = u128::from(amount) * u128::from(rate.0) / u128::from(rate.1);
            let arriving = u64::try_from(arriving).unwrap();
            let mut delay_ms = behaviour.delay_ms;
            let reject = |code, data: &[u8]| {
                RejectBuilder {
                    code,
                    triggered_by: None,
                    message: "simulated",
                    data,
                }
                .encode()
                .unwrap()
            };
            let reply = if let Some((from, code)) = behaviour.reject_from
                && packets > from
            {
                reject(code, &[])
            } else if rng.next_u64() % 100 < behaviour.lost_of_100 {
                delay_ms = timeout_ms;
                reject(ErrorCode::R00_TRANSFER_TIMED_OUT, &[])
            } else if let Some(maximum_amount) = behaviour.amount_max
                && amount > maximum_amount
            {
                let data = match behaviour.f08_data {
                    F08Data::Exact => AmountTooLarge {
                        received_amount: amount,
                        maximum_amount,
                    }
                    .to_bytes()
                    .to_vec(),
                    F08Data::Missing => vec![],
                    F08Data::Hostile(received_amount, maximum_amount) => AmountTooLarge {
                        received_amount,
                        maximum_amount,
                    }
                    .to_bytes()
                    .to_vec(),
                };
                reject(ErrorCode::F08_AMOUNT_TOO_LARGE, &data)
            } else if behaviour.liquidity.is_some_and(|most| in_flight > most) {
                reject(ErrorCode::T04_INSUFFICIENT_LIQUIDITY, &[])
            } else if behaviour
                .packets_per_10_ms
                .is_some_and(|most| slot.1 > most)
            {
                reject(ErrorCode::T05_RATE_LIMITED, &[])
            } else if arriving == 0 && amount > 0 && behaviour.r01 {
                reject(ErrorCode::R01_INSUFFICIENT_SOURCE_AMOUNT, &[])
            } else {
                prepare.set_amount(arriving);
                let answer = receiver.handle_prepare(&mut rng, account.as_ref(), &prepare);
                if let Some(it) = answer.received {
                    received += it.amount;
                    sent += amount;
                    fulfilled_before_probe_reply |= !any_reply;
                }
                answer.packet
            };
            let arrival = clock + delay_ms * MS;
            replies.insert((arrival, transmit.id), (amount, reply));
            in_flight_most = in_flight_most.max(replies.len());
        }
        let timeout = sender.poll_timeout();
        match replies.first_key_value() {
            Some((&(at, id), _)) if timeout.is_none_or(|timeout| at <= timeout) => {
                let (amount, reply) = replies.pop_first().unwrap().1;
                clock = clock.max(at);
                in_flight -= amount;
                any_reply = true;
                sender.handle_reply(now(clock), id, &Reply::parse(reply).unwrap());
            }
            _ => match timeout {
                Some(timeout) => {
                    clock = clock.max(timeout);
                    sender.handle_timeout(now(clock));
                }
                None => break,
            },
        }
    }
    assert_eq!(sender.poll_timeout(), None);
    let outcome = sender.outcome().expect("nothing is in flight");
    assert_eq!(outcome.progress.in_flight, 0);
    assert_eq!(outcome.progress.in_flight_count, 0);
    assert_eq!(outcome.progress.sent, sent, "what left is known exactly");
    assert_eq!(
        outcome.progress.delivered, received,
        "what arrived is known exactly"
    );
    if let Some(bytes) = &outcome.receipt {
        let receipt = Receipt::verify(bytes, &receipt.secret).unwrap();
        assert_eq!(receipt.total_received, received);
    } else {
        assert_eq!(received, 0);
    }
    Run {
        outcome,
        received,
        sent,
        elapsed_ms: clock / MS,
        packets,
        in_flight_most,
        fulfilled_before_probe_reply,
    }
}

fn complete(run: &Run) {
    assert_eq!(run.outcome.stopped, None);
    assert!(!run.fulfilled_before_probe_reply);
}

#[test]
fn one_packet_is_enough_where_the_path_has_no_limit() {
    let run = run(Behaviour::default(), Target::Send(5_000_000));
    complete(&run);
    assert_eq!((run.sent, run.received), (5_000_000, 5_000_000));
    assert_eq!(run.outcome.progress.packets_fulfilled, 1);
    let path = run.outcome.path.unwrap();
    assert_eq!((path.asset, path.packet_amount_max), (asset(), None));
}

#[test]
fn ten_thousand_packets_with_ten_milliseconds_of_delay_take_about_a_second() {
    for limit in [None, Some(1000)] {
        let behaviour = Behaviour {
            delay_ms: 10,
            amount_max: limit,
            ..Behaviour::default()
        };
        let run = run_with(behaviour, Target::Send(10_000_000), |config| {
            config.packet_amount_max = Some(1000);
        });
        complete(&run);
        assert_eq!((run.sent, run.received), (10_000_000, 10_000_000));
        assert_eq!(run.outcome.progress.packets_fulfilled, 10_000);
        assert_eq!(run.outcome.progress.packets_rejected, 0);
        assert_eq!(run.in_flight_most, IN_FLIGHT_COUNT_MAX);
        assert!(run.elapsed_ms < 2_000, "{} ms", run.elapsed_ms);
    }
}

#[test]
fn the_window_opens_on_a_path_that_shows_its_limit_late() {
    let behaviour = Behaviour {
        delay_ms: 10,
        amount_max: Some(1000),
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Deliver(10_000_000));
    complete(&run);
    assert_eq!(run.received, 10_000_000);
    assert!(run.elapsed_ms < 2_000, "{} ms", run.elapsed_ms);
}

#[test]
fn rates_and_packet_limits_of_every_size_are_paid_through() {
    for rate in [
        (1, 1),
        (918_160, 1_000_000),
        (1, 3),
        (7, 2),
        (1_000, 1),
        (12_345, 7),
        (9_181, 10_000_000),
    ] {
        for amount_max in [None, Some(50_000), Some(12_347)] {
            for f08_data in [
                F08Data::Exact,
                F08Data::Missing,
                F08Data::Hostile(0, 0),
                F08Data::Hostile(5, 9),
            ] {
                let behaviour = || Behaviour {
                    rate,
                    amount_max,
                    f08_data,
                    ..Behaviour::default()
                };
                let story = format!("{:?}", behaviour());
                let send = run(behaviour(), Target::Send(1_234_567));
                assert_eq!(send.outcome.stopped, None, "{story}");
                // All of it, but for what would arrive as nothing.
                let left = 1_234_567 - send.sent;
                assert!(left * rate.0 < rate.1, "{story}: {left} left");
                let ideal = 1_234_567 * rate.0 / rate.1;
                let lost = ideal - send.received;
                assert!(lost <= 2 + ideal / 500, "{story}: {lost} lost of {ideal}");

                let wanted = 98_765;
                let deliver = run(behaviour(), Target::Deliver(wanted));
                assert_eq!(deliver.outcome.stopped, None, "{story}");
                assert!(deliver.received >= wanted, "{story}");
                let demanded = rate.0.div_ceil(rate.1) - 1;
                let over = deliver.received - wanted;
                assert!(over <= demanded, "{story}: {over} over");
            }
        }
    }
}

#[test]
fn single_units_can_be_sent_and_delivered() {
    for amount in 1..40 {
        let send = run(Behaviour::default(), Target::Send(amount));
        complete(&send);
        assert_eq!((send.sent, send.received), (amount, amount));
        let rate = (9, 10);
        let behaviour = Behaviour {
            rate,
            ..Behaviour::default()
        };
        let deliver = run(behaviour.clone(), Target::Deliver(amount));
        complete(&deliver);
        assert_eq!(deliver.received, amount);
        if amount > 1 {
            let send = run(behaviour, Target::Send(amount));
            complete(&send);
            assert_eq!((send.sent, send.received), (amount, amount * 9 / 10));
        }
    }
}

#[test]
fn no_remainder_is_left_that_the_packets_before_could_have_carried() {
    let behaviour = Behaviour {
        rate: (1, 10),
        amount_max: Some(1_000),
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Send(2_005));
    complete(&run);
    assert_eq!((run.sent, run.received), (2_005, 200));
}

#[test]
fn a_slow_payment_is_not_given_up_while_money_arrives() {
    let behaviour = Behaviour {
        delay_ms: 5_000,
        amount_max: Some(1_000),
        ..Behaviour::default()
    };
    let run = run_with(behaviour, Target::Send(20_000), |config| {
        config.in_flight_count_max = 1;
    });
    complete(&run);
    assert!(run.elapsed_ms > 100_000, "{} ms", run.elapsed_ms);
}

#[test]
fn more_time_is_given_where_a_connector_asks_for_it() {
    let mut pair = Pair::new(Target::Send(1000));
    let (id, prepare) = pair.until_money();
    assert_eq!(prepare.expires_at().ms_since(pair.now.wall), 20_000);
    let reject = RejectBuilder {
        code: ErrorCode::R02_INSUFFICIENT_TIMEOUT,
        triggered_by: None,
        message: "",
        data: &[],
    };
    pair.reply(id, reject.encode().unwrap());
    pair.now.mono_ns = pair.sender.poll_timeout().unwrap();
    let (_, prepare) = pair.prepare().unwrap();
    assert_eq!(prepare.expires_at().ms_since(pair.now.wall), 40_000);
}

#[test]
fn an_amount_that_arrives_as_nothing_is_not_sent() {
    for r01 in [true, false] {
        let behaviour = Behaviour {
            rate: (1, 10),
            r01,
            ..Behaviour::default()
        };
        let run = run(behaviour, Target::Send(9));
        assert_eq!(run.outcome.stopped, Some(Stop::RoundsToZero));
        assert_eq!(run.sent, 0);
    }
}

#[test]
fn packets_too_small_for_the_rate_end_the_payment_before_it_costs_anything() {
    let behaviour = Behaviour {
        rate: (9_181, 10_000_000),
        ..Behaviour::default()
    };
    let run = run_with(behaviour, Target::Send(10_000_000), |config| {
        config.packet_amount_max = Some(1000);
    });
    assert_eq!(
        run.outcome.stopped,
        Some(Stop::PacketsTooSmall {
            packet_amount_max: 1000
        })
    );
    assert_eq!(run.sent, 0);
}

#[test]
fn scarce_liquidity_slows_a_payment_down_and_does_not_stop_it() {
    for amount_max in [None, Some(1_000)] {
        let behaviour = Behaviour {
            liquidity: Some(20_000),
            amount_max,
            delay_ms: 10,
            ..Behaviour::default()
        };
        let run = run(behaviour, Target::Send(2_000_000));
        complete(&run);
        assert_eq!(run.received, 2_000_000);
        assert!(run.elapsed_ms < 20_000, "{} ms", run.elapsed_ms);
        let progress = run.outcome.progress;
        assert!(
            progress.packets_rejected < progress.packets_fulfilled,
            "{progress:?}"
        );
    }
}

#[test]
fn a_rate_limit_slows_a_payment_down_and_does_not_stop_it() {
    let behaviour = Behaviour {
        packets_per_10_ms: Some(5),
        amount_max: Some(1_000),
        delay_ms: 10,
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Send(2_000_000));
    complete(&run);
    assert_eq!(run.received, 2_000_000);
    assert!(run.elapsed_ms < 20_000, "{} ms", run.elapsed_ms);
}

#[test]
fn lost_packets_are_sent_again() {
    let behaviour = Behaviour {
        lost_of_100: 2,
        amount_max: Some(10_000),
        delay_ms: 10,
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Send(2_000_000));
    complete(&run);
    assert_eq!((run.sent, run.received), (2_000_000, 2_000_000));
}

#[test]
fn a_path_that_loses_everything_is_given_up() {
    let behaviour = Behaviour {
        lost_of_100: 100,
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Send(100));
    assert_eq!(
        run.outcome.stopped,
        Some(Stop::NoProgress {
            last: Some(ErrorCode::R00_TRANSFER_TIMED_OUT)
        })
    );
    assert!(run.elapsed_ms <= 60_000, "{} ms", run.elapsed_ms);
}

#[test]
fn a_payment_that_breaks_off_says_exactly_what_was_delivered() {
    for code in [
        ErrorCode::T01_PEER_UNREACHABLE,
        ErrorCode::T04_INSUFFICIENT_LIQUIDITY,
        ErrorCode::F02_UNREACHABLE,
        ErrorCode::R00_TRANSFER_TIMED_OUT,
    ] {
        let behaviour = Behaviour {
            amount_max: Some(1_000),
            delay_ms: 10,
            reject_from: Some((500, code)),
            ..Behaviour::default()
        };
        let run = run(behaviour, Target::Send(2_000_000));
        let stopped = run.outcome.stopped.unwrap();
        match code.to_string().as_str() {
            "F02" | "R00" => assert!(
                matches!(&stopped, Stop::Rejected { code: stopped, message, .. } if *stopped == code && message == "simulated"),
                "{stopped:?}"
            ),
            _ => assert_eq!(stopped, Stop::NoProgress { last: Some(code) }),
        }
        // `run_with` has compared the amounts with the receiver's.
        assert!(run.sent > 400_000 && run.sent < 500_000, "{}", run.sent);
        assert!(run.elapsed_ms < 35_000, "{} ms", run.elapsed_ms);
    }
}

#[test]
fn a_rate_below_the_minimum_costs_nothing() {
    let run = run_with(
        Behaviour {
            rate: (90, 100),
            ..Behaviour::default()
        },
        Target::Send(1_000_000),
        |config| config.rate_min = Some("0.91".parse().unwrap()),
    );
    assert_eq!(
        run.outcome.stopped,
        Some(Stop::RateTooLow {
            sent: 1_000_000,
            received: 900_000
        })
    );
    assert_eq!(
        run.outcome.progress.packets_rejected, 0,
        "only probes went out"
    );
    assert_eq!(run.sent, 0);
}

#[test]
fn the_rate_may_be_exactly_the_minimum_where_nothing_is_rounded() {
    let behaviour = |amount_max| Behaviour {
        rate: (91_816, 100_000),
        amount_max,
        ..Behaviour::default()
    };
    for target in [Target::Send(1_000_000), Target::Deliver(918_160)] {
        let pay = |amount_max, minimum: &str| {
            run_with(behaviour(amount_max), target, |config| {
                config.rate_min = Some(minimum.parse().unwrap());
            })
        };
        for run in [pay(None, "0.91816"), pay(Some(30_000), "0.9181")] {
            complete(&run);
            assert!(run.sent.abs_diff(1_000_000) <= 34, "{}", run.sent);
            assert!(run.received.abs_diff(918_160) <= 34, "{}", run.received);
        }
        let run = pay(Some(30_000), "0.91816");
        assert!(run.outcome.stopped.is_some());
    }
}

#[test]
fn a_small_change_of_the_rate_is_taken_and_a_large_one_stops_the_payment() {
    let changed = |later| Behaviour {
        rate: (1, 1),
        rate_later: Some((300, later)),
        amount_max: Some(1_000),
        delay_ms: 10,
        ..Behaviour::default()
    };
    for rate in [(995, 1000), (1005, 1000), (3, 1)] {
        let send = run(changed(rate), Target::Send(1_000_000));
        complete(&send);
        assert_eq!(send.sent, 1_000_000);
        let deliver = run(changed(rate), Target::Deliver(1_000_000));
        complete(&deliver);
        assert!(deliver.received >= 1_000_000);
    }
    for target in [Target::Send(1_000_000), Target::Deliver(1_000_000)] {
        let run = run(changed((98, 100)), target);
        assert!(
            matches!(run.outcome.stopped, Some(Stop::RateTooLow { .. })),
            "{:?}",
            run.outcome
        );
        assert!(run.received > 200_000);
        assert!(run.elapsed_ms < 30_000, "{} ms", run.elapsed_ms);
    }
}

#[test]
fn small_packets_survive_a_small_change_of_the_rate() {
    // Nine units arrive of a packet, so one less would already be below the minimum.
    let behaviour = Behaviour {
        rate: (918_160, 1_000_000_000),
        rate_later: Some((200, (917_000, 1_000_000_000))),
        amount_max: Some(10_000),
        delay_ms: 10,
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Send(5_000_000));
    complete(&run);
    assert!(run.received >= 4_550, "{}", run.received);
}

#[test]
fn a_path_for_nothing_is_no_path() {
    let behaviour = Behaviour {
        amount_max: Some(0),
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Send(100));
    assert_eq!(
        run.outcome.stopped,
        Some(Stop::PacketsTooSmall {
            packet_amount_max: 0
        })
    );
}

#[test]
fn lying_about_the_largest_packet_only_slows_down() {
    // 1 of 2^64 - 1 leaves nothing of any packet.
    let behaviour = Behaviour {
        amount_max: Some(1_000),
        f08_data: F08Data::Hostile(u64::MAX, 1),
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Send(100_000));
    assert_eq!(
        run.outcome.stopped,
        Some(Stop::PacketsTooSmall {
            packet_amount_max: 0
        })
    );
    assert_eq!(run.sent, 0);
}

#[test]
fn a_probe_moves_no_money_and_leaves_the_connection_open() {
    let behaviour = Behaviour {
        rate: (91_816, 100_000),
        amount_max: Some(30_000),
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Probe);
    complete(&run);
    assert_eq!((run.sent, run.outcome.progress.packets_rejected), (0, 0));
    let path = run.outcome.path.unwrap();
    assert_eq!(
        (path.packet_amount_max, path.asset.clone()),
        (Some(30_000), asset())
    );
    assert_eq!((path.probe_sent, path.probe_received), (30_000, 27_544));
    assert_eq!(path.rate(), Ratio::new(27_544, 30_000).unwrap());
    assert_eq!(run.packets, 6, "five at first, and the largest; no close");
}

#[test]
fn another_asset_than_expected_stops_the_payment_before_it_costs_anything() {
    let run = run_with(Behaviour::default(), Target::Send(100), |config| {
        config.destination_asset = Some(Asset::new("EUR", 9).unwrap());
    });
    assert_eq!(
        run.outcome.stopped,
        Some(Stop::AssetChanged {
            expected: "EUR/9".into(),
            found: "EUR/6".into()
        })
    );
    assert_eq!(run.sent, 0);
}

#[test]
fn nothing_to_pay_is_paid_at_once() {
    for target in [Target::Send(0), Target::Deliver(0)] {
        let run = run(Behaviour::default(), target);
        complete(&run);
        assert_eq!(run.packets, 0);
    }
}

#[test]
fn a_hundred_thousand_packets_keep_no_more_than_the_window() {
    // Nothing else is kept for each packet, so memory does not grow with their number.
    let behaviour = Behaviour {
        amount_max: Some(10),
        delay_ms: 10,
        ..Behaviour::default()
    };
    let run = run(behaviour, Target::Send(1_000_000));
    complete(&run);
    assert_eq!(run.outcome.progress.packets_fulfilled, 100_000);
    assert_eq!(run.in_flight_most, IN_FLIGHT_COUNT_MAX);
}

// ---- Stories in which single replies matter ----

/// A sender and a receiver that talk without anybody between them.
struct Pair {
    rng: ChaCha20Rng,
    now: Now,
    account: Address,
    receiver: Receiver,
    sender: Sender,
}

impl Pair {
    fn new(target: Target) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let account: Address = "example.bob".parse().unwrap();
        let receiver = Receiver::new(&[9; 32], asset(), 16);
        let credentials = receiver.credentials(&mut rng, &account, None).unwrap();
        let now = Now {
            mono_ns: 0,
            wall: Timestamp::from_unix_ms(START),
        };
        let config = SenderConfig::new(
            credentials.shared_secret,
            credentials.destination_account,
            target,
        );
        Self {
            rng,
            now,
            account,
            receiver,
            sender: Sender::new(now, config),
        }
    }

    fn prepare(&mut self) -> Option<(u64, Prepare<Vec<u8>>)> {
        let transmit = self.sender.poll_transmit(self.now, &mut self.rng)?;
        Some((transmit.id, Prepare::parse(transmit.packet).unwrap()))
    }

    fn answer(&mut self, prepare: &Prepare<Vec<u8>>) -> Vec<u8> {
        self.receiver
            .handle_prepare(&mut self.rng, self.account.as_ref(), prepare)
            .packet
    }

    fn reply(&mut self, id: u64, reply: Vec<u8>) {
        self.sender
            .handle_reply(self.now, id, &Reply::parse(reply).unwrap());
    }

    /// Answers probes until the first packet with money.
    fn until_money(&mut self) -> (u64, Prepare<Vec<u8>>) {
        loop {
            let (id, prepare) = self.prepare().unwrap();
            let answer = self.answer(&prepare);
            if Reply::parse(&answer).is_ok_and(|reply| matches!(reply, Reply::Fulfill(_))) {
                return (id, prepare);
            }
            self.reply(id, answer);
        }
    }
}

#[test]
fn a_fulfill_without_readable_data_counts_as_the_minimum() {
    let mut pair = Pair::new(Target::Send(1000));
    let (id, prepare) = pair.until_money();
    let answer = pair.answer(&prepare);
    let Ok(Reply::Fulfill(fulfill)) = Reply::parse(&answer) else {
        panic!()
    };
    let bare = FulfillBuilder {
        fulfillment: fulfill.fulfillment(),
        data: b"noise",
    }
    .encode()
    .unwrap();
    pair.reply(id, bare);
    assert_eq!(
        (
            pair.sender.progress().sent,
            pair.sender.progress().delivered
        ),
        (1000, 990)
    );
}

#[test]
fn a_wrong_fulfillment_is_no_payment() {
    let mut pair = Pair::new(Target::Send(1000));
    let (id, _) = pair.until_money();
    pair.reply(
        id,
        FulfillBuilder {
            fulfillment: [0; 32],
            data: &[],
        }
        .encode()
        .unwrap(),
    );
    assert!(pair.prepare().is_some(), "the close");
    let outcome = pair.sender.outcome().unwrap();
    assert_eq!(
        (outcome.stopped, outcome.progress.sent),
        (Some(Stop::WrongFulfillment), 0)
    );
}

#[test]
fn a_reply_made_for_another_packet_is_as_good_as_no_data() {
    let mut pair = Pair::new(Target::Send(2_000_000));
    let (first, prepare) = pair.prepare().unwrap();
    let (second, other) = pair.prepare().unwrap();
    let (answer, swapped) = (pair.answer(&prepare), pair.answer(&other));
    pair.reply(first, swapped);
    pair.reply(second, answer);
    assert_eq!(pair.sender.path(), None);
}

#[test]
fn stopping_waits_for_what_is_in_flight_and_closes() {
    let mut pair = Pair::new(Target::Send(1000));
    let (id, prepare) = pair.until_money();
    pair.sender.stop();
    assert_eq!(pair.prepare(), None);
    assert_eq!(pair.sender.outcome(), None);
    let answer = pair.answer(&prepare);
    pair.reply(id, answer);
    let (_, close) = pair.prepare().unwrap();
    assert_eq!(close.amount(), 0);
    let outcome = pair.sender.outcome().unwrap();
    assert_eq!(
        (outcome.stopped, outcome.progress.delivered),
        (Some(Stop::Cancelled), 1000)
    );
    assert_eq!(pair.prepare(), None);
}

#[test]
fn after_a_payment_the_receiver_takes_nothing_more() {
    let mut pair = Pair::new(Target::Send(1000));
    let (id, prepare) = pair.until_money();
    let answer = pair.answer(&prepare);
    pair.reply(id, answer);
    let (_, close) = pair.prepare().unwrap();
    pair.answer(&close);
    let again = pair.answer(&prepare);
    assert!(
        matches!(Reply::parse(again), Ok(Reply::Reject(reject)) if reject.code() == ErrorCode::F99_APPLICATION_ERROR)
    );
}

#[test]
fn unknown_and_repeated_replies_are_ignored() {
    let mut pair = Pair::new(Target::Send(1000));
    let (id, prepare) = pair.until_money();
    let answer = pair.answer(&prepare);
    pair.reply(id + 77, answer.clone());
    pair.reply(id, answer.clone());
    pair.reply(id, answer);
    assert_eq!(pair.sender.progress().delivered, 1000);
}

/// A receiver that answers as it is told, made with the connection's keys.
struct Scripted {
    rng: ChaCha20Rng,
    now: Now,
    keys: Keys,
    sender: Sender,
}

impl Scripted {
    fn new(target: Target) -> Self {
        let secret = SharedSecret::from_bytes([5; 32]);
        let keys = Keys::new(secret.as_bytes());
        let now = Now {
            mono_ns: 0,
            wall: Timestamp::from_unix_ms(START),
        };
        let config = SenderConfig::new(secret, "example.bob".parse().unwrap(), target);
        Self {
            rng: ChaCha20Rng::seed_from_u64(2),
            now,
            keys,
            sender: Sender::new(now, config),
        }
    }

    /// The next packet as text, answered with `frames` and, when it can be, with a Fulfill.
    fn step(&mut self, frames: &[Frame<'_>]) -> Option<String> {
        let transmit = self.sender.poll_transmit(self.now, &mut self.rng)?;
        let prepare = Prepare::parse(transmit.packet).unwrap();
        let plaintext = self.keys.open(prepare.data()).unwrap();
        let packet = Packet::parse(&plaintext).unwrap();
        let said: Vec<_> = packet
            .frames()
            .map(|frame| format!("{:?}", frame.unwrap()))
            .collect();
        let fulfillment = self.keys.fulfillment(prepare.data());
        let fulfillable = condition(&fulfillment) == prepare.condition();
        let packet_type = if fulfillable {
            PacketType::Fulfill
        } else {
            PacketType::Reject
        };
        let reply = PacketBuilder {
            packet_type,
            sequence: packet.sequence,
            prepare_amount: prepare.amount(),
            frames,
        };
        let data = self.keys.seal(&mut self.rng, &reply.encode());
        let reply = if fulfillable {
            FulfillBuilder {
                fulfillment,
                data: &data,
            }
            .encode()
        } else {
            RejectBuilder {
                code: ErrorCode::F99_APPLICATION_ERROR,
                triggered_by: None,
                message: "",
                data: &data,
            }
            .encode()
        };
        self.sender.handle_reply(
            self.now,
            transmit.id,
            &Reply::parse(reply.unwrap()).unwrap(),
        );
        Some(format!(
            "{} for at least {}: {}",
            prepare.amount(),
            packet.prepare_amount,
            said.join(", ")
        ))
    }
}

const ASSET: Frame<'static> = Frame::ConnectionAssetDetails {
    source_asset_code: "EUR",
    source_asset_scale: 6,
};

#[test]
fn a_payment_from_the_first_packet_to_the_last() {
    let mut world = Scripted::new(Target::Send(5_000));
    let address = r#"ConnectionNewAddress { source_account: "" }"#;
    assert_eq!(
        world.step(&[ASSET]),
        Some(format!("1 for at least 0: {address}"))
    );
    assert_eq!(world.step(&[]), Some("1000 for at least 0: ".into()));
    assert_eq!(world.step(&[]), Some("5000 for at least 0: ".into()));
    assert_eq!(
        world.step(&[]),
        Some("5000 for at least 4950: StreamMoney { stream_id: 1, shares: 5000 }".into())
    );
    assert_eq!(
        world.step(&[]),
        Some(r#"0 for at least 0: StreamClose { stream_id: 1, error_code: CloseCode(1), error_message: "" }, ConnectionClose { error_code: CloseCode(1), error_message: "" }"#.into())
    );
    assert_eq!(world.step(&[]), None);
    assert_eq!(world.sender.outcome().unwrap().stopped, None);
}

#[test]
fn a_receiver_that_hides_its_asset_is_asked_again_and_never_paid() {
    let mut world = Scripted::new(Target::Send(1));
    let mut asked = vec![];
    while let Some(said) = world.step(&[]) {
        asked.push(said);
    }
    assert!(asked[0].ends_with(r#"source_account: "" }"#));
    assert!(asked[1].ends_with(r#"source_account: "private.none" }"#));
    assert!(asked[2].ends_with(r#"source_account: "" }"#));
    assert!(asked[3].contains("ConnectionClose"), "{asked:?}");
    assert_eq!(asked.len(), 4);
    let outcome = world.sender.outcome().unwrap();
    assert_eq!(
        (outcome.stopped, outcome.progress.sent),
        (Some(Stop::AssetUnknown), 0)
    );
}

#[test]
fn an_expected_asset_will_do_when_the_receiver_hides_it() {
    let mut world = Scripted::new(Target::Send(1));
    let secret = SharedSecret::from_bytes([5; 32]);
    let mut config = SenderConfig::new(secret, "example.bob".parse().unwrap(), Target::Send(1));
    config.destination_asset = Some(asset());
    config.source_asset = Some(Asset::new("USD", 9).unwrap());
    world.sender = Sender::new(world.now, config);
    assert!(
        world
            .step(&[])
            .unwrap()
            .contains(r#"source_asset_code: "USD", source_asset_scale: 9"#)
    );
    while world.step(&[]).is_some() {}
    let outcome = world.sender.outcome().unwrap();
    assert_eq!((outcome.stopped, outcome.progress.delivered), (None, 1));
}

#[test]
fn an_asset_that_changes_ends_the_connection() {
    let mut world = Scripted::new(Target::Send(5_000));
    world.step(&[ASSET]);
    world.step(&[Frame::ConnectionAssetDetails {
        source_asset_code: "EUR",
        source_asset_scale: 7,
    }]);
    assert!(world.step(&[]).unwrap().contains("CloseCode(8)"));
    assert!(matches!(
        world.sender.outcome().unwrap().stopped,
        Some(Stop::AssetChanged { .. })
    ));
}

#[test]
fn a_receiver_that_closes_is_left_alone() {
    for close in [
        Frame::ConnectionClose {
            error_code: CloseCode::ENDPOINT_BUSY,
            error_message: "",
        },
        Frame::StreamClose {
            stream_id: 1,
            error_code: CloseCode::ENDPOINT_BUSY,
            error_message: "",
        },
    ] {
        let mut world = Scripted::new(Target::Send(5_000));
        world.step(&[ASSET]);
        world.step(&[close]);
        assert_eq!(world.step(&[]), None);
        let stopped = world.sender.outcome().unwrap().stopped;
        assert_eq!(
            stopped,
            Some(Stop::ClosedByReceiver {
                code: CloseCode::ENDPOINT_BUSY
            })
        );
    }
}

#[test]
fn a_receiver_is_never_sent_more_than_it_takes() {
    let limit = |receive_max, total_received| Frame::StreamMaxMoney {
        stream_id: 1,
        receive_max,
        total_received,
    };
    let mut world = Scripted::new(Target::Send(5_000));
    for _ in 0..3 {
        world.step(&[ASSET, limit(2_000, 0)]);
    }
    assert!(
        world
            .step(&[limit(2_000, 2_000)])
            .unwrap()
            .starts_with("2000 for")
    );
    // Until it takes more it is asked now and then.
    for _ in 0..3 {
        let asked = world.step(&[limit(2_000, 2_000)]).unwrap();
        assert!(
            asked.starts_with("0 for at least 0: StreamMoneyBlocked"),
            "{asked}"
        );
        assert_eq!(world.step(&[]), None);
        world.now.mono_ns = world.sender.poll_timeout().unwrap();
    }
    world.step(&[limit(9_000, 2_000)]);
    world.now.mono_ns = world.sender.poll_timeout().unwrap();
    assert!(world.step(&[]).unwrap().starts_with("3000 for"));
    // One that never does is given up.
    let mut world = Scripted::new(Target::Send(5_000));
    for _ in 0..3 {
        world.step(&[ASSET, limit(2_000, 0)]);
    }
    for _ in 0..100 {
        while world.step(&[]).is_some() {}
        if let Some(timeout) = world.sender.poll_timeout() {
            world.now.mono_ns = timeout;
        }
    }
    let outcome = world.sender.outcome().unwrap();
    assert_eq!(
        (outcome.progress.sent, outcome.stopped),
        (
            2_000,
            Some(Stop::NoProgress {
                last: Some(ErrorCode::F99_APPLICATION_ERROR)
            })
        )
    );
}

#[test]
fn a_connection_ends_before_its_packet_numbers_do() {
    let mut world = Scripted::new(Target::Send(5_000));
    for _ in 0..3 {
        world.step(&[ASSET]);
    }
    world.sender.use_up_sequences();
    assert!(world.step(&[]).unwrap().contains("ConnectionClose"));
    assert_eq!(
        world.sender.outcome().unwrap().stopped,
        Some(Stop::SequencesUsedUp)
    );
}

#[test]
fn the_receipt_with_the_largest_total_is_kept() {
    let receipt = |total_received| {
        Receipt {
            nonce: [3; 16],
            stream_id: 1,
            total_received,
        }
        .encode(&ReceiptSecret::from_bytes([4; 32]))
    };
    let (less, more) = (receipt(5), receipt(10));
    let frame = |receipt| Frame::StreamReceipt {
        stream_id: 1,
        receipt,
    };
    let mut world = Scripted::new(Target::Send(5_000));
    for _ in 0..3 {
        world.step(&[ASSET]);
    }
    world.step(&[frame(&more), frame(&less), frame(b"noise")]);
    world.step(&[]);
    assert_eq!(world.sender.outcome().unwrap().receipt, Some(more.to_vec()));
}
