//! The configuration: one TOML file, the environment over it, flags over both.
//!
//! A key in section `s` is `s.key` here, `[s]` and `key` in the file, and `RIALTO_S__KEY` in the
//! environment. A mistake is one error that names file, line, column and key.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroUsize},
    path::{Path, PathBuf},
};

use rialto_admin::EngineTerms;
use rialto_channel::Kind;
use rialto_ledger::ChannelTerms;
use rialto_packet::{
    Address,
    money::{Asset, Ratio},
};
use serde::Deserialize;
use thiserror::Error;

use crate::rate_feed::RatesConfig;

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node.
    pub node: NodeConfig,
    /// The admin API.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Rates from outside.
    #[serde(default)]
    pub rates: RatesConfig,
    /// Settlement engines.
    #[serde(default)]
    pub settlement: SettlementConfig,
    /// Accounting systems whose settlement engine this node is.
    #[serde(default)]
    pub engine: EngineConfig,
    /// Requests to peer from nodes that nobody invited.
    #[serde(default)]
    pub auto_peering: AutoPeeringConfig,
    /// Bounds over all accounts.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// The log.
    #[serde(default)]
    pub log: LogConfig,
}

/// Section `node`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// For people: shows in status and logs.
    #[serde(default = "default_name")]
    pub name: String,
    /// Our own address; `None`, written `unknown`, when the parent is asked for it.
    #[serde(deserialize_with = "own_address")]
    pub ilp_address: Option<Address>,
    /// Where peers and payers connect.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The same as others see it; payment pointers are made from it.
    pub public_url: Option<String>,
    /// Where the journal lives. Relative to the file.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// 32 random bytes in base64, readable by the owner only. Relative to the file.
    #[serde(default = "default_secret_file")]
    pub secret_file: PathBuf,
    /// I/O threads; as many as there are cores when missing.
    pub threads: Option<u16>,
    /// Pay receivers over plain `http://`, at any port and on this machine. For development.
    #[serde(default)]
    pub allow_insecure_receivers: bool,
    /// The account behind `/.well-known/pay`.
    pub default_account: Option<String>,
    /// Whether a Fulfill waits for the disk.
    #[serde(default)]
    pub durability: Durability,
    /// Kept of each conversion where neither the pair nor the account says otherwise.
    #[serde(default = "default_spread", deserialize_with = "from_text")]
    pub spread: Ratio,
    /// Taken from a packet's life per hop. Milliseconds.
    #[serde(default = "default_window")]
    pub min_message_window_ms: u32,
    /// Longest time a packet may stay out. Milliseconds.
    #[serde(default = "default_hold")]
    pub max_hold_ms: u32,
    /// Certificate chain in PEM: the node listener speaks TLS. Relative to the file.
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key in PEM. Relative to the file.
    pub tls_key_file: Option<PathBuf>,
    /// Certificates in PEM that peers' certificates may chain to, beside the system's.
    pub tls_roots_file: Option<PathBuf>,
    /// Certificate chain in PEM that neighbours are shown who ask for one. Relative to the file.
    pub tls_client_cert_file: Option<PathBuf>,
    /// Its private key in PEM. Relative to the file.
    pub tls_client_key_file: Option<PathBuf>,
}

/// When a Fulfill is passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Once its commit survives the process.
    #[default]
    Standard,
    /// Once its commit survives a power failure, while there is time to wait for that.
    Strict,
}

/// Section `admin`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where operators connect.
    pub listen: SocketAddr,
    /// The first token with all rights, readable by the owner only. Relative to the file.
    pub token_file: PathBuf,
    /// Further tokens.
    pub tokens: Vec<AdminToken>,
}

/// One of `admin.tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminToken {
    /// For people.
    pub name: String,
    /// SHA-256 of the token, 64 hex digits.
    pub hash: String,
    /// What it may do: `read`, `write`, `pay`.
    pub scopes: Vec<String>,
    /// From when on it may not, as milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
}

