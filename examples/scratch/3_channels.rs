//! Scratch 3: producers on threads, and an `mpsc` channel for each client.
//!
//! **New.** A response that stays open. Each client's thread waits at the receiving end of a channel and writes what
//! arrives. The sending ends are in one list, and a producer sends each event to all of them. There are two producers, each a
//! thread: one for what you type, and a clock that announces each minute. The list's lock brings their events into one order,
//! the same for all readers.
//!
//! **Try.** Run it with `cargo run --example scratch3`, then type `curl -N http://127.0.0.1:7733/` in a second and a third
//! terminal. What you type in the first one, line by line, appears in both: `data: ` and your text. Ctrl-D ends your input,
//! which drops the sending ends: both streams end, and curl with them.
//!
//! **Still broken.** Start again, and kill the server with Ctrl-C: to curl this is the same as an end by Ctrl-D. A client
//! cannot tell a stream that is complete from one that was cut off, and neither can a proxy. Step 4 mends this.
//!
//! **Exercise.** A carriage return ends a line of an event stream too. Text with one in it, `a\revent: b`, forges a field.
//! Send such a text as several lines `data: `. Check with
//!
//! ```text
//! cargo build --example scratch3 && cargo test --test scratch exercise_3 -- --ignored
//! ```

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, thread};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Connection: close\r\n\r\n";
const MAX_REQUEST_BYTES: u64 = 8192;
/// How long a client may send nothing.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The sending end of each reader's channel.
static READERS: Mutex<Vec<Sender<Arc<str>>>> = Mutex::new(Vec::new());

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    println!("scratch3 at http://{}", listener.local_addr()?);
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
    readers().clear();
}

/// The other producer.
fn clock() {
    loop {
        thread::sleep(Duration::from_secs(60));
        publish("a minute has passed");
    }
}

/// Sends an event to all readers, and forgets those that have left.
fn publish(text: &str) {
    let event: Arc<str> = format!("data: {text}\n\n").into();
    readers().retain(|to| to.send(event.clone()).is_ok());
}

fn subscribe() -> Receiver<Arc<str>> {
    let (sender, receiver) = mpsc::channel();
    readers().push(sender);
    receiver
}

/// Locks the list, which is whole even if a thread panicked while it held the lock.
fn readers() -> MutexGuard<'static, Vec<Sender<Arc<str>>>> {
    READERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let _request = read_request(stream)?;
    // Before the head: a client that has read the head misses no later event.
    let events = subscribe();
    stream.write_all(HEAD.as_bytes())?;
    for event in events {
        stream.write_all(event.as_bytes())?;
    }
    Ok(())
}

/// Reads the lines of a request up to the empty one.
fn read_request(stream: &TcpStream) -> io::Result<Vec<String>> {
    let mut request = Vec::new();
    for line in BufReader::new(stream.take(MAX_REQUEST_BYTES)).lines() {
        let line = line?;
        if line.is_empty() {
            return Ok(request);
        }
        request.push(line);
    }
    Err(ErrorKind::InvalidData.into())
}
