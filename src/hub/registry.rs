//! Who reads: one entry for each subscriber, for stats, callbacks and closing; never locked on an event's way.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{io, panic};

use super::frame::Frame;
use super::topics::TopicSet;
use crate::slots::Slot;
use crate::threads;

/// A reader that has everything has no cursor of its own to look after.
const LIVE: u64 = u64::MAX;

/// One subscriber, as [`Hub::readers`](crate::Hub::readers), callbacks and predicates see it.
pub struct Reader {
    /// Where it stands in the registry, which changes when others leave.
    pub(super) place: AtomicUsize,
    pub(super) topics: TopicSet,
    peer: SocketAddr,
    label: String,
    /// Its cursor while it is behind.
    cursor: AtomicU64,
    /// Set once its stream is to end.
    pub(super) ending: OnceLock<Ending>,
}

/// How a stream is to end.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// The client comes back after a while.
    ComeBack,
    /// This event is the last, behind all others up to this number; whoever comes back with its id gets 204.
    ForGood { event: Frame, behind: u64 },
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
    /// There will be no other.
    End,
}

/// All readers of one hub, and the thread that tells callbacks about them.
#[derive(Default)]
pub(crate) struct Registry {
    readers: Mutex<Readers>,
    /// The thread for callbacks waits here.
    told: Condvar,
}

#[derive(Default)]
struct Readers {
    all: Vec<Arc<Reader>>,
    /// What callbacks are still to be told; `None` while there are none.
    notices: Option<VecDeque<Notice>>,
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
        let reader = Arc::new(Reader {
            place: AtomicUsize::new(readers.all.len()),
            topics,
            peer,
            label,
            cursor: AtomicU64::new(cursor),
            ending: OnceLock::new(),
        });
        readers.all.push(Arc::clone(&reader));
        self.tell(readers, Notice::Connected(Arc::clone(&reader)));
        reader
    }

    pub(crate) fn remove(&self, reader: &Arc<Reader>, slot: &Arc<Slot>) {
        let mut readers = self.lock();
        let place = reader.place.load(Ordering::Relaxed);
        readers.all.swap_remove(place);
        if let Some(moved) = readers.all.get(place) {
            moved.place.store(place, Ordering::Relaxed);
        }
        let notice = Notice::Disconnected(Arc::clone(reader), Arc::clone(slot));
        self.tell(readers, notice);
    }

    /// All readers, as they are now.
    pub(crate) fn all(&self) -> Vec<Arc<Reader>> {
        self.lock().all.clone()
    }

    /// Marks those that match to be ended, and counts them. The predicate is user code, so no lock is held.
    pub(crate) fn end(&self, matches: impl Fn(&Reader) -> bool, ending: &Ending) -> usize {
        let mut ended = self.all();
        ended.retain(|reader| matches(reader) && reader.ending.set(ending.clone()).is_ok());
        ended.len()
    }

    /// Hands a callback to the thread for all of them, which the first one starts.
    pub(crate) fn add_callback(self: &Arc<Registry>, notice: Notice) -> io::Result<()> {
        let mut readers = self.lock();
        if readers.notices.is_none() {
            let registry = Arc::clone(self);
            let run = Box::new(move || registry.run_callbacks());
            threads::spawn("sse-callbacks", None, run)?;
            readers.notices = Some(VecDeque::new());
        }
        self.tell(readers, notice);
        Ok(())
    }

    /// Ends the thread for callbacks, once it has told what it has.
    pub(crate) fn close(&self) {
        self.tell(self.lock(), Notice::End);
    }

    fn tell(&self, mut readers: MutexGuard<'_, Readers>, notice: Notice) {
        if let Some(notices) = &mut readers.notices {
            notices.push_back(notice);
            self.told.notify_one();
        }
    }

    /// User code runs here and nowhere else, so that it can take its time, publish, or panic.
    fn run_callbacks(&self) {
        let (mut on_connect, mut on_disconnect) = (Vec::new(), Vec::new());
        loop {
            match self.next_notice() {
                Some(Notice::OnConnect(callback)) => on_connect.push(callback),
                Some(Notice::OnDisconnect(callback)) => on_disconnect.push(callback),
                Some(Notice::Connected(reader)) => call(&mut on_connect, &reader),
                Some(Notice::Disconnected(reader, _slot)) => call(&mut on_disconnect, &reader),
                Some(Notice::End) | None => return,
            }
        }
    }

    fn next_notice(&self) -> Option<Notice> {
        let nothing =
            |readers: &mut Readers| readers.notices.as_ref().is_some_and(VecDeque::is_empty);
        let told = self.told.wait_while(self.lock(), nothing);
        let mut readers = told.unwrap_or_else(PoisonError::into_inner);
        readers.notices.as_mut()?.pop_front()
    }

    /// Nothing that runs under this lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn call(callbacks: &mut [Callback], reader: &Reader) {
    for callback in callbacks {
        // The panic hook has reported it; the others still want to know.
        let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| callback(reader)));
    }
}
