//! One event and its bytes in the
//! [event stream format](https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::line::line_break;

/// The longest reconnection time that is written, in milliseconds.
///
/// Clients put it into a JavaScript timer, and `setTimeout` fires at once when its delay does not fit into an `i32`.
const MAX_RETRY: Duration = Duration::from_millis(i32::MAX as u64);

/// One event of an event stream: data, and perhaps a name, an id, a reconnection time or a comment.
///
/// ```
/// use tiny_sse::Event;
///
/// # fn main() -> Result<(), tiny_sse::InvalidField> {
/// let event = Event::data("Disk 3\n91 % full").event("alarm")?.id("17")?;
/// assert_eq!(
///     event.to_string(),
///     "id: 17\ndata: Disk 3\ndata: 91 % full\nevent: alarm\n\n"
/// );
/// # Ok(())
/// # }
/// ```
///
/// [`Display`](fmt::Display) shows exactly the bytes that go on the wire: the `id` first, then the other fields in the order in
/// which they were set, then a blank line. If a field is set twice, both are written, and the client takes the later one. Only
/// the last `id` is written.
///
/// A client dispatches an event only if it has data
/// ([interpreting an event stream](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)).
/// The `id` and `retry` of an event without data take effect too.
#[derive(Clone)]
#[must_use = "an event does nothing until it is sent or published"]
pub struct Event(Lines);

/// The field lines without the blank line that closes the event, the `id` line in front of the others.
#[derive(Clone)]
enum Lines {
    Own(Vec<u8>),
    /// A part of a frame that others hold too.
    Shared(Arc<[u8]>, Range<usize>),
}

