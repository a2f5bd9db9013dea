//! Callers whose token opens no account: an operator may adopt them, or not want to hear of them.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rialto_connector::jwt::Jwt;
use rialto_ledger::TokenHash;

use crate::{directory::hash_token, newcomers::Source};

/// Callers that are remembered. One more takes the place of the one that was heard of longest ago.
pub const CALLERS_MAX: usize = 256;

/// Those of them from one IPv4 address or IPv6 network: whoever guesses tokens displaces itself.
pub const CALLERS_PER_ADDRESS_MAX: usize = 16;

/// Letters of a path that are kept.
const PATH_CHARS_MAX: usize = 96;

/// Somebody who presented a token that opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// SHA-256 of the token, which is not kept.
    pub hash: TokenHash,
    /// Bytes of the token.
    pub token_len: usize,
    /// Where it came from last.
    pub address: IpAddr,
    /// And with what path. Visible ASCII characters.
    pub path: String,
    /// How often it came.
    pub count: u64,
    /// For the first time, milliseconds since 1970.
    pub first_ms: i64,
    /// For the last time.
    pub last_ms: i64,
}

/// Over all links.
#[derive(Debug, Default)]
pub struct Callers(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    callers: Vec<Caller>,
    blocked: HashSet<[u8; 32]>,
}

impl Callers {
    /// Those that are remembered, in no order.
    pub fn all(&self) -> Vec<Caller> {
        self.table().callers.clone()
    }

    /// The caller is one no more.
    pub fn forget(&self, hash: TokenHash) {
        self.table().callers.retain(|caller| caller.hash != hash);
    }

    /// Callers with these tokens, and no others, are passed over in silence.
    pub fn block(&self, blocked: impl Iterator<Item = TokenHash>) {
        let mut table = self.table();
        table.blocked = blocked.map(|hash| hash.0).collect();
        let Table { callers, blocked } = &mut *table;
        callers.retain(|caller| !blocked.contains(&caller.hash.0));
    }

    /// Somebody presented a token that opens nothing. Says so if an operator should hear of it: when it
    /// is new.
    pub(crate) fn note(
        &self,
        token: &[u8],
        address: IpAddr,
        path: &str,
        now_ms: i64,
    ) -> Option<TokenHash> {
        // Each token that a caller makes is another, and none can be adopted.
        if Jwt::parse(token).is_some() {
            return None;
        }
        let hash = hash_token(token);
        let mut table = self.table();
        if table.blocked.contains(&hash.0) {
            return None;
        }
        let path = path.chars().filter(char::is_ascii_graphic);
        let path = path.take(PATH_CHARS_MAX).collect();
        let address = address.to_canonical();
        let callers = &mut table.callers;
        if let Some(known) = callers.iter_mut().find(|caller| caller.hash == hash) {
            known.count += 1;
            (known.address, known.path, known.last_ms) = (address, path, now_ms);
            return None;
        }
        let source = Source::from(address);
        let is_neighbour = |caller: &Caller| Source::from(caller.address) == source;
        let of_source = callers.iter().filter(|caller| is_neighbour(caller)).count();
        let crowds = of_source >= CALLERS_PER_ADDRESS_MAX;
        if crowds || callers.len() >= CALLERS_MAX {
            let candidates = callers.iter().enumerate();
            let candidates = candidates.filter(|(_, caller)| !crowds || is_neighbour(caller));
            let oldest = candidates.min_by_key(|(_, caller)| caller.last_ms);
            if let Some((index, _)) = oldest {
                callers.remove(index);
            }
        }
        callers.push(Caller {
            hash,
            token_len: token.len(),
            address,
            path,
            count: 1,
            first_ms: now_ms,
            last_ms: now_ms,
        });
        Some(hash)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Whoever panicked while it was locked left a table that is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_caller_is_told_of_once_and_counted() {
        let callers = Callers::default();
        let token = b"token_of_a_stranger";
        let new = callers.note(token, address(1), "/ilp", 5);
        assert_eq!(new, Some(hash_token(token)));
        let odd = "/accounts/\u{1b}[31mb\n/ilp";
        assert_eq!(callers.note(token, address(2), odd, 9), None);
        let expected = Caller {
            hash: hash_token(token),
            token_len: 19,
            address: address(2),
            path: "/accounts/[31mb/ilp".to_owned(),
            count: 2,
            first_ms: 5,
            last_ms: 9,
        };
        assert_eq!(callers.all(), [expected]);
        callers.forget(hash_token(token));
        assert_eq!(callers.all(), []);
    }

    #[test]
    fn blocked_callers_are_passed_over() {
        let callers = Callers::default();
        callers.note(b"one", address(1), "/ilp", 1);
        callers.note(b"two", address(1), "/ilp", 1);
        callers.block([hash_token(b"one")].into_iter());
        assert_eq!(callers.note(b"one", address(1), "/ilp", 2), None);
        let left: Vec<_> = callers.all().iter().map(|caller| caller.hash).collect();
        assert_eq!(left, [hash_token(b"two")]);
        callers.block(std::iter::empty());
        assert!(callers.note(b"one", address(1), "/ilp", 3).is_some());
    }

    #[test]
    fn callers_that_make_a_token_each_time_are_not_told_of() {
        let callers = Callers::default();
        let token = b"eyJhbGciOiJIUzI1NiJ9.e30.AAAA"; // {"alg":"HS256"}, {}
        assert_eq!(callers.note(token, address(1), "/ilp", 1), None);
        assert_eq!(callers.all(), []);
    }

    #[test]
    fn whoever_guesses_displaces_itself_and_the_oldest_goes_first() {
        let callers = Callers::default();
        callers.note(b"an honest one", address(1), "/ilp", 0);
        for guess in 1..=100_000_i64 {
            callers.note(&guess.to_be_bytes(), address(2), "/ilp", guess);
        }
        let all = callers.all();
        assert_eq!(all.len(), 1 + CALLERS_PER_ADDRESS_MAX);
        assert!(all.iter().any(|caller| caller.address == address(1)));
        assert!(all.iter().any(|caller| caller.last_ms == 100_000));
        // From everywhere.
        for number in 3..1_000_u32 {
            let at_ms = 100_000 + i64::from(number);
            callers.note(&number.to_be_bytes(), address(number), "/ilp", at_ms);
        }
        let all = callers.all();
        assert_eq!(all.len(), CALLERS_MAX);
        let oldest_ms = all.iter().map(|caller| caller.last_ms).min();
        assert_eq!(oldest_ms, Some(100_999 - CALLERS_MAX as i64 + 1));
    }
}
