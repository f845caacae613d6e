//! The logs that are compared, and the Redis that one of them needs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, net, thread};

use tiny_sse::{Durability, Event, Hub, HubConfig};
use tiny_sse_cluster::{LogConfig, Node};

use crate::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    Everysec,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    File(Fsync),
    Redis(Fsync),
}

pub(crate) const KINDS: [Kind; 5] = [
    Kind::Memory,
    Kind::File(Fsync::Everysec),
    Kind::File(Fsync::Always),
    Kind::Redis(Fsync::Everysec),
    Kind::Redis(Fsync::Always),
];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Memory => "memory",
            Kind::File(Fsync::Everysec) => "file, `Os`",
            Kind::File(Fsync::Always) => "file, `Sync`",
            Kind::Redis(Fsync::Everysec) => "Redis, `everysec`",
            Kind::Redis(Fsync::Always) => "Redis, `always`",
        }
    }

    /// How many events memory keeps where catch-up is measured: all of them if there is nothing else.
    pub(crate) fn catch_up_events(self) -> usize {
        match self {
            Kind::Memory => 1_000_000,
            _ => 16,
        }
    }
}

/// Makes names that no earlier log has.
static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn fresh_name() -> String {
    format!(
        "measure-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

pub(crate) enum Log {
    Hub(Hub, Option<PathBuf>),
    Node(Node),
}

impl Log {
    pub(crate) fn open(kind: Kind, redis_ports: [u16; 2], events: usize) -> Result<Log> {
        Log::open_named(kind, redis_ports, events, &fresh_name())
    }

    /// Opens a log in Redis that other nodes have open, too.
    pub(crate) fn open_named(
        kind: Kind,
        redis_ports: [u16; 2],
        events: usize,
        name: &str,
    ) -> Result<Log> {
        let config = HubConfig {
            history_events: events,
            history_bytes: 256 * 1024 * 1024,
            ..HubConfig::default()
        };
        let fsync = match kind {
            Kind::Memory => return Ok(Log::Hub(Hub::open(config)?, None)),
            Kind::File(fsync) => {
                let path = folder()?.join(name);
                let durability = match fsync {
                    Fsync::Everysec => Durability::Os,
                    Fsync::Always => Durability::Sync,
                };
                let config = HubConfig {
                    history_events: events,
                    history_file: Some(path.clone()),
                    durability,
                    ..HubConfig::default()
                };
                return Ok(Log::Hub(Hub::open(config)?, Some(path)));
            }
            Kind::Redis(fsync) => fsync,
        };
        let log = LogConfig {
            redis: format!("127.0.0.1:{}", redis_ports[fsync as usize]),
            name: name.to_string(),
            keep: 1_000_000,
            load: 1000,
        };
        Ok(Log::Node(Node::start(log, config)?))
    }

    pub(crate) fn hub(&self) -> &Hub {
        match self {
            Log::Hub(hub, _) => hub,
            Log::Node(node) => node.hub(),
        }
    }

    /// Publishes an event, and returns its id when the log has it.
    pub(crate) fn publish(&self, topic: &str, data: &str) -> Result<String> {
        Ok(match self {
            Log::Hub(hub, _) => hub.publish_wait(topic, Event::data(data))?.to_string(),
            Log::Node(node) => node.publish(&[topic], "", data)?,
        })
    }

    /// Publishes the same event many times.
    pub(crate) fn publish_all(&self, topic: &str, data: &str, times: usize) -> Result<()> {
        match self {
            Log::Hub(hub, _) => {
                (0..times).try_for_each(|_| hub.publish(topic, Event::data(data)))?
            }
            Log::Node(node) => {
                let pending: std::result::Result<Vec<_>, _> =
                    (0..times).map(|_| node.send(&[topic], "", data)).collect();
                for pending in pending? {
                    pending.wait()?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Log::Hub(_, Some(path)) = self
            && let (Some(folder), Some(name)) = (path.parent(), path.file_name())
        {
            // The file, and its full parts beside it.
            let name = name.to_string_lossy().into_owned();
            for file in fs::read_dir(folder).into_iter().flatten().flatten() {
                if file.file_name().to_string_lossy().starts_with(&name) {
                    let _ = fs::remove_file(file.path());
                }
            }
        }
    }
}

/// The folder in which files are measured: on the disk of the build, since `/tmp` may be memory.
fn folder() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let folder = program
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .join("measure");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A Redis of its own, which ends with this program.
pub(crate) struct Redis {
    pub(crate) port: u16,
    pub(crate) process: Child,
    folder: PathBuf,
}

impl Redis {
    pub(crate) fn start(fsync: Fsync) -> Result<Redis> {
        let port = net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = folder()?.join(format!("redis-{port}"));
        fs::create_dir_all(&folder)?;
        let fsync = match fsync {
            Fsync::Everysec => "everysec",
            Fsync::Always => "always",
        };
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]);
        command
            .args(["--appendonly", "yes", "--appendfsync", fsync])
            .arg("--dir")
            .arg(&folder);
        let process = command
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server: {error}"))?;
        let until = Instant::now() + Duration::from_secs(10);
        while net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until {
                return Err("redis-server does not listen".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Redis {
            port,
            process,
            folder,
        })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
