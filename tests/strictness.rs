//! Requests that are not HTTP/1.1 to the letter: a table of requests over sockets, with the section of the RFC, the statuses
//! that come back, and whether the connection ends.
//!
//! After every request that ends its connection, another one is sent, for `/poison`, which must never be answered. If two
//! servers in a row disagree on where a request ends, this is the request that an attacker has smuggled past the first server.
//! Each row is sent whole, byte by byte, and cut at every offset, to processes of their own, whose threads and descriptors have
//! to be back where they were.
//!
//! The cases are those of [h1spec](https://github.com/uNetworking/h1spec), [llhttp](https://github.com/nodejs/llhttp),
//! [picohttpparser](https://github.com/h2o/picohttpparser), [http-garden](https://github.com/narfindustries/http-garden)
//! and the published lists of request smuggling; the rows are our own. Section numbers without a name are RFC 9112's. The unit
//! tests of the request reader test the text of each refusal.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::{Child, Client, serve_parent};
use tiny_sse::{Config, Request, Response, Server, Sse};

const POISON: &str = "GET /poison HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Limits that a row can reach without filling the page.
fn config() -> Config {
    Config {
        max_request_line_bytes: 100,
        max_head_bytes: 300,
        max_fields: 8,
        max_body_bytes: 100,
        ..Config::default()
    }
}

fn site(server: Server) -> Server {
    static POISONED: AtomicUsize = AtomicUsize::new(0);
    server
        .get("/plain", |_| "plain")
        .post("/echo", |request: &Request| {
            Response::bytes("application/octet-stream", request.body().to_vec())
        })
        .get("/stream", |_| Sse::spawn(drop))
        .any("/poison", |_| {
            POISONED.fetch_add(1, Ordering::SeqCst);
            "poison"
        })
        .get("/poisoned", |_| POISONED.load(Ordering::SeqCst).to_string())
}

/// A section, a part of a request and what comes back: statuses, and `close` where the connection ends after them.
type Line<'a> = (&'static str, &'a str, &'static str);

