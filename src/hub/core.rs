//! What the threads of one hub share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::STACK_BYTES;
use super::config::HubConfig;
use super::file::{OnDisk, Readers};
use super::id::EventId;
use super::log::{GroupId, Log, Next, Position};
use super::registry::Registry;
use super::subscriber::Subscriber;
use super::topics::TopicSet;
use super::writer::Mailbox;
use crate::threads::{Plan, Threads};

pub(crate) struct Core {
    pub(crate) config: HubConfig,
    /// Held by the hub thread while it appends a round and hands it on, and by a reader's thread while it takes its
    /// next events or hands itself over. Never across one that waits for a peer or for the disk.
    log: Mutex<Log>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) writers: Vec<Arc<Mailbox>>,
    /// The readers that are behind, and the threads that serve them.
    pub(crate) behind: Threads<Box<Subscriber>>,
    pub(crate) counters: Arc<Counters>,
    closed: AtomicBool,
    /// The history's file could not be written the last time.
    failing: AtomicBool,
    /// The history's file, for those who read it.
    disk: Option<Readers>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) lagged: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) polls: AtomicUsize,
}

impl Core {
    pub(crate) fn new(config: HubConfig, log: Log, disk: Option<Readers>) -> Core {
        let plan = Plan {
            name: "sse-catch-up",
            // One stays, since whoever puts a reader into their queue starts none.
            least: 1,
            most: config.catch_up_threads.max(1),
            stack_bytes: STACK_BYTES,
        };
        let writers = 0..config.writer_threads.max(1);
        Core {
            log: Mutex::new(log),
            registry: Arc::default(),
            writers: writers.map(|_| Arc::default()).collect(),
            behind: Threads::new(plan, Box::new(Subscriber::catch_up)),
            counters: Arc::default(),
            closed: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            disk,
            config,
        }
    }

    /// Each of the log's methods is one step, and none leaves it half changed.
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// Notes whether the file could be written, and says so when that changes.
    pub(crate) fn note_storage(&self, error: Option<&io::Error>) {
        let was_failing = self.failing.swap(error.is_some(), Ordering::SeqCst);
        match error {
            Some(error) if !was_failing => {
                (self.config.on_error)(&format!("the history cannot be written: {error}"));
            }
            None if was_failing => (self.config.on_error)("the history can be written again"),
            _ => {}
        }
    }

    /// What comes next for a reader, from memory or, with no lock held, from the file.
    pub(crate) fn next(
        &self,
        group: GroupId,
        topics: &TopicSet,
        position: &mut Position,
        disk: &mut Option<Box<dyn OnDisk>>,
        max_bytes: usize,
    ) -> Next {
        let next = self.log().next(group, position, max_bytes);
        let (Next::OnDisk { head }, Some(readers)) = (&next, &self.disk) else {
            // Its buffer is only worth its memory while it is used.
            *disk = None;
            return next;
        };
        let reader = disk.get_or_insert_with(readers);
        match reader.read(topics, &mut position.cursor, *head, max_bytes) {
            Some(events) => Next::Events(events),
            None => {
                *disk = None;
                Next::Gap(self.log().gap_to_memory(topics, position))
            }
        }
    }

    /// Waits at most so long until there is something for a reader that has everything.
    pub(crate) fn wait_for_news(&self, group: GroupId, position: &Position, wait: Duration) {
        let log = self.log();
        let news = log.news(group);
        let nothing = |log: &mut Log| !self.is_closed() && log.is_at_head(group, position);
        drop(news.wait_timeout_while(log, wait, nothing));
    }

    /// The last handle has gone: all streams end.
    pub(crate) fn close(&self) {
        {
            // Under the lock: nobody becomes live any more, and the sweep finds those who have.
            let _log = self.log();
            self.closed.store(true, Ordering::SeqCst);
        }
        self.sweep();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Has the writers look at once who is to end.
    pub(crate) fn sweep(&self) {
        for writer in &self.writers {
            writer.sweep();
        }
    }

    /// Counts a reader that was dropped for what it did not take.
    pub(crate) fn count_drop(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut {
            self.counters.timed_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let readers = self.registry.all();
        let log = self.log();
        let behind: Vec<u64> = readers
            .iter()
            .filter_map(|reader| reader.behind())
            .collect();
        let slowest = behind.iter().min();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            subscribers: readers.len(),
            subscribers_behind: behind.len(),
            published: count(&self.counters.published),
            delivered: count(&self.counters.delivered),
            dropped_lagging: count(&self.counters.lagged),
            dropped_stalled: count(&self.counters.timed_out),
            polls: self.counters.polls.load(Ordering::Relaxed),
            worst_lag: slowest.map_or(0, |cursor| log.head.saturating_sub(*cursor)),
            history_events: log.len,
            history_bytes: log.bytes,
            topics: log.topics(),
            oldest: log.oldest(),
            newest: Some(log.newest_id()).filter(|id| id.sequence > 0),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.registry.close();
        for writer in &self.writers {
            writer.close();
        }
    }
}

/// A hub's figures at one moment, from [`Hub::stats`](crate::Hub::stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Event streams that are open.
    pub subscribers: usize,
    /// Of those, the ones that are catching up.
    pub subscribers_behind: usize,
    /// Events that were numbered since the hub was opened.
    pub published: u64,
    /// Events that were handed to a reader's socket, for all readers together.
    pub delivered: u64,
    /// Readers that were disconnected because they fell behind, as [`Lag::Disconnect`](crate::Lag::Disconnect) asks.
    pub dropped_lagging: u64,
    /// Readers that were disconnected because they took nothing, or too little, for too long.
    pub dropped_stalled: u64,
    /// Long-poll requests that wait.
    pub polls: usize,
    /// How many sequence numbers the slowest reader is behind the newest event.
    pub worst_lag: u64,
    /// Events kept in memory.
    pub history_events: usize,
    /// Their encoded bytes.
    pub history_bytes: usize,
    /// Topics that have an event or a reader.
    pub topics: usize,
    /// The oldest event kept.
    pub oldest: Option<EventId>,
    /// The newest event published.
    pub newest: Option<EventId>,
}
