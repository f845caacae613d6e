//! HTTP/1.1 over real sockets (RFC 9110, RFC 9112): what a client sends, byte for byte, and what it gets.

#![cfg_attr(not(target_os = "linux"), allow(unused_imports, dead_code))] // The tests that count threads are for Linux.

mod support;

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::{
    Child, Client, Random, TestServer, announce, eventually, serve_parent, start, wait_for_parent,
};
use tiny_sse::{Config, Cors, Event, Method, Next, Request, Response, Server, Sse};

/// Larger than what leaves in one write with its head.
const BIG: usize = 100_000;

fn site(server: Server) -> Server {
    server
        .get("/hello", |_| "hello\n")
        .get("/big", |_| "x".repeat(BIG))
        .get("/empty", |_| "")
        .get("/moved", |_| {
            Response::new(303).with_header("Location", "/hello")
        })
        .get("/reset", |_| (205, "not sent"))
        .get("/nothing", |_| Response::new(204))
        .get("/unchanged", |_| {
            Response::new(304).with_header("ETag", "\"1\"")
        })
        .get("/fails", |_| {
            Err::<Response, _>(Response::failed("the disk is on fire"))
        })
        .get("/panics", |_| -> Response { panic!("on purpose") })
        .get("/stream", |_| {
            Sse::spawn(|events| drop(events.send(Event::data("1"))))
        })
        .post("/echo", echo)
        .any("/any", |request| request.method().to_string())
}

fn echo(request: &Request) -> Response {
    Response::bytes("application/octet-stream", request.body().to_vec())
}

fn serve() -> TestServer {
    start(Config::default(), site)
}

/// Sends the bytes on a new connection, whole and then byte by byte.
#[track_caller]
fn twice(server: &TestServer, bytes: &str, mut check: impl FnMut(&mut Client)) {
    let mut client = server.connect();
    client.send(bytes);
    check(&mut client);
    let mut client = server.connect();
    for byte in bytes.as_bytes() {
        client.send([*byte]);
    }
    check(&mut client);
}

/// The connection serves another request.
#[track_caller]
fn stays(client: &mut Client) {
    assert_eq!(client.get("/hello").text(), "hello\n");
}

#[test]
fn an_answer_is_these_bytes() {
    let server = serve();
    let mut client = server.connect();
    let before = SystemTime::now();
    let answer = client.get("/hello");
    let after = SystemTime::now();
    assert_eq!(
        answer.head.without_date(),
        "HTTP/1.1 200 OK\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 6\r\n\r\n"
    );
    assert_eq!(answer.text(), "hello\n");

    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let date = answer.head.field("date").unwrap();
    assert!(
        (seconds(before)..=seconds(after)).any(|now| date == imf_fixdate(now)),
        "{date}"
    );
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7), by counting days.
fn imf_fixdate(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let weekday = DAYS[(seconds / 86400 % 7) as usize];
    let (mut year, mut month, mut day) = (1970, 1, 1);
    for _ in 0..seconds / 86400 {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + i32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        day += 1;
        if day > days {
            (month, day) = (month + 1, 1);
        }
        if month > 12 {
            (year, month) = (year + 1, 1);
        }
    }
    let name = &MONTHS[month * 3 - 3..month * 3];
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {name} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[test]
fn a_connection_answers_one_request_after_the_other() {
    let server = serve();
    let mut client = server.connect();
    for _ in 0..3 {
        for (target, status) in [
            ("/hello", 200),
            ("/big", 200),
            ("/empty", 200),
            ("/moved", 303),
            ("/nothing", 204),
            ("/unchanged", 304),
            ("/fails", 500),
            ("/panics", 500),
            ("/nowhere", 404),
        ] {
            assert_eq!(client.get(target).status(), status, "{target}");
        }
        client.request("POST", "/echo", &[], b"body");
        assert_eq!(client.answer().text(), "body");
    }
}

/// A connection reads all its requests into one.
#[test]
fn nothing_of_a_request_is_left_for_the_next() {
    let told = |request: &Request| {
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}\n",
            request.param("name"),
            request.query("q"),
            request.header("x-a"),
            request.cookie("c"),
            request.form("f"),
            request.last_event_id(),
        )
    };
    let server = start(Config::default(), |server| {
        site(server).any("/tell", told).any("/tell/{name}", told)
    });
    let mut client = server.connect();
    let full = "POST /tell/n?q=1&last_event_id=7 HTTP/1.1\r\nHost: a\r\nX-A: 2\r\nCookie: c=3\r\n\
        Content-Length: 3\r\n\r\nf=4";
    let bare = "GET /tell HTTP/1.1\r\nHost: a\r\n\r\n";
    let large = format!(
        "GET /hello?{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "q=1&".repeat(1000)
    );
    let chunked = "POST /tell HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
        Expect: 100-continue\r\n\r\n3\r\nf=5\r\n0\r\nX-A: trailer\r\n\r\n";
    let (all, none) = (
        r#""n" Some("1") Some("2") Some("3") Some("4") Some("7")"#,
        r#""" None None None None None"#,
    );
    let form = r#""" None None None Some("5") None"#;
    for (request, expected) in [
        (full, all),
        (bare, none),      // Each kind of part is gone.
        (full, all),       // And comes again.
        (&large, "hello"), // A thousand of one kind.
        (bare, none),      // Are gone too.
        (chunked, form),   // Chunks, an expectation that came with its body, a trailer.
        (bare, none),      // The next one has no body, and expects nothing.
        (
            "GET /fails HTTP/1.1\r\nHost: a\r\nX-A: 2\r\n\r\n",
            "500 Internal Server Error",
        ), // Nor is an error left.
        (bare, none),
    ] {
        client.send(request);
        assert_eq!(client.answer().text(), format!("{expected}\n"), "{request}");
    }
    // A request without a method is no HEAD, as the one before was.
    client.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    client.send("hello\r\n\r\n");
    let answer = client.answer();
    assert_eq!(
        answer.text(),
        "request line is not method, target and version\n"
    );
    client.ends();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve();
    let requests = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n\
                    HEAD /big HTTP/1.1\r\nHost: a\r\n\r\n\
                    POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none\
                    POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
                    POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /\
                    GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
                    GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    twice(&server, requests, |client| {
        assert_eq!(client.answer().text(), "hello\n");
        assert_eq!(client.head().field("content-length"), Some("100000"));
        assert_eq!(client.answer().text(), "one");
        assert_eq!(client.answer().text(), "two");
        assert_eq!(client.answer().status(), 404); // Its body is not taken for a request.
        assert_eq!(client.answer().text(), "hello\n");
        client.ends(); // A request after one that closes gets no response (RFC 9112 section 9.6).
    });
}

#[test]
fn head_gets_the_head_of_get_and_no_body() {
    let server = serve();
    for target in [
        "/hello",
        "/big",
        "/empty",
        "/moved",
        "/nothing",
        "/unchanged",
        "/fails",
        "/panics",
        "/nowhere",
        "/stream",
    ] {
        let mut get = server.connect();
        get.request("GET", target, &[], b"");
        let mut head = server.connect();
        head.request("HEAD", target, &[], b"");
        assert_eq!(
            head.head().without_date(),
            get.head().without_date(),
            "{target}"
        );
        stays(&mut head); // The next byte belongs to the next response.
    }
}

