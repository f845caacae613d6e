//! The crate's client: what it does with responses, when it comes back, and with which `Last-Event-ID`.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::{PATIENCE, start};
use tiny_sse::{Config, Event, EventSource, Request, Response, Server, Sse};

/// A server that gives each connection the next of these responses and closes it. The channel has the heads of the requests.
fn script(responses: &[&str]) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let responses: Vec<String> = responses.iter().map(|text| text.to_string()).collect();
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for response in responses {
            let (mut stream, _) = listener.accept().unwrap();
            sender.send(read_head(&mut stream)).unwrap();
            let _ = stream.write_all(response.as_bytes());
        }
    });
    (addr, requests)
}

fn read_head(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn source(addr: SocketAddr) -> EventSource {
    let source = EventSource::new(&format!("http://{addr}/news")).unwrap();
    source.retry(Duration::from_millis(1))
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const ENDED: &str = "the server has ended the stream";

/// The first request gets the response, the second one 204. What the iterator yields: data or an error.
#[test]
fn a_response_is_read_by_its_framing() {
    let chunked = format!("{OK}Transfer-Encoding: chunked\r\n\r\n");
    let many = "0".repeat(20_000);
    let fields = "X: y\r\n".repeat(300);
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(300);
    #[rustfmt::skip] // A row is a line.
    let table: [(String, &[&str], &str); 25] = [
        (format!("{OK}\r\ndata: a\n\ndata: b\n\n"), &["a", "b", ENDED], "Without a length, the body ends with the connection."),
        (format!("{OK}\r\ndata: a\n\ndata: b\n"), &["a", ENDED], "An event without its blank line is none."),
        (format!("{OK}Content-Length: 9\r\n\r\ndata: a\n\ndata: b\n\n"), &["a", ENDED], "What follows the length is not read."),
        (format!("{chunked}9\r\ndata: a\n\n\r\n0\r\n\r\n"), &["a", ENDED], "One chunk, and the last chunk."),
        (format!("{OK}transfer-encoding: CHUNKED\r\n\r\n9\r\ndata: a\n\n\r\n0\r\n\r\n"), &["a", ENDED], "Names ignore case."),
        (format!("{chunked}9;x=1\r\ndata: a\n\n\r\n0\r\n\r\n"), &["a", ENDED], "An extension is ignored."),
        (format!("{chunked}3\r\ndat\r\n0006\r\na: a\n\n\r\n0\r\n\r\n"), &["a", ENDED], "An event in two chunks."),
        (format!("{chunked}12\r\ndata: a\n\ndata: b\n\n\r\n0\r\n\r\n"), &["a", "b", ENDED], "Two events in one chunk of 18 bytes."),
        (format!("{chunked}9\r\ndata: a\n\n"), &["a", ENDED], "An event does not wait for the end of its chunk."),
        (format!("{chunked}9\r\ndata: a\n\nxx\r\n9\r\ndata: b\n\n"), &["a", "a chunk has no size"], "The chunk has more bytes than its size says."),
        (format!("{chunked}+9\r\ndata: a\n\n\r\n"), &["a chunk has no size"], "A sign is no digit."),
        (format!("{chunked}{many}\r\n"), &["a line is too long"], "20,000 digits of a size."),
        (format!("{OK}X: {many}\r\n\r\ndata: a\n\n"), &["a line is too long"], "20,000 bytes of a field."),
        ("HTTP/1.0 200 OK\nContent-Type: Text/Event-Stream;charset=utf-8\n\ndata: a\n\n".into(), &["a", ENDED], "An old server, and LF alone."),
        (format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}\r\ndata: a\n\n"), &["a", ENDED], "The final response follows."),
        ("HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n".into(), &["a", ENDED], "Only an empty line ends the head."),
        (format!("{OK}{fields}\r\ndata: a\n\n"), &["the head of the response is too long"], "The same field 300 times."),
        (format!("{interim}{OK}\r\ndata: a\n\n"), &["the head of the response is too long"], "300 interim responses."),
        ("HTTP/1.1 503 Busy\r\n\r\n".into(), &["the server answers 503"], "The server may be back later."),
        (String::new(), &[ENDED], "The server closes without a word: it may be back later."),
        // From here on, no second attempt.
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>".into(), &["not an event stream, but \"text/html\""], "A page."),
        ("HTTP/1.1 404 Not Found\r\n\r\n".into(), &["the server answers 404"], "Another attempt would get the same."),
        ("HTTP/1.1 301 Moved\r\nLocation: /b\r\n\r\n".into(), &["the server answers 301"], "Redirects are not followed."),
        ("SSH-2.0-x 200 \r\n\r\n".into(), &["the response is not HTTP/1"], "Another protocol."),
        (format!("{OK}\r\ndata: {}\n\n", "a".repeat(1024 * 1024)), &["event is longer than 1048576 bytes"], "The same event would come again."),
    ];
    for (index, (response, expected, why)) in table.into_iter().enumerate() {
        let (addr, requests) = script(&[&response, NO_CONTENT]);
        let items: Vec<String> = source(addr)
            .map(|item| match item {
                Ok(message) => message.data,
                Err(error) => error.to_string(),
            })
            .collect();
        assert_eq!(items, expected, "{why}");
        let attempts = if index < 20 { 2 } else { 1 };
        assert_eq!(requests.try_iter().count(), attempts, "{why}");
    }
}

