//! Very many entries for one hash table.

/// Parts that a table is seen as. The part of a table for a million entries is then in the first cache.
const PARTS: usize = 1_024;
/// So few are entered as they come.
const FEW: usize = 4 * PARTS;

/// The items in about the order of their places in a hash table that has `places` of them: a table that is
/// larger than the caches is then written from its beginning to its end, instead of here and there. The place
/// of an item is its hash modulo `places`.
pub fn by_place<T>(
    items: Vec<T>,
    places: u64,
    hash_of: impl Fn(&T) -> u64,
) -> impl Iterator<Item = T> {
    let count = if items.len() <= FEW { 1 } else { PARTS };
    let mut parts: Vec<Vec<T>> = Vec::new();
    if count == 1 {
        parts.push(items);
    } else {
        // Hashes spread evenly, so that few parts have to grow.
        let each = items.len() / PARTS;
        let room = each + each / 8 + 32;
        parts.resize_with(PARTS, || Vec::with_capacity(room));
        for item in items {
            parts[part(hash_of(&item), places)].push(item);
        }
    }
    parts.into_iter().flatten()
}

/// Of the part that the place is in.
#[allow(clippy::cast_possible_truncation)] // a quotient below PARTS
fn part(hash: u64, places: u64) -> usize {
    let places = u128::from(places.max(1));
    (u128::from(hash) % places * PARTS as u128 / places) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_part_by_part_and_none_is_lost() {
        const PLACES: u64 = 100_003;
        for count in [0, 1, FEW, FEW + 1, 3 * FEW] {
            let items: Vec<_> = (0..count as u64).map(|number| number * 7_919).collect();
            let mut ordered: Vec<_> = by_place(items.clone(), PLACES, |hash| *hash).collect();
            if count > FEW {
                assert!(ordered.is_sorted_by_key(|hash| part(*hash, PLACES)));
                assert!(part(PLACES - 1, PLACES) == PARTS - 1 && part(PLACES, PLACES) == 0);
            }
            let mut items = items;
            items.sort_unstable();
            ordered.sort_unstable();
            assert_eq!(ordered, items);
        }
    }
}
