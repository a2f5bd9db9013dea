//! Prices from a source outside: taken with care, kept with their age.
//!
//! Soft state: nothing of it is in the journal. A price that moves too far at once is not taken; it
//! waits until an operator confirms it or until enough later quotes say the same, and the old price
//! holds until then, or until it is too old.

use std::collections::BTreeMap;

use rialto_packet::{Timestamp, money::Ratio};

use crate::quotes::Quotes;

/// Codes that are kept; a source with more is cut off, as nobody deals in so many.
pub const PRICES_MAX: usize = 4_096;

/// [`MarketSettings::source`] of prices that come by the admin API.
pub const PUSH: &str = "push";

/// What an operator decides about prices from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketSettings {
    /// For people: where the prices come from.
    pub source: String,
    /// The code that prices must be given in, where that is configured.
    pub base: Option<String>,
    /// After this time a price converts nothing any more. Milliseconds.
    pub age_max_ms: i64,
    /// The largest part by which a price may move between two quotes; `None` for any.
    pub move_max: Option<Ratio>,
    /// A price that moved further is taken once so many quotes in a row say the same; 0 for never.
    pub confirm_count: u32,
    /// What is kept of a conversion between two codes, either way.
    pub spreads: BTreeMap<(String, String), Ratio>,
}

/// A price, in units of the code for one of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Exact.
    pub ratio: Ratio,
    /// When the source had it.
    pub at: Timestamp,
}

/// A price that moved too far to be believed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPrice {
    /// What the source says.
    pub price: Price,
    /// How many quotes said so.
    pub seen_count: u32,
}

/// What came of a quote: which prices wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Of which code.
    pub code: String,
    /// What stays in force.
    pub old: Ratio,
    /// What the source says.
    pub new: Ratio,
}

/// The prices of one source.
#[derive(Debug, Default)]
pub struct Market {
    settings: Option<MarketSettings>,
    base: String,
    prices: BTreeMap<String, Price>,
    held: BTreeMap<String, HeldPrice>,
    taken_total: u64,
    moved_total: u64,
    failed_total: u64,
    last_failure: Option<(Timestamp, String)>,
}

impl Market {
    /// Other settings. Prices of another source are forgotten.
    pub(crate) fn configure(&mut self, settings: Option<MarketSettings>) {
        let source =
            |settings: &Option<MarketSettings>| settings.as_ref().map(|s| s.source.clone());
        if source(&self.settings) != source(&settings) {
            self.prices.clear();
            self.held.clear();
            self.last_failure = None;
        }
        self.settings = settings;
    }

    /// Takes what may be taken, and says which prices moved too far.
    pub(crate) fn take(&mut self, quotes: Quotes) -> Vec<Moved> {
        let Some(settings) = &self.settings else {
            return Vec::new();
        };
        if self.base != quotes.base {
            self.prices.clear();
            self.held.clear();
            self.base = quotes.base;
        }
        self.taken_total += 1;
        self.last_failure = None;
        let mut moved = Vec::new();
        for (code, ratio) in quotes.prices {
            let price = Price {
                ratio,
                at: quotes.at,
            };
            let Some(old) = self.prices.get(&code) else {
                if self.prices.len() < PRICES_MAX {
                    self.prices.insert(code, price);
                }
                continue;
            };
            // The same document again, or an older one.
            if price.at <= old.at {
                continue;
            }
            let bound = settings.move_max.as_ref();
            let is_near = |a: &Ratio, b: &Ratio| bound.is_none_or(|bound| within(a, b, bound));
            if is_near(&old.ratio, &price.ratio) {
                self.held.remove(&code);
                self.prices.insert(code, price);
                continue;
            }
            let seen_count = match self.held.get(&code) {
                Some(held) if held.price.at == price.at => continue,
                Some(held) if is_near(&held.price.ratio, &price.ratio) => held.seen_count + 1,
                Some(_) | None => 1,
            };
            if settings.confirm_count > 0 && seen_count >= settings.confirm_count {
                self.held.remove(&code);
                self.prices.insert(code, price);
                continue;
            }
            self.moved_total += 1;
            moved.push(Moved {
                code: code.clone(),
                old: old.ratio.clone(),
                new: price.ratio.clone(),
            });
            self.held.insert(code, HeldPrice { price, seen_count });
        }
        moved
    }

    /// An operator says that a price that waits is right.
    pub(crate) fn confirm(&mut self, code: &str) -> bool {
        match self.held.remove(code) {
            Some(held) => {
                self.prices.insert(code.to_owned(), held.price);
                true
            }
            None => false,
        }
    }

