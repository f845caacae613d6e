//! A request's subscription: where its reader begins, what goes with it, and the response that it becomes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::config::Lag;
use super::cursor::{Cursor, OpeningId};
use super::fast::Fast;
use super::id;
use super::log::{Position, Replay};
use super::poll::{self, Poll};
use super::registry::Reader;
use super::shared::Shared;
use super::subscriber::{OnEnd, StreamEnd, Subscriber};
use super::topics::{InvalidTopic, TopicSet};
use crate::event::Event;
use crate::http::{IntoResponse, Method, Request, Response, StreamHead};
use crate::socket::Socket;
use crate::stream::{EventStream, KeepAlive, StreamOptions, event_stream};

/// Where a reader begins that brings no last event id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first event published after the handler asked for the subscription.
    #[default]
    Latest,
    /// With the oldest event kept.
    Earliest,
}

/// A reader's subscription to topics of a [`Hub`](crate::Hub), from [`Hub::subscribe`](crate::Hub::subscribe). Return it
/// from a handler.
///
/// As an event stream it goes on after the client's last event id, and begins with an [`OpeningId`]: a client that is cut
/// off before its first event comes back to the same place. A GET request gets one JSON response instead, at once or when
/// there is an event (long-poll), if it has `poll` in its query, whatever the value, or accepts `application/json` and
/// neither `*/*` nor `text/event-stream`. The client asks the next time with `last_event_id` in the query:
///
/// ```json
/// {"events":[{"id":"…","event":"message","data":"…"}],"last_event_id":"…"}
/// ```
///
/// The response is 400 where the topics are not valid, and 204 where the client's id is that of the event that
/// [finished](crate::Hub::finish) the topics: 204 stops an `EventSource`.
#[must_use = "a subscription does nothing until it is returned as a response"]
pub struct Subscription {
    shared: Arc<Shared>,
    fast: Option<Arc<Fast>>,
    topics: TopicSet,
    /// Where the newest event was when the handler asked.
    latest: Position,
    start: Start,
    replay: Replay,
    last_event_id: Option<String>,
    /// The response in place of any event.
    refusal: Option<Response>,
    is_poll: bool,
    is_head: bool,
    closing: Arc<AtomicBool>,
    /// When the request came.
    received: Instant,
    retained: bool,
    opening_id: OpeningId,
    lag: Lag,
    label: String,
    client_ip: IpAddr,
    peer: SocketAddr,
    options: StreamOptions,
    fields: Vec<(String, String)>,
    on_end: Vec<OnEnd>,
}

