//! Who may come in, and where packets go out.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::{constant_time, digest};
use hashbrown::HashTable;
use http::{
    HeaderMap, HeaderValue, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
    uri::{Authority, PathAndQuery, Scheme},
};
use parking_lot::RwLock;
use rialto_btp::BtpUri;
use rialto_connector::{
    Reason,
    jwt::{Decoys, Jwt, JwtError, KeyError, Signer, Verifier},
};
use rialto_ledger::{
    AccountId, AccountSettings, IncomingToken, KeyPin, OutgoingJwt, TokenHash, TokenTable,
    by_place, tokens_of,
};
use rialto_packet::Timestamp;
use thiserror::Error;

use crate::callers::Callers;

/// Media type of ILP packets.
pub(crate) const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Scheme of URLs for HTTP/2 over plain TCP.
pub(crate) const H2C: &str = "h2c";

/// One account, as far as links need to know it.
#[derive(Clone)]
pub struct Account {
    /// Which.
    pub id: AccountId,
    /// Those of the books.
    pub settings: Arc<AccountSettings>,
    /// What was made of them; most of very many accounts have nothing that anything is made of.
    pub opened: Option<Arc<Opened>>,
}

/// What is made of an account's settings with the node's secret.
#[derive(Clone, Default)]
pub struct Opened {
    /// What verifies tokens that its holder makes, and the instant (milliseconds since 1970) from which
    /// on it does not.
    pub verifiers: Vec<(Arc<Verifier>, Option<i64>)>,
    /// Where its packets go by ILP over HTTP.
    pub http: Option<HttpPeer>,
    /// Where a BTP connection is kept up.
    pub btp: Option<BtpPeer>,
}

impl Account {
    /// Where its packets go by ILP over HTTP.
    pub fn http(&self) -> Option<&HttpPeer> {
        self.opened.as_ref()?.http.as_ref()
    }

    /// Where a BTP connection is kept up.
    pub fn btp(&self) -> Option<&BtpPeer> {
        self.opened.as_ref()?.btp.as_ref()
    }

    fn verifiers(&self) -> &[(Arc<Verifier>, Option<i64>)] {
        let opened = self.opened.as_ref();
        opened.map_or(&[], |opened| &opened.verifiers)
    }
}

/// Accounts that are entered together into the tables, in the order in which those have them: a table that is
/// larger than the caches is then written from its beginning to its end.
const BATCH_ACCOUNTS: usize = 131_072;

/// Every account. Changed in place, one account at a time; connections that remember who they belong to
/// ask only after a change.
#[derive(Default)]
pub struct Directory {
    all: RwLock<All>,
    /// Another one after each change, and in each directory.
    version: AtomicU64,
}

static LAST_VERSION: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct All {
    /// By their numbers, which are used from 1 up.
    accounts: Vec<Option<Account>>,
    names: HashTable<AccountId>,
    tokens: TokenTable,
    /// Accounts whose holders make their tokens, by what those say whose they are.
    subjects: HashMap<String, Vec<AccountId>>,
    dialled: BTreeSet<AccountId>,
    /// How many pins of client certificates the accounts have.
    pin_count: usize,
    /// Names are chosen by people: their hashes are keyed.
    key: RandomState,
}

/// Whose token it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The account.
    pub account: AccountId,
    /// From this instant on (milliseconds since 1970) the token opens nothing.
    until_ms: Option<i64>,
    /// Of the directory that said so.
    version: u64,
}

/// Tokens of nobody cost as much as those of somebody.
static DECOYS: LazyLock<Decoys> = LazyLock::new(Decoys::default);

