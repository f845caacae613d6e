//! The access log.

use std::fmt;
use std::time::{Duration, Instant};

use crate::http::Request;
use crate::router::{BoxedMiddleware, Next};

/// Makes a middleware that calls `log` for each request and its response. Add it first, and the log has the refusals of all
/// other middleware.
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
///     .middleware(access_log(|access| println!("{access}")))
///     .get("/", |_request| "hello\n");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A line is `127.0.0.1 GET /events/news?... 200 0.1 ms`.
pub fn access_log(log: impl Fn(&Access<'_>) + Send + Sync + 'static) -> BoxedMiddleware {
    Box::new(move |request: &Request, next: Next<'_>| {
        let start = Instant::now();
        let response = next.run(request);
        log(&Access {
            request,
            status: response.status(),
            elapsed: start.elapsed(),
        });
        response
    })
}

/// One line of the access log. Displayed, it has no query, which may hold a ticket or another secret, and no control
/// character, which could forge a line.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Access<'a> {
    /// The request, for a log of other parts.
    pub request: &'a Request,
    /// The status of the response.
    pub status: u16,
    /// The time that the handler and the middleware inside took.
    pub elapsed: Duration,
}

impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = self.request;
        // The path is percent-encoded, so it has no control character.
        let query = if request.query.is_empty() { "" } else { "?..." };
        let (client, method, path) = (request.client_ip(), request.method(), request.path());
        let milliseconds = self.elapsed.as_secs_f64() * 1000.0;
        write!(
            f,
            "{client} {method} {path}{query} {} {milliseconds:.1} ms",
            self.status
        )
    }
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
            let log = access_log(move |access| {
                let access = Access {
                    elapsed: Duration::from_micros(1550),
                    ..*access
                };
                sender.send(access.to_string()).unwrap();
            });
            let _ = answer(log, method, target, &[("Cookie", "session=secret")]);
            assert_eq!(lines.try_iter().collect::<Vec<_>>(), [expected]);
        }
        check("GET", "/", "0.0.0.0 GET / 200 1.6 ms");
        check("GET", "/?ticket=secret", "0.0.0.0 GET /?... 200 1.6 ms");
        check("DELETE", "/", "0.0.0.0 DELETE / 405 1.6 ms"); // What no handler answers as well.
        check("GET", "/a%0d%0ab", "0.0.0.0 GET /a%0d%0ab 404 1.6 ms"); // Still encoded.
    }
}
