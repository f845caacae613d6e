//! A Server-Sent Events server with nothing but `std`: threads, channels, and HTTP/1.1 written by hand.
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::{net::TcpStream, sync::LazyLock, time::Duration};
//! use tiny_sse::{Event, Hub, Request, Server, Subscription};
//!
//! static HUB: LazyLock<Hub> = LazyLock::new(Hub::new);
//!
//! fn news(request: &Request) -> Subscription {
//!     HUB.subscribe(request, "news")
//! }
//!
//! let server = Server::bind("127.0.0.1:0")?.get("/news", news).spawn()?;
//!
//! let mut client = TcpStream::connect(server.addr())?;
//! client.write_all(b"GET /news HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
//! let mut lines = BufReader::new(client).lines().map_while(Result::ok);
//! assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
//!
//! // A client that has read the head misses no later event.
//! HUB.publish("news", Event::data("hello"))?;
//! assert!(lines.any(|line| line == "data: hello"));
//!
//! server.shutdown(Duration::from_secs(5))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | type | what it is |
//! | --- | --- |
//! | [`Server`] | routes requests to handlers, which are functions from a [`Request`] to anything that becomes a [`Response`] |
//! | [`Hub`] | broadcasts events to topics, and keeps a history |
//! | [`Subscription`] | a response of a hub: a stream that resumes from the history |
//! | [`Sse`] | a response that streams the events of a channel to one client |
//! | [`Event`], [`Decoder`] | an event, and a parser for event streams |
//! | [`EventSource`] | a client for programs |
//! | [`Middleware`] | runs around the handlers; ready ones are [`allow_hosts`], [`allow_origins`], [`allow_same_origin`], [`Cors`] and [`access_log`] |
//!
//! Handlers share state in a `static`, as above, or each closure owns a clone of the [`Hub`]. [`Server::answer`] tests handlers
//! without a client.
//!
//! The [`guide`] has a page for each task, from [choosing](guide::choosing) between a hub and a stream to running a server
//! [behind a proxy](guide::proxies).
//!
//! # What it does not do
//!
//! TLS, HTTP/2 and compression are a proxy's work. There are no wildcard topics and no filters for each reader: name topics
//! for what readers ask for. There are no signal handlers, since `std` has none, and nothing is async.
//!
//! # Threads and limits
//!
//! Each connection starts on its own thread, which reads the requests, runs the handlers and writes the responses. An [`Sse`]
//! keeps this thread while its stream is open, and [`Sse::spawn`] adds one for the producer. A hub's stream keeps the thread
//! only until the reader has caught up with the history. From then on, a few writer threads write to all readers. So ten
//! thousand readers of a hub need a handful of threads. Ten thousand streams of an [`Sse`] would need ten thousand, which is
//! more than [`Config::max_threads`] allows by default.
//!
//! Every limit and duration is a field of [`Config`] or [`HubConfig`], whose documentation gives the default and its reason. A
//! peer costs bounded memory and bounded time, whatever it sends and however slowly it reads.
//!
//! A program without a hub sets `default-features = false`, and builds in little more than half the time.
//!
//! # Shutdown
//!
//! [`ServerHandle::shutdown`] stops accepting, lets running handlers finish, and ends each stream after a whole event. The
//! handle comes from [`Server::handle`] or [`Server::spawn`]. Each stream gets a different `retry`, so that the clients do not
//! all come back at once. Connections that are still open at the deadline are cut off.
//!
//! A hub ends when its last handle is dropped. A server that has ended has dropped its handlers, and the handles in them.
//!
//! # Architecture
//!
//! This section is for readers of the source. It describes the boundaries; the first lines of each file say the rest.
//!
//! ## Two halves
//!
//! A hub's **plain half** is a log and cursors. A reader is a cursor: a set of topics and a position. Streams, long-polls and
//! code in this process all get their events by `Cursor::next`, whether the reader is new, comes back or has fallen behind. A
//! hub with `writer_threads: 0` is the plain half alone, with a thread for each reader, and keeps every promise.
//!
//! The **fast half** makes delivery cheaper, and does nothing else. A reader that has everything needs no thread of its own: it
//! goes to a writer thread, which puts each batch straight into thousands of sockets. Where a write would block, the reader
//! goes back to its cursor, on a thread of the catch-up pool.
//!
//! ```text
//!  publishers ──inbox──▶ hub thread ──append──▶ log
//!                            │                   ▲ cursor
//!                            │     connection and catch-up threads: readers behind
//!                            │                   │ ▲
//!                            │ batch        join │ │ would block
//!                            ▼                   ▼ │
//!                         writer threads: the readers that have everything
//! ```
//!
//! A stream is a **value that one thread owns at a time and that moves over channels**.
//!
//! ## The path of one event
//!
//! 1. [`Hub::publish`] checks topics, id and size, and puts the event into the inbox: a bounded `mpsc` channel, which makes
//!    publishers wait when it is full.
//! 2. Once each writer has taken the last batch, the hub thread takes what is in the inbox as the next one, up to 64 KiB of
//!    events. It numbers each event and encodes it once, as a chunk that all readers share. With a history file it appends the
//!    batch to the file.
//! 3. Under the log's lock it appends the batch to the log and sends it to the writers.
//! 4. A writer writes the batch to each socket of a group of readers. Where a socket takes only a part of the batch, or
//!    nothing, the reader goes to the catch-up pool, with its exact position inside the event.
//! 5. A thread of the pool sends the rest of that event and goes on from the cursor. At the newest event it hands the reader
//!    to a writer, under the lock of step 3: the reader arrives between the last batch that it has and the next one.
//!
//! An event of an [`Sse`] has a shorter path: the stream takes it out of its channel, and writes it together with the events
//! that wait after it.
//!
//! ## The files
//!
//! | file | its one responsibility |
//! | --- | --- |
//! | `config` | every limit and duration of a server |
//! | `event/encode`, `event/decode`, `event/line` | an event's bytes, and the way back |
//! | `event/json` | a text as a JSON string |
//! | `client` | the blocking client of an event stream |
//! | `http/target`, `http/head`, `http/body` | one request, read within limits |
//! | `http/request` | that request as a handler sees it |
//! | `http/forwarded` | the client's address, where proxies stand between |
//! | `http/response`, `http/cookie` | one response, and a cookie that it sets |
//! | `http/chunked`, `http/lines` | a body in chunks, and one that is written line by line |
//! | `router` | paths, methods, middleware |
//! | `guard/*` | ready middleware: allow-lists of hosts and origins, CORS, an access log |
//! | `threads` | pools of threads, each within a limit |
//! | `connections` | who is connected, how many may be, and how to reach them all at shutdown |
//! | `socket` | one connection's socket and permit: writing by pace, reading by deadline, liveness check |
//! | `connection` | read a request, answer it, keep alive or become a stream |
//! | `listener` | a TCP address, a Unix socket, or a socket that another process hands over |
//! | `server` | listen, accept, hand over, shut down |
//! | `stream` | the loop of events, heartbeats and the end of a stream |
//! | `sse` | an `mpsc` receiver as a response |
//! | `testing` | the events of a response, without a server |
//! | `user_code` | calls of user code, where a panic ends the call and nothing else |
//! | `random`, `lock` | numbers that need to differ, not to be secret; locks whose poison is ignored |
//! | `hub/id`, `hub/topics`, `hub/config`, `hub/error` | what may be an id or a topic; limits and errors |
//! | `hub/frame` | an encoded event, and a write that may be partial |
//! | `hub/log` | what is kept; positions, gaps, and what a reader gets next |
//! | `hub/archive` | a log outside memory, and a reader's way through it |
//! | `hub/record` | the format of the log's file, an event stream |
//! | `hub/file` | that file: append, recover, segments, read |
//! | `hub/registry`, `hub/shared` | the open event streams; what a hub's threads share |
//! | `hub/cursor` | how events leave the log, for every kind of reader |
//! | `hub/receiver`, `hub/subscriber`, `hub/poll` | the three that have a cursor: code in this process, a stream, a long-poll |
//! | `hub/fast` | the fast half: writer threads and the catch-up pool |
//! | `hub/subscription` | from a request to a cursor and a response |
//! | `hub/hub_thread`, `hub/follow` | who appends: the thread that numbers what is in the inbox, or a log that others number |
//! | `guide/*` | pages of this documentation |
//! | `client.js` | for pages: an `EventSource` that all tabs share and that does not give up |
//!
//! ## What is absent
//!
//! - `event` knows nothing of HTTP, and `http` nothing of events: a stream is a closure in a [`Response`] that is given the
//!   socket. `connection` knows nothing of hubs. `tests/layers.rs` has the table of which file may import which. In `hub`, no
//!   two files import each other.
//! - The server's sockets appear in `listener`, `connections` and `socket` alone, those of clients in `client` and `testing`.
//!   Requests are read from anything that implements `BufRead`.
//! - A request that could not be read leaves nothing behind: every error in its head or body ends the connection.
//! - No memory is allocated because a peer announces a length. No thread waits for a peer without a deadline.
//! - There is no timer thread, and no event is delayed on purpose: each thread computes its next deadline before it waits.
//! - There is no `unsafe`, no 64-bit atomic, and no dependency, not even for tests.
//!
//! ## Threads and locks
//!
//! A publisher waits for the hub thread, the hub thread for a writer, and a writer for nothing. Threads are named for what
//! they do: `sse-accept`, `sse-connection`, `sse-refusal`, `sse-producer`, `sse-hub`, `sse-writer`, `sse-catch-up`, and
//! `sse-callbacks`, which calls what [`Subscription::on_end`] and a hub's `on_error` were given. Between threads, connections and events travel over
//! channels and queues. Each lock (of the log, of a hub's figures, of the registry of readers, of the connections, of a pool's
//! queue) is held for one step, and never while the thread waits for a peer, the disk or user code. Only the lock of a
//! history's list of files is held while a file is opened, renamed or removed.
#![forbid(unsafe_code)]
// Without the hub, a few functions of the other modules have no caller.
#![cfg_attr(not(feature = "hub"), allow(dead_code))]

mod client;
mod config;
mod connection;
mod connections;
mod event;
mod guard;
pub mod guide;
mod http;
#[cfg(feature = "hub")]
mod hub;
mod listener;
mod lock;
mod random;
mod router;
mod server;

mod socket;
mod sse;
mod stream;
mod testing;
mod threads;
mod user_code;

pub use client::EventSource;
pub use config::Config;
pub use connections::ServerStats;
pub use event::{Decoded, Decoder, Event, EventTooLong, InvalidField, Message, json_string};
pub use guard::{
    Cors, access_log, allow_hosts, allow_origins, allow_same_origin, constant_time_eq,
};
pub use http::{Cookie, IntoResponse, Method, Request, Response, SameSite};
#[cfg(feature = "hub")]
pub use hub::{
    Durability, EndReason, Entries, Entry, EventId, EventLog, Feed, Hub, HubConfig, HubReceiver,
    InvalidName, Lag, OpeningId, PublishError, Reader, Replay, Stats, StreamEnd, Subscription,
    Topics,
};
pub use router::{Middleware, Next};
pub use server::{Server, ServerHandle, StillOpen};
pub use sse::Sse;
pub use testing::Events;

/// The README's programs are compiled, and run where they end.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct ReadmeExamples;
