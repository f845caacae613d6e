//! What all parts of one hub share: the log behind its lock, the readers, and figures.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::archive::EventLog;
use super::config::HubConfig;
use super::id::EventId;
use super::log::Log;
use super::registry::Registry;
use super::topics::TopicSet;
use crate::lock::lock;
use crate::threads::run_apart;

/// How long a request waits until a hub knows its id that follows a log, before its client is sent away.
const KNOWLEDGE_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct Shared {
    pub(crate) config: HubConfig,
    /// Held by the hub thread while it appends a batch and hands it to the writers, and by a reader while it takes its
    /// next events or goes to a writer. Never held while something waits for a peer, the disk or user code.
    log: Mutex<Log>,
    pub(crate) registry: Registry,
    counters: Mutex<Counters>,
    /// The last handle has gone.
    is_closed: AtomicBool,
    /// The history's file could not be written the last time.
    is_failing: AtomicBool,
    /// What has the events that memory has no more.
    pub(crate) archive: Option<Box<dyn EventLog>>,
    /// Others write the archive.
    pub(crate) follows: bool,
    /// Where requests wait, with the log's lock, until the hub knows more.
    news: Condvar,
    /// Each long-poll that waits has a handle: one that panics, in an archive's code, is counted no more.
    pub(crate) polls: Arc<()>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) lagged: u64,
    pub(crate) timed_out: u64,
}

impl Shared {
    pub(crate) fn new(config: HubConfig, log: Log, archive: Option<Box<dyn EventLog>>) -> Shared {
        Shared {
            config,
            log: Mutex::new(log),
            registry: Registry::default(),
            counters: Mutex::default(),
            is_closed: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            archive,
            follows: false,
            news: Condvar::new(),
            polls: Arc::default(),
        }
    }

    /// Notes that the hub has all that the log which it follows had then.
    pub(crate) fn note_current(&self, asked: Instant, removed_to: u64) {
        let mut log = self.log();
        log.raise_archive_lost_to(Some(removed_to));
        log.current = Some(asked);
        log.expire(Instant::now());
        self.news.notify_all();
    }

    /// The log, once it can say what this id of a request means; `None` where the hub is cut off from the log that it
    /// follows, and another hub may know.
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
        let (log, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then_some(log)
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    pub(crate) fn counters(&self) -> MutexGuard<'_, Counters> {
        lock(&self.counters)
    }

    fn report(&self, problem: String) {
        let hook = Arc::clone(&self.config.on_error);
        run_apart(Box::new(move || hook(&problem)));
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::SeqCst)
    }

    /// Notes whether the file could be written, and reports when that changes.
    pub(crate) fn note_storage(&self, error: Option<&io::Error>) {
        let was_failing = self.is_failing.swap(error.is_some(), Ordering::SeqCst);
        match error {
            Some(error) if !was_failing => {
                self.report(format!("the history cannot be written: {error}"));
            }
            None if was_failing => self.report("the history can be written again".to_string()),
            _ => {}
        }
    }

    /// Ends all streams, each after all that was published.
    pub(crate) fn close(&self) {
        let log = self.log();
        self.is_closed.store(true, Ordering::SeqCst);
        log.wake_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    pub(crate) fn stats(&self) -> Stats {
        let readers = self.registry.all();
        let head = self.log().head;
        let lags = readers.iter().filter_map(|reader| reader.lag(head));
        let (mut behind, mut worst_lag) = (0, 0);
        for lag in lags {
            behind += 1;
            worst_lag = worst_lag.max(lag);
        }
        let counters = *self.counters();
        let log = self.log();
        Stats {
            subscribers: readers.len(),
            subscribers_behind: behind,
            published: counters.published,
            delivered: counters.delivered,
            dropped_lagging: counters.lagged,
            dropped_stalled: counters.timed_out,
            polls: Arc::strong_count(&self.polls) - 1,
            worst_lag: worst_lag as u64,
            history_events: log.len(),
            history_bytes: log.bytes,
            topics: log.topics().len(),
            oldest: log.oldest(),
            newest: Some(log.id(log.head)).filter(|id| id.sequence > 0),
        }
    }
}

/// A hub's figures at one moment, from [`Hub::stats`](crate::Hub::stats). Displayed, they are Prometheus's text format, without
/// the two ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Event streams that are open. [`Hub::readers`](crate::Hub::readers) lists them.
    pub subscribers: usize,
    /// Of these, the streams that are catching up.
    pub subscribers_behind: usize,
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
    /// How far the slowest reader is behind the newest event, in sequence numbers: events of other topics count too.
    pub worst_lag: u64,
    /// Events kept in memory.
    pub history_events: usize,
    /// The memory that these events take, as [`History::bytes`](crate::History::bytes) counts it.
    pub history_bytes: usize,
    /// Topics that have an event in memory or a reader.
    pub topics: usize,
    /// The oldest event in memory.
    pub oldest: Option<EventId>,
    /// The newest event published.
    pub newest: Option<EventId>,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = [
            ("subscribers", "gauge", self.subscribers as u64),
            (
                "subscribers_behind",
                "gauge",
                self.subscribers_behind as u64,
            ),
            ("published_total", "counter", self.published),
            ("delivered_total", "counter", self.delivered),
            ("dropped_lagging_total", "counter", self.dropped_lagging),
            ("dropped_stalled_total", "counter", self.dropped_stalled),
            ("polls", "gauge", self.polls as u64),
            ("worst_lag", "gauge", self.worst_lag),
            ("history_events", "gauge", self.history_events as u64),
            ("history_bytes", "gauge", self.history_bytes as u64),
            ("topics", "gauge", self.topics as u64),
        ];
        for (name, kind, value) in figures {
            writeln!(f, "# TYPE sse_hub_{name} {kind}\nsse_hub_{name} {value}")?;
        }
        Ok(())
    }
}