impl All {
    fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id.0 as usize)?.as_ref()
    }

    fn named(&self, name: &str) -> Option<AccountId> {
        let is_named = |id: &AccountId| {
            let account = self.account(*id);
            account.is_some_and(|account| account.settings.name == name)
        };
        self.names.find(self.key.hash_one(name), is_named).copied()
    }

    /// Whose token has this hash, and until when it opens the account.
    fn opened_by(&self, hash: TokenHash) -> Option<(AccountId, Option<i64>)> {
        self.opened_with(hash, |token| token.jwt.is_none() && !token.pin)
    }

    /// Whose client certificates have this key, and until when it opens the account.
    fn opened_by_key(&self, pin: KeyPin) -> Option<(AccountId, Option<i64>)> {
        self.opened_with(TokenHash(pin.0), |token| token.pin)
    }

    fn opened_with(
        &self,
        hash: TokenHash,
        is_of_kind: impl Fn(&IncomingToken) -> bool,
    ) -> Option<(AccountId, Option<i64>)> {
        let settings = settings_in(&self.accounts);
        let (account, token) = self.tokens.find(hash, settings, is_of_kind)?;
        Some((account, token.expires_at_ms))
    }

    /// Room for so many more, each with one token: very many accounts come at once when a node starts, and
    /// a table that grows looks at each account again.
    fn reserve(&mut self, more: usize) {
        self.accounts.reserve(more);
        let (accounts, key) = (&self.accounts, &self.key);
        self.names.reserve(more, |id| hash_name(accounts, key, *id));
        self.tokens.reserve(more, settings_in(accounts));
    }

    /// Accounts of different numbers, names and tokens.
    fn put_all(&mut self, mut accounts: impl Iterator<Item = Account>) {
        self.reserve(accounts.size_hint().0);
        loop {
            let (mut names, mut tokens) = (Vec::new(), Vec::new());
            for account in accounts.by_ref().take(BATCH_ACCOUNTS) {
                let settings = Arc::clone(&account.settings);
                names.push((self.key.hash_one(settings.name.as_str()), account.id));
                self.pin_count += pins(&settings);
                tokens.extend(tokens_of(account.id, &settings));
                self.put(account);
            }
            if names.is_empty() {
                return;
            }
            let in_names = self.names.num_buckets().max(1) as u64;
            let (accounts, key) = (&self.accounts, &self.key);
            for (hash, id) in by_place(names, in_names, |(hash, _)| *hash) {
                self.names
                    .insert_unique(hash, id, |id| hash_name(accounts, key, *id));
            }
            self.tokens.enter(tokens, settings_in(accounts));
        }
    }

    /// An account that is still to be found by its name and tokens.
    fn put(&mut self, account: Account) {
        let id = account.id;
        self.remove(id);
        for (verifier, _) in account.verifiers() {
            let subject = verifier.subject().to_owned();
            let holders = self.subjects.entry(subject).or_default();
            if !holders.contains(&id) {
                holders.push(id);
            }
        }
        if account.btp().is_some() {
            self.dialled.insert(id);
        }
        let index = id.0 as usize;
        if self.accounts.len() <= index {
            self.accounts.resize(index + 1, None);
        }
        self.accounts[index] = Some(account);
    }

    fn remove(&mut self, id: AccountId) {
        let Some(account) = self.account(id) else {
            return;
        };
        let (settings, account) = (Arc::clone(&account.settings), account.clone());
        self.pin_count -= pins(&settings);
        self.tokens.forget(id, &settings);
        let hash = self.key.hash_one(settings.name.as_str());
        if let Ok(entry) = self.names.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        for (verifier, _) in account.verifiers() {
            if let Some(holders) = self.subjects.get_mut(verifier.subject()) {
                holders.retain(|holder| *holder != id);
                if holders.is_empty() {
                    self.subjects.remove(verifier.subject());
                }
            }
        }
        self.dialled.remove(&id);
        self.accounts[id.0 as usize] = None;
    }
}

fn pins(settings: &AccountSettings) -> usize {
    let tokens = settings.incoming_tokens.iter();
    tokens.filter(|token| token.pin).count()
}

fn settings_in<'a>(
    accounts: &'a [Option<Account>],
) -> impl Fn(AccountId) -> Option<&'a AccountSettings> + Copy {
    |id| Some(&*accounts.get(id.0 as usize)?.as_ref()?.settings)
}

fn hash_name(accounts: &[Option<Account>], key: &RandomState, id: AccountId) -> u64 {
    let account = accounts.get(id.0 as usize).and_then(Option::as_ref);
    account.map_or(0, |account| key.hash_one(account.settings.name.as_str()))
}

