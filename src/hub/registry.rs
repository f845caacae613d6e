//! Who reads: one entry for each event stream, for figures and for closing. No event waits for its lock.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::topics::TopicSet;
use crate::lock::lock;

/// The cursor of a reader that has everything. Cursors are kept as `usize`, as 64-bit atomics do not exist everywhere.
const AT_HEAD: usize = usize::MAX;

/// The reader of an event stream, for [`Hub::readers`](crate::Hub::readers), [`Hub::close`](crate::Hub::close) and
/// [`Subscription::on_end`](crate::Subscription::on_end).
pub struct Reader {
    /// Its index in the registry, which changes when others leave.
    pub(super) index: AtomicUsize,
    pub(super) topics: TopicSet,
    peer: SocketAddr,
    client_ip: IpAddr,
    label: String,
    since: Instant,
    /// The lower bits of its cursor while it is behind.
    cursor: AtomicUsize,
    /// The stream is to end, and its client may come back.
    is_closed: AtomicBool,
}

impl Reader {
    pub(crate) fn new(
        topics: TopicSet,
        peer: SocketAddr,
        client_ip: IpAddr,
        label: String,
    ) -> Reader {
        Reader {
            index: AtomicUsize::new(0),
            topics,
            peer,
            client_ip,
            label,
            since: Instant::now(),
            cursor: AtomicUsize::new(AT_HEAD),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Returns the topics that it reads, in alphabetical order.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|name| &**name)
    }

    /// Returns the other end of its socket: the client, or the proxy in front of the server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the client's address, as [`Request::client_ip`](crate::Request::client_ip) does.
    pub fn client_ip(&self) -> IpAddr {
        self.client_ip
    }

    /// Returns the label that [`Subscription::label`](crate::Subscription::label) set, else an empty text.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns how long the stream has been open.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn set_behind(&self, cursor: u64) {
        self.cursor.store(cursor as usize, Ordering::Relaxed);
    }

    pub(crate) fn set_at_head(&self) {
        self.cursor.store(AT_HEAD, Ordering::Relaxed);
    }

    /// How many sequence numbers it is behind the head; `None` when it has everything.
    pub(crate) fn lag(&self, head: u64) -> Option<usize> {
        match self.cursor.load(Ordering::Relaxed) {
            AT_HEAD => None,
            // The reader may have gone on since the head was looked up.
            cursor => Some(((head as usize).wrapping_sub(cursor) as isize).max(0) as usize),
        }
    }

    pub(crate) fn close(&self) -> bool {
        !self.is_closed.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("topics", &self.topics)
            .field("peer", &self.peer)
            .field("client_ip", &self.client_ip)
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

/// All readers of one hub.
#[derive(Default)]
pub(crate) struct Registry {
    readers: Mutex<Vec<Arc<Reader>>>,
    /// When readers were closed the last time.
    last_close: Mutex<Option<Instant>>,
}

impl Registry {
    pub(crate) fn add(&self, reader: Reader) -> Arc<Reader> {
        let mut readers = lock(&self.readers);
        reader.index.store(readers.len(), Ordering::Relaxed);
        let reader = Arc::new(reader);
        readers.push(Arc::clone(&reader));
        reader
    }

    pub(crate) fn remove(&self, reader: &Reader) {
        let mut readers = lock(&self.readers);
        let index = reader.index.load(Ordering::Relaxed);
        readers.swap_remove(index);
        if let Some(moved) = readers.get(index) {
            moved.index.store(index, Ordering::Relaxed);
        }
    }

    /// All readers, as they are now.
    pub(crate) fn all(&self) -> Vec<Arc<Reader>> {
        lock(&self.readers).clone()
    }

    /// Marks the readers that match to be ended, and counts them. The predicate is user code, so no lock is held.
    pub(crate) fn close(&self, matches: impl Fn(&Reader) -> bool) -> usize {
        // First the time, then the list: a reader whose request came before is in the list, or finds the time.
        *lock(&self.last_close) = Some(Instant::now());
        let mut closed = self.all();
        closed.retain(|reader| matches(reader) && reader.close());
        closed.len()
    }

    /// Whether readers were closed after this request came: the predicate may have meant it, and did not see it.
    pub(crate) fn closed_since(&self, request: Instant) -> bool {
        lock(&self.last_close).is_some_and(|last| last >= request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_never_less_than_none() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let reader = Reader::new(TopicSet::default(), peer, peer.ip(), String::new());
        let lag = |cursor| {
            reader.set_behind(cursor);
            reader.lag(10)
        };
        assert_eq!(lag(3), Some(7));
        assert_eq!(lag(10), Some(0)); // The opening is not sent yet.
        assert_eq!(lag(11), Some(0)); // It went on after the head was looked up.
        reader.set_at_head();
        assert_eq!(reader.lag(10), None);
    }
}
