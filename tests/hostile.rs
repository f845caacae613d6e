//! Hostile peers: they send byte by byte, send nothing, never read, send garbage, and connect in such numbers that
//! descriptors and threads run out. Each test attacks another process, which must not panic, and must have as many threads
//! and descriptors afterwards as before.
//!
//! Two settings make the attacks larger: `TINY_SSE_MUTATIONS=1000000` for the requests of
//! `mutated_requests_are_answered_or_refused`, and `cargo test --release --test hostile -- --ignored --nocapture` for all
//! peers, which prints how the good readers fared.

#![cfg_attr(not(target_os = "linux"), allow(unused_imports, dead_code))] // The tests that count threads are for Linux.

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::{Child, Client, EventSource, PATIENCE, Random, eventually, serve_parent};
use tiny_sse::{Config, Event, Hub, HubConfig, Request, Response, Server};

/// What the attacked processes serve.
fn site(server: Server) -> Server {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static HOARD: Mutex<Vec<std::fs::File>> = Mutex::new(Vec::new());
    panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        PANICS.fetch_add(1, Ordering::SeqCst);
    }));
    let config = HubConfig {
        poll_timeout: Duration::from_millis(10),
        ..HubConfig::default()
    };
    let hub = Hub::open(config).unwrap();
    let (inbox, filled) = (hub.clone(), hub.clone());
    server
        .on_error(|problem| ERRORS.lock().unwrap().push(problem.to_string()))
        .get("/plain", |_| "plain")
        .post("/echo", |request: &Request| {
            Response::bytes("application/octet-stream", request.body().to_vec())
        })
        .get("/events", move |request| {
            hub.subscribe(request, topics(request))
        })
        .post("/publish", move |request: &Request| {
            let text = String::from_utf8_lossy(request.body());
            inbox.publish(topics(request), Event::data(text))?;
            Ok(Response::new(204))
        })
        // A thousand events in each topic.
        .post("/fill", move |request: &Request| {
            for _ in 0..1000 {
                for topic in topics(request) {
                    filled.publish(topic, Event::data("x".repeat(400)))?;
                }
            }
            filled.flush()?;
            Ok(Response::new(204))
        })
        .get("/panics", |_| PANICS.load(Ordering::SeqCst).to_string())
        .get("/errors", |_| ERRORS.lock().unwrap().join("\n"))
        // Takes all descriptors that are left, as another part of the program may.
        .post("/hoard", |_| {
            let mut hoard = HOARD.lock().unwrap();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                hoard.push(file);
            }
            Response::new(204)
        })
        .post("/share", |_| {
            HOARD.lock().unwrap().clear();
            Response::new(204)
        })
}

/// Returns the topics of a request; without any, the one topic of all readers.
fn topics(request: &Request) -> Vec<&str> {
    let topics: Vec<&str> = request.queries("topic").collect();
    if topics.is_empty() {
        vec!["all"]
    } else {
        topics
    }
}

/// Checks that the server serves, that nothing has panicked, and that the descriptors of its attackers are free again.
#[track_caller]
fn is_well(child: &Child, at_rest: (usize, usize)) {
    let mut client = Client::connect(child.addr());
    assert_eq!(client.get("/plain").text(), "plain");
    assert_eq!(client.get("/panics").text(), "0");
    drop(client);
    child.gives_descriptors_back(at_rest);
}

/// Sends a beginning, and then the same piece again and again, with a pause before each. Returns the responses when the
/// connection has ended.
fn drip(addr: SocketAddr, beginning: &str, piece: &str, pause: Duration) -> Vec<u8> {
    let mut client = Client::connect(addr);
    client.send(beginning);
    client.stream.set_read_timeout(Some(pause)).unwrap();
    let mut answer = Vec::new();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let mut bytes = [0; 1024];
        match client.stream.read(&mut bytes) {
            Ok(0) => return answer,
            Ok(n) => answer.extend_from_slice(&bytes[..n]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                assert!(Instant::now() < give_up, "it waits for ever");
                // The server may have closed meanwhile.
                let _ = client.stream.write_all(piece.as_bytes());
            }
            // The client went on sending after the response: a reset.
            Err(_) => return answer,
        }
    }
}

