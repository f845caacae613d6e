//! A reader's cursor: the one way in which events leave the log, for every kind of reader.
//!
//! Streams, long-polls and code in this process call [`Cursor::next`] in a loop, send what it returns, and say by
//! [`Cursor::advance`] how far they came. Only a writer needs no cursor: it gets the batch that the log hands out, and moves
//! the cursors of its readers when they leave.
//!
//! ```text
//!  retained events ──▶ opening id ──▶ gap or events from the archive ──▶ gap or events from memory ──▶ wait
//!                                              ▲                                   │
//!                                              └── the reader falls too far back ──┘
//! ```
//!
//! A cursor has one owner, which is the only one to change it, so its fields need no lock. Each step locks the log for itself,
//! and lets go of it before it reads the archive. A reader pulls: the log has no queue for each reader, so a reader that takes
//! nothing makes nothing grow.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::archive::{ArchiveReader, Entry, Missing};
use super::frame::Frame;
use super::id::{self, EventId};
use super::log::{GroupId, Log, Next, Position};
use super::shared::Shared;
use super::topics::TopicSet;
use crate::lock::ignore_poison;

/// The form of the id with which a stream begins. It is the id of the stream's first position: a client that is cut off before
/// its first event resumes from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpeningId {
    /// A block with an `id` field and nothing else. An `EventSource` notes the id and dispatches no event. Some other clients
    /// take the block for an empty event.
    #[default]
    Block,
    /// An event with the id and with empty data, as the Model Context Protocol asks for.
    EmptyData,
    /// No id. A client that is cut off before its first event does not resume.
    None,
}

/// A position in the log, and in the archive where memory has too little. While the cursor lives, the log remembers its topics,
/// and its group gets a share of each batch.
pub(crate) struct Cursor {
    /// The hub, which the cursor keeps in memory after the last handle has gone.
    pub(crate) shared: Arc<Shared>,
    /// The group of these topics, which the cursor is a member of.
    pub(crate) group: GroupId,
    /// The topics, and the sequence up to which the reader has all of their events.
    pub(crate) position: Position,
    /// While this is set, the newest event of each topic up to the position comes first, if it is after this sequence. These
    /// events are looked up one step at a time, so that a reader that takes nothing holds none of them in memory.
    pub(crate) retained_after: Option<u64>,
    /// The form of the opening id that is still to be sent; [`OpeningId::None`] once the id was taken.
    pub(crate) opening_id: OpeningId,
    /// The reader's way through the archive; `None` while the reader does not need the archive, since this holds what was read
    /// ahead.
    archive: Option<Box<ArchiveReader>>,
    /// The log had begun when the cursor was made. Otherwise old events may follow the first position.
    had_begun: bool,
    /// The log's count of returns when the position was taken. After another return the position may mean another event.
    returns: usize,
    /// The epoch of the position's id, once the events of the last look at the log have been taken. After a return the log's
    /// epochs would name another one.
    epoch: u64,
}

impl Cursor {
    /// Takes the newest position in the log, and joins the group of its topics in the same step: what is published after that
    /// step is kept for the reader.
    pub(crate) fn new(shared: &Arc<Shared>, topics: &TopicSet) -> Cursor {
        let mut log = shared.log();
        let (group, topics) = log.join(topics);
        let position = log.latest(&topics);
        Cursor {
            shared: Arc::clone(shared),
            group,
            epoch: log.position_id(position.cursor).epoch,
            position,
            retained_after: None,
            opening_id: OpeningId::None,
            archive: None,
            had_begun: log.has_begun,
            returns: log.returns,
        }
    }

    /// Returns the position of a reader that has everything from before the cursor was made: the cursor's first position, where
    /// that still means something.
    pub(crate) fn first_position(&self, log: &Log) -> Position {
        match self.had_begun && log.returns == self.returns {
            true => self.position.clone(),
            false => log.latest(&self.position.topics),
        }
    }

    /// Moves to where a client begins.
    pub(crate) fn begin(&mut self, log: &Log, position: Position) {
        self.epoch = log.position_id(position.cursor).epoch;
        (self.position, self.returns) = (position, log.returns);
    }

    /// Forgets what was read ahead in the archive, before the cursor moves elsewhere. The log must not be locked, since the
    /// entries are user code.
    pub(crate) fn leave_archive(&mut self) {
        self.archive = None;
    }

    /// Returns the id with which the reader would come back; `None` where its position means nothing any more.
    pub(crate) fn id(&self) -> Option<String> {
        let log = self.shared.log();
        let id = log.position_id(self.position.cursor).to_string();
        // A reader whose id the log does not know keeps this id until it is told of the gap.
        let id = self.position.unknown_id.clone().unwrap_or(id);
        (log.returns == self.returns).then_some(id)
    }

    /// Returns whether what comes first, retained events and the opening id, is still to be sent.
    pub(crate) fn is_opening(&self) -> bool {
        self.retained_after.is_some() || self.opening_id != OpeningId::None
    }

    /// Returns whether the reader has everything, and may get more.
    pub(crate) fn is_at_head(&self, log: &Log) -> bool {
        !self.is_opening() && log.returns == self.returns && log.is_at_head(&self.position)
    }

