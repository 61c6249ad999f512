//! Tests the real program on command lines that start no work.

#![allow(clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};

/// Runs hakobi with nothing of this machine's environment but PATH.
fn hakobi(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hakobi"))
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables.iter().copied())
        .current_dir(folder)
        .output()
        .expect("hakobi runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn version_and_help_go_to_standard_output() {
    let folder = tempfile::tempdir().expect("a directory");
    let version = hakobi(folder.path(), &["--version"], &[]);
    assert_eq!(text(&version.stdout), format!("hakobi {}\n", env!("CARGO_PKG_VERSION")));
    for (arguments, words) in [
        (&["--help"][..], &["build", "push", "promote", "login", "completions", "man", "Exit codes", "HAKOBI_IF_TAG_EXISTS"][..]),
        (&["build", "--help"], &["Input:", "Output:", "Registries:", "Cache:", "RUN steps:", "Display:", "--tag-commit"]),
        (&["push", "--help"], &["<IMAGE>...", "--if-tag-exists"]),
        (&["promote", "--help"], &["<SRC>", "[TAG]...", "--list"]),
        (&["login", "--help"], &["--write", "docker-credential-hakobi"]),
    ] {
        let help = hakobi(folder.path(), arguments, &[]);
        assert_eq!(help.status.code(), Some(0), "{arguments:?}");
        assert!(help.stderr.is_empty(), "{arguments:?}");
        for word in words {
            assert!(text(&help.stdout).contains(word), "{arguments:?} lacks {word}:\n{}", text(&help.stdout));
        }
    }
}

#[test]
fn later_releases_flags_are_not_promised() {
    let folder = tempfile::tempdir().expect("a directory");
    let help = text(&hakobi(folder.path(), &["build", "--help"], &[]).stdout);
    assert!(!help.contains("--attest-as"), "{help}");
}

#[test]
fn usage_errors_are_two_and_go_to_standard_error() {
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(folder.path().join("empty")).expect("made");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch").expect("written");
    for (arguments, variables, words) in [
        (&[][..], &[][..], &["Usage:"][..]),
        (&["build"], &[], &["requires a build context", "`.` is the current one"]),
        (&["build", "--wat", "."], &[], &["unexpected argument '--wat'"]),
        (&["build", "--push", "."], &[], &["a push requires a name", "-t HOST/NAME:TAG"]),
        (&["build", "empty"], &[], &["no Dockerfile at", "empty/Dockerfile"]),
        (&["build", "nothere"], &[], &["`nothere` does not exist"]),
        (&["build", "-q", "--progress=plain", "."], &[], &["cannot be used together"]),
        (&["build", "."], &[("DOCKER_CONTEXT", "gone"), ("HOME", "/nonexistent")], &["`gone`", "DOCKER_CONTEXT"]),
        (&["build", "."], &[("HAKOBI_PROGRESS", "loud")], &["invalid value 'loud'", "HAKOBI_PROGRESS"]),
        (&["build", "."], &[("BUILDX_BUILDER", "remote")], &["BUILDX_BUILDER selects the builder `remote`"]),
    ] {
        let output = hakobi(folder.path(), arguments, variables);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        for word in words {
            assert!(text(&output.stderr).contains(word), "{arguments:?} lacks {word}:\n{}", text(&output.stderr));
        }
        assert!(!text(&output.stderr).contains('\u{1b}'), "{arguments:?}: no colours without a terminal");
    }
}

#[test]
fn completions_are_scripts() {
    let folder = tempfile::tempdir().expect("a directory");
    let output = hakobi(folder.path(), &["completions", "bash"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("complete -F _hakobi"), "{}", text(&output.stdout));
    let checked = Command::new("bash").args(["-n", "-c", &text(&output.stdout)]).output().expect("bash runs");
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

/// The page of `hakobi` and some words, and of all commands that it names; returns their names.
fn pages(folder: &Path, words: &[&str]) -> Vec<String> {
    let output = hakobi(folder, &[&["man"], words].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output.stderr));
    let page = text(&output.stdout);
    let name = [&["hakobi"], words].concat().join("-");
    assert!(page.contains(&format!("\n.TH {name} 1 \"\" \"hakobi {}\" ", env!("CARGO_PKG_VERSION"))), "{page}");
    for broken in ["--", "`", "\nhakobi-"] {
        assert!(!page.contains(broken), "{name}: {broken:?} is not written as roff wants it:\n{page}");
    }
    let mut names = vec![words.join(" ")];
    for line in page.lines().map(|line| line.replace("\\-", "-")) {
        if let Some(command) = line.strip_prefix(&format!("{name}-")).and_then(|rest| rest.strip_suffix("(1)")) {
            names.extend(pages(folder, &[words, &[command]].concat()));
        }
    }
    names
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a directory");
    let help = text(&hakobi(folder.path(), &["--help"], &[]).stdout);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed: Vec<&str> =
        listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty()).collect();
    let pages = pages(folder.path(), &[]);
    assert!(listed.contains(&"build") && listed.contains(&"man"), "{help}");
    for name in listed.iter().chain(&["", "cache ls", "cache stat", "cache verify"]) {
        assert!(pages.iter().any(|page| page == name), "`{name}` has none: {pages:?}");
    }
    let build = text(&hakobi(folder.path(), &["man", "build"], &[]).stdout);
    for part in ["\\fBhakobi build\\fR [OPTIONS] CONTEXT", ".SH CACHE", "\\fB\\-\\-tag\\-commit\\fR", "(gadocker build\\(ga"] {
        assert!(build.contains(part), "no {part:?}:\n{build}");
    }
}
