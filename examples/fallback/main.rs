//! Fallback: the same events by event stream, by long-poll and by plain polling, side by side.
//!
//! Run it with `cargo run --example fallback` and open <http://127.0.0.1:7733/>. For each of the three ways the page counts
//! the requests, the bytes, the events that arrived and those that were missed, and draws the delay of each event. A stream
//! takes one request. A long-poll takes one request for each event, and is as fast. A poll sends requests all the time, and
//! still gets events late or misses them.
//!
//! Long-poll uses the URL of the stream, for clients that cannot read a stream:
//!
//! ```text
//! curl -N http://127.0.0.1:7733/events
//! curl 'http://127.0.0.1:7733/events?poll'
//! ```
//!
//! The second command prints the next event and its id. The next request has this id in its query: `&last_event_id=`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use std::{env, io, thread};

use tiny_sse::{Event, Hub, Response, Server};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

/// The pauses between events in ms, repeated: mostly quiet, with bursts.
const PAUSES: [u64; 8] = [1500, 400, 3000, 250, 900, 4000, 150, 2000];

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let latest = Arc::new(Mutex::new(String::new()));
    let publisher = hub.clone();
    let newest = Arc::clone(&latest);
    thread::spawn(move || produce(&publisher, &newest));
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../journal/main.rs"))
        .get("/events", move |request| hub.subscribe(request, "figures"))
        .get("/latest", move |_request| {
            let text = latest.lock().unwrap().clone();
            Response::json(text).with_header("Cache-Control", "no-store")
        });
    println!("fallback at http://{}", server.addr());
    server.run()
}

/// Publishes events, and keeps the newest one for polls.
fn produce(hub: &Hub, latest: &Mutex<String>) {
    for (number, pause) in (1..).zip(PAUSES.into_iter().cycle()) {
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let text = format!(r#"{{"number":{number},"at_ms":{now}}}"#);
        latest.lock().unwrap().clone_from(&text);
        if hub.publish("figures", Event::data(text)).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(pause));
    }
}
