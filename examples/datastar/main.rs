//! Datastar: a list that is the same in all open pages, by events that carry HTML and say where it belongs.
//!
//! Run it with `cargo run --example datastar -- 7733 datastar.js`, where the last argument is the script of Datastar 1, and
//! open <http://127.0.0.1:7733/> twice. Add a note in one page: both pages show it. Without the script, `curl -N
//! http://127.0.0.1:7733/notes` shows the events.
//!
//! Each event holds the whole list, which Datastar merges into the page. So only the newest event counts: the hub keeps one,
//! a new page begins with it, and a page that was away needs no other. Datastar ignores all events whose name does not begin
//! with `datastar`. It does not matter that `gap` is among these. `retry: 'always'` in the page makes Datastar come back after
//! an end of the stream too, and not only after an error; after a 204, it does not come back.

use std::sync::{Mutex, PoisonError};
use std::{env, fs, io};

use tiny_sse::{Event, Hub, HubConfig, InvalidField, Request, Response, Server};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let port = arguments.next().unwrap_or("7733".to_string());
    let script = arguments.next().map(fs::read).transpose()?;
    let hub = Hub::open(HubConfig {
        history_events: 1,
        ..HubConfig::default()
    })?;
    let readers = hub.clone();
    // Pages that were open before the server was restarted begin with an empty list.
    publish(&hub, "").map_err(|_| io::ErrorKind::Other)?;
    let items = Mutex::new(String::new());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../clock.rs"))
        .get("/datastar.js", move |_request| match &script {
            Some(script) => Response::bytes("text/javascript", script.clone()),
            None => Response::text("start the example with the script's path\n").with_status(404),
        })
        .get("/notes", move |request| {
            readers.subscribe(request, "notes").retained()
        })
        .post("/notes", move |request| add(&hub, &items, request));
    println!("datastar at http://{}", server.addr());
    server.run()
}

/// Adds a note to the list, and publishes the list. The lock keeps the order: the newest event holds the longest list.
fn add(hub: &Hub, items: &Mutex<String>, request: &Request) -> Result<Response, Response> {
    let note = escape(&request.form("note").unwrap_or_default());
    let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
    items.push_str(&format!("\n<li>{note}</li>"));
    publish(hub, &items)?;
    Ok(Response::new(204))
}

/// Publishes a list, and waits until it is the one that a new page begins with.
fn publish(hub: &Hub, items: &str) -> Result<(), Response> {
    let list = patch_elements(&format!(r#"<ul id="notes">{items}</ul>"#))?;
    hub.publish_wait("notes", list)?;
    Ok(())
}

/// Returns the event by which Datastar puts elements in the place of those with the same `id`.
fn patch_elements(html: &str) -> Result<Event, InvalidField> {
    let lines: Vec<String> = html
        .lines()
        .map(|line| format!("elements {line}"))
        .collect();
    Event::data(lines.join("\n")).event("datastar-patch-elements")
}

/// Writes a text so that HTML shows it as it is, in one line.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace('>', "&gt;").replace('"', "&quot;");
    text.replace(['\r', '\n'], " ")
}
