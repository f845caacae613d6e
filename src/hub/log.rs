//! The log: the numbered, encoded events in memory, and what a reader at a position gets next.
//!
//! The log knows no socket and no thread. [`Shared`](super::shared::Shared) holds it behind one lock, which makes each
//! method one step. A step for a reader walks over at most about a thousand events, unless [`Replay::Events`] has a larger
//! number. A step that evicts walks over about two thousand. Only `Hub::kept`, and a hub whose followed log has lost events, go
//! over more in one step.
//!
//! ```text
//! sequence:      1     evicted_of_any   archive_lost_to    evicted(topic)      oldest kept          head
//!                |---------------|----------------|----------------|-----------------|----------------|
//!  with archive: | topics of lost| lost           | only in the archive              | in memory      |
//!                | events unknown| (removed)      |                                  |                |
//!  without:      | lost                                             | of other topics | in memory      |
//! ```
//!
//! # What is in memory
//!
//! Every event is in memory once, whatever number of topics it has. A topic *holds* its newest events, as many as
//! [`HubConfig`] says. An event leaves memory when no topic holds it, or when it is the oldest of all and the history is
//! too old or too large. So a quiet topic keeps its events beside a loud one, and a topic may have more events in memory
//! than it holds.
//!
//! `evicted` is the newest event of one topic that is no longer in memory. A reader whose cursor is before `evicted` has lost
//! that event for certain, unless an [archive](super::archive) has it: a file, or the log that the hub follows. An event is
//! lost to a reader when neither memory nor the archive has it: losses end at the older of the two marks.
//!
//! # What a reader gets
//!
//! A reader has topics and a position among their events, which is a [`Position`]. [`Log::next`] says what comes next, in this
//! order:
//!
//! 1. a gap, if something is lost between the position and the oldest event that is still there;
//! 2. the notice that only the archive has it, if something after the position is no longer in memory;
//! 3. events from memory, merged from the queues of the reader's topics;
//! 4. the end, if all of the topics are finished, or nothing.
//!
//! For example, with a history of two events for each topic, and these events:
//!
//! ```text
//! sequence   1   2   3   4   5   6
//! topics     a   a   b   a   a   b        a holds 4 and 5, b holds 3 and 6; 1 and 2 are evicted, both of a
//!
//! a reader of a at 2:        4, 5         nothing is lost: 2 is the last event that it has
//! a reader of a at 0:        gap to 2, 4, 5
//! a reader of b at 0:        3, 6         nothing of b is lost
//! a reader of a and b at 0:  gap to 2, 3, 4, 5, 6
//! ```
//!
//! A gap is reported once. The reader misses the event that the gap ends with, unless the gap is for an id that the log does
//! not know: then nobody can say what the reader has.
//!
//! The reader of a at 0 gets its gap in these bytes. It resumes at 3, the position right before 4, the next event of a:
//!
//! ```text
//! id: 5c0f9a3be1d27764-3
//! event: gap
//! data: {"from":"5c0f9a3be1d27764-0","to":"5c0f9a3be1d27764-2","lost":null}
//!
//! ```
//!
//! # What always holds
//!
//! - `events` has exactly the numbers that the queues `kept` of all topics have, and each queue ascends.
//! - Every topic of an event in memory is in `topics`, with the event in its queue.
//! - `bytes` is the sum over the events in memory and the topics that have any: nothing is counted twice or forgotten.
//! - `epochs` is in the order of the first numbers, of which several may be the same. `head` is not less than any number in
//!   memory.
//! - A group is in `groups`, and in each of its topics, as long as it has a member.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::iter;
use std::mem;
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use super::config::HubConfig;
use super::frame::{Batch, Events, Frame};
use super::id::{self, EventId};
use super::topics::TopicSet;
use crate::event::json_string;
use crate::http::Coding;

/// An epoch and its first sequence number. The epoch ends where the next one begins.
///
/// The wire id of an event is its epoch and its sequence number. Each start of a hub begins an epoch with a random name, so
/// that a number which was given out and then lost, with a crash or with memory, does not come back as the id of another
/// event. The numbers go on from epoch to epoch, so that one number is a position in all of them.
pub(crate) type Epoch = (u64, u64);

/// A set of topics that at least one reader has asked for, by its hash.
pub(crate) type GroupId = u64;

/// Maximum number of events that a reader takes out of the log in one step. A step of 1024 events locks the log for some 20 µs
/// for one topic, and for some 170 µs for 64 topics.
const STEP_EVENTS: usize = 1024;

/// Maximum number of topic entries that one step evicts: twice as many as a batch can add.
const STEP_EVICTIONS: usize = 2048;

/// Events per topic that a history of no events keeps while the topic has readers, for the readers whose write has to wait.
const LIVE_BUFFER: usize = 64;

/// What an event, its entry in each topic, each scope of its own id, and a topic that has events take in memory, in bytes,
/// beside their text. Measured with the allocator of glibc on a 64-bit system, where a B-tree that grows at its end is 6/11
/// full and a hash table between half and all of what it may be; `tests/memory.rs` holds the sum against what the process takes.
const EVENT_BYTES: usize = 260;
const ENTRY_BYTES: usize = 40;
const ID_BYTES: usize = 100;
const TOPIC_BYTES: usize = 440;

/// An event that has its sequence number.
#[derive(Debug)]
pub(crate) struct Numbered {
    /// The event's number in the order of all events of the hub, whatever their topics. The first event has 1.
    pub(crate) sequence: u64,
    /// In the log, the names are those of the log's table.
    pub(crate) topics: TopicSet,
    /// The event as all readers get it.
    pub(crate) frame: Frame,
    /// The id on the wire, where the publisher gave one.
    pub(crate) own_id: Option<Arc<str>>,
    /// It is the last event of its topics.
    pub(crate) finishes: bool,
}

impl Numbered {
    /// Returns the bytes of memory that the event takes, without its topics' own.
    fn memory(&self) -> usize {
        let entries = self.topics.len();
        let id = self.own_id.as_ref();
        let id = id.map_or(0, |id| id.len() + (entries + 1) * ID_BYTES);
        self.frame.len() + EVENT_BYTES + entries * ENTRY_BYTES + id
    }

    /// Returns the event's own id, where it has one, with each scope in which the id counts.
    fn scoped_ids(&self) -> impl Iterator<Item = ScopedId> {
        let scopes = self.topics.iter().cloned().chain([Arc::default()]);
        let id = self.own_id.iter().cloned().cycle();
        id.zip(scopes)
    }
}

/// A publisher's own id, and its scope: a topic, or the empty name for all topics.
///
/// Publishers number their events for each topic, so that the same id means one event in one topic and another event in
/// another topic. A reader of one topic asks in the scope of that topic. A reader of several topics asks in all topics too:
/// the event that its id means may be of a topic that has forgotten the id.
type ScopedId = (Arc<str>, Arc<str>);

/// Where a reader stands: it has all events of its topics up to `cursor`.
///
/// Without an archive a reader of several topics may be told of a loss that is after its cursor: the oldest event that is
/// left may be of a topic that lost nothing. `gap_reported_to` then says that the loss has been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The topics of the reader: the set that its group has, shared.
    pub(crate) topics: TopicSet,
    /// The sequence up to which the reader has everything. It need not be the number of an event of its topics.
    pub(crate) cursor: u64,
    /// Losses up to this sequence have been reported, or are older than the reader's start.
    gap_reported_to: u64,
    /// The first cursor, or that of the client's id. An end that comes later is the reader's, even if it is evicted.
    began: u64,
    /// The reader's last event id, if the log does not know it: the reader is told of a gap.
    pub(crate) unknown_id: Option<String>,
}

impl Position {
    /// Makes the position of a reader that has everything of these topics up to this sequence.
    fn at(topics: &TopicSet, cursor: u64) -> Position {
        Position {
            topics: Arc::clone(topics),
            cursor,
            gap_reported_to: cursor,
            began: cursor,
            unknown_id: None,
        }
    }
}

/// How far back a client may go with its last event id or the word `earliest`, for
/// [`Subscription::replay`](crate::Subscription::replay).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replay {
    /// To the oldest event that the hub keeps, in memory or in a file.
    #[default]
    All,
    /// To the newest events of its topics that are in memory, this many of all topics together. With 0 the client gets the
    /// events that are published from now on.
    Events(usize),
    /// To the events in memory that were published within this time. An event that the hub has read from a file counts as
    /// published when the hub was opened.
    Age(Duration),
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The reader has everything.
    AtHead,
    /// The reader has everything, and nothing will follow: its topics are finished.
    Finished,
    /// A frame that is not an event of the log, such as a gap. The position has been moved already.
    Note(Frame),
    /// These events, in order. The position is not moved before they are sent. A read of the archive may have found none yet.
    Events(Events),
    /// Only the archive has what comes next.
    InArchive,
    /// Nobody knows now what comes next.
    Unknown,
}

/// What one group gets of a batch. The writers send it as one write to each of their readers in the group.
#[derive(Debug)]
pub(crate) struct GroupBatch {
    /// The group whose readers get the batch.
    pub(crate) group: GroupId,
    /// The events of the group's topics, as chunks: a writer has no streams of another coding.
    pub(crate) batch: Batch,
    /// The topics of the group are finished with this batch.
    pub(crate) finishes: bool,
}

