//! htmx: a list that grows in all open pages, by attributes alone: htmx swaps in the HTML that events bring.
//!
//! Run it with `cargo run --example htmx` and open <http://127.0.0.1:7733/> twice. Add a note in one page: both pages show it.
//! Take one page offline, add more notes, and let it reconnect: htmx sends its last event id, and the list has each note once.
//!
//! The page needs the two scripts of htmx 4 (`htmx.min.js` and `hx-sse.min.js`), which this server reads from where npm puts
//! them: `npm install --prefix tests/clients`. Without them, `curl -N http://127.0.0.1:7733/notes` shows the events.
//!
//! htmx swaps in the data of an event without a name. An event with a name becomes an event of the page, here `gap`, at which
//! the page reloads, and `closed`, which `hx-sse:close` names. `closed` is the last event of the topic, and a page that comes
//! later gets it too. The 204 by which a hub stops an `EventSource` would not stop htmx.

use std::path::Path;
use std::{env, fs, io};

use tiny_sse::{Event, Hub, Request, Response, Server};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let (readers, closing) = (hub.clone(), hub.clone());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../datastar/main.rs"))
        .get("/htmx.js", |_request| script("htmx.min.js"))
        .get("/hx-sse.js", |_request| script("ext/hx-sse.min.js"))
        .get("/notes", move |request| {
            readers.subscribe(request, "notes").earliest()
        })
        .post("/notes", move |request| add(&hub, request))
        .post("/close", move |_request| {
            closing.finish("notes", Event::data("no more notes").event("closed")?)?;
            Ok::<_, Response>(Response::new(204))
        });
    println!("htmx at http://{}", server.addr());
    server.run()
}

/// Publishes a note as an item of the list.
fn add(hub: &Hub, request: &Request) -> Result<Response, Response> {
    let note = request.form("note").unwrap_or_default();
    hub.publish("notes", Event::data(format!("<li>{}</li>", escape(&note))))?;
    Ok(Response::new(204))
}

/// Writes a text so that HTML shows it as it is. The server cannot do this by itself: to it, data is any text.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// Returns a script of htmx, if npm has brought it.
fn script(name: &str) -> Response {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_modules/htmx.org/dist");
    match fs::read(folder.join(name)) {
        Ok(script) => Response::bytes("text/javascript", script),
        Err(_) => Response::text("type: npm install --prefix tests/clients\n").with_status(404),
    }
}
