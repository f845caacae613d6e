//! The hub thread: takes what waits in the inbox as one round, numbers and encodes it, keeps it, hands it on.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SendError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem};

use super::PublishError;
use super::core::Core;
use super::file::Store;
use super::frame::Frame;
use super::id::EventId;
use super::log::Numbered;
use super::topics::TopicSet;
use super::writer::{Mailbox, Round};
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
pub(crate) type Answer = OnceLock<Result<EventId, PublishError>>;

/// Gives the answer, if only that there will be none.
pub(crate) struct Reply(pub(crate) Arc<Answer>);

impl Reply {
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

/// The publishers' end of the inbox.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: Sender<Publication>,
    room: Arc<Room>,
}

/// The inbox's bounds, by number and by bytes. The channel has none of its own, so that a publisher waits at one place.
struct Room {
    events: usize,
    bytes: usize,
    used: Mutex<Used>,
    freed: Condvar,
}

/// What waits in the inbox.
#[derive(Default)]
struct Used {
    events: usize,
    bytes: usize,
    /// Somebody waits until that is less.
    awaited: bool,
    closed: bool,
}

/// Makes an inbox and what empties it.
pub(crate) fn inbox(events: usize, bytes: usize) -> (Inbox, Outbox) {
    let (sender, receiver) = mpsc::channel();
    let room = Arc::new(Room {
        events,
        bytes,
        used: Mutex::default(),
        freed: Condvar::new(),
    });
    let outbox = Outbox {
        receiver,
        room: Arc::clone(&room),
    };
    (Inbox { sender, room }, outbox)
}

impl Inbox {
    /// Puts a publication in, waiting for room.
    pub(crate) fn put(&self, publication: Publication) -> Result<(), PublishError> {
        let full = |used: &mut Used| {
            let full = self.room.is_full_for(&publication, used);
            used.awaited |= full;
            full
        };
        let used = self.room.freed.wait_while(self.room.lock(), full);
        self.send(publication, used.unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a publication in where there is room.
    pub(crate) fn try_put(&self, publication: Publication) -> Result<(), PublishError> {
        let used = self.room.lock();
        if self.room.is_full_for(&publication, &used) {
            return Err(PublishError::Full);
        }
        self.send(publication, used)
    }

    fn send(
        &self,
        publication: Publication,
        mut used: MutexGuard<'_, Used>,
    ) -> Result<(), PublishError> {
        used.events += 1;
        used.bytes += publication.event.encoded_len();
        drop(used);
        let sent = self.sender.send(publication);
        sent.map_err(|SendError(_)| PublishError::Closed)
    }
}

impl Room {
    /// A single event fits into an empty inbox, whatever its size; a closed one has nobody to wait for.
    fn is_full_for(&self, publication: &Publication, used: &Used) -> bool {
        let bytes = used.bytes + publication.event.encoded_len();
        let full = used.events >= self.events || bytes > self.bytes;
        full && used.events > 0 && !used.closed
    }

    /// Nothing that runs under this lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hub thread's end of the inbox.
pub(crate) struct Outbox {
    receiver: Receiver<Publication>,
    room: Arc<Room>,
}

impl Outbox {
    /// Waits for an event, then for the writers, and takes all that is there by then, up to a round. Empty when the time
    /// is over; `None` when all publishers have gone.
    fn take(&self, until: Option<Instant>, writers: &[Arc<Mailbox>]) -> Option<Vec<Publication>> {
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        // So long is for ever.
        let first = self.receiver.recv_timeout(wait.unwrap_or(Duration::MAX));
        let mut round = match first {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        for writer in writers {
            writer.wait_for_room();
        }
        let mut bytes = round[0].event.encoded_len();
        while bytes < ROUND_BYTES
            && let Ok(next) = self.receiver.try_recv()
        {
            bytes += next.event.encoded_len();
            round.push(next);
        }
        let mut used = self.room.lock();
        used.events -= round.len();
        used.bytes -= bytes;
        if mem::take(&mut used.awaited) {
            self.room.freed.notify_all();
        }
        Some(round)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.room.lock().closed = true;
        self.room.freed.notify_all();
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
        let mut expires_at = None;
        while let Some(round) = self.outbox.take(expires_at, &self.core.writers) {
            let count = round.len() as u64;
            let (numbered, replies) = self.number(round);
            let floor = match self.store(&numbered) {
                Ok(floor) => floor,
                Err(error) => {
                    // Nobody has seen these numbers: the next round gets them.
                    for (reply, _) in replies {
                        reply.give(Err(PublishError::Storage(error.to_string())));
                    }
                    continue;
                }
            };
            let now = Instant::now();
            let mut log = self.core.log();
            if let Some(floor) = floor {
                log.raise_floor(floor);
            }
            let round: Round = log.append(numbered, now).into();
            expires_at = log.expires_at();
            if !round.is_empty() {
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
        }
        self.core.close();
    }

    /// Appends a round to the file, where there is one, and says up to where that has been cut off.
    fn store(&mut self, round: &[Numbered]) -> io::Result<Option<u64>> {
        let Some(store) = self.store.as_mut().filter(|_| !round.is_empty()) else {
            return Ok(None);
        };
        let appended = store.append(round);
        self.core.note_storage(appended.as_ref().err());
        appended.map(Some)
    }

    /// Only this thread appends, so the numbers go on from the log's head.
    fn number(&self, round: Vec<Publication>) -> (Vec<Numbered>, Vec<(Reply, EventId)>) {
        let mut numbered = Vec::with_capacity(round.len());
        let (mut replies, mut scratch) = (Vec::new(), Vec::new());
        let mut id = self.core.log().next_id();
        for publication in round {
            let callers_id = publication.event.id_text().map(Arc::from);
            let hubs_id = callers_id.is_none().then(|| id.to_string());
            numbered.push(Numbered {
                sequence: id.sequence,
                topics: publication.topics,
                frame: Frame::encode(&publication.event, hubs_id.as_deref(), &mut scratch),
                callers_id,
            });
            replies.extend(publication.reply.map(|reply| (reply, id)));
            id.sequence += 1;
        }
        (numbered, replies)
    }
}
