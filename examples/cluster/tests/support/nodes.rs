//! Node processes that can be killed and started again at the same address.

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use super::reader::Http;
use super::redis_server::terminate;
use super::{TOKEN, eventually};

pub struct NodeProcess {
    pub port: u16,
    redis: u16,
    settings: &'static [&'static str],
    process: Mutex<Option<Child>>,
}

impl NodeProcess {
    pub fn new(port: u16, redis: u16, settings: &'static [&'static str]) -> NodeProcess {
        let process = Mutex::default();
        NodeProcess {
            port,
            redis,
            settings,
            process,
        }
    }

    /// Starts the process. It may end at once if Redis is away: see [`serve`](NodeProcess::serve).
    fn start(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command
            .arg(format!("port={}", self.port))
            .arg(format!("redis=127.0.0.1:{}", self.redis));
        command
            .args(["figures=0", "heartbeat=2", "drain=1"])
            .args(self.settings);
        command
            .env("CLUSTER_TOKEN", TOKEN)
            .stdout(Stdio::null())
            .stderr(match std::env::var("FAULTS_VERBOSE") {
                Ok(_) => Stdio::inherit(),
                Err(_) => Stdio::null(),
            });
        *self.process.lock().unwrap() = Some(command.spawn().unwrap());
    }

    /// Starts the process, again and again while Redis is away, until it is caught up.
    pub fn serve(&self) {
        eventually("the node is caught up", || {
            let mut process = self.process.lock().unwrap();
            let has_ended = match &mut *process {
                Some(process) => process.try_wait().unwrap().is_some(),
                None => true,
            };
            drop(process);
            if has_ended {
                self.start();
                std::thread::sleep(Duration::from_millis(100));
            }
            self.health() == Some(200)
        });
    }

    pub fn health(&self) -> Option<u16> {
        Http::send(self.port, "GET", "/health", &[], b"")
            .ok()
            .map(|response| response.status)
    }

    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Ends the process with SIGTERM, which sends its readers away.
    pub fn end(&self) {
        let process = self.process.lock().unwrap().take();
        if let Some(mut process) = process {
            terminate(&process);
            process.wait().unwrap();
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
