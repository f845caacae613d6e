//! Live readers: a writer thread owns the sockets that keep up and puts each round straight into them.
//!
//! A writer never blocks: no socket that would make it wait, no user code, no lock for an event's delivery. Whoever does
//! not take a whole write goes to the threads that catch up, with its exact position.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{hint, mem};

use super::core::Counters;
use super::log::{GroupId, Share};
use super::subscriber::{State, Subscriber};
use crate::slots::Connected;
use crate::socket::try_write;
use crate::sse::LOOK;

/// Members that one step of a sweep looks at, so that a round does not wait for all of it.
const SWEEP_STEP: usize = 256;

/// So many readers that have joined bring the next sweep forward: visitors that have left again hold their descriptors
/// until somebody looks.
const MANY_JOINED: usize = 64;

/// Readers whose connections are looked at together, before the first of them is written to.
const GLANCE: usize = 16;

/// The way to a writer. Not a channel, which would wake the writer for each reader that joins.
#[derive(Default)]
pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    /// The writer waits here for mail, and the hub for room.
    changed: Condvar,
}

#[derive(Default)]
struct Mail {
    /// The next round, behind those who have become live before it. There is never another: what is published while a
    /// writer has enough to do waits in the inbox, and becomes one round, which each socket takes in one write.
    round: Option<(Subscribers, Round)>,
    /// Those who have become live since.
    joined: Subscribers,
    /// The hub waits for the round to be taken.
    awaited: bool,
    /// Somebody is to end, or many have joined: look so often, twice where some of them come only behind the round.
    sweeps: u8,
    /// All that could send some have gone.
    closed: bool,
}

#[allow(clippy::vec_box)] // They move between threads, and a pointer moves faster.
type Subscribers = Vec<Box<Subscriber>>;

impl Mailbox {
    /// Waits until there is room for a round.
    pub(crate) fn wait_for_room(&self) {
        let full = |mail: &mut Mail| {
            mail.awaited = mail.round.is_some();
            mail.awaited
        };
        drop(self.changed.wait_while(self.lock(), full));
    }

    /// Hands over a round, which must be done under the log's lock, and after there was room.
    pub(crate) fn send(&self, round: Round) {
        let mut mail = self.lock();
        let joined = mem::take(&mut mail.joined);
        debug_assert!(mail.round.is_none());
        mail.round = Some((joined, round));
        drop(mail);
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
        let mut mail = self.lock();
        let behind_the_round = mail.round.is_some() && !mail.joined.is_empty();
        mail.sweeps = mail.sweeps.max(1 + u8::from(behind_the_round));
        drop(mail);
        self.changed.notify_all();
    }

    /// Ends the writer, once it has delivered what it has.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits at most so long for something to do, and takes it: one round at most, and all who have joined before it.
    fn take(&self, wait: Duration) -> Option<(Subscribers, Option<Round>, bool)> {
        let idle = |mail: &mut Mail| mail.round.is_none() && mail.sweeps == 0 && !mail.closed;
        let waited = self.changed.wait_timeout_while(self.lock(), wait, idle);
        let mut mail = waited.unwrap_or_else(PoisonError::into_inner).0;
        let (joined, round) = match mail.round.take() {
            Some((joined, round)) => (joined, Some(round)),
            None if mail.closed => return None,
            None => (mem::take(&mut mail.joined), None),
        };
        if mem::take(&mut mail.awaited) {
            self.changed.notify_all();
        }
        let sweep = mail.sweeps > 0;
        mail.sweeps = mail.sweeps.saturating_sub(1);
        Some((joined, round, sweep))
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
    counters: Arc<Counters>,
    /// In order of their ids.
    groups: Vec<Members>,
    next_sweep: Instant,
    period: Duration,
    /// Where a sweep goes on: in this group, with the members below this index.
    unswept: Option<(GroupId, usize)>,
}

struct Members {
    group: GroupId,
    live: Vec<Live>,
    /// Where they all stand: the last event of their group, and its ordinal.
    cursor: u64,
    ordinal: u64,
    last_round: Instant,
}

/// A reader, and beside it all that an event needs of it: by its next event the caches hold something else, and each place
/// in memory on the way to the connection takes some 0.1 µs, where all of a delivery takes 3 to 4.
struct Live {
    connected: Arc<Connected>,
    subscriber: Box<Subscriber>,
}

impl Writer {
    pub(crate) fn new(mailbox: Arc<Mailbox>, counters: Arc<Counters>) -> Writer {
        Writer {
            mailbox,
            counters,
            groups: Vec::new(),
            next_sweep: Instant::now() + LOOK,
            period: LOOK,
            unswept: None,
        }
    }

    /// Serves until the hub has closed and the last reader has gone.
    pub(crate) fn run(mut self) {
        while let Some((joined, round, sweep)) = self.mailbox.take(self.until_sweep()) {
            self.take_in(joined);
            if let Some(round) = round {
                self.deliver(&round);
            }
            if sweep {
                self.next_sweep = Instant::now();
            }
            // After each round, so that steady traffic does not starve it.
            if self.until_sweep().is_zero() {
                self.sweep_step();
            }
        }
    }

    /// How long it is until the next step of a sweep.
    fn until_sweep(&self) -> Duration {
        match self.unswept {
            Some(_) => Duration::ZERO,
            None => self.next_sweep.saturating_duration_since(Instant::now()),
        }
    }

