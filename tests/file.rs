//! A history in a file: what was acknowledged is there after any end of the process, and what is damaged is never taken
//! for an event.
//!
//! `FILE_ROUNDS=1000 cargo test --release --test file` kills a publisher that many times.

#![cfg_attr(not(target_os = "linux"), allow(unused_imports, dead_code))] // The tests that count threads are for Linux.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use support::{Client, EventSource, PATIENCE, Random, TestServer, eventually, start};
use tiny_sse::{
    Config, Durability, Event, Hub, HubConfig, PublishError, Replay, Request, Response,
};

/// A folder of its own for each test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tiny-sse-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("history")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Errors = Arc<Mutex<Vec<String>>>;

fn open_with(config: HubConfig) -> (Hub, Errors) {
    let errors = Errors::default();
    let hook = Arc::clone(&errors);
    let config = HubConfig {
        on_error: Arc::new(move |problem: &str| hook.lock().unwrap().push(problem.to_string())),
        ..config
    };
    (Hub::open(config).unwrap(), errors)
}

/// A hub with a few events in memory and the rest in the file.
fn open(path: &Path) -> Hub {
    open_with(HubConfig {
        durability: Durability::Os,
        history_events: 5,
        history_file: Some(path.into()),
        ..HubConfig::default()
    })
    .0
}

/// A server for one hub after another; a hub that the server drops releases its file.
struct Served {
    server: TestServer,
    hub: Arc<Mutex<Option<Hub>>>,
}

impl Served {
    fn new() -> Served {
        let hub: Arc<Mutex<Option<Hub>>> = Arc::default();
        let readers = Arc::clone(&hub);
        let server = start(Config::default(), move |server| {
            server.get("/events", move |request: &Request| {
                let topics: Vec<&str> = request.queries("topic").collect();
                let hub = readers.lock().unwrap();
                hub.as_ref()
                    .map(|hub| hub.subscribe(request, topics))
                    .ok_or_else(|| Response::failed("no hub"))
            })
        });
        Served { server, hub }
    }

    fn serve(&self, hub: &Hub) {
        *self.hub.lock().unwrap() = Some(hub.clone());
    }

