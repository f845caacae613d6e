//! What the black-box tests share: a server on a free port, a client that checks everything, a process of its own whose threads
//! and descriptors are counted, and random numbers that can be repeated.
//!
//! Nothing here waits for time to pass and nothing asserts that something is quick: a read that gets nothing for
//! [`PATIENCE`] fails, and so does a condition that does not come true.

#![allow(dead_code)] // Each test file uses a part of it.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::{Config, Server, ServerHandle};

/// How long anything may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns when the condition is true.
#[track_caller]
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "it never came true");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A server that runs in this process, on a port of its own.
pub(crate) struct TestServer {
    handle: ServerHandle,
    errors: Arc<Mutex<Vec<String>>>,
}

/// Starts a server with these limits and what `build` gives it.
pub(crate) fn start(config: Config, build: impl FnOnce(Server) -> Server) -> TestServer {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&errors);
    let server = Server::bind("127.0.0.1:0")
        .unwrap()
        .config(config)
        .on_error(move |problem| hook.lock().unwrap().push(problem.to_string()));
    TestServer {
        handle: build(server).spawn().unwrap(),
        errors,
    }
}

impl TestServer {
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr())
    }

    /// What has reached the error hook, except for the notice that this machine has few descriptors.
    pub(crate) fn errors(&self) -> Vec<String> {
        let errors = self.errors.lock().unwrap();
        let ours = |error: &&String| !error.contains("ulimit");
        errors.iter().filter(ours).cloned().collect()
    }
}

impl Deref for TestServer {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}

/// One end of a connection. Bytes that it reads beyond what was asked for are kept for the next call.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// The bytes that have come, taken up to `at`.
    buffer: Vec<u8>,
    at: usize,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }

    /// A client over a connection that the caller has made.
    pub(crate) fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            stream,
            buffer: Vec::new(),
            at: 0,
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request; one with a body gets its `Content-Length`.
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in fields {
            bytes += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            bytes += &format!("Content-Length: {}\r\n", body.len());
        }
        bytes += "\r\n";
        self.send([bytes.as_bytes(), body].concat());
    }

    /// Sends a GET request without a body and reads its whole response.
    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, &[], b"");
        self.answer()
    }

    /// Connects and begins a request to `/echo`, so that the connection is not idle until [`Client::finish_request`].
    pub(crate) fn in_a_request(addr: SocketAddr) -> Client {
        Client::try_in_a_request(addr).expect("room for one more")
    }

    /// As [`Client::in_a_request`]; `None` where there is no room.
    pub(crate) fn try_in_a_request(addr: SocketAddr) -> Option<Client> {
        let mut client = Client::connect(addr);
        let fields = [("Content-Length", "2"), ("Expect", "100-continue")];
        client.request("POST", "/echo", &fields, b"");
        (client.head().status == 100).then_some(client)
    }

    pub(crate) fn finish_request(&mut self) {
        self.send("ok");
        assert_eq!(self.answer().text(), "ok");
    }

    /// Sends a request with a body and reads its whole response.
    pub(crate) fn answer_after(&mut self, method: &str, target: &str, body: &[u8]) -> Answer {
        self.request(method, target, &[], body);
        self.answer()
    }

    /// Ends what this side sends.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads a head up to its empty line.
    pub(crate) fn head(&mut self) -> Head {
        self.try_head().expect("a whole head")
    }

    /// As [`Client::head`], where the connection may be cut.
    pub(crate) fn try_head(&mut self) -> io::Result<Head> {
        let end = loop {
            match find(self.unread(), b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read_more()?,
            }
        };
        Ok(Head::parse(self.take(end)))
    }

    /// Reads a response to anything but HEAD, by its own framing.
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let mut body = Vec::new();
        if let Some(length) = head.field("content-length") {
            assert_eq!(head.field("transfer-encoding"), None, "{head:?}");
            body = self.exactly(length.parse().unwrap());
        } else if head.field("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
        } else if !matches!(head.status, 204 | 304) {
            body = self.rest();
        }
        Answer { head, body }
    }

    /// Reads one chunk (RFC 9112 section 7.1); `None` is the last one.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        self.try_chunk().expect("a whole chunk")
    }

    /// As [`Client::chunk`], for a body that may be partial.
    pub(crate) fn try_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let digits = loop {
            match find(self.unread(), b"\r\n") {
                Some(at) => break self.take(at + 2),
                None => self.read_more()?,
            }
        };
        let digits = std::str::from_utf8(&digits[..digits.len() - 2]).unwrap();
        let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(
            !digits.is_empty() && digits.bytes().all(plain),
            "{digits:?}"
        );
        let size = usize::from_str_radix(digits, 16).unwrap();
        let mut chunk = self.try_exactly(size + 2)?;
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends in CRLF");
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    /// Reads this many bytes.
    pub(crate) fn exactly(&mut self, n: usize) -> Vec<u8> {
        self.try_exactly(n).expect("as many bytes as announced")
    }

    fn try_exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.unread().len() < n {
            self.read_more()?;
        }
        Ok(self.take(n))
    }

    /// Reads up to the end of the connection, which must be a clean end: a reset fails.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.take(self.unread().len());
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }

    /// Waits for the end of the connection, with nothing before it.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// Waits until the connection is gone, by an end or a reset, and throws away what comes before.
    pub(crate) fn is_cut(&mut self) {
        self.take(self.unread().len());
        let mut scratch = [0; 65536];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    return;
                }
            }
        }
    }

    /// What one read brings.
    pub(crate) fn piece(&mut self) -> Vec<u8> {
        self.try_piece().unwrap()
    }

    fn try_piece(&mut self) -> io::Result<Vec<u8>> {
        if self.unread().is_empty() {
            self.read_more()?;
        }
        Ok(self.take(self.unread().len()))
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut piece = [0; 65536];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.buffer.drain(..self.at);
                self.at = 0;
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        self.at += n;
        self.buffer[self.at - n..self.at].to_vec()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    /// As it came, with its empty line.
    pub(crate) text: String,
}

