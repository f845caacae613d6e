//! Testbed: the server for load tools and conformance tests. It has plain responses, an echo, streams, and a broadcast of any
//! size.
//!
//! Run it with `cargo run --release --example testbed`, then type `curl -N http://127.0.0.1:7733/load/events` in one
//! terminal and `curl 'http://127.0.0.1:7733/load/publish?n=3&size=40&rate=1'` in another. The first command prints the event
//! `hello`, then three events, one a second. Each of these begins with the time at which it was published.
//!
//! Without an argument the port is `$PORT`, or else 7733. With the argument `-` the testbed serves the listener that its
//! parent hands over as standard input. For each topic of the load, `$CAP` events are kept (1,024). The hub has `$WRITERS`
//! writer threads (2).

use std::env;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tiny_sse::{
    Config, Event, Hub, HubConfig, PublishError, Request, Response, Server, Sse, Subscription,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = env::args()
        .nth(1)
        .or_else(|| env::var("PORT").ok())
        .unwrap_or("7733".to_string());
    let cap = env::var("CAP")
        .ok()
        .and_then(|cap| cap.parse().ok())
        .unwrap_or(1024);
    let live = open_hub(1024)?;
    let load = open_hub(cap)?;
    let publisher = live.clone();
    let broadcaster = load.clone();
    // A load tool opens more connections than a deployment would allow.
    let config = Config {
        max_connections: 100_000,
        max_threads: 15_000,
        max_body_bytes: 4 * 1024 * 1024,
        ..Config::default()
    };
    let server = match &*port {
        #[cfg(unix)]
        "-" => Server::from_stdin()?,
        _ => Server::bind(format!("127.0.0.1:{port}"))?,
    };
    let server = server
        .config(config)
        .get("/plain", |_request| Response::bytes("text/plain", b"ok"))
        .get("/poll", |_request| Response::json(POLL))
        .post("/echo", echo)
        .get("/slow-close", |_request| slow_close())
        .get("/events", move |request| events(&live, request))
        .post("/publish", move |request| publish(&publisher, request))
        .get("/load/events", move |request| load_events(&load, request))
        .get("/load/publish", move |request| {
            broadcast(&broadcaster, request)
        });
    println!("listening on http://{}", server.addr());
    server.run()?;
    Ok(())
}

/// About a hundred bytes, as the response to a poll.
const POLL: &str = r#"{"status":"ok","value":1234.5678,"unit":"widgets","message":"nothing has changed since then"}"#;

/// Maximum bytes of an event, whatever size is asked for.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// Maximum number of topics that the events are spread over.
const MAX_TOPICS: u64 = 100_000;

fn open_hub(events: usize) -> std::io::Result<Hub> {
    let writers = env::var("WRITERS").ok();
    let writers = writers.and_then(|writers| writers.parse().ok());
    Hub::open(HubConfig {
        // Only the number of events is bounded, because the load tool publishes events of any size.
        history_events: events,
        history_bytes: usize::MAX,
        max_event_bytes: MAX_EVENT_BYTES,
        writer_threads: writers.unwrap_or(2),
        ..HubConfig::default()
    })
}

fn echo(request: &Request) -> Response {
    Response::bytes("application/octet-stream", request.body().to_vec())
}

/// Sends three events, and ends the stream.
fn slow_close() -> Sse {
    Sse::spawn(|events| {
        for number in 1..=3 {
            thread::sleep(Duration::from_millis(50));
            if events.send(Event::data(format!("slow {number}"))).is_err() {
                return;
            }
        }
    })
}

/// Subscribes to what `publish` publishes. Pages of all sites may read it.
fn events(hub: &Hub, request: &Request) -> Subscription {
    let stream = hub.subscribe(request, "live");
    let Some(origin) = request.header("origin") else {
        return stream;
    };
    stream
        .with_header("Access-Control-Allow-Origin", origin)
        .with_header("Access-Control-Allow-Credentials", "true")
        .with_header("Vary", "Origin")
}

/// Subscribes to a topic of the load.
fn load_events(hub: &Hub, request: &Request) -> Subscription {
    let topic = request.query("topic").unwrap_or("load");
    hub.subscribe(request, topic)
        // A heartbeat during a measurement would be noise.
        .heartbeat(Duration::from_secs(60))
        .first([Event::data("hello")])
}

/// Publishes the body of a request with the fields in its query.
fn publish(hub: &Hub, request: &Request) -> Response {
    match publish_event(hub, request) {
        Ok(()) => Response::new(204),
        Err(error) => Response::text(format!("{error}\n")).with_status(422),
    }
}

fn publish_event(hub: &Hub, request: &Request) -> Result<(), Box<dyn std::error::Error>> {
    let mut event = Event::data(std::str::from_utf8(request.body())?);
    if let Some(name) = request.query("event") {
        event = event.event(name)?;
    }
    if let Some(id) = request.query("id") {
        event = event.id(id)?;
    }
    if let Some(retry) = request.query("retry") {
        event = event.retry(Duration::from_millis(retry.parse()?));
    }
    hub.publish_wait("live", event)?;
    Ok(())
}

/// Publishes `n` events of `size` bytes, `rate` a second. Each begins with its time. `topics` spreads the events over the
/// topics `t0`, `t1` and so on, and `publishers` spreads the work over that many threads.
fn broadcast(hub: &Hub, request: &Request) -> Response {
    let number = |name, default| match request.query(name) {
        Some(text) => text
            .parse::<u64>()
            .map_err(|error| format!("{name}: {error}\n")),
        None => Ok(default),
    };
    let numbers = || {
        Ok::<_, String>((
            number("n", 1)?,
            number("size", 100)?.min(MAX_EVENT_BYTES as u64),
            number("rate", 0)?,
            number("topics", 0)?.min(MAX_TOPICS),
            number("publishers", 1)?.clamp(1, 64),
        ))
    };
    let (n, size, rate, topics, publishers) = match numbers() {
        Ok(numbers) => numbers,
        Err(text) => return Response::text(text).with_status(400),
    };
    let names: Arc<[String]> = match topics {
        0 => Arc::new(["load".to_string()]),
        _ => (0..topics).map(|topic| format!("t{topic}")).collect(),
    };
    let start = Instant::now();
    let publish_share = &|publisher: u64| -> Result<(), PublishError> {
        for index in (publisher..n).step_by(publishers as usize) {
            if let Some(due) = index.saturating_mul(1_000_000_000).checked_div(rate) {
                let due = start + Duration::from_nanos(due);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let topic = &names[(index % names.len() as u64) as usize];
            let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
            let mut payload = format!("@{now};");
            let rest = (size as usize).saturating_sub(payload.len());
            payload.extend(std::iter::repeat_n('.', rest));
            hub.publish(topic, Event::data(payload))?;
        }
        Ok(())
    };
    let published = thread::scope(|scope| {
        let spawn = |publisher| scope.spawn(move || publish_share(publisher));
        let threads: Vec<_> = (0..publishers).map(spawn).collect();
        let mut threads = threads.into_iter();
        threads.try_for_each(|thread| thread.join().unwrap_or(Err(PublishError::Closed)))
    });
    match published {
        Ok(()) => Response::text(format!("published {n}\n")),
        Err(error) => Response::text(format!("{error}\n")).with_status(500),
    }
}
