//! `Server`: routes and settings, then accepting connections, handing them to threads, and shutdown.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::connection;
use crate::connections::{Connections, NEW, ServerStats};
use crate::http::{IntoResponse, Method, Request, Response, client_ip};
use crate::listener::{Listener, Waker};
use crate::lock::lock;
use crate::router::{Handler, Middleware, Next, Router};
use crate::socket::{NEW_TIME, Socket, from_now, is_timeout};
use crate::threads::{self, PoolConfig, Threads};
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
    config: Config,
    router: Router,
    on_error: ErrorHook,
    shutdown: Arc<Shutdown>,
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

    /// Serves the listener that another process hands over as standard input, of TCP or a Unix socket. The other process is
    /// systemd (`StandardInput=socket`), inetd, or this server before a restart. It sets the backlog.
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

    fn new(listener: Listener) -> io::Result<Server> {
        let (address, waker) = listener.prepare()?;
        Ok(Server {
            listener,
            config: Config::default(),
            router: Router::default(),
            on_error: stderr_hook(),
            shutdown: Arc::new(Shutdown {
                address,
                waker,
                state: Mutex::default(),
                stopped: Condvar::new(),
            }),
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
        self.add(None, path, into_response(handler))
    }

    /// Answers one method on a path, as [`get`](Server::get) does.
    pub fn route<R: IntoResponse>(
        self,
        method: Method,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Server {
        self.add(Some(method), path, into_response(handler))
    }

    fn add(mut self, method: Option<Method>, path: &str, handler: Handler) -> Server {
        self.router.add(method, path, handler);
        self
    }

    /// Answers requests for paths that no route matches, in place of a 404.
    pub fn fallback<R: IntoResponse>(
        mut self,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Server {
        self.router.fallback = Some(into_response(handler));
        self
    }

    /// Puts a middleware around all handlers, and around the server's own 404 and 405.
    ///
    /// The middleware either responds itself, or passes the request on with [`Next::run`], which returns the response. The one
    /// that is added first is the outermost. An event stream passes through it as a response, before its first byte is sent. A
    /// closure has to name the types of its arguments:
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
        self.shutdown.address
    }

    /// Returns a handle that ends this server, before or while it runs, from another thread or from a handler.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            shutdown: Arc::clone(&self.shutdown),
        }
    }

    /// Serves until a [`ServerHandle`] ends the server. Returns when all streams and connections have ended, as
    /// [`ServerHandle::shutdown`] does, so that `main` may return.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a pattern that [`get`](Server::get) refuses. Once the server runs, it does not fail.
    pub fn run(self) -> io::Result<()> {
        self.check()?;
        let (running, listener) = self.prepare();
        running.serve(listener);
        Ok(())
    }

    /// Serves on a new thread, and returns at once.
    ///
    /// # Errors
    ///
    /// As [`run`](Server::run); and the system's error when the thread cannot be started.
    pub fn spawn(self) -> io::Result<ServerHandle> {
        self.check()?;
        let handle = self.handle();
        let (running, listener) = self.prepare();
        threads::spawn("sse-server", None, Box::new(|| running.serve(listener)))?;
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
        if let Err(error) = self.check() {
            return Response::failed(error);
        }
        request.client_ip = client_ip(&request, &self.config.trusted_proxies);
        let handler = self.router.find(&mut request);
        self.router.answer(&request, handler)
    }

    fn check(&self) -> io::Result<()> {
        match &self.router.invalid {
            Some(problem) => Err(io::Error::new(io::ErrorKind::InvalidInput, &**problem)),
            None => Ok(()),
        }
    }

    fn prepare(self) -> (Arc<Running>, Arc<Listener>) {
        let mut config = self.config;
        let most = open_file_limit().unwrap_or(usize::MAX);
        let fitting = most.saturating_sub(SPARE_DESCRIPTORS).max(1);
        let asked = config.max_connections;
        config.max_connections = asked.min(fitting);
        let connections = Connections::new(config, self.on_error);
        if fitting < asked {
            connections.report(&format!(
                "only {fitting} connections fit the {most} files that this process may open (`ulimit -n`)"
            ));
        }
        let pool = |name, max_threads| PoolConfig {
            name,
            min_threads: 0,
            max_threads,
            stack_bytes: connections.config.thread_stack_bytes,
        };
        let of_connections = pool("sse-connection", connections.config.max_threads);
        let router = self.router;
        let serve = Box::new(move |socket| connection::serve(socket, &router));
        let refuse = Box::new(connection::refuse);
        let listener = Arc::new(self.listener);
        let running = Arc::new(Running {
            listener: Arc::downgrade(&listener),
            connection_threads: Threads::new(of_connections, serve),
            refusal_threads: Threads::new(pool("sse-refusal", REFUSAL_THREADS), refuse),
            connections,
            shutdown: self.shutdown,
        });
        (running, listener)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn into_response<R: IntoResponse>(
    handler: impl Fn(&Request) -> R + Send + Sync + 'static,
) -> Handler {
    Box::new(move |request| handler(request).into_response())
}

/// Returns how many files this process may open, where the system tells.
fn open_file_limit() -> Option<usize> {
    // The file is shorter than this, and one read returns all of it.
    let mut limits = [0; 4096];
    let n = File::open("/proc/self/limits")
        .ok()?
        .read(&mut limits)
        .ok()?;
    let mut lines = str::from_utf8(&limits[..n]).ok()?.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A server that has been started.
struct Running {
    /// Held by the threads that accept, so that its strong count is their number.
    listener: Weak<Listener>,
    connection_threads: Threads<Socket>,
    refusal_threads: Threads<Socket>,
    connections: Arc<Connections>,
    shutdown: Arc<Shutdown>,
}

impl Running {
    fn serve(self: Arc<Running>, listener: Arc<Listener>) {
        let mut state = self.shutdown.lock();
        if state.deadline.is_some() {
            return;
        }
        state.running = Some(Arc::clone(&self));
        drop(state);
        for _ in 1..self.connections.config.accept_threads {
            let (running, listener) = (Arc::clone(&self), Arc::clone(&listener));
            let accept = Box::new(|| running.accept(listener));
            if let Err(error) = threads::spawn("sse-accept", None, accept) {
                self.connections.report(&format!(
                    "a thread that accepts connections could not start: {error}"
                ));
            }
        }
        Arc::clone(&self).accept(listener);
        let deadline = self.shutdown.lock().deadline;
        // Where something is left, `shutdown` returns it, and may be called again.
        if self.finish(deadline.unwrap_or_else(Instant::now)).is_ok() {
            // Ends the cycle of `Running` and `Shutdown`, which hold each other while the server runs.
            self.shutdown.lock().running = None;
        }
    }

    /// Accepts connections until the server closes, and drops the listener.
    fn accept(self: Arc<Running>, listener: Arc<Listener>) {
        let mut failing = false;
        while !self.connections.is_closing() {
            match listener.accept() {
                Ok((stream, peer)) => {
                    failing = false;
                    self.hand_over(Socket::new(&self.connections, stream, peer));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The time-out of a Unix socket's listener.
                Err(error) if is_timeout(&error) => {}
                Err(error) => {
                    // Descriptors are free again when connections end. Reported once, not at each of twenty tries a second.
                    if !failing {
                        self.connections
                            .report(&format!("accept failed, and is tried again: {error}"));
                    }
                    failing = true;
                    thread::sleep(BACK_OFF);
                }
            }
        }
        let shutdown = Arc::clone(&self.shutdown);
        drop(self);
        drop(listener);
        // `stop_accepting` counts the listeners under this lock: it has not yet counted, or waits for the notification.
        drop(shutdown.lock());
        shutdown.stopped.notify_all();
    }

    fn hand_over(&self, socket: Socket) {
        let refused = match socket.permit.is_taken() {
            true => self.connection_threads.run(socket),
            false => Err(socket),
        };
        let refused = match refused {
            // An idle connection gives way. Its thread takes this one out of the queue.
            Err(socket)
                if socket.permit.is_taken()
                    && (socket.permit.has_evicted || self.connections.evict_idle()) =>
            {
                self.connection_threads.enqueue(socket);
                Ok(())
            }
            other => other,
        };
        // While the server closes, a client is not told that there is no room: its connection closes.
        if let Err(refused) = refused
            && !self.connections.is_closing()
        {
            self.connections.refused.fetch_add(1, Ordering::Relaxed);
            // Where all refusal threads are busy, the connection closes without a response.
            drop(self.refusal_threads.run(refused));
        }
    }

    /// Ends all streams and connections, and waits for their threads.
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
        let connections = self.connections.wait_until_empty(grace);
        let mut threads = self.connection_threads.close(grace) + self.refusal_threads.close(grace);
        threads += self.stop_accepting(grace);
        if connections + threads > 0 {
            return Err(StillOpen {
                connections,
                threads,
            });
        }
        Ok(())
    }

    /// Wakes the threads that accept and waits until all of them have dropped the listener, at most until the deadline.
    /// Returns how many are left.
    fn stop_accepting(&self, deadline: Instant) -> usize {
        loop {
            let accepting = self.listener.strong_count();
            // One connection for each thread. Another process that shares the listener may accept some of them, and without a
            // free descriptor none can be made: the next round tries again.
            for _ in 0..accepting {
                (self.shutdown.waker)();
            }
            let state = self.shutdown.lock();
            let left = self.listener.strong_count();
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            drop(self.shutdown.stopped.wait_timeout(state, BACK_OFF));
        }
    }
}

/// A handle that ends a server, from any thread. The server runs on when its handles are dropped.
#[derive(Clone)]
pub struct ServerHandle {
    shutdown: Arc<Shutdown>,
}

/// The state that a server shares with its handles.
struct Shutdown {
    address: SocketAddr,
    waker: Waker,
    state: Mutex<State>,
    /// Notified when a thread has stopped to accept.
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    deadline: Option<Instant>,
    running: Option<Arc<Running>>,
}

impl ServerHandle {
    /// Returns the address that the server listens on; `127.0.0.1:0` for a Unix socket.
    pub fn addr(&self) -> SocketAddr {
        self.shutdown.address
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
        let state = self.shutdown.lock();
        let running = state.running.as_ref();
        running.map_or_else(ServerStats::default, |running| running.connections.stats())
    }

    /// Stops accepting, lets requests in progress finish, and ends every stream. Connections that are still open at the
    /// deadline are cut off. Returns when all connections and their threads have ended, at most two seconds after the deadline.
    ///
    /// Each stream ends with a different `retry`, so that the clients do not all come back at once. A hub's stream ends with
    /// the last chunk, since its client can resume. An [`Sse`](crate::Sse) ends without it, since it is not complete;
    /// [`finish_within_deadline`](crate::Sse::finish_within_deadline) lets it go on. Streams check once a second whether the
    /// server is closing, so give them more than a second.
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
        let mut state = self.shutdown.lock();
        let by = from_now(deadline);
        let by = state.deadline.map_or(by, |earlier| earlier.min(by));
        state.deadline = Some(by);
        let Some(running) = state.running.clone() else {
            return Ok(());
        };
        drop(state);
        running.connections.close();
        running.finish(by)
    }
}

impl Shutdown {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("address", &self.shutdown.address)
            .finish_non_exhaustive()
    }
}

/// What was left when a shutdown gave up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StillOpen {
    /// Connections that are still open.
    pub connections: usize,
    /// Threads that have not ended, those of the connections included.
    pub threads: usize,
}

impl fmt::Display for StillOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections and {} threads are left",
            self.connections, self.threads
        )
    }
}

impl Error for StillOpen {}
