//! Hash tables for very many entries.

use hashbrown::HashTable;

/// Parts of a table. Of a million entries one has a thousand: it moves them in microseconds, and they are in the
/// first cache then.
const PARTS: usize = 1_024;
/// So few are entered as they come.
const FEW: usize = 4 * PARTS;

/// A hash table in parts, each of which grows alone: an entry that comes never moves more than about a thousandth
/// of those that are there, and none of them is looked at for it. Entries are told apart by whoever looks for them.
#[derive(Debug)]
pub struct Shards<T>(Box<[HashTable<Slot<T>>]>);

/// An entry, with the half of its hash that tells where in a part it stands.
#[derive(Debug)]
struct Slot<T> {
    half: u32,
    entry: T,
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self((0..PARTS).map(|_| HashTable::new()).collect())
    }
}

impl<T> Shards<T> {
    /// Number of entries. Looks at every part.
    pub fn len(&self) -> usize {
        self.0.iter().map(HashTable::len).sum()
    }

    /// Whether there are none. Looks at every part.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(HashTable::is_empty)
    }

    /// The entry with this hash that is `wanted`.
    pub fn find(&self, hash: u64, mut wanted: impl FnMut(&T) -> bool) -> Option<&T> {
        let (part, half) = split(hash);
        let is = |slot: &Slot<T>| slot.half == half && wanted(&slot.entry);
        let slot = self.0[part].find(whole(half), is)?;
        Some(&slot.entry)
    }

    /// Enters one, whether or not there is an equal one.
    pub fn insert(&mut self, hash: u64, entry: T) {
        let (part, half) = split(hash);
        put(&mut self.0[part], Slot { half, entry });
    }

    /// Removes the entry with this hash that is `wanted`.
    pub fn remove(&mut self, hash: u64, mut wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let (part, half) = split(hash);
        let is = |slot: &Slot<T>| slot.half == half && wanted(&slot.entry);
        let found = self.0[part].find_entry(whole(half), is).ok()?;
        Some(found.remove().0.entry)
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        for table in &mut self.0 {
            table.reserve(more.div_ceil(PARTS), hash_of);
        }
    }

    /// Enters each with its hash, as [`Self::insert`] does. Very many are entered part by part: memory that is
    /// larger than the caches is then written from its beginning to its end, instead of here and there.
    pub fn extend(&mut self, entries: impl ExactSizeIterator<Item = (u64, T)>) {
        if entries.len() <= FEW {
            return entries.for_each(|(hash, entry)| self.insert(hash, entry));
        }
        // Hashes spread evenly, so that few parts have to grow.
        let each = entries.len() / PARTS;
        let room = each + each / 8 + 32;
        let mut parts: Vec<Vec<Slot<T>>> = Vec::new();
        parts.resize_with(PARTS, || Vec::with_capacity(room));
        for (hash, entry) in entries {
            let (part, half) = split(hash);
            parts[part].push(Slot { half, entry });
        }
        for (table, slots) in self.0.iter_mut().zip(parts) {
            table.reserve(slots.len(), hash_of);
            slots.into_iter().for_each(|slot| put(table, slot));
        }
    }
}

fn put<T>(table: &mut HashTable<Slot<T>>, slot: Slot<T>) {
    table.insert_unique(whole(slot.half), slot, hash_of);
}

/// Which part, and the half of the hash that says where in it.
#[allow(clippy::cast_possible_truncation)] // a remainder below PARTS, and a half
fn split(hash: u64) -> (usize, u32) {
    ((hash >> 32) as usize % PARTS, hash as u32)
}

/// What a table takes for the hash: it looks at the first bits and at the last.
fn whole(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

fn hash_of<T>(slot: &Slot<T>) -> u64 {
    whole(slot.half)
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use rustc_hash::FxBuildHasher;

    use super::*;

    fn hash(number: &u64) -> u64 {
        FxBuildHasher.hash_one(number)
    }

    fn found(table: &Shards<u64>, number: u64) -> bool {
        let is = |other: &u64| *other == number;
        table.find(hash(&number), is).is_some()
    }

    #[test]
    fn entries_are_found_however_they_came_and_until_they_go() {
        for count in [0, 1, FEW as u64, FEW as u64 + 1, 40 * FEW as u64] {
            let mut table = Shards::default();
            let numbered = Vec::from_iter((0..count).map(|number| (hash(&number), number)));
            table.extend(numbered.into_iter());
            for number in count..count + 100 {
                table.insert(hash(&number), number);
            }
            assert_eq!(table.len() as u64, count + 100);
            assert!((0..count + 100).all(|number| found(&table, number)));
            assert!(!found(&table, count + 100));
            for number in 0..count + 100 {
                let removed = table.remove(hash(&number), |other| *other == number);
                assert_eq!(removed, Some(number));
                assert!(!found(&table, number));
            }
            assert!(table.is_empty() && table.remove(hash(&0), |_| true).is_none());
        }
    }

    #[test]
    fn a_part_grows_alone() {
        let mut table = Shards::default();
        let capacities = |table: &Shards<u64>| {
            let each = table.0.iter().map(HashTable::capacity);
            each.collect::<Vec<_>>()
        };
        let mut before = capacities(&table);
        for number in 0..100_000_u64 {
            table.insert(hash(&number), number);
            let after = capacities(&table);
            let grown = before.iter().zip(&after).filter(|(old, new)| old != new);
            assert!(grown.count() <= 1);
            before = after;
        }
        let evenly = |part: &usize| (100_000 / PARTS..4 * 100_000 / PARTS).contains(part);
        assert!(before.iter().all(evenly), "{before:?}");
    }

    #[test]
    fn entries_of_one_hash_are_told_apart() {
        let mut table = Shards::default();
        for number in 0..100_u64 {
            table.insert(7, number);
        }
        assert_eq!(table.find(7, |number| *number == 50), Some(&50));
        assert_eq!(table.remove(7, |number| *number == 50), Some(50));
        assert_eq!(table.find(7, |number| *number == 50), None);
        let (part, half) = split(7);
        assert_eq!((part, half), (0, 7));
        let same_half = 1 << 32 | 7;
        assert_eq!(table.find(same_half, |_| true), None);
    }
}
