// The claims of `tests/promises.rs`, for hubs that follow one log. Acknowledged events may be lost there: a number is left
// out, the log is trimmed, or it goes back to before an acknowledged event. A new epoch that leaves a number out shows this.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, EventSource, Message, Random, TestServer, eventually, start};
use tiny_sse::{
    Config, Entries, Entry, Event, EventLog, Feed, Hub, HubConfig, PublishError, Request,
};

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const EVENTS: usize = 1500;

/// A position among all events that the log ever had: the index of the epoch, and the number in it.
type Place = (usize, u64);

/// The log, and all events that were ever acknowledged.
#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, Entry>,
    /// The epochs, as the hubs are told. An epoch of which nothing is left begins where the next one begins.
    epochs: Vec<(u64, u64)>,
    /// Where each epoch began.
    begins: Vec<u64>,
    next: u64,
    removed_to: u64,
    /// Every acknowledged event's position, topics, and own id if it has one.
    acknowledged: BTreeMap<Place, (Vec<String>, Option<String>)>,
    /// Every position that was lost: left out, trimmed, or gone with the end of an epoch.
    lost: BTreeSet<Place>,
}

#[derive(Clone, Default)]
struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn place(&self, number: u64) -> Place {
        (self.epochs.len() - 1, number)
    }

    fn begin_epoch(&mut self, epoch: u64, first: u64) {
        for (_, begin) in &mut self.epochs {
            *begin = first.min(*begin);
        }
        self.epochs.push((epoch, first));
        self.begins.push(first);
        self.next = first;
    }

    fn publish(&mut self, topics: &[&str], mut event: Event, id: Option<String>) {
        if let Some(id) = &id {
            event = event.id(id).unwrap();
        }
        let topics: Vec<String> = topics.iter().map(|topic| topic.to_string()).collect();
        let place = self.place(self.next);
        self.acknowledged.insert(place, (topics.clone(), id));
        let entry = Entry { sequence: self.next, topics, event };
        self.entries.insert(self.next, entry);
        self.next += 1;
    }

    fn leave_out(&mut self) {
        let place = self.place(self.next);
        self.lost.insert(place);
        self.next += 1;
    }

    fn trim(&mut self, to: u64) {
        self.removed_to = to;
        let kept = self.entries.split_off(&(to + 1));
        let removed = std::mem::replace(&mut self.entries, kept);
        let places = self.acknowledged.keys().filter(|(_, number)| removed.contains_key(number));
        self.lost.extend(places.copied());
    }

    /// Loses the events after `last`, and shows this by leaving a number out.
    fn go_back(&mut self, last: u64, epoch: u64) {
        let gone = self.entries.split_off(&(last + 1));
        let places = self.acknowledged.keys().filter(|(_, number)| gone.contains_key(number));
        self.lost.extend(places.copied());
        self.begin_epoch(epoch, last + 1);
        self.leave_out();
    }

    /// A position right before an epoch has an id in that epoch and one in the epoch before. This is the older one.
    fn first_name(&self, (mut epoch, number): Place) -> Place {
        while number < self.begins[epoch] && epoch > 0 {
            epoch -= 1;
        }
        (epoch, number)
    }

    /// Returns the position that an id on the wire means.
    fn find(&self, id: &str) -> Place {
        let hubs = id.split_once('-').and_then(|(epoch, number)| {
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            let index = self.epochs.iter().position(|(known, _)| *known == epoch)?;
            Some((index, number.parse().ok()?))
        });
        let own = || self.acknowledged.iter().find(|(_, (_, own))| own.as_deref() == Some(id));
        hubs.unwrap_or_else(|| *own().expect(id).0)
    }
}

/// The log as one node sees it: a node that does not know an epoch yet does not know what the log has.
struct NodeLog {
    log: SharedLog,
    known: Known,
}

impl EventLog for NodeLog {
    fn read(&self, after: u64) -> io::Result<Entries> {
        let log = self.log.lock();
        if *self.known.lock().unwrap() != log.epochs {
            return Err(io::Error::other("another epoch"));
        }
        let entries: Vec<Entry> = log.entries.range(after + 1..).take(50).map(|(_, entry)| entry.clone()).collect();
        Ok(Box::new(entries.into_iter().map(Ok)))
    }
}

/// The epochs that a node knows.
type Known = Arc<Mutex<Vec<(u64, u64)>>>;

/// A server whose hub follows the log, and the feed that tells the hub of the log.
fn node(log: &SharedLog, writer_threads: usize) -> (TestServer, Feed, Known) {
    let known = Known::default();
    let config = HubConfig {
        history_events: 20,
        writer_threads,
        poll_timeout: Duration::from_millis(20),
        ..HubConfig::default()
    };
    let node_log = NodeLog { log: log.clone(), known: Arc::clone(&known) };
    let (hub, feed) = Hub::follow(config, node_log).unwrap();
    let server = start(Config::default(), move |server| {
        server.get("/events", move |request: &Request| {
            let topics: Vec<&str> = request.queries("topic").collect();
            hub.subscribe(request, topics)
        })
    });
    (server, feed, known)
}

