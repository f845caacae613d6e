//! Authentication: a token, a cookie and a one-time ticket, and what a refused browser tells its page.
//!
//! Run it with `cargo run --example auth`. It prints a new token at each start, and then a line for each request, without
//! the query, which may hold a ticket. With the token in place of `TOKEN`,
//!
//! ```text
//! curl -N -H 'Authorization: Bearer TOKEN' http://127.0.0.1:7733/events
//! ```
//!
//! gets `data: welcome`. Without the token it gets a 401. An `EventSource` cannot send this field, so a page has two other
//! ways: a cookie, which the browser sends by itself, or a ticket in the URL. URLs end up in logs and histories, so a ticket is
//! valid for ten seconds and one request. Type the second of these lines twice: the second time, the response is a 401.
//!
//! ```text
//! curl -X POST -H 'Authorization: Bearer TOKEN' http://127.0.0.1:7733/ticket
//! curl -N 'http://127.0.0.1:7733/events?ticket=TICKET'
//! ```
//!
//! Then open <http://127.0.0.1:7733/>. The page tries every way, and shows how little a browser tells of a refusal. The last
//! way asks the same server under its other name, as the page of another site would. CORS allows this to the page at
//! 127.0.0.1, and not to the same page at <http://localhost:7733/>.

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

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

/// The unused tickets, and when each was issued.
static TICKETS: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let token = secret()?;
    println!("token {token}");
    let key = token.clone();
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        // From the outside in: the log has refused requests too, and a preflight, which never has a key, gets its response.
        .middleware(access_log(|line| println!("{line}")))
        .middleware(Cors::origins([format!("http://127.0.0.1:{port}")])?)
        .middleware(move |request: &Request, next: Next<'_>| authenticate(&key, request, next))
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../fallback/main.rs"))
        .post("/login", move |request| log_in(&token, request))
        .post("/ticket", |_request| ticket())
        .get("/events", move |request| {
            let welcome = Event::data("welcome");
            hub.subscribe(request, "news").first([welcome])
        });
    println!("auth at http://{}", server.addr());
    Ok(server.run()?)
}

/// Passes on a request that is authenticated or needs no authentication.
fn authenticate(token: &str, request: &Request, next: Next<'_>) -> Response {
    let public = ["/", "/main.rs", "/next.rs", "/login"];
    let authenticated = match request.query("ticket") {
        _ if public.contains(&request.path()) => true,
        // A ticket has to be valid whatever else the request has.
        Some(ticket) => request.path() == "/events" && use_up(ticket),
        None => {
            let keys = [request.bearer(), request.cookie("token")];
            keys.into_iter()
                .flatten()
                .any(|key| constant_time_eq(key, token))
        }
    };
    if authenticated {
        return next.run(request);
    }
    let refusal = Response::text("a token, a cookie or a ticket is needed\n").with_status(401);
    refusal.with_header("WWW-Authenticate", "Bearer")
}

fn log_in(token: &str, request: &Request) -> Result<Response, Response> {
    if !constant_time_eq(request.text()?, token) {
        return Err(Response::text("not the token\n").with_status(403));
    }
    // No script can read the cookie, and no page of another site makes the browser send it.
    let cookie = Cookie::new("token", token).same_site(SameSite::Strict);
    Ok(Response::new(204).with_cookie(cookie))
}

fn ticket() -> Result<String, Response> {
    let ticket = secret()?;
    let issued = Instant::now();
    TICKETS.lock().unwrap().insert(ticket.clone(), issued);
    Ok(ticket)
}

/// Removes a ticket, and returns whether it was valid.
fn use_up(ticket: &str) -> bool {
    let mut tickets = TICKETS.lock().unwrap();
    tickets.retain(|_, issued| issued.elapsed() < Duration::from_secs(10));
    tickets.remove(ticket).is_some()
}

/// Returns 128 random bits. std has no generator for secrets, so a system without `/dev/urandom` needs another one.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
