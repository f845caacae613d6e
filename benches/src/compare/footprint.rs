//! What a server costs before it runs: crates, build time, size. The smallest servers are in `footprint/`, a package
//! each.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Instant};

use crate::{
    rows::{Measured, Run},
    servers,
};

/// Small above all: this gives up the 500 after a handler's panic, which then ends the process.
const SMALL: [&str; 4] = [
    "profile.release.opt-level='z'",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic='abort'",
];

pub fn measure(run: &Run) -> Result<Measured, String> {
    let package = servers::package().join("footprint").join(run.server.name);
    let manifest = package.join("Cargo.toml");
    if !manifest.exists() {
        return Ok(Vec::new());
    }
    let target = servers::target_directory()
        .join("footprint")
        .join(run.server.name);

    let crates = crates(&manifest)?;
    let (seconds, default) = build(&manifest, &target, &[])?;
    let (_, small) = build(&manifest, &target, &SMALL)?;
    let _ = fs::remove_dir_all(&target);
    Ok(vec![
        ("footprint.crates".to_owned(), crates),
        ("footprint.build".to_owned(), seconds),
        ("footprint.default".to_owned(), default / 1024.0),
        ("footprint.small".to_owned(), small / 1024.0),
    ])
}

/// Returns how many crates are compiled for the smallest server, itself not counted. Their sources are there afterwards,
/// so that no build waits for the network.
fn crates(manifest: &Path) -> Result<f64, String> {
    cargo(&[
        "fetch",
        "--quiet",
        "--manifest-path",
        &manifest.to_string_lossy(),
    ])?;
    let tree = [
        "tree",
        "--prefix",
        "none",
        "--edges",
        "normal,build",
        "--no-dedupe",
        "--manifest-path",
    ];
    let tree = cargo(&[&tree[..], &[&manifest.to_string_lossy()]].concat())?;
    let name = |line: &str| {
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let crates: BTreeSet<String> = tree.lines().map(name).collect();
    Ok(crates.len() as f64 - 1.0)
}

/// Builds from nothing, and returns the seconds it took and the size of the program.
fn build(manifest: &Path, target: &Path, settings: &[&str]) -> Result<(f64, f64), String> {
    let _ = fs::remove_dir_all(target);
    let (manifest, target_text) = (manifest.to_string_lossy(), target.to_string_lossy());
    let mut arguments = vec![
        "build",
        "--release",
        "--quiet",
        "--manifest-path",
        &manifest,
        "--target-dir",
        &target_text,
    ];
    for setting in settings.iter().chain(&["profile.release.strip=true"]) {
        arguments.extend(["--config", setting]);
    }
    let start = Instant::now();
    cargo(&arguments)?;
    let seconds = start.elapsed().as_secs_f64();
    let size = fs::metadata(target.join("release/smallest")).map_err(|error| error.to_string())?;
    Ok((seconds, size.len() as f64))
}

fn cargo(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO")).args(arguments).output();
    let output = output.map_err(|error| format!("cargo: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
