//! A hub that follows a log which others number: what its feed may pass on, and what its readers get.

mod support;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::{EventSource, TestServer, eventually, start};
use tiny_sse::{
    Config, Entries, Entry, Event, EventLog, Feed, Hub, HubConfig, HubReceiver, Message,
    PublishError, Request,
};

/// A log in memory.
#[derive(Clone, Default)]
struct InMemory(Arc<Mutex<Vec<Entry>>>);

impl EventLog for InMemory {
    fn read(&self, after: u64) -> io::Result<Entries> {
        let all = self.0.lock().unwrap().clone();
        Ok(Box::new(
            all.into_iter()
                .filter(move |entry| entry.sequence > after)
                .map(Ok),
        ))
    }
}

fn entry(sequence: u64, data: impl AsRef<str>) -> Entry {
    Entry {
        sequence,
        topics: vec!["a".to_string()],
        event: Event::data(data),
    }
}

/// A hub that follows a log of one epoch and keeps this many events in memory, so that readers need the log.
fn follow(history_events: usize, log: impl EventLog) -> (Hub, Feed) {
    let config = HubConfig {
        history_events,
        ..HubConfig::default()
    };
    let (hub, mut feed) = Hub::follow(config, log).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    (hub, feed)
}

/// Returns the next message, once there is one.
fn next_message(receiver: &mut HubReceiver) -> Message {
    let mut event = None;
    eventually(|| {
        event = receiver.recv_timeout(Duration::ZERO).ok();
        event.is_some()
    });
    event.and_then(|event| event.message()).unwrap()
}

/// A hub that follows a log in memory, and its server.
struct Follower {
    log: InMemory,
    hub: Hub,
    feed: Feed,
    server: TestServer,
}

impl Follower {
    fn new(writer_threads: usize) -> Follower {
        let config = HubConfig {
            writer_threads,
            ..HubConfig::default()
        };
        let log = InMemory::default();
        let (hub, feed) = Hub::follow(config, log.clone()).unwrap();
        let readers = hub.clone();
        let server = start(Config::default(), |server| {
            server.get("/events", move |request: &Request| {
                readers.subscribe(request, "a")
            })
        });
        Follower {
            log,
            hub,
            feed,
            server,
        }
    }

    fn push(&mut self, sequence: u64, data: impl AsRef<str>) {
        let entry = entry(sequence, data);
        self.log.0.lock().unwrap().push(entry.clone());
        self.feed.push([entry]).unwrap();
    }

    /// A stream that has everything.
    fn open(&self) -> EventSource {
        let stream = EventSource::open(self.server.addr(), "/events", &[]);
        eventually(|| self.hub.stats().readers_behind == 0);
        stream
    }
}

/// The log has lost its last events, and gives their numbers out again. A reader that comes then falls behind at the first.
#[test]
fn after_a_loss_the_numbers_count_again() {
    for writer_threads in [0, 2] {
        let mut follower = Follower::new(writer_threads);
        follower.feed.epochs(&[(0xa, 1)]).unwrap();
        follower.push(1, "1");
        follower.feed.current(Instant::now(), 0).unwrap();
        let mut before = follower.open();
        for sequence in 2..=10 {
            follower.push(sequence, "old");
            assert_eq!(before.data(), "old");
        }
        follower.log.0.lock().unwrap().truncate(5);
        let go_on_after = follower.feed.epochs(&[(0xa, 1), (0xb, 6)]).unwrap();
        assert_eq!(go_on_after, 5);
        follower.feed.current(Instant::now(), 0).unwrap();
        assert_eq!(before.next(), None);
        let mut reader = follower.open();
        // More than any socket takes at once.
        follower.push(6, "x".repeat(10_000_000));
        for sequence in 7..=12 {
            follower.push(sequence, sequence.to_string());
        }
        assert_eq!(reader.data().len(), 10_000_000);
        for sequence in 7..=12 {
            assert_eq!(
                reader.data(),
                sequence.to_string(),
                "{writer_threads} writer threads"
            );
        }
    }
}

