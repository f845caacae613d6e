//! The bytes of an event stream, taken apart by
//! [WHATWG's algorithm](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::time::Duration;

use super::encode::Event;
use super::line::line_break;

/// The maximum bytes of one event unless [`Decoder::max_event_bytes`] sets another limit: as many as a hub publishes by
/// default.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Reads an event stream that comes in pieces of any size, as an `EventSource` would.
///
/// One byte order mark in front is dropped. Bytes that are not UTF-8 become U+FFFD. Lines end with CRLF, LF or CR. Unknown
/// fields are ignored. An event whose blank line has not come is never returned ([interpreting an event
/// stream](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)). Comments, which an
/// `EventSource` hides, are returned, so that a client can see heartbeats.
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
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// [`MAX_EVENT_BYTES`] where no other limit is set.
    max_event_bytes: Option<usize>,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The bytes of the field lines since the last blank line, with one byte for the end of each line.
    event_bytes: usize,
    /// The first line, which may begin with a byte order mark, has ended.
    has_begun: bool,
    /// The last piece ended with CR: an LF that follows belongs to the same line end.
    after_cr: bool,
    /// The data so far, with an LF after each line: empty only if there was no `data` field.
    data: String,
    event: String,
    /// What the last event ID becomes at the next blank line.
    id: String,
    last_event_id: String,
}

impl Decoder {
    /// Makes a decoder for the beginning of a stream. It takes events of up to 1 MiB.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Makes a decoder for a stream that a client asked for with this last event ID, which holds until an `id` comes.
    pub(crate) fn after(last_event_id: &str) -> Decoder {
        Decoder {
            id: last_event_id.to_string(),
            last_event_id: last_event_id.to_string(),
            ..Decoder::default()
        }
    }

    /// Sets how many bytes one event may have, so that an event or a line that never ends does not use up the memory.
    ///
    /// All lines of the event count, those of unknown fields and the blank line as well, with one byte for the end of each. A
    /// comment counts until its line ends, so that the heartbeats of an idle stream do not add up.
    ///
    /// # Examples
    ///
    /// ```
    /// use tiny_sse::Decoder;
    ///
    /// let mut decoder = Decoder::new().max_event_bytes(8);
    /// assert!(decoder.decode(&mut &b"data: a\n\n"[..]).is_err());
    /// ```
    #[must_use]
    pub fn max_event_bytes(mut self, limit: usize) -> Decoder {
        self.max_event_bytes = Some(limit);
        self
    }