    fn let_go(&self) {
        self.hub.lock().unwrap().take();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Deref for Served {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}

fn serve(hub: &Hub) -> Served {
    let served = Served::new();
    served.serve(hub);
    served
}

fn resume(server: &Served, topic: &str, id: &str) -> EventSource {
    let target = format!("/events?topic={topic}");
    EventSource::open(server.addr(), &target, &[("Last-Event-ID", id)])
}

fn say(hub: &Hub, topic: &str, text: &str) -> String {
    hub.publish_wait(topic, Event::data(text))
        .unwrap()
        .to_string()
}

#[test]
fn the_file_is_an_event_stream() {
    let folder = Folder::new("stream");
    let hub = open(&folder.file());
    let first = say(&hub, "news", "hello\nworld");
    hub.publish_wait(["a", "b"], Event::data("x").id("row 1").unwrap())
        .unwrap();
    let epoch = first.strip_suffix("-1").unwrap();
    let text = fs::read_to_string(folder.file()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with(&format!(": epoch {epoch} from 1 ")),
        "{text}"
    );
    assert_eq!(lines[1], "");
    assert!(
        lines[2].starts_with(": 1 ") && lines[2].ends_with(" 48 news"),
        "{text}"
    );
    assert_eq!(
        lines[3..7],
        [&format!("id: {first}"), "data: hello", "data: world", ""]
    );
    assert!(
        lines[7].starts_with(": 2 ") && lines[7].ends_with(" 19 a\tb"),
        "{text}"
    );
    assert_eq!(lines[8..], ["id: row 1", "data: x", ""]);
    let mut decoder = tiny_sse::Decoder::new();
    let (mut bytes, mut data) = (text.as_bytes(), Vec::new());
    while let Some(item) = decoder.decode(&mut bytes).unwrap() {
        if let tiny_sse::Decoded::Message(message) = item {
            data.push(message.data);
        }
    }
    assert_eq!(data, ["hello\nworld", "x"]);
}

#[test]
fn a_client_resumes_over_restarts() {
    let folder = Folder::new("resume");
    let hub = open(&folder.file());
    let mut ids = Vec::new();
    for number in 0..20 {
        let topic = if number % 2 == 0 { "a" } else { "b" };
        ids.push(say(&hub, topic, &number.to_string()));
    }
    hub.publish_wait("a", Event::data("mine").id("row 7").unwrap())
        .unwrap();
    drop(hub);
    let hub = open(&folder.file());
    let server = serve(&hub);
    // An id of the old epoch that the file does not have: delivered, then lost with the power.
    let lost = ids[0].replace("-1", "-22");
    let before = resume(&server, "a", &lost);
    let newest = say(&hub, "a", "new");
    let all = |mut stream: EventSource| {
        let mut all = Vec::new();
        while all.last().is_none_or(|data| data != "new") {
            let message = stream.next().unwrap();
            assert_eq!(message.event, "");
            all.push(message.data);
        }
        all.join(" ")
    };
    // The fourth, from the file: memory holds five of each topic.
    assert_eq!(
        all(resume(&server, "a", &ids[4])),
        "6 8 10 12 14 16 18 mine new"
    );
    assert_eq!(all(resume(&server, "a", &ids[17])), "18 mine new");
    assert_eq!(all(resume(&server, "a", "row 7")), "new");
    assert_eq!(
        all(resume(&server, "a&topic=b", &ids[16])),
        "17 18 19 mine new"
    );
    assert_eq!(
        all(resume(&server, "a", "earliest")),
        "0 2 4 6 8 10 12 14 16 18 mine new"
    );
    // Long-poll and HTTP/1.0 read the same.
    let answer = server
        .connect()
        .get(&format!("/events?topic=a&poll&last_event_id={}", ids[14]));
    assert!(
        answer.text().contains(r#""data":"16"},"#),
        "{}",
        answer.text()
    );
    let mut client = server.connect();
    client.send(format!(
        "GET /events?topic=a&last_event_id={} HTTP/1.0\r\n\r\n",
        ids[4]
    ));
    assert_eq!(
        all(EventSource::answer(client)),
        "6 8 10 12 14 16 18 mine new"
    );
    // What it saw does not come again, whether something was published since or not.
    for mut stream in [before, resume(&server, "a", &lost)] {
        assert_eq!(stream.next().unwrap().event, "gap");
        assert_eq!(stream.data(), "new");
    }
    // The number line goes on, in a new epoch.
    assert!(newest.ends_with("-22") && newest != lost);
}

/// A hub may keep nothing in memory and everything in its file.
#[test]
fn a_history_without_memory_is_read_from_the_file() {
    let folder = Folder::new("no-memory");
    let history = || HubConfig {
        history_events: 0,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, _) = open_with(history());
    let ids = ["1", "2", "3", "4"].map(|text| say(&hub, "a", text));
    drop(hub);
    let (hub, _) = open_with(history());
    let server = serve(&hub);
    let mut back = resume(&server, "a", &ids[1]);
    let mut new = resume(&server, "a", "earliest");
    let mut live = resume(&server, "a", &ids[3]);
    say(&hub, "a", "5");
    assert_eq!([back.data(), back.data(), back.data()], ["3", "4", "5"]);
    assert_eq!([(); 5].map(|()| new.data()), ["1", "2", "3", "4", "5"]);
    assert_eq!(live.data(), "5");
}

/// The limits of how far back a client may go count the events in memory, not those in the file.
#[test]
fn a_handler_limits_the_replay_of_a_file() {
    let folder = Folder::new("replay");
    let history = || HubConfig {
        durability: Durability::Os,
        history_events: 2,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, _) = open_with(history());
    let ids = ["1", "2", "3", "4", "5", "6"].map(|text| say(&hub, "a", text));
    drop(hub);
    let first = &*ids[0];
    let served: Arc<Mutex<Option<(Hub, Replay)>>> = Arc::default();
    let readers = Arc::clone(&served);
    let server = start(Config::default(), move |server| {
        server.get("/events", move |request: &Request| {
            let (hub, replay) = readers.lock().unwrap().clone().unwrap();
            let topics: Vec<&str> = request.queries("topic").collect();
            hub.subscribe(request, topics).replay(replay)
        })
    });
    let rows = [
        (Replay::All, first, "2 3 4 5 6"),      // All that the file has.
        (Replay::Events(1), first, "gap 6"),    // The other events are reported as missing.
        (Replay::Events(9), first, "gap 5 6"),  // No more than memory has.
        (Replay::Events(9), "earliest", "5 6"), // A client without an id misses nothing.
        (Replay::Age(Duration::MAX), first, "gap 5 6"), // No more than memory has.
        (Replay::Age(Duration::ZERO), first, "gap"), // The restart counts as their time.
        (Replay::Events(0), first, "gap"),      // None at all.
        (Replay::Events(0), "earliest", ""),    // Whatever the client asks for.
    ];
    for (row, (replay, id, expected)) in rows.into_iter().enumerate() {
        let (hub, _) = open_with(history());
        *served.lock().unwrap() = Some((hub.clone(), replay));
        let target = format!("/events?topic=a&topic=end-{row}");
        let mut stream = EventSource::open(server.addr(), &target, &[("Last-Event-ID", id)]);
        say(&hub, &format!("end-{row}"), "end");
        let mut all = Vec::new();
        loop {
            let message = stream.next().unwrap();
            match (&*message.event, &*message.data) {
                ("gap", _) => all.push("gap".to_string()),
                (_, "end") => break,
                _ => all.push(message.data),
            }
        }
        assert_eq!(all.join(" "), expected, "{replay:?} {id}");
        drop(stream);
        served.lock().unwrap().take();
    }
}

/// Readers that want a few events of a large file skip the others in steps.
#[test]
fn a_rare_topic_is_found_behind_all_that_others_said() {
    let folder = Folder::new("rare");
    let hub = open(&folder.file());
    let server = serve(&hub);
    let first = say(&hub, "rare", "1");
    let loud = Event::data("x".repeat(100_000));
    for _ in 0..150 {
        hub.publish("loud", loud.clone()).unwrap();
    }
    // Of seven, memory has the last five.
    for number in 2..=7 {
        say(&hub, "rare", &number.to_string());
    }
    let mut stream = resume(&server, "rare", &first);
    for number in 2..=7 {
        assert_eq!(stream.data(), number.to_string());
    }
    let target = format!("/events?topic=rare&poll&last_event_id={first}");
    let answer = Client::connect(server.addr()).get(&target);
    for number in 2..=7 {
        let event = format!(r#""data":"{number}""#);
        assert!(answer.text().contains(&event), "{}", answer.text());
    }
}

#[test]
fn segments_come_and_go() {
    let folder = Folder::new("segments");
    let history = HubConfig {
        durability: Durability::Os,
        history_events: 3,
        file_bytes: 64 * 1024,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, errors) = open_with(history.clone());
    let server = serve(&hub);
    let text = "x".repeat(900);
    let first = say(&hub, "a", &text);
    let ids: Vec<String> = (0..300).map(|_| say(&hub, "a", &text)).collect();
    let files = fs::read_dir(&folder.0).unwrap().count();
    assert!((10..25).contains(&files), "{files}");
    let read_on = |mut stream: EventSource, from: usize| {
        for id in &ids[from..] {
            let message = stream.next().unwrap();
            assert_eq!((&*message.event, &message.id), ("", id));
        }
    };
    // Over several segments.
    read_on(resume(&server, "a", &ids[259]), 260);
    // Removed events are a gap, and all others come.
    let mut stream = resume(&server, "a", &first);
    let gap = stream.next().unwrap();
    assert_eq!(gap.event, "gap");
    let next = ids.iter().position(|id| *id == gap.id).unwrap() + 1;
    let files = fs::read_dir(&folder.0).unwrap();
    let numbers = files.filter_map(|file| {
        let path = file.unwrap().path();
        path.extension()?.to_str()?.parse().ok()
    });
    let oldest: usize = numbers.min().unwrap();
    assert_eq!(next + 2, oldest, "the first id is number 2");
    read_on(stream, next);
    drop((server, hub));
    let (hub, _) = open_with(history);
    let server = serve(&hub);
    read_on(resume(&server, "a", &ids[259]), 260);
    let mut stream = resume(&server, "a", &first);
    let gap = stream.next().unwrap();
    assert_eq!(gap.event, "gap");
    let from = format!(r#"{{"from":"{first}","to":"#);
    assert!(gap.data.starts_with(&from), "{}", gap.data); // As the client had it, from before the restart.
    assert!(errors.lock().unwrap().is_empty());
}

/// A hub with one event in memory, five parts of three events each, and one part with the events 16 and 17. Returns the hub and
/// the ids.
fn open_parts(folder: &Folder) -> (Hub, Vec<String>) {
    let (hub, _) = open_with(HubConfig {
        durability: Durability::Os,
        file_bytes: 1024 * 1024,
        history_events: 1,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    }); // Parts of 64 KiB.
    let ids = (1..=17).map(|number| say(&hub, "a", &format!("{number:030000}")));
    let ids = ids.collect();
    (hub, ids)
}

fn numbers(stream: &mut EventSource, count: usize) -> Vec<u64> {
    let data = (0..count).map(|_| stream.data());
    data.map(|data| data.parse().unwrap()).collect()
}

/// As when the process has no descriptor left: nothing is lost, and the client comes back.
#[cfg(unix)]
#[test]
fn a_part_that_cannot_be_opened_now_is_no_gap() {
    let folder = Folder::new("unopened");
    let (hub, ids) = open_parts(&folder);
    let server = serve(&hub);
    let part = folder.0.join("history.00000000000000000007");
    let away = folder.0.join("away");
    fs::rename(&part, &away).unwrap();
    std::os::unix::fs::symlink(&part, &part).unwrap(); // To itself.
    let mut stream = resume(&server, "a", &ids[0]);
    assert_eq!(numbers(&mut stream, 5), [2, 3, 4, 5, 6]);
    assert_eq!(stream.next(), None);
    fs::rename(&away, &part).unwrap();
    let mut stream = resume(&server, "a", &ids[5]);
    assert!(numbers(&mut stream, 11).into_iter().eq(7..=17));
}

#[cfg(unix)]
#[test]
fn a_part_that_somebody_removes_is_a_gap_and_no_other_part() {
    let folder = Folder::new("parts");
    let (hub, ids) = open_parts(&folder);
    let server = serve(&hub);
    for first in [7, 10] {
        fs::remove_file(folder.0.join(format!("history.{first:020}"))).unwrap();
    }
    for resumed in [1, 6, 8] {
        let mut stream = resume(&server, "a", &ids[resumed - 1]);
        let before = numbers(&mut stream, 6_usize.saturating_sub(resumed));
        assert!(before.into_iter().eq(resumed as u64 + 1..=6));
        let gap = stream.next().unwrap();
        let (from, to) = (&ids[resumed.max(6) - 1], &ids[11]);
        assert_eq!(gap.event, "gap");
        assert_eq!(
            gap.data,
            format!(r#"{{"from":"{from}","to":"{to}","lost":null}}"#)
        );
        assert_eq!(numbers(&mut stream, 5), [13, 14, 15, 16, 17]);
    }
}

/// Another history has other events under the same numbers.
#[cfg(unix)]
#[test]
fn no_events_of_a_file_that_was_put_in_place_of_the_history_are_read() {
    let folders = [Folder::new("own"), Folder::new("others")];
    let [(hub, ids), (other, _)] = folders.each_ref().map(open_parts);
    let server = serve(&hub);
    drop(other);
    let away = folders[0].0.join("away");
    for name in ["history.00000000000000000007", "history"] {
        let [own, others] = folders.each_ref().map(|folder| folder.0.join(name));
        fs::rename(&own, &away).unwrap();
        fs::rename(&others, &own).unwrap();
        let mut stream = resume(&server, "a", &ids[0]);
        let before = if name == "history" { 14 } else { 5 };
        assert!(
            numbers(&mut stream, before)
                .into_iter()
                .eq((2..).take(before))
        );
        assert!(stream.next().is_none(), "the {name} of another hub");
        fs::rename(&away, &own).unwrap();
    }
    let mut stream = resume(&server, "a", &ids[0]);
    assert!(numbers(&mut stream, 16).into_iter().eq(2..=17));
}

/// A reader looks up the newest segment just when it is renamed.
#[test]
fn a_segment_may_be_full_while_a_reader_opens_it() {
    for _ in 0..20 {
        let folder = Folder::new("rotation");
        let history = HubConfig {
            durability: Durability::Os,
            history_events: 1,
            file_bytes: 160 * 1024,
            history_file: Some(folder.file()),
            ..HubConfig::default()
        }; // Parts of 10 KiB, and all of them fit.
        let (hub, _) = open_with(history);
        let mut reader = hub.receiver("a").unwrap();
        let publisher = thread::spawn(move || {
            for n in 0..70 {
                hub.publish("a", Event::data(format!("{n:02000}"))).unwrap();
            }
        });
        for n in 0..70 {
            let message = reader.recv().unwrap().message().unwrap();
            assert_eq!(message.data, format!("{n:02000}"));
        }
        publisher.join().unwrap();
    }
}

#[test]
fn a_file_without_one_whole_event_begins_anew() {
    let folder = Folder::new("garbage");
    fs::write(folder.file(), ": epoch 5c0f9a3b").unwrap();
    let history = HubConfig {
        durability: Durability::Os,
        history_events: 3,
        file_bytes: 64 * 1024,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, errors) = open_with(history);
    assert_eq!(errors.lock().unwrap().len(), 1);
    let server = serve(&hub);
    let text = "x".repeat(900);
    let ids: Vec<String> = (0..80).map(|_| say(&hub, "a", &text)).collect();
    let mut stream = resume(&server, "a", &ids[39]);
    for id in &ids[40..] {
        let message = stream.next().unwrap();
        assert_eq!((&*message.event, &message.id), ("", id));
    }
}

/// Opens a history in another process and returns why that is refused.
fn refused_elsewhere(path: &Path, test: &str) -> Option<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text.split_once("refused: ")?;
    rest.lines().next().map(str::to_string)
}

fn refused(path: impl Into<PathBuf>) -> String {
    let config = HubConfig {
        durability: Durability::Os,
        history_file: Some(path.into()),
        ..HubConfig::default()
    };
    Hub::open(config).unwrap_err().to_string()
}

/// This holds for every path to the file, and after changes of the names.
#[cfg(unix)]
#[test]
fn one_hub_has_the_file() {
    if let Ok(path) = std::env::var(CHILD) {
        return println!("refused: {}", refused(path));
    }
    let folder = Folder::new("lock");
    let at = |name: &str| folder.0.join(name);
    let history = HubConfig {
        durability: Durability::Os,
        file_bytes: 64 * 1024,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, _) = open_with(history);
    say(&hub, "a", "1");
    std::os::unix::fs::symlink(folder.file(), at("symbolic")).unwrap();
    fs::hard_link(folder.file(), at("hard")).unwrap();
    let _ = fs::remove_file(at("history.lock")); // Nothing depends on a file beside the history.
    let check = |name: &&str| {
        let expected = format!("{} is in use by another hub", at(name).display());
        assert_eq!(refused(at(name)), expected);
        let elsewhere = refused_elsewhere(&at(name), "one_hub_has_the_file");
        assert_eq!(elsewhere, Some(expected));
    };
    ["history", "symbolic", "hard"].iter().for_each(check);
    say(&hub, "a", &"x".repeat(5_000)); // The first part is full,
    say(&hub, "a", "2"); // and a new one is begun.
    assert!(at("history.00000000000000000001").exists());
    ["history", "symbolic", "hard"].iter().for_each(check); // The hard link is that of the full part.
}

/// A program that is restarted tries to open the history until the old process has closed it. Each part is full after two
/// events here.
#[test]
fn another_hub_that_tries_to_open_the_file_disturbs_no_publisher() {
    let folder = Folder::new("disturbed");
    let history = HubConfig {
        durability: Durability::Os,
        file_bytes: 16 * 4096,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, _) = open_with(history.clone());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let refused = Hub::open(history.clone()).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
                }
            });
        }
        let results = (0..500).map(|_| hub.publish_wait("a", Event::data("x".repeat(3000))));
        let failed = results.filter_map(Result::err).next();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
    });
}

