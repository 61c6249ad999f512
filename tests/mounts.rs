//! Tests cache mounts (`RUN --mount=type=cache`) and the times of files: a command that runs again on a new machine goes on where the
//! last one left off.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::build::{Build, Built};
use support::engine::{C28, D20, D28, ENGINES, Engine, crane};
use support::image::{base, unique_image};
use support::machine::{Machine, Run};
use support::parts::part;
use support::plain::plain_build;

/// A tool like make: compiles each source that is newer than its object, and names what it compiled.
const MAKE: &str = "mkdir -p /obj/o && : > /compiled && for f in /src/*.c; do o=/obj/o/$(basename $f); \
    if [ ! -e $o ] || [ $f -nt $o ]; then cp $f $o; basename $f >> /compiled; fi; done; \
    cd /obj/o && for o in *; do [ -e /src/$o ] && cat $o; done > /app";

/// A tool like npm: takes each source from its cache by content, or from elsewhere, and names what it had to fetch.
const NPM: &str = "#!/bin/sh\nmkdir -p /root/.npm/_cacache; : > /compiled; : > /app; for f in /src/*.c; do \
    o=/root/.npm/_cacache/$(md5sum < $f | cut -c 1-32); \
    [ -e $o ] || { cp $f $o; basename $f >> /compiled; }; cat $o >> /app; done\n";

/// A project whose first stage compiles.
struct Project {
    machine: Machine,
    image: String,
    /// The options of its mount.
    options: String,
    /// Steps before the sources are copied.
    first: String,
    /// Steps between that copy and the compilation.
    in_between: String,
    /// What follows the compilation in the same command.
    more: String,
    /// A Dockerfile of another kind than the compiling one.
    dockerfile: Option<String>,
    sources: BTreeMap<String, String>,
}

impl Project {
    fn new(engine: &Engine) -> Self {
        let sources = ["a", "b", "c", "d"].map(|name| (format!("{name}.c"), format!("{name}1\n")));
        Self {
            machine: Machine::with(&engine.host()),
            image: unique_image("mounts"),
            options: "target=/obj".to_owned(),
            first: String::new(),
            in_between: String::new(),
            more: String::new(),
            dockerfile: None,
            sources: sources.into(),
        }
    }

    fn set(&mut self, name: &str, text: &str) -> &mut Self {
        self.sources.insert(name.to_owned(), text.to_owned());
        self
    }

    /// Checks the project out anew: all times are those of now.
    fn check_out(&self) {
        let folder = self.machine.folder();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let base = base("busybox");
        let text = format!(
            "FROM {base} AS build\n{}COPY src /src\n{}RUN --mount=type=cache,{} {MAKE}{}\nFROM {base}\nCOPY --from=build /app /compiled /\n",
            self.first, self.in_between, self.options, self.more
        );
        self.machine.write("Dockerfile", self.dockerfile.as_deref().unwrap_or(&text));
        self.machine.write("npm", NPM);
        for (name, source) in &self.sources {
            self.machine.write(&format!("src/{name}"), source);
        }
    }

    /// Leaves an empty daemon with the results of a build of these sources with old times, and with another mount.
    fn someone_elses_build(&self, engine: &Engine) {
        engine.wipe();
        self.check_out();
        let machine = &self.machine;
        machine.write("Dockerfile", &machine.read("Dockerfile").replace("target=/obj", "id=other,target=/obj"));
        let sources = self.sources.keys().map(|name| machine.folder().join("src").join(name));
        Run::of(Command::new("touch").arg("--date=2001-01-01").args(sources)).exits(0);
        plain_build(engine, machine, &unique_image("other"), &[]).exits(0);
    }

    fn build(&self) -> Build<'_> {
        Build::cached(&self.machine).push(&self.image)
    }

    /// Checks out, builds on an empty daemon, checks the program, and returns what was compiled.
    #[track_caller]
    fn compiled(&self, engine: &Engine, more: &[&str]) -> String {
        self.check_out();
        let built = self.build().with(more).done_on_empty(engine);
        self.right(&built)
    }

    /// Checks the program of the image, and returns what was compiled for it.
    #[track_caller]
    fn right(&self, built: &Built) -> String {
        let archive = self.machine.folder().join("../image.tar");
        crane(&["export", &self.image, archive.to_str().unwrap()]);
        let text = |path: &str| {
            let read = Command::new("tar").arg("-xOf").arg(&archive).arg(path).output().unwrap();
            assert!(read.status.success(), "{path} is in no image: {built}");
            String::from_utf8(read.stdout).unwrap()
        };
        let whole: String = self.sources.values().map(String::as_str).collect();
        assert_eq!(text("app"), whole, "the program has other sources: {built}");
        text("compiled").replace(".c\n", " ").trim().to_owned()
    }
}

