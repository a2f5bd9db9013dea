//! Routes that come and go too often are not used for a while.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

/// Withdrawals that make a route a flapping one.
const FLAPPING: u32 = 10;

/// Withdrawals that are remembered: what bounds how long a route that has settled still waits.
const FLAPS_MAX: u32 = 20;

/// One withdrawal is forgotten in this time.
const FORGET_NS: u64 = 5_000_000_000;

/// Routes that are watched at the same time; beyond it, others may flap.
const WATCHED_MAX: usize = 10_000;

type Key<A> = (A, SmolStr);

#[derive(Debug)]
struct Flaps<H> {
    count: u32,
    /// When it is forgotten, or used again.
    until_ns: u64,
    is_damped: bool,
    /// What its neighbour told last, while it is damped.
    held: Option<H>,
}

/// Counts withdrawals by neighbour and prefix. After ten withdrawals within a short time a route is
/// damped: what its neighbour tells of it is held back until it has been quiet.
#[derive(Debug)]
pub struct Damping<A, H> {
    watched: BTreeMap<Key<A>, Flaps<H>>,
    by_time: BTreeSet<(u64, Key<A>)>,
    damped_count: usize,
}

impl<A, H> Default for Damping<A, H> {
    fn default() -> Self {
        Self {
            watched: BTreeMap::new(),
            by_time: BTreeSet::new(),
            damped_count: 0,
        }
    }
}

impl<A: Copy + Ord, H> Damping<A, H> {
    /// A route was withdrawn. Says whether it has just become a flapping one.
    pub fn withdrawn(&mut self, now_ns: u64, hop: A, prefix: &SmolStr) -> bool {
        let key = (hop, prefix.clone());
        if self.watched.len() >= WATCHED_MAX && !self.watched.contains_key(&key) {
            return false;
        }
        let flaps = self.watched.entry(key.clone()).or_insert(Flaps {
            count: 0,
            until_ns: 0,
            is_damped: false,
            held: None,
        });
        self.by_time.remove(&(flaps.until_ns, key.clone()));
        let left = flaps.until_ns.saturating_sub(now_ns).div_ceil(FORGET_NS);
        flaps.count = u32::try_from(left).unwrap_or(0).min(flaps.count) + 1;
        flaps.count = flaps.count.min(FLAPS_MAX);
        flaps.until_ns = now_ns.saturating_add(u64::from(flaps.count) * FORGET_NS);
        flaps.held = None;
        let is_new = flaps.count >= FLAPPING && !flaps.is_damped;
        flaps.is_damped |= is_new;
        self.damped_count += usize::from(is_new);
        self.by_time.insert((flaps.until_ns, key));
        is_new
    }

    /// A route was told. `None` when it is damped and was held back; otherwise it comes back to be used.
    pub fn told(&mut self, hop: A, prefix: &SmolStr, route: H) -> Option<H> {
        if self.watched.is_empty() {
            return Some(route);
        }
        match self.watched.get_mut(&(hop, prefix.clone())) {
            Some(flaps) if flaps.is_damped => {
                flaps.held = Some(route);
                None
            }
            Some(_) | None => Some(route),
        }
    }

    /// Whether a route is held back.
    pub fn is_damped(&self, hop: A, prefix: &str) -> bool {
        let flaps = self.watched.get(&(hop, prefix.into()));
        flaps.is_some_and(|flaps| flaps.is_damped)
    }

    /// Routes that are damped.
    pub fn damped_count(&self) -> usize {
        self.damped_count
    }

    /// The next route that has been quiet for long enough, and what was told of it last.
    pub fn pop_settled(&mut self, now_ns: u64) -> Option<(A, SmolStr, Option<H>)> {
        let (until_ns, _) = self.by_time.first()?;
        if *until_ns > now_ns {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        let flaps = self.watched.remove(&key)?;
        self.damped_count -= usize::from(flaps.is_damped);
        Some((key.0, key.1, flaps.held))
    }

    /// When the next route settles.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.by_time.first().map(|(until_ns, _)| *until_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_route_waits_until_it_was_quiet() {
        let mut damping = Damping::default();
        let prefix = SmolStr::new("g.flappy");
        let mut became = 0;
        for flap in 0..1000 {
            assert_eq!(
                damping.told(1, &prefix, flap).is_some(),
                flap < i32::try_from(FLAPPING).unwrap()
            );
            became += i32::from(damping.withdrawn(0, 1, &prefix));
        }
        assert_eq!((became, damping.damped_count()), (1, 1), "told once");
        assert_eq!(damping.told(1, &prefix, 7), None);
        assert_eq!(
            damping.told(2, &prefix, 7),
            Some(7),
            "somebody else's is another route"
        );
        let until_ns = u64::from(FLAPS_MAX) * FORGET_NS;
        assert_eq!(damping.poll_timeout(), Some(until_ns));
        assert_eq!(damping.pop_settled(until_ns - 1), None);
        assert_eq!(
            damping.pop_settled(until_ns),
            Some((1, prefix.clone(), Some(7)))
        );
        assert_eq!(damping.poll_timeout(), None);
        assert_eq!(damping.told(1, &prefix, 8), Some(8));
    }

    #[test]
    fn now_and_then_is_no_flapping() {
        let mut damping: Damping<u32, ()> = Damping::default();
        for minute in 0..1000 {
            assert!(!damping.withdrawn(minute * FORGET_NS, 1, &SmolStr::new("g.a")));
        }
    }

    #[test]
    fn only_so_many_are_watched() {
        let mut damping: Damping<u32, ()> = Damping::default();
        for n in 0..2 * WATCHED_MAX {
            damping.withdrawn(0, 1, &SmolStr::new(format!("g.n{n}")));
        }
        assert_eq!(damping.watched.len(), WATCHED_MAX);
        while damping.pop_settled(FORGET_NS).is_some() {}
        assert!(damping.watched.is_empty() && damping.by_time.is_empty());
    }
}
