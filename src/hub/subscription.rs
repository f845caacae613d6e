//! A request's subscription: where its reader begins, what goes with it, and the response that it becomes.
//!
//! 1. The handler subscribes. The cursor is after the newest event now, and what is published from here on is kept for it.
//! 2. The handler returns the subscription, which becomes a response: a stream, a long-poll, or a refusal.
//! 3. The head of the stream is about to be written. The cursor moves now to where the client begins, for which the log may
//!    look up the client's id, and the reader is registered now. So a response that a middleware drops has started nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::config::Lag;
use super::cursor::{Cursor, OpeningId};
use super::fast::{Fast, Member};
use super::log::Replay;
use super::poll;
use super::registry::Reader;
use super::shared::Shared;
use super::subscriber::{OnEnd, StreamEnd, Subscriber};
use super::topics::{InvalidName, TopicSet};
use crate::event::Event;
use crate::http::{IntoResponse, Method, Request, Response, StreamHead};
use crate::socket::Socket;
use crate::stream::{EventStream, StreamOptions, event_stream};

/// A client's subscription to topics of a [`Hub`](crate::Hub), from [`Hub::subscribe`](crate::Hub::subscribe). A handler
/// returns it as its response, usually an event stream:
///
/// ```
/// use tiny_sse::{Hub, Replay, Request, Response, Server, Subscription};
///
/// fn events(hub: &Hub, request: &Request) -> Result<Subscription, Response> {
///     // A real server looks up a session.
///     let user = request.cookie("user").ok_or(Response::new(401))?;
///     let topics = [format!("user/{user}"), "news".to_string()];
///     Ok(hub.subscribe(request, topics).label(user).replay(Replay::Events(50)).retained())
/// }
///
/// let hub = Hub::new();
/// let server = Server::bind("127.0.0.1:0")?
///     .get("/events", move |request| events(&hub, request));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The response is one of these:
///
/// - **An event stream.** It goes on after the client's last event id. It begins with an [`OpeningId`], so that a client that
///   is cut off before its first event comes back to the same place.
/// - **One JSON response** (long-poll), at once if there are events, else when the next one is published. This is for any
///   method but POST, with `poll` in the query, with or without a value, or with an `Accept` field that has `application/json`
///   and neither `*/*` nor `text/event-stream`. The client's next request has `?last_event_id=` with the last id:
///
///   ```json
///   {"events":[{"id":"…","event":"message","data":"…"}],"last_event_id":"…"}
///   ```
/// - **204**, when the client comes back with the id of an event that [finished](crate::Hub::finish) all of its topics. This
///   status stops an `EventSource`.
/// - **400**, when a name cannot be a topic's.
#[must_use = "a subscription does nothing until it is returned as a response"]
pub struct Subscription {
    /// After the newest event at the time when the handler asked, until the response begins. It has the opening id and the
    /// choice of retained events from the beginning.
    cursor: Cursor,
    /// The hub's writers, where it has some.
    fast: Option<Arc<Fast>>,
    /// The stream's entry in the registry, if a stream begins.
    reader: Reader,
    /// A client without an id begins with the oldest event.
    earliest: bool,
    /// How far back a client may go.
    replay: Replay,
    /// The client's id, or one of the words `earliest` and `latest`.
    last_event_id: Option<String>,
    /// The response that is made in place of a stream or a long-poll.
    refusal: Option<Response>,
    /// How long a long-poll waits; `None` for a stream.
    poll_timeout: Option<Duration>,
    /// The server is shutting down.
    closing: Arc<AtomicBool>,
    /// When the request came.
    received: Instant,
    /// What happens when the reader is too slow.
    lag: Lag,
    /// The settings that an [`Sse`](crate::Sse) has too.
    options: StreamOptions,
    /// Called when the stream has ended. The values of guards are in such callbacks too.
    on_end: Vec<OnEnd>,
}

