//! Allow-lists: the hosts under which this server is known, and the origins whose pages may send requests.

use std::io::{self, ErrorKind};

use crate::http::{Request, Response, is_authority, split_port};
use crate::router::{BoxedMiddleware, Next};

/// Makes a middleware against DNS rebinding, which refuses requests for other hosts with 421 (RFC 9110 section 7.4).
///
/// The web can reach a server on localhost. A page of `evil.example` can have its name resolve to 127.0.0.1 a second later.
/// Then the local server is `evil.example` to the browser, and neither CORS nor cookies protect the server. Only the `Host`
/// field still has the name that the browser asked for.
///
/// An entry without a port allows every port. An entry with port 80 or 443 allows a host without a port too, since browsers
/// leave these ports out. Case and a final dot do not matter. A request without `Host`, which HTTP/1.0 allows, is refused.
///
/// # Errors
///
/// `InvalidInput` for an entry that is not a host. `localhost`, `a.example:8080`, `127.0.0.1` and `[::1]` are hosts.
///
/// # Examples
///
/// ```
/// use tiny_sse::{Server, allow_hosts};
///
/// let server = Server::bind("127.0.0.1:0")?
///     .middleware(allow_hosts(["localhost", "127.0.0.1", "[::1]"])?)
///     .get("/", |_request| "only for this machine\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn allow_hosts(
    hosts: impl IntoIterator<Item = impl AsRef<str>>,
) -> io::Result<BoxedMiddleware> {
    let is_host = |host: &str| is_authority(host) && !host.contains('*');
    let hosts = checked_entries(hosts, "a host", is_host)?;
    Ok(Box::new(move |request: &Request, next: Next<'_>| {
        let asked = name_and_port(request.header("host").unwrap_or_default());
        let is_asked = |host: &String| {
            let (name, port) = name_and_port(host);
            // Browsers leave out the port of their scheme, which may be https (RFC 9110 section 4.2).
            let is_default = asked.1.is_empty() && matches!(port, "80" | "443");
            // Names have no case (RFC 3986 section 3.2.2).
            let is_name = name.eq_ignore_ascii_case(asked.0);
            is_name && (port.is_empty() || port == asked.1 || is_default)
        };
        match hosts.iter().any(is_asked) {
            true => next.run(request),
            false => Response::text("this server has another name\n").with_status(421),
        }
    }))
}

/// Makes a middleware that refuses requests from pages of other sites with 403: those whose `Origin` is neither in the list
/// nor this server's own, according to `Host`.
///
/// CORS keeps the pages of other sites from *reading* responses. Their requests still arrive, run the handlers and hold
/// streams open; this middleware refuses the requests. A request without `Origin` passes: a program sends none, and neither
/// does a browser with GET and HEAD for pages, images and links of any site. So GET and HEAD must not change anything. The
/// origin `null` of sandboxed frames is never allowed.
///
/// Behind a proxy that changes `Host`, list the public origin. [`allow_same_origin`] allows only this server's own pages.
///
/// # Errors
///
/// `InvalidInput` for an entry that is not an origin as browsers send it: scheme and host, and the port where the scheme
/// has another default, without a path, such as `https://a.example`.
///
/// # Examples
///
/// ```
/// use tiny_sse::{Server, allow_origins};
///
/// let server = Server::bind("127.0.0.1:0")?
///     .middleware(allow_origins(["https://app.example"])?)
///     .post("/messages", |_request| "posted by our page, by app.example, or by a program\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn allow_origins(
    origins: impl IntoIterator<Item = impl AsRef<str>>,
) -> io::Result<BoxedMiddleware> {
    let allowed = checked_entries(origins, "an origin", is_origin)?;
    Ok(only_origins(allowed))
}