impl Directory {
    /// Names and token hashes are distinct.
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        let directory = Self::default();
        directory.put_all(accounts);
        directory
    }

    /// Makes or replaces accounts.
    pub fn put_all(&self, accounts: impl IntoIterator<Item = Account>) {
        self.change(|all| all.put_all(accounts.into_iter()));
    }

    /// Forgets an account.
    pub fn remove(&self, id: AccountId) {
        self.change(|all| all.remove(id));
    }

    fn change(&self, change: impl FnOnce(&mut All)) {
        let mut all = self.all.write();
        change(&mut all);
        // Before anybody can look again: what was known before is not believed any more.
        let version = LAST_VERSION.fetch_add(1, Ordering::Relaxed) + 1;
        self.version.store(version, Ordering::Release);
    }

    /// Changes with the accounts.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The accounts that a BTP connection is kept up for, by number.
    pub fn dialled(&self) -> Vec<(AccountId, BtpPeer)> {
        let all = self.all.read();
        let dialled = all.dialled.iter();
        let dialled = dialled.filter_map(|id| Some((*id, all.account(*id)?.btp()?.clone())));
        dialled.collect()
    }

    /// Whether any account is known by its client certificate.
    pub fn has_pins(&self) -> bool {
        self.all.read().pin_count > 0
    }

    /// The account of that number.
    pub fn account(&self, id: AccountId) -> Option<Account> {
        self.all.read().account(id).cloned()
    }

    /// The name of an account, for people; its number if it is not there any more.
    pub fn name_of(&self, id: AccountId) -> String {
        let account = self.account(id);
        account.map_or_else(|| id.0.to_string(), |account| account.settings.name.clone())
    }

    /// Whose token it is, and whose key. `named` is the account that the request says it is for; it has
    /// to be that. A token beside a key has to be good by itself, and of the same account, unless nobody
    /// knows the key.
    ///
    /// The same work is done for every failure: one hash and two look-ups by keys that tell a
    /// stranger nothing. No token is compared byte by byte.
    ///
    /// # Errors
    /// [`Reason::AuthMissing`], [`Reason::AuthUnknownToken`] (also for a token or key of another account
    /// than the named one), [`Reason::AuthExpiredToken`]. The one who asks must not see which.
    pub fn authenticate(
        &self,
        token: Option<&[u8]>,
        key: Option<KeyPin>,
        named: Option<&str>,
        now_ms: i64,
    ) -> Result<Known, Reason> {
        let token = token.unwrap_or_default();
        let hash = hash_token(token);
        let all = self.all.read();
        let version = self.version();
        let opened = all.opened_by(hash);
        let by_key = key.and_then(|key| all.opened_by_key(key));
        let is_named = named.map(|name| all.named(name));
        let makes_tokens = !all.subjects.is_empty();
        drop(all);
        let good = |opened: (AccountId, Option<i64>)| match opened {
            (id, _) if is_named.is_some_and(|named| named != Some(id)) => {
                Err(Reason::AuthUnknownToken)
            }
            (_, Some(expires_at_ms)) if expires_at_ms <= now_ms => Err(Reason::AuthExpiredToken),
            good => Ok(good),
        };
        let by_token = match opened {
            _ if token.is_empty() => None,
            Some(opened) => Some(good(opened)?),
            None if !makes_tokens => return Err(Reason::AuthUnknownToken),
            None => Some(self.authenticate_jwt(token, is_named, now_ms)?),
        };
        let (account, until_ms) = match (by_token, by_key) {
            (None, None) => return Err(Reason::AuthMissing),
            (Some(by_token), None) => by_token,
            (None, Some(by_key)) => good(by_key)?,
            (Some((id, _)), Some((other, _))) if id != other => {
                return Err(Reason::AuthUnknownToken);
            }
            // The token is enough, so it does not matter that a key has ended.
            (Some(by_token), Some(_)) => by_token,
        };
        Ok(Known {
            account,
            until_ms,
            version,
        })
    }

    /// A token that its holder made, and until when it is good. One that nobody could have made is
    /// verified all the same, against a key of nobody.
    fn authenticate_jwt(
        &self,
        token: &[u8],
        named: Option<Option<AccountId>>,
        now_ms: i64,
    ) -> Result<(AccountId, Option<i64>), Reason> {
        let jwt = Jwt::parse(token).ok_or(Reason::AuthUnknownToken)?;
        // Nobody waits for a signature to be verified.
        let candidates: Vec<_> = {
            let all = self.all.read();
            let holders = jwt.subject().and_then(|subject| all.subjects.get(subject));
            let accounts = holders.into_iter().flatten();
            let accounts = accounts.filter_map(|id| all.account(*id));
            let verifiers = accounts.flat_map(|account| {
                let verifiers = account.verifiers().iter();
                verifiers.map(|(verifier, until_ms)| (account.id, Arc::clone(verifier), *until_ms))
            });
            verifiers
                .filter(|(_, verifier, _)| verifier.is_for(&jwt))
                .collect()
        };
        let mut outcome = Err(Reason::AuthUnknownToken);
        for (id, verifier, until_ms) in &candidates {
            match verifier.verify(&jwt, Timestamp::from_unix_ms(now_ms)) {
                Ok(()) if named.is_some_and(|named| named != Some(*id)) => {}
                Ok(()) if until_ms.is_none_or(|until_ms| now_ms < until_ms) => {
                    let ends = [*until_ms, jwt.expired_at_ms()];
                    outcome = Ok((*id, ends.into_iter().flatten().min()));
                }
                Ok(()) | Err(JwtError::Expired) => {
                    outcome = outcome.or(Err(Reason::AuthExpiredToken))
                }
                Err(JwtError::Invalid) => {}
            }
        }
        if candidates.is_empty() {
            DECOYS.verify(&jwt);
        }
        outcome
    }
}

