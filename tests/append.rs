//! Appends, on every engine: files are laid on a base that does not come down, and what comes out is what a build on it gives.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, flattened, steps};
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::plain::{Times, backdate, now, plain_build, same_image};

/// One run on a machine whose Docker is empty.
fn run(engine: &Engine, machine: &Machine, more: &[&str]) -> Value {
    engine.wipe();
    backdate(&machine.folder(), 2020);
    let mut arguments = vec!["build", "--network", "host", "--report", "../report.json", "--cache", "../cache", "--push"];
    arguments.extend(more);
    arguments.push(".");
    machine.hakobi(&arguments).exits(0);
    machine.report("../report.json")
}

fn image(name: &str) -> String {
    format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique(name))
}

fn files_are_laid_on_what_does_not_come_down(name: &'static str, transport: &str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host()).set("HAKOBI_TRANSPORT", transport);
    let (base, image, plain) = (base("busybox"), image("append"), image("plain"));
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
        plain_build(&engine, &machine, &plain, &[]).exits(0);
        same_image(&engine, &image, &plain, Times::Directories, since, name);
    };
    let appends = |layers: u64| {
        let appended = run(&engine, &machine, &["-t", &image]);
        assert_eq!(appended["tier"], "append", "{appended:#}");
        assert_eq!((&appended["layers"]["restored"], &appended["bytes"]["restored"]), (&Value::from(0), &Value::from(0)));
        assert_eq!(appended["layers"]["pushed"], layers, "{appended:#}");
        appended
    };
    let cold = run(&engine, &machine, &["-t", &image]);
    assert_eq!(cold["tier"], "cold", "{cold:#}");
    // By hakobi itself: the first run showed that the daemon makes the same.
    machine.write("src/static/a.css", "two\n").write("src/new file.txt", "new\n");
    let told = machine.hakobi(&["plan", "--network", "host", "--cache", "../cache", "-t", &image, "."]).exits(0).stdout;
    assert!(told.contains("2 of 4 steps run: only file operations"), "{told}");
    let appended = appends(2);
    assert_eq!(steps(&appended, "miss"), ["COPY --chown=app src /to/", "COPY top.txt /data/"], "{appended:#}");
    assert!(appended["steps"].to_string().contains("src/static/a.css changed"), "{appended:#}");
    assert_eq!(engine.docker(&["images", "-q"]), "", "no daemon had a part in it");
    same_as_plain();
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]), "two");
    let again = run(&engine, &machine, &["-t", &image]);
    assert_eq!(again["tier"], "unchanged", "{again:#}");
    assert_eq!(again["images"][0]["digest"], appended["images"][0]["digest"]);
    // Only the last step is open: it lies on an appended state. No daemon is there.
    machine.write("top.txt", "other\n");
    let nowhere =
        ["build", "--network", "host", "--cache", "../cache", "--push", "-t", &image, "--report", "../report.json", "."];
    Run::of(machine.command("hakobi").env("DOCKER_HOST", "unix:///nowhere/docker.sock").args(nowhere)).exits(0);
    let alone = machine.report("../report.json");
    assert_eq!((&alone["tier"], &alone["layers"]["pushed"]), (&Value::from("append"), &Value::from(1)), "{alone:#}");
    assert_eq!(alone["engine"]["store"], "none", "{alone:#}");
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image, "cat", "/data/top.txt"]), "other");
    // Another kind of step: the daemon lays it on a skeleton. A directory with setgid bits is its alone to know.
    let dockerfile = machine.read("Dockerfile").replace("COPY top.txt /data/", "COPY --chown=app src /app/");
    machine.write("Dockerfile", &dockerfile);
    appends(1);
    same_as_plain();
    machine.write("src/static/a.css", "three\n");
    let verified = run(&engine, &machine, &["-t", &image, "--verify"]);
    assert_eq!((&verified["tier"], &verified["layers"]["pushed"]), (&Value::from("append"), &Value::from(2)), "{verified:#}");
    assert_ne!(verified["layers"]["restored"], 0, "the base came down to compare: {verified:#}");
    same_as_plain();
    // What is made on it is whole.
    machine.write("Dockerfile", &format!("FROM {image}\nRUN cat /plain/static/a.css > /made\nCMD [\"cat\", \"/made\"]\n"));
    run(&engine, &machine, &["-t", &plain]);
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
    let (base, image, plain) = (base("busybox"), image("runtime"), image("plain"));
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
    run(&engine, &machine, &["-t", &image]);
    machine.write("src.txt", "two\n");
    let built = run(&engine, &machine, &["-t", &image]);
    assert_eq!(built["tier"], "partial", "a command ran: {built:#}");
    // The other layer came out as it was; of one in an archive that shows when it was compressed, and is sent by then.
    let pushed = if transport == "archive" && name == D20 { 2 } else { 1 };
    assert_eq!(built["layers"]["pushed"], pushed, "{built:#}");
    // The state below the changed step, of the base and one command: and nothing for the runtime stage.
    assert_eq!(built["layers"]["restored"], 2, "{built:#}");
    plain_build(&engine, &machine, &plain, &[]).exits(0);
    same_image(&engine, &image, &plain, Times::Directories, since, name);
    let files = flattened(&image);
    assert!(files["usr/local/ping"].contains("security.capability"), "{}", files["usr/local/ping"]);
    assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &image]), "two");
    let again = run(&engine, &machine, &["-t", &image]);
    assert_eq!(again["tier"], "unchanged", "{again:#}");
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
    let (base, image, plain) = (base("busybox"), image("odd"), image("plain"));
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
    run(&engine, &machine, &["-t", &image]);
    machine.write("s/file", "other\n").write("s/dir/new", "new\n").write("many/0/0", "changed\n");
    let appended = run(&engine, &machine, &["-t", &image]);
    assert_eq!((&appended["tier"], &appended["layers"]["restored"]), (&"append".into(), &0.into()), "{appended:#}");
    plain_build(&engine, &machine, &plain, &[]).exits(0);
    same_image(&engine, &image, &plain, Times::Directories, since, name);
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
    let image = image("refused");
    let head = format!("FROM {}\nRUN mkdir -p /dir/sub && touch /file\n", base("busybox"));
    machine.write("Dockerfile", &format!("{head}COPY a /a\n")).write("a", "1\n").write("d/sub", "2\n").write("e/f/g", "3\n");
    run(&engine, &machine, &["-t", &image]);
    let build = ["build", "--network", "host", "--cache", "../cache", "--push", "-t", &image, "."];
    for (copy, message) in [
        ("COPY d /dir", "cannot copy to non-directory"),
        ("COPY e /file", "not a directory"),
        ("COPY absent /x", "not found"),
        ("COPY a /file/x", "not a directory"),
    ] {
        machine.write("Dockerfile", &format!("{head}{copy}\n"));
        let ours = machine.hakobi(&build).exits(1);
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
        let build = |more: &[&str]| {
            let mut arguments =
                vec!["build", "--network", "host", "--report", "../report.json", "--cache", "../cache", "-t", &tag];
            arguments.extend(more);
            arguments.push(".");
            machine.hakobi(&arguments).exits(0);
            machine.report("../report.json")
        };
        let stamp = || engine.docker(&["run", "--rm", "--network", "host", &tag, "cat", "/stamp", "/b.txt"]);
        build(&[]);
        let made = stamp();
        for (text, tier) in [("one\n", "unchanged"), ("two\n", "partial"), ("two\n", "unchanged"), ("one\n", "unchanged")] {
            machine.write("a.txt", text);
            let report = build(&[]);
            assert_eq!(report["tier"], tier, "{name} {text}: {report:#}");
            assert_eq!(
                (&report["layers"]["restored"], &report["bytes"]["restored"]),
                (&Value::from(0), &Value::from(0)),
                "{report:#}"
            );
            assert_eq!(stamp(), made.replace("one", text.trim()), "{name}");
        }
        // A daemon that forgot it all is another one.
        engine.wipe();
        let restored = build(&[]);
        assert_eq!(restored["tier"], "unchanged", "{restored:#}");
        assert_ne!(restored["layers"]["restored"], 0, "{restored:#}");
        assert_eq!(stamp(), made, "{name}");
        engine.docker(&["rmi", &tag]);
    }
}
