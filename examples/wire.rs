//! Wire: every byte of an event stream between a client and a server, with a note on what it is.
//!
//! Run it with `cargo run --example wire`. It starts a server, connects to it as any client would, and prints a line for
//! each line that goes over the wire; `>` is what the client sends, `<` what the server answers. It takes three seconds,
//! since there are pauses between the events, long enough for heartbeats, and ends with the stream:
//!
//! ```text
//! < 2c\r\n                                         a chunk of 44 bytes follows, in hexadecimal
//! < id: 42\n                                       the id that a client brings back
//! < data: two lines\n                              data of an event; a line for each of its lines
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;
use std::{env, thread};

use tiny_sse::{Event, KeepAlive, Server, Sse};

/// Where in an answer the client is.
enum Place {
    Head,
    ChunkSize,
    /// So many bytes are left of the chunk.
    Chunk(usize),
}

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("60000".to_string());
    let server = Server::bind(format!("127.0.0.1:{port}"))?.get("/events", |_request| events());
    let server = server.spawn()?;

    let mut client = TcpStream::connect(server.addr())?;
    let fields = "Accept: text/event-stream\r\nLast-Event-ID: 41";
    let request = format!(
        "GET /events HTTP/1.1\r\nHost: {}\r\n{fields}\r\n\r\n",
        server.addr()
    );
    client.write_all(request.as_bytes())?;
    for line in request.split_inclusive('\n') {
        print('>', line, meaning(line));
    }

    let (mut answer, mut place) = (BufReader::new(client), Place::Head);
    loop {
        let mut line = String::new();
        if answer.read_line(&mut line)? == 0 {
            println!("  the server closes the connection");
            break;
        }
        let (note, next) = match place {
            Place::Head if line == "\r\n" => (meaning(&line).to_string(), Place::ChunkSize),
            Place::Head => (meaning(&line).to_string(), Place::Head),
            Place::ChunkSize => {
                let size = usize::from_str_radix(line.trim_end(), 16)?;
                let last = if size == 0 {
                    ": the last one"
                } else {
                    ", in hexadecimal"
                };
                (
                    format!("a chunk of {size} bytes follows{last}"),
                    Place::Chunk(size),
                )
            }
            Place::Chunk(0) => ("the chunk ends".to_string(), Place::ChunkSize),
            Place::Chunk(left) => (meaning(&line).to_string(), Place::Chunk(left - line.len())),
        };
        print('<', &line, &note);
        place = next;
    }
    Ok(server.shutdown(Duration::from_secs(2))?)
}

/// What the server sends: two events, a pause before the second one, and a last one.
fn events() -> Result<Sse, Box<dyn Error>> {
    let two = Event::data("two lines\nare one event").id("42")?;
    let last = Event::data("goodbye").event("end")?;
    let stream = Sse::spawn(move |events| {
        for event in [two, Event::data("after a while")] {
            if events.send(event).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(1500));
        }
    });
    let heartbeat = KeepAlive::every(Duration::from_millis(1000));
    Ok(stream
        .keep_alive(heartbeat)
        .retry(Duration::from_secs(3))
        .last(last))
}

fn print(direction: char, line: &str, note: &str) {
    println!("{direction} {:<46} {note}", line.escape_debug().to_string());
}

/// What a line of a head or of an event stream is.
fn meaning(line: &str) -> &'static str {
    match line.split([':', ' ']).next().unwrap_or_default() {
        "GET" => "request line: method, target, version",
        "Host" => "which of a server's names is meant; HTTP/1.1 demands it",
        "Accept" => "what the client wants",
        "Last-Event-ID" => "a client that comes back says what it has",
        "HTTP/1.1" => "status line",
        "Date" => "when it was answered",
        "Content-Type" => "this makes it an event stream",
        "Cache-Control" => "nobody on the way may keep or change it",
        "X-Accel-Buffering" => "nginx is not to collect it",
        "Connection" => "it stays open",
        "Transfer-Encoding" => "no length is known: it comes in chunks",
        "\r\n" => "an empty line: the head ends",
        "" if line == ": heartbeat\n" => "a comment: nothing to say, but still here",
        "" => "a comment, for clients that wait for a first byte",
        "id" => "the id that a client brings back",
        "event" => "the event's name; `message` when there is none",
        "data" => "data of an event; a line for each of its lines",
        "retry" => "come back after so many milliseconds",
        "\n" => "an empty line: the event ends",
        _ => "something else",
    }
}