    /// Returns what comes next, at most `max_bytes` or one event. Waits at most `wait` when there is nothing. The log's lock is
    /// held from the look at the log to the wait, so that no event in between is overlooked.
    pub(crate) fn next(&mut self, max_bytes: usize, wait: Duration) -> Next {
        let mut log = self.shared.log();
        if !wait.is_zero() && !self.shared.is_closed() && self.is_at_head(&log) {
            let new_events = log.new_events(self.group);
            let waited = new_events.wait_timeout(log, wait);
            (log, _) = ignore_poison(waited);
        }
        if log.returns != self.returns {
            return Next::Unknown;
        }
        if let Some(after) = self.retained_after {
            let retained = log.retained(&self.position, after, max_bytes);
            if !retained.is_empty() {
                return Next::Events(retained);
            }
            self.retained_after = None;
        }
        if let Some(note) = Cursor::opening_note(&mut self.opening_id, &self.position, &log) {
            return Next::Note(note);
        }
        let next = log.next(&mut self.position, max_bytes);
        self.epoch = epoch_after(&log, &self.position, &next);
        drop(log);
        self.or_from_archive(next, max_bytes)
    }

    /// Returns the opening id where nothing comes before it, so that it can leave with the response's head.
    pub(crate) fn take_opening(&mut self) -> Option<Frame> {
        let log = self.shared.log();
        // Where the log has gone back, the position has no id any more.
        match self.retained_after.is_some() || log.returns != self.returns {
            true => None,
            false => Cursor::opening_note(&mut self.opening_id, &self.position, &log),
        }
    }

    /// Takes the opening id, and returns it as it is sent: `id: e-7`, then `data:` for [`OpeningId::EmptyData`], then a blank
    /// line.
    fn opening_note(opening_id: &mut OpeningId, position: &Position, log: &Log) -> Option<Frame> {
        let data = match mem::replace(opening_id, OpeningId::None) {
            OpeningId::Block => "",
            OpeningId::EmptyData => "data:\n",
            OpeningId::None => return None,
        };
        // An unknown id leads to a gap, which brings its own id.
        let is_known = position.unknown_id.is_none();
        let id = log.position_id(position.cursor);
        is_known.then(|| Frame::from_text(format!("id: {id}\n{data}\n").as_bytes()))
    }

    /// Returns what comes next, as [`next`](Cursor::next) does, for a reader that only wants the newest event.
    pub(crate) fn newest(&mut self) -> Next {
        let next = self.shared.log().newest(&mut self.position);
        self.or_from_archive(next, 0)
    }

    /// Goes on from the newest event after a gap, where the log that the hub follows has lost events that this reader has. False
    /// where it has not.
    pub(crate) fn go_on(&mut self) -> bool {
        let log = self.shared.log();
        if log.returns == self.returns {
            return false;
        }
        let (epoch, sequence) = (self.epoch, self.position.cursor);
        let from = EventId { epoch, sequence }.to_string();
        self.position = log.latest(&self.position.topics);
        self.position.unknown_id = Some(from);
        self.returns = log.returns;
        drop(log);
        self.leave_archive();
        true
    }

    /// Notes that the events up to this one were taken. Retained events do not move the position, which is after all of them.
    pub(crate) fn advance(&mut self, last: u64) {
        match &mut self.retained_after {
            Some(after) => *after = last,
            None => self.position.cursor = self.position.cursor.max(last),
        }
    }

    /// Returns what the archive has, where only the archive has it; else `next` as it is. No lock is held meanwhile, since
    /// reading a file may take long and the hub goes on.
    fn or_from_archive(&mut self, next: Next, max_bytes: usize) -> Next {
        let (Next::InArchive, Some(archive_log)) = (&next, &self.shared.archive) else {
            // Frees what was read ahead, since the reader no longer needs the archive.
            self.archive = None;
            return next;
        };
        let archive = self.archive.get_or_insert_default();
        let shared = &self.shared;
        let hubs_id = |entry: &Entry| {
            let id = entry.event.id_text();
            // In the history's file, each event has the id with which readers got it.
            let has_id = id.is_some_and(|id| !shared.follows || id::check_callers(id).is_ok());
            (!has_id).then(|| shared.log().id(entry.sequence).to_string())
        };
        let head = shared.log().head;
        let position = &mut self.position;
        let (topics, cursor) = (&position.topics, position.cursor);
        let max_bytes = max_bytes.max(1);
        let read = archive.read(&**archive_log, topics, cursor, head, max_bytes, &hubs_id);
        let log = shared.log();
        let next = match read {
            // The log went back while the archive was read: nobody knows which of the two the events are from.
            _ if log.returns != self.returns => return Next::Unknown,
            Ok(events) => {
                if events.is_empty() {
                    position.cursor = archive.read_to;
                }
                Next::Events(events)
            }
            Err(Missing::Lost(lost_to)) => {
                self.archive = None;
                Next::Note(log.gap_to(lost_to, position))
            }
            Err(Missing::Unknown) => Next::Unknown,
        };
        self.epoch = epoch_after(&log, position, &next);
        next
    }
}

/// Returns the epoch of a position's id, once these events have been taken.
fn epoch_after(log: &Log, position: &Position, next: &Next) -> u64 {
    let last = match next {
        Next::Events(events) => events.last().map(|(sequence, _)| *sequence),
        _ => None,
    };
    log.position_id(last.unwrap_or(position.cursor)).epoch
}

impl Drop for Cursor {
    /// Leaves the group: from now on nothing is kept for the reader.
    fn drop(&mut self) {
        self.shared.log().leave(self.group);
    }
}
