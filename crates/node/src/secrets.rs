//! The node's secret: what it is derived into, and how other secrets are kept.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac, rand,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use rialto_ledger::SealedSecret;
use thiserror::Error;
use zeroize::Zeroizing;

/// A secret that cannot be used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; `rialto init` makes it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read the file.
    #[error("{} can be read by others (mode {mode:o}): run `chmod 600 {}`", path.display(), path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file does not hold what it should.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: &'static str,
    },
    /// A sealed secret was sealed with another key.
    #[error("a stored secret cannot be opened: the secret file is not the one it was stored with")]
    Sealed,
}

/// Reads a file that only its owner may read, without the white space around its text.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let read = |source| SecretError::Read {
        path: path.to_owned(),
        source,
    };
    let mode = fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Readable {
            path: path.to_owned(),
            mode,
        });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(read)?);
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Fills an array from the operating system's source of randomness.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// The 32 bytes of the secret file, and what is made of them.
pub struct NodeSecret {
    root: Zeroizing<[u8; 32]>,
    sealing: LessSafeKey,
}

impl NodeSecret {
    /// Reads the secret file: 32 bytes in base64, readable by its owner only.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let text = read_private(path)?;
        let content = |message| SecretError::Content {
            path: path.to_owned(),
            message,
        };
        let bytes = BASE64_STANDARD
            .decode(&*text)
            .map_err(|_| content("is not base64"))?;
        let root: [u8; 32] = bytes
            .try_into()
            .map_err(|_| content("must hold 32 bytes in base64"))?;
        Ok(Self::new(root))
    }

    pub(crate) fn new(root: [u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &derive(&root, "rialto sealing"));
        let sealing = LessSafeKey::new(key.expect("the key has 32 bytes"));
        Self {
            root: Zeroizing::new(root),
            sealing,
        }
    }

    /// What STREAM credentials are derived from.
    pub fn stream(&self) -> [u8; 32] {
        derive(&self.root, "rialto stream")
    }

    /// A secret for a purpose and a context, the same each time.
    pub fn derive(&self, purpose: &str, context: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &derive(&self.root, "rialto derived"));
        // The length keeps purpose and context apart.
        let length = u64::try_from(purpose.len()).expect("a purpose is a few words");
        let message = [&length.to_be_bytes(), purpose.as_bytes(), context].concat();
        tag(&key, &message)
    }

    /// Encrypts a secret that is to be kept.
    pub fn seal(&self, secret: &str) -> SealedSecret {
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = secret.as_bytes().to_vec();
        self.sealing
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut sealed,
            )
            .expect("tokens are far shorter than the cipher's limit");
        sealed.splice(0..0, nonce);
        SealedSecret(BASE64_STANDARD.encode(sealed))
    }

    /// Decrypts what [`Self::seal`] made.
    pub fn open(&self, sealed: &SealedSecret) -> Result<Zeroizing<String>, SecretError> {
        let mut bytes = BASE64_STANDARD
            .decode(&sealed.0)
            .map_err(|_| SecretError::Sealed)?;
        let (nonce, sealed) = bytes
            .split_first_chunk_mut::<NONCE_LEN>()
            .ok_or(SecretError::Sealed)?;
        let opened = self
            .sealing
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), sealed)
            .map_err(|_| SecretError::Sealed)?;
        let text = String::from_utf8(opened.to_vec()).map_err(|_| SecretError::Sealed)?;
        Ok(Zeroizing::new(text))
    }
}

fn derive(root: &[u8; 32], purpose: &str) -> [u8; 32] {
    tag(&hmac::Key::new(hmac::HMAC_SHA256, root), purpose.as_bytes())
}

fn tag(key: &hmac::Key, message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(key, message);
    tag.as_ref()
        .try_into()
        .expect("HMAC-SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::NodeSecret;

    #[test]
    fn only_the_same_secret_opens_what_it_sealed() {
        let (ours, other) = (NodeSecret::new([1; 32]), NodeSecret::new([2; 32]));
        let sealed = ours.seal("token");
        assert!(!sealed.0.contains("token"));
        assert_ne!(sealed, ours.seal("token"), "each time under another nonce");
        assert_eq!(ours.open(&sealed).unwrap().as_str(), "token");
        assert!(other.open(&sealed).is_err());
    }
}
