//! `Server`: routes and settings, then accepting connections, handing them to threads, and shutdown.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::mem;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::connection;
use crate::connections::{Connections, NEW, ServerStats};
use crate::http::{IntoResponse, Method, Request, Response, client_ip};
use crate::listener::{Listener, Waker};
use crate::lock::lock;
use crate::router::{Middleware, Next, Router};
use crate::socket::{NEW_TIME, Socket, from_now, is_timeout};
use crate::threads::Threads;
use crate::user_code::{ErrorHook, stderr_hook};

/// Pause after `accept` failed. The usual reason is that the process may open no more files.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Maximum number of threads that respond to clients for which there is no room.
const REFUSAL_THREADS: usize = 16;

/// File descriptors that the process needs besides its connections: for standard streams, listeners, files of a history.
const SPARE_DESCRIPTORS: usize = 32;

/// How long the thread of a connection that was cut off at the deadline may take to end.
const CUT_OFF: Duration = Duration::from_millis(1500);

/// An HTTP/1.1 server for event streams and ordinary responses.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use std::time::Duration;
/// use tiny_sse::Server;
///
/// let server = Server::bind("127.0.0.1:0")?.get("/", |_request| "hello").spawn()?;
///
/// let mut client = TcpStream::connect(server.addr())?;
/// client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
/// let mut response = String::new();
/// client.read_to_string(&mut response)?;
/// assert!(response.starts_with("HTTP/1.1 200 OK\r\n"));
/// assert!(response.ends_with("\r\n\r\nhello"));
///
/// server.shutdown(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a server serves nothing until it runs"]
pub struct Server {
    listener: Listener,
    waker: Waker,
    config: Config,
    router: Router,
    on_error: ErrorHook,
    handle: ServerHandle,
}