/// Makes a middleware that refuses requests from pages of other sites with 403, as [`allow_origins`] does with an empty list.
///
/// ```
/// use tiny_sse::{Server, allow_same_origin};
///
/// let server = Server::bind("127.0.0.1:0")?
///     .middleware(allow_same_origin())
///     .post("/messages", |_request| "posted by our own pages or by a program\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn allow_same_origin() -> BoxedMiddleware {
    only_origins(Vec::new())
}

/// Makes the middleware of [`allow_origins`], for origins that are valid.
fn only_origins(allowed: Vec<String>) -> BoxedMiddleware {
    Box::new(move |request: &Request, next: Next<'_>| {
        let host = request.header("host").unwrap_or_default();
        // Either scheme may be right: a proxy may have ended TLS. A proxy may also write the port of the scheme, which a browser
        // leaves out (RFC 9110 section 4.2).
        let is_own = |origin: &str| {
            let (authority, port) = match origin.split_once("://") {
                Some(("http", authority)) => (authority, ":80"),
                Some(("https", authority)) => (authority, ":443"),
                _ => return false,
            };
            let without_port = host.strip_suffix(port).unwrap_or(host);
            authority.eq_ignore_ascii_case(host) || authority.eq_ignore_ascii_case(without_port)
        };
        // A browser sends one `Origin`. Of several, all must be allowed.
        let mut origins = request.headers("origin");
        if origins.all(|origin| is_own(origin) || allowed.iter().any(|known| known == origin)) {
            return next.run(request);
        }
        Response::text("not for pages of other sites\n").with_status(403)
    })
}

/// Returns whether this is an origin as browsers
/// [serialise](https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin) it.
pub(super) fn is_origin(origin: &str) -> bool {
    let (scheme, host) = origin.split_once("://").unwrap_or_default();
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let never_sent = |byte: u8| byte.is_ascii_uppercase() || byte == b'*';
    let port = split_port(host).1;
    let is_default = matches!((scheme, port), ("http", "80") | ("https", "443"));
    (!scheme.is_empty() && scheme.bytes().all(in_scheme))
        && (is_authority(host) && !host.ends_with(':') && !is_default)
        && !origin.bytes().any(never_sent)
}

/// Copies the entries of a setting. One that no request could match is an `InvalidInput`.
pub(super) fn checked_entries(
    entries: impl IntoIterator<Item = impl AsRef<str>>,
    kind: &str,
    is_valid: impl Fn(&str) -> bool,
) -> io::Result<Vec<String>> {
    let mut checked = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        if !is_valid(entry) {
            let problem = format!("{entry:?} is not {kind}");
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        checked.push(entry.to_string());
    }
    Ok(checked)
}