#[test]
fn each_request_says_after_which_event_it_goes_on() {
    let (addr, requests) = script(&[
        &format!("{OK}\r\nid: 7\ndata: a\n\n"),
        &format!("{OK}\r\nid: 8\n\n"), // No message, but an id.
        &format!("{OK}\r\n\u{FEFF}data: c\n\n"), // The id stays, and a byte order mark is dropped.
        "HTTP/1.1 503 Busy\r\n\r\n",   // The id stays.
        &format!("{OK}\r\nid: é\ndata: d\n\nid: 9\n"), // An event without its blank line has no id.
        NO_CONTENT,
    ]);
    let mut source = EventSource::new(&format!("http://{addr}?a=1#part"))
        .and_then(|source| source.with_header("Authorization", "Bearer b8f1"))
        .and_then(|source| source.after("6"))
        .unwrap()
        .retry(Duration::ZERO);
    let messages: Vec<(String, String)> = source
        .by_ref()
        .flatten()
        .map(|message| (message.data, message.last_event_id))
        .collect();
    let expected = [("a", "7"), ("c", "8"), ("d", "é")];
    assert_eq!(
        messages,
        expected.map(|(data, id)| (data.into(), id.into()))
    );
    assert_eq!(source.last_event_id(), "é");
    assert!(source.next().is_none(), "after 204 nothing is asked for");
    for id in ["6", "7", "8", "8", "8", "é"] {
        let expected = format!(
            "GET /?a=1 HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\nCache-Control: no-store\r\n\
             Authorization: Bearer b8f1\r\nLast-Event-ID: {id}\r\n\r\n"
        );
        assert_eq!(requests.recv().unwrap(), expected);
    }
}

#[test]
fn the_client_waits_as_long_as_the_server_asks() {
    #[rustfmt::skip] // A row is a line.
    let table = [
        (format!("{OK}\r\nretry: 60\n\n"), 60..=90, "The stream's `retry`, and up to half as much again."),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n".to_string(), 120..=180, "A failed attempt doubles it."),
        ("HTTP/1.1 429 Slow Down\r\nRetry-After: 1\r\n\r\n".to_string(), 1000..=1500, "`Retry-After` is longer."),
        (format!("{OK}\r\nretry: 0\n\n"), 50..=75, "Never less, whatever the server says."),
    ];
    let responses: Vec<&str> = table.iter().map(|(response, ..)| &**response).collect();
    let (addr, _requests) = script(&[&responses[..], &[NO_CONTENT]].concat());
    let mut source = source(addr);
    for (_, allowed, why) in &table {
        assert!(source.next().unwrap().is_err(), "{why}");
        let pause = source.pause().as_millis();
        assert!(allowed.contains(&pause), "{pause}: {why}");
    }
    assert!(source.next().is_none());
}

#[test]
fn a_wait_of_more_than_an_hour_counts_as_an_hour() {
    for response in [
        &format!("{OK}\r\nretry: 7200000\n\n"),
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7200\r\n\r\n",
    ] {
        let (addr, _requests) = script(&[response]);
        let mut source = source(addr);
        assert!(source.next().unwrap().is_err(), "{response}");
        let pause = source.pause().as_secs();
        assert!((3600..=5400).contains(&pause), "{pause}: {response}"); // Up to half as much again.
    }
}

