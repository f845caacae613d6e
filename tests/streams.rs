//! Event streams over real sockets: what comes, byte for byte, and how a stream ends.

mod support;

use std::io::{Read, Write};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::{Client, EventSource, PATIENCE, Random, TestServer, eventually, start};
use tiny_sse::{Config, Event, Hub, IntoResponse, Next, Request, Response, Server, Sse};

/// A server whose `/events` hands the other end of each stream to the test.
struct Streams {
    server: TestServer,
    senders: Receiver<Sender<Event>>,
}

impl Streams {
    fn start<R: IntoResponse + 'static>(
        config: Config,
        options: impl Fn(Sse) -> R + Send + Sync + 'static,
    ) -> Streams {
        let (new, senders) = mpsc::channel();
        let server = start(config, |server| {
            let events = move |_: &Request| {
                let (sender, receiver) = mpsc::channel();
                new.send(sender).unwrap();
                options(Sse::new(receiver))
            };
            let events = Arc::new(events);
            let get = Arc::clone(&events);
            server
                .get("/events", move |request| get(request))
                .post("/events", move |request| events(request))
                .get("/hello", |_| "hello\n")
        });
        Streams { server, senders }
    }

    fn plain() -> Streams {
        Streams::start(Config::default(), |sse| sse)
    }

    /// Sends the request and gives the client back with the other end.
    fn ask(&self, request: &str) -> (Client, Sender<Event>) {
        let mut client = self.connect();
        client.send(request);
        (client, self.senders.recv_timeout(PATIENCE).unwrap())
    }

    /// A stream whose head and first comment have been read.
    fn open(&self) -> (Client, Sender<Event>) {
        let (mut client, sender) = self.ask(GET);
        client.head();
        assert_eq!(client.chunk().unwrap(), b": connected\n");
        (client, sender)
    }
}

impl Deref for Streams {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}

const GET: &str = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";

/// The head of a stream, except for its Date.
const HEAD: &str = "HTTP/1.1 200 OK\r\n\
                    Content-Type: text/event-stream\r\n\
                    Cache-Control: no-cache, no-transform\r\n\
                    X-Accel-Buffering: no\r\n\
                    Connection: keep-alive\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";

/// Returns what one read brings, without the Date line.
fn first_piece(client: &mut Client) -> String {
    let piece = String::from_utf8(client.piece()).unwrap();
    let lines = piece.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("Date: ")).collect()
}

#[test]
fn head_and_first_comment_arrive_in_one_piece() {
    let streams = Streams::plain();
    for _ in 0..20 {
        let (mut client, _sender) = streams.ask(GET);
        assert_eq!(
            first_piece(&mut client),
            format!("{HEAD}c\r\n: connected\n\r\n")
        );
    }
}

#[test]
fn what_is_known_beforehand_goes_with_the_head() {
    let streams = Streams::start(Config::default(), |sse| {
        sse.retry(Duration::from_millis(1500))
            .first([Event::data("one"), Event::data("two")])
            .first([Event::data("three")])
            .last(Event::data("bye"))
            .with_header("X-Robots-Tag", "none")
            .with_header("Vary", "Origin")
    });
    let (mut client, sender) = streams.ask(GET);
    let head = HEAD.replace(
        "Connection:",
        "X-Robots-Tag: none\r\nVary: Origin\r\nConnection:",
    );
    assert_eq!(
        first_piece(&mut client),
        format!(
            "{head}c\r\n: connected\n\r\n\
             c\r\nretry: 1500\n\r\n\
             b\r\ndata: one\n\n\r\n\
             b\r\ndata: two\n\n\r\n\
             d\r\ndata: three\n\n\r\n"
        )
    );
    sender.send(Event::data("live")).unwrap();
    drop(sender);
    let rest = "c\r\ndata: live\n\n\r\n\
                b\r\ndata: bye\n\n\r\n\
                0\r\n\r\n";
    assert_eq!(client.exactly(rest.len()), rest.as_bytes());
}

