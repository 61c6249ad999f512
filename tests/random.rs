//! Tests random trees and COPY lines: an append gives the image of `docker build`, and fails if `docker build` fails.
//!
//! `HAKOBI_RANDOM_SEED` sets another seed, `HAKOBI_RANDOM_ROUNDS` the number of rounds of the long test, and
//! `HAKOBI_RANDOM_ENGINE` the only engine.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;
use support::plain::{Times, backdate, backdate_directories, now, plain_build, same_image};

/// Few names, so that what is copied meets what is there.
const NAMES: [&str; 8] = ["a", "b", "c d", "ä", ".e", "f.txt", "-x[1]", "g*"];
const MODES: [u32; 5] = [0o644, 0o755, 0o600, 0o4755, 0o1777];
const OWNERS: [&str; 6] = ["", "--chown=7:8 ", "--chown=app ", "--chown=app:99 ", "--chown=12 ", "--chown=:nobody "];

/// Flags that Docker 20.10's own frontend does not know.
const NEWER: [&str; 7] =
    ["--exclude=a", "--exclude=**/b*", "--chmod=600", "--chmod=755", "--chmod=u+x,go-r", "--chmod=a=rX", "--chmod=g+w"];

/// A path of up to three names.
fn path(random: &mut StdRng) -> String {
    let depth = random.random_range(1..=3);
    let parts: Vec<&str> = (0..depth).map(|_| *NAMES.choose(random).unwrap()).collect();
    parts.join("/")
}

fn quoted(path: &str) -> String {
    format!("'{path}'")
}

/// What the base has below `/t`: made by a command that takes whatever comes of each line.
fn base_commands(random: &mut StdRng) -> String {
    let mut commands = "mkdir -p /t".to_owned();
    for _ in 0..random.random_range(2..12) {
        let at = quoted(&format!("/t/{}", path(random)));
        let to = match random.random_range(0..3) {
            0 => format!("/t/{}", path(random)),
            1 => path(random),
            _ => format!("../{}", path(random)),
        };
        let mode = MODES.choose(random).unwrap();
        let line = match random.random_range(0..6) {
            0 | 1 => format!("mkdir -p {at}"),
            2 => format!(
                "mkdir -p {at}; chmod {mode:o} {at}; chown {}:{} {at}",
                random.random_range(0..9),
                random.random_range(0..9)
            ),
            3 => format!("mkdir -p $(dirname {at}); echo base > {at}"),
            _ => format!("mkdir -p $(dirname {at}); ln -sn {} {at}", quoted(&to)),
        };
        write!(commands, "; ({line}) 2>/dev/null").unwrap();
    }
    commands + "; true"
}

/// An archive of a few paths, compressed or not.
fn archive(random: &mut StdRng) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for _ in 0..random.random_range(1..5) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*MODES.choose(random).unwrap());
        header.set_uid(random.random_range(0..9));
        header.set_gid(random.random_range(0..9));
        header.set_mtime(1_500_000_000);
        header.set_size(0);
        let at = path(random);
        match random.random_range(0..5) {
            0 => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, format!("{at}/"), &b""[..]).unwrap();
            }
            1 => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, &at, path(random)).unwrap();
            }
            _ => {
                header.set_size(at.len() as u64);
                archive.append_data(&mut header, &at, at.as_bytes()).unwrap();
            }
        }
    }
    let bytes = archive.into_inner().unwrap();
    if random.random_bool(0.5) {
        return bytes;
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).unwrap();
    gzip.finish().unwrap()
}

/// Files below `s`; what is in the way stays.
fn sources(random: &mut StdRng, root: &Path) {
    std::fs::create_dir_all(root).unwrap();
    for _ in 0..random.random_range(3..10) {
        let at = root.join(path(random));
        let _ = std::fs::create_dir_all(at.parent().unwrap());
        match random.random_range(0..8) {
            0 => drop(std::fs::create_dir_all(&at)),
            1 => drop(symlink(path(random), &at)),
            2 => drop(std::fs::hard_link(root.join(path(random)), &at)),
            3 if !at.exists() => drop(std::fs::write(&at, archive(random))),
            _ => {
                if std::fs::write(&at, path(random)).is_ok() && at.symlink_metadata().unwrap().is_file() {
                    let mode = *MODES.choose(random).unwrap();
                    std::fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
                }
            }
        }
    }
}

