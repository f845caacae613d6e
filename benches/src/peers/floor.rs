//! The kernel's floor: a few threads that write the same bytes to non-blocking sockets, in a loop, and nothing else.
//! No parsing to speak of, no history, no heartbeat, no notice of a client that has left before a write fails.

use std::{
    env,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tiny_sse_benches::{HELLO, Load, PLAIN, POLL, address};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

enum Item {
    /// A socket that has had its head, and not yet its first event: a client that has read this event misses no later one.
    Joined(TcpStream),
    Event(Arc<[u8]>),
}

/// A socket, and how much of the thread's unsent bytes it has taken.
struct Reader {
    socket: TcpStream,
    sent: usize,
}

fn main() -> io::Result<()> {
    let threads = thread::available_parallelism()?.get();
    let threads = env::var("THREADS").map_or(threads, |threads| threads.parse().expect("a number"));
    let writers: Vec<Sender<Item>> = (0..threads)
        .map(|_| {
            let (sender, items) = mpsc::channel();
            thread::spawn(move || write_loop(&items));
            sender
        })
        .collect();
    let writers = Arc::new(writers);

    let listener = TcpListener::bind(address())?;
    // The 128 of std would make a burst of clients wait a second.
    SockRef::from(&listener).listen(4096)?;
    let next = Arc::new(Mutex::new(0));
    for socket in listener.incoming() {
        let Ok(socket) = socket else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let (writers, next) = (writers.clone(), next.clone());
        let small = thread::Builder::new().stack_size(64 * 1024);
        let _ = small.spawn(move || answer(socket, &writers, &next));
    }
    Ok(())
}

/// Takes what has arrived, and writes what each socket has not had yet.
fn write_loop(items: &Receiver<Item>) {
    let mut readers: Vec<Reader> = Vec::new();
    let mut unsent: Vec<u8> = Vec::new();
    loop {
        let behind = readers.iter().any(|reader| reader.sent < unsent.len());
        if !behind {
            unsent.clear();
            readers.iter_mut().for_each(|reader| reader.sent = 0);
        }
        let mut item = if behind {
            items.try_recv()
        } else {
            items.recv().map_err(|_| TryRecvError::Disconnected)
        };
        loop {
            match item {
                Ok(Item::Event(bytes)) => unsent.extend_from_slice(&bytes),
                Ok(Item::Joined(mut socket)) => {
                    // A fresh socket takes it whole.
                    let _ = socket.write_all(encode(HELLO).as_bytes());
                    let sent = unsent.len();
                    readers.push(Reader { socket, sent });
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
            item = items.try_recv();
        }
        let mut progress = false;
        readers.retain_mut(|reader| {
            let rest = &unsent[reader.sent..];
            if rest.is_empty() {
                return true;
            }
            match reader.socket.write(rest) {
                Ok(count) => {
                    progress = true;
                    reader.sent += count;
                    true
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        if behind && !progress {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

/// Answers the requests of one connection, until one asks for events.
fn answer(mut socket: TcpStream, writers: &[Sender<Item>], next: &Mutex<usize>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut head = [0; 2048];
    let mut filled = 0;
    loop {
        let count = socket.read(&mut head[filled..])?;
        filled += count;
        if count == 0 {
            return Ok(());
        }
        let Some(request) = head[..filled].strip_suffix(b"\r\n\r\n") else {
            continue;
        };
        let request = String::from_utf8_lossy(request).into_owned();
        filled = 0;
        let target = request.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path {
            "/plain" => respond(&mut socket, "text/plain", PLAIN)?,
            "/poll" => respond(&mut socket, "application/json", POLL)?,
            "/events" | "/load/events" => {
                socket.write_all(HEAD.as_bytes())?;
                socket.set_nonblocking(true)?;
                let mut next = next.lock().unwrap();
                *next = (*next + 1) % writers.len();
                let _ = writers[*next].send(Item::Joined(socket));
                return Ok(());
            }
            "/load/publish" => {
                let load = Load::from_query(query);
                for index in 0..load.count {
                    if let Some(due) = load.due(index) {
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                    let event = Arc::<[u8]>::from(encode(&load.payload()).into_bytes());
                    for writer in writers {
                        let _ = writer.send(Item::Event(event.clone()));
                    }
                }
                respond(&mut socket, "text/plain", PLAIN)?;
            }
            _ => respond(&mut socket, "text/plain", "not here")?,
        }
    }
}

fn respond(socket: &mut TcpStream, content_type: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all((head + body).as_bytes())
}

/// One event as one chunk, as long as one of tiny-sse's, which has an id.
fn encode(text: &str) -> String {
    let event = format!("id: 0123456789abcdef-1000\ndata: {text}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}
