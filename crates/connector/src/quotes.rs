//! Tables of prices as other programs write them, read exactly: no number passes through a float.

use std::collections::BTreeMap;

use quick_xml::{Reader, events::Event};
use rialto_packet::{
    Timestamp,
    money::{ASSET_CODE_BYTES_MAX, RATE_DIGITS_MAX, Ratio},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

/// Longest document.
pub const QUOTES_BYTES_MAX: usize = 1 << 20;

/// Prices of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quotes {
    /// The code that prices are given in.
    pub base: String,
    /// When they were true.
    pub at: Timestamp,
    /// By code: units of it for one of the base. None is zero.
    pub prices: BTreeMap<String, Ratio>,
}

/// Why a document is no table of prices.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuotesError {
    /// Longer than [`QUOTES_BYTES_MAX`].
    #[error("is longer than {QUOTES_BYTES_MAX} bytes")]
    TooLong,
    /// Not the JSON that is expected.
    #[error("is not JSON of the form {{\"base\": \"USD\", \"rates\": {{\"EUR\": 0.92}}}}: {0}")]
    Json(String),
    /// Not the XML that is expected.
    #[error("is not the XML of the European Central Bank: {0}")]
    Xml(String),
    /// Of another base than was asked for.
    #[error("has prices in {found}, not in {wanted}")]
    Base {
        /// What was asked for.
        wanted: String,
        /// What came.
        found: String,
    },
    /// A price that cannot be one.
    #[error("has {price} as the price of {code}: {problem}")]
    Price {
        /// Of what.
        code: String,
        /// As it came, cut.
        price: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Not one price.
    #[error("has no price")]
    Empty,
}

#[derive(Deserialize)]
struct Table<'a> {
    base: String,
    #[serde(borrow)]
    rates: BTreeMap<String, &'a RawValue>,
}

impl Quotes {
    /// Reads `{"base": "USD", "rates": {"EUR": 0.92}}`, as Rafiki asks for it. A price may be a number
    /// or a text. `at` is when it came; `base` is what was asked for, if anything was.
    ///
    /// # Errors
    /// One price that cannot be one makes the whole document unusable: its source is not to be trusted.
    pub fn from_json(text: &[u8], at: Timestamp, base: Option<&str>) -> Result<Self, QuotesError> {
        check_length(text)?;
        let table: Table<'_> =
            serde_json::from_slice(text).map_err(|error| QuotesError::Json(error.to_string()))?;
        let prices = table.rates.iter().map(|(code, raw)| {
            let raw = raw.get();
            let text = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
            Ok((code.clone(), price(code, text.unwrap_or(raw))?))
        });
        let prices = prices.collect::<Result<_, QuotesError>>()?;
        Self {
            base: table.base,
            at,
            prices,
        }
        .checked(base)
    }

