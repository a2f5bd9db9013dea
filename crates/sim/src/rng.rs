//! The one source of randomness of a run.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};

/// Draws everything that a seed decides.
pub(crate) struct Rng(ChaCha20Rng);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// A generator of its own, for a node or for another part of the plan.
    pub(crate) fn fork(&mut self) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(self.0.next_u64())
    }

    /// Less than `end`, which is not 0. The bias of the remainder does not matter here.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
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
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
