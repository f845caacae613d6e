//! One node: readers subscribe over HTTP, and programs with the token publish. Start as many nodes as you like with one Redis,
//! each on its own port; `./three` starts three of them behind nginx.
//!
//! ```text
//! CLUSTER_TOKEN=secret cargo run -- port=7734 redis=127.0.0.1:6379
//! curl -N 'http://127.0.0.1:7734/events?topic=doors&topic=lights'
//! curl -d 'The front door is open.' -H 'Authorization: Bearer secret' http://127.0.0.1:7734/events/doors
//! curl http://127.0.0.1:7734/health
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use std::{env, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tiny_sse::{
    Config, Event, Hub, HubConfig, Request, Response, Server, ServerHandle, constant_time_eq,
};
use tiny_sse_cluster::{LogConfig, Node, PublishError};

/// Readers of a node that ends are sent away in groups this far apart.
const DRAIN_STEP: Duration = Duration::from_millis(100);

/// How long requests may take after the last reader has been sent away.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Each argument with its default and its meaning.
const ARGUMENTS: [(&str, &str, &str); 10] = [
    ("port", "7733", "where the node listens on 127.0.0.1"),
    (
        "redis",
        "127.0.0.1:6379",
        "where Redis is, also as a redis:// URL",
    ),
    (
        "log",
        "tiny-sse",
        "the name of the log in Redis; nodes with the same name share it",
    ),
    ("keep", "1000000", "about how many events stay in Redis"),
    (
        "load",
        "10000",
        "how many of the newest events a node reads before it serves",
    ),
    (
        "history",
        "1024",
        "how many events of each topic stay in memory",
    ),
    (
        "bytes",
        "67108864",
        "how many bytes of events stay in memory",
    ),
    (
        "drain",
        "10",
        "over how many seconds readers leave after SIGTERM",
    ),
    (
        "heartbeat",
        "15",
        "after how many silent seconds a stream gets a heartbeat",
    ),
    (
        "figures",
        "1",
        "after how many seconds the node publishes its figures for the page; 0 is never",
    ),
];

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = arguments()?;
    let number = |name: &str| {
        arguments[name]
            .parse::<u64>()
            .map_err(|error| format!("{name}: {error}"))
    };
    let seconds = |name: &str| number(name).map(Duration::from_secs);
    let drain = seconds("drain")?;
    let log = LogConfig {
        redis: arguments["redis"].clone(),
        name: arguments["log"].clone(),
        keep: number("keep")?,
        load: number("load")?,
    };
    let hub = HubConfig {
        history_events: number("history")? as usize,
        history_bytes: number("bytes")? as usize,
        ..HubConfig::default()
    };
    let token = env::var("CLUSTER_TOKEN")
        .map_err(|_| "CLUSTER_TOKEN is not set: it is what publishers bring")?;
    // Signals that come while the node loads wait here.
    let signals = Signals::new([SIGTERM, SIGINT])?;

    let node = Node::start(log, hub)?;
    let config = Config {
        max_connections: 100_000,
        heartbeat: seconds("heartbeat")?,
        ..Config::default()
    };
    let server = Server::bind(format!("127.0.0.1:{}", arguments["port"]))?.config(config);
    let address = server.addr().to_string();
    let server = routes(server, &node, &address, &token);
    let figures = seconds("figures")?;
    if !figures.is_zero() {
        let (node, address) = (node.clone(), address.clone());
        thread::spawn(move || publish_figures(&node, &address, figures));
    }
    let handle = server.handle();
    thread::spawn(move || end_at_signal(signals, &node, &handle, drain));
    println!("node at http://{address}");
    Ok(server.run()?)
}

/// Reads `name=value`, and fills in the defaults.
fn arguments() -> Result<HashMap<&'static str, String>, String> {
    let mut values: HashMap<&str, String> = ARGUMENTS
        .iter()
        .map(|(name, default, _)| (*name, default.to_string()))
        .collect();
    for argument in env::args().skip(1) {
        let known = argument
            .split_once('=')
            .and_then(|(name, value)| Some((values.get_mut(name)?, value)));
        let Some((place, value)) = known else {
            let mut usage = format!("{argument:?} is not an argument; these are:\n");
            for (name, default, meaning) in ARGUMENTS {
                usage += &format!("  {:24} {meaning}\n", format!("{name}={default}"));
            }
            return Err(usage);
        };
        *place = value.to_string();
    }
    Ok(values)
}