#[test]
fn fields_that_are_the_streams_own_are_refused() {
    let check = |name: &str, value: &str, status: u16| {
        let (_, receiver) = mpsc::channel();
        let response = Response::from(Sse::new(receiver).with_header(name, value));
        assert_eq!(response.status(), status, "{name}");
    };
    check("X-A", "b", 200); // Any other field is set.
    check("content-type", "text/plain", 500); // The client would not read an event stream.
    check("Cache-Control", "public", 500); // A proxy would store the stream.
    check("X-Accel-Buffering", "yes", 500); // A proxy would buffer the stream.
    check("Content-Length", "1", 500); // A second framing.
    check("X-A", "a\r\nb", 500); // A second field.
}

#[test]
fn each_event_is_one_chunk() {
    let streams = Streams::plain();
    let (mut client, sender) = streams.open();
    let large = "x".repeat(100_000);
    let rows = [
        (Event::data("a"), "data: a\n\n"),
        (Event::data(""), "data: \n\n"), // Empty data is still an event.
        (
            Event::data("a\r\nb\rc\n"),
            "data: a\ndata: b\ndata: c\ndata: \n\n",
        ), // Every line break is one.
        (Event::data("é😀"), "data: é😀\n\n"), // The size counts bytes.
        (
            Event::data("x").event("e").unwrap(),
            "data: x\nevent: e\n\n",
        ),
        (Event::data("x").id("1").unwrap(), "id: 1\ndata: x\n\n"),
        (Event::data(large.clone()), &format!("data: {large}\n\n")), // Larger than one write of waiting events.
    ];
    for (event, _) in &rows {
        sender.send(event.clone()).unwrap();
    }
    drop(sender);
    for (_, expected) in &rows {
        let chunk = String::from_utf8(client.chunk().unwrap()).unwrap();
        assert_eq!(chunk, *expected);
    }
    assert_eq!(client.chunk(), None);
}

