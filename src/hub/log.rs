//! The numbered, encoded events that are kept: cursors, gaps, and what to give to a reader at its cursor.
//!
//! The log knows no socket and no thread. Whoever uses it holds a lock around it, which makes each of its methods one
//! step; see the parent module for who does.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Instant;

use super::config::History;
use super::frame::Frame;
use super::id::EventId;
use super::json;
use super::topics::TopicSet;
use crate::event::Event;

/// A set of topics that at least one reader has asked for.
pub(crate) type GroupId = u64;

/// An event that has its number and is about to be kept.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) sequence: u64,
    pub(crate) topics: TopicSet,
    pub(crate) frame: Frame,
    /// The id on the wire, where it is the caller's.
    pub(crate) callers_id: Option<Arc<str>>,
}

/// Where a reader stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// It has everything up to this sequence number.
    pub(crate) cursor: u64,
    /// Losses up to here, from before it came, are none of its business.
    pub(crate) announced: u64,
    /// How many events its group has been given up to its cursor; only differences of this mean something.
    /// `None` where events between its cursor and the oldest kept were evicted before it came.
    pub(crate) ordinal: Option<u64>,
    /// An id that means nothing here, and is to be answered with a gap.
    pub(crate) unknown: Option<String>,
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It has everything.
    AtHead,
    /// It must be told first that events were lost. The position is moved behind them.
    Gap(Frame),
    /// These events, in order. The position is not moved: they are not sent yet.
    Events(Vec<(u64, Frame)>),
}

/// What one group gets of a round.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) group: GroupId,
    /// The group's ordinal before this round.
    pub(crate) before: u64,
    pub(crate) events: Vec<(u64, Frame)>,
}

/// The log of one hub.
#[derive(Debug)]
pub(crate) struct Log {
    history: History,
    epoch: u64,
    /// The last number given out.
    head: u64,
    records: BTreeMap<u64, Record>,
    bytes: usize,
    topics: HashMap<Arc<str>, Topic>,
    /// The last number evicted from a topic that is no more.
    forgotten: u64,
    callers_ids: HashMap<Arc<str>, u64>,
    groups: HashMap<GroupId, Group>,
    group_of: HashMap<TopicSet, GroupId>,
    next_group: GroupId,
    next_listener: u64,
}

#[derive(Debug)]
struct Record {
    at: Instant,
    frame: Frame,
    topics: TopicSet,
    callers_id: Option<Arc<str>>,
    /// Of its topics, how many still keep it.
    kept_by: usize,
}

#[derive(Debug, Default)]
struct Topic {
    kept: VecDeque<u64>,
    /// The last number that it no longer keeps.
    evicted: u64,
    groups: Vec<GroupId>,
}

#[derive(Debug)]
struct Group {
    topics: TopicSet,
    members: usize,
    /// Counts the events of its topics, from an arbitrary start.
    ordinal: u64,
    wakers: HashMap<u64, SyncSender<()>>,
    receivers: Vec<InProcess>,
}

/// A reader in this process that takes its events from a channel.
#[derive(Debug)]
struct InProcess {
    sender: SyncSender<Event>,
    /// The last event that it was given, and how many it has lost since.
    given: u64,
    lost: u64,
}

impl InProcess {
    /// Puts an event into the channel, behind a gap if some have not fitted; false when nobody listens any more.
    fn give(&mut self, epoch: u64, sequence: u64, frame: &Frame) -> bool {
        let before = EventId {
            epoch,
            sequence: sequence - 1,
        };
        let gap = || {
            let from = EventId {
                epoch,
                sequence: self.given,
            }
            .to_string();
            gap_frame(&from, before, before, Some(self.lost)).event()
        };
        let mut sent = Ok(());
        if self.lost > 0 {
            sent = self.sender.try_send(gap());
            if sent.is_ok() {
                self.given = before.sequence;
                self.lost = 0;
            }
        }
        match sent.and_then(|()| self.sender.try_send(frame.event())) {
            Ok(()) => self.given = sequence,
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Disconnected(_)) => return false,
        }
        true
    }
}

