//! A request target and its parts.
//!
//! ```text
//! request-target = origin-form / absolute-form / authority-form / asterisk-form  RFC 9112 section 3.2
//! origin-form    = absolute-path [ "?" query ]
//! absolute-form  = absolute-URI, here http-URI = "http" "://" authority path-abempty [ "?" query ]  RFC 9110 section 4.2.1
//! asterisk-form  = "*"
//! ```
//!
//! The query is a form ([WHATWG URL](https://url.spec.whatwg.org/#urlencoded-parsing)).

use std::{borrow::Cow, net::Ipv6Addr};

/// The parts of a request target, not decoded yet.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// Only the absolute form has an authority.
    pub(super) authority: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl<'a> Target<'a> {
    /// Parses the origin form, the absolute form and the asterisk form. The authority form is for CONNECT, which this server
    /// does not implement.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the target.
    pub(super) fn parse(target: &'a [u8]) -> Result<Target<'a>, &'static str> {
        // RFC 3986 wants `[` and `|` encoded too, which browsers leave as they are. Browsers encode the characters that are
        // refused here. A fragment is no part of a target (RFC 9110 section 7.1).
        let refused = |byte: &u8| !byte.is_ascii_graphic() || b"\"#<>".contains(byte);
        let target = match str::from_utf8(target) {
            Ok(text) if !target.iter().any(refused) => text,
            _ => {
                return Err("request target holds a character that must be encoded");
            }
        };
        if target == "*" {
            return Ok(Target {
                authority: None,
                path: target,
                query: "",
            });
        }

        let (scheme, after) = target.split_once(':').unwrap_or((target, ""));
        let (authority, rest) = match after.strip_prefix("//") {
            _ if target.starts_with('/') => (None, target),
            Some(rest) if is_http(scheme) => {
                let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                // An empty host is invalid (RFC 9110 section 4.2.1), and so is user information (section 4.2.4).
                if !is_authority(authority) {
                    return Err("request target has a malformed authority");
                }
                (Some(authority), rest)
            }
            _ => {
                return Err("request target is none of the known forms");
            }
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        // An empty path is equivalent to "/" (RFC 9110 section 4.2.3).
        let path = if path.is_empty() { "/" } else { path };
        // RFC 3986 section 7.3 advises to refuse a NUL. A backslash separates names in some file systems.
        match percent_decode(path) {
            Some(decoded) if !decoded.contains(['\0', '\\']) => Ok(Target {
                authority,
                path,
                query,
            }),
            _ => Err("path is not percent-encoded UTF-8"),
        }
    }
}

/// Returns the names and values of a form, decoded. No form is malformed
/// ([WHATWG URL](https://url.spec.whatwg.org/#concept-urlencoded-parser)).
pub(super) fn form_pairs(form: &[u8]) -> impl Iterator<Item = (String, String)> {
    let pairs = form.split(|&byte| byte == b'&');
    pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let end = pair.iter().position(|&byte| byte == b'=');
        let (name, value) = pair.split_at(end.unwrap_or(pair.len()));
        (
            form_decode(name),
            form_decode(value.get(1..).unwrap_or(b"")),
        )
    })
}

/// Whether the scheme is one of HTTP's, in any case (RFC 3986 section 3.1). Both are accepted: a proxy may have ended TLS.
fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Checks `uri-host [ ":" port ]` (RFC 9110 section 7.2), with a host that is not empty.
pub(crate) fn is_authority(text: &str) -> bool {
    // `host = IP-literal / IPv4address / reg-name`; of literals, only `"[" IPv6address "]"` is known (RFC 3986 section 3.2.2).
    let (valid_host, port) = match text.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            // `reg-name = *( unreserved / pct-encoded / sub-delims )`
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
            (
                !name.is_empty() && name.bytes().all(allowed) && percent_decode(name).is_some(),
                port,
            )
        }
    };
    // `port = *DIGIT` may be empty (RFC 3986 section 3.2.3). `parse` alone would accept a sign.
    let valid_port = match port.strip_prefix(':') {
        Some(digits) => {
            digits.is_empty() || !digits.starts_with('+') && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    valid_host && valid_port
}

/// Decodes `pct-encoded = "%" HEXDIG HEXDIG` (RFC 3986 section 2.1). Returns `None` where a percent sign stands without
/// two hexadecimal digits after it, and where the result is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut after_percent = text.split('%').skip(1);
    if !after_percent.all(|rest| escaped_byte(rest.as_bytes()).is_some()) {
        return None;
    }
    let decoded = String::from_utf8(decode(text.as_bytes()));
    decoded.ok().map(Cow::Owned)
}

/// Decodes a name or a value of a form.
fn form_decode(text: &[u8]) -> String {
    let plus_to_space = |&byte: &u8| if byte == b'+' { b' ' } else { byte };
    let spaced: Vec<u8> = text.iter().map(plus_to_space).collect();
    String::from_utf8_lossy(&decode(&spaced)).into_owned()
}

/// Decodes each `%XX`. A percent sign without two hexadecimal digits after it stays as it is
/// ([WHATWG URL](https://url.spec.whatwg.org/#percent-decode)).
fn decode(mut text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    while let [byte, rest @ ..] = text {
        let escaped = escaped_byte(rest).filter(|_| *byte == b'%');
        decoded.push(escaped.unwrap_or(*byte));
        text = if escaped.is_some() { &rest[2..] } else { rest };
    }
    decoded
}

/// Returns the byte that the first two characters of a text stand for, `HEXDIG HEXDIG`.
fn escaped_byte(text: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*text.get(index)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}
