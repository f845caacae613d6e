//! One request as a handler sees it (RFC 9110 section 3.4).

use std::any::Any;
use std::fmt;
use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::slice;
use std::str::Utf8Error;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::head::{Framing, Version, decode_value, each_item, parse_field};
use super::target::form_pairs;
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
    pub(crate) const ALL: [(Method, &str); 8] = [
        (Method::Get, "GET"),
        (Method::Head, "HEAD"),
        (Method::Post, "POST"),
        (Method::Put, "PUT"),
        (Method::Delete, "DELETE"),
        (Method::Options, "OPTIONS"),
        (Method::Trace, "TRACE"),
        (Method::Patch, "PATCH"),
    ];

    /// The method of that name, which is case-sensitive (RFC 9110 section 9.1).
    pub(super) fn from_name(name: &[u8]) -> Option<Method> {
        let mut all = Method::ALL.into_iter();
        all.find_map(|(method, known)| (known.as_bytes() == name).then_some(method))
    }

    /// The name on the wire, such as `GET`.
    pub fn as_str(&self) -> &'static str {
        // In the order of the variants.
        Method::ALL[*self as usize].1
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One request, whole: a handler is called once its body has come.
pub struct Request {
    pub(super) method: Method,
    /// The path, then name and value of each query parameter, field and path parameter, decoded: one buffer for all.
    pub(super) text: String,
    pub(super) path_end: usize,
    pub(super) query: Vec<Pair>,
    pub(super) fields: Vec<Pair>,
    params: Vec<Pair>,
    extensions: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
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
pub(super) struct Pair {
    name: usize,
    value: usize,
    end: usize,
}

impl Request {
    /// Makes a request as a client would send it, for [`Server::answer`](crate::Server::answer) and for tests of handlers. It
    /// comes from `127.0.0.1:1`, with the field `Host: localhost`.
    ///
    /// ```
    /// use tiny_sse::{Method, Request};
    ///
    /// let request = Request::new(Method::Post, "/rooms/7?as=ann")?
    ///     .with_header("Authorization", "Bearer b8f1")?
    ///     .with_body("hello");
    /// assert_eq!(request.query("as"), Some("ann"));
    /// assert_eq!(request.bearer(), Some("b8f1"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a target that the server would refuse, and that reason.
    pub fn new(method: Method, target: &str) -> io::Result<Request> {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut request = Request::unread((Ipv4Addr::LOCALHOST, 1).into(), Arc::default());
        request.read_head(&mut head.as_bytes(), &mut Vec::new(), &Config::default())?;
        Ok(request)
    }

    /// Adds a field; `Host` replaces the one that is there.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a field that the server would refuse, and that reason.
    pub fn with_header(mut self, name: &str, value: &str) -> io::Result<Request> {
        let line = format!("{name}: {value}");
        let (name, value) = parse_field(line.as_bytes())?;
        let pair = self.push(name, &decode_value(value));
        if name.eq_ignore_ascii_case("host") {
            self.set_host(pair);
        } else {
            self.fields.push(pair);
        }
        Ok(self)
    }

    /// Sets the body.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// Sets the other end of the socket.
    pub fn with_peer(mut self, peer: SocketAddr) -> Request {
        self.peer = peer;
        self.client_ip = peer.ip();
        self
    }

    /// Makes the request into which a connection reads all of its requests, one after the other.
    pub(crate) fn unread(peer: SocketAddr, closing: Arc<AtomicBool>) -> Request {
        Request {
            method: Method::Get,
            text: String::with_capacity(TEXT_BYTES),
            path_end: 0,
            query: Vec::new(),
            fields: Vec::with_capacity(FIELDS),
            params: Vec::new(),
            extensions: Mutex::default(),
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
        self.lists("accept", media)
    }

    /// Whether a field that is a list names this item, in whatever case and with whatever parameters.
    pub(super) fn lists(&self, name: &str, wanted: &str) -> bool {
        let mut found = false;
        each_item(self, name, &mut |item| {
            let (item, _) = item.split_once(';').unwrap_or((item, ""));
            found |= item.trim_ascii_end().eq_ignore_ascii_case(wanted);
        });
        found
    }

    /// The token of an `Authorization: Bearer` field (RFC 6750 section 2.1), to be compared with
    /// [`constant_time_eq`](crate::constant_time_eq).
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        // `credentials = auth-scheme [ 1*SP ( token68 / #auth-param ) ]` (RFC 9110 section 11.4).
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| token.trim_ascii_start())
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