impl Event {
    /// Makes an event without any field, and so without data: a client dispatches nothing for it. For an event that only sets
    /// the last event ID or the reconnection time, or only has a comment.
    ///
    /// Writes the blank line alone: `\n`.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), tiny_sse::InvalidField> {
    /// // A client that loses the connection now comes back with `Last-Event-ID: 41`.
    /// let position = tiny_sse::Event::new().id("41")?;
    /// assert_eq!(position.to_string(), "id: 41\n\n");
    /// assert_eq!(position.message(), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new() -> Event {
        Event(Lines::Own(Vec::new()))
    }

    /// Makes an event with this data. The client gets the same text, in which each line break is an LF.
    ///
    /// Writes one `data: ` line for each line of the text. CRLF, LF and CR each end a line. A line break at the end survives.
    /// Empty data is dispatched too.
    ///
    /// # Examples
    ///
    /// ```
    /// use tiny_sse::Event;
    ///
    /// assert_eq!(Event::data("a\r\nb\n").to_string(), "data: a\ndata: b\ndata: \n\n");
    /// assert_eq!(Event::data("").to_string(), "data: \n\n");
    /// ```
    pub fn data(text: impl AsRef<str>) -> Event {
        Event::new().with_lines("data: ", text.as_ref())
    }

    /// Names the event: a browser hands it to the listeners of that name. Without a name, or with an empty one, it is a
    /// `message`.
    ///
    /// Writes `event: name\n`.
    ///
    /// # Errors
    ///
    /// When the name has a CR or LF, which would begin another field.
    ///
    /// # Examples
    ///
    /// ```
    /// use tiny_sse::Event;
    ///
    /// # fn main() -> Result<(), tiny_sse::InvalidField> {
    /// let event = Event::data("21.5").event("temperature")?;
    /// assert_eq!(event.to_string(), "data: 21.5\nevent: temperature\n\n");
    /// assert!(Event::data("21.5").event("x\ndata: forged").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn event(self, name: impl AsRef<str>) -> Result<Event, InvalidField> {
        let name = name.as_ref();
        refuse("event", name, &['\r', '\n'])?;
        Ok(self.with_lines("event: ", name))
    }

    /// Sets the last event ID, which the client sends as
    /// [`Last-Event-ID`](https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header) when
    /// it reconnects.
    ///
    /// Writes `id: text\n` in front of the other fields. An empty id is written too: it makes the client forget its last event
    /// ID, and come back without the header.
    ///
    /// Choose an id that can stand in a field of a request: short, without control characters, and without blanks at its ends.
    /// A server refuses a request whose field has a control character, and such a client does not come back. Blanks at the ends
    /// are lost. A hub refuses these ids.
    ///
    /// # Errors
    ///
    /// Refuses CR and LF, which would begin another field, and NUL, for which clients ignore the whole field.
    ///
    /// # Examples
    ///
    /// ```
    /// use tiny_sse::Event;
    ///
    /// # fn main() -> Result<(), tiny_sse::InvalidField> {
    /// assert_eq!(Event::data("hello").id("17")?.to_string(), "id: 17\ndata: hello\n\n");
    /// let refused = Event::data("hello").id("17\n\ndata: forged").unwrap_err();
    /// assert_eq!(refused.to_string(), r"id field cannot contain '\n'");
    /// # Ok(())
    /// # }
    /// ```
    pub fn id(self, id: impl AsRef<str>) -> Result<Event, InvalidField> {
        let id = id.as_ref();
        refuse("id", id, &['\r', '\n', '\0'])?;
        let mut lines = Vec::new();
        self.encode(Some(id), &mut lines);
        // The blank line follows the last field.
        lines.pop();
        Ok(Event(Lines::Own(lines)))
    }

    /// Sets the
    /// [reconnection time](https://html.spec.whatwg.org/multipage/server-sent-events.html#concept-event-stream-reconnection-time),
    /// how long the client waits before it reconnects, until another event sets another time.
    ///
    /// Writes `retry: 1500\n`, in whole milliseconds. A fraction of a millisecond is cut off. At most 2147483647 is written,
    /// some 24 days: a browser's timers fire at once beyond that.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tiny_sse::Event;
    ///
    /// let event = Event::new().retry(Duration::from_millis(1500));
    /// assert_eq!(event.to_string(), "retry: 1500\n\n");
    /// ```
    pub fn retry(self, time: Duration) -> Event {
        // The longest time fits into a `u64`. Nothing else needs the code that writes a `u128`.
        let millis = time.min(MAX_RETRY).as_millis() as u64;
        self.with_lines("retry: ", &millis.to_string())
    }

    /// Adds a comment, which an `EventSource` ignores and a person with `curl` can read.
    ///
    /// Writes one `: ` line for each line of the text, split as in [`Event::data`].
    ///
    /// # Examples
    ///
    /// ```
    /// use tiny_sse::Event;
    ///
    /// let event = Event::data("3").comment("retries\nleft");
    /// assert_eq!(event.to_string(), "data: 3\n: retries\n: left\n\n");
    /// ```
    pub fn comment(self, text: impl AsRef<str>) -> Event {
        self.with_lines(": ", text.as_ref())
    }

    /// Makes an event of bytes that [`Event::encode`] has put into `frame` at `text`.
    pub(crate) fn shared(frame: Arc<[u8]>, text: Range<usize>) -> Event {
        debug_assert!(frame[text.clone()].ends_with(b"\n"));
        Event(Lines::Shared(frame, text.start..text.end - 1))
    }

    /// Appends the whole event: its `id` line if it has one, the other fields, the blank line. The event gets the given id, if
    /// any, in place of its own. That id has no CR, LF or NUL.
    pub(crate) fn encode(&self, id: Option<&str>, out: &mut Vec<u8>) {
        debug_assert!(id.is_none_or(|id| !id.contains(['\r', '\n', '\0'])));
        let fields = match id {
            Some(id) => {
                append_line("id: ", id.as_bytes(), out);
                self.split_id().1
            }
            None => self.lines(),
        };
        out.extend_from_slice(fields);
        out.push(b'\n');
    }

    /// Returns the number of bytes that [`Event::encode`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        self.lines().len() + 1
    }

    /// Returns the event's id; `None` if no id was set, which differs from an empty id.
    pub(crate) fn id_text(&self) -> Option<&str> {
        str::from_utf8(self.split_id().0?).ok()
    }

    /// Returns all of the event except the blank line that ends it.
    pub(crate) fn lines(&self) -> &[u8] {
        match &self.0 {
            Lines::Own(lines) => lines,
            Lines::Shared(frame, range) => &frame[range.clone()],
        }
    }

    /// Returns the id, and the lines of the other fields.
    fn split_id(&self) -> (Option<&[u8]>, &[u8]) {
        let lines = self.lines();
        // Only the id's own line can begin like this, and it is always the first.
        let Some(from_id) = lines.strip_prefix(b"id: ") else {
            return (None, lines);
        };
        let end = line_break(from_id).unwrap_or(from_id.len());
        (Some(&from_id[..end]), from_id.get(end + 1..).unwrap_or(&[]))
    }

    /// Adds one line for each line of `text`, with `prefix` in front.
    fn with_lines(self, prefix: &str, text: &str) -> Event {
        let mut lines = match self.0 {
            Lines::Own(lines) => lines,
            Lines::Shared(frame, range) => frame[range].to_vec(),
        };
        lines.reserve(prefix.len() + text.len() + 1);
        let mut rest = text.as_bytes();
        while let Some(end) = line_break(rest) {
            append_line(prefix, &rest[..end], &mut lines);
            let at_break = &rest[end..];
            rest = at_break.strip_prefix(b"\r\n").unwrap_or(&at_break[1..]);
        }
        append_line(prefix, rest, &mut lines);
        Event(Lines::Own(lines))
    }
}