#[test]
fn a_silent_server_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut open = Vec::new();
        let silent_after = [String::new(), format!("{OK}\r\ndata: a\n\n: half a com")];
        for start in silent_after
            .iter()
            .map(|start| &**start)
            .chain([NO_CONTENT])
        {
            let (mut stream, _) = listener.accept().unwrap();
            read_head(&mut stream);
            stream.write_all(start.as_bytes()).unwrap();
            open.push(stream);
        }
    });
    let mut source = source(addr).silence(Duration::from_secs(1));
    let silence = |source: &mut EventSource| {
        let error = source.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "the server was silent for too long");
    };
    silence(&mut source);
    assert_eq!(source.next().unwrap().unwrap().data, "a");
    silence(&mut source);
    assert!(source.next().is_none());
    server.join().unwrap();
}

/// The server goes away and comes back at the same address.
#[test]
fn a_server_that_restarts_is_found_again() {
    // The streams stay open until the server shuts down.
    let senders = Arc::new(Mutex::new(Vec::new()));
    let serve = |addr: &str, last: u32| {
        let senders = Arc::clone(&senders);
        let handler = move |request: &Request| {
            let seen: u32 = request.last_event_id().map_or(0, |id| id.parse().unwrap());
            let (sender, receiver) = mpsc::channel();
            for number in (seen + 1..=last).map(|number| number.to_string()) {
                let event = Event::data(&number).id(&number).unwrap();
                sender.send(event).unwrap();
            }
            senders.lock().unwrap().push(sender);
            Sse::new(receiver)
        };
        let server = Server::bind(addr).unwrap();
        server.get("/news", handler).spawn().unwrap()
    };
    let mut server = serve("127.0.0.1:0", 2);
    let addr = server.addr();
    let mut messages = source(addr).flatten().map(|message| message.data);
    for first in [1, 3, 5] {
        let both = (messages.next().unwrap(), messages.next().unwrap());
        assert_eq!(both, (first.to_string(), (first + 1).to_string()));
        server.shutdown(PATIENCE).unwrap();
        server = serve(&addr.to_string(), first + 3);
    }
    server.shutdown(PATIENCE).unwrap();
}

#[test]
fn the_client_reads_what_this_crate_serves() {
    let server = start(Config::default(), |server| {
        server.get("/news", |request: &Request| match request.last_event_id() {
            None => Response::from(Sse::spawn(|events| {
                let event = Event::data("a\nb").event("greeting").unwrap();
                let _ = events.send(event.id("1").unwrap());
            })),
            Some(_) => Response::new(204),
        })
    });
    let messages: Vec<_> = source(server.addr()).flatten().collect();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        (&*messages[0].event, &*messages[0].data),
        ("greeting", "a\nb")
    );
}

#[test]
fn what_cannot_be_sent_is_refused() {
    #[rustfmt::skip] // A row is a line.
    let urls = [
        "https://a/", // `std` has no TLS.
        "a:80/",
        "http://",
        "http://:80/",
        "http://a:b/", // Neither is a port.
        "http://a:65536/",
        "http://me@a/", // A password would be dropped silently.
        "http://a/b c",
        "http://a/\r\nX: y",
    ];
    for url in urls {
        let error = EventSource::new(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let expected = format!("not a URL of the form http://host:port/path: {url:?}");
        assert_eq!(error.to_string(), expected);
    }
    let source = || EventSource::new("http://[::1]/").unwrap();
    #[rustfmt::skip] // A row is a line.
    let fields = [("", "a"), ("a b", "a"), ("a:", "a"), ("a\r\nb", "a"), ("ü", "a"), ("a", "a\r\nb: c"), ("a", "\0")];
    for (name, value) in fields {
        let error = source().with_header(name, value).unwrap_err();
        assert_eq!(error.to_string(), format!("not a header field: {name:?}"));
    }
    assert!(source().after("a\nb").is_err());
    let source = source().with_header("X-A", "b: ü").unwrap();
    let source = source.after("ü").unwrap();
    // The request may hold secrets.
    assert_eq!(format!("{source:?}"), "EventSource([::1]:80)");
}
