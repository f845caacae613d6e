//! Many streams at once: connects them, then checks and times what each `/load/publish` brings.

use std::{
    collections::HashMap,
    io::{self, BufRead, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, Waker};
use tiny_sse_benches::{
    HELLO,
    arguments::{Arguments, Figures},
    unix_nanos,
};

use crate::{
    parser::{Fault, Item, Parser},
    requests::answer_length,
    socket,
};

/// How many streams one thread opens at a time: below the backlog of a listener of std, 128.
const OPENING: usize = 8;
/// After this time without a stream that opens, the missing streams will not open.
const OPEN_QUIET: Duration = Duration::from_secs(5);
/// After publishing has ended and nothing has arrived for this time, the rest is lost.
const QUIET: Duration = Duration::from_millis(1500);
const PUBLISH_DEADLINE: Duration = Duration::from_secs(120);
/// How often slow readers read.
const TICK: Duration = Duration::from_millis(10);
const WAKE: Token = Token(usize::MAX);

#[derive(Clone, Copy, Debug)]
struct Plan {
    port: u16,
    streams: usize,
    /// This many of them, the first ones, read at `slow_rate` bytes a second.
    slow: usize,
    slow_rate: u32,
    /// This many, the next ones, never read once they have had their first event.
    stalled: usize,
    /// Stream i subscribes to topic i modulo this; 0: to what the server has by default.
    topics: usize,
    websocket: bool,
    threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    Full,
    Slow,
    Stalled,
}

/// What is about to be published.
#[derive(Clone, Copy, Debug)]
struct Expected {
    events_each: u32,
    size: usize,
}

enum Command {
    Expect(Expected),
    /// Nothing more is to come: report what came.
    Finish,
}

enum Report {
    Open {
        streams: usize,
        faults: Vec<String>,
    },
    /// This many readers at full pace are open.
    Expecting {
        readers: u64,
    },
    /// All that was expected has come.
    Complete,
    Seen(Box<Seen>),
}

/// What one thread has seen since the last `Expect`.
#[derive(Debug)]
struct Seen {
    latency: Histogram<u64>,
    received: u64,
    out_of_order: u64,
    wrong_size: u64,
    gaps: u64,
    slow_received: u64,
    slow_gaps: u64,
    ended: u64,
    first_stamp: u64,
    last_arrival: u64,
    /// For each topic, how many readers had which events: their number, and the sum of their stamps.
    sets: HashMap<(usize, u32, u64), u32>,
    faults: Vec<String>,
}

impl Seen {
    fn new() -> Seen {
        Seen {
            latency: crate::latencies(),
            received: 0,
            out_of_order: 0,
            wrong_size: 0,
            gaps: 0,
            slow_received: 0,
            slow_gaps: 0,
            ended: 0,
            first_stamp: u64::MAX,
            last_arrival: 0,
            sets: HashMap::new(),
            faults: Vec::new(),
        }
    }

    fn add(&mut self, other: Seen) {
        self.latency
            .add(&other.latency)
            .expect("both resize as they must");
        self.received += other.received;
        self.out_of_order += other.out_of_order;
        self.wrong_size += other.wrong_size;
        self.gaps += other.gaps;
        self.slow_received += other.slow_received;
        self.slow_gaps += other.slow_gaps;
        self.ended += other.ended;
        self.first_stamp = self.first_stamp.min(other.first_stamp);
        self.last_arrival = self.last_arrival.max(other.last_arrival);
        for (set, readers) in other.sets {
            *self.sets.entry(set).or_default() += readers;
        }
        self.faults.extend(other.faults);
    }
}

pub fn run(arguments: &Arguments) -> Result<(), String> {
    let plan = Plan {
        port: arguments.value("port", 0)?,
        streams: arguments.value("streams", 1)?,
        slow: arguments.value("slow", 0)?,
        slow_rate: arguments.value("slow-rate", 100_000)?,
        stalled: arguments.value("stalled", 0)?,
        topics: arguments.value("topics", 0)?,
        websocket: arguments.switch("websocket"),
        threads: arguments.value("threads", 2)?,
    };
    let start = Instant::now();
    let fleet = Fleet::start(plan).map_err(|error| error.to_string())?;
    let (mut open, mut faults) = (0, Vec::new());
    for _ in 0..plan.threads {
        match fleet.reports.recv() {
            Ok(Report::Open {
                streams,
                faults: more,
            }) => {
                open += streams;
                faults.extend(more);
            }
            _ => return Err("a thread ended before its streams were open".to_owned()),
        }
    }
    let mut ready = Figures::default();
    ready.set("streams", open as f64);
    ready.set("seconds", start.elapsed().as_secs_f64());
    println!("{ready}");
    faults
        .iter()
        .take(3)
        .for_each(|fault| eprintln!("load: {fault}"));

    for query in io::stdin().lock().lines() {
        let query = query.map_err(|error| error.to_string())?;
        let figures = fleet.publish(&query)?;
        println!("{figures}");
    }
    Ok(())
}

/// The threads that read, and how to reach them.
struct Fleet {
    plan: Plan,
    commands: Vec<(Sender<Command>, Waker)>,
    reports: Receiver<Report>,
    /// Deliveries so far, of all threads: whether something still arrives.
    progress: Arc<AtomicU64>,
}

impl Fleet {
    fn start(plan: Plan) -> io::Result<Fleet> {
        let (report, reports) = mpsc::channel();
        let progress = Arc::new(AtomicU64::new(0));
        let mut commands = Vec::new();
        for index in 0..plan.threads {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKE)?;
            let (command, receiver) = mpsc::channel();
            commands.push((command, waker));
            let worker = Worker {
                plan,
                poll,
                readers: Vec::new(),
                buffer: vec![0; 256 * 1024],
                expected: Expected {
                    events_each: 0,
                    size: 0,
                },
                missing: 0,
                seen: Seen::new(),
                commands: receiver,
                reports: report.clone(),
                progress: progress.clone(),
            };
            thread::spawn(move || worker.run(index));
        }
        Ok(Fleet {
            plan,
            commands,
            reports,
            progress,
        })
    }

    /// Publishes, waits until all has arrived or nothing arrives any more, and sums up.
    fn publish(&self, query: &str) -> Result<Figures, String> {
        let number = |name: &str| -> Option<u32> {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name)?.1.parse().ok()
        };
        let count = number("n").ok_or("a query needs n")?;
        let expected = Expected {
            events_each: count / self.plan.topics.max(1) as u32,
            size: number("size").ok_or("a query needs size")? as usize,
        };
        self.command(|| Command::Expect(expected));
        let mut readers = 0;
        for _ in 0..self.plan.threads {
            readers += self.wait_for(|report| match report {
                Report::Expecting { readers } => Some(readers),
                _ => None,
            })?;
        }

        let (port, target) = (self.plan.port, format!("/load/publish?{query}"));
        let publishing = thread::spawn(move || get(port, &target));
        self.wait_for_arrivals(|| publishing.is_finished());
        let published = publishing.is_finished();
        if published {
            let answered = publishing.join().map_err(|_| "publishing panicked")?;
            answered.map_err(|error| format!("publishing failed: {error}"))?;
        }

        self.command(|| Command::Finish);
        let mut seen = Seen::new();
        for _ in 0..self.plan.threads {
            seen.add(self.wait_for(|report| match report {
                Report::Seen(seen) => Some(*seen),
                _ => None,
            })?);
        }
        let expected = u64::from(expected.events_each) * readers;
        let mut figures = summary(&seen, expected);
        figures.set("published", f64::from(u8::from(published)));
        Ok(figures)
    }

    /// Waits for a `Complete` from each thread, as long as there is reason to.
    fn wait_for_arrivals(&self, published: impl Fn() -> bool) {
        let deadline = Instant::now() + PUBLISH_DEADLINE;
        let mut complete = 0;
        let mut last = (self.progress.load(Ordering::Relaxed), Instant::now());
        while complete < self.plan.threads || !published() {
            match self.reports.recv_timeout(Duration::from_millis(1)) {
                Ok(Report::Complete) => complete += 1,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let progress = self.progress.load(Ordering::Relaxed);
            if progress != last.0 {
                last = (progress, Instant::now());
            }
            let quiet = published() && last.1.elapsed() > QUIET;
            if quiet || Instant::now() > deadline {
                return;
            }
        }
    }

    fn command(&self, command: impl Fn() -> Command) {
        for (sender, waker) in &self.commands {
            // A thread that has ended is noticed where its report is awaited.
            let _ = sender.send(command());
            let _ = waker.wake();
        }
    }

    /// Waits for the next report that `pick` takes, past those that have become stale.
    fn wait_for<T>(&self, pick: impl Fn(Report) -> Option<T>) -> Result<T, String> {
        loop {
            let report = self.reports.recv_timeout(Duration::from_secs(10));
            let report = report.map_err(|error| format!("a thread does not report: {error}"))?;
            if let Some(picked) = pick(report) {
                return Ok(picked);
            }
        }
    }
}