impl Head {
    fn parse(bytes: Vec<u8>) -> Head {
        let text = String::from_utf8(bytes).unwrap();
        let mut lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
        let status_line = lines.next().unwrap();
        let status = status_line.strip_prefix("HTTP/1.1 ").expect(status_line);
        // The space after the status is there even if no reason follows (RFC 9112 section 4).
        assert_eq!(status.as_bytes().get(3), Some(&b' '), "{status_line}");
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ").expect(line);
            assert!(!line.contains(['\r', '\n']), "{line:?}");
            (name.to_string(), value.to_string())
        });
        Head {
            status: status[..3].parse().unwrap(),
            fields: fields.collect(),
            text: text.clone(),
        }
    }

    /// The value of the only field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self
            .fields
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = values.next()?;
        assert!(values.next().is_none(), "more than one {name}: {self:?}");
        Some(&value.1)
    }

    /// Returns the head without the one line that differs from second to second.
    pub(crate) fn without_date(&self) -> String {
        assert!(self.field("date").is_some(), "{self:?}");
        let lines = self.text.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with("Date: ")).collect()
    }
}

/// A whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// What a page's listener would be called with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) event: String,
    pub(crate) data: String,
    /// The last event ID as it is after this event.
    pub(crate) id: String,
}

/// A client of an event stream, chunked or close-delimited: a plain reading of [WHATWG's
/// parser](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), which shares no line
/// with the one of the crate.
#[derive(Debug)]
pub(crate) struct EventSource {
    pub(crate) client: Client,
    pub(crate) head: Head,
    chunked: bool,
    /// The bytes after the last whole line.
    unread: Vec<u8>,
    /// Whole lines, taken up to `at`.
    lines: String,
    at: usize,
    pending: Message,
    /// Whether the block that is being read has a `data` field.
    has_data: bool,
    /// The last event ID, which a reconnecting client would send.
    pub(crate) last_event_id: String,
    /// The newest `retry`, in milliseconds.
    pub(crate) retry: Option<u64>,
    /// All comments so far, heartbeats among them.
    pub(crate) comments: Vec<String>,
}

