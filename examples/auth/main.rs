//! Authentication: a token, a cookie and a one-time ticket, and what a browser sees when it is refused.
//!
//! Run it with `cargo run --example auth`. It prints a token, new at each start, and behind that a line for each request,
//! without the queries in which tickets travel. With the token in place of `TOKEN`,
//!
//! ```text
//! curl -N -H 'Authorization: Bearer TOKEN' http://127.0.0.1:7733/events
//! ```
//!
//! gets `data: welcome`, and without it 401. An `EventSource` cannot set such a field, so a page has two other ways: a
//! cookie, which the browser sends by itself, or a ticket in the URL. What is in a URL ends up in logs and histories, so a
//! ticket is good for ten seconds and one request. Type the second of these lines twice: 401.
//!
//! ```text
//! curl -X POST -H 'Authorization: Bearer TOKEN' http://127.0.0.1:7733/ticket
//! curl -N 'http://127.0.0.1:7733/events?ticket=TICKET'
//! ```
//!
//! Then open <http://127.0.0.1:7733/>, which tries every way and shows what the browser tells of a refusal: next to
//! nothing. The last way asks the same server under its other name, as another site's page would. CORS allows it to the
//! page at 127.0.0.1, and not to the same page at <http://localhost:7733/>.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use tiny_sse::{
    Cookie, Cors, Event, Hub, Next, Request, Response, SameSite, Server, access_log,
    constant_time_eq,
};

/// The tickets that have not been used, and when each was issued.
static TICKETS: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let token = secret()?;
    println!("token {token}");
    let known = token.clone();
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        // From the outside in: who is refused is in the log too, and a preflight, which never has a key, is answered.
        .middleware(access_log(|access| println!("{access}")))
        .middleware(Cors::origins([format!("http://127.0.0.1:{port}")])?)
        .middleware(move |request: &Request, next: Next<'_>| {
            if has_key(request, &known) {
                return next.run(request);
            }
            let refusal = Response::text("no key that fits\n").with_status(401);
            refusal.header("WWW-Authenticate", "Bearer")
        })
        .get("/", |_request| Response::html(include_str!("page.html")))
        .post("/login", move |request| {
            if !constant_time_eq(request.text()?, &token) {
                return Ok(Response::text("not the token\n").with_status(403));
            }
            // No script can read it, and no page of another site can have it sent. For more than one user: `notifications`.
            let cookie = Cookie::new("token", &token).same_site(SameSite::Strict);
            Ok(Response::new(204).cookie(cookie))
        })
        .post("/ticket", move |_request| {
            let ticket = secret()?;
            let issued = Instant::now();
            TICKETS.lock().unwrap().insert(ticket.clone(), issued);
            Ok(ticket)
        })
        .get("/events", move |request| {
            hub.subscribe(request, "news")
                .first([Event::data("welcome")])
        });
    println!("auth at http://{}", server.addr());
    Ok(server.run()?)
}

/// Whether a request has a key that fits, or needs none.
fn has_key(request: &Request, token: &str) -> bool {
    match (request.path(), request.query("ticket")) {
        ("/" | "/login", _) => true,
        // Where a ticket is shown it has to be good, whatever else the browser sends along. Then it is gone.
        ("/events", Some(ticket)) => {
            let mut tickets = TICKETS.lock().unwrap();
            tickets.retain(|_, issued| issued.elapsed() < Duration::from_secs(10));
            tickets.remove(ticket).is_some()
        }
        _ => {
            let keys = [request.bearer(), request.cookie("token")];
            keys.into_iter()
                .flatten()
                .any(|key| constant_time_eq(key, token))
        }
    }
}

/// 128 bits that nobody can guess. std has no generator for secrets; a system without `/dev/urandom` has its own.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