#[test]
fn only_what_changed_is_compiled() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let mut project = Project::new(&engine);
        assert_eq!(project.compiled(&engine, &[]), "a b c d", "{name}");
        let mount = &project.machine.report("../report.json")["mounts"][0];
        assert_eq!((&mount["brought_in"], &mount["reason"]), (&Value::Null, &"no build has saved it".into()), "{name}");
        project.set("b.c", "b2\n");
        assert_eq!(project.compiled(&engine, &[]), "b", "{name}");
        let mount = &project.machine.report("../report.json")["mounts"][0];
        assert_eq!((&mount["id"], &mount["files"], &mount["reason"]), (&"/obj".into(), &4.into(), &"".into()), "{name}");
        assert!(mount["brought_in"].as_u64() > Some(0) && mount["saved"].as_u64() > Some(0), "{name}: {mount}");
        // Back to the older content, which is a change.
        project.set("b.c", "b1\n").set("c.c", "c2\n");
        assert_eq!(project.compiled(&engine, &[]), "b c", "{name}");
        // Another name with the content of an old file.
        project.sources.remove("d.c");
        project.set("e.c", "d1\n");
        assert_eq!(project.compiled(&engine, &[]), "e", "{name}");
        // BuildKit empties the mounts of commands that must not use its cache.
        assert_eq!(project.compiled(&engine, &["--no-cache"]), "a b c e", "{name}");
        project.set("e.c", "e2\n");
        assert_eq!(project.compiled(&engine, &[]), "e", "{name}");
    }
}

/// The sources go back to older content and the command changes: the copy is in the cache, with times older than the objects.
#[test]
fn a_cached_copy_does_not_hide_that_a_file_went_back() {
    let engine = Engine::lock(D28);
    let mut project = Project::new(&engine);
    project.compiled(&engine, &[]);
    project.set("a.c", "a2\n");
    assert_eq!(project.compiled(&engine, &[]), "a");
    project.set("a.c", "a1\n").more = " && true".to_owned();
    assert_eq!(project.compiled(&engine, &[]), "a");
}

/// The daemon has a copy of the same files from someone else's build, with times older than the objects.
#[test]
fn a_copy_that_the_daemon_has_does_not_hide_a_change() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let mut project = Project::new(&engine);
        project.compiled(&engine, &[]);
        project.set("b.c", "b2\n");
        project.someone_elses_build(&engine);
        project.check_out();
        let built = project.build().done();
        assert_eq!(project.right(&built), "b", "{name}: {built}");
    }
}

/// The same with another command between the copy and the mount: the daemon may have its result, which says nothing of its times.
#[test]
fn a_result_that_the_daemon_has_makes_a_cold_mount() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let mut project = Project::new(&engine);
        project.in_between = "RUN cp -rp /src /kept && rm -r /src && mv /kept /src\n".to_owned();
        project.compiled(&engine, &[]);
        project.set("b.c", "b2\n");
        assert_eq!(project.compiled(&engine, &[]), "b", "{name}");
        project.set("b.c", "b3\n");
        project.someone_elses_build(&engine);
        project.check_out();
        let built = project.build().done();
        assert_eq!(project.right(&built), "a b c d", "{name}: {built}");
        assert!(built.log().contains("the daemon may have a result of"), "{name}: {built}");
    }
}

