//! The event stream format, in both directions
//! ([WHATWG HTML, server-sent events](https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream)):
//! [`encode`] makes an event's bytes, [`decode`] reads them back. The two share no code but the search
//! for a line break, so that each can test the other.

mod decode;
mod encode;
mod json;
mod line;

pub use decode::{Decoded, Decoder, EventTooLong, Message};
pub use encode::{Event, InvalidField};
pub use json::json_string;
