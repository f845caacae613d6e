//! A Server-Sent Events server with nothing but `std`.
#![forbid(unsafe_code)]

mod config;
mod connection;
mod event;
mod guard;
mod http;
mod hub;
mod random;
mod router;
mod server;
mod slots;
mod socket;
mod sse;
mod threads;

pub use config::Config;
pub use event::{Decoded, Decoder, Event, EventTooLong, InvalidField, Message};
pub use guard::{
    Access, Cors, InvalidEntry, access_log, allow_hosts, allow_origins, constant_time_eq,
};
pub use http::{InvalidHeader, Method, Request, Response};
pub use hub::{
    EventId, History, Hub, HubConfig, InvalidId, InvalidTopic, Lag, PublishError, Reader, Start,
    Stats, Subscription, Topics,
};
pub use router::Next;
pub use server::{Server, ServerHandle, ShutdownHandle, StillOpen};
pub use sse::{KeepAlive, Sse};
