//! How to use this crate, one page for each topic.
//!
//! Server-Sent Events in one paragraph: a browser asks for a URL, and the server answers with a response that does not end. Each
//! *event* is a few lines of text in it: `data:`, perhaps a name (`event:`) and an `id:`. When the connection drops, the browser
//! asks again by itself and sends the last id that it has seen, in the field `Last-Event-ID`. A server that keeps the newest
//! events can then send what the browser has missed. In a page, `new EventSource("/events")` does all of the client's part.
//!
//! The pages in reading order:
//!
//! 1. To begin: [choosing] between stream and hub, memory and file; [embedding] in an existing program; [testing] your handlers.
//! 2. What to expect: [delivery] in detail, [clients] of all kinds, [limits] and defaults, [security].
//! 3. In production: [proxies], `systemd`, `unix` sockets, [containers], [small_devices], [platforms].
//! 4. From elsewhere: [migrating] from WebSocket or polling; a server [from_scratch]; reading the [source].
//!
//! The programs on these pages are compiled as tests, and those that end are run.

#[doc = include_str!("choosing.md")]
pub mod choosing {}

#[doc = include_str!("embedding.md")]
pub mod embedding {}

#[doc = include_str!("delivery.md")]
pub mod delivery {}

#[doc = include_str!("clients.md")]
pub mod clients {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[cfg(unix)]
#[doc = include_str!("systemd.md")]
pub mod systemd {}

#[cfg(unix)]
#[doc = include_str!("unix.md")]
pub mod unix {}

#[doc = include_str!("containers.md")]
pub mod containers {}

#[doc = include_str!("small_devices.md")]
pub mod small_devices {}

#[doc = include_str!("platforms.md")]
pub mod platforms {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[doc = include_str!("from_scratch.md")]
pub mod from_scratch {}

#[doc = include_str!("source.md")]
pub mod source {}
