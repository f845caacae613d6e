//! The numbered, encoded events that are kept: cursors, gaps, and what to give to a reader at its cursor.
//!
//! The log knows no socket and no thread. Whoever uses it holds a lock around it, which makes each of its methods one
//! step; see the parent module for who does.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::mem;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Instant;

use super::config::History;
use super::frame::{Batch, Frame};
use super::id::EventId;
use super::json;
use super::topics::TopicSet;
use crate::event::Event;
use crate::http::Coding;

/// An epoch and its first sequence number. It ends where the next one begins.
pub(crate) type Epoch = (u64, u64);

/// A set of topics that at least one reader has asked for, by its hash.
pub(crate) type GroupId = u64;

/// An event that has its number.
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

impl Position {
    fn at(cursor: u64) -> Position {
        Position {
            cursor,
            announced: cursor,
            ordinal: None,
            unknown: None,
        }
    }
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It has everything.
    AtHead,
    /// It must be told first that events were lost. The position is moved behind them.
    Gap(Frame),
    /// These events, in order. The position is not moved: they are not sent yet. From a file there may be none so far.
    Events(Vec<(u64, Frame)>),
    /// What comes next is in the file alone, which has all up to here.
    OnDisk { head: u64 },
}

/// What one group gets of a round.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) group: GroupId,
    /// The group's ordinal before this round.
    pub(crate) before: u64,
    pub(crate) batch: Batch,
}

/// The log of one hub.
pub(crate) struct Log {
    history: History,
    /// The newest is the one in which numbers are given out now.
    epochs: Vec<Epoch>,
    /// With a file: the last number that it no longer has.
    floor: Option<u64>,
    /// The last number that the file no longer had when it was opened: nobody knows what topics these were of.
    unseen: u64,
    /// The last number given out.
    pub(super) head: u64,
    topics: HashMap<Arc<str>, Topic>,
    /// The oldest event of each topic that keeps any.
    oldest: BTreeSet<(u64, Arc<str>)>,
    /// How many events the topics keep, and their encoded bytes.
    pub(super) len: usize,
    pub(super) bytes: usize,
    /// The last number evicted from a topic that is no more.
    forgotten: u64,
    callers_ids: HashMap<Arc<str>, u64>,
    groups: HashMap<GroupId, Group>,
}

/// An event that at least one of its topics keeps, and since when.
struct Kept {
    event: Numbered,
    since: Instant,
}

#[derive(Default)]
struct Topic {
    kept: VecDeque<Arc<Kept>>,
    /// The last number that it no longer keeps.
    evicted: u64,
    groups: Vec<GroupId>,
}

impl Topic {
    /// Where the events behind a cursor begin.
    fn behind(&self, cursor: u64) -> usize {
        self.kept
            .partition_point(|kept| kept.event.sequence <= cursor)
    }

    fn is_unused(&self) -> bool {
        self.kept.is_empty() && self.groups.is_empty()
    }
}

struct Group {
    topics: TopicSet,
    members: usize,
    /// Counts the events of its topics, from an arbitrary start.
    ordinal: u64,
    /// What it gets of the round that is being appended.
    share: Vec<(u64, Frame)>,
    /// Where readers of this group wait for news.
    news: Arc<Condvar>,
    receivers: Vec<Receiver>,
}

/// Gives an event to a reader in this process; false when nobody listens any more.
type Receiver = Box<dyn FnMut(EventId, &Frame) -> bool + Send>;

/// A reader in this process that takes its events from a channel.
struct InProcess {
    sender: SyncSender<Event>,
    /// The last event that it was given, and how many it has lost since.
    given: u64,
    lost: u64,
}

impl InProcess {
    /// Puts an event into the channel, behind a gap if some have not fitted.
    fn give(&mut self, id: EventId, frame: &Frame) -> bool {
        let at = |sequence| EventId { sequence, ..id };
        let mut sent = Ok(());
        if self.lost > 0 {
            let before = at(id.sequence - 1);
            let from = at(self.given).to_string();
            sent = self
                .sender
                .try_send(gap_frame(&from, before, before, Some(self.lost)).event());
            if sent.is_ok() {
                self.given = before.sequence;
                self.lost = 0;
            }
        }
        match sent.and_then(|()| self.sender.try_send(frame.event())) {
            Ok(()) => self.given = id.sequence,
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Disconnected(_)) => return false,
        }
        true
    }
}

