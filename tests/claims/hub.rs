// The claims of `tests/hub.rs`, for a number of writer threads.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Child, Client, EventSource, TestServer, eventually, serve_parent, start};
use tiny_sse::{
    Config, Event, Hub, HubConfig, HubReceiver, Lag, OpeningId, PublishError, Replay,
    Request, Response, Server, Sse, StreamEnd,
};

/// A server whose `/events?topic=a&topic=b` subscribes to what it is asked for.
fn serve(hub: &Hub) -> TestServer {
    start(Config::default(), routes(hub))
}

fn routes(hub: &Hub) -> impl FnOnce(Server) -> Server + use<> {
    let hub = hub.clone();
    move |server| {
        server.get("/events", move |request: &Request| {
            let topics: Vec<&str> = request.queries("topic").collect();
            hub.subscribe(request, topics)
                .label(request.query("label").unwrap_or_default())
        })
    }
}

/// The default limits of a hub, with the number of writer threads that the claims are tested for.
fn limits() -> HubConfig {
    HubConfig {
        writer_threads: WRITER_THREADS,
        ..HubConfig::default()
    }
}

fn hub_of(config: HubConfig) -> Hub {
    Hub::open(HubConfig {
        writer_threads: WRITER_THREADS,
        ..config
    })
    .unwrap()
}

fn resume(addr: SocketAddr, target: &str, id: &str) -> EventSource {
    EventSource::open(addr, target, &[("Last-Event-ID", id)])
}

fn say(hub: &Hub, topic: &str, text: &str) -> String {
    hub.publish_wait(topic, Event::data(text))
        .unwrap()
        .to_string()
}

#[test]
fn the_bytes_are_as_written_down() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    let mut client = server.connect();
    client.request("GET", "/events?topic=a", &[], b"");
    let head = client.head();
    assert_eq!(
        head.without_date(),
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n\
         X-Accel-Buffering: no\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    assert_eq!(client.chunk().unwrap(), b": connected\n");
    // A block of `id` alone dispatches nothing and sets the last event id.
    let id = String::from_utf8(client.chunk().unwrap()).unwrap();
    let epoch = id
        .strip_prefix("id: ")
        .unwrap()
        .strip_suffix("-0\n\n")
        .unwrap();
    assert!(epoch.len() == 16 && epoch.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let first = say(&hub, "a", "one\ntwo");
    assert_eq!(first, format!("{epoch}-1"));
    let chunk = String::from_utf8(client.chunk().unwrap()).unwrap();
    assert_eq!(chunk, format!("id: {first}\ndata: one\ndata: two\n\n"));
}

#[test]
fn a_handler_refuses_with_what_the_hub_says() {
    let hub = Hub::open(HubConfig {
        max_event_bytes: 40,
        ..limits()
    });
    let hub = hub.unwrap();
    let server = start(Config::default(), |server| {
        server.post("/events", move |request: &Request| {
            let mut event = Event::data(String::from_utf8_lossy(request.body()));
            if let Some(name) = request.query("event") {
                event = event.event(name)?;
            }
            if let Some(id) = request.query("id") {
                event = event.id(id)?;
            }
            hub.publish(request.query("topic").unwrap_or_default(), event)?;
            Ok::<_, Response>(Response::new(204))
        })
    });
    let check = |target: &str, body: &str, status: u16, text: &str| {
        let mut client = server.connect();
        client.request("POST", target, &[], body.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text()), (status, text), "{target}");
    };
    check("/events?topic=a&event=e&id=1", "x", 204, ""); // A valid event.
    check("/events", "x", 400, "topic name cannot be empty\n"); // The query has no topic.
    check(
        "/events?topic=a&event=%0A",
        "x",
        400,
        "event field cannot contain '\\n'\n",
    ); // A forged field.
    check(
        "/events?topic=a&id=latest",
        "x",
        400,
        "event id \"latest\" is reserved for the hub\n",
    ); // An id that would mean something else.
    check(
        "/events?topic=a",
        &"x".repeat(40),
        413,
        "event of 48 bytes is larger than 40\n",
    ); // `data: `, and two line feeds.
    assert_eq!(server.errors(), [""; 0]);

    // The hub's own failures are not the client's.
    let full = Response::from(PublishError::Full);
    assert_eq!(
        (full.status(), full.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(Response::from(PublishError::Closed).status(), 503);
    let storage = PublishError::Storage {
        kind: std::io::ErrorKind::StorageFull,
        text: "no space left".to_string(),
    };
    assert_eq!(Response::from(storage).status(), 500);
}

#[test]
fn an_event_of_several_topics_comes_once_to_a_reader_of_both() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    let mut both = EventSource::open(server.addr(), "/events?topic=a&topic=b", &[]);
    let mut other = EventSource::open(server.addr(), "/events?topic=c", &[]);
    hub.publish(["a", "b"], Event::data("1")).unwrap();
    hub.publish("b", Event::data("2")).unwrap();
    hub.publish(vec!["c", "c"], Event::data("3")).unwrap();
    hub.publish(["a", "c"], Event::data("4")).unwrap();
    assert_eq!([both.data(), both.data(), both.data()], ["1", "2", "4"]);
    assert_eq!([other.data(), other.data()], ["3", "4"]);
}

#[test]
fn a_client_goes_on_where_it_was() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    let target = "/events?topic=a&topic=b";
    // A client that is cut off before its first event knows its position too.
    let mut early = EventSource::open(server.addr(), target, &[]);
    say(&hub, "a", "1");
    early.next().unwrap();
    let begin = early.last_event_id.replace("-1", "-0");
    drop(early);
    let second = say(&hub, "b", "2");
    say(&hub, "a", "3");
    say(&hub, "elsewhere", "x");
    let all = |mut stream: EventSource, n: usize| -> Vec<String> {
        (0..n).map(|_| stream.data()).collect()
    };
    assert_eq!(
        all(resume(server.addr(), target, &begin), 3),
        ["1", "2", "3"]
    );
    assert_eq!(all(resume(server.addr(), target, &second), 1), ["3"]);
    // An EventSource reconnects with both: the header takes precedence, and an empty one does not count.
    let query = format!("{target}&last_event_id={begin}");
    assert_eq!(all(resume(server.addr(), &query, &second), 1), ["3"]);
    assert_eq!(all(resume(server.addr(), &query, ""), 3), ["1", "2", "3"]);
    // The two reserved words.
    assert_eq!(
        all(resume(server.addr(), target, "earliest"), 3),
        ["1", "2", "3"]
    );
    let mut latest = resume(server.addr(), target, "latest");
    say(&hub, "a", "4");
    assert_eq!(latest.data(), "4");
}

