//! Pages of lists.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rialto_connector::Connector;
use rialto_ledger::{Account, AccountId, text};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::Problem;

/// Entries on a page unless told otherwise.
pub const PAGE_LIMIT: usize = 50;
/// Most entries on a page.
pub const PAGE_LIMIT_MAX: usize = 200;

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Entries on the page, 1 to 200; 50 where it is left out.
    #[serde(with = "text::option")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// The same, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    /// The last number of the page before.
    pub(crate) after: Option<u64>,
    /// Entries wanted.
    pub(crate) limit: usize,
}

impl PageQuery {
    pub(crate) fn new(cursor: Option<String>, limit: Option<usize>) -> Self {
        Self { cursor, limit }
    }

    pub(crate) fn check(&self) -> Result<Page, Problem> {
        let limit = self.limit.unwrap_or(PAGE_LIMIT);
        if !(1..=PAGE_LIMIT_MAX).contains(&limit) {
            let detail = format!("must be a number from 1 to {PAGE_LIMIT_MAX}");
            return Err(Problem::invalid("limit", detail));
        }
        let after = self.cursor.as_deref().map(read_cursor).transpose()?;
        Ok(Page { after, limit })
    }
}

impl Page {
    /// The first entries of what is left, with the number of the last for the next page if there is
    /// one. `entries` are those after [`Self::after`].
    pub(crate) fn cut<T>(
        &self,
        entries: impl Iterator<Item = T>,
        number: impl Fn(&T) -> u64,
    ) -> (Vec<T>, Option<String>) {
        let mut page: Vec<T> = entries.take(self.limit + 1).collect();
        if page.len() <= self.limit {
            return (page, None);
        }
        page.truncate(self.limit);
        let last = page.last().map(number);
        (page, last.map(write_cursor))
    }
}

/// Accounts of a page, oldest first, and where the next begins.
pub(crate) fn accounts(connector: &Connector, page: Page) -> (Vec<&Account>, Option<String>) {
    // No account has the number 0.
    let after = u32::try_from(page.after.unwrap_or_default()).unwrap_or(u32::MAX);
    let later = connector.ledger().accounts_after(AccountId(after));
    page.cut(later, |account| u64::from(account.id.0))
}

pub(crate) fn write_cursor(number: u64) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(number.to_be_bytes())
}

fn read_cursor(cursor: &str) -> Result<u64, Problem> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    let bytes: Option<[u8; 8]> = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(u64::from_be_bytes)
        .ok_or_else(|| Problem::invalid("cursor", "is not the next_cursor of an earlier page"))
}
