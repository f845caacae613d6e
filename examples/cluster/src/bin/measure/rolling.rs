//! A node that has 15,000 readers ends, and they go to the next one: how many come back when, and what it costs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, net, thread};

use crate::Result;
use crate::client::{median_and_p99, processor_time, request};
use crate::logs::{Fsync, Redis};

const READERS: usize = 15_000;

/// Clients that connect at the same time.
const CONNECTORS: usize = 512;

/// How often the curve has a point.
const STEP: Duration = Duration::from_secs(1);

/// How often each client looks at its socket.
const LOOK: Duration = Duration::from_millis(50);

/// Without a `retry` an `EventSource` waits for some seconds, Chromium for three.
const DEFAULT_RETRY: Duration = Duration::from_secs(3);

pub(crate) fn run() -> Result<()> {
    let redis = Redis::start(Fsync::Everysec)?;
    for drain in [0, 5, 20] {
        println!("\n{READERS} readers of a node that ends, `drain={drain}`:\n");
        roll(redis.port, drain)?;
    }
    Ok(())
}

enum Client {
    /// At the node that ends.
    Reading {
        stream: TcpStream,
        retry: Duration,
    },
    Waiting {
        since: Instant,
        until: Instant,
    },
    /// A thread connects it to the next node, or has done so.
    Moving,
}

/// Connects clients to the next node, a limited number at a time. A refused SYN is sent again after a second, and delays no
/// other client.
struct Connectors {
    jobs: Sender<Instant>,
    /// The connections, each with the moment when its client lost the old one.
    connected: Receiver<Result<(Instant, TcpStream)>>,
}

impl Connectors {
    fn start(next: SocketAddr) -> Connectors {
        let (jobs, waiting) = mpsc::channel();
        let (sender, connected) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..CONNECTORS {
            let (waiting, sender) = (Arc::clone(&waiting), sender.clone());
            thread::spawn(move || {
                let next_job = || {
                    waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv()
                };
                while let Ok(since) = next_job() {
                    let _ = sender.send(connect(next).map(|stream| (since, stream)));
                }
            });
        }
        Connectors { jobs, connected }
    }
}

fn roll(redis: u16, drain: u64) -> Result<()> {
    let (mut old, old_address) = start_node(redis, drain)?;
    let (mut new, new_address) = start_node(redis, drain)?;
    let mut clients = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        let (stream, retry) = (connect(old_address)?, DEFAULT_RETRY);
        clients.push(Client::Reading { stream, retry });
    }
    thread::sleep(Duration::from_secs(2));
    let (start, before) = (Instant::now(), processor_time(new.id())?);
    terminate(&old)?;
    let connectors = Connectors::start(new_address);
    let (mut away_for, mut moved) = (Vec::with_capacity(READERS), Vec::with_capacity(READERS));
    let (mut next_point, mut arrived_before, mut busiest) = (start + STEP, 0, 0);
    while away_for.len() < READERS {
        let look = Instant::now();
        for client in &mut clients {
            step(client, &connectors.jobs)?;
        }
        for connected in connectors.connected.try_iter() {
            let (since, stream) = connected?;
            away_for.push(since.elapsed());
            moved.push(stream);
        }
        if Instant::now() >= next_point {
            let arrived = away_for.len() - arrived_before;
            busiest = busiest.max(arrived);
            println!(
                "{:5.1} s {arrived:6} {}",
                start.elapsed().as_secs_f64(),
                "#".repeat(arrived / 100)
            );
            (next_point, arrived_before) = (next_point + STEP, away_for.len());
        }
        if start.elapsed() > Duration::from_secs(120) {
            return Err("the readers do not come back".into());
        }
        thread::sleep(LOOK.saturating_sub(look.elapsed()));
    }
    let used = processor_time(new.id())?.saturating_sub(before);
    let (median, p99) = median_and_p99(away_for);
    println!(
        "all back after {:.1} s; at most {busiest} in a second",
        start.elapsed().as_secs_f64()
    );
    println!(
        "a reader is away for {median:.1?} (median), {p99:.1?} (p99); the next node used {used:.1?} of a processor"
    );
    for node in [&mut old, &mut new] {
        let _ = node.kill();
        node.wait()?;
    }
    Ok(())
}

/// Does what a client does at this moment, without waiting.
fn step(client: &mut Client, connectors: &Sender<Instant>) -> Result<()> {
    let now = Instant::now();
    match client {
        Client::Reading { stream, retry } => {
            let mut bytes = [0; 1024];
            let has_ended = match stream.read(&mut bytes) {
                Ok(length) => {
                    *retry = find_retry(&bytes[..length]).unwrap_or(*retry);
                    length == 0
                }
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            };
            if has_ended {
                let until = now + *retry;
                *client = Client::Waiting { since: now, until };
            }
        }
        Client::Waiting { since, until } if *until <= now => {
            connectors.send(*since)?;
            *client = Client::Moving;
        }
        Client::Waiting { .. } | Client::Moving => {}
    }
    Ok(())
}

fn find_retry(bytes: &[u8]) -> Option<Duration> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.rsplit_once("retry: ")?;
    let millis: u64 = rest.lines().next()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// Connects, and sends the request. The response is read later.
fn connect(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request("/events?topic=a", "").as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn start_node(redis: u16, drain: u64) -> Result<(Child, SocketAddr)> {
    let port = net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let program = env::current_exe()?.with_file_name("node");
    let node = Command::new(program)
        .args([
            format!("port={port}"),
            format!("redis=127.0.0.1:{redis}"),
            format!("drain={drain}"),
        ])
        .args(["figures=0", "heartbeat=60"])
        .env("CLUSTER_TOKEN", "unused")
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("the program node is not built: {error}"))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if Instant::now() > until {
            return Err("the node does not listen".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok((node, address))
}

fn terminate(process: &Child) -> Result<()> {
    match Command::new("kill")
        .arg(process.id().to_string())
        .status()?
        .success()
    {
        true => Ok(()),
        false => Err("kill failed".into()),
    }
}
