//! `Hub`: broadcast to topics, with history. Its parts, in the order of an event's way:
//!
//! - [`topics`], [`id`]: what an event is published under and how it is called;
//! - [`rounds`]: the inbox and the hub thread, which numbers, encodes, keeps and hands on;
//! - [`frame`]: encoded events and the writes they leave in;
//! - [`file`]: the log's file, where there is one;
//! - [`log`]: what is kept, and what a reader at a cursor gets;
//! - [`subscription`], [`subscriber`]: from a request to a socket with a cursor, behind or live;
//! - [`writer`]: the threads that own the live sockets;
//! - [`poll`]: the same log for those who cannot read a stream;
//! - [`registry`], [`core`]: who reads, and what all of these share.
//!
//! Who may wait for whom: a publisher for the hub thread, the hub thread for a writer, nothing else.

mod config;
mod core;
mod file;
mod frame;
mod id;
mod json;
mod log;
mod poll;
mod registry;
mod rounds;
mod subscriber;
mod subscription;
mod topics;
mod writer;

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

pub use self::config::{Durability, History, HubConfig, Lag};
pub use self::core::Stats;
pub use self::id::{EventId, InvalidId};
pub use self::registry::Reader;
pub use self::subscription::{Start, Subscription};
pub use self::topics::{InvalidTopic, Topics};

use self::core::Core;
use self::file::Opened;
use self::frame::Frame;
use self::log::Log;
use self::registry::{Ending, Notice};
use self::rounds::{Answer, Inbox, Publication, Reply, Rounds};
use self::writer::Writer;
use crate::event::Event;
use crate::http::{Request, Response};
use crate::random::random_u64;
use crate::threads;

/// Stack of a hub's threads in bytes: they run no user code.
const STACK_BYTES: usize = 256 * 1024;

/// Broadcasts events to topics, and keeps a history from which readers resume. Cheap to clone; when the last handle is
/// dropped, its streams end, each behind all that was published.
///
/// Each handler and each producer has a handle of its own, or all use one that lives as long as the program:
///
/// ```
/// use std::sync::LazyLock;
/// use tiny_sse::{Event, Hub, Request, Response, Server};
///
/// static HUB: LazyLock<Hub> = LazyLock::new(Hub::new);
///
/// let server = Server::bind("127.0.0.1:0")?
///     .get("/events/{topic}", |request| HUB.subscribe(request, request.param("topic")))
///     .post("/events/{topic}", |request: &Request| -> Result<String, Response> {
///         let text = String::from_utf8_lossy(request.body());
///         let id = HUB.publish_wait(request.param("topic"), Event::data(text))?;
///         Ok(format!("{id}\n"))
///     });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Hub {
    inbox: Inbox,
    core: Arc<Core>,
}

impl Hub {
    /// A hub with the default limits. Should its threads not start, it is closed from the beginning, and publishing says
    /// so; [`open`](Hub::open) says why.
    pub fn new() -> Hub {
        let config = HubConfig::default();
        let mut log = Log::new(config.history.clone());
        log.begin_epoch((random_u64(), 1));
        let (hub, rounds) = Hub::assemble(config, log, None);
        if hub.start(rounds).is_err() {
            hub.core.close();
        }
        hub
    }

    /// A hub with limits of its own.
    ///
    /// # Errors
    ///
    /// What the system says when a thread cannot be started or the history's file not be opened; `WouldBlock` when
    /// another hub has the file, be it in another process or in this one, where it keeps the file for a moment after its
    /// last handle is dropped; `InvalidData` when it is no history: it stays as it is.
    pub fn open(config: HubConfig) -> io::Result<Hub> {
        let mut log = Log::new(config.history.clone());
        let mut file = None;
        match &config.history.file {
            Some((path, open)) => file = Some(open(path, &config, &mut log)?),
            None => log.begin_epoch((random_u64(), 1)),
        }
        let (hub, rounds) = Hub::assemble(config, log, file);
        hub.start(rounds)?;
        Ok(hub)
    }

    /// A hub whose threads have not started, and what its own one will run.
    fn assemble(config: HubConfig, log: Log, file: Option<Opened>) -> (Hub, Rounds) {
        let (inbox, outbox) = rounds::inbox(config.inbox_events, config.inbox_bytes);
        let (store, disk) = file.unzip();
        let core = Arc::new(Core::new(config, log, disk));
        let rounds = Rounds {
            core: Arc::clone(&core),
            outbox,
            store,
        };
        (Hub { inbox, core }, rounds)
    }

