//! Journal: the lines of standard input, or of a file that grows, as a topic that survives restarts.
//!
//! Run it with `ping 127.0.0.1 2>&1 | cargo run --example journal` and open <http://127.0.0.1:7733/>, or type
//! `curl -N 'http://127.0.0.1:7733/lines?last_event_id=earliest'`. Each line is an event, and new lines arrive as they are
//! written. Stop the server and start it again: the page goes on where it was, and so does curl with its last id. The lines
//! are kept in `tiny-sse-journal` in the folder for temporary files. The file is an event stream, so `cat` shows it.
//!
//! After the port, a second argument is a file to follow in place of standard input, as `tail -f` does.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::time::Duration;
use std::{env, thread};

use tiny_sse::{Event, Hub, HubConfig, Request, Response, Server};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let port = arguments.next().unwrap_or("7733".to_string());
    let path = env::temp_dir().join("tiny-sse-journal");
    let hub = Hub::open(HubConfig {
        file_bytes: 64 * 1024 * 1024,
        history_file: Some(path.clone()),
        ..HubConfig::default()
    })?;
    let readers = hub.clone();
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../handover.rs"))
        .get("/lines", move |request: &Request| {
            let stream = readers.subscribe(request, "lines").earliest();
            stream.retry(Duration::from_secs(1))
        });
    println!("journal at http://{}", server.addr());
    println!("the lines are kept in {}", path.display());
    let follow = arguments.next();
    thread::spawn(move || {
        let done = match follow {
            Some(path) => follow_file(&hub, &path),
            None => publish_lines(&hub, &mut io::stdin().lock()),
        };
        if let Err(error) = done {
            eprintln!("no more lines are read: {error}");
        }
    });
    server.run()
}

/// Publishes each line, and waits until the line is on the disk before it reads the next one.
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

/// Publishes what is appended to a file from now on. A line that is written in two parts becomes two events.
fn follow_file(hub: &Hub, path: &str) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    file.seek(SeekFrom::End(0))?;
    loop {
        publish_lines(hub, &mut file)?;
        thread::sleep(Duration::from_millis(200));
    }
}
