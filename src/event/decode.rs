//! The bytes of an event stream, taken apart by
//! [WHATWG's algorithm](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).

use std::fmt;
use std::mem;
use std::time::Duration;

use super::encode::Event;

/// The bytes of one event that are taken unless [`Decoder::max_event_bytes`] says otherwise: what a hub publishes by
/// default.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Reads an event stream that comes in pieces of any size, as an `EventSource` would.
///
/// One byte order mark in front is dropped, what is not UTF-8 becomes U+FFFD, lines end with CRLF, LF or CR, unknown
/// fields are ignored, and an event whose blank line has not come is never returned
/// ([interpreting an event stream](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)).
/// Comments, which an `EventSource` hides, are returned, so that a client can see heartbeats.
///
/// # Examples
///
/// ```
/// use tiny_sse::{Decoded, Decoder};
///
/// # fn main() -> Result<(), tiny_sse::EventTooLong> {
/// let mut decoder = Decoder::new();
/// let mut messages = Vec::new();
/// for piece in ["id: 7\nda", "ta: hello\ndata: world\n", "\ndata: unfin"] {
///     let mut bytes = piece.as_bytes();
///     while let Some(item) = decoder.decode(&mut bytes)? {
///         if let Decoded::Message(message) = item {
///             messages.push(message.data);
///         }
///     }
/// }
/// assert_eq!(messages, ["hello\nworld"]);
/// assert_eq!(decoder.last_event_id(), "7");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Decoder {
    max_event_bytes: usize,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The bytes of the field lines since the last blank line, with one for the end of each.
    event_bytes: usize,
    in_first_line: bool,
    /// The last piece ended with CR: a LF that follows belongs to it.
    after_cr: bool,
    too_long: bool,
    /// The data so far, a LF behind each line: empty only if there was no `data` field.
    data: String,
    event: String,
    /// What the last event ID becomes at the next blank line.
    id: String,
    last_event_id: String,
}

impl Decoder {
    /// Makes a decoder for the beginning of a stream. It takes events of up to 1 MiB.
    pub fn new() -> Decoder {
        Decoder {
            max_event_bytes: MAX_EVENT_BYTES,
            line: Vec::new(),
            event_bytes: 0,
            in_first_line: true,
            after_cr: false,
            too_long: false,
            data: String::new(),
            event: String::new(),
            id: String::new(),
            last_event_id: String::new(),
        }
    }

    /// Sets how many bytes one event may have, so that an event or a line that never ends does not use up the memory.
    ///
    /// All its lines count, those of unknown fields too, its blank line and one byte for the end of each. A comment
    /// counts until its line ends, so that heartbeats on an idle stream do not add up.
    ///
    /// # Examples
    ///
    /// ```
    /// use tiny_sse::Decoder;
    ///
    /// let mut decoder = Decoder::new().max_event_bytes(8);
    /// assert!(decoder.decode(&mut &b"data: a\n\n"[..]).is_err());
    /// ```
    pub fn max_event_bytes(self, limit: usize) -> Decoder {
        Decoder {
            max_event_bytes: limit,
            ..self
        }
    }