/// The first number is 1: no event has a lower number, and no epoch begins before it.
#[test]
fn a_number_of_zero_is_none() {
    let mut follower = Follower::new(2);
    follower.feed.epochs(&[(0xa, 0)]).unwrap();
    follower.push(0, "none");
    follower.push(1, "1");
    follower.feed.current(Instant::now(), 0).unwrap();
    assert_eq!(follower.feed.epochs(&[(0xb, 0)]).unwrap(), 0);
    follower.push(1, "2");
    let kept = follower.hub.kept("a");
    assert_eq!(kept.len(), 1);
    assert_eq!(
        kept[0].message().unwrap().last_event_id,
        "000000000000000b-1"
    );
}

/// A program that reconnects to its log may push entries that it pushed before.
#[test]
fn what_was_pushed_before_is_skipped() {
    for writer_threads in [0, 2] {
        let mut follower = Follower::new(writer_threads);
        follower.feed.epochs(&[(0xa, 1)]).unwrap();
        follower.feed.current(Instant::now(), 0).unwrap();
        let mut stream = follower.open();
        for sequence in [1, 2, 2, 1, 2, 3, 3, 4] {
            follower.push(sequence, sequence.to_string());
        }
        for sequence in 1..=4 {
            assert_eq!(stream.data(), sequence.to_string());
        }
        assert_eq!(follower.hub.kept("a").len(), 4);
    }
}

#[test]
fn a_feed_whose_hub_has_gone_says_so() {
    let (hub, mut feed) = Hub::follow(HubConfig::default(), InMemory::default()).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    feed.push([entry(1, "1")]).unwrap();
    drop(hub);
    let closed = PublishError::Closed;
    assert_eq!(feed.epochs(&[(0xa, 1), (0xb, 1)]), Err(closed.clone()));
    assert_eq!(feed.push([entry(2, "2")]), Err(closed.clone())); // The next entry.
    assert_eq!(feed.push([entry(9, "9")]), Err(closed.clone())); // One after a gap.
    assert_eq!(feed.push([]), Err(closed.clone())); // None at all.
    assert_eq!(feed.lost(20), Err(closed.clone()));
    assert_eq!(feed.current(Instant::now(), 0), Err(closed));
}

#[test]
fn a_receiver_goes_on_after_a_loss() {
    let mut follower = Follower::new(0);
    follower.feed.epochs(&[(0xa, 1)]).unwrap();
    let mut receiver = follower.hub.receiver("a").unwrap();
    let mut next = move || next_message(&mut receiver);
    for sequence in 1..=3 {
        follower.push(sequence, sequence.to_string());
        assert_eq!(next().data, sequence.to_string());
    }
    follower.log.0.lock().unwrap().truncate(1);
    assert_eq!(follower.feed.epochs(&[(0xa, 1), (0xb, 2)]).unwrap(), 1);
    let gap = next();
    assert_eq!(gap.event, "gap");
    assert_eq!(
        gap.data, // What it has had, and what it would have now without the loss.
        r#"{"from":"000000000000000a-3","to":"000000000000000a-1","lost":null}"#
    );
    follower.push(2, "new");
    assert_eq!(next().data, "new");
}

/// The log loses events while a reader reads the archive: what was read has the numbers of the lost events.
#[test]
fn a_loss_during_a_read_is_told_first() {
    #[derive(Clone, Default)]
    struct LosesAll(InMemory, Arc<Mutex<Option<Feed>>>);
    impl EventLog for LosesAll {
        fn read(&self, after: u64) -> io::Result<Entries> {
            if let Some(mut feed) = self.1.lock().unwrap().take() {
                *self.0.0.lock().unwrap() = vec![entry(1, "new 1"), entry(2, "new 2")];
                assert_eq!(feed.epochs(&[(0xb, 1)]).unwrap(), 0);
                feed.push([entry(1, "new 1"), entry(2, "new 2")]).unwrap();
            }
            self.0.read(after)
        }
    }
    let log = LosesAll::default();
    let (hub, mut feed) = follow(1, log.clone());
    feed.push([entry(1, "1"), entry(2, "2")]).unwrap();
    let mut receiver = hub.receiver("a").unwrap().after("000000000000000a-0");
    *log.1.lock().unwrap() = Some(feed);
    let gap = next_message(&mut receiver);
    assert_eq!(gap.event, "gap");
    assert_eq!(
        gap.data, // It goes on with what is published from now on.
        r#"{"from":"000000000000000a-0","to":"000000000000000b-2","lost":null}"#
    );
}

