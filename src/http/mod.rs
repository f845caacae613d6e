//! HTTP/1.1 over any `Read` and `Write` (RFC 9110, RFC 9112), in the order of a request's way: its head, its body, the
//! answer, and the chunks of a stream.

mod body;
mod request;

pub use request::{Method, Request};
