//! A blocking client of event streams, which reconnects as an `EventSource` does
//! ([WHATWG HTML](https://html.spec.whatwg.org/multipage/server-sent-events.html#the-eventsource-interface)).
//!
//! ```text
//!  pause ──▶ connect ──▶ 200 ──▶ messages ──▶ the stream ends, breaks off or is silent ──▶ pause
//!               ├── no connection, 429, 500 to 599 ──▶ pause, twice as long each time
//!               ├── 204 ──▶ over
//!               └── another status or media type, or no HTTP/1 ──▶ InvalidData, over
//! ```
//!
//! Nothing runs between two calls of `next`: the caller's thread connects, waits and reads. The client has no thread and no
//! queue.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use crate::event::{Decoded, Decoder, Message};
use crate::http::{chunk_size, is_authority, is_token, split_port};
use crate::random::jitter;

/// How long connecting to one address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time without a byte after which a connection counts as lost: three default heartbeats of a server.
const SILENCE: Duration = Duration::from_secs(45);

/// The reconnection time while the server has sent no `retry`: that of Chromium.
const RETRY: Duration = Duration::from_secs(3);

/// The shortest pause, also after `retry: 0`, so that a server that is down is not asked all the time.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// How many failed attempts double the pause.
const MAX_DOUBLINGS: u32 = 4;

/// The longest `retry` and `Retry-After` that is obeyed.
const MAX_RETRY: Duration = Duration::from_secs(3600);

/// Maximum bytes of a line of a response's head, or of the line before a chunk.
const MAX_LINE_BYTES: u64 = 16 * 1024;
/// Maximum number of lines of a response's head, with those of the interim responses in front.
const MAX_HEAD_LINES: usize = 256;

/// A blocking client of an event stream over plain HTTP: for tests, tools and devices.
///
/// It is an iterator of messages that connects by itself. It reconnects with its last event id, as an `EventSource` of a browser
/// does.
///
/// ```
/// use tiny_sse::{Event, EventSource, Server, Sse};
///
/// let server = Server::bind("127.0.0.1:0")?
///     .get("/news", |_request| Sse::spawn(|events| drop(events.send(Event::data("hello")))))
///     .spawn()?;
///
/// let mut source = EventSource::new(&format!("http://{}/news", server.addr()))?;
/// while let Some(result) = source.next() {
///     match result {
///         Ok(message) if message.data == "hello" => break,
///         Ok(message) => println!("{}", message.data),
///         Err(error) => eprintln!("{error}: trying again in {:?}", source.pause()),
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// An error says that a connection failed, was silent for too long, or has ended. The next call waits and connects again. So
/// [`flatten`](Iterator::flatten) makes an iterator of messages that survives restarts of the server.
///
/// The wait is the server's `retry`, 3 seconds by default, and up to half as much again at random, so that not all clients
/// return at once. Each further failed attempt doubles the wait, up to 16 times the first one. After a status of 429 or 500 to
/// 599, the wait is at least the `Retry-After` in seconds. A `retry` or `Retry-After` of more than an hour counts as an hour.
///
/// The iterator ends when the server answers 204. It also ends after an error of the kind `InvalidData`, where another attempt
/// would fail too: any other status, including redirects, a response that is not an event stream, or an event over 1 MiB.
#[must_use = "a client connects when it is asked for a message"]
pub struct EventSource {
    /// `host:port`.
    address: String,
    /// The request without `Last-Event-ID` and without the empty line at the end.
    request: String,
    /// The time-out of each read.
    silence: Duration,
    /// The reconnection time of the server, which failures double for each pause.
    retry: Duration,
    /// It has the last event id too.
    decoder: Decoder,
    /// `None` while there is no connection: the next call makes one.
    stream: Option<Stream>,
    /// Attempts since the last event stream.
    failures: u32,
    /// How long the next attempt waits.
    pause: Duration,
    /// The iterator has ended, with a 204 or with `InvalidData`.
    is_over: bool,
}

