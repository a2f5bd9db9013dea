//! JSON Web Tokens as peers present them: compact, signed, with HS256, EdDSA or RS256 and nothing else
//! (RFC 7515, RFC 7519, RFC 8037).
//!
//! The key decides about the algorithm, never the token: a header that names another is refused before
//! anything is verified, and `none` is no algorithm at all.

use aws_lc_rs::{
    hmac,
    signature::{
        ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
        VerificationAlgorithm,
    },
};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use rialto_ledger::{JwtAlgorithm, JwtClaims};
use rialto_packet::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// Longest token that is looked at.
pub const JWT_BYTES_MAX: usize = 4_096;

/// Fewest bytes of a shared secret (profiles of ILP over HTTP, JWT_HS_256).
const SECRET_BYTES_MIN: usize = 32;

/// By so much the clocks of two nodes may differ. Seconds.
const LEEWAY_S: i64 = 5;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Neither PEM nor base64.
    #[error("is neither base64 nor PEM")]
    Encoding,
    /// Too short to be secret.
    #[error("a secret for HS256 must have at least 32 bytes, in base64")]
    Short,
    /// Not a key of that algorithm.
    #[error(
        "is no key of the algorithm: PEM or base64 of a public key to verify, of an Ed25519 private key (PKCS #8) or seed to sign"
    )]
    Key,
    /// We verify it only.
    #[error("RS256 is verified only: sign with HS256 or EdDSA")]
    VerifyOnly,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtError {
    /// Not a token, another algorithm, a wrong signature, or claims that do not fit.
    Invalid,
    /// It was good once.
    Expired,
}

/// What verifies the tokens of one peer.
pub struct Verifier {
    key: Key,
    claims: JwtClaims,
}

enum Key {
    Secret(Box<hmac::Key>),
    Public(JwtAlgorithm, Box<ParsedPublicKey>),
}

impl Verifier {
    /// `key` is the shared secret in base64, or a public key as PEM or base64.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn new(algorithm: JwtAlgorithm, key: &str, claims: JwtClaims) -> Result<Self, KeyError> {
        let bytes = decode(key)?;
        let public = |verification: &'static dyn VerificationAlgorithm, bytes: &[u8]| {
            let parsed = verification_key(verification, bytes)?;
            Ok(Key::Public(algorithm, Box::new(parsed)))
        };
        let key = match algorithm {
            JwtAlgorithm::Hs256 => Key::Secret(secret(&bytes)?),
            JwtAlgorithm::EdDsa => public(&ED25519, &bytes)?,
            JwtAlgorithm::Rs256 => public(&RSA_PKCS1_2048_8192_SHA256, &bytes)?,
        };
        Ok(Self { key, claims })
    }

    /// Whose tokens these are.
    pub fn subject(&self) -> &str {
        &self.claims.subject
    }

    /// Whether a token could be this peer's, by its algorithm and what it says.
    pub fn is_for(&self, jwt: &Jwt<'_>) -> bool {
        jwt.algorithm == self.algorithm() && jwt.subject() == Some(self.subject())
    }

    fn algorithm(&self) -> JwtAlgorithm {
        match &self.key {
            Key::Secret(_) => JwtAlgorithm::Hs256,
            Key::Public(algorithm, _) => *algorithm,
        }
    }

    fn is_signed(&self, jwt: &Jwt<'_>) -> bool {
        match &self.key {
            Key::Secret(key) => hmac::verify(key, jwt.signed, &jwt.signature).is_ok(),
            Key::Public(_, key) => key.verify_sig(jwt.signed, &jwt.signature).is_ok(),
        }
    }

    /// Whether a token is this peer's and good at `now`. The signature is looked at first, and a good
    /// one never excuses a claim.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub fn verify(&self, jwt: &Jwt<'_>, now: Timestamp) -> Result<(), JwtError> {
        if jwt.algorithm != self.algorithm() || !self.is_signed(jwt) {
            return Err(JwtError::Invalid);
        }
        let claims = &jwt.claims;
        let is_for_us = match (&claims.aud, &self.claims.audience) {
            (None, None) => true,
            (Some(Value::String(one)), Some(audience)) => one == audience,
            (Some(Value::Array(all)), Some(audience)) => all.iter().any(|one| one == audience),
            // A token for somebody is not for whoever did not say his name (RFC 7519, section 4.1.3).
            (Some(_), _) | (None, Some(_)) => false,
        };
        let is_from = self.claims.issuer.is_none() || claims.iss == self.claims.issuer;
        let is_theirs = claims.sub.as_deref() == Some(self.subject());
        if !(is_for_us && is_from && is_theirs) {
            return Err(JwtError::Invalid);
        }
        let now_s = now.unix_ms().div_euclid(1_000);
        let Some(exp) = claims.exp else {
            return Err(JwtError::Invalid);
        };
        if claims
            .nbf
            .is_some_and(|nbf| nbf > now_s.saturating_add(LEEWAY_S))
        {
            return Err(JwtError::Invalid);
        }
        match exp.saturating_add(LEEWAY_S) > now_s {
            true => Ok(()),
            false => Err(JwtError::Expired),
        }
    }
}

