//! Requests to the process that reads and fills cache mounts.

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use hakobi::commands::mount_process;

/// Sends the input to the process as it is, and its lines as frames: a message, and after a tab its payload. Nothing outside the mount
/// may change.
pub fn mounts(input: &[u8]) {
    ask(input.to_vec());
    let mut frames = Vec::new();
    for line in input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let at = line.iter().position(|byte| *byte == b'\t').unwrap_or(line.len());
        let (message, payload) = (&line[..at], line.get(at + 1..).unwrap_or_default());
        for length in [message.len(), payload.len()] {
            frames.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
        frames.extend_from_slice(message);
        frames.extend_from_slice(payload);
    }
    ask(frames);
}

fn ask(frames: Vec<u8>) {
    let parent = tempfile::tempdir().unwrap();
    let mount = parent.path().join("mount");
    fs::create_dir(&mount).unwrap();
    fs::write(mount.join("file"), "content").unwrap();
    fs::write(parent.path().join("outside"), "outside").unwrap();
    let mut output = Vec::new();
    let code = mount_process(&[mount], Cursor::new(frames), &mut output);
    assert!(code <= 1);
    let mut rest = &output[..];
    while !rest.is_empty() {
        let length = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        let (message, payload) = (length(0), length(4));
        serde_json::from_slice::<serde_json::Value>(&rest[8..8 + message]).expect("JSON");
        rest = &rest[8 + message + payload..];
    }
    let mut left: Vec<PathBuf> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    assert_eq!(left, ["mount", "outside"].map(|name| parent.path().join(name)));
    assert_eq!(fs::read(parent.path().join("outside")).unwrap(), b"outside");
}
