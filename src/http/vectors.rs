//! Request vectors: what the reader takes, what it refuses, and with which text.
//!
//! The cases follow those of [h1spec](https://github.com/uNetworking/h1spec), [llhttp](https://github.com/nodejs/llhttp),
//! [picohttpparser](https://github.com/h2o/picohttpparser) and [http-garden](https://github.com/narfindustries/http-garden),
//! and the published lists of request smuggling; the rows are our own. Section numbers without a name are RFC 9112's.

use std::io::{self, BufRead, ErrorKind, Read};
use std::sync::Arc;

use super::{Request, RequestError, Version, read_body};
use crate::config::Config;

const MAX_BODY_BYTES: usize = 64;

fn config() -> Config {
    Config { max_request_line_bytes: 128, max_head_bytes: 512, max_fields: 8, ..Config::default() }
}

#[test]
fn the_request_line_is_method_target_and_version() {
    check_line("GET / HTTP/1.1", "GET /");
    check_line("OPTIONS / HTTP/1.1", "OPTIONS /");
    check_line("PATCH / HTTP/1.1", "PATCH /");
    check_line("TRACE / HTTP/1.1", "TRACE /");
    check_line("get / HTTP/1.1", "501 method is not implemented"); // Case-sensitive: RFC 9110 section 9.1.
    check_line("GET1 / HTTP/1.1", "501 method is not implemented");
    check_line("BREW / HTTP/1.1", "501 method is not implemented");
    check_line("!#$%&'*+-.^_`|~ / HTTP/1.1", "501 method is not implemented"); // A token: RFC 9110 section 5.6.2.
    check_line("CONNECT a:80 HTTP/1.1", "501 method is not implemented"); // RFC 9110 section 9.3.6.
    check_line("CONNECT / HTTP/1.1", "501 method is not implemented");
    check_line("G=T / HTTP/1.1", "400 method is not a token"); // RFC 9110 section 9.1.
    check_line("GET: / HTTP/1.1", "400 method is not a token");
    check_line("GÉT / HTTP/1.1", "400 method is not a token");
    check_line("\0GET / HTTP/1.1", "400 method is not a token");
    check_line("\tGET / HTTP/1.1", "400 method is not a token");
    check_line("\u{feff}GET / HTTP/1.1", "400 method is not a token");
    check_line("\"GET\" / HTTP/1.1", "400 method is not a token");

    // Single spaces between the parts, none elsewhere: section 3.
    for line in [
        " GET / HTTP/1.1", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ",
        "GET / x HTTP/1.1", "GET /", "GET HTTP/1.1", "GET", " ", "GET\t/\tHTTP/1.1",
        "GET\u{b}/\u{c}HTTP/1.1", "GET\r/\rHTTP/1.1", "Host: a",
    ] {
        check_line(line, "400 request line is not method, target and version");
    }
    check_line("GET /\tHTTP/1.1 HTTP/1.1", "400 request target holds a character that must be encoded");
    check_line("GET  HTTP/1.1", "400 request target is none of the known forms"); // An empty target.
}

#[test]
fn versions_are_1_x() {
    check_line("GET / HTTP/1.0", "GET / 1.0 close");
    check_line("GET / HTTP/1.2", "GET /"); // As 1.1: RFC 9110 section 6.2.
    check_line("GET / HTTP/1.9", "GET /");
    check_line("GET / HTTP/0.9", "505 HTTP version is not supported"); // RFC 9110 section 15.6.6.
    check_line("GET / HTTP/2.0", "505 HTTP version is not supported");
    check_line("GET / HTTP/3.0", "505 HTTP version is not supported");
    check_line("GET / HTTP/9.9", "505 HTTP version is not supported");
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 HTTP version is not supported"); // RFC 9113 section 3.4.
    for version in [
        "http/1.1", "Http/1.1", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/1.10", "HTTP/11.1",
        "HTTP/01.1", "HTTP/1.01", "HTTP/1,1", "HTTP/1.1x", "HTTP/-1.1", "HTTP/+1.1", "HTTP/x.y",
        "HTTP 1.1", "HTTP1.1", "HTTPS/1.1", "HTP/1.1", "/1.1", "HTTP//1.1", "HTTP/1.1\t",
        "HTTP/1.1\0", "HTTP/1.1\r", "\tHTTP/1.1", "HTTP/2", "HTTP/¹.¹", "ICE/1.0", "RTSP/1.0",
    ] {
        let reason = match version.contains(' ') {
            true => "400 request line is not method, target and version",
            false => "400 HTTP version is malformed", // Section 2.3.
        };
        check_line(&format!("GET / {version}"), reason);
    }
}

#[test]
fn a_target_has_the_origin_form() {
    check_target("/", "GET /");
    check_target("//", "GET //"); // Segments may be empty: RFC 3986 section 3.3.
    check_target("/a/b;c=1,2/d:e@f", "GET /a/b;c=1,2/d:e@f");
    check_target("/-._~!$&'()*+,;=:@", "GET /-._~!$&'()*+,;=:@");
    check_target("/a[1]|{b}^`", "GET /a[1]|{b}^`"); // As browsers send it.
    check_target("/../etc", "GET /../etc"); // Nothing here is a file.
    check_target("/?", "GET /");
    check_target("/a?b?c", "GET /a");
    check_target("/a?http://b", "GET /a");
    check_target("/http://b", "GET /http://b");
    check_target("a", "400 request target is none of the known forms"); // Section 3.2.1.
    check_target("?a", "400 request target is none of the known forms");
    check_target("a:80", "400 request target is none of the known forms"); // Only for CONNECT: section 3.2.3.
    check_target(".", "400 request target is none of the known forms");

    for target in [
        "/#a", "/a#", "#", "/a?b#c", // No fragment: RFC 9110 section 7.1.
        "/\"", "/<a>", "/a?b=\"", "/a?<b>", // RFC 3986 allows these nowhere.
        "/é", "/a?é", "/\u{7f}", "/\0", "/\u{1}", "/a\tb", "/a\rb", "/a?\0",
    ] {
        check_target(target, "400 request target holds a character that must be encoded");
    }
    check([b"GET /\xff HTTP/1.1\r\n", END].concat(), "400 request target holds a character that must be encoded");
    check([b"GET /?\x80 HTTP/1.1\r\n", END].concat(), "400 request target holds a character that must be encoded");
}