/// Verifiers that open nothing: tokens that nobody could have signed cost as much as others, so that
/// time tells no stranger whose tokens are known here.
pub struct Decoys([Verifier; 3]);

impl Default for Decoys {
    fn default() -> Self {
        let seed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed has 32 bytes");
        // RSAPublicKey (RFC 8017, appendix A.1.1) of an odd number of 2048 bits.
        let modulus = [
            &[0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00][..],
            &[0xff; 256],
            &[0x02, 0x03, 0x01, 0x00, 0x01],
        ]
        .concat();
        let parsed = |verification: &'static dyn VerificationAlgorithm, bytes: &[u8]| {
            verification_key(verification, bytes).expect("made by the library itself")
        };
        let keys = [
            Key::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]))),
            Key::Public(
                JwtAlgorithm::EdDsa,
                Box::new(parsed(&ED25519, seed.public_key().as_ref())),
            ),
            Key::Public(
                JwtAlgorithm::Rs256,
                Box::new(parsed(&RSA_PKCS1_2048_8192_SHA256, &modulus)),
            ),
        ];
        Self(keys.map(|key| Verifier {
            key,
            claims: JwtClaims::default(),
        }))
    }
}

impl Decoys {
    /// Takes the time of a verification.
    pub fn verify(&self, jwt: &Jwt<'_>) {
        for decoy in &self.0 {
            if decoy.algorithm() == jwt.algorithm {
                let _ = std::hint::black_box(decoy.is_signed(jwt));
            }
        }
    }
}

/// A token that was taken apart, and not believed yet.
pub struct Jwt<'a> {
    signed: &'a [u8],
    signature: Vec<u8>,
    algorithm: JwtAlgorithm,
    claims: Claims,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    iss: Option<String>,
    aud: Option<Value>,
    exp: Option<i64>,
    nbf: Option<i64>,
}

