//! Notifications: each user has a topic, and can read no other topic, neither live nor after a reconnect.
//!
//! Run it with `cargo run --example notifications`, open <http://127.0.0.1:7733/>, log in as Ann and type
//!
//! ```text
//! curl -d 'Your parcel is here.' http://127.0.0.1:7733/notify/ann
//! ```
//!
//! The badge counts the unread notifications, also in a second tab and after a reload. Notifications to `ben` are kept for Ben,
//! who can log in at the same time in a private window. The example works without a page, too:
//!
//! ```text
//! curl -c ann.txt -d ann http://127.0.0.1:7733/login
//! curl -N -b ann.txt http://127.0.0.1:7733/events/ann
//! ```
//!
//! replays Ann's notifications, each a line with its time in milliseconds and then its text, and waits for more. Meanwhile
//! `curl http://127.0.0.1:7733/online` lists her among those who are online. With the same cookie, `/events/ben` is a 403. A
//! real server needs more than a name to log in, and a key to notify: the example `auth` has both.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;
use std::{env, fs, io};

use tiny_sse::{Cookie, Event, Hub, Request, Response, SameSite, Server, Subscription};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

/// The user of each session. The cookie holds the key. A real server has a database for this.
static SESSIONS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// How many streams each user has open.
static ONLINE: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Counts one stream of its user for as long as this value lives.
struct Online(String);

impl Online {
    fn new(user: &str) -> Online {
        *ONLINE.lock().unwrap().entry(user.to_string()).or_default() += 1;
        Online(user.to_string())
    }
}

impl Drop for Online {
    fn drop(&mut self) {
        let mut online = ONLINE.lock().unwrap();
        if let Some(streams) = online.get_mut(&self.0) {
            *streams -= 1;
        }
        online.retain(|_, streams| *streams > 0);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let readers = hub.clone();
    let sessions = hub.clone();
    let marks = hub.clone();
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../auth/main.rs"))
        .get("/client.js", |_request| Response::client_script())
        .get("/online", |_request| online())
        .post("/login", log_in)
        .post("/logout", move |request| log_out(&sessions, request))
        .get("/events/{user}", move |request| events(&readers, request))
        .post("/read/{user}", move |request| mark_read(&marks, request))
        .post("/notify/{user}", move |request| notify(&hub, request));
    println!("notifications at http://{}", server.addr());
    Ok(server.run()?)
}

fn log_in(request: &Request) -> Result<Response, Response> {
    let user = request.text()?.to_string();
    let session = secret()?;
    let cookie = Cookie::new("session", &session).same_site(SameSite::Strict);
    SESSIONS.lock().unwrap().insert(session, user);
    Ok(Response::new(204).with_cookie(cookie))
}

/// Ends a session, and the streams that were opened with it. None of them can reconnect.
fn log_out(hub: &Hub, request: &Request) -> Response {
    let session = request.cookie("session").unwrap_or_default();
    SESSIONS.lock().unwrap().remove(session);
    hub.close(|reader| reader.label == session);
    Response::new(204)
}

fn events(hub: &Hub, request: &Request) -> Result<Subscription, Response> {
    let session = session(request)?;
    let user = request.param("user");
    let stream = hub.subscribe(request, user).earliest();
    // The hub drops the guard when the stream has ended, however it ends.
    Ok(stream.label(session).guard(Online::new(user)))
}

/// Returns the users who are online, each on a line.
fn online() -> String {
    ONLINE
        .lock()
        .unwrap()
        .keys()
        .map(|user| format!("{user}\n"))
        .collect()
}

/// Publishes that the user has read all notifications. Since this is an event, it reaches all tabs, and replays have it in the
/// right place.
fn mark_read(hub: &Hub, request: &Request) -> Result<Response, Response> {
    session(request)?;
    let read = Event::data("").event("read")?;
    publish(hub, request, read)
}

fn notify(hub: &Hub, request: &Request) -> Result<Response, Response> {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let text = request.text()?;
    publish(hub, request, Event::data(format!("{now}\n{text}")))
}

/// Publishes to the topic of the user in the path.
fn publish(hub: &Hub, request: &Request, event: Event) -> Result<Response, Response> {
    hub.publish(request.param("user"), event)?;
    Ok(Response::new(204))
}

/// Returns the session of a request, or a 403 if it does not belong to the user in the path.
fn session(request: &Request) -> Result<&str, Response> {
    let session = request.cookie("session").unwrap_or_default();
    match SESSIONS.lock().unwrap().get(session) {
        Some(user) if user == request.param("user") => Ok(session),
        _ => Err(Response::text("this needs the user's session\n").with_status(403)),
    }
}

/// Returns 128 random bits. std has no generator for secrets, so a system without `/dev/urandom` needs another one.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
