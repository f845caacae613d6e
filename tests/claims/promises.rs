// The claims of `tests/promises.rs`, for a number of writer threads.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Client, EventSource, Message, Random, TestServer, eventually, start};
use tiny_sse::{Config, Event, Hub, HubConfig, Lag, Request};

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const PUBLISHERS: u64 = 8;

/// What a reader has been given, in the order it came.
#[derive(Debug)]
enum Given {
    Event(u64),
    /// Of the events between the two ids, only the number is known, if the hub can tell it.
    Gap {
        from: u64,
        to: u64,
        lost: Option<u64>,
    },
}

fn serve(hub: &Hub, lag: Lag) -> TestServer {
    let hub = hub.clone();
    start(Config::default(), move |server| {
        server.get("/events", move |request: &Request| {
            let topics: Vec<&str> = request.queries("topic").collect();
            hub.subscribe(request, topics).lag(lag)
        })
    })
}

/// The default limits of a hub, with the number of writer threads that the claims are tested for.
fn limits() -> HubConfig {
    HubConfig {
        writer_threads: WRITER_THREADS,
        ..HubConfig::default()
    }
}

fn open_hub(events: usize) -> Hub {
    Hub::open(HubConfig {
        history_events: events,
        ..limits()
    })
    .unwrap()
}

/// The number in an id of the hub's.
fn sequence(id: &str) -> u64 {
    id.split_once('-').expect(id).1.parse().expect(id)
}

fn given(message: &Message) -> Given {
    if message.event != "gap" {
        return Given::Event(sequence(&message.id));
    }
    // {"from":"…","to":"…","lost":…}
    let parts: Vec<&str> = message.data.split('"').collect();
    let lost = parts[10].trim_matches([':', '}']);
    Given::Gap {
        from: sequence(parts[3]),
        to: sequence(parts[7]),
        lost: (lost != "null").then(|| lost.parse().expect(lost)),
    }
}

/// Compares what a reader was given with what was published to its topics after the position where it began.
fn check(began: u64, published: &[u64], record: &[Given]) {
    let mut expected = published
        .iter()
        .copied()
        .filter(|sequence| *sequence > began)
        .peekable();
    let mut announced: Vec<(u64, u64)> = Vec::new();
    let mut missing = Vec::new();
    let mut open_gaps: Vec<(u64, u64, Option<u64>)> = Vec::new();
    for given in record {
        match given {
            Given::Gap { from, to, lost } => {
                assert!(from < to || lost.is_none(), "a gap from {from} to {to}");
                announced.push((*from, *to));
                open_gaps.push((*from, *to, *lost));
            }
            Given::Event(sequence) => {
                while let Some(next) = expected.next_if(|next| next < sequence) {
                    let told = announced
                        .iter()
                        .any(|(from, to)| (*from < next) && next <= *to);
                    assert!(told, "{next} is missing and nothing said so: {announced:?}");
                    missing.push(next);
                }
                assert_eq!(expected.next(), Some(*sequence), "twice, or not its own");
            }
        }
    }
    assert_eq!(expected.next(), None, "the end is missing");
    for (from, to, lost) in &open_gaps {
        let inside = missing
            .iter()
            .filter(|missing| from < missing && *missing <= to);
        let inside = inside.count() as u64;
        assert!(inside > 0, "a gap from {from} to {to} without a hole");
        // Two gaps may overlap, since topics are kept for different times: each counts the events that the other does not.
        assert!(
            lost.is_none_or(|lost| (1..=inside).contains(&lost)),
            "{lost:?} of {inside}"
        );
    }
    if let Some(lost) = open_gaps
        .iter()
        .map(|(_, _, lost)| *lost)
        .sum::<Option<u64>>()
    {
        assert_eq!(lost, missing.len() as u64, "{open_gaps:?}");
    }
}

#[test]
fn what_is_published_arrives_once_and_in_order_or_is_announced_as_lost() {
    let rounds = std::env::var("PROMISES_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    for round in 1..=rounds {
        readers_come_and_go(round);
    }
}

