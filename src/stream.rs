//! The one loop of an event stream: it sends what its source has, heartbeats in between, and the end of the stream ([WHATWG
//! HTML, server-sent events](https://html.spec.whatwg.org/multipage/server-sent-events.html)).
//!
//! The loop never holds up a thread by itself: [`run`](EventStream::run) keeps what a full socket did not take and can go on
//! later, on any thread. A stream with a thread of its own calls it by [`serve`](EventStream::serve).
//!
//! ```text
//! bytes                                  sent because
//! HTTP/1.1 200 OK ...                    the stream begins: this, the next two and the options' events are one write
//! : connected\n
//! retry: 3000\n                          the options have a reconnection time
//! id: 7\ndata: hello\n\n                 the source has an event
//! : heartbeat\n                          nothing was sent for the heartbeat interval
//! retry: 2875\n                          the stream ends before its source, as at shutdown
//! 0\r\n\r\n                              the stream is complete, or a client that comes back gets the rest
//! ```
//!
//! Each of these but the head and the last is a chunk, where the client speaks HTTP/1.1.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::http::{Coding, Response, Stream, StreamHead};
use crate::random::jitter;
use crate::socket::{FAR, Pace, Socket, from_now};

/// How often a stream with a thread of its own checks whether its client has left or the server is closing.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// When such a stream checks for the first time. Each later pause is twice as long, up to a second: the checks are after 16, 48
/// and 112 ms, and in the end once a second. So a visitor who leaves at once does not hold a thread for a second.
const FIRST_CHECK: Duration = Duration::from_millis(16);

/// The heartbeat: a comment, without a blank line, at which some parsers would dispatch an empty event.
const HEARTBEAT: &[u8] = b": heartbeat\n";

/// Where the events of a stream come from.
pub(crate) trait Source {
    /// Writes what comes next to the socket, waiting at most `wait` for it.
    ///
    /// # Errors
    ///
    /// When the connection fails, or the stream is to be cut off for what it did not take.
    fn send(&mut self, socket: &Socket, coding: Coding, wait: Duration) -> io::Result<Supply>;

    /// Notes that the server ends the stream and tells its client to come back. Returns whether a client that comes back gets
    /// all that it missed. Otherwise the stream has no last chunk, so that it does not look complete.
    fn end_early(&mut self) -> bool {
        false
    }
}

/// What a source had to send.
#[derive(Debug)]
pub(crate) enum Supply {
    /// This many bytes were written, and the unsent ones must be sent before anything else.
    Sent(usize, Option<Unsent>),
    /// Nothing for now.
    Nothing,
    /// Nothing more will come: the stream is complete, and ends with these bytes.
    End(Vec<u8>),
    /// Nothing more will come from this source: the stream ends at once, and the client is told to come back.
    ComeBack,
}

/// Bytes that must be sent before anything else: the rest of an event after a partial write, or the head of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsent {
    /// The bytes of an event are one allocation for all streams that send it.
    bytes: Arc<[u8]>,
    /// The part of the bytes that this stream has not sent yet. Only its start moves.
    rest: Range<usize>,
}

impl Unsent {
    /// Shares bytes, of which this range is left to send.
    pub(crate) fn new(bytes: Arc<[u8]>, rest: Range<usize>) -> Unsent {
        Unsent { bytes, rest }
    }

    /// Takes bytes that no other stream sends.
    pub(crate) fn own(bytes: Vec<u8>) -> Unsent {
        let all = 0..bytes.len();
        Unsent::new(bytes.into(), all)
    }

    /// Returns what is left to send.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.rest.clone()]
    }

    /// Notes that `n` more bytes were written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.rest.start += n;
    }
}

/// How a stream stands after it was served for a while, or checked.
///
/// ```text
///           the source has nothing more
///        ┌──────────────────────────────▶
/// Behind ◀────────────────────────────── AtHead
///    │      a partial write, or the end    │
///    └───────────────▶ Over ◀──────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The source had nothing more.
    AtHead,
    /// Something is to be sent that has to wait, or the stream is to end.
    Behind,
    /// The stream has ended, or the client has left.
    Over,
}

