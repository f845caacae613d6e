//! A live dashboard: real figures of the machine it runs on, every second, plotted in the browser.
//!
//! Run it with `cargo run --example dashboard` and open the printed address. Then type
//! `curl -N http://127.0.0.1:7733/figures` in another terminal: an event a second whose data is one JSON object, each
//! key of which `figures.rs` explains. Stop the server and start it again: the page says that it is waiting, comes back
//! by itself, and leaves a gap in its plots where it has no figures.

mod figures;

use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::{Event, History, Hub, HubConfig, Request, Response, Server, Start};

use figures::Sampler;

const PAGE: &str = include_str!("page.html");

/// What a page that has just been opened finds in its plots already.
const FIVE_MINUTES: usize = 300;

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or("7733".to_string());
    let history = History::events(FIVE_MINUTES);
    let hub = Hub::open(HubConfig {
        history,
        ..HubConfig::default()
    })?;
    let readers = hub.clone();
    thread::spawn(move || sample(&hub));
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/figures", move |request: &Request| {
            readers
                .subscribe(request, "figures")
                .start(Start::Earliest)
                .retry(Duration::from_secs(1))
        });
    println!("open http://{}/", server.addr());
    server.run()
}

/// Publishes the figures every second, each time from the clock, so that being late once does not add up.
fn sample(hub: &Hub) {
    let mut sampler = Sampler::new();
    let mut due = Instant::now() + Duration::from_secs(1);
    loop {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let late = due.elapsed();
        let figures = sampler.take(hub.stats().subscribers, late);
        if hub.publish("figures", Event::data(figures)).is_err() {
            return;
        }
        due += Duration::from_secs(1) * (1 + late.as_secs() as u32);
    }
}
