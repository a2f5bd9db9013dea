//! Nodes that nobody invited: how many may wait, how long, and how many are not listened to.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rialto_connector::{
    Connector, Effects, Now, PeeringBounds, PeeringStand, Settings, command::CommandErrorKind,
};
use rialto_ledger::{BLOCKED_MAX, Limits, PeeringRequest, PeeringVerdict, TokenHash};
use rialto_packet::Timestamp;

const HOUR_MS: i64 = 3_600_000;
const BOUNDS: PeeringBounds = PeeringBounds {
    count_max: 3,
    per_source_max: 2,
};

struct Node {
    core: Connector,
    out: Effects,
    now_ms: i64,
}

impl Node {
    fn new() -> Self {
        let settings = Settings::new("test.own".parse().unwrap());
        Self {
            core: Connector::new(settings, [7; 32], ChaCha20Rng::from_seed([1; 32])),
            out: Effects::default(),
            now_ms: 1_900_000_000_000,
        }
    }

    fn now(&self) -> Now {
        Now {
            mono_ns: 0,
            wall: Timestamp::from_unix_ms(self.now_ms),
        }
    }

    /// Request `number`, from `from`, which waits for an hour.
    fn ask(&mut self, number: u8, from: &str) -> Result<PeeringStand, CommandErrorKind> {
        let request = PeeringRequest {
            hash: TokenHash([number; 32]),
            from: from.to_owned(),
            ilp_address: format!("test.stranger{number}").parse().unwrap(),
            url: format!("https://stranger{number}.example/ilp"),
            asset: "USD/9".parse().unwrap(),
            name: String::new(),
            created_at_ms: self.now_ms,
            expires_at_ms: self.now_ms + HOUR_MS,
            verdict: None,
        };
        let now = self.now();
        let asked = self.core.peering_ask(now, request, BOUNDS, &mut self.out);
        asked.map_err(|error| error.kind)
    }

    fn approve(&mut self, number: u8, until_ms: i64) {
        let (now, hash) = (self.now(), TokenHash([number; 32]));
        let verdict = PeeringVerdict::Approved {
            name: None,
            limits: Limits::default(),
        };
        let decided = self
            .core
            .peering_decide(now, hash, verdict, Some(until_ms), &mut self.out);
        decided.unwrap();
    }
}

#[test]
fn only_so_many_requests_wait_and_none_for_ever() {
    let mut node = Node::new();
    let new = Ok(PeeringStand::Waits { is_new: true });
    let again = Ok(PeeringStand::Waits { is_new: false });
    let busy = Err(CommandErrorKind::Busy);
    assert_eq!(node.ask(1, "192.0.2.1"), new);
    assert_eq!(node.ask(1, "192.0.2.1"), again);
    assert_eq!(node.ask(2, "192.0.2.1"), new);
    assert_eq!(node.ask(3, "192.0.2.1"), busy, "of one source");
    assert_eq!(node.ask(3, "192.0.2.2"), new);
    assert_eq!(node.ask(4, "192.0.2.3"), busy, "of all");
    node.now_ms += HOUR_MS;
    assert_eq!(node.ask(1, "192.0.2.1"), new, "it was forgotten");
    assert_eq!(node.core.ledger().peering_requests().count(), 1);
}

#[test]
fn an_approved_request_waits_for_its_asker_as_long_as_was_said() {
    let mut node = Node::new();
    node.ask(1, "192.0.2.1").unwrap();
    node.approve(1, node.now_ms + 2 * HOUR_MS);
    node.now_ms += 2 * HOUR_MS - 1;
    let stand = node.ask(1, "192.0.2.1").unwrap();
    assert!(matches!(stand, PeeringStand::Approved(_)));
    node.now_ms += 1;
    let stand = node.ask(1, "192.0.2.1");
    assert_eq!(stand, Ok(PeeringStand::Waits { is_new: true }));
}

#[test]
fn only_so_many_tokens_are_blocked() {
    let mut node = Node::new();
    let hash = |number: usize| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        TokenHash(hash)
    };
    for number in 0..BLOCKED_MAX {
        node.core.caller_block(hash(number), &mut node.out).unwrap();
    }
    let more = node.core.caller_block(hash(BLOCKED_MAX), &mut node.out);
    assert_eq!(more.unwrap_err().kind, CommandErrorKind::Busy);
    node.core.caller_unblock(hash(0), &mut node.out).unwrap();
    node.core
        .caller_block(hash(BLOCKED_MAX), &mut node.out)
        .unwrap();
}