/// A socket and the source of its events; owned by one thread at a time. What is `unsent` goes out before anything else, so that
/// no heartbeat and no last chunk stands inside an event.
pub(crate) struct EventStream<S> {
    pub(crate) source: S,
    /// Non-blocking from [`begin`](EventStream::begin) to the end of the stream.
    pub(crate) socket: Socket,
    coding: Coding,
    /// The silence after which a heartbeat is sent.
    pub(crate) heartbeat: Duration,
    /// `None` when all was sent.
    pub(crate) unsent: Option<Unsent>,
    /// The unsent bytes are the end of the stream.
    is_ending: bool,
    /// The source ends by itself, so that shutdown lets it go on until the deadline.
    is_finite: bool,
    /// The progress of a client that is behind; `None` for one that is not. Boxed, as most streams have none.
    pace: Option<Box<Pace>>,
    /// When the last byte left, or the stream began. The heartbeat interval counts from here.
    pub(crate) last_sent: Instant,
    /// When to check whether the client has left, and how long the pause before this check is.
    next_check: Instant,
    check_pause: Duration,
    /// The end of the stream's lifetime, where it has one.
    ends_at: Option<Instant>,
}

impl<S: Source> EventStream<S> {
    /// Begins a stream with the response's head and what the options put in front of all events. The stream is boxed: the stack
    /// of its thread would have several copies of it, which would touch one more page for as long as the stream is open.
    ///
    /// # Errors
    ///
    /// When the connection has failed meanwhile.
    pub(crate) fn begin(
        source: S,
        head: StreamHead,
        options: StreamOptions,
        mut socket: Socket,
    ) -> io::Result<Box<EventStream<S>>> {
        socket.start_stream()?;
        let (coding, mut opening) = (head.coding, head.bytes);
        // A comment, since some clients do not see a response before its first body byte.
        coding.append(&mut opening, &[b": connected\n"]);
        if let Some(time) = options.retry {
            append_retry(time, coding, &mut opening);
        }
        for event in &options.first {
            append_event(event, coding, &mut opening);
        }
        let heartbeat = options.heartbeat.unwrap_or(socket.config().heartbeat);
        let lifetime = socket.config().max_stream_lifetime;
        let now = Instant::now();
        Ok(Box::new(EventStream {
            source,
            // An interval of zero would be a loop without a pause.
            heartbeat: heartbeat.clamp(Duration::from_millis(1), FAR),
            ends_at: lifetime.map(|lifetime| from_now(lifetime - jitter(lifetime / 10))),
            socket,
            coding,
            unsent: Some(Unsent::own(opening)),
            is_ending: false,
            is_finite: options.is_finite,
            pace: None,
            last_sent: now,
            next_check: now + FIRST_CHECK,
            check_pause: FIRST_CHECK,
        }))
    }

    /// Returns whether the events are chunks, which are the same bytes for all streams.
    pub(crate) fn is_chunked(&self) -> bool {
        self.coding == Coding::Chunked
    }

    /// Serves the stream on this thread until it ends.
    ///
    /// # Errors
    ///
    /// When the connection fails; `TimedOut` when the client takes nothing, or too little, for too long.
    pub(crate) fn serve(&mut self) -> io::Result<()> {
        loop {
            if self.run(self.next_check, None)? == State::Over
                || self.check(Instant::now(), self.last_sent, CHECK_INTERVAL) == State::Over
            {
                return Ok(());
            }
        }
    }

    /// Sends what there is until `until`. On a thread that others wait for, `patience` says how long the client may take nothing
    /// before the stream gives way. Without `patience`, the thread is the stream's own, and waits for more until `until` or the
    /// next heartbeat.
    ///
    /// # Errors
    ///
    /// As [`serve`](EventStream::serve).
    pub(crate) fn run(
        &mut self,
        until: Instant,
        patience: Option<&dyn Fn() -> Duration>,
    ) -> io::Result<State> {
        loop {
            let remaining = until.saturating_duration_since(Instant::now());
            if let Some(unsent) = self.unsent.take() {
                let wait = patience.map_or(remaining, |patience| remaining.min(patience()));
                if !self.send_unsent(unsent, wait)? || remaining.is_zero() {
                    return Ok(State::Behind);
                }
                continue;
            }
            if self.is_ending {
                self.socket.finish_stream()?;
                return Ok(State::Over);
            }
            if remaining.is_zero() {
                return Ok(State::Behind);
            }
            if self.is_over() {
                self.send_away();
                continue;
            }
            let heartbeat_at = self.last_sent + self.heartbeat;
            let wait = match patience {
                None => (until.min(heartbeat_at)).saturating_duration_since(Instant::now()),
                Some(_) => Duration::ZERO,
            };
            match (self.source).send(&self.socket, self.coding, wait)? {
                // The source found nothing to send, and the client has taken all that was sent.
                Supply::Sent(0, None) => self.pace = None,
                Supply::Sent(written, unsent) => {
                    self.unsent = unsent;
                    self.note_written(written)?;
                }
                Supply::Nothing => {
                    self.pace = None;
                    return Ok(State::AtHead);
                }
                Supply::End(last) => self.end(last, true),
                Supply::ComeBack => self.send_away(),
            }
        }
    }