#[test]
fn a_path_is_percent_encoded_utf8() {
    check_target("/%41%c3%A9", "GET /%41%c3%A9");
    check_target("/%2F%2e%2e", "GET /%2F%2e%2e"); // Decoded only within a segment.
    check_target("/%25", "GET /%25");
    check_target("/%2541", "GET /%2541"); // Decoded once.
    for path in [
        "/%", "/%4", "/a%", "/%%", "/%%41", "/%4%31", "/%g1", "/%1g", "/%+1", "/%-1", "/%0x",
        "/%u0041", // RFC 3986 2.1.
        "/%ff", "/%c3", "/%c3/%a9", "/%c0%af", "/%ed%a0%80", "/%f4%90%80%80", // Not UTF-8: overlong, surrogate, too high.
        "/%00", "/a%00.txt", // RFC 3986 section 7.3.
        "/\\", "/..\\a", "/%5c",
    ] {
        check_target(path, "400 path is not percent-encoded UTF-8");
    }
    check_target("/%?a", "400 path is not percent-encoded UTF-8"); // Not across the beginning of the query.
}

#[test]
fn a_query_is_a_form() {
    let request = Request::for_test("GET", "/?a=1&b=2&a=%33+4&&c&=d&e=f=g&%61=%2B&h=%26%3d&i[]=%00", &[]);
    assert_eq!(request.path(), "/");
    assert_eq!(request.query("a"), Some("1"));
    assert_eq!(request.queries("a").collect::<Vec<_>>(), ["1", "3 4", "+"]); // A name is decoded too.
    assert_eq!(request.query("b"), Some("2"));
    assert_eq!(request.query("c"), Some("")); // No `=` is an empty value.
    assert_eq!(request.query(""), Some("d"));
    assert_eq!(request.query("e"), Some("f=g")); // Split at the first.
    assert_eq!(request.query("h"), Some("&=")); // Split before decoding.
    assert_eq!(request.query("i[]"), Some("\0")); // Data may be anything.
    assert_eq!(request.query("A"), None); // Case matters here.
    assert_eq!(Request::for_test("GET", "/a?", &[]).query(""), None);
    // No form is malformed: https://url.spec.whatwg.org/#concept-urlencoded-parser.
    let lenient = Request::for_test("GET", "/?q=50%off&%=1&%%41=%&b=%4&c=%zz%+1&d=%E9&%c3=%a9&e=%c3%28&f=%ef%bb%bf", &[]);
    for (name, value) in [
        ("q", "50%off"), ("%", "1"), ("%A", "%"), ("b", "%4"), ("c", "%zz% 1"), // A stray percent sign stays.
        ("d", "\u{fffd}"), ("\u{fffd}", "\u{fffd}"), ("e", "\u{fffd}("), // What is not UTF-8 is replaced.
        ("f", "\u{feff}"), // A byte order mark stays.
    ] {
        assert_eq!(lenient.query(name), Some(value), "{name}");
    }
    let mut posted = Request::for_test("POST", "/", &[]);
    posted.body = b"a=%zz&a=3+4%2B&a=5".to_vec();
    assert_eq!(posted.form("a").as_deref(), Some("%zz")); // A body is decoded in the same way.
    posted.body = b"a=\xff%41".to_vec();
    assert_eq!(posted.form("a").as_deref(), Some("\u{fffd}A"));
    assert_eq!(posted.form("b"), None);
}

#[test]
fn other_target_forms() {
    check_target("http://a", "GET /"); // Section 3.2.2; an empty path: RFC 9110 section 4.2.3.
    check_target("http://a/", "GET /");
    check_target("http://a?b", "GET /");
    check_target("HTTPS://a:8080/b?c", "GET /b"); // A scheme ignores case: RFC 3986 section 3.1.
    check_target("http://[::1]:80/b", "GET /b");
    check_target("http://b/http://c", "GET /http://c");
    check_target("ftp://a/", "400 request target is none of the known forms");
    check_target("ws://a/", "400 request target is none of the known forms");
    check_target("://a/", "400 request target is none of the known forms");
    check_target("http:/a/", "400 request target is none of the known forms");
    check_target("http:a", "400 request target is none of the known forms");
    check_target("xhttp://a/", "400 request target is none of the known forms");
    for authority in [
        "", ":80", "u@a", "u:p@a", "a:b", "a:65536", "a:80:80", "a:+80", "[::1", "[a]", "a%",
        "a\\b", "a[b",
    ] {
        // RFC 9110 sections 4.2.1 and 4.2.4.
        check_target(&format!("http://{authority}/"), "400 request target has a malformed authority");
    }
    check_target("http://a#b", "400 request target holds a character that must be encoded");
    check_target("http://a/%", "400 path is not percent-encoded UTF-8");

    check_line("OPTIONS * HTTP/1.1", "OPTIONS *"); // Section 3.2.4.
    check_line("GET * HTTP/1.1", "400 request target is only for OPTIONS");
    check_line("OPTIONS ** HTTP/1.1", "400 request target is none of the known forms");
    check_line("OPTIONS *?a HTTP/1.1", "400 request target is none of the known forms");
    check_line("OPTIONS http://a HTTP/1.1", "OPTIONS /");

    // The target's authority replaces the field, which still has to be there and well-formed: section 3.2.2.
    let head = |bytes: &str| read_head(&mut bytes.as_bytes()).unwrap().unwrap();
    let request = head("GET http://b:1/c HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n");
    assert_eq!(request.headers("host").collect::<Vec<_>>(), ["b:1"]);
    assert_eq!(head("GET http://b HTTP/1.0\r\n\r\n").header("host"), Some("b"));
    check("GET http://b/ HTTP/1.1\r\n\r\n", "400 there is not exactly one host");
    check("GET http://b/ HTTP/1.1\r\nHost: /\r\n\r\n", "400 host is malformed");
}

