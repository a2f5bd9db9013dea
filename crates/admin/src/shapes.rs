//! The JSON of requests and responses. Money is a text of integer minor units beside the code and
//! scale of its asset.

use std::collections::BTreeMap;

use rialto_ledger::{Relation, RouteExchange};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::{Problem, channels::ChannelTerms};

/// A number of units, zero or more, written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(pub u64);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let amount = digits.then(|| text.parse().ok()).flatten();
        amount.map(Self).ok_or_else(|| {
            let message = format!("'{text}' is not a number of units from 0 to {}", u64::MAX);
            D::Error::custom(message)
        })
    }
}

/// A number of units, negative ones too, written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SignedAmount(pub i128);

impl Serialize for SignedAmount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SignedAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let amount = (!text.starts_with('+'))
            .then(|| text.parse().ok())
            .flatten();
        amount
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("'{text}' is not a whole number of units")))
    }
}

/// How amounts stand in the description: as texts with a pattern.
macro_rules! amount_schema {
    ($type:ident, $pattern:literal, $example:literal, $description:literal) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some($pattern))
                    .examples([$example])
                    .description(Some($description))
                    .into()
            }
        }

        impl ToSchema for $type {}
    };
}

amount_schema!(
    Amount,
    "^[0-9]+$",
    "12000000000",
    "A number of units of the asset, zero or more."
);
amount_schema!(
    SignedAmount,
    "^-?[0-9]+$",
    "-12000000000",
    "A number of units of the asset."
);

/// What an account holder is to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountRelation {
    /// Gives the node its address; the default route.
    Parent,
    /// An equal.
    Peer,
    /// Gets its address from the node.
    Child,
    /// Has no node of its own: its payments are received and sent here.
    Local,
}

impl From<Relation> for AccountRelation {
    fn from(relation: Relation) -> Self {
        match relation {
            Relation::Parent => Self::Parent,
            Relation::Peer => Self::Peer,
            Relation::Child => Self::Child,
            Relation::Local => Self::Local,
        }
    }
}

impl From<AccountRelation> for Relation {
    fn from(relation: AccountRelation) -> Self {
        match relation {
            AccountRelation::Parent => Self::Parent,
            AccountRelation::Peer => Self::Peer,
            AccountRelation::Child => Self::Child,
            AccountRelation::Local => Self::Local,
        }
    }
}

/// What an account may do, in units of its asset. Null is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Lowest balance: minus the credit given. Zero or below; zero where it is left out.
    pub balance_min: SignedAmount,
    /// Largest packet accepted.
    pub packet_amount_max: Option<Amount>,
    /// Packets accepted per minute.
    pub packets_per_minute: Option<u32>,
    /// Packets sent to them per second, where their node lets only so many through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_out_per_second: Option<u32>,
    /// Amount accepted per minute.
    pub amount_per_minute: Option<Amount>,
    /// Packets accepted and not yet answered.
    pub in_flight_count_max: Option<u32>,
    /// Their amount.
    pub in_flight_amount_max: Option<Amount>,
    /// Amount in flight or not yet safe on disk: the most that a power failure can cost.
    pub unsynced_amount_max: Option<Amount>,
}

impl From<&rialto_ledger::Limits> for Limits {
    fn from(limits: &rialto_ledger::Limits) -> Self {
        Self {
            balance_min: SignedAmount(limits.balance_min),
            packet_amount_max: limits.packet_amount_max.map(Amount),
            packets_per_minute: limits.packets_per_minute,
            packets_out_per_second: limits.packets_out_per_second,
            amount_per_minute: limits.amount_per_minute.map(Amount),
            in_flight_count_max: limits.in_flight_count_max,
            in_flight_amount_max: limits.in_flight_amount_max.map(Amount),
            unsynced_amount_max: limits.unsynced_amount_max.map(Amount),
        }
    }
}

impl From<Limits> for rialto_ledger::Limits {
    fn from(limits: Limits) -> Self {
        let units = |amount: Option<Amount>| amount.map(|amount| amount.0);
        Self {
            balance_min: limits.balance_min.0,
            packet_amount_max: units(limits.packet_amount_max),
            packets_per_minute: limits.packets_per_minute,
            packets_out_per_second: limits.packets_out_per_second,
            amount_per_minute: units(limits.amount_per_minute),
            in_flight_count_max: limits.in_flight_count_max,
            in_flight_amount_max: units(limits.in_flight_amount_max),
            unsynced_amount_max: units(limits.unsynced_amount_max),
        }
    }
}

