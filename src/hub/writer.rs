//! Live readers: a writer thread owns the sockets that keep up and puts each round straight into them.
//!
//! A writer never blocks: no socket that would make it wait, no user code, no lock for an event's delivery. Whoever does
//! not take a whole write goes to the threads that catch up, with its exact position.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::Lag;
use super::log::{GroupId, Share};
use super::subscriber::{Found, Subscriber};
use crate::sse::LOOK;

/// Members that one step of a sweep looks at, so that a round does not wait for all of it.
const SWEEP_STEP: usize = 256;

/// So many readers that have joined bring the next sweep forward: visitors that have left again hold their descriptors
/// until somebody looks.
const MANY_JOINED: usize = 64;

/// Rounds that a writer may have waiting; then the hub waits for it. With two writers and two groups that is 1 MiB.
const ROUNDS_AHEAD: usize = 4;

/// The way to a writer. Not a channel, which would wake the writer for each reader that joins.
#[derive(Default)]
pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    /// The writer waits here for mail, and the hub for room.
    changed: Condvar,
}

#[derive(Default)]
struct Mail {
    rounds: VecDeque<Round>,
    /// Those who have become live since the writer last looked, before each round and each sweep.
    joined: Subscribers,
    /// Somebody is to end, or many have joined: look now.
    sweep: bool,
    /// All that could send some have gone.
    closed: bool,
}

#[allow(clippy::vec_box)] // They move between threads, and a pointer moves faster.
type Subscribers = Vec<Box<Subscriber>>;

impl Mailbox {
    /// Waits until there is room for another round.
    pub(crate) fn wait_for_room(&self) {
        let full = |mail: &mut Mail| mail.rounds.len() >= ROUNDS_AHEAD;
        drop(self.changed.wait_while(self.lock(), full));
    }

    /// Hands over a round, which must be done under the log's lock, and after there was room.
    pub(crate) fn send(&self, round: Round) {
        self.lock().rounds.push_back(round);
        self.changed.notify_all();
    }

    /// Hands over a reader, which must be done under the log's lock: see [`Subscriber::catch_up`].
    pub(crate) fn join(&self, subscriber: Box<Subscriber>) {
        let impatient = subscriber.keep_alive.interval < LOOK;
        let mut mail = self.lock();
        mail.joined.push(subscriber);
        let many = mail.joined.len().is_multiple_of(MANY_JOINED);
        drop(mail);
        if impatient || many {
            self.sweep();
        }
    }

    /// Has all readers looked at now.
    pub(crate) fn sweep(&self) {
        self.lock().sweep = true;
        self.changed.notify_all();
    }

    /// Ends the writer, once it has delivered what it has.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits at most so long for something to do, and takes it: all who have joined, at most one round.
    fn take(&self, wait: Duration) -> Option<(Subscribers, bool, Option<Round>)> {
        let idle = |mail: &mut Mail| mail.rounds.is_empty() && !mail.sweep && !mail.closed;
        let waited = self.changed.wait_timeout_while(self.lock(), wait, idle);
        let mut mail = waited.unwrap_or_else(PoisonError::into_inner).0;
        let round = mail.rounds.pop_front();
        if round.is_none() && mail.closed {
            return None;
        }
        if mail.rounds.len() + 1 == ROUNDS_AHEAD {
            self.changed.notify_all();
        }
        let joined = mem::take(&mut mail.joined);
        Some((joined, mem::take(&mut mail.sweep), round))
    }

    /// Nothing that runs under this lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A round as the writers get it: what each group gets of it.
pub(crate) type Round = Arc<[Share]>;

/// One writer's share of the live readers.
pub(crate) struct Writer {
    mailbox: Arc<Mailbox>,
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

impl Sweep {
    /// How long it is until the next step.
    fn wait(&self) -> Duration {
        match self.groups.is_empty() {
            true => self.next.saturating_duration_since(Instant::now()),
            false => Duration::ZERO,
        }
    }
}

impl Writer {
    pub(crate) fn new(mailbox: Arc<Mailbox>) -> Writer {
        let sweep = Sweep {
            next: Instant::now() + LOOK,
            period: LOOK,
            groups: Vec::new(),
            below: 0,
        };
        Writer {
            mailbox,
            groups: HashMap::new(),
            sweep,
        }
    }

    /// Serves until the hub has closed and the last reader has gone.
    pub(crate) fn run(mut self) {
        while let Some((joined, sweep, round)) = self.mailbox.take(self.sweep.wait()) {
            self.take_in(joined);
            if let Some(round) = round {
                self.deliver(&round);
            }
            if sweep {
                self.sweep.next = Instant::now();
            }
            // After each round, so that steady traffic does not starve it.
            if self.sweep.wait().is_zero() {
                self.sweep_step();
            }
        }
    }

    fn take_in(&mut self, joined: Subscribers) {
        for subscriber in joined {
            self.sweep.period = self.sweep.period.min(subscriber.keep_alive.interval);
            let members = self
                .groups
                .entry(subscriber.group)
                .or_insert_with(|| Members {
                    subscribers: Vec::new(),
                    cursor: 0,
                    ordinal: 0,
                    last_round: Instant::now(),
                });
            members.subscribers.push(subscriber);
        }
    }

    fn deliver(&mut self, round: &[Share]) {
        for share in round {
            let Some(members) = self.groups.get_mut(&share.group) else {
                continue;
            };
            let (bytes, last) = (share.batch.bytes(), share.batch.last());
            let mut index = 0;
            let mut delivered = 0;
            while let Some(subscriber) = members.subscribers.get(index) {
                if subscriber.position.cursor >= last {
                    // It joined between this round and the next, while this one was on its way.
                    index += 1;
                    continue;
                }
                match subscriber.socket.try_write(bytes) {
                    Ok(written) if written == bytes.len() => {
                        delivered += 1;
                        index += 1;
                    }
                    Ok(written) => {
                        let subscriber = members.subscribers.swap_remove(index);
                        fall_behind(subscriber, share, written);
                    }
                    Err(_) => drop(members.subscribers.swap_remove(index)),
                }
            }
            if let Some(subscriber) = members.subscribers.first() {
                let counters = &subscriber.core.counters;
                let events = delivered * share.batch.len();
                counters.delivered.fetch_add(events, Ordering::Relaxed);
            }
            members.cursor = last;
            members.ordinal = share.before + share.batch.len();
            members.last_round = Instant::now();
        }
    }

    /// Looks at a few members; begins anew when it is time, and not before all have been seen.
    fn sweep_step(&mut self) {
        let now = Instant::now();
        if self.sweep.groups.is_empty() {
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
fn fall_behind(mut subscriber: Box<Subscriber>, share: &Share, written: usize) {
    if subscriber.lag == Lag::Disconnect {
        let lagged = &subscriber.core.counters.lagged;
        lagged.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let reached = share.batch.reached(written);
    subscriber.stood_at(reached.last, share.before + reached.begun);
    subscriber.torn = reached.torn;
    subscriber.leave_live();
}
