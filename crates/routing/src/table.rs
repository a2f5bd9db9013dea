//! Values by prefix.

use std::hash::Hasher;

use hashbrown::HashTable;
use rialto_packet::Addr;
use siphasher::sip::SipHasher13;
use smol_str::SmolStr;

/// Parts of a table. Each grows alone, so that no insertion ever moves more than a small part: with a
/// million prefixes, a few hundred.
pub const SHARDS: usize = 8192;

/// Of one word of marks.
const BITS: usize = 64;

#[derive(Debug, Clone)]
struct Entry<V> {
    prefix: SmolStr,
    value: V,
}

/// The entry stands elsewhere: between two of its growths a hash table is half empty, and what is empty
/// then is a pointer and not an entry. Its hash stands here, so that a growth looks at no entry.
#[derive(Debug, Clone)]
struct Slot<V> {
    hash: u64,
    entry: Box<Entry<V>>,
}

impl<V> Slot<V> {
    fn is(&self, hash: u64, prefix: &str) -> bool {
        self.hash == hash && self.entry.prefix == prefix
    }
}

type Shard<V> = HashTable<Slot<V>>;

/// Values by prefix, in hash tables under a secret key: strangers choose the prefixes.
///
/// A look-up walks over a destination once, from its scheme down, and probes the table at each dot that
/// some prefix could end at. It takes as long for a million prefixes as for ten, but for the caches.
#[derive(Debug, Clone)]
pub struct Table<V> {
    key: [u64; 2],
    shards: Box<[Shard<V>]>,
    /// A bit for each part that is not empty: a small table is walked through as fast as its size says.
    used: Box<[u64]>,
    len: usize,
    /// Prefixes by their number of segments.
    depths: Vec<u32>,
}

