//! Resume: a client that comes back gets what it missed; and is told, should that no longer be there.
//!
//! Run it with `cargo run --example resume`, then type `curl -N http://127.0.0.1:7733/` in another terminal. After a
//! comment and an `id` on its own comes an event a second:
//!
//! ```text
//! id: 6ad1c3e5b2f04c97-12
//! data: 12 seconds
//! ```
//!
//! Stop it with Ctrl-C, wait some seconds, and come back with the last id that you saw:
//!
//! ```text
//! curl -N -H 'Last-Event-ID: 6ad1c3e5b2f04c97-12' http://127.0.0.1:7733/
//! ```
//!
//! The seconds in between come at once, from 13 on, and none is missing; a browser's `EventSource` does all this by
//! itself. Then stop it again and wait for more than the 20 seconds that are kept. Now the first event is
//!
//! ```text
//! id: 6ad1c3e5b2f04c97-30
//! event: gap
//! data: {"from":"6ad1c3e5b2f04c97-12","to":"6ad1c3e5b2f04c97-30","lost":null}
//! ```
//!
//! and behind it comes all that is still there. Start the server anew, and the old id means nothing any more, which is a gap as
//! well: never a guess, and never a silent hole.

use std::io;
use std::thread;
use std::time::Duration;

use tiny_sse::{Event, History, Hub, HubConfig, Server};

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::open(HubConfig {
        history: History::events(20),
        ..HubConfig::default()
    })?;
    let clock = hub.clone();
    thread::spawn(move || {
        for second in 1_u64.. {
            thread::sleep(Duration::from_secs(1));
            if clock
                .publish("clock", Event::data(format!("{second} seconds")))
                .is_err()
            {
                return;
            }
        }
    });
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", move |request| hub.subscribe(request, "clock"));
    println!("resume at http://{}", server.addr());
    server.run()
}