/// A deadline holds for the whole head or body: each piece comes in time, and the whole never ends.
#[test]
fn deadlines_are_for_the_whole() {
    let test = "deadlines_are_for_the_whole";
    let Some(child) = Child::of(test) else {
        let config = Config {
            head_timeout: Duration::from_millis(300),
            body_timeout: Duration::from_millis(300),
            ..Config::default()
        };
        return serve_parent(config, site);
    };
    let at_rest = child.at_rest();
    let addr = child.addr();
    const POST: &str = "POST /echo HTTP/1.1\r\nHost: a\r\n";
    const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    thread::scope(|scope| {
        for (beginning, piece) in [
            ("G".to_string(), "G"),
            ("GET /".to_string(), "a"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: ".to_string(), "a"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: ".to_string(), " "),
            ("GET / HTTP/1.1\r\nHost: a\r\n".to_string(), "X:\r\n"),
            ("\r\n".to_string(), "G"),
            (format!("{POST}Content-Length: 1000000\r\n\r\n"), "a"),
            (CHUNKED.to_string(), "0"),
            (CHUNKED.to_string(), "1\r\na\r\n"),
            (format!("{CHUNKED}1;"), "a"),
            (format!("{CHUNKED}fff\r\n"), "a"),
            (format!("{CHUNKED}0\r\nX: "), "a"),
            (format!("{CHUNKED}0\r\n"), "X:\r\n"),
            (
                format!("{POST}Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n"),
                "a",
            ),
            // After another request.
            (
                "GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /".to_string(),
                "a",
            ),
        ] {
            scope.spawn(move || {
                let answer = drip(addr, &beginning, piece, Duration::from_millis(40));
                let answer = String::from_utf8(answer).unwrap();
                assert!(
                    answer.contains("HTTP/1.1 408 "),
                    "{beginning:?}: {answer:?}"
                );
            });
        }
    });
    is_well(&child, at_rest);
}

/// A body that comes more slowly than the minimum rate ends long before the deadline.
#[test]
fn a_body_comes_at_a_least_rate() {
    let test = "a_body_comes_at_a_least_rate";
    let Some(child) = Child::of(test) else {
        let config = Config {
            body_timeout: Duration::from_secs(3600),
            ..Config::default()
        };
        return serve_parent(config, site);
    };
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let answer = drip(child.addr(), request, "a", Duration::from_millis(50));
    assert!(answer.starts_with(b"HTTP/1.1 408 "));
}

/// Between requests a connection ends without a response.
#[test]
fn an_idle_connection_ends() {
    let test = "an_idle_connection_ends";
    let Some(child) = Child::of(test) else {
        let config = Config {
            head_timeout: Duration::from_millis(200),
            idle_timeout: Duration::from_millis(200),
            ..Config::default()
        };
        return serve_parent(config, site);
    };
    let at_rest = child.at_rest();
    Client::connect(child.addr()).ends();
    let mut client = Client::connect(child.addr());
    for _ in 0..3 {
        assert_eq!(client.get("/plain").status(), 200);
    }
    client.ends();
    is_well(&child, at_rest);
}

/// The peers of an attack.
struct Crowd {
    silent: usize,
    dripping: usize,
    never_reading: usize,
    good: usize,
    events: usize,
    /// Bytes of every tenth event. Together they are more than the sockets of peers that never read take.
    large: usize,
}

#[test]
fn good_readers_keep_their_events_in_a_crowd() {
    let test = "good_readers_keep_their_events_in_a_crowd";
    let crowd = Crowd {
        silent: 200,
        dripping: 50,
        never_reading: 50,
        good: 10,
        events: 300,
        large: 200_000,
    };
    attack(test, &crowd);
}

