//! Tests `.dockerignore` and wildcards of COPY: the image has the same files as that of `docker build`.
//!
//! `HAKOBI_RANDOM_SEED` sets another seed, `HAKOBI_RANDOM_ROUNDS` the number of rounds of the long tests, and
//! `HAKOBI_RANDOM_ENGINE` the engine.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use support::engine::{C28, D20, D28, Engine};
use support::machine::{Machine, Run};
use support::parts::part;

/// Names that patterns have to tell apart.
const NAMES: [&str; 24] = [
    "a", "b", "ab", "a.b", "abc", ".a", "<", "y>", "<y", "[x]", "a b", "^", "a$", "+b", "é", "\\", "a*b", "-", "d1", "{a}",
    "(b)", "&", "~", "a|b",
];

/// What patterns are made of, beside names.
const PIECES: [&str; 58] = [
    "*",
    "*",
    "*",
    "**",
    "**",
    "?",
    "?",
    "/",
    "/",
    "/",
    "/**",
    "**/",
    "a",
    "b",
    "\\<",
    "\\>",
    "\\a",
    "\\b",
    "\\d",
    "\\D",
    "\\w",
    "\\W",
    "\\s",
    "\\S",
    "\\B",
    "\\.",
    "\\*",
    "\\?",
    "\\[",
    "\\\\",
    "\\+",
    "\\_",
    "\\x61",
    "\\141",
    "\\1",
    "\\pL",
    "\\PL",
    "\\A",
    "\\z",
    "\\é",
    "\\Q",
    "\\E",
    "[<>y]",
    "[a-c]",
    "[^a]",
    "[^a-c]",
    "[é]",
    "[\\]x]",
    "[[x]",
    "[a\\-c]",
    "[&&a]",
    "[a~~b]",
    "[*]",
    "[?]",
    "[.]",
    "[[:alpha:]]",
    "[\\d]",
    "[z-a]",
];

fn name(random: &mut StdRng) -> &'static str {
    NAMES.choose(random).unwrap()
}

fn pattern(random: &mut StdRng) -> String {
    let mut out = String::new();
    for _ in 0..random.random_range(1..5) {
        out.push_str(if random.random_ratio(1, 2) { name(random) } else { PIECES.choose(random).unwrap() });
    }
    out
}

fn ignore_file(random: &mut StdRng) -> String {
    let mut out = String::new();
    for _ in 0..random.random_range(1..5) {
        let line = match random.random_range(0..8) {
            0 => "*".to_owned(),
            1 => format!("{}/{}", name(random), name(random)),
            2 => "**".to_owned(),
            _ => pattern(random),
        };
        let mark = ["", "", "", "!", "/", "./", "!/", "  "].choose(random).unwrap();
        out.push_str(&format!("{mark}{line}\n"));
    }
    out
}

fn tree(random: &mut StdRng, root: &Path) {
    for _ in 0..random.random_range(8..24) {
        let depth = random.random_range(1..=3);
        let parts: Vec<&str> = (0..depth).map(|_| name(random)).collect();
        let at = root.join(parts.join("/"));
        let _ = std::fs::create_dir_all(at.parent().unwrap());
        if random.random_ratio(1, 8) {
            let _ = std::os::unix::fs::symlink(name(random), &at);
        } else if !at.exists() {
            let _ = std::fs::write(&at, "x");
        }
    }
}

/// The paths of a tar that a build wrote, or what it said.
fn paths(run: &Run, tar: &Path) -> Result<BTreeSet<String>, String> {
    if run.code != 0 {
        return Err(run.stderr.clone());
    }
    let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
    let mut out = BTreeSet::new();
    for entry in archive.entries().unwrap() {
        out.insert(String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned());
    }
    std::fs::remove_file(tar).unwrap();
    Ok(out)
}

struct Builds {
    machine: Machine,
    docker: String,
}

impl Builds {
    fn on(engine: &Engine) -> Self {
        Self { machine: Machine::with(&engine.host()), docker: part("HAKOBI_TEST_DOCKER_CLI") }
    }

    /// By docker and by hakobi, of one context.
    fn both(&self) -> [Result<BTreeSet<String>, String>; 2] {
        let tar = self.machine.home().join("out.tar");
        let output = format!("type=tar,dest={}", tar.display());
        let mut docker = self.machine.command(&self.docker);
        let docker = Run::of(docker.env("DOCKER_BUILDKIT", "1").args(["build", "-o", &output, "."]));
        let docker = paths(&docker, &tar);
        let hakobi = self.machine.hakobi(&["build", "-o", &output, "."]);
        [docker, paths(&hakobi, &tar)]
    }

    fn empty(&self) {
        std::fs::remove_dir_all(self.machine.folder()).unwrap();
        std::fs::create_dir(self.machine.folder()).unwrap();
    }
}