/// Checks that the text of a field has none of the refused characters.
fn refuse(field: &'static str, text: &str, refused: &[char]) -> Result<(), InvalidField> {
    match text.chars().find(|c| refused.contains(c)) {
        Some(character) => Err(InvalidField { field, character }),
        None => Ok(()),
    }
}

/// Appends one line with its LF. The prefix ends in the space that the client drops.
fn append_line(prefix: &str, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// The same as [`Event::new`].
impl Default for Event {
    fn default() -> Event {
        Event::new()
    }
}

/// Events are equal if their bytes on the wire are.
impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.lines() == other.lines()
    }
}

impl Eq for Event {}

/// The event as it goes on the wire, its blank line included.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", String::from_utf8_lossy(self.lines()))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event").field(&self.to_string()).finish()
    }
}

/// A field was given a character that it cannot carry: it would end the field's line, or make clients ignore it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    field: &'static str,
    character: char,
}

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (field, character) = (self.field, self.character);
        write!(f, "{field} field cannot contain {character:?}")
    }
}

impl std::error::Error for InvalidField {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each event must have exactly these bytes in every form in which it can be held and written.
    #[track_caller]
    fn check(event: Event, expected: &str) {
        assert_eq!(event.to_string(), expected);
        assert_eq!(event.encoded_len(), expected.len());
        let mut out = b"before ".to_vec();
        event.encode(None, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), format!("before {expected}"));

        let frame: Arc<[u8]> = format!("1f\r\n{expected}\r\n").into_bytes().into();
        let shared = Event::shared(frame, 4..4 + expected.len());
        assert_eq!(shared, event);
        assert_eq!(shared.to_string(), expected);
        assert_eq!(shared.encoded_len(), expected.len());
        assert_eq!(shared.id_text(), event.id_text());

