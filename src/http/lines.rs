//! The stream of a response whose body is written line by line.
//!
//! ```text
//!  program ──write!──▶ LineWriter ──whole lines──▶ ChunkWriter ──chunk──▶ Socket
//! ```
//!
//! A `write!` of std calls its writer once for each piece of the format string. Without the [`LineWriter`] each piece would
//! be a chunk and a packet. The program's first line leaves in the same write as the head:
//!
//! ```text
//! HTTP/1.1 200 OK\r\n ... \r\n\r\n3\r\n42\n\r\n      the line "42" is a chunk of three bytes
//! ```

use std::io::{self, LineWriter, Write};

use super::response::StreamHead;
use crate::socket::Socket;

/// The program's part of [`Response::lines`](crate::Response::lines).
pub(super) type WriteLines = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()>>;

/// A writer that sends each write as a chunk, the first one together with the head.
struct ChunkWriter {
    /// Non-blocking, as for each stream. A write waits for a slow client within the server's limits.
    socket: Socket,
    /// The coding, and what has not been sent yet: at first the head. Empty after each flush.
    head: StreamHead,
    /// A write to the socket has failed. This distinguishes a client that has left from an error of the program.
    has_failed: bool,
}

/// Runs `write` and ends the stream, with the last chunk where `write` has succeeded. Gives the socket back where the
/// connection goes on with another request.
pub(super) fn send(head: StreamHead, mut socket: Socket, write: WriteLines) -> Option<Socket> {
    socket.start_stream().ok()?;
    let mut lines = LineWriter::new(ChunkWriter {
        socket,
        head,
        has_failed: false,
    });
    let written = write(&mut lines).and_then(|()| lines.flush());
    let mut writer = lines.into_inner().ok()?;
    if let Err(error) = written {
        // A client may leave at any time. Every other error is the program's.
        if !writer.has_failed {
            let problem = format!("a stream of lines broke off: {error}");
            writer.socket.report(&problem);
        }
        return None;
    }
    writer.head.coding.append_end(&mut writer.head.bytes);
    writer.flush().ok()?;
    writer.socket.finish_stream().ok()?;
    writer.socket.keep_alive.then_some(writer.socket)
}

impl Write for ChunkWriter {
    /// Sends all bytes as one chunk, so that nothing waits here for the next call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.head.coding.append(&mut self.head.bytes, &[bytes]);
        self.flush()?;
        Ok(bytes.len())
    }

    /// Sends what has not been sent yet, also the head alone. After an error the bytes are dropped: a part may have left.
    fn flush(&mut self) -> io::Result<()> {
        let sent = self.socket.write_all(&self.head.bytes);
        self.head.bytes.clear();
        self.has_failed |= sent.is_err();
        sent
    }
}