#[test]
fn a_refusal_of_head_has_no_body() {
    let server = serve();
    for (request, status) in [
        ("HEAD /hello HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400), // RFC 9110 section 9.3.2.
        ("HEAD /hello HTTP/1.1\r\n\r\n", 400),                     // No host.
        ("HEAD /% HTTP/1.1\r\nHost: a\r\n\r\n", 400),              // The target is malformed.
        ("HEAD /hello\r\n\r\n", 400),                              // The request line is.
        ("HEAD /hello HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (&format!("HEAD /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)), 414),
        (
            &format!("HEAD / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000)),
            431,
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n",
            413,
        ),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
    ] {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.head().status, status, "{request}");
        client.ends();
    }
}

#[test]
fn the_connection_ends_or_stays_as_the_client_says() {
    let server = serve();
    let check = |request: &str, connection: Option<&str>, next: bool| {
        twice(&server, request, |client| {
            let answer = client.answer();
            assert_eq!(answer.status(), 200, "{request}");
            assert_eq!(answer.head.field("connection"), connection, "{request}");
            if next { stays(client) } else { client.ends() }
        });
    };
    let http11 = |fields: &str| format!("GET /hello HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let http10 = |fields: &str| format!("GET /hello HTTP/1.0\r\n{fields}\r\n");
    check(&http11(""), None, true); // HTTP/1.1 stays (RFC 9112 section 9.3).
    check(&http11("Connection: close\r\n"), Some("close"), false); // Unless asked to end.
    check(&http11("connection: x, CLOSE\r\n"), Some("close"), false); // A list, in any case.
    check(
        &http11("Connection: x\r\nConnection: close\r\n"),
        Some("close"),
        false,
    ); // Over several lines.
    check(&http11("Connection: keep-alive\r\n"), None, true); // Asks for the default.
    check(&http10(""), Some("close"), false); // HTTP/1.0 ends.
    check(
        &http10("Connection: Keep-Alive\r\n"),
        Some("keep-alive"),
        true,
    ); // Unless it is asked to stay.
    check(
        &http10("Connection: keep-alive, close\r\n"),
        Some("close"),
        false,
    ); // Close goes first.
    check("GET /hello HTTP/1.7\r\nHost: a\r\n\r\n", None, true); // A later 1.x is understood as 1.1 (RFC 9110 section 2.5).

    // A stream for HTTP/1.0 ends by close, and its head says so to HEAD as well.
    let mut client = server.connect();
    client.send("HEAD /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.head().field("connection"), Some("close"));
    client.ends();
    // As it does to a client that asks to close after this response.
    let mut client = server.connect();
    client.send("HEAD /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.head().field("connection"), Some("close"));
    client.ends();
}

#[test]
fn a_request_that_has_no_answer_here_is_told_why() {
    let server = serve();
    /// `rest` is the text between the status line and the empty line, except for Date.
    #[track_caller]
    fn check(server: &TestServer, request: &str, status: &str, rest: &str, body: &str, next: bool) {
        twice(server, &format!("{request}\r\nHost: a\r\n\r\n"), |client| {
            let answer = client.answer();
            assert_eq!(
                answer.head.without_date(),
                format!("HTTP/1.1 {status}\r\n{rest}\r\n")
            );
            assert_eq!(answer.text(), body);
            if next { stays(client) } else { client.ends() }
        });
    }
    const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\n";
    check(
        &server,
        "GET /nowhere HTTP/1.1",
        "404 Not Found",
        &format!("{TEXT}Content-Length: 14\r\n"),
        "404 Not Found\n",
        true,
    ); // No route.
    check(
        &server,
        "POST /hello HTTP/1.1",
        "405 Method Not Allowed",
        &format!("{TEXT}Allow: GET, HEAD\r\nContent-Length: 23\r\n"),
        "405 Method Not Allowed\n",
        true,
    ); // A path that knows other methods (RFC 9110 section 15.5.6).
    check(
        &server,
        "GET /echo HTTP/1.1",
        "405 Method Not Allowed",
        &format!("{TEXT}Allow: POST\r\nContent-Length: 23\r\n"),
        "405 Method Not Allowed\n",
        true,
    ); // The other way round.
    check(
        &server,
        "OPTIONS /hello HTTP/1.1",
        "204 No Content",
        "Allow: GET, HEAD\r\n",
        "",
        true,
    ); // It asks for the methods (RFC 9110 section 9.3.7); no length with 204 (section 8.6).
    check(
        &server,
        "OPTIONS * HTTP/1.1",
        "204 No Content",
        "",
        "",
        true,
    ); // Asks whether a server is there.
    check(
        &server,
        "BREW /hello HTTP/1.1",
        "501 Not Implemented",
        &format!("{TEXT}Connection: close\r\nContent-Length: 26\r\n"),
        "method is not implemented\n",
        false,
    ); // A method that no path knows (RFC 9110 section 9.1).
    check(
        &server,
        "GET /hello HTTP/2.0",
        "505 HTTP Version Not Supported",
        &format!("{TEXT}Connection: close\r\nContent-Length: 30\r\n"),
        "HTTP version is not supported\n",
        false,
    ); // Another major version.
    check(
        &server,
        "GET hello HTTP/1.1",
        "400 Bad Request",
        &format!("{TEXT}Connection: close\r\nContent-Length: 42\r\n"),
        "request target is none of the known forms\n",
        false,
    ); // Not a request at all.
}

#[test]
fn an_answer_without_content_has_no_body() {
    let server = serve();
    let mut client = server.connect();
    for (target, head) in [
        ("/nothing", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "/unchanged",
            "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n",
        ),
        (
            "/reset",
            "HTTP/1.1 205 Reset Content\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        assert_eq!(client.get(target).head.without_date(), head);
    }
    assert_eq!(client.get("/empty").head.field("content-length"), Some("0")); // This one has, and it is empty.
}

#[test]
fn any_method_reaches_a_route_for_any() {
    let server = serve();
    let mut client = server.connect();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
        client.request(method, "/any", &[], b"");
        assert_eq!(client.answer().text(), method);
    }
}

#[test]
fn bodies_arrive_in_either_framing() {
    let server = serve();
    let check = |framing_and_body: &str, expected: &str| {
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{framing_and_body}");
        twice(&server, &request, |client| {
            let answer = client.answer();
            assert_eq!(
                (answer.status(), answer.text()),
                (200, expected),
                "{request}"
            );
            stays(client);
        });
    };
    let chunked = |chunks: &str| format!("Transfer-Encoding: chunked\r\n\r\n{chunks}");
    check("\r\n", ""); // No body.
    check("Content-Length: 0\r\n\r\n", ""); // Announced as empty.
    check("Content-Length: 5\r\n\r\nab\r\nc", "ab\r\nc"); // Any bytes.
    check("Content-Length: 0000005\r\n\r\nabcde", "abcde"); // `1*DIGIT` (RFC 9110 section 8.6).
    check(&chunked("0\r\n\r\n"), ""); // The last chunk alone.
    check(&chunked("3\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n"), "abc\r\n"); // CRLF within the data.
    check(
        &chunked("A\r\n0123456789\r\na\r\n9876543210\r\n0\r\n\r\n"),
        "01234567899876543210",
    ); // Digits of either case.
    check(&chunked("3;name=value\r\nabc\r\n0\r\n\r\n"), "abc"); // Extensions are ignored (RFC 9112 section 7.1.1).
    check(
        &chunked("3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n"),
        "abc",
    ); // And so are trailers (section 7.1.2).
    check(&chunked("003\r\nabc\r\n000\r\n\r\n"), "abc"); // Leading zeros.
}

#[test]
fn a_client_that_expects_a_100_gets_it_where_the_body_is_wanted() {
    let server = start(
        Config {
            max_body_bytes: 4,
            ..Config::default()
        },
        site,
    );
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    let check = |line_and_fields: &str, body: &str, continues: bool, status: u16, next: bool| {
        let mut client = server.connect();
        client.send(format!("{line_and_fields}Expect: 100-Continue\r\n\r\n"));
        if continues {
            let interim = client.exactly(CONTINUE.len());
            assert_eq!(String::from_utf8(interim).unwrap(), CONTINUE);
            client.send(body);
        }
        let answer = client.answer();
        assert_eq!(answer.status(), status, "{line_and_fields}");
        if next {
            stays(&mut client)
        } else {
            client.ends()
        }
    };
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\n";
    let four = format!("{post}Content-Length: 4\r\n");
    check(&four, "1234", true, 200, true); // Before the body is read, in any case of the word (RFC 9110 section 10.1.1).
    check(
        &format!("{post}Transfer-Encoding: chunked\r\n"),
        "4\r\n1234\r\n0\r\n\r\n",
        true,
        200,
        true,
    ); // In chunks as well.
    check(
        &format!("{post}Transfer-Encoding: chunked\r\n"),
        "5\r\n12345\r\n0\r\n\r\n",
        true,
        413,
        false,
    ); // Chunks do not announce that they are too many.
    check(
        &format!("{post}Content-Length: 5\r\n"),
        "",
        false,
        413,
        false,
    ); // A length does.
    check(
        &format!("{post}Content-Length: 0\r\n"),
        "",
        false,
        200,
        true,
    ); // There is nothing to wait for.
    check(post, "", false, 200, true); // Nor here.
    check("GET /hello HTTP/1.1\r\nHost: a\r\n", "", false, 200, true); // Nor here.
    check(
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n",
        "",
        false,
        404,
        false,
    ); // No handler: the final response comes at once, and the body is never sent.
    check(
        "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n",
        "",
        false,
        405,
        false,
    ); // Nor with this method.
    check(
        &four.replace(post, &format!("{post}Expect: tea\r\n")),
        "",
        false,
        417,
        false,
    ); // An unknown expectation cannot be met.

    // A client that did not wait gets its response, with or without a 100 before it.
    let mut client = server.connect();
    client.send(format!("{four}Expect: 100-continue\r\n\r\n1234"));
    let mut head = client.head();
    if head.status == 100 {
        head = client.head();
    }
    assert_eq!((head.status, client.exactly(4)), (200, b"1234".to_vec()));

    // HTTP/1.0 does not know what a 100 is.
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    client.send("1234");
    assert_eq!(client.answer().text(), "1234");
}

/// n - 1 and n pass, n + 1 does not.
#[test]
fn limits_are_where_they_are_said_to_be() {
    let config = Config {
        max_request_line_bytes: 100,
        max_head_bytes: 200,
        max_fields: 5,
        max_body_bytes: 50,
        ..Config::default()
    };
    let server = start(config, |server| site(server).get("/{*path}", |_| "any"));
    let check = |request: &dyn Fn(usize) -> String, n: usize, refused: u16| {
        for (size, status) in [(n - 1, 200), (n, 200), (n + 1, refused)] {
            twice(&server, &request(size), |client| {
                let answer = client.answer();
                assert_eq!(answer.status(), status, "{}", request(size));
                if status == 200 {
                    stays(client)
                } else {
                    client.ends()
                }
            });
        }
    };
    // "GET / HTTP/1.1" without the target's slash has 13 bytes; the line end is not part of the line.
    let line = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(n - 14));
    check(&line, 100, 414);
    // "Host: a", "X: " and the three line ends have 7 + 3 + 6 bytes.
    let head = |n: usize| {
        format!(
            "GET /a HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(n - 16)
        )
    };
    check(&head, 200, 431);
    let fields = |n: usize| {
        format!(
            "GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(n - 1)
        )
    };
    check(&fields, 5, 431);
    let length = |n: usize| {
        let body = "x".repeat(n);
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{body}")
    };
    check(&length, 50, 413);
    let chunked = |n: usize| {
        let chunks = "1\r\nx\r\n".repeat(n);
        format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
        )
    };
    check(&chunked, 50, 413);
}

/// A client that sends its whole body before it reads must get its response, and not a reset.
#[test]
fn who_sends_too_much_sees_why_it_was_refused() {
    let server = serve();
    for (start, expected) in [
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n",
            413,
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1E8480\r\n",
            413,
        ),
        (
            "BREW /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n",
            501,
        ),
        (
            "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n",
            404,
        ),
    ] {
        for _ in 0..5 {
            let mut client = server.connect();
            client.send(start);
            client.send(vec![b'x'; 2_000_000]);
            assert_eq!(client.answer().status(), expected);
            client.ends();
        }
    }
}