fn rounds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str, default| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let seed = number("HAKOBI_RANDOM_SEED", 1);
    seed..seed + number("HAKOBI_RANDOM_ROUNDS", default)
}

fn engine() -> Engine {
    let name = std::env::var("HAKOBI_RANDOM_ENGINE").unwrap_or_default();
    Engine::fresh([D20, D28, C28].into_iter().find(|engine| *engine == name).unwrap_or(D28))
}

fn try_rounds(default: u64, dockerfile: impl Fn(&mut StdRng) -> (String, String)) {
    let engine = engine();
    let builds = Builds::on(&engine);
    let (mut equal, mut refused, mut different) = (0, 0, Vec::new());
    for seed in rounds(default) {
        let random = &mut StdRng::seed_from_u64(seed);
        builds.empty();
        tree(random, &builds.machine.folder());
        let (dockerfile, ignore) = dockerfile(random);
        builds.machine.write("Dockerfile", &dockerfile).write(".dockerignore", &ignore);
        let [docker, hakobi] = builds.both();
        match (&docker, &hakobi) {
            (Ok(docker), Ok(hakobi)) if docker == hakobi => equal += 1,
            (Err(_), Err(_)) => refused += 1,
            _ => {
                eprintln!("seed {seed}\n{dockerfile}\n{ignore}\ndocker: {docker:?}\nhakobi: {hakobi:?}\n");
                different.push(seed);
            }
        }
    }
    eprintln!("{}: {equal} equal, {refused} refused by both, {} different", engine.name(), different.len());
    assert!(different.is_empty(), "seeds {different:?}");
}

#[test]
#[ignore = "long: a fuzzer of .dockerignore against docker"]
fn long_ignored_files_are_dockers() {
    try_rounds(200, |random| ("FROM scratch\nCOPY . /\n".to_owned(), ignore_file(random)));
}

#[test]
#[ignore = "long: a fuzzer of COPY's wildcards against docker"]
fn long_copied_files_are_dockers() {
    try_rounds(100, |random| {
        let source = serde_json::json!([pattern(random), "/x/"]);
        (format!("FROM scratch\nCOPY {source}\n"), if random.random_ratio(1, 3) { ignore_file(random) } else { String::new() })
    });
}

/// Patterns that once meant something else here, or ended the build.
fn ignored_files_are_dockers(engine: &'static str) {
    let engine = Engine::lock(engine);
    let builds = Builds::on(&engine);
    for path in ["<", ">", "y>", "[x]", "d1", "dd", "a/<", "é", "ü/é", "^", "q"] {
        builds.machine.write(path, "x");
    }
    builds.machine.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    for ignore in [
        "\\<",
        "\\>",
        "[<>y]",
        "d\\d",
        "**/\\<",
        "\\é",
        "é",
        "**/é",
        "*\n![é]",
        "ü\n!ü/é",
        "[[:alpha:]]",
        "!\\y",
        "\\y",
        "[^*]",
        "[z-a]\n",
        "*\n![<q]",
        "[",
        "q*\\",
        "q*d\\",
        "*d\\",
        "d*[",
        "?1|y>",
        "[d]{2}",
        "?{1}",
        "*{2}",
    ] {
        builds.machine.write(".dockerignore", ignore);
        let [docker, hakobi] = builds.both();
        match (docker, hakobi) {
            (Ok(docker), hakobi) => assert_eq!(Ok(docker), hakobi, "{}: {ignore}", engine.name()),
            (Err(said), hakobi) => assert!(said.contains("syntax error") && hakobi.is_err(), "{ignore}: {said} {hakobi:?}"),
        }
    }
}

#[test]
fn ignored_files_are_dockers_on_d20() {
    ignored_files_are_dockers(D20);
}

#[test]
fn ignored_files_are_dockers_on_d28() {
    ignored_files_are_dockers(D28);
}

/// A source beyond ASCII is asked for alone, and what it is called comes with it.
#[test]
fn copied_names_beyond_ascii_are_dockers_on_d20() {
    let engine = Engine::lock(D20);
    let builds = Builds::on(&engine);
    for path in ["é", "ü/é", "q", "app/ö"] {
        builds.machine.write(path, "x");
    }
    std::os::unix::fs::symlink("../app/ö", builds.machine.folder().join("ü/link")).unwrap();
    for copy in ["é /", "é q /", "ü/ /x/", "ü/[é] /", "*/é /", "ü/link /", "ä /"] {
        builds.machine.write("Dockerfile", &format!("FROM scratch\nCOPY {copy}\n"));
        let [docker, hakobi] = builds.both();
        assert_eq!(docker.is_ok(), copy != "ä /", "{docker:?}");
        assert_eq!(docker.ok(), hakobi.ok(), "{copy}");
    }
}