#[test]
fn a_hub_that_has_ended_lets_its_file_go_at_once() {
    let folder = Folder::new("again");
    for number in 1..=50 {
        let id = say(&open(&folder.file()), "a", "x");
        assert!(id.ends_with(&format!("-{number}")), "{id}");
    }
}

#[test]
fn a_missing_folder_is_named() {
    let folder = Folder::new("named");
    let missing = folder.0.join("missing");
    let text = refused(missing.join("history"));
    assert!(
        text.starts_with(&format!("{} cannot be opened: ", missing.display())),
        "{text}"
    );
    assert!(
        !text.contains(".lock") && !text.contains("history"),
        "{text}"
    );
}

#[cfg(unix)]
fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Opening or reading any other kind of file may never end.
#[cfg(unix)]
#[test]
fn only_a_regular_file_is_a_history() {
    let folder = Folder::new("regular");
    let fifo = folder.0.join("fifo");
    make_fifo(&fifo);
    let link = folder.0.join("link");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    let part = folder.0.join("parts");
    make_fifo(&folder.0.join("parts.00000000000000000001"));
    for (path, named) in [
        (fifo.as_path(), "fifo"),              // Nobody writes to it.
        (&folder.0, "regular"),                // A folder.
        (Path::new("/dev/full"), "/dev/full"), // Has zeros without end.
        (Path::new("/dev/null"), "/dev/null"), // Takes all, and keeps nothing.
        (&link, "link"),                       // Like the file that it points to.
        (&part, "parts.00000000000000000001"), // An older part.
    ] {
        let text = refused(path);
        assert!(text.contains(named), "{text}");
        assert!(text.ends_with(" is not a regular file"), "{text}");
    }
}

