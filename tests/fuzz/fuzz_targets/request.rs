//! A connection's requests, one after the other: what is read must not depend on how the bytes arrive, keep within its limits,
//! and hold nothing that a handler has to fear.

#![no_main]

#[path = "../../../src/config.rs"]
#[allow(dead_code, unreachable_pub)] // Some of the limits are used.
mod config;
#[path = "../http.rs"]
mod http;
#[path = "../../../src/lock.rs"]
#[allow(dead_code)]
mod lock;

use http::{Framing, MAX_BODY_BYTES, Pieces, Request, config, read_body, refusal};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|input: (u8, &[u8])| {
    let (most, bytes) = input;
    let whole = read_all(bytes, usize::MAX);
    assert_eq!(whole, read_all(bytes, 1 + usize::from(most)));
    assert_eq!(whole, read_all(bytes, 1));
});

/// The outcome of a connection, in short: each request, and how it ended.
fn read_all(bytes: &[u8], most: usize) -> Vec<String> {
    let limits = config();
    let mut reader = Pieces { bytes, most };
    let mut seen = Vec::new();
    let mut request = Request::unread(([0, 0, 0, 0], 0).into(), Arc::default());
    let mut line = Vec::new();
    loop {
        let before = reader.bytes.len();
        request.clear();
        match request.read_head(&mut reader, &mut line, &limits) {
            Ok(true) => {}
            Ok(false) => {
                seen.push("end".to_string());
                return seen;
            }
            Err(error) => {
                seen.push(refusal(&error));
                return seen;
            }
        }
        let most_read = 2 * (limits.max_request_line_bytes + 2) + limits.max_head_bytes;
        assert!(before - reader.bytes.len() <= most_read);
        let path = request.path();
        assert!(path.starts_with('/') || path == "*");
        assert!(
            path.bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        );
        let mut hosts = request.headers("host");
        if let Some(host) = hosts.next() {
            assert!(!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        assert!(hosts.next().is_none());
        for name in [
            "a",
            "connection",
            "cookie",
            "last-event-id",
            "transfer-encoding",
        ] {
            for value in request.headers(name) {
                assert!(!value.contains(|c: char| c.is_ascii_control() && c != '\t'));
                assert_eq!(value.trim_matches([' ', '\t']), value);
            }
        }
        if request.framing == Framing::Chunked {
            assert_eq!(request.headers("transfer-encoding").count(), 1);
            assert_eq!(request.headers("content-length").count(), 0);
        }
        if let Framing::Length(length) = request.framing {
            assert_eq!(
                request
                    .header("content-length")
                    .unwrap_or_default()
                    .trim_start_matches('0'),
                match length {
                    0 => String::new(),
                    length => length.to_string(),
                }
            );
        }
        let framing = request.framing;
        match read_body(&mut reader, framing, MAX_BODY_BYTES) {
            Ok(body) => {
                assert!(body.len() <= MAX_BODY_BYTES && body.capacity() <= 4 * MAX_BODY_BYTES);
                if let Framing::Length(length) = framing {
                    assert_eq!(body.len() as u64, length);
                }
                seen.push(format!(
                    "{request:?} {:?} {:?} {:?} {} {framing:?} {} {:?} {body:?}",
                    request.last_event_id(),
                    request.cookie("a"),
                    request.queries("a").collect::<Vec<_>>(),
                    request.keep_alive,
                    request.expects_continue,
                    request.version,
                ));
            }
            Err(error) => {
                seen.push(refusal(&error));
                return seen;
            }
        }
        if !request.keep_alive {
            return seen;
        }
    }
}