#[test]
fn http_1_0_gets_the_same_stream_bare() {
    let streams = Streams::start(Config::default(), |sse| {
        sse.retry(Duration::from_secs(1)).last(Event::data("bye"))
    });
    let (mut client, sender) =
        streams.ask("GET /events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = HEAD
        .replace("Connection: keep-alive", "Connection: close")
        .replace("Transfer-Encoding: chunked\r\n", "");
    assert_eq!(
        first_piece(&mut client),
        format!("{head}: connected\nretry: 1000\n")
    );
    sender.send(Event::data("a\nb")).unwrap();
    drop(sender);
    assert_eq!(client.rest(), b"data: a\ndata: b\n\ndata: bye\n\n");
}

#[test]
fn a_stream_for_a_client_that_wants_no_more_says_so_too() {
    let streams = Streams::plain();
    let (mut client, sender) =
        streams.ask("GET /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let head = HEAD.replace("Connection: keep-alive", "Connection: close");
    assert_eq!(client.head().without_date(), head);
    assert_eq!(client.chunk().unwrap(), b": connected\n");
    drop(sender);
    assert_eq!(client.rest(), b"0\r\n\r\n");
}

#[test]
fn a_post_is_answered_with_a_stream_as_well() {
    let server = start(Config::default(), |server| {
        server.post("/ask", |request: &Request| {
            let question = String::from_utf8_lossy(request.body()).into_owned();
            Sse::spawn(move |events| {
                for word in question.split(' ') {
                    events.send(Event::data(word)).unwrap();
                }
            })
        })
    });
    let mut client = server.connect();
    client.request("POST", "/ask", &[], b"what is it");
    let mut answer = EventSource::answer(client);
    for word in ["what", "is", "it"] {
        assert_eq!(answer.data(), word);
    }
    assert_eq!(answer.next(), None);
}

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";

/// RFC 9112 section 9.3: the head says `keep-alive`, so the connection stays.
#[test]
fn a_stream_that_ends_leaves_its_connection_to_the_next_request() {
    let streams = Streams::plain();
    // Requests that are pipelined after the request for the stream, in the same packet.
    let (mut client, sender) = streams.ask(&format!("{HELLO}{GET}{HELLO}{HELLO}"));
    assert_eq!(client.answer().text(), "hello\n");
    sender.send(Event::data("a")).unwrap();
    drop(sender);
    assert_eq!(client.head().without_date(), HEAD);
    for expected in [": connected\n", "data: a\n\n"] {
        assert_eq!(client.chunk().unwrap(), expected.as_bytes());
    }
    assert_eq!(client.chunk(), None);
    for _ in 0..2 {
        assert_eq!(client.answer().text(), "hello\n");
    }
    // Requests that are sent while the stream is open, whole and in pieces.
    for size in [HELLO.len(), 7, 1] {
        client.send(GET);
        let sender = streams.senders.recv_timeout(PATIENCE).unwrap();
        client.head();
        for piece in HELLO.as_bytes().chunks(size) {
            client.send(piece);
        }
        sender.send(Event::data("a")).unwrap();
        drop(sender);
        while client.chunk().is_some() {}
        assert_eq!(client.answer().text(), "hello\n", "in pieces of {size}");
    }
    // One stream after the other, without a request between.
    for _ in 0..10 {
        client.send(GET);
        drop(streams.senders.recv_timeout(PATIENCE).unwrap());
        client.head();
        while client.chunk().is_some() {}
    }
    assert_eq!(client.get("/hello").text(), "hello\n");
}

/// More requests than the server's read buffer holds are answered in order, however many of the responses are streams.
#[test]
fn requests_that_are_pipelined_during_a_stream_outlive_the_next_one() {
    let (new, senders) = mpsc::channel();
    let server = start(Config::default(), |server| {
        server
            .get("/one", move |_| {
                let (sender, receiver) = mpsc::channel();
                new.send(sender).unwrap();
                Sse::new(receiver).heartbeat(Duration::ZERO)
            })
            .get("/{n}", |request: &Request| {
                Sse::new(mpsc::channel().1).last(Event::data(request.param("n")))
            })
    });
    let mut client = server.connect();
    client.request("GET", "/one", &[], b"");
    let sender: Sender<Event> = senders.recv_timeout(PATIENCE).unwrap();
    client.head();
    const REQUESTS: usize = 500; // Some 16 KB, where the buffer holds 4.
    for n in 0..REQUESTS {
        client.request("GET", &format!("/{n}"), &[], b"");
    }
    // The server reads what has come at its checks, and some of them lie between so many heartbeats.
    for _ in 0..200 {
        client.chunk().unwrap();
    }
    drop(sender);
    while client.chunk().is_some() {}
    for n in 0..REQUESTS {
        let expected = format!(": connected\ndata: {n}\n\n");
        assert_eq!(client.answer().text(), expected);
    }
}

/// A body that is pipelined during a stream is larger than any buffer of the server.
#[test]
fn a_request_with_a_body_may_come_while_a_stream_is_open() {
    let (new, senders) = mpsc::channel();
    let server = start(Config::default(), |server| {
        server
            .get("/one", move |_| {
                let (sender, receiver) = mpsc::channel();
                new.send(sender).unwrap();
                Sse::new(receiver)
            })
            .post("/size", |request: &Request| {
                request.body().len().to_string()
            })
    });
    for size in [0, 1, 60_000] {
        let mut client = server.connect();
        client.request("GET", "/one", &[], b"");
        client.request("POST", "/size", &[], &vec![b'x'; size]);
        let sender: Sender<Event> = senders.recv_timeout(PATIENCE).unwrap();
        sender.send(Event::data("a")).unwrap();
        drop(sender);
        assert_eq!(client.answer().text(), ": connected\ndata: a\n\n");
        assert_eq!(client.answer().text(), size.to_string());
        assert_eq!(client.answer_after("POST", "/size", b"again").text(), "5");
    }
}

/// Where the connection ends, the head says so from the beginning (RFC 9112 section 9.6).
#[test]
fn a_stream_that_ends_its_connection_says_close() {
    let hub = Hub::new();
    let readers = hub.clone();
    let server = start(Config::default(), |server| {
        server
            .get("/hub", move |request: &Request| {
                readers.subscribe(request, "topic")
            })
            .get("/one", |_| Sse::spawn(|_| ()))
    });
    let check = |request: &str, expected: &str| {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(
            client.head().field("connection"),
            Some(expected),
            "{request}"
        );
    };
    check("GET /one HTTP/1.1\r\nHost: a\r\n\r\n", "keep-alive"); // Chunked, and ends by itself.
    check(
        "GET /one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "close",
    ); // The client asks for it.
    check(
        "GET /one HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "close",
    ); // Close-delimited.
    check("GET /hub HTTP/1.1\r\nHost: a\r\n\r\n", "close"); // It may be left to a writer thread.
    check("HEAD /hub HTTP/1.1\r\nHost: a\r\n\r\n", "close"); // The same head (RFC 9110 section 9.3.2).
    check("HEAD /one HTTP/1.1\r\nHost: a\r\n\r\n", "keep-alive");
}

#[test]
fn head_and_refused_requests_start_no_producer() {
    let started = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&started);
    let server = start(Config::default(), |server| {
        server
            .get("/events", move |_| {
                let counter = Arc::clone(&counter);
                Sse::spawn(move |_events| {
                    counter.fetch_add(1, Ordering::SeqCst);
                })
            })
            .get("/hello", |_| "hello\n")
            .middleware(|request: &Request, next: Next<'_>| {
                let response = next.run(request);
                match request.query("refuse") {
                    // The handler has already returned its stream.
                    Some(_) => Response::new(403),
                    None => response,
                }
            })
    });
    let mut client = server.connect();
    client.request("HEAD", "/events", &[], b"");
    assert_eq!(client.head().without_date(), HEAD);
    assert_eq!(client.get("/events?refuse").status(), 403);
    client.request("POST", "/events", &[], b"");
    assert_eq!(client.answer().status(), 405);
    assert_eq!(client.get("/hello").text(), "hello\n");
    // A producer that does run. An earlier one would have run before it.
    let answer = client.get("/events");
    assert_eq!(answer.body, b": connected\n");
    eventually(|| started.load(Ordering::SeqCst) > 0);
    assert_eq!(started.load(Ordering::SeqCst), 1);
}

