//! What the README and the guide say outside of their programs is compared with the source: the tables of limits, the examples,
//! the files, and the tests that hold the promises.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tiny_sse::{Config, Durability, HubConfig};

#[test]
fn the_limits_of_a_server_are_all_told() {
    let config = Config::default();
    // Everything that has a name in the struct, so that none is forgotten.
    let Config {
        max_request_line_bytes,
        max_head_bytes,
        max_fields,
        max_body_bytes,
        head_timeout,
        body_timeout,
        idle_timeout,
        write_timeout,
        min_bytes_per_second,
        heartbeat,
        max_stream_lifetime,
        reconnect_spread,
        max_connections,
        max_threads,
        max_connections_per_address,
        trusted_proxies,
        thread_stack_bytes,
        accept_threads,
    } = config;
    assert!(max_stream_lifetime.is_none());
    assert!(max_connections_per_address.is_none() && trusted_proxies.is_empty());
    check(&[
        ("max_request_line_bytes", number(max_request_line_bytes)),
        ("max_head_bytes", bytes(max_head_bytes)),
        ("max_fields", number(max_fields)),
        ("max_body_bytes", bytes(max_body_bytes)),
        ("head_timeout", seconds(head_timeout)),
        ("body_timeout", seconds(body_timeout)),
        ("idle_timeout", seconds(idle_timeout)),
        ("write_timeout", seconds(write_timeout)),
        (
            "min_bytes_per_second",
            number(min_bytes_per_second as usize),
        ),
        ("heartbeat", seconds(heartbeat)),
        ("max_stream_lifetime", "none".to_string()),
        ("reconnect_spread", seconds(reconnect_spread)),
        ("max_connections", number(max_connections)),
        ("max_threads", number(max_threads)),
        ("max_connections_per_address", "none".to_string()),
        ("trusted_proxies", "none".to_string()),
        ("thread_stack_bytes", bytes(thread_stack_bytes)),
        ("accept_threads", number(accept_threads)),
    ]);
}

#[test]
fn the_limits_of_a_hub_are_all_told() {
    let HubConfig {
        history_events,
        history_age,
        history_bytes,
        history_file,
        durability,
        file_bytes,
        max_event_bytes,
        inbox_events,
        writer_threads,
        catch_up_threads,
        poll_timeout,
        max_polls,
        on_error: _,
    } = HubConfig::default();
    assert_eq!((history_age, history_file), (None, None));
    assert_eq!(durability, Durability::Sync);
    check(&[
        ("history_events", number(history_events)),
        ("history_age", "none".to_string()),
        ("history_bytes", bytes(history_bytes)),
        ("history_file", "none".to_string()),
        ("durability", "`Sync`".to_string()),
        ("file_bytes", bytes(file_bytes as usize)),
        ("max_event_bytes", bytes(max_event_bytes)),
        ("inbox_events", number(inbox_events)),
        ("writer_threads", number(writer_threads)),
        ("catch_up_threads", number(catch_up_threads)),
        ("poll_timeout", seconds(poll_timeout)),
        ("max_polls", number(max_polls)),
    ]);
}

/// The rows must be in the guide one after the other, in the order of the struct.
#[track_caller]
fn check(rows: &[(&str, String)]) {
    let guide = read("src/guide/limits.md");
    let mut lines = guide.lines();
    let (first, _) = rows[0];
    let start = format!("| `{first}` |");
    let mut line = lines.find(|line| line.starts_with(&start));
    for (name, value) in rows {
        let found = line.unwrap_or("the end");
        let expected = format!("| `{name}` | {value} | ");
        assert!(found.starts_with(&expected), "{expected}: {found}");
        line = lines.next();
    }
    assert_eq!(
        line,
        Some(""),
        "the guide has a row for a field that does not exist"
    );
}

