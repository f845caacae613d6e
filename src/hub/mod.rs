//! `Hub`: broadcast to topics, with history.
//!
//! The plain half is complete by itself; the fast half only makes it cheaper. Read in this order, which is also that of the
//! imports:
//!
//! | file | what it is |
//! |---|---|
//! | `id`, `topics`, `error` | ids of events, names of topics, why an event was not published |
//! | `frame` | an encoded event, and several in one write |
//! | `config` | a hub's limits |
//! | `log` | the events in memory, and what a reader at a position gets |
//! | `record`, `file` | the format of the log's file; append, recover, read what memory has no more |
//! | `registry`, `shared` | who reads; what all parts of one hub share |
//! | `cursor` | how events leave the log, whoever reads |
//! | `receiver`, `subscriber`, `poll` | the three that have a cursor: code in this process, a stream, a long-poll |
//! | `fast` | the fast half: writer threads and the catch-up pool |
//! | `subscription` | from a request to a cursor and a response |
//! | `hub_thread`, `follow` | who appends: the thread that numbers what is in the inbox, or a log that others number |
//!
//! ```text
//!  publishers ──mpsc──▶ hub thread ──append──▶ log ◀──cursor── a reader's own thread, or the catch-up pool
//!                           │                                            │ at head
//!                           └────────mpsc: batch────▶ writers ◀──mpsc: join
//! ```
//!
//! Who waits for whom: a publisher for the hub thread, the hub thread for a writer, a writer for nothing.

mod archive;
mod config;
mod cursor;
mod error;
mod fast;
mod file;
mod follow;
mod frame;
mod hub_thread;
mod id;
mod log;
mod poll;
mod receiver;
mod record;
mod registry;
mod shared;
mod subscriber;
mod subscription;
mod topics;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};

pub use self::archive::{Entries, Entry, EventLog};
pub use self::config::{Durability, History, HubConfig, Lag};
pub use self::cursor::OpeningId;
pub use self::error::PublishError;
pub use self::follow::Feed;
pub use self::id::{EventId, InvalidId};
pub use self::log::Replay;
pub use self::receiver::HubReceiver;
pub use self::registry::Reader;
pub use self::shared::Stats;
pub use self::subscriber::{EndReason, StreamEnd};
pub use self::subscription::{Start, Subscription};
pub use self::topics::{InvalidTopic, Topics};

use self::cursor::Cursor;
use self::fast::{Fast, Permits, STACK_BYTES};
use self::hub_thread::{Delivery, HubThread, Message, Reply};
use self::log::Log;
use self::shared::Shared;
use crate::event::Event;
use crate::http::Request;
use crate::random::random_u64;

/// Broadcasts events to topics, and keeps a history from which readers resume. Cheap to clone. When the last handle is
/// dropped, its streams end, each after all that was published; the drop waits until the history has all of it.
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
    inner: Arc<Inner>,
}

/// What all handles share.
struct Inner {
    /// `None` for a hub that follows a log or could not start, and once the last handle is being dropped.
    inbox: Option<SyncSender<Message>>,
    shared: Arc<Shared>,
    fast: Option<Arc<Fast>>,
    hub_thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.hub_thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // An error is a panic, which the panic hook has reported.
            let _ = thread.join();
        }
        if self.shared.follows {
            self.shared.close();
            self.fast.iter().for_each(|fast| fast.sweep());
        }
    }
}

impl Hub {
    /// A hub with the default limits. If its threads cannot be started, it is closed from the beginning, and publishing says
    /// so; [`open`](Hub::open) says why.
    pub fn new() -> Hub {
        let config = HubConfig::default();
        let mut log = Log::new(config.history.clone());
        log.begin_epoch((random_u64(), 1));
        let shared = Arc::new(Shared::new(config, log, None));
        Hub::start(Arc::clone(&shared), None).unwrap_or_else(|_| {
            shared.close();
            Hub::of(None, shared, None, None)
        })
    }