    /// Writes what the socket takes of the unsent bytes, waiting at most `wait` for the first of them. Returns false when the
    /// socket took none.
    fn send_unsent(&mut self, mut unsent: Unsent, wait: Duration) -> io::Result<bool> {
        let mut written = self.socket.try_write(unsent.rest())?;
        if written == 0 && !unsent.rest().is_empty() {
            let pace = (self.pace).get_or_insert_with(|| Box::new(Pace::new()));
            let allowed = pace.record_progress(0, self.socket.config())?;
            written = (self.socket).write_waiting(unsent.rest(), wait.min(allowed))?;
        }
        unsent.advance(written);
        self.unsent = Some(unsent).filter(|unsent| !unsent.rest().is_empty());
        self.note_written(written)?;
        Ok(written > 0 || self.unsent.is_none())
    }

    /// Notes that `written` bytes were written just now: the next heartbeat is put off, and the pace is checked.
    fn note_written(&mut self, written: usize) -> io::Result<()> {
        if written > 0 {
            self.last_sent = Instant::now();
        }
        if let Some(pace) = &mut self.pace {
            pace.record_progress(written, self.socket.config())?;
        }
        Ok(())
    }

    /// Returns whether the stream's lifetime has passed, its connection gives way to another one, or the server is closing and
    /// does not wait for this stream.
    pub(crate) fn is_over(&self) -> bool {
        (self.socket.is_closing() && !self.is_finite)
            || self.socket.gives_way
            || self.ends_at.is_some_and(|end| Instant::now() >= end)
    }

    /// Returns whether the stream has ended and its connection goes on with another request.
    pub(crate) fn keeps_connection(&self) -> bool {
        self.is_ending && self.unsent.is_none() && self.socket.keep_alive
    }

    /// Has the stream end after what was sent, and tells its client to come back.
    fn send_away(&mut self) {
        let is_resumable = self.source.end_early();
        // Reconnects of streams that end together are spread.
        let spread = jitter(self.socket.config().reconnect_spread);
        let mut out = Vec::new();
        append_retry(Duration::from_millis(500) + spread, self.coding, &mut out);
        self.end(out, is_resumable);
    }

    /// Has the stream end with these bytes, after what was sent.
    fn end(&mut self, mut out: Vec<u8>, is_whole: bool) {
        match is_whole {
            true => self.coding.append_end(&mut out),
            // The end of the connection is the only end that the client gets.
            false => self.socket.keep_alive = false,
        }
        self.unsent = Some(Unsent::own(out));
        self.is_ending = true;
    }

    /// Sends a heartbeat where nothing was sent for the heartbeat interval, by this stream or, at `last_sent`, by the caller. Then
    /// checks whether the client has left, where a check is due. Each pause between two checks is twice the one before, at most
    /// `max_pause`.
    pub(crate) fn check(&mut self, now: Instant, last_sent: Instant, max_pause: Duration) -> State {
        let may_send = self.unsent.is_none() && !self.is_ending;
        if may_send && now >= last_sent.max(self.last_sent) + self.heartbeat {
            let mut out = Vec::new();
            self.coding.append(&mut out, &[HEARTBEAT]);
            let Ok(written) = self.socket.try_write(&out) else {
                return State::Over;
            };
            self.last_sent = now;
            if written < out.len() {
                self.unsent = Some(Unsent::own(out.split_off(written)));
            }
        }
        if self.next_check <= now {
            self.check_pause = max_pause.min(self.check_pause * 2);
            self.next_check = now + self.check_pause;
            if self.socket.peer_left() {
                return State::Over;
            }
        }
        match self.unsent {
            Some(_) => State::Behind,
            None => State::AtHead,
        }
    }

