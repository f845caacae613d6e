//! Routes: which handler takes which method and path, and the middleware around all handlers.
//!
//! ```text
//!  request  ──▶ middleware 0 ──▶ middleware 1 ──▶ handler, or 404, 405, OPTIONS
//!  response ◀──              ◀──              ◀──
//! ```
//!
//! The route is found before the body is read and before any middleware runs, so a middleware sees the path parameters.
//!
//! ```text
//! pattern = 1*( "/" segment )
//! segment = literal / "{" name "}" / "{*" name "}"    the last form only at the end
//! name    = 1*( ALPHA / DIGIT / "_" )
//! ```
//!
//! Routes are kept in the order in which they are tried: at the first segment that differs, a literal goes before a
//! parameter, and a parameter before a rest. Of routes with the same segments, those for any method come last.
//!
//! ```text
//! /events/all  <  /events/{topic}  <  /events/{*rest}
//! ```

use crate::http::{IntoResponse, Method, Request, Response, method_list, percent_decode};
use crate::user_code::guarded;

/// A handler whose return value is a response already.
pub(crate) type Handler = Box<dyn Fn(&Request) -> Response + Send + Sync>;
/// A middleware of any kind, as [`Router`] keeps them: the outermost first.
pub(crate) type BoxedMiddleware = Box<dyn Fn(&Request, Next<'_>) -> Response + Send + Sync>;

/// The routes and the middleware of a server.
#[derive(Default)]
pub(crate) struct Router {
    /// Sorted by [`Route::place`], so that the first route that matches is the most specific one.
    routes: Vec<Route>,
    /// All middleware, the outermost first.
    pub(crate) middleware: Vec<BoxedMiddleware>,
    /// What is wrong with the first invalid pattern. The server reports it when it starts.
    pub(crate) invalid: Option<String>,
}

/// A method, a pattern for paths, and the handler for requests of both.
struct Route {
    /// `None` for any method.
    method: Option<Method>,
    /// The pattern as it was given, for the error of another route in the same place.
    pattern: String,
    /// At least one: the path `/` has one empty segment.
    segments: Vec<Segment>,
    /// The names of the parameters, in the order of the segments.
    names: Vec<String>,
    handler: Handler,
}

/// A segment of a pattern, in the order of the routes: the more specific one is less.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// Text that matches itself.
    Literal(String),
    /// `{name}`, which matches one segment that is not empty.
    Parameter,
    /// `{*name}`, which matches one or more segments, and is the last. None of them is empty, `.`, `..` or holds a slash, so the
    /// path may name a file in a folder.
    Rest,
}

/// What a middleware calls to go on: the middleware inside it, then the handler.
pub struct Next<'a> {
    /// The middleware that has not run yet.
    middleware: &'a [BoxedMiddleware],
    /// The handler that runs after all middleware; without one, the methods that the path has routes for.
    handler: &'a Found<'a>,
}

/// The handler of a request. The error lists the methods for which the path has a route, none for an unknown path.
pub(crate) type Found<'a> = Result<&'a Handler, String>;

impl Router {
    /// Adds a route. An invalid one is named in [`Router::invalid`].
    pub(crate) fn add(&mut self, method: Option<Method>, pattern: &str, handler: Handler) {
        let route = Route::new(method, pattern, handler);
        if let Err(problem) = route.and_then(|route| self.insert(route)) {
            let problem = format!("route pattern {pattern:?}: {problem}");
            self.invalid.get_or_insert(problem);
        }
    }

    /// Inserts a route at its place, unless another route takes the same requests.
    fn insert(&mut self, route: Route) -> Result<(), String> {
        let search = |other: &Route| other.place().cmp(&route.place());
        match self.routes.binary_search_by(search) {
            Ok(place) => {
                let other = &self.routes[place].pattern;
                return Err(format!("{other:?} takes the same requests already"));
            }
            Err(place) => self.routes.insert(place, route),
        }
        Ok(())
    }

    /// Finds the handler of a request, and sets the path parameters. A route of another method does not hide a less specific
    /// one of the request's method.
    pub(crate) fn find(&self, request: &mut Request) -> Found<'_> {
        let method = request.method();
        for route in self.routes.iter().filter(|route| route.answers(method)) {
            if let Some(values) = route.match_path(request.path()) {
                request.params = route.names.iter().cloned().zip(values).collect();
                return Ok(&route.handler);
            }
        }
        let routes = self.routes.iter();
        let routes = routes.filter(|route| route.match_path(request.path()).is_some());
        let known = |method: &Method| routes.clone().any(|route| route.answers(*method));
        let methods = Method::ALL.map(|(method, _)| method);
        Err(method_list(methods.into_iter().filter(known)))
    }

    /// Runs the middleware and the handler.
    pub(crate) fn answer(&self, request: &Request, handler: &Found<'_>) -> Response {
        let next = Next {
            middleware: &self.middleware,
            handler,
        };
        next.run(request)
    }
}

