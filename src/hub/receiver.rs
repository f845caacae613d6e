//! A hub's events for code in this process: a cursor, and the events before it that the caller has not asked for yet.
//!
//! ```text
//!  log ──Cursor::next──▶ ready: at most one batch ──recv──▶ caller
//!                                    └── empty: the next batch ──┘
//! ```
//!
//! A receiver has no thread and no queue that publishers fill. The caller's thread takes a batch out of the log when `ready` is
//! empty. So a slow receiver delays no publisher, and holds at most one batch, however far it is behind.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use super::cursor::Cursor;
use super::log::{Next, Replay};
use crate::event::Event;
use crate::socket::from_now;

/// Maximum bytes of events that a receiver takes out of the log at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// How long to wait before asking an archive again that could not say what it has.
const RETRY: Duration = Duration::from_secs(1);

/// The events of a hub's topics for code in this process, from [`Hub::receiver`](crate::Hub::receiver). It is read like a
/// channel's receiver or as an iterator, and ends when the topics are finished or the hub has ended.
///
/// Each event has the id that it has on the wire; [`Event::message`] returns its fields. A receiver that is too slow catches
/// up from the history, as a client does, and gets an event named `gap` where the history no longer has the events.
pub struct HubReceiver {
    /// The position after all events in `ready`.
    cursor: Cursor,
    /// Events that the caller has not received, oldest first. The queue is refilled only when it is empty.
    ready: VecDeque<Event>,
}

impl HubReceiver {
    /// Reads on from this cursor.
    pub(crate) fn new(cursor: Cursor) -> HubReceiver {
        HubReceiver {
            cursor,
            ready: VecDeque::new(),
        }
    }

    /// Starts with the oldest event that the hub keeps, instead of the next one that is published.
    #[must_use]
    pub fn earliest(self) -> HubReceiver {
        self.after("earliest")
    }

    /// Starts after the event with this id. If the hub does not know the id, or no longer keeps every event after it, the
    /// first event is a `gap`.
    #[must_use]
    pub fn after(mut self, id: &str) -> HubReceiver {
        self.cursor.leave_archive();
        let shared = Arc::clone(&self.cursor.shared);
        let log = shared.log();
        let topics = &self.cursor.position.topics;
        let (position, latest) = (log.after(id, topics), log.latest(topics));
        let own_id = Some(id).filter(|id| *id != "earliest");
        let position = log.limit_replay(position, own_id, Replay::All, &latest);
        self.cursor.begin(&log, position);
        self.ready.clear();
        self
    }

    /// Waits for the next event. Returns `None` when no more events will come.
    pub fn recv(&mut self) -> Option<Event> {
        self.recv_timeout(Duration::MAX).ok()
    }

    /// Waits for the next event, at most for this time. With a time of zero, returns what is there.
    ///
    /// # Errors
    ///
    /// `Timeout` when no event came in time; `Disconnected` when no more events will come.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Event, RecvTimeoutError> {
        let until = from_now(timeout);
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let remaining = until.saturating_duration_since(Instant::now());
            match self.cursor.next(BATCH_BYTES, remaining) {
                Next::Note(frame) => self.ready.push_back(frame.event()),
                // The archive has only events of other topics here, and perhaps for long.
                Next::Events(events)
                    if events.is_empty() && remaining.is_zero() && !timeout.is_zero() =>
                {
                    return Err(RecvTimeoutError::Timeout);
                }
                Next::Events(events) => {
                    for (sequence, frame) in events {
                        self.cursor.advance(sequence);
                        self.ready.push_back(frame.event());
                    }
                }
                // The log that the hub follows has lost events: a gap comes next.
                Next::Unknown if self.cursor.go_on() => {}
                Next::Finished => return Err(RecvTimeoutError::Disconnected),
                _ if self.cursor.shared.is_closed() => return Err(RecvTimeoutError::Disconnected),
                _ if remaining.is_zero() => return Err(RecvTimeoutError::Timeout),
                // An archive cannot say now what it has.
                Next::Unknown => thread::sleep(remaining.min(RETRY)),
                _ => {}
            }
        }
    }
}

/// Iterates over the events as [`recv`](HubReceiver::recv) returns them: each step waits for the next event.
impl Iterator for HubReceiver {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}

impl fmt::Debug for HubReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubReceiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::config::HubConfig;
    use crate::hub::hub_thread::{Delivery, NewBatch};
    use crate::hub::shared::Shared;
    use crate::hub::topics;
    use std::sync::mpsc;

    #[test]
    fn all_receivers_of_a_group_that_wait_are_woken() {
        for count in [1, 2, 5] {
            let mut delivery =
                Delivery::start(Arc::new(Shared::new(HubConfig::default()))).unwrap();
            let shared = Arc::clone(&delivery.shared);
            shared.log().begin_epoch((0xe, 1));
            let topics = topics::check(vec!["a"]).unwrap();
            let first = Cursor::new(&shared, &topics);
            let (sender, received) = mpsc::channel();
            for _ in 0..count {
                let mut receiver = HubReceiver::new(Cursor::new(&shared, &topics));
                let sender = sender.clone();
                // Without a limit of time: nothing but the event may end the wait.
                thread::spawn(move || sender.send(receiver.recv()));
            }
            let give_up = Instant::now() + Duration::from_secs(60);
            // A receiver that waits has let go of the log's lock, and holds a handle. The others are the group's and this one.
            while Arc::strong_count(&shared.log().new_events(first.group)) < count + 2 {
                assert!(Instant::now() < give_up);
                thread::yield_now();
            }
            let mut batch = NewBatch::default();
            let id = shared.log().next_id();
            batch.push(id, Arc::clone(&topics), &Event::data("hello"), false);
            delivery.append(batch.events, None);
            for _ in 0..count {
                let event = received.recv_timeout(Duration::from_secs(60)).unwrap();
                assert_eq!(event.unwrap().message().unwrap().data, "hello");
            }
        }
    }
}
