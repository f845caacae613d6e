//! Notifications: each user has a topic, and gets nobody else's, neither live nor when coming back.
//!
//! Run it with `cargo run --example notifications`, open <http://127.0.0.1:60000/>, log in as Ann and type
//!
//! ```text
//! curl -d 'Your parcel is here.' http://127.0.0.1:60000/notify/ann
//! ```
//!
//! The badge counts what has not been read; in a second tab, too, and after a reload. What is sent to `ben` meanwhile
//! waits for Ben, who can log in at the same time in a private window. The same without a page:
//!
//! ```text
//! curl -c ann.txt -d ann http://127.0.0.1:60000/login
//! curl -N -b ann.txt http://127.0.0.1:60000/events/ann
//! ```
//!
//! replays what Ann was told and waits for more; `/events/ben` with the same cookie is a 403. There is no password here and
//! everybody may notify everybody: the example `auth` shows how to do better.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use tiny_sse::{Event, Hub, Request, Response, Server, Start};

const USERS: [&str; 2] = ["ann", "ben"];

/// Who is logged in, by the session that a cookie names.
type Sessions = Mutex<HashMap<String, &'static str>>;

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("60000".to_string());
    let sessions = Arc::new(Sessions::default());
    let [login, logout, who, reading, marking] = [(); 5].map(|()| Arc::clone(&sessions));
    let hub = Hub::new();
    let [notifying, readers, ending, marks] = [(); 4].map(|()| hub.clone());
    let read = Event::data("").event("read")?;
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .get("/client.js", |_request| Response::client_script())
        .post("/login", move |request| {
            let Some(user) = known(&String::from_utf8_lossy(request.body())) else {
                return Ok(Response::text("nobody of that name\n").with_status(403));
            };
            let session = random_token()?;
            login.lock().unwrap().insert(session.clone(), user);
            let cookie = format!("session={session}; HttpOnly; SameSite=Strict; Path=/");
            Ok::<_, Box<dyn Error>>(Response::new(204).header("Set-Cookie", cookie)?)
        })
        .post("/logout", move |request| {
            let session = request.cookie("session").unwrap_or_default();
            logout.lock().unwrap().remove(session);
            // The streams that were opened with this session end, and are not let in again.
            ending.close(|reader| reader.label() == session);
            Response::new(204)
        })
        .get("/user", move |request| {
            user(&who, request).unwrap_or_default()
        })
        // The path names the user, so that two users never share an address; the cookie proves it.
        .get("/events/{user}", move |request| {
            match user(&reading, request) {
                Some(user) if user == request.param("user") => {
                    let session = request.cookie("session").unwrap_or_default();
                    let stream = readers.subscribe(request, user).start(Start::Earliest);
                    stream.label(session).into()
                }
                _ => Response::text("these are not yours\n").with_status(403),
            }
        })
        .post("/notify/{user}", move |request| {
            let text = String::from_utf8_lossy(request.body());
            tell(&notifying, known(request.param("user")), Event::data(text))
        })
        // That all has been read is an event like others: all tabs hear of it, and a replay ends with the right number.
        .post("/read", move |request| {
            tell(&marks, user(&marking, request), read.clone())
        });
    println!("notifications at http://{}", server.local_addr());
    Ok(server.run()?)
}

fn known(name: &str) -> Option<&'static str> {
    USERS.into_iter().find(|user| *user == name)
}

/// Who sent a request.
fn user(sessions: &Sessions, request: &Request) -> Option<&'static str> {
    let sessions = sessions.lock().unwrap();
    sessions.get(request.cookie("session")?).copied()
}

/// Publishes to a user's own topic.
fn tell(hub: &Hub, user: Option<&str>, event: Event) -> Response {
    match user.map(|user| hub.publish(user, event)) {
        Some(Ok(())) => Response::new(204),
        Some(Err(error)) => Response::text(format!("{error}\n")).with_status(422),
        None => Response::text("nobody of that name\n").with_status(403),
    }
}

/// std has no generator for secrets, the system has.
fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