#[test]
fn ids_of_the_caller_are_carried_and_resume() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    for id in ["row 1", "Zeile 2 é", "row 3", "row 1"] {
        hub.publish_wait("a", Event::data(id).id(id).unwrap())
            .unwrap();
    }
    let mut stream = resume(server.addr(), "/events?topic=a", "Zeile 2 é");
    let third = stream.next().unwrap();
    assert_eq!((&*third.data, &*third.id), ("row 3", "row 3"));
    assert_eq!(stream.data(), "row 1");
    // The same id twice: the oldest counts, so that nothing is missed.
    let mut stream = resume(server.addr(), "/events?topic=a", "row 1");
    assert_eq!(stream.data(), "Zeile 2 é");
}

#[test]
fn what_is_not_known_is_a_gap() {
    let hub = hub_of(HubConfig { history_events: 2, ..HubConfig::default() });
    let server = serve(&hub);
    let first = say(&hub, "a", "1");
    let epoch = first.strip_suffix("-1").unwrap().to_string();
    for text in ["2", "3", "4"] {
        say(&hub, "a", text);
    }
    say(&hub, "quiet", "5");
    let check = |topic: &str, id: &str, gap: Option<(&str, &str)>, rest: &[&str]| {
        let mut stream = resume(server.addr(), &format!("/events?topic={topic}"), id);
        if let Some((data, rebased)) = gap {
            let message = stream.next().unwrap();
            assert_eq!(message.event, "gap", "{id}");
            assert_eq!(message.data, data.replace('@', &epoch), "{id}");
            assert_eq!(message.id, rebased.replace('@', &epoch), "{id}");
        }
        for text in rest {
            assert_eq!(stream.data(), *text, "{id}");
        }
    };
    let told = Some((r#"{"from":"@-1","to":"@-2","lost":null}"#, "@-2"));
    check("a", &first, told, &["3", "4"]); // Evicted: the stream goes on from the oldest event that is kept.
    check("a", &format!("{epoch}-2"), None, &["3", "4"]); // The last event that was lost is the last one that the client has: nothing is missing.
    check("quiet", &first, None, &["5"]); // No event of the client's topics is lost.
    let unknown = Some((r#"{"from":"what?","to":"@-2","lost":null}"#, "@-2"));
    check("a", "what?", unknown, &["3", "4"]); // Not an id of the hub.
    let foreign = Some((
        r#"{"from":"0000000000000001-3","to":"@-2","lost":null}"#,
        "@-2",
    ));
    check("a", "0000000000000001-3", foreign, &["3", "4"]); // Another run of the server.
    let future = format!("{epoch}-99");
    let data = format!(r#"{{"from":"{future}","to":"@-2","lost":null}}"#);
    check("a", &future, Some((&data, "@-2")), &["3", "4"]); // A number that was never given out.
    let quoted = Some((r#"{"from":"a\"b\\c","to":"@-4","lost":null}"#, "@-4"));
    check("quiet", "a\"b\\c", quoted, &["5"]); // Text of the client stays text.
}

#[test]
fn a_history_of_none_tells_of_a_gap() {
    let hub = hub_of(HubConfig { history_events: 0, ..HubConfig::default() });
    let server = serve(&hub);
    let mut live = EventSource::open(server.addr(), "/events?topic=a", &[]);
    // Until it is live, an event that nobody keeps may be gone before it is sent.
    let all_live = |n| {
        let stats = hub.stats();
        stats.readers == n && stats.readers_behind == 0
    };
    eventually(|| all_live(1));
    let first = say(&hub, "a", "1");
    say(&hub, "a", "2");
    assert_eq!([live.data(), live.data()], ["1", "2"]);
    let mut back = resume(server.addr(), "/events?topic=a", &first);
    assert_eq!(back.next().unwrap().event, "gap");
    eventually(|| all_live(2));
    say(&hub, "a", "3");
    assert_eq!(back.data(), "3");
    // Events that are kept for connected readers are evicted when the readers leave.
    drop((live, back));
    eventually(|| hub.stats().history_events == 0);
}

#[test]
fn a_snapshot_continues_without_a_hole() {
    // All of it, so that a reader that waits for a processor is not told of a gap.
    let hub = hub_of(HubConfig { history_events: 2000, ..HubConfig::default() });
    let readers = hub.clone();
    let count = Arc::new(Mutex::new(0));
    let state = Arc::clone(&count);
    let server = start(Config::default(), move |server| {
        server.get("/count", move |request: &Request| {
            // First the subscription, then the state: a change in between comes twice, and is not lost.
            let stream = readers.subscribe(request, "count");
            let now = *state.lock().unwrap();
            stream.first([Event::data(format!("now {now}"))])
        })
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=2000 {
                *count.lock().unwrap() = number;
                hub.publish("count", Event::data(number.to_string()))
                    .unwrap();
            }
        });
        for _ in 0..8 {
            scope.spawn(|| {
                let mut stream = EventSource::open(server.addr(), "/count", &[]);
                let first = stream.data();
                let mut seen: u32 = first.strip_prefix("now ").unwrap().parse().unwrap();
                while seen < 2000 {
                    let next: u32 = stream.data().parse().unwrap();
                    assert!(next <= seen + 1, "{next} comes behind {seen}");
                    seen = seen.max(next);
                }
            });
        }
    });
}

#[test]
fn the_last_value_comes_to_those_who_are_new() {
    let hub = hub_of(HubConfig::default());
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/last", move |request: &Request| {
            readers.subscribe(request, ["a", "b"]).retained()
        })
    });
    say(&hub, "b", "b1");
    say(&hub, "a", "a1");
    let newest = say(&hub, "a", "a2");
    let mut stream = EventSource::open(server.addr(), "/last", &[]);
    assert_eq!([stream.data(), stream.data()], ["b1", "a2"]); // In order of sequence.
    say(&hub, "b", "b2");
    assert_eq!(stream.data(), "b2");
    // A client that resumes has them.
    let mut back = resume(server.addr(), "/last", &newest);
    assert_eq!(back.data(), "b2");
}

#[test]
fn readers_begin_where_the_code_says() {
    let hub = hub_of(HubConfig::default());
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/all", move |request: &Request| {
            readers
                .subscribe(request, "a")
                .earliest()
                .retry(Duration::from_millis(1234))
        })
    });
    say(&hub, "a", "1");
    let second = say(&hub, "a", "2");
    let mut stream = EventSource::open(server.addr(), "/all", &[]);
    assert_eq!([stream.data(), stream.data()], ["1", "2"]);
    assert_eq!(stream.retry, Some(1234));
    let mut back = resume(server.addr(), "/all", &second);
    say(&hub, "a", "3");
    assert_eq!(back.data(), "3");
}

#[test]
fn http_1_0_readers_get_the_same_bare() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    say(&hub, "a", "1");
    let mut client = server.connect();
    client.send("GET /events?topic=a&last_event_id=earliest HTTP/1.0\r\n\r\n");
    let mut stream = EventSource::answer(client);
    assert_eq!(stream.head.field("transfer-encoding"), None);
    assert_eq!(stream.data(), "1");
    for number in 2..100 {
        hub.publish("a", Event::data(number.to_string())).unwrap();
    }
    for number in 2..100 {
        assert_eq!(stream.data(), number.to_string());
    }
    server.shutdown(Duration::from_secs(60)).unwrap();
    assert_eq!(stream.next(), None);
    assert!(stream.retry.is_some());
}

