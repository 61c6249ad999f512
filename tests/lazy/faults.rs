//! A disk that is damaged or cannot be read: the machine's daemon builds then, and the image is right.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::project::{Project, app_of, files};
use crate::support::engine::{D28, Engine};

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

/// Each damage, and what the run says of it.
const DAMAGES: [(&str, &str, Damage); 7] = [
    ("all chunks have a flipped bit", "is not possible", |_, _, chunks| chunks.iter().for_each(|path| flip(path))),
    ("all chunks are cut", "is not possible", |_, _, chunks| chunks.iter().for_each(|path| cut(path))),
    ("all chunks are gone", "is not possible", |_, _, chunks| chunks.iter().for_each(|path| fs::remove_file(path).unwrap())),
    ("a list is gone", "is not possible", |_, nodes, _| fs::remove_file(&nodes[0]).unwrap()),
    ("a list has a flipped bit", "is not possible", |_, nodes, _| flip(&nodes[0])),
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
    }
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
