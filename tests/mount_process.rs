//! Tests the real program as the process in a container with cache mounts: it needs nothing, and the next one cleans up after it.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// Starts the program without an environment, in the root directory.
fn start(mounts: &[&Path]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_hakobi"))
        .arg("mount-process")
        .args(mounts)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("hakobi starts")
}

fn ask(process: &mut Child, message: &Value, payload: &[u8]) {
    let message = message.to_string();
    let input = process.stdin.as_mut().unwrap();
    for length in [message.len(), payload.len()] {
        input.write_all(&u32::try_from(length).unwrap().to_be_bytes()).unwrap();
    }
    input.write_all(message.as_bytes()).unwrap();
    input.write_all(payload).unwrap();
}

fn answer(process: &mut Child) -> Value {
    let output = process.stdout.as_mut().unwrap();
    let mut lengths = [0; 8];
    output.read_exact(&mut lengths).unwrap();
    let mut message = vec![0; u32::from_be_bytes(lengths[..4].try_into().unwrap()) as usize];
    output.read_exact(&mut message).unwrap();
    assert_eq!(lengths[4..], [0; 4], "an answer without a payload");
    serde_json::from_slice(&message).unwrap()
}

/// Closes the process's input and returns its exit code.
fn end(mut process: Child) -> Option<i32> {
    drop(process.stdin.take());
    process.wait().unwrap().code()
}

fn entry(path: &str, kind: &str) -> Value {
    let mut entry = json!({"path": path, "kind": kind, "mode": 0o755, "uid": 0, "gid": 0, "modified": 5});
    if kind == "file" {
        entry["size"] = json!(2);
    }
    // The process of a test without root's rights cannot give files away.
    entry["uid"] = json!(own_uid());
    entry["gid"] = json!(own_gid());
    entry
}

fn own_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

fn own_gid() -> u32 {
    std::os::unix::fs::MetadataExt::gid(&std::fs::metadata("/proc/self").unwrap())
}

#[test]
fn a_killed_process_leaves_nothing_to_the_next_one() {
    let mount = tempfile::tempdir().unwrap();
    let incomplete = mount.path().join(".hakobi-incomplete");
    let fill = |process: &mut Child| {
        ask(process, &json!({"ask": "fill", "mount": 0}), b"");
        let entries = [entry("", "directory"), entry("d", "directory"), entry("d/one", "file"), entry("d/two", "file")];
        ask(process, &json!({"ask": "entries", "mount": 0, "entries": entries}), b"");
        ask(process, &json!({"ask": "data", "mount": 0, "file": 2, "offset": 0}), b"1\n");
    };
    let mut process = start(&[mount.path()]);
    fill(&mut process);
    while !incomplete.join("content/d/one").exists() {
        std::thread::yield_now();
    }
    process.kill().unwrap();
    assert_eq!(process.wait().unwrap().code(), None);
    assert!(incomplete.exists() && !mount.path().join("d").exists());

    let mut process = start(&[mount.path()]);
    ask(&mut process, &json!({"ask": "look", "mount": 0}), b"");
    let looked = answer(&mut process);
    assert_eq!((&looked["say"], &looked["is_empty"]), (&json!("looked"), &json!(true)));
    assert!(!incomplete.exists());
    fill(&mut process);
    ask(&mut process, &json!({"ask": "data", "mount": 0, "file": 3, "offset": 0}), b"2\n");
    ask(&mut process, &json!({"ask": "finish", "mount": 0}), b"");
    assert_eq!(answer(&mut process)["say"], json!("filled"));
    assert_eq!(end(process), Some(0));
    assert_eq!(std::fs::read_to_string(mount.path().join("d/two")).unwrap(), "2\n");
    assert!(!incomplete.exists());
}

#[test]
fn it_says_what_is_broken() {
    let mount = tempfile::tempdir().unwrap();
    let mut process = start(&[mount.path()]);
    ask(&mut process, &json!({"ask": "look", "mount": 1}), b"");
    assert_eq!(answer(&mut process), json!({"say": "broken", "why": "there is no mount 1"}));
    assert_eq!(end(process), Some(1));
    assert_eq!(end(start(&[mount.path()])), Some(0));
}
