//! Tests the real binary on every engine: a cold build, then unchanged and changed builds on a wiped engine.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::build::Build;
use support::engine::{C28, D20, D28, ENGINES, Engine, crane, skopeo};
use support::image::base;
use support::machine::{Machine, Run};
use support::parts::{part, unique};

/// A project whose first stage is the slow one.
fn two_stages(machine: &Machine) {
    let base = base("busybox");
    machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base} AS build\nWORKDIR /src\nRUN date +%N > /toolchain\nCOPY src.txt .\nRUN cat src.txt /toolchain > /out\n\
                 FROM {base}\nRUN echo runtime > /runtime\nCOPY --from=build /out /out\nCMD [\"head\", \"-1\", \"/out\"]\n"
            ),
        )
        .write("src.txt", "one\n");
}

fn unchanged_runs_hit_and_changes_rebuild_what_is_behind_them(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let repository = format!("{}/{}", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("main-job"));
    let latest = format!("{repository}:latest");
    // The documented main job, on a machine whose Docker is empty.
    let job = |tag: &str| {
        let build = Build::new(&machine).report("report.json").push(&format!("{repository}:{tag}")).tag(&latest);
        build.with(&["--cache-from", &latest]).done_on_empty(&engine)
    };

    let cold = job("0").is("cold");
    assert_eq!(cold.layers("pushed"), 2, "{cold}");
    assert_eq!(cold.layers("already_in_registry"), 1, "the base is mounted, not sent");

    for run in 1..=5 {
        let built = job(&run.to_string());
        assert_eq!(built.misses(), [""; 0], "run {run}");
        assert_eq!((built.layers("pushed"), built.bytes("pushed")), (0, 0), "run {run}");
        assert_eq!(built.digest(), cold.digest(), "run {run}: nothing changed, so the digest stays");
    }

    // A changed source: the stage's own slow step, and the runtime's, are found each time. Twice in a row, with a run without
    // change in between: that is where inline cache is known to lose records.
    for (run, changed) in [("6", "two\n"), ("7", "three\n"), ("8", "three\n"), ("9", "four\n")] {
        let again = machine.read("src.txt") == changed;
        machine.write("src.txt", changed);
        let built = job(run);
        let behind: &[&str] =
            if again { &[] } else { &["COPY src.txt .", "RUN cat src.txt /toolchain > /out", "COPY --from=build /out /out"] };
        assert_eq!(built.misses(), behind, "run {run}");
        assert_eq!(built.layers("pushed"), u64::from(!again), "run {run}: {built}");
    }

    // Nothing of ours stays behind in the daemon.
    assert_eq!(engine.docker(&["images", "-q"]), "");

    // What was pushed runs on the other engines, and other tools take it. One engine at a time: a test that holds one while it
    // waits for another would wait for ever.
    let image = format!("{repository}:9");
    drop(engine);
    for other in ENGINES.into_iter().filter(|other| *other != name) {
        let printed = Engine::lock(other).docker(&["run", "--rm", "--network", "host", &image]);
        assert_eq!(printed.lines().last(), Some("four"), "{other}");
    }
    let inspected: Value = serde_json::from_str(&skopeo(&["inspect", &format!("docker://{image}")])).expect("JSON");
    assert_eq!(inspected["Architecture"], "amd64");
    let manifest: Value = serde_json::from_str(&crane(&["manifest", &image])).expect("JSON");
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_main_job_on_docker_20() {
    unchanged_runs_hit_and_changes_rebuild_what_is_behind_them(D20);
}

#[test]
fn the_main_job_on_docker_28() {
    unchanged_runs_hit_and_changes_rebuild_what_is_behind_them(D28);
}

#[test]
fn the_main_job_on_the_containerd_store() {
    unchanged_runs_hit_and_changes_rebuild_what_is_behind_them(C28);
}

/// The stages' cache in a repository of its own: nothing but the release's own tags stands beside the release.
#[test]
fn the_stages_cache_can_stand_elsewhere() {
    for name in [D20, D28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        two_stages(&machine);
        let registry = part("HAKOBI_TEST_REGISTRY_OPEN");
        let (release, cache) = (format!("{registry}/{}:latest", unique("release")), format!("{registry}/{}:c", unique("cache")));
        let build = Build::new(&machine).report("report.json").push(&release);
        let build = build.with(&["--cache-from", &release, "--cache-repository", &cache]);
        for (source, missed) in [("one\n", 6), ("two\n", 3), ("two\n", 0)] {
            machine.write("src.txt", source);
            let built = build.done_on_empty(&engine);
            assert!(!built.log().contains("warning"), "{built}");
            assert_eq!(built.misses().len(), missed, "{name}, {source}");
        }
        assert_eq!(crane(&["ls", release.trim_end_matches(":latest")]), "latest");
    }
}

/// On each engine, with a project of its own.
fn on_each(test: impl Fn(&Engine, &Machine)) {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        test(&engine, &machine);
    }
}

