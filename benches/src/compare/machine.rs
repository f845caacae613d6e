//! What the system tells of a process and of the machine, most of it by `/proc`.

use std::{fs, process::Command, thread, time::Duration};

use nix::{time::ClockId, unistd::Pid};

/// Returns the processor time that a process has used, all its threads together, ended ones included; zero if the process has
/// ended.
pub fn cpu(process: u32) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.cast_signed()));
    let time = clock.and_then(ClockId::now).map(Duration::from);
    time.unwrap_or_default()
}

/// Returns a line of a process's status, such as `VmRSS:`, in bytes.
pub fn status(process: u32, name: &str) -> f64 {
    kibibytes(&format!("/proc/{process}/status"), name)
}

/// Returns what the kernel holds for itself: sockets, the stacks of threads, page tables.
pub fn kernel_memory() -> f64 {
    let line = |name| kibibytes("/proc/meminfo", name);
    line("Slab:") + line("KernelStack:") + line("PageTables:")
}

/// Returns the same once it no longer changes: the kernel frees the memory of what has ended a while later.
pub fn settled_kernel_memory() -> f64 {
    let mut before = kernel_memory();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(500));
        let now = kernel_memory();
        if (now - before).abs() < 256.0 * 1024.0 {
            break;
        }
        before = now;
    }
    kernel_memory()
}

fn kibibytes(path: &str, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    value.map_or(f64::NAN, |value| value * 1024.0)
}

/// What results depend on.
#[derive(Debug)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory: f64,
    pub kernel: String,
    pub rustc: String,
}

impl Machine {
    pub fn this() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let processor = model
            .and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        // Of a release such as 6.1.0-18-amd64, what says which kernel it is.
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel: Vec<&str> = release.trim().split(['.', '-']).take(2).collect();
        let rustc = Command::new("rustc").arg("--version").output();
        let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Machine {
            processor: processor.to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: kibibytes("/proc/meminfo", "MemTotal:"),
            kernel: kernel.join("."),
            rustc: rustc.unwrap_or_default(),
        }
    }
}