/// The same with another command between the copy and the mount: that command's layer stays in the cache.
#[test]
fn a_cached_layer_of_another_build_makes_a_cold_mount() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let mut project = Project::new(&engine);
        project.first = "COPY src/a.c /src/\nRUN wc -l /src/a.c > /lines\n".to_owned();
        assert_eq!(project.compiled(&engine, &[]), "a b c d", "{name}");
        project.set("d.c", "d2\n");
        assert_eq!(project.compiled(&engine, &[]), "d", "{name}");
        project.set("a.c", "a2\n");
        assert_eq!(project.compiled(&engine, &[]), "a", "{name}");
        project.set("c.c", "c2\n");
        assert_eq!(project.compiled(&engine, &[]), "c", "{name}");
        project.set("a.c", "a1\n").set("b.c", "b2\n");
        assert_eq!(project.compiled(&engine, &[]), "a b c d", "{name}");
        project.set("b.c", "b3\n");
        assert_eq!(project.compiled(&engine, &[]), "b", "{name}");
    }
}

#[test]
fn every_kind_of_mount_is_carried() {
    let engine = Engine::lock(C28);
    for options in [
        "id=objects,target=/obj",
        "target=/obj,sharing=locked",
        "target=/obj,sharing=private",
        "target=/obj,uid=1000,gid=1000,mode=0777",
    ] {
        let mut project = Project::new(&engine);
        project.options = options.to_owned();
        project.compiled(&engine, &[]);
        project.set("d.c", "d2\n");
        assert_eq!(project.compiled(&engine, &[]), "d", "{options}");
    }
}

/// A mount that begins with the files of an image or a stage is not carried.
#[test]
fn a_mount_that_begins_with_files_is_left_alone() {
    let engine = Engine::lock(D20);
    let mut project = Project::new(&engine);
    project.options = format!("from={},source=/etc,target=/obj", base("busybox"));
    assert_eq!(project.compiled(&engine, &[]), "a b c d");
    project.set("d.c", "d2\n");
    assert_eq!(project.compiled(&engine, &[]), "a b c d");
}

#[test]
fn the_flags_say_what_is_carried() {
    let engine = Engine::lock(D28);
    let mut project = Project::new(&engine);
    let mut next = 1;
    let mut change = |project: &mut Project| {
        next += 1;
        project.set("a.c", &format!("a{next}\n"));
    };
    project.compiled(&engine, &["--cache-mounts", "off"]);
    let refused = project.build().with(&["--cache-mounts", "off", "--auto-mounts"]).run();
    assert!(refused.exits(2).stderr.contains("--auto-mounts requires a cache that keeps cache mounts"));
    change(&mut project);
    assert_eq!(project.compiled(&engine, &[]), "a b c d", "nothing was saved");
    change(&mut project);
    assert_eq!(project.compiled(&engine, &["--cache-mounts", "off"]), "a b c d");
    change(&mut project);
    assert_eq!(project.compiled(&engine, &["--cache-mounts", "read-only"]), "a");
    project.set("b.c", "b2\n");
    assert_eq!(project.compiled(&engine, &["--cache-mode", "read-only"]), "a b", "nothing was saved");
    project.set("c.c", "c2\n");
    assert_eq!(project.compiled(&engine, &["--context-times", "own"]), "a b c d", "a checkout has new times");
}

/// A pull request reads what main has saved, and writes only its own.
#[test]
fn branches_do_not_mix() {
    let engine = Engine::lock(D20);
    let mut project = Project::new(&engine);
    project.compiled(&engine, &["--cache-scope", "main"]);
    let branch = ["--cache-scope", "pr-1", "--cache-fallback", "main"];
    project.set("a.c", "a2\n");
    assert_eq!(project.compiled(&engine, &branch), "a");
    project.set("a.c", "a1\n").set("b.c", "b2\n");
    assert_eq!(project.compiled(&engine, &["--cache-scope", "main"]), "b");
    project.set("a.c", "a2\n").set("b.c", "b1\n").set("c.c", "c2\n");
    assert_eq!(project.compiled(&engine, &branch), "c");
}

/// A daemon that outlives the run keeps its mounts. What another build has left there stays, and no chosen time hides it.
#[test]
fn a_living_daemon_keeps_its_own_mounts() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let mut project = Project::new(&engine);
        project.compiled(&engine, &[]);
        // As on the daemon that saved it.
        project.set("a.c", "a2\n");
        project.check_out();
        assert_eq!(project.right(&project.build().done()), "a", "{name}");
        // Someone else's build of the same project.
        project.set("b.c", "b2\n");
        project.check_out();
        plain_build(&engine, &project.machine, &unique_image("other"), &[]);
        project.set("b.c", "b1\n").set("c.c", "c2\n");
        // The tool compares whole seconds.
        std::thread::sleep(Duration::from_millis(1100));
        project.check_out();
        let built = project.build().done();
        assert!(project.right(&built).contains("b c"), "{name}: {built}");
        assert!(built.log().contains("the daemon has other files"), "{name}: {built}");
    }
}

