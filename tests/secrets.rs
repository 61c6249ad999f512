//! Tests variables whose names look like secrets, on every engine: no output, no file and no record of a run contains their values.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Read as _;
use std::path::Path;

use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, unique_image};
use support::machine::{Machine, Run};

const TOKEN: &str = "canary-4711-token";
const OTHER: &str = "canary-0815-token";
const PASSWORD: &str = "canary-4712-password";
const DEFAULT: &str = "canary-4713-default";

/// Whatever was written outside of the image: its own layers and configuration are under `blobs`.
fn written(folder: &Path, out: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("blobs") {
            written(&path, out);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let mut plain = Vec::new();
            let unpacked = flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).is_ok();
            let text = String::from_utf8_lossy(if unpacked { &plain } else { &bytes }).into_owned();
            // Graphs are base64 in their records.
            let graph =
                text.split('"').filter_map(|part| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, part).ok());
            let graph: String = graph.map(|part| String::from_utf8_lossy(&part).into_owned()).collect();
            out.push((path.display().to_string(), format!("{} {text} {graph}", path.display())));
        }
    }
}

fn has_no_canary(machine: &Machine, run: &Run) {
    let files = ["report.json", "timeline.html", "summary.md", "metadata.json", "github-output", "github-summary"];
    let mut all = vec![("stdout".to_owned(), run.stdout.clone()), ("stderr".to_owned(), run.stderr.clone())];
    all.extend(files.map(|file| (file.to_owned(), std::fs::read_to_string(machine.home().join(file)).unwrap_or_default())));
    let records = all.len();
    written(&machine.home().join("cache"), &mut all);
    assert!(run.code != 0 || all.len() > records, "nothing was kept");
    for (name, text) in all {
        let found = text.match_indices("canary-").next().map(|(at, _)| {
            let from = (0..=at.saturating_sub(200)).rev().find(|from| text.is_char_boundary(*from)).unwrap();
            text[from..].chars().take(400).collect::<String>()
        });
        assert_eq!(found, None, "{name}");
    }
}

fn no_output_has_secrets(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host())
        .set("GITHUB_ACTIONS", "true")
        .set("GITHUB_OUTPUT", "../github-output")
        .set("GITHUB_STEP_SUMMARY", "../github-summary");
    let image = unique_image("secrets");
    let dockerfile = format!(
        "FROM {}\nARG API_TOKEN\nARG SIGNING_KEY={DEFAULT}\nENV DB_PASSWORD={PASSWORD}\nCOPY $API_TOKEN-file $SIGNING_KEY /a/\nWORKDIR /srv/$API_TOKEN\n\
         RUN : ${{API_TOKEN}} $DB_PASSWORD $SIGNING_KEY; test -n \"$API_TOKEN\"\nCOPY other /$DB_PASSWORD/\n",
        base("busybox")
    );
    machine.write("Dockerfile", &dockerfile).write("other", "1");
    machine.write(DEFAULT, "1").write(&format!("{TOKEN}-file"), "1").write(&format!("{OTHER}-file"), "1");
    let files = ["--timeline", "../timeline.html", "--summary", "../summary.md", "--metadata-file", "../metadata.json"];
    let build = Build::cached(&machine).scope("main").with(&files).push(&image);
    let run = |token: &str, more: &[&str]| {
        let run = build.clone().with(&["--build-arg", &format!("API_TOKEN={token}")]).with(more).run();
        has_no_canary(&machine, &run);
        run
    };
    let first = run(TOKEN, &["--progress", "plain"]).exits(0);
    assert!(first.stderr.contains("WORKDIR /srv/(hidden)"), "{}", first.stderr);
    for progress in ["plain", "tty", "rawjson", "quiet"] {
        machine.write("other", progress);
        run(TOKEN, &["--progress", progress]).exits(0);
    }
    for json in [false, true] {
        let argument = format!("API_TOKEN={OTHER}");
        let mut arguments = vec!["plan", "--network", "host", "--cache", "../cache", "--cache-scope", "main", "-t", &image];
        arguments.extend(["--build-arg", &argument]);
        arguments.extend(json.then_some("--format=json"));
        arguments.push(".");
        has_no_canary(&machine, &machine.hakobi(&arguments).exits(0));
    }
    run(OTHER, &[]).exits(0);
    // What BuildKit decides, and what it says of a build that fails.
    run(TOKEN, &["--strategy", "daemon", "--progress", "plain"]).exits(0);
    machine.write("Dockerfile", &format!("{dockerfile}COPY absent-$DB_PASSWORD /absent-$API_TOKEN\n"));
    for strategy in ["auto", "daemon"] {
        run(TOKEN, &["--strategy", strategy, "--progress", "plain"]).exits(1);
    }
}

#[test]
fn no_output_has_secrets_on_docker_20() {
    no_output_has_secrets(D20);
}

#[test]
fn no_output_has_secrets_on_docker_28() {
    no_output_has_secrets(D28);
}

#[test]
fn no_output_has_secrets_on_the_containerd_store() {
    no_output_has_secrets(C28);
}
