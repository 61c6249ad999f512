//! Checks every Dockerfile in the documents: real frontends compile it without a warning, and hakobi can cache each of its steps.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::engine::{D20, D28, Engine};
use support::image::base;
use support::machine::{Machine, Run};

/// A `dockerfile` block.
struct Snippet {
    /// The document and the line that it begins at.
    place: String,
    dockerfile: String,
}

/// Those of all documents.
fn snippets() -> Vec<Snippet> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = Vec::new();
    for folder in ["", "docs", "buildspec-examples", "benches"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let mut open: Option<Snippet> = None;
            for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
                match open.take() {
                    None if line.trim().eq_ignore_ascii_case("```dockerfile") => {
                        open = Some(Snippet { place: format!("{name}:{}", number + 1), dockerfile: String::new() });
                    }
                    None => {}
                    Some(snippet) if line.trim() == "```" => {
                        out.push(Snippet { dockerfile: whole(&snippet.dockerfile), ..snippet });
                    }
                    Some(snippet) => open = Some(Snippet { dockerfile: snippet.dockerfile + line + "\n", ..snippet }),
                }
            }
            assert!(open.is_none(), "{name}: a block without an end");
        }
    }
    assert!(!out.is_empty(), "there are blocks in docs/caching-recipes.md");
    out
}

/// A part of a Dockerfile gets a base. A `# syntax=` line goes: the daemon would pull that frontend from Docker Hub.
fn whole(snippet: &str) -> String {
    let is_syntax = |line: &str| line.replace(' ', "").to_ascii_lowercase().starts_with("#syntax=");
    let text: String = snippet.lines().filter(|line| !is_syntax(line)).flat_map(|line| [line, "\n"]).collect();
    let has_base = text.lines().any(|line| line.to_ascii_uppercase().starts_with("FROM "));
    if has_base { text } else { format!("FROM busybox\n{text}") }
}

/// The images that it names in `FROM` and `--from=`, with their lines; stages of its own are none.
fn images(dockerfile: &str) -> Vec<(usize, &str)> {
    let mut stages = vec!["scratch"];
    let mut images = Vec::new();
    for (number, line) in dockerfile.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let named = match words.split_first() {
            Some((first, rest)) if first.eq_ignore_ascii_case("FROM") => {
                rest.iter().copied().find(|word| !word.starts_with("--"))
            }
            _ => words.iter().copied().find_map(|word| word.strip_prefix("--from=")),
        };
        let is_stage = |name: &str| stages.contains(&name) || name.parse::<usize>().is_ok();
        images.extend(named.filter(|name| !is_stage(name)).map(|name| (number, name)));
        if let [.., word, stage] = words[..]
            && word.eq_ignore_ascii_case("AS")
        {
            stages.push(stage);
        }
    }
    images
}

/// The files of the context that it copies by name.
fn sources(dockerfile: &str) -> Vec<&str> {
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|rest| !rest.contains("--from="));
    let mut sources = Vec::new();
    for rest in copies {
        let mut words: Vec<&str> = rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        words.pop();
        sources.extend(words.into_iter().filter(|source| *source != "."));
    }
    sources
}

/// The frontend's own rules, with the tests' base in the place of every image.
fn checked(engine: &Engine, dockerfile: &str) -> Run {
    let machine = Machine::with(&engine.host());
    machine.write("Dockerfile", dockerfile);
    let base = base("busybox");
    let contexts: Vec<String> =
        images(dockerfile).into_iter().map(|(_, image)| format!("--build-context={image}=docker-image://{base}")).collect();
    let mut arguments = vec!["build", "--call", "check,format=json"];
    arguments.extend(contexts.iter().map(String::as_str));
    arguments.push(".");
    machine.hakobi(&arguments)
}

#[test]
fn docker_28_has_nothing_to_warn_of() {
    let engine = Engine::lock(D28);
    for Snippet { place, dockerfile } in snippets() {
        let run = checked(&engine, &dockerfile);
        assert_eq!(run.code, 0, "{place}\n{dockerfile}\n{}{}", run.stdout, run.stderr);
    }
    // It would find what is wrong.
    for (wrong, told) in [("FROM busybox\nCOPPY a /\n", "unknown instruction"), ("FROM busybox as stage\n", "FromAsCasing")] {
        let run = checked(&engine, wrong);
        assert_eq!(run.code, 1, "{wrong}\n{}{}", run.stdout, run.stderr);
        assert!(format!("{}{}", run.stdout, run.stderr).contains(told), "{wrong}\n{}{}", run.stdout, run.stderr);
    }
    // A person reads the other form.
    let machine = Machine::with(&engine.host());
    machine.write("Dockerfile", "FROM scratch\nCOPPY a /\n");
    let run = machine.hakobi(&["build", "--check", "."]).exits(1);
    assert!(run.stderr.contains("unknown instruction"), "{}{}", run.stdout, run.stderr);
}

/// The documents are for Docker 20.10 too, whose own frontend knows fewer words.
#[test]
fn docker_20_compiles_them_and_each_step_can_be_kept() {
    let engine = Engine::lock(D20);
    let base = base("busybox");
    for Snippet { place, dockerfile } in snippets() {
        let machine = Machine::with(&engine.host());
        for source in sources(&dockerfile) {
            machine.write(source, "a file\n");
        }
        // It knows no named contexts either: the tests' base stands in the lines themselves.
        let mut lines: Vec<String> = dockerfile.lines().map(str::to_owned).collect();
        for (number, image) in images(&dockerfile) {
            lines[number] = lines[number].replacen(image, &base, 1);
        }
        machine.write("Dockerfile", &(lines.join("\n") + "\n"));
        let run = machine.hakobi(&["plan", "--cache", "../cache", "--format", "json", "."]);
        assert_eq!(run.code, 0, "{place}\n{dockerfile}\n{}{}", run.stdout, run.stderr);
        let told: Value = serde_json::from_str(&run.stdout).unwrap();
        let steps = told["steps"].as_array().unwrap();
        assert!(!steps.is_empty() && steps.iter().all(|step| step["status"] == "miss"), "{place}: {told:#}");
    }
}
