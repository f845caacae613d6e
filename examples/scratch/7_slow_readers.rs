//! Scratch 7: a reader that does not read costs bounded memory and bounded time.
//!
//! **New.** The queue of each reader has a limit. A reader whose queue is full gets no more: its stream ends after what is
//! in the queue, and its client comes back with the last id. A write that makes no progress for three seconds ends the
//! connection. A loss is announced: a client whose id is older than the history first gets an event named `gap`.
//!
//! **Try.** Run it with `yes | cargo run --example scratch7`, which publishes as fast as it can. In another terminal,
//! `curl -N http://127.0.0.1:7733/` cannot keep up: it shows some hundred events, then the stream ends. With
//! `curl -N -H 'Last-Event-ID: 1' http://127.0.0.1:7733/ | head -n 3` the first event is the gap.
//!
//! **Still broken.** The only way to stop the server is to kill it, as Ctrl-C does. A client may then get half an event.
//! Step 8 adds a better way.
//!
//! **Exercise.** Each connection costs a thread. Answer the 101st reader with `503 Service Unavailable`, for as long as a
//! hundred others are connected. Check with
//!
//! ```text
//! cargo build --example scratch7 && cargo test --test scratch exercise_7 -- --ignored
//! ```

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, thread};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Transfer-Encoding: chunked\r\n\r\n";
const MAX_REQUEST_BYTES: u64 = 8192;
/// How long a client may send nothing, or take nothing.
const TIMEOUT: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_secs(2);
const KEPT_EVENTS: usize = 100;

#[derive(Default)]
struct Hub {
    last_id: u64,
    /// The newest events, encoded. The last of them has `last_id`.
    history: VecDeque<Arc<str>>,
    readers: Vec<SyncSender<Arc<str>>>,
}

static HUB: LazyLock<Mutex<Hub>> = LazyLock::new(Mutex::default);

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    println!("scratch7 at http://{}", listener.local_addr()?);
    thread::spawn(keyboard);
    thread::spawn(clock);
    for stream in listener.incoming() {
        // Too many open files, for example: some will be closed soon.
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        thread::spawn(move || {
            if let Err(error) = serve(&stream) {
                println!("a connection ends: {error}");
            }
        });
    }
    Ok(())
}

/// A producer. At its end, all streams end.
fn keyboard() {
    for line in io::stdin().lines().map_while(Result::ok) {
        publish(&line);
    }
    hub().readers.clear();
}

/// The other producer.
fn clock() {
    loop {
        thread::sleep(Duration::from_secs(60));
        publish("a minute has passed");
    }
}

/// Sends an event to all readers, and forgets those that have left or whose queue is full.
fn publish(text: &str) {
    let mut hub = hub();
    hub.last_id += 1;
    let event: Arc<str> = chunk(&format!("id: {}\ndata: {text}\n\n", hub.last_id)).into();
    hub.readers.retain(|to| to.try_send(event.clone()).is_ok());
    hub.history.push_back(event);
    if hub.history.len() > KEPT_EVENTS {
        hub.history.pop_front();
    }
}

/// Begins after the last event that a client has seen, else with the next event. The lock makes this one step: no event is
/// published between the history and what the queue gets after it.
fn subscribe(last_event_id: Option<u64>) -> Receiver<Arc<str>> {
    // Room for the history, and as much again.
    let (sender, receiver) = mpsc::sync_channel(2 * KEPT_EVENTS);
    let mut hub = hub();
    let forgotten = hub.last_id - hub.history.len() as u64;
    let mut seen = last_event_id.unwrap_or(hub.last_id);
    if seen < forgotten || seen > hub.last_id {
        let _ = sender.try_send(chunk("event: gap\ndata: some events are lost\n\n").into());
        seen = forgotten;
    }
    for event in hub.history.iter().skip((seen - forgotten) as usize) {
        let _ = sender.try_send(event.clone());
    }
    hub.readers.push(sender);
    receiver
}

/// Locks the hub, which is whole even if a thread panicked while it held the lock.
fn hub() -> MutexGuard<'static, Hub> {
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let events = subscribe(read_request(stream)?);
    stream.write_all(HEAD.as_bytes())?;
    loop {
        match events.recv_timeout(HEARTBEAT) {
            Ok(event) => stream.write_all(event.as_bytes())?,
            Err(RecvTimeoutError::Timeout) => {
                stream.write_all(chunk(": heartbeat\n").as_bytes())?
            }
            Err(RecvTimeoutError::Disconnected) => return stream.write_all(b"0\r\n\r\n"),
        }
    }
}

/// Reads the lines of a request up to the empty one, and returns its last event ID.
fn read_request(stream: &TcpStream) -> io::Result<Option<u64>> {
    let mut last_event_id = None;
    for line in BufReader::new(stream.take(MAX_REQUEST_BYTES)).lines() {
        let line = line?;
        if line.is_empty() {
            return Ok(last_event_id);
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("Last-Event-ID") {
            last_event_id = value.trim().parse().ok();
        }
    }
    Err(ErrorKind::InvalidData.into())
}

/// A size in hexadecimal, and as many bytes (RFC 9112 section 7.1).
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}
