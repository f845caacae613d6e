//! Real proxies with the configurations that the guide prints: a stream comes through event by event, and while the server is
//! down an `EventSource` is told to come back.
//!
//! Each configuration is the code block of `src/guide/proxies.md` with the proxy's language. The tests replace ports and paths
//! in it, and put in front of it what the main file of a distribution holds.

#![cfg(unix)]

#[path = "support/browser.rs"]
mod browser;
mod support;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use browser::Browser;
use support::{PATIENCE, eventually};
use tiny_sse::{Config, Event, Hub, Response, Server, ServerHandle, Sse};

const GUIDE: &str = include_str!("../src/guide/proxies.md");

/// The socket of the page about Unix sockets.
const SOCKET: &str = "/run/events/events.sock";

#[test]
#[ignore = "needs nginx"]
fn the_block_of_the_guide_is_right_for_nginx() {
    holds(&nginx(block("nginx")));
}

fn nginx(config: String) -> Proxy {
    Proxy::start(config, |folder, config| {
        let main = format!(
            "daemon off; master_process off; pid {0}/pid; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n\
             fastcgi_temp_path {0}/fastcgi; scgi_temp_path {0}/scgi; uwsgi_temp_path {0}/uwsgi;\n\
             server {{ listen 127.0.0.1:8080;\n{config}}} }}\n",
            folder.display()
        );
        (
            "nginx",
            main,
            "-c",
            vec!["-p".into(), folder.display().to_string()],
        )
    })
}

#[test]
#[ignore = "needs HAProxy"]
fn the_block_of_the_guide_is_right_for_haproxy() {
    holds(&haproxy(block("haproxy")));
}

#[test]
#[ignore = "needs HAProxy"]
fn haproxy_keeps_each_event_for_a_while_unless_told_not_to() {
    let time = |config: String| {
        let (proxy, hub) = (haproxy(config), Hub::new());
        let server = proxy.serve(&hub);
        let mut reader = proxy.open("/events/news");
        let start = Instant::now();
        deliver(&hub, &mut reader);
        let time = start.elapsed();
        server.shutdown(PATIENCE).unwrap();
        time
    };
    let config = block("haproxy");
    let lines = config.split_inclusive('\n');
    let without: String = lines
        .filter(|line| !line.contains("http-no-delay"))
        .collect();
    let (slow, fast) = (time(without), time(config));
    assert!(fast < slow / 2, "{fast:?} and {slow:?} without the option");
}

fn haproxy(config: String) -> Proxy {
    Proxy::start(config, |_, config| ("haproxy", config, "-f", Vec::new()))
}

#[test]
#[ignore = "needs Caddy"]
fn the_block_of_the_guide_is_right_for_caddy() {
    holds(&caddy(block("caddyfile")));
}

fn caddy(config: String) -> Proxy {
    Proxy::start(config, |_, config| {
        let main = format!("{{\n    admin off\n    auto_https off\n}}\n{config}");
        let args = ["run", "--adapter", "caddyfile"].map(String::from);
        ("caddy", main, "--config", args.to_vec())
    })
}

#[test]
#[ignore = "needs Apache httpd"]
fn the_block_of_the_guide_is_right_for_apache() {
    holds(&apache(block("apache")));
}

fn apache(config: String) -> Proxy {
    Proxy::start(config, |folder, config| {
        fs::write(folder.join("later.asis"), block("asis")).unwrap();
        let mut main = format!(
            "ServerRoot {0}\nServerName localhost\nPidFile {0}/pid\nErrorLog /dev/stderr\nListen 127.0.0.1:8080\n",
            folder.display()
        );
        for module in "mpm_event authz_core alias proxy proxy_http asis".split(' ') {
            main +=
                &format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n");
        }
        let config = config.replace("/etc/apache2", &folder.display().to_string());
        ("apache2", main + &config, "-f", vec!["-X".into()])
    })
}

#[test]
#[ignore = "needs Varnish"]
fn the_block_of_the_guide_is_right_for_varnish() {
    holds(&varnish(block("vcl")));
}

