//! Channels: one route, and a hub that sends what is published to a topic to all readers of the topic.
//!
//! Run it with `cargo run --example channels`, open <http://127.0.0.1:7733/> in two windows, and write in one of them. The
//! example works without a page, too: `curl -N http://127.0.0.1:7733/events/news` waits for events. Type
//!
//! ```text
//! curl -d 'The sun has risen.' http://127.0.0.1:7733/events/news
//! ```
//!
//! in another terminal. The first curl shows `data: The sun has risen.` under an `id`, and so do the pages that show `news`.
//! `curl -N 'http://127.0.0.1:7733/events/news?last_event_id=earliest'` begins with the events that were published before. The
//! channels are `general`, `news`, `stocks` and `chat`. Any other channel is a 404.

use std::{env, io};

use tiny_sse::{Event, Hub, Request, Response, Server, Subscription};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

/// A topic exists once it is used. With a fixed list, visitors cannot fill the hub with topics.
const CHANNELS: [&str; 4] = ["general", "news", "stocks", "chat"];

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let readers = hub.clone();
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../resume.rs"))
        .get("/events/{channel}", move |request| read(&readers, request))
        .post("/events/{channel}", move |request| publish(&hub, request));
    println!("channels at http://{}", server.addr());
    server.run()
}

fn read(hub: &Hub, request: &Request) -> Result<Subscription, Response> {
    Ok(hub.subscribe(request, channel(request)?))
}

/// Publishes the body of a request. The text may contain anything: it cannot forge an event.
fn publish(hub: &Hub, request: &Request) -> Result<Response, Response> {
    hub.publish(channel(request)?, Event::data(request.text()?))?;
    Ok(Response::new(204))
}

/// Returns the channel in the path of a request, or a 404.
fn channel(request: &Request) -> Result<&'static str, Response> {
    let wanted = request.param("channel");
    let known = CHANNELS.into_iter().find(|name| *name == wanted);
    known.ok_or_else(|| {
        Response::text(format!("the channels are {}\n", CHANNELS.join(", "))).with_status(404)
    })
}
