//! A request's subscription: where it begins, what goes with it, and the response that it becomes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::config::Lag;
use super::core::Core;
use super::frame::Frame;
use super::id::{self, EventId};
use super::log::Position;
use super::poll::{self, Poll};
use super::subscriber::{Begin, Subscriber};
use super::topics::{InvalidTopic, TopicSet};
use crate::event::Event;
use crate::http::{Coding, Method, Request, Response, StreamHead};
use crate::socket::Socket;
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
/// As an event stream it goes on behind the client's last event id. A request that brings `Accept: application/json`, or
/// `?poll` in its query, gets one JSON answer instead, at once or when there is an event (long-poll), and asks the next
/// time with `last_event_id` in the query:
///
/// ```json
/// {"events":[{"id":"…","event":"message","data":"…"}],"last_event_id":"…"}
/// ```
///
/// Topics that are refused are answered with 400, an id that marks the end of a stream with 204.
#[must_use = "a subscription does nothing until it is returned as a response"]
pub struct Subscription {
    core: Arc<Core>,
    /// The topics and the position, or why there are none.
    wanted: Result<Wanted, Refusal>,
    /// For long-poll: how long to wait, and what tells that the server is closing.
    poll: Option<(Duration, Arc<AtomicBool>)>,
    retained: bool,
    lag: Lag,
    label: String,
    options: StreamOptions,
}

struct Wanted {
    topics: TopicSet,
    position: Position,
    /// The client told where it is.
    resumes: bool,
}

enum Refusal {
    Topics(InvalidTopic),
    Ended,
}

impl Subscription {
    pub(crate) fn new(
        core: &Arc<Core>,
        request: &Request,
        topics: Result<TopicSet, InvalidTopic>,
    ) -> Subscription {
        let wanted = topics.map_err(Refusal::Topics).and_then(|topics| {
            let log = core.log();
            let (position, resumes) = match request.last_event_id() {
                Some(id) if id::is_ending(id) => return Err(Refusal::Ended),
                Some("latest") | None => (log.latest(), false),
                Some("earliest") => (log.earliest(&topics), true),
                Some(id) => (log.after(id, &topics), true),
            };
            drop(log);
            Ok(Wanted {
                topics,
                position,
                resumes,
            })
        });
        Subscription {
            wanted,
            poll: poll::is_wanted(request).then(|| {
                let waits = request.method() != Method::Head;
                let patience = if waits {
                    core.config.poll_timeout
                } else {
                    Duration::ZERO
                };
                (patience, Arc::clone(&request.closing))
            }),
            retained: false,
            lag: core.config.lag,
            label: String::new(),
            options: StreamOptions::default(),
            core: Arc::clone(core),
        }
    }

    /// Where to begin when the client brings no last event id. Default: [`Start::Latest`].
    pub fn start(mut self, start: Start) -> Subscription {
        if let Ok(wanted) = &mut self.wanted
            && !wanted.resumes
            && start == Start::Earliest
        {
            wanted.position = self.core.log().earliest(&wanted.topics);
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
        self.retained = true;
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
    fn from(subscription: Subscription) -> Response {
        let wanted = match subscription.wanted {
            Ok(wanted) => wanted,
            Err(Refusal::Ended) => return Response::new(204),
            Err(Refusal::Topics(error)) => {
                return Response::text(format!("{error}\n")).with_status(400);
            }
        };
        let (core, options) = (subscription.core, subscription.options);
        let retained = subscription.retained && !wanted.resumes;
        let Some((patience, closing)) = subscription.poll else {
            let (lag, label) = (subscription.lag, subscription.label);
            let stream = Stream {
                core,
                wanted,
                retained,
                lag,
                label,
                options,
            };
            return event_stream(move |head, socket| stream.begin(head, socket));
        };
        let Wanted {
            topics,
            position,
            resumes,
        } = wanted;
        let mut first = if resumes { Vec::new() } else { options.first };
        if retained {
            let frames = core.log().retained(&topics, position.cursor);
            first.extend(frames.iter().map(Frame::event));
        }
        Poll {
            topics,
            position,
            first,
            patience,
            closing,
        }
        .answer(&core)
    }
}

/// A subscription that becomes an event stream.
struct Stream {
    core: Arc<Core>,
    wanted: Wanted,
    retained: bool,
    lag: Lag,
    label: String,
    options: StreamOptions,
}

impl Stream {
    /// Begins when the head is about to be written.
    fn begin(self, head: StreamHead, mut socket: Socket) {
        if socket.start_stream().is_err() {
            return;
        }
        let Wanted {
            topics,
            mut position,
            ..
        } = self.wanted;
        let coding = head.coding;
        let mut opening = head.bytes;
        self.options.append_opening(coding, &mut opening);
        let mut log = self.core.log();
        let group = log.join(&topics, &mut position);
        if self.retained {
            for frame in log.retained(&topics, position.cursor) {
                opening.extend_from_slice(frame.bytes(coding));
            }
        }
        // An unknown id is answered with a gap, which brings its own.
        if position.unknown.is_none() {
            append_id(log.id(position.cursor), coding, &mut opening);
        }
        drop(log);
        let reader = self
            .core
            .registry
            .add(topics, socket.peer(), self.label, position.cursor);
        let keep_alive = self.options.keep_alive(&socket);
        let begin = Begin {
            reader,
            group,
            position,
            coding,
            lag: self.lag,
            keep_alive,
            opening,
        };
        Subscriber::new(self.core, socket, begin).start();
    }
}

/// A block of `id` alone: it dispatches nothing and sets the last event id, so that a client that drops before its first
/// event resumes too.
fn append_id(id: EventId, coding: Coding, out: &mut Vec<u8>) {
    let text = format!("id: {id}\n\n");
    coding.append(out, text.len(), |out| {
        out.extend_from_slice(text.as_bytes())
    });
}
