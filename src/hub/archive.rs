//! A log outside the hub's memory: what it promises, and one reader's way through it.

use std::io;

use super::frame::{Events, Frame};
use super::topics::TopicSet;
use crate::event::Event;

/// Bytes of other topics' events that a reader skips in one call, for each byte that it may take. A call then lasts some
/// milliseconds, after which its thread can serve another reader.
const SKIPPED_PER_BYTE: usize = 64;

/// An event of an [`EventLog`], with its sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The event's number. The first event has 1, and each event has one more than the event before. A number that is missing
    /// is a lost event.
    pub sequence: u64,
    /// The topics that the event was published to. A name that no topic can have is ignored.
    pub topics: Vec<String>,
    /// The event as it goes over the wire. If it has no id of its own, or one that [`Hub::publish`](crate::Hub::publish) refuses,
    /// the hub gives it one: epoch and sequence number.
    pub event: Event,
}

/// Entries in the order of their sequence numbers, from [`EventLog::read`].
pub type Entries = Box<dyn Iterator<Item = io::Result<Entry>> + Send>;

/// A log of numbered events outside the hub's memory: the file of [`HubConfig::history_file`](crate::HubConfig::history_file), or a log that
/// several hubs follow ([`Hub::follow`](crate::Hub::follow)). A reader that needs older events than the hub has in memory gets
/// them from the log.
///
/// An implementation keeps three rules:
///
/// 1. *Numbers have no holes.* A missing number is a lost event. The reader is told of a gap that ends before the next entry,
///    or at the hub's newest event if there is no further entry.
/// 2. *Entries are final.* Once the hub has been told of an entry, every read returns the same entry.
/// 3. *An error is not a loss.* It means that the log cannot say now what it has. The stream ends, and its client comes back a
///    little later. No gap is reported.
///
/// How some logs can keep these rules:
///
/// - *Redis Streams*: `XADD key 0-*` numbers without holes (since 7.0). Append by a script that checks the epoch, so that a
///   server that has missed a restart of Redis cannot append.
/// - *NATS JetStream*: its stream sequence has no holes, unless single messages are deleted.
/// - *Kafka*: the offsets of a partition have holes where transactions were, which are no losses. Number the events again.
/// - *Postgres*: number in a transaction that holds a lock. A `SERIAL` has a hole after each rollback.
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
/// feed.epochs(&[(0x2a, 1)])?; // One epoch, which begins with the first event.
/// feed.current(Instant::now(), 0)?; // The log has no entry, and nothing was removed.
/// let mut news = hub.receiver("news")?;
///
/// let entry = Entry { sequence: 1, topics: vec!["news".into()], event: Event::data("hello") };
/// log.0.lock().unwrap().push(entry.clone());
/// feed.push([entry])?;
/// feed.current(Instant::now(), 0)?;
///
/// let message = news.recv().unwrap().message().unwrap();
/// assert_eq!(message.data, "hello");
/// assert_eq!(message.last_event_id, "000000000000002a-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait EventLog: Send + Sync + 'static {
    /// Returns the entries after this number, in order.
    ///
    /// The entries may begin earlier and end before the newest one, and some may be newer than what the hub has been told of:
    /// the hub takes what it needs, and calls again for more. Threads of readers call this, several at a time. A call that
    /// blocks delays these readers and nobody else.
    ///
    /// # Errors
    ///
    /// When the log cannot say now what it has.
    fn read(&self, after: u64) -> io::Result<Entries>;
}

/// One reader's way through the log, from the entry after its cursor up to the hub's newest one. It lives while the reader
/// needs the log, and holds what was read ahead: a file is read in blocks, and a write may be partial.
#[derive(Default)]
pub(crate) struct ArchiveReader {
    entries: Option<Entries>,
    /// The head when the entries were asked for. Entries up to this number are final.
    final_to: u64,
    /// All entries up to this one were read.
    pub(crate) read_to: u64,
    /// Events that were returned, and perhaps not sent.
    unsent: Events,
}

