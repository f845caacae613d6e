//! What is measured: each row starts the server afresh and returns its figures.

use std::{thread, time::Duration};

use tiny_sse_benches::arguments::Figures;

use crate::{
    footprint, machine,
    servers::{Role, Running, Server},
    session::{self, Session},
};

/// One measurement of one server.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub server: &'static Server,
    pub short: bool,
}

/// Names of figures, as `figures.rs` lists them, and their values.
pub type Measured = Vec<(String, f64)>;

#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub measure: fn(&Run) -> Result<Measured, String>,
    pub applies: fn(&Server) -> bool,
    /// Whether the short form has it.
    pub short: bool,
    /// How often it is measured in each round that is asked for: more where rounds differ by as much as servers do, and
    /// 0 for once in all, where they do not differ or take too long.
    pub times: usize,
}

pub const ROWS: &[Row] = &[
    Row {
        name: "idle",
        measure: idle,
        applies: any,
        short: true,
        times: 1,
    },
    Row {
        name: "steady",
        measure: steady,
        applies: any,
        short: true,
        times: 3,
    },
    Row {
        name: "last",
        measure: last,
        applies: any,
        short: true,
        times: 1,
    },
    Row {
        name: "flood",
        measure: flood,
        applies: any,
        short: true,
        times: 1,
    },
    Row {
        name: "stalled",
        measure: stalled,
        applies: is_server,
        short: true,
        times: 1,
    },
    Row {
        name: "slow",
        measure: slow,
        applies: is_server,
        short: false,
        times: 1,
    },
    Row {
        name: "churn",
        measure: churn,
        applies: is_server,
        short: true,
        times: 1,
    },
    Row {
        name: "burst",
        measure: burst,
        applies: is_server,
        short: false,
        times: 1,
    },
    Row {
        name: "backlog",
        measure: backlog,
        applies: has_topics,
        short: false,
        times: 1,
    },
    Row {
        name: "plain",
        measure: plain,
        applies: is_server,
        short: true,
        times: 3,
    },
    Row {
        name: "polling",
        measure: polling,
        applies: is_server,
        short: false,
        times: 1,
    },
    Row {
        name: "growth",
        measure: growth,
        applies: any,
        short: false,
        times: 0,
    },
    Row {
        name: "topics",
        measure: topics,
        applies: has_topics,
        short: false,
        times: 1,
    },
    Row {
        name: "publishers",
        measure: publishers,
        applies: has_topics,
        short: false,
        times: 1,
    },
    Row {
        name: "footprint",
        measure: footprint::measure,
        applies: is_server,
        short: false,
        times: 0,
    },
];

fn any(_: &Server) -> bool {
    true
}

fn is_server(server: &Server) -> bool {
    server.role != Role::Reference
}

/// Topics, publishing threads and a listener that is handed over are asked of the `testbed` alone.
fn has_topics(server: &Server) -> bool {
    server.name == "tiny-sse"
}

/// The size of a channel that must have room for all events.
const ROOM: usize = 32 * 1024;
const DEFAULT_CAPACITY: usize = 1024;
/// How far the kernel's memory may have moved by itself while the kernel's share is measured.
const QUIET_DRIFT: f64 = 8.0 * MIB;
const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

