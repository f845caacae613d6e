//! A request head, read within limits (RFC 9112 sections 2 to 6).
//!
//! `HTTP-message = start-line CRLF *( field-line CRLF ) CRLF [ message-body ]`
//!
//! The reader is stricter than RFC 9112 asks: a line ends in CRLF only, and a head that two servers could read in two ways is
//! refused. Every error is terminal: the connection responds, closes, and reads no other request.

use std::io::{self, BufRead, ErrorKind, Read, Take};
use std::time::Instant;

use super::request::{Method, Request};
use super::target::{Target, form_pairs, is_authority};
use crate::config::Config;

/// The version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    /// 1.1, and each later 1.x, which a server may read as 1.1 (RFC 9110 section 6.2).
    Http11,
}

/// Where a request's body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes; zero without a body.
    Length(u64),
    /// At the last chunk.
    Chunked,
}

/// Why a request could not be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestError {
    /// The status of the response; `None` when the connection is gone.
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

/// The connection ended inside a request. A client that has shut down only its writing side still reads the response (RFC
/// 9112 section 8).
pub(super) const fn unexpected_end() -> RequestError {
    malformed("request ends early")
}

/// For a request that the program itself makes.
impl From<RequestError> for io::Error {
    fn from(error: RequestError) -> io::Error {
        io::Error::new(ErrorKind::InvalidInput, error.reason)
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> RequestError {
        match error.kind() {
            // `TimedOut` on Windows, `WouldBlock` on Unix.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                refused(408, "request did not come in time")
            }
            ErrorKind::UnexpectedEof => unexpected_end(),
            _ => RequestError {
                status: None,
                reason: "connection is gone",
            },
        }
    }
}

impl Request {
    /// Reads a head into a request that is new or cleared. `line` is the buffer for one line. Returns false when the
    /// connection ended before the first byte.
    ///
    /// # Errors
    ///
    /// For a head that is malformed, too large, too late or not whole. A time-out before the first byte is an error too: the
    /// caller knows whether the connection was idle.
    pub(crate) fn read_head(
        &mut self,
        reader: &mut impl BufRead,
        line: &mut Vec<u8>,
        config: &Config,
    ) -> Result<bool, RequestError> {
        let too_long = refused(414, "request line is too long");
        let max_line_bytes = config.max_request_line_bytes.saturating_add(2) as u64;
        // Some clients send an empty line after a body; one is ignored (RFC 9112 section 2.2).
        for _ in 0..2 {
            let read = read_line(&mut reader.take(max_line_bytes), line, too_long);
            // The method is set before anything is refused: the refusal of a HEAD request has no body either (RFC 9110
            // section 9.3.2).
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
        self.path.push_str(target.path);
        self.query = form_pairs(target.query.as_bytes()).collect();
        let authority = (target.authority).map(|host| ("host".to_string(), host.to_string()));
        read_fields(
            reader,
            line,
            config.max_head_bytes,
            config.max_fields,
            &mut |name, value| {
                self.fields.push((name.to_string(), decode_value(value)));
            },
        )?;

        check_host(self, authority)?;
        self.framing = framing(self)?;
        self.expects_continue = expects_continue(self)? && self.framing != Framing::Length(0);
        self.keep_alive = keep_alive(self);
        self.received = Instant::now();
        Ok(true)
    }
}

/// Parses `request-line = method SP request-target SP HTTP-version` (RFC 9112 section 3).
fn parse_request_line(line: &[u8]) -> Result<(Target<'_>, Version), RequestError> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("request line is not method, target and version"));
    };
    // `HTTP-version = HTTP-name "/" DIGIT "." DIGIT`, `HTTP-name = %x48.54.54.50` (RFC 9112 section 2.3).
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
        // `method = token` (RFC 9110 section 9.1). CONNECT is not implemented either: this server makes no tunnel.
        None if is_token(method) => return Err(refused(501, "method is not implemented")),
        None => return Err(malformed("method is not a token")),
    };
    let target = Target::parse(target).map_err(malformed)?;
    // `asterisk-form = "*"` asks about the server as a whole (RFC 9112 section 3.2.4).
    if target.path == "*" && method != Method::Options {
        return Err(malformed("request target is only for OPTIONS"));
    }
    Ok((target, version))
}

/// Reads `*( field-line CRLF ) CRLF` and calls `found` with each name and value.
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
            return Err(unexpected_end());
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

