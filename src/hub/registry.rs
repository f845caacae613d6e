//! The open event streams of a hub, one entry for each, for figures and for closing. No event waits for the list's lock.
//!
//! A close must reach every stream whose client the handler has let in, however far the request is. The close notes the time,
//! and then marks the readers in the list. A stream goes into the list, and then looks at the time: if a close came after its
//! request, the stream ends before its first event. So either the close sees the stream, or the stream sees the close.
//!
//! ```text
//!  close     1 notes the time         2 marks the readers in the list
//!  stream    1 goes into the list     2 looks at the time
//!
//!  either first step may come first: the second step of the other side sees it
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::topics::TopicSet;
use crate::lock::lock;

/// The reader of an event stream, for [`Hub::readers`](crate::Hub::readers), [`Hub::close`](crate::Hub::close) and
/// [`Subscription::on_end`](crate::Subscription::on_end).
#[derive(Debug)]
#[non_exhaustive]
pub struct Reader {
    /// The other end of its socket: the client, or the proxy in front of the server.
    pub peer: SocketAddr,
    /// The client's address, as [`Request::client_ip`](crate::Request::client_ip) returns it.
    pub client_ip: IpAddr,
    /// The label that [`Subscription::label`](crate::Subscription::label) set, else an empty text.
    pub label: String,
    /// When the client subscribed.
    pub since: Instant,
    /// The topics of the reader: the set that its group in the log has.
    pub(super) topics: TopicSet,
    /// Its index in the registry, which changes when others leave. It is written under the lock of the list. A stream reads it
    /// without the lock to choose a writer, for which any value will do.
    pub(super) index: AtomicUsize,
    /// The reader is catching up.
    pub(super) is_behind: AtomicBool,
    /// The stream is to end, and its client may come back. Once set, it stays.
    pub(super) is_closed: AtomicBool,
}

impl Reader {
    /// Makes a reader that is not yet in a registry.
    pub(crate) fn new(topics: TopicSet, peer: SocketAddr, client_ip: IpAddr) -> Reader {
        Reader {
            peer,
            client_ip,
            label: String::new(),
            since: Instant::now(),
            topics,
            index: AtomicUsize::new(0),
            is_behind: AtomicBool::new(true),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Returns the topics of the reader, in alphabetical order.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|name| &**name)
    }

    /// Notes whether the reader is catching up.
    pub(crate) fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Relaxed);
    }

    /// Marks the stream to end soon. Returns false if it was marked before.
    pub(crate) fn close(&self) -> bool {
        !self.is_closed.swap(true, Ordering::SeqCst)
    }

    /// Returns whether the stream is to end, without the events that have not been sent.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }
}

/// All readers of one hub. Each of its locks is held for a step that calls nothing.
#[derive(Default)]
pub(crate) struct Registry {
    /// Each at its index, so that a reader leaves without a search: for each `i`, `readers[i].index` is `i`. A vector, since
    /// most calls walk over all readers, and their order means nothing.
    readers: Mutex<Vec<Arc<Reader>>>,
    /// When readers were closed the last time. The latest time is enough: a request that came before an earlier close came
    /// before this one too.
    last_close: Mutex<Option<Instant>>,
}

impl Registry {
    /// Adds a reader at the end of the list.
    pub(crate) fn add(&self, reader: Reader) -> Arc<Reader> {
        let mut readers = lock(&self.readers);
        reader.index.store(readers.len(), Ordering::Relaxed);
        let reader = Arc::new(reader);
        readers.push(Arc::clone(&reader));
        reader
    }

    /// Removes a reader. The last one in the list takes its index.
    pub(crate) fn remove(&self, reader: &Reader) {
        let mut readers = lock(&self.readers);
        let index = reader.index.load(Ordering::Relaxed);
        readers.swap_remove(index);
        if let Some(moved) = readers.get(index) {
            moved.index.store(index, Ordering::Relaxed);
        }
    }

    /// Returns all readers, as they are now.
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

    /// Returns whether readers were closed after this request came: the predicate may match the request's reader, and did not
    /// see it.
    pub(crate) fn closed_since(&self, request: Instant) -> bool {
        lock(&self.last_close).is_some_and(|last| last >= request)
    }
}
