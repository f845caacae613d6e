//! What all parts of one hub share: the log behind its lock, the readers, and figures.
//!
//! | lock | who holds it, for one step |
//! | --- | --- |
//! | the log's | the hub thread, to append a batch and hand it to the writers; a reader, to take its next events or to join a writer |
//! | the list of readers | a stream that begins or ends; a call that lists or closes readers |
//! | the figures | a thread that has published or delivered something |
//!
//! A thread that holds one of the last two takes no other lock, and a thread that holds the log's takes none of these two. So
//! no thread holds two of them, and no order of locking has to be kept.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::archive::EventLog;
use super::config::HubConfig;
use super::id::EventId;
use super::log::Log;
use super::registry::Registry;
use super::topics::TopicSet;
use crate::lock::{ignore_poison, lock};
use crate::threads::run_apart;

/// How long a request waits until a hub that follows a log knows the request's id. After that, its client is sent away.
const KNOWLEDGE_WAIT: Duration = Duration::from_secs(1);

/// What a hub's handles, its threads and its readers share.
pub(crate) struct Shared {
    /// The limits, and the error hook.
    pub(crate) config: HubConfig,
    /// Held by the hub thread while it appends a batch and hands it to the writers, and by a reader while it takes its
    /// next events or goes to a writer. Never held while something waits for a peer, the disk or user code.
    log: Mutex<Log>,
    /// The event streams. Long-polls and receivers are not among them.
    pub(crate) registry: Registry,
    /// The figures that are counted: `published`, `delivered` and the two of dropped readers. The other figures stay 0 here,
    /// and are looked up. Guarded by a lock, since some 32-bit targets have no 64-bit atomics.
    counters: Mutex<Stats>,
    /// The last handle has gone. It is set under the log's lock. Readers check it under the same lock before they wait, so none
    /// of them misses it. Once set, it stays.
    is_closed: AtomicBool,
    /// The history's file could not be written the last time. Only the hub thread sets it.
    is_failing: AtomicBool,
    /// The source of events that are no longer in memory: the history's file, or the log that the hub follows.
    pub(crate) archive: Option<Box<dyn EventLog>>,
    /// The hub follows a log: the archive is written by others.
    pub(crate) follows: bool,
    /// Where requests wait, with the log's lock, until the hub knows more of the log that it follows: see `log_that_knows`.
    news: Condvar,
    /// Counts the long-polls that wait: each holds a clone. A clone is dropped even where an archive's code panics.
    pub(crate) polls: Arc<()>,
}

impl Shared {
    /// Begins with an empty log, and no archive.
    pub(crate) fn new(config: HubConfig) -> Shared {
        Shared {
            log: Mutex::new(Log::new(config.clone())),
            config,
            registry: Registry::default(),
            counters: Mutex::default(),
            is_closed: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            archive: None,
            follows: false,
            news: Condvar::new(),
            polls: Arc::default(),
        }
    }

    /// Notes that the hub has all that the log which it follows had at the time `asked`, and that this log has removed its
    /// events up to `removed_to`. Wakes the requests that wait for this.
    pub(crate) fn note_current(&self, asked: Instant, removed_to: u64) {
        let mut log = self.log();
        log.raise_archive_lost_to(Some(removed_to));
        log.current = Some(asked);
        log.has_begun = true;
        log.expire(Instant::now());
        self.news.notify_all();
    }

