//! A hub's reader as the source of an event stream: its cursor, what happens when it is too slow, and what follows its end.
//!
//! The stream's loop is the same for all sources. A reader that has had everything once is *lagging* from the first partial
//! write until it has everything again. Its [`Lag`] says what happens then: it goes on from its cursor, it skips to the newest
//! event, or its stream ends. A reader that has not had everything yet is new or has come back, which is no fault of its own:
//! it gets what it missed, whatever its `Lag`.
//!
//! ```text
//!          has everything               partial write
//!  new ────────────────────▶ keeps up ─────────────────▶ lagging ──Lag::Disconnect──▶ (ended)
//!                               ▲                           │
//!                               └───── has everything ──────┘
//! ```
//!
//! Two flags hold the state: `was_at_head` is false only for a new reader, and `is_lagging` is true only for a lagging one.
//! With [`Lag::Skip`] a lagging reader asks its cursor for the newest event, in place of the next batch.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::config::Lag;
use super::cursor::Cursor;
use super::frame::Batch;
use super::log::Next;
use super::registry::Reader;
use crate::http::Coding;
use crate::socket::Socket;
use crate::stream::{Source, Supply, Unsent};
use crate::threads;
use crate::user_code::guarded;

/// Maximum bytes that a reader takes out of the log at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// What is called when a stream has ended.
pub(crate) type OnEnd = Box<dyn FnOnce(&StreamEnd) + Send>;

/// A reader of a hub, from the beginning of its stream to the end.
///
/// The [`EventStream`](crate::stream::EventStream) owns it, as its source, and one thread at a time owns the stream. So its
/// fields need no lock. Other threads see only `reader`, whose changing fields are atomics.
///
/// A subscriber must not be dropped by a thread that holds the log's lock: the drop of its cursor takes that lock.
pub(crate) struct Subscriber {
    /// The reader's position in the log. While a writer has the stream, the writer's group notes the position for all its
    /// members.
    pub(crate) cursor: Cursor,
    /// Its entry in the registry, which the list of readers and callbacks share.
    pub(crate) reader: Arc<Reader>,
    /// What happens when the reader is too slow.
    lag: Lag,
    /// The reader has had everything once. If it is behind after that, it is too slow.
    was_at_head: bool,
    /// A write was partial since the reader last had everything.
    is_lagging: bool,
    /// Events handed to the socket. Those that a writer has sent are added when the stream leaves the writer.
    pub(crate) events: u64,
    /// Why the stream ends. It is `Left` until another reason is known, since a client leaves without a word.
    end: EndReason,
    /// Called on the thread for user code when the stream has ended.
    on_end: Vec<OnEnd>,
}

impl Subscriber {
    /// Adds a reader to the registry, until the stream is dropped.
    pub(crate) fn new(cursor: Cursor, reader: Reader, lag: Lag, on_end: Vec<OnEnd>) -> Subscriber {
        let reader = cursor.shared.registry.add(reader);
        Subscriber {
            cursor,
            reader,
            lag,
            was_at_head: false,
            is_lagging: false,
            events: 0,
            end: EndReason::Left,
            on_end,
        }
    }

    /// Returns whether the stream is to end, now or when it has everything.
    pub(crate) fn is_to_end(&self) -> bool {
        self.reader.is_closed() || self.cursor.shared.is_closed()
    }

    /// Notes how far a write of these events came, and returns the rest of an event that was written in part.
    ///
    /// # Errors
    ///
    /// When the subscription asks to disconnect a reader that falls behind.
    pub(crate) fn note_written(
        &mut self,
        batch: &Batch,
        written: usize,
    ) -> io::Result<Option<Unsent>> {
        let progress = batch.progress(written);
        self.is_lagging |= self.was_at_head && progress.unsent.is_some();
        if self.is_lagging && self.lag == Lag::Disconnect {
            self.end = EndReason::Lagging;
            return Err(io::Error::other("the reader is too slow"));
        }
        self.events += progress.begun;
        self.cursor.shared.counters().delivered += progress.begun;
        self.cursor.advance(progress.last);
        if progress.unsent.is_some() {
            self.reader.set_behind(true);
        }
        Ok(progress.unsent)
    }

    /// Notes that the stream was cut off by this error. A time-out means that the client stalled, and any other error that it
    /// left.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut {
            self.end = EndReason::Stalled;
        }
    }
}