fn varnish(config: String) -> Proxy {
    Proxy::start(config, |folder, config| {
        let name = folder.join("work").display().to_string();
        let args = ["-F", "-a", "127.0.0.1:8080", "-n", &name].map(String::from);
        ("varnishd", config, "-f", args.to_vec())
    })
}

#[test]
#[ignore = "needs lighttpd"]
fn the_block_of_the_guide_is_right_for_lighttpd() {
    holds(&lighttpd(block("lighttpd")));
}

fn lighttpd(config: String) -> Proxy {
    Proxy::start(config, |folder, config| {
        fs::write(folder.join("later.lua"), block("lua")).unwrap();
        let main = format!(
            "server.document-root = \"{}\"\nserver.bind = \"127.0.0.1\"\nserver.port = 8080\n",
            folder.display()
        );
        let config = config.replace("/etc/lighttpd", &folder.display().to_string());
        ("lighttpd", main + &config, "-f", vec!["-D".into()])
    })
}

/// Starts a proxy with this configuration.
type Start = fn(String) -> Proxy;

/// The name of each proxy in the guide, the language of its code block, and how it is started.
const PROXIES: [(&str, &str, Start); 6] = [
    ("nginx", "nginx", nginx),
    ("HAProxy", "haproxy", haproxy),
    ("Caddy", "caddyfile", caddy),
    ("Apache httpd", "apache", apache),
    ("Varnish", "vcl", varnish),
    ("lighttpd", "lighttpd", lighttpd),
];

/// The page about Unix sockets has a row for each proxy: what to replace in its configuration, and by what.
#[test]
#[ignore = "needs all the proxies"]
fn each_proxy_reaches_a_unix_socket() {
    for (name, language, start) in PROXIES {
        let row = include_str!("../src/guide/unix.md")
            .lines()
            .find(|line| line.starts_with(&format!("| {name} | `")))
            .expect(name);
        let (tcp, unix) = row.trim_end_matches("` |").rsplit_once("` | `").unwrap();
        let tcp = tcp.rsplit_once('`').unwrap().1;
        let config = block(language);
        assert!(config.contains(tcp), "{name}: {tcp}");
        holds(&start(config.replace(tcp, &unix.replace("\\|", "|"))));
    }
}

/// An `EventSource` in a real browser outlives a restart of the server behind each proxy, and misses nothing.
#[test]
#[ignore = "needs Chromium and all the proxies"]
fn a_browser_comes_back_through_every_proxy() {
    for (_, language, start) in PROXIES {
        let proxy = start(block(language));
        let (reports, hub) = (Reports::default(), Hub::new());
        let listener = reports.serve();
        let server = proxy.serve(&hub);
        let to = listener.addr();
        let _browser = Browser::open(&format!("http://{}/events/page?{to}", proxy.addr));
        reports.wait_for(1, "open");
        hub.publish("news", Event::data("before")).unwrap();
        reports.wait_for(1, "message before");

        server.shutdown(PATIENCE).unwrap();
        // The first error is the end of the stream, the second that of the proxy's own response.
        reports.wait_for(2, "error");
        hub.publish("news", Event::data("meanwhile")).unwrap();
        let server = proxy.serve(&hub);
        reports.wait_for(1, "message meanwhile");
        server.shutdown(PATIENCE).unwrap();
    }
}

/// What a page reports about its `EventSource`, to a server other than the one that goes away.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<String>>>);

impl Reports {
    fn serve(&self) -> ServerHandle {
        let reports = self.clone();
        Server::bind("127.0.0.1:0")
            .unwrap()
            .post("/", move |request| {
                reports.0.lock().unwrap().push(request.text()?.to_string());
                Ok(Response::new(204))
            })
            .spawn()
            .unwrap()
    }

    fn wait_for(&self, times: usize, report: &str) {
        let count = || {
            self.0
                .lock()
                .unwrap()
                .iter()
                .filter(|told| *told == report)
                .count()
        };
        eventually(|| count() >= times);
    }
}

