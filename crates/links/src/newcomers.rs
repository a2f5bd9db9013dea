//! Connections to this node whose client has not yet said who it is.
//!
//! They are bounded, together and by address. One too many does not wait outside: it takes the place
//! of the oldest, which had time to say something. So strangers who open connections and stay silent
//! do not keep out who has something to say.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

/// How many there may be on one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewcomerLimits {
    /// In all; at least 1.
    pub count_max: usize,
    /// From one IPv4 address or IPv6 network of 64 bits; at least 1.
    pub per_address_max: usize,
}

/// Over all workers.
#[derive(Debug, Default)]
pub struct NewcomerCounters {
    open: AtomicU64,
    displaced: AtomicU64,
}

impl NewcomerCounters {
    /// How many there are.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How many had to make room for another.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }
}

/// Those of one worker.
pub(crate) struct Newcomers {
    limits: NewcomerLimits,
    counters: Arc<NewcomerCounters>,
    table: RefCell<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// By arrival.
    places: BTreeMap<u64, Place>,
    by_source: HashMap<Source, BTreeSet<u64>>,
}

struct Place {
    source: Source,
    /// Of the connection's task.
    waker: Option<Waker>,
}

/// An IPv4 address, or the network that an IPv6 address is in: whoever has one address there mostly
/// has all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Ipv6Addr::from(network).into()
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// A connection's place among the newcomers, as long as it has one.
pub(crate) struct Newcomer {
    number: u64,
    newcomers: Rc<Newcomers>,
}

impl Newcomers {
    pub(crate) fn new(limits: NewcomerLimits, counters: Arc<NewcomerCounters>) -> Self {
        Self {
            limits,
            counters,
            table: RefCell::default(),
        }
    }

    /// Takes a place, perhaps that of another.
    pub(crate) fn enter(self: &Rc<Self>, address: IpAddr) -> Newcomer {
        let table = &mut *self.table.borrow_mut();
        let source = Source::from(address);
        let of_source = table.by_source.get(&source);
        let crowds = of_source.filter(|of| of.len() >= self.limits.per_address_max);
        let oldest = match crowds {
            Some(of_source) => of_source.first().copied(),
            None if table.places.len() >= self.limits.count_max => {
                table.places.first_key_value().map(|(number, _)| *number)
            }
            None => None,
        };
        if let Some(displaced) = oldest.and_then(|oldest| self.leave(table, oldest)) {
            self.counters.displaced.fetch_add(1, Ordering::Relaxed);
            if let Some(waker) = displaced.waker {
                waker.wake();
            }
        }
        let number = table.next;
        table.next += 1;
        let waker = None;
        table.places.insert(number, Place { source, waker });
        table.by_source.entry(source).or_default().insert(number);
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        Newcomer {
            number,
            newcomers: Rc::clone(self),
        }
    }

    /// Gives up a place, if it is still taken.
    fn leave(&self, table: &mut Table, number: u64) -> Option<Place> {
        let place = table.places.remove(&number)?;
        if let Some(of_source) = table.by_source.get_mut(&place.source) {
            of_source.remove(&number);
            if of_source.is_empty() {
                table.by_source.remove(&place.source);
            }
        }
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
        Some(place)
    }
}

impl Newcomer {
    /// Whether another has taken its place.
    pub(crate) fn is_displaced(&self) -> bool {
        let places = &self.newcomers.table.borrow().places;
        !places.contains_key(&self.number)
    }

    /// Wakes this task, and no other, when another takes its place.
    pub(crate) fn register(&self, waker: &Waker) {
        let places = &mut self.newcomers.table.borrow_mut().places;
        if let Some(place) = places.get_mut(&self.number) {
            place.waker = Some(waker.clone());
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let table = &mut *self.newcomers.table.borrow_mut();
        self.newcomers.leave(table, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomers(count_max: usize, per_address_max: usize) -> Rc<Newcomers> {
        let limits = NewcomerLimits {
            count_max,
            per_address_max,
        };
        Rc::new(Newcomers::new(limits, Arc::default()))
    }

    /// Which of them still have their places.
    fn stay(all: &[Newcomer]) -> Vec<bool> {
        all.iter().map(|one| !one.is_displaced()).collect()
    }

    #[test]
    fn one_too_many_takes_the_place_of_the_oldest() {
        let newcomers = newcomers(3, 2);
        let mut all = Vec::new();
        for (address, staying) in [
            ("192.0.2.1", vec![true]),
            ("192.0.2.1", vec![true, true]),
            // Too many of one address, then too many in all.
            ("192.0.2.1", vec![false, true, true]),
            ("192.0.2.2", vec![false, true, true, true]),
            ("192.0.2.3", vec![false, false, true, true, true]),
        ] {
            all.push(newcomers.enter(address.parse().unwrap()));
            assert_eq!(stay(&all), staying, "{address}");
        }
        assert_eq!(newcomers.counters.open(), 3);
        assert_eq!(newcomers.counters.displaced(), 2);
        // Whoever has left made room.
        drop(all.pop());
        all.push(newcomers.enter("192.0.2.1".parse().unwrap()));
        assert_eq!(stay(&all), [false, false, true, true, true]);
        all.clear();
        assert_eq!(newcomers.counters.open(), 0);
        assert!(newcomers.table.borrow().by_source.is_empty());
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let newcomers = newcomers(9, 1);
            let first = newcomers.enter(one.parse().unwrap());
            let _second = newcomers.enter(other.parse().unwrap());
            assert_eq!(stay(&[first]), [!same], "{one} {other}");
        }
    }
}