/// What the client of a connection showed last, and who it is: as long as it shows the same and nothing
/// changed, nothing has to be looked up.
#[derive(Default)]
pub(crate) struct Visitor {
    token: Vec<u8>,
    named: Option<String>,
    known: Option<Known>,
}

impl Visitor {
    /// Whose token it is, if that is known already. `now_ms` is asked for where a token ends.
    pub(crate) fn recall(
        &self,
        token: &[u8],
        named: Option<&str>,
        version: u64,
        now_ms: impl FnOnce() -> i64,
    ) -> Option<AccountId> {
        let known = self.known.filter(|known| known.version == version)?;
        let is_same = self.named.as_deref() == named
            // Somebody else may share the connection, so the time this takes must not tell the token.
            && constant_time::verify_slices_are_equal(&self.token, token).is_ok();
        let is_good = is_same && known.until_ms.is_none_or(|until_ms| now_ms() < until_ms);
        is_good.then_some(known.account)
    }

    /// Remembers it for the next time.
    pub(crate) fn learn(&mut self, token: &[u8], named: Option<&str>, known: Known) {
        self.token.clear();
        self.token.extend_from_slice(token);
        self.named = named.map(ToOwned::to_owned);
        self.known = Some(known);
    }
}

/// The token in the value of an `Authorization: Bearer` header (RFC 6750).
pub(crate) fn bearer(authorization: Option<&[u8]>) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = authorization?.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
    is_bearer.then_some(token.trim_ascii())
}

