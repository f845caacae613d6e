//! Handover: a server that restarts without refusing a connection and without losing an event.
//!
//! Run it with `cargo run --example handover`, and read in another terminal:
//!
//! ```text
//! cargo run --example follow http://127.0.0.1:7733/events
//! ```
//!
//! Publish and restart in a third:
//!
//! ```text
//! curl -d 'hello' http://127.0.0.1:7733/events
//! curl -X POST http://127.0.0.1:7733/restart
//! ```
//!
//! The old process starts the new one with its listener as standard input. The old process ends its streams, each with a
//! different `retry`, answers the requests that it has accepted, and ends. Connections that come meanwhile wait in the
//! listener's queue. The new process serves as soon as it can open the history, when the old process has closed it. Readers
//! resume by their last event id. `curl -X POST http://127.0.0.1:7733/stop` ends the server.

use std::net::TcpListener;
use std::time::{Duration, Instant};
use std::{env, io, thread};

use tiny_sse::{Config, Event, Hub, HubConfig, Request, Response, Server, ServerHandle};

/// Tells a process that its standard input is the listener.
const INHERITED: &str = "HANDOVER_INHERITED";

/// How long the streams and requests of the old process may take to end, and the new one waits for the history.
const DEADLINE: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let hub = open_history()?;
    let (server, listener) = match env::var_os(INHERITED) {
        Some(_) => (inherited_server()?, None),
        None => {
            let port = env::args().nth(1).unwrap_or("7733".to_string());
            let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
            (
                Server::from_listener(listener.try_clone()?)?,
                Some(listener),
            )
        }
    };
    let config = Config {
        reconnect_spread: Duration::from_millis(500),
        ..Config::default()
    };
    let (restarted, stopped) = (server.handle(), server.handle());
    let readers = hub.clone();
    let server = server
        .config(config)
        .get(
            "/",
            |_request| "POST to /events, /restart or /stop; GET /events\n",
        )
        .get("/events", move |request| {
            readers.subscribe(request, "events")
        })
        .post("/events", move |request| publish(&hub, request))
        .post("/restart", move |_request| {
            start_next(listener.as_ref())?;
            Ok(end(&restarted))
        })
        .post("/stop", move |_request| end(&stopped));
    println!("handover at http://{}", server.addr());
    server.run()
}

/// Opens the history, and waits while the old process still has it.
fn open_history() -> io::Result<Hub> {
    let path = env::temp_dir().join("handover.events");
    let give_up = Instant::now() + DEADLINE;
    loop {
        let opened = Hub::open(HubConfig {
            history_file: Some(path.clone()),
            ..HubConfig::default()
        });
        match opened {
            Err(_) if env::var_os(INHERITED).is_some() && Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

#[cfg(unix)]
fn inherited_server() -> io::Result<Server> {
    Server::from_stdin()
}

/// Starts the next process with the listener as its standard input. An inherited listener is there already.
#[cfg(unix)]
fn start_next(listener: Option<&TcpListener>) -> io::Result<()> {
    use std::process::{Command, Stdio};

    let stdin = match listener {
        Some(listener) => Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone()?)),
        None => Stdio::inherit(),
    };
    let mut command = Command::new(env::current_exe()?);
    command.env(INHERITED, "1").stdin(stdin).spawn().map(drop)
}

#[cfg(not(unix))]
fn inherited_server() -> io::Result<Server> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn start_next(_listener: Option<&TcpListener>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Publishes the body, and answers when the history has it.
fn publish(hub: &Hub, request: &Request) -> Result<String, Response> {
    let id = hub.publish_wait("events", Event::data(request.text()?))?;
    Ok(format!("{id}\n"))
}

/// Ends this process's server, on a thread: the handler that calls this has to return first.
fn end(handle: &ServerHandle) -> Response {
    let handle = handle.clone();
    thread::spawn(move || handle.shutdown(DEADLINE));
    Response::new(202)
}
