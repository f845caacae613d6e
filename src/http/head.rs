//! A request head, read within limits (RFC 9112 sections 2 to 6).
//!
//! ```text
//! HTTP-message = start-line CRLF *( field-line CRLF ) CRLF [ message-body ]    section 2.1
//! start-line   = request-line / status-line
//! request-line = method SP request-target SP HTTP-version                      section 3
//! field-line   = field-name ":" OWS field-value OWS                            section 5
//! ```
//!
//! The reader is stricter than RFC 9112 asks. Where two servers read a request in two ways, an attacker hides a second request
//! in the first one (request smuggling, section 11.2). So these are refused:
//!
//! - a line that ends in a bare LF, and a bare CR (section 2.2)
//! - a folded line (section 5.2), and white space before the colon (section 5.1)
//! - a content length beside a transfer coding, a list of lengths, and any coding but `chunked` alone (section 6)
//! - an HTTP/1.1 request without a host, and a request with two (section 3.2)
//!
//! Every error is terminal: the connection responds, closes, and reads no other request. The statuses are
//!
//! ```text
//! 400  the grammar or the framing is wrong     417  the expectation is unknown
//! 408  the time is over                        431  the fields are too large or too many
//! 413  the body is too large                   501  the method is unknown
//! 414  the request line is too long            505  the version is not HTTP/1
//! ```

use std::io::{self, BufRead, ErrorKind, Read, Take};
use std::time::Instant;

use super::request::{Method, Request};
use super::target::{form_pairs, is_authority, parse_target};
use crate::config::Config;

/// The version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 1.0: no chunks, no `Expect`, and a connection for each request unless the client asks to keep it.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestError {
    /// The status of the response; `None` when the connection is gone.
    pub(crate) status: Option<u16>,
    /// The text of the response. Constant, so that no byte of the request comes back to the client.
    pub(crate) reason: &'static str,
}

/// Makes the error for a request that gets a response of this status, with the reason as its text.
pub(super) const fn refused(status: u16, reason: &'static str) -> RequestError {
    RequestError {
        status: Some(status),
        reason,
    }
}

/// Makes the error for a request that does not follow the grammar: 400.
pub(crate) const fn malformed(reason: &'static str) -> RequestError {
    refused(400, reason)
}

/// The connection ended inside a request. A client that has shut down only its writing side still reads the response (RFC
/// 9112 section 8).
pub(crate) const UNEXPECTED_END: RequestError = malformed("request ends early");

/// For a request that the program itself makes.
impl From<RequestError> for io::Error {
    fn from(error: RequestError) -> io::Error {
        io::Error::new(ErrorKind::InvalidInput, error.reason)
    }
}

/// For a socket that fails while a request is read.
impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> RequestError {
        match error.kind() {
            // `TimedOut` on Windows, `WouldBlock` on Unix.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                refused(408, "request did not come in time")
            }
            _ => RequestError {
                status: None,
                reason: "connection is gone",
            },
        }
    }
}

impl Request {
    /// Reads a head into a request that is new or cleared. `line` is the buffer for one line. Returns false when the
    /// connection ended before the first byte. The client's address, the path parameters and the body are set later.
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
        let authority = self.read_request_line(line)?.map(str::to_string);
        let limits = (config.max_head_bytes, config.max_fields);
        read_fields(reader, line, limits, &mut self.fields)?;