    /// Takes bytes from the front of `bytes`, up to the end of the next item's last line; `None` when it took all of
    /// them and needs more.
    ///
    /// The bytes of a message end with its blank line. Where that line ends with CR at the end of `bytes`, the message does not
    /// wait for an LF that may follow: the next call takes the LF.
    ///
    /// # Errors
    ///
    /// Fails when an event is longer than [`Decoder::max_event_bytes`]. The rest of such a stream cannot be trusted to
    /// begin with a new event: every later call fails too. So connect again, with a new decoder.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Result<Option<Decoded>, EventTooLong> {
        loop {
            if self.after_cr && !bytes.is_empty() {
                self.after_cr = false;
                *bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            let end = line_break(bytes);
            let limit = self.max_event_bytes.unwrap_or(MAX_EVENT_BYTES);
            let before = self.event_bytes.saturating_add(self.line.len());
            if before.saturating_add(end.map_or(bytes.len(), |end| end + 1)) > limit {
                // So that every later call fails too.
                self.event_bytes = usize::MAX;
                return Err(EventTooLong { limit });
            }
            let Some(end) = end else {
                self.line.extend_from_slice(mem::take(bytes));
                return Ok(None);
            };
            let (mut line, rest) = bytes.split_at(end);
            *bytes = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
            self.after_cr = rest == b"\r";
            let mut whole = mem::take(&mut self.line);
            if !whole.is_empty() {
                whole.extend_from_slice(line);
                line = &whole;
            }
            let item = self.process_line(line);
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    /// Returns the last event ID as of the last blank line: what a client sends as
    /// [`Last-Event-ID`](https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header) when
    /// it reconnects. Empty while there was none.
    ///
    /// An event without data, for which there is no message, sets the id too.
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

    /// Processes a line without its line end, as WHATWG's algorithm does.
    fn process_line(&mut self, mut line: &[u8]) -> Option<Decoded> {
        if !mem::replace(&mut self.has_begun, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        // Each line is decoded by itself: CR, LF, colon and space never stand inside a character of UTF-8. `from_utf8` is several
        // times as fast as `from_utf8_lossy`, which is left for text that is not UTF-8.
        let lossy = |_| String::from_utf8_lossy(value);
        let text = str::from_utf8(value).map_or_else(lossy, Cow::Borrowed);
        if name.is_empty() {
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
            b"retry" if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                // Digits that do not parse are a number that is too large.
                let millis = text.parse().unwrap_or(u64::MAX);
                return Some(Decoded::Retry(Duration::from_millis(millis)));
            }
            _ => {}
        }
        None
    }

    /// Dispatches the event at its blank line; `None` where it has no data.
    fn dispatch(&mut self) -> Option<Decoded> {
        self.event_bytes = 0;
        self.last_event_id.clone_from(&self.id);
        let mut data = mem::take(&mut self.data);
        let mut event = mem::take(&mut self.event);
        data.pop()?;
        if event.is_empty() {
            event.push_str("message");
        }
        Some(Decoded::Message(Message {
            event,
            data,
            last_event_id: self.last_event_id.clone(),
        }))
    }
}

/// What a [`Decoder`] found in an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decoded {
    /// An event with data, at its blank line.
    Message(Message),
    /// A comment, at the end of its line: the text after the colon, without one leading space.
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
    /// The lines of data, with an LF between them.
    pub data: String,
    /// The id of this event, or of the last one before it that had one.
    pub last_event_id: String,
}

/// An event of the stream is longer than [`Decoder::max_event_bytes`].
///
/// The [`Decoder`] that returned this error reads no more.
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
    /// Returns the message that a client dispatches for this event if it is the first of a stream; `None` when the event has no
    /// data, so that nothing is dispatched.
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
        let mut decoder = Decoder::new();
        // What stands after the last line end is the blank line.
        let mut lines = self.lines().split(|byte| *byte == b'\n');
        lines.find_map(|line| match decoder.process_line(line) {
            Some(Decoded::Message(message)) => Some(message),
            _ => None,
        })
    }
}

// The streams of `the_cases_of_web_platform_tests` are after those of `eventsource/format-*` in
// https://github.com/web-platform-tests/wpt, under the names they have there.
#[cfg(test)]
mod tests {
    use super::super::encode::InvalidField;
    use super::*;

    const UNLIMITED: usize = usize::MAX;

    fn message(data: &str) -> Decoded {
        named("message", data, "")
    }

    fn with_id(data: &str, last_event_id: &str) -> Decoded {
        named("message", data, last_event_id)
    }

    fn named(event: &str, data: &str, last_event_id: &str) -> Decoded {
        Decoded::Message(Message {
            event: event.to_owned(),
            data: data.to_owned(),
            last_event_id: last_event_id.to_owned(),
        })
    }

    fn comment(text: &str) -> Decoded {
        Decoded::Comment(text.to_owned())
    }

    fn retry(millis: u64) -> Decoded {
        Decoded::Retry(Duration::from_millis(millis))
    }

    /// What is decoded from a stream: the items, the last event ID, and the error at the end if there was one.
    type Outcome = (Vec<Decoded>, String, Option<EventTooLong>);