/// How routes are exchanged with an account by CCP. For a new account, what is null is as usual with its
/// relation: peers and the parent are told and asked, children are told. Afterwards null is no.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccountRoutes {
    /// Whether it is told the node's routes when it asks.
    pub send: Option<bool>,
    /// Whether it is asked for its routes.
    pub receive: Option<bool>,
    /// Only routes under one of these are taken from it; all where the list is empty.
    #[schema(example = json!(["g.hub"]))]
    pub prefixes: Vec<String>,
    /// Most routes that are taken from it; 10,000 where it is null.
    pub count_max: Option<u32>,
}

impl From<&RouteExchange> for AccountRoutes {
    fn from(routes: &RouteExchange) -> Self {
        Self {
            send: routes.send,
            receive: routes.receive,
            prefixes: routes.prefixes.iter().map(ToString::to_string).collect(),
            count_max: routes.count_max,
        }
    }
}

impl TryFrom<AccountRoutes> for RouteExchange {
    type Error = Problem;

    fn try_from(routes: AccountRoutes) -> Result<Self, Problem> {
        let read = |text: &String| {
            let invalid = |error| Problem::invalid("routes.prefixes", format!("'{text}': {error}"));
            text.parse().map_err(invalid)
        };
        Ok(Self {
            send: routes.send,
            receive: routes.receive,
            prefixes: routes.prefixes.iter().map(read).collect::<Result<_, _>>()?,
            count_max: routes.count_max,
        })
    }
}

/// Outgoing ILP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpLink {
    /// The peer's endpoint: `https://`, `http://`, or `h2c://` for HTTP/2 without TLS.
    #[schema(example = "https://hub.example/accounts/alice/ilp")]
    pub url: String,
    /// The bearer token to present, or the key that signs those of `jwt`. Never shown. A change that
    /// leaves the URL may leave it out. Empty where the node's certificate says who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub token: Option<String>,
    /// Tokens are made, and renewed in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// The peer is asked to send answers in requests of its own, to this node's public URL; one that
    /// answers at once is understood all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub callback: bool,
    /// Public keys, one of which the peer's server must have; its certificate is not looked at further.
    /// Without any, the certificate must be good for the name in the URL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]))]
    pub tls_pins: Vec<String>,
}

/// Outgoing BTP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BtpLink {
    /// The peer's endpoint; in requests it may carry username and token.
    #[schema(example = "btp+wss://hub.example/accounts/alice/ilp/btp")]
    pub url: String,
    /// The `auth_username` to present.
    #[serde(default)]
    pub username: Option<String>,
    /// The `auth_token` to present, or the key that signs those of `jwt`. Never shown. A change that
    /// leaves the URL may leave it out. Empty where the node's certificate says who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub token: Option<String>,
    /// A token is made for each connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Public keys, one of which the peer's server must have, as with ILP over HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_pins: Vec<String>,
}

/// How what we owe them is settled outside. Amounts are in units of the account's asset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SettlementTerms {
    /// Base URL of the settlement engine. Without one nothing is settled by the node.
    #[schema(example = "http://127.0.0.1:3000")]
    pub engine_url: Option<String>,
    /// A balance (what we owe them) at which a settlement is made at once.
    pub threshold: Option<SignedAmount>,
    /// The balance that a settlement leaves; below zero it pays ahead.
    pub settle_to: SignedAmount,
    /// Seconds between the first packet that is not settled and the settlement of all since.
    pub every_s: Option<u32>,
    /// Least amount that is settled when its time has come.
    pub amount_min: Amount,
    /// Which channels are opened and accepted without an operator.
    pub channel: Option<ChannelTerms>,
    /// The engine has channels, as another Rialto node does: what the peer says of channels is for it.
    pub engine_channels: bool,
    /// The account at an accounting system whose settlement engine this node is, as the URL of it there.
    #[schema(example = "http://127.0.0.1:7771/accounts/3")]
    pub accounting_url: Option<String>,
}

impl From<&rialto_ledger::SettlementTerms> for SettlementTerms {
    fn from(terms: &rialto_ledger::SettlementTerms) -> Self {
        Self {
            engine_url: terms.engine_url.clone(),
            threshold: terms.threshold.map(SignedAmount),
            settle_to: SignedAmount(terms.settle_to),
            every_s: terms.every_s,
            amount_min: Amount(terms.amount_min),
            channel: terms.channel.map(Into::into),
            engine_channels: terms.engine_channels,
            accounting_url: terms.accounting_url.clone(),
        }
    }
}