/// `event: gap`: from the last event that the reader has to the last that it misses, how many where that is known, and
/// the id from which the next reconnect goes on.
fn gap_frame(from: &str, to: EventId, rebased: EventId, lost: Option<u64>) -> Frame {
    let mut text = format!("id: {rebased}\nevent: gap\ndata: {{\"from\":");
    json::append_string(&mut text, from);
    text.push_str(&format!(",\"to\":\"{to}\",\"lost\":"));
    match lost {
        Some(lost) => text.push_str(&lost.to_string()),
        None => text.push_str("null"),
    }
    text.push_str("}\n\n");
    Frame::from_text(text.as_bytes())
}

impl Log {
    pub(crate) fn new(history: History, epoch: u64) -> Log {
        Log {
            history,
            epoch,
            head: 0,
            records: BTreeMap::new(),
            bytes: 0,
            topics: HashMap::new(),
            forgotten: 0,
            callers_ids: HashMap::new(),
            groups: HashMap::new(),
            group_of: HashMap::new(),
            next_group: 0,
            next_listener: 0,
        }
    }

    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn topics(&self) -> usize {
        self.topics.len()
    }

    /// The oldest event kept.
    pub(crate) fn oldest(&self) -> Option<EventId> {
        self.records
            .first_key_value()
            .map(|(sequence, _)| self.id(*sequence))
    }