impl Source for Subscriber {
    /// Takes a batch out of the log, and writes as much of it as the socket takes now. The call may wait for new events and for
    /// an archive, and never for the socket.
    fn send(&mut self, socket: &Socket, coding: Coding, wait: Duration) -> io::Result<Supply> {
        let next = match self.lag {
            Lag::Skip if self.is_lagging => self.cursor.newest(),
            _ => self.cursor.next(BATCH_BYTES, wait),
        };
        // A gap or an id, which are not events of the log.
        let is_note = matches!(next, Next::Note(_));
        let events = match next {
            // Checked after the events were read: an event that is published after `Hub::close` is never sent.
            _ if self.reader.is_closed() => return Ok(Supply::ComeBack),
            Next::Events(events) => events,
            Next::Note(frame) => vec![(self.cursor.position.cursor, frame)],
            Next::Finished => {
                self.end = EndReason::Finished;
                return Ok(Supply::End(Vec::new()));
            }
            Next::AtHead | Next::InArchive if !self.cursor.shared.is_closed() => {
                (self.was_at_head, self.is_lagging) = (true, false);
                self.reader.set_behind(false);
                return Ok(Supply::Nothing);
            }
            Next::AtHead | Next::InArchive | Next::Unknown => return Ok(Supply::ComeBack),
        };
        self.reader.set_behind(true);
        let batch = Batch::new(events, coding);
        let written = socket.try_write(batch.bytes())?;
        let unsent = match is_note {
            true => batch.progress(written).unsent,
            false => self.note_written(&batch, written)?,
        };
        Ok(Supply::Sent(written, unsent))
    }

    /// Notes the end for [`StreamEnd::reason`]. The client resumes from the log.
    fn end_early(&mut self) -> bool {
        self.end = EndReason::Closed;
        true
    }
}

/// However a stream ends, its reader leaves the registry, its end is counted, and its callbacks are called.
impl Drop for Subscriber {
    fn drop(&mut self) {
        let shared = &self.cursor.shared;
        shared.registry.remove(&self.reader);
        match self.end {
            EndReason::Lagging => shared.counters().dropped_lagging += 1,
            EndReason::Stalled => shared.counters().dropped_stalled += 1,
            _ => {}
        }
        let end = StreamEnd {
            reader: Arc::clone(&self.reader),
            events: self.events,
            duration: self.reader.since.elapsed(),
            reason: self.end,
        };
        let on_end = std::mem::take(&mut self.on_end);
        if !on_end.is_empty() {
            threads::run_apart(Box::new(move || {
                for callback in on_end {
                    guarded(|| callback(&end));
                }
            }));
        }
    }
}

/// How a hub's stream ended, for [`Subscription::on_end`](crate::Subscription::on_end).
///
/// Displayed, it is a line for a log, without control characters. It has the client's address, the topics, the label, the
/// reason, the number of events and the duration: `203.0.113.7 doors,lights "ann" left 12 events 31.2 s`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamEnd {
    /// The stream's reader: its client, topics and label.
    pub reader: Arc<Reader>,
    /// The number of events that were written to its socket.
    pub events: u64,
    /// How long ago the handler subscribed.
    pub duration: Duration,
    /// Why it ended.
    pub reason: EndReason,
}

/// Writes the line. Only the label may have control characters, and `{:?}` escapes them.
impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reader, seconds) = (&self.reader, self.duration.as_secs_f64());
        let topics = reader.topics.join(",");
        let reason = format!("{:?}", self.reason).to_lowercase();
        let (client, label) = (reader.client_ip, &reader.label);
        write!(
            f,
            "{client} {topics} {label:?} {reason} {} events {seconds:.1} s",
            self.events
        )
    }
}

/// Why a hub's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The client left, or its connection failed.
    Left,
    /// All its topics are finished.
    Finished,
    /// The server ended the stream, and the client may come back: by [`Hub::close`](crate::Hub::close), at the end of
    /// [`Config::max_stream_lifetime`](crate::Config::max_stream_lifetime), at shutdown, or because the hub has ended.
    Closed,
    /// The reader fell behind, and its subscription has [`Lag::Disconnect`].
    Lagging,
    /// The client took nothing for [`Config::write_timeout`](crate::Config::write_timeout), or less than
    /// [`Config::min_bytes_per_second`](crate::Config::min_bytes_per_second).
    Stalled,
}
