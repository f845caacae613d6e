//! The figures of this machine, read from Linux's `/proc` and written as one JSON object.
//!
//! ```text
//! {
//!   "time_ms": 1767225600000,        when the figures were taken, in milliseconds since 1970
//!   "interval_ms": 1000,             the measured span before that, which rates and percentages are about
//!   "source": "machine",             or "process" without /proc, and then only the keys that are marked *
//!   "host": "vm",                    the machine's name
//!   "uptime_s": 86400,               * since the machine started, or with "process" this program
//!   "cpu_percent": [12.5, 0.0],      busy time of each core
//!   "memory_bytes": {"used": 1, "total": 2},                 used: not available without swapping
//!   "load": [0.52, 0.40, 0.31],      running and waiting processes, averages over 1, 5 and 15 minutes
//!   "network_bytes_per_s": {"received": 1.0, "sent": 2.0},   all network cards
//!   "disk_bytes_per_s": {"read": 1.0, "written": 2.0},       all drives
//!   "streams": 3,                    * open event streams of this server
//!   "late_ms": 0.07                  * how much too late the system woke the sampling thread
//! }
//! ```
//!
//! A key whose file cannot be read is left out, so no figure is made up. Each event says which span it covers, so a reader
//! that missed an event notices: the next span does not begin where the last one ended.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{fs, mem};

/// Turns counters into rates. It keeps the values of the counters from the last time.
pub(crate) struct Sampler {
    started: Instant,
    host: String,
    before: Counters,
}

impl Sampler {
    pub(crate) fn new() -> Sampler {
        // A host name has none of the characters that need escaping in JSON, so any other character is dropped.
        let plain = |c: &char| c.is_ascii_alphanumeric() || "-._".contains(*c);
        let name = read("/proc/sys/kernel/hostname").unwrap_or_default();
        Sampler {
            started: Instant::now(),
            host: name.chars().filter(plain).collect(),
            before: Counters::read(),
        }
    }