    /// Dropping the hub, and what runs its rounds, ends the threads that have started.
    fn start(&self, rounds: Rounds) -> io::Result<()> {
        self.core.behind.start_least()?;
        for mailbox in &self.core.writers {
            let writer = Writer::new(Arc::clone(mailbox), Arc::clone(&self.core.counters));
            let run = Box::new(|| writer.run());
            threads::spawn("sse-writer", Some(STACK_BYTES), run)?;
        }
        threads::spawn("sse-hub", Some(STACK_BYTES), Box::new(|| rounds.run()))
    }

    /// Publishes an event to a topic, or once to several. Returns when the hub has taken it, waiting while the inbox is
    /// full. An id that the event brings is kept, and clients resume from it; otherwise the hub gives it one.
    ///
    /// What the hub has taken may not yet be in the history when the process ends, nor in its file:
    /// [`publish_wait`](Hub::publish_wait) waits for that.
    ///
    /// # Errors
    ///
    /// [`PublishError`], which says what is wrong with the topic, the id or the size.
    pub fn publish(&self, topics: impl Topics, event: Event) -> Result<(), PublishError> {
        if self.core.is_failing() {
            // Nothing is lost silently: while the file cannot be written, each publisher hears what becomes of its event.
            return self.publish_wait(topics, event).map(drop);
        }
        self.inbox.put(self.check(topics.names(), event)?)
    }

    /// As [`publish`](Hub::publish), but never waits.
    ///
    /// # Errors
    ///
    /// [`PublishError::Full`] when it would have to wait, and as [`publish`](Hub::publish).
    pub fn try_publish(&self, topics: impl Topics, event: Event) -> Result<(), PublishError> {
        self.inbox.try_put(self.check(topics.names(), event)?)
    }

    /// As [`publish`](Hub::publish), but returns only when the event is in the history, with the hub's id for it.
    ///
    /// # Errors
    ///
    /// As [`publish`](Hub::publish).
    pub fn publish_wait(&self, topics: impl Topics, event: Event) -> Result<EventId, PublishError> {
        let mut publication = self.check(topics.names(), event)?;
        let answer = Arc::<Answer>::default();
        publication.reply = Some(Reply(Arc::clone(&answer)));
        self.inbox.put(publication)?;
        answer.wait().clone()
    }

    fn check(&self, topics: Vec<&str>, event: Event) -> Result<Publication, PublishError> {
        let topics = topics::check(topics).map_err(PublishError::Topic)?;
        if let Some(id) = event.id_text() {
            id::check_callers(id).map_err(PublishError::Id)?;
        }
        let (bytes, most) = (event.encoded_len(), self.core.config.max_event_bytes);
        if bytes > most {
            return Err(PublishError::TooLarge { bytes, most });
        }
        Ok(Publication {
            topics,
            event,
            reply: None,
        })
    }

    /// Subscribes the client of a request to topics; return the result from the handler. It begins behind the request's
    /// last event id (from [`Request::last_event_id`]; the words `earliest` and `latest` are understood as well), else
    /// with the next event published after this call. An id that the history does not know or no longer covers is
    /// answered with an event named `gap` first. Its data is the id that the client had, the last one that it missed, and
    /// how many it missed, where that is known: `{"from":"…","to":"…","lost":null}`.
    ///
    /// A reader of several topics is not told of which one an event is: name the events
    /// ([`Event::event`](crate::Event::event)) where it matters. Topic names often come from the client: one that is not
    /// valid gets 400, and which ones there are is for the handler to say.
    pub fn subscribe(&self, request: &Request, topics: impl Topics) -> Subscription {
        Subscription::new(&self.core, request, topics::check(topics.names()))
    }

    /// A channel with all events of these topics from now on, for code in this process or for
    /// [`Sse::new`](crate::Sse::new). An event carries the id that goes over the wire; [`Event::message`] takes it apart.
    ///
    /// When the channel is full, events are lost to it, and a `gap` event says how many as soon as there is room again.
    /// The hub notices that a receiver was dropped at the next event for it.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`], as for publishing.
    pub fn receiver(&self, topics: impl Topics) -> Result<Receiver<Event>, InvalidTopic> {
        let topics = topics::check(topics.names())?;
        let (sender, receiver) = mpsc::sync_channel(self.core.config.receiver_events.max(1));
        self.core.log().add_receiver(&topics, sender);
        Ok(receiver)
    }

    /// The hub's figures at this moment. Walks over all readers.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// The event streams that are open at this moment, in no particular order: for a list of who is there, or to count by
    /// topic. One that is to be closed is among them until it has ended. Long-polls, which come and go, are not: see
    /// [`Stats::polls`].
    ///
    /// ```
    /// # let hub = tiny_sse::Hub::new();
    /// let readers = hub.readers();
    /// let of_news = readers.iter().filter(|reader| reader.topics().any(|topic| topic == "news"));
    /// println!("{} of {} read the news", of_news.count(), readers.len());
    /// ```
    pub fn readers(&self) -> Vec<Arc<Reader>> {
        self.core.registry.all()
    }

