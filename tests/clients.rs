//! Clients from npm and PyPI against a real server: what a user of each client gets.
//!
//! The programs in `tests/clients/` are the smallest use of each client. To run them:
//!
//! ```text
//! npm install --no-package-lock --prefix tests/clients
//! python3 -m venv target/clients && target/clients/bin/pip install -r tests/clients/requirements.txt
//! cargo test --test clients -- --ignored
//! ```

#[path = "support/browser.rs"]
mod browser;
#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use browser::{Browser, findings, proxy};
use program::Program;
use support::{eventually, start};
use tiny_sse::{Config, Event, Hub, OpeningId, Request, Response, Server, Sse};

/// A reconnection time, and a heartbeat, that make no test wait.
const SOON: Duration = Duration::from_millis(20);

/// Starts a program of `tests/clients/`.
fn client(file: &str, arguments: &[&str]) -> Program {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = match file.ends_with(".py") {
        true => Command::new(folder.join("target/clients/bin/python")),
        false => Command::new("node"),
    };
    command.arg(folder.join("tests/clients").join(file));
    Program::start(command.args(arguments))
}

/// A client keeps its connections for the next request. Where the server says that it keeps one as well and then closes
/// it, the next request on it is lost.
#[test]
#[ignore = "needs npm and PyPI"]
fn after_a_finite_stream_the_connection_serves_the_next_request() {
    #[rustfmt::skip] // A row is a line.
    let rows = [
        ("finite.mjs", "node:http", 1),
        ("finite.mjs", "axios", 1),
        ("finite.mjs", "openai", 100), // Asks again before it has read the last chunk: needs a second connection.
        ("finite.py", "http.client", 1),
        ("finite.py", "requests", 1),
        ("finite.py", "httpx", 1),
        ("finite.py", "openai", 100), // Closes its connection at `[DONE]`.
    ];
    for (file, name, max_connections) in rows {
        let connections = Arc::new(Mutex::new(HashSet::<SocketAddr>::new()));
        let seen = Arc::clone(&connections);
        let answer = move |request: &Request| {
            seen.lock().unwrap().insert(request.peer());
            tokens()
        };
        let server = start(Config::default(), |server| {
            server
                .get("/answer", answer.clone())
                .post("/answer/chat/completions", answer)
        });
        let url = format!("http://{}/answer", server.addr());
        let program = client(file, &[name, &url, "100"]);
        assert_eq!(program.rest(), ["100 of 100"], "{name}");
        let connections = connections.lock().unwrap().len();
        assert!(connections <= max_connections, "{name}: {connections}");
    }
}

