//! Resume: a client that reconnects gets what it missed. When that is no longer kept, the client is told.
//!
//! Run it with `cargo run --example resume`, then type `curl -N http://127.0.0.1:7733/` in another terminal. After a
//! comment and an `id` without an event, you see an event a second:
//!
//! ```text
//! id: 6ad1c3e5b2f04c97-12
//! data: 12 seconds
//! ```
//!
//! Stop curl with Ctrl-C, wait some seconds, and reconnect with the last id that you saw:
//!
//! ```text
//! curl -N -H 'Last-Event-ID: 6ad1c3e5b2f04c97-12' http://127.0.0.1:7733/
//! ```
//!
//! The events from 13 on arrive at once, and none is missing. The `EventSource` of a browser does all this by itself. Then
//! stop curl again, and wait for more than the 20 seconds that the hub keeps. Now the first event is
//!
//! ```text
//! id: 6ad1c3e5b2f04c97-30
//! event: gap
//! data: {"from":"6ad1c3e5b2f04c97-12","to":"6ad1c3e5b2f04c97-30","lost":null}
//! ```
//!
//! and after it come all events that the hub still has. Restart the server, and it no longer knows the old id. That is a
//! gap as well: a client never resumes at a wrong place, and never loses events in silence.

use std::time::Duration;
use std::{env, io, thread};

use tiny_sse::{Event, Hub, HubConfig, Server};

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::open(HubConfig {
        history_events: 20,
        ..HubConfig::default()
    })?;
    let clock = hub.clone();
    thread::spawn(move || tick(&clock));
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", move |request| hub.subscribe(request, "clock"));
    println!("resume at http://{}", server.addr());
    server.run()
}

/// Publishes an event a second.
fn tick(hub: &Hub) {
    for second in 1_u64.. {
        thread::sleep(Duration::from_secs(1));
        let event = Event::data(format!("{second} seconds"));
        if hub.publish("clock", event).is_err() {
            return;
        }
    }
}