fn copies(random: &mut StdRng, newer: bool) -> String {
    let mut lines = String::new();
    for _ in 0..random.random_range(1..=3) {
        let from = match random.random_range(0..5) {
            0 => "s/".to_owned(),
            1 => "s/*".to_owned(),
            2 => format!("s/{}*", path(random).chars().next().unwrap()),
            _ => format!("s/{}", path(random)),
        };
        let slash = if random.random_bool(0.4) || from.contains('*') { "/" } else { "" };
        let to = format!("/t/{}{slash}", path(random));
        match random.random_range(0..8) {
            0 => writeln!(lines, "WORKDIR {to}").unwrap(),
            kind => {
                let flag = if newer && random.random_bool(0.3) { NEWER.choose(random).unwrap() } else { "" };
                let word = if kind < 3 { "ADD" } else { "COPY" };
                writeln!(lines, "{word} {flag} {}[\"{from}\", \"{to}\"]", OWNERS.choose(random).unwrap()).unwrap();
            }
        }
    }
    lines
}

/// Other bytes in every file that is copied.
fn edit(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            edit(&entry.path());
        } else if entry.file_type().unwrap().is_file() {
            let mode = entry.metadata().unwrap().permissions();
            // A compressed archive stays one.
            let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
            std::fs::write(entry.path(), text + "edited\n").unwrap();
            std::fs::set_permissions(entry.path(), mode).unwrap();
            let edited = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
            std::fs::File::options().write(true).open(entry.path()).unwrap().set_modified(edited).unwrap();
        }
    }
}

/// Twice the same lines, with other bytes the second time: then hakobi lays the files down itself where it was right the first
/// time. Gives how each ended.
fn round(engine: &Engine, seed: u64) -> Vec<&'static str> {
    let random = &mut StdRng::seed_from_u64(seed);
    let machine = Machine::with(&engine.host());
    let (image, plain) = (unique_image("random"), unique_image("plain"));
    let (before, copies) = (base_commands(random), copies(random, engine.name() != D20));
    let head = format!("FROM {}\nRUN {before}\n", base("busybox"));
    machine.write(".dockerignore", "Dockerfile\n.dockerignore\n");
    let folder = machine.folder().join("s");
    sources(random, &folder);
    backdate(&folder, 2020);
    let since = now();
    // The base is kept, then files are laid on it.
    machine.write("Dockerfile", &format!("{head}COPY .dockerignore* /t0/\n"));
    let build = Build::cached(&machine).push(&image);
    build.done();
    engine.wipe();
    machine.write("Dockerfile", &format!("{head}{copies}"));
    let what = format!("{} seed {seed}: RUN {before}\n{copies}", engine.name());
    let mut ends = Vec::new();
    for _ in 0..2 {
        let ours = build.run();
        let theirs = plain_build(engine, &machine, &plain, &[]);
        assert_eq!(ours.code, theirs.code, "{what}\n{}\n---- plain\n{}", ours.stderr, theirs.stderr);
        if theirs.code != 0 {
            ends.push("refused");
            return ends;
        }
        let built = build.built(ours);
        same_image(engine, &image, &plain, Times::All, since, &format!("{what}\n{}", built.log()));
        ends.push(built.appended().unwrap_or_else(|| {
            let why = built.reasons().into_iter().filter(|why| why.contains("pulling its base image"));
            why.for_each(|why| eprintln!("{} seed {seed}: {why}", engine.name()));
            "on the base"
        }));
        edit(&folder);
        backdate_directories(&folder);
    }
    ends
}

fn rounds(name: &'static str, count: u64) {
    let engine = Engine::fresh(name);
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = variable("HAKOBI_RANDOM_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    let mut ends = std::collections::BTreeMap::<&str, u32>::new();
    for seed in first..first + count {
        for end in round(&engine, seed) {
            *ends.entry(end).or_default() += 1;
        }
    }
    eprintln!("{name}, seeds from {first}: {ends:?}");
}

#[test]
fn a_few_on_docker_20() {
    rounds(D20, 2);
}

#[test]
fn a_few_on_docker_28() {
    rounds(D28, 2);
}

#[test]
fn a_few_on_the_containerd_store() {
    rounds(C28, 2);
}

#[test]
#[ignore = "long"]
fn long_many_on_every_engine() {
    let count = std::env::var("HAKOBI_RANDOM_ROUNDS").map_or(50, |text| text.parse().unwrap());
    let chosen = std::env::var("HAKOBI_RANDOM_ENGINE").ok();
    for name in [D28, C28, D20] {
        if chosen.as_deref().is_none_or(|chosen| chosen == name) {
            rounds(name, count);
        }
    }
}
