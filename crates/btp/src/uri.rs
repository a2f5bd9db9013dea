//! BTP URIs: where to dial and with which name and secret (RFC 23).

use std::fmt;

use thiserror::Error;

/// A parsed BTP URI, `btp+wss://[username][:token]@host[:port][/path]`.
///
/// Also read are `btp+ws`, `btps`, `wss` and `ws`. The secret never shows in `Debug`, and never goes
/// into the HTTP request: [`BtpUri::websocket_url`] is without it.
///
/// ```
/// use rialto_btp::BtpUri;
///
/// let uri: BtpUri = "btp+wss://:sh%3Ah@hub.example/accounts/alice/ilp/btp".parse()?;
/// assert_eq!(uri.token, "sh:h");
/// assert_eq!(uri.websocket_url(), "wss://hub.example:443/accounts/alice/ilp/btp");
/// # Ok::<(), rialto_btp::UriError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BtpUri {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// `auth_username`; may be empty.
    pub username: String,
    /// `auth_token`; empty when the URI has none.
    pub token: String,
    /// Name or address; an IPv6 address keeps its brackets.
    pub host: String,
    /// The URI's port, or 80 and 443.
    pub port: u16,
    /// Begins with `/`; includes the query, if there is one.
    pub path: String,
}

/// Why a text is not a BTP URI. The text is not repeated, since it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UriError {
    /// Bytes that no URI may contain: blanks, controls, anything but ASCII.
    #[error("BTP URI contains characters that have to be percent-encoded")]
    Characters,
    /// Another scheme, or none.
    #[error("BTP URI does not begin with btp+wss://, btp+ws://, btps://, wss:// or ws://")]
    Scheme,
    /// No host, or not one that can be written in a URI.
    #[error("BTP URI has no valid host")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("port of the BTP URI is not a number from 1 to 65535")]
    Port,
    /// Username or token are not percent-encoded UTF-8.
    #[error("username or token of the BTP URI is not percent-encoded UTF-8")]
    UserInfo,
    /// A `#fragment`, which WebSocket URLs must not have (RFC 6455, section 3).
    #[error("BTP URI has a fragment")]
    Fragment,
}

const SCHEMES: [(&str, bool); 5] = [
    ("btp+wss", true),
    ("btp+ws", false),
    ("btps", true),
    ("wss", true),
    ("ws", false),
];

impl BtpUri {
    /// The ordinary WebSocket URL to dial, without username and token.
    pub fn websocket_url(&self) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        let Self {
            host, port, path, ..
        } = self;
        format!("{scheme}://{host}:{port}{path}")
    }
}

impl std::str::FromStr for BtpUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UriError::Characters);
        }
        if text.contains('#') {
            return Err(UriError::Fragment);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UriError::Scheme)?;
        let (_, tls) = SCHEMES
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(scheme))
            .ok_or(UriError::Scheme)?;
        let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_len);
        let (user_info, host_port) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (username, token) = user_info.split_once(':').unwrap_or((user_info, ""));
        let (host, port) = split_host_port(host_port)?;
        Ok(Self {
            tls,
            username: percent_decode(username)?,
            token: percent_decode(token)?,
            host: host.to_owned(),
            port: match port {
                Some(port) => parse_port(port)?,
                None if tls => 443,
                None => 80,
            },
            path: match path.as_bytes().first() {
                Some(b'/') => path.to_owned(),
                _ => format!("/{path}"),
            },
        })
    }
}

impl fmt::Debug for BtpUri {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let username = &self.username;
        write!(f, "{} (username {username:?})", self.websocket_url())
    }
}

fn split_host_port(text: &str) -> Result<(&str, Option<&str>), UriError> {
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(UriError::Host)? + 1;
        let (host, rest) = text.split_at(end);
        let is_ipv6 = host[1..end - 1].parse::<std::net::Ipv6Addr>().is_ok();
        let port = rest.strip_prefix(':');
        if !is_ipv6 || (port.is_none() && !rest.is_empty()) {
            return Err(UriError::Host);
        }
        (host, port)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if !host.starts_with('[') && (host.is_empty() || !host.bytes().all(is_name)) {
        return Err(UriError::Host);
    }
    Ok((host, port.filter(|port| !port.is_empty())))
}

fn parse_port(text: &str) -> Result<u16, UriError> {
    // `u16::from_str` would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UriError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(UriError::Port),
        Ok(port) => Ok(port),
    }
}

fn percent_decode(text: &str) -> Result<String, UriError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(bytes.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(UriError::UserInfo);
        };
        decoded.push(high << 4 | low);
    }
    String::from_utf8(decoded).map_err(|_| UriError::UserInfo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_split_into_url_username_and_token() {
        for (text, url, username, token) in [
            ("btp+wss://:shh@host:99/p", "wss://host:99/p", "", "shh"),
            (
                "btp+ws://name:secret@localhost:7768",
                "ws://localhost:7768/",
                "name",
                "secret",
            ),
            ("btps://bob:a@host", "wss://host:443/", "bob", "a"),
            ("ws://host", "ws://host:80/", "", ""),
            ("WSS://host:", "wss://host:443/", "", ""),
            ("btp+ws://bob@host/a@b:c", "ws://host:80/a@b:c", "bob", ""),
            ("btp+ws://:a:b@host", "ws://host:80/", "", "a:b"),
            (
                "btp+ws://u%40x:%3A%c3%A9@host?q=1",
                "ws://host:80/?q=1",
                "u@x",
                ":é",
            ),
            ("btp+ws://:t@[::1]:3000/x", "ws://[::1]:3000/x", "", "t"),
            ("btp+ws://:a@b@host", "ws://host:80/", "", "a@b"),
        ] {
            let uri: BtpUri = text.parse().expect(text);
            assert_eq!(
                (uri.websocket_url().as_str(), &*uri.username, &*uri.token),
                (url, username, token)
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, error) in [
            ("", UriError::Scheme),
            ("host:80", UriError::Scheme),
            ("https://host", UriError::Scheme),
            ("ws://", UriError::Host),
            ("ws:///path", UriError::Host),
            ("ws://:token@/", UriError::Host),
            ("ws://a%41", UriError::Host),
            ("ws://[::1", UriError::Host),
            ("ws://[::1]80", UriError::Host),
            ("ws://[localhost]", UriError::Host),
            ("ws://::1", UriError::Host),
            ("ws://host:0", UriError::Port),
            ("ws://host:+80", UriError::Port),
            ("ws://host:65536", UriError::Port),
            ("ws://:a%4@host", UriError::UserInfo),
            ("ws://:a%zz@host", UriError::UserInfo),
            ("ws://:a%ff@host", UriError::UserInfo),
            ("ws://host/\r\nx: y", UriError::Characters),
            ("ws://host/a b", UriError::Characters),
            ("ws://hóst/", UriError::Characters),
            ("ws://host/#x", UriError::Fragment),
        ] {
            assert_eq!(text.parse::<BtpUri>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_token_is_never_shown() {
        let uri: BtpUri = "btp+ws://bob:shh@host/".parse().unwrap();
        assert_eq!(format!("{uri:?}"), r#"ws://host:80/ (username "bob")"#);
    }
}
