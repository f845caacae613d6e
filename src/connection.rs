//! One connection: requests and their responses one after the other, and streams among them (RFC 9112 section 9).
//!
//! ```text
//!        ┌──────────────── keep-alive ─────────────────┐
//!        ▼                                             │
//!  await_request ──▶ read_request ──▶ router ──▶ whole response ──close──▶ linger
//!        ▲                                └────▶ stream, on this thread or others
//!        │                                             │
//!        └── with new buffers, where the stream kept the connection
//! ```
//!
//! An error in a request leads to a response that ends the connection, or to the end without a response: after a framing error,
//! the beginning of the next request is not known.
//!
//! A client may send its next requests before the response (pipelining, section 9.3.2). They wait in the buffer of the reader,
//! and are served in their order. Each step has its own limit of time:
//!
//! ```text
//! wait for the first request   head_timeout; NEW_TIME while the server closes
//! wait for a later request     idle_timeout, or until the connection gives way to another one
//! head                         head_timeout, for the whole head
//! body                         body_timeout, for the whole body, and min_bytes_per_second
//! response                     write_timeout without progress, and min_bytes_per_second
//! linger                       LINGER
//! ```

use std::io::{self, BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::http::{
    Framing, Method, Request, RequestError, Response, Stream, StreamHead, UNEXPECTED_END, Version,
    client_ip, is_token, malformed, read_body,
};
use crate::random::jitter;
use crate::router::{Found, Router};
use crate::socket::{DeadlineReader, NEW_TIME, Socket};

/// Maximum bytes of a body that are copied after the head, so that both leave in one write.
const ONE_WRITE_BYTES: usize = 16 * 1024;

/// The buffer that request heads are read into: more than the head of an ordinary browser request. Freed when a stream begins.
const READ_BUFFER_BYTES: usize = 4096;

/// Room for the head of an ordinary response. When a block of more than 1,032 bytes is freed, glibc does not cache it for the
/// thread, which may go on to carry a stream for days.
const HEAD_BYTES: usize = 1280;

/// The first byte of a TLS connection: the content type of a handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// How long a connection that closes waits for the client to read the response and close.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that is refused may take for its request head and for reading the response.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection with its buffers, which are used for one request after the other. They are freed before a stream begins, as it
/// may be open for days.
struct Connection {
    /// Moves into the stream when one begins.
    socket: Socket,
    /// Reads the same socket. Bytes left in its buffer came early and belong to the next request.
    reader: BufReader<DeadlineReader>,
    /// The request that is read or served. It is cleared for the next request, which uses the same allocations.
    request: Request,
    /// The lines of a request head while it is read, then the response.
    out: Vec<u8>,
}

/// Serves a connection until it ends or has become a stream that other threads carry on. A stream that ended by itself may give
/// the socket back for the next request.
pub(crate) fn serve(mut socket: Socket, router: &Router) {
    while let Some((stream, head, stream_socket)) = answer_requests(socket, router) {
        match stream(head, stream_socket) {
            Some(kept) => socket = kept,
            None => return,
        }
    }
}

/// Answers requests, up to the first one whose response is a stream. Returns `None` when the connection has ended, and else
/// what the stream needs: the closure that writes it, the bytes of the head, which are not sent yet, and the socket.
///
/// Not inlined into the caller, so that the frame of this function is not on the stack while the stream is open: ten thousand
/// streams would each touch one more page.
#[inline(never)]
fn answer_requests(socket: Socket, router: &Router) -> Option<(Stream, StreamHead, Socket)> {
    let mut connection = Connection::new(socket);
    while connection.await_request() {
        let mut response = match connection.read_request(router) {
            Ok(handler) => router.answer(&connection.request, &handler),
            Err(refusal) => refusal?,
        };
        if response.stream.is_some() && !response.has_content() {
            let problem = format!("a stream cannot have status {}", response.status());
            response = Response::failed(problem);
        }
        if let Some(error) = &response.error {
            let (method, path) = (connection.request.method(), connection.request.path());
            let problem = format!("{method} {path}: {error}");
            connection.socket.report(&problem);
        }
        let server = &connection.socket.permit.connections;
        server.count_response(response.status());
        connection.request.keep_alive &= connection.socket.may_stay() && !response.is_last;
        match response.stream.take() {
            None => connection.send_whole(&response).ok()?,
            Some(stream) => {
                let request = &mut connection.request;
                // To HTTP/1.0 a stream is close-delimited (RFC 9112 section 6.3).
                request.keep_alive &= request.version == Version::Http11;
                let head = response.stream_head(connection.out, request);
                if request.method() != Method::Head {
                    let mut socket = connection.socket;
                    socket.keep_alive = request.keep_alive;
                    // The buffer is freed: a stream may be open for days.
                    socket.keep_early(connection.reader.buffer());
                    socket.keep_early(&connection.reader.get_ref().early);
                    return Some((stream, head, socket));
                }
                connection.out = head.bytes;
                connection.socket.write_all(&connection.out).ok()?;
            }
        }
        if !connection.request.keep_alive {
            let rest = connection.reader.get_mut();
            rest.set_deadline(LINGER, 0);
            connection.socket.linger(rest);
            return None;
        }
        connection.request.clear();
        connection.out.clear();
        connection.out.shrink_to(HEAD_BYTES);
        // Yields once before it sleeps: a request that comes now costs no wake-up.
        thread::yield_now();
    }
    None
}

/// Reads a request and responds that there is no room. The request decides the form: an `EventSource` that gets a 503 never
/// comes back. The threads that run this are few, so a client that is slow here loses its connection after a second.
pub(crate) fn refuse(socket: Socket) {
    let mut connection = Connection::new(socket);
    connection.reader.get_mut().set_deadline(REFUSAL_TIMEOUT, 0);
    let refusal = match connection.read_head() {
        Ok(()) => Some(connection.overload()),
        Err(refusal) => refusal,
    };
    if refusal.is_some_and(|response| connection.send_whole(&response).is_ok()) {
        connection.socket.linger(connection.reader.get_mut());
    }
}

/// The error is the response to a request that could not be read, or `None` where the connection is gone.
type Read<T> = Result<T, Option<Response>>;

impl Connection {
    /// Allocates the buffers. What came early on the socket is read first. The connection is boxed: on the stack it would take
    /// 500 bytes below each handler, and an open stream keeps the pages of its stack.
    fn new(mut socket: Socket) -> Box<Connection> {
        // An event that waits for the next one to fill a packet would be late. The call fails on a Unix socket, and on a
        // connection that has ended, which the next read reports.
        let _ = socket.stream().set_nodelay(true);
        Box::new(Connection {
            reader: BufReader::with_capacity(READ_BUFFER_BYTES, socket.reader()),
            request: Request::unread(
                socket.connected.peer,
                Arc::clone(&socket.permit.connections.closing),
            ),
            out: Vec::with_capacity(HEAD_BYTES),
            socket,
        })
    }

    /// Waits for the first byte of a request; false when none comes. Only this wait may be ended from outside, by a shutdown or
    /// for another connection.
    fn await_request(&mut self) -> bool {
        if !self.reader.buffer().is_empty() {
            return true;
        }
        let is_new = self.socket.is_new();
        if !is_new && !self.socket.start_idle() {
            return false;
        }
        let config = self.socket.config();
        let time = match is_new {
            // The client has opened a new connection for a request.
            true if self.socket.is_closing() => NEW_TIME,
            true => config.head_timeout,
            false => config.idle_timeout,
        };
        self.reader.get_mut().set_deadline(time, 0);
        let has_request = self.reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        self.socket.end_idle();
        has_request
    }

    /// Reads one request and finds its handler. The body is read before the handler runs, so that the next request begins where
    /// this one ends, whatever the handler does.
    ///
    /// ```text
    /// first byte ──▶ head ──▶ address of the client ──▶ route ──▶ 100 Continue, where asked for ──▶ body
    /// ```
    ///
    /// A refusal by any of these steps but the route ends the connection.
    #[inline(never)] // For the stack, as with `answer_requests`.
    fn read_request<'a>(&mut self, router: &'a Router) -> Read<Found<'a>> {
        let time = self.socket.config().head_timeout;
        self.reader.get_mut().set_deadline(time, 0);
        self.check_first_byte()?;
        self.read_head()?;
        self.request.client_ip = client_ip(&self.request, &self.socket.config().trusted_proxies);
        if !self.socket.permit.move_to(self.request.client_ip) {
            let server = &self.socket.permit.connections;
            server.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Some(self.overload()));
        }
        let handler = router.find(&mut self.request);
        let request = &mut self.request;
        if request.expects_continue && handler.is_err() {
            // The final response comes in place of a 100, so that the body never comes (RFC 9110 section 10.1.1).
            request.keep_alive = false;
            return Ok(handler);
        }
        let max_bytes = self.socket.config().max_body_bytes;
        // A body whose announced length is too large is refused without a 100.
        let fits = !matches!(request.framing, Framing::Length(length) if length > max_bytes as u64);
        if request.expects_continue && self.reader.buffer().is_empty() && fits {
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.socket.write_all(go_on).map_err(|_| None)?;
        }
        let config = self.socket.config();
        let (time, min_rate) = (config.body_timeout, config.min_bytes_per_second);
        self.reader.get_mut().set_deadline(time, min_rate);
        match read_body(&mut self.reader, request.framing, max_bytes) {
            Ok(body) => request.body = body,
            Err(error) => return Err(self.refusal(error)),
        }
        Ok(handler)
    }

    /// Refuses a first byte that begins no request at once. The head would be read up to a line end, which may never come: a
    /// TLS client sends `\x16\x03\x01` and some hundred bytes, and waits.
    fn check_first_byte(&mut self) -> Read<()> {
        let first = self.reader.buffer().first().copied().unwrap_or(b'\n');
        // Some clients send a line end after a body (RFC 9112 section 2.2).
        if is_token(&[first]) || matches!(first, b'\r' | b'\n') {
            return Ok(());
        }
        let server = &self.socket.permit.connections;
        // Once for each server: any client can send such a byte.
        if first == TLS_HANDSHAKE && !server.has_reported_tls.swap(true, Ordering::Relaxed) {
            server.report(&format!(
                "{} tried TLS, as for https, on a port of plain HTTP (further tries are not reported)",
                self.socket.connected.peer
            ));
        }
        Err(self.refusal(malformed("this is not HTTP")))
    }

    /// Reads the head of a request into `request`.
    #[inline(never)] // One copy for its two callers.
    fn read_head(&mut self) -> Read<()> {
        let config = self.socket.config();
        let came = (self.request).read_head(&mut self.reader, &mut self.out, config);
        match came {
            Ok(true) => Ok(()),
            Ok(false) => Err(None),
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// Returns the response to a request that could not be read, where the connection is not gone. The connection ends with
    /// this response, since the beginning of the next request is not known (RFC 9112 section 9.6).
    #[inline(never)]
    fn refusal(&mut self, error: RequestError) -> Option<Response> {
        self.request.keep_alive = false;
        if error == UNEXPECTED_END && !self.socket.may_stay() {
            // The server may have ended the wait, and with it the reading, just when the request began to arrive.
            return Some(self.overload());
        }
        let reason = Response::text(format!("{}\n", error.reason));
        Some(reason.with_status(error.status?))
    }

    /// Returns the response to a client for which there is no room. It ends the connection.
    fn overload(&mut self) -> Response {
        self.request.keep_alive = false;
        let wait = Duration::from_secs(1) + jitter(self.socket.config().reconnect_spread);
        let response = Response::retry_after(&self.request, wait);
        let Some(origin) = self.request.header("origin") else {
            return response;
        };
        // An `EventSource` never tries again where its page may not read the response. Each page may read this response,
        // which says nothing but when to come back.
        response
            .with_field("Access-Control-Allow-Origin", origin)
            .with_field("Access-Control-Allow-Credentials", "true")
    }

    /// Sends a response with its length. The first bytes of the body leave with the head: a body of up to 16 KiB costs one
    /// system call.
    fn send_whole(&mut self, response: &Response) -> io::Result<()> {
        let (body, out) = (response.body(), &mut self.out);
        out.clear();
        response.append_head(out, Some(body.len()), &self.request);
        if self.request.method() == Method::Head || !response.has_content() {
            return self.socket.write_all(out);
        }
        let (first, rest) = body.split_at(body.len().min(ONE_WRITE_BYTES));
        out.extend_from_slice(first);
        self.socket.write_all(out)?;
        match rest.is_empty() {
            // Writing nothing would be a system call for each response.
            true => Ok(()),
            false => self.socket.write_all(rest),
        }
    }
}
