//! The hub thread: takes what waits in the inbox as one round, numbers and encodes it, keeps it, hands it on.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SendError, SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::PublishError;
use super::core::Core;
use super::file::Store;
use super::frame::Frame;
use super::id::EventId;
use super::log::Numbered;
use super::topics::TopicSet;
use super::writer::Round;
use crate::event::Event;

/// Most bytes of a round, unless a single event has more.
const ROUND_BYTES: usize = 64 * 1024;

/// An event on its way to the hub thread.
pub(crate) struct Publication {
    pub(crate) topics: TopicSet,
    pub(crate) event: Event,
    /// Where somebody waits for the id.
    pub(crate) reply: Option<Reply>,
}

/// What became of a publication: the id that it was kept under, or why it was not.
pub(crate) type Answer = Arc<OnceLock<Result<EventId, PublishError>>>;

/// Gives the answer, if only that there will be none.
#[derive(Default)]
pub(crate) struct Reply(Answer);

impl Reply {
    pub(crate) fn answer(&self) -> Answer {
        Arc::clone(&self.0)
    }

    fn give(&self, answer: Result<EventId, PublishError>) {
        // There is none before: each reply is given once.
        let _ = self.0.set(answer);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.give(Err(PublishError::Closed));
    }
}

/// The publishers' end of the inbox, bounded by number and by bytes.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: SyncSender<Publication>,
    budget: Arc<Budget>,
}

/// Bytes that wait in the inbox.
struct Budget {
    most: usize,
    used: Mutex<Used>,
    freed: Condvar,
}

#[derive(Default)]
struct Used {
    bytes: usize,
    closed: bool,
}

/// Makes an inbox and what empties it.
pub(crate) fn inbox(events: usize, bytes: usize) -> (Inbox, Outbox) {
    let (sender, receiver) = mpsc::sync_channel(events.max(1));
    let budget = Arc::new(Budget {
        most: bytes,
        used: Mutex::default(),
        freed: Condvar::new(),
    });
    let outbox = Outbox {
        receiver,
        budget: Arc::clone(&budget),
    };
    (Inbox { sender, budget }, outbox)
}

impl Inbox {
    /// Puts a publication in, waiting for room.
    pub(crate) fn put(&self, publication: Publication) -> Result<(), PublishError> {
        let bytes = publication.event.encoded_len();
        let full = |used: &mut Used| self.budget.is_full(used, bytes);
        let used = self.budget.freed.wait_while(self.budget.lock(), full);
        used.unwrap_or_else(PoisonError::into_inner).bytes += bytes;
        let sent = self.sender.send(publication);
        sent.map_err(|SendError(_)| PublishError::Closed)
    }

    /// Puts a publication in where there is room.
    pub(crate) fn try_put(&self, publication: Publication) -> Result<(), PublishError> {
        let bytes = publication.event.encoded_len();
        let mut used = self.budget.lock();
        if self.budget.is_full(&used, bytes) {
            return Err(PublishError::Full);
        }
        // Under the lock, as it does not wait; so nothing has to be given back.
        match self.sender.try_send(publication) {
            Ok(()) => used.bytes += bytes,
            Err(TrySendError::Full(_)) => return Err(PublishError::Full),
            Err(TrySendError::Disconnected(_)) => return Err(PublishError::Closed),
        }
        Ok(())
    }
}

impl Budget {
    /// A single event fits into an empty inbox, whatever its size; a closed one has nobody to wait for.
    fn is_full(&self, used: &Used, bytes: usize) -> bool {
        !used.closed && used.bytes > 0 && used.bytes + bytes > self.most
    }

    /// Nothing that runs under this lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hub thread's end of the inbox.
pub(crate) struct Outbox {
    receiver: Receiver<Publication>,
    budget: Arc<Budget>,
}

impl Outbox {
    /// Waits for events and takes all that are there, up to a round. Empty when the time is over; `None` when all
    /// publishers have gone.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Publication>> {
        let first = match until {
            None => self.receiver.recv().ok()?,
            Some(until) => {
                let wait = until.saturating_duration_since(Instant::now());
                match self.receiver.recv_timeout(wait) {
                    Ok(first) => first,
                    Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
                    Err(RecvTimeoutError::Disconnected) => return None,
                }
            }
        };
        let mut bytes = first.event.encoded_len();
        let mut round = vec![first];
        while bytes < ROUND_BYTES
            && let Ok(next) = self.receiver.try_recv()
        {
            bytes += next.event.encoded_len();
            round.push(next);
        }
        let mut used = self.budget.lock();
        used.bytes = used.bytes.saturating_sub(bytes);
        drop(used);
        self.budget.freed.notify_all();
        Some(round)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.lock().closed = true;
        self.budget.freed.notify_all();
    }
}

/// What the hub thread works with.
pub(crate) struct Rounds {
    pub(crate) core: Arc<Core>,
    pub(crate) outbox: Outbox,
    pub(crate) store: Option<Box<dyn Store>>,
}

impl Rounds {
    /// Serves until all publishers have gone, then ends all streams.
    pub(crate) fn run(mut self) {
        let mut scratch = Vec::new();
        let mut expires_at = None;
        while let Some(round) = self.outbox.take(expires_at) {
            let (numbered, replies) = self.number(round, &mut scratch);
            let count = numbered.len() as u64;
            let mut floor = None;
            if let Some(store) = &mut self.store
                && count > 0
            {
                let appended = store.append(&numbered);
                self.core.note_storage(appended.as_ref().err());
                match appended {
                    Ok(removed) => floor = Some(removed),
                    Err(error) => {
                        // Nobody has seen these numbers: the next round gets them.
                        for (reply, _) in replies {
                            reply.give(Err(PublishError::Storage(error.to_string())));
                        }
                        continue;
                    }
                }
            }
            for writer in &self.core.writers {
                // Before the lock is taken: whoever holds it waits for nobody.
                writer.wait_for_room();
            }
            let now = Instant::now();
            let mut log = self.core.log();
            if let Some(floor) = floor {
                log.raise_floor(floor);
            }
            let shares = log.append(numbered, now);
            expires_at = log.expires_at();
            if !shares.is_empty() {
                let round: Round = shares.into();
                for writer in &self.core.writers {
                    writer.send(Arc::clone(&round));
                }
            }
            drop(log);
            let published = &self.core.counters.published;
            published.fetch_add(count, Ordering::Relaxed);
            for (reply, id) in replies {
                reply.give(Ok(id));
            }
            scratch.shrink_to(ROUND_BYTES);
        }
        self.core.close();
    }

    /// Only this thread appends, so the numbers go on from the log's head.
    fn number(
        &self,
        round: Vec<Publication>,
        scratch: &mut Vec<u8>,
    ) -> (Vec<Numbered>, Vec<(Reply, EventId)>) {
        let mut numbered = Vec::with_capacity(round.len());
        let mut replies = Vec::new();
        let mut id = self.core.log().newest_id();
        for publication in round {
            id.sequence += 1;
            let callers_id = publication.event.id_text().map(Arc::from);
            let hubs_id = callers_id.is_none().then(|| id.to_string());
            numbered.push(Numbered {
                sequence: id.sequence,
                topics: publication.topics,
                frame: Frame::encode(&publication.event, hubs_id.as_deref(), scratch),
                callers_id,
            });
            replies.extend(publication.reply.map(|reply| (reply, id)));
        }
        (numbered, replies)
    }
}