impl From<SettlementTerms> for rialto_ledger::SettlementTerms {
    fn from(terms: SettlementTerms) -> Self {
        Self {
            engine_url: terms.engine_url,
            threshold: terms.threshold.map(|amount| amount.0),
            settle_to: terms.settle_to.0,
            every_s: terms.every_s,
            amount_min: terms.amount_min.0,
            channel: terms.channel.map(Into::into),
            engine_channels: terms.engine_channels,
            accounting_url: terms.accounting_url,
        }
    }
}

/// A new account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountCreate {
    /// Unique; stands in URLs, addresses and metrics.
    #[schema(example = "bob", pattern = "^[A-Za-z0-9_~-]{1,64}$")]
    pub name: String,
    /// What they are to us.
    pub relation: AccountRelation,
    /// What amounts on this account count.
    #[schema(example = "USD")]
    pub asset_code: String,
    /// The smallest unit is 10^-scale.
    #[schema(example = 9)]
    pub asset_scale: u8,
    /// Their address, where it is not the node's own with the name after it.
    #[serde(default)]
    #[schema(example = "g.hub.bob")]
    pub ilp_address: Option<String>,
    /// What they may do.
    #[serde(default)]
    pub limits: Limits,
    /// Part of each of their payments that is kept.
    #[serde(default)]
    #[schema(example = "0.002")]
    pub spread: Option<String>,
    /// Their packets are refused and none are sent to them.
    #[serde(default)]
    pub paused: bool,
    /// How routes are exchanged with them.
    #[serde(default)]
    pub routes: AccountRoutes,
    /// The token that they present: 16 to 512 visible ASCII characters.
    #[serde(default)]
    #[schema(write_only)]
    pub incoming_token: Option<String>,
    /// Make an incoming token and show it once, in the answer.
    #[serde(default)]
    pub generate_token: bool,
    /// Public keys of client certificates, each of which opens the account like a token.
    #[serde(default)]
    #[schema(example = json!(["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]))]
    pub client_pins: Vec<String>,
    /// Outgoing ILP over HTTP.
    #[serde(default)]
    pub http: Option<HttpLink>,
    /// Outgoing BTP connection.
    #[serde(default)]
    pub btp: Option<BtpLink>,
    /// How what we owe them is settled.
    #[serde(default)]
    pub settlement: SettlementTerms,
}

/// A change of an account, as a JSON merge patch (RFC 7396): what is left out stays, null clears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountChange {
    /// What they are to us.
    #[schema(required = false)]
    pub relation: AccountRelation,
    /// Their address, where it is not the node's own with the name after it.
    #[serde(default)]
    pub ilp_address: Option<String>,
    /// What they may do. Limits that are left out stay.
    #[serde(default)]
    pub limits: Limits,
    /// Part of each of their payments that is kept.
    #[serde(default)]
    pub spread: Option<String>,
    /// Their packets are refused and none are sent to them.
    #[serde(default)]
    pub paused: bool,
    /// How routes are exchanged with them.
    #[serde(default)]
    pub routes: AccountRoutes,
    /// Outgoing ILP over HTTP.
    #[serde(default)]
    pub http: Option<HttpLink>,
    /// Outgoing BTP connection.
    #[serde(default)]
    pub btp: Option<BtpLink>,
    /// How what we owe them is settled. Terms that are left out stay.
    #[serde(default)]
    pub settlement: SettlementTerms,
}

/// Packets accepted and not yet answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InFlight {
    /// How many.
    pub count: u32,
    /// Their amount.
    pub amount: SignedAmount,
}

/// What is known of an incoming token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncomingToken {
    /// First eight hex digits of its SHA-256, or of a pin.
    #[schema(example = "9f86d081")]
    pub id: String,
    /// When it stops opening the account.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Set where the holder makes its tokens itself, and this is the key that verifies them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Set where it is no token, but the public key of a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub client_pin: Option<String>,
}

/// How a JSON Web Token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum JwtAlgorithm {
    /// By HMAC with a shared secret.
    #[serde(rename = "HS256")]
    Hs256,
    /// By Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// By RSA; verified only.
    #[serde(rename = "RS256")]
    Rs256,
}

impl From<JwtAlgorithm> for rialto_ledger::JwtAlgorithm {
    fn from(algorithm: JwtAlgorithm) -> Self {
        match algorithm {
            JwtAlgorithm::Hs256 => Self::Hs256,
            JwtAlgorithm::EdDsa => Self::EdDsa,
            JwtAlgorithm::Rs256 => Self::Rs256,
        }
    }
}