/// Section `settlement`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettlementConfig {
    /// Where settlement engines report what came in; without it none can.
    pub listen: Option<SocketAddr>,
    /// A token that they must present, readable by the owner only. Relative to the file.
    pub token_file: Option<PathBuf>,
    /// A settlement that an operator writes down waits until another one, with a token of his own,
    /// approves it.
    pub second_approver: bool,
}

/// Section `engine`: this node's channels, offered to an accounting system (RFC 38).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Where the accounting system asks for settlements; without it none can.
    pub listen: Option<SocketAddr>,
    /// A token that it must present, readable by the owner only. Relative to the file.
    pub token_file: Option<PathBuf>,
    /// Base URL of the accounting system, such as `http://127.0.0.1:7771`.
    pub accounting_url: Option<String>,
    /// The token that it wants of its engines. Relative to the file.
    pub accounting_token_file: Option<PathBuf>,
    /// What amounts on its accounts count, such as `USD/9`.
    pub asset: Option<String>,
    /// Kind of the channels that are opened and accepted without an operator; none are where it is
    /// missing.
    pub channel: Option<Kind>,
    /// The most that we may owe over one, in whole units of the asset, such as `1000.00`.
    pub limit: Option<String>,
    /// The most that they may.
    pub their_limit: Option<String>,
    /// Whether we propose one as long as there never was one.
    pub propose: bool,
}

impl EngineConfig {
    /// How the accounts are that the accounting system opens here; `None` without a listener. In the
    /// error: the key, and what is wrong with it.
    pub fn terms(&self) -> Result<Option<EngineTerms>, (&'static str, String)> {
        if self.listen.is_none() {
            return Ok(None);
        }
        let missing = |what: &str| format!("is needed beside engine.listen: {what}");
        let Some(accounting_url) = self.accounting_url.clone() else {
            let message = missing("where the accounting system is reached");
            return Err(("engine.accounting_url", message));
        };
        if !(accounting_url.starts_with("http://") || accounting_url.starts_with("https://")) {
            let message = "must begin with http:// or https://";
            return Err(("engine.accounting_url", message.to_owned()));
        }
        let Some(asset) = &self.asset else {
            return Err(("engine.asset", missing("what is settled, such as USD/9")));
        };
        let asset: Asset = asset
            .parse()
            .map_err(|error| ("engine.asset", format!("'{asset}' {error}")))?;
        let units = |key, text: &Option<String>| match text {
            None => Ok(0),
            Some(text) => asset.units(text).ok_or_else(|| {
                let code = asset.code();
                let message = format!("'{text}' is no amount of {code}, such as 1000.00");
                (key, message)
            }),
        };
        let limit = units("engine.limit", &self.limit)?;
        let their_limit = units("engine.their_limit", &self.their_limit)?;
        let channel = self.channel.map(|kind| ChannelTerms {
            kind,
            limit,
            their_limit,
            propose: self.propose,
        });
        if channel.is_none() && (limit, their_limit, self.propose) != (0, 0, false) {
            let message = "is needed beside limits: symmetrical, or asymmetrical";
            return Err(("engine.channel", message.to_owned()));
        }
        Ok(Some(EngineTerms {
            accounting_url,
            asset,
            channel,
        }))
    }
}

/// Section `auto_peering`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoPeeringConfig {
    /// Where strangers ask, on the node listener; without it nobody can.
    pub path: Option<String>,
    /// Requests that wait for the operator at a time.
    pub requests_max: NonZeroUsize,
    /// Those of them from one IPv4 address or IPv6 network of 64 bits.
    pub requests_per_address_max: NonZeroUsize,
    /// How long one waits.
    pub request_hours: NonZeroU16,
    /// How long the asker may take to come again once the operator approved.
    pub approval_hours: NonZeroU16,
}

impl Default for AutoPeeringConfig {
    fn default() -> Self {
        let count = |count| NonZeroUsize::new(count).expect("it is not zero");
        let hours = |hours| NonZeroU16::new(hours).expect("it is not zero");
        Self {
            path: None,
            requests_max: count(100),
            requests_per_address_max: count(3),
            request_hours: hours(72),
            approval_hours: hours(24),
        }
    }
}

