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

/// A new log, and Redis loses all of its events: the next ones get the same numbers.
#[test]
#[ignore = "needs redis-server"]
fn the_loss_of_the_first_events_is_told() {
    let [redis_port, port] = free_ports();
    let mut redis = RedisServer::start("first", redis_port, "everysec");
    let node = NodeProcess::new(port, redis_port, &[]);
    node.serve();
    let lost = assert_published(port, "lost");
    let (epoch, _) = lost.split_once('-').unwrap();

    // A node that knows the lost event would see that it is missing.
    node.kill();
    redis.kill();
    redis.lose(usize::MAX);
    redis.start_again();
    node.serve();
    assert_published(port, "next");
    let before_all = format!("{epoch}-0");
    let field = ("Last-Event-ID", before_all.clone());
    let mut reader = Http::open(port, "GET", "/events?topic=a", &[field], b"").unwrap();
    let text = read_until(&mut reader, "data: next\n");
    let gap = format!(r#"data: {{"from":"{before_all}","to":""#);
    assert!(text.contains(&gap), "{text}");
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
fn assert_published(port: u16, data: &str) -> String {
    let published = publish(port, data.to_string(), vec!["a"]);
    let Outcome::Acknowledged(id) = published.outcome else {
        panic!("{published:?}");
    };
    id
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
