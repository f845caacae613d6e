//! The thread that reads the log for a node's hub: one connection for all readers of the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_sse::{Entry, Feed};

use crate::back_off::BackOff;
use crate::past::Past;
use crate::status::Status;
use crate::stream::{Epochs, Link, LogConfig, READ_ENTRIES, Result, Stored};

/// How often the node compares itself with the log, and how long a read waits for new entries.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct Follower {
    pub(crate) config: LogConfig,
    pub(crate) feed: Feed,
    pub(crate) past: Arc<Past>,
    pub(crate) status: Arc<Status>,
    pub(crate) epochs: Epochs,
    /// The last sequence that the hub was given. `None` before the first connection.
    pub(crate) reached: Option<u64>,
}

impl Follower {
    /// Follows the log until the node's last handle is dropped.
    pub(crate) fn run(mut self) {
        let mut back_off = BackOff::new();
        loop {
            let began = Instant::now();
            let Err(error) = self.follow() else {
                return;
            };
            self.status.report("following", &error);
            std::thread::sleep(back_off.next(began.elapsed()));
        }
    }

    /// Reads on until something fails. Returns when the node's last handle was dropped.
    fn follow(&mut self) -> Result<()> {
        let mut link = Link::connect(&self.config)?;
        let known = (self.epochs.newest(), self.reached.unwrap_or(0));
        let epochs = link.hello(known)?;
        // No reader gets an event of the new epochs while the hub has the old ones, or the other way round.
        self.past.begin(Epochs::default());
        let reached = self.feed.epochs(&epochs.0)?;
        self.past.begin(epochs.clone());
        self.epochs = epochs;
        self.reached = match self.reached {
            Some(_) => Some(reached),
            None => {
                let oldest = self.epochs.oldest_sequence() - 1;
                Some(
                    link.extent()?
                        .last
                        .saturating_sub(self.config.load)
                        .max(oldest),
                )
            }
        };
        let mut check_at = Instant::now();
        while !self.status.has_ended() {
            if Instant::now() >= check_at {
                self.catch_up(&mut link)?;
                check_at = Instant::now() + CHECK_INTERVAL;
            }
            let entries = link.wait(self.reached(), CHECK_INTERVAL)?;
            self.push(entries)?;
        }
        Ok(())
    }

    /// Reads all that the log has by now, and tells the hub that this is all.
    fn catch_up(&mut self, link: &mut Link) -> Result<()> {
        let asked = Instant::now();
        let extent = link.extent()?;
        if extent.newest_epoch != self.epochs.newest() || extent.last < self.reached() {
            return Err("another epoch has begun".into());
        }
        self.status.saw_head(extent.last);
        while self.reached() < extent.last {
            let (entries, _) = link.range(self.reached() + 1, extent.last, READ_ENTRIES)?;
            if entries.is_empty() {
                // The sequences up to here were left out, or their entries were removed.
                self.lost(extent.last)?;
            }
            self.push(entries)?;
        }
        let trimmed = extent.trimmed.max(self.epochs.oldest_sequence() - 1);
        self.feed.current(asked, trimmed.min(self.reached()))?;
        self.status.caught_up(asked);
        Ok(())
    }

    /// Hands entries to the hub, up to the first one of another epoch.
    fn push(&mut self, stored: Vec<Stored>) -> Result<()> {
        let count = stored.len();
        let of_epoch = stored
            .into_iter()
            .map_while(|stored| stored.check(&self.epochs).ok());
        let entries: Vec<Entry> = of_epoch.collect();
        let is_all = entries.len() == count;
        if let Some(last) = entries.last().map(|entry| entry.sequence) {
            self.feed.push(entries)?;
            self.moved_to(last);
        }
        match is_all {
            true => Ok(()),
            false => Err("the stream was replaced".into()),
        }
    }

    /// Tells the hub that nothing will come up to this sequence.
    fn lost(&mut self, to: u64) -> Result<()> {
        self.feed.lost(to)?;
        self.moved_to(to);
        Ok(())
    }

    fn moved_to(&mut self, sequence: u64) {
        self.reached = Some(sequence);
        self.status.reached(self.epochs.newest(), sequence);
    }

    fn reached(&self) -> u64 {
        self.reached.unwrap_or(0)
    }
}
