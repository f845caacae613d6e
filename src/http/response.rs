//! A response: status, fields, and a whole body or a stream (RFC 9110 section 15).

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::chunked::Coding;
use super::cookie::Cookie;
use super::head::{Version, is_token};
use super::lines;
use super::request::{Method, Request};
use crate::socket::Socket;

/// A response to a request.
///
/// ```
/// use tiny_sse::Response;
///
/// let moved = Response::new(303).with_header("Location", "/clock");
/// assert_eq!(moved.status(), 303);
/// ```
///
/// A handler returns anything that becomes a response ([`IntoResponse`]): text, an [`Sse`](crate::Sse), a
/// [`Subscription`](crate::Subscription), a pair of a status and one of these, or a `Result` of one of these. The error of such a
/// `Result` is a `Response` as well, so that `?` can refuse. The type of an error says what `?` makes of it:
///
/// | error | response |
/// | --- | --- |
/// | a `Response` | itself |
/// | from reading what the client sent: [`Utf8Error`](std::str::Utf8Error), `FromUtf8Error`, [`ParseIntError`](std::num::ParseIntError), `ParseFloatError`, `AddrParseError`, [`InvalidField`](crate::InvalidField), [`InvalidName`](crate::InvalidName) | 400 with the error's text |
/// | [`PublishError`](crate::PublishError) | 400, 413 or 503; 500 if the history cannot be written |
/// | [`io::Error`], `Box<dyn Error>` | 500, as of [`Response::failed`] |
/// | any other | does not compile: `.map_err(Response::failed)?` makes it 500 |
///
/// ```
/// use std::fs;
/// use tiny_sse::{Event, Hub, Response, Server};
///
/// let hub = Hub::new();
/// let server = Server::bind("127.0.0.1:0")?.post("/rooms/{room}", move |request| {
///     let rooms = fs::read_to_string("rooms.txt")?; // 500.
///     if !rooms.lines().any(|room| room == request.param("room")) {
///         return Err(Response::text("no such room\n").with_status(404));
///     }
///     let text = request.text()?; // 400 for a body that is not UTF-8.
///     hub.publish(request.param("room"), Event::data(text))?;
///     Ok(Response::new(204))
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Text is a `String` or a `&'static str`; text that is borrowed from the request needs `to_string`. A closure that returns
/// different types makes each of them a `Response` with `into`.
#[must_use = "a response does nothing until a handler returns it"]
pub struct Response {
    status: u16,
    /// The field lines, as they go on the wire.
    fields: String,
    /// The whole body; empty for a stream.
    body: Cow<'static, [u8]>,
    /// Writes the body in place of a whole one.
    pub(crate) stream: Option<Stream>,
    /// The problem that the error hook gets.
    pub(crate) error: Option<String>,
    /// The connection ends with this response, whatever the client asks for.
    pub(crate) is_last: bool,
}

/// Writes a stream: it is given the head that goes first and the socket. It gives the socket back where the connection goes
/// on with another request.
pub(crate) type Stream = Box<dyn FnOnce(StreamHead, Socket) -> Option<Socket> + Send>;

/// The head of a stream, which leaves together with the first bytes of the body.
pub(crate) struct StreamHead {
    pub(crate) bytes: Vec<u8>,
    pub(crate) coding: Coding,
}

impl Response {
    /// Makes a response of this status without a body. A status below 200 or above 599 does not end a request and becomes
    /// 500.
    pub fn new(status: u16) -> Response {
        Response::with_lines(String::new(), Cow::Borrowed(b"")).with_status(status)
    }

    /// Makes a 200 with these field lines and this body.
    #[inline(never)] // Otherwise each kind of response would have a copy of the code.
    fn with_lines(fields: String, body: Cow<'static, [u8]>) -> Response {
        Response {
            status: 200,
            fields,
            body,
            stream: None,
            error: None,
            is_last: false,
        }
    }

