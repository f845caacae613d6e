//! The smallest server that broadcasts a clock.

use std::{thread, time::Duration};

use tiny_sse::{Event, Hub, Server};

fn main() -> std::io::Result<()> {
    let hub = Hub::new();
    let clock = hub.clone();
    thread::spawn(move || {
        for second in 0u64.. {
            let _ = clock.publish("clock", Event::data(second.to_string()));
            thread::sleep(Duration::from_secs(1));
        }
    });
    Server::bind("127.0.0.1:7733")?
        .get("/events", move |request| hub.subscribe(request, ["clock"]))
        .run()
}