    /// Locks and returns the log, once it can say what this id of a request means; `None` where the hub is cut off from
    /// the log that it follows, and another hub may know.
    pub(crate) fn log_that_knows(
        &self,
        id: Option<&str>,
        topics: &TopicSet,
        request: Instant,
    ) -> Option<MutexGuard<'_, Log>> {
        let log = self.log();
        if !self.follows {
            return Some(log);
        }
        let is_unsure = |log: &mut Log| match log.current {
            None => true,
            Some(current) => current < request && id.is_some_and(|id| log.may_come(id, topics)),
        };
        let waited = self.news.wait_timeout_while(log, KNOWLEDGE_WAIT, is_unsure);
        let (log, timeout) = ignore_poison(waited);
        (!timeout.timed_out()).then_some(log)
    }

    /// Locks the log.
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// Locks the figures that are counted. No other lock is taken meanwhile.
    pub(crate) fn counters(&self) -> MutexGuard<'_, Stats> {
        lock(&self.counters)
    }

    /// Calls the error hook on the thread for user code.
    fn report(&self, problem: String) {
        let hook = Arc::clone(&self.config.on_error);
        run_apart(Box::new(move || hook(&problem)));
    }

    /// Returns whether the history's file could not be written the last time.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::SeqCst)
    }

    /// Notes whether the file could be written, and reports when that changes.
    pub(crate) fn note_storage(&self, error: Option<&io::Error>) {
        let was_failing = self.is_failing.swap(error.is_some(), Ordering::SeqCst);
        match (was_failing, error) {
            (false, Some(error)) => self.report(format!("the history cannot be written: {error}")),
            (true, None) => self.report("the history can be written again".to_string()),
            _ => {}
        }
    }

    /// Ends all streams, each after all events that were published.
    pub(crate) fn close(&self) {
        let log = self.log();
        self.is_closed.store(true, Ordering::SeqCst);
        log.wake_all();
    }

    /// Returns whether the last handle has gone, so that streams end once they have everything.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Looks up the figures of this moment, walking over all readers.
    pub(crate) fn stats(&self) -> Stats {
        let readers = self.registry.all();
        let behind = readers
            .iter()
            .filter(|reader| reader.is_behind.load(Ordering::Relaxed));
        let counters = *self.counters();
        let log = self.log();
        Stats {
            readers: readers.len(),
            readers_behind: behind.count(),
            polls: Arc::strong_count(&self.polls) - 1,
            history_events: log.len(),
            history_bytes: log.bytes,
            topics: log.topics().len(),
            oldest: log.oldest(),
            newest: Some(log.id(log.head)).filter(|id| id.sequence > 0),
            ..counters
        }
    }
}

/// A hub's figures at one moment, from [`Hub::stats`](crate::Hub::stats). Displayed, they are Prometheus's text format, without
/// the two ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Event streams that are open. [`Hub::readers`](crate::Hub::readers) lists them.
    pub readers: usize,
    /// Of these, the streams that are catching up.
    pub readers_behind: usize,
    /// Events that were published since the hub was opened.
    pub published: u64,
    /// Events that were written to the readers' sockets: an event for two readers counts twice. Replayed and retained events
    /// count too.
    pub delivered: u64,
    /// Readers that were disconnected because they fell behind, as [`Lag::Disconnect`](crate::Lag::Disconnect) asks.
    pub dropped_lagging: u64,
    /// Readers that were disconnected because they took nothing, or too little: see [`EndReason::Stalled`](crate::EndReason).
    pub dropped_stalled: u64,
    /// Long-poll requests that wait.
    pub polls: usize,
    /// Events kept in memory.
    pub history_events: usize,
    /// The memory that these events take, as [`HubConfig::history_bytes`](crate::HubConfig::history_bytes) counts it.
    pub history_bytes: usize,
    /// Topics that have an event in memory or a reader.
    pub topics: usize,
    /// The oldest event in memory.
    pub oldest: Option<EventId>,
    /// The newest event published.
    pub newest: Option<EventId>,
}

impl fmt::Display for Stats {
    /// Writes two lines for each figure, the type and the value: `# TYPE sse_hub_published_total counter`, and then
    /// `sse_hub_published_total 12`. In Prometheus, a counter only rises, and a gauge may fall.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = [
            ("readers", self.readers as u64),
            ("readers_behind", self.readers_behind as u64),
            ("published_total", self.published),
            ("delivered_total", self.delivered),
            ("dropped_lagging_total", self.dropped_lagging),
            ("dropped_stalled_total", self.dropped_stalled),
            ("polls", self.polls as u64),
            ("history_events", self.history_events as u64),
            ("history_bytes", self.history_bytes as u64),
            ("topics", self.topics as u64),
        ];
        for (name, value) in figures {
            let kind = match name.ends_with("_total") {
                true => "counter",
                false => "gauge",
            };
            writeln!(f, "# TYPE sse_hub_{name} {kind}\nsse_hub_{name} {value}")?;
        }
        Ok(())
    }
}