    /// Makes a 200 with plain text.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Response {
        Response::whole("text/plain; charset=utf-8", into_bytes(text.into()))
    }

    /// Makes a 200 with an HTML page.
    pub fn html(page: impl Into<Cow<'static, str>>) -> Response {
        Response::whole("text/html; charset=utf-8", into_bytes(page.into()))
    }

    /// Makes a 200 with a text that is JSON; [`json_string`](crate::json_string) helps to write one.
    pub fn json(text: impl Into<Cow<'static, str>>) -> Response {
        Response::whole("application/json", into_bytes(text.into()))
    }

    /// Makes a 200 with bytes of any type.
    pub fn bytes(content_type: &'static str, bytes: impl Into<Cow<'static, [u8]>>) -> Response {
        Response::whole(content_type, bytes.into())
    }

    /// Makes a 200 with the crate's client for browsers, an ES module. Its `SharedEventSource` stands in place of an
    /// `EventSource`: it notices a dead connection, falls back to long-poll, and shares one connection between tabs with the
    /// same key.
    ///
    /// ```html
    /// <script type="module">
    ///   import { SharedEventSource } from '/client.js';
    ///   // `share` may also be a user's id.
    ///   const news = new SharedEventSource('/events/news', { share: 'everyone' });
    ///   news.onmessage = (event) => document.body.append(event.data);
    ///   news.addEventListener('alarm', (event) => alert(event.data));
    ///   news.ongap = (event) => console.warn('events that could not be brought back', event.data);
    ///   news.onerror = () => console.warn(news.readyState === 2 ? 'refused' : 'waiting');
    /// </script>
    /// ```
    ///
    /// Like an `EventSource`, it sends cookies and cannot set fields of a request. The head of the script says the rest.
    ///
    /// ```
    /// use tiny_sse::{Response, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0")?
    ///     .get("/client.js", |_request| Response::client_script());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn client_script() -> Response {
        const SCRIPT: &str = include_str!("../client.js");
        Response::bytes("text/javascript; charset=utf-8", SCRIPT.as_bytes())
            // Long enough for tabs that are opened one after the other, short enough for a new version of the server.
            .with_field("Cache-Control", "max-age=300")
    }

    /// Makes a 500 with a fixed text. The error goes to the server's error hook, and never to the client.
    pub fn failed(error: impl fmt::Display) -> Response {
        Response {
            error: Some(error.to_string()),
            ..Response::from_status(500)
        }
    }

    /// Makes a response that asks the client to come back after this time, in a way that the client understands.
    ///
    /// An `EventSource` never tries again after a 503. So a GET that accepts an event stream gets a 200 with a stream that ends
    /// after a `retry` field. Every other request gets a 503 with `Retry-After`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tiny_sse::{Request, Response, Sse};
    ///
    /// fn events(request: &Request, is_ready: bool) -> Response {
    ///     if !is_ready {
    ///         return Response::retry_after(request, Duration::from_secs(10));
    ///     }
    ///     Sse::spawn(|events| { /* ... */ }).into()
    /// }
    /// ```
    pub fn retry_after(request: &Request, time: Duration) -> Response {
        let is_read = matches!(request.method(), Method::Get | Method::Head);
        if is_read && request.accepts("text/event-stream") {
            let milliseconds = time.as_millis().min(i32::MAX as u128);
            let text = format!(": come back later\nretry: {milliseconds}\n");
            return Response::bytes("text/event-stream", text.into_bytes())
                .with_field("Cache-Control", "no-cache, no-transform");
        }
        let part = u64::from(time.subsec_nanos() > 0);
        let seconds = time.as_secs().saturating_add(part);
        Response::from_status(503).with_field("Retry-After", &seconds.to_string())
    }

    /// Makes a 400 with the text of the error.
    pub(crate) fn malformed(error: impl fmt::Display) -> Response {
        Response::text(format!("{error}\n")).with_status(400)
    }

    /// Makes a 200 with a whole body of this type.
    fn whole(content_type: &str, body: Cow<'static, [u8]>) -> Response {
        let fields = ["Content-Type: ", content_type, "\r\n"].concat();
        Response::with_lines(fields, body)
    }

    /// Makes a 200 with a body that is sent line by line, such as NDJSON.
    ///
    /// `write` runs on the connection's thread, and not for a HEAD request. Each line leaves when it ends, or at a `flush`. The
    /// head leaves with the first line. A write fails when the client has left: return that error. When `write` returns an
    /// error or panics, the body ends without its last chunk, and the client can tell that the body is not whole.
    ///
    /// ```
    /// use tiny_sse::{Response, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0")?.get("/numbers", |_request| {
    ///     Response::lines("application/x-ndjson", |out| {
    ///         for number in 1..=1000 {
    ///             writeln!(out, "{{\"number\":{number}}}")?;
    ///         }
    ///         Ok(())
    ///     })
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn lines(
        content_type: &'static str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Response {
        let write = Box::new(|head, socket| lines::send(head, socket, Box::new(write)));
        // Without this field, nginx would hold the lines back.
        Response::stream("X-Accel-Buffering: no\r\n", write)
            .with_field("Content-Type", content_type)
    }

    /// Has the connection end with this response, and the head say so.
    pub(crate) fn closing(mut self) -> Response {
        self.is_last = true;
        self
    }

    /// Makes a 200 with these field lines. The text has no room for more of them, since a stream may keep it for days.
    pub(crate) fn stream(fields: &str, stream: Stream) -> Response {
        Response {
            stream: Some(stream),
            ..Response::with_lines(fields.to_string(), Cow::Borrowed(b""))
        }
    }

    /// Makes a response whose text is its reason phrase.
    #[inline(never)] // As with `with_lines`.
    pub(crate) fn from_status(status: u16) -> Response {
        Response::text(format!("{status} {}\n", reason_phrase(status))).with_status(status)
    }

    /// Sets the status, as [`Response::new`] does. A [failed](Response::failed) response stays a 500.
    pub fn with_status(mut self, status: u16) -> Response {
        if self.error.is_none() {
            self.status = match status {
                200..600 => status,
                _ => 500,
            };
        }
        self
    }

    /// Sets each of these fields, as [`with_header`](Response::with_header) does.
    pub(crate) fn with_fields(self, fields: Vec<(String, String)>) -> Response {
        let fields = fields.into_iter();
        fields.fold(self, |response, (name, value)| {
            response.with_header(&name, value)
        })
    }

    /// Sets a field, in place of all fields of that name.
    ///
    /// An invalid field makes the whole response a [failed](Response::failed) one. A field is invalid when
    ///
    /// - the name is not a token (RFC 9110 section 5.6.2);
    /// - the value has a control character other than a tab: a line break would forge another field;
    /// - the server writes the field: `Connection`, `Content-Length`, `Date`, `Transfer-Encoding`, and for an event stream
    ///   `Content-Type`, `Cache-Control` and `X-Accel-Buffering`.
    ///
    /// ```
    /// use tiny_sse::Response;
    ///
    /// let response = Response::text("a,b\n").with_header("Content-Type", "text/csv");
    /// assert_eq!(response.header("content-type"), Some("text/csv"));
    /// ```
    pub fn with_header(self, name: &str, value: impl AsRef<str>) -> Response {
        let value = value.as_ref();
        let refusal = self.refusal(name, value);
        refusal.unwrap_or_else(|| self.with_field(name, value))
    }

    /// Adds a field, for names that may come more than once, such as `Vary` and `Link`. A field is invalid as for
    /// [`with_header`](Response::with_header).
    pub fn add_header(self, name: &str, value: impl AsRef<str>) -> Response {
        let value = value.as_ref();
        let refusal = self.refusal(name, value);
        refusal.unwrap_or_else(|| self.and_field(name, value))
    }

    /// Adds a cookie for the client to keep. A name or value that RFC 6265 section 4.1.1 does not allow makes the whole
    /// response a [failed](Response::failed) one.
    pub fn with_cookie(self, cookie: Cookie) -> Response {
        match cookie.to_field() {
            Ok(field) => self.and_field("Set-Cookie", &field),
            Err(problem) => Response::failed(problem),
        }
    }

    /// Returns what the response becomes where a caller gives an invalid field.
    fn refusal(&self, name: &str, value: &str) -> Option<Response> {
        const RESERVED: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];
        const OF_EVENT_STREAMS: [&str; 3] = ["content-type", "cache-control", "x-accel-buffering"];
        let is_in = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
        let is_event_stream =
            self.stream.is_some() && self.header("content-type") == Some("text/event-stream");
        let is_control = |c: &char| c.is_ascii_control() && *c != '\t';
        let problem = if !is_token(name.as_bytes()) {
            format!("{name:?} is not a field name")
        } else if is_in(&RESERVED) || is_event_stream && is_in(&OF_EVENT_STREAMS) {
            format!("{name} field is written by the server")
        } else {
            let found = value.chars().find(is_control)?;
            format!("{name} field cannot contain {found:?}")
        };
        Some(Response::failed(problem))
    }

    /// Sets a field that is known to be valid.
    pub(crate) fn with_field(mut self, name: &str, value: &str) -> Response {
        if self.header(name).is_some() {
            let lines = self.fields.split_inclusive("\r\n");
            self.fields = lines.filter(|line| !is_named(line, name)).collect();
        }
        self.and_field(name, value)
    }

    /// Adds a field that is known to be valid.
    pub(crate) fn and_field(mut self, name: &str, value: &str) -> Response {
        self.fields.reserve(name.len() + value.len() + 4);
        self.fields.extend([name, ": ", value, "\r\n"]);
        self
    }

    /// Returns the status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the body, empty for a stream, whose events [`events`](Response::events) returns.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns what went wrong, for a [failed](Response::failed) response.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns the value of the first field of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.fields.lines().find(|line| is_named(line, name))?;
        line.split_once(": ").map(|(_, value)| value)
    }

    /// Returns whether a response of this status has content (RFC 9110 section 6.4.1).
    pub(crate) fn has_content(&self) -> bool {
        !matches!(self.status, 204 | 205 | 304)
    }

    /// Makes the head of a stream: chunked for HTTP/1.1, close-delimited for HTTP/1.0.
    pub(crate) fn stream_head(&self, mut out: Vec<u8>, request: &Request) -> StreamHead {
        out.clear();
        self.append_head(&mut out, None, request);
        let coding = match request.version {
            Version::Http11 => Coding::Chunked,
            Version::Http10 => Coding::CloseDelimited,
        };
        StreamHead { bytes: out, coding }
    }

    /// Appends the head. A whole body has a length, a stream has none.
    pub(crate) fn append_head(&self, out: &mut Vec<u8>, length: Option<usize>, request: &Request) {
        // `status-line = HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112 section 4). The version is the server's,
        // not the request's (RFC 9110 section 6.2). Writing to a vector cannot fail.
        let (status, phrase) = (self.status, reason_phrase(self.status));
        let date = date(SystemTime::now());
        let _ = write!(out, "HTTP/1.1 {status} {phrase}\r\nDate: {date}\r\n");
        out.extend_from_slice(self.fields.as_bytes());
        out.extend_from_slice(match (request.keep_alive, request.version) {
            (false, _) => b"Connection: close\r\n",
            // A connection of HTTP/1.1 stays open by default, one of HTTP/1.0 does not (RFC 9112 section 9.3).
            (true, Version::Http11) if length.is_some() => b"",
            (true, _) => b"Connection: keep-alive\r\n",
        });
        let _ = match (length, request.version) {
            // A 204 has no Content-Length (RFC 9110 section 8.6). The `Content-Length` of a 304 would be that of the 200, which
            // is not known.
            (Some(length), _) if self.has_content() => write!(out, "Content-Length: {length}\r\n"),
            // A 205 says that it has no content (RFC 9110 section 15.3.6).
            (Some(_), _) if self.status == 205 => write!(out, "Content-Length: 0\r\n"),
            (None, Version::Http11) => write!(out, "Transfer-Encoding: chunked\r\n"),
            _ => Ok(()),
        };
        out.extend_from_slice(b"\r\n");
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {:?})", self.status, self.fields)
    }
}

