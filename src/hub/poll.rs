//! The long-poll answer from the same log: for clients behind what buffers a stream for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::json;
use super::log::Next;
use super::subscription::Subscription;
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
    let mut events = String::new();
    if !subscription.resumes {
        for event in &subscription.options.first {
            append_event(event, &mut events);
        }
    }
    let group = core.log().join(topics, &mut position);
    if subscription.retained {
        for frame in core.log().retained(topics, position.cursor) {
            append_event(&frame.event(), &mut events);
        }
    }
    let others = core.counters.polls.fetch_add(1, Ordering::Relaxed);
    let until = from_now(match others < core.config.max_polls {
        true => patience,
        false => Duration::ZERO,
    });
    let mut disk = None;
    loop {
        match core.next(group, topics, &mut position, &mut disk, ANSWER_BYTES) {
            // An event like any other here, and what follows it comes with it.
            Next::Gap(frame) => append_event(&frame.event(), &mut events),
            // None where a file has much of other topics first: the client goes on from there.
            Next::Events(frames) => {
                for (sequence, frame) in frames {
                    append_event(&frame.event(), &mut events);
                    position.cursor = sequence;
                }
                break;
            }
            Next::AtHead | Next::OnDisk { .. } => {
                let remaining = until.saturating_duration_since(Instant::now());
                let is_over = remaining.is_zero() || closing.load(Ordering::SeqCst);
                if is_over || core.is_closed() || !events.is_empty() {
                    break;
                }
                core.wait_for_news(group, &position, remaining.min(LOOK));
            }
        }
    }
    core.counters.polls.fetch_sub(1, Ordering::Relaxed);
    let mut log = core.log();
    log.leave(group);
    let last = log.id(position.cursor);
    let body = format!(r#"{{"events":[{events}],"last_event_id":"{last}"}}"#);
    Response::json(body).with_field("Cache-Control", "no-store")
}

/// Appends an event as JSON, if it is one that a client would dispatch.
fn append_event(event: &Event, events: &mut String) {
    let Some(message) = event.message() else {
        return;
    };
    let comma = if events.is_empty() { "" } else { "," };
    let id = json::string(&message.last_event_id);
    let event = json::string(&message.event);
    let data = json::string(&message.data);
    events.push_str(&format!(
        r#"{comma}{{"id":{id},"event":{event},"data":{data}}}"#
    ));
}
