//! Hub: a small server that stands on its own. Programs with the token publish to it, anybody subscribes, from anywhere.
//!
//! Run it with `cargo run --example hub`, and open <http://127.0.0.1:7733/>, a page that shows the hub's own figures, once
//! a second. The server prints the token, unless `$HUB_TOKEN` sets one, as a line to paste into the terminal that
//! publishes. Subscribe to one topic or several, and publish in another terminal:
//!
//! ```text
//! curl -N 'http://127.0.0.1:7733/events?topic=doors&topic=lights'
//! curl -d 'The front door is open.' -H "Authorization: Bearer $HUB_TOKEN" http://127.0.0.1:7733/events/doors
//! ```
//!
//! The first shows the text as an event; the second gets its id as the answer, and 401 without the token. Pages of other
//! sites may read, too, since the answers say so (CORS). For other machines to come, bind `0.0.0.0` below, and put a
//! proxy with TLS in front, as a token in plain sight is none.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use std::{env, fs, io, thread};

use tiny_sse::{Cors, Event, Hub, Request, Response, Server, Sse, constant_time_eq};

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let token = env::var("HUB_TOKEN").or_else(|_| secret())?;
    println!("HUB_TOKEN={token}");

    let hub = Hub::new();
    let [readers, figures] = [(); 2].map(|()| hub.clone());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .middleware(Cors::any())
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/events", move |request| {
            let topics: Vec<&str> = request.queries("topic").collect();
            readers.subscribe(request, topics)
        })
        .post("/events/{topic}", move |request| {
            if !request
                .bearer()
                .is_some_and(|sent| constant_time_eq(sent, &token))
            {
                let refused = Response::text("a bearer token is needed\n").with_status(401);
                return Err(refused.header("WWW-Authenticate", "Bearer"));
            }
            publish(&hub, request)
        })
        .get("/figures", move |_request| {
            let hub = figures.clone();
            Sse::spawn(move |events| tell(&hub, &events))
        });
    println!("hub at http://{}", server.addr());
    Ok(server.run()?)
}

/// Publishes a request's body, under the name that the query may give to the event, and answers with its id.
fn publish(hub: &Hub, request: &Request) -> Result<Response, Response> {
    let mut event = Event::data(request.text()?);
    if let Some(name) = request.query("event") {
        event = event.event(name)?;
    }
    let id = hub.publish_wait(request.param("topic"), event)?;
    Ok(Response::text(format!("{id}\n")))
}

/// Sends the hub's figures once a second, one to a line, for as long as somebody looks.
fn tell(hub: &Hub, events: &SyncSender<Event>) {
    loop {
        let stats = hub.stats();
        let (readers, polls) = (stats.subscribers, stats.polls);
        let (published, delivered) = (stats.published, stats.delivered);
        let (kept, bytes) = (stats.history_events, stats.history_bytes);
        let mut text = format!("readers {readers}\npolls {polls}\n");
        text += &format!("published {published}\ndelivered {delivered}\n");
        text += &format!("kept {kept}\nbytes {bytes}");
        let mut by_topic: BTreeMap<&str, usize> = BTreeMap::new();
        let all = hub.readers();
        for topic in all.iter().flat_map(|reader| reader.topics()) {
            *by_topic.entry(topic).or_default() += 1;
        }
        for (topic, readers) in by_topic {
            text += &format!("\ntopic {readers} {topic}");
        }
        if events.send(Event::data(text)).is_err() {
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// 128 bits that nobody can guess. std has no generator for secrets; where there is no `/dev/urandom`, set `HUB_TOKEN`.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