/// BuildKit makes another directory for a mount that is in use. What hakobi sees may then not be what the command gets.
#[test]
fn of_two_directories_for_a_mount_neither_is_trusted() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let mut project = Project::new(&engine);
        project.compiled(&engine, &[]);
        let wait = format!("FROM {}\nRUN --mount=type=cache,target=/obj,sharing=private sleep 3 && echo ", base("busybox"));
        std::thread::scope(|scope| {
            for number in 0..2 {
                let (engine, wait) = (&engine, &wait);
                scope.spawn(move || {
                    let machine = Machine::with(&engine.host());
                    machine.write("Dockerfile", &format!("{wait}{number}\n"));
                    let mut docker = machine.command(part("HAKOBI_TEST_DOCKER_CLI"));
                    Run::of(docker.env("DOCKER_BUILDKIT", "1").args(["build", "--network", "host", "."])).exits(0);
                });
            }
        });
        project.set("a.c", "a2\n");
        project.check_out();
        let built = project.build().done();
        assert!(project.right(&built).contains('a'), "{name}: {built}");
        assert!(built.log().contains("the daemon has other files"), "{name}: {built}");
    }
}

/// A damaged or missing blob costs the content of the mount, and is a warning.
#[test]
fn damage_makes_a_cold_mount() {
    let engine = Engine::lock(C28);
    let mut project = Project::new(&engine);
    for (change, damages) in [("a2\n", true), ("a3\n", false)] {
        project.compiled(&engine, &["--no-cache"]);
        let cache = project.machine.folder().join("../cache/blobs/sha256");
        for blob in fs::read_dir(cache).unwrap() {
            let path = blob.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            // A pack has zstd frames, and begins like one.
            if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                let half = bytes.len() / 2;
                if damages {
                    let mut bytes = bytes;
                    bytes[half] ^= 1;
                    fs::write(&path, bytes).unwrap();
                } else {
                    fs::remove_file(&path).unwrap();
                }
            }
        }
        project.set("a.c", change);
        project.check_out();
        let required = project.build().with(&["--cache-required"]).run_on_empty(&engine);
        assert!(required.exits(4).stderr.contains("error: the cache mount /obj stays empty"));
        let built = project.build().done_on_empty(&engine);
        assert_eq!(project.right(&built), "a b c d", "{built}");
        assert!(built.log().contains("stays empty"), "{built}");
        assert!(built.warns_of("stays empty"), "{built}");
        // The next run is warm again.
        project.set("d.c", change);
        assert_eq!(project.compiled(&engine, &[]), "d");
    }
}

#[test]
fn a_failed_build_saves_mounts_only_if_asked() {
    let engine = Engine::lock(C28);
    for (flags, compiled) in [(&[][..], "a b c d"), (&["--save-failed-mounts"][..], "a")] {
        let mut project = Project::new(&engine);
        project.more = " && false".to_owned();
        project.check_out();
        project.build().with(flags).run_on_empty(&engine).exits(1);
        project.more.clear();
        project.set("a.c", "a2\n");
        assert_eq!(project.compiled(&engine, &[]), compiled, "{flags:?}");
    }
}

/// The cache is in the registry, beside the image.
#[test]
fn mounts_are_in_the_registry_too() {
    let engine = Engine::lock(C28);
    let mut project = Project::new(&engine);
    let latest = project.image.clone();
    let build = |project: &Project| {
        project.check_out();
        let options = ["--cache-from", &*latest];
        let built = Build::new(&project.machine).report("../report.json").with(&options).push(&latest).done_on_empty(&engine);
        project.right(&built)
    };
    assert_eq!(build(&project), "a b c d");
    project.set("c.c", "c2\n");
    assert_eq!(build(&project), "c");
}

