//! Dashboard: the figures of the machine that it runs on, every second, plotted in the browser.
//!
//! Run it with `cargo run --example dashboard` and open <http://127.0.0.1:7733/>. Then type
//! `curl -N http://127.0.0.1:7733/figures` in another terminal. You see an event a second. Its data is a JSON object, whose
//! keys `figures.rs` explains. Stop the server and start it again: the page shows that it waits, reconnects by itself, and
//! leaves a gap in its plots where it has no figures.

mod figures;

use std::time::{Duration, Instant};
use std::{env, io, thread};

use tiny_sse::{Event, Hub, HubConfig, Request, Response, Server};

use figures::Sampler;

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

/// How many events the hub keeps: those of five minutes, which fill the plots of a new page.
const FIVE_MINUTES: usize = 300;

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::open(HubConfig {
        history_events: FIVE_MINUTES,
        ..HubConfig::default()
    })?;
    let readers = hub.clone();
    thread::spawn(move || sample(&hub));
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../hub/main.rs"))
        .get("/figures", move |request: &Request| {
            let stream = readers.subscribe(request, "figures");
            stream.earliest().retry(Duration::from_secs(1))
        });
    println!("dashboard at http://{}", server.addr());
    server.run()
}

/// Publishes the figures every second. Each due time follows from the one before, so delays do not add up.
fn sample(hub: &Hub) {
    let mut sampler = Sampler::new();
    let mut due = Instant::now() + Duration::from_secs(1);
    loop {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let late = due.elapsed();
        let figures = sampler.take(hub.stats().readers, late);
        if hub.publish("figures", Event::data(figures)).is_err() {
            return;
        }
        due += Duration::from_secs(1) * (1 + late.as_secs() as u32);
    }
}