    /// Reads the daily file of the European Central Bank: units for one EUR, true since the beginning
    /// of the day that it names, at most `now`.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_ecb(text: &[u8], now: Timestamp) -> Result<Self, QuotesError> {
        check_length(text)?;
        let mut at = None;
        let mut prices = BTreeMap::new();
        let xml = |error: &dyn std::fmt::Display| QuotesError::Xml(error.to_string());
        let text = std::str::from_utf8(text).map_err(|error| xml(&error))?;
        let mut reader = Reader::from_str(text);
        loop {
            let element = match reader.read_event().map_err(|error| xml(&error))? {
                Event::Start(element) | Event::Empty(element) => element,
                Event::Eof => break,
                Event::End(_)
                | Event::Text(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_)
                | Event::GeneralRef(_) => continue,
            };
            if element.local_name().as_ref() != "Cube" {
                continue;
            }
            let attribute = |name: &str| {
                let found = element
                    .try_get_attribute(name)
                    .map_err(|error| xml(&error))?;
                Ok::<_, QuotesError>(found.map(|found| found.value.into_owned()))
            };
            if let Some(time) = attribute("time")? {
                // Files of several days have the newest first.
                if at.is_some() {
                    break;
                }
                at = Some(day(&time).ok_or_else(|| xml(&format!("'{time}' is not a day")))?);
            }
            if let (Some(code), Some(rate)) = (attribute("currency")?, attribute("rate")?) {
                let ratio = price(&code, &rate)?;
                prices.insert(code, ratio);
            }
        }
        let at = at.ok_or_else(|| xml(&"it names no day"))?.min(now);
        Self {
            base: "EUR".to_owned(),
            at,
            prices,
        }
        .checked(None)
    }

    fn checked(mut self, base: Option<&str>) -> Result<Self, QuotesError> {
        if let Some(wanted) = base.filter(|wanted| *wanted != self.base) {
            let wanted = wanted.to_owned();
            let found = shown(&self.base);
            return Err(QuotesError::Base { wanted, found });
        }
        if let Some(own) = self.prices.remove(&self.base)
            && own != Ratio::one()
        {
            let problem = "one of the base is worth one of the base";
            let (code, price) = (shown(&self.base), own.to_string());
            return Err(QuotesError::Price {
                code,
                price,
                problem,
            });
        }
        if self.prices.is_empty() {
            return Err(QuotesError::Empty);
        }
        Ok(self)
    }
}

fn check_length(text: &[u8]) -> Result<(), QuotesError> {
    match text.len() > QUOTES_BYTES_MAX {
        true => Err(QuotesError::TooLong),
        false => Ok(()),
    }
}

fn price(code: &str, text: &str) -> Result<Ratio, QuotesError> {
    let wrong = |problem| QuotesError::Price {
        code: shown(code),
        price: shown(text),
        problem,
    };
    if code.is_empty() || code.len() > ASSET_CODE_BYTES_MAX {
        return Err(wrong("an asset code has 1 to 255 bytes"));
    }
    let ratio = decimal(text).ok_or(wrong("it must be a decimal number above zero"))?;
    match ratio.is_zero() {
        true => Err(wrong("it must be above zero")),
        false => Ok(ratio),
    }
}

/// A decimal number, exactly, with an exponent if it has one: JavaScript writes 1e-7.
fn decimal(text: &str) -> Option<Ratio> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return text.parse().ok();
    };
    let exponent: i32 = exponent.parse().ok()?;
    let zeros = usize::try_from(exponent.unsigned_abs()).ok()?;
    if zeros > RATE_DIGITS_MAX {
        return None;
    }
    let power = Ratio::power_of_ten(zeros);
    let power = match exponent < 0 {
        true => power.inverse().ok()?,
        false => power,
    };
    Some(mantissa.parse::<Ratio>().ok()?.times(&power))
}

/// The beginning of a day such as 2026-11-20, in UTC.
fn day(text: &str) -> Option<Timestamp> {
    let digits = text.replace('-', "");
    (digits.len() == 8 && text.len() == 10).then(|| {
        let bytes = format!("{digits}000000000").into_bytes();
        Timestamp::parse(&bytes.try_into().ok()?).ok()
    })?
}

