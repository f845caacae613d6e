//! What a history in a file costs: acknowledged events a second for both durabilities, and the time that a large one takes
//! to open.
//!
//! `cargo bench --bench history` prints both tables; `cargo bench --bench history -- 1024` opens 1,024 MiB in place of 64.
//! The file is in the folder for temporary files, so the figures are those of its disk.

use std::time::{Duration, Instant};
use std::{env, fs, thread};

use tiny_sse::{Durability, Event, Hub, HubConfig};

fn main() {
    let mebibytes = env::args()
        .skip(1)
        .find_map(|word| word.parse().ok())
        .unwrap_or(64);
    let folder = env::temp_dir().join(format!("tiny-sse-history-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    let path = folder.join("history");
    println!("acknowledged events of 100 bytes a second");
    println!(
        "{:>10} {:>10} {:>10} {:>10}",
        "publishers", "memory", "Os", "Sync"
    );
    for publishers in [1, 8, 64] {
        let rates = [
            rate(HubConfig::default(), publishers),
            rate(
                HubConfig {
                    durability: Durability::Os,
                    history_file: Some(path.clone()),
                    ..HubConfig::default()
                },
                publishers,
            ),
            rate(
                HubConfig {
                    history_file: Some(path.clone()),
                    ..HubConfig::default()
                },
                publishers,
            ),
        ];
        println!(
            "{publishers:>10} {:>10.0} {:>10.0} {:>10.0}",
            rates[0], rates[1], rates[2]
        );
    }
    fs::remove_dir_all(&folder).expect("the folder is ours");
    fs::create_dir_all(&folder).expect("a folder for temporary files");

    let config = HubConfig {
        durability: Durability::Os,
        file_bytes: u64::MAX,
        history_file: Some(path.clone()),
        ..HubConfig::default()
    };
    let hub = open(config.clone());
    let text = "x".repeat(1000);
    for _ in 0..mebibytes * 1024 {
        hub.publish("a", Event::data(&text)).expect("an open hub");
    }
    hub.publish_wait("a", Event::data("last"))
        .expect("an open hub");
    drop(hub);
    let hub = open(config.clone());
    drop(hub);
    // A hub releases its file when its thread has ended.
    thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    let hub = open(config);
    let took = start.elapsed();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or("VmHWM: unknown");
    println!(
        "\n{mebibytes} MiB open in {:.2} s; {peak}",
        took.as_secs_f64()
    );
    drop(hub);
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

fn open(config: HubConfig) -> Hub {
    loop {
        match Hub::open(config.clone()) {
            Ok(hub) => return hub,
            // The hub before may take a moment to release the file.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Publishes for two seconds, each publisher the next event when its last one is acknowledged.
fn rate(config: HubConfig, publishers: usize) -> f64 {
    let hub = open(config);
    let text = "x".repeat(100);
    let start = Instant::now();
    let count: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..publishers)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while start.elapsed() < Duration::from_secs(2) {
                        hub.publish_wait("a", Event::data(&text))
                            .expect("an open hub");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    count as f64 / start.elapsed().as_secs_f64()
}