#[test]
fn heartbeats_come_to_the_silent_and_only_to_them() {
    let hub = hub_of(HubConfig::default());
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events/{topic}", move |request: &Request| {
            readers
                .subscribe(request, [request.param("topic")])
                .heartbeat(Duration::from_millis(20))
        })
    });
    let mut silent = server.connect();
    silent.request("GET", "/events/silent", &[], b"");
    silent.head();
    let (stop, stopped) = mpsc::channel::<()>();
    let publisher = hub.clone();
    let busy = thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(1)) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            publisher.publish("busy", Event::data("x")).unwrap();
        }
    });
    let mut heartbeats = 0;
    while heartbeats < 5 {
        heartbeats += usize::from(silent.chunk().unwrap() == b": heartbeat\n");
    }
    drop(stop);
    busy.join().unwrap();
}

#[test]
fn a_reader_that_lags_is_disconnected_where_that_is_asked_for() {
    let hub = hub_of(HubConfig::default());
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events", move |request: &Request| {
            readers.subscribe(request, "a").lag(Lag::Disconnect)
        })
    });
    let mut stream = EventSource::open(server.addr(), "/events", &[]);
    eventually(|| hub.stats().readers_behind == 0);
    let text = "x".repeat(64 * 1024);
    eventually(|| {
        hub.publish_wait("a", Event::data(&text)).unwrap();
        hub.stats().dropped_lagging == 1
    });
    assert_eq!(hub.stats().readers, 0);
    while let Ok(Some(_)) = stream.try_next() {}
}

