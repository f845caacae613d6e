//! Why an event was not published, and the response that the client of a publishing handler gets.
//!
//! | error | at fault | status (RFC 9110 section 15) |
//! | --- | --- | --- |
//! | [`PublishError::Name`] | the caller | 400 Bad Request |
//! | [`PublishError::TooLarge`] | the caller | 413 Content Too Large |
//! | [`PublishError::Full`] | nobody: come back later | 503 Service Unavailable, `Retry-After: 1` |
//! | [`PublishError::Closed`] | the server: the hub has ended, or follows a log | 503 Service Unavailable, `Retry-After: 1` |
//! | [`PublishError::Storage`] | the server's disk | 500 Internal Server Error |
//!
//! One failed write refuses a whole batch, and each caller that waits gets the error. So the error can be cloned. An
//! [`io::Error`] cannot, so its kind and its text are kept.

use std::error::Error;
use std::{fmt, io};

use super::topics::InvalidName;
use crate::http::Response;

/// Why an event was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The topics or the event's own id are not valid.
    Name(InvalidName),
    /// The event is larger than [`HubConfig::max_event_bytes`](crate::HubConfig::max_event_bytes).
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The inbox is full, and [`Hub::try_publish`](crate::Hub::try_publish) does not wait.
    Full,
    /// The hub takes no events: it has ended, or it follows a log ([`Hub::follow`](crate::Hub::follow)), which alone takes
    /// them.
    Closed,
    /// The history's file could not be written. No reader got the event.
    Storage {
        /// The kind of the system's error.
        kind: io::ErrorKind,
        /// The system's error.
        text: String,
    },
}

/// Displays a phrase for a log, without a full stop.
impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Name(error) => error.fmt(f),
            PublishError::TooLarge { bytes, max } => {
                write!(f, "event of {bytes} bytes is larger than {max}")
            }
            PublishError::Full => f.write_str("the hub's inbox is full"),
            PublishError::Closed => f.write_str("the hub has ended, or follows a log"),
            PublishError::Storage { text, .. } => {
                write!(f, "the history cannot be written: {text}")
            }
        }
    }
}

impl Error for PublishError {}

/// The refusal of a topic, for `?` in a handler: 400.
impl From<InvalidName> for Response {
    fn from(error: InvalidName) -> Response {
        Response::malformed(error)
    }
}

/// The refusal of an event, for `?` in a handler: 400 for a topic or an id, 413 for the size, and 503 with `Retry-After` when
/// the inbox is full or the hub has ended. Other errors are a 500, as of [`Response::failed`].
impl From<PublishError> for Response {
    fn from(error: PublishError) -> Response {
        match error {
            PublishError::Name(_) => Response::malformed(error),
            PublishError::TooLarge { .. } => Response::malformed(error).with_status(413),
            PublishError::Full | PublishError::Closed => Response::malformed(error)
                .with_status(503)
                .with_field("Retry-After", "1"),
            PublishError::Storage { .. } => Response::failed(error),
        }
    }
}