#[test]
fn a_client_that_has_closed_its_side_gets_its_answer() {
    let server = serve();
    let check = |bytes: &str, expected: &[u16]| {
        twice(&server, bytes, |client| {
            client.half_close();
            for status in expected {
                assert_eq!(client.answer().status(), *status, "{bytes}");
            }
            client.ends();
        });
    };
    check("GET /big HTTP/1.1\r\nHost: a\r\n\r\n", &[200]); // A whole request.
    check(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        &[200],
    ); // With its body.
    check(
        &"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3),
        &[200, 200, 200],
    ); // Three.
    check(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx",
        &[400],
    ); // A body that ends early.
    check(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        &[400],
    ); // A last chunk that is missing.
    check("GET /hello HTTP/1.1\r\nHost: a\r\n", &[400]); // Half a head.
    check("G", &[400]); // Even less.
    check("", &[]); // No request, no response.
}

#[test]
fn a_handlers_error_is_for_the_hook_and_not_for_the_client() {
    let server = serve();
    let mut client = server.connect();
    let check = |answer: support::Answer| {
        assert_eq!(
            answer.head.without_date(),
            "HTTP/1.1 500 Internal Server Error\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 26\r\n\r\n"
        );
        assert_eq!(answer.text(), "500 Internal Server Error\n");
    };
    check(client.get("/fails"));
    assert_eq!(server.errors(), ["GET /fails: the disk is on fire"]);
    check(client.get("/panics"));
    assert_eq!(server.errors()[1..], ["GET /panics: the handler panicked"]);
    stays(&mut client);
}

/// A payload of a panic whose `Drop` panics with another one.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::panic::panic_any(Bomb);
    }
}

