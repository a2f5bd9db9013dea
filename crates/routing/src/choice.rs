//! The routes for one prefix, and which of them is taken.

use std::{cmp::Ordering, sync::Arc};

/// Where a route came from. An earlier one wins over a later one for the same prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Set by the operator.
    Static,
    /// The node's own address.
    Own,
    /// The address of an account.
    Account,
    /// The parent takes what nobody else does.
    Parent,
    /// Told by a neighbour.
    Learnt,
}

/// What the neighbour that a route leads to is to us. An earlier one wins over a later one: it is
/// cheaper to reach a customer than an equal, and dearest to ask a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kin {
    /// Gets its address from us, or is served by us.
    Child,
    /// An equal.
    Peer,
    /// Gives us our address.
    Parent,
}

/// One way to go for a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<A> {
    /// The account that packets go to.
    pub hop: A,
    /// Which of the states of its neighbour's table it belongs to; see [`Candidates::choose`].
    pub table: u32,
    /// Where it came from.
    pub source: Source,
    /// What the neighbour is to us.
    pub kin: Kin,
    /// Nodes on the path after us, as far as known.
    pub hop_count: u8,
    /// Share of the destinations among static routes for one prefix. 0 is a reserve.
    pub weight: u16,
    /// The path as its neighbour told it.
    pub path: Option<Arc<[u8]>>,
}

impl<A: Ord> Candidate<A> {
    /// Only static routes differ in weight: a reserve comes last.
    fn preference(&self, other: &Self) -> Ordering {
        self.source
            .cmp(&other.source)
            .then(other.weight.cmp(&self.weight))
            .then(self.kin.cmp(&other.kin))
            .then(self.hop_count.cmp(&other.hop_count))
            .then(self.hop.cmp(&other.hop))
    }
}

/// Why a route was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its neighbour no longer vouches for it.
    Gone,
    /// The route that was taken comes from a better source.
    Source,
    /// The neighbour of the route that was taken is nearer to us.
    Kin,
    /// The path of the route that was taken is shorter.
    Longer,
    /// All else being equal, the older account is taken.
    Account,
    /// Its neighbour is not connected, or failed lately.
    Unwell,
    /// Another part of the destinations goes this way.
    Share,
}

/// The routes for one prefix, the preferred first.
#[derive(Debug, Clone)]
pub struct Candidates<A>(List<A>);

/// Most prefixes have one way to go: it needs no allocation of its own.
#[derive(Debug, Clone)]
enum List<A> {
    One(Candidate<A>),
    Many(Vec<Candidate<A>>),
}

impl<A> Default for Candidates<A> {
    fn default() -> Self {
        Self(List::Many(Vec::new()))
    }
}

