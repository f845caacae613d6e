//! A program in a process of its own, which tells by its output what it sees: an example, or a client of another language.

#![allow(dead_code)] // Each test file uses a part of it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::support::PATIENCE;

/// A program that runs until it is dropped.
pub(crate) struct Program {
    process: Child,
    lines: Receiver<String>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command
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
        // Not with the files of somebody who tries the example out.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new(program);
        command.arg(argument);
        Some(Program::start(
            command.env("TMPDIR", &folder).env("TMP", &folder),
        ))
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

    /// Waits for its end, and says whether it was a good one.
    pub(crate) fn succeeded(&mut self) -> bool {
        self.process.wait().unwrap().success()
    }

    /// What stands after a mark in a line that it prints.
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