/// For messages: what a stranger wrote, not too much of it.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_800_000_000_000;

    fn json(text: &str) -> Result<Quotes, QuotesError> {
        Quotes::from_json(text.as_bytes(), Timestamp::from_unix_ms(AT), Some("USD"))
    }

    fn euros(price: &str) -> Result<Ratio, QuotesError> {
        let quotes = json(&format!(r#"{{"base":"USD","rates":{{"EUR":{price}}}}}"#))?;
        Ok(quotes.prices["EUR"].clone())
    }

    #[test]
    fn prices_are_read_exactly_as_numbers_or_text() {
        for (price, ratio) in [
            ("0.92", "0.92"),
            ("\"0.92\"", "0.92"),
            ("3", "3"),
            ("1e-7", "0.0000001"),
            ("1.5E+3", "1500"),
            ("2e0", "2"),
            // A float would make 0.30000000000000004 of it, or drop the last digit.
            ("0.300000000000000041", "0.300000000000000041"),
            ("12345678901234567890.5", "12345678901234567890.5"),
        ] {
            assert_eq!(euros(price).unwrap(), ratio.parse().unwrap(), "{price}");
        }
    }

    #[test]
    fn what_is_no_price_makes_the_table_unusable() {
        for price in [
            "0",
            "0.0",
            "0e9",
            "-1",
            "\"NaN\"",
            "\"Infinity\"",
            "\"-Infinity\"",
            "\"\"",
            "null",
            "true",
            "[]",
            "{}",
            "1e61",
            "1e99999999999",
            "\"1e\"",
            "\"0x1\"",
            "\"1,2\"",
            "\" 1\"",
        ] {
            let problem = euros(price).unwrap_err();
            assert!(
                matches!(problem, QuotesError::Price { .. }),
                "{price}: {problem}"
            );
        }
        for text in [
            "",
            "NaN",
            "<html></html>",
            "[]",
            r#"{"base":"USD"}"#,
            r#"{"base":"USD","rates":[]}"#,
            r#"{"base":"USD","rates":{"EUR":NaN}}"#,
            r#"{"base":"USD","rates":{"EUR":1}} x"#,
        ] {
            assert!(matches!(json(text), Err(QuotesError::Json(_))), "{text}");
        }
        assert_eq!(
            json(r#"{"base":"USD","rates":{}}"#),
            Err(QuotesError::Empty)
        );
        assert_eq!(
            json(r#"{"base":"USD","rates":{"USD":1}}"#),
            Err(QuotesError::Empty)
        );
        let other = json(r#"{"base":"EUR","rates":{"USD":1}}"#).unwrap_err();
        assert_eq!(other.to_string(), "has prices in EUR, not in USD");
        let own = json(r#"{"base":"USD","rates":{"USD":2,"EUR":1}}"#).unwrap_err();
        assert!(own.to_string().contains("one of the base"), "{own}");
        assert_eq!(
            json(&" ".repeat(QUOTES_BYTES_MAX + 1)),
            Err(QuotesError::TooLong)
        );
    }

    /// The shape of the bank's file, with other numbers.
    const ECB: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
  <gesmes:subject>Reference rates</gesmes:subject>
  <Cube><Cube time='2026-11-20'>
    <Cube currency='USD' rate='1.0876'/>
    <Cube currency='JPY' rate='160.20'></Cube>
  </Cube><Cube time='2026-11-19'><Cube currency='USD' rate='2'/></Cube></Cube>
</gesmes:Envelope>"#;

    #[test]
    fn the_file_of_the_bank() {
        let now = Timestamp::from_unix_ms(AT);
        let quotes = Quotes::from_ecb(ECB.as_bytes(), now).unwrap();
        assert_eq!(quotes.base, "EUR");
        assert_eq!(quotes.at, Timestamp::from_unix_ms(1_795_132_800_000));
        assert_eq!(quotes.prices["USD"], "1.0876".parse().unwrap());
        assert_eq!(quotes.prices["JPY"], "160.2".parse().unwrap());
        assert_eq!(quotes.prices.len(), 2);
        // A day that has not come yet does not keep its prices fresh for longer.
        let early = Timestamp::from_unix_ms(1_700_000_000_000);
        assert_eq!(Quotes::from_ecb(ECB.as_bytes(), early).unwrap().at, early);
        for (from, to) in [
            ("2026-11-20", "20-11-2026"),
            ("time='2026-11-20'", ""),
            ("1.0876", "0"),
            ("1.0876", "-1.0876"),
            ("1.0876", "NaN"),
            ("</Cube></Cube>", "</Cube>"),
            ("<gesmes:Envelope", "<html><body"),
        ] {
            let file = ECB.replace(
                "<Cube time='2026-11-19'><Cube currency='USD' rate='2'/></Cube>",
                "",
            );
            let file = file.replace(from, to);
            assert!(
                Quotes::from_ecb(file.as_bytes(), now).is_err(),
                "{from} -> {to}"
            );
        }
    }
}
