//! What users test their handlers with: requests without a connection, and the events of a response.

use std::error::Error;
use std::io;
use std::time::Duration;

use tiny_sse::{
    Config, Cors, Event, Hub, Method, Next, Request, Response, Server, Sse, allow_hosts,
};

fn server(hub: &Hub) -> io::Result<Server> {
    let (readers, writers) = (hub.clone(), hub.clone());
    let server = Server::bind("127.0.0.1:0")?
        .config(Config {
            trusted_proxies: vec!["10.0.0.1".parse().unwrap()],
            ..Config::default()
        })
        .middleware(allow_hosts(["localhost"])?)
        .middleware(Cors::any())
        .middleware(|request: &Request, next: Next<'_>| {
            if request.method() == Method::Post && request.bearer() != Some("b8f1") {
                return Err(Response::new(401));
            }
            Ok(next.run(request))
        })
        .get("/rooms/{room}", move |request| {
            readers.subscribe(request, request.param("room"))
        })
        .post("/rooms/{room}", move |request| {
            writers.publish_wait(request.param("room"), Event::data(request.text()?))?;
            Ok(Response::new(204))
        })
        .get("/count", |_| {
            Sse::spawn(|events| {
                for number in 1..=3 {
                    let _ = events.send(Event::data(number.to_string()));
                }
            })
        })
        .get("/busy", |request| {
            Response::retry_after(request, Duration::from_secs(1))
        })
        .get("/who", |request| {
            format!("{} {}", request.peer(), request.client_ip())
        })
        .get("/panics", |_| -> Response { panic!("on purpose") });
    Ok(server)
}

#[test]
fn a_request_passes_through_middleware_and_routes() -> io::Result<()> {
    let server = server(&Hub::new())?;
    let post = |body: &[u8]| {
        let request = Request::new(Method::Post, "/rooms/7")?;
        io::Result::Ok(
            request
                .with_header("Authorization", "Bearer b8f1")?
                .with_body(body),
        )
    };
    let get = |target| Request::new(Method::Get, target);
    for (request, status, body) in [
        (post(b"hello")?, 204, ""),
        (
            post(b"\xff")?,
            400,
            "invalid utf-8 sequence of 1 bytes from index 0\n",
        ),
        (Request::new(Method::Post, "/rooms/7")?, 401, ""), // The middleware refuses.
        (get("/nowhere")?, 404, "404 Not Found\n"),
        (Request::new(Method::Options, "/who")?, 204, ""),
        (
            Request::new(Method::Put, "/who")?,
            405,
            "405 Method Not Allowed\n",
        ),
        (get("/panics")?, 500, "500 Internal Server Error\n"),
        (
            get("/who")?.with_header("Host", "evil.example")?,
            421,
            "this server has another name\n",
        ),
        (get("/who")?, 200, "127.0.0.1:1 127.0.0.1"),
        (
            get("/who")?.with_peer(([192, 0, 2, 1], 5).into()),
            200,
            "192.0.2.1:5 192.0.2.1",
        ),
        (
            get("/who")?
                .with_peer(([10, 0, 0, 1], 5).into())
                .with_header("X-Forwarded-For", "192.0.2.1")?,
            200,
            "10.0.0.1:5 192.0.2.1",
        ), // From a trusted proxy.
    ] {
        let shown = format!("{request:?}");
        let response = server.answer(request);
        assert_eq!(response.status(), status, "{shown}");
        assert_eq!(str::from_utf8(response.body()), Ok(body), "{shown}");
    }
    let allow = server.answer(Request::new(Method::Put, "/who")?);
    assert_eq!(allow.header("allow"), Some("GET, HEAD"));
    assert_eq!(allow.header("access-control-allow-origin"), Some("*"));
    let failed = server.answer(get("/panics")?);
    assert_eq!(failed.error(), Some("the handler panicked")); // The client does not get this text.
    Ok(())
}

#[test]
fn the_events_of_a_stream_can_be_read() -> Result<(), Box<dyn Error>> {
    let hub = Hub::new();
    let server = server(&hub)?;
    let get = |target| Request::new(Method::Get, target);
    let data = |events: tiny_sse::Events, n: usize| -> io::Result<Vec<String>> {
        events.take(n).map(|message| Ok(message?.data)).collect()
    };

    let events = server.answer(get("/count")?).events()?;
    assert_eq!(data(events, 9)?, ["1", "2", "3"]); // To its end.

    let mut events = server.answer(get("/rooms/7")?).events()?;
    hub.publish("7", Event::data("a"))?;
    let first = events.next().ok_or("no event")??;
    assert_eq!(first.data, "a");
    hub.publish_wait("7", Event::data("b"))?;
    let again = get("/rooms/7")?.with_header("Last-Event-ID", &first.last_event_id)?;
    assert_eq!(data(server.answer(again).events()?, 1)?, ["b"]); // A client that comes back.
    assert_eq!(data(events, 1)?, ["b"]);

    let busy = server.answer(get("/busy")?.with_header("Accept", "text/event-stream")?);
    assert_eq!(data(busy.events()?, 9)?, [""; 0]); // A whole body is read as well.
    Ok(())
}

#[test]
fn what_a_client_could_not_send_is_refused() -> io::Result<()> {
    #[track_caller]
    fn check(result: io::Result<Request>, expected: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), expected);
    }
    let new = |target| Request::new(Method::Get, target);
    check(new("nowhere"), "request target is none of the known forms");
    check(
        new("/a b"),
        "request line is not method, target and version",
    );
    check(
        new("/é"),
        "request target holds a character that must be encoded",
    );
    check(
        new("/")?.with_header("X Y", "1"),
        "field name is not a token",
    );
    check(
        new("/")?.with_header("X", "1\r\nY: 2"),
        "field value holds a control character",
    );

    // A pattern that `run` would refuse.
    let server = Server::bind("127.0.0.1:0")?.get("/:id", |_| "");
    let response = server.answer(new("/7")?);
    assert_eq!(response.status(), 500);
    assert!(
        response
            .error()
            .is_some_and(|error| error.contains("\"/:id\""))
    );
    Ok(())
}
