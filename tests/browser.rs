//! The `EventSource` of a real browser against a real server. Run it with `cargo test --test browser -- --ignored`.
//!
//! The checks are in `browser/eventsource.js`. This file has the server that they need.

#[path = "support/browser.rs"]
mod browser;

use std::collections::HashMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use browser::{Browser, Reports, findings, script, wait_for_a_try_in_vain};
use tiny_sse::{Config, Event, Request, Response, Server, Sse};

/// Texts that a page must receive as they were sent, except for their line breaks.
const TEXTS: [&str; 16] = [
    "one line",
    "",
    "two\nlines",
    "LF at the end\n",
    "\n",
    "\n\n",
    "CRLF is\r\none break",
    "CR is\rone too",
    "LF CR\n\rare two",
    "\r\n\r\r\n",
    " one space, and two  ",
    ": no comment",
    "data: no field\n\ndata: nor this\nid: 1\nevent: forged\nretry: 1",
    "Grüße, 世界, 🦀 \u{10FFFF}",
    "\u{FEFF}a BOM, a NUL \0 and a tab\t",
    "no line breaks here:\u{2028}\u{2029}\u{85}\u{0B}\u{0C}",
];

/// A short reconnection time, and a short time between heartbeats.
const SOON: Duration = Duration::from_millis(20);

#[test]
#[ignore = "needs Chromium"]
fn a_browser_understands_what_is_sent() {
    let (reports, findings) = findings();
    let address = serve((Ipv4Addr::LOCALHOST, 0).into(), 1, reports);
    let browser = Browser::open(&format!("http://{address}/"));
    assert_eq!(findings.all_ok(&browser).len(), 12);
}

/// Starts the server of this number. When it is asked to restart, it gives way to the next one on the same port.
fn serve(address: SocketAddr, number: usize, reports: Reports) -> SocketAddr {
    let config = Config {
        reconnect_spread: SOON,
        ..Config::default()
    };
    let server = Server::bind(address).unwrap().config(config);
    let address = server.addr();

    let shutdown = server.handle();
    let next = reports.clone();
    let restarting = AtomicBool::new(false);
    let restart = move |request: &Request| {
        // A browser sends a request again when its response was cut off, perhaps to the next server.
        let is_meant = request.query("number") == Some(&number.to_string());
        if is_meant && !restarting.swap(true, Ordering::SeqCst) {
            let (shutdown, next) = (shutdown.clone(), next.clone());
            thread::spawn(move || {
                // The first server ends its streams, the second one drops them.
                let deadline = Duration::from_secs(if number == 1 { 10 } else { 0 });
                shutdown.shutdown(deadline).unwrap();
                wait_for_a_try_in_vain(address, "/stream/away");
                serve(address, number + 1, next);
            });
        }
        Response::new(202)
    };

    let stage = Arc::new(Stage::new(number));
    let (asked, told) = (Arc::clone(&stage), Arc::clone(&stage));
    reports
        .serve(server)
        .get("/", |_request| {
            Response::html(include_str!("browser/eventsource.html"))
        })
        .get("/eventsource.js", |_request| {
            script(include_str!("browser/eventsource.js"))
        })
        .get("/texts.json", |_request| Response::json(json(&TEXTS)))
        .any("/stream/{name}", move |request| stage.stream(request))
        .get("/visits/{name}", move |request| {
            asked.visits(request.param("name")).to_string()
        })
        .post("/go/{name}", move |request| told.go(request.param("name")))
        .post("/restart", restart)
        .spawn()
        .unwrap()
        .addr()
}

/// The responses to the checks.
struct Stage {
    /// The number of this server.
    number: usize,
    visits: Mutex<HashMap<String, usize>>,
    /// Producers that wait for a request of the page.
    waiting: Mutex<HashMap<String, Sender<()>>>,
    /// Streams that stay open, although nothing more is sent.
    open: Mutex<Vec<Sender<Event>>>,
}

