//! `Hub`: broadcast to topics, with history.
//!
//! The plain half is complete by itself; the fast half only makes it cheaper. Read in this order, which is also that of the
//! imports:
//!
//! | file | what it is |
//! |---|---|
//! | `topics`, `id`, `error` | names of topics, ids of events, why an event was not published |
//! | `frame` | an encoded event, and several in one write |
//! | `config` | a hub's limits |
//! | `log` | the events in memory, and what a reader at a position gets |
//! | `archive`, `record`, `file` | a log outside memory; the format of the log's file; append, recover, read older events |
//! | `registry`, `shared` | the open event streams; what all parts of one hub share |
//! | `cursor` | how events leave the log, for every kind of reader |
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
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

pub use self::archive::{Entries, Entry, EventLog};
pub use self::config::{Durability, HubConfig, Lag};
pub use self::cursor::OpeningId;
pub use self::error::PublishError;
pub use self::follow::Feed;
pub use self::id::EventId;
pub use self::log::Replay;
pub use self::receiver::HubReceiver;
pub use self::registry::Reader;
pub use self::shared::Stats;
pub use self::subscriber::{EndReason, StreamEnd};
pub use self::subscription::Subscription;
pub use self::topics::{InvalidName, Topics};

use self::cursor::Cursor;
use self::fast::{Fast, STACK_BYTES};
use self::frame::Frame;
use self::hub_thread::{Delivery, HubThread, Message, Reply};
use self::shared::Shared;
use crate::event::Event;
use crate::http::Request;
use crate::random::random_u64;

/// Broadcasts events to topics, and keeps a history from which readers resume.
///
/// A `Hub` is a handle, and a clone of it is another handle of the same hub. The hub ends when the last handle is dropped: the
/// drop waits until the history has every event that was published, and each stream ends after these events.
///
/// Handlers and producers share one handle in a `static`, as here, or each of them owns a clone. A `static` is never dropped:
/// call [`flush`](Hub::flush) before `main` returns.
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
pub struct Hub(Arc<Inner>);

/// What all handles share.
struct Inner {
    shared: Arc<Shared>,
    fast: Option<Arc<Fast>>,
    /// The hub thread and its inbox. The inbox takes its memory at once: with a box for each message, that of 1,024 messages is
    /// 66 KiB smaller. `None` for a hub that follows a log or could not start.
    hub_thread: Option<(SyncSender<Box<Message>>, JoinHandle<()>)>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some((inbox, thread)) = self.hub_thread.take() {
            drop(inbox);
            // An error is a panic, which the panic hook has reported.
            let _ = thread.join();
        }
        self.shared.close();
        self.fast.iter().for_each(|fast| fast.sweep());
    }
}

impl Hub {
    /// Makes a hub with the default limits. If its threads cannot be started, every publish fails with
    /// [`PublishError::Closed`]. [`open`](Hub::open) returns the reason instead.
    pub fn new() -> Hub {
        Hub::open(HubConfig::default()).unwrap_or_else(|_| {
            let shared = Shared::new(HubConfig::default());
            shared.close();
            Hub(Arc::new(Inner {
                shared: Arc::new(shared),
                fast: None,
                hub_thread: None,
            }))
        })
    }

    /// Makes a hub with these limits.
    ///
    /// # Errors
    ///
    /// - `WouldBlock` when another hub uses the history's file.
    /// - `InvalidData` when the file is not a history. The file is left as it is.
    /// - The system's error when the file cannot be opened, or a thread cannot be started.
    pub fn open(config: HubConfig) -> io::Result<Hub> {
        let mut shared = Shared::new(config);
        let mut store = None;
        match &shared.config.history_file {
            Some(path) => {
                let opened = file::open(path, &shared.config, &mut shared.log())?;
                store = Some(opened.0);
                shared.archive = Some(Box::new(opened.1));
            }
            None => shared.log().begin_epoch((random_u64(), 1)),
        }
        let delivery = Delivery::start(Arc::new(shared))?;
        let (shared, fast) = (Arc::clone(&delivery.shared), delivery.fast.clone());
        let (inbox, messages) = mpsc::sync_channel(shared.config.inbox_events);
        let hub_thread = HubThread {
            delivery,
            inbox: messages,
            store,
            unreported: None,
        };
        let thread = thread::Builder::new().name("sse-hub".to_string());
        let thread = thread.stack_size(STACK_BYTES).spawn(|| hub_thread.run())?;
        Ok(Hub(Arc::new(Inner {
            shared,
            fast,
            hub_thread: Some((inbox, thread)),
        })))
    }

