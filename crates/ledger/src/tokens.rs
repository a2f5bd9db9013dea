//! Which token is whose, among those of very many accounts.

use hashbrown::HashTable;

use crate::{
    places::by_place,
    settings::{AccountId, AccountSettings, IncomingToken, TokenHash},
};

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TokenPlace {
    account: AccountId,
    /// Among that account's tokens.
    index: u8,
}

impl TokenPlace {
    /// The token, in the settings of its account.
    fn of(self, settings: &AccountSettings) -> Option<&IncomingToken> {
        settings.incoming_tokens.get(usize::from(self.index))
    }
}

/// A token that is to be entered.
#[derive(Debug, Clone, Copy)]
pub struct NewToken {
    hash: u64,
    place: TokenPlace,
}

/// The tokens of an account.
pub fn tokens_of(
    account: AccountId,
    settings: &AccountSettings,
) -> impl Iterator<Item = NewToken> + '_ {
    (0u8..)
        .zip(&settings.incoming_tokens)
        .map(move |(index, token)| NewToken {
            hash: prefix(token.hash),
            place: TokenPlace { account, index },
        })
}

/// The tokens of all accounts, by their hashes. What they are stands in the settings of their accounts alone,
/// which every function is given a way to: a million tokens take 18 MB here.
#[derive(Debug, Default)]
pub struct TokenTable(HashTable<TokenPlace>);

impl TokenTable {
    /// Makes room for so many more.
    pub fn reserve<'a>(
        &mut self,
        more: usize,
        settings: impl Fn(AccountId) -> Option<&'a AccountSettings>,
    ) {
        self.0.reserve(more, |place| hash_at(*place, &settings));
    }

    /// Enters tokens, each of which is in the settings of its account already. Very many at once come in the
    /// order in which the table has them.
    pub fn enter<'a>(
        &mut self,
        new: Vec<NewToken>,
        settings: impl Fn(AccountId) -> Option<&'a AccountSettings>,
    ) {
        self.reserve(new.len(), &settings);
        let places = self.0.num_buckets().max(1) as u64;
        for NewToken { hash, place } in by_place(new, places, |new| new.hash) {
            self.0
                .insert_unique(hash, place, |place| hash_at(*place, &settings));
        }
    }

    /// Forgets the tokens of an account, before its settings change.
    pub fn forget(&mut self, account: AccountId, settings: &AccountSettings) {
        for NewToken { hash, place } in tokens_of(account, settings) {
            if let Ok(entry) = self.0.find_entry(hash, |other| *other == place) {
                entry.remove();
            }
        }
    }

    /// The token of that hash, if there is one that is `wanted`.
    pub fn find<'a>(
        &self,
        hash: TokenHash,
        settings: impl Fn(AccountId) -> Option<&'a AccountSettings>,
        wanted: impl Fn(&IncomingToken) -> bool,
    ) -> Option<(AccountId, &'a IncomingToken)> {
        let token_at = |place: TokenPlace| place.of(settings(place.account)?);
        let found = self.0.find(prefix(hash), |place| {
            token_at(*place).is_some_and(|token| token.hash == hash && wanted(token))
        });
        let place = *found?;
        Some((place.account, token_at(place)?))
    }
}

fn hash_at<'a>(
    place: TokenPlace,
    settings: impl Fn(AccountId) -> Option<&'a AccountSettings>,
) -> u64 {
    let token = settings(place.account).and_then(|settings| place.of(settings));
    token.map_or(0, |token| prefix(token.hash))
}

/// Enough of a hash to find the rest by; it cannot be chosen, so no key is needed.
fn prefix(hash: TokenHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
