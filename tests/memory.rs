//! The memory that a hub takes, each time in a process of its own, whose memory the system reports.

#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use support::{Child, Client, EventSource, eventually, serve_parent};
use tiny_sse::{Config, Event, Hub, HubConfig, Request, Response, Server, Stats};

/// The limit of the histories that are filled.
const HISTORY_BYTES: usize = 8 << 20;

/// An event that is large beside all that a reader takes.
const LARGE: usize = 900_000;

/// What the other process serves: a hub, which `/open` opens.
fn site(server: Server) -> Server {
    static HUB: OnceLock<Hub> = OnceLock::new();
    let hub = || HUB.get().expect("an open hub");
    server
        .post("/open", |request: &Request| {
            let number = |name| request.query(name).unwrap().parse().unwrap();
            let config = HubConfig {
                history_bytes: number("bytes"),
                history_events: usize::MAX,
                writer_threads: number("writers"),
                // What waits in the inbox is not in the history.
                inbox_events: 4,
                ..HubConfig::default()
            };
            HUB.get_or_init(|| Hub::open(config).unwrap());
            Response::new(204)
        })
        .post("/open_file", |request: &Request| {
            let config = HubConfig {
                history_file: request.query("path").map(Into::into),
                on_error: Arc::new(|_| {}),
                ..HubConfig::default()
            };
            match Hub::open(config) {
                Ok(hub) => hub.stats().history_events.to_string(),
                Err(error) => error.kind().to_string(),
            }
        })
        .post("/fill", move |request: &Request| {
            let (count, event) = ROWS[request.query("row").unwrap().parse::<usize>().unwrap()];
            for n in 0..count {
                let (topics, event) = event(n);
                hub().publish(topics, event).unwrap();
            }
            hub().flush().unwrap();
            hub().stats().history_bytes.to_string()
        })
        .post("/publish", move |request: &Request| {
            let text = "x".repeat(LARGE);
            for topic in request.queries("topic") {
                hub().publish_wait(topic, Event::data(&text))?;
            }
            Ok(Response::new(204))
        })
        .get("/stats", move |_| {
            let Stats {
                readers_behind,
                delivered,
                ..
            } = hub().stats();
            format!("{readers_behind} {delivered}")
        })
        .get("/events", move |request: &Request| {
            hub().subscribe(request, "a")
        })
        .get("/retained", move |request: &Request| {
            hub().subscribe(request, topics(16, 2, 0)).retained()
        })
}

/// Returns this many names of this many bytes, numbered from the first.
fn topics(count: usize, bytes: usize, first: usize) -> Vec<String> {
    let numbers = first..first + count;
    numbers.map(|number| format!("{number:0bytes$}")).collect()
}

/// The process, with an open hub, and a client of it.
fn opened(test: &str, writers: usize, bytes: usize) -> Option<(Child, Client)> {
    let child = Child::of(test)?;
    let mut client = Client::connect(child.addr());
    let target = format!("/open?writers={writers}&bytes={bytes}");
    assert_eq!(client.answer_after("POST", &target, b"x").status(), 204);
    Some((child, client))
}

/// Readers may stop reading for as long as they like.
fn patient() -> Config {
    Config {
        write_timeout: Duration::from_secs(600),
        ..Config::default()
    }
}

/// The streams that are behind, and the events that have been handed over.
fn stats(client: &mut Client) -> (usize, usize) {
    let answer = client.get("/stats");
    let (behind, delivered) = answer.text().split_once(' ').unwrap();
    (behind.parse().unwrap(), delivered.parse().unwrap())
}

/// As many events as fill the history twice, and the event of each number.
type Row = (usize, fn(usize) -> (Vec<String>, Event));

const ROWS: [Row; 7] = [
    (60_000, |_| (topics(1, 4, 0), Event::data("short"))), // Mostly the fixed cost of each event.
    (20_000, |n| (topics(1, 4, n), Event::data("short"))), // A new topic each time.
    (6_000, |_| (topics(64, 4, 0), Event::data("short"))), // Topics that all events share.
    (400, |n| (topics(64, 4, 64 * n), Event::data("short"))), // 64 new topics each time.
    (400, |n| (topics(64, 256, 64 * n), Event::data("short"))), // With the longest names.
    (1_100, |n| {
        let event = Event::data("short").id(format!("{n:0256}")).unwrap();
        (topics(64, 4, 64 * (n % 9)), event) // An id, which counts in each topic.
    }),
    (2_000, |n| {
        let text = "x".repeat([5, 50, 500, 5_000, 50_000, 100][n % 6]);
        (topics(1, 4, n % 7), Event::data(text)) // Mostly text, of all sizes.
    }),
];