impl<'a> Jwt<'a> {
    /// Takes a token apart; `None` when it is not one that could be verified here.
    pub fn parse(token: &'a [u8]) -> Option<Self> {
        if token.len() > JWT_BYTES_MAX {
            return None;
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let bytes = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let head: Header = serde_json::from_slice(&bytes(header)?).ok()?;
        // Extensions that must be understood, and none is (RFC 7515, section 4.1.11).
        if head.crit.is_some() {
            return None;
        }
        Some(Self {
            signed: &token[..header.len() + 1 + payload.len()],
            signature: bytes(signature)?,
            algorithm: JwtAlgorithm::named(&head.alg)?,
            claims: serde_json::from_slice(&bytes(payload)?).ok()?,
        })
    }

    /// From when on it is good no longer, by its own word. Milliseconds since 1970.
    pub fn expired_at_ms(&self) -> Option<i64> {
        let exp = self.claims.exp?;
        Some(exp.saturating_add(LEEWAY_S).saturating_mul(1_000))
    }

    /// Whose it says it is.
    pub fn subject(&self) -> Option<&str> {
        self.claims.sub.as_deref()
    }
}

/// What signs our own tokens.
pub struct Signer(Signing);

enum Signing {
    Secret(Box<hmac::Key>),
    Private(Box<Ed25519KeyPair>),
}

impl Signer {
    /// `key` is the shared secret in base64, or an Ed25519 private key: PKCS #8 as PEM or base64, or
    /// its 32 bytes of seed in base64.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn new(algorithm: JwtAlgorithm, key: &str) -> Result<Self, KeyError> {
        if algorithm == JwtAlgorithm::Rs256 {
            return Err(KeyError::VerifyOnly);
        }
        let bytes = decode(key)?;
        Ok(Self(match algorithm {
            JwtAlgorithm::Hs256 | JwtAlgorithm::Rs256 => Signing::Secret(secret(&bytes)?),
            JwtAlgorithm::EdDsa => {
                let pair = match bytes.len() {
                    32 => Ed25519KeyPair::from_seed_unchecked(&bytes),
                    _ => Ed25519KeyPair::from_pkcs8(&bytes)
                        .or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes)),
                };
                Signing::Private(Box::new(pair.map_err(|_| KeyError::Key)?))
            }
        }))
    }

    /// A token that is good for `lifetime_s` from `now` on.
    pub fn sign(&self, claims: &JwtClaims, lifetime_s: u32, now: Timestamp) -> String {
        let algorithm = match &self.0 {
            Signing::Secret(_) => JwtAlgorithm::Hs256,
            Signing::Private(_) => JwtAlgorithm::EdDsa,
        };
        let header = json!({"typ": "JWT", "alg": algorithm.name()});
        let now_s = now.unix_ms().div_euclid(1_000);
        let mut payload = json!({
            "sub": claims.subject, "iat": now_s, "exp": now_s.saturating_add(lifetime_s.into()),
        });
        for (name, value) in [("iss", &claims.issuer), ("aud", &claims.audience)] {
            if let Some(value) = value {
                payload[name] = json!(value);
            }
        }
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&payload));
        let signature = match &self.0 {
            Signing::Secret(key) => {
                BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(key, signed.as_bytes()))
            }
            Signing::Private(key) => BASE64_URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())),
        };
        format!("{signed}.{signature}")
    }
}

fn secret(bytes: &[u8]) -> Result<Box<hmac::Key>, KeyError> {
    match bytes.len() < SECRET_BYTES_MIN {
        true => Err(KeyError::Short),
        false => Ok(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))),
    }
}

fn verification_key(
    verification: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
) -> Result<ParsedPublicKey, KeyError> {
    ParsedPublicKey::new(verification, bytes).map_err(|_| KeyError::Key)
}