    /// Makes a hub that follows a log outside this process, such as a Redis stream that several servers share. The log
    /// numbers the events. The [`Feed`] tells the hub what is in the log.
    ///
    /// The hub keeps the newest events in memory, within the limits of `config`, and reads older ones from the log.
    /// An id means the same event on every hub that follows the log, so a client can resume at any of them. To publish an
    /// event, append it to the log: [`publish`](Hub::publish) fails with [`PublishError::Closed`].
    ///
    /// Requests wait until the first call of [`Feed::current`], before which the hub does not know where the log is. A
    /// [`receiver`](Hub::receiver) does not wait: one that is made before that begins with the log's first entry, and does not
    /// know an id that it is to begin [after](HubReceiver::after).
    ///
    /// [`EventLog`] has an example.
    ///
    /// # Errors
    ///
    /// The system's error when a thread cannot be started.
    pub fn follow(config: HubConfig, log: impl EventLog) -> io::Result<(Hub, Feed)> {
        let mut shared = Shared::new(config);
        shared.archive = Some(Box::new(log));
        shared.follows = true;
        let delivery = Delivery::start(Arc::new(shared))?;
        let (shared, fast) = (Arc::clone(&delivery.shared), delivery.fast.clone());
        let inner = Inner {
            shared,
            fast,
            hub_thread: None,
        };
        Ok((Hub(Arc::new(inner)), Feed::new(delivery)))
    }

    /// Publishes an event to a topic, or to several. A reader of several of these topics gets the event once.
    ///
    /// Returns when the event is in the hub's inbox, and waits while the inbox is full. The event is not yet in the history
    /// then, and is lost if the process is killed. [`publish_wait`](Hub::publish_wait), [`flush`](Hub::flush) and the drop of
    /// the last handle wait until it is in the history.
    ///
    /// The hub gives the event an id, unless the event has one of its own. Do not use an own id twice in a topic, or in topics
    /// that one reader reads together: a client that resumes from such an id resumes after the oldest event with it, or is
    /// told of a gap. The hub cannot tell this if the older event left memory before the id came again: then the client resumes
    /// after the newer event, and misses what is between them.
    ///
    /// # Errors
    ///
    /// [`PublishError`] when the topic, the id or the size of the event is not valid, or the hub has ended.
    pub fn publish(&self, topics: impl Topics, event: Event) -> Result<(), PublishError> {
        if self.0.shared.is_failing() {
            // Nothing is lost silently: while the file cannot be written, each publisher waits for the result of its event.
            return self.publish_wait(topics, event).map(drop);
        }
        self.send(self.message(topics.names(), event)?)
    }

    /// Publishes as [`publish`](Hub::publish) does, but never waits.
    ///
    /// # Errors
    ///
    /// [`PublishError::Full`] when the inbox is full; otherwise as [`publish`](Hub::publish).
    pub fn try_publish(&self, topics: impl Topics, event: Event) -> Result<(), PublishError> {
        let message = self.message(topics.names(), event)?;
        let sent = self.inbox()?.try_send(Box::new(message));
        sent.map_err(|error| match error {
            TrySendError::Full(_) => PublishError::Full,
            TrySendError::Disconnected(_) => PublishError::Closed,
        })
    }

    /// Publishes as [`publish`](Hub::publish) does, waits until the event is in the history, and returns the hub's id of the
    /// event.
    ///
    /// # Errors
    ///
    /// [`PublishError::Storage`] when the history's file cannot be written: then no reader gets the event. Otherwise as
    /// [`publish`](Hub::publish).
    pub fn publish_wait(&self, topics: impl Topics, event: Event) -> Result<EventId, PublishError> {
        self.request(self.message(topics.names(), event)?)
    }

    /// Waits until every event that was published before is in the history, and in its file if it has one.
    ///
    /// # Errors
    ///
    /// - [`PublishError::Storage`] when an event since the last call could not be written, and its publisher did not wait for
    ///   the result.
    /// - [`PublishError::Closed`] when the hub has ended.
    pub fn flush(&self) -> Result<(), PublishError> {
        self.request(Message::default()).map(drop)
    }

    /// Publishes the last event of these topics, as [`publish_wait`](Hub::publish_wait) does, and finishes the topics.
    ///
    /// - A stream whose topics are all finished ends after this event. A stream with other topics goes on.
    /// - A client that resumes later gets the events that it has missed, this one, and the end.
    /// - A client that comes later without an id gets this event and the end.
    /// - The event's id on the wire ends with `-end`. A client that comes back with this id gets 204, which stops an
    ///   `EventSource`. Some other clients ignore a 204: name the event, and have the page close its source at that name. A
    ///   client of several topics resumes after the event, unless the history has the last events of all of them.
    ///
    /// The topics stay finished while the hub has the event in memory. After that, a client that resumes from a file may get the
    /// event without the end of its stream. Publishing to a finished topic opens it again. An id that the event has of its own
    /// is replaced.
    ///
    /// # Errors
    ///
    /// As [`publish_wait`](Hub::publish_wait).
    pub fn finish(&self, topics: impl Topics, event: Event) -> Result<EventId, PublishError> {
        self.request(Message {
            finishes: true,
            ..self.message(topics.names(), event)?
        })
    }

    /// Checks an event and its topics, and makes the message of a publisher that does not wait.
    fn message(&self, topics: Vec<&str>, event: Event) -> Result<Message, PublishError> {
        let topics = topics::check(topics).map_err(PublishError::Name)?;
        if let Some(id) = event.id_text() {
            id::check_callers(id).map_err(PublishError::Name)?;
        }
        let bytes = event.encoded_len();
        let max = self.0.shared.config.max_event_bytes;
        if bytes > max {
            return Err(PublishError::TooLarge { bytes, max });
        }
        Ok(Message {
            topics,
            event: Some(event),
            ..Message::default()
        })
    }

