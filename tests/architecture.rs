//! Checks the structure of `src`: which module may import which, and which operations only one module may perform.
//!
//! A new module needs a new row of `ROOMS`, and a new exception a line with its reason. tests/circles.rs checks the files.

#![allow(clippy::unwrap_used)]

mod source;

use source::{File, files, names_crate};

/// Values without I/O, for everyone.
const BOTTOM: &[&str] = &["redact", "debug", "shutdown", "domain", "error", "event", "hidden", "settings"];

/// Each room (`src/NAME/` or `src/NAME.rs`) and the rooms it may import besides itself, `+` adding to `BOTTOM`.
/// From the bottom up: a row names only rooms of rows before it.
const ROOMS: &[(&str, Imports)] = &[
    // Values.
    ("redact", Only(&[])),
    ("debug", Only(&[])),
    ("shutdown", Only(&[])),
    ("domain", Only(&[])),
    ("hidden", Only(&[])),
    ("error", Only(&["domain", "hidden"])),
    ("event", Only(&["redact", "domain", "error", "hidden"])),
    ("settings", Only(&["domain"])),
    // Pure, or streams of bytes.
    ("graph", Bottom(&[])),
    ("transfer", Bottom(&[])),
    ("aws", Bottom(&[])),
    // The world: files, the daemon, registries.
    ("build_context", Bottom(&["transfer"])),
    ("engine", Bottom(&["build_context", "transfer"])),
    ("registry", Bottom(&["transfer", "aws"])),
    ("remote", Bottom(&["registry"])),
    ("store", Bottom(&["transfer", "aws", "registry"])),
    ("disk", Bottom(&["transfer", "store"])),
    ("lazy_daemon", Bottom(&["transfer", "disk"])),
    ("docker_archive", Bottom(&["transfer"])),
    ("local_registry", Bottom(&["transfer", "store", "registry"])),
    ("mounts", Bottom(&["transfer", "build_context", "engine", "store"])),
    // Stages.
    ("layers", Bottom(&["graph", "transfer", "build_context"])),
    ("build", Bottom(&["graph", "transfer", "build_context", "engine", "registry"])),
    ("plan", Bottom(&["graph", "transfer", "build_context", "store", "disk", "mounts"])),
    ("push", Bottom(&["transfer", "registry", "local_registry"])),
    ("handover", Bottom(&["transfer", "registry", "docker_archive", "local_registry", "push"])),
    ("save", Bottom(&["graph", "transfer", "engine", "registry", "local_registry", "push", "handover"])),
    ("output", Bottom(&[])),
    // A build: what it has at hand, its plan, what is made of that, and what is remembered.
    (
        "cache",
        Bottom(&[
            "transfer",
            "aws",
            "build_context",
            "engine",
            "registry",
            "store",
            "disk",
            "local_registry",
            "layers",
            "plan",
            "mounts",
            "push",
            "handover",
            "output",
        ]),
    ),
    (
        "publish",
        Bottom(&["graph", "transfer", "engine", "registry", "local_registry", "push", "handover", "save", "output", "cache"]),
    ),
    (
        "run",
        Bottom(&["graph", "transfer", "engine", "registry", "local_registry", "build", "handover", "save", "output", "cache"]),
    ),
    (
        "planner",
        Bottom(&[
            "graph",
            "build_context",
            "engine",
            "registry",
            "remote",
            "local_registry",
            "build",
            "plan",
            "mounts",
            "handover",
            "cache",
            "run",
        ]),
    ),
    (
        "executor",
        Bottom(&[
            "graph",
            "transfer",
            "build_context",
            "engine",
            "registry",
            "docker_archive",
            "local_registry",
            "layers",
            "build",
            "plan",
            "mounts",
            "handover",
            "save",
            "cache",
            "publish",
            "run",
            "planner",
        ]),
    ),
    (
        "recorder",
        Bottom(&[
            "graph",
            "transfer",
            "build_context",
            "engine",
            "registry",
            "store",
            "layers",
            "plan",
            "mounts",
            "push",
            "handover",
            "save",
            "cache",
            "publish",
            "run",
            "planner",
            "executor",
        ]),
    ),
    ("commands", All),
    // The user.
    ("ci", Bottom(&[])),
    ("cli", Bottom(&["ci"])),
    ("main", All),
];

enum Imports {
    /// These.
    Only(&'static [&'static str]),
    /// These and `BOTTOM`.
    Bottom(&'static [&'static str]),
    /// Every room.
    All,
}
use Imports::{All, Bottom, Only};

impl Imports {
    fn allow(&self, room: &str) -> bool {
        match self {
            Only(rooms) => rooms.contains(&room),
            Bottom(rooms) => rooms.contains(&room) || BOTTOM.contains(&room),
            All => true,
        }
    }
}

