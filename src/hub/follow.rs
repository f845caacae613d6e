//! A hub that follows a log which others number: what it is told of that log.

use std::sync::Arc;
use std::time::Instant;

use super::archive::Entry;
use super::error::PublishError;
use super::fast::{Fast, Permits};
use super::frame::Frame;
use super::hub_thread::{BATCH_BYTES, BATCH_ENTRIES, Delivery};
use super::log::{Epoch, Numbered};
use super::shared::Shared;
use super::topics;

/// Tells a hub what is in the log that it follows; from [`Hub::follow`](crate::Hub::follow). Every call fails with
/// [`PublishError::Closed`], and with nothing else, once the last handle of the hub has gone.
pub struct Feed {
    shared: Arc<Shared>,
    delivery: Delivery,
    epochs: Vec<Epoch>,
    /// The last number that was pushed or is lost; `None` before the first.
    pushed: Option<u64>,
}

impl Feed {
    pub(crate) fn new(shared: Arc<Shared>, fast: Option<(Arc<Fast>, Permits)>) -> Feed {
        Feed {
            delivery: Delivery::new(Arc::clone(&shared), fast),
            shared,
            epochs: Vec::new(),
            pushed: None,
        }
    }

    /// Says which epochs the log has, oldest first, each with its first number. Call it before all else, and again with
    /// each new connection to the log. Returns the number after which to go on: where the log has lost what the hub was
    /// told, that is before the loss, and all streams end, to come back and be told of a gap.
    ///
    /// # Errors
    ///
    /// As all of [`Feed`].
    pub fn epochs(&mut self, epochs: &[(u64, u64)]) -> Result<u64, PublishError> {
        self.check_open()?;
        let same = self
            .epochs
            .iter()
            .zip(epochs)
            .take_while(|(a, b)| a == b)
            .count();
        let differing = [self.epochs.get(same), epochs.get(same)];
        let first = differing
            .into_iter()
            .flatten()
            .map(|(_, first)| *first)
            .min();
        self.epochs = epochs.to_vec();
        let pushed = self.pushed.unwrap_or(0);
        let back = first
            .filter(|first| *first <= pushed)
            .map(|first| first.saturating_sub(1));
        self.shared.log().set_epochs(self.epochs.clone(), back);
        if back.is_some() {
            self.pushed = back;
            self.shared.registry.close(|_| true);
            self.delivery.sweep();
        }
        Ok(back.unwrap_or(pushed))
    }

    /// Pushes the next events of the log, and waits while the writers are behind. An event that was pushed before is left
    /// out. Numbers that are left out are lost, but for those before the very first, which only
    /// [`EventLog::read`](crate::EventLog::read) has.
    ///
    /// # Errors
    ///
    /// As all of [`Feed`].
    pub fn push(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), PublishError> {
        let (mut batch, mut scratch) = (Vec::new(), Vec::new());
        let (mut bytes, mut names) = (0, 0);
        for entry in entries {
            let next = self.begin_after(entry.sequence.saturating_sub(1)) + 1;
            if entry.sequence < next {
                continue;
            }
            if entry.sequence > next {
                self.append(std::mem::take(&mut batch))?;
                self.lost(entry.sequence - 1)?;
            }
            self.pushed = Some(entry.sequence);
            let topics = entry.topics.iter().map(String::as_str).collect();
            let own_id = entry.event.id_text().map(Arc::from);
            let id = self.shared.log().id(entry.sequence);
            let hubs_id = own_id.is_none().then(|| id.to_string());
            batch.push(Numbered {
                sequence: entry.sequence,
                // Nobody can have asked for names that are not valid.
                topics: topics::check(topics).unwrap_or_default(),
                frame: Frame::encode(&entry.event, hubs_id.as_deref(), &mut scratch),
                own_id,
                finishes: false,
            });
            bytes += entry.event.encoded_len();
            names += 1 + entry.topics.len();
            if bytes >= BATCH_BYTES || names >= BATCH_ENTRIES {
                self.append(std::mem::take(&mut batch))?;
                (bytes, names) = (0, 0);
            }
        }
        self.append(batch)
    }

    /// Says that the numbers up to this one that were not pushed exist nowhere. Readers that had everything are told at
    /// once; others when they come there.
    ///
    /// # Errors
    ///
    /// As all of [`Feed`].
    pub fn lost(&mut self, to: u64) -> Result<(), PublishError> {
        self.check_open()?;
        if self.begin_after(to) < to {
            self.pushed = Some(to);
            self.delivery.lose(to);
        }
        Ok(())
    }

    /// Says that all that the log had when it was `asked` has been pushed, and that it has nothing any more up to
    /// `removed_to`. Call it some times a second: until the first time, and while the last one is older than a request, a
    /// client whose id the hub does not know waits for up to a second, and is then sent away, as another hub may know more.
    ///
    /// # Errors
    ///
    /// As all of [`Feed`].
    pub fn current(&mut self, asked: Instant, removed_to: u64) -> Result<(), PublishError> {
        self.lost(removed_to)?;
        self.check_open()?;
        self.shared.note_current(asked, removed_to);
        Ok(())
    }

    /// Begins with the number after this one, where the hub has not begun yet. Returns the last number that was told.
    fn begin_after(&mut self, last: u64) -> u64 {
        *self.pushed.get_or_insert_with(|| {
            self.shared.log().begin_after(last);
            last
        })
    }

    fn append(&mut self, batch: Vec<Numbered>) -> Result<(), PublishError> {
        self.check_open()?;
        if !batch.is_empty() {
            self.delivery.wait_for_writers();
            self.delivery.append(batch, None);
        }
        Ok(())
    }

    fn check_open(&self) -> Result<(), PublishError> {
        match self.shared.is_closed() {
            true => Err(PublishError::Closed),
            false => Ok(()),
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("epochs", &self.epochs)
            .field("pushed", &self.pushed)
            .finish_non_exhaustive()
    }
}
