//! A log outside the hub's memory: what it promises, and one reader's way through it.

use std::io;

use super::frame::Frame;
use super::id::EventId;
use super::topics::TopicSet;
use crate::event::Event;

/// Bytes of other topics' events that a reader skips in one call, for each byte that it may take. A call then lasts some
/// milliseconds, after which its thread can serve another reader.
const SKIPPED_PER_BYTE: usize = 64;

/// An event of an [`EventLog`], with its sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first is 1, and each is one more than the one before. A number that is left out is a lost event.
    pub sequence: u64,
    /// What the event was published under.
    pub topics: Vec<String>,
    /// What goes over the wire. An event without an id gets the hub's: epoch and sequence.
    pub event: Event,
}

/// Entries in order of their numbers, from [`EventLog::read`].
pub type Entries = Box<dyn Iterator<Item = io::Result<Entry>> + Send>;

/// A place that keeps numbered events, and reads older ones by a number: the file of
/// [`History::file`](crate::History::file), or a log that several hubs share. A reader that wants more than a hub has in
/// memory gets it from here.
///
/// What it promises:
///
/// 1. Numbers are dense, and events have one order. What is missing before an entry, or after the last one up to the hub's
///    newest event, is lost: the reader is told of a gap that ends there.
/// 2. An entry that the hub knows of is final: reading it again returns the same.
/// 3. An error means that nobody knows now. That is never a gap: the client is sent away, and comes back a little later.
///
/// Redis Streams keep all three: `XADD key 0-*` numbers densely (since 7.0), and a script that checks the epoch keeps out a
/// node that has not seen a restart. NATS JetStream keeps them by its stream sequence, as long as single messages are not
/// deleted. Kafka keeps the second and the third by the offsets of one partition; its transactions leave holes, which are
/// no losses, so the reader must number anew. Postgres keeps them where a transaction numbers under a lock; a `SERIAL` has
/// holes after each rollback.
///
/// A log in memory, and a hub that follows it:
///
/// ```
/// use std::io;
/// use std::sync::{Arc, Mutex};
/// use std::time::Instant;
/// use tiny_sse::{Entries, Entry, Event, EventLog, Hub, HubConfig};
///
/// #[derive(Clone, Default)]
/// struct InMemory(Arc<Mutex<Vec<Entry>>>);
///
/// impl EventLog for InMemory {
///     fn read(&self, after: u64) -> io::Result<Entries> {
///         let all = self.0.lock().unwrap().clone();
///         Ok(Box::new(all.into_iter().filter(move |entry| entry.sequence > after).map(Ok)))
///     }
/// }
///
/// let log = InMemory::default();
/// let (hub, mut feed) = Hub::follow(HubConfig::default(), log.clone())?;
/// let mut news = hub.receiver("news").unwrap();
/// feed.epochs(&[(0x2a, 1)])?; // One epoch, which begins with the first event.
///
/// let entry = Entry { sequence: 1, topics: vec!["news".into()], event: Event::data("hello") };
/// log.0.lock().unwrap().push(entry.clone());
/// feed.push([entry])?;
/// feed.current(Instant::now(), 0)?; // That is all there is, and nothing was removed.
///
/// let message = news.recv().unwrap().message().unwrap();
/// assert_eq!((message.data, message.last_event_id), ("hello".into(), "000000000000002a-1".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait EventLog: Send + Sync + 'static {
    /// Returns the entries after a number, in order. It may begin earlier, end anywhere, and go on beyond what the hub was
    /// told: the hub takes what it needs. Called on readers' threads, several at a time; it may block, which delays these
    /// readers alone.
    ///
    /// # Errors
    ///
    /// When it is not known now what the log has.
    fn read(&self, after: u64) -> io::Result<Entries>;
}

/// One reader's way through the log.
#[derive(Default)]
pub(crate) struct ArchiveReader {
    entries: Option<Entries>,
    /// The head when the entries were asked for: those up to here are final.
    final_to: u64,
    /// All entries up to this one were read.
    read_to: u64,
    /// Events that were returned, and perhaps not sent.
    unsent: Vec<(u64, Frame)>,
}

/// What a reader finds in the log.
pub(crate) enum Found {
    /// These events, in order. None where many events of other topics come first: the reader has everything up to here.
    Events(Vec<(u64, Frame)>, u64),
    /// Events up to this one are lost.
    Lost(u64),
    /// Nobody knows now.
    Unknown,
}

impl ArchiveReader {
    /// Returns the events of these topics after `cursor` and up to `head`, at most about `max_bytes` or one event.
    pub(crate) fn read(
        &mut self,
        log: &dyn EventLog,
        topics: &TopicSet,
        cursor: u64,
        head: u64,
        max_bytes: usize,
        id: &dyn Fn(u64) -> EventId,
    ) -> Found {
        self.unsent.retain(|(sequence, _)| *sequence > cursor);
        self.read_to = self.read_to.max(cursor);
        let mut bytes: usize = self.unsent.iter().map(|(_, frame)| frame.len()).sum();
        let (mut skipped, mut scratch) = (0, Vec::new());
        while bytes < max_bytes && skipped / SKIPPED_PER_BYTE < max_bytes && self.read_to < head {
            let entry = match self.next(log, head) {
                Ok(entry) => entry,
                // What was read before goes first.
                Err(_) if self.read_to > cursor => break,
                Err(found) => return found,
            };
            self.read_to = entry.sequence;
            skipped += entry.event.encoded_len();
            if entry.topics.iter().any(|name| is_in(topics, name)) {
                let hubs_id = match entry.event.id_text() {
                    Some(_) => None,
                    None => Some(id(entry.sequence).to_string()),
                };
                let frame = Frame::encode(&entry.event, hubs_id.as_deref(), &mut scratch);
                bytes += frame.len();
                self.unsent.push((entry.sequence, frame));
            }
        }
        Found::Events(self.unsent.clone(), self.read_to)
    }

    /// Returns the entry after those that were read.
    fn next(&mut self, log: &dyn EventLog, head: u64) -> Result<Entry, Found> {
        if self.read_to >= self.final_to {
            // What comes after that may have been read too early.
            self.entries = None;
        }
        // A second time where the entries end before the head: more may be there by now.
        for is_last in [false, true] {
            if self.entries.is_none() {
                self.final_to = head;
                self.entries = Some(log.read(self.read_to).map_err(|_| Found::Unknown)?);
            }
            for entry in self.entries.iter_mut().flatten() {
                let entry = entry.map_err(|_| Found::Unknown)?;
                if entry.sequence <= self.read_to {
                    continue;
                }
                if entry.sequence == self.read_to + 1 {
                    return Ok(entry);
                }
                self.entries = None;
                return Err(Found::Lost(head.min(entry.sequence - 1)));
            }
            self.entries = None;
            if is_last {
                break;
            }
        }
        Err(Found::Lost(head))
    }
}

fn is_in(topics: &TopicSet, name: &str) -> bool {
    topics.iter().any(|topic| **topic == *name)
}