    /// Reads the figures, and returns them as JSON.
    pub(crate) fn take(&mut self, streams: usize, late: Duration) -> String {
        let before = mem::replace(&mut self.before, Counters::read());
        let now = &self.before;
        let span = now.at - before.at;
        let (source, uptime) = match (uptime(), &now.cores) {
            (Some(seconds), Some(_)) => ("machine", seconds),
            _ => ("process", self.started.elapsed().as_secs()),
        };

        let time = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let interval = span.as_millis();
        let host = &self.host;
        let late = late.as_secs_f64() * 1000.0;
        let mut json = format!(r#"{{"time_ms":{time},"interval_ms":{interval}"#);
        json += &format!(r#","source":"{source}","host":"{host}","uptime_s":{uptime}"#);
        if let (Some(before), Some(now)) = (&before.cores, &now.cores) {
            // `{:?}` of a list of finite numbers is a JSON array.
            let busy: Vec<f64> = growth(before, now).map(percent).collect();
            json += &format!(r#","cpu_percent":{busy:.1?}"#);
        }
        if let Some([used, total]) = memory() {
            json += &format!(r#","memory_bytes":{{"used":{used},"total":{total}}}"#);
        }
        if let Some(load) = load() {
            json += &format!(r#","load":{load:.2?}"#);
        }
        if let (Some(before), Some(now)) = (&before.network, &now.network) {
            let [received, sent] = rates(before, now, span);
            let rates = format!(r#"{{"received":{received:.1},"sent":{sent:.1}}}"#);
            json += &format!(r#","network_bytes_per_s":{rates}"#);
        }
        if let (Some(before), Some(now)) = (&before.disk, &now.disk) {
            let [read, written] = rates(before, now, span);
            let rates = format!(r#"{{"read":{read:.1},"written":{written:.1}}}"#);
            json += &format!(r#","disk_bytes_per_s":{rates}"#);
        }
        json += &format!(r#","streams":{streams},"late_ms":{late:.2}}}"#);
        json
    }
}

/// Two counters for each device, with its name, so that a device that comes or goes makes no false jump.
type Devices = Vec<(String, [u64; 2])>;

struct Counters {
    at: Instant,
    cores: Option<Devices>,   // Clock ticks: busy, all.
    network: Option<Devices>, // Bytes: received, sent.
    disk: Option<Devices>,    // Bytes: read, written.
}

impl Counters {
    fn read() -> Counters {
        Counters {
            at: Instant::now(),
            cores: cores(),
            network: network(),
            disk: disk(),
        }
    }
}

/// Returns how much the counters of each device grew. The kernel's iowait may shrink, hence the saturation.
fn growth(before: &Devices, now: &Devices) -> impl Iterator<Item = [u64; 2]> {
    now.iter().filter_map(|(name, new)| {
        let (_, old) = before.iter().find(|(old_name, _)| old_name == name)?;
        Some([new[0].saturating_sub(old[0]), new[1].saturating_sub(old[1])])
    })
}

/// Returns the sum of all devices, per second.
fn rates(before: &Devices, now: &Devices, span: Duration) -> [f64; 2] {
    let sum = growth(before, now).fold([0, 0], |sum, grown| [sum[0] + grown[0], sum[1] + grown[1]]);
    sum.map(|bytes| bytes as f64 / span.as_secs_f64().max(0.001))
}

fn percent([busy, all]: [u64; 2]) -> f64 {
    100.0 * busy.min(all) as f64 / all.max(1) as f64
}

/// `cpu0 user nice system idle iowait irq softirq steal guest guest_nice`. User and nice include the guests.
fn cores() -> Option<Devices> {
    let text = read("/proc/stat")?;
    let core = |line: &str| {
        let (name, ticks) = numbers(line)?;
        let all = ticks.iter().take(8).sum();
        let busy = u64::saturating_sub(all, ticks.get(3)? + ticks.get(4)?);
        Some((name, [busy, all]))
    };
    // The first line is the sum of the cores. The lines after the cores are about other things.
    let lines = text.lines().skip(1);
    let lines = lines.take_while(|line| line.starts_with("cpu"));
    Some(lines.filter_map(core).collect())
}

/// `eth0: received-bytes packets errs drop fifo frame compressed multicast sent-bytes ...`
fn network() -> Option<Devices> {
    let text = read("/proc/net/dev")?;
    let card = |line: &str| {
        let (name, counts) = numbers(line)?;
        let name = name.trim_end_matches(':').to_owned();
        Some((name, [*counts.first()?, *counts.get(8)?]))
    };
    let mut cards: Devices = text.lines().skip(2).filter_map(card).collect();
    cards.retain(|(name, _)| name != "lo");
    // A bridge or tunnel counts again what a card has counted. A container has no card, so there all but the loopback count.
    let in_hardware = |(name, _): &(String, _)| is_hardware("/sys/class/net", name);
    if cards.iter().any(in_hardware) {
        cards.retain(in_hardware);
    }
    Some(cards)
}

/// `major minor vda reads merged sectors-read ms writes merged sectors-written ...`. A sector is always 512 bytes here.
fn disk() -> Option<Devices> {
    let text = read("/proc/diskstats")?;
    let drive = |line: &str| {
        let (name, counts) = numbers(&line[line.find(char::is_alphabetic)?..])?;
        Some((name, [counts.get(2)? * 512, counts.get(6)? * 512]))
    };
    let mut drives: Devices = text.lines().filter_map(drive).collect();
    // Only whole drives: partitions, loop devices and volumes are parts of one, and would count twice.
    drives.retain(|(name, _)| is_hardware("/sys/block", name));
    Some(drives).filter(|drives| !drives.is_empty())
}

fn memory() -> Option<[u64; 2]> {
    let text = read("/proc/meminfo")?;
    let fields: HashMap<String, Vec<u64>> = text.lines().filter_map(numbers).collect();
    let bytes = |name| Some(fields.get(name)?.first()? * 1024);
    let total: u64 = bytes("MemTotal:")?;
    Some([total.saturating_sub(bytes("MemAvailable:")?), total])
}

fn load() -> Option<Vec<f64>> {
    let text = read("/proc/loadavg")?;
    let averages = text.split(' ').take(3);
    averages.map(|number| number.parse().ok()).collect()
}

fn uptime() -> Option<u64> {
    read("/proc/uptime")?.split('.').next()?.parse().ok()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Returns the first word of a line, and the numbers after it.
fn numbers(line: &str) -> Option<(String, Vec<u64>)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?.to_owned();
    Some((name, words.map_while(|word| word.parse().ok()).collect()))
}

fn is_hardware(class: &str, name: &str) -> bool {
    Path::new(class).join(name).join("device").exists()
}