#[test]
fn what_is_kept_takes_about_what_the_history_counts() {
    let test = "what_is_kept_takes_about_what_the_history_counts";
    for row in 0..ROWS.len() {
        let Some((child, mut client)) = opened(test, 2, HISTORY_BYTES) else {
            return serve_parent(Config::default(), site);
        };
        let before = child.peak_memory();
        let answer = client.answer_after("POST", &format!("/fill?row={row}"), b"x");
        let counted: usize = answer.text().parse().unwrap();
        let taken = child.peak_memory() - before;
        println!("row {row}: {counted} bytes counted, {taken} taken");
        assert!(
            counted <= HISTORY_BYTES && counted > HISTORY_BYTES / 10 * 9,
            "row {row}: {counted}"
        );
        assert!(
            2 * taken <= 3 * HISTORY_BYTES,
            "row {row}: {taken} for {counted}"
        );
    }
}

#[test]
fn readers_that_do_not_read_share_what_they_are_to_get() {
    let test = "readers_that_do_not_read_share_what_they_are_to_get";
    const READERS: usize = 100;
    for writers in [2, 0] {
        let Some((child, mut client)) = opened(test, writers, 64 << 20) else {
            return serve_parent(patient(), site);
        };
        let names = topics(16, 2, 0).join("&topic=");
        let target = format!("/publish?topic={names}");
        assert_eq!(client.answer_after("POST", &target, b"x").status(), 204);
        let before = child.peak_memory();
        let readers = [(); READERS].map(|()| {
            let mut reader = Client::connect(child.addr());
            reader.request("GET", "/retained", &[], b"");
            reader
        });
        eventually(|| {
            let (behind, delivered) = stats(&mut client);
            behind == READERS && delivered >= READERS
        });
        let taken = child.peak_memory() - before;
        println!("{taken} bytes taken");
        // One more copy for all readers, where each reader had its own copy before.
        assert!(taken < 16 * LARGE, "{taken} bytes with {writers} writers");
        drop(readers);
    }
}

#[test]
fn a_reader_that_is_stuck_keeps_one_event_at_most() {
    let test = "a_reader_that_is_stuck_keeps_one_event_at_most";
    const READERS: usize = 30;
    for writers in [2, 0] {
        let Some((child, mut client)) = opened(test, writers, 4 * LARGE) else {
            return serve_parent(patient(), site);
        };
        let before = child.peak_memory();
        let mut readers = Vec::new();
        for stuck in 1..=READERS {
            readers.push(EventSource::open(child.addr(), "/events", &[]));
            // Until it is stuck, at an event that the others have not received.
            eventually(|| {
                let target = "/publish?topic=a&topic=a&topic=a";
                assert_eq!(client.answer_after("POST", target, b"x").status(), 204);
                stats(&mut client).0 == stuck
            });
        }
        let taken = child.peak_memory() - before;
        println!("{taken} bytes taken");
        // The history, as many events as there are readers, and some that are on their way.
        let events = 4 * 3 / 2 + READERS + 10;
        assert!(
            taken < events * LARGE,
            "{taken} bytes with {writers} writers"
        );
    }
}

/// A power failure may leave zeros at the end of a history, and a path may name a large file of another kind.
#[test]
fn damage_is_passed_over_in_pieces() {
    let Some(child) = Child::of("damage_is_passed_over_in_pieces") else {
        return serve_parent(Config::default(), site);
    };
    let name = format!("tiny-sse-damage-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let check = |begin: &str, expected: &str| {
        fs::write(&path, begin).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(300 << 20).unwrap();
        let mut client = Client::connect(child.addr());
        let target = format!("/open_file?path={}", path.display());
        assert_eq!(client.answer_after("POST", &target, b"x").text(), expected);
    };
    check("another file", "invalid data");
    check("", "0"); // Zeros alone are a history that was just begun.
    let peak = child.peak_memory();
    assert!(peak < 100 << 20, "{peak} bytes");
    for suffix in ["", ".next"] {
        fs::remove_file(format!("{}{suffix}", path.display())).unwrap();
    }
}
