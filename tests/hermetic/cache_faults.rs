//! Tests each fault of a cache, at each tier of a build. The image is right, and there is at most one warning. If the cache is
//! required, the build that would have warned exits with 4, and pushes no wrong image.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::scripted::plain::same_image;
use crate::stages::{self, Next, copy_folder};
use crate::world::{World, all_files};

/// The name of a fault, and the function that causes it.
type Fault = (&'static str, fn(&Path));

const CUT_OFF: &str = "its blobs are cut off";
const UNREADABLE: &str = "a file is where its blobs were";

const FAULTS: &[Fault] = &[
    ("all of it is gone", |cache| drop(fs::remove_dir_all(cache))),
    (UNREADABLE, |cache| {
        let folder = cache.join("blobs");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(cache).unwrap();
        fs::write(folder, "no directory").unwrap();
    }),
    ("its blobs are gone", |cache| blobs(cache).iter().for_each(|blob| fs::remove_file(blob).unwrap())),
    ("its blobs are damaged", |cache| blobs(cache).iter().for_each(|blob| flip(blob))),
    (CUT_OFF, |cache| blobs(cache).iter().for_each(|blob| cut_off(blob))),
    ("one layer is damaged", |cache| blobs(cache).iter().take(1).for_each(|blob| flip(blob))),
    ("its records are gone", |cache| records(cache).iter().for_each(|record| fs::remove_file(record).unwrap())),
    ("its records are damaged", |cache| records(cache).iter().for_each(|record| flip(record))),
    ("its records are cut off", |cache| records(cache).iter().for_each(|record| cut_off(record))),
    ("its records are empty", |cache| records(cache).iter().for_each(|record| fs::write(record, "").unwrap())),
    ("everything in it is damaged", |cache| all_files(cache).iter().for_each(|file| flip(file))),
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

/// Flips a bit in the middle of a file.
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
            // hakobi does not need the cache for layers in the image's own registry.
            world.registry.forget("app");
            world.wiped();
        };
        again();
        let built = world.build(&[]);
        let most = match *name {
            // Reading, building and saving each find this fault.
            UNREADABLE => 3,
            // The size and then the bytes show this fault.
            CUT_OFF => 2,
            _ => 1,
        };
        assert!(built.warnings().len() <= most, "{next:?}, {name}: {:#?}", built.warnings());
        again();
        let required = world.try_build(&["--cache-required"]);
        if built.warnings().is_empty() {
            world.right(required.exits(0));
        } else {
            required.exits(4);
            // The save of a build comes after its push, and so does a fault there.
            if world.registry.tagged("app", "1").is_some() {
                same_image(&world.image(), &world.plain(), name);
            }
        }
        mended(&world, next, name);
    }
}

/// Checks that the cache is complete again after the next build.
fn mended(world: &World, next: Next, name: &str) {
    if world.cache().join("blobs").is_file() {
        return;
    }
    world.wiped().build(&[]);
    let after = world.wiped().build(&[]);
    assert_eq!(after.tier(), "unchanged", "{next:?}, {name}: {:#}", after.report);
    assert!(after.warnings().is_empty(), "{next:?}, {name}: {:?}", after.warnings());
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

/// The time and the bytes of a file. `None` is a directory.
type Content = Option<(SystemTime, Vec<u8>)>;

/// Returns everything below a directory.
fn listing(folder: &Path) -> Vec<(PathBuf, Content)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut all = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let file = path.is_file().then(|| (fs::metadata(&path).unwrap().modified().unwrap(), fs::read(&path).unwrap()));
        all.extend(listing(&path));
        all.push((path, file));
    }
    all.sort();
    all
}

/// A job that may only read leaves damage as it is, and warns of it.
#[test]
fn damaged_layers_and_records_are_left_by_who_only_reads() {
    let damages = FAULTS.iter().filter(|(name, _)| name.contains("damaged") || name.contains("cut off"));
    for next in [Next::Unchanged, Next::Append, Next::Skeleton, Next::Partial, Next::Observed] {
        let world = next.world();
        let kept = world.machine.home().join("kept");
        copy_folder(&world.cache(), &kept);
        for (name, fault) in damages.clone() {
            fs::remove_dir_all(world.cache()).unwrap();
            copy_folder(&kept, &world.cache());
            fault(&world.cache());
            world.registry.forget("app");
            world.wiped();
            let before = listing(&world.cache());
            let built = world.build(&["--cache-mode", "read-only"]);
            assert!(listing(&world.cache()) == before, "{next:?}, {name}: the cache changed");
            // A build does not read every layer, so it may not meet the one.
            let is_met = !built.warnings().is_empty() || *name == "one layer is damaged";
            assert!(is_met && built.warnings().len() <= 2, "{next:?}, {name}: {:#?}", built.warnings());
        }
    }
}

/// Checks the worlds that the tests above use.
#[test]
fn each_way_goes_where_it_says() {
    for next in stages::ALL {
        let built = next.world().build(&[]);
        assert_eq!(built.tier(), next.tier(), "{next:?}: {:#}", built.report);
        assert_eq!(!built.ran.is_empty(), next.asks_daemon(), "{next:?}: {:?}", built.ran);
    }
}
