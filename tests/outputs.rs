//! Compares the directories of `-o DIR` with those of `docker build -o`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;

use support::engine::{C28, D20, D28, Engine};
use support::image::base;
use support::machine::{Machine, Run};
use support::parts::part;

/// All below a directory: kind and mode, names of one file, where links lead, what is in files, and times where `timed`.
fn listed(root: &Path, timed: &dyn Fn(&str) -> bool) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, timed: &dyn Fn(&str) -> bool, out: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_file() { std::fs::read_to_string(&path).unwrap() } else { String::new() };
            let target = std::fs::read_link(&path).map(|to| to.display().to_string()).unwrap_or_default();
            let links = if metadata.is_file() { metadata.nlink() } else { 0 };
            let time = if timed(&name) { metadata.mtime() } else { 0 };
            let what = format!("{:o} {}:{} {links} {target} {content} {time}", metadata.mode(), metadata.uid(), metadata.gid());
            out.insert(name, what);
            if metadata.is_dir() {
                walk(root, &path, timed, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, timed, &mut out);
    out
}

/// A directory full of what is in the way, and what it must not touch beside it.
fn prepared(folder: &Path) {
    let (into, outside) = (folder.join("into"), folder.join("outside"));
    for directory in [outside.join("sub"), into.join("was-dir/deep"), into.join("both")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::fs::write(outside.join("file"), "untouched").unwrap();
    std::fs::set_permissions(&outside, PermissionsExt::from_mode(0o751)).unwrap();
    symlink(&outside, into.join("dir-link")).unwrap();
    symlink(outside.join("file"), into.join("file-link")).unwrap();
    std::fs::hard_link(outside.join("file"), into.join("hard")).unwrap();
    std::fs::write(into.join("was-dir/deep/x"), "").unwrap();
    std::fs::write(into.join("was-file"), "").unwrap();
    std::fs::write(into.join("both/stays"), "stays").unwrap();
    symlink("nowhere", into.join("was-link")).unwrap();
}

fn a_directory_is_as_docker_leaves_it(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    let make = "mkdir -p /out/dir-link/sub /out/was-file /out/both /out/was-link/in && cd /out && echo new | tee dir-link/sub/new \
                dir-link/file file-link hard was-dir was-file/a both/b was-link/in/c >/dev/null && ln was-file/a was-file/same && \
                ln -s /etc/passwd both/link && chmod 700 dir-link && chmod 555 was-file && chmod 4755 file-link && \
                chmod 1770 both && touch -d '2001-02-03 04:05:06' $(find /out)";
    machine
        .write("Dockerfile", &format!("FROM {} AS made\nRUN {make}\nFROM scratch\nCOPY --from=made /out /\n", base("busybox")));
    let [docker, hakobi] = ["by-docker", "by-hakobi"].map(|which| machine.home().join(which));
    prepared(&docker);
    prepared(&hakobi);
    let into = docker.join("into").display().to_string();
    let mut command = machine.command(part("HAKOBI_TEST_DOCKER_CLI"));
    let command = command.env("DOCKER_BUILDKIT", "1").args(["build", "--network", "host", "-o", &into, "."]);
    Run::of(command).exits(0);
    let into = hakobi.join("into").display().to_string();
    for _ in 0..2 {
        machine.hakobi(&["build", "--network", "host", "-o", &into, "."]).exits(0);
    }
    // Docker sets the time of a directory that was there before it puts files into it.
    let untimed = ["into/both", "into/both/link", "into/both/stays", "into/was-link"];
    let timed = |name: &str| name.starts_with("into/") && !untimed.contains(&name);
    let (ours, theirs) = (listed(&hakobi, &timed), listed(&docker, &timed));
    let relative = |listed: BTreeMap<String, String>, root: &Path| -> BTreeMap<String, String> {
        listed.into_iter().map(|(name, what)| (name, what.replace(&root.display().to_string(), ""))).collect()
    };
    assert_eq!(relative(ours, &hakobi), relative(theirs, &docker), "{name}");
    let both = hakobi.join("into/both").metadata().unwrap();
    assert_eq!(both.mtime(), hakobi.join("into/was-file").metadata().unwrap().mtime(), "a directory gets its time last");
}

#[test]
fn a_directory_is_as_docker_leaves_it_d20() {
    a_directory_is_as_docker_leaves_it(D20);
}

#[test]
fn a_directory_is_as_docker_leaves_it_d28() {
    a_directory_is_as_docker_leaves_it(D28);
}

#[test]
fn a_directory_is_as_docker_leaves_it_c28() {
    a_directory_is_as_docker_leaves_it(C28);
}
