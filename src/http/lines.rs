//! The stream of a response whose body is written line by line.

use std::io::{self, LineWriter, Write};

use super::chunked::Coding;
use super::response::StreamHead;
use crate::socket::Socket;

pub(super) type WriteLines = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()>>;

/// A writer that sends each write as a chunk, the first one together with the head.
struct ChunkWriter {
    socket: Socket,
    coding: Coding,
    out: Vec<u8>,
    has_failed: bool,
}

/// Runs `write` and ends the stream, with the last chunk where `write` has succeeded. Gives the socket back where the
/// connection goes on with another request.
pub(super) fn send(head: StreamHead, mut socket: Socket, write: WriteLines) -> Option<Socket> {
    socket.start_stream().ok()?;
    let mut lines = LineWriter::new(ChunkWriter {
        socket,
        coding: head.coding,
        out: head.bytes,
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
    writer.coding.append_end(&mut writer.out);
    writer.flush().ok()?;
    writer.socket.finish_stream().ok()?;
    writer.socket.keep_alive.then_some(writer.socket)
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.coding.append(&mut self.out, &[bytes]);
        self.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = self.socket.write_all(&self.out);
        self.out.clear();
        self.has_failed |= sent.is_err();
        sent
    }
}
