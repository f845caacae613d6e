//! Long-poll: the same log as one JSON response after the other, for clients that cannot read a stream.
//!
//! A response ends as soon as there are events, or when the time is over, so that a proxy which holds back streams lets the
//! response pass. The position is in the response, as `last_event_id`: the client brings it back, and nothing is kept for the
//! client in between.
//!
//! ```text
//!  client                                               hub
//!    │ GET /events?poll&last_event_id=5c0f9a3be1d27764-6 │
//!    │──────────────────────────────────────────────────▶│ waits for event 7, at most poll_timeout
//!    │◀──────────────────────────────────────────────────│ 200, with event 7 and the position after it
//!    │ GET /events?poll&last_event_id=5c0f9a3be1d27764-7 │
//!    │──────────────────────────────────────────────────▶│ waits for event 8
//! ```
//!
//! The body of the first response:
//!
//! ```json
//! {"events":[{"id":"5c0f9a3be1d27764-7","event":"message","data":"hello"}],"last_event_id":"5c0f9a3be1d27764-7"}
//! ```
//!
//! The array is empty when no event came before the time was over or the server began to close. A gap is an event in the
//! array, with the name `gap`. When all topics are finished, `last_event_id` ends with `-end`: a client that comes back with
//! this id gets 204.
//!
//! A waiting request holds its connection's thread, so [`HubConfig::max_polls`](super::config::HubConfig::max_polls) limits
//! how many wait at once. One more is answered at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cursor::Cursor;
use super::id;
use super::log::Next;
use crate::event::{Event, json_string};
use crate::http::{Method, Request, Response};
use crate::socket::from_now;
use crate::stream::CHECK_INTERVAL;

/// Maximum bytes of events in one response; the client asks again for the rest. The response is put together in memory, where a
/// stream sends a part of the events at a time.
const RESPONSE_BYTES: usize = 1024 * 1024;

/// Returns whether a request is for one JSON response and not for a stream: it says `?poll`, or it accepts JSON and nothing
/// that a stream would be (`Accept`, RFC 9110 section 12.5.1). Many clients list JSON beside `*/*`, or send it with every POST,
/// and mean a stream.
pub(crate) fn is_wanted(request: &Request) -> bool {
    let takes_stream = ["text/event-stream", "text/*", "*/*"].map(|media| request.accepts(media));
    let takes_json_alone = request.accepts("application/json") && takes_stream == [false; 3];
    request.method() != Method::Post && (request.query("poll").is_some() || takes_json_alone)
}

/// Answers with the events after a position as JSON, when there are some, the time is over or the server is closing:
/// `{"events":[{"id":"…","event":"…","data":"…"}],"last_event_id":"…"}`. The events of `first` are in front of the log's.
/// `received` is when the request came.
///
/// If [`Hub::close`](crate::Hub::close) is called after the request came, the response comes at once and has no events, and its
/// position is the one at which the request began.
pub(crate) fn respond(
    mut cursor: Cursor,
    first: &[Event],
    timeout: Duration,
    closing: &AtomicBool,
    received: Instant,
) -> Response {
    let mut events = String::new();
    first
        .iter()
        .for_each(|event| append_event(event, &mut events));
    let start = cursor.id();
    let shared = Arc::clone(&cursor.shared);
    let waiting = Arc::clone(&shared.polls);
    // Two handles do not belong to other requests: this one, and that of `shared`.
    let may_wait = Arc::strong_count(&waiting) - 2 < shared.config.max_polls;
    let until = from_now(if may_wait { timeout } else { Duration::ZERO });
    let is_finished = loop {
        let is_over = !events.is_empty()
            || closing.load(Ordering::SeqCst)
            || shared.is_closed()
            || shared.registry.closed_since(received);
        let remaining = until.saturating_duration_since(Instant::now());
        let wait = match is_over {
            true => Duration::ZERO,
            // Setting `closing` wakes no reader, so the loop looks at it this often.
            false => remaining.min(CHECK_INTERVAL),
        };
        match cursor.next(RESPONSE_BYTES, wait) {
            // A gap is an event like any other here.
            Next::Note(frame) => append_event(&frame.event(), &mut events),
            // The archive has only events of other topics here. The next request goes on after them.
            Next::Events(frames) if frames.is_empty() && wait.is_zero() => break false,
            Next::Events(frames) => {
                for (sequence, frame) in frames {
                    append_event(&frame.event(), &mut events);
                    cursor.advance(sequence);
                }
                if !cursor.is_opening() && events.len() >= RESPONSE_BYTES {
                    break false;
                }
            }
            Next::Finished => break true,
            Next::Unknown => return come_back_soon(),
            _ if wait.is_zero() => break false,
            _ => {}
        }
    };
    drop(waiting);
    let (Some(start), Some(last)) = (start, cursor.id()) else {
        return come_back_soon();
    };
    let last = match shared.registry.closed_since(received) {
        // The client comes back to the handler, as after a stream that was closed before its next event.
        true => {
            events.clear();
            start
        }
        false if is_finished => id::ending(last),
        false => last,
    };
    let last = json_string(&last);
    let body = format!(r#"{{"events":[{events}],"last_event_id":{last}}}"#);
    Response::json(body).with_field("Cache-Control", "no-store")
}

/// Returns 503 with `Retry-After: 1`, in seconds (RFC 9110 section 10.2.3). It sends the client away, to come back to this hub
/// or to another that knows more.
pub(crate) fn come_back_soon() -> Response {
    Response::from_status(503).with_field("Retry-After", "1")
}

/// Appends an event as JSON, after a comma if the array has one before it. An event without data is left out, since a client
/// of a stream dispatches none
/// ([WHATWG HTML](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)).
fn append_event(event: &Event, events: &mut String) {
    let Some(message) = event.message() else {
        return;
    };
    let comma = if events.is_empty() { "" } else { "," };
    let id = json_string(&message.last_event_id);
    let event = json_string(&message.event);
    let data = json_string(&message.data);
    events.push_str(&format!(
        r#"{comma}{{"id":{id},"event":{event},"data":{data}}}"#
    ));
}