    /// The whole body as text.
    ///
    /// # Errors
    ///
    /// Where the body is not UTF-8; in a handler `?` makes 400 of that.
    pub fn text(&self) -> Result<&str, Utf8Error> {
        str::from_utf8(&self.body)
    }

    /// The first field of that name in a body that is a form as browsers post it, decoded as [`query`](Request::query) is.
    pub fn form(&self, name: &str) -> Option<String> {
        form_pairs(&self.body).find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The other end of the socket: the client, or the proxy before this server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address: from `X-Forwarded-For` or `Forwarded` where the peer is one of the
    /// [trusted proxies](crate::Config::trusted_proxies), else the peer's.
    pub fn client_ip(&self) -> IpAddr {
        self.client_ip
    }

    /// Hands a value on from a middleware to what runs after it, such as the session that a cookie names. Of several values
    /// of one type, [`extension`](Request::extension) finds the newest.
    ///
    /// ```
    /// use tiny_sse::{Next, Request, Response, Server};
    ///
    /// struct User(String);
    ///
    /// fn log_in(request: &Request, next: Next<'_>) -> Response {
    ///     if request.cookie("session") == Some("b8f1") {
    ///         request.set_extension(User("ann".to_string()));
    ///     }
    ///     next.run(request)
    /// }
    ///
    /// fn greet(request: &Request) -> Result<String, Response> {
    ///     let user = request.extension::<User>().ok_or(Response::new(401))?;
    ///     Ok(format!("hello, {}\n", user.0))
    /// }
    ///
    /// let server = Server::bind("127.0.0.1:0")?.middleware(log_in).get("/", greet);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_extension<T: Any + Send + Sync>(&self, value: T) {
        self.lock_extensions().push(Arc::new(value));
    }

    /// The value of this type that a middleware has [handed on](Request::set_extension).
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let extensions = self.lock_extensions();
        let mut newest_first = extensions.iter().rev();
        newest_first.find_map(|value| Arc::clone(value).downcast().ok())
    }

    fn lock_extensions(&self) -> MutexGuard<'_, Vec<Arc<dyn Any + Send + Sync>>> {
        // A push cannot leave the list half changed.
        let locked = self.extensions.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// The last event that this client has seen: the `Last-Event-ID` field, else `?last_event_id=` of the query, which
    /// a page gives on its first visit and an `EventSource` then repeats for ever. An empty one is none.
    pub fn last_event_id(&self) -> Option<&str> {
        let in_query = ["last_event_id", "lastEventId", "lastEventID"];
        let in_query = in_query.into_iter().map(|name| self.query(name));
        let mut ids = iter::once(self.header("last-event-id"))
            .chain(in_query)
            .flatten();
        ids.find(|id| !id.is_empty())
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
        self.extensions = Mutex::default();
        self.body = Vec::new();
    }

    pub(super) fn name(&self, pair: &Pair) -> &str {
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

    /// Sets the `Host` field in place of the one that was sent.
    pub(super) fn set_host(&mut self, host: Pair) {
        let is_host = |pair: &Pair| self.name(pair).eq_ignore_ascii_case("host");
        match self.fields.iter().position(is_host) {
            Some(at) => self.fields[at] = host,
            None => self.fields.push(host),
        }
    }

    #[inline(never)] // Else its code would be there for each kind of pair.
    pub(super) fn push(&mut self, name: &str, value: &str) -> Pair {
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