/// Memory of streams that nothing is sent to.
fn idle(run: &Run) -> Result<Measured, String> {
    let mut measured = Vec::new();
    let counts: &[usize] = if run.short { &[1000] } else { &[1000, 10_000] };
    for &streams in counts
        .iter()
        .filter(|streams| **streams <= run.server.max_streams)
    {
        let before = machine::settled_kernel_memory();
        let running = run.server.start(DEFAULT_CAPACITY)?;
        // One visit first, so that what a server sets up once is not counted for its streams.
        drop(Session::open(run.server, &running, 1, &[])?);
        thread::sleep(Duration::from_millis(500));
        let (resident, kernel) = (running.resident(), machine::kernel_memory());

        let session = open(run, &running, streams, &[])?;
        thread::sleep(Duration::from_millis(1500));
        let of_streams = running.resident() - resident;
        measured.push((
            format!("resident.total.{streams}"),
            running.resident() / MIB,
        ));
        measured.push((
            format!("resident.stream.{streams}"),
            of_streams / KIB / session.streams,
        ));
        measured.push((format!("threads.{streams}"), running.threads()));

        // What else the kernel does meanwhile would drown the memory of fewer.
        if streams >= 10_000 {
            let of_kernel = machine::kernel_memory() - kernel - session.own_page_tables();
            let of_all = (of_streams + of_kernel) / KIB / session.streams;
            drop((session, running));
            let drift = machine::settled_kernel_memory() - before;
            if drift.abs() < QUIET_DRIFT {
                measured.push((format!("all.stream.{streams}"), of_all));
            } else {
                eprint!(
                    "(kernel moved by {:.0} MiB meanwhile: its memory not told) ",
                    drift / MIB
                );
            }
        }
    }
    Ok(measured)
}

/// Processor time and latency at 1,000 streams x 100 events/s.
fn steady(run: &Run) -> Result<Measured, String> {
    let running = run.server.start(DEFAULT_CAPACITY)?;
    let mut session = open(run, &running, 1000, &[])?;
    session.publish("n=50&size=100&rate=100")?;
    let seconds = if run.short { 2 } else { 5 };
    let query = format!("n={}&size=100&rate=100", seconds * 100);
    let (figures, cpu) = timed(&running, &mut session, &query)?;
    Ok(vec![
        ("steady.cpu".to_owned(), cpu),
        ("steady.p50".to_owned(), figures.get("p50")),
        ("steady.p99".to_owned(), figures.get("p99")),
        ("steady.lost".to_owned(), figures.get("lost")),
    ])
}

/// The time until the last of all readers has an event, as the median of single events.
fn last(run: &Run) -> Result<Measured, String> {
    let mut measured = Vec::new();
    let counts: &[usize] = if run.short { &[1000] } else { &[1000, 5000] };
    for &streams in counts
        .iter()
        .filter(|streams| **streams <= run.server.max_streams)
    {
        let running = run.server.start(DEFAULT_CAPACITY)?;
        let mut session = open(run, &running, streams, &[])?;
        session.publish("n=20&size=100&rate=20")?;
        let mut times = Vec::new();
        for _ in 0..if run.short { 20 } else { 40 } {
            times.push(session.publish("n=1&size=100")?.get("max"));
            thread::sleep(Duration::from_millis(20));
        }
        times.sort_by(f64::total_cmp);
        measured.push((format!("last.{streams}"), times[times.len() / 2]));
    }
    Ok(measured)
}

/// As many deliveries a second as there can be, with room for all of them in the channels.
fn flood(run: &Run) -> Result<Measured, String> {
    let mut measured = Vec::new();
    for (streams, events) in [(100, 20_000), (1000, 2000)] {
        let running = run.server.start(ROOM)?;
        let mut session = open(run, &running, streams, &[])?;
        session.publish(&format!("n={}&size=100", events / 10))?;
        let figures = session.publish(&format!("n={events}&size=100"))?;
        let rate = figures.get("received") / figures.get("seconds") / 1e6;
        measured.push((format!("flood.{streams}"), rate));
        measured.push((format!("flood.lost.{streams}"), figures.get("lost")));
    }
    Ok(measured)
}

/// The others' latency where 25 of 500 never read.
fn stalled(run: &Run) -> Result<Measured, String> {
    let figures = hindered(run, "size=4096", &["--stalled", "25"])?;
    Ok(vec![
        ("stalled.p50".to_owned(), figures.get("p50")),
        ("stalled.p99".to_owned(), figures.get("p99")),
        ("stalled.lost".to_owned(), figures.get("lost")),
    ])
}