/// Handlers, producers, guarded values, and the default hook while it cannot write.
#[cfg(target_os = "linux")]
#[test]
fn user_code_that_panics_ends_that_call_alone() {
    let test = "user_code_that_panics_ends_that_call_alone";
    let Some(child) = Child::without_stderr(test) else {
        let explode = |_: &Request| -> Response { std::panic::panic_any(Bomb) };
        let server = site(Server::bind("127.0.0.1:0").unwrap())
            .get("/explodes", explode)
            .get("/producer", |_| {
                Sse::spawn(|_| std::panic::panic_any(Bomb)).last(Event::data("last"))
            })
            .get("/guard", |_| Sse::spawn(|_| ()).guard(Bomb));
        announce(server.addr());
        server.spawn().unwrap();
        return wait_for_parent();
    };
    let mut client = Client::connect(child.addr());
    for _ in 0..3 {
        for target in ["/fails", "/panics", "/explodes"] {
            assert_eq!(client.get(target).status(), 500);
        }
        let whole = ": connected\ndata: last\n\n";
        assert_eq!(client.get("/producer").text(), whole);
        assert_eq!(client.get("/guard").text(), ": connected\n");
    }
    stays(&mut client);
}

#[test]
fn a_hook_that_panics_costs_no_answer() {
    let server = site(Server::bind("127.0.0.1:0").unwrap())
        .on_error(|_| panic!("on purpose"))
        .spawn()
        .unwrap();
    let mut client = Client::connect(server.addr());
    for target in ["/fails", "/panics"] {
        assert_eq!(client.get(target).status(), 500);
    }
    stays(&mut client);
}

#[test]
fn middleware_goes_from_the_outside_in_and_back() {
    let server = start(Config::default(), |server| {
        let around = |name: &'static str| {
            move |request: &Request, next: Next<'_>| {
                if request.query("stop") == Some(name) {
                    return Response::text(format!("{name} stops\n"))
                        .with_status(403)
                        .with_header("X-Way", name);
                }
                let response = next.run(request);
                let way = response.header("x-way").unwrap_or("").to_string();
                response.with_header("X-Way", format!("{name} {way}").trim_end())
            }
        };
        site(server)
            .middleware(around("outer"))
            .middleware(around("inner"))
    });
    let mut client = server.connect();
    let mut check = |target: &str, status: u16, way: &[&str]| {
        let answer = client.get(target);
        assert_eq!(answer.status(), status, "{target}");
        let fields = answer.head.fields.iter();
        let found: Vec<&str> = fields
            .filter(|(name, _)| name == "X-Way")
            .map(|(_, value)| &**value)
            .collect();
        assert_eq!(found, way, "{target}");
    };
    check("/hello", 200, &["outer inner"]); // The first one added is the outermost.
    check("/nowhere", 404, &["outer inner"]); // A request without a route passes through as well.
    check("/hello?stop=inner", 403, &["outer inner"]); // The outer one sees the inner one's refusal.
    check("/hello?stop=outer", 403, &["outer"]); // The request does not reach the inner one.
}

#[test]
fn a_handler_returns_what_becomes_a_response() {
    fn named(request: &Request) -> (u16, String) {
        (201, request.path().to_string())
    }
    fn guard(request: &Request, next: Next<'_>) -> Result<Response, Response> {
        match request.header("x-refuse") {
            Some(status) => Err(Response::new(status.parse()?)),
            None => Ok(next.run(request)),
        }
    }
    let server = start(Config::default(), |server| {
        server
            .middleware(guard)
            .middleware(Cors::any())
            .get("/named", named)
            .get("/pair", |_| (404, "no such room\n"))
            .get("/pair-of-a-stream", |_| (201, Sse::spawn(drop)))
            .post("/text", |request| Ok(request.text()?.to_uppercase()))
            .post("/number", |request| {
                let number: u16 = request.text()?.parse()?;
                let address: IpAddr = request.query("ip").unwrap_or("::1").parse()?;
                Ok(format!("{number} {address}"))
            })
            .get("/file", |_| {
                Ok(std::fs::read("/nowhere/at/all")?.len().to_string())
            })
            .get("/boxed", |_| {
                let boxed: Result<&'static str, Box<dyn Error>> = Err("boxed".into());
                Ok(boxed?)
            })
            .get("/other", |_| {
                std::env::var("NOT=SET").map_err(Response::failed)?;
                Ok(Response::new(204))
            })
    });
    let check = |method: &str, target: &str, fields: &[_], body: &[u8], expected: (u16, &str)| {
        let mut client = server.connect();
        client.request(method, target, fields, body);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text()), expected, "{target}");
    };
    check("GET", "/named", &[], b"", (201, "/named")); // A function is a handler.
    check("GET", "/pair", &[], b"", (404, "no such room\n"));
    check("GET", "/named", &[("X-Refuse", "402")], b"", (402, "")); // A function is a middleware too, and refuses by `?`.
    let malformed = (400, "invalid digit found in string\n");
    check("GET", "/named", &[("X-Refuse", "x")], b"", malformed);
    check("POST", "/text", &[], "é".as_bytes(), (200, "É"));
    let malformed = (400, "invalid utf-8 sequence of 1 bytes from index 0\n");
    check("POST", "/text", &[], b"\xff", malformed); // The client sent something malformed.
    check("POST", "/number", &[], b"17", (200, "17 ::1"));
    check(
        "POST",
        "/number",
        &[],
        b"70000",
        (400, "number too large to fit in target type\n"),
    );
    check(
        "POST",
        "/number?ip=x",
        &[],
        b"1",
        (400, "invalid IP address syntax\n"),
    );
    assert_eq!(server.errors().len(), 0);
    for target in ["/file", "/boxed", "/other"] {
        check(
            "GET",
            target,
            &[],
            b"",
            (500, "500 Internal Server Error\n"),
        ); // Other errors are the server's.
    }
    assert_eq!(server.errors().len(), 3);
    let mut client = server.connect();
    client.request("GET", "/pair-of-a-stream", &[], b"");
    let head = client.head();
    assert_eq!(
        (head.status, head.field("access-control-allow-origin")),
        (201, Some("*"))
    );
}

#[test]
fn a_handler_asks_to_come_back_as_the_client_understands_it() {
    let server = start(Config::default(), |server| {
        server.any("/", |request| {
            Response::retry_after(request, Duration::from_millis(9_500))
        })
    });
    let stream = [("Accept", "text/event-stream")];
    let both = [("Accept", "application/json, text/event-stream")];
    for (method, fields, status, retry) in [
        ("GET", &stream[..], 200, None), // An EventSource, which would not try again after a 503.
        ("HEAD", &stream, 200, None),
        ("GET", &[], 503, Some("10")),    // Rounded up.
        ("POST", &both, 503, Some("10")), // A POST that was refused must not look successful.
    ] {
        let mut client = server.connect();
        client.request(method, "/", fields, b"");
        let head = client.head();
        assert_eq!(
            (head.status, head.field("retry-after")),
            (status, retry),
            "{method}"
        );
    }
    let mut client = server.connect();
    client.request("GET", "/", &stream, b"");
    assert_eq!(client.answer().text(), ": come back later\nretry: 9500\n");

    let request = Request::new(Method::Get, "/").unwrap();
    let never = Response::retry_after(&request, Duration::MAX);
    assert_eq!(never.header("retry-after"), Some("18446744073709551615"));
}