        let without_id = match event.id_text() {
            Some(id) => &expected[format!("id: {id}\n").len()..],
            None => expected,
        };
        for event in [event, shared] {
            let mut out = Vec::new();
            event.encode(Some("e-9"), &mut out);
            assert_eq!(
                String::from_utf8_lossy(&out),
                format!("id: e-9\n{without_id}")
            );
            let changed = event.comment("more");
            let fields = expected.strip_suffix('\n').unwrap();
            assert_eq!(changed.to_string(), format!("{fields}: more\n\n"));
        }
    }

    #[track_caller]
    fn check_refused(result: Result<Event, InvalidField>, expected: &str) {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }

    #[test]
    fn data_is_one_line_for_each_line_of_text() {
        check(Event::data("a"), "data: a\n\n");
        check(Event::data("a\nb"), "data: a\ndata: b\n\n"); // LF.
        check(Event::data("a\rb"), "data: a\ndata: b\n\n"); // CR alone is a line break too.
        check(Event::data("a\r\nb"), "data: a\ndata: b\n\n"); // CRLF is one line break.
        check(Event::data("a\n\rb"), "data: a\ndata: \ndata: b\n\n"); // LF and then CR are two.
        check(Event::data("a\r\r\nb"), "data: a\ndata: \ndata: b\n\n"); // CR and CRLF are two.
        check(Event::data("a\n"), "data: a\ndata: \n\n"); // A trailing line break survives.
        check(Event::data("a\r\n"), "data: a\ndata: \n\n"); // So does CRLF.
        check(Event::data("\n"), "data: \ndata: \n\n"); // A line break alone is two empty lines.
        check(Event::data(""), "data: \n\n"); // Empty data still dispatches an event.
        check(Event::data(" a"), "data:  a\n\n"); // The client takes one space away, the text keeps its own.
        check(Event::data(":a: b"), "data: :a: b\n\n"); // A colon is nothing special in a value.
        check(Event::data("\0"), "data: \0\n\n"); // NUL is allowed here.
        check(Event::data("\u{FEFF}é😀"), "data: \u{FEFF}é😀\n\n"); // No text is changed.
        // Not line ends here.
        check(
            Event::data("a\u{2028}b\u{B}c\u{85}d"),
            "data: a\u{2028}b\u{B}c\u{85}d\n\n",
        );
    }

    #[test]
    fn fields_come_in_the_order_set_behind_the_id() -> Result<(), InvalidField> {
        let second = Duration::from_secs(1);
        check(Event::new(), "\n");
        check(Event::default(), "\n");
        check(
            Event::data("a").event("b")?.id("c")?,
            "id: c\ndata: a\nevent: b\n\n",
        );
        check(
            Event::new().retry(second).id("c")?,
            "id: c\nretry: 1000\n\n",
        );
        // The client takes c.
        check(
            Event::data("a").event("b")?.event("c")?,
            "data: a\nevent: b\nevent: c\n\n",
        );
        check(Event::data("a").id("b")?.id("c")?, "id: c\ndata: a\n\n"); // Only the last id is kept.
        check(Event::data("a").id("")?, "id: \ndata: a\n\n"); // An empty id resets the client's.
        check(Event::data("a").event("")?, "data: a\nevent: \n\n"); // An empty name is none.
        check(Event::data("a").id(" b ")?, "id:  b \ndata: a\n\n"); // Blanks survive.
        check(Event::data("a").event("b\0")?, "data: a\nevent: b\0\n\n"); // NUL is forbidden in an id only.
        check(Event::data("id: x"), "data: id: x\n\n"); // Not an id.
        Ok(())
    }

    #[test]
    fn a_comment_is_one_line_for_each_line_of_text() {
        check(Event::new().comment("a"), ": a\n\n");
        check(Event::new().comment(""), ": \n\n");
        check(Event::new().comment("a\r\nb\rc\n"), ": a\n: b\n: c\n: \n\n"); // Split as data is.
        // Several.
        check(
            Event::data("a").comment("b").comment("c"),
            "data: a\n: b\n: c\n\n",
        );
        // It stays a comment.
        check(
            Event::new().comment("\ndata: forged\n"),
            ": \n: data: forged\n: \n\n",
        );
    }

    #[test]
    fn retry_is_whole_milliseconds_that_a_timer_can_hold() {
        let check = |time, expected| check(Event::new().retry(time), expected);
        check(Duration::ZERO, "retry: 0\n\n");
        check(Duration::from_micros(999), "retry: 0\n\n"); // A fraction is cut off.
        check(Duration::from_micros(1999), "retry: 1\n\n");
        check(
            Duration::from_millis(2_147_483_646),
            "retry: 2147483646\n\n",
        );
        // The longest delay of setTimeout.
        check(
            Duration::from_millis(2_147_483_647),
            "retry: 2147483647\n\n",
        );
        check(
            Duration::from_millis(2_147_483_648),
            "retry: 2147483647\n\n",
        );
        check(Duration::MAX, "retry: 2147483647\n\n");
    }

    #[test]
    fn a_refused_field_says_which_and_why() {
        check_refused(
            Event::new().id("1\n\ndata: evil"),
            r"id field cannot contain '\n'",
        );
        check_refused(Event::new().id("1\r"), r"id field cannot contain '\r'");
        check_refused(Event::new().id("\0"), r"id field cannot contain '\0'"); // Clients ignore such an id.
        check_refused(Event::new().id("1\r\n"), r"id field cannot contain '\r'"); // The first that is found.
        check_refused(
            Event::new().event("a\nid: 1"),
            r"event field cannot contain '\n'",
        );
        check_refused(
            Event::new().event("\ra"),
            r"event field cannot contain '\r'",
        );
    }

    #[test]
    fn an_empty_id_is_not_no_id() -> Result<(), InvalidField> {
        assert_eq!(Event::data("a").id_text(), None);
        assert_eq!(Event::data("id: 1").id_text(), None);
        assert_eq!(Event::data("a").id("")?.id_text(), Some(""));
        assert_eq!(Event::data("a").id("é")?.id_text(), Some("é"));
        assert_ne!(Event::data("a").id("")?, Event::data("a"));
        Ok(())
    }

    #[test]
    fn debug_shows_the_bytes_on_the_wire() -> Result<(), InvalidField> {
        let event = Event::data("a").id("1")?;
        assert_eq!(format!("{event:?}"), r#"Event("id: 1\ndata: a\n\n")"#);
        Ok(())
    }
}