#[test]
fn one_that_takes_nothing_is_dropped_and_costs_the_others_nothing() {
    let hub = hub_of(HubConfig { history_events: 4, ..HubConfig::default() });
    let config = Config {
        write_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    let server = start(config, routes(&hub));
    let mut stuck = server.connect();
    stuck.request("GET", "/events?topic=a", &[], b"");
    let mut good = EventSource::open(server.addr(), "/events?topic=a", &[]);
    let text = "x".repeat(64 * 1024);
    eventually(|| {
        hub.publish("a", Event::data(&text)).unwrap();
        assert_eq!(good.next().unwrap().event, "");
        hub.stats().dropped_stalled == 1
    });
    assert_eq!(hub.stats().readers, 1);
}

#[test]
fn long_poll_answers_with_json() {
    let hub = hub_of(HubConfig { history_events: 2, ..HubConfig::default() });
    let server = serve(&hub);
    let first = say(&hub, "a", "1");
    let epoch = first.strip_suffix("-1").unwrap();
    hub.publish("a", Event::data("two\n\"2\"").event("named").unwrap())
        .unwrap();
    say(&hub, "a", "3");
    let check = |target: &str, expected: &str| {
        let mut client = server.connect();
        client.request("GET", target, &[("Accept", "application/json")], b"");
        let answer = client.answer();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.head.field("content-type"), Some("application/json"));
        assert_eq!(answer.head.field("cache-control"), Some("no-store"));
        assert_eq!(answer.text(), expected.replace('@', epoch), "{target}");
    };
    let two = r#"{"id":"@-2","event":"named","data":"two\n\"2\""}"#;
    let three = r#"{"id":"@-3","event":"message","data":"3"}"#;
    check(
        &format!("/events?topic=a&last_event_id={first}"),
        &format!(r#"{{"events":[{two},{three}],"last_event_id":"@-3"}}"#),
    ); // Events that are there come at once.
    check(
        "/events?topic=a&last_event_id=what",
        &format!(
            r#"{{"events":[{{"id":"@-1","event":"gap","data":"{{\"from\":\"what\",\"to\":\"@-1\",\"lost\":null}}"}},{two},{three}],"last_event_id":"@-3"}}"#
        ),
    ); // With a gap as an event like any other.
    // If there are none, the poll waits.
    thread::scope(|scope| {
        let poll = scope.spawn(|| {
            server
                .connect()
                .get(&format!("/events?topic=a&poll&last_event_id={epoch}-3"))
        });
        eventually(|| hub.stats().polls == 1);
        say(&hub, "other", "x");
        say(&hub, "a", "5");
        let answer = poll.join().unwrap();
        let expected = format!(
            r#"{{"events":[{{"id":"{epoch}-5","event":"message","data":"5"}}],"last_event_id":"{epoch}-5"}}"#
        );
        assert_eq!(answer.text(), expected);
    });
    eventually(|| hub.stats().polls == 0);
}

#[test]
fn long_poll_waits_only_so_long_and_only_for_so_many() {
    let hub = Hub::open(HubConfig {
        poll_timeout: Duration::from_millis(30),
        ..limits()
    })
    .unwrap();
    let empty = |answer: crate::support::Answer| {
        answer
            .text()
            .starts_with(r#"{"events":[],"last_event_id":""#)
    };
    let server = serve(&hub);
    assert!(empty(server.connect().get("/events?topic=a&poll"))); // The time is over.
    // One that waits looks around each second, and goes on waiting.
    let time = Duration::from_millis(1200);
    let longer = Hub::open(HubConfig { poll_timeout: time, ..limits() }).unwrap();
    let begun = Instant::now();
    assert!(empty(serve(&longer).connect().get("/events?topic=a&poll")));
    assert!(begun.elapsed() >= time);
    let one = Hub::open(HubConfig {
        poll_timeout: Duration::from_secs(3600),
        max_polls: 1,
        ..limits()
    })
    .unwrap();
    let server = serve(&one);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| server.connect().get("/events?topic=a&poll"));
        eventually(|| one.stats().polls == 1);
        assert!(empty(server.connect().get("/events?topic=a&poll"))); // Another poll has the only permit.
        say(&one, "a", "1");
        assert!(waiting.join().unwrap().text().contains(r#""data":"1""#)); // The other poll still waits.
    });
    let none = Hub::open(HubConfig {
        poll_timeout: Duration::from_secs(3600),
        max_polls: 0,
        ..limits()
    })
    .unwrap();
    let server = serve(&none);
    assert!(empty(server.connect().get("/events?topic=a&poll"))); // Too many wait: at once, and not in an hour.
    let mut client = server.connect();
    client.request("HEAD", "/events?topic=a&poll", &[], b"");
    assert_eq!(client.head().status, 200); // A HEAD request has nothing to wait for.
}

#[test]
fn a_poll_that_waits_ends_with_the_hub() {
    let hub = Hub::open(HubConfig {
        poll_timeout: Duration::from_secs(3600),
        ..limits()
    })
    .unwrap();
    let (server, shared) = serve_shared(&hub);
    thread::scope(|scope| {
        let poll = scope.spawn(|| server.connect().get("/events?poll"));
        eventually(|| hub.stats().polls == 1);
        drop(shared.lock().unwrap().take());
        drop(hub);
        assert!(poll.join().unwrap().text().starts_with(r#"{"events":[],"#));
    });
}

#[test]
fn a_poll_that_waits_ends_with_the_server() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    thread::scope(|scope| {
        let poll = scope.spawn(|| server.connect().get("/events?topic=a&poll"));
        eventually(|| hub.stats().polls == 1);
        server.shutdown(Duration::from_secs(60)).unwrap();
        assert_eq!(poll.join().unwrap().status(), 200);
    });
}

#[test]
fn topics_of_a_client_are_checked() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    let check = |target: &str, text: &str| {
        let answer = server.connect().get(target);
        assert_eq!((answer.status(), answer.text()), (400, text), "{target}");
    };
    check("/events", "no topic is given\n");
    check("/events?topic=", "topic name cannot be empty\n");
    check("/events?topic=a%0Ab", "topic name \"a\\nb\" cannot contain '\\n'\n");
}

#[test]
fn what_cannot_be_published_is_refused_by_name() {
    let hub = Hub::open(HubConfig {
        max_event_bytes: 20,
        ..limits()
    })
    .unwrap();
    let check = |topic: &str, event: Event, expected: &str| {
        assert_eq!(hub.publish(topic, event).unwrap_err().to_string(), expected);
    };
    check("", Event::data("x"), "topic name cannot be empty");
    check(
        "a",
        Event::data("x".repeat(13)),
        "event of 21 bytes is larger than 20",
    );
    check(
        "a",
        Event::data("x").id("").unwrap(),
        "event id cannot be empty",
    );
    check(
        "a",
        Event::data("x").id("latest").unwrap(),
        "event id \"latest\" is reserved for the hub",
    );
    hub.publish("a", Event::data("x".repeat(12))).unwrap();
}

#[test]
fn stats_count_what_there_is() {
    let hub = hub_of(HubConfig::default());
    assert_eq!((hub.stats().newest, hub.stats().history_bytes), (None, 0));
    let server = serve(&hub);
    let mut a = EventSource::open(server.addr(), "/events?topic=a", &[]);
    let mut ab = EventSource::open(server.addr(), "/events?topic=a&topic=b", &[]);
    let newest = say(&hub, "a", "1");
    assert_eq!((a.data(), ab.data()), ("1".to_string(), "1".to_string()));
    eventually(|| hub.stats().delivered == 2 && hub.stats().readers_behind == 0);
    let stats = hub.stats();
    assert_eq!(stats.readers, 2);
    let topics =
        |reader: &Arc<tiny_sse::Reader>| reader.topics().map(str::to_string).collect::<Vec<_>>();
    let mut read: Vec<_> = hub.readers().iter().map(topics).collect();
    read.sort();
    assert_eq!(read, [vec!["a"], vec!["a", "b"]]);
    assert_eq!(
        (stats.published, stats.history_events, stats.topics),
        (1, 1, 2)
    );
    assert_eq!(stats.newest.unwrap().to_string(), newest);
    assert_eq!(stats.oldest, stats.newest);
    assert_eq!((stats.readers_behind, stats.dropped_stalled), (0, 0));
    assert!(stats.history_bytes > 0);
    let expected = "# TYPE sse_hub_readers gauge\nsse_hub_readers 2\n\
                    # TYPE sse_hub_readers_behind gauge\nsse_hub_readers_behind 0\n\
                    # TYPE sse_hub_published_total counter\nsse_hub_published_total 1\n\
                    # TYPE sse_hub_delivered_total counter\nsse_hub_delivered_total 2\n\
                    # TYPE sse_hub_dropped_lagging_total counter\nsse_hub_dropped_lagging_total 0\n\
                    # TYPE sse_hub_dropped_stalled_total counter\nsse_hub_dropped_stalled_total 0\n\
                    # TYPE sse_hub_polls gauge\nsse_hub_polls 0\n\
                    # TYPE sse_hub_history_events gauge\nsse_hub_history_events 1\n\
                    # TYPE sse_hub_history_bytes gauge\nsse_hub_history_bytes BYTES\n\
                    # TYPE sse_hub_topics gauge\nsse_hub_topics 2\n";
    let expected = expected.replace("BYTES", &stats.history_bytes.to_string());
    assert_eq!(stats.to_string(), expected);
}

/// A value that says when it is dropped.
struct Presence(mpsc::Sender<String>, String);

impl Drop for Presence {
    fn drop(&mut self) {
        let _ = self.0.send(self.1.clone());
    }
}

#[test]
fn a_guard_lives_as_long_as_its_stream() {
    let hub = hub_of(HubConfig::default());
    let (left, leaves) = mpsc::channel();
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events", move |request: &Request| {
            let label = request.query("label").unwrap_or_default();
            let presence = Presence(left.clone(), format!("{label} left"));
            readers.subscribe(request, "a").guard(presence)
        })
    });
    let ann = EventSource::open(server.addr(), "/events?label=ann", &[]);
    let bob = EventSource::open(server.addr(), "/events?label=bob", &[]);
    eventually(|| hub.stats().readers == 2);
    assert!(leaves.try_recv().is_err(), "both are there");
    drop(bob);
    assert_eq!(leaves.recv().unwrap(), "bob left");
    hub.close(|_| true);
    assert_eq!(leaves.recv().unwrap(), "ann left");
    drop(ann);
    let mut client = server.connect();
    client.request("HEAD", "/events?label=head", &[], b"");
    assert_eq!(leaves.recv().unwrap(), "head left"); // For a HEAD, no stream began.
    let mut poll = server.connect();
    poll.request("GET", "/events?poll&label=poll", &[], b"");
    say(&hub, "a", "1");
    assert_eq!(leaves.recv().unwrap(), "poll left"); // With the response.
}

