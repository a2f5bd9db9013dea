//! Longest-prefix routing by address segments (RFC 15, RFC 34).
//!
//! `g.a` matches `g.a` and `g.a.b`, never `g.ab`. A look-up probes the prefixes of a destination from
//! the longest down, so it takes as many probes as the destination has segments, however large the
//! table.
//!
//! ```
//! use rialto_packet::Addr;
//! use rialto_routing::PrefixMap;
//!
//! let mut map = PrefixMap::new();
//! map.insert(&"g.a".parse()?, "short");
//! map.insert(&"g.a.b".parse()?, "long");
//! assert_eq!(map.longest_match(Addr::new("g.a.b.c")?), Some(("g.a.b", &"long")));
//! assert_eq!(map.longest_match(Addr::new("g.a.bc")?), Some(("g.a", &"short")));
//! assert_eq!(map.longest_match(Addr::new("g.ab")?), None);
//! # Ok::<(), rialto_packet::AddressError>(())
//! ```

// The order of a hash table must not show in results: the same seed has to give the same run.
#![warn(clippy::iter_over_hash_type)]

use rialto_packet::{Addr, Prefix};
use rustc_hash::FxHashMap;

/// Values by prefix.
#[derive(Debug, Clone)]
pub struct PrefixMap<V> {
    entries: FxHashMap<Box<str>, V>,
    /// Segments of the longest prefix that was ever inserted: longer probes cannot hit.
    segments_max: usize,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self {
            entries: FxHashMap::default(),
            segments_max: 0,
        }
    }
}

impl<V> PrefixMap<V> {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: &Prefix) -> Option<&V> {
        self.entries.get(prefix.as_str())
    }

    /// Sets the value of a prefix and gives back the one it had.
    pub fn insert(&mut self, prefix: &Prefix, value: V) -> Option<V> {
        self.segments_max = self.segments_max.max(segments(prefix.as_str()));
        self.entries.insert(prefix.as_str().into(), value)
    }

    /// Removes a prefix.
    pub fn remove(&mut self, prefix: &Prefix) -> Option<V> {
        self.entries.remove(prefix.as_str())
    }

    /// The longest prefix of `destination` that has a value.
    pub fn longest_match<'a>(&self, destination: Addr<'a>) -> Option<(&'a str, &V)> {
        let mut candidate = destination.as_str();
        for _ in self.segments_max..segments(candidate) {
            candidate = parent(candidate);
        }
        loop {
            if let Some(value) = self.entries.get(candidate) {
                return Some((candidate, value));
            }
            if candidate.is_empty() {
                return None;
            }
            candidate = parent(candidate);
        }
    }
}

/// Without its last segment; empty for a bare scheme.
fn parent(prefix: &str) -> &str {
    prefix.rfind('.').map_or("", |dot| &prefix[..dot])
}

/// 0 for the empty prefix.
fn segments(prefix: &str) -> usize {
    if prefix.is_empty() {
        0
    } else {
        1 + prefix.bytes().filter(|byte| *byte == b'.').count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rialto_packet::{Addr, Prefix};

    use super::PrefixMap;

    fn map(prefixes: &[&str]) -> PrefixMap<String> {
        let mut map = PrefixMap::new();
        for text in prefixes {
            map.insert(&text.parse::<Prefix>().unwrap(), (*text).to_owned());
        }
        map
    }

    #[test]
    fn the_longest_match_by_segments_wins() {
        for (prefixes, destination, expected) in [
            (&["g.a", "g.a.b"][..], "g.a.b.c", Some("g.a.b")),
            (&["g.a", "g.a.b"], "g.a.bc", Some("g.a")),
            (&["g.a"], "g.ab", None),
            (&["g"], "g.x", Some("g")),
            (&["", "g.a"], "test.x", Some("")),
            (&["g.a.b"], "g.a", None),
            (&["g.A"], "g.a", None),
            (&["g.a.b.c.d.e"], "g.a.b.c.d.e", Some("g.a.b.c.d.e")),
        ] {
            let map = map(prefixes);
            let found = map.longest_match(Addr::new(destination).unwrap());
            assert_eq!(found.map(|(prefix, _)| prefix), expected, "{destination}");
        }
    }

    #[test]
    fn a_removed_prefix_no_longer_matches() {
        let mut map = map(&["g.a", "g.a.b"]);
        assert_eq!(
            map.remove(&"g.a.b".parse().unwrap()),
            Some("g.a.b".to_owned())
        );
        assert_eq!(
            map.longest_match(Addr::new("g.a.b").unwrap()).unwrap().0,
            "g.a"
        );
        assert_eq!(map.len(), 1);
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
            let map = map(&refs);
            let found = map.longest_match(address).map(|(prefix, _)| prefix);
            prop_assert_eq!(found, scan.copied());
        }
    }
}
