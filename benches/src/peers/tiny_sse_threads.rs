//! tiny-sse without a hub: `Sse::new` over a `std::sync::mpsc` channel, so a thread and a channel for each stream. The form
//! with a hub is the `testbed` example of the root package.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, Sender},
    },
    thread,
    time::Instant,
};

use tiny_sse::{Config, Event, Request, Response, Server, Sse};
use tiny_sse_benches::{HELLO, Load, PLAIN, POLL, address};

/// The channels of all streams. Those whose reader has gone are dropped at the next event.
type Streams = Arc<Mutex<Vec<Sender<Event>>>>;

fn main() -> std::io::Result<()> {
    let streams = Streams::default();
    let [live, publisher, load, load_publisher] = [(); 4].map(|()| streams.clone());
    let config = Config {
        max_connections: 20_000,
        max_threads: 15_000,
        ..Config::default()
    };
    Server::bind(address())?
        .config(config)
        .get("/plain", |_request| PLAIN)
        .get("/poll", |_request| Response::json(POLL))
        .get("/events", move |_request| subscribe(&live))
        .post("/publish", move |request| {
            let text = String::from_utf8_lossy(request.body());
            publish(&publisher, &Event::data(text));
            PLAIN
        })
        .get("/load/events", move |_request| {
            subscribe(&load).first([Event::data(HELLO)])
        })
        .get("/load/publish", move |request| {
            load_publish(&load_publisher, request)
        })
        .run()
}

fn subscribe(streams: &Streams) -> Sse {
    let (sender, receiver) = mpsc::channel();
    streams.lock().unwrap().push(sender);
    Sse::new(receiver)
}

fn publish(streams: &Streams, event: &Event) {
    streams
        .lock()
        .unwrap()
        .retain(|stream| stream.send(event.clone()).is_ok());
}

fn load_publish(streams: &Streams, request: &Request) -> &'static str {
    let query: Vec<String> = ["n", "size", "rate"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", request.query(name)?)))
        .collect();
    let load = Load::from_query(&query.join("&"));
    for index in 0..load.count {
        if let Some(due) = load.due(index) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        publish(streams, &Event::data(load.payload()));
    }
    PLAIN
}