/// The others' latency where 25 of 500 read at half of what is sent, 100 kB/s.
fn slow(run: &Run) -> Result<Measured, String> {
    let figures = hindered(run, "size=2048", &["--slow", "25", "--slow-rate", "100000"])?;
    Ok(vec![
        ("slow.p50".to_owned(), figures.get("p50")),
        ("slow.p99".to_owned(), figures.get("p99")),
        ("slow.lost".to_owned(), figures.get("lost")),
        (
            "slow.received".to_owned(),
            figures.get("slow_received") / 25.0,
        ),
    ])
}

fn hindered(run: &Run, size: &str, who: &[&str]) -> Result<Figures, String> {
    let running = run.server.start(DEFAULT_CAPACITY)?;
    let mut session = open(run, &running, 500, who)?;
    let seconds = if run.short { 3 } else { 6 };
    session.publish(&format!("n={}&{size}&rate=100", seconds * 100))
}

/// Connect, first event, close.
fn churn(run: &Run) -> Result<Measured, String> {
    let running = run.server.start(DEFAULT_CAPACITY)?;
    session::once("churn", &running, &["--visits", "2000"])?;
    let visits = if run.short { "10000" } else { "30000" };
    let figures = session::once(
        "churn",
        &running,
        &["--visits", visits, "--concurrency", "64"],
    )?;
    Ok(vec![
        ("churn.rate".to_owned(), figures.get("rate") / 1e3),
        ("churn.p99".to_owned(), figures.get("p99")),
        ("churn.failed".to_owned(), figures.get("failed")),
    ])
}

/// 2,000 connects at one moment.
fn burst(run: &Run) -> Result<Measured, String> {
    if run.server.max_streams < 2000 {
        return Ok(Vec::new());
    }
    connect_at_once("burst", &run.server.start(DEFAULT_CAPACITY)?)
}

/// The same, where the server is given a listener with a backlog of 4,096 in place of the 128 of `std`.
fn backlog(run: &Run) -> Result<Measured, String> {
    let running = run.server.start_with_backlog(4096, DEFAULT_CAPACITY)?;
    connect_at_once("backlog", &running)
}

fn connect_at_once(row: &str, running: &Running) -> Result<Measured, String> {
    let figures = session::once("burst", running, &["--streams", "2000"])?;
    Ok(vec![
        (format!("{row}.p50"), figures.get("p50")),
        (format!("{row}.last"), figures.get("max")),
        (format!("{row}.failed"), figures.get("failed")),
    ])
}

/// `GET /plain` on 64 connections that stay open.
fn plain(run: &Run) -> Result<Measured, String> {
    let running = run.server.start(DEFAULT_CAPACITY)?;
    let seconds = if run.short { "2" } else { "4" };
    session::once(
        "requests",
        &running,
        &[
            "--path",
            "/plain",
            "--connections",
            "64",
            "--seconds",
            "0.5",
        ],
    )?;
    let before = running.cpu();
    let figures = session::once(
        "requests",
        &running,
        &[
            "--path",
            "/plain",
            "--connections",
            "64",
            "--seconds",
            seconds,
        ],
    )?;
    let cpu = (running.cpu() - before).as_secs_f64() * 1e6 / figures.get("answers");
    Ok(vec![
        ("plain.rate".to_owned(), figures.get("rate") / 1e3),
        ("plain.p99".to_owned(), figures.get("p99")),
        ("plain.cpu".to_owned(), cpu),
    ])
}

/// 1,000 clients that ask `/poll` ten times a second.
fn polling(run: &Run) -> Result<Measured, String> {
    let running = run.server.start(DEFAULT_CAPACITY)?;
    let polls = [
        "--path",
        "/poll",
        "--connections",
        "1000",
        "--interval",
        "100",
        "--seconds",
    ];
    session::once("requests", &running, &[&polls[..], &["0.5"]].concat())?;
    let before = running.cpu();
    let figures = session::once("requests", &running, &[&polls[..], &["4"]].concat())?;
    let cpu = (running.cpu() - before).as_secs_f64() * 1e6 / figures.get("answers");
    Ok(vec![
        ("polling.cpu".to_owned(), cpu),
        ("polling.p99".to_owned(), figures.get("p99")),
        ("polling.rate".to_owned(), figures.get("rate") / 1e3),
    ])
}

