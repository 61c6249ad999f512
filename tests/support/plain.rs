//! The oracle: builds with plain `docker build` on an engine, and compares hakobi's image with the result.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::engine::{D20, Engine};
use super::image::{config, flattened, layers};
use super::machine::{Machine, Run};
use super::parts::part;

/// Builds the project of `machine` with `docker build` (BuildKit) on this engine, and pushes the image. The engine's cache is not
/// used. `--no-cache` runs each step. The client is new to the daemon, so the daemon cannot reuse files of an earlier context: it
/// would reuse a file with the same size and time.
pub fn plain_build(engine: &Engine, machine: &Machine, image: &str, more: &[&str]) -> Run {
    let client = tempfile::tempdir().unwrap();
    let docker = |arguments: &[&str]| {
        let mut command = machine.command(part("HAKOBI_TEST_DOCKER_CLI"));
        command.env("DOCKER_HOST", engine.host()).env("DOCKER_CONFIG", client.path()).env("DOCKER_BUILDKIT", "1");
        Run::of(command.args(arguments))
    };
    let build = ["build", "--no-cache", "--provenance=false", "--network", "host", "-t", image];
    let build = || docker(&[&build[..], more, &["."]].concat());
    let mut built = build();
    // Docker 28.5 with the containerd store sometimes removes the parent of a layer while it unpacks the layer.
    if built.code != 0 && built.stderr.contains("parent snapshot") && built.stderr.contains("does not exist") {
        built = build();
    }
    if built.code == 0 {
        docker(&["push", "-q", image]).exits(0);
    }
    built
}

/// The times to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// None, because the image may have files of an earlier build, with its times.
    No,
    /// The times of directories.
    Directories,
    /// All times.
    All,
}

/// Fails the test unless the two images have the same files and the same config. A time from `since` on, in seconds of the Unix
/// epoch, is the time of a build, and may differ.
///
/// Docker 20.10's file sync loses the time of a directory that is not empty, so that the directory gets the time of the build.
/// hakobi keeps the directory's own time (see [`backdate`]), like later versions.
#[track_caller]
pub fn same_image(engine: &Engine, ours: &str, plain: &str, times: Times, since: u64, what: &str) {
    let other = other_times(engine, ours, plain, times, since, what);
    assert!(other.is_empty(), "{what}: times {other:#?}");
}

/// Builds with `docker build`, and fails the test unless `ours` is the same, like [`same_image`], with the times of its directories.
/// A file that was touched is the same to BuildKit and to hakobi, so that an earlier build's may stand in for it. Where nothing but
/// times differ, `docker build` is asked once more: in thousands of builds Docker 28.5 left `/etc`, where it makes and removes mount points for
/// each `RUN`, once with the time of the base image.
#[track_caller]
pub fn same_as_plain(engine: &Engine, machine: &Machine, ours: &str, plain: &str, since: u64, what: &str) {
    plain_build(engine, machine, plain, &[]).exits(0);
    if !other_times(engine, ours, plain, Times::Directories, since, what).is_empty() {
        plain_build(engine, machine, plain, &[]).exits(0);
        same_image(engine, ours, plain, Times::Directories, since, what);
    }
}

/// A path, its time in our image, and that in the plain one if it is there.
type OtherTime = (String, Option<u64>, Option<Option<u64>>);

/// Returns the paths whose times differ. Fails the test if anything else does.
#[track_caller]
fn other_times(engine: &Engine, ours: &str, plain: &str, times: Times, since: u64, what: &str) -> Vec<OtherTime> {
    let (our_files, plain_files) = (flattened(ours), flattened(plain));
    let other: Vec<_> = our_files
        .iter()
        .filter(|(path, node)| plain_files.get(*path) != Some(node))
        .map(|(path, node)| (path, node, plain_files.get(path)))
        .collect();
    let missing: Vec<_> = plain_files.keys().filter(|path| !our_files.contains_key(*path)).collect();
    assert!(other.is_empty() && missing.is_empty(), "{what}: other {other:#?}, missing {missing:#?}");
    let (our_config, plain_config) = (config(ours), config(plain));
    assert_eq!(our_config, plain_config, "{what}");
    assert_eq!(layers(ours), layers(plain), "{what}");
    if times == Times::No {
        return Vec::new();
    }
    let (our_times, plain_times) = (modified(ours, times, since), modified(plain, times, since));
    let lost = |ours: Option<u64>, plain: Option<Option<u64>>| {
        engine.name() == D20 && plain == Some(None) && ours.is_some_and(|time| time % 60 == OF_DIRECTORIES)
    };
    let both = our_times.into_iter().map(|(path, time)| {
        let plain = plain_times.get(&path).copied();
        (path, time, plain)
    });
    both.filter(|(_, time, plain)| *plain != Some(*time) && !lost(*time, *plain)).collect()
}

/// Returns the times of an image's paths. `None` means the time of a build.
fn modified(image: &str, times: Times, since: u64) -> BTreeMap<String, Option<u64>> {
    let output = Command::new(part("HAKOBI_TEST_CRANE")).args(["export", image, "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut out = BTreeMap::new();
    for entry in tar::Archive::new(&output.stdout[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        if times == Times::All || entry.header().entry_type().is_dir() {
            let path = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
            out.insert(path, Some(entry.header().mtime().unwrap()).filter(|time| *time < since));
        }
        entry.read_to_end(&mut Vec::new()).unwrap();
    }
    out
}

/// Returns the current time, in seconds of the Unix epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The second of the time that [`backdate`] gives only to directories.
pub const OF_DIRECTORIES: u64 = 6;

/// Gives all directories and links below a directory one time, and all files another, in that year.
pub fn backdate(folder: &Path, year: u32) {
    backdate_directories(folder);
    dated(folder, &["!", "-type", "f", "!", "-type", "d"], 2019, 8);
    dated(folder, &["-type", "f"], year, 9);
}

/// Gives all directories the time that [`backdate`] gives them.
pub fn backdate_directories(folder: &Path) {
    dated(folder, &["-type", "d"], 2019, OF_DIRECTORIES);
}

fn dated(folder: &Path, kind: &[&str], year: u32, second: u64) {
    let time = format!("{year}-02-03 04:05:0{second} UTC");
    let status = Command::new("find").arg(folder).args(kind).args(["-exec", "touch", "-h", "-d", &time, "{}", "+"]).status();
    assert!(status.unwrap().success());
}