/// Why there is no next entry.
#[derive(Debug)]
pub(crate) enum Missing {
    /// The events up to this number are lost.
    Lost(u64),
    /// The log cannot say now what it has.
    Unknown,
}

impl ArchiveReader {
    /// Returns the events of these topics after `cursor` and up to `head`, at most about `max_bytes` or one event. The result is
    /// empty where many events of other topics come first: the reader has everything up to `read_to`. `hubs_id` returns the id
    /// that the hub gives to an event, where it gives one.
    pub(crate) fn read(
        &mut self,
        log: &dyn EventLog,
        topics: &TopicSet,
        cursor: u64,
        head: u64,
        max_bytes: usize,
        hubs_id: &dyn Fn(&Entry) -> Option<String>,
    ) -> Result<Events, Missing> {
        self.unsent.retain(|(sequence, _)| *sequence > cursor);
        self.read_to = self.read_to.max(cursor);
        let mut bytes: usize = self.unsent.iter().map(|(_, frame)| frame.len()).sum();
        let (mut skipped, mut scratch) = (0, Vec::new());
        while bytes < max_bytes && skipped / SKIPPED_PER_BYTE < max_bytes && self.read_to < head {
            let entry = match self.next(log, head) {
                Ok(entry) => entry,
                // The events that were read before the error go first.
                Err(_) if self.read_to > cursor => break,
                Err(missing) => return Err(missing),
            };
            self.read_to = entry.sequence;
            skipped += entry.event.encoded_len();
            let is_asked_for = |name: &String| topics.iter().any(|topic| **topic == **name);
            if entry.topics.iter().any(is_asked_for) {
                let id = hubs_id(&entry);
                let frame = Frame::encode(&entry.event, id.as_deref(), &mut scratch);
                bytes += frame.len();
                self.unsent.push((entry.sequence, frame));
            }
        }
        Ok(self.unsent.clone())
    }

    /// Returns the entry after the ones that were read.
    fn next(&mut self, log: &dyn EventLog, head: u64) -> Result<Entry, Missing> {
        let read_to = self.read_to;
        if read_to >= self.final_to {
            // An entry after that may have been read before it was final.
            self.entries = None;
        }
        // Asks a second time if the entries end before the head: the log may have more by now.
        for _ in 0..2 {
            if self.entries.is_none() {
                self.final_to = head;
                self.entries = Some(log.read(read_to).map_err(|_| Missing::Unknown)?);
            }
            let is_next = |entry: &io::Result<Entry>| match entry {
                Ok(entry) => entry.sequence > read_to,
                Err(_) => true,
            };
            match self.entries.iter_mut().flatten().find(is_next) {
                Some(Ok(entry)) if entry.sequence == read_to + 1 => return Ok(entry),
                Some(Err(_)) => {
                    // The entries that would come after the error may leave some out.
                    self.entries = None;
                    return Err(Missing::Unknown);
                }
                Some(Ok(entry)) => {
                    self.entries = None;
                    return Err(Missing::Lost(head.min(entry.sequence - 1)));
                }
                None => self.entries = None,
            }
        }
        Err(Missing::Lost(head))
    }
}

#[cfg(test)]
mod tests {
    use super::super::topics;
    use super::*;

