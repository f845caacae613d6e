//! A request target and what it is made of: its four forms (RFC 9112 section 3.2), authority and host (RFC 3986
//! section 3.2), percent-encoding (RFC 3986 section 2.1) and the query as a form (WHATWG URL,
//! [`application/x-www-form-urlencoded`](https://url.spec.whatwg.org/#urlencoded-parsing)).

use std::{borrow::Cow, net::Ipv6Addr};

/// A request target taken apart; nothing in it is decoded yet.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// Only an absolute form has one.
    pub(super) authority: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl<'a> Target<'a> {
    /// Takes the origin, the absolute and the asterisk form; the fourth is for CONNECT, which is not for this server.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(target: &'a [u8]) -> Result<Target<'a>, &'static str> {
        // Browsers leave some characters bare that RFC 3986 wants encoded, such as `[` and `|`; these they never do. A
        // fragment is no part of a target URI (RFC 9110 section 7.1).
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

        let (scheme, behind) = target.split_once(':').unwrap_or((target, ""));
        let (authority, rest) = match behind.strip_prefix("//") {
            _ if target.starts_with('/') => (None, target),
            Some(rest) if is_http(scheme) => {
                let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                // No empty host (RFC 9110 section 4.2.1) and no user information (section 4.2.4).
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
        // An empty path is the same as "/" (RFC 9110 section 4.2.3).
        let path = if path.is_empty() { "/" } else { path };
        // A NUL is refused as RFC 3986 section 7.3 advises; a backslash is a separator to some file systems.
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

/// The names and values of a form, decoded. No form is malformed
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

/// A scheme ignores case (RFC 3986 section 3.1). Whether the connection was TLS is not known here: a proxy may end it.
fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Whether this is a host, with or without a port: `uri-host [ ":" port ]` (RFC 9110 section 7.2), the host not empty.
pub(crate) fn is_authority(text: &str) -> bool {
    // Within brackets only IPv6 is known, without a zone (RFC 3986 section 3.2.2).
    let (valid_host, port) = match text.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
            (
                !name.is_empty() && name.bytes().all(allowed) && percent_decode(name).is_some(),
                port,
            )
        }
    };
    // A port may be empty behind its colon; `parse` alone would take a sign (RFC 3986 section 3.2.3).
    let valid_port = match port.strip_prefix(':') {
        Some(digits) => {
            digits.is_empty() || !digits.starts_with('+') && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    valid_host && valid_port
}

/// Decodes `pct-encoded = "%" HEXDIG HEXDIG` (RFC 3986 section 2.1). Returns `None` where a percent sign stands without
/// two hexadecimal digits after it, or where the result is not UTF-8.
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

fn form_decode(text: &[u8]) -> String {
    let plus_to_space = |&byte: &u8| if byte == b'+' { b' ' } else { byte };
    let spaced: Vec<u8> = text.iter().map(plus_to_space).collect();
    String::from_utf8_lossy(&decode(&spaced)).into_owned()
}

/// Decodes each `%XX`. A percent sign without two hexadecimal digits after it stays
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

/// The byte that two hexadecimal digits at the beginning of a text stand for.
fn escaped_byte(text: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*text.get(index)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}