    /// The source did not answer, or with something that cannot be used. What is there stays.
    pub(crate) fn failed(&mut self, at: Timestamp, message: String) {
        self.failed_total += 1;
        self.last_failure = Some((at, message));
    }

    /// Units of `to` for one of `from`, the spread between them if one is set, and from when on the
    /// rate is stale. `None` without a price for both.
    pub(crate) fn rate(
        &self,
        from: &str,
        to: &str,
    ) -> Option<(Ratio, Option<Ratio>, Option<Timestamp>)> {
        let settings = self.settings.as_ref()?;
        let base = Price {
            ratio: Ratio::one(),
            at: Timestamp::MAX,
        };
        let price = |code: &str| match code == self.base {
            true => Some(&base),
            false => self.prices.get(code),
        };
        let (payer, payee) = (price(from)?, price(to)?);
        let ratio = payee.ratio.times(&payer.ratio.inverse().ok()?);
        let stale_at = payer.at.min(payee.at);
        let stale_at = (stale_at != base.at).then(|| stale_at.plus_ms(settings.age_max_ms));
        let spread = |a: &str, b: &str| settings.spreads.get(&(a.to_owned(), b.to_owned()));
        let spread = spread(from, to).or_else(|| spread(to, from)).cloned();
        Some((ratio, spread, stale_at))
    }

    /// `None` when no source is configured.
    pub fn settings(&self) -> Option<&MarketSettings> {
        self.settings.as_ref()
    }

    /// The code that prices are given in; empty before the first quote.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Prices in force, by code: units of the code for one of the base.
    pub fn prices(&self) -> &BTreeMap<String, Price> {
        &self.prices
    }

    /// Prices that wait to be confirmed, by code.
    pub fn held(&self) -> &BTreeMap<String, HeldPrice> {
        &self.held
    }

    /// Quotes taken since the start.
    pub fn taken_total(&self) -> u64 {
        self.taken_total
    }

    /// Prices that moved too far, since the start.
    pub fn moved_total(&self) -> u64 {
        self.moved_total
    }

    /// Times that the source failed, since the start.
    pub fn failed_total(&self) -> u64 {
        self.failed_total
    }

    /// When the source failed and why, unless it has worked since.
    pub fn last_failure(&self) -> Option<&(Timestamp, String)> {
        self.last_failure.as_ref()
    }
}