#[test]
fn exactly_one_host() {
    let one = "400 there is not exactly one host"; // Section 3.2.
    check("GET / HTTP/1.1\r\n\r\n", one);
    check("GET / HTTP/1.2\r\nX: y\r\n\r\n", one);
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", one);
    check("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: b\r\n\r\n", one);
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", one);
    check("GET / HTTP/1.0\r\n\r\n", "GET / 1.0 close");
    check("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", "400 host is malformed");

    for host in [
        "a", "A.example:80", "localhost:60000", "a.", "xn--9ca", "127.0.0.1", "127.0.0.1:0",
        "[::1]", "[::1]:65535", "[::ffff:1.2.3.4]:1", "a:", "_a", "1.2.3.999", "%61",
        "a!$&'()*+,;=~", "a:00080",
    ] {
        check(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "GET /"); // RFC 9110 section 7.2, RFC 3986 section 3.2.
    }
    for host in [
        "", ":80", "a b", "a, b", "a/b", "a?b", "a#b", "a@b", "u:p@a", "http://a", "a:b", "a:-1",
        "a:+1", "a:65536", "a:1:2", "a:8 0", "::1", "[::1", "::1]", "[]", "[::1]a", "[::1]:x",
        "[1.2.3.4]", "[::1%25eth0]", "[v1.a]", "[[::1]]", "a[::1]", "a\\b", "a\"b", "a<b", "a|b",
        "a^b", "a%", "a%4", "a%zz", "%ff", "é", "a\tb",
    ] {
        check(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "400 host is malformed"); // An empty one: section 3.3.
    }
}

#[test]
fn fields_are_names_and_values() {
    check_field("X: y", "GET /");
    check_field("X:y", "GET /"); // Section 5: the space is optional.
    check_field("X:", "GET /"); // A value may be empty: RFC 9110 section 5.5.
    check_field("X: \t y \t ", "GET /");
    check_field("X: a:b", "GET /");
    check_field("X: a\tb", "GET /");
    check_field("!#$%&'*+-.^_`|~09azAZ: y", "GET /"); // RFC 9110 section 5.6.2.
    check_field("X: é \u{ffff}", "GET /");
    for line in [
        "X", "X y", ":", ": y", " : y", "X : y", "X\t: y", "X \t: y", // Section 5.1.
        " X: y", "\tX: y", "X: y\r\n z", "X: y\r\n\tz", "X: y\r\n ", "X: y\r\n\t", // No folding: section 5.2.
        "X\0: y", "X\u{1}: y", "X\u{7f}: y", "X\r: y", "É: y", "X(: y", "X/: y", "X@: y", "[X]: y",
        "{X}: y", "\"X\": y", "X,: y", "X;: y", "X=: y", "X?: y", "<X>: y", "X\\: y",
        "GET / HTTP/1.1", "\r", "\u{feff}X: y",
    ] {
        check_field(line, "400 field name is not a token"); // RFC 9110 section 5.1.
    }
    check([b"GET / HTTP/1.1\r\n\xff: y\r\n", END].concat(), "400 field name is not a token");
    check("GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", "400 field name is not a token"); // Section 2.2.
    for byte in (0..0x20).chain([0x7f]).filter(|byte| !b"\t\n".contains(byte)) {
        let field = [b"GET / HTTP/1.1\r\nX: y", [byte].as_slice(), b"z\r\n", END].concat();
        check(field, "400 field value holds a control character"); // RFC 9110 section 5.5.
        let field = [b"GET / HTTP/1.1\r\nX:", [byte].as_slice(), b"\r\n", END].concat();
        check(field, "400 field value holds a control character");
    }
}