    /// When the oldest event is too old, where age matters.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        let (_, oldest) = self.records.first_key_value()?;
        Some(oldest.at + self.history.age?)
    }

    /// The wire id of a sequence number.
    pub(crate) fn id(&self, sequence: u64) -> EventId {
        EventId {
            epoch: self.epoch,
            sequence,
        }
    }

    /// Keeps a round of events and says what each group gets of it. Readers in this process get theirs at once.
    pub(crate) fn append(&mut self, round: Vec<Numbered>, now: Instant) -> Vec<Share> {
        let mut shares: Vec<Share> = Vec::new();
        let mut share_of: HashMap<GroupId, usize> = HashMap::new();
        for event in round {
            self.head = event.sequence;
            for group in self.groups_of(&event.topics) {
                let index = *share_of.entry(group).or_insert_with(|| {
                    let before = self.groups.get(&group).map_or(0, |group| group.ordinal);
                    shares.push(Share {
                        group,
                        before,
                        events: Vec::new(),
                    });
                    shares.len() - 1
                });
                shares[index]
                    .events
                    .push((event.sequence, event.frame.clone()));
            }
            self.keep(event, now);
        }
        for share in &shares {
            let Some(group) = self.groups.get_mut(&share.group) else {
                continue;
            };
            group.ordinal += share.events.len() as u64;
            for waker in group.wakers.values() {
                // A full one is awake already, and one that has gone is taken out by its owner.
                let _ = waker.try_send(());
            }
            let epoch = self.epoch;
            group.receivers.retain_mut(|receiver| {
                share
                    .events
                    .iter()
                    .all(|(sequence, frame)| receiver.give(epoch, *sequence, frame))
            });
            self.drop_if_unused(share.group);
        }
        self.expire(now);
        shares
    }

    fn keep(&mut self, event: Numbered, now: Instant) {
        for name in &*event.topics {
            // Interned: the map's key is shared by all that speak of this topic.
            let topic = match self.topics.get_mut(name) {
                Some(topic) => topic,
                None => self
                    .topics
                    .entry(Arc::clone(name))
                    .or_insert_with(|| Topic {
                        evicted: self.forgotten,
                        ..Topic::default()
                    }),
            };
            topic.kept.push_back(event.sequence);
        }
        if let Some(id) = &event.callers_id {
            // The same id twice: the newest counts.
            self.callers_ids.insert(Arc::clone(id), event.sequence);
        }
        self.bytes += event.frame.len();
        let record = Record {
            at: now,
            kept_by: event.topics.len(),
            topics: Arc::clone(&event.topics),
            frame: event.frame,
            callers_id: event.callers_id,
        };
        self.records.insert(event.sequence, record);
        for name in &*event.topics {
            while self
                .topics
                .get(name)
                .is_some_and(|topic| topic.kept.len() > self.history.events)
            {
                self.evict_oldest_of(name);
            }
        }
    }

    /// Lets go of what is too old or too much.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.records.first_entry() {
            let record = oldest.get();
            let expired = self
                .history
                .age
                .is_some_and(|age| now.saturating_duration_since(record.at) >= age);
            if !expired && self.bytes <= self.history.bytes {
                break;
            }
            // The oldest of all is the oldest of each of its topics.
            for name in &*Arc::clone(&record.topics) {
                self.evict_oldest_of(name);
            }
        }
    }

    fn evict_oldest_of(&mut self, name: &Arc<str>) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        let Some(sequence) = topic.kept.pop_front() else {
            return;
        };
        topic.evicted = sequence;
        self.forget_if_unused(name);
        let Some(record) = self.records.get_mut(&sequence) else {
            return;
        };
        record.kept_by -= 1;
        if record.kept_by > 0 {
            return;
        }
        self.bytes -= record.frame.len();
        if let Some(id) = record.callers_id.take()
            && self.callers_ids.get(&id) == Some(&sequence)
        {
            self.callers_ids.remove(&id);
        }
        self.records.remove(&sequence);
    }

    fn forget_if_unused(&mut self, name: &Arc<str>) {
        if let Some(topic) = self.topics.get(name)
            && topic.kept.is_empty()
            && topic.groups.is_empty()
        {
            self.forgotten = self.forgotten.max(topic.evicted);
            self.topics.remove(name);
        }
    }

    /// The groups that asked for any of these topics, each once.
    fn groups_of(&self, topics: &TopicSet) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = Vec::new();
        for topic in topics.iter().filter_map(|name| self.topics.get(name)) {
            groups.extend(&topic.groups);
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// Positions: where a reader begins, and what it gets there.
impl Log {
    /// The position of a reader that has everything.
    pub(crate) fn latest(&self) -> Position {
        Position {
            cursor: self.head,
            announced: self.head,
            ordinal: None,
            unknown: None,
        }
    }

    /// The position before all that is kept; nothing before that is missed.
    pub(crate) fn earliest(&self, topics: &TopicSet) -> Position {
        let evicted = self.last_evicted(topics);
        Position {
            cursor: 0,
            announced: evicted,
            ordinal: None,
            unknown: None,
        }
    }

    /// The position behind the event with this wire id; only the log knows what one means. What it does not know is a
    /// gap, never a guess.
    pub(crate) fn after(&self, id: &str, topics: &TopicSet) -> Position {
        let known = match EventId::parse(id) {
            Some(id) => (id.epoch == self.epoch && id.sequence <= self.head).then_some(id.sequence),
            None => self.callers_ids.get(id).copied(),
        };
        match known {
            Some(cursor) => Position {
                cursor,
                announced: cursor,
                ordinal: None,
                unknown: None,
            },
            None => Position {
                unknown: Some(id.to_string()),
                ..self.earliest(topics)
            },
        }
    }

    /// Makes a reader a member of its topics' group, which counts what it gets from its position on.
    pub(crate) fn join(&mut self, topics: &TopicSet, position: &mut Position) -> GroupId {
        let group = match self.group_of.get(topics) {
            Some(group) => *group,
            None => self.new_group(topics),
        };
        let ahead = self.count_after(topics, position.cursor);
        let gap = self
            .groups
            .get(&group)
            .is_some_and(|group| self.has_gap(group, position));
        if let Some(group) = self.groups.get_mut(&group) {
            group.members += 1;
            position.ordinal = (!gap).then_some(group.ordinal - ahead);
        }
        group
    }

    fn new_group(&mut self, topics: &TopicSet) -> GroupId {
        let id = self.next_group;
        self.next_group += 1;
        for name in &**topics {
            let forgotten = self.forgotten;
            let topic = self
                .topics
                .entry(Arc::clone(name))
                .or_insert_with(|| Topic {
                    evicted: forgotten,
                    ..Topic::default()
                });
            topic.groups.push(id);
        }
        let group = Group {
            topics: Arc::clone(topics),
            members: 0,
            // As if it had been there from the first event kept.
            ordinal: self.count_after(topics, 0),
            wakers: HashMap::new(),
            receivers: Vec::new(),
        };
        self.groups.insert(id, group);
        self.group_of.insert(Arc::clone(topics), id);
        id
    }

    /// Takes a reader out of its group; the last one takes the group and unused topics with it.
    pub(crate) fn leave(&mut self, group: GroupId) {
        let Some(left) = self.groups.get_mut(&group) else {
            return;
        };
        left.members -= 1;
        self.drop_if_unused(group);
    }

    fn drop_if_unused(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        if group.members > 0 || !group.receivers.is_empty() {
            return;
        }
        let topics = Arc::clone(&group.topics);
        self.groups.remove(&id);
        self.group_of.remove(&topics);
        for name in &*topics {
            if let Some(topic) = self.topics.get_mut(name) {
                topic.groups.retain(|other| *other != id);
            }
            self.forget_if_unused(name);
        }
    }

    /// Wakes this reader whenever there is something for its group, until [`unlisten`](Log::unlisten).
    pub(crate) fn listen(&mut self, group: GroupId, waker: SyncSender<()>) -> u64 {
        let key = self.next_listener;
        self.next_listener += 1;
        if let Some(group) = self.groups.get_mut(&group) {
            group.wakers.insert(key, waker);
        }
        key
    }

    pub(crate) fn unlisten(&mut self, group: GroupId, key: u64) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.wakers.remove(&key);
        }
    }

    /// Gives all events of these topics from now on to a reader in this process. Its place is freed at the first event
    /// after it has gone.
    pub(crate) fn add_receiver(&mut self, topics: &TopicSet, sender: SyncSender<Event>) {
        let mut position = self.latest();
        let id = self.join(topics, &mut position);
        if let Some(group) = self.groups.get_mut(&id) {
            // It is no member, it cannot leave.
            group.members -= 1;
            group.receivers.push(InProcess {
                sender,
                given: self.head,
                lost: 0,
            });
        }
    }

    /// What comes next for a reader, at most `max_bytes` or one event.
    pub(crate) fn next(&self, group: GroupId, position: &mut Position, max_bytes: usize) -> Next {
        let Some(group) = self.groups.get(&group) else {
            return Next::AtHead;
        };
        if let Some(gap) = self.gap(group, position) {
            return Next::Gap(gap);
        }
        let mut bytes = 0;
        let mut events = Vec::new();
        for (sequence, frame) in self.kept_after(&group.topics, position.cursor) {
            if bytes > 0 && bytes + frame.len() > max_bytes {
                break;
            }
            bytes += frame.len();
            events.push((sequence, frame.clone()));
        }
        if events.is_empty() {
            Next::AtHead
        } else {
            Next::Events(events)
        }
    }

    /// Whether a reader has everything, and nothing to be told.
    pub(crate) fn is_at_head(&self, group: GroupId, position: &Position) -> bool {
        self.groups.get(&group).is_none_or(|group| {
            !self.has_gap(group, position)
                && self
                    .kept_after(&group.topics, position.cursor)
                    .next()
                    .is_none()
        })
    }

    /// As [`next`](Log::next), for a reader that only wants the newest event, and to be told how many it skips.
    pub(crate) fn newest(&self, group: GroupId, position: &mut Position) -> Next {
        let Some(group) = self.groups.get(&group) else {
            return Next::AtHead;
        };
        let kept = group
            .topics
            .iter()
            .filter_map(|name| self.topics.get(name)?.kept.back());
        let newest = kept
            .max()
            .and_then(|sequence| self.records.get_key_value(sequence));
        let newest = newest.filter(|(sequence, _)| **sequence > position.cursor);
        let ahead = u64::from(newest.is_some());
        let counted = group.ordinal - ahead;
        let lost = counted - position.ordinal.unwrap_or(counted);
        if lost > 0 {
            let before = newest.map_or(self.head, |(sequence, _)| sequence - 1);
            let from = self.id(position.cursor).to_string();
            position.cursor = before;
            position.announced = before;
            position.ordinal = Some(counted);
            return Next::Gap(gap_frame(
                &from,
                self.id(before),
                self.id(before),
                Some(lost),
            ));
        }
        match newest {
            Some((sequence, record)) => Next::Events(vec![(*sequence, record.frame.clone())]),
            None => Next::AtHead,
        }
    }

    /// The newest event kept of each topic, up to a cursor, in order of sequence.
    pub(crate) fn retained(&self, topics: &TopicSet, cursor: u64) -> Vec<Frame> {
        let mut newest: Vec<u64> = topics
            .iter()
            .filter_map(|name| {
                let kept = &self.topics.get(name)?.kept;
                let behind = kept.partition_point(|sequence| *sequence <= cursor);
                kept.get(behind.checked_sub(1)?).copied()
            })
            .collect();
        newest.sort_unstable();
        newest.dedup();
        let frames = newest
            .iter()
            .filter_map(|sequence| self.records.get(sequence));
        frames.map(|record| record.frame.clone()).collect()
    }

    /// The gap to announce at a position, which is moved so that the next one is not announced again.
    fn gap(&self, group: &Group, position: &mut Position) -> Option<Frame> {
        if !self.has_gap(group, position) {
            return None;
        }
        let evicted = self.last_evicted(&group.topics);
        let oldest = self.kept_after(&group.topics, position.cursor).next();
        // The next reconnect resumes right before what comes now.
        let rebased = oldest.map_or(self.head, |(sequence, _)| sequence - 1);
        let ahead = self.count_after(&group.topics, position.cursor);
        let (from, lost) = match position.unknown.take() {
            Some(unknown) => (unknown, None),
            None => {
                let lost = |ordinal| group.ordinal - ordinal - ahead;
                let from = self.id(position.cursor).to_string();
                (from, position.ordinal.map(lost))
            }
        };
        position.cursor = rebased;
        position.announced = evicted.max(rebased);
        position.ordinal = Some(group.ordinal - ahead);
        let to = if evicted > 0 { evicted } else { rebased };
        Some(gap_frame(&from, self.id(to), self.id(rebased), lost))
    }

    /// Whether anything of the group's is lost to a reader that it has not been told of.
    fn has_gap(&self, group: &Group, position: &Position) -> bool {
        if position.unknown.is_some() {
            return true;
        }
        let evicted = self.last_evicted(&group.topics);
        match position.ordinal {
            _ if evicted <= position.cursor => false,
            None => evicted > position.announced,
            // Topics are kept for different times: some of what was evicted may be behind it, or announced already.
            Some(ordinal) => {
                group.ordinal - self.count_after(&group.topics, position.cursor) > ordinal
            }
        }
    }

    fn last_evicted(&self, topics: &TopicSet) -> u64 {
        let of = |name| {
            self.topics
                .get(name)
                .map_or(self.forgotten, |topic| topic.evicted)
        };
        topics.iter().map(of).max().unwrap_or(0)
    }

    /// The events kept of these topics behind a cursor, in order, each once.
    fn kept_after<'a>(
        &'a self,
        topics: &TopicSet,
        cursor: u64,
    ) -> impl Iterator<Item = (u64, &'a Frame)> + use<'a> {
        let queues = topics.iter().filter_map(|name| self.topics.get(name));
        let mut queues: Vec<_> = queues
            .map(|topic| {
                let first = topic.kept.partition_point(|sequence| *sequence <= cursor);
                topic.kept.range(first..).copied().peekable()
            })
            .collect();
        std::iter::from_fn(move || {
            let next = queues
                .iter_mut()
                .filter_map(|queue| queue.peek().copied())
                .min()?;
            for queue in &mut queues {
                queue.next_if_eq(&next);
            }
            Some((next, &self.records.get(&next)?.frame))
        })
    }

    fn count_after(&self, topics: &TopicSet, cursor: u64) -> u64 {
        if let [name] = &**topics {
            let kept = self.topics.get(name).map(|topic| &topic.kept);
            let count = kept.map_or(0, |kept| {
                kept.len() - kept.partition_point(|s| *s <= cursor)
            });
            return count as u64;
        }
        self.kept_after(topics, cursor).count() as u64
    }
}
