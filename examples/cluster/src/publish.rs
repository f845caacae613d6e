//! The thread that appends to the log: all events that have come meanwhile go to Redis in one write.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use redis::Value;

use crate::back_off::BackOff;
use crate::status::Status;
use crate::stream::{Epochs, Link, LogConfig, Result, format_epoch, sequence};

/// Maximum number of events and bytes of one pipeline.
const PIPELINE: (usize, usize) = (256, 256 * 1024);

/// After this time without an event the connection is tested, so that the next publisher is not the one to find out that it is
/// gone.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Why an event has no id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The event or a topic is not valid.
    Invalid(String),
    /// The event is not in the log and will not be. It can be published again later.
    NotPublished(String),
    /// The answer of Redis is lost: the event may be in the log, or may yet come. Publishing it again may publish it
    /// twice.
    MayHaveHappened(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Invalid(why) => f.write_str(why),
            PublishError::NotPublished(why) => write!(f, "not published: {why}"),
            PublishError::MayHaveHappened(why) => write!(f, "may have been published: {why}"),
        }
    }
}

impl std::error::Error for PublishError {}

/// An event that waits for its id.
pub(crate) struct Job {
    /// Separated by tabs, which no topic has.
    pub(crate) topics: String,
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) reply: SyncSender<std::result::Result<String, PublishError>>,
}

pub(crate) struct Publisher {
    pub(crate) config: LogConfig,
    pub(crate) jobs: Receiver<Job>,
    pub(crate) status: Arc<Status>,
}

impl Publisher {
    /// Publishes until the node's last handle is dropped.
    pub(crate) fn run(self) {
        let mut back_off = BackOff::new();
        loop {
            let began = Instant::now();
            let result = self.serve();
            self.status.publishes(false);
            let Err(error) = result else { break };
            self.status.report("publishing to", &error);
            if !self.refuse_for(back_off.next(began.elapsed()), &error.to_string()) {
                break;
            }
        }
        self.status.end();
    }

    /// Appends the events that come until something fails. Returns when all publishers have gone.
    fn serve(&self) -> Result<()> {
        let mut link = Link::connect(&self.config)?;
        let epochs = link.hello((0, 0))?;
        let script = link.load_add()?;
        self.status.publishes(true);
        loop {
            let first = match self.jobs.recv_timeout(PING_INTERVAL) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    link.ping()?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let mut bytes = first.data.len();
            let mut batch = vec![first];
            while batch.len() < PIPELINE.0
                && bytes < PIPELINE.1
                && let Ok(next) = self.jobs.try_recv()
            {
                bytes += next.data.len();
                batch.push(next);
            }
            append(&mut link, &epochs, &script, batch)?;
        }
    }

    /// Refuses all events at once for this long. Returns false when all publishers have gone.
    fn refuse_for(&self, wait: Duration, why: &str) -> bool {
        let until = Instant::now() + wait;
        loop {
            let remaining = until.saturating_duration_since(Instant::now());
            match self.jobs.recv_timeout(remaining) {
                Ok(job) => {
                    let error = PublishError::NotPublished(why.to_string());
                    let _ = job.reply.send(Err(error));
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// Appends a batch, each event by one call of the script, and answers each publisher.
fn append(link: &mut Link, epochs: &Epochs, script: &str, batch: Vec<Job>) -> Result<()> {
    let mut pipe = redis::pipe();
    let (stream, list) = (link.stream(), link.epochs());
    let (epoch, keep) = (format_epoch(epochs.newest()), link.keep());
    for job in &batch {
        let add = pipe
            .cmd("EVALSHA")
            .arg(script)
            .arg(2)
            .arg(&stream)
            .arg(&list);
        add.arg(&epoch)
            .arg(keep)
            .arg(&job.topics)
            .arg(&job.name)
            .arg(&job.data);
    }
    let replies = match link.pipeline(&pipe.get_packed_pipeline(), batch.len()) {
        Ok(replies) => replies,
        Err(error) => {
            for job in batch {
                let error = PublishError::MayHaveHappened(error.to_string());
                let _ = job.reply.send(Err(error));
            }
            return Err(error.into());
        }
    };
    let mut refused = None;
    for (job, reply) in batch.into_iter().zip(&replies) {
        let result = match (sequence(reply), reply) {
            (Some(sequence), _) => Ok(format!("{epoch}-{sequence}")),
            (None, Value::ServerError(error)) => Err(error.to_string()),
            (None, _) => Err("the stream is missing".to_string()),
        };
        if let Err(why) = &result {
            refused = Some(why.clone());
        }
        let _ = job.reply.send(result.map_err(PublishError::NotPublished));
    }
    // A new connection first does what may be due: begin an epoch, make the stream, load the script.
    refused.map_or(Ok(()), |why| Err(why.into()))
}

/// The end that publishers hold.
#[derive(Clone)]
pub(crate) struct Inbox(pub(crate) SyncSender<Job>);

/// An event on its way to Redis.
#[derive(Debug)]
pub struct Pending(Receiver<std::result::Result<String, PublishError>>);

impl Pending {
    /// Waits until Redis has the event, and returns its id.
    ///
    /// # Errors
    ///
    /// When the event was refused, or when its answer is lost.
    pub fn wait(self) -> std::result::Result<String, PublishError> {
        let ended = || PublishError::MayHaveHappened("the node ends".to_string());
        self.0.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Inbox {
    pub(crate) fn send(
        &self,
        topics: String,
        name: &str,
        data: &str,
    ) -> std::result::Result<Pending, PublishError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let job = Job {
            topics,
            name: name.to_string(),
            data: data.to_string(),
            reply,
        };
        let ended = |_| PublishError::NotPublished("the node ends".to_string());
        self.0.send(job).map_err(ended)?;
        Ok(Pending(answer))
    }
}