impl Subscription {
    /// Makes the subscription of a request's client, with the defaults of all builders.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        fast: Option<&Arc<Fast>>,
        request: &Request,
        topics: Result<TopicSet, InvalidName>,
    ) -> Subscription {
        let (topics, refusal) = match topics {
            Ok(topics) => (topics, None),
            Err(error) => (TopicSet::default(), Some(error.into())),
        };
        let poll_timeout = match request.method() {
            Method::Head => Duration::ZERO,
            _ => shared.config.poll_timeout,
        };
        let mut cursor = Cursor::new(shared, &topics);
        cursor.opening_id = OpeningId::default();
        let topics = Arc::clone(&cursor.position.topics);
        Subscription {
            cursor,
            fast: fast.cloned(),
            reader: Reader::new(topics, request.peer(), request.client_ip()),
            earliest: false,
            replay: Replay::All,
            last_event_id: request.last_event_id().map(str::to_string),
            refusal,
            poll_timeout: poll::is_wanted(request).then_some(poll_timeout),
            closing: Arc::clone(&request.closing),
            received: request.received,
            lag: Lag::default(),
            options: StreamOptions::default(),
            on_end: Vec::new(),
        }
    }

    /// Starts the stream of a client without a last event id with the oldest event that the hub keeps, instead of the first one
    /// that is published after the handler called [`Hub::subscribe`](crate::Hub::subscribe).
    pub fn earliest(mut self) -> Subscription {
        self.earliest = true;
        self
    }

    /// Sets the client's last event id, in place of [`Request::last_event_id`], for a request that has the id elsewhere. An
    /// empty id counts as no id. The word `earliest` stands for the oldest event that the hub keeps, and `latest` for the
    /// newest one.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Subscription {
        self.last_event_id = Some(id.into()).filter(|id| !id.is_empty());
        self
    }

    /// Limits how far back a client may go, whatever its id. A client that misses events by this gets a `gap` event first.
    /// Default: [`Replay::All`].
    pub fn replay(mut self, replay: Replay) -> Subscription {
        self.replay = replay;
        self
    }

    /// Sends these events first, such as a snapshot of a state whose changes the hub publishes. Take the snapshot after the
    /// call of [`Hub::subscribe`](crate::Hub::subscribe): then no change is missing between the snapshot and the stream.
    ///
    /// The events get no id from the hub and are not kept. They are sent with each connection. Leave them out for a client
    /// that resumes, which has a [`Request::last_event_id`]. A long-poll that resumes does not get them.
    pub fn first(mut self, events: impl IntoIterator<Item = Event>) -> Subscription {
        self.options.first.extend(events);
        self
    }

    /// Sends the newest event of each topic first, so that a new page has a value to show. A client that resumes does not get
    /// them.
    pub fn retained(mut self) -> Subscription {
        self.cursor.retained_after = Some(0);
        self
    }

    /// Sets the form of the id with which the stream begins. Default: [`OpeningId::Block`].
    pub fn opening_id(mut self, opening_id: OpeningId) -> Subscription {
        self.cursor.opening_id = opening_id;
        self
    }

    /// Turns long-poll off: every request gets an event stream.
    pub fn stream_only(mut self) -> Subscription {
        self.poll_timeout = None;
        self
    }

    /// Sets what happens when the reader is too slow. Default: [`Lag::CatchUp`].
    pub fn lag(mut self, lag: Lag) -> Subscription {
        self.lag = lag;
        self
    }

    /// Sets the [`Reader::label`](crate::Reader::label) of the stream, such as the user's name, for
    /// [`Hub::close`](crate::Hub::close), [`Hub::readers`](crate::Hub::readers) and [`on_end`](Subscription::on_end).
    pub fn label(mut self, label: impl Into<String>) -> Subscription {
        self.reader.label = label.into();
        self
    }

    /// Keeps a value while the stream is open, and drops it when the stream has ended. The value's `Drop` can, for example,
    /// take a user off a list of the users who are online.
    ///
    /// The drop is at the time and on the thread of the calls of [`on_end`](Subscription::on_end). A long-poll keeps the value
    /// until its response is made, so its user is off the list between two polls. Where there is no stream, because the
    /// request is a HEAD or a middleware refuses it, the value is dropped with the subscription.
    pub fn guard(self, value: impl Send + 'static) -> Subscription {
        self.on_end(move |_| drop(value))
    }

    /// Calls the callback when the stream has ended, with its reader and the reason. A long-poll does not call it. A client
    /// that has left is noticed at its next event, or within about five seconds on a silent stream.
    ///
    /// One thread makes all these calls, one after the other. A callback may publish. A slow callback delays later callbacks
    /// and nothing else. A panic ends that call alone.
    ///
    /// A shutdown does not wait for these calls. Those for the streams that it ends may come after it has returned, and never
    /// come if `main` returns first. To wait for them, let each callback own a clone of a [`Sender`](std::sync::mpsc::Sender):
    /// its receiver is disconnected when all of them have been called.
    pub fn on_end(mut self, callback: impl FnOnce(&StreamEnd) + Send + 'static) -> Subscription {
        self.on_end.push(Box::new(callback));
        self
    }

    /// Sets the silence after which a heartbeat is sent, in place of [`Config::heartbeat`](crate::Config::heartbeat). It is the
    /// comment `: heartbeat`, which keeps proxies from closing the connection. An `EventSource` does not show it to the page.
    pub fn heartbeat(mut self, interval: Duration) -> Subscription {
        self.options.heartbeat = Some(interval);
        self
    }

    /// Tells the client how long to wait before it reconnects, by a `retry` field in front of all events.
    pub fn retry(mut self, time: Duration) -> Subscription {
        self.options.retry = Some(time);
        self
    }

    /// Sets a field of the response, as [`Response::with_header`] does.
    pub fn with_header(mut self, name: &str, value: impl AsRef<str>) -> Subscription {
        let value = value.as_ref().to_string();
        self.options.fields.push((name.to_string(), value));
        self
    }

    /// Returns the id with which the client says how far it is.
    fn resume_id(&self) -> Option<&str> {
        let id = self.last_event_id.as_deref();
        id.filter(|id| !matches!(*id, "earliest" | "latest"))
    }

    /// Moves the cursor to where the client begins. False where the hub does not know the client's id, and another hub may.
    fn begin(&mut self) -> bool {
        let shared = Arc::clone(&self.cursor.shared);
        let (topics, own_id) = (&self.reader.topics, self.resume_id());
        let Some(log) = shared.log_that_knows(own_id, topics, self.received) else {
            // The client's own id is the one to come back with.
            self.cursor.opening_id = OpeningId::None;
            return false;
        };
        let start = if self.earliest { "earliest" } else { "latest" };
        let latest = self.cursor.first_position(&log);
        let position = match self.last_event_id.as_deref().unwrap_or(start) {
            "latest" => latest,
            id => log.limit_replay(log.after(id, topics), own_id, self.replay, &latest),
        };
        if own_id.is_some() {
            self.cursor.retained_after = None;
        }
        self.cursor.begin(&log, position);
        true
    }

    /// Makes the response to a long-poll.
    fn poll(mut self, timeout: Duration) -> Response {
        // The position is a field of the response.
        self.cursor.opening_id = OpeningId::None;
        if !self.begin() {
            return poll::come_back_soon();
        }
        let first = match self.resume_id() {
            Some(_) => &[][..],
            None => &self.options.first,
        };
        poll::respond(self.cursor, first, timeout, &self.closing, self.received)
    }

    /// Serves the stream on the connection's thread: to its end, or until a writer takes it.
    fn serve(mut self, head: StreamHead, socket: Socket) {
        let is_known = self.begin();
        // Unless retained events come first, the opening id leaves in one write with the head.
        let opening_id = self.cursor.take_opening();
        let subscriber = Subscriber::new(self.cursor, self.reader, self.lag, self.on_end);
        // The reader is in the registry by now: a close that did not see it there is seen here.
        let registry = &subscriber.cursor.shared.registry;
        if !is_known || registry.closed_since(self.received) {
            subscriber.reader.close();
            self.options.first.clear();
        }
        (self.options.first).extend(opening_id.map(|note| note.event()));
        let Ok(mut stream) = EventStream::begin(subscriber, head, self.options, socket) else {
            return;
        };
        match self.fast {
            Some(fast) if stream.is_chunked() => Member { fast, stream }.serve(),
            _ => {
                if let Err(error) = stream.serve() {
                    stream.source.failed(&error);
                }
            }
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("reader", &self.reader)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        self.into()
    }
}

impl From<Subscription> for Response {
    fn from(mut subscription: Subscription) -> Response {
        let fields = std::mem::take(&mut subscription.options.fields);
        let Cursor { shared, .. } = &subscription.cursor;
        let is_over = |id: &String| shared.log().is_over(id, &subscription.reader.topics);
        let response = match (subscription.refusal.take(), subscription.poll_timeout) {
            (Some(refusal), _) => refusal,
            _ if subscription.last_event_id.as_ref().is_some_and(is_over) => Response::new(204),
            (None, Some(timeout)) => subscription.poll(timeout),
            (None, None) => event_stream(Box::new(|head, socket| {
                subscription.serve(head, socket);
                None
            }))
            .closing(),
        };
        response.with_fields(fields)
    }
}
