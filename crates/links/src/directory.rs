//! Who may come in, and where packets go out.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest;
use http::{
    HeaderMap, HeaderValue, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
    uri::{Authority, PathAndQuery, Scheme},
};
use rialto_btp::BtpUri;
use rialto_connector::{
    Reason,
    jwt::{Decoys, Jwt, JwtError, Verifier},
};
use rialto_ledger::{AccountId, TokenHash};
use rialto_packet::Timestamp;
use thiserror::Error;

/// Media type of ILP packets.
pub(crate) const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Scheme of URLs for HTTP/2 over plain TCP.
pub(crate) const H2C: &str = "h2c";

/// One account, as far as links need to know it.
#[derive(Clone)]
pub struct Account {
    /// Which.
    pub id: AccountId,
    /// Unique; stands in URLs.
    pub name: String,
    /// What opens it: the hash of a token, and the instant (milliseconds since 1970) from which on
    /// the token no longer does.
    pub tokens: Vec<(TokenHash, Option<i64>)>,
    /// What verifies tokens that its holder makes, and the instant from which on it does not.
    pub verifiers: Vec<(Arc<Verifier>, Option<i64>)>,
    /// Where its packets go by ILP over HTTP.
    pub http: Option<HttpPeer>,
    /// Where a BTP connection is kept up.
    pub btp: Option<BtpUri>,
}

/// Every account, as it was at one moment. Never changed: the node makes a new one.
#[derive(Default)]
pub struct Directory {
    accounts: BTreeMap<AccountId, Account>,
    names: HashMap<String, AccountId>,
    tokens: HashMap<[u8; 32], (AccountId, Option<i64>)>,
    /// Accounts whose holders make their tokens, by what those say whose they are.
    subjects: HashMap<String, Vec<AccountId>>,
}

/// Tokens of nobody cost as much as those of somebody.
static DECOYS: LazyLock<Decoys> = LazyLock::new(Decoys::default);

impl Directory {
    /// Names and token hashes are distinct; of two equal ones the later wins.
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        let mut directory = Self::default();
        for account in accounts {
            directory.names.insert(account.name.clone(), account.id);
            for (hash, expires_at_ms) in &account.tokens {
                let opens = (account.id, *expires_at_ms);
                directory.tokens.insert(hash.0, opens);
            }
            for (verifier, _) in &account.verifiers {
                let subject = verifier.subject().to_owned();
                let holders = directory.subjects.entry(subject).or_default();
                if !holders.contains(&account.id) {
                    holders.push(account.id);
                }
            }
            directory.accounts.insert(account.id, account);
        }
        directory
    }

    /// Every account, by id.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// The account of that number.
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// The name of an account, for people; its number if it is not there any more.
    pub fn name_of(&self, id: AccountId) -> String {
        self.account(id)
            .map_or_else(|| id.0.to_string(), |account| account.name.clone())
    }

    /// The account of that name.
    pub fn named(&self, name: &str) -> Option<&Account> {
        self.names.get(name).and_then(|id| self.accounts.get(id))
    }

    /// Whose token it is. `named` is the account that the request says it is for; it has to be the
    /// token's.
    ///
    /// The same work is done for every failure: one hash and two look-ups by keys that tell a
    /// stranger nothing. No token is compared byte by byte.
    ///
    /// # Errors
    /// [`Reason::AuthMissing`], [`Reason::AuthUnknownToken`] (also for a token of another account
    /// than the named one), [`Reason::AuthExpiredToken`]. The one who asks must not see which.
    pub fn authenticate(
        &self,
        token: Option<&[u8]>,
        named: Option<&str>,
        now_ms: i64,
    ) -> Result<AccountId, Reason> {
        let token = token.unwrap_or_default();
        let opened = self.tokens.get(&hash_token(token).0);
        let is_named = named.map(|name| self.names.get(name));
        if token.is_empty() {
            return Err(Reason::AuthMissing);
        }
        match (opened, is_named) {
            (Some((id, _)), Some(named)) if named != Some(id) => Err(Reason::AuthUnknownToken),
            (Some((_, Some(expires_at_ms))), _) if *expires_at_ms <= now_ms => {
                Err(Reason::AuthExpiredToken)
            }
            (Some((id, _)), _) => Ok(*id),
            (None, _) => self.authenticate_jwt(token, is_named, now_ms),
        }
    }

    /// A token that its holder made. One that nobody could have made is verified all the same, against
    /// a key of nobody.
    fn authenticate_jwt(
        &self,
        token: &[u8],
        named: Option<Option<&AccountId>>,
        now_ms: i64,
    ) -> Result<AccountId, Reason> {
        if self.subjects.is_empty() {
            return Err(Reason::AuthUnknownToken);
        }
        let jwt = Jwt::parse(token).ok_or(Reason::AuthUnknownToken)?;
        let holders = jwt.subject().and_then(|subject| self.subjects.get(subject));
        let accounts = holders
            .into_iter()
            .flatten()
            .filter_map(|id| self.accounts.get(id));
        let mut candidates = accounts.flat_map(|account| {
            let verifiers = account.verifiers.iter();
            verifiers.map(|(verifier, until_ms)| (account.id, verifier, *until_ms))
        });
        let mut outcome = Err(Reason::AuthUnknownToken);
        let mut is_decoy = true;
        for (id, verifier, until_ms) in candidates
            .by_ref()
            .filter(|(_, verifier, _)| verifier.is_for(&jwt))
        {
            is_decoy = false;
            match verifier.verify(&jwt, Timestamp::from_unix_ms(now_ms)) {
                Ok(()) if named.is_some_and(|named| named != Some(&id)) => {}
                Ok(()) if until_ms.is_none_or(|until_ms| now_ms < until_ms) => outcome = Ok(id),
                Ok(()) | Err(JwtError::Expired) => {
                    outcome = outcome.or(Err(Reason::AuthExpiredToken))
                }
                Err(JwtError::Invalid) => {}
            }
        }
        if is_decoy {
            DECOYS.verify(&jwt);
        }
        outcome
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
}

impl HttpPeer {
    /// `url` is `https://…`, `http://…`, or `h2c://…` for HTTP/2 over plain TCP.
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
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, bearer),
            (CONTENT_TYPE, OCTET_STREAM),
            (ACCEPT, OCTET_STREAM),
        ]);
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
        })
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
    use rialto_connector::jwt::Signer;
    use rialto_ledger::{JwtAlgorithm, JwtClaims};

    use super::*;

    fn directory() -> Directory {
        let account = |id, name: &str, tokens: &[(&str, Option<i64>)]| Account {
            id: AccountId(id),
            name: name.to_owned(),
            tokens: tokens
                .iter()
                .map(|(token, until)| (hash_token(token.as_bytes()), *until))
                .collect(),
            verifiers: Vec::new(),
            http: None,
            btp: None,
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
            let found = directory().authenticate(token.map(str::as_bytes), named, now_ms);
            assert_eq!(
                found.map(|id| id.0),
                outcome,
                "{token:?} {named:?} {now_ms}"
            );
        }
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
            name: name.to_owned(),
            tokens: Vec::new(),
            verifiers: vec![(
                Arc::new(Verifier::new(JwtAlgorithm::Hs256, KEY, claims(name)).unwrap()),
                until_ms,
            )],
            http: None,
            btp: None,
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
            let found = directory.authenticate(Some(token.as_bytes()), named, now_ms);
            let shown: String = token.chars().take(100).collect();
            assert_eq!(found.map(|id| id.0), outcome, "{shown} {named:?} {now_ms}");
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
