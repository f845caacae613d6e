//! One subscriber: a socket with a cursor into the log, behind or live, and the hand-over between the two.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::config::Lag;
use super::core::Core;
use super::file::OnDisk;
use super::frame::{Batch, Frame, Torn};
use super::id::EventId;
use super::log::{GroupId, Next, Position};
use super::registry::{Ending, Reader};
use super::subscription::Subscription;
use crate::http::{Coding, StreamHead};
use crate::socket::{Pace, Socket};
use crate::sse::{self, KeepAlive, LOOK};

/// How long a reader that is behind has a thread to itself before it goes to the end of the queue.
const SLICE: Duration = Duration::from_millis(250);

/// How long it may take nothing of its slice where others wait for a thread. A thousand that take nothing cost those
/// behind them a fifth of a second then, and the threads that go round among them a twentieth of a processor.
const PATIENCE: Duration = Duration::from_millis(10);

/// Most bytes that a reader takes out of the log at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// How often a live reader that gets nothing is looked at: has it left?
const LOOK_AT_LIVE: Duration = Duration::from_secs(5);

/// Owned by one thread at a time: its connection's, one that catches up, or a writer.
pub(crate) struct Subscriber {
    pub(super) core: Arc<Core>,
    pub(super) socket: Socket,
    reader: Arc<Reader>,
    pub(super) group: GroupId,
    pub(super) position: Position,
    coding: Coding,
    pub(super) lag: Lag,
    /// Where it reads what memory no longer has.
    disk: Option<Box<dyn OnDisk>>,
    /// To be sent before anything else.
    pub(super) torn: Option<Torn>,
    /// What is torn is the end of the stream.
    ending: bool,
    /// Set while it does not take what there is.
    pace: Option<Pace>,
    /// It was live once, so that it is behind by its own fault.
    fell_behind: bool,
    pub(super) keep_alive: KeepAlive,
    last_sent: Instant,
    next_look: Instant,
    ends_at: Option<Instant>,
}

/// How far a slice of catching up came.
enum Progress {
    /// It has everything that there was a moment ago.
    AtHead,
    /// It is still behind, and the slice is over.
    Behind,
    /// The stream has ended.
    Ended,
}

impl Subscriber {
    /// Begins when the head is about to be written, on the connection's thread: a slice of catching up, or all its life
    /// where its bytes are its own.
    pub(crate) fn begin(subscription: Subscription, head: StreamHead, mut socket: Socket) {
        if socket.start_stream().is_err() {
            return;
        }
        let Subscription {
            core,
            topics,
            mut position,
            options,
            ..
        } = subscription;
        let coding = head.coding;
        let mut opening = head.bytes;
        options.append_opening(coding, &mut opening);
        let mut log = core.log();
        let group = log.join(&topics, &mut position);
        if subscription.retained && !subscription.resumes {
            for frame in log.retained(&topics, position.cursor) {
                opening.extend_from_slice(frame.bytes(coding));
            }
        }
        // An unknown id is answered with a gap, which brings its own.
        if position.unknown.is_none() {
            append_id(log.id(position.cursor), coding, &mut opening);
        }
        drop(log);
        let peer = socket.peer();
        let reader = core
            .registry
            .add(topics, peer, subscription.label, position.cursor);
        let now = Instant::now();
        let subscriber = Box::new(Subscriber {
            keep_alive: options.keep_alive(&socket),
            ends_at: sse::ends_at(&socket),
            core,
            socket,
            reader,
            group,
            position,
            coding,
            lag: subscription.lag,
            disk: None,
            torn: Some(Torn::own(opening)),
            ending: false,
            pace: None,
            fell_behind: false,
            last_sent: now,
            // A visitor may be gone again when a writer first looks.
            next_look: now,
        });
        match coding {
            Coding::Chunked => subscriber.catch_up(),
            Coding::Bare => subscriber.stay_behind(),
        }
    }
}