/// A log may have entries that `Hub::publish` would refuse.
#[test]
fn an_entry_reaches_the_readers_of_each_topic_that_can_be_one() {
    let log = InMemory::default();
    let (hub, mut feed) = follow(1, log.clone());
    let many = (0..100)
        .map(|number| format!("{number:03}"))
        .chain(["a".to_string()]);
    let topics = [vec!["".to_string(), "a".to_string()], many.collect()];
    let mut live = hub.receiver("a").unwrap();
    for (sequence, topics) in (1..).zip(topics) {
        let mut entry = entry(sequence, "x");
        entry.topics = topics;
        log.0.lock().unwrap().push(entry.clone());
        feed.push([entry]).unwrap();
        let id = live
            .recv_timeout(Duration::ZERO)
            .unwrap()
            .message()
            .unwrap()
            .last_event_id;
        assert_eq!(id, format!("000000000000000a-{sequence}"));
    }
    let receiver = hub.receiver("a").unwrap().earliest();
    let ids = receiver
        .take(2)
        .map(|event| event.message().unwrap().last_event_id);
    assert!(ids.eq(["000000000000000a-1", "000000000000000a-2"]));
}

/// The entries that are pushed come from user code.
#[test]
fn what_was_not_pushed_for_a_panic_can_be_pushed_again() {
    let (hub, mut feed) = Hub::follow(HubConfig::default(), InMemory::default()).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    let mut receiver = hub.receiver("a").unwrap();
    let entries = (1..=3).map(|sequence| match sequence {
        3 => panic!("on purpose"),
        _ => entry(sequence, "x"),
    });
    let pushing = AssertUnwindSafe(|| feed.push(entries));
    assert!(catch_unwind(pushing).is_err());
    feed.push((1..=3).map(|sequence| entry(sequence, "x")))
        .unwrap();
    for sequence in 1..=3 {
        let event = receiver.recv_timeout(Duration::ZERO).unwrap();
        let id = event.message().unwrap().last_event_id;
        assert_eq!(id, format!("000000000000000a-{sequence}"));
    }
}

/// With an empty id a client would forget its position, and with the id of another event it would resume there.
#[test]
fn an_id_that_cannot_be_an_events_own_is_replaced() {
    let log = InMemory::default();
    let (hub, mut feed) = follow(3, log.clone());
    let ids = ["mine", "", "earliest", "000000000000000a-1"];
    for (sequence, id) in (1..).zip(ids.into_iter().chain(ids)) {
        let mut entry = entry(sequence, "x");
        entry.event = entry.event.id(id).unwrap();
        log.0.lock().unwrap().push(entry.clone());
        feed.push([entry]).unwrap();
    }
    // Five from the log, and three from memory.
    let receiver = hub.receiver("a").unwrap().earliest();
    let ids = receiver.map(|event| event.message().unwrap().last_event_id);
    let expected = [
        "mine",
        "000000000000000a-2",
        "000000000000000a-3",
        "000000000000000a-4",
        "mine",
        "000000000000000a-6",
        "000000000000000a-7",
        "000000000000000a-8",
    ];
    assert!(ids.take(8).eq(expected));
}

