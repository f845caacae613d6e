//! Wire: every byte of an event stream between a client and a server, with a note on what it is.
//!
//! Run it with `cargo run --example wire`. It starts a server, connects to it as any client would, and prints each line
//! that goes over the wire: `>` is what the client sends, `<` what the server answers. Between the two events is a pause
//! that is long enough for a heartbeat, and after two seconds all is over. In the midst of it you see
//!
//! ```text
//! < 48\r\n                                         how many bytes the chunk has, in hexadecimal
//! < id: 42\n                                       the id that a client brings back
//! < data: two lines\n                              data of an event; a line for each of its lines
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;
use std::{env, thread};

use tiny_sse::{Event, KeepAlive, Response, Server, Sse};

const REQUEST: &str = "GET /events HTTP/1.1\r\n\
    Host: localhost\r\n\
    Accept: text/event-stream\r\n\
    Last-Event-ID: 41\r\n\
    \r\n";

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/events", |_request| answer())
        .spawn()?;
    let mut client = TcpStream::connect(server.addr())?;
    client.write_all(REQUEST.as_bytes())?;
    explain('>', REQUEST.as_bytes())?;
    explain('<', BufReader::new(client))?;
    println!("  the server closes the connection");
    Ok(server.shutdown(Duration::from_secs(2))?)
}

/// An event with every field that there is, a pause, and an event with none but data.
fn answer() -> Result<Sse, Response> {
    let first = Event::data("two lines\nare one event").event("greeting")?;
    let first = first.id("42")?.retry(Duration::from_secs(5));
    let stream = Sse::spawn(|events| {
        // An error would say that the client has left, and it is the only one here.
        let _ = events.send(first);
        thread::sleep(Duration::from_millis(1500));
        let _ = events.send(Event::data("goodbye"));
    });
    Ok(stream.keep_alive(KeepAlive::every(Duration::from_secs(1))))
}

/// Prints line after line as it comes, until there are no more.
fn explain(direction: char, mut lines: impl BufRead) -> io::Result<()> {
    let (mut before, mut line) = (String::new(), String::new());
    while lines.read_line(&mut line)? > 0 {
        let bytes = line.escape_debug().to_string();
        println!("{direction} {bytes:<46} {}", meaning(&line, &before));
        before = std::mem::take(&mut line);
    }
    Ok(())
}

/// What a line is, which for an empty one depends on the line before.
fn meaning(line: &str, before: &str) -> &'static str {
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
        "" if line == ": heartbeat\n" => "a comment: nothing to say, but still here",
        "" => "a comment, for clients that wait for a first byte",
        "id" => "the id that a client brings back",
        "event" => "the event's name; `message` when there is none",
        "data" => "data of an event; a line for each of its lines",
        "retry" => "come back after so many milliseconds",
        "\n" => "an empty line: the event ends",
        "0\r\n" => "the last chunk: nothing more comes",
        "\r\n" if before == "0\r\n" => "the answer ends",
        // Lines of a head end like this one, those of an event do not.
        "\r\n" if before.ends_with("\r\n") => "an empty line: the head ends",
        "\r\n" => "the chunk ends",
        size if u32::from_str_radix(size.trim_end(), 16).is_ok() => {
            "how many bytes the chunk has, in hexadecimal"
        }
        _ => "something else",
    }
}
