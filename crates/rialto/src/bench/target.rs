//! The endpoint that is measured.

use std::{fmt, str::FromStr};

use http::{Uri, uri::Scheme};
use rialto_btp::BtpUri;

/// Where packets are sent, and how.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// ILP over HTTP.
    Http(HttpTarget),
    /// BTP over WebSocket.
    Btp(BtpUri),
}

/// An endpoint of ILP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpTarget {
    /// `https://` or `http://`, in full.
    pub(crate) uri: Uri,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// HTTP/2 without asking first.
    pub(crate) http2: bool,
}

const WANTED: &str = "write http://HOST:PORT/PATH, https://, h2c://, btp+ws:// or btp+wss://";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(uri) = text.parse::<BtpUri>() {
            if !uri.token.is_empty() {
                return Err(
                    "a token in a URL shows in the list of processes: use --token-file".into(),
                );
            }
            return Ok(Self::Btp(uri));
        }
        let (scheme, rest) = text.split_once("://").ok_or(WANTED)?;
        let (tls, http2) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, false),
            "h2c" => (false, true),
            "https" => (true, false),
            "btp+ws" | "btp+wss" | "btps" | "ws" | "wss" => {
                return Err(text
                    .parse::<BtpUri>()
                    .map_or_else(|e| e.to_string(), |_| WANTED.into()));
            }
            other => return Err(format!("unknown scheme `{other}`: {WANTED}")),
        };
        let plain = if tls { Scheme::HTTPS } else { Scheme::HTTP };
        let uri: Uri = format!("{plain}://{rest}")
            .parse()
            .map_err(|error| format!("{error}: {WANTED}"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(WANTED)?;
        Ok(Self::Http(HttpTarget {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            http2,
            uri,
        }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(target) if target.http2 => {
                let rest = target.uri.to_string();
                write!(f, "h2c{}", rest.trim_start_matches("http"))
            }
            Self::Http(target) => write!(f, "{}", target.uri),
            Self::Btp(uri) => write!(f, "btp+{}", uri.websocket_url()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_back() {
        for (text, shown) in [
            ("http://[::1]:7770/ilp", "http://[::1]:7770/ilp"),
            ("https://hub.example/a", "https://hub.example/a"),
            ("h2c://hub:1/a/ilp", "h2c://hub:1/a/ilp"),
            ("btp+ws://hub:1/a", "btp+ws://hub:1/a"),
            ("btp+wss://hub/a", "btp+wss://hub:443/a"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        let Ok(Target::Http(target)) = "https://[::1]/ilp".parse() else {
            panic!("it is HTTP")
        };
        assert_eq!(
            (target.host.as_str(), target.port, target.tls),
            ("::1", 443, true)
        );
    }

    #[test]
    fn what_is_no_endpoint_is_explained() {
        for (text, words) in [
            ("127.0.0.1:7770", "write http://HOST:PORT/PATH"),
            ("ftp://hub", "unknown scheme `ftp`"),
            ("http://", "write http://HOST:PORT/PATH"),
            ("btp+ws://:secret@hub/", "--token-file"),
            ("btp+ws://hub:0/", "port of the BTP URI"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