/// Splits a host into its name, without the final dot of a full name, and its port.
fn name_and_port(host: &str) -> (&str, &str) {
    let (name, port) = split_port(host);
    (name.strip_suffix('.').unwrap_or(name), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::tests::answer;

    #[test]
    fn only_the_names_of_the_list_are_answered() {
        #[track_caller]
        fn check(allowed: &[&str], host: &str, status: u16) {
            // The authority of an absolute target stands for the field.
            let target = format!("http://{host}/");
            let answer = answer(allow_hosts(allowed).unwrap(), "GET", &target, &[]);
            assert_eq!(answer.status(), status, "{allowed:?} {host}");
        }
        let local = ["localhost", "127.0.0.1", "[::1]"];
        check(&local, "localhost", 200);
        check(&local, "localhost:60000", 200); // Without a port in the list, each is allowed.
        check(&local, "LocalHost.:80", 200); // Case and a final dot do not matter.
        check(&local, "127.0.0.1:60000", 200);
        check(&local, "[::1]:60000", 200);
        check(&local, "[::1]", 200); // The colons in brackets are no port's.
        check(&local, "evil.example", 421);
        check(&local, "localhost.evil.example", 421); // The whole name, not its beginning.
        check(&local, "evil.localhost", 421); // Nor its end.
        check(&local, "127.0.0.2", 421);
        check(&local, "[::2]", 421);
        check(&["a.example:8080"], "a.example:8080", 200);
        check(&["a.example:8080"], "a.example", 421); // A port in the list has to be there.
        check(&["a.example:8080"], "a.example:8081", 421);
        check(&["a.example:80"], "a.example", 200); // A browser leaves out the port of its scheme.
        check(&["a.example:443"], "a.example", 200); // Behind a proxy that ends TLS.
        check(&["a.example:80"], "a.example:443", 421);
        check(&[], "localhost", 421); // Nobody.
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        #[track_caller]
        fn check(allowed: &[&str], origins: &[&str], status: u16) {
            let fields: Vec<_> = origins.iter().map(|value| ("Origin", *value)).collect();
            let answer = answer(
                allow_origins(allowed).unwrap(),
                "POST",
                "http://own.example:8080/",
                &fields,
            );
            assert_eq!(answer.status(), status, "{allowed:?} {origins:?}");
        }
        let from = |origin| {
            let target = "http://own.example:8080/";
            answer(allow_same_origin(), "POST", target, &[("Origin", origin)]).status()
        };
        assert_eq!(from("http://own.example:8080"), 200);
        assert_eq!(from("https://a.example"), 403);
        check(&[], &[], 200); // No page.
        check(&[], &["http://own.example:8080"], 200); // A page of this server.
        check(&[], &["https://own.example:8080"], 200); // Behind a proxy that ends TLS.
        check(&[], &["http://own.example"], 403); // Another port is another origin.
        check(&[], &["ftp://own.example:8080"], 403);
        check(&[], &["https://evil.example"], 403);
        check(&[], &["null"], 403); // A sandboxed frame, anybody's.
        check(&[], &[""], 403);
        check(&["https://a.example"], &["https://a.example"], 200);
        check(&["https://a.example"], &["http://a.example"], 403); // The scheme is part of it.
        check(
            &["https://a.example"],
            &["https://a.example.evil.example"],
            403,
        ); // The whole of it.
        check(
            &["https://a.example"],
            &["https://a.example", "https://evil.example"],
            403,
        ); // All lines.
        check(&["app://a"], &["app://a"], 200); // Not only the web has pages.
    }

    #[test]
    fn a_proxy_may_write_the_port_that_a_browser_leaves_out() {
        let from = |origin, host| {
            let target = format!("http://{host}/");
            answer(allow_same_origin(), "POST", &target, &[("Origin", origin)]).status()
        };
        assert_eq!(from("https://own.example", "own.example:443"), 200);
        assert_eq!(from("http://own.example", "own.example:80"), 200);
        assert_eq!(from("http://[::1]", "[::1]:80"), 200);
        assert_eq!(from("http://own.example", "own.example:443"), 403);
        assert_eq!(from("http://own.example", "own.example:8080"), 403);
    }

    #[test]
    fn what_never_matches_is_no_entry() {
        #[track_caller]
        fn check_host(host: &str, expected: &str) {
            let error = allow_hosts([host]).err().unwrap();
            assert_eq!(error.to_string(), expected);
        }
        check_host("", "\"\" is not a host");
        check_host("::1", "\"::1\" is not a host"); // It wants its brackets.
        check_host("http://a", "\"http://a\" is not a host");
        check_host("*.example", "\"*.example\" is not a host"); // No patterns here.

        for origin in [
            "",
            "*",
            "null",
            "a.example",
            "https://",
            "://a",
            "https://a.example/",
            "https://a.example/b",
            "https://A.example",
            "HTTPS://a.example",
            "https://u@a.example",
            "https://*.a.example",
            "https://a.example:443",
            "http://a.example:80",
            "https://a.example:",
            "https://a b",
        ] {
            let error = allow_origins([origin]).err().unwrap();
            assert_eq!(error.to_string(), format!("{origin:?} is not an origin"));
        }
        for origin in [
            "http://localhost:60000",
            "https://a.example:80",
            "http://[::1]:8080",
            "chrome-extension://abc",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
    }
}
