//! Tests contexts that change during a build: hakobi records what it sent, and later images equal those of `docker build`.
//!
//! `HAKOBI_RANDOM_SEED` sets another seed for the long tests, and `HAKOBI_RANDOM_ROUNDS` sets the number of rounds.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread::JoinHandle;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, flattened};
use support::machine::{Machine, Run};
use support::parts::{part, unique};

/// Something that happens to the folder `app`.
type Move = fn(&Path);

const MOVES: &[(&str, Move)] = &[
    ("two files exchanged", |app| {
        std::fs::rename(app.join("a.txt"), app.join("t")).unwrap();
        std::fs::rename(app.join("b.txt"), app.join("a.txt")).unwrap();
        std::fs::rename(app.join("t"), app.join("b.txt")).unwrap();
    }),
    ("another mode", |app| mode(&app.join("a.txt"), 0o755)),
    ("a file less", |app| std::fs::remove_file(app.join("a.txt")).unwrap()),
    ("other bytes, of the same size and time", |app| {
        let file = app.join("a.txt");
        let time = std::fs::metadata(&file).unwrap().modified().unwrap();
        std::fs::write(&file, "A\n").unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    }),
    ("a new file", |app| std::fs::write(app.join("new"), "new\n").unwrap()),
    ("a link that leads elsewhere", |app| {
        std::fs::remove_file(app.join("link")).unwrap();
        symlink("b.txt", app.join("link")).unwrap();
    }),
    ("another mode of a folder", |app| mode(&app.join("inner"), 0o700)),
];

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// The folder as it is before and afterwards.
fn put(app: &Path) {
    let _ = std::fs::remove_dir_all(app);
    std::fs::create_dir_all(app.join("inner")).unwrap();
    for (name, text) in [("a.txt", "a\n"), ("b.txt", "b\n"), ("inner/c.txt", "c\n")] {
        std::fs::write(app.join(name), text).unwrap();
    }
    std::fs::write(app.join("z.txt"), "z\n").unwrap();
    symlink("a.txt", app.join("link")).unwrap();
    // Takes so long to hash that the files beside it change before that is done.
    std::fs::File::create(app.join("large")).unwrap().set_len(64 << 20).unwrap();
}

/// Waits until a file was opened and closed again so many times, then does something.
fn when_read(file: &Path, times: usize, then: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let watch = inotify::init(CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, file, WatchFlags::CLOSE_NOWRITE).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&watch, &mut buffer);
        for _ in 0..times {
            reader.next().unwrap();
        }
        then();
    })
}

fn image(name: &str) -> String {
    format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique(name))
}

/// What plain Docker makes of the folder, with nothing of what it has.
fn plain(engine: &Engine, machine: &Machine) -> BTreeMap<String, String> {
    let (cli, image) = (part("HAKOBI_TEST_DOCKER_CLI"), image("plain"));
    let build = ["build", "--no-cache", "--network", "host", "-t", &image, "."];
    Run::of(machine.command(&cli).env("DOCKER_BUILDKIT", "1").args(build)).exits(0);
    engine.docker(&["push", &image]);
    flattened(&image)
}

fn hakobi(machine: &Machine, image: &str) -> Run {
    let build =
        ["build", "--network", "host", "--progress", "plain", "--report", "../report.json", "--cache", "../cache", "--push"];
    machine.hakobi(&[&build[..], &["-t", image, "."]].concat()).exits(0)
}

fn nothing_else_is_remembered(name: &'static str) {
    const BEHIND: &str = "RUN cat /app/a.txt > /y || true\n";
    let engine = Engine::fresh(name);
    let expected: Vec<_> = [BEHIND, ""]
        .iter()
        .map(|behind| {
            let machine = Machine::with(&engine.host());
            machine.write("Dockerfile", &dockerfile(behind));
            put(&machine.folder().join("app"));
            plain(&engine, &machine)
        })
        .collect();
    for (what, moved) in MOVES {
        let machine = Machine::with(&engine.host());
        machine.write("Dockerfile", &dockerfile(BEHIND));
        let (app, image) = (machine.folder().join("app"), image("moving"));
        put(&app);
        engine.wipe();
        let mover = when_read(&app.join("a.txt"), 1, {
            let app = app.clone();
            move || moved(&app)
        });
        let told = hakobi(&machine, &image).stderr;
        mover.join().unwrap();
        assert!(told.contains("planning the build again"), "{name}, {what}\n{told}");
        assert_eq!(flattened(&image), plain(&engine, &machine), "{name}, {what}: the image\n{told}");
        put(&app);
        engine.wipe();
        // With a command behind the files, and without one.
        for (behind, expected) in [BEHIND, ""].iter().zip(&expected) {
            machine.write("Dockerfile", &dockerfile(behind));
            let again = hakobi(&machine, &image).stderr;
            assert_eq!(
                flattened(&image),
                *expected,
                "{name}, {what}: the image of the files as they were\n{told}\n----\n{again}"
            );
        }
    }
}

