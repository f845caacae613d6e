//! The load generator as a child process.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use tiny_sse_benches::arguments::Figures;

use crate::{
    machine,
    servers::{Running, Server, program},
};

/// Streams that stay open while events are published to them.
#[derive(Debug)]
pub struct Session {
    child: Child,
    /// `None` once told to end.
    queries: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// How many streams had their first event.
    pub streams: f64,
}

impl Session {
    /// Opens this many streams; `more` says which of them are slow, or what topics they ask for.
    pub fn open(
        server: &Server,
        running: &Running,
        streams: usize,
        more: &[&str],
    ) -> Result<Session, String> {
        let mut command = Command::new(program("load"));
        command.args([
            "streams",
            "--port",
            &running.port.to_string(),
            "--streams",
            &streams.to_string(),
        ]);
        command.args(more);
        if server.websocket {
            command.arg("--websocket");
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child =
            spawned.map_err(|error| format!("cannot start the load generator: {error}"))?;
        let queries = child.stdin.take();
        let answers = BufReader::new(
            child
                .stdout
                .take()
                .ok_or("the load generator has no output")?,
        );
        let mut session = Session {
            child,
            queries,
            answers,
            streams: 0.0,
        };
        session.streams = session.answer()?.get("streams");
        Ok(session)
    }

    /// Publishes, and returns what arrived.
    ///
    /// # Errors
    ///
    /// Returns what must never be: events out of order, of the wrong size, different sets for readers of one topic
    /// although none was lost, or a publish that did not end.
    pub fn publish(&mut self, query: &str) -> Result<Figures, String> {
        let queries = self.queries.as_mut().ok_or("the session has ended")?;
        writeln!(queries, "{query}").map_err(|error| error.to_string())?;
        let figures = self.answer()?;
        let one_publisher = !query.contains("publishers=");
        let wrong = [
            ("wrong_size", figures.get("wrong_size") > 0.0),
            (
                "out_of_order",
                one_publisher && figures.get("out_of_order") > 0.0,
            ),
            (
                "differing",
                figures.get("lost") == 0.0 && figures.get("differing") > 0.0,
            ),
            ("not published", figures.get("published") == 0.0),
            ("nothing received", figures.get("received") == 0.0),
        ];
        match wrong.iter().find(|(_, is_wrong)| *is_wrong) {
            Some((what, _)) => Err(format!("{what}: {figures}")),
            None => Ok(figures),
        }
    }

    /// Returns the page tables of the load generator in bytes.
    pub fn own_page_tables(&self) -> f64 {
        machine::status(self.child.id(), "VmPTE:")
    }

    fn answer(&mut self) -> Result<Figures, String> {
        let mut line = String::new();
        let read = self
            .answers
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the load generator ended".to_owned());
        }
        Ok(Figures::parse(&line))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.queries.take());
        let _ = self.child.wait();
    }
}

/// Runs the load generator once, and returns its figures.
pub fn once(mode: &str, running: &Running, arguments: &[&str]) -> Result<Figures, String> {
    let port = running.port.to_string();
    let output = Command::new(program("load"))
        .args([mode, "--port", &port])
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot start the load generator: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(Figures::parse(&String::from_utf8_lossy(&output.stdout)))
}