/// What is kept of a token.
pub fn hash_token(token: &[u8]) -> TokenHash {
    let digest = digest::digest(&digest::SHA256, token);
    TokenHash(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Failed authentications by reason, over all links.
#[derive(Debug, Default)]
pub struct AuthCounters {
    missing: AtomicU64,
    unknown_token: AtomicU64,
    expired_token: AtomicU64,
    /// Who presented tokens that open nothing.
    pub callers: Callers,
}

impl AuthCounters {
    /// The reasons that are counted here.
    pub const REASONS: [Reason; 3] = [
        Reason::AuthMissing,
        Reason::AuthUnknownToken,
        Reason::AuthExpiredToken,
    ];

    /// How often it was the reason; 0 for those not in [`Self::REASONS`].
    pub fn get(&self, reason: Reason) -> u64 {
        self.counter(reason)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    pub(crate) fn count(&self, reason: Reason) {
        if let Some(counter) = self.counter(reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counter(&self, reason: Reason) -> Option<&AtomicU64> {
        [&self.missing, &self.unknown_token, &self.expired_token]
            .into_iter()
            .zip(Self::REASONS)
            .find_map(|(counter, counted)| (counted == reason).then_some(counter))
    }
}

/// Why a text is not the URL of an ILP over HTTP endpoint. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HttpPeerError {
    /// Not a URL.
    #[error("not a URL")]
    Url,
    /// Another scheme, or none.
    #[error("URL does not begin with https://, http:// or h2c://")]
    Scheme,
    /// A user or password, which would be seen in logs.
    #[error("URL has a user or password; the token is a setting of its own")]
    UserInfo,
    /// The token has characters that no header can carry.
    #[error("token has characters that an HTTP header cannot carry")]
    Token,
    /// The same of the URL for answers.
    #[error("callback URL has characters that an HTTP header cannot carry")]
    Callback,
}

/// An ILP over HTTP endpoint and the token to present there.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpPeer {
    /// Scheme `http` or `https`, host and path.
    pub(crate) url: Uri,
    /// HTTP/2 without asking.
    pub(crate) prior_knowledge: bool,
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Of every request, but for `Host` where it is HTTP/1.1.
    pub(crate) headers: HeaderMap,
    /// Where answers are asked to be sent, in callback mode.
    pub(crate) callback: Option<HeaderValue>,
    /// The keys that the server may have; where there is none, its certificate has to be good.
    pub(crate) tls_pins: Vec<KeyPin>,
}

impl HttpPeer {
    /// `url` is `https://…`, `http://…`, or `h2c://…` for HTTP/2 over plain TCP. An empty token is not
    /// presented.
    ///
    /// # Errors
    /// See [`HttpPeerError`].
    pub fn new(url: &str, token: &str) -> Result<Self, HttpPeerError> {
        let mut parts = url
            .parse::<Uri>()
            .map_err(|_| HttpPeerError::Url)?
            .into_parts();
        let authority = parts.authority.as_ref().ok_or(HttpPeerError::Url)?;
        if authority.as_str().contains('@') {
            return Err(HttpPeerError::UserInfo);
        }
        let (scheme, prior_knowledge) = match parts.scheme.as_ref().map(Scheme::as_str) {
            Some("https") => (Scheme::HTTPS, false),
            Some("http") => (Scheme::HTTP, false),
            Some(H2C) => (Scheme::HTTP, true),
            Some(_) | None => return Err(HttpPeerError::Scheme),
        };
        let (host, port) = host_port(authority, &scheme).ok_or(HttpPeerError::Url)?;
        let mut bearer =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| HttpPeerError::Token)?;
        bearer.set_sensitive(true);
        let mut headers =
            HeaderMap::from_iter([(CONTENT_TYPE, OCTET_STREAM), (ACCEPT, OCTET_STREAM)]);
        if !token.is_empty() {
            headers.insert(AUTHORIZATION, bearer);
        }
        parts.scheme = Some(scheme);
        let path = parts.path_and_query.as_ref().map(PathAndQuery::as_str);
        if let Some(query) = path.filter(|path| path.starts_with('?')) {
            // A request names at least the path `/` (RFC 9112, section 3.2.1).
            let path = format!("/{query}")
                .parse()
                .map_err(|_| HttpPeerError::Url)?;
            parts.path_and_query = Some(path);
        }
        let url = Uri::from_parts(parts).map_err(|_| HttpPeerError::Url)?;
        Ok(Self {
            url,
            prior_knowledge,
            host,
            port,
            headers,
            callback: None,
            tls_pins: Vec::new(),
        })
    }

    /// The same whose server has one of these keys, if there are any.
    #[must_use]
    pub fn with_pins(self, tls_pins: Vec<KeyPin>) -> Self {
        Self { tls_pins, ..self }
    }

    /// The same in callback mode: answers are asked to be sent to `url`.
    ///
    /// # Errors
    /// [`HttpPeerError::Callback`].
    pub fn with_callback(self, url: &str) -> Result<Self, HttpPeerError> {
        let callback = HeaderValue::try_from(url).map_err(|_| HttpPeerError::Callback)?;
        let callback = Some(callback);
        Ok(Self { callback, ..self })
    }

    /// Whether TLS is spoken.
    pub(crate) fn tls(&self) -> bool {
        self.url.scheme() == Some(&Scheme::HTTPS)
    }

    /// The headers with `Host`, as HTTP/1.1 wants them.
    pub(crate) fn headers_http1(&self) -> HeaderMap {
        let authority = self.url.authority().map_or("", Authority::as_str);
        let mut headers = self.headers.clone();
        let host = HeaderValue::from_str(authority).expect("a URL's authority is plain ASCII");
        headers.insert(HOST, host);
        headers
    }
}

impl fmt::Debug for HttpPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpPeer({})", self.url)
    }
}

/// Where a BTP connection is kept up, and what is presented there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BtpPeer {
    /// With the token, unless one is made for each connection.
    uri: BtpUri,
    making: Option<Making>,
    /// The keys that the server may have; where there is none, its certificate has to be good.
    pub(crate) tls_pins: Vec<KeyPin>,
}

/// How tokens are made.
#[derive(Clone, PartialEq, Eq)]
struct Making {
    jwt: OutgoingJwt,
    key: String,
}

impl fmt::Debug for Making {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.jwt)
    }
}

impl From<BtpUri> for BtpPeer {
    fn from(uri: BtpUri) -> Self {
        Self {
            uri,
            making: None,
            tls_pins: Vec::new(),
        }
    }
}

impl BtpPeer {
    /// The same whose server has one of these keys, if there are any.
    #[must_use]
    pub fn with_pins(self, tls_pins: Vec<KeyPin>) -> Self {
        Self { tls_pins, ..self }
    }

    /// The same where a token is made for each connection, with this key.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn with_jwt(self, jwt: OutgoingJwt, key: String) -> Result<Self, KeyError> {
        Signer::new(jwt.algorithm, &key)?;
        let making = Some(Making { jwt, key });
        Ok(Self { making, ..self })
    }

    /// Where to, and with what from now on.
    pub(crate) fn uri(&self, now: Timestamp) -> BtpUri {
        let mut uri = self.uri.clone();
        if let Some(Making { jwt, key }) = &self.making {
            let signer = Signer::new(jwt.algorithm, key).expect("the key was tried");
            uri.token = signer.sign(&jwt.claims, jwt.lifetime_s, now);
        }
        uri
    }
}

