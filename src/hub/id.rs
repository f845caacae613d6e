//! Event ids: those of the hub, which are an epoch and a sequence number, and those of its callers.
//!
//! An id is what a client brings back in `Last-Event-ID`
//! ([WHATWG HTML](https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header)). The hub's ids look
//! like `5c0f9a3be1d27764-4711`, and the last id of a stream that is finished like `5c0f9a3be1d27764-4712-end`.
//!
//! ```abnf
//! hubs-id  = epoch "-" sequence [ "-end" ]
//! epoch    = 16( DIGIT / %x61-66 )     ; a u64 in hexadecimal digits, lower case
//! sequence = "0" / ( %x31-39 *DIGIT )  ; a u64; 0 is the position before the first event
//! own-id   = 1*256OCTET                ; UTF-8 text; not a hubs-id, "earliest" or "latest"; see `check_callers`
//! ```
//!
//! The epoch makes ids unique over restarts: a hub without a file begins with number 1 again, under another epoch.

use std::fmt;

use super::topics::{InvalidName, check_text};

/// The mark on the id of an event that finishes its topics. A client that brings such an id gets a 204 in place of a stream. For a
/// client of a single topic the mark is enough: the hub need not remember that the topic was finished.
const END_MARK: &str = "-end";

/// The hub's own id of an event: on the wire `epoch-sequence`, 16 hexadecimal digits and a decimal number.
///
/// Every start of a hub takes a new epoch, so that no id is ever given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The random name of the epoch that gave the number out. Names say nothing about the order of epochs.
    pub(crate) epoch: u64,
    /// The event's number. The numbers go on from epoch to epoch, where a file or another log keeps them.
    pub(crate) sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.sequence)
    }
}

impl EventId {
    /// Reads exactly what [`Display`](fmt::Display) writes; anything else is not an id of a hub.
    pub(crate) fn parse(text: &str) -> Option<EventId> {
        let (epoch, sequence) = text.split_once('-')?;
        let id = EventId {
            epoch: u64::from_str_radix(epoch, 16).ok()?,
            sequence: sequence.parse().ok()?,
        };
        (id.to_string() == text).then_some(id)
    }
}

/// Returns an id of the hub's, marked as the last that its reader ever gets.
pub(crate) fn ending(id: impl fmt::Display) -> String {
    format!("{id}{END_MARK}")
}

/// Returns the id in front of the mark of an end; `None` where the text has another form.
pub(crate) fn ended(text: &str) -> Option<EventId> {
    EventId::parse(text.strip_suffix(END_MARK)?)
}

/// Returns whether an id has the mark of a last event.
pub(crate) fn is_ending(text: &str) -> bool {
    ended(text).is_some()
}

/// Checks the id that a caller gives to an event: it must come back from the client as it is, and mean this event.
pub(crate) fn check_callers(id: &str) -> Result<(), InvalidName> {
    // An empty id would make the client forget its position.
    check_text("event id", id)?;
    let problem = if id.starts_with(' ') || id.ends_with(' ') {
        // A request field loses the blanks at its ends (RFC 9110 section 5.5).
        "cannot begin or end with a blank"
    } else if EventId::parse(id).is_some() || is_ending(id) || matches!(id, "earliest" | "latest") {
        "is reserved for the hub"
    } else {
        return Ok(());
    };
    Err(InvalidName(format!("event id {id:?} {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_an_id_of_the_hub() {
        #[track_caller]
        fn check(text: &str, expected: Option<(u64, u64)>) {
            let found = EventId::parse(text).map(|id| (id.epoch, id.sequence));
            assert_eq!(found, expected, "{text}");
            if let Some(id) = EventId::parse(text) {
                assert_eq!(id.to_string(), text);
            }
        }
        check("00000000000000ff-12", Some((255, 12))); // As written.
        check("00000000000000ff-0", Some((255, 0))); // Before the first event.
        check("00000000000000FF-12", None); // Lower case only: one id has one form.
        check("ff-12", None); // All 16 digits.
        check("00000000000000ff-012", None); // No leading zero.
        check("00000000000000ff-+1", None); // `parse` takes a sign, the form does not.
        check("00000000000000ff-", None); // No number.
        check("00000000000000ff-18446744073709551616", None); // More than a u64.
        check("00000000000000ff-1-end", None); // An end is no place to resume from.
        check("", None); // Nothing.
    }

    #[test]
    fn an_end_is_marked() {
        let id = ending(EventId {
            epoch: 255,
            sequence: 3,
        });
        assert_eq!(id, "00000000000000ff-3-end");
        assert!(is_ending(&id));
        assert!(!is_ending("week-end")); // A caller's id may end so.
    }

    #[test]
    fn ids_that_cannot_come_back_are_refused() {
        #[track_caller]
        fn check(id: &str, expected: Result<(), &str>) {
            let found = check_callers(id).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_string));
        }
        let long = "x".repeat(257);
        check("row 7/é", Ok(())); // UTF-8 text comes back.
        check(&long[..256], Ok(())); // The maximum length.
        check(&long, Err("event id of 257 bytes is longer than 256")); // And one more.
        check("", Err("event id cannot be empty")); // It means "start again".
        check("a\tb", Err(r#"event id "a\tb" cannot contain '\t'"#)); // Some clients fold it.
        check(
            " a",
            Err("event id \" a\" cannot begin or end with a blank"),
        ); // Trimmed on the way.
        check("latest", Err("event id \"latest\" is reserved for the hub")); // A reserved word.
        check(
            "00000000000000ff-3",
            Err("event id \"00000000000000ff-3\" is reserved for the hub"),
        ); // Could be ours.
    }
}