#[test]
fn a_head_request_lets_the_producer_go() {
    let streams = Streams::plain();
    let (mut client, sender) = streams.ask(&GET.replace("GET", "HEAD"));
    assert_eq!(client.head().without_date(), HEAD);
    eventually(|| sender.send(Event::data("a")).is_err());
}

#[test]
fn middleware_sees_a_stream_before_it_begins() {
    let server = start(Config::default(), |server| {
        server
            .get("/events", |_| {
                Sse::spawn(|events| events.send(Event::data("a")).unwrap())
            })
            .middleware(|request: &Request, next: Next<'_>| {
                let response = next.run(request);
                let kind = response.header("content-type").unwrap().to_string();
                response
                    .with_header("Access-Control-Allow-Origin", "*")
                    .with_header("X-Kind", kind)
            })
    });
    let mut stream = EventSource::open(server.addr(), "/events", &[]);
    assert_eq!(stream.head.field("access-control-allow-origin"), Some("*"));
    assert_eq!(stream.head.field("x-kind"), Some("text/event-stream"));
    assert_eq!(stream.data(), "a");
    assert_eq!(stream.next(), None);
}

#[test]
fn a_silent_stream_has_heartbeats() {
    const OFTEN: Duration = Duration::from_millis(20);
    let often = Config {
        heartbeat: OFTEN,
        ..Config::default()
    };
    let check = |config: &Config, interval: Option<Duration>| {
        let streams = Streams::start(config.clone(), move |sse| match interval {
            Some(interval) => sse.heartbeat(interval),
            None => sse,
        });
        let (mut client, sender) = streams.open();
        for _ in 0..3 {
            let chunk = String::from_utf8(client.chunk().unwrap()).unwrap();
            assert_eq!(chunk, ": heartbeat\n");
        }
        sender.send(Event::data("a")).unwrap();
        drop(sender);
        let mut last = None;
        while let Some(chunk) = client.chunk() {
            last = Some(chunk);
        }
        assert_eq!(last.unwrap(), b"data: a\n\n");
    };
    let default = Config::default();
    check(&often, None); // As the server's configuration says.
    check(&default, Some(OFTEN)); // As the stream says.
    check(&default, Some(Duration::ZERO)); // As often as can be, but with a pause.

    // No heartbeat, since the interval never ends.
    let streams = Streams::start(often, |sse| sse.heartbeat(Duration::MAX));
    let (mut client, sender) = streams.open();
    sender.send(Event::data("a")).unwrap();
    drop(sender);
    let rest = b"9\r\ndata: a\n\n\r\n0\r\n\r\n";
    assert_eq!(client.exactly(rest.len()), rest);
}

