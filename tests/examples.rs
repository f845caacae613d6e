//! Each example starts, and does what its header says first.

mod support;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use support::{Client, EventSource, PATIENCE};

/// An example that runs, on a port of its own where it serves, until it is dropped.
struct Example {
    process: Child,
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
        let process = command.spawn().unwrap();
        Some(Example { process })
    }

    /// Where it says that it serves.
    fn address(&mut self) -> SocketAddr {
        let (sender, addresses) = mpsc::channel();
        let lines = BufReader::new(self.process.stdout.take().unwrap()).lines();
        // To the end, since what else it prints has to go somewhere.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("http://") {
                    let end = address.find(['/', ' ']).unwrap_or(address.len());
                    let _ = sender.send(address[..end].parse());
                }
            }
        });
        let address = addresses.recv_timeout(PATIENCE);
        address.expect("a line with the address").unwrap()
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
        .filter_map(|entry| takes_a_port(entry.unwrap().path()))
        .collect();
    names.sort();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        if name == "wire" {
            continue; // It answers itself, and ends.
        }
        let Some(mut example) = Example::start(&name) else {
            continue;
        };
        let mut client = Client::connect(example.address());
        client.request("GET", "/", &[], b"");
        let head = client.head();
        println!("{name}: {}", head.status);
        assert!(head.status < 500, "{name}: {head:?}");
    }
}

/// The name of an example that takes the port as an argument.
fn takes_a_port(path: PathBuf) -> Option<String> {
    if path.join("Cargo.toml").exists() {
        return None; // A package of its own.
    }
    let main = if path.is_dir() {
        path.join("main.rs")
    } else {
        path.clone()
    };
    let takes = fs::read_to_string(main).ok()?.contains("env::args()");
    takes.then(|| path.file_stem().unwrap().to_str().unwrap().to_string())
}

#[test]
fn channels_brings_what_is_published() {
    let Some(mut example) = Example::start("channels") else {
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
    let Some(mut example) = Example::start("resume") else {
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
    let Some(mut example) = Example::start("notifications") else {
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
}

#[test]
fn tokens_end_with_a_last_word() {
    let Some(mut example) = Example::start("tokens") else {
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
fn the_hub_wants_its_token() {
    let Some(mut example) = Example::start("hub") else {
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
    let mut text = String::new();
    let mut output = example.process.stdout.take().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert!(example.process.wait().unwrap().success(), "{text}");
    assert!(text.contains("the last one"), "{text}");
    assert!(!text.contains("something else"), "{text}");
}
