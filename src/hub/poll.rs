//! Long-poll: the same log as one JSON response after the other, for clients that cannot read a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cursor::Cursor;
use super::id;
use super::log::Next;
use super::shared::Shared;
use crate::event::{Event, json_string};
use crate::http::{Method, Request, Response};
use crate::socket::from_now;
use crate::stream::CHECK_INTERVAL;

/// Most bytes of events in one response; the client asks again for the rest.
const RESPONSE_BYTES: usize = 1024 * 1024;

/// Whether a request is for one JSON response and not for a stream: it says `?poll`, or it accepts JSON and nothing that a
/// stream would be. Many clients list JSON beside `*/*`, or send it with every POST, and mean a stream.
pub(crate) fn is_wanted(request: &Request) -> bool {
    let takes_stream = ["text/event-stream", "text/*", "*/*"].map(|media| request.accepts(media));
    let takes_json_alone = request.accepts("application/json") && takes_stream == [false; 3];
    request.method() != Method::Post && (request.query("poll").is_some() || takes_json_alone)
}

/// A long-poll request.
pub(crate) struct Poll {
    pub(crate) cursor: Cursor,
    /// Events in front of the log's.
    pub(crate) first: Vec<Event>,
    /// How long to wait for an event.
    pub(crate) timeout: Duration,
    /// The server is shutting down.
    pub(crate) closing: Arc<AtomicBool>,
    /// When the request came.
    pub(crate) received: Instant,
}

/// Answers with the events after a position as JSON, when there are some, the time is over or the server is closing:
/// `{"events":[{"id":"…","event":"…","data":"…"}],"last_event_id":"…"}`.
pub(crate) fn respond(poll: Poll) -> Response {
    let mut cursor = poll.cursor;
    let mut events = String::new();
    for event in &poll.first {
        append_event(event, &mut events);
    }
    let start = cursor.id();
    let shared = Arc::clone(&cursor.shared);
    let waiting = Waiting::new(&shared);
    let until = from_now(match waiting.others < shared.config.max_polls {
        true => poll.timeout,
        false => Duration::ZERO,
    });
    let is_finished = loop {
        let wait = match events.is_empty() {
            true => until
                .saturating_duration_since(Instant::now())
                .min(CHECK_INTERVAL),
            false => Duration::ZERO,
        };
        match cursor.next(RESPONSE_BYTES, wait) {
            // A gap is an event like any other here.
            Next::Note(frame) => append_event(&frame.event(), &mut events),
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
            Next::AtHead | Next::InArchive { .. } => {
                let is_closing = poll.closing.load(Ordering::SeqCst);
                if wait.is_zero() || is_closing || shared.is_closed() {
                    break false;
                }
            }
        }
    };
    drop(waiting);
    let (Some(start), Some(last)) = (start, cursor.id()) else {
        return come_back_soon();
    };
    let mut last = match is_finished {
        true => id::ending(last),
        false => last,
    };
    // As a stream that is closed before its next event: the client comes back and meets the handler.
    if shared.registry.closed_since(poll.received) {
        events.clear();
        last = start;
    }
    let last = json_string(&last);
    let body = format!(r#"{{"events":[{events}],"last_event_id":{last}}}"#);
    Response::json(body).with_field("Cache-Control", "no-store")
}

/// One of the polls that wait, counted until it is dropped: an archive's code may panic.
struct Waiting<'a> {
    shared: &'a Shared,
    others: usize,
}

impl Waiting<'_> {
    fn new(shared: &Shared) -> Waiting<'_> {
        let mut counters = shared.counters();
        counters.polls += 1;
        let others = counters.polls - 1;
        Waiting { shared, others }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.counters().polls -= 1;
    }
}

/// Sends the client away, to come back to this hub or to another that knows more.
pub(crate) fn come_back_soon() -> Response {
    Response::from_status(503).with_field("Retry-After", "1")
}

/// Appends an event as JSON, if it is one that a client would dispatch.
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