    /// Makes the next check due now, since many visitors leave at once. The pause after this check is twice `pause`, at most
    /// `max_pause`.
    pub(crate) fn check_soon(&mut self, pause: Duration) {
        self.next_check = Instant::now();
        self.check_pause = pause;
    }
}

/// The settings that every event stream has, whatever its source.
#[derive(Debug, Default)]
pub(crate) struct StreamOptions {
    /// The silence after which a heartbeat is sent; `None` for the server's.
    pub(crate) heartbeat: Option<Duration>,
    /// The reconnection time that the client is told at the beginning; `None` leaves the choice to the client.
    pub(crate) retry: Option<Duration>,
    /// Events that this client gets before those of the source.
    pub(crate) first: Vec<Event>,
    /// The source ends by itself, so that shutdown lets the stream go on until the deadline.
    pub(crate) is_finite: bool,
    /// Fields of the response.
    pub(crate) fields: Vec<(String, String)>,
}

/// Returns the response whose body is an event stream.
pub(crate) fn event_stream(stream: Stream) -> Response {
    // Without `X-Accel-Buffering`, nginx would hold the events back.
    const FIELDS: &str = "Content-Type: text/event-stream\r\n\
        Cache-Control: no-cache, no-transform\r\n\
        X-Accel-Buffering: no\r\n";
    Response::stream(FIELDS, stream)
}

/// Appends an event and its blank line, as one chunk.
pub(crate) fn append_event(event: &Event, coding: Coding, out: &mut Vec<u8>) {
    coding.append(out, &[event.lines(), b"\n"]);
}

