//! The access log.

use std::time::{Duration, Instant};

use crate::http::Request;
use crate::router::{BoxedMiddleware, Next};

/// Makes a middleware that calls `log` with a line for each request and its response. Add it before all other middleware, so
/// that the log has their refusals too.
///
/// `log` runs on the connection's thread when the response is known, for a stream before the first byte. Send slow work to
/// another thread. A request that is malformed or over a limit of the server reaches no middleware, and is not in the log.
///
/// # Examples
///
/// ```
/// use tiny_sse::{Server, access_log};
///
/// let server = Server::bind("127.0.0.1:0")?
///     .middleware(access_log(|line| println!("{line}")))
///     .get("/", |_request| "hello\n");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A line is `127.0.0.1 GET /events/news?... 200 0.1 ms`. It has no query, which may hold a ticket or another secret, and no
/// control character, which could forge a line. For other parts of a request, write such a middleware:
///
/// ```
/// use tiny_sse::{Next, Request, Response};
///
/// fn log(request: &Request, next: Next<'_>) -> Response {
///     let response = next.run(request);
///     println!("{:?} {} {}", request.header("user-agent"), request.path(), response.status());
///     response
/// }
/// ```
pub fn access_log(log: impl Fn(&str) + Send + Sync + 'static) -> BoxedMiddleware {
    Box::new(move |request: &Request, next: Next<'_>| {
        let start = Instant::now();
        let response = next.run(request);
        log(&line(request, response.status(), start.elapsed()));
        response
    })
}

/// Writes the line of a request, the status of its response, and the time that the handler and the middleware inside took.
fn line(request: &Request, status: u16, time: Duration) -> String {
    // The path is percent-encoded, so it has no control character.
    let query = if request.query.is_empty() { "" } else { "?..." };
    let (client, method, path) = (request.client_ip(), request.method(), request.path());
    let milliseconds = time.as_secs_f64() * 1000.0;
    format!("{client} {method} {path}{query} {status} {milliseconds:.1} ms")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::guard::tests::answer;

    #[test]
    fn a_line_tells_what_happened_but_no_secret() {
        #[track_caller]
        fn check(method: &str, target: &str, expected: &str) {
            let (sender, lines) = mpsc::channel();
            let log = access_log(move |line| sender.send(line.to_string()).unwrap());
            let fields = [("Cookie", "session=secret")];
            let _ = answer(log, method, target, &fields);
            let lines: Vec<String> = lines.try_iter().collect();
            let (start, time) = lines[0].split_at(expected.len());
            assert_eq!((start, lines.len()), (expected, 1));
            let milliseconds = time.strip_suffix(" ms").unwrap();
            assert!(milliseconds.trim_start().parse::<f64>().is_ok(), "{time}");
        }
        check("GET", "/", "0.0.0.0 GET / 200 ");
        check("GET", "/?ticket=secret", "0.0.0.0 GET /?... 200 ");
        check("DELETE", "/", "0.0.0.0 DELETE / 405 "); // What no handler answers as well.
        check("GET", "/a%0d%0ab", "0.0.0.0 GET /a%0d%0ab 404 "); // Still encoded.

        let request = Request::for_test("GET", "/", &[]);
        let line = line(&request, 200, Duration::from_micros(1550));
        assert_eq!(line, "0.0.0.0 GET / 200 1.6 ms");
    }
}
