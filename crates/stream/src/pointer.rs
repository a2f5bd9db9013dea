//! Payment pointers: `$example.com/bob` stands for `https://example.com/bob` (RFC 26).

use thiserror::Error;

/// What a pointer without a path means.
pub const WELL_KNOWN_PATH: &str = "/.well-known/pay";
/// Longest pointer or URL that is looked at, in bytes.
pub const POINTER_BYTES_MAX: usize = 2_048;

/// Why a text is neither a payment pointer nor an SPSP URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PointerError {
    /// Neither `$…` nor a URL.
    #[error("must begin with $ or https://")]
    NoPointer,
    /// `http://` without permission.
    #[error("must use https:// (http:// only in insecure mode)")]
    Http,
    /// Longer than [`POINTER_BYTES_MAX`].
    #[error("longer than 2048 characters")]
    TooLong,
    /// Empty, or with characters that no host has.
    #[error("the host is not valid")]
    Host,
    /// A user before the host.
    #[error("must not name a user")]
    User,
    /// A port without permission.
    #[error("must not name a port (only in insecure mode)")]
    Port,
    /// The machine itself, without permission.
    #[error("must not name this machine (only in insecure mode)")]
    Loopback,
    /// Something after `?` or `#`.
    #[error("must not have a query or a fragment")]
    QueryOrFragment,
    /// Characters that no path has, or a broken percent-encoding.
    #[error("the path is not valid")]
    Path,
}

/// The URL to query for `$…`, or for a URL given as such.
///
/// `allow_insecure` is for development: it permits `http://`, ports, and hosts that mean the machine
/// itself; such a pointer with a port or for this machine still resolves to https.
///
/// ```
/// use rialto_stream::pointer::resolve;
///
/// assert_eq!(resolve("$example.com", false)?, "https://example.com/.well-known/pay");
/// assert_eq!(resolve("$example.com/bob", false)?, "https://example.com/bob");
/// assert!(resolve("http://localhost:7770/accounts/bob/spsp", false).is_err());
/// # Ok::<(), rialto_stream::pointer::PointerError>(())
/// ```
pub fn resolve(pointer_or_url: &str, allow_insecure: bool) -> Result<String, PointerError> {
    if pointer_or_url.len() > POINTER_BYTES_MAX {
        return Err(PointerError::TooLong);
    }
    let (scheme, rest, default_path) = if let Some(rest) = pointer_or_url.strip_prefix('$') {
        ("https", rest, WELL_KNOWN_PATH)
    } else if let Some(rest) = strip_scheme(pointer_or_url, "https://") {
        ("https", rest, "/")
    } else if let Some(rest) = strip_scheme(pointer_or_url, "http://") {
        if !allow_insecure {
            return Err(PointerError::Http);
        }
        ("http", rest, "/")
    } else {
        return Err(PointerError::NoPointer);
    };
    if rest.contains(['?', '#']) {
        return Err(PointerError::QueryOrFragment);
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    check_authority(authority, allow_insecure)?;
    check_path(path)?;
    let path = if path.is_empty() || path == "/" {
        default_path
    } else {
        path
    };
    Ok(format!(
        "{scheme}://{}{path}",
        authority.to_ascii_lowercase()
    ))
}

/// The pointer that resolves to `url`, to show for one's own accounts; `None` when there is none.
///
/// ```
/// use rialto_stream::pointer::pointer_for;
///
/// assert_eq!(pointer_for("https://example.com/bob").as_deref(), Some("$example.com/bob"));
/// assert_eq!(pointer_for("https://example.com:8080/bob"), None);
/// ```
pub fn pointer_for(url: &str) -> Option<String> {
    let rest = strip_scheme(url, "https://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.strip_suffix(":443").unwrap_or(authority);
    let path = if path == WELL_KNOWN_PATH { "" } else { path };
    let pointer = format!("${}{path}", host.to_ascii_lowercase());
    // A bare host as a URL is the root, which no pointer means.
    let same = resolve(&pointer, false).ok()?
        == format!(
            "https://{}{}",
            host.to_ascii_lowercase(),
            &rest[authority.len()..]
        );
    same.then_some(pointer)
}

/// Schemes are case-insensitive (RFC 3986, section 3.1).
fn strip_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = url.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn check_authority(authority: &str, allow_insecure: bool) -> Result<(), PointerError> {
    if authority.contains('@') {
        return Err(PointerError::User);
    }
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or(PointerError::Host)?;
        authority.split_at(end + 1)
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    if !port.is_empty() {
        let number = port.strip_prefix(':').ok_or(PointerError::Host)?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || number.parse::<u16>().is_err() || !allow_insecure {
            return Err(PointerError::Port);
        }
    }
    let loopback = if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(PointerError::Host)?;
        let address: std::net::Ipv6Addr = inner.parse().map_err(|_| PointerError::Host)?;
        address.to_canonical().is_loopback() || address.is_unspecified()
    } else {
        check_name(host)?;
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        name == "localhost"
            || name.ends_with(".localhost")
            || name
                .parse::<std::net::Ipv4Addr>()
                .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
    };
    if loopback && !allow_insecure {
        return Err(PointerError::Loopback);
    }
    Ok(())
}

/// Letters, digits, `-`, `_` and dots. RFC 3986 allows more in a host, but no such host exists.
fn check_name(name: &str) -> Result<(), PointerError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || !name.bytes().all(valid) {
        return Err(PointerError::Host);
    }
    Ok(())
}