/// A restart looks for all acknowledged events in the file that has the history's name while a hub writes to it.
#[cfg(unix)]
#[test]
fn a_file_that_is_moved_away_and_replaced_is_noticed() {
    let folder = Folder::new("replaced");
    let given = folder.0.join("link");
    std::os::unix::fs::symlink(folder.file(), &given).unwrap();
    let hub = open(&given);
    let away = folder.0.join("away");
    let file = folder.file();
    type Change<'a> = &'a dyn Fn(&Path);
    let changes: [(&Path, Change); 5] = [
        (&file, &|path| fs::write(path, "").unwrap()),
        (&file, &|path| fs::write(path, "something else").unwrap()),
        (&file, &|path| fs::create_dir(path).unwrap()),
        (&file, &make_fifo),
        (&given, &|path| {
            std::os::unix::fs::symlink("/dev/null", path).unwrap()
        }), // It points elsewhere.
    ];
    for (number, (path, replace)) in changes.into_iter().enumerate() {
        say(&hub, "a", "before");
        fs::rename(path, &away).unwrap();
        replace(path);
        let result = hub.publish_wait("a", Event::data("lost"));
        let Err(PublishError::Storage { text, .. }) = result else {
            panic!("{result:?} in {number}");
        };
        assert!(text.contains(&given.display().to_string()), "{text}");
        assert!(
            text.contains("is no longer the file that this hub writes to"),
            "{text}"
        );
        let removed = fs::remove_dir(path).or_else(|_| fs::remove_file(path));
        removed.unwrap();
        fs::rename(&away, path).unwrap();
    }
    let id = say(&hub, "a", "after");
    assert!(
        id.ends_with("-6"),
        "nobody was given an id in between: {id}"
    );
    drop(hub);
    assert!(say(&open(&folder.file()), "a", "again").ends_with("-7"));
}

fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(&folder.0).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// An editor or a transfer that makes each line end CRLF leaves nothing that can be read.
#[test]
fn what_cannot_be_read_is_refused_or_stays() {
    let folder = Folder::new("unreadable");
    let hub = open(&folder.file());
    for number in 1..=3 {
        say(&hub, "a", &number.to_string());
    }
    drop(hub);
    let whole = fs::read_to_string(folder.file()).unwrap();
    let crlf = whole.replace('\n', "\r\n");
    for unreadable in [&crlf, &whole[1..30]] {
        fs::write(folder.file(), unreadable).unwrap();
        let text = refused(folder.file());
        assert!(
            text.ends_with(" is not a history, and was left as it is"),
            "{text}"
        );
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), *unreadable);
    }
    let last = whole.rfind(": 3 ").unwrap();
    for (tail, kept) in [
        (whole[last..].replace('\n', "\r\n"), ""), // CRLF in a part of the file.
        (whole[last..].replace("data: 3", "data: 4"), ""), // Damage in the last event.
        (whole[last..whole.len() - 1].to_string(), ""), // A partial write.
        ("\0\0\0\0".to_string(), ""),              // As after a power failure.
        ("dear diary\n".to_string(), &whole[last..]), // Not a record.
    ] {
        let name = names(&folder);
        for name in name.iter().filter(|name| *name != "history") {
            fs::remove_file(folder.0.join(name)).unwrap();
        }
        let before = format!("{}{kept}{tail}", &whole[..last]);
        fs::write(folder.file(), &before).unwrap();
        let (hub, errors) = open_with(HubConfig {
            durability: Durability::Os,
            history_file: Some(folder.file()),
            ..HubConfig::default()
        });
        let on = Event::data("on").id("own").unwrap();
        hub.publish_wait("a", on).unwrap();
        let after = fs::read_to_string(folder.file()).unwrap();
        assert!(after.starts_with(&before), "{after:?}");
        let errors = errors.lock().unwrap();
        let told = format!(" to byte {}", before.len());
        assert!(
            errors.len() == 1 && errors[0].ends_with(&told),
            "{errors:?}"
        );
        drop(hub);
        // The line of the epoch is whole, and where it begins: no event has its id.
        let (_, epoch) = after.rsplit_once(": epoch ").unwrap();
        let (epoch, rest) = epoch.split_once(" from ").unwrap();
        let from: u64 = rest.split(' ').next().unwrap().parse().unwrap();
        let id = format!("{epoch}-{}", from - 1);
        let server = serve(&open(&folder.file()));
        assert_eq!(resume(&server, "a", &id).data(), "on", "{tail:?}");
    }
}

/// A hub's error hook is code of its user, and standard error may be full.
#[cfg(unix)]
#[test]
fn opening_survives_its_error_hook() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload's end");
        }
    }
    if let Ok(path) = std::env::var(CHILD) {
        let config = HubConfig {
            history_file: Some(path.into()),
            ..HubConfig::default()
        };
        say(&Hub::open(config).unwrap(), "a", "1");
        return;
    }
    let folder = Folder::new("hook");
    let torn = || fs::write(folder.file(), ": epoch 5c0f9a3b").unwrap();
    torn();
    let config = HubConfig {
        history_file: Some(folder.file()),
        on_error: Arc::new(|_: &str| std::panic::panic_any(Bomb)),
        ..HubConfig::default()
    };
    say(&Hub::open(config).unwrap(), "a", "1");
    torn();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "opening_survives_its_error_hook"])
        .env(CHILD, folder.file())
        .stdout(Stdio::null())
        .stderr(fs::File::options().write(true).open("/dev/full").unwrap())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Every way to lose the end of a history while no hub has it: a reader that was before the loss is told of it, and no id is