/// Whether `new` is at most the part `bound` above or below `old`.
fn within(old: &Ratio, new: &Ratio, bound: &Ratio) -> bool {
    let low = old.less(bound).unwrap_or_else(|_| Ratio::zero());
    (low..=old.more(bound)).contains(new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rialto_packet::money::{Asset, Conversion};

    use super::*;

    fn settings() -> MarketSettings {
        MarketSettings {
            source: "test".to_owned(),
            base: None,
            age_max_ms: 1_000,
            move_max: Some("0.1".parse().unwrap()),
            confirm_count: 3,
            spreads: BTreeMap::new(),
        }
    }

    fn market(settings: MarketSettings) -> Market {
        let mut market = Market::default();
        market.configure(Some(settings));
        market
    }

    fn quotes(at_ms: i64, prices: &[(&str, &str)]) -> Quotes {
        let price = |(code, text): &(&str, &str)| ((*code).to_owned(), text.parse().unwrap());
        Quotes {
            base: "USD".to_owned(),
            at: Timestamp::from_unix_ms(at_ms),
            prices: prices.iter().map(price).collect(),
        }
    }

    fn rate(market: &Market, from: &str, to: &str) -> Option<String> {
        market.rate(from, to).map(|(rate, ..)| format!("{rate:?}"))
    }

    #[test]
    fn crosses_go_over_the_base_exactly_and_are_as_old_as_the_older_price() {
        let mut market = market(settings());
        assert_eq!(rate(&market, "USD", "EUR"), None);
        market.take(quotes(1_000, &[("EUR", "0.9"), ("JPY", "150")]));
        market.take(quotes(2_000, &[("EUR", "0.9")]));
        assert_eq!(rate(&market, "USD", "EUR").unwrap(), "9/10");
        assert_eq!(rate(&market, "EUR", "USD").unwrap(), "10/9");
        assert_eq!(rate(&market, "JPY", "EUR").unwrap(), "3/500");
        assert_eq!(rate(&market, "EUR", "GBP"), None);
        let stale_at = |from, to| market.rate(from, to).unwrap().2.unwrap().unix_ms();
        assert_eq!(stale_at("USD", "EUR"), 3_000);
        assert_eq!(stale_at("EUR", "JPY"), 2_000);
    }

    #[test]
    fn a_spread_holds_both_ways() {
        let pair = ("EUR".to_owned(), "USD".to_owned());
        let spreads = BTreeMap::from([(pair, "0.01".parse().unwrap())]);
        let mut market = market(MarketSettings {
            spreads,
            ..settings()
        });
        market.take(quotes(1, &[("EUR", "0.9"), ("JPY", "150")]));
        let spread = |from, to| market.rate(from, to).unwrap().1;
        assert_eq!(spread("EUR", "USD"), Some("0.01".parse().unwrap()));
        assert_eq!(spread("USD", "EUR"), Some("0.01".parse().unwrap()));
        assert_eq!(spread("USD", "JPY"), None);
    }

    #[test]
    fn a_sudden_move_waits_for_the_operator_or_for_enough_later_quotes() {
        let mut market = market(settings());
        market.take(quotes(1, &[("EUR", "1")]));
        for (at_ms, price, in_force) in [
            (2, "1.1", "11/10"),   // the bound itself
            (3, "0.99", "99/100"), // the bound itself, downwards
            (4, "9.9", "99/100"),  // absurd
            (4, "9.9", "99/100"),  // the same document again says nothing new
            (5, "9.8", "99/100"),
            (6, "1", "1/1"), // back to normal: the count begins again
            (7, "9.9", "1/1"),
            (8, "9.9", "1/1"),
            (9, "0.01", "1/1"), // another absurd one: so does it
            (10, "9.9", "1/1"),
            (11, "9.8", "1/1"),
            (12, "9.7", "97/10"), // three that agree
            (11, "9.6", "97/10"), // older than what is known
        ] {
            market.take(quotes(at_ms, &[("EUR", price)]));
            assert_eq!(
                rate(&market, "USD", "EUR").unwrap(),
                in_force,
                "{at_ms} {price}"
            );
        }
        let moved = market.take(quotes(13, &[("EUR", "1")]));
        assert_eq!(moved.len(), 1);
        assert!(!market.confirm("GBP"));
        assert!(market.confirm("EUR"));
        assert_eq!(rate(&market, "USD", "EUR").unwrap(), "1/1");
        assert!(!market.confirm("EUR"));
        assert_eq!(market.moved_total(), 8);
    }

    #[test]
    fn a_failure_keeps_what_is_there_and_another_source_does_not() {
        let mut market = market(settings());
        market.take(quotes(1, &[("EUR", "1")]));
        market.failed(Timestamp::from_unix_ms(2), "is HTML".to_owned());
        assert_eq!(rate(&market, "USD", "EUR").unwrap(), "1/1");
        assert_eq!(
            (market.failed_total(), market.last_failure().is_some()),
            (1, true)
        );
        market.configure(Some(MarketSettings {
            age_max_ms: 5,
            ..settings()
        }));
        assert_eq!(rate(&market, "USD", "EUR").unwrap(), "1/1");
        market.configure(Some(MarketSettings {
            source: "else".to_owned(),
            ..settings()
        }));
        assert_eq!(rate(&market, "USD", "EUR"), None);
        market.take(quotes(3, &[("EUR", "1")]));
        assert!(market.last_failure().is_none());
        market.configure(None);
        assert_eq!(rate(&market, "USD", "EUR"), None);
    }

    proptest! {
        /// There and back through any two prices never makes money.
        #[test]
        fn rounding_is_never_in_the_senders_favour(
            a in 1u64..1_000_000, b in 1u64..1_000_000, amount: u64, scales: (u8, u8),
        ) {
            let mut market = market(settings());
            let (a, b) = (format!("0.{a:06}"), format!("{b}.5"));
            market.take(quotes(1, &[("AAA", &a), ("BBB", &b)]));
            let asset = |code, scale| Asset::new(code, scale).unwrap();
            let (x, y) = (asset("AAA", scales.0 % 10), asset("BBB", scales.1 % 10));
            let there = Conversion::between(&x, &y, &market.rate("AAA", "BBB").unwrap().0);
            let back = Conversion::between(&y, &x, &market.rate("BBB", "AAA").unwrap().0);
            if let Ok(out) = there.round_down(amount) {
                prop_assert!(back.round_down(out).unwrap() <= amount);
            }
        }
    }
}