#[test]
fn the_files_that_the_guide_names_are_there() {
    let mut files = 0;
    for page in [
        "README.md",
        "src/guide/source.md",
        "src/guide/security.md",
        "src/guide/from_scratch.md",
    ] {
        let text = read(page);
        let named = text.split('`').skip(1).step_by(2);
        for name in named.filter(|name| ["src/", "tests/"].iter().any(|dir| name.starts_with(dir)))
        {
            assert!(path(name).is_file(), "{page} names {name}");
            files += 1;
        }
    }
    assert!(files > 10, "only {files} files are named");
}

#[test]
fn the_tests_that_hold_the_promises_are_there() {
    let mut sources = String::new();
    let mut folders = vec![path("src"), path("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let readme = read("README.md");
    let (_, table) = readme
        .split_once("| promise | held by |\n| --- | --- |\n")
        .unwrap();
    let rows = table.lines().take_while(|line| line.starts_with("| "));
    let mut promises = 0;
    for row in rows {
        let test = row.trim_end_matches("` |").rsplit('`').next().unwrap();
        assert!(sources.contains(&format!("fn {test}(")), "no test {test}");
        promises += 1;
    }
    assert_eq!(promises, 9);
}

#[test]
fn the_examples_are_all_in_its_course() {
    let mut examples = BTreeSet::new();
    for entry in fs::read_dir(path("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs")
            || path.join("main.rs").is_file()
        {
            examples.insert(path.file_stem().unwrap().to_str().unwrap().to_string());
        }
    }
    let readme = read("README.md");
    let course = readme
        .split("\n## ")
        .find(|part| part.starts_with("Examples"))
        .unwrap();
    let names = course.split('`').skip(1).step_by(2);
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase());
    let told: BTreeSet<String> = names.filter(is_name).map(str::to_string).collect();
    assert_eq!(told, examples);
}

#[test]
fn the_architecture_tells_of_every_file() {
    let lib = read("src/lib.rs");
    let table: String = lib
        .lines()
        .filter(|line| line.starts_with("//! | `"))
        .collect();
    let mut folders = vec![path("src")];
    let mut missing = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                folders.push(file);
                continue;
            }
            let name = file.strip_prefix(path("src")).unwrap().with_extension("");
            let name = name.to_str().unwrap().replace('\\', "/");
            // A folder's own file lists the others, and rows of tests are no part of the crate.
            if name == "lib" || name.ends_with("/mod") || name == "http/vectors" {
                continue;
            }
            let folder = name.split_once('/').map_or("", |(folder, _)| folder);
            let forms = [
                format!("`{name}`"),
                format!("`{name}.js`"),
                format!("`{folder}/*`"),
            ];
            if !forms.iter().any(|form| table.contains(form)) {
                missing.push(name);
            }
        }
    }
    assert!(
        missing.is_empty(),
        "the table in src/lib.rs has no row for {missing:?}"
    );
}

/// The guide lists the clients that `tests/clients.rs` runs.
#[test]
fn the_guide_tells_of_the_clients_that_are_tried() {
    let guide = read("src/guide/clients.md");
    let manifest = read("tests/clients/package.json").replace(['"', ',', ' '], "");
    let requirements = read("tests/clients/requirements.txt").replace("==", ":");
    let dependencies = manifest.split_once("dependencies:{").unwrap().1;
    let packages = dependencies.lines().chain(requirements.lines());
    let mut count = 0;
    for (name, version) in packages.filter_map(|line| line.split_once(':')) {
        let told = |line: &str| line.contains(&format!("`{name}`")) && line.contains(version);
        assert!(guide.lines().any(told), "{name} {version}");
        count += 1;
    }
    assert!(count > 10, "only {count} packages");
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// `10000` is told as `10,000`.
fn number(value: usize) -> String {
    if value < 1000 {
        return value.to_string();
    }
    format!("{},{:03}", value / 1000, value % 1000)
}

/// Whole KiB and MiB.
fn bytes(value: usize) -> String {
    match value / 1024 {
        kib if kib >= 1024 * 1024 => format!("{} GiB", kib / 1024 / 1024),
        kib if kib >= 1024 => format!("{} MiB", kib / 1024),
        kib => format!("{kib} KiB"),
    }
}

fn seconds(value: Duration) -> String {
    format!("{} s", value.as_secs())
}