impl Subscription {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        fast: Option<&Arc<Fast>>,
        request: &Request,
        topics: Result<TopicSet, InvalidTopic>,
    ) -> Subscription {
        let mut refusal = None;
        let topics = topics.unwrap_or_else(|error| {
            refusal = Some(Response::text(format!("{error}\n")).with_status(400));
            TopicSet::default()
        });
        Subscription {
            latest: shared.log().latest(&topics),
            shared: Arc::clone(shared),
            fast: fast.cloned(),
            topics,
            start: Start::Latest,
            replay: Replay::All,
            last_event_id: request.last_event_id().map(str::to_string),
            refusal,
            is_poll: poll::is_wanted(request),
            is_head: request.method() == Method::Head,
            closing: Arc::clone(&request.closing),
            received: request.received,
            retained: false,
            opening_id: OpeningId::default(),
            lag: shared.config.lag,
            label: String::new(),
            client_ip: request.client_ip(),
            peer: request.peer(),
            options: StreamOptions::default(),
            fields: Vec::new(),
            on_end: Vec::new(),
        }
    }

    /// Where to begin when the client brings no last event id. Default: [`Start::Latest`].
    pub fn start(mut self, start: Start) -> Subscription {
        self.start = start;
        self
    }

    /// The client's last event id, where the request has it in a place of its own; in place of
    /// [`Request::last_event_id`]. An empty one is none. The words `earliest` and `latest` mean what [`Start`] says.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Subscription {
        self.last_event_id = Some(id.into()).filter(|id| !id.is_empty());
        self
    }

    /// Limits how far back a client may go, whatever id it brings. A client that would have got more is told of a gap.
    /// Default: [`Replay::All`]: who may read a topic may read all that the hub keeps of it.
    pub fn replay(mut self, replay: Replay) -> Subscription {
        self.replay = replay;
        self
    }

    /// Sends these events first: a snapshot, which the stream then continues without a hole if the snapshot was taken
    /// after [`Hub::subscribe`](crate::Hub::subscribe) was called.
    ///
    /// They have no id from the hub, are not kept, and come again with each connection: for a client that resumes, leave
    /// them away where [`Request::last_event_id`] says so. A long-poll that resumes does not get them.
    pub fn first(mut self, events: impl IntoIterator<Item = Event>) -> Subscription {
        self.options.first.extend(events);
        self
    }

    /// Sends the newest event kept of each topic first, unless the client resumes, so that a page has a value to show.
    pub fn retained(mut self) -> Subscription {
        self.retained = true;
        self
    }

    /// What the stream begins with, so that a client that is cut off before its first event can resume. Default:
    /// [`OpeningId::Block`].
    pub fn opening_id(mut self, opening_id: OpeningId) -> Subscription {
        self.opening_id = opening_id;
        self
    }

    /// Always answers with an event stream, never with one JSON response, whatever the request says.
    pub fn stream_only(mut self) -> Subscription {
        self.is_poll = false;
        self
    }

    /// What happens when the reader is too slow, in place of [`HubConfig::lag`](crate::HubConfig::lag).
    pub fn lag(mut self, lag: Lag) -> Subscription {
        self.lag = lag;
        self
    }

    /// A name for [`Reader::label`](crate::Reader::label), such as the user's: [`Hub::close`](crate::Hub::close) and
    /// [`on_end`](Subscription::on_end) see it.
    pub fn label(mut self, label: impl Into<String>) -> Subscription {
        self.label = label.into();
        self
    }

    /// Keeps a value for as long as the stream is open, and drops it when the stream has ended: a value whose `Drop` takes
    /// its user off a list, for example. It is dropped where [`on_end`](Subscription::on_end) calls; where no stream begins,
    /// because the request is a HEAD or a middleware refuses it, with the subscription.
    pub fn guard(self, value: impl Send + 'static) -> Subscription {
        self.on_end(move |_| drop(value))
    }

    /// Calls this when the stream has ended, with whose it was and why it ended. That a client has left is noticed at its
    /// next event, on a silent stream within some five seconds.
    ///
    /// All such calls are made on one thread of the crate's, one after the other, so that a call may publish, and a slow
    /// one holds up later calls and nothing else. A panic ends that call alone.
    pub fn on_end(mut self, callback: impl FnOnce(&StreamEnd) + Send + 'static) -> Subscription {
        self.on_end.push(Box::new(callback));
        self
    }

    /// Sets the heartbeat, which otherwise comes as [`Config::heartbeat`](crate::Config::heartbeat) says.
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Subscription {
        self.options.keep_alive = Some(keep_alive);
        self
    }

    /// Tells the client how long to wait before it reconnects, by a `retry` field in front of all events.
    pub fn retry(mut self, time: Duration) -> Subscription {
        self.options.retry = Some(time);
        self
    }

    /// Sets a field of the response, as [`Response::header`] does.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Subscription {
        self.fields
            .push((name.to_string(), value.as_ref().to_string()));
        self
    }

    /// Whether the client says how far it is.
    fn resumes(&self) -> bool {
        self.last_event_id
            .as_deref()
            .is_some_and(|id| id != "latest")
    }

    /// Where the reader begins; `None` where the hub does not know its id, and another may.
    fn cursor(&mut self) -> Option<Cursor> {
        let (topics, id) = (&self.topics, self.last_event_id.as_deref());
        let words = ["earliest", "latest"];
        let own_id = id.filter(|id| !words.contains(id));
        let log = self.shared.log_that_knows(own_id, topics, self.received)?;
        let position = match id {
            None if self.start == Start::Earliest => log.earliest(topics),
            // Before the hub has followed anything, the newest event is not known.
            None | Some("latest") if self.shared.follows => log.latest(topics),
            None | Some("latest") => self.latest.clone(),
            Some("earliest") => log.earliest(topics),
            Some(id) => log.after(id, topics),
        };
        let position = log.limit_replay(position, own_id, self.replay, topics);
        drop(log);
        let retained = self.retained && !self.resumes();
        let (shared, topics) = (Arc::clone(&self.shared), Arc::clone(topics));
        let opening_id = self.opening_id;
        Some(Cursor::new(shared, topics, position, retained, opening_id))
    }

    /// The response to a long-poll.
    fn poll(mut self) -> Response {
        let Some(cursor) = self.cursor() else {
            return poll::come_back_soon();
        };
        poll::respond(Poll {
            first: match self.resumes() {
                true => Vec::new(),
                false => self.options.first,
            },
            timeout: match self.is_head {
                true => Duration::ZERO,
                false => self.shared.config.poll_timeout,
            },
            closing: self.closing,
            received: self.received,
            cursor,
        })
    }

    /// Serves the stream, on the connection's thread for as long as it keeps it.
    fn serve(mut self, head: StreamHead, socket: Socket) {
        let cursor = self.cursor();
        let is_sent_away = cursor.is_none();
        let cursor = cursor.unwrap_or_else(|| {
            let (shared, topics) = (Arc::clone(&self.shared), Arc::clone(&self.topics));
            Cursor::new(shared, topics, self.latest.clone(), false, OpeningId::None)
        });
        let reader = Reader::new(self.topics, self.peer, self.client_ip, self.label);
        let subscriber = Subscriber::new(cursor, reader, self.lag, self.on_end);
        // The reader is in the registry by now: a close that did not see it there is seen here.
        if is_sent_away || self.shared.registry.closed_since(self.received) {
            subscriber.reader.close();
        }
        let Ok(mut stream) = EventStream::begin(subscriber, head, self.options, socket) else {
            return;
        };
        match self.fast {
            Some(fast) if stream.is_chunked() => fast.serve(Box::new(stream)),
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
            .field("topics", &self.topics)
            .field("label", &self.label)
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
        let fields = std::mem::take(&mut subscription.fields);
        let is_finished = subscription
            .last_event_id
            .as_deref()
            .is_some_and(id::is_ending);
        let response = match subscription.refusal.take() {
            Some(refusal) => refusal,
            None if is_finished => Response::new(204),
            None if subscription.is_poll => subscription.poll(),
            None => event_stream(Box::new(|head, socket| {
                subscription.serve(head, socket);
                None
            }))
            .closing(),
        };
        response.with_fields(fields)
    }
}