    /// A log of events with these numbers and topics, all with the data `x`. Those of the topic `own` have an id of their own,
    /// and `!` in place of a topic is an error.
    struct Kept(&'static [(u64, &'static str)]);

    impl EventLog for Kept {
        /// Begins one entry early, as a file that is read in blocks may.
        fn read(&self, after: u64) -> io::Result<Entries> {
            let entries = self
                .0
                .iter()
                .filter(move |(sequence, _)| *sequence >= after);
            Ok(Box::new(entries.map(|&(sequence, topic)| {
                let event = match topic {
                    "!" => return Err(io::Error::other("not now")),
                    "own" => Event::data("x").id("mine").unwrap(),
                    _ => Event::data("x"),
                };
                Ok(Entry {
                    sequence,
                    topics: vec![topic.to_string()],
                    event,
                })
            })))
        }
    }

    fn hubs_id(entry: &Entry) -> Option<String> {
        let has_own = entry.event.id_text().is_some();
        (!has_own).then(|| format!("0000000000000001-{}", entry.sequence))
    }

    /// The bytes of an event of `Kept`, by hand.
    const EVENT_BYTES: usize = "20\r\nid: 0000000000000001-1\ndata: x\n\n\r\n".len();

    #[test]
    fn each_read_goes_on_after_the_one_before() {
        #[track_caller]
        fn check(
            log: &'static [(u64, &'static str)],
            (head, max_bytes): (u64, usize),
            expected: &[&[u64]],
            expected_end: &str,
        ) {
            let topics = topics::check(vec!["a"]).unwrap();
            let mut reader = ArchiveReader::default();
            let mut reads = Vec::new();
            let mut cursor = 0;
            let end = loop {
                if cursor == head {
                    break "at the head".to_string();
                }
                match reader.read(&Kept(log), &topics, cursor, head, max_bytes, &hubs_id) {
                    Ok(events) => {
                        reads.push(events.iter().map(|event| event.0).collect::<Vec<_>>())
                    }
                    Err(missing) => break format!("{missing:?}"),
                }
                cursor = reader.read_to;
            };
            assert_eq!(reads, expected);
            assert_eq!(end, expected_end);
        }
        const THREE: &[(u64, &str)] = &[(1, "a"), (2, "a"), (3, "a")];
        check(THREE, (3, 1), &[&[1], &[2], &[3]], "at the head"); // One at least.
        check(THREE, (3, EVENT_BYTES), &[&[1], &[2], &[3]], "at the head"); // One is full.
        check(THREE, (3, EVENT_BYTES + 1), &[&[1, 2], &[3]], "at the head"); // Or a little over.
        check(THREE, (2, 999), &[&[1, 2]], "at the head"); // Not what the hub does not know yet.
        check(THREE, (5, 999), &[&[1, 2, 3]], "Lost(5)"); // The log has lost its end.
        let hole = &[(1, "a"), (2, "a"), (5, "a")];
        check(hole, (6, 999), &[&[1, 2]], "Lost(4)"); // A missing number is a lost event.
        check(hole, (3, 999), &[&[1, 2]], "Lost(3)"); // Up to the hub's newest one.
        let failing = &[(1, "a"), (2, "a"), (3, "!")];
        check(failing, (3, 999), &[&[1, 2]], "Unknown"); // First what was read before the error.
        let in_the_middle = &[(1, "a"), (2, "!"), (3, "a")];
        check(in_the_middle, (3, 999), &[&[1]], "Unknown"); // What follows an error shows no loss.
        const OTHERS: &[(u64, &str)] = &[
            (1, "b"), // Nine bytes each: eight of them are more than 64 for the one byte.
            (2, "b"),
            (3, "b"),
            (4, "b"),
            (5, "b"),
            (6, "b"),
            (7, "b"),
            (8, "b"),
            (9, "a"),
        ];
        check(OTHERS, (9, 1), &[&[], &[9]], "at the head"); // Then another reader has its turn.
        check(OTHERS, (9, 2), &[&[9]], "at the head"); // A reader that may take more also skips more.
    }

    #[test]
    fn what_was_not_sent_is_returned_again() {
        let (log, topics) = (
            Kept(&[(1, "a"), (2, "own")]),
            topics::check(vec!["a", "own"]).unwrap(),
        );
        let mut reader = ArchiveReader::default();
        let mut read = |cursor| {
            let events = reader
                .read(&log, &topics, cursor, 2, 999, &hubs_id)
                .unwrap();
            let ids = events
                .iter()
                .map(|(_, frame)| frame.event().message().unwrap().last_event_id);
            ids.collect::<Vec<_>>()
        };
        assert_eq!(read(0), ["0000000000000001-1", "mine"]); // The hub's id where the event has none.
        assert_eq!(read(0), ["0000000000000001-1", "mine"]); // Nothing of it was sent.
        assert_eq!(read(1), ["mine"]); // The first was.
        assert!(read(2).is_empty()); // Both were.
    }
}
