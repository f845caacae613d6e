//! The hub thread: takes what waits in the inbox as one batch, numbers and encodes it, keeps it, hands it on.
//!
//! ```text
//!  inbox ──take──▶ batch ──store──▶ file: one write, one fsync
//!                                     │ it worked
//!                                     ├──append──▶ log ──▶ readers that wait
//!                                     │             └────▶ writers: what each group gets
//!                                     └──reply──▶ callers that wait
//! ```
//!
//! Nothing is delayed on purpose. A lone event is a batch of one. While a file or the writers are busy, events gather in the
//! inbox, and become the next batch: the busier the hub, the larger its batches, and the less each event costs.
//!
//! Readers get a batch only after it is in the file. If the file cannot be written, the batch is refused as a whole, and its
//! numbers go to the next one.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::error::PublishError;
use super::fast::{Batches, Fast};
use super::file::FileStore;
use super::frame::Frame;
use super::id::{self, EventId};
use super::log::{GroupBatch, Log, Numbered};
use super::shared::Shared;
use super::topics::TopicSet;
use crate::event::Event;

/// Maximum bytes of a batch, unless a single event has more.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;

/// Maximum number of topic entries of a batch: an event of three topics has three. Appending them is one step under the log's
/// lock. It is also the maximum number of messages in a batch, since a flush adds no entries.
pub(crate) const BATCH_ENTRIES: usize = 1024;

/// The result of a message, for which its caller waits. A reply that is dropped without a result says that the hub has ended.
pub(crate) struct Reply(pub(crate) Arc<OnceLock<Result<EventId, PublishError>>>);

/// Sets `Closed`, unless a result was set before: a cell takes one value only. So no caller waits for a hub that has ended.
impl Drop for Reply {
    fn drop(&mut self) {
        let _ = self.0.set(Err(PublishError::Closed));
    }
}

/// The reply of a message, if its caller waits; the id of its event; whether the message is a flush, which has no event.
type Waiting = (Option<Reply>, EventId, bool);

/// What the hub thread is told. The default is a flush.
#[derive(Default)]
pub(crate) struct Message {
    /// The topics of the event; empty for a flush.
    pub(crate) topics: TopicSet,
    /// Without an event the message is a flush, whose reply says that all events published before are in the history.
    pub(crate) event: Option<Event>,
    /// It is the last event of its topics.
    pub(crate) finishes: bool,
    /// `None` for a publisher that does not wait.
    pub(crate) reply: Option<Reply>,
}

/// Events that are appended together: with one write to the file, in one step under the log's lock, and with one write to
/// each reader.
#[derive(Default)]
pub(crate) struct NewBatch {
    /// In the order of their sequence numbers, which have no holes.
    pub(crate) events: Vec<Numbered>,
    /// The sizes of all events together, without the ids that the hub gives them.
    bytes: usize,
    /// The topics of all events together.
    entries: usize,
    /// Saves an allocation for each event.
    scratch: Vec<u8>,
}

impl NewBatch {
    /// Encodes an event, under this id where it has none that can be its own. An event that finishes its topics has the mark of
    /// an end.
    pub(crate) fn push(&mut self, id: EventId, topics: TopicSet, event: &Event, finishes: bool) {
        let own_id = event.id_text().filter(|_| !finishes);
        // A followed log may have any.
        let own_id = own_id.filter(|id| id::check_callers(id).is_ok());
        let own_id = own_id.map(Arc::from);
        let hubs_id = match finishes {
            true => Some(id::ending(id)),
            false => own_id.is_none().then(|| id.to_string()),
        };
        self.bytes += event.encoded_len();
        self.entries += topics.len();
        self.events.push(Numbered {
            sequence: id.sequence,
            topics,
            frame: Frame::encode(event, hubs_id.as_deref(), &mut self.scratch),
            own_id,
            finishes,
        });
    }

    /// Returns whether the batch is as large as one step under the log's lock may be.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.entries >= BATCH_ENTRIES
    }
}

/// How events reach their readers: the log, and the writers where there are any.
///
/// Each hub has one, owned by the part that appends: the hub thread, or the [`Feed`](super::follow::Feed) of a hub that follows
/// a log. With one owner, batches reach the log and each writer in the same order.
pub(crate) struct Delivery {
    /// The hub's log, registry and figures.
    pub(crate) shared: Arc<Shared>,
    /// The writers; `None` where each reader has a thread to itself.
    pub(crate) fast: Option<Arc<Fast>>,
    /// The permits for the next batch have been acquired. A batch that no group asked for leaves them for the next one.
    has_permits: bool,
}

impl Delivery {
    /// Starts the writers, where the hub shall have some.
    pub(crate) fn start(shared: Arc<Shared>) -> io::Result<Delivery> {
        Ok(Delivery {
            fast: Fast::start(&shared.config)?,
            shared,
            has_permits: false,
        })
    }

    /// Waits until the writers can take a batch. This is never done under the log's lock, which readers need meanwhile.
    pub(crate) fn wait_for_writers(&mut self) {
        if let Some(fast) = &self.fast
            && !self.has_permits
        {
            fast.acquire();
            self.has_permits = true;
        }
    }

    /// Appends a batch. `lost_to` is up to where the file has lost events.
    pub(crate) fn append(&mut self, batch: Vec<Numbered>, lost_to: Option<u64>) -> Option<Instant> {
        let count = batch.len() as u64;
        let expires_at = self.change(|log| {
            log.raise_archive_lost_to(lost_to);
            log.append(batch, Instant::now())
        });
        self.shared.counters().published += count;
        expires_at
    }

