//! What the `EventSource` of a real browser gets from a hub when it reconnects. Run it with
//! `cargo test --test browser_hub -- --ignored`.
//!
//! The checks are in `browser/hub.js`. This file has the server that they need.

#[path = "support/browser.rs"]
mod browser;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use browser::{Browser, findings, script};
use tiny_sse::{Config, Event, Hub, HubConfig, Response, Server};

#[test]
#[ignore = "needs Chromium"]
fn a_browser_comes_back_to_where_it_was() {
    let (reports, findings) = findings();
    let stage = Arc::new(Stage::new());
    let hub = stage.long.clone();
    let short = stage.short.clone();
    let retained = stage.short.clone();
    let config = Config {
        reconnect_spread: Duration::from_millis(20),
        ..Config::default()
    };
    let server = Server::bind("127.0.0.1:0").unwrap().config(config);
    let server = reports
        .serve(server)
        .get("/", |_request| {
            Response::html(include_str!("browser/hub.html"))
        })
        .get("/hub.js", |_request| script(include_str!("browser/hub.js")))
        .get("/events/{topic}", move |request| {
            hub.subscribe(request, request.param("topic"))
        })
        .get("/short/{topic}", move |request| {
            short.subscribe(request, request.param("topic"))
        })
        .get("/retained/{topic}", move |request| {
            retained
                .subscribe(request, request.param("topic"))
                .retained()
        })
        .post("/do/{what}", move |request| {
            stage.act(request.param("what"))
        })
        .spawn()
        .unwrap();
    let browser = Browser::open(&format!("http://{}/", server.addr()));
    assert_eq!(findings.all_ok(&browser).len(), 6);
}

/// What the page asks the server to do.
struct Stage {
    /// Keeps all events that are published while the browser is away.
    long: Hub,
    /// Keeps three events.
    short: Hub,
    news: AtomicUsize,
    stopped: Arc<AtomicBool>,
}

impl Stage {
    fn new() -> Stage {
        let hub = |events| {
            Hub::open(HubConfig {
                history_events: events,
                ..HubConfig::default()
            })
            .unwrap()
        };
        Stage {
            long: hub(1_000_000),
            short: hub(3),
            news: AtomicUsize::new(0),
            stopped: Arc::default(),
        }
    }

    fn act(&self, what: &str) -> Response {
        let reads = |topic: &'static str| {
            move |reader: &tiny_sse::Reader| reader.topics().any(|name| name == topic)
        };
        match what {
            "count" => {
                let (hub, stopped) = (self.long.clone(), Arc::clone(&self.stopped));
                thread::spawn(move || {
                    for number in 0.. {
                        if stopped.load(Ordering::SeqCst) {
                            return hub.publish("numbers", Event::data("stopped")).unwrap();
                        }
                        hub.publish("numbers", Event::data(number.to_string()))
                            .unwrap();
                        thread::sleep(Duration::from_millis(1)); // A steady stream, not a flood.
                    }
                });
            }
            "close" => assert_eq!(self.long.close(reads("numbers")), 1),
            "stop" => self.stopped.store(true, Ordering::SeqCst),
            "break-silence" => {
                assert_eq!(self.long.close(reads("quiet")), 1);
                self.long
                    .publish_wait("quiet", Event::data("the first"))
                    .unwrap();
            }
            "news" => {
                let number = self.news.fetch_add(1, Ordering::SeqCst) + 1;
                self.short
                    .publish_wait("news", Event::data(format!("news {number}")))
                    .unwrap();
            }
            "end" => drop(self.long.finish("exam", Event::data("time is up")).unwrap()),
            _ => return Response::new(404),
        }
        Response::new(204)
    }
}
