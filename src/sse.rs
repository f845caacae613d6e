//! A receiver of events as the source of an event stream.

use std::any::Any;
use std::fmt;
use std::io;
use std::mem;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use crate::event::{Event, InvalidField};
use crate::http::{Coding, IntoResponse, Response, StreamHead};
use crate::socket::Socket;
use crate::stream::{
    EventStream, Source, StreamOptions, Supply, Unsent, append_event, event_stream,
};
use crate::threads::{self, USER_STACK_BYTES};
use crate::user_code::guarded;

/// Maximum bytes of waiting events that go into one write. More bytes would not leave sooner, and would take memory.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// Maximum number of events that wait between a producer of [`Sse::spawn`] and its stream.
const SPAWN_QUEUE_EVENTS: usize = 64;

/// A response that streams the events of a channel to one client: `200` with `Content-Type: text/event-stream`.
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
/// # assert_eq!(response.header("content-type"), Some("text/event-stream"));
/// ```
///
/// The stream keeps its connection's thread, and ends in one of three ways:
///
/// - *The sender is dropped.* The stream is complete: it ends with the last chunk, and the connection goes on with the
///   client's next request. An `EventSource` comes back after the end, and the handler is called again. Have the page close it
///   at a last event, or respond with `Response::new(204)`, which stops it.
/// - *The client leaves.* This is noticed within about a second. The receiver is dropped then, so the producer's next send
///   fails. A producer that computes for longer can ask, with a [`guard`](Sse::guard).
/// - *The server ends the stream*, at [`ServerHandle::shutdown`](crate::ServerHandle::shutdown) or
///   [`Config::max_stream_lifetime`](crate::Config::max_stream_lifetime). It ends with a `retry` field and without the last
///   chunk, so the client can tell that it is not complete.
#[must_use = "a stream does nothing until it is returned as a response"]
pub struct Sse {
    producer: Producer,
    last: Option<Event>,
    guards: Vec<Box<dyn Any + Send>>,
    options: StreamOptions,
}

/// Starts the thread of the producer, where there is one, and returns the receiver of its events.
type Producer = Box<dyn FnOnce() -> io::Result<Receiver<Event>> + Send>;

impl Sse {
    /// Streams the events of a channel. If the channel is bounded, the producer waits for a slow client; else events pile up in
    /// memory.
    pub fn new(receiver: Receiver<Event>) -> Sse {
        Sse::from_producer(Box::new(|| Ok(receiver)))
    }

    /// Starts a producer on a new thread and streams the events that it sends.
    ///
    /// The thread has a stack of 2 MiB. It starts just before the head is written. So none starts for a HEAD request, or for a
    /// request that a middleware refuses. A send waits while 64 events have not been written. If the thread cannot be started,
    /// the client gets a `retry` and the end of the stream, and the error hook gets the reason.
    pub fn spawn(producer: impl FnOnce(SyncSender<Event>) + Send + 'static) -> Sse {
        Sse::from_producer(Box::new(|| {
            let (sender, receiver) = mpsc::sync_channel(SPAWN_QUEUE_EVENTS);
            let run = Box::new(|| producer(sender));
            threads::spawn("sse-producer", USER_STACK_BYTES, run)?;
            Ok(receiver)
        }))
    }

    /// Makes a stream with the default settings.
    fn from_producer(producer: Producer) -> Sse {
        Sse {
            producer,
            last: None,
            guards: Vec::new(),
            options: StreamOptions::default(),
        }
    }

