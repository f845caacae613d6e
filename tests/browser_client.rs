//! The crate's own client for browsers in a real one. Run it with `cargo test --test browser_client -- --ignored`.
//!
//! The checks are in `browser/client.js`. This file has the server that they need.

#[path = "support/browser.rs"]
mod browser;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use browser::{Browser, Reports, findings, proxy, script, wait_for_a_try_in_vain};
use tiny_sse::{Config, Event, Hub, Method, Request, Response, Server, Subscription};

#[test]
#[ignore = "needs Chromium"]
fn a_page_keeps_its_stream_through_everything() {
    let (reports, findings) = findings();
    let address = serve(
        (Ipv4Addr::LOCALHOST, 0).into(),
        1,
        reports,
        Stage::default(),
    );
    let browser = Browser::open(&format!("http://{address}/client"));
    assert_eq!(findings.all_ok(&browser).len(), 23);
}

#[test]
#[ignore = "needs Chromium"]
fn a_page_behind_a_proxy_that_collects_streams_polls() {
    let (reports, findings) = findings();
    let address = serve(
        (Ipv4Addr::LOCALHOST, 0).into(),
        1,
        reports,
        Stage::default(),
    );
    // It passes on everything except event streams, which it holds back as some virus scanners do.
    let proxy = proxy(move |head| (!head.contains("text/event-stream")).then_some(address));
    let browser = Browser::open(&format!("http://{proxy}/mute"));
    assert_eq!(findings.all_ok(&browser).len(), 1);
}

/// The state that outlives a restart of the server.
#[derive(Clone, Default)]
struct Stage {
    hub: Hub,
    visits: Arc<Mutex<HashMap<String, usize>>>,
}

/// Returns a handler with a clone of the stage.
fn on<R>(
    stage: &Stage,
    handler: fn(&Stage, &Request) -> R,
) -> impl Fn(&Request) -> R + Send + Sync + use<R> {
    let stage = stage.clone();
    move |request| handler(&stage, request)
}

/// Starts the server of this generation. When it is asked to restart, it gives way to the next one on the same port.
fn serve(address: SocketAddr, generation: usize, reports: Reports, stage: Stage) -> SocketAddr {
    let config = Config {
        reconnect_spread: Duration::from_millis(20),
        ..Config::default()
    };
    let server = Server::bind(address).unwrap().config(config);
    let address = server.addr();
    let (shutdown, next) = (server.handle(), (reports.clone(), stage.clone()));
    let restarting = AtomicBool::new(false);
    let restart = move |request: &Request| {
        // A browser sends a request again when its response was cut off, perhaps to the next server.
        let is_meant = request.query("generation") == Some(&generation.to_string());
        if is_meant && !restarting.swap(true, Ordering::SeqCst) {
            let (shutdown, (reports, stage)) = (shutdown.clone(), next.clone());
            thread::spawn(move || {
                let deadline = Duration::from_secs(if generation == 1 { 10 } else { 0 });
                shutdown.shutdown(deadline).unwrap();
                wait_for_a_try_in_vain(address, "/events/away");
                serve(address, generation + 1, reports, stage);
            });
        }
        Response::new(202)
    };
    let tab = |_request: &Request| Response::html(include_str!("browser/client.html"));
    let checks = |_request: &Request| script(include_str!("browser/client.js"));
    reports
        .serve(server)
        .get("/client", |_request| page("client"))
        .get("/mute", |_request| page("mute"))
        .get("/checks.js", checks)
        .get("/tab", tab)
        .get("/client.js", |_request| Response::client_script())
        .get("/events/{name}", on(&stage, Stage::events))
        .get("/mine", on(&stage, Stage::mine))
        .get("/silent/{name}", on(&stage, Stage::silent))
        .get("/beats/{name}", on(&stage, Stage::beats))
        .get("/status/{name}", on(&stage, Stage::status))
        .get("/visits/{name}", on(&stage, Stage::visits))
        .get("/readers/{name}", on(&stage, Stage::readers))
        .get("/polls", on(&stage, Stage::polls))
        .get("/generation", move |_request| generation.to_string())
        .post("/publish/{name}", on(&stage, Stage::publish))
        .post("/numbers/{name}", on(&stage, Stage::numbers))
        .post("/end/{name}", on(&stage, Stage::end))
        .post("/restart", restart)
        .spawn()
        .unwrap()
        .addr()
}

/// The page that runs these checks.
fn page(checks: &str) -> Response {
    let page = "<!doctype html><meta charset=utf-8><title>client.js</title><body data-checks=CHECKS>\
         <script type=module src=/checks.js></script>";
    Response::html(page.replace("CHECKS", checks))
}

impl Stage {
    fn events(&self, request: &Request) -> Subscription {
        self.visit(request);
        self.hub.subscribe(request, request.param("name"))
    }

    /// The same URL for all users: only the cookie says whose events they are.
    fn mine(&self, request: &Request) -> Subscription {
        let user = request.cookie("user").unwrap_or("nobody");
        self.hub.subscribe(request, user)
    }

    fn silent(&self, request: &Request) -> Subscription {
        self.events(request).heartbeat(Duration::from_secs(3600))
    }

    fn beats(&self, request: &Request) -> Subscription {
        self.events(request).heartbeat(Duration::from_millis(100))
    }

    fn status(&self, request: &Request) -> Response {
        self.visit(request);
        Response::new(request.param("name").parse().unwrap())
    }

    fn visit(&self, request: &Request) {
        if request.method() == Method::Get {
            let mut visits = self.visits.lock().unwrap();
            *visits.entry(request.param("name").to_string()).or_default() += 1;
        }
    }

    fn visits(&self, request: &Request) -> String {
        let visits = self.visits.lock().unwrap();
        visits.get(request.param("name")).unwrap_or(&0).to_string()
    }

    fn readers(&self, request: &Request) -> String {
        let name = request.param("name");
        let readers = self.hub.readers();
        let of_topic = readers
            .iter()
            .filter(|reader| reader.topics().any(|topic| topic == name));
        of_topic.count().to_string()
    }

    fn polls(&self, _request: &Request) -> String {
        self.hub.stats().polls.to_string()
    }

    fn publish(&self, request: &Request) -> Response {
        let text = String::from_utf8_lossy(request.body());
        let name = request.query("event").unwrap_or("message");
        let event = Event::data(text).event(name).unwrap();
        self.hub.publish(request.param("name"), event).unwrap();
        Response::new(204)
    }

    /// Publishes the numbers up to `n`, one after another.
    fn numbers(&self, request: &Request) -> Response {
        let (hub, name) = (self.hub.clone(), request.param("name").to_string());
        let n: u32 = request.query("n").unwrap().parse().unwrap();
        thread::spawn(move || {
            for number in 1..=n {
                // An event of another topic, so that the ids of this one have holes.
                hub.publish("noise", Event::data("")).unwrap();
                hub.publish(&name, Event::data(number.to_string())).unwrap();
                thread::sleep(Duration::from_millis(4));
            }
        });
        Response::new(202)
    }

    fn end(&self, request: &Request) -> Response {
        let last = Event::data(String::from_utf8_lossy(request.body()));
        self.hub.finish(request.param("name"), last).unwrap();
        Response::new(204)
    }
}
