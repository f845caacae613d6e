//! Each example starts, and does what its header says first.

#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::UNIX_EPOCH;

use program::Program;
use support::{Client, EventSource, eventually};

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
        if name == "wire" || name == "follow" {
            continue; // The first is its own client, the second has no server.
        }
        let Some(example) = Program::example(&name) else {
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
    let Some(example) = Program::example("channels") else {
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
    let Some(example) = Program::example("resume") else {
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

/// The server's process ends in the middle of the stream, and another one serves at the same address.
#[test]
fn follow_survives_a_restart() {
    let Some(clock) = Program::example("clock") else {
        return;
    };
    let address = clock.address();
    let url = format!("http://{address}/");
    let Some(follow) = Program::example_with("", "follow", &url) else {
        return;
    };
    let read = || follow.told("data: ").parse::<u64>().unwrap();
    let first = read();
    drop(clock);
    let port = address.port().to_string();
    let _clock = Program::example_with("", "clock", &port).unwrap();
    // What the first clock has sent is read before.
    let restart = UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(first <= restart);
    while read() <= restart {}
}

#[test]
fn notifications_are_ones_own() {
    let Some(example) = Program::example("notifications") else {
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
    let notification = events.data();
    let (time, text) = notification.split_once('\n').unwrap();
    assert!(time.parse::<u64>().is_ok(), "{notification:?}");
    assert_eq!(text, "for ann");
    let online = || Client::connect(address).get("/online").text().to_string();
    assert_eq!(online(), "ann\n");
    for fields in [&cookie[..], &[]] {
        client.request("GET", "/events/ben", fields, b"");
        assert_eq!(client.answer().status(), 403);
    }
    // A user who logs out gets no more events, and cannot connect again.
    client.request("POST", "/logout", &cookie, b"");
    assert_eq!(client.answer().status(), 204);
    assert!(events.next().is_none());
    eventually(|| online().is_empty());
    client.request("GET", "/events/ann", &cookie, b"");
    assert_eq!(client.answer().status(), 403);
}

#[test]
fn tokens_end_with_a_last_word() {
    let Some(example) = Program::example("tokens") else {
        return;
    };
    let mut client = Client::connect(example.address());
    #[rustfmt::skip] // A row is a line.
    let rows: [(&str, u16, &str); 5] = [
        ("What is that?", 400, "the body is not JSON"),
        ("{}", 400, "there is no message to answer"),
        (r#"{"messages":[]}"#, 400, "there is no message to answer"),
        (r#"{"messages":[{"content":"Why?"}]}"#, 200, r#""content":"You asked in 1 words. "#),
        (r#"{"messages":[{"content":[{"text":"a \"b\""}]}],"model":"\u0061\n"}"#, 200, r#""model":"a\u000a""#),
    ];
    for (body, status, told) in rows {
        client.request("POST", "/v1/chat/completions", &[], body.as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status(), status, "{body}");
        assert!(answer.text().contains(told), "{body}: {}", answer.text());
    }
    let body = br#"{"stream": true, "messages": [{"role": "user", "content": "What is that?"}]}"#;
    client.request("POST", "/v1/chat/completions", &[], body);
    let mut stream = EventSource::answer(client);
    let first = stream.data();
    let delta = r#""choices":[{"index":0,"delta":{"content":"You "},"finish_reason":null}]}"#;
    assert!(first.ends_with(delta), "{first}");
    let mut last = String::new();
    while let Some(event) = stream.next() {
        last = event.data;
    }
    assert_eq!(last, "[DONE]");
}

/// Sends a request that names this machine as its host, as the example demands.
fn ask_mcp(address: SocketAddr, method: &str, fields: &[(&str, &str)], body: &str) -> Client {
    let mut request = format!("{method} /mcp HTTP/1.1\r\nHost: {address}\r\n");
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    let mut client = Client::connect(address);
    client.send(request + &format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    client
}

/// Method, fields, body; status, and what the answer contains.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

#[test]
fn mcp_answers_as_the_protocol_says() {
    let Some(example) = Program::example_in("mcp", "mcp") else {
        return;
    };
    let address = example.address();
    let ask =
        |method: &str, fields: &[(&str, &str)], body: &str| ask_mcp(address, method, fields, body);
    let initialize = r#"{"jsonrpc":"2.0","id":"a","method":"initialize"}"#;
    let answer = ask("POST", &[], initialize).answer();
    let told = r#"{"jsonrpc":"2.0","id":"a","result":{"protocolVersion":"2025-11-25","#;
    assert!(answer.text().starts_with(told), "{}", answer.text());
    let session = answer.head.field("mcp-session-id").unwrap();
    let ours = ("Mcp-Session-Id", session);
    let call = r#"{"id":7,"method":"tools/call","params":{"name":"count","arguments":{"to":1}}}"#;
    #[rustfmt::skip] // A row is a line.
    let rows: [Row; 12] = [
        ("POST", &[], "{", 400, r#""id":null,"error":{"code":-32700"#), // Not JSON.
        ("POST", &[], call, 400, "no session"),
        ("POST", &[("Mcp-Session-Id", "../x")], call, 404, "no such session"), // A client then begins a new one.
        ("POST", &[ours, ("Origin", "http://evil.example")], call, 403, ""), // Another site's page.
        ("POST", &[ours], r#"{"method":"notifications/initialized"}"#, 202, ""),
        ("POST", &[ours], r#"{"id":1,"method":"ping"}"#, 200, r#""id":1,"result":{}"#),
        ("POST", &[ours], r#"{"id":"x\n","method":"tools/list"}"#, 200, r#""id":"x\u000a","result":{"tools":[{"name":"count""#),
        ("POST", &[ours], r#"{"id":1,"method":"tools/call","params":{"name":"add"}}"#, 200, r#""error":{"code":-32602"#),
        ("POST", &[ours], r#"{"id":1,"method":"server/discover"}"#, 200, r#""error":{"code":-32601"#),
        ("GET", &[ours], "", 405, ""), // The only streams are those of calls.
        ("GET", &[ours, ("Last-Event-ID", "0-1")], "", 400, "no such event"),
        ("POST", &[ours], call, 200, r#""id":7,"result":{"content":[{"type":"text","text":"counted to 1"}]}"#),
    ];
    for (method, fields, body, status, told) in rows {
        let answer = ask(method, fields, body).answer();
        assert_eq!(answer.status(), status, "{body}");
        assert!(answer.text().contains(told), "{body}: {}", answer.text());
    }
    // A client of this version can resume before anything has happened, and again after the answer.
    let fields = [ours, ("MCP-Protocol-Version", "2025-11-25")];
    let mut stream = EventSource::answer(ask("POST", &fields, call));
    let primed = stream.next().unwrap();
    assert_eq!(primed.data, "");
    let answer = stream.next();
    assert_eq!(stream.next(), None);
    for _ in 0..2 {
        let fields = [ours, ("Last-Event-ID", &primed.id)];
        let mut again = EventSource::answer(ask("GET", &fields, ""));
        assert_eq!(again.next(), answer);
        assert_eq!(again.next(), None);
    }
    for status in [204, 404] {
        assert_eq!(ask("DELETE", &[ours], "").answer().status(), status);
    }
}

#[test]
fn htmx_brings_html_that_nobody_can_forge() {
    let Some(example) = Program::example("htmx") else {
        return;
    };
    let address = example.address();
    let mut client = Client::connect(address);
    client.request("POST", "/notes", &[FORM], b"note=%3Cb%3E+%26+c");
    assert_eq!(client.answer().status(), 204);
    client.request("POST", "/close", &[], b"");
    assert_eq!(client.answer().status(), 204);
    // A page that comes later gets the notes, and what closes its stream.
    let mut events = EventSource::open(address, "/notes", &[]);
    assert_eq!(events.data(), "<li>&lt;b&gt; &amp; c</li>");
    assert_eq!(events.next().unwrap().event, "closed");
    assert_eq!(events.next(), None);
}

#[test]
fn datastar_brings_the_whole_list() {
    let Some(example) = Program::example("datastar") else {
        return;
    };
    let address = example.address();
    let mut client = Client::connect(address);
    let mut open = EventSource::open(address, "/notes", &[]);
    #[rustfmt::skip] // A row is a line.
    let lists = [
        r#"elements <ul id="notes"></ul>"#,
        "elements <ul id=\"notes\">\nelements <li>a</li></ul>",
        "elements <ul id=\"notes\">\nelements <li>a</li>\nelements <li>&lt;/ul&gt;  b</li></ul>",
    ];
    let mut first = None;
    for (list, note) in lists.into_iter().zip(["a", "%3C/ul%3E%0D%0Ab", ""]) {
        for stream in [&mut open, &mut EventSource::open(address, "/notes", &[])] {
            let event = stream.next().unwrap();
            assert_eq!(
                (&*event.event, &*event.data),
                ("datastar-patch-elements", list)
            );
            first.get_or_insert(event.id);
        }
        client.request("POST", "/notes", &[FORM], format!("note={note}").as_bytes());
        assert_eq!(client.answer().status(), 204);
    }
    // A page that was away longer than the hub remembers still gets the newest list.
    let fields = [("Last-Event-ID", first.as_deref().unwrap())];
    let mut again = EventSource::open(address, "/notes", &fields);
    assert_eq!(again.next().unwrap().event, "gap");
    assert!(again.data().ends_with("<li></li></ul>"));
}

/// The type of a form that a browser sends.
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A size that the machine cannot hold would end the process.
#[test]
fn testbed_outlives_numbers_that_are_too_large() {
    let Some(example) = Program::example("testbed") else {
        return;
    };
    let mut client = Client::connect(example.address());
    let answer = client.get("/load/publish?size=99999999999");
    assert_eq!(
        (answer.status(), answer.text()),
        (500, "event of 8388616 bytes is larger than 8388608\n")
    );
    let answer = client.get("/load/publish?n=0&topics=99999999999");
    assert_eq!(answer.text(), "published 0\n");
    assert_eq!(client.get("/load/publish").text(), "published 1\n");
}

#[test]
fn auth_lets_in_by_token_cookie_and_ticket() {
    let Some(example) = Program::example("auth") else {
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
    let Some(example) = Program::example("resilient") else {
        return;
    };
    let address = example.address();
    // The reading is still there, unless the source is failing at the moment.
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
    let Some(example) = Program::example("hub") else {
        return;
    };
    let mut client = Client::connect(example.address());
    client.request("POST", "/events/doors", &[], b"The front door is open.");
    assert_eq!(client.answer().status(), 401);
}

#[test]
fn the_hub_serves_the_figures_of_its_server_and_its_own() {
    let Some(example) = Program::example("hub") else {
        return;
    };
    let answer = Client::connect(example.address()).get("/metrics");
    assert_eq!(
        answer.head.field("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let body = answer.text();
    for line in ["sse_server_connections 1", "sse_hub_readers 0"] {
        assert!(body.lines().any(|found| found == line), "{line}: {body}");
    }
}

#[test]
fn wire_knows_all_that_goes_over_it() {
    let Some(mut example) = Program::example("wire") else {
        return;
    };
    let lines = example.rest();
    assert!(example.succeeded(), "{lines:#?}");
    for what in ["request line", "heartbeat", "event ends", "the last chunk"] {
        let told = lines.iter().any(|line| line.contains(what));
        assert!(told, "nothing of {what:?} in {lines:#?}");
    }
    let unknown = lines.iter().find(|line| line.ends_with("something else"));
    assert_eq!(unknown, None);
}

/// Two hundred readers and a publisher, over three restarts: no connection is refused, and no event is missed.
#[cfg(unix)]
#[test]
fn handover_refuses_nobody_and_loses_nothing() {
    const READERS: usize = 200;
    const EVENTS: usize = 400;
    let Some(example) = Program::example_in("handover", "handover") else {
        return;
    };
    let address = example.address();
    let post = |target: &str, body: &str| {
        let mut client = Client::connect(address);
        client.request("POST", target, &[("Connection", "close")], body.as_bytes());
        let status = client.answer().status();
        assert!(status < 300, "{target}: {status}");
    };
    let url = format!("http://{address}/events");
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut source = tiny_sse::EventSource::new(&url).unwrap();
                let mut next = 0;
                while next < EVENTS {
                    match source.next().expect("no 204") {
                        Ok(message) if message.data == "start" => {}
                        Ok(message) => {
                            // A reader may have come when some were there already.
                            let number: usize = message.data.parse().expect("no gap");
                            assert!(number == next || next == 0, "{number} after {next}");
                            next = number + 1;
                        }
                        Err(error) => {
                            assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused);
                        }
                    }
                }
            });
        }
        post("/events", "start");
        for number in 0..EVENTS {
            post("/events", &number.to_string());
            if number % 100 == 50 && number < 300 {
                post("/restart", "");
                // The new process serves: the old one is gone from here on.
                example.address();
            }
        }
    });
    post("/stop", "");
}