#[test]
fn a_line_ends_in_crlf() {
    let bare = "400 line ends in a bare LF"; // Section 2.2.
    check("GET / HTTP/1.1\nHost: a\r\n\r\n", bare);
    check("GET / HTTP/1.1\r\nHost: a\n\r\n", bare);
    check("GET / HTTP/1.1\r\nHost: a\r\n\n", bare);
    check("GET / HTTP/1.1\nHost: a\n\n", bare);
    check("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", bare);
    check("GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n", bare);
    check("GET / HTTP/1.1\rHost: a\r\n\r\n", "400 request line is not method, target and version");
    check("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", "400 HTTP version is malformed");
    check("GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "400 field value holds a control character");
    check("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "400 field value holds a control character");
    check("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", "400 field name is not a token");
    check("GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", "400 field name is not a token");

    check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /"); // One empty line before is ignored: section 2.2.
    check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 request line is not method, target and version");
    check("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 method is not a token");
    check("\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 request line is not method, target and version");
    check(" \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 request line is not method, target and version");
    check("", "none");
    check("\r\n", "none");
    check("\r", "400 request ends early");
    check("\n", bare);
    check([0x16, 0x03, 0x01, 0x02, 0x00, b'\n'], bare); // TLS on the wrong port.
}

#[test]
fn a_content_length_is_one_number() {
    check_post("Content-Length: 0", "", "POST /");
    check_post("Content-Length: 5", "hello", "POST / \"hello\"");
    check_post("content-length:5 \t", "hello", "POST / \"hello\"");
    check_post("Content-Length: 000000000000000000000000005", "hello", "POST / \"hello\""); // RFC 9110 section 8.6.
    check_post("Content-Length: 5", "hello\r\n", "POST / \"hello\" then \"\\r\\n\"");
    check_post("Content-Length: 2", "{}GET /evil HTTP/1.1\r\n", "POST / \"{}\" then \"GET /evil HTTP/1.1\\r\\n\"");
    check_post("X-Content-Length: 5", "hello", "POST / then \"hello\""); // Without a length there is no body: section 6.3.
    check_post("Content_Length: 5", "hello", "POST / then \"hello\"");
    for field in [
        "", "+5", "-5", "-0", "5 5", "5,5", "5, 5", "5,", ",5", "5;", "5.0", "5e0", "0x5", "5h",
        "a", "٥", "\"5\"", "5\u{a0}", "5, 6", "٣", "५", "1_0", "0 5", "5\r\nContent-Length: 5",
        "5\r\nContent-Length: 6", "\r\nContent-Length: 5", "5\r\nX: y\r\ncontent-length: 5",
    ] {
        let field = format!("Content-Length: {field}");
        check_post(&field, EVIL, "400 content length is not one number"); // Section 6.3.
    }
    check_post("Content-Length\0: 5", EVIL, "400 field name is not a token");
    check_post("Content-Length : 5", EVIL, "400 field name is not a token");
    check_post("Content-Length: \u{b}5", EVIL, "400 field value holds a control character");
    check_post("Content-Length: 5\0", EVIL, "400 field value holds a control character");
    check_post("Content-Length:\r\n 5", EVIL, "400 field name is not a token");
    for number in [
        "65", "4294967296", "18446744073709551615", "18446744073709551616", "18446744073709551621",
        "99999999999999999999999",
    ] {
        check_post(&format!("Content-Length: {number}"), EVIL, "413 body is too large"); // Also past a u64: RFC 9110 section 8.6.
    }
}

#[test]
fn a_transfer_coding_is_chunked_alone() {
    check_post("Transfer-Encoding: chunked", "0\r\n\r\n", "POST /");
    check_post("transfer-encoding:\t CHUNKED \t", "1\r\na\r\n0\r\n\r\n", "POST / \"a\""); // Codings ignore case: section 7.
    check_post("X-Transfer-Encoding: chunked", "0\r\n\r\n", "POST / then \"0\\r\\n\\r\\n\"");
    for coding in [
        "", "identity", "gzip", "chunked, gzip", "gzip, chunked", "gzip,chunked",
        "chunked, identity", "identity, chunked", "chunked, chunked", "chunked,", ",chunked",
        ", chunked", "chunked;", "chunked;q=1", "chunked; a", "xchunked", "chunkedx", "x chunked",
        "chunked x", "\"chunked\"", "'chunked'", "chun ked", "chunke", "chunKed\u{212a}",
        "chun\u{212a}ed", "cow", "chunked\u{a0}", "\u{a0}chunked", "=chunked", "chunked:chunked",
        "%63hunked", "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity", "gzip\r\nTransfer-Encoding: chunked",
        "\r\nTransfer-Encoding: chunked", "chunked\r\nX: y\r\ntransfer-encoding: cow",
    ] {
        let field = format!("Transfer-Encoding: {coding}");
        check_post(&field, &format!("0\r\n\r\n{EVIL}"), "400 transfer coding is not chunked alone"); // Sections 6.1, 6.3.
    }
    for field in [
        "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked", "Transfer-Encoding\0: chunked",
        "Transfer-Encoding:\r\n chunked", "Transfer-Encoding: chun\r\n ked",
        "X: y\r\n\tTransfer-Encoding: chunked", "Transfer-Encoding", "Transfer-Encoding chunked",
        "\u{a0}Transfer-Encoding: chunked", "Transfer\u{2010}Encoding: chunked",
        "Transfer-Encoding\r: chunked",
    ] {
        check_post(field, &format!("0\r\n\r\n{EVIL}"), "400 field name is not a token");
    }
    for coding in [
        "\u{b}chunked", "chunked\u{b}", "\u{c}chunked", "chunked\0", "\0chunked", "chun\0ked",
        "\rchunked", "chunked\r", "\u{7f}chunked",
    ] {
        let field = format!("Transfer-Encoding: {coding}");
        check_post(&field, &format!("0\r\n\r\n{EVIL}"), "400 field value holds a control character");
    }
    check_post("X: y\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{EVIL}"), "400 line ends in a bare LF");
    check_post("Transfer-Encoding: \nchunked", &format!("0\r\n\r\n{EVIL}"), "400 line ends in a bare LF");

    let both = "400 there are both a content length and a transfer coding"; // Section 6.3.
    check_post("Content-Length: 5\r\nTransfer-Encoding: chunked", EVIL, both);
    check_post("Transfer-Encoding: chunked\r\nContent-Length: 5", EVIL, both);
    check_post("Transfer-Encoding: chunked\r\nContent-Length: 0", EVIL, both);
    check_post("Transfer-Encoding: identity\r\nContent-Length: 5", EVIL, both);
    check_post("Transfer-Encoding:\r\nContent-Length: 5", EVIL, both);
    check_post("Content-Length: a\r\nTransfer-Encoding: chunked", EVIL, both);
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 transfer coding is not chunked alone"); // Section 6.1.
}

#[test]
fn chunks_make_a_body() {
    check_chunks("0\r\n\r\n", "POST /");
    check_chunks("5\r\nhello\r\n0\r\n\r\n", "POST / \"hello\"");
    check_chunks("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "POST / \"abc\"");
    check_chunks("A\r\n0123456789\r\n00\r\n\r\n", "POST / \"0123456789\"");
    check_chunks("a\r\n0123456789\r\n0\r\n\r\n", "POST / \"0123456789\""); // Either case: section 7.1.
    check_chunks("0000000000000001\r\na\r\n0000000000000000\r\n\r\n", "POST / \"a\""); // Sixteen digits.
    check_chunks("2\r\n\r\n\r\n0\r\n\r\n", "POST / \"\\r\\n\""); // Only the size says where data ends.
    check_chunks("3\r\n0\r\n\r\n0\r\n\r\n", "POST / \"0\\r\\n\"");
    check_chunks("0\r\n\r\nGET /", "POST / then \"GET /\"");

    for size in [
        "", " ", "g", "+1", "-1", "0x1", "x", "1 ", " 1", "1\t", "\t1", "1 1", "1,", "1.0", "1h",
        "1_", "\"1\"", "٣", "1\0", "\x001", "1\r", "\r1", "1\u{b}", " ;a", ";", ";1",
        "00000000000000001", "10000000000000001", "fffffffffffffffff", "1\u{a0}", "1=a", "1:",
        "-0", "0x", "1\u{feff}",
    ] {
        let chunks = format!("{size}\r\na\r\n0\r\n\r\n{EVIL}");
        // Section 7.1: blanks stand only before an extension.
        check_chunks(&chunks, "400 chunk size or extension is malformed");
    }
    for size in [
        "41", "100000001", "ffffffffffffffff", "8000000000000000", "7fffffffffffffff",
    ] {
        check_chunks(&format!("{size}\r\na\r\n0\r\n\r\n{EVIL}"), "413 body is too large"); // Wrapped to 32 bits, one of these would fit.
    }
    for chunks in [
        "1\r\nab\r\n0\r\n\r\n", "1\r\na\n0\r\n\r\n", "1\r\na\r0\r\n\r\n", "1\r\na0\r\n\r\n",
        "1\r\na\n\r\n0\r\n\r\n", "1\r\na\r\r\n0\r\n\r\n",
    ] {
        check_chunks(&format!("{chunks}{EVIL}"), "400 chunk data does not end in CRLF"); // Section 7.1.
    }
    check_chunks("2\r\na\r\n0\r\n\r\n", "400 chunk data does not end in CRLF"); // Too little data.
    check_chunks("1\na\r\n0\r\n\r\n", "400 line ends in a bare LF");
    check_chunks("1\r\na\r\n0\n\r\n", "400 line ends in a bare LF");
    check_chunks("1\r\na\r\n0\r\n\n", "400 line ends in a bare LF");
    check_chunks("1\r\na\r\n\r\n", "400 chunk size or extension is malformed");
    check_chunks("", "400 request ends early"); // Section 8.
    check_chunks("5\r\nhello\r\n", "400 request ends early");
    check_chunks("5\r\nhel", "400 request ends early");
}

#[test]
fn chunk_extensions_are_ignored() {
    check_chunks("1;a\r\nb\r\n0;c=d\r\n\r\n", "POST / \"b\""); // Section 7.1.1.
    check_chunks("1;a=\"b;c\";d\r\nb\r\n0\r\n\r\n", "POST / \"b\"");
    check_chunks("1 ;\ta = b ; c\t=\t\"d\"\r\nb\r\n0 ; e\r\n\r\n", "POST / \"b\""); // Blanks: RFC 9110 section 5.6.3.
    check_chunks("1;a=\"é\"\r\nb\r\n0\r\n\r\n", "POST / \"b\"");
    check_chunks("1;a=\"x;\\\"y\"\r\nb\r\n0\r\n\r\n", "POST / \"b\""); // A quoted pair: RFC 9110 section 5.6.4.
    check_chunks("1;a=\"\\\\\";b=\"\"\r\nb\r\n0\r\n\r\n", "POST / \"b\"");
    for extension in [
        "", " ", ";", ";a", "=", "=a", " =a", "\"a\"", "é", "a@b", "(a)=b", // A name is a token.
        "a=", "a= ", "a=;b", "a=b c", "a b", "a;", "a ", "a=b ", "a=b\t", "a=\"b\"c", "a=b\"c\"", "a=é", "a\\", "a=\\b",
        "a=\"", "a=\"b\";c=\"", "a=\"\\\"", "a=\"b\\", // An open quote: another parser may go on after the line.
    ] {
        check_chunks(&format!("1;{extension}\r\nb\r\n0\r\n\r\n{EVIL}"), "400 chunk size or extension is malformed");
    }
    for extension in ["\r", "a\rb", "\0", "a\u{1b}", "\u{7f}", "a=\"\r\"", "a=\"\\\r\"", "a=\"\\\0\"", "a\r"] {
        check_chunks(&format!("1;{extension}\r\nb\r\n0\r\n\r\n{EVIL}"), "400 chunk size or extension is malformed");
    }
    check_chunks("1;a\nb\r\n0\r\n\r\n", "400 line ends in a bare LF"); // Another parser would begin the data at the b.
    check_chunks("1;\"\n\"\r\nb\r\n0\r\n\r\n", "400 line ends in a bare LF");
}

#[test]
fn trailers_are_checked_and_dropped() {
    check_chunks("0\r\nX: y\r\n\r\n", "POST /"); // Section 7.1.2.
    check_chunks("1\r\na\r\n0\r\nX: y\r\nZ: z\r\n\r\n", "POST / \"a\"");
    check_chunks("0\r\nContent-Length: 5\r\nHost: b\r\nTransfer-Encoding: gzip\r\n\r\nhello", "POST / then \"hello\"");
    check_chunks("0\r\nConnection: close\r\nExpect: x\r\n\r\n", "POST /"); // They change nothing: RFC 9110 section 6.5.1.
    for trailer in ["X", ":", "X : y", " X: y", "X: y\r\n z", "X\0: y", EVIL] {
        check_chunks(&format!("0\r\n{trailer}\r\n\r\n"), "400 field name is not a token");
    }
    check_chunks("0\r\nX: \0\r\n\r\n", "400 field value holds a control character");
    check_chunks("0\r\nX: y\n\r\n", "400 line ends in a bare LF");
    check_chunks("0\r\nX: y\r\n", "400 request ends early");
}

#[test]
fn a_connection_stays_by_version_and_option() {
    for (version, fields, expected) in [
        ("1.1", "", "GET /"), // Section 9.3.
        ("1.1", "Connection: close\r\n", "GET / close"),
        ("1.1", "connection: CLOSE\r\n", "GET / close"), // Options ignore case: RFC 9110 section 7.6.1.
        ("1.1", "Connection: x, close ,y\r\n", "GET / close"),
        ("1.1", "Connection: x\r\nConnection:,close\r\n", "GET / close"), // A list over several lines.
        ("1.1", "Connection: keep-alive, close\r\n", "GET / close"),
        ("1.1", "Connection: closed\r\n", "GET /"),
        ("1.1", "Connection: \"close\"\r\n", "GET /"),
        ("1.1", "Connection:\r\n", "GET /"),
        ("1.1", "Connection: upgrade\r\nUpgrade: h2c\r\n", "GET /"), // An upgrade may be ignored: RFC 9110 section 7.8.
        ("1.1", "Keep-Alive: timeout=5\r\n", "GET /"),
        ("1.1", "Proxy-Connection: close\r\n", "GET /"),
        ("1.7", "", "GET /"),
        ("1.0", "", "GET / 1.0 close"),
        ("1.0", "Connection: keep-alive\r\n", "GET / 1.0"),
        ("1.0", "Connection: te\r\nConnection: Keep-Alive\r\n", "GET / 1.0"),
        ("1.0", "Connection: keep-alive, close\r\n", "GET / 1.0 close"),
        ("1.0", "Connection: keep\r\n", "GET / 1.0 close"),
    ] {
        check(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"), expected);
    }
}

#[test]
fn only_100_continue_can_be_expected() {
    check_post("Content-Length: 1\r\nExpect: 100-continue", "a", "POST / continue \"a\""); // RFC 9110 section 10.1.1.
    check_post("Content-Length: 1\r\nexpect: 100-CONTINUE", "a", "POST / continue \"a\"");
    check_post("Transfer-Encoding: chunked\r\nExpect: 100-continue", "0\r\n\r\n", "POST / continue");
    check_post("Content-Length: 0\r\nExpect: 100-continue", "", "POST /"); // There is nothing to wait for.
    check_post("Expect: 100-continue", "", "POST /");
    check_post("Expect:", "", "POST /");
    check_post("Expect: 100-continue, 100-continue", "", "POST /");
    for expectation in [
        "200-ok", "100-continued", "100", "100-continue, x", "x\r\nExpect: 100-continue",
        "100-continue;q=1",
    ] {
        check_post(&format!("Content-Length: 1\r\nExpect: {expectation}"), "a", "417 expectation cannot be met");
    }
    check("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\na", "POST / 1.0 close \"a\"");
    check("POST / HTTP/1.0\r\nExpect: x\r\n\r\n", "POST / 1.0 close");
}

#[test]
fn each_limit_holds_at_its_edge() {
    let line = |length: usize| format!("GET /{} HTTP/1.1", "a".repeat(length - "GET / HTTP/1.1".len()));
    check_line(&line(127), &format!("GET /{}", "a".repeat(113)));
    check_line(&line(128), &format!("GET /{}", "a".repeat(114)));
    check_line(&line(129), "414 request line is too long"); // Section 3.
    check_line(&format!("{}\n", line(127)), "400 line ends in a bare LF");
    check_line(&line(5000), "414 request line is too long");
    check("a".repeat(130), "414 request line is too long"); // Nothing needs to follow.
    check("a".repeat(129), "400 request ends early");
    check(format!("\r\n{}\r\nHost: a\r\n\r\n", line(129)), "414 request line is too long"); // The empty line is apart.

    let field = |length: usize| format!("X: {}", "a".repeat(length - "Host: a\r\nX: \r\n\r\n".len()));
    check_field(&field(511), "GET /");
    check_field(&field(512), "GET /");
    check_field(&field(513), "431 fields are too large"); // RFC 6585 section 5.
    check_field(&field(5000), "431 fields are too large");
    check_field(&["X: a"; 7].join("\r\n"), "GET /"); // One more is the host.
    check_field(&["X: a"; 8].join("\r\n"), "431 there are too many fields");
    check_field(&["X: a"; 50].join("\r\n"), "431 there are too many fields");

    let body = |length: usize| "a".repeat(length);
    for length in [63, 64] {
        let expected = format!("POST / {:?}", body(length));
        check_post(&format!("Content-Length: {length}"), &body(length), &expected);
        check_chunks(&format!("{length:x}\r\n{}\r\n0\r\n\r\n", body(length)), &expected);
        check_chunks(&format!("1\r\na\r\n{:x}\r\n{}\r\n0\r\n\r\n", length - 1, body(length - 1)), &expected);
    }
    check_post("Content-Length: 65", &body(65), "413 body is too large"); // RFC 9110 section 15.5.14.
    check_chunks(&format!("41\r\n{}\r\n0\r\n\r\n", body(65)), "413 body is too large");
    check_chunks(&format!("1\r\na\r\n40\r\n{}\r\n0\r\n\r\n", body(64)), "413 body is too large");
    check_chunks(&format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(64)), &format!("POST / {:?}", body(64)));
    check_chunks(&format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(65)), "413 body is too large");

    // All extensions of a body together, semicolons included, are at most 4,096 bytes.
    let extensions = |first: usize| format!("1;{}\r\na\r\n1;{}\r\na\r\n0\r\n\r\n", body(first - 1), body(95));
    check_chunks(&extensions(3999), "POST / \"aa\"");
    check_chunks(&extensions(4000), "POST / \"aa\"");
    check_chunks(&extensions(4001), "400 chunk extensions are too long");
    let longest = format!("0000000000000001;{}\r\na\r\n0\r\n\r\n", body(4095));
    check_chunks(&longest, "POST / \"a\""); // All 16 digits before all 4,096 bytes.
    check_chunks(&format!("1;{}", body(5000)), "400 chunk extensions are too long");
    // A trailer section is at most 8,192 bytes and 64 fields.
    let trailer = |length: usize| format!("0\r\nX: {}\r\n\r\n", body(length - "X: \r\n\r\n".len()));
    check_chunks(&trailer(8191), "POST /");
    check_chunks(&trailer(8192), "POST /");
    check_chunks(&trailer(8193), "431 fields are too large");
    check_chunks(&format!("0\r\n{}\r\n", "X: a\r\n".repeat(63)), "POST /");
    check_chunks(&format!("0\r\n{}\r\n", "X: a\r\n".repeat(64)), "POST /");
    check_chunks(&format!("0\r\n{}\r\n", "X: a\r\n".repeat(65)), "431 there are too many fields");
}

