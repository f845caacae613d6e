//! HTTP/1.1 (RFC 9110, RFC 9112): requests are read from any `BufRead`, responses are bytes in a vector. `head` and `body` read
//! a [`Request`]; a [`Response`] has a whole body, or a stream that writes itself.
//!
//! ```text
//!  bytes ──▶ head ──▶ body ──▶ Request ──▶ handler ──▶ Response ──▶ whole body ───▶ bytes
//!             └ target           └ forwarded             └ cookie └ chunked, lines ──▶ bytes, while they come
//! ```
//!
//! Nothing here knows of routes or of events. A parser takes bytes and limits, so its test needs no socket. The rules of the
//! grammar stand beside the code that implements them.

mod body;
mod chunked;
mod cookie;
mod forwarded;
mod head;
mod lines;
mod request;
mod response;
mod target;
#[cfg(test)]
#[rustfmt::skip] // A row is a line.
mod vectors;

pub(crate) use body::{chunk_size, read_body};
pub(crate) use chunked::Coding;
pub use cookie::{Cookie, SameSite};
pub(crate) use forwarded::client_ip;
pub(crate) use head::{Framing, RequestError, UNEXPECTED_END, Version, is_token, malformed};
pub use request::{Method, Request};
pub use response::{IntoResponse, Response};
pub(crate) use response::{Stream, StreamHead, method_list};
pub(crate) use target::{is_authority, percent_decode, split_port};
