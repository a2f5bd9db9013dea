//! Conversions between the assets of two accounts, made once and kept until something changes.

use rialto_ledger::{AccountId, Ledger, Rate};
use rialto_packet::{
    Timestamp,
    money::{Asset, Conversion, Ratio},
};
use rustc_hash::FxHashMap;

use crate::{market::Market, refusal::Reason};

/// Pairs of accounts whose conversion is kept ready.
const CACHE_MAX: usize = 65_536;

#[derive(Debug)]
struct Cached {
    conversion: Conversion,
    valid_until: Option<Timestamp>,
}

/// The rates as the packet path needs them.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Where the pair says nothing.
    spread: Ratio,
    cache: FxHashMap<(AccountId, AccountId), Cached>,
}

impl Rates {
    pub(crate) fn new(spread: Ratio) -> Self {
        Self {
            spread,
            cache: FxHashMap::default(),
        }
    }

    /// Rates, spreads or accounts changed.
    pub(crate) fn clear(&mut self) {
        self.cache.clear();
    }

    /// How amounts of `payer` become amounts of `payee`.
    pub(crate) fn conversion(
        &mut self,
        now: Timestamp,
        ledger: &Ledger,
        market: &Market,
        payer: AccountId,
        payee: AccountId,
    ) -> Result<&Conversion, Reason> {
        if self.cache.len() >= CACHE_MAX && !self.cache.contains_key(&(payer, payee)) {
            self.cache.clear();
        }
        let cached = match self.cache.entry((payer, payee)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(make(&self.spread, ledger, market, payer, payee)?)
            }
        };
        if cached.valid_until.is_some_and(|until| now >= until) {
            return Err(Reason::RateStale);
        }
        Ok(&cached.conversion)
    }

    /// The same with its parts, for people.
    pub(crate) fn explain(
        &self,
        now: Timestamp,
        ledger: &Ledger,
        market: &Market,
        payer: AccountId,
        payee: AccountId,
    ) -> Result<RateParts, Reason> {
        let asset = |id| ledger.account(id).map(|account| &account.settings.asset);
        let (from, to) = asset(payer).zip(asset(payee)).ok_or(Reason::RateNone)?;
        let pair = pair(ledger, market, from, to).ok_or(Reason::RateNone)?;
        let made = make(&self.spread, ledger, market, payer, payee)?;
        if made.valid_until.is_some_and(|until| now >= until) {
            return Err(Reason::RateStale);
        }
        Ok(RateParts {
            rate: pair.price,
            spread: pair.spread.unwrap_or_else(|| self.spread.clone()),
            conversion: made.conversion,
        })
    }
}

/// What a conversion is made of.
pub(crate) struct RateParts {
    /// Units of the payee's asset for one of the payer's.
    pub(crate) rate: Ratio,
    /// Kept of it, beside the spread of the payer's account.
    pub(crate) spread: Ratio,
    /// Both, and the scales of the assets.
    pub(crate) conversion: Conversion,
}

/// Rate of the pair, less the pair's spread (or the node's), less the payer's own.
fn make(
    default_spread: &Ratio,
    ledger: &Ledger,
    market: &Market,
    payer: AccountId,
    payee: AccountId,
) -> Result<Cached, Reason> {
    let payer = ledger.account(payer).ok_or(Reason::Internal)?;
    let payee = ledger.account(payee).ok_or(Reason::Internal)?;
    let (from, to) = (&payer.settings.asset, &payee.settings.asset);
    let pair = pair(ledger, market, from, to).ok_or(Reason::RateNone)?;
    let spread = pair.spread.as_ref().unwrap_or(default_spread);
    let mut ratio = pair.price.less(spread).map_err(|_| Reason::RateNone)?;
    if let Some(spread) = payer.settings.spread_ratio() {
        ratio = ratio.less(&spread).map_err(|_| Reason::RateNone)?;
    }
    let conversion = Conversion::between(from, to, &ratio);
    Ok(Cached {
        conversion,
        valid_until: pair.valid_until,
    })
}

struct Pair {
    price: Ratio,
    spread: Option<Ratio>,
    valid_until: Option<Timestamp>,
}

/// The rate that was set for the pair; else one over the rate of the opposite pair; else, for the
/// same asset code, one; else what prices from outside say.
fn pair(ledger: &Ledger, market: &Market, from: &Asset, to: &Asset) -> Option<Pair> {
    let set = |from: &Asset, to: &Asset| {
        ledger
            .rates()
            .get(&(from.code().to_owned(), to.code().to_owned()))
    };
    let read = |rate: &Rate| {
        let spread = rate.spread.as_deref().and_then(|text| text.parse().ok());
        let valid_until = rate.valid_until_ms.map(Timestamp::from_unix_ms);
        Some(Pair {
            price: rate.rate.parse().ok()?,
            spread,
            valid_until,
        })
    };
    if let Some(rate) = set(from, to) {
        return read(rate);
    }
    if let Some(rate) = set(to, from) {
        let opposite = read(rate)?;
        return Some(Pair {
            price: opposite.price.inverse().ok()?,
            ..opposite
        });
    }
    if from.code() == to.code() {
        return Some(Pair {
            price: Ratio::one(),
            spread: None,
            valid_until: None,
        });
    }
    let (price, spread, valid_until) = market.rate(from.code(), to.code())?;
    Some(Pair {
        price,
        spread,
        valid_until,
    })
}