/// `event: gap`: from the last event that the reader has to the last that it misses, how many where that is known, and
/// the id from which the next reconnect goes on.
fn gap_frame(from: &str, to: EventId, rebased: EventId, lost: Option<u64>) -> Frame {
    let from = json::string(from);
    let lost = lost.map_or("null".to_string(), |lost| lost.to_string());
    let data = format!(r#"{{"from":{from},"to":"{to}","lost":{lost}}}"#);
    let text = format!("id: {rebased}\nevent: gap\ndata: {data}\n\n");
    Frame::from_text(text.as_bytes())
}

impl Log {
    pub(crate) fn new(history: History) -> Log {
        Log {
            history,
            epochs: Vec::new(),
            floor: None,
            unseen: 0,
            head: 0,
            topics: HashMap::new(),
            oldest: BTreeSet::new(),
            len: 0,
            bytes: 0,
            forgotten: 0,
            callers_ids: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    pub(crate) fn topics(&self) -> usize {
        self.topics.len()
    }

    /// The oldest event kept.
    pub(crate) fn oldest(&self) -> Option<EventId> {
        let (sequence, _) = self.oldest.first()?;
        Some(self.id(*sequence))
    }

    /// When the oldest event is too old, where age matters.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        // So old that the clock cannot tell is never.
        self.first_kept()?.since.checked_add(self.history.age?)
    }

    fn first_kept(&self) -> Option<&Kept> {
        let (_, name) = self.oldest.first()?;
        let kept = &self.topics.get(name)?.kept;
        kept.front().map(|oldest| &**oldest)
    }

    /// The wire id of the last number given out.
    pub(crate) fn newest_id(&self) -> EventId {
        self.id(self.head)
    }

    /// The wire id of the next number.
    pub(crate) fn next_id(&self) -> EventId {
        self.id(self.head + 1)
    }

    /// The wire id of a sequence number: in the epoch that gave it out.
    pub(crate) fn id(&self, sequence: u64) -> EventId {
        let mut newest_first = self.epochs.iter().rev();
        let epoch = newest_first.find(|(_, first)| *first <= sequence);
        let epoch = epoch.or(self.epochs.first());
        EventId {
            epoch: epoch.map_or(0, |(epoch, _)| *epoch),
            sequence,
        }
    }

    /// Gives out numbers in this epoch from here on, or did so before this hub was.
    pub(crate) fn begin_epoch(&mut self, epoch: Epoch) {
        self.skip_to(epoch.1);
        self.unseen = self.floor.unwrap_or(0);
        if self.epochs.last() != Some(&epoch) {
            self.epochs.push(epoch);
        }
    }

    /// Keeps an event that was there before this hub was.
    pub(crate) fn restore(&mut self, event: Numbered) {
        if event.sequence > self.head {
            self.skip_to(event.sequence);
            self.head = event.sequence;
            let now = Instant::now();
            self.keep(event, now);
            self.expire(now);
        }
    }

    /// What is missing before this number has been removed from the file, or is damaged.
    fn skip_to(&mut self, next: u64) {
        if self.head + 1 < next {
            self.head = next - 1;
            self.raise_floor(self.head);
        }
    }

    /// The file has let go of everything up to here. Says up to where in all.
    pub(crate) fn raise_floor(&mut self, floor: u64) -> u64 {
        *self.floor.insert(floor.max(self.floor.unwrap_or(0)))
    }

    /// Keeps a round of events and says what each group gets of it. Readers in this process get theirs at once.
    pub(crate) fn append(&mut self, round: Vec<Numbered>, now: Instant) -> Vec<Share> {
        let mut reached = Vec::new();
        for event in round {
            self.head = event.sequence;
            let topics = event.topics.iter();
            let topics = topics.filter_map(|name| self.topics.get(name));
            for id in topics.flat_map(|topic| &topic.groups) {
                let Some(group) = self.groups.get_mut(id) else {
                    continue;
                };
                match group.share.last() {
                    None => reached.push(*id),
                    // The group asked for several of the event's topics.
                    Some((last, _)) if *last == event.sequence => continue,
                    Some(_) => {}
                }
                group.share.push((event.sequence, event.frame.clone()));
            }
            self.keep(event, now);
        }
        let newest = self.newest_id();
        let mut shares = Vec::with_capacity(reached.len());
        for id in reached {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let before = group.ordinal;
            let events = mem::take(&mut group.share);
            group.ordinal += events.len() as u64;
            // Whoever waits holds it too.
            if Arc::strong_count(&group.news) > 1 {
                group.news.notify_all();
            }
            group.receivers.retain_mut(|give| {
                let at = |sequence| EventId { sequence, ..newest };
                let mut events = events.iter();
                events.all(|(sequence, frame)| give(at(*sequence), frame))
            });
            self.drop_if_unused(id);
            shares.push(Share {
                group: id,
                before,
                batch: Batch::new(events, Coding::Chunked),
            });
        }
        self.expire(now);
        shares
    }

    fn keep(&mut self, event: Numbered, now: Instant) {
        let (sequence, topics) = (event.sequence, Arc::clone(&event.topics));
        if let Some(id) = &event.callers_id {
            // The same id twice: the newest counts.
            self.callers_ids.insert(Arc::clone(id), sequence);
        }
        self.len += 1;
        self.bytes += event.frame.len();
        let kept = Arc::new(Kept { event, since: now });
        for name in &*topics {
            let topic = self.topic(name);
            topic.kept.push_back(Arc::clone(&kept));
            if topic.kept.len() == 1 {
                self.oldest.insert((sequence, Arc::clone(name)));
            }
        }
        // From here on only topics hold it.
        drop(kept);
        for name in &*topics {
            if self.topic(name).kept.len() > self.history.events {
                self.evict_oldest_of(name, sequence);
            }
        }
    }

    /// What is known of a topic; of a new one, what was forgotten of all that are no more.
    fn topic(&mut self, name: &Arc<str>) -> &mut Topic {
        let topic = self.topics.entry(Arc::clone(name));
        topic.or_insert_with(|| Topic {
            evicted: self.forgotten,
            ..Topic::default()
        })
    }

    /// Lets go of what is too old or too much.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(Kept { event, since }) = self.first_kept() {
            let age = now.saturating_duration_since(*since);
            // It is the oldest of each topic that still keeps it.
            let (sequence, topics) = (event.sequence, Arc::clone(&event.topics));
            let expired = self.history.age.is_some_and(|most| age >= most);
            if !expired && self.bytes <= self.history.bytes {
                break;
            }
            for name in &*topics {
                self.evict_oldest_of(name, sequence);
            }
        }
    }

    /// Lets go of a topic's oldest event, unless it is newer than that.
    fn evict_oldest_of(&mut self, name: &Arc<str>, up_to: u64) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        let oldest = topic.kept.front();
        if oldest.is_none_or(|oldest| oldest.event.sequence > up_to) {
            return;
        }
        let Some(oldest) = topic.kept.pop_front() else {
            return;
        };
        let sequence = oldest.event.sequence;
        topic.evicted = sequence;
        let mut entry = (sequence, Arc::clone(name));
        self.oldest.remove(&entry);
        if let Some(next) = topic.kept.front() {
            entry.0 = next.event.sequence;
            self.oldest.insert(entry);
        }
        if topic.is_unused() {
            self.forget(name);
        }
        // Others of its topics may keep it.
        let Some(Kept { event, .. }) = Arc::into_inner(oldest) else {
            return;
        };
        self.len -= 1;
        self.bytes -= event.frame.len();
        if let Some(id) = &event.callers_id
            && self.callers_ids.get(id) == Some(&sequence)
        {
            self.callers_ids.remove(id);
        }
    }

    fn forget(&mut self, name: &Arc<str>) {
        if let Some(topic) = self.topics.remove(name) {
            self.forgotten = self.forgotten.max(topic.evicted);
        }
    }
}

