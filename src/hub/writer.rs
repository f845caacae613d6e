//! Live readers: a writer thread owns the sockets that keep up and puts each round straight into them.
//!
//! A writer never blocks: no socket that would make it wait, no user code, no lock for an event's delivery. Whoever does
//! not take a whole write goes to the threads that catch up, with its exact position.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::Lag;
use super::frame::Batch;
use super::log::{GroupId, Share};
use super::subscriber::{Found, Subscriber};
use crate::http::Coding;
use crate::sse::LOOK;

/// Members that one step of a sweep looks at, so that a round does not wait for all of it.
const SWEEP_STEP: usize = 256;

/// So many readers that have joined bring the next sweep forward: visitors that have left again hold their descriptors
/// until somebody looks.
const MANY_JOINED: usize = 64;

/// What comes to a writer.
pub(crate) enum ToWriter {
    Round(Arc<Round>),
    /// Somebody is to end, or many have joined: look now.
    Sweep,
}

/// The way to a writer.
pub(crate) struct Handle {
    messages: Sender<ToWriter>,
    joining: Joining,
}

/// Those who have become live since the writer last looked, before each round and each sweep. They wait here and not
/// in the channel, so that a visitor does not cost the writer a wake-up.
type Joining = Arc<Mutex<Subscribers>>;

#[allow(clippy::vec_box)] // They move between threads, and a pointer moves faster.
type Subscribers = Vec<Box<Subscriber>>;

impl Handle {
    /// A handle, and what the writer itself needs.
    pub(crate) fn new(done: Sender<()>) -> (Handle, Writer) {
        let (messages, inbox) = mpsc::channel();
        let joining = Joining::default();
        let writer = Writer::new(inbox, Arc::clone(&joining), done);
        (Handle { messages, joining }, writer)
    }

    pub(crate) fn send(&self, message: ToWriter) {
        // A writer ends only after all that have a handle of it.
        let _ = self.messages.send(message);
    }

    /// Hands a reader over, which must be done under the log's lock: see [`Subscriber::catch_up`].
    pub(crate) fn join(&self, subscriber: Box<Subscriber>) {
        let impatient = subscriber.heartbeat_interval() < LOOK;
        let mut joining = lock(&self.joining);
        joining.push(subscriber);
        let many = joining.len().is_multiple_of(MANY_JOINED);
        drop(joining);
        if impatient || many {
            self.send(ToWriter::Sweep);
        }
    }
}

/// Nothing that runs under this lock can leave it half changed.
fn lock(joining: &Joining) -> MutexGuard<'_, Subscribers> {
    joining.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A round as the writers get it.
pub(crate) struct Round {
    parts: Vec<Part>,
}

struct Part {
    group: GroupId,
    /// The group's ordinal before this round.
    before: u64,
    /// The last of its events.
    last: u64,
    batch: Batch,
}

impl Round {
    pub(crate) fn new(shares: Vec<Share>) -> Round {
        let part = |share: Share| Part {
            group: share.group,
            before: share.before,
            last: share.events.last().map_or(0, |(sequence, _)| *sequence),
            batch: Batch::new(share.events, Coding::Chunked),
        };
        Round {
            parts: shares.into_iter().map(part).collect(),
        }
    }
}

/// One writer's share of the live readers.
pub(crate) struct Writer {
    inbox: Receiver<ToWriter>,
    joining: Joining,
    /// Tells the hub that there is room for another round.
    done: Sender<()>,
    groups: HashMap<GroupId, Members>,
    sweep: Sweep,
}

struct Members {
    subscribers: Subscribers,
    /// Where they all stand: the last event of their group, and its ordinal.
    cursor: u64,
    ordinal: u64,
    last_round: Instant,
}

/// A walk over all members in steps: the groups still to visit, and in the last of them the members still to visit.
struct Sweep {
    next: Instant,
    period: Duration,
    groups: Vec<GroupId>,
    below: usize,
}

impl Writer {
    fn new(inbox: Receiver<ToWriter>, joining: Joining, done: Sender<()>) -> Writer {
        let sweep = Sweep {
            next: Instant::now() + LOOK,
            period: LOOK,
            groups: Vec::new(),
            below: 0,
        };
        Writer {
            inbox,
            joining,
            done,
            groups: HashMap::new(),
            sweep,
        }
    }