impl EventSource {
    /// Makes a client for a URL such as `http://localhost:60000/news?topic=a`. It connects when a message is asked for.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the URL has another scheme, no host, a user name, or characters that must be percent-encoded.
    pub fn new(url: &str) -> io::Result<EventSource> {
        let rest = url.strip_prefix("http://").unwrap_or_default();
        let rest = rest.split('#').next().unwrap_or_default();
        let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !is_authority(host) || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = "not a URL of the form http://host:port/path";
            return Err(invalid_input(problem, url));
        }
        let (name, port) = split_port(host);
        let port = if port.is_empty() { "80" } else { port };
        let slash = if target.starts_with('/') { "" } else { "/" };
        let accept = "Accept: text/event-stream\r\nCache-Control: no-store\r\n";
        Ok(EventSource {
            address: format!("{name}:{port}"),
            request: format!("GET {slash}{target} HTTP/1.1\r\nHost: {host}\r\n{accept}"),
            silence: SILENCE,
            retry: RETRY,
            decoder: Decoder::new(),
            stream: None,
            failures: 0,
            pause: Duration::ZERO,
            is_over: false,
        })
    }

    /// Adds a field to each request, for example `Authorization`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the name or the value cannot stand in a field.
    pub fn with_header(mut self, name: &str, value: &str) -> io::Result<EventSource> {
        if !is_token(name.as_bytes()) || value.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(invalid_input("not a header field", name));
        }
        self.request += &format!("{name}: {value}\r\n");
        Ok(self)
    }

    /// Starts after the event with this id. An empty id counts as no id.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the id has control characters.
    pub fn after(mut self, id: &str) -> io::Result<EventSource> {
        if id.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(invalid_input("not an event id", id));
        }
        self.decoder = Decoder::after(id);
        Ok(self)
    }

    /// Sets the time without a byte after which a connection counts as lost: 45 seconds by default. It must be longer than the
    /// server's heartbeat interval.
    pub fn silence(mut self, limit: Duration) -> EventSource {
        self.silence = limit.max(Duration::from_millis(1)); // A socket refuses zero.
        self
    }

    /// Sets the reconnection time that holds until the server sends a `retry`: 3 seconds by default, and at most an
    /// hour.
    pub fn retry(mut self, time: Duration) -> EventSource {
        self.retry = time.min(MAX_RETRY);
        self
    }

    /// Returns the id of the last event that had one. Keep it, and another run of the program goes on from there with
    /// [`after`](EventSource::after).
    pub fn last_event_id(&self) -> &str {
        self.decoder.last_event_id()
    }

    /// Returns how long the call after an error will wait.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// Returns the next message; `None` after 204. Comments are skipped, and a `retry` field is kept.
    fn read(&mut self) -> io::Result<Option<Message>> {
        if self.stream.is_none() {
            thread::sleep(self.pause);
            self.pause = Duration::ZERO;
            self.stream = self.connect()?;
            self.failures = 0;
        }
        while let Some(stream) = &mut self.stream {
            match stream.next(&mut self.decoder)? {
                Decoded::Message(message) => return Ok(Some(message)),
                Decoded::Retry(time) => self.retry = time.min(MAX_RETRY),
                Decoded::Comment(_) => {}
            }
        }
        Ok(None)
    }

    /// Connects, sends the request and reads the head of the response; `None` for 204. Tries each address of the host in turn.
    fn connect(&mut self) -> io::Result<Option<Stream>> {
        let none = Err(io::Error::other("the host has no address"));
        let addresses = self.address.to_socket_addrs()?;
        let mut socket = addresses.fold(none, |connected, address| {
            connected.or_else(|_| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT))
        })?;
        socket.set_read_timeout(Some(self.silence))?;
        let mut request = self.request.clone();
        // Drops the lines of an event that was cut off.
        self.decoder = Decoder::after(self.last_event_id());
        if !self.last_event_id().is_empty() {
            request += &format!("Last-Event-ID: {}\r\n", self.last_event_id());
        }
        socket.write_all((request + "\r\n").as_bytes())?;
        let mut stream = Stream::new(socket);
        let (status, fields) = stream.read_head()?;
        let field = |name: &str| fields.get(name).map_or("", |value| value);
        match status {
            200 => {}
            204 => return Ok(None),
            429 | 500..=599 => {
                let seconds = field("retry-after").parse().unwrap_or(0);
                self.pause = Duration::from_secs(seconds).min(MAX_RETRY);
                return Err(io::Error::other(format!("the server answers {status}")));
            }
            _ => return Err(invalid_data(format!("the server answers {status}"))),
        }
        let media_type = field("content-type");
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            let error = format!("not an event stream, but {media_type:?}");
            return Err(invalid_data(error));
        }
        // How the body ends (RFC 9112 section 6.3): with its last chunk, after its length, or with the connection.
        stream.is_chunked = field("transfer-encoding").eq_ignore_ascii_case("chunked");
        stream.left = match stream.is_chunked {
            true => 0,
            false => field("content-length").parse().unwrap_or(u64::MAX),
        };
        Ok(Some(stream))
    }
}

impl Iterator for EventSource {
    type Item = io::Result<Message>;