/// given out twice.
#[test]
fn a_lost_end_is_told_to_readers_that_were_before_it() {
    let folder = Folder::new("lost-end");
    let history = HubConfig {
        durability: Durability::Os,
        file_bytes: 64 * 1024,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, _) = open_with(history.clone());
    let text = "x".repeat(1_400);
    let ids: Vec<String> = (0..10).map(|_| say(&hub, "a", &text)).collect();
    drop(hub);
    let files = names(&folder);
    assert_eq!(files.len(), 5, "{files:?}"); // Four parts and the mark.
    let whole: Vec<Vec<u8>> = files
        .iter()
        .map(|name| fs::read(folder.0.join(name)).unwrap())
        .collect();
    let newest = String::from_utf8(whole[0].clone()).unwrap();
    let ninth = newest.find(": 10 ").unwrap();
    let server = Served::new();
    let cut =
        |len: usize| move |path: &Path| fs::write(path, &fs::read(path).unwrap()[..len]).unwrap();
    let damage = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(
            path,
            format!("{}\n\n", text.trim_end().strip_suffix('x').unwrap()),
        )
        .unwrap();
    };
    type Change<'a> = &'a dyn Fn(&Path);
    let changes: [(Change, Option<u64>); 7] = [
        (&|_| {}, None),                                    // Nothing is lost.
        (&cut(ninth), Some(10)),                            // After a whole event.
        (&cut(ninth + 9), Some(10)),                        // Within one.
        (&cut(newest.find("\n\n").unwrap() + 2), Some(10)), // After the line of the epoch.
        (&cut(0), Some(10)),                                // All of the newest part.
        (&|path| fs::remove_file(path).unwrap(), Some(10)), // And its name.
        (&damage, Some(10)),                                // The last event alone.
    ];
    for (number, (change, lost_to)) in changes.into_iter().enumerate() {
        for (has_mark, _) in [(true, 0), (false, 1)] {
            for name in names(&folder) {
                fs::remove_file(folder.0.join(name)).unwrap();
            }
            for (name, bytes) in files.iter().zip(&whole) {
                fs::write(folder.0.join(name), bytes).unwrap();
            }
            if !has_mark {
                fs::remove_file(folder.0.join("history.next")).unwrap();
            }
            change(&folder.file());
            let (hub, _) = open_with(history.clone());
            server.serve(&hub);
            let newest = say(&hub, "a", "new");
            let mut stream = resume(&server, "a", &ids[2]);
            let first = stream.next().unwrap();
            // Without the mark, a part that ends after a whole event looks whole.
            let looks_whole = !has_mark && (number == 1 || number == 3);
            match lost_to.filter(|_| !looks_whole) {
                None => assert_eq!(first.id, ids[3], "{number}"),
                Some(last) => {
                    assert_eq!(first.event, "gap", "{number} {has_mark}");
                    if has_mark {
                        let to = format!(r#","to":"{}""#, ids[last as usize - 1]);
                        assert!(first.data.contains(&to), "{number}: {}", first.data);
                        assert!(newest.ends_with("-11"), "{newest}");
                    }
                    let next = stream.next().unwrap();
                    assert_eq!(
                        (next.id, next.data),
                        (newest, "new".to_string()),
                        "{number}"
                    );
                }
            }
            server.let_go();
        }
    }
}

/// If the line of an epoch is damaged, the ids of its events have the epoch, and nothing is missing.
#[test]
fn damage_without_loss_is_no_gap() {
    let folder = Folder::new("lossless");
    let first = say(&open(&folder.file()), "a", "1");
    let ids = [2, 3].map(|_| say(&open(&folder.file()), "a", "x"));
    let whole = fs::read_to_string(folder.file()).unwrap();
    let epoch = ids[0].split('-').next().unwrap();
    let line = format!(": epoch {epoch} ");
    fs::write(
        folder.file(),
        whole.replace(&line, ": epoch 0000000000000000 "),
    )
    .unwrap();
    let (hub, errors) = open_with(HubConfig {
        durability: Durability::Os,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    });
    assert_eq!(errors.lock().unwrap().len(), 1);
    let server = serve(&hub);
    let newest = say(&hub, "a", "new");
    for (from, rest) in [(&first, &ids[..]), (&ids[0], &ids[1..]), (&ids[1], &[])] {
        let mut stream = resume(&server, "a", from);
        for id in rest.iter().chain([&newest]) {
            let message = stream.next().unwrap();
            assert_eq!((&*message.event, &message.id), ("", id));
        }
    }
}

/// A path that is given by mistake destroys no file. The rest that a power failure leaves of a new file is no obstacle.
#[test]
fn an_event_of_the_most_and_longest_topics_is_read_again() {
    let folder = Folder::new("topics");
    let names: Vec<String> = (0..64).map(|number| format!("{number:0256}")).collect();
    let hub = open(&folder.file());
    hub.publish_wait(&names, Event::data("x")).unwrap();
    drop(hub);
    assert_eq!(open(&folder.file()).stats().history_events, 1);
}

#[test]
fn a_file_that_is_no_history_stays_as_it_is() {
    let folder = Folder::new("other");
    let refused = [
        "dear diary\n",
        ": epoch2 5c0f9a3be1d27764 from 1\n\n",
        "data: x\n\n",
        "\n",
        ": epoch 5c0f9a3be1d27764 from 1 0000000000000000\n\n", // The whole of a first line, with a wrong checksum.
    ];
    for other in refused {
        fs::write(folder.file(), other).unwrap();
        let config = HubConfig {
            history_file: Some(folder.file()),
            ..HubConfig::default()
        };
        let error = Hub::open(config).unwrap_err();
        let text = "is not a history, and was left as it is";
        assert!(error.to_string().ends_with(text), "{error}");
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), other);
    }
    for torn in [
        "",
        ": ep",
        ": epoch 5c0f9a3b",
        ": epoch 5c0f9a3be1d27764 from 1 0000000000000000\n", // One byte is missing.
        "\0\0\0",
        "\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        fs::write(folder.file(), torn).unwrap();
        say(&open(&folder.file()), "a", "1");
    }
}

/// A small history, cut off at every byte: acknowledged events that are missing are reported as a gap.
#[test]
fn a_torn_tail_is_passed() {
    damage("history", |whole, offset| whole[..offset].to_vec());
}

fn flip(whole: &[u8], offset: usize) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[offset] ^= 1;
    bytes
}

/// A small history with a bit flipped in every byte: never a wrong event, and missing events are reported as a gap.
#[test]
fn damage_is_found() {
    damage("history", flip);
}

/// The sequence after the last acknowledged event, damaged, costs no event and makes no gap.
#[test]
fn damage_beside_the_history_changes_nothing() {
    damage("history.next", flip);
    damage("history.next", |whole, offset| whole[..offset].to_vec());
}