/// Positions: where a reader begins, and what it gets there.
impl Log {
    /// The position of a reader that has everything.
    pub(crate) fn latest(&self) -> Position {
        Position::at(self.head)
    }

    /// The position before all that is kept; nothing before that is missed.
    pub(crate) fn earliest(&self, topics: &TopicSet) -> Position {
        match self.floor {
            // Memory may have what the file has not, of topics of which it has all.
            Some(floor) => Position::at(floor.min(self.last_evicted(topics).max(self.unseen))),
            // A topic may keep what is older than the last that another let go of.
            None => Position {
                announced: self.last_evicted(topics),
                ..Position::at(0)
            },
        }
    }

    /// The position behind the event with this wire id; only the log knows what one means. What it does not know is a
    /// gap, never a guess.
    pub(crate) fn after(&self, id: &str, topics: &TopicSet) -> Position {
        let unknown = |position| Position {
            unknown: Some(id.to_string()),
            ..position
        };
        match EventId::parse(id) {
            Some(own) => match self.last_of(own.epoch) {
                Some(last) if own.sequence <= last => Position::at(own.sequence),
                // It was given out and then lost, with the power: all that came after is new to this reader.
                Some(last) if own.epoch != self.next_id().epoch => unknown(Position::at(last)),
                _ => unknown(self.earliest(topics)),
            },
            None => match self.callers_ids.get(id) {
                Some(cursor) => Position::at(*cursor),
                None => unknown(self.earliest(topics)),
            },
        }
    }

