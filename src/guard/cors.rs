//! Cross-origin resource sharing ([Fetch](https://fetch.spec.whatwg.org/#http-cors-protocol)): the pages of which other sites
//! may read responses.

use std::io;

use super::allow::{checked_entries, is_origin};
use crate::http::{Method, Request, Response, is_token, method_list};
use crate::router::{Middleware, Next};

/// A middleware that lets pages of other sites read responses, event streams included. A server for its own pages needs no
/// CORS: without CORS, a browser lets no other page read a response.
///
/// The response to an allowed page has these fields, the second one for [`with_credentials`](Cors::with_credentials):
///
/// ```text
/// Access-Control-Allow-Origin: https://app.example
/// Access-Control-Allow-Credentials: true
/// Vary: Origin
/// ```
///
/// A preflight request of an allowed page gets a 204 with the allowed methods and fields, before any handler and any
/// middleware inside. A preflight has neither cookies nor a token, so add this middleware before one that asks for them.
///
/// A page that is not allowed gets the response without these fields, and the browser does not let the page read it. A
/// preflight of such a page gets a 403. [`allow_origins`](crate::allow_origins) refuses the other requests as well.
///
/// A page has its cookies sent with `new EventSource(url, { withCredentials: true })`.
///
/// # Examples
///
/// ```
/// use tiny_sse::{Cors, Server};
///
/// let server = Server::bind("127.0.0.1:0")?
///     .middleware(Cors::with_credentials(["https://app.example"])?)
///     .get("/", |_request| "read by pages of app.example as well\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a middleware does nothing until a server has it"]
pub struct Cors {
    /// `None` allows every page.
    origins: Option<Vec<String>>,
    credentials: bool,
    methods: String,
    fields: Vec<String>,
    exposed: Vec<String>,
}

impl Cors {
    /// Allows every page: `Access-Control-Allow-Origin: *`. Browsers then send no cookies: otherwise every page could read the
    /// data of each visitor.
    pub fn any() -> Cors {
        Cors {
            origins: None,
            credentials: false,
            methods: "GET, HEAD, POST".to_string(),
            // Each entry is a list.
            fields: vec!["Authorization, Content-Type, Last-Event-ID".to_string()],
            exposed: Vec::new(),
        }
    }

