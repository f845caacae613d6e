//! A receiver of events as a response: the one loop of events and heartbeats
//! ([WHATWG HTML, server-sent events](https://html.spec.whatwg.org/multipage/server-sent-events.html)).

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use crate::event::{Event, InvalidField};
use crate::http::{Coding, IntoResponse, Response, Stream, StreamHead};
use crate::random::jitter;
use crate::socket::{Socket, from_now};
use crate::threads;

/// How often a stream looks whether its client has left or the server is closing.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// How soon a stream with a thread of its own looks for the first time, then after twice as long each: visitors who
/// leave at once do not hold a thread for a second.
const FIRST_LOOK: Duration = Duration::from_millis(16);

/// Most bytes of waiting events that go into one write.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// Most events that wait between a producer of [`Sse::spawn`] and its stream.
const SPAWN_QUEUE_EVENTS: usize = 64;

/// An event stream as the answer to a request: `200` with `Content-Type: text/event-stream`, each event a chunk of its
/// own, until the sender is dropped or the client leaves.
///
/// An `EventSource` comes back after the end, and the handler is asked again: have the page close it at a last event, or
/// answer `Response::new(204)`, which stops it.
///
/// The stream keeps its connection's thread. When the client closes, the receiver is dropped within about a second, so
/// that the producer's next send fails.
///
/// ```
/// use std::{thread, time::Duration};
/// use tiny_sse::{Event, Response, Sse};
///
/// let countdown = Sse::spawn(|events| {
///     for number in (0..10).rev() {
///         if events.send(Event::data(number.to_string())).is_err() {
///             return; // The client has left.
///         }
///         thread::sleep(Duration::from_secs(1));
///     }
/// });
/// let response: Response = countdown.retry(Duration::from_secs(3)).into();
/// # assert_eq!(response.header_value("content-type"), Some("text/event-stream"));
/// ```
pub struct Sse {
    start: Start,
    last: Option<Event>,
    options: StreamOptions,
}

/// Where the events come from, begun when the head is about to be written.
type Start = Box<dyn FnOnce() -> io::Result<Receiver<Event>> + Send>;

impl Sse {
    /// Streams what comes out of a channel, bounded or not; a bounded one makes the producer wait for a slow client.
    pub fn new(receiver: Receiver<Event>) -> Sse {
        Sse::starting(Box::new(|| Ok(receiver)))
    }

    /// Starts a producer on a thread of its own and streams what it sends. It starts when the head is about to be
    /// written: never for a HEAD request, or for one that a middleware refuses. At most 64 events wait, then a send
    /// blocks. If the thread cannot be started, the client gets a `retry` and the end, and the error hook the reason.
    pub fn spawn(producer: impl FnOnce(SyncSender<Event>) + Send + 'static) -> Sse {
        Sse::starting(Box::new(|| {
            let (sender, receiver) = mpsc::sync_channel(SPAWN_QUEUE_EVENTS);
            threads::spawn("sse-producer", None, Box::new(|| producer(sender)))?;
            Ok(receiver)
        }))
    }

    fn starting(start: Start) -> Sse {
        Sse {
            start,
            last: None,
            options: StreamOptions::default(),
        }
    }

    /// Sets the heartbeat, which otherwise comes as [`Config::heartbeat`](crate::Config::heartbeat) says.
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Sse {
        self.options.keep_alive = Some(keep_alive);
        self
    }

    /// Tells the client how long to wait before it reconnects, by a `retry` field in front of all events.
    pub fn retry(mut self, time: Duration) -> Sse {
        self.options.retry = Some(time);
        self
    }

    /// Sends these events first, in one write with the head.
    pub fn first(mut self, events: impl IntoIterator<Item = Event>) -> Sse {
        self.options.first.extend(events);
        self
    }

    /// Sends this event when the channel is closed, before the stream ends: also when the producer gives up or panics. What
    /// is to say that all went well, the producer sends itself.
    pub fn last(mut self, event: Event) -> Sse {
        self.last = Some(event);
        self
    }

    /// Adds a response field, as [`Response::header`] does, when all else has been said.
    pub fn header(self, name: &str, value: impl AsRef<str>) -> Response {
        Response::from(self).header(name, value)
    }

    fn stream(self, head: StreamHead, mut socket: Socket) -> io::Result<()> {
        let coding = head.coding;
        socket.start_stream()?;
        let mut out = head.bytes;
        let keep_alive = self.options.begin(&socket, coding, &mut out);
        let receiver = match (self.start)() {
            Ok(receiver) => receiver,
            Err(error) => {
                socket.report(&format!(
                    "an event stream's producer could not start: {error}"
                ));
                let last = Some(come_back(&socket));
                return end_with(&mut socket, &mut out, coding, last);
            }
        };
        socket.write_all(&out)?;
        out = Vec::new();

        let ends_at = ends_at(&socket);
        let mut pause = FIRST_LOOK;
        let mut look_at = Instant::now() + pause;
        let mut heartbeat_at = from_now(keep_alive.interval);
        let last = loop {
            let now = Instant::now();
            if now >= look_at {
                if socket.peer_left() {
                    return Ok(());
                }
                if socket.is_closing() || ends_at.is_some_and(|end| now >= end) {
                    break Some(come_back(&socket));
                }
                pause = LOOK.min(pause * 2);
                look_at = now + pause;
            }
            if now >= heartbeat_at {
                keep_alive.append(coding, &mut out);
            } else {
                match receiver.recv_timeout(look_at.min(heartbeat_at) - now) {
                    Ok(event) => append_waiting(event, &receiver, coding, &mut out),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => break self.last,
                }
            }
            socket.write_all(&out)?;
            // Give back what a flood took, keep what the next event needs.
            out.clear();
            out.shrink_to(1024);
            heartbeat_at = from_now(keep_alive.interval);
        };
        end_with(&mut socket, &mut out, coding, last)
    }
}

