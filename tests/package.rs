//! Holds what Cargo.toml says: the oldest Rust, the version, and that every dependency is used.

#![allow(clippy::unwrap_used)]

mod source;

use std::fs;
use std::process::Command;

use serde_json::Value;

use source::{files, names_crate, root};

/// Used without being named: by a feature or a linker.
const UNNAMED: &[&str] = &[];

#[test]
fn the_oldest_rust_is_the_one_documented() {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    for file in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        assert!(read(file).contains(&format!("Rust {oldest}")), "{file} does not name Rust {oldest}, the oldest of Cargo.toml");
    }
    let output = Command::new("rustc").arg("--version").output().unwrap();
    let running = String::from_utf8(output.stdout).unwrap();
    let running = running.split_whitespace().nth(1).unwrap();
    assert!(numbers(oldest) <= numbers(running), "Cargo.toml asks for Rust {oldest}, this is {running}");
}

#[test]
fn no_dependency_needs_a_newer_rust() {
    let oldest = numbers(env!("CARGO_PKG_RUST_VERSION"));
    // Of this machine's platform: those of others may not be downloaded.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    for package in metadata(&["--filter-platform", &host])["packages"].as_array().unwrap() {
        let needs = package["rust_version"].as_str().unwrap_or("1");
        assert!(numbers(needs) <= oldest, "{} {} needs Rust {needs}", package["name"], package["version"]);
    }
}

#[test]
fn the_version_has_its_place_in_the_changelog() {
    assert!(read("CHANGELOG.md").contains(&format!("## [{}]", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn every_dependency_is_used() {
    let code = |folders: &[&str]| files(folders).iter().map(source::File::code).collect::<Vec<_>>().join("\n");
    let (program, tests) = (code(&["src"]), code(&["src", "tests", "benches"]));
    let mut unused = Vec::new();
    for dependency in metadata(&["--no-deps"])["packages"][0]["dependencies"].as_array().unwrap() {
        let name = dependency["rename"].as_str().or(dependency["name"].as_str()).unwrap();
        let code = if dependency["kind"] == "dev" { &tests } else { &program };
        if !UNNAMED.contains(&name) && !names_crate(code, &name.replace('-', "_")) {
            unused.push(name.to_owned());
        }
    }
    assert!(unused.is_empty(), "unused in Cargo.toml: {}", unused.join(", "));
}

fn metadata(arguments: &[&str]) -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    let output =
        cargo.args(["metadata", "--locked", "--format-version", "1"]).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn numbers(version: &str) -> Vec<u32> {
    let release = version.split('-').next().unwrap();
    let mut numbers: Vec<u32> = release.split('.').map(|number| number.parse().unwrap()).collect();
    numbers.resize(3, 0);
    numbers
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
