//! A request head, read within limits (RFC 9112 sections 2 to 6).
//!
//! The reader is stricter than RFC 9112 asks: a line ends in CRLF and in nothing else, and whatever two servers could read
//! in two ways is refused. Every error is terminal: the connection answers, closes, and reads no other request.

use std::borrow::Cow;
use std::io::{self, BufRead, ErrorKind, Read, Take};
use std::time::Instant;

use super::request::{Method, Pair, Request};
use super::target::{Target, form_pairs, is_authority};
use crate::config::Config;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    /// Also each later 1.x, which promises to be understood as 1.1 (RFC 9110 section 6.2).
    Http11,
}

/// Where a request's body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes: none where there is no body.
    Length(u64),
    /// At the last chunk.
    Chunked,
}

/// Why a request could not be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestError {
    /// To be answered with this; `None` when the connection is gone and there is nobody to answer.
    pub(crate) status: Option<u16>,
    pub(crate) reason: &'static str,
}

pub(super) const fn refused(status: u16, reason: &'static str) -> RequestError {
    RequestError {
        status: Some(status),
        reason,
    }
}

pub(super) const fn malformed(reason: &'static str) -> RequestError {
    refused(400, reason)
}

/// The client may have shut down only its writing side, and then sees the answer (RFC 9112 section 8).
pub(super) const fn cut() -> RequestError {
    malformed("request ends early")
}

/// For requests that the program itself makes.
impl From<RequestError> for io::Error {
    fn from(error: RequestError) -> io::Error {
        io::Error::new(ErrorKind::InvalidInput, error.reason)
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> RequestError {
        match error.kind() {
            // The one on Windows, the other on Unix.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                refused(408, "request did not come in time")
            }
            ErrorKind::UnexpectedEof => cut(),
            _ => RequestError {
                status: None,
                reason: "connection is gone",
            },
        }
    }
}

impl Request {
    /// Reads a head into a request that is new or cleared; `line` is where its lines go one by one. False when the
    /// connection ended before it began.
    ///
    /// # Errors
    ///
    /// Nothing of a request that is not whole is kept, but for its text. A time-out before the first byte is an error too:
    /// the caller knows whether the connection was idle.
    pub(crate) fn read_head(
        &mut self,
        reader: &mut impl BufRead,
        line: &mut Vec<u8>,
        config: &Config,
    ) -> Result<bool, RequestError> {
        let too_long = refused(414, "request line is too long");
        let max_line_bytes = config.max_request_line_bytes.saturating_add(2) as u64;
        // One empty line before the request line is ignored, as some clients send one behind a body (RFC 9112 section
        // 2.2).
        for _ in 0..2 {
            let read = read_line(&mut reader.take(max_line_bytes), line, too_long);
            // Known first, as also the refusal of a HEAD request has no body (RFC 9110 section 9.3.2).
            let name = line.split(|&byte| byte == b' ').next();
            self.method = name.and_then(Method::from_name).unwrap_or(Method::Get);
            if !read? {
                return Ok(false);
            }
            if !line.is_empty() {
                break;
            }
        }
        let (target, version) = parse_request_line(line)?;
        self.version = version;
        self.text.push_str(target.path);
        self.path_end = self.text.len();
        for (name, value) in form_pairs(target.query.as_bytes()) {
            let pair = self.push(&name, &value);
            self.query.push(pair);
        }
        let authority = target.authority.map(|host| self.push("host", host));
        read_fields(
            reader,
            line,
            config.max_head_bytes,
            config.max_fields,
            &mut |name, value| {
                let pair = self.push(name, &decode_value(value));
                self.fields.push(pair);
            },
        )?;

        settle_host(self, authority)?;
        self.framing = framing(self)?;
        self.expects_continue = expects_continue(self)? && self.framing != Framing::Length(0);
        self.keep_alive = keep_alive(self);
        self.received = Instant::now();
        Ok(true)
    }
}

fn parse_request_line(line: &[u8]) -> Result<(Target<'_>, Version), RequestError> {
    let mut parts = line.split(|&byte| byte == b' ');
    // Single spaces and no others (RFC 9112 section 3).
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("request line is not method, target and version"));
    };
    // Case-sensitive, one digit each (RFC 9112 section 2.3).
    let version = match version {
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'] => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(refused(505, "HTTP version is not supported"));
        }
        _ => return Err(malformed("HTTP version is malformed")),
    };
    let method = match Method::from_name(method) {
        Some(method) => method,
        // RFC 9110 section 9.1. CONNECT as well, as nothing makes a tunnel here (section 9.3.6).
        None if is_token(method) => return Err(refused(501, "method is not implemented")),
        None => return Err(malformed("method is not a token")),
    };
    let target = Target::parse(target).map_err(malformed)?;
    // RFC 9112 section 3.2.4.
    if target.path == "*" && method != Method::Options {
        return Err(malformed("request target is only for OPTIONS"));
    }
    Ok((target, version))
}

/// Reads field lines to the empty line behind them, and gives each name and value to `found`.
pub(super) fn read_fields(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    max_bytes: usize,
    max_fields: usize,
    found: &mut dyn FnMut(&str, &[u8]),
) -> Result<(), RequestError> {
    let too_large = refused(431, "fields are too large");
    let mut section = reader.take(max_bytes as u64);
    for count in 0.. {
        if !read_line(&mut section, line, too_large)? {
            return Err(cut());
        }
        if line.is_empty() {
            break;
        }
        if count == max_fields {
            return Err(refused(431, "there are too many fields"));
        }
        let (name, value) = parse_field(line)?;
        found(name, value);
    }
    Ok(())
}