/// Makes the response where no handler was found. Not inlined: its stack frame would stand below every handler's.
///
/// ```text
/// OPTIONS *                                204
/// a path without any route                 404
/// OPTIONS on a path with routes            204 with Allow
/// another method than those of the routes  405 with Allow    RFC 9110 section 15.5.6
/// ```
#[inline(never)]
fn refuse(request: &Request, allow: &str) -> Response {
    let response = match request.method() {
        // `OPTIONS *` asks whether the server works (RFC 9110 section 9.3.7).
        _ if request.path() == "*" => return Response::new(204),
        _ if allow.is_empty() => return Response::from_status(404),
        Method::Options => Response::new(204),
        _ => Response::from_status(405),
    };
    response.with_field("Allow", allow)
}

impl Route {
    /// Parses a pattern. An error says what is wrong, and what would be right.
    fn new(method: Option<Method>, pattern: &str, handler: Handler) -> Result<Route, String> {
        let mut route = Route {
            method,
            pattern: pattern.to_string(),
            segments: Vec::new(),
            names: Vec::new(),
            handler,
        };
        let path = pattern.strip_prefix('/');
        let path =
            path.ok_or_else(|| format!("a path begins with a slash, as in \"/{pattern}\""))?;
        let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let never_there = |c: char| c.is_whitespace() || c.is_control() || "{}*<>?#%".contains(c);
        for text in path.split('/') {
            let name = text
                .strip_prefix('{')
                .and_then(|text| text.strip_suffix('}'));
            let (segment, name) = match (name, name.and_then(|name| name.strip_prefix('*'))) {
                (_, Some(name)) => (Segment::Rest, name),
                (Some(name), _) => (Segment::Parameter, name),
                _ => (Segment::Literal(text.to_string()), ""),
            };
            let fits = match segment {
                Segment::Literal(_) => !text.starts_with(':') && !text.contains(never_there),
                _ => !name.is_empty() && name.chars().all(is_letter),
            };
            if !fits {
                let mut words = text.rsplit(|c| !is_letter(c));
                let name = words.find(|word| !word.is_empty()).unwrap_or("name");
                let right =
                    format!("write a parameter as {{{name}}}, the rest of a path as {{*{name}}}");
                return Err(format!("{text:?} matches no path; {right}"));
            }
            if route.names.iter().any(|known| known == name) {
                return Err(format!("{text:?} has the name of another parameter"));
            }
            if route.segments.last() == Some(&Segment::Rest) {
                return Err("the rest of a path comes last".to_string());
            }
            if !name.is_empty() {
                route.names.push(name.to_string());
            }
            route.segments.push(segment);
        }
        Ok(route)
    }

    /// Returns whether the route takes requests of this method.
    fn answers(&self, method: Method) -> bool {
        match (self.method, method) {
            // HEAD is GET without the content (RFC 9110 section 9.3.2).
            (Some(Method::Get), Method::Head) => true,
            (known, _) => known.is_none_or(|known| known == method),
        }
    }

    /// Returns the place among all routes. Two routes in the same place take the same requests.
    fn place(&self) -> (&[Segment], u8) {
        let method = match self.method {
            // Before GET, whose routes match HEAD as well.
            Some(Method::Head) => 0,
            Some(method) => 1 + method as u8,
            None => u8::MAX,
        };
        (&self.segments, method)
    }

    /// Returns the values of the parameters, decoded, where a path matches. The path is split before it is decoded: an encoded
    /// slash does not separate segments.
    ///
    /// The path is split into as many parts as the pattern has segments, so the last part has all that is left. A literal has
    /// no slash and a parameter takes none, so a longer path matches only a rest.
    fn match_path(&self, path: &str) -> Option<Vec<String>> {
        // The last part is the whole rest of the path.
        let mut parts = path.strip_prefix('/')?.splitn(self.segments.len(), '/');
        let mut values = Vec::new();
        for segment in &self.segments {
            let part = parts.next()?;
            let value = percent_decode(part)?;
            match segment {
                Segment::Literal(text) if value == *text => continue,
                Segment::Parameter if !part.is_empty() && !part.contains('/') => {}
                Segment::Rest if part.split('/').all(is_file_name) => {}
                _ => return None,
            }
            values.push(value.into_owned());
        }
        Some(values)
    }
}