#[test]
fn a_body_of_lines_is_sent_as_it_is_written() {
    let (lines, written) = mpsc::channel::<&str>();
    let written = Mutex::new(Some(written));
    let server = start(Config::default(), |server| {
        server
            .get("/lines", move |_| {
                let written = written.lock().unwrap().take().unwrap();
                Response::lines("application/x-ndjson", move |out| {
                    for line in written {
                        out.write_all(line.as_bytes())?;
                    }
                    Ok(())
                })
                .with_header("Cache-Control", "no-store")
            })
            .get("/fails", |_| {
                Response::lines("text/plain", |out| {
                    out.write_all(b"one\ntw")?;
                    Err(std::io::Error::other("no two"))
                })
            })
    });
    let mut client = server.connect();
    client.request("GET", "/lines", &[], b"");
    lines.send("{\"a\":1}\n{\"a\"").unwrap();
    let head = client.head();
    assert_eq!(head.field("content-type"), Some("application/x-ndjson"));
    assert_eq!(head.field("cache-control"), Some("no-store"));
    assert_eq!(client.chunk(), Some(b"{\"a\":1}\n".to_vec())); // A line without an end waits.
    lines.send(":2}\n").unwrap();
    assert_eq!(client.chunk(), Some(b"{\"a\":2}\n".to_vec()));
    lines.send("rest").unwrap();
    drop(lines);
    assert_eq!(client.chunk(), Some(b"rest".to_vec()));
    assert_eq!(client.chunk(), None);

    // A body that breaks off has no last chunk, so that a client can tell.
    let mut client = server.connect();
    client.request("GET", "/fails", &[], b"");
    client.head();
    assert_eq!(client.rest(), b"4\r\none\n\r\n2\r\ntw\r\n");
    assert_eq!(server.errors(), ["a stream of lines broke off: no two"]);

    let mut old = server.connect();
    old.send("GET /fails HTTP/1.0\r\n\r\n");
    old.head();
    assert_eq!(old.rest(), b"one\ntw"); // HTTP/1.0 cannot tell.
}

#[test]
fn a_middleware_hands_something_on() {
    struct Session(String);
    let server = start(Config::default(), |server| {
        server
            .middleware(|request: &Request, next: Next<'_>| {
                if let Some(name) = request.cookie("session") {
                    request.set_extension(Session(name.to_string()));
                    request.set_extension(7_u8);
                }
                next.run(request)
            })
            .middleware(|request: &Request, next: Next<'_>| {
                if request.query("as").is_some() {
                    request.set_extension(Session("another".to_string()));
                }
                next.run(request)
            })
            .get("/", |request| {
                let session = request.extension::<Session>();
                let session = session.map_or("nobody".to_string(), |session| session.0.clone());
                format!(
                    "{session} {:?} {:?}",
                    request.extension::<u8>(),
                    request.extension::<u16>()
                )
            })
    });
    let mut client = server.connect();
    for (target, fields, expected) in [
        ("/", &[("Cookie", "session=ann")][..], "ann Some(7) None"),
        ("/", &[], "nobody None None"), // The next request of the same connection has its own.
        ("/?as", &[("Cookie", "session=ann")], "another Some(7) None"), // The newest of a type.
    ] {
        client.request("GET", target, fields, b"");
        assert_eq!(client.answer().text(), expected);
    }
}

#[test]
fn a_field_that_is_set_is_there_once() {
    let server = start(Config::default(), |server| {
        server
            .middleware(Cors::origins(["https://a.example"]).unwrap())
            .get("/", |_| {
                Response::text("{}")
                    .with_header("Content-Type", "application/problem+json")
                    .with_header("Access-Control-Allow-Origin", "*")
                    .with_header("Vary", "Accept")
            })
    });
    let mut client = server.connect();
    client.request("GET", "/", &[("Origin", "https://a.example")], b"");
    assert_eq!(
        client.answer().head.without_date(),
        "HTTP/1.1 200 OK\r\n\
         Content-Type: application/problem+json\r\n\
         Vary: Accept\r\n\
         Access-Control-Allow-Origin: https://a.example\r\n\
         Vary: Origin\r\n\
         Content-Length: 2\r\n\r\n"
    ); // The middleware's field replaces the handler's; only `Vary` may come twice.
}

#[test]
fn a_handler_gets_what_the_client_sent() {
    let server = start(Config::default(), |server| {
        server.any("/p/{first}/{second}", |request: &Request| {
            let queries: Vec<&str> = request.queries("q").collect();
            let lines = [
                format!("{} {}", request.method(), request.path()),
                format!(
                    "{:?} {:?} {:?}",
                    request.param("first"),
                    request.param("second"),
                    request.param("third")
                ),
                format!("{queries:?} {:?}", request.query("none")),
                format!(
                    "{:?} {:?} {:?}",
                    request.cookie("a"),
                    request.cookie("b"),
                    request.cookie("c")
                ),
                format!(
                    "{:?} {:?}",
                    request.header("x-name"),
                    request.header("X-None")
                ),
                format!("{:?} {}", request.last_event_id(), request.body().len()),
                format!("{} {}", request.peer().ip(), request.client_ip()),
            ];
            lines.join("\n")
        })
    });
    let check = |request: &str, expected: [&str; 7]| {
        twice(&server, request, |client| {
            let answer = client.answer();
            assert_eq!(answer.text().lines().collect::<Vec<_>>(), expected);
        });
    };
    check(
        "PUT /p/%C3%A9%2F/b?q=1+2&q=%26&x HTTP/1.1\r\n\
         Host: a\r\nCookie: a=1; b=\"2\"\r\nX-NAME:  \t v w \t \r\nCookie: c=3=3\r\n\
         Last-Event-ID: 7-é\r\nContent-Length: 2\r\n\r\nok",
        [
            "PUT /p/%C3%A9%2F/b",
            "\"é/\" \"b\" \"\"",
            "[\"1 2\", \"&\"] None",
            "Some(\"1\") Some(\"\\\"2\\\"\") Some(\"3=3\")",
            "Some(\"v w\") None",
            "Some(\"7-é\") 2",
            "127.0.0.1 127.0.0.1",
        ],
    ); // A parameter is decoded after the split, a field keeps its inner blanks, cookies come on several lines.
    check(
        "GET http://b/p/1/2?last_event_id=5 HTTP/1.1\r\nHost: a\r\nLast-Event-ID: \r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        [
            "GET /p/1/2",
            "\"1\" \"2\" \"\"",
            "[] None",
            "None None None",
            "None None",
            "Some(\"5\") 0",
            "127.0.0.1 127.0.0.1",
        ],
    ); // The absolute form; an empty last event ID is ignored; the peer is not a trusted proxy.
}

