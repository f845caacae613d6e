//! One connection's socket with its permit: writes under a time-out, reads by a deadline, and the liveness check.
//!
//! A socket is blocking while it serves requests and non-blocking while it carries a stream. Only the thread that owns the
//! connection changes the mode, since the mode belongs to the socket and not to a handle of it.
//!
//! ```text
//!                      start_stream                finish_stream
//! blocking: requests ───────────────▶ non-blocking ─────────────▶ blocking, where the connection goes on
//!                                                        └──────▶ shut down for writing, where it ends
//! ```
//!
//! Three clocks stop a peer that takes its time. A head, a body and a wait each have a deadline for the whole: a time-out for
//! each read would start again at each byte. A body must also come at a minimum rate. And a peer that does not read has a
//! [`Pace`], which looks at the time since the last byte that it took and at its average.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::connections::{BUSY, ConnectionPermit, Connections, NEW, SharedStream};

/// Maximum bytes that a client may send on an event stream: requests that it pipelines.
const MAX_STRAY_BYTES: usize = 64 * 1024;

/// Maximum bytes that are written to a blocking socket at once: an ordinary response, which costs one system call.
const BLOCKING_WRITE_BYTES: usize = 20 * 1024;

/// The time after which a full socket is tried once more: more than the 40 ms of a delayed acknowledgement. Linux ends the wait
/// for a full socket only when a third of its buffer is free, so that up to a third may be free all the time. What is written
/// after this time has passed is progress of the peer.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// How long a server that closes waits for the first request of a new connection, which may be on its way.
pub(crate) const NEW_TIME: Duration = Duration::from_millis(250);

/// How long a body may come more slowly than the minimum rate: a connection is slow at its start.
const BODY_GRACE: Duration = Duration::from_secs(5);

/// An open connection, owned by one thread at a time.
pub(crate) struct Socket {
    /// The connection itself. A writer thread has it too, and drops it before the socket, which frees the permit.
    pub(crate) connected: Arc<SharedStream>,
    /// The socket's own time-out is the write time-out. It is set at the first write that may block.
    has_write_timeout: bool,
    /// The connection goes on with another request after this response.
    pub(crate) keep_alive: bool,
    /// The connection was chosen to give way to another one, and its reading side is shut down. It no longer counts, so it has
    /// to end soon.
    pub(crate) gives_way: bool,
    /// Bytes of the next request that came before the response to this one had ended.
    early: Vec<u8>,
    /// Bytes that came during a stream, and those that were early when it began.
    stray_bytes: usize,
    /// Dropped after the socket.
    pub(crate) permit: ConnectionPermit,
}