#[test]
fn an_http_1_0_stream_has_bare_heartbeats() {
    let often = Config {
        heartbeat: Duration::from_millis(20),
        ..Config::default()
    };
    let streams = Streams::start(often, |sse| sse);
    let (mut client, _sender) = streams.ask("GET /events HTTP/1.0\r\n\r\n");
    client.head();
    let expected = ": connected\n: heartbeat\n: heartbeat\n";
    assert_eq!(client.exactly(expected.len()), expected.as_bytes());
}

#[test]
fn everything_that_waits_goes_out() {
    const EVENTS: usize = 20_000;
    let server = start(Config::default(), |server| {
        server.get("/events", |_| {
            let (sender, receiver) = mpsc::channel();
            for number in 0..EVENTS {
                sender.send(Event::data(number.to_string())).unwrap();
            }
            Sse::new(receiver) // The sender is gone before the stream begins.
        })
    });
    let mut stream = EventSource::open(server.addr(), "/events", &[]);
    for number in 0..EVENTS {
        assert_eq!(stream.data(), number.to_string());
    }
    assert_eq!(stream.next(), None);
}

/// A client that has read the head misses no later event: it is subscribed before the head is written.
#[test]
fn after_the_head_no_event_is_missed() {
    let senders: Arc<Mutex<Vec<Sender<Event>>>> = Arc::default();
    let hub = Hub::new();
    let (readers, subscribers) = (Arc::clone(&senders), hub.clone());
    let server = start(Config::default(), |server| {
        server
            .get("/channel", move |_| {
                let (sender, receiver) = mpsc::channel();
                readers.lock().unwrap().push(sender);
                Sse::new(receiver)
            })
            .get("/hub", move |request: &Request| {
                subscribers.subscribe(request, "topic")
            })
    });
    for round in 0..200 {
        let text = round.to_string();
        let mut stream = EventSource::open(server.addr(), "/channel", &[]);
        senders
            .lock()
            .unwrap()
            .retain(|sender| sender.send(Event::data(text.clone())).is_ok());
        assert_eq!(stream.data(), text);

        let mut stream = EventSource::open(server.addr(), "/hub", &[]);
        hub.publish("topic", Event::data(text.clone())).unwrap();
        assert_eq!(stream.data(), text);
    }
}

/// Room for one connection, so that another client is served only when the stream has ended.
fn room_for_one() -> Config {
    Config {
        max_connections: 1,
        ..Config::default()
    }
}

fn until_there_is_room(server: &TestServer) {
    eventually(|| server.connect().get("/hello").status() == 200);
}

#[test]
fn a_client_that_leaves_is_noticed_without_any_event() {
    let streams = Streams::start(room_for_one(), |sse| sse);
    let (client, sender) = streams.open();
    drop(client);
    until_there_is_room(&streams);
    assert!(
        sender.send(Event::data("a")).is_err(),
        "the first send that comes too late"
    );
}

/// If the first check were as late as the later ones, each of these visitors would hold its thread for a second.
#[test]
fn visitors_who_leave_at_once_are_noticed_at_the_first_check() {
    let guard = Arc::new(());
    let guarded = Arc::clone(&guard);
    let streams = Streams::start(Config::default(), move |sse| {
        sse.guard(Arc::clone(&guarded))
    });
    let give_up = Instant::now() + PATIENCE;
    let rest = Arc::strong_count(&guard);
    for _ in 0..100 {
        let (client, _sender) = streams.open();
        drop(client);
        eventually(|| Arc::strong_count(&guard) == rest);
        assert!(Instant::now() < give_up, "a second for each of them");
    }
}