/// The log of one hub. See the module's drawing for its marks.
///
/// A reader is not part of the log: it has its own [`Position`], and the log knows only the number of members of its group. So
/// ten thousand readers of one topic cost the log one group, wherever the readers are.
#[derive(Default)]
pub(crate) struct Log {
    /// The limits of what is kept.
    config: HubConfig,
    /// The epochs, oldest first. The newest one gives out the numbers.
    epochs: Vec<Epoch>,
    /// The last sequence number given out.
    pub(super) head: u64,
    /// What is appended is new: false until a hub that follows a log has had all of the log once.
    pub(super) has_begun: bool,
    /// With an archive: the newest event that the archive no longer has.
    archive_lost_to: Option<u64>,
    /// The newest event out of memory that may have been of any topic: the log never saw it, or has forgotten everything.
    evicted_of_any: u64,
    /// The newest event evicted from a topic that was dropped since.
    evicted_of_dropped: u64,
    /// Every event in memory, and when it came. A tree, since the oldest event is evicted first when memory is full, and any
    /// other one when no topic holds it any more.
    events: BTreeMap<u64, (Numbered, Instant)>,
    /// The topics that have an event in memory or a reader, by name. Events and groups share the names that are here.
    topics: HashMap<Arc<str>, Topic>,
    /// For each own id of an event in memory: the oldest event that it was given to, and how many of its events are in memory.
    /// If the oldest event is no longer in memory, the id does not say which event is meant. A tree, since a large hash table
    /// that grows holds up the log.
    own_ids: BTreeMap<ScopedId, (u64, usize)>,
    /// The memory that all of this takes.
    pub(super) bytes: usize,
    /// One group for each set of topics that at least one reader has asked for.
    groups: HashMap<GroupId, Group>,
    /// The last time at which the hub had all of the log that it follows.
    pub(super) current: Option<Instant>,
    /// How often that log has lost events that readers may have: their positions mean nothing any more.
    pub(super) returns: usize,
}

/// A topic that has an event in memory or a reader.
///
/// Topics evict independently, so an event in `kept` may be older than `evicted`. For a topic that holds two events:
///
/// ```text
/// published   3   4   7   9       kept = [3, 7, 9], evicted = 4
///             │       └───┴── held by this topic
///             └── held by another topic that it was published to
/// ```
#[derive(Default)]
struct Topic {
    /// The topic's events in memory, oldest first. The topic holds the newest of them, as many as the history says. Others are
    /// there because another topic holds them.
    kept: VecDeque<u64>,
    /// The newest event that is no longer in memory.
    evicted: u64,
    /// The topic's last event, after [`Hub::finish`](crate::Hub::finish).
    finished: Option<u64>,
    /// The groups that have asked for the topic, in no order, each once. An append looks at the groups of the event's topics,
    /// and at no others.
    groups: Vec<GroupId>,
}

impl Topic {
    /// Returns how many of the topic's events in memory are not newer than this one.
    fn count_to(&self, sequence: u64) -> usize {
        self.kept.partition_point(|kept| *kept <= sequence)
    }

    /// Returns the newest event in memory for which `holds` is true. `holds` is to be true for older events and
    /// false for newer ones.
    fn newest_while(&self, holds: impl Fn(u64) -> bool) -> Option<u64> {
        let count = self.kept.partition_point(|kept| holds(*kept));
        self.kept.get(count.checked_sub(1)?).copied()
    }
}

/// The readers of one set of topics. A batch of events is put together once for all of them, and only they are woken by it.
struct Group {
    /// What all members have asked for.
    topics: TopicSet,
    /// How many cursors are in the group. The last cursor that leaves takes the group with it.
    members: usize,
    /// What the group gets of the batch that is being appended. The groups are not collected in a table of their own: for
    /// 10,000 groups that took three times as long.
    batch: Events,
    /// Where readers of this group wait for new events, with the log's lock. Each group has its own, so that an event wakes no
    /// reader that it is not for.
    new_events: Arc<Condvar>,
}

/// Merges ascending sequences into one, each number once (k-way merge). Each number costs a look at every queue, of which a
/// reader has at most 64: one for each topic.
fn merge(queues: impl Iterator<Item = impl Iterator<Item = u64>>) -> impl Iterator<Item = u64> {
    let mut queues: Vec<_> = queues.map(Iterator::peekable).collect();
    iter::from_fn(move || {
        let first = queues.iter_mut().filter_map(|queue| queue.peek().copied());
        let first = first.min()?;
        for queue in &mut queues {
            queue.next_if_eq(&first);
        }
        Some(first)
    })
}

/// Takes events up to this number of bytes, but at least one, and at most [`STEP_EVENTS`].
fn up_to_bytes<'a>(events: impl Iterator<Item = &'a Numbered>, max_bytes: usize) -> Events {
    let mut bytes = 0;
    let fitting = events.take(STEP_EVENTS).take_while(|event| {
        let is_first = bytes == 0;
        bytes += event.frame.len();
        is_first || bytes <= max_bytes
    });
    let numbered = fitting.map(|event| (event.sequence, event.frame.clone()));
    numbered.collect()
}

/// What the log is, and its ids.
impl Log {
    /// Makes a log without events. Its first epoch is to begin before anything is appended.
    pub(crate) fn new(config: HubConfig) -> Log {
        Log {
            config,
            ..Log::default()
        }
    }

    /// Returns the topics that have an event or a reader.
    pub(crate) fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    /// Returns how many events are in memory.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns the oldest event in memory.
    pub(crate) fn oldest(&self) -> Option<EventId> {
        let (sequence, _) = self.events.first_key_value()?;
        Some(self.id(*sequence))
    }

    /// Returns the wire id of a sequence number: with the epoch that gave the number out, which is the last one that
    /// begins at the number or before.
    pub(crate) fn id(&self, sequence: u64) -> EventId {
        let begun = self.epochs.partition_point(|(_, first)| *first <= sequence);
        let epoch = self.epochs.get(begun.saturating_sub(1));
        let epoch = epoch.map_or(0, |(epoch, _)| *epoch);
        EventId { epoch, sequence }
    }

    /// Returns the wire id of the next sequence number.
    pub(crate) fn next_id(&self) -> EventId {
        self.id(self.head + 1)
    }

    /// Returns the wire id of a position, with the epoch of the event that follows: a hub that has not heard of that
    /// epoch does not know the id, and may have other events after the same number.
    pub(crate) fn position_id(&self, cursor: u64) -> EventId {
        EventId {
            sequence: cursor,
            ..self.id(cursor.saturating_add(1))
        }
    }

    /// Returns the last sequence number of an epoch: that before the next epoch's first, or the head. `None` for an epoch
    /// that the log has never heard of, such as that of another hub.
    fn last_of(&self, epoch: u64) -> Option<u64> {
        let index = self.epochs.iter().position(|(known, _)| *known == epoch)?;
        let next = self.epochs.get(index + 1);
        Some(next.map_or(self.head, |(_, first)| first.saturating_sub(1)))
    }
}

/// What comes in and what goes.
impl Log {
    /// Starts an epoch; also called for each epoch that a file's recovery finds.
    pub(crate) fn begin_epoch(&mut self, epoch: Epoch) {
        self.has_begun = true;
        self.skip_to(epoch.1);
        if self.epochs.last() != Some(&epoch) {
            self.epochs.push(epoch);
        }
    }

    /// Keeps an event from before the hub was opened. An event that the log has already, as when a damaged file repeats it, is
    /// left out.
    pub(crate) fn restore(&mut self, event: Numbered) {
        if event.sequence > self.head {
            self.skip_to(event.sequence);
            let now = Instant::now();
            self.append(vec![event], now);
            self.expire(now);
        }
    }

    /// Notes that the numbers before this one were given out, and that their events are lost.
    fn skip_to(&mut self, next: u64) {
        if self.head + 1 < next {
            self.head = next - 1;
            self.evicted_of_any = self.head;
            self.raise_archive_lost_to(Some(self.head));
        }
    }

    /// Notes that there is an archive, and that it has no event up to this one. `None` changes nothing.
    pub(crate) fn raise_archive_lost_to(&mut self, lost_to: Option<u64>) {
        self.archive_lost_to = self.archive_lost_to.max(lost_to);
    }

    /// Keeps a batch of events, wakes the readers that wait for them, and returns what each group gets. Call
    /// [`expire`](Log::expire) after that.
    pub(crate) fn append(&mut self, batch: Vec<Numbered>, now: Instant) -> Vec<GroupBatch> {
        let mut reached = Vec::new();
        for event in batch {
            self.head = event.sequence;
            let topics = event.topics.iter().filter_map(|name| self.topics.get(name));
            for id in topics.flat_map(|topic| &topic.groups) {
                let Some(group) = self.groups.get_mut(id) else {
                    continue;
                };
                match group.batch.last() {
                    None => reached.push(*id),
                    // The group asked for several of the event's topics.
                    Some((last, _)) if *last == self.head => continue,
                    Some(_) => {}
                }
                group.batch.push((self.head, event.frame.clone()));
            }
            self.keep(event, now);
        }
        self.hand_out(reached)
    }

    /// Wakes the readers of these groups, and returns what the groups get.
    fn hand_out(&mut self, reached: Vec<GroupId>) -> Vec<GroupBatch> {
        let mut batches = Vec::with_capacity(reached.len());
        for id in reached {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let events = mem::take(&mut group.batch);
            // A reader that waits holds a second handle. Waking nobody would cost a system call.
            if Arc::strong_count(&group.new_events) > 1 {
                group.new_events.notify_all();
            }
            let topics = Arc::clone(&group.topics);
            batches.push(GroupBatch {
                group: id,
                batch: Batch::new(events, Coding::Chunked),
                finishes: self.is_finished(&topics, self.head),
            });
        }
        batches
    }