impl Socket {
    /// Takes a permit for a new connection, where there is room.
    pub(crate) fn new(
        connections: &Arc<Connections>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Socket {
        let connected = Arc::new(SharedStream::new(stream, peer));
        Socket {
            permit: connections.admit(&connected),
            connected,
            has_write_timeout: false,
            keep_alive: false,
            gives_way: false,
            early: Vec::new(),
            stray_bytes: 0,
        }
    }

    /// Returns the limits of the server.
    pub(crate) fn config(&self) -> &Config {
        &self.permit.connections.config
    }

    /// Reports a problem that has no caller to tell.
    pub(crate) fn report(&self, problem: &str) {
        self.permit.connections.report(problem);
    }

    /// Returns whether the server is shutting down.
    pub(crate) fn is_closing(&self) -> bool {
        self.permit.connections.is_closing()
    }

    /// Returns a reader of this socket. Each read ends by a deadline, and the first ones return what came early.
    pub(crate) fn reader(&mut self) -> DeadlineReader {
        DeadlineReader::new(Arc::clone(&self.connected), mem::take(&mut self.early))
    }

    /// Returns whether the client has sent no request on this connection yet.
    pub(crate) fn is_new(&self) -> bool {
        self.connected.idle.load(Ordering::SeqCst) == NEW
    }

    /// Marks the connection as waiting for its next request; false when it is to close.
    pub(crate) fn start_idle(&self) -> bool {
        // The mark comes before the check, so that a shutdown between the two sees the mark.
        let waits = &self.permit.connections.idle_waits;
        let mark = waits.fetch_add(1, Ordering::SeqCst).max(NEW + 1);
        self.connected.idle.store(mark, Ordering::SeqCst);
        self.may_stay()
    }

    /// Ends the wait. Where the connection was chosen to give way meanwhile, it closes after this request.
    pub(crate) fn end_idle(&mut self) {
        self.gives_way |= self.connected.idle.swap(BUSY, Ordering::SeqCst) == BUSY;
    }

    /// Returns whether the connection may wait for another request.
    pub(crate) fn may_stay(&self) -> bool {
        !self.is_closing() && !self.gives_way
    }

    /// Returns whether the connection carries a stream, so that the socket is non-blocking.
    fn is_stream(&self) -> bool {
        self.connected.is_stream.load(Ordering::Relaxed)
    }

    /// Begins a stream and makes the socket non-blocking: until [`finish_stream`](Socket::finish_stream) it carries a stream.
    pub(crate) fn start_stream(&mut self) -> io::Result<()> {
        self.stray_bytes = self.early.len();
        self.connected.is_stream.store(true, Ordering::Relaxed);
        self.stream().set_nonblocking(true)
    }

    /// Keeps bytes that came after a request, where the connection goes on with a next request, to which they belong.
    pub(crate) fn keep_early(&mut self, bytes: &[u8]) {
        if self.keep_alive {
            self.early.extend_from_slice(bytes);
        }
    }

    /// Writes what a stream's socket takes at once: fewer bytes than given, or none, when it is full.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        try_write(&mut self.stream(), bytes)
    }

    /// Writes everything, waiting for the peer as long as it takes bytes often and fast enough.
    ///
    /// # Errors
    ///
    /// As [`Pace::record_progress`], or when the connection fails.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut pace = Pace::new();
        let mut written = 0;
        if !self.is_stream() && bytes.len() <= BLOCKING_WRITE_BYTES {
            if !self.has_write_timeout {
                let timeout = self.config().write_timeout.max(SHORTEST);
                self.stream().set_write_timeout(Some(timeout))?;
                self.has_write_timeout = true;
            }
            // If only a part was written, the time-out has passed.
            written = self.try_write(bytes)?;
        }
        let mut wait = (self.config().write_timeout).saturating_sub(pace.since.elapsed());
        while written < bytes.len() {
            let n = self.write_waiting(&bytes[written..], wait)?;
            written += n;
            if written < bytes.len() {
                wait = pace.record_progress(n, self.config())?;
            }
        }
        Ok(())
    }

    /// Writes what the socket takes at once. Where it takes nothing, waits up to [`SETTLE_TIME`] and then up to `wait`, until it
    /// takes something. Leaves a stream non-blocking.
    ///
    /// std has no call that waits until a socket can be written to. A blocking write of one byte with a time-out stands in for
    /// it.
    pub(crate) fn write_waiting(&mut self, bytes: &[u8], wait: Duration) -> io::Result<usize> {
        self.has_write_timeout = false;
        self.stream().set_nonblocking(true)?;
        let mut written = self.try_write(bytes)?;
        for time in [wait.min(SETTLE_TIME), wait] {
            if written > 0 || bytes.is_empty() {
                break;
            }
            self.stream().set_nonblocking(false)?;
            self.stream().set_write_timeout(Some(time.max(SHORTEST)))?;
            // One byte alone: of more bytes the system may take a part at once and wait with the rest, and the time of the
            // last progress would not be known.
            written = self.try_write(&bytes[..1])?;
            self.stream().set_nonblocking(true)?;
            written += self.try_write(&bytes[written..])?;
        }
        self.stream().set_nonblocking(self.is_stream())?;
        Ok(written)
    }

    /// Reads what the client has sent on its stream, and returns whether it has left: closed its side, failed, or sent more
    /// than [`MAX_STRAY_BYTES`]. What it sent is kept where the connection goes on with another request, else thrown away.
    ///
    /// A write does not tell this: the first write after the client has closed succeeds. A peek does not tell it either: once
    /// the client has sent a byte, each peek reports that byte.
    pub(crate) fn peer_left(&mut self) -> bool {
        let mut scratch = [0; 512];
        let left = loop {
            match self.stream().read(&mut scratch) {
                Ok(n) => {
                    self.stray_bytes += n;
                    if n == 0 || self.stray_bytes > MAX_STRAY_BYTES {
                        break true;
                    }
                    self.keep_early(&scratch[..n]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break !is_timeout(&error),
            }
        };
        self.keep_alive &= !left;
        left
    }

    /// Ends a stream. Where the connection ends too, what the client has sent is read once more: a close with unread bytes
    /// would be a reset, which can destroy the last bytes written.
    ///
    /// # Errors
    ///
    /// When the connection is to go on and has failed.
    pub(crate) fn finish_stream(&mut self) -> io::Result<()> {
        self.keep_alive &= self.may_stay();
        if self.keep_alive {
            self.connected.is_stream.store(false, Ordering::Relaxed);
            return self.stream().set_nonblocking(false);
        }
        let _ = self.stream().shutdown(Shutdown::Write);
        self.peer_left();
        Ok(())
    }

    /// Closes the connection after a response: shuts down writing, then reads and throws away what comes until the client
    /// closes, at most until the reader's deadline. A close with unread bytes would be a reset, which can destroy the response.
    /// The number of bytes is not limited: a client that sends its whole body before it reads shall see why it was refused.
    pub(crate) fn linger(&self, reader: &mut DeadlineReader) {
        if self.stream().shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut scratch = vec![0; 16 * 1024];
        while matches!(reader.read(&mut scratch), Ok(1..)) {}
    }

    /// Returns the stream itself, which reads and writes without the limits of this type.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.connected.stream
    }
}