/// What a handler or a middleware may return.
///
/// Implement this trait for your own types. For your own errors, implement `From<YourError> for Response`, and `?` accepts
/// them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not become a response",
    label = "returns `{Self}`",
    note = "return a `Response`, text, an `Sse`, a `Subscription`, a pair `(status, any of these)`, or a `Result` of one of these whose error is a `Response`",
    note = "`?` makes a `Response` of most errors; where it does not, write `.map_err(Response::failed)?` for 500"
)]
pub trait IntoResponse {
    /// Makes the response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

/// A status, and the rest of the response.
impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

/// For one error type only, so that the compiler infers the type of a closure that ends in `Ok(...)`.
impl<T: IntoResponse> IntoResponse for Result<T, Response> {
    fn into_response(self) -> Response {
        self.map_or_else(|refusal| refusal, T::into_response)
    }
}

/// Lets `?` make a response of an error: 500 for an error of the server, 400 for an error in what the client sent.
macro_rules! from_errors {
    ($($error:ty => $response:expr;)*) => { $(
        impl From<$error> for Response {
            fn from(error: $error) -> Response {
                $response(error)
            }
        }
    )* };
}

from_errors! {
    std::io::Error => Response::failed;
    Box<dyn std::error::Error> => Response::failed;
    Box<dyn std::error::Error + Send + Sync> => Response::failed;
    std::str::Utf8Error => Response::malformed;
    std::string::FromUtf8Error => Response::malformed;
    std::num::ParseIntError => Response::malformed;
    std::num::ParseFloatError => Response::malformed;
    std::net::AddrParseError => Response::malformed;
}

/// Makes bytes of a text without a copy.
fn into_bytes(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}

/// Returns whether a field line has this name.
fn is_named(line: &str, name: &str) -> bool {
    let other = line.split(':').next();
    other.is_some_and(|other| other.eq_ignore_ascii_case(name))
}

/// Returns the reason phrase of a status (RFC 9110 section 15). Clients ignore it, people read it.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        205 => "Reset Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Writes `IMF-fixdate = day-name "," SP date1 SP time-of-day SP GMT`, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110
/// section 5.6.7).
fn date(now: SystemTime) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    // A clock before 1970 is not set; the epoch is as wrong as any other time.
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let days = seconds / 86_400;
    // Years that begin in March end with their leap day. Between 0000-03-01 and 1970-01-01 lie 719,468 days. Counted in quarters
    // of a day, a century has 146,097 and a year 1,461, and the division drops the part of a day that it leaves; five months
    // have 153 days (Neri and Schneider, "Euclidean affine functions and their application to calendar algorithms").
    let quarters = 4 * (days + 719_468) + 3;
    let (century, of_century) = (quarters / 146_097, (quarters % 146_097) | 3);
    let year = 100 * century + of_century / 1_461;
    let fifths = 5 * (of_century % 1_461 / 4) + 2;
    let (month, day) = (fifths / 153, fifths % 153 / 5 + 1);
    // January and February are the last months of the year before.
    let year = year + month / 10;
    let (weekday, month) = (WEEKDAYS[(days % 7) as usize], (month + 2) % 12);
    let month = &MONTHS[month as usize * 3..][..3];
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    format!("{weekday}, {day:02} {month} {year:04} {hours:02}:{minutes:02}:{seconds:02} GMT")
}