/// Each is followed by `Host: a`.
#[rustfmt::skip] // A row is a line.
const REQUEST_LINES: &[Line<'static>] = &[
    ("3", "GET /plain HTTP/1.1", "200"),
    ("3", " GET /plain HTTP/1.1", "400 close"), // Single spaces, and no others.
    ("3", "GET  /plain HTTP/1.1", "400 close"),
    ("3", "GET /plain  HTTP/1.1", "400 close"),
    ("3", "GET /plain HTTP/1.1 ", "400 close"),
    ("3", "GET /pl ain HTTP/1.1", "400 close"),
    ("3", "GET\t/plain\tHTTP/1.1", "400 close"),
    ("3", "GET\u{b}/plain\u{c}HTTP/1.1", "400 close"),
    ("3", "\tGET /plain HTTP/1.1", "400 close"),
    ("3", "GET /plain\tHTTP/1.1", "400 close"),
    ("3", "GET /plain HTTP/1.1\t", "400 close"),
    ("3", "GET /plain", "400 close"), // HTTP/0.9 is not spoken.
    ("3", "GET", "400 close"),
    ("3", "/plain HTTP/1.1", "400 close"),
    ("3", "GET HTTP/1.1", "400 close"),
    ("3", "GET  HTTP/1.1", "400 close"),
    ("3", "HTTP/1.1 200 OK", "400 close"), // An answer.
    ("3", "Host: a", "400 close"),
    ("3", "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1", "404"), // 100 bytes.
    ("3", "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1", "414 close"),

    ("9110 9.1", "get /plain HTTP/1.1", "501 close"), // Case-sensitive.
    ("9110 9.1", "Get /plain HTTP/1.1", "501 close"),
    ("9110 9.1", "BREW /plain HTTP/1.1", "501 close"),
    ("9110 9.1", "GETGET /plain HTTP/1.1", "501 close"),
    ("9110 5.6.2", "!#$%&'*+-.^_`|~ /plain HTTP/1.1", "501 close"), // A token.
    ("9110 5.6.2", "G=T /plain HTTP/1.1", "400 close"),
    ("9110 5.6.2", "GET: /plain HTTP/1.1", "400 close"),
    ("9110 5.6.2", "G\0ET /plain HTTP/1.1", "400 close"),
    ("9110 5.6.2", "\u{feff}GET /plain HTTP/1.1", "400 close"),
    ("9110 5.6.2", "GÉT /plain HTTP/1.1", "400 close"),
    ("9110 9.3.6", "CONNECT a:80 HTTP/1.1", "501 close"),
    ("9110 9.3.6", "CONNECT /plain HTTP/1.1", "501 close"),
    ("9110 15.5.6", "DELETE /plain HTTP/1.1", "405"),
    ("9110 15.5.6", "TRACE /plain HTTP/1.1", "405"), // It would reflect cookies.
    ("9110 9.3.7", "OPTIONS /plain HTTP/1.1", "204"),

    ("9110 6.2", "GET /plain HTTP/1.2", "200"), // As 1.1.
    ("9110 6.2", "GET /plain HTTP/1.9", "200"),
    ("9.3", "GET /plain HTTP/1.0", "200 close"),
    ("9110 15.6.6", "GET /plain HTTP/0.9", "505 close"),
    ("9110 15.6.6", "GET /plain HTTP/2.0", "505 close"),
    ("9110 15.6.6", "GET /plain HTTP/9.9", "505 close"),
    ("9113 3.4", "PRI * HTTP/2.0", "505 close"),
    ("2.3", "GET /plain http/1.1", "400 close"), // Case-sensitive, one digit each.
    ("2.3", "GET /plain Http/1.1", "400 close"),
    ("2.3", "GET /plain HTTP/1", "400 close"),
    ("2.3", "GET /plain HTTP/2", "400 close"),
    ("2.3", "GET /plain HTTP/1.", "400 close"),
    ("2.3", "GET /plain HTTP/.1", "400 close"),
    ("2.3", "GET /plain HTTP/1.10", "400 close"),
    ("2.3", "GET /plain HTTP/11.1", "400 close"),
    ("2.3", "GET /plain HTTP/01.1", "400 close"),
    ("2.3", "GET /plain HTTP/1.01", "400 close"),
    ("2.3", "GET /plain HTTP/1,1", "400 close"),
    ("2.3", "GET /plain HTTP/1.1x", "400 close"),
    ("2.3", "GET /plain HTTP/+1.1", "400 close"),
    ("2.3", "GET /plain HTTP/-1.1", "400 close"),
    ("2.3", "GET /plain HTTP/1.1\0", "400 close"),
    ("2.3", "GET /plain HTTP1.1", "400 close"),
    ("2.3", "GET /plain HTTP//1.1", "400 close"),
    ("2.3", "GET /plain HTTPS/1.1", "400 close"),
    ("2.3", "GET /plain RTSP/1.0", "400 close"),
    ("2.3", "GET /plain HTTP/¹.¹", "400 close"),

    ("3.2.1", "GET plain HTTP/1.1", "400 close"),
    ("3.2.1", "GET ?plain HTTP/1.1", "400 close"),
    ("3.2.1", "GET //plain HTTP/1.1", "404"), // An empty segment, and no host.
    ("3.2.1", "GET /./plain HTTP/1.1", "404"), // Nothing is resolved.
    ("3.2.1", "GET /a/../plain HTTP/1.1", "404"),
    ("3.2.1", "GET /plain?/poison HTTP/1.1", "200"),
    ("3.2.1", "GET /plain;/poison HTTP/1.1", "404"),
    ("3.2.2", "GET http://b/plain HTTP/1.1", "200"),
    ("3.2.2", "GET HTTP://b:80/plain?x HTTP/1.1", "200"),
    ("3.2.2", "GET https://b/plain HTTP/1.1", "200"),
    ("3.2.2", "GET http://b HTTP/1.1", "404"),
    ("3.2.2", "GET http://b?x HTTP/1.1", "404"),
    ("3.2.2", "GET http:///plain HTTP/1.1", "400 close"), // No host.
    ("3.2.2", "GET http://:80/plain HTTP/1.1", "400 close"),
    ("3.2.2", "GET http://b:80:80/plain HTTP/1.1", "400 close"),
    ("3.2.2", "GET http://b:x/plain HTTP/1.1", "400 close"),
    ("3.2.2", "GET http://b:65536/plain HTTP/1.1", "400 close"),
    ("3.2.2", "GET http://[::1/plain HTTP/1.1", "400 close"),
    ("3.2.2", "GET http:/plain HTTP/1.1", "400 close"),
    ("3.2.2", "GET ftp://b/plain HTTP/1.1", "400 close"),
    ("3.2.2", "GET file:///plain HTTP/1.1", "400 close"),
    ("9110 4.2.4", "GET http://u:p@b/plain HTTP/1.1", "400 close"), // No user information.
    ("3.2.3", "GET b:80 HTTP/1.1", "400 close"), // Only for CONNECT.
    ("3.2.4", "GET * HTTP/1.1", "400 close"), // Only for OPTIONS.
    ("3.2.4", "OPTIONS * HTTP/1.1", "204"),
    ("3.2.4", "OPTIONS *x HTTP/1.1", "400 close"),
    ("9110 7.1", "GET /plain# HTTP/1.1", "400 close"), // No fragment.
    ("9110 7.1", "GET /plain?x#y HTTP/1.1", "400 close"),
    ("3986 2", "GET /plain?<x> HTTP/1.1", "400 close"),
    ("3986 2", "GET /plain?\" HTTP/1.1", "400 close"),
    ("3986 2", "GET /pläin HTTP/1.1", "400 close"),
    ("3986 2", "GET /plain\0 HTTP/1.1", "400 close"),
    ("3986 2", "GET /plain\u{7f} HTTP/1.1", "400 close"),
    ("3986 2.1", "GET /%70lain HTTP/1.1", "200"),
    ("3986 2.1", "GET /%2570lain HTTP/1.1", "404"), // Decoded once.
    ("3986 2.1", "GET /% HTTP/1.1", "400 close"),
    ("3986 2.1", "GET /%7 HTTP/1.1", "400 close"),
    ("3986 2.1", "GET /%7g HTTP/1.1", "400 close"),
    ("3986 2.1", "GET /%%37%30lain HTTP/1.1", "400 close"),
    ("3986 2.1", "GET /%+1 HTTP/1.1", "400 close"),
    ("3986 2.1", "GET /%u0070lain HTTP/1.1", "400 close"),
    ("3986 2.1", "GET /plain?q=50%off HTTP/1.1", "200"), // A form is never malformed: WHATWG URL 5.1.
    ("3986 2.1", "GET /plain?%0d%0aHost:%20b HTTP/1.1", "200"), // Decoded, and harmless.
    ("3986 2.5", "GET /%ff HTTP/1.1", "400 close"), // Not UTF-8.
    ("3986 2.5", "GET /%c0%af HTTP/1.1", "400 close"), // Overlong.
    ("3986 2.5", "GET /%ed%a0%80 HTTP/1.1", "400 close"), // A surrogate.
    ("3986 2.5", "GET /plain?%ff HTTP/1.1", "200"), // In a form it is replaced.
    ("3986 7.3", "GET /plain%00 HTTP/1.1", "400 close"),
    ("3986 7.3", "GET /..%5cplain HTTP/1.1", "400 close"),
    ("3986 7.3", "GET \\plain HTTP/1.1", "400 close"),
    ("3986 2.2", "GET /%2fplain HTTP/1.1", "404"), // An encoded slash does not split.
];