/// 30 years. Every clock can hold a time so far from now.
pub(crate) const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Returns the point in time after this duration, at most [`FAR`] from now. Adding a duration that the clock cannot hold would
/// panic, and a setting of [`Duration::MAX`] means never.
#[inline(never)] // One copy in place of one for each caller.
pub(crate) fn from_now(duration: Duration) -> Instant {
    Instant::now() + duration.min(FAR)
}

/// The minimum of a socket's time-out: zero would mean none.
const SHORTEST: Duration = Duration::from_millis(1);

/// Returns whether a read or write ended by its time-out: the error is `WouldBlock` on Unix and `TimedOut` on Windows.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Writes once. Returns zero for a socket that is full, or stays full until its time-out.
pub(crate) fn try_write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(0) if !bytes.is_empty() => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => return Ok(0),
            Err(error) => return Err(error),
        }
    }
}

/// Reads until a point in time. The owner of a connection has the reader beside the [`Socket`], and only while it reads
/// requests: a stream needs none of the reader's fields.
///
/// A read ends at the earlier of two deadlines. At a minimum rate of 100 bytes per second, a read of 50 bytes moves
/// `rate_deadline` forward by half a second, and `deadline` stays where it is.
pub(crate) struct DeadlineReader {
    connected: Arc<SharedStream>,
    /// Bytes that were read from the socket earlier. They come first.
    pub(crate) early: Vec<u8>,
    /// The end of the time for the whole head, body or wait.
    deadline: Instant,
    /// The deadline that the minimum rate sets: each byte moves it forward. With a rate of zero it is `deadline`.
    rate_deadline: Instant,
    /// The minimum rate; zero for none.
    bytes_per_second: u32,
    /// The time-out that the socket has now; zero where it is not set.
    timeout: Duration,
}