    /// Sets the silence after which a heartbeat is sent, in place of [`Config::heartbeat`](crate::Config::heartbeat). It is the
    /// comment `: heartbeat`, which keeps proxies from closing the connection. An `EventSource` does not show it to the page.
    pub fn heartbeat(mut self, interval: Duration) -> Sse {
        self.options.heartbeat = Some(interval);
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

    /// Sends this event at the end, after the sender was dropped. A producer that gives up or panics drops its sender too, so
    /// this event does not say that all went well. To say so, have the producer send an event of its own.
    pub fn last(mut self, event: Event) -> Sse {
        self.last = Some(event);
        self
    }

    /// Lets the stream go on during a shutdown, until the shutdown's deadline. Other streams are ended within a second. This is
    /// for a stream that soon ends by itself, such as the answer of a language model.
    pub fn finish_within_deadline(mut self) -> Sse {
        self.options.is_finite = true;
        self
    }

    /// Keeps a value while the stream is open. The value is dropped within about a second after the client has left, even if
    /// the producer sends nothing. Where there is no stream, such as for a HEAD, it is dropped with the `Sse`.
    ///
    /// With one end of a channel as the value, the producer learns from the other end that its client has left:
    ///
    /// ```
    /// use std::sync::mpsc::{self, RecvTimeoutError};
    /// use std::time::Duration;
    /// use tiny_sse::{Event, Sse};
    ///
    /// let (is_open, client) = mpsc::channel::<()>();
    /// let sse = Sse::spawn(move |events| {
    ///     for step in 0..100 {
    ///         // Waits a second, or less if the client leaves; `try_recv` asks without waiting.
    ///         let waited = client.recv_timeout(Duration::from_secs(1));
    ///         if waited == Err(RecvTimeoutError::Disconnected) {
    ///             return;
    ///         }
    ///         let _ = events.send(Event::data(format!("step {step}")));
    ///     }
    /// })
    /// .guard(is_open);
    /// ```
    pub fn guard(mut self, value: impl Send + 'static) -> Sse {
        self.guards.push(Box::new(value));
        self
    }

    /// Sets a field of the response, as [`Response::with_header`] does.
    pub fn with_header(mut self, name: &str, value: impl AsRef<str>) -> Sse {
        let value = value.as_ref().to_string();
        self.options.fields.push((name.to_string(), value));
        self
    }

    /// Serves the stream on this thread. Gives the socket back where the connection goes on with another request.
    fn serve(self, head: StreamHead, socket: Socket) -> Option<Socket> {
        let receiver = (self.producer)().inspect_err(|error| {
            let problem = format!("the producer of an event stream could not start: {error}");
            socket.report(&problem);
        });
        let source = Events {
            receiver: receiver.ok(),
            last: self.last,
            bytes: Vec::new(),
        };
        let serve = || {
            let mut stream = EventStream::begin(source, head, self.options, socket).ok()?;
            // An error means that the client has left or takes too little.
            stream.serve().ok()?;
            stream.keeps_connection().then_some(stream.socket)
        };
        let kept = serve();
        for value in self.guards {
            guarded(|| drop(value));
        }
        kept
    }
}

/// The events of a channel. Its receiver is dropped with it, so that the producer's next send fails.
struct Events {
    /// `None` where the producer could not start.
    receiver: Option<Receiver<Event>>,
    last: Option<Event>,
    bytes: Vec<u8>,
}

impl Source for Events {
    fn send(&mut self, socket: &Socket, coding: Coding, wait: Duration) -> io::Result<Supply> {
        let Some(receiver) = &self.receiver else {
            return Ok(Supply::ComeBack);
        };
        match receiver.recv_timeout(wait) {
            Ok(event) => append_event(&event, coding, &mut self.bytes),
            Err(RecvTimeoutError::Timeout) => return Ok(Supply::Nothing),
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(event) = &self.last {
                    append_event(event, coding, &mut self.bytes);
                }
                return Ok(Supply::End(mem::take(&mut self.bytes)));
            }
        }
        // The events that wait go into the same write.
        while self.bytes.len() < MAX_WRITE_BYTES
            && let Ok(event) = receiver.try_recv()
        {
            append_event(&event, coding, &mut self.bytes);
        }
        let written = socket.try_write(&self.bytes)?;
        let is_partial = written < self.bytes.len();
        let unsent = is_partial.then(|| Unsent::own(self.bytes.split_off(written)));
        // Frees what a flood took, and keeps what the next event needs.
        self.bytes.clear();
        self.bytes.shrink_to(1024);
        Ok(Supply::Sent(written, unsent))
    }
}

impl fmt::Debug for Sse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sse").finish_non_exhaustive()
    }
}

/// The refusal of an event's name or id, for `?` in a handler: 400.
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
    fn from(mut sse: Sse) -> Response {
        let fields = mem::take(&mut sse.options.fields);
        event_stream(Box::new(|head, socket| sse.serve(head, socket))).with_fields(fields)
    }
}