/// Section `limits`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// By asset (`USD/9`): the most, in units, that may be in flight or not yet safe on disk over
    /// all accounts, and so the most that a power failure can cost.
    #[serde(deserialize_with = "units_by_asset")]
    pub unsynced: BTreeMap<Asset, u64>,
    /// Most connections of clients that have not yet authenticated. Unset: half of the connections
    /// that the limit of open files allows.
    pub unauthenticated_connections: Option<NonZeroUsize>,
    /// Most of them from one IPv4 address or IPv6 network of 64 bits.
    pub unauthenticated_connections_per_address: NonZeroUsize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            unsynced: BTreeMap::new(),
            unauthenticated_connections: None,
            unauthenticated_connections_per_address: NonZeroUsize::new(1_024)
                .expect("it is not zero"),
        }
    }
}

/// Section `log`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list of targets as `tracing` understands it.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// For programs.
    Json,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7771)),
            token_file: "admin.token".into(),
            tokens: Vec::new(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

fn default_name() -> String {
    "rialto".to_owned()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7770))
}

fn default_data_dir() -> PathBuf {
    "data".into()
}

fn default_secret_file() -> PathBuf {
    "secret.key".into()
}

fn default_spread() -> Ratio {
    Ratio::new(0, 1).expect("the denominator is not zero")
}

fn default_window() -> u32 {
    1_000
}

fn default_hold() -> u32 {
    30_000
}

/// Defaults of the keys that have one, as `config show` prints them.
const DEFAULTS: &[(&str, &str)] = &[
    ("admin.listen", "127.0.0.1:7771"),
    ("admin.token_file", "admin.token"),
    ("engine.propose", "false"),
    ("log.format", "auto"),
    ("log.level", "info"),
    ("node.allow_insecure_receivers", "false"),
    ("node.data_dir", "data"),
    ("node.durability", "standard"),
    ("node.listen", "127.0.0.1:7770"),
    ("node.max_hold_ms", "30000"),
    ("node.min_message_window_ms", "1000"),
    ("node.name", "rialto"),
    ("node.secret_file", "secret.key"),
    ("node.spread", "0"),
    ("rates.confirm_count", "3"),
    ("rates.move_max", "0.1"),
    ("settlement.second_approver", "false"),
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The file.
    File(PathBuf),
    /// This variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values; paths are absolute or relative to the working folder.
    pub config: Config,
    /// The file.
    pub path: PathBuf,
    /// What is in force, by key: text of the value, and its origin.
    pub origins: BTreeMap<String, (String, Origin)>,
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {}: {source}; `rialto init` makes one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}:{line}:{column}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A variable or a flag is not what it should be.
    #[error("{origin}: {message}")]
    Override {
        /// Which.
        origin: Origin,
        /// What is wrong.
        message: String,
    },
    /// The values do not go together.
    #[error("{}: {key}: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key to change.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
}

/// Reads `path`, then the environment, then `flags` as pairs of key (`node.listen`) and value.
pub fn load(path: &Path, flags: &[(String, String)]) -> Result<Loaded, ConfigError> {
    load_with(path, env::vars(), flags)
}

fn load_with(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let in_file = |error: toml::de::Error| {
        let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
        let message = with_nearest_key(error.message());
        ConfigError::File {
            path: path.to_owned(),
            line,
            column,
            message,
        }
    };
    let mut table: toml::Table = toml::from_str(&text).map_err(in_file)?;

    let mut origins: BTreeMap<String, (String, Origin)> = BTreeMap::new();
    for (key, value) in DEFAULTS {
        origins.insert((*key).to_owned(), ((*value).to_owned(), Origin::Default));
    }
    note_origins(&table, "", &Origin::File(path.to_owned()), &mut origins);

    // What the file alone says is checked first, so that its mistakes have their line; only the
    // keys that must be there may come from elsewhere.
    let mut overrides = Vec::new();
    for (name, value) in environment {
        if let Some(key) = environment_key(&name) {
            overrides.push((key, value, Origin::Environment(name)));
        }
    }
    for (key, value) in flags {
        overrides.push((key.clone(), value.clone(), Origin::Flag));
    }
    if overrides.is_empty() {
        toml::from_str::<Config>(&text).map_err(in_file)?;
    }
    for (key, value, origin) in overrides {
        table = with_override(&table, &key, &value).map_err(|message| ConfigError::Override {
            origin: origin.clone(),
            message: format!("{key}: {message}"),
        })?;
        origins.insert(key, (value, origin));
    }
    let mut config: Config = table.try_into().map_err(in_file)?;
    check(path, &config)?;
    resolve_paths(path, &mut config);
    Ok(Loaded {
        config,
        path: path.to_owned(),
        origins,
    })
}

