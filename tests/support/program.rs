//! A program in a process of its own, which prints what it sees: an example, or a client in another language.

#![allow(dead_code)] // Each test file uses a part of it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::support::PATIENCE;

/// A program that runs until it is dropped.
pub(crate) struct Program {
    process: Child,
    lines: Receiver<String>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        Program::run(command.stdin(Stdio::null()))
    }

    fn run(command: &mut Command) -> Program {
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Reads to the end: a program whose output nobody reads would block.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Program { process, lines }
    }

    /// Starts an example on a port of its own. `None` when it has not been built, as when cargo was asked for one test alone.
    pub(crate) fn example(name: &str) -> Option<Program> {
        Program::example_in("", name)
    }

    /// Starts an example that keeps its files in a folder of this name, apart from those of other tests.
    pub(crate) fn example_in(folder: &str, name: &str) -> Option<Program> {
        Program::example_with(folder, name, "0") // The port.
    }

    /// Starts an example with this argument.
    pub(crate) fn example_with(folder: &str, name: &str, argument: &str) -> Option<Program> {
        Some(Program::start(&mut command(folder, name, argument)?))
    }

    /// Starts an example that reads its standard input, for [`Program::enter`].
    pub(crate) fn example_with_input(name: &str) -> Option<Program> {
        Some(Program::run(command("", name, "0")?.stdin(Stdio::piped())))
    }

    /// Sends a line to the standard input.
    pub(crate) fn enter(&mut self, line: &str) {
        let mut input = self.process.stdin.as_ref().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Ends the standard input.
    pub(crate) fn end_input(&mut self) {
        self.process.stdin = None;
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// The next line, if one comes in this time.
    pub(crate) fn line_within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }

    /// The next line that it prints; `None` at its end.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no line comes"),
        }
    }

    /// All further lines, up to its end.
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.line()).collect()
    }

    /// Waits for its end, and returns whether it succeeded.
    pub(crate) fn succeeded(&mut self) -> bool {
        self.process.wait().unwrap().success()
    }

    /// Returns the text after a mark in a line that it prints.
    pub(crate) fn told(&self, mark: &str) -> String {
        let mut lines = std::iter::from_fn(|| self.line());
        let told = lines.find_map(|line| Some(line.split_once(mark)?.1.to_string()));
        told.unwrap_or_else(|| panic!("no line with {mark:?}"))
    }

    /// Where it says that it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        let told = self.told("http://");
        told.trim_end_matches('/').parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How to start an example. `None` when it has not been built.
fn command(folder: &str, name: &str, argument: &str) -> Option<Command> {
    // Cargo puts a test into `deps`, and the examples beside that.
    let tests = env::current_exe().unwrap();
    let examples = tests.ancestors().nth(2).unwrap().join("examples");
    let program = examples
        .join(name)
        .with_extension(env::consts::EXE_EXTENSION);
    if !program.exists() {
        println!("{name} has not been built");
        return None;
    }
    // Not with the files of a person who tries the example out.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(program);
    command.arg(argument).env("TMPDIR", &folder);
    command.env("TMP", &folder);
    Some(command)
}
