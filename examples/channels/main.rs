//! Channels: one route, and a hub that brings what is published to a topic to all who read it.
//!
//! Run it with `cargo run --example channels`, open <http://127.0.0.1:7733/> in two windows, and write in one of them.
//! Or do without a page: `curl -N http://127.0.0.1:7733/events/news` waits for events, and
//!
//! ```text
//! curl -d 'The sun has risen.' http://127.0.0.1:7733/events/news
//! ```
//!
//! in another terminal makes it show `data: The sun has risen.` under an `id`, while the pages that are at `news` show it,
//! too. `curl -N 'http://127.0.0.1:7733/events/news?last_event_id=earliest'` begins with what has been
//! said before. The channels are `general`, `news`, `stocks` and `chat`; any other is a 404.

use std::io;

use tiny_sse::{Event, Hub, Request, Response, Server};

/// Topics come into being when they are used. These are all there are, so that visitors cannot make up others.
const CHANNELS: [&str; 4] = ["general", "news", "stocks", "chat"];

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let readers = hub.clone();
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/events/{channel}", move |request| {
            channel(request).map(|name| readers.subscribe(request, name))
        })
        .post("/events/{channel}", move |request| publish(&hub, request));
    println!("channels at http://{}", server.addr());
    server.run()
}

/// The channel that a request is about, or the answer if there is no such one.
fn channel(request: &Request) -> Result<&'static str, Response> {
    let wanted = request.param("channel");
    let known = CHANNELS.into_iter().find(|name| *name == wanted);
    known.ok_or_else(|| {
        Response::text(format!("the channels are {}\n", CHANNELS.join(", "))).with_status(404)
    })
}

/// Publishes a request's body. It goes to the readers as it is, whatever it contains: an event cannot be forged by it.
fn publish(hub: &Hub, request: &Request) -> Result<Response, Response> {
    hub.publish(channel(request)?, Event::data(request.text()?))?;
    Ok(Response::new(204))
}