impl<V> Table<V> {
    /// Empty. `key` is drawn at random where strangers choose prefixes.
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            key,
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            used: vec![0; SHARDS.div_ceil(BITS)].into(),
            len: 0,
            depths: Vec::new(),
        }
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: &str) -> Option<&V> {
        let hash = hash(self.key, prefix);
        let found = self.shards[shard(hash)].find(hash, |slot| slot.is(hash, prefix));
        found.map(|slot| &slot.entry.value)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, prefix: &str) -> Option<&mut V> {
        let hash = hash(self.key, prefix);
        let found = self.shards[shard(hash)].find_mut(hash, |slot| slot.is(hash, prefix));
        found.map(|slot| &mut slot.entry.value)
    }

    /// Makes room for so many prefixes in all, so that the parts do not grow one by one.
    pub fn reserve(&mut self, len: usize) {
        let each = len.saturating_sub(self.len) / SHARDS;
        for shard in &mut self.shards {
            shard.reserve(each, |slot| slot.hash);
        }
    }

    /// The value of a prefix, made where there is none.
    pub fn put(&mut self, prefix: &str, make: impl FnOnce() -> V) -> &mut V {
        let hash = hash(self.key, prefix);
        let index = shard(hash);
        let entry = self.shards[index].entry(hash, |slot| slot.is(hash, prefix), |slot| slot.hash);
        let occupied = entry.or_insert_with(|| {
            self.len += 1;
            let depth = depth(prefix);
            if self.depths.len() <= depth {
                self.depths.resize(depth + 1, 0);
            }
            self.depths[depth] += 1;
            self.used[index / BITS] |= 1 << (index % BITS);
            let entry = Box::new(Entry {
                prefix: prefix.into(),
                value: make(),
            });
            Slot { hash, entry }
        });
        &mut occupied.into_mut().entry.value
    }

    /// Removes a prefix.
    pub fn remove(&mut self, prefix: &str) -> Option<V> {
        let hash = hash(self.key, prefix);
        let index = shard(hash);
        let found = self.shards[index].find_entry(hash, |slot| slot.is(hash, prefix));
        let (slot, _) = found.ok()?.remove();
        self.len -= 1;
        self.depths[depth(prefix)] -= 1;
        self.mark(index);
        Some(slot.entry.value)
    }

    /// The longest prefix of `destination` whose value `accept`s, and what that gave.
    pub fn longest_match<'a, T>(
        &self,
        destination: Addr<'a>,
        mut accept: impl FnMut(&V) -> Option<T>,
    ) -> Option<(&'a str, T)> {
        let text = destination.as_str();
        let mut found = None;
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        let mut end = 0;
        for count in &self.depths {
            if *count > 0 {
                let (hash, prefix) = (hasher.finish(), &text[..end]);
                let slot = self.shards[shard(hash)].find(hash, |slot| slot.is(hash, prefix));
                if let Some(accepted) = slot.and_then(|slot| accept(&slot.entry.value)) {
                    found = Some((prefix, accepted));
                }
            }
            if end == text.len() {
                break;
            }
            // The next dot, but not the one that `end` stands at.
            let start = end;
            let rest = text[start..].strip_prefix('.').unwrap_or(&text[start..]);
            let skipped = text.len() - start - rest.len();
            // Segments are short: a search by words or vectors would cost more than it saves.
            let dot = rest.bytes().position(|byte| byte == b'.');
            end = start + skipped + dot.unwrap_or(rest.len());
            hasher.write(&text.as_bytes()[start..end]);
        }
        found
    }

    /// Spreads texts evenly, in a way that strangers cannot foresee.
    pub fn spread(&self, text: &str) -> u64 {
        hash(self.key, text)
    }

    /// The prefixes and values of one part, below [`SHARDS`]. In no particular order, which only the
    /// key decides.
    pub fn shard(&self, index: usize) -> impl Iterator<Item = (&SmolStr, &V)> {
        self.shards[index]
            .iter()
            .map(|slot| (&slot.entry.prefix, &slot.entry.value))
    }

    /// Keeps of one part what `keep` says.
    pub fn retain(&mut self, index: usize, mut keep: impl FnMut(&SmolStr, &mut V) -> bool) {
        let (len, depths) = (&mut self.len, &mut self.depths);
        self.shards[index].retain(|slot| {
            let entry = &mut *slot.entry;
            let kept = keep(&entry.prefix, &mut entry.value);
            if !kept {
                *len -= 1;
                depths[depth(&entry.prefix)] -= 1;
            }
            kept
        });
        self.mark(index);
    }

    /// The first part from this one on that is not empty; [`SHARDS`] if there is none.
    pub fn next_shard(&self, from: usize) -> usize {
        let mut mask = u64::MAX << (from % BITS);
        for (word, used) in self.used.iter().enumerate().skip(from / BITS) {
            let found = used & std::mem::replace(&mut mask, u64::MAX);
            if found != 0 {
                return word * BITS + found.trailing_zeros() as usize;
            }
        }
        SHARDS
    }

    /// Something was taken out of this part.
    fn mark(&mut self, index: usize) {
        if self.shards[index].is_empty() {
            self.used[index / BITS] &= !(1 << (index % BITS));
        }
    }

    /// The part that a prefix is in.
    pub fn shard_of(&self, prefix: &str) -> usize {
        shard(hash(self.key, prefix))
    }
}

fn hash(key: [u64; 2], prefix: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    hasher.write(prefix.as_bytes());
    hasher.finish()
}

/// From bits that the hash tables inside do not look at.
#[allow(clippy::cast_possible_truncation)] // the remainder is small
fn shard(hash: u64) -> usize {
    ((hash >> 32) % SHARDS as u64) as usize
}

