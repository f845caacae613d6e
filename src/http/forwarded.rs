//! Who a request comes from, where proxies stand between: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! ```text
//! client 192.0.2.1 ──▶ proxy 10.0.0.2 ──▶ proxy 10.0.0.1 ──▶ this server
//!
//! X-Forwarded-For: 203.0.113.9, 192.0.2.1, 10.0.0.2          the peer is 10.0.0.1
//!                  claim        result     trusted           trusted
//! ```
//!
//! The list is read from its end, since each proxy appends the address that it saw. `X-Forwarded-For` has no specification.
//! `Forwarded` has this grammar (RFC 7239 sections 4 and 6):
//!
//! ```text
//! Forwarded         = 1#forwarded-element
//! forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
//! forwarded-pair    = token "=" value           the pair "for" has a node as its value
//! value             = token / quoted-string
//! node              = nodename [ ":" node-port ]
//! nodename          = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::request::Request;

/// Returns the client's address: the last one that the proxies name and that is not a trusted proxy's own.
///
/// Each proxy appends the address that it saw. What stands before the address from the outermost trusted proxy is the
/// client's claim. Where a trusted proxy names no address, as in `unknown`, its own address stands for its clients.
pub(crate) fn client_ip(request: &Request, trusted: &[IpAddr]) -> IpAddr {
    let mut client = request.peer.ip();
    if !trusted.contains(&client) {
        return client;
    }
    let items = request.headers("x-forwarded-for");
    let items = items.flat_map(|line| line.split(','));
    let mut named: Vec<_> = items.map(address).collect();
    // A proxy that writes `X-Forwarded-For` may pass a `Forwarded` on as the client sent it.
    if named.is_empty() {
        // A line with an open quote stays one element, which names no address.
        let elements = |line| split_unquoted(line, ',').unwrap_or(vec![line]);
        let elements = request.headers("forwarded").flat_map(elements);
        named = elements.map(forwarded_for).collect();
    }
    while trusted.contains(&client)
        && let Some(Some(address)) = named.pop()
    {
        client = address;
    }
    client
}

/// Reads an IP address as proxies write it: alone, with a port, or as IPv6 in brackets with or without a port.
///
/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:4711` are addresses. `unknown` and a name
/// that hides the node, such as `_gateway`, are not addresses.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_ascii();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']');
    let in_brackets = || Some(bracketed()?.parse::<Ipv6Addr>().ok()?.into());
    let address: Option<IpAddr> = text.parse().ok().or_else(with_port).or_else(in_brackets);
    Some(address?.to_canonical())
}

/// Reads the address of the pair `for` in a `forwarded-element` (RFC 7239 section 5.2), for example
/// `for="[2001:db8::1]:4711";proto=https`. A backslash within quotes is not decoded, since no address needs one.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split_unquoted(element, ';')?;
    let value = pairs.iter().find_map(|pair| {
        let (name, value) = pair.trim_ascii().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    match value.strip_prefix('"') {
        Some(quoted) => address(quoted.strip_suffix('"')?),
        None => address(value),
    }
}

/// Splits at each separator that stands outside of a quoted string (RFC 9110 section 5.6.4). Returns `None` where the last
/// quoted string does not end: what a client sent may then hide what the proxy added.
fn split_unquoted(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == separator && !is_quoted
    });
    let parts: Vec<&str> = parts.collect();
    (!is_quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        #[track_caller]
        fn check(trusted: &[&str], forwarded: &[&str], expected: &str) {
            let fields: Vec<_> = forwarded
                .iter()
                .map(|value| ("X-Forwarded-For", *value))
                .collect();
            check_fields(trusted, &fields, expected);
        }
        #[track_caller]
        fn check_fields(trusted: &[&str], fields: &[(&str, &str)], expected: &str) {
            let mut request = Request::for_test("GET", "/", fields);
            request.peer = "10.0.0.1:5000".parse().unwrap();
            let trusted: Vec<IpAddr> = trusted.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(client_ip(&request, &trusted).to_string(), expected);
        }
        check(&[], &["1.2.3.4"], "10.0.0.1"); // Nobody is trusted: anybody can send this field.
        check(&["10.0.0.1"], &[], "10.0.0.1"); // The proxy itself asks.
        check(&["10.0.0.1"], &["1.2.3.4"], "1.2.3.4"); // The proxy speaks for its client.
        check(&["10.0.0.1"], &["9.9.9.9, 1.2.3.4"], "1.2.3.4"); // What stands before is the client's claim.
        check(&["10.0.0.1"], &["9.9.9.9", "1.2.3.4"], "1.2.3.4"); // Several lines are one list (RFC 9110 section 5.3).
        check(&["10.0.0.1", "10.0.0.2"], &["1.2.3.4, 10.0.0.2"], "1.2.3.4"); // A chain of proxies.
        check(&["10.0.0.1"], &["1.2.3.4, unknown"], "10.0.0.1"); // No address: nothing before it counts.
        let proxy = ["10.0.0.1", "10.0.0.2"];
        for (named, expected) in [
            ("::1", "::1"),
            ("1.2.3.4:5678", "1.2.3.4"), // With the client's port.
            ("[2001:db8::1]:5678", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"), // An IPv4 client of a socket for both families.
            ("1.2.3.4:5678, 10.0.0.2:80", "1.2.3.4"), // A proxy with its port.
            ("1.2.3.4, unknown, 10.0.0.2", "10.0.0.2"), // As far as it is known.
            ("10.0.0.2, 10.0.0.2", "10.0.0.2"),
            ("", "10.0.0.1"),
            ("1.2.3.4:99999", "10.0.0.1"), // No port.
            ("[1.2.3.4]", "10.0.0.1"),     // In brackets only IPv6 is an address.
            ("[::1", "10.0.0.1"),
            ("localhost", "10.0.0.1"),
        ] {
            check(&proxy, &[named], expected);
        }

        // RFC 7239 section 4.
        for (forwarded, expected) in [
            ("for=1.2.3.4", "1.2.3.4"),
            ("For=1.2.3.4;proto=http;by=10.0.0.2", "1.2.3.4"), // Names have no case.
            ("proto=http; for=\"1.2.3.4:5678\"", "1.2.3.4"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=\"[2001:db8::1]\"", "2001:db8::1"),
            ("for=9.9.9.9, for=1.2.3.4", "1.2.3.4"), // What stands before is the client's claim.
            ("for=1.2.3.4, for=10.0.0.2", "1.2.3.4"), // A chain of proxies.
            ("for=unknown", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"), // A name that only the proxy knows.
            ("by=1.2.3.4", "10.0.0.1"),
            ("for=\", for=1.2.3.4", "10.0.0.1"), // The client's open quote hides the proxy's word.
            ("for=1.2.3.4;host=\"a,for=9.9.9.9\"", "1.2.3.4"), // A host that the client chose.
            ("for=\", for=1.2.3.4;host=\",for=9.9.9.9;x=\"", "10.0.0.1"), // Both.
            ("for=\"\\\"\", for=1.2.3.4", "1.2.3.4"), // A quoted quote.
        ] {
            check_fields(&proxy, &[("Forwarded", forwarded)], expected);
            check_fields(&[], &[("Forwarded", forwarded)], "10.0.0.1");
        }
        let both = [("Forwarded", "for=9.9.9.9"), ("X-Forwarded-For", "1.2.3.4")];
        check_fields(&proxy, &both, "1.2.3.4"); // The one may come from the client where a proxy writes the other.
    }
}
