//! The hub thread: takes what waits in the inbox as one batch, numbers and encodes it, keeps it, hands it on.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::error::PublishError;
use super::fast::{Batches, Fast, Permits};
use super::file::Store;
use super::frame::Frame;
use super::id::{self, EventId};
use super::log::Numbered;
use super::shared::Shared;
use super::topics::TopicSet;
use crate::event::Event;

/// Most bytes of a batch, unless a single event has more.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;

/// Most topic entries of a batch: appending them is one step under the log's lock.
pub(crate) const BATCH_ENTRIES: usize = 1024;

/// Where a caller waits for what became of its message.
pub(crate) type Reply = SyncSender<Result<EventId, PublishError>>;

/// A caller that may wait, and the id of its event; a flush has none.
type Waiting = (Option<Reply>, Option<EventId>);

/// What the hub thread is told.
pub(crate) enum Message {
    Publish {
        topics: TopicSet,
        event: Event,
        /// It is the last event of its topics.
        finishes: bool,
        reply: Option<Reply>,
    },
    /// Reply when all that was published before is in the history.
    Flush(Reply),
}

/// How events reach their readers: the log, and the writers where there are any.
pub(crate) struct Delivery {
    shared: Arc<Shared>,
    fast: Option<(Arc<Fast>, Permits)>,
    /// The permits for the next batch have been acquired.
    has_permits: bool,
}

impl Delivery {
    pub(crate) fn new(shared: Arc<Shared>, fast: Option<(Arc<Fast>, Permits)>) -> Delivery {
        Delivery {
            shared,
            fast,
            has_permits: false,
        }
    }

    /// Waits until the writers can take a batch.
    pub(crate) fn wait_for_writers(&mut self) {
        if let Some((_, permits)) = &self.fast
            && !self.has_permits
        {
            permits.acquire();
            self.has_permits = true;
        }
    }

    /// Appends a batch, after [`wait_for_writers`](Delivery::wait_for_writers), and hands it on. `lost_to` is up to where
    /// the file has lost events. Returns when the log wants to evict something.
    pub(crate) fn append(&mut self, batch: Vec<Numbered>, lost_to: Option<u64>) -> Option<Instant> {
        let count = batch.len() as u64;
        let shared = Arc::clone(&self.shared);
        let mut log = shared.log();
        if let Some(lost_to) = lost_to {
            log.raise_archive_lost_to(lost_to);
        }
        let batches: Batches = log.append(batch, Instant::now()).into();
        self.send(&batches);
        let expires_at = log.expire(Instant::now());
        drop(log);
        shared.counters().published += count;
        expires_at
    }

    /// Skips the numbers up to this one, which exist nowhere, and tells the readers that had everything.
    pub(crate) fn lose(&mut self, to: u64) {
        self.wait_for_writers();
        let shared = Arc::clone(&self.shared);
        let mut log = shared.log();
        let batches: Batches = log.lose(to).into();
        self.send(&batches);
    }

    /// Hands batches to the writers, under the log's lock.
    fn send(&mut self, batches: &Batches) {
        if let Some((fast, _)) = &self.fast
            && !batches.is_empty()
        {
            fast.send(batches);
            self.has_permits = false;
        }
    }

    /// Has the writers look for readers that are to end.
    pub(crate) fn sweep(&self) {
        if let Some((fast, _)) = &self.fast {
            fast.sweep();
        }
    }
}

/// What the hub thread works with.
pub(crate) struct HubThread {
    pub(crate) delivery: Delivery,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) store: Option<Box<dyn Store>>,
    /// Why events were refused whose publishers did not wait; the next flush reports it.
    pub(crate) unreported: Option<PublishError>,
}

