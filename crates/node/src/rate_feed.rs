//! Rates from outside: where they come from, and the task that keeps them fresh.
//!
//! Whatever goes wrong, the prices that are there stay until they are too old, and packets do not wait.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rialto_connector::{
    Effects,
    market::{MarketSettings, Moved, PUSH},
    quotes::{QUOTES_BYTES_MAX, Quotes},
};
use rialto_links::rates_client;
use rialto_packet::{Timestamp, money::Ratio};
use serde::{Deserialize, Deserializer};
use tracing::{info, warn};

use crate::handle::Handle;

/// The daily file of the European Central Bank.
const ECB_URL: &str = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml";

/// Least time between two lines that say the same.
const REPEAT: Duration = Duration::from_secs(600);

/// A source that failed is asked again after this time, or after its usual one if that is shorter.
const RETRY: Duration = Duration::from_secs(300);

/// Prices that one line names.
const NAMED_MAX: usize = 5;

/// Section `rates`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatesConfig {
    /// Where prices come from; without one there are only rates set by hand.
    pub source: Option<RateSource>,
    /// What is asked, for `http` and `ecb`.
    pub url: Option<String>,
    /// What is read, for `file` and `ecb`. Relative to the configuration file.
    pub file: Option<PathBuf>,
    /// The asset code that `http` asks for, and that the others must have.
    pub base: Option<String>,
    /// How often the source is looked at. Seconds.
    pub every_s: Option<u32>,
    /// The age at which a price converts nothing any more. Seconds.
    pub age_max_s: Option<u32>,
    /// The largest part by which a price may move at once.
    #[serde(deserialize_with = "crate::config::from_text")]
    pub move_max: Ratio,
    /// A price that moved further is taken once so many quotes in a row say the same; 0 for never.
    pub confirm_count: u32,
    /// What is kept between two codes, such as `"USD/EUR" = "0.002"`.
    #[serde(deserialize_with = "spreads")]
    pub spreads: BTreeMap<(String, String), Ratio>,
}

/// Where prices come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateSource {
    /// A JSON file, read again when it changes.
    File,
    /// A server that is asked `?base=CODE`, as Rafiki does.
    Http,
    /// The daily file of the European Central Bank.
    Ecb,
    /// A program that calls the admin API.
    Push,
}

impl Default for RatesConfig {
    fn default() -> Self {
        Self {
            source: None,
            url: None,
            file: None,
            base: None,
            every_s: None,
            age_max_s: None,
            move_max: Ratio::new(1, 10).expect("the denominator is not zero"),
            confirm_count: 3,
            spreads: BTreeMap::new(),
        }
    }
}

fn spreads<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<(String, String), Ratio>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let parse = |(pair, spread): (String, String)| {
        let codes = pair
            .split_once('/')
            .filter(|(a, b)| !a.is_empty() && !b.is_empty());
        let (from, to) = codes.ok_or(format!("'{pair}' is not a pair such as USD/EUR"))?;
        let ratio: Ratio = spread
            .parse()
            .map_err(|error| format!("'{spread}' {error}"))?;
        Ratio::one()
            .less(&ratio)
            .map_err(|error| format!("'{spread}' {error}"))?;
        Ok(((from.to_owned(), to.to_owned()), ratio))
    };
    let parsed = texts.into_iter().map(parse).collect::<Result<_, String>>();
    parsed.map_err(serde::de::Error::custom)
}

/// What is to be looked at.
enum Target {
    Http {
        url: String,
        asked: String,
        base: String,
    },
    File {
        path: PathBuf,
    },
    EcbUrl {
        url: String,
    },
    EcbFile {
        path: PathBuf,
    },
    Push,
}