    /// Ends the streams of the readers that match, which come back after a while as after any reconnect, and says how
    /// many they are. This, after the session is gone that a handler checks, is how a user stops reading.
    ///
    /// In that order, since it reaches only streams that are open: a client that is between two connections meets the
    /// handler when it comes back. One that waits in a long-poll is not counted: it gets its answer in its own time, and
    /// meets the handler with the next request.
    pub fn close(&self, matches: impl Fn(&Reader) -> bool) -> usize {
        self.end_with(matches, &Ending::ComeBack)
    }

    /// Ends the streams of the readers that match for good: they get the event under an id that is marked, and whoever
    /// comes back with such an id gets 204, which stops an `EventSource`. Says how many they are. As
    /// [`close`](Hub::close), it reaches only streams that are open.
    ///
    /// It comes behind all events that have an id by now, as those of [`publish_wait`](Hub::publish_wait) do; of those
    /// that still wait in the inbox, some may miss it. An id that the event brings is replaced.
    pub fn end(&self, matches: impl Fn(&Reader) -> bool, event: Event) -> usize {
        let newest = self.core.log().newest_id();
        let event = Frame::encode(&event, Some(&newest.ending()), &mut Vec::new());
        let behind = newest.sequence;
        self.end_with(matches, &Ending::ForGood { event, behind })
    }

    fn end_with(&self, matches: impl Fn(&Reader) -> bool, ending: &Ending) -> usize {
        let count = self.core.registry.end(matches, ending);
        self.core.sweep();
        count
    }

    /// Calls this for each event stream that begins, on a thread of its own for all callbacks, so that it may take its
    /// time and publish; of several, the first one given is called first. They hear of one reader after the other, some
    /// time after it has come or gone: [`readers`](Hub::readers) is what is true by then.
    ///
    /// A reader's place among [`Config::max_connections`](crate::Config::max_connections) is free again when its end has
    /// been told, so that callbacks that are too slow hold up new connections, and not memory; and shutdown waits for
    /// them. What takes long is for a thread of your own. A callback that holds a handle of this hub keeps the hub from
    /// closing: that is for a hub that lives as long as the program.
    ///
    /// # Errors
    ///
    /// What the system says when that thread cannot be started.
    pub fn on_connect(&self, callback: impl FnMut(&Reader) + Send + 'static) -> io::Result<()> {
        let notice = Notice::OnConnect(Box::new(callback));
        self.core.registry.add_callback(notice)
    }

    /// Calls this for each event stream that has ended, as [`on_connect`](Hub::on_connect) does. That a reader has left is
    /// noticed at its next event, on a silent stream within some five seconds.
    ///
    /// # Errors
    ///
    /// As [`on_connect`](Hub::on_connect).
    pub fn on_disconnect(&self, callback: impl FnMut(&Reader) + Send + 'static) -> io::Result<()> {
        let notice = Notice::OnDisconnect(Box::new(callback));
        self.core.registry.add_callback(notice)
    }
}

impl Default for Hub {
    fn default() -> Hub {
        Hub::new()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("config", &self.core.config)
            .finish_non_exhaustive()
    }
}

/// Why an event was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The topics are not valid.
    Topic(InvalidTopic),
    /// The event's own id is not one that can come back.
    Id(InvalidId),
    /// The event is larger than [`HubConfig::max_event_bytes`].
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The inbox is full.
    Full,
    /// The hub has ended.
    Closed,
    /// The history could not be written, and the event was not delivered.
    Storage(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Topic(error) => error.fmt(f),
            PublishError::Id(error) => error.fmt(f),
            PublishError::TooLarge { bytes, most } => {
                write!(f, "event of {bytes} bytes is larger than {most}")
            }
            PublishError::Full => f.write_str("the hub's inbox is full"),
            PublishError::Closed => f.write_str("the hub has ended"),
            PublishError::Storage(error) => write!(f, "the history cannot be written: {error}"),
        }
    }
}

impl Error for PublishError {}

/// What a client is told whose event was not published, by `?` in a handler: 400 for topics and an id, 413 for the size, 503
/// with `Retry-After` where the hub is full or has ended. For the history it is a 500, as in [`Response::failed`].
impl From<PublishError> for Response {
    fn from(error: PublishError) -> Response {
        let status = match error {
            PublishError::Topic(_) | PublishError::Id(_) => 400,
            PublishError::TooLarge { .. } => 413,
            PublishError::Full | PublishError::Closed => 503,
            PublishError::Storage(_) => return Response::failed(error),
        };
        let answer = Response::text(format!("{error}\n")).with_status(status);
        match status {
            503 => answer.with_field("Retry-After", "1"),
            _ => answer,
        }
    }
}