/// Lines that replace `Host: a` after `GET /plain HTTP/1.1`.
#[rustfmt::skip]
const HOSTS: &[Line<'static>] = &[
    ("3.2", "Host: a\r\n", "200"),
    ("3.2", "hOsT:a:80\r\n", "200"),
    ("3.2", "Host: [::1]:80\r\n", "200"),
    ("3.2", "", "400 close"), // None.
    ("3.2", "X: y\r\n", "400 close"),
    ("3.2", "Host: a\r\nHost: a\r\n", "400 close"), // Two.
    ("3.2", "Host: a\r\nX: y\r\nHOST: b\r\n", "400 close"),
    ("3.3", "Host:\r\n", "400 close"), // Empty.
    ("3.3", "Host: \t \r\n", "400 close"),
    ("9110 7.2", "Host: a b\r\n", "400 close"),
    ("9110 7.2", "Host: a, b\r\n", "400 close"),
    ("9110 7.2", "Host: a/b\r\n", "400 close"),
    ("9110 7.2", "Host: a?b\r\n", "400 close"),
    ("9110 7.2", "Host: a#b\r\n", "400 close"),
    ("9110 7.2", "Host: u@a\r\n", "400 close"),
    ("9110 7.2", "Host: http://a\r\n", "400 close"),
    ("9110 7.2", "Host: :80\r\n", "400 close"),
    ("9110 7.2", "Host: a:\r\n", "200"), // An empty port is one.
    ("9110 7.2", "Host: a:+80\r\n", "400 close"),
    ("9110 7.2", "Host: a:8 0\r\n", "400 close"),
    ("9110 7.2", "Host: a:65536\r\n", "400 close"),
    ("9110 7.2", "Host: a:80:80\r\n", "400 close"),
    ("9110 7.2", "Host: ::1\r\n", "400 close"),
    ("9110 7.2", "Host: [::1\r\n", "400 close"),
    ("9110 7.2", "Host: [::1]x\r\n", "400 close"),
    ("9110 7.2", "Host: [1.2.3.4]\r\n", "400 close"),
    ("9110 7.2", "Host: a%\r\n", "400 close"),
    ("9110 7.2", "Host: a\\b\r\n", "400 close"),
    ("9110 7.2", "Host: é\r\n", "400 close"),
    ("9110 7.2", "Host: a\0\r\n", "400 close"),
];