impl DeadlineReader {
    /// Makes a reader whose deadline has passed: set one before the first read.
    fn new(connected: Arc<SharedStream>, early: Vec<u8>) -> DeadlineReader {
        let now = Instant::now();
        DeadlineReader {
            connected,
            early,
            deadline: now,
            rate_deadline: now,
            bytes_per_second: 0,
            timeout: Duration::ZERO,
        }
    }

    /// Sets the time for all reads from now on, and the minimum rate at which bytes must come after [`BODY_GRACE`]; zero for none.
    pub(crate) fn set_deadline(&mut self, time: Duration, bytes_per_second: u64) {
        self.deadline = from_now(time);
        self.rate_deadline = match bytes_per_second {
            0 => self.deadline,
            _ => Instant::now() + BODY_GRACE,
        };
        self.bytes_per_second = u32::try_from(bytes_per_second).unwrap_or(u32::MAX);
    }
}

impl Read for DeadlineReader {
    /// Reads what is there, waiting for the first byte until a deadline. Fails with `TimedOut` when one has passed.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.early.is_empty() {
            let n = self.early.as_slice().read(out)?;
            self.early.drain(..n);
            return Ok(n);
        }
        loop {
            let until = self.deadline.min(self.rate_deadline);
            let remaining = until.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            // Setting the time-out costs a system call. A time-out that is too short by up to half costs at most one more
            // round.
            if self.timeout > remaining || self.timeout < remaining / 2 {
                let timeout = remaining.max(SHORTEST);
                self.connected.stream.set_read_timeout(Some(timeout))?;
                self.timeout = timeout;
            }
            match (&self.connected.stream).read(out) {
                Err(error) if is_timeout(&error) => self.timeout = Duration::ZERO,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(n) => {
                    let credit = Duration::from_secs(n as u64).checked_div(self.bytes_per_second);
                    self.rate_deadline += credit.unwrap_or_default();
                    return Ok(n);
                }
            }
        }
    }
}

/// The progress of a peer that is behind: it must take something within each write time-out, and enough on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// When the peer fell behind.
    since: Instant,
    /// When it last took a byte, or fell behind.
    last: Instant,
    /// How many bytes it has taken since it fell behind.
    bytes: u64,
}

impl Pace {
    /// Begins when the first write had to wait.
    pub(crate) fn new() -> Pace {
        let now = Instant::now();
        Pace {
            since: now,
            last: now,
            bytes: 0,
        }
    }

