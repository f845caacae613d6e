//! The events of a response, read without a server: for tests of handlers.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::client::Stream;
use crate::config::Config;
use crate::connections::Connections;
use crate::event::{Decoded, Decoder, Message};
use crate::http::{Coding, Response, StreamHead};
use crate::socket::Socket;
use crate::threads::{self, USER_STACK_BYTES};

/// The time that a test waits for an event. It is less than the default heartbeat, so that a read times out.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The events of a response, from [`Response::events`]: an iterator. Silence of ten seconds is an error, so a stream whose
/// [`heartbeat`](crate::Sse::heartbeat) is shorter waits for its next event without a limit.
#[derive(Debug)]
pub struct Events(Stream, Decoder);

impl Response {
    /// Starts the stream and returns its events, for tests. Dropping the events has the effect of a client that leaves.
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
    /// The system's error when it gives no thread, or no connection over the loopback interface.
    pub fn events(mut self) -> io::Result<Events> {
        let (client, mut socket) = pair()?;
        let send = move || match self.stream.take() {
            None => drop(socket.write_all(self.body())),
            Some(stream) => {
                // Without chunks, the bytes on the connection are those of the body.
                let (bytes, coding) = (Vec::new(), Coding::CloseDelimited);
                drop(stream(StreamHead { bytes, coding }, socket));
            }
        };
        threads::spawn("sse-connection", USER_STACK_BYTES, Box::new(send))?;
        Ok(Events(Stream::new(client), Decoder::new()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::is_timeout;

    #[test]
    fn an_event_that_does_not_come_is_an_error_and_the_end_is_none() {
        let (client, socket) = pair().unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let mut events = Events(Stream::new(client), Decoder::new());
        let error = events.next().expect("an error").unwrap_err();
        assert!(is_timeout(&error), "{error}");
        drop(socket);
        assert!(events.next().is_none());
    }
}
