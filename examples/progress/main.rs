//! Progress: a request starts a long job and does not wait for it; whoever wants to know how far it is reads a stream.
//!
//! Run it with `cargo run --example progress`, open <http://127.0.0.1:7733/> in two tabs and start the job in one of
//! them: both show the same bar. Reload one, or close both and come back: the bar is where the job is, since a stream
//! begins with the last value (`retained`). What the two share besides is one connection, by the crate's `client.js`; the
//! page says which tab has it.
//!
//! Without a page, `curl -N http://127.0.0.1:7733/job` shows the same while
//!
//! ```text
//! curl -X POST http://127.0.0.1:7733/job
//! ```
//!
//! in another terminal says `started`, or `it runs already` for as long as it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use std::{env, io};

use tiny_sse::{Event, Hub, PublishError, Response, Server};

const STEPS: u32 = 120;

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let readers = hub.clone();
    let running = Arc::new(AtomicBool::new(false));
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/client.js", |_request| Response::client_script())
        .get("/job", move |request| {
            readers.subscribe(request, "job").retained()
        })
        .post("/job", move |_request| {
            if running.swap(true, Ordering::SeqCst) {
                return Response::text("it runs already\n").with_status(409);
            }
            // The job belongs to no connection: it goes on when everybody has left.
            let (hub, running) = (hub.clone(), Arc::clone(&running));
            thread::spawn(move || {
                if let Err(error) = work(&hub) {
                    eprintln!("nobody hears of the job any more: {error}");
                }
                running.store(false, Ordering::SeqCst);
            });
            Response::text("started\n").with_status(202)
        });
    println!("progress at http://{}", server.addr());
    server.run()
}

/// Does something that takes long, and says after each step how far it is.
fn work(hub: &Hub) -> Result<(), PublishError> {
    for done in 0..=STEPS {
        hub.publish(
            "job",
            Event::data(format!(r#"{{"done":{done},"of":{STEPS}}}"#)),
        )?;
        thread::sleep(Duration::from_millis(if done % 7 == 0 { 500 } else { 100 }));
    }
    Ok(())
}