    /// Returns the inbox of the hub thread, where the hub has one.
    fn inbox(&self) -> Result<&SyncSender<Box<Message>>, PublishError> {
        let inbox = self.0.hub_thread.as_ref().map(|(inbox, _)| inbox);
        inbox.ok_or(PublishError::Closed)
    }

    /// Sends a message, and waits while the inbox is full.
    fn send(&self, message: Message) -> Result<(), PublishError> {
        let sent = self.inbox()?.send(Box::new(message));
        sent.map_err(|_| PublishError::Closed)
    }

    /// Sends a message and waits for the reply.
    fn request(&self, mut message: Message) -> Result<EventId, PublishError> {
        let result = Arc::new(OnceLock::new());
        message.reply = Some(Reply(Arc::clone(&result)));
        self.send(message)?;
        result.wait().clone()
    }

    /// Subscribes the client of a request to a topic, or to several. Return the subscription from the handler.
    ///
    /// The stream begins after the client's last event id ([`Request::last_event_id`]), or at the word `earliest` or `latest`
    /// in its place. Without an id, it begins with the next event that is published after this call.
    ///
    /// If events after the id are no longer kept, or the hub does not know the id, the first event is named `gap`. Its data
    /// is `{"from":"…","to":"…","lost":null}`: the client's id, the id of the last event that is missing, and the number of
    /// missing events, or `null` where the number is not known.
    ///
    /// The hub knows no users: check in the handler who may read which topic. A client that may read a topic may read all
    /// that is kept of it; [`Subscription::replay`] limits this. A name that no topic can have gets 400.
    ///
    /// An event does not say of which topic it is. Give the events names ([`Event::event`](crate::Event::event)) where a
    /// reader of several topics has to know.
    pub fn subscribe(&self, request: &Request, topics: impl Topics) -> Subscription {
        let Inner { shared, fast, .. } = &*self.0;
        let topics = topics::check(topics.names());
        Subscription::new(shared, fast.as_ref(), request, topics)
    }

    /// Returns a receiver of the events of these topics, from now on, for code in this process.
    ///
    /// ```
    /// # use tiny_sse::{Event, Hub};
    /// # let hub = Hub::new();
    /// let mut news = hub.receiver("news")?;
    /// hub.publish("news", Event::data("first"))?;
    /// assert_eq!(news.recv(), hub.newest("news"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when a name cannot be a topic's.
    pub fn receiver(&self, topics: impl Topics) -> Result<HubReceiver, InvalidName> {
        let topics = topics::check(topics.names())?;
        Ok(HubReceiver::new(Cursor::new(&self.0.shared, &topics)))
    }

    /// Returns the topics that have an event in memory or a reader, in no particular order.
    pub fn topics(&self) -> Vec<String> {
        let log = self.0.shared.log();
        log.topics().map(|name| name.to_string()).collect()
    }

    /// Returns the newest event of a topic that is in memory.
    pub fn newest(&self, topic: &str) -> Option<Event> {
        let log = self.0.shared.log();
        log.kept(topic).next_back().map(Frame::event)
    }

    /// Returns the events of a topic that are in memory, oldest first.
    pub fn kept(&self, topic: &str) -> Vec<Event> {
        self.0.shared.log().kept(topic).map(Frame::event).collect()
    }

    /// Returns the hub's figures at this moment. The call walks over all readers.
    pub fn stats(&self) -> Stats {
        self.0.shared.stats()
    }

    /// Returns the event streams that are open at this moment, in no particular order: to list who is there, or to count the
    /// readers of a topic. A stream that [`close`](Hub::close) was called for is among them until it has ended. Long-polls are
    /// not among them: [`Stats::polls`] counts these.
    ///
    /// ```
    /// # let hub = tiny_sse::Hub::new();
    /// let readers = hub.readers();
    /// let of_news = readers.iter().filter(|reader| reader.topics().any(|topic| topic == "news"));
    /// println!("{} of {} read the news", of_news.count(), readers.len());
    /// ```
    pub fn readers(&self) -> Vec<Arc<Reader>> {
        self.0.shared.registry.all()
    }

    /// Ends the streams of the readers for which `matches` returns true, and returns their number. The clients reconnect. To
    /// log a user out, first delete the session that the handler checks, then close the user's streams by their
    /// [label](Subscription::label): the handler refuses the client when it comes back.
    ///
    /// No event that is published after this call reaches a reader that matches. A request that is in progress during the
    /// call has no reader yet to match. Every such request gets a stream or a long-poll response without events, and its client
    /// comes back to the handler.
    pub fn close(&self, matches: impl Fn(&Reader) -> bool) -> usize {
        let shared = &self.0.shared;
        let count = shared.registry.close(matches);
        shared.log().wake_all();
        self.0.fast.iter().for_each(|fast| fast.sweep());
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
        f.debug_tuple("Hub").field(&self.0.shared.config).finish()
    }
}