#[test]
fn a_trusted_proxy_speaks_for_its_client() {
    let config = Config {
        trusted_proxies: vec![Ipv4Addr::LOCALHOST.into()],
        ..Config::default()
    };
    let server = start(config, |server| {
        server.get("/", |request: &Request| {
            format!("{} {}", request.peer().ip(), request.client_ip())
        })
    });
    let mut client = server.connect();
    let mut check = |forwarded: &str, expected: &str| {
        client.request("GET", "/", &[("X-Forwarded-For", forwarded)], b"");
        assert_eq!(client.answer().text(), format!("127.0.0.1 {expected}"));
    };
    check("192.0.2.1", "192.0.2.1"); // The address that the proxy names.
    check("10.0.0.9, 192.0.2.1", "192.0.2.1"); // The address before it is the client's claim.
    check("192.0.2.1, 127.0.0.1", "192.0.2.1"); // Two proxies.
    check("2001:db8::1", "2001:db8::1"); // IPv6.
    check("::ffff:192.0.2.1", "192.0.2.1"); // An IPv4 client of a socket for both families.
    check("192.0.2.1:5678", "192.0.2.1"); // With the client's port.
    check("nobody", "127.0.0.1"); // No address.
}

#[test]
fn an_ipv4_client_is_one_on_a_socket_for_both_families() {
    let Ok(server) = Server::bind("[::]:0") else {
        return; // No IPv6 on this machine.
    };
    let config = Config {
        trusted_proxies: vec![Ipv4Addr::LOCALHOST.into()],
        ..Config::default()
    };
    let server = server
        .config(config)
        .get("/", |request: &Request| {
            format!("{} {}", request.peer().ip(), request.client_ip())
        })
        .spawn()
        .unwrap();
    let addr = (Ipv4Addr::LOCALHOST, server.addr().port()).into();
    if TcpStream::connect(addr).is_err() {
        return; // The system does not accept IPv4 on an IPv6 socket.
    }
    let mut client = Client::connect(addr);
    client.request("GET", "/", &[("X-Forwarded-For", "192.0.2.1")], b"");
    assert_eq!(client.answer().text(), "127.0.0.1 192.0.2.1");
}

/// The response is the 503 for a client for which there is no room.
#[track_caller]
fn is_refused(client: &mut Client) {
    let answer = client.answer();
    assert_eq!(
        (answer.status(), answer.text()),
        (503, "503 Service Unavailable\n")
    );
    let wait: u64 = answer.head.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "a second and a part of the spread");
    assert_eq!(answer.head.field("connection"), Some("close"));
    client.ends();
}

#[test]
fn one_address_has_as_many_connections_as_it_may() {
    let config = Config {
        max_connections_per_address: Some(2),
        ..Config::default()
    };
    let server = start(config, site);
    let mut first = server.connect();
    stays(&mut first);
    let mut second = server.connect();
    stays(&mut second);
    let mut third = server.connect();
    third.request("GET", "/hello", &[], b"");
    is_refused(&mut third);
    assert_eq!(server.stats().refused, 1);
    stays(&mut first); // Open connections stay open.

    drop(second);
    eventually(|| server.connect().get("/hello").status() == 200);
}

#[test]
fn clients_behind_a_proxy_are_counted_each_for_itself() {
    let config = Config {
        max_connections_per_address: Some(1),
        trusted_proxies: vec![Ipv4Addr::LOCALHOST.into()],
        ..Config::default()
    };
    let server = start(config, site);
    let ask = |client: &mut Client, address: &str| {
        client.request("GET", "/hello", &[("X-Forwarded-For", address)], b"");
    };
    let mut first = server.connect();
    for _ in 0..2 {
        ask(&mut first, "192.0.2.1");
        assert_eq!(first.answer().status(), 200); // Its second request counts once.
    }
    let mut second = server.connect();
    ask(&mut second, "192.0.2.2");
    assert_eq!(second.answer().status(), 200);
    let mut third = server.connect();
    ask(&mut third, "192.0.2.1");
    is_refused(&mut third);

    // The proxy uses its connection for another client: the first client may have another connection.
    ask(&mut first, "192.0.2.3");
    assert_eq!(first.answer().status(), 200);
    let mut fourth = server.connect();
    ask(&mut fourth, "192.0.2.1");
    assert_eq!(fourth.answer().status(), 200);
    ask(&mut second, "192.0.2.3");
    is_refused(&mut second);
    assert_eq!(server.stats().refused, 2);
}

