//! The smallest server that broadcasts a clock, without a hub: a thread and a channel for each stream.

use std::{
    sync::{
        Mutex,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use tiny_sse::{Event, Server, Sse};

static STREAMS: Mutex<Vec<Sender<Event>>> = Mutex::new(Vec::new());

fn main() -> std::io::Result<()> {
    thread::spawn(|| {
        for second in 0u64.. {
            let event = Event::data(second.to_string());
            let mut streams = STREAMS.lock().unwrap();
            streams.retain(|stream| stream.send(event.clone()).is_ok());
            drop(streams);
            thread::sleep(Duration::from_secs(1));
        }
    });
    Server::bind("127.0.0.1:7733")?
        .get("/events", |_request| {
            let (sender, receiver) = mpsc::channel();
            STREAMS.lock().unwrap().push(sender);
            Sse::new(receiver)
        })
        .run()
}