impl Server {
    /// Listens on an address. With port 0 the system chooses a free port.
    ///
    /// If a name stands for several addresses, the server listens on the first one that is possible, and on no other. On many
    /// machines `localhost` stands for `127.0.0.1` and `::1`, so clients of the other address find no server. Bind
    /// `127.0.0.1`, or `[::]`, which takes IPv4 and IPv6 where the system allows it.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::bind`]: an address is in use, not this machine's, or not allowed. The error names the addresses.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Server> {
        Server::new(Listener::bind(address)?)
    }

    /// Listens on the path of a Unix socket, for a proxy or programs on the same machine.
    ///
    /// The file belongs to this process's user and group. Its mode says who may connect: with `0o660`, the user and the group.
    /// The file replaces a socket that no process serves any more, and is removed when the server ends.
    ///
    /// Every client counts as `127.0.0.1` with port 0. Put this address into
    /// [`Config::trusted_proxies`](crate::Config::trusted_proxies) to believe the `X-Forwarded-For` of a proxy.
    ///
    /// ```no_run
    /// use tiny_sse::{Config, Server};
    ///
    /// let config = Config { trusted_proxies: vec![[127, 0, 0, 1].into()], ..Config::default() };
    /// let server = Server::bind_unix("/run/news/news.sock", 0o660)?.config(config);
    /// server.get("/", |_request| "hello").run()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When another process serves a socket at the path, a file there is not a socket, or the directory does not exist or may
    /// not be written. The error names the path.
    #[cfg(unix)]
    pub fn bind_unix(path: impl AsRef<std::path::Path>, mode: u32) -> io::Result<Server> {
        Server::new(Listener::bind_unix(path.as_ref(), mode)?)
    }

    /// Serves a listener, of TCP or a Unix socket, that another process hands over as standard input. The other process is
    /// systemd (`StandardInput=socket`), inetd, or this server before a restart. The other process sets the backlog.
    ///
    /// A unit for systemd is a `news.socket` and a `news.service`:
    ///
    /// ```text
    /// [Socket]                      [Service]
    /// ListenStream=80               ExecStart=/usr/bin/news
    /// Backlog=4096                  StandardInput=socket
    ///                               StandardOutput=journal
    ///                               LimitNOFILE=16384
    /// ```
    ///
    /// # Errors
    ///
    /// When standard input is not a listening socket.
    #[cfg(unix)]
    pub fn from_stdin() -> io::Result<Server> {
        Server::new(Listener::from_stdin()?)
    }

    /// Serves a listener of the caller's, for example one with a larger backlog.
    ///
    /// # Errors
    ///
    /// When the listener has no address or cannot be made blocking.
    pub fn from_listener(listener: TcpListener) -> io::Result<Server> {
        Server::new(Listener::Tcp(listener))
    }

    /// Makes a server without routes and with the default settings.
    fn new(listener: Listener) -> io::Result<Server> {
        let (address, waker) = listener.prepare()?;
        Ok(Server {
            listener,
            waker,
            config: Config::default(),
            router: Router::default(),
            on_error: stderr_hook(),
            handle: ServerHandle {
                address,
                state: Arc::default(),
            },
        })
    }

    /// Sets limits and durations.
    pub fn config(mut self, config: Config) -> Server {
        self.config = config;
        self
    }

    /// Answers GET, and HEAD with the same head, on a path.
    ///
    /// A segment `{name}` of the pattern matches any one segment of the path. A last segment `{*name}` matches all segments
    /// that are left, such as the path of a file below a folder; it does not match if one of them is empty, `.` or `..`, or has
    /// an encoded slash. [`Request::param`] returns what matched.
    ///
    /// Of two routes that match, a literal segment goes before a parameter, and a parameter before the rest of a path.
    ///
    /// A pattern that can never match, or that the same method has already, is an error of [`run`](Server::run) and
    /// [`spawn`](Server::spawn). The error says what would be right.
    pub fn get<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Server {
        self.route(Method::Get, path, handler)
    }

    /// Answers POST on a path, as [`get`](Server::get) does.
    pub fn post<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Server {
        self.route(Method::Post, path, handler)
    }

    /// Answers any method on a path, as [`get`](Server::get) does.
    pub fn any<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Server {
        self.route(None::<Method>, path, handler)
    }

    /// Answers one method on a path, as [`get`](Server::get) does; `None` for any method.
    pub fn route<R: IntoResponse>(
        mut self,
        method: impl Into<Option<Method>>,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Server {
        let handler = move |request: &Request| handler(request).into_response();
        self.router.add(method.into(), path, Box::new(handler));
        self
    }

    /// Puts a middleware around all handlers, and around the server's own 404 and 405.
    ///
    /// The middleware either responds itself, or passes the request on with [`Next::run`], which returns the response. The
    /// middleware that is added first is the outermost. An event stream passes through it as a response, before its first byte
    /// is sent. Where no route matches, the body of a request with `Expect: 100-continue` is not read: a route for `/{*path}`
    /// gets such a body. A closure has to name the types of its arguments:
    ///
    /// ```
    /// use tiny_sse::{Next, Request, Response, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0")?.middleware(|request: &Request, next: Next<'_>| {
    ///     if request.cookie("session").is_none() {
    ///         return Response::text("please log in\n").with_status(403);
    ///     }
    ///     next.run(request)
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn middleware<Kind>(mut self, middleware: impl Middleware<Kind>) -> Server {
        let run = move |request: &Request, next: Next<'_>| middleware.run(request, next);
        self.router.middleware.push(Box::new(run));
        self
    }

    /// Sets the function that is called with each problem that no caller is told of, such as a handler's error or panic, or a
    /// failed `accept`. Malformed requests are answered and not reported. Default: writes to standard error.
    pub fn on_error(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Server {
        self.on_error = Arc::new(hook);
        self
    }

    /// Returns the address that the server listens on, with the port that the system chose; `127.0.0.1:0` for a Unix socket.
    pub fn addr(&self) -> SocketAddr {
        self.handle.address
    }

    /// Returns a handle that ends this server, before or while it runs, from another thread or from a handler.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until a [`ServerHandle`] ends the server. Returns when all streams and connections have ended, as
    /// [`ServerHandle::shutdown`] does, so that `main` may return.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a pattern that [`get`](Server::get) refuses, and the system's error when a thread that accepts
    /// connections cannot be started. Once the server runs, it does not fail.
    pub fn run(self) -> io::Result<()> {
        let handle = self.handle();
        let running = self.start()?;
        running.accept_threads.close(from_now(Duration::MAX));
        let deadline = lock(&handle.state).deadline;
        // Connections that are left are no error of `run`: `ServerHandle::shutdown` returns them, and can be called again.
        let _ = handle.end(&running, deadline.unwrap_or_else(Instant::now));
        Ok(())
    }

    /// Serves on threads of its own, and returns at once.
    ///
    /// # Errors
    ///
    /// As [`run`](Server::run).
    pub fn spawn(self) -> io::Result<ServerHandle> {
        let handle = self.handle();
        self.start()?;
        Ok(handle)
    }

    /// Answers a request as the running server does, through middleware and routes, but without a connection: for tests. If no
    /// route matches, the response is a 404 or 405, and if a handler panics, a 500.
    ///
    /// ```
    /// use tiny_sse::{Method, Request, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0")?
    ///     .get("/rooms/{room}", |request| request.param("room").to_string());
    /// let response = server.answer(Request::new(Method::Get, "/rooms/7")?);
    /// assert_eq!((response.status(), response.body()), (200, &b"7"[..]));
    /// assert_eq!(server.answer(Request::new(Method::Post, "/rooms/7")?).status(), 405);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn answer(&self, mut request: Request) -> Response {
        if let Some(problem) = &self.router.invalid {
            return Response::failed(problem);
        }
        request.client_ip = client_ip(&request, &self.config.trusted_proxies);
        let handler = self.router.find(&mut request);
        self.router.answer(&request, &handler)
    }

    /// Starts the threads that accept connections. The threads end at once where the server was shut down before.
    fn start(self) -> io::Result<Arc<Running>> {
        if let Some(problem) = self.router.invalid {
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        let mut config = self.config;
        let most = open_file_limit().unwrap_or(usize::MAX);
        let fitting = most.saturating_sub(SPARE_DESCRIPTORS).max(1);
        let asked = config.max_connections;
        config.max_connections = asked.min(fitting);
        let accept_threads = config.accept_threads.max(1);
        let (max_threads, stack) = (config.max_threads, config.thread_stack_bytes);
        let connections = Connections::new(config, self.on_error);
        if fitting < asked {
            connections.report(&format!(
                "only {fitting} connections fit the {most} files that this process may open (`ulimit -n`)"
            ));
        }
        let router = self.router;
        let serve = Box::new(move |socket| connection::serve(socket, &router));
        let refuse = Box::new(connection::refuse);
        let accepting = accept_threads..=accept_threads;
        let running = Arc::new(Running {
            accept_threads: Threads::new("sse-accept", accepting, stack, Box::new(accept))?,
            connection_threads: Threads::new("sse-connection", 0..=max_threads, stack, serve)?,
            refusal_threads: Threads::new("sse-refusal", 0..=REFUSAL_THREADS, stack, refuse)?,
            connections,
            waker: self.waker,
        });
        let mut state = lock(&self.handle.state);
        if state.deadline.is_none() {
            state.running = Some(Arc::clone(&running));
            let listener = Arc::new(self.listener);
            for _ in 0..accept_threads {
                let own = (Arc::clone(&running), Arc::clone(&listener));
                running.accept_threads.enqueue(own);
            }
        }
        drop(state);
        Ok(running)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.addr())
    }
}