pub(super) fn parse_field(line: &[u8]) -> Result<(&str, &[u8]), RequestError> {
    // A folded line begins with a blank, as no name does (RFC 9112 section 5.2); so does white space before the first
    // field (section 2.2), and before the colon (section 5.1) it would be part of the name.
    let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
    let name = match str::from_utf8(&line[..colon]) {
        Ok(name) if is_token(name.as_bytes()) => name,
        _ => return Err(malformed("field name is not a token")),
    };
    // CR, LF and NUL must not pass, other controls need not (RFC 9110 section 5.5).
    let value = &line[colon + 1..];
    if !value.iter().copied().all(is_value_byte) {
        return Err(malformed("field value holds a control character"));
    }
    // Here and later: `trim_ascii` would take more than blanks (RFC 9110 section 5.6.3), but of that only these are left.
    Ok((name, value.trim_ascii()))
}

/// Reads one line into `line`, without its CRLF; false when there is nothing more to read.
pub(super) fn read_line(
    reader: &mut Take<impl BufRead>,
    line: &mut Vec<u8>,
    too_long: RequestError,
) -> Result<bool, RequestError> {
    line.clear();
    reader.read_until(b'\n', line)?;
    match line.as_slice() {
        [.., b'\r', b'\n'] => {
            line.truncate(line.len() - 2);
            Ok(true)
        }
        // RFC 9112 section 2.2 allows to take it for a line end, which others then do not. A bare CR is refused with
        // the other controls where the line is taken apart.
        [.., b'\n'] => Err(malformed("line ends in a bare LF")),
        _ if reader.limit() == 0 => Err(too_long),
        [] => Ok(false),
        _ => Err(cut()),
    }
}

/// RFC 9112 section 3.2: one and well-formed, also where the target's authority then takes its place (section 3.2.2).
fn settle_host(request: &mut Request, authority: Option<Pair>) -> Result<(), RequestError> {
    let not_one = malformed("there is not exactly one host");
    match only(request, "host", not_one)? {
        None if request.version == Version::Http10 => {}
        // An empty one may be refused where the scheme needs an authority, as http does (section 3.3).
        Some(host) if is_authority(host) => {}
        Some(_) => return Err(malformed("host is malformed")),
        None => return Err(not_one),
    }
    if let Some(authority) = authority {
        request.set_host(authority);
    }
    Ok(())
}

/// RFC 9112 section 6.3; whatever could be understood in two ways is refused.
fn framing(request: &Request) -> Result<Framing, RequestError> {
    let not_one = malformed("content length is not one number");
    // For an unknown coding RFC 9112 section 6.1 suggests 501; all that is not plainly this one gets the same 400.
    let not_chunked = malformed("transfer coding is not chunked alone");
    let length = only(request, "content-length", not_one)?;
    let coding = only(request, "transfer-encoding", not_chunked)?;
    let may_be_chunked = request.version == Version::Http11;
    match (length, coding) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(_), Some(_)) => Err(malformed(
            "there are both a content length and a transfer coding",
        )),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") && may_be_chunked => {
            Ok(Framing::Chunked)
        }
        (None, Some(_)) => Err(not_chunked),
        (Some(length), None) if is_number(length) => match length.parse() {
            Ok(length) => Ok(Framing::Length(length)),
            Err(_) => Err(refused(413, "body is too large")),
        },
        (Some(_), None) => Err(not_one),
    }
}

/// Digits alone, where `parse` would take a sign; a list of equal ones could be taken, and is not (RFC 9110 section 8.6).
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The value of a field that may be there once; `otherwise` it is refused.
fn only<'r>(
    request: &'r Request,
    name: &str,
    otherwise: RequestError,
) -> Result<Option<&'r str>, RequestError> {
    let mut values = request.headers(name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(otherwise),
        (value, None) => Ok(value),
    }
}

/// RFC 9112 section 9.3.
fn keep_alive(request: &Request) -> bool {
    let stays = request.version == Version::Http11 || request.lists("connection", "keep-alive");
    stays && !request.lists("connection", "close")
}

/// RFC 9110 section 10.1.1, which also says that HTTP/1.0 cannot expect anything.
fn expects_continue(request: &Request) -> Result<bool, RequestError> {
    let (mut expects, mut other) = (false, false);
    each_item(request, "expect", &mut |item| {
        expects = true;
        other |= !item.eq_ignore_ascii_case("100-continue");
    });
    match request.version {
        Version::Http10 => Ok(false),
        Version::Http11 if other => Err(refused(417, "expectation cannot be met")),
        Version::Http11 => Ok(expects),
    }
}

/// The items of a field that is a list, over all its lines (RFC 9110 section 5.6.1).
pub(super) fn each_item(request: &Request, name: &str, found: &mut dyn FnMut(&str)) {
    for line in request.headers(name) {
        for item in line.split(',') {
            let item = item.trim_ascii();
            if !item.is_empty() {
                found(item);
            }
        }
    }
}

/// Takes a value as UTF-8 where it is that, else as ISO-8859-1 (RFC 9110 section 5.5).
pub(super) fn decode_value(value: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => value.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(allowed)
}

/// RFC 9110 section 5.5, without the controls that it leaves to the recipient.
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
