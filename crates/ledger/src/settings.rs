//! What operators decide about accounts and rates.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    str::FromStr,
    sync::Arc,
};

use rialto_packet::{
    Address, Prefix, address,
    money::{Asset, Ratio},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{channel::ChannelTerms, text};

/// Names an account for ever; never used again after a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(pub u32);

impl AccountId {
    /// The node itself: what it earns by answering pings. It has no balance, only its position.
    pub const NODE: Self = Self(0);
}

/// Names an outgoing payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PaymentId(pub u64);

/// Longest account name.
pub const NAME_BYTES_MAX: usize = 64;

/// Most incoming tokens of one account: enough to rotate without a gap.
pub const TOKENS_MAX: usize = 8;

/// Most keys that the server of one link may have: the same.
pub const PINS_MAX: usize = 8;

/// Whether `name` can name an account: it stands in URLs, addresses and metrics.
pub fn check_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && address::is_segment(name)
}

/// What the account holder is to us (RFC 34).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Gives us our address; our default route.
    Parent,
    /// An equal.
    Peer,
    /// Gets its address from us.
    Child,
    /// Has no node of its own: its payments are received and sent here.
    Local,
}

/// SHA-256 of a bearer token; the token itself is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// SHA-256 of a public key as certificates have it (the DER of their SubjectPublicKeyInfo). Written
/// `sha256:` and 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPin(pub [u8; 32]);

/// A text that is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be sha256: and 64 hex digits, as `rialto certificate pin FILE` prints them")]
pub struct PinError;

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let digits = text.strip_prefix("sha256:").ok_or(PinError)?;
        hash_from_hex(digits).map(Self).ok_or(PinError)
    }
}

/// A token that an account holder may present, the key by which the ones that they make themselves are
/// verified, or the pin of a key that they show in a TLS client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncomingToken {
    /// What is kept of a token; of a key, its name; of a pin, all of it.
    pub hash: TokenHash,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Box<IncomingJwt>>,
    /// The hash is that of a public key in certificates, and opens nothing as a token.
    #[serde(default, skip_serializing_if = "text::is_default")]
    pub pin: bool,
    /// From this instant on (milliseconds since 1970) it no longer opens anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
}

/// How a JSON Web Token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    /// By HMAC with a shared secret.
    #[serde(rename = "HS256")]
    Hs256,
    /// By Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// By RSA, PKCS #1 v1.5 and SHA-256; verified only.
    #[serde(rename = "RS256")]
    Rs256,
}

impl JwtAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hs256, Self::EdDsa, Self::Rs256];

    /// As tokens call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    /// The one that is called so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }
}

/// What a token says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtClaims {
    /// `sub`.
    pub subject: String,
    /// `iss`; any where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `aud`; none where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// How tokens are verified that an account holder makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncomingJwt {
    /// The only one that is taken.
    pub algorithm: JwtAlgorithm,
    /// The shared secret, or the public key.
    pub key: SealedSecret,
    /// What they must say.
    pub claims: JwtClaims,
}

/// How tokens are made that we present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutgoingJwt {
    /// How they are signed.
    pub algorithm: JwtAlgorithm,
    /// What they say.
    pub claims: JwtClaims,
    /// How long one is good for.
    pub lifetime_s: u32,
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = hash_from_hex(&text);
        let error = || D::Error::custom("token hash must be 64 hex digits");
        hash.map(Self).ok_or_else(error)
    }
}

fn hash_from_hex(text: &str) -> Option<[u8; 32]> {
    // A sign would be taken for a digit.
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}

/// A secret that was encrypted before it came here; only the shell can open it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedSecret(pub String);

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedSecret(..)")
    }
}

/// Where packets go by ILP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpLink {
    /// The peer's endpoint, `https://`, `http://`, or `h2c://` for HTTP/2 without TLS.
    pub url: String,
    /// The bearer token to present; where `jwt` is there, the key that signs them. None where our
    /// certificate says enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SealedSecret>,
    /// Tokens are made, and renewed in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<OutgoingJwt>,
    /// The peer is asked to send answers in requests of its own (RFC 35).
    #[serde(default, skip_serializing_if = "text::is_default")]
    pub callback: bool,
    /// The keys that the peer's server may have, whatever else its certificate says. Where there is
    /// none, its certificate has to be good for its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "text::list")]
    pub tls_pins: Vec<KeyPin>,
}

/// Where a BTP connection is kept up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BtpLink {
    /// The peer's endpoint without user and token, `btp+ws://` or `btp+wss://`.
    pub url: String,
    /// The `auth_username` to present, if the peer wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The `auth_token` to present; where `jwt` is there, the key that signs them. None where our
    /// certificate says enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SealedSecret>,
    /// A token is made for each connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<OutgoingJwt>,
    /// The keys that the peer's server may have, as in [`HttpLink`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "text::list")]
    pub tls_pins: Vec<KeyPin>,
}

