//! Every limit and duration of a server, with its default and the reason for it.

use std::net::IpAddr;
use std::time::Duration;

/// The limits and durations of a [`Server`](crate::Server). Start from [`Config::default`] and change what you need:
///
/// ```
/// use std::time::Duration;
/// use tiny_sse::Config;
///
/// let heartbeat = Duration::from_secs(5);
/// let config = Config { heartbeat, max_connections: 500, ..Config::default() };
/// # assert_eq!(config.max_threads, 4_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Maximum length of a request line in bytes; a longer one gets 414. Default: 8,000, the minimum that RFC 9112 section 3
    /// recommends.
    pub max_request_line_bytes: usize,
    /// Maximum bytes of all field lines together; more gets 431. Default: 16 KiB: four full cookies.
    pub max_head_bytes: usize,
    /// Maximum number of field lines of a request; more gets 431. Default: 100, four times what a browser sends.
    pub max_fields: usize,
    /// Maximum bytes of a request body, which is held in memory as a whole; more gets 413. Default: 1 MiB, the longest
    /// event that a hub accepts by default.
    pub max_body_bytes: usize,
    /// Time for a whole request head, from its first byte on; then 408. Default: 10 s.
    pub head_timeout: Duration,
    /// Time for a whole request body; then 408. Default: 30 s.
    pub body_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request. Default: 75 s, more than the 60 s of the usual load
    /// balancers, which would otherwise send a request just when the server closes.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of what is written to it. Default: 30 s, two heartbeats.
    pub write_timeout: Duration,
    /// Minimum rate, in bytes a second on average, at which a peer must send a body, or take a response or a stream while it is
    /// behind. The rate is judged after [`write_timeout`](Config::write_timeout), for a body after 5 s. Default: 64, which only
    /// a peer that is slow on purpose does not reach.
    pub min_bytes_per_second: u64,
    /// Silence on a stream after which a heartbeat is sent, unless the stream sets its own. Default: 15 s, which
    /// [WHATWG's authoring notes](https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes)
    /// recommend against proxies that drop silent connections.
    pub heartbeat: Duration,
    /// Maximum lifetime of a stream. Each stream's own lifetime is up to a tenth shorter, at random, so that clients that
    /// connected together do not all come back together. Default: none.
    pub max_stream_lifetime: Option<Duration>,
    /// Reconnects after a shutdown, a refusal, the end of a stream's lifetime or `Hub::close` are spread over this time, by
    /// the `retry` field. Default: 5 s.
    pub reconnect_spread: Duration,
    /// Maximum number of connections at once. At the limit, the connection that has waited longest for a next request gives
    /// way to a new one. Where none waits, a GET for an event stream gets a soft refusal (200, `retry`, end), everything else 503.
    /// Default: 10,000. Each connection takes a file descriptor: where the process may open fewer (`ulimit -n`), the server
    /// lowers the limit to what fits, and tells the error hook.
    pub max_connections: usize,
    /// Maximum number of threads that serve connections. At the limit idle connections give way, as with
    /// [`max_connections`](Config::max_connections). Default: 4,000: a process with default Linux settings ends at about
    /// 16,000 threads.
    pub max_threads: usize,
    /// Maximum number of connections from one client address. Default: none, since behind a proxy all clients have one address;
    /// see [`trusted_proxies`](Config::trusted_proxies).
    pub max_connections_per_address: Option<usize>,
    /// Addresses of the proxies whose `X-Forwarded-For` is believed, or `Forwarded` where there is no `X-Forwarded-For`. A
    /// proxy that writes `Forwarded` must remove an `X-Forwarded-For` that its client sent. Default: none.
    pub trusted_proxies: Vec<IpAddr>,
    /// Stack of a thread that accepts or serves connections, in bytes. Default: 256 KiB, of which only touched pages take
    /// memory. A stack of 2 MiB, the usual size, can become one huge page.
    pub thread_stack_bytes: usize,
    /// Number of threads that accept connections. Default: 2. The kernel queues only 128 clients. When a single thread is
    /// delayed, the clients that do not fit wait a second for their next try.
    pub accept_threads: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_request_line_bytes: 8000,
            max_head_bytes: 16 * 1024,
            max_fields: 100,
            max_body_bytes: 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            min_bytes_per_second: 64,
            heartbeat: Duration::from_secs(15),
            max_stream_lifetime: None,
            reconnect_spread: Duration::from_secs(5),
            max_connections: 10_000,
            max_threads: 4_000,
            max_connections_per_address: None,
            trusted_proxies: Vec::new(),
            thread_stack_bytes: 256 * 1024,
            accept_threads: 2,
        }
    }
}
