//! The long-poll answer from the same log: for clients behind what buffers a stream for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::core::Core;
use super::json;
use super::log::{GroupId, Next, Position};
use super::subscription::Subscription;
use super::topics::TopicSet;
use crate::event::Event;
use crate::http::{Request, Response};
use crate::socket::from_now;
use crate::sse::LOOK;

/// Most bytes of events in one answer; the client asks again for the rest.
const ANSWER_BYTES: usize = 1024 * 1024;

/// Whether a request is for one JSON answer and not for a stream.
pub(crate) fn is_wanted(request: &Request) -> bool {
    request.query("poll").is_some()
        || (request.accepts("application/json") && !request.accepts("text/event-stream"))
}

/// The events behind a position as JSON, when there are some, the time is over or the server is closing:
/// `{"events":[{"id":"…","event":"…","data":"…"}],"last_event_id":"…"}`.
pub(crate) fn answer(
    subscription: Subscription,
    patience: Duration,
    closing: &AtomicBool,
) -> Response {
    let (core, topics) = (&subscription.core, &subscription.topics);
    let mut position = subscription.position;
    let mut events = Vec::new();
    if !subscription.resumes {
        events.extend(subscription.options.first.iter().filter_map(event_text));
        if subscription.retained {
            let retained = core.log().retained(topics, position.cursor);
            let texts = retained.iter().map(|frame| event_text(&frame.event()));
            events.extend(texts.flatten());
        }
    }
    let waiting = Waiting::new(core, topics, &mut position);
    let until = from_now(match waiting.is_one_too_many {
        true => Duration::ZERO,
        false => patience,
    });
    let mut disk = None;
    loop {
        let group = waiting.group;
        match core.next(group, topics, &mut position, &mut disk, ANSWER_BYTES) {
            // An event like any other here, and what follows it comes with it.
            Next::Gap(frame) => events.extend(event_text(&frame.event())),
            Next::Events(frames) => {
                position.cursor = frames.last().map_or(position.cursor, |(last, _)| *last);
                let texts = frames.iter().map(|(_, frame)| event_text(&frame.event()));
                events.extend(texts.flatten());
                break;
            }
            Next::AtHead | Next::OnDisk { .. } => {
                if !events.is_empty() || !waiting.wait(&position, until, closing) {
                    break;
                }
            }
        }
    }
    let events = events.join(",");
    let last = core.log().id(position.cursor);
    let body = format!(r#"{{"events":[{events}],"last_event_id":"{last}"}}"#);
    Response::json(body).with_field("Cache-Control", "no-store")
}

/// An event as JSON, if it is one that a client would dispatch.
fn event_text(event: &Event) -> Option<String> {
    let message = event.message()?;
    let id = json::string(&message.last_event_id);
    let event = json::string(&message.event);
    let data = json::string(&message.data);
    Some(format!(r#"{{"id":{id},"event":{event},"data":{data}}}"#))
}

/// A member of a group for as long as one request waits.
struct Waiting<'a> {
    core: &'a Core,
    group: GroupId,
    is_one_too_many: bool,
}

impl<'a> Waiting<'a> {
    fn new(core: &'a Core, topics: &TopicSet, position: &mut Position) -> Waiting<'a> {
        let group = core.log().join(topics, position);
        let others = core.counters.polls.fetch_add(1, Ordering::Relaxed);
        Waiting {
            core,
            group,
            is_one_too_many: others >= core.config.max_polls,
        }
    }

    /// Waits for a while for something new; false when there is nothing to wait for any more.
    fn wait(&self, position: &Position, until: Instant, closing: &AtomicBool) -> bool {
        let remaining = until.saturating_duration_since(Instant::now());
        if remaining.is_zero() || closing.load(Ordering::SeqCst) || self.core.is_closed() {
            return false;
        }
        self.core
            .wait_for_news(self.group, position, remaining.min(LOOK));
        true
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.core.log().leave(self.group);
        self.core.counters.polls.fetch_sub(1, Ordering::Relaxed);
    }
}
