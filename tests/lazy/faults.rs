//! A disk that is damaged or cannot be read: the machine's daemon builds then, and the image is right.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::project::{Project, app_of, files};
use crate::support::engine::{C28, D20, D28, Engine};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::s3::S3Server;
use crate::support::small::Small;

/// Damages a disk, given its record's file, its lists of chunks, and its chunks.
type Damage = fn(&Path, &[PathBuf], &[PathBuf]);

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// Each damage, and what the run says of it and does: a bad disk is thrown away.
const DAMAGES: [(&str, &str, Damage); 7] = [
    ("all chunks have a flipped bit", "is thrown away", |_, _, chunks| chunks.iter().for_each(|path| flip(path))),
    ("all chunks are cut", "is thrown away", |_, _, chunks| chunks.iter().for_each(|path| cut(path))),
    ("all chunks are gone", "is thrown away", |_, _, chunks| chunks.iter().for_each(|path| fs::remove_file(path).unwrap())),
    ("a list is gone", "is thrown away", |_, nodes, _| fs::remove_file(&nodes[0]).unwrap()),
    ("a list has a flipped bit", "is thrown away", |_, nodes, _| flip(&nodes[0])),
    // A record that cannot be read is none, and a new disk begins.
    ("the record is cut", "", |record, _, _| cut(record)),
    ("the record is gone", "", |record, _, _| fs::remove_file(record).unwrap()),
];

#[test]
fn a_damaged_disk_spoils_no_image() {
    let engine = Engine::lock(D28);
    for (what, says, damage) in DAMAGES {
        let mut project = Project::new(D28);
        project.build().done();
        let (record, nodes, chunks) = parts(&project);
        damage(&record, &nodes, &chunks);
        project.set("b.c", "b2\n");
        let built = project.build().on(&engine.host()).done();
        assert_eq!(app_of(project.image()), project.app(), "{what}: {built}");
        assert!(built.log().contains(says), "{what}: {built}");
        assert_eq!(project.left_behind(), [""; 0], "{what}");
        // The next one has a disk again.
        project.set("c.c", "c2\n");
        let next = project.build().on(&engine.host()).done();
        assert_eq!(app_of(project.image()), project.app(), "{what}: {next}");
        assert_eq!(next["engine"]["disk"]["kept"], true, "{what}: {next}");
    }
}

/// The disk that begins after a bad one is as good as the first.
#[test]
fn a_bad_disk_is_replaced_by_a_good_one() {
    let engine = Engine::lock(C28);
    let mut project = Project::new(C28);
    project.build().done();
    let (_, _, chunks) = parts(&project);
    chunks.iter().for_each(|path| flip(path));
    for (name, text) in [("b.c", "b2\n"), ("c.c", "c2\n")] {
        project.set(name, text);
        project.build_by("auto").on(&engine.host()).done();
    }
    project.set("d.c", "d2\n");
    let built = project.build_by("auto").on(&engine.host()).done();
    assert_eq!(project.compiled(&built), ["d.c"], "{built}");
    assert!(built["engine"]["disk"]["read"].as_u64() > Some(1_000_000), "{built}");
}

/// Chunks that do not come while a command reads them: the daemon is given up after half a minute, and the disk is kept.
#[test]
#[ignore = "long"]
fn long_a_store_that_stalls_ends_the_daemon_and_not_the_build() {
    let engine = Engine::lock(D28);
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.endpoint().trim_start_matches("http://"));
    let mut project = Project::on_s3(D28, &server, &proxy);
    project.large = Some(40 << 20);
    project.build().done();
    let (_, _, chunks) = parts(&project);
    let noise = chunks.iter().filter(|path| fs::metadata(path).unwrap().len() > 1_000_000);
    let noise: Vec<String> = noise.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(noise.len() > 20, "{}", noise.len());
    proxy.set(move |asked| {
        (asked.method == "GET" && noise.iter().any(|name| asked.target.contains(name))).then_some(Fault::Stall)
    });
    let disk = project.disk();
    project.set("b.c", "b2\n");
    let built = project.build().on(&engine.host()).done();
    assert!(built.log().contains("building again with the machine's"), "{built}");
    assert_eq!(app_of(project.image()), project.app(), "{built}");
    assert_eq!((project.left_behind(), project.disk()), (Vec::new(), disk));
    proxy.mend();
    project.set("c.c", "c2\n");
    let next = project.build().on(&engine.host()).done();
    assert!(next["engine"]["disk"]["read"].as_u64() > Some(1_000_000), "{next}");
    assert_eq!(app_of(project.image()), project.app(), "{next}");
}

/// The local copy of the disk has no room.
#[test]
fn a_full_temporary_directory_ends_the_daemon_and_not_the_build() {
    let engine = Engine::lock(D20);
    let mut project = Project::new(D20);
    project.build().done();
    let small = Small::mount(&project.temporary(), "24m");
    // More than there is room for, and the machine's daemon has it elsewhere.
    project.large = Some(40 << 20);
    let built = project.build().on(&engine.host()).done();
    // The kernel may write it only when the daemon stops.
    let noticed = ["building again with the machine's", "failed to save the daemon's disk"];
    assert!(noticed.iter().any(|words| built.log().contains(words)), "{built}");
    assert_eq!(app_of(project.image()), project.app(), "{built}");
    drop(small);
    assert_eq!(project.left_behind(), [""; 0]);
}

/// A chunk that nobody reads before a command does.
#[test]
fn a_chunk_that_is_damaged_while_a_command_reads_it_ends_the_daemon_and_not_the_build() {
    let engine = Engine::lock(D28);
    let mut project = Project::new(D28);
    // It is in the middle of the disk's data, in a mount that only the command reads.
    project.large = Some(40 << 20);
    project.build().done();
    let (_, _, chunks) = parts(&project);
    let noise: Vec<&PathBuf> = chunks.iter().filter(|path| fs::metadata(path).unwrap().len() > 1_000_000).collect();
    assert!(noise.len() > 20, "{}", noise.len());
    noise.into_iter().for_each(|path| flip(path));
    project.set("b.c", "b2\n");
    let built = project.build().on(&engine.host()).done();
    assert!(built.log().contains("building again with the machine's"), "{built}");
    assert_eq!(app_of(project.image()), project.app(), "{built}");
    assert_eq!(project.left_behind(), [""; 0]);
}

/// Returns the file of the record, the files of the lists, and those of the chunks.
fn parts(project: &Project) -> (PathBuf, Vec<PathBuf>, Vec<PathBuf>) {
    let (record, value) = project.disk_record().unwrap();
    let blob = |digest: &Value| project.cache().join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"));
    let nodes: BTreeSet<PathBuf> = value["record"]["disk"]["nodes"].as_array().unwrap().iter().map(blob).collect();
    let lists = nodes.iter().map(|node| serde_json::from_slice::<Vec<Value>>(&fs::read(node).unwrap()).unwrap());
    let chunks: BTreeSet<PathBuf> = lists.flatten().filter(|chunk| !chunk.is_null()).map(|chunk| blob(&chunk)).collect();
    assert!(files(project.cache()).len() > chunks.len() && !chunks.is_empty());
    (record, nodes.into_iter().collect(), chunks.into_iter().collect())
}
