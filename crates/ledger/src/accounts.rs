//! All accounts, by number.

use std::sync::Arc;

use crate::{
    ledger::Account,
    settings::{AccountId, AccountSettings},
};

/// Accounts in one part. One that changes while a snapshot has it is copied first, in some ten microseconds.
const PART: usize = 128;

type Part = [Option<Account>; PART];

/// Accounts by number; numbers are never used again, so deleted accounts leave a gap.
///
/// They stand in parts that a clone shares until they change: the books can be written down as they are while
/// packets change them, and very many accounts never move because there is one more.
#[derive(Debug, Default, Clone)]
pub(crate) struct Accounts(Vec<Arc<Part>>);

impl Accounts {
    pub(crate) fn get(&self, id: AccountId) -> Option<&Account> {
        let (part, index) = place(id);
        self.0.get(part)?[index].as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: AccountId) -> Option<&mut Account> {
        let (part, index) = place(id);
        Arc::make_mut(self.0.get_mut(part)?)[index].as_mut()
    }

    pub(crate) fn insert(&mut self, account: Account) {
        let (part, index) = place(account.id);
        if self.0.len() <= part {
            // Where there is a gap, its parts are one.
            self.0.resize(part + 1, Arc::new([const { None }; PART]));
        }
        Arc::make_mut(&mut self.0[part])[index] = Some(account);
    }

    pub(crate) fn remove(&mut self, id: AccountId) -> Option<Account> {
        let (part, index) = place(id);
        Arc::make_mut(self.0.get_mut(part)?)[index].take()
    }

    /// Makes room for the accounts up to this number.
    pub(crate) fn reserve(&mut self, last: AccountId) {
        let parts = place(last).0 + 1;
        self.0.reserve(parts.saturating_sub(self.0.len()));
    }

    /// Those after this one, by number.
    pub(crate) fn after(&self, id: AccountId) -> impl Iterator<Item = &Account> {
        let (part, index) = place(id);
        let mut parts = self.0.get(part..).unwrap_or_default().iter();
        let first = parts.next().map_or(&[][..], |part| &part[index + 1..]);
        let rest = parts.flat_map(|part| part.iter());
        first.iter().chain(rest).flatten()
    }

    /// What is made of each. A part is let go as soon as it is done.
    pub(crate) fn into_each<T, I: IntoIterator<Item = T>>(
        self,
        mut make: impl FnMut(&Account) -> I,
    ) -> impl Iterator<Item = T> {
        let parts = self.0.into_iter();
        parts.flat_map(move |part| {
            part.iter()
                .flatten()
                .flat_map(&mut make)
                .collect::<Vec<_>>()
        })
    }

    /// A way to the settings of each.
    pub(crate) fn settings<'a>(
        &'a self,
    ) -> impl Fn(AccountId) -> Option<&'a AccountSettings> + Copy {
        |id| Some(&*self.get(id)?.settings)
    }
}

/// Of a part, and in it.
fn place(id: AccountId) -> (usize, usize) {
    let number = id.0 as usize;
    (number / PART, number % PART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{AccountTerms, Relation};

    fn settings(name: &str) -> AccountSettings {
        let terms = AccountTerms::new(Relation::Child, "USD/9".parse().unwrap());
        AccountSettings {
            name: name.to_owned(),
            incoming_tokens: Vec::new(),
            terms: terms.into(),
        }
    }

    #[test]
    fn accounts_stand_at_their_numbers_and_a_clone_stays_as_it_is() {
        let account = |number, name: &str| Account::new(AccountId(number), settings(name), 0);
        let names = |accounts: &Accounts, after| {
            let after = accounts.after(AccountId(after));
            Vec::from_iter(after.map(|account| (account.id.0, account.settings.name.clone())))
        };
        let mut accounts = Accounts::default();
        let numbers = [1, 127, 128, 300, 1_000];
        for number in [300, 1, 1_000, 128, 127] {
            accounts.insert(account(number, &number.to_string()));
        }
        for number in 0..=1_100 {
            let is_there = accounts.get(AccountId(number)).is_some();
            assert_eq!(is_there, numbers.contains(&number), "{number}");
            let left = numbers.iter().filter(|other| **other > number);
            assert_eq!(names(&accounts, number).len(), left.count(), "{number}");
        }
        assert!(accounts.get(AccountId(u32::MAX)).is_none());
        assert!(names(&accounts, u32::MAX).is_empty());

        let before = names(&accounts, 0);
        let copy = accounts.clone();
        accounts.remove(AccountId(128));
        accounts.insert(account(2, "two"));
        let of_300 = accounts.get_mut(AccountId(300)).unwrap();
        of_300.settings = settings("other").into();
        assert_eq!(names(&copy, 0), before);
        let each = copy.into_each(|account| [(account.id.0, account.settings.name.clone())]);
        assert_eq!(Vec::from_iter(each), before);
        let now = [
            (1, "1"),
            (2, "two"),
            (127, "127"),
            (300, "other"),
            (1_000, "1000"),
        ];
        let now = now.map(|(number, name)| (number, name.to_owned()));
        assert_eq!(names(&accounts, 0), now);
    }
}
