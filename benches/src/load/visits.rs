//! Short visits: connect, first event, close, over and over; and a burst of connects at one moment.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use tiny_sse_benches::{
    HELLO,
    arguments::{Arguments, Figures},
};

use crate::{
    parser::{Item, Parser},
    socket,
};

const REQUEST: &[u8] =
    b"GET /load/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes `--visits` visits, `--concurrency` at a time.
pub fn churn(arguments: &Arguments) -> Result<(), String> {
    let visits = arguments.value("visits", 10_000)?;
    let at_once = arguments.value("concurrency", 64)?;
    visit(arguments, visits, at_once, AfterHello::Close)
}

/// Connects `--streams` at once, and keeps them until all have had their first event.
pub fn burst(arguments: &Arguments) -> Result<(), String> {
    let streams = arguments.value("streams", 2000)?;
    visit(arguments, streams, streams, AfterHello::Stay)
}

#[derive(Clone, Copy, PartialEq)]
enum AfterHello {
    Close,
    Stay,
}

fn visit(
    arguments: &Arguments,
    visits: usize,
    at_once: usize,
    after: AfterHello,
) -> Result<(), String> {
    let port = arguments.value("port", 0)?;
    let threads: usize = arguments.value("threads", 2)?;
    let left = Arc::new(AtomicUsize::new(visits));
    let start = Instant::now();
    let visitors: Vec<_> = (0..threads)
        .map(|_| {
            let left = left.clone();
            thread::spawn(move || Visitor::new(port, after, left)?.run(at_once.div_ceil(threads)))
        })
        .collect();

    let mut latency = crate::latencies();
    let mut failed = 0;
    for visitor in visitors {
        let result = visitor.join().map_err(|_| "a thread panicked")?;
        let (part, failures) = result.map_err(|error| error.to_string())?;
        latency.add(part).expect("it resizes as it must");
        failed += failures;
    }
    let seconds = start.elapsed().as_secs_f64();
    let mut figures = Figures::default();
    figures.set("visits", latency.len() as f64);
    figures.set(
        "failed",
        failed as f64 + (visits as f64 - (latency.len() + failed) as f64),
    );
    figures.set("seconds", seconds);
    figures.set("rate", latency.len() as f64 / seconds);
    figures.set("p50", latency.value_at_quantile(0.5) as f64 / 1e6);
    figures.set("p99", latency.value_at_quantile(0.99) as f64 / 1e6);
    figures.set("max", latency.max() as f64 / 1e6);
    println!("{figures}");
    Ok(())
}

/// One visit under way.
struct Visit {
    socket: TcpStream,
    parser: Parser,
    start: Instant,
    asked: bool,
    greeted: bool,
}

struct Visitor {
    port: u16,
    after: AfterHello,
    /// How many visits no thread has begun yet.
    left: Arc<AtomicUsize>,
    poll: Poll,
    visits: Vec<Option<Visit>>,
    buffer: Vec<u8>,
    latency: Histogram<u64>,
    failed: u64,
}

impl Visitor {
    fn new(port: u16, after: AfterHello, left: Arc<AtomicUsize>) -> io::Result<Visitor> {
        Ok(Visitor {
            port,
            after,
            left,
            poll: Poll::new()?,
            visits: Vec::new(),
            buffer: vec![0; 16 * 1024],
            latency: crate::latencies(),
            failed: 0,
        })
    }

    fn run(mut self, at_once: usize) -> io::Result<(Histogram<u64>, u64)> {
        let mut events = Events::with_capacity(1024);
        let deadline = Instant::now() + DEADLINE;
        let mut under_way = 0usize;
        for slot in 0..at_once {
            self.visits.push(None);
            under_way += usize::from(self.begin(slot));
        }
        while under_way > 0 && Instant::now() < deadline {
            self.poll
                .poll(&mut events, Some(Duration::from_millis(100)))?;
            for event in &events {
                let slot = event.token().0;
                match self.go_on(slot) {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(_) => self.failed += 1,
                }
                match self.after {
                    AfterHello::Close => {
                        self.visits[slot] = None;
                        under_way -= usize::from(!self.begin(slot));
                    }
                    AfterHello::Stay => under_way -= 1,
                }
            }
        }
        Ok((self.latency, self.failed))
    }

    /// Begins one more visit in this slot, if there is one left to make.
    fn begin(&mut self, slot: usize) -> bool {
        loop {
            let one_less = |left: usize| left.checked_sub(1);
            if self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
                .is_err()
            {
                return false;
            }
            let start = Instant::now();
            let registered = socket::connect(self.port).and_then(|mut socket| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll
                    .registry()
                    .register(&mut socket, Token(slot), interest)?;
                Ok(socket)
            });
            match registered {
                Ok(socket) => {
                    let parser = Parser::default();
                    self.visits[slot] = Some(Visit {
                        socket,
                        parser,
                        start,
                        asked: false,
                        greeted: false,
                    });
                    return true;
                }
                Err(_) => self.failed += 1,
            }
        }
    }

    /// Asks once connected, and reads; returns whether the first event has just come.
    fn go_on(&mut self, slot: usize) -> io::Result<bool> {
        let Some(visit) = &mut self.visits[slot] else {
            return Ok(false);
        };
        if visit.greeted {
            return Ok(false);
        }
        if !visit.asked {
            if let Some(error) = visit.socket.take_error()? {
                return Err(error);
            }
            match visit.socket.write(REQUEST) {
                Ok(count) if count == REQUEST.len() => visit.asked = true,
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                // Not connected yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let Visit {
            socket,
            parser,
            greeted,
            ..
        } = visit;
        let open = socket::drain(socket, &mut self.buffer, |bytes| {
            let mut sink = |item: Item<'_>| *greeted |= item == Item::Data(HELLO.as_bytes());
            let fed = parser.feed(bytes, &mut sink);
            fed.map_err(|fault| io::Error::other(fault.to_string()))
        })?;
        if visit.greeted {
            self.latency
                .saturating_record(visit.start.elapsed().as_nanos() as u64);
            return Ok(true);
        }
        if open {
            Ok(false)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}
