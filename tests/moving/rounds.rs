//! Tests random changes to the context during a build.
//!
//! `HAKOBI_RANDOM_SEED` sets another seed, and `HAKOBI_RANDOM_ROUNDS` sets the number of rounds.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::engine::{C28, D20, D28, Engine};
use crate::support::image::{base, flattened, unique_image};
use crate::support::machine::Machine;
use crate::support::plain::plain_build;
use crate::{build, mode};

/// How often something happened, by what it was.
type Counts = BTreeMap<&'static str, usize>;

/// Does something to a folder at random, and tells what; what cannot be done is not.
fn anything(random: &mut StdRng, app: &Path) -> &'static str {
    let names = ["a", "b", "c", "d/a", "d/b", "d/e/a", "n"];
    let [one, other] = [(); 2].map(|()| app.join(names.choose(random).unwrap()));
    let done = |what: &'static str, _: std::io::Result<()>| what;
    match random.random_range(0..9) {
        0 => done("remove", std::fs::remove_file(&one)),
        1 => done("remove a folder", std::fs::remove_dir_all(&one)),
        2 => done("rename", std::fs::rename(&one, &other)),
        3 => done("make a folder", std::fs::create_dir_all(&one)),
        4 => done("link", symlink("a", &one)),
        5 => done("link hard", std::fs::hard_link(&one, &other)),
        6 if one.exists() => {
            mode(&one, *[0o644, 0o755, 0o600].choose(random).unwrap());
            "mode"
        }
        7 if one.is_file() => {
            let time = std::fs::metadata(&one).unwrap().modified().unwrap();
            let mut text = std::fs::read(&one).unwrap();
            text.iter_mut().for_each(|byte| *byte ^= 1);
            let _ = std::fs::write(&one, text);
            let file = std::fs::File::options().write(true).open(&one);
            done("other bytes of the same size and time", file.and_then(|file| file.set_modified(time)))
        }
        _ => done("write", std::fs::write(&one, vec![random.random_range(b'a'..=b'z'); random.random_range(0..70_000)])),
    }
}

fn random_tree(random: &mut StdRng, app: &Path) {
    std::fs::create_dir_all(app.join("d/e")).unwrap();
    for _ in 0..12 {
        anything(random, app);
    }
    std::fs::write(app.join("a"), "a\n").unwrap_or_default();
}

/// A folder's copy, with links, modes and times.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Builds while the context moves, then as it was before and as it is after an edit; each is what plain Docker makes. Counts what was
/// moved, and what the first build did about it.
fn round(engine: &Engine, seed: u64, moves: &mut Counts, ends: &mut Counts) {
    let random = &mut StdRng::seed_from_u64(seed);
    let machine = Machine::with(&engine.host());
    let image = unique_image("moving");
    let steps = [
        "COPY app /app\n",
        "COPY app/d /d\nRUN find /d -type f -exec sha256sum {} + | sort > /list\n",
        "COPY app/ /app/\nCOPY app/a* /x/\nRUN true\n",
    ];
    machine.write("Dockerfile", &format!("FROM {}\nRUN echo x > /x1\n{}", base("busybox"), steps.choose(random).unwrap()));
    let (app, kept) = (machine.folder().join("app"), machine.home().join("kept"));
    random_tree(random, &app);
    // Wherever the build is, it has files left to read.
    std::fs::File::create(app.join("large")).unwrap().set_len(random.random_range(0..64) << 20).unwrap();
    copy(&app, &kept);
    engine.wipe();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mover = std::thread::spawn({
        let (app, stop, seed) = (app.clone(), std::sync::Arc::clone(&stop), random.random());
        let (pause, most) = (random.random_range(1..60), random.random_range(1..400));
        move || {
            let random = &mut StdRng::seed_from_u64(seed);
            let mut moves = Vec::new();
            while moves.len() < most && !stop.load(std::sync::atomic::Ordering::Relaxed) {
                moves.push(anything(random, &app));
                std::thread::sleep(std::time::Duration::from_millis(random.random_range(0..pause)));
            }
            moves
        }
    });
    let build = build(&machine, &image);
    // A path of the Dockerfile may be gone when it is looked for, a file when it is read, and a link may lead to itself: then that is the
    // error.
    let first = build.run();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for what in mover.join().unwrap() {
        *moves.entry(what).or_default() += 1;
    }
    let gone = ["not found", "no such file", "No such file", "too many links", "too many symlinks"];
    let gone = gone.iter().any(|said| first.stderr.contains(said));
    assert!(first.code == 0 || gone, "{} seed {seed}\n{}", engine.name(), first.stderr);
    for edit in [false, true] {
        copy(&kept, &app);
        if edit {
            anything(random, &app);
            let _ = std::fs::create_dir_all(app.join("d"));
            let _ = std::fs::write(app.join("a"), "edited\n");
        }
        let ours = build.run_on_empty(engine);
        engine.wipe();
        let plain = unique_image("plain");
        let built = plain_build(engine, &machine, &plain, &[]);
        let what = format!("{} seed {seed}, edited {edit}\n{}\n----\n{}", engine.name(), first.stderr, ours.stderr);
        assert_eq!(ours.code == 0, built.code == 0, "{what}\n----\n{}", built.stderr);
        if built.code == 0 {
            assert_eq!(flattened(&image), flattened(&plain), "{what}");
        }
    }
    let told = |text| first.stderr.contains(text);
    let end = match first.code {
        0 if told("building from the files as hakobi sends them") => "built as sent",
        0 if told("not saving `") => "a layer unsaved",
        0 if told("planning the build again") => "planned again",
        0 => "not seen to move",
        _ => "refused",
    };
    *ends.entry(end).or_default() += 1;
}

fn rounds(name: &'static str) {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = variable("HAKOBI_RANDOM_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    let count = variable("HAKOBI_RANDOM_ROUNDS").unwrap_or(20);
    let engine = Engine::lock(name);
    let (mut moves, mut ends) = (Counts::new(), Counts::new());
    for seed in first..first + count {
        round(&engine, seed, &mut moves, &mut ends);
    }
    eprintln!("{name}, seeds from {first}: {count} rounds, {ends:?}; moved: {moves:?}");
}

#[test]
#[ignore = "long"]
fn long_contexts_that_move_on_docker_20() {
    rounds(D20);
}

#[test]
#[ignore = "long"]
fn long_contexts_that_move_on_docker_28() {
    rounds(D28);
}

#[test]
#[ignore = "long"]
fn long_contexts_that_move_on_the_containerd_store() {
    rounds(C28);
}
