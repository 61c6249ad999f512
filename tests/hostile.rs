//! Gives hakobi hostile bytes wherever it reads what others wrote: the seeds of `fuzz/seeds`, and mutations of them.
//!
//! The functions are in `hostile/targets`. The fuzzers of `fuzz/` call the same functions for as long as one wants.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "hostile/mutate.rs"]
mod mutate;
#[path = "hostile/seeds/mod.rs"]
mod seeds;
#[path = "hostile/targets/mod.rs"]
mod targets;

use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, Once};
use std::time::Duration;

use mutate::Mutator;
use targets::{ALL, Target};

/// How many mutated inputs to try of each target, instead of its own number.
const TRIES: &str = "HAKOBI_HOSTILE_TRIES";

/// The longest time of one input, for loops that no runtime can interrupt.
const LONGEST: Duration = Duration::from_secs(60);

/// The most memory of the whole program. An unoptimised one needs some 200 MiB.
const MOST_MEMORY: u64 = 1 << 30;

/// The names of the threads that panicked: a panic of a task reaches nobody. A test's own thread has the name of its target.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn seeds_of(target: &Target) -> Vec<Vec<u8>> {
    let folder = root().join("fuzz/seeds").join(target.name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs a target with one input. Panics with the path of a file that has the input if it fails.
fn give(target: &Target, input: &[u8], watch: &Mutex<Vec<u8>>) {
    *watch.lock().unwrap() = input.to_vec();
    let before = PANICS.lock().unwrap().len();
    let failed = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err();
    let is_of_this = |thread: &String| thread == target.name || !TESTED.contains(&thread.as_str());
    let panicked = PANICS.lock().unwrap().iter().skip(before).any(is_of_this);
    if failed || panicked {
        panic!("{} fails on {}: mend it, and put the input into fuzz/seeds/{}", target.name, kept(target, input), target.name);
    }
}

/// Writes an input to a file and returns its path.
fn kept(target: &Target, input: &[u8]) -> String {
    let digest = hakobi::domain::Digest::hash(input);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{}", target.name, &digest.hex()[..8]));
    fs::write(&path, input).unwrap();
    path.display().to_string()
}

/// Gives a target all its seeds and a number of mutations.
fn check(name: &str) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.lock().unwrap().push(std::thread::current().name().unwrap_or_default().to_owned());
            usual(info);
        }));
    });
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    let tries = std::env::var(TRIES).map_or(target.tries, |tries| tries.parse().unwrap());
    let watch = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let (alive, news) = channel();
        scope.spawn(|| {
            // A thread cannot be stopped, so the whole program ends.
            let news = news;
            loop {
                match news.recv_timeout(LONGEST) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        // The harness would capture what a macro prints.
                        let _ = writeln!(std::io::stderr(), "{name} hangs on {}", kept(target, &watch.lock().unwrap()));
                        std::process::exit(101);
                    }
                }
            }
        });
        let seeds = seeds_of(target);
        for seed in &seeds {
            give(target, seed, &watch);
            let _ = alive.send(());
        }
        let mut mutator = Mutator::new(name.bytes().fold(17, |sum, byte| sum * 31 + u64::from(byte)));
        for _ in 0..tries {
            give(target, &mutator.mutated(&seeds), &watch);
            let _ = alive.send(());
        }
    });
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(peak.is_none_or(|peak| peak << 10 < MOST_MEMORY), "{peak:?} KiB of memory");
}

macro_rules! tests {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

tests!(
    archive,
    compressed,
    credentials,
    definition,
    endpoint,
    ignore,
    index,
    layer,
    manifest,
    mounts,
    object,
    record,
    registry,
    upkeep
);

#[test]
fn every_target_has_a_test_a_fuzzer_and_seeds() {
    let names: Vec<&str> = ALL.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for target in ALL {
        let name = target.name;
        let text = fs::read_to_string(root().join(format!("fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("targets::{name}(input)")), "fuzz/fuzz_targets/{name}.rs");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not name {name}");
        assert!(!seeds_of(target).is_empty());
    }
}

#[test]
#[ignore = "writes fuzz/seeds again: cargo test --test hostile write_the_seeds -- --ignored"]
fn write_the_seeds() {
    for (target, name, bytes) in seeds::all() {
        let folder = root().join("fuzz/seeds").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }
}