impl EventSource {
    /// Asks for a stream and reads the head, after which no event can be missed.
    pub(crate) fn open(addr: SocketAddr, target: &str, fields: &[(&str, &str)]) -> EventSource {
        let mut client = Client::connect(addr);
        let accept = [("Accept", "text/event-stream")];
        client.request("GET", target, &[&accept, fields].concat(), b"");
        EventSource::answer(client)
    }

    /// Reads the head of a stream that has been asked for.
    pub(crate) fn answer(mut client: Client) -> EventSource {
        let head = client.head();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.field("content-type"), Some("text/event-stream"));
        EventSource {
            client,
            chunked: head.field("transfer-encoding") == Some("chunked"),
            head,
            unread: Vec::new(),
            lines: String::new(),
            at: 0,
            pending: Message::default(),
            has_data: false,
            last_event_id: String::new(),
            retry: None,
            comments: Vec::new(),
        }
    }

    /// The next event, or `None` when the stream has ended cleanly.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Message> {
        self.try_next().expect("a stream that is not torn")
    }

    /// The next event's data.
    #[track_caller]
    pub(crate) fn data(&mut self) -> String {
        self.next().expect("one more event").data
    }

    /// As [`EventSource::next`], for a stream that may be cut off.
    pub(crate) fn try_next(&mut self) -> io::Result<Option<Message>> {
        // Heartbeats come all the time, so that no read runs into its time-out.
        let give_up = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < give_up, "no event comes");
            while let Some(line) = self.take_line() {
                if let Some(message) = self.line(&line) {
                    return Ok(Some(message));
                }
            }
            if self.chunked {
                match self.client.try_chunk()? {
                    Some(chunk) => {
                        assert!(chunk.ends_with(b"\n"), "a chunk holds whole lines");
                        self.add(&chunk);
                    }
                    None => return Ok(None),
                }
            } else {
                match self.client.try_piece() {
                    Ok(piece) => self.add(&piece),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Takes what has come of the stream, up to its last whole line; the server writes LF alone.
    fn add(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let Some(end) = self.unread.iter().rposition(|&byte| byte == b'\n') else {
            return;
        };
        let rest = self.unread.split_off(end + 1);
        let lines = std::mem::replace(&mut self.unread, rest);
        self.lines.drain(..self.at);
        self.at = 0;
        self.lines += std::str::from_utf8(&lines).unwrap();
    }

    /// The next line if it is here, without its end.
    fn take_line(&mut self) -> Option<String> {
        let rest = &self.lines[self.at..];
        let line = rest[..rest.find('\n')?].to_string();
        self.at += line.len() + 1;
        Some(line)
    }

    /// Processes a line of the stream.
    fn line(&mut self, line: &str) -> Option<Message> {
        assert!(!line.contains('\r'), "{line:?}");
        if line.is_empty() {
            let mut message = std::mem::take(&mut self.pending);
            message.id.clone_from(&self.last_event_id);
            return std::mem::take(&mut self.has_data).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments.push(value.to_string()),
            "event" => self.pending.event = value.to_string(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.pending.data += "\n";
                }
                self.pending.data += value;
            }
            "id" => self.last_event_id = value.to_string(),
            "retry" => self.retry = Some(value.parse().unwrap()),
            _ => panic!("not a field of an event stream: {line:?}"),
        }
        None
    }
}

/// A process that runs one test of this file again, so that threads and descriptors can be counted without those of the
/// tests beside it.
///
/// ```ignore
/// #[test]
/// fn a_thread_goes_with_its_connection() {
///     let Some(child) = Child::of("a_thread_goes_with_its_connection") else {
///         return serve_parent(Config::default(), |server| server.get("/", |_| "hello"));
///     };
///     let client = Client::connect(child.addr());
///     ...
/// }
/// ```
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    addr: SocketAddr,
}

const CHILD: &str = "TINY_SSE_TEST_CHILD";
const LISTENING: &str = "listening on ";

impl Child {
    /// The other process, once it serves; `None` in that process itself.
    pub(crate) fn of(test: &str) -> Option<Child> {
        Child::start(test, Command::new(std::env::current_exe().unwrap()))
    }