/// Reads a small history from its beginning, once for each byte of one of its files where that is changed; and again after
/// another restart, which finds the damage and what was written after it.
fn damage(name: &str, change: impl Fn(&[u8], usize) -> Vec<u8>) {
    let folder = Folder::new(&format!("whole-{name}-{:?}", std::thread::current().id()));
    let hub = open(&folder.file());
    for number in 0..3 {
        say(&hub, "a", &format!("event {number}"));
    }
    drop(hub);
    let read = |name: &str| fs::read(folder.0.join(name)).unwrap();
    let first_epoch = String::from_utf8_lossy(&read("history")[8..24]).to_string();
    let server = Served::new();
    for offset in 0..read(name).len() {
        let copy = Folder::new(&format!("damaged-{name}-{:?}", std::thread::current().id()));
        for file in ["history", "history.next"] {
            fs::write(copy.0.join(file), read(file)).unwrap();
        }
        fs::write(copy.0.join(name), change(&read(name), offset)).unwrap();
        let mut all: Vec<String> = (0..3).map(|number| format!("event {number}")).collect();
        for restart in 1..=2 {
            let hub = open(&copy.file());
            server.serve(&hub);
            let mut stream = resume(&server, "a", &format!("{first_epoch}-0"));
            let end = format!("end {restart}");
            say(&hub, "a", &end);
            all.push(end.clone());
            let (mut data, mut gaps) = (Vec::new(), 0);
            while data.last() != Some(&end) {
                let message = stream.next().unwrap();
                match &*message.event {
                    "gap" => gaps += 1,
                    _ => data.push(message.data),
                }
            }
            let mut rest = all.iter();
            let in_order = data.iter().all(|text| rest.any(|known| known == text));
            assert!(in_order, "{data:?} at {offset}");
            let missing = usize::from(data.len() < all.len());
            assert_eq!(gaps, missing, "{data:?} at {offset}");
            server.let_go();
        }
    }
}

/// Events after damage are still read from the file, and not only those in memory.
#[test]
fn a_file_is_read_behind_its_damage() {
    let folder = Folder::new("behind");
    let hub = open(&folder.file());
    let ids: Vec<String> = (1..=20).map(|n| say(&hub, "a", &n.to_string())).collect();
    drop(hub);
    let whole = fs::read_to_string(folder.file()).unwrap();
    fs::write(folder.file(), whole.replace("data: 3\n", "data: x\n")).unwrap();
    let server = serve(&open(&folder.file()));
    for id in [&ids[0], "earliest"] {
        let mut stream = resume(&server, "a", id);
        if id != "earliest" {
            assert_eq!(stream.next().unwrap().event, "gap");
        }
        for expected in 4..=20 {
            assert_eq!(stream.data(), expected.to_string());
        }
    }
}

/// A comment that has the form of a record is not taken for a record when the record that holds it is damaged.
#[test]
fn a_comment_is_no_record() {
    let folder = Folder::new("comment");
    let hub = open(&folder.file());
    let text = b": inside\n\n";
    let sequence = 1000_u64.to_be_bytes();
    let sum = [&sequence[..], b"a", b"\n", text]
        .concat()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let record = format!("1000 {sum:016x} {} a\ninside", text.len());
    hub.publish_wait("a", Event::new().comment(record)).unwrap();
    say(&hub, "a", "2");
    drop(hub);
    let damaged = fs::read_to_string(folder.file()).unwrap();
    fs::write(folder.file(), damaged.replace("\n: 1 ", "\n: 7 ")).unwrap();
    let hub = open(&folder.file());
    assert_eq!(hub.stats().history_events, 1);
    let id = say(&hub, "a", "3");
    assert!(id.ends_with("-3"), "{id}");
}

/// Several parts, epochs and topics, and random damage to one of the files: events that a reader misses are in a gap.
#[test]
fn no_damage_is_passed_over_in_silence() {
    let rounds = std::env::var("FILE_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    let mut random = Random::new(20_261_128);
    let whole = Folder::new("several");
    let history = |folder: &Folder| HubConfig {
        durability: Durability::Os,
        history_events: 4,
        file_bytes: 64 * 1024,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    // Of each topic, the sequences and ids.
    let mut published: [Vec<(u64, String)>; 2] = Default::default();
    for _ in 0..4 {
        let (hub, _) = open_with(history(&whole));
        for _ in 0..6 {
            let topic = random.below(2);
            let text = "x".repeat(random.below(2_000));
            let id = say(&hub, ["a", "b"][topic], &text);
            published[topic].push((sequence(&id), id));
        }
    }
    let files = names(&whole);
    let server = Served::new();
    for round in 0..rounds {
        let folder = Folder::new("changed");
        for name in &files {
            fs::copy(whole.0.join(name), folder.0.join(name)).unwrap();
        }
        let path = folder.0.join(random.pick(&files));
        let mut bytes = fs::read(&path).unwrap();
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.splice(at.., vec![0; random.below(500)])),
            _ => drop(bytes.drain(at..(at + random.below(3_000)).min(bytes.len()))),
        }
        match random.below(5) {
            0 => fs::remove_file(&path).unwrap(),
            _ => fs::write(&path, bytes).unwrap(),
        }
        let config = HubConfig {
            on_error: Arc::new(|_: &str| {}),
            ..history(&folder)
        };
        let hub = match Hub::open(config) {
            Ok(hub) => hub,
            Err(error) => {
                assert!(error.to_string().ends_with("was left as it is"), "{error}");
                continue;
            }
        };
        server.serve(&hub);
        for (topic, of_topic) in ["a", "b"].into_iter().zip(&published) {
            let from = random.below(of_topic.len());
            let mut stream = resume(&server, topic, &of_topic[from].1);
            say(&hub, topic, "end");
            let (mut last, mut covered) = (of_topic[from].0, 0);
            let mut rest = of_topic[from + 1..].iter().peekable();
            loop {
                let message = stream.next().unwrap();
                if message.event == "gap" {
                    let to = message.data.split('"').nth(7).unwrap();
                    covered = sequence(to).max(covered);
                    continue;
                }
                let next = sequence(&message.id);
                assert!(next > covered.max(last), "{topic} {next} in round {round}");
                while let Some((missing, _)) = rest.next_if(|(known, _)| *known < next) {
                    assert!(*missing <= covered, "{topic} {missing} in round {round}");
                }
                let is_known = rest.next_if(|(_, id)| *id == message.id).is_some();
                if message.data == "end" {
                    break;
                }
                assert!(is_known, "{topic} {next} in round {round}");
                last = next;
            }
        }
        server.let_go();
    }
}

fn sequence(id: &str) -> u64 {
    id.split_once('-').unwrap().1.parse().unwrap()
}

