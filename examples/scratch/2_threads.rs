//! Scratch 2: a thread for each connection, and a request that is read to its end, within limits.
//!
//! **New.** Each connection has a thread, so that a slow or silent client makes no other client wait. A request is lines up to
//! an empty one, however many pieces it arrives in. Nobody can make the server wait for ever or fill its memory: a request may
//! take 8 KiB, and each read 3 seconds. An error of `accept`, such as too many open files, ends nothing: the loop goes on after
//! a pause.
//!
//! **Try.** Run it with `cargo run --example scratch2`, then type `nc 127.0.0.1 7733` in a second terminal, and
//! `curl http://127.0.0.1:7733/` in a third. You see `data: hello` at once. Three seconds later the server closes the
//! connection of nc and prints why.
//!
//! **Still broken.** The response ends after the one event that is there at the start. What happens later cannot reach a
//! client that is already connected. Step 3 mends this.
//!
//! **Exercise.** Answer a request for anything but `/` with `404 Not Found`. The target is the second word of the first
//! line. Check with
//!
//! ```text
//! cargo build --example scratch2 && cargo test --test scratch exercise_2 -- --ignored
//! ```

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use std::{env, thread};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Connection: close\r\n\r\n";
const MAX_REQUEST_BYTES: u64 = 8192;
/// How long a client may send nothing.
const TIMEOUT: Duration = Duration::from_secs(3);

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    println!("scratch2 at http://{}", listener.local_addr()?);
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

fn serve(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let _request = read_request(stream)?;
    stream.write_all(HEAD.as_bytes())?;
    stream.write_all(b"data: hello\n\n")
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
