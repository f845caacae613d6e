//! Resilience: the source of a producer fails at times, and its clients still get every reading.
//!
//! Run it with `cargo run --example resilient`, and type `curl -N http://127.0.0.1:7733/readings`. You see a reading a
//! second, with the time as its id:
//!
//! ```text
//! id: 1700000000
//! data: 20.84 °C
//! ```
//!
//! The source is out for 10 of every 30 seconds. Then the producer sends `event: trouble`, and tries again after 0.1 s,
//! 0.2 s, 0.4 s and 0.8 s. After the fifth attempt it gives up: the stream ends, and a `retry` field says when to
//! reconnect. A browser reconnects by itself. With curl, type
//!
//! ```text
//! curl -N -H 'Last-Event-ID: 1700000000' http://127.0.0.1:7733/readings
//! ```
//!
//! with the last id that you saw. Open <http://127.0.0.1:7733/> and watch it for a minute: readings arrive late, but none
//! is lost and none arrives twice, even when you stop the server for a while.

use std::error::Error;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, io, thread};

use tiny_sse::{Event, Request, Response, Server, Sse};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

/// How many times the producer asks its source for one reading, and the pause after the first failure.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The reconnection time once the producer has given up.
const RETRY: Duration = Duration::from_secs(2);

/// For how many seconds the source keeps a reading.
const KEPT: u64 = 300;

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../progress/main.rs"))
        .get("/readings", readings);
    println!("resilient at http://{}", server.addr());
    server.run()
}

/// Starts a producer for this client, which begins after the last reading that the client has.
fn readings(request: &Request) -> Sse {
    let seen = request.last_event_id().and_then(|id| id.parse().ok());
    let next = seen.map_or(now(), |seen: u64| seen.saturating_add(1));
    // A client can send any id: an older one than the source keeps, or one in the future.
    let next = next.clamp(now().saturating_sub(KEPT), now());
    // An error means that the client has left. It can also mean an invalid field, but these fields are valid.
    Sse::spawn(move |events| drop(produce(next, &events)))
}

fn produce(mut next: u64, events: &SyncSender<Event>) -> Result<(), Box<dyn Error>> {
    let mut failures = 0;
    loop {
        match source(next) {
            Ok(reading) => {
                events.send(Event::data(reading).id(next.to_string())?)?;
                next += 1;
                failures = 0;
            }
            Err(problem) => {
                failures += 1;
                let text = format!("{problem}, attempt {failures} of {ATTEMPTS}");
                // An `EventSource` dispatches its own "error" events, so this one has another name. It has no id, so that a
                // client that reconnects still asks for this reading.
                let trouble = Event::data(text).event("trouble")?;
                if failures == ATTEMPTS {
                    return Ok(events.send(trouble.retry(RETRY))?);
                }
                events.send(trouble)?;
                thread::sleep(FIRST_PAUSE * 2_u32.pow(failures - 1));
            }
        }
    }
}

/// Waits for the reading of one second, and returns it. In the last 10 of every 30 seconds the source fails.
fn source(second: u64) -> Result<String, &'static str> {
    thread::sleep(Duration::from_secs(second.saturating_sub(now())));
    match now() % 30 {
        20.. => Err("the source does not respond"),
        _ => Ok(format!("{:.2} °C", 20.0 + (second as f64 / 10.0).sin())),
    }
}

/// Returns the seconds since 1970.
fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
