//! Why an event was not published.

use std::error::Error;
use std::{fmt, io};

use super::id::InvalidId;
use super::topics::InvalidTopic;
use crate::http::Response;

/// Why an event was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The topics are not valid.
    Topic(InvalidTopic),
    /// The event's own id could not come back from a client.
    Id(InvalidId),
    /// The event is larger than [`HubConfig::max_event_bytes`](crate::HubConfig::max_event_bytes).
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The inbox is full.
    Full,
    /// The hub has ended.
    Closed,
    /// The hub follows a log that others number: publish to that.
    Follows,
    /// The history could not be written, and the event was not delivered.
    Storage {
        /// Of what kind the error is, such as `StorageFull`.
        kind: io::ErrorKind,
        /// What happened, and to which file.
        text: String,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Topic(error) => error.fmt(f),
            PublishError::Id(error) => error.fmt(f),
            PublishError::TooLarge { bytes, max } => {
                write!(f, "event of {bytes} bytes is larger than {max}")
            }
            PublishError::Full => f.write_str("the hub's inbox is full"),
            PublishError::Closed => f.write_str("the hub has ended"),
            PublishError::Follows => f.write_str("the hub follows a log, which alone takes events"),
            PublishError::Storage { text, .. } => {
                write!(f, "the history cannot be written: {text}")
            }
        }
    }
}

impl Error for PublishError {}

/// What a client is told that asks for what cannot be a topic, by `?` in a handler: 400.
impl From<InvalidTopic> for Response {
    fn from(error: InvalidTopic) -> Response {
        Response::malformed(error)
    }
}

/// What a client is told whose event was not published, by `?` in a handler: 400 for topics and an id, 413 for the size, 503
/// with `Retry-After` where the hub is full or has ended. For the history it is a 500, as in [`Response::failed`].
impl From<PublishError> for Response {
    fn from(error: PublishError) -> Response {
        let status = match error {
            PublishError::Topic(_) | PublishError::Id(_) => 400,
            PublishError::TooLarge { .. } => 413,
            PublishError::Full | PublishError::Closed => 503,
            PublishError::Follows | PublishError::Storage { .. } => return Response::failed(error),
        };
        let response = Response::text(format!("{error}\n")).with_status(status);
        match status {
            503 => response.with_field("Retry-After", "1"),
            _ => response,
        }
    }
}
