//! The servers: how each is built, started, watched and ended.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::machine;

/// The part that a server has in the comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// tiny-sse itself, in one of its forms.
    Own,
    /// One of the servers whose best sets the mark in a row.
    Peer,
    /// Shown beside them: the kernel's floor, another protocol.
    Reference,
}

#[derive(Debug)]
pub struct Server {
    pub name: &'static str,
    pub role: Role,
    program: Program,
    /// How many streams it is asked to hold.
    pub max_streams: usize,
    pub websocket: bool,
    /// Whether the short form measures it.
    pub short: bool,
}

#[derive(Debug)]
enum Program {
    /// The `testbed` example of the root package, with this many writer threads.
    Testbed { writers: usize },
    /// A program of this package.
    Here(&'static str),
}

const MANY: usize = 15_000;

pub const SERVERS: &[Server] = &[
    Server {
        name: "tiny-sse",
        role: Role::Own,
        program: Program::Testbed { writers: 2 },
        max_streams: MANY,
        websocket: false,
        short: true,
    },
    // The plain half of the hub alone: a thread for each stream.
    Server {
        name: "tiny-sse-plain",
        role: Role::Own,
        program: Program::Testbed { writers: 0 },
        max_streams: 10_000,
        websocket: false,
        short: false,
    },
    // A thread each: past some 16,000 the system has no more.
    Server {
        name: "tiny-sse-threads",
        role: Role::Own,
        program: Program::Here("tiny_sse_threads"),
        max_streams: 10_000,
        websocket: false,
        short: false,
    },
    Server {
        name: "axum",
        role: Role::Peer,
        program: Program::Here("axum"),
        max_streams: MANY,
        websocket: false,
        short: true,
    },
    Server {
        name: "hyper",
        role: Role::Peer,
        program: Program::Here("hyper"),
        max_streams: MANY,
        websocket: false,
        short: true,
    },
    Server {
        name: "actix",
        role: Role::Peer,
        program: Program::Here("actix"),
        max_streams: MANY,
        websocket: false,
        short: false,
    },
    Server {
        name: "hyperlane",
        role: Role::Peer,
        program: Program::Here("hyperlane"),
        max_streams: MANY,
        websocket: false,
        short: false,
    },
    // Two threads for each stream: more of them and the system has no more threads.
    Server {
        name: "tiny_http",
        role: Role::Peer,
        program: Program::Here("tiny_http"),
        max_streams: 1000,
        websocket: false,
        short: false,
    },
    Server {
        name: "floor",
        role: Role::Reference,
        program: Program::Here("floor"),
        max_streams: MANY,
        websocket: false,
        short: true,
    },
    Server {
        name: "axum-websocket",
        role: Role::Reference,
        program: Program::Here("axum_websocket"),
        max_streams: MANY,
        websocket: true,
        short: false,
    },
];

/// Builds the programs that these servers need, and the load generator.
pub fn build(servers: &[&Server]) -> Result<(), String> {
    let target = target_directory();
    eprintln!("building the servers");
    cargo(
        &["build", "--release", "--bins", "--manifest-path"],
        &package().join("Cargo.toml"),
        &target,
    )?;
    if servers
        .iter()
        .any(|server| matches!(server.program, Program::Testbed { .. }))
    {
        let manifest = package().join("../Cargo.toml");
        cargo(
            &[
                "build",
                "--release",
                "--example",
                "testbed",
                "--manifest-path",
            ],
            &manifest,
            &target,
        )?;
    }
    Ok(())
}

fn cargo(arguments: &[&str], manifest: &Path, target: &Path) -> Result<(), String> {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .arg("--quiet")
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {}: {status}", arguments.join(" "))),
        Err(error) => Err(format!("cargo: {error}")),
    }
}

/// The folder of this package's manifest.
pub fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns where a program of this package was built: beside this one.
pub fn program(name: &str) -> PathBuf {
    target_directory().join("release").join(name)
}

/// Returns where cargo builds to: this program is in its folder `release`.
pub fn target_directory() -> PathBuf {
    let this = env::current_exe().expect("this program has a path");
    let target = this.parent().and_then(Path::parent);
    target
        .expect("cargo puts programs into a folder of its target")
        .to_owned()
}

impl Server {
    /// Starts the server on a free port, with channels that hold `capacity` events.
    pub fn start(&self, capacity: usize) -> Result<Running, String> {
        let port = free_port().map_err(|error| error.to_string())?;
        self.start_as(port, &port.to_string(), Stdio::null(), capacity)
    }

    /// Starts the testbed with a listener of this backlog as its standard input.
    pub fn start_with_backlog(&self, backlog: i32, capacity: usize) -> Result<Running, String> {
        let (listener, port) = listen(backlog).map_err(|error| error.to_string())?;
        self.start_as(port, "-", OwnedFd::from(listener).into(), capacity)
    }

    fn start_as(
        &self,
        port: u16,
        argument: &str,
        stdin: Stdio,
        capacity: usize,
    ) -> Result<Running, String> {
        let path = match self.program {
            Program::Testbed { .. } => target_directory().join("release/examples/testbed"),
            Program::Here(name) => program(name),
        };
        let writers = match self.program {
            Program::Testbed { writers } => writers,
            Program::Here(_) => 0,
        };
        let child = Command::new(&path)
            .arg(argument)
            .env("CAP", capacity.to_string())
            .env("WRITERS", writers.to_string())
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", path.display()))?;
        let running = Running { child, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{} does not listen", self.name));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Listens on a free port, with a backlog that `std` does not offer.
fn listen(backlog: i32) -> std::io::Result<(Socket, u16)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into())?;
    socket.listen(backlog)?;
    let address = socket.local_addr()?.as_socket();
    Ok((socket, address.map_or(0, |address| address.port())))
}

/// A server that runs, until this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pub port: u16,
}

impl Running {
    /// Returns the processor time it has used so far.
    pub fn cpu(&self) -> Duration {
        machine::cpu(self.child.id())
    }

    /// Returns its resident memory in bytes.
    pub fn resident(&self) -> f64 {
        machine::status(self.child.id(), "VmRSS:")
    }

    /// Returns how many threads it has.
    pub fn threads(&self) -> f64 {
        fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .map_or(f64::NAN, |tasks| tasks.count() as f64)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Some would take half a minute to end on their own; one that has ended already is fine too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
