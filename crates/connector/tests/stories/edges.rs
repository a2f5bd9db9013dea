//! The edges of arithmetic through the whole core: each packet is converted exactly, or refused with
//! the code that says why; and balances add up far beyond what one packet can carry.

use bytes::Bytes;
use num_bigint::BigUint;
use proptest::{prelude::*, sample::select};
use rialto_connector::{Action, Input, LinkId, RequestId, Settings, adjust::AdjustmentRequest};
use rialto_ledger::Rate;
use rialto_packet::{FulfillBuilder, Prepare, Reply};

use crate::{
    node::{Node, prepare_bytes, sha256},
    story::account,
};

const AMOUNTS: [u64; 8] = [
    0,
    1,
    (1 << 53) - 1,
    1 << 53,
    (1 << 53) + 1,
    100_000_000_000_000_000,
    1 << 63,
    u64::MAX,
];

const FULFILLMENT: [u8; 32] = [7; 32];

/// The most credit there is: for one packet of any amount.
const BALANCE_MIN: i128 = -(u64::MAX as i128);

/// Alice pays bob in another asset at `mantissa * 10^exponent`.
struct World {
    node: Node,
    alice: LinkId,
    bob: LinkId,
    last_request: u64,
    /// Units of bob's for one of alice's, as a fraction.
    rate: (BigUint, BigUint),
}

impl World {
    fn new(mantissa: u64, exponent: i32, scales: [u8; 2]) -> Self {
        let mut node = Node::new(Settings::new("g.hub".parse().unwrap()));
        let [alice, bob] = [("alice", "FROM"), ("bob", "TO")].map(|(name, code)| {
            let scale = scales[usize::from(name == "bob")];
            let mut settings = account(name, &format!("{code}/{scale}"));
            settings.limits.balance_min = BALANCE_MIN;
            settings.ilp_address = Some(format!("g.{name}").parse().unwrap());
            node.step(|core, _, out| core.account_create(settings, out))
                .0
                .unwrap()
        });
        let digits = usize::try_from(exponent.unsigned_abs()).unwrap();
        let text = if exponent >= 0 {
            format!("{mantissa}{}", "0".repeat(digits))
        } else {
            let padded = format!("{mantissa:0>width$}", width = digits + 1);
            let (whole, fraction) = padded.split_at(padded.len() - digits);
            format!("{whole}.{fraction}")
        };
        let rate = Rate {
            rate: text,
            spread: None,
            valid_until_ms: None,
            set_at_ms: None,
        };
        node.step(|core, _, out| core.rate_put("FROM", "TO", rate, out))
            .0
            .unwrap();
        let ten_to = |power: u32| BigUint::from(10u8).pow(power);
        let (up, down) = match exponent >= 0 {
            true => (ten_to(exponent.unsigned_abs()), 1u8.into()),
            false => (1u8.into(), ten_to(exponent.unsigned_abs())),
        };
        let rate = (
            mantissa * up * ten_to(scales[1].into()),
            down * ten_to(scales[0].into()),
        );
        let (alice, bob) = (node.link_up(alice).0, node.link_up(bob).0);
        Self {
            node,
            alice,
            bob,
            last_request: 0,
            rate,
        }
    }

    /// Sends a packet, which bob fulfills: what he got, or code and reason of the refusal.
    fn send(&mut self, amount: u64) -> Result<u64, String> {
        self.last_request += 1;
        let expires_at = self.node.now.wall.plus_ms(20_000);
        let packet = prepare_bytes(amount, expires_at, sha256(&FULFILLMENT), "g.bob.x", &[]);
        let effects = self.node.handle(Input::Prepare {
            account: self.node.id("alice"),
            link: self.alice,
            request: RequestId(self.last_request),
            packet: packet[..].into(),
        });
        let mut forwarded = None;
        for effect in effects {
            match effect.action {
                Action::Forward {
                    request, packet, ..
                } => {
                    let packet = Prepare::parse(&packet[..]).unwrap();
                    forwarded = Some((request, packet.amount()));
                }
                Action::Answer { packet, .. } => {
                    let Ok(Reply::Reject(reject)) = Reply::parse(packet) else {
                        panic!("nobody fulfilled it");
                    };
                    let message = reject.message();
                    let reason = message.split(':').next().unwrap_or_default();
                    return Err(format!("{} {reason}", reject.code()));
                }
                Action::Disconnect { .. } | Action::Engine { .. } | Action::Report(_) => {}
            }
        }
        let (request, amount_out) = forwarded.unwrap();
        let fulfill = FulfillBuilder {
            fulfillment: FULFILLMENT,
            data: &[],
        };
        let packet = Bytes::from(fulfill.encode().unwrap());
        self.node.handle(Input::Reply {
            link: self.bob,
            request,
            packet,
        });
        self.node.sync();
        Ok(amount_out)
    }

