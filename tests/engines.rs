//! Tests the real binary on every engine: a cold build, then unchanged and changed builds on a wiped engine.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::engine::{C28, D20, D28, ENGINES, Engine, crane, skopeo};
use support::image::base;
use support::machine::{Machine, Run};
use support::parts::{part, unique};

/// Steps of a report that look like this.
fn steps(report: &Value, status: &str) -> Vec<String> {
    let steps = report["steps"].as_array().into_iter().flatten().filter(|step| step["status"] == status);
    steps.map(|step| step["instruction"].as_str().unwrap_or_default().to_owned()).collect()
}

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

struct Job<'a> {
    engine: &'a Engine,
    machine: &'a Machine,
    repository: String,
}

impl Job<'_> {
    /// The documented main job, on a machine whose Docker is empty.
    fn wiped(&self, tag: &str) -> Value {
        self.engine.wipe();
        let (tag, latest) = (format!("{}:{tag}", self.repository), format!("{}:latest", self.repository));
        self.machine
            .hakobi(&[
                "build",
                "--network",
                "host",
                "-t",
                &tag,
                "-t",
                &latest,
                "--cache-from",
                &latest,
                "--push",
                "--report",
                "report.json",
                ".",
            ])
            .exits(0);
        self.machine.report("report.json")
    }
}

fn unchanged_runs_hit_and_changes_rebuild_what_is_behind_them(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    two_stages(&machine);
    let job = Job {
        engine: &engine,
        machine: &machine,
        repository: format!("{}/{}", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("main-job")),
    };

    let cold = job.wiped("0");
    assert_eq!(cold["tier"], "cold");
    assert_eq!(cold["layers"]["pushed"], 2, "{cold:#}");
    assert_eq!(cold["layers"]["already_in_registry"], 1, "the base is mounted, not sent");
    let digest = cold["images"][0]["digest"].clone();

    for run in 1..=5 {
        let report = job.wiped(&run.to_string());
        assert_eq!(steps(&report, "miss"), [""; 0], "run {run}");
        assert_eq!(report["layers"]["pushed"], 0, "run {run}");
        assert_eq!(report["bytes"]["pushed"], 0, "run {run}");
        assert_eq!(report["images"][0]["digest"], digest, "run {run}: nothing changed, so the digest stays");
    }

    // A changed source: the stage's own slow step, and the runtime's, are found each time. Twice in a row, with a run without
    // change in between: that is where inline cache is known to lose records.
    for (run, changed) in [("6", "two\n"), ("7", "three\n"), ("8", "three\n"), ("9", "four\n")] {
        let again = machine.read("src.txt") == changed;
        machine.write("src.txt", changed);
        let report = job.wiped(run);
        let mut missed = steps(&report, "miss");
        missed.sort();
        let behind: &[&str] =
            if again { &[] } else { &["COPY --from=build /out /out", "COPY src.txt .", "RUN cat src.txt /toolchain > /out"] };
        assert_eq!(missed, behind, "run {run}");
        assert_eq!(report["layers"]["pushed"], u64::from(!again), "run {run}: {report:#}");
    }

    // Nothing of ours stays behind in the daemon.
    assert_eq!(engine.docker(&["images", "-q"]), "");

    // What was pushed runs on the other engines, and other tools take it. One engine at a time: a test that holds one while it
    // waits for another would wait for ever.
    let image = format!("{}:9", job.repository);
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
        for (source, missed) in [("one\n", 6), ("two\n", 3), ("two\n", 0)] {
            engine.wipe();
            machine.write("src.txt", source);
            let run = machine.hakobi(&[
                "build",
                "--network",
                "host",
                "-t",
                &release,
                "--cache-from",
                &release,
                "--cache-repository",
                &cache,
                "--push",
                "--report",
                "report.json",
                ".",
            ]);
            let run = run.exits(0);
            assert!(!run.stderr.contains("warning"), "{}", run.stderr);
            assert_eq!(steps(&machine.report("report.json"), "miss").len(), missed, "{name}, {source}");
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
        let machine_folder = machine.folder();
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
        let run = Run::of(machine.command(env!("CARGO_BIN_EXE_hakobi")).env("TOKEN", CANARY).args([
            "build",
            "--network",
            "host",
            "--secret",
            "id=file,src=token",
            "--secret",
            "id=variable,env=TOKEN",
            "-t",
            &repository,
            "--push",
            "--load",
            "--report",
            "report.json",
            "--metadata-file",
            "metadata.json",
            ".",
        ]))
        .exits(0);
        for text in [&run.stdout, &run.stderr, &machine.read("report.json"), &machine.read("metadata.json")] {
            assert!(!text.contains(CANARY));
        }
        let archive = machine_folder.join("image.tar");
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
        let run = machine.hakobi(&["build", "--network", "host", "--iidfile", "id", "--report", "report.json", "."]).exits(1);
        for words in ["Dockerfile:3", ">>> RUN echo on the way; exit 7", "on the way", "exit code: 7"] {
            assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
        }
        assert!(!machine.folder().join("id").exists(), "an image ID after a failure");
        assert_eq!(machine.report("report.json")["outcome"], "failure");

        machine.write("Dockerfile", &format!("FROM {}\nRUNN true\n", base("busybox")));
        let run = machine.hakobi(&["build", "."]).exits(1);
        assert!(run.stderr.contains("line 2") && run.stderr.contains("RUNN"), "{}", run.stderr);
    });
}

