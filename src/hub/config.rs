//! What a hub keeps, and how far its queues go.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::user_code::{ErrorHook, stderr_hook};

/// The limits of a [`Hub`](crate::Hub). Start from [`HubConfig::default`] and change what you need.
///
/// The first fields say what the hub keeps for clients that come back. An event that exceeds any of the limits of memory is
/// evicted from memory. A history in a file has the event there, until the file exceeds a limit of its own.
///
/// ```
/// use std::time::Duration;
/// use tiny_sse::{Hub, HubConfig};
///
/// let hub = Hub::open(HubConfig {
///     history_events: 100,
///     history_age: Some(Duration::from_secs(3600)),
///     ..HubConfig::default()
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct HubConfig {
    /// How many events of each topic are kept in memory. Default: 1,024.
    ///
    /// With 0, and without a file, clients that come back are told of a gap. For connected readers, up to 64 events of a topic
    /// wait until they are sent.
    pub history_events: usize,
    /// How long an event is kept in memory. Default: `None`, its age does not matter.
    ///
    /// A history in a file keeps an older event there, and readers get it from the file. Limit the file by
    /// [`file_bytes`](HubConfig::file_bytes), and what a reader gets by [`Replay::Age`](crate::Replay::Age).
    pub history_age: Option<Duration>,
    /// How many bytes the events of all topics take in memory together. The oldest events are evicted first. Default: 64 MiB.
    /// These bytes are counted:
    ///
    /// - for each event: its size on the wire, about 300 bytes, and 40 for each topic after the first;
    /// - for an event with an id of its own: the id, 100 bytes, and 100 for each topic;
    /// - for each topic that has events: its name, and 440 bytes.
    ///
    /// The history takes less than one and a half times this limit of the process's memory. In addition, a reader that stops
    /// reading in the middle of an event keeps this event in memory, even if the history evicts it, until
    /// [`Config::write_timeout`] ends the stream. A reader that stops while it reads from a file keeps an event and 64 KiB.
    ///
    /// [`Config::write_timeout`]: crate::Config::write_timeout
    pub history_bytes: usize,
    /// The file in which the history outlives the process. Default: `None`.
    ///
    /// Clients resume from the file after a restart of the server. The newest events are in memory too, within the limits
    /// above. A reader that needs older events reads them from the file.
    ///
    /// The file is an event stream, which `cat` shows. Each full part becomes a file beside it, with the same name and a number.
    /// Only one hub at a time can open a history, also through another path.
    ///
    /// Damage destroys nothing: [`Hub::open`](crate::Hub::open) refuses a file of which it can read nothing. What it cannot read
    /// of a history stays in the file, and is reported at each start until its part is removed.
    pub history_file: Option<PathBuf>,
    /// When an event counts as written to the file. This setting has no effect without a file. Default: [`Durability::Sync`].
    pub durability: Durability,
    /// The size of the file and its parts together, in bytes, which is kept approximately: when it is exceeded, the oldest part
    /// is removed. This limit has no effect without a file. A part has 1/16 of the size, but at least 4 KiB and at most 16 MiB,
    /// or 1/256 of the size if that is more. Default: 1 GiB.
    pub file_bytes: u64,
    /// The maximum size of an event in bytes on the wire, without its id. Publishing a larger event fails. Default: 1 MiB.
    pub max_event_bytes: usize,
    /// The maximum number of events in the inbox, where they wait for the hub thread. While the inbox is full, publishers wait.
    /// The inbox takes at most this many times `max_event_bytes` of memory. Default: 1,024.
    pub inbox_events: usize,
    /// The number of threads that write to the readers that keep up. With 0, each reader keeps a thread to itself. Default: 2.
    ///
    /// More threads take less processor time and make the slowest deliveries later. On four processors, with 1,000 readers
    /// and 100 events a second each, two, three and four threads took 9.6, 8.7 and 8.1 µs a delivery, and the 99th percentile
    /// of the latency was 8, 10 and 12 ms.
    pub writer_threads: usize,
    /// The maximum number of threads that serve the readers that have fallen behind. Default: 64.
    pub catch_up_threads: usize,
    /// How long a long-poll request waits for an event. The request holds a thread for this time, even if its client leaves.
    /// Default: 25 s, below the usual time-outs of proxies.
    pub poll_timeout: Duration,
    /// The maximum number of long-poll requests that wait at a time. Each of them holds a thread. One more gets an empty
    /// response at once. Default: 2,000, half of the default [`max_threads`](crate::Config::max_threads).
    pub max_polls: usize,
    /// Called with what goes wrong outside any call, such as a full disk: by [`Hub::open`](crate::Hub::open), and later on
    /// the thread that [`Subscription::on_end`](crate::Subscription::on_end) has. Default: writes to standard error.
    pub on_error: ErrorHook,
}

impl Default for HubConfig {
    fn default() -> HubConfig {
        HubConfig {
            history_events: 1024,
            history_age: None,
            history_bytes: 64 * 1024 * 1024,
            history_file: None,
            durability: Durability::default(),
            file_bytes: 1024 * 1024 * 1024,
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

impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("history_file", &self.history_file)
            .finish_non_exhaustive()
    }
}

/// When an event counts as written to a history's file. Only then do readers get it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// When the disk has it: one `fsync` for each batch of events. The event survives a crash of the process and a loss of
    /// power.
    #[default]
    Sync,
    /// When the operating system has it. The event survives a crash of the process. A loss of power may lose the events of the
    /// last seconds; a reader that has seen them is told of a gap.
    Os,
}

/// What happens to a reader that takes events more slowly than they are published. It never delays other readers. A reader
/// that takes nothing for [`Config::write_timeout`](crate::Config::write_timeout) is disconnected in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lag {
    /// The reader catches up from the history. It is told of a gap where the history no longer has the events.
    #[default]
    CatchUp,
    /// The reader skips to the newest event, after a gap that says how many events were lost. This is for values of which only
    /// the newest counts.
    Skip,
    /// The reader is disconnected. Its client may come back with its last event id.
    Disconnect,
}
