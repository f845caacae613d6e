//! What a node does while Redis is away, and when it gets SIGTERM.

mod support;

use support::nodes::NodeProcess;
use support::publisher::{Outcome, publish};
use support::reader::Http;
use support::redis_server::RedisServer;
use support::{eventually, free_ports};

#[test]
#[ignore = "needs redis-server"]
fn readers_stay_and_publishers_are_refused_while_redis_is_away() {
    let [redis_port, port] = free_ports();
    let mut redis = RedisServer::start("away", redis_port, "always");
    let node = NodeProcess::new(port, redis_port, &[]);
    node.serve();
    let mut reader = Http::open(port, "GET", "/events?topic=a", &[], b"").unwrap();
    assert_published(port, "before");
    read_until(&mut reader, "data: before\n");

    redis.kill();
    eventually("the node knows that it is cut off", || {
        node.health() == Some(503)
    });
    let key = ("Authorization", "Bearer secret".to_string());
    let refusal = Http::send(port, "POST", "/events/a", &[key], b"meanwhile").unwrap();
    assert_eq!(refusal.status, 503);
    assert!(
        refusal.fields.contains("Retry-After: 1\r\n"),
        "{}",
        refusal.fields
    );
    // From memory.
    let mut newcomer = Http::open(port, "GET", "/events?topic=a&retained", &[], b"").unwrap();
    read_until(&mut newcomer, "data: before\n");

    redis.start_again();
    eventually("the node is caught up again", || node.health() == Some(200));
    assert_published(port, "after");
    for reader in [&mut reader, &mut newcomer] {
        let text = read_until(reader, "data: after\n");
        assert!(
            !text.contains("gap") && !text.contains("meanwhile"),
            "{text}"
        );
    }
}

#[test]
#[ignore = "needs redis-server"]
fn a_node_that_drains_sends_its_readers_away() {
    let [redis_port, port] = free_ports();
    let _redis = RedisServer::start("drain", redis_port, "always");
    let node = NodeProcess::new(port, redis_port, &[]);
    node.serve();
    let mut readers =
        [(); 20].map(|()| Http::open(port, "GET", "/events?topic=a", &[], b"").unwrap());
    node.end();
    for reader in &mut readers {
        read_until(reader, "retry: ");
        // The last chunk: the stream ends cleanly.
        while reader.chunk().unwrap().is_some() {}
    }
}

#[track_caller]
fn assert_published(port: u16, data: &str) {
    let published = publish(port, data.to_string(), vec!["a"]);
    assert!(
        matches!(published.outcome, Outcome::Acknowledged(_)),
        "{published:?}"
    );
}

/// Reads chunks until one has this text, and returns all of them.
fn read_until(reader: &mut Http, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let chunk = reader.chunk().unwrap().expect("the stream goes on");
        all += str::from_utf8(&chunk).unwrap();
    }
    all
}
