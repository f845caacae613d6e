//! The events of a response, read without a server: for tests of handlers.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::event::{Decoded, Decoder, Message};
use crate::http::{Body, Coding, Response, StreamHead};
use crate::slots::Slots;
use crate::socket::Socket;
use crate::threads;

/// How long a test waits for an event; less than the default heartbeat, which would otherwise keep it waiting.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The events of a response, from [`Response::events`]. An event that does not come within ten seconds is an error.
pub struct Events {
    bytes: Box<dyn Read + Send>,
    decoder: Decoder,
    /// What has been read and not decoded.
    read: Vec<u8>,
}

impl Response {
    /// Starts the stream and reads its events: for tests. Dropping what reads them is to the stream as when the client leaves.
    ///
    /// ```
    /// use tiny_sse::{Event, Hub, Method, Request, Server};
    ///
    /// let hub = Hub::new();
    /// let readers = hub.clone();
    /// let server = Server::bind("127.0.0.1:0")?.get("/news", move |request| readers.subscribe(request, "news"));
    ///
    /// let response = server.answer(Request::new(Method::Get, "/news")?);
    /// let mut events = response.events()?;
    /// hub.publish("news", Event::data("hello"))?;
    /// assert_eq!(events.next().expect("an event")?.data, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What the system says when it gives no thread, or no socket on the loopback interface.
    pub fn events(mut self) -> io::Result<Events> {
        let bytes: Box<dyn Read + Send> = match self.take_body() {
            Body::Whole(bytes) => Box::new(io::Cursor::new(bytes)),
            Body::Stream(stream) => {
                let (client, socket) = pair()?;
                // Without chunks the stream's bytes are the body's.
                let head = StreamHead {
                    bytes: Vec::new(),
                    coding: Coding::Bare,
                };
                threads::spawn("sse-connection", None, Box::new(|| stream(head, socket)))?;
                Box::new(client)
            }
        };
        Ok(Events {
            bytes,
            decoder: Decoder::new(),
            read: Vec::new(),
        })
    }
}

/// Two ends of one connection.
fn pair() -> io::Result<(TcpStream, Socket)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    client.set_read_timeout(Some(TIMEOUT))?;
    let (stream, peer) = listener.accept()?;
    let slots = Slots::new(Config::default(), Arc::new(|_| ()));
    Ok((client, Socket::new(&slots, stream, peer)))
}

impl Iterator for Events {
    type Item = io::Result<Message>;

    fn next(&mut self) -> Option<io::Result<Message>> {
        loop {
            let mut bytes = self.read.as_slice();
            let decoded = self.decoder.decode(&mut bytes);
            self.read = bytes.to_vec();
            match decoded {
                Ok(Some(Decoded::Message(message))) => return Some(Ok(message)),
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => return Some(Err(io::Error::other(error))),
            }
            let mut piece = [0; 4096];
            match self.bytes.read(&mut piece) {
                Ok(0) => return None,
                Ok(n) => self.read.extend_from_slice(&piece[..n]),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