#[test]
fn what_cannot_be_written_is_an_error_and_not_delivered() {
    let folder = Folder::new("full");
    let history = HubConfig {
        durability: Durability::Os,
        file_bytes: 64 * 1024,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, errors) = open_with(history);
    let server = serve(&hub);
    let mut stream = EventSource::open(server.addr(), "/events?topic=a", &[]);
    say(&hub, "a", "1");
    assert_eq!(stream.data(), "1");
    // The folder vanishes: nothing can be created in it, and the full segment not be renamed.
    let away = folder.0.with_extension("away");
    fs::rename(&folder.0, &away).unwrap();
    let error = hub.publish_wait("a", Event::data("lost")).unwrap_err();
    let missing = ErrorKind::NotFound;
    assert!(
        matches!(error, PublishError::Storage { kind, .. } if kind == missing),
        "{error}"
    );
    // While the failure lasts, publishers that do not wait for the id get the error too.
    let error = hub.publish("a", Event::data("lost")).unwrap_err();
    assert!(matches!(error, PublishError::Storage { .. }), "{error}");
    // For publishers that never wait, the next flush returns the error once, whether or not both are in one batch.
    for _ in 0..100 {
        hub.try_publish("a", Event::data("lost")).unwrap();
        assert!(matches!(hub.flush(), Err(PublishError::Storage { .. })));
        hub.flush().unwrap();
    }
    fs::rename(&away, &folder.0).unwrap();
    let id = say(&hub, "a", "2");
    assert!(
        id.ends_with("-2"),
        "nobody has seen the numbers in between: {id}"
    );
    assert_eq!(stream.data(), "2");
    eventually(|| errors.lock().unwrap().len() == 2);
    let errors = errors.lock().unwrap();
    assert!(errors[0].starts_with("the history cannot be written: "));
    assert_eq!(errors[1], "the history can be written again");
}

/// A hub whose history cannot be written for a while, and can be again.
fn fails_and_recovers(folder: &Path, config: HubConfig) {
    let hub = Hub::open(HubConfig {
        file_bytes: 64 * 1024,
        history_file: Some(folder.join("history")),
        ..config
    });
    let hub = hub.unwrap();
    let mut reader = hub.receiver("a").unwrap();
    say(&hub, "a", "1");
    let away = folder.with_extension("away");
    for _ in 0..2 {
        fs::rename(folder, &away).unwrap();
        for _ in 0..3 {
            let error = hub.publish("a", Event::data("lost"));
            // The first publisher does not wait, since all was well so far.
            assert!(matches!(error, Ok(()) | Err(PublishError::Storage { .. })));
        }
        assert!(matches!(hub.flush(), Err(PublishError::Storage { .. })));
        fs::rename(&away, folder).unwrap();
        assert!(say(&hub, "a", "again").ends_with(['2', '3']));
    }
    let data = [(); 3].map(|()| reader.recv().unwrap().message().unwrap().data);
    assert_eq!(data, ["1", "again", "again"]);
}

/// The history's disk is full, and so is that of standard error: both may be one.
#[cfg(unix)]
#[test]
fn a_hub_goes_on_whatever_becomes_of_what_it_reports() {
    let test = "a_hub_goes_on_whatever_becomes_of_what_it_reports";
    if let Ok(path) = std::env::var(CHILD) {
        return fails_and_recovers(Path::new(&path), HubConfig::default());
    }
    let folder = Folder::new("reports");
    fails_and_recovers(
        &folder.0,
        HubConfig {
            on_error: Arc::new(|problem: &str| panic!("{problem}")),
            ..HubConfig::default()
        },
    );
    for stderr in [
        Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap()),
        // A pipe that nobody reads.
        Stdio::from(std::io::pipe().unwrap().1),
    ] {
        let folder = Folder::new("stderr");
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, &folder.0)
            .stdout(Stdio::null())
            .stderr(stderr)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// The hook is user code, and may wait for the hub that calls it.
#[test]
fn a_hook_may_publish_what_it_is_told() {
    let folder = Folder::new("alerts");
    let hub: Arc<OnceLock<Hub>> = Arc::default();
    let (told, tells) = mpsc::channel();
    let publisher = Arc::clone(&hub);
    let config = HubConfig {
        file_bytes: 64 * 1024,
        history_file: Some(folder.file()),
        on_error: Arc::new(move |problem: &str| {
            let published = publisher
                .wait()
                .publish_wait("alerts", Event::data(problem));
            told.send(published).unwrap();
        }),
        ..HubConfig::default()
    };
    let hub = hub.get_or_init(|| Hub::open(config).unwrap());
    say(hub, "a", "1");
    let away = folder.0.with_extension("away");
    fs::rename(&folder.0, &away).unwrap();
    assert!(hub.publish_wait("a", Event::data("lost")).is_err());
    let published = tells.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(published, Err(PublishError::Storage { .. })));
    fs::rename(&away, &folder.0).unwrap();
    say(hub, "a", "2");
    assert!(tells.recv_timeout(PATIENCE).unwrap().is_ok());
    let alerts = hub.kept("alerts");
    let alert = alerts[0].message().unwrap().data;
    assert_eq!(alert, "the history can be written again");
}