    /// Changes the log, and hands what the groups get to the writers in the same step, under the log's lock. Returns the time
    /// at which the log has to evict something.
    pub(crate) fn change(
        &mut self,
        change: impl FnOnce(&mut Log) -> Vec<GroupBatch>,
    ) -> Option<Instant> {
        self.wait_for_writers();
        let mut log = self.shared.log();
        let batches: Batches = change(&mut log).into();
        if let Some(fast) = &self.fast
            && !batches.is_empty()
        {
            fast.send(&batches);
            self.has_permits = false;
        }
        log.expire(Instant::now())
    }

    /// Has the writers look for readers that are to end. Without writers, each reader's thread looks for itself.
    pub(crate) fn sweep(&self) {
        self.fast.iter().for_each(|fast| fast.sweep());
    }
}

/// What the hub thread works with. The thread owns it; others reach only what `delivery` and the store share by an `Arc`.
pub(crate) struct HubThread {
    /// Where batches go.
    pub(crate) delivery: Delivery,
    /// Messages of all publishers, at most `HubConfig::inbox_events` of them. It is disconnected when the last handle has gone.
    pub(crate) inbox: Receiver<Box<Message>>,
    /// The writing end of the history's file, where there is one.
    pub(crate) store: Option<FileStore>,
    /// Why events were refused whose publishers did not wait; the next flush reports it.
    pub(crate) unreported: Option<PublishError>,
}

impl HubThread {
    /// Serves until all publishers have gone. When an event becomes too old before a message comes, the batch is empty, and
    /// appending it evicts the event.
    pub(crate) fn run(mut self) {
        let mut expires_at: Option<Instant> = None;
        loop {
            let wait = expires_at.map(|at| at.saturating_duration_since(Instant::now()));
            let first = self.inbox.recv_timeout(wait.unwrap_or(Duration::MAX));
            if matches!(first, Err(RecvTimeoutError::Disconnected)) {
                break;
            }
            let (batch, waiting) = self.take(first.ok());
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
    }

    /// Waits for the writers, and takes all messages that are there by then, up to a batch. Numbers and encodes the events. Only
    /// this thread appends, so the numbers go on from the log's head.
    fn take(&mut self, first: Option<Box<Message>>) -> (Vec<Numbered>, Vec<Waiting>) {
        self.delivery.wait_for_writers();
        let mut id = self.delivery.shared.log().next_id();
        let (mut batch, mut waiting) = (NewBatch::default(), Vec::new());
        let mut next = first;
        while let Some(message) = next {
            waiting.push((message.reply, id, message.event.is_none()));
            if let Some(event) = message.event {
                batch.push(id, message.topics, &event, message.finishes);
                id.sequence += 1;
            }
            next = match batch.is_full() || waiting.len() >= BATCH_ENTRIES {
                true => None,
                false => self.inbox.try_recv().ok(),
            };
        }
        (batch.events, waiting)
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

    /// Tells each caller that waits what became of its message. A flush reports the first error since the last flush whose
    /// publisher did not wait.
    fn reply(&mut self, waiting: Vec<Waiting>, error: Option<PublishError>) {
        for (reply, id, is_flush) in waiting {
            let error = match is_flush {
                true => self.unreported.take(),
                false => error.clone(),
            };
            match reply {
                Some(reply) => drop(reply.0.set(error.map_or(Ok(id), Err))),
                None => self.unreported = self.unreported.take().or(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::topics;
    use super::*;

    #[test]
    fn a_batch_has_an_end() {
        #[track_caller]
        fn check(events: usize, bytes: usize, topics: usize, is_full: bool) {
            let names: Vec<String> = (0..topics).map(|number| number.to_string()).collect();
            let names = topics::check(names.iter().map(String::as_str).collect()).unwrap();
            // `data: ` and two line ends are eight bytes of an event.
            let event = Event::data("x".repeat(bytes - 8));
            let mut batch = NewBatch::default();
            for sequence in 1..=events as u64 {
                let id = EventId { epoch: 1, sequence };
                batch.push(id, Arc::clone(&names), &event, false);
            }
            assert_eq!(batch.is_full(), is_full);
        }
        check(1, 64 * 1024 - 1, 1, false); // A byte less than 64 KiB.
        check(1, 64 * 1024, 1, true); // An event alone may be larger, and then is the last.
        check(64, 1024, 1, true); // The events together.
        check(63, 1024, 1, false); // One less.
        check(1024, 10, 1, true); // As many topic entries as one step may append.
        check(1023, 10, 1, false); // One less.
        check(16, 10, 64, true); // An event has one for each topic.
        check(15, 10, 64, false); // 960 of them.
    }

    #[test]
    fn who_waits_for_a_hub_that_ends_is_told() {
        let answered = Arc::new(OnceLock::new());
        let id = EventId {
            epoch: 1,
            sequence: 1,
        };
        let reply = Reply(Arc::clone(&answered));
        reply.0.set(Ok(id)).unwrap();
        drop(reply);
        assert_eq!(answered.get(), Some(&Ok(id)));
        let open = Arc::new(OnceLock::new());
        drop(Reply(Arc::clone(&open)));
        assert_eq!(open.get(), Some(&Err(PublishError::Closed)));
    }
}