    /// Puts an event into memory, and has its topics hold no more events than the history says. An event of no topic is only
    /// counted: nobody can ask for it.
    fn keep(&mut self, mut event: Numbered, now: Instant) {
        let (sequence, finishes) = (event.sequence, event.finishes);
        if event.topics.is_empty() {
            return;
        }
        let names = event.topics.iter().map(|name| {
            let (name, topic) = self.topic(name);
            let is_first = topic.kept.is_empty();
            topic.kept.push_back(sequence);
            topic.finished = finishes.then_some(sequence);
            if is_first {
                self.bytes += TOPIC_BYTES + name.len();
            }
            name
        });
        let names: TopicSet = names.collect();
        event.topics = Arc::clone(&names);
        for id in event.scoped_ids() {
            self.own_ids.entry(id).or_insert((sequence, 0)).1 += 1;
        }
        self.bytes += event.memory();
        self.events.insert(sequence, (event, now));
        for name in &*names {
            self.release(name, 1);
        }
    }

    /// Returns a topic, a new one for a new name, and the name as the table has it. A name is in memory once, however many
    /// events its topic has.
    fn topic(&mut self, name: &Arc<str>) -> (Arc<str>, &mut Topic) {
        let new = Topic {
            evicted: self.evicted_of_dropped,
            ..Topic::default()
        };
        let entry = self.topics.entry(Arc::clone(name));
        (Arc::clone(entry.key()), entry.or_insert(new))
    }

    /// Looks at the newest `count` of the events that the topic no longer holds, and evicts those that no other topic holds.
    /// After a new event, `count` is one: the event that the topic has just stopped holding. Older events are in memory because
    /// another topic holds them, and leave at the latest when that topic releases them.
    fn release(&mut self, name: &str, count: usize) {
        for place in (0..count).rev() {
            if let Some(topic) = self.topics.get(name)
                && let newer = self.limit(topic).saturating_add(place)
                && let Some(&sequence) = topic.kept.iter().nth_back(newer)
                && !self.is_held(sequence)
            {
                self.evict(sequence);
            }
        }
    }

    /// Returns how many events a topic holds at most.
    fn limit(&self, topic: &Topic) -> usize {
        match self.config.history_events {
            0 if !topic.groups.is_empty() => LIVE_BUFFER,
            limit => limit,
        }
    }

    /// Returns whether one of the event's topics holds it. A topic holds an event if fewer events of the topic are newer than
    /// the topic may hold. The order of the topic's queue says how many are newer, so nothing has to be counted.
    fn is_held(&self, sequence: u64) -> bool {
        let event = self.events.get(&sequence).into_iter();
        let mut topics = event.flat_map(|(event, _)| &*event.topics);
        topics.any(|name| {
            let topic = self.topics.get(name);
            topic.is_some_and(|it| it.kept.len() - it.count_to(sequence) < self.limit(it))
        })
    }

    /// Evicts events that are too old or too many, at most a step of them, and returns when to go on; `None` if no event will
    /// be too old.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let mut budget = STEP_EVICTIONS;
        loop {
            let (&sequence, (event, since)) = self.events.first_key_value()?;
            let due = match self.bytes > self.config.history_bytes {
                true => now,
                // An age past the clock's end is no limit.
                false => since.checked_add(self.config.history_age?)?,
            };
            if due > now || budget == 0 {
                return Some(due);
            }
            budget = budget.saturating_sub(event.topics.len());
            self.evict(sequence);
        }
    }

    /// Takes an event out of memory and out of everything that counts it. Its topics remember it as evicted.
    fn evict(&mut self, sequence: u64) {
        let Some((event, _)) = self.events.remove(&sequence) else {
            return;
        };
        self.bytes -= event.memory();
        for id in event.scoped_ids() {
            if let Some((_, count)) = self.own_ids.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.own_ids.remove(&id);
                }
            }
        }
        for name in &*event.topics {
            let Some(topic) = self.topics.get_mut(name) else {
                continue;
            };
            topic.kept.remove(topic.count_to(sequence) - 1);
            topic.evicted = topic.evicted.max(sequence);
            if topic.kept.is_empty() {
                self.bytes -= TOPIC_BYTES + name.len();
                self.drop_topic_if_unused(name);
            }
        }
    }

    /// Forgets a topic that has neither an event nor a reader, so that names which come once do not stay in memory.
    fn drop_topic_if_unused(&mut self, name: &str) {
        if let Some(topic) = self.topics.get(name)
            && topic.kept.is_empty()
            && topic.groups.is_empty()
        {
            self.evicted_of_dropped = self.evicted_of_dropped.max(topic.evicted);
            self.topics.remove(name);
        }
    }
}

/// Following a log that others number. The archive has all events, and memory has some of the newest.
impl Log {
    /// Takes over the epochs of the log that the hub follows. If they differ at or before the head, events were lost, and their
    /// numbers will be given to other events: then the log goes back, and the number to go on after is returned.
    pub(crate) fn set_epochs(&mut self, epochs: &[Epoch]) -> Option<u64> {
        let pairs = self.epochs.iter().zip(epochs);
        let same = pairs.take_while(|(old, new)| old == new).count();
        let differing = self.epochs[same..].iter().chain(&epochs[same..]);
        let first = differing.map(|(_, first)| *first).min();
        self.epochs = epochs.to_vec();
        self.raise_archive_lost_to(Some(0));
        // The hub may not have all of the log any more.
        self.current = self.current.filter(|_| first.is_none());
        let back = first.filter(|first| *first <= self.head)?.saturating_sub(1);
        self.forget_all(back);
        self.archive_lost_to = self.archive_lost_to.min(Some(back));
        self.returns += 1;
        self.wake_all();
        Some(back)
    }

    /// Skips the numbers up to this one, which exist nowhere, and returns the gap that live readers get.
    pub(crate) fn lose(&mut self, to: u64) -> Vec<GroupBatch> {
        let gap = self.report_gap(
            &mut Position::at(&TopicSet::default(), self.head),
            to,
            to,
            None,
        );
        self.forget_all(to);
        for group in self.groups.values_mut() {
            group.batch.push((to, gap.clone()));
        }
        self.hand_out(self.groups.keys().copied().collect())
    }

    /// Evicts all events and sets the head to this number: readers that are behind read the archive.
    pub(crate) fn forget_all(&mut self, head: u64) {
        while let Some((&sequence, _)) = self.events.first_key_value() {
            self.evict(sequence);
        }
        // The marks may have been later: the numbers after this one are given out again.
        (self.head, self.evicted_of_any, self.evicted_of_dropped) = (head, head, head);
        for topic in self.topics.values_mut() {
            (topic.evicted, topic.finished) = (head, None);
        }
    }

    /// Returns whether the id may mean something as soon as more is known of the log.
    pub(crate) fn may_come(&self, id: &str, topics: &TopicSet) -> bool {
        self.find(id, topics)
            .is_none_or(|sequence| sequence > self.head)
    }
}

/// Positions: where a reader begins. A position is taken in the same step in which the reader joins its group, so that what is
/// published from then on is kept for it.
impl Log {
    /// Returns the position of a reader that has everything, or, where all topics are finished, everything but the end.
    pub(crate) fn latest(&self, topics: &TopicSet) -> Position {
        let lasts = topics
            .iter()
            .filter_map(|name| self.topics.get(name)?.finished);
        let cursor = match self.is_finished(topics, self.head) {
            true => lasts.filter(|last| self.is_kept(*last)).min(),
            false => None,
        };
        let cursor = cursor.map_or(self.head, |first| first - 1);
        Position::at(topics, cursor)
    }

    /// Returns the position before all events that are kept. Older events do not count as lost.
    fn earliest(&self, topics: &TopicSet) -> Position {
        self.start_after(self.lost_to(topics), topics)
    }

    /// Returns the position of a reader that begins, and to which events up to this one do not count as lost. An archive
    /// has all that follows. Memory alone may have older events, of topics that evicted less than others.
    fn start_after(&self, lost_to: u64, topics: &TopicSet) -> Position {
        let cursor = match self.archive_lost_to {
            Some(_) => lost_to,
            None => self.before_next(topics, 0),
        };
        Position {
            gap_reported_to: lost_to,
            ..Position::at(topics, cursor)
        }
    }

    /// Returns the position after the event with this wire id, or before all events for `earliest`. Only the log knows
    /// what an id means; an id that it does not know is a gap, never a guess.
    pub(crate) fn after(&self, id: &str, topics: &TopicSet) -> Position {
        if id == "earliest" {
            return self.earliest(topics);
        }
        if let Some(sequence) = self.find(id, topics) {
            return Position::at(topics, sequence);
        }
        let position = match parse(id).map(|id| id.epoch) {
            // Memory, and not the beginning of a file: a client that is cut off often would never reach the file's end.
            None => self.start_after(self.evicted(topics), topics),
            Some(epoch) => match self.last_of(epoch) {
                // The event was given out and then lost in a power failure: all events after it are new to this reader.
                Some(last) if epoch != self.next_id().epoch => Position::at(topics, last),
                _ => self.earliest(topics),
            },
        };
        Position {
            unknown_id: Some(id.to_string()),
            ..position
        }
    }

    /// Returns the sequence number of the event with this wire id.
    fn find(&self, id: &str, topics: &TopicSet) -> Option<u64> {
        match parse(id) {
            Some(id) => (id.sequence <= self.last_of(id.epoch)?).then_some(id.sequence),
            None => self.find_own_id(id, topics),
        }
    }

