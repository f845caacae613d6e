//! Paths with `{parameters}`, methods, and the middleware around them.

use std::panic::{self, AssertUnwindSafe};

use crate::http::{Method, Request, Response, method_list, percent_decode};

pub(crate) type Handler = Box<dyn Fn(&Request) -> Response + Send + Sync>;
type Middleware = Box<dyn Fn(&Request, Next<'_>) -> Response + Send + Sync>;

/// Which handler answers which request.
#[derive(Default)]
pub(crate) struct Router {
    routes: Vec<Route>,
    pub(crate) fallback: Option<Handler>,
    pub(crate) middleware: Vec<Middleware>,
    /// The first pattern that is none, kept until there is a way to say so.
    pub(crate) invalid: Option<String>,
}

struct Route {
    /// `None` is any.
    method: Option<Method>,
    pattern: String,
    handler: Handler,
}

/// The rest of a request's way: further middleware, then the handler.
pub struct Next<'a> {
    middleware: &'a [Middleware],
    handler: Option<&'a Handler>,
    router: &'a Router,
}

impl Router {
    pub(crate) fn add(&mut self, method: Option<Method>, pattern: &str, handler: Handler) {
        if !is_pattern(pattern) {
            self.invalid.get_or_insert_with(|| pattern.to_string());
            return;
        }
        let behind = |route: &Route| rank(&route.pattern).gt(rank(pattern));
        let at = self.routes.iter().position(behind);
        let route = Route {
            method,
            pattern: pattern.to_string(),
            handler,
        };
        self.routes.insert(at.unwrap_or(self.routes.len()), route);
    }

    /// Finds the handler and fills in the path parameters.
    pub(crate) fn find(&self, request: &mut Request) -> Option<&Handler> {
        let known = |route: &&Route| {
            route.answers(request.method()) && matches_path(&route.pattern, request.path())
        };
        if let Some(route) = self.routes.iter().find(known) {
            fill_in(request, &route.pattern);
            return Some(&route.handler);
        }
        let fallback = self.fallback.as_ref()?;
        self.allow(request.path()).is_empty().then_some(fallback)
    }

    /// The methods that routes know on this path, whatever the request's own, as a field lists them.
    fn allow(&self, path: &str) -> String {
        let known = |method: &&Method| {
            let mut routes = self.routes.iter();
            routes.any(|route| route.answers(**method) && matches_path(&route.pattern, path))
        };
        method_list(Method::ALL.iter().filter(known))
    }

    /// Sends the request through the middleware to what was found.
    pub(crate) fn answer(&self, request: &Request, handler: Option<&Handler>) -> Response {
        let next = Next {
            middleware: &self.middleware,
            handler,
            router: self,
        };
        next.run(request)
    }

    /// The answer where no handler is found. A function of its own, as its room on the stack would be taken below that
    /// of each handler.
    #[inline(never)]
    fn refuse(&self, request: &Request) -> Response {
        let allow = self.allow(request.path());
        let response = match request.method() {
            // `OPTIONS *` asks the server as a whole, which is there.
            _ if request.path() == "*" => return Response::new(204),
            _ if allow.is_empty() => return Response::of_status(404),
            Method::Options => Response::new(204),
            _ => Response::of_status(405),
        };
        response.with_field("Allow", &allow)
    }
}

impl Route {
    fn answers(&self, method: Method) -> bool {
        match (self.method, method) {
            // RFC 9110 section 9.3.2.
            (Some(Method::Get), Method::Head) => true,
            (known, _) => known.is_none_or(|known| known == method),
        }
    }
}

/// A panic becomes a 500, which the middleware around it sees: a log wants its line, and a page of another site its CORS
/// fields. What is shared with other requests is its owner's to keep consistent, as after any panic of a thread.
fn without_panic(who: &str, answer: &dyn Fn() -> Response) -> Response {
    panic::catch_unwind(AssertUnwindSafe(answer))
        .unwrap_or_else(|_| Response::failed(format!("the {who} panicked")))
}

impl Next<'_> {
    /// Passes the request on and returns the answer. Where no handler is found, that is 404, or 405 with `Allow`; an
    /// OPTIONS request to a known path gets 204 with `Allow` (RFC 9110 section 9.3.7).
    pub fn run(self, request: &Request) -> Response {
        if let Some((first, rest)) = self.middleware.split_first() {
            return without_panic("middleware", &|| {
                let next = Next {
                    middleware: rest,
                    ..self
                };
                first(request, next)
            });
        }
        match self.handler {
            Some(handler) => without_panic("handler", &|| handler(request)),
            None => self.router.refuse(request),
        }
    }
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next")
            .field("middleware", &self.middleware.len())
            .finish_non_exhaustive()
    }
}

/// It begins with a slash, and a parameter is a whole segment with a name of its own.
fn is_pattern(pattern: &str) -> bool {
    let is_segment = |segment: &str| {
        let name = parameter(segment);
        let same = pattern.split('/').filter(|other| *other == segment);
        let is_named = name.is_none_or(|name| !name.is_empty() && same.count() == 1);
        is_named && !name.unwrap_or(segment).contains(['{', '}', '?', '#'])
    };
    pattern.starts_with('/') && pattern.split('/').all(is_segment)
}

/// Puts literals before parameters, so that the first route that matches is the most specific one.
fn rank(pattern: &str) -> impl Iterator<Item = u8> {
    pattern.bytes().map(|byte| match byte {
        b'{' => u8::MAX,
        _ => byte,
    })
}

fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// The path is split before it is decoded, so that an encoded slash stays in its segment; a parameter takes at least one
/// byte.
fn matches_path(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let all = pattern.split('/').all(|expected| {
        let segment = segments.next().and_then(percent_decode);
        segment.is_some_and(|segment| match parameter(expected) {
            Some(_) => !segment.is_empty(),
            None => segment == expected,
        })
    });
    all && segments.next().is_none()
}

