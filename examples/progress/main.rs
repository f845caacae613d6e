//! Progress: a request starts a long job and does not wait for it. A stream tells every reader how far the job is.
//!
//! Run it with `cargo run --example progress`, open <http://127.0.0.1:7733/> in two tabs and start the job in one of
//! them: both show the same bar. Reload a tab, or close both and come back: the bar is where the job is, because a stream
//! begins with the topic's newest event (`retained`). The two tabs share one connection through the crate's `client.js`,
//! and the page says which tab has it.
//!
//! The example works without a page, too. Type `curl -N http://127.0.0.1:7733/job`, and
//!
//! ```text
//! curl -X POST http://127.0.0.1:7733/job
//! ```
//!
//! in another terminal. The second command prints `started`, or `the job is running` while the job runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, io, thread};

use tiny_sse::{Event, Hub, PublishError, Response, Server};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

const STEPS: u32 = 120;

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let readers = hub.clone();
    let running = Arc::new(AtomicBool::new(false));
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| {
            include_str!("../notifications/main.rs")
        })
        .get("/client.js", |_request| Response::client_script())
        .get("/job", move |request| {
            readers.subscribe(request, "job").retained()
        })
        .post("/job", move |_request| start(&hub, &running));
    println!("progress at http://{}", server.addr());
    server.run()
}

/// Starts the job unless it is running. The job belongs to no connection: it goes on when all readers have left.
fn start(hub: &Hub, running: &Arc<AtomicBool>) -> Response {
    if running.swap(true, Ordering::SeqCst) {
        return Response::text("the job is running\n").with_status(409);
    }
    let (hub, running) = (hub.clone(), Arc::clone(running));
    thread::spawn(move || {
        if let Err(error) = work(&hub) {
            eprintln!("the job stopped: {error}");
        }
        running.store(false, Ordering::SeqCst);
    });
    Response::text("started\n").with_status(202)
}

/// Does something that takes long, and publishes after each step how far it is.
fn work(hub: &Hub) -> Result<(), PublishError> {
    for done in 0..=STEPS {
        let event = Event::data(format!(r#"{{"done":{done},"of":{STEPS}}}"#));
        hub.publish("job", event)?;
        thread::sleep(Duration::from_millis(if done % 7 == 0 { 500 } else { 100 }));
    }
    Ok(())
}