/// What serde cannot see.
fn check(path: &Path, config: &Config) -> Result<(), ConfigError> {
    let wrong = |key, message: &str| {
        Err(ConfigError::Value {
            path: path.to_owned(),
            key,
            message: message.to_owned(),
        })
    };
    let node = &config.node;
    let own = node.ilp_address.as_ref().map(Address::as_ref);
    if own.is_some_and(|own| own.starts_with("peer")) {
        return wrong("node.ilp_address", "must not begin with 'peer'");
    }
    if node.threads == Some(0) {
        return wrong("node.threads", "must be at least 1");
    }
    if Ratio::one().less(&node.spread).is_err() {
        return wrong("node.spread", "must be less than 1");
    }
    if node.max_hold_ms <= node.min_message_window_ms {
        return wrong(
            "node.max_hold_ms",
            "must be longer than node.min_message_window_ms",
        );
    }
    if node.tls_cert_file.is_some() != node.tls_key_file.is_some() {
        return wrong(
            "node.tls_cert_file",
            "needs node.tls_key_file beside it, and the other way round",
        );
    }
    if node.tls_client_cert_file.is_some() != node.tls_client_key_file.is_some() {
        return wrong(
            "node.tls_client_cert_file",
            "needs node.tls_client_key_file beside it, and the other way round",
        );
    }
    if node.listen.port() != 0 && node.listen == config.admin.listen {
        return wrong("admin.listen", "is the same as node.listen");
    }
    if let Some(path) = &config.auto_peering.path {
        let taken = ["/ilp", "/accounts/", "/.well-known/"];
        let is_visible = path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'?');
        if !path.starts_with('/') || !is_visible || taken.iter().any(|of| path.starts_with(of)) {
            return wrong(
                "auto_peering.path",
                "must begin with / and be a path of its own, such as /auto-peer",
            );
        }
    }
    if let Some(listen) = config.settlement.listen
        && listen.port() != 0
        && (listen == node.listen || listen == config.admin.listen)
    {
        let message = "is the same as node.listen or admin.listen: engines have one of their own";
        return wrong("settlement.listen", message);
    }
    if let Some(listen) = config.engine.listen
        && listen.port() != 0
        && (listen == node.listen
            || listen == config.admin.listen
            || Some(listen) == config.settlement.listen)
    {
        let message = "is the same as another listener: accounting systems have one of their own";
        return wrong("engine.listen", message);
    }
    if let Err((key, message)) = config.engine.terms() {
        return wrong(key, &message);
    }
    if let Some(url) = &node.public_url
        && !(url.starts_with("https://") || url.starts_with("http://"))
    {
        return wrong(
            "node.public_url",
            "must begin with https:// (or http:// for development)",
        );
    }
    if let Err((key, message)) = config.rates.check() {
        return wrong(key, &message);
    }
    Ok(())
}

fn resolve_paths(path: &Path, config: &mut Config) {
    let folder = path.parent().unwrap_or(Path::new(""));
    let node = &mut config.node;
    for file in [
        &mut node.data_dir,
        &mut node.secret_file,
        &mut config.admin.token_file,
    ] {
        *file = folder.join(&*file);
    }
    let optional = [
        &mut node.tls_cert_file,
        &mut node.tls_key_file,
        &mut node.tls_roots_file,
        &mut node.tls_client_cert_file,
        &mut node.tls_client_key_file,
        &mut config.rates.file,
        &mut config.settlement.token_file,
        &mut config.engine.token_file,
        &mut config.engine.accounting_token_file,
    ];
    for file in optional.into_iter().flatten() {
        *file = folder.join(&*file);
    }
}

