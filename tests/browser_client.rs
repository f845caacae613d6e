//! The crate's own client for browsers in a real one. Run it with `cargo test --test browser_client -- --ignored`.
//!
//! The checks are in `browser/client.js`; here is what they are served.

#[path = "support/browser.rs"]
mod browser;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use browser::{Browser, Reports, findings, proxy, script, wait_for_a_try_in_vain};
use tiny_sse::{Config, Event, Hub, KeepAlive, Request, Response, Server};

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
    // It passes everything on but event streams, which it holds back as some virus scanners do.
    let proxy = proxy(move |head| (!head.contains("text/event-stream")).then_some(address));
    let browser = Browser::open(&format!("http://{proxy}/mute"));
    assert_eq!(findings.all_ok(&browser).len(), 1);
}

/// What outlives a restart of the server.
#[derive(Clone, Default)]
struct Stage {
    hub: Hub,
    visits: Arc<Mutex<HashMap<String, usize>>>,
}

impl Stage {
    fn visit(&self, request: &Request) {
        if request.method() == tiny_sse::Method::Get {
            let mut visits = self.visits.lock().unwrap();
            *visits.entry(request.param("name").to_string()).or_default() += 1;
        }
    }
}

/// Starts the server of this generation. Asked to restart, it gives way to the next one on the same port.
fn serve(address: SocketAddr, generation: usize, reports: Reports, stage: Stage) -> SocketAddr {
    let config = Config {
        reconnect_spread: Duration::from_millis(20),
        ..Config::default()
    };
    let server = Server::bind(address).unwrap().config(config);
    let address = server.addr();

    let (shutdown, next) = (server.handle(), (reports.clone(), stage.clone()));
    let restarting = AtomicBool::new(false);
    let restart = move |_request: &Request| {
        // A browser sends a request again when its answer was cut off.
        if !restarting.swap(true, Ordering::SeqCst) {
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

    let page = |checks: &str| {
        let page = "<!doctype html><meta charset=utf-8><title>client.js</title><body data-checks=CHECKS>\
             <script type=module src=/checks.js></script>";
        Response::html(page.replace("CHECKS", checks))
    };
    let [events, silent, beats, status, visits] = [(); 5].map(|()| stage.clone());
    let [publishing, counting, polls, ending, readers, mine] = [(); 6].map(|()| stage.hub.clone());
    reports
        .serve(server)
        .get("/client", move |_request| page("client"))
        .get("/mute", move |_request| page("mute"))
        .get("/checks.js", |_request| {
            script(include_str!("browser/client.js"))
        })
        .get("/tab", |_request| {
            Response::html(include_str!("browser/client.html"))
        })
        .get("/client.js", |_request| Response::client_script())
        .get("/events/{name}", move |request| {
            events.visit(request);
            events.hub.subscribe(request, request.param("name"))
        })
        // The same address for all users: whose events they are is in the cookie alone.
        .get("/mine", move |request| {
            let user = request.cookie("user").unwrap_or("nobody");
            mine.subscribe(request, user)
        })
        .get("/silent/{name}", move |request| {
            silent.visit(request);
            let never = KeepAlive::every(Duration::from_secs(3600));
            silent
                .hub
                .subscribe(request, request.param("name"))
                .keep_alive(never)
        })
        .get("/beats/{name}", move |request| {
            beats.visit(request);
            let often = KeepAlive::every(Duration::from_millis(100));
            beats
                .hub
                .subscribe(request, request.param("name"))
                .keep_alive(often)
        })
        .get("/status/{name}", move |request| {
            status.visit(request);
            Response::new(request.param("name").parse().unwrap())
        })
        .get("/visits/{name}", move |request| {
            let visits = visits.visits.lock().unwrap();
            visits.get(request.param("name")).unwrap_or(&0).to_string()
        })
        .get("/readers/{name}", move |request| {
            let name = request.param("name");
            let readers = readers.readers();
            let of_topic = readers
                .iter()
                .filter(|it| it.topics().any(|topic| topic == name));
            of_topic.count().to_string()
        })
        .get("/polls", move |_request| polls.stats().polls.to_string())
        .get("/generation", move |_request| generation.to_string())
        .post("/publish/{name}", move |request| {
            let text = String::from_utf8_lossy(request.body());
            let name = request.query("event").unwrap_or("message");
            let event = Event::data(text).event(name).unwrap();
            publishing.publish(request.param("name"), event).unwrap();
            Response::new(204)
        })
        .post("/numbers/{name}", move |request| {
            let (hub, name) = (counting.clone(), request.param("name").to_string());
            let n: u32 = request.query("n").unwrap().parse().unwrap();
            thread::spawn(move || {
                for number in 1..=n {
                    // Another topic moves the hub's ids on.
                    hub.publish("noise", Event::data("")).unwrap();
                    hub.publish(&name, Event::data(number.to_string())).unwrap();
                    thread::sleep(Duration::from_millis(4));
                }
            });
            Response::new(202)
        })
        .post("/end/{name}", move |request| {
            let text = String::from_utf8_lossy(request.body());
            ending
                .finish(request.param("name"), Event::data(text))
                .unwrap();
            Response::new(204)
        })
        .post("/restart", restart)
        .spawn()
        .unwrap()
        .addr()
}