    /// As [`Child::of`], with the limits of a shell's `ulimit` for the process: `-n 64` leaves it 64 descriptors.
    pub(crate) fn under(limit: &str, test: &str) -> Option<Child> {
        let mut shell = Command::new("sh");
        let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
        shell
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap());
        Child::start(test, shell)
    }

    /// As [`Child::of`], where nothing can be written to standard error.
    pub(crate) fn without_stderr(test: &str) -> Option<Child> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.stderr(std::fs::File::create("/dev/full").unwrap());
        Child::start(test, command)
    }

    fn start(test: &str, mut command: Command) -> Option<Child> {
        if std::env::var_os(CHILD).is_some() {
            return None;
        }
        let mut process = command
            .args(["--exact", test, "--include-ignored", "--nocapture"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines
            .find_map(|line| {
                let line = line.unwrap();
                line.split_once(LISTENING).map(|(_, addr)| addr.to_string())
            })
            .expect("an address from the child process");
        // Its other output has to be read, or it blocks.
        thread::spawn(move || lines.for_each(drop));
        Some(Child {
            process,
            addr: line.trim().parse().unwrap(),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn threads(&self) -> usize {
        self.count("task")
    }

    /// The names of its threads, sorted.
    pub(crate) fn thread_names(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        // A thread may end between the listing and the reading.
        let name = |task: io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        let mut names: Vec<String> = tasks
            .filter_map(name)
            .map(|name| name.trim_end().to_string())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.count("fd")
    }

    /// Descriptors that are sockets.
    pub(crate) fn sockets(&self) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        let target = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.path().read_link().ok();
        entries
            .filter_map(target)
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }

    /// Threads and descriptors of a server that has served nobody yet, once all that accept are there. Zeros where the
    /// system does not tell.
    pub(crate) fn at_rest(&self) -> (usize, usize) {
        if !cfg!(target_os = "linux") {
            return (0, 0);
        }
        eventually(|| self.thread_names().iter().any(|name| name == "sse-accept"));
        (self.threads(), self.descriptors())
    }

    /// Waits until there are no more threads and descriptors than at rest.
    #[track_caller]
    pub(crate) fn comes_to_rest(&self, at_rest: (usize, usize)) {
        self.gives_descriptors_back(at_rest);
        if cfg!(target_os = "linux") {
            eventually(|| self.threads() <= at_rest.0);
        }
    }

    /// As [`Child::comes_to_rest`], without the seconds for which threads wait for more to do.
    #[track_caller]
    pub(crate) fn gives_descriptors_back(&self, at_rest: (usize, usize)) {
        if cfg!(target_os = "linux") {
            eventually(|| self.descriptors() <= at_rest.1);
        }
    }

    /// The processor time that it has used so far, to a hundredth of a second.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // The name in parentheses may hold anything; after it, user and system time are the 12th and 13th.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(10 * ticks)
    }

    /// The maximum of memory that it has had at once, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let kilobytes: usize = line.split_whitespace().next().unwrap().parse().unwrap();
        1024 * kilobytes
    }

    fn count(&self, what: &str) -> usize {
        let path = format!("/proc/{}/{what}", self.process.id());
        std::fs::read_dir(path).unwrap().count()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the other process does: serves until the test that wants it is gone.
pub(crate) fn serve_parent(config: Config, build: impl FnOnce(Server) -> Server) {
    let server = start(config, build);
    announce(server.addr());
    wait_for_parent();
}

/// Tells the test where this process listens.
pub(crate) fn announce(addr: impl Display) {
    println!("{LISTENING}{addr}");
}

/// Returns when the test that started this process is gone.
pub(crate) fn wait_for_parent() {
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

/// Random numbers (xorshift64), the same for the same seed. Says the seed when the test fails.
#[derive(Debug)]
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// A seed of 0 would give only zeros.
    pub(crate) fn new(seed: u64) -> Random {
        assert_ne!(seed, 0);
        Random { seed, state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("random numbers from seed {}", self.seed);
        }
    }
}