/// Returns how many files this process may open, where the system tells.
fn open_file_limit() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A server that has been started: its threads, and its connections. Owned by the threads that accept connections and, while
/// the server runs, by its [`State`]. A shutdown drops the handlers when the last thread of `connection_threads` has ended.
struct Running {
    accept_threads: Threads<(Arc<Running>, Arc<Listener>)>,
    connection_threads: Threads<Socket>,
    refusal_threads: Threads<Socket>,
    connections: Arc<Connections>,
    waker: Waker,
}

/// Accepts connections until the server closes. The last thread that does so closes the listener.
fn accept((running, listener): (Arc<Running>, Arc<Listener>)) {
    let connections = &running.connections;
    let mut is_failing = false;
    while !connections.is_closing() {
        match listener.accept() {
            Ok((stream, peer)) => {
                is_failing = false;
                running.hand_over(Socket::new(connections, stream, peer));
            }
            // The time-out is that of a Unix socket's listener.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted || is_timeout(&error) => {}
            Err(error) => {
                // Descriptors become free when connections end. The error is reported once, not at each of twenty tries a
                // second.
                if !mem::replace(&mut is_failing, true) {
                    connections.report(&format!("accept failed, and is tried again: {error}"));
                }
                thread::sleep(BACK_OFF);
            }
        }
    }
}

impl Running {
    /// Gives a new connection to a thread, or refuses it. Called by the threads that accept, which must not be held up: nothing
    /// here waits for a client.
    fn hand_over(&self, mut socket: Socket) {
        if socket.permit.is_taken() {
            match self.connection_threads.run(socket) {
                Ok(()) => return,
                Err(back) => socket = back,
            }
            // An idle connection gives way. Its thread takes the new connection out of the queue.
            if socket.permit.has_evicted || self.connections.evict_idle() {
                return self.connection_threads.enqueue(socket);
            }
        }
        // While the server closes, a client is not told that there is no room: its connection closes.
        if !self.connections.is_closing() {
            self.connections.refused.fetch_add(1, Ordering::Relaxed);
            // Where all refusal threads are busy, the connection closes without a response.
            drop(self.refusal_threads.run(socket));
        }
    }