/// Behind: on a thread of its own for a slice at a time.
impl Subscriber {
    /// Sends what there is, for a slice of time; then hands the reader to a writer, or to the end of the queue.
    pub(crate) fn catch_up(mut self: Box<Subscriber>) {
        let core = Arc::clone(&self.core);
        let until = Instant::now() + SLICE;
        loop {
            match self.advance(until) {
                Ok(Progress::AtHead) => {}
                Ok(Progress::Behind) => return core.behind.enqueue(self),
                Ok(Progress::Ended) => return,
                Err(error) => return core.count_drop(&error),
            }
            // The hub appends and sends to the writers under this lock, so the reader arrives exactly between two
            // rounds: with everything up to the one, before the other.
            let log = core.log();
            if !core.is_closed() && log.is_at_head(self.group, &self.position) {
                self.reader.set_live();
                self.pace = None;
                self.fell_behind = true;
                let index = self.reader.place.load(Ordering::Relaxed) % core.writers.len();
                return core.writers[index].join(self);
            }
        }
    }

    /// Serves the reader on this thread for as long as it lives: only chunks are shared by many sockets.
    fn stay_behind(mut self: Box<Subscriber>) {
        loop {
            match self.advance(Instant::now() + SLICE) {
                Ok(Progress::AtHead) => {}
                Ok(Progress::Behind) => continue,
                Ok(Progress::Ended) => return,
                Err(error) => return self.core.count_drop(&error),
            }
            self.reader.set_live();
            self.pace = None;
            let wait = LOOK.min(self.keep_alive.interval);
            self.core.wait_for_news(self.group, &self.position, wait);
            let now = Instant::now();
            if self.next_look <= now {
                self.next_look = now + LOOK;
                if self.socket.peer_left() {
                    return;
                }
            }
            if now - self.last_sent >= self.keep_alive.interval {
                self.torn = Some(self.heartbeat());
            }
        }
    }

    fn advance(&mut self, until: Instant) -> io::Result<Progress> {
        loop {
            if !self.send_torn(until)? {
                return Ok(Progress::Behind);
            }
            if self.ending {
                self.socket.finish_stream();
                return Ok(Progress::Ended);
            }
            if let Some(ending) = self.due_ending(Instant::now()) {
                self.torn = Some(Torn::own(self.ending_bytes(ending)));
                self.ending = true;
                continue;
            }
            match self.next() {
                Next::AtHead | Next::OnDisk { .. } => return Ok(Progress::AtHead),
                Next::Gap(gap) => self.torn = Some(gap.torn(self.coding, 0)),
                Next::Events(events) => self.send(&Batch::new(events, self.coding))?,
            }
            self.reader.set_behind(self.position.cursor);
        }
    }

    fn next(&mut self) -> Next {
        if self.lag == Lag::Skip && self.fell_behind {
            return self.core.log().newest(self.group, &mut self.position);
        }
        let topics = &self.reader.topics;
        self.core.next(
            self.group,
            topics,
            &mut self.position,
            &mut self.disk,
            BATCH_BYTES,
        )
    }

    /// Writes what goes out at once; where that breaks off, the torn event is left to be sent.
    fn send(&mut self, batch: &Batch) -> io::Result<()> {
        let written = self.socket.try_write(batch.bytes())?;
        self.note_written(written)?;
        let reached = batch.reached(written);
        self.torn = reached.torn;
        let delivered = &self.core.counters.delivered;
        delivered.fetch_add(reached.begun, Ordering::Relaxed);
        let ordinal = self.position.ordinal.unwrap_or(0) + reached.begun;
        self.stood_at(reached.last, ordinal);
        Ok(())
    }

