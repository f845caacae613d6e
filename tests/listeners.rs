//! What a server listens on besides a TCP address: a Unix socket's path, and a socket that another process hands over.
#![cfg(unix)]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, net};

use support::{Client, EventSource, eventually};
use tiny_sse::{Config, Event, Hub, Request, Server, Sse};

/// A directory for one test, which is removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Directory {
        let path = env::temp_dir().join(format!("tiny-sse-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        entries.map(|entry| name(entry.unwrap())).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn connect(path: &Path) -> Client {
    let stream = UnixStream::connect(path).unwrap();
    Client::over(net::TcpStream::from(OwnedFd::from(stream)))
}

fn site(server: Server) -> Server {
    let hub = Hub::new();
    let publisher = hub.clone();
    server
        .get("/hello", |_| "hello\n")
        .get("/who", |request: &Request| {
            format!("{} {}", request.peer(), request.client_ip())
        })
        .get("/one", |_| {
            Sse::spawn(|events| events.send(Event::data("a")).unwrap())
        })
        .get("/hub", move |request: &Request| {
            hub.subscribe(request, "topic")
        })
        .post("/hub", move |request: &Request| {
            let text = String::from_utf8_lossy(request.body());
            publisher.publish("topic", Event::data(text)).unwrap();
            "published\n"
        })
}

#[test]
fn a_unix_socket_serves_what_a_port_does() {
    let directory = Directory::new("serves");
    let path = directory.path("http.sock");
    let server = site(Server::bind_unix(&path, 0o600).unwrap());
    let handle = server.spawn().unwrap();
    let mut client = connect(&path);
    assert_eq!(client.get("/hello").text(), "hello\n");
    assert_eq!(client.get("/one").text(), ": connected\ndata: a\n\n");
    assert_eq!(client.get("/who").text(), "127.0.0.1:0 127.0.0.1");
    let mut reader = connect(&path);
    reader.request("GET", "/hub", &[], b"");
    let mut reader = EventSource::answer(reader);
    let large = "x".repeat(1_000_000);
    assert_eq!(
        client.answer_after("POST", "/hub", large.as_bytes()).text(),
        "published\n"
    );
    assert_eq!(reader.data(), large);
    assert_eq!(handle.shutdown(Duration::from_secs(60)), Ok(()));
    assert_eq!(reader.next(), None);
    assert_eq!(directory.names(), [""; 0], "the file is removed");
}

#[test]
fn the_file_has_the_mode_that_was_asked_for() {
    let directory = Directory::new("mode");
    for mode in [0o600, 0o660, 0o666] {
        let path = directory.path("http.sock");
        let server = Server::bind_unix(&path, mode).unwrap();
        let found = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode);
        drop(server);
        assert_eq!(directory.names(), [""; 0]);
    }
}