#[test]
fn odd_contexts_are_taken_as_docker_takes_them() {
    on_each(|_, machine| {
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
        // 3 GB that no one reads.
        std::fs::File::create(machine.folder().join("ignored/large")).unwrap().set_len(3 << 30).unwrap();
        machine.hakobi(&["build", "--network", "host", "--report", "report.json", "."]).exits(0);
        let sent = machine.report("report.json")["bytes"]["context"].as_u64().unwrap();
        assert!(sent < 10_000, "{sent} bytes were sent");

        let shell = |line: &str| Run::of(machine.command("sh").args(["-c", line])).exits(0);
        shell("tar --exclude ignored --exclude '*.log' -cf - . | hakobi build --network host -");
        shell(&format!("printf 'FROM {}\\nRUN true\\n' | hakobi build --network host -", base("busybox")));
        shell(&format!("printf 'FROM {}\\nCOPY kept /k\\n' | hakobi build -f - .", base("busybox")));
        let run = Run::of(machine.command("sh").args(["-c", "printf x | hakobi build -f - -"])).exits(2);
        assert!(run.stderr.contains("standard input"), "{}", run.stderr);
    });
}

#[test]
fn named_contexts_and_outputs() {
    // Docker 20.10's own frontend knows no named contexts.
    for name in [D28, C28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        machine
            .write("named/n.txt", "n\n")
            .write("Dockerfile", "FROM other AS o\nFROM scratch\nCOPY --from=nm n.txt /dir/n\nCOPY --from=o /etc/passwd /p\n");
        let other = format!("other=docker-image://{}", base("busybox"));
        machine.hakobi(&["build", "--build-context", "nm=named", "--build-context", &other, "-o", "out", "."]).exits(0);
        assert_eq!(machine.read("out/dir/n"), "n\n");
        assert!(machine.read("out/p").starts_with("root:"));
    }
    let engine = Engine::lock(D20);
    let machine = Machine::with(&engine.host());
    machine.write("named/n.txt", "n\n").write("Dockerfile", "FROM scratch\nCOPY --from=nm n.txt /n\n");
    let run = machine.hakobi(&["build", "--build-context", "nm=named", "."]).exits(1);
    assert!(run.stderr.contains("# syntax=docker/dockerfile:1"), "{}", run.stderr);
    machine.write("Dockerfile", "FROM scratch\nCOPY named /\n");
    machine.hakobi(&["build", "-o", "type=tar,dest=out.tar", "."]).exits(0);
    let mut archive = tar::Archive::new(std::fs::File::open(machine.folder().join("out.tar")).unwrap());
    assert!(archive.entries().unwrap().any(|entry| entry.unwrap().path().unwrap().ends_with("n.txt")));
}

#[test]
fn quiet_prints_the_id_and_nothing_else() {
    on_each(|engine, machine| {
        machine.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
        let name = unique("quiet");
        let run = machine.hakobi(&["build", "-q", "-t", &name, "--iidfile", "id", "."]).exits(0);
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
    let run = machine.hakobi(&["build", "--progress", "rawjson", "-o", "out", "."]).exits(0);
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
        machine.hakobi(&["build", "--network", "host", "--ssh", "default=key", "."]).exits(0);
    });
}