/// Appends a `retry` field without the blank line of a block of its own, which common clients take for a message without
/// data. A browser applies the field at its line end.
fn append_retry(time: Duration, coding: Coding, out: &mut Vec<u8>) {
    coding.append(out, &[Event::new().retry(time).lines()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::connections::{BUSY, Connections};
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::Ordering;

    const SECOND: Duration = Duration::from_secs(1);

    /// Has nothing to send, and notes how long it may wait for something.
    struct Silent(Option<Duration>);

    impl Source for Silent {
        fn send(&mut self, _: &Socket, _: Coding, wait: Duration) -> io::Result<Supply> {
            self.0 = Some(wait);
            Ok(Supply::Nothing)
        }
    }

    /// A stream that has sent nothing yet, and its client.
    fn begin() -> (TcpStream, Box<EventStream<Silent>>) {
        begin_with(Config::default(), Silent(None))
    }

    fn begin_with<S: Source>(config: Config, source: S) -> (TcpStream, Box<EventStream<S>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(60 * SECOND)).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let connections = Connections::new(config, Arc::new(|_| ()));
        let socket = Socket::new(&connections, stream, peer);
        let (bytes, coding) = (b"head ".to_vec(), Coding::CloseDelimited);
        let options = StreamOptions {
            heartbeat: Some(1000 * SECOND),
            ..StreamOptions::default()
        };
        let head = StreamHead { bytes, coding };
        let stream = EventStream::begin(source, head, options, socket);
        (client, stream.unwrap())
    }

    fn read(client: &mut TcpStream, bytes: usize) -> String {
        let mut read = vec![0; bytes];
        client.read_exact(&mut read).unwrap();
        String::from_utf8(read).unwrap()
    }

    #[test]
    fn no_heartbeat_stands_inside_an_event_or_after_the_end() {
        let (mut client, mut stream) = begin();
        let much_later = Instant::now() + 2000 * SECOND;
        let check = |stream: &mut EventStream<Silent>| {
            stream.check(much_later, stream.last_sent, 60 * SECOND)
        };
        assert_eq!(check(&mut stream), State::Behind); // The opening has not been sent.
        stream.run(much_later, None).unwrap();
        assert_eq!(read(&mut client, 17), "head : connected\n");
        assert_eq!(check(&mut stream), State::AtHead); // Now a heartbeat is due.
        assert_eq!(read(&mut client, 12), ": heartbeat\n");
        stream.last_sent = Instant::now();
        stream.end(b"end".to_vec(), true);
        assert_eq!(check(&mut stream), State::Behind); // The end has not been sent.
        let end = stream.unsent.take();
        check(&mut stream); // It has, and the connection goes on.
        stream.unsent = end;
        stream.run(much_later, None).unwrap();
        assert_eq!(read(&mut client, 3), "end");
    }

    #[test]
    fn a_stream_on_a_connection_that_gives_way_tells_its_client_to_come_back() {
        let (mut client, mut stream) = begin();
        stream.socket.connected.idle.store(BUSY, Ordering::SeqCst); // Chosen during its wait.
        stream.socket.end_idle();
        let state = stream.run(Instant::now() + 60 * SECOND, None).unwrap();
        assert_eq!(state, State::Over);
        drop(stream);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("head : connected\nretry: "), "{text:?}");
    }

    #[test]
    fn a_source_may_wait_until_the_next_heartbeat_where_nobody_waits_for_its_thread() {
        let (_client, mut stream) = begin();
        let mut check = |until: Duration, is_shared: bool, from: Duration, to: Duration| {
            let patience = || SECOND;
            let patience: Option<&dyn Fn() -> Duration> =
                if is_shared { Some(&patience) } else { None };
            stream.last_sent = Instant::now();
            let state = stream.run(Instant::now() + until, patience).unwrap();
            assert_eq!(state, State::AtHead);
            let wait = stream.source.0.take().unwrap();
            assert!((from..=to).contains(&wait), "{wait:?}");
        };
        check(9000 * SECOND, false, SECOND, 1000 * SECOND); // To the heartbeat.
        check(500 * SECOND, false, SECOND, 500 * SECOND); // To the end of its time.
        check(9000 * SECOND, true, Duration::ZERO, Duration::ZERO); // Others wait.
    }

    /// A reader of a rare topic, whose source looks through many events of other topics.
    #[test]
    fn a_client_is_not_slow_while_there_is_nothing_to_take() {
        struct Skips(u32);
        impl Source for Skips {
            fn send(&mut self, _: &Socket, _: Coding, _: Duration) -> io::Result<Supply> {
                self.0 -= 1;
                Ok(match self.0 {
                    0 => Supply::Nothing,
                    _ => Supply::Sent(0, None),
                })
            }
        }
        let config = Config {
            write_timeout: Duration::from_nanos(1),
            ..Config::default()
        };
        let (_client, mut stream) = begin_with(config, Skips(10));
        stream.unsent = None;
        stream.pace = Some(Box::new(Pace::new())); // It was slow before.
        let state = stream.run(Instant::now() + 1000 * SECOND, None);
        assert_eq!(state.unwrap(), State::AtHead);
    }

    #[test]
    fn what_a_full_socket_takes_is_noted() {
        let (mut client, mut stream) = begin();
        let long_ago = Instant::now().checked_sub(SECOND).unwrap();
        let check = |stream: &mut EventStream<Silent>, bytes: usize, went: bool| {
            stream.last_sent = long_ago;
            let unsent = Unsent::own(vec![b'x'; bytes]);
            assert_eq!(stream.send_unsent(unsent, Duration::ZERO).unwrap(), went);
            let rest = stream.unsent.take().map_or(0, |unsent| unsent.rest().len());
            // The heartbeat is put off by what was sent, and by nothing else.
            assert_eq!(stream.last_sent != long_ago, rest < bytes);
            rest
        };
        assert_eq!(check(&mut stream, 0, true), 0); // There is nothing to send.
        assert_eq!(check(&mut stream, 7, true), 0); // It takes all.
        let rest = check(&mut stream, 50_000_000, true); // It takes a part.
        assert!(rest > 0);
        let mut sent = 7 + 50_000_000 - rest;
        while stream.socket.try_write(b"x").unwrap() > 0 {
            sent += 1;
        }
        assert_eq!(check(&mut stream, 7, false), 7); // It takes nothing.

        // A heartbeat that it does not take is sent later, whole.
        stream.check(Instant::now() + 2000 * SECOND, long_ago, 60 * SECOND);
        assert!(stream.unsent.is_some());
        let drain = std::thread::spawn(move || {
            assert_eq!(read(&mut client, sent), "x".repeat(sent));
            read(&mut client, 12)
        });
        let state = stream.run(Instant::now() + 2000 * SECOND, None).unwrap();
        assert_eq!(state, State::AtHead);
        assert_eq!(drain.join().unwrap(), ": heartbeat\n");
    }
}