/// What is between the lines of a PEM file, or the text itself.
fn decode(key: &str) -> Result<Vec<u8>, KeyError> {
    let lines = key.lines().map(str::trim);
    let text: String = lines.filter(|line| !line.starts_with("-----")).collect();
    let decoded = BASE64_STANDARD.decode(&text);
    let decoded = decoded.or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(&text));
    decoded.map_err(|_| KeyError::Encoding)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        rsa::{KeyPair as RsaKeyPair, KeySize},
        signature::RSA_PKCS1_SHA256,
    };

    use super::*;

    const SECRET: &str = "HEiMCp0FoAC903QHueY89gAWJHo/izaBnJU8/58rlSI=";
    const NOW_S: i64 = 1_900_000_000;

    fn claims(issuer: Option<&str>, audience: Option<&str>) -> JwtClaims {
        JwtClaims {
            subject: "alice".to_owned(),
            issuer: issuer.map(str::to_owned),
            audience: audience.map(str::to_owned),
        }
    }

    fn at(now_s: i64) -> Timestamp {
        Timestamp::from_unix_ms(now_s * 1_000)
    }

    fn verify(verifier: &Verifier, token: &str) -> Result<(), JwtError> {
        let jwt = Jwt::parse(token.as_bytes()).ok_or(JwtError::Invalid)?;
        verifier.verify(&jwt, at(NOW_S))
    }

    /// A token with this header and payload, signed with [`SECRET`].
    fn hs256(header: &str, payload: &str) -> String {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header), encode(payload));
        let key = secret(&decode(SECRET).unwrap()).unwrap();
        let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// Of the profiles proposal (ilp-over-http.md, section 6).
    const VECTOR: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTU1ODAzNTg2OH0.\
                          __9CiSGdn4Grhl48slun7Lp4q4xt0uq398omcipBU8M";

    #[test]
    fn the_vector_of_the_profiles() {
        let verifier = Verifier::new(JwtAlgorithm::Hs256, SECRET, claims(None, None)).unwrap();
        let jwt = Jwt::parse(VECTOR.as_bytes()).unwrap();
        assert_eq!(verifier.verify(&jwt, at(1_558_035_872)), Ok(()));
        assert_eq!(
            verifier.verify(&jwt, at(1_558_035_873)),
            Err(JwtError::Expired)
        );
    }

    #[test]
    fn what_a_token_must_say() {
        let plain = Verifier::new(JwtAlgorithm::Hs256, SECRET, claims(None, None)).unwrap();
        let strict = claims(Some("bank"), Some("hub"));
        let strict = Verifier::new(JwtAlgorithm::Hs256, SECRET, strict).unwrap();
        let header = r#"{"alg":"HS256"}"#;
        let (exp, early, late) = (NOW_S + 60, NOW_S - 6, NOW_S + 6);
        use JwtError::{Expired, Invalid};
        for (payload, outcome, strictly) in [
            (
                format!(r#"{{"sub":"alice","exp":{exp}}}"#),
                Ok(()),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{exp},"iss":"bank","aud":"hub"}}"#),
                Err(Invalid),
                Ok(()),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{exp},"iss":"bank","aud":["x","hub"]}}"#),
                Err(Invalid),
                Ok(()),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{exp},"iss":"bank","aud":["x"]}}"#),
                Err(Invalid),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{exp},"iss":"thief","aud":"hub"}}"#),
                Err(Invalid),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{exp},"iss":"bank","aud":{{}}}}"#),
                Err(Invalid),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"bob","exp":{exp}}}"#),
                Err(Invalid),
                Err(Invalid),
            ),
            (format!(r#"{{"exp":{exp}}}"#), Err(Invalid), Err(Invalid)),
            (r#"{"sub":"alice"}"#.to_owned(), Err(Invalid), Err(Invalid)),
            (
                r#"{"sub":"alice","exp":null}"#.to_owned(),
                Err(Invalid),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"alice","exp":"{exp}"}}"#),
                Err(Invalid),
                Err(Invalid),
            ),
            (
                r#"{"sub":"alice","exp":1e99}"#.to_owned(),
                Err(Invalid),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{exp},"exp":{exp}}}"#),
                Err(Invalid),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{early}}}"#),
                Err(Expired),
                Err(Invalid),
            ),
            (
                r#"{"sub":"alice","exp":-9223372036854775808}"#.to_owned(),
                Err(Expired),
                Err(Invalid),
            ),
            (
                r#"{"sub":"alice","exp":9223372036854775807}"#.to_owned(),
                Ok(()),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{exp},"nbf":{NOW_S}}}"#),
                Ok(()),
                Err(Invalid),
            ),
            (
                format!(r#"{{"sub":"alice","exp":{exp},"nbf":{late}}}"#),
                Err(Invalid),
                Err(Invalid),
            ),
            ("[]".to_owned(), Err(Invalid), Err(Invalid)),
            (String::new(), Err(Invalid), Err(Invalid)),
        ] {
            let token = hs256(header, &payload);
            assert_eq!(verify(&plain, &token), outcome, "{payload}");
            assert_eq!(verify(&strict, &token), strictly, "strictly {payload}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an RSA key that nobody else has")]
    fn the_key_decides_about_the_algorithm() {
        let good = format!(r#"{{"sub":"alice","exp":{}}}"#, NOW_S + 60);
        let plain = Verifier::new(JwtAlgorithm::Hs256, SECRET, claims(None, None)).unwrap();
        assert_eq!(
            verify(
                &plain,
                &hs256(r#"{"alg":"HS256","typ":"JWT","kid":"x"}"#, &good)
            ),
            Ok(())
        );
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":""}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"EdDSA"}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{}"#,
            "",
            r#"{"alg":"HS256","crit":["exp"],"exp":0}"#,
            r#"{"alg":"HS256","alg":"HS256"}"#,
        ] {
            assert_eq!(
                verify(&plain, &hs256(header, &good)),
                Err(JwtError::Invalid),
                "{header}"
            );
        }
        let token = hs256(r#"{"alg":"HS256"}"#, &good);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        for token in [
            signed.to_owned(),
            format!("{signed}."),
            format!("{signed}.{}", &signature[1..]),
            format!("{signed}.{signature}="),
            format!("{signed}.{signature}.x"),
            format!(" {token}"),
            format!("{signed}.A{}", &signature[1..]),
        ] {
            assert_eq!(verify(&plain, &token), Err(JwtError::Invalid), "{token}");
        }

        // A public key is no secret: whoever knows it must not sign with it.
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = BASE64_STANDARD.encode(pair.public_key());
        let rs256 = Verifier::new(JwtAlgorithm::Rs256, &public, claims(None, None)).unwrap();
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(r#"{"alg":"RS256"}"#), encode(&good));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .unwrap();
        let token = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(&signature));
        assert_eq!(verify(&rs256, &token), Ok(()));
        let confused = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(&good));
        let key = hmac::Key::new(hmac::HMAC_SHA256, pair.public_key().as_ref());
        let confused = format!(
            "{confused}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, confused.as_bytes()))
        );
        assert_eq!(verify(&rs256, &confused), Err(JwtError::Invalid));
    }

    #[test]
    fn our_own_tokens() {
        let seed = BASE64_STANDARD.encode([9; 32]);
        let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let public = BASE64_STANDARD.encode(pair.public_key());
        let pkcs8 = BASE64_STANDARD.encode(pair.to_pkcs8().unwrap());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{pkcs8}\n-----END PRIVATE KEY-----\n");
        for (algorithm, private, public) in [
            (JwtAlgorithm::Hs256, SECRET, SECRET),
            (JwtAlgorithm::EdDsa, &seed, &public),
            (JwtAlgorithm::EdDsa, &pkcs8, &public),
            (JwtAlgorithm::EdDsa, &pem, &public),
        ] {
            let claims = claims(Some("us"), Some("them"));
            let signer = Signer::new(algorithm, private).unwrap();
            let token = signer.sign(&claims, 30, at(NOW_S));
            let verifier = Verifier::new(algorithm, public, claims).unwrap();
            assert_eq!(verify(&verifier, &token), Ok(()), "{token}");
            let jwt = Jwt::parse(token.as_bytes()).unwrap();
            assert!(verifier.is_for(&jwt));
            assert_eq!(
                verifier.verify(&jwt, at(NOW_S + 36)),
                Err(JwtError::Expired)
            );
        }
    }

    #[test]
    fn keys_that_are_none() {
        for (algorithm, key, error) in [
            (JwtAlgorithm::Hs256, "not base64!", KeyError::Encoding),
            (JwtAlgorithm::Hs256, "c2hvcnQ=", KeyError::Short),
            (JwtAlgorithm::Hs256, "", KeyError::Short),
            (JwtAlgorithm::EdDsa, "c2hvcnQ=", KeyError::Key),
            (JwtAlgorithm::Rs256, SECRET, KeyError::Key),
        ] {
            let found = Verifier::new(algorithm, key, claims(None, None)).err();
            assert_eq!(found, Some(error), "{key}");
        }
        assert_eq!(
            Signer::new(JwtAlgorithm::Rs256, SECRET).err(),
            Some(KeyError::VerifyOnly)
        );
        assert_eq!(
            Signer::new(JwtAlgorithm::EdDsa, "c2hvcnQ=").err(),
            Some(KeyError::Key)
        );
    }

    #[test]
    fn decoys_open_nothing() {
        let decoys = Decoys::default();
        for algorithm in JwtAlgorithm::ALL {
            let header = format!(r#"{{"alg":"{}"}}"#, algorithm.name());
            let token = hs256(&header, "{}");
            let jwt = Jwt::parse(token.as_bytes()).unwrap();
            decoys.verify(&jwt);
            assert!(
                decoys
                    .0
                    .iter()
                    .all(|decoy| decoy.verify(&jwt, at(0)).is_err())
            );
        }
    }
}
