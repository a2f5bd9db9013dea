//! Who may ask for what: bearer tokens with scopes.

use std::marker::PhantomData;

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    extract::FromRequestParts,
    http::{Method, StatusCode, header, request::Parts},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rialto_ledger::TokenHash;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::{Api, problem::Problem, wall_ms};

/// One thing that a token may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To look at everything.
    Read,
    /// To change accounts, routes and rates.
    Write,
    /// To spend what local accounts have: quotes, payments, pings.
    Pay,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Pay];

    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Pay => "pay",
        }
    }
}

/// What a token is good for: any of `read`, `write` and `pay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes {
    granted: [bool; Scope::ALL.len()],
}

impl Scopes {
    /// Everything: an administrator's.
    pub const ALL: Self = Self {
        granted: [true; Scope::ALL.len()],
    };

    /// Reads the words of scopes; says which one is none.
    ///
    /// ```
    /// use rialto_admin::Scopes;
    ///
    /// let all = ["read", "write", "pay"].map(String::from);
    /// assert_eq!(Scopes::parse(&all), Ok(Scopes::ALL));
    /// assert!(Scopes::parse(&["admin".to_owned()]).is_err());
    /// ```
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut granted = [false; Scope::ALL.len()];
        for word in words {
            let scope = Scope::ALL.iter().find(|scope| scope.word() == word);
            let scope = scope.ok_or_else(|| {
                format!("'{word}' is no scope: there are 'read', 'write' and 'pay'")
            })?;
            granted[*scope as usize] = true;
        }
        Ok(Self { granted })
    }

    /// Whether money can be moved with it.
    pub fn may_pay(self) -> bool {
        self.contain(Scope::Pay)
    }

    fn contain(self, scope: Scope) -> bool {
        self.granted[scope as usize]
    }
}

/// A token of the admin API. Peers' tokens are others.
#[derive(Debug, Clone)]
pub struct Token {
    /// Whose it is: for the log, and to tell two operators apart.
    pub name: String,
    /// What is kept of it.
    pub hash: TokenHash,
    /// What it is good for.
    pub scopes: Scopes,
    /// From this instant on (milliseconds since 1970) it is good for nothing.
    pub expires_at_ms: Option<i64>,
}

/// The valid token that was presented. Takes the same time whatever was presented, if anything.
fn find<'a>(tokens: &'a [Token], presented: Option<&str>, now_ms: i64) -> Option<&'a Token> {
    let hash = hash(presented.unwrap_or_default());
    let mut found = u64::MAX;
    for (index, token) in (0..).zip(tokens) {
        found.conditional_assign(&index, token.hash.0.ct_eq(&hash.0));
    }
    let token = tokens.get(usize::try_from(found).ok()?)?;
    let valid = token.expires_at_ms.is_none_or(|at| now_ms < at);
    (valid && presented.is_some()).then_some(token)
}

/// SHA-256 of a token: what is kept instead of it, for the API's tokens and for peers'.
pub fn hash(token: &str) -> TokenHash {
    let digest = digest(&SHA256, token.as_bytes());
    TokenHash(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}

/// A new token: a prefix that secret scanners know, what it is for, and 32 bytes of entropy.
///
/// ```
/// let token = rialto_admin::generate_token("admin", [0; 32]);
/// assert_eq!(token, "rialto_admin_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
/// ```
pub fn generate_token(purpose: &str, entropy: [u8; 32]) -> String {
    format!(
        "rialto_{purpose}_{}",
        BASE64_URL_SAFE_NO_PAD.encode(entropy)
    )
}

/// A scope as a type, so that each handler names in its arguments the one it needs.
pub(crate) trait Needs {
    const SCOPE: Scope;
}

pub(crate) struct ToRead;
pub(crate) struct ToWrite;
pub(crate) struct ToPay;

impl Needs for ToRead {
    const SCOPE: Scope = Scope::Read;
}

impl Needs for ToWrite {
    const SCOPE: Scope = Scope::Write;
}

impl Needs for ToPay {
    const SCOPE: Scope = Scope::Pay;
}

/// Proof that the caller presented a token with the scope.
pub(crate) struct Allowed<N: Needs> {
    /// The token's name: who it is.
    pub(crate) by: String,
    needs: PhantomData<N>,
}

impl<N: Needs> FromRequestParts<Api> for Allowed<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let tokens = api.tokens.borrow();
        let token = find(&tokens, bearer(parts), wall_ms()).ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "present a valid token as 'Authorization: Bearer ...'",
            )
        })?;
        if !token.scopes.contain(N::SCOPE) {
            let detail = format!("the token lacks the scope '{}'", N::SCOPE.word());
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        if parts.method != Method::GET {
            let (method, path) = (&parts.method, parts.uri.path());
            tracing::info!(token = token.name, %method, path, "admin request");
        }
        let by = token.name.clone();
        let needs = PhantomData;
        Ok(Self { by, needs })
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