impl fmt::Debug for Sse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sse")
            .field("last", &self.last)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What a client is told whose name or id for an event is refused, by `?` in a handler: 400.
impl From<InvalidField> for Response {
    fn from(error: InvalidField) -> Response {
        Response::malformed(error)
    }
}

impl IntoResponse for Sse {
    fn into_response(self) -> Response {
        self.into()
    }
}

impl From<Sse> for Response {
    fn from(sse: Sse) -> Response {
        event_stream(Box::new(|head, socket| {
            // An error here means that the client has left, which is its right.
            let _ = sse.stream(head, socket);
        }))
    }
}

/// The heartbeat of a stream: what is sent when it has been silent for so long, so that proxies keep the connection
/// open and both sides notice when the other is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    pub(crate) interval: Duration,
    text: Cow<'static, str>,
}

impl KeepAlive {
    /// A comment, `: heartbeat`, after each such time of silence. An `EventSource` does not show it to the page.
    pub fn every(interval: Duration) -> KeepAlive {
        // None at all is a loop without a pause.
        KeepAlive {
            interval: interval.max(Duration::from_millis(1)),
            // No blank line behind it: some parsers would dispatch an empty event.
            text: ": heartbeat\n".into(),
        }
    }

    /// An event of this name in place of the comment, with empty data and no id, for a page that wants to see it.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] when the name contains a line break.
    pub fn event(mut self, name: impl AsRef<str>) -> Result<KeepAlive, InvalidField> {
        self.text = Event::data("").event(name)?.to_string().into();
        Ok(self)
    }

    pub(crate) fn append(&self, coding: Coding, out: &mut Vec<u8>) {
        append_text(&self.text, coding, out);
    }
}

/// What every event stream can be told, whoever feeds it.
#[derive(Debug, Default)]
pub(crate) struct StreamOptions {
    pub(crate) keep_alive: Option<KeepAlive>,
    pub(crate) retry: Option<Duration>,
    pub(crate) first: Vec<Event>,
}

impl StreamOptions {
    /// Appends what goes with the head: a first comment, since some clients do not see a response before its first body
    /// byte, and what was asked for. Returns the heartbeat of what follows.
    pub(crate) fn begin(self, socket: &Socket, coding: Coding, out: &mut Vec<u8>) -> KeepAlive {
        append_text(": connected\n", coding, out);
        if let Some(time) = self.retry {
            append_event(&Event::new().retry(time), coding, out);
        }
        for event in &self.first {
            append_event(event, coding, out);
        }
        let usual = || KeepAlive::every(socket.config().heartbeat);
        self.keep_alive.unwrap_or_else(usual)
    }
}

/// The response whose body is an event stream.
pub(crate) fn event_stream(stream: Stream) -> Response {
    // nginx would collect the events without the last.
    const FIELDS: &str = "Content-Type: text/event-stream\r\n\
        Cache-Control: no-cache, no-transform\r\n\
        X-Accel-Buffering: no\r\n";
    Response::stream(FIELDS, stream)
}

pub(crate) fn append_event(event: &Event, coding: Coding, out: &mut Vec<u8>) {
    coding.append(out, &[event.lines(), b"\n"]);
}

pub(crate) fn append_text(text: &str, coding: Coding, out: &mut Vec<u8>) {
    coding.append(out, &[text.as_bytes()]);
}

/// Appends an event and those that wait behind it, so that a flood leaves in large writes.
fn append_waiting(first: Event, receiver: &Receiver<Event>, coding: Coding, out: &mut Vec<u8>) {
    append_event(&first, coding, out);
    while out.len() < MAX_WRITE_BYTES
        && let Ok(event) = receiver.try_recv()
    {
        append_event(&event, coding, out);
    }
}

/// A `retry` alone, which spreads the reconnects of streams that end together.
pub(crate) fn come_back(socket: &Socket) -> Event {
    let spread = socket.config().reconnect_spread;
    Event::new().retry(Duration::from_millis(500) + jitter(spread))
}

/// When a stream has lived long enough.
pub(crate) fn ends_at(socket: &Socket) -> Option<Instant> {
    let lifetime = socket.config().max_stream_lifetime?;
    Some(from_now(lifetime - jitter(lifetime / 10)))
}

/// Ends a stream cleanly, behind what `out` holds already.
fn end_with(
    socket: &mut Socket,
    out: &mut Vec<u8>,
    coding: Coding,
    event: Option<Event>,
) -> io::Result<()> {
    if let Some(event) = event {
        append_event(&event, coding, out);
    }
    coding.append_end(out);
    socket.write_all(out)?;
    socket.finish_stream();
    Ok(())
}
