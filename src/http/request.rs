//! One request: its head read within limits (RFC 9112 sections 2 to 6), and what a handler sees of it.
//!
//! The reader is stricter than RFC 9112 asks: a line ends in CRLF and in nothing else, and whatever two servers could read
//! in two ways is refused. Every error is terminal: the connection answers, closes, and reads no other request.

use std::time::Instant;
use std::{
    borrow::Cow,
    fmt,
    io::{self, BufRead, ErrorKind, Read, Take},
    iter,
    net::{IpAddr, SocketAddr},
    slice,
    sync::{Arc, atomic::AtomicBool},
};

use super::target::{Target, form_pairs, is_authority};
use crate::config::Config;

/// A request method (RFC 9110 section 9, and PATCH from RFC 5789). Names are case-sensitive; any other one is answered
/// with 501 before a handler is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Each is what it is called.
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
}

impl Method {
    pub(crate) const ALL: [Method; 8] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Delete,
        Method::Options,
        Method::Trace,
        Method::Patch,
    ];

    /// The name on the wire, such as `GET`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One request, whole: a handler is called once its body has come.
pub struct Request {
    method: Method,
    /// The path, then name and value of each query parameter, field and path parameter, decoded: one buffer for all.
    text: String,
    path_end: usize,
    query: Vec<Pair>,
    fields: Vec<Pair>,
    params: Vec<Pair>,
    pub(crate) body: Vec<u8>,
    pub(crate) peer: SocketAddr,
    pub(crate) client_ip: IpAddr,
    /// Set once the server shuts down, for answers that take their time.
    pub(crate) closing: Arc<AtomicBool>,
    /// When the head had come.
    pub(crate) received: Instant,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    /// The client waits for a 100 before it sends the body (RFC 9110 section 10.1.1).
    pub(crate) expects_continue: bool,
    /// The connection stays for another request (RFC 9112 section 9.3).
    pub(crate) keep_alive: bool,
}

/// Capacities with which a connection starts. Each makes a block that is larger than the 1,032 bytes up to which glibc
/// keeps what is freed for the same thread, which may go on to carry a stream for days.
const TEXT_BYTES: usize = 1280;
const FIELDS: usize = 48;

/// Where a name and the value behind it stand in [`Request::text`].
struct Pair {
    name: usize,
    value: usize,
    end: usize,
}

impl Request {
    /// None yet: a connection reads all of its requests into one.
    pub(crate) fn new(peer: SocketAddr, closing: Arc<AtomicBool>) -> Request {
        Request {
            method: Method::Get,
            text: String::with_capacity(TEXT_BYTES),
            path_end: 0,
            query: Vec::new(),
            fields: Vec::with_capacity(FIELDS),
            params: Vec::new(),
            body: Vec::new(),
            peer,
            client_ip: peer.ip(),
            closing,
            received: Instant::now(),
            version: Version::Http11,
            framing: Framing::Length(0),
            expects_continue: false,
            keep_alive: false,
        }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as it was sent, percent-encoded, without the query; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        &self.text[..self.path_end]
    }

    /// A path parameter, decoded; empty when the route has none of that name. The route is found before any middleware
    /// runs, so that one can check a parameter for many handlers; where none was found, all are empty.
    pub fn param(&self, name: &str) -> &str {
        let param = self.params.iter().find(|pair| self.name(pair) == name);
        param.map_or("", |pair| self.value(pair))
    }