impl From<rialto_ledger::JwtAlgorithm> for JwtAlgorithm {
    fn from(algorithm: rialto_ledger::JwtAlgorithm) -> Self {
        match algorithm {
            rialto_ledger::JwtAlgorithm::Hs256 => Self::Hs256,
            rialto_ledger::JwtAlgorithm::EdDsa => Self::EdDsa,
            rialto_ledger::JwtAlgorithm::Rs256 => Self::Rs256,
        }
    }
}

/// Tokens that are made by whoever presents them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// How they are signed.
    pub algorithm: JwtAlgorithm,
    /// What they say as `sub`.
    #[schema(example = "alice")]
    pub subject: String,
    /// What they say as `iss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What they say as `aud`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// How long one is good for that this node makes: 30 to 300. Not for incoming ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u32>,
}

/// Whether packets can be sent to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// A BTP session is open.
    Up,
    /// There is no connection.
    Down,
    /// Each packet is an HTTP request.
    Http,
    /// The account is on this node.
    Local,
}

/// What was counted since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountStats {
    /// Prepares that came in.
    pub prepares_in: u64,
    /// Prepares that were sent out.
    pub prepares_out: u64,
    /// Fulfills passed back to them.
    pub fulfills_out: u64,
    /// Amount of those.
    pub amount_in: SignedAmount,
    /// Valid Fulfills that came from them.
    pub fulfills_in: u64,
    /// Amount of those.
    pub amount_out: SignedAmount,
    /// Rejects passed back to them.
    pub rejects_out: u64,
    /// Fulfills that came from them too late.
    pub late_fulfills: u64,
    /// Amount of those: what they lost.
    pub late_amount: SignedAmount,
    /// Fulfills passed back to them that found their session or request gone.
    pub undelivered_fulfills: u64,
    /// Amount of those: booked here, and perhaps not in their books.
    pub undelivered_amount: SignedAmount,
    /// Refusals of their packets, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// An account and where it stands. Positive balance: the node owes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// Unique.
    pub name: String,
    /// What they are to us.
    pub relation: AccountRelation,
    /// What amounts on this account count.
    pub asset_code: String,
    /// The smallest unit is 10^-scale.
    pub asset_scale: u8,
    /// The address in effect.
    pub ilp_address: Option<String>,
    /// Positive: we owe them. Negative: they owe us.
    pub balance: SignedAmount,
    /// What they may still send.
    pub available: SignedAmount,
    /// Of packets they sent.
    pub in_flight: InFlight,
    /// Paid by them and not yet known to be on disk.
    pub unsynced: SignedAmount,
    /// The balance in words.
    #[schema(example = "bob owes us 12.00 USD, free 988.00")]
    pub words: String,
    /// What they may do.
    pub limits: Limits,
    /// Part of each of their payments that is kept.
    pub spread: Option<String>,
    /// Their packets are refused and none are sent to them.
    pub paused: bool,
    /// How routes are exchanged with them.
    pub routes: AccountRoutes,
    /// The tokens that they may present, and the keys of their client certificates; newest last.
    pub incoming_tokens: Vec<IncomingToken>,
    /// Outgoing ILP over HTTP.
    pub http: Option<HttpLink>,
    /// Outgoing BTP connection.
    pub btp: Option<BtpLink>,
    /// How what we owe them is settled.
    pub settlement: SettlementTerms,
    /// What a settlement would pay now.
    pub settleable: Amount,
    /// Whether packets can be sent to them.
    pub link: Link,
    /// How far a neighbour has come, since this process started; null for a local account.
    pub state: Option<crate::Stage>,
    /// Since when.
    #[schema(format = DateTime)]
    pub state_since: Option<String>,
    /// What was wrong last.
    pub last_error: Option<LastError>,
    /// Of a local account.
    #[schema(example = "$hub.example/bob")]
    pub payment_pointer: Option<String>,
    /// Only where one account is asked for, and something happened on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<AccountStats>,
    /// A token that was just made. It is shown this once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming_token: Option<String>,
}

/// A mistake between the node and a neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastError {
    /// Its name, and what was seen.
    #[schema(example = "token.refused: https://hub.example/ilp answers 401 Unauthorized")]
    pub message: String,
    /// When it was found.
    #[schema(format = DateTime)]
    pub at: Option<String>,
}