fn summary(seen: &Seen, expected: u64) -> Figures {
    // Readers of one topic must all have had the same events; the largest group sets the measure.
    let mut largest: HashMap<usize, u32> = HashMap::new();
    for ((topic, ..), readers) in &seen.sets {
        let largest = largest.entry(*topic).or_default();
        *largest = (*largest).max(*readers);
    }
    let readers: u32 = seen.sets.values().sum();
    let differing = readers - largest.values().sum::<u32>();
    let seconds = seen.last_arrival.saturating_sub(seen.first_stamp) as f64 / 1e9;

    let mut figures = Figures::default();
    let mut set = |name: &str, value: f64| figures.set(name, value);
    set("expected", expected as f64);
    set("received", seen.received as f64);
    set("lost", expected.saturating_sub(seen.received) as f64);
    set("differing", f64::from(differing));
    set("out_of_order", seen.out_of_order as f64);
    set("wrong_size", seen.wrong_size as f64);
    set("gaps", seen.gaps as f64);
    set("ended", seen.ended as f64);
    set("slow_received", seen.slow_received as f64);
    set("slow_gaps", seen.slow_gaps as f64);
    set("seconds", seconds);
    set("p50", seen.latency.value_at_quantile(0.5) as f64 / 1e6);
    set("p99", seen.latency.value_at_quantile(0.99) as f64 / 1e6);
    set("max", seen.latency.max() as f64 / 1e6);
    seen.faults
        .iter()
        .take(3)
        .for_each(|fault| eprintln!("load: {fault}"));
    figures
}