/// What an account may do. Amounts are in units of its asset; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Lowest balance: minus the credit given. Zero or below.
    #[serde(with = "text")]
    pub balance_min: i128,
    /// Largest packet accepted; a larger one is told so by F08.
    #[serde(with = "text::option")]
    pub packet_amount_max: Option<u64>,
    /// Packets accepted per minute.
    pub packets_per_minute: Option<u32>,
    /// Packets sent to them per second, where their node lets only so many through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_out_per_second: Option<u32>,
    /// Amount accepted per minute.
    #[serde(with = "text::option")]
    pub amount_per_minute: Option<u64>,
    /// Packets accepted and not yet answered.
    pub in_flight_count_max: Option<u32>,
    /// Their amount.
    #[serde(with = "text::option")]
    pub in_flight_amount_max: Option<u64>,
    /// Amount in flight and committed but not yet safe on disk: the most that a power failure can
    /// cost us on this account.
    #[serde(with = "text::option")]
    pub unsynced_amount_max: Option<u64>,
}

/// Packets a second that a Rafiki node is sent: its limiter passes nothing any more above 166.
pub const RAFIKI_PACKETS_PER_SECOND: u32 = 150;

impl Limits {
    /// Those of a Rafiki node: at its pace, unless they say another.
    #[must_use]
    pub fn or_rafikis(mut self) -> Self {
        self.packets_out_per_second
            .get_or_insert(RAFIKI_PACKETS_PER_SECOND);
        self
    }
}

/// Most routes that are learnt from one peer where its account says nothing.
pub const ROUTES_MAX: u32 = 10_000;

/// How routes are exchanged with an account by CCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteExchange {
    /// Whether it is told ours when it asks; it is not unless this says so. See [`Self::or_usual`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<bool>,
    /// Whether we ask for its routes; we do not unless this says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<bool>,
    /// Only routes under one of these are taken from it; all where the list is empty.
    #[serde(skip_serializing_if = "Vec::is_empty", with = "text::list")]
    pub prefixes: Vec<Prefix>,
    /// Most routes that are taken from it; [`ROUTES_MAX`] where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_max: Option<u32>,
}

impl RouteExchange {
    /// No routes, in neither direction.
    pub fn none() -> Self {
        Self {
            send: Some(false),
            receive: Some(false),
            ..Self::default()
        }
    }

    /// What is left open becomes what is usual with a neighbour: peers and the parent are told and asked,
    /// children are told alone, since they are reached by their addresses.
    #[must_use]
    pub fn or_usual(mut self, relation: Relation) -> Self {
        let (send, receive) = match relation {
            Relation::Peer | Relation::Parent => (true, true),
            Relation::Child => (true, false),
            Relation::Local => return self,
        };
        self.send.get_or_insert(send);
        self.receive.get_or_insert(receive);
        self
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One next hop of a static route that has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteShare {
    /// The account that packets go to.
    pub account: AccountId,
    /// Its share of the destinations; 0 is a reserve for when no other works.
    pub weight: u16,
}

/// Where a static route leads. There may be a million of them, nearly all to one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaticRoute {
    /// To this account.
    One(AccountId),
    /// To several.
    Several(Box<[RouteShare]>),
}

impl StaticRoute {
    /// As a record says it: with several next hops `account` is the first of `shares`.
    pub(crate) fn new(account: AccountId, shares: &[RouteShare]) -> Self {
        match shares {
            [] => Self::One(account),
            _ => Self::Several(shares.into()),
        }
    }

    /// As a record says it.
    pub(crate) fn parts(&self) -> (AccountId, Vec<RouteShare>) {
        match self {
            Self::One(account) => (*account, Vec::new()),
            Self::Several(shares) => (shares[0].account, shares.to_vec()),
        }
    }

    /// The next hops.
    pub fn hops(&self) -> Vec<RouteShare> {
        match self {
            Self::One(account) => vec![RouteShare {
                account: *account,
                weight: 1,
            }],
            Self::Several(shares) => shares.to_vec(),
        }
    }

    /// Takes an account out that is gone. Says whether any next hop is left.
    pub(crate) fn without(&mut self, gone: AccountId) -> bool {
        match self {
            Self::One(account) => *account != gone,
            Self::Several(shares) => {
                let left = shares.iter().filter(|share| share.account != gone);
                *shares = left.copied().collect();
                !shares.is_empty()
            }
        }
    }
}

/// When and how what we owe an account holder is settled outside. Amounts are in units of the
/// account's asset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettlementTerms {
    /// Base URL of the settlement engine (RFC 38). Without one nothing is settled by the node.
    pub engine_url: Option<String>,
    /// A balance (what we owe them) at which a settlement is made at once.
    #[serde(with = "text::option")]
    pub threshold: Option<i128>,
    /// The balance that a settlement leaves; below zero it pays ahead.
    #[serde(with = "text")]
    pub settle_to: i128,
    /// Seconds between the first packet that is not settled and the settlement of all since.
    pub every_s: Option<u32>,
    /// Least amount that is settled when its time has come.
    #[serde(with = "text")]
    pub amount_min: u64,
    /// Which channels are opened and accepted without an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelTerms>,
    /// The engine has channels like ours, as other nodes of this kind do: frames of channels are for it.
    #[serde(skip_serializing_if = "text::is_default")]
    pub engine_channels: bool,
    /// The account at an accounting system whose settlement engine we are (RFC 38), as the URL of it there.
    /// What it asks us to pay is owed and leaves over a channel; what comes in over a channel is theirs
    /// and told to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounting_url: Option<String>,
}