/// Parses `field-line = field-name ":" OWS field-value OWS`, where `field-name = token` (RFC 9112 section 5).
pub(super) fn parse_field(line: &[u8]) -> Result<(&str, &[u8]), RequestError> {
    // A token holds no blank. This refuses folded lines (RFC 9112 section 5.2), white space before the first field (section
    // 2.2), and white space before the colon (section 5.1).
    let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
    let name = match str::from_utf8(&line[..colon]) {
        Ok(name) if is_token(name.as_bytes()) => name,
        _ => return Err(malformed("field name is not a token")),
    };
    let value = &line[colon + 1..];
    if !value.iter().copied().all(is_value_byte) {
        return Err(malformed("field value holds a control character"));
    }
    // `OWS = *( SP / HTAB )` (RFC 9110 section 5.6.3). `trim_ascii` removes more than blanks, but the check has let only
    // blanks pass.
    Ok((name, value.trim_ascii()))
}

/// Reads one line into `line`, without its CRLF. Returns false when the connection has ended before the line.
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
        // RFC 9112 section 2.2 allows a server to accept this as the end of a line. Where one server does and another does
        // not, they disagree on where a request ends. A bare CR is refused later, as a control character.
        [.., b'\n'] => Err(malformed("line ends in a bare LF")),
        _ if reader.limit() == 0 => Err(too_long),
        [] => Ok(false),
        _ => Err(unexpected_end()),
    }
}

/// Checks `Host = uri-host [ ":" port ]`: there is exactly one, and it is well-formed (RFC 9112 section 3.2). The authority
/// of an absolute target then takes the place of the field (section 3.2.2).
fn check_host(
    request: &mut Request,
    authority: Option<(String, String)>,
) -> Result<(), RequestError> {
    let not_one = malformed("there is not exactly one host");
    match at_most_one(request, "host", not_one)? {
        None if request.version == Version::Http10 => {}
        // An empty host may be refused, as the scheme http needs an authority (section 3.3).
        Some(host) if is_authority(host) => {}
        Some(_) => return Err(malformed("host is malformed")),
        None => return Err(not_one),
    }
    if let Some(authority) = authority {
        request.set_host(authority);
    }
    Ok(())
}

/// Decides where the body ends (RFC 9112 section 6.3). What two servers could read in two ways is refused.
fn framing(request: &Request) -> Result<Framing, RequestError> {
    let not_one = malformed("content length is not one number");
    // `Transfer-Encoding = #transfer-coding`, of which only `chunked` alone is accepted. RFC 9112 section 6.1 suggests 501
    // for an unknown coding; here a list, an unknown coding and a malformed one get the same 400.
    let not_chunked = malformed("transfer coding is not chunked alone");
    let length = at_most_one(request, "content-length", not_one)?;
    let coding = at_most_one(request, "transfer-encoding", not_chunked)?;
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

/// Checks `Content-Length = 1*DIGIT` (RFC 9110 section 8.6). `parse` alone would accept a sign. A list of equal numbers,
/// which a server may accept, is refused.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the value of a field that may be there once; `error` where there are more.
fn at_most_one<'r>(
    request: &'r Request,
    name: &str,
    error: RequestError,
) -> Result<Option<&'r str>, RequestError> {
    let mut values = request.headers(name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(error),
        (value, None) => Ok(value),
    }
}

/// Whether the connection stays open: `Connection = #connection-option` (RFC 9112 section 9.3).
fn keep_alive(request: &Request) -> bool {
    let stays = request.version == Version::Http11 || request.lists("connection", "keep-alive");
    stays && !request.lists("connection", "close")
}

/// Whether the client waits for a 100: `Expect = #expectation`, of which only `100-continue` is known (RFC 9110 section
/// 10.1.1). HTTP/1.0 has no expectations.
fn expects_continue(request: &Request) -> Result<bool, RequestError> {
    let is_known = |item: &str| item.eq_ignore_ascii_case("100-continue");
    match request.version {
        Version::Http10 => Ok(false),
        Version::Http11 if request.items("expect").all(is_known) => {
            Ok(request.items("expect").next().is_some())
        }
        Version::Http11 => Err(refused(417, "expectation cannot be met")),
    }
}

/// Decodes a value: as UTF-8 where the bytes are valid UTF-8, else as ISO-8859-1 (RFC 9110 section 5.5).
pub(super) fn decode_value(value: &[u8]) -> String {
    match str::from_utf8(value) {
        Ok(text) => text.to_string(),
        Err(_) => value.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// Checks `token = 1*tchar` (RFC 9110 section 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(allowed)
}

/// Checks one byte of a field value: `field-vchar = VCHAR / obs-text`, SP or HTAB (RFC 9110 section 5.5).
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
