//! The events of a response, read without a server: for tests of handlers.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::client::Stream;
use crate::config::Config;
use crate::connections::Connections;
use crate::event::{Decoded, Decoder, Message};
use crate::http::{Body, Coding, Response, StreamHead};
use crate::socket::Socket;
use crate::threads;

/// The time that a test waits for an event. It is less than the default heartbeat, so that a read times out.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The events of a response, from [`Response::events`]: an iterator. An event that does not arrive within ten seconds is an
/// error.
pub struct Events(Stream, Decoder);

impl Response {
    /// Starts the stream and returns its events, for tests. Dropping the events is what a client does that leaves.
    ///
    /// ```
    /// use tiny_sse::{Event, Hub, Method, Request, Server};
    ///
    /// let hub = Hub::new();
    /// let readers = hub.clone();
    /// let server = Server::bind("127.0.0.1:0")?
    ///     .get("/news", move |request| readers.subscribe(request, "news"));
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
    /// Fails where the system gives no thread, or no connection over the loopback interface.
    pub fn events(mut self) -> io::Result<Events> {
        let bytes: Box<dyn BufRead + Send> = match self.take_body() {
            Body::Whole(bytes) => Box::new(io::Cursor::new(bytes)),
            Body::Stream(stream) => {
                let (client, socket) = pair()?;
                // Without chunks, the bytes on the connection are those of the body.
                let head = StreamHead {
                    bytes: Vec::new(),
                    coding: Coding::CloseDelimited,
                };
                threads::spawn(
                    "sse-connection",
                    None,
                    Box::new(|| drop(stream(head, socket))),
                )?;
                Box::new(BufReader::new(client))
            }
        };
        Ok(Events(Stream::new(bytes), Decoder::new()))
    }
}

/// Connects a client with the socket of a stream.
fn pair() -> io::Result<(TcpStream, Socket)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    client.set_read_timeout(Some(TIMEOUT))?;
    let (stream, peer) = listener.accept()?;
    let connections = Connections::new(Config::default(), Arc::new(|_| ()));
    Ok((client, Socket::new(&connections, stream, peer)))
}

impl Iterator for Events {
    type Item = io::Result<Message>;

    fn next(&mut self) -> Option<io::Result<Message>> {
        loop {
            match self.0.next(&mut self.1) {
                Ok(Decoded::Message(message)) => return Some(Ok(message)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
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
