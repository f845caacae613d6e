//! What arrives on one stream: a response head, the chunked coding, checked strictly, and the events in it; or the
//! messages of a WebSocket.

use std::{fmt, io};

use memchr::{memchr, memmem};

/// One thing that a stream brought.
#[derive(Debug, PartialEq)]
pub enum Item<'a> {
    /// An event's first line of data, or a WebSocket message.
    Data(&'a [u8]),
    /// The server's notice that events were lost.
    Gap,
}

/// Why a stream cannot be read on.
#[derive(Debug)]
pub enum Fault {
    Io(io::Error),
    /// The head is not that of an event stream or of a WebSocket.
    Head(String),
    /// The chunked coding or a frame is malformed (RFC 9112 section 7.1, RFC 6455 section 5.2).
    Framing(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => write!(formatter, "{error}"),
            Fault::Head(head) => write!(formatter, "unexpected head {head:?}"),
            Fault::Framing(what) => write!(formatter, "malformed: {what}"),
        }
    }
}

/// Reads one stream from bytes in any pieces.
#[derive(Debug, Default)]
pub struct Parser {
    state: State,
    /// The start of a head, event or frame that is not complete yet.
    carry: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Head,
    ChunkSize {
        size: u64,
        digits: u8,
    },
    ChunkSizeEnd {
        size: u64,
    },
    ChunkData {
        left: u64,
    },
    ChunkEnd,
    ChunkEndLine,
    /// After the last chunk: the two bytes of the line break that ends the body.
    BodyEnd {
        left: u8,
    },
    Ended,
    /// No transfer coding: the event stream ends by close.
    Bare,
    WebSocket,
}

const CHUNK_SIZE: State = State::ChunkSize { size: 0, digits: 0 };

impl Parser {
    /// Returns whether the server has ended the stream by its last chunk.
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes all of `bytes`, and hands each whole item to `sink`.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Item<'_>)) -> Result<(), Fault> {
        while let Some(&first) = bytes.first() {
            match self.state {
                State::Head => return self.feed_head(bytes, sink),
                State::ChunkSize { size, digits } => {
                    self.state = match char::from(first).to_digit(16) {
                        Some(digit) if digits < 8 => State::ChunkSize {
                            size: size * 16 + u64::from(digit),
                            digits: digits + 1,
                        },
                        None if first == b'\r' && digits > 0 => State::ChunkSizeEnd { size },
                        _ => return Err(Fault::Framing("chunk size")),
                    };
                    bytes = &bytes[1..];
                }
                State::ChunkSizeEnd { size } => {
                    self.state = match (first, size) {
                        (b'\n', 0) => State::BodyEnd { left: 2 },
                        (b'\n', left) => State::ChunkData { left },
                        _ => return Err(Fault::Framing("line break after a chunk size")),
                    };
                    bytes = &bytes[1..];
                }
                State::ChunkData { left } => {
                    let count = left.min(bytes.len() as u64);
                    let (data, rest) = bytes.split_at(count as usize);
                    self.feed_whole(data, parse_events, sink)?;
                    bytes = rest;
                    self.state = match left - count {
                        0 => State::ChunkEnd,
                        left => State::ChunkData { left },
                    };
                }
                State::ChunkEnd | State::ChunkEndLine => {
                    self.state = match (self.state, first) {
                        (State::ChunkEnd, b'\r') => State::ChunkEndLine,
                        (State::ChunkEndLine, b'\n') => CHUNK_SIZE,
                        _ => return Err(Fault::Framing("line break after a chunk")),
                    };
                    bytes = &bytes[1..];
                }
                State::BodyEnd { left } => {
                    self.state = match (left, first) {
                        (2, b'\r') => State::BodyEnd { left: 1 },
                        (1, b'\n') => State::Ended,
                        _ => return Err(Fault::Framing("line break after the last chunk")),
                    };
                    bytes = &bytes[1..];
                }
                State::Ended => return Err(Fault::Framing("bytes after the last chunk")),
                State::Bare => return self.feed_whole(bytes, parse_events, sink),
                State::WebSocket => return self.feed_whole(bytes, parse_frames, sink),
            }
        }
        Ok(())
    }

    fn feed_head(&mut self, bytes: &[u8], sink: &mut impl FnMut(Item<'_>)) -> Result<(), Fault> {
        self.carry.extend_from_slice(bytes);
        let Some(end) = memmem::find(&self.carry, b"\r\n\r\n") else {
            return Ok(());
        };
        let text = std::mem::take(&mut self.carry);
        let (head, rest) = text.split_at(end + 4);
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        self.state = if head.starts_with("http/1.1 101") {
            State::WebSocket
        } else if !head.starts_with("http/1.1 200") || !head.contains("text/event-stream") {
            return Err(Fault::Head(head));
        } else if head.contains("\r\ntransfer-encoding: chunked\r\n") {
            CHUNK_SIZE
        } else {
            State::Bare
        };
        self.feed(rest, sink)
    }

    /// Hands the whole items in what was carried over and `bytes` to `sink`, and keeps the rest.
    fn feed_whole<S: FnMut(Item<'_>)>(
        &mut self,
        bytes: &[u8],
        parse: fn(&[u8], &mut S) -> Result<usize, Fault>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        if self.carry.is_empty() {
            let consumed = parse(bytes, sink)?;
            self.carry.extend_from_slice(&bytes[consumed..]);
        } else {
            self.carry.extend_from_slice(bytes);
            let consumed = parse(&self.carry, sink)?;
            self.carry.drain(..consumed);
            // An idle stream is to cost as little here as it can.
            if self.carry.is_empty() {
                self.carry = Vec::new();
            }
        }
        Ok(())
    }
}