    /// The last number of an epoch.
    fn last_of(&self, epoch: u64) -> Option<u64> {
        let index = self.epochs.iter().position(|(known, _)| *known == epoch)?;
        let next = self.epochs.get(index + 1);
        Some(next.map_or(self.head, |(_, first)| first - 1))
    }

    /// Makes a reader a member of its topics' group, which counts what it gets from its position on.
    pub(crate) fn join(&mut self, topics: &TopicSet, position: &mut Position) -> GroupId {
        let id = self.group_for(topics);
        if let Some(group) = self.groups.get_mut(&id) {
            group.members += 1;
        }
        if let Some(group) = self.groups.get(&id)
            && !self.has_gap(group, position)
        {
            position.ordinal = Some(self.ordinal_at(group, position.cursor));
        }
        id
    }

    fn group_for(&mut self, topics: &TopicSet) -> GroupId {
        let mut id = self.groups.hasher().hash_one(topics);
        while let Some(group) = self.groups.get(&id) {
            if group.topics == *topics {
                return id;
            }
            // Two sets with one hash: nobody will ever see it.
            id = id.wrapping_add(1);
        }
        for name in &**topics {
            self.topic(name).groups.push(id);
        }
        let group = Group {
            topics: Arc::clone(topics),
            members: 0,
            // No group has ever got more.
            ordinal: self.head,
            share: Vec::new(),
            news: Arc::default(),
            receivers: Vec::new(),
        };
        self.groups.insert(id, group);
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
        for name in &*topics {
            let Some(topic) = self.topics.get_mut(name) else {
                continue;
            };
            topic.groups.retain(|other| *other != id);
            if topic.is_unused() {
                self.forget(name);
            }
        }
    }

    /// Where to wait, with the log's lock, until there is something for this group.
    pub(crate) fn news(&self, group: GroupId) -> Arc<Condvar> {
        let group = self.groups.get(&group);
        group.map_or_else(Arc::default, |group| Arc::clone(&group.news))
    }