/// Reports to the address in its query.
const PAGE: &str = "<!DOCTYPE html><script>
const tell = (body) => fetch(`http://${location.search.slice(1)}/`, { method: 'POST', mode: 'no-cors', body });
const source = new EventSource('/events/news');
source.onopen = () => tell('open');
source.onerror = () => tell('error');
source.onmessage = (event) => tell(`message ${event.data}`);
</script>";

/// The requests while the server is down, and the status of each response.
const WHILE_DOWN: [(&[&str], &str); 6] = [
    (&["-H", "Accept: text/event-stream"], "200"), // An EventSource comes back after a 200, and after nothing else.
    (&["-H", "Accept: text/html, text/event-stream"], "200"),
    (&[], "503"),
    (&["-H", "Accept: application/json"], "503"),
    (&["-d", "an event"], "503"), // The event was not published, and its client must not believe that it was.
    (
        &[
            "-d",
            "an event",
            "-H",
            "Accept: application/json, text/event-stream",
        ],
        "503",
    ), // As MCP's clients do.
];

fn holds(proxy: &Proxy) {
    let hub = Hub::new();
    let server = proxy.serve(&hub);
    let who = proxy.get("/events/who", &[]);
    assert!(
        who.starts_with("site.example from 127.0.0.1\n200 "),
        "{who}"
    );

    let mut reader = proxy.open("/events/news");
    deliver(&hub, &mut reader);

    drop(proxy.open("/events/news"));
    eventually(|| hub.readers().len() == 1); // The proxy ends its connection when the client has left.

    // Finite streams, many over the same connections. A proxy does not repeat a POST whose connection turns out to be closed.
    let many = proxy.get("/events/finite?[1-1000]", &["-d", "a question"]);
    let failed = 1000 - many.matches("data: the end\n\n").count();
    assert_eq!(failed, 0, "of 1,000 finite streams");

    server.shutdown(PATIENCE).unwrap();
    assert_eq!(reader.data(), None);
    for (options, status) in WHILE_DOWN {
        let response = proxy.get("/events/news", options);
        match status {
            "200" => assert_eq!(
                response, "retry: 3000\n\n200 text/event-stream\n",
                "{options:?}"
            ),
            _ => assert!(
                response.contains(&format!("\n{status} ")),
                "{options:?}: {response}"
            ),
        }
    }

    let server = proxy.serve(&hub);
    eventually(|| proxy.get("/events/who", &[]).starts_with("site.example"));
    let mut reader = proxy.open("/events/news");
    hub.publish("news", Event::data("back")).unwrap();
    assert_eq!(reader.data().as_deref(), Some("back"));
    server.shutdown(PATIENCE).unwrap();
}

/// Publishes events, each when the one before has come: with a proxy that collected events this would never end.
fn deliver(hub: &Hub, reader: &mut Reader) {
    for number in 0..20 {
        let text = format!("event {number}");
        hub.publish("news", Event::data(&text)).unwrap();
        assert_eq!(reader.data(), Some(text));
    }
}

/// A proxy that runs, and where it expects the server.
struct Proxy {
    process: Child,
    addr: SocketAddr,
    upstream: SocketAddr,
    /// In place of the address, where the configuration names a Unix socket.
    socket: Option<PathBuf>,
    folder: PathBuf,
}