/// Segments; 0 for the empty prefix.
fn depth(prefix: &str) -> usize {
    if prefix.is_empty() {
        0
    } else {
        1 + prefix.bytes().filter(|byte| *byte == b'.').count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rialto_packet::Addr;

    use super::*;

    fn table(prefixes: &[&str]) -> Table<String> {
        let mut table = Table::new([3, 4]);
        for text in prefixes {
            table.put(text, || (*text).to_owned());
        }
        table
    }

    fn find<'a>(table: &Table<String>, destination: &'a str) -> Option<&'a str> {
        let address = Addr::new(destination).unwrap();
        let (prefix, value) = table.longest_match(address, |value| Some(value.clone()))?;
        assert_eq!(prefix, value);
        Some(prefix)
    }

    #[test]
    fn the_longest_match_by_segments_wins() {
        for (prefixes, destination, expected) in [
            (&["g.a", "g.a.b"][..], "g.a.b.c", Some("g.a.b")),
            (&["g.a", "g.a.b"], "g.a.bc", Some("g.a")),
            (&["g.a"], "g.ab", None),
            (&["test.alice"], "test.alicebob", None),
            (&["test.alice"], "test.alice.bob", Some("test.alice")),
            (&["g"], "g.x", Some("g")),
            (&["", "g.a"], "test.x", Some("")),
            (&["g.a.b"], "g.a", None),
            (&["g.A"], "g.a", None),
            (&["g.a.b.c.d.e"], "g.a.b.c.d.e", Some("g.a.b.c.d.e")),
        ] {
            assert_eq!(
                find(&table(prefixes), destination),
                expected,
                "{destination}"
            );
        }
    }

    #[test]
    fn a_value_that_is_not_accepted_leaves_the_shorter_prefix() {
        let table = table(&["g.a", "g.a.b"]);
        let address = Addr::new("g.a.b.c").unwrap();
        let found = table.longest_match(address, |value| (value != "g.a.b").then_some(()));
        assert_eq!(found, Some(("g.a", ())));
    }

    #[test]
    fn a_removed_prefix_no_longer_matches() {
        let mut table = table(&["g.a", "g.a.b", "g.c"]);
        assert_eq!(table.remove("g.a.b"), Some("g.a.b".to_owned()));
        assert_eq!(table.remove("g.a.b"), None);
        assert_eq!(find(&table, "g.a.b"), Some("g.a"));
        let shard = table.shard_of("g.a");
        table.retain(shard, |prefix, _| prefix != "g.a");
        let left = table.shard_of("g.c");
        assert_eq!(table.next_shard(0), left, "empty ones are passed over");
        assert_eq!(
            (table.next_shard(left), table.next_shard(left + 1)),
            (left, SHARDS)
        );
        assert_eq!(table.next_shard(SHARDS), SHARDS);
        assert_eq!(find(&table, "g.a.b"), None);
        assert_eq!(table.len(), 1);
        assert!(table.get("g.c").is_some() && table.get("g.a").is_none());
    }

    #[test]
    fn the_parts_hold_everything() {
        let names: Vec<_> = (0..10_000).map(|n| format!("g.node{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let table = table(&names);
        let mut seen: Vec<_> = (0..SHARDS)
            .flat_map(|index| table.shard(index).map(move |(prefix, _)| (index, prefix)))
            .inspect(|(index, prefix)| assert_eq!(table.shard_of(prefix), *index))
            .map(|(_, prefix)| prefix.as_str())
            .collect();
        seen.sort_unstable();
        let mut names = names;
        names.sort_unstable();
        assert_eq!(seen, names);
        let largest = (0..SHARDS).map(|index| table.shard(index).count()).max();
        assert!(largest < Some(20), "prefixes are spread: {largest:?}");
    }

    proptest! {
        /// The same as trying every prefix.
        #[test]
        fn equals_a_scan(
            prefixes in prop::collection::vec("(g|test)([.][ab]{1,2}){0,5}", 0..20),
            destination in "(g|test)([.][ab]{1,2}){1,6}",
        ) {
            let refs: Vec<&str> = prefixes.iter().map(String::as_str).collect();
            let address = Addr::new(&destination).unwrap();
            let scan = refs.iter().filter(|prefix| address.starts_with(prefix)).max_by_key(|p| p.len());
            prop_assert_eq!(find(&table(&refs), &destination), scan.copied());
        }
    }
}