/// A page of accounts, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accounts {
    /// The accounts.
    pub accounts: Vec<Account>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A token to be added to an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenCreate {
    /// 16 to 512 visible ASCII characters; made where it is left out. With `jwt` the key that verifies
    /// tokens: a shared secret in base64, or a public key as PEM or base64.
    #[schema(write_only)]
    pub token: Option<String>,
    /// The account's holder makes its tokens itself.
    pub jwt: Option<Jwt>,
    /// Instead of a token: the public key of a client certificate.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub client_pin: Option<String>,
    /// How long older tokens stay valid.
    pub grace_seconds: u32,
    /// Older tokens stay as they are.
    pub keep_others: bool,
}

/// A token that was added to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// First eight hex digits of its SHA-256.
    pub id: String,
    /// The token, if the node made it. It is shown this once.
    pub incoming_token: Option<String>,
}

/// Where an account stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// Name of the account.
    pub account: String,
    /// What its amounts count.
    pub asset_code: String,
    /// The smallest unit is 10^-scale.
    pub asset_scale: u8,
    /// Positive: we owe them. Negative: they owe us.
    pub balance: SignedAmount,
    /// What they may still send.
    pub available: SignedAmount,
    /// Of packets they sent.
    pub in_flight: InFlight,
    /// The balance in words.
    #[schema(example = "bob owes us 12.00 USD, free 988.00")]
    pub words: String,
}

/// The node's own position in an asset. All balances, `amount` and `settled` add up to zero; of several pages
/// only while nothing changes between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Position {
    /// The asset.
    pub asset_code: String,
    /// The smallest unit is 10^-scale.
    pub asset_scale: u8,
    /// What the node has gained in it by exchange.
    pub amount: SignedAmount,
    /// Paid out less what came in by settlements.
    pub settled: SignedAmount,
}

/// Who owes whom: a page of accounts, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Balances {
    /// Of the accounts.
    pub balances: Vec<Balance>,
    /// Of the node, per asset, with every page.
    pub positions: Vec<Position>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A correction of a balance to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdjustmentCreate {
    /// Name of the account.
    #[schema(example = "bob")]
    pub account: String,
    /// Added to the balance, and taken from the node's position. Positive: we owe them more.
    pub amount: SignedAmount,
    /// Why, in at most 1,000 bytes.
    #[schema(example = "settled by bank transfer 2026-11-23")]
    pub reason: String,
}

/// A correction of a balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adjustment {
    /// Names it.
    pub id: String,
    /// The account, by the name it had then.
    pub account: String,
    /// What its amounts count.
    pub asset_code: String,
    /// The smallest unit is 10^-scale.
    pub asset_scale: u8,
    /// Was added to the balance, and taken from the node's position.
    pub amount: SignedAmount,
    /// Why.
    pub reason: String,
    /// RFC 3339.
    pub created_at: Option<String>,
}

/// A page of adjustments, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adjustments {
    /// The adjustments.
    pub adjustments: Vec<Adjustment>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A statement of an account, as it was made and signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Statement {
    /// The account, by the name it had then.
    pub account: String,
    /// Counted from 1 for each account.
    pub number: u32,
    /// RFC 3339.
    pub closed_at: Option<String>,
    /// The balance that it ends with.
    pub closing: SignedAmount,
    /// What it says: a JSON object, byte for byte what was signed.
    pub text: String,
    /// SHA-256 of the text, by which the next one names it.
    pub hash: String,
    /// The node's Ed25519 signature.
    pub signature: String,
}

/// A page of statements, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Statements {
    /// The statements.
    pub statements: Vec<Statement>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Why a route is there. For the same prefix the first of these wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteSource {
    /// Set by the operator.
    Static,
    /// The node's own address.
    Own,
    /// The address of an account.
    Account,
    /// The parent takes what nobody else does.
    Parent,
    /// Told by a peer.
    Learnt,
}

/// A way for packets to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Of the destination, by whole segments. Empty for everything.
    #[schema(example = "g.bob")]
    pub prefix: String,
    /// Why it is there.
    pub source: RouteSource,
    /// Next hop; null for the node itself.
    pub account: Option<String>,
    /// Share of the destinations, where several accounts share a static route; 0 is a reserve.
    pub weight: u16,
    /// The nodes after this one, as a peer told them.
    pub path: Vec<String>,
    /// Whether packets take it while all is well; otherwise it stands by.
    pub active: bool,
}

/// A page of routes, sorted by prefix; pages follow each other in no order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Routes {
    /// The routes. There may be a few more than were asked for.
    pub routes: Vec<Route>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Which routes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RoutesQuery {
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Routes on the page, 1 to 200; 50 where it is left out.
    #[serde(with = "rialto_ledger::text::option")]
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<usize>,
    /// Also those that stand by.
    #[serde(with = "rialto_ledger::text")]
    pub all: bool,
}