/// Where to connect to; an address loses its brackets.
pub(crate) fn host_port(authority: &Authority, scheme: &Scheme) -> Option<(String, u16)> {
    let usual = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        // `http` takes a port that is no number for none.
        None if authority.as_str().ends_with(authority.host()) => usual,
        None => return None,
    };
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host) {
        "" => None,
        host => Some((host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use rialto_ledger::{JwtAlgorithm, JwtClaims};

    use super::*;

    fn settings(name: &str, tokens: &[(&str, Option<i64>)]) -> Arc<AccountSettings> {
        let settings = serde_json::json!({"name": name, "relation": "peer", "asset": "USD/9"});
        let mut settings: AccountSettings = serde_json::from_value(settings).unwrap();
        let tokens = tokens.iter().map(|(token, until)| IncomingToken {
            hash: hash_token(token.as_bytes()),
            jwt: None,
            pin: false,
            expires_at_ms: *until,
        });
        settings.incoming_tokens = tokens.collect();
        Arc::new(settings)
    }

    fn directory() -> Directory {
        let account = |id, name: &str, tokens: &[(&str, Option<i64>)]| Account {
            id: AccountId(id),
            settings: settings(name, tokens),
            opened: None,
        };
        Directory::new([
            account(1, "alice", &[("a", None), ("old", Some(1_000))]),
            account(2, "bob", &[("b", None)]),
        ])
    }

    #[test]
    fn a_token_opens_its_own_account_until_it_expires() {
        use Reason::{AuthExpiredToken, AuthMissing, AuthUnknownToken};
        for (token, named, now_ms, outcome) in [
            (Some("a"), None, 0, Ok(1)),
            (Some("a"), Some("alice"), 0, Ok(1)),
            (Some("b"), None, 0, Ok(2)),
            (Some("a"), Some("bob"), 0, Err(AuthUnknownToken)),
            (Some("a"), Some("carol"), 0, Err(AuthUnknownToken)),
            (Some("x"), None, 0, Err(AuthUnknownToken)),
            (Some("x"), Some("alice"), 0, Err(AuthUnknownToken)),
            (None, None, 0, Err(AuthMissing)),
            (None, Some("alice"), 0, Err(AuthMissing)),
            (Some(""), Some("alice"), 0, Err(AuthMissing)),
            (Some("old"), None, 999, Ok(1)),
            (Some("old"), None, 1_000, Err(AuthExpiredToken)),
        ] {
            let found = directory().authenticate(token.map(str::as_bytes), None, named, now_ms);
            assert_eq!(
                found.map(|known| known.account.0),
                outcome,
                "{token:?} {named:?} {now_ms}"
            );
        }
    }

    #[test]
    fn each_of_very_many_is_found() {
        let like = settings("like", &[("like", None)]);
        let account = |id: u32| {
            let mut settings = AccountSettings::clone(&like);
            settings.name = format!("a{id}");
            settings.incoming_tokens[0].hash = hash_token(format!("t{id}").as_bytes());
            Account {
                id: AccountId(id),
                settings: Arc::new(settings),
                opened: None,
            }
        };
        // More than are entered together.
        let ids = 1..=u32::try_from(BATCH_ACCOUNTS).unwrap() + 2;
        let directory = Directory::new(ids.clone().map(account));
        for id in ids {
            let (name, token) = (format!("a{id}"), format!("t{id}"));
            let found = directory.authenticate(Some(token.as_bytes()), None, Some(&name), 0);
            assert_eq!(found.map(|known| known.account.0), Ok(id));
        }
    }

    #[test]
    fn a_key_opens_its_own_account_and_goes_with_no_other_token() {
        use Reason::{AuthExpiredToken, AuthMissing, AuthUnknownToken};
        let pin = |name: &str| KeyPin(hash_token(name.as_bytes()).0);
        let account = |id, name: &str, token: &str, until_ms| {
            let mut settings = AccountSettings::clone(&settings(name, &[(token, None)]));
            settings.incoming_tokens.push(IncomingToken {
                hash: TokenHash(pin(name).0),
                jwt: None,
                pin: true,
                expires_at_ms: until_ms,
            });
            Account {
                id: AccountId(id),
                settings: Arc::new(settings),
                opened: None,
            }
        };
        let directory = Directory::new([
            account(1, "alice", "a", None),
            account(2, "bob", "b", Some(1_000)),
        ]);
        for (token, key, named, now_ms, outcome) in [
            (None, Some("alice"), None, 0, Ok(1)),
            (None, Some("alice"), Some("alice"), 0, Ok(1)),
            (None, Some("alice"), Some("bob"), 0, Err(AuthUnknownToken)),
            (None, Some("alice"), Some("carol"), 0, Err(AuthUnknownToken)),
            (None, Some("bob"), None, 999, Ok(2)),
            (None, Some("bob"), None, 1_000, Err(AuthExpiredToken)),
            (None, Some("stranger"), None, 0, Err(AuthMissing)),
            (Some("a"), Some("alice"), None, 0, Ok(1)),
            (Some("a"), Some("bob"), None, 0, Err(AuthUnknownToken)),
            (
                Some("a"),
                Some("bob"),
                Some("alice"),
                0,
                Err(AuthUnknownToken),
            ),
            (Some("b"), Some("bob"), None, 1_000, Ok(2)),
            (Some("a"), Some("stranger"), None, 0, Ok(1)),
            (Some("x"), Some("alice"), None, 0, Err(AuthUnknownToken)),
            // What a pin is the hash of is no token, and a token is no key.
            (Some("alice"), None, None, 0, Err(AuthUnknownToken)),
            (None, Some("a"), None, 0, Err(AuthMissing)),
        ] {
            let token = token.map(str::as_bytes);
            let found = directory.authenticate(token, key.map(pin), named, now_ms);
            let found = found.map(|known| known.account.0);
            assert_eq!(found, outcome, "{token:?} {key:?} {named:?} {now_ms}");
        }
        assert!(directory.has_pins());
        directory.remove(AccountId(1));
        assert!(directory.has_pins());
        directory.put_all([Account {
            id: AccountId(2),
            settings: settings("bob", &[("b", None)]),
            opened: None,
        }]);
        assert!(!directory.has_pins());
    }

    #[test]
    fn a_token_that_was_taken_away_opens_nothing_and_what_was_known_is_forgotten() {
        let directory = directory();
        let known = |token: &str| directory.authenticate(Some(token.as_bytes()), None, None, 0);
        let mut visitor = Visitor::default();
        visitor.learn(b"a", None, known("a").unwrap());
        let recall = |visitor: &Visitor, token: &[u8], named| {
            let found = visitor.recall(token, named, directory.version(), || 0);
            found.map(|id| id.0)
        };
        assert_eq!(recall(&visitor, b"a", None), Some(1));
        assert_eq!(recall(&visitor, b"b", None), None);
        assert_eq!(recall(&visitor, b"a", Some("alice")), None);

        // Another token, and more of them than before, so that places are used again.
        let changed = Account {
            id: AccountId(1),
            settings: settings("alice", &[("c", None), ("d", Some(5)), ("e", None)]),
            opened: None,
        };
        directory.put_all([changed]);
        assert_eq!(recall(&visitor, b"a", None), None);
        assert_eq!(known("a"), Err(Reason::AuthUnknownToken));
        assert_eq!(known("e").map(|known| known.account.0), Ok(1));
        assert_eq!(known("b").map(|known| known.account.0), Ok(2));

        visitor.learn(b"d", None, known("d").unwrap());
        let at = |now_ms| visitor.recall(b"d", None, directory.version(), || now_ms);
        assert_eq!(at(4).map(|id| id.0), Some(1));
        assert_eq!(at(5), None);

        directory.remove(AccountId(1));
        assert_eq!(known("e"), Err(Reason::AuthUnknownToken));
        assert_eq!(recall(&visitor, b"d", None), None);
        assert_eq!(directory.name_of(AccountId(1)), "1");
        assert_eq!(known("b").map(|known| known.account.0), Ok(2));
    }

    fn signed(claims: &JwtClaims, lifetime_s: u32) -> String {
        let signer = Signer::new(JwtAlgorithm::Hs256, KEY).unwrap();
        signer.sign(claims, lifetime_s, Timestamp::from_unix_ms(0))
    }

    /// 32 bytes.
    const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

    #[test]
    fn a_token_that_its_holder_made_opens_its_account() {
        use Reason::{AuthExpiredToken, AuthUnknownToken};
        let claims = |subject: &str| JwtClaims {
            subject: subject.to_owned(),
            ..JwtClaims::default()
        };
        let account = |id, name: &str, until_ms| Account {
            id: AccountId(id),
            settings: settings(name, &[]),
            opened: Some(Arc::new(Opened {
                verifiers: vec![(
                    Arc::new(Verifier::new(JwtAlgorithm::Hs256, KEY, claims(name)).unwrap()),
                    until_ms,
                )],
                ..Opened::default()
            })),
        };
        let directory = Directory::new([account(1, "alice", None), account(2, "bob", Some(1_000))]);
        let good = signed(&claims("alice"), 60);
        let bob = signed(&claims("bob"), 60);
        let huge = format!("{good}{}", "A".repeat(1 << 20));
        for (token, named, now_ms, outcome) in [
            (good.as_str(), None, 0, Ok(1)),
            (&good, Some("alice"), 0, Ok(1)),
            (&good, Some("bob"), 0, Err(AuthUnknownToken)),
            (&good, Some("carol"), 0, Err(AuthUnknownToken)),
            (&good, None, 65_000, Err(AuthExpiredToken)),
            (&bob, None, 999, Ok(2)),
            (&bob, None, 1_000, Err(AuthExpiredToken)),
            (
                &signed(&claims("carol"), 60),
                None,
                0,
                Err(AuthUnknownToken),
            ),
            (&good[..good.len() - 2], None, 0, Err(AuthUnknownToken)),
            (&huge, None, 0, Err(AuthUnknownToken)),
            // The key itself is no token.
            (KEY, None, 0, Err(AuthUnknownToken)),
        ] {
            let found = directory.authenticate(Some(token.as_bytes()), None, named, now_ms);
            let shown: String = token.chars().take(100).collect();
            assert_eq!(
                found.map(|known| known.account.0),
                outcome,
                "{shown} {named:?} {now_ms}"
            );
        }
    }

    #[test]
    fn urls_of_peers() {
        for (url, host, port, shown) in [
            ("http://h/ilp", "h", 80, "http://h/ilp"),
            ("https://h", "h", 443, "https://h/"),
            ("https://h:7/a?b=c", "h", 7, "https://h:7/a?b=c"),
            (
                "h2c://127.0.0.1:8/ilp",
                "127.0.0.1",
                8,
                "http://127.0.0.1:8/ilp",
            ),
            ("http://[::1]:9/ilp", "::1", 9, "http://[::1]:9/ilp"),
            ("http://h?a=b", "h", 80, "http://h/?a=b"),
        ] {
            let peer = HttpPeer::new(url, "t").unwrap();
            let path = peer.url.path_and_query().unwrap().as_str();
            assert!(path.parse::<Uri>().is_ok(), "{path}");
            assert_eq!((peer.host.as_str(), peer.port), (host, port));
            assert_eq!(peer.url.to_string(), shown);
        }
        for (url, token, error) in [
            ("", "t", HttpPeerError::Url),
            ("/ilp", "t", HttpPeerError::Url),
            ("ftp://h/", "t", HttpPeerError::Scheme),
            ("http://u:p@h/", "t", HttpPeerError::UserInfo),
            ("http://h:99999/", "t", HttpPeerError::Url),
            ("http://h/", "a\nb", HttpPeerError::Token),
        ] {
            assert_eq!(HttpPeer::new(url, token), Err(error), "{url}");
        }
    }

    #[test]
    fn each_btp_connection_has_a_token_of_its_own() {
        let uri: BtpUri = "btp+wss://h/ilp/btp".parse().unwrap();
        let jwt = OutgoingJwt {
            algorithm: JwtAlgorithm::Hs256,
            claims: JwtClaims {
                subject: "us".to_owned(),
                ..JwtClaims::default()
            },
            lifetime_s: 60,
        };
        let peer = BtpPeer::from(uri.clone()).with_jwt(jwt.clone(), KEY.to_owned());
        let peer = peer.unwrap();
        let token = |at_ms| peer.uri(Timestamp::from_unix_ms(at_ms)).token;
        assert_eq!(token(0), signed(&jwt.claims, 60));
        assert_ne!(token(0), token(60_000));
        assert!(!format!("{peer:?}").contains(KEY));
        assert!(
            BtpPeer::from(uri)
                .with_jwt(jwt, "short".to_owned())
                .is_err()
        );
    }

    #[test]
    fn tokens_are_not_shown() {
        let peer = HttpPeer::new("http://h/ilp", "hidden").unwrap();
        assert_eq!(format!("{peer:?}"), "HttpPeer(http://h/ilp)");
        assert!(!format!("{:?}", peer.headers).contains("hidden"));
    }

    #[test]
    fn bearer_tokens() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER  abc ", Some("abc")),
            ("Bearer ", Some("")),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            let found = bearer(Some(value.as_bytes()));
            assert_eq!(found, token.map(str::as_bytes), "{value:?}");
        }
        assert_eq!(bearer(None), None);
    }
}