/// Tells a hub what is in the log, in random portions and with random pauses.
fn feed_until(
    is_over: &AtomicBool,
    log: &SharedLog,
    mut feed: Feed,
    known: &Mutex<Vec<(u64, u64)>>,
    mut random: Random,
) -> Result<(), PublishError> {
    // A node does not begin with the first event, but with some of the newest.
    let mut pushed = log.lock().next.saturating_sub(2 + random.below(30) as u64);
    let mut paused_to = 0;
    while !is_over.load(Ordering::SeqCst) {
        let shared = log.lock();
        if shared.acknowledged.len() < paused_to.min(EVENTS) {
            drop(shared);
            thread::yield_now();
            continue;
        }
        let asked = Instant::now();
        let (epochs, next, removed_to) = (shared.epochs.clone(), shared.next, shared.removed_to);
        let after = shared.entries.range(pushed + 1..).map(|(_, entry)| entry.clone());
        let entries: Vec<Entry> = after.take(1 + random.below(60)).collect();
        let last = entries.last().map_or(pushed, |entry| entry.sequence);
        let is_all = shared.entries.range(last + 1..).next().is_none();
        if random.below(100) == 0 {
            paused_to = shared.acknowledged.len() + random.below(200);
        }
        drop(shared);
        if epochs != *known.lock().unwrap() {
            let go_on = feed.epochs(&epochs)?;
            let mut known = known.lock().unwrap();
            // The first time, the node has no number to go on from.
            pushed = if known.is_empty() { pushed } else { go_on };
            *known = epochs;
            continue;
        }
        feed.push(entries)?;
        pushed = last;
        if is_all {
            feed.lost(next - 1)?;
            feed.current(asked, removed_to)?;
        }
    }
    Ok(())
}

/// What happens to the log: events, and now and then a loss.
fn write_log(log: &SharedLog, mut random: Random) {
    for number in 0..EVENTS {
        let mut log = log.lock();
        let next = log.next;
        match random.below(150) {
            0 | 1 => log.leave_out(),
            2 => log.trim(next - 1 - random.below(100).min(next as usize - 1) as u64),
            // A restart that loses nothing.
            3 => log.begin_epoch(random.next(), next),
            4 => {
                let may_go = (next - 1 - log.removed_to) as usize;
                log.go_back(next - 1 - random.below(may_go.min(40) + 1) as u64, random.next());
            }
            _ => {}
        }
        let mut topics = vec![*random.pick(&TOPICS)];
        if random.below(10) == 0 {
            topics.push(*random.pick(&TOPICS));
        }
        let id = (random.below(4) == 0).then(|| format!("own {number}"));
        log.publish(&topics, Event::data("x".repeat(random.below(2000))), id);
        drop(log);
        if number % 4 == 0 {
            thread::sleep(Duration::from_millis(1)); // A steady stream, not a flood.
        }
    }
    log.lock().publish(&TOPICS, Event::data("end"), None);
}

/// Reads these topics from one node after the other, by streams and by long-polls, from an id on and until the last event.
/// Returns each event and gap.
fn read_all(
    nodes: &[TestServer],
    topics: &[&str],
    began: &str,
    mut random: Random,
) -> Vec<Message> {
    let target = format!("/events?topic={}", topics.join("&topic="));
    let mut told: Vec<Message> = Vec::new();
    let mut last = began.to_string();
    while told.last().is_none_or(|newest| newest.data != "end") {
        let addr = random.pick(nodes).addr();
        if random.below(2) == 0 {
            let mut client = Client::connect(addr);
            client.request("GET", &format!("{target}&poll"), &[("Last-Event-ID", &last)], b"");
            let answer = client.answer();
            // A node that does not know how the reader goes on sends it away.
            if answer.status() != 503 {
                told.extend(polled(answer.text(), &mut last));
            }
            continue;
        }
        let fields = [("Last-Event-ID", &*last)];
        let mut stream = EventSource::open(addr, &target, &fields);
        stream.last_event_id.clone_from(&last);
        for _ in 0..random.below(120) {
            // As above.
            let Some(message) = stream.next() else { break };
            let is_end = message.data == "end";
            told.push(message);
            if is_end {
                break;
            }
        }
        last = stream.last_event_id;
    }
    told
}

