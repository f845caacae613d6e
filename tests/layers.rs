//! Dependencies between the files of `src/` point one way: each file's imports from the crate are compared with a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A file and what it may import from other folders. In the hub, it may import only those files of its own folder whose rows
/// are above its own, so that no two import each other.
#[rustfmt::skip] // A row is a line.
const LAYERS: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("random", &[]),
    ("lock", &[]),
    ("user_code", &[]),
    ("threads", &["lock", "user_code"]),
    ("event/line", &[]),
    ("event/encode", &[]),
    ("event/json", &[]),
    ("event/decode", &[]), // The two agree because each follows the specification.
    ("event/mod", &[]),
    ("connections", &["config", "lock", "user_code"]),
    ("socket", &["config", "connections"]),
    ("http/target", &[]), // HTTP knows nothing of events, except for one thing:
    ("http/request", &["config", "lock"]),
    ("http/head", &["config"]),
    ("http/body", &[]),
    ("http/forwarded", &[]),
    ("http/chunked", &[]),
    ("http/cookie", &[]),
    ("http/response", &["socket"]), // a stream is a closure that is given the socket.
    ("http/lines", &["socket"]),
    ("http/mod", &[]),
    ("client", &["event", "http", "random"]), // The server and the client have the grammar in common, and no more.
    ("router", &["http", "user_code"]),
    ("guard/secret", &[]), // Middleware that users could have written, and that no other file knows.
    ("guard/allow", &["http", "router"]),
    ("guard/cors", &["http", "router"]),
    ("guard/access", &["http", "router"]),
    ("guard/mod", &[]),
    ("guide/mod", &[]), // Pages of documentation.
    ("stream", &["event", "http", "random", "socket"]), // The loop, which knows no source of events, only their trait.
    ("sse", &["event", "http", "socket", "stream", "threads", "user_code"]),
    ("hub/topics", &[]),
    ("hub/id", &[]),
    ("hub/error", &["http"]),
    ("hub/frame", &["event", "http", "stream"]), // Chunks alone, as each event is encoded once for all readers.
    ("hub/archive", &["event"]),
    ("hub/config", &["user_code"]),
    ("hub/log", &["event", "http"]), // The log knows nothing of its readers.
    ("hub/record", &["http"]), // The bytes of a stream without chunks.
    ("hub/file", &["lock", "random", "user_code"]),
    ("hub/registry", &["lock"]),
    ("hub/shared", &["lock", "threads"]),
    ("hub/cursor", &["lock"]), // The plain half ends with the files that have a cursor:
    ("hub/receiver", &["event", "socket"]),
    ("hub/subscriber", &["http", "socket", "stream", "threads", "user_code"]),
    ("hub/poll", &["event", "http", "socket", "stream"]),
    ("hub/fast", &["connections", "lock", "socket", "stream", "threads"]), // The connections themselves, which a writer writes to.
    ("hub/subscription", &["event", "http", "socket", "stream"]),
    ("hub/hub_thread", &["event"]), // The hub thread knows nothing of readers either.
    ("hub/follow", &[]),
    ("hub/mod", &["event", "http", "random"]), // Not server: a hub is fed and read without one.
    ("connection", &["http", "random", "router", "socket"]), // Not sse: a stream is a response.
    ("testing", &["client", "config", "connections", "event", "http", "socket", "threads"]),
    ("listener", &[]),
    ("server", &["config", "connection", "connections", "http", "listener", "lock", "router", "socket", "threads", "user_code"]), // No file imports the server.
];

#[test]
fn imports_point_one_way() {
    let mut table: BTreeMap<&str, BTreeSet<&str>> = LAYERS
        .iter()
        .map(|(file, imports)| (*file, imports.iter().copied().collect()))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in files(&root) {
        let name = file.strip_suffix(".rs").unwrap();
        if name == "lib" || is_test(&root, &file) {
            continue;
        }
        let Some(allowed) = table.remove(name) else {
            wrong.push(format!("src/{file} has no row in the table"));
            continue;
        };
        let text = fs::read_to_string(root.join(&file)).unwrap();
        for (line, sibling) in imports(&text, &["super::", "self::"]) {
            if !stands_above(name, &sibling) {
                wrong.push(format!("src/{file}:{line} may not import {sibling}"));
            }
        }
        let found = imports(&text, &["crate::"]);
        for (line, module) in &found {
            if !allowed.contains(&**module) {
                wrong.push(format!("src/{file}:{line} may not import {module}"));
            }
        }
        for module in allowed {
            if !found.iter().any(|(_, found)| found == module) {
                wrong.push(format!("src/{file} does not import {module} any more"));
            }
        }
    }
    for name in table.keys() {
        wrong.push(format!("src/{name}.rs is gone"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a file of the same folder has its row above this one's.
fn stands_above(name: &str, sibling: &str) -> bool {
    let Some((folder @ "hub", _)) = name.split_once('/') else {
        return true;
    };
    let row = |name: &str| LAYERS.iter().position(|(file, _)| *file == name);
    row(&format!("{folder}/{sibling}")).is_some_and(|above| Some(above) < row(name))
}

/// `http/*` reads from any reader and writes to any writer: only these files know what a socket is.
#[test]
fn sockets_appear_where_they_belong() {
    const KNOW: [&str; 5] = [
        "client.rs",
        "listener.rs",
        "connections.rs",
        "socket.rs",
        "testing.rs",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&root) {
        if is_test(&root, &file) {
            continue;
        }
        let text = fs::read_to_string(root.join(&file)).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let knows = code
            .lines()
            .any(|line| !line.trim_start().starts_with("//") && line.contains("TcpStream"));
        assert!(!knows || KNOW.contains(&&*file), "src/{file}");
    }
}

/// 32-bit PowerPC, MIPS and ARMv5 have no atomic operations on 64 bits, so std has no such types there.
#[test]
fn no_atomic_has_64_bits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&root) {
        let text = fs::read_to_string(root.join(&file)).unwrap();
        for (line, text) in (1..).zip(text.lines()) {
            let found = ["AtomicU64", "AtomicI64"]
                .iter()
                .any(|name| text.contains(name));
            assert!(!found, "src/{file}:{line}: {text}");
        }
    }
}

/// The `.rs` files below a folder, by their path in it.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let path = path.strip_prefix(root).unwrap();
                found.insert(path.to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found
}

/// Whether the folder's `mod.rs` takes this file for tests alone.
fn is_test(root: &Path, file: &str) -> bool {
    let path = root.join(file);
    let Ok(text) = fs::read_to_string(path.with_file_name("mod.rs")) else {
        return false;
    };
    let module = format!("mod {};", path.file_stem().unwrap().to_str().unwrap());
    let mut attributes = Vec::new();
    for line in text.lines() {
        if line == module {
            return attributes.contains(&"#[cfg(test)]");
        }
        match line.starts_with("#[") {
            true => attributes.push(line),
            false => attributes.clear(),
        }
    }
    false
}

/// The modules that a file names after one of these prefixes, each with its line; tests at the file's end and comments aside.
fn imports(text: &str, prefixes: &[&str]) -> Vec<(usize, String)> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        for rest in prefixes
            .iter()
            .flat_map(|prefix| line.split(*prefix).skip(1))
        {
            let module: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            // `pub(in crate::a)` and `crate::{a, b}` are not used here; the latter would hide from this test.
            assert!(!module.is_empty(), "line {}: {line}", number + 1);
            found.push((number + 1, module));
        }
    }
    found
}