    /// A hub with the limits of `config`.
    ///
    /// # Errors
    ///
    /// What the system says when a thread cannot be started or the history's file cannot be opened; `WouldBlock` when
    /// another hub has the file, `InvalidData` when it is no history: it stays as it is.
    pub fn open(config: HubConfig) -> io::Result<Hub> {
        let mut log = Log::new(config.history.clone());
        let mut file = None;
        match &config.history.file {
            Some(path) => file = Some(file::open(path, &config, &mut log)?),
            None => log.begin_epoch((random_u64(), 1)),
        }
        let (store, archive) = file.unzip();
        Hub::start(Arc::new(Shared::new(config, log, archive)), store)
    }

    /// A hub that follows a log which others number, and what tells it what is in the log. It keeps the newest events in
    /// memory as the history says, and serves and resumes readers as any hub does: an id means the same on every hub that
    /// follows the log. To publish is to append to the log: the hub's own calls are refused.
    ///
    /// [`EventLog`] has an example.
    ///
    /// # Errors
    ///
    /// What the system says when a thread cannot be started.
    pub fn follow(config: HubConfig, log: impl EventLog) -> io::Result<(Hub, Feed)> {
        let memory = Log::new(config.history.clone());
        let shared = Shared::new(config, memory, Some(Box::new(log))).following();
        let shared = Arc::new(shared);
        let (fast, permits) = Hub::start_writers(&shared.config)?;
        let feed = Feed::new(Arc::clone(&shared), fast.clone().zip(permits));
        Ok((Hub::of(None, shared, fast, None), feed))
    }

    fn start_writers(config: &HubConfig) -> io::Result<(Option<Arc<Fast>>, Option<Permits>)> {
        Ok(match config.writer_threads {
            0 => (None, None),
            count => Some(Fast::start(count, config.catch_up_threads)?).unzip(),
        })
    }

    /// Starts the threads. On an error, those that have started end.
    fn start(shared: Arc<Shared>, store: Option<Box<dyn file::Store>>) -> io::Result<Hub> {
        let (fast, permits) = Hub::start_writers(&shared.config)?;
        let (inbox, messages) = mpsc::sync_channel(shared.config.inbox_events);
        let hub_thread = HubThread {
            delivery: Delivery::new(Arc::clone(&shared), fast.clone().zip(permits)),
            inbox: messages,
            store,
            unreported: None,
        };
        let thread = thread::Builder::new().name("sse-hub".to_string());
        let thread = thread.stack_size(STACK_BYTES).spawn(|| hub_thread.run())?;
        Ok(Hub::of(Some(inbox), shared, fast, Some(thread)))
    }

    fn of(
        inbox: Option<SyncSender<Message>>,
        shared: Arc<Shared>,
        fast: Option<Arc<Fast>>,
        hub_thread: Option<JoinHandle<()>>,
    ) -> Hub {
        let inner = Inner {
            inbox,
            shared,
            fast,
            hub_thread,
        };
        Hub {
            inner: Arc::new(inner),
        }
    }

    /// Publishes an event to a topic, or once to several. Returns when the hub has taken it, waiting while the inbox is
    /// full. An id that the event brings is kept, and clients resume from it; otherwise the hub gives it one.
    ///
    /// An own id must not be used twice in a topic, or in topics that one reader reads together: a reader that comes back
    /// with such an id resumes after the oldest event that has it, or is told of a gap.
    ///
    /// What the hub has taken may not yet be in the history when the process is killed:
    /// [`publish_wait`](Hub::publish_wait) and [`flush`](Hub::flush) wait for that, and so does dropping the last handle.
    ///
    /// # Errors
    ///
    /// [`PublishError`], which says what is wrong with the topic, the id or the size.
    pub fn publish(&self, topics: impl Topics, event: Event) -> Result<(), PublishError> {
        if self.inner.shared.is_failing() {
            // Nothing is lost silently: while the file cannot be written, each publisher hears what becomes of its event.
            return self.publish_wait(topics, event).map(drop);
        }
        let message = self.message(topics.names(), event)?;
        self.send(message)
    }