/// A handler may take a snapshot after it has subscribed: no change is missing between the snapshot and the response.
#[test]
fn what_is_pushed_after_the_subscription_is_sent() {
    let config = HubConfig {
        poll_timeout: Duration::ZERO,
        ..HubConfig::default()
    };
    let (hub, mut feed) = Hub::follow(config, InMemory::default()).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    let feed = Arc::new(Mutex::new((feed, 0)));
    let push = move || {
        let (feed, last) = &mut *feed.lock().unwrap();
        *last += 1;
        feed.push([entry(*last, last.to_string())]).unwrap();
        feed.current(Instant::now(), 0).unwrap();
    };
    push();
    let in_handler = push.clone();
    let server = start(Config::default(), |server| {
        server.get("/events", move |request: &Request| {
            let subscription = hub.subscribe(request, "a");
            in_handler();
            subscription
        })
    });
    let answer = server.connect().get("/events?poll");
    assert!(answer.text().contains(r#""data":"2""#), "{}", answer.text());
    let mut stream = EventSource::open(server.addr(), "/events", &[]);
    push();
    assert_eq!([stream.data(), stream.data()], ["3", "4"]);
    let latest = [("Last-Event-ID", "latest")];
    let mut stream = EventSource::open(server.addr(), "/events", &latest);
    push();
    assert_eq!([stream.data(), stream.data()], ["5", "6"]);
}

/// A client that has no lost event learns of the loss by the number that the new epoch leaves out.
#[test]
fn a_number_that_is_left_out_tells_of_a_loss() {
    let mut follower = Follower::new(2);
    follower.feed.epochs(&[(0xa, 1)]).unwrap();
    for sequence in 1..=3 {
        follower.push(sequence, sequence.to_string());
    }
    follower.log.0.lock().unwrap().truncate(1);
    assert_eq!(follower.feed.epochs(&[(0xa, 1), (0xb, 2)]).unwrap(), 1);
    follower.push(3, "new");
    follower.feed.current(Instant::now(), 0).unwrap();
    let id = [("Last-Event-ID", "000000000000000a-1")];
    let mut stream = EventSource::open(follower.server.addr(), "/events", &id);
    let gap = stream.next().unwrap();
    assert_eq!(gap.event, "gap");
    assert_eq!(
        gap.data,
        r#"{"from":"000000000000000a-1","to":"000000000000000b-2","lost":null}"#
    );
    assert_eq!(stream.data(), "new");
}

/// What a hub is told before it has all of the log may be old.
#[test]
fn what_is_pushed_before_the_log_is_current_is_not_new() {
    let (hub, mut feed) = Hub::follow(HubConfig::default(), InMemory::default()).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    feed.push([entry(1, "1")]).unwrap();
    let feed = Arc::new(Mutex::new(feed));
    let in_handler = Arc::clone(&feed);
    let server = start(Config::default(), |server| {
        server.get("/events", move |request: &Request| {
            let subscription = hub.subscribe(request, "a");
            let mut feed = in_handler.lock().unwrap();
            feed.push([entry(2, "2")]).unwrap();
            feed.current(Instant::now(), 0).unwrap();
            subscription
        })
    });
    let mut stream = EventSource::open(server.addr(), "/events", &[]);
    feed.lock().unwrap().push([entry(3, "3")]).unwrap();
    assert_eq!(stream.data(), "3");
}

/// What a receiver takes at a time may be of several epochs.
#[test]
fn a_gap_begins_with_the_id_of_the_last_event() {
    let (hub, mut feed) = Hub::follow(HubConfig::default(), InMemory::default()).unwrap();
    feed.epochs(&[(0xa, 1), (0xb, 3)]).unwrap();
    let mut receiver = hub.receiver("a").unwrap();
    feed.push((1..=5).map(|number| entry(number, "x"))).unwrap();
    for _ in 0..5 {
        assert!(receiver.recv_timeout(Duration::ZERO).is_ok());
    }
    feed.epochs(&[(0xa, 1), (0xb, 3), (0xc, 5)]).unwrap();
    assert_eq!(
        next_message(&mut receiver).data,
        r#"{"from":"000000000000000b-5","to":"000000000000000b-4","lost":null}"#
    );
}

/// Three entries that ask the hub for its figures when they are dropped, of which a receiver takes the first at a time; and a
/// feed whose log loses all events at the first read.
#[derive(Clone, Default)]
struct Asking(Arc<Mutex<Option<Hub>>>, Arc<Mutex<Option<Feed>>>);

impl EventLog for Asking {
    fn read(&self, _after: u64) -> io::Result<Entries> {
        if let Some(mut feed) = self.1.lock().unwrap().take() {
            feed.epochs(&[(0xb, 1)]).unwrap();
        }
        let entries = vec![entry(1, "x".repeat(100_000)), entry(2, "x"), entry(3, "x")];
        Ok(Box::new(Asks(entries.into_iter(), Arc::clone(&self.0))))
    }
}

struct Asks(std::vec::IntoIter<Entry>, Arc<Mutex<Option<Hub>>>);

impl Iterator for Asks {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        self.0.next().map(Ok)
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        self.1.lock().unwrap().as_ref().map(Hub::stats);
    }
}

/// The entries of a log are user code, and so is their drop.
#[test]
fn entries_may_ask_the_hub_when_they_are_dropped() {
    for is_lost in [true, false] {
        let log = Asking::default();
        let config = HubConfig {
            history_events: 1,
            ..HubConfig::default()
        };
        let (hub, mut feed) = Hub::follow(config, log.clone()).unwrap();
        feed.epochs(&[(0xa, 1)]).unwrap();
        feed.push((1..=3).map(|number| entry(number, "x"))).unwrap();
        let before_all = "000000000000000a-0";
        let mut receiver = hub.receiver("a").unwrap().after(before_all);
        if is_lost {
            *log.1.lock().unwrap() = Some(feed);
        }
        *log.0.lock().unwrap() = Some(hub);
        let reading = thread::spawn(move || {
            let event = receiver.recv().unwrap();
            // Ends the first read, which is in the middle.
            drop(receiver.after(before_all));
            event.message().unwrap().event
        });
        eventually(|| reading.is_finished());
        let expected = if is_lost { "gap" } else { "message" };
        assert_eq!(reading.join().unwrap(), expected);
        log.0.lock().unwrap().take();
    }
}

/// An archive cannot say now what it has, and says it later: no event is lost, and none is skipped.
#[test]
fn a_receiver_asks_an_archive_again() {
    #[derive(Clone, Default)]
    struct Fails(InMemory, Arc<AtomicUsize>);
    impl EventLog for Fails {
        fn read(&self, after: u64) -> io::Result<Entries> {
            match self.1.fetch_add(1, Ordering::Relaxed) {
                0 => Err(io::Error::other("not now")),
                _ => self.0.read(after),
            }
        }
    }
    let log = Fails::default();
    let (hub, mut feed) = follow(1, log.clone());
    for sequence in 1..=3 {
        let entry = entry(sequence, sequence.to_string());
        log.0.0.lock().unwrap().push(entry.clone());
        feed.push([entry]).unwrap();
    }
    let mut receiver = hub.receiver("a").unwrap().after("000000000000000a-1");
    let now = |receiver: &mut HubReceiver| receiver.recv_timeout(Duration::ZERO);
    assert_eq!(now(&mut receiver), Err(RecvTimeoutError::Timeout));
    for data in ["2", "3"] {
        let event = now(&mut receiver).unwrap();
        assert_eq!(event.message().unwrap().data, data);
    }
}

/// An archive may never say again what it has: a receiver ends with its hub all the same.
#[test]
fn a_receiver_ends_while_an_archive_fails() {
    struct Fails;
    impl EventLog for Fails {
        fn read(&self, _after: u64) -> io::Result<Entries> {
            Err(io::Error::other("not now"))
        }
    }
    let (hub, mut feed) = Hub::follow(HubConfig::default(), Fails).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    feed.push([entry(2, "2")]).unwrap();
    let mut receiver = hub.receiver("a").unwrap().after("000000000000000a-0");
    let reading = thread::spawn(move || receiver.recv());
    drop(hub);
    eventually(|| reading.is_finished());
    assert_eq!(reading.join().unwrap(), None);
}

/// A log without end, which has nothing for the readers of the topic `a`.
struct Endless;

impl EventLog for Endless {
    fn read(&self, after: u64) -> io::Result<Entries> {
        let others = Entry {
            topics: vec!["b".to_string()],
            ..entry(0, "x".repeat(100_000))
        };
        Ok(Box::new((after + 1..).map(move |sequence| {
            Ok(Entry {
                sequence,
                ..others.clone()
            })
        })))
    }
}

/// A hub that follows the log without end, and its server. Its polls take a moment.
fn endless(writer_threads: usize) -> (Hub, Feed, TestServer) {
    let config = HubConfig {
        writer_threads,
        poll_timeout: Duration::from_millis(1),
        ..HubConfig::default()
    };
    let (hub, mut feed) = Hub::follow(config, Endless).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    feed.push([entry(u64::MAX / 2, "x")]).unwrap();
    feed.current(Instant::now(), 0).unwrap();
    let readers = hub.clone();
    let server = start(Config::default(), |server| {
        server.get("/events", move |request: &Request| {
            let heartbeat = Duration::from_millis(1);
            readers.subscribe(request, "a").heartbeat(heartbeat)
        })
    });
    (hub, feed, server)
}

#[test]
fn a_reader_of_an_archive_has_its_heartbeats_and_is_missed_when_it_leaves() {
    for writer_threads in [0, 2] {
        let (hub, _feed, server) = endless(writer_threads);
        let mut client = server.connect();
        let id = [("Last-Event-ID", "000000000000000a-0")];
        client.request("GET", "/events", &id, b"");
        client.head();
        let mut text = String::new();
        while !text.contains(": heartbeat") {
            text += &String::from_utf8(client.piece()).unwrap();
        }
        drop(client);
        eventually(|| hub.stats().readers == 0);
    }
}

/// A poll that goes a long way through the archive is answered when its time is over, and the next one goes on from there.
#[test]
fn a_poll_of_an_archive_is_answered_in_time() {
    let (_hub, _feed, server) = endless(0);
    let mut at = 0;
    for _ in 0..3 {
        let target = format!("/events?poll&last_event_id=000000000000000a-{at}");
        let answer = server.connect().get(&target);
        let begin = r#"{"events":[],"last_event_id":"000000000000000a-"#;
        let text = answer.text();
        let rest = text.strip_prefix(begin).expect(text);
        let next = rest.strip_suffix(r#""}"#).unwrap().parse().unwrap();
        assert!(next > at, "{next}");
        at = next;
    }
}

#[test]
fn a_receiver_that_reads_an_archive_waits_no_longer_than_it_is_to() {
    let (hub, _feed, _server) = endless(0);
    let mut receiver = hub.receiver("a").unwrap().after("000000000000000a-0");
    let reading = thread::spawn(move || receiver.recv_timeout(Duration::from_millis(1)));
    eventually(|| reading.is_finished());
    assert_eq!(reading.join().unwrap(), Err(RecvTimeoutError::Timeout));
}

/// The log is user code.
#[test]
fn a_log_that_panics_leaves_no_poll_behind() {
    struct Panics;
    impl EventLog for Panics {
        fn read(&self, _after: u64) -> io::Result<Entries> {
            panic!("on purpose");
        }
    }
    let (hub, mut feed) = Hub::follow(HubConfig::default(), Panics).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    feed.push([entry(2, "2")]).unwrap();
    feed.current(Instant::now(), 0).unwrap();
    let readers = hub.clone();
    let server = start(Config::default(), |server| {
        server.get("/events", move |request: &Request| {
            readers.subscribe(request, "a")
        })
    });
    let target = "/events?poll&last_event_id=000000000000000a-0";
    assert_eq!(server.connect().get(target).status(), 500);
    assert_eq!(hub.stats().polls, 0);
}

#[test]
fn events_that_are_too_old_leave_memory_though_nothing_follows() {
    let config = HubConfig {
        history_age: Some(Duration::from_millis(1)),
        ..HubConfig::default()
    };
    let (hub, mut feed) = Hub::follow(config, InMemory::default()).unwrap();
    feed.epochs(&[(0xa, 1)]).unwrap();
    feed.push([entry(1, "1")]).unwrap();
    eventually(|| {
        feed.current(Instant::now(), 0).unwrap();
        hub.kept("a").is_empty()
    });
}