/// A run is killed at many moments while it brings mounts in or saves them. The next one makes the right image.
#[test]
fn a_kill_leaves_no_half_mount() {
    let engine = Engine::lock(D20);
    let mut project = Project::new(&engine);
    // Enough content for the moments to differ.
    project.more = " && [ -e /obj/large ] || head -c 60000000 /dev/urandom > /obj/large && wc -c < /obj/large > /size".to_owned();
    project.compiled(&engine, &[]);
    for moment in 1..=8_u32 {
        project.set("a.c", &format!("killed {moment}\n"));
        project.check_out();
        engine.wipe();
        let mut child = project.build().start();
        std::thread::sleep(Duration::from_millis(400) * moment);
        let _ = child.kill();
        child.wait().unwrap();
        project.set("b.c", &format!("after {moment}\n"));
        project.check_out();
        // On the same daemon, which has what the killed run left.
        let built = project.build().done();
        let compiled = project.right(&built);
        assert!(compiled.contains('b'), "{moment}: {compiled}");
    }
}

/// Builds with `npm`, which the context has.
fn installing(base: &str) -> String {
    format!(
        "FROM {base} AS build\nWORKDIR /src\nCOPY npm /bin/npm\nCOPY src .\nRUN chmod +x /bin/npm && npm ci\nFROM {base}\n\
         COPY --from=build /app /compiled /\n"
    )
}

#[test]
fn tools_get_their_caches_without_an_edit() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let mut project = Project::new(&engine);
        project.dockerfile = Some(installing(&base("busybox")));
        project.check_out();
        let image = project.image.clone();
        let plan = ["plan", "--network", "host", "--cache", "../cache", "-t", &image, "--auto-mounts", "."];
        let told = project.machine.hakobi(&plan).exits(0).stdout;
        assert!(told.contains("base/busybox:latest: a build looks into the image first"), "{name}: {told}");
        assert_eq!(project.compiled(&engine, &["--auto-mounts"]), "a b c d", "{name}");
        project.set("b.c", "b2\n");
        assert_eq!(project.compiled(&engine, &["--auto-mounts"]), "b", "{name}");
        let mount = &project.machine.report("../report.json")["mounts"][0];
        assert!(mount["id"].as_str().unwrap().ends_with(":/root/.npm/_cacache") && mount["reason"] == "", "{name}: {mount}");
        let again = project.build().with(&["--auto-mounts"]).done_on_empty(&engine);
        again.is("unchanged");
        // Another base image, of which nothing is known yet.
        project.dockerfile = Some(installing(&base("busybox").replace(":latest", ":2")));
        project.set("c.c", "c2\n");
        assert_eq!(project.compiled(&engine, &["--auto-mounts"]), "a b c d", "{name}: on another base");
        project.set("d.c", "d2\n");
        assert_eq!(project.compiled(&engine, &["--auto-mounts"]), "d", "{name}");
        // Without the flag it is another build, whose layers have all files.
        assert_eq!(project.compiled(&engine, &[]), "a b c d", "{name}");
        project.set("c.c", "c3\n");
        project.check_out();
        let told = project.machine.hakobi(&plan).exits(0).stdout;
        assert!(told.contains(":/root/.npm/_cacache: brings in"), "{name}: {told}");
    }
}

#[test]
fn files_of_a_base_image_are_not_hidden() {
    let engine = Engine::lock(D28);
    let bases = Project::new(&engine);
    for (text, is_free) in [
        ("COPY src /root/.npm/_cacache/", false),
        ("COPY src /root/.npm/", true),
        ("RUN mkdir -p /root/.npm/_cacache/a/b && touch /root/.npm/_cacache/a/empty", true),
        ("RUN mkdir -p /other && ln -s /other /root/.npm", false),
        ("RUN ln -s /nowhere /root/.npm", false),
        ("RUN echo x > /root/.npm", false),
    ] {
        bases.check_out();
        bases.machine.write("Dockerfile", &format!("FROM {}\n{text}\n", base("busybox")));
        bases.build().done();
        let mut project = Project::new(&engine);
        // It must build also where `npm` cannot write.
        project.dockerfile = Some(installing(&bases.image).replace("npm ci", "{ npm ci || true; }"));
        project.check_out();
        project.build().with(&["--auto-mounts"]).done_on_empty(&engine);
        let mounts = &project.machine.report("../report.json")["mounts"];
        let expected = if is_free { 1 } else { 0 };
        assert_eq!(mounts.as_array().unwrap().len(), expected, "{text}: {mounts}");
    }
}