    /// Takes bytes from the front of `bytes`, up to the end of the next item's last line; `None` when it took all of
    /// them and needs more.
    ///
    /// What is taken for a message ends exactly behind its blank line. Only where that line ends with CR at the end of
    /// `bytes`, the message does not wait for a LF that may follow: the next call takes it.
    ///
    /// # Errors
    ///
    /// Fails when an event is longer than [`Decoder::max_event_bytes`]. The rest of such a stream cannot be trusted to
    /// begin with a new event: every later call fails too, so connect again, with a new decoder.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Result<Option<Decoded>, EventTooLong> {
        loop {
            if self.after_cr && !bytes.is_empty() {
                self.after_cr = false;
                *bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                self.check_limit(bytes.len())?;
                self.line.extend_from_slice(mem::take(bytes));
                return Ok(None);
            };
            self.check_limit(end + 1)?;
            let (line, rest) = bytes.split_at(end);
            *bytes = match rest {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => rest,
            };
            self.after_cr = rest == b"\r";
            let item = if self.line.is_empty() {
                self.line(line)
            } else {
                let mut whole = mem::take(&mut self.line);
                whole.extend_from_slice(line);
                let item = self.line(&whole);
                whole.clear();
                self.line = whole;
                item
            };
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    /// The last event ID as of the last blank line: what a client sends as
    /// [`Last-Event-ID`](https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header) when
    /// it reconnects. Empty while there was none.
    ///
    /// An event without data, for which there is no message, sets it too.
    ///
    /// # Examples
    ///
    /// ```
    /// use tiny_sse::Decoder;
    ///
    /// # fn main() -> Result<(), tiny_sse::EventTooLong> {
    /// let mut decoder = Decoder::new();
    /// assert_eq!(decoder.decode(&mut &b"id: 41\n\n"[..])?, None);
    /// assert_eq!(decoder.last_event_id(), "41");
    /// # Ok(())
    /// # }
    /// ```
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Fails if `more` bytes of the current line make the event too long.
    fn check_limit(&mut self, more: usize) -> Result<(), EventTooLong> {
        let limit = self.max_event_bytes;
        let before = self.event_bytes + self.line.len();
        self.too_long |= limit.checked_sub(before).is_none_or(|room| more > room);
        if self.too_long {
            return Err(EventTooLong { limit });
        }
        Ok(())
    }

    fn line(&mut self, mut line: &[u8]) -> Option<Decoded> {
        if mem::take(&mut self.in_first_line) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        // Each line is decoded by itself: CR, LF, colon and space never stand inside a character of UTF-8.
        let text = String::from_utf8_lossy(value);
        if colon == Some(0) {
            return Some(Decoded::Comment(text.into_owned()));
        }
        self.event_bytes += line.len() + 1;
        match name {
            b"data" => {
                self.data.push_str(&text);
                self.data.push('\n');
            }
            b"event" => self.event = text.into_owned(),
            b"id" if !text.contains('\0') => self.id = text.into_owned(),
            b"retry" => return reconnection_time(value).map(Decoded::Retry),
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Decoded> {
        self.event_bytes = 0;
        self.last_event_id.clone_from(&self.id);
        let mut data = mem::take(&mut self.data);
        let event = mem::take(&mut self.event);
        data.pop()?;
        Some(Decoded::Message(Message {
            event: if event.is_empty() {
                "message".to_owned()
            } else {
                event
            },
            data,
            last_event_id: self.last_event_id.clone(),
        }))
    }
}

/// The value of a `retry` field, unless it is empty or holds anything but ASCII digits.
fn reconnection_time(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let millis = value.iter().fold(0_u64, |millis, digit| {
        millis
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    Some(Duration::from_millis(millis))
}

/// The same as [`Decoder::new`].
impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

/// What a [`Decoder`] found in an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// An event with data, at its blank line.
    Message(Message),
    /// A comment, at the end of its line: the text behind the colon, without one leading space.
    Comment(String),
    /// The reconnection time, at the end of its line: it takes effect even if its event is never finished. A number too
    /// large for the `u64` of milliseconds counts as the largest.
    Retry(Duration),
}

/// One event as a client dispatches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event's name: `message` when it has none.
    pub event: String,
    /// The lines of data, a LF between them.
    pub data: String,
    /// The id of this event, or of the last one before it that had one.
    pub last_event_id: String,
}

/// An event of the stream is longer than [`Decoder::max_event_bytes`].
///
/// The [`Decoder`] that returned it reads no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTooLong {
    limit: usize,
}

impl fmt::Display for EventTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for EventTooLong {}

impl Event {
    /// Reads the event as a client does that receives it first of all; `None` when it has no data, so that nothing
    /// would be dispatched.
    ///
    /// # Examples
    ///
    /// ```
    /// use tiny_sse::Event;
    ///
    /// # fn main() -> Result<(), tiny_sse::InvalidField> {
    /// let event = Event::data("21.5").event("temperature")?;
    /// let message = event.message().expect("the event has data");
    /// assert_eq!((message.event.as_str(), message.data.as_str()), ("temperature", "21.5"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn message(&self) -> Option<Message> {
        let mut text = Vec::with_capacity(self.encoded_len());
        self.encode(&mut text);
        let mut bytes = &text[..];
        let mut decoder = Decoder::new().max_event_bytes(usize::MAX);
        while let Ok(Some(item)) = decoder.decode(&mut bytes) {
            if let Decoded::Message(message) = item {
                return Some(message);
            }
        }
        None
    }
}
