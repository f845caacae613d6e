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

/// Runs `write`. The stream gets its end only where `write` has succeeded.
pub(super) fn send(head: StreamHead, mut socket: Socket, write: WriteLines) {
    if socket.start_stream().is_err() {
        return;
    }
    let mut lines = LineWriter::new(ChunkWriter {
        socket,
        coding: head.coding,
        out: head.bytes,
        has_failed: false,
    });
    let written = write(&mut lines).and_then(|()| lines.flush());
    let writer = lines.get_mut();
    match written {
        Ok(()) => {
            writer.coding.append_end(&mut writer.out);
            if writer.flush().is_ok() {
                writer.socket.finish_stream();
            }
        }
        // The client has left, which is no error of the program.
        Err(_) if writer.has_failed => {}
        Err(error) => writer
            .socket
            .report(&format!("a stream of lines broke off: {error}")),
    }
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
