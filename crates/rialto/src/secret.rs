//! Secrets: made here, read from files, never printed by accident.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rialto_node::secrets::{random, read_private};

use crate::failure::{Exit, Failure};

/// Longest secret that is read from stdin, in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// A bearer token; its `Debug` shows nothing of it.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// A new one, `rialto_admin_…`: with a prefix that scanners for leaked secrets know.
    pub(crate) fn generate(purpose: &str) -> Self {
        let entropy = BASE64_URL_SAFE_NO_PAD.encode(random::<32>());
        Self(format!("rialto_{purpose}_{entropy}"))
    }

    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text of a file that only its owner may read, or of stdin for `-`.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let config = |message: String| Failure::new(Exit::Config, message);
        let text = if path == Path::new("-") {
            let mut text = String::new();
            let read = io::stdin()
                .lock()
                .take(SECRET_BYTES_MAX)
                .read_to_string(&mut text);
            read.map_err(|error| config(format!("cannot read a token from stdin: {error}")))?;
            text.trim().to_owned()
        } else {
            read_private(path)
                .map_err(|error| config(error.to_string()))?
                .to_string()
        };
        if text.is_empty() {
            return Err(config(format!("{} holds no token", path.display())));
        }
        Ok(Self(text))
    }

    /// The secret itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Writes new files that only their owner may read; none, if one of them is there already.
pub(crate) fn write_all_private(files: &[(PathBuf, String)]) -> Result<(), Failure> {
    for (path, _) in files {
        if path.symlink_metadata().is_ok() {
            let message = format!("{} exists already and is never overwritten", path.display());
            return Err(Failure::failed(message));
        }
    }
    files.iter().try_for_each(|(path, text)| {
        write_private(path, text)
            .map_err(|error| Failure::failed(format!("cannot make {}: {error}", path.display())))
    })
}

/// Writes a new file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_token_never_prints_itself() {
        assert_eq!(format!("{:?}", Token::new("sesame")), "Token(..)");
    }

    #[test]
    fn tokens_differ() {
        let (one, two) = (Token::generate("test"), Token::generate("test"));
        assert_ne!(one.reveal(), two.reveal());
        assert_eq!(one.reveal().len(), "rialto_test_".len() + 43);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write_private(&path, "sesame\n").unwrap();
        assert_eq!(Token::read(&path).unwrap().reveal(), "sesame");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = Token::read(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("mode 640"), "{failure}");
    }
}
