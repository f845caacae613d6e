//! Hub: a small server for other programs. Programs with the token publish, and any client subscribes.
//!
//! Run it with `cargo run --example hub`, and open <http://127.0.0.1:7733/>, a page that shows the hub's own figures once a
//! second. The server prints the token, unless `$HUB_TOKEN` sets one, as a line to paste into the terminal that publishes.
//! Subscribe to one or several topics, and publish in another terminal:
//!
//! ```text
//! curl -N 'http://127.0.0.1:7733/events?topic=doors&topic=lights'
//! curl -d 'The front door is open.' -H "Authorization: Bearer $HUB_TOKEN" http://127.0.0.1:7733/events/doors
//! ```
//!
//! The first command prints the text as an event. The second prints the id of the event, or a 401 without the token. Pages of
//! other sites may subscribe too, because the responses allow it (CORS). To serve other machines, bind `0.0.0.0` below, and
//! put a proxy with TLS in front: without TLS, others on the network can read the token.
//!
//! `curl http://127.0.0.1:7733/metrics` prints the figures of the server and of the hub in the text format of Prometheus.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use std::{env, fs, io, thread};

use tiny_sse::{Cors, Event, Hub, Request, Response, Server, Sse, Subscription, constant_time_eq};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let token = env::var("HUB_TOKEN").or_else(|_| secret())?;
    println!("HUB_TOKEN={token}");
    let hub = Hub::new();
    let readers = hub.clone();
    let watched = hub.clone();
    let measured = hub.clone();
    let server = Server::bind(format!("127.0.0.1:{port}"))?;
    let handle = server.handle();
    let server = server
        .middleware(Cors::any())
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../htmx/main.rs"))
        .get("/events", move |request| subscribe(&readers, request))
        .post("/events/{topic}", move |request| {
            publish(&hub, &token, request)
        })
        .get("/figures", move |_request| figures(&watched))
        .get("/metrics", move |_request| {
            format!("{}{}", handle.stats(), measured.stats())
        });
    println!("hub at http://{}", server.addr());
    Ok(server.run()?)
}

fn subscribe(hub: &Hub, request: &Request) -> Subscription {
    let topics: Vec<&str> = request.queries("topic").collect();
    hub.subscribe(request, topics)
}

/// Publishes the body of a request with the event name in its query, and returns the id of the event.
fn publish(hub: &Hub, token: &str, request: &Request) -> Result<Response, Response> {
    let authorized = request
        .bearer()
        .is_some_and(|sent| constant_time_eq(sent, token));
    if !authorized {
        let refusal = Response::text("a bearer token is needed\n").with_status(401);
        return Err(refusal.with_header("WWW-Authenticate", "Bearer"));
    }
    let mut event = Event::data(request.text()?);
    if let Some(name) = request.query("event") {
        event = event.event(name)?;
    }
    let id = hub.publish_wait(request.param("topic"), event)?;
    Ok(Response::text(format!("{id}\n")))
}

/// Sends the hub's figures once a second until the client has left.
fn figures(hub: &Hub) -> Sse {
    let hub = hub.clone();
    Sse::spawn(move |events: SyncSender<Event>| {
        while events.send(Event::data(measure(&hub))).is_ok() {
            thread::sleep(Duration::from_secs(1));
        }
    })
}

/// Returns the hub's figures, one to a line: a name and a number. A topic's line ends with its name.
fn measure(hub: &Hub) -> String {
    let stats = hub.stats();
    let mut text = format!("readers {}\npolls {}\n", stats.readers, stats.polls);
    text += &format!(
        "published {}\ndelivered {}\n",
        stats.published, stats.delivered
    );
    text += &format!(
        "kept {}\nbytes {}",
        stats.history_events, stats.history_bytes
    );
    let mut by_topic: BTreeMap<&str, usize> = BTreeMap::new();
    let all = hub.readers();
    for topic in all.iter().flat_map(|reader| reader.topics()) {
        *by_topic.entry(topic).or_default() += 1;
    }
    for (topic, readers) in by_topic {
        text += &format!("\ntopic {readers} {topic}");
    }
    text
}

/// Returns 128 random bits. std has no generator for secrets, so on a system without `/dev/urandom`, set `HUB_TOKEN`.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