    fn take_in(&mut self, joined: Subscribers) {
        for subscriber in joined {
            self.period = self.period.min(subscriber.keep_alive.interval);
            let group = subscriber.group;
            let index = self.find(group).unwrap_or_else(|index| {
                let members = Members {
                    group,
                    live: Vec::new(),
                    cursor: 0,
                    ordinal: 0,
                    last_round: Instant::now(),
                };
                self.groups.insert(index, members);
                index
            });
            self.groups[index].live.push(Live {
                connected: subscriber.socket.connected(),
                subscriber,
            });
        }
    }

    /// Where a group is, or else belongs.
    fn find(&self, group: GroupId) -> Result<usize, usize> {
        self.groups
            .binary_search_by_key(&group, |members| members.group)
    }

    fn deliver(&mut self, round: &[Share]) {
        for share in round {
            let Ok(group) = self.find(share.group) else {
                continue;
            };
            let members = &mut self.groups[group];
            let bytes = share.batch.bytes();
            let mut index = 0;
            while let Some(reader) = members.live.get(index) {
                if index.is_multiple_of(GLANCE) {
                    glance(&members.live[index..]);
                }
                // A reader is handed over between two rounds, and arrives between the same two.
                debug_assert!(reader.subscriber.position.cursor < share.batch.last());
                match try_write(&mut &reader.connected.stream, bytes) {
                    Ok(written) if written == bytes.len() => index += 1,
                    Ok(written) => {
                        let Live { subscriber, .. } = members.live.swap_remove(index);
                        subscriber.fall_behind(share, written);
                    }
                    Err(_) => drop(members.live.swap_remove(index)),
                }
            }
            // Whoever is left was given all of it.
            let delivered = index as u64 * share.batch.len();
            self.counters
                .delivered
                .fetch_add(delivered, Ordering::Relaxed);
            members.cursor = share.batch.last();
            members.ordinal = share.before + share.batch.len();
            members.last_round = Instant::now();
        }
    }

    /// Looks at a few members; begins anew when it is time, and not before all have been seen.
    fn sweep_step(&mut self) {
        let now = Instant::now();
        let (group, below) = self.unswept.take().unwrap_or_else(|| {
            self.groups.retain(|members| !members.live.is_empty());
            self.next_sweep = now + self.period;
            (0, usize::MAX)
        });
        let (Ok(first) | Err(first)) = self.find(group);
        let mut left = SWEEP_STEP;
        for members in &mut self.groups[first..] {
            let mut below_here = members.live.len();
            if members.group == group {
                below_here = below_here.min(below);
            }
            // From the end, so that what takes a removed member's place has been seen.
            let from = below_here.saturating_sub(left);
            for index in (from..below_here).rev() {
                let subscriber = &mut members.live[index].subscriber;
                match subscriber.look_after(now, members.last_round) {
                    State::AtHead => {}
                    State::Over => drop(members.live.swap_remove(index)),
                    State::Behind => {
                        let Live { mut subscriber, .. } = members.live.swap_remove(index);
                        subscriber.stood_at(members.cursor, members.ordinal);
                        subscriber.leave_live();
                    }
                }
            }
            left -= below_here - from;
            if left == 0 {
                self.unswept = Some((members.group, from));
                return;
            }
        }
    }
}

/// Has the processor fetch the next connections from memory all at once. Each on its own would be waited for.
fn glance(live: &[Live]) {
    for reader in live.iter().take(GLANCE) {
        hint::black_box(reader.connected.idle.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::http::{Coding, Request, StreamHead};
    use crate::hub::config::HubConfig;
    use crate::hub::core::Core;
    use crate::hub::log::Log;
    use crate::hub::subscription::Subscription;
    use crate::hub::topics;
    use crate::slots::Slots;
    use crate::socket::Socket;
    use std::net::{TcpListener, TcpStream};

    /// A mailbox that no writer empties, and readers that join it.
    #[test]
    fn a_sweep_reaches_those_who_joined_behind_a_round() {
        let config = HubConfig {
            writer_threads: 1,
            ..HubConfig::default()
        };
        let mut log = Log::new(config.history.clone());
        log.begin_epoch((1, 1));
        let core = Arc::new(Core::new(config, log, None));
        let slots = Slots::new(Config::default(), Arc::new(|problem| panic!("{problem}")));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let join = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, peer) = listener.accept().unwrap();
            let request = Request::for_test("GET", "/", &[]);
            let subscription = Subscription::new(&core, &request, topics::check(vec!["a"]));
            let head = StreamHead {
                bytes: Vec::new(),
                coding: Coding::Chunked,
            };
            Subscriber::begin(subscription, head, Socket::new(&slots, stream, peer));
            client
        };
        let mailbox = &core.writers[0];
        let take = || {
            let (joined, round, sweep) = mailbox.take(Duration::ZERO).unwrap();
            (joined.len(), round.is_some(), sweep)
        };
        let _first = join();
        mailbox.send(Round::from(Vec::new()));
        let _second = join();
        mailbox.sweep();
        assert_eq!(take(), (1, true, true)); // The first, and the round behind it.
        assert_eq!(take(), (1, false, true)); // The second, who is to be looked at as well.
        assert_eq!(take(), (0, false, false)); // Once is enough.
        let _third = join();
        mailbox.sweep();
        assert_eq!(take(), (1, false, true)); // Without a round all are there at once.
        assert_eq!(take(), (0, false, false));
    }
}