/// How cost grows with the number of streams, at 10 events a second.
fn growth(run: &Run) -> Result<Measured, String> {
    let mut measured = Vec::new();
    for streams in GROWTH_STREAMS
        .into_iter()
        .filter(|streams| *streams <= run.server.max_streams)
    {
        let running = run.server.start(DEFAULT_CAPACITY)?;
        let mut session = open(run, &running, streams, &[])?;
        session.publish("n=5&size=100&rate=10")?;
        let (figures, cpu) = timed(&running, &mut session, "n=40&size=100&rate=10")?;
        measured.push((format!("growth.cpu.{streams}"), cpu));
        measured.push((format!("growth.p99.{streams}"), figures.get("p99")));
        measured.push((
            format!("growth.resident.{streams}"),
            running.resident() / MIB,
        ));
    }
    Ok(measured)
}

pub const GROWTH_STREAMS: [usize; 5] = [100, 1000, 5000, 10_000, 15_000];

/// How cost grows with the number of topics: 1,000 streams share them, 200,000 deliveries.
fn topics(run: &Run) -> Result<Measured, String> {
    let mut measured = Vec::new();
    for topics in GROWTH_TOPICS {
        let running = run.server.start(ROOM)?;
        let mut session = open(run, &running, 1000, &["--topics", &topics.to_string()])?;
        session.publish(&format!("n={topics}&size=100&topics={topics}"))?;
        let query = format!("n={}&size=100&topics={topics}", 200 * topics);
        let (figures, cpu) = timed(&running, &mut session, &query)?;
        measured.push((format!("topics.cpu.{topics}"), cpu));
        let rate = figures.get("received") / figures.get("seconds") / 1e6;
        measured.push((format!("topics.rate.{topics}"), rate));
        measured.push((format!("topics.lost.{topics}"), figures.get("lost")));
    }
    Ok(measured)
}

pub const GROWTH_TOPICS: [usize; 3] = [1, 10, 1000];

/// How the rate grows with the number of threads that publish: 40,000 events to 100 streams.
fn publishers(run: &Run) -> Result<Measured, String> {
    let mut measured = Vec::new();
    for publishers in GROWTH_PUBLISHERS {
        let running = run.server.start(ROOM)?;
        let mut session = open(run, &running, 100, &["--topics", "1"])?;
        let query = |events: u32| format!("n={events}&size=100&topics=1&publishers={publishers}");
        session.publish(&query(4000))?;
        let figures = session.publish(&query(40_000))?;
        let rate = figures.get("received") / figures.get("seconds") / 1e6;
        measured.push((format!("publishers.rate.{publishers}"), rate));
        measured.push((format!("publishers.lost.{publishers}"), figures.get("lost")));
    }
    Ok(measured)
}

pub const GROWTH_PUBLISHERS: [usize; 4] = [1, 2, 4, 8];

/// Opens streams, and says so where not all of them could be had.
fn open(run: &Run, running: &Running, streams: usize, more: &[&str]) -> Result<Session, String> {
    let session = Session::open(run.server, running, streams, more)?;
    if session.streams < streams as f64 {
        eprint!("({} of {streams} streams opened) ", session.streams);
    }
    if session.streams < streams as f64 * 0.9 {
        return Err("too few streams opened".to_owned());
    }
    Ok(session)
}

/// Publishes, and returns what arrived and the microseconds of processor time for each delivery.
fn timed(running: &Running, session: &mut Session, query: &str) -> Result<(Figures, f64), String> {
    let before = running.cpu();
    let figures = session.publish(query)?;
    let cpu = (running.cpu() - before).as_secs_f64() * 1e6 / figures.get("received");
    Ok((figures, cpu))
}