    /// Serves until the hub has closed and the last reader has gone.
    pub(crate) fn run(mut self) {
        loop {
            let wait = match self.sweep.groups.is_empty() {
                true => self.sweep.next.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            // The deadline comes first, so that steady traffic does not starve the sweep.
            if wait.is_zero() {
                self.sweep_step();
            }
            let message = match wait.is_zero() {
                true => self
                    .inbox
                    .try_recv()
                    .map_err(|error| error == TryRecvError::Disconnected),
                false => self
                    .inbox
                    .recv_timeout(wait)
                    .map_err(|error| error == RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(ToWriter::Round(round)) => {
                    self.deliver(&round);
                    // The hub may have closed meanwhile.
                    let _ = self.done.send(());
                }
                Ok(ToWriter::Sweep) => self.sweep.next = Instant::now(),
                Err(false) => {}
                Err(true) => return,
            }
        }
    }

    /// Takes those who have become live.
    fn take_joined(&mut self) {
        let joined = mem::take(&mut *lock(&self.joining));
        for subscriber in joined {
            self.sweep.period = self.sweep.period.min(subscriber.heartbeat_interval());
            let members = self
                .groups
                .entry(subscriber.group())
                .or_insert_with(|| Members {
                    subscribers: Vec::new(),
                    cursor: 0,
                    ordinal: 0,
                    last_round: Instant::now(),
                });
            members.subscribers.push(subscriber);
        }
    }

    fn deliver(&mut self, round: &Round) {
        self.take_joined();
        for part in &round.parts {
            let Some(members) = self.groups.get_mut(&part.group) else {
                continue;
            };
            let bytes = part.batch.bytes();
            let mut index = 0;
            let mut delivered = 0;
            while let Some(subscriber) = members.subscribers.get(index) {
                if subscriber.has(part.last) {
                    // It joined between this round and the next, while this one was on its way.
                    index += 1;
                    continue;
                }
                match subscriber.try_write(bytes) {
                    Ok(written) if written == bytes.len() => {
                        delivered += 1;
                        index += 1;
                    }
                    Ok(written) => {
                        let subscriber = members.subscribers.swap_remove(index);
                        fall_behind(subscriber, part, written);
                    }
                    Err(_) => drop(members.subscribers.swap_remove(index)),
                }
            }
            if let Some(subscriber) = members.subscribers.first() {
                let events = delivered * part.batch.len() as u64;
                let counters = &subscriber.core().counters;
                counters.delivered.fetch_add(events, Ordering::Relaxed);
            }
            members.cursor = part.last;
            members.ordinal = part.before + part.batch.len() as u64;
            members.last_round = Instant::now();
        }
    }

    /// Looks at a few members; begins anew when it is time, and not before all have been seen.
    fn sweep_step(&mut self) {
        let now = Instant::now();
        if self.sweep.groups.is_empty() {
            self.take_joined();
            self.groups
                .retain(|_, members| !members.subscribers.is_empty());
            self.sweep.groups = self.groups.keys().copied().collect();
            self.sweep.below = usize::MAX;
            self.sweep.next = now + self.sweep.period;
        }
        let mut left = SWEEP_STEP;
        while let Some(group) = self.sweep.groups.last()
            && left > 0
        {
            let Some(members) = self.groups.get_mut(group) else {
                self.sweep.groups.pop();
                self.sweep.below = usize::MAX;
                continue;
            };
            // From the end, so that what takes a removed member's place has been seen.
            let below = self.sweep.below.min(members.subscribers.len());
            let from = below.saturating_sub(left);
            for index in (from..below).rev() {
                match members.subscribers[index].look_after(now, members.last_round) {
                    Found::Well => {}
                    Found::Gone => drop(members.subscribers.swap_remove(index)),
                    Found::Busy => {
                        let mut subscriber = members.subscribers.swap_remove(index);
                        subscriber.stood_at(members.cursor, members.ordinal);
                        subscriber.leave_live();
                    }
                }
            }
            left -= below - from;
            self.sweep.below = from;
            if from == 0 {
                self.sweep.groups.pop();
                self.sweep.below = usize::MAX;
            }
        }
    }
}

/// A write that took only a part, or nothing: the reader goes where waiting costs nobody anything.
fn fall_behind(mut subscriber: Box<Subscriber>, part: &Part, written: usize) {
    if subscriber.lag() == Lag::Disconnect {
        subscriber
            .core()
            .counters
            .lagged
            .fetch_add(1, Ordering::Relaxed);
        return;
    }
    if let Some(broken) = part.batch.broken_off(written) {
        subscriber.stood_at(broken.last, part.before + broken.begun as u64);
        subscriber.set_torn(broken.torn);
    }
    subscriber.leave_live();
}
