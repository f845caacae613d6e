//! Authentication: a token, a cookie and a one-time ticket, and what a browser sees when it is refused.
//!
//! Run it with `cargo run --example auth`. It prints a token, new at each start, and behind that a line for each request,
//! without the queries in which tickets travel. With the token in place of `TOKEN`,
//!
//! ```text
//! curl -N -H 'Authorization: Bearer TOKEN' http://127.0.0.1:60000/events
//! ```
//!
//! gets an event a second, and without it 401. An `EventSource` cannot set such a field, so a page has two other ways: a
//! cookie, which the browser sends by itself, or a ticket in the URL. What is in a URL ends up in logs and histories, so a
//! ticket is good for ten seconds and one request:
//!
//! ```text
//! curl -X POST -H 'Authorization: Bearer TOKEN' http://127.0.0.1:60000/ticket
//! curl -N 'http://127.0.0.1:60000/events?ticket=TICKET'
//! ```
//!
//! Type the second line twice: 401. Then open <http://127.0.0.1:60000/>, which tries every way and shows what the browser
//! tells of a refusal: next to nothing. The same page at <http://localhost:60000/> is another site's, which may read its own
//! server but not the one at 127.0.0.1. A server that is not only for this machine also needs TLS, from a proxy, and
//! something against those who try out tokens.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, thread};

use tiny_sse::{Cors, Event, Hub, InvalidHeader, Next, Request, Response, Server};
use tiny_sse::{access_log, allow_hosts, constant_time_eq};

/// How long a ticket is good, if nobody uses it.
const TICKET_LIFE: Duration = Duration::from_secs(10);

/// What opens this server.
struct Keys {
    token: String,
    sessions: Mutex<Vec<String>>,
    tickets: Mutex<Vec<(String, Instant)>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("60000".to_string());
    let keys = Arc::new(Keys {
        token: secret()?,
        sessions: Mutex::default(),
        tickets: Mutex::default(),
    });
    println!("token {}", keys.token);
    let [gate, login, tickets] = [(); 3].map(|()| Arc::clone(&keys));
    let hub = Hub::new();
    let clock = hub.clone();
    thread::spawn(move || {
        let start = Instant::now();
        let up = || Event::data(format!("up {} s", start.elapsed().as_secs()));
        while clock.publish("clock", up()).is_ok() {
            thread::sleep(Duration::from_secs(1));
        }
    });
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        // From the outside in: who is refused is in the log too, and a preflight, which never has a key, is answered.
        .middleware(access_log(|access| println!("{access}")))
        .middleware(allow_hosts(&["127.0.0.1", "localhost"])?)
        .middleware(Cors::origins(&[&format!("http://127.0.0.1:{port}")])?.into_middleware())
        .middleware(move |request, next| gate.admit(request, next))
        .get("/", |_request| Response::html(include_str!("page.html")))
        .post("/login", move |request| login.log_in(request))
        .post("/ticket", move |_request| {
            let ticket = secret()?;
            let mut tickets = tickets.tickets.lock().unwrap();
            tickets.push((ticket.clone(), Instant::now()));
            io::Result::Ok(Response::text(ticket))
        })
        .get("/events", move |request| hub.subscribe(request, "clock"));
    println!("auth at http://{}", server.local_addr());
    Ok(server.run()?)
}

impl Keys {
    /// The middleware: lets those through who have a key, and everybody to where keys are made.
    fn admit(&self, request: &Request, next: Next<'_>) -> Result<Response, InvalidHeader> {
        let field = request.header("authorization").unwrap_or_default();
        let bearer = field.strip_prefix("Bearer ").unwrap_or_default();
        let session = request.cookie("session").unwrap_or_default();
        let admitted = match (request.path(), request.query("ticket")) {
            ("/" | "/login", _) => true,
            // Where a ticket is shown it has to be good, whatever else the browser sends along.
            ("/events", Some(ticket)) => self.take(ticket),
            _ => constant_time_eq(bearer, &self.token) || self.has_session(session),
        };
        if admitted {
            return Ok(next.run(request));
        }
        let refusal = Response::text("no key that fits\n").with_status(401);
        refusal.header("WWW-Authenticate", "Bearer")
    }

    fn has_session(&self, session: &str) -> bool {
        let sessions = self.sessions.lock().unwrap();
        sessions
            .iter()
            .any(|known| constant_time_eq(known, session))
    }

    /// A ticket is gone as soon as it has been shown.
    fn take(&self, ticket: &str) -> bool {
        let mut tickets = self.tickets.lock().unwrap();
        tickets.retain(|(_, made)| made.elapsed() < TICKET_LIFE);
        let before = tickets.len();
        tickets.retain(|(known, _)| !constant_time_eq(known, ticket));
        tickets.len() < before
    }

    /// The token, once, for a cookie that no script can read and no other site can have sent.
    fn log_in(&self, request: &Request) -> Result<Response, Box<dyn Error>> {
        if !constant_time_eq(request.body(), &self.token) {
            return Ok(Response::text("not the token\n").with_status(403));
        }
        let session = secret()?;
        let cookie = format!("session={session}; HttpOnly; SameSite=Strict; Path=/");
        self.sessions.lock().unwrap().push(session);
        Ok(Response::new(204).header("Set-Cookie", cookie)?)
    }
}

/// 128 bits that nobody can guess. std has no generator for secrets; a system without `/dev/urandom` has its own.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