#[test]
fn a_streams_end_is_told_with_its_reason() {
    let hub = hub_of(HubConfig::default());
    let (end, ends) = mpsc::channel();
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events/{topic}", move |request: &Request| {
            let end = end.clone();
            let topic = request.param("topic");
            let subscription = readers.subscribe(request, topic).label(topic);
            subscription.on_end(move |ended: &StreamEnd| {
                let line = ended.to_string();
                let (line, _seconds) = line.rsplit_once(" events ").unwrap();
                let _ = end.send(line.to_string());
                panic!("a panic ends this call alone");
            })
        })
    });
    let open = |topic: &str| {
        let mut stream = EventSource::open(server.addr(), &format!("/events/{topic}"), &[]);
        say(&hub, topic, "1");
        assert_eq!(stream.data(), "1");
        stream
    };
    let closed = open("closed");
    hub.close(|reader| reader.label == "closed");
    assert_eq!(ends.recv().unwrap(), r#"127.0.0.1 closed "closed" closed 1"#);
    let finished = open("finished");
    hub.finish("finished", Event::data("2")).unwrap();
    assert_eq!(ends.recv().unwrap(), r#"127.0.0.1 finished "finished" finished 2"#);
    drop(open("left"));
    assert_eq!(ends.recv().unwrap(), r#"127.0.0.1 left "left" left 1"#);
    drop((closed, finished));
}

#[test]
fn readers_are_closed_and_ended_wherever_they_are() {
    let hub = hub_of(HubConfig { history_events: 4, ..HubConfig::default() });
    let server = serve(&hub);
    let mut live = EventSource::open(server.addr(), "/events?topic=a&label=ann", &[]);
    let mut stays = EventSource::open(server.addr(), "/events?topic=a&label=bob", &[]);
    let mut behind = EventSource::open(server.addr(), "/events?topic=big&label=ann", &[]);
    let text = "x".repeat(64 * 1024);
    eventually(|| {
        hub.publish_wait("big", Event::data(&text)).unwrap();
        hub.stats().readers_behind == 1
    });
    assert_eq!(hub.close(|reader| reader.label == "ann"), 2);
    assert_eq!(live.next(), None);
    assert!(live.retry.is_some(), "it is told when to come back");
    while behind.next().is_some() {}
    assert!(behind.retry.is_some());
    hub.finish("a", Event::data("over")).unwrap();
    let over = stays.next().unwrap();
    assert_eq!(over.data, "over");
    assert_eq!(stays.next(), None);
    // A client that comes back with that id gets 204, which stops an EventSource.
    let mut client = server.connect();
    client.request(
        "GET",
        "/events?topic=a",
        &[("Last-Event-ID", &over.id)],
        b"",
    );
    assert_eq!(client.head().status, 204);
    eventually(|| hub.stats().readers == 0);
}

/// A server for a hub whose last handle a test can drop.
fn serve_shared(hub: &Hub) -> (TestServer, Arc<Mutex<Option<Hub>>>) {
    let shared = Arc::new(Mutex::new(Some(hub.clone())));
    let readers = Arc::clone(&shared);
    let server = start(Config::default(), move |server| {
        server.get("/events", move |request: &Request| {
            let hub = readers.lock().unwrap();
            hub.as_ref()
                .map(|hub| hub.subscribe(request, "a"))
                .ok_or_else(|| Response::failed("gone"))
        })
    });
    (server, shared)
}

#[test]
fn dropping_the_hub_ends_its_streams() {
    let hub = hub_of(HubConfig::default());
    let (server, shared) = serve_shared(&hub);
    let mut streams: Vec<_> = (0..20)
        .map(|_| EventSource::open(server.addr(), "/events", &[]))
        .collect();
    say(&hub, "a", "last");
    drop(shared.lock().unwrap().take());
    drop(hub);
    for stream in &mut streams {
        assert_eq!(stream.data(), "last");
        assert_eq!(stream.next(), None);
    }
}

/// Wherever a reader is at that moment: on its way to a writer, at a writer, or behind, when the events are more than a socket
/// holds.
#[test]
fn an_end_comes_behind_all_that_was_published_before() {
    for (size, for_good) in [(8_000, true), (8_000, false), (8, true), (8, false)] {
        let text = "x".repeat(size);
        let hub = hub_of(HubConfig { history_events: 1_001, ..HubConfig::default() });
        let (server, shared) = serve_shared(&hub);
        let mut streams: Vec<_> = (0..8)
            .map(|_| EventSource::open(server.addr(), "/events", &[]))
            .collect();
        for number in 1..1_000 {
            let event = Event::data(format!("{number} {text}"));
            hub.publish("a", event).unwrap();
        }
        say(&hub, "a", "1000 ");
        if for_good {
            hub.finish("a", Event::data("1001 over")).unwrap();
        }
        drop(shared.lock().unwrap().take());
        drop(hub);
        for stream in &mut streams {
            let mut came = 0;
            while let Some(message) = stream.next() {
                came += 1;
                let (number, _) = message.data.split_once(' ').unwrap();
                assert_eq!(number, came.to_string());
            }
            assert_eq!(came, if for_good { 1_001 } else { 1_000 });
        }
    }
}

#[test]
fn shutdown_ends_readers_wherever_they_are() {
    let hub = hub_of(HubConfig { history_events: 4, ..HubConfig::default() });
    let server = serve(&hub);
    let mut live: Vec<_> = (0..20)
        .map(|_| EventSource::open(server.addr(), "/events?topic=a", &[]))
        .collect();
    let mut behind = EventSource::open(server.addr(), "/events?topic=big", &[]);
    let text = "x".repeat(64 * 1024);
    eventually(|| {
        hub.publish_wait("big", Event::data(&text)).unwrap();
        hub.stats().readers_behind == 1
    });
    thread::scope(|scope| {
        scope.spawn(move || {
            while behind.next().is_some() {}
            assert!(behind.retry.is_some());
        });
        server.shutdown(Duration::from_secs(60)).unwrap();
    });
    for stream in &mut live {
        assert_eq!(stream.next(), None);
        assert!(stream.retry.is_some());
    }
    assert_eq!(hub.stats().readers, 0);
}

#[test]
fn code_in_this_process_reads_the_same() {
    let hub = hub_of(HubConfig { history_events: 4, ..HubConfig::default() });
    let mut events = hub.receiver(["a", "b"]).unwrap();
    assert_eq!(events.recv_timeout(Duration::ZERO), Err(mpsc::RecvTimeoutError::Timeout));
    let (begun, time) = (Instant::now(), Duration::from_millis(20));
    assert_eq!(events.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout));
    assert!(begun.elapsed() >= time);
    let first = say(&hub, "a", "1");
    let message = events.recv().unwrap().message().unwrap();
    assert_eq!(
        (&*message.data, message.last_event_id),
        ("1", first.clone())
    );
    // The history keeps four; the three before them are lost, and reported in a gap.
    for number in 2..=8 {
        say(&hub, "b", &number.to_string());
    }
    let gap = events.recv().unwrap().message().unwrap();
    let epoch = first.strip_suffix("-1").unwrap();
    assert_eq!(gap.event, "gap");
    assert_eq!(
        gap.data,
        format!(r#"{{"from":"{epoch}-1","to":"{epoch}-4","lost":null}}"#)
    );
    let data = |event: Event| event.message().unwrap().data;
    let four: Vec<String> = events.by_ref().take(4).map(data).collect();
    assert_eq!(four, ["5", "6", "7", "8"]);
    let mut again = hub.receiver("b").unwrap().after(&format!("{epoch}-6"));
    assert_eq!(data(again.recv().unwrap()), "7");
    let mut all = hub.receiver("b").unwrap().earliest();
    assert_eq!(data(all.recv().unwrap()), "5");
    assert!(hub.receiver("").is_err());
    // When the hub ends, the receiver ends after all published events.
    hub.publish("a", Event::data("9")).unwrap();
    drop(hub);
    assert_eq!(data(events.recv().unwrap()), "9");
    assert_eq!(events.recv(), None);
}

/// Without a history an event is gone at once, unless its topic has a reader.
#[test]
fn a_receiver_begins_where_it_is_asked_for() {
    let hub = hub_of(HubConfig { history_events: 0, ..HubConfig::default() });
    let (go, rounds) = mpsc::sync_channel(0);
    let (end, ends) = mpsc::channel();
    let publisher = hub.clone();
    let publisher = thread::spawn(move || {
        for () in rounds {
            for n in 0..10 {
                say(&publisher, "a", &n.to_string());
            }
            end.send(()).unwrap();
        }
    });
    for _ in 0..500 {
        go.send(()).unwrap();
        let mut receiver = hub.receiver("a").unwrap();
        ends.recv().unwrap();
        while let Ok(event) = receiver.recv_timeout(Duration::ZERO) {
            let message = event.message().unwrap();
            assert_eq!(message.event, "message", "nothing is lost to who comes now: {message:?}");
        }
    }
    drop(go);
    publisher.join().unwrap();
}

/// A receiver that names an event is told that the events after it are gone. A receiver that asks for the kept events gets no
/// gap.
#[test]
fn a_receiver_of_a_hub_without_a_history_is_told_of_a_gap() {
    let hub = hub_of(HubConfig { history_events: 0, ..HubConfig::default() });
    let mut keeps = hub.receiver("a").unwrap();
    let ids = ["1", "2", "3"].map(|text| say(&hub, "a", text));
    let mut after = hub.receiver("a").unwrap().after(&ids[0]);
    let gap = after.recv_timeout(Duration::ZERO).unwrap().message().unwrap();
    let [from, _, to] = &ids;
    assert_eq!(gap.data, format!(r#"{{"from":"{from}","to":"{to}","lost":null}}"#));
    let mut earliest = hub.receiver("a").unwrap().earliest();
    assert_eq!(earliest.recv_timeout(Duration::ZERO), Err(mpsc::RecvTimeoutError::Timeout));
    say(&hub, "a", "4");
    let data = |receiver: &mut HubReceiver| receiver.recv().unwrap().message().unwrap().data;
    assert_eq!([&mut after, &mut earliest].map(data), ["4", "4"]);
    assert_eq!(data(&mut keeps), "1"); // A receiver that was there before gets all events.
}

#[test]
fn a_receiver_that_was_dropped_leaves_nothing_behind() {
    let hub = hub_of(HubConfig { history_events: 0, ..HubConfig::default() });
    let receiver = hub.receiver(["a", "b"]).unwrap();
    assert_eq!(hub.stats().topics, 2);
    drop(receiver);
    assert_eq!(hub.stats().topics, 0);
}

/// What is published between the subscription and the response is not a replay, so no history and no limit leaves it out.
#[test]
fn what_is_published_after_the_subscription_is_sent_whatever_is_kept() {
    for events in [0, 10] {
        let hub = hub_of(HubConfig { history_events: events, ..HubConfig::default() });
        let readers = hub.clone();
        let server = start(Config::default(), |server| {
            server.get("/now", move |request: &Request| {
                let subscription = readers.subscribe(request, "a").replay(Replay::Events(0));
                say(&readers, "a", "during");
                subscription
            })
        });
        for target in ["/now", "/now?last_event_id=earliest", "/now?last_event_id=latest"] {
            let mut source = EventSource::open(server.addr(), target, &[]);
            assert_eq!(source.data(), "during", "{events} {target}");
        }
    }
}

#[test]
fn what_the_hub_keeps_can_be_read() {
    let hub = hub_of(HubConfig::default());
    for (topic, text) in [("a", "1"), ("b", "2"), ("a", "3")] {
        say(&hub, topic, text);
    }
    let data = |event: Event| event.message().unwrap().data;
    let mut topics = hub.topics();
    topics.sort();
    assert_eq!(topics, ["a", "b"]);
    assert_eq!(hub.newest("a").map(data).as_deref(), Some("3"));
    assert_eq!(hub.newest("c"), None);
    let kept: Vec<String> = hub.kept("a").into_iter().map(data).collect();
    assert_eq!(kept, ["1", "3"]);
}

#[test]
fn the_classical_form_is_one_line_away() {
    let hub = hub_of(HubConfig::default());
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events", move |_| {
            let events = readers.receiver("a")?;
            let stream = Sse::spawn(|sender| events.map(|event| sender.send(event)).take_while(Result::is_ok).for_each(drop));
            Ok(stream)
        })
    });
    let mut stream = EventSource::open(server.addr(), "/events", &[]);
    eventually(|| hub.stats().topics == 1);
    say(&hub, "a", "1");
    assert_eq!(stream.data(), "1");
}