impl Proxy {
    /// Starts a proxy with a configuration of the guide, whose ports and paths are replaced by free ones. `build` gets a folder
    /// and the configuration, and returns the program, the whole configuration, the option that takes the file of it, and more
    /// arguments.
    fn start(
        config: String,
        build: impl FnOnce(&Path, String) -> (&'static str, String, &'static str, Vec<String>),
    ) -> Proxy {
        let [addr, upstream] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let folder = env::temp_dir().join(format!("tiny-sse-proxy-{}", addr.port()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("events.sock");
        let has_socket = config.contains(SOCKET);
        let config = config.replace(SOCKET, &socket.display().to_string());
        let (program, config, option, args) = build(&folder, config);
        let ports = |text: &str| {
            let text = text.replace("8080", &addr.port().to_string());
            text.replace("7733", &upstream.port().to_string())
        };
        let file = folder.join("config");
        fs::write(&file, ports(&config)).unwrap();
        if has_socket {
            drop(UnixListener::bind(&socket).unwrap()); // Varnish wants the file to be there.
        }
        let mut command = Command::new(program);
        // Debian keeps most of them where only an administrator looks for programs.
        let path = env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{path}:/usr/sbin"))
            .env("HOME", &folder)
            .args(args.iter().map(|arg| ports(arg)))
            .arg(option)
            .arg(file);
        let process = command.stdin(Stdio::null()).spawn().expect(program);
        let proxy = Proxy {
            process,
            addr,
            upstream,
            socket: has_socket.then_some(socket),
            folder,
        };
        eventually(|| TcpStream::connect(addr).is_ok());
        proxy
    }

    /// Starts the server where the proxy expects it.
    fn serve(&self, hub: &Hub) -> ServerHandle {
        let readers = hub.clone();
        let config = Config {
            // The proxy has to notice that its client has left by what it cannot write.
            heartbeat: Duration::from_millis(20),
            ..Config::default()
        };
        let server = match &self.socket {
            Some(path) => Server::bind_unix(path, 0o666),
            None => Server::bind(self.upstream),
        };
        server
            .unwrap()
            .config(config)
            .get("/events/who", |request| {
                // The last entry is what the proxy says, and what the server believes.
                let client = request.headers("x-forwarded-for").last();
                let client = client.and_then(|entries| entries.rsplit(", ").next());
                let host = request.header("host").unwrap_or_default();
                format!("{host} from {}", client.unwrap_or("nobody"))
            })
            .get("/events/page", |_request| Response::html(PAGE))
            .post("/events/finite", |_request| {
                Sse::spawn(|events| {
                    let _ = events.send(Event::data("the beginning"));
                    let _ = events.send(Event::data("the end"));
                })
            })
            .get("/events/{topic}", move |request| {
                readers.subscribe(request, request.param("topic"))
            })
            .spawn()
            .unwrap()
    }

    fn curl(&self, path: &str, options: &[&str]) -> Command {
        let mut command = Command::new("curl");
        let patience = PATIENCE.as_secs().to_string();
        command
            .args(["--silent", "--no-buffer", "--max-time", &patience])
            // What the client says of itself must not be believed.
            .args([
                "-H",
                "Host: site.example",
                "-H",
                "X-Forwarded-For: 203.0.113.9",
            ])
            .args(options)
            .arg(format!("http://{}{path}", self.addr));
        command
    }

    /// The response's body, a line break, its status and its type.
    fn get(&self, path: &str, options: &[&str]) -> String {
        let mut curl = self.curl(path, options);
        curl.args(["-w", "\n%{http_code} %{content_type}\n"]);
        let output = curl.output().expect("curl");
        String::from_utf8(output.stdout).unwrap()
    }

    fn open(&self, path: &str) -> Reader {
        let mut curl = self.curl(path, &["-H", "Accept: text/event-stream"]);
        let mut curl = curl.stdout(Stdio::piped()).spawn().expect("curl");
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        let mut reader = Reader { curl, lines };
        assert_eq!(reader.line().as_deref(), Some(": connected"));
        reader
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        end(&mut self.process);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A curl that reads an event stream.
struct Reader {
    curl: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Reader {
    fn line(&mut self) -> Option<String> {
        self.lines.next().map(Result::unwrap)
    }

    /// The next event's data, or `None` when the stream has ended.
    fn data(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.line()?.strip_prefix("data: ") {
                return Some(data.to_string());
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        end(&mut self.curl);
    }
}

/// Asks a process to end and waits for it: one that has processes of its own ends them first.
fn end(process: &mut Child) {
    let _ = Command::new("kill").arg(process.id().to_string()).status();
    let _ = process.wait();
}

/// The guide's code block of this language.
fn block(language: &str) -> String {
    let (_, rest) = GUIDE
        .split_once(&format!("\n```{language}\n"))
        .expect(language);
    let (block, _) = rest.split_once("```\n").unwrap();
    block.to_string()
}

/// A port that nobody has, below those that the system lends to outgoing connections: it is free again later.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (std::process::id() as u16 % 1_000) * 10 + offset % 1_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