#[test]
#[ignore = "needs 7,000 descriptors and some memory"]
fn good_readers_keep_their_events_in_a_large_crowd() {
    let test = "good_readers_keep_their_events_in_a_large_crowd";
    let crowd = Crowd {
        silent: 2_000,
        dripping: 500,
        never_reading: 500,
        good: 100,
        events: 3_000,
        large: 20_000,
    };
    attack(test, &crowd);
}

fn attack(test: &str, crowd: &Crowd) {
    let Some(child) = Child::of(test) else {
        return serve_parent(Config::default(), site);
    };
    let at_rest = child.at_rest();
    let addr = child.addr();
    let mut delays: Vec<Duration> = thread::scope(|scope| {
        let silent: Vec<Client> = (0..crowd.silent).map(|_| Client::connect(addr)).collect();
        let never_reading: Vec<Client> = (0..crowd.never_reading)
            .map(|_| {
                let mut client = Client::connect(addr);
                client.request("GET", "/events", &[], b"");
                client
            })
            .collect();
        let (over, is_over) = mpsc::channel();
        scope.spawn(move || drip_until(&is_over, addr, crowd.dripping));
        let good: Vec<EventSource> = (0..crowd.good)
            .map(|_| EventSource::open(addr, "/events", &[]))
            .collect();
        let good: Vec<_> = good
            .into_iter()
            .map(|reader| scope.spawn(move || read_all(reader, crowd.events)))
            .collect();

        let mut publisher = Client::connect(addr);
        for number in 0..crowd.events {
            let padding = if number % 10 == 0 { crowd.large } else { 50 };
            let text = format!("{number} {} {}", now().as_nanos(), "x".repeat(padding));
            publisher.request("POST", "/publish", &[], text.as_bytes());
            assert_eq!(publisher.answer().status(), 204);
            thread::sleep(Duration::from_millis(5)); // A steady stream, not a flood.
        }
        let delays = good.into_iter().flat_map(|reader| reader.join().unwrap());
        let delays = delays.collect();
        drop((silent, never_reading, publisher, over));
        delays
    });
    delays.sort();
    let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize];
    println!(
        "{} deliveries to good readers: half within {:.1?}, 99 of 100 within {:.1?}, all within {:.1?}; {:.1?} of processor time, {} MB",
        delays.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        if cfg!(target_os = "linux") {
            child.cpu()
        } else {
            Duration::ZERO
        },
        if cfg!(target_os = "linux") {
            child.peak_memory() >> 20
        } else {
            0
        },
    );
    is_well(&child, at_rest);
    child.comes_to_rest(at_rest);
}

/// What readers of many topics do. Each of them asks for all events.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// They stay, and take a little at a time.
    Slow,
    /// They leave at once, and others come.
    Leaving,
}

/// The cost of a step for a reader of many topics is under the lock that all readers share.
#[test]
fn readers_of_many_topics_delay_nobody() {
    let test = "readers_of_many_topics_delay_nobody";
    for (readers, topics, manner) in [
        (100, 16, Manner::Slow),
        (100, 64, Manner::Slow),
        (20, 64, Manner::Leaving),
    ] {
        let Some(child) = Child::of(test) else {
            return serve_parent(Config::default(), site);
        };
        let at_rest = child.at_rest();
        let query: String = (0..topics).map(|topic| format!("&topic={topic}")).collect();
        let mut client = Client::connect(child.addr());
        let filled = client.answer_after("POST", &format!("/fill?{query}"), b"x");
        assert_eq!(filled.status(), 204);
        let mut quiet = EventSource::open(child.addr(), "/events?topic=quiet", &[]);
        let alone = median_delay(&mut client, &mut quiet);
        let crowded = thread::scope(|scope| {
            let target = format!("/events?last_event_id=earliest{query}");
            let (over, is_over) = mpsc::channel::<()>();
            let (ready, is_ready) = mpsc::channel();
            let addr = child.addr();
            scope.spawn(move || crowd_until(&is_over, &ready, addr, &target, readers, manner));
            is_ready.recv().unwrap();
            let crowded = median_delay(&mut client, &mut quiet);
            drop(over);
            crowded
        });
        println!(
            "{readers} {manner:?} readers of {topics} topics: {alone:?} alone, {crowded:?} with them"
        );
        assert!(
            crowded < 1000 * alone,
            "{crowded:?} with {readers} {manner:?} readers of {topics} topics, {alone:?} without"
        );
        drop((client, quiet));
        is_well(&child, at_rest);
    }
}

