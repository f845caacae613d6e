//! tiny_http: a thread for each stream, which owns the raw writer that `into_writer` gives. Its own chunked body
//! gathers 8 KiB before it writes, so an event would wait for its successors.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex,
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
    time::Instant,
};

use tiny_http::{Header, Method, Request, Response, Server};
use tiny_sse_benches::{HELLO, Load, PLAIN, POLL, address, capacity};

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

/// The queues of all streams. Those whose reader has gone are dropped at the next event.
type Streams = Mutex<Vec<SyncSender<Arc<str>>>>;

fn main() {
    let server = Server::http(address()).expect("the address is free");
    let streams = Arc::new(Streams::default());
    for request in server.incoming_requests() {
        let streams = streams.clone();
        let small = thread::Builder::new().stack_size(64 * 1024);
        // If a thread cannot be started, only this client is refused.
        let _ = small.spawn(move || answer(request, &streams));
    }
}

fn answer(mut request: Request, streams: &Streams) -> io::Result<()> {
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    match (request.method(), path) {
        (Method::Get, "/plain") => request.respond(Response::from_string(PLAIN)),
        (Method::Get, "/poll") => {
            let json =
                Header::from_bytes("Content-Type", "application/json").expect("a valid header");
            request.respond(Response::from_string(POLL).with_header(json))
        }
        (Method::Get, "/events") => stream(request, streams, None),
        (Method::Get, "/load/events") => stream(request, streams, Some(HELLO)),
        (Method::Post, "/publish") => {
            let mut text = String::new();
            request.as_reader().read_to_string(&mut text)?;
            publish(streams, &text);
            request.respond(Response::from_string(PLAIN))
        }
        (Method::Get, "/load/publish") => {
            let load = Load::from_query(query);
            for index in 0..load.count {
                if let Some(due) = load.due(index) {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                publish(streams, &load.payload());
            }
            request.respond(Response::from_string(PLAIN))
        }
        _ => request.respond(Response::from_string("not found").with_status_code(404)),
    }
}

fn stream(request: Request, streams: &Streams, first: Option<&str>) -> io::Result<()> {
    let (sender, events) = mpsc::sync_channel(capacity());
    // Before the first event: a client that has read it misses no later event.
    streams.lock().unwrap().push(sender);
    let mut writer = request.into_writer();
    writer.write_all(HEAD)?;
    if let Some(text) = first {
        writer.write_all(encode(text).as_bytes())?;
    }
    writer.flush()?;
    for event in events {
        writer.write_all(event.as_bytes())?;
        writer.flush()?;
    }
    Ok(())
}

/// Hands the event to every stream. A reader whose queue is full loses it, as in the broadcast of the others.
fn publish(streams: &Streams, text: &str) {
    let event = Arc::<str>::from(encode(text));
    let has_not_gone = |stream: &SyncSender<Arc<str>>| {
        !matches!(
            stream.try_send(event.clone()),
            Err(TrySendError::Disconnected(_))
        )
    };
    streams.lock().unwrap().retain(has_not_gone);
}

/// One event as one chunk.
fn encode(text: &str) -> String {
    let event = format!("data: {text}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}
