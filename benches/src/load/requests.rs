//! Ordinary requests on connections that stay open: one after the other, or one each interval as a polling page does.

use std::{
    io::{self, Write},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use memchr::memmem;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use tiny_sse_benches::arguments::{Arguments, Figures};

use crate::socket;

#[derive(Clone, Debug)]
struct Plan {
    port: u16,
    request: String,
    connections: usize,
    duration: Duration,
    /// Zero: the next request follows the response.
    interval: Duration,
    threads: usize,
}

pub fn run(arguments: &Arguments) -> Result<(), String> {
    let path = arguments.text("path").unwrap_or("/plain");
    let plan = Plan {
        port: arguments.value("port", 0)?,
        request: format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        connections: arguments.value("connections", 64)?,
        duration: Duration::from_secs_f64(arguments.value("seconds", 1.0)?),
        interval: Duration::from_millis(arguments.value("interval", 0)?),
        threads: arguments.value("threads", 2)?,
    };
    // All connect before anyone asks, so that the time is that of the requests alone.
    let connected = Arc::new(Barrier::new(plan.threads));
    let clients: Vec<_> = (0..plan.threads)
        .map(|index| {
            let (plan, connected) = (plan.clone(), connected.clone());
            thread::spawn(move || {
                Client::connect(plan, index).and_then(|client| client.run(&connected))
            })
        })
        .collect();

    let mut latency = crate::latencies();
    for client in clients {
        let result = client.join().map_err(|_| "a thread panicked")?;
        latency
            .add(result.map_err(|error| error.to_string())?)
            .expect("it resizes as it must");
    }
    let mut figures = Figures::default();
    figures.set("answers", latency.len() as f64);
    figures.set("rate", latency.len() as f64 / plan.duration.as_secs_f64());
    figures.set("p50", latency.value_at_quantile(0.5) as f64 / 1e6);
    figures.set("p99", latency.value_at_quantile(0.99) as f64 / 1e6);
    println!("{figures}");
    Ok(())
}

struct Connection {
    socket: TcpStream,
    answer: Vec<u8>,
    /// Since when the response is awaited, if it is.
    asked: Option<Instant>,
}

struct Client {
    plan: Plan,
    poll: Poll,
    connections: Vec<Connection>,
    latency: Histogram<u64>,
}

impl Client {
    fn connect(plan: Plan, index: usize) -> io::Result<Client> {
        let poll = Poll::new()?;
        let share = (index..plan.connections).step_by(plan.threads).count();
        let mut connections = Vec::with_capacity(share);
        for token in 0..share {
            let mut socket = TcpStream::from_std(socket::connected(plan.port, false)?);
            poll.registry()
                .register(&mut socket, Token(token), Interest::READABLE)?;
            connections.push(Connection {
                socket,
                answer: Vec::new(),
                asked: None,
            });
        }
        let latency = crate::latencies();
        Ok(Client {
            plan,
            poll,
            connections,
            latency,
        })
    }

    fn run(mut self, connected: &Barrier) -> io::Result<Histogram<u64>> {
        connected.wait();
        let start = Instant::now();
        let deadline = start + self.plan.duration;
        let polling = !self.plan.interval.is_zero();
        // Polling is spread over the interval, connection after connection, round after round.
        let step = self.plan.interval / self.connections.len().max(1) as u32;
        let mut turn = 0;
        if !polling {
            (0..self.connections.len()).try_for_each(|index| self.ask(index))?;
        }
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(self.latency);
            }
            let mut wait = deadline - now;
            if polling {
                while start + step * turn <= now {
                    let index = turn as usize % self.connections.len();
                    // A poll that is still unanswered takes this turn too.
                    if self.connections[index].asked.is_none() {
                        self.ask(index)?;
                    }
                    turn += 1;
                }
                wait = wait.min(start + step * turn - now);
            }
            self.poll.poll(&mut events, Some(wait))?;
            for event in &events {
                let index = event.token().0;
                if self.read(index, &mut buffer)? && !polling {
                    self.ask(index)?;
                }
            }
        }
    }

    fn ask(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.asked = Some(Instant::now());
        connection.socket.write_all(self.plan.request.as_bytes())
    }

    /// Reads what is there, and returns whether the response is whole.
    fn read(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<bool> {
        let Connection {
            socket,
            answer,
            asked,
        } = &mut self.connections[index];
        let open = socket::drain(socket, buffer, |bytes| {
            answer.extend_from_slice(bytes);
            Ok::<(), io::Error>(())
        })?;
        if !open {
            return Err(io::Error::other(
                "the server closed a connection that was to stay",
            ));
        }
        let Some(length) = answer_length(answer)? else {
            return Ok(false);
        };
        match answer.len() {
            have if have < length => return Ok(false),
            have if have > length => {
                return Err(io::Error::other("more bytes than the answer's length"));
            }
            _ => answer.clear(),
        }
        if let Some(asked) = asked.take() {
            self.latency
                .saturating_record(asked.elapsed().as_nanos() as u64);
        }
        Ok(true)
    }
}

/// Returns the length of head and body, once the head is whole.
pub fn answer_length(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memmem::find(answer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &answer[..end + 2];
    let length = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(b"content-length:".len())?;
        let is_length = name.eq_ignore_ascii_case(b"content-length:");
        is_length.then(|| str::from_utf8(value).ok()?.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if head.starts_with(b"HTTP/1.1 200") => Ok(Some(end + 4 + length)),
        _ => Err(io::Error::other(format!(
            "unexpected head {:?}",
            String::from_utf8_lossy(head)
        ))),
    }
}