#[test]
fn a_client_that_closes_its_side_of_a_stream_has_left() {
    let streams = Streams::start(room_for_one(), |sse| sse);
    let (mut client, sender) = streams.open();
    client.half_close();
    client.is_cut();
    until_there_is_room(&streams);
    assert!(sender.send(Event::data("a")).is_err());
}

#[test]
fn a_client_that_leaves_a_busy_stream_is_noticed() {
    let (ended, end) = mpsc::channel();
    let server = start(Config::default(), |server| {
        server.get("/busy", move |_| {
            let ended = ended.clone();
            Sse::spawn(move |events| {
                while events.send(Event::data("again")).is_ok() {}
                ended.send(()).unwrap();
            })
        })
    });
    // A client that has read everything, and a client whose socket is full.
    for events in [1000, 0] {
        let mut stream = EventSource::open(server.addr(), "/busy", &[]);
        for _ in 0..events {
            assert_eq!(stream.data(), "again");
        }
        drop(stream);
        end.recv_timeout(PATIENCE).unwrap();
    }
    // A client that shuts down its writing side and goes on reading.
    let mut stream = EventSource::open(server.addr(), "/busy", &[]);
    stream.client.half_close();
    stream.client.is_cut();
    end.recv_timeout(PATIENCE).unwrap();
}

/// With unread bytes the close would be a reset, which destroys what the client has not read yet.
#[test]
fn the_last_chunk_arrives_although_the_client_has_sent_something() {
    let streams = Streams::plain();
    for size in [1, 1000, 65536] {
        for _ in 0..20 {
            let (mut client, sender) =
                streams.ask(&GET.replace("Host", "Connection: close\r\nHost"));
            client.head();
            client.chunk();
            client.send(vec![b'x'; size]);
            sender.send(Event::data("a")).unwrap();
            drop(sender);
            assert_eq!(client.chunk().unwrap(), b"data: a\n\n");
            assert_eq!(client.chunk(), None);
            client.ends();
        }
    }
}

#[test]
fn a_client_that_sends_a_lot_on_its_stream_loses_it() {
    let streams = Streams::plain();
    let (mut much, to_much) = streams.open();
    let (mut enough, to_enough) = streams.open();
    much.send(vec![b'x'; 65537]);
    enough.send(vec![b'x'; 65536]);
    much.is_cut();
    eventually(|| to_much.send(Event::data("a")).is_err());
    to_enough.send(Event::data("a")).unwrap();
    drop(to_enough);
    assert_eq!(enough.chunk().unwrap(), b"data: a\n\n");
    assert_eq!(enough.chunk(), None);
}

/// The socket is full most of the time. After a partial write, an event goes on at the right byte.
#[test]
fn a_slow_reader_gets_everything_in_order() {
    const EVENTS: usize = 300;
    let config = Config {
        heartbeat: Duration::from_millis(5),
        ..Config::default()
    };
    let server = start(config, |server| {
        server.get("/events", |_| {
            Sse::spawn(|events| {
                let mut random = Random::new(42);
                for number in 0..EVENTS {
                    let padding = "x".repeat(random.below(200_000));
                    let event = Event::data(format!("{number} {padding}"));
                    events.send(event).unwrap();
                }
            })
        })
    });
    for request in [GET, "GET /events HTTP/1.0\r\n\r\n"] {
        let mut client = server.connect();
        client.send(request);
        let mut stream = EventSource::answer(client);
        let mut random = Random::new(42);
        for number in 0..EVENTS {
            let padding = random.below(200_000);
            let data = stream.data();
            let (found, rest) = data.split_once(' ').unwrap();
            assert_eq!((found, rest.len()), (&*number.to_string(), padding));
            if number % 10 == 0 {
                thread::sleep(Duration::from_millis(15)); // What makes it slow.
            }
        }
        assert_eq!(stream.next(), None);
    }
}