/// The containerd store takes a file of the same size and time for the one below, if that time is not of whole seconds: that image is the
/// daemon's own affair, but no other daemon is to have it.
#[test]
fn a_layer_that_lacks_a_file_is_not_remembered() {
    let (wrong, right) = (Engine::fresh(C28), Engine::fresh(D28));
    let machine = Machine::with(&wrong.host());
    machine.write("Dockerfile", &format!("FROM {}\nCOPY one/f /f\nCOPY two/f /f\nLABEL a=b\n", base("busybox")));
    for (folder, text) in [("one", "1\n"), ("two", "2\n")] {
        machine.write(&format!("{folder}/f"), text);
        let file = std::fs::File::options().write(true).open(machine.folder().join(folder).join("f")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 5)).unwrap();
    }
    let image = image("lost");
    let told = hakobi(&machine, &image).stderr;
    assert!(told.contains("not saving `COPY two/f /f`") && told.contains("f: the content differs"), "{told}");
    let machine = machine.set("DOCKER_HOST", &right.host());
    let again = hakobi(&machine, &image).stderr;
    assert_eq!(flattened(&image), plain(&right, &machine), "{again}");
}

/// The assembler reads the files once more, with no daemon in between.
#[test]
fn nothing_else_is_assembled() {
    let engine = Engine::lock(D28);
    let last: Move = |app| std::fs::write(app.join("z.txt"), "Z\n").unwrap();
    let moves = MOVES.iter().map(|(what, moved)| (*what, 1, *moved));
    for (what, times, moved) in moves.chain([("the last file, while the layer is written", 2, last)]) {
        let machine = Machine::with(&engine.host());
        machine.write("Dockerfile", &dockerfile(""));
        let (app, image) = (machine.folder().join("app"), image("assembled"));
        put(&app);
        std::fs::write(app.join("b.txt"), "before\n").unwrap();
        engine.wipe();
        hakobi(&machine, &image);
        put(&app);
        let before = plain(&engine, &machine);
        engine.wipe();
        let mover = when_read(&app.join("a.txt"), times, {
            let app = app.clone();
            move || moved(&app)
        });
        let told = hakobi(&machine, &image).stderr;
        mover.join().unwrap();
        assert!(told.contains("planning the build again"), "{what}\n{told}");
        assert_eq!(machine.report("../report.json")["tier"], "append", "{what}\n{told}");
        assert_eq!(flattened(&image), plain(&engine, &machine), "{what}: the image\n{told}");
        put(&app);
        engine.wipe();
        let again = hakobi(&machine, &image).stderr;
        assert_eq!(flattened(&image), before, "{what}: the image of the files as they were\n{told}\n----\n{again}");
    }
}

fn dockerfile(behind: &str) -> String {
    format!("FROM {}\nRUN echo x > /x\nCOPY app /app\n{behind}", base("busybox"))
}

#[test]
fn nothing_but_what_was_sent_is_remembered_on_docker_20() {
    nothing_else_is_remembered(D20);
}

#[test]
fn nothing_but_what_was_sent_is_remembered_on_docker_28() {
    nothing_else_is_remembered(D28);
}

#[test]
fn nothing_but_what_was_sent_is_remembered_on_the_containerd_store() {
    nothing_else_is_remembered(C28);
}

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
    let image = image("moving");
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
    let arguments = ["build", "--network", "host", "--progress", "plain", "--cache", "../cache", "--push", "-t", &image, "."];
    // A path of the Dockerfile may be gone when it is looked for, a file when it is read, and a link may lead to itself: then that is the
    // error.
    let first = machine.hakobi(&arguments);
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
        engine.wipe();
        let ours = machine.hakobi(&arguments);
        let cli = part("HAKOBI_TEST_DOCKER_CLI");
        engine.wipe();
        let plain = crate::image("plain");
        let built =
            Run::of(machine.command(&cli).env("DOCKER_BUILDKIT", "1").args(["build", "--network", "host", "-t", &plain, "."]));
        let what = format!("{} seed {seed}, edited {edit}\n{}\n----\n{}", engine.name(), first.stderr, ours.stderr);
        assert_eq!(ours.code == 0, built.code == 0, "{what}\n----\n{}", built.stderr);
        if built.code == 0 {
            engine.docker(&["push", &plain]);
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