    fn decode<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let mut decoder = Decoder::new().max_event_bytes(limit);
        let mut items = Vec::new();
        let mut failed = None;
        for mut bytes in pieces {
            while failed.is_none() {
                match decoder.decode(&mut bytes) {
                    Ok(Some(item)) => items.push(item),
                    Ok(None) => break,
                    Err(error) => failed = Some(error),
                }
            }
            assert!(bytes.is_empty() || failed.is_some(), "not all was taken");
        }
        (items, decoder.last_event_id, failed)
    }

    /// Whole, byte by byte with empty pieces between, and cut at every offset: all must agree.
    #[track_caller]
    fn decode_every_way(limit: usize, stream: &[u8]) -> Outcome {
        let whole = decode(limit, [stream]);
        let bytes = stream.chunks(1).flat_map(|byte| [byte, &[]]);
        assert_eq!(
            decode(limit, bytes),
            whole,
            "byte by byte: {}",
            stream.escape_ascii()
        );
        for offset in 0..=stream.len() {
            let (front, back) = stream.split_at(offset);
            assert_eq!(
                decode(limit, [front, back]),
                whole,
                "cut at {offset}: {}",
                stream.escape_ascii()
            );
        }
        whole
    }

    /// WHATWG's algorithm, read as plainly as possible: the whole stream at once, no piece, no limit.
    fn read_plainly(stream: &[u8]) -> Outcome {
        let text = String::from_utf8_lossy(stream).into_owned();
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut lines: Vec<&str> = text.split('\n').collect();
        lines.pop(); // Text without a line break after it is not a line.
        let mut items = Vec::new();
        let (mut event_type, mut data, mut id) = ("", Vec::new(), "");
        let mut last_event_id = "";
        for line in lines {
            if line.is_empty() {
                last_event_id = id;
                if !data.is_empty() {
                    let name = if event_type.is_empty() {
                        "message"
                    } else {
                        event_type
                    };
                    items.push(named(name, &data.join("\n"), id));
                }
                (event_type, data) = ("", Vec::new());
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => items.push(comment(value)),
                "data" => data.push(value),
                "event" => event_type = value,
                "id" if !value.contains('\0') => id = value,
                "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    items.push(retry(value.parse().unwrap_or(u64::MAX)));
                }
                _ => {}
            }
        }
        (items, last_event_id.to_owned(), None)
    }

    #[track_caller]
    fn check(stream: impl AsRef<[u8]>, expected: &[Decoded]) {
        let stream = stream.as_ref();
        let (items, _, failed) = decode_every_way(UNLIMITED, stream);
        assert_eq!(failed, None);
        assert_eq!(items, expected);
        assert_eq!(
            read_plainly(stream).0,
            expected,
            "the plain reading disagrees"
        );
    }

    #[track_caller]
    fn check_id(stream: &str, expected: &str) {
        let (_, last_event_id, _) = decode_every_way(UNLIMITED, stream.as_bytes());
        assert_eq!(last_event_id, expected);
        assert_eq!(
            read_plainly(stream.as_bytes()).1,
            expected,
            "the plain reading disagrees"
        );
    }

    #[test]
    fn the_cases_of_web_platform_tests() {
        // format-bom: only at the front of the stream.
        check(
            "\u{FEFF}data:1\n\n\u{FEFF}data:2\n\ndata:3\n\n",
            &[message("1"), message("3")],
        );
        // format-bom-2: only one is dropped.
        check("\u{FEFF}\u{FEFF}data:1\n\ndata:2\n\n", &[message("2")]);
        // format-comments
        check(
            "data:1\r:\0\n:\r\ndata:2\n:x\rdata:3\n\n",
            &[comment("\0"), comment(""), comment("x"), message("1\n2\n3")],
        );
        // format-data-before-final-empty-line
        check(
            "retry:1000\ndata:test1\n\nid:test\ndata:test2",
            &[retry(1000), message("test1")],
        );
        // format-field-data
        check(
            "data:\n\ndata\ndata\n\ndata:test\n\n",
            &[message(""), message("\n"), message("test")],
        );
        // format-field-event
        check(
            "event:test\ndata:x\n\ndata:x\n\n",
            &[named("test", "x", ""), message("x")],
        );
        // format-field-event-empty
        check("event: \ndata:data\n\n", &[message("data")]);
        // format-field-id: an empty one resets it.
        check(
            "id: 1\ndata: a\n\nid:\ndata: b\n\n",
            &[with_id("a", "1"), message("b")],
        );
        // format-field-id-2
        check(
            "id\ndata: a\n\nid: …\ndata: b\n\ndata: c\n\n",
            &[message("a"), with_id("b", "…"), with_id("c", "…")],
        );
        // format-field-id-null: the field is ignored.
        check(
            "id: 1\ndata: a\n\nid: \0 2\ndata: b\n\nid: 3\0\ndata: c\n\n",
            &[with_id("a", "1"), with_id("b", "1"), with_id("c", "1")],
        );
        // format-field-parsing
        check(
            "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
            &[message("\0\n 2\n1\n3\n\n4")],
        );
        // format-field-retry-bogus
        check(
            "retry:3000\nretry:1000x\ndata:x\n\n",
            &[retry(3000), message("x")],
        );
        // format-field-retry-empty
        check(
            "retry:1000\nretry\ndata:test\n\n",
            &[retry(1000), message("test")],
        );
        // format-field-unknown
        check(
            "data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
            &[comment("thisisacommentyay"), message("test\n\ntest")],
        );
        // format-leading-space
        check(
            "data:\ttest\rdata: \ndata:test\n\n",
            &[message("\ttest\n\ntest")],
        );
        // format-newlines
        check(
            "data:test\r\ndata\ndata:test\r\n\r",
            &[message("test\n\ntest")],
        );
        // format-null-character
        check("data:\0\n\n\n\n", &[message("\0")]);
        // format-utf-8
        check("data:ok…\n\n", &[message("ok…")]);
    }

    #[test]
    fn lines_end_with_crlf_lf_or_cr() {
        let two = [message("a"), message("b")];
        check("data:a\n\ndata:b\n\n", &two);
        check("data:a\r\rdata:b\r\r", &two);
        check("data:a\r\n\r\ndata:b\r\n\r\n", &two);
        check("data:a\r\n\rdata:b\n\r\n", &two); // Mixed, CRLF and CR, LF and CRLF.
        check("data:a\n\rdata:b\n\r", &two); // LF and then CR are two.
        check("data:a\r\ndata:b\r\n\n", &[message("a\nb")]); // CRLF inside an event is one.
        check("\r\n\n\r\rdata:a\n\n\n", &[message("a")]); // Blank lines alone dispatch nothing.
        // No others.
        check(
            "data:a\u{2028}b\u{B}c\u{85}d\n\n",
            &[message("a\u{2028}b\u{B}c\u{85}d")],
        );
    }

    #[test]
    fn fields_are_taken_by_their_exact_names() {
        check("data\n\n", &[message("")]); // No colon: the value is empty.
        check("data: a: b\n\n", &[message("a: b")]); // The first colon counts.
        check("data:  a \n\n", &[message(" a ")]); // One leading space is removed, the rest stays.
        check("data :a\nDATA:b\n data:c\ndata\t:d\n\n", &[]); // None of these is `data`.
        check(
            ": a\n:  b\n:\n::\n",
            &[comment("a"), comment(" b"), comment(""), comment(":")],
        );
        check("event: a\nevent: b\ndata\n\n", &[named("b", "", "")]); // The later one counts.
        check("event: a\n\ndata\n\n", &[message("")]); // A name without data is forgotten.
        check("event: a\nevent\ndata\n\n", &[message("")]); // An empty name undoes it.
        check("event: a\0é\ndata\n\n", &[named("a\0é", "", "")]);
        check("data: never finished", &[]);
        check("data: never finished\n", &[]); // Its blank line is missing.
        check("", &[]);
    }

    #[test]
    fn retry_takes_ascii_digits_only() {
        check("retry: 0\n", &[retry(0)]); // At once, not at the blank line.
        check("retry: 007\n", &[retry(7)]);
        check(
            "retry:+5\nretry:-5\nretry:5 \nretry:  5\nretry:5.0\nretry:0x5\nretry:1e3\nretry:٥\n",
            &[],
        );
        check("retry:\nretry: \nretry\n", &[]); // Empty.
        check("retry: 18446744073709551615\n", &[retry(u64::MAX)]);
        check("retry: 18446744073709551616\n", &[retry(u64::MAX)]); // Too large counts as the largest.
        check("retry: 99999999999999999999999999\n", &[retry(u64::MAX)]);
    }

    #[test]
    fn an_id_counts_from_its_blank_line_on() {
        check_id("id: 1", "");
        check_id("id: 1\n", ""); // A partial event must not move the position.
        check_id("id: 1\n\n", "1"); // An event of id alone moves it.
        check_id("id: 1\n\nid: 2\ndata: a\n", "1");
        check_id("id: 1\nid: 2\n\n", "2");
        check_id("id: 1\n\nid\n\n", ""); // Reset.
        check_id("id: 1\n\nid: 2\0\n\n", "1"); // NUL: the field is ignored.
        check_id("id:  1 \n\n", " 1 ");
        check_id("ID: 1\n\n", "");
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        check(b"data:\xFF\n\n", &[message("\u{FFFD}")]);
        check(b"data:\xE2\x82\n\n", &[message("\u{FFFD}")]); // A partial character does not swallow the line break.
        check(b"data:\xE2\x82\r\r", &[message("\u{FFFD}")]);
        check(
            b"data:\xF0\x9F\x98\x80\xF0\x9F\xE9\n\n",
            &[message("😀\u{FFFD}\u{FFFD}")],
        );
        // Overlong; a surrogate.
        check(
            b"data:\xC0\xAE\xED\xA0\x80\n\n",
            &[message(&"\u{FFFD}".repeat(5))],
        );
        check(
            b"event:\xFFa\nid:\xFF\ndata\n\n",
            &[named("\u{FFFD}a", "", "\u{FFFD}")],
        );
        check(b": \xFF\nd\xFFata: a\n\n", &[comment("\u{FFFD}")]);
        check(b"\xEF\xBBdata:a\n\n", &[]); // Part of a byte order mark belongs to the line.
        check(b"\xEF\xBB\xBF\n\xEF\xBB\xBFdata:a\n\n", &[]); // Only the first bytes of the stream are a byte order mark.
    }

    #[track_caller]
    fn check_limit(stream: &str, longest: usize, expected: &[Decoded]) {
        let error = Some(EventTooLong { limit: longest - 1 });
        assert_eq!(decode_every_way(longest - 1, stream.as_bytes()).2, error);
        for limit in [longest, longest + 1] {
            let (items, _, failed) = decode_every_way(limit, stream.as_bytes());
            assert_eq!((&items[..], failed), (expected, None));
        }
    }

    #[test]
    fn an_event_is_limited_to_the_byte() {
        check_limit("data: a\n\n", 9, &[message("a")]); // The length of the encoded event.
        check_limit("data: a\r\n\r\n", 9, &[message("a")]); // The same, whatever the line ends are.
        check_limit("data: ab", 8, &[]); // A line without end.
        check_limit("data:a\ndata:b\n\n", 15, &[message("a\nb")]);
        check_limit("data:a\n\ndata:b\n\n", 8, &[message("a"), message("b")]); // Each event by itself.
        check_limit("what: 1\nwhat: 2\n\n", 17, &[]); // Unknown fields.
        check_limit("id: 1\nretry\n\n", 13, &[]);
        // Each by itself.
        check_limit(
            ":1234567\n:1\n:2\n:3\n",
            9,
            &["1234567", "1", "2", "3"].map(comment),
        );
        check_limit(
            "data:a\n:1\n:2\n\n",
            10,
            &[comment("1"), comment("2"), message("a")],
        );
        check_limit("\n\n\n", 1, &[]);
    }

    #[test]
    fn one_mebibyte_is_the_limit_unless_another_is_set() {
        let text = "a".repeat(MAX_EVENT_BYTES - "data: \n\n".len());
        let longest = Event::data(&text).to_string();
        let found = Decoder::new().decode(&mut longest.as_bytes());
        assert_eq!(found, Ok(Some(message(&text))));
        let longer = Event::data(text + "a").to_string();
        let error = Decoder::new().decode(&mut longer.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "event is longer than 1048576 bytes");
    }

    #[test]
    fn too_long_is_final() {
        let mut decoder = Decoder::new().max_event_bytes(8);
        let error = Err(EventTooLong { limit: 8 });
        assert_eq!(decoder.decode(&mut &b"data: 123\n\n"[..]), error);
        for bytes in [&b"\n\n"[..], b"data:a\n\n", b":", b""] {
            assert_eq!(
                decoder.decode(&mut { bytes }),
                error,
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn endless_input_does_not_grow_the_memory() {
        for piece in [
            &b":"[..],
            b"data: a",
            b"data\n",
            b"x\r\n",
            b"id: 1\n",
            b"retry: 1\n",
            b": heartbeat\n",
            b"\r",
        ] {
            let mut decoder = Decoder::new().max_event_bytes(1000);
            for _ in 0..5000 {
                let mut bytes = piece;
                while let Ok(Some(_)) = decoder.decode(&mut bytes) {}
                let held =
                    decoder.line.capacity() + decoder.data.capacity() + decoder.event.capacity();
                assert!(held <= 4000, "{held} bytes for {}", piece.escape_ascii());
            }
        }
    }

    /// `|` marks where an item's bytes must end in the stream.
    #[track_caller]
    fn check_positions(stream: &str) {
        let expected: Vec<&str> = stream.split('|').collect();
        let stream = expected.concat();
        let (mut rest, mut found) = (stream.as_bytes(), Vec::new());
        let mut decoder = Decoder::new();
        loop {
            let before = rest;
            let item = decoder.decode(&mut rest).unwrap();
            found.push(str::from_utf8(&before[..before.len() - rest.len()]).unwrap());
            if item.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn an_item_ends_exactly_behind_its_last_line() {
        check_positions("data: a\n\n|data: b\n\n|");
        check_positions("data: a\r\n\r\n|data: b\r\n\r\n|"); // The LF belongs to the blank line.
        check_positions("data: a\r\r|data: b\r\r|");
        check_positions("data: a\n\n|\n\ndata: b\n\n|\n"); // Blank lines belong to what follows.
        check_positions(": a\r\n|retry: 1\r\n|data: b\n\n|");
        check_positions("id: 1\n\ndata: a\n\n|data: torn");
    }

    #[test]
    fn a_message_does_not_wait_for_the_lf_of_its_blank_line() {
        let mut decoder = Decoder::new();
        assert_eq!(
            decoder.decode(&mut &b"data: a\r\n\r"[..]),
            Ok(Some(message("a")))
        );
        let mut rest = &b"\ndata: b\n\n"[..];
        assert_eq!(decoder.decode(&mut rest), Ok(Some(message("b"))));
    }

    /// A small generator (xorshift64), so that a failure can be repeated from its seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as usize % end
        }

        fn concat<T: Copy>(&mut self, parts: &[&[T]], count: usize) -> Vec<T> {
            let picked: Vec<_> = (0..self.below(count))
                .map(|_| parts[self.below(parts.len())])
                .collect();
            picked.concat()
        }

        fn text(&mut self) -> String {
            let hostile = [
                '\r', '\n', ':', ' ', '\0', '\u{FEFF}', 'é', '😀', 'd', 'a', 't', 'a',
            ];
            self.concat(&hostile.each_ref().map(std::slice::from_ref), 16)
                .into_iter()
                .collect()
        }

        fn pieces<'a>(&mut self, mut rest: &'a [u8]) -> Vec<&'a [u8]> {
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(self.below(rest.len() + 1));
                pieces.push(piece);
                rest = behind;
            }
            pieces
        }
    }

    /// Returns the text that reaches the client: line breaks arrive as LF.
    fn normalized(text: &str) -> String {
        text.replace("\r\n", "\n").replace('\r', "\n")
    }

    #[test]
    fn decoding_the_encoding_gives_the_event_back() {
        for seed in 1..=5000_u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let (data, name, id, note) =
                (random.text(), random.text(), random.text(), random.text());
            let mut event = Event::data(&data);
            let mut expected_name = "message";
            let mut expected_id = "";
            match event.clone().event(&name) {
                Ok(_) if name.contains(['\r', '\n']) => {
                    panic!("seed {seed}: {name:?} was taken as a name")
                }
                Ok(changed) if name.is_empty() => event = changed,
                Ok(changed) => (event, expected_name) = (changed, &name),
                Err(_) => assert!(name.contains(['\r', '\n']), "seed {seed}: {name:?}"),
            }
            event = event.comment(&note);
            match event.clone().id(&id) {
                Ok(_) if id.contains(['\r', '\n', '\0']) => {
                    panic!("seed {seed}: {id:?} was taken as an id")
                }
                Ok(changed) => (event, expected_id) = (changed, &id),
                Err(_) => assert!(id.contains(['\r', '\n', '\0']), "seed {seed}: {id:?}"),
            }
            let mut expected: Vec<_> = normalized(&note).split('\n').map(comment).collect();
            expected.push(named(expected_name, &normalized(&data), expected_id));

            // After another event, so that a partial or forged one shows.
            let stream = format!("data: first\n\n{event}data: last\n\n");
            expected.insert(0, message("first"));
            expected.push(with_id("last", expected_id));
            let pieces = random.pieces(stream.as_bytes());
            let (items, ..) = decode(UNLIMITED, pieces);
            assert_eq!(items, expected, "seed {seed}: {stream:?}");
        }
    }

    #[test]
    fn random_streams_are_read_as_the_plain_reading_does() {
        let parts: [&[u8]; 20] = [
            b"data",
            b"event",
            b"id",
            b"retry",
            b"dat",
            b":",
            b": ",
            b" ",
            b"\n",
            b"\n\n",
            b"\r",
            b"\r\n",
            b"\r\n\r\n",
            b"\0",
            b"7",
            b"x",
            b"\xEF\xBB\xBF",
            b"\xC3\xA9",
            b"\xF0\x9F",
            b"\xFF",
        ];
        for seed in 1..=20_000_u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let stream = random.concat(&parts, 40);
            let expected = read_plainly(&stream);
            let shown = stream.escape_ascii();
            assert_eq!(
                decode(UNLIMITED, [&stream[..]]),
                expected,
                "seed {seed}: {shown}"
            );
            let pieces = random.pieces(&stream);
            assert_eq!(
                decode(UNLIMITED, pieces),
                expected,
                "seed {seed}, in pieces: {shown}"
            );
            let limit = random.below(20);
            let pieces = random.pieces(&stream);
            assert_eq!(
                decode(limit, pieces),
                decode(limit, [&stream[..]]),
                "seed {seed}, limit {limit}: {shown}"
            );
        }
    }

    /// Each text tries to become a field or an event of its own, in each place that takes a text.
    #[test]
    fn no_field_can_be_forged() -> Result<(), InvalidField> {
        let attacks = [
            "\ndata: evil",
            "\rdata: evil",
            "\r\ndata: evil",
            "a\n\ndata: evil\n\n",
            "a\r\rdata: evil\r\r",
            "a\r\n\r\ndata: evil\r\n\r\n",
            "\n\rid: evil",
            "\nevent: evil",
            "\nretry: 0",
            "\n: evil",
            "\n\u{FEFF}data: evil",
        ];
        for attack in attacks {
            let bytes = Event::data(attack).to_string();
            check(bytes, &[message(&normalized(attack))]);

            let bytes = Event::data("a").comment(attack).to_string();
            let lines = normalized(attack);
            let mut expected: Vec<_> = lines.split('\n').map(comment).collect();
            expected.push(message("a"));
            check(bytes, &expected);

            assert!(Event::data("a").event(attack).is_err(), "{attack:?}");
            assert!(Event::data("a").id(attack).is_err(), "{attack:?}");
        }
        // Without a line break the text of a field is only text.
        let event = Event::data("data: x").event("data: x")?.id("data: x")?;
        check(event.to_string(), &[named("data: x", "data: x", "data: x")]);
        Ok(())
    }

    #[test]
    fn an_event_tells_what_a_client_would_dispatch() -> Result<(), InvalidField> {
        let dispatched = |event: Event| event.message().map(Decoded::Message);
        let second = Duration::from_secs(1);
        assert_eq!(dispatched(Event::data("a\r\nb")), Some(message("a\nb")));
        assert_eq!(dispatched(Event::data("")), Some(message("")));
        let event = Event::data("a").event("b")?.id("c")?;
        assert_eq!(
            dispatched(event.comment("d").retry(second)),
            Some(named("b", "a", "c"))
        );
        assert_eq!(dispatched(Event::new()), None);
        assert_eq!(
            dispatched(Event::new().id("1")?.event("a")?.comment("b").retry(second)),
            None
        );
        let long = "a".repeat(2 * MAX_EVENT_BYTES);
        assert_eq!(dispatched(Event::data(&long)), Some(message(&long))); // The limit is for streams.
        Ok(())
    }
}