    /// Returns the oldest event in memory with this id in the reader's topics, unless an older one may be meant. With the
    /// oldest, a client whose id was given out several times may get an event twice, and misses none.
    fn find_own_id(&self, id: &str, topics: &TopicSet) -> Option<u64> {
        let id = Arc::<str>::from(id);
        let oldest = |scope: &Arc<str>| {
            let (oldest, _) = self.own_ids.get(&(Arc::clone(&id), Arc::clone(scope)))?;
            Some(*oldest)
        };
        let found = topics.iter().filter_map(oldest).min()?;
        // Another topic may have had an event with this id, and have nothing of it any more.
        let of_all = match topics.len() {
            1 => found,
            _ => oldest(&Arc::default())?,
        };
        let is_kept = |sequence| self.events.contains_key(&sequence);
        (is_kept(found) && is_kept(of_all)).then_some(found)
    }

    /// Moves a position on to the oldest event that the subscription replays, but not past `latest`: what was published since
    /// the client subscribed is no replay. A client that brought an id is told of a gap, if that skips an event of its topics.
    pub(crate) fn limit_replay(
        &self,
        mut position: Position,
        id: Option<&str>,
        replay: Replay,
        latest: &Position,
    ) -> Position {
        let topics = &position.topics;
        let skipped = match replay {
            // A history of no events keeps events for connected readers, not for readers that come back.
            _ if self.config.history_events == 0 && self.archive_lost_to.is_none() => {
                self.newest_while(topics, |_| true)
            }
            Replay::All => return position,
            Replay::Events(count) => {
                let kept = topics.iter().filter_map(|name| self.topics.get(name));
                let newest_first = kept.map(|topic| topic.kept.iter().rev().map(|n| u64::MAX - n));
                let skipped = merge(newest_first).nth(count);
                skipped.map_or(0, |reversed| u64::MAX - reversed)
            }
            Replay::Age(age) => self.newest_before(topics, Instant::now().checked_sub(age)),
        };
        let cursor = skipped.max(self.evicted(topics)).min(latest.cursor);
        if position.cursor < cursor {
            (position.cursor, position.gap_reported_to) = (cursor, cursor);
            let unknown = position.unknown_id.take();
            position.unknown_id = unknown.or(id.map(str::to_string));
            if id.is_none() {
                position.began = cursor;
            }
        }
        position
    }

    /// Returns the newest event of these topics in memory that is older than this time; 0 when there is none. `None` is a time
    /// before the beginning of the clock, and no event is older.
    fn newest_before(&self, topics: &TopicSet, time: Option<Instant>) -> u64 {
        let since = |sequence| self.events.get(&sequence).map(|(_, since)| *since);
        self.newest_while(topics, |sequence| since(sequence) < time)
    }
}

/// Reads an id of the hub's own, with or without the mark of an end.
fn parse(id: &str) -> Option<EventId> {
    EventId::parse(id).or_else(|| id::ended(id))
}

/// Groups of readers: those with the same topics. Ten thousand readers of one topic are one group, which costs an event no more
/// than one reader does, until the event is written to their sockets.
impl Log {
    /// Makes a reader a member of its topics' group. The first member makes the group, and an entry for each topic that is new:
    /// from then on a topic remembers what it evicts. All members share one set of names: 80 bytes less for each.
    pub(crate) fn join(&mut self, topics: &TopicSet) -> (GroupId, TopicSet) {
        let mut id = self.groups.hasher().hash_one(topics);
        while let Some(group) = self.groups.get_mut(&id) {
            if group.topics == *topics {
                group.members += 1;
                return (id, Arc::clone(&group.topics));
            }
            // Another set of topics has the same hash.
            id = id.wrapping_add(1);
        }
        let topics = topics.iter().map(|name| {
            let (name, topic) = self.topic(name);
            topic.groups.push(id);
            name
        });
        let topics: TopicSet = topics.collect();
        let group = Group {
            topics: Arc::clone(&topics),
            members: 1,
            batch: Vec::new(),
            new_events: Arc::default(),
        };
        self.groups.insert(id, group);
        (id, topics)
    }

    /// Takes a reader out of its group. With the last reader, the group and its unused topics are dropped.
    pub(crate) fn leave(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id)
            && group.members > 1
        {
            group.members -= 1;
        } else if let Some(group) = self.groups.remove(&id) {
            for name in &*group.topics {
                if let Some(topic) = self.topics.get_mut(name) {
                    topic.groups.retain(|other| *other != id);
                }
                if self.config.history_events == 0 {
                    self.release(name, LIVE_BUFFER);
                }
                self.drop_topic_if_unused(name);
            }
        }
    }

    /// Returns the condition variable to wait on, with the log's lock, until there is something for this group.
    pub(crate) fn new_events(&self, group: GroupId) -> Arc<Condvar> {
        let group = self.groups.get(&group);
        group.map_or_else(Arc::default, |group| Arc::clone(&group.new_events))
    }

    /// Wakes every reader that waits.
    pub(crate) fn wake_all(&self) {
        for group in self.groups.values() {
            group.new_events.notify_all();
        }
    }
}

/// Reading.
impl Log {
    /// Returns what comes next for a reader, at most `max_bytes` or one event. A gap moves the position. Events do not, since
    /// they may not be sent after all.
    pub(crate) fn next(&self, position: &mut Position, max_bytes: usize) -> Next {
        if let Some(gap) = self.gap(position) {
            return Next::Note(gap);
        }
        let topics = &position.topics;
        if self.archive_lost_to.is_some() && self.evicted(topics) > position.cursor {
            return Next::InArchive;
        }
        let events = up_to_bytes(self.kept_after(topics, position.cursor), max_bytes);
        match events.is_empty() {
            true if self.is_over_for(position) => Next::Finished,
            true => Next::AtHead,
            false => Next::Events(events),
        }
    }

    /// Returns whether a reader has everything, and may get more. Under the log's lock this is certain: the reader can wait, or
    /// join a writer, before anything else is appended.
    pub(crate) fn is_at_head(&self, position: &Position) -> bool {
        self.next(&mut position.clone(), 0) == Next::AtHead
    }

    /// Returns what comes next, as [`next`](Log::next) does, for a reader that only wants the newest event. The reader is told
    /// of what it skips.
    pub(crate) fn newest(&self, position: &mut Position) -> Next {
        let topics = &position.topics;
        let newest = self.newest_while(topics, |_| true);
        let evicted = self.evicted(topics);
        let to = evicted.max(self.newest_while(topics, |kept| kept < newest));
        if newest <= position.cursor || to <= position.cursor.max(position.gap_reported_to) {
            return self.next(position, 0);
        }
        // Counting is limited to one step: a larger number is not known.
        let skipped = self.kept_after(topics, position.cursor).take(STEP_EVENTS);
        let skipped = skipped.take_while(|event| event.sequence < newest).count();
        let is_known = evicted <= position.cursor && skipped < STEP_EVENTS;
        Next::Note(self.report_gap(position, to, newest - 1, is_known.then_some(skipped)))
    }

    /// Returns the newest event of each topic up to a position, in order of sequence: those after `after`, at most
    /// `max_bytes` of them or one.
    pub(crate) fn retained(&self, position: &Position, after: u64, max_bytes: usize) -> Events {
        if self.config.history_events == 0 {
            return Vec::new();
        }
        let topics = position.topics.iter();
        let topics = topics.filter_map(|name| self.topics.get(name));
        let newest = topics.filter_map(|it| it.newest_while(|kept| kept <= position.cursor));
        let newest = newest.filter(|newest| *newest > after);
        up_to_bytes(self.in_memory(merge(newest.map(iter::once))), max_bytes)
    }

    /// Returns the events of a topic that are in memory, oldest first.
    pub(crate) fn kept(&self, topic: &str) -> impl DoubleEndedIterator<Item = &Frame> {
        let kept = self.topics.get(topic).into_iter();
        let kept = kept.flat_map(|topic| topic.kept.iter());
        kept.filter_map(|sequence| Some(&self.events.get(sequence)?.0.frame))
    }

    /// Returns the gap to report at a position, which is moved so that the next one is not reported again.
    fn gap(&self, position: &mut Position) -> Option<Frame> {
        let topics = &position.topics;
        let lost_to = self.lost_to(topics);
        let reported = position.cursor.max(position.gap_reported_to);
        if position.unknown_id.is_none() && lost_to <= reported {
            return None;
        }
        if self.archive_lost_to.is_some() {
            return Some(self.gap_to(lost_to, position));
        }
        // The next reconnect resumes right before what comes now.
        let resume = self.before_next(topics, position.cursor);
        let to = match lost_to.max(self.newest_while(topics, |kept| kept <= resume)) {
            0 => resume,
            missing => missing,
        };
        Some(self.report_gap(position, to, resume, None))
    }

    /// Returns the gap for a reader whose events up to `to` are not in the archive. It ends earlier if memory has the rest.
    pub(crate) fn gap_to(&self, to: u64, position: &mut Position) -> Frame {
        let to = to.min(self.evicted(&position.topics)).max(position.cursor);
        self.report_gap(position, to, to, None)
    }