#[test]
fn a_full_inbox_says_so_to_those_who_do_not_wait() {
    let hub = Hub::open(HubConfig {
        inbox_events: 1,
        ..limits()
    })
    .unwrap();
    // The hub empties it faster than one can fill it, but for the odd moment.
    let event = Event::data("x".repeat(900));
    eventually(|| {
        (0..1000).any(|_| hub.try_publish("a", event.clone()) == Err(PublishError::Full))
    });
    hub.publish("a", event).unwrap();
}

/// More than a writer looks at in one step.
#[test]
fn each_of_many_silent_readers_has_its_heartbeat() {
    let name = "each_of_many_silent_readers_has_its_heartbeat";
    let Some(child) = Child::of(&format!("{}::{name}", module_path!().split_once("::").unwrap().1)) else {
        let hub = Hub::open(HubConfig {
            writer_threads: WRITER_THREADS.div_ceil(2),
            ..limits()
        });
        let config = Config {
            heartbeat: Duration::from_millis(100),
            ..Config::default()
        };
        let hub = hub.unwrap();
        return serve_parent(config, |server| {
            routes(&hub)(server).post("/", move |_| {
                hub.publish("a", Event::data("x"))?;
                Ok("")
            })
        });
    };
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(child.addr())).collect();
    for client in &mut clients {
        client.request("GET", "/events?topic=a", &[], b"");
        assert_eq!(client.head().status, 200);
    }
    // The events after this one are published when all readers are there.
    Client::connect(child.addr()).request("POST", "/", &[], b"");
    for client in &mut clients {
        while !client.chunk().unwrap().ends_with(b"data: x\n\n") {}
        assert_eq!(client.chunk().unwrap(), b": heartbeat\n");
    }
}

#[test]
fn those_who_leave_take_their_threads_and_descriptors_along() {
    let name = "those_who_leave_take_their_threads_and_descriptors_along";
    let Some(child) = Child::of(&format!("{}::{name}", module_path!().split_once("::").unwrap().1)) else {
        return serve_parent(Config::default(), routes(&hub_of(HubConfig::default())));
    };
    // One visit, so that the threads that stay are there.
    drop(EventSource::open(child.addr(), "/events?topic=a", &[]));
    eventually(|| {
        child
            .thread_names()
            .iter()
            .any(|name| name == "sse-connection")
    });
    let before = child.descriptors();
    let clients: Vec<EventSource> = (0..200)
        .map(|_| EventSource::open(child.addr(), "/events?topic=a", &[]))
        .collect();
    assert!(child.descriptors() >= before.min(200));
    // With writers, readers that have everything need no thread of their own.
    eventually(|| WRITER_THREADS == 0 || child.threads() < 60);
    drop(clients);
    eventually(|| child.descriptors() <= before);
}