/// One counterparty, in one asset.
///
/// In JSON the terms stand beside the name, in one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSettings {
    /// Unique; see [`check_name`].
    pub name: String,
    /// What they may present to us, newest last; at most [`TOKENS_MAX`].
    pub incoming_tokens: Vec<IncomingToken>,
    /// All else. Accounts in the books that have the same share them.
    pub terms: Arc<AccountTerms>,
}

/// What many accounts may have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountTerms {
    /// What they are to us.
    pub relation: Relation,
    /// What amounts on this account count.
    #[serde(with = "text")]
    pub asset: Asset,
    /// Their address, where it is not our own with the name after it.
    #[serde(default, with = "text::option")]
    pub ilp_address: Option<Address>,
    /// What they may do.
    #[serde(default)]
    pub limits: Limits,
    /// Part of each of their payments that we keep, such as 0.002, beside the spread of the pair.
    #[serde(default)]
    pub spread: Option<String>,
    /// Outgoing ILP over HTTP.
    #[serde(default)]
    pub http: Option<HttpLink>,
    /// Outgoing BTP connection.
    #[serde(default)]
    pub btp: Option<BtpLink>,
    /// Their packets are refused and none are sent to them.
    #[serde(default)]
    pub paused: bool,
    /// How routes are exchanged with them.
    #[serde(default, skip_serializing_if = "RouteExchange::is_default")]
    pub routes: RouteExchange,
    /// How what we owe them is settled.
    #[serde(default, skip_serializing_if = "text::is_default")]
    pub settlement: SettlementTerms,
}

impl AccountTerms {
    /// Those of a counterparty of whom nothing else was said: no credit, no link to it and no exchange of
    /// routes.
    pub fn new(relation: Relation, asset: Asset) -> Self {
        Self {
            relation,
            asset,
            ilp_address: None,
            limits: Limits::default(),
            spread: None,
            http: None,
            btp: None,
            paused: false,
            routes: RouteExchange::default(),
            settlement: SettlementTerms::default(),
        }
    }
}

impl Deref for AccountSettings {
    type Target = AccountTerms;

    fn deref(&self) -> &AccountTerms {
        &self.terms
    }
}

impl DerefMut for AccountSettings {
    /// Those of this account alone: others that shared them keep what they have.
    fn deref_mut(&mut self) -> &mut AccountTerms {
        Arc::make_mut(&mut self.terms)
    }
}

impl Serialize for AccountSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            name: &'a str,
            incoming_tokens: &'a [IncomingToken],
            #[serde(flatten)]
            terms: &'a AccountTerms,
        }
        let flat = Flat {
            name: &self.name,
            incoming_tokens: &self.incoming_tokens,
            terms: &self.terms,
        };
        flat.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AccountSettings {
    /// By way of a map, because serde does not find unknown fields where one struct is flattened into
    /// another.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let name = fields.remove("name");
        let name = name.ok_or_else(|| D::Error::missing_field("name"))?;
        let tokens = fields.remove("incoming_tokens");
        let tokens = tokens.unwrap_or_else(|| Value::Array(Vec::new()));
        let terms: AccountTerms =
            serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)?;
        Ok(Self {
            name: serde_json::from_value(name).map_err(D::Error::custom)?,
            incoming_tokens: serde_json::from_value(tokens).map_err(D::Error::custom)?,
            terms: terms.into(),
        })
    }
}

impl AccountTerms {
    /// Whether they are told our routes when they ask.
    pub fn sends_routes(&self) -> bool {
        !self.paused && self.relation != Relation::Local && self.routes.send == Some(true)
    }

    /// Whether we ask for their routes.
    pub fn receives_routes(&self) -> bool {
        !self.paused && self.relation != Relation::Local && self.routes.receive == Some(true)
    }

    /// [`Self::spread`] as a ratio; it was checked when the settings were made.
    pub fn spread_ratio(&self) -> Option<Ratio> {
        self.spread.as_deref().and_then(|text| text.parse().ok())
    }
}

/// An exchange rate between asset codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Whole units of the second asset for one whole unit of the first, such as `0.92`.
    pub rate: String,
    /// Part that we keep, such as `0.002`; the node's default where it is missing.
    #[serde(default)]
    pub spread: Option<String>,
    /// From this instant on (milliseconds since 1970) the rate is stale and nothing is converted.
    #[serde(default)]
    pub valid_until_ms: Option<i64>,
    /// When it was set, in milliseconds since 1970; unknown for rates of earlier versions.
    #[serde(default)]
    pub set_at_ms: Option<i64>,
}