fn readers_come_and_go(seed: u64) {
    let hub = open_hub(48);
    let server = serve(&hub, Lag::CatchUp);
    let published: Mutex<BTreeMap<u64, &str>> = Mutex::default();
    let count = AtomicUsize::new(0);
    let per_publisher = 250;
    let readers = 50;
    let ready = AtomicUsize::new(0);
    thread::scope(|scope| {
        for reader in 0..readers {
            let (server, published, count, ready) = (&server, &published, &count, &ready);
            scope.spawn(move || {
                let mut random = Random::new(seed * 1000 + reader);
                let mut topics: Vec<&str> = TOPICS.to_vec();
                while topics.len() > 1 && random.below(2) == 0 {
                    topics.remove(random.below(topics.len()));
                }
                let query: Vec<String> = topics
                    .iter()
                    .map(|topic| format!("topic={topic}"))
                    .collect();
                let target = format!("/events?{}", query.join("&"));
                if reader % 10 == 0 {
                    // This client never reads, and delays nobody.
                    let mut client = Client::connect(server.addr());
                    client.request("GET", &target, &[], b"");
                    ready.fetch_add(1, Ordering::SeqCst);
                    eventually(|| {
                        published
                            .lock()
                            .unwrap()
                            .values()
                            .any(|topic| *topic == "end")
                    });
                    return;
                }
                let mut stream = EventSource::open(server.addr(), &target, &[]);
                let mut record = Vec::new();
                // The first event tells where the stream began: `id` alone came before it.
                let mut began = None;
                ready.fetch_add(1, Ordering::SeqCst);
                'connections: loop {
                    let mut left = random.below(120);
                    loop {
                        let before = stream.last_event_id.clone();
                        let message = stream.next().expect("nobody ends the stream");
                        began.get_or_insert_with(|| match before.is_empty() {
                            true => 0,
                            false => sequence(&before),
                        });
                        record.push(given(&message));
                        if message.data == "end" {
                            break 'connections;
                        }
                        if left == 0 {
                            break;
                        }
                        left -= 1;
                    }
                    // Away for a while, in which the history may move on without it.
                    let last = stream.last_event_id.clone();
                    drop(stream);
                    let away = [0, 0, 20, 400][random.below(4)];
                    let back_at = count.load(Ordering::SeqCst) + away;
                    let all = PUBLISHERS as usize * per_publisher;
                    eventually(|| count.load(Ordering::SeqCst) >= back_at.min(all));
                    stream = EventSource::open(server.addr(), &target, &[("Last-Event-ID", &last)]);
                }
                let published = published.lock().unwrap();
                let own: Vec<u64> = published
                    .iter()
                    .filter(|(_, topic)| topics.contains(topic) || **topic == "end")
                    .map(|(sequence, _)| *sequence)
                    .collect();
                check(began.unwrap(), &own, &record);
            });
        }
        eventually(|| ready.load(Ordering::SeqCst) == readers as usize);
        thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let (hub, published, count) = (&hub, &published, &count);
                scope.spawn(move || {
                    let mut random = Random::new(seed * 7919 + publisher);
                    for _ in 0..per_publisher {
                        let topic = *random.pick(&TOPICS);
                        let text = "x".repeat(random.below(3000));
                        let id = hub.publish_wait(topic, Event::data(text)).unwrap();
                        published
                            .lock()
                            .unwrap()
                            .insert(sequence(&id.to_string()), topic);
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        // Held while the last event goes out, so that no reader looks before it is noted.
        let mut published = published.lock().unwrap();
        let id = hub.publish_wait(TOPICS, Event::data("end")).unwrap();
        published.insert(sequence(&id.to_string()), "end");
    });
}

/// Fills the socket's buffers of a reader that pauses, so that it falls behind while it stays connected. This holds for each
/// version of HTTP, and with or without a history.
fn each_pauses(lag: Lag) {
    for (events, version) in [(8, "1.1"), (8, "1.0"), (0, "1.1"), (0, "1.0")] {
        let (published, record, gaps) = pauses(lag, events, version);
        check(0, &published, &record);
        assert!(gaps > 0, "25 MB and few events kept: something is lost");
    }
}

fn pauses(lag: Lag, events: usize, version: &str) -> (Vec<u64>, Vec<Given>, u64) {
    let hub = open_hub(events);
    let server = serve(&hub, lag);
    let mut client = server.connect();
    client.send(format!("GET /events?topic=a HTTP/{version}\r\nHost: test\r\n\r\n"));
    let mut stream = EventSource::answer(client);
    let mut published = Vec::new();
    let text = "x".repeat(64 * 1024);
    let mut publish = |text: &str| {
        let id = hub.publish_wait("a", Event::data(text)).unwrap();
        published.push(sequence(&id.to_string()));
    };
    for _ in 0..400 {
        publish(&text);
    }
    // 25 MB fit no buffer: it has fallen behind, and the others never wait for it. One that skips may be at the head again,
    // until there is no room for the newest event either.
    eventually(|| {
        publish(&text);
        hub.stats().readers_behind == 1
    });
    publish("end");
    let mut record = Vec::new();
    loop {
        let message = stream.next().expect("nobody ends the stream");
        record.push(given(&message));
        if message.data == "end" {
            break;
        }
    }
    eventually(|| hub.stats().readers_behind == 0);
    let gaps = record
        .iter()
        .filter(|given| matches!(given, Given::Gap { .. }))
        .count() as u64;
    (published, record, gaps)
}

#[test]
fn a_reader_that_pauses_is_told_what_it_lost() {
    each_pauses(Lag::CatchUp);
}

#[test]
fn a_reader_that_skips_gets_the_newest_and_is_told_of_the_others() {
    each_pauses(Lag::Skip);
}

#[test]
fn going_back_and_forth_between_behind_and_live_loses_nothing() {
    let hub = open_hub(100_000);
    let server = serve(&hub, Lag::CatchUp);
    thread::scope(|scope| {
        for reader in 1..=8 {
            let mut stream = EventSource::open(server.addr(), "/events?topic=a", &[]);
            let hub = &hub;
            scope.spawn(move || {
                let mut random = Random::new(reader);
                for expected in 1..=1000 {
                    let message = stream.next().unwrap();
                    assert_eq!(sequence(&message.id), expected);
                    // Now and then the reader lets the publishers run ahead.
                    if random.below(100) == 0 {
                        let newest =
                            || hub.stats().newest.map_or(0, |id| sequence(&id.to_string()));
                        eventually(|| newest() >= (expected + 100).min(1000));
                    }
                }
            });
        }
        let text = "x".repeat(16 * 1024);
        for _ in 0..1000 {
            hub.publish("a", Event::data(&text)).unwrap();
        }
    });
    eventually(|| hub.stats().readers == 0);
    assert_eq!(hub.stats().dropped_stalled, 0);
}

#[test]
fn who_takes_what_comes_does_not_wait_for_those_who_take_nothing() {
    let hub = Hub::open(HubConfig {
        catch_up_threads: 1,
        max_event_bytes: 16 << 20,
        ..limits()
    })
    .unwrap();
    let config = Config {
        write_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let readers = hub.clone();
    let server = start(config, move |server| {
        server.get("/events", move |request: &Request| {
            readers.subscribe(request, "a")
        })
    });
    let stuck: Vec<Client> = (0..30)
        .map(|_| {
            let mut client = server.connect();
            client.request("GET", "/events", &[], b"");
            client
        })
        .collect();
    let mut good = EventSource::open(server.addr(), "/events", &[]);
    // Each fits no buffer, so that all fall behind. With a quarter of a second for each reader that is stuck, these would be
    // dropped before the good one gets its last event.
    let text = "x".repeat(8 << 20);
    for _ in 0..12 {
        hub.publish("a", Event::data(&text)).unwrap();
        assert_eq!(good.next().unwrap().data.len(), text.len());
    }
    assert_eq!(hub.stats().dropped_stalled, 0);
    assert_eq!(hub.stats().readers, stuck.len() + 1);
}