/// Writes methods as a list, `#method`.
pub(crate) fn method_list(methods: impl IntoIterator<Item = Method>) -> String {
    let names: Vec<&str> = methods.into_iter().map(|method| method.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_imf_fixdates() {
        #[track_caller]
        fn check(seconds: u64, expected: &str) {
            let date = date(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(date, expected);
        }
        check(0, "Thu, 01 Jan 1970 00:00:00 GMT"); // The epoch.
        check(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"); // The RFC's own example.
        check(951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"); // Before a leap day of a century.
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"); // That leap day.
        check(951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"); // And after it.
        check(1_704_067_199, "Sun, 31 Dec 2023 23:59:59 GMT"); // The end of a year.
        check(4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"); // 2100 is no leap year.
    }

    #[test]
    fn a_field_cannot_be_forged() {
        #[track_caller]
        fn check(name: &str, value: &str, expected: &str) {
            let response = Response::new(200).with_header(name, value).with_status(204);
            assert_eq!(
                (response.status(), response.fields.lines().count()),
                (500, 1)
            );
            assert_eq!(response.error.as_deref(), Some(expected));
        }
        check(
            "X-A",
            "b\r\nSet-Cookie: c",
            "X-A field cannot contain '\\r'",
        ); // The attack.
        check("X-A", "b\nc", "X-A field cannot contain '\\n'"); // Some readers take LF alone.
        check("X-A", "\0", "X-A field cannot contain '\\0'"); // RFC 9110 section 5.5.
        check("X A", "b", "\"X A\" is not a field name"); // A space is no token byte.
        check("", "b", "\"\" is not a field name"); // Nor is nothing a name.
        check(
            "Content-length",
            "3",
            "Content-length field is written by the server",
        ); // Coding is ours.
    }

    #[test]
    fn setting_replaces_and_adding_adds() {
        let response = Response::text("a,b\n")
            .add_header("Vary", "Origin")
            .with_header("content-type", "text/csv")
            .with_header("X-A", "1")
            .add_header("Vary", "Cookie")
            .with_header("x-a", "2");
        assert_eq!(
            response.fields,
            "Vary: Origin\r\ncontent-type: text/csv\r\nVary: Cookie\r\nx-a: 2\r\n"
        );
        let replaced = response.with_header("Vary", "*").fields;
        assert_eq!(replaced, "content-type: text/csv\r\nx-a: 2\r\nVary: *\r\n");
        let forged = Response::new(200).add_header("Date", "now");
        assert_eq!(forged.status(), 500); // Neither way leads past the check.
    }

    #[test]
    fn a_head_has_its_fields_in_order() {
        let response = Response::text("hi").with_header("X-A", "1");
        let mut out = Vec::new();
        let mut request = Request::for_test("GET", "/", &[]);
        request.keep_alive = false;
        response.append_head(&mut out, Some(2), &request);
        let head = String::from_utf8(out).unwrap();
        let (status, rest) = head.split_once("\r\n").unwrap();
        let (date, rest) = rest.split_once("\r\n").unwrap();
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(
            date.starts_with("Date: ") && date.ends_with(" GMT"),
            "{date}"
        );
        assert_eq!(
            rest,
            "Content-Type: text/plain; charset=utf-8\r\nX-A: 1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
        );
    }
}
