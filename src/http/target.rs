//! A request target and its parts.
//!
//! ```text
//! request-target = origin-form / absolute-form / authority-form / asterisk-form  RFC 9112 section 3.2
//! origin-form    = absolute-path [ "?" query ]
//! absolute-form  = absolute-URI, here http-URI = "http" "://" authority path-abempty [ "?" query ]  RFC 9110 section 4.2.1
//! asterisk-form  = "*"
//! ```
//!
//! ```text
//! target           authority   path     query
//! /a%20b?x=1                   /a%20b   x=1
//! http://h:80/a    h:80        /a
//! http://h?x       h           /        x
//! *                            *
//! ```
//!
//! The path stays encoded here. The router splits it into segments before it decodes them, so `%2F` separates nothing.
//!
//! The query is a form ([WHATWG URL](https://url.spec.whatwg.org/#urlencoded-parsing)).

use std::{borrow::Cow, net::Ipv6Addr};

/// Parses the origin form, the absolute form and the asterisk form. The authority form is for CONNECT, which this server does
/// not implement. Returns the authority, which only the absolute form has, the path and the query, not decoded yet.
///
/// # Errors
///
/// Returns what is wrong with the target.
pub(super) fn parse_target(target: &[u8]) -> Result<(Option<&str>, &str, &str), &'static str> {
    // RFC 3986 wants `[` and `|` encoded too, which browsers leave as they are. Browsers encode the characters that are
    // refused here. A fragment is no part of a target (RFC 9110 section 7.1).
    let refused = |byte: &u8| !byte.is_ascii_graphic() || b"\"#<>".contains(byte);
    let target = str::from_utf8(target)
        .ok()
        .filter(|text| !text.as_bytes().iter().any(refused))
        .ok_or("request target holds a character that must be encoded")?;
    let (authority, rest) = match target.split_once("://") {
        _ if target.starts_with('/') || target == "*" => (None, target),
        Some((scheme, rest)) if is_http(scheme) => {
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            // An empty host is invalid (RFC 9110 section 4.2.1), and so is user information (section 4.2.4).
            if !is_authority(authority) {
                return Err("request target has a malformed authority");
            }
            (Some(authority), rest)
        }
        _ => return Err("request target is none of the known forms"),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // An empty path is equivalent to "/" (RFC 9110 section 4.2.3).
    let path = if path.is_empty() { "/" } else { path };
    percent_decode(path)
        // RFC 3986 section 7.3 advises to refuse a NUL. A backslash separates names in some file systems.
        .filter(|path| !path.contains(['\0', '\\']))
        .ok_or("path is not percent-encoded UTF-8")?;
    Ok((authority, path, query))
}

/// Returns the names and values of a form, decoded. No form is malformed
/// ([WHATWG URL](https://url.spec.whatwg.org/#concept-urlencoded-parser)): `a=1=2&b&=c` has the pairs `("a", "1=2")`,
/// `("b", "")` and `("", "c")`.
pub(super) fn form_pairs(form: &[u8]) -> impl Iterator<Item = (String, String)> {
    let pairs = form.split(|&byte| byte == b'&');
    pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let mut parts = pair.splitn(2, |&byte| byte == b'=').map(form_decode);
        let mut part = || parts.next().unwrap_or_default();
        (part(), part())
    })
}

/// Returns whether the scheme is one of HTTP's, in any case (RFC 3986 section 3.1). Both are accepted: a proxy may have ended
/// TLS.
fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Checks `uri-host [ ":" port ]` (RFC 9110 section 7.2), with a host that is not empty.
pub(crate) fn is_authority(text: &str) -> bool {
    let (host, port) = split_port(text);
    // `port = *DIGIT` may be empty (RFC 3986 section 3.2.3). `parse` alone would accept a sign.
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    // `reg-name = *( unreserved / pct-encoded / sub-delims )`
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    // `host = IP-literal / IPv4address / reg-name`; of literals, only `"[" IPv6address "]"` is known (RFC 3986 section 3.2.2).
    let is_host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(literal) => literal.is_some_and(|literal| literal.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(in_name) && percent_decode(host).is_some(),
    };
    is_host && (port.is_empty() || is_port)
}

/// Splits an authority into its host and its port, which may be empty. Colons within brackets belong to the host: `[::1]:80`
/// is `("[::1]", "80")`, and `[::1]` is `("[::1]", "")`.
pub(crate) fn split_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, ""),
    }
}

/// Decodes `pct-encoded = "%" HEXDIG HEXDIG` (RFC 3986 section 2.1). Returns `None` where a percent sign stands without
/// two hexadecimal digits after it, and where the result is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let (decoded, is_valid) = decode(text.as_bytes());
    let decoded = String::from_utf8(decoded).ok()?;
    is_valid.then_some(Cow::Owned(decoded))
}

/// Decodes a name or a value of a form, where a plus is a space.
fn form_decode(text: &[u8]) -> String {
    let plus_to_space = |&byte: &u8| if byte == b'+' { b' ' } else { byte };
    let spaced: Vec<u8> = text.iter().map(plus_to_space).collect();
    String::from_utf8_lossy(&decode(&spaced).0).into_owned()
}

/// Decodes each `%XX`. A percent sign without two hexadecimal digits after it stays as it is
/// ([WHATWG URL](https://url.spec.whatwg.org/#percent-decode)), and the second value is false then: `a%2Fb%` is `a/b%` and
/// false.
fn decode(text: &[u8]) -> (Vec<u8>, bool) {
    let mut parts = text.split(|&byte| byte == b'%');
    let mut decoded = parts.next().unwrap_or_default().to_vec();
    let mut is_valid = true;
    for part in parts {
        let escaped = escaped_byte(part);
        decoded.push(escaped.unwrap_or(b'%'));
        decoded.extend_from_slice(if escaped.is_some() { &part[2..] } else { part });
        is_valid &= escaped.is_some();
    }
    (decoded, is_valid)
}

/// Returns the byte that the first two characters of a text stand for, `HEXDIG HEXDIG`.
fn escaped_byte(text: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*text.get(index)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}
