//! One subscriber: a socket with a cursor into the log, behind or live, and the hand-over between the two.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::config::Lag;
use super::core::Core;
use super::file::OnDisk;
use super::frame::{Batch, Torn};
use super::log::{GroupId, Next, Position, Share};
use super::registry::{Ending, Reader};
use super::subscription::Subscription;
use crate::http::{Coding, StreamHead};
use crate::socket::{Pace, Socket, from_now};
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
    core: Arc<Core>,
    pub(super) socket: Socket,
    reader: Arc<Reader>,
    pub(super) group: GroupId,
    pub(super) position: Position,
    coding: Coding,
    lag: Lag,
    /// Where it reads what memory no longer has.
    disk: Option<Box<dyn OnDisk>>,
    /// To be sent before anything else.
    torn: Option<Torn>,
    /// What is torn is the end of the stream.
    ending: bool,
    /// Set while it does not take what there is.
    pace: Option<Pace>,
    /// It was live once, so that it is behind by its own fault.
    was_live: bool,
    pub(super) keep_alive: KeepAlive,
    last_sent: Instant,
    next_look: Instant,
    ends_at: Option<Instant>,
}

/// How it stands with a reader that was served or looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has everything that there was a moment ago.
    AtHead,
    /// Something is to be sent that has to wait, or the stream is to end.
    Behind,
    /// The stream has ended, or the client has left.
    Over,
}

impl Subscriber {
    /// Begins when the head is about to be written, on the connection's thread.
    pub(crate) fn begin(mut subscription: Subscription, head: StreamHead, mut socket: Socket) {
        if socket.start_stream().is_err() {
            return;
        }
        let coding = head.coding;
        let mut opening = head.bytes;
        let keep_alive = (subscription.options).begin(&socket, coding, &mut opening);
        let (core, position) = (&subscription.core, &mut subscription.position);
        let mut log = core.log();
        let group = log.join(&subscription.topics, position);
        if subscription.retained {
            for frame in log.retained(&subscription.topics, position.cursor) {
                opening.extend_from_slice(frame.bytes(coding));
            }
        }
        // An unknown id is answered with a gap, which brings its own.
        if position.unknown.is_none() {
            // A block of `id` alone: it dispatches nothing and sets the last event id, so that a client that drops before
            // its first event resumes too.
            let id = format!("id: {}\n\n", log.id(position.cursor));
            sse::append_text(&id, coding, &mut opening);
        }
        drop(log);
        let reader = core.registry.add(
            subscription.topics,
            socket.peer,
            subscription.label,
            position.cursor,
        );
        let now = Instant::now();
        let subscriber = Box::new(Subscriber {
            keep_alive,
            ends_at: sse::ends_at(&socket),
            core: subscription.core,
            socket,
            reader,
            group,
            position: subscription.position,
            coding,
            lag: subscription.lag,
            disk: None,
            torn: Some(Torn::own(opening)),
            ending: false,
            pace: None,
            was_live: false,
            last_sent: now,
            // A visitor may be gone again when a writer first looks.
            next_look: now,
        });
        subscriber.catch_up();
    }
}

/// Behind: on a thread of its own for a slice at a time.
impl Subscriber {
    /// Sends what there is, for a slice of time; then hands the reader to a writer, or to the end of the queue. One whose
    /// bytes are its own keeps the thread for as long as it lives: only chunks are shared by many sockets.
    pub(crate) fn catch_up(mut self: Box<Subscriber>) {
        let core = Arc::clone(&self.core);
        let until = match self.coding {
            Coding::Chunked => Instant::now() + SLICE,
            Coding::Bare => from_now(Duration::MAX),
        };
        loop {
            match self.advance(until) {
                Ok(State::AtHead) => {}
                Ok(State::Behind) if self.coding == Coding::Bare => continue,
                Ok(State::Behind) => return core.behind.enqueue(self),
                Ok(State::Over) => return,
                Err(error) => return core.count_drop(&error),
            }
            self.reader.set_live();
            self.pace = None;
            if self.coding == Coding::Bare {
                let wait = LOOK.min(self.keep_alive.interval);
                core.wait_for_news(self.group, &self.position, wait);
                if self.look_after(Instant::now(), self.last_sent) == State::Over {
                    return;
                }
                continue;
            }
            // The hub appends and sends to the writers under this lock, so the reader arrives exactly between two
            // rounds: with everything up to the one, before the other.
            let log = core.log();
            if !core.is_closed() && log.is_at_head(self.group, &self.position) {
                self.was_live = true;
                let writer = self.reader.place.load(Ordering::Relaxed) % core.writers.len();
                return core.writers[writer].join(self);
            }
        }
    }

    fn advance(&mut self, until: Instant) -> io::Result<State> {
        while Instant::now() < until {
            if let Some(torn) = self.torn.take() {
                if !self.send_torn(torn, until)? {
                    break;
                }
                continue;
            }
            if self.ending {
                self.socket.finish_stream();
                return Ok(State::Over);
            }
            // Before the look for events: for what comes later it does not wait.
            let end = self.due_end();
            if let Some((ending, behind)) = &end
                && *behind <= self.position.cursor
            {
                self.end(ending);
                continue;
            }
            match (self.next(), end) {
                (Next::AtHead | Next::OnDisk { .. }, None) => return Ok(State::AtHead),
                (Next::AtHead | Next::OnDisk { .. }, Some((ending, _))) => self.end(&ending),
                // It has no time for more.
                (_, Some(_)) if self.is_over() => self.end(&Ending::ComeBack),
                (Next::Gap(gap), _) => self.torn = Some(gap.torn(self.coding, 0)),
                (Next::Events(events), _) => self.send(&Batch::new(events, self.coding))?,
            }
            self.reader.set_behind(self.position.cursor);
        }
        Ok(State::Behind)
    }

