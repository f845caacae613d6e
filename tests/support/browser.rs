//! A real browser, and a page that reports its findings to the test.
//!
//! A test gives its server the routes of [`Reports::serve`], opens a page in a [`Browser`], and waits with
//! [`Findings::all_ok`]. The page imports `/check.js`, whose functions run checks and post a line for each to `/findings`:
//! `ok NAME` or `failed NAME: WHY`, and at the end `done`. No package drives the browser: it only opens a page.

#![allow(dead_code)] // Each test file uses a part of it.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use tiny_sse::{Request, Response, Server};

/// The longest time between two findings. A single check gives up sooner, and names itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Chromium with its own profile. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Browser {
    process: Child,
    profile: PathBuf,
}

impl Browser {
    /// Opens a page in the program that `$CHROMIUM` names, else in `chromium` from the path.
    pub(crate) fn open(url: &str) -> Browser {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let profile =
            env::temp_dir().join(format!("tiny-sse-browser-{}-{number}", std::process::id()));
        fs::create_dir_all(&profile).unwrap();
        let log = File::create(profile.join("chromium.log")).unwrap();
        let program = env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into());
        let process = Command::new(&program)
            .args([
                "--headless",
                "--no-sandbox", // Without it Chromium refuses to run as root, as it does in CI.
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage", // Small in containers.
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{program:?} does not start ({error}): install Chromium, or set $CHROMIUM")
            });
        Browser { process, profile }
    }

    /// Returns the browser's own log.
    fn log(&self) -> String {
        fs::read_to_string(self.profile.join("chromium.log")).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Its child processes end soon after it, and may write until then.
        for _ in 0..100 {
            if fs::remove_dir_all(&self.profile).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns where a page reports to, and what it has reported.
pub(crate) fn findings() -> (Reports, Findings) {
    let (sender, receiver) = mpsc::channel();
    (Reports(sender), Findings(receiver))
}

/// The routes of a page of checks, for one server or several.
#[derive(Clone, Debug)]
pub(crate) struct Reports(Sender<String>);

impl Reports {
    pub(crate) fn serve(&self, server: Server) -> Server {
        let findings = self.0.clone();
        server
            .get("/check.js", |_request| {
                script(include_str!("../browser/check.js"))
            })
            .get("/favicon.ico", |_request| Response::new(204))
            .post("/findings", move |request: &Request| {
                let line = String::from_utf8_lossy(request.body()).into_owned();
                // Its test may have ended.
                let _ = findings.send(line);
                Response::new(204)
            })
    }
}

/// What a page has found.
#[derive(Debug)]
pub(crate) struct Findings(Receiver<String>);

impl Findings {
    /// Waits until the page is done, and returns the names of the checks. Fails with the checks that failed.
    #[track_caller]
    pub(crate) fn all_ok(&self, browser: &Browser) -> Vec<String> {
        let mut right = Vec::new();
        let mut wrong = Vec::new();
        loop {
            let Ok(line) = self.0.recv_timeout(PATIENCE) else {
                wrong.push(format!("the page went silent\n{}", browser.log()));
                break;
            };
            println!("{line}");
            match line.strip_prefix("ok ") {
                _ if line == "done" => break,
                Some(name) => right.push(name.to_string()),
                None => wrong.push(line),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        right
    }
}

/// Listens in place of a server, until the browser has tried in vain to request this path.
pub(crate) fn wait_for_a_try_in_vain(address: SocketAddr, path: &str) {
    let listener = TcpListener::bind(address).unwrap();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        // Browsers open connections in advance, which send nothing.
        let patience = Some(Duration::from_millis(100));
        stream.set_read_timeout(patience).unwrap();
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        if line.contains(path) {
            return;
        }
    }
}

/// Returns a script as a response.
pub(crate) fn script(text: &'static str) -> Response {
    Response::bytes("text/javascript; charset=utf-8", text.as_bytes())
}

/// Listens on a free port, and passes each request on to the server that the function returns for its head. Without
/// a server, the client gets the head of an event stream and nothing more.
pub(crate) fn proxy(
    upstream: impl Fn(&str) -> Option<SocketAddr> + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let upstream = upstream.clone();
            // An error is that of a connection that a browser opened in advance.
            thread::spawn(move || pass_on(client?, upstream));
        }
    });
    address
}

fn pass_on(mut client: TcpStream, upstream: impl Fn(&str) -> Option<SocketAddr>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some(server) = upstream(&head) else {
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        client.read_to_end(&mut Vec::new())?;
        return Ok(());
    };
    let mut server = TcpStream::connect(server)?;
    // One request for each connection, so that the proxy sees every head.
    let head = head.replace("Connection: keep-alive", "Connection: close");
    server.write_all(head.as_bytes())?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Write)
}
