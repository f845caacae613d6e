//! A Redis of its own, with an append-only file in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use redis::FromRedisValue;

use super::eventually;

pub struct RedisServer {
    pub port: u16,
    folder: PathBuf,
    fsync: &'static str,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts Redis in an empty folder. `fsync` is `always` or `everysec`.
    pub fn start(name: &str, port: u16, fsync: &'static str) -> RedisServer {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let mut server = RedisServer {
            port,
            folder,
            fsync,
            process: None,
        };
        server.start_again();
        server
    }

    pub fn start_again(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", self.fsync]);
        command.arg("--dir").arg(&self.folder).stdout(Stdio::null());
        self.process = Some(
            command
                .spawn()
                .expect("redis-server starts: Debian has it in the package redis-server"),
        );
        eventually("Redis answers", || {
            self.try_query::<String>(&["PING"]).is_ok()
        });
    }

    /// Kills Redis once all that it has acknowledged by now is in the file, and the newest epoch. With `everysec` and a slow
    /// disk, Redis holds back what it writes for up to two seconds, and a second kill in that time would take the epoch as well.
    pub fn kill(&mut self) {
        let mark = format!("mark {:?}", SystemTime::now());
        self.query::<()>(&["SET", "mark", &mark]);
        eventually("Redis has written the mark and the epoch", || {
            let newest: Option<String> = self.query(&["LINDEX", "{tiny-sse}:epochs", "-1"]);
            let content = fs::read(self.file()).unwrap();
            let is_written = |text: &str| {
                let mut windows = content.windows(text.len());
                windows.any(|window| window == text.as_bytes())
            };
            is_written(&mark) && newest.is_none_or(|newest| is_written(&newest))
        });
        self.kill_now();
    }

    fn kill_now(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Ends Redis as a restart by an operator does: with SIGTERM.
    pub fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            terminate(&process);
            process.wait().unwrap();
        }
    }

    /// Cuts up to this many bytes off the append-only file of a Redis that does not run, as a power failure does. The epoch
    /// stays: it has been there for the second that `everysec` may lose. What was trimmed or deleted stays so, and the
    /// gaps of that time are still true.
    pub fn lose(&self, bytes: usize) {
        assert!(self.process.is_none());
        let newest = self.file();
        let content = fs::read(&newest).unwrap();
        let begins = |word: &str| {
            content
                .windows(word.len())
                .rposition(|window| window == word.as_bytes())
        };
        let fixed = ["RPUSH", "XSETID", "XGROUP", "XTRIM", "\r\nDEL\r\n"]
            .into_iter()
            .filter_map(begins)
            .max()
            .unwrap_or(0);
        let kept = content
            .len()
            .saturating_sub(bytes)
            .max((fixed + 200).min(content.len()));
        fs::write(&newest, &content[..kept]).unwrap();
    }

    /// The append-only file.
    fn file(&self) -> PathBuf {
        let files = fs::read_dir(self.folder.join("appendonlydir")).unwrap();
        let files = files.map(|file| file.unwrap().path());
        files
            .filter(|path| path.to_str().unwrap().ends_with(".incr.aof"))
            .max()
            .unwrap()
    }

    pub fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_query(words).unwrap()
    }

    fn try_query<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut client.get_connection()?)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill_now();
    }
}

pub fn terminate(process: &Child) {
    let id = process.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
}
