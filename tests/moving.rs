//! Tests contexts that change during a build: hakobi records what it sent, and later images equal those of `docker build`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "moving/rounds.rs"]
mod rounds;
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread::JoinHandle;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, flattened, unique_image};
use support::machine::Machine;
use support::plain::plain_build;

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

/// What plain Docker makes of the folder, with nothing of what it has.
fn plain(engine: &Engine, machine: &Machine) -> BTreeMap<String, String> {
    let image = unique_image("plain");
    plain_build(engine, machine, &image, &[]).exits(0);
    flattened(&image)
}

/// The build of all these tests.
fn build<'a>(machine: &'a Machine, image: &str) -> Build<'a> {
    Build::cached(machine).progress("plain").push(image)
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
        let (app, image) = (machine.folder().join("app"), unique_image("moving"));
        put(&app);
        engine.wipe();
        let mover = when_read(&app.join("a.txt"), 1, {
            let app = app.clone();
            move || moved(&app)
        });
        let moving = build(&machine, &image).done();
        mover.join().unwrap();
        assert!(moving.log().contains("planning the build again"), "{name}, {what}\n{moving}");
        assert_eq!(flattened(&image), plain(&engine, &machine), "{name}, {what}: the image\n{moving}");
        put(&app);
        engine.wipe();
        // With a command behind the files, and without one.
        for (behind, expected) in [BEHIND, ""].iter().zip(&expected) {
            machine.write("Dockerfile", &dockerfile(behind));
            let again = build(&machine, &image).done();
            let what = format!("{name}, {what}: the image of the files as they were");
            assert_eq!(flattened(&image), *expected, "{what}\n{moving}\n----\n{again}");
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
    let image = unique_image("lost");
    let lost = build(&machine, &image).done();
    assert!(lost.log().contains("not saving `COPY two/f /f`") && lost.log().contains("f: the content differs"), "{lost}");
    let again = build(&machine, &image).on(&right.host()).done();
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
        let (app, image) = (machine.folder().join("app"), unique_image("assembled"));
        put(&app);
        std::fs::write(app.join("b.txt"), "before\n").unwrap();
        let build = build(&machine, &image);
        build.done_on_empty(&engine);
        put(&app);
        let before = plain(&engine, &machine);
        engine.wipe();
        let mover = when_read(&app.join("a.txt"), times, {
            let app = app.clone();
            move || moved(&app)
        });
        let moving = build.done();
        mover.join().unwrap();
        assert!(moving.log().contains("planning the build again"), "{what}\n{moving}");
        assert_eq!(moving.tier(), "append", "{what}\n{moving}");
        assert_eq!(flattened(&image), plain(&engine, &machine), "{what}: the image\n{moving}");
        put(&app);
        let again = build.done_on_empty(&engine);
        assert_eq!(flattened(&image), before, "{what}: the image of the files as they were\n{moving}\n----\n{again}");
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
