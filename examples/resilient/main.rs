//! Resilience: a producer whose source fails at times, and clients that get every reading all the same.
//!
//! Run it with `cargo run --example resilient`, and type `curl -N http://127.0.0.1:60000/readings`. A reading comes each
//! second, with the time as its id:
//!
//! ```text
//! id: 1700000000
//! data: 20.84 °C
//! ```
//!
//! But the source is out for 10 seconds of every 30, and then
//!
//! ```text
//! event: trouble
//! data: the source does not answer, attempt 1 of 5
//! ```
//!
//! comes in its place, while the producer waits 0.1 s, 0.2 s, 0.4 s and so on before it tries again. With the fifth
//! attempt it gives up: the stream ends, behind a `retry` that says when to come back. A browser does that by itself; for
//! curl it is
//!
//! ```text
//! curl -N -H 'Last-Event-ID: 1700000000' http://127.0.0.1:60000/readings
//! ```
//!
//! with the last id that you saw. Open <http://127.0.0.1:60000/> and watch it for a minute: readings arrive late, and none
//! is lost or comes twice. Nor is one if you stop the server for a while.

use std::error::Error;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, io, thread};

use tiny_sse::{Event, Request, Response, Server, Sse};

/// How often the producer asks its source for one reading before it gives up, and what it waits after the first time.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// When a client shall come back once the producer has given up: soon, but not all the time.
const RETRY: Duration = Duration::from_secs(2);

/// How long the source keeps its readings.
const KEPT: Duration = Duration::from_secs(300);

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("60000".to_string());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/readings", readings);
    println!("resilient at http://{}", server.local_addr());
    server.run()
}

/// Each client has a producer of its own, which begins behind what that client has seen.
fn readings(request: &Request) -> Sse {
    let seen = request.last_event_id().and_then(|id| id.parse().ok());
    // A client can send what it likes: what is too old is no longer there, and what is to come is not waited for.
    let next = seen.map_or(now(), |seen: u64| seen.saturating_add(1));
    let next = next.clamp(now() - KEPT.as_secs(), now());
    Sse::spawn(move |events| {
        // An error says that the client has left, or that a field was wrong, which ours are not.
        let _ = produce(next, &events);
    })
}

fn produce(first: u64, events: &SyncSender<Event>) -> Result<(), Box<dyn Error>> {
    for number in first.. {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            let problem = match source(number) {
                Ok(reading) => {
                    events.send(Event::data(reading).id(number.to_string())?)?;
                    break;
                }
                Err(problem) => problem,
            };
            // Not called "error", which is what an `EventSource` calls its own. Without an id, so that a client that comes
            // back still asks for this reading.
            let text = format!("{problem}, attempt {attempt} of {ATTEMPTS}");
            let trouble = Event::data(text).event("trouble")?;
            if attempt == ATTEMPTS {
                return Ok(events.send(trouble.retry(RETRY))?);
            }
            events.send(trouble)?;
            thread::sleep(pause);
            pause *= 2;
        }
    }
    Ok(())
}

/// The reading of one second, which the source keeps for a while, as a database would. It is out for the last 10 seconds
/// of every 30.
fn source(second: u64) -> Result<String, &'static str> {
    while now() < second {
        thread::sleep(Duration::from_millis(50));
    }
    if now() % 30 >= 20 {
        return Err("the source does not answer");
    }
    let swing = (second % 1000) as f64 / 10.0;
    Ok(format!("{:.2} °C", 20.0 + swing.sin()))
}

/// Seconds since 1970, and never fewer than the source keeps.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().max(KEPT).as_secs()
}