    /// Gives all events of these topics from now on to a reader in this process. Its place is freed at the first event
    /// after it has gone.
    pub(crate) fn add_receiver(&mut self, topics: &TopicSet, sender: SyncSender<Event>) {
        let id = self.group_for(topics);
        let mut reader = InProcess {
            sender,
            given: self.head,
            lost: 0,
        };
        if let Some(group) = self.groups.get_mut(&id) {
            let give = move |id, frame: &Frame| reader.give(id, frame);
            group.receivers.push(Box::new(give));
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
        if self.floor.is_some() && self.last_evicted(&group.topics) > position.cursor {
            return Next::OnDisk { head: self.head };
        }
        let mut bytes = 0;
        let mut events = Vec::new();
        for event in self.kept_after(&group.topics, position.cursor) {
            if bytes > 0 && bytes + event.frame.len() > max_bytes {
                break;
            }
            bytes += event.frame.len();
            events.push((event.sequence, event.frame.clone()));
        }
        if events.is_empty() {
            // It was given all that its group was, be it from a file, where nobody counts.
            position.ordinal = Some(group.ordinal);
            return Next::AtHead;
        }
        Next::Events(events)
    }

    /// Whether a reader has everything, and nothing to be told.
    pub(crate) fn is_at_head(&self, group: GroupId, position: &Position) -> bool {
        matches!(self.next(group, &mut position.clone(), 0), Next::AtHead)
    }

    /// As [`next`](Log::next), for a reader that only wants the newest event, and to be told how many it skips.
    pub(crate) fn newest(&self, id: GroupId, position: &mut Position) -> Next {
        let Some(group) = self.groups.get(&id) else {
            return Next::AtHead;
        };
        let topics = group.topics.iter();
        let kept = topics.filter_map(|name| self.topics.get(name)?.kept.back());
        let newest = kept.map(|kept| kept.event.sequence).max();
        let newest = newest.filter(|newest| *newest > position.cursor);
        let counted = group.ordinal - u64::from(newest.is_some());
        let lost = counted - position.ordinal.unwrap_or(counted);
        if lost == 0 {
            return self.next(id, position, 0);
        }
        let before = newest.map_or(self.head, |newest| newest - 1);
        position.ordinal = Some(counted);
        Next::Gap(self.skip(position, before, before, Some(lost)))
    }

    /// The newest event kept of each topic, up to a cursor, in order of sequence.
    pub(crate) fn retained(&self, topics: &TopicSet, cursor: u64) -> Vec<Frame> {
        let mut newest: Vec<&Numbered> = Vec::new();
        for topic in topics.iter().filter_map(|name| self.topics.get(name)) {
            let place = topic.behind(cursor).checked_sub(1);
            let Some(kept) = place.and_then(|place| topic.kept.get(place)) else {
                continue;
            };
            let place = newest.binary_search_by_key(&kept.event.sequence, |event| event.sequence);
            if let Err(place) = place {
                newest.insert(place, &kept.event);
            }
        }
        newest.iter().map(|event| event.frame.clone()).collect()
    }

    /// The gap to announce at a position, which is moved so that the next one is not announced again.
    fn gap(&self, group: &Group, position: &mut Position) -> Option<Frame> {
        if !self.has_gap(group, position) {
            return None;
        }
        if let Some(floor) = self.floor {
            let to = self.lost_on_disk(floor, group, position);
            let to = to.max(position.cursor);
            return Some(self.skip(position, to, to, None));
        }
        let evicted = self.last_evicted(&group.topics);
        let oldest = self.kept_after(&group.topics, position.cursor).next();
        // The next reconnect resumes right before what comes now.
        let rebased = oldest.map_or(self.head, |event| event.sequence - 1);
        let counted = self.ordinal_at(group, position.cursor);
        let before = position.ordinal.replace(counted);
        let lost = before.filter(|_| position.unknown.is_none());
        let to = if evicted > 0 { evicted } else { rebased };
        Some(self.skip(position, to, rebased, lost.map(|before| counted - before)))
    }

    /// The gap for a reader that goes on from what memory has, because the file could not be read.
    pub(crate) fn gap_to_memory(&self, topics: &TopicSet, position: &mut Position) -> Frame {
        let to = self.last_evicted(topics).max(position.cursor);
        self.skip(position, to, to, None)
    }

    /// Moves a reader on, and tells it that what it has not got up to `to` is lost.
    fn skip(&self, position: &mut Position, to: u64, cursor: u64, lost: Option<u64>) -> Frame {
        let unknown = position.unknown.take();
        let from = unknown.unwrap_or_else(|| self.id(position.cursor).to_string());
        position.cursor = cursor;
        position.announced = to.max(cursor);
        gap_frame(&from, self.id(to), self.id(cursor), lost)
    }

    /// Whether anything of the group's is lost to a reader that it has not been told of.
    fn has_gap(&self, group: &Group, position: &Position) -> bool {
        if position.unknown.is_some() {
            return true;
        }
        if let Some(floor) = self.floor {
            return self.lost_on_disk(floor, group, position) > position.cursor;
        }
        let evicted = self.last_evicted(&group.topics);
        match position.ordinal {
            _ if evicted <= position.cursor => false,
            None => evicted > position.announced,
            // Topics are kept for different times: some of what was evicted may be behind it, or announced already.
            Some(ordinal) => self.ordinal_at(group, position.cursor) > ordinal,
        }
    }

    /// Up to where events may be lost to a reader: what the file no longer has, unless memory has all that is behind the
    /// cursor.
    fn lost_on_disk(&self, floor: u64, group: &Group, position: &Position) -> u64 {
        match self.last_evicted(&group.topics) > position.cursor {
            true => floor,
            false => self.unseen,
        }
    }

    /// The ordinal that a group had before the first event that it still gets behind a cursor.
    fn ordinal_at(&self, group: &Group, cursor: u64) -> u64 {
        group.ordinal - self.count_after(&group.topics, cursor)
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
    ) -> impl Iterator<Item = &'a Numbered> + use<'a> {
        let topics = topics.iter().filter_map(|name| self.topics.get(name));
        let queues = topics.map(|topic| topic.kept.range(topic.behind(cursor)..).peekable());
        let mut queues: Vec<_> = queues.collect();
        std::iter::from_fn(move || {
            let firsts = queues.iter_mut().filter_map(|queue| queue.peek().copied());
            let next = firsts.min_by_key(|kept| kept.event.sequence)?;
            for queue in &mut queues {
                queue.next_if(|kept| kept.event.sequence == next.event.sequence);
            }
            Some(&next.event)
        })
    }

    fn count_after(&self, topics: &TopicSet, cursor: u64) -> u64 {
        let count = match &**topics {
            [name] => {
                let topic = self.topics.get(name);
                topic.map_or(0, |topic| topic.kept.len() - topic.behind(cursor))
            }
            _ => self.kept_after(topics, cursor).count(),
        };
        count as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::topics;
    use std::time::Duration;

    const EPOCH: u64 = 0xe;

    /// A log and the number that it gives out next.
    struct Fixture {
        log: Log,
        now: Instant,
    }

    fn log(history: History) -> Fixture {
        let mut log = Log::new(history);
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
                callers_id: id.map(Arc::from),
            };
            self.log.append(vec![event], self.now);
            sequence
        }

        /// What the log says of its oldest event and of how many it keeps, against what the topics have.
        #[track_caller]
        fn check_oldest(&self) {
            let kept = self.log.topics.values().flat_map(|topic| &topic.kept);
            let mut kept: Vec<u64> = kept.map(|kept| kept.event.sequence).collect();
            kept.sort();
            kept.dedup();
            let oldest = self.log.oldest().map(|id| id.sequence);
            assert_eq!((oldest, self.log.len), (kept.first().copied(), kept.len()));
            let keeping = self
                .log
                .topics
                .values()
                .filter(|topic| !topic.kept.is_empty());
            assert_eq!(self.log.oldest.len(), keeping.count());
        }

        fn reader(&mut self, topics: &str, mut position: Position) -> Reader {
            let group = self.log.join(&set(topics), &mut position);
            Reader { group, position }
        }

        /// All that a reader gets now: numbers, and gaps as written.
        fn read(&self, reader: &mut Reader) -> String {
            let mut all = Vec::new();
            loop {
                match self.log.next(reader.group, &mut reader.position, 60) {
                    Next::AtHead | Next::OnDisk { .. } => return all.join(" "),
                    Next::Gap(frame) => all.push(gap_text(&frame)),
                    Next::Events(events) => {
                        assert!(events.len() <= 2, "at most 60 bytes are two events");
                        for (sequence, _) in events {
                            all.push(sequence.to_string());
                            reader.position.cursor = sequence;
                            reader.position.ordinal = reader.position.ordinal.map(|n| n + 1);
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
        let mut log = log(History::events(3));
        for topics in ["a", "b", "a b", "a", "c", "a", "b"] {
            log.publish(topics); // a keeps 3, 4 and 6; b keeps 2, 3 and 7; c keeps 5.
        }
        #[track_caller]
        fn check(log: &mut Fixture, topics: &str, cursor: u64, expected: &str) {
            let id = log.log.id(cursor).to_string();
            let position = log.log.after(&id, &set(topics));
            let mut reader = log.reader(topics, position);
            assert_eq!(log.read(&mut reader), expected, "{topics} behind {cursor}");
            assert!(log.log.is_at_head(reader.group, &reader.position));
            log.log.leave(reader.group);
        }
        check(&mut log, "a", 7, ""); // At the head.
        check(&mut log, "a", 6, ""); // At its own last one.
        check(&mut log, "a", 5, "6"); // Between two of its own.
        check(&mut log, "a", 1, "3 4 6"); // At the last one evicted: nothing is missing.
        check(&mut log, "a", 0, "gap(0,1,null)@2 3 4 6"); // Before it.
        check(&mut log, "b", 0, "2 3 7"); // Nothing of b was evicted.
        check(&mut log, "a b", 1, "2 3 4 6 7"); // The third comes once.
        check(&mut log, "a b", 0, "gap(0,1,null)@1 2 3 4 6 7"); // On from the oldest kept of any.
        check(&mut log, "c", 0, "5"); // A quiet topic keeps its place beside a loud one.
        check(&mut log, "new", 0, ""); // A topic without events.
    }

    #[test]
    fn what_an_id_means_is_known_or_a_gap() {
        let mut log = log(History::events(2));
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
        check(&mut log, "row 2", ""); // The same id twice: the newest counts.
        check(&mut log, "row 1", "gap(row 1,1,null)@1 2 3"); // Forgotten with its event.
        check(&mut log, &own(4), "gap(4,1,null)@1 2 3"); // Not given out yet.
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
    fn a_reader_that_stays_is_told_how_many_it_lost() {
        let mut log = log(History::events(2));
        let position = log.log.latest();
        let mut a = log.reader("a", position.clone());
        let mut both = log.reader("a b", position);
        for topics in ["a", "b", "a", "a b", "a", "a"] {
            log.publish(topics); // a keeps 5 and 6; b keeps 2 and 4.
        }
        assert_eq!(log.read(&mut a), "gap(0,4,3)@4 5 6"); // 1, 3 and 4.
        assert_eq!(log.read(&mut both), "gap(0,4,2)@1 2 4 5 6"); // 1 and 3: b still has the fourth.
        log.publish("b");
        assert_eq!(log.read(&mut a), "");
        assert_eq!(log.read(&mut both), "7");
        for _ in 0..3 {
            log.publish("a");
        }
        assert_eq!(log.read(&mut a), "gap(6,8,1)@8 9 10");
    }

    #[test]
    fn a_loss_behind_a_gap_is_told_as_well() {
        let mut log = log(History::events(2));
        let position = log.log.latest();
        let mut reader = log.reader("a b", position);
        for topics in ["b", "b", "a", "a", "a"] {
            log.publish(topics); // a keeps 4 and 5; b keeps 1 and 2.
        }
        let next = log.log.next(reader.group, &mut reader.position, 60);
        let Next::Gap(gap) = next else {
            panic!("{next:?}")
        };
        assert_eq!(gap_text(&gap), "gap(0,3,1)@0"); // The third.
        log.publish("b"); // Evicts 1, in front of which the reader stands.
        assert_eq!(log.read(&mut reader), "gap(0,3,1)@1 2 4 5 6");
    }

    #[test]
    fn what_memory_has_of_a_quiet_topic_is_not_lost_with_the_file() {
        let mut log = log(History::events(2));
        for topics in ["a", "a", "b", "b", "b"] {
            log.publish(topics); // a keeps 1 and 2; b keeps 4 and 5.
        }
        log.log.raise_floor(3);
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
        check(&mut log, "b", position, "gap(1,3,null)@3 4 5"); // It has let go of 3, and so has the file.
        let position = after(&log, 1, "a b");
        check(&mut log, "a b", position, "gap(1,3,null)@3 4 5"); // The second with it: the gap says so.
        let position = log.log.earliest(&set("a"));
        check(&mut log, "a", position, "1 2"); // All there is of a.
        let position = log.log.earliest(&set("b"));
        check(&mut log, "b", position, "4 5"); // And of b.
        let position = log.log.after("who", &set("a"));
        check(&mut log, "a", position, "gap(who,0,null)@0 1 2"); // What it had is not known.
        log.log.unseen = 1;
        let position = after(&log, 0, "a");
        check(&mut log, "a", position, "gap(0,1,null)@1 2"); // What was before the file was opened may have been of a.
        let position = log.log.earliest(&set("a"));
        check(&mut log, "a", position, "2"); // That is nobody's business who begins now.
    }

    #[test]
    fn what_a_file_no_longer_had_when_it_was_opened_may_have_been_of_any_topic() {
        let mut log = log(History::events(2));
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
        let mut log = log(History::events(2).age(Duration::MAX));
        log.publish("a");
        assert_eq!((log.log.expires_at(), log.log.len), (None, 1));
    }

    #[test]
    fn an_id_has_the_epoch_that_gave_it_out() {
        let mut log = log(History::events(10));
        log.publish("a");
        log.log.begin_epoch((0xf, 2));
        log.publish("a");
        let ids = [0, 1, 2, 3].map(|n| log.log.id(n).epoch);
        assert_eq!(ids, [EPOCH, EPOCH, 0xf, 0xf]);
    }

    #[test]
    fn one_that_skips_gets_the_newest() {
        let mut log = log(History::events(10));
        let position = log.log.latest();
        let mut reader = log.reader("a b", position);
        for topics in ["a", "b", "c", "a"] {
            log.publish(topics);
        }
        let next = log.log.newest(reader.group, &mut reader.position);
        let Next::Gap(gap) = next else {
            panic!("{next:?}")
        };
        assert_eq!(gap_text(&gap), "gap(0,3,2)@3");
        let next = log.log.newest(reader.group, &mut reader.position);
        let Next::Events(events) = next else {
            panic!("{next:?}")
        };
        assert_eq!(events[0].0, 4);
    }

    #[test]
    fn one_that_skips_comes_to_the_head_whatever_the_file_has_let_go_of() {
        let mut log = log(History::events(10));
        let position = log.log.latest();
        let mut reader = log.reader("a", position);
        // As a file has it whose events nobody counts.
        reader.position.ordinal = Some(7);
        assert_eq!(log.read(&mut reader), "");
        log.publish("b");
        log.publish("b");
        log.log.raise_floor(1);
        let next = log.log.newest(reader.group, &mut reader.position);
        assert_eq!(next, Next::AtHead, "memory knows that it was of b");
        log.log.unseen = 1;
        let next = log.log.newest(reader.group, &mut reader.position);
        let Next::Gap(gap) = next else {
            panic!("{next:?}")
        };
        assert_eq!(gap_text(&gap), "gap(0,1,null)@1");
        let next = log.log.newest(reader.group, &mut reader.position);
        assert_eq!(next, Next::AtHead);
        assert!(log.log.is_at_head(reader.group, &reader.position));
    }

    #[test]
    fn history_ends_by_number_age_and_size() {
        let mut by_age = log(History::events(100).age(Duration::from_secs(10)));
        by_age.publish("a");
        by_age.now += Duration::from_secs(9);
        by_age.publish("b");
        assert_eq!(by_age.log.len, 2);
        by_age.now += Duration::from_secs(1);
        by_age.log.expire(by_age.now);
        assert_eq!(by_age.log.oldest().unwrap().sequence, 2); // Ten seconds old is too old.
        assert_eq!(by_age.log.topics(), 1); // And a topic that nobody needs is gone.

        let mut shared = log(History::events(1).age(Duration::from_secs(10)));
        shared.publish("a b");
        shared.now += Duration::from_secs(9);
        shared.publish("a"); // In place of the first, which b still has.
        shared.now += Duration::from_secs(1);
        shared.log.expire(shared.now);
        assert_eq!(shared.log.oldest().unwrap().sequence, 2); // And nothing newer goes with it.

        let one = Frame::from_text(b"data: 0123456789\n\n").len();
        let mut by_size = log(History::events(100).bytes(3 * one));
        for topics in ["a", "b", "a", "b"] {
            by_size.publish(topics);
        }
        assert_eq!(by_size.log.oldest().unwrap().sequence, 2); // The oldest of all topics goes.
        assert_eq!(by_size.log.bytes, 3 * one);

        let mut none = log(History::none());
        none.publish("a");
        assert_eq!((none.log.len, none.log.bytes, none.log.topics()), (0, 0, 0));
        // Its topic is forgotten, its loss is not.
        let position = none.log.after(&none.log.id(0).to_string(), &set("a"));
        let mut reader = none.reader("a", position);
        assert_eq!(none.read(&mut reader), "gap(0,1,null)@1");
    }

    #[test]
    fn the_last_values_come_in_order() {
        let mut log = log(History::events(10));
        for topics in ["b", "a", "a b", "a", "c"] {
            log.publish(topics);
        }
        let id_line = |frames: Vec<Frame>| frames.len();
        assert_eq!(id_line(log.log.retained(&set("a b"), 5)), 2); // 3 for b, 4 for a.
        assert_eq!(id_line(log.log.retained(&set("a b"), 3)), 1); // The third is the last of both.
        assert_eq!(id_line(log.log.retained(&set("a b"), 0)), 0); // Before all.
    }

    /// Random publishing, reading, joining and leaving, held against a list of all that ever was.
    #[test]
    fn readers_get_what_a_plain_list_says() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let names = ["a", "b", "a b", "c", "a c", "a b c"];
        for round in 0..300 {
            // By number and, with 22 bytes an event, by size: neither, one or the other lets go of more.
            let history = History::events(random(6) as usize).bytes(random(400) as usize);
            let mut log = log(history);
            let mut published: Vec<(u64, TopicSet)> = Vec::new();
            let mut readers: Vec<(Reader, TopicSet, u64, u64)> = Vec::new();
            for _ in 0..120 {
                match random(8) {
                    0 if readers.len() < 5 => {
                        let topics = *["a", "b", "a b", "b c"].get(random(4) as usize).unwrap();
                        let position = log.log.latest();
                        let reader = log.reader(topics, position);
                        readers.push((reader, set(topics), log.log.head, 0));
                    }
                    1 if !readers.is_empty() => {
                        let index = random(readers.len() as u64) as usize;
                        let (reader, ..) = readers.swap_remove(index);
                        log.log.leave(reader.group);
                    }
                    2 | 3 if !readers.is_empty() => {
                        let index = random(readers.len() as u64) as usize;
                        let (reader, topics, read_to, _) = &mut readers[index];
                        let mut lost = 0;
                        let mut got = 0;
                        for word in log.read(reader).split_whitespace() {
                            match word.strip_prefix("gap(") {
                                Some(gap) => {
                                    let lost_text = gap.split([',', ')']).nth(2).unwrap();
                                    lost += lost_text.parse::<u64>().unwrap();
                                }
                                None => got += 1,
                            }
                        }
                        let own = |(sequence, of): &&(u64, TopicSet)| {
                            sequence > read_to && of.iter().any(|name| topics.contains(name))
                        };
                        let expected = published.iter().filter(own).count() as u64;
                        assert_eq!(got + lost, expected, "round {round}");
                        *read_to = log.log.head;
                    }
                    _ => {
                        let topics = names[random(names.len() as u64) as usize];
                        let sequence = log.publish(topics);
                        published.push((sequence, set(topics)));
                    }
                }
                log.check_oldest();
            }
            for (reader, ..) in readers {
                log.log.leave(reader.group);
            }
            assert!(log.log.groups.is_empty());
            assert!(log.log.topics.values().all(|topic| !topic.kept.is_empty()));
        }
    }
}
