//! Starts each server, drives it with the load generator, and compares what came out.
//!
//! ```text
//! cargo run --release                              # everything: the table, RESULTS.md and its pictures
//! cargo run --release -- --short                   # a minute or two: the table alone
//! cargo run --release -- --rows steady,flood --servers tiny-sse,axum --rounds 1
//! ```

mod figures;
mod footprint;
mod machine;
mod pictures;
mod report;
mod rows;
mod servers;
mod session;

use std::{env, process::ExitCode, time::Instant};

use tiny_sse_benches::arguments::Arguments;

use crate::{
    machine::Machine,
    report::Results,
    rows::{ROWS, Row, Run},
    servers::{SERVERS, Server},
};

const USAGE: &str = "\
compare [--short] [--rows A,B] [--servers A,B] [--rounds N] [--write] [--no-build]

  --short     a minute or two: fewer rows and servers, one short round
  --rows      only these rows
  --servers   only these servers
  --rounds    how often each row is measured, 3 by default, some three times as often; the median counts
  --write     write RESULTS.md and its pictures although not everything was measured
  --no-build  take the programs as they are";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments = Arguments::parse(env::args().skip(1))?;
    let known = [
        "short", "rows", "servers", "rounds", "write", "no-build", "help",
    ];
    let unknown = arguments.unknown(&known).next();
    if arguments.switch("help") || unknown.is_some() {
        println!(
            "{USAGE}\n\nrows:    {}\nservers: {}",
            names(ROWS.iter().map(|row| row.name)),
            names(SERVERS.iter().map(|server| server.name))
        );
        return unknown.map_or(Ok(()), |name| Err(format!("there is no --{name}")));
    }

    let short = arguments.switch("short");
    let rows = select(
        ROWS,
        arguments.text("rows"),
        |row| row.name,
        |row| !short || row.short,
    )?;
    let servers = select(
        SERVERS,
        arguments.text("servers"),
        |server| server.name,
        |server| !short || server.short,
    )?;
    let rounds: usize = arguments.value("rounds", if short { 1 } else { 3 })?;
    let everything = rows.len() == ROWS.len() && servers.len() == SERVERS.len() && rounds >= 3;

    if !arguments.switch("no-build") {
        servers::build(&servers)?;
    }
    let start = Instant::now();
    let results = measure(&rows, &servers, rounds, short);
    eprintln!("measured in {:.0} s", start.elapsed().as_secs_f64());

    println!(
        "{}",
        report::table(&results, &servers, report::Style::Terminal)
    );
    if everything || arguments.switch("write") {
        let command: Vec<String> = env::args().skip(1).collect();
        report::write(
            &results,
            &servers,
            &Machine::this(),
            &command.join(" "),
            rounds,
        )?;
    }
    Ok(())
}

/// Measures row by row, and within a row round by round, so that what is compared was measured at about the same time. Each
/// round begins with another server, so that none is always first, or always after the same one.
fn measure(
    rows: &[&'static Row],
    servers: &[&'static Server],
    rounds: usize,
    short: bool,
) -> Results {
    let plan: Vec<(&Row, usize, &Server)> = rows
        .iter()
        .flat_map(|row| {
            let rounds = (rounds * row.times).max(1);
            let applies = servers.iter().filter(|server| (row.applies)(server));
            let mut order: Vec<&Server> = applies.copied().collect();
            let step = order.len().div_ceil(rounds);
            (1..=rounds).flat_map(move |round| {
                let plan: Vec<_> = order.iter().map(|server| (*row, round, *server)).collect();
                order.rotate_left(step);
                plan
            })
        })
        .collect();

    let mut results = Results::default();
    for (index, (row, round, server)) in plan.iter().enumerate() {
        eprint!(
            "[{:3}/{}] {:<9} round {round}  {:<16} ",
            index + 1,
            plan.len(),
            row.name,
            server.name
        );
        let run = Run { server, short };
        match (row.measure)(&run) {
            Ok(measured) => {
                let shown: Vec<String> = measured
                    .iter()
                    .map(|(figure, value)| format!("{figure} {}", report::number(*value)))
                    .collect();
                eprintln!("{}", shown.join(", "));
                results.add(server, measured);
            }
            Err(error) => {
                eprintln!("failed: {error}");
                results.fail(row, server, &error);
            }
        }
    }
    results
}

/// Returns those of `all` that a list of names asks for, or those that `default` takes.
fn select<T>(
    all: &'static [T],
    names_asked: Option<&str>,
    name: impl Fn(&T) -> &'static str,
    default: impl Fn(&T) -> bool,
) -> Result<Vec<&'static T>, String> {
    let Some(asked) = names_asked else {
        return Ok(all.iter().filter(|item| default(item)).collect());
    };
    let find = |asked: &str| {
        let found = all.iter().find(|item| name(item) == asked);
        found.ok_or_else(|| format!("{asked:?} is none of {}", names(all.iter().map(&name))))
    };
    asked.split(',').map(find).collect()
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
