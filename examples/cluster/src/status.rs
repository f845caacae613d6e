//! What a node knows of itself: for `/health`, for its publishers, and for the page.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A node that has not compared itself with the log for this long counts as cut off: several times what it takes while
/// Redis answers.
const STALE_AFTER: Duration = Duration::from_millis(1500);

#[derive(Default)]
pub(crate) struct Status(Mutex<Known>);

#[derive(Clone, Default)]
struct Known {
    current: Option<Instant>,
    publishes: bool,
    draining: bool,
    ended: bool,
    position: Position,
    /// The last error of each thread, so that an error that lasts is reported once.
    errors: Vec<(&'static str, String)>,
}

/// What a node has of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The epoch of `sequence`.
    pub epoch: u64,
    /// The last sequence that the node's hub was given.
    pub sequence: u64,
    /// The last sequence of the log, when the node last asked.
    pub head: u64,
}

impl Known {
    fn forget_error(&mut self, what: &str) {
        self.errors.retain(|(its, _)| *its != what);
    }
}

impl Status {
    /// Says why a balancer should send no clients to this node.
    ///
    /// # Errors
    ///
    /// When the node is draining, has not heard from Redis lately, or cannot publish.
    pub(crate) fn health(&self) -> Result<(), &'static str> {
        let known = self.lock();
        let is_current = known.current.is_some_and(|at| at.elapsed() < STALE_AFTER);
        match (known.draining, is_current, known.publishes) {
            (true, _, _) => Err("draining"),
            (_, false, _) => Err("behind the log, or cut off from Redis"),
            (_, _, false) => Err("cannot publish: no connection to Redis"),
            _ => Ok(()),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// Tells the follower that the last handle is gone.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.lock().current.is_some()
    }

    pub(crate) fn position(&self) -> Position {
        self.lock().position
    }

    pub(crate) fn drain(&self) {
        self.lock().draining = true;
    }

    pub(crate) fn caught_up(&self, asked: Instant) {
        let mut known = self.lock();
        known.current = Some(asked);
        known.forget_error("following");
    }

    pub(crate) fn publishes(&self, publishes: bool) {
        let mut known = self.lock();
        known.publishes = publishes;
        if publishes {
            known.forget_error("publishing to");
        }
    }

    pub(crate) fn reads_past(&self) {
        self.lock().forget_error("reading");
    }

    pub(crate) fn saw_head(&self, head: u64) {
        self.lock().position.head = head;
    }

    pub(crate) fn reached(&self, epoch: u64, sequence: u64) {
        let position = &mut self.lock().position;
        position.epoch = epoch;
        position.sequence = sequence;
        position.head = position.head.max(sequence);
    }

    /// Prints an error, unless the thread printed the same one last.
    pub(crate) fn report(&self, what: &'static str, error: &dyn Display) {
        let error = error.to_string();
        let mut known = self.lock();
        if known
            .errors
            .iter()
            .any(|(its, last)| *its == what && *last == error)
        {
            return;
        }
        eprintln!("{what} the log: {error}");
        known.forget_error(what);
        known.errors.push((what, error));
    }

    /// A panic under this lock cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