/// After `Host: a` of a GET for `/plain`.
#[rustfmt::skip]
const FIELDS: &[Line<'static>] = &[
    ("5", "X: y", "200"),
    ("5", "X:y", "200"),
    ("5", "X:", "200"),
    ("5", "X:\t y \t", "200"),
    ("5", "X: é", "200"),
    ("5.1", "X : y", "400 close"), // No white space before the colon.
    ("5.1", "X\t: y", "400 close"),
    ("5.1", ": y", "400 close"), // No empty name.
    ("5.1", ":", "400 close"),
    ("5.1", "X", "400 close"),
    ("5.1", "X y", "400 close"),
    ("5.1", "X(: y", "400 close"),
    ("5.1", "\"X\": y", "400 close"),
    ("5.1", "X@: y", "400 close"),
    ("5.1", "É: y", "400 close"),
    ("5.1", "X\0: y", "400 close"),
    ("5.1", "X\u{7f}: y", "400 close"),
    ("5.1", "\u{feff}X: y", "400 close"),
    ("5.1", "GET /poison HTTP/1.1", "400 close"), // A request line is no field.
    ("5.2", "X: y\r\n z", "400 close"), // No folding.
    ("5.2", "X: y\r\n\tz", "400 close"),
    ("5.2", "X: y\r\n ", "400 close"),
    ("5.2", " X: y", "400 close"),
    ("9110 5.5", "X: \0", "400 close"),
    ("9110 5.5", "X: y\0z", "400 close"),
    ("9110 5.5", "X: y\u{1}", "400 close"),
    ("9110 5.5", "X: y\u{b}z", "400 close"),
    ("9110 5.5", "X: y\u{7f}", "400 close"),
    ("9110 5.5", "X: y\u{1b}[2J", "400 close"), // What a terminal would obey.
    ("2.2", "X: y\rZ: z", "400 close"), // A bare CR.
    ("2.2", "X: y\r", "400 close"),
    ("2.2", "X: \ry", "400 close"),
    ("2.2", "\r", "400 close"),
    ("2.2", "X: y\nZ: z", "400 close"), // A bare LF.
    ("2.2", "X: y\n", "400 close"),
    ("2.2", "X: y\n\r\nGET /poison HTTP/1.1\r\nHost: a", "400 close"),
    ("2.2", "X: y\n\nGET /poison HTTP/1.1\r\nHost: a", "400 close"),
    ("2.2", "X: y\r\r\n\r\nGET /poison HTTP/1.1\r\nHost: a", "400 close"),
    ("2.2", "\rGET /poison HTTP/1.1", "400 close"),
    ("6585 5", "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nG: 7", "200"),
    ("6585 5", "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nG: 7\r\nH: 8", "431 close"), // Nine with the host.
    ("9.6", "Connection: close", "200 close"),
    ("9.6", "connection: x, CLOSE ,y", "200 close"),
    ("9.6", "Connection: x\r\nConnection:,close", "200 close"), // A list over two lines.
    ("9.6", "Connection: keep-alive, close", "200 close"),
    ("9.6", "Connection: closed", "200"),
    ("9.6", "Connection:", "200"),
    ("9110 7.6.1", "Connection: Host, Content-Length", "200"), // Nothing is forwarded.
    ("9110 7.8", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA", "200"), // An upgrade may be ignored.
    ("9110 7.8", "Connection: Upgrade\r\nUpgrade: websocket", "200"),
    ("9110 10.1.1", "Expect: 100-continue", "200"), // Nothing to wait for.
    ("9110 10.1.1", "Expect: 200-ok", "417 close"),
    ("9110 10.1.1", "Expect: 100-continue, x", "417 close"),
    ("9110 9.3.1", "Content-Length: 0", "200"), // GET may have a body, which is read.
    ("9110 9.3.1", "Content-Length: 33\r\n\r\nGET /poison HTTP/1.1\r\nHost: a\r\n", "200"),
    ("9110 9.3.1", "Transfer-Encoding: chunked\r\n\r\n21\r\nGET /poison HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n", "200"),
];

/// After `Host: a` of a POST to `/echo`.
#[rustfmt::skip]
const POSTS: &[Line<'static>] = &[
    ("6.3", "\r\n", "200"), // Without a length there is no body.
    ("6.2", "Content-Length: 0\r\n\r\n", "200"),
    ("6.2", "content-length:5 \t\r\n\r\nhello", "200"),
    ("6.2", "Content-Length: 00000005\r\n\r\nhello", "200"),
    ("6.2", "Content-Length: 33\r\n\r\nGET /poison HTTP/1.1\r\nHost: a\r\n\r\n", "200"), // Body, whatever it looks like.
    ("6.3", "Content-Length: +5\r\n\r\nhello", "400 close"), // Digits alone.
    ("6.3", "Content-Length: -0\r\n\r\n", "400 close"),
    ("6.3", "Content-Length: -1\r\n\r\n", "400 close"),
    ("6.3", "Content-Length:\r\n\r\n", "400 close"),
    ("6.3", "Content-Length: 0x5\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5h\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5.0\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5e0\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5_0\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5 5\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: \"5\"\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: ٥\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5\u{a0}\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: \u{b}5\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5\0\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5,5\r\n\r\nhello", "400 close"), // A list, even of equals.
    ("6.3", "Content-Length: 5, 0\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: ,5\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "400 close"),
    ("6.3", "Content-Length: 0\r\nContent-Length: 33\r\n\r\n", "400 close"),
    ("6.3", "Content-Length: 33\r\nX: y\r\ncontent-length: 0\r\n\r\n", "400 close"),
    ("5.1", "Content-Length : 34\r\n\r\n", "400 close"),
    ("5.1", "Content-Length\0: 34\r\n\r\n", "400 close"),
    ("5.2", "Content-Length:\r\n 34\r\n\r\n", "400 close"),
    ("6.3", "X-Content-Length: 5\r\n\r\n", "200"), // Another field.
    ("9110 15.5.14", "Content-Length: 101\r\n\r\n", "413 close"),
    ("9110 15.5.14", "Content-Length: 4294967301\r\n\r\nhello", "413 close"), // 5 in 32 bits.
    ("9110 15.5.14", "Content-Length: 18446744073709551621\r\n\r\nhello", "413 close"), // 5 in 64 bits.
    ("9110 15.5.14", "Content-Length: 99999999999999999999999999999\r\n\r\nhello", "413 close"),

    ("6.3", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"), // Both lengths.
    ("6.3", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.3", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.3", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", "400 close"),
    ("6.3", "Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello", "400 close"),
    ("6.3", "Transfer-Encoding: chunke\r\nContent-Length: 5\r\n\r\nhello", "400 close"),
    ("6.3", "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", "200"), // Another field.

    ("7.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "200"),
    ("7", "transfer-encoding:\tCHUNKED \r\n\r\n0\r\n\r\n", "200"), // Codings ignore case.
    ("6.1", "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked x\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chun\u{212a}ed\r\n\r\n0\r\n\r\n", "400 close"), // A kelvin sign, k in lower case.
    ("6.1", "Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: \u{c}chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked\u{a0}\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("5.1", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("5.1", "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("5.1", " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("5.1", "Transfer-Encoding\u{a0}: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("5.1", "Transfer\u{2010}Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("5.2", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("5.2", "Transfer-Encoding: chun\r\n ked\r\n\r\n0\r\n\r\n", "400 close"),
    ("5.2", "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("2.2", "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("2.2", "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("2.2", "Transfer-Encoding: \nchunked\r\n\r\n0\r\n\r\n", "400 close"),
];

/// After `Transfer-Encoding: chunked` of a POST to `/echo`.
#[rustfmt::skip]
const CHUNKS: &[Line<'static>] = &[
    ("7.1", "0\r\n\r\n", "200"),
    ("7.1", "A\r\n0123456789\r\n00\r\n\r\n", "200"),
    ("7.1", "21\r\nGET /poison HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n", "200"), // Data, whatever it looks like.
    ("7.1", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "200"), // The size alone says where data ends.
    ("7.1", "\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "+5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "-1\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "0x5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5h\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5 \r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", " 5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5\t\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5\0\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5,5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "٥\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "00000000000000005\r\nhello\r\n0\r\n\r\n", "400 close"), // Seventeen digits.
    ("7.1", "10000000000000005\r\nhello\r\n0\r\n\r\n", "400 close"), // 5 in 64 bits.
    ("9110 15.5.14", "100000005\r\nhello\r\n0\r\n\r\n", "413 close"), // 5 in 32 bits.
    ("9110 15.5.14", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "413 close"), // -1 in 64 bits.
    ("9110 15.5.14", "65\r\n", "413 close"), // 101 bytes.
    ("9110 15.5.14", "5\r\nhello\r\n60\r\n", "413 close"), // The sum counts.
    ("7.1", "5\r\nhello0\r\n\r\n", "400 close"), // No CRLF after the data.
    ("7.1", "5\r\nhello!\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5\r\nhell\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5\r\nhello\n0\r\n\r\n", "400 close"),
    ("7.1", "5\r\nhello\r0\r\n\r\n", "400 close"),
    ("7.1", "5\r\nhello\r\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5\rhello\r\n0\r\n\r\n", "400 close"),
    ("7.1", "5\r\nhello\r\n0\n\r\n", "400 close"),
    ("7.1", "5\r\nhello\r\n0\r\n\n", "400 close"),
    ("7.1", "5\r\nhello\r\n\r\n", "400 close"),
    ("7.1.1", "5;a\r\nhello\r\n0;b=\"c;d\"\r\n\r\n", "200"), // Extensions are ignored.
    ("7.1.1", "5;a=\"x;\\\"y\"\r\nhello\r\n0\r\n\r\n", "200"), // A quoted pair (9110 5.6.4).
    ("7.1.1", "5 ;\ta = b\r\nhello\r\n0\r\n\r\n", "200"), // Blanks around (9110 5.6.3).
    ("7.1.1", "5 ; a = \"b\" ; c\r\nhello\r\n0\r\n\r\n", "200"),
    ("7.1.1", "5;a \r\nhello\r\n0\r\n\r\n", "400 close"), // None at the end.
    ("7.1.1", "5;a=\r\nhello\r\n0\r\n\r\n", "400 close"), // Without a value.
    ("7.1.1", "5;a=\"b\r\nhello\r\n0\r\n\r\n", "400 close"), // An open quote.
    ("7.1.1", "5;a=\"b\\\"\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1.1", "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1.1", "5;a=\"\\\0\"\r\nhello\r\n0\r\n\r\n", "400 close"), // No control character, quoted or not.
    ("7.1.1", "5;a=\"\\\r\"\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1.1", "5;\r\nhello\r\n0\r\n\r\n", "400 close"), // Without a name.
    ("7.1.1", "5;a\nhello\r\n0\r\n\r\n", "400 close"), // To others the data begins here.
    ("7.1.1", "5;\na\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1.1", "5;a\rb\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1.1", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", "400 close"), // No quoting of line ends.
    ("7.1.1", "5;a\0\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("7.1.2", "0\r\nX: y\r\nContent-Length: 33\r\n\r\n", "200"), // Trailers change nothing.
    ("7.1.2", "0\r\nTransfer-Encoding: chunked\r\nHost: b\r\nConnection: close\r\n\r\n", "200"),
    ("7.1.2", "0\r\nX : y\r\n\r\n", "400 close"),
    ("7.1.2", "0\r\n X: y\r\n\r\n", "400 close"),
    ("7.1.2", "0\r\nX\r\n\r\n", "400 close"),
    ("7.1.2", "0\r\nX: \0\r\n\r\n", "400 close"),
    ("7.1.2", "0\r\nX: y\n\r\n", "400 close"),
    ("7.1.2", "0\r\n\rX: y\r\n\r\n", "400 close"),
    ("7.1.2", "0\r\nGET /poison HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"), // No blank line: this is a trailer.
];

/// As they are.
#[rustfmt::skip]
const WHOLE: &[Line<'static>] = &[
    ("2.2", "\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "200"), // One empty line before is ignored.
    ("2.2", "\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"),
    ("2.2", "\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"),
    ("2.2", "\rGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"),
    ("2.2", "\r\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"),
    ("2.2", " \r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"),
    ("2.2", "\0GET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"),
    ("2.2", "GET /plain HTTP/1.1\nHost: a\n\n", "400 close"), // A bare LF.
    ("2.2", "GET /plain HTTP/1.1\nHost: a\r\n\r\n", "400 close"),
    ("2.2", "GET /plain HTTP/1.1\r\nHost: a\n\r\n", "400 close"),
    ("2.2", "GET /plain HTTP/1.1\r\nHost: a\r\n\n", "400 close"),
    ("2.2", "GET /plain HTTP/1.1\rHost: a\r\r\n\r\n", "400 close"), // A bare CR.
    ("2.2", "GET /plain HTTP/1.1\r\r\nHost: a\r\n\r\n", "400 close"),
    ("2.2", "GET /plain HTTP/1.1\r\nHost: a\r\n\r\r\n", "400 close"),
    ("2.2", "GET /plain HTTP/1.1\r\n Host: a\r\n\r\n", "400 close"), // White space before the first field.
    ("2.2", "GET /plain HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", "400 close"),
    ("9.3", "GET /plain HTTP/1.0\r\n\r\n", "200 close"), // Without a host, as 1.0 may.
    ("9.3", "GET /plain HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200"),
    ("9.3", "GET /plain HTTP/1.0\r\nHost: a b\r\n\r\n", "400 close"),
    ("6.1", "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"), // 1.0 knows no codings.
    ("6.1", "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("9.3.2", "GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "200 200"), // In order.
    ("9.3.2", "GET /plain HTTP/1.1\r\nHost: a\r\n\r\nget /plain HTTP/1.1\r\nHost: a\r\n\r\n", "200 501 close"),
    ("9.3.2", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "200 200"),
    ("9.3.2", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhelloGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "200 501 close"), // oGET.
    ("9.3.2", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "200 200"), // An old client's CRLF.
    ("9.3.2", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "200 200"),
    ("6.3", "POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\nGET /poison HTTP/1.1\r\nHost: a\r\n\r\n", "405"), // The body goes with its request.
    ("9110 15.5.5", "POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\nGET /poison HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
    ("9110 9.3.7", "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\nGET /poison HTTP/1.1\r\nHost: a\r\n\r\n", "204"),
    ("9110 10.1.1", "POST /nothing HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 33\r\n\r\n", "404 close"), // The response comes instead of a 100.
    ("9110 10.1.1", "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n", "413 close"),
    ("9110 10.1.1", "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello", "417 close"),
    ("9113 3.4", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0", "505 close"),
    ("8446 5.1", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n", "400 close"), // TLS on the wrong port.
    ("2.2", "\u{4}\u{1}\0P\u{7f}\0\0\u{1}\0\r\n\r\n", "400 close"), // SOCKS.
    ("2.2", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"), // A proxy that is not trusted blindly.
    ("2.2", "EHLO a\r\nMAIL FROM:<a@b>\r\n\r\n", "400 close"),
];

/// As they are, and no UTF-8.
#[rustfmt::skip]
const BYTES: &[(&str, &[u8], &str)] = &[
    ("3986 2", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", "400 close"),
    ("5.1", b"GET /plain HTTP/1.1\r\nHost: a\r\n\xff: y\r\n\r\n", "400 close"),
    ("9110 5.5", b"GET /plain HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n", "200"), // Opaque, and allowed.
    ("9110 7.2", b"GET /plain HTTP/1.1\r\nHost: \xff\r\n\r\n", "400 close"),
    ("6.1", b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xa0\r\n\r\n0\r\n\r\n", "400 close"), // A blank in ISO-8859-1.
    ("6.1", b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xffchunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.1", b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x85chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("6.3", b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\xa0\r\n\r\nhello", "400 close"),
    ("6.3", b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2\r\n\r\nhello", "400 close"), // A superscript two.
    ("7.1", b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\xa0\r\nhello\r\n0\r\n\r\n", "400 close"),
];

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |lines: &[Line<'_>], before: &str, after: &str| {
        for &(section, part, expected) in lines {
            let bytes = format!("{before}{part}{after}");
            rows.push(Row::new(section, bytes.as_bytes(), expected));
        }
    };
    let get = "GET /plain HTTP/1.1\r\n";
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\n";
    add(REQUEST_LINES, "", "\r\nHost: a\r\n\r\n");
    add(HOSTS, get, "\r\n");
    add(FIELDS, &format!("{get}Host: a\r\n"), "\r\n\r\n");
    add(POSTS, post, "");
    add(
        CHUNKS,
        &format!("{post}Transfer-Encoding: chunked\r\n\r\n"),
        "",
    );
    add(WHOLE, "", "");
    for (length, expected) in [(284, "200"), (285, "431 close")] {
        let line = "x".repeat(length);
        add(
            &[("6585 5", &line, expected)],
            &format!("{get}Host: a\r\nX: "),
            "\r\n\r\n",
        );
    }
    let bytes = BYTES.iter();
    rows.extend(bytes.map(|(section, bytes, expected)| Row::new(section, bytes, expected)));
    rows
}

struct Row {
    section: &'static str,
    bytes: Vec<u8>,
    statuses: Vec<u16>,
    closes: bool,
}

impl Row {
    fn new(section: &'static str, bytes: &[u8], expected: &str) -> Row {
        let statuses = expected.strip_suffix(" close");
        Row {
            section,
            bytes: bytes.to_vec(),
            closes: statuses.is_some(),
            statuses: statuses
                .unwrap_or(expected)
                .split(' ')
                .map(|status| status.parse().unwrap())
                .collect(),
        }
    }

    fn name(&self) -> String {
        format!("{} of {}", self.bytes.escape_ascii(), self.section)
    }

    /// Sends the row in pieces of this size, and what follows it.
    fn check(&self, child: &Child, piece: usize) {
        let after = if self.closes { POISON } else { LAST };
        let mut expected = self.statuses.clone();
        if !self.closes {
            expected.push(200);
        }
        let mut client = Client::connect(child.addr());
        for piece in [&self.bytes, after.as_bytes()].concat().chunks(piece) {
            client.send(piece);
        }
        let answers = answers(&client.rest());
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, expected, "{}", self.name());
        // The last one says so, and no other.
        for (left, answer) in (0..answers.len()).rev().zip(&answers) {
            assert_eq!(answer.closes, left == 0, "{}", self.name());
        }
    }

    /// The connection ends within the row.
    fn check_cut(&self, child: &Child, cut: usize) {
        let mut client = Client::connect(child.addr());
        client.send(&self.bytes[..cut]);
        client.half_close();
        let answers = answers(&client.rest());
        let name = || format!("cut at {cut}: {}", self.name());
        let nothing_asked = cut == 0 || self.bytes[..cut] == *b"\r\n";
        assert_eq!(answers.is_empty(), nothing_asked, "{}", name());
        for (index, answer) in answers.iter().enumerate() {
            let expected = self.statuses.get(index);
            let ends_early = answer.status == 400 && answer.closes && index + 1 == answers.len();
            assert!(ends_early || Some(&answer.status) == expected, "{}", name());
        }
    }
}

struct Answer {
    status: u16,
    closes: bool,
}

/// Takes a connection's responses apart, which must be whole and nothing else.
fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let shown = bytes.escape_ascii();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no whole head: {shown}"));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
        let fields: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
        let field = |name| {
            fields
                .iter()
                .find(|(known, _)| *known == name)
                .map(|field| field.1)
        };
        let length = field("Content-Length").map_or(0, |length| length.parse().unwrap());
        let body = &bytes[..length];
        assert!(!body.starts_with(b"poison"));
        bytes = &bytes[length..];
        answers.push(Answer {
            status: status[..3].parse().unwrap(),
            closes: field("Connection") == Some("close"),
        });
    }
    answers
}

/// Processes that are attacked side by side, each by a thread of its own.
const PROCESSES: usize = 4;

#[test]
fn each_row_gets_its_answer_and_nothing_behind_it() {
    let test = "each_row_gets_its_answer_and_nothing_behind_it";
    let Some(child) = Child::of(test) else {
        return serve_parent(config(), site);
    };
    let rows = rows();
    assert!(rows.len() >= 150);
    let mut children = vec![child];
    children.resize_with(PROCESSES, || Child::of(test).unwrap());
    thread::scope(|scope| {
        for (index, child) in children.iter().enumerate() {
            let mine = rows.iter().skip(index).step_by(PROCESSES);
            scope.spawn(move || {
                let at_rest = child.at_rest();
                for row in mine {
                    row.check(child, usize::MAX);
                    row.check(child, 1);
                    for cut in 0..row.bytes.len() {
                        row.check_cut(child, cut);
                    }
                }
                let mut client = Client::connect(child.addr());
                assert_eq!(client.get("/plain").text(), "plain");
                assert_eq!(client.get("/poisoned").text(), "0");
                drop(client);
                child.comes_to_rest(at_rest);
            });
        }
    });
}

/// A stream whose head says `close` is the last response on its connection (9.6): bytes that come meanwhile are thrown away.
#[test]
fn nothing_is_answered_after_a_stream_that_says_close() {
    let test = "nothing_is_answered_after_a_stream_that_says_close";
    let Some(child) = Child::of(test) else {
        return serve_parent(config(), site);
    };
    for (version, connection) in [("1.1", "close"), ("1.0", "keep-alive")] {
        let request =
            format!("GET /stream HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        let mut client = Client::connect(child.addr());
        client.send([&request, POISON].concat());
        let text = String::from_utf8(client.rest()).unwrap();
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
        assert!(!text.contains("poison"), "{text}");
    }
    assert_eq!(Client::connect(child.addr()).get("/poisoned").text(), "0");
}