    /// Moves a reader to `cursor`, and tells it that events up to `to` are lost: by `event: gap`, with the last event that the
    /// reader has, the newest that it misses, how many it misses where that is known, and the id with which it would resume.
    fn report_gap(
        &self,
        position: &mut Position,
        to: u64,
        cursor: u64,
        lost: Option<usize>,
    ) -> Frame {
        let unknown = position.unknown_id.take();
        let from = unknown.unwrap_or_else(|| self.id(position.cursor).to_string());
        (position.cursor, position.gap_reported_to) = (cursor, to);
        let (from, to, resume) = (json_string(&from), self.id(to), self.position_id(cursor));
        let lost = lost.map_or("null".to_string(), |lost| lost.to_string());
        let data = format!(r#"{{"from":{from},"to":"{to}","lost":{lost}}}"#);
        Frame::from_text(format!("id: {resume}\nevent: gap\ndata: {data}\n\n").as_bytes())
    }

    /// Returns the newest event of these topics that neither memory nor the archive has: the older of the two marks, or
    /// without an archive the mark of memory.
    fn lost_to(&self, topics: &TopicSet) -> u64 {
        let evicted = self.evicted(topics);
        self.archive_lost_to.unwrap_or(evicted).min(evicted)
    }

    /// Returns the newest event of these topics that is no longer in memory. A topic without an entry may have been dropped
    /// with events that are forgotten: the newest of all topics that were dropped stands for each.
    fn evicted(&self, topics: &TopicSet) -> u64 {
        let evicted = |name| {
            let topic = self.topics.get(name);
            topic.map_or(self.evicted_of_dropped, |topic| topic.evicted)
        };
        let evicted = topics.iter().map(evicted);
        evicted.fold(self.evicted_of_any, u64::max)
    }

    /// Returns the newest event that [`Topic::newest_while`] returns of any of these topics; 0 when there is none.
    fn newest_while(&self, topics: &TopicSet, holds: impl Fn(u64) -> bool) -> u64 {
        let topics = topics.iter().filter_map(|name| self.topics.get(name));
        let newest = topics.filter_map(|topic| topic.newest_while(&holds));
        newest.max().unwrap_or(0)
    }

    /// Returns the number before the next event of these topics after a cursor; the head, where there is none. This is the
    /// latest position at which a reader gets the same as at the cursor.
    fn before_next(&self, topics: &TopicSet, cursor: u64) -> u64 {
        let next = self.kept_after(topics, cursor).next();
        next.map_or(self.head, |event| event.sequence - 1)
    }

    /// Returns whether a client that brings the id of a last event is to stay away. For one topic, the id says that the topic
    /// is finished. Several topics must all be known to be finished.
    pub(crate) fn is_over(&self, id: &str, topics: &TopicSet) -> bool {
        let known = || self.find(id, topics);
        id::is_ending(id)
            && (topics.len() == 1 || known().is_some_and(|last| self.is_finished(topics, last)))
    }

    /// Returns whether all these topics are finished, with last events that a reader at this cursor has.
    fn is_finished(&self, topics: &TopicSet, cursor: u64) -> bool {
        let mut lasts = topics.iter().map(|name| self.topics.get(name)?.finished);
        lasts.all(|last| last.is_some_and(|last| last <= cursor))
    }

    /// Returns whether nothing will follow for a reader. If its topics were finished before it began, one of their last events
    /// must still be kept.
    fn is_over_for(&self, position: &Position) -> bool {
        let lasts = |name| self.topics.get(name)?.finished;
        let mut lasts = position.topics.iter().filter_map(lasts);
        self.is_finished(&position.topics, position.cursor)
            && lasts.any(|last| last > position.began || self.is_kept(last))
    }

    /// Returns whether memory or the archive has an event.
    fn is_kept(&self, sequence: u64) -> bool {
        let is_archived = |lost_to| lost_to < sequence;
        self.archive_lost_to.is_some_and(is_archived) || self.events.contains_key(&sequence)
    }

    /// Returns the events of these topics in memory after a cursor, in order, each once.
    fn kept_after(&self, topics: &TopicSet, cursor: u64) -> impl Iterator<Item = &Numbered> {
        let topics = topics.iter().filter_map(|name| self.topics.get(name));
        let after = topics.map(move |topic| topic.kept.range(topic.count_to(cursor)..).copied());
        self.in_memory(merge(after))
    }

    /// Looks up the events in memory with these sequence numbers.
    fn in_memory(&self, sequences: impl Iterator<Item = u64>) -> impl Iterator<Item = &Numbered> {
        sequences.filter_map(|sequence| Some(&self.events.get(&sequence)?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::topics;
    use std::collections::BTreeSet;

    const EPOCH: u64 = 0xe;

    /// A log and the time at which it keeps events.
    struct Fixture {
        log: Log,
        now: Instant,
    }

    fn log(config: HubConfig) -> Fixture {
        let mut log = Log::new(config);
        log.begin_epoch((EPOCH, 1));
        let now = Instant::now();
        Fixture { log, now }
    }

    fn set(names: &str) -> TopicSet {
        topics::check(names.split_whitespace().collect()).unwrap()
    }

    impl Fixture {
        fn publish(&mut self, topics: &str) -> u64 {
            self.publish_with(topics, None)
        }

        fn publish_with(&mut self, topics: &str, id: Option<&str>) -> u64 {
            let sequence = self.log.head + 1;
            let event = Numbered {
                sequence,
                topics: set(topics),
                frame: Frame::from_text(b"data: 0123456789\n\n"),
                own_id: id.map(Arc::from),
                finishes: false,
            };
            self.log.append(vec![event], self.now);
            self.log.expire(self.now);
            sequence
        }

        /// Finishes topics, and returns which groups end.
        fn finish(&mut self, topics: &str) -> Vec<(GroupId, bool)> {
            let event = Numbered {
                sequence: self.log.head + 1,
                topics: set(topics),
                frame: Frame::from_text(b"data: end\n\n"),
                own_id: None,
                finishes: true,
            };
            let batches = self.log.append(vec![event], self.now);
            let finishes = batches.iter().map(|batch| (batch.group, batch.finishes));
            finishes.collect()
        }

        /// Compares the log's counts with what its topics have.
        #[track_caller]
        fn check_counts(&self) {
            let log = &self.log;
            let kept: BTreeSet<u64> = log
                .topics
                .values()
                .flat_map(|topic| topic.kept.clone())
                .collect();
            assert!(kept.iter().eq(log.events.keys()));
            let events = log.events.values().map(|(event, _)| event);
            let memory: usize = events.clone().map(Numbered::memory).sum();
            let keeping = log
                .topics
                .iter()
                .filter(|(_, topic)| !topic.kept.is_empty());
            let names: usize = keeping.map(|(name, _)| TOPIC_BYTES + name.len()).sum();
            assert_eq!(log.bytes, memory + names);
            for topic in log.topics.values() {
                assert!(topic.kept.iter().is_sorted_by(|a, b| a < b));
            }
            let mut own_ids = HashMap::new();
            for event in events {
                assert!(log.is_held(event.sequence));
                for name in &*event.topics {
                    assert!(log.topics[name].kept.contains(&event.sequence));
                }
                for id in event.scoped_ids() {
                    *own_ids.entry(id).or_insert(0) += 1;
                }
            }
            let counts = log.own_ids.iter();
            let counts = counts.map(|(id, (_, count))| (id.clone(), *count));
            assert_eq!(counts.collect::<HashMap<_, _>>(), own_ids);
        }

        /// An own id means the oldest event in memory that has it, or nothing.
        #[track_caller]
        fn check_own_id(&self, topics: &str) {
            let topics = set(topics);
            let is_of = |event: &&Numbered| {
                let is_asked_for = event.topics.iter().any(|name| topics.contains(name));
                is_asked_for && event.own_id.as_deref() == Some("x")
            };
            let mut events = self.log.events.values().map(|(event, _)| event);
            let oldest = events.find(is_of).map(|event| event.sequence);
            let found = self.log.find_own_id("x", &topics);
            assert!(found.is_none() || found == oldest, "{found:?} {oldest:?}");
        }

        fn reader(&mut self, topics: &str, position: Position) -> Reader {
            let (group, _) = self.log.join(&set(topics));
            let position = Position {
                topics: set(topics),
                ..position
            };
            Reader { group, position }
        }

        /// All that a reader gets now: numbers, and gaps as written.
        fn read(&self, reader: &mut Reader) -> String {
            let mut all = Vec::new();
            loop {
                match self.log.next(&mut reader.position, 60) {
                    Next::AtHead | Next::InArchive | Next::Unknown => return all.join(" "),
                    Next::Finished => return all.join(" ") + " end",
                    Next::Note(frame) => all.push(gap_text(&frame)),
                    Next::Events(events) => {
                        assert!(events.len() <= 2, "at most 60 bytes are two events");
                        for (sequence, _) in events {
                            all.push(sequence.to_string());
                            reader.position.cursor = sequence;
                        }
                    }
                }
            }
        }
    }

    struct Reader {
        group: GroupId,
        position: Position,
    }

    /// `gap(from,to,lost)@rebased`
    fn gap_text(frame: &Frame) -> String {
        let message = frame.event().message().unwrap();
        assert_eq!(message.event, "gap");
        let prefix = format!("{EPOCH:016x}-");
        let id = message.last_event_id.replace(&prefix, "");
        let parts: Vec<&str> = message.data.split('"').collect();
        let lost = parts[10].trim_matches([':', '}']);
        let (from, to) = (parts[3].replace(&prefix, ""), parts[7].replace(&prefix, ""));
        format!("gap({from},{to},{lost})@{id}")
    }

    #[test]
    fn a_reader_gets_what_is_behind_its_cursor() {
        let mut log = log(HubConfig {
            history_events: 3,
            ..HubConfig::default()
        });
        for topics in ["a", "b", "a b", "a", "c", "a", "b"] {
            log.publish(topics); // a keeps 3, 4 and 6; b keeps 2, 3 and 7; c keeps 5.
        }
        #[track_caller]
        fn check(log: &mut Fixture, topics: &str, cursor: u64, expected: &str) {
            let id = log.log.id(cursor).to_string();
            let position = log.log.after(&id, &set(topics));
            let mut reader = log.reader(topics, position);
            assert_eq!(log.read(&mut reader), expected, "{topics} after {cursor}");
            assert!(log.log.is_at_head(&reader.position));
            log.log.leave(reader.group);
        }
        check(&mut log, "a", 7, ""); // At the head.
        check(&mut log, "a", 6, ""); // At the last event of a.
        check(&mut log, "a", 5, "6"); // Between two events of a.
        check(&mut log, "a", 1, "3 4 6"); // At the last event that was evicted: nothing is missing.
        check(&mut log, "a", 0, "gap(0,1,null)@2 3 4 6"); // Before it.
        check(&mut log, "b", 0, "2 3 7"); // Nothing of b was evicted.
        check(&mut log, "a b", 1, "2 3 4 6 7"); // The third comes once.
        check(&mut log, "a b", 0, "gap(0,1,null)@1 2 3 4 6 7"); // It goes on from the oldest event of either topic.
        check(&mut log, "c", 0, "5"); // A quiet topic keeps its events beside a loud one.
        check(&mut log, "new", 0, ""); // A topic without events.
    }

    #[test]
    fn what_an_id_means_is_known_or_a_gap() {
        let mut log = log(HubConfig {
            history_events: 2,
            ..HubConfig::default()
        });
        log.publish_with("a", Some("row 1"));
        log.publish_with("a", Some("row 2"));
        log.publish_with("a", Some("row 2"));
        #[track_caller]
        fn check(log: &mut Fixture, id: &str, expected: &str) {
            let position = log.log.after(id, &set("a"));
            let mut reader = log.reader("a", position);
            assert_eq!(log.read(&mut reader), expected, "{id}");
        }
        let own = |sequence: u64| {
            EventId {
                epoch: EPOCH,
                sequence,
            }
            .to_string()
        };
        check(&mut log, &own(2), "3"); // The hub's own number, whatever id went over the wire.
        check(&mut log, "row 2", "3"); // The same id twice: the oldest counts.
        check(&mut log, "row 1", "gap(row 1,1,null)@1 2 3"); // Forgotten with its event.
        check(&mut log, &own(4), "gap(4,1,null)@1 2 3"); // A number that has not been given out yet.
        check(
            &mut log,
            "000000000000000f-2",
            "gap(000000000000000f-2,1,null)@1 2 3",
        ); // Another epoch.
        log.publish("a");
        log.publish("a");
        check(&mut log, "row 2", "gap(row 2,3,null)@3 4 5"); // Both are gone.
    }

    #[test]
    fn a_reader_that_stays_is_told_what_it_lost() {
        let mut log = log(HubConfig {
            history_events: 2,
            ..HubConfig::default()
        });
        let position = log.log.latest(&set("a"));
        let mut a = log.reader("a", position.clone());
        let mut both = log.reader("a b", position);
        for topics in ["a", "b", "a", "a b", "a", "a"] {
            log.publish(topics); // a holds 5 and 6; b holds 2 and 4.
        }
        assert_eq!(log.read(&mut a), "gap(0,3,null)@3 4 5 6"); // 1 and 3: b still holds the fourth.
        assert_eq!(log.read(&mut both), "gap(0,3,null)@1 2 4 5 6");
        log.publish("b"); // Evicts 2.
        assert_eq!(log.read(&mut a), "");
        assert_eq!(log.read(&mut both), "7");
        for _ in 0..3 {
            log.publish("a");
        }
        assert_eq!(log.read(&mut a), "gap(6,8,null)@8 9 10");
    }

    #[test]
    fn a_gap_is_told_once() {
        let mut log = log(HubConfig {
            history_events: 2,
            ..HubConfig::default()
        });
        let position = log.log.latest(&set("a"));
        let mut reader = log.reader("a b", position);
        for topics in ["b", "b", "a", "a", "a"] {
            log.publish(topics); // a holds 4 and 5; b holds 1 and 2.
        }
        let next = log.log.next(&mut reader.position, 60);
        let Next::Note(gap) = next else {
            panic!("{next:?}")
        };
        assert_eq!(gap_text(&gap), "gap(0,3,null)@0"); // The third.
        let position = log.log.earliest(&set("a b"));
        let mut early = log.reader("a b", position);
        assert_eq!(log.read(&mut early), "1 2 4 5"); // Nothing is lost to a reader that begins.
        log.publish("b"); // Evicts 1, which the gap has covered.
        assert_eq!(log.read(&mut reader), "2 4 5 6");
    }

    #[test]
    fn what_memory_has_of_a_quiet_topic_is_not_lost_with_the_file() {
        let mut log = log(HubConfig {
            history_events: 2,
            ..HubConfig::default()
        });
        for topics in ["a", "a", "b", "b", "b"] {
            log.publish(topics); // a keeps 1 and 2; b keeps 4 and 5.
        }
        log.log.raise_archive_lost_to(Some(3));
        #[track_caller]
        fn check(log: &mut Fixture, topics: &str, position: Position, expected: &str) {
            let mut reader = log.reader(topics, position);
            assert_eq!(log.read(&mut reader), expected);
        }
        let after =
            |log: &Fixture, n, topics| log.log.after(&log.log.id(n).to_string(), &set(topics));
        let position = after(&log, 1, "a");
        check(&mut log, "a", position, "2"); // Memory has all of a.
        let position = after(&log, 1, "b");
        check(&mut log, "b", position, "gap(1,3,null)@3 4 5"); // Neither memory nor the file has 3 any more.
        let position = after(&log, 1, "a b");
        check(&mut log, "a b", position, "gap(1,3,null)@3 4 5"); // The gap covers 2 as well.
        let position = log.log.earliest(&set("a"));
        check(&mut log, "a", position, "1 2"); // All there is of a.
        let position = log.log.earliest(&set("b"));
        check(&mut log, "b", position, "4 5"); // And of b.
        let position = log.log.after("who", &set("a"));
        check(&mut log, "a", position, "gap(who,0,null)@0 1 2"); // What it had is not known.
        log.log.evicted_of_any = 1;
        let position = after(&log, 0, "a");
        check(&mut log, "a", position, "gap(0,1,null)@1 2"); // What was before the file was opened may have been of a.
        let position = log.log.earliest(&set("a"));
        check(&mut log, "a", position, "2"); // A reader that begins now has not lost 1.
    }

    #[test]
    fn what_a_file_no_longer_had_when_it_was_opened_may_have_been_of_any_topic() {
        let mut log = log(HubConfig {
            history_events: 2,
            ..HubConfig::default()
        });
        log.log.epochs.clear();
        log.log.begin_epoch((EPOCH, 5)); // As the oldest segment begins.
        log.publish("b");
        log.log.begin_epoch((0xf, 6));
        for (topics, expected) in [("a", "gap(2,4,null)@4"), ("b", "gap(2,4,null)@4 5")] {
            let position = log.log.after(&log.log.id(2).to_string(), &set(topics));
            let mut reader = log.reader(topics, position);
            assert_eq!(log.read(&mut reader), expected);
        }
    }

    #[test]
    fn an_age_past_all_clocks_is_none() {
        let mut log = log(HubConfig {
            history_age: Some(Duration::MAX),
            history_events: 2,
            ..HubConfig::default()
        });
        log.publish("a");
        assert_eq!((log.log.expire(log.now), log.log.len()), (None, 1));
    }

    #[test]
    fn an_id_has_the_epoch_that_gave_it_out() {
        let mut log = log(HubConfig {
            history_events: 10,
            ..HubConfig::default()
        });
        log.publish("a");
        log.log.begin_epoch((0xf, 2));
        log.publish("a");
        let ids = [0, 1, 2, 3].map(|n| log.log.id(n).epoch);
        assert_eq!(ids, [EPOCH, EPOCH, 0xf, 0xf]);
    }

    #[test]
    fn one_that_skips_gets_the_newest() {
        let mut log = log(HubConfig {
            history_events: 10,
            ..HubConfig::default()
        });
        let position = log.log.latest(&set("a"));
        let mut reader = log.reader("a b", position);
        for topics in ["a", "b", "c", "a"] {
            log.publish(topics);
        }
        let next = log.log.newest(&mut reader.position);
        let Next::Note(gap) = next else {
            panic!("{next:?}")
        };
        assert_eq!(gap_text(&gap), "gap(0,2,2)@3"); // The third is of another topic.
        let next = log.log.newest(&mut reader.position);
        let Next::Events(events) = next else {
            panic!("{next:?}")
        };
        assert_eq!(events[0].0, 4);
    }

    #[test]
    fn what_is_skipped_is_counted_where_it_is_all_in_memory_and_not_too_much() {
        #[track_caller]
        fn check(history_events: usize, published: usize, expected: &str) {
            let mut log = log(HubConfig {
                history_events,
                ..HubConfig::default()
            });
            let position = log.log.latest(&set("a"));
            let mut reader = log.reader("a", position);
            for _ in 0..published {
                log.publish("a");
            }
            match log.log.newest(&mut reader.position) {
                Next::Note(gap) => assert_eq!(gap_text(&gap), expected),
                next => panic!("{next:?}"),
            }
        }
        check(5, 5, "gap(0,4,4)@4");
        check(5, 6, "gap(0,5,null)@5"); // The first has left memory.
        check(2000, STEP_EVENTS, "gap(0,1023,1023)@1023");
        check(2000, STEP_EVENTS + 1, "gap(0,1024,null)@1024"); // More than a step counts.
    }

    #[test]
    fn a_log_that_goes_back_says_so() {
        let mut log = log(HubConfig::default());
        for _ in 0..5 {
            log.publish("a");
        }
        assert_eq!(log.log.set_epochs(&[(EPOCH, 1)]), None); // As before.
        assert_eq!(log.log.returns, 0);
        assert_eq!(log.log.set_epochs(&[(EPOCH, 1), (0xf, 3)]), Some(2)); // 3 to 5 are lost.
        assert_eq!((log.log.returns, log.log.head), (1, 2));
    }

    #[test]
    fn one_that_skips_comes_to_the_head_whatever_the_file_has_let_go_of() {
        let mut log = log(HubConfig {
            history_events: 10,
            ..HubConfig::default()
        });
        let position = log.log.latest(&set("a"));
        let mut reader = log.reader("a", position);
        log.publish("b");
        log.publish("b");
        log.log.raise_archive_lost_to(Some(1));
        let next = log.log.newest(&mut reader.position);
        assert_eq!(next, Next::AtHead, "memory knows that it was of b");
        log.log.evicted_of_any = 1;
        let next = log.log.newest(&mut reader.position);
        let Next::Note(gap) = next else {
            panic!("{next:?}")
        };
        assert_eq!(gap_text(&gap), "gap(0,1,null)@1");
        let next = log.log.newest(&mut reader.position);
        assert_eq!(next, Next::AtHead);
        assert!(log.log.is_at_head(&reader.position));
    }

    #[test]
    fn own_ids_mean_an_event_of_the_readers_topics() {
        #[track_caller]
        fn check(published: &[(&str, &str)], topics: &str, id: &str, expected: &str) {
            let mut log = log(HubConfig {
                history_events: 2,
                ..HubConfig::default()
            });
            for (topics, id) in published {
                log.publish_with(topics, Some(id));
            }
            let position = log.log.after(id, &set(topics));
            let mut reader = log.reader(topics, position);
            assert_eq!(log.read(&mut reader), expected, "{topics} after {id}");
        }
        let rows = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")];
        check(&rows, "a", "1", "2"); // The first of a, not that of b.
        check(&rows, "b", "1", "4"); // And the other way round.
        check(&rows, "a b", "1", "2 3 4"); // Ambiguous: the oldest.
        check(&rows, "c", "1", "gap(1,4,null)@4"); // Other topics' ids say nothing.
        let twice = [("a", "1"), ("a", "1")];
        check(&twice, "a", "1", "2"); // Twice in one topic: the oldest.
        let evicted = [("a", "1"), ("a", "1"), ("a", "2")];
        check(&evicted, "a", "1", "gap(1,1,null)@1 2 3"); // The oldest has gone: never a later one.
        let other = [("a", "1"), ("b", "1"), ("a", "2"), ("a", "3")];
        check(&other, "b", "1", ""); // An event that only a has lost is not a gap for b.
        check(&other, "a b", "1", "gap(1,1,null)@1 2 3 4"); // For a reader of both topics it is.
        let gone = [("a", "1"), ("a", "2"), ("a", "3")];
        check(&gone, "a", "1", "gap(1,1,null)@1 2 3"); // Forgotten with its event.
    }

    #[test]
    fn a_client_goes_back_only_so_far() {
        let mut log = log(HubConfig {
            history_events: 10,
            ..HubConfig::default()
        });
        for topics in ["a", "b", "a", "b", "a"] {
            log.now += Duration::from_secs(10);
            log.publish(topics);
        }
        #[track_caller]
        fn check(log: &mut Fixture, id: Option<u64>, replay: Replay, expected: &str) {
            let topics = set("a");
            let id = id.map(|id| log.log.id(id).to_string());
            let position = match &id {
                Some(id) => log.log.after(id, &topics),
                None => log.log.earliest(&topics),
            };
            let mut position = position;
            let latest = log.log.latest(&position.topics);
            position = log
                .log
                .limit_replay(position, id.as_deref(), replay, &latest);
            let mut reader = log.reader("a", position);
            assert_eq!(log.read(&mut reader), expected, "{replay:?}");
        }
        check(&mut log, Some(0), Replay::All, "1 3 5"); // No limit.
        check(&mut log, Some(1), Replay::Events(2), "3 5"); // Exactly as many as there are.
        check(&mut log, Some(0), Replay::Events(2), "gap(0,1,null)@2 3 5"); // One more event is reported as missing.
        check(&mut log, Some(0), Replay::Events(9), "1 3 5"); // More than there are.
        check(&mut log, None, Replay::Events(1), "5"); // A client without an id misses nothing.
        check(&mut log, None, Replay::Events(0), ""); // Nothing at all.
        check(&mut log, Some(3), Replay::Events(0), "gap(3,5,null)@5"); // The skipped event is reported too.
        check(&mut log, Some(5), Replay::Events(0), ""); // It has everything.
        check(&mut log, None, Replay::Age(Duration::ZERO), "1 3 5"); // The clock of this test is ahead.

        // Events of other topics after the client's last event are not lost to the client.
        log.now = Instant::now();
        log.publish("b");
        check(&mut log, Some(5), Replay::Events(0), ""); // Not at the head, but it has everything.
        check(&mut log, Some(5), Replay::Age(Duration::ZERO), ""); // The event of b is too old.
        check(&mut log, Some(3), Replay::Events(0), "gap(3,5,null)@6"); // Here an event of a is missing.
    }

    #[test]
    fn the_age_of_a_replay_is_found_by_time() {
        let mut log = log(HubConfig {
            history_events: 10,
            ..HubConfig::default()
        });
        let start = log.now;
        for _ in 0..5 {
            log.now += Duration::from_secs(10);
            log.publish("a");
        }
        for (seconds, expected) in [(0, 0), (10, 0), (11, 1), (35, 3), (50, 4), (51, 5)] {
            let time = start + Duration::from_secs(seconds);
            assert_eq!(log.log.newest_before(&set("a"), Some(time)), expected);
        }
        assert_eq!(log.log.newest_before(&set("a"), None), 0); // An age that goes back beyond the beginning of the clock.
    }

    #[test]
    fn finished_topics_come_to_an_end() {
        let mut log = log(HubConfig {
            history_events: 10,
            ..HubConfig::default()
        });
        log.publish("a b");
        let position = log.log.after(&log.log.id(0).to_string(), &set("a"));
        let mut a = log.reader("a", position.clone());
        let mut both = log.reader("a b", position);
        let finishes = log.finish("a");
        assert!(finishes.contains(&(a.group, true)));
        assert!(finishes.contains(&(both.group, false)));
        assert_eq!(log.read(&mut a), "1 2 end");
        assert_eq!(log.read(&mut both), "1 2"); // b goes on.
        assert!(!log.log.is_at_head(&a.position), "it is to end");
        assert!(log.log.is_at_head(&both.position));
        let late = log.log.latest(&set("a"));
        let mut late = log.reader("a", late);
        assert_eq!(log.read(&mut late), "2 end"); // A late visitor gets the last event.
        log.finish("b");
        assert_eq!(log.read(&mut both), "3 end");
        log.publish("a"); // Opens the topic again.
        assert_eq!(log.read(&mut a), "4");
    }

    #[test]
    fn a_topic_is_finished_as_long_as_its_end_is_kept() {
        let mut log = log(HubConfig {
            history_age: Some(Duration::from_secs(10)),
            ..HubConfig::default()
        });
        let position = log.log.latest(&set("a b"));
        let mut both = log.reader("a b", position); // Keeps the topics.
        log.finish("a");
        assert_eq!(log.read(&mut both), "1");
        log.now += Duration::from_secs(10);
        log.log.expire(log.now);
        let position = log.log.latest(&set("a"));
        let mut late = log.reader("a", position);
        assert_eq!(log.read(&mut late), ""); // Neither a gap nor an end.
        let batches = log.finish("b");
        assert!(batches.contains(&(both.group, true)));
        assert_eq!(log.read(&mut both), "2 end"); // It has had the end of a.
        // One that is behind ends too, whatever is left.
        let position = log.log.after(&log.log.id(0).to_string(), &set("a"));
        let mut behind = log.reader("a", position);
        assert_eq!(log.read(&mut behind), "gap(0,1,null)@2 end");
        let position = log.log.latest(&set("a b"));
        let mut late_for_both = log.reader("a b", position);
        assert_eq!(log.read(&mut late_for_both), "2 end");
        log.publish("a");
        assert_eq!(log.read(&mut late), "3");
    }

    #[test]
    fn with_no_history_readers_that_are_there_have_a_buffer() {
        let mut log = log(HubConfig {
            history_events: 0,
            ..HubConfig::default()
        });
        log.publish("a");
        let position = log.log.latest(&set("a"));
        let mut there = log.reader("a", position);
        for _ in 0..LIVE_BUFFER {
            log.publish("a");
        }
        let all = |log: &Log, position, id| {
            let latest = log.latest(&set("a"));
            log.limit_replay(position, id, Replay::All, &latest)
        };
        let id = log.log.id(1).to_string();
        let back = all(&log.log, log.log.after(&id, &set("a")), Some(&id));
        let mut back = log.reader("a", back);
        assert_eq!(log.read(&mut back), "gap(1,65,null)@65"); // It was not there.
        let early = all(&log.log, log.log.earliest(&set("a")), None);
        assert_eq!(early, log.log.latest(&set("a")));
        assert_eq!(
            log.log.retained(&Position::at(&set("a"), 99), 0, 99),
            Vec::new()
        );
        assert!(log.read(&mut there).starts_with("2 3 4"));
        log.check_counts();
        log.log.leave(there.group);
        log.log.leave(back.group);
        assert_eq!((log.log.len(), log.log.bytes), (0, 0), "nobody reads");
    }

    #[test]
    fn history_ends_by_number_age_and_size() {
        let mut by_age = log(HubConfig {
            history_age: Some(Duration::from_secs(10)),
            history_events: 100,
            ..HubConfig::default()
        });
        by_age.publish("a");
        by_age.now += Duration::from_secs(9);
        by_age.publish("b");
        assert_eq!(by_age.log.len(), 2);
        by_age.now += Duration::from_secs(1);
        by_age.log.expire(by_age.now);
        assert_eq!(by_age.log.oldest().unwrap().sequence, 2); // Ten seconds old is too old.
        assert_eq!(by_age.log.topics().len(), 1); // The unused topic is gone too.

        let mut shared = log(HubConfig {
            history_age: Some(Duration::from_secs(10)),
            history_events: 1,
            ..HubConfig::default()
        });
        shared.publish("a b");
        shared.now += Duration::from_secs(9);
        shared.publish("a"); // The topic a holds this event in place of the first one, which b still holds.
        shared.now += Duration::from_secs(1);
        shared.log.expire(shared.now);
        assert_eq!(shared.log.oldest().unwrap().sequence, 2); // Nothing newer was evicted.

        let mut one = log(HubConfig::default());
        one.publish("a");
        let of_one = one.log.bytes;
        let mut by_size = log(HubConfig {
            history_bytes: 2 * of_one,
            history_events: 100,
            ..HubConfig::default()
        });
        for topics in ["a", "b", "a", "b"] {
            by_size.publish(topics);
        }
        assert_eq!(by_size.log.oldest().unwrap().sequence, 3); // The oldest of all topics goes, and no more.
        assert_eq!(by_size.log.bytes, 2 * of_one);

        let mut none = log(HubConfig {
            history_events: 0,
            ..HubConfig::default()
        });
        none.publish("a");
        assert_eq!(
            (none.log.len(), none.log.bytes, none.log.topics().len()),
            (0, 0, 0)
        );
        // Its topic is forgotten, its loss is not.
        let position = none.log.after(&none.log.id(0).to_string(), &set("a"));
        let mut reader = none.reader("a", position);
        assert_eq!(none.read(&mut reader), "gap(0,1,null)@1");
    }

    #[test]
    fn an_event_counts_with_its_text_its_topics_and_its_id() {
        let mut log = log(HubConfig::default());
        log.publish("a bc");
        let text = "12\r\ndata: 0123456789\n\n\r\n".len();
        let event = text + EVENT_BYTES + 2 * ENTRY_BYTES;
        let topics = TOPIC_BYTES + "a".len() + TOPIC_BYTES + "bc".len();
        assert_eq!(log.log.bytes, event + topics);
        log.publish_with("a bc", Some("xyz"));
        let id = "xyz".len() + 3 * ID_BYTES; // In each topic, and in all.
        assert_eq!(log.log.bytes, event + topics + event + id);
    }

    #[test]
    fn an_event_that_was_there_before_is_left_out() {
        let mut log = log(HubConfig::default());
        log.publish("a");
        let bytes = log.log.bytes;
        log.log.restore(Numbered {
            sequence: 1,
            topics: set("a"),
            frame: Frame::from_text(b"data: again\n\n"),
            own_id: None,
            finishes: false,
        });
        assert_eq!((log.log.len(), log.log.bytes), (1, bytes));
        log.check_counts();
    }

    #[test]
    fn numbers_that_exist_nowhere_are_a_gap_to_each_group() {
        let mut log = log(HubConfig::default());
        let position = log.log.latest(&set("a"));
        let reader = log.reader("a", position);
        let batches = log.log.lose(5);
        let lost: Vec<_> = batches
            .iter()
            .map(|it| (it.group, it.batch.last()))
            .collect();
        assert_eq!(lost, [(reader.group, 5)]);
    }

    #[test]
    fn an_id_may_come_while_the_log_behind_it_is_not_read() {
        let mut log = log(HubConfig::default());
        log.log.set_epochs(&[(EPOCH, 1), (0xf, 6)]); // The numbers 1 to 5 have the first epoch.
        let id = log.log.id(5).to_string();
        assert!(log.log.may_come(&id, &set("a")), "the head is 0");
        log.log.forget_all(4);
        assert!(log.log.may_come(&id, &set("a")), "the head is 4");
        log.log.forget_all(5);
        assert!(!log.log.may_come(&id, &set("a")), "the head is 5");
        assert!(log.log.may_come("who", &set("a")), "nobody knows it");
    }

    #[test]
    fn the_last_values_come_in_order() {
        let mut log = log(HubConfig {
            history_events: 10,
            ..HubConfig::default()
        });
        for topics in ["b", "a", "a b", "a", "c"] {
            log.publish(topics);
        }
        let check = |cursor: u64, expected: &[u64]| {
            let position = Position::at(&set("a b"), cursor);
            let all = log.log.retained(&position, 0, 999);
            let all: Vec<u64> = all.iter().map(|(sequence, _)| *sequence).collect();
            assert_eq!(all, expected, "up to {cursor}");
        };
        check(5, &[3, 4]); // 3 for b, 4 for a.
        check(3, &[3]); // Event 3 is the newest of both topics.
        check(0, &[]); // Before all.
        let position = Position::at(&set("a b"), 5);
        let step = |after| log.log.retained(&position, after, 1).len();
        assert_eq!([0, 3, 4].map(step), [1, 1, 0]); // One at a time.
    }

    /// Random publishing, reading step by step, joining and leaving, compared with a list of all events that were published.
    #[test]
    fn readers_get_what_a_plain_list_says() {
        let seed = crate::random::random_u64() | 1;
        println!("seed {seed}");
        let mut state = seed;
        let mut random = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let names = ["a", "b", "a b", "c", "a c", "a b c"];
        for round in 0..300 {
            // By number and by size: neither, one or the other evicts more.
            let config = HubConfig {
                history_bytes: random(9000) as usize,
                history_events: random(6) as usize,
                ..HubConfig::default()
            };
            let mut log = log(config);
            let mut published: Vec<(u64, TopicSet)> = Vec::new();
            let mut readers: Vec<Recorded> = Vec::new();
            for _ in 0..160 {
                let index = random(readers.len().max(1) as u64) as usize;
                match random(10) {
                    0 if readers.len() < 5 => {
                        let topics = set(["a", "b", "a b", "b c"][random(4) as usize]);
                        let position = log.log.latest(&topics);
                        let (group, _) = log.log.join(&topics);
                        readers.push(Recorded {
                            reader: Reader { group, position },
                            start: log.log.head,
                            got: Vec::new(),
                            gaps: Vec::new(),
                        });
                    }
                    1 if !readers.is_empty() => {
                        let mut reader = readers.swap_remove(index);
                        while reader.step(&log.log, 99) {}
                        reader.check(&published, log.log.head, round);
                        log.log.leave(reader.reader.group);
                    }
                    // One step, so that events are published and evicted between two steps.
                    2..=5 if !readers.is_empty() => {
                        readers[index].step(&log.log, random(99) as usize);
                    }
                    _ => {
                        let topics = names[random(names.len() as u64) as usize];
                        let own_id = [None, Some("x"), Some("y")][random(3) as usize];
                        let sequence = log.publish_with(topics, own_id);
                        published.push((sequence, set(topics)));
                    }
                }
                log.check_counts();
                log.check_own_id(names[random(names.len() as u64) as usize]);
            }
            for mut reader in readers {
                while reader.step(&log.log, 99) {}
                reader.check(&published, log.log.head, round);
                log.log.leave(reader.reader.group);
            }
            assert!(log.log.groups.is_empty());
            assert!(log.log.topics.values().all(|topic| !topic.kept.is_empty()));
        }
    }

    /// A reader and all that it was told.
    struct Recorded {
        reader: Reader,
        start: u64,
        got: Vec<u64>,
        /// From, to.
        gaps: Vec<(u64, u64)>,
    }

    impl Recorded {
        /// Takes what comes next; false when there is nothing.
        fn step(&mut self, log: &Log, max_bytes: usize) -> bool {
            let position = &mut self.reader.position;
            let from = position.cursor;
            match log.next(position, max_bytes) {
                Next::Events(events) => {
                    self.got
                        .extend(events.iter().map(|(sequence, _)| *sequence));
                    position.cursor = *self.got.last().unwrap();
                }
                Next::Note(gap) => {
                    let text = gap_text(&gap);
                    let to = text.split([',', ')']).nth(1).unwrap().parse().unwrap();
                    self.gaps.push((from, to));
                }
                _ => return false,
            }
            true
        }

        /// Every event came once and in order, or a gap covers it; and every gap ends at an event that never came.
        fn check(&self, published: &[(u64, TopicSet)], head: u64, round: u32) {
            assert!(self.got.is_sorted_by(|a, b| a < b), "round {round}: order");
            let own = |(sequence, of): &&(u64, TopicSet)| {
                *sequence > self.start
                    && *sequence <= head
                    && of
                        .iter()
                        .any(|name| self.reader.position.topics.contains(name))
            };
            let own: BTreeSet<u64> = published.iter().filter(own).map(|(n, _)| *n).collect();
            let got: BTreeSet<u64> = self.got.iter().copied().collect();
            assert!(got.is_subset(&own), "round {round}: of other topics");
            for missing in own.difference(&got) {
                let covers = |(from, to): &&(u64, u64)| from < missing && missing <= to;
                assert!(
                    self.gaps.iter().any(|gap| covers(&gap)),
                    "round {round}: {missing} untold"
                );
            }
            for (_, to) in &self.gaps {
                assert!(
                    own.contains(to) && !got.contains(to),
                    "round {round}: gap to {to}"
                );
            }
        }
    }
}
