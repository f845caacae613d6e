//! Each example starts, and does what its header says first.

mod support;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::UNIX_EPOCH;

use support::{Client, EventSource, PATIENCE};

/// An example that runs, on a port of its own where it serves, until it is dropped.
struct Example {
    process: Child,
    /// What it prints.
    lines: Receiver<String>,
}

impl Example {
    /// `None` when it has not been built, as when cargo was asked for this test alone.
    fn start(name: &str) -> Option<Example> {
        // Cargo puts this test into `deps`, and the examples beside that.
        let tests = env::current_exe().unwrap();
        let folder = tests.ancestors().nth(2).unwrap().join("examples");
        let program = folder.join(name).with_extension(env::consts::EXE_EXTENSION);
        if !program.exists() {
            println!("{name} has not been built");
            return None;
        }
        let mut command = Command::new(program);
        // What it keeps is not to end up with what somebody who tries it out has there.
        for name in ["TMPDIR", "TMP"] {
            command.env(name, env!("CARGO_TARGET_TMPDIR"));
        }
        command.arg("0"); // The port.
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // To the end, since what nobody asks for has to go somewhere, too.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Some(Example { process, lines })
    }

    /// What stands behind a mark in a line that it prints.
    fn told(&self, mark: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line with {mark:?}"));
            if let Some((_, told)) = line.split_once(mark) {
                return told.to_string();
            }
        }
    }

    /// Where it says that it serves.
    fn address(&self) -> SocketAddr {
        let told = self.told("http://");
        told.trim_end_matches('/').parse().unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn every_example_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| name_of(&entry.unwrap().path()))
        .collect();
    names.sort();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        if name == "wire" {
            continue; // It answers itself, and ends.
        }
        let Some(example) = Example::start(&name) else {
            continue;
        };
        let mut client = Client::connect(example.address());
        client.request("GET", "/", &[], b"");
        let head = client.head();
        println!("{name}: {}", head.status);
        assert!(head.status < 500, "{name}: {head:?}");
    }
}

/// The name of the example in a file or a folder.
fn name_of(path: &Path) -> Option<String> {
    let one = path.extension().is_some_and(|extension| extension == "rs");
    let name = path.file_stem().unwrap().to_str().unwrap();
    // With a manifest it is a package of its own.
    (one || path.join("main.rs").exists() && !path.join("Cargo.toml").exists())
        .then(|| name.to_string())
}

#[test]
fn channels_brings_what_is_published() {
    let Some(example) = Example::start("channels") else {
        return;
    };
    let address = example.address();
    let mut client = Client::connect(address);
    let mut news = EventSource::open(address, "/events/news", &[]);
    client.request("POST", "/events/news", &[], b"The sun has risen.");
    assert_eq!(client.answer().status(), 204);
    assert_eq!(news.data(), "The sun has risen.");
    assert_eq!(client.get("/events/weather").status(), 404);
}

#[test]
fn resume_goes_on_behind_an_id_and_knows_when_it_cannot() {
    let Some(example) = Example::start("resume") else {
        return;
    };
    let address = example.address();
    let mut first = EventSource::open(address, "/", &[]);
    let id = first.next().unwrap().id;
    let second = first.data();
    let mut again = EventSource::open(address, "/", &[("Last-Event-ID", &id)]);
    assert_eq!(again.data(), second);
    let foreign = [("Last-Event-ID", "6ad1c3e5b2f04c97-12")];
    let gap = EventSource::open(address, "/", &foreign).next().unwrap();
    assert_eq!(gap.event, "gap");
}