/// One of several next hops of a static route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteHop {
    /// The account that packets go to.
    #[schema(example = "bob")]
    pub account: String,
    /// Its share of the destinations; 0 is a reserve for when no other works.
    pub weight: u16,
}

/// A static route to be set: to one account, or to several that share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoutePut {
    /// Of the destination, by whole segments. Empty for everything.
    #[schema(example = "g.bob")]
    pub prefix: String,
    /// Next hop. To be left out where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "bob")]
    pub account: Option<String>,
    /// Several next hops.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<RouteHop>,
}

/// Names a static route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RouteKey {
    /// Of the destination, by whole segments. Empty for everything.
    pub prefix: String,
}

/// The price of one asset in another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Code of the asset that is paid with.
    #[schema(example = "USD")]
    pub from: String,
    /// Code of the asset that is bought.
    #[schema(example = "EUR")]
    pub to: String,
    /// Whole units of the second for one whole unit of the first.
    #[schema(example = "0.92")]
    pub rate: String,
    /// Part that is kept; the default spread where it is null.
    #[serde(default)]
    #[schema(example = "0.002")]
    pub spread: Option<String>,
    /// From then on nothing is converted at this rate.
    #[serde(default)]
    #[schema(format = DateTime, example = "2030-01-01T00:00:00Z")]
    pub valid_until: Option<String>,
    /// When it was set. Not to be given.
    #[serde(default)]
    #[schema(format = DateTime, read_only)]
    pub set_at: Option<String>,
}

/// All rates that were set. Each holds for the opposite direction too, unless that has its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    /// The rates.
    pub rates: Vec<Rate>,
    /// Kept of each conversion where a rate says nothing else.
    #[schema(example = "0.002")]
    pub default_spread: String,
    /// Prices from outside, for pairs without a rate of their own; null where none are configured.
    pub feed: Option<RateFeed>,
}

/// Prices from a source outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RateFeed {
    /// Where they come from.
    #[schema(example = "http https://rates.example/ USD")]
    pub source: String,
    /// The code that prices are given in; empty before the first answer.
    #[schema(example = "USD")]
    pub base: String,
    /// The age at which a price converts nothing any more.
    pub age_seconds_max: i64,
    /// When the source failed; null when it works.
    #[schema(format = DateTime)]
    pub failed_at: Option<String>,
    /// Why it failed; null when it works.
    pub failure: Option<String>,
    /// The prices in force.
    pub prices: Vec<FeedPrice>,
}

/// One price from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedPrice {
    /// Of this asset code.
    #[schema(example = "EUR")]
    pub code: String,
    /// Whole units of it for one whole unit of the base.
    #[schema(example = "0.92")]
    pub rate: String,
    /// How old it is.
    pub age_seconds: i64,
    /// Too old: nothing is converted at it.
    pub stale: bool,
    /// What the source says now, where that moved too far to be taken at once.
    pub waiting: Option<String>,
}

/// Prices of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RatesTable {
    /// The code that prices are given in.
    #[schema(example = "USD")]
    pub base: String,
    /// By asset code: whole units of it for one whole unit of the base, as a number or a text.
    #[schema(example = json!({"EUR": "0.92"}))]
    pub rates: BTreeMap<String, String>,
}

/// What came of a table of prices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RatesPushed {
    /// Codes whose prices moved too far and wait to be confirmed; all others were taken.
    pub moved: Vec<String>,
}

/// Names a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PriceKey {
    /// Its asset code.
    pub code: String,
}

/// Names a rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RateKey {
    /// Code of the asset that is paid with.
    pub from: String,
    /// Code of the asset that is bought.
    pub to: String,
}

/// An amount with its asset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Money {
    /// In units.
    pub amount: Amount,
    /// The asset; null while it is not known.
    pub asset_code: Option<String>,
    /// The smallest unit is 10^-scale; null while it is not known.
    pub asset_scale: Option<u8>,
}

/// What a payment would deliver is to be found out. Either `amount` or `deliver_amount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuoteCreate {
    /// The local account that would pay.
    #[schema(example = "alice")]
    pub account: String,
    /// Payment pointer or SPSP URL.
    #[schema(example = "$bob.example")]
    pub receiver: String,
    /// Units that leave, of the account's asset.
    #[serde(default)]
    pub amount: Option<Amount>,
    /// Units that arrive, of the receiver's asset.
    #[serde(default)]
    pub deliver_amount: Option<Amount>,
    /// Most units in one packet.
    #[serde(default)]
    pub packet_max: Option<Amount>,
}

