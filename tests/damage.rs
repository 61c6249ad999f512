//! Tests caches with damaged objects or wrong records: the image is right, there is one warning, and the next run works as
//! before.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use hakobi::domain::Digest;
use serde_json::{Value, json};
use support::build::{Build, Built};
use support::engine::{D28, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;

fn project(machine: &Machine) {
    let text = format!(
        "FROM {}\nRUN cat /proc/sys/kernel/random/uuid > /one\nRUN echo two > /two\nCOPY src.txt /src.txt\nCMD [\"cat\", \"/src.txt\"]\n",
        base("busybox")
    );
    machine.write("Dockerfile", &text).write("src.txt", "one\n");
}

/// The pushed build of all these tests, with the cache at this place.
fn build<'a>(machine: &'a Machine, cache: &str, image: &str) -> Build<'a> {
    Build::new(machine).report("report.json").cache(cache).scope("main").push(image)
}

/// A run on an empty machine that pushes an image which says what its source says.
fn right(engine: &Engine, machine: &Machine, cache: &str, image: &str) -> Built {
    let built = build(machine, cache, image).done_on_empty(engine);
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", image]), machine.read("src.txt").trim());
    built
}

fn cache(machine: &Machine) -> PathBuf {
    machine.folder().join("../cache")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A copy of a store, which is put back as it was.
struct Copied(tempfile::TempDir, PathBuf);

impl Copied {
    fn of(store: PathBuf) -> Self {
        let copy = Self(tempfile::tempdir().unwrap(), store);
        copy_all(&copy.1, copy.0.path());
        copy
    }

    fn put_back(&self) {
        std::fs::remove_dir_all(&self.1).unwrap();
        copy_all(self.0.path(), &self.1);
    }
}

fn copy_all(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-aT").args([from, to]).status().unwrap();
    assert!(done.success());
}

/// A record as it is kept, with its key.
fn record(path: &Path) -> Value {
    let mut plain = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut plain).unwrap();
    serde_json::from_str(&plain).unwrap()
}

/// Changes all records with layers; the seal is then that of who knows how it is made.
fn lie(machine: &Machine, change: &dyn Fn(&mut Vec<Value>)) {
    for path in files(&cache(machine).join("steps/main")) {
        let mut value = record(&path);
        let Some(layers) = value["record"]["layers"].as_array_mut() else { continue };
        change(layers);
        let key = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = value["record"].to_string();
        value["seal"] = json!(Digest::hash(format!("hakobi record 2\nsha256:{key}\n{text}").as_bytes()).to_string());
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(value.to_string().as_bytes()).unwrap();
        std::fs::write(&path, packed.finish().unwrap()).unwrap();
    }
}

/// What is done to the layers of each record.
type Lie<'a> = &'a dyn Fn(&mut Vec<Value>);

#[test]
fn records_that_lie_are_misses() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = unique_image("lying");
    let right = || right(&engine, &machine, "../cache", &image);
    right();
    right().is("unchanged");
    let whole = Copied::of(cache(&machine));
    let swapped = |layers: &mut Vec<Value>| {
        if let [.., one, other] = &mut layers[..] {
            std::mem::swap(&mut one["diff_id"], &mut other["diff_id"]);
        }
    };
    let lies: [(&str, Lie<'_>); 7] = [
        ("a size of 2^64-1", &|layers| layers.iter_mut().for_each(|layer| layer["blob"]["size"] = json!(u64::MAX))),
        ("a size that is off by one", &|layers| {
            layers.iter_mut().for_each(|layer| layer["blob"]["size"] = json!(layer["blob"]["size"].as_u64().unwrap() + 1));
        }),
        ("diff IDs in another order", &swapped),
        ("a layer twice", &|layers| layers.extend(layers.last().cloned())),
        ("a layer less", &|layers| drop(layers.pop())),
        ("no layer", &Vec::clear),
        ("layers in another order", &|layers| layers.reverse()),
    ];
    for (what, change) in lies {
        for changed in [false, true] {
            whole.put_back();
            lie(&machine, change);
            machine.write("src.txt", if changed { what } else { "one\n" });
            let misled = right();
            assert_eq!(misled.warnings().len(), 1, "{what}, {changed}: {misled}");
            let next = right();
            assert_eq!((next.tier(), next.warnings()), ("unchanged", Vec::new()), "{what}, {changed}: {next}");
        }
    }
}

