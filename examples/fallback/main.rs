//! Fallback: the same events by event stream, by long-poll and by plain polling, side by side.
//!
//! Run it with `cargo run --example fallback` and open <http://127.0.0.1:7733/>. It counts for each of the three ways the
//! requests, the bytes, the events that came and those that were missed, and draws how late each one was. A stream takes
//! one request; a long-poll one for each event, and is as quick; a poll asks whether there is news or not, and still comes
//! late or misses some.
//!
//! Long-poll comes from the same address as the stream, for whoever cannot read one:
//!
//! ```text
//! curl -N http://127.0.0.1:7733/events
//! curl 'http://127.0.0.1:7733/events?poll'
//! ```
//!
//! The second answers with the next event and its id, for the next request: `&last_event_id=` and that.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use std::{env, io, thread};

use tiny_sse::{Event, Hub, Response, Server};

/// Pauses between events in ms, over and over: mostly nothing happens, and now and then a lot.
const PAUSES: [u64; 8] = [1500, 400, 3000, 250, 900, 4000, 150, 2000];

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let latest = Arc::new(Mutex::new(String::new()));
    let (publisher, newest) = (hub.clone(), Arc::clone(&latest));
    thread::spawn(move || {
        for (number, pause) in (1..).zip(PAUSES.into_iter().cycle()) {
            let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
            let text = format!(r#"{{"number":{number},"at_ms":{now}}}"#);
            newest.lock().unwrap().clone_from(&text);
            if publisher.publish("figures", Event::data(text)).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(pause));
        }
    });
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/events", move |request| hub.subscribe(request, "figures"))
        .get("/latest", move |_request| {
            let text = latest.lock().unwrap().clone();
            Response::json(text).header("Cache-Control", "no-store")
        });
    println!("fallback at http://{}", server.addr());
    server.run()
}