/// A short answer of a language model, as the official clients expect it.
fn tokens() -> Sse {
    Sse::spawn(|events| {
        let choices = [
            r#"{"index":0,"delta":{"content":"Hi"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{},"finish_reason":"stop"}"#,
        ];
        for choice in choices {
            let chunk = format!(
                r#"{{"id":"1","object":"chat.completion.chunk","created":1,"model":"test","choices":[{choice}]}}"#
            );
            if events.send(Event::data(chunk)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::data("[DONE]"));
    })
}

#[test]
#[ignore = "needs npm and PyPI"]
fn the_official_clients_speak_with_the_tokens_example() {
    let Some(example) = Program::example("tokens") else {
        return;
    };
    let url = format!("http://{}/v1", example.address());
    for file in ["chat.mjs", "chat.py"] {
        let lines = client(file, &[&url]).rest();
        let refused = "400 there is no message to answer";
        assert_eq!(lines, ["streamed", "the same", refused], "{file}");
    }
}

/// Neither client is told of the cut or of the restart: it reconnects with `Last-Event-ID`.
#[test]
#[ignore = "needs npm and PyPI"]
fn a_call_of_the_mcp_example_outlives_a_cut_and_a_restart() {
    #[rustfmt::skip] // A row is a line.
    let rows = [
        ("mcp.mjs", 3, 10),
        ("mcp_call.py", 3, 0), // After the second cut, this client repeats the id that it sent after the first one.
        ("mcp_call.py", 0, 10),
    ];
    for (file, cut_at, restart_at) in rows {
        let Some(mut example) = Program::example_in(file, "mcp") else {
            return;
        };
        let relay = Relay::to(example.address());
        let url = format!("http://{}/mcp", relay.addr);
        let mut program = client(file, &[&url]);
        assert_eq!(program.line().as_deref(), Some("count"), "{file}");
        for number in 1..=20 {
            assert_eq!(program.line(), Some(number.to_string()), "{file}");
            if number == cut_at {
                relay.cut();
            }
            if number == restart_at {
                drop(example);
                example = Program::example_in(file, "mcp").unwrap();
                *relay.target.lock().unwrap() = example.address();
            }
        }
        assert_eq!(program.rest(), ["counted to 20"], "{file}");
        assert!(program.succeeded(), "{file}");
    }
}

/// A proxy whose connections can be cut, and whose server can be another one.
struct Relay {
    addr: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay {
            addr: listener.local_addr().unwrap(),
            target: Arc::new(Mutex::new(target)),
            open: Arc::default(),
        };
        let (target, open) = (Arc::clone(&relay.target), Arc::clone(&relay.open));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = *target.lock().unwrap();
                let Ok(server) = TcpStream::connect(target) else {
                    continue; // The client is cut off as well.
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    open.lock().unwrap().push(from.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        relay
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[test]
#[ignore = "needs npm and PyPI"]
fn htmx_swaps_in_what_the_example_publishes() {
    let Some(example) = Program::example("htmx") else {
        return;
    };
    let (reports, findings) = findings();
    let checks = reports
        .serve(Server::bind("127.0.0.1:0").unwrap())
        .get("/checks", |_| {
            Response::html(include_str!("clients/htmx.html"))
        })
        .spawn()
        .unwrap();
    let (checks, page) = (checks.addr(), example.address());
    // One origin for both, so that the checks may look into the page.
    let proxy = proxy(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let is_ours = ["/checks", "/check.js", "/findings"].contains(&path);
        Some(if is_ours { checks } else { page })
    });
    let browser = Browser::open(&format!("http://{proxy}/checks"));
    assert_eq!(findings.all_ok(&browser).len(), 2);
}

#[test]
#[ignore = "needs npm and PyPI"]
fn the_datastar_example_writes_what_the_official_package_writes() {
    let Some(example) = Program::example("datastar") else {
        return;
    };
    let url = format!("http://{}/notes", example.address());
    let list = r#"<ul id="notes"></ul>"#;
    let lines = client("datastar_event.py", &[&url, list]).rest();
    assert_eq!(lines, ["the same"]);
}

/// Some clients take a block of fields without data for a message with empty data.
#[test]
#[ignore = "needs npm and PyPI"]
fn no_client_gets_a_message_that_nobody_published() {
    use OpeningId::{Block, None};
    #[rustfmt::skip] // A row is a line.
    let rows = [
        ("events.mjs", "eventsource", Block),
        ("events.mjs", "event-source-polyfill", Block),
        ("events.mjs", "reconnecting-eventsource", Block),
        ("events.mjs", "fetch-event-source", None),
        ("events.mjs", "openai", Block),
        ("events.py", "httpx-sse", None),
        ("events.py", "sseclient-py", Block),
        ("events.py", "openai", None),
    ];
    for (file, name, opening_id) in rows {
        let hub = Hub::new();
        let readers = hub.clone();
        let server = start(Config::default(), |server| {
            server.any("/events", move |request| {
                readers
                    .subscribe(request, "numbers")
                    .opening_id(opening_id)
                    .retry(SOON)
                    .heartbeat(SOON)
            })
        });
        let url = format!("http://{}/events", server.addr());
        let program = client(file, &[name, &url, "3"]);
        eventually(|| !hub.readers().is_empty());
        for number in 1..=3 {
            hub.publish("numbers", Event::data(number.to_string()))
                .unwrap();
        }
        assert_eq!(program.rest(), [r#""1""#, r#""2""#, r#""3""#], "{name}");
    }
}

/// A client that accepts JSON among other types gets a stream, not a long-poll.
#[test]
#[ignore = "needs npm and PyPI"]
fn a_client_that_accepts_json_too_gets_the_stream() {
    #[rustfmt::skip] // A row is a line.
    let rows = [
        ("accepts.mjs", "fetch"), // Accept: */*
        ("accepts.mjs", "axios"), // Accept: application/json, text/plain, */*
        ("accepts.mjs", "openai"), // A POST with Accept: application/json
        ("accepts.py", "requests"), // Accept: */*
        ("accepts.py", "httpx"), // Accept: */*
        ("accepts.py", "openai"), // A POST with Accept: application/json
    ];
    for (file, name) in rows {
        let hub = Hub::new();
        let readers = hub.clone();
        let server = start(Config::default(), |server| {
            server.any("/events", move |request| {
                readers.subscribe(request, "numbers")
            })
        });
        let url = format!("http://{}/events", server.addr());
        let program = client(file, &[name, &url]);
        assert_eq!(program.rest(), ["text/event-stream"], "{name}");
    }
}

/// How a reader was away.
#[derive(Clone, Copy, PartialEq)]
enum Away {
    /// The stream ended; the next request is served.
    Ended,
    /// The stream ended, and the next request got 503, as from a proxy whose server is down.
    Refused,
}

#[test]
#[ignore = "needs npm and PyPI"]
fn a_client_that_comes_back_misses_nothing() {
    use OpeningId::{Block, EmptyData, None};
    #[rustfmt::skip] // A row is a line.
    let rows = [
        ("eventsource", 3, Away::Ended, Block), // Brings the field `Last-Event-ID`.
        ("eventsource", 0, Away::Ended, EmptyData), // Takes no id from a block without data.
        ("fetch-event-source", 3, Away::Ended, None), // The same field.
        ("fetch-event-source", 0, Away::Ended, Block),
        ("event-source-polyfill", 3, Away::Ended, Block), // `?lastEventId=`, and no field.
        ("event-source-polyfill", 0, Away::Ended, EmptyData), // Takes no id from a block without data.
        ("reconnecting-eventsource", 3, Away::Ended, Block), // As the `EventSource` that it is given.
        ("reconnecting-eventsource", 3, Away::Refused, Block), // `?lastEventId=` on a new `EventSource`.
    ];
    for (name, seen, away, opening_id) in rows {
        let hub = Hub::new();
        let publish = |number: usize| hub.publish("numbers", Event::data(number.to_string()));
        let readers = hub.clone();
        let down = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let (is_down, count) = (Arc::clone(&down), Arc::clone(&refused));
        let config = Config {
            reconnect_spread: SOON,
            ..Config::default()
        };
        let server = start(config, |server| {
            server.get("/events", move |request| -> Response {
                if is_down.load(Ordering::SeqCst) {
                    count.fetch_add(1, Ordering::SeqCst);
                    return Response::new(503);
                }
                let stream = readers.subscribe(request, "numbers");
                stream.opening_id(opening_id).into()
            })
        });
        let url = format!("http://{}/events", server.addr());
        let program = client("events.mjs", &[name, &url, "6"]);
        eventually(|| !hub.readers().is_empty());
        for number in 1..=seen {
            publish(number).unwrap();
            assert_eq!(program.line(), Some(format!("\"{number}\"")), "{name}");
        }
        down.store(away == Away::Refused, Ordering::SeqCst);
        hub.close(|_| true);
        eventually(|| hub.readers().is_empty());
        eventually(|| away == Away::Ended || refused.load(Ordering::SeqCst) > 0);
        for number in seen + 1..=6 {
            publish(number).unwrap();
        }
        down.store(false, Ordering::SeqCst);
        let missed: Vec<String> = (seen + 1..=6).map(|n| format!("\"{n}\"")).collect();
        let mut got = program.rest();
        // To a page that is to resume before its first event, the opening id is a message with empty data.
        got.retain(|line| seen > 0 || line != r#""""#);
        assert_eq!(got, missed, "{name}, {seen} seen");
    }
}