impl<A: Copy + Ord> Candidates<A> {
    /// All of them, the preferred first.
    pub fn all(&self) -> &[Candidate<A>] {
        match &self.0 {
            List::One(one) => std::slice::from_ref(one),
            List::Many(many) => many,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// The one that leads to `hop` from this source.
    pub fn get(&self, hop: A, source: Source) -> Option<&Candidate<A>> {
        let mut all = self.all().iter();
        all.find(|one| one.hop == hop && one.source == source)
    }

    /// Adds one, in place of the one that leads to the same account from the same source. Says whether
    /// anything changed.
    pub fn put(&mut self, new: Candidate<A>) -> bool {
        if self.get(new.hop, new.source) == Some(&new) {
            return false;
        }
        self.retain(|old| old.hop != new.hop || old.source != new.source);
        let mut many = match std::mem::take(self).0 {
            List::One(one) => vec![one],
            List::Many(many) if many.is_empty() => {
                self.0 = List::One(new);
                return true;
            }
            List::Many(many) => many,
        };
        let at = many.partition_point(|old| old.preference(&new) == Ordering::Less);
        many.insert(at, new);
        self.0 = List::Many(many);
        true
    }

    /// Keeps what `keep` says. Says whether anything went.
    pub fn retain(&mut self, mut keep: impl FnMut(&Candidate<A>) -> bool) -> bool {
        let before = self.all().len();
        match &mut self.0 {
            List::One(one) => {
                if !keep(one) {
                    *self = Self::default();
                }
            }
            List::Many(many) => {
                many.retain(|one| keep(one));
                if many.len() == 1
                    && let Some(one) = many.pop()
                {
                    self.0 = List::One(one);
                }
            }
        }
        self.all().len() < before
    }

    /// The one that others are told of: the most preferred whose neighbour still vouches for it.
    pub fn best(&self, is_alive: impl Fn(&Candidate<A>) -> bool) -> Option<&Candidate<A>> {
        self.all().iter().find(|one| is_alive(one))
    }

    /// The one that a packet takes, by the hash of its destination: packets for one destination take
    /// the same way as long as it works.
    ///
    /// What the operator set is not overruled by what others tell. Among several static routes, each
    /// gets its share of the destinations; those of one that does not work are shared among the rest,
    /// or go to a reserve. Among learnt routes the preferred one that works is taken. `is_alive` says
    /// whether a neighbour still vouches for what it told, `is_well` whether a next hop works; where
    /// none does, the first choice stands, so that its failure is what the sender hears of.
    pub fn choose(
        &self,
        destination: u64,
        is_alive: impl Fn(&Candidate<A>) -> bool,
        is_well: impl Fn(A) -> bool,
    ) -> Option<&Candidate<A>> {
        let first = self.best(&is_alive)?;
        match first.source {
            Source::Static => Some(self.choose_static(destination, is_well)),
            Source::Own | Source::Account | Source::Parent => Some(first),
            Source::Learnt => {
                let mut learnt = self.all().iter();
                let well = learnt
                    .find(|one| one.source == Source::Learnt && is_alive(one) && is_well(one.hop));
                Some(well.unwrap_or(first))
            }
        }
    }

    fn choose_static(&self, destination: u64, is_well: impl Fn(A) -> bool) -> &Candidate<A> {
        let count = self
            .all()
            .partition_point(|one| one.source == Source::Static);
        let statics = &self.all()[..count];
        let Some(first) = pick(statics.iter(), destination) else {
            return &statics[0];
        };
        if statics.len() == 1 || is_well(first.hop) {
            return first;
        }
        let well = || statics.iter().filter(|one| is_well(one.hop));
        // Turned, so that the destinations of a failed hop spread over the others.
        pick(well(), destination.rotate_left(32)).unwrap_or(first)
    }

    /// Why `one` is not what [`Self::choose`] gave.
    pub fn loss(&self, one: &Candidate<A>, taken: &Candidate<A>, is_alive: bool) -> Loss {
        if !is_alive {
            Loss::Gone
        } else if one.preference(taken) == Ordering::Less {
            match one.source {
                Source::Static => Loss::Share,
                Source::Own | Source::Account | Source::Parent | Source::Learnt => Loss::Unwell,
            }
        } else if one.source != taken.source {
            Loss::Source
        } else if one.source == Source::Static {
            Loss::Share
        } else if one.kin != taken.kin {
            Loss::Kin
        } else if one.hop_count != taken.hop_count {
            Loss::Longer
        } else {
            Loss::Account
        }
    }
}

/// By weight; a reserve only where there is nothing else.
fn pick<'a, A: 'a>(
    ones: impl Iterator<Item = &'a Candidate<A>> + Clone,
    destination: u64,
) -> Option<&'a Candidate<A>> {
    let total: u64 = ones.clone().map(|one| u64::from(one.weight)).sum();
    if total == 0 {
        return ones.clone().next();
    }
    let mut at = destination % total;
    ones.clone().find(|one| {
        let weight = u64::from(one.weight);
        let is_it = at < weight;
        at = at.saturating_sub(weight);
        is_it
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(hop: u32, kin: Kin, hop_count: u8) -> Candidate<u32> {
        Candidate {
            hop,
            table: 0,
            source: Source::Learnt,
            kin,
            hop_count,
            weight: 1,
            path: None,
        }
    }

    fn of_source(hop: u32, source: Source, weight: u16) -> Candidate<u32> {
        Candidate {
            source,
            weight,
            ..learnt(hop, Kin::Peer, 0)
        }
    }

    fn candidates(all: &[Candidate<u32>]) -> Candidates<u32> {
        let mut candidates = Candidates::default();
        for one in all {
            assert!(candidates.put(one.clone()));
            assert!(!candidates.put(one.clone()), "nothing new");
        }
        candidates
    }

    #[test]
    fn the_order_of_preference() {
        // Each wins over all that come after it.
        let order = [
            of_source(9, Source::Static, 1),
            of_source(8, Source::Own, 1),
            of_source(7, Source::Account, 1),
            of_source(6, Source::Parent, 1),
            learnt(5, Kin::Child, 9),
            learnt(3, Kin::Peer, 1),
            learnt(4, Kin::Peer, 1),
            learnt(2, Kin::Peer, 2),
            learnt(1, Kin::Parent, 0),
        ];
        let mut backwards = order.clone();
        backwards.reverse();
        for all in [&order, &backwards] {
            assert_eq!(candidates(all).all(), order);
        }
        let all = candidates(&order);
        let losses: Vec<_> = order[5..]
            .iter()
            .map(|one| all.loss(one, &order[5], true))
            .skip(1)
            .collect();
        assert_eq!(losses, [Loss::Account, Loss::Longer, Loss::Kin]);
        assert_eq!(all.loss(&order[4], &order[0], true), Loss::Source);
        assert_eq!(all.loss(&order[4], &order[5], true), Loss::Unwell);
        assert_eq!(all.loss(&order[4], &order[5], false), Loss::Gone);
    }

    #[test]
    fn a_learnt_route_fails_over_and_a_static_one_is_not_overruled() {
        let all = candidates(&[
            learnt(1, Kin::Peer, 1),
            learnt(2, Kin::Peer, 2),
            learnt(3, Kin::Parent, 1),
        ]);
        let choose = |all: &Candidates<u32>, sick: &[u32], dead: &[u32]| {
            let chosen = all.choose(
                7,
                |one| !dead.contains(&one.hop),
                |hop| !sick.contains(&hop),
            );
            chosen.map(|one| one.hop)
        };
        assert_eq!(choose(&all, &[], &[]), Some(1));
        assert_eq!(choose(&all, &[1], &[]), Some(2));
        assert_eq!(choose(&all, &[1], &[2]), Some(3));
        assert_eq!(
            choose(&all, &[1, 2, 3], &[]),
            Some(1),
            "the first choice stands"
        );
        assert_eq!(choose(&all, &[], &[1, 2, 3]), None);
        let mut all = all;
        all.put(of_source(4, Source::Static, 1));
        assert_eq!(choose(&all, &[4], &[]), Some(4));
    }

    #[test]
    fn destinations_are_shared_by_weight_and_stay_where_they_are() {
        let all = candidates(&[
            of_source(1, Source::Static, 3),
            of_source(2, Source::Static, 1),
            of_source(3, Source::Static, 4),
            of_source(4, Source::Static, 0),
        ]);
        let count = |sick: &[u32]| {
            let mut counts = [0; 5];
            for destination in 0..8_000_u64 {
                // Spread like a hash.
                let hash = destination.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let choose = |sick: &[u32]| {
                    let one = all.choose(hash, |_| true, |hop| !sick.contains(&hop));
                    one.unwrap().hop
                };
                let hop = choose(sick);
                assert_eq!(hop, choose(sick), "always the same");
                let first = choose(&[]);
                assert!(hop == first || sick.contains(&first), "moved without need");
                counts[hop as usize] += 1;
            }
            counts
        };
        let near = |counts: [i32; 5], wanted: [i32; 5]| {
            let mut pairs = counts.into_iter().zip(wanted);
            assert!(
                pairs.all(|(is, wanted)| (is - wanted).abs() < 200),
                "{counts:?}"
            );
        };
        near(count(&[]), [0, 3000, 1000, 4000, 0]);
        near(count(&[3]), [0, 6000, 2000, 0, 0]);
        near(count(&[1, 2, 3]), [0, 0, 0, 0, 8000]);
        near(count(&[1, 2, 3, 4]), [0, 3000, 1000, 4000, 0]);
    }

    #[test]
    fn what_is_taken_out_is_gone() {
        let mut all = candidates(&[learnt(1, Kin::Peer, 1), learnt(2, Kin::Peer, 2)]);
        assert!(all.retain(|one| one.hop != 1));
        assert_eq!(all.all(), [learnt(2, Kin::Peer, 2)]);
        assert!(!all.retain(|one| one.hop != 1));
        assert!(all.retain(|_| false) && all.is_empty());
    }

    #[test]
    fn one_way_to_go_needs_little() {
        assert!(size_of::<Candidates<u32>>() <= 32);
    }
}
