//! What a node says when it cannot start.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

/// Starts a node that fails, and returns what it says.
fn failure(redis: &str) -> String {
    let mut node = Command::new(env!("CARGO_BIN_EXE_node"));
    node.args(["port=0", &format!("redis={redis}")])
        .env("CLUSTER_TOKEN", "secret");
    let output = node.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// Listens as a Redis of this version would, and knows `INFO` alone.
fn redis_of_version(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut output = connection.unwrap();
            let mut lines = BufReader::new(output.try_clone().unwrap())
                .lines()
                .map_while(Result::ok);
            while let Some(line) = lines.next() {
                // `*2`, then `$4`, `INFO`, `$6`, `server`.
                let count: usize = line.strip_prefix('*').unwrap().parse().unwrap();
                let words: Vec<String> = (0..count).filter_map(|_| lines.by_ref().nth(1)).collect();
                let info = format!("# Server\r\nredis_version:{version}\r\n");
                let answer = match words[0].as_str() {
                    "INFO" => format!("${}\r\n{info}\r\n", info.len()),
                    _ => "-ERR unknown command\r\n".to_string(),
                };
                output.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    address
}

#[test]
fn a_node_without_redis_says_so() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let said = failure(&format!("127.0.0.1:{port}")); // Nothing listens there now.
    assert!(
        said.starts_with(&format!("no Redis at 127.0.0.1:{port}: ")),
        "{said}"
    );
}

#[test]
fn a_node_refuses_a_redis_that_is_too_old() {
    for (version, is_old) in [
        ("6.2.14", true),  // Streams, but no `0-*`.
        ("7.0.0", false),  // The first one with it. It fails at the first script.
        ("10.1.0", false), // A number, no text.
        ("garbage", true), // Not a Redis.
    ] {
        let said = failure(&redis_of_version(version));
        assert_eq!(
            said.contains("7.0 or later is needed"),
            is_old,
            "{version}: {said}"
        );
    }
}
