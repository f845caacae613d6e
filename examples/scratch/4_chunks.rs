//! Scratch 4: chunks, so that a stream can end.
//!
//! **New.** The body is sent in chunks, each with its size before it: one chunk for each event. A chunk of size 0 is the
//! end. A stream that ends says so, and a stream that was cut off does not. Without this, a proxy would pass on half a response
//! as a whole one.
//!
//! **Try.** Run it with `cargo run --example scratch4`, then type `curl -N --raw http://127.0.0.1:7733/` in another
//! terminal. For `hello` in the first one you see `d`, which is 13 in hexadecimal, and the event of 13 bytes. Ctrl-D ends
//! the stream with `0`. Without `--raw` curl takes the chunks apart; when you end the server with Ctrl-C, curl says that
//! data is missing.
//!
//! **Still broken.** Stop curl with Ctrl-C, and the server does not notice: its thread waits for an event. Only when you have
//! typed two more lines does it print that the connection ends. And a proxy may close a stream on which nothing happens for a
//! minute. Step 5 mends both.
//!
//! **Exercise.** A client that speaks HTTP/1.0 does not know chunks. Send it the events as they are, without
//! `Transfer-Encoding`, and close at the end. Check with
//!
//! ```text
//! cargo build --example scratch4 && cargo test --test scratch exercise_4 -- --ignored
//! ```

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, thread};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Transfer-Encoding: chunked\r\n\r\n";
const MAX_REQUEST_BYTES: u64 = 8192;
/// How long a client may send nothing.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The sending end of each reader's channel.
static READERS: Mutex<Vec<Sender<Arc<str>>>> = Mutex::new(Vec::new());

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    println!("scratch4 at http://{}", listener.local_addr()?);
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
    let event: Arc<str> = chunk(&format!("data: {text}\n\n")).into();
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
    stream.write_all(b"0\r\n\r\n")
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

/// A size in hexadecimal, and as many bytes (RFC 9112 section 7.1).
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}