    /// The first query parameter of that name, decoded as a form is: `+` is a space.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.queries(name).next()
    }

    /// All query parameters of that name, decoded, in the order sent.
    pub fn queries(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query
            .iter()
            .filter(move |pair| self.name(pair) == name)
            .map(|pair| self.value(pair))
    }

    /// Whether there is anything in the query, for those who must not show it.
    pub(crate) fn has_query(&self) -> bool {
        !self.query.is_empty()
    }

    /// The value of the first field of that name, whose case does not matter, without blanks around it.
    ///
    /// Field values are bytes. They are taken as UTF-8 where they are that, as an `EventSource` sends `Last-Event-ID`, else
    /// as ISO-8859-1 (RFC 9110 section 5.5). With an absolute request target `Host` is that target's (RFC 9112 section
    /// 3.2.2).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// The values of all fields of that name, in the order sent.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let mut rest = self.fields.iter();
        iter::from_fn(move || self.next_value(&mut rest, name))
    }

    /// Apart, since it would be there for each field that the server itself looks for.
    #[inline(never)]
    fn next_value(&self, rest: &mut slice::Iter<'_, Pair>, name: &str) -> Option<&str> {
        let field = rest.find(|pair| self.name(pair).eq_ignore_ascii_case(name))?;
        Some(self.value(field))
    }

    /// Whether the client names this media type among those that it takes, at whatever weight (RFC 9110 section 12.5.1).
    pub(crate) fn accepts(&self, media: &str) -> bool {
        lists(self, "accept", media)
    }

    /// The first cookie of that name, as it was sent: quotes and percent signs are part of it (RFC 6265 section 4.2).
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.headers("cookie")
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim_ascii().split_once('='))
            .find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The whole body, empty when there is none.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The first field of that name in a body that is a form as browsers post it, decoded as [`query`](Request::query) is.
    pub fn form(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut pairs = form_pairs(str::from_utf8(&self.body).ok()?).flatten();
        pairs.find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The other end of the socket: the client, or the proxy before this server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address: from `X-Forwarded-For` where the peer is a trusted proxy, else the peer's.
    pub fn client_ip(&self) -> IpAddr {
        self.client_ip
    }

    /// The last event that this client has seen: the `Last-Event-ID` field, else `last_event_id`, `lastEventId` or
    /// `lastEventID` of the query, which a page gives on its first visit and an `EventSource` then repeats for ever. An
    /// empty one is none.
    pub fn last_event_id(&self) -> Option<&str> {
        let in_query = ["last_event_id", "lastEventId", "lastEventID"];
        let in_query = in_query.into_iter().map(|name| self.query(name));
        let mut ids = iter::once(self.header("last-event-id"))
            .chain(in_query)
            .flatten();
        ids.find(|id| !id.is_empty())
    }

    fn name(&self, pair: &Pair) -> &str {
        &self.text[pair.name..pair.value]
    }

    fn value(&self, pair: &Pair) -> &str {
        &self.text[pair.value..pair.end]
    }

    /// Adds a path parameter, decoded.
    pub(crate) fn add_param(&mut self, name: &str, value: &str) {
        let pair = self.push(name, value);
        self.params.push(pair);
    }

    #[inline(never)] // Else its code would be there for each kind of pair.
    fn push(&mut self, name: &str, value: &str) -> Pair {
        let start = self.text.len();
        self.text.push_str(name);
        self.text.push_str(value);
        Pair {
            name: start,
            value: start + name.len(),
            end: self.text.len(),
        }
    }
}

/// Shows method and path: cookies, tickets and bodies are nothing for a log.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

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
            if !read_line(&mut reader.take(max_line_bytes), line, too_long)? {
                return Ok(false);
            }
            if !line.is_empty() {
                break;
            }
        }
        let (method, target, version) = parse_request_line(line)?;
        self.version = version;
        self.text.push_str(target.path);
        self.path_end = self.text.len();
        for pair in form_pairs(target.query) {
            let (name, value) = pair.ok_or(malformed("query is not percent-encoded UTF-8"))?;
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
        self.method = method;
        self.received = Instant::now();
        Ok(true)
    }

    /// Forgets a request that was answered, and gives back what a large one took: the next may be long in coming.
    pub(crate) fn clear(&mut self) {
        self.method = Method::Get;
        self.version = Version::Http11;
        self.keep_alive = false;
        self.text.clear();
        self.text.shrink_to(TEXT_BYTES);
        self.query = Vec::new();
        self.fields.clear();
        self.params.clear();
        self.body = Vec::new();
    }
}

fn parse_request_line(line: &[u8]) -> Result<(Method, Target<'_>, Version), RequestError> {
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
    let known = |known: &Method| known.as_str().as_bytes() == method;
    let method = match Method::ALL.into_iter().find(known) {
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
    Ok((method, target, version))
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

fn parse_field(line: &[u8]) -> Result<(&str, &[u8]), RequestError> {
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
        let is_host = |pair: &Pair| request.name(pair).eq_ignore_ascii_case("host");
        match request.fields.iter().position(is_host) {
            Some(at) => request.fields[at] = authority,
            None => request.fields.push(authority),
        }
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
    let stays = request.version == Version::Http11 || lists(request, "connection", "keep-alive");
    stays && !lists(request, "connection", "close")
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

/// Whether a field that is a list names this item, in whatever case and with whatever parameters.
fn lists(request: &Request, name: &str, wanted: &str) -> bool {
    let mut found = false;
    each_item(request, name, &mut |item| {
        let (item, _) = item.split_once(';').unwrap_or((item, ""));
        found |= item.trim_ascii_end().eq_ignore_ascii_case(wanted);
    });
    found
}

/// The items of a field that is a list, over all its lines (RFC 9110 section 5.6.1).
fn each_item(request: &Request, name: &str, found: &mut dyn FnMut(&str)) {
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
fn decode_value(value: &[u8]) -> Cow<'_, str> {
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
