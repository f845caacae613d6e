//! Measures what a log in Redis costs, beside a hub in memory and one with a file, and prints tables for the README:
//! `cargo run --release --bin measure`. It needs `redis-server` and about two minutes of a machine that does nothing else.
//!
//! `cargo run --release --bin measure -- rolling` ends a node that has 15,000 readers, and prints how they come back.

mod client;
mod logs;
mod rolling;
mod scripts;

use std::error::Error;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::{Config, Response, Server};

use client::{Client, median_and_p99, processor_time, resident_bytes};
use logs::{Fsync, KINDS, Log};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long each row of the first table publishes.
const PUBLISH: Duration = Duration::from_secs(2);
const READERS: usize = 10_000;
const CATCH_UP_BYTES: usize = 64 * 1024 * 1024;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["rolling"] => return rolling::run(),
        // The process whose memory is measured.
        ["serve", kind] => return serve(kind),
        _ => return Err("no argument, or: rolling".into()),
    }
    let redis = [
        logs::Redis::start(Fsync::Everysec)?,
        logs::Redis::start(Fsync::Always)?,
    ];
    let ports = [redis[0].port, redis[1].port];
    println!("Events a second, each acknowledged, by publishers and size:\n");
    println!("| log | 1, 100 B | 8, 100 B | 64, 100 B | 1, 4 KiB | 8, 4 KiB | 64, 4 KiB |");
    println!("| --- | --: | --: | --: | --: | --: | --: |");
    for kind in KINDS {
        print!("| {} ", kind.name());
        for size in [100, 4096] {
            for publishers in [1, 8, 64] {
                let log = Log::open(kind, ports, 1024)?;
                print!("| {:.0} ", events_a_second(&log, publishers, size)?);
            }
        }
        println!("|");
    }
    println!(
        "\nFrom the call that publishes to the reader's socket, 500 events a second to 10 readers; memory; catch-up:\n"
    );
    println!("| log | p50 | p99 | a reader of {READERS} | catch-up |");
    println!("| --- | --: | --: | --: | --: |");
    for kind in KINDS {
        let (median, p99) = latency(&Log::open(kind, ports, 1024)?)?;
        let memory = memory(kind.name(), ports)? / READERS as u64;
        let catch_up = catch_up(&Log::open(kind, ports, kind.catch_up_events())?)? / 1e6;
        println!(
            "| {} | {median:.0?} | {p99:.0?} | {memory} B | {catch_up:.0} MB/s |",
            kind.name()
        );
    }
    println!("\nMicroseconds of Redis's one thread, `everysec`, 64 publishers:\n");
    println!("| | 100 B | 4 KiB |");
    println!("| --- | --: | --: |");
    for nodes in [1, 4] {
        let [small, large] = [100, 4096].map(|size| redis_time(&redis[0], nodes, size));
        println!(
            "| an event that {nodes} of the nodes read | {:.1} | {:.1} |",
            small?, large?
        );
    }
    for (what, script) in scripts::VARIANTS {
        let [small, large] = [100, 4096].map(|size| scripts::redis_time(&redis[0], script, size));
        println!("| {what} | {:.1} | {:.1} |", small?, large?);
    }
    Ok(())
}

/// Returns the microseconds that Redis takes for an event that one node publishes and this many nodes read.
fn redis_time(redis: &logs::Redis, nodes: usize, size: usize) -> Result<f64> {
    let name = logs::fresh_name();
    let open = || {
        Log::open_named(
            logs::Kind::Redis(Fsync::Everysec),
            [redis.port; 2],
            1024,
            &name,
        )
    };
    let nodes: Vec<Log> = (0..nodes).map(|_| open()).collect::<Result<_>>()?;
    let before = processor_time(redis.process.id())?;
    let count = events_a_second(&nodes[0], 64, size)? * PUBLISH.as_secs_f64();
    let used = processor_time(redis.process.id())?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1e6 / count)
}

/// Publishes from this many threads, each of which waits for each of its events.
fn events_a_second(log: &Log, publishers: usize, size: usize) -> Result<f64> {
    let data = "x".repeat(size);
    let start = Instant::now();
    let publish = || {
        let mut count = 0_u64;
        while start.elapsed() < PUBLISH {
            log.publish("load", &data)?;
            count += 1;
        }
        Ok(count)
    };
    let counts: Vec<Result<u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..publishers).map(|_| scope.spawn(publish)).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a publisher panicked".into()))
            })
            .collect()
    });
    let count: u64 = counts.into_iter().sum::<Result<u64>>()?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Serves a log, and returns where.