/// Hands each whole event to `sink`, and returns how many bytes they took.
fn parse_events(bytes: &[u8], sink: &mut impl FnMut(Item<'_>)) -> Result<usize, Fault> {
    let mut consumed = 0;
    let mut position = 0;
    let mut data = None;
    let mut is_gap = false;
    while let Some(length) = memchr(b'\n', &bytes[position..]) {
        let line = &bytes[position..position + length];
        position += length + 1;
        match line.strip_suffix(b"\r").unwrap_or(line) {
            b"" => {
                match (is_gap, data) {
                    (true, _) => sink(Item::Gap),
                    (false, Some(data)) => sink(Item::Data(data)),
                    (false, None) => {}
                }
                (data, is_gap, consumed) = (None, false, position);
            }
            b"event: gap" => is_gap = true,
            [b'd', b'a', b't', b'a', b':', value @ ..] => {
                data = data.or(Some(value.strip_prefix(b" ").unwrap_or(value)));
            }
            // A comment between two events, as a heartbeat is.
            [b':', ..] if data.is_none() && !is_gap => consumed = position,
            _ => {}
        }
    }
    Ok(consumed)
}

/// Hands each whole text frame to `sink`, and returns how many bytes they took. A server's frames are not masked.
fn parse_frames(bytes: &[u8], sink: &mut impl FnMut(Item<'_>)) -> Result<usize, Fault> {
    let mut consumed = 0;
    while let [kind, length, rest @ ..] = &bytes[consumed..] {
        let (length, rest, extra) = match (length, rest) {
            (0..=125, rest) => (usize::from(*length), rest, 0),
            (126, [high, low, rest @ ..]) => {
                (usize::from(u16::from_be_bytes([*high, *low])), rest, 2)
            }
            (126, _) => break,
            _ => return Err(Fault::Framing("length of a frame")),
        };
        let Some(payload) = rest.get(..length) else {
            break;
        };
        match kind {
            0x81 => sink(Item::Data(payload)),
            0x88..=0x8a => {}
            _ => return Err(Fault::Framing("kind of a frame")),
        }
        consumed += 2 + extra + length;
    }
    Ok(consumed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// Reads `body` after a head, whole and byte by byte, and compares the items, or the fault.
    #[track_caller]
    fn check(head: &str, body: &[u8], expected: Result<&[&str], &str>) {
        let bytes = [head.as_bytes(), body].concat();
        for size in [bytes.len(), 1] {
            let mut items = Vec::new();
            let mut sink = |item: Item<'_>| {
                items.push(match item {
                    Item::Data(data) => String::from_utf8_lossy(data).into_owned(),
                    Item::Gap => "gap!".to_owned(),
                });
            };
            let mut parser = Parser::default();
            let fed = bytes
                .chunks(size)
                .try_for_each(|piece| parser.feed(piece, &mut sink));
            match expected {
                Ok(expected) => assert_eq!(
                    items,
                    expected,
                    "{:?}",
                    fed.map_err(|fault| fault.to_string())
                ),
                Err(expected) => assert_eq!(fed.unwrap_err().to_string(), expected),
            }
        }
    }

    #[test]
    fn events_are_found_in_any_chunks() {
        check(HEAD, b"d\r\ndata: hello\n\n\r\n", Ok(&["hello"]));
        check(HEAD, b"3\r\ndat\r\nA\r\na: hello\n\n\r\n", Ok(&["hello"]));
        check(
            HEAD,
            b"12\r\ndata: a\n\ndata: b\n\n\r\n0\r\n\r\n",
            Ok(&["a", "b"]),
        );
        check(
            HEAD,
            b"1b\r\n: heartbeat\nid: 1\ndata: a\n\n\r\n",
            Ok(&["a"]),
        );
        check(
            HEAD,
            b"1a\r\nevent: gap\ndata: {\"l\":1}\n\n\r\n",
            Ok(&["gap!"]),
        );
    }

    #[test]
    fn chunked_coding_is_read_strictly() {
        check(HEAD, b"\r\n", Err("malformed: chunk size"));
        check(HEAD, b"+1\r\n", Err("malformed: chunk size"));
        check(HEAD, b"1\n", Err("malformed: chunk size"));
        check(
            HEAD,
            b"1\r\r",
            Err("malformed: line break after a chunk size"),
        );
        check(HEAD, b"1\r\nxx", Err("malformed: line break after a chunk"));
        check(
            HEAD,
            b"0\r\nx",
            Err("malformed: line break after the last chunk"),
        );
        check(
            HEAD,
            b"0\r\n\r\nx",
            Err("malformed: bytes after the last chunk"),
        );
    }

    #[test]
    fn a_stream_without_coding_and_a_websocket_are_read_too() {
        let bare = "HTTP/1.1 200 OK\r\ncontent-type:text/event-stream\r\n\r\n";
        check(bare, b"data:a\n\ndata: b\r\n\r\n", Ok(&["a", "b"]));
        let upgraded = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
        check(
            upgraded,
            b"\x81\x02hi\x89\x00\x81\x7e\x00\x01x",
            Ok(&["hi", "x"]),
        );
        check(upgraded, b"\x02\x00", Err("malformed: kind of a frame"));
    }
}
