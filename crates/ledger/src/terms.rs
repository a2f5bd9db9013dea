//! Terms that are equal are kept once.

use std::{
    hash::Hasher,
    io,
    sync::{Arc, Weak},
};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use crate::settings::AccountTerms;

/// Terms that nobody has any more are looked for when there are this many more than after the last look.
const SLACK: usize = 64;

/// The terms of all accounts, each once.
#[derive(Debug, Default)]
pub(crate) struct SharedTerms {
    /// With the hash of their JSON. Never walked through, so its order shows nowhere.
    all: HashTable<(u64, Weak<AccountTerms>)>,
    sweep_at: usize,
}

impl SharedTerms {
    /// These terms, or equal ones that an account has already.
    pub(crate) fn share(&mut self, terms: &Arc<AccountTerms>) -> Arc<AccountTerms> {
        let hash = hash(terms);
        let equal = |(of, other): &(u64, Weak<AccountTerms>)| {
            let is_equal = |other: Arc<AccountTerms>| Arc::ptr_eq(&other, terms) || other == *terms;
            *of == hash && other.upgrade().is_some_and(is_equal)
        };
        let found = self.all.find(hash, equal);
        if let Some(found) = found.and_then(|(_, found)| found.upgrade()) {
            return found;
        }
        if self.all.len() >= self.sweep_at {
            self.all.retain(|(_, terms)| terms.strong_count() > 0);
            self.sweep_at = 2 * self.all.len() + SLACK;
        }
        let entry = (hash, Arc::downgrade(terms));
        self.all.insert_unique(hash, entry, |(hash, _)| *hash);
        Arc::clone(terms)
    }
}

fn hash(terms: &AccountTerms) -> u64 {
    struct Hash(FxHasher);

    impl io::Write for Hash {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut hash = Hash(FxHasher::default());
    serde_json::to_writer(&mut hash, terms).expect("terms have text keys and a hash takes all");
    hash.0.finish()
}