    /// As [`publish`](Hub::publish), but never waits.
    ///
    /// # Errors
    ///
    /// [`PublishError::Full`] when it would have to wait, and as [`publish`](Hub::publish).
    pub fn try_publish(&self, topics: impl Topics, event: Event) -> Result<(), PublishError> {
        let message = self.message(topics.names(), event)?;
        let inbox = self.inbox()?;
        inbox.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => PublishError::Full,
            TrySendError::Disconnected(_) => PublishError::Closed,
        })
    }

    /// As [`publish`](Hub::publish), but returns only when the event is in the history, with the hub's id for it.
    ///
    /// # Errors
    ///
    /// As [`publish`](Hub::publish).
    pub fn publish_wait(&self, topics: impl Topics, event: Event) -> Result<EventId, PublishError> {
        let message = self.message(topics.names(), event)?;
        self.request(|reply| message.with_reply(reply))
    }

    /// Waits until all that was published before is in the history, and in its file where there is one.
    ///
    /// # Errors
    ///
    /// [`PublishError::Storage`] when one of the events could not be written since the last call, and its publisher did not
    /// wait; [`PublishError::Closed`].
    pub fn flush(&self) -> Result<(), PublishError> {
        self.request(Message::Flush).map(drop)
    }

    /// Publishes the last event of these topics: whoever reads them, or comes back later, gets the rest, this event and the
    /// end. A topic's readers that read other topics too go on with those. The wire id of the event says that it is the
    /// last; a client that comes back with such an id is answered with 204, which stops an `EventSource`. Not every client
    /// stops at 204: name the event, and have the page close its source there.
    ///
    /// A client that comes later without an id gets the last event and the end. The hub knows that a topic is finished as
    /// long as it keeps the event; to publish to the topic again opens it anew. An id that the event brings is replaced.
    ///
    /// # Errors
    ///
    /// As [`publish_wait`](Hub::publish_wait), which it does.
    pub fn finish(&self, topics: impl Topics, event: Event) -> Result<EventId, PublishError> {
        let mut message = self.message(topics.names(), event)?;
        if let Message::Publish { finishes, .. } = &mut message {
            *finishes = true;
        }
        self.request(|reply| message.with_reply(reply))
    }

    fn message(&self, topics: Vec<&str>, event: Event) -> Result<Message, PublishError> {
        let topics = topics::check(topics).map_err(PublishError::Topic)?;
        if let Some(id) = event.id_text() {
            id::check_callers(id).map_err(PublishError::Id)?;
        }
        let (bytes, max) = (
            event.encoded_len(),
            self.inner.shared.config.max_event_bytes,
        );
        if bytes > max {
            return Err(PublishError::TooLarge { bytes, max });
        }
        Ok(Message::Publish {
            topics,
            event,
            finishes: false,
            reply: None,
        })
    }

    fn inbox(&self) -> Result<&SyncSender<Message>, PublishError> {
        let inbox = self.inner.inbox.as_ref();
        inbox.ok_or(match self.inner.shared.follows {
            true => PublishError::Follows,
            false => PublishError::Closed,
        })
    }

    fn send(&self, message: Message) -> Result<(), PublishError> {
        self.inbox()?
            .send(message)
            .map_err(|_| PublishError::Closed)
    }

    /// Sends a message and waits for the reply.
    fn request(&self, message: impl FnOnce(Reply) -> Message) -> Result<EventId, PublishError> {
        let (reply, result) = mpsc::sync_channel(1);
        self.send(message(reply))?;
        result.recv().unwrap_or(Err(PublishError::Closed))
    }

    /// Subscribes the client of a request to topics; return the result from the handler. It begins after the request's
    /// last event id (from [`Request::last_event_id`]; the words `earliest` and `latest` are understood as well), else
    /// with the next event published after this call. An id that the history does not know or no longer covers is
    /// answered with an event named `gap` first. Its data is the id that the client had, the last one that it missed, and
    /// how many it missed, where that is known: `{"from":"…","to":"…","lost":null}`.
    ///
    /// A reader of several topics is not told of which one an event is: name the events
    /// ([`Event::event`](crate::Event::event)) where it matters. Topic names often come from the client: one that is not
    /// valid gets 400, and which ones there are is for the handler to say. A client that may read a topic may read all that
    /// is kept of it, unless [`Subscription::replay`] says otherwise.
    pub fn subscribe(&self, request: &Request, topics: impl Topics) -> Subscription {
        let topics = topics::check(topics.names());
        Subscription::new(
            &self.inner.shared,
            self.inner.fast.as_ref(),
            request,
            topics,
        )
    }

    /// The events of these topics from now on, for code in this process.
    ///
    /// ```
    /// # use tiny_sse::{Event, Hub};
    /// # let hub = Hub::new();
    /// let mut news = hub.receiver("news").unwrap();
    /// hub.publish("news", Event::data("first")).unwrap();
    /// assert_eq!(news.recv().unwrap().message().unwrap().data, "first");
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`], as for publishing.
    pub fn receiver(&self, topics: impl Topics) -> Result<HubReceiver, InvalidTopic> {
        let topics = topics::check(topics.names())?;
        let shared = Arc::clone(&self.inner.shared);
        let position = shared.log().latest(&topics);
        let cursor = Cursor::new(shared, topics, position, false, OpeningId::None);
        Ok(HubReceiver::new(cursor))
    }

    /// The topics that have an event in memory or a reader, in no particular order.
    pub fn topics(&self) -> Vec<String> {
        let log = self.inner.shared.log();
        log.topics().map(|name| name.to_string()).collect()
    }

    /// The newest event of a topic that is in memory.
    pub fn newest(&self, topic: &str) -> Option<Event> {
        let log = self.inner.shared.log();
        log.kept(topic).next_back().map(|frame| frame.event())
    }

    /// The events of a topic that are in memory, oldest first.
    pub fn kept(&self, topic: &str) -> Vec<Event> {
        let log = self.inner.shared.log();
        log.kept(topic).map(|frame| frame.event()).collect()
    }

    /// The hub's figures at this moment. Walks over all readers.
    pub fn stats(&self) -> Stats {
        self.inner.shared.stats()
    }

    /// The event streams that are open at this moment, in no particular order: for a list of who is there, or to count by
    /// topic. A stream that is to be closed is among them until it has ended. Long-polls, which come and go, are not: see
    /// [`Stats::polls`].
    ///
    /// ```
    /// # let hub = tiny_sse::Hub::new();
    /// let readers = hub.readers();
    /// let of_news = readers.iter().filter(|reader| reader.topics().any(|topic| topic == "news"));
    /// println!("{} of {} read the news", of_news.count(), readers.len());
    /// ```
    pub fn readers(&self) -> Vec<Arc<Reader>> {
        self.inner.shared.registry.all()
    }

    /// Ends the streams of the readers that match, which come back after a while as after any reconnect, and returns how
    /// many they are. This, after the session that a handler checks has been deleted, is how a user stops reading.
    ///
    /// No event that is published after this call reaches a reader that matches, nor a client whose request was under way:
    /// such a request gets an empty stream or long-poll response, since its reader is not known yet, and the client meets
    /// the handler when it comes back.
    pub fn close(&self, matches: impl Fn(&Reader) -> bool) -> usize {
        let shared = &self.inner.shared;
        let count = shared.registry.close(matches);
        shared.log().wake_all();
        if let Some(fast) = &self.inner.fast {
            fast.sweep();
        }
        count
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
            .field("config", &self.inner.shared.config)
            .finish_non_exhaustive()
    }
}
