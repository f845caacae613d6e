//! The pages of the examples in a real browser. Run it with `cargo test --test browser_pages -- --ignored`, after
//! `cargo build --examples`.
//!
//! The checks are in `browser/pages.js`. A page and its checks have one origin, because a proxy stands before both servers.

#[path = "support/browser.rs"]
mod browser;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use browser::{Browser, findings, proxy, script};
use tiny_sse::{Response, Server};

/// The paths of the server of the checks. The example answers all other requests.
const CHECKS: [&str; 4] = ["/checks", "/pages.js", "/check.js", "/findings"];

#[test]
#[ignore = "needs Chromium"]
fn every_page_can_be_read_and_looks_like_the_others() {
    for (page, next) in pages() {
        let example = Example::start(page);
        let (reports, findings) = findings();
        let html = format!(
            "<!doctype html><meta charset=utf-8><title>Checks</title>\
             <body data-page={page} data-next={next} data-token={}><script type=module src=/pages.js></script>",
            example.token,
        );
        let server = reports
            .serve(Server::bind("127.0.0.1:0").unwrap())
            .get("/checks", move |_request| Response::html(html.clone()))
            .get("/pages.js", |_request| {
                script(include_str!("browser/pages.js"))
            })
            .spawn()
            .unwrap();
        let (checks, page_itself) = (server.addr(), example.address);
        let proxy = proxy(move |head| {
            let path = head.split(' ').nth(1).unwrap_or_default();
            Some(if CHECKS.contains(&path) {
                checks
            } else {
                page_itself
            })
        });
        let browser = Browser::open(&format!("http://{proxy}/checks"));
        assert_eq!(findings.all_ok(&browser).len(), 4, "{page}");
    }
}

/// Returns the examples that have a page, each with the next one in the README's reading order.
fn pages() -> Vec<(&'static str, &'static str)> {
    let readme = include_str!("../README.md");
    let (_, readme) = readme.split_once("## Examples, in reading order").unwrap();
    let (course, _) = readme.split_once("`testbed`").unwrap(); // No lesson.
    let names = course.split('`').skip(1).step_by(2);
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase());
    let names: Vec<&str> = names.filter(is_name).collect();
    // The last one begins again.
    let pairs = names
        .iter()
        .copied()
        .zip(names.iter().copied().cycle().skip(1));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let pages: Vec<_> = pairs
        .filter(|(name, _)| folder.join(name).join("page.html").exists())
        .collect();
    assert!(pages.len() >= 10, "{pages:?}");
    pages
}

/// An example that serves on a free port until it is dropped.
struct Example {
    process: Child,
    address: SocketAddr,
    /// The token that it prints, or nothing.
    token: String,
}

impl Example {
    fn start(name: &str) -> Example {
        // Cargo puts this test into `deps`, and the examples beside that folder.
        let tests = env::current_exe().unwrap();
        let folder = tests.ancestors().nth(2).unwrap().join("examples");
        let mut process = Command::new(folder.join(name))
            .arg("0") // The port.
            .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}: run `cargo build --examples` first"));
        // Lines for the example `journal`; the others read nothing.
        let mut stdin = process.stdin.take().unwrap();
        let _ = stdin.write_all(b"one line\nanother line\n");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (mut token, mut address) = (String::new(), None);
        while address.is_none() {
            let line = lines.next().unwrap().unwrap();
            for mark in ["token ", "HUB_TOKEN="] {
                token = line.strip_prefix(mark).map_or(token, str::to_string);
            }
            let told = line.split_once("http://");
            address = told.map(|(_, address)| address.parse().unwrap());
        }
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Example {
            process,
            address: address.unwrap(),
            token,
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