#[test]
fn a_length_is_not_an_allocation() {
    for announced in [
        format!("Content-Length: {}", isize::MAX), format!("Content-Length: {}", usize::MAX),
        "Transfer-Encoding: chunked".to_string(),
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{announced}\r\n\r\n{:x}\r\na", usize::MAX);
        let mut reader = bytes.as_bytes();
        let head = read_head(&mut reader).unwrap().unwrap();
        let error = read_body(&mut reader, head.framing, usize::MAX).unwrap_err();
        assert_eq!(error.reason, "request ends early");
    }
}

#[test]
fn an_io_error_has_no_answer() {
    for kind in [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe] {
        for cut in [0, 10, 30, 58] {
            let mut reader = Pieces { bytes: POST, cut, then: Some(kind), piece: usize::MAX };
            let error = read(&mut reader).unwrap_err();
            assert!(error.status.is_none(), "{kind} at {cut}: {error:?}");
        }
    }
}

#[test]
fn what_a_handler_sees() {
    let fields = [
        ("Last-Event-ID", " \t7-é \t"),
        ("X", "1"),
        ("x", ""),
        ("X", "a\tb  c"),
        ("Cookie", "a=1; b=\"2\";c=3=4;d;=5; a=6"),
        ("cookie", "e=7;\tf=%41; A=8"),
    ];
    let request = Request::for_test("GET", "/a%20b?last_event_id=3", &fields);
    assert_eq!(request.path(), "/a%20b");
    assert_eq!(request.header("last-event-id"), Some("7-é"));
    assert_eq!(request.headers("X").collect::<Vec<_>>(), ["1", "", "a\tb  c"]);
    assert_eq!(request.header("Y"), None);
    assert_eq!(request.last_event_id(), Some("7-é")); // The field takes precedence.
    for (name, value) in [("a", "1"), ("b", "\"2\""), ("c", "3=4"), ("", "5"), ("e", "7"), ("f", "%41"), ("A", "8")] {
        assert_eq!(request.cookie(name), Some(value), "{name}");
    }
    assert_eq!(request.cookie("d"), None);
    for (field, token) in [
        ("Bearer a.b-c", Some("a.b-c")), ("bEARER  a", Some("a")), // A scheme has no case: RFC 9110 section 11.1.
        ("Basic YTpi", None), ("Bearer", None), ("Bearera", None), ("", None),
    ] {
        let request = Request::for_test("GET", "/", &[("Authorization", field)]);
        assert_eq!(request.bearer(), token, "{field:?}");
    }
    assert_eq!(request.bearer(), None);
    assert_eq!(request.param("a"), "");
    assert_eq!(request.body(), b"");
    assert_eq!(format!("{request:?}"), "Request { method: Get, path: \"/a%20b\", .. }");

    let id = |target, fields: &[_]| Request::for_test("GET", target, fields).last_event_id().map(str::to_owned);
    assert_eq!(id("/", &[]), None);
    assert_eq!(id("/?last_event_id=a%2b", &[]), Some("a+".to_owned()));
    assert_eq!(id("/?last_event_id=", &[]), None);
    assert_eq!(id("/", &[("last-event-id", "")]), None); // An empty id counts as no id.
    assert_eq!(id("/?last_event_id=a", &[("last-event-id", "")]), Some("a".to_owned()));

    // Bytes that are not UTF-8 are ISO-8859-1: RFC 9110 section 5.5.
    let bytes = [b"GET / HTTP/1.1\r\nX: \xe9\xff \xc3\xa9\r\n", END].concat();
    let request = read_head(&mut bytes.as_slice()).unwrap().unwrap();
    assert_eq!(request.header("x"), Some("éÿ Ã©"));
}