fn start_server(log: &Log) -> Result<SocketAddr> {
    let hub = log.hub().clone();
    let config = Config {
        max_connections: 15_000,
        ..Config::default()
    };
    let server =
        Server::bind("127.0.0.1:0")?
            .config(config)
            .get("/events", move |request| -> Response {
                let topics: Vec<&str> = request.queries("topic").collect();
                hub.subscribe(request, topics).into()
            });
    Ok(server.spawn()?.addr())
}

/// Measures from publishing to the last of ten readers, in one process and so by one clock.
fn latency(log: &Log) -> Result<(Duration, Duration)> {
    let address = start_server(log)?;
    let origin = Instant::now();
    let (sender, latencies) = mpsc::channel();
    let mut readers = Vec::new();
    for _ in 0..10 {
        let mut client = Client::open(address, "/events?topic=latency", "")?;
        let sender = sender.clone();
        readers.push(thread::spawn(move || {
            while let Ok(data) = client.data() {
                let Ok(sent) = data.parse::<u64>() else {
                    return;
                };
                let took = origin.elapsed().saturating_sub(Duration::from_nanos(sent));
                let _ = sender.send(took);
            }
        }));
    }
    drop(sender);
    let mut due = Instant::now();
    for _ in 0..1500 {
        log.publish("latency", &origin.elapsed().as_nanos().to_string())?;
        due += Duration::from_millis(2);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    log.publish("latency", "end")?;
    for reader in readers {
        let _ = reader.join();
    }
    Ok(median_and_p99(latencies.iter().collect()))
}

/// Returns the memory that a process takes for each of 10,000 readers that have got an event.
fn memory(kind: &str, ports: [u16; 2]) -> Result<u64> {
    let mut server = std::process::Command::new(std::env::current_exe()?)
        .args(["serve", kind])
        .env("REDIS_PORTS", format!("{} {}", ports[0], ports[1]))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut line = Vec::new();
    let mut output = server.stdout.take().ok_or("no output")?;
    let mut byte = [0];
    while output.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    let address: SocketAddr = String::from_utf8(line)?.parse()?;
    // Memory that the first connections need once does not count for a reader.
    let mut clients = vec![Client::open(address, "/events?topic=memory", "")?];
    thread::sleep(Duration::from_millis(500));
    let before = resident_bytes(server.id())?;
    for _ in 0..READERS {
        clients.push(Client::open(address, "/events?topic=memory", "")?);
    }
    for client in &mut clients {
        client.data()?; // The server publishes one every second.
    }
    let after = resident_bytes(server.id())?;
    server.kill()?;
    server.wait()?;
    Ok(after.saturating_sub(before))
}

/// Serves a log until it is killed, and publishes an event every second.
fn serve(kind: &str) -> Result<()> {
    let ports = std::env::var("REDIS_PORTS")?;
    let ports: Vec<u16> = ports
        .split(' ')
        .filter_map(|port| port.parse().ok())
        .collect();
    let kind = KINDS
        .into_iter()
        .find(|known| known.name() == kind)
        .ok_or("no such log")?;
    let log = Log::open(kind, [ports[0], ports[1]], 1024)?;
    println!("{}", start_server(&log)?);
    loop {
        thread::sleep(Duration::from_secs(1));
        log.publish("memory", "an event of some twenty bytes")?;
    }
}

/// Returns how many bytes a second a reader gets that comes back after a while, with events of 4 KiB.
fn catch_up(log: &Log) -> Result<f64> {
    let address = start_server(log)?;
    let data = "x".repeat(4096);
    let first = log.publish("catch-up", "first")?;
    log.publish_all("catch-up", &data, CATCH_UP_BYTES / data.len())?;
    log.publish("catch-up", "end")?;
    let mut client = Client::open(address, "/events?topic=catch-up", &first)?;
    let start = Instant::now();
    let mut bytes = 0;
    loop {
        let data = client.data()?;
        bytes += data.len();
        if data == "end" {
            return Ok(bytes as f64 / start.elapsed().as_secs_f64());
        }
    }
}
