//! Each fault of a cache, at each tier of a build: the image is right and there is at most one warning, or, if the cache is required,
//! the build that would have warned ends with exit code 4 and no new image.

use std::fs;
use std::path::{Path, PathBuf};

use crate::stages::{self, Next, copy_folder};
use crate::world::{World, all_files};

/// A fault, by its name.
type Fault = (&'static str, fn(&Path));

const FAULTS: &[Fault] = &[
    ("all of it is gone", |cache| drop(fs::remove_dir_all(cache))),
    ("a file is where its blobs were", |cache| {
        let folder = cache.join("blobs");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(cache).unwrap();
        fs::write(folder, "no directory").unwrap();
    }),
    ("its blobs are gone", |cache| blobs(cache).iter().for_each(|blob| fs::remove_file(blob).unwrap())),
    ("its blobs are damaged", |cache| blobs(cache).iter().for_each(|blob| flip(blob))),
    ("its blobs are cut off", |cache| blobs(cache).iter().for_each(|blob| cut_off(blob))),
    ("one layer is damaged", |cache| blobs(cache).iter().take(1).for_each(|blob| flip(blob))),
    ("its records are gone", |cache| records(cache).iter().for_each(|record| fs::remove_file(record).unwrap())),
    ("its records are damaged", |cache| records(cache).iter().for_each(|record| flip(record))),
    ("its records are cut off", |cache| records(cache).iter().for_each(|record| cut_off(record))),
    ("its records are empty", |cache| records(cache).iter().for_each(|record| fs::write(record, "").unwrap())),
    ("everything in it is damaged", |cache| all_files(cache).iter().for_each(|file| flip(file))),
    ("blobs are directories", |cache| {
        for blob in blobs(cache) {
            fs::remove_file(&blob).unwrap();
            fs::create_dir(&blob).unwrap();
        }
    }),
];

fn is_blob(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "blobs")
}

fn blobs(cache: &Path) -> Vec<PathBuf> {
    all_files(cache).into_iter().filter(|path| is_blob(path)).collect()
}

fn records(cache: &Path) -> Vec<PathBuf> {
    all_files(cache).into_iter().filter(|path| !is_blob(path)).collect()
}

/// Flips a bit in the middle.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    fs::write(file, bytes).unwrap();
}

fn cut_off(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

fn every_fault_at(next: Next) {
    let world = next.world();
    let kept = world.machine.home().join("kept");
    copy_folder(&world.cache(), &kept);
    for (name, fault) in FAULTS {
        let again = || {
            let _ = fs::remove_file(world.cache());
            let _ = fs::remove_dir_all(world.cache());
            copy_folder(&kept, &world.cache());
            fault(&world.cache());
            // Layers that its own registry has need not come from the cache.
            world.registry.forget("app");
            world.wiped();
        };
        again();
        let built = world.build(&[]);
        assert!(built.warnings().len() <= 1, "{next:?}, {name}: {:#?}", built.warnings());
        again();
        let required = world.try_build(&["--cache-required"]);
        if built.warnings().is_empty() {
            world.right(required.exits(0));
        } else {
            required.exits(4);
            assert_eq!(world.registry.tagged("app", "1"), None, "{next:?}, {name}: an image of a build that failed");
        }
        mended(&world, next, name);
    }
}

/// The next run has what the run with the fault left.
fn mended(world: &World, next: Next, name: &str) {
    if world.cache().join("blobs").is_file() {
        return;
    }
    world.wiped().build(&[]);
    let after = world.wiped().build(&[]);
    assert_eq!((after.tier(), after.warnings().len()), ("unchanged", 0), "{next:?}, {name}: {:#}", after.report);
}

#[test]
fn every_fault_of_the_cache_at_a_cold_build() {
    every_fault_at(Next::Cold);
}

#[test]
fn every_fault_of_the_cache_where_nothing_changed() {
    every_fault_at(Next::Unchanged);
}

#[test]
fn every_fault_of_the_cache_where_hakobi_appends() {
    every_fault_at(Next::Append);
}

#[test]
fn every_fault_of_the_cache_where_the_daemon_appends() {
    every_fault_at(Next::Skeleton);
}

#[test]
fn every_fault_of_the_cache_where_a_command_runs() {
    every_fault_at(Next::Partial);
}

#[test]
fn every_fault_of_the_cache_where_a_stage_decides() {
    every_fault_at(Next::Observed);
}

/// What the tables above stand on.
#[test]
fn each_way_goes_where_it_says() {
    for next in stages::ALL {
        let built = next.world().build(&[]);
        assert_eq!(built.tier(), next.tier(), "{next:?}: {:#}", built.report);
        assert_eq!(!built.ran.is_empty(), next.asks_daemon(), "{next:?}: {:?}", built.ran);
    }
}