impl Stage {
    fn new(number: usize) -> Stage {
        Stage {
            number,
            visits: Mutex::default(),
            waiting: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// Returns the stream of the check of this name.
    fn stream(&self, request: &Request) -> Result<Response, Response> {
        let name = request.param("name");
        let first = self.visit(name) == 1;
        let stream = match name {
            "resume" | "stop" | "retry" | "away" => return self.reconnecting(request, first),
            "open" => self.on_go(name, vec![Event::data("hello")]),
            "heartbeat" => heartbeats(),
            "answer" => {
                let words = String::from_utf8_lossy(request.body()).into_owned();
                self.on_go(name, words.split(' ').map(Event::data).collect())
            }
            "named" => self.stays([
                Event::data("rain").event("weather")?,
                Event::data("Regen").event("wétter 🌦")?,
                Event::data("nobody listens").event("Weather")?,
                Event::new().event("without data")?,
                Event::data("the end"),
            ]),
            "texts" => self.stays(TEXTS.map(Event::data)),
            "large" => self.stays([Event::data(large_text())]),
            "ids" => self.stays([
                Event::data("none"),
                Event::data("first").id("1")?,
                Event::data("without an id"),
                Event::new().id("ü 🦀")?,
                Event::data("after an id alone"),
                Event::data("forgotten").id("")?,
            ]),
            _ => return Err(Response::text("no such check\n").with_status(404)),
        };
        Ok(stream.into())
    }

    /// Returns the stream of a check in which the browser reconnects.
    fn reconnecting(&self, request: &Request, first: bool) -> Result<Response, Response> {
        let last_id = request.last_event_id();
        let after = last_id.map_or("from the start".to_string(), |id| format!("after {id}"));
        let stream = match request.param("name") {
            "resume" => {
                let number: u32 = last_id.map_or(0, |id| id[2..].parse().unwrap());
                let event = Event::data(after).id(format!("ü{}", number + 1))?;
                ends([event]).retry(SOON)
            }
            "stop" if last_id.is_some() => return Ok(Response::new(204)),
            "stop" => ends([Event::data("the last one").id("1")?]).retry(SOON),
            "retry" if first => ends([Event::new().retry(Duration::from_secs(4))]),
            "retry" => self.stays([Event::data("back")]),
            _ => {
                let text = format!("server {}, {after}", self.number);
                let event = Event::data(text).id(self.number.to_string())?;
                self.stays([event]).retry(SOON)
            }
        };
        Ok(stream.into())
    }

    /// Sends these events, and then nothing.
    fn stays(&self, events: impl IntoIterator<Item = Event>) -> Sse {
        let (sender, receiver) = mpsc::channel();
        for event in events {
            sender.send(event).unwrap();
        }
        self.open.lock().unwrap().push(sender);
        Sse::new(receiver)
    }

    /// Sends the next of these events at each request of the page, then ends.
    fn on_go(&self, name: &str, events: Vec<Event>) -> Sse {
        let (go, wait) = mpsc::channel();
        self.waiting.lock().unwrap().insert(name.to_string(), go);
        Sse::spawn(move |stream| {
            for event in events {
                if wait.recv().is_err() || stream.send(event).is_err() {
                    return;
                }
            }
        })
    }

    fn go(&self, name: &str) -> Response {
        let waiting = self.waiting.lock().unwrap();
        let told = waiting.get(name).is_some_and(|go| go.send(()).is_ok());
        Response::new(if told { 204 } else { 409 })
    }

    /// Counts a visit, and returns how many there have been.
    fn visit(&self, name: &str) -> usize {
        let mut visits = self.visits.lock().unwrap();
        let count = visits.entry(name.to_string()).or_default();
        *count += 1;
        *count
    }

    fn visits(&self, name: &str) -> usize {
        self.visits.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

/// Sends heartbeats, and then an event.
fn heartbeats() -> Sse {
    let quiet = 20 * SOON;
    let stream = Sse::spawn(move |events| {
        thread::sleep(quiet); // The silence that heartbeats fill.
        let _ = events.send(Event::data("after a while"));
    });
    stream.heartbeat(SOON)
}

/// Sends these events and ends.
fn ends(events: impl IntoIterator<Item = Event>) -> Sse {
    Sse::new(mpsc::channel().1).first(events)
}

/// One mebibyte, in which each part differs from its neighbours.
fn large_text() -> String {
    (b'a'..=b'z')
        .cycle()
        .take(1024 * 1024)
        .map(char::from)
        .collect()
}

fn json(texts: &[&str]) -> String {
    let mut json = String::from("[");
    for (at, text) in texts.iter().enumerate() {
        json += if at == 0 { "\"" } else { ",\"" };
        for unit in text.encode_utf16() {
            write!(json, "\\u{unit:04x}").unwrap();
        }
        json += "\"";
    }
    json + "]"
}
