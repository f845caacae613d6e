//! Scratch 1: an event stream is bytes over TCP. No crate, `std` alone.
//!
//! **New.** The whole protocol: a listener, a request that is read and ignored, a head that names the type of what follows,
//! and an event. An event is a line `data: ` with a text, and an empty line.
//!
//! **Try.** Run it with `cargo run --example scratch1`, then type `curl http://127.0.0.1:7733/` in another terminal. You see
//! `data: hello`. The connection closes, and that ends the response.
//!
//! **Still broken.** The server talks with one client at a time. Type `nc 127.0.0.1 7733` in a third terminal, which
//! connects and sends nothing: now curl waits until nc has ended. And a request that arrives in two pieces is answered after
//! the first piece. Step 2 mends both.
//!
//! **Exercise.** Give the event a name: a line `event: greeting` before its data. The `EventSource` of a browser then calls
//! the listeners of `greeting`, no longer `onmessage`. Check with
//!
//! ```text
//! cargo build --example scratch1 && cargo test --test scratch exercise_1 -- --ignored
//! ```

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Connection: close\r\n\r\n";

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    println!("scratch1 at http://{}", listener.local_addr()?);
    for stream in listener.incoming() {
        if let Err(error) = stream.and_then(|stream| serve(&stream)) {
            println!("a connection ends: {error}");
        }
    }
    Ok(())
}

fn serve(mut stream: &TcpStream) -> io::Result<()> {
    let _length = stream.read(&mut [0; 8192])?;
    stream.write_all(HEAD.as_bytes())?;
    stream.write_all(b"data: hello\n\n")
}
