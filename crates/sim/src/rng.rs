//! The one source of randomness of a run.

use std::collections::VecDeque;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};

/// Draws everything that a run decides by chance: from a seed, or from a fuzzer's bytes as long as
/// there are any and from a seed made of them afterwards.
pub(crate) struct Rng {
    bytes: VecDeque<u8>,
    generator: ChaCha20Rng,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            bytes: VecDeque::new(),
            generator: ChaCha20Rng::seed_from_u64(seed),
        }
    }

    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        // FNV-1a: the same on every machine.
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Self {
            bytes: bytes.iter().copied().collect(),
            ..Self::new(bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix))
        }
    }

    /// A generator of its own, for a node or for another part of the plan.
    pub(crate) fn fork(&mut self) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(self.generator.next_u64())
    }

    /// Less than `end`, which is not 0. The bias of the remainder does not matter here.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if self.bytes.is_empty() {
            return self.generator.next_u64() % end;
        }
        // As few bytes as tell all numbers apart, so that a changed byte changes one decision.
        let count = (u64::BITS - (end - 1).leading_zeros()).div_ceil(8);
        let taken = (0..count).filter_map(|_| self.bytes.pop_front());
        taken.fold(0, |number, byte| number << 8 | u64::from(byte)) % end
    }

    /// In `from..=to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// An index into `len` things.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("it is less than a usize")
    }

    /// `count` of the numbers below `end`, or all of them, in any order.
    pub(crate) fn some(&mut self, end: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<_> = (0..end).collect();
        let chosen = (0..count.min(end)).map(|_| all.swap_remove(self.index(all.len())));
        chosen.collect()
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// As many small numbers as large ones: up to ten to the power of `digits_max`.
    pub(crate) fn magnitude(&mut self, digits_max: u32) -> u64 {
        let digits = u32::try_from(self.below(u64::from(digits_max))).expect("few digits");
        self.between(10_u64.pow(digits), 10_u64.pow(digits + 1))
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.generator.fill_bytes(&mut bytes);
        bytes
    }
}
