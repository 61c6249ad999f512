//! Tests appends, on every engine: hakobi adds files to a base without pulling it, and the image equals that of a build on the base.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::build::{Build, Built, NO_DAEMON};
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, flattened, unique_image};
use support::machine::Machine;
use support::parts::unique;
use support::plain::{backdate, now, plain_build, same_as_plain};

/// One build of files that all have the same time, on a machine whose Docker is empty.
fn built(engine: &Engine, machine: &Machine, image: &str) -> Built {
    backdate(&machine.folder(), 2020);
    Build::cached(machine).push(image).done_on_empty(engine)
}

fn files_are_laid_on_what_does_not_come_down(name: &'static str, transport: &str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host()).set("HAKOBI_TRANSPORT", transport);
    let (base, image, plain) = (base("busybox"), unique_image("append"), unique_image("plain"));
    let since = now();
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base}\nRUN adduser -D -u 1234 app; mkdir -p /srv/app/static /data && chmod 2750 /srv/app && chown app /srv/app; \
                 ln -s /srv/app /app; mkdir /plain; ln -s plain /to; echo old > /srv/app/static/a.css\n\
                 WORKDIR /plain/work\nCOPY --chown=app src /to/\nCOPY top.txt /data/\nLABEL a=b\nCMD [\"cat\", \"/plain/static/a.css\"]\n"
            ),
        )
        .write("src/static/a.css", "one\n")
        .write("src/deep/er/file", "deep\n")
        .write("top.txt", "top\n");
    let same_as_plain = || {
        same_as_plain(&engine, &machine, &image, &plain, since, name);
    };
    let appends = |layers: u64| {
        let appended = built(&engine, &machine, &image).is("append");
        assert_eq!((appended.layers("restored"), appended.bytes("restored")), (0, 0), "{appended}");
        assert_eq!(appended.layers("pushed"), layers, "{appended}");
        appended
    };
    built(&engine, &machine, &image).is("cold");
    // By hakobi itself: the first run showed that the daemon makes the same.
    machine.write("src/static/a.css", "two\n").write("src/new file.txt", "new\n");
    let told = machine.hakobi(&["plan", "--network", "host", "--cache", "../cache", "-t", &image, "."]).exits(0).stdout;
    assert!(told.contains("2 of 4 steps run: only file operations"), "{told}");
    let appended = appends(2);
    assert_eq!(appended.misses(), ["COPY --chown=app src /to/", "COPY top.txt /data/"], "{appended}");
    assert!(appended["steps"].to_string().contains("src/static/a.css changed"), "{appended}");
    assert_eq!(engine.docker(&["images", "-q"]), "", "no daemon had a part in it");
    same_as_plain();
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]), "two");
    assert_eq!(built(&engine, &machine, &image).is("unchanged").digest(), appended.digest());
    // Only the last step is open: it lies on an appended state. No daemon is there.
    machine.write("top.txt", "other\n");
    let alone = Build::cached(&machine).push(&image).on(NO_DAEMON).done().is("append");
    assert_eq!(alone.layers("pushed"), 1, "{alone}");
    assert_eq!(alone["engine"]["store"], "none", "{alone}");
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image, "cat", "/data/top.txt"]), "other");
    // Another kind of step: the daemon lays it on a skeleton. A directory with setgid bits is its alone to know.
    let dockerfile = machine.read("Dockerfile").replace("COPY top.txt /data/", "COPY --chown=app src /app/");
    machine.write("Dockerfile", &dockerfile);
    appends(1);
    same_as_plain();
    machine.write("src/static/a.css", "three\n");
    backdate(&machine.folder(), 2020);
    let verified = Build::cached(&machine).push(&image).with(&["--verify"]).done_on_empty(&engine).is("append");
    assert_eq!(verified.layers("pushed"), 2, "{verified}");
    assert_ne!(verified.layers("restored"), 0, "the base came down to compare: {verified}");
    same_as_plain();
    // What is made on it is whole.
    machine.write("Dockerfile", &format!("FROM {image}\nRUN cat /plain/static/a.css > /made\nCMD [\"cat\", \"/made\"]\n"));
    built(&engine, &machine, &plain);
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &plain]), "three");
}

#[test]
fn files_are_laid_on_what_does_not_come_down_on_docker_20() {
    files_are_laid_on_what_does_not_come_down(D20, "registry");
}

#[test]
fn files_are_laid_on_what_does_not_come_down_on_docker_28() {
    files_are_laid_on_what_does_not_come_down(D28, "registry");
}

