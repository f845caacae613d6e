//! A log that is still there: standard input, or a file that grows, into a durable topic and into the browser.
//!
//! Run it with `ping 127.0.0.1 2>&1 | cargo run --example journal` and open the printed address, or type
//! `curl -N 'http://127.0.0.1:7733/lines?last_event_id=earliest'`: each line comes as an event, and the next ones as
//! they are written. Stop it and start it again: page and curl with the last id go on where they were, as what has been
//! read is kept in `tiny-sse-journal` in the folder for temporary files, which `cat` shows, as it is an event stream.
//!
//! Behind the port, a second argument is a file to follow in place of standard input, as `tail -f` does.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::thread;
use std::time::Duration;

use tiny_sse::{Event, History, Hub, HubConfig, Request, Response, Server, Start};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().unwrap_or("7733".to_string());
    let path = std::env::temp_dir().join("tiny-sse-journal");
    let hub = Hub::open(HubConfig {
        history: History::file(&path).file_bytes(64 * 1024 * 1024),
        ..HubConfig::default()
    })?;
    let readers = hub.clone();
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/lines", move |request: &Request| {
            let stream = readers.subscribe(request, "lines").start(Start::Earliest);
            stream.retry(Duration::from_secs(1))
        });
    println!("open http://{}/", server.addr());
    println!("what has been read is kept in {}", path.display());
    let follow = arguments.next();
    thread::spawn(move || {
        let done = match follow {
            Some(path) => follow_file(&hub, &path),
            None => publish_lines(&hub, &mut io::stdin().lock()),
        };
        if let Err(error) = done {
            eprintln!("nothing more comes: {error}");
        }
    });
    server.run()
}

/// Publishes line after line, each of which is on the disk before the next one is read.
fn publish_lines(hub: &Hub, lines: &mut impl BufRead) -> io::Result<()> {
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let event = Event::data(text.trim_end_matches(['\r', '\n']));
        hub.publish_wait("lines", event).map_err(io::Error::other)?;
        line.clear();
    }
    Ok(())
}

/// What is appended to a file from now on. A line that is only half written yet comes in two.
fn follow_file(hub: &Hub, path: &str) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    file.seek(SeekFrom::End(0))?;
    loop {
        publish_lines(hub, &mut file)?;
        thread::sleep(Duration::from_millis(200));
    }
}
