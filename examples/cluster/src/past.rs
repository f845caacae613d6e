//! Events that are no longer in a node's memory, read from Redis in blocks that all readers share.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tiny_sse::{Entries, Entry, EventLog};

use crate::status::Status;
use crate::stream::{Epochs, Link, LogConfig, Result};

/// Entries of a block: one read of Redis, 1 MB with events of 4 KiB.
const BLOCK_ENTRIES: u64 = 256;

/// Blocks that are kept for other readers.
const KEPT_BLOCKS: usize = 64;

/// How long readers are refused after Redis has not answered, in place of waiting for it one after the other.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Past {
    config: LogConfig,
    status: Arc<Status>,
    state: Mutex<State>,
}

/// The past as a hub asks for it.
pub(crate) struct Reader(pub(crate) Arc<Past>);

impl EventLog for Reader {
    fn read(&self, after: u64) -> io::Result<Entries> {
        let block = self.0.read(after)?;
        let first = block.partition_point(|entry| entry.sequence <= after);
        Ok(Box::new(
            (first..block.len()).map(move |at| Ok(block[at].clone())),
        ))
    }
}

/// The lock is held while a block is read: readers that want the same block wait for one read.
#[derive(Default)]
struct State {
    epochs: Epochs,
    link: Option<Link>,
    failed: Option<Instant>,
    /// Full blocks by number. Block `n` has the sequences from `n * BLOCK_ENTRIES + 1` on, and at least one of the next block.
    blocks: HashMap<u64, Arc<[Entry]>>,
    /// The numbers of the blocks, the first one read first.
    order: VecDeque<u64>,
}

impl Past {
    pub(crate) fn new(config: LogConfig, status: Arc<Status>) -> Past {
        Past {
            config,
            status,
            state: Mutex::default(),
        }
    }

    /// Forgets all blocks, and sets the epochs that entries must have. With no epochs, every read fails.
    pub(crate) fn begin(&self, epochs: Epochs) {
        *self.lock() = State {
            epochs,
            ..State::default()
        };
    }

    /// Returns the entries of the block to which the next sequence belongs, and what follows if the block has holes.
    pub(crate) fn read(&self, after: u64) -> io::Result<Arc<[Entry]>> {
        let mut state = self.lock();
        let after = after.max(state.epochs.oldest_sequence() - 1);
        if let Some(entries) = state.blocks.get(&(after / BLOCK_ENTRIES)) {
            return Ok(Arc::clone(entries));
        }
        if state.failed.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let read = self.read_block(&mut state, after);
        match &read {
            Ok(_) => self.status.reads_past(),
            Err(error) => self.status.report("reading", error),
        }
        state.failed = read.is_err().then(Instant::now);
        read.map_err(io::Error::other)
    }

    fn read_block(&self, state: &mut State, after: u64) -> Result<Arc<[Entry]>> {
        // After an error the connection is dropped: an answer may still be on its way.
        let mut link = match state.link.take() {
            Some(link) => link,
            None => Link::connect(&self.config)?,
        };
        let block = after / BLOCK_ENTRIES;
        let first = (block * BLOCK_ENTRIES + 1).max(state.epochs.oldest_sequence());
        let (stored, newest) = link.range(first, u64::MAX, BLOCK_ENTRIES + 1)?;
        if newest != state.epochs.newest() {
            // The node has to be told of it first.
            return Err("another epoch has begun".into());
        }
        let entries: Result<Arc<[Entry]>> = stored
            .into_iter()
            .map(|stored| stored.check(&state.epochs))
            .collect();
        let entries = entries?;
        state.link = Some(link);
        // With an entry after the block, nothing is added to the block any more. It may have holes.
        if entries
            .last()
            .is_some_and(|last| last.sequence > (block + 1) * BLOCK_ENTRIES)
        {
            state.keep(block, Arc::clone(&entries));
        }
        Ok(entries)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, block: u64, entries: Arc<[Entry]>) {
        self.blocks.insert(block, entries);
        self.order.push_back(block);
        if self.order.len() > KEPT_BLOCKS
            && let Some(oldest) = self.order.pop_front()
        {
            self.blocks.remove(&oldest);
        }
    }
}