/// The events of a long-poll's response, `{"events":[{"id":"…","event":"…","data":"…"}],"last_event_id":"…"}`.
fn polled(text: &str, last: &mut String) -> Vec<Message> {
    let (events, newest) = text.rsplit_once(r#"],"last_event_id":""#).expect(text);
    *last = newest.strip_suffix("\"}").expect(text).to_string();
    let events = events.split(r#"{"id":""#).skip(1);
    let message = |event: &str| {
        let (id, rest) = event.split_once(r#"","event":""#).expect(text);
        let (event, data) = rest.split_once(r#"","data":""#).expect(text);
        let data = data.trim_end_matches(',').strip_suffix("\"}").expect(text);
        Message {
            event: event.to_string(),
            data: data.replace("\\\"", "\""),
            id: id.to_string(),
        }
    };
    events.map(message).collect()
}

/// Every acknowledged event of the topics came once and in order, or is in a gap; and in every gap something was lost, and
/// nothing of it came before or after.
fn check(log: &Log, topics: &[&str], began: &str, told: &[Message]) {
    let began = log.find(began);
    let is_in = |(from, to): &(Place, Place), place: &Place| from < place && place <= to;
    let (mut at, mut got, mut gaps) = (began, BTreeSet::new(), Vec::new());
    for message in told {
        let place = log.find(&message.id);
        if message.event != "gap" {
            assert!(place > at, "{place:?} after {at:?}");
            got.insert(place);
            at = place;
            continue;
        }
        // {"from":"…","to":"…","lost":…}
        let parts: Vec<&str> = message.data.split('"').collect();
        let (from, to) = (log.find(parts[3]), log.find(parts[7]));
        // The hub may have passed events of other topics since the last one that the reader got.
        let is_from = from >= log.first_name(at);
        let from = log.first_name(from);
        let is_forward = is_from && place >= at && (to >= from || log.lost.contains(&from));
        assert!(is_forward, "{} at {at:?}", message.data);
        gaps.push((from, to));
        // An id that the publisher gave is known as long as its event is in memory, so that nothing may be missing.
        let is_unsure = parts[3].starts_with("own");
        let is_lost = |place| is_in(&(from, to), place);
        let is_true = is_unsure || log.lost.contains(&from) || log.lost.iter().any(is_lost);
        assert!(is_true, "nothing was lost in {}", message.data);
        at = at.max(to).max(place);
    }
    for (place, (of, _)) in log.acknowledged.range(began..).skip(1) {
        let is_own = of.iter().any(|topic| topics.contains(&&**topic));
        let is_told = gaps.iter().any(|gap| is_in(gap, place));
        let is_as_told = match got.contains(place) {
            // A reader may have what was lost later.
            true => is_own && (!is_told || log.lost.contains(place)),
            false => !is_own || is_told,
        };
        assert!(is_as_told, "{place:?} of {of:?} for {topics:?}, began {began:?}, gaps {gaps:?}");
    }
}

#[test]
fn readers_go_from_node_to_node_and_miss_nothing_in_silence() {
    let rounds = std::env::var("PROMISES_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    for round in 1..=rounds {
        println!("round {round}");
        nodes_and_readers(round);
    }
}

fn nodes_and_readers(seed: u64) {
    let log = SharedLog::default();
    log.lock().begin_epoch(seed, 1);
    log.lock().publish(&TOPICS, Event::data("first"), None);
    let began = format!("{seed:016x}-1");
    let (mut nodes, mut feeds) = (Vec::new(), Vec::new());
    // With and without the fast half.
    for writer_threads in [2, 0, 1] {
        let (node, feed, known) = node(&log, writer_threads);
        nodes.push(node);
        feeds.push((feed, known));
    }
    let (is_over, ready) = (AtomicBool::new(false), AtomicUsize::new(0));
    let readers = 24;
    thread::scope(|scope| {
        let over = Over(&is_over);
        for (number, (feed, known)) in feeds.into_iter().enumerate() {
            let (log, is_over) = (&log, &is_over);
            let random = Random::new(seed * 7919 + number as u64);
            scope.spawn(move || {
                // The last one begins when much has happened.
                eventually(|| number < 2 || log.lock().acknowledged.len() > EVENTS / 3);
                feed_until(is_over, log, feed, &known, random).unwrap();
            });
        }
        let reading: Vec<_> = (0..readers).map(|reader| {
            let (nodes, began, ready) = (&nodes, &began, &ready);
            scope.spawn(move || {
                let mut random = Random::new(seed * 1000 + reader);
                let mut topics = TOPICS.to_vec();
                while topics.len() > 1 && random.below(2) == 0 {
                    topics.remove(random.below(topics.len()));
                }
                ready.fetch_add(1, Ordering::SeqCst);
                let told = read_all(nodes, &topics, began, random);
                (topics, told)
            })
        }).collect();
        eventually(|| ready.load(Ordering::SeqCst) == readers as usize);
        write_log(&log, Random::new(seed));
        for reading in reading {
            let (topics, told) = reading.join().unwrap();
            check(&log.lock(), &topics, &began, &told);
        }
        drop(over);
    });
}

/// Ends the feeds, even if a reader was told something wrong.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
