//! Cross-origin resource sharing ([Fetch](https://fetch.spec.whatwg.org/#http-cors-protocol)): which pages of other sites
//! may read the answers.

use super::allow::{InvalidEntry, parse_origins};
use crate::http::{Method, Request, Response, is_token, method_list};
use crate::router::{Middleware, Next};

/// Lets pages of other sites read the answers, event streams included. Without it a browser keeps those from them, so a
/// server for its own pages alone needs none of this.
///
/// An allowed page gets, with `credentials` where they were asked for,
///
/// ```text
/// Access-Control-Allow-Origin: https://app.example
/// Access-Control-Allow-Credentials: true
/// Vary: Origin
/// ```
///
/// and a preflight request 204 with the methods and fields that are allowed, before any handler or inner middleware: a
/// preflight never has cookies or tokens, so add this one before that which wants them. Others get their answer without
/// these fields, and the browser keeps it from the page; a preflight of theirs gets 403. To refuse their requests
/// altogether there is [`allow_origins`](crate::allow_origins).
///
/// A page that wants cookies to be sent says `new EventSource(url, { withCredentials: true })`.
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
#[derive(Clone, Debug)]
pub struct Cors {
    /// `None` allows every page.
    origins: Option<Vec<String>>,
    credentials: bool,
    methods: String,
    fields: String,
    exposed: String,
}

impl Cors {
    /// Allows every page to read what anybody may read: `Access-Control-Allow-Origin: *`. There are no credentials to be
    /// had with it: a page could read each visitor's own data.
    pub fn any() -> Cors {
        Cors {
            origins: None,
            credentials: false,
            methods: "GET, HEAD, POST".to_string(),
            fields: "Authorization, Content-Type, Last-Event-ID".to_string(),
            exposed: String::new(),
        }
    }

    /// Allows the pages of these origins, without cookies.
    ///
    /// # Errors
    ///
    /// [`InvalidEntry`] when an entry is no origin as browsers send it, as for [`allow_origins`](crate::allow_origins).
    pub fn origins(
        origins: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Cors, InvalidEntry> {
        Ok(Cors {
            origins: Some(parse_origins(origins)?),
            ..Cors::any()
        })
    }

    /// Allows the pages of these origins, with the visitor's cookies: they can read whatever the visitor can.
    ///
    /// # Errors
    ///
    /// As [`origins`](Cors::origins).
    pub fn with_credentials(
        origins: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Cors, InvalidEntry> {
        Ok(Cors {
            credentials: true,
            ..Cors::origins(origins)?
        })
    }

    /// Allows these methods, in place of GET, HEAD and POST, which browsers send without asking.
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Cors {
        self.methods = method_list(methods);
        self
    }

    /// Allows these request fields besides `Authorization`, `Content-Type` and `Last-Event-ID`, which clients that read event
    /// streams with `fetch` send.
    ///
    /// # Errors
    ///
    /// [`InvalidEntry`] when one is not the name of a field.
    pub fn fields(
        mut self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Cors, InvalidEntry> {
        add_names(&mut self.fields, names)?;
        Ok(self)
    }

    /// Lets pages read these fields of a response, besides the few that
    /// [every page may read](https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name).
    ///
    /// # Errors
    ///
    /// [`InvalidEntry`] when one is not the name of a field.
    pub fn expose(
        mut self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Cors, InvalidEntry> {
        add_names(&mut self.exposed, names)?;
        Ok(self)
    }

    /// What goes into `Access-Control-Allow-Origin`.
    fn allowed(&self, request: &Request) -> Option<&str> {
        match &self.origins {
            None => Some("*"),
            Some(origins) => {
                let origin = request.header("origin")?;
                let known = origins.iter().find(|known| *known == origin);
                known.map(String::as_str)
            }
        }
    }

    fn preflight(&self) -> Response {
        Response::new(204)
            .with_field("Access-Control-Allow-Methods", &self.methods)
            // Named one by one, as `*` would not cover `Authorization`.
            .with_field("Access-Control-Allow-Headers", &self.fields)
            // Ten minutes, after which a changed list is known everywhere.
            .with_field("Access-Control-Max-Age", "600")
    }
}

/// Adds names of fields to a list, `#field-name` (RFC 9110 section 5.6.1).
fn add_names(
    list: &mut String,
    names: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<(), InvalidEntry> {
    for name in names {
        let name = name.as_ref();
        if !is_token(name.as_bytes()) {
            return Err(InvalidEntry::new(name, "a field name"));
        }
        *list += if list.is_empty() { "" } else { ", " };
        *list += name;
    }
    Ok(())
}

impl Middleware<Cors> for Cors {
    fn run(&self, request: &Request, next: Next<'_>) -> Response {
        let allowed = self.allowed(request);
        let is_preflight = request.method() == Method::Options
            && request.header("origin").is_some()
            && request.header("access-control-request-method").is_some();
        let mut response = match (is_preflight, allowed) {
            (false, _) => next.run(request),
            (true, None) => Response::text("not for pages of this origin\n").with_status(403),
            (true, Some(_)) => self.preflight(),
        };
        if let Some(origin) = allowed {
            response = response.with_field("Access-Control-Allow-Origin", origin);
            if self.credentials {
                response = response.with_field("Access-Control-Allow-Credentials", "true");
            }
            if !is_preflight && !self.exposed.is_empty() {
                response = response.with_field("Access-Control-Expose-Headers", &self.exposed);
            }
        }
        // Also where no origin was sent: a cache must not hand that answer to a page of another site.
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
            if let Some(value) = answer.header_value(name) {
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
        ); // Without an origin it is not a page's.
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
        ); // Told with the answer itself, and not before.
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