/// What is damaged is a miss, and is written anew.
#[test]
fn damage_costs_one_run() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = unique_image("damaged");
    let right = || right(&engine, &machine, "../cache", &image);
    right();
    let whole = Copied::of(cache(&machine));
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let blobs = |wanted: &dyn Fn(&[u8]) -> bool| -> Vec<PathBuf> {
        files(&cache(&machine).join("blobs/sha256")).into_iter().filter(|path| wanted(&std::fs::read(path).unwrap())).collect()
    };
    let holds = |bytes: &[u8], word: &str| String::from_utf8_lossy(bytes).contains(word);
    let pointer = || files(&files(&cache(&machine).join("refs"))[0])[0].clone();
    let damages: [(&str, &dyn Fn()); 9] = [
        ("an index", &|| blobs(&|bytes| holds(bytes, "\"manifests\"")).iter().for_each(|path| flip(path))),
        ("a manifest", &|| {
            blobs(&|bytes| holds(bytes, "\"layers\"") && holds(bytes, "\"config\"")).iter().for_each(|path| flip(path))
        }),
        ("a configuration", &|| blobs(&|bytes| holds(bytes, "\"rootfs\"")).iter().for_each(|path| flip(path))),
        ("layers", &|| blobs(&|bytes| bytes.starts_with(&[0x1f, 0x8b])).iter().for_each(|path| flip(path))),
        ("a pointer that is too large", &|| std::fs::write(pointer(), vec![b' '; 70 << 10]).unwrap()),
        ("a pointer that is none", &|| std::fs::write(pointer(), "{").unwrap()),
        ("an empty hakobi.json", &|| std::fs::write(cache(&machine).join("hakobi.json"), "").unwrap()),
        ("records", &|| files(&cache(&machine).join("steps/main")).iter().for_each(|path| flip(path))),
        ("empty records", &|| {
            files(&cache(&machine).join("steps/main")).iter().for_each(|path| std::fs::write(path, "").unwrap())
        }),
    ];
    for (what, damage) in damages {
        for changed in [false, true] {
            whole.put_back();
            damage();
            // A command, so that a state is brought to the daemon.
            let dockerfile = machine.read("Dockerfile");
            if changed {
                machine.write("Dockerfile", &dockerfile.replace("echo two", &format!("echo {what}")));
            }
            let damaged = right();
            // What nobody asks for is not found out.
            let told = damaged.warnings();
            assert!(told.len() <= 1, "{what}, {changed}: {damaged}");
            machine.hakobi(&["cache", "ls", "--cache", "../cache"]).exits(0);
            let next = right();
            assert_eq!((next.tier(), next.warnings()), ("unchanged", Vec::new()), "{what}, {changed}: {next}");
            // And a further step finds all that is below it.
            machine.write("Dockerfile", &machine.read("Dockerfile").replace("COPY", "RUN true\nCOPY"));
            let further = right();
            let again = if told.is_empty() { right() } else { further };
            assert_eq!(again.warnings(), [""; 0], "{what}, {changed}: {again}");
            machine.write("Dockerfile", &dockerfile);
        }
    }
}

/// Who only reads writes nothing, and a layout that is not known is never overwritten.
#[test]
fn damage_is_left_by_who_only_reads() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    let image = unique_image("read-only");
    right(&engine, &machine, "../cache", &image);
    let format = cache(&machine).join("hakobi.json");
    for (text, mode, left) in
        [("", "read-only", Some("")), ("", "read-write", None), ("{\"version\":99}", "read-write", Some("{\"version\":99}"))]
    {
        std::fs::write(&format, text).unwrap();
        let built = build(&machine, "../cache", &image).with(&["--cache-mode", mode]).done_on_empty(&engine);
        assert_eq!(built.warnings().len(), 1, "{text} {mode}");
        let now = std::fs::read_to_string(&format).unwrap();
        assert_eq!(now, left.unwrap_or("{\"version\":1}"), "{text} {mode}");
    }
}

/// The store does not give its layers, and the repository is new: the build runs again without the store.
#[test]
fn a_store_that_gives_no_layers_to_a_new_repository() {
    use http::Method;
    use support::s3::{BUCKET, Fault, S3Server};

    let engine = Engine::lock(D28);
    let server = S3Server::start();
    let machine = server.variables().iter().fold(Machine::with(&engine.host()), |machine, (key, value)| machine.set(key, value));
    project(&machine);
    let cache = format!("s3://{BUCKET}/new");
    let right = |name: &str| right(&engine, &machine, &cache, &unique_image(name));
    right("known");
    for source in ["one\n", "two\n"] {
        machine.write("src.txt", source);
        // Records come; blobs do not, neither whole nor in part.
        server.break_below("blobs/", Method::GET, Fault::SlowDown);
        let broken = right("new");
        assert_eq!(broken.warnings().len(), 1, "{broken}");
        assert!(broken.warnings()[0].contains("SlowDown"), "{broken}");
        server.mend();
        let next = right("newer");
        assert_eq!(next.warnings(), [""; 0], "{next}");
        assert_ne!(next.tier(), "cold", "{next}");
    }
}