#[test]
fn notifications_are_ones_own() {
    let Some(example) = Example::start("notifications") else {
        return;
    };
    let address = example.address();
    let mut client = Client::connect(address);
    for user in ["ann", "ben"] {
        let text = format!("for {user}");
        client.request("POST", &format!("/notify/{user}"), &[], text.as_bytes());
        assert_eq!(client.answer().status(), 204);
    }
    client.request("POST", "/login", &[], b"ann");
    let answer = client.answer();
    let cookie = answer.head.field("set-cookie").unwrap();
    let cookie = [("Cookie", cookie.split(';').next().unwrap())];
    let mut events = EventSource::open(address, "/events/ann", &cookie);
    assert_eq!(events.data(), "for ann");
    for fields in [&cookie[..], &[]] {
        client.request("GET", "/events/ben", fields, b"");
        assert_eq!(client.answer().status(), 403);
    }
    // Who logs out hears no more, and is not let in again.
    client.request("POST", "/logout", &cookie, b"");
    assert_eq!(client.answer().status(), 204);
    assert!(events.next().is_none());
    client.request("GET", "/events/ann", &cookie, b"");
    assert_eq!(client.answer().status(), 403);
}

#[test]
fn tokens_end_with_a_last_word() {
    let Some(example) = Example::start("tokens") else {
        return;
    };
    let mut client = Client::connect(example.address());
    client.request("POST", "/answer", &[], b"What is that?");
    let mut stream = EventSource::answer(client);
    let mut last = String::new();
    while let Some(event) = stream.next() {
        last = event.data;
    }
    assert_eq!(last, "[DONE]");
}

#[test]
fn auth_lets_in_by_token_cookie_and_ticket() {
    let Some(example) = Example::start("auth") else {
        return;
    };
    let token = example.told("token ");
    let address = example.address();
    let mut client = Client::connect(address);
    assert_eq!(client.get("/events").status(), 401);
    client.request("POST", "/login", &[], b"a guess");
    assert_eq!(client.answer().status(), 403);

    let bearer = format!("Bearer {token}");
    let bearer = [("Authorization", bearer.as_str())];
    client.request("POST", "/login", &[], token.as_bytes());
    let answer = client.answer();
    let cookie = answer.head.field("set-cookie").unwrap();
    let cookie = [("Cookie", cookie.split(';').next().unwrap())];
    for fields in [bearer, cookie] {
        let mut events = EventSource::open(address, "/events", &fields);
        assert_eq!(events.data(), "welcome");
    }

    client.request("POST", "/ticket", &bearer, b"");
    let path = format!("/events?ticket={}", client.answer().text());
    assert_eq!(EventSource::open(address, &path, &[]).data(), "welcome");
    client.request("GET", &path, &cookie, b"");
    assert_eq!(client.answer().status(), 401);
    // In the log there is no ticket.
    assert!(example.told("/events?").starts_with("... 200"));
}

#[test]
fn resilient_begins_behind_what_was_seen() {
    let Some(example) = Example::start("resilient") else {
        return;
    };
    let address = example.address();
    // It is still there, unless the source is out at the moment.
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seen = (now - 100).to_string();
    let mut events = EventSource::open(address, "/readings", &[("Last-Event-ID", &seen)]);
    let event = events.next().unwrap();
    match event.event.as_str() {
        "trouble" => assert!(event.data.ends_with("attempt 1 of 5"), "{event:?}"),
        _ => assert_eq!(event.id, (now - 99).to_string()),
    }
}

#[test]
fn the_hub_wants_its_token() {
    let Some(example) = Example::start("hub") else {
        return;
    };
    let mut client = Client::connect(example.address());
    client.request("POST", "/events/doors", &[], b"The front door is open.");
    assert_eq!(client.answer().status(), 401);
}

#[test]
fn wire_knows_all_that_goes_over_it() {
    let Some(mut example) = Example::start("wire") else {
        return;
    };
    let lines: Vec<String> = example.lines.iter().collect();
    assert!(example.process.wait().unwrap().success(), "{lines:#?}");
    for what in ["request line", "heartbeat", "event ends", "the last chunk"] {
        let told = lines.iter().any(|line| line.contains(what));
        assert!(told, "nothing of {what:?} in {lines:#?}");
    }
    let unknown = lines.iter().find(|line| line.ends_with("something else"));
    assert_eq!(unknown, None);
}