#[test]
fn a_stream_lives_only_so_long() {
    let hub = hub_of(HubConfig::default());
    let config = Config {
        max_stream_lifetime: Some(Duration::from_millis(10)),
        ..Config::default()
    };
    let server = start(config, routes(&hub));
    let mut stream = EventSource::open(server.addr(), "/events?topic=a", &[]);
    assert_eq!(stream.next(), None);
    assert!(stream.retry.is_some());
    let mut client = Client::connect(server.addr());
    assert_eq!(client.get("/nothing").status(), 404);
}

#[test]
fn a_client_may_spell_its_last_event_id_in_several_ways() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    let first = say(&hub, "a", "1");
    say(&hub, "a", "2");
    for name in ["last_event_id", "lastEventId", "lastEventID"] {
        let target = format!("/events?topic=a&{name}={first}");
        let mut stream = EventSource::open(server.addr(), &target, &[]);
        assert_eq!(stream.data(), "2", "{name}");
    }
    // The handler may also have the id from elsewhere.
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events/{id}", move |request: &Request| {
            readers
                .subscribe(request, "a")
                .last_event_id(request.param("id"))
        })
    });
    let mut stream = EventSource::open(server.addr(), &format!("/events/{first}"), &[]);
    assert_eq!(stream.data(), "2");
}

#[test]
fn a_handler_limits_how_far_back_a_client_goes() {
    let hub = hub_of(HubConfig::default());
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events", move |request: &Request| {
            let replay = match request.query("limit") {
                Some("nothing") => Replay::Events(0),
                _ => Replay::Events(1),
            };
            readers.subscribe(request, "a").replay(replay)
        })
    });
    let first = say(&hub, "a", "1");
    say(&hub, "a", "2");
    say(&hub, "a", "3");
    let check = |limit: &str, id: &str, expected: &[&str]| {
        let mut stream = resume(server.addr(), &format!("/events?limit={limit}"), id);
        for expected in expected {
            let message = stream.next().unwrap();
            let shown = if message.event == "gap" { "gap".to_string() } else { message.data };
            assert_eq!(shown, *expected, "{limit} {id}");
        }
    };
    check("one", "earliest", &["3"]); // The limit holds whatever the client asks for.
    check("one", &first, &["gap", "3"]); // It is told that it missed the second.
    check("nothing", &first, &["gap"]); // The client misses all events that there are.
    // A long-poll goes no further back.
    let poll = format!("/events?poll&limit=one&last_event_id={first}");
    let polled = server.connect().get(&poll);
    let got = ["gap", r#""data":"2""#, r#""data":"3""#].map(|part| polled.text().contains(part));
    assert_eq!(got, [true, false, true], "{polled:?}");
    let mut stream = resume(server.addr(), "/events?limit=nothing", "earliest");
    eventually(|| hub.stats().readers_behind == 0);
    say(&hub, "a", "4");
    assert_eq!(stream.data(), "4"); // No old event, and no gap for a client without an id.
}

#[test]
fn what_a_stream_begins_with_is_a_choice() {
    let hub = Hub::open(HubConfig {
        poll_timeout: Duration::from_millis(10),
        ..limits()
    });
    let hub = hub.unwrap();
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events/{opening}", move |request: &Request| {
            let opening = match request.param("opening") {
                "block" => OpeningId::Block,
                "empty" => OpeningId::EmptyData,
                _ => OpeningId::None,
            };
            readers.subscribe(request, "a").opening_id(opening)
        })
    });
    let epoch = hub.publish_wait("b", Event::data("1")).unwrap().to_string();
    let id = format!("id: {epoch}\n");
    for (opening, expected) in [
        ("block", id.clone() + "\n"), // Sets the last event id, dispatches nothing.
        ("empty", id + "data:\n\n"),  // An event with empty data.
        ("none", "id: ".to_string()), // Nothing before the first event.
    ] {
        let mut client = server.connect();
        client.request("GET", &format!("/events/{opening}"), &[], b"");
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().unwrap(), b": connected\n");
        if opening == "none" {
            eventually(|| hub.stats().readers_behind == 0);
            say(&hub, "a", "2");
        }
        let chunk = String::from_utf8(client.chunk().unwrap()).unwrap();
        match opening {
            "none" => assert!(chunk.ends_with("data: 2\n\n"), "{chunk}"),
            _ => assert_eq!(chunk, expected),
        }
        // A long-poll has its position in a field of its own, and waits.
        let answer = server.connect().get(&format!("/events/{opening}?poll"));
        assert!(answer.text().starts_with(r#"{"events":[],"#), "{opening}: {}", answer.text());
    }
}

#[test]
fn a_stream_is_not_taken_for_a_long_poll() {
    let hub = Hub::open(HubConfig {
        poll_timeout: Duration::ZERO,
        ..limits()
    })
    .unwrap();
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        let posts = readers.clone();
        let streams = readers.clone();
        server
            .get("/events", move |request: &Request| readers.subscribe(request, "a"))
            .post("/events", move |request: &Request| posts.subscribe(request, "a"))
            .get("/streams", move |request: &Request| {
                streams.subscribe(request, "a").stream_only()
            })
    });
    let check = |method: &str, target: &str, accept: &str, expected: &str| {
        let mut client = server.connect();
        client.request(method, target, &[("Accept", accept)], b"");
        let found = client.head().field("content-type").map(str::to_string);
        assert_eq!(found.as_deref(), Some(expected), "{method} {target} {accept}");
    };
    let (stream, json) = ("text/event-stream", "application/json");
    check("GET", "/events", "application/json", json); // JSON and nothing else.
    check("GET", "/events", "application/json, text/plain, */*", stream); // axios, by default.
    check("GET", "/events", "application/json, text/event-stream", stream); // A client of MCP.
    check("GET", "/events", "*/*", stream); // curl.
    check("GET", "/events?poll", "*/*", json); // The query asks for it.
    check("POST", "/events", "application/json", stream); // An SDK of a language model.
    check("POST", "/events?poll", "application/json", stream); // A POST is never a poll.
    check("GET", "/streams?poll", "application/json", stream); // The handler turns long-poll off.
}

