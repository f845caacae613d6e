//! Notifications: each user has a topic, and gets nobody else's, neither live nor when coming back.
//!
//! Run it with `cargo run --example notifications`, open <http://127.0.0.1:7733/>, log in as Ann and type
//!
//! ```text
//! curl -d 'Your parcel is here.' http://127.0.0.1:7733/notify/ann
//! ```
//!
//! The badge counts what has not been read; in a second tab, too, and after a reload. What is sent to `ben` meanwhile
//! waits for Ben, who can log in at the same time in a private window. The same without a page:
//!
//! ```text
//! curl -c ann.txt -d ann http://127.0.0.1:7733/login
//! curl -N -b ann.txt http://127.0.0.1:7733/events/ann
//! ```
//!
//! replays what Ann was told and waits for more; `/events/ben` with the same cookie is a 403. That a name is enough to log
//! in, and nothing to notify, is not for real life: the example `auth` has keys.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::sync::Mutex;
use std::{env, fs, io};

use tiny_sse::{Cookie, Event, Hub, Request, Response, SameSite, Server, Start};

/// Who is logged in, by the session that a cookie names: what a database is for, elsewhere.
static SESSIONS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let hub = Hub::new();
    let [readers, ending, marks] = [(); 3].map(|()| hub.clone());
    let read = Event::data("").event("read")?;
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/client.js", |_request| Response::client_script())
        .post("/login", move |request| {
            let user = String::from_utf8_lossy(request.body()).into_owned();
            let session = secret()?;
            let cookie = Cookie::new("session", &session).same_site(SameSite::Strict);
            SESSIONS.lock().unwrap().insert(session, user);
            Ok(Response::new(204).cookie(cookie))
        })
        .post("/logout", move |request| {
            let session = request.cookie("session").unwrap_or_default();
            SESSIONS.lock().unwrap().remove(session);
            // The streams that were opened with this session end, and are not let in again.
            ending.close(|reader| reader.label() == session);
            Response::new(204)
        })
        .get("/events/{user}", move |request| {
            session(request).map(|session| {
                let stream = readers.subscribe(request, request.param("user"));
                stream.start(Start::Earliest).label(session)
            })
        })
        // That all has been read is an event like others: all tabs hear of it, and a replay ends with the right number.
        .post("/read/{user}", move |request| {
            session(request).and_then(|_| tell(&marks, request, read.clone()))
        })
        .post("/notify/{user}", move |request| {
            let text = String::from_utf8_lossy(request.body());
            tell(&hub, request, Event::data(text))
        });
    println!("notifications at http://{}", server.addr());
    Ok(server.run()?)
}

/// The session of a request, if it is one of the user in the path. With the user there, no two users share an address.
fn session(request: &Request) -> Result<&str, Response> {
    let session = request.cookie("session").unwrap_or_default();
    match SESSIONS.lock().unwrap().get(session) {
        Some(user) if user == request.param("user") => Ok(session),
        _ => Err(Response::text("these are not yours\n").with_status(403)),
    }
}

/// Publishes to the topic of the user in the path.
fn tell(hub: &Hub, request: &Request, event: Event) -> Result<Response, Response> {
    hub.publish(request.param("user"), event)?;
    Ok(Response::new(204))
}

/// 128 bits that nobody can guess. std has no generator for secrets; a system without `/dev/urandom` has its own.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
