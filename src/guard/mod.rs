//! Ready middleware: allow-lists of hosts and origins ([`allow`]), CORS ([`cors`]), an access log ([`access`]); and the
//! comparison of secrets ([`secret`]).
//!
//! A program could write each middleware itself: it is a function of the request and `Next`. In this order, the log has the
//! refusals of all others, and a preflight is answered before the origins are checked:
//!
//! ```text
//! access_log ──▶ allow_hosts (421) ──▶ Cors (204, 403) ──▶ allow_origins (403) ──▶ handler
//! ```

mod access;
mod allow;
mod cors;
mod secret;

pub use access::access_log;
pub use allow::{allow_hosts, allow_origins, allow_same_origin};
pub use cors::Cors;
pub use secret::constant_time_eq;

#[cfg(test)]
mod tests {
    use crate::http::{Method, Request, Response};
    use crate::router::{Middleware, Next, Router};

    /// The response of a server with this middleware and, for GET and POST on `/`, the handler "inner".
    pub(super) fn answer<Kind>(
        middleware: impl Middleware<Kind>,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response {
        let mut router = Router::default();
        let run = move |request: &Request, next: Next<'_>| middleware.run(request, next);
        router.middleware.push(Box::new(run));
        for method in [Method::Get, Method::Post] {
            router.add(Some(method), "/", Box::new(|_| Response::text("inner")));
        }
        let mut request = Request::for_test(method, target, fields);
        let found = router.find(&mut request);
        router.answer(&request, &found)
    }
}