#[test]
fn mutated_requests_never_panic_nor_read_without_end() {
    let seeds: [&[u8]; 4] = [
        b"GET /a%20b?c=d+e HTTP/1.1\r\nHost: a:80\r\nConnection: keep-alive\r\nCookie: a=b; c=d\r\n\r\n",
        POST,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"OPTIONS http://[::1]:80/?a HTTP/1.0\r\nHost: a\r\nLast-Event-ID: \xe9\r\n\r\n",
    ];
    let hostile: [&[u8]; 16] = [
        b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b"%", b"+", b"\xff", b"\xc3\xa9", b"0", b"ffffffffffffffff",
        b"Host: a\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    ];
    let mut random = Random(0x9112_9110);
    for round in 0..5000 {
        let mut bytes = seeds[random.below(seeds.len())].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            let end = at + random.below(bytes.len() - at);
            match random.below(5) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => drop(bytes.drain(at..end)),
                2 => bytes.extend_from_within(at..end),
                3 => bytes.truncate(at + 1),
                _ => drop(bytes.splice(at..at, hostile[random.below(hostile.len())].iter().copied())),
            }
        }
        let whole = outcome(&mut bytes.as_slice());
        let piece = 1 + random.below(20);
        let mut pieces = Pieces { bytes: &bytes, cut: bytes.len(), then: None, piece };
        assert_eq!(outcome(&mut pieces), whole, "round {round}: {:?}", bytes.escape_ascii().to_string());

        // The same with more bytes after it than a reader would take.
        let tail = hostile[random.below(hostile.len())].repeat(20_000);
        let endless = [bytes, tail].concat();
        let mut rest = endless.as_slice();
        if let Ok(Some(request)) = read(&mut rest) {
            assert!(request.body.capacity() <= 4 * MAX_BODY_BYTES, "round {round}");
        }
        // Two request lines, the fields, and in the worst case one chunk for each byte, the extensions and the trailers.
        let most = 2 * 130 + 512 + MAX_BODY_BYTES * (16 + 5) + 4096 + 8192;
        assert!(endless.len() - rest.len() <= most, "round {round}: {}", endless.len() - rest.len());
    }
}

