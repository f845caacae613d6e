//! A Server-Sent Events server with nothing but `std`.
#![forbid(unsafe_code)]

mod event;
mod http;

pub use event::{Decoded, Decoder, Event, EventTooLong, InvalidField, Message};
pub use http::{Method, Request};