impl RatesConfig {
    /// What serde cannot see: the key to change, and what is wrong.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        self.target()?;
        if Ratio::one().less(&self.move_max).is_err() {
            return Err(("rates.move_max", "must be less than 1".to_owned()));
        }
        for (key, value) in [
            ("rates.every_s", self.every_s),
            ("rates.age_max_s", self.age_max_s),
        ] {
            if value == Some(0) {
                return Err((key, "must be at least 1".to_owned()));
            }
        }
        let (every, age_max) = (self.every(), self.age_max_ms());
        if self.source.is_some()
            && i128::from(age_max) <= i128::try_from(every.as_millis()).unwrap_or(0)
        {
            let message =
                "must be longer than rates.every_s, or nothing would be converted".to_owned();
            return Err(("rates.age_max_s", message));
        }
        Ok(())
    }

    fn target(&self) -> Result<Option<Target>, (&'static str, String)> {
        let Some(source) = self.source else {
            return match (&self.url, &self.file) {
                (None, None) => Ok(None),
                _ => Err((
                    "rates.source",
                    "is missing: file, http, ecb or push".to_owned(),
                )),
            };
        };
        if let Some(url) = &self.url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            return Err((
                "rates.url",
                "must begin with https:// or http://".to_owned(),
            ));
        }
        let unused = |key, used: bool| match used {
            true => Err((key, "is not used by this rates.source".to_owned())),
            false => Ok(()),
        };
        Ok(Some(match source {
            RateSource::Http => {
                unused("rates.file", self.file.is_some())?;
                let missing = |key: &'static str| (key, "is missing".to_owned());
                let url = self.url.clone().ok_or(missing("rates.url"))?;
                let base = self.base.clone().ok_or(missing("rates.base"))?;
                if base.is_empty() || !base.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    let message = "must be letters and digits, such as USD".to_owned();
                    return Err(("rates.base", message));
                }
                let separator = if url.contains('?') { '&' } else { '?' };
                let asked = format!("{url}{separator}base={base}");
                Target::Http { url, asked, base }
            }
            RateSource::File => {
                unused("rates.url", self.url.is_some())?;
                let missing = ("rates.file", "is missing".to_owned());
                Target::File {
                    path: self.file.clone().ok_or(missing)?,
                }
            }
            RateSource::Ecb => {
                if self.base.as_ref().is_some_and(|base| base != "EUR") {
                    return Err(("rates.base", "the European Central Bank has EUR".to_owned()));
                }
                match (&self.url, &self.file) {
                    (Some(_), Some(_)) => {
                        return Err(("rates.file", "or rates.url, not both".to_owned()));
                    }
                    (None, Some(path)) => Target::EcbFile { path: path.clone() },
                    (Some(url), None) => Target::EcbUrl { url: url.clone() },
                    (None, None) => Target::EcbUrl {
                        url: ECB_URL.to_owned(),
                    },
                }
            }
            RateSource::Push => {
                unused("rates.url", self.url.is_some())?;
                unused("rates.file", self.file.is_some())?;
                Target::Push
            }
        }))
    }

    /// For the core.
    pub(crate) fn market(&self) -> Option<MarketSettings> {
        let source = match self.target().ok()?? {
            Target::Http { url, base, .. } => format!("http {url} {base}"),
            Target::File { path } => format!("file {}", path.display()),
            Target::EcbUrl { url } => format!("ecb {url}"),
            Target::EcbFile { path } => format!("ecb {}", path.display()),
            Target::Push => PUSH.to_owned(),
        };
        Some(MarketSettings {
            source,
            base: self.base.clone(),
            age_max_ms: self.age_max_ms(),
            move_max: Some(self.move_max.clone()),
            confirm_count: self.confirm_count,
            spreads: self.spreads.clone(),
        })
    }

    /// An hour for a file of a day would be too short, a day for a server that is asked each minute
    /// too long: the default depends on the source.
    fn age_max_ms(&self) -> i64 {
        let default_s = match self.source {
            Some(RateSource::File) => 86_400,
            // Over Easter there is no file for five days.
            Some(RateSource::Ecb) => 6 * 86_400,
            Some(RateSource::Http | RateSource::Push) | None => 600,
        };
        i64::from(self.age_max_s.unwrap_or(default_s)) * 1_000
    }

    fn every(&self) -> Duration {
        let default_s = match self.source {
            Some(RateSource::Http) => 60,
            Some(RateSource::Ecb) if self.file.is_none() => 6 * 3_600,
            Some(RateSource::File | RateSource::Ecb | RateSource::Push) | None => 5,
        };
        Duration::from_secs(self.every_s.unwrap_or(default_s).into())
    }
}

/// Looks at the source for ever. `handle.rates_changed` makes it look at once.
pub(crate) async fn run(handle: Arc<Handle>) {
    let mut feed = Feed::default();
    loop {
        let config = handle.config.read().rates.clone();
        let works = feed.look(&config, &handle).await;
        let every = config.every();
        let wait = if works { every } else { every.min(RETRY) };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = handle.rates_changed.notified() => feed = Feed::default(),
        }
    }
}

/// What is remembered between two looks.
#[derive(Default)]
struct Feed {
    /// Of the file that was read last: when it was changed, and its length.
    seen: Option<(SystemTime, u64)>,
    /// What was said last, and when.
    said: Option<(String, Instant)>,
}