impl HubThread {
    /// Serves until all publishers have gone, then ends all streams.
    pub(crate) fn run(mut self) {
        let mut expires_at = None;
        while let Some(messages) = self.take(expires_at) {
            let (batch, waiting) = self.number(messages);
            match self.store(&batch) {
                Ok(lost_to) => {
                    expires_at = self.delivery.append(batch, lost_to);
                    self.reply(waiting, None);
                }
                // Nobody has seen these numbers: the next batch gets them.
                Err(error) => {
                    let (kind, text) = (error.kind(), error.to_string());
                    self.reply(waiting, Some(PublishError::Storage { kind, text }));
                }
            }
        }
        self.delivery.shared.close();
        self.delivery.sweep();
    }

    /// Waits for a message, then for the writers, and takes all messages that are there by then, up to a batch. Empty when
    /// the time is over; `None` when all publishers have gone.
    fn take(&mut self, until: Option<Instant>) -> Option<Vec<Message>> {
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        let first = self.inbox.recv_timeout(wait.unwrap_or(Duration::MAX));
        let mut messages = match first {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        let (mut bytes, mut entries) = messages[0].size();
        self.delivery.wait_for_writers();
        while bytes < BATCH_BYTES
            && entries < BATCH_ENTRIES
            && let Ok(next) = self.inbox.try_recv()
        {
            let size = next.size();
            (bytes, entries) = (bytes + size.0, entries + size.1);
            messages.push(next);
        }
        Some(messages)
    }

    /// Numbers and encodes the events. Only this thread appends, so the numbers go on from the log's head.
    fn number(&self, messages: Vec<Message>) -> (Vec<Numbered>, Vec<Waiting>) {
        let (mut batch, mut waiting) = (Vec::with_capacity(messages.len()), Vec::new());
        let mut scratch = Vec::new();
        let mut id = self.delivery.shared.log().next_id();
        for message in messages {
            match message {
                Message::Flush(reply) => waiting.push((Some(reply), None)),
                Message::Publish {
                    topics,
                    event,
                    finishes,
                    reply,
                } => {
                    let own_id = event.id_text().filter(|_| !finishes).map(Arc::from);
                    let wire_id = match finishes {
                        true => Some(id::ending(id)),
                        false => own_id.is_none().then(|| id.to_string()),
                    };
                    batch.push(Numbered {
                        sequence: id.sequence,
                        topics,
                        frame: Frame::encode(&event, wire_id.as_deref(), &mut scratch),
                        own_id,
                        finishes,
                    });
                    waiting.push((reply, Some(id)));
                    id.sequence += 1;
                }
            }
        }
        (batch, waiting)
    }

    /// Appends a batch to the file, where there is one, and returns up to where the file has lost events.
    fn store(&mut self, batch: &[Numbered]) -> io::Result<Option<u64>> {
        let Some(store) = self.store.as_mut().filter(|_| !batch.is_empty()) else {
            return Ok(None);
        };
        let appended = store.append(batch);
        self.delivery.shared.note_storage(appended.as_ref().err());
        appended.map(Some)
    }

    /// Tells each caller that waits what became of its message. A flush reports what nobody was told.
    fn reply(&mut self, waiting: Vec<Waiting>, error: Option<PublishError>) {
        for (reply, id) in waiting {
            let result = match (&error, id) {
                (Some(error), Some(_)) => Err(error.clone()),
                (None, Some(id)) => Ok(id),
                (_, None) => match self.unreported.take() {
                    Some(error) => Err(error),
                    None => {
                        let log = self.delivery.shared.log();
                        Ok(log.id(log.head))
                    }
                },
            };
            match reply {
                // An error is a caller that has gone.
                Some(reply) => drop(reply.send(result)),
                None => self.unreported = self.unreported.take().or(result.err()),
            }
        }
    }
}

impl Message {
    /// Its bytes and topic entries.
    fn size(&self) -> (usize, usize) {
        match self {
            Message::Publish { topics, event, .. } => (event.encoded_len(), topics.len()),
            Message::Flush(_) => (0, 1),
        }
    }
}
