//! Every limit and duration of a server, with its default and the reason for it.

use std::net::IpAddr;
use std::time::Duration;

/// The limits and durations of a [`Server`](crate::Server). Start from [`Config::default`] and change what you need:
///
/// ```
/// use std::time::Duration;
/// use tiny_sse::Config;
///
/// let config = Config { heartbeat: Duration::from_secs(5), max_connections: 500, ..Config::default() };
/// # assert_eq!(config.max_threads, 4_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Send each write at once instead of waiting for more to fill a packet (`TCP_NODELAY`). Default: `true`, as an
    /// event that waits for the next one is late.
    pub nodelay: bool,
    /// Size in bytes of the buffer that request heads are read into, freed when a stream begins. Default: 4,096, more
    /// than the head of an ordinary browser request.
    pub read_buffer_bytes: usize,
    /// Longest request line in bytes; a longer one gets 414. Default: 8,000, the least that RFC 9112 section 3
    /// recommends to support.
    pub max_request_line_bytes: usize,
    /// Most bytes of all field lines together; more gets 431. Default: 16 KiB: four full cookies.
    pub max_head_bytes: usize,
    /// Most field lines of a request; more gets 431. Default: 100, four times what a browser sends.
    pub max_fields: usize,
    /// Most bytes of a request body, which is held in memory as a whole; more gets 413. Default: 1 MiB, the longest
    /// event that a hub accepts by default.
    pub max_body_bytes: usize,
    /// Time for a whole request head from its first byte on, however slowly it drips; then 408. Default: 10 s.
    pub head_timeout: Duration,
    /// Time for a whole request body; then 408. Default: 30 s.
    pub body_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request. Default: 75 s, more than the 60 s of the usual load
    /// balancers, which would otherwise send a request just when the server closes.
    pub idle_timeout: Duration,
    /// How long a peer may take no byte of what is written to it. Default: 30 s: two heartbeats.
    pub write_timeout: Duration,
    /// Fewest bytes a second, on average, that a peer must send of a body or take of a stream while it is behind,
    /// judged once [`write_timeout`](Config::write_timeout) (for a body: 5 s) has passed. Default: 64, so that only those who drip
    /// on purpose are hit.
    pub min_bytes_per_second: u64,
    /// Silence on a stream after which a heartbeat is sent, unless the stream sets its own. Default: 15 s, which
    /// [WHATWG's authoring notes](https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes)
    /// recommend against proxies that drop silent connections.
    pub heartbeat: Duration,
    /// Longest life of a stream, shortened by a random tenth so that streams opened together do not all return
    /// together. It ends cleanly and the client resumes. Default: none.
    pub max_stream_lifetime: Option<Duration>,
    /// Reconnects after a shutdown, a refusal, the end of a stream's lifetime or `Hub::close` are spread over this time, by
    /// the `retry` field. Default: 5 s.
    pub reconnect_spread: Duration,
    /// Maximum number of connections at once. At the limit, the connection that has waited longest for a next request gives
    /// way to a new one. Where none waits, a GET for an event stream gets a soft refusal (200, `retry`, end), everything else 503.
    /// One that has ended counts until a hub's callbacks have been told. Default: 10,000. Each takes a descriptor:
    /// where the process may open fewer (`ulimit -n`), the server lowers the limit to what fits, and says so through
    /// the error hook.
    pub max_connections: usize,
    /// Maximum number of threads that serve connections. At the limit idle connections give way, as with
    /// [`max_connections`](Config::max_connections). Default: 4,000: a process with default Linux settings ends at about
    /// 16,000 threads.
    pub max_threads: usize,
    /// Most connections from one client address. Default: none, since behind a proxy all clients are one; see
    /// [`trusted_proxies`](Config::trusted_proxies).
    pub max_connections_per_address: Option<usize>,
    /// Addresses of the proxies whose `X-Forwarded-For` is believed, or where there is none their `Forwarded`. A proxy
    /// that writes the latter has to remove the former where a client sent it. Default: none.
    pub trusted_proxies: Vec<IpAddr>,
    /// Stack of a connection's thread in bytes. Default: 256 KiB, of which only touched pages count; 2 MiB, the usual
    /// size, can become one huge page.
    pub thread_stack_bytes: usize,
    /// Threads that accept connections. Default: 2: the kernel queues only 128 clients, and one thread that is held up
    /// would let the rest wait a second for their next try.
    pub accept_threads: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            nodelay: true,
            read_buffer_bytes: 4096,
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