    fn next(&mut self) -> Next {
        if self.lag == Lag::Skip && self.was_live {
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

    /// Writes what goes out at once.
    fn send(&mut self, batch: &Batch) -> io::Result<()> {
        let written = self.socket.try_write(batch.bytes())?;
        self.note_written(written)?;
        let before = self.position.ordinal.unwrap_or(0);
        self.note_sent(batch, before, written);
        Ok(())
    }

    /// Notes how far a write of these events came; where it broke off, the torn event is left to be sent.
    fn note_sent(&mut self, batch: &Batch, before: u64, written: usize) {
        let reached = batch.reached(written);
        let delivered = &self.core.counters.delivered;
        delivered.fetch_add(reached.begun, Ordering::Relaxed);
        self.stood_at(reached.last, before + reached.begun);
        self.torn = reached.torn;
    }

    /// Sends of what is torn what goes out now; false when nothing did for as long as there is time, or as others wait for.
    fn send_torn(&mut self, mut torn: Torn, until: Instant) -> io::Result<bool> {
        let mut written = self.socket.try_write(torn.rest())?;
        if written == 0 {
            let now = Instant::now();
            let pace = self.pace.get_or_insert_with(|| Pace::new(now));
            let patience = pace.took(0, self.socket.config())?;
            let mut wait = until.saturating_duration_since(now).min(patience);
            // Bare bytes have a thread of their own, for which nobody waits.
            if self.coding == Coding::Chunked && self.core.behind.has_queue() {
                wait = wait.min(PATIENCE);
            }
            written = self.socket.write_waiting(torn.rest(), wait)?;
        }
        torn.advance(written);
        if !torn.rest().is_empty() {
            self.torn = Some(torn);
        }
        self.note_written(written)?;
        Ok(written > 0)
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

    /// How the stream is to end, if it is, once it has all events up to this number, or all there are.
    fn due_end(&self) -> Option<(Ending, u64)> {
        match self.reader.ending.get() {
            Some(Ending::ComeBack) => Some((Ending::ComeBack, 0)),
            Some(ending @ Ending::ForGood { behind, .. }) => Some((ending.clone(), *behind)),
            None if self.is_over() => Some((Ending::ComeBack, 0)),
            None => self
                .core
                .is_closed()
                .then_some((Ending::ComeBack, u64::MAX)),
        }
    }

    /// Its time is over, or its server's.
    fn is_over(&self) -> bool {
        self.socket.is_closing() || self.ends_at.is_some_and(|end| Instant::now() >= end)
    }

    /// Has the stream end behind what was sent.
    fn end(&mut self, ending: &Ending) {
        let mut out = Vec::new();
        match ending {
            Ending::ComeBack => {
                sse::append_event(&sse::come_back(&self.socket), self.coding, &mut out);
            }
            Ending::ForGood { event, .. } => out.extend_from_slice(event.bytes(self.coding)),
        }
        self.coding.append_end(&mut out);
        self.torn = Some(Torn::own(out));
        self.ending = true;
    }
}

/// Live: in a writer's hands.
impl Subscriber {
    /// Goes to the threads that wait.
    pub(crate) fn leave_live(self: Box<Subscriber>) {
        let core = Arc::clone(&self.core);
        self.reader.set_behind(self.position.cursor);
        core.behind.enqueue(self);
    }

    /// A write took only a part, or nothing: it goes where waiting costs nobody anything.
    pub(crate) fn fall_behind(mut self: Box<Subscriber>, share: &Share, written: usize) {
        if self.lag == Lag::Disconnect {
            let lagged = &self.core.counters.lagged;
            lagged.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.note_sent(&share.batch, share.before, written);
        self.leave_live();
    }

    /// Notes where it stands, which a writer keeps for all members of a group together.
    pub(crate) fn stood_at(&mut self, cursor: u64, ordinal: u64) {
        if cursor > self.position.cursor {
            self.position.cursor = cursor;
            self.position.ordinal = Some(ordinal);
        }
    }

    /// Sends a heartbeat where its group was silent for so long, and looks whether the client has left.
    pub(crate) fn look_after(&mut self, now: Instant, last_round: Instant) -> State {
        if self.due_end().is_some() {
            return State::Behind;
        }
        if now - self.last_sent.max(last_round) >= self.keep_alive.interval {
            let mut out = Vec::new();
            self.keep_alive.append(self.coding, &mut out);
            let Ok(written) = self.socket.try_write(&out) else {
                return State::Over;
            };
            self.last_sent = now;
            if written < out.len() {
                self.torn = Some(Torn::own(out.split_off(written)));
                return State::Behind;
            }
        }
        if self.next_look <= now {
            let pause = match self.coding {
                Coding::Chunked => LOOK_AT_LIVE,
                // It holds a thread.
                Coding::Bare => LOOK,
            };
            self.next_look = now + pause;
            if self.socket.peer_left() {
                return State::Over;
            }
        }
        State::AtHead
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.core.registry.remove(&self.reader, &self.socket.slot);
        self.core.log().leave(self.group);
    }
}