/// Returns how long an event of a quiet topic takes to its reader.
fn median_delay(publisher: &mut Client, reader: &mut EventSource) -> Duration {
    let mut delays: Vec<Duration> = (0..50)
        .map(|number: u32| {
            let (start, text) = (Instant::now(), number.to_string());
            let answer = publisher.answer_after("POST", "/publish?topic=quiet", text.as_bytes());
            assert_eq!(answer.status(), 204);
            assert_eq!(reader.data(), text);
            start.elapsed()
        })
        .collect();
    delays.sort();
    delays[delays.len() / 2]
}

/// Keeps this many readers until the other end of the channel is dropped, and reports when they are there.
fn crowd_until(
    over: &Receiver<()>,
    ready: &mpsc::Sender<()>,
    addr: SocketAddr,
    target: &str,
    readers: usize,
    manner: Manner,
) {
    let mut crowd = std::collections::VecDeque::new();
    let mut scratch = [0; 16 * 1024];
    let pause = match manner {
        Manner::Slow => Duration::from_millis(1),
        Manner::Leaving => Duration::from_millis(5),
    };
    while over.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let mut reader = match manner {
            Manner::Slow if crowd.len() == readers => crowd.pop_front().unwrap(),
            _ => {
                let mut reader = Client::connect(addr);
                reader.request("GET", target, &[], b"");
                reader
            }
        };
        let got = reader.stream.read(&mut scratch).unwrap();
        assert!(got > 0, "a stream goes on");
        crowd.push_back(reader);
        if crowd.len() > readers {
            crowd.pop_front();
        }
        if crowd.len() == readers {
            // An error is a test that has its measurement.
            let _ = ready.send(());
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Reads this many events, which must be all, and returns how long each took.
fn read_all(mut reader: EventSource, events: usize) -> Vec<Duration> {
    let mut delays = Vec::new();
    for number in 0..events {
        let data = reader.data();
        let mut parts = data.split(' ');
        assert_eq!(parts.next(), Some(&*number.to_string()));
        let sent = parts.next().unwrap().parse().unwrap();
        delays.push(now().saturating_sub(Duration::from_nanos(sent)));
    }
    delays
}

/// Keeps this many connections that send a byte of a head each second, and replaces each one that ends, until the other end
/// of the channel is dropped.
fn drip_until(over: &Receiver<()>, addr: SocketAddr, connections: usize) {
    let head =
        b"GET /plain HTTP/1.1\r\nHost: a\r\nX: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    let mut dripping: Vec<(TcpStream, usize)> = Vec::new();
    loop {
        dripping.retain_mut(|(stream, at)| {
            *at += 1;
            stream.write_all(&head[*at % head.len()..][..1]).is_ok()
        });
        while dripping.len() < connections {
            match TcpStream::connect(addr) {
                Ok(stream) => dripping.push((stream, 0)),
                Err(_) => break,
            }
        }
        if over.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Valid requests with parts changed, left out, doubled, cut off or replaced by bytes that are hard to parse.
#[test]
fn mutated_requests_are_answered_or_refused() {
    let test = "mutated_requests_are_answered_or_refused";
    let Some(child) = Child::of(test) else {
        return serve_parent(Config::default(), site);
    };
    let at_rest = child.at_rest();
    let rounds = std::env::var("TINY_SSE_MUTATIONS").map_or(5_000, |n| n.parse().unwrap());
    let threads = 4;
    thread::scope(|scope| {
        for thread in 1..=threads {
            let addr = child.addr();
            scope.spawn(move || {
                let mut random = Random::new(0x9112 + thread);
                for _ in 0..rounds / threads {
                    let bytes = mutated(&mut random);
                    let mut client = Client::connect(addr);
                    client.send(&bytes);
                    client.half_close();
                    check_answers(&answers(&mut client), &bytes);
                }
            });
        }
    });
    is_well(&child, at_rest);
}

/// Returns the bytes that come back up to the end of the connection, or up to a stream, which notices only after a while that
/// its reader has left.
fn answers(client: &mut Client) -> Vec<u8> {
    let mut answers = Vec::new();
    let mut piece = [0; 4096];
    let is_stream = |bytes: &[u8]| bytes.windows(13).any(|part| part == b": connected\n\r");
    while !is_stream(&answers) {
        match client.stream.read(&mut piece).unwrap() {
            0 => break,
            n => answers.extend_from_slice(&piece[..n]),
        }
    }
    answers
}

fn mutated(random: &mut Random) -> Vec<u8> {
    const GOOD: [&[u8]; 7] = [
        b"GET /plain?a=b+c&d=%41 HTTP/1.1\r\nHost: a:80\r\nConnection: keep-alive\r\nCookie: a=b; c=d\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        b"OPTIONS http://[::1]:80/?a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nLast-Event-ID: \xc3\xa9-1\r\n\r\n",
        b"GET /events?poll&last_event_id=earliest HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n",
    ];
    const BAD: [&[u8]; 16] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"%",
        b"+5",
        b"\xff",
        b"\xc3\xa9",
        b"ffffffffffffffff",
        b"Host: b\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ];
    let mut bytes: Vec<u8> = (0..=random.below(3))
        .flat_map(|_| *random.pick(&GOOD))
        .copied()
        .collect();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = at + random.below(bytes.len() - at).min(40);
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => bytes.truncate(at + 1),
            _ => drop(bytes.splice(at..at, random.pick(&BAD).iter().copied())),
        }
    }
    bytes
}

/// The bytes that came back must be whole responses or a stream, and nothing may follow a response that closes.
#[track_caller]
fn check_answers(mut bytes: &[u8], request: &[u8]) {
    let mut closed = false;
    while !bytes.is_empty() {
        let shown = || format!("{} to {}", bytes.escape_ascii(), request.escape_ascii());
        assert!(!closed, "{}", shown());
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no whole head: {}", shown()));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        assert!(head.starts_with("HTTP/1.1 "), "{}", shown());
        assert!(!head.starts_with("HTTP/1.1 500"), "{}", shown());
        if head.contains("text/event-stream") {
            return;
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        closed = head.contains("\r\nConnection: close");
        assert!(bytes.len() >= end + 4 + length, "{}", shown());
        bytes = &bytes[end + 4 + length..];
    }
}

/// Connections that have each sent a large body, and then are idle.
#[cfg(target_os = "linux")]
#[test]
fn a_body_is_not_kept_for_a_connection_that_is_idle() {
    const BODY_BYTES: usize = 1024 * 1024;
    const IDLE: usize = 200;
    let test = "a_body_is_not_kept_for_a_connection_that_is_idle";
    let Some(child) = Child::of(test) else {
        return serve_parent(Config::default(), site);
    };
    let body = vec![b'x'; BODY_BYTES];
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut client = Client::connect(child.addr());
        client.request("POST", "/nothing", &[], &body);
        assert_eq!(client.answer().status(), 404);
        idle.push(client);
    }
    let most = child.peak_memory();
    assert!(most < IDLE * BODY_BYTES / 2, "{most} bytes");
}

/// The maximum of processor time that a server may take to do nothing: far less than a server that spins uses.
#[cfg(target_os = "linux")]
#[track_caller]
fn does_not_spin(child: &Child, what: &str) {
    let before = child.cpu();
    let second = Duration::from_secs(1);
    thread::sleep(second); // What is measured is what happens meanwhile.
    let used = child.cpu() - before;
    println!("{used:?} of processor time in a second with {what}");
    assert!(used < second / 4, "{used:?} in a second with {what}");
}

/// With 64 descriptors, of which another part of the program may take any number.
#[cfg(target_os = "linux")]
#[test]
fn without_descriptors_those_who_are_there_are_served() {
    let test = "without_descriptors_those_who_are_there_are_served";
    let Some(child) = Child::under("-n 64", test) else {
        return serve_parent(Config::default(), site);
    };
    let at_rest = child.at_rest();
    let mut client = Client::connect(child.addr());
    assert!(
        client
            .get("/errors")
            .text()
            .contains("only 32 connections fit")
    );

    // More clients come than there are descriptors for.
    let mut asking = Client::in_a_request(child.addr());
    let silent: Vec<Client> = (0..200).map(|_| Client::connect(child.addr())).collect();
    does_not_spin(&child, "a crowd at the door");
    asking.finish_request();
    drop((silent, asking, client));
    let mut reader = None;
    eventually(|| {
        let mut client = Client::connect(child.addr());
        let request = b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n";
        // While all refusal threads are busy, the connection is closed without a response.
        let asked = client.stream.write_all(request);
        let head = asked.and_then(|()| client.try_head());
        let served = head.is_ok_and(|head| head.field("transfer-encoding") == Some("chunked"));
        reader = served.then_some(client);
        served
    });

    let mut client = Client::connect(child.addr());
    // No descriptor is left: `accept` fails.
    client.request("POST", "/hoard", &[], b"x");
    assert_eq!(client.answer().status(), 204);
    let waiting: Vec<Client> = (0..20).map(|_| Client::connect(child.addr())).collect();
    eventually(|| client.get("/errors").text().contains("accept failed"));
    does_not_spin(&child, "no descriptor to be had");
    let errors = client.get("/errors");
    // Reported once for each thread, and again if a descriptor was free in between; not twenty times a second.
    let said = errors.text().matches("accept failed").count();
    assert!(said < 10, "{}", errors.text());
    client.request("POST", "/publish", &[], b"still here");
    assert_eq!(client.answer().status(), 204);
    let mut reader = reader.unwrap();
    while !String::from_utf8_lossy(&reader.chunk().unwrap()).contains("still here") {}

    client.request("POST", "/share", &[], b"x");
    assert_eq!(client.answer().status(), 204);
    // The clients that waited are served now.
    for mut waiting in waiting {
        assert_eq!(waiting.get("/plain").status(), 200);
    }
    drop((client, reader));
    is_well(&child, at_rest);
}

/// With address space for at most 61 stacks of 64 MiB; half as many where the allocator takes as much for each thread.
#[cfg(target_os = "linux")]
#[test]
fn without_threads_those_who_are_there_are_served() {
    let test = "without_threads_those_who_are_there_are_served";
    let Some(child) = Child::under("-v 4000000", test) else {
        let config = Config {
            thread_stack_bytes: 64 << 20,
            ..Config::default()
        };
        return serve_parent(config, site);
    };
    let at_rest = child.at_rest();
    let mut client = Client::in_a_request(child.addr());
    let silent: Vec<Client> = (0..100).map(|_| Client::connect(child.addr())).collect();
    eventually(|| child.threads() > at_rest.0 + 10);
    does_not_spin(&child, "no thread to be had");
    assert_eq!(client.get("/plain").status(), 200);
    assert!(child.threads() <= at_rest.0 + 61);
    // Where there is no thread, not even for a refusal, the connection is closed without a response.
    let mut refused = Client::connect(child.addr());
    refused.is_cut();
    drop(silent);
    eventually(|| {
        let mut client = Client::connect(child.addr());
        let asked = client.stream.write_all(b"GET /plain HTTP/1.0\r\n\r\n");
        let mut answer = Vec::new();
        asked
            .and_then(|()| client.stream.read_to_end(&mut answer))
            .is_ok()
            && answer.ends_with(b"plain")
    });
    drop(client);
    is_well(&child, at_rest);
}
