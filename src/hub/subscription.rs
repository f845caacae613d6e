//! A request's subscription: where it begins, what goes with it, and the response that it becomes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::config::Lag;
use super::core::Core;
use super::id;
use super::log::Position;
use super::poll;
use super::subscriber::Subscriber;
use super::topics::{InvalidTopic, TopicSet};
use crate::event::Event;
use crate::http::{Method, Request, Response};
use crate::sse::{KeepAlive, StreamOptions, event_stream};

/// Where a reader begins that brings no last event id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first event published after the handler asked for the subscription.
    #[default]
    Latest,
    /// With the oldest event kept.
    Earliest,
}

/// A reader's subscription to topics of a [`Hub`](crate::Hub), from [`Hub::subscribe`](crate::Hub::subscribe); return it
/// from a handler.
///
/// As an event stream it goes on behind the client's last event id, and begins with an `id` on its own, which dispatches
/// nothing: a client that is cut off before its first event comes back to the same place. A request that brings
/// `Accept: application/json` and not `text/event-stream`, or `poll` in its query, whatever the value, gets one JSON
/// answer instead, at once or when there is an event (long-poll), and asks the next time with `last_event_id` in the
/// query:
///
/// ```json
/// {"events":[{"id":"…","event":"message","data":"…"}],"last_event_id":"…"}
/// ```
///
/// Topics that are refused are answered with 400, an id that marks the end of a stream with 204.
#[must_use = "a subscription does nothing until it is returned as a response"]
pub struct Subscription {
    pub(super) core: Arc<Core>,
    pub(super) topics: TopicSet,
    pub(super) position: Position,
    /// The client told where it is.
    pub(super) resumes: bool,
    /// The answer in place of any event.
    refusal: Option<Response>,
    /// For long-poll: how long to wait, and what tells that the server is closing.
    poll: Option<(Duration, Arc<AtomicBool>)>,
    pub(super) retained: bool,
    pub(super) lag: Lag,
    pub(super) label: String,
    pub(super) options: StreamOptions,
}

impl Subscription {
    pub(crate) fn new(
        core: &Arc<Core>,
        request: &Request,
        topics: Result<TopicSet, InvalidTopic>,
    ) -> Subscription {
        let id = request.last_event_id();
        let mut refusal = id.is_some_and(id::is_ending).then(|| Response::new(204));
        let topics = topics.unwrap_or_else(|error| {
            refusal = Some(Response::text(format!("{error}\n")).with_status(400));
            TopicSet::default()
        });
        let log = core.log();
        let (position, resumes) = match id {
            Some("latest") | None => (log.latest(), false),
            Some("earliest") => (log.earliest(&topics), true),
            Some(id) => (log.after(id, &topics), true),
        };
        drop(log);
        let patience = match request.method() {
            Method::Head => Duration::ZERO,
            _ => core.config.poll_timeout,
        };
        Subscription {
            core: Arc::clone(core),
            topics,
            position,
            resumes,
            refusal,
            poll: poll::is_wanted(request).then(|| (patience, Arc::clone(&request.closing))),
            retained: false,
            lag: core.config.lag,
            label: String::new(),
            options: StreamOptions::default(),
        }
    }

    /// Where to begin when the client brings no last event id. Default: [`Start::Latest`].
    pub fn start(mut self, start: Start) -> Subscription {
        if start == Start::Earliest && !self.resumes {
            self.position = self.core.log().earliest(&self.topics);
        }
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
        self.retained = !self.resumes;
        self
    }

    /// What happens when the reader is too slow, in place of the hub's own [`Lag`].
    pub fn lag(mut self, lag: Lag) -> Subscription {
        self.lag = lag;
        self
    }

    /// A name for callbacks and for [`Hub::close`](crate::Hub::close), such as the user's.
    pub fn label(mut self, label: impl Into<String>) -> Subscription {
        self.label = label.into();
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

    /// Adds a response field, as [`Response::header`] does, when all else has been said.
    pub fn header(self, name: &str, value: impl AsRef<str>) -> Response {
        Response::from(self).header(name, value)
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("label", &self.label)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl From<Subscription> for Response {
    fn from(mut subscription: Subscription) -> Response {
        if let Some(refusal) = subscription.refusal.take() {
            return refusal;
        }
        match subscription.poll.take() {
            Some((patience, closing)) => poll::answer(subscription, patience, &closing),
            None => event_stream(Box::new(|head, socket| {
                Subscriber::begin(subscription, head, socket);
            })),
        }
    }
}
