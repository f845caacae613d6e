//! A socket that another process opened comes as standard input, as the guide has systemd do it.

#![cfg(unix)]

mod support;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use support::Client;
use tiny_sse::Server;

const CHILD: &str = "TINY_SSE_TEST_ACTIVATED";

#[test]
fn a_server_takes_its_socket_from_standard_input() {
    if std::env::var_os(CHILD).is_some() {
        let server = Server::from_stdin().unwrap();
        return server.get("/", |_request| "hello\n").run().unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let start = || {
        let socket = OwnedFd::from(listener.try_clone().unwrap());
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_server_takes_its_socket_from_standard_input"])
            .env(CHILD, "1")
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    // The client connects before any server runs, and again while the server restarts: it waits in the socket's queue.
    for _ in 0..2 {
        let mut client = Client::connect(addr);
        let mut server = start();
        assert_eq!(client.get("/").text(), "hello\n");
        server.kill().unwrap();
        server.wait().unwrap();
    }
}