#[test]
fn a_secret_reaches_its_step_and_nothing_else() {
    const CANARY: &str = "canary-7f3a9c";
    on_each(|engine, machine| {
        machine.write("token", CANARY).write(
            "Dockerfile",
            &format!(
                "FROM {}\nRUN --mount=type=secret,id=file --mount=type=secret,id=variable \
                 test $(wc -c < /run/secrets/file) = {length} && test $(wc -c < /run/secrets/variable) = {length}\n",
                base("busybox"),
                length = CANARY.len()
            ),
        );
        let repository = format!("{}/{}", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("secret"));
        let build = Build::new(machine).report("report.json").push(&repository);
        let build = build.with(&["--secret", "id=file,src=token", "--secret", "id=variable,env=TOKEN"]);
        let build = build.with(&["--load", "--metadata-file", "metadata.json"]);
        let run = Run::of(build.command().env("TOKEN", CANARY)).exits(0);
        for text in [&run.stdout, &run.stderr, &machine.read("report.json"), &machine.read("metadata.json")] {
            assert!(!text.contains(CANARY));
        }
        let archive = machine.folder().join("image.tar");
        engine.docker(&["save", "-o", &archive.to_string_lossy(), &repository]);
        let archive = std::fs::read(archive).unwrap();
        assert!(!archive.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes()), "the secret is in the image");
    });
}

#[test]
fn a_failure_shows_the_users_line_and_the_whole_log() {
    on_each(|_, machine| {
        machine
            .write("Dockerfile", &format!("FROM {}\nRUN true\nRUN echo on the way; exit 7\n", base("busybox")))
            .write("id", "stale");
        let run = Build::new(machine).report("report.json").with(&["--iidfile", "id"]).run().exits(1);
        for words in ["Dockerfile:3", ">>> RUN echo on the way; exit 7", "on the way", "exit code: 7"] {
            assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
        }
        assert!(!machine.folder().join("id").exists(), "an image ID after a failure");
        assert_eq!(machine.report("report.json")["outcome"], "failure");
    });
}

#[test]
fn an_unknown_instruction_shows_its_line() {
    on_each(|_, machine| {
        machine.write("Dockerfile", &format!("FROM {}\nRUNN true\n", base("busybox")));
        let run = Build::new(machine).run().exits(1);
        assert!(run.stderr.contains("line 2") && run.stderr.contains("RUNN"), "{}", run.stderr);
    });
}

/// A context with files that .dockerignore leaves out, and a Dockerfile whose build fails if they are in the image.
fn with_ignored_files(machine: &Machine) {
    let dockerfile = format!(
        "FROM {}\nCOPY . /c\nRUN test -L /c/broken && test ! -e /c/ignored && test ! -e /c/kept/x.log && test -f /c/kept/y.txt\n",
        base("busybox")
    );
    machine
        .write("Dockerfile", &dockerfile)
        .write(".dockerignore", "ignored\n**/*.log\n")
        .write("kept/x.log", "x")
        .write("kept/y.txt", "y")
        .write("ignored/small", "x");
    std::os::unix::fs::symlink("nowhere", machine.folder().join("broken")).unwrap();
}

#[test]
fn ignored_files_are_not_sent() {
    on_each(|_, machine| {
        with_ignored_files(machine);
        // 3 GB that no one reads.
        std::fs::File::create(machine.folder().join("ignored/large")).unwrap().set_len(3 << 30).unwrap();
        let built = Build::new(machine).report("report.json").done();
        assert!(built.bytes("context") < 10_000, "{built}");
    });
}