/// Returns whether a part of a path names something in a folder, when it is decoded.
fn is_file_name(part: &str) -> bool {
    // A colon ends the name of a drive on Windows.
    let leads_away = |c: char| c == '/' || (cfg!(windows) && c == ':');
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(leads_away);
    percent_decode(part).is_some_and(|part| is_name(&part))
}

/// Calls a handler or a middleware. A panic becomes a 500, which the middleware around it sees: an access log needs its line,
/// and a page of another site its CORS fields.
fn without_panic(who: &str, answer: &dyn Fn() -> Response) -> Response {
    guarded(answer).unwrap_or_else(|| Response::failed(format!("the {who} panicked")))
}

impl Next<'_> {
    /// Passes the request on and returns the response.
    ///
    /// Without a route the response is a 404. A path that has routes for other methods only gets a 405 with `Allow`, and
    /// OPTIONS on a known path a 204 with `Allow` (RFC 9110 section 9.3.7).
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
            Ok(handler) => without_panic("handler", &|| handler(request)),
            Err(allow) => refuse(request, allow),
        }
    }
}

/// A middleware, which runs around the handlers: a [`Cors`](crate::Cors), or a function from the request and [`Next`] to
/// anything that a handler may return.
///
/// The compiler infers `Kind`, which tells the implementations apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a middleware",
    note = "write a closure with the types of its arguments, `|request: &Request, next: Next<'_>| next.run(request)`, or a function of these"
)]
pub trait Middleware<Kind>: Send + Sync + 'static {
    /// Makes a response, or passes the request on with [`Next::run`].
    fn run(&self, request: &Request, next: Next<'_>) -> Response;
}