/// The request has come, and its handler has found a session, when the user logs out.
#[test]
fn a_close_reaches_requests_that_are_under_way() {
    // A poll that waited for this time would fail the test.
    let patient = HubConfig { poll_timeout: Duration::from_secs(3600), ..HubConfig::default() };
    for target in ["/events", "/events?poll"] {
        let hub = hub_of(patient.clone());
        let readers = hub.clone();
        let (checked, is_checked) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let goes = Mutex::new(goes);
        let server = start(Config::default(), move |server| {
            server.get("/events", move |request: &Request| {
                checked.send(()).unwrap();
                goes.lock().unwrap().recv().unwrap();
                let snapshot = Event::data("secret");
                readers.subscribe(request, "a").label("ann").first([snapshot])
            })
        });
        let mut client = server.connect();
        client.request("GET", target, &[], b"");
        is_checked.recv().unwrap();
        assert_eq!(hub.close(|reader| reader.label == "ann"), 0);
        say(&hub, "a", "secret");
        go.send(()).unwrap();
        say(&hub, "a", "secret");
        let text = match target {
            "/events" => String::from_utf8(client.rest()).unwrap(),
            _ => client.answer().text().to_string(),
        };
        assert!(!text.contains("secret"), "{target}: {text}");
    }
    // A poll that waits is answered by the close, whether an event follows or not.
    for is_followed in [false, true] {
        let hub = hub_of(patient.clone());
        let server = serve(&hub);
        thread::scope(|scope| {
            let poll = scope.spawn(|| server.connect().get("/events?topic=a&poll"));
            eventually(|| hub.stats().polls == 1);
            hub.close(|_| true);
            if is_followed {
                say(&hub, "a", "secret");
            }
            assert!(poll.join().unwrap().text().starts_with(r#"{"events":[],"#));
        });
    }
}

#[test]
fn a_topic_ends_for_all_who_read_it_now_or_later() {
    let hub = hub_of(HubConfig::default());
    let server = serve(&hub);
    let mut there = EventSource::open(server.addr(), "/events?topic=call", &[]);
    let mut both = EventSource::open(server.addr(), "/events?topic=call&topic=other", &[]);
    let first = say(&hub, "call", "1");
    let id = hub.finish("call", Event::data("result")).unwrap();
    for stream in [&mut there, &mut both] {
        assert_eq!([stream.data(), stream.data()], ["1", "result"]);
    }
    assert_eq!(there.next(), None);
    say(&hub, "other", "2");
    assert_eq!(both.data(), "2"); // Its other topic goes on.
    // A client that comes back gets the rest and the end. A client that comes late gets the last event and the end.
    let mut back = resume(server.addr(), "/events?topic=call", &first);
    let last = back.next().unwrap();
    assert_eq!((&*last.data, last.id), ("result", format!("{id}-end")));
    assert_eq!(back.next(), None);
    let mut late = EventSource::open(server.addr(), "/events?topic=call", &[]);
    assert_eq!(late.data(), "result");
    assert_eq!(late.next(), None);
    let poll = server.connect().get("/events?topic=call&poll");
    let end = format!(r#""data":"result"}}],"last_event_id":"{id}-end"}}"#);
    assert!(poll.text().ends_with(&end), "{}", poll.text());
    // A client that has had the end gets 204.
    let mut done = server.connect();
    let field = ("Last-Event-ID", &*format!("{id}-end"));
    done.request("GET", "/events?topic=call", &[field], b"");
    assert_eq!(done.head().status, 204);
    // A client that reads another topic too gets more, until that topic has ended as well.
    let both = "/events?topic=call&topic=other";
    let mut more = resume(server.addr(), both, &format!("{id}-end"));
    assert_eq!(more.data(), "2");
    let mut receiver = hub.receiver(["call", "other"]).unwrap().after(&format!("{id}-end"));
    assert_eq!(receiver.recv().unwrap().message().unwrap().data, "2");
    let id = hub.finish("other", Event::data("done")).unwrap();
    assert_eq!(receiver.recv().unwrap().message().unwrap().data, "done");
    assert_eq!(receiver.recv(), None);
    assert_eq!(more.data(), "done");
    assert_eq!(more.next(), None);
    let field = ("Last-Event-ID", &*format!("{id}-end"));
    done.request("GET", both, &[field], b"");
    assert_eq!(done.head().status, 204);
}

#[test]
fn delivered_counts_all_that_was_handed_over() {
    let hub = hub_of(HubConfig::default());
    let readers = hub.clone();
    let server = start(Config::default(), move |server| {
        server.get("/events", move |request: &Request| {
            readers.subscribe(request, ["a", "b"]).retained()
        })
    });
    say(&hub, "a", "1");
    say(&hub, "b", "2");
    let mut streams = [0, 1].map(|_| EventSource::open(server.addr(), "/events", &[]));
    for stream in &mut streams {
        assert_eq!([stream.data(), stream.data()], ["1", "2"]);
    }
    eventually(|| hub.stats().readers_behind == 0);
    say(&hub, "a", "3");
    for stream in &mut streams {
        assert_eq!(stream.data(), "3");
    }
    eventually(|| hub.stats().delivered == 6);
}

/// A proxy that speaks HTTP/1.0 to its server changes nothing in what happens to a slow reader.
#[test]
fn a_slow_reader_of_http_1_0_skips_or_is_disconnected_too() {
    for lag in [Lag::Skip, Lag::Disconnect] {
        let hub = hub_of(HubConfig::default());
        let readers = hub.clone();
        let server = start(Config::default(), move |server| {
            server.get("/events", move |request: &Request| {
                readers.subscribe(request, "a").lag(lag)
            })
        });
        let mut client = server.connect();
        client.send("GET /events HTTP/1.0\r\n\r\n");
        eventually(|| hub.stats().readers == 1 && hub.stats().readers_behind == 0);
        let text = "x".repeat(64 * 1024);
        for _ in 0..400 {
            hub.publish_wait("a", Event::data(&text)).unwrap();
        }
        if lag == Lag::Disconnect {
            eventually(|| hub.stats().dropped_lagging == 1);
            continue;
        }
        say(&hub, "a", "newest");
        let mut lines = BufReader::new(client.stream).lines();
        let mut events = 0;
        let mut gap = false;
        loop {
            let line = lines.next().unwrap().unwrap();
            events += usize::from(line.starts_with("data: x"));
            gap |= line == "event: gap";
            if line == "data: newest" {
                break;
            }
        }
        assert!(gap && events < 400, "{events} of 400 events, gap: {gap}");
    }
}

#[test]
fn with_no_history_all_readers_get_what_is_published_while_they_are_there() {
    let hub = hub_of(HubConfig { history_events: 0, ..HubConfig::default() });
    let server = serve(&hub);
    let mut old = server.connect();
    old.send("GET /events?topic=a HTTP/1.0\r\n\r\n");
    thread::scope(|scope| {
        let poll = scope.spawn(|| server.connect().get("/events?topic=a&poll"));
        eventually(|| hub.stats().readers == 1 && hub.stats().polls == 1);
        say(&hub, "a", "1");
        assert!(poll.join().unwrap().text().contains(r#""data":"1""#));
    });
    for number in 2..50 {
        say(&hub, "a", &number.to_string());
    }
    let mut lines = BufReader::new(old.stream).lines();
    let mut expected = 1;
    while expected < 50 {
        let line = lines.next().unwrap().unwrap();
        assert_ne!(line, "event: gap");
        if line.starts_with("data: ") {
            assert_eq!(line, format!("data: {expected}"));
            expected += 1;
        }
    }
}