/// Crates that belong to one room, and where else one of them may stand.
const CRATES: &[(&str, &[&str])] = &[
    ("bollard", &["src/engine/docker"]),
    // The graph is BuildKit's own messages as values; the build reads the details of a failed solve's status.
    (
        "bollard_buildkit_proto",
        &["src/engine/", "src/graph/", "src/plan/", "src/layers/", "src/build/failure.rs", "src/build/excerpt.rs"],
    ),
    ("nix", &["src/lazy_daemon/keeper.rs"]),
    ("prost", &["src/engine/", "src/graph/", "src/plan/inputs.rs", "src/build/failure.rs", "src/build/excerpt.rs"]),
    ("tonic", &["src/engine/", "src/build/"]),
    ("aws_config", &["src/aws.rs", "src/store/s3"]),
    ("aws_sdk_ecr", &["src/registry/ecr"]),
    ("aws_smithy_http_client", &["src/aws.rs"]),
    ("aws_sdk_s3", &["src/store/s3"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("console", &["src/output/"]),
    ("fuser", &["src/disk/serve.rs"]),
    ("tracing_subscriber", &["src/output/"]),
];

/// Who reads the environment.
const ENVIRONMENT: &[&str] = &[
    "src/cli/",
    "src/ci.rs",
    // `--secret env=NAME`: a secret is in no setting, but read when the daemon asks for it.
    "src/engine/buildkit/session/secrets.rs",
];

/// Who writes to the terminal.
const PRINTING: &[&str] = &[
    "src/output/",
    // What a script reads: help, completions, manual pages, a login.
    "src/main.rs",
    // `-o -`: a result that is itself standard output.
    "src/publish/outputs.rs",
    "src/commands/tarballs.rs",
];

const LONGEST: usize = 600;

#[test]
fn rooms_import_what_they_may() {
    let mut wrong = Vec::new();
    for file in files(&["src"]).iter().filter(|file| file.path != "src/lib.rs") {
        let room = room_of(&file.path);
        let Some((_, imports)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room `{room}` has no row in ROOMS", file.path));
            continue;
        };
        for imported in imported_rooms(file) {
            if imported != room && !imports.allow(&imported) {
                wrong.push(format!("{}: `{room}` may not import `{imported}`", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_points_one_way() {
    for (index, (room, imports)) in ROOMS.iter().enumerate() {
        let (Only(imported) | Bottom(imported)) = imports else { continue };
        for name in *imported {
            let before = ROOMS[..index].iter().any(|(row, _)| row == name);
            assert!(before, "`{room}` may import `{name}`, which has no row before it");
        }
    }
}

#[test]
fn crates_stay_in_their_rooms() {
    only_in("uses the crate", CRATES, names_crate);
}

#[test]
fn only_the_command_line_reads_the_environment() {
    only_in("reads the environment by", &[("env", ENVIRONMENT)], |code, _| {
        let code = code.replace("std::env::consts", "");
        code.contains("std::env") || code.contains("env::var") || code.contains("env::args")
    });
}

#[test]
fn only_the_report_prints() {
    only_in("prints by", &[("print", PRINTING)], |code, _| {
        let code = ["stdout().is_terminal", "stderr().is_terminal", "use_stderr()"]
            .iter()
            .fold(code.to_owned(), |code, asks| code.replace(asks, ""));
        ["print!", "println!", "dbg!", "stdout()", "stderr()"].iter().any(|what| code.contains(what))
    });
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for file in files(&["src", "tests", "benches"]) {
        let lines = file.text.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{}: {lines} lines, more than {LONGEST}: split it by purpose", file.path));
        }
        if !file.text.starts_with("//! ") {
            wrong.push(format!("{}: no `//!` of what belongs there on its first line", file.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let text = "use crate::domain::Digest;\nuse crate::{error::Error, push as p,\n    event::{self, Event}};\n// crate::cli\n\
        pub(in crate::registry) fn f(_: &crate::graph::Op) {}\nuse super::super::output::Handle;";
    let expected = ["domain", "error", "event", "graph", "output", "push", "registry"];
    assert_eq!(imported_rooms(&file("src/build/compile.rs", text)), expected);
    assert_eq!(imported_rooms(&file("src/registry/blob.rs", "use super::error::Error;")), [""; 0]);
    assert_eq!(imported_rooms(&file("src/main.rs", "use hakobi::cli::{self, Outcome};")), ["cli"]);
    assert!(names_crate("use tonic::Status;", "tonic") && names_crate("fn f(_: &::tonic::Status)", "tonic"));
    assert!(!names_crate("use bollard_buildkit_proto::pb;", "bollard") && !names_crate("use my::tonic::Status;", "tonic"));
}

/// No file names `what` outside the places (paths, or how they begin) that may.
fn only_in(does: &str, rules: &[(&str, &[&str])], found: impl Fn(&str, &str) -> bool) {
    let mut wrong = Vec::new();
    for file in files(&["src"]) {
        let code = file.code();
        for (what, places) in rules {
            if found(&code, what) && !places.iter().any(|place| file.path.starts_with(place)) {
                wrong.push(format!("{} {does} `{what}`, as only these may: {}", file.path, places.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn room_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

/// The rooms that a file names by `crate::…`, `hakobi::…` or a chain of `super::` up to the root; sorted, each once.
fn imported_rooms(file: &File) -> Vec<String> {
    let code = file.code();
    let mut rooms = Vec::new();
    for start in ["crate::", "hakobi::"] {
        for (at, _) in code.match_indices(start) {
            rooms.extend(first_names(&code[at + start.len()..]));
        }
    }
    // A file's depth below the root: 2 for src/a/b.rs and 1 for src/a/mod.rs.
    let depth = file.path.trim_end_matches("/mod.rs").matches('/').count();
    for (at, _) in code.match_indices(&"super::".repeat(depth)) {
        let rest = code[at..].trim_start_matches("super::");
        rooms.extend(first_names(rest).into_iter().filter(|name| ROOMS.iter().any(|(room, _)| room == name)));
    }
    rooms.sort();
    rooms.dedup();
    rooms
}

/// `a` of `a::b`; `a` and `c` of `{a::b, c::{d, e}}`.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut names = vec![word(group)];
    let mut depth = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}
