//! What a hub keeps, and how far its queues go.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::user_code::{ErrorHook, guarded, stderr_hook};

/// The limits of a [`Hub`](crate::Hub). Start from [`HubConfig::default`] and change what you need.
#[derive(Clone)]
pub struct HubConfig {
    /// What is kept for readers that come back. Default: [`History::default`].
    pub history: History,
    /// What happens to a reader that is too slow, unless its subscription says otherwise. Default: [`Lag::CatchUp`].
    pub lag: Lag,
    /// Largest event in bytes, as it goes over the wire without its id. A larger event is refused. Default: 1 MiB.
    pub max_event_bytes: usize,
    /// Most events that wait for the hub thread; then a publisher waits. Their memory is at most this many times
    /// `max_event_bytes`. Default: 1,024.
    pub inbox_events: usize,
    /// Threads that write to the readers that keep up. With 0, each reader keeps a thread to itself. Default: 2.
    /// On four processors, at 1,000 readers with 100 events a second each, two took 9.6 µs a delivery, three 8.7 and four
    /// 8.1, while the slowest hundredth came after 8, 10 and 12 ms: a processor that is left free serves the others.
    pub writer_threads: usize,
    /// Most threads that serve the readers that have fallen behind the writer threads. Default: 64.
    pub catch_up_threads: usize,
    /// How long a long-poll request waits for an event, and holds its thread even if its client leaves meanwhile.
    /// Default: 25 s, below the usual time-outs of proxies.
    pub poll_timeout: Duration,
    /// Most long-poll requests that wait at a time. Each holds a thread, so one more gets an empty response at once.
    /// Default: 2,000, half of the default [`max_threads`](crate::Config::max_threads).
    pub max_polls: usize,
    /// Called with what goes wrong outside any call, such as a full disk. Default: writes to standard error.
    pub on_error: ErrorHook,
}

impl Default for HubConfig {
    fn default() -> HubConfig {
        HubConfig {
            history: History::default(),
            lag: Lag::default(),
            max_event_bytes: 1024 * 1024,
            inbox_events: 1024,
            writer_threads: 2,
            catch_up_threads: 64,
            poll_timeout: Duration::from_secs(25),
            max_polls: 2_000,
            on_error: stderr_hook(),
        }
    }
}

impl HubConfig {
    /// Calls the error hook. The hook is user code: its panic ends this call alone.
    pub(crate) fn report(&self, problem: &str) {
        guarded(|| (self.on_error)(problem));
    }
}

impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("history", &self.history)
            .field("lag", &self.lag)
            .field("max_event_bytes", &self.max_event_bytes)
            .field("inbox_events", &self.inbox_events)
            .field("writer_threads", &self.writer_threads)
            .field("catch_up_threads", &self.catch_up_threads)
            .field("poll_timeout", &self.poll_timeout)
            .field("max_polls", &self.max_polls)
            .finish_non_exhaustive()
    }
}

/// How much a hub keeps for readers that come back: by number for each topic, by age, and by size in total, whichever
/// is reached first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a history does nothing until a `HubConfig` has it"]
pub struct History {
    pub(crate) events: usize,
    pub(crate) age: Option<Duration>,
    pub(crate) bytes: usize,
    /// Where the history outlives the process.
    pub(crate) file: Option<PathBuf>,
    pub(crate) durability: Durability,
    pub(crate) file_bytes: u64,
}

/// When an event counts as kept in a history's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// When the disk has it: one `fsync` for each round of events, before any reader gets them. It survives the end of
    /// the process and of the power.
    #[default]
    Sync,
    /// When the system has it. It survives the end of the process; with the power the last seconds may go, and a reader
    /// that has seen them is told of a gap.
    Os,
}

impl Default for History {
    /// 1,024 events of each topic, of any age, 64 MiB in all.
    fn default() -> History {
        History {
            events: 1024,
            age: None,
            bytes: 64 * 1024 * 1024,
            file: None,
            durability: Durability::default(),
            file_bytes: 1024 * 1024 * 1024,
        }
    }
}

impl History {
    /// Keeps the history in a file, and as much of it in memory as the other settings say. Readers resume from the file
    /// over restarts, and those that want more than memory has read it from the file.
    ///
    /// The file is an event stream like any other. Its full parts are beside it, under its name and a number. A second hub
    /// that opens any of these files is refused, whatever path it comes through. What cannot be read is never destroyed:
    /// [`Hub::open`](crate::Hub::open) refuses a file of which it can read nothing, and copies a file whose end is damaged
    /// before it cuts that end off.
    ///
    /// Default: 1 GiB in parts of 16 MiB, [`Durability::Sync`].
    pub fn file(path: impl Into<PathBuf>) -> History {
        History {
            file: Some(path.into()),
            ..History::default()
        }
    }

    /// When an event counts as kept. Without a file it means nothing.
    pub fn durability(mut self, durability: Durability) -> History {
        self.durability = durability;
        self
    }

    /// Keeps at most about so many bytes in the file. A part has a sixteenth of them, but at least 4 KiB and at most 16 MiB,
    /// or 1/256 where that is more. The oldest part is removed first. Without a file it means nothing.
    pub fn file_bytes(mut self, bytes: u64) -> History {
        self.file_bytes = bytes;
        self
    }

    /// Keeps this many events of each topic in memory.
    pub fn events(events: usize) -> History {
        History::default().with_events(events)
    }

    /// The same history with so many events of each topic in memory.
    pub fn with_events(mut self, events: usize) -> History {
        self.events = events;
        self
    }

    /// Keeps nothing for readers that come back: they are told of a gap for what was published meanwhile. For readers that
    /// are connected, at most 64 events of a topic wait until they are sent.
    pub fn none() -> History {
        History::events(0)
    }

    /// Keeps no event longer than this.
    pub fn age(mut self, age: Duration) -> History {
        self.age = Some(age);
        self
    }

    /// Keeps at most so much in memory, of all topics together; the oldest events go first. What counts is what an event
    /// takes there: its bytes on the wire, some 300 more and 40 for each further topic, an id that the publisher gave, once
    /// and 80 bytes for each topic, and for each topic that has events 440 bytes and its name.
    ///
    /// The memory that the process takes for its history stays below one and a half times this limit. Besides, a reader
    /// that is stuck in the middle of an event keeps that event in memory, also when the history has evicted it: one for
    /// each reader, until [`Config::write_timeout`] ends the stream. A reader that is stuck while it reads from a file keeps
    /// an event and 64 KiB.
    ///
    /// [`Config::write_timeout`]: crate::Config::write_timeout
    pub fn bytes(mut self, bytes: usize) -> History {
        self.bytes = bytes;
        self
    }
}

/// What happens to a reader that does not take events as fast as they come. In any case it costs the others nothing, and
/// one that takes nothing for [`Config::write_timeout`](crate::Config::write_timeout) is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lag {
    /// It catches up from the history; what that no longer has is announced as a gap.
    #[default]
    CatchUp,
    /// It skips to the newest event, behind a gap that says how many were lost: for values of which only the last counts.
    Skip,
    /// It is disconnected, and may come back with its last event id.
    Disconnect,
}