        self.check_host()?;
        if let Some(authority) = authority {
            // The authority takes the place of the field (RFC 9112 section 3.2.2).
            self.set_host(authority);
        }
        self.framing = self.read_framing()?;
        self.expects_continue = self.read_expectations()? && self.framing != Framing::Length(0);
        self.keep_alive = self.stays_open();
        self.received = Instant::now();
        Ok(true)
    }

    /// Parses `request-line = method SP request-target SP HTTP-version` (RFC 9112 section 3). Returns the authority of an
    /// absolute target.
    fn read_request_line<'l>(&mut self, line: &'l [u8]) -> Result<Option<&'l str>, RequestError> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("request line is not method, target and version"));
        };
        // `HTTP-version = HTTP-name "/" DIGIT "." DIGIT`, `HTTP-name = %x48.54.54.50` (RFC 9112 section 2.3).
        self.version = match version {
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'] => Version::Http11,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(refused(505, "HTTP version is not supported"));
            }
            _ => return Err(malformed("HTTP version is malformed")),
        };
        // `method = token` (RFC 9110 section 9.1). CONNECT is not implemented either: this server makes no tunnel.
        if !is_token(method) {
            return Err(malformed("method is not a token"));
        }
        self.method = Method::from_name(method).ok_or(refused(501, "method is not implemented"))?;
        let (authority, path, query) = parse_target(target).map_err(malformed)?;
        // `asterisk-form = "*"` asks about the server as a whole (RFC 9112 section 3.2.4).
        if path == "*" && self.method != Method::Options {
            return Err(malformed("request target is only for OPTIONS"));
        }
        self.path.push_str(path);
        self.query = form_pairs(query.as_bytes()).collect();
        Ok(authority)
    }

    /// Checks `Host = uri-host [ ":" port ]`: there is exactly one, and it is well-formed (RFC 9112 section 3.2).
    fn check_host(&self) -> Result<(), RequestError> {
        let not_one = malformed("there is not exactly one host");
        match self.at_most_one("host", not_one)? {
            None if self.version == Version::Http11 => Err(not_one),
            // An empty host may be refused, as the scheme http needs an authority (section 3.3).
            Some(host) if !is_authority(host) => Err(malformed("host is malformed")),
            _ => Ok(()),
        }
    }

    /// Decides where the body ends (RFC 9112 section 6.3). What two servers could read in two ways is refused.
    ///
    /// ```text
    /// Content-Length   Transfer-Encoding   body
    /// none             none                Length(0)
    /// 1*DIGIT          none                Length(n)
    /// none             chunked             Chunked, in HTTP/1.1 only
    /// any              any                 400
    /// ```
    fn read_framing(&self) -> Result<Framing, RequestError> {
        // `Content-Length = 1*DIGIT` (RFC 9110 section 8.6). `parse` alone would accept a sign. A list of equal numbers, which a
        // server may accept, is refused.
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let not_one = malformed("content length is not one number");
        // `Transfer-Encoding = #transfer-coding`, of which only `chunked` alone is accepted. RFC 9112 section 6.1 suggests 501
        // for an unknown coding; here a list, an unknown coding and a malformed one get the same 400.
        let not_chunked = malformed("transfer coding is not chunked alone");
        let both = malformed("there are both a content length and a transfer coding");
        let length = self.at_most_one("content-length", not_one)?;
        let coding = self.at_most_one("transfer-encoding", not_chunked)?;
        let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
        match (length, coding) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(_), Some(_)) => Err(both),
            (None, Some(coding)) if is_chunked(coding) && self.version == Version::Http11 => {
                Ok(Framing::Chunked)
            }
            (None, Some(_)) => Err(not_chunked),
            (Some(length), None) if !is_number(length) => Err(not_one),
            (Some(length), None) => {
                let length = length.parse().map(Framing::Length);
                length.map_err(|_| refused(413, "body is too large"))
            }
        }
    }

    /// Returns the value of a field that may be there once; `error` where there are more.
    fn at_most_one(&self, name: &str, error: RequestError) -> Result<Option<&str>, RequestError> {
        let mut values = self.headers(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(error),
            (value, None) => Ok(value),
        }
    }

    /// Returns whether the connection stays open: `Connection = #connection-option` (RFC 9112 section 9.3). In HTTP/1.1 it does
    /// unless `close` is listed, in HTTP/1.0 only where `keep-alive` is listed without `close`.
    fn stays_open(&self) -> bool {
        let stays = self.version == Version::Http11 || self.lists("connection", "keep-alive");
        stays && !self.lists("connection", "close")
    }

    /// Returns whether the client waits for a 100: `Expect = #expectation`, of which only `100-continue` is known (RFC 9110
    /// section 10.1.1). HTTP/1.0 has no expectations.
    fn read_expectations(&self) -> Result<bool, RequestError> {
        let is_unknown = |item: &&str| !item.eq_ignore_ascii_case("100-continue");
        match self.items("expect").find(is_unknown) {
            _ if self.version == Version::Http10 => Ok(false),
            Some(_) => Err(refused(417, "expectation cannot be met")),
            None => Ok(self.items("expect").next().is_some()),
        }
    }
}

/// Reads `*( field-line CRLF ) CRLF` into `fields`: the fields of a head, or of the trailer section after the last chunk.
/// The limits are that of the bytes and that of the number of fields.
pub(super) fn read_fields(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    (max_bytes, max_fields): (usize, usize),
    fields: &mut Vec<(String, String)>,
) -> Result<(), RequestError> {
    let too_large = refused(431, "fields are too large");
    let mut section = reader.take(max_bytes as u64);
    for count in 0.. {
        if !read_line(&mut section, line, too_large)? {
            return Err(UNEXPECTED_END);
        }
        if line.is_empty() {
            break;
        }
        if count == max_fields {
            return Err(refused(431, "there are too many fields"));
        }
        fields.push(parse_field(line)?);
    }
    Ok(())
}

/// Parses `field-line = field-name ":" OWS field-value OWS`, where `field-name = token` (RFC 9112 section 5).
/// Returns the name as it was sent and the value, decoded as UTF-8 where it is valid UTF-8, else as ISO-8859-1 (RFC 9110
/// section 5.5). `b"Accept: a, b "` is `("Accept", "a, b")`. A line without a colon has an empty name, which is no token.
pub(super) fn parse_field(line: &[u8]) -> Result<(String, String), RequestError> {
    // A token holds no blank. This refuses folded lines (RFC 9112 section 5.2), white space before the first field (section
    // 2.2), and white space before the colon (section 5.1).
    let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(malformed("field name is not a token"));
    }
    if !value.iter().copied().all(is_value_byte) {
        return Err(malformed("field value holds a control character"));
    }
    // `OWS = *( SP / HTAB )` (RFC 9110 section 5.6.3). `trim_ascii` removes more than blanks, but the check has let only
    // blanks pass.
    let value = value.trim_ascii();
    let latin_1 = |_| value.iter().copied().map(char::from).collect();
    let value = str::from_utf8(value).map_or_else(latin_1, str::to_string);
    Ok((String::from_utf8_lossy(name).into_owned(), value))
}

/// Reads one line into `line`, without its CRLF. Returns false when the connection has ended before the line.
///
/// The limit of `reader` bounds the memory: a line that has not ended when the limit is used up is `too_long`.
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
        _ => Err(UNEXPECTED_END),
    }
}

/// Checks `token = 1*tchar` (RFC 9110 section 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(allowed)
}

/// Checks one byte of a field value: `field-vchar = VCHAR / obs-text`, SP or HTAB (RFC 9110 section 5.5), where
/// `VCHAR = %x21-7E` and `obs-text = %x80-FF`.
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