    /// Alice pays her debt outside, so that her credit is there for the next packet.
    fn pay_back(&mut self, amount: i128) {
        if amount == 0 {
            return;
        }
        let request = AdjustmentRequest {
            account: "alice".to_owned(),
            amount,
            reason: "paid".to_owned(),
            idempotency_key: self.last_request.to_string(),
        };
        let adjust = |core: &mut rialto_connector::Connector, now, out: &mut _| {
            core.account_adjust(now, request, out)
        };
        self.node.step(adjust).0.unwrap();
        self.node.sync();
        assert_eq!(self.node.balance("alice"), 0);
    }

    /// The same by plain fractions.
    fn expected(&self, amount: u64) -> Result<u64, String> {
        let out = amount * &self.rate.0 / &self.rate.1;
        match u64::try_from(out) {
            Ok(0) if amount > 0 => Err("R01 fx.rounds_to_zero".to_owned()),
            Ok(out) => Ok(out),
            Err(_) => Err("F08 fx.overflow".to_owned()),
        }
    }

    /// Sends these, and compares each answer and the balances after it.
    fn check(&mut self, amounts: &[u64]) -> [u64; 2] {
        let (mut arrived, mut counts) = (self.node.balance("bob"), [0, 0]);
        for amount in amounts {
            let (found, expected) = (self.send(*amount), self.expected(*amount));
            assert_eq!(found, expected, "{amount} at {:?}", self.rate);
            counts[usize::from(found.is_err())] += 1;
            let paid = i128::from(if found.is_ok() { *amount } else { 0 });
            arrived += i128::from(found.unwrap_or(0));
            let balances = (self.node.balance("alice"), self.node.balance("bob"));
            assert_eq!(balances, (-paid, arrived));
            self.pay_back(paid);
        }
        counts
    }
}

#[test]
fn every_edge_is_exact_or_refused_with_its_code() {
    let mut sum = [0, 0];
    for exponent in -18..=18 {
        for from_scale in [0, 9, 18, 255] {
            for to_scale in [0, 9, 18, 255] {
                let counts = World::new(1, exponent, [from_scale, to_scale]).check(&AMOUNTS);
                sum = [sum[0] + counts[0], sum[1] + counts[1]];
            }
        }
    }
    assert!(sum.iter().all(|count| *count > 1_000), "{sum:?}");
    println!(
        "reliability: arithmetic | {} packets of edge amounts at rates 10^-18 to 10^18, scales 0 to \
         255, through the core: {} exact, {} refused with the right code | 0 units wrong",
        sum[0] + sum[1],
        sum[0],
        sum[1]
    );
}

#[test]
fn the_last_amount_that_fits_and_the_first_that_does_not() {
    // To 2^64 - 2 and 2^64, and to 2^64 - 1 and 2^64 + 2.
    for (rate, last) in [(2, (1 << 63) - 1), (3, u64::MAX / 3)] {
        let counts = World::new(rate, 0, [9, 9]).check(&[last, last + 1]);
        assert_eq!(counts, [1, 1], "{rate}");
    }
}

#[test]
fn balances_go_far_beyond_64_bits() {
    const PACKETS: usize = 100;
    let mut world = World::new(1, 0, [0, 0]);
    world.check(&[u64::MAX; PACKETS]);
    let sum = i128::from(u64::MAX) * PACKETS as i128;
    assert_eq!(world.node.balance("bob"), sum);
    // Over a restart, too, from records and from a checkpoint.
    for from_checkpoint in [false, true] {
        world.node.restart(from_checkpoint);
        let balances = (world.node.balance("alice"), world.node.balance("bob"));
        assert_eq!(balances, (0, sum));
    }
    println!(
        "reliability: arithmetic | {PACKETS} packets of 2^64 - 1 units to one account, over restarts from \
         records and from a checkpoint | 0 units wrong"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_packet_at_any_rate_between_any_scales(
        mantissa in prop_oneof![Just(1), 1..u64::MAX],
        exponent in -18..=18i32,
        scales: [u8; 2],
        amounts in prop::collection::vec(prop_oneof![select(&AMOUNTS[..]), any::<u64>()], 1..12),
    ) {
        World::new(mantissa, exponent, scales).check(&amounts);
    }

    #[test]
    fn usual_rates_between_near_scales(
        mantissa in 1..1_000_000u64,
        exponent in -6..=0i32,
        from_scale in 0..20u8,
        distance in -3..=3i16,
        amounts in prop::collection::vec(prop_oneof![select(&AMOUNTS[..]), any::<u64>()], 1..12),
    ) {
        let to_scale = u8::try_from(i16::from(from_scale) + distance).unwrap_or_default();
        World::new(mantissa, exponent, [from_scale, to_scale]).check(&amounts);
    }
}