impl<F, R> Middleware<fn() -> R> for F
where
    F: Fn(&Request, Next<'_>) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    fn run(&self, request: &Request, next: Next<'_>) -> Response {
        self(request, next).into_response()
    }
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Next({} middleware)", self.middleware.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Request {
        let (method, target) = line.split_once(' ').unwrap();
        Request::for_test(method, target, &[])
    }

    fn add<R: IntoResponse>(
        router: &mut Router,
        method: Option<Method>,
        pattern: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) {
        router.add(
            method,
            pattern,
            Box::new(move |r| handler(r).into_response()),
        );
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
            "/files/{*path}",
            |r: &Request| format!("file {}", r.param("path")),
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
        let response = router.answer(&request, &found);
        assert!(response.stream.is_none());
        assert_eq!(
            (
                response.status(),
                &*String::from_utf8_lossy(response.body())
            ),
            (status, body),
            "{line}"
        );
    }

    #[test]
    fn the_most_specific_route_answers() {
        check("GET /", 200, "root"); // The root is one empty segment.
        check("GET /events/news", 200, "topic news"); // A parameter.
        check("GET /events/all", 200, "all"); // A literal goes first, whatever the order of adding.
        check("GET /events/~%C3%A9", 200, "tilde"); // Also where its letters sort after the brace of a parameter.
        check("GET /events/al%6C", 200, "all"); // Encoded letters are the same letters (RFC 3986 section 6.2.2.2).
        check("GET /events/a%2Fb", 200, "topic a/b"); // An encoded slash does not split.
        check("GET /events/%7Ba%7D%20%C3%A9", 200, "topic {a} é"); // Parameters arrive decoded.
        check("POST /events/all", 200, "post"); // The literal route has no POST, the other has.
        check("HEAD /events/all", 200, "all"); // GET routes answer HEAD.
        check("GET /x/b/y", 200, "x+y"); // Two parameters.
        check("PATCH /any", 200, "PATCH"); // Any method.
        check("GET /files/a", 200, "file a"); // The rest of the path, decoded.
        check("GET /files/a/%C3%A9%20b/.c..d", 200, "file a/é b/.c..d");
        check("GET /files/b/c", 200, "file b/c"); // The literal goes before the parameters of /{a}/b/{c}.
        for rest in [
            "",
            "..",
            "../a",
            "a/..",
            "a/%2e%2E/b",
            ".",
            "a/./b",
            "a//b",
            "a/",
            "/a",
            "a%2Fb",
            "%2e%2e%2fa",
        ] {
            check(&format!("GET /files/{rest}"), 404, "404 Not Found\n"); // It never leads out of a folder.
        }
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
            let response = router.answer(&request, &found);
            assert_eq!(response.status(), status);
            assert_eq!(response.header("allow"), Some("GET, HEAD, POST"));
        }
    }

    #[test]
    fn a_refused_pattern_says_what_is_wrong_and_what_is_right() {
        #[track_caller]
        fn check(pattern: &str, expected: Option<&str>) {
            let mut router = Router::default();
            add(
                &mut router,
                Some(Method::Get),
                "/there/{id}",
                |_: &Request| "",
            );
            add(&mut router, Some(Method::Get), pattern, |_: &Request| "");
            let expected = expected.map(|problem| format!("route pattern {pattern:?}: {problem}"));
            assert_eq!(router.invalid, expected);
        }
        for pattern in [
            "/",
            "//",
            "/a/{b}/c",
            "/a/",
            "/é",
            "/a:b",
            "/[a]",
            "/{a}/{*b}",
            "/there/x",
            "/there/{*id}",
        ] {
            check(pattern, None);
        }
        check("", Some("a path begins with a slash, as in \"/\""));
        check("a/b", Some("a path begins with a slash, as in \"/a/b\""));
        for (pattern, segment, name) in [
            ("/a/:id", ":id", "id"),
            ("/a/<id>", "<id>", "id"),
            ("/a{b}", "a{b}", "b"),
            ("/{a", "{a", "a"),
            ("/{}", "{}", "name"), // Without a name.
            ("/{a:int}", "{a:int}", "int"),
            ("/*", "*", "name"),
            ("/*a", "*a", "a"),
            ("/{a*}", "{a*}", "a"),
            ("/{*}", "{*}", "name"),
            ("/a b", "a b", "b"), // A path has these encoded.
            ("/a\n", "a\n", "a"),
            ("/a?b", "a?b", "b"),       // The query is no part of it.
            ("/a%20b", "a%20b", "20b"), // Patterns are compared with the decoded path.
        ] {
            let right =
                format!("write a parameter as {{{name}}}, the rest of a path as {{*{name}}}");
            check(
                pattern,
                Some(&format!("{segment:?} matches no path; {right}")),
            );
        }
        check("/{*a}/b", Some("the rest of a path comes last"));
        check(
            "/{a}/{a}",
            Some("\"{a}\" has the name of another parameter"),
        );
        check(
            "/{a}/{*a}",
            Some("\"{*a}\" has the name of another parameter"),
        );
        check(
            "/there/{id}",
            Some("\"/there/{id}\" takes the same requests already"),
        );
        check(
            "/there/{other}",
            Some("\"/there/{id}\" takes the same requests already"),
        ); // Names do not matter.
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let routes = [
            (None, "/a"),
            (Some(Method::Get), "/a"),
            (Some(Method::Head), "/a"),
            (None, "/{b}"),
            (None, "/{*c}"),
        ];
        for turn in 0..routes.len() {
            let mut router = Router::default();
            let mut turned = routes;
            turned.rotate_left(turn);
            for (method, pattern) in turned {
                let text = format!("{method:?} {pattern}");
                add(&mut router, method, pattern, move |_: &Request| {
                    text.clone()
                });
            }
            assert_eq!(router.invalid, None);
            for (line, expected) in [
                ("GET /a", "Some(Get) /a"),
                ("HEAD /a", "Some(Head) /a"),
                ("PUT /a", "None /a"),
                ("GET /x", "None /{b}"),
                ("GET /a/x", "None /{*c}"),
            ] {
                let mut request = request(line);
                let found = router.find(&mut request);
                let response = router.answer(&request, &found);
                assert!(response.stream.is_none());
                assert_eq!(str::from_utf8(response.body()), Ok(expected), "{line}");
            }
        }
    }

    #[test]
    fn middleware_surrounds_handlers_and_refusals_alike() {
        let mut router = router();
        router.middleware.push(Box::new(|request, next| {
            if request.header("x-refuse").is_some() {
                return Response::new(403);
            }
            next.run(request).with_header("X-Outer", "1")
        }));
        let inner =
            |request: &Request, next: Next<'_>| next.run(request).with_header("X-Inner", "2");
        router.middleware.push(Box::new(inner));
        for (line, status) in [("GET /", 200), ("GET /nothing", 404), ("GET /panic", 500)] {
            let mut request = request(line);
            let found = router.find(&mut request);
            let response = router.answer(&request, &found);
            assert_eq!(response.status(), status);
            assert_eq!(response.header("x-outer"), Some("1"));
            assert_eq!(response.header("x-inner"), Some("2"));
        }
    }
}
