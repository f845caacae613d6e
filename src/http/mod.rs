//! HTTP/1.1 over any `Read` and `Write` (RFC 9110, RFC 9112), in the order of a request's way: its head, its body, the
//! answer, and the chunks of a stream.

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

pub(crate) use body::read_body;
pub(crate) use chunked::Coding;
pub use cookie::{Cookie, SameSite};
pub(crate) use forwarded::client_ip;
pub(crate) use head::{Framing, RequestError, Version, is_token};
pub use request::{Method, Request};
pub(crate) use response::{Body, Stream, StreamHead, method_list};
pub use response::{IntoResponse, Response};
pub(crate) use target::{is_authority, percent_decode};