impl Feed {
    /// Whether the source works.
    async fn look(&mut self, config: &RatesConfig, handle: &Handle) -> bool {
        // A configuration that is in force was checked.
        let Ok(Some(target)) = config.target() else {
            return true;
        };
        let quotes = match target {
            Target::Push => return true,
            Target::Http { asked, base, .. } => {
                fetch(handle, &asked, |bytes, now| {
                    Quotes::from_json(bytes, now, Some(&base))
                })
                .await
            }
            Target::EcbUrl { url } => fetch(handle, &url, Quotes::from_ecb).await,
            Target::File { path } => self.read(&path, |bytes, changed| {
                Quotes::from_json(bytes, changed, config.base.as_deref())
            }),
            Target::EcbFile { path } => self.read(&path, |bytes, _| {
                Quotes::from_ecb(bytes, handle.shell.clock.now().wall)
            }),
        };
        match quotes {
            Ok(None) => true,
            Ok(Some(quotes)) => {
                let moved = step(handle, |core| core.quotes_take(quotes));
                match moved_text(&moved) {
                    Some(message) => self.say(message),
                    None if self.said.take().is_some() => info!("rates are taken again"),
                    None => {}
                }
                true
            }
            Err(message) => {
                let text = message.clone();
                handle
                    .shell
                    .step(&mut Effects::default(), Some, |core, now, _| {
                        core.quotes_failed(now, text);
                    });
                self.say(message);
                false
            }
        }
    }

    /// One line, and the same again only after a while.
    fn say(&mut self, message: String) {
        let is_due = self
            .said
            .as_ref()
            .is_none_or(|(said, at)| *said != message || at.elapsed() >= REPEAT);
        if is_due {
            warn!(%message, "rates are not taken; the old ones stay until they are too old");
            self.said = Some((message, Instant::now()));
        }
    }

    /// What is in a file, unless it is as it was.
    fn read(
        &mut self,
        path: &Path,
        parse: impl FnOnce(&[u8], Timestamp) -> Result<Quotes, rialto_connector::quotes::QuotesError>,
    ) -> Result<Option<Quotes>, String> {
        let cannot = |error: io::Error| format!("cannot read {}: {error}", path.display());
        let metadata = std::fs::metadata(path).inspect_err(|_| self.seen = None);
        let metadata = metadata.map_err(cannot)?;
        let changed = metadata.modified().map_err(cannot)?;
        let seen = (changed, metadata.len());
        if self.seen == Some(seen) {
            return Ok(None);
        }
        if metadata.len() > QUOTES_BYTES_MAX as u64 {
            return Err(format!(
                "{} is longer than {QUOTES_BYTES_MAX} bytes",
                path.display()
            ));
        }
        let bytes = std::fs::read(path).map_err(cannot)?;
        self.seen = Some(seen);
        let since_1970 = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed =
            Timestamp::from_unix_ms(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX));
        let quotes = parse(&bytes, changed);
        quotes
            .map(Some)
            .map_err(|error| format!("{} {error}", path.display()))
    }
}

async fn fetch(
    handle: &Handle,
    url: &str,
    parse: impl FnOnce(&[u8], Timestamp) -> Result<Quotes, rialto_connector::quotes::QuotesError>,
) -> Result<Option<Quotes>, String> {
    let body = rates_client::fetch(url, &handle.tls())
        .await
        .map_err(|error| error.to_string())?;
    let quotes = parse(&body.bytes, handle.shell.clock.now().wall);
    quotes
        .map(Some)
        .map_err(|error| match body.content_type.as_str() {
            "" => format!("the answer of {url} {error}"),
            content_type => format!("the answer of {url}, of type {content_type:?}, {error}"),
        })
}

fn step<T>(handle: &Handle, decide: impl FnOnce(&mut rialto_connector::Connector) -> T) -> T {
    handle
        .shell
        .step(&mut Effects::default(), Some, |core, _, _| decide(core))
        .0
}

/// Names the prices that moved too far.
fn moved_text(moved: &[Moved]) -> Option<String> {
    let named = moved.iter().take(NAMED_MAX);
    let named: Vec<_> = named
        .map(|m| format!("{} from {} to {}", m.code, m.old, m.new))
        .collect();
    let more = match moved.len().checked_sub(NAMED_MAX) {
        Some(more @ 1..) => format!(" and {more} more"),
        Some(0) | None => String::new(),
    };
    (!moved.is_empty()).then(|| {
        let named = named.join(", ");
        format!(
            "moved further than rates.move_max: {named}{more}; `rialto rate confirm CODE` takes it"
        )
    })
}