/// `RIALTO_NODE__LISTEN` is `node.listen`. Variables without two underscores are the client's.
fn environment_key(name: &str) -> Option<String> {
    let (section, key) = name.strip_prefix("RIALTO_")?.split_once("__")?;
    Some(format!("{}.{}", section.to_lowercase(), key.to_lowercase()))
}

/// Sets `section.key` to `value`, read as TOML if that fits and as text otherwise: `0.01` is a number
/// where one is wanted, and a text where that is. Says what is wrong if neither does.
fn with_override(table: &toml::Table, key: &str, value: &str) -> Result<toml::Table, String> {
    let (section, name) = key.split_once('.').ok_or("a key is written section.key")?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    let mut mistake = String::new();
    for value in parsed.into_iter().chain([value.into()]) {
        let mut changed = table.clone();
        let entry = changed
            .entry(section)
            .or_insert_with(|| toml::Table::new().into());
        let entry = entry
            .as_table_mut()
            .ok_or(format!("{section} is not a section"))?;
        entry.insert(name.to_owned(), value);
        match changed.clone().try_into::<Config>() {
            // A key that is missing may still come from a later variable.
            Err(error) if !error.message().starts_with("missing field") => {
                mistake = with_nearest_key(error.message());
            }
            Ok(_) | Err(_) => return Ok(changed),
        }
    }
    Err(mistake)
}

fn note_origins(
    table: &toml::Table,
    prefix: &str,
    origin: &Origin,
    origins: &mut BTreeMap<String, (String, Origin)>,
) {
    for (key, value) in table {
        let key = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            toml::Value::Table(inner) => note_origins(inner, &key, origin, origins),
            toml::Value::String(text) => {
                origins.insert(key, (text.clone(), origin.clone()));
            }
            toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_) => {
                origins.insert(key, (value.to_string(), origin.clone()));
            }
        }
    }
}

/// Line and column, counted from 1, of a byte in a text.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line = 1 + before.matches('\n').count();
    let column = 1 + before
        .chars()
        .rev()
        .take_while(|character| *character != '\n')
        .count();
    (line, column)
}

/// Adds "did you mean" to serde's message about an unknown key.
fn with_nearest_key(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (message.starts_with("unknown field"), quoted.next()) else {
        return message.to_owned();
    };
    match quoted.min_by_key(|known| distance(unknown, known)) {
        Some(known) => format!("unknown key `{unknown}`, did you mean `{known}`? ({message})"),
        None => message.to_owned(),
    }
}

/// How many characters have to be inserted, removed or replaced to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}

pub(crate) fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: fmt::Display>,
    D: serde::Deserializer<'de>,
{
    rialto_ledger::text::deserialize(deserializer)
}

/// An address, or `unknown` as other connectors call it.
fn own_address<'de, D>(deserializer: D) -> Result<Option<Address>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "unknown" => Ok(None),
        address => {
            let parsed = address.parse().map(Some);
            parsed.map_err(|error| serde::de::Error::custom(format!("'{address}': {error}")))
        }
    }
}

