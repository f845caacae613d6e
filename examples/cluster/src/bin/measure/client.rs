//! A reader over a socket, and what the system says of a process.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tiny_sse::{Decoded, Decoder};

use crate::Result;

/// Bytes of a read: small, as there are 10,000 clients.
const READ_BYTES: usize = 4096;

/// A client over HTTP/1.1. It hides the chunk sizes, which it knows by their form: they are not field lines of an event stream.
pub(crate) struct Client {
    stream: TcpStream,
    chunk: Vec<u8>,
    decoder: Decoder,
    data: VecDeque<String>,
}

impl Client {
    /// Connects, and reads the head of the response.
    pub(crate) fn open(address: SocketAddr, path: &str, last_event_id: &str) -> Result<Client> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(request(path, last_event_id).as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        match head.starts_with(b"HTTP/1.1 200") {
            true => Ok(Client {
                stream,
                chunk: Vec::new(),
                decoder: Decoder::new(),
                data: VecDeque::new(),
            }),
            false => Err(String::from_utf8_lossy(&head).into()),
        }
    }

    /// Waits for the next event, and returns its data.
    pub(crate) fn data(&mut self) -> Result<String> {
        loop {
            if let Some(data) = self.data.pop_front() {
                return Ok(data);
            }
            let before = self.chunk.len();
            self.chunk.resize(before + READ_BYTES.max(before), 0);
            let length = self.stream.read(&mut self.chunk[before..])?;
            if length == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.chunk.truncate(before + length);
            self.take_chunks()?;
        }
    }

    /// Decodes all whole chunks.
    fn take_chunks(&mut self) -> Result<()> {
        let mut taken = 0;
        loop {
            let rest = &self.chunk[taken..];
            let Some(end) = rest
                .windows(2)
                .take(20)
                .position(|window| window == b"\r\n")
            else {
                break;
            };
            let size = usize::from_str_radix(str::from_utf8(&rest[..end])?, 16)?;
            let Some(mut chunk) = rest
                .get(end + 2..end + 2 + size + 2)
                .map(|chunk| &chunk[..size])
            else {
                break;
            };
            while let Some(item) = self.decoder.decode(&mut chunk)? {
                if let Decoded::Message(message) = item {
                    self.data.push_back(message.data);
                }
            }
            taken += end + 2 + size + 2;
        }
        self.chunk.drain(..taken);
        if self.chunk.is_empty() {
            self.chunk = Vec::new();
        }
        Ok(())
    }
}

pub(crate) fn request(path: &str, last_event_id: &str) -> String {
    let id = match last_event_id {
        "" => String::new(),
        id => format!("Last-Event-ID: {id}\r\n"),
    };
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{id}\r\n")
}

pub(crate) fn median_and_p99(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort();
    let at = |share: f64| {
        all.get((all.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    (at(0.5), at(0.99))
}

/// Returns the memory of a process, without what its sockets take in the kernel.
pub(crate) fn resident_bytes(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

/// Returns the processor time that a process has used.
pub(crate) fn processor_time(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|ticks| ticks.parse::<u64>().ok())
    };
    let ticks = ticks(11)
        .zip(ticks(12))
        .map(|(user, system)| user + system)
        .ok_or("no times")?;
    // `USER_HZ` is 100 on all machines that Linux runs on.
    Ok(Duration::from_millis(ticks * 10))
}
