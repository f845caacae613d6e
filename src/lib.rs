//! A Server-Sent Events server with nothing but `std`: threads, channels, and HTTP/1.1 written by hand.
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::{net::TcpStream, time::Duration};
//! use tiny_sse::{Event, Hub, Server};
//!
//! let hub = Hub::new();
//! let readers = hub.clone();
//! let server = Server::bind("127.0.0.1:0")?
//!     .get("/news", move |request| readers.subscribe(request, "news"))
//!     .spawn()?;
//!
//! let mut client = TcpStream::connect(server.addr())?;
//! client.write_all(b"GET /news HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
//! let mut lines = BufReader::new(client).lines().map_while(Result::ok);
//! assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
//!
//! // Who has read the head misses no later event.
//! hub.publish("news", Event::data("hello"))?;
//! assert!(lines.any(|line| line == "data: hello"));
//!
//! server.shutdown(Duration::from_secs(5))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Server`] routes requests to handlers: closures from a [`Request`] to anything that becomes a [`Response`]. An
//! [`Sse`] becomes one that streams what comes out of a channel; a [`Hub`] broadcasts to topics, keeps a history, and its
//! [`Subscription`] becomes one that resumes from there. An [`Event`] is what goes over the wire, and a [`Decoder`] reads it
//! back. Around the handlers stands middleware, some of it ready: [`allow_hosts`], [`allow_origins`], [`Cors`],
//! [`access_log`].
//!
//! # What it does not do
//!
//! TLS, HTTP/2 and compression are a proxy's work. There are no wildcard topics and no filters for each subscriber: name
//! topics for what readers ask for. There are no signal handlers, as `std` has none, and nothing is async.
//!
//! # Threads and limits
//!
//! Each connection starts on a thread of its own, which reads its requests, runs the handlers and writes the answers. A
//! stream from an [`Sse`] keeps that thread while it lives, and [`Sse::spawn`] adds one for the producer. A stream from a
//! hub keeps it only until it has caught up with the history; then it is one socket among those of a few writer threads.
//! Ten thousand readers of a hub are ten thousand sockets and a handful of threads; ten thousand streams from channels of
//! their own would be ten thousand threads or more, past what [`Config::max_threads`] allows.
//!
//! A program that needs no hub turns off the feature `hub`, and half of what there is to build: `default-features = false`.
//!
//! Every limit and duration is a field of [`Config`] or [`HubConfig`], whose documentation gives the default and its
//! reason. What a peer sends, or does not take, costs bounded memory and bounded time.
//!
//! # Shutdown
//!
//! [`ServerHandle::shutdown`], with a handle from [`Server::handle`] or [`Server::spawn`], stops accepting, lets
//! requests that are being answered finish, and ends each stream behind a whole event with a `retry` of its own, so that
//! the clients do not all come back at once. What is still open at the deadline is cut off. A hub ends when its last handle
//! is dropped; handlers hold handles too, and give them up with the server.
//!
//! # Architecture
//!
//! For those who read the source. What is said here is about boundaries; the first line of each file says the rest.
//!
//! ```text
//! publishers ──inbox──▶ hub thread ──▶ log ──▶ writer threads ──▶ the sockets that keep up
//!                       numbers,        │         ▲   │
//!                       encodes once,   │    live │   │ would block
//!                       takes rounds    ▼         │   ▼
//!              connection and catch-up threads: the sockets that are behind
//! ```
//!
//! A connection is a **value that one thread owns at a time and that moves over channels**. A subscriber is a socket with a
//! cursor into the log, and that is all there is to replay: a reader that comes back, one that is new and one that has
//! fallen behind all copy from their cursor to the newest event, on a thread that may wait for them. Who stands at the
//! newest event is handed to a writer, which never waits for anybody.
//!
//! ## The way of one event
//!
//! 1. [`Hub::publish`] checks topics, id and size, and puts the event into the inbox: a bounded channel, which makes
//!    publishers wait when it is full.
//! 2. The hub thread takes all that is there as one round, once each writer has taken the round before. It numbers each
//!    event and encodes it once, as a chunk of its own that all readers share.
//! 3. Under the log's lock it appends the round to the log and sends it to the writers.
//! 4. A writer puts the round straight into each socket whose reader asked for it. Where that would block, or takes only a
//!    part, the reader leaves for the catch-up threads, with its exact position in the torn event.
//! 5. A catch-up thread finishes that event and goes on from the cursor. At the newest event it hands the reader back, under
//!    the lock of step 3: so the reader arrives exactly between two rounds, and misses or repeats none.
//!
//! An event of an [`Sse`] has a shorter way: out of its channel, with all that wait behind it, into one write.
//!
//! ## The files
//!
//! | file | its one responsibility |
//! | --- | --- |
//! | `config` | every limit and duration of a server |
//! | `event/encode`, `event/decode` | an event's bytes, and the way back |
//! | `http/target`, `http/request`, `http/body` | one request, read within limits |
//! | `http/response`, `http/chunked` | one answer, whole or as a stream of chunks |
//! | `router` | paths, methods, middleware |
//! | `guard/*` | ready middleware: allow-lists of hosts and origins, CORS, an access log |
//! | `threads` | run this on a reused or a new thread, within a cap |
//! | `slots` | who is connected, how many may be, and how to reach them all at shutdown |
//! | `socket` | one connection's socket and slot: writing by pace, reading by deadline, has the peer left |
//! | `connection` | read a request, answer it, keep alive or become a stream |
//! | `server` | listen, accept, hand over, shut down |
//! | `sse` | a receiver as a response: the one loop of events and heartbeats |
//! | `random` | numbers that need to differ, not to be secret |
//! | `hub/rounds` | the inbox and the hub thread |
//! | `hub/log` | what is kept; cursors, gaps, and what a reader gets next |
//! | `hub/file` | the log's file, an event stream: append, recover, segments, and reading what memory no longer has |
//! | `hub/frame` | encoded events, and a write that can break off anywhere |
//! | `hub/subscription` | from a request to a position in the log |
//! | `hub/subscriber` | a socket with a cursor: behind or live, and the hand-over between |
//! | `hub/writer` | the threads that own the live sockets |
//! | `hub/poll`, `hub/json` | the same log for clients that cannot read a stream |
//! | `client.js` | for pages: an `EventSource` that all tabs share and that does not give up |
//! | `hub/registry`, `hub/core` | who reads, for figures and callbacks; what a hub's threads share |
//! | `hub/id`, `hub/topics`, `hub/config` | what may be an id or a topic; a hub's limits |
//!
//! ## What is absent
//!
//! - Events know no HTTP, and HTTP no events: a stream is a closure in a [`Response`] that is given the socket. Nor does a
//!   connection know of hubs. `tests/layers.rs` holds the table of who may import whom.
//! - Sockets appear in `server`, `slots` and `socket` alone; requests are read from anything that reads.
//! - Nothing is kept of a request that could not be read: every framing error ends its connection.
//! - Nothing is allocated by an announced length. Nothing waits without a deadline for a peer.
//! - No timer thread and no delay on purpose: each thread computes its next deadline before it waits.
//! - No `unsafe`, and no dependency, not even for tests.
//!
//! ## Threads and locks
//!
//! A publisher waits for the hub thread, the hub thread for a writer, and a writer for nothing. Threads are named for what
//! they do: `sse-accept`, `sse-connection`, `sse-refusal`, `sse-producer`, `sse-hub`, `sse-writer`, `sse-catch-up`, and
//! `sse-callbacks`, the only one of a hub's that runs user code. Between threads, connections and events travel over
//! channels and queues. The locks (of the log, of a writer's mailbox, of the slots, of a pool's queue, of the registry of
//! readers) are each held for one step, never while something waits for a peer; of all these a writer takes only its own
//! mailbox's, once a round.
#![forbid(unsafe_code)]
// A little of what the other modules offer is for the hub alone.
#![cfg_attr(not(feature = "hub"), allow(dead_code))]

mod config;
mod connection;
mod event;
mod guard;
mod http;
#[cfg(feature = "hub")]
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
pub use http::{Method, Request, Response};
#[cfg(feature = "hub")]
pub use hub::{
    Durability, EventId, History, Hub, HubConfig, InvalidId, InvalidTopic, Lag, PublishError,
    Reader, Start, Stats, Subscription, Topics,
};
pub use router::Next;
pub use server::{Server, ServerHandle, StillOpen};
pub use sse::{KeepAlive, Sse};

/// The README's programs are compiled, and run where they end.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct ReadmeExamples;
