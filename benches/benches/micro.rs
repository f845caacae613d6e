//! Micro-benchmarks of the public API: an event's encoding and decoding, a hub in memory, and, over one connection to a server
//! in this process, the parts that cannot be called alone: request head, router, body and chunked coding.

use std::{
    hint::black_box,
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc::Receiver,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tiny_sse::{Decoder, Event, Hub, HubReceiver, Request, Response, Server};

criterion_group!(benches, encode, decode, publish, requests);
criterion_main!(benches);

/// An event holds its encoded form: what it costs to make one is what it costs to encode it.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let line = "x".repeat(100);
    let lines = "twenty bytes, nearly\n".repeat(50);
    group.bench_function("one line of 100 bytes", |bencher| {
        bencher.iter(|| Event::data(black_box(&line)));
    });
    group.bench_function("50 lines", |bencher| {
        bencher.iter(|| Event::data(black_box(&lines)));
    });
    group.bench_function("data, event and id", |bencher| {
        bencher.iter(|| Event::data(black_box(&line)).event("update")?.id("42"));
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let short = format!("id: 42\nevent: update\ndata: {}\n\n", "x".repeat(100)).repeat(100);
    let long = format!("{}\n", "data: twenty bytes, nearly\n".repeat(50)).repeat(20);
    for (name, text) in [("100 events", &short), ("20 events of 50 lines", &long)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| count_decoded(black_box(text)));
        });
    }
    group.finish();
}

fn count_decoded(text: &str) -> usize {
    let mut decoder = Decoder::new();
    let mut bytes = text.as_bytes();
    let mut count = 0;
    while decoder
        .decode(&mut bytes)
        .expect("below the limit")
        .is_some()
    {
        count += 1;
    }
    count
}

/// Publishes to receivers in this process: each round waits until the event is in the history, and takes it from every
/// receiver.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    let event = Event::data("x".repeat(100));
    for receivers in [0, 1, 100] {
        let hub = Hub::new();
        let topic = || hub.receiver("topic").expect("a valid topic");
        let mut receivers: Vec<HubReceiver> = (0..receivers).map(|_| topic()).collect();
        group.bench_function(
            format!("a round to {} receivers", receivers.len()),
            |bencher| {
                bencher.iter(|| {
                    hub.publish_wait("topic", event.clone())
                        .expect("the hub is open");
                    for receiver in &mut receivers {
                        black_box(receiver.recv().expect("the hub is open"));
                    }
                });
            },
        );
    }

    let hub = Hub::new();
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1,000 events to nobody", |bencher| {
        bencher.iter(|| {
            for _ in 1..1000 {
                hub.publish("topic", event.clone())
                    .expect("the hub is open");
            }
            hub.publish_wait("topic", event.clone())
                .expect("the hub is open");
        });
    });
    group.finish();
}

/// How many requests go out in one piece, so that the time is that of reading and answering rather than of waking.
const PIPELINED: usize = 50;

fn requests(criterion: &mut Criterion) {
    let mut server = Server::bind("127.0.0.1:0").expect("a free port");
    for index in 0..50 {
        let path = format!("/route{index}/{{first}}/{{second}}");
        server = server.get(&path, |request: &Request| {
            request.param("second").to_owned()
        });
    }
    let server = server
        .get("/plain", |_request: &Request| "ok")
        .post("/length", |request: &Request| {
            Response::text(request.body().len().to_string())
        })
        .spawn()
        .expect("its threads start");
    let mut socket = TcpStream::connect(server.addr()).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");

    let fields = "X-Field: a value of some length, as browsers send them\r\n".repeat(20);
    let body = "x".repeat(4096);
    let chunks = format!("100\r\n{}\r\n", "x".repeat(256)).repeat(16);
    let vectors = [
        (
            "a short head",
            "GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (
            "a head of 21 fields",
            format!("GET /plain HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"),
        ),
        (
            "the last of 50 routes",
            "GET /route49/a/b%20c HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (
            "a body of 4 KiB",
            format!(
                "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n{body}"
            ),
        ),
        (
            "a body of 16 chunks, 4 KiB",
            format!(
                "POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
            ),
        ),
    ];

    let mut group = criterion.benchmark_group("request over loopback");
    group.throughput(Throughput::Elements(PIPELINED as u64));
    for (name, request) in &vectors {
        let expected = exchange(&mut socket, request.as_bytes(), None);
        let requests = request.repeat(PIPELINED);
        group.bench_function(*name, |bencher| {
            bencher.iter(|| exchange(&mut socket, requests.as_bytes(), Some(expected * PIPELINED)));
        });
    }
    group.finish();
}

/// Sends the given bytes, and reads this many bytes, or one response, which comes in one piece. Returns how many.
fn exchange(socket: &mut TcpStream, requests: &[u8], expected: Option<usize>) -> usize {
    socket.write_all(requests).expect("the connection stays");
    let mut buffer = [0; 64 * 1024];
    let mut count = 0;
    while count < expected.unwrap_or(1) {
        let read = socket.read(&mut buffer).expect("the connection stays");
        assert!(
            count > 0 || buffer.starts_with(b"HTTP/1.1 200"),
            "an answer's head"
        );
        count += read;
    }
    count
}
