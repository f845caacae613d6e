//! The load generator: one or two threads on epoll that connect, read and check what a server sends.
//!
//! ```text
//! load streams  --port P --streams N [--slow K --slow-rate BYTES] [--stalled K] [--topics T] [--websocket]
//! load churn    --port P --visits N --concurrency C
//! load burst    --port P --streams N
//! load requests --port P --path /plain --connections N --seconds S [--interval MILLISECONDS]
//! ```
//!
//! Every result is one line of `name=value` on standard output. `streams` says `ready`, then takes the queries of
//! `/load/publish` from standard input, one a line, and answers each with what arrived; it ends with its input.

mod parser;
mod requests;
mod socket;
mod streams;
mod visits;

use std::{env, process::ExitCode};

use hdrhistogram::Histogram;
use tiny_sse_benches::arguments::Arguments;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut words = env::args().skip(1);
    let mode = words
        .next()
        .ok_or("expected streams, churn, burst or requests")?;
    let arguments = Arguments::parse(words)?;
    match mode.as_str() {
        "streams" => streams::run(&arguments),
        "churn" => visits::churn(&arguments),
        "burst" => visits::burst(&arguments),
        "requests" => requests::run(&arguments),
        _ => Err(format!(
            "{mode:?} is none of streams, churn, burst, requests"
        )),
    }
}

/// An empty histogram of nanoseconds: up to ten minutes, to three digits.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are in order")
}