    /// Sends what is torn; false when that takes longer than until then, or too long for those who wait.
    fn send_torn(&mut self, until: Instant) -> io::Result<bool> {
        while let Some(torn) = &mut self.torn {
            let mut written = self.socket.try_write(torn.rest())?;
            if written == 0 {
                let now = Instant::now();
                let pace = self.pace.get_or_insert_with(|| Pace::new(now));
                let patience = pace.took(0, self.socket.config())?;
                let mut wait = until.saturating_duration_since(now).min(patience);
                // Bare bytes have a thread of their own, for which nobody waits.
                let others_wait = self.coding == Coding::Chunked && self.core.behind.has_queue();
                if others_wait {
                    wait = wait.min(PATIENCE);
                }
                if wait.is_zero() {
                    return Ok(false);
                }
                written = self.socket.write_waiting(torn.rest(), wait)?;
                if written == 0 && others_wait {
                    return Ok(false);
                }
            }
            torn.advance(written);
            if torn.rest().is_empty() {
                self.torn = None;
            }
            self.note_written(written)?;
        }
        Ok(true)
    }

    fn note_written(&mut self, written: usize) -> io::Result<()> {
        if written > 0 {
            self.last_sent = Instant::now();
        }
        if let Some(pace) = &mut self.pace {
            pace.took(written, self.socket.config())?;
        }
        Ok(())
    }

    /// How the stream is to end, if it is.
    fn due_ending(&self, now: Instant) -> Option<&Ending> {
        let over = self.ends_at.is_some_and(|end| now >= end)
            || self.socket.is_closing()
            || self.core.is_closed();
        let come_back = over.then_some(&Ending::ComeBack);
        self.reader.ending.get().or(come_back)
    }

    fn ending_bytes(&self, ending: &Ending) -> Vec<u8> {
        let mut out = Vec::new();
        match ending {
            Ending::ComeBack => {
                sse::append_event(&sse::come_back(&self.socket), self.coding, &mut out);
            }
            Ending::ForGood(frame) => out.extend_from_slice(frame.bytes(self.coding)),
        }
        self.coding.append_end(&mut out);
        out
    }

    fn heartbeat(&self) -> Torn {
        let mut out = Vec::new();
        self.keep_alive.append(self.coding, &mut out);
        Torn::own(out)
    }
}

/// A block of `id` alone: it dispatches nothing and sets the last event id, so that a client that drops before its first
/// event resumes too.
fn append_id(id: EventId, coding: Coding, out: &mut Vec<u8>) {
    let text = format!("id: {id}\n\n");
    out.extend_from_slice(Frame::from_text(text.as_bytes()).bytes(coding));
}

/// What a writer has found when it looked at a reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Well,
    /// Something is to be sent that has to wait, or the stream is to end.
    Busy,
    Gone,
}

/// Live: in a writer's hands.
impl Subscriber {
    /// Goes to the threads that wait.
    pub(crate) fn leave_live(self: Box<Subscriber>) {
        let core = Arc::clone(&self.core);
        self.reader.set_behind(self.position.cursor);
        core.behind.enqueue(self);
    }

    /// Notes where it stands, which a writer keeps for all members of a group together.
    pub(crate) fn stood_at(&mut self, cursor: u64, ordinal: u64) {
        if cursor > self.position.cursor {
            self.position.cursor = cursor;
            self.position.ordinal = Some(ordinal);
        }
    }

    /// Sends a heartbeat where its group was silent for so long, and looks whether the client has left.
    pub(crate) fn look_after(&mut self, now: Instant, last_round: Instant) -> Found {
        if self.due_ending(now).is_some() {
            return Found::Busy;
        }
        if now - self.last_sent.max(last_round) >= self.keep_alive.interval {
            let mut heartbeat = self.heartbeat();
            let Ok(written) = self.socket.try_write(heartbeat.rest()) else {
                return Found::Gone;
            };
            self.last_sent = now;
            heartbeat.advance(written);
            if !heartbeat.rest().is_empty() {
                self.torn = Some(heartbeat);
                return Found::Busy;
            }
        }
        if self.next_look <= now {
            self.next_look = now + LOOK_AT_LIVE;
            if self.socket.peer_left() {
                return Found::Gone;
            }
        }
        Found::Well
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.core.registry.remove(&self.reader, self.socket.slot());
        self.core.log().leave(self.group);
    }
}
