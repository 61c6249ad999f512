//! Checks Cargo.toml: the oldest Rust, the version, and that every dependency is used. Checks the content of a release.

#![allow(clippy::unwrap_used)]

mod source;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use saphyr::{LoadableYamlNode, Yaml};
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

/// `make dist` with compilers that only say that they compiled: its archives, and that their checksums are right.
#[test]
fn a_release_has_binaries_licenses_pages_and_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let (tools, target) = (folder.path().join("tools"), folder.path().join("target"));
    let libraries = |name: &str| folder.path().join(format!("sysroot/lib/rustlib/{name}-unknown-linux-musl/lib"));
    for name in ["x86_64", "aarch64"] {
        fs::create_dir_all(libraries(name)).unwrap();
        fs::write(libraries(name).join("libstd-0.rlib"), "").unwrap();
    }
    fs::create_dir_all(&tools).unwrap();
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", &rustc]).output().unwrap();
    let sysroot = folder.path().join("sysroot");
    program(
        &tools,
        "rustc",
        &format!(
            "[ \"$*\" != '--print sysroot' ] || {{ echo {}; exit; }}\nexec {} \"$@\"",
            sysroot.display(),
            String::from_utf8(found.stdout).unwrap().trim()
        ),
    );
    program(
        &tools,
        "cargo-zigbuild",
        "while [ $# -gt 1 ] && [ \"$1\" != --target ]; do shift; done\n[ -n \"$2\" ] || exit 0\n\
         mkdir -p \"$CARGO_TARGET_DIR/$2/release\" && echo \"for $2\" >\"$CARGO_TARGET_DIR/$2/release/hakobi\"",
    );
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let output = Command::new(root().join("release/run"))
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", &target)
        .env("HAKOBI", env!("CARGO_BIN_EXE_hakobi"))
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let dist = target.join("dist");
    let shell = |command: &str| {
        let output = Command::new("sh").args(["-ec", command]).current_dir(&dist).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let version = env!("CARGO_PKG_VERSION");
    let archives = ["aarch64", "x86_64"].map(|name| format!("hakobi-{version}-{name}-linux"));
    assert_eq!(shell("ls"), format!("SHA256SUMS\n{}.tar.gz\n{}.tar.gz\n", archives[0], archives[1]));
    assert_eq!(shell("sha256sum -c SHA256SUMS"), format!("{}.tar.gz: OK\n{}.tar.gz: OK\n", archives[0], archives[1]));
    for archive in &archives {
        let listed = shell(&format!("tar -tzf {archive}.tar.gz"));
        for file in [
            "hakobi",
            "LICENSE-MIT",
            "LICENSE-APACHE",
            "THIRD-PARTY-LICENSES",
            "README.md",
            "CHANGELOG.md",
            "man/hakobi-build.1",
            "completions/hakobi.bash",
        ] {
            assert!(listed.lines().any(|line| line == format!("{archive}/{file}")), "no {file} in {listed}");
        }
    }
    let texts = shell(&format!("tar -xzOf {}.tar.gz {}/THIRD-PARTY-LICENSES", archives[1], archives[1]));
    // What hakobi names itself, and what that names: each in the list, and above its text.
    let named = metadata(&["--no-deps"])["packages"][0]["dependencies"].as_array().unwrap().clone();
    let named =
        named.iter().filter(|dependency| dependency["kind"].is_null()).map(|dependency| dependency["name"].as_str().unwrap());
    for name in named.chain(["ring", "zstd-sys", "memchr"]) {
        let places =
            texts.lines().filter(|line| line.starts_with(&format!("{name} ")) || line.contains(&format!(", {name} "))).count();
        assert!(places >= 2, "{name} is {places} times there: in the list, and above its text");
    }
    for text in
        ["Permission is hereby granted, free of charge", "TERMS AND CONDITIONS FOR USE", "Rich Felker", "Rust standard library"]
    {
        assert!(texts.contains(text), "no `{text}`");
    }
}

fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_tag_makes_a_release_of_what_make_dist_makes() {
    let text = read(".github/workflows/release.yml");
    let documents = Yaml::load_from_str(&text).unwrap();
    let tags = documents[0]["on"]["push"]["tags"].as_sequence().unwrap();
    assert_eq!(tags.iter().map(|tag| tag.as_str().unwrap()).collect::<Vec<_>>(), ["v*"]);
    assert_eq!(documents[0]["permissions"]["contents"].as_str(), Some("write"));
    let steps = documents[0]["jobs"]["release"]["steps"].as_sequence().unwrap();
    let runs: Vec<_> = steps
        .iter()
        .filter(|step| step.as_mapping().unwrap().keys().any(|key| key.as_str() == Some("run")))
        .map(|step| step["run"].as_str().unwrap())
        .collect();
    let at = |part: &str| runs.iter().position(|run| run.contains(part)).unwrap_or_else(|| panic!("no step has `{part}`"));
    assert!(at("GITHUB_REF_NAME") < at("make dist") && at("make dist") < at("sha256sum -c SHA256SUMS"));
    let publish = runs[at("gh release create")];
    assert!(at("sha256sum -c SHA256SUMS") < at("gh release create"));
    assert!(publish.contains("target/dist/hakobi-*.tar.gz") && publish.contains("target/dist/SHA256SUMS"), "{publish}");
    // The commands that look at the project find what they look for.
    let version = env!("CARGO_PKG_VERSION");
    for (command, name) in [(runs[at("GITHUB_REF_NAME")].to_owned(), "the version"), (notes(publish), "the notes")] {
        let command = command.replace(">notes.md", "| grep -q '^- '");
        let status = Command::new("bash")
            .args(["-ec", &command])
            .env("GITHUB_REF_NAME", format!("v{version}"))
            .current_dir(root())
            .status()
            .unwrap();
        assert!(status.success(), "{name}: {command}");
    }
}

/// The line that takes a version's notes from the changelog.
fn notes(run: &str) -> String {
    run.lines().find(|line| line.contains("notes.md") && line.contains("awk")).unwrap().to_owned()
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
