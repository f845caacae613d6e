//! A reader that goes from node to node with its last event id, and keeps all events that it gets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::{Decoded, Decoder};

use super::{Random, Stop};

/// What happened to a reader, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Event {
        id: String,
        data: String,
    },
    Gap {
        from: String,
        to: String,
    },
    /// A connection to the node at this port begins.
    Connected {
        port: u16,
        last_event_id: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    /// As `Stream`, but begins with the newest event of each topic.
    Retained,
    LongPoll,
    /// As `Stream`, but is away for seconds between two connections.
    Sleepy,
}

pub struct Reader {
    pub name: usize,
    pub kind: Kind,
    pub topics: Vec<&'static str>,
    pub told: Vec<Told>,
    /// Empty before the first connection.
    pub last_event_id: String,
    pub connections: usize,
    /// The last event of the test has come.
    pub is_done: bool,
}

impl Reader {
    /// Reads until the last event comes: one whose data begins with `end`. Sets `begun` when the reader has a position in the
    /// log.
    pub fn run(
        mut self,
        ports: &[u16],
        mut random: Random,
        begun: &AtomicBool,
        stop: &Stop,
    ) -> Reader {
        while !self.is_done && !stop.is_set() {
            let port = *random.pick(ports);
            let last_event_id = self.last_event_id.clone();
            self.told.push(Told::Connected {
                port,
                last_event_id,
            });
            let until = Instant::now() + random.millis(200, 5000);
            let result = match self.kind {
                Kind::LongPoll => self.poll(port, until, stop),
                _ => self.stream(port, until, begun, stop),
            };
            // Any error is the same to a reader: it goes elsewhere.
            let _ = result;
            self.connections += 1;
            if !self.last_event_id.is_empty() {
                begun.store(true, Ordering::SeqCst);
            }
            thread::sleep(match self.kind {
                Kind::Sleepy => random.millis(1000, 4000),
                _ => random.millis(10, 200),
            });
        }
        self
    }

    fn path(&self) -> String {
        let topics = self.topics.iter().map(|topic| format!("topic={topic}&"));
        let path = format!("/events?{}", topics.collect::<String>());
        match self.kind {
            Kind::Retained => path + "retained&",
            _ => path,
        }
    }

    fn stream(
        &mut self,
        port: u16,
        until: Instant,
        begun: &AtomicBool,
        stop: &Stop,
    ) -> io::Result<()> {
        let mut fields = vec![("Accept", "text/event-stream".to_string())];
        if !self.last_event_id.is_empty() {
            fields.push(("Last-Event-ID", self.last_event_id.clone()));
        }
        let mut http = Http::open(port, "GET", &self.path(), &fields, b"")?;
        if http.status != 200 {
            return Ok(());
        }
        let mut decoder = Decoder::new();
        while !self.is_done && !stop.is_set() && Instant::now() < until {
            let Some(chunk) = http.chunk()? else {
                return Ok(());
            };
            let mut bytes = &chunk[..];
            while let Some(item) = decoder.decode(&mut bytes).map_err(io::Error::other)? {
                if let Decoded::Message(message) = item {
                    self.hear(message.last_event_id, &message.event, message.data);
                }
            }
            if !decoder.last_event_id().is_empty() {
                self.last_event_id = decoder.last_event_id().to_string();
                begun.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn poll(&mut self, port: u16, until: Instant, stop: &Stop) -> io::Result<()> {
        while !self.is_done && !stop.is_set() && Instant::now() < until {
            let path = format!("{}poll&last_event_id={}", self.path(), self.last_event_id);
            let response = Http::send(port, "GET", &path, &[], b"")?;
            if response.status != 200 {
                return Ok(());
            }
            let Ok(answer) = serde_json::from_slice::<serde_json::Value>(&response.body) else {
                return Ok(()); // A stream that says to come back.
            };
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_string();
            for event in answer["events"].as_array().unwrap() {
                self.hear(
                    text(&event["id"]),
                    &text(&event["event"]),
                    text(&event["data"]),
                );
            }
            self.last_event_id = text(&answer["last_event_id"]);
        }
        Ok(())
    }

    fn hear(&mut self, id: String, event: &str, data: String) {
        if event == "gap" {
            let gap: serde_json::Value = serde_json::from_str(&data).unwrap();
            let text = |name: &str| gap[name].as_str().unwrap().to_string();
            let (from, to) = (text("from"), text("to"));
            self.told.push(Told::Gap { from, to });
            return;
        }
        self.is_done |= data.starts_with("end");
        self.told.push(Told::Event { id, data });
    }
}

/// One request over HTTP/1.1, and its response.
pub struct Http {
    pub status: u16,
    /// The field lines of the head.
    pub fields: String,
    pub body: Vec<u8>,
    stream: BufReader<TcpStream>,
}

impl Http {
    /// Sends a request and reads the head of the response.
    pub fn open(
        port: u16,
        method: &str,
        path: &str,
        fields: &[(&str, String)],
        body: &[u8],
    ) -> io::Result<Http> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        // A heartbeat comes after two seconds: a node that is silent for longer hangs.
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n", body.len());
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        stream.write_all(&bytes)?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut fields = String::new();
        while !fields.ends_with("\r\n\r\n") && fields != "\r\n" {
            if stream.read_line(&mut fields)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let body = Vec::new();
        Ok(Http {
            status,
            fields,
            body,
            stream,
        })
    }

    /// As [`open`](Http::open), and reads the body to the end of the connection.
    pub fn send(
        port: u16,
        method: &str,
        path: &str,
        fields: &[(&str, String)],
        body: &[u8],
    ) -> io::Result<Http> {
        let mut http = Http::open(port, method, path, fields, body)?;
        http.stream
            .get_ref()
            .set_read_timeout(Some(Duration::from_secs(40)))?;
        http.stream.read_to_end(&mut http.body)?;
        Ok(http)
    }

    /// Returns the next chunk of a stream, `None` after the last one.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16);
        let length = length.map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }
}
