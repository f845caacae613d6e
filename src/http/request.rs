//! A request as a handler sees it (RFC 9110 section 3.4).

use std::any::Any;
use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::Utf8Error;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::head::{Framing, Version, parse_field};
use super::target::form_pairs;
use crate::config::Config;
use crate::lock::lock;

/// A request method (RFC 9110 section 9, and PATCH from RFC 5789). A request with another method gets 501, and no handler is
/// called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The name says it all.
#[non_exhaustive]
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
    /// Each method with its name, in the order of the variants.
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

    /// Returns the method of that name. Names are case-sensitive (RFC 9110 section 9.1).
    pub(super) fn from_name(name: &[u8]) -> Option<Method> {
        let mut all = Method::ALL.into_iter();
        all.find_map(|(method, known)| (known.as_bytes() == name).then_some(method))
    }

    /// Returns the name on the wire, such as `GET`.
    pub fn as_str(&self) -> &'static str {
        Method::ALL[*self as usize].1
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A whole request: a handler is called when the body has arrived.
pub struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    /// Names and values, decoded.
    pub(crate) query: Vec<(String, String)>,
    pub(super) fields: Vec<(String, String)>,
    /// The parameters of the path, decoded.
    pub(crate) params: Vec<(String, String)>,
    extensions: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
    pub(crate) body: Vec<u8>,
    pub(crate) peer: SocketAddr,
    pub(crate) client_ip: IpAddr,
    /// Set when the server shuts down, for a handler that waits.
    pub(crate) closing: Arc<AtomicBool>,
    /// When the whole head had arrived.
    pub(crate) received: Instant,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    /// The client sends the body after a 100 (RFC 9110 section 10.1.1).
    pub(crate) expects_continue: bool,
    /// The connection stays open for another request (RFC 9112 section 9.3).
    pub(crate) keep_alive: bool,
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
    /// `InvalidInput`, with the reason, for a target that the server would refuse.
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
    /// `InvalidInput`, with the reason, for a field that the server would refuse.
    pub fn with_header(mut self, name: &str, value: &str) -> io::Result<Request> {
        let (name, value) = parse_field(format!("{name}: {value}").as_bytes())?;
        match name.eq_ignore_ascii_case("host") {
            true => self.set_host(value),
            false => self.fields.push((name, value)),
        }
        Ok(self)
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// Sets the other end of the socket.
    #[must_use]
    pub fn with_peer(mut self, peer: SocketAddr) -> Request {
        self.peer = peer;
        self.client_ip = peer.ip();
        self
    }

    /// Makes the request into which a connection reads all of its requests, one after the other.
    pub(crate) fn unread(peer: SocketAddr, closing: Arc<AtomicBool>) -> Request {
        Request {
            method: Method::Get,
            path: String::new(),
            query: Vec::new(),
            fields: Vec::new(),
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

    /// Returns the method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Returns the path as it was sent, percent-encoded, without the query; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns a path parameter, decoded; empty when the route has no parameter of that name, or no route matched.
    ///
    /// The route is found before any middleware runs, so a middleware can check a parameter for many handlers.
    pub fn param(&self, name: &str) -> &str {
        let param = self.params.iter().find(|(known, _)| known == name);
        param.map_or("", |(_, value)| value)
    }

    /// Returns the first query parameter of that name, decoded as a form: `+` is a space.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.queries(name).next()
    }

    /// Returns all query parameters of that name, decoded, in the order sent.
    pub fn queries(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.query.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| &**value)
    }

    /// Returns the value of the first field of that name, without blanks around it. The case of the name does not matter.
    ///
    /// A value that is valid UTF-8 is read as UTF-8, in which an `EventSource` sends `Last-Event-ID`. Any other value is read
    /// as ISO-8859-1 (RFC 9110 section 5.5). With an absolute request target, `Host` is the target's authority (RFC 9112
    /// section 3.2.2).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// Returns the values of all fields of that name, in the order sent.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter();
        let named = fields.filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &**value)
    }

    /// Returns whether the client lists this media type, at any weight: `Accept = #( media-range [ weight ] )` (RFC 9110
    /// section 12.5.1).
    pub(crate) fn accepts(&self, media: &str) -> bool {
        self.lists("accept", media)
    }

    /// Returns whether a list holds this item, in any case and with any parameters.
    pub(super) fn lists(&self, name: &str, wanted: &str) -> bool {
        self.items(name).any(|item| {
            let (item, _) = item.split_once(';').unwrap_or((item, ""));
            item.trim_ascii_end().eq_ignore_ascii_case(wanted)
        })
    }

    /// Returns the items of a list, which may stand on several lines: `#element = [ element ] *( OWS "," OWS [ element ] )`
    /// (RFC 9110 section 5.6.1.2).
    pub(super) fn items(&self, name: &str) -> impl Iterator<Item = &str> {
        let items = self.headers(name).flat_map(|line| line.split(','));
        items.map(str::trim_ascii).filter(|item| !item.is_empty())
    }

    /// Returns the token of an `Authorization: Bearer` field (RFC 6750 section 2.1). Compare it with
    /// [`constant_time_eq`](crate::constant_time_eq).
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        // `credentials = auth-scheme [ 1*SP ( token68 / #auth-param ) ]` (RFC 9110 section 11.4).
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| token.trim_ascii_start())
    }

    /// Returns the first cookie of that name, as it was sent: quotes and percent signs are part of the value. The field is
    /// `cookie-string = cookie-pair *( ";" SP cookie-pair )` (RFC 6265 section 4.2).
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.headers("cookie")
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim_ascii().split_once('='))
            .find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Returns the whole body, empty when there is none.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the whole body as text.
    ///
    /// # Errors
    ///
    /// When the body is not UTF-8; `?` in a handler makes a 400 of the error.
    pub fn text(&self) -> Result<&str, Utf8Error> {
        str::from_utf8(&self.body)
    }

    /// Returns the first field of that name in a body that is a form (`application/x-www-form-urlencoded`), decoded. The
    /// `Content-Type` of the request is not checked.
    pub fn form(&self, name: &str) -> Option<String> {
        form_pairs(&self.body).find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Returns the other end of the socket: the client, or the proxy in front of this server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the client's address: from `X-Forwarded-For` or `Forwarded` where the peer is one of the
    /// [trusted proxies](crate::Config::trusted_proxies), else the peer's.
    pub fn client_ip(&self) -> IpAddr {
        self.client_ip
    }

    /// Hands a value on from a middleware to the handler, such as the session that a cookie names. Of several values of one
    /// type, [`extension`](Request::extension) returns the newest.
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
        lock(&self.extensions).push(Arc::new(value));
    }

    /// Returns the value of this type that a middleware has [handed on](Request::set_extension).
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let extensions = lock(&self.extensions);
        let mut newest_first = extensions.iter().rev();
        newest_first.find_map(|value| Arc::clone(value).downcast().ok())
    }

    /// Returns the id of the last event that this client has seen; `None` where it is empty.
    ///
    /// The id is in the `Last-Event-ID` field, or else in `?last_event_id=` of the query, where a page puts it for the first
    /// connection, or in `?lastEventId=` or `?lastEventID=`, which other clients send. An `EventSource` repeats the query at each
    /// reconnect, so the field goes first.
    pub fn last_event_id(&self) -> Option<&str> {
        let names = ["last_event_id", "lastEventId", "lastEventID"];
        let in_query = names.iter().flat_map(|name| self.query(name));
        let mut ids = self.header("last-event-id").into_iter().chain(in_query);
        ids.find(|id| !id.is_empty())
    }

    /// Clears the request for the next one, and frees what a large request took: the next request may not come for a while.
    pub(crate) fn clear(&mut self) {
        let mut fields = mem::take(&mut self.fields);
        fields.clear();
        fields.shrink_to(16);
        let unread = Request::unread(self.peer, Arc::clone(&self.closing));
        *self = Request { fields, ..unread };
    }

    /// Sets the `Host` field in place of the one that was sent.
    pub(super) fn set_host(&mut self, host: String) {
        let is_other = |(name, _): &(String, String)| !name.eq_ignore_ascii_case("host");
        self.fields.retain(is_other);
        self.fields.push(("host".to_string(), host));
    }
}

/// Shows the method and the path. Cookies, tickets and bodies do not belong in a log.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