/// Gives the request the parameters of a path that matches.
fn fill_in(request: &mut Request, pattern: &str) {
    if !pattern.contains('{') {
        return;
    }
    let path = request.path().to_string();
    for (expected, segment) in pattern.split('/').zip(path.split('/')) {
        if let Some(name) = parameter(expected)
            && let Some(value) = percent_decode(segment)
        {
            request.add_param(name, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Request {
        let (method, target) = line.split_once(' ').unwrap();
        Request::for_test(method, target, &[])
    }

    fn add<R: Into<Response>>(
        router: &mut Router,
        method: Option<Method>,
        pattern: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) {
        router.add(method, pattern, Box::new(move |r| handler(r).into()));
    }

    fn router() -> Router {
        let mut router = Router::default();
        add(&mut router, Some(Method::Get), "/", |_: &Request| "root");
        add(
            &mut router,
            Some(Method::Get),
            "/events/{topic}",
            |r: &Request| format!("topic {}", r.param("topic")),
        );
        add(
            &mut router,
            Some(Method::Get),
            "/events/all",
            |_: &Request| "all",
        );
        add(
            &mut router,
            Some(Method::Get),
            "/events/~é",
            |_: &Request| "tilde",
        );
        add(
            &mut router,
            Some(Method::Post),
            "/events/{topic}",
            |_: &Request| "post",
        );
        add(&mut router, None, "/any", |r: &Request| {
            r.method().to_string()
        });
        add(
            &mut router,
            Some(Method::Get),
            "/{a}/b/{c}",
            |r: &Request| format!("{}+{}", r.param("a"), r.param("c")),
        );
        add(
            &mut router,
            Some(Method::Get),
            "/panic",
            |_: &Request| -> Response { panic!("on purpose") },
        );
        router
    }

    #[track_caller]
    fn check(line: &str, status: u16, body: &str) {
        let router = router();
        let mut request = request(line);
        let found = router.find(&mut request);
        let response = router.answer(&request, found);
        let crate::http::Body::Whole(bytes) = &response.body else {
            panic!("a stream")
        };
        assert_eq!(
            (response.status(), &*String::from_utf8_lossy(bytes)),
            (status, body),
            "{line}"
        );
    }

    #[test]
    fn the_most_specific_route_answers() {
        check("GET /", 200, "root"); // The root is one empty segment.
        check("GET /events/news", 200, "topic news"); // A parameter.
        check("GET /events/all", 200, "all"); // A literal goes first, whatever the order of adding.
        check("GET /events/~%C3%A9", 200, "tilde"); // Also where its letters sort behind the brace of a parameter.
        check("GET /events/al%6C", 200, "all"); // Encoded letters are the same letters (RFC 3986 section 6.2.2.2).
        check("GET /events/a%2Fb", 200, "topic a/b"); // An encoded slash does not split.
        check("GET /events/%7Ba%7D%20%C3%A9", 200, "topic {a} é"); // Parameters arrive decoded.
        check("POST /events/all", 200, "post"); // The literal route has no POST, the other has.
        check("HEAD /events/all", 200, "all"); // GET routes answer HEAD.
        check("GET /x/b/y", 200, "x+y"); // Two parameters.
        check("PATCH /any", 200, "PATCH"); // Any method.
        check("GET /events/", 404, "404 Not Found\n"); // A parameter is not empty.
        check("GET /events", 404, "404 Not Found\n"); // Nor left out.
        check("GET /events/a/b", 404, "404 Not Found\n"); // One segment only.
        check("GET /Events/a", 404, "404 Not Found\n"); // Case matters.
        check("DELETE /events/all", 405, "405 Method Not Allowed\n"); // Known path, other methods.
        check("GET /panic", 500, "500 Internal Server Error\n"); // A panic ends one request.
    }

    #[test]
    fn a_known_path_names_its_methods() {
        let router = router();
        for (line, status) in [("DELETE /events/all", 405), ("OPTIONS /events/all", 204)] {
            let mut request = request(line);
            let found = router.find(&mut request);
            let response = router.answer(&request, found);
            assert_eq!(response.status(), status);
            assert_eq!(response.header_value("allow"), Some("GET, HEAD, POST"));
        }
    }

    #[test]
    fn patterns_are_checked() {
        #[track_caller]
        fn check(pattern: &str, valid: bool) {
            assert_eq!(is_pattern(pattern), valid, "{pattern}");
        }
        check("/a/{b}/c", true); // Parameters anywhere.
        check("a", false); // Must begin with a slash.
        check("/a{b}", false); // A parameter is a whole segment.
        check("/{}", false); // It has a name.
        check("/{a}/{a}", false); // Of its own.
        check("/{a", false); // It is closed.
        check("/a?b", false); // The query is no part of the path.
    }

    #[test]
    fn middleware_surrounds_handlers_and_refusals_alike() {
        let mut router = router();
        router.middleware.push(Box::new(|request, next| {
            if request.header("x-refuse").is_some() {
                return Response::new(403);
            }
            next.run(request).header("X-Outer", "1")
        }));
        let inner = |request: &Request, next: Next<'_>| next.run(request).header("X-Inner", "2");
        router.middleware.push(Box::new(inner));
        for (line, status) in [("GET /", 200), ("GET /nothing", 404), ("GET /panic", 500)] {
            let mut request = request(line);
            let found = router.find(&mut request);
            let response = router.answer(&request, found);
            assert_eq!(response.status(), status);
            assert_eq!(response.header_value("x-outer"), Some("1"));
            assert_eq!(response.header_value("x-inner"), Some("2"));
        }
    }
}