fn routes(server: Server, node: &Node, address: &str, token: &str) -> Server {
    let [readers, publisher, health] = [(); 3].map(|()| node.clone());
    let (address, key) = (address.to_string(), format!("Bearer {token}"));
    server
        .get("/", |_request| Response::html(include_str!("../page.html")))
        .get("/events", move |request| {
            subscribe(&readers, request, &address)
        })
        .post("/events/{topic}", move |request| {
            let sent = request.header("authorization").unwrap_or_default();
            if !constant_time_eq(sent, &key) {
                let refusal = Response::text("a bearer token is needed\n").with_status(401);
                return refusal.with_header("WWW-Authenticate", "Bearer");
            }
            publish(&publisher, request)
        })
        .get("/health", move |_request| match health.health() {
            Ok(()) => Response::text("ok\n"),
            Err(why) => Response::text(format!("{why}\n")).with_status(503),
        })
}

/// Subscribes to each `topic` of the query. With `retained` in the query, the newest event of each topic comes first. A
/// stream begins with the address of its node, in an event of its own, where the query has `node`.
fn subscribe(node: &Node, request: &Request, address: &str) -> Response {
    if node.is_draining() {
        // The balancer asks another node.
        return Response::text("draining\n")
            .with_status(503)
            .with_header("Retry-After", "1");
    }
    let topics: Vec<&str> = request.queries("topic").collect();
    let mut subscription = node.hub().subscribe(request, topics);
    if request.query("retained").is_some() {
        subscription = subscription.retained();
    }
    if request.query("node").is_some() {
        let event = Event::data(address).event("at");
        subscription = subscription.first(event.ok());
    }
    subscription.into()
}

/// Publishes a request's body to the topic of the path and to each `topic` of the query, and answers with the event's id.
fn publish(node: &Node, request: &Request) -> Response {
    let Ok(data) = str::from_utf8(request.body()) else {
        return Response::text("the body is not UTF-8\n").with_status(400);
    };
    let mut topics = vec![request.param("topic")];
    topics.extend(request.queries("topic"));
    let name = request.query("event").unwrap_or_default();
    match node.publish(&topics, name, data) {
        Ok(id) => Response::text(format!("{id}\n")),
        Err(error) => {
            let response = Response::text(format!("{error}\n"));
            match error {
                PublishError::Invalid(_) => response.with_status(400),
                PublishError::NotPublished(_) => {
                    response.with_status(503).with_header("Retry-After", "1")
                }
                // Not a 503, which says that the request can be sent again.
                PublishError::MayHaveHappened(_) => response.with_status(504),
            }
        }
    }
}

/// Publishes what the node knows of itself to the topic `nodes`, so that the page of any node shows all nodes.
fn publish_figures(node: &Node, address: &str, every: Duration) {
    loop {
        let (at, stats) = (node.position(), node.hub().stats());
        let state = node.health().err().unwrap_or("ok");
        let figures = format!(
            r#"{{"node":"{address}","state":"{state}","readers":{},"behind":{},"epoch":"{:016x}","has":{},"head":{}}}"#,
            stats.readers, stats.readers_behind, at.epoch, at.sequence, at.head,
        );
        // While Redis is away, there is nowhere to publish this.
        let _ = node.publish(&["nodes"], "node", &figures);
        thread::sleep(every);
    }
}

/// Waits for SIGTERM or Ctrl-C, then sends the readers away, a few at a time, and ends the server.
fn end_at_signal(mut signals: Signals, node: &Node, server: &ServerHandle, drain: Duration) {
    let _ = signals.forever().next();
    println!("draining");
    node.drain();
    send_away(node.hub(), drain);
    if let Err(error) = server.shutdown(SHUTDOWN) {
        eprintln!("{error}");
    }
}

/// Ends all streams over this time: each reader at a moment of its own, drawn from its address. Each reader comes back within
/// [`Config::reconnect_spread`].
fn send_away(hub: &Hub, over: Duration) {
    let steps = (over.as_millis() / DRAIN_STEP.as_millis()) as u64;
    let random = RandomState::new();
    for step in 1..=steps {
        hub.close(|reader| random.hash_one(reader.peer) % steps < step);
        thread::sleep(DRAIN_STEP);
    }
}