/// Clients of event streams are told to come back, all others get 503.
fn who_comes_too_late_is_told_so(server: &TestServer) {
    let mut plain = server.connect();
    plain.request("GET", "/hello", &[], b"");
    is_refused(&mut plain);

    let mut post = server.connect();
    post.request("POST", "/echo", &[], &[b'x'; 100_000]);
    is_refused(&mut post);

    let mut head = server.connect();
    head.request("HEAD", "/hello", &[], b"");
    assert_eq!(head.head().status, 503);
    head.ends();

    let mut malformed = server.connect();
    malformed.send("GET\r\n\r\n");
    assert_eq!(malformed.answer().status(), 400);

    let mut silent = server.connect();
    silent.half_close();
    silent.ends();

    // A browser that gets a 503 for its event stream never tries again.
    let mut stream = server.connect();
    stream.request("GET", "/stream", &[("Accept", "text/event-stream")], b"");
    let answer = stream.answer();
    let length = answer.body.len();
    assert_eq!(
        answer.head.without_date(),
        format!(
            "HTTP/1.1 200 OK\r\n\
             Content-Type: text/event-stream\r\n\
             Cache-Control: no-cache, no-transform\r\n\
             Connection: close\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    );
    let retry = answer
        .text()
        .strip_prefix(": come back later\nretry: ")
        .and_then(|rest| rest.strip_suffix('\n'))
        .expect("a comment and a retry");
    assert!((1000..6000).contains(&retry.parse().unwrap()), "{retry}");
    stream.ends();
}

/// A browser whose page may not read the response never tries again.
#[test]
fn a_page_of_another_site_may_read_that_it_is_to_come_back() {
    let config = Config {
        max_connections_per_address: Some(0),
        ..Config::default()
    };
    let server = start(config, site);
    let mut stream = server.connect();
    let fields = [
        ("Accept", "text/event-stream"),
        ("Origin", "https://app.example"),
    ];
    stream.request("GET", "/stream", &fields, b"");
    let answer = stream.answer();
    assert!(answer.text().starts_with(": come back later\nretry: "));
    let field = |name| answer.head.field(name);
    let origin = field("access-control-allow-origin");
    assert_eq!(origin, Some("https://app.example"));
    assert_eq!(field("access-control-allow-credentials"), Some("true"));
}

#[test]
fn over_max_connections_clients_are_told_to_come_back() {
    let config = Config {
        max_connections: 2,
        ..Config::default()
    };
    over_a_limit_of_two_clients_are_told_to_come_back(config);
}

#[test]
fn over_max_threads_clients_are_told_to_come_back() {
    let config = Config {
        max_threads: 2,
        ..Config::default()
    };
    over_a_limit_of_two_clients_are_told_to_come_back(config);
}

#[track_caller]
fn over_a_limit_of_two_clients_are_told_to_come_back(config: Config) {
    let server = start(config, site);
    let mut first = Client::in_a_request(server.addr());
    let second = Client::in_a_request(server.addr());
    who_comes_too_late_is_told_so(&server);
    first.finish_request();
    stays(&mut first);
    drop(second);
    eventually(|| server.connect().get("/hello").status() == 200);
}

/// Connections that wait for a next request give way. A connection in a request stays.
#[test]
fn idle_connections_give_way_to_new_ones() {
    let connections = Config {
        max_connections: 3,
        ..Config::default()
    };
    let threads = Config {
        max_threads: 3,
        ..Config::default()
    };
    let both = Config {
        max_threads: 3,
        ..connections.clone()
    };
    for config in [connections, threads, both] {
        let server = start(config, site);
        let mut idle: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        idle.iter_mut().for_each(stays);
        // A connection may not be idle yet when its client has the response.
        let mut busy = Vec::new();
        eventually(|| {
            busy.extend(Client::try_in_a_request(server.addr()));
            busy.len() == 3
        });
        idle.iter_mut().for_each(Client::ends);
        let mut refused = server.connect();
        refused.request("GET", "/hello", &[], b"");
        is_refused(&mut refused);
        busy.iter_mut().for_each(Client::finish_request);
    }
}

/// A connection that has asked for nothing yet does not give way, as its request may be on its way.
#[test]
fn a_new_connection_does_not_give_way() {
    let config = Config {
        max_connections: 2,
        ..Config::default()
    };
    let server = start(config, site);
    let mut new = server.connect();
    eventually(|| server.stats().connections == 1);
    let mut idle = server.connect();
    stays(&mut idle);
    // It takes the place of the idle one, although the new one has waited longer.
    let mut busy = None;
    eventually(|| {
        busy = Client::try_in_a_request(server.addr());
        busy.is_some()
    });
    idle.ends();
    let mut refused = server.connect();
    refused.request("GET", "/hello", &[], b"");
    is_refused(&mut refused);
    stays(&mut new);
    busy.iter_mut().for_each(Client::finish_request);
}

/// Thousands of clients that keep their connections do not keep others out.
#[test]
fn a_crowd_of_idle_connections_gives_way_to_another() {
    let config = Config {
        max_connections: 100,
        max_threads: 50,
        ..Config::default()
    };
    let server = start(config, site);
    let mut clients = Vec::new();
    for _ in 0..300 {
        let mut client = server.connect();
        stays(&mut client);
        clients.push(client);
    }
    assert_eq!(server.errors(), [""; 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_flood_of_refusals_costs_a_few_threads_and_leaves_nothing_behind() {
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let name = "a_flood_of_refusals_costs_a_few_threads_and_leaves_nothing_behind";
    let Some(child) = Child::of(name) else {
        return serve_parent(config, site);
    };
    let mut admitted = Client::in_a_request(child.addr());
    let (threads, descriptors) = (child.threads(), child.descriptors());
    // They send nothing, so that each refusal takes the second that a client has for its request.
    let mut flood: Vec<Client> = (0..300).map(|_| Client::connect(child.addr())).collect();
    assert!(child.threads() <= threads + 16);
    flood.iter_mut().for_each(Client::is_cut);
    eventually(|| child.descriptors() == descriptors);
    admitted.finish_request();
    drop(admitted);
    eventually(|| Client::connect(child.addr()).get("/hello").status() == 200);
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_gives_back_its_descriptor_and_leaves_its_thread_to_the_next() {
    let name = "a_connection_gives_back_its_descriptor_and_leaves_its_thread_to_the_next";
    let Some(child) = Child::of(name) else {
        return serve_parent(Config::default(), site);
    };
    let visit = || {
        let mut client = Client::connect(child.addr());
        client.request("GET", "/hello", &[("Connection", "close")], b"");
        assert_eq!(client.answer().status(), 200);
        client.ends();
    };
    let descriptors = child.descriptors();
    visit();
    eventually(|| child.descriptors() == descriptors);
    let threads = child.threads();
    for _ in 0..50 {
        visit();
        // The descriptor goes first, then the thread is free.
        eventually(|| child.descriptors() == descriptors);
    }
    assert!(child.threads() < threads + 10);
    let names = child.thread_names();
    assert!(names.iter().any(|name| name == "sse-connection"));
}

#[cfg(target_os = "linux")]
#[test]
fn when_descriptors_run_out_clients_wait_and_are_served_later() {
    let name = "when_descriptors_run_out_clients_wait_and_are_served_later";
    let Some(child) = Child::under("-n 64", name) else {
        let errors = Arc::new(Mutex::new(Vec::new()));
        let hook = Arc::clone(&errors);
        let server = site(Server::bind("127.0.0.1:0").unwrap())
            .get("/errors", move |_| errors.lock().unwrap().join("\n"))
            .on_error(move |problem| hook.lock().unwrap().push(problem.to_string()))
            .spawn()
            .unwrap();
        // The program opens more files than were left for it.
        let files: Vec<_> = (0..40)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        announce(server.addr());
        wait_for_parent();
        return drop(files);
    };
    let mut clients: Vec<Client> = (0..80).map(|_| Client::connect(child.addr())).collect();
    for client in &mut clients {
        client.request("GET", "/hello", &[], b"");
    }
    for mut client in clients {
        assert_eq!(client.answer().text(), "hello\n");
        // Only when it leaves is there a descriptor for the next.
    }
    let answer = Client::connect(child.addr()).get("/errors");
    let errors: Vec<&str> = answer.text().lines().collect();
    assert_eq!(
        errors[0],
        "only 32 connections fit the 64 files that this process may open (`ulimit -n`)"
    );
    assert!(
        errors[1].starts_with("accept failed, and is tried again: "),
        "{errors:?}"
    );
}

#[test]
fn a_burst_of_clients_is_served() {
    let server = serve();
    let clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    for mut client in clients {
        stays(&mut client);
    }
}

#[test]
fn who_is_too_slow_to_ask_is_not_waited_for() {
    let config = Config {
        head_timeout: Duration::from_millis(100),
        body_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let server = start(config, site);

    // A client that sends nothing gets no response.
    server.connect().ends();

    // Nothing more: the same.
    let mut client = server.connect();
    stays(&mut client);
    client.ends();

    // Half a head.
    let mut client = server.connect();
    client.send("GET /hello HTTP/1.1\r\nHos");
    assert_eq!(client.answer().status(), 408);
    client.ends();

    // Half a body.
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx");
    assert_eq!(client.answer().status(), 408);
    client.ends();

    // A head that never ends, byte after byte: each is in time, all of them are not.
    let mut client = server.connect();
    let mut writer = client.stream.try_clone().unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let dripping = thread::spawn(move || {
        use std::io::Write;
        let _ = writer.write_all(b"GET /hello HTTP/1.1\r\nX: ");
        let pause = Duration::from_millis(10);
        while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = writer.write_all(b"x");
        }
    });
    assert_eq!(client.answer().status(), 408);
    drop(stop);
    dripping.join().unwrap();
}

/// A client that reads its response slowly, with pauses shorter than the write time-out.
#[test]
fn a_large_answer_is_not_cut_while_the_client_takes_it() {
    const LENGTH: usize = 48 << 20;
    let config = Config {
        write_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    let server = start(config, |server| {
        server.get("/large", |_| "x".repeat(LENGTH))
    });
    let mut client = server.connect();
    client.request("GET", "/large", &[], b"");
    assert_eq!(client.head().status, 200);
    for _ in 0..48 {
        assert_eq!(client.exactly(1 << 20).len(), 1 << 20);
        thread::sleep(Duration::from_millis(60)); // What makes it slow.
    }
}

#[test]
fn a_client_that_takes_nothing_is_dropped() {
    let config = Config {
        write_timeout: Duration::from_millis(100),
        max_connections: 1,
        ..Config::default()
    };
    let server = start(config, |server| {
        site(server).get("/large", |_| "x".repeat(48 << 20))
    });
    let mut client = server.connect();
    client.request("GET", "/large", &[], b"");
    assert_eq!(client.head().status, 200);
    // There is room for another connection.
    eventually(|| server.connect().get("/hello").status() == 200);
}

#[test]
fn a_head_brings_the_first_bytes_of_its_body() {
    let server = serve();
    for target in ["/hello", "/big"] {
        let mut client = server.connect();
        client.request("GET", target, &[], b"");
        let piece = client.piece();
        let head = piece.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        assert!(head.unwrap() + 4 < piece.len());
    }
}

#[test]
fn a_method_given_to_route_is_the_one_that_it_answers() {
    let server = start(Config::default(), |server| {
        server
            .route(Method::Put, "/a", |_| "put")
            .route(Method::Delete, "/a", |_| "delete")
            .middleware(|request: &Request, next: Next<'_>| {
                let response = next.run(request);
                match response.status() {
                    404 => Response::text(request.path().to_string()).with_status(404),
                    _ => response,
                }
            })
    });
    let mut client = server.connect();
    for (method, target, status, text) in [
        ("PUT", "/a", 200, "put"),
        ("DELETE", "/a", 200, "delete"),
        ("GET", "/a", 405, "405 Method Not Allowed\n"),
        ("GET", "/b/c", 404, "/b/c"),
    ] {
        client.request(method, target, &[], b"");
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text()), (status, text));
    }
}

#[test]
fn a_refused_pattern_is_an_error_of_run_and_spawn() {
    let build = || {
        Server::bind("127.0.0.1:0")
            .unwrap()
            .get("/ok", |_| "")
            .get("events/{}", |_| "")
    };
    for error in [build().run().unwrap_err(), build().spawn().unwrap_err()] {
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            "route pattern \"events/{}\": a path begins with a slash, as in \"/events/{}\""
        );
    }
}

/// After any bytes, every connection ends, nothing panics, and the next client is served.
#[test]
fn random_bytes_break_nothing() {
    let server = serve();
    let mut random = Random::new(0x5eed);
    let tokens: [&[u8]; 22] = [
        b"GET ",
        b"POST ",
        b"/hello",
        b"/echo",
        b" HTTP/1.1",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host: a\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"0",
        b"9",
        b"ffffffffffffffff",
        b":",
        b" ",
        b"\0",
        b"\xff",
        b"%",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
    ];
    for _ in 0..400 {
        let mut bytes = Vec::new();
        if random.below(2) == 0 {
            bytes.extend_from_slice(b"POST /echo HTTP/1.1\r\nHost: a\r\n");
        }
        for _ in 0..random.below(20) {
            bytes.extend_from_slice(tokens[random.below(tokens.len())]);
        }
        let mut client = server.connect();
        client.send(&bytes);
        client.half_close();
        client.is_cut();
    }
    assert_eq!(server.errors(), [""; 0]);
    stays(&mut server.connect());
}

/// A client of a stream without content would take its chunks for the next response (RFC 9110 section 6.4.1).
#[test]
fn a_stream_needs_a_status_with_content() {
    let server = start(Config::default(), |server| {
        server.any("/{status}", |request: &Request| {
            let status = request.param("status").parse().unwrap();
            Response::from(Sse::spawn(|_| ())).with_status(status)
        })
    });
    let mut client = server.connect();
    for status in ["204", "205", "304"] {
        assert_eq!(client.get(&format!("/{status}")).status(), 500);
        let error = server.errors().pop().unwrap();
        let expected = format!("GET /{status}: a stream cannot have status {status}");
        assert_eq!(error, expected);
    }
    assert_eq!(client.get("/404").text(), ": connected\n");
}

#[test]
fn what_cannot_begin_a_request_is_refused_at_once() {
    const NEVER: Duration = Duration::from_secs(3600);
    let patient = Config {
        head_timeout: NEVER,
        idle_timeout: NEVER,
        ..Config::default()
    };
    let server = start(patient, |server| server.get("/hello", |_| "hello\n"));
    let tls: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for bytes in [tls, tls, b"\0", b"\xff", b" ", b"\"", b"\x05\x01\x00"] {
        let mut fresh = server.connect();
        fresh.send(bytes);
        assert_eq!(fresh.answer().status(), 400, "{bytes:?}");
        fresh.ends();
        // Also as the second request of a connection.
        let mut used = server.connect();
        assert_eq!(used.get("/hello").status(), 200);
        used.send(bytes);
        assert_eq!(used.answer().status(), 400, "{bytes:?}");
        used.ends();
    }
    let errors = server.errors();
    assert_eq!(errors.len(), 1, "said once: {errors:?}");
    assert!(errors[0].contains("tried TLS"), "{errors:?}");
}

#[test]
fn a_server_that_cannot_listen_names_the_address() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let taken = server.addr();
    let error = Server::bind(taken).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let expected = format!("cannot listen on {taken}: ");
    assert!(error.to_string().starts_with(&expected), "{error}");
    let error = Server::bind([taken, taken].as_slice()).unwrap_err();
    let expected = format!("cannot listen on {taken}, {taken}: ");
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn a_server_tells_what_it_has_done() {
    let (new, senders) = mpsc::channel();
    let server = start(Config::default(), |server| {
        site(server).get("/open", move |_| {
            let (sender, receiver) = mpsc::channel();
            new.send(sender).unwrap();
            Sse::new(receiver)
        })
    });
    let mut client = server.connect();
    for (target, status) in [("/hello", 200), ("/no", 404), ("/fails", 500), ("/no", 404)] {
        assert_eq!(client.get(target).status(), status);
    }
    let mut reader = server.connect();
    reader.request("GET", "/open", &[], b"");
    reader.head();
    let sender: mpsc::Sender<Event> = senders.recv().unwrap();
    let expected = "# TYPE sse_server_connections gauge\nsse_server_connections 2\n\
                    # TYPE sse_server_streams gauge\nsse_server_streams 1\n\
                    # TYPE sse_server_accepted_total counter\nsse_server_accepted_total 2\n\
                    # TYPE sse_server_refused_total counter\nsse_server_refused_total 0\n\
                    # TYPE sse_server_responses_total counter\n\
                    sse_server_responses_total{class=\"2xx\"} 2\n\
                    sse_server_responses_total{class=\"3xx\"} 0\n\
                    sse_server_responses_total{class=\"4xx\"} 2\n\
                    sse_server_responses_total{class=\"5xx\"} 1\n";
    assert_eq!(server.stats().to_string(), expected);
    drop(sender);
    eventually(|| server.stats().streams == 0);
    drop((client, reader));
    eventually(|| server.stats().connections == 0);
}