/// path-abempty of RFC 3986.
fn check_path(path: &str) -> Result<(), PointerError> {
    let is_path = |byte| is_unreserved(byte) || is_sub_delim(byte) || b":@/".contains(&byte);
    if is_encoded(path, is_path) {
        Ok(())
    } else {
        Err(PointerError::Path)
    }
}

/// Whether every byte is allowed or part of a percent-encoding.
fn is_encoded(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let mut parts = text.split('%');
    let plain = |part: &str| part.bytes().all(&allowed);
    parts.next().is_none_or(plain)
        && parts.all(|part| {
            let hex = part.bytes().take(2).filter(u8::is_ascii_hexdigit).count();
            hex == 2 && plain(&part[2..])
        })
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn is_sub_delim(byte: u8) -> bool {
    b"!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pointers_resolve() {
        for (pointer, url) in [
            ("$example.com", "https://example.com/.well-known/pay"),
            ("$example.com/", "https://example.com/.well-known/pay"),
            ("$example.com/bob", "https://example.com/bob"),
            (
                "$example.com/invoices/12345",
                "https://example.com/invoices/12345",
            ),
            (
                "$bob.example.com",
                "https://bob.example.com/.well-known/pay",
            ),
            ("$example.com/bob/", "https://example.com/bob/"),
            ("$example.com//", "https://example.com//"),
            ("$[2001:db8::1]/x", "https://[2001:db8::1]/x"),
            ("$192.0.2.7/x", "https://192.0.2.7/x"),
            ("$EXAMPLE.com/Bob", "https://example.com/Bob"),
            ("$example.com/a%2Fb", "https://example.com/a%2Fb"),
            ("https://example.com/bob", "https://example.com/bob"),
            ("HTTPS://example.com", "https://example.com/"),
        ] {
            assert_eq!(resolve(pointer, false).as_deref(), Ok(url), "{pointer}");
        }
        let longest = format!("$example.com/{}", "a".repeat(POINTER_BYTES_MAX - 13));
        assert!(resolve(&longest, false).is_ok());
        assert_eq!(
            resolve(&format!("{longest}a"), false),
            Err(PointerError::TooLong)
        );
    }

    #[test]
    fn others_are_refused() {
        use PointerError::*;
        for (text, error) in [
            ("example.com", NoPointer),
            ("", NoPointer),
            ("$", Host),
            ("$/bob", Host),
            ("$user@example.com", User),
            ("$example.com:8080", Port),
            ("$example.com?x=1", QueryOrFragment),
            ("$example.com/a#b", QueryOrFragment),
            ("$example.com/a b", Path),
            ("$exämple.com", Host),
            ("$example.com/ä", Path),
            ("$example.com/%zz", Path),
            ("$example.com/%4", Path),
            ("$https://example.com", Port),
            ("$$example.com", Host),
            ("$[2001:db8::1", Host),
            ("$[2001:db8::1]x", Host),
            ("$[nonsense]", Host),
            ("$localhost/bob", Loopback),
            ("$a.localhost", Loopback),
            ("$127.0.0.1/bob", Loopback),
            ("$[::1]/bob", Loopback),
            ("https://example.com:8080/bob", Port),
            ("http://example.com/bob", Http),
            ("ftp://example.com", NoPointer),
        ] {
            assert_eq!(resolve(text, false), Err(error), "{text}");
        }
    }

    #[test]
    fn development_may_use_ports_http_and_this_machine() {
        let url = "http://localhost:7770/accounts/alice/spsp";
        assert_eq!(resolve(url, true).as_deref(), Ok(url));
        assert_eq!(
            resolve("$127.0.0.1:7770/bob", true).as_deref(),
            Ok("https://127.0.0.1:7770/bob")
        );
        assert_eq!(resolve("$example.com:99999", true), Err(PointerError::Port));
        assert_eq!(resolve("http://u@h/", true), Err(PointerError::User));
    }

    #[test]
    fn urls_have_pointers() {
        for (url, pointer) in [
            ("https://example.com/.well-known/pay", Some("$example.com")),
            ("https://example.com/bob", Some("$example.com/bob")),
            ("https://example.com:443/bob", Some("$example.com/bob")),
            ("https://example.com/bob/", Some("$example.com/bob/")),
            ("https://example.com/", None),
            ("https://example.com:8080/bob", None),
            ("https://example.com/bob?x=1", None),
            ("http://example.com/bob", None),
        ] {
            assert_eq!(pointer_for(url).as_deref(), pointer, "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_text_resolves_or_is_refused(text in "\\PC*", path in "[ -~]{0,20}", insecure: bool) {
            let _ = resolve(&text, insecure);
            let _ = pointer_for(&text);
            if let Ok(url) = resolve(&format!("$example.com/{path}"), insecure) {
                prop_assert_eq!(resolve(&url, insecure), Ok(url));
            }
        }
    }
}
