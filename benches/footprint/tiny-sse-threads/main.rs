//! The smallest server that broadcasts a clock, in the plain form: a thread and a channel for each stream, and no hub.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use tiny_sse::{Event, Server, Sse};

type Streams = Arc<Mutex<Vec<Sender<Event>>>>;

fn main() -> std::io::Result<()> {
    let streams = Streams::default();
    let clock = Arc::clone(&streams);
    thread::spawn(move || {
        for second in 0u64.. {
            let event = Event::data(second.to_string());
            clock
                .lock()
                .unwrap()
                .retain(|stream| stream.send(event.clone()).is_ok());
            thread::sleep(Duration::from_secs(1));
        }
    });
    Server::bind("127.0.0.1:60000")?
        .get("/events", move |_request| {
            let (sender, receiver) = mpsc::channel();
            streams.lock().unwrap().push(sender);
            Sse::new(receiver)
        })
        .run()
}