#[test]
fn a_path_is_taken_over_only_from_a_dead_socket() {
    let directory = Directory::new("stale");
    let path = directory.path("http.sock");
    drop(UnixListener::bind(&path).unwrap()); // A process that was killed leaves such a socket.
    // Another test's process may hold a copy of the descriptor until it begins its program.
    eventually(|| UnixStream::connect(&path).is_err());
    let living = Server::bind_unix(&path, 0o600).unwrap();
    let refused = |path: &Path, kind: ErrorKind| {
        let error = Server::bind_unix(path, 0o600).unwrap_err();
        assert_eq!(error.kind(), kind);
        let expected = format!("cannot listen on {}: ", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    };
    refused(&path, ErrorKind::AddrInUse); // A process serves the socket.
    let file = directory.path("notes.txt");
    fs::write(&file, "mine").unwrap();
    refused(&file, ErrorKind::AlreadyExists); // Not a socket: a file of the user's.
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    refused(&directory.path("no/http.sock"), ErrorKind::NotFound); // No such directory.
    // The file at the path when a server ends may belong to another server.
    fs::remove_file(&path).unwrap();
    let next = UnixListener::bind(&path).unwrap();
    drop(living);
    assert!(UnixStream::connect(&path).is_ok());
    drop(next);
}

#[test]
fn a_server_ends_although_its_path_leads_elsewhere() {
    let directory = Directory::new("moved");
    let path = directory.path("http.sock");
    let handle = site(Server::bind_unix(&path, 0o600).unwrap())
        .spawn()
        .unwrap();
    assert_eq!(connect(&path).get("/hello").text(), "hello\n");
    fs::remove_file(&path).unwrap();
    assert_eq!(handle.shutdown(Duration::from_secs(60)), Ok(()));
}

#[test]
fn a_proxy_on_a_unix_socket_is_trusted_where_the_loopback_address_is() {
    let directory = Directory::new("proxy");
    let path = directory.path("http.sock");
    for (trusted, expected) in [
        (vec![], "127.0.0.1:0 127.0.0.1"),
        (vec![[127, 0, 0, 1].into()], "127.0.0.1:0 192.0.2.1"),
    ] {
        let config = Config {
            trusted_proxies: trusted,
            ..Config::default()
        };
        let server = site(Server::bind_unix(&path, 0o600).unwrap()).config(config);
        let handle = server.spawn().unwrap();
        let mut client = connect(&path);
        client.request("GET", "/who", &[("X-Forwarded-For", "192.0.2.1")], b"");
        assert_eq!(client.answer().text(), expected);
        assert_eq!(handle.shutdown(Duration::from_secs(60)), Ok(()));
    }
}

const CHILD: &str = "TINY_SSE_TEST_STDIN";

/// Runs this test again in another process, which serves its standard input.
fn serve_in_another_process(test: &str, listener: OwnedFd) -> std::process::Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_listener_is_handed_over_as_standard_input() {
    if env::var_os(CHILD).is_some() {
        site(Server::from_stdin().unwrap()).run().unwrap();
        return;
    }
    let test = "a_listener_is_handed_over_as_standard_input";
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut process = serve_in_another_process(test, listener.into());
    let mut client = Client::connect(addr);
    assert_eq!(client.get("/hello").text(), "hello\n");
    process.kill().unwrap();
    process.wait().unwrap();

    let directory = Directory::new("stdin");
    let path = directory.path("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut process = serve_in_another_process(test, listener.into());
    assert_eq!(connect(&path).get("/who").text(), "127.0.0.1:0 127.0.0.1");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn standard_input_that_is_no_listener_is_an_error() {
    if env::var_os(CHILD).is_some() {
        let error = Server::from_stdin().unwrap_err().to_string();
        assert!(
            error.starts_with("cannot listen on standard input: "),
            "{error}"
        );
        return;
    }
    let test = "standard_input_that_is_no_listener_is_an_error";
    let null = fs::File::open("/dev/null").unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    for input in [OwnedFd::from(null), OwnedFd::from(socket)] {
        let mut process = serve_in_another_process(test, input);
        assert!(process.wait().unwrap().success());
    }
}

/// A process that ends with its test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs nginx"]
fn nginx_and_curl_use_a_unix_socket() {
    let directory = Directory::new("nginx");
    let path = directory.path("http.sock");
    let config = Config {
        trusted_proxies: vec![[127, 0, 0, 1].into()],
        ..Config::default()
    };
    // The workers of nginx may have another user.
    let server = site(Server::bind_unix(&path, 0o666).unwrap()).config(config);
    let handle = server.spawn().unwrap();

    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "60", "--unix-socket"])
        .arg(&path);
    let output = curl.arg("http://localhost/one").output().unwrap();
    let expected = ": connected\ndata: a\n\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);

    let free = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let main = directory.path("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {0}/pid; error_log stderr;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n\
         fastcgi_temp_path {0}/fastcgi; scgi_temp_path {0}/scgi; uwsgi_temp_path {0}/uwsgi;\n\
         upstream site {{ server unix:{1}; keepalive 4; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://site; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host localhost;\n\
         proxy_set_header X-Forwarded-For 192.0.2.1; }} }} }}\n",
        directory.0.display(),
        path.display()
    );
    fs::write(&main, text).unwrap();
    let nginx = Command::new("nginx").arg("-c").arg(&main).spawn().unwrap();
    let nginx = Running(nginx);
    eventually(|| net::TcpStream::connect(address).is_ok());
    let mut reader = EventSource::open(address, "/hub", &[]);
    let mut client = Client::connect(address);
    assert_eq!(client.get("/who").text(), "127.0.0.1:0 192.0.2.1");
    // Finite streams over the connections that nginx keeps: none of them ends a request of another client.
    for _ in 0..50 {
        assert_eq!(client.get("/one").text(), expected);
        let published = client.answer_after("POST", "/hub", b"b");
        assert_eq!((published.status(), reader.data().as_str()), (200, "b"));
    }
    drop(nginx);
    assert_eq!(handle.shutdown(Duration::from_secs(60)), Ok(()));
}