    /// Waits for the next message. An error closes the connection and sets the pause for the next call.
    fn next(&mut self) -> Option<io::Result<Message>> {
        if self.is_over {
            return None;
        }
        let result = self.read();
        match &result {
            Ok(message) => self.is_over = message.is_none(),
            Err(error) => {
                self.stream = None;
                self.is_over = error.kind() == ErrorKind::InvalidData;
                let doubled = 1 << self.failures.min(MAX_DOUBLINGS);
                let pause = (self.retry.max(MIN_PAUSE) * doubled).max(self.pause);
                self.pause = pause + jitter(pause / 2);
                self.failures += 1;
            }
        }
        result.transpose()
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request may hold secrets.
        write!(f, "EventSource({})", self.address)
    }
}

/// The body of a response, decoded as it comes.
#[derive(Debug)]
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
    /// The bytes left of the chunk, or of a body without chunks.
    left: u64,
    is_chunked: bool,
}

impl Stream {
    /// Makes a stream that ends with the connection.
    pub(crate) fn new(socket: TcpStream) -> Stream {
        Stream {
            reader: BufReader::new(socket),
            left: u64::MAX,
            is_chunked: false,
        }
    }

    /// Reads the head of the final response: its status, and its fields by their names in lower case. Of two fields with the
    /// same name the later one counts. A line without a colon is skipped, as browsers do.
    ///
    /// ```text
    /// status-line = HTTP-version SP status-code SP [ reason-phrase ]    (RFC 9112 section 4)
    /// ```
    fn read_head(&mut self) -> io::Result<(u16, HashMap<String, String>)> {
        let (mut status, mut fields) = (None, HashMap::new());
        for _ in 0..MAX_HEAD_LINES {
            let line = self.read_line()?;
            let Some(code) = status else {
                let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
                status = code.and_then(|code| code.parse().ok());
                if status.is_none() {
                    return Err(invalid_data("the response is not HTTP/1".to_string()));
                }
                continue;
            };
            if let Some((name, value)) = line.split_once(':') {
                fields.insert(name.to_lowercase(), value.trim().to_string());
            } else if line.trim_end().is_empty() {
                if !(100..200).contains(&code) {
                    return Ok((code, fields));
                }
                // An interim response is followed by another response (RFC 9110 section 15.2).
                status = None;
                fields.clear();
            }
        }
        Err(io::Error::other("the head of the response is too long"))
    }

    /// Returns the next item of the stream. Its end, complete or not, is an `UnexpectedEof`: the client comes back after
    /// either.
    pub(crate) fn next(&mut self, decoder: &mut Decoder) -> io::Result<Decoded> {
        loop {
            if self.left == 0 && self.is_chunked {
                self.left = self.next_chunk()?;
            }
            let bytes = self.reader.fill_buf().map_err(name_silence)?;
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let before = bytes.len().min(left);
            if before == 0 {
                return Err(ended());
            }
            let mut rest = &bytes[..before];
            let item = decoder.decode(&mut rest);
            let taken = before - rest.len();
            self.reader.consume(taken);
            self.left -= taken as u64;
            if let Some(item) = item.map_err(|error| invalid_data(error.to_string()))? {
                return Ok(item);
            }
        }
    }

    /// Reads the line end after a chunk, if there was one, and the line before the next. Returns the next chunk's size.
    ///
    /// ```text
    /// chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF    (RFC 9112 section 7.1)
    /// ```
    fn next_chunk(&mut self) -> io::Result<u64> {
        let mut line = String::new();
        while line.trim_end().is_empty() {
            line = self.read_line()?;
        }
        // A client ignores the chunk extensions that it does not know (RFC 9112 section 7.1.1).
        let size = line.split(';').next().unwrap_or_default();
        match chunk_size(size.trim_end().as_bytes()) {
            Ok((0, _)) => Err(ended()),
            Ok((size, _)) => Ok(size),
            Err(_) => Err(io::Error::other("a chunk has no size")),
        }
    }

    /// Reads the next line with its line end.
    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(MAX_LINE_BYTES);
        limited.read_until(b'\n', &mut line).map_err(name_silence)?;
        match (limited.limit(), line.last()) {
            (_, Some(b'\n')) => Ok(String::from_utf8_lossy(&line).into_owned()),
            (0, _) => Err(io::Error::other("a line is too long")),
            _ => Err(ended()),
        }
    }
}

/// Makes the error for a stream that has ended, complete or not. After this error the iterator connects again.
fn ended() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the server has ended the stream")
}

/// Names the error of a read that took too long, which is `WouldBlock` on Unix and `TimedOut` on Windows.
fn name_silence(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            io::Error::new(ErrorKind::TimedOut, "the server was silent for too long")
        }
        _ => error,
    }
}

/// Makes the error that ends the iterator: another attempt would fail too.
fn invalid_data(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

/// Makes the error for a setting that cannot be sent.
fn invalid_input(problem: &str, text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{problem}: {text:?}"))
}
