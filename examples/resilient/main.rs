//! Resilience: a producer whose source fails at times, and clients that get every reading all the same.
//!
//! Run it with `cargo run --example resilient`, and type `curl -N http://127.0.0.1:7733/readings`. A reading comes each
//! second, with the time as its id:
//!
//! ```text
//! id: 1700000000
//! data: 20.84 °C
//! ```
//!
//! But the source is out for 10 seconds of every 30. Then comes `event: trouble` in its place, and the producer tries again
//! after 0.1 s, 0.2 s, 0.4 s and 0.8 s. With the fifth attempt it gives up: the stream ends, behind a `retry` that says
//! when to come back. A browser does that by itself; for curl it is
//!
//! ```text
//! curl -N -H 'Last-Event-ID: 1700000000' http://127.0.0.1:7733/readings
//! ```
//!
//! with the last id that you saw. Open <http://127.0.0.1:7733/> and watch it for a minute: readings arrive late, and none
//! is lost or comes twice. Nor is one if you stop the server for a while.

use std::error::Error;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, io, thread};

use tiny_sse::{Event, Request, Response, Server, Sse};

/// How often the producer asks its source for one reading before it gives up, and what it waits after the first time.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// When a client shall come back once the producer has given up: soon, but not all the time.
const RETRY: Duration = Duration::from_secs(2);

/// For how many seconds the source keeps its readings.
const KEPT: u64 = 300;

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/readings", readings);
    println!("resilient at http://{}", server.addr());
    server.run()
}

/// Each client has a producer of its own, which begins behind what that client has seen.
fn readings(request: &Request) -> Sse {
    let seen = request.last_event_id().and_then(|id| id.parse().ok());
    let next = seen.map_or(now(), |seen: u64| seen.saturating_add(1));
    // A client can send what it likes: neither what is too old is there, nor what is to come.
    let next = next.clamp(now().saturating_sub(KEPT), now());
    // An error says that the client has left, or that a field was wrong, which ours are not.
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
                // Not called "error", which is what an `EventSource` calls its own. Without an id, so that a client that
                // comes back still asks for this reading.
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

/// The reading of one second, as soon as there is one. It is kept for a while, as in a database; but for the last 10
/// seconds of every 30 nobody gets any.
fn source(second: u64) -> Result<String, &'static str> {
    thread::sleep(Duration::from_secs(second.saturating_sub(now())));
    match now() % 30 {
        20.. => Err("the source does not answer"),
        _ => Ok(format!("{:.2} °C", 20.0 + (second as f64 / 10.0).sin())),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