    /// Allows the pages of these origins, without cookies.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an entry that is not an origin, as for [`allow_origins`](crate::allow_origins).
    pub fn origins(origins: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<Cors> {
        Ok(Cors {
            origins: Some(checked_entries(origins, "an origin", is_origin)?),
            ..Cors::any()
        })
    }

    /// Allows the pages of these origins, with the visitor's cookies: such a page can read all that the visitor can.
    ///
    /// # Errors
    ///
    /// As [`origins`](Cors::origins).
    pub fn with_credentials(
        origins: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> io::Result<Cors> {
        Ok(Cors {
            credentials: true,
            ..Cors::origins(origins)?
        })
    }

    /// Allows these methods in place of GET, HEAD and POST.
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Cors {
        self.methods = method_list(methods);
        self
    }

    /// Allows these request fields, besides `Authorization`, `Content-Type` and `Last-Event-ID`, which clients that read event
    /// streams with `fetch` send.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an entry that is not the name of a field.
    pub fn fields(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<Cors> {
        self.fields.extend(checked_names(names)?);
        Ok(self)
    }

    /// Lets pages read these fields of a response, besides the
    /// [fields that every page may read](https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an entry that is not the name of a field.
    pub fn expose(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<Cors> {
        self.exposed.extend(checked_names(names)?);
        Ok(self)
    }
}

/// Copies the names of fields, `field-name = token` (RFC 9110 section 5.1).
fn checked_names(names: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<Vec<String>> {
    checked_entries(names, "a field name", |name| is_token(name.as_bytes()))
}

impl Middleware<Cors> for Cors {
    fn run(&self, request: &Request, next: Next<'_>) -> Response {
        let origin = request.header("origin");
        // The value of `Access-Control-Allow-Origin`.
        let allowed = match &self.origins {
            None => Some("*"),
            Some(origins) => origin.filter(|origin| origins.iter().any(|known| known == origin)),
        };
        let is_preflight = request.method() == Method::Options
            && origin.is_some()
            && request.header("access-control-request-method").is_some();
        let mut response = match (is_preflight, allowed) {
            (false, _) => next.run(request),
            (true, None) => Response::text("not for pages of this origin\n").with_status(403),
            (true, Some(_)) => Response::new(204)
                .with_field("Access-Control-Allow-Methods", &self.methods)
                // Named one by one, since `*` does not cover `Authorization`.
                .with_field("Access-Control-Allow-Headers", &self.fields.join(", "))
                // Ten minutes, after which every browser has a list that was changed.
                .with_field("Access-Control-Max-Age", "600"),
        };
        if let Some(origin) = allowed {
            response = response.with_field("Access-Control-Allow-Origin", origin);
            if self.credentials {
                response = response.with_field("Access-Control-Allow-Credentials", "true");
            }
            let exposed = self.exposed.join(", ");
            if !is_preflight && !exposed.is_empty() {
                response = response.with_field("Access-Control-Expose-Headers", &exposed);
            }
        }
        // Also where no origin was sent: a cache must not give that response to a page of another site.
        if self.origins.is_some() {
            response = response.and_field("Vary", "Origin");
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::tests::answer;

    const A: &str = "https://a.example";
    const PREFLIGHT: (&str, &str) = ("Access-Control-Request-Method", "POST");

    #[track_caller]
    fn check(cors: &Cors, method: &str, fields: &[(&str, &str)], expected: &str) {
        let answer = answer(cors.clone(), method, "/", fields);
        let mut seen = answer.status().to_string();
        for name in [
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "access-control-allow-methods",
            "access-control-allow-headers",
            "access-control-max-age",
            "access-control-expose-headers",
            "vary",
            "allow",
        ] {
            if let Some(value) = answer.header(name) {
                let short = name.strip_prefix("access-control-").unwrap_or(name);
                seen += &format!(" | {short}: {value}");
            }
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_fields_tell_who_may_read() {
        let (any, a) = (Cors::any(), Cors::origins([A]).unwrap());
        let cookies = Cors::with_credentials([A, "http://b.example:8080"]).unwrap();
        let b = ("Origin", "http://b.example:8080");
        let evil = ("Origin", "https://evil.example");
        check(&any, "GET", &[], "200 | allow-origin: *"); // The same for all, so nothing varies.
        check(&any, "GET", &[evil], "200 | allow-origin: *");
        check(&any, "GET", &[("Origin", "null")], "200 | allow-origin: *");
        check(&a, "GET", &[], "200 | vary: Origin"); // Varies also where there is no origin.
        check(&a, "GET", &[evil], "200 | vary: Origin");
        check(&a, "GET", &[("Origin", "null")], "200 | vary: Origin");
        check(
            &a,
            "GET",
            &[("Origin", "https://a.example.evil.example")],
            "200 | vary: Origin",
        );
        check(
            &a,
            "GET",
            &[("Origin", A)],
            "200 | allow-origin: https://a.example | vary: Origin",
        );
        check(
            &a,
            "DELETE",
            &[("Origin", A)],
            "405 | allow-origin: https://a.example | vary: Origin | allow: GET, HEAD, POST",
        ); // A page may see errors, too.
        check(
            &cookies,
            "GET",
            &[("Origin", A)],
            "200 | allow-origin: https://a.example | allow-credentials: true | vary: Origin",
        );
        check(
            &cookies,
            "GET",
            &[b],
            "200 | allow-origin: http://b.example:8080 | allow-credentials: true | vary: Origin",
        ); // The one that asked, and no list.
        check(&cookies, "GET", &[evil], "200 | vary: Origin");
    }

    #[test]
    fn a_preflight_is_answered_before_the_handler() {
        let cors = Cors::with_credentials([A]).unwrap();
        let allowed = "204 | allow-origin: https://a.example | allow-credentials: true | allow-methods: GET, HEAD, POST | allow-headers: Authorization, Content-Type, Last-Event-ID | max-age: 600 | vary: Origin";
        check(&cors, "OPTIONS", &[("Origin", A), PREFLIGHT], allowed);
        check(
            &cors,
            "OPTIONS",
            &[("Origin", "https://evil.example"), PREFLIGHT],
            "403 | vary: Origin",
        );
        check(
            &cors,
            "OPTIONS",
            &[PREFLIGHT],
            "204 | vary: Origin | allow: GET, HEAD, POST",
        ); // Without an origin the request is not a page's.
        check(
            &cors,
            "OPTIONS",
            &[("Origin", A)],
            "204 | allow-origin: https://a.example | allow-credentials: true | vary: Origin | allow: GET, HEAD, POST",
        );
        check(
            &cors,
            "POST",
            &[("Origin", A), PREFLIGHT],
            "200 | allow-origin: https://a.example | allow-credentials: true | vary: Origin",
        );

        let own = Cors::any()
            .methods([Method::Get, Method::Delete])
            .fields(["X-Mine"])
            .unwrap()
            .expose(vec!["X-A".to_string(), "X-B".to_string()])
            .unwrap();

        check(
            &own,
            "OPTIONS",
            &[("Origin", "null"), PREFLIGHT],
            "204 | allow-origin: * | allow-methods: GET, DELETE | allow-headers: Authorization, Content-Type, Last-Event-ID, X-Mine | max-age: 600",
        );
        check(
            &own,
            "GET",
            &[("Origin", A)],
            "200 | allow-origin: * | expose-headers: X-A, X-B",
        ); // With the response, and not with a preflight.
    }

    #[test]
    fn settings_are_checked() {
        assert_eq!(
            Cors::origins(["*"]).unwrap_err().to_string(),
            "\"*\" is not an origin"
        );
        assert_eq!(
            Cors::with_credentials(["null"]).unwrap_err().to_string(),
            "\"null\" is not an origin"
        );
        for names in [["X", "X\r\nEvil"], ["", "X"]] {
            assert!(Cors::any().fields(names).is_err());
            assert!(Cors::any().expose(names).is_err());
        }
    }
}