fn units_by_asset<'de, D>(deserializer: D) -> Result<BTreeMap<Asset, u64>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let parse = |(asset, units): (String, String)| {
        let parsed_asset = asset
            .parse()
            .map_err(|error| format!("'{asset}': {error}"))?;
        let parsed_units = units
            .parse()
            .map_err(|_| format!("'{units}' is not a whole number of units"))?;
        Ok((parsed_asset, parsed_units))
    };
    texts
        .into_iter()
        .map(parse)
        .collect::<Result<_, String>>()
        .map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, String> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("rialto-config-{}-{number}.toml", std::process::id());
        let path = env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let loaded = load_with(&path, environment, &[]);
        fs::remove_file(&path).unwrap();
        loaded.map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "FILE")
        })
    }

    const MINIMAL: &str = "[node]\nilp_address = \"test.alice\"\n";

    #[test]
    fn everything_but_the_address_has_a_default() {
        let loaded = load_text(MINIMAL, &[]).unwrap();
        assert_eq!(loaded.config.node.listen.port(), 7770);
        assert_eq!(loaded.config.admin.listen.port(), 7771);
        assert_eq!(
            loaded.origins["node.listen"],
            ("127.0.0.1:7770".to_owned(), Origin::Default)
        );
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let text = format!("{MINIMAL}listen = \"127.0.0.1:1\"\n");
        let variables = [
            ("RIALTO_NODE__LISTEN", "127.0.0.1:2"),
            ("RIALTO_TOKEN", "x"),
        ];
        let loaded = load_text(&text, &variables).unwrap();
        assert_eq!(loaded.config.node.listen.port(), 2);
        let origin = Origin::Environment("RIALTO_NODE__LISTEN".to_owned());
        assert_eq!(
            loaded.origins["node.listen"],
            ("127.0.0.1:2".to_owned(), origin)
        );
        let loaded = load_text("[node]\n", &[("RIALTO_NODE__ILP_ADDRESS", "test.a")]).unwrap();
        assert_eq!(loaded.config.node.ilp_address.unwrap().as_str(), "test.a");
        let loaded = load_text(MINIMAL, &[("RIALTO_NODE__THREADS", "3")]).unwrap();
        assert_eq!(loaded.config.node.threads, Some(3));
    }

    #[test]
    fn mistakes_name_file_line_column_and_key() {
        for (text, expected) in [
            (
                "[node]\nilp_address = \"test.a\"\nlisen = \"x\"\n",
                "FILE:3:1: unknown key `lisen`, did you mean `listen`?",
            ),
            (
                "[node]\nilp_address = \"nowhere\"\n",
                "FILE:2:15: 'nowhere': must begin with one of",
            ),
            (
                "[node]\nilp_address = \"test.a\"\nthreads = \"two\"\n",
                "FILE:3:11: invalid type",
            ),
            ("[node\n", "FILE:1:6: "),
            ("[node]\nname = \"x\"\n", "missing field `ilp_address`"),
            (
                "[node]\nilp_address = \"test.a\"\nspread = \"1\"\n",
                "FILE: node.spread: must be less than 1",
            ),
            (
                "[node]\nilp_address = \"test.a\"\ntls_cert_file = \"a\"\n",
                "FILE: node.tls_cert_file: needs",
            ),
            (
                "[node]\nilp_address = \"test.a\"\ntls_client_key_file = \"a\"\n",
                "FILE: node.tls_client_cert_file: needs",
            ),
            (
                "[node]\nilp_address = \"test.a\"\n[limits.unsynced]\n\"USD\" = \"1\"\n",
                "asset must be written CODE/SCALE",
            ),
        ] {
            let error = load_text(text, &[]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        for (engine, expected) in [
            ("", "engine.accounting_url: is needed beside engine.listen"),
            (
                "accounting_url = \"127.0.0.1:7771\"",
                "engine.accounting_url: must begin with http",
            ),
            (
                "accounting_url = \"http://a.example\"",
                "engine.asset: is needed beside engine.listen",
            ),
            (
                "accounting_url = \"http://a.example\"\nasset = \"USD\"",
                "engine.asset: 'USD' asset must be written CODE/SCALE",
            ),
            (
                "accounting_url = \"http://a.example\"\nasset = \"USD/2\"\nchannel = \"symmetrical\"\nlimit = \"1.234\"",
                "engine.limit: '1.234' is no amount of USD",
            ),
            (
                "accounting_url = \"http://a.example\"\nasset = \"USD/2\"\ntheir_limit = \"1\"",
                "engine.channel: is needed beside limits",
            ),
        ] {
            let text = format!("{MINIMAL}[engine]\nlisten = \"127.0.0.1:3000\"\n{engine}\n");
            let error = load_text(&text, &[]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = load_text(MINIMAL, &[("RIALTO_NODE__LISTEN", "here")]).unwrap_err();
        let expected = "environment RIALTO_NODE__LISTEN: node.listen: ";
        assert!(error.starts_with(expected), "{error}");
        let loaded = load_text(MINIMAL, &[("RIALTO_NODE__SPREAD", "0.01")]).unwrap();
        assert_eq!(loaded.config.node.spread, "0.01".parse().unwrap());
    }
}