    /// Notes that the peer took `n` bytes, and returns how long it may take nothing from now on.
    ///
    /// # Errors
    ///
    /// `TimedOut` when it has taken nothing for the write time-out, or too little since it fell behind.
    pub(crate) fn record_progress(&mut self, n: usize, config: &Config) -> io::Result<Duration> {
        let now = Instant::now();
        if n > 0 {
            self.last = now;
            self.bytes += n as u64;
        }
        let quiet = now - self.last;
        let behind = now - self.since;
        let least = behind.as_secs().saturating_mul(config.min_bytes_per_second);
        if quiet >= config.write_timeout || (behind >= config.write_timeout && self.bytes < least) {
            let problem = "the client took too little of what was sent";
            return Err(io::Error::new(ErrorKind::TimedOut, problem));
        }
        Ok(config.write_timeout - quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn pair() -> (TcpStream, Arc<SharedStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        (client, Arc::new(SharedStream::new(stream, peer)))
    }

    #[test]
    fn each_byte_of_a_body_buys_time() {
        let (mut client, connected) = pair();
        let mut reader = DeadlineReader::new(connected, Vec::new());
        reader.set_deadline(Duration::from_secs(60), 0);
        let until = Instant::now() + Duration::from_secs(30);
        (reader.rate_deadline, reader.bytes_per_second) = (until, 10);
        client.write_all(b"12345").unwrap();
        assert_eq!(reader.read(&mut [0; 100]).unwrap(), 5);
        assert_eq!(reader.rate_deadline - until, Duration::from_millis(500));

        // After the deadline of the rate, bytes that have come are too late.
        reader.rate_deadline = Instant::now();
        client.write_all(b"12345").unwrap();
        let error = reader.read(&mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_least_rate_of_zero_is_none() {
        let (_client, connected) = pair();
        let mut reader = DeadlineReader::new(connected, Vec::new());
        for (rate, expected) in [(0, 0), (1, 1), (u64::MAX, u32::MAX)] {
            reader.set_deadline(Duration::from_secs(60), rate);
            assert_eq!(reader.bytes_per_second, expected);
            assert_eq!(reader.rate_deadline == reader.deadline, rate == 0);
        }
    }

    #[test]
    fn a_reader_must_take_something_each_time_and_enough_on_average() {
        const TIMEOUT: Duration = Duration::from_secs(100);
        let config = Config {
            write_timeout: TIMEOUT,
            min_bytes_per_second: 10,
            ..Config::default()
        };
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let check = |behind: Duration, quiet: Duration, bytes: u64, n: usize| {
            // The clock goes on meanwhile, so that each of these points in time has passed.
            let mut pace = Pace {
                since: now.checked_sub(behind).unwrap(),
                last: now.checked_sub(quiet).unwrap(),
                bytes,
            };
            let allowed = pace.record_progress(n, &config).ok();
            // The time-out counts from the last byte.
            let left = TIMEOUT - if n > 0 { Duration::ZERO } else { quiet };
            assert!(allowed.is_none_or(|time| time <= left));
            allowed.is_some()
        };
        assert!(check(90 * second, 90 * second, 0, 0)); // It has some time left.
        assert!(!check(TIMEOUT, TIMEOUT, 1000, 0)); // It took enough, but nothing for too long.
        assert!(check(TIMEOUT, TIMEOUT, 1000, 1)); // Just in time.
        assert!(!check(TIMEOUT, second, 999, 0)); // It took something, but not enough.
        assert!(check(TIMEOUT, second, 999, 1)); // Just enough.
        assert!(check(90 * second, second, 0, 0)); // Not judged before it has been behind for the time-out.
    }

    /// A peer that takes nothing is cut off after one write time-out, however a response is sent.
    #[test]
    fn the_write_time_out_holds_once() {
        const TIMEOUT: Duration = Duration::from_secs(2);
        let check = |bytes: usize, streaming: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, peer) = listener.accept().unwrap();
            let config = Config {
                write_timeout: TIMEOUT,
                ..Config::default()
            };
            let connections = Connections::new(config, Arc::new(|_| ()));
            let mut socket = Socket::new(&connections, stream, peer);
            if streaming {
                socket.start_stream().unwrap();
            }
            let bytes = vec![0; bytes];
            let took = loop {
                let start = Instant::now();
                if socket.write_all(&bytes).is_err() {
                    break start.elapsed();
                }
            };
            assert!((TIMEOUT..2 * TIMEOUT).contains(&took), "{took:?}");
        };
        thread::scope(|scope| {
            scope.spawn(|| check(16 * 1024, false)); // Small responses, one after the other.
            scope.spawn(|| check(50_000_000, false)); // A response that no buffer holds.
            scope.spawn(|| check(16 * 1024, true)); // Events.
            scope.spawn(|| check(50_000_000, true)); // An event that no buffer holds.
        });
    }

    /// Takes this many bytes, then blocks.
    struct TakesUpTo(usize);

    impl Write for TakesUpTo {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match bytes.len().min(self.0) {
                0 => Err(ErrorKind::WouldBlock.into()),
                n => {
                    self.0 -= n;
                    Ok(n)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_socket_has_taken_nothing() {
        let mut socket = TakesUpTo(3);
        assert_eq!(try_write(&mut socket, b"12").unwrap(), 2);
        assert_eq!(try_write(&mut socket, b"34").unwrap(), 1);
        assert_eq!(try_write(&mut socket, b"4").unwrap(), 0);
        assert_eq!(try_write(&mut [0_u8; 0].as_mut_slice(), b"").unwrap(), 0); // Nothing was to be written.
        let closed = try_write(&mut [0_u8; 0].as_mut_slice(), b"1").unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::WriteZero);
    }

    /// Fails with these errors, one at each write, and then takes everything.
    struct Fails(Vec<ErrorKind>);

    impl Write for Fails {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .pop()
                .map_or(Ok(bytes.len()), |kind| Err(kind.into()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_write_is_tried_again_waits_or_fails() {
        let check = |kind: ErrorKind, expected: Result<usize, ErrorKind>| {
            let written = try_write(&mut Fails(vec![kind]), b"12");
            assert_eq!(written.map_err(|error| error.kind()), expected);
        };
        check(ErrorKind::Interrupted, Ok(2)); // By a signal: tried again.
        check(ErrorKind::WouldBlock, Ok(0)); // Full, on Unix.
        check(ErrorKind::TimedOut, Ok(0)); // Full, on Windows.
        check(ErrorKind::BrokenPipe, Err(ErrorKind::BrokenPipe)); // The client has left.
        check(
            ErrorKind::ConnectionReset,
            Err(ErrorKind::ConnectionReset), // The client has left with bytes unread.
        );
    }

    /// The socket has the time-out of an earlier read, which is set again only where it is much too long or too short.
    #[test]
    fn a_read_ends_at_its_deadline_whatever_the_time_out_was() {
        let check = |timeout: u64, deadline: u64| {
            let (timeout, deadline) = (
                Duration::from_millis(timeout),
                Duration::from_millis(deadline),
            );
            let (_client, connected) = pair();
            connected.stream.set_read_timeout(Some(timeout)).unwrap();
            let mut reader = DeadlineReader::new(connected, Vec::new());
            reader.set_deadline(deadline, 0);
            reader.timeout = timeout;
            let until = reader.deadline;
            let error = reader.read(&mut [0; 100]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let now = Instant::now();
            assert!((until..until + Duration::from_secs(60)).contains(&now));
        };
        check(40, 60); // Too short by less than half: one more round.
        check(10, 60); // Too short by more than half.
        check(60, 60); // Right.
        check(100_000, 60); // Too long.
    }

    /// A socket of a server, and its client.
    fn accepted() -> (TcpStream, Socket, Arc<Connections>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let connections = Connections::new(Config::default(), Arc::new(|_| ()));
        let socket = Socket::new(&connections, stream, peer);
        (client, socket, connections)
    }

    #[test]
    fn a_client_may_send_so_much_on_its_stream_and_no_more() {
        let (mut client, mut socket, _) = accepted();
        socket.start_stream().unwrap();
        let give_up = Instant::now() + Duration::from_secs(60);
        for bytes in [MAX_STRAY_BYTES - 1, 1] {
            client.write_all(&vec![b'x'; bytes]).unwrap();
            let expected = socket.stray_bytes + bytes;
            while socket.stray_bytes < expected {
                assert!(!socket.peer_left(), "{} bytes", socket.stray_bytes);
                assert!(Instant::now() < give_up);
                thread::yield_now();
            }
        }
        client.write_all(b"x").unwrap();
        while !socket.peer_left() {
            assert!(Instant::now() < give_up);
            thread::yield_now();
        }
    }

    #[test]
    fn a_connection_that_is_to_end_does_not_wait_for_a_request() {
        let check = |is_chosen: bool, is_closing: bool, stays: bool| {
            let (_client, mut socket, connections) = accepted();
            assert!(socket.is_new());
            assert!(!connections.evict_idle(), "it waits for its first request");
            socket.end_idle();
            assert!(!socket.is_new());
            assert!(socket.start_idle());
            assert_eq!(is_chosen && connections.evict_idle(), is_chosen);
            if is_closing {
                connections.close();
            }
            // A request has come at the same moment.
            socket.end_idle();
            assert_eq!((socket.may_stay(), socket.start_idle()), (stays, stays));
        };
        check(false, false, true);
        check(true, false, false); // It gives way to another one, after this request.
        check(false, true, false); // The server shuts down.
        check(true, true, false);
    }
}