/// What a payment would deliver at the present rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quote {
    /// What would leave.
    pub send_amount: Money,
    /// What would arrive.
    pub deliver_amount: Money,
    /// Whole units that arrive for one whole unit sent.
    #[schema(example = "0.91816")]
    pub rate: String,
    /// Most units in one packet, as far as the path has shown a limit.
    pub packet_amount_max: Option<Amount>,
    /// The URL that answered.
    pub receiver_url: String,
}

/// A payment to be made. Either `amount` or `deliver_amount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentCreate {
    /// The local account that pays.
    #[schema(example = "alice")]
    pub account: String,
    /// Payment pointer or SPSP URL.
    #[schema(example = "$bob.example")]
    pub receiver: String,
    /// Units that leave, of the account's asset.
    #[serde(default)]
    pub amount: Option<Amount>,
    /// Units that arrive, of the receiver's asset.
    #[serde(default)]
    pub deliver_amount: Option<Amount>,
    /// Most units in one packet.
    #[serde(default)]
    pub packet_max: Option<Amount>,
    /// How much worse than at the start the rate may get; 0.01 where it is left out.
    #[serde(default)]
    #[schema(example = "0.01")]
    pub slippage: Option<String>,
    /// Least whole units that arrive for one whole unit sent, instead of slippage.
    #[serde(default)]
    #[schema(example = "0.9")]
    pub rate_min: Option<String>,
}

/// Whether a payment has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// It has not.
    Running,
    /// All of it was sent or delivered.
    Completed,
    /// It stopped; what was sent and delivered until then is exact.
    Failed,
}

/// Packets of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PaymentPackets {
    /// That paid.
    pub fulfilled: u64,
    /// That did not.
    pub rejected: u64,
}

/// Why a payment failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PaymentError {
    /// Stable word for programs.
    #[schema(example = "rate_too_low")]
    pub code: String,
    /// For people.
    pub message: String,
}

/// An outgoing payment and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Payment {
    /// Names it.
    #[schema(example = "1")]
    pub id: String,
    /// Who pays.
    pub account: String,
    /// As it was asked for.
    pub receiver: String,
    /// Whether it has ended.
    pub state: PaymentState,
    /// What has left.
    pub sent: Money,
    /// What has arrived.
    pub delivered: Money,
    /// How many packets it took.
    pub packets: PaymentPackets,
    /// Why it failed.
    pub error: Option<PaymentError>,
    /// When it was asked for.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// A page of payments, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Payments {
    /// The payments.
    pub payments: Vec<Payment>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A ping to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PingCreate {
    /// The local account that sends it.
    #[schema(example = "alice")]
    pub account: String,
    /// The ILP address of a node.
    #[schema(example = "g.hub")]
    pub destination: String,
    /// What the ping pays; zero where it is left out.
    #[serde(default)]
    pub amount: Amount,
}

/// How a ping went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ping {
    /// Whether the node answered.
    pub reached: bool,
    /// There and back, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1.234")]
    pub round_trip_ms: Option<String>,
    /// ILP error code of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "F02")]
    pub code: Option<String>,
    /// In the words of whoever refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The address of whoever refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered_by: Option<String>,
}

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Journal {
    /// Number of the last record handed to the operating system.
    pub written: u64,
    /// Number of the last record known to be on disk.
    pub synced: u64,
    /// Why it takes no records any more.
    pub failure: Option<String>,
}

/// Accounts by how they can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Links {
    /// With an open BTP session.
    pub up: usize,
    /// Without a connection.
    pub down: usize,
    /// By ILP over HTTP.
    pub http: usize,
    /// On this node.
    pub local: usize,
}

/// How the node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// As configured.
    pub name: String,
    /// Of the program.
    pub version: String,
    /// Its own address; null while it waits for its parent to tell.
    #[schema(example = "g.hub")]
    pub ilp_address: Option<String>,
    /// Where others reach the node listener.
    #[schema(example = "https://hub.example")]
    pub public_url: String,
    /// Why the parent gave no address, or another that was refused; null when all is well.
    pub address_problem: Option<String>,
    /// Since the start.
    pub uptime_ms: u64,
    /// It is about to stop and takes nothing new.
    pub draining: bool,
    /// I/O threads.
    pub workers: usize,
    /// The journal.
    pub journal: Journal,
    /// Accounts by how they can be reached.
    pub links: Links,
    /// Packets in flight.
    pub in_flight_count: usize,
    /// Payments that run.
    pub payments_running: usize,
}