#[test]
fn files_are_laid_on_what_does_not_come_down_on_the_containerd_store() {
    files_are_laid_on_what_does_not_come_down(C28, "registry");
}

/// An archive of one file that may open raw sockets.
fn with_capabilities(path: &std::path::Path) {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut archive = tar::Builder::new(std::fs::File::create(path).unwrap());
    archive.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o755);
    header.set_mtime(1_700_000_000);
    archive.append_data(&mut header, "ping", &b"ping\n"[..]).unwrap();
    archive.finish().unwrap();
}

/// A daemon that cannot reach this host is given the skeleton as an archive, and the new layers come out of one.
#[test]
fn files_are_laid_on_what_does_not_come_down_by_archives() {
    files_are_laid_on_what_does_not_come_down(D28, "archive");
}

fn a_runtime_stage_takes_what_was_built(name: &'static str, transport: &str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host()).set("HAKOBI_TRANSPORT", transport);
    let (base, image, plain) = (base("busybox"), unique_image("runtime"), unique_image("plain"));
    let since = now();
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base} AS build\nRUN echo tools > /tools\nCOPY src.txt /\nRUN mkdir -p /out/bin && cp src.txt /out/bin/app && chmod 755 /out/bin/app && \
                 ln -s app /out/bin/link && ln /out/bin/app /out/bin/hard && chown -R 7:8 /out\nADD ping.tar /out/\n\
                 FROM {base}\nCOPY --from=build /out /usr/local\nCOPY --from=build --chown=7 /out/ping /owned\nUSER 7\nCMD [\"cat\", \"/usr/local/bin/app\"]\n"
            ),
        )
        .write("src.txt", "one\n");
    with_capabilities(&machine.folder().join("ping.tar"));
    built(&engine, &machine, &image);
    machine.write("src.txt", "two\n");
    // A command ran.
    let changed = built(&engine, &machine, &image).is("partial");
    // The other layer came out as it was. Of one in an archive, that shows only when it is compressed: if its upload began before
    // that, it was sent again.
    let pushed = if transport == "archive" && name == D20 { 1..=2 } else { 1..=1 };
    assert!(pushed.contains(&changed.layers("pushed")), "{changed}");
    // The state below the changed step, of the base and one command: and nothing for the runtime stage.
    assert_eq!(changed.layers("restored"), 2, "{changed}");
    same_as_plain(&engine, &machine, &image, &plain, since, name);
    let files = flattened(&image);
    assert!(files["usr/local/ping"].contains("security.capability"), "{}", files["usr/local/ping"]);
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]), "two");
    built(&engine, &machine, &image).is("unchanged");
}

#[test]
fn a_runtime_stage_takes_what_was_built_on_docker_20() {
    a_runtime_stage_takes_what_was_built(D20, "registry");
}

#[test]
fn a_runtime_stage_takes_what_was_built_on_docker_28() {
    a_runtime_stage_takes_what_was_built(D28, "registry");
}

#[test]
fn a_runtime_stage_takes_what_was_built_on_the_containerd_store() {
    a_runtime_stage_takes_what_was_built(C28, "registry");
}

#[test]
fn a_runtime_stage_takes_what_was_built_on_docker_20_by_archives() {
    a_runtime_stage_takes_what_was_built(D20, "archive");
}

#[test]
fn a_runtime_stage_takes_what_was_built_on_the_containerd_store_by_archives() {
    a_runtime_stage_takes_what_was_built(C28, "archive");
}