    /// Ends all streams and connections, and waits for their threads.
    ///
    /// Idle connections and streams have been told already that the server closes. New connections whose request does not come
    /// within [`NEW_TIME`] end first. At the deadline, everything that is left is cut off. The threads then have [`CUT_OFF`] to
    /// notice this.
    fn finish(&self, deadline: Instant) -> Result<(), StillOpen> {
        self.stop_accepting(deadline);
        let soon = deadline.min(Instant::now() + NEW_TIME);
        if self.connections.wait_until_empty(soon) > 0 {
            self.connections.end_waits(NEW);
        }
        if self.connections.wait_until_empty(deadline) > 0 {
            self.connections.cut_off();
        }
        let grace = deadline.max(Instant::now()) + CUT_OFF;
        // Idle threads end while this one waits for the connections.
        self.connection_threads.close(Instant::now());
        let left = StillOpen {
            connections: self.connections.wait_until_empty(grace),
            threads: self.connection_threads.close(grace)
                + self.refusal_threads.close(grace)
                + self.stop_accepting(grace),
        };
        match left.connections + left.threads {
            0 => Ok(()),
            _ => Err(left),
        }
    }

    /// Wakes the threads that accept, even when the deadline has passed, and waits at most until the deadline for all of them
    /// to end. Returns how many are left.
    fn stop_accepting(&self, deadline: Instant) -> usize {
        let mut left = self.accept_threads.close(Instant::now());
        while left > 0 {
            // One connection wakes one thread. Another process that shares the listener may accept some of them, and without a
            // free descriptor none can be made: the next round tries again.
            (0..left).for_each(|_| (self.waker)());
            let now = Instant::now();
            left = self.accept_threads.close(deadline.min(now + BACK_OFF));
            if now >= deadline {
                break;
            }
        }
        left
    }
}

/// A handle that ends a server, from any thread. The server runs on when its handles are dropped.
#[derive(Clone)]
pub struct ServerHandle {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// The state that a server shares with its handles.
#[derive(Default)]
struct State {
    /// When what is left is cut off. Set by the first shutdown.
    deadline: Option<Instant>,
    /// Set while the server runs: its end drops the handlers, which may hold a handle of their own server.
    running: Option<Arc<Running>>,
}

impl ServerHandle {
    /// Returns the address that the server listens on; `127.0.0.1:0` for a Unix socket.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the server's figures. All are zero before it runs and after its end.
    ///
    /// ```
    /// use tiny_sse::Server;
    ///
    /// let server = Server::bind("127.0.0.1:0")?;
    /// let handle = server.handle();
    /// let server = server.get("/metrics", move |_request| handle.stats().to_string());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stats(&self) -> ServerStats {
        let state = lock(&self.state);
        let running = state.running.as_ref();
        running.map_or_else(ServerStats::default, |running| running.connections.stats())
    }

    /// Stops accepting, lets requests in progress finish, and ends every stream. Connections that are still open at the
    /// deadline are cut off. Returns when all connections and their threads have ended, at most two seconds after the deadline.
    /// The handlers have been dropped then, unless something is left.
    ///
    /// Each stream ends with a different `retry`, so that the clients do not all come back at once. A hub's stream ends with
    /// the last chunk, since its client can resume. An [`Sse`](crate::Sse) ends without it, since it is not complete;
    /// [`finish_within_deadline`](crate::Sse::finish_within_deadline) lets it go on. Streams check once a second whether the
    /// server is closing, so the deadline should be more than a second away.
    ///
    /// A second call waits for the same shutdown, and can bring the deadline forward. A server that does not run yet ends as
    /// soon as it is run.
    ///
    /// A shutdown waits for all handlers. So a handler that ends its own server starts a thread:
    ///
    /// ```
    /// use std::{thread, time::Duration};
    /// use tiny_sse::{Response, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0")?;
    /// let handle = server.handle();
    /// let server = server.post("/shutdown", move |_request| {
    ///     let handle = handle.clone();
    ///     thread::spawn(move || handle.shutdown(Duration::from_secs(5)));
    ///     Response::new(202)
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StillOpen`] when something is left, such as a handler or producer that does not return.
    pub fn shutdown(&self, deadline: Duration) -> Result<(), StillOpen> {
        let mut state = lock(&self.state);
        let by = from_now(deadline);
        let by = state.deadline.map_or(by, |earlier| earlier.min(by));
        state.deadline = Some(by);
        let Some(running) = state.running.clone() else {
            return Ok(());
        };
        drop(state);
        running.connections.close();
        self.end(&running, by)
    }

    /// Waits for the end of a server that is closing, and drops its handlers.
    fn end(&self, running: &Running, deadline: Instant) -> Result<(), StillOpen> {
        running.finish(deadline)?;
        lock(&self.state).running = None;
        Ok(())
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerHandle({})", self.address)
    }
}

/// What was left when a shutdown gave up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StillOpen {
    /// Connections that are still open.
    pub connections: usize,
    /// Threads that have not ended, including those of the connections.
    pub threads: usize,
}

impl fmt::Display for StillOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, threads) = (self.connections, self.threads);
        write!(
            f,
            "{connections} connections and {threads} threads are left"
        )
    }
}

impl Error for StillOpen {}
