//! Wire: every byte of an event stream between a client and a server, each line with its meaning.
//!
//! Run it with `cargo run --example wire`. It starts a server, connects to it as a client, and prints each line that goes
//! over the wire: `>` is sent by the client, `<` by the server. The pause between the two events is long enough for a
//! heartbeat, and after two seconds the program ends. Among other lines you see
//!
//! ```text
//! < 48\r\n                                         the size of the chunk in bytes, in hexadecimal
//! < id: 42\n                                       the id that a client sends when it reconnects
//! < data: two lines\n                              a line of the event's data
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;
use std::{env, thread};

use tiny_sse::{Event, Response, Server, Sse};

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
    Ok(server.shutdown(Duration::from_secs(2))?)
}

/// Sends an event that has every field, and after a pause an event that has only data.
fn answer() -> Result<Sse, Response> {
    let first = Event::data("two lines\nare one event").event("greeting")?;
    let first = first.id("42")?.retry(Duration::from_secs(5));
    let stream = Sse::spawn(|events| {
        // An error means that the client has left, and this program is the client.
        let _ = events.send(first);
        thread::sleep(Duration::from_millis(1500));
        let _ = events.send(Event::data("goodbye"));
    });
    Ok(stream.heartbeat(Duration::from_secs(1)))
}

/// Prints each line as it arrives, until the end of the request or response.
fn explain(direction: char, mut lines: impl BufRead) -> io::Result<()> {
    let (mut before, mut line) = (String::new(), String::new());
    while lines.read_line(&mut line)? > 0 {
        let bytes = line.escape_debug().to_string();
        println!("{direction} {bytes:<46} {}", meaning(&line, &before));
        if before == "0\r\n" {
            break; // The response has ended, and the connection is there for another request.
        }
        before = std::mem::take(&mut line);
    }
    Ok(())
}

/// Returns the meaning of a line. The meaning of an empty line depends on the line before.
fn meaning(line: &str, before: &str) -> &'static str {
    match line.split([':', ' ']).next().unwrap_or_default() {
        "GET" => "request line: method, target, version",
        "Host" => "the name of the server; HTTP/1.1 requires it",
        "Accept" => "the media type that the client wants",
        "Last-Event-ID" => "the last event that the client has",
        "HTTP/1.1" => "status line",
        "Date" => "the time of the response",
        "Content-Type" => "the media type of event streams",
        "Cache-Control" => "no cache may keep it, and no proxy change it",
        "X-Accel-Buffering" => "nginx must pass it on without buffering",
        "Connection" => "whether the connection stays open afterwards",
        "Transfer-Encoding" => "the length is unknown, so the body is sent in chunks",
        "" if line == ": heartbeat\n" => "a comment: the connection is alive",
        "" => "a comment, for clients that wait for the first byte",
        "id" => "the id that a client sends when it reconnects",
        "event" => "the event's name; without it, `message`",
        "data" => "a line of the event's data",
        "retry" => "the reconnection time in milliseconds",
        "\n" => "an empty line: the event ends",
        "0\r\n" => "the last chunk: the body ends",
        "\r\n" if before == "0\r\n" => "the response ends",
        // The lines of a head end with CR and LF, those of an event with LF.
        "\r\n" if before.ends_with("\r\n") => "an empty line: the head ends",
        "\r\n" => "the chunk ends",
        size if u32::from_str_radix(size.trim_end(), 16).is_ok() => {
            "the size of the chunk in bytes, in hexadecimal"
        }
        _ => "something else",
    }
}
