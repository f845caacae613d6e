//! Many nodes of tiny-sse that share one log in a Redis stream: [`Node`] is a hub that follows the log, and a way to publish
//! to it. `README.md` says how the log is kept and what it costs; `main.rs` puts a node behind HTTP.
//!
//! - `stream`: the keys in Redis, the scripts, and one connection;
//! - `follow`: the thread that reads new entries and gives them to the hub;
//! - `past`: events that readers ask for and that are no longer in memory;
//! - `publish`: the thread that appends;
//! - `status`, `back_off`: what the node knows of itself, and when it tries again.
#![forbid(unsafe_code)]

mod back_off;
mod follow;
mod past;
mod publish;
mod status;
mod stream;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tiny_sse::{Event, Hub, HubConfig};

use crate::follow::Follower;
use crate::past::{Past, Reader};
use crate::publish::{Inbox, Publisher};
use crate::status::Status;
use crate::stream::Epochs;

pub use crate::publish::{Pending, PublishError};
pub use crate::status::Position;
pub use crate::stream::LogConfig;

/// Events that wait for the next write to Redis; then a publisher waits.
const INBOX_EVENTS: usize = 1024;

/// Maximum bytes of an event on the wire: what a hub takes by default.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// One of the processes that share a log. It is cheap to clone. When the last handle is dropped, the node's threads end.
#[derive(Clone)]
pub struct Node {
    hub: Hub,
    inbox: Inbox,
    status: Arc<Status>,
}

impl Node {
    /// Connects to Redis and reads the newest events. Returns when the node has all that the log has.
    ///
    /// # Errors
    ///
    /// When there is no Redis at the address, when it is older than 7.0, or when a thread cannot be started.
    pub fn start(
        log: LogConfig,
        hub: HubConfig,
    ) -> Result<Node, Box<dyn std::error::Error + Send + Sync>> {
        let at = &log.redis;
        let mut link = stream::Link::connect(&log).map_err(|error| {
            format!("no Redis at {at}: {error}. Start one, or say where it is: redis=HOST:PORT")
        })?;
        link.check_version()?;
        // Before the threads, each of which says hello too: a new log begins with one epoch.
        link.hello((0, 0))?;
        let status = Arc::<Status>::default();
        let past = Arc::new(Past::new(log.clone(), Arc::clone(&status)));
        let reader = Reader(Arc::clone(&past));
        let (hub, feed) = Hub::follow(hub, reader)?;
        let (inbox, jobs) = mpsc::sync_channel(INBOX_EVENTS);
        let publisher = Publisher {
            config: log.clone(),
            jobs,
            status: Arc::clone(&status),
        };
        let follower = Follower {
            config: log,
            feed,
            past,
            status: Arc::clone(&status),
            epochs: Epochs::default(),
            reached: None,
        };
        let name = |name: &str| thread::Builder::new().name(name.to_string());
        name("follow").spawn(move || follower.run())?;
        name("publish").spawn(move || publisher.run())?;
        while !status.is_loaded() {
            thread::sleep(Duration::from_millis(5));
        }
        let inbox = Inbox(inbox);
        Ok(Node { hub, inbox, status })
    }

    /// The hub that readers subscribe to.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Publishes an event to the topics, and returns its id when Redis has it. An empty name is none.
    ///
    /// # Errors
    ///
    /// [`PublishError`] says whether the event may be in the log.
    pub fn publish(&self, topics: &[&str], name: &str, data: &str) -> Result<String, PublishError> {
        self.send(topics, name, data)?.wait()
    }

    /// Publishes an event without waiting for its id: as many as wait go to Redis in one write, in this order.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Node::publish), without what Redis answers.
    pub fn send(&self, topics: &[&str], name: &str, data: &str) -> Result<Pending, PublishError> {
        check(topics, name, data).map_err(PublishError::Invalid)?;
        if let Err(why) = self.status.health()
            && !self.status.is_draining()
        {
            return Err(PublishError::NotPublished(why.to_string()));
        }
        self.inbox.send(topics.join("\t"), name, data)
    }

    /// Says whether a balancer should send clients to this node.
    ///
    /// # Errors
    ///
    /// Why it should not: the node is draining, behind, or cut off from Redis.
    pub fn health(&self) -> Result<(), &'static str> {
        self.status.health()
    }

    /// What the node has of the log.
    pub fn position(&self) -> Position {
        self.status.position()
    }

    /// Makes [`health`](Node::health) say that the node is about to end.
    pub fn drain(&self) {
        self.status.drain();
    }

    /// Whether the node is about to end.
    pub fn is_draining(&self) -> bool {
        self.status.is_draining()
    }
}

/// Checks what a hub would check. Once an event is in the log, it is too late.
fn check(topics: &[&str], name: &str, data: &str) -> Result<(), String> {
    if topics.is_empty() || topics.len() > 64 {
        return Err(format!("{} topics, not 1 to 64", topics.len()));
    }
    for topic in topics {
        if topic.is_empty() || topic.len() > 256 || topic.chars().any(char::is_control) {
            return Err(format!(
                "topic {topic:?} is empty, too long, or has a control character"
            ));
        }
    }
    if let Err(error) = Event::new().event(name) {
        return Err(error.to_string());
    }
    // Each line gets a `data: ` in front.
    let lines = data
        .bytes()
        .filter(|byte| matches!(byte, b'\n' | b'\r'))
        .count()
        + 1;
    let bytes = data.len() + lines * "data: ".len() + name.len();
    match bytes <= MAX_EVENT_BYTES {
        true => Ok(()),
        false => Err(format!(
            "an event of {bytes} bytes is larger than {MAX_EVENT_BYTES}"
        )),
    }
}
