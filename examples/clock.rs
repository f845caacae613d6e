//! Clock: the smallest server, which sends the time every second.
//!
//! Run it with `cargo run --example clock`, then type `curl -N http://127.0.0.1:7733/` in another terminal. You see a
//! comment, `: connected`, and then an event a second, such as `data: 1700000000`, until you stop curl or the server.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, io, thread};

use tiny_sse::{Event, Server, Sse};

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let server = Server::bind(format!("127.0.0.1:{port}"))?.get("/", |_request| Sse::spawn(tick));
    println!("clock at http://{}", server.addr());
    server.run()
}

/// Sends the seconds since 1970 until the client has left.
fn tick(events: SyncSender<Event>) {
    let now = || UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    while events.send(Event::data(now().to_string())).is_ok() {
        thread::sleep(Duration::from_secs(1));
    }
}