#[test]
fn a_context_or_a_dockerfile_comes_through_standard_input() {
    on_each(|_, machine| {
        with_ignored_files(machine);
        let shell = |line: &str| Run::of(machine.command("sh").args(["-c", line])).exits(0);
        shell("tar --exclude ignored --exclude '*.log' -cf - . | hakobi build --network host -");
        shell(&format!("printf 'FROM {}\\nRUN true\\n' | hakobi build --network host -", base("busybox")));
        shell(&format!("printf 'FROM {}\\nCOPY kept /k\\n' | hakobi build -f - .", base("busybox")));
        let run = Run::of(machine.command("sh").args(["-c", "printf x | hakobi build -f - -"])).exits(2);
        assert!(run.stderr.contains("standard input"), "{}", run.stderr);
    });
}

#[test]
fn named_contexts_are_copied_from() {
    for name in [D28, C28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        machine
            .write("named/n.txt", "n\n")
            .write("Dockerfile", "FROM other AS o\nFROM scratch\nCOPY --from=nm n.txt /dir/n\nCOPY --from=o /etc/passwd /p\n");
        let other = format!("other=docker-image://{}", base("busybox"));
        let build = Build::new(&machine).with(&["--build-context", "nm=named", "--build-context", &other, "-o", "out"]);
        build.run().exits(0);
        assert_eq!(machine.read("out/dir/n"), "n\n");
        assert!(machine.read("out/p").starts_with("root:"));
    }
}

#[test]
fn named_contexts_need_a_newer_frontend_than_docker_20s_own() {
    let engine = Engine::lock(D20);
    let machine = Machine::with(&engine.host());
    machine.write("named/n.txt", "n\n").write("Dockerfile", "FROM scratch\nCOPY --from=nm n.txt /n\n");
    let run = Build::new(&machine).with(&["--build-context", "nm=named"]).run().exits(1);
    assert!(run.stderr.contains("# syntax=docker/dockerfile:1"), "{}", run.stderr);
}

#[test]
fn an_output_is_an_archive_on_docker_20() {
    let engine = Engine::lock(D20);
    let machine = Machine::with(&engine.host());
    machine.write("named/n.txt", "n\n").write("Dockerfile", "FROM scratch\nCOPY named /\n");
    Build::new(&machine).with(&["-o", "type=tar,dest=out.tar"]).run().exits(0);
    let mut archive = tar::Archive::new(std::fs::File::open(machine.folder().join("out.tar")).unwrap());
    assert!(archive.entries().unwrap().any(|entry| entry.unwrap().path().unwrap().ends_with("n.txt")));
}

#[test]
fn quiet_prints_the_id_and_nothing_else() {
    on_each(|engine, machine| {
        machine.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
        let name = unique("quiet");
        let run = Build::new(machine).tag(&name).with(&["-q", "--iidfile", "id"]).run().exits(0);
        assert_eq!(run.stderr, "");
        assert_eq!(run.stdout.trim(), machine.read("id"));
        assert_eq!(engine.docker(&["image", "inspect", "--format", "{{.Id}}", &name]), machine.read("id"));
        engine.docker(&["image", "rm", &name]);
    });
}

#[test]
fn raw_json_is_what_buildx_prints() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    machine.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    let run = Build::new(&machine).progress("rawjson").with(&["-o", "out"]).run().exits(0);
    let lines: Vec<Value> = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let vertex = lines.iter().flat_map(|line| line["vertexes"].as_array().into_iter().flatten()).find(|vertex| {
        vertex["name"].as_str().is_some_and(|name| name.contains("COPY Dockerfile /d")) && vertex["completed"].is_string()
    });
    assert!(vertex.is_some_and(|vertex| vertex["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:"))));
}

#[test]
fn ssh_keys_and_agents_are_forwarded() {
    on_each(|_, machine| {
        machine.write("Dockerfile", &format!("FROM {}\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK\n", base("busybox")));
        Run::of(machine.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", "key"])).exits(0);
        Build::new(machine).with(&["--ssh", "default=key"]).run().exits(0);
    });
}