impl Request {
    /// Returns a request without a body, for the tests of functions that take one.
    pub(crate) fn for_test(method: &str, target: &str, fields: &[(&str, &str)]) -> Request {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        let config = Config {
            max_request_line_bytes: 65536,
            max_head_bytes: 65536,
            max_fields: 1000,
            ..Config::default()
        };
        let mut request = Request::unread(([0, 0, 0, 0], 0).into(), Arc::default());
        let read = request.read_head(&mut head.as_bytes(), &mut Vec::new(), &config);
        assert!(read.unwrap());
        request
    }
}

const END: &[u8] = b"Host: a\r\n\r\n";
const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: y\r\n\r\nhello";

#[track_caller]
fn check_line(line: &str, expected: &str) {
    check(format!("{line}\r\nHost: a\r\n\r\n"), expected);
}

#[track_caller]
fn check_target(target: &str, expected: &str) {
    check_line(&format!("GET {target} HTTP/1.1"), expected);
}

#[track_caller]
fn check_field(field: &str, expected: &str) {
    check(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"), expected);
}

#[track_caller]
fn check_post(field: &str, body: &str, expected: &str) {
    check(format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{body}"), expected);
}

#[track_caller]
fn check_chunks(chunks: &str, expected: &str) {
    check_post("Transfer-Encoding: chunked", chunks, expected);
}

/// Reads one request whole, byte by byte, cut at every offset, and delayed there until the deadline.
#[track_caller]
fn check(bytes: impl AsRef<[u8]>, expected: &str) {
    let bytes = bytes.as_ref();
    let shown = bytes.escape_ascii().to_string();
    let mut rest = bytes;
    let whole = outcome(&mut rest);
    let then = match whole.as_bytes()[0].is_ascii_uppercase() && !rest.is_empty() {
        true => format!("{whole} then {:?}", String::from_utf8_lossy(rest)),
        false => whole.clone(),
    };
    assert_eq!(then, expected, "{shown}");

    let mut by_byte = Pieces { bytes, cut: bytes.len(), then: None, piece: 1 };
    assert_eq!(outcome(&mut by_byte), whole, "byte by byte: {shown}");

    let consumed = bytes.len() - rest.len();
    for cut in 0..consumed {
        let early = outcome(&mut Pieces { bytes, cut, then: None, piece: usize::MAX });
        let none = bytes[..cut].is_empty() || &bytes[..cut] == b"\r\n";
        let allowed = early == "400 request ends early" || early == whole && !whole.as_bytes()[0].is_ascii_uppercase();
        assert!(if none { early == "none" } else { allowed }, "cut at {cut}: {early}: {shown}");

        let late = outcome(&mut Pieces { bytes, cut, then: Some(ErrorKind::WouldBlock), piece: usize::MAX });
        let allowed = late == "408 request did not come in time" || early == whole && late == whole;
        assert!(allowed, "held up at {cut}: {late}: {shown}");
    }
}

/// Returns the outcome of reading one request: `none`, a status and the reason, or the request in short.
fn outcome(reader: &mut impl BufRead) -> String {
    let request = match read(reader) {
        Ok(Some(request)) => request,
        Ok(None) => return "none".to_owned(),
        Err(error) => return format!("{} {}", error.status.unwrap(), error.reason),
    };
    let mut text = format!("{} {}", request.method(), request.path());
    text += if request.version == Version::Http10 { " 1.0" } else { "" };
    text += if request.keep_alive { "" } else { " close" };
    text += if request.expects_continue { " continue" } else { "" };
    if !request.body.is_empty() {
        text += &format!(" {:?}", String::from_utf8_lossy(&request.body));
    }
    text
}

fn read(reader: &mut impl BufRead) -> Result<Option<Request>, RequestError> {
    let Some(mut request) = read_head(reader)? else { return Ok(None) };
    request.body = read_body(reader, request.framing, MAX_BODY_BYTES)?;
    Ok(Some(request))
}

fn read_head(reader: &mut impl BufRead) -> Result<Option<Request>, RequestError> {
    let mut request = Request::unread(([0, 0, 0, 0], 0).into(), Arc::default());
    let came = request.read_head(reader, &mut Vec::new(), &config())?;
    Ok(came.then_some(request))
}

/// A connection on which `bytes` come in pieces as far as `cut`, and after them an error or the end.
struct Pieces<'a> {
    bytes: &'a [u8],
    cut: usize,
    then: Option<ErrorKind>,
    piece: usize,
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.then {
            Some(kind) if self.cut == 0 => Err(kind.into()),
            _ => Ok(&self.bytes[..self.cut.min(self.piece)]),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.bytes = &self.bytes[amount..];
        self.cut -= amount;
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// Xorshift: the rounds are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}