/// A settlement that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettlementCreate {
    /// Name of the account.
    #[schema(example = "bob")]
    pub account: String,
    /// In units of the account's asset; what its terms say is owed where it is left out.
    #[serde(default)]
    pub amount: Option<Amount>,
}

/// Why a settlement was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettlementCause {
    /// What we owed reached the threshold.
    Threshold,
    /// Its time had come.
    Schedule,
    /// An operator asked for it.
    Manual,
    /// The accounting system asked for it whose settlement engine this node is.
    Instruction,
    /// What came in over a channel is told to that accounting system.
    Report,
}

impl From<rialto_ledger::SettlementCause> for SettlementCause {
    fn from(cause: rialto_ledger::SettlementCause) -> Self {
        match cause {
            rialto_ledger::SettlementCause::Threshold => Self::Threshold,
            rialto_ledger::SettlementCause::Schedule => Self::Schedule,
            rialto_ledger::SettlementCause::Manual => Self::Manual,
            rialto_ledger::SettlementCause::Instruction => Self::Instruction,
            rialto_ledger::SettlementCause::Report => Self::Report,
        }
    }
}

/// How far a settlement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettlementState {
    /// The engine is asked until it says that it has it.
    Open,
    /// The engine has it, and pays.
    Accepted,
    /// The engine refused it: an operator decides.
    Parked,
    /// An operator took it back.
    Cancelled,
}

/// An outgoing settlement. Its amount has left the balance, unless it was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settlement {
    /// Its number.
    pub id: String,
    /// Whom it pays; null once the account is deleted.
    pub account: Option<String>,
    /// How much.
    pub amount: Amount,
    /// Of what.
    pub asset_code: Option<String>,
    /// The smallest unit is 10^-scale.
    pub asset_scale: Option<u8>,
    /// Why it was made.
    pub cause: SettlementCause,
    /// The key that the engine gets with it, always the same.
    pub key: String,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
    /// How far it has come.
    pub state: SettlementState,
    /// The channel that it is paid over; null where an engine pays.
    pub channel: Option<String>,
    /// Times that the engine did not answer since the start.
    pub failures: u32,
    /// What the engine said, or why it could not be asked.
    pub message: Option<String>,
}

/// A page of settlements, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settlements {
    /// The settlements.
    pub settlements: Vec<Settlement>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Who paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The node paid them.
    Paid,
    /// They paid the node.
    Received,
}

impl From<Direction> for rialto_ledger::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Paid => Self::Paid,
            Direction::Received => Self::Received,
        }
    }
}

impl From<rialto_ledger::Direction> for Direction {
    fn from(direction: rialto_ledger::Direction) -> Self {
        match direction {
            rialto_ledger::Direction::Paid => Self::Paid,
            rialto_ledger::Direction::Received => Self::Received,
        }
    }
}

/// What was paid outside of the node, to be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HandSettlementCreate {
    /// Name of the account.
    #[schema(example = "bob")]
    pub account: String,
    /// Who paid.
    pub direction: Direction,
    /// How much.
    pub amount: Amount,
    /// Names the transfer, 1 to 255 bytes. A second one with the account, the direction and the amount
    /// is the same settlement.
    #[schema(example = "SEPA 2026-11-03 4711")]
    pub reference: String,
}

/// Where a settlement by hand stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandSettlementState {
    /// It waits for a second operator, and is not in the balance.
    Proposed,
    /// It is in the balance.
    Settled,
    /// It never was in the balance.
    Declined,
}

/// A settlement outside of the node, as operators wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HandSettlement {
    /// Its number. Settlements of all kinds are numbered together.
    pub id: String,
    /// Name that the account had then.
    pub account: String,
    /// Who paid.
    pub direction: Direction,
    /// How much.
    pub amount: Amount,
    /// Of what.
    pub asset_code: String,
    /// The smallest unit is 10^-scale.
    pub asset_scale: u8,
    /// Names the transfer.
    pub reference: String,
    /// Where it stands.
    pub state: HandSettlementState,
    /// Name of the token that wrote it down.
    pub recorded_by: String,
    /// When.
    #[schema(format = DateTime)]
    pub recorded_at: Option<String>,
    /// Name of the token that approved or declined it; null where none did.
    pub decided_by: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    pub decided_at: Option<String>,
}

/// A page of settlements by hand, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HandSettlements {
    /// The settlements.
    pub hand_settlements: Vec<HandSettlement>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}
