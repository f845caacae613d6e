//! Who reads: one entry for each subscriber, for stats, callbacks and closing; never locked on an event's way.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{io, panic, thread};

use super::frame::Frame;
use super::topics::TopicSet;
use crate::slots::Slot;

/// A reader that has everything has no cursor of its own to look after.
const LIVE: u64 = u64::MAX;

/// One subscriber, as callbacks and predicates see it.
pub struct Reader {
    key: u64,
    topics: TopicSet,
    peer: SocketAddr,
    label: String,
    /// Its cursor while it is behind.
    cursor: AtomicU64,
    ending: OnceLock<Ending>,
}

/// How a stream is to end.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// The client comes back after a while.
    ComeBack,
    /// This event is the last; whoever comes back with its id gets 204.
    ForGood(Frame),
}

impl Reader {
    /// The topics that it reads, in alphabetical order.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|name| &**name)
    }

    /// The other end of its socket.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What the subscription called it; empty when it was not told.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn topic_set(&self) -> &TopicSet {
        &self.topics
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    pub(crate) fn set_behind(&self, cursor: u64) {
        self.cursor.store(cursor, Ordering::Relaxed);
    }

    pub(crate) fn set_live(&self) {
        self.cursor.store(LIVE, Ordering::Relaxed);
    }

    /// Its cursor, unless it has everything.
    pub(crate) fn behind(&self) -> Option<u64> {
        Some(self.cursor.load(Ordering::Relaxed)).filter(|cursor| *cursor != LIVE)
    }

    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.ending.get()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("topics", &self.topics)
            .field("peer", &self.peer)
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

type Callback = Box<dyn FnMut(&Reader) + Send>;

/// What the thread for callbacks is told.
pub(crate) enum Notice {
    OnConnect(Callback),
    OnDisconnect(Callback),
    Connected(Arc<Reader>),
    /// The slot travels with the notice, so that callbacks that fall behind hold up new connections and not memory.
    Disconnected(Arc<Reader>, Arc<Slot>),
}

/// All readers of one hub, and the thread that tells callbacks about them.
#[derive(Default)]
pub(crate) struct Registry {
    readers: Mutex<Readers>,
    notices: OnceLock<Sender<Notice>>,
}

#[derive(Default)]
struct Readers {
    next_key: u64,
    by_key: HashMap<u64, Arc<Reader>>,
}

impl Registry {
    pub(crate) fn add(
        &self,
        topics: TopicSet,
        peer: SocketAddr,
        label: String,
        cursor: u64,
    ) -> Arc<Reader> {
        let mut readers = self.lock();
        let key = readers.next_key;
        readers.next_key += 1;
        let reader = Arc::new(Reader {
            key,
            topics,
            peer,
            label,
            cursor: AtomicU64::new(cursor),
            ending: OnceLock::new(),
        });
        readers.by_key.insert(key, Arc::clone(&reader));
        drop(readers);
        self.tell(|| Notice::Connected(Arc::clone(&reader)));
        reader
    }

    pub(crate) fn remove(&self, reader: &Arc<Reader>, slot: &Arc<Slot>) {
        self.lock().by_key.remove(&reader.key);
        self.tell(|| Notice::Disconnected(Arc::clone(reader), Arc::clone(slot)));
    }

    /// All readers, as they are now.
    pub(crate) fn all(&self) -> Vec<Arc<Reader>> {
        self.lock().by_key.values().cloned().collect()
    }

    /// Marks those that match to be ended, and counts them. The predicate is user code, so no lock is held.
    pub(crate) fn end(&self, matches: impl Fn(&Reader) -> bool, ending: &Ending) -> usize {
        let readers = self.all();
        let matching = readers.iter().filter(|reader| matches(reader));
        matching
            .filter(|reader| reader.ending.set(ending.clone()).is_ok())
            .count()
    }

    /// Hands a callback to the thread for all of them, which the first one starts.
    pub(crate) fn add_callback(&self, notice: Notice) -> io::Result<()> {
        if self.notices.get().is_none() {
            let (sender, receiver) = mpsc::channel();
            thread::Builder::new()
                .name("sse-callbacks".to_string())
                .spawn(move || run_callbacks(receiver))?;
            // Where another thread was faster, the one just started ends with its sender.
            let _ = self.notices.set(sender);
        }
        self.tell(|| notice);
        Ok(())
    }

    fn tell(&self, notice: impl FnOnce() -> Notice) {
        if let Some(notices) = self.notices.get() {
            // The thread ends only when the registry has gone.
            let _ = notices.send(notice());
        }
    }

    /// Nothing that runs under this lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// User code runs here and nowhere else, so that it can take its time, publish, or panic.
fn run_callbacks(notices: mpsc::Receiver<Notice>) {
    let (mut on_connect, mut on_disconnect): (Vec<Callback>, Vec<Callback>) = Default::default();
    for notice in notices {
        match notice {
            Notice::OnConnect(callback) => on_connect.push(callback),
            Notice::OnDisconnect(callback) => on_disconnect.push(callback),
            Notice::Connected(reader) => call(&mut on_connect, &reader),
            Notice::Disconnected(reader, _slot) => call(&mut on_disconnect, &reader),
        }
    }
}

fn call(callbacks: &mut [Callback], reader: &Reader) {
    for callback in callbacks {
        // The panic hook has reported it; the others still want to know.
        let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| callback(reader)));
    }
}