/// A stream of events of this size, and a receiver that gets a message when the producer has ended.
fn flood(config: Config, bytes: usize) -> (TestServer, Receiver<()>) {
    let (ended, end) = mpsc::channel();
    let server = start(config, |server| {
        server.get("/flood", move |_| {
            let ended = ended.clone();
            Sse::spawn(move |events: SyncSender<Event>| {
                while events.send(Event::data("x".repeat(bytes))).is_ok() {}
                ended.send(()).unwrap();
            })
        })
    });
    (server, end)
}

#[test]
fn a_reader_that_takes_nothing_is_dropped_after_the_write_time_out() {
    let config = Config {
        write_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let (server, end) = flood(config, 1000);
    let mut stream = EventSource::open(server.addr(), "/flood", &[]);
    end.recv_timeout(PATIENCE).unwrap();
    // An event was written in part, so that no last chunk may follow.
    while let Ok(message) = stream.try_next() {
        assert!(message.is_some(), "a last chunk behind a torn event");
    }
}

#[test]
fn a_reader_that_takes_too_little_is_dropped() {
    let config = Config {
        write_timeout: Duration::from_millis(200),
        min_bytes_per_second: 1 << 40,
        ..Config::default()
    };
    let (server, end) = flood(config, 20 << 20);
    let stream = EventSource::open(server.addr(), "/flood", &[]);
    // The client reads a little all the time, so that the write time-out alone does not end it.
    let mut piece = [0; 65536];
    while end.try_recv().is_err() {
        let _ = (&stream.client.stream).read(&mut piece);
        thread::sleep(Duration::from_millis(10)); // What makes it slow.
    }
}

#[test]
fn a_reader_that_keeps_up_now_and_then_stays() {
    let config = Config {
        write_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    let (server, end) = flood(config, 200_000);
    let mut stream = EventSource::open(server.addr(), "/flood", &[]);
    for _ in 0..200 {
        assert_eq!(stream.data().len(), 200_000);
        thread::sleep(Duration::from_millis(15)); // What makes it slow.
    }
    assert!(end.try_recv().is_err());
    drop(stream);
    end.recv_timeout(PATIENCE).unwrap();
}

/// The client can tell that more would have come: there is no last chunk, and no last event.
#[test]
fn a_stream_whose_time_has_come_does_not_look_whole() {
    let config = Config {
        max_stream_lifetime: Some(Duration::from_millis(50)),
        reconnect_spread: Duration::from_secs(2),
        ..Config::default()
    };
    let streams = Streams::start(config, |sse| sse.last(Event::data("bye")));
    let (mut client, sender) = streams.open();
    let mut bare = streams.connect();
    bare.send("GET /events HTTP/1.0\r\n\r\n");
    bare.head();

    let check = |text: &[u8]| {
        // Without a blank line, at which some clients would dispatch a message without data.
        let text = std::str::from_utf8(text).unwrap();
        let retry = text
            .strip_prefix("retry: ")
            .and_then(|rest| rest.strip_suffix("\n"))
            .expect("a retry alone");
        assert!((500..2500).contains(&retry.parse().unwrap()), "{retry}");
    };
    check(&client.chunk().unwrap());
    client.ends();
    check(bare.rest().strip_prefix(b": connected\n").unwrap());
    eventually(|| sender.send(Event::data("a")).is_err());
}

/// A producer that computes and sends nothing learns that its client has left.
#[test]
fn what_a_stream_guards_is_dropped_when_the_client_has_left() {
    let (ended, end) = mpsc::channel();
    let server = start(Config::default(), |server| {
        server.get("/compute", move |_| {
            let ended = ended.clone();
            let (is_open, client) = mpsc::channel::<()>();
            let compute = move |_events| {
                ended.send(client.recv_timeout(PATIENCE)).unwrap();
            };
            Sse::spawn(compute).guard(is_open)
        })
    });
    let stream = EventSource::open(server.addr(), "/compute", &[]);
    drop(stream);
    let left = Err(mpsc::RecvTimeoutError::Disconnected);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(left));
}

/// A guarded value is dropped before the next request on the connection.
#[test]
fn what_a_stream_guards_is_dropped_at_its_end() {
    let guarded = Arc::new(());
    let held = Arc::clone(&guarded);
    let server = start(Config::default(), |server| {
        let count = Arc::clone(&held);
        server
            .get("/one", move |_| Sse::spawn(|_| ()).guard(Arc::clone(&held)))
            .get("/count", move |_| Arc::strong_count(&count).to_string())
    });
    let mut client = server.connect();
    let before = client.get("/count").text().to_string();
    client.get("/one");
    client.request("HEAD", "/one", &[], b"");
    client.head();
    assert_eq!(client.get("/count").text(), before);
}

#[test]
fn a_lifetime_that_no_clock_can_hold_is_none() {
    let config = Config {
        max_stream_lifetime: Some(Duration::MAX),
        heartbeat: Duration::MAX,
        head_timeout: Duration::MAX,
        body_timeout: Duration::MAX,
        idle_timeout: Duration::MAX,
        write_timeout: Duration::MAX,
        reconnect_spread: Duration::MAX,
        ..Config::default()
    };
    let streams = Streams::start(config, |sse| sse);
    let (mut client, sender) =
        streams.ask("POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    client.head();
    sender.send(Event::data("a")).unwrap();
    drop(sender);
    assert_eq!(client.chunk().unwrap(), b": connected\n");
    assert_eq!(client.chunk().unwrap(), b"data: a\n\n");
    assert_eq!(client.chunk(), None);
}

/// The stream begins with the last byte of its request.
#[test]
fn a_request_in_pieces_gets_the_same_stream() {
    let streams = Streams::plain();
    let mut client = streams.connect();
    for byte in GET.as_bytes() {
        client.stream.write_all(&[*byte]).unwrap();
    }
    let sender = streams.senders.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.head().without_date(), HEAD);
    sender.send(Event::data("a")).unwrap();
    assert_eq!(client.chunk().unwrap(), b": connected\n");
    assert_eq!(client.chunk().unwrap(), b"data: a\n\n");
}

/// A page gets the data that was sent, whatever characters it has.
#[test]
fn what_is_sent_is_what_a_page_gets() {
    let streams = Streams::plain();
    let (client, sender) = streams.ask(GET);
    let mut stream = EventSource::answer(client);
    let mut random = Random::new(7);
    let alphabet = [
        "a", " ", ":", "data: ", "\r", "\n", "\r\n", "\0", "é", "\u{feff}", "😀",
    ];
    for _ in 0..500 {
        let text: String = (0..random.below(12))
            .map(|_| *random.pick(&alphabet))
            .collect();
        sender.send(Event::data(text.clone())).unwrap();
        // Line breaks are normalised (WHATWG, event stream interpretation).
        assert_eq!(
            stream.data(),
            text.replace("\r\n", "\n").replace('\r', "\n")
        );
    }
}

/// A stream in a `Result` is a stream, and an error in its place is a response.
#[test]
fn a_handler_may_fail_or_refuse_before_its_stream() {
    fn count(number: u32) -> Sse {
        Sse::spawn(move |events| events.send(Event::data(number.to_string())).unwrap())
    }
    let build = |server: Server| {
        server
            .get("/events/{number}", |request: &Request| {
                Ok(count(request.param("number").parse()?))
            })
            .get("/few/{number}", |request: &Request| {
                let number = request.param("number").parse();
                Ok(count(number.map_err(|_| Response::new(404))?))
            })
    };
    let server = start(Config::default(), build);
    let mut stream = EventSource::open(server.addr(), "/events/7", &[]);
    assert_eq!(stream.data(), "7");
    let mut stream = EventSource::open(server.addr(), "/few/7", &[]);
    assert_eq!(stream.data(), "7");
    assert_eq!(server.connect().get("/few/x").status(), 404);
    let answer = server.connect().get("/events/x");
    assert_eq!(
        (answer.status(), answer.text()),
        (400, "invalid digit found in string\n")
    ); // What the client sent could not be read.
}