/// Sends one `GET` on a connection of its own, and reads its whole response.
fn get(port: u16, target: &str) -> io::Result<()> {
    let mut socket = TcpStream::connect(socket::server(port))?;
    write!(
        socket,
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // Not all of them close when asked to.
    loop {
        if answer_length(&answer)?.is_some_and(|length| answer.len() >= length) {
            return Ok(());
        }
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
}

struct Reader {
    /// `None` once the stream has ended.
    socket: Option<mio::net::TcpStream>,
    parser: Parser,
    pace: Pace,
    topic: usize,
    open: bool,
    received: u32,
    last_stamp: u64,
    stamps: u64,
    /// How many bytes a slow reader may read.
    allowance: f64,
}

struct Worker {
    plan: Plan,
    poll: Poll,
    readers: Vec<Reader>,
    buffer: Vec<u8>,
    expected: Expected,
    /// How many deliveries to readers at full pace are still to come.
    missing: u64,
    seen: Seen,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    progress: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self, index: usize) {
        let faults = self.open(index);
        let streams = self.readers.iter().filter(|reader| reader.open).count();
        let _ = self.reports.send(Report::Open { streams, faults });

        let mut events = Events::with_capacity(4096);
        let slow = self.readers.iter().any(|reader| reader.pace == Pace::Slow);
        let mut last_tick = Instant::now();
        loop {
            self.poll_once(&mut events, slow.then_some(TICK));
            let elapsed = last_tick.elapsed();
            if slow && elapsed >= TICK {
                last_tick = Instant::now();
                self.read_slowly(elapsed);
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Expect(expected) => self.expect(expected),
                    Command::Finish => self.finish(),
                }
            }
        }
    }

    /// Opens this thread's share of the streams, a few at a time, until each has had its first event.
    fn open(&mut self, index: usize) -> Vec<String> {
        let mut faults = Vec::new();
        let mut events = Events::with_capacity(1024);
        let mut progress = (0, Instant::now());
        let mut streams = (index..self.plan.streams)
            .step_by(self.plan.threads)
            .peekable();
        loop {
            let open = self.readers.iter().filter(|reader| reader.open).count();
            if open > progress.0 {
                progress = (open, Instant::now());
            }
            let mut opening = self.readers.len() - open;
            if (opening == 0 && streams.peek().is_none()) || progress.1.elapsed() > OPEN_QUIET {
                break;
            }
            while opening < OPENING
                && let Some(stream) = streams.next()
            {
                match self.connect(stream) {
                    Ok(reader) => self.readers.push(reader),
                    Err(error) => faults.push(format!("stream {stream}: {error}")),
                }
                opening += 1;
            }
            self.poll_once(&mut events, Some(Duration::from_millis(100)));
        }
        for reader in &mut self.readers {
            if reader.pace != Pace::Full
                && let Some(socket) = &mut reader.socket
            {
                let _ = self.poll.registry().deregister(socket);
            }
        }
        faults.append(&mut self.seen.faults);
        faults
    }

    fn connect(&mut self, stream: usize) -> io::Result<Reader> {
        let plan = &self.plan;
        let pace = if stream < plan.slow {
            Pace::Slow
        } else if stream < plan.slow + plan.stalled {
            Pace::Stalled
        } else {
            Pace::Full
        };
        let topic = stream.checked_rem(plan.topics).unwrap_or(0);
        let query = if plan.topics == 0 {
            String::new()
        } else {
            format!("?topic=t{topic}")
        };
        let upgrade = if plan.websocket {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        } else {
            "Accept: text/event-stream\r\n"
        };
        let request =
            format!("GET /load/events{query} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n");

        let mut socket = socket::connected(plan.port, pace != Pace::Full)?;
        // A fresh socket takes a few hundred bytes.
        socket.write_all(request.as_bytes())?;
        let mut socket = mio::net::TcpStream::from_std(socket);
        let token = Token(self.readers.len());
        self.poll
            .registry()
            .register(&mut socket, token, Interest::READABLE)?;
        Ok(Reader {
            socket: Some(socket),
            parser: Parser::default(),
            pace,
            topic,
            open: false,
            received: 0,
            last_stamp: 0,
            stamps: 0,
            allowance: 0.0,
        })
    }

    fn poll_once(&mut self, events: &mut Events, timeout: Option<Duration>) {
        // Interrupted by a signal, there are none this time.
        let _ = self.poll.poll(events, timeout);
        let before = self.seen.received;
        for event in events.iter().filter(|event| event.token() != WAKE) {
            self.read(event.token().0, usize::MAX);
        }
        let count = self.seen.received - before;
        if count > 0 {
            self.progress.fetch_add(count, Ordering::Relaxed);
            if self.missing > 0 {
                self.missing = self.missing.saturating_sub(count);
                if self.missing == 0 {
                    let _ = self.reports.send(Report::Complete);
                }
            }
        }
    }

    /// Reads at most `limit` bytes, or all there are.
    fn read(&mut self, index: usize, limit: usize) {
        let Worker {
            readers,
            buffer,
            seen,
            expected,
            ..
        } = self;
        let reader = &mut readers[index];
        let Some(mut socket) = reader.socket.take() else {
            return;
        };
        let Reader {
            parser,
            pace,
            open,
            received,
            last_stamp,
            stamps,
            allowance,
            ..
        } = reader;
        let mut take = |bytes: &[u8]| {
            *allowance -= bytes.len() as f64;
            let now = unix_nanos();
            let mut sink = |item: Item<'_>| match item {
                Item::Data(data) => match stamp(data) {
                    Some(stamp) if *pace == Pace::Full => {
                        *received += 1;
                        *stamps = stamps.wrapping_add(stamp);
                        seen.received += 1;
                        seen.out_of_order += u64::from(stamp < *last_stamp);
                        *last_stamp = stamp;
                        seen.wrong_size += u64::from(data.len() != expected.size);
                        seen.first_stamp = seen.first_stamp.min(stamp);
                        seen.latency.saturating_record(now.saturating_sub(stamp));
                    }
                    Some(_) => seen.slow_received += 1,
                    None => *open |= data == HELLO.as_bytes(),
                },
                Item::Gap if *pace == Pace::Full => seen.gaps += 1,
                Item::Gap => seen.slow_gaps += 1,
            };
            parser.feed(bytes, &mut sink)?;
            seen.last_arrival = seen.last_arrival.max(now);
            Ok::<(), Fault>(())
        };
        let limit = limit.min(buffer.len());
        let result = if limit == buffer.len() {
            socket::drain(&mut socket, buffer, &mut take)
        } else {
            match socket.read(&mut buffer[..limit]) {
                Ok(0) => Ok(false),
                Ok(count) => take(&buffer[..count]).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
                Err(error) => Err(error.into()),
            }
        };
        match result {
            Ok(true) if !reader.parser.ended() => reader.socket = Some(socket),
            Ok(_) => seen.ended += 1,
            Err(fault) => {
                seen.ended += 1;
                seen.faults.push(format!("stream {index}: {fault}"));
            }
        }
    }

    fn read_slowly(&mut self, elapsed: Duration) {
        let rate = f64::from(self.plan.slow_rate);
        for index in 0..self.readers.len() {
            let reader = &mut self.readers[index];
            if reader.pace != Pace::Slow {
                continue;
            }
            // An unused allowance is not saved up for more than a tenth of a second.
            reader.allowance = (reader.allowance + rate * elapsed.as_secs_f64()).min(rate / 10.0);
            let limit = reader.allowance as usize;
            if limit > 0 {
                self.read(index, limit);
            }
        }
    }

    fn expect(&mut self, expected: Expected) {
        self.expected = expected;
        self.seen = Seen::new();
        for reader in &mut self.readers {
            (reader.received, reader.stamps) = (0, 0);
        }
        let readers = self.readers.iter();
        let readers = readers
            .filter(|reader| reader.open && reader.pace == Pace::Full)
            .count() as u64;
        self.missing = readers * u64::from(expected.events_each);
        let _ = self.reports.send(Report::Expecting { readers });
        if self.missing == 0 {
            let _ = self.reports.send(Report::Complete);
        }
    }

    fn finish(&mut self) {
        let mut seen = std::mem::replace(&mut self.seen, Seen::new());
        for reader in self
            .readers
            .iter()
            .filter(|reader| reader.pace == Pace::Full)
        {
            let set = (reader.topic, reader.received, reader.stamps);
            *seen.sets.entry(set).or_default() += 1;
        }
        let _ = self.reports.send(Report::Seen(Box::new(seen)));
    }
}

/// Reads the nanoseconds in `@<nanoseconds>;`.
fn stamp(data: &[u8]) -> Option<u64> {
    let digits = data.strip_prefix(b"@")?;
    let mut value = 0u64;
    for byte in digits {
        match byte {
            b'0'..=b'9' => value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
            b';' => return Some(value),
            _ => return None,
        }
    }
    None
}