/// Fills a file up to the size that this process may write. Of a batch of two events, only the first fits, and it is whole.
#[cfg(unix)]
fn publish_until_full(path: &str) {
    let (hub, _) = open_with(HubConfig {
        durability: Durability::Os,
        history_file: Some(path.into()),
        ..HubConfig::default()
    });
    for _ in 0..3 {
        let hub = hub.clone();
        let event = Event::data("x".repeat(300 * 1024));
        std::thread::spawn(move || while hub.publish_wait("a", event.clone()).is_err() {});
    }
    let mut refused = 0;
    for number in 0.. {
        let text = format!("event {number} of many");
        if hub.publish_wait("a", Event::data(&text)).is_err() {
            let file = fs::read(path).unwrap();
            let file = String::from_utf8_lossy(&file);
            assert!(!file.contains(&text), "{text} was refused");
            refused += 1;
        }
        if refused == 20 {
            return;
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_refused_does_not_stay_in_the_file() {
    if let Ok(path) = std::env::var(CHILD) {
        return publish_until_full(&path);
    }
    let folder = Folder::new("refused");
    let status = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ && ulimit -f 256 && exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "what_is_refused_does_not_stay_in_the_file"])
        .env(CHILD, folder.file())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_file_that_is_removed_begins_anew() {
    let folder = Folder::new("removed");
    let hub = open(&folder.file());
    let server = serve(&hub);
    let first = say(&hub, "a", "1");
    for _ in 0..10 {
        say(&hub, "a", "x");
    }
    fs::remove_file(folder.file()).unwrap();
    let newest = say(&hub, "a", "2");
    assert!(fs::read_to_string(folder.file()).unwrap().contains(&newest));
    let mut stream = resume(&server, "a", &first);
    assert_eq!(stream.next().unwrap().event, "gap");
    // The last five are in memory as well.
    for text in ["x", "x", "x", "x", "2"] {
        assert_eq!(stream.data(), text);
    }
}

/// As a rotation of log files does that copies and truncates: what is acknowledged after that is in the file.
#[test]
fn a_file_that_is_cut_off_while_a_hub_writes_to_it_has_what_follows() {
    for kept in [0, 20, 100, 150] {
        let folder = Folder::new("cut");
        let hub = open(&folder.file());
        let first = say(&hub, "a", "1");
        say(&hub, "a", "2");
        let file = fs::File::options().write(true).open(folder.file()).unwrap();
        assert!(file.metadata().unwrap().len() > kept);
        file.set_len(kept).unwrap();
        for text in ["3", "4"] {
            say(&hub, "a", text);
        }
        drop(hub);
        let hub = open(&folder.file());
        let server = serve(&hub);
        let mut stream = resume(&server, "a", &first);
        assert_eq!(stream.next().unwrap().event, "gap", "{kept} bytes");
        assert_eq!([stream.data(), stream.data()], ["3", "4"]);
    }
}

#[test]
fn a_receiver_goes_back_in_the_file() {
    let folder = Folder::new("back");
    let hub = open(&folder.file());
    // More than a receiver takes out of the file at a time.
    let text = |number: u64| format!("{number} {}", "x".repeat(10_000));
    let first = say(&hub, "a", &text(1));
    for number in 2..=20 {
        say(&hub, "a", &text(number));
    }
    let data = |event: Event| event.message().unwrap().data;
    let mut receiver = hub.receiver("a").unwrap().earliest();
    let some = receiver.by_ref().take(10).map(data);
    assert!(some.eq((1..=10).map(text)));
    let again = receiver.after(&first).take(19).map(data);
    assert!(again.eq((2..=20).map(text)));
}

const CHILD: &str = "TINY_SSE_FILE";

/// Publishes without end, in the process that will be killed. Prints each number when it has been acknowledged.
fn publish_for_ever(path: &str) {
    let begin: u64 = std::env::var("TINY_SSE_BEGIN").unwrap().parse().unwrap();
    let history = HubConfig {
        file_bytes: 400 * 1024,
        history_events: 20,
        history_file: Some(path.into()),
        ..HubConfig::default()
    };
    let (hub, _) = open_with(history);
    let threads: Vec<_> = (0..4_u64)
        .map(|publisher| {
            let hub = hub.clone();
            std::thread::spawn(move || {
                for number in begin.. {
                    let text = format!("{publisher} {number}");
                    let text = format!("{text} {}", "x".repeat((number % 700) as usize));
                    let id = hub.publish_wait("a", Event::data(text)).unwrap();
                    println!("acknowledged {id} {publisher} {number}");
                }
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
}

#[test]
fn what_is_acknowledged_survives_a_kill() {
    if let Ok(path) = std::env::var(CHILD) {
        return publish_for_ever(&path);
    }
    let rounds = std::env::var("FILE_ROUNDS").map_or(40, |rounds| rounds.parse().unwrap());
    let folder = Folder::new("kill");
    let mut random = Random::new(20_261_121);
    // Of each publisher, the numbers seen by a reader that has followed from the beginning.
    let mut last_id = "earliest".to_string();
    let server = Served::new();
    let mut seen: Vec<Vec<u64>> = vec![Vec::new(); 4];
    for round in 0..rounds {
        let begin = (round as u64 + 1) * 1_000_000;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "what_is_acknowledged_survives_a_kill",
                "--nocapture",
            ])
            .env(CHILD, folder.file())
            .env("TINY_SSE_BEGIN", begin.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged: Vec<Vec<u64>> = vec![Vec::new(); 4];
        let mut take = |line: &str| {
            if let Some((_, rest)) = line.split_once("acknowledged ") {
                let words: Vec<&str> = rest.split(' ').collect();
                // The last line may be cut off by the kill.
                if let [_, publisher, number] = words[..]
                    && number.len() == begin.to_string().len()
                {
                    let publisher: usize = publisher.parse().unwrap();
                    acknowledged[publisher].push(number.parse().unwrap());
                }
            }
        };
        for _ in 0..random.below(150) {
            take(&lines.next().unwrap().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| take(&line.unwrap()));

        let (hub, _) = open_with(HubConfig {
            file_bytes: 400 * 1024,
            history_events: 20,
            history_file: Some(folder.file()),
            ..HubConfig::default()
        });
        server.serve(&hub);
        let mut stream = resume(&server, "a", &last_id);
        hub.publish_wait("a", Event::data("end")).unwrap();
        loop {
            let message = stream.next().unwrap();
            assert_eq!(message.event, "", "a gap: {message:?}");
            last_id = message.id;
            if message.data == "end" {
                break;
            }
            let mut words = message.data.split(' ');
            let publisher: usize = words.next().unwrap().parse().unwrap();
            let number: u64 = words.next().unwrap().parse().unwrap();
            assert!(
                seen[publisher].last().is_none_or(|last| *last < number),
                "twice, or out of order"
            );
            seen[publisher].push(number);
        }
        for (publisher, numbers) in acknowledged.iter().enumerate() {
            for number in numbers {
                assert!(
                    seen[publisher].binary_search(number).is_ok(),
                    "{publisher} {number} is gone"
                );
            }
            // Events that came without an acknowledgement were on their way when the process was killed.
            let of_round = seen[publisher]
                .iter()
                .filter(|number| **number >= begin)
                .count();
            assert!(
                of_round <= numbers.len() + 1,
                "{of_round} of {}",
                numbers.len()
            );
        }
        server.let_go();
    }
}

#[test]
fn what_was_published_before_the_end_of_the_program_is_in_the_file() {
    let folder = Folder::new("last-handle");
    for round in 1..=3 {
        let hub = open(&folder.file());
        for number in 0..1000 {
            let event = Event::data(number.to_string());
            hub.publish("a", event).unwrap();
        }
        // The drop of the last handle flushes, and so does a call before it.
        if round == 2 {
            hub.flush().unwrap();
            let text = fs::read_to_string(folder.file()).unwrap();
            assert_eq!(text.matches("\ndata: ").count(), 2000);
        }
        drop(hub);
        let text = fs::read_to_string(folder.file()).unwrap();
        assert_eq!(text.matches("\ndata: ").count(), round * 1000);
    }
}

#[test]
fn an_own_id_that_memory_has_no_more_goes_on_where_memory_begins() {
    let folder = Folder::new("own-id");
    let history = HubConfig {
        history_events: 10,
        durability: Durability::Os,
        history_file: Some(folder.file()),
        ..HubConfig::default()
    };
    let (hub, _) = open_with(history);
    let server = Served::new();
    server.serve(&hub);
    let epoch = hub.publish_wait("a", Event::data("0")).unwrap().to_string();
    let epoch = epoch.split_once('-').unwrap().0;
    for number in 1..100 {
        let event = Event::data(number.to_string());
        let event = event.id(format!("row {number}")).unwrap();
        hub.publish_wait("a", event).unwrap();
    }
    // A known id: right after it. An unknown id: after a gap, which ends at the last event that is not in memory. Not from the
    // beginning of the file: a client that is often cut off would never reach its end.
    let mut known = resume(&server, "a", "row 95");
    assert_eq!(known.data(), "96");
    let mut unknown = resume(&server, "a", "row 50");
    let gap = unknown.next().unwrap();
    assert_eq!(gap.event, "gap");
    let told = format!(r#"{{"from":"row 50","to":"{epoch}-90","lost":null}}"#);
    assert_eq!(gap.data, told);
    assert_eq!(unknown.data(), "90");
    // An id of the hub's resumes from the file.
    let mut own = resume(&server, "a", &format!("{epoch}-1"));
    assert_eq!(own.data(), "1");
    server.let_go();
}