/// All that a context and a base can hold, on every engine; and the image, pulled by each of them.
fn odd_files(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    let (base, image, plain) = (base("busybox"), unique_image("odd"), unique_image("plain"));
    let since = now();
    let folder = machine.folder();
    let mode = |path: &str, mode: u32| {
        std::fs::set_permissions(folder.join(path), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base}\nRUN mkdir -p -m 1777 /m/keep && chown 3:4 /m/keep && mkdir -m 700 /m/dir && touch /m/file /m/dir/file && \
                 ln -s /m/dir /m/link && ln -s link /m/chain && ln -s nowhere /m/dangling\n\
                 COPY s/ /m/\nCOPY s/file /m/chain/\nCOPY [\"s/with space\", \"s/ä ö\", \"/m/sp ace/\"]\nCOPY s/.hidden /\n\
                 COPY --chown=app:9 s/dir /m/keep\nCOPY many /many\nUSER app\nWORKDIR /m/keep/made/here\nCOPY s/file .\n"
            ),
        )
        .write("s/file", "1\n")
        .write("s/dir/file", "2\n")
        .write("s/dir/.dot/x", "3\n")
        .write("s/with space", "4\n")
        .write("s/ä ö", "5\n")
        .write("s/.hidden", "6\n")
        .write("s/suid", "7\n")
        .write("s/hard/one", "8\n");
    std::fs::hard_link(folder.join("s/hard/one"), folder.join("s/hard/two")).unwrap();
    std::fs::create_dir_all(folder.join("s/empty/deep")).unwrap();
    std::os::unix::fs::symlink("/m/file", folder.join("s/absolute")).unwrap();
    mode("s/suid", 0o4755);
    mode("s/empty", 0o1770);
    for number in 0..10_000 {
        machine.write(&format!("many/{}/{number}", number / 100), &format!("{number}\n"));
    }
    built(&engine, &machine, &image);
    machine.write("s/file", "other\n").write("s/dir/new", "new\n").write("many/0/0", "changed\n");
    let appended = built(&engine, &machine, &image).is("append");
    assert_eq!(appended.layers("restored"), 0, "{appended}");
    same_as_plain(&engine, &machine, &image, &plain, since, name);
    drop(engine);
    for other in [D20, D28, C28] {
        let engine = Engine::lock(other);
        engine.docker(&["pull", "-q", &image]);
        let words = engine.docker(&["run", "--rm", "--network", "host", &image, "cat", "/m/dir/file", "/many/0/0", "file"]);
        assert_eq!(words, "other\nchanged\nother", "{other}");
        engine.docker(&["rmi", "-f", &image]);
    }
}

#[test]
#[ignore = "long"]
fn long_odd_files_on_docker_20() {
    odd_files(D20);
}

#[test]
fn odd_files_on_docker_28() {
    odd_files(D28);
}

#[test]
#[ignore = "long"]
fn long_odd_files_on_the_containerd_store() {
    odd_files(C28);
}

#[test]
fn what_buildkit_refuses_is_refused() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let image = unique_image("refused");
    let head = format!("FROM {}\nRUN mkdir -p /dir/sub && touch /file\n", base("busybox"));
    machine.write("Dockerfile", &format!("{head}COPY a /a\n")).write("a", "1\n").write("d/sub", "2\n").write("e/f/g", "3\n");
    built(&engine, &machine, &image);
    let build = Build::new(&machine).cache("../cache").push(&image);
    for (copy, message) in [
        ("COPY d /dir", "cannot copy to non-directory"),
        ("COPY e /file", "not a directory"),
        ("COPY absent /x", "not found"),
        ("COPY a /file/x", "not a directory"),
    ] {
        machine.write("Dockerfile", &format!("{head}{copy}\n"));
        let ours = build.run().exits(1);
        plain_build(&engine, &machine, &image, &[]).exits(1);
        assert!(ours.stderr.contains(copy), "{copy} ({message}): {}", ours.stderr);
    }
}

#[test]
fn a_daemon_that_made_it_itself_needs_nothing() {
    for name in [D20, D28, C28] {
        let engine = Engine::fresh(name);
        let machine = Machine::with(&engine.host());
        let dockerfile = format!("FROM {}\nRUN date +%N > /stamp\nCOPY a.txt /\nRUN cat /a.txt > /b.txt\n", base("busybox"));
        machine.write("Dockerfile", &dockerfile).write("a.txt", "one\n");
        let tag = unique("warm");
        let build = Build::cached(&machine).tag(&tag);
        let stamp = || engine.docker(&["run", "--rm", "--network", "host", &tag, "cat", "/stamp", "/b.txt"]);
        build.done();
        let made = stamp();
        for (text, tier) in [("one\n", "unchanged"), ("two\n", "partial"), ("two\n", "unchanged"), ("one\n", "unchanged")] {
            machine.write("a.txt", text);
            let built = build.done().is(tier);
            assert_eq!((built.layers("restored"), built.bytes("restored")), (0, 0), "{name} {text}: {built}");
            assert_eq!(stamp(), made.replace("one", text.trim()), "{name}");
        }
        // A daemon that forgot it all is another one.
        let restored = build.done_on_empty(&engine).is("unchanged");
        assert_ne!(restored.layers("restored"), 0, "{restored}");
        assert_eq!(stamp(), made, "{name}");
        engine.docker(&["rmi", &tag]);
    }
}
