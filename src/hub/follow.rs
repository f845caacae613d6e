//! A hub that follows a log which others number: what it is told of that log.
//!
//! The hub thread has no part in this. A thread of the program numbers nothing and stores nothing: it passes on what the log
//! has, by [`Feed::push`], which appends to the hub's memory as the hub thread does for other hubs.

use std::time::Instant;

use super::archive::Entry;
use super::error::PublishError;
use super::hub_thread::{Delivery, NewBatch};
use super::topics;

/// Tells a hub what is in the log that it follows, from [`Hub::follow`](crate::Hub::follow).
///
/// A thread of the program reads the log and calls, in this order:
///
/// 1. [`epochs`](Feed::epochs) after each connection to the log, and go on after the number that it returns;
/// 2. [`push`](Feed::push) with each batch of new entries;
/// 3. [`current`](Feed::current) whenever the log had no more entries, a few times a second.
///
/// [`EventLog`](crate::EventLog) has an example. Every call fails with [`PublishError::Closed`] after the last handle of the
/// hub was dropped, and never otherwise.
pub struct Feed {
    delivery: Delivery,
    /// The last number that was pushed or is lost; `None` before the first.
    pushed: Option<u64>,
}

impl Feed {
    /// Starts before the first call of any method: the hub's requests wait until the first call of [`current`](Feed::current).
    pub(crate) fn new(delivery: Delivery) -> Feed {
        Feed {
            delivery,
            pushed: None,
        }
    }

    /// Sets the log's epochs, oldest first, each with the number of its first event. A log begins a new epoch when it may have
    /// lost its newest events and would give their numbers to other events. Returns the number after which
    /// [`push`](Feed::push) goes on.
    ///
    /// Such an epoch leaves its first number out: if it begins with 6, the log's next entry has 7. The missing number is a lost
    /// event. By it, a client that has event 5 and has missed the lost ones is told of a gap, whenever it comes back, and to
    /// whichever hub. Without the missing number, only clients that have a lost event would be told.
    ///
    /// If the epochs show that the log has lost events which were pushed, the returned number is the last one before the loss.
    /// All streams end then. Their clients come back and are told of a gap.
    ///
    /// A log that has lost events gives their numbers to others. So [`EventLog::read`](crate::EventLog::read) fails from the
    /// first of these until this call has returned.
    ///
    /// # Errors
    ///
    /// As every call of a [`Feed`].
    pub fn epochs(&mut self, epochs: &[(u64, u64)]) -> Result<u64, PublishError> {
        self.check_open()?;
        let back = self.delivery.shared.log().set_epochs(epochs);
        if back.is_some() {
            self.pushed = back;
            self.delivery.shared.registry.close(|_| true);
            self.delivery.sweep();
        }
        Ok(self.pushed.unwrap_or(0))
    }

    /// Appends the next entries of the log to the hub, and waits while the hub's writers have not taken the last ones.
    ///
    /// An entry that was pushed before is skipped. A number that is missing between two entries is a lost event. The first
    /// entry may have any number: readers that need the entries before it get them from
    /// [`EventLog::read`](crate::EventLog::read).
    ///
    /// # Errors
    ///
    /// As every call of a [`Feed`].
    pub fn push(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), PublishError> {
        let mut batch = NewBatch::default();
        for entry in entries {
            let in_batch = batch.events.last().map(|event| event.sequence);
            let before = entry.sequence.saturating_sub(1);
            let next = in_batch.unwrap_or_else(|| self.begin_after(before)) + 1;
            if entry.sequence < next {
                continue;
            }
            if entry.sequence > next {
                self.append(&mut batch)?;
                self.lost(entry.sequence - 1)?;
            }
            let topics = entry.topics.iter().map(String::as_str).collect();
            // Nobody can have asked for names that are not valid.
            let topics = topics::valid(topics);
            let id = self.delivery.shared.log().id(entry.sequence);
            batch.push(id, topics, &entry.event, false);
            if batch.is_full() {
                self.append(&mut batch)?;
            }
        }
        self.append(&mut batch)
    }

    /// Marks the events up to this number that were not pushed as lost. Readers that have everything before are told of the gap
    /// at once. Readers that are behind are told when they arrive there.
    ///
    /// # Errors
    ///
    /// As every call of a [`Feed`].
    pub fn lost(&mut self, to: u64) -> Result<(), PublishError> {
        self.check_open()?;
        if self.begin_after(to) < to {
            self.pushed = Some(to);
            self.delivery.change(|log| log.lose(to));
        }
        Ok(())
    }

    /// Tells the hub that every entry which the log had at the time `asked` has been pushed, and that the log has removed its
    /// entries up to `removed_to`, 0 for none.
    ///
    /// Call this a few times a second. A client may bring an id of an event that another hub has sent, and that this hub has
    /// not been told of. Its request waits until a call of `current` with a later `asked` shows whether the log has the event.
    /// After a second the client is sent away, and comes back. Before the first call, this holds for every request.
    ///
    /// # Errors
    ///
    /// As every call of a [`Feed`].
    pub fn current(&mut self, asked: Instant, removed_to: u64) -> Result<(), PublishError> {
        self.lost(removed_to)?;
        self.delivery.shared.note_current(asked, removed_to);
        Ok(())
    }

    /// Begins with the number after this one, if the hub has not begun yet. Returns the last number that was pushed or is lost.
    fn begin_after(&mut self, last: u64) -> u64 {
        *self.pushed.get_or_insert_with(|| {
            self.delivery.shared.log().forget_all(last);
            last
        })
    }

    /// Appends the events of the batch, and empties it.
    fn append(&mut self, batch: &mut NewBatch) -> Result<(), PublishError> {
        self.check_open()?;
        let batch = std::mem::take(batch);
        if let Some(last) = batch.events.last() {
            self.pushed = Some(last.sequence);
            self.delivery.append(batch.events, None);
        }
        Ok(())
    }

    /// Fails when the last handle of the hub has gone.
    fn check_open(&self) -> Result<(), PublishError> {
        match self.delivery.shared.is_closed() {
            true => Err(PublishError::Closed),
            false => Ok(()),
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("pushed", &self.pushed)
            .finish_non_exhaustive()
    }
}
